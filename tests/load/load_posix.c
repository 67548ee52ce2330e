// load_posix.c - many clients of the chat server in one process, for test_load.py
//
//     load HOST:PORT COUNT MEMBERS
//
// Connects COUNT clients. MEMBERS of them go to a room of their own, the others
// are idle. Then it does what lines on its standard input say, and answers:
//
//     talk RATE SECONDS   members send so many numbered lines a second in all;
//                         each one checks that it hears every line of every
//                         other one once and in order
//     ping N              a line from one member to the next, N times
//     check               says how many clients are still connected
//     quit

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { SENDERS = 10, MEMBERS_MAX = 100, UNDER_WAY_MAX = 200 };

typedef struct client {
    nkt_conn *conn;
    int index;
    bool connected, welcome, member;
    long heard[SENDERS];        // the number that the next line of each must have
} client;

static nkt_poller *poller;
static client *clients;
static int count, members, under_way, welcomed, joined, alive;
static long delivered, wrong, sent[SENDERS], pings;
static int64_t ping_at;         // when the last one came

static void fail(const char *what, int err) {
    printf("failed: %s: %s\n", what, nkt_strerror(err));
    exit(1);
}

// "guest12: s 3 00000017 ..." or "guest12: ping".
static void hear(client *who, nkt_str line) {
    const char *at = line.ptr;
    if (nkt_str_begins(line, "* welcome")) {
        who->welcome = true;
        welcomed++;
    } else if (nkt_str_begins(line, "* you are in load")) {
        joined++;
    } else if (nkt_str_begins(line, "* you missed")) {
        wrong++;
    } else if ((at = strstr(line.ptr, ": s ")) != NULL) {
        char *end;
        long sender = strtol(at + 4, &end, 10);
        long number = strtol(end, NULL, 10);
        if (sender < 0 || sender >= SENDERS || number != who->heard[sender]) wrong++;
        else delivered++;
        if (sender >= 0 && sender < SENDERS) who->heard[sender] = number + 1;
    } else if (strstr(line.ptr, ": ping") != NULL) {
        if (who->index == 1) {
            pings++;
            ping_at = nkt_now_ns(NULL);
        }
    }
}

static void attend(client *who, uint32_t events) {
    nkt_str line;
    int err;
    if ((events & NKT_CONNECTED) != 0 && !who->connected) {
        err = nkt_connect_finish(who->conn);
        if (err < 0) fail("connecting", err);
        who->connected = true;
        under_way--;
        alive++;
    }
    while ((err = nkt_conn_read_line(who->conn, &line)) == NKT_OK) hear(who, line);
    if (err == NKT_EAGAIN) return;
    if (!who->connected) fail("connecting", err);
    nkt_conn_close(who->conn);
    who->conn = NULL;
    alive--;
}

static void turn(int32_t timeout_ms) {
    nkt_event event;
    int err = nkt_poller_wait(poller, timeout_ms);
    if (err < 0) fail("waiting", err);
    while (nkt_poller_next(poller, &event) == NKT_OK) attend((client *)event.user, event.events);
}

static void connect_all(const char *target) {
    for (int i = 0; i < count; i++) {
        nkt_connect_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.nonblocking = true;
        clients[i].index = i;
        int err = nkt_connect(target, &opts, &clients[i].conn);
        if (err >= 0) err = nkt_poller_add_conn(poller, clients[i].conn, &clients[i]);
        if (err < 0) fail("connecting", err);
        under_way++;
        while (i - welcomed > UNDER_WAY_MAX) turn(-1);
    }
    while (under_way > 0 || welcomed < count) turn(-1);
    for (int i = 0; i < members; i++) {
        clients[i].member = true;
        nkt_conn_write_str(clients[i].conn, "/join load\n");
    }
    while (joined < members) turn(-1);
}

static void say_one(long i) {
    char line[80];
    int sender = (int)(i % SENDERS);
    snprintf(line, sizeof line, "s %d %08ld %s\n", sender, sent[sender],
             "abcdefghijklmnopqrstuvwxyz");
    int err = nkt_conn_write_str(clients[sender].conn, line);
    if (err < 0) fail("sending", err);
    sent[sender]++;
}

// The clock, not the load, says when a line is sent.
static void talk(long rate, long seconds) {
    long total = rate * seconds, at = 0;
    int64_t start = nkt_now_ns(NULL);
    delivered = wrong = 0;
    while (at < total) {
        int64_t now = nkt_now_ns(NULL);
        while (at < total && start + at * (INT64_C(1000000000) / rate) <= now) say_one(at++);
        turn(1);
    }
    int64_t all_sent = nkt_now_ns(NULL);
    long want = total * (members - 1);
    while (delivered + wrong < want && nkt_now_ns(NULL) - all_sent < INT64_C(180000000000)) {
        turn(100);
    }
    printf("talked: %ld sent in %.1f s, %ld delivered of %ld, %ld wrong, the last after %.0f ms\n",
           total, (double)(all_sent - start) / 1e9, delivered, want, wrong,
           (double)(nkt_now_ns(NULL) - all_sent) / 1e6);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void ping(long n) {
    double ms[101];
    long have = 0;
    for (; have < n && have < 101; have++) {
        long before = pings;
        int64_t start = nkt_now_ns(NULL);
        nkt_conn_write_str(clients[0].conn, "ping\n");
        while (pings == before && nkt_now_ns(NULL) - start < INT64_C(10000000000)) turn(100);
        ms[have] = (double)((pings > before ? ping_at : nkt_now_ns(NULL)) - start) / 1e6;
    }
    qsort(ms, (size_t)have, sizeof ms[0], compare);
    printf("pinged: median %.3f ms, worst %.3f ms of %ld\n", ms[have / 2], ms[have - 1], have);
}

int main(int argc, char **argv) {
    char line[80];
    struct rlimit limit;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 4) return 1;
    count = (int)strtol(argv[2], NULL, 10);
    members = (int)strtol(argv[3], NULL, 10);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    clients = (client *)calloc((size_t)count, sizeof *clients);
    if (clients == NULL || nkt_poller_open(NULL, &poller) < 0) return 1;
    connect_all(argv[1]);
    printf("ready: %d connected\n", alive);
    while (fgets(line, sizeof line, stdin) != NULL && line[0] != 'q') {
        char *end = line + 4;
        long first = strtol(end, &end, 10);
        long second = strtol(end, NULL, 10);
        if (strncmp(line, "talk", 4) == 0) talk(first, second);
        else if (strncmp(line, "ping", 4) == 0) ping(first);
        else {
            turn(0);
            printf("alive: %d\n", alive);
        }
    }
    return 0;
}
