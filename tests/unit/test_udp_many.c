// test_udp_many.c - lists of datagrams: offload and loop give the same
//
// Each case is sent with segmentation and receive offload, where the system has
// them, and without, and received by each way there is; what arrives must be
// the same, datagram by datagram.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "probe.h"

// What plain calls take.
#ifdef _WIN32
    #define RAW(fd) ((SOCKET)(fd))
    #define RAW_LEN int
    #define RAW_NAME_LEN int
#else
    #define RAW(fd) ((int)(fd))
    #define RAW_LEN size_t
    #define RAW_NAME_LEN socklen_t
#endif

enum { MANY = 200, ROOM = 1500 };

static probe p;
static nkt_sys_udp sys;
static nkt_datagram list[MANY], got[MANY];
static char bytes[MANY * ROOM];
static char buf[NKT_DATAGRAM_MAX];

static nkt_udp *open_udp(bool offload, bool nonblocking) {
    nkt_udp_opts opts;
    nkt_udp *udp = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.no_offload = !offload;
    opts.nonblocking = nonblocking;
    opts.recv_buffer = opts.send_buffer = 1000000;
    if (!nonblocking) opts.recv_timeout_ms = 5000;
    CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &udp), NKT_OK);
    return udp;
}

static nkt_addr local_of(nkt_udp *udp) {
    nkt_addr addr;
    memset(&addr, 0, sizeof addr);
    CHECK_INT(nkt_udp_local(udp, &addr), NKT_OK);
    return addr;
}

// Datagram `i` of a list of `lens`, at a place of its own or behind the last.
static void fill(int count, const uint32_t *lens, size_t len_count, bool packed,
                 const nkt_addr *to) {
    char *at = bytes;
    memset(list, 0, sizeof list);
    for (int i = 0; i < count; i++) {
        list[i].data = at;
        list[i].len = lens[(size_t)i % len_count];
        list[i].addr = *to;
        for (uint32_t k = 0; k < list[i].len; k++) at[k] = (char)(i * 31 + (int)k * 7);
        at += packed ? list[i].len : ROOM;
    }
}

static void check_one(int i, const void *data, size_t len) {
    CHECK_MEM(data, len, list[i].data, list[i].len);
}

// Receives and compares `count` datagrams in the way that `how` says.
static void receive(nkt_udp *udp, int count, int how, uint16_t port) {
    nkt_datagram one;
    for (int at = 0; at < count;) {
        int step = 1;
        if (how == 0) {
            step = nkt_udp_recv_many(udp, got, MANY);
        } else if (how == 1) {
            step = nkt_udp_recv_many(udp, got, 3);
        } else if (how == 2) {
            nkt_addr from;
            ptrdiff_t len = nkt_udp_recv(udp, buf, sizeof buf, &from);
            if (!CHECK(len >= 0)) return;
            check_one(at, buf, (size_t)len);
            CHECK_INT(from.port, port);
        } else {
            memset(&one, 0, sizeof one);
            one.data = buf;
            one.cap = sizeof buf;
            if (!CHECK_INT(nkt_udp_recv_datagram(udp, &one), NKT_OK)) return;
            check_one(at, one.data, one.len);
            CHECK_INT(one.hops, 64);
            CHECK_INT(one.truncated, false);
        }
        if (!CHECK(step > 0)) return;
        for (int i = 0; i < step && how < 2; i++) {
            check_one(at + i, got[i].data, got[i].len);
            CHECK_INT(got[i].addr.port, port);
            CHECK_INT(got[i].segment, 0);
            CHECK_INT(got[i].truncated, false);
            CHECK(got[i].interface_index != 0);
            CHECK_INT(got[i].local.family, NKT_IPV4);
        }
        at += step;
    }
}

static void test_shapes(bool offload) {
    static const uint32_t same[] = { 64 }, empty[] = { 0 }, mixed[] = { 10, 0, 700, 700, 3 };
    static const uint32_t tail[] = { 100, 100, 100, 40 }, large[] = { 1500 }, rising[] = { 5, 6 };
    // Around what a small slot takes, and runs that together fit into one.
    static const uint32_t border[] = { 255, 256, 257, 1400, 258 }, tiny[] = { 9, 9, 9, 4, 300, 2 };
    static const struct { const uint32_t *lens; size_t len_count; int count; } rows[] = {
        { same, 1, MANY }, { same, 1, 1 }, { same, 1, 65 }, { empty, 1, 9 }, { mixed, 5, MANY },
        { tail, 4, MANY }, { large, 1, 50 }, { rising, 2, 100 },
        { border, 5, 150 }, { tiny, 6, 150 },
    };
    nkt_udp *a = open_udp(offload, false), *b = open_udp(offload, false);
    nkt_addr to = local_of(b);
    // Datagrams that come before the first of these calls are not lost by it.
    fill(2, same, 1, false, &to);
    CHECK_INT(nkt_udp_send_many(a, list, 2), 2);
    receive(b, 2, 0, local_of(a).port);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int variant = 0; variant < 8; variant++) {
            fill(rows[i].count, rows[i].lens, rows[i].len_count, variant >= 4, &to);
            CHECK_INT(nkt_udp_send_many(a, list, rows[i].count), rows[i].count);
            receive(b, rows[i].count, variant % 4, local_of(a).port);
        }
    }
    nkt_udp_info info;
    CHECK_INT(nkt_udp_get_info(a, &info), NKT_OK);
    uint64_t sent = info.sent, sent_bytes = info.sent_bytes;
    CHECK_INT(nkt_udp_get_info(b, &info), NKT_OK);
    CHECK_INT(info.received, sent);
    CHECK_INT(info.received_bytes, sent_bytes);
    nkt_udp_close(a);
    nkt_udp_close(b);
}

// Runs for several peers, taking turns.
static void test_several_peers(bool offload) {
    nkt_udp *a = open_udp(offload, false), *peers[3];
    int next[3] = { 0, 0, 0 };
    memset(list, 0, sizeof list);
    for (int i = 0; i < 3; i++) peers[i] = open_udp(offload, false);
    for (int i = 0; i < 90; i++) {
        bytes[i] = (char)i;
        list[i].data = bytes + i;
        list[i].len = 1;
        list[i].addr = local_of(peers[i / 5 % 3]);
    }
    CHECK_INT(nkt_udp_send_many(a, list, 90), 90);
    for (int i = 0; i < 90; i++) {
        int peer = i / 5 % 3;
        CHECK_INT(nkt_udp_recv(peers[peer], buf, sizeof buf, NULL), 1);
        CHECK_INT((unsigned char)buf[0], i);
        next[peer]++;
    }
    for (int i = 0; i < 3; i++) {
        CHECK_INT(next[i], 30);
        nkt_udp_close(peers[i]);
    }
    nkt_udp_close(a);
}

static void test_truncated_in_batch(void) {
    static const uint32_t same[] = { 64 };
    nkt_udp *a = open_udp(true, false), *b = open_udp(true, false);
    nkt_addr to = local_of(b);
    fill(1, same, 1, true, &to);
    CHECK_INT(nkt_udp_send_many(a, list, 1), 1);
    CHECK_INT(nkt_udp_recv_many(b, got, 1), 1);
    fill(4, same, 1, true, &to);
    CHECK_INT(nkt_udp_send_many(a, list, 4), 4);
    CHECK_INT(nkt_udp_recv(b, buf, 10, NULL), NKT_ETRUNCATED);
    CHECK_MEM(buf, 10, bytes, 10);
    CHECK_INT(nkt_udp_recv(b, buf, 64, NULL), 64);
    check_one(1, buf, 64);
    memset(&got[0], 0, sizeof got[0]);
    got[0].data = buf;
    got[0].cap = 63;
    CHECK_INT(nkt_udp_recv_datagram(b, &got[0]), NKT_OK);
    CHECK_INT(got[0].truncated, true);
    CHECK_INT(got[0].len, 63);
    CHECK_INT(nkt_udp_recv_many(b, got, MANY), 1);
    check_one(3, got[0].data, got[0].len);
    nkt_udp_close(a);
    nkt_udp_close(b);
}

static void test_bad_in_the_middle(void) {
    static const uint32_t same[] = { 8 };
    nkt_udp *a = open_udp(true, false), *b = open_udp(true, false);
    nkt_addr to = local_of(b);
    fill(9, same, 1, true, &to);
    CHECK_INT(nkt_udp_send_many(a, list, 0), 0);
    list[4].len = 65508;
    CHECK_INT(nkt_udp_send_many(a, list, 9), 4);
    CHECK_INT(nkt_udp_send_many(a, list + 4, 5), NKT_ETOOLONG);
    list[4].len = 8;
    list[4].addr.port = 0;
    CHECK_INT(nkt_udp_send_many(a, list, 9), 4);
    CHECK_INT(nkt_udp_send_many(a, list + 4, 5), NKT_EPORT);
    list[4].addr = list[3].addr;
    list[4].addr.ip = nkt_ip_loopback(NKT_IPV6);
    CHECK_INT(nkt_udp_send_many(a, list, 9), 4);
    CHECK_INT(nkt_udp_send_many(a, list + 4, 5), NKT_EFAMILY);
    list[0].addr.ip.family = 0;
    CHECK_INT(nkt_udp_send_many(a, list, 9), NKT_ENOTCONN);
    nkt_udp_close(a);
    nkt_udp_close(b);
}

//------------------------------------------------------------------------------
// The system takes part of a list, or refuses

static int takes, refusal, send_calls;
static bool refuse_segments;

static int some_send(nkt_env *env, nkt_fd fd, int family, const nkt_datagram *from, int count,
                     bool *segments) {
    send_calls++;
    if (takes == 0) return refusal;
    if (refuse_segments) *segments = false;
    if (count > takes) count = takes;
    takes -= count;
    return nkt_sys_udp_default()->send(env, fd, family, from, count, segments);
}

static int no_code_recv(nkt_env *env, nkt_fd fd, int family, nkt_datagram *to, int count,
                        bool facts) {
    return nkt_sys_udp_default()->recv(env, fd, family, to, count, facts);
}

static void test_partly(bool nonblocking) {
    static const uint32_t same[] = { 8 };
    nkt_udp *a = open_udp(true, nonblocking), *b = open_udp(true, false);
    nkt_addr to = local_of(b);
    nkt_interest interest;
    sys = *nkt_sys_udp_default();
    sys.send = some_send;
    sys.recv = no_code_recv;
    p.env.udp = &sys;
    fill(9, same, 1, true, &to);
    takes = 5;
    refusal = NKT_ENETUNREACH;
    CHECK_INT(nkt_udp_send_many(a, list, 9), 5);
    CHECK_INT(nkt_udp_send_many(a, list + 5, 4), NKT_ENETUNREACH);
    // A full buffer: the nonblocking one says how far it came.
    takes = 3;
    refusal = NKT_EAGAIN;
    if (nonblocking) {
        CHECK_INT(nkt_udp_send_many(a, list, 9), 3);
        CHECK_INT(nkt_udp_send_many(a, list + 3, 6), NKT_EAGAIN);
        CHECK_INT(nkt_udp_watch(a, NKT_WRITE, &interest), NKT_OK);
        CHECK_INT(interest.watches[0].events, NKT_WRITE);
        takes = 6;
        CHECK_INT(nkt_udp_send_many(a, list + 3, 6), 6);
    }
    // A signal, and one after the other, is no matter.
    takes = 9;
    send_calls = 0;
    CHECK_INT(nkt_udp_send_many(a, list, 9), 9);
    CHECK_INT(send_calls, 1);
    refuse_segments = true;
    takes = 18;
    CHECK_INT(nkt_udp_send_many(a, list, 9), 9);
    CHECK_INT(nkt_udp_send_many(a, list, 9), 9);
    refuse_segments = false;
    p.env.udp = NULL;
    nkt_udp_close(a);
    nkt_udp_close(b);
}

// Offload is used where it is there, and is worth it: fewer system calls.
static int most_received;

static int counting_recv(nkt_env *env, nkt_fd fd, int family, nkt_datagram *to, int count,
                         bool facts) {
    int n = nkt_sys_udp_default()->recv(env, fd, family, to, count, facts);
    for (int i = 0; i < n; i++) {
        int parts = to[i].segment == 0 ? 1 : (int)((to[i].len + to[i].segment - 1) / to[i].segment);
        if (parts > most_received) most_received = parts;
    }
    return n;
}

static void test_offload_is_used(bool offload) {
    static const uint32_t same[] = { 64 };
    sys = *nkt_sys_udp_default();
    sys.recv = counting_recv;
    p.env.udp = &sys;
    nkt_udp *a = open_udp(offload, false), *b = open_udp(offload, false);
    nkt_addr to = local_of(b);
    fill(1, same, 1, true, &to);
    CHECK_INT(nkt_udp_send_many(a, list, 1), 1);
    CHECK_INT(nkt_udp_recv_many(b, got, 1), 1);
    most_received = 0;
    fill(128, same, 1, true, &to);
    CHECK_INT(nkt_udp_send_many(a, list, 128), 128);
    receive(b, 128, 0, local_of(a).port);
#ifdef __linux__
    CHECK_INT(most_received, offload ? 64 : 1);
#else
    CHECK_INT(most_received, 1);
#endif
    p.env.udp = NULL;
    nkt_udp_close(a);
    nkt_udp_close(b);
}

//------------------------------------------------------------------------------
// A receive buffer that is full

// How many of the list, one by one, from a plain socket to a plain socket with
// a receive buffer of this size, are there when somebody looks.
static int raw_kept(int count, int size) {
    nkt_udp_opts opts;
    nkt_udp *from = open_udp(false, true), *to = NULL;
    int kept = 0;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.nonblocking = true;
    opts.recv_buffer = size;
    CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &to), NKT_OK);
    nkt_addr where = local_of(to);
    union { uint64_t align; char room[NKT_SOCKADDR_MAX]; } name;
    int len = nkt_addr_to_sockaddr(&where, &name, sizeof name);
    CHECK(len > 0);
    for (int i = 0; i < count; i++) {
        CHECK_INT(sendto(RAW(nkt_udp_descriptor(from)), (const char *)list[i].data,
                         (RAW_LEN)list[i].len, 0, (const struct sockaddr *)(const void *)&name,
                         (RAW_NAME_LEN)len), (int)list[i].len);
    }
    while (recvfrom(RAW(nkt_udp_descriptor(to)), buf, sizeof buf, 0, NULL, NULL) > 0) kept++;
    nkt_udp_close(from);
    nkt_udp_close(to);
    return kept;
}

// Sends a list of more than the receiver's buffer holds, while nobody reads:
// as many are kept as of plain calls, or with offload more, since a bundle
// takes less of the room than its datagrams would one by one.
static void test_full(bool offload, uint32_t len) {
    enum { SMALL = 20000 };
    nkt_udp_opts opts;
    nkt_udp *from = open_udp(offload, true), *to = NULL;
    int kept = 0, sent = 0, got_now;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.nonblocking = true;
    opts.no_offload = !offload;
    opts.recv_buffer = SMALL;
    CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &to), NKT_OK);
    nkt_addr where = local_of(to);
    fill(1, &len, 1, true, &where);
    CHECK_INT(nkt_udp_send_many(from, list, 1), 1);
    CHECK_INT(nkt_udp_recv_many(to, got, MANY), 1);     // from here on it takes bundles
    fill(MANY, &len, 1, true, &where);
    while (sent < MANY) {
        int more = nkt_udp_send_many(from, list + sent, MANY - sent);
        if (!CHECK(more > 0)) break;
        sent += more;
    }
    while ((got_now = nkt_udp_recv_many(to, got, MANY)) > 0) {
        for (int i = 0; i < got_now; i++) {
            CHECK_INT(got[i].len, len);
            // Without bundles, what does not fit is what came last.
            if (!offload) check_one(kept + i, got[i].data, got[i].len);
        }
        kept += got_now;
    }
    CHECK_INT(got_now, NKT_EAGAIN);
    int raw = raw_kept(MANY, SMALL);
    CHECK_RANGE(raw, 2, MANY - 1);
    CHECK_RANGE(kept, raw, offload ? MANY : raw);
    nkt_udp_close(from);
    nkt_udp_close(to);
}

//------------------------------------------------------------------------------
// Connecting while others' datagrams are there

// What is queued, then what is fetched and not handed out.
static void test_strangers(bool fetched) {
    static const uint32_t small[] = { 100 }, large[] = { 500 };
    nkt_udp *a = open_udp(true, true), *peer = open_udp(true, false);
    nkt_udp *stranger = open_udp(true, false);
    nkt_addr to = local_of(a), from = local_of(peer);
    CHECK_INT(nkt_udp_recv_many(a, got, 1), NKT_EAGAIN);
    fill(4, small, 1, true, &to);
    CHECK_INT(nkt_udp_send_many(stranger, list, 4), 4);
    fill(1, large, 1, true, &to);
    CHECK_INT(nkt_udp_send_many(peer, list, 1), 1);
    if (fetched) CHECK_INT(nkt_udp_recv_many(a, got, 2), 2);
    CHECK_INT(nkt_udp_connect_addr(a, &from), NKT_OK);
    if (CHECK_INT(nkt_udp_recv_many(a, got, 1), 1)) check_one(0, got[0].data, got[0].len);
    CHECK_INT(nkt_udp_recv_many(a, got, 1), NKT_EAGAIN);
    nkt_udp_close(a);
    nkt_udp_close(peer);
    nkt_udp_close(stranger);
}

// Receive offload that one of two sockets refuses is on neither.
static int coalesce_calls, coalescing;

static int half_set_option(nkt_env *env, nkt_fd fd, int family, int option, int64_t value) {
    if (option != NKT_UDP_COALESCE) {
        return nkt_sys_udp_default()->set_option(env, fd, family, option, value);
    }
    if (++coalesce_calls == 2) return NKT_EUNSUPPORTED;
    coalescing += value != 0 ? 1 : -1;
    return NKT_OK;
}

static void test_half_offload(void) {
    nkt_udp_opts opts;
    nkt_udp *udp = NULL;
    nkt_udp_info info;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.nonblocking = opts.two_sockets = true;
    sys = *nkt_sys_udp_default();
    sys.set_option = half_set_option;
    p.env.udp = &sys;
    CHECK_INT(nkt_udp_open(":0", &opts, &udp), NKT_OK);
    CHECK_INT(nkt_udp_get_info(udp, &info), NKT_OK);
    if (info.sockets < 2) {
        TEST_SKIP("no IPv6 here");
    } else {
        CHECK_INT(nkt_udp_recv_many(udp, got, 1), NKT_EAGAIN);
        CHECK(coalesce_calls >= 2);
        CHECK(coalescing <= 0);
    }
    nkt_udp_close(udp);
    p.env.udp = NULL;
}

int main(void) {
    probe_open(&p);
    TEST("lists of every shape, with offload") { test_shapes(true); }
    TEST("lists of every shape, without") { test_shapes(false); }
    TEST("several peers in one list, with offload") { test_several_peers(true); }
    TEST("several peers in one list, without") { test_several_peers(false); }
    TEST("bug 40: truncation out of a batch") { test_truncated_in_batch(); }
    TEST("a bad one in the middle of a list") { test_bad_in_the_middle(); }
    TEST("a list partly sent, blocking") { test_partly(false); }
    TEST("a list partly sent, nonblocking") { test_partly(true); }
    TEST("offload is used where there is one") { test_offload_is_used(true); }
    TEST("and is not where it is not wanted") { test_offload_is_used(false); }
    TEST("as many as the receive buffer holds, with offload") {
        test_full(true, 64);
        test_full(true, 500);
        test_full(true, 1400);
    }
    TEST("as many as the receive buffer holds, without") {
        test_full(false, 64);
        test_full(false, 500);
        test_full(false, 1400);
    }
    TEST("connected: others' datagrams that are queued") { test_strangers(false); }
    TEST("connected: others' datagrams that are fetched") { test_strangers(true); }
    TEST("offload on one socket of two") { test_half_offload(); }
    TEST("nothing is left behind") { probe_close(&p); }
    return test_finish();
}
