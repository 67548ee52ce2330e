// What an idle connection costs: memory, and time in each wait of a poller.
//
//     cc -O2 -I. tests/bench/bench_idle.c -o build/bench_idle -pthread
//
// Connects to itself over loopback; both ends of each connection are in one
// poller. One connection sends a line to and fro, the others are idle. The
// memory is what netkit allocates; the system's own comes on top. Two pollers,
// with few and with many connections, take turns; the median of 7 is shown.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <stdlib.h>

#define FEW 10
#define MANY 450            // two descriptors each, and 1,024 are common
#define TURNS 2000
#define RUNS 7

typedef struct room {
    nkt_poller *poller;
    nkt_conn *ends[2 * MANY];
    int count;
    double bytes_each;      // for one end
    double runs_ns[RUNS];
} room;

static nkt_env env;
static nkt_listener *listener;
static room few = {NULL, {NULL}, FEW, 0, {0}}, many = {NULL, {NULL}, MANY, 0, {0}};
static size_t used;

static void check(int err, const char *what) {
    if (err >= 0) return;
    printf("%s: %s\n", what, nkt_strerror(err));
    exit(1);
}

static void *counted(nkt_env *who, void *ptr, size_t old_size, size_t new_size) {
    (void)who;
    used = used - old_size + new_size;
    if (new_size > 0) return realloc(ptr, new_size);
    free(ptr);
    return NULL;
}

// Sends a line to and fro between the ends of the first connection.
static void ping_pong(room *in, int turns) {
    check(nkt_conn_write_str(in->ends[0], "ping\n"), "nkt_conn_write_str");
    while (turns > 0) {
        nkt_event event;
        check(nkt_poller_wait(in->poller, -1), "nkt_poller_wait");
        while (nkt_poller_next(in->poller, &event) == NKT_OK) {
            nkt_str line;
            while (nkt_conn_read_line(event.conn, &line) == NKT_OK)
                if (--turns > 0) check(nkt_conn_write_str(event.conn, "ping\n"), "write");
        }
    }
}

static void fill(room *in) {
    nkt_addr addr;
    nkt_connect_opts opts = {0};
    nkt_poller_opts poller_opts = {&env, false};
    opts.env = &env;
    opts.nonblocking = true;
    check(nkt_listener_local(listener, &addr), "nkt_listener_local");
    check(nkt_poller_open(&poller_opts, &in->poller), "nkt_poller_open");
    size_t before = used;
    for (int i = 0; i < in->count; i++) {
        nkt_conn **two = &in->ends[2 * i];
        int err;
        check(nkt_connect_addr(&addr, &opts, &two[0]), "nkt_connect_addr");
        while ((err = nkt_connect_finish(two[0])) == NKT_EAGAIN) {}
        check(err, "nkt_connect_finish");
        while ((err = nkt_accept(listener, &two[1])) == NKT_EAGAIN) {}
        check(err, "nkt_accept");
        check(nkt_poller_add_conn(in->poller, two[0], NULL), "nkt_poller_add_conn");
        check(nkt_poller_add_conn(in->poller, two[1], NULL), "nkt_poller_add_conn");
    }
    in->bytes_each = (double)(used - before) / (2.0 * in->count);
    ping_pong(in, 1000);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_ns(room *in) {
    qsort(in->runs_ns, RUNS, sizeof in->runs_ns[0], by_size);
    return in->runs_ns[RUNS / 2];
}

int main(void) {
    check(nkt_env_init(&env), "nkt_env_init");
    env.allocate = counted;
    nkt_listen_opts opts = {0};
    opts.env = &env;
    opts.nonblocking = true;
    check(nkt_listen("127.0.0.1:0", &opts, &listener), "nkt_listen");
    fill(&few);
    fill(&many);
    printf("idle connection         %6.0f bytes at each end\n", many.bytes_each);
    for (int run = 0; run < RUNS; run++) {
        for (room *in = &few; in != NULL; in = in == &few ? &many : NULL) {
            int64_t begin = nkt_now_ns(&env);
            ping_pong(in, TURNS);
            in->runs_ns[run] = (double)(nkt_now_ns(&env) - begin) / TURNS;
        }
    }
    printf("%3d idle beside it      %6.0f ns for a wait and a line\n", FEW - 1, median_ns(&few));
    printf("%3d idle beside it      %6.0f ns\n", MANY - 1, median_ns(&many));
    return 0;
}
