// test_impair_threads.c - impaired handles: who waits while another thread
// changes them, and what leaves by netkit's own thread
//
// In virtual time: the threads run one at a time, so that instants are exact.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#define MS INT64_C(1000000)

static nkt_env env;

static struct {
    nkt_conn *conn;
    nkt_udp *udp;
    ptrdiff_t result;
    int at_ms;
} reader;

static int now_ms(void) {
    return (int)(nkt_now_ns(&env) / MS);
}

static nkt_impairment perfect(void) {
    nkt_impairment bad;
    memset(&bad, 0, sizeof bad);
    bad.seed = 5;
    return bad;
}

static void pair_of(bool nonblocking, nkt_conn **a, nkt_conn **b) {
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    memset(&reader, 0, sizeof reader);
    opts.env = &env;
    CHECK_INT(nkt_env_init_virtual(&env, 3), NKT_OK);
    nkt_conn_opts of_a = opts;
    of_a.nonblocking = nonblocking;
    CHECK_INT(nkt_conn_pair(&of_a, &opts, a, b), NKT_OK);
    CHECK_INT(nkt_conn_set_option(*b, NKT_OPT_READ_TIMEOUT_MS, 5000), NKT_OK);
}

static void done(nkt_conn *a, nkt_conn *b) {
    nkt_conn_abort(a);
    nkt_conn_abort(b);
    nkt_env_free(&env);
}

static void read_some(void *arg) {
    char in[10];
    (void)arg;
    reader.result = nkt_conn_read(reader.conn, in, sizeof in);
    reader.at_ms = now_ms();
}

static void recv_one(void *arg) {
    char in[10];
    (void)arg;
    reader.result = nkt_udp_recv(reader.udp, in, sizeof in, NULL);
    reader.at_ms = now_ms();
}

static void changed_meanwhile(void) {
    nkt_conn *a, *b;
    TEST("who reads hears that an outage is over") {
        nkt_impairment bad = perfect();
        bad.loss = 1;
        pair_of(false, &a, &b);
        CHECK_INT(nkt_conn_set_option(a, NKT_OPT_READ_TIMEOUT_MS, 5000), NKT_OK);
        CHECK_INT(nkt_conn_impair_ways(a, NULL, &bad), NKT_OK);
        CHECK_INT(nkt_conn_write_str(b, "hi"), NKT_OK);
        reader.conn = a;
        CHECK_INT(nkt_thread_start(&env, read_some, NULL), NKT_OK);
        nkt_sleep(&env, 100);
        bad.loss = 0;
        bad.latency_ms = 5;
        CHECK_INT(nkt_conn_impair_ways(a, NULL, &bad), NKT_OK);
        nkt_sleep(&env, 6000);
        CHECK_INT(reader.result, 2);
        CHECK_INT(reader.at_ms, 105);
        done(a, b);
    }
    TEST("who reads hears of the reset that a write came to") {
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_RESET;
        bad.cut_bytes = 2;
        pair_of(false, &a, &b);
        CHECK_INT(nkt_conn_set_option(a, NKT_OPT_READ_TIMEOUT_MS, 5000), NKT_OK);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        reader.conn = a;
        CHECK_INT(nkt_thread_start(&env, read_some, NULL), NKT_OK);
        nkt_sleep(&env, 100);
        CHECK_INT(nkt_conn_write_str(a, "four"), NKT_ERESET);
        nkt_sleep(&env, 6000);
        CHECK_INT(reader.result, NKT_ERESET);
        CHECK_INT(reader.at_ms, 100);
        done(a, b);
    }
    TEST("who receives datagrams goes by the new settings") {
        nkt_udp_opts opts;
        nkt_udp *c, *d;
        nkt_impairment bad = perfect();
        memset(&opts, 0, sizeof opts);
        memset(&reader, 0, sizeof reader);
        opts.env = &env;
        opts.recv_timeout_ms = 5000;
        CHECK_INT(nkt_env_init_virtual(&env, 3), NKT_OK);
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &c, &d), NKT_OK);
        reader.udp = d;
        CHECK_INT(nkt_thread_start(&env, recv_one, NULL), NKT_OK);
        nkt_sleep(&env, 10);
        bad.latency_ms = 30;
        CHECK_INT(nkt_udp_impair(d, &bad), NKT_OK);
        CHECK_INT(nkt_udp_send(c, "x", 1, NULL), 1);
        nkt_sleep(&env, 6000);
        CHECK_INT(reader.result, 1);
        CHECK_INT(reader.at_ms, 40);
        nkt_udp_close(c);
        nkt_udp_close(d);
        nkt_env_free(&env);
    }
}

static void left_a_poller(void) {
    for (int close = 0; close < 2; close++) {
        TEST(close ? "what is under way leaves though its poller is closed"
                   : "what is under way leaves though its handle left the poller") {
            nkt_conn *a, *b;
            nkt_poller_opts opts;
            nkt_poller *poller;
            char in[10];
            nkt_impairment bad = perfect();
            bad.latency_ms = 50;
            pair_of(true, &a, &b);
            memset(&opts, 0, sizeof opts);
            opts.env = &env;
            CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
            CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
            CHECK_INT(nkt_poller_add_conn(poller, a, NULL), NKT_OK);
            CHECK_INT(nkt_conn_write_str(a, "hi"), NKT_OK);
            if (!close) CHECK_INT(nkt_poller_remove_conn(poller, a), NKT_OK);
            else nkt_poller_close(poller);
            CHECK_INT(nkt_conn_read(b, in, sizeof in), 2);
            CHECK_INT(now_ms(), 50);
            if (!close) nkt_poller_close(poller);
            done(a, b);
        }
    }
    TEST("an end at a time comes though its sender sleeps") {
        nkt_conn *a, *b;
        char in[10];
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_END;
        bad.cut_ms = 50;
        pair_of(false, &a, &b);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), NKT_EOF);
        CHECK_INT(now_ms(), 50);
        done(a, b);
    }
}

int main(void) {
    changed_meanwhile();
    left_a_poller();
    return test_finish();
}
