// test_lookup.c - from a host name to addresses
//
// The resolver is a script (see fakenet.h): what each family's answer is, and
// at which instant of a false clock it comes. What needs several threads to be
// under way in real time is in test_lookup_threads_posix.c.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "fakenet.h"

#define SIX "2001:db8::1"
#define FOUR "192.0.2.1"

static nkt_lookup_opts lookup_opts(void) {
    nkt_lookup_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &fakenet.p.env;
    return opts;
}

// Addresses as a text with blanks between them.
static const char *text_of(const nkt_ip *ips, int count) {
    static char text[4096];
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < count && used + NKT_IP_TEXT_MAX + 1 < sizeof text; i++) {
        if (i > 0) text[used++] = ' ';
        int len = nkt_ip_format(&ips[i], text + used, sizeof text - used);
        if (!CHECK(len > 0)) break;
        used += (size_t)len;
    }
    return text;
}

//------------------------------------------------------------------------------
// How it ends, and when
//------------------------------------------------------------------------------

typedef struct end_row {
    const char *name;
    int ipv6_ms;
    const char *ipv6;
    int ipv4_ms;
    const char *ipv4;
    int32_t timeout_ms, family;
    int ipv6_err, ipv4_err;     // 0 = NKT_ENOTFOUND where there is none
    int result;
    int32_t elapsed_ms;
    const char *ips;            // in the order of RFC 6724
} end_row;

static const end_row end_rows[] = {
    { "both families", 0, SIX, 0, FOUR, 0, 0, 0, 0, 2, 0, SIX " " FOUR },
    { "A is first, IPv6 goes first", 30, SIX, 10, FOUR, 0, 0, 0, 0, 2, 30, SIX " " FOUR },
    { "IPv4 only", 30, "", 10, FOUR, 0, 0, 0, 0, 1, 30, FOUR },
    { "IPv6 only", 10, SIX, 30, "", 0, 0, 0, 0, 1, 30, SIX },
    { "IPv4 alone is asked for", 0, SIX, 10, FOUR, 0, NKT_IPV4, 0, 0, 1, 10, FOUR },
    { "IPv6 alone is asked for", 10, SIX, 0, FOUR, 0, NKT_IPV6, 0, 0, 1, 10, SIX },
    { "not found", 10, "", 20, "", 0, 0, 0, 0, NKT_ENOTFOUND, 20, "" },
    { "AAAA cannot be had, A has none", 10, "", 20, "", 0, 0, NKT_ELOOKUP, 0,
      NKT_ELOOKUP, 20, "" },
    { "A cannot be had, AAAA has none", 10, "", 20, "", 0, 0, 0, NKT_ELOOKUP,
      NKT_ELOOKUP, 20, "" },
    { "A cannot be had, AAAA can", 10, SIX, 20, "", 0, 0, 0, NKT_ELOOKUP, 1, 20, SIX },
    { "the resolver's memory", 10, "", 20, "", 0, 0, NKT_ENOMEM, 0, NKT_ENOMEM, 20, "" },
    { "out of time", FAKENET_NEVER, "", FAKENET_NEVER, "", 700, 0, 0, 0, NKT_ETIMEDOUT, 700, "" },
    { "thirty seconds", FAKENET_NEVER, "", FAKENET_NEVER, "", 0, 0, 0, 0,
      NKT_ETIMEDOUT, 30000, "" },
    { "out of time after one had none", 10, "", FAKENET_NEVER, "", 700, 0, 0, 0,
      NKT_ETIMEDOUT, 700, "" },
    { "out of time with one answer: that one", FAKENET_NEVER, "", 10, FOUR, 700, 0, 0, 0,
      1, 700, FOUR },
    { "an answer at the deadline is in time", 10, "", 700, FOUR, 700, 0, 0, 0, 1, 700, FOUR },
    { "no deadline", 40, SIX, 9000000, FOUR, -1, 0, 0, 0, 2, 9000000, SIX " " FOUR },
};

static void begin(const end_row *row) {
    fakenet_open(0);
    fakenet.family = row->family;
    fakenet_answer(NKT_IPV6, row->ipv6_ms, row->ipv6);
    fakenet_answer(NKT_IPV4, row->ipv4_ms, row->ipv4);
    if (row->ipv6_err != 0) fakenet_failure(NKT_IPV6, row->ipv6_ms, row->ipv6_err);
    if (row->ipv4_err != 0) fakenet_failure(NKT_IPV4, row->ipv4_ms, row->ipv4_err);
}

static void ends(void) {
    for (size_t i = 0; i < sizeof end_rows / sizeof end_rows[0]; i++) {
        const end_row *row = &end_rows[i];
#ifdef NETKIT_NO_THREADS
        if (row->ipv6_ms != 0 || row->ipv4_ms != 0) continue;
#endif
        TEST(row->name) {
            nkt_ip ips[NKT_LOOKUP_MAX];
            begin(row);
            nkt_lookup_opts opts = lookup_opts();
            opts.timeout_ms = row->timeout_ms;
            opts.family = row->family;
            int result = nkt_lookup("example.org", &opts, ips, NKT_LOOKUP_MAX);
            CHECK_INT(result, row->result);
            CHECK_INT(fakenet.p.now, row->elapsed_ms * PROBE_MS);
            CHECK_STR(text_of(ips, result), row->ips);
            fakenet_close();
            CHECK_INT(fakenet.answers[0].calls, row->family != NKT_IPV4);
            CHECK_INT(fakenet.answers[1].calls, row->family != NKT_IPV6);
        }
    }
}

//------------------------------------------------------------------------------
// Each answer as it comes
//------------------------------------------------------------------------------

static nkt_task *start(const nkt_lookup_opts *opts) {
    nkt_task *task = NULL;
    CHECK_INT(nkt_lookup_start("example.org", opts, &task), NKT_OK);
    return task;
}

static void check_next(nkt_task *task, const char *want) {
    nkt_ip ips[NKT_LOOKUP_MAX];
    int result = nkt_lookup_finish(task, ips, NKT_LOOKUP_MAX);
    if (CHECK(result > 0)) CHECK_STR(text_of(ips, result), want);
}

static void check_no_next(nkt_task *task, int err) {
    nkt_ip ip;
    CHECK_INT(nkt_lookup_finish(task, &ip, 1), err);
}

#ifndef NETKIT_NO_THREADS
static void each(void) {
    TEST("each family's answer as it comes, in the resolver's order") {
        for (int ipv4_first = 0; ipv4_first < 2; ipv4_first++) {
            const char *six = "2001:db8::2 ::1 2001:db8::1", *four = "192.0.2.2 127.0.0.1";
            fakenet_open(0);
            fakenet_answer(NKT_IPV6, ipv4_first ? 30 : 10, six);
            fakenet_answer(NKT_IPV4, ipv4_first ? 10 : 30, four);
            nkt_lookup_opts opts = lookup_opts();
            nkt_task *task = start(&opts);
            check_no_next(task, NKT_EAGAIN);
            CHECK_INT(nkt_task_wait(task, 5), NKT_ETIMEDOUT);
            CHECK_INT(nkt_task_wait(task, -1), NKT_OK);
            CHECK_INT(fakenet_now(), 10 * PROBE_MS);
            check_next(task, ipv4_first ? four : six);
            check_no_next(task, NKT_EAGAIN);
            CHECK_INT(nkt_task_wait(task, -1), NKT_OK);
            CHECK_INT(fakenet_now(), 30 * PROBE_MS);
            check_next(task, ipv4_first ? six : four);
            check_no_next(task, NKT_EOF);
            check_no_next(task, NKT_EOF);
            CHECK_INT(nkt_task_wait(task, 0), NKT_OK);
            nkt_task_close(task);
            fakenet_close();
        }
    }
}

static void each_end(void) {
    TEST("failures are told at the end, again and again") {
        fakenet_open(0);
        fakenet_failure(NKT_IPV6, 10, NKT_ELOOKUP);
        fakenet_failure(NKT_IPV4, 20, NKT_ENOTFOUND);
        nkt_lookup_opts opts = lookup_opts();
        nkt_task *task = start(&opts);
        CHECK_INT(nkt_task_wait(task, -1), NKT_OK);
        check_no_next(task, NKT_EAGAIN);
        CHECK_INT(nkt_task_wait(task, -1), NKT_OK);
        check_no_next(task, NKT_ELOOKUP);
        check_no_next(task, NKT_ELOOKUP);
        nkt_task_close(task);
        fakenet_close();
    }
    TEST("out of time: the answer that comes later is nobody's") {
        fakenet_open(0);
        nkt_lookup_opts opts = lookup_opts();
        opts.timeout_ms = 100;
        fakenet_answer(NKT_IPV6, 50, SIX);
        fakenet_answer(NKT_IPV4, FAKENET_NEVER, FOUR);
        nkt_task *task = start(&opts);
        CHECK_INT(nkt_task_wait(task, -1), NKT_OK);
        check_next(task, SIX);
        CHECK_INT(nkt_task_wait(task, -1), NKT_OK);
        CHECK_INT(fakenet_now(), 100 * PROBE_MS);
        check_no_next(task, NKT_EOF);
        fakenet_release(1);
        check_no_next(task, NKT_EOF);
        nkt_task_close(task);
        fakenet_close();
    }
    TEST("room for less than the answer: the rest comes next") {
        nkt_ip ips[2];
        fakenet_open(0);
        fakenet_answer(NKT_IPV6, 0, "2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5");
        fakenet_answer(NKT_IPV4, 0, FOUR);
        nkt_lookup_opts opts = lookup_opts();
        nkt_task *task = start(&opts);
        fakenet_settle();
        fakenet_release(0);
        CHECK_INT(nkt_lookup_finish(task, ips, 2), 2);
        CHECK_STR(text_of(ips, 2), "2001:db8::1 2001:db8::2");
        CHECK_INT(nkt_task_wait(task, 0), NKT_OK);
        CHECK_INT(nkt_lookup_finish(task, ips, 2), 2);
        CHECK_STR(text_of(ips, 2), "2001:db8::3 2001:db8::4");
        CHECK_INT(nkt_lookup_finish(task, ips, 2), 1);
        CHECK_STR(text_of(ips, 1), "2001:db8::5");
        check_no_next(task, NKT_EAGAIN);
        fakenet_release(1);
        CHECK_INT(nkt_lookup_finish(task, ips, 2), 1);
        CHECK_STR(text_of(ips, 1), FOUR);
        check_no_next(task, NKT_EOF);
        nkt_task_close(task);
        fakenet_close();
    }
}

//------------------------------------------------------------------------------
// In a poller
//------------------------------------------------------------------------------

static int count_done(nkt_poller *poller, nkt_task *task, int32_t timeout_ms) {
    nkt_event event;
    int count = 0;
    CHECK(nkt_poller_wait(poller, timeout_ms) >= 0);
    while (nkt_poller_next(poller, &event) == NKT_OK) {
        CHECK_INT(event.events, NKT_DONE);
        CHECK(event.task == task);
        count++;
    }
    return count;
}

static nkt_poller *open_poller(nkt_task *task) {
    nkt_poller_opts opts;
    nkt_poller *poller = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &fakenet.p.env;
    CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
    CHECK_INT(nkt_poller_add_task(poller, task, NULL), NKT_OK);
    return poller;
}

static void poller(void) {
    TEST("a poller tells each answer once, and nothing at the old deadline") {
        fakenet_open(0);
        fakenet_answer(NKT_IPV6, 0, SIX);
        fakenet_answer(NKT_IPV4, 0, FOUR);
        nkt_lookup_opts opts = lookup_opts();
        opts.timeout_ms = 5000;
        nkt_task *task = start(&opts);
        nkt_poller *p = open_poller(task);
        CHECK_INT(count_done(p, task, 0), 0);
        fakenet_settle();
        fakenet_release(1);
        CHECK_INT(count_done(p, task, 1), 1);
        check_next(task, FOUR);
        check_no_next(task, NKT_EAGAIN);
        CHECK_INT(count_done(p, task, 1), 0);
        fakenet_release(0);
        CHECK_INT(count_done(p, task, 1), 1);
        check_next(task, SIX);
        // That it is over is news, too.
        CHECK_INT(count_done(p, task, 0), 1);
        check_no_next(task, NKT_EOF);
        CHECK_INT(count_done(p, task, 10000), 0);
        CHECK_INT(count_done(p, task, 10000), 0);
        CHECK_RANGE(fakenet_now(), 10000 * PROBE_MS, 20002 * PROBE_MS);
        nkt_poller_close(p);
        nkt_task_close(task);
        fakenet_close();
    }
    TEST("a poller tells that the time is over, and that it was cancelled") {
        for (int cancel = 0; cancel < 2; cancel++) {
            fakenet_open(0);
            nkt_lookup_opts opts = lookup_opts();
            opts.timeout_ms = 5000;
            nkt_task *task = start(&opts);
            nkt_poller *p = open_poller(task);
            CHECK_INT(count_done(p, task, 4999), 0);
            if (cancel) nkt_task_cancel(task);
            CHECK_INT(count_done(p, task, 1), 1);
            CHECK_INT(fakenet_now(), (cancel ? 4999 : 5000) * PROBE_MS);
            check_no_next(task, cancel ? NKT_ECANCELED : NKT_ETIMEDOUT);
            CHECK_INT(count_done(p, task, 10000), 0);
            nkt_task_close(task);
            nkt_poller_close(p);
            fakenet_close();
        }
    }
    TEST("a task that is over when it is added") {
        fakenet_open(0);
        nkt_lookup_opts opts = lookup_opts();
        nkt_task *task = NULL;
        CHECK_INT(nkt_lookup_start("::1", &opts, &task), NKT_OK);
        nkt_poller *p = open_poller(task);
        CHECK_INT(count_done(p, task, 0), 1);
        check_next(task, "::1");
        nkt_task_close(task);
        nkt_poller_close(p);
        fakenet_close();
    }
}

//------------------------------------------------------------------------------
// Given up
//------------------------------------------------------------------------------

static void cancel_soon(void *task) {
    fakenet_settle();
    fakenet_nap();
    nkt_task_cancel((nkt_task *)task);
}

static void given_up(void) {
    TEST("cancelled by another thread while it is waited for") {
        fakenet_open(0);
        fakenet.p.core.wait = probe_core_wait;      // in real time
        fakenet.p.fake = false;
        nkt_lookup_opts opts = lookup_opts();
        nkt_task *task = start(&opts);
        CHECK_INT(nkt_thread_start(&fakenet.p.env, cancel_soon, task), NKT_OK);
        CHECK_INT(nkt_task_wait(task, 30000), NKT_ECANCELED);
        check_no_next(task, NKT_ECANCELED);
        nkt_task_close(task);
        fakenet_close();
    }
    TEST("bug 34: closed while the resolver works, which ends later") {
        for (int when = 0; when < 4; when++) {
            fakenet_open(0);
            fakenet_answer(NKT_IPV6, 0, SIX);
            fakenet_answer(NKT_IPV4, 0, FOUR);
            nkt_lookup_opts opts = lookup_opts();
            nkt_task *task = start(&opts);
            // Perhaps not begun; begun; one answered; both answered.
            if (when > 0) fakenet_settle();
            if (when > 1) fakenet_release(0);
            if (when > 2) fakenet_release(1);
            nkt_task_close(task);
            // All of the caller's memory is free while the resolver works on.
            CHECK_INT(fakenet.p.blocks, 0);
            fakenet_close();
        }
    }
}

static int threads_left;

static int start_some(nkt_env *env, void (*run)(void *arg), void *arg) {
    if (threads_left-- <= 0) {
        // Now both calls have been queued, and the one worker may go on.
        __atomic_store_n(&fakenet.answers[0].open, 1, __ATOMIC_SEQ_CST);
        return NKT_ENOMEM;
    }
    return nkt_sys_threads_default()->start(env, run, arg);
}

static void no_threads(void) {
    nkt_sys_threads threads = *nkt_sys_threads_default();
    threads.start = start_some;
    TEST("no thread can be started: said at once, nothing is left") {
        nkt_ip ips[4];
        fakenet_open(0);
        fakenet.p.env.threads = &threads;
        threads_left = 0;
        nkt_lookup_opts opts = lookup_opts();
        CHECK_INT(nkt_lookup("example.org", &opts, ips, 4), NKT_ENOMEM);
        CHECK(!inside_lookup_queued());
        fakenet_close();
        CHECK_INT(fakenet.answers[0].calls + fakenet.answers[1].calls, 0);
    }
    TEST("one thread instead of two: one after the other") {
        nkt_ip ips[4];
        fakenet_open(0);
        fakenet_answer(NKT_IPV6, 0, SIX);
        fakenet_answer(NKT_IPV4, 0, FOUR);
        fakenet.answers[1].open = 1;
        fakenet.p.core.wait = probe_core_wait;
        fakenet.p.fake = false;
        fakenet.p.env.threads = &threads;
        threads_left = 1;
        nkt_lookup_opts opts = lookup_opts();
        CHECK_INT(nkt_lookup("example.org", &opts, ips, 4), 2);
        CHECK_STR(text_of(ips, 2), SIX " " FOUR);
        fakenet_close();
    }
}
#endif

//------------------------------------------------------------------------------
// What is not for the resolver, and what is for nobody
//------------------------------------------------------------------------------

static const struct own_row {
    const char *host;
    int family, result;
    const char *ips;
} own_rows[] = {
    { "192.0.2.7", 0, 1, "192.0.2.7" },
    { "192.0.2.7", NKT_IPV4, 1, "192.0.2.7" },
    { "192.0.2.7", NKT_IPV6, NKT_ENOTFOUND, "" },
    { "2001:db8::7", 0, 1, "2001:db8::7" },
    { "2001:db8::7", NKT_IPV4, NKT_ENOTFOUND, "" },
    { "::ffff:192.0.2.7", 0, 1, "::ffff:192.0.2.7" },
    { "localhost", 0, 2, "::1 127.0.0.1" },
    { "LocalHost", 0, 2, "::1 127.0.0.1" },
    { "localhost.", 0, 2, "::1 127.0.0.1" },
    { "a.localhost", 0, 2, "::1 127.0.0.1" },
    { "a.b.LOCALHOST.", 0, 2, "::1 127.0.0.1" },
    { "localhost", NKT_IPV4, 1, "127.0.0.1" },
    { "a.localhost", NKT_IPV6, 1, "::1" },
};

static const char *const bad_names[] = {
    "", ".", "..", "a..b", ".a", "-a.b", "a-.b", "a b", "a\tb", "a\nb", "a/b", "h\xc3\xb6st",
    "1.2.3", "1.2.3.4.5", "256.1.1.1", "010.0.0.1", "0x7f.1", "example.1", "example.0x1",
    "1.2.3.4 ", " 1.2.3.4", "a.b.-", "*.example.org", "a!b", "a\x7f", "a%lo", "a@b", "a\\b",
};

static void own(void) {
    for (size_t i = 0; i < sizeof own_rows / sizeof own_rows[0]; i++) {
        const struct own_row *row = &own_rows[i];
        char name[80];
        snprintf(name, sizeof name, "not for the resolver: %s, family %d", row->host, row->family);
        TEST(name) {
            nkt_ip ips[4];
            fakenet_open(0);
            nkt_lookup_opts opts = lookup_opts();
            opts.family = row->family;
            CHECK_INT(nkt_lookup(row->host, &opts, ips, 4), row->result);
            CHECK_STR(text_of(ips, row->result), row->ips);
            CHECK_INT(fakenet.answers[0].calls + fakenet.answers[1].calls, 0);
            CHECK_INT(fakenet.p.now, 0);
            fakenet_close();
        }
    }
    TEST("names that end like localhost and are not") {
        static const char *const names[] = { "notlocalhost", "localhost.example.org" };
        for (int i = 0; i < 2; i++) {
            nkt_ip ips[4];
            fakenet_open(0);
            fakenet.name = names[i];
            fakenet_answer(NKT_IPV6, 0, "");
            fakenet_answer(NKT_IPV4, 0, FOUR);
            nkt_lookup_opts opts = lookup_opts();
            CHECK_INT(nkt_lookup(names[i], &opts, ips, 4), 1);
            CHECK_STR(text_of(ips, 1), FOUR);
            fakenet_close();
        }
    }
}

static void bad(void) {
    TEST("bad names are refused as nkt_target_parse does") {
        char longer[300];
        memset(longer, 'a', sizeof longer);
        for (size_t i = 62; i < sizeof longer; i += 63) longer[i] = '.';
        longer[254] = '\0';         // 254 bytes
        fakenet_open(0);
        for (size_t i = 0; i < sizeof bad_names / sizeof bad_names[0] + 1; i++) {
            bool last = i == sizeof bad_names / sizeof bad_names[0];
            const char *name = last ? longer : bad_names[i];
            nkt_lookup_opts opts = lookup_opts();
            nkt_target target;
            nkt_ip ip;
            nkt_task *task = NULL;
            int err = nkt_target_parse(name, 80, &target, NULL);
            CHECK(err == NKT_ENAME || err == NKT_EADDR || err == NKT_EUNSUPPORTED);
            if (!CHECK_INT(nkt_lookup(name, &opts, &ip, 1), err)) printf("  it is \"%s\"\n", name);
            CHECK_INT(nkt_lookup_start(name, &opts, &task), err);
            CHECK(task == NULL);
        }
        CHECK_INT(fakenet.answers[0].calls + fakenet.answers[1].calls, 0);
        fakenet_close();
    }
    TEST("bad arguments") {
        nkt_ip ip;
        nkt_task *task = NULL;
        fakenet_open(0);
        nkt_lookup_opts opts = lookup_opts();
        CHECK_INT(nkt_lookup(NULL, &opts, &ip, 1), NKT_EINVAL);
        CHECK_INT(nkt_lookup("::1", &opts, NULL, 1), NKT_EINVAL);
        CHECK_INT(nkt_lookup("::1", &opts, &ip, 0), NKT_EINVAL);
        CHECK_INT(nkt_lookup("::1", &opts, &ip, -1), NKT_EINVAL);
        opts.family = NKT_UNIX;
        CHECK_INT(nkt_lookup_start("::1", &opts, &task), NKT_EINVAL);
        CHECK(task == NULL);
        opts.family = 0;
        if (CHECK_INT(nkt_lookup_start("::1", &opts, &task), NKT_OK)) {
            CHECK_INT(nkt_lookup_finish(task, NULL, 1), NKT_EINVAL);
            CHECK_INT(nkt_lookup_finish(task, &ip, 0), NKT_EINVAL);
            CHECK_INT(nkt_lookup_finish(task, &ip, 1), 1);      // it was not lost
            CHECK_STR(text_of(&ip, 1), "::1");
            nkt_task_close(task);
        }
        fakenet_close();
    }
}

//------------------------------------------------------------------------------
// Odd answers
//------------------------------------------------------------------------------

static void fill(int family, int count, const char *prefix) {
    char text[NKT_IP_TEXT_MAX];
    fakenet_answer_row *answer = &fakenet.answers[family == NKT_IPV4];
    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%s%d", prefix, i + 1);
        answer->ips[i] = fakenet_ip(text);
    }
    answer->at_ms = 0;
    answer->result = count;
}

static void odd(void) {
    TEST("sixty-four answers of each family") {
        nkt_ip ips[200];
        fakenet_open(0);
        fill(NKT_IPV6, 64, "2001:db8::");
        fill(NKT_IPV4, 64, "192.0.2.");
        nkt_lookup_opts opts = lookup_opts();
        CHECK_INT(nkt_lookup("example.org", &opts, ips, 200), 128);
        CHECK_STR(text_of(ips, 2), "2001:db8::1 2001:db8::2");
        CHECK_STR(text_of(ips + 63, 2), "2001:db8::64 192.0.2.1");
        CHECK_STR(text_of(ips + 127, 1), "192.0.2.64");
        fakenet_close();
    }
    TEST("sixty-four addresses without a route are behind those with one") {
        nkt_ip ips[200];
        fakenet_open(0);
        fill(NKT_IPV6, 64, "2001:db8::");
        fill(NKT_IPV4, 3, "192.0.2.");
        fakenet.no_route[0] = true;
        nkt_lookup_opts opts = lookup_opts();
        CHECK_INT(nkt_lookup("example.org", &opts, ips, 64), 64);
        CHECK_STR(text_of(ips, 4), "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1");
        fakenet_close();
    }
    TEST("room for fewer: the best") {
        nkt_ip ip;
        fakenet_open(0);
        fakenet_answer(NKT_IPV6, 0, "2001:db8::1 2001:db8::2");
        fakenet_answer(NKT_IPV4, 0, FOUR);
        fakenet.no_route[0] = true;
        nkt_lookup_opts opts = lookup_opts();
        CHECK_INT(nkt_lookup("example.org", &opts, &ip, 1), 1);
        CHECK_STR(text_of(&ip, 1), FOUR);
        fakenet_close();
    }
}

static void failing(void) {
    TEST("a resolver that talks nonsense") {
        static const int results[] = { 0, NKT_LOOKUP_MAX + 1, 1000000, NKT_EAGAIN, NKT_EOF,
                                       NKT_ECANCELED, -1000, INT_MIN };
        for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
            nkt_ip ips[4];
            fakenet_open(0);
            fakenet_failure(NKT_IPV6, 0, results[i]);
            fakenet_failure(NKT_IPV4, 0, results[i]);
            nkt_lookup_opts opts = lookup_opts();
            CHECK_INT(nkt_lookup("example.org", &opts, ips, 4),
                      results[i] == 0 ? NKT_ENOTFOUND : NKT_ELOOKUP);
            CHECK_INT(fakenet_now(), 0);
            fakenet_close();
        }
    }
    TEST("out of memory, at each allocation") {
        int err = NKT_ENOMEM;
        for (int n = 0; n < 10 && err != 2; n++) {
            nkt_ip ips[4];
            nkt_task *task = NULL;
            fakenet_open(0);
            fakenet_answer(NKT_IPV6, 0, SIX);
            fakenet_answer(NKT_IPV4, 0, FOUR);
            nkt_lookup_opts opts = lookup_opts();
            if (n == 0) probe_fail(&fakenet.p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
            err = nkt_lookup_start("example.org", &opts, &task);
            CHECK_INT(err, n == 0 ? NKT_ENOMEM : NKT_OK);
            // Without a wake-up the wait is sliced and ends all the same.
            if (n == 1) probe_fail(&fakenet.p, PROBE_ALLOCATE, NKT_ENOMEM, 1000);
            if (task != NULL) CHECK_INT(nkt_task_wait(task, -1), NKT_OK);
            if (task != NULL) err = nkt_lookup_finish(task, ips, 4) + 1;
            if (n > 0) CHECK_INT(err, 2);
            nkt_task_close(task);
            fakenet_close();
        }
    }
}

//------------------------------------------------------------------------------
// RFC 6724
//------------------------------------------------------------------------------

typedef struct pair {
    const char *ip, *source;    // NULL: no route
} pair;

// Destinations and the sources that the system would use, in the order wanted.
static const struct sort_row {
    const char *name;
    pair pairs[5];
    int usable;
} sort_rows[] = {
    { "10.2, 1: prefer matching scope",
      { { "2001:db8:1::1", "2001:db8:1::1" }, { "198.51.100.121", "169.254.13.78" } }, 2 },
    { "10.2, 2: prefer matching scope",
      { { "198.51.100.121", "198.51.100.117" }, { "2001:db8:1::1", "fe80::1" } }, 2 },
    { "10.2, 3: prefer higher precedence",
      { { "2001:db8:1::1", "2001:db8:1::1" }, { "10.1.2.3", "10.1.2.4" } }, 2 },
    { "10.2, 4: prefer smaller scope",
      { { "fe80::1", "fe80::1" }, { "2001:db8:1::1", "2001:db8:1::1" } }, 2 },
    { "10.2, 7: longest matching prefix",
      { { "2001:db8:1::1", "2001:db8:1::2" }, { "2001:db8:3ffe::1", "2001:db8:3f44::2" } }, 2 },
    { "10.2, 8: prefer matching label",
      { { "2002:c633:6401::1", "2002:c633:6401::2" }, { "2001:db8:1::1", "2002:c633:6401::2" } },
      2 },
    { "10.2, 9: prefer higher precedence",
      { { "2001:db8:1::1", "2001:db8:1::2" }, { "2002:c633:6401::1", "2002:c633:6401::2" } }, 2 },
    { "one without a route is last",
      { { "192.0.2.1", "192.0.2.9" }, { "2001:db8::1", NULL } }, 1 },
    { "none has a route: by precedence and scope",
      { { "::1", NULL }, { "fe80::1", NULL }, { "2001:db8::1", NULL }, { "192.0.2.1", NULL },
        { "fd00::1", NULL } }, 0 },
    { "a unique local address as seen from a global one",
      { { "2001:db8::1", "2001:db8::9" }, { "192.0.2.1", "192.0.2.9" },
        { "fd00::1", "2001:db8::9" } }, 3 },
    { "Teredo is behind IPv4",
      { { "192.0.2.1", "192.0.2.9" }, { "2001:0:1::1", "2001:0:2::2" } }, 2 },
    { "IPv4-mapped is as IPv4",
      { { "2001:db8::1", "2001:db8::9" }, { "::ffff:192.0.2.1", "192.0.2.9" } }, 2 },
    { "of 169.0.0.0/8 only 169.254 is of link scope",
      { { "198.51.100.121", "198.51.100.117" }, { "169.253.0.1", "169.254.13.78" } }, 2 },
    { "multicast has the scope that it says",
      { { "ff02::1", "fe80::9" }, { "ff05::1", "fe80::9" } }, 2 },
    { "site-local addresses are not of the world's scope",
      { { "2001:db8::1", "fe80::1" }, { "fec0::1", "2001:db8::9" } }, 2 },
    { "loopback and the world",
      { { "::1", "::1" }, { "2001:db8::1", "2001:db8::9" }, { "127.0.0.1", "127.0.0.1" },
        { "192.0.2.1", "192.0.2.9" } }, 4 },
};

// From every order that the addresses may come in, as far as rotations go.
static void check_sort(const struct sort_row *row) {
    int count = 0;
    fakenet_open(0);
    for (; count < 5 && row->pairs[count].ip != NULL; count++) {
        fakenet_host_row *host = fakenet_host(row->pairs[count].ip, 0, 0);
        if (row->pairs[count].source != NULL) host->source = fakenet_ip(row->pairs[count].source);
        else memset(&host->source, 0, sizeof host->source);
    }
    for (int turn = 0; turn < 2 * count; turn++) {
        nkt_ip ips[5];
        for (int i = 0; i < count; i++) {
            int from = (turn + i) % count;
            ips[i] = fakenet.hosts[turn < count ? from : count - 1 - from].ip;
        }
        CHECK_INT(nkt_ip_sort(&fakenet.p.env, ips, count), row->usable);
        for (int i = 0; i < count; i++) CHECK_STR(text_of(&ips[i], 1), row->pairs[i].ip);
    }
    fakenet_close();
}

static void sorted(void) {
    char name[100];
    for (size_t i = 0; i < sizeof sort_rows / sizeof sort_rows[0]; i++) {
        snprintf(name, sizeof name, "RFC 6724 %s", sort_rows[i].name);
        TEST(name) { check_sort(&sort_rows[i]); }
    }
    TEST("RFC 6724: what is equal stays as it was, so that turns of IPv4 answers work") {
        nkt_ip ips[3];
        fakenet_open(0);
        // By their bits the last is nearest to the source.
        ips[0] = fakenet_host("203.0.113.1", 0, 0)->ip;
        ips[1] = fakenet_host("198.51.100.1", 0, 0)->ip;
        ips[2] = fakenet_host("192.0.2.201", 0, 0)->ip;
        CHECK_INT(nkt_ip_sort(&fakenet.p.env, ips, 3), 3);
        CHECK_STR(text_of(ips, 3), "203.0.113.1 198.51.100.1 192.0.2.201");
        fakenet_close();
    }
    TEST("nkt_ip_sort's arguments") {
        nkt_ip ips[129];
        fakenet_open(0);
        memset(ips, 0, sizeof ips);
        for (int i = 0; i < 129; i++) ips[i] = fakenet_ip("192.0.2.1");
        CHECK_INT(nkt_ip_sort(&fakenet.p.env, ips, 0), 0);
        CHECK_INT(nkt_ip_sort(&fakenet.p.env, ips, -1), NKT_EINVAL);
        CHECK_INT(nkt_ip_sort(&fakenet.p.env, ips, 128), 128);
        CHECK_INT(nkt_ip_sort(&fakenet.p.env, ips, 129), NKT_EINVAL);
        // No descriptor: no route that we know of, and nothing is lost.
        probe_fail(&fakenet.p, PROBE_OPEN, NKT_EMFILE, 3);
        ips[0] = fakenet_ip("2001:db8::1");
        CHECK_INT(nkt_ip_sort(&fakenet.p.env, ips, 3), 0);
        CHECK_STR(text_of(ips, 3), "2001:db8::1 192.0.2.1 192.0.2.1");
        fakenet_close();
    }
}

int main(void) {
    ends();
#ifndef NETKIT_NO_THREADS
    each();
    each_end();
    poller();
    given_up();
    no_threads();
#endif
    own();
    bad();
    odd();
    failing();
    sorted();
    return test_finish();
}
