// test_impair.c - impaired handles: what is refused, streams, cuts, schedules
//
// In virtual time where an instant is checked: between two waits of one thread
// the clock stands still, so that times are exact. What concerns threads of
// netkit's own and the system's sockets is at the end, in real time, and checks
// what arrives, not when.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#define MS INT64_C(1000000)

static nkt_env env;
static nkt_problem problem;
static uint8_t scratch[1 << 20];

static nkt_impairment perfect(void) {
    nkt_impairment bad;
    memset(&bad, 0, sizeof bad);
    memset(&problem, 0, sizeof problem);
    bad.seed = 5;
    bad.problem = &problem;
    return bad;
}

static nkt_conn_opts stream_opts(void) {
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    opts.nonblocking = true;
    return opts;
}

static void pair_of(nkt_conn **a, nkt_conn **b) {
    nkt_conn_opts opts = stream_opts();
    *a = *b = NULL;
    CHECK_INT(nkt_env_init_virtual(&env, 3), NKT_OK);
    CHECK_INT(nkt_conn_pair(&opts, &opts, a, b), NKT_OK);
}

static void udp_pair_of(nkt_udp **a, nkt_udp **b) {
    nkt_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    opts.nonblocking = true;
    CHECK_INT(nkt_env_init_virtual(&env, 3), NKT_OK);
    CHECK_INT(nkt_udp_pair(&opts, &opts, 0, a, b), NKT_OK);
}

static void done(nkt_conn *a, nkt_conn *b) {
    nkt_conn_abort(a);
    nkt_conn_abort(b);
    nkt_env_free(&env);
}

static int64_t now_ms(void) {
    return nkt_now_ns(&env) / MS;
}

static uint8_t pattern(size_t at) {
    return (uint8_t)(at * 31 + at / 251);
}

//------------------------------------------------------------------------------
// What is refused
//------------------------------------------------------------------------------

typedef struct refusal {
    const char *field, *says;
    void (*spoil)(nkt_impairment *bad);
} refusal;

static nkt_impair_step spoiled_step;
static nkt_impairment spoiled_to;

static void too_late(nkt_impairment *bad) { bad->latency_ms = 3600000.5; }
static void early(nkt_impairment *bad) { bad->latency_ms = -1; }
static void no_number(nkt_impairment *bad) { bad->latency_ms = 0.0 / bad->latency_ms; }
static void jittery(nkt_impairment *bad) { bad->jitter_ms = 5; bad->latency_ms = 4; }
static void shape(nkt_impairment *bad) { bad->jitter = 2; }
static void rate(nkt_impairment *bad) { bad->rate = -1; }
static void queue(nkt_impairment *bad) { bad->queue_bytes = 5; }
static void mtu(nkt_impairment *bad) { bad->mtu = 67; }
static void mtu_high(nkt_impairment *bad) { bad->mtu = 65536; }
static void loss(nkt_impairment *bad) { bad->loss = 1.01; }
static void burst(nkt_impairment *bad) { bad->loss_burst = 0.5; }
static void burst_short(nkt_impairment *bad) { bad->loss = 0.9; bad->loss_burst = 1.5; }
static void burst_less(nkt_impairment *bad) {
    bad->loss = 0.3;
    bad->loss_burst = 4;
    bad->burst_loss = 0.3;
}
static void twice(nkt_impairment *bad) { bad->duplicate = -0.1; }
static void order(nkt_impairment *bad) { bad->reorder = 2; }
static void order_ms(nkt_impairment *bad) { bad->reorder_ms = -3; }
static void broken(nkt_impairment *bad) { bad->corrupt = 1.5; }
static void stalls(nkt_impairment *bad) { bad->stall = -1; }
static void stalls_ms(nkt_impairment *bad) { bad->stall_ms = 1e9; }
static void cut(nkt_impairment *bad) { bad->cut = 4; }
static void cut_bytes(nkt_impairment *bad) { bad->cut = NKT_CUT_RESET; bad->cut_bytes = -1; }
static void cut_how(nkt_impairment *bad) { bad->cut_bytes = 7; }
static void accepts(nkt_impairment *bad) { bad->accept_ms = -1; }
static void repeats(nkt_impairment *bad) { bad->repeat_ms = 5; }
static void steps_none(nkt_impairment *bad) { bad->step_count = 1; }
static nkt_impair_step *one_step(nkt_impairment *bad) {
    spoiled_step.at_ms = 10;
    spoiled_step.for_ms = 10;
    spoiled_step.to = NULL;
    bad->steps = &spoiled_step;
    bad->step_count = 1;
    return &spoiled_step;
}
static void step_nothing(nkt_impairment *bad) { one_step(bad)->for_ms = 0; }
static void step_long(nkt_impairment *bad) { one_step(bad); bad->repeat_ms = 15; }
static void step_early(nkt_impairment *bad) { one_step(bad)->at_ms = -1; }
static void step_bad(nkt_impairment *bad) {
    spoiled_to = perfect();
    spoiled_to.loss = 7;
    one_step(bad)->to = &spoiled_to;
}
static void step_cut(nkt_impairment *bad) {
    spoiled_to = perfect();
    spoiled_to.cut = NKT_CUT_RESET;
    one_step(bad)->to = &spoiled_to;
}

static void refusals(void) {
    static const refusal rows[] = {
        { "latency_ms", "expected 0 to 3600000 ms", too_late },
        { "latency_ms", "expected 0 to 3600000 ms", early },
        { "latency_ms", "expected 0 to 3600000 ms", no_number },
        { "jitter_ms", "at most latency_ms", jittery }, { "jitter", "NKT_JITTER_UNIFORM", shape },
        { "rate", "0 to 10000000000", rate }, { "queue_bytes", "without a rate", queue },
        { "mtu", "68 to 65535", mtu }, { "mtu", "68 to 65535", mtu_high },
        { "loss", "0 to 1", loss }, { "loss_burst", "1 to 1000000", burst },
        { "loss_burst", "too short", burst_short }, { "burst_loss", "more than loss", burst_less },
        { "duplicate", "0 to 1", twice }, { "reorder", "0 to 1", order },
        { "reorder_ms", "0 to 3600000", order_ms }, { "corrupt", "0 to 1", broken },
        { "stall", "0 to 1", stalls }, { "stall_ms", "0 to 3600000", stalls_ms },
        { "cut", "NKT_CUT_", cut }, { "cut_bytes", "0 or more", cut_bytes },
        { "cut", "need to know how", cut_how }, { "accept_ms", "0 to 3600000", accepts },
        { "repeat_ms", "no steps", repeats }, { "step_count", "1 to 256", steps_none },
        { "steps.for_ms", "more than 0", step_nothing }, { "repeat_ms", "longer", step_long },
        { "steps.at_ms", "0 to 3600000", step_early }, { "loss", "0 to 1", step_bad },
        { "steps.to", "no steps, cut", step_cut },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char name[80];
        snprintf(name, sizeof name, "refused: %s, %s", rows[i].field, rows[i].says);
        TEST(name) {
            nkt_conn *a, *b;
            nkt_impair_stats stats;
            nkt_impairment bad = perfect();
            rows[i].spoil(&bad);
            pair_of(&a, &b);
            CHECK_INT(nkt_conn_impair(a, &bad), NKT_EINVAL);
            CHECK_STR(problem.field, rows[i].field);
            CHECK(strstr(problem.text, rows[i].says) != NULL);
            CHECK_INT(problem.err, NKT_EINVAL);
            // Nothing was changed.
            CHECK_INT(nkt_conn_impair_stats(a, NKT_READ, &stats), NKT_ENOTFOUND);
            done(a, b);
        }
    }
}

static void other_refusals(void) {
    TEST("refused: cuts that only streams have") {
        nkt_udp *a, *b;
        udp_pair_of(&a, &b);
        for (int how = NKT_CUT_RESET; how <= NKT_CUT_END; how++) {
            nkt_impairment bad = perfect();
            bad.cut = how;
            CHECK_INT(nkt_udp_impair(a, &bad), NKT_EINVAL);
            CHECK_STR(problem.field, "cut");
        }
        nkt_udp_close(a);
        nkt_udp_close(b);
        nkt_env_free(&env);
    }
    TEST("refused: two steps at once") {
        nkt_conn *a, *b;
        nkt_impair_step steps[2] = { { 10, 20, NULL }, { 29, 5, NULL } };
        nkt_impairment bad = perfect();
        bad.steps = steps;
        bad.step_count = 2;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_EINVAL);
        CHECK_STR(problem.field, "steps.at_ms");
        steps[1].at_ms = 30;
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        done(a, b);
    }
    TEST("statistics of what is not there") {
        nkt_conn *a, *b;
        nkt_impair_stats stats;
        nkt_impairment bad = perfect();
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_stats(a, NKT_WRITE, &stats), NKT_ENOTFOUND);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_conn_impair_stats(a, 0, &stats), NKT_EINVAL);
        CHECK_INT(nkt_conn_impair_stats(a, NKT_READ | NKT_WRITE, &stats), NKT_EINVAL);
        CHECK_INT(nkt_conn_impair_stats(a, NKT_READ, &stats), NKT_OK);
        CHECK_INT(stats.seed, 5);
        done(a, b);
    }
}

static void profiles(void) {
    static const char *const names[] = {
        "dsl", "cable", "lte", "3g", "edge", "wifi-busy", "satellite-geo", "satellite-leo",
        "transatlantic", "train",
    };
    enum { COUNT = sizeof names / sizeof names[0] };
    for (int i = 0; i < COUNT; i++) {
        char name[60];
        snprintf(name, sizeof name, "profile %s", names[i]);
        TEST(name) {
            nkt_impairment up, down;
            nkt_conn *a, *b;
            nkt_udp *c, *d;
            CHECK_STR(nkt_impair_profile_name(i), names[i]);
            CHECK(strlen(nkt_impair_profile_source(i)) > 20);
            CHECK_INT(nkt_impair_profile(names[i], &up, &down, NULL), NKT_OK);
            CHECK(up.rate > 0 && down.rate >= up.rate && up.latency_ms > 0);
            CHECK(down.latency_ms > 0 && up.seed == 0);
            pair_of(&a, &b);
            CHECK_INT(nkt_conn_impair_ways(a, &up, &down), NKT_OK);
            done(a, b);
            udp_pair_of(&c, &d);
            CHECK_INT(nkt_udp_impair_ways(c, &up, &down), NKT_OK);
            nkt_udp_close(c);
            nkt_udp_close(d);
            nkt_env_free(&env);
        }
    }
    TEST("profiles that are none") {
        nkt_impairment up;
        CHECK(nkt_impair_profile_name(COUNT) == NULL);
        CHECK(nkt_impair_profile_name(-1) == NULL);
        CHECK(nkt_impair_profile_source(COUNT) == NULL);
        CHECK_INT(nkt_impair_profile("5g", &up, &up, &problem), NKT_ENOTFOUND);
        CHECK_STR(problem.field, "profile");
        CHECK(strstr(problem.text, "dsl, cable, lte") != NULL);
        CHECK_INT(nkt_impair_profile(NULL, &up, &up, NULL), NKT_ENOTFOUND);
        CHECK_INT(nkt_impair_profile("lte", NULL, NULL, NULL), NKT_OK);
    }
    TEST("a seed by chance is told, and repeats it") {
        nkt_conn *a, *b;
        nkt_impair_stats stats, sent;
        nkt_impairment bad = perfect();
        bad.seed = 0;
        bad.latency_ms = 1;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_conn_impair_stats(a, NKT_READ, &stats), NKT_OK);
        CHECK_INT(nkt_conn_impair_stats(a, NKT_WRITE, &sent), NKT_OK);
        CHECK(stats.seed != 0);
        CHECK(stats.seed != sent.seed);     // one for each direction
        done(a, b);
    }
}

//------------------------------------------------------------------------------
// Streams, in virtual time
//------------------------------------------------------------------------------

typedef struct mover {
    nkt_conn *from, *to;
    nkt_poller *poller;
    size_t total, sent, got;
    int end;                    // what reading ended with
    int64_t first, last;        // ms, of bytes that came
    size_t wrong;
} mover;

static void mover_write(mover *m) {
    while (m->sent < m->total) {
        size_t len = m->total - m->sent < sizeof scratch ? m->total - m->sent : sizeof scratch;
        if (len > 30000) len = 30000;
        for (size_t i = 0; i < len; i++) scratch[i] = pattern(m->sent + i);
        int err = nkt_conn_write(m->from, scratch, len);
        if (err < 0) return;
        m->sent += len;
        if (m->sent == m->total) CHECK_INT(nkt_conn_shutdown_write(m->from), NKT_OK);
    }
}

static void mover_read(mover *m) {
    ptrdiff_t got;
    while ((got = nkt_conn_read(m->to, scratch, sizeof scratch)) > 0) {
        if (m->got == 0) m->first = now_ms();
        m->last = now_ms();
        for (ptrdiff_t i = 0; i < got; i++) {
            m->wrong += scratch[i] != pattern(m->got + (size_t)i);
        }
        m->got += (size_t)got;
    }
    if (got != NKT_EAGAIN) m->end = (int)got;
}

// Moves `total` bytes and the end of the stream from `a` to `b`.
static void move(mover *m, nkt_conn *a, nkt_conn *b, size_t total, int64_t until_ms) {
    nkt_poller_opts opts;
    nkt_event event;
    memset(m, 0, sizeof *m);
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    m->from = a;
    m->to = b;
    m->total = total;
    CHECK_INT(nkt_poller_open(&opts, &m->poller), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(m->poller, a, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(m->poller, b, NULL), NKT_OK);
    mover_write(m);
    while (m->end == 0 && now_ms() < until_ms) {
        int64_t left = until_ms - now_ms();
        int events = nkt_poller_wait(m->poller, (int32_t)left);
        if (events < 0) break;
        while (nkt_poller_next(m->poller, &event) == NKT_OK) {
            if (event.conn == a) mover_write(m);
            else mover_read(m);
        }
    }
    CHECK_INT(m->wrong, 0);
    nkt_poller_close(m->poller);
}

static void stream_times(void) {
    mover m;
    nkt_conn *a, *b;
    nkt_impair_stats stats;
    TEST("stream: latency") {
        nkt_impairment bad = perfect();
        bad.latency_ms = 70;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        move(&m, a, b, 50000, 10000);
        CHECK_INT(m.end, NKT_EOF);
        CHECK_INT(m.got, 50000);
        CHECK_INT(m.first, 70);
        CHECK_INT(m.last, 70);
        done(a, b);
    }
    TEST("stream: latency where it is read") {
        nkt_impairment bad = perfect();
        bad.latency_ms = 70;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(b, &bad), NKT_OK);
        move(&m, a, b, 50000, 10000);
        CHECK_INT(m.end, NKT_EOF);
        CHECK_INT(m.got, 50000);
        CHECK_INT(m.first, 70);
        done(a, b);
    }
    TEST("stream: rate, and the sender waits") {
        nkt_impairment bad = perfect();
        bad.rate = 100000;
        bad.queue_bytes = 20000;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        move(&m, a, b, 1000000, 60000);
        CHECK_INT(m.end, NKT_EOF);
        CHECK_INT(m.got, 1000000);
        CHECK_RANGE(m.last, 9999, 10001);
        CHECK_INT(nkt_conn_impair_stats(a, NKT_WRITE, &stats), NKT_OK);
        CHECK_INT(stats.sent_bytes, 1000000);
        CHECK_INT(stats.delivered_bytes, 1000000);
        CHECK_INT(stats.lost, 0);
        CHECK_RANGE(stats.queue_high, 18000, 22000);
        done(a, b);
    }
    TEST("stream: loss costs time, not bytes") {
        nkt_impairment bad = perfect();
        bad.latency_ms = 20;
        bad.loss = 0.05;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        move(&m, a, b, 1460 * 200, 60000);
        CHECK_INT(m.end, NKT_EOF);
        CHECK_INT(m.got, 1460 * 200);
        CHECK_INT(nkt_conn_impair_stats(a, NKT_WRITE, &stats), NKT_OK);
        CHECK_RANGE(stats.lost, 3, 25);
        CHECK_INT(stats.delivered_bytes, 1460 * 200);
        // A round trip and a millisecond more than without.
        CHECK_INT(m.last, 20 + 41);
        done(a, b);
    }
}

static void stream_chances(void) {
    mover m;
    nkt_conn *a, *b;
    nkt_impair_stats stats;
    TEST("stream: byte by byte, and stalls") {
        nkt_impairment bad = perfect();
        bad.piece_max = 1;
        bad.stall = 0.1;
        bad.stall_ms = 7;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_conn_impair(b, &bad), NKT_OK);
        move(&m, a, b, 3000, 1000000);
        CHECK_INT(m.end, NKT_EOF);
        CHECK_INT(m.got, 3000);
        CHECK_INT(nkt_conn_impair_stats(a, NKT_WRITE, &stats), NKT_OK);
        CHECK_INT(stats.sent, 3000);
        CHECK_RANGE(stats.stalls, 200, 400);
        done(a, b);
    }
    TEST("stream: everything at once") {
        nkt_impairment bad = perfect();
        bad.latency_ms = 12.5;
        bad.jitter_ms = 12;
        bad.rate = 500000;
        bad.loss = 0.02;
        bad.loss_burst = 3;
        bad.corrupt = 0.01;
        bad.duplicate = bad.reorder = 0.5;
        bad.piece_max = 700;
        bad.stall = 0.1;
        bad.stall_ms = 1.5;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_conn_impair(b, &bad), NKT_OK);
        move(&m, a, b, 300000, 1000000);
        CHECK_INT(m.end, NKT_EOF);
        CHECK_INT(m.got, 300000);
        done(a, b);
    }
    TEST("stream: the impairment ends, and what is under way still comes") {
        nkt_str line;
        nkt_impairment bad = perfect();
        bad.latency_ms = 500;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(b, &bad), NKT_OK);
        CHECK_INT(nkt_conn_write_str(a, "slow\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_EAGAIN);
        CHECK_INT(nkt_conn_impair(b, NULL), NKT_OK);
        move(&m, a, b, 0, 1);
        CHECK_INT(m.got, 0);
        CHECK_INT(nkt_conn_write_str(a, "fast\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_EAGAIN);
        CHECK_INT(nkt_sleep(&env, 499), NKT_OK);
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_OK);
        CHECK_VIEW(line, "slow");
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_OK);
        CHECK_VIEW(line, "fast");
        done(a, b);
    }
}

static void stream_rates(void) {
    nkt_conn *a, *b;
    nkt_impair_stats stats;
    TEST("stream: another rate, and what waits goes at that one") {
        nkt_impairment bad = perfect();
        bad.rate = 1000;
        bad.queue_bytes = 100000;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(b, NULL, &bad), NKT_OK);
        CHECK_INT(nkt_conn_write(a, scratch, 14600), NKT_OK);
        CHECK_INT(nkt_conn_read(b, scratch, sizeof scratch), NKT_EAGAIN);   // 14.6 s are taken in
        bad.rate = 1000000;
        CHECK_INT(nkt_conn_impair_ways(b, NULL, &bad), NKT_OK);
        CHECK_INT(nkt_conn_write(a, scratch, 1460), NKT_OK);
        CHECK_INT(nkt_conn_read(b, scratch, sizeof scratch), NKT_EAGAIN);
        CHECK_INT(nkt_conn_impair_stats(b, NKT_READ, &stats), NKT_OK);
        CHECK_RANGE(stats.queue_high, 14600, 16060);
        // What is under way keeps its time, and what is behind it its turn.
        nkt_sleep(&env, 14599);
        CHECK_RANGE(nkt_conn_read(b, scratch, sizeof scratch), 1, 14599);
        nkt_sleep(&env, 1);
        size_t rest = 0;
        ptrdiff_t got;
        while ((got = nkt_conn_read(b, scratch, sizeof scratch)) > 0) rest += (size_t)got;
        CHECK_INT(rest, 1460 * 2);
        done(a, b);
    }
}

static void schedules_of_datagrams(void) {
    TEST("schedule: at 5 s everything is lost for 2 s, of datagrams") {
        nkt_udp *c, *d;
        nkt_impair_step step = { 5000, 2000, NULL };
        nkt_impairment bad = perfect();
        bad.steps = &step;
        bad.step_count = 1;
        udp_pair_of(&c, &d);
        CHECK_INT(nkt_udp_impair(c, &bad), NKT_OK);
        char text[8];
        int lost_first = -1, lost_last = -1, lost = 0;
        for (int i = 0; i < 100; i++) {
            snprintf(text, sizeof text, "%d", i);
            CHECK_INT(nkt_udp_send_str(c, text, NULL), (long long)strlen(text));
            char in[8] = "";
            if (nkt_udp_recv(d, in, sizeof in, NULL) < 0) {
                if (lost_first < 0) lost_first = i;
                lost_last = i;
                lost++;
            } else {
                CHECK_STR(in, text);
            }
            nkt_sleep(&env, 100);
        }
        CHECK_INT(lost_first, 50);
        CHECK_INT(lost_last, 69);
        CHECK_INT(lost, 20);
        nkt_udp_close(c);
        nkt_udp_close(d);
        nkt_env_free(&env);
    }
    TEST("schedule: steps of other kinds, again and again") {
        nkt_udp *c, *d;
        nkt_impairment slow = perfect(), bad = perfect();
        nkt_impair_step steps[2] = { { 100, 100, NULL }, { 300, 100, NULL } };
        slow.latency_ms = 30;
        steps[0].to = &slow;
        bad.steps = steps;
        bad.step_count = 2;
        bad.repeat_ms = 500;
        udp_pair_of(&c, &d);
        CHECK_INT(nkt_udp_impair(d, &bad), NKT_OK);
        for (int i = 0; i < 30; i++) {
            int phase = i % 10;         // every 50 ms, a period of 500
            char in[8];
            bool is_slow = phase == 2 || phase == 3, is_lost = phase == 6 || phase == 7;
            CHECK_INT(nkt_udp_send_str(c, "x", NULL), 1);
            CHECK_INT(nkt_udp_recv(d, in, sizeof in, NULL), is_slow || is_lost ? NKT_EAGAIN : 1);
            nkt_sleep(&env, 29);
            CHECK_INT(nkt_udp_recv(d, in, sizeof in, NULL), NKT_EAGAIN);
            nkt_sleep(&env, 1);
            CHECK_INT(nkt_udp_recv(d, in, sizeof in, NULL), is_slow ? 1 : NKT_EAGAIN);
            nkt_sleep(&env, 20);
        }
        nkt_udp_close(c);
        nkt_udp_close(d);
        nkt_env_free(&env);
    }
}

static void schedules_of_streams(void) {
    mover m;
    nkt_conn *a, *b;
    TEST("schedule: a stream waits for the end of an outage") {
        nkt_impair_step step = { 0, 2000, NULL };
        nkt_impairment bad = perfect();
        bad.latency_ms = 10;
        bad.steps = &step;
        bad.step_count = 1;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        move(&m, a, b, 20000, 10000);
        CHECK_INT(m.end, NKT_EOF);
        CHECK_INT(m.got, 20000);
        CHECK_INT(m.first, 2010);
        CHECK_INT(m.last, 2010);
        done(a, b);
    }
    TEST("schedule: an outage without end, until it is ended") {
        nkt_impairment bad = perfect();
        bad.loss = 1;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        move(&m, a, b, 5000, 100000);
        CHECK_INT(m.got, 0);
        CHECK_INT(m.end, 0);
        bad.loss = 0;
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        nkt_sleep(&env, 1);
        CHECK_INT(nkt_conn_read(b, scratch, sizeof scratch), 5000);
        done(a, b);
    }
}

static void cuts_by_bytes(void) {
    mover m;
    nkt_conn *a, *b;
    TEST("cut: a reset after so many bytes that were sent") {
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_RESET;
        bad.cut_bytes = 1000;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        move(&m, a, b, 1000, 10);
        CHECK_INT(m.got, 1000);
        CHECK_INT(nkt_conn_read(a, scratch, 10), NKT_EAGAIN);
        CHECK_INT(nkt_conn_abort(b), 0);
        nkt_conn_abort(a);
        nkt_env_free(&env);
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        memset(scratch, 7, 2000);
        CHECK_INT(nkt_conn_write(a, scratch, 2000), NKT_ERESET);
        CHECK_INT(nkt_conn_written(a), 1000);
        CHECK_INT(nkt_conn_read(a, scratch, 10), NKT_ERESET);
        CHECK_INT(nkt_conn_read(b, scratch, 2000), 1000);
        CHECK_INT(nkt_conn_read(b, scratch, 2000), NKT_EAGAIN);
        nkt_conn_close(a);
        CHECK_INT(nkt_conn_read(b, scratch, 2000), NKT_ERESET);
        nkt_conn_abort(b);
        nkt_env_free(&env);
    }
    TEST("cut: a reset after so many bytes that were received") {
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_RESET;
        bad.cut_bytes = 1000;
        bad.latency_ms = 3;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(b, NULL, &bad), NKT_OK);
        move(&m, a, b, 5000, 1000);
        CHECK_INT(m.got, 1000);
        CHECK_INT(m.end, NKT_ERESET);
        CHECK_INT(nkt_conn_write_str(b, "x"), NKT_ERESET);
        done(a, b);
    }
    TEST("cut: the end after so many bytes, each direction its own") {
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_END;
        bad.cut_bytes = 300;
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        CHECK_INT(nkt_conn_write(a, scratch, 500), NKT_EPIPE);
        CHECK_INT(nkt_conn_written(a), 300);
        CHECK_INT(nkt_conn_read(b, scratch, 500), 300);
        CHECK_INT(nkt_conn_read(b, scratch, 500), NKT_EOF);
        CHECK_INT(nkt_conn_write_str(b, "still here\n"), NKT_OK);
        nkt_str line;
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_OK);
        CHECK_VIEW(line, "still here");
        done(a, b);
        pair_of(&a, &b);
        CHECK_INT(nkt_conn_impair_ways(b, NULL, &bad), NKT_OK);
        move(&m, a, b, 5000, 1000);
        CHECK_INT(m.got, 300);
        CHECK_INT(m.end, NKT_EOF);
        done(a, b);
    }
}

static void cuts_both_ways(void) {
    nkt_conn *a, *b;
    TEST("cut: silence at a time, and the read's time-out") {
        nkt_conn_opts opts = stream_opts();
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_SILENT;
        bad.cut_ms = 250;
        CHECK_INT(nkt_env_init_virtual(&env, 3), NKT_OK);
        opts.nonblocking = false;
        opts.stream.read_timeout_ms = 10000;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        nkt_str line;
        CHECK_INT(nkt_conn_write_str(b, "one\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_OK);
        CHECK_VIEW(line, "one");
        nkt_sleep(&env, 250);
        CHECK_INT(nkt_conn_write_str(b, "two\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_ETIMEDOUT);
        CHECK_INT(now_ms(), 10250);
        done(a, b);
    }
    TEST("cut: a reset at a time wakes the reader") {
        nkt_conn_opts opts = stream_opts();
        nkt_impairment bad = perfect();
        bad.cut = NKT_CUT_RESET;
        bad.cut_ms = 90000.5;
        CHECK_INT(nkt_env_init_virtual(&env, 3), NKT_OK);
        opts.nonblocking = false;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_conn_read(a, scratch, 10), NKT_ERESET);
        CHECK_INT(nkt_now_ns(&env), INT64_C(90000500000));
        done(a, b);
    }
    TEST("cut: silence of datagrams after so many bytes") {
        nkt_udp *c, *d;
        nkt_impairment bad = perfect();
        nkt_impair_stats stats;
        bad.cut = NKT_CUT_SILENT;
        bad.cut_bytes = 100;
        udp_pair_of(&c, &d);
        CHECK_INT(nkt_udp_impair(c, &bad), NKT_OK);
        for (int i = 0; i < 20; i++) CHECK_INT(nkt_udp_send(c, scratch, 10, NULL), 10);
        CHECK_INT(nkt_udp_impair_stats(c, NKT_WRITE, &stats), NKT_OK);
        CHECK_INT(stats.delivered, 10);
        CHECK_INT(stats.lost, 10);
        nkt_udp_close(c);
        nkt_udp_close(d);
        nkt_env_free(&env);
    }
}

//------------------------------------------------------------------------------
// Sockets of the system, in real time
//------------------------------------------------------------------------------

static void over_tcp(void) {
    TEST("a blocking connection over TCP, both directions") {
        nkt_listener *listener;
        nkt_connect_opts opts;
        nkt_conn *client, *server;
        nkt_addr addr;
        nkt_str line;
        char target[NKT_ADDR_TEXT_MAX];
        nkt_impairment bad = perfect();
        bad.latency_ms = 5;
        bad.piece_max = 3;
        memset(&opts, 0, sizeof opts);
        CHECK_INT(nkt_listen("127.0.0.1:0", NULL, &listener), NKT_OK);
        CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
        CHECK(nkt_addr_format(&addr, target, sizeof target) > 0);
        CHECK_INT(nkt_connect(target, &opts, &client), NKT_OK);
        CHECK_INT(nkt_accept(listener, &server), NKT_OK);
        CHECK_INT(nkt_conn_impair_ways(client, NULL, &bad), NKT_OK);
        CHECK_INT(nkt_conn_impair_ways(server, NULL, &bad), NKT_OK);
        CHECK_INT(nkt_conn_set_option(client, NKT_OPT_READ_TIMEOUT_MS, 10000), NKT_OK);
        CHECK_INT(nkt_conn_set_option(server, NKT_OPT_READ_TIMEOUT_MS, 10000), NKT_OK);
        for (int i = 0; i < 3; i++) {
            CHECK_INT(nkt_conn_write_str(client, "hello, server\n"), NKT_OK);
            CHECK_INT(nkt_conn_read_line(server, &line), NKT_OK);
            CHECK_VIEW(line, "hello, server");
            CHECK_INT(nkt_conn_write_str(server, "hello, client\n"), NKT_OK);
            CHECK_INT(nkt_conn_read_line(client, &line), NKT_OK);
            CHECK_VIEW(line, "hello, client");
        }
        nkt_conn_close(client);
        nkt_conn_close(server);
        nkt_listener_close(listener);
    }
}

static void slow_accepts(void) {
    TEST("a slow accept, and impaired from the first byte") {
        nkt_listen_opts opts;
        nkt_listener *listener;
        nkt_conn *client, *server;
        nkt_addr addr;
        nkt_impair_stats first, second;
        char target[NKT_ADDR_TEXT_MAX];
        nkt_impairment bad = perfect();
        memset(&opts, 0, sizeof opts);
        opts.accept_timeout_ms = 20;
        bad.accept_ms = 300;
        bad.latency_ms = 1;
        CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_OK);
        CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
        CHECK(nkt_addr_format(&addr, target, sizeof target) > 0);
        CHECK_INT(nkt_listener_impair(listener, &bad), NKT_OK);
        for (int i = 0; i < 2; i++) {
            CHECK_INT(nkt_connect(target, NULL, &client), NKT_OK);
            nkt_listener_set_timeout(listener, 20);
            CHECK_INT(nkt_accept(listener, &server), NKT_ETIMEDOUT);
            nkt_listener_set_timeout(listener, 10000);
            CHECK_INT(nkt_accept(listener, &server), NKT_OK);
            CHECK_INT(nkt_conn_impair_stats(server, NKT_READ, i == 0 ? &first : &second), NKT_OK);
            nkt_conn_close(client);
            nkt_conn_close(server);
        }
        CHECK(first.seed != second.seed);
        CHECK_INT(nkt_listener_impair_ways(listener, NULL, NULL), NKT_OK);
        CHECK_INT(nkt_connect(target, NULL, &client), NKT_OK);
        CHECK_INT(nkt_accept(listener, &server), NKT_OK);
        nkt_conn_close(client);
        nkt_conn_close(server);
        // One that is accepted and not told is closed with the listener.
        CHECK_INT(nkt_listener_impair(listener, &bad), NKT_OK);
        CHECK_INT(nkt_connect(target, NULL, &client), NKT_OK);
        nkt_listener_set_timeout(listener, 20);
        CHECK_INT(nkt_accept(listener, &server), NKT_ETIMEDOUT);
        nkt_listener_close(listener);
        CHECK(nkt_conn_read(client, scratch, 10) < 0);
        nkt_conn_close(client);
    }
}

int main(void) {
    refusals();
    other_refusals();
    profiles();
    stream_times();
    stream_chances();
    stream_rates();
    schedules_of_datagrams();
    schedules_of_streams();
    cuts_by_bytes();
    cuts_both_ways();
    over_tcp();
    slow_accepts();
    return test_finish();
}
