// test_fault_race_posix.c - the race for a connection, and every call fails in turn
//
// Each row of race_table.h is raced in both faces, first as it is, then again
// and again: the Nth call of one entry of the system's tables, of the allocator
// or of the resolver fails, once or from then on, until a race makes no Nth
// call. Calls are counted on all threads, those that look up included. What the
// network does is a script on a false clock, so a race takes no time.
//
// What must hold: it ends in its time, with the row's own result, with the
// injected error, or with one that the report tells of an attempt or a look-up;
// nothing is left open, allocated or running; the output is there or untouched.
//
//     test_fault_race_posix                   some rows; -DFAULT_ALL: every row

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "race_table.h"
#include "fault_pool.h"

#define ROW_COUNT (sizeof rows / sizeof rows[0])

#define ENTRIES(X)                                                                       \
    X(allocate, NKT_ENOMEM)                                                              \
    X(open, NKT_EMFILE, NKT_ENOMEM, NKT_EUNSUPPORTED, NKT_EOS)                           \
    X(close, NKT_EINTR, NKT_EOS)                                                         \
    X(bind, NKT_EADDRNOTAVAIL, NKT_EACCES, NKT_EOS)                                      \
    X(connect, NKT_EREFUSED, NKT_ENETUNREACH, NKT_EACCES, NKT_ENOMEM, NKT_EOS)           \
    X(connect_result, NKT_EREFUSED, NKT_ETIMEDOUT, NKT_ERESET, NKT_EOS)                  \
    X(set_option, NKT_EINVAL, NKT_EOS)                                                   \
    X(local_name, NKT_EOS)                                                               \
    X(peer_name, NKT_ENOTCONN)                                                           \
    X(wait, NKT_EINTR, NKT_ENOMEM, NKT_EOS)                                              \
    X(wake_open, NKT_EMFILE, NKT_ENOMEM)                                                 \
    X(start, NKT_ENOMEM, NKT_EUNSUPPORTED)                                               \
    X(resolve, NKT_ELOOKUP, NKT_ENOTFOUND, NKT_ENOMEM)

FAULT_TABLE(ENTRIES)

static struct {
    int entry, err;             // entry -1: nothing fails
    long n;
    bool for_good;
    long calls[F_COUNT];        // atomic
    int fired;                  // atomic
    nkt_sys_core base, core;
    nkt_sys_threads threads;
    int failed_runs;
} fault;

static int enter(int entry) {
    long n = __atomic_add_fetch(&fault.calls[entry], 1, __ATOMIC_SEQ_CST);
    if (entry != fault.entry || n < fault.n || (n > fault.n && !fault.for_good)) return NKT_OK;
    __atomic_store_n(&fault.fired, 1, __ATOMIC_SEQ_CST);
    return fault.err;
}

#define PLAIN(name, declaration, call)                                                   \
    static int fault_##name declaration {                                                \
        int err = enter(F_##name);                                                       \
        return err < 0 ? err : fault.base.name call;                                     \
    }
PLAIN(open, (nkt_env *env, int family, int type, nkt_fd *fd), (env, family, type, fd))
PLAIN(bind, (nkt_env *env, nkt_fd fd, const void *addr, size_t len), (env, fd, addr, len))
PLAIN(connect, (nkt_env *env, nkt_fd fd, const void *addr, size_t len), (env, fd, addr, len))
PLAIN(connect_result, (nkt_env *env, nkt_fd fd), (env, fd))
PLAIN(set_option, (nkt_env *env, nkt_fd fd, int option, int64_t value), (env, fd, option, value))
PLAIN(local_name, (nkt_env *env, nkt_fd fd, void *name, size_t *len), (env, fd, name, len))
PLAIN(peer_name, (nkt_env *env, nkt_fd fd, void *name, size_t *len), (env, fd, name, len))
PLAIN(wait, (nkt_env *env, nkt_watch *watches, size_t count, int64_t timeout_ns),
      (env, watches, count, timeout_ns))
PLAIN(wake_open, (nkt_env *env, nkt_wake *wake), (env, wake))

static int fault_close(nkt_env *env, nkt_fd fd) {
    int err = enter(F_close);
    int result = fault.base.close(env, fd);
    return err < 0 ? err : result;
}

static int fault_start_thread(nkt_env *env, void (*run)(void *arg), void *arg) {
    int err = enter(F_start);
    return err < 0 ? err : nkt_sys_threads_default()->start(env, run, arg);
}

static void *fault_allocate(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && enter(F_allocate) < 0) return NULL;
    return probe_allocate(env, ptr, old_size, new_size);
}

static int fault_resolve(nkt_env *env, const char *host, int family, nkt_ip *ips, int cap) {
    int err = enter(F_resolve);
    return err < 0 ? err : fakenet_resolve(env, host, family, ips, cap);
}

static void fault_under(nkt_env *env) {
    fault.base = *env->core;
    fault.core = fault.base;
#define SET(name) fault.core.name = fault_##name
    SET(open); SET(close); SET(bind); SET(connect); SET(connect_result); SET(set_option);
    SET(local_name); SET(peer_name); SET(wait); SET(wake_open);
#undef SET
    fault.threads = *nkt_sys_threads_default();
    fault.threads.start = fault_start_thread;
    env->core = &fault.core;
    env->threads = &fault.threads;
    env->allocate = fault_allocate;
    env->resolve = fault_resolve;
}

//------------------------------------------------------------------------------
// One race

static bool is_told(const nkt_connect_report *report, int err) {
    bool told = false;
    int count = report->attempt_count < NKT_ATTEMPTS_MAX ? report->attempt_count
                                                         : NKT_ATTEMPTS_MAX;
    for (int i = 0; i < count; i++) told = told || report->attempts[i].err == err;
    return told || report->lookup_err[0] == err || report->lookup_err[1] == err;
}

static void check_outcome(const race_row *row, int err, const nkt_connect_report *report,
                          nkt_conn *conn) {
    nkt_addr addr;
    int limit_ms = row->timeout_ms > 0 ? row->timeout_ms : 30000;
    CHECK_RANGE((fakenet.p.now - fakenet.start) / PROBE_MS, 0, limit_ms);
    CHECK_INT(report->err, err);
    CHECK_RANGE(report->attempt_count, 0, 8);
    if (err == NKT_OK && CHECK(conn != NULL)) {
        int named = nkt_conn_peer(conn, &addr);
        if (fault.entry != F_peer_name) CHECK_INT(named, NKT_OK);
        CHECK_INT(nkt_conn_write_str(conn, "x"), NKT_OK);
    } else {
        // Where one answer never comes, the other may take all the time.
        bool in_vain = err == NKT_ETIMEDOUT &&
                       fakenet.p.now - fakenet.start == limit_ms * PROBE_MS;
        CHECK(err == row->err || err == fault.err || in_vain || is_told(report, err));
        CHECK(strlen(report->text) > 0);
    }
}

static bool race_once(const race_row *row, bool nonblocking) {
    nkt_connect_report report;
    nkt_conn *conn = NULL;
    nkt_connect_opts opts = begin(row, 0);
    fault_under(opts.env);
    memset(fault.calls, 0, sizeof fault.calls);
    fault.fired = 0;
    // One look-up behind the other, or over before the script says so.
    fakenet.starved = fault.entry == F_start || fault.entry == F_resolve;
    memset(&report, 0, sizeof report);
    opts.report = nonblocking ? NULL : &report;
    opts.nonblocking = nonblocking;
    nkt_test.checks = nkt_test.failures = 0;
    fault_mine->since_ns = nkt_now_ns(NULL);
    int err = nkt_connect("example.org:80", &opts, &conn);
    if (err < 0) {
        CHECK(conn == NULL);
        if (nonblocking) CHECK(err == fault.err);
        else check_outcome(row, err, &report, NULL);
    } else if (nonblocking) {
        err = fakenet_drive(conn);
        int reported = nkt_conn_report(conn, &report);
        // There was no memory to keep it.
        bool lost = fault.entry == F_allocate && fault.fired != 0 && reported == NKT_ENOTFOUND;
        if (!lost && CHECK_INT(reported, NKT_OK)) check_outcome(row, err, &report, conn);
    } else {
        check_outcome(row, err, &report, conn);
    }
    nkt_conn_close(conn);
    fakenet_close();
    fault_mine->since_ns = 0;
    fault_mine->runs++;
    if (fault.fired != 0 && err == fault.err) fault_mine->told++;
    else if (fault.fired != 0) fault_mine->absorbed++;
    return fault.fired != 0;
}

static bool inject(const race_row *row, bool nonblocking, int entry, int err, long n,
                   bool for_good) {
    fault.entry = entry;
    fault.err = err;
    fault.n = n;
    fault.for_good = for_good;
    snprintf(fault_mine->doing, sizeof fault_mine->doing, "%s / %s: %s %ld %s %s", row->name,
             nonblocking ? "nonblocking" : "blocking", entries[entry].name, n, nkt_errname(err),
             for_good ? "for good" : "once");
    snprintf(nkt_test.name, sizeof nkt_test.name, "%.159s", fault_mine->doing);
    bool fired = race_once(row, nonblocking);
    if (fired) fault_mine->made[entry]++;
    if (nkt_test.failures > 0) {
        fault.failed_runs++;
        printf("FAILED %s\n", fault_mine->doing);
    }
    return fired;
}

static void inject_all(const race_row *row, bool nonblocking, int entry) {
    for (int k = 0; k < 8 && entries[entry].errors[k] != 0; k++) {
        for (int for_good = 0; for_good < 2; for_good++) {
            for (long n = 1; n < 1000 && fault.failed_runs < 20; n++) {
                if (!inject(row, nonblocking, entry, entries[entry].errors[k], n,
                            for_good != 0)) break;
            }
        }
    }
}

static void name_of(int i, char *name, size_t cap) {
    snprintf(name, cap, "%s / %s", rows[i / 2].name, i % 2 == 1 ? "nonblocking" : "blocking");
}

static int run_task(int i) {
    long plain[F_COUNT];
    const race_row *row = &rows[i / 2];
    bool nonblocking = i % 2 == 1;
    fault.entry = -1;
    snprintf(nkt_test.name, sizeof nkt_test.name, "%s: nothing fails", row->name);
    race_once(row, nonblocking);
    if (nkt_test.failures > 0) return 1;
    memcpy(plain, fault.calls, sizeof plain);
    for (int e = 0; e < F_COUNT; e++) {
        if (plain[e] > 0) inject_all(row, nonblocking, e);
    }
    return fault.failed_runs > 0;
}

int main(void) {
    const char *names[F_COUNT];
    int64_t since = nkt_now_ns(NULL);
    for (int e = 0; e < F_COUNT; e++) names[e] = entries[e].name;
#ifdef FAULT_ALL
    int count = (int)(2 * ROW_COUNT);
#else
    int count = 4;
#endif
    fault_pool(count, name_of, run_task);
    fault_print(names, F_COUNT, since);
    return test_finish();
}
