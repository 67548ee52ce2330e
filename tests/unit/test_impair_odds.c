// test_impair_odds.c - a bad network is as bad as it was asked to be
//
// A million datagrams a setting, in virtual time, from one end of an in-memory
// pair to the other, a number in each. What arrives is counted here, not by
// netkit, and compared with what was asked for: within 1 %, or within the
// deviations that so many draws may have, whichever is more. The bounds are
// computed from the setting. It is a tenth as many under a sanitizer, and where
// not everything is tested.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

enum { MOST = 1000000 };
static int total;

#define SIGMAS 4.0              // one setting in 16,000 would fail by chance

static uint8_t seen[MOST];

typedef struct result {
    double lost, duplicated, reordered, corrupted;  // fractions of what was sent
    double burst;               // mean length of a run of lost ones
    double latency, deviation;  // ms
    double rate;                // bytes/s, headers included
    int64_t shortest, longest;  // ns
    uint64_t trace;             // hash of number, instant and bytes of each arrival
    nkt_impair_stats stats;
} result;

static double root(double x) {
    double guess = x > 1 ? x : 1;
    for (int i = 0; i < 200; i++) guess = (guess + x / guess) / 2;
    return guess;
}

static void put(uint8_t *to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *from, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)from[i] << (8 * i);
    return value;
}

typedef struct run {
    nkt_env env;
    nkt_udp *from, *to;
    nkt_poller *poller;
    nkt_task *timer;
    int sent, count, per_ms;
    uint32_t len;
    double sum, squares;
    int64_t arrived, first, last, late, highest;
    uint64_t bytes;
    result out;
} run;

static void arrive(run *r, const nkt_datagram *datagram) {
    const uint8_t *bytes = (const uint8_t *)datagram->data;
    int64_t now = nkt_now_ns(&r->env);
    uint64_t number = get(bytes, 4), spoiled = 0;
    for (uint32_t i = 16; i < datagram->len; i++) spoiled |= bytes[i] ^ (uint8_t)i;
    // The number stands in it twice, and what it was sent at too.
    bool broken = number != get(bytes + 4, 4) || number >= (uint64_t)r->count || spoiled != 0;
    for (uint32_t i = 0; i < datagram->len; i++) {
        r->out.trace = (r->out.trace ^ bytes[i]) * 0x100000001b3u;
    }
    r->out.trace = (r->out.trace ^ (uint64_t)now) * 0x100000001b3u;
    if (broken) {
        r->out.corrupted++;
        return;
    }
    if (seen[number]++ > 0) {
        r->out.duplicated++;
        return;
    }
    int64_t delay = (int64_t)((uint64_t)now - get(bytes + 8, 8));
    double ms = (double)delay / 1e6;
    r->sum += ms;
    r->squares += ms * ms;
    if (r->arrived == 0 || delay < r->out.shortest) r->out.shortest = delay;
    if (delay > r->out.longest) r->out.longest = delay;
    if (r->arrived == 0) r->first = now;
    else r->bytes += datagram->len + 28;
    r->last = now;
    r->arrived++;
    if ((int64_t)number < r->highest) r->late++;
    else r->highest = (int64_t)number;
}

static void send_some(run *r) {
    uint8_t bytes[1500];
    for (uint32_t i = 0; i < r->len; i++) bytes[i] = (uint8_t)i;
    for (int i = 0; i < r->per_ms && r->sent < r->count; i++) {
        put(bytes, (uint64_t)r->sent, 4);
        put(bytes + 4, (uint64_t)r->sent, 4);
        put(bytes + 8, (uint64_t)nkt_now_ns(&r->env), 8);
        CHECK_INT(nkt_udp_send(r->from, bytes, r->len, NULL), r->len);
        r->sent++;
    }
}

static void turn(run *r) {
    nkt_event event;
    nkt_datagram list[16];
    while (nkt_poller_next(r->poller, &event) == NKT_OK) {
        int got;
        if (event.task != NULL && nkt_timer_finish(r->timer) > 0) {
            send_some(r);
            if (r->sent == r->count) nkt_poller_remove_task(r->poller, r->timer);
        }
        if (event.udp != r->to) continue;
        while ((got = nkt_udp_recv_many(r->to, list, 16)) > 0) {
            for (int i = 0; i < got; i++) arrive(r, &list[i]);
        }
    }
}

static void finish(run *r) {
    int64_t runs = 0, lost = 0;
    for (int i = 0; i < r->count; i++) {
        lost += seen[i] == 0;
        runs += seen[i] == 0 && (i == 0 || seen[i - 1] != 0);
    }
    double count = r->count, mean = r->arrived > 0 ? r->sum / (double)r->arrived : 0;
    double variance = r->arrived > 0 ? r->squares / (double)r->arrived - mean * mean : 0;
    r->out.lost = (double)lost / count - r->out.corrupted / count;
    r->out.burst = runs > 0 ? (double)lost / (double)runs : 0;
    r->out.duplicated /= count;
    r->out.corrupted /= count;
    r->out.reordered = (double)r->late / count;
    r->out.latency = mean;
    r->out.deviation = variance > 0 ? root(variance) : 0;
    if (r->last > r->first) r->out.rate = (double)r->bytes * 1e9 / (double)(r->last - r->first);
}

// Sends `count` datagrams of `len` bytes, `per_ms` each millisecond.
static result measure(const nkt_impairment *bad, int count, int per_ms, uint32_t len) {
    static run r;
    nkt_udp_opts opts;
    nkt_poller_opts poller_opts;
    nkt_timer_opts timer_opts;
    memset(&r, 0, sizeof r);
    memset(seen, 0, sizeof seen);
    memset(&opts, 0, sizeof opts);
    memset(&poller_opts, 0, sizeof poller_opts);
    memset(&timer_opts, 0, sizeof timer_opts);
    r.count = count;
    r.per_ms = per_ms;
    r.len = len;
    r.out.trace = 0xcbf29ce484222325u;
    CHECK_INT(nkt_env_init_virtual(&r.env, 1), NKT_OK);
    opts.env = poller_opts.env = timer_opts.env = &r.env;
    opts.nonblocking = true;
    timer_opts.delay_ms = timer_opts.repeat_ms = 1;
    CHECK_INT(nkt_udp_pair(&opts, &opts, 1u << 24, &r.from, &r.to), NKT_OK);
    CHECK_INT(nkt_udp_impair_ways(r.from, bad, NULL), NKT_OK);
    CHECK_INT(nkt_poller_open(&poller_opts, &r.poller), NKT_OK);
    CHECK_INT(nkt_timer_start(&timer_opts, &r.timer), NKT_OK);
    CHECK_INT(nkt_poller_add_udp(r.poller, r.from, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_udp(r.poller, r.to, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_task(r.poller, r.timer, NULL), NKT_OK);
    while (nkt_poller_wait(r.poller, 3600000) > 0) turn(&r);
    CHECK_INT(r.sent, count);
    CHECK_INT(nkt_udp_impair_stats(r.from, NKT_WRITE, &r.out.stats), NKT_OK);
    CHECK_INT(r.out.stats.under_way, 0);
    CHECK_INT(r.out.stats.sent, count);
    finish(&r);
    nkt_task_close(r.timer);
    nkt_udp_close(r.from);
    nkt_udp_close(r.to);
    nkt_poller_close(r.poller);
    nkt_env_free(&r.env);
    return r.out;
}

// `sigma` is the deviation that the measured value has by chance.
static void is_near(const char *what, double got, double want, double sigma) {
    double bound = SIGMAS * sigma > want / 100 ? SIGMAS * sigma : want / 100;
    if (got < want - bound || got > want + bound) {
        printf("  %s is %.6f, not %.6f +- %.6f\n", what, got, want, bound);
    }
    CHECK(got >= want - bound && got <= want + bound);
}

static double of_fraction(double p) {
    return root(p * (1 - p) / total);
}

static void losses(void) {
    static const double fractions[] = { 0.001, 0.02, 0.1, 0.5, 0.9 };
    for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        char name[60];
        double p = fractions[i];
        snprintf(name, sizeof name, "independent loss of %g", p);
        TEST(name) {
            nkt_impairment bad;
            memset(&bad, 0, sizeof bad);
            bad.seed = 100 + i;
            bad.loss = p;
            result got = measure(&bad, total, 100, 32);
            is_near("loss", got.lost, p, of_fraction(p));
            // Runs of independent losses are geometric: 1 / (1 - p).
            is_near("burst", got.burst, 1 / (1 - p), root(p / (total * p * (1 - p))) / (1 - p));
            CHECK_INT(got.stats.lost, (long long)(got.lost * total + 0.5));
        }
    }
}

// A Gilbert-Elliott channel's mean loss varies more than that of independent
// losses: by (1 + r) / (1 - r), where r = 1 - enter - leave is its memory.
static void bursts(void) {
    static const struct { double loss, burst, in_burst; } rows[] = {
        { 0.01, 5, 0 }, { 0.05, 3, 0 }, { 0.2, 10, 0 }, { 0.05, 20, 0.5 }, { 0.5, 4, 0.8 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char name[80];
        double p = rows[i].loss, burst = rows[i].burst;
        double inside = rows[i].in_burst > 0 ? rows[i].in_burst : 1;
        snprintf(name, sizeof name, "loss of %g in bursts of %g, %g of each", p, burst, inside);
        TEST(name) {
            nkt_impairment bad;
            memset(&bad, 0, sizeof bad);
            bad.seed = 200 + i;
            bad.loss = p;
            bad.loss_burst = burst;
            bad.burst_loss = rows[i].in_burst;
            result got = measure(&bad, total, 100, 32);
            double share = p / inside, leave = 1 / burst, enter = leave * share / (1 - share);
            double memory = 1 - enter - leave;
            is_near("loss", got.lost, p,
                 root(inside * inside * share * (1 - share) / total * (1 + memory) / (1 - memory) +
                      p * (1 - inside) / total));
            // Where all of the bad state is lost its stays are the runs.
            if (inside >= 1) {
                double runs = total * p / burst;
                is_near("burst", got.burst, burst, root(burst * (burst - 1) / runs));
            }
        }
    }
}

static void delays(void) {
    static const struct { double latency, jitter; int kind; bool overtake; } rows[] = {
        { 80, 0, NKT_JITTER_UNIFORM, false }, { 80, 20, NKT_JITTER_UNIFORM, true },
        { 30, 30, NKT_JITTER_UNIFORM, true }, { 100, 15, NKT_JITTER_NORMAL, true },
        { 0.25, 0.125, NKT_JITTER_UNIFORM, true }, { 300, 40, NKT_JITTER_NORMAL, true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char name[80];
        double latency = rows[i].latency, jitter = rows[i].jitter;
        bool normal = rows[i].kind == NKT_JITTER_NORMAL;
        snprintf(name, sizeof name, "latency of %g ms, jitter of %g, %s", latency, jitter,
                 normal ? "normal" : "uniform");
        TEST(name) {
            nkt_impairment bad;
            memset(&bad, 0, sizeof bad);
            bad.seed = 300 + i;
            bad.latency_ms = latency;
            bad.jitter_ms = jitter;
            bad.jitter = rows[i].kind;
            bad.overtake = rows[i].overtake;
            result got = measure(&bad, total, 100, 32);
            double deviation = normal ? jitter : jitter / root(3);
            is_near("latency", got.latency, latency, deviation / root(total));
            is_near("deviation", got.deviation, deviation, deviation / root(total));
            CHECK_INT(got.stats.delivered, total);
            double most = latency + (normal ? 6 * jitter : jitter);
            double least = latency - (normal ? 6 * jitter : jitter);
            CHECK((double)got.longest <= most * 1e6 + 1);
            CHECK((double)got.shortest >= least * 1e6 - 1);
            CHECK_INT(got.stats.reordered > 0, jitter > 0);
        }
    }
    TEST("jitter that keeps the order") {
        nkt_impairment bad;
        memset(&bad, 0, sizeof bad);
        bad.seed = 350;
        bad.latency_ms = 50;
        bad.jitter_ms = 50;
        result got = measure(&bad, total, 100, 32);
        CHECK_INT((int)(got.reordered * total), 0);
        CHECK_INT(got.stats.reordered, 0);
        // Each waits for the slowest before it, of which there are many.
        CHECK(got.latency > 95 && got.latency <= 100);
    }
}

static void oddities(void) {
    static const double fractions[] = { 0.01, 0.1, 0.3 };
    for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        char name[80];
        double p = fractions[i];
        nkt_impairment bad;
        snprintf(name, sizeof name, "%g of the datagrams come twice", p);
        TEST(name) {
            memset(&bad, 0, sizeof bad);
            bad.seed = 400 + i;
            bad.duplicate = p;
            result got = measure(&bad, total, 100, 32);
            is_near("duplicates", got.duplicated, p, of_fraction(p));
            CHECK_INT(got.stats.duplicated, (long long)(got.duplicated * total + 0.5));
            CHECK_INT((int)(got.lost * total), 0);
        }
        snprintf(name, sizeof name, "%g of the datagrams are broken", p);
        TEST(name) {
            memset(&bad, 0, sizeof bad);
            bad.seed = 420 + i;
            bad.corrupt = p;
            result got = measure(&bad, total, 100, 32);
            // A bit of the sending time is not noticed here: 64 of 256.
            is_near("broken", got.corrupted, p * 0.75, of_fraction(p * 0.75));
            is_near("told", (double)got.stats.corrupted / total, p, of_fraction(p));
        }
        // A datagram that is held back while 100 a millisecond pass it is
        // reordered (RFC 4737, section 3), unless nothing is behind it.
        snprintf(name, sizeof name, "%g of the datagrams come out of order", p);
        TEST(name) {
            memset(&bad, 0, sizeof bad);
            bad.seed = 440 + i;
            bad.latency_ms = 10;
            bad.reorder = p;
            bad.reorder_ms = 5;
            result got = measure(&bad, total, 100, 32);
            is_near("reordered", got.reordered, p, of_fraction(p));
            CHECK_INT(got.stats.reordered, (long long)(got.reordered * total + 0.5));
            is_near("latency", got.latency, 10 + 5 * p, 5 * of_fraction(p));
        }
    }
}

static void rates(void) {
    TEST("a rate, and a queue that overflows") {
        nkt_impairment bad;
        memset(&bad, 0, sizeof bad);
        bad.seed = 500;
        bad.rate = 64000;
        bad.queue_bytes = 16000;
        // Twice as much as fits: 1 datagram of 128 bytes with headers each ms.
        // The queue has room for 125.
        result got = measure(&bad, total / 10, 1, 100);
        is_near("rate", got.rate, 64000, 0);
        is_near("lost", got.lost, 0.5 - 125.0 / (total / 10), 0);
        CHECK_INT(got.stats.overflowed, (long long)(got.lost * (total / 10) + 0.5));
        // The last that is taken in waits for 16,000 bytes at 64,000 a second.
        CHECK_RANGE(got.longest, 248000000, 250000000);
        CHECK_RANGE(got.stats.queue_high, 15800, 16000);
    }
    TEST("a rate that suffices") {
        nkt_impairment bad;
        memset(&bad, 0, sizeof bad);
        bad.seed = 501;
        bad.rate = 1000000;
        bad.latency_ms = 5;
        result got = measure(&bad, total / 10, 1, 472);
        CHECK_INT((int)(got.lost * total), 0);
        is_near("rate", got.rate, 500000, 0);
        // 500 bytes at a byte a microsecond.
        CHECK_INT(got.shortest, 5500000);
        CHECK_INT(got.longest, 5500000);
    }
    TEST("an MTU") {
        nkt_impairment bad;
        memset(&bad, 0, sizeof bad);
        bad.mtu = 128;
        result got = measure(&bad, 1000, 10, 100);
        CHECK_INT(got.stats.oversized, 0);
        CHECK_INT(got.stats.delivered, 1000);
        got = measure(&bad, 1000, 10, 101);
        CHECK_INT(got.stats.oversized, 1000);
        CHECK_INT(got.stats.delivered, 0);
    }
    TEST("stalls") {
        nkt_impairment bad;
        memset(&bad, 0, sizeof bad);
        bad.seed = 502;
        bad.stall = 0.001;
        bad.stall_ms = 2;
        result got = measure(&bad, total, 100, 32);
        is_near("stalls", (double)got.stats.stalls / total, 0.001, of_fraction(0.001));
        CHECK_INT(got.stats.delivered, total);
        CHECK_INT(got.stats.reordered, 0);
        CHECK(got.longest >= 2000000);
    }
}

// Everything at once.
static nkt_impairment storm(uint64_t seed) {
    nkt_impairment bad;
    memset(&bad, 0, sizeof bad);
    bad.seed = seed;
    bad.latency_ms = 40.7;
    bad.jitter_ms = 9.3;
    bad.jitter = NKT_JITTER_NORMAL;
    bad.overtake = true;
    bad.rate = 777777;
    bad.queue_bytes = 12345;
    bad.loss = 0.03;
    bad.loss_burst = 3.3;
    bad.burst_loss = 0.7;
    bad.duplicate = 0.01;
    bad.reorder = 0.02;
    bad.reorder_ms = 3.21;
    bad.corrupt = 0.01;
    bad.stall = 0.0005;
    bad.stall_ms = 12.5;
    return bad;
}

// The same on every system, in every byte order and with every compiler: the
// constants were computed on Linux, x86-64.
static void traces(void) {
    static const struct { uint64_t seed, trace; } rows[] = {
        { 1, 0xeccfff0d2ca0672fu }, { 7, 0xbdf7890eaea92c44u },
        { 0xffffffffffffffffu, 0x06650d5b9c806e97u },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char name[60];
        snprintf(name, sizeof name, "the trace of seed %llu", (unsigned long long)rows[i].seed);
        TEST(name) {
            nkt_impairment bad = storm(rows[i].seed);
            result got = measure(&bad, 20000, 7, 60);
            if (got.trace != rows[i].trace) {
                printf("  the trace is 0x%llx\n", (unsigned long long)got.trace);
            }
            CHECK(got.trace == rows[i].trace);
            CHECK(got.stats.seed == rows[i].seed);
        }
    }
    TEST("one knob does not change what another one does") {
        nkt_impairment bad = storm(3);
        bad.rate = 0;
        bad.queue_bytes = 0;
        result both = measure(&bad, 20000, 7, 60);
        bad.corrupt = bad.duplicate = bad.stall = bad.jitter_ms = 0;
        result one = measure(&bad, 20000, 7, 60);
        CHECK_INT(both.stats.lost, one.stats.lost);
        CHECK(both.stats.lost > 0);
    }
}

int main(void) {
    const char *all = getenv("NKT_TEST_ALL");
    total = !TEST_IS_SLOW && all != NULL && strcmp(all, "1") == 0 ? MOST : MOST / 10;
    losses();
    bursts();
    delays();
    oddities();
    rates();
    traces();
    return test_finish();
}
