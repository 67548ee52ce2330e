// probe.h - an environment that counts, checks and fails on demand
//
// A probe is an nkt_env whose tables stand in front of the system's. It counts
// every call, makes the next calls of an entry fail, checks that memory comes
// back with the size it was taken with, and has a clock that can be a false
// one: then time moves only when somebody would wait, and exactly as far.
//
//     probe p;
//     probe_open(&p);
//     opts.env = &p.env;
//     ...
//     probe_close(&p);        // checks that nothing was left behind
//
// Include after netkit.h with NETKIT_IMPLEMENTATION.

#ifndef NKT_TEST_PROBE_H
#define NKT_TEST_PROBE_H

#include "nkt_test.h"

#ifndef _WIN32
    #include <sched.h>
#endif

enum {
    PROBE_OPEN, PROBE_CLOSE, PROBE_BIND, PROBE_LISTEN, PROBE_ACCEPT, PROBE_CONNECT,
    PROBE_CONNECT_RESULT, PROBE_RECV, PROBE_RECV_WAIT, PROBE_SEND, PROBE_SET_OPTION,
    PROBE_WAIT, PROBE_WAKE_OPEN, PROBE_WAKE_CLOSE, PROBE_WAKE_POST, PROBE_POLL_SET,
    PROBE_POLL_WAIT, PROBE_ALLOCATE, PROBE_ENTRIES
};

// How much of a block is filled with what nobody may rely on.
#ifndef PROBE_FILL_MAX
    #define PROBE_FILL_MAX SIZE_MAX
#endif

#define PROBE_PATIENCE ((int64_t)5000000000)    // ends a wait that should have ended
#define PROBE_MS ((int64_t)1000000)

typedef struct probe {
    nkt_env env;                    // first: an nkt_env * is a probe *
    nkt_sys_core core;
    nkt_sys_poll poll;
    const nkt_sys_poll *base_poll;
    long calls[PROBE_ENTRIES];
    long fail_count[PROBE_ENTRIES]; // how many of the next calls fail
    int fail_err[PROBE_ENTRIES];
    long descriptors;               // opened and not closed
    long bad_closes;                // of what was not open
    long blocks, bytes;             // allocated and not freed
    long wrong;                     // freed with another size than allocated
    bool fake;                      // the clock
    int64_t now;                    // its time
    long stuck;                     // false clock: waits that nothing could end
} probe;

static inline probe *probe_of(nkt_env *env) {
    return (probe *)(void *)env;
}

static inline const nkt_sys_core *probe_system(void) {
    return nkt_sys_core_default();
}

// Counts a call. True if it is to fail.
static inline bool probe_enter(nkt_env *env, int entry, int *err) {
    probe *p = probe_of(env);
    __atomic_fetch_add(&p->calls[entry], 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&p->fail_count[entry], __ATOMIC_SEQ_CST) <= 0) return false;
    __atomic_fetch_sub(&p->fail_count[entry], 1, __ATOMIC_SEQ_CST);
    *err = p->fail_err[entry];
    return true;
}

static inline long probe_calls(probe *p, int entry) {
    return __atomic_load_n(&p->calls[entry], __ATOMIC_SEQ_CST);
}

static inline void probe_count_again(probe *p) {
    for (int i = 0; i < PROBE_ENTRIES; i++) p->calls[i] = 0;
}

static inline void probe_fail(probe *p, int entry, int err, long times) {
    p->fail_err[entry] = err;
    p->fail_count[entry] = times;
}

static inline void probe_descriptors(nkt_env *env, long change) {
    __atomic_fetch_add(&probe_of(env)->descriptors, change, __ATOMIC_SEQ_CST);
}

static inline int probe_core_open(nkt_env *env, int family, int type, nkt_fd *fd) {
    int err = NKT_OK;
    if (!probe_enter(env, PROBE_OPEN, &err)) err = probe_system()->open(env, family, type, fd);
    if (err >= 0) probe_descriptors(env, 1);
    return err;
}

static inline int probe_core_close(nkt_env *env, nkt_fd fd) {
    int err = NKT_OK;
    probe_enter(env, PROBE_CLOSE, &err);
    int result = probe_system()->close(env, fd);
    if (result >= 0) probe_descriptors(env, -1);
    else __atomic_fetch_add(&probe_of(env)->bad_closes, 1, __ATOMIC_SEQ_CST);
    return err < 0 ? err : result;
}

static inline int probe_core_bind(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_BIND, &err)) return err;
    return probe_system()->bind(env, fd, addr, len);
}

static inline int probe_core_listen(nkt_env *env, nkt_fd fd, int backlog) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_LISTEN, &err)) return err;
    return probe_system()->listen(env, fd, backlog);
}

static inline int probe_core_accept(nkt_env *env, nkt_fd fd, nkt_fd *out, void *addr,
                                    size_t *len) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_ACCEPT, &err)) return err;
    err = probe_system()->accept(env, fd, out, addr, len);
    if (err >= 0) probe_descriptors(env, 1);
    return err;
}

static inline int probe_core_connect(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_CONNECT, &err)) return err;
    return probe_system()->connect(env, fd, addr, len);
}

static inline int probe_core_connect_result(nkt_env *env, nkt_fd fd) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_CONNECT_RESULT, &err)) return err;
    return probe_system()->connect_result(env, fd);
}

static inline ptrdiff_t probe_core_recv(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_RECV, &err)) return err;
    return probe_system()->recv(env, fd, buf, cap);
}

static inline ptrdiff_t probe_core_recv_wait(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_RECV_WAIT, &err)) return err;
    return probe_system()->recv_wait(env, fd, buf, cap);
}

static inline ptrdiff_t probe_core_send(nkt_env *env, nkt_fd fd, const nkt_str *pieces,
                                        size_t count) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_SEND, &err)) return err;
    return probe_system()->send(env, fd, pieces, count);
}

static inline int probe_core_set_option(nkt_env *env, nkt_fd fd, int option, int64_t value) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_SET_OPTION, &err)) return err;
    return probe_system()->set_option(env, fd, option, value);
}

// What a wait becomes on the false clock: a look, and if there is nothing, the
// time is over at once. Something that never ends is given a little real time
// (another thread may end it) and is noted as stuck then.
static inline int64_t probe_wait_begin(probe *p, int64_t timeout_ns) {
    return p->fake ? (timeout_ns < 0 ? PROBE_PATIENCE : 0) : timeout_ns;
}

static inline void probe_wait_end(probe *p, int64_t timeout_ns, int result) {
    if (!p->fake || result != 0) return;
    if (timeout_ns < 0) __atomic_fetch_add(&p->stuck, 1, __ATOMIC_SEQ_CST);
    else __atomic_fetch_add(&p->now, timeout_ns, __ATOMIC_SEQ_CST);
}

static inline int probe_core_wait(nkt_env *env, nkt_watch *watches, size_t count,
                                  int64_t timeout_ns) {
    int err = NKT_OK;
    probe *p = probe_of(env);
    if (probe_enter(env, PROBE_WAIT, &err)) return err;
    int result = probe_system()->wait(env, watches, count, probe_wait_begin(p, timeout_ns));
    probe_wait_end(p, timeout_ns, result);
    return result;
}

static inline int probe_core_wake_open(nkt_env *env, nkt_wake *wake) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_WAKE_OPEN, &err)) return err;
    err = probe_system()->wake_open(env, wake);
    if (err >= 0) probe_descriptors(env, 1);
    return err;
}

static inline void probe_core_wake_close(nkt_env *env, nkt_wake *wake) {
    int err = NKT_OK;
    probe_enter(env, PROBE_WAKE_CLOSE, &err);
    probe_system()->wake_close(env, wake);
    probe_descriptors(env, -1);
}

static inline void probe_core_wake_post(nkt_env *env, const nkt_wake *wake) {
    int err = NKT_OK;
    probe_enter(env, PROBE_WAKE_POST, &err);
    probe_system()->wake_post(env, wake);
}

static inline int64_t probe_core_now_ns(nkt_env *env) {
    probe *p = probe_of(env);
    return p->fake ? __atomic_load_n(&p->now, __ATOMIC_SEQ_CST) : probe_system()->now_ns(env);
}

static inline int probe_poll_open(nkt_env *env, void **backend) {
    return probe_of(env)->base_poll->open(env, backend);
}

static inline void probe_poll_close(nkt_env *env, void *backend) {
    probe_of(env)->base_poll->close(env, backend);
}

static inline int probe_poll_set(nkt_env *env, void *backend, nkt_poll_watch *watch,
                                 uint32_t events) {
    int err = NKT_OK;
    if (probe_enter(env, PROBE_POLL_SET, &err)) return err;
    return probe_of(env)->base_poll->set(env, backend, watch, events);
}

static inline int probe_poll_wait(nkt_env *env, void *backend, nkt_poll_event *out, int cap,
                                  int64_t timeout_ns) {
    int err = NKT_OK;
    probe *p = probe_of(env);
    if (probe_enter(env, PROBE_POLL_WAIT, &err)) return err;
    int64_t timeout = probe_wait_begin(p, timeout_ns);
    int result = p->base_poll->wait(env, backend, out, cap, timeout);
    probe_wait_end(p, timeout_ns, result);
    return result;
}

static inline nkt_fd probe_poll_fd(nkt_env *env, void *backend) {
    return probe_of(env)->base_poll->fd(env, backend);
}

static inline void probe_poll_close_forked(nkt_env *env, void *backend) {
    probe_of(env)->base_poll->close_forked(env, backend);
}

// Keeps each block's size in front of it, to compare when it comes back.
static inline void *probe_allocate(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    enum { FRONT = 16 };
    int err = NKT_OK;
    probe *p = probe_of(env);
    char *block = ptr != NULL ? (char *)ptr - FRONT : NULL;
    size_t kept = 0;
    if (block != NULL) memcpy(&kept, block, sizeof kept);
    if (kept != old_size) __atomic_fetch_add(&p->wrong, 1, __ATOMIC_SEQ_CST);
    if (new_size == 0) {
        if (block == NULL) return NULL;
        __atomic_fetch_sub(&p->blocks, 1, __ATOMIC_SEQ_CST);
        __atomic_fetch_sub(&p->bytes, (long)kept, __ATOMIC_SEQ_CST);
        // By pointer, because compilers leave out what fills dead memory.
        static void *(*volatile fill)(void *, int, size_t) = memset;
        fill(block, 0xDD, FRONT + (kept < PROBE_FILL_MAX ? kept : PROBE_FILL_MAX));
        free(block);
        return NULL;
    }
    if (probe_enter(env, PROBE_ALLOCATE, &err)) return NULL;
    char *grown = (char *)realloc(block, FRONT + new_size);
    if (grown == NULL) return NULL;
    memcpy(grown, &new_size, sizeof new_size);
    // What is not said to be zero is not zero.
    size_t end = new_size < PROBE_FILL_MAX ? new_size : PROBE_FILL_MAX;
    if (end > kept) memset(grown + FRONT + kept, 0xAA, end - kept);
    if (block == NULL) __atomic_fetch_add(&p->blocks, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&p->bytes, (long)new_size - (long)kept, __ATOMIC_SEQ_CST);
    return grown + FRONT;
}

static inline void probe_open(probe *p) {
    memset(p, 0, sizeof *p);
    CHECK_INT(nkt_env_init(&p->env), NKT_OK);
    p->core = *nkt_sys_core_default();
    p->core.open = probe_core_open;
    p->core.close = probe_core_close;
    p->core.bind = probe_core_bind;
    p->core.listen = probe_core_listen;
    p->core.accept = probe_core_accept;
    p->core.connect = probe_core_connect;
    p->core.connect_result = probe_core_connect_result;
    p->core.recv = probe_core_recv;
    if (p->core.recv_wait != NULL) p->core.recv_wait = probe_core_recv_wait;
    p->core.send = probe_core_send;
    p->core.set_option = probe_core_set_option;
    p->core.wait = probe_core_wait;
    p->core.wake_open = probe_core_wake_open;
    p->core.wake_close = probe_core_wake_close;
    p->core.wake_post = probe_core_wake_post;
    p->core.now_ns = probe_core_now_ns;
    p->base_poll = nkt_sys_poll_default();
    p->poll.size = sizeof p->poll;
    p->poll.open = probe_poll_open;
    p->poll.close = probe_poll_close;
    p->poll.set = probe_poll_set;
    p->poll.wait = probe_poll_wait;
    p->poll.fd = probe_poll_fd;
    p->poll.close_forked = probe_poll_close_forked;
    p->env.core = &p->core;
    p->env.poll = &p->poll;
    p->env.allocate = probe_allocate;
}

static inline void probe_close(probe *p) {
    nkt_env_free(&p->env);
    CHECK_INT(p->blocks, 0);
    CHECK_INT(p->bytes, 0);
    CHECK_INT(p->wrong, 0);
    CHECK_INT(p->descriptors, 0);
    CHECK_INT(p->bad_closes, 0);
    CHECK_INT(p->stuck, 0);
}

// Waits, at most five seconds of the system's own time, for a descriptor.
static inline bool probe_until(nkt_env *env, nkt_fd fd, uint32_t events) {
    nkt_watch watch;
    watch.fd = fd;
    watch.events = events;
    watch.ready = 0;
    return probe_system()->wait(env, &watch, 1, PROBE_PATIENCE) > 0;
}

// For a loop that watches for another thread: lets it run where there is but
// one processor.
static inline void probe_yield(void) {
#ifdef _WIN32
    SwitchToThread();
#else
    sched_yield();
#endif
}

// Two ends of a connection over the loopback interface, each in a face of its
// own. False, after failed checks, if there is none.
static inline bool probe_tcp_opts(probe *p, const nkt_conn_opts *near_opts,
                                  const nkt_conn_opts *far_opts, nkt_conn **near_end,
                                  nkt_conn **far_end) {
    nkt_listen_opts listen_opts;
    nkt_connect_opts connect_opts;
    nkt_listener *listener = NULL;
    nkt_addr addr;
    nkt_fd fd = NKT_NO_FD;
    memset(&listen_opts, 0, sizeof listen_opts);
    memset(&connect_opts, 0, sizeof connect_opts);
    listen_opts.env = connect_opts.env = &p->env;
    listen_opts.nonblocking = far_opts != NULL && far_opts->nonblocking;
    if (far_opts != NULL) listen_opts.stream = far_opts->stream;
    if (near_opts != NULL) connect_opts.stream = near_opts->stream;
    if (!CHECK_INT(nkt_listen("127.0.0.1:0", &listen_opts, &listener), NKT_OK)) return false;
    CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
    bool good = CHECK_INT(nkt_connect_addr(&addr, &connect_opts, near_end), NKT_OK) &&
                CHECK(probe_until(&p->env, nkt_listener_descriptor(listener), NKT_READ)) &&
                CHECK_INT(nkt_accept(listener, far_end), NKT_OK);
    nkt_listener_close(listener);
    if (!good || near_opts == NULL || !near_opts->nonblocking) return good;
    return CHECK_INT(nkt_conn_detach(*near_end, &fd), NKT_OK) &&
           CHECK_INT(nkt_conn_adopt(fd, near_opts, near_end), NKT_OK);
}

static inline bool probe_tcp(probe *p, bool near_nonblocking, bool far_nonblocking,
                             nkt_conn **near_end, nkt_conn **far_end) {
    nkt_conn_opts near_opts, far_opts;
    memset(&near_opts, 0, sizeof near_opts);
    memset(&far_opts, 0, sizeof far_opts);
    near_opts.env = far_opts.env = &p->env;
    near_opts.nonblocking = near_nonblocking;
    far_opts.nonblocking = far_nonblocking;
    return probe_tcp_opts(p, &near_opts, &far_opts, near_end, far_end);
}

// Writes a text on one end and waits until the other end's descriptor has it.
static inline void probe_say(nkt_conn *from, nkt_conn *to, const char *text, nkt_env *env) {
    CHECK_INT(nkt_conn_write_str(from, text), NKT_OK);
    CHECK(probe_until(env, nkt_conn_descriptor(to), NKT_READ));
}

#endif
