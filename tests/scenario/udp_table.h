// udp_table.h - the table of datagram scenarios, its faces and what both stand on
//
// A face is a way to hold `a`, the handle under test: blocking or not, with a
// poller or a loop of one's own, on one socket or two, connected, in memory, or
// under a layer that is compiled apart. `b` is a blocking peer. The functions
// whole_x() do the whole of nkt_udp_x as the face does it. Include after
// netkit.h with NETKIT_IMPLEMENTATION; xor_layer.c belongs to it.

#ifndef NKT_TEST_UDP_TABLE_H
#define NKT_TEST_UDP_TABLE_H

#include "unit/probe.h"
#include "xor_layer.h"

#ifndef _WIN32
    #include <signal.h>
    #include <sys/time.h>
#endif

// What many is divided by, where the table is run thousands of times.
#ifndef SCENE_THRIFT
    #define SCENE_THRIFT 1
#endif

enum { LIMIT_MS = 10000, PAIR_ROOM = 4000, BUF = 2048, TRIPS = 500 / SCENE_THRIFT };

// How the handle under test is impaired, both ways.
enum { BARE, WRAPPED, LATE };       // by a perfect network; 2 to LATE_MOST_MS
enum { LATE_MOST_MS = 5 };

typedef struct face {
    const char *name;
    bool pair, nonblocking, polled, portable, two_sockets, connected, layer;
    int impaired;
    bool is_long;                   // only with NKT_TEST_ALL=1
} face;

#ifdef SCENE_IMPAIRED
static const face faces[] = {
    // name   pair, nonblocking, polled, portable, two, connected, layer, ...
    {"pair blocking, wrapped", true, false, false, false, false, false, false, WRAPPED, false},
    {"pair poller, wrapped", true, true, true, false, false, false, false, WRAPPED, false},
    {"pair blocking, late", true, false, false, false, false, false, false, LATE, false},
    {"pair poller, late", true, true, true, false, false, false, false, LATE, false},
    {"udp blocking, wrapped", false, false, false, false, false, false, false, WRAPPED, true},
    {"udp poller, wrapped", false, true, true, false, false, false, false, WRAPPED, true},
    {"udp blocking, late", false, false, false, false, false, false, false, LATE, true},
    {"udp poller, late", false, true, true, false, false, false, false, LATE, true},
    {"udp game loop, late", false, true, false, false, false, false, false, LATE, true},
    {"connected blocking, late", false, false, false, false, false, true, false, LATE, true},
    {"two sockets poller, late", false, true, true, false, true, false, false, LATE, true},
    {"xor poller, late", false, true, true, false, false, false, true, LATE, true},
};
#else
static const face faces[] = {
    // name                 pair  nonbl  polled portab two    conn   layer
    {"udp blocking", false, false, false, false, false, false, false, BARE, false},
    {"udp poller", false, true, true, false, false, false, false, BARE, false},
    {"udp poll() poller", false, true, true, true, false, false, false, BARE, false},
    {"udp game loop", false, true, false, false, false, false, false, BARE, false},
    {"two sockets blocking", false, false, false, false, true, false, false, BARE, false},
    {"two sockets poller", false, true, true, false, true, false, false, BARE, false},
    {"connected blocking", false, false, false, false, false, true, false, BARE, false},
    {"connected poller", false, true, true, false, false, true, false, BARE, false},
    {"pair blocking", true, false, false, false, false, false, false, BARE, false},
    {"pair poller", true, true, true, false, false, false, false, BARE, false},
    {"xor blocking", false, false, false, false, false, false, true, BARE, false},
    {"xor poller", false, true, true, false, false, false, true, BARE, false},
    {"xor on a pair, game loop", true, true, false, false, false, false, true, BARE, false},
};
#endif

typedef struct scene {
    const face *face;
    probe p;
    nkt_sys_udp sys;
    nkt_udp *a, *b;
    nkt_poller *poller;
    nkt_addr to_a, to_b;        // where each is found; no address in memory
    uint32_t seen;              // events that came
    int failures, failure;      // the next sends of `a` that fail in the system
    int takes;                  // datagrams the system takes of a list, 0 = all
    int trace_count;
    char traced[16][20];
    bool signals;               // hand NKT_EINTR to the row
    bool peer_leaves;           // another thread closes `b`
    uint32_t seed;              // of the impairment
} scene;

static scene *current;          // for the system's table
static nkt_env *scene_clock;    // whose clock all threads go by; NULL is the system's

// For a program that makes the system fail under the table: see
// fault_udp_posix.c.
static struct {
    void (*env)(scene *s);          // the environment was made
    bool (*again)(int err);         // a whole_x() is to be called again
} scene_hooks;

static void scene_sleep(int32_t ms) {
    if (scene_clock != NULL) nkt_sleep(scene_clock, ms);
    else probe_system()->wait(NULL, NULL, 0, ms * PROBE_MS);
}

// Whether calls of this thread are those of the tested end.
static __thread bool scene_tested;

static bool scene_untested(void) {
    bool before = scene_tested;
    scene_tested = false;
    return before;
}

// What the scene itself makes fail is for the row.
static bool scene_again(const scene *s, ptrdiff_t err) {
    return err < 0 && err != s->failure && scene_hooks.again != NULL &&
           scene_hooks.again((int)err);
}

static char buf[BUF], large[NKT_DATAGRAM_MAX + 1];

//------------------------------------------------------------------------------
// The scene

static int scene_send(nkt_env *env, nkt_fd fd, int family, const nkt_datagram *list, int count,
                      bool *segments) {
    bool is_a = current->b == NULL || fd != nkt_udp_descriptor(current->b);
    if (is_a && current->failures > 0) {
        current->failures--;
        return current->failure;
    }
    if (is_a && current->takes > 0 && count > current->takes) count = current->takes;
    return nkt_sys_udp_default()->send(env, fd, family, list, count, segments);
}

static void scene_trace(nkt_env *env, const nkt_trace *what) {
    scene *s = current;
    (void)env;
    if (s->a == NULL || what->handle != s->a || s->trace_count == 16) return;
    CHECK_STR(what->kind, "udp");
    snprintf(s->traced[s->trace_count++], sizeof s->traced[0], "%s", what->state);
}

static void scene_opts(scene *s, nkt_udp_opts *opts, bool tested) {
    memset(opts, 0, sizeof *opts);
    opts->env = &s->p.env;
    opts->nonblocking = tested && s->face->nonblocking;
    opts->two_sockets = tested && s->face->two_sockets;
    opts->recv_timeout_ms = opts->send_timeout_ms = opts->nonblocking ? 0 : LIMIT_MS;
    opts->recv_buffer = s->face->pair ? 0 : 400000;
}

static bool scene_open_peer(scene *s) {
    nkt_udp_opts opts;
    scene_opts(s, &opts, false);
    bool before = scene_untested();
    bool ok = CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &s->b), NKT_OK) &&
              CHECK_INT(nkt_udp_local(s->b, &s->to_b), NKT_OK);
    scene_tested = before;
    return ok;
}

static bool scene_push_layers(scene *s) {
    if (!CHECK_INT(xor_push(s->a, 0x5a), NKT_OK)) return false;
    bool before = scene_untested();
    bool ok = CHECK_INT(xor_push(s->b, 0x5a), NKT_OK);
    scene_tested = before;
    return ok;
}

static bool scene_impair(scene *s) {
    nkt_impairment bad;
    if (s->face->impaired == BARE) return true;
    memset(&bad, 0, sizeof bad);
    bad.seed = s->seed;
    bad.latency_ms = s->face->impaired == LATE ? 3.5 : 0;
    bad.jitter_ms = s->face->impaired == LATE ? 1.5 : 0;
    return CHECK_INT(nkt_udp_impair(s->a, &bad), NKT_OK);
}

static bool scene_open(scene *s) {
    nkt_udp_opts a_opts, b_opts;
    scene_opts(s, &a_opts, true);
    scene_opts(s, &b_opts, false);
    if (s->face->pair) {
        if (!CHECK_INT(nkt_udp_pair(&a_opts, &b_opts, PAIR_ROOM, &s->a, &s->b), NKT_OK)) {
            return false;
        }
    } else {
        const char *where = s->face->two_sockets ? ":0" : "127.0.0.1:0";
        if (!CHECK_INT(nkt_udp_open(where, &a_opts, &s->a), NKT_OK) || !scene_open_peer(s) ||
            !CHECK_INT(nkt_udp_local(s->a, &s->to_a), NKT_OK)) return false;
        s->to_a.ip = nkt_ip_loopback(NKT_IPV4);
    }
    if (s->face->connected &&
        !CHECK_INT(nkt_udp_connect_addr(s->a, &s->to_b), NKT_OK)) return false;
    if (s->face->layer && !scene_push_layers(s)) return false;
    if (!scene_impair(s)) return false;
    if (!s->face->polled) return true;
    nkt_poller_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &s->p.env;
    opts.portable = s->face->portable;
    return CHECK_INT(nkt_poller_open(&opts, &s->poller), NKT_OK) &&
           CHECK_INT(nkt_poller_add_udp(s->poller, s->a, s), NKT_OK);
}

// After NKT_EAGAIN: NKT_OK to call again, else what to hand to the row.
static int scene_wait(scene *s, uint32_t want) {
    nkt_event event;
    nkt_interest interest;
    if (!CHECK(s->face->nonblocking)) return NKT_EAGAIN;
    if (s->face->polled) {
        int count = nkt_poller_wait(s->poller, LIMIT_MS);
        if (count == 0 && s->signals) return NKT_EINTR;     // so a poller tells a signal
        while (nkt_poller_next(s->poller, &event) == NKT_OK) {
            CHECK(event.udp == s->a && event.user == s && event.conn == NULL);
            s->seen |= event.events;
        }
        return count < 0 ? count : NKT_OK;
    }
    memset(&interest, 0xaa, sizeof interest);
    CHECK_INT(nkt_udp_watch(s->a, want, &interest), NKT_OK);
    if (interest.ready) return NKT_OK;
    int64_t now = nkt_now_ns(&s->p.env), end = now + LIMIT_MS * PROBE_MS;
    int64_t frame = now + 10 * PROBE_MS;        // memory has no descriptor: a frame is enough
    int64_t until = interest.deadline_ns < frame ? interest.deadline_ns : frame;
    const nkt_sys_core *core = scene_clock != NULL ? scene_clock->core : probe_system();
    int err = core->wait(&s->p.env, interest.watches, interest.count,
                         until > now ? until - now : 0);
    if (err == NKT_EINTR && s->signals) return NKT_EINTR;
    return now < end ? NKT_OK : NKT_EAGAIN;
}

#define WHOLE(call, want)                                                                \
    for (int64_t whole_end = nkt_now_ns(&s->p.env) + LIMIT_MS * PROBE_MS;;) {            \
        ptrdiff_t whole_result = (call);                                                 \
        if (scene_again(s, whole_result)) continue;                                      \
        bool whole_over = nkt_now_ns(&s->p.env) > whole_end;                             \
        if (whole_result != NKT_EAGAIN || whole_over) return whole_result;               \
        int whole_err = scene_wait(s, want);                                             \
        if (whole_err < 0 && !scene_again(s, whole_err)) return whole_err;               \
    }

static ptrdiff_t whole_recv(scene *s, void *to, size_t cap, nkt_addr *from) {
    WHOLE(nkt_udp_recv(s->a, to, cap, from), NKT_READ)
}

static ptrdiff_t whole_recv_datagram(scene *s, nkt_datagram *one) {
    WHOLE(nkt_udp_recv_datagram(s->a, one), NKT_READ)
}

static ptrdiff_t whole_recv_many(scene *s, nkt_datagram *list, int cap) {
    WHOLE(nkt_udp_recv_many(s->a, list, cap), NKT_READ)
}

static ptrdiff_t whole_send_begin(scene *s, const void *data, size_t len) {
    bool named = !s->face->pair && !s->face->connected;
    WHOLE(nkt_udp_send(s->a, data, len, named ? &s->to_b : NULL), NKT_WRITE)
}

static ptrdiff_t whole_send_many_begin(scene *s, const nkt_datagram *list, int count) {
    WHOLE(nkt_udp_send_many(s->a, list, count), NKT_WRITE)
}

// What a late handle on a poller has under way leaves while somebody waits on
// that. Its peer is about to wait in the same thread, so it is done before.
static ptrdiff_t let_leave(scene *s, ptrdiff_t sent) {
    nkt_event event;
    if (s->face->impaired != LATE || !s->face->polled || sent < 0) return sent;
    for (int i = 0; i < LATE_MOST_MS; i++) {
        scene_sleep(1);
        nkt_poller_wait(s->poller, 0);
        while (nkt_poller_next(s->poller, &event) == NKT_OK) s->seen |= event.events;
    }
    return sent;
}

// To `b`, as the face addresses it.
static ptrdiff_t whole_send(scene *s, const void *data, size_t len) {
    return let_leave(s, whole_send_begin(s, data, len));
}

static ptrdiff_t whole_send_many(scene *s, const nkt_datagram *list, int count) {
    return let_leave(s, whole_send_many_begin(s, list, count));
}

static ptrdiff_t peer_send(scene *s, const void *data, size_t len, const nkt_addr *to) {
    bool before = scene_untested();
    ptrdiff_t sent = nkt_udp_send(s->b, data, len, s->face->pair ? NULL : to);
    scene_tested = before;
    return sent;
}

static ptrdiff_t peer_recv(scene *s, void *to, size_t cap, nkt_addr *from) {
    bool before = scene_untested();
    ptrdiff_t got = nkt_udp_recv(s->b, to, cap, from);
    scene_tested = before;
    return got;
}

static void peer_close(scene *s) {
    bool before = scene_untested();
    nkt_udp_close(s->b);
    s->b = NULL;
    scene_tested = before;
}

static void say(scene *s, const char *text) {
    CHECK_INT(peer_send(s, text, strlen(text), &s->to_a), strlen(text));
}

static void expect(scene *s, const char *want) {
    ptrdiff_t got = whole_recv(s, buf, sizeof buf, NULL);
    if (CHECK_INT(got, strlen(want))) CHECK_MEM(buf, (size_t)got, want, strlen(want));
}

static void expect_peer(scene *s, const char *want) {
    ptrdiff_t got = peer_recv(s, buf, sizeof buf, NULL);
    if (CHECK_INT(got, strlen(want))) CHECK_MEM(buf, (size_t)got, want, strlen(want));
}

// `count` datagrams of a list to `b`: "0", "1", ...; some empty.
static void fill(scene *s, nkt_datagram *list, int count, bool empties) {
    static char texts[512][12];
    memset(list, 0, (size_t)count * sizeof *list);
    for (int i = 0; i < count; i++) {
        snprintf(texts[i], sizeof texts[i], "%d", i);
        list[i].data = texts[i];
        list[i].len = empties && i % 3 == 1 ? 0 : (uint32_t)strlen(texts[i]);
        if (!s->face->pair && !s->face->connected) list[i].addr = s->to_b;
    }
}

//------------------------------------------------------------------------------
// Other threads

typedef struct actor {
    scene *s;
    void (*run)(scene *s);
    int done;
} actor;

static void actor_main(void *arg) {
    actor *self = (actor *)arg;
#ifndef _WIN32
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
#endif
    self->run(self->s);
    __atomic_store_n(&self->done, 1, __ATOMIC_SEQ_CST);
}

static void actor_start(actor *self, scene *s, void (*run)(scene *s)) {
    self->s = s;
    self->run = run;
    self->done = 0;
    if (!CHECK_INT(nkt_thread_start(scene_clock, actor_main, self), NKT_OK)) self->done = 1;
}

static void actor_join(actor *self) {
    while (__atomic_load_n(&self->done, __ATOMIC_SEQ_CST) == 0) scene_sleep(1);
}

static void run_say(scene *s) {
    scene_sleep(20);
    say(s, "late");
}

static void run_interrupt(scene *s) {
    scene_sleep(20);
    nkt_udp_interrupt(s->a);
}

static void run_close_peer(scene *s) {
    scene_sleep(10);
    peer_close(s);
}

static void run_drain(scene *s) {
    char own[BUF];
    scene_sleep(20);
    for (int i = 0; i < 3; i++) CHECK_INT(peer_recv(s, own, sizeof own, NULL), 1900);
}

// Fewer, where each waits.
static int trips_of(const scene *s) {
    return s->face->impaired == LATE && !s->face->pair ? TRIPS / 10 : TRIPS;
}

static void run_mirror(scene *s) {
    nkt_addr from;
    char own[BUF];
    for (int i = 0; i < trips_of(s); i++) {
        ptrdiff_t got = peer_recv(s, own, sizeof own, &from);
        if (got < 0) return;
        peer_send(s, own, (size_t)got, &from);
    }
}

//------------------------------------------------------------------------------
// Rows

static void row_one(scene *s) {
    CHECK_INT(whole_send(s, "hello", 5), 5);
    expect_peer(s, "hello");
    say(s, "there");
    expect(s, "there");
}

static void row_sender(scene *s) {
    nkt_addr from;
    memset(&from, 0x55, sizeof from);
    say(s, "x");
    CHECK_INT(whole_recv(s, buf, sizeof buf, &from), 1);
    CHECK(s->face->pair ? from.ip.family == 0 : nkt_addr_equal(&from, &s->to_b));
}

static void row_waits(scene *s) {
    actor later;
    actor_start(&later, s, run_say);
    expect(s, "late");
    actor_join(&later);
}

static void row_empty(scene *s) {
    CHECK_INT(whole_send(s, NULL, 0), 0);
    CHECK_INT(whole_send(s, "x", 1), 1);
    expect_peer(s, "");
    expect_peer(s, "x");
    say(s, "");
    say(s, "y");
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), 0);
    expect(s, "y");
}

static void row_borders(scene *s) {
    static const char *const texts[] = {"a", "bc", "", "def", "ghij", ""};
    for (int i = 0; i < 6; i++) say(s, texts[i]);
    for (int i = 0; i < 6; i++) expect(s, texts[i]);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(whole_send(s, texts[i], strlen(texts[i])), strlen(texts[i]));
    }
    for (int i = 0; i < 6; i++) expect_peer(s, texts[i]);
}

static void row_truncated(scene *s) {
    memset(buf, '-', 8);
    say(s, "hello");
    CHECK_INT(whole_recv(s, buf, 4, NULL), NKT_ETRUNCATED);
    CHECK_MEM(buf, 5, "hell-", 5);
    say(s, "fits");
    CHECK_INT(whole_recv(s, buf, 4, NULL), 4);
    CHECK_MEM(buf, 4, "fits", 4);
}

static void row_truncated_told(scene *s) {
    nkt_datagram one;
    memset(&one, 0, sizeof one);
    one.data = buf;
    one.cap = 4;
    say(s, "hello");
    CHECK_INT(whole_recv_datagram(s, &one), NKT_OK);
    CHECK_INT(one.truncated, true);
    CHECK_MEM(one.data, one.len, "hell", 4);
    say(s, "four");
    CHECK_INT(whole_recv_datagram(s, &one), NKT_OK);
    CHECK_INT(one.truncated, false);
    CHECK_INT(one.len, 4);
}

static void row_no_room(scene *s) {
    say(s, "x");
    CHECK_INT(whole_recv(s, NULL, 0, NULL), NKT_ETRUNCATED);
    say(s, "");
    CHECK_INT(whole_recv(s, NULL, 0, NULL), 0);
}

static void row_large(scene *s) {
    size_t len = s->face->pair ? PAIR_ROOM : 8000;
    for (size_t i = 0; i < len; i++) large[i] = (char)(i * 13 >> 2);
    static char back[NKT_DATAGRAM_MAX];
    CHECK_INT(whole_send(s, large, len), len);
    CHECK_INT(peer_recv(s, back, sizeof back, NULL), len);
    CHECK_MEM(back, len, large, len);
    CHECK_INT(peer_send(s, large, len, &s->to_a), len);
    CHECK_INT(whole_recv(s, back, sizeof back, NULL), len);
    CHECK_MEM(back, len, large, len);
}

static void row_too_large(scene *s) {
    CHECK_INT(whole_send(s, large, NKT_DATAGRAM_MAX + 1), NKT_ETOOLONG);
    row_one(s);
}

static void row_larger_than_path(scene *s) {
    s->failures = 1;
    s->failure = NKT_EMSGSIZE;
    CHECK_INT(whole_send(s, large, PAIR_ROOM + 1), NKT_EMSGSIZE);
    row_one(s);
}

static void row_wrong_family(scene *s) {
    nkt_addr to = s->to_b;
    to.ip = nkt_ip_loopback(NKT_IPV6);
    CHECK_INT(nkt_udp_send(s->a, "x", 1, &to), NKT_EFAMILY);
    to.port = 0;
    to.ip = nkt_ip_loopback(NKT_IPV4);
    CHECK_INT(nkt_udp_send(s->a, "x", 1, &to), NKT_EPORT);
    row_one(s);
}

static void row_nobody_named(scene *s) {
    CHECK_INT(nkt_udp_send(s->a, "x", 1, NULL), NKT_ENOTCONN);
    row_one(s);
}

// Connected, or in memory: nobody is there.
static void row_refused(scene *s) {
    peer_close(s);
    ptrdiff_t sent = whole_send(s, "x", 1);
    if (s->face->pair) {
        CHECK_INT(sent, NKT_EREFUSED);
        CHECK_INT(whole_send(s, "x", 1), NKT_EREFUSED);
        return;
    }
    CHECK_INT(sent, 1);
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), NKT_EREFUSED);
    CHECK_INT(whole_send(s, "y", 1), 1);
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), NKT_EREFUSED);
}

// Unconnected: whoever has left does not disturb.
static void row_left(scene *s) {
    nkt_udp *gone = NULL;
    nkt_udp_opts opts;
    nkt_addr to;
    scene_opts(s, &opts, false);
    if (!CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &gone), NKT_OK)) return;
    bool named = CHECK_INT(nkt_udp_local(gone, &to), NKT_OK);
    nkt_udp_close(gone);
    if (!named) return;
    for (int i = 0; i < 3; i++) CHECK_INT(nkt_udp_send(s->a, "x", 1, &to), 1);
    row_one(s);
}

static void row_queue_full(scene *s) {
    actor drain;
    s->failures = 3;
    s->failure = NKT_EAGAIN;
    s->seen = 0;
    if (s->face->pair) actor_start(&drain, s, run_drain);
    // Two of them fill the pair.
    for (int i = 0; i < 3; i++) CHECK_INT(whole_send(s, large, 1900), 1900);
    if (s->face->pair) actor_join(&drain);
    else run_drain(s);
    if (s->face->polled) CHECK((s->seen & NKT_WRITE) != 0);
    CHECK_INT(s->face->pair ? 0 : s->failures, 0);
    row_one(s);
}

static void row_send_timeout(scene *s) {
    if (s->face->pair) {
        for (int i = 0; i < 2; i++) CHECK_INT(whole_send(s, large, 1900), 1900);
    }
    s->failures = s->face->pair ? 0 : 1000000000;
    s->failure = NKT_EAGAIN;
    CHECK_INT(nkt_udp_set_option(s->a, NKT_UDP_SEND_TIMEOUT_MS, 30), NKT_OK);
    CHECK_INT(whole_send(s, large, 1900), NKT_ETIMEDOUT);
    s->failures = 0;
    if (s->face->pair) {
        for (int i = 0; i < 2; i++) CHECK_INT(peer_recv(s, large, sizeof large, NULL), 1900);
    }
    row_one(s);
}

static void row_timeout(scene *s) {
    CHECK_INT(nkt_udp_set_option(s->a, NKT_UDP_RECV_TIMEOUT_MS, 30), NKT_OK);
    int64_t begin = nkt_now_ns(&s->p.env);
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), NKT_ETIMEDOUT);
    CHECK(nkt_now_ns(&s->p.env) - begin >= 30 * PROBE_MS);
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), NKT_ETIMEDOUT);
    CHECK_INT(nkt_udp_set_option(s->a, NKT_UDP_RECV_TIMEOUT_MS, LIMIT_MS), NKT_OK);
    say(s, "after");
    expect(s, "after");
}

static void row_interrupt(scene *s) {
    actor later;
    actor_start(&later, s, run_interrupt);
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), NKT_ECANCELED);
    actor_join(&later);
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), NKT_ECANCELED);
    CHECK_INT(whole_send(s, "x", 1), NKT_ECANCELED);
}

static void row_interrupt_keeps(scene *s) {
    nkt_datagram list[4];
    for (int i = 0; i < 3; i++) say(s, "kept");
    // The first is handed out, and what came with it is in the handle.
    CHECK_INT(whole_recv_many(s, list, 1), 1);
    nkt_udp_interrupt(s->a);
    ptrdiff_t got = NKT_ECANCELED;
    while ((got = whole_recv(s, buf, sizeof buf, NULL)) > 0) CHECK_MEM(buf, (size_t)got, "kept", 4);
    CHECK_INT(got, NKT_ECANCELED);
}

static void row_peer_closes(scene *s) {
    actor later;
    CHECK_INT(nkt_udp_set_option(s->a, NKT_UDP_RECV_TIMEOUT_MS, 60), NKT_OK);
    s->peer_leaves = true;
    actor_start(&later, s, run_close_peer);
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), NKT_ETIMEDOUT);
    actor_join(&later);
}

static void send_all(scene *s, nkt_datagram *list, int count) {
    for (int done = 0; done < count;) {
        ptrdiff_t sent = whole_send_many(s, list + done, count - done);
        if (!CHECK_INT(sent > 0 ? 1 : sent, 1)) return;
        done += (int)sent;
    }
}

static void row_many(scene *s) {
    enum { COUNT = 90 };
    nkt_datagram list[COUNT], got[COUNT];
    fill(s, list, COUNT, true);
    send_all(s, list, COUNT);
    for (int i = 0; i < COUNT; i++) {
        CHECK_INT(peer_recv(s, buf, sizeof buf, NULL), list[i].len);
        CHECK_INT(memcmp(buf, list[i].data, list[i].len), 0);
    }
    for (int i = 0; i < COUNT; i++) {
        peer_send(s, list[i].data, list[i].len, &s->to_a);
    }
    for (int have = 0; have < COUNT;) {
        ptrdiff_t step = whole_recv_many(s, got, COUNT);
        if (!CHECK_INT(step > 0 ? 1 : step, 1)) break;
        for (int i = 0; i < step; i++) {
            CHECK_MEM(got[i].data, got[i].len, list[have + i].data, list[have + i].len);
        }
        have += (int)step;
    }
}

static void row_partly(scene *s) {
    nkt_datagram list[10];
    fill(s, list, 10, false);
    s->takes = 4;
    send_all(s, list, 10);
    for (int i = 0; i < 10; i++) expect_peer(s, (const char *)list[i].data);
}

static void row_partly_failed(scene *s) {
    nkt_datagram list[6];
    fill(s, list, 6, false);
    list[3].len = NKT_DATAGRAM_MAX + 1;
    ptrdiff_t sent = whole_send_many(s, list, 6);
    // What fails on the way cuts it short, and the next call tells.
    if (scene_hooks.again != NULL && sent > 0 && sent < 3) send_all(s, list + sent, 3 - (int)sent);
    else CHECK_INT(sent, 3);
    CHECK_INT(whole_send_many(s, list + 3, 3), NKT_ETOOLONG);
    send_all(s, list + 4, 2);
    for (int i = 0; i < 6; i++) {
        if (i != 3) expect_peer(s, (const char *)list[i].data);
    }
}

static void row_many_then_one(scene *s) {
    nkt_datagram got[2];
    for (int i = 0; i < 5; i++) say(s, i == 0 ? "0" : i == 1 ? "1" : i == 2 ? "2" : "longer");
    CHECK_INT(whole_recv_many(s, got, 1), 1);
    CHECK_MEM(got[0].data, got[0].len, "0", 1);
    expect(s, "1");
    CHECK_INT(whole_recv_many(s, got, 1), 1);
    CHECK_MEM(got[0].data, got[0].len, "2", 1);
    CHECK_INT(whole_recv(s, buf, 3, NULL), NKT_ETRUNCATED);
    CHECK_MEM(buf, 3, "lon", 3);
    expect(s, "longer");
}

static void row_error_is_not_final(scene *s) {
    static const int errors[] = {NKT_ENETUNREACH, NKT_EACCES, NKT_EHOSTUNREACH, NKT_ENOMEM};
    for (int i = 0; i < 4; i++) {
        s->failures = 1;
        s->failure = errors[i];
        CHECK_INT(whole_send(s, "x", 1), errors[i]);
        row_one(s);
    }
}

static void row_info(scene *s) {
    nkt_udp_info info;
    row_one(s);
    row_empty(s);
    say(s, "cut off");
    CHECK_INT(whole_recv(s, buf, 3, NULL), NKT_ETRUNCATED);
    CHECK_INT(nkt_udp_get_info(s->a, &info), NKT_OK);
    CHECK_INT(info.sent, 3);
    CHECK_INT(info.sent_bytes, 6);
    CHECK_INT(info.received, 4);
    CHECK_INT(info.received_bytes, 9);
    CHECK_INT(info.truncated, 1);
    CHECK_INT(info.sockets, s->face->pair ? 0 : s->face->two_sockets ? 2 : 1);
    CHECK_INT(info.joined, 0);
}

static void row_watch(scene *s) {
    nkt_interest interest;
    CHECK_INT(nkt_udp_watch(s->a, NKT_READ, &interest), NKT_OK);
    CHECK_INT(interest.ready, false);
    CHECK_INT(interest.count, s->face->pair ? 0 : s->face->two_sockets ? 2 : 1);
    say(s, "x");
    if (s->face->pair) {
        CHECK_INT(nkt_udp_watch(s->a, NKT_READ, &interest), NKT_OK);
        CHECK_INT(interest.ready, true);
    } else {
        CHECK_INT(probe_system()->wait(&s->p.env, interest.watches, interest.count,
                                       PROBE_PATIENCE), 1);
    }
    expect(s, "x");
}

static void row_both_ways(scene *s) {
    actor mirror;
    actor_start(&mirror, s, run_mirror);
    for (int i = 0; i < trips_of(s); i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        if (!CHECK_INT(whole_send(s, text, strlen(text)), strlen(text))) break;
        expect(s, text);
    }
    actor_join(&mirror);
}

static void row_pause(scene *s) {
    nkt_event event;
    say(s, "x");
    CHECK_INT(nkt_poller_want_udp(s->poller, s->a, 0), NKT_OK);
    CHECK_INT(nkt_poller_wait(s->poller, 20), 0);
    CHECK_INT(nkt_poller_want_udp(s->poller, s->a, NKT_READ | NKT_WRITE), NKT_OK);
    CHECK_INT(nkt_poller_wait(s->poller, LIMIT_MS), 1);
    CHECK_INT(nkt_poller_next(s->poller, &event), NKT_OK);
    CHECK_INT(event.events, NKT_READ);
    expect(s, "x");
}

// Unread input is told again; what was handed out in part, too.
static void row_told_again(scene *s) {
    nkt_event event;
    nkt_datagram one;
    say(s, "1");
    say(s, "2");
    for (int i = 0; i < 2; i++) {
        CHECK_INT(nkt_poller_wait(s->poller, LIMIT_MS), 1);
        CHECK_INT(nkt_poller_next(s->poller, &event), NKT_OK);
        CHECK_INT(nkt_udp_recv_many(s->a, &one, 1), 1);
        CHECK_MEM(one.data, one.len, i == 0 ? "1" : "2", 1);
    }
    CHECK_INT(nkt_udp_recv(s->a, buf, sizeof buf, NULL), NKT_EAGAIN);
    CHECK_INT(nkt_poller_wait(s->poller, 0), 0);
}

static void row_trace(scene *s) {
    s->p.env.trace = scene_trace;
    CHECK_INT(nkt_udp_set_option(s->a, NKT_UDP_RECV_TIMEOUT_MS, 1), NKT_OK);
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), NKT_ETIMEDOUT);
    nkt_udp *closed = s->a;
    if (s->poller != NULL) nkt_poller_remove_udp(s->poller, s->a);
    nkt_udp_close(closed);
    s->a = NULL;
    s->p.env.trace = NULL;
    CHECK_INT(s->trace_count, 2);
    CHECK_STR(s->traced[0], "timed out");
    CHECK_STR(s->traced[1], "closed");
}

#ifndef _WIN32
static void on_alarm(int number) {
    (void)number;
}

static void row_signal(scene *s) {
    struct sigaction action, before;
    struct itimerval timer;
    memset(&action, 0, sizeof action);
    memset(&timer, 0, sizeof timer);
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, &before);
    timer.it_value.tv_usec = 20000;
    setitimer(ITIMER_REAL, &timer, NULL);
    s->signals = true;
    CHECK_INT(whole_recv(s, buf, sizeof buf, NULL), NKT_EINTR);
    s->signals = false;
    memset(&timer, 0, sizeof timer);
    setitimer(ITIMER_REAL, &timer, NULL);
    sigaction(SIGALRM, &before, NULL);
    say(s, "after");
    expect(s, "after");
}
#else
static void row_signal(scene *s) {
    row_one(s);
}
#endif

//------------------------------------------------------------------------------
// The table

enum { SYSTEM = 1, UNCONNECTED = 4, POLLER = 8, SIGNALS = 16, SOMEBODY = 32, DIRECT = 64,
       SLOW = 128,                  // it waits: see fault.h
       THREADS = 256,               // two use netkit
       AT_ONCE = 512 };             // a send meets what is wrong with it

typedef struct row {
    const char *name;
    void (*run)(scene *s);
    unsigned needs;
} row;

static const row rows[] = {
    {"one there, one back", row_one, 0},
    {"who sent it", row_sender, 0},
    {"waiting for one", row_waits, SLOW | THREADS},
    {"bug 11: empty datagrams", row_empty, 0},
    {"borders and order", row_borders, 0},
    {"bug 40: one byte too long", row_truncated, 0},
    {"truncation told beside the rest", row_truncated_told, 0},
    {"no room at all", row_no_room, 0},
    {"8,000 bytes", row_large, 0},
    {"longer than any may be", row_too_large, 0},
    {"larger than the path takes", row_larger_than_path, AT_ONCE},
    {"wrong family, port 0", row_wrong_family, SYSTEM | DIRECT},
    {"nobody named", row_nobody_named, SYSTEM | UNCONNECTED},
    {"port unreachable", row_refused, SOMEBODY},
    {"port unreachable, another's", row_left, SYSTEM | UNCONNECTED},
    {"queue full, then room", row_queue_full, SLOW | AT_ONCE},
    {"queue full, time-out", row_send_timeout, SLOW | AT_ONCE},
    {"time-outs, then a datagram", row_timeout, SLOW},
    {"interrupt in mid-wait", row_interrupt, SLOW | THREADS},
    {"interrupt leaves what was received", row_interrupt_keeps, 0},
    {"the peer closes in mid-wait", row_peer_closes, SLOW | THREADS},
    {"lists, both ways", row_many, 0},
    {"a list partly taken", row_partly, 0},
    {"a list with a bad one", row_partly_failed, 0},
    {"lists and single ones, mixed", row_many_then_one, 0},
    {"an error is not final", row_error_is_not_final, SYSTEM | AT_ONCE},
    {"counts", row_info, 0},
    {"what to wait for", row_watch, 0},
    {"500 round trips", row_both_ways, SLOW | THREADS},
    {"pause and resume", row_pause, POLLER | SLOW},
    {"unread is told again", row_told_again, POLLER},
    {"trace", row_trace, 0},
    {"a signal with SA_RESTART in mid-wait", row_signal, SIGNALS | SLOW},
};

#define ROW_COUNT (sizeof rows / sizeof rows[0])
#define FACE_COUNT (sizeof faces / sizeof faces[0])

static bool has_ipv6;

static const char *why_not_impaired(const row *r, const face *f) {
    if (f->is_long && getenv("NKT_TEST_ALL") == NULL) return "it waits: NKT_TEST_ALL=1 has it";
    if ((r->needs & SIGNALS) && f->pair) return "signals do not end waits in virtual time";
    bool at_once = (r->needs & AT_ONCE) || (r->run == row_refused && f->pair);
    if (f->impaired == LATE && (r->run == row_watch || r->run == row_told_again)) {
        return "that something came is told before it is due";
    }
    if (at_once && f->impaired == LATE) return "what a datagram meets later, a later call tells";
#ifdef NETKIT_NO_THREADS
    if (f->impaired == LATE) return "what is under way moves by itself with threads only";
#endif
    return NULL;
}

static const char *why_not(const row *r, const face *f) {
    if (f->impaired != BARE && why_not_impaired(r, f) != NULL) return why_not_impaired(r, f);
    if (f->two_sockets && !has_ipv6) return "there is no IPv6 here";
    if ((r->needs & SYSTEM) && f->pair) return "memory has no addresses and no system";
    if ((r->needs & UNCONNECTED) && f->connected) return "it is connected";
    if ((r->needs & DIRECT) && f->two_sockets) return "it has both families";
    if ((r->needs & POLLER) && !f->polled) return "it is about the poller";
    if ((r->needs & SOMEBODY) && !f->pair && !f->connected) return "it is not connected";
#ifdef NETKIT_NO_THREADS
    if ((r->needs & THREADS) || (r->run == row_queue_full && f->pair)) {
        return "one thread uses netkit here";
    }
#endif
#ifdef _WIN32
    if (r->needs & SIGNALS) return "signals do not end waits on Windows";
    if ((r->needs & SOMEBODY) && f->connected) return "Wine does not tell port unreachable";
#endif
    return NULL;
}

//------------------------------------------------------------------------------
// Running a row

static void scene_init(scene *s, const face *f) {
    memset(s, 0, sizeof *s);
    s->face = f;
    current = s;
    scene_clock = NULL;
    if (f->impaired != BARE && f->pair) {
        CHECK_INT(nkt_env_init_virtual(&s->p.env, 1), NKT_OK);
        s->p.env.allocate = probe_allocate;
        scene_clock = &s->p.env;
    } else {
        probe_open(&s->p);
    }
    s->sys = *nkt_sys_udp_default();
    s->sys.send = scene_send;
    s->p.env.udp = &s->sys;
    if (scene_hooks.env != NULL) scene_hooks.env(s);
}

// All but the environment.
static void scene_close(scene *s) {
    nkt_udp_close(s->a);
    s->a = NULL;
    peer_close(s);
    nkt_poller_close(s->poller);
    s->poller = NULL;
}

#endif
