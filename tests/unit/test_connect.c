// test_connect.c - from "host:port" to a connection
//
// The race between addresses runs on a false clock against a network that is a
// script: when each family answers, and what. Each row is run in both faces and
// from instants where clocks of 32 bits go wrong. What the real loopback
// interface can show is shown on it.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "probe.h"

static nkt_connect_opts connect_opts(probe *p) {
    nkt_connect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    return opts;
}

static nkt_listener *listen_on(probe *p, const char *target, nkt_addr *addr) {
    nkt_listen_opts opts;
    nkt_listener *listener = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
    CHECK_INT(nkt_listener_local(listener, addr), NKT_OK);
    return listener;
}

static bool has_ipv6(void) {
    nkt_listener *listener = NULL;
    bool has = nkt_listen("[::1]:0", NULL, &listener) == NKT_OK;
    nkt_listener_close(listener);
    return has;
}

//------------------------------------------------------------------------------
// A network that is a script
//------------------------------------------------------------------------------

enum { SILENT = NKT_EAGAIN, AT_ONCE = -1, NOT_STARTED = -1 };

// What becomes of an attempt: `result` so many milliseconds after it started.
typedef struct plan {
    int result;
    int after_ms;           // AT_ONCE: connect itself says so
} plan;

static struct script {
    plan plans[2];          // IPv6, IPv4
    nkt_fd fds[2];
    int64_t started[2];
    bool hides_failures;    // as WSAPoll did before Windows 10 2004
} script;

static int script_index(nkt_fd fd) {
    return fd == script.fds[0] ? 0 : fd == script.fds[1] ? 1 : -1;
}

// All of them are IPv4 sockets, so that it runs where there is no IPv6.
static int script_open(nkt_env *env, int family, int type, nkt_fd *fd) {
    int index = family == NKT_IPV4;
    const plan *what = &script.plans[index];
    if (what->result == NKT_EUNSUPPORTED && what->after_ms == AT_ONCE) return what->result;
    int err = probe_core_open(env, NKT_IPV4, type, fd);
    if (err >= 0) script.fds[index] = *fd;
    return err;
}

// The system gives the number to the next one.
static int script_close(nkt_env *env, nkt_fd fd) {
    int index = script_index(fd);
    if (index >= 0) script.fds[index] = NKT_NO_FD;
    return probe_core_close(env, fd);
}

static int script_connect(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    int index = script_index(fd);
    (void)addr;
    (void)len;
    probe_enter(env, PROBE_CONNECT, &(int){ 0 });
    script.started[index] = probe_of(env)->now;
    return script.plans[index].after_ms == AT_ONCE ? script.plans[index].result : NKT_EAGAIN;
}

static int64_t script_due(int index) {
    const plan *what = &script.plans[index];
    return what->result == SILENT ? NKT_NEVER : script.started[index] + what->after_ms * PROBE_MS;
}

static int script_connect_result(nkt_env *env, nkt_fd fd) {
    int index = script_index(fd);
    probe_enter(env, PROBE_CONNECT_RESULT, &(int){ 0 });
    return probe_of(env)->now >= script_due(index) ? script.plans[index].result : NKT_EAGAIN;
}

static bool script_tells(int index) {
    return index >= 0 && !(script.hides_failures && script.plans[index].result != NKT_OK);
}

// Time moves to the next thing that happens, or to the end of the wait.
static int script_wait(nkt_env *env, nkt_watch *watches, size_t count, int64_t timeout_ns) {
    probe *p = probe_of(env);
    int64_t until = timeout_ns < 0 ? NKT_NEVER : p->now + timeout_ns;
    int ready = 0;
    probe_enter(env, PROBE_WAIT, &(int){ 0 });
    for (size_t i = 0; i < count; i++) {
        int index = script_index(watches[i].fd);
        if (!script_tells(index)) continue;
        CHECK_INT(watches[i].events, NKT_WRITE);
        if (script_due(index) < until) until = script_due(index);
    }
    if (!CHECK(until != NKT_NEVER)) until = p->now + 3600000 * PROBE_MS;
    if (until > p->now) p->now = until;
    for (size_t i = 0; i < count; i++) {
        int index = script_index(watches[i].fd);
        bool happened = script_tells(index) && script_due(index) <= p->now;
        watches[i].ready = happened ? watches[i].events : 0;
        ready += happened;
    }
    return ready;
}

static void script_begin(probe *p, plan ipv6, plan ipv4, int64_t start_ms) {
    probe_open(p);
    memset(&script, 0, sizeof script);
    script.plans[0] = ipv6;
    script.plans[1] = ipv4;
    script.fds[0] = script.fds[1] = NKT_NO_FD;
    p->core.open = script_open;
    p->core.close = script_close;
    p->core.connect = script_connect;
    p->core.connect_result = script_connect_result;
    p->core.wait = script_wait;
    p->fake = true;
    p->now = start_ms * PROBE_MS;
}

//------------------------------------------------------------------------------
// The race
//------------------------------------------------------------------------------

typedef struct race_row {
    const char *name;
    plan ipv6, ipv4;
    int32_t timeout_ms, delay_ms;
    int err;                // how the whole ends,
    int32_t elapsed_ms;     // and when
    int32_t second_ms;      // when the second attempt began
    int first_err, second_err;
} race_row;

static const race_row race_rows[] = {
    { "the first answers", { NKT_OK, 100 }, { NKT_OK, 1 }, 0, 0,
      NKT_OK, 100, NOT_STARTED, NKT_OK, 0 },
    { "the first connects at once", { NKT_OK, AT_ONCE }, { NKT_OK, 1 }, 0, 0,
      NKT_OK, 0, NOT_STARTED, NKT_OK, 0 },
    { "the first answers just in time", { NKT_OK, 249 }, { NKT_OK, 0 }, 0, 0,
      NKT_OK, 249, NOT_STARTED, NKT_OK, 0 },
    { "the first is silent: the second begins after 250 ms", { SILENT, 0 }, { NKT_OK, 10 }, 0, 0,
      NKT_OK, 260, 250, NKT_ECANCELED, NKT_OK },
    { "the first is slow and wins all the same", { NKT_OK, 400 }, { NKT_OK, 200 }, 0, 0,
      NKT_OK, 400, 250, NKT_OK, NKT_ECANCELED },
    { "the delay is an option", { SILENT, 0 }, { NKT_OK, 10 }, 0, 40,
      NKT_OK, 50, 40, NKT_ECANCELED, NKT_OK },
    { "the first fails: the second begins at once", { NKT_EREFUSED, 10 }, { NKT_OK, 10 }, 0, 0,
      NKT_OK, 20, 10, NKT_EREFUSED, NKT_OK },
    { "the first fails while the second is under way", { NKT_EREFUSED, 300 }, { NKT_OK, 200 },
      0, 0, NKT_OK, 450, 250, NKT_EREFUSED, NKT_OK },
    { "connect itself refuses", { NKT_ENETUNREACH, AT_ONCE }, { NKT_OK, 10 }, 0, 0,
      NKT_OK, 10, 0, NKT_ENETUNREACH, NKT_OK },
    { "no socket of that family", { NKT_EUNSUPPORTED, AT_ONCE }, { NKT_OK, 10 }, 0, 0,
      NKT_OK, 10, 0, NKT_EUNSUPPORTED, NKT_OK },
    { "bug 35: two winners at the same tick", { NKT_OK, 300 }, { NKT_OK, 50 }, 0, 0,
      NKT_OK, 300, 250, NKT_OK, NKT_ECANCELED },
    { "a winner and a loser at the same tick", { NKT_EREFUSED, 300 }, { NKT_OK, 50 }, 0, 0,
      NKT_OK, 300, 250, NKT_EREFUSED, NKT_OK },
    { "bug 35: all fail, refused says most", { NKT_EHOSTUNREACH, 100 }, { NKT_EREFUSED, 10 },
      0, 0, NKT_EREFUSED, 110, 100, NKT_EHOSTUNREACH, NKT_EREFUSED },
    { "all fail, the first was refused", { NKT_EREFUSED, 100 }, { NKT_ENETUNREACH, AT_ONCE },
      0, 0, NKT_EREFUSED, 100, 100, NKT_EREFUSED, NKT_ENETUNREACH },
    { "all fail, unreachable says more than a time-out", { NKT_ETIMEDOUT, 100 },
      { NKT_ENETUNREACH, AT_ONCE }, 0, 0,
      NKT_ENETUNREACH, 100, 100, NKT_ETIMEDOUT, NKT_ENETUNREACH },
    { "all fail at once", { NKT_EUNSUPPORTED, AT_ONCE }, { NKT_EACCES, AT_ONCE }, 0, 0,
      NKT_EACCES, 0, 0, NKT_EUNSUPPORTED, NKT_EACCES },
    { "both fail at the same tick", { NKT_EREFUSED, 300 }, { NKT_EHOSTUNREACH, 50 }, 0, 0,
      NKT_EREFUSED, 300, 250, NKT_EREFUSED, NKT_EHOSTUNREACH },
    { "both are silent until the deadline", { SILENT, 0 }, { SILENT, 0 }, 1000, 0,
      NKT_ETIMEDOUT, 1000, 250, NKT_ETIMEDOUT, NKT_ETIMEDOUT },
    { "the deadline comes before the second", { SILENT, 0 }, { NKT_OK, 0 }, 100, 0,
      NKT_ETIMEDOUT, 100, NOT_STARTED, NKT_ETIMEDOUT, 0 },
    { "an answer at the deadline", { SILENT, 0 }, { NKT_OK, 750 }, 1000, 0,
      NKT_OK, 1000, 250, NKT_ECANCELED, NKT_OK },
    { "one failed, one silent until the deadline", { NKT_EREFUSED, 5 }, { SILENT, 0 }, 1000, 0,
      NKT_ETIMEDOUT, 1000, 5, NKT_EREFUSED, NKT_ETIMEDOUT },
    { "thirty seconds unless asked for", { SILENT, 0 }, { NKT_OK, 40000 }, 0, 0,
      NKT_ETIMEDOUT, 30000, 250, NKT_ETIMEDOUT, NKT_ETIMEDOUT },
    { "no deadline", { SILENT, 0 }, { NKT_OK, 400000 }, -1, 0,
      NKT_OK, 400250, 250, NKT_ECANCELED, NKT_OK },
};

static void check_attempt(const nkt_attempt *attempt, int family, int err, int32_t start_ms) {
    nkt_ip ip = nkt_ip_loopback(family);
    CHECK(nkt_ip_equal(&attempt->addr.ip, &ip));
    CHECK_INT(attempt->addr.port, 7);
    CHECK_INT(attempt->err, err);
    CHECK_INT(attempt->start_ms, start_ms);
    CHECK(attempt->end_ms >= start_ms);
}

static void check_report(const nkt_connect_report *report, const race_row *row) {
    CHECK_INT(report->err, row->err);
    CHECK_INT(report->elapsed_ms, row->elapsed_ms);
    CHECK_INT(report->problem.err, 0);
    CHECK_INT(report->attempt_count, row->second_ms == NOT_STARTED ? 1 : 2);
    check_attempt(&report->attempts[0], NKT_IPV6, row->first_err, 0);
    if (row->second_ms != NOT_STARTED) {
        check_attempt(&report->attempts[1], NKT_IPV4, row->second_err, row->second_ms);
    }
    if (row->err < 0) {
        CHECK(strstr(report->text, "localhost:7") != NULL);
        CHECK(strstr(report->text, nkt_strerror(row->err)) != NULL);
        CHECK(strstr(report->text, "[::1]:7 (") != NULL);
        CHECK((strstr(report->text, "127.0.0.1:7 (") != NULL) == (row->second_ms >= 0));
    }
}

// Drives a nonblocking connect as somebody's own loop would.
static int drive(probe *p, nkt_conn *conn) {
    nkt_interest interest;
    for (int i = 0; i < 1000000; i++) {
        int err = nkt_connect_finish(conn);
        if (err != NKT_EAGAIN) return err;
        CHECK_INT(nkt_conn_watch(conn, NKT_READ, &interest), NKT_OK);
        if (interest.ready) continue;
        int64_t timeout = interest.deadline_ns == NKT_NEVER ? -1
                          : interest.deadline_ns > p->now ? interest.deadline_ns - p->now : 0;
        script_wait(&p->env, interest.watches, interest.count, timeout);
    }
    return NKT_EAGAIN;
}

static void race_blocking(const race_row *row, int64_t start_ms) {
    probe p;
    nkt_connect_report report, again;
    nkt_conn *conn = NULL;
    script_begin(&p, row->ipv6, row->ipv4, start_ms);
    nkt_connect_opts opts = connect_opts(&p);
    opts.timeout_ms = row->timeout_ms;
    opts.attempt_delay_ms = row->delay_ms;
    opts.report = &report;
    CHECK_INT(nkt_connect("localhost:7", &opts, &conn), row->err);
    CHECK_INT(p.now, (start_ms + row->elapsed_ms) * PROBE_MS);
    check_report(&report, row);
    // Whoever did not win is closed.
    CHECK_INT(p.descriptors - probe_calls(&p, PROBE_WAKE_OPEN), row->err == NKT_OK);
    if (row->err == NKT_OK && CHECK(conn != NULL)) {
        CHECK_INT(nkt_conn_descriptor(conn), script.fds[row->first_err != NKT_OK]);
        CHECK_INT(nkt_conn_report(conn, &again), NKT_OK);
        CHECK_MEM(&again, sizeof again, &report, sizeof report);
        nkt_conn_close(conn);
    } else {
        CHECK(conn == NULL);
    }
    probe_close(&p);
}

static void race_nonblocking(const race_row *row, int64_t start_ms) {
    probe p;
    nkt_connect_report report;
    nkt_conn *conn = NULL;
    char byte;
    script_begin(&p, row->ipv6, row->ipv4, start_ms);
    nkt_connect_opts opts = connect_opts(&p);
    opts.timeout_ms = row->timeout_ms;
    opts.attempt_delay_ms = row->delay_ms;
    opts.nonblocking = true;
    CHECK_INT(nkt_connect("localhost:7", &opts, &conn), NKT_OK);
    CHECK_INT(p.now, start_ms * PROBE_MS);
    CHECK_INT(drive(&p, conn), row->err);
    CHECK_INT(p.now, (start_ms + row->elapsed_ms) * PROBE_MS);
    CHECK_INT(nkt_conn_report(conn, &report), NKT_OK);
    check_report(&report, row);
    CHECK_INT(p.descriptors, row->err == NKT_OK);
    if (row->err < 0) {
        CHECK_INT(nkt_conn_read(conn, &byte, 1), row->err);
        CHECK_INT(nkt_conn_write(conn, "x", 1), row->err);
        CHECK_INT(nkt_conn_descriptor(conn), NKT_NO_FD);
    }
    nkt_conn_close(conn);
    probe_close(&p);
}

static void races(void) {
    static const int64_t starts[] = { 0, 2147483648LL - 5000, 4294967296LL - 5000,
                                      2147483648LL - 100, 4294967296LL - 100 };
    for (size_t i = 0; i < sizeof race_rows / sizeof race_rows[0]; i++) {
        TEST(race_rows[i].name) {
            for (size_t k = 0; k < sizeof starts / sizeof starts[0]; k++) {
                race_blocking(&race_rows[i], starts[k]);
                race_nonblocking(&race_rows[i], starts[k]);
            }
        }
    }
}

//------------------------------------------------------------------------------
// While it is under way
//------------------------------------------------------------------------------

static const plan silent = { SILENT, 0 };

static void under_way(void) {
    TEST("bug 35: closed with both attempts under way, nothing is left") {
        for (int abort = 0; abort < 2; abort++) {
            probe p;
            nkt_conn *conn = NULL;
            script_begin(&p, silent, silent, 0);
            nkt_connect_opts opts = connect_opts(&p);
            opts.nonblocking = true;
            CHECK_INT(nkt_connect("localhost:7", &opts, &conn), NKT_OK);
            CHECK_INT(p.descriptors, 1);
            p.now += 250 * PROBE_MS;
            CHECK_INT(nkt_connect_finish(conn), NKT_EAGAIN);
            CHECK_INT(p.descriptors, 2);
            CHECK_INT(nkt_conn_write_str(conn, "never sent"), NKT_OK);
            CHECK_INT(abort ? nkt_conn_abort(conn) : nkt_conn_close(conn), 10);
            CHECK_INT(p.descriptors, 0);
            probe_close(&p);
        }
    }
    TEST("the report while it is under way") {
        probe p;
        nkt_conn *conn = NULL;
        nkt_connect_report report;
        script_begin(&p, silent, silent, 0);
        nkt_connect_opts opts = connect_opts(&p);
        opts.nonblocking = true;
        opts.report = &report;
        CHECK_INT(nkt_connect("localhost:7", &opts, &conn), NKT_OK);
        CHECK_INT(report.err, NKT_EAGAIN);
        CHECK_INT(report.attempt_count, 1);
        CHECK_INT(report.attempts[0].err, NKT_EAGAIN);
        CHECK_INT(report.attempts[0].end_ms, -1);
        p.now += 300 * PROBE_MS;
        CHECK_INT(nkt_connect_finish(conn), NKT_EAGAIN);
        CHECK_INT(nkt_conn_report(conn, &report), NKT_OK);
        CHECK_INT(report.elapsed_ms, 300);
        CHECK_INT(report.attempt_count, 2);
        CHECK_INT(report.attempts[1].start_ms, 300);
        CHECK(strstr(report.text, "localhost:7") != NULL);
        nkt_conn_close(conn);
        probe_close(&p);
    }
}

static void started(void) {
    TEST("nkt_connect_start and nkt_connect_finish, with a signal in between") {
        probe p;
        nkt_conn *conn = NULL;
        plan late = { NKT_OK, 600 };
        script_begin(&p, late, silent, 0);
        nkt_connect_opts opts = connect_opts(&p);
        CHECK_INT(nkt_connect_start("localhost:7", &opts, &conn), NKT_OK);
        CHECK_INT(p.now, 0);
        p.core.wait = probe_core_wait;
        probe_fail(&p, PROBE_WAIT, NKT_EINTR, 1);
        CHECK_INT(nkt_connect_finish(conn), NKT_EINTR);
        p.core.wait = script_wait;
        CHECK_INT(nkt_connect_finish(conn), NKT_OK);
        CHECK_INT(p.now, 600 * PROBE_MS);
        CHECK_INT(nkt_connect_finish(conn), NKT_OK);
        nkt_conn_close(conn);
        // nkt_connect itself gives up, and leaves nothing.
        p.core.wait = probe_core_wait;
        probe_fail(&p, PROBE_WAIT, NKT_EINTR, 1);
        conn = NULL;
        CHECK_INT(nkt_connect("localhost:7", &opts, &conn), NKT_EINTR);
        CHECK(conn == NULL);
        probe_close(&p);
    }
    TEST("nkt_connect_wait waits for part of it") {
        probe p;
        nkt_conn *conn = NULL;
        plan late = { NKT_OK, 600 };
        script_begin(&p, late, silent, 0);
        nkt_connect_opts opts = connect_opts(&p);
        CHECK_INT(nkt_connect_start("localhost:7", &opts, &conn), NKT_OK);
        CHECK_INT(nkt_connect_wait(conn, 200), NKT_EAGAIN);
        CHECK_INT(p.now, 200 * PROBE_MS);
        CHECK_INT(nkt_connect_wait(conn, 0), NKT_EAGAIN);
        CHECK_INT(p.now, 200 * PROBE_MS);
        CHECK_INT(nkt_connect_wait(conn, 500), NKT_OK);
        CHECK_INT(p.now, 600 * PROBE_MS);
        CHECK_INT(nkt_connect_wait(conn, 0), NKT_OK);
        nkt_conn_close(conn);
        // Its own time-out is another matter.
        opts.timeout_ms = 100;
        CHECK_INT(nkt_connect_start("localhost:7", &opts, &conn), NKT_OK);
        CHECK_INT(nkt_connect_wait(conn, -1), NKT_ETIMEDOUT);
        CHECK_INT(p.now, 700 * PROBE_MS);
        nkt_conn_close(conn);
        probe_close(&p);
    }
    TEST("interrupted while it is under way") {
        probe p;
        nkt_conn *conn = NULL;
        char byte;
        script_begin(&p, silent, silent, 0);
        nkt_connect_opts opts = connect_opts(&p);
        CHECK_INT(nkt_connect_start("localhost:7", &opts, &conn), NKT_OK);
        nkt_conn_interrupt(conn);
        CHECK_INT(nkt_connect_finish(conn), NKT_ECANCELED);
        CHECK_INT(nkt_conn_read(conn, &byte, 1), NKT_ECANCELED);
        CHECK_INT(nkt_conn_write(conn, "x", 1), NKT_ECANCELED);
        nkt_conn_close(conn);
        probe_close(&p);
    }
}

static int allocation_that_fails;

static void *allocate_but_one(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    if (new_size != 0 && allocation_that_fails-- == 0) return NULL;
    return probe_allocate(env, ptr, old_size, new_size);
}

static void too_little(void) {
    TEST("no memory: each allocation fails once") {
        for (int n = 0; n < 4; n++) {
            probe p;
            nkt_conn *conn = NULL;
            plan good = { NKT_OK, 10 };
            script_begin(&p, good, silent, 0);
            nkt_connect_opts opts = connect_opts(&p);
            allocation_that_fails = n;
            p.env.allocate = allocate_but_one;
            int err = nkt_connect("localhost:7", &opts, &conn);
            // What was tried, and the wake-up, can be done without.
            if (n < 2) CHECK_INT(err, NKT_ENOMEM);
            else CHECK_INT(err, NKT_OK);
            CHECK((conn != NULL) == (err == NKT_OK));
            CHECK_INT(p.descriptors - probe_calls(&p, PROBE_WAKE_OPEN), err == NKT_OK);
            CHECK(allocation_that_fails < 0);
            nkt_conn_close(conn);
            probe_close(&p);
        }
    }
    TEST("no descriptors") {
        probe p;
        nkt_conn *conn = NULL;
        nkt_connect_report report;
        probe_open(&p);
        nkt_connect_opts opts = connect_opts(&p);
        opts.report = &report;
        probe_fail(&p, PROBE_OPEN, NKT_EMFILE, 2);
        CHECK_INT(nkt_connect("localhost:7", &opts, &conn), NKT_EMFILE);
        CHECK_INT(report.attempt_count, 2);
        CHECK_INT(report.attempts[0].err, NKT_EMFILE);
        CHECK_INT(report.attempts[1].err, NKT_EMFILE);
        probe_close(&p);
    }
    TEST("bug 26: a poll that hides failed connects is not relied upon") {
        probe p;
        nkt_conn *conn = NULL;
        plan refused = { NKT_EREFUSED, 30 };
        script_begin(&p, refused, refused, 0);
        script.hides_failures = true;
        nkt_connect_opts opts = connect_opts(&p);
        opts.timeout_ms = 5000;
        CHECK_INT(nkt_connect("localhost:7", &opts, &conn),
                  NKTI_CONNECT_RECHECK ? NKT_EREFUSED : NKT_ETIMEDOUT);
        // Elsewhere poll tells of failures, and nobody looks before.
        if (NKTI_CONNECT_RECHECK) CHECK_RANGE(p.now, 60 * PROBE_MS, 200 * PROBE_MS);
        probe_close(&p);
    }
}

#ifndef NETKIT_NO_THREADS
typedef struct interrupter {
    nkt_conn *conn;
    uint32_t done;
} interrupter;

static void interrupt(void *arg) {
    interrupter *i = (interrupter *)arg;
    nkt_conn_interrupt(i->conn);
    __atomic_store_n(&i->done, 1, __ATOMIC_SEQ_CST);
}

// Waits for real, and only for the wake-up, which is the last.
static int wait_for_wake(nkt_env *env, nkt_watch *watches, size_t count, int64_t timeout_ns) {
    (void)timeout_ns;
    return probe_system()->wait(env, &watches[count - 1], 1, PROBE_PATIENCE);
}

static void interrupted_by_thread(void) {
    TEST("a blocking connect is interrupted from another thread") {
        probe p;
        interrupter i;
        memset(&i, 0, sizeof i);
        script_begin(&p, silent, silent, 0);
        p.core.wait = wait_for_wake;
        nkt_connect_opts opts = connect_opts(&p);
        CHECK_INT(nkt_connect_start("localhost:7", &opts, &i.conn), NKT_OK);
        CHECK_INT(nkt_thread_start(&p.env, interrupt, &i), NKT_OK);
        CHECK_INT(nkt_connect_finish(i.conn), NKT_ECANCELED);
        while (__atomic_load_n(&i.done, __ATOMIC_SEQ_CST) == 0) probe_yield();
        nkt_conn_close(i.conn);
        probe_close(&p);
    }
}
#endif

//------------------------------------------------------------------------------
// On the loopback interface
//------------------------------------------------------------------------------

static void check_peer(nkt_conn *conn, int family, uint16_t port) {
    nkt_addr peer;
    nkt_ip loopback = nkt_ip_loopback(family);
    CHECK_INT(nkt_conn_peer(conn, &peer), NKT_OK);
    CHECK(nkt_ip_equal(&peer.ip, &loopback));
    CHECK_INT(peer.port, port);
}

static void localhost(void) {
    // "localhost" to listeners on IPv6, IPv4, or both: who gets it.
    static const struct { const char *name, *listens; int family; } rows[] = {
        { "localhost takes IPv6 where there are both", "localhost:0", NKT_IPV6 },
        { "localhost falls to IPv4 where only that listens", "127.0.0.1:0", NKT_IPV4 },
        { "localhost takes IPv6 where only that listens", "[::1]:0", NKT_IPV6 },
    };
    for (int i = 0; i < 3; i++) {
        TEST(rows[i].name) {
            probe p;
            nkt_addr addr;
            nkt_conn *conn = NULL;
            nkt_connect_report report;
            char target[40];
            if (!has_ipv6()) {
                TEST_SKIP("this host has no IPv6; switch it on");
                continue;
            }
            probe_open(&p);
            nkt_listener *listener = listen_on(&p, rows[i].listens, &addr);
            nkt_connect_opts opts = connect_opts(&p);
            opts.report = &report;
            snprintf(target, sizeof target, "localhost:%d", addr.port);
            CHECK_INT(nkt_connect(target, &opts, &conn), NKT_OK);
            check_peer(conn, rows[i].family, addr.port);
            CHECK_INT(report.err, NKT_OK);
            CHECK_INT(report.attempt_count, rows[i].family == NKT_IPV4 ? 2 : 1);
            if (rows[i].family == NKT_IPV4) {
                CHECK_INT(report.attempts[0].err, NKT_EREFUSED);
                CHECK(report.attempts[0].os_error != 0);
                CHECK_INT(report.attempts[1].err, NKT_OK);
                // Not 250 ms after the first, but as soon as that failed.
                CHECK_RANGE(report.attempts[1].start_ms, 0, 240);
            }
            nkt_conn_close(conn);
            // By its own name and by another one, without a port of its own.
            opts.default_port = addr.port;
            CHECK_INT(nkt_connect("LocalHost", &opts, &conn), NKT_OK);
            nkt_conn_close(conn);
            CHECK_INT(nkt_connect("x.localhost.", &opts, &conn), NKT_OK);
            nkt_conn_close(conn);
            nkt_listener_close(listener);
            probe_close(&p);
        }
    }
}

static void addresses(void) {
    TEST("by address, as text and as a value") {
        probe p;
        nkt_addr addr, wrong;
        nkt_conn *conn = NULL;
        char target[NKT_ADDR_TEXT_MAX];
        int64_t nodelay = 0;
        probe_open(&p);
        nkt_listener *listener = listen_on(&p, "127.0.0.1:0", &addr);
        nkt_connect_opts opts = connect_opts(&p);
        CHECK(nkt_addr_format(&addr, target, sizeof target) > 0);
        CHECK_INT(nkt_connect(target, &opts, &conn), NKT_OK);
        check_peer(conn, NKT_IPV4, addr.port);
        CHECK_INT(p.core.get_option(&p.env, nkt_conn_descriptor(conn), NKT_SO_NODELAY, &nodelay),
                  NKT_OK);
        CHECK(nodelay != 0);
        nkt_conn_close(conn);
        CHECK_INT(nkt_connect_addr(&addr, &opts, &conn), NKT_OK);
        check_peer(conn, NKT_IPV4, addr.port);
        nkt_conn_close(conn);
        conn = NULL;
        memset(&wrong, 0, sizeof wrong);
        CHECK_INT(nkt_connect_addr(NULL, &opts, &conn), NKT_EADDR);
        CHECK_INT(nkt_connect_addr(&wrong, &opts, &conn), NKT_EADDR);
        wrong = addr;
        wrong.port = 0;
        CHECK_INT(nkt_connect_addr(&wrong, &opts, &conn), NKT_EPORT);
        CHECK(conn == NULL);
        nkt_listener_close(listener);
        probe_close(&p);
    }
    TEST("refused: what the report says") {
        probe p;
        nkt_addr addr;
        nkt_conn *conn = NULL;
        nkt_connect_report report;
        char target[NKT_ADDR_TEXT_MAX], want[400];
        probe_open(&p);
        nkt_listener_close(listen_on(&p, "127.0.0.1:0", &addr));
        CHECK(nkt_addr_format(&addr, target, sizeof target) > 0);
        nkt_connect_opts opts = connect_opts(&p);
        opts.report = &report;
        CHECK_INT(nkt_connect(target, &opts, &conn), NKT_EREFUSED);
        CHECK_INT(report.err, NKT_EREFUSED);
        CHECK(report.os_error != 0);
        CHECK_INT(report.attempt_count, 1);
        CHECK(nkt_addr_equal(&report.attempts[0].addr, &addr));
        CHECK_INT(report.attempts[0].os_error, report.os_error);
        snprintf(want, sizeof want,
                 "cannot connect to %s in %d ms: connection refused: nothing listens there; "
                 "tried %s (connection refused, %d ms)", target, report.elapsed_ms, target,
                 report.attempts[0].end_ms);
        CHECK_STR(report.text, want);
        probe_close(&p);
    }
    TEST("an adopted connection has no report") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        nkt_connect_report report;
        probe_open(&p);
        probe_tcp(&p, true, false, &near_end, &far_end);
        CHECK_INT(nkt_conn_report(near_end, &report), NKT_ENOTFOUND);
        CHECK_INT(nkt_conn_report(far_end, &report), NKT_ENOTFOUND);
        CHECK_INT(nkt_connect_finish(near_end), NKT_OK);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
}

// Nonblocking, without a poller: only the descriptors are waited for.
static void nonblocking(void) {
    TEST("nonblocking: what is written before it is connected arrives") {
        probe p;
        nkt_addr addr;
        nkt_conn *conn = NULL, *peer = NULL;
        nkt_interest interest;
        nkt_str line;
        probe_open(&p);
        nkt_listener *listener = listen_on(&p, "127.0.0.1:0", &addr);
        nkt_connect_opts opts = connect_opts(&p);
        opts.nonblocking = true;
        CHECK_INT(nkt_connect_addr(&addr, &opts, &conn), NKT_OK);
        CHECK_INT(nkt_conn_write_str(conn, "early "), NKT_OK);
        CHECK_INT(nkt_conn_write_str(conn, "bird\n"), NKT_OK);
        CHECK_INT(nkt_conn_shutdown_write(conn), NKT_OK);
        CHECK_INT(nkt_conn_write_str(conn, "late"), NKT_EPIPE);
        int err = NKT_EAGAIN;
        for (int i = 0; i < 1000 && err == NKT_EAGAIN; i++) {
            err = nkt_conn_flush(conn);
            if (err != NKT_EAGAIN) break;
            CHECK_INT(nkt_conn_watch(conn, NKT_WRITE, &interest), NKT_OK);
            if (!interest.ready) {
                CHECK(interest.count > 0);
                probe_system()->wait(&p.env, interest.watches, interest.count, PROBE_PATIENCE);
            }
        }
        CHECK_INT(err, NKT_OK);
        CHECK_INT(nkt_accept(listener, &peer), NKT_OK);
        CHECK_INT(nkt_conn_read_line(peer, &line), NKT_OK);
        CHECK_VIEW(line, "early bird");
        CHECK_INT(nkt_conn_read_line(peer, &line), NKT_EOF);
        nkt_conn_close(peer);
        nkt_conn_close(conn);
        nkt_listener_close(listener);
        probe_close(&p);
    }
    TEST("nonblocking and refused: the next call says so") {
        probe p;
        nkt_addr addr;
        nkt_conn *conn = NULL;
        nkt_interest interest;
        nkt_str line;
        probe_open(&p);
        nkt_listener_close(listen_on(&p, "127.0.0.1:0", &addr));
        nkt_connect_opts opts = connect_opts(&p);
        opts.nonblocking = true;
        CHECK_INT(nkt_connect_addr(&addr, &opts, &conn), NKT_OK);
        CHECK_INT(nkt_conn_watch(conn, NKT_READ, &interest), NKT_OK);
        if (!interest.ready) {
            CHECK_INT(interest.count, 1);
            CHECK(probe_system()->wait(&p.env, interest.watches, 1, PROBE_PATIENCE) > 0);
        }
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EREFUSED);
        CHECK(nkt_conn_os_error(conn) != 0);
        CHECK_INT(nkt_conn_write_str(conn, "x"), NKT_EREFUSED);
        CHECK_INT(nkt_connect_finish(conn), NKT_EREFUSED);
        nkt_conn_close(conn);
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// Arguments
//------------------------------------------------------------------------------

static const struct bad_row {
    const char *target;
    int err;
    const char *field;
} bad_rows[] = {
    { NULL, NKT_EINVAL, "target" },
    { "", NKT_ENAME, NULL },
    { ":80", NKT_EADDR, "address" },
    { "localhost", NKT_EPORT, "port" },
    { "localhost:", NKT_EPORT, "port" },
    { "localhost:0", NKT_EPORT, "port" },
    { "localhost:65536", NKT_EPORT, "port" },
    { "localhost:080", NKT_EPORT, "port" },
    { "localhost: 80", NKT_EPORT, "port" },
    { "127.0.0.1:8o", NKT_EPORT, "port" },
    { "127.0.0.256:80", NKT_EADDR, "address" },
    { "127.1:80", NKT_EADDR, "address" },
    { "010.0.0.1:80", NKT_EADDR, "address" },
    { "::1:80", NKT_EAMBIGUOUS, "address" },
    { "[::1:80", NKT_EADDR, "address" },
    { "[fe80::1%nonexistent0]:80", NKT_ENODEV, NULL },
    { "a..b:80", NKT_ENAME, "host" },
    { "-a.b:80", NKT_ENAME, "host" },
    { ".1:80", NKT_ENAME, "host" },
    { "h\xc3\xb6st:80", NKT_EUNSUPPORTED, "host" },
};

static void bad_arguments(void) {
    for (size_t i = 0; i < sizeof bad_rows / sizeof bad_rows[0]; i++) {
        const struct bad_row *row = &bad_rows[i];
        char test_name[80];
        snprintf(test_name, sizeof test_name, "refused: \"%s\"",
                 row->target != NULL ? row->target : "NULL");
        TEST(test_name) {
            for (int face = 0; face < 3; face++) {
                probe p;
                nkt_connect_report report;
                nkt_conn *conn = NULL;
                probe_open(&p);
                nkt_connect_opts opts = connect_opts(&p);
                memset(&report, 0xAA, sizeof report);
                opts.report = &report;
                opts.nonblocking = face == 1;
                CHECK_INT(face == 2 ? nkt_connect_start(row->target, &opts, &conn)
                                    : nkt_connect(row->target, &opts, &conn), row->err);
                CHECK_INT(report.err, row->err);
                CHECK_INT(report.problem.err, row->err);
                CHECK_INT(report.attempt_count, 0);
                if (row->field != NULL) CHECK_STR(report.problem.field, row->field);
                CHECK(report.problem.text[0] != '\0');
                CHECK(strstr(report.text, report.problem.text) != NULL);
                CHECK(conn == NULL);
                CHECK_INT(probe_calls(&p, PROBE_OPEN), 0);
                probe_close(&p);
            }
        }
    }
}

static void bad_options(void) {
    TEST("refused options") {
        probe p;
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        probe_open(&p);
        for (int i = 0; i < 6; i++) {
            static const char *const fields[] = { "line_max", "message_max", "queue_max",
                                                  "send_buffer, recv_buffer", "interface_name",
                                                  "default_port" };
            static const int errors[] = { NKT_EINVAL, NKT_EINVAL, NKT_EINVAL, NKT_EINVAL,
                                          NKT_ENODEV, NKT_EPORT };
            nkt_connect_opts opts = connect_opts(&p);
            opts.report = &report;
            if (i == 0) opts.stream.line_max = 0x7fff0001u;
            if (i == 1) opts.stream.message_max = 0xffffffffu;
            if (i == 2) opts.stream.queue_max = 0x7fff0001u;
            if (i == 3) opts.stream.recv_buffer = -1;
            if (i == 4) opts.interface_name = "nonexistent0";
            if (i == 5) opts.default_port = 65536;
            CHECK_INT(nkt_connect("127.0.0.1:7", &opts, &conn), errors[i]);
            CHECK_INT(report.problem.err, errors[i]);
            CHECK_STR(report.problem.field, fields[i]);
        }
        CHECK_INT(probe_calls(&p, PROBE_OPEN), 0);
        CHECK(conn == NULL);
        probe_close(&p);
    }
    TEST("an environment that is none") {
        nkt_env env;
        nkt_connect_opts opts;
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        memset(&env, 0, sizeof env);
        memset(&opts, 0, sizeof opts);
        opts.env = &env;
        opts.report = &report;
        CHECK_INT(nkt_connect("127.0.0.1:7", &opts, &conn), NKT_EINVAL);
        CHECK_STR(report.problem.field, "env");
    }
#ifdef __linux__
    TEST("through one interface") {
        probe p;
        nkt_addr addr;
        nkt_conn *conn = NULL;
        probe_open(&p);
        nkt_listener *listener = listen_on(&p, "127.0.0.1:0", &addr);
        nkt_connect_opts opts = connect_opts(&p);
        opts.interface_name = "lo";
        int err = nkt_connect_addr(&addr, &opts, &conn);
        if (err == NKT_EACCES) {
            TEST_SKIP("older kernels want root for that; run the test as root");
        } else if (CHECK_INT(err, NKT_OK)) {
            check_peer(conn, NKT_IPV4, addr.port);
            nkt_conn_close(conn);
        }
        nkt_listener_close(listener);
        probe_close(&p);
    }
#endif
}

int main(void) {
    races();
    under_way();
    started();
    too_little();
#ifndef NETKIT_NO_THREADS
    interrupted_by_thread();
#endif
    localhost();
    addresses();
    nonblocking();
    bad_arguments();
    bad_options();
    return test_finish();
}
