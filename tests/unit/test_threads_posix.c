// test_threads_posix.c - what several threads may do, done by many at once
//
// Made for the thread sanitizer, and right without it: every storm ends with a
// state that only comes about if no wake-up was lost and none came too many.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "probe.h"

#include <pthread.h>

static uint32_t load(uint32_t *value) {
    return __atomic_load_n(value, __ATOMIC_SEQ_CST);
}

static void store(uint32_t *value, uint32_t to) {
    __atomic_store_n(value, to, __ATOMIC_SEQ_CST);
}

static void add(uint32_t *value) {
    __atomic_fetch_add(value, 1, __ATOMIC_SEQ_CST);
}

static pthread_t start(void *(*run)(void *arg), void *arg) {
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, run, arg), 0);
    return thread;
}

static void join(pthread_t thread) {
    CHECK_INT(pthread_join(thread, NULL), 0);
}

// A little work, to be at another place each time.
static void dawdle(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    for (uint32_t i = *seed >> 18; i > 0; i--) nkt_now_ns(NULL);
}

enum { OVER_TCP, OVER_PAIR, CARRIERS };
static const char *const carrier_names[] = { "tcp", "pair" };

static void two_ends(probe *p, int carrier, int32_t timeout_ms, nkt_conn **a, nkt_conn **b) {
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    opts.stream.read_timeout_ms = opts.stream.write_timeout_ms = timeout_ms;
    if (carrier == OVER_TCP) probe_tcp_opts(p, &opts, &opts, a, b);
    else CHECK_INT(nkt_conn_pair(&opts, &opts, a, b), NKT_OK);
}

//------------------------------------------------------------------------------
// One reader and one writer on each end
//------------------------------------------------------------------------------

enum { LINES = 20000 };

typedef struct talker {
    nkt_conn *conn;
    int err;
    uint32_t lines;
    uint32_t wrong;
} talker;

static void *write_lines(void *arg) {
    talker *t = (talker *)arg;
    char line[64];
    for (uint32_t i = 0; i < LINES && t->err == NKT_OK; i++, t->lines++) {
        int len = snprintf(line, sizeof line, "line %u of all\n", i * 2654435761u);
        t->err = nkt_conn_write(t->conn, line, (size_t)len);
    }
    if (t->err == NKT_OK) t->err = nkt_conn_shutdown_write(t->conn);
    return NULL;
}

static void *read_lines(void *arg) {
    talker *t = (talker *)arg;
    char want[64];
    nkt_str line;
    while ((t->err = nkt_conn_read_line(t->conn, &line)) == NKT_OK) {
        snprintf(want, sizeof want, "line %u of all", t->lines * 2654435761u);
        t->wrong += !nkt_str_equal(line, want);
        t->lines++;
    }
    return NULL;
}

static void talking(void) {
    for (int i = 0; i < CARRIERS * 2; i++) {
        int carrier = i % CARRIERS;
        char name[100];
        snprintf(name, sizeof name, "%s: a reader and a writer on each end%s",
                 carrier_names[carrier], i >= CARRIERS ? ", with time-outs" : "");
        TEST(name) {
            probe p;
            talker t[4];
            pthread_t threads[4];
            nkt_conn *a = NULL, *b = NULL;
            memset(t, 0, sizeof t);
            probe_open(&p);
            two_ends(&p, carrier, i >= CARRIERS ? 20000 : 0, &a, &b);
            for (int k = 0; k < 4; k++) {
                t[k].conn = k < 2 ? a : b;
                threads[k] = start(k % 2 == 0 ? write_lines : read_lines, &t[k]);
            }
            for (int k = 0; k < 4; k++) {
                join(threads[k]);
                CHECK_INT(t[k].err, k % 2 == 0 ? NKT_OK : NKT_EOF);
                CHECK_INT(t[k].lines, LINES);
                CHECK_INT(t[k].wrong, 0);
            }
            nkt_conn_close(a);
            nkt_conn_close(b);
            probe_close(&p);
        }
    }
}

//------------------------------------------------------------------------------
// Interrupts
//------------------------------------------------------------------------------

enum { ROUNDS = 200 };

typedef struct victim {
    nkt_conn *conn;
    nkt_listener *listener;
    int err;
    uint32_t *seed;
} victim;

static void *read_until_canceled(void *arg) {
    victim *v = (victim *)arg;
    nkt_str line;
    v->err = nkt_conn_read_line(v->conn, &line);
    return NULL;
}

static void *write_until_canceled(void *arg) {
    static const char block[65536];
    victim *v = (victim *)arg;
    do v->err = nkt_conn_write(v->conn, block, sizeof block);
    while (v->err == NKT_OK);
    return NULL;
}

static void *accept_until_canceled(void *arg) {
    victim *v = (victim *)arg;
    nkt_conn *conn = NULL;
    v->err = nkt_accept(v->listener, &conn);
    return NULL;
}

static void *interrupt(void *arg) {
    victim *v = (victim *)arg;
    dawdle(v->seed);
    if (v->conn != NULL) nkt_conn_interrupt(v->conn);
    else nkt_listener_interrupt(v->listener);
    return NULL;
}

static void interrupted_conns(int carrier, int32_t timeout_ms) {
    probe p;
    uint32_t seeds[2] = { 1, 2 };
    probe_open(&p);
    for (int round = 0; round < ROUNDS; round++) {
        nkt_conn *a = NULL, *b = NULL;
        victim reader, writer, by[2];
        nkt_str line;
        pthread_t threads[4];
        memset(&reader, 0, sizeof reader);
        two_ends(&p, carrier, timeout_ms, &a, &b);
        reader.conn = a;
        writer = by[0] = by[1] = reader;
        by[0].seed = &seeds[0];
        by[1].seed = &seeds[1];
        threads[0] = start(read_until_canceled, &reader);
        threads[1] = start(write_until_canceled, &writer);
        threads[2] = start(interrupt, &by[0]);
        threads[3] = start(interrupt, &by[1]);
        for (int i = 0; i < 4; i++) join(threads[i]);
        CHECK_INT(reader.err, NKT_ECANCELED);
        CHECK_INT(writer.err, NKT_ECANCELED);
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_ECANCELED);
        CHECK_INT(nkt_conn_write_str(a, "x"), NKT_ECANCELED);
        nkt_conn_close(a);
        nkt_conn_close(b);
    }
    // There are no more wake-ups than threads that waited at once.
    CHECK_RANGE(probe_calls(&p, PROBE_WAKE_OPEN), 0, 8);
    probe_close(&p);
}

// Who was interrupted may hand the descriptor over at once, while the other
// thread is still inside its call. With the system's own functions: they wait
// for the socket alone.
static void *detach_when_canceled(void *arg) {
    victim *v = (victim *)arg;
    nkt_str line;
    nkt_fd fd = NKT_NO_FD;
    v->err = nkt_conn_read_line(v->conn, &line);
    if (CHECK_INT(nkt_conn_detach(v->conn, &fd), NKT_OK)) close((int)fd);
    return NULL;
}

static void detached_conns(int32_t timeout_ms) {
    uint32_t seed = 5;
    for (int round = 0; round < ROUNDS; round++) {
        int ends[2];
        victim reader, by;
        nkt_conn_opts opts;
        pthread_t threads[2];
        memset(&reader, 0, sizeof reader);
        memset(&opts, 0, sizeof opts);
        opts.stream.read_timeout_ms = timeout_ms;
        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        CHECK_INT(nkt_conn_adopt(ends[0], &opts, &reader.conn), NKT_OK);
        by = reader;
        by.seed = &seed;
        threads[0] = start(detach_when_canceled, &reader);
        threads[1] = start(interrupt, &by);
        for (int i = 0; i < 2; i++) join(threads[i]);
        CHECK_INT(reader.err, NKT_ECANCELED);
        close(ends[1]);
    }
}

static int odd_waits, odd_shutdowns;        // atomic

static int odd_get_option(nkt_env *env, nkt_fd fd, int option, int64_t *value) {
    int err = nkt_sys_core_default()->get_option(env, fd, option, value);
    if (option == NKT_SO_FAMILY) *value = 0;
    return err;
}

static ptrdiff_t odd_recv_wait(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    __atomic_fetch_add(&odd_waits, 1, __ATOMIC_SEQ_CST);
    return nkt_sys_core_default()->recv(env, fd, buf, cap);
}

static int odd_shutdown(nkt_env *env, nkt_fd fd, uint32_t directions) {
    (void)env, (void)fd, (void)directions;
    __atomic_fetch_add(&odd_shutdowns, 1, __ATOMIC_SEQ_CST);
    return NKT_EINVAL;
}

// As TIPC's are: not to be shut for reading, so that this would wake nobody.
static void odd_conns(int32_t timeout_ms) {
    uint32_t seed = 7;
    probe p;
    probe_open(&p);
    p.core.get_option = odd_get_option;
    p.core.shutdown = odd_shutdown;
    if (p.core.recv_wait != NULL) p.core.recv_wait = odd_recv_wait;
    for (int round = 0; round < ROUNDS; round++) {
        int ends[2];
        victim reader, by;
        nkt_conn_opts opts;
        pthread_t threads[2];
        memset(&reader, 0, sizeof reader);
        memset(&opts, 0, sizeof opts);
        opts.env = &p.env;
        opts.stream.read_timeout_ms = timeout_ms;
        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        CHECK_INT(nkt_conn_adopt(ends[0], &opts, &reader.conn), NKT_OK);
        by = reader;
        by.seed = &seed;
        threads[0] = start(detach_when_canceled, &reader);
        threads[1] = start(interrupt, &by);
        for (int i = 0; i < 2; i++) join(threads[i]);
        CHECK_INT(reader.err, NKT_ECANCELED);
        close(ends[1]);
    }
    CHECK_INT(odd_waits, 0);
    CHECK_INT(odd_shutdowns, 0);
    probe_close(&p);
}

static void interrupts(void) {
    TEST("a family that cannot be shut for reading: interrupted") odd_conns(0);
    TEST("a family that cannot be shut for reading: in a timed wait") odd_conns(30000);
    TEST("interrupted, and detached at once") detached_conns(0);
    TEST("interrupted in a timed wait, and detached at once") detached_conns(30000);
    for (int carrier = 0; carrier < CARRIERS; carrier++) {
        char name[100];
        snprintf(name, sizeof name, "%s: reader and writer interrupted by two",
                 carrier_names[carrier]);
        TEST(name) interrupted_conns(carrier, 0);
        snprintf(name, sizeof name, "%s: reader and writer interrupted in a timed wait",
                 carrier_names[carrier]);
        TEST(name) interrupted_conns(carrier, 30000);
    }
    TEST("accepts interrupted by two") {
        probe p;
        uint32_t seeds[2] = { 3, 4 };
        nkt_listen_opts opts;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        for (int round = 0; round < ROUNDS; round++) {
            victim v, by[2];
            pthread_t threads[3];
            memset(&v, 0, sizeof v);
            CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &v.listener), NKT_OK);
            by[0] = by[1] = v;
            by[0].seed = &seeds[0];
            by[1].seed = &seeds[1];
            threads[0] = start(accept_until_canceled, &v);
            threads[1] = start(interrupt, &by[0]);
            threads[2] = start(interrupt, &by[1]);
            for (int i = 0; i < 3; i++) join(threads[i]);
            CHECK_INT(v.err, NKT_ECANCELED);
            nkt_listener_close(v.listener);
        }
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// Wakes
//------------------------------------------------------------------------------

enum { WAKERS = 4, WAKES = 5000 };

typedef struct wake_storm {
    nkt_poller *poller;
    uint32_t begun;         // the poller's thread is about to wait
    uint32_t over;          // wakers that have finished
} wake_storm;

static void *wake_often(void *arg) {
    wake_storm *storm = (wake_storm *)arg;
    while (!load(&storm->begun)) probe_yield();
    for (int i = 0; i < WAKES; i++) {
        if (i == WAKES - 1) add(&storm->over);
        nkt_poller_wake(storm->poller);
    }
    return NULL;
}

static void wakes(const char *name, bool portable) {
    TEST(name) {
        probe p;
        wake_storm storm;
        nkt_poller_opts opts;
        pthread_t threads[WAKERS];
        long waits = 0;
        memset(&storm, 0, sizeof storm);
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        if (portable) p.base_poll = nkt_sys_poll_portable();
        CHECK_INT(nkt_poller_open(&opts, &storm.poller), NKT_OK);
        for (int i = 0; i < WAKERS; i++) threads[i] = start(wake_often, &storm);
        store(&storm.begun, 1);
        // The last wake comes after its thread has said so: one that is lost
        // would leave us here for ever.
        while (load(&storm.over) < WAKERS) {
            CHECK_INT(nkt_poller_wait(storm.poller, -1), 0);
            waits++;
        }
        for (int i = 0; i < WAKERS; i++) join(threads[i]);
        CHECK_RANGE(waits, 0, WAKERS * WAKES);
        // At most the last ones are left over, as one.
        CHECK_INT(nkt_poller_wait(storm.poller, 0), 0);
        p.fake = true;
        CHECK_INT(nkt_poller_wait(storm.poller, 10), 0);
        CHECK_INT(p.now, 10 * PROBE_MS);
        nkt_poller_close(storm.poller);
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// Notifies and cancels against a poller that adds, removes and closes
//------------------------------------------------------------------------------

enum { TARGETS = 8, NOTIFIES = 3000 };

typedef struct notify_storm {
    nkt_conn *ends[TARGETS];        // blocking, each of one writing thread
    uint32_t over;
} notify_storm;

typedef struct notifier {
    notify_storm *storm;
    int index;
} notifier;

static void *write_often(void *arg) {
    notifier *n = (notifier *)arg;
    char line[40];
    for (int i = 0; i < NOTIFIES; i++) {
        int len = snprintf(line, sizeof line, "%d\n", i);
        if (nkt_conn_write(n->storm->ends[n->index], line, (size_t)len) != NKT_OK) break;
    }
    nkt_conn_shutdown_write(n->storm->ends[n->index]);
    add(&n->storm->over);
    return NULL;
}

// Reads what is there and checks that it goes on where it was.
static bool take_lines(nkt_conn *conn, int *next) {
    nkt_str line;
    int err;
    while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK) {
        CHECK_INT(strtol(line.ptr, NULL, 10), *next);
        ++*next;
    }
    if (err != NKT_EAGAIN) CHECK_INT(err, NKT_EOF);
    return err == NKT_EOF;
}

static void notifies(void) {
    TEST("notifies from eight threads to a poller that adds and removes") {
        probe p;
        notify_storm storm;
        notifier notifiers[TARGETS];
        pthread_t threads[TARGETS];
        nkt_conn *conns[TARGETS];
        int next[TARGETS] = { 0 };
        nkt_poller *poller = NULL;
        nkt_poller_opts poller_opts;
        nkt_conn_opts here, there;
        nkt_event event;
        uint32_t seed = 7;
        memset(&storm, 0, sizeof storm);
        memset(&poller_opts, 0, sizeof poller_opts);
        memset(&here, 0, sizeof here);
        probe_open(&p);
        poller_opts.env = here.env = &p.env;
        there = here;
        here.nonblocking = true;
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        for (int i = 0; i < TARGETS; i++) {
            CHECK_INT(nkt_conn_pair(&here, &there, &conns[i], &storm.ends[i]), NKT_OK);
            CHECK_INT(nkt_poller_add_conn(poller, conns[i], &next[i]), NKT_OK);
            notifiers[i].storm = &storm;
            notifiers[i].index = i;
            threads[i] = start(write_often, &notifiers[i]);
        }
        int ended = 0;
        while (ended < TARGETS && CHECK(nkt_poller_wait(poller, 20000) > 0)) {
            while (nkt_poller_next(poller, &event) == NKT_OK) {
                if (take_lines(event.conn, (int *)event.user)) {
                    CHECK_INT(nkt_poller_remove_conn(poller, event.conn), NKT_OK);
                    ended++;
                    continue;
                }
                // Out and in again, under the feet of those who notify.
                seed = seed * 1664525u + 1013904223u;
                if (seed >> 30 != 0) continue;
                CHECK_INT(nkt_poller_remove_conn(poller, event.conn), NKT_OK);
                CHECK_INT(nkt_poller_add_conn(poller, event.conn, event.user), NKT_OK);
            }
        }
        for (int i = 0; i < TARGETS; i++) {
            join(threads[i]);
            CHECK_INT(next[i], NOTIFIES);
            nkt_conn_close(conns[i]);
            nkt_conn_close(storm.ends[i]);
        }
        CHECK_INT(load(&storm.over), TARGETS);
        nkt_poller_close(poller);
        probe_close(&p);
    }
}

typedef struct cancel_storm {
    nkt_task *task;         // the one to cancel
    uint32_t turn;          // odd: cancel it
    uint32_t quit;
} cancel_storm;

static void *cancel_often(void *arg) {
    cancel_storm *storm = (cancel_storm *)arg;
    while (!load(&storm->quit)) {
        if (load(&storm->turn) % 2 == 0) {
            probe_yield();
            continue;
        }
        nkt_task_cancel(storm->task);
        add(&storm->turn);
    }
    return NULL;
}

static void cancels(void) {
    TEST("timers canceled by another thread") {
        probe p;
        cancel_storm storm;
        nkt_poller *poller = NULL;
        nkt_poller_opts poller_opts;
        nkt_timer_opts timer_opts;
        nkt_event event;
        memset(&storm, 0, sizeof storm);
        memset(&poller_opts, 0, sizeof poller_opts);
        memset(&timer_opts, 0, sizeof timer_opts);
        probe_open(&p);
        poller_opts.env = timer_opts.env = &p.env;
        timer_opts.delay_ms = 3600000;
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        pthread_t thread = start(cancel_often, &storm);
        for (int i = 0; i < 2000; i++) {
            CHECK_INT(nkt_timer_start(&timer_opts, &storm.task), NKT_OK);
            bool polled = i % 2 == 0;
            if (polled) CHECK_INT(nkt_poller_add_task(poller, storm.task, NULL), NKT_OK);
            add(&storm.turn);
            if (polled) {
                CHECK_INT(nkt_poller_wait(poller, -1), 1);
                CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
            } else {
                CHECK_INT(nkt_task_wait(storm.task, -1), NKT_ECANCELED);
            }
            CHECK_INT(nkt_timer_finish(storm.task), NKT_ECANCELED);
            // Whoever woke us is not done with it before it has returned.
            while (load(&storm.turn) % 2 == 1) probe_yield();
            nkt_task_close(storm.task);
        }
        store(&storm.quit, 1);
        join(thread);
        nkt_poller_close(poller);
        probe_close(&p);
    }
}

// Many threads, each with connections of its own, on one environment.
static void *own_business(void *arg) {
    probe *p = (probe *)arg;
    nkt_conn *a = NULL, *b = NULL;
    nkt_str line;
    for (int i = 0; i < 300; i++) {
        two_ends(p, i % CARRIERS, i % 3 == 0 ? 10000 : 0, &a, &b);
        CHECK_INT(nkt_conn_write_str(a, "mine\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_OK);
        CHECK(nkt_str_equal(line, "mine"));
        CHECK_INT(nkt_conn_set_option(b, NKT_OPT_READ_TIMEOUT_MS, 1), NKT_OK);
        if (i % 20 == 0) CHECK_INT(nkt_conn_read_line(b, &line), NKT_ETIMEDOUT);
        nkt_conn_close(a);
        nkt_conn_close(b);
    }
    return NULL;
}

static void side_by_side(void) {
    TEST("six threads on one environment, each with its own connections") {
        probe p;
        pthread_t threads[6];
        probe_open(&p);
        for (int i = 0; i < 6; i++) threads[i] = start(own_business, &p);
        for (int i = 0; i < 6; i++) join(threads[i]);
        probe_close(&p);
    }
}

int main(void) {
    talking();
    interrupts();
    wakes("wakes from four threads", false);
    wakes("wakes from four threads, portable", true);
    notifies();
    cancels();
    side_by_side();
    return test_finish();
}
