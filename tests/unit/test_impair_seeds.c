// test_impair_seeds.c - random programs on random networks, by seed
//
//     test_impair_seeds       a thousand seeds; NKT_TEST_ALL=1: more; under a
//                             sanitizer fewer
//     NKT_TEST_SEED=77 test_impair_seeds          that one alone
//
// In virtual time two ends of a pair are impaired, written to, read from,
// impaired anew and closed in random order. Whatever the order: a stream's
// bytes arrive in order, and all of them unless it was cut; a datagram is
// delivered, lost or under way, and nothing else.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

enum { STEPS = 40, WRITE_MAX = 30000 };

static uint64_t state;

static uint32_t any(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 16) % below);
}

static double part(uint32_t most_percent) {
    return any(4) == 0 ? any(most_percent * 100 + 1) / 10000.0 : 0;
}

// What may be asked of any path, and never for ever.
static nkt_impairment random_network(bool is_stream) {
    nkt_impairment bad;
    memset(&bad, 0, sizeof bad);
    bad.seed = any(1000000) + 1;
    if (any(8) == 0) return bad;
    bad.latency_ms = any(2) == 0 ? any(4000) / 100.0 : 0;
    bad.jitter = any(2) == 0 ? NKT_JITTER_NORMAL : NKT_JITTER_UNIFORM;
    bad.jitter_ms = any(3) == 0 ? bad.latency_ms / (1 + any(5)) : 0;
    bad.overtake = any(2) == 0;
    if (any(3) == 0) {
        bad.rate = 20000 + any(500000);
        bad.queue_bytes = any(2) == 0 ? 0 : 2000 + any(40000);
    }
    bad.mtu = any(4) == 0 ? 100 + any(1400) : 0;
    bad.loss = part(30);
    bad.loss_burst = any(3) == 0 ? 2 + any(5) : 0;
    bad.duplicate = part(50);
    bad.reorder = part(50);
    bad.reorder_ms = any(30);
    bad.corrupt = part(20);
    bad.stall = part(30);
    bad.stall_ms = 1 + any(20);
    if (is_stream && any(3) == 0) bad.piece_max = 1 + any(any(2) == 0 ? 10 : 3000);
    if (bad.piece_max > 0 && bad.piece_max < 100) bad.stall_ms = 0.1;     // or it takes for ever
    return bad;
}

static nkt_impairment random_cut(void) {
    nkt_impairment bad = random_network(true);
    bad.cut = NKT_CUT_SILENT + (int32_t)any(3);
    if (any(2) == 0) bad.cut_bytes = 1 + any(20000);
    else bad.cut_ms = any(500);
    return bad;
}

typedef struct flow {
    uint64_t sent, got;         // bytes of a stream
    bool shut;                  // the sender has ended it
    int end;                    // what reading ended with
} flow;

typedef struct world {
    nkt_env env;
    nkt_poller *poller;
    nkt_conn *ends[2];
    nkt_udp *udps[2];
    bool polled[2], blunt;      // blunt: a cut was asked for
    flow flows[2];              // from that end
} world;

static bool world_open(world *w, uint64_t seed) {
    nkt_poller_opts opts;
    memset(w, 0, sizeof *w);
    memset(&opts, 0, sizeof opts);
    state = seed * 0x9e3779b97f4a7c15u + 1;
    opts.env = &w->env;
    for (int i = 0; i < 2; i++) w->polled[i] = any(2) == 0;
#ifdef NETKIT_NO_THREADS
    w->polled[0] = w->polled[1] = true;     // nothing else moves what is under way
#endif
    return CHECK_INT(nkt_env_init_virtual(&w->env, seed), NKT_OK) &&
           CHECK_INT(nkt_poller_open(&opts, &w->poller), NKT_OK);
}

static void world_close(world *w) {
    for (int i = 0; i < 2; i++) {
        nkt_conn_close(w->ends[i]);
        nkt_udp_close(w->udps[i]);
    }
    nkt_poller_close(w->poller);
    nkt_env_free(&w->env);
}

// Lets `ms` pass, with the poller at work.
static void pass(world *w, int32_t ms) {
    nkt_event event;
    nkt_sleep(&w->env, ms);
    CHECK_RANGE(nkt_poller_wait(w->poller, 0), 0, 2);
    while (nkt_poller_next(w->poller, &event) == NKT_OK) {
    }
}

//------------------------------------------------------------------------------
// Streams
//------------------------------------------------------------------------------

static uint8_t byte_at(int from, uint64_t at) {
    return (uint8_t)(at * 31 + at / 257 + (uint64_t)from * 101);
}

static bool is_cut_error(ptrdiff_t err) {
    return err == NKT_ERESET || err == NKT_EPIPE || err == NKT_EOF;
}

static void stream_write(world *w, int i) {
    static uint8_t out[WRITE_MAX];
    flow *f = &w->flows[i];
    size_t len = any(any(3) == 0 ? WRITE_MAX : 3000) + 1;
    if (f->shut) return;
    for (size_t k = 0; k < len; k++) out[k] = byte_at(i, f->sent + k);
    int err = nkt_conn_write(w->ends[i], out, len);
    f->sent += nkt_conn_written(w->ends[i]);
    if (err == NKT_OK || err == NKT_EAGAIN) return;
    CHECK(w->blunt && is_cut_error(err));
    f->shut = true;
}

static void stream_read(world *w, int i) {
    static uint8_t in[WRITE_MAX];
    flow *f = &w->flows[!i];
    ptrdiff_t got;
    while (f->end == 0 && (got = nkt_conn_read(w->ends[i], in, any(WRITE_MAX) + 1)) != NKT_EAGAIN) {
        if (got <= 0) {
            f->end = (int)got;
            break;
        }
        for (ptrdiff_t k = 0; k < got; k++) {
            if (in[k] != byte_at(!i, f->got + (uint64_t)k)) {
                CHECK_INT(in[k], byte_at(!i, f->got + (uint64_t)k));
                return;
            }
        }
        f->got += (uint64_t)got;
    }
}

static void stream_finish(world *w, int i) {
    flow *f = &w->flows[i];
    int err = f->shut ? NKT_OK : nkt_conn_shutdown_write(w->ends[i]);
    CHECK(err == NKT_OK || (w->blunt && is_cut_error(err)));
    f->shut = true;
}

static void stream_step(world *w, bool may_cut) {
    int i = (int)any(2);
    uint32_t what = any(20);
    if (what < 7) {
        stream_write(w, i);
    } else if (what < 12) {
        stream_read(w, i);
    } else if (what < 17) {
        pass(w, (int32_t)any(40));
    } else {
        nkt_impairment sending = random_network(true), receiving = random_network(true);
        if (may_cut && any(6) == 0) {
            sending = random_cut();
            w->blunt = true;
        }
        nkt_impairment *to = any(5) == 0 ? NULL : &sending, *from = any(5) == 0 ? NULL : &receiving;
        CHECK_INT(nkt_conn_impair_ways(w->ends[i], to, from), NKT_OK);
    }
}

// Both directions to their ends, for at most some minutes.
static void stream_drain(world *w) {
    for (int i = 0; i < 2; i++) stream_finish(w, i);
    for (int tries = 0; tries < 20000; tries++) {
        if (w->flows[0].end != 0 && w->flows[1].end != 0) return;
        for (int i = 0; i < 2; i++) {
            stream_read(w, i);
            nkt_conn_flush(w->ends[i]);
            // Single bytes with stalls take for ever.
            if (tries == 5000) CHECK_INT(nkt_conn_impair(w->ends[i], NULL), NKT_OK);
        }
        pass(w, 10);
        if (w->blunt && tries > 200) return;    // a silent cut never ends
    }
}

static void stream_seed(uint64_t seed) {
    static world w;
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &w.env;
    opts.nonblocking = true;
    if (!world_open(&w, seed) ||
        !CHECK_INT(nkt_conn_pair(&opts, &opts, &w.ends[0], &w.ends[1]), NKT_OK)) return;
    bool may_cut = any(4) == 0, leaves = any(8) == 0;
    for (int i = 0; i < 2; i++) {
        if (w.polled[i]) CHECK_INT(nkt_poller_add_conn(w.poller, w.ends[i], NULL), NKT_OK);
    }
    for (int k = 0; k < STEPS; k++) stream_step(&w, may_cut);
    if (!leaves) stream_drain(&w);          // else it is closed in the middle
    for (int i = 0; i < 2 && !leaves; i++) {
        CHECK(w.flows[i].got <= w.flows[i].sent);
        if (w.blunt) continue;
        CHECK_INT(w.flows[i].end, NKT_EOF);
        CHECK_INT(w.flows[i].got, w.flows[i].sent);
    }
    world_close(&w);
}

//------------------------------------------------------------------------------
// Datagrams
//------------------------------------------------------------------------------

static void check_counts(world *w) {
    for (int i = 0; i < 2; i++) {
        for (uint32_t way = NKT_READ; way <= NKT_WRITE; way += NKT_WRITE - NKT_READ) {
            nkt_impair_stats s;
            if (nkt_udp_impair_stats(w->udps[i], way, &s) == NKT_ENOTFOUND) continue;
            CHECK_INT(s.delivered + s.lost + s.overflowed + s.oversized + s.under_way,
                      s.sent + s.duplicated);
            CHECK(s.corrupted <= s.sent && s.reordered <= s.sent && s.duplicated <= s.sent);
        }
    }
}

// A datagram says how long it is and has one value throughout: one bit may be
// wrong in all.
static void check_datagram(const uint8_t *in, ptrdiff_t len) {
    int wrong = 0;
    for (ptrdiff_t k = 0; k < len; k++) wrong += in[k] != (uint8_t)len;
    CHECK_RANGE(wrong, 0, 2);               // broken on either path
}

static void datagram_step(world *w) {
    uint8_t bytes[1500];
    int i = (int)any(2);
    uint32_t what = any(20);
    if (what < 9) {
        size_t len = any(1400);
        memset(bytes, (int)(len & 0xff), len);
        int sent = (int)nkt_udp_send(w->udps[i], bytes, len, NULL);
        CHECK(sent == (int)len || sent == NKT_EAGAIN);
    } else if (what < 14) {
        ptrdiff_t got;
        while ((got = nkt_udp_recv(w->udps[i], bytes, sizeof bytes, NULL)) >= 0) {
            check_datagram(bytes, got);
        }
        CHECK_INT(got, NKT_EAGAIN);
    } else if (what < 18) {
        pass(w, (int32_t)any(40));
    } else {
        nkt_impairment sending = random_network(false), receiving = random_network(false);
        nkt_impairment *to = any(5) == 0 ? NULL : &sending, *from = any(5) == 0 ? NULL : &receiving;
        CHECK_INT(nkt_udp_impair_ways(w->udps[i], to, from), NKT_OK);
    }
    check_counts(w);
}

static void datagram_seed(uint64_t seed) {
    static world w;
    nkt_udp_opts opts;
    nkt_impair_stats s;
    uint8_t bytes[1500];
    memset(&opts, 0, sizeof opts);
    opts.env = &w.env;
    opts.nonblocking = true;
    if (!world_open(&w, seed) ||
        !CHECK_INT(nkt_udp_pair(&opts, &opts, 30000, &w.udps[0], &w.udps[1]), NKT_OK)) return;
    for (int i = 0; i < 2; i++) {
        if (w.polled[i]) CHECK_INT(nkt_poller_add_udp(w.poller, w.udps[i], NULL), NKT_OK);
    }
    for (int k = 0; k < STEPS; k++) datagram_step(&w);
    // Given time, nothing stays under way.
    for (int k = 0; k < 100; k++) {
        for (int i = 0; i < 2; i++) {
            while (nkt_udp_recv(w.udps[i], bytes, sizeof bytes, NULL) >= 0) {
            }
        }
        pass(&w, 100);
    }
    check_counts(&w);
    for (int i = 0; i < 2; i++) {
        if (nkt_udp_impair_stats(w.udps[i], NKT_WRITE, &s) == NKT_OK) CHECK_INT(s.under_way, 0);
        if (nkt_udp_impair_stats(w.udps[i], NKT_READ, &s) == NKT_OK) CHECK_INT(s.under_way, 0);
    }
    world_close(&w);
}

static void seeds(const char *name, void (*run)(uint64_t seed), uint64_t count) {
    const char *only = getenv("NKT_TEST_SEED");
    TEST(name) {
        if (only != NULL) run(strtoull(only, NULL, 10));
        for (uint64_t seed = 1; seed <= count && only == NULL; seed++) {
            run(seed);
            if (nkt_test.failures == 0) continue;
            printf("  NKT_TEST_SEED=%llu\n", (unsigned long long)seed);
            break;
        }
    }
}

int main(void) {
    uint64_t count = TEST_IS_SLOW ? 250 : getenv("NKT_TEST_ALL") != NULL ? 4000 : 1000;
    seeds("streams", stream_seed, count);
    seeds("datagrams", datagram_seed, count);
    return test_finish();
}
