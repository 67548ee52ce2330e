// scene.h - faces, ends and peers: what the scenario table stands on
//
// A face is a way to hold a connection: blocking or not, with or without a
// poller, over TCP, memory, a Unix-domain socket or a layer. A scene opens a
// connected pair on a face: `a`, the connection under test, and `b`, a peer
// that sends, receives, half-closes, closes and resets on command. The
// functions whole_x() do the whole of nkt_conn_x as the face does it, calling
// again after NKT_EAGAIN once its poller, its watch or its next frame says so.
//
//     row ---> whole_line() ---> nkt_conn_read_line --NKT_EAGAIN--> scene_wait
//                 ^                                                    |
//                 +----------------------------------------------------+
//
// A new face is one more line in scene_faces and, where it is reached in a new
// way, a function like scene_open_tcp. A new kind of peer is a peer_kind.
// With SCENE_IMPAIRED the faces are others: those whose tested end is impaired,
// in memory with a clock that jumps. All threads of a scene live by
// scene_clock, and sleep with scene_sleep.
// Every scene runs on an environment that counts memory: what a connection
// leaves behind fails the row. No call may take longer than SCENE_LIMIT_MS: a
// guard then interrupts the connection, and the checks of the row fail.

#ifndef NKT_TEST_SCENE_H
#define NKT_TEST_SCENE_H

#include "nkt_test.h"
#include "raw.h"
#include "rot13_layer.h"

#ifndef SCENE_LIMIT_MS
    #define SCENE_LIMIT_MS 15000
#endif
#define SCENE_SMALL_BUFFER 16384    // for rows that want the system to say no

// What large amounts are divided by, where the table is run thousands of times.
#ifndef SCENE_THRIFT
    #define SCENE_THRIFT 1
#endif

// For a program that makes the system fail under the table: see fault_posix.c.
typedef struct scene_env scene_env;
static struct {
    void (*env)(scene_env *self);           // an environment was made, or changed
    bool (*again)(int err);                 // a whole_x() is to be called again
} scene_hooks;

// Whether calls of this thread are those of the tested end, not of its peer's
// or of the scene's own.
static __thread bool scene_tested;

// The environment whose clock a scene goes by; NULL is the system's.
static nkt_env *scene_clock;

static void scene_sleep(int32_t ms) {
    bool before = scene_tested;
    scene_tested = false;
    if (scene_clock != NULL) nkt_sleep(scene_clock, ms);
    else sleep_ms(ms);
    scene_tested = before;
}

static bool scene_again(int err) {
    return err < 0 && scene_hooks.again != NULL && scene_hooks.again(err);
}

//------------------------------------------------------------------------------
// Threads of the peer's side.

typedef struct actor {
    void (*run)(struct actor *self);
    int done;
} actor;

static void actor_main(void *arg) {
    actor *self = (actor *)arg;
#ifndef _WIN32
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);       // signals are for the tested thread
#endif
    self->run(self);
    __atomic_store_n(&self->done, 1, __ATOMIC_SEQ_CST);
}

#ifdef NETKIT_NO_THREADS
// Then netkit starts none. Raw peers do not need it.
static void *actor_body(void *arg) {
    actor_main(arg);
    return NULL;
}

static int actor_thread(actor *self) {
    pthread_t thread;
    int err = pthread_create(&thread, NULL, actor_body, self);
    return err == 0 ? pthread_detach(thread) : err;
}
#else
static int actor_thread(actor *self) {
    return nkt_thread_start(scene_clock, actor_main, self);
}
#endif

static bool actor_start(actor *self, void (*run)(actor *self)) {
    self->run = run;
    self->done = 0;
    return CHECK_INT(actor_thread(self), NKT_OK);
}

// The actor lives on the caller's stack, so there is no giving up.
static void actor_join(actor *self) {
    for (int i = 0; __atomic_load_n(&self->done, __ATOMIC_SEQ_CST) == 0; i++) {
        scene_sleep(i < 20 ? 0 : 1);
        if (i == 3 * SCENE_LIMIT_MS) {
            printf("FAILED %s: the peer's thread hangs\n", nkt_test.name);
            exit(1);
        }
    }
}

//------------------------------------------------------------------------------
// An environment that counts memory and can be told to do one byte at a time.

struct scene_env {
    nkt_env env;
    nkt_sys_core core;
    int64_t live, peak;             // bytes
    int64_t wrong_sizes;            // frees and resizes that named a wrong old size
    const void *traced;             // whose states are kept
    char states[24][24];
    int state_count;
};

#define SCENE_BLOCK_HEAD 16

static void *scene_allocate(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    scene_env *self = (scene_env *)env->user;
    unsigned char *block = ptr == NULL ? NULL : (unsigned char *)ptr - SCENE_BLOCK_HEAD;
    size_t was = 0;
    if (block != NULL) memcpy(&was, block, sizeof was);
    if (was != old_size) __atomic_fetch_add(&self->wrong_sizes, 1, __ATOMIC_SEQ_CST);
    if (new_size == 0) {
        __atomic_fetch_sub(&self->live, (int64_t)was, __ATOMIC_SEQ_CST);
        free(block);
        return NULL;
    }
    block = (unsigned char *)realloc(block, new_size + SCENE_BLOCK_HEAD);
    if (block == NULL) return NULL;
    memcpy(block, &new_size, sizeof new_size);
    int64_t more = (int64_t)new_size - (int64_t)was;
    int64_t live = __atomic_add_fetch(&self->live, more, __ATOMIC_SEQ_CST);
    int64_t peak = __atomic_load_n(&self->peak, __ATOMIC_SEQ_CST);
    while (live > peak && !__atomic_compare_exchange_n(&self->peak, &peak, live, false,
                                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    return block + SCENE_BLOCK_HEAD;
}

static void scene_trace(nkt_env *env, const nkt_trace *what) {
    scene_env *self = (scene_env *)env->user;
    if (strcmp(what->kind, "conn") != 0 || self->state_count == 24) return;
    if (self->traced != NULL && self->traced != what->handle) return;
    snprintf(self->states[self->state_count++], sizeof self->states[0], "%s", what->state);
}

static ptrdiff_t scene_recv_one(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    return nkt_sys_core_default()->recv(env, fd, buf, cap < 1 ? cap : 1);
}

static ptrdiff_t scene_recv_wait_one(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    return nkt_sys_core_default()->recv_wait(env, fd, buf, cap < 1 ? cap : 1);
}

static ptrdiff_t scene_send_one(nkt_env *env, nkt_fd fd, const nkt_str *pieces, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].len == 0) continue;
        nkt_str one;
        one.ptr = pieces[i].ptr;
        one.len = 1;
        return nkt_sys_core_default()->send(env, fd, &one, 1);
    }
    return 0;
}

static bool scene_env_open(scene_env *self, bool jumps) {
    memset(self, 0, sizeof *self);
    int err = jumps ? nkt_env_init_virtual(&self->env, 1) : nkt_env_init(&self->env);
    if (!CHECK_INT(err, NKT_OK)) return false;
    scene_clock = jumps ? &self->env : NULL;
    self->env.allocate = scene_allocate;
    self->env.user = self;
    if (scene_hooks.env != NULL) scene_hooks.env(self);
    return true;
}

// Every system call moves one byte.
static void scene_env_one_byte(scene_env *self) {
    self->core = *nkt_sys_core_default();
    self->core.recv = scene_recv_one;
    if (self->core.recv_wait != NULL) self->core.recv_wait = scene_recv_wait_one;
    self->core.send = scene_send_one;
    self->env.core = &self->core;
    if (scene_hooks.env != NULL) scene_hooks.env(self);
}

static void scene_env_close(scene_env *self) {
    scene_clock = NULL;
    nkt_env_free(&self->env);
    CHECK_INT(__atomic_load_n(&self->live, __ATOMIC_SEQ_CST), 0);
    CHECK_INT(self->wrong_sizes, 0);
}

//------------------------------------------------------------------------------
// Peers.

typedef struct peer peer;
typedef struct peer_kind {
    ptrdiff_t (*send)(peer *self, const void *data, size_t len);    // some of it
    ptrdiff_t (*recv)(peer *self, void *buf, size_t cap);
    void (*finish)(peer *self);                                     // half-close
    void (*close)(peer *self, bool reset);
} peer_kind;

struct peer {
    const peer_kind *kind;      // NULL once closed
    raw_fd fd;
    nkt_conn *conn;
};

static ptrdiff_t peer_raw_send(peer *self, const void *data, size_t len) {
    return raw_send(self->fd, data, len);
}

static ptrdiff_t peer_raw_recv(peer *self, void *buf, size_t cap) {
    return raw_recv(self->fd, buf, cap);
}

static void peer_raw_finish(peer *self) {
    shutdown(self->fd, RAW_SHUT_WRITE);
}

static void peer_raw_close(peer *self, bool reset) {
    if (reset) raw_reset(self->fd);
    else raw_close(self->fd);
}

static const peer_kind peer_raw = {peer_raw_send, peer_raw_recv, peer_raw_finish,
                                   peer_raw_close};

// A blocking netkit connection.
static bool peer_begin(void) {
    bool before = scene_tested;
    scene_tested = false;
    return before;
}

static ptrdiff_t peer_conn_send(peer *self, const void *data, size_t len) {
    bool before = peer_begin();
    int err = nkt_conn_write(self->conn, data, len);
    scene_tested = before;
    return err < 0 ? err : (ptrdiff_t)len;
}

static ptrdiff_t peer_conn_recv(peer *self, void *buf, size_t cap) {
    bool before = peer_begin();
    ptrdiff_t got = nkt_conn_read(self->conn, buf, cap);
    scene_tested = before;
    return got;
}

static void peer_conn_finish(peer *self) {
    bool before = peer_begin();
    CHECK_INT(nkt_conn_shutdown_write(self->conn), NKT_OK);
    scene_tested = before;
}

static void peer_conn_close(peer *self, bool reset) {
    bool before = peer_begin();
    if (reset) nkt_conn_abort(self->conn);
    else nkt_conn_close(self->conn);
    self->conn = NULL;
    scene_tested = before;
}

static const peer_kind peer_conn = {peer_conn_send, peer_conn_recv, peer_conn_finish,
                                    peer_conn_close};

static bool peer_send(peer *self, const void *data, size_t len) {
    const char *bytes = (const char *)data;
    while (len > 0) {
        ptrdiff_t sent = self->kind->send(self, bytes, len);
        if (sent < 0) return false;
        bytes += sent;
        len -= (size_t)sent;
    }
    return true;
}

static bool peer_say(peer *self, const char *text) {
    return peer_send(self, text, strlen(text));
}

static ptrdiff_t peer_recv(peer *self, void *buf, size_t cap) {
    return self->kind->recv(self, buf, cap);
}

// Exactly `len` bytes, or how many there were before the end or an error.
static size_t peer_recv_all(peer *self, void *buf, size_t len) {
    size_t have = 0;
    while (have < len) {
        ptrdiff_t got = peer_recv(self, (char *)buf + have, len - have);
        if (got <= 0) break;
        have += (size_t)got;
    }
    return have;
}

static void peer_finish(peer *self) {
    self->kind->finish(self);
}

static void peer_close(peer *self) {
    if (self->kind != NULL) self->kind->close(self, false);
    self->kind = NULL;
}

static void peer_reset(peer *self) {
    self->kind->close(self, true);
    self->kind = NULL;
}

//------------------------------------------------------------------------------
// Faces.

enum { CARRIER_TCP, CARRIER_PAIR, CARRIER_UNIX };

// How the tested end is impaired, both ways.
enum {
    BARE,
    WRAPPED,                // by a perfect network
    PIECES,                 // partial reads and writes, before every tenth a stall
    LATE                    // 2 to LATE_MOST_MS
};
enum { LATE_MOST_MS = 5 };

typedef struct face {
    const char *name;
    int carrier;
    bool nonblocking;
    bool polled;            // waits with nkt_poller; else, if nonblocking, by watching
    bool portable;          // with the poll() backend
    bool accepted;          // comes from nkt_accept, not from nkt_connect
    bool rot13;             // with the layer on top, at both ends
    int impaired;
    bool is_long;           // only with NKT_TEST_ALL=1
} face;

#ifdef SCENE_IMPAIRED
static const face scene_faces[] = {
    // name, carrier, nonblocking, polled, portable, accepted, rot13, ...
    {"pair blocking, wrapped", CARRIER_PAIR, false, false, false, false, false, WRAPPED, false},
    {"pair poller, wrapped", CARRIER_PAIR, true, true, false, false, false, WRAPPED, false},
    {"pair blocking, pieces", CARRIER_PAIR, false, false, false, false, false, PIECES, false},
    {"pair poller, pieces", CARRIER_PAIR, true, true, false, false, false, PIECES, false},
    {"pair blocking, late", CARRIER_PAIR, false, false, false, false, false, LATE, false},
    {"pair poller, late", CARRIER_PAIR, true, true, false, false, false, LATE, false},
    {"tcp blocking, wrapped", CARRIER_TCP, false, false, false, false, false, WRAPPED, true},
    {"tcp poller, wrapped", CARRIER_TCP, true, true, false, true, false, WRAPPED, true},
    {"tcp blocking, pieces", CARRIER_TCP, false, false, false, true, false, PIECES, true},
    {"tcp poller, pieces", CARRIER_TCP, true, true, false, false, false, PIECES, true},
    {"tcp game loop, pieces", CARRIER_TCP, true, false, false, true, false, PIECES, true},
    {"tcp blocking, late", CARRIER_TCP, false, false, false, false, false, LATE, true},
    {"tcp poller, late", CARRIER_TCP, true, true, false, true, false, LATE, true},
    {"tcp game loop, late", CARRIER_TCP, true, false, false, false, false, LATE, true},
    {"rot13 poller, late", CARRIER_TCP, true, true, false, false, true, LATE, true},
};
#else
static const face scene_faces[] = {
    // name                  carrier        nonbl  polled portab accept rot13
    {"tcp blocking", CARRIER_TCP, false, false, false, false, false, BARE, false},
    {"tcp poller", CARRIER_TCP, true, true, false, false, false, BARE, false},
    {"tcp poll() poller", CARRIER_TCP, true, true, true, true, false, BARE, false},
    {"tcp game loop", CARRIER_TCP, true, false, false, true, false, BARE, false},
    {"pair blocking", CARRIER_PAIR, false, false, false, false, false, BARE, false},
    {"pair poller", CARRIER_PAIR, true, true, false, false, false, BARE, false},
    {"rot13 blocking", CARRIER_TCP, false, false, false, true, true, BARE, false},
    {"rot13 poller", CARRIER_TCP, true, true, false, false, true, BARE, false},
    {"unix blocking", CARRIER_UNIX, false, false, false, false, false, BARE, false},
    {"unix poller", CARRIER_UNIX, true, true, false, true, false, BARE, false},
};
#endif

//------------------------------------------------------------------------------
// Scenes.

typedef struct scene {
    const face *face;
    scene_env env;
    nkt_stream_opts stream;     // of both ends; set before scene_open
    bool small_buffers;         // the system's buffers are small; before scene_open
    const char *interface_name; // to be bound to; before scene_open
    bool signals;               // hand NKT_EINTR to the row
    int32_t frame_ms;           // game loop: it looks again at least this often; 0 = never
    nkt_conn *a;
    nkt_poller *poller;
    peer b;
    uint32_t seed;              // of the impairment
    bool is_large;              // the row moves megabytes: pieces are not tiny
    int64_t limit_ns;           // when its waits end
    int64_t guard_ns;           // when the guard strikes, by the system's clock
    uint32_t seen;              // events that came
    size_t earlier;             // taken by whole_write(v) before its last call
    bool short_view;            // the last whole_peek gave fewer bytes than wanted,
    size_t short_len;           //     so many
} scene;

// The guard: one thread that interrupts a scene which takes too long.
static struct {
    int lock;
    scene *watched;
    int strikes;
} scene_guard;

static void scene_guard_lock(void) {
    while (__atomic_exchange_n(&scene_guard.lock, 1, __ATOMIC_ACQUIRE) != 0) sleep_ms(0);
}

static void scene_guard_unlock(void) {
    __atomic_store_n(&scene_guard.lock, 0, __ATOMIC_RELEASE);
}

static void scene_guard_run(actor *self) {
    (void)self;
    for (;;) {
        sleep_ms(100);
        scene_guard_lock();
        scene *late = scene_guard.watched;
        if (late != NULL && nkt_now_ns(NULL) > late->guard_ns) {
            printf("  %s: took longer than %d ms, interrupted\n", nkt_test.name,
                   SCENE_LIMIT_MS);
            fflush(stdout);
            if (late->a != NULL) nkt_conn_interrupt(late->a);
            late->guard_ns += (int64_t)SCENE_LIMIT_MS * 1000000;
            if (++scene_guard.strikes == 3) {
                printf("FAILED %s: it hangs\n", nkt_test.name);
                fflush(stdout);
                exit(1);
            }
        }
        scene_guard_unlock();
    }
}

static void scene_guard_watch(scene *s) {
    scene_guard_lock();
    scene_guard.watched = s;
    scene_guard.strikes = 0;
    scene_guard_unlock();
}

static int32_t scene_left_ms(const scene *s) {
    int64_t left = (s->limit_ns - nkt_now_ns(scene_clock)) / 1000000;
    return left > 0 ? (int32_t)left + 1 : 0;
}

static void scene_renew(scene *s) {
    s->limit_ns = nkt_now_ns(scene_clock) + (int64_t)SCENE_LIMIT_MS * 1000000;
    s->guard_ns = nkt_now_ns(NULL) + (int64_t)SCENE_LIMIT_MS * 1000000;
}

static int scene_wait_poller(scene *s, uint32_t want) {
    nkt_event event;
    uint32_t came = 0;
    int count = nkt_poller_wait(s->poller, scene_left_ms(s));
    if (count < 0) return count;
    if (count == 0 && scene_left_ms(s) == 0) return NKT_EAGAIN;
    if (count == 0 && s->signals) return NKT_EINTR;     // so a poller tells a signal
    while (nkt_poller_next(s->poller, &event) == NKT_OK) {
        CHECK(event.conn == s->a && event.user == s && event.events != 0);
        came |= event.events;
    }
    s->seen |= came;
    // Unread input is told again and again, and no time passes meanwhile.
    if (scene_clock != NULL && (came & want) == 0) scene_sleep(1);
    return NKT_OK;
}

// A program of its own rhythm: it asks what to wait for, and sleeps on that.
static int scene_wait_watch(scene *s, uint32_t want) {
    nkt_interest interest;
    memset(&interest, 0xaa, sizeof interest);
    if (!CHECK_INT(nkt_conn_watch(s->a, want, &interest), NKT_OK)) return NKT_EAGAIN;
    if (interest.ready) return NKT_OK;
    if (scene_left_ms(s) == 0) return NKT_EAGAIN;
    int64_t now = nkt_now_ns(scene_clock);
    int64_t until = interest.deadline_ns < s->limit_ns ? interest.deadline_ns : s->limit_ns;
    int64_t frame = now + (int64_t)s->frame_ms * 1000000;
    if (s->frame_ms > 0 && frame < until) until = frame;
    const nkt_sys_core *core = s->env.env.core != NULL ? s->env.env.core
                                                       : nkt_sys_core_default();
    bool before = peer_begin();
    int err = core->wait(&s->env.env, interest.watches, interest.count,
                         until > now ? until - now : 0);
    scene_tested = before;
    if (err == NKT_EINTR) return s->signals ? NKT_EINTR : NKT_OK;
    return err < 0 ? err : NKT_OK;
}

// After NKT_EAGAIN: NKT_OK to call again, else what to hand to the row.
static int scene_wait(scene *s, uint32_t want) {
    if (!CHECK(s->face->nonblocking)) return NKT_EAGAIN;    // a blocking call said EAGAIN
    return s->face->polled ? scene_wait_poller(s, want) : scene_wait_watch(s, want);
}

//------------------------------------------------------------------------------
// Opening.

static void scene_conn_opts(scene *s, nkt_conn_opts *opts) {
    memset(opts, 0, sizeof *opts);
    opts->env = &s->env.env;
    opts->nonblocking = s->face->nonblocking;
    opts->stream = s->stream;
    if (s->small_buffers && s->face->carrier != CARRIER_PAIR) {
        opts->stream.send_buffer = SCENE_SMALL_BUFFER;
    }
    if (SCENE_THRIFT > 1 && opts->stream.queue_max == 0) opts->stream.queue_max = 131072;
}

// Of a peer that is a netkit connection: it blocks, and not for ever.
static void scene_peer_opts(scene *s, nkt_conn_opts *opts) {
    memset(opts, 0, sizeof *opts);
    opts->env = &s->env.env;
    opts->stream.read_timeout_ms = opts->stream.write_timeout_ms = RAW_LIMIT_MS;
}

// Puts `a` into the scene's poller, where the face has one.
static bool scene_add(scene *s) {
    if (!s->face->polled) return true;
    return CHECK_INT(nkt_poller_add_conn(s->poller, s->a, s), NKT_OK);
}

static bool scene_connect(scene *s, const char *target) {
    nkt_connect_opts opts;
    nkt_conn_opts common;
    memset(&opts, 0, sizeof opts);
    scene_conn_opts(s, &common);
    opts.env = common.env;
    opts.nonblocking = common.nonblocking;
    opts.stream = common.stream;
    opts.interface_name = s->interface_name;
    if (!CHECK_INT(nkt_connect(target, &opts, &s->a), NKT_OK)) return false;
    if (!scene_add(s)) return false;
    int err;
    while ((err = nkt_connect_finish(s->a)) == NKT_EAGAIN || scene_again(err)) {
        if (err == NKT_EAGAIN && (err = scene_wait(s, NKT_WRITE)) != NKT_OK &&
            !scene_again(err)) break;
    }
    return CHECK_INT(err, NKT_OK);
}

static bool scene_listen(scene *s, const char *target, nkt_listener **listener) {
    nkt_listen_opts opts;
    nkt_conn_opts common;
    memset(&opts, 0, sizeof opts);
    scene_conn_opts(s, &common);
    opts.env = common.env;
    opts.nonblocking = common.nonblocking;
    opts.stream = common.stream;
    opts.interface_name = s->interface_name;
    return CHECK_INT(nkt_listen(target, &opts, listener), NKT_OK);
}

static bool scene_accept(scene *s, nkt_listener *listener) {
    int err;
    // Out of memory, it has closed the one there was.
    while ((err = nkt_accept(listener, &s->a)) == NKT_EAGAIN ||
           (err != NKT_ENOMEM && scene_again(err))) {
        if (err == NKT_EAGAIN && !CHECK(s->face->nonblocking)) break;
        if (scene_left_ms(s) == 0) break;
        sleep_ms(1);
    }
    return CHECK_INT(err, NKT_OK) && scene_add(s);
}

// The peer is the system's socket, or on the layer's face a blocking netkit
// connection with the layer on it.
static bool scene_open_tcp(scene *s) {
    char target[NKT_ADDR_TEXT_MAX];
    int small = s->small_buffers ? SCENE_SMALL_BUFFER : 0;
    nkt_addr where;
    bool ok;
    if (s->face->accepted) {
        nkt_listener *listener;
        if (!scene_listen(s, "127.0.0.1:0", &listener)) return false;
        ok = CHECK_INT(nkt_listener_local(listener, &where), NKT_OK) &&
             CHECK((s->b.fd = raw_connect(small, &where)) != RAW_NO_FD) &&
             scene_accept(s, listener);
        nkt_listener_close(listener);
    } else {
        raw_fd listener = raw_listen(small, &where);
        if (!CHECK(listener != RAW_NO_FD)) return false;
        nkt_addr_format(&where, target, sizeof target);
        ok = scene_connect(s, target) && CHECK((s->b.fd = raw_accept(listener)) != RAW_NO_FD);
        raw_close(listener);
    }
    if (s->b.fd == RAW_NO_FD) return false;
    raw_set(s->b.fd, IPPROTO_TCP, TCP_NODELAY, 1);
    s->b.kind = &peer_raw;
    return ok;
}

static bool scene_open_rot13(scene *s) {
    nkt_conn_opts opts;
    if (!scene_open_tcp(s)) return false;
    scene_peer_opts(s, &opts);
    bool before = peer_begin();
    bool ok = CHECK_INT(nkt_conn_adopt((nkt_fd)s->b.fd, &opts, &s->b.conn), NKT_OK);
    if (ok) {
        s->b.kind = &peer_conn;
        ok = CHECK_INT(rot13_push(s->b.conn), NKT_OK);
    }
    scene_tested = before;
    return ok && CHECK_INT(rot13_push(s->a), NKT_OK);
}

static bool scene_open_pair(scene *s) {
    nkt_conn_opts opts, peer_opts;
    scene_conn_opts(s, &opts);
    scene_peer_opts(s, &peer_opts);
    if (!CHECK_INT(nkt_conn_pair(&opts, &peer_opts, &s->a, &s->b.conn), NKT_OK)) return false;
    s->b.kind = &peer_conn;
    return scene_add(s);
}

#ifndef _WIN32
static bool scene_open_unix(scene *s) {
    char path[80], target[96];
    bool ok;
    snprintf(path, sizeof path, "/tmp/nkt-scene-%ld.sock", (long)getpid());
    snprintf(target, sizeof target, "unix:%s", path);
    unlink(path);
    if (s->face->accepted) {
        nkt_listener *listener;
        if (!scene_listen(s, target, &listener)) return false;
        ok = CHECK((s->b.fd = raw_unix(path, false)) != RAW_NO_FD) && scene_accept(s, listener);
        nkt_listener_close(listener);
    } else {
        raw_fd listener = raw_unix(path, true);
        if (!CHECK(listener != RAW_NO_FD)) return false;
        ok = scene_connect(s, target) && CHECK((s->b.fd = raw_accept(listener)) != RAW_NO_FD);
        raw_close(listener);
    }
    unlink(path);
    if (s->b.fd != RAW_NO_FD) s->b.kind = &peer_raw;
    return ok;
}
#else
static bool scene_open_unix(scene *s) {
    (void)s;
    return false;
}
#endif

static bool scene_impair(scene *s) {
    nkt_impairment bad;
    nkt_problem problem;
    if (s->face->impaired == BARE) return true;
    memset(&bad, 0, sizeof bad);
    bad.seed = s->seed;
    bad.problem = &problem;
    if (s->face->impaired == PIECES) {
        bad.stall = 0.1;
        bad.stall_ms = 1;
        bad.piece_max = s->is_large ? 8192 : 7;
    } else if (s->face->impaired == LATE) {
        bad.latency_ms = 3.5;
        bad.jitter_ms = 1.5;
    }
    int err;
    do {
        err = nkt_conn_impair(s->a, &bad);
    } while (scene_again(err));
    return CHECK_INT(err, NKT_OK);
}

static bool scene_init(scene *s, const face *on) {
    memset(s, 0, sizeof *s);
    s->face = on;
    s->b.fd = RAW_NO_FD;
    scene_clock = NULL;
    scene_renew(s);
    return scene_env_open(&s->env, on->impaired != BARE && on->carrier == CARRIER_PAIR);
}

// Opens the connected pair. False (and a failed check) if it could not.
static bool scene_open(scene *s) {
    bool ok = false;
    scene_renew(s);
    scene_guard_watch(s);
    if (s->face->polled) {
        nkt_poller_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.env = &s->env.env;
        opts.portable = s->face->portable;
        if (!CHECK_INT(nkt_poller_open(&opts, &s->poller), NKT_OK)) return false;
    }
    switch (s->face->carrier) {
    case CARRIER_TCP: ok = s->face->rot13 ? scene_open_rot13(s) : scene_open_tcp(s); break;
    case CARRIER_PAIR: ok = scene_open_pair(s); break;
    default: ok = scene_open_unix(s); break;
    }
    return CHECK(ok) && scene_impair(s);
}

// Closes the tested end; how many queued bytes were discarded.
static size_t scene_close_a(scene *s) {
    nkt_conn *a = s->a;
    scene_guard_watch(NULL);        // it must not be interrupted any more
    s->a = NULL;
    return nkt_conn_close(a);
}

static void scene_free(scene *s) {
    scene_close_a(s);
    peer_close(&s->b);
    nkt_poller_close(s->poller);
    s->poller = NULL;
    scene_env_close(&s->env);
}

//------------------------------------------------------------------------------
// Whole operations on the tested end.

#define WHOLE(result, call, want)                                                        \
    for (;;) {                                                                           \
        (result) = (call);                                                               \
        if (scene_again((int)(result))) continue;                                        \
        if ((result) != NKT_EAGAIN) break;                                               \
        (result) = scene_wait(s, want);                                                  \
        if ((result) != NKT_OK && !scene_again((int)(result))) break;                    \
    }

static int whole_line(scene *s, nkt_str *line) {
    int err;
    WHOLE(err, nkt_conn_read_line(s->a, line), NKT_READ);
    return err;
}

static int whole_lines(scene *s, nkt_str *lines) {
    int err;
    WHOLE(err, nkt_conn_read_lines(s->a, lines), NKT_READ);
    return err;
}

static int whole_skip_line(scene *s) {
    int err;
    WHOLE(err, nkt_conn_skip_line(s->a), NKT_READ);
    return err;
}

static int whole_until(scene *s, const char *delimiter, size_t len, nkt_str *view) {
    int err;
    WHOLE(err, nkt_conn_read_until(s->a, delimiter, len, view), NKT_READ);
    return err;
}

static ptrdiff_t whole_read(scene *s, void *buf, size_t cap) {
    ptrdiff_t got;
    WHOLE(got, nkt_conn_read(s->a, buf, cap), NKT_READ);
    return got;
}

static int whole_exact(scene *s, void *buf, size_t len) {
    int err;
    WHOLE(err, nkt_conn_read_exact(s->a, buf, len), NKT_READ);
    return err;
}

static int whole_peek(scene *s, size_t want, nkt_str *view) {
    int err;
    WHOLE(err, nkt_conn_peek(s->a, want, view), NKT_READ);
    s->short_view = err == NKT_OK && view->len < want;
    s->short_len = s->short_view ? view->len : 0;
    return err;
}

static int whole_skip(scene *s, uint64_t len) {
    int err;
    WHOLE(err, nkt_conn_skip(s->a, len), NKT_READ);
    return err;
}

static int whole_message(scene *s, nkt_str *message) {
    int err;
    WHOLE(err, nkt_conn_read_message(s->a, message), NKT_READ);
    return err;
}

// Called again, it goes on with the rest.
static int whole_write(scene *s, const void *data, size_t len) {
    const char *bytes = (const char *)data;
    size_t done = 0;
    for (;;) {
        s->earlier = done;
        int err = nkt_conn_write(s->a, done > 0 ? bytes + done : bytes, len - done);
        if (scene_again(err)) {
            done += nkt_conn_written(s->a);
            continue;
        }
        if (err != NKT_EAGAIN) return err;
        err = scene_wait(s, NKT_WRITE);
        if (err != NKT_OK && !scene_again(err)) return err;
    }
}

static int whole_say(scene *s, const char *text) {
    return whole_write(s, text, strlen(text));
}

// Writes what is behind the first `done` bytes of the pieces.
static int whole_rest(scene *s, const nkt_str *pieces, size_t count, size_t done) {
    int err = NKT_OK;
    size_t before = 0;
    for (size_t i = 0; i < count && err == NKT_OK; before += pieces[i++].len) {
        size_t gone = done < pieces[i].len ? done : pieces[i].len;
        done -= gone;
        if (gone == pieces[i].len) continue;
        err = whole_write(s, pieces[i].ptr + gone, pieces[i].len - gone);
        s->earlier += before + gone;
    }
    return err;
}

static int whole_writev(scene *s, const nkt_str *pieces, size_t count) {
    s->earlier = 0;
    for (;;) {
        int err = nkt_conn_writev(s->a, pieces, count);
        if (scene_again(err)) {
            if (nkt_conn_written(s->a) == 0) continue;
            return whole_rest(s, pieces, count, nkt_conn_written(s->a));
        }
        if (err != NKT_EAGAIN) return err;
        err = scene_wait(s, NKT_WRITE);
        if (err != NKT_OK && !scene_again(err)) return err;
    }
}

static int whole_write_message(scene *s, const void *data, size_t len) {
    char head[4] = {(char)(len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len};
    nkt_str pieces[2];
    pieces[0].ptr = head;
    pieces[0].len = sizeof head;
    pieces[1].ptr = (const char *)data;
    pieces[1].len = len;
    for (;;) {
        int err = nkt_conn_write_message(s->a, data, len);
        if (scene_again(err)) {
            if (nkt_conn_written(s->a) == 0) continue;
            return whole_rest(s, pieces, 2, nkt_conn_written(s->a));
        }
        if (err != NKT_EAGAIN) return err;
        err = scene_wait(s, NKT_WRITE);
        if (err != NKT_OK && !scene_again(err)) return err;
    }
}

// What a late handle on a poller has under way leaves while somebody waits on
// that. Its peer is about to wait in the same thread, so it is done before.
static void scene_let_leave(scene *s) {
    nkt_event event;
    nkt_impair_stats stats;
    if (s->face->impaired != LATE || !s->face->polled) return;
    bool before = scene_tested;
    scene_tested = false;
    memset(&stats, 0, sizeof stats);
    for (int i = 0; i < LATE_MOST_MS || (stats.under_way > 0 && scene_left_ms(s) > 0); i++) {
        scene_sleep(1);
        nkt_poller_wait(s->poller, 0);
        while (nkt_poller_next(s->poller, &event) == NKT_OK) s->seen |= event.events;
        CHECK_INT(nkt_conn_impair_stats(s->a, NKT_WRITE, &stats), NKT_OK);
    }
    scene_tested = before;
}

static int whole_flush(scene *s) {
    int err;
    WHOLE(err, nkt_conn_flush(s->a), NKT_WRITE);
    if (err == NKT_OK) scene_let_leave(s);
    return err;
}

static int whole_shutdown_write(scene *s) {
    int err;
    WHOLE(err, nkt_conn_shutdown_write(s->a), NKT_WRITE);
    // It happens behind later calls, and here not all is taken at once.
    if (err == NKT_OK && s->face->impaired != BARE) err = whole_flush(s);
    return err;
}

// The peer resets. A Unix-domain socket knows that only as closing with unread
// input, which Linux reports as a reset.
static void scene_reset(scene *s) {
    if (s->face->carrier == CARRIER_UNIX) {
        CHECK_INT(whole_say(s, "?"), NKT_OK);
        CHECK_INT(whole_flush(s), NKT_OK);
        peer_close(&s->b);
    } else {
        peer_reset(&s->b);
    }
}

//------------------------------------------------------------------------------
// Checks of what comes next.

static int check_next_line(scene *s, const char *want, size_t len, const char *file, int line) {
    nkt_str view;
    memset(&view, 0xaa, sizeof view);
    int err = whole_line(s, &view);
    return test_check_int(err, NKT_OK, "the result of read_line", file, line) &&
           test_check_mem(view.ptr, view.len, want, len, "the line", file, line) &&
           test_check_int(view.ptr[view.len], 0, "the byte behind the line", file, line);
}

static int check_next_lines(scene *s, const char *want, const char *file, int line) {
    nkt_str view;
    memset(&view, 0xaa, sizeof view);
    int err = whole_lines(s, &view);
    return test_check_int(err, NKT_OK, "the result of read_lines", file, line) &&
           test_check_mem(view.ptr, view.len, want, strlen(want), "the lines", file, line);
}

static int check_next_until(scene *s, const char *delimiter, size_t delimiter_len,
                            const char *want, size_t len, const char *file, int line) {
    nkt_str view;
    memset(&view, 0xaa, sizeof view);
    int err = whole_until(s, delimiter, delimiter_len, &view);
    return test_check_int(err, NKT_OK, "the result of read_until", file, line) &&
           test_check_mem(view.ptr, view.len, want, len, "the view", file, line);
}

static int check_next_bytes(scene *s, const char *want, size_t len, const char *file, int line) {
    char got[512];
    memset(got, 0, sizeof got);
    int err = whole_exact(s, got, len);
    return test_check_int(err, NKT_OK, "the result of read_exact", file, line) &&
           test_check_mem(got, len, want, len, "what was read", file, line);
}

// What the peer received next.
static int check_peer_bytes(scene *s, const char *want, size_t len, const char *file, int line) {
    char got[512];
    size_t have = peer_recv_all(&s->b, got, len);
    return test_check_mem(got, have, want, len, "what the peer received", file, line);
}

#define CHECK_LINE(s, text) check_next_line(s, text, strlen(text), __FILE__, __LINE__)
#define CHECK_LINE_N(s, text, len) check_next_line(s, text, len, __FILE__, __LINE__)
#define CHECK_LINES(s, text) check_next_lines(s, text, __FILE__, __LINE__)
#define CHECK_UNTIL(s, delimiter, text)                                                  \
    check_next_until(s, delimiter, strlen(delimiter), text, strlen(text), __FILE__, __LINE__)
#define CHECK_BYTES(s, text) check_next_bytes(s, text, strlen(text), __FILE__, __LINE__)
#define CHECK_PEER(s, text) check_peer_bytes(s, text, strlen(text), __FILE__, __LINE__)
// The stream has ended, for every way of asking.
#define CHECK_END(s, err)                                                                \
    do {                                                                                 \
        nkt_str end_view;                                                                \
        char end_byte;                                                                   \
        CHECK_INT(whole_line(s, &end_view), err);                                        \
        CHECK_INT(whole_read(s, &end_byte, 1), err);                                     \
    } while (0)
// Waits until `len` bytes have arrived in the buffer of the tested end.
#define CHECK_ARRIVED(s, count)                                                          \
    do {                                                                                 \
        nkt_str arrived;                                                                 \
        if (CHECK_INT(whole_peek(s, count, &arrived), NKT_OK)) {                         \
            CHECK_INT((s)->short_view, false);                                           \
        }                                                                                \
    } while (0)

//------------------------------------------------------------------------------
// Bytes whose place can be told from their value, and threads that move them.

static unsigned char pattern_at(uint64_t offset) {
    return (unsigned char)(offset * 131 + (offset >> 8) * 7 + (offset >> 16));
}

static void pattern_fill(void *buf, uint64_t offset, size_t len) {
    unsigned char *bytes = (unsigned char *)buf;
    for (size_t i = 0; i < len; i++) bytes[i] = pattern_at(offset + i);
}

static bool pattern_is(const void *buf, uint64_t offset, size_t len) {
    const unsigned char *bytes = (const unsigned char *)buf;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != pattern_at(offset + i)) return false;
    }
    return true;
}

// Sends a text, or a pattern where there is none.
typedef struct sender {
    actor base;
    peer *to;
    const char *text;
    uint64_t len;
    size_t chunk;               // 0 = 64 KiB
    int32_t before_ms, pause_ms;
    int stop;
    uint64_t sent;
} sender;

static void sender_run(actor *base) {
    sender *self = (sender *)(void *)base;
    static const size_t most = 65536;
    char *buf = (char *)malloc(most);
    size_t chunk = self->chunk > 0 ? self->chunk : most;
    if (self->before_ms > 0) scene_sleep(self->before_ms);
    while (buf != NULL && self->sent < self->len &&
           __atomic_load_n(&self->stop, __ATOMIC_SEQ_CST) == 0) {
        size_t len = self->len - self->sent < chunk ? (size_t)(self->len - self->sent) : chunk;
        if (self->text != NULL) memcpy(buf, self->text + self->sent, len);
        else pattern_fill(buf, self->sent, len);
        if (!peer_send(self->to, buf, len)) break;
        self->sent += len;
        if (self->pause_ms > 0) scene_sleep(self->pause_ms);
    }
    free(buf);
}

static bool sender_start(sender *self, peer *to, const char *text, uint64_t len) {
    self->to = to;
    self->text = text;
    self->len = len;
    return actor_start(&self->base, sender_run);
}

static void sender_stop(sender *self) {
    __atomic_store_n(&self->stop, 1, __ATOMIC_SEQ_CST);
    actor_join(&self->base);
}

// Receives the pattern, to the end or `limit` bytes.
typedef struct receiver {
    actor base;
    peer *from;
    uint64_t limit;             // 0 = to the end
    size_t chunk;               // 0 = 64 KiB
    int32_t before_ms;
    int32_t pause_ms;           // after each 64 KiB
    uint64_t received;
    bool wrong;
    ptrdiff_t end;              // what came in the place of bytes
} receiver;

static void receiver_run(actor *base) {
    receiver *self = (receiver *)(void *)base;
    static const size_t most = 65536;
    char *buf = (char *)malloc(most);
    size_t chunk = self->chunk > 0 ? self->chunk : most;
    if (self->before_ms > 0) scene_sleep(self->before_ms);
    while (buf != NULL && (self->limit == 0 || self->received < self->limit)) {
        ptrdiff_t got = peer_recv(self->from, buf, chunk);
        if (got <= 0) {
            self->end = got;
            break;
        }
        if (!pattern_is(buf, self->received, (size_t)got)) self->wrong = true;
        uint64_t pauses = self->received / most;
        self->received += (uint64_t)got;
        if (self->pause_ms > 0 && self->received / most != pauses) scene_sleep(self->pause_ms);
    }
    free(buf);
}

static bool receiver_start(receiver *self, peer *from) {
    self->from = from;
    return actor_start(&self->base, receiver_run);
}

// Keeps what it receives; the starter frees `buf`.
typedef struct collector {
    actor base;
    peer *from;
    char *buf;
    size_t len, have;
} collector;

static void collector_run(actor *base) {
    collector *self = (collector *)(void *)base;
    self->have = peer_recv_all(self->from, self->buf, self->len);
}

static bool collector_start(collector *self, peer *from, size_t len) {
    self->from = from;
    self->len = len;
    self->buf = (char *)malloc(len);
    return CHECK(self->buf != NULL) && actor_start(&self->base, collector_run);
}

// Interrupts the tested end after a while.
typedef struct interrupter {
    actor base;
    nkt_conn *conn;
    int32_t before_ms;
} interrupter;

static void interrupter_run(actor *base) {
    interrupter *self = (interrupter *)(void *)base;
    scene_sleep(self->before_ms);
    nkt_conn_interrupt(self->conn);
}

#endif
