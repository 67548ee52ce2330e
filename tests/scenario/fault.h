// fault.h - the rows of a table, and every call of the system fails in turn
//
// A task, which is a row of a table on a face, is run once to count its calls
// of the system and of the allocator, then again and again: in each run the Nth
// call of one entry fails with one error, once or from then on, until a run
// makes no Nth call. The errors are those that the entry may give; a call may
// also move one byte only, and a close that fails has closed. Only calls of the
// tested end fail, those made while `scene_tested` is set.
//
// What must hold in each run:
//   - it ends: no crash, no hang (a watchdog names the run);
//   - no memory, and no descriptor, is left, and sizes come back as given;
//   - the first check that differs from the row has got the injected failure,
//     or is one that a row of the program's table of excuses takes for it. Each
//     of those has a name, a reason and a count that is printed; there is no
//     other way for a failure to go untold and to change a result;
//   - what may pass (NKT_EINTR, NKT_ENOMEM, NKT_EAGAIN, one byte) and happened
//     once, leaves the row whole when the call is made again;
//   - after the error the handle takes other calls, and closes.
//
//     -DFAULT_ALL                 every row; without it some rows
//     NKT_TEST_ONLY="line / tcp"  the tasks with this in their names
//     NKT_FAULT="row / face: recv 3 NKT_EINTR once"       that run alone
//
// Of the calls of one entry the first 40, the first two of every call path,
// powers of two and the last two are made to fail, which is all of them but in
// rows of very many. In rows that wait or move megabytes it is two, one of
// every call path and the last, "for good" with one error of each entry. The
// last lines say how many injections were made, how many changed nothing, how
// many calls were left out and how often each excuse was taken.
//
// Include after netkit.h with its implementation and after the rows and faces.
// The program fills `tasks`, and gives the other functions task_x() and
// the table `excuses`.

#ifndef NKT_TEST_FAULT_H
#define NKT_TEST_FAULT_H

#include "fault_pool.h"

#include <fcntl.h>
#include <poll.h>
#ifdef __GLIBC__
    #include <execinfo.h>
#endif

#ifdef FAULT_ALL
enum { EVERY_ROW = 1 };
#else
enum { EVERY_ROW = 0 };
#endif

//------------------------------------------------------------------------------
// Tasks: a row on a face

enum { OWN_MAX = 8 };           // rows of the program's own, beside the table's

typedef struct fault_task {
    const row *r;
    const face *f;
} fault_task;

static fault_task tasks[(ROW_COUNT + OWN_MAX) * FACE_COUNT];

static void task_name(int i, char *name, size_t cap) {
    snprintf(name, cap, "%s / %s", tasks[i].r->name, tasks[i].f->name);
}

static bool task_is_slow(int i) {
    return (tasks[i].r->needs & SLOW) != 0;
}

//------------------------------------------------------------------------------
// What can fail, and how

enum { ONE = -100 };            // no error: the call moves one byte, or one datagram

#define ENTRIES(X)                                                                       \
    X(allocate, NKT_ENOMEM)                                                              \
    X(open, NKT_EMFILE, NKT_ENOMEM, NKT_EOS)                                             \
    X(close, NKT_EINTR, NKT_EOS)                                                         \
    X(bind, NKT_EADDRINUSE, NKT_EACCES, NKT_EOS)                                         \
    X(listen, NKT_EADDRINUSE, NKT_EOS)                                                   \
    X(accept, NKT_EINTR, NKT_EAGAIN, NKT_EABORTED, NKT_EMFILE, NKT_ENOMEM, NKT_EOS)      \
    X(connect, NKT_EREFUSED, NKT_ENETUNREACH, NKT_ENOMEM, NKT_EOS)                       \
    X(connect_result, NKT_EREFUSED, NKT_ETIMEDOUT, NKT_EAGAIN, NKT_EOS)                  \
    X(recv, NKT_EINTR, NKT_EAGAIN, ONE, NKT_ENOMEM, NKT_ERESET, NKT_EOS)                 \
    X(recv_wait, NKT_EINTR, ONE, NKT_ENOMEM, NKT_ERESET, NKT_EOS)                        \
    X(send, NKT_EINTR, NKT_EAGAIN, ONE, NKT_ENOMEM, NKT_ERESET, NKT_EPIPE, NKT_EOS)      \
    X(shutdown, NKT_ENOTCONN, NKT_EOS)                                                   \
    X(set_option, NKT_EINVAL, NKT_EOS)                                                   \
    X(get_option, NKT_EOS)                                                               \
    X(bind_interface, NKT_ENODEV)                                                        \
    X(local_name, NKT_EOS)                                                               \
    X(peer_name, NKT_ENOTCONN)                                                           \
    X(tcp_info, NKT_EUNSUPPORTED)                                                        \
    X(set_blocking, NKT_EOS)                                                             \
    X(unlink, NKT_EACCES)                                                                \
    X(wait, NKT_EINTR, NKT_ENOMEM, NKT_EOS)                                              \
    X(wake_open, NKT_EMFILE, NKT_ENOMEM)                                                 \
    X(random, NKT_EOS)                                                                   \
    X(poll_open, NKT_EMFILE, NKT_ENOMEM)                                                 \
    X(poll_set, NKT_ENOMEM, NKT_EOS)                                                     \
    X(poll_wait, NKT_EINTR, NKT_ENOMEM, NKT_EOS)                                         \
    X(udp_set, NKT_EUNSUPPORTED, NKT_EINVAL)                                             \
    X(udp_get, NKT_EOS)                                                                  \
    X(udp_recv, NKT_EINTR, NKT_EAGAIN, ONE, NKT_ENOMEM, NKT_EOS)                         \
    X(udp_send, NKT_EINTR, NKT_EAGAIN, ONE, NKT_ENOMEM, NKT_ENETUNREACH, NKT_EOS)        \
    X(udp_member, NKT_ENOMEM, NKT_EOS)                                                   \
    X(net_list, NKT_ENOMEM, NKT_EOS)                                                     \
    X(net_watch, NKT_EMFILE, NKT_EUNSUPPORTED)

FAULT_TABLE(ENTRIES)

enum { PATHS_MAX = 256, KEPT_MAX = 512 };

typedef struct call_path {
    uint64_t hash;
    int seen;
} call_path;

// What the first run has found of one entry.
typedef struct census {
    long count;
    long kept[KEPT_MAX];        // the calls that are to fail
    int kept_count;
    call_path paths[PATHS_MAX];
    int path_count;
} census;

static struct {
    bool on, counting;
    bool slow;                  // the row waits, or moves megabytes
    long first;                 // so many calls of an entry fail in any case
    int task;
    int entry, err;
    long n;                     // which call
    bool for_good;
    long calls[F_COUNT];
    bool fired;
    int option;                 // which one set_option has refused
    bool told;                  // a call has returned the failure, or an excuse holds
    bool broken;                // the row has noticed and is led to its end
    int hard;                   // checks that nothing excuses
    int agains;
    const nkt_sys_core *base;
    nkt_sys_core core;
    const nkt_sys_poll *poll_base;
    nkt_sys_poll poll;
    const nkt_sys_udp *udp_base;
    nkt_sys_udp udp;
    const nkt_sys_net *net_base;
    nkt_sys_net net;
    void *(*allocate_base)(nkt_env *env, void *ptr, size_t old_size, size_t new_size);
} fault;

static census found[F_COUNT];

// A failure that need not be told, or is told in another way than by its code.
typedef struct excuse_row {
    const char *name;
    int entry;                  // F_COUNT = any
    int err;                    // 0 = any
    // Whether the check is one of those: of its kind and what it has got, see
    // nkt_test.h.
    bool (*holds)(int kind, long long got);
} excuse_row;

// What the program gives: a task's name, "row / face"; whether its row is slow;
// one run of it, made with `fault.on` and `scene_tested` around what is tested;
// how to let go who waits, once a failure has been told; and whether any of its
// rows calls an entry.
static void task_run(int task);
static void task_break(void);
static bool task_calls(int entry);
static void task_prepare(void);     // once in each process, before its first run

static bool transient(int err) {
    return err == NKT_EINTR || err == NKT_EAGAIN || err == NKT_ENOMEM || err == ONE;
}

//------------------------------------------------------------------------------
// Counting and failing

static uint64_t call_path_hash(void) {
    uint64_t hash = 1469598103934665603u;
#ifdef __GLIBC__
    void *frames[24];
    int count = backtrace(frames, 24);
    for (int i = 2; i < count; i++) hash = (hash ^ (uint64_t)(uintptr_t)frames[i]) * 1099511628211u;
#endif
    return hash;
}

static void keep(census *c, long n) {
    if (c->kept_count < KEPT_MAX) c->kept[c->kept_count++] = n;
}

// In the first run: whether the call is one of those that will fail.
static void take_census(int entry, long n) {
    census *c = &found[entry];
    c->count = n;
    bool wanted = n <= fault.first || (!fault.slow && (n & (n - 1)) == 0);
    if (n <= 20000) {
        uint64_t hash = call_path_hash();
        int i = 0;
        while (i < c->path_count && c->paths[i].hash != hash) i++;
        if (i < PATHS_MAX && i == c->path_count) {
            c->paths[c->path_count].hash = hash;
            c->paths[c->path_count++].seen = 0;
        }
        if (i < PATHS_MAX && ++c->paths[i].seen <= (fault.slow ? 1 : 2)) wanted = true;
    }
    if (wanted) keep(c, n);
}

// Counts a call. Gives NKT_OK, or how it is to fail.
static int enter(int entry) {
    if (!fault.on || !scene_tested) return NKT_OK;
    long n = ++fault.calls[entry];
    if (fault.counting) {
        take_census(entry, n);
        return NKT_OK;
    }
    if (entry != fault.entry || n < fault.n || (n > fault.n && !fault.for_good)) return NKT_OK;
    fault.fired = true;
    return fault.err;
}

#define BASE fault.base

static int fault_open(nkt_env *env, int family, int type, nkt_fd *fd) {
    int err = enter(F_open);
    return err < 0 ? err : BASE->open(env, family, type, fd);
}

static int fault_close(nkt_env *env, nkt_fd fd) {
    int err = enter(F_close);
    int result = BASE->close(env, fd);
    return err < 0 ? err : result;
}

static int fault_accept(nkt_env *env, nkt_fd fd, nkt_fd *out, void *addr, size_t *len) {
    int err = enter(F_accept);
    return err < 0 ? err : BASE->accept(env, fd, out, addr, len);
}

static ptrdiff_t fault_recv(nkt_env *env, nkt_fd fd, void *to, size_t cap) {
    int err = enter(F_recv);
    if (err == ONE) return BASE->recv(env, fd, to, cap < 1 ? cap : 1);
    return err < 0 ? err : BASE->recv(env, fd, to, cap);
}

static ptrdiff_t fault_recv_wait(nkt_env *env, nkt_fd fd, void *to, size_t cap) {
    int err = enter(F_recv_wait);
    if (err == ONE) return BASE->recv_wait(env, fd, to, cap < 1 ? cap : 1);
    return err < 0 ? err : BASE->recv_wait(env, fd, to, cap);
}

static ptrdiff_t fault_send(nkt_env *env, nkt_fd fd, const nkt_str *pieces, size_t count) {
    int err = enter(F_send);
    if (err != ONE) return err < 0 ? err : BASE->send(env, fd, pieces, count);
    while (count > 1 && pieces->len == 0) {
        pieces++;
        count--;
    }
    nkt_str one = *pieces;
    if (one.len > 1) one.len = 1;
    return BASE->send(env, fd, &one, 1);
}

static int fault_set_option(nkt_env *env, nkt_fd fd, int option, int64_t value) {
    int err = enter(F_set_option);
    if (err >= 0) return BASE->set_option(env, fd, option, value);
    fault.option = option;
    return err;
}

#define PLAIN(name, declaration, call)                                                   \
    static int fault_##name declaration {                                                \
        int err = enter(F_##name);                                                       \
        return err < 0 ? err : BASE->name call;                                          \
    }
PLAIN(bind, (nkt_env *env, nkt_fd fd, const void *addr, size_t len), (env, fd, addr, len))
PLAIN(listen, (nkt_env *env, nkt_fd fd, int backlog), (env, fd, backlog))
PLAIN(connect, (nkt_env *env, nkt_fd fd, const void *addr, size_t len), (env, fd, addr, len))
PLAIN(connect_result, (nkt_env *env, nkt_fd fd), (env, fd))
PLAIN(shutdown, (nkt_env *env, nkt_fd fd, uint32_t directions), (env, fd, directions))
PLAIN(get_option, (nkt_env *env, nkt_fd fd, int option, int64_t *value),
      (env, fd, option, value))
PLAIN(bind_interface, (nkt_env *env, nkt_fd fd, const char *name, int family),
      (env, fd, name, family))
PLAIN(local_name, (nkt_env *env, nkt_fd fd, void *addr, size_t *len), (env, fd, addr, len))
PLAIN(peer_name, (nkt_env *env, nkt_fd fd, void *addr, size_t *len), (env, fd, addr, len))
PLAIN(tcp_info, (nkt_env *env, nkt_fd fd, nkt_tcp_info *info), (env, fd, info))
PLAIN(set_blocking, (nkt_env *env, nkt_fd fd, bool blocking), (env, fd, blocking))
PLAIN(unlink, (nkt_env *env, const char *path), (env, path))
PLAIN(wait, (nkt_env *env, nkt_watch *watches, size_t count, int64_t timeout_ns),
      (env, watches, count, timeout_ns))
PLAIN(wake_open, (nkt_env *env, nkt_wake *wake), (env, wake))
PLAIN(random, (nkt_env *env, void *to, size_t len), (env, to, len))

static int fault_poll_open(nkt_env *env, void **backend) {
    int err = enter(F_poll_open);
    return err < 0 ? err : fault.poll_base->open(env, backend);
}

static int fault_poll_set(nkt_env *env, void *backend, nkt_poll_watch *watch, uint32_t events) {
    int err = enter(F_poll_set);
    // Taking away does not fail; a program could do nothing about it.
    return err < 0 && events != 0 ? err : fault.poll_base->set(env, backend, watch, events);
}

static int fault_poll_wait(nkt_env *env, void *backend, nkt_poll_event *out, int cap,
                           int64_t timeout_ns) {
    int err = enter(F_poll_wait);
    return err < 0 ? err : fault.poll_base->wait(env, backend, out, cap, timeout_ns);
}

static int fault_udp_recv(nkt_env *env, nkt_fd fd, int family, nkt_datagram *list, int count,
                          bool facts) {
    int err = enter(F_udp_recv);
    if (err == ONE) count = 1;
    else if (err < 0) return err;
    return fault.udp_base->recv(env, fd, family, list, count, facts);
}

static int fault_udp_send(nkt_env *env, nkt_fd fd, int family, const nkt_datagram *list,
                          int count, bool *segments) {
    int err = enter(F_udp_send);
    if (err == ONE) count = 1;
    else if (err < 0) return err;
    return fault.udp_base->send(env, fd, family, list, count, segments);
}

static int fault_udp_set(nkt_env *env, nkt_fd fd, int family, int option, int64_t value) {
    int err = enter(F_udp_set);
    return err < 0 ? err : fault.udp_base->set_option(env, fd, family, option, value);
}

static int fault_udp_get(nkt_env *env, nkt_fd fd, int family, int option, int64_t *value) {
    int err = enter(F_udp_get);
    return err < 0 ? err : fault.udp_base->get_option(env, fd, family, option, value);
}

static int fault_udp_member(nkt_env *env, nkt_fd fd, const nkt_ip *group, const nkt_ip *source,
                            uint32_t index, const nkt_ip *local, bool join) {
    int err = enter(F_udp_member);
    // Leaving does not fail; a program could do nothing about it.
    if (err < 0 && join) return err;
    return fault.udp_base->member(env, fd, group, source, index, local, join);
}

static int fault_net_list(nkt_env *env, nkt_sys_iface *list, int cap) {
    int err = enter(F_net_list);
    return err < 0 ? err : fault.net_base->list(env, list, cap);
}

static int fault_net_watch(nkt_env *env, nkt_fd *fd) {
    int err = enter(F_net_watch);
    return err < 0 ? err : fault.net_base->watch_open(env, fd);
}

static void *fault_allocate(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && enter(F_allocate) < 0) return NULL;
    return fault.allocate_base(env, ptr, old_size, new_size);
}

// Puts all that in front of an environment's own tables, which may have been
// changed since the last time.
static void fault_core(nkt_env *env) {
    if (env->core == &fault.core) return;
    fault.base = env->core != NULL ? env->core : nkt_sys_core_default();
    fault.core = *fault.base;
#define SET(name) fault.core.name = fault_##name
    SET(open); SET(close); SET(bind); SET(listen); SET(accept); SET(connect);
    SET(connect_result); SET(recv); SET(send); SET(shutdown); SET(set_option);
    SET(get_option); SET(bind_interface); SET(local_name); SET(peer_name); SET(tcp_info);
    SET(set_blocking); SET(unlink); SET(wait); SET(wake_open); SET(random);
#undef SET
    if (fault.core.recv_wait != NULL) fault.core.recv_wait = fault_recv_wait;
    env->core = &fault.core;
}

static void fault_env(nkt_env *env, const nkt_sys_poll *backend) {
    fault_core(env);
    fault.poll_base = backend;
    fault.poll = *backend;
    fault.poll.open = fault_poll_open;
    fault.poll.set = fault_poll_set;
    fault.poll.wait = fault_poll_wait;
    env->poll = &fault.poll;
    if (env->allocate != fault_allocate) fault.allocate_base = env->allocate;
    env->allocate = fault_allocate;
}

static void fault_env_udp(nkt_env *env) {
    fault.udp_base = env->udp != NULL ? env->udp : nkt_sys_udp_default();
    fault.udp = *fault.udp_base;
    fault.udp.recv = fault_udp_recv;
    fault.udp.send = fault_udp_send;
    fault.udp.set_option = fault_udp_set;
    fault.udp.get_option = fault_udp_get;
    fault.udp.member = fault_udp_member;
    env->udp = &fault.udp;
    fault.net_base = env->net != NULL ? env->net : nkt_sys_net_default();
    fault.net = *fault.net_base;
    fault.net.list = fault_net_list;
    fault.net.watch_open = fault_net_watch;
    env->net = &fault.net;
}


//------------------------------------------------------------------------------
// Judging a run

static bool is_the_failure(long long got) {
    return fault.fired && got == fault.err;
}

// Called on each error of a whole_x(): once, what may pass has passed.
static bool fault_again(int err) {
    if (!fault.on || !is_the_failure(err)) return false;
    if (!fault.for_good && transient(err) && fault.agains++ == 0) return true;
    fault.told = true;
    return false;
}

static bool excuse_of_table(const excuse_row *one, int kind, long long got) {
    if (one->entry != F_COUNT && one->entry != fault.entry) return false;
    if (one->err != 0 && one->err != fault.err) return false;
    return one->holds(kind, got);
}

// For nkt_test.excuse: true for a check that the failure explains.
static int fault_excuse(const excuse_row *excuses, size_t count, int kind, long long got) {
    if (!fault.on || fault.counting || !fault.fired) return 0;
    if (!scene_tested) return fault.broken;
    if (!fault.told) fault.told = kind == TEST_NUMBER && is_the_failure(got);
    for (size_t i = 0; i < count && !fault.told; i++) {
        if (!excuse_of_table(&excuses[i], kind, got)) continue;
        fault.told = true;
        fault_mine->excused[i]++;
    }
    if (!fault.told) return 0;
    if (!fault.broken) {
        fault.broken = true;
        nkt_test.over = 1;      // the views of the row die with what follows
        task_break();
    }
    return 1;
}

// Which of the first descriptors are open.
static void descriptors(unsigned char open[128]) {
    struct pollfd all[128];
    for (int i = 0; i < 128; i++) {
        all[i].fd = i;
        all[i].events = 0;
        all[i].revents = 0;
    }
    poll(all, 128, 0);
    for (int i = 0; i < 128; i++) open[i] = (all[i].revents & POLLNVAL) == 0;
}

static void check_descriptors(const unsigned char before[128]) {
    unsigned char after[128];
    descriptors(after);
    for (int i = 0; i < 128; i++) {
        if (before[i] != after[i]) CHECK_INT(i, -1);
    }
}

static void describe(void) {
    char name[160];
    task_name(fault.task, name, sizeof name);
    if (fault.counting) {
        snprintf(fault_mine->doing, sizeof fault_mine->doing, "%s: nothing fails", name);
    } else {
        snprintf(fault_mine->doing, sizeof fault_mine->doing, "%s: %s %ld %s %s", name,
                 entries[fault.entry].name, fault.n,
                 fault.err == ONE ? "ONE" : nkt_errname(fault.err),
                 fault.for_good ? "for good" : "once");
    }
    snprintf(nkt_test.name, sizeof nkt_test.name, "%.159s", fault_mine->doing);
}

// One run of a row. True if the failure was due.
static bool run_once(void) {
    unsigned char before[128];
    describe();
    memset(fault.calls, 0, sizeof fault.calls);
    fault.fired = fault.told = fault.broken = false;
    fault.agains = 0;
    nkt_test.over = 0;
    nkt_test.checks = nkt_test.failures = 0;
    descriptors(before);
    fault_mine->since_ns = nkt_now_ns(NULL);
    task_run(fault.task);
    check_descriptors(before);
    int64_t took_ms = (nkt_now_ns(NULL) - fault_mine->since_ns) / 1000000;
    if (took_ms > 500 && getenv("NKT_TEST_VERBOSE") != NULL) {
        printf("%lld ms: %s\n", (long long)took_ms, fault_mine->doing);
    }
    fault_mine->since_ns = 0;
    fault_mine->runs++;
    if (fault.fired) {
        if (fault.told) fault_mine->told++;
        else fault_mine->absorbed++;
    }
    if (nkt_test.failures > 0) {
        fault.hard++;
        printf("FAILED %s\n", fault_mine->doing);
    }
    return fault.fired;
}

// True if the failure was due.
static bool inject(int entry, int err, long n, bool for_good) {
    fault.entry = entry;
    fault.err = err;
    fault.n = n;
    fault.for_good = for_good;
    bool fired = run_once();
    if (fired) fault_mine->made[entry]++;
    return fired;
}

// For good, these are not of this world: a call that cannot wait, cannot be
// interrupted for ever, and readiness that is always wrong is none. A poller
// whose every wait is interrupted has nothing to go on with.
static bool plausible_for_good(int entry, int err) {
    if (err == NKT_EAGAIN) return false;
    if (err == NKT_EABORTED) return false;
    return err != NKT_EINTR || entry == F_wait || entry == F_close;
}

static void inject_entry(int entry) {
    const census *c = &found[entry];
    if (c->count == 0) return;
    for (int k = 0; k < 8 && entries[entry].errors[k] != 0; k++) {
        int err = entries[entry].errors[k];
        for (int for_good = 0; for_good < 2 && fault.hard < 20; for_good++) {
            if (for_good && !plausible_for_good(entry, err)) continue;
            if (for_good && fault.slow && (k > 0 || c->count > 100)) {
                fault_mine->passed_over[entry] += c->count;
                continue;
            }
            for (int i = 0; i < c->kept_count && fault.hard < 20; i++) {
                inject(entry, err, c->kept[i], for_good != 0);
            }
            fault_mine->passed_over[entry] += c->count - c->kept_count;
            // Until there is no Nth call: runs differ, where threads and the
            // system's buffers have a say. Once will do for an entry.
            for (long n = c->count + 1; k + for_good == 0 && n < c->count + 6; n++) {
                if (fault.hard == 20 || !inject(entry, err, n, false)) break;
            }
        }
    }
}

static void count_calls(void) {
    memset(found, 0, sizeof found);
    fault.counting = true;
    fault.slow = task_is_slow(fault.task);
    fault.first = fault.slow ? 2 : 40;
    fault.for_good = false;
    run_once();
    fault.counting = false;
    for (int e = 0; e < F_COUNT; e++) {
        census *c = &found[e];
        for (long n = c->count - !fault.slow; n <= c->count; n++) {
            if (n > 0 && (c->kept_count == 0 || c->kept[c->kept_count - 1] < n)) keep(c, n);
        }
    }
}

// `what` is as describe() writes it, behind the row and the face.
static void run_alone(const char *what) {
    const char *after = strchr(what, ' ');
    char *rest = NULL;
    long n = after != NULL ? strtol(after, &rest, 10) : 0;
    for (int e = 0; e < F_COUNT && n > 0; e++) {
        size_t len = (size_t)(after - what);
        if (strlen(entries[e].name) != len || memcmp(entries[e].name, what, len) != 0) continue;
        for (int k = 0; k < 8 && entries[e].errors[k] != 0; k++) {
            int code = entries[e].errors[k];
            const char *name = code == ONE ? "ONE" : nkt_errname(code);
            if (strncmp(rest + 1, name, strlen(name)) != 0) continue;
            inject(e, code, n, strstr(rest, "for good") != NULL);
        }
    }
}

// All that can fail in a task. True if nothing was wrong.
static bool fault_all(int task) {
    char name[160];
    const char *only = getenv("NKT_FAULT");
    fault.task = task;
    fault.hard = 0;
    task_name(task, name, sizeof name);
    if (only != NULL) {
        run_alone(only + strlen(name) + 2);
        return fault.hard == 0;
    }
    count_calls();
    for (int e = 0; e < F_COUNT && fault.hard < 20; e++) inject_entry(e);
    return fault.hard == 0;
}

// One process for all faces of a row: the leak sanitizer looks at the end of
// each, and that takes longer than many runs.
enum { GROUPS_MAX = 256 };

static int group_first[GROUPS_MAX + 1], group_count;

static void group_name(int group, char *name, size_t cap) {
    task_name(group_first[group], name, cap);
    char *end = strstr(name, " / ");
    if (end != NULL) *end = '\0';
}

static void group_tasks(int count) {
    char name[160], before[160];
    for (int task = 0; task < count && group_count < GROUPS_MAX; task++) {
        group_first[group_count] = task;
        group_name(group_count, name, sizeof name);
        if (group_count > 0) group_name(group_count - 1, before, sizeof before);
        if (group_count == 0 || strcmp(name, before) != 0) group_count++;
    }
    group_first[group_count] = count;
}

// In a child. Gives its exit status.
static int run_group(int group) {
    bool well = true;
    task_prepare();
    for (int task = group_first[group]; task < group_first[group + 1]; task++) {
        if (!fault_all(task)) well = false;
    }
    return well ? 0 : 1;
}

// Whether a task is wanted, by the environment or else by the sample of rows.
static bool fault_is_wanted(int task, const char *row_name, const char *const *sample,
                            size_t sample_count) {
    const char *one = getenv("NKT_FAULT"), *only = getenv("NKT_TEST_ONLY");
    char name[160];
    task_name(task, name, sizeof name);
    size_t len = strlen(name);
    if (only != NULL && strstr(name, only) == NULL) return false;
    if (one != NULL) return strncmp(one, name, len) == 0 && one[len] == ':';
    if (EVERY_ROW) return true;
    for (size_t i = 0; i < sample_count; i++) {
        if (strcmp(sample[i], row_name) == 0) return true;
    }
    return false;
}

// An entry that no row calls would be one that no failure of is known.
static void check_all_entries(void) {
    TEST("each entry was made to fail, but for those of the other tables") {
        for (int e = 0; e < F_COUNT; e++) {
            bool made = fault_total.made[e] > 0;
            if (!CHECK_INT(made, task_calls(e))) printf("  it is %s\n", entries[e].name);
        }
    }
}

// Runs the tasks and says what was done.
static int fault_main(int count, const excuse_row *excuses, size_t excuse_count) {
    const char *names[F_COUNT];
    int64_t since = nkt_now_ns(NULL);
    for (int e = 0; e < F_COUNT; e++) names[e] = entries[e].name;
    signal(SIGPIPE, SIG_DFL);       // a library that raises it dies here
    bool is_all = EVERY_ROW && getenv("NKT_FAULT") == NULL && getenv("NKT_TEST_ONLY") == NULL;
    group_tasks(count);
    unsetenv("NKT_TEST_ONLY");      // it has named tasks, which are no tests
    fault_pool(group_count, group_name, run_group);
    if (is_all) check_all_entries();
    for (size_t i = 0; i < excuse_count; i++) {
        printf("%8ld times: %s\n", fault_total.excused[i], excuses[i].name);
    }
    fault_print(names, F_COUNT, since);
    return test_finish();
}

#endif
