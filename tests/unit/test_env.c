// test_env.c - the environment: tables, memory, trace, time, errors, layout

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "probe.h"

//------------------------------------------------------------------------------
// The default environment: has to be the first thing that a program does
//------------------------------------------------------------------------------

static long default_opens, default_closes;

static int counted_open(nkt_env *env, int family, int type, nkt_fd *fd) {
    default_opens++;
    return nkt_sys_core_default()->open(env, family, type, fd);
}

static int counted_close(nkt_env *env, nkt_fd fd) {
    default_closes++;
    return nkt_sys_core_default()->close(env, fd);
}

static void the_default(void) {
    TEST("the default can be replaced before its first use, and not after") {
        // The environment keeps a pointer to its table: this one stays.
        static nkt_sys_core core;
        nkt_env env;
        nkt_listener *listener = NULL;
        core = *nkt_sys_core_default();
        core.open = counted_open;
        core.close = counted_close;
        memset(&env, 0, sizeof env);
        env.size = sizeof env;
        env.core = &core;
        CHECK_INT(nkt_env_set_default(&env), NKT_OK);
        CHECK_INT(default_opens, 0);
        CHECK_INT(nkt_listen("127.0.0.1:0", NULL, &listener), NKT_OK);
        CHECK_INT(default_opens, 1);
        CHECK_INT(nkt_env_set_default(&env), NKT_EBUSY);
        nkt_listener_close(listener);
        CHECK_INT(default_closes, 1);
        CHECK_INT(nkt_env_set_default(&env), NKT_EBUSY);
        // The default cannot be given back.
        nkt_env_free(&env);
        CHECK_INT(nkt_listen("127.0.0.1:0", NULL, &listener), NKT_OK);
        nkt_listener_close(listener);
        CHECK_INT(default_opens, 2);
    }
}

static void tables(void) {
    TEST("an environment of one's own, as it is") {
        nkt_env env;
        nkt_listener *listener = NULL;
        nkt_listen_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.env = &env;
        CHECK_INT(nkt_env_init(&env), NKT_OK);
        CHECK_INT(env.size, sizeof env);
        long before = default_opens;
        CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_OK);
        CHECK_INT(default_opens, before);
        nkt_listener_close(listener);
        // A NULL table is the system's.
        env.core = NULL;
        env.poll = NULL;
        env.threads = NULL;
        CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_OK);
        nkt_listener_close(listener);
        nkt_env_free(&env);
        nkt_env_free(&env);
    }
    TEST("an environment or a table that is too short is refused") {
        nkt_env env, blank;
        nkt_sys_core core = *nkt_sys_core_default();
        nkt_listener *listener = NULL;
        nkt_poller *poller = NULL;
        nkt_conn *conn = NULL;
        nkt_listen_opts listen_opts;
        nkt_poller_opts poller_opts;
        nkt_conn_opts conn_opts;
        memset(&listen_opts, 0, sizeof listen_opts);
        memset(&poller_opts, 0, sizeof poller_opts);
        memset(&conn_opts, 0, sizeof conn_opts);
        memset(&blank, 0, sizeof blank);
        CHECK_INT(nkt_env_init(&env), NKT_OK);
        core.size = sizeof core - 1;
        env.core = &core;
        for (int i = 0; i < 2; i++) {
            listen_opts.env = poller_opts.env = conn_opts.env = i == 0 ? &env : &blank;
            CHECK_INT(nkt_listen("127.0.0.1:0", &listen_opts, &listener), NKT_EINVAL);
            CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_EINVAL);
            CHECK_INT(nkt_conn_pair(&conn_opts, &conn_opts, &conn, &conn), NKT_EINVAL);
            CHECK_INT(nkt_conn_adopt(0, &conn_opts, &conn), NKT_EINVAL);
            CHECK_INT(nkt_random(listen_opts.env, &core, 4), NKT_EOS);
        }
        CHECK(listener == NULL && poller == NULL && conn == NULL);
        nkt_env_free(&env);
    }
    TEST("the tables say their size and have every entry") {
        const nkt_sys_core *core = nkt_sys_core_default();
        CHECK_INT(core->size, sizeof(nkt_sys_core));
        CHECK_INT(nkt_sys_poll_default()->size, sizeof(nkt_sys_poll));
        CHECK_INT(nkt_sys_poll_portable()->size, sizeof(nkt_sys_poll));
        CHECK_INT(nkt_sys_threads_default()->size, sizeof(nkt_sys_threads));
        // All but recv_wait, which not every system has.
        const unsigned char *bytes = (const unsigned char *)core;
        for (size_t at = offsetof(nkt_sys_core, last_error); at < sizeof *core;
             at += sizeof(void *)) {
            void *entry;
            memcpy(&entry, bytes + at, sizeof entry);
            if (at != offsetof(nkt_sys_core, recv_wait)) CHECK(entry != NULL);
        }
    }
}

//------------------------------------------------------------------------------
// Memory
//------------------------------------------------------------------------------

// A little of everything that allocates, on one environment.
static void everything(probe *p) {
    static char block[300000];
    nkt_conn *a = NULL, *b = NULL, *c = NULL, *d = NULL;
    nkt_poller *poller = NULL;
    nkt_poller_opts poller_opts;
    nkt_timer_opts timer_opts;
    nkt_conn_opts opts;
    nkt_task *task = NULL;
    nkt_str text;
    memset(&poller_opts, 0, sizeof poller_opts);
    memset(&timer_opts, 0, sizeof timer_opts);
    memset(&opts, 0, sizeof opts);
    poller_opts.env = timer_opts.env = opts.env = &p->env;
    opts.nonblocking = true;
    memset(block, 'x', sizeof block);
    CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
    CHECK_INT(nkt_timer_start(&timer_opts, &task), NKT_OK);
    CHECK_INT(nkt_poller_add_task(poller, task, NULL), NKT_OK);
    CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(poller, a, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(poller, b, NULL), NKT_OK);
    CHECK_INT(nkt_conn_set_option(b, NKT_OPT_LINE_MAX, 1000000), NKT_OK);
    CHECK_INT(nkt_conn_write(a, block, sizeof block), NKT_OK);
    CHECK_INT(nkt_conn_write_str(a, "\nand half a"), NKT_OK);
    int err = NKT_EAGAIN;
    for (int i = 0; i < 100 && err == NKT_EAGAIN; i++) {
        CHECK(nkt_poller_wait(poller, 1000) >= 0);
        err = nkt_conn_read_line(b, &text);
    }
    if (CHECK_INT(err, NKT_OK)) CHECK_INT(text.len, sizeof block);
    CHECK_INT(nkt_conn_read_line(b, &text), NKT_EAGAIN);
    CHECK_INT(nkt_conn_write_message(a, block, 100), NKT_OK);
    probe_tcp(p, true, false, &c, &d);
    CHECK_INT(nkt_poller_add_conn(poller, c, NULL), NKT_OK);
    probe_say(d, c, "one\ntwo", &p->env);
    CHECK_INT(nkt_conn_read_line(c, &text), NKT_OK);
    CHECK_INT(nkt_conn_read_line(c, &text), NKT_EAGAIN);
    // Closed in another order than opened, with things unread and unsent.
    nkt_conn_close(b);
    nkt_task_close(task);
    nkt_conn_close(c);
    nkt_poller_close(poller);
    nkt_conn_close(a);
    nkt_conn_close(d);
}

static void memory(void) {
    TEST("memory comes back with its size, and all of it") {
        probe p;
        probe_open(&p);
        everything(&p);
        CHECK(probe_calls(&p, PROBE_ALLOCATE) > 10);
        CHECK_INT(p.wrong, 0);
        probe_close(&p);
    }
    TEST("the checking allocator does check") {
        probe p;
        probe_open(&p);
        void *block = probe_allocate(&p.env, NULL, 0, 10);
        CHECK_INT(p.bytes, 10);
        block = probe_allocate(&p.env, block, 10, 20);
        CHECK_INT(p.bytes, 20);
        CHECK_INT(p.blocks, 1);
        CHECK_INT(p.wrong, 0);
        probe_allocate(&p.env, block, 19, 0);
        CHECK_INT(p.wrong, 1);
        p.wrong = 0;
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// The trace hook
//------------------------------------------------------------------------------

static char trace_text[1000];
static const void *trace_only;      // NULL = every handle
static int64_t trace_last_ns;
static int32_t trace_os_error;

static void trace(nkt_env *env, const nkt_trace *what) {
    size_t len = strlen(trace_text);
    (void)env;
    CHECK(what->handle != NULL);
    CHECK(what->now_ns >= trace_last_ns);
    trace_last_ns = what->now_ns;
    if (what->os_error != 0) trace_os_error = what->os_error;
    if (trace_only != NULL && what->handle != trace_only) return;
    if (len + 60 > sizeof trace_text) return;
    snprintf(trace_text + len, sizeof trace_text - len, "%s %s%s%s; ", what->kind, what->state,
             what->err < 0 ? " " : "", what->err < 0 ? nkt_errname(what->err) : "");
}

static void trace_begin(probe *p) {
    probe_open(p);
    p->env.trace = trace;
    trace_text[0] = '\0';
    trace_only = NULL;
    trace_last_ns = trace_os_error = 0;
}

// What was traced since the last time.
#define CHECK_TRACE(want)                                                                \
    (CHECK_STR(trace_text, want), trace_text[0] = '\0')

static void traced_connect(const char *listens, int err) {
    probe p;
    nkt_conn *conn = NULL;
    nkt_listener *listener = NULL;
    nkt_listen_opts listen_opts;
    nkt_connect_opts opts;
    nkt_addr addr;
    char target[40];
    memset(&addr, 0, sizeof addr);
    memset(&listen_opts, 0, sizeof listen_opts);
    memset(&opts, 0, sizeof opts);
    trace_begin(&p);
    listen_opts.env = opts.env = &p.env;
    CHECK_INT(nkt_listen("127.0.0.1:0", &listen_opts, &listener), NKT_OK);
    CHECK_TRACE("listener listening; ");
    CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
    if (err < 0) {
        nkt_listener_close(listener);
        CHECK_TRACE("listener closed; ");
    }
    snprintf(target, sizeof target, listens, addr.port);
    CHECK_INT(nkt_connect(target, &opts, &conn), err);
    if (err < 0) {
        CHECK_TRACE("conn connecting; conn attempt; conn attempt failed NKT_EREFUSED; "
                    "conn connect failed NKT_EREFUSED; conn closed; ");
        CHECK(trace_os_error != 0);
    } else {
        CHECK_TRACE("conn connecting; conn attempt; conn connected; ");
        nkt_listener_close(listener);
        nkt_conn_close(conn);
        CHECK_TRACE("listener closed; conn closed; ");
    }
    probe_close(&p);
}

static void traced_stream(void) {
    TEST("trace: the life of two connections") {
        probe p;
        nkt_conn *a = NULL, *b = NULL;
        nkt_str line;
        nkt_conn_opts opts;
        memset(&opts, 0, sizeof opts);
        trace_begin(&p);
        opts.env = &p.env;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_TRACE("conn open; conn open; ");
        CHECK_INT(nkt_conn_write_str(a, "hello\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_OK);
        CHECK_TRACE("");
        CHECK_INT(nkt_conn_shutdown_write(a), NKT_OK);
        CHECK_TRACE("conn shutdown; ");
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_EOF);
        CHECK_TRACE("conn eof NKT_EOF; ");
        CHECK_INT(nkt_conn_set_option(a, NKT_OPT_READ_TIMEOUT_MS, 1), NKT_OK);
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_ETIMEDOUT);
        CHECK_TRACE("conn timed out NKT_ETIMEDOUT; ");
        nkt_conn_abort(b);
        CHECK_TRACE("conn aborted; ");
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_ERESET);
        CHECK_TRACE("conn read failed NKT_ERESET; ");
        nkt_conn_interrupt(a);
        nkt_conn_interrupt(a);
        CHECK_TRACE("conn interrupted NKT_ECANCELED; ");
        nkt_conn_close(a);
        CHECK_TRACE("conn closed; ");
        probe_close(&p);
    }
    TEST("trace: tasks and pollers") {
        probe p;
        nkt_poller *poller = NULL;
        nkt_poller_opts poller_opts;
        nkt_timer_opts timer_opts;
        nkt_task *task = NULL;
        memset(&poller_opts, 0, sizeof poller_opts);
        memset(&timer_opts, 0, sizeof timer_opts);
        trace_begin(&p);
        poller_opts.env = timer_opts.env = &p.env;
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        CHECK_INT(nkt_timer_start(&timer_opts, &task), NKT_OK);
        CHECK_INT(nkt_poller_add_task(poller, task, NULL), NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, 0), 1);
        nkt_task_close(task);
        nkt_poller_close(poller);
        CHECK_TRACE("poller open; task started; task closed; poller closed; ");
        probe_close(&p);
    }
}

static void traced_listener(void) {
    TEST("trace: accepting, and having no descriptors for it") {
        probe p;
        nkt_conn *conn = NULL, *peer = NULL;
        nkt_listener *listener = NULL;
        nkt_listen_opts listen_opts;
        nkt_connect_opts opts;
        nkt_addr addr;
        memset(&listen_opts, 0, sizeof listen_opts);
        memset(&opts, 0, sizeof opts);
        trace_begin(&p);
        listen_opts.env = opts.env = &p.env;
        CHECK_INT(nkt_listen("127.0.0.1:0", &listen_opts, &listener), NKT_OK);
        CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
        CHECK_INT(nkt_connect_addr(&addr, &opts, &peer), NKT_OK);
        trace_text[0] = '\0';
        trace_only = listener;
        probe_fail(&p, PROBE_ACCEPT, NKT_EMFILE, 1);
        CHECK_INT(nkt_accept(listener, &conn), NKT_EMFILE);
        CHECK_TRACE("listener resting NKT_EMFILE; ");
        CHECK_INT(nkt_accept(listener, &conn), NKT_OK);
        CHECK_TRACE("listener accepted; ");
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        nkt_listener_close(listener);
        CHECK_TRACE("listener closed; ");
        probe_close(&p);
    }
}

static void traces(void) {
    TEST("trace: a connect that succeeds") traced_connect("127.0.0.1:%d", NKT_OK);
    TEST("trace: a connect that is refused") traced_connect("127.0.0.1:%d", NKT_EREFUSED);
    traced_stream();
    traced_listener();
}

//------------------------------------------------------------------------------
// Errors
//------------------------------------------------------------------------------

static void errors(void) {
    TEST("the numbers are fixed") {
        static const struct { int err, number; const char *name; } rows[] = {
            { NKT_OK, 0, "NKT_OK" },                { NKT_EAGAIN, -1, "NKT_EAGAIN" },
            { NKT_EOF, -2, "NKT_EOF" },             { NKT_EINVAL, -3, "NKT_EINVAL" },
            { NKT_EADDR, -4, "NKT_EADDR" },         { NKT_EPORT, -5, "NKT_EPORT" },
            { NKT_ENOMEM, -8, "NKT_ENOMEM" },       { NKT_ETIMEDOUT, -10, "NKT_ETIMEDOUT" },
            { NKT_ECANCELED, -11, "NKT_ECANCELED" },    { NKT_EINTR, -12, "NKT_EINTR" },
            { NKT_ETOOLONG, -13, "NKT_ETOOLONG" },  { NKT_EREFUSED, -16, "NKT_EREFUSED" },
            { NKT_ERESET, -17, "NKT_ERESET" },      { NKT_EPIPE, -18, "NKT_EPIPE" },
            { NKT_EADDRINUSE, -22, "NKT_EADDRINUSE" },  { NKT_EMFILE, -25, "NKT_EMFILE" },
            { NKT_ENOTFOUND, -29, "NKT_ENOTFOUND" },    { NKT_ENODEV, -31, "NKT_ENODEV" },
            { NKT_EFORKED, -34, "NKT_EFORKED" },    { NKT_EOS, -36, "NKT_EOS" },
            { NKT_EGROUP, -37, "NKT_EGROUP" },      { NKT_EFAMILY, -38, "NKT_EFAMILY" },
        };
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            CHECK_INT(rows[i].err, rows[i].number);
            CHECK_STR(nkt_errname(rows[i].number), rows[i].name);
        }
    }
    TEST("every error has a name and a sentence of its own") {
        for (int err = 0; err >= NKT_ERROR_LAST; err--) {
            CHECK(strncmp(nkt_errname(err), "NKT_", 4) == 0);
            CHECK(strcmp(nkt_errname(err), "NKT_UNKNOWN") != 0);
            CHECK(strlen(nkt_strerror(err)) > 5);
            CHECK(strcmp(nkt_strerror(err), "unknown error") != 0);
            for (int other = 0; other > err; other--) {
                CHECK(strcmp(nkt_errname(err), nkt_errname(other)) != 0);
                CHECK(strcmp(nkt_strerror(err), nkt_strerror(other)) != 0);
            }
        }
        CHECK_STR(nkt_strerror(NKT_EREFUSED), "connection refused: nothing listens there");
    }
    TEST("numbers that are no errors") {
        static const int numbers[] = { NKT_ERROR_LAST - 1, -1000, INT_MIN };
        for (int i = 0; i < 3; i++) {
            CHECK_STR(nkt_strerror(numbers[i]), "unknown error");
            CHECK_STR(nkt_errname(numbers[i]), "NKT_UNKNOWN");
        }
    }
}

//------------------------------------------------------------------------------
// Time, randomness, threads
//------------------------------------------------------------------------------

static int failing_random(nkt_env *env, void *buf, size_t len) {
    (void)env;
    (void)buf;
    (void)len;
    return NKT_EOS;
}

static void small_things(void) {
    TEST("the clock goes forward only") {
        int64_t last = nkt_now_ns(NULL);
        for (int i = 0; i < 10000; i++) {
            int64_t now = nkt_now_ns(NULL);
            if (now < last) CHECK_INT(now, last);
            last = now;
        }
        CHECK(last > 0);
    }
    TEST("randomness fills all of a buffer, differently each time") {
        static unsigned char many[100000];
        unsigned char a[32], b[32];
        long seen[256] = { 0 };
        CHECK_INT(nkt_random(NULL, a, sizeof a), NKT_OK);
        CHECK_INT(nkt_random(NULL, b, sizeof b), NKT_OK);
        CHECK(memcmp(a, b, sizeof a) != 0);
        CHECK_INT(nkt_random(NULL, a, 0), NKT_OK);
        CHECK_INT(nkt_random(NULL, many, sizeof many), NKT_OK);
        for (size_t i = 0; i < sizeof many; i++) seen[many[i]]++;
        // 390 of each on average, with a deviation of 20.
        for (int i = 0; i < 256; i++) CHECK_RANGE(seen[i], 200, 600);
        probe p;
        probe_open(&p);
        p.core.random = failing_random;
        CHECK_INT(nkt_random(&p.env, a, sizeof a), NKT_EOS);
        probe_close(&p);
    }
    TEST("version") {
        char text[40];
        CHECK_STR(nkt_version(), NKT_VERSION);
        snprintf(text, sizeof text, "%d.%d.%d", NKT_VERSION_MAJOR, NKT_VERSION_MINOR,
                 NKT_VERSION_PATCH);
        CHECK_STR(nkt_version(), text);
    }
    TEST("texts as nkt_str") {
        nkt_str str = nkt_str_of("quit\n");
        CHECK_VIEW(str, "quit\n");
        CHECK_INT(str.len, 5);
        str.len = 4;
        CHECK(nkt_str_equal(str, "quit"));
        CHECK(!nkt_str_equal(str, "qui"));
        CHECK(!nkt_str_equal(str, "quit\n"));
        CHECK(!nkt_str_equal(str, "quiT"));
        CHECK(nkt_str_begins(str, "qu"));
        CHECK(nkt_str_begins(str, ""));
        CHECK(nkt_str_begins(str, "quit"));
        CHECK(!nkt_str_begins(str, "quit\n"));
        CHECK(nkt_str_equal(nkt_str_of(""), ""));
    }
}

static uint32_t thread_said;

static void say(void *arg) {
    __atomic_store_n(&thread_said, *(uint32_t *)arg, __ATOMIC_SEQ_CST);
}

static int start_at_once(nkt_env *env, void (*run)(void *arg), void *arg) {
    (void)env;
    run(arg);
    return NKT_OK;
}

static void threads(void) {
    TEST("threads") {
        static uint32_t word = 42;
        nkt_sys_threads table;
        probe p;
        CHECK_INT(nkt_thread_start(NULL, NULL, &word), NKT_EINVAL);
#ifdef NETKIT_NO_THREADS
        CHECK_INT(nkt_thread_start(NULL, say, &word), NKT_EUNSUPPORTED);
#else
        CHECK_INT(nkt_thread_start(NULL, say, &word), NKT_OK);
        while (__atomic_load_n(&thread_said, __ATOMIC_SEQ_CST) != 42) probe_yield();
#endif
        thread_said = 0;
        probe_open(&p);
        table.size = sizeof table;
        table.start = start_at_once;
        p.env.threads = &table;
        CHECK_INT(nkt_thread_start(&p.env, say, &word), NKT_OK);
        CHECK_INT(thread_said, 42);
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// Waiting without a wake-up
//------------------------------------------------------------------------------

static void waiters(void) {
    TEST("a wake-up is opened once and used again") {
        probe p;
        nkt_conn *a = NULL, *b = NULL;
        nkt_str line;
        nkt_conn_opts opts;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        p.fake = true;
        opts.env = &p.env;
        opts.stream.read_timeout_ms = 10;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        for (int i = 1; i <= 20; i++) {
            CHECK_INT(nkt_conn_read_line(a, &line), NKT_ETIMEDOUT);
            CHECK_INT(p.now, i * 10 * PROBE_MS);
        }
        CHECK_INT(probe_calls(&p, PROBE_WAKE_OPEN), 1);
        nkt_conn_close(a);
        nkt_conn_close(b);
        probe_close(&p);
    }
    TEST("out of descriptors for a wake-up, a time-out still ends in time") {
        probe p;
        nkt_conn *a = NULL, *b = NULL;
        nkt_str line;
        nkt_conn_opts opts;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        p.fake = true;
        opts.env = &p.env;
        opts.stream.read_timeout_ms = 1234;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        probe_fail(&p, PROBE_WAKE_OPEN, NKT_EMFILE, 1000000);
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_ETIMEDOUT);
        CHECK_INT(p.now, 1234 * PROBE_MS);
        // It looks up now and then, for who may want it.
        CHECK_RANGE(probe_calls(&p, PROBE_WAIT), 5, 200);
        CHECK_INT(nkt_conn_write_str(b, "x\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_OK);
        nkt_conn_close(a);
        nkt_conn_close(b);
        probe_close(&p);
    }
}

#ifndef NETKIT_NO_THREADS
static uint32_t interrupt_over;

static void interrupt(void *arg) {
    nkt_conn_interrupt((nkt_conn *)arg);
    __atomic_store_n(&interrupt_over, 1, __ATOMIC_SEQ_CST);
}

static void waiters_and_threads(void) {
    TEST("out of descriptors for a wake-up, an interrupt still ends the wait") {
        probe p;
        nkt_conn *a = NULL, *b = NULL;
        nkt_str line;
        nkt_conn_opts opts;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        probe_fail(&p, PROBE_WAKE_OPEN, NKT_EMFILE, 1000000);
        CHECK_INT(nkt_thread_start(&p.env, interrupt, a), NKT_OK);
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_ECANCELED);
        while (__atomic_load_n(&interrupt_over, __ATOMIC_SEQ_CST) == 0) probe_yield();
        nkt_conn_close(a);
        nkt_conn_close(b);
        probe_close(&p);
    }
}
#endif

//------------------------------------------------------------------------------
// The layout
//------------------------------------------------------------------------------

// Finds ".field" of a structure, or the structure itself for NULL.
static bool layout_find(const char *structure, const char *field, uint16_t *offset,
                        uint16_t *size) {
    const char *name;
    const uint16_t *numbers;
    bool inside = false;
    size_t count = nkt_layout(&name, &numbers);
    for (size_t i = 0; i < count; i++, name += strlen(name) + 1, numbers += 2) {
        if (name[0] != '.') inside = strcmp(name, structure) == 0;
        bool found = inside && (field == NULL ? name[0] != '.'
                                              : name[0] == '.' && strcmp(name + 1, field) == 0);
        if (!found) continue;
        *offset = numbers[0];
        *size = numbers[1];
        return true;
    }
    return false;
}

static void check_layout(const char *structure, const char *field, size_t want_offset,
                         size_t want_size) {
    uint16_t offset = 0, size = 0;
    if (!CHECK(layout_find(structure, field, &offset, &size))) {
        printf("  %s.%s\n", structure, field != NULL ? field : "");
        return;
    }
    CHECK_INT(offset, want_offset);
    CHECK_INT(size, want_size);
}

#define CHECK_STRUCT(type) check_layout(#type, NULL, 0, sizeof(type))
#define CHECK_FIELD(type, field)                                                         \
    check_layout(#type, #field, offsetof(type, field), sizeof(((type *)0)->field))

static void layout(void) {
    TEST("the layout agrees with the compiler") {
        CHECK_STRUCT(nkt_str);
        CHECK_FIELD(nkt_str, ptr);
        CHECK_FIELD(nkt_str, len);
        CHECK_STRUCT(nkt_problem);
        CHECK_FIELD(nkt_problem, offset);
        CHECK_FIELD(nkt_problem, field);
        CHECK_FIELD(nkt_problem, text);
        CHECK_STRUCT(nkt_env);
        CHECK_FIELD(nkt_env, trace);
        CHECK_FIELD(nkt_env, state);
        CHECK_STRUCT(nkt_sys_core);
        CHECK_FIELD(nkt_sys_core, process_id);
        CHECK_STRUCT(nkt_addr);
        CHECK_FIELD(nkt_addr, port);
        CHECK_FIELD(nkt_addr, flow_label);
        CHECK_STRUCT(nkt_ip);
        CHECK_FIELD(nkt_ip, family);
        CHECK_STRUCT(nkt_event);
        CHECK_FIELD(nkt_event, fd);
        CHECK_FIELD(nkt_event, user);
        CHECK_STRUCT(nkt_stream_opts);
        CHECK_FIELD(nkt_stream_opts, delay_small_writes);
        CHECK_STRUCT(nkt_connect_opts);
        CHECK_FIELD(nkt_connect_opts, report);
        CHECK_FIELD(nkt_connect_opts, stream);
        CHECK_STRUCT(nkt_connect_report);
        CHECK_FIELD(nkt_connect_report, attempts);
        CHECK_FIELD(nkt_connect_report, problem);
        CHECK_FIELD(nkt_connect_report, text);
        CHECK_STRUCT(nkt_listen_opts);
        CHECK_FIELD(nkt_listen_opts, problem);
        CHECK_STRUCT(nkt_transport);
        CHECK_FIELD(nkt_transport, flush);
    }
    TEST("the layout is whole: fields in order, inside their structure") {
        const char *name;
        const uint16_t *numbers;
        size_t count = nkt_layout(&name, &numbers);
        unsigned size = 0, end = 0;
        CHECK(count > 150);
        for (size_t i = 0; i < count; i++, name += strlen(name) + 1, numbers += 2) {
            if (name[0] != '.') {
                CHECK(strncmp(name, "nkt_", 4) == 0);
                CHECK_INT(numbers[0], 0);
                // There may be padding after it, but no field left out.
                CHECK_RANGE(size, end, end + 7);
                size = numbers[1];
                end = 0;
                continue;
            }
            CHECK_RANGE(numbers[0], end, end + 7);
            end = (unsigned)numbers[0] + numbers[1];
            CHECK(end <= size);
        }
        // Two NULs at the end.
        CHECK_INT(name[0], '\0');
    }
}

int main(void) {
    the_default();
    tables();
    memory();
    traces();
    errors();
    small_things();
    threads();
    waiters();
#ifndef NETKIT_NO_THREADS
    waiters_and_threads();
#endif
    layout();
    return test_finish();
}
