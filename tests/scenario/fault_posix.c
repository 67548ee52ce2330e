// fault_posix.c - the scenario table on a system where every call fails in turn
//
// Each row and face is run once to count its calls of the system and of the
// allocator, then again and again: in each run the Nth call of one entry fails
// with one error, once or from then on, until a run makes no Nth call. The
// errors are those that the entry may give; a call may also move one byte only,
// and a close that fails has closed. Only calls of the tested end fail.
//
// What must hold in each run:
//   - it ends: no crash, no hang (a watchdog names the run);
//   - no memory, and no descriptor, is left, and sizes come back as given;
//   - the first thing that differs from the row is an error code, that of the
//     injected failure, or a view that it cut short and whose rest can still
//     be read: bytes are never wrong, missing or twice in silence. Outputs are
//     looked at where the row does;
//   - what may pass (NKT_EINTR, NKT_ENOMEM, NKT_EAGAIN, one byte) and happened
//     once, leaves the row whole when the call is made again;
//   - after the error the handle takes other calls, and closes.
//
//     fault_posix                     a sample: some rows
//     fault_posix with -DFAULT_ALL    every row
//     NKT_FAULT="row / face: recv 3 NKT_EINTR once"       that run alone
//
// Of the calls of one entry the first 40, the first two of every call path,
// powers of two and the last two are made to fail, which is all of them but in
// rows of very many. In rows that wait or move megabytes (SLOW) it is two, one
// of every call path and the last, "for good" with one error of each entry. The
// last lines say how many injections were made, and how many were left out.

#define NETKIT_IMPLEMENTATION
#define RAW_LIMIT_MS 15000
#define SCENE_LIMIT_MS 30000
#define SCENE_THRIFT 32
#define ROW_TIMEOUT_MS 12
#include "netkit.h"

#include "table.h"
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
// What can fail, and how

enum { ONE_BYTE = -100 };       // no error: the call moves one byte

#define ENTRIES(X)                                                                       \
    X(allocate, NKT_ENOMEM)                                                              \
    X(open, NKT_EMFILE, NKT_ENOMEM, NKT_EOS)                                             \
    X(close, NKT_EINTR, NKT_EOS)                                                         \
    X(bind, NKT_EADDRINUSE, NKT_EACCES, NKT_EOS)                                         \
    X(listen, NKT_EADDRINUSE, NKT_EOS)                                                   \
    X(accept, NKT_EINTR, NKT_EAGAIN, NKT_EABORTED, NKT_EMFILE, NKT_ENOMEM, NKT_EOS)      \
    X(connect, NKT_EREFUSED, NKT_ENETUNREACH, NKT_ENOMEM, NKT_EOS)                       \
    X(connect_result, NKT_EREFUSED, NKT_ETIMEDOUT, NKT_EAGAIN, NKT_EOS)                  \
    X(recv, NKT_EINTR, NKT_EAGAIN, ONE_BYTE, NKT_ENOMEM, NKT_ERESET, NKT_EOS)            \
    X(recv_wait, NKT_EINTR, ONE_BYTE, NKT_ENOMEM, NKT_ERESET, NKT_EOS)                   \
    X(send, NKT_EINTR, NKT_EAGAIN, ONE_BYTE, NKT_ENOMEM, NKT_ERESET, NKT_EPIPE, NKT_EOS) \
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
    X(poll_wait, NKT_EINTR, NKT_ENOMEM, NKT_EOS)

enum {
#define X(name, ...) F_##name,
    ENTRIES(X)
#undef X
    F_COUNT
};

typedef struct entry_row {
    const char *name;
    int errors[8];
} entry_row;

static const entry_row entries[] = {
#define X(name, ...) {#name, {__VA_ARGS__}},
    ENTRIES(X)
#undef X
};

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
    bool slow;                  // the row is SLOW
    long first;                 // so many calls of an entry fail in any case
    int entry, err;
    long n;                     // which call
    bool for_good;
    long calls[F_COUNT];
    bool fired;
    bool told;                  // a call has returned the failure
    bool broken;                // the row has noticed and is led to its end
    int hard;                   // checks that nothing excuses
    int agains;
    scene *s;
    const nkt_sys_core *base;
    nkt_sys_core core;
    const nkt_sys_poll *poll_base;
    nkt_sys_poll poll;
} fault;

static census found[F_COUNT];

static bool transient(int err) {
    return err == NKT_EINTR || err == NKT_EAGAIN || err == NKT_ENOMEM || err == ONE_BYTE;
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

static ptrdiff_t fault_recv(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    int err = enter(F_recv);
    if (err == ONE_BYTE) return BASE->recv(env, fd, buf, cap < 1 ? cap : 1);
    return err < 0 ? err : BASE->recv(env, fd, buf, cap);
}

static ptrdiff_t fault_recv_wait(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    int err = enter(F_recv_wait);
    if (err == ONE_BYTE) return BASE->recv_wait(env, fd, buf, cap < 1 ? cap : 1);
    return err < 0 ? err : BASE->recv_wait(env, fd, buf, cap);
}

static ptrdiff_t fault_send(nkt_env *env, nkt_fd fd, const nkt_str *pieces, size_t count) {
    int err = enter(F_send);
    if (err != ONE_BYTE) return err < 0 ? err : BASE->send(env, fd, pieces, count);
    while (count > 1 && pieces->len == 0) {
        pieces++;
        count--;
    }
    nkt_str one = *pieces;
    if (one.len > 1) one.len = 1;
    return BASE->send(env, fd, &one, 1);
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
PLAIN(set_option, (nkt_env *env, nkt_fd fd, int option, int64_t value), (env, fd, option, value))
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
PLAIN(random, (nkt_env *env, void *buf, size_t len), (env, buf, len))

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

static void *fault_allocate(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && enter(F_allocate) < 0) return NULL;
    return scene_allocate(env, ptr, old_size, new_size);
}

static void fault_env(scene_env *self) {
    fault.base = self->env.core != NULL ? self->env.core : nkt_sys_core_default();
    fault.core = *fault.base;
#define SET(name) fault.core.name = fault_##name
    SET(open); SET(close); SET(bind); SET(listen); SET(accept); SET(connect);
    SET(connect_result); SET(recv); SET(send); SET(shutdown); SET(set_option);
    SET(get_option); SET(bind_interface); SET(local_name); SET(peer_name); SET(tcp_info);
    SET(set_blocking); SET(unlink); SET(wait); SET(wake_open); SET(random);
#undef SET
    if (fault.core.recv_wait != NULL) fault.core.recv_wait = fault_recv_wait;
    fault.poll = *fault.poll_base;
    fault.poll.open = fault_poll_open;
    fault.poll.set = fault_poll_set;
    fault.poll.wait = fault_poll_wait;
    self->env.core = &fault.core;
    self->env.poll = &fault.poll;
    self->env.allocate = fault_allocate;
}

//------------------------------------------------------------------------------
// Judging a run

// What netkit makes of a failure where its contract has a word of its own.
static const struct { int entry, err; } said_as[] = {
    {F_local_name, NKT_ENOTCONN},       // whatever the reason, there is no name
    {F_get_option, NKT_ENOTSOCK},       // nkt_conn_adopt: not a socket that it knows
};

static bool is_the_failure(long long got) {
    if (!fault.fired) return false;
    for (size_t i = 0; i < sizeof said_as / sizeof said_as[0]; i++) {
        if (said_as[i].entry == fault.entry && got == said_as[i].err) return true;
    }
    return got == fault.err;
}

// Called on each error of a whole_x(): once, what may pass has passed.
static bool again(int err) {
    if (!fault.on || !is_the_failure(err)) return false;
    if (!fault.for_good && transient(err) && fault.agains++ == 0) return true;
    fault.told = true;
    return false;
}

// The handle takes other calls after a failure, and none of them waits long.
static void aftermath(scene *s) {
    nkt_str view;
    char byte;
    if (s->a == NULL) return;
    nkt_conn_set_option(s->a, NKT_OPT_READ_TIMEOUT_MS, 1);
    nkt_conn_set_option(s->a, NKT_OPT_WRITE_TIMEOUT_MS, 1);
    nkt_conn_read_line(s->a, &view);
    nkt_conn_write(s->a, "x", 1);
    nkt_conn_read(s->a, &byte, 1);
    nkt_conn_flush(s->a);
    if (s->poller != NULL) nkt_poller_wait(s->poller, 0);
    nkt_conn_shutdown_write(s->a);
    nkt_conn_interrupt(s->a);
}

// The row has seen the failure: everybody who waits for more is let go.
static void lead_to_the_end(scene *s) {
    fault.broken = true;
    nkt_test.over = 1;              // the views of the row die with what follows
    scene_guard_watch(NULL);
    aftermath(s);
    s->limit_ns = 0;
    if (s->b.kind == &peer_raw) shutdown(s->b.fd, SHUT_RDWR);
    else if (s->b.kind == &peer_conn) nkt_conn_interrupt(s->b.conn);
}

// What failed behind the user's back is the next call's error.
static bool told_by_next_write(scene *s) {
    return s->a != NULL && s->face->nonblocking && is_the_failure(nkt_conn_flush(s->a));
}

// A peek at a stream that has failed gives what there is, as at its end; the
// failure comes behind that, and the bytes are not lost.
static bool told_by_next_read(scene *s) {
    char buf[512];
    ptrdiff_t got = 1;
    size_t have = 0;
    if (s->a == NULL || !s->short_view) return false;
    if (fault.entry != F_recv && fault.entry != F_recv_wait) return false;
    s->short_view = false;
    nkt_conn_set_option(s->a, NKT_OPT_READ_TIMEOUT_MS, 1);
    while (got > 0 && have <= s->short_len) {
        got = nkt_conn_read(s->a, buf, sizeof buf);
        if (got > 0) have += (size_t)got;
    }
    return have == s->short_len && is_the_failure(got);
}

// Whether a check that fails may do so for a view that is too short: it is not
// of bytes that are wrong.
static bool is_of_a_short_view(int kind, long long got) {
    if (kind == TEST_NUMBER) return got == NKT_OK || got == true;
    return kind == TEST_BEGINNING;
}

static int excuse(int kind, long long got) {
    bool is_number = kind == TEST_NUMBER;
    if (!fault.on || fault.counting || !fault.fired) return 0;
    if (!scene_tested) return fault.broken;
    if (!fault.told && is_number && is_the_failure(got)) fault.told = true;
    if (!fault.told && told_by_next_write(fault.s)) fault.told = true;
    if (!fault.told && is_of_a_short_view(kind, got) && told_by_next_read(fault.s)) {
        fault.told = true;
    }
    // This is how a poller tells of a signal.
    if (fault.entry == F_poll_wait && fault.err == NKT_EINTR && is_number && got == 0) {
        fault.told = true;
    }
    // A row that waits for a signal has got one that nobody sent.
    if (fault.err == NKT_EINTR && fault.s->signals) fault.told = true;
    // An option that could not be set is not missed, but this row needs it.
    if (fault.entry == F_set_option && fault.s->small_buffers) fault.told = true;
    if (!fault.told) return 0;
    if (!fault.broken) lead_to_the_end(fault.s);
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

static void describe(const row *r, const face *f) {
    char err[32];
    snprintf(err, sizeof err, "%s", fault.err == ONE_BYTE ? "ONE_BYTE" : nkt_errname(fault.err));
    snprintf(fault_mine->doing, sizeof fault_mine->doing, "%s / %s: %s %ld %s %s", r->name, f->name,
             entries[fault.entry].name, fault.n, err, fault.for_good ? "for good" : "once");
}

// One run of a row. True if the failure was due.
static bool run_once(const row *r, const face *f) {
    unsigned char before[128];
    scene s;
    face real = *f;
    real.portable = false;          // its backend stands behind our table
    memset(fault.calls, 0, sizeof fault.calls);
    fault.fired = fault.told = fault.broken = false;
    fault.agains = 0;
    nkt_test.over = 0;
    fault.s = &s;
    fault.poll_base = f->portable ? nkt_sys_poll_portable() : nkt_sys_poll_default();
    nkt_test.checks = nkt_test.failures = 0;
    descriptors(before);
    fault_mine->since_ns = nkt_now_ns(NULL);
    if (scene_init(&s, &real)) {
        fault.on = scene_tested = true;
        r->run(&s);
        scene_close_a(&s);
        peer_close(&s.b);
        nkt_poller_close(s.poller);
        s.poller = NULL;
        fault.on = scene_tested = false;
        scene_free(&s);
    }
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
    return fault.fired;
}

// True if nothing was wrong.
static bool inject(const row *r, const face *f, int entry, int err, long n, bool for_good) {
    fault.entry = entry;
    fault.err = err;
    fault.n = n;
    fault.for_good = for_good;
    describe(r, f);
    snprintf(nkt_test.name, sizeof nkt_test.name, "%.159s", fault_mine->doing);
    bool fired = run_once(r, f);
    if (fired) fault_mine->made[entry]++;
    if (nkt_test.failures > 0) {
        fault.hard++;
        printf("FAILED %s\n", fault_mine->doing);
    }
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

static void inject_entry(const row *r, const face *f, int entry) {
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
                inject(r, f, entry, err, c->kept[i], for_good != 0);
            }
            fault_mine->passed_over[entry] += c->count - c->kept_count;
            // Until there is no Nth call: runs differ, where threads and the
            // system's buffers have a say. Once will do for an entry.
            for (long n = c->count + 1; k + for_good == 0 && n < c->count + 6; n++) {
                if (fault.hard == 20 || !inject(r, f, entry, err, n, false)) break;
            }
        }
    }
}

static void count_calls(const row *r, const face *f) {
    memset(found, 0, sizeof found);
    fault.counting = true;
    fault.slow = (r->needs & SLOW) != 0;
    fault.first = fault.slow ? 2 : 40;
    fault.for_good = false;
    snprintf(fault_mine->doing, sizeof fault_mine->doing, "%s / %s: nothing fails", r->name,
             f->name);
    snprintf(nkt_test.name, sizeof nkt_test.name, "%.159s", fault_mine->doing);
    run_once(r, f);
    fault.counting = false;
    if (nkt_test.failures > 0) fault.hard++;
    for (int e = 0; e < F_COUNT; e++) {
        census *c = &found[e];
        for (long n = c->count - !fault.slow; n <= c->count; n++) {
            if (n > 0 && (c->kept_count == 0 || c->kept[c->kept_count - 1] < n)) keep(c, n);
        }
    }
}

// `what` is as describe() writes it, behind the row and the face.
static void run_alone(const row *r, const face *f, const char *what) {
    const char *after = strchr(what, ' ');
    char *rest = NULL;
    long n = after != NULL ? strtol(after, &rest, 10) : 0;
    for (int e = 0; e < F_COUNT && n > 0; e++) {
        size_t len = (size_t)(after - what);
        if (strlen(entries[e].name) != len || memcmp(entries[e].name, what, len) != 0) continue;
        for (int k = 0; k < 8 && entries[e].errors[k] != 0; k++) {
            int code = entries[e].errors[k];
            const char *name = code == ONE_BYTE ? "ONE_BYTE" : nkt_errname(code);
            if (strncmp(rest + 1, name, strlen(name)) != 0) continue;
            inject(r, f, e, code, n, strstr(rest, "for good") != NULL);
        }
    }
}

// In a child. Gives its exit status.
static int run_all(const row *r, const face *f) {
    actor guard = {0};
    char name[160];
    const char *only = getenv("NKT_FAULT");
    scene_hooks.env = fault_env;
    scene_hooks.again = again;
    nkt_test.excuse = excuse;
    if (!actor_start(&guard, scene_guard_run)) return 1;
    snprintf(name, sizeof name, "%s / %s: ", r->name, f->name);
    if (only != NULL) {
        run_alone(r, f, only + strlen(name));
        return fault.hard > 0;
    }
    count_calls(r, f);
    for (int e = 0; e < F_COUNT && fault.hard == 0; e++) inject_entry(r, f, e);
    return fault.hard > 0;
}

//------------------------------------------------------------------------------
// Which rows and faces

typedef struct task {
    const row *r;
    const face *f;
} task;

static task tasks[ROW_COUNT * FACE_COUNT];

static void name_of(int i, char *name, size_t cap) {
    snprintf(name, cap, "%s / %s", tasks[i].r->name, tasks[i].f->name);
}

static int run_task(int i) {
    return run_all(tasks[i].r, tasks[i].f);
}

static bool chosen(const row *r, const face *f) {
    static const char *const sample[] = {"a line", "write", "messages, empty and small"};
    const char *only = getenv("NKT_FAULT");
    char name[160];
    if (why_not(r, f) != NULL) return false;
    if (only != NULL) {
        snprintf(name, sizeof name, "%s / %s: ", r->name, f->name);
        return strncmp(only, name, strlen(name)) == 0;
    }
    if (EVERY_ROW) return true;
    for (size_t i = 0; i < sizeof sample / sizeof sample[0]; i++) {
        if (strcmp(sample[i], r->name) == 0) return true;
    }
    return false;
}

static int plan(void) {
    int count = 0;
    const char *only = getenv("NKT_TEST_ONLY");
    // The slow ones first, so that they end beside the others.
    for (int slow = 1; slow >= 0; slow--) {
        for (size_t i = 0; i < ROW_COUNT * FACE_COUNT; i++) {
            char name[160];
            tasks[count].r = &rows[i / FACE_COUNT];
            tasks[count].f = &scene_faces[i % FACE_COUNT];
            name_of(count, name, sizeof name);
            if (((tasks[count].r->needs & SLOW) != 0) != (slow != 0)) continue;
            if (only != NULL && strstr(name, only) == NULL) continue;
            if (chosen(tasks[count].r, tasks[count].f)) count++;
        }
    }
    return count;
}

int main(void) {
    const char *names[F_COUNT];
    int64_t since = nkt_now_ns(NULL);
    for (int e = 0; e < F_COUNT; e++) names[e] = entries[e].name;
    signal(SIGPIPE, SIG_DFL);       // a library that raises it dies here
    fault_pool(plan(), name_of, run_task);
    fault_print(names, F_COUNT, since);
    return test_finish();
}
