// test_impair_waits.c - impaired handles: what is waited for, and what moves
// though nobody calls
//
// In virtual time but for the system's sockets, where waits are counted.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#define MS INT64_C(1000000)

static nkt_env env;
static char scratch[300000];

static nkt_impairment perfect(void) {
    nkt_impairment bad;
    memset(&bad, 0, sizeof bad);
    bad.seed = 5;
    return bad;
}

static void pair_of(nkt_conn **a, nkt_conn **b) {
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    opts.nonblocking = true;
    *a = *b = NULL;
    CHECK_INT(nkt_env_init_virtual(&env, 3), NKT_OK);
    CHECK_INT(nkt_conn_pair(&opts, &opts, a, b), NKT_OK);
}

static nkt_poller *poller_of(nkt_conn *conn) {
    nkt_poller_opts opts;
    nkt_poller *poller = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(poller, conn, NULL), NKT_OK);
    return poller;
}

static void done(nkt_poller *poller, nkt_conn *a, nkt_conn *b) {
    nkt_conn_abort(a);
    nkt_conn_abort(b);
    nkt_poller_close(poller);
    nkt_env_free(&env);
}

// Until an instant, whatever there is to tell.
static void run_until(nkt_poller *poller, int64_t ms) {
    nkt_event event;
    char in[64];
    int64_t now = nkt_now_ns(&env) / MS;
    for (int turns = 0; now < ms && turns < 1000; turns++, now = nkt_now_ns(&env) / MS) {
        CHECK(nkt_poller_wait(poller, (int32_t)(ms - now)) >= 0);
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            while (nkt_conn_read(event.conn, in, sizeof in) > 0) {
            }
        }
    }
    CHECK_INT(now, ms);
}

// --- Descriptors that are not read from --------------------------------------

typedef struct unread {
    const char *name;
    nkt_impairment bad;
    bool ends;
} unread;

// How often a poller wakes in 200 ms.
static void count_waits(const unread *row) {
    nkt_listen_opts opts;
    nkt_listener *listener;
    nkt_conn *client = NULL, *server = NULL;
    nkt_poller *poller;
    nkt_event event;
    nkt_addr addr;
    char target[NKT_ADDR_TEXT_MAX], in[4096];
    int waits = 0;
    memset(&opts, 0, sizeof opts);
    opts.nonblocking = true;
    CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_OK);
    CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
    CHECK(nkt_addr_format(&addr, target, sizeof target) > 0);
    CHECK_INT(nkt_connect(target, NULL, &client), NKT_OK);
    for (int i = 0; i < 2000 && nkt_accept(listener, &server) == NKT_EAGAIN; i++) {
        nkt_sleep(NULL, 1);
    }
    CHECK(client != NULL && server != NULL);
    CHECK_INT(nkt_poller_open(NULL, &poller), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(poller, server, NULL), NKT_OK);
    CHECK_INT(nkt_conn_impair_ways(server, NULL, &row->bad), NKT_OK);
    CHECK_INT(nkt_conn_set_option(client, NKT_OPT_WRITE_TIMEOUT_MS, 20), NKT_OK);
    nkt_conn_write(client, scratch, row->ends ? 10 : sizeof scratch);
    if (row->ends) CHECK_INT(nkt_conn_shutdown_write(client), NKT_OK);
    int64_t end = nkt_now_ns(NULL) + 200 * MS;
    for (; nkt_now_ns(NULL) < end && waits < 5000; waits++) {
        CHECK(nkt_poller_wait(poller, 50) >= 0);
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            while (nkt_conn_read(event.conn, in, sizeof in) > 0) {
            }
        }
    }
    CHECK(waits < 500);
    nkt_conn_abort(client);
    nkt_conn_abort(server);
    nkt_poller_close(poller);
    nkt_listener_close(listener);
}

static void unread_descriptors(void) {
    unread rows[4];
    memset(rows, 0, sizeof rows);
    for (int i = 0; i < 4; i++) rows[i].bad = perfect();
    rows[0].name = "a stalled reader's poller sleeps";
    rows[0].bad.stall = 1;
    rows[0].bad.stall_ms = 5000;
    rows[1].name = "so does one whose queue for the rate is full";
    rows[1].bad.rate = 10000;
    rows[1].bad.queue_bytes = 3000;
    rows[2].name = "one that was cut";
    rows[2].bad.cut = NKT_CUT_SILENT;
    rows[2].bad.cut_bytes = 5;
    rows[3].name = "one that waits for the end to come";
    rows[3].bad.latency_ms = 5000;
    rows[3].ends = true;
    for (int i = 0; i < 4; i++) {
        TEST(rows[i].name) count_waits(&rows[i]);
    }
}

// --- Ends --------------------------------------------------------------------

static void ends(void) {
    nkt_conn *a, *b;
    char in[10];
    TEST("an end at a time comes though nobody writes") {
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_END;
        bad.cut_ms = 50;
        bad.latency_ms = 7;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        nkt_poller *poller = poller_of(a);
        run_until(poller, 56);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), NKT_EAGAIN);
        run_until(poller, 57);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), NKT_EOF);
        CHECK_INT(nkt_conn_write_str(a, "x"), NKT_EPIPE);
        done(poller, a, b);
    }
    TEST("a silent cut swallows the end, too") {
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_SILENT;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        nkt_poller *poller = poller_of(a);
        CHECK_INT(nkt_conn_shutdown_write(a), NKT_OK);
        run_until(poller, 1000);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), NKT_EAGAIN);
        done(poller, a, b);
    }
    TEST("what a gone peer does not get is lost, each segment once") {
        nkt_impairment bad = perfect();
        nkt_impair_stats stats;
        bad.latency_ms = 7;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        nkt_poller *poller = poller_of(a);
        CHECK_INT(nkt_conn_write(a, scratch, 1460 * 3), NKT_OK);
        nkt_conn_close(b);
        run_until(poller, 100);
        CHECK_INT(nkt_conn_impair_stats(a, NKT_WRITE, &stats), NKT_OK);
        CHECK_INT(stats.sent, 3);
        CHECK_INT(stats.delivered, 0);
        CHECK_INT(stats.lost, 3);
        CHECK_INT(stats.under_way, 0);
        done(poller, a, NULL);
    }
}

// --- Settings ----------------------------------------------------------------

static void settings(void) {
    nkt_conn *a, *b;
    char in[10];
    TEST("two outages, one behind the other, are one") {
        static const nkt_impair_step steps[] = { { 0, 100, NULL }, { 100, 100, NULL } };
        nkt_impairment bad = perfect();
        bad.latency_ms = 5;
        bad.steps = steps;
        bad.step_count = 2;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        nkt_poller *poller = poller_of(a);
        CHECK_INT(nkt_conn_write_str(a, "x"), NKT_OK);
        run_until(poller, 204);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), NKT_EAGAIN);
        run_until(poller, 205);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), 1);
        done(poller, a, b);
    }
    TEST("a schedule that is just as long as its period") {
        static const nkt_impair_step step = { 0.1, 0.2, NULL };
        nkt_impairment bad = perfect();
        bad.steps = &step;
        bad.step_count = 1;
        bad.repeat_ms = 0.3;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        done(NULL, a, b);
    }
    TEST("what waited for the settings to change is sent") {
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_SILENT;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        nkt_poller *poller = poller_of(a);
        CHECK_INT(nkt_poller_want(poller, a, NKT_WRITE), NKT_OK);
        CHECK_INT(nkt_conn_write_str(a, "x"), NKT_OK);
        run_until(poller, 10);
        bad.cut = NKT_CUT_NONE;
        bad.latency_ms = 5;
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        run_until(poller, 20);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), 1);
        done(poller, a, b);
    }
}

static void sockets(void) {
    TEST("the headers of IPv6 count for a connected peer, too") {
        nkt_udp *c, *d;
        nkt_addr to;
        nkt_impair_stats stats;
        nkt_impairment bad = perfect();
        bad.mtu = 100;
        CHECK_INT(nkt_udp_open("[::1]:0", NULL, &c), NKT_OK);
        CHECK_INT(nkt_udp_open("[::1]:0", NULL, &d), NKT_OK);
        CHECK_INT(nkt_udp_local(d, &to), NKT_OK);
        CHECK_INT(nkt_udp_connect_addr(c, &to), NKT_OK);
        CHECK_INT(nkt_udp_impair(c, &bad), NKT_OK);
        CHECK_INT(nkt_udp_send(c, scratch, 52, NULL), 52);
        CHECK_INT(nkt_udp_send(c, scratch, 53, NULL), 53);
        CHECK_INT(nkt_udp_impair_stats(c, NKT_WRITE, &stats), NKT_OK);
        CHECK_INT(stats.delivered, 1);
        CHECK_INT(stats.oversized, 1);
        nkt_udp_close(c);
        nkt_udp_close(d);
    }
    TEST("a listener that is impaired no more leaves alone what it accepts") {
        nkt_listener *listener;
        nkt_conn *client, *server;
        nkt_impair_stats stats;
        nkt_addr addr;
        char target[NKT_ADDR_TEXT_MAX];
        nkt_impairment bad = perfect();
        bad.latency_ms = 1;
        CHECK_INT(nkt_listen("127.0.0.1:0", NULL, &listener), NKT_OK);
        CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
        CHECK(nkt_addr_format(&addr, target, sizeof target) > 0);
        CHECK_INT(nkt_listener_impair(listener, &bad), NKT_OK);
        CHECK_INT(nkt_listener_impair(listener, NULL), NKT_OK);
        CHECK_INT(nkt_connect(target, NULL, &client), NKT_OK);
        CHECK_INT(nkt_accept(listener, &server), NKT_OK);
        CHECK_INT(nkt_conn_impair_stats(server, NKT_READ, &stats), NKT_ENOTFOUND);
        nkt_conn_close(client);
        nkt_conn_close(server);
        nkt_listener_close(listener);
    }
}

// --- Without threads ---------------------------------------------------------

static int no_thread(nkt_env *of, void (*run)(void *arg), void *arg) {
    (void)of, (void)run, (void)arg;
    return NKT_ENOMEM;
}

static void without_threads(void) {
    TEST("where no thread can be had, a read moves what is to be sent") {
        static const nkt_sys_threads none = { sizeof(nkt_sys_threads), no_thread };
        nkt_conn_opts opts;
        nkt_conn *a, *b;
        char in[10];
        nkt_impairment bad = perfect();
        bad.latency_ms = 20;
        CHECK_INT(nkt_env_init(&env), NKT_OK);
        env.threads = &none;
        memset(&opts, 0, sizeof opts);
        opts.env = &env;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        CHECK_INT(nkt_conn_set_option(a, NKT_OPT_READ_TIMEOUT_MS, 200), NKT_OK);
        CHECK_INT(nkt_conn_set_option(b, NKT_OPT_READ_TIMEOUT_MS, 1), NKT_OK);
        CHECK_INT(nkt_conn_write_str(a, "x"), NKT_OK);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), NKT_ETIMEDOUT);
        CHECK_INT(nkt_conn_read(a, in, sizeof in), NKT_ETIMEDOUT);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), 1);
        done(NULL, a, b);
    }
}

int main(void) {
    unread_descriptors();
    ends();
    settings();
    sockets();
    without_threads();
    return test_finish();
}
