// test_udp_many_impaired.c - what the system put together, on a bad network
//
// What a card or the kernel delivers in one piece is several datagrams, and
// each of them is late by itself.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

static uint8_t scratch[6400];

static nkt_impairment slow(void) {
    nkt_impairment bad;
    memset(&bad, 0, sizeof bad);
    bad.seed = 5;
    return bad;
}

static void over_udp(void) {
    TEST("datagrams over UDP that were put together by the system") {
        nkt_udp_opts opts;
        nkt_udp *a, *b;
        nkt_addr to;
        nkt_datagram list[64], in[64];
        nkt_impairment bad = slow();
        memset(&opts, 0, sizeof opts);
        opts.recv_timeout_ms = 10000;
        CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &a), NKT_OK);
        CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &b), NKT_OK);
        CHECK_INT(nkt_udp_local(b, &to), NKT_OK);
        memset(list, 0, sizeof list);
        for (int i = 0; i < 64; i++) {
            list[i].data = scratch + i * 100;
            list[i].len = 100;
            list[i].addr = to;
            memset(scratch + i * 100, i, 100);
        }
        CHECK_INT(nkt_udp_send_many(a, list, 1), 1);
        CHECK_INT(nkt_udp_recv_many(b, in, 64), 1);     // from now on they are put together
        CHECK_INT(nkt_udp_send_many(a, list, 64), 64);
        bad.latency_ms = 2;
        CHECK_INT(nkt_udp_impair(b, &bad), NKT_OK);
        int next = 0;
        while (next < 64) {
            int got = nkt_udp_recv_many(b, in, 64);
            CHECK(got > 0);
            if (got <= 0) break;
            for (int i = 0; i < got; i++, next++) {
                CHECK_INT(in[i].len, 100);
                CHECK_INT(((uint8_t *)in[i].data)[99], next);
                CHECK_INT(in[i].addr.ip.family, NKT_IPV4);
            }
        }
        nkt_udp_close(a);
        nkt_udp_close(b);
    }
}

int main(void) {
    over_udp();
    return test_finish();
}
