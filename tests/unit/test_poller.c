// test_poller.c - waiting for many things at once
//
// Every test runs on the system's own backend (epoll, kqueue) and on the
// portable one. What counts is counted: calls of the backend, receives,
// allocations. Where time is the subject, the clock is a false one.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "inside.h"
#include "probe.h"

static const nkt_sys_poll *backend;     // that the tests run on
static const char *backend_name;

static const char *named(const char *what) {
    static char name[160];
    snprintf(name, sizeof name, "%s: %s", backend_name, what);
    return name;
}

// A probe on the backend under test, and a poller on it.
static nkt_poller *start(probe *p) {
    nkt_poller *poller = NULL;
    nkt_poller_opts opts;
    memset(&opts, 0, sizeof opts);
    probe_open(p);
    p->base_poll = backend;
    opts.env = &p->env;
    CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
    return poller;
}

static void finish(probe *p, nkt_poller *poller) {
    nkt_poller_close(poller);
    probe_close(p);
}

static nkt_task *timer(probe *p, int32_t delay_ms, int32_t repeat_ms) {
    nkt_timer_opts opts;
    nkt_task *task = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    opts.delay_ms = delay_ms;
    opts.repeat_ms = repeat_ms;
    CHECK_INT(nkt_timer_start(&opts, &task), NKT_OK);
    return task;
}

// The one event of a wait, checked to be of `user`: its events, 0 if there is
// none.
static uint32_t only_event(nkt_poller *poller, int32_t timeout_ms, void *user) {
    nkt_event event;
    int count = nkt_poller_wait(poller, timeout_ms);
    if (count == 0) return 0;
    CHECK_INT(count, 1);
    CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
    CHECK(event.user == user);
    nkt_event other;
    CHECK_INT(nkt_poller_next(poller, &other), NKT_EAGAIN);
    return event.events;
}

static nkt_listener *listener_on(probe *p, const char *target, bool nonblocking) {
    nkt_listen_opts opts;
    nkt_listener *listener = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    opts.nonblocking = nonblocking;
    CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
    return listener;
}

static nkt_conn *connect_to(probe *p, nkt_listener *listener, bool nonblocking) {
    nkt_connect_opts opts;
    nkt_conn *conn = NULL;
    nkt_addr addr;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    opts.nonblocking = nonblocking;
    CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
    CHECK_INT(nkt_connect_addr(&addr, &opts, &conn), NKT_OK);
    return conn;
}

//------------------------------------------------------------------------------
// Objects of every kind that have something to tell
//------------------------------------------------------------------------------

enum { A_CONN, A_PAIR, A_LISTENER, A_TASK, A_FD, KINDS };
static const char *const kind_names[] = { "conn", "pair", "listener", "task", "fd" };

typedef struct object {
    int kind;
    nkt_conn *conn, *peer;
    nkt_listener *listener;
    nkt_task *task;
    nkt_wake wake;
} object;

static void object_open(probe *p, object *o, int kind) {
    nkt_conn_opts opts;
    memset(o, 0, sizeof *o);
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    opts.nonblocking = true;
    o->kind = kind;
    switch (kind) {
    case A_CONN: probe_tcp(p, false, true, &o->peer, &o->conn); break;
    case A_PAIR: CHECK_INT(nkt_conn_pair(&opts, &opts, &o->conn, &o->peer), NKT_OK); break;
    case A_LISTENER: o->listener = listener_on(p, "127.0.0.1:0", true); break;
    case A_TASK: o->task = timer(p, 0, 0); break;
    default: CHECK_INT(p->core.wake_open(&p->env, &o->wake), NKT_OK); break;
    }
}

// Makes that there is something to tell.
static void object_rouse(probe *p, object *o) {
    switch (o->kind) {
    case A_CONN: probe_say(o->peer, o->conn, "hello\n", &p->env); break;
    case A_PAIR: CHECK_INT(nkt_conn_write_str(o->peer, "hello\n"), NKT_OK); break;
    case A_LISTENER:
        o->peer = connect_to(p, o->listener, false);
        CHECK(probe_until(&p->env, nkt_listener_descriptor(o->listener), NKT_READ));
        break;
    case A_TASK: break;
    default:
        p->core.wake_post(&p->env, &o->wake);
        CHECK(probe_until(&p->env, o->wake.wait_fd, NKT_READ));
        break;
    }
}

static int object_add(nkt_poller *poller, object *o) {
    switch (o->kind) {
    case A_CONN: case A_PAIR: return nkt_poller_add_conn(poller, o->conn, o);
    case A_LISTENER: return nkt_poller_add_listener(poller, o->listener, o);
    case A_TASK: return nkt_poller_add_task(poller, o->task, o);
    default: return nkt_poller_add_fd(poller, o->wake.wait_fd, NKT_READ, o);
    }
}

static int object_remove(nkt_poller *poller, object *o) {
    switch (o->kind) {
    case A_CONN: case A_PAIR: return nkt_poller_remove_conn(poller, o->conn);
    case A_LISTENER: return nkt_poller_remove_listener(poller, o->listener);
    case A_TASK: return nkt_poller_remove_task(poller, o->task);
    default: return nkt_poller_remove_fd(poller, o->wake.wait_fd);
    }
}

// A task cannot be paused; taking it out is the nearest thing.
static int object_want(nkt_poller *poller, object *o, uint32_t events) {
    switch (o->kind) {
    case A_CONN: case A_PAIR: return nkt_poller_want(poller, o->conn, events);
    case A_LISTENER: return nkt_poller_want_listener(poller, o->listener, events);
    case A_TASK: return events == 0 ? object_remove(poller, o) : object_add(poller, o);
    default: return nkt_poller_want_fd(poller, o->wake.wait_fd, events);
    }
}

// Whether an event is this object's, and says what it should.
static bool object_is(const object *o, const nkt_event *event) {
    uint32_t events = o->kind == A_TASK ? NKT_DONE : NKT_READ;
    return event->user == o && (event->events & events) != 0 && event->conn == o->conn &&
           event->listener == o->listener && event->task == o->task &&
           (o->kind == A_FD ? event->fd == o->wake.wait_fd : event->fd == NKT_NO_FD);
}

// Does what the event asks for, until there is no more.
static void object_handle(probe *p, object *o) {
    nkt_str line;
    nkt_conn *conn = NULL;
    switch (o->kind) {
    case A_CONN: case A_PAIR:
        if (CHECK_INT(nkt_conn_read_line(o->conn, &line), NKT_OK)) CHECK_VIEW(line, "hello");
        CHECK_INT(nkt_conn_read_line(o->conn, &line), NKT_EAGAIN);
        break;
    case A_LISTENER:
        if (CHECK_INT(nkt_accept(o->listener, &conn), NKT_OK)) nkt_conn_close(conn);
        CHECK_INT(nkt_accept(o->listener, &conn), NKT_EAGAIN);
        break;
    case A_TASK: CHECK_INT(nkt_timer_finish(o->task), 1); break;
    default: p->core.wake_drain(&p->env, &o->wake); break;
    }
}

// A foreign descriptor is taken out first, as its contract asks.
static void object_close(probe *p, nkt_poller *poller, object *o) {
    switch (o->kind) {
    case A_CONN: case A_PAIR: nkt_conn_close(o->conn); break;
    case A_LISTENER: nkt_listener_close(o->listener); break;
    case A_TASK: nkt_task_close(o->task); break;
    default:
        if (poller != NULL) nkt_poller_remove_fd(poller, o->wake.wait_fd);
        p->core.wake_close(&p->env, &o->wake);
        break;
    }
    nkt_conn_close(o->peer);
}

// While one object's event is handled, another one with an event pending in the
// same round is closed, removed or paused: its event is gone.
enum { CLOSE, REMOVE, PAUSE, ACTIONS };
static const char *const action_names[] = { "closed", "removed", "paused" };

static void stale_event(int kind_a, int kind_b, int action) {
    probe p;
    object both[2];
    nkt_event event;
    nkt_poller *poller = start(&p);
    object_open(&p, &both[0], kind_a);
    object_open(&p, &both[1], kind_b);
    CHECK_INT(object_add(poller, &both[0]), NKT_OK);
    CHECK_INT(object_add(poller, &both[1]), NKT_OK);
    object_rouse(&p, &both[0]);
    object_rouse(&p, &both[1]);
    CHECK_INT(nkt_poller_wait(poller, 1000), 2);
    CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
    object *first = (object *)event.user, *second = &both[first == &both[0]];
    CHECK(object_is(first, &event));
    if (action == CLOSE) object_close(&p, poller, second);
    else if (action == REMOVE) CHECK_INT(object_remove(poller, second), NKT_OK);
    else CHECK_INT(object_want(poller, second, 0), NKT_OK);
    CHECK_INT(nkt_poller_next(poller, &event), NKT_EAGAIN);
    object_handle(&p, first);
    CHECK_INT(nkt_poller_wait(poller, 0), 0);
    if (action != CLOSE) {
        // What it had to say was not lost.
        int err = action == REMOVE ? object_add(poller, second)
                                   : object_want(poller, second, NKT_READ);
        CHECK_INT(err, NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, 1000), 1);
        CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
        CHECK(object_is(second, &event));
        object_handle(&p, second);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        object_close(&p, poller, second);
    }
    object_close(&p, poller, first);
    finish(&p, poller);
}

static void stale_events(void) {
    char what[80];
    for (int action = 0; action < ACTIONS; action++) {
        for (int a = 0; a < KINDS; a++) {
            for (int b = 0; b < KINDS; b++) {
                snprintf(what, sizeof what, "%s pending, a %s %s", kind_names[a], kind_names[b],
                         action_names[action]);
                TEST(named(what)) stale_event(a, b, action);
            }
        }
    }
}

// The same for an event that was fetched and is not settled: the object is on
// the list of those that are reported again.
static void fetched_event(int kind, int action) {
    probe p;
    object o;
    nkt_event event;
    nkt_poller *poller = start(&p);
    object_open(&p, &o, kind);
    CHECK_INT(object_add(poller, &o), NKT_OK);
    object_rouse(&p, &o);
    CHECK_INT(nkt_poller_wait(poller, 1000), 1);
    CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
    CHECK(object_is(&o, &event));
    if (action == CLOSE) object_close(&p, poller, &o);
    else if (action == REMOVE) CHECK_INT(object_remove(poller, &o), NKT_OK);
    else CHECK_INT(object_want(poller, &o, 0), NKT_OK);
    CHECK_INT(nkt_poller_wait(poller, 0), 0);
    if (action != CLOSE) object_close(&p, poller, &o);
    finish(&p, poller);
}

static void fetched_events(void) {
    char what[80];
    for (int action = 0; action < ACTIONS; action++) {
        for (int kind = 0; kind < KINDS; kind++) {
            snprintf(what, sizeof what, "%s fetched and %s", kind_names[kind],
                     action_names[action]);
            TEST(named(what)) fetched_event(kind, action);
        }
    }
}

// Posted by a cancel or an interrupt, and gone before the poller looks.
static void posted_one(int kind, int action) {
    probe p;
    object o;
    nkt_poller *poller = start(&p);
    object_open(&p, &o, kind);
    if (kind == A_TASK) {
        nkt_task_close(o.task);
        o.task = timer(&p, 1000000, 0);
    }
    CHECK_INT(object_add(poller, &o), NKT_OK);
    CHECK_INT(nkt_poller_wait(poller, 0), 0);
    if (kind == A_TASK) nkt_task_cancel(o.task);
    else if (kind == A_LISTENER) nkt_listener_interrupt(o.listener);
    else nkt_conn_interrupt(o.conn);
    if (action == CLOSE) object_close(&p, poller, &o);
    else CHECK_INT(object_remove(poller, &o), NKT_OK);
    CHECK_INT(nkt_poller_wait(poller, 0), 0);
    if (action != CLOSE) {
        CHECK_INT(object_add(poller, &o), NKT_OK);
        CHECK(only_event(poller, 0, &o) != 0);
        object_close(&p, poller, &o);
    }
    finish(&p, poller);
}

static void posted(void) {
    char what[80];
    for (int action = CLOSE; action <= REMOVE; action++) {
        for (int kind = 0; kind < A_FD; kind++) {
            snprintf(what, sizeof what, "%s posted and %s", kind_names[kind],
                     action_names[action]);
            TEST(named(what)) posted_one(kind, action);
        }
    }
}

// Bug 42: a transport that closes another handle from within one of its
// functions, while that one's event is in the same batch of the system's, or
// pending.
enum { WITHIN_NONE, WITHIN_SEND, WITHIN_RECV, WITHIN_WATCH, WITHIN_SHUTDOWN };
static const char *const within_names[] = { "none", "send", "recv", "watch", "shutdown_write" };

static nkt_conn *to_close[2];
static nkt_udp *udp_to_close[2];
static int closing_within;

static void close_other(nkt_conn *conn, int within) {
    nkt_conn **place = &to_close[conn == to_close[0]], *other = *place;
    if (within != closing_within || other == NULL) return;
    *place = NULL;
    nkt_conn_close(other);
}

static ptrdiff_t killer_recv(nkt_link *link, void *buf, size_t cap) {
    ptrdiff_t got = nkt_link_recv(link->below, buf, cap);
    if (got > 0) close_other(link->conn, WITHIN_RECV);
    return got;
}

static ptrdiff_t killer_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    ptrdiff_t sent = nkt_link_send(link->below, pieces, count);
    if (sent > 0) close_other(link->conn, WITHIN_SEND);
    return sent;
}

static int killer_shutdown(nkt_link *link) {
    close_other(link->conn, WITHIN_SHUTDOWN);
    return nkt_link_shutdown_write(link->below);
}

static void killer_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    close_other(link->conn, WITHIN_WATCH);
    nkt_link_watch(link->below, want, out);
}

static void killer_close(nkt_link *link, bool abort) {
    (void)link;
    (void)abort;
}

static const nkt_transport killer = {
    sizeof(nkt_transport), "killer", killer_recv, killer_send, killer_shutdown, killer_watch,
    killer_close, NULL, NULL, NULL, NULL,
};

// Events that are there, and that come, are of the one that is left.
static void check_left(nkt_poller *poller, const void *left) {
    nkt_event event;
    for (int turn = 0; turn < 2; turn++) {
        int count = 0;
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            CHECK(event.conn == left || event.udp == left);
            count++;
        }
        CHECK_RANGE(count, 0, 1);
        CHECK_RANGE(nkt_poller_wait(poller, 0), 0, 1);
    }
}

// Both have a queue, and now both have room: the first one served closes the
// other.
static void close_while_sending(probe *p, nkt_poller *poller, nkt_conn **peers, int within) {
    static char block[200000];
    nkt_fd fds[2] = { nkt_conn_descriptor(to_close[0]), nkt_conn_descriptor(to_close[1]) };
    for (int i = 0; i < 2; i++) {
        while (nkt_conn_queued(to_close[i]) == 0) {
            if (!CHECK_INT(nkt_conn_write(to_close[i], block, sizeof block), NKT_OK)) break;
        }
        if (within == WITHIN_SHUTDOWN) CHECK_INT(nkt_conn_shutdown_write(to_close[i]), NKT_OK);
    }
    closing_within = within;
    for (int turn = 0; turn < 1000 && to_close[0] != NULL && to_close[1] != NULL; turn++) {
        for (int i = 0; i < 2; i++) {
            while (nkt_conn_read(peers[i], block, sizeof block) > 0) continue;
            CHECK(probe_until(&p->env, fds[i], NKT_WRITE));
        }
        CHECK_RANGE(nkt_poller_wait(poller, 0), 0, 1);
        if (within == WITHIN_SEND) break;
    }
}

// Both have something to read, and both events are there.
static void close_while_reading(probe *p, nkt_poller *poller, nkt_conn **peers, int within) {
    nkt_event event;
    char byte = 0;
    for (int i = 0; i < 2; i++) probe_say(peers[i], to_close[i], "x", &p->env);
    CHECK_INT(nkt_poller_wait(poller, 1000), 2);
    CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
    if (within == WITHIN_RECV) closing_within = within;
    CHECK_INT(nkt_conn_read(event.conn, &byte, 1), 1);
    CHECK_INT(byte, 'x');
    closing_within = within;
    CHECK_INT(nkt_conn_read(event.conn, &byte, 1), NKT_EAGAIN);
    // A wait asks again what to wait for.
    if (within == WITHIN_WATCH) {
        CHECK_INT(nkt_poller_want(poller, event.conn, 0), NKT_OK);
        CHECK_RANGE(nkt_poller_wait(poller, 0), 0, 1);
        if (to_close[0] != NULL && to_close[1] != NULL) {
            CHECK_INT(nkt_poller_want(poller, event.conn, NKT_READ), NKT_OK);
            CHECK_RANGE(nkt_poller_wait(poller, 0), 0, 1);
        }
    }
}

static void closed_within_conn(int within) {
    probe p;
    nkt_conn *peers[2] = { NULL, NULL };
    nkt_poller *poller = start(&p);
    closing_within = WITHIN_NONE;
    for (int i = 0; i < 2; i++) {
        to_close[i] = NULL;
        probe_tcp(&p, true, true, &peers[i], &to_close[i]);
        CHECK_INT(nkt_conn_push(to_close[i], &killer, NULL), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, to_close[i], NULL), NKT_OK);
    }
    if (within == WITHIN_SEND || within == WITHIN_SHUTDOWN) {
        close_while_sending(&p, poller, peers, within);
    } else {
        close_while_reading(&p, poller, peers, within);
    }
    CHECK((to_close[0] == NULL) != (to_close[1] == NULL));
    closing_within = WITHIN_NONE;
    check_left(poller, to_close[0] != NULL ? to_close[0] : to_close[1]);
    for (int i = 0; i < 2; i++) {
        nkt_conn_close(to_close[i]);
        nkt_conn_close(peers[i]);
    }
    finish(&p, poller);
}

static void close_other_udp(nkt_udp *udp, int within) {
    nkt_udp **place = &udp_to_close[udp == udp_to_close[0]], *other = *place;
    if (within != closing_within || other == NULL) return;
    *place = NULL;
    nkt_udp_close(other);
}

static int udp_killer_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    int got = nkt_udp_link_recv(link->below, list, count);
    if (got > 0) close_other_udp(link->udp, WITHIN_RECV);
    return got;
}

static int udp_killer_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    close_other_udp(link->udp, WITHIN_SEND);
    return nkt_udp_link_send(link->below, list, count);
}

static void udp_killer_watch(nkt_udp_link *link, uint32_t want, nkt_interest *out) {
    close_other_udp(link->udp, WITHIN_WATCH);
    nkt_udp_link_watch(link->below, want, out);
}

static void udp_killer_close(nkt_udp_link *link) {
    (void)link;
}

static const nkt_datagram_transport udp_killer = {
    sizeof(nkt_datagram_transport), "killer", udp_killer_recv, udp_killer_send, udp_killer_watch,
    udp_killer_close, NULL, NULL, NULL,
};

static void closed_within_udp(int within) {
    probe p;
    nkt_udp *peer = NULL;
    nkt_udp_opts opts;
    nkt_event event;
    nkt_addr where;
    char byte = 0;
    nkt_poller *poller = start(&p);
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.nonblocking = true;
    closing_within = WITHIN_NONE;
    CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &peer), NKT_OK);
    for (int i = 0; i < 2; i++) {
        udp_to_close[i] = NULL;
        CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &udp_to_close[i]), NKT_OK);
        CHECK_INT(nkt_udp_push(udp_to_close[i], &udp_killer, NULL), NKT_OK);
        CHECK_INT(nkt_poller_add_udp(poller, udp_to_close[i], NULL), NKT_OK);
        CHECK_INT(nkt_udp_local(udp_to_close[i], &where), NKT_OK);
        CHECK_INT(nkt_udp_send(peer, "x", 1, &where), 1);
        CHECK(probe_until(&p.env, nkt_udp_descriptor(udp_to_close[i]), NKT_READ));
    }
    CHECK_INT(nkt_poller_wait(poller, 1000), 2);
    CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
    CHECK_INT(nkt_udp_local(peer, &where), NKT_OK);
    if (within != WITHIN_WATCH) closing_within = within;
    if (within == WITHIN_SEND) CHECK_INT(nkt_udp_send(event.udp, "y", 1, &where), 1);
    CHECK_INT(nkt_udp_recv(event.udp, &byte, 1, NULL), 1);
    CHECK_INT(byte, 'x');
    closing_within = within;
    CHECK_INT(nkt_udp_recv(event.udp, &byte, 1, NULL), NKT_EAGAIN);
    if (within == WITHIN_WATCH) {
        CHECK_INT(nkt_poller_want_udp(poller, event.udp, NKT_READ | NKT_WRITE), NKT_OK);
        CHECK_RANGE(nkt_poller_wait(poller, 0), 0, 1);
    }
    CHECK((udp_to_close[0] == NULL) != (udp_to_close[1] == NULL));
    closing_within = WITHIN_NONE;
    check_left(poller, udp_to_close[0] != NULL ? udp_to_close[0] : udp_to_close[1]);
    for (int i = 0; i < 2; i++) nkt_udp_close(udp_to_close[i]);
    nkt_udp_close(peer);
    finish(&p, poller);
}

static void closed_from_within(void) {
    char what[80];
    for (int within = WITHIN_SEND; within <= WITHIN_SHUTDOWN; within++) {
        snprintf(what, sizeof what, "bug 42: closed within %s of another one's transport",
                 within_names[within]);
        TEST(named(what)) { closed_within_conn(within); }
        if (within == WITHIN_SHUTDOWN) continue;
        snprintf(what, sizeof what, "bug 42: closed within %s of another one's datagrams",
                 within_names[within]);
        TEST(named(what)) { closed_within_udp(within); }
    }
}

// Reported again and again until it is dealt with; only a task's result is
// news, and told once.
static void reported_until_handled(void) {
    char what[80];
    for (int kind = 0; kind < KINDS; kind++) {
        snprintf(what, sizeof what, "%s is reported until it is dealt with", kind_names[kind]);
        TEST(named(what)) {
            probe p;
            object o;
            nkt_poller *poller = start(&p);
            object_open(&p, &o, kind);
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
            CHECK_INT(object_add(poller, &o), NKT_OK);
            if (kind != A_TASK) CHECK_INT(nkt_poller_wait(poller, 0), 0);
            object_rouse(&p, &o);
            CHECK_INT(only_event(poller, 0, &o), kind == A_TASK ? NKT_DONE : NKT_READ);
            for (int i = 0; i < 3; i++) {
                CHECK_INT(only_event(poller, 0, &o), kind == A_TASK ? 0 : NKT_READ);
            }
            object_handle(&p, &o);
            CHECK_INT(only_event(poller, 0, &o), 0);
            object_close(&p, poller, &o);
            finish(&p, poller);
        }
    }
}

static void adding(void) {
    char what[80];
    for (int kind = 0; kind < KINDS; kind++) {
        snprintf(what, sizeof what, "%s is added once, to one poller of its env",
                 kind_names[kind]);
        TEST(named(what)) {
            probe p, q;
            object o;
            nkt_poller *poller = start(&p), *foreign = start(&q), *second = NULL;
            nkt_poller_opts opts;
            memset(&opts, 0, sizeof opts);
            opts.env = &p.env;
            CHECK_INT(nkt_poller_open(&opts, &second), NKT_OK);
            object_open(&p, &o, kind);
            CHECK_INT(object_remove(poller, &o), NKT_ENOTFOUND);
            if (kind != A_FD) CHECK_INT(object_add(foreign, &o), NKT_EINVAL);
            if (kind != A_TASK) CHECK_INT(object_want(poller, &o, 0), NKT_ENOTFOUND);
            CHECK_INT(object_add(poller, &o), NKT_OK);
            CHECK_INT(object_add(poller, &o), NKT_EBUSY);
            if (kind != A_FD) CHECK_INT(object_add(second, &o), NKT_EBUSY);
            CHECK_INT(object_remove(second, &o), NKT_ENOTFOUND);
            CHECK_INT(object_remove(poller, &o), NKT_OK);
            CHECK_INT(object_remove(poller, &o), NKT_ENOTFOUND);
            CHECK_INT(object_add(second, &o), NKT_OK);
            object_rouse(&p, &o);
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
            CHECK(only_event(second, 1000, &o) != 0);
            // A closed poller leaves its handles usable.
            nkt_poller_close(second);
            object_handle(&p, &o);
            CHECK_INT(object_add(poller, &o), NKT_OK);
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
            object_close(&p, poller, &o);
            finish(&q, foreign);
            finish(&p, poller);
        }
    }
    TEST(named("what is refused")) {
        probe p;
        nkt_conn *blocking = NULL, *peer = NULL;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, true, &blocking, &peer);
        nkt_listener *listener = listener_on(&p, "127.0.0.1:0", false);
        CHECK_INT(nkt_poller_add_conn(poller, blocking, NULL), NKT_EINVAL);
        CHECK_INT(nkt_poller_add_listener(poller, listener, NULL), NKT_EINVAL);
        CHECK_INT(nkt_poller_add_fd(poller, NKT_NO_FD, NKT_READ, NULL), NKT_EINVAL);
        CHECK_INT(nkt_poller_add_fd(poller, 5, NKT_DONE, NULL), NKT_EINVAL);
        CHECK_INT(nkt_poller_add_conn(poller, peer, NULL), NKT_OK);
        CHECK_INT(nkt_poller_want(poller, peer, NKT_DONE), NKT_EINVAL);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        nkt_listener_close(listener);
        nkt_conn_close(blocking);
        nkt_conn_close(peer);
        nkt_poller_close(NULL);
        finish(&p, poller);
    }
}

//------------------------------------------------------------------------------
// Reading
//------------------------------------------------------------------------------

static void unread_lines(void) {
    TEST(named("a line left unread is reported again at once")) {
        probe p;
        nkt_conn *peer = NULL, *conn = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, true, &peer, &conn);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        probe_say(peer, conn, "one\ntwo\nthree\n", &p.env);
        const char *const texts[] = { "one", "two", "three" };
        for (int i = 0; i < 3; i++) {
            CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
            CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
            CHECK_VIEW(line, texts[i]);
            // The kernel has no more, yet an outer loop may not sleep.
            CHECK_INT(nkt_poller_timeout_ms(poller), 0);
        }
        CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
        CHECK_INT(nkt_poller_timeout_ms(poller), -1);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
    TEST(named("input that was there before it was added is reported")) {
        probe p;
        nkt_conn *peer = NULL, *conn = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, true, &peer, &conn);
        probe_say(peer, conn, "one\ntwo\n", &p.env);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        CHECK_INT(only_event(poller, 0, conn), NKT_READ);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_VIEW(line, "two");
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
}

static void end_of_stream(void) {
    TEST(named("the end is told once, and then there is quiet")) {
        probe p;
        nkt_conn *peer = NULL, *conn = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, true, &peer, &conn);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        CHECK_INT(nkt_conn_write_str(peer, "last words"), NKT_OK);
        CHECK_INT(nkt_conn_shutdown_write(peer), NKT_OK);
        int err = NKT_EAGAIN;
        for (int i = 0; i < 100 && err == NKT_EAGAIN; i++) {
            CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
            err = nkt_conn_read_line(conn, &line);
        }
        if (CHECK_INT(err, NKT_OK)) CHECK_VIEW(line, "last words");
        CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EOF);
        probe_count_again(&p);
        CHECK_INT(nkt_poller_wait(poller, 20), 0);
        CHECK_RANGE(probe_calls(&p, PROBE_POLL_WAIT), 1, 3);
        // The other direction lives on.
        CHECK_INT(nkt_conn_write_str(conn, "good bye\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(peer, &line), NKT_OK);
        CHECK_VIEW(line, "good bye");
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
    TEST(named("quiet after the end, with a time-out that was running")) {
        probe p;
        nkt_conn *peer = NULL, *conn = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, true, &peer, &conn);
        p.fake = true;
        CHECK_INT(nkt_conn_set_option(conn, NKT_OPT_READ_TIMEOUT_MS, 1000), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
        nkt_conn_close(peer);
        CHECK(probe_until(&p.env, nkt_conn_descriptor(conn), NKT_READ));
        CHECK_INT(only_event(poller, 100, conn), NKT_READ);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EOF);
        p.now += 2000 * PROBE_MS;
        for (int i = 0; i < 3; i++) CHECK_INT(nkt_poller_wait(poller, 100), 0);
        nkt_conn_close(conn);
        finish(&p, poller);
    }
}

// A transport whose peer never stops sending.
static long flood_receives;

static ptrdiff_t flood_recv(nkt_link *link, void *buf, size_t cap) {
    (void)link;
    size_t count = cap < 1000 ? cap : 1000;
    memset(buf, 'x', count);
    flood_receives++;
    return (ptrdiff_t)count;
}

static ptrdiff_t flood_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    (void)link;
    (void)count;
    return (ptrdiff_t)pieces[0].len;
}

static void flood_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    (void)link;
    (void)want;
    out->ready = true;
}

static void flood_close(nkt_link *link, bool abort) {
    (void)link;
    (void)abort;
}

static const nkt_transport flood = {
    sizeof(nkt_transport), "flood", flood_recv, flood_send, NULL, flood_watch, flood_close,
    NULL, NULL, NULL, NULL,
};

static void fairness(void) {
    TEST(named("a busy peer gets 16 receives a turn, and the others theirs")) {
        probe p;
        nkt_conn *peer = NULL, *conn = NULL, *busy = NULL;
        nkt_conn_opts opts;
        nkt_event event;
        nkt_str line;
        char room[1000];
        nkt_poller *poller = start(&p);
        memset(&opts, 0, sizeof opts);
        opts.env = &p.env;
        opts.nonblocking = true;
        probe_tcp(&p, false, true, &peer, &conn);
        CHECK_INT(nkt_conn_open_custom(&flood, NULL, &opts, &busy), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, busy, busy), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        for (int turn = 0; turn < 10; turn++) {
            probe_say(peer, conn, "my turn\n", &p.env);
            flood_receives = 0;
            CHECK_INT(nkt_poller_wait(poller, 5000), 2);
            while (nkt_poller_next(poller, &event) == NKT_OK) {
                if (event.conn == busy) {
                    while (nkt_conn_read(busy, room, sizeof room) > 0) continue;
                    CHECK_INT(flood_receives, 16);
                } else {
                    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
                    CHECK_VIEW(line, "my turn");
                    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
                }
            }
        }
        nkt_conn_close(busy);
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
}

static void pausing_one(bool abort, bool buffered) {
    probe p;
    nkt_conn *peer = NULL, *conn = NULL;
    nkt_str line;
    nkt_poller *poller = start(&p);
    probe_tcp(&p, false, true, &peer, &conn);
    CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
    if (buffered) {
        probe_say(peer, conn, "first\nsecond\n", &p.env);
        CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
    }
    CHECK_INT(nkt_poller_want(poller, conn, 0), NKT_OK);
    if (!buffered) CHECK_INT(nkt_conn_write_str(peer, "second\n"), NKT_OK);
    if (abort) nkt_conn_abort(peer);
    else nkt_conn_close(peer);
    CHECK(probe_until(&p.env, nkt_conn_descriptor(conn), NKT_READ));
    probe_count_again(&p);
    CHECK_INT(nkt_poller_wait(poller, 20), 0);
    CHECK_RANGE(probe_calls(&p, PROBE_POLL_WAIT), 1, 3);
    CHECK_INT(nkt_poller_want(poller, conn, NKT_READ | NKT_WRITE), NKT_OK);
    int err = NKT_EAGAIN;
    bool got_second = false;
    for (int i = 0; i < 100 && (err == NKT_EAGAIN || err == NKT_OK); i++) {
        CHECK_INT(only_event(poller, 5000, conn) & NKT_READ, NKT_READ);
        err = nkt_conn_read_line(conn, &line);
        if (err == NKT_OK) got_second = CHECK_VIEW(line, "second");
    }
#ifdef _WIN32
    // Wine's poll reads a socket's error, and with that takes it away.
    if (abort && err == NKT_EOF) err = NKT_ERESET;
#endif
    CHECK_INT(err, abort ? NKT_ERESET : NKT_EOF);
    // A reset throws away what the kernel had, not what we had.
    if (!abort || buffered) CHECK(got_second);
    nkt_conn_close(conn);
    finish(&p, poller);
}

static void pausing(void) {
    TEST(named("paused, then the peer hangs up")) pausing_one(false, false);
    TEST(named("paused, then the peer resets")) pausing_one(true, false);
    TEST(named("paused with a line buffered, then the peer hangs up")) pausing_one(false, true);
    TEST(named("paused with a line buffered, then the peer resets")) pausing_one(true, true);
    TEST(named("paused with a line buffered, and nothing more comes")) {
        probe p;
        nkt_conn *peer = NULL, *conn = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, true, &peer, &conn);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        probe_say(peer, conn, "first\nsecond\n", &p.env);
        CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_INT(nkt_poller_want(poller, conn, 0), NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        CHECK_INT(nkt_poller_want(poller, conn, NKT_READ), NKT_OK);
        CHECK_INT(only_event(poller, 0, conn), NKT_READ);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_VIEW(line, "second");
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
    TEST(named("a time-out of a paused connection is told when it is resumed")) {
        probe p;
        nkt_conn *peer = NULL, *conn = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, true, &peer, &conn);
        p.fake = true;
        CHECK_INT(nkt_conn_set_option(conn, NKT_OPT_READ_TIMEOUT_MS, 500), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
        CHECK_INT(nkt_poller_want(poller, conn, 0), NKT_OK);
        for (int i = 0; i < 3; i++) CHECK_INT(nkt_poller_wait(poller, 1000), 0);
        CHECK_INT(p.now, 3000 * PROBE_MS);
        CHECK_INT(nkt_poller_want(poller, conn, NKT_READ), NKT_OK);
        CHECK_INT(only_event(poller, 1000, conn), NKT_READ);
        CHECK_INT(p.now, 3000 * PROBE_MS);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_ETIMEDOUT);
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
    TEST(named("a paused listener leaves its peers in the queue")) {
        probe p;
        nkt_conn *peer, *conn = NULL;
        nkt_poller *poller = start(&p);
        nkt_listener *listener = listener_on(&p, "127.0.0.1:0", true);
        CHECK_INT(nkt_poller_add_listener(poller, listener, listener), NKT_OK);
        CHECK_INT(nkt_poller_want_listener(poller, listener, 0), NKT_OK);
        peer = connect_to(&p, listener, false);
        CHECK(probe_until(&p.env, nkt_listener_descriptor(listener), NKT_READ));
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        CHECK_INT(nkt_poller_want_listener(poller, listener, NKT_READ), NKT_OK);
        CHECK_INT(only_event(poller, 5000, listener), NKT_READ);
        CHECK_INT(nkt_accept(listener, &conn), NKT_OK);
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        nkt_listener_close(listener);
        finish(&p, poller);
    }
}

//------------------------------------------------------------------------------
// Writing and connecting
//------------------------------------------------------------------------------

// Reads what has come on a nonblocking connection and throws it away.
static uint64_t drain(nkt_conn *conn) {
    static char room[65536];
    uint64_t total = 0;
    for (;;) {
        ptrdiff_t count = nkt_conn_read(conn, room, sizeof room);
        if (count <= 0) return total;
        total += (uint64_t)count;
    }
}

// Fills the queue, then lets the peer read until the poller says NKT_WRITE.
static void writable_once(bool by_flush) {
    static char block[10000];
    probe p;
    nkt_conn *peer = NULL, *conn = NULL;
    nkt_event event;
    nkt_poller *poller = start(&p);
    probe_tcp(&p, true, true, &peer, &conn);
    CHECK_INT(nkt_conn_set_option(conn, NKT_OPT_QUEUE_MAX, 100000), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
    int err = NKT_OK;
    uint64_t written = 0, read = 0;
    while (err == NKT_OK && (!by_flush || nkt_conn_queued(conn) == 0)) {
        err = nkt_conn_write(conn, block, sizeof block);
        if (err == NKT_OK) written += sizeof block;
        // Being able to write is no news to one who was never refused.
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
    }
    if (by_flush) err = nkt_conn_flush(conn);
    CHECK_INT(err, NKT_EAGAIN);
    CHECK(nkt_conn_queued(conn) > 0);
    int told = 0;
    for (int i = 0; i < 10000 && (read < written || told == 0); i++) {
        read += drain(peer);
        if (nkt_poller_wait(poller, 0) == 0) continue;
        CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
        CHECK_INT(event.events, NKT_WRITE);
        if (by_flush) CHECK_INT(nkt_conn_queued(conn), 0);
        else CHECK(nkt_conn_queued(conn) + sizeof block <= 100000);
        told++;
    }
    CHECK_INT(told, 1);
    CHECK_INT(read, written);
    CHECK_INT(nkt_conn_queued(conn), 0);
    for (int i = 0; i < 3; i++) CHECK_INT(nkt_poller_wait(poller, 0), 0);
    nkt_conn_close(conn);
    nkt_conn_close(peer);
    finish(&p, poller);
}

static void writing(void) {
    TEST(named("NKT_WRITE once, after a write that said NKT_EAGAIN")) writable_once(false);
    TEST(named("NKT_WRITE once, after a flush that said NKT_EAGAIN")) writable_once(true);
    TEST(named("no NKT_WRITE for a queue that nobody was refused by")) {
        static char block[200000];
        probe p;
        nkt_conn *peer = NULL, *conn = NULL;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, true, true, &peer, &conn);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        uint64_t written = 0, read = 0;
        while (nkt_conn_queued(conn) == 0) {
            if (!CHECK_INT(nkt_conn_write(conn, block, sizeof block), NKT_OK)) break;
            written += sizeof block;
        }
        for (int i = 0; i < 10000 && read < written; i++) {
            read += drain(peer);
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
        }
        CHECK_INT(read, written);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
}

// What a program hears that connects and waits for NKT_CONNECTED.
enum { JUST_WAIT, WRITE_FIRST, WRITE_MUCH_FIRST, READ_FIRST, FINISHED_FIRST, ADD_LATE };

static void connected_once(int how, bool refused) {
    probe p;
    nkt_conn *conn, *peer = NULL;
    nkt_str line;
    nkt_event event;
    nkt_poller *poller = start(&p);
    nkt_listener *listener = listener_on(&p, "127.0.0.1:0", true);
    nkt_listener *unused = listener_on(&p, "127.0.0.1:0", true);
    nkt_addr addr;
    nkt_connect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.nonblocking = true;
    CHECK_INT(nkt_listener_local(refused ? unused : listener, &addr), NKT_OK);
    nkt_listener_close(unused);
    conn = NULL;
    CHECK_INT(nkt_connect_addr(&addr, &opts, &conn), NKT_OK);
    // The kernel is given the time to end it behind our back.
    if (!refused) CHECK(probe_until(&p.env, nkt_listener_descriptor(listener), NKT_READ));
    if (how != ADD_LATE) CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
    int err = NKT_OK;
    for (int i = 0; how >= WRITE_FIRST && how <= WRITE_MUCH_FIRST && i < how * 2; i++) {
        err = nkt_conn_write_str(conn, "hello\n");
        CHECK(err == NKT_OK || (refused && err == NKT_EREFUSED));
    }
    if (how == READ_FIRST || how == ADD_LATE) {
        err = nkt_conn_read_line(conn, &line);
        CHECK(err == NKT_EAGAIN || (refused && err == NKT_EREFUSED));
    }
    if (how == ADD_LATE) CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
    int told = 0;
    for (int i = 0; i < 20 && told == 0; i++) {
        nkt_poller_wait(poller, 100);
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            told += (event.events & NKT_CONNECTED) != 0;
        }
    }
    CHECK_INT(told, 1);
    CHECK_INT(nkt_connect_finish(conn), refused ? NKT_EREFUSED : NKT_OK);
    if (refused) CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EREFUSED);
    else CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
    for (int i = 0; i < 3; i++) CHECK_INT(nkt_poller_wait(poller, 0), 0);
    if (!refused) CHECK_INT(nkt_accept(listener, &peer), NKT_OK);
    nkt_conn_close(peer);
    nkt_conn_close(conn);
    nkt_listener_close(listener);
    finish(&p, poller);
}

static void connecting(void) {
    TEST(named("NKT_CONNECTED once")) connected_once(JUST_WAIT, false);
    TEST(named("NKT_CONNECTED once, written before")) connected_once(WRITE_FIRST, false);
    TEST(named("NKT_CONNECTED once, when a write noticed")) {
        connected_once(WRITE_MUCH_FIRST, false);
    }
    TEST(named("NKT_CONNECTED once, when a read noticed")) connected_once(READ_FIRST, false);
    TEST(named("NKT_CONNECTED once, added when it was over")) connected_once(ADD_LATE, false);
    TEST(named("refused: NKT_CONNECTED once")) connected_once(JUST_WAIT, true);
    TEST(named("refused: NKT_CONNECTED once, written before")) connected_once(WRITE_FIRST, true);
    TEST(named("nkt_connect_finish takes the event back")) {
        probe p;
        nkt_poller *poller = start(&p);
        nkt_listener *listener = listener_on(&p, "127.0.0.1:0", true);
        nkt_conn *conn = connect_to(&p, listener, true);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        CHECK(probe_until(&p.env, nkt_listener_descriptor(listener), NKT_READ));
        int err = NKT_EAGAIN;
        for (int i = 0; i < 5000 && err == NKT_EAGAIN; i++) err = nkt_connect_finish(conn);
        CHECK_INT(err, NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        nkt_conn_close(conn);
        nkt_listener_close(listener);
        finish(&p, poller);
    }
}

//------------------------------------------------------------------------------
// Waking
//------------------------------------------------------------------------------

#ifndef NETKIT_NO_THREADS
typedef struct waker {
    nkt_poller *poller;
    nkt_task *cancel;
    nkt_conn *interrupt;
    uint32_t done;
} waker;

static void wake_from_thread(void *arg) {
    waker *w = (waker *)arg;
    if (w->cancel != NULL) nkt_task_cancel(w->cancel);
    else if (w->interrupt != NULL) nkt_conn_interrupt(w->interrupt);
    else nkt_poller_wake(w->poller);
    __atomic_store_n(&w->done, 1, __ATOMIC_SEQ_CST);
}

// Both the poller and the memory of the waker outlive the thread.
static void waker_join(waker *w) {
    while (__atomic_load_n(&w->done, __ATOMIC_SEQ_CST) == 0) probe_yield();
}

static void waking_from_threads(void) {
    TEST(named("woken by another thread, a wait without end gives no event")) {
        probe p;
        waker w;
        nkt_poller *poller = start(&p);
        memset(&w, 0, sizeof w);
        w.poller = poller;
        CHECK_INT(nkt_thread_start(&p.env, wake_from_thread, &w), NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, -1), 0);
        waker_join(&w);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        finish(&p, poller);
    }
    TEST(named("canceled by another thread, a timer is done")) {
        probe p;
        waker w;
        nkt_poller *poller = start(&p);
        memset(&w, 0, sizeof w);
        w.cancel = timer(&p, 1000000, 0);
        CHECK_INT(nkt_poller_add_task(poller, w.cancel, &w), NKT_OK);
        CHECK_INT(nkt_thread_start(&p.env, wake_from_thread, &w), NKT_OK);
        CHECK_INT(only_event(poller, -1, &w), NKT_DONE);
        CHECK_INT(nkt_timer_finish(w.cancel), NKT_ECANCELED);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        waker_join(&w);
        nkt_task_close(w.cancel);
        finish(&p, poller);
    }
    TEST(named("interrupted by another thread, a connection is ready and says so")) {
        probe p;
        waker w;
        nkt_conn *peer = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        memset(&w, 0, sizeof w);
        probe_tcp(&p, false, true, &peer, &w.interrupt);
        CHECK_INT(nkt_poller_add_conn(poller, w.interrupt, &w), NKT_OK);
        CHECK_INT(nkt_thread_start(&p.env, wake_from_thread, &w), NKT_OK);
        CHECK(only_event(poller, -1, &w) & NKT_READ);
        CHECK_INT(nkt_conn_read_line(w.interrupt, &line), NKT_ECANCELED);
        CHECK_INT(nkt_conn_write_str(w.interrupt, "x"), NKT_ECANCELED);
        for (int i = 0; i < 3; i++) CHECK_INT(nkt_poller_wait(poller, 0), 0);
        waker_join(&w);
        nkt_conn_close(w.interrupt);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
}
#endif

static void waking(void) {
    TEST(named("a wake before the wait ends that one, and no other")) {
        probe p;
        nkt_poller *poller = start(&p);
        for (int i = 0; i < 3; i++) nkt_poller_wake(poller);
        CHECK_INT(probe_calls(&p, PROBE_WAKE_POST), 1);
        probe_count_again(&p);
        CHECK_INT(nkt_poller_wait(poller, -1), 0);
        CHECK_INT(probe_calls(&p, PROBE_POLL_WAIT), 1);
        p.fake = true;
        CHECK_INT(nkt_poller_wait(poller, 70), 0);
        CHECK_INT(p.now, 70 * PROBE_MS);
        finish(&p, poller);
    }
    TEST(named("a wake beside an event")) {
        probe p;
        object o;
        nkt_poller *poller = start(&p);
        object_open(&p, &o, A_PAIR);
        CHECK_INT(object_add(poller, &o), NKT_OK);
        object_rouse(&p, &o);
        nkt_poller_wake(poller);
        CHECK_INT(only_event(poller, -1, &o), NKT_READ);
        object_handle(&p, &o);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        object_close(&p, poller, &o);
        finish(&p, poller);
    }
    TEST(named("a task that was canceled before it was added is done")) {
        probe p;
        nkt_poller *poller = start(&p);
        nkt_task *task = timer(&p, 1000000, 0);
        p.fake = true;
        nkt_task_cancel(task);
        CHECK_INT(nkt_poller_add_task(poller, task, task), NKT_OK);
        CHECK_INT(only_event(poller, 10, task), NKT_DONE);
        CHECK_INT(nkt_timer_finish(task), NKT_ECANCELED);
        nkt_task_close(task);
        finish(&p, poller);
    }
    TEST(named("events in batches")) {
        probe p;
        object o[10];
        nkt_event events[10];
        nkt_poller *poller = start(&p);
        for (int i = 0; i < 10; i++) {
            object_open(&p, &o[i], A_TASK);
            CHECK_INT(object_add(poller, &o[i]), NKT_OK);
        }
        CHECK_INT(nkt_poller_wait(poller, 0), 10);
        CHECK_INT(nkt_poller_next_many(poller, events, 0), 0);
        CHECK_INT(nkt_poller_next_many(poller, events, 4), 4);
        CHECK_INT(nkt_poller_next_many(poller, events + 4, 4), 4);
        object_close(&p, poller, &o[9]);
        CHECK_INT(nkt_poller_next_many(poller, events + 8, 4), 1);
        CHECK_INT(nkt_poller_next_many(poller, events, 4), 0);
        for (int i = 0; i < 9; i++) {
            CHECK(object_is(&o[i], &events[i]));
            object_close(&p, poller, &o[i]);
        }
        finish(&p, poller);
    }
}

//------------------------------------------------------------------------------
// Time, on a false clock
//------------------------------------------------------------------------------

typedef struct start_time {
    const char *name;
    int64_t ms;
} start_time;

// Where a clock of 32 bits of milliseconds would go wrong is in the middle.
static const start_time start_times[] = {
    { "time 0", 0 },
    { "2^31 ms less 5 s", 2147483648LL - 5000 },
    { "2^32 ms less 5 s", 4294967296LL - 5000 },
    { "a hundred years", 3153600000000LL },
};

static void timers_at(const start_time *at) {
    probe p;
    nkt_event event;
    nkt_poller *poller = start(&p);
    p.fake = true;
    p.now = at->ms * PROBE_MS;
    int64_t begin = p.now;
    static const int32_t delays[] = { 7000, 3000, 4999, 5000, 5001, 1, 10000, 3000 };
    static const int32_t order[] = { 1, 3000, 3000, 4999, 5000, 5001, 7000, 10000 };
    nkt_task *tasks[8];
    for (int i = 0; i < 8; i++) {
        tasks[i] = timer(&p, delays[i], 0);
        CHECK_INT(nkt_poller_add_task(poller, tasks[i], &tasks[i]), NKT_OK);
    }
    CHECK_INT(nkt_poller_timeout_ms(poller), 1);
    for (int fired = 0; fired < 8;) {
        if (!CHECK(nkt_poller_wait(poller, -1) > 0)) break;
        while (nkt_poller_next(poller, &event) == NKT_OK && fired < 8) {
            nkt_task **task = (nkt_task **)event.user;
            CHECK_INT(delays[task - tasks], order[fired]);
            CHECK_INT(p.now - begin, order[fired] * PROBE_MS);
            CHECK_INT(nkt_timer_finish(*task), 1);
            CHECK_INT(nkt_timer_finish(*task), NKT_EOF);
            fired++;
        }
    }
    CHECK_INT(nkt_poller_timeout_ms(poller), -1);
    CHECK_INT(nkt_poller_wait(poller, 1000), 0);
    CHECK_INT(p.now - begin, 11000 * PROBE_MS);
    for (int i = 0; i < 8; i++) nkt_task_close(tasks[i]);
    finish(&p, poller);
}

static void repeat_at(const start_time *at) {
    probe p;
    nkt_poller *poller = start(&p);
    p.fake = true;
    p.now = at->ms * PROBE_MS;
    int64_t begin = p.now;
    nkt_task *task = timer(&p, 1000, 300);
    CHECK_INT(nkt_poller_add_task(poller, task, task), NKT_OK);
    CHECK_INT(nkt_timer_finish(task), NKT_EAGAIN);
    for (int i = 0; i < 20; i++) {
        CHECK_INT(only_event(poller, -1, task), NKT_DONE);
        CHECK_INT(p.now - begin, (1000 + 300 * i) * PROBE_MS);
        CHECK_INT(nkt_timer_finish(task), 1);
        CHECK_INT(nkt_timer_finish(task), NKT_EAGAIN);
    }
    // 1,000 ms late: three more have passed, and the next keeps to the grid.
    p.now += 1000 * PROBE_MS;
    CHECK_INT(only_event(poller, -1, task), NKT_DONE);
    CHECK_INT(nkt_timer_finish(task), 3);
    CHECK_INT(only_event(poller, -1, task), NKT_DONE);
    CHECK_INT(p.now - begin, (1000 + 300 * 23) * PROBE_MS);
    CHECK_INT(nkt_timer_finish(task), 1);
    // The machine sleeps for 49 days and some.
    p.now += (4294967296LL + 12345) * PROBE_MS;
    CHECK_INT(only_event(poller, -1, task), NKT_DONE);
    CHECK_INT(nkt_timer_finish(task), (4294967296LL + 12345) / 300);
    CHECK_INT(only_event(poller, -1, task), NKT_DONE);
    CHECK_INT(nkt_timer_finish(task), 1);
    nkt_task_close(task);
    finish(&p, poller);
}

// A read that times out, is told so, and goes on where it was (D13).
static void read_timeout_at(const start_time *at) {
    probe p;
    nkt_conn *peer = NULL, *conn = NULL;
    nkt_str line;
    nkt_poller *poller = start(&p);
    probe_tcp(&p, false, true, &peer, &conn);
    p.fake = true;
    p.now = at->ms * PROBE_MS;
    int64_t begin = p.now;
    CHECK_INT(nkt_conn_set_option(conn, NKT_OPT_READ_TIMEOUT_MS, 6000), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
    // It begins at the first NKT_EAGAIN, not when the connection was added.
    p.now += 1000 * PROBE_MS;
    CHECK_INT(nkt_poller_wait(poller, 0), 0);
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
    p.now += 1000 * PROBE_MS;
    // It is for the whole line: half of one does not make it longer.
    probe_say(peer, conn, "half", &p.env);
    CHECK_INT(only_event(poller, -1, conn), NKT_READ);
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
    CHECK_INT(only_event(poller, -1, conn), NKT_READ);
    CHECK_INT(p.now - begin, 7000 * PROBE_MS);
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_ETIMEDOUT);
    CHECK_INT(nkt_poller_wait(poller, 0), 0);
    // And on it goes, with a time-out that begins anew.
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
    p.now += 5999 * PROBE_MS;
    probe_say(peer, conn, " and half\n", &p.env);
    CHECK_INT(only_event(poller, -1, conn), NKT_READ);
    if (CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK)) CHECK_VIEW(line, "half and half");
    // A complete result ends it.
    CHECK_INT(nkt_poller_wait(poller, 0), 1);
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
    CHECK_INT(only_event(poller, -1, conn), NKT_READ);
    CHECK_INT(p.now - begin, 18999 * PROBE_MS);
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_ETIMEDOUT);
    nkt_conn_close(conn);
    nkt_conn_close(peer);
    finish(&p, poller);
}

static void write_timeout_at(const start_time *at) {
    static char block[50000];
    probe p;
    nkt_conn *peer = NULL, *conn = NULL;
    nkt_poller *poller = start(&p);
    probe_tcp(&p, true, true, &peer, &conn);
    p.fake = true;
    p.now = at->ms * PROBE_MS;
    int64_t begin = p.now;
    CHECK_INT(nkt_conn_set_option(conn, NKT_OPT_WRITE_TIMEOUT_MS, 6000), NKT_OK);
    CHECK_INT(nkt_conn_set_option(conn, NKT_OPT_QUEUE_MAX, 100000), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
    int err = NKT_OK;
    uint64_t written = 0, read = 0;
    while (err == NKT_OK) {
        err = nkt_conn_write(conn, block, sizeof block);
        if (err == NKT_OK) written += sizeof block;
    }
    CHECK_INT(err, NKT_EAGAIN);
    CHECK_INT(only_event(poller, -1, conn), NKT_WRITE);
    CHECK_INT(p.now - begin, 6000 * PROBE_MS);
    // It is told once, whether it is acted upon or not.
    for (int i = 0; i < 3; i++) CHECK_INT(nkt_poller_wait(poller, 10), 0);
    CHECK_INT(nkt_conn_write(conn, block, sizeof block), NKT_ETIMEDOUT);
    CHECK_INT(nkt_poller_wait(poller, 0), 0);
    // Nothing was lost.
    uint32_t told = 0;
    CHECK_INT(nkt_conn_write(conn, block, sizeof block), NKT_EAGAIN);
    for (int i = 0; i < 10000 && read < written; i++) {
        read += drain(peer);
        told |= only_event(poller, 0, conn);
    }
    CHECK_INT(told, NKT_WRITE);
    CHECK_INT(read, written);
    // Who was refused and has nothing to say any more is left in peace.
    for (int i = 0; i < 3; i++) CHECK_INT(nkt_poller_wait(poller, 5000), 0);
    CHECK_INT(nkt_conn_write(conn, block, sizeof block), NKT_OK);
    nkt_conn_close(conn);
    nkt_conn_close(peer);
    finish(&p, poller);
}

static void time_passes(void) {
    char what[80];
    for (size_t i = 0; i < sizeof start_times / sizeof start_times[0]; i++) {
        snprintf(what, sizeof what, "bug 33: timers in order, from %s", start_times[i].name);
        TEST(named(what)) timers_at(&start_times[i]);
        snprintf(what, sizeof what, "bug 33: a timer that repeats, from %s", start_times[i].name);
        TEST(named(what)) repeat_at(&start_times[i]);
        snprintf(what, sizeof what, "bug 33: a read time-out, from %s", start_times[i].name);
        TEST(named(what)) read_timeout_at(&start_times[i]);
        snprintf(what, sizeof what, "bug 33: a write time-out, from %s", start_times[i].name);
        TEST(named(what)) write_timeout_at(&start_times[i]);
    }
}

// The clock goes on while the machine sleeps, past 32 bits of milliseconds.
static void suspended(void) {
    probe p;
    nkt_poller *poller = start(&p);
    p.fake = true;
    nkt_task *soon = timer(&p, 1000, 0), *late = timer(&p, 100000000, 0);
    CHECK_INT(nkt_poller_add_task(poller, soon, soon), NKT_OK);
    CHECK_INT(nkt_poller_add_task(poller, late, late), NKT_OK);
    p.now = 4294967296LL * PROBE_MS + 500 * PROBE_MS;       // 49.7 days
    CHECK_INT(nkt_poller_wait(poller, 0), 2);
    CHECK_INT(nkt_poller_wait(poller, 0), 2);
    nkt_task_close(soon);
    nkt_task_close(late);
    nkt_poller_close(poller);
    probe_close(&p);
}

static void timers_and_more(void) {
    TEST(named("bug 33: suspended for 49 days")) suspended();
    TEST(named("each expiry is told once, fetched or not")) {
        probe p;
        nkt_poller *poller = start(&p);
        p.fake = true;
        nkt_task *task = timer(&p, 100, 100);
        CHECK_INT(nkt_poller_add_task(poller, task, task), NKT_OK);
        for (int i = 1; i <= 3; i++) {
            CHECK_INT(only_event(poller, -1, task), NKT_DONE);
            CHECK_INT(p.now, i * 100 * PROBE_MS);
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
        }
        CHECK_INT(nkt_timer_finish(task), 3);
        // Fetched before it was told: there is nothing to tell.
        p.now += 150 * PROBE_MS;
        CHECK_INT(nkt_timer_finish(task), 1);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        CHECK_INT(only_event(poller, -1, task), NKT_DONE);
        CHECK_INT(p.now, 500 * PROBE_MS);
        nkt_task_cancel(task);
        CHECK_INT(only_event(poller, -1, task), NKT_DONE);
        CHECK_INT(nkt_timer_finish(task), NKT_ECANCELED);
        CHECK_INT(nkt_poller_wait(poller, 1000), 0);
        nkt_task_close(task);
        task = timer(&p, 100, 0);
        CHECK_INT(nkt_poller_add_task(poller, task, task), NKT_OK);
        p.now += 200 * PROBE_MS;
        CHECK_INT(nkt_timer_finish(task), 1);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        nkt_task_close(task);
        finish(&p, poller);
    }
    TEST(named("what came while a timer was in no poller is told later")) {
        probe p;
        nkt_poller *poller = start(&p);
        p.fake = true;
        nkt_task *task = timer(&p, 100, 0);
        CHECK_INT(nkt_poller_add_task(poller, task, task), NKT_OK);
        CHECK_INT(nkt_poller_remove_task(poller, task), NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, 500), 0);
        CHECK_INT(nkt_poller_add_task(poller, task, task), NKT_OK);
        CHECK_INT(only_event(poller, -1, task), NKT_DONE);
        CHECK_INT(nkt_timer_finish(task), 1);
        nkt_task_close(task);
        finish(&p, poller);
    }
}

static void timers_alone(void) {
    TEST(named("what a timer refuses")) {
        nkt_timer_opts opts;
        nkt_task *task = NULL;
        memset(&opts, 0, sizeof opts);
        CHECK_INT(nkt_timer_start(NULL, &task), NKT_EINVAL);
        opts.delay_ms = -1;
        CHECK_INT(nkt_timer_start(&opts, &task), NKT_EINVAL);
        opts.delay_ms = 0;
        opts.repeat_ms = -1;
        CHECK_INT(nkt_timer_start(&opts, &task), NKT_EINVAL);
        CHECK(task == NULL);
    }
    TEST(named("waiting for one task without a poller")) {
        probe p;
        nkt_poller *poller = start(&p);
        p.fake = true;
        nkt_task *task = timer(&p, 500, 0);
        CHECK_INT(nkt_task_wait(task, 0), NKT_ETIMEDOUT);
        CHECK_INT(nkt_task_wait(task, 200), NKT_ETIMEDOUT);
        CHECK_INT(p.now, 200 * PROBE_MS);
        CHECK_INT(nkt_task_wait(task, -1), NKT_OK);
        CHECK_INT(p.now, 500 * PROBE_MS);
        CHECK_INT(nkt_task_wait(task, -1), NKT_OK);
        CHECK_INT(nkt_timer_finish(task), 1);
        CHECK_INT(nkt_timer_finish(task), NKT_EOF);
        nkt_task_close(task);
        task = timer(&p, 500, 0);
        nkt_task_cancel(task);
        CHECK_INT(nkt_task_wait(task, -1), NKT_ECANCELED);
        CHECK_INT(nkt_timer_finish(task), NKT_ECANCELED);
        nkt_task_close(task);
        finish(&p, poller);
    }
}

enum { MANY = 1000 };

static void many_timers(void) {
    TEST(named("1,000 timers in random order, some closed, fire in order")) {
        static nkt_task *tasks[MANY];
        static int32_t delays[MANY];
        probe p;
        nkt_event event;
        nkt_poller *poller = start(&p);
        uint64_t seed = 0x9e3779b97f4a7c15u;
        p.fake = true;
        for (int i = 0; i < MANY; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            delays[i] = (int32_t)(seed >> 40) % 5000;
            tasks[i] = timer(&p, delays[i], 0);
            CHECK_INT(nkt_poller_add_task(poller, tasks[i], &tasks[i]), NKT_OK);
        }
        int closed = 0, fired = 0;
        for (int i = 0; i < MANY; i += 3, closed++) {
            nkt_task_close(tasks[i]);
            tasks[i] = NULL;
        }
        int32_t last = 0;
        while (fired < MANY - closed && nkt_poller_wait(poller, 6000) > 0) {
            while (nkt_poller_next(poller, &event) == NKT_OK) {
                nkt_task **task = (nkt_task **)event.user;
                int32_t delay = delays[task - tasks];
                CHECK(delay >= last);
                CHECK_INT(p.now, delay * PROBE_MS);
                CHECK_INT(nkt_timer_finish(*task), 1);
                last = delay;
                fired++;
                // Closing one that is yet to come, from within.
                size_t other = (size_t)(task - tasks + 1) % MANY;
                if (tasks[other] != NULL && delays[other] > delay && fired % 7 == 0) {
                    nkt_task_close(tasks[other]);
                    tasks[other] = NULL;
                    closed++;
                }
            }
        }
        CHECK_INT(fired, MANY - closed);
        CHECK_INT(nkt_poller_wait(poller, 6000), 0);
        for (int i = 0; i < MANY; i++) nkt_task_close(tasks[i]);
        finish(&p, poller);
    }
}

//------------------------------------------------------------------------------
// What it costs
//------------------------------------------------------------------------------

static long all_calls(probe *p) {
    long total = 0;
    for (int i = 0; i < PROBE_ENTRIES; i++) total += probe_calls(p, i);
    return total;
}

// One line there and one back: what the side of `conn` has spent.
static void exchange(probe *p, nkt_poller *poller, nkt_conn *conn, nkt_conn *peer) {
    nkt_str line;
    probe_say(peer, conn, "request\n", &p->env);
    probe_count_again(p);
    CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
    CHECK_VIEW(line, "request");
    CHECK_INT(nkt_conn_write_str(conn, "answer\n"), NKT_OK);
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
}

static void costs(void) {
    TEST(named("an exchange is a wait, a receive and a send, however many sleep")) {
        enum { IDLE = 60 };
        probe p;
        nkt_conn *peer = NULL, *conn = NULL, *idle[IDLE], *idle_peer[IDLE];
        nkt_str line;
        nkt_poller *poller = start(&p);
        long calls[2];
        probe_tcp(&p, false, true, &peer, &conn);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        for (int sleeping = 0; sleeping < 2; sleeping++) {
            for (int i = 0; sleeping == 1 && i < IDLE; i++) {
                idle[i] = idle_peer[i] = NULL;
                probe_tcp(&p, false, true, &idle_peer[i], &idle[i]);
                CHECK_INT(nkt_poller_add_conn(poller, idle[i], idle[i]), NKT_OK);
            }
            for (int i = 0; i < 5; i++) {
                exchange(&p, poller, conn, peer);
                calls[sleeping] = all_calls(&p);
                CHECK_INT(nkt_conn_read_line(peer, &line), NKT_OK);
            }
            CHECK_INT(probe_calls(&p, PROBE_POLL_SET), 0);
            CHECK_INT(probe_calls(&p, PROBE_ALLOCATE), 0);
            CHECK_INT(probe_calls(&p, PROBE_POLL_WAIT), 1);
            CHECK_INT(calls[sleeping], 3);
        }
        for (int i = 0; i < IDLE; i++) {
            nkt_conn_close(idle[i]);
            nkt_conn_close(idle_peer[i]);
        }
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
}

static void costs_of_memory(void) {
    TEST(named("a sleeping connection holds no buffer")) {
        probe p;
        nkt_conn *peer = NULL, *conn = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        nkt_listener *listener = listener_on(&p, "127.0.0.1:0", true);
        peer = connect_to(&p, listener, false);
        CHECK(probe_until(&p.env, nkt_listener_descriptor(listener), NKT_READ));
        long before = p.bytes;
        CHECK_INT(nkt_accept(listener, &conn), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
        // The poller has bought the buffer that it lends.
        long poller_has = (long)inside_lent_block();
        // With what malloc puts before a block that is 256 bytes.
        CHECK_RANGE(p.bytes - before - poller_has, 100, 248);
        long asleep = p.bytes;
        probe_say(peer, conn, "one\ntwo\nthr", &p.env);
        CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
        // Half a line is kept in a block that fits.
        CHECK_RANGE(p.bytes - asleep, 3, 128);
        probe_say(peer, conn, "ee\n", &p.env);
        CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_VIEW(line, "three");
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
        CHECK_INT(p.bytes, asleep);
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        nkt_listener_close(listener);
        finish(&p, poller);
    }
}

static void costs_of_blocking(void) {
    TEST(named("a blocking exchange is a send and a receive")) {
        probe p;
        nkt_conn *a = NULL, *b = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, false, &a, &b);
        for (int i = 0; i < 3; i++) {
            probe_count_again(&p);
            CHECK_INT(nkt_conn_write_str(a, "request\n"), NKT_OK);
            CHECK_INT(nkt_conn_read_line(b, &line), NKT_OK);
            CHECK_INT(nkt_conn_write_str(b, "answer\n"), NKT_OK);
            CHECK_INT(nkt_conn_read_line(a, &line), NKT_OK);
            CHECK_VIEW(line, "answer");
        }
        CHECK_INT(probe_calls(&p, PROBE_SEND), 2);
        CHECK_INT(probe_calls(&p, PROBE_ALLOCATE), 0);
        if (p.core.recv_wait != NULL) {
            CHECK_INT(probe_calls(&p, PROBE_RECV_WAIT), 2);
            CHECK_INT(all_calls(&p), 4);
        }
        nkt_conn_close(a);
        nkt_conn_close(b);
        finish(&p, poller);
    }
    TEST(named("with a time-out it is a send, a wait and a receive")) {
        probe p;
        nkt_conn *a = NULL, *b = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, false, &a, &b);
        CHECK_INT(nkt_conn_set_option(a, NKT_OPT_READ_TIMEOUT_MS, 10000), NKT_OK);
        CHECK_INT(nkt_conn_set_option(b, NKT_OPT_READ_TIMEOUT_MS, 10000), NKT_OK);
        for (int i = 0; i < 3; i++) {
            probe_count_again(&p);
            CHECK_INT(nkt_conn_write_str(a, "request\n"), NKT_OK);
            CHECK_INT(nkt_conn_read_line(b, &line), NKT_OK);
            CHECK_INT(nkt_conn_write_str(b, "answer\n"), NKT_OK);
            CHECK_INT(nkt_conn_read_line(a, &line), NKT_OK);
            CHECK_VIEW(line, "answer");
        }
        CHECK_INT(probe_calls(&p, PROBE_SEND), 2);
        CHECK_INT(probe_calls(&p, PROBE_WAIT), 2);
        CHECK_INT(probe_calls(&p, PROBE_RECV), 2);
        CHECK_INT(probe_calls(&p, PROBE_ALLOCATE), 0);
        CHECK_INT(all_calls(&p), 6);
        nkt_conn_close(a);
        nkt_conn_close(b);
        finish(&p, poller);
    }
}

// Has the peer send lines of all lengths at once, and reads them.
static void read_lines(nkt_poller *poller, nkt_conn *conn, nkt_conn *peer) {
    enum { LINES = 300 };
    static char text[LINES * (LINES + 2)];
    char *end = text;
    nkt_str line;
    for (int i = 0; i < LINES; i++) {
        memset(end, 'x', (size_t)i);
        end += i;
        *end++ = '\n';
    }
    CHECK_INT(nkt_conn_write(peer, text, (size_t)(end - text)), NKT_OK);
    for (int i = 0; i < LINES; i++) {
        int err;
        while ((err = nkt_conn_read_line(conn, &line)) == NKT_EAGAIN) {
            CHECK_INT(only_event(poller, 5000, conn), NKT_READ);
        }
        if (!CHECK_INT(err, NKT_OK) || !CHECK_INT(line.len, i)) return;
    }
}

static void costs_of_lines(void) {
    for (int i = 0; i < 2; i++) {
        TEST(named(i == 0 ? "lines take no memory, and a receive is for many, blocking"
                          : "lines take no memory, and a receive is for many, on the poller")) {
            probe p;
            nkt_conn *conn = NULL, *peer = NULL;
            nkt_poller *poller = start(&p);
            probe_tcp(&p, false, i == 1, &peer, &conn);
            if (i == 1) {
                CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
            } else {
                // Where waiting takes memory, the first wait keeps it.
                nkt_str line;
                CHECK_INT(nkt_conn_set_option(conn, NKT_OPT_READ_TIMEOUT_MS, 1), NKT_OK);
                CHECK_INT(nkt_conn_read_line(conn, &line), NKT_ETIMEDOUT);
                CHECK_INT(nkt_conn_set_option(conn, NKT_OPT_READ_TIMEOUT_MS, -1), NKT_OK);
            }
            read_lines(poller, conn, peer);
            probe_count_again(&p);
            read_lines(poller, conn, peer);
            CHECK_INT(probe_calls(&p, PROBE_ALLOCATE), 0);
            CHECK_RANGE(probe_calls(&p, PROBE_RECV) + probe_calls(&p, PROBE_RECV_WAIT), 1, 60);
            nkt_conn_close(conn);
            nkt_conn_close(peer);
            finish(&p, poller);
        }
    }
    TEST(named("a wait that finds nothing is one call, and takes no memory")) {
        probe p;
        nkt_conn *conn = NULL, *peer = NULL;
        nkt_str line;
        nkt_poller *poller = start(&p);
        probe_tcp(&p, false, true, &peer, &conn);
        CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        probe_count_again(&p);
        for (int i = 0; i < 10; i++) CHECK_INT(nkt_poller_wait(poller, 0), 0);
        CHECK_INT(probe_calls(&p, PROBE_ALLOCATE), 0);
        CHECK_INT(all_calls(&p), 10);
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        finish(&p, poller);
    }
}

//------------------------------------------------------------------------------
// Foreign descriptors, and inside another loop
//------------------------------------------------------------------------------

static void foreign(void) {
    TEST(named("a foreign descriptor is reported as its events say")) {
        probe p;
        nkt_wake wake;
        nkt_poller *poller = start(&p);
        CHECK_INT(p.core.wake_open(&p.env, &wake), NKT_OK);
        CHECK_INT(nkt_poller_add_fd(poller, wake.wait_fd, 0, &wake), NKT_OK);
        p.core.wake_post(&p.env, &wake);
        CHECK(probe_until(&p.env, wake.wait_fd, NKT_READ));
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        CHECK_INT(nkt_poller_want_fd(poller, wake.wait_fd, NKT_READ), NKT_OK);
        CHECK_INT(only_event(poller, 0, &wake), NKT_READ);
        if (wake.wait_fd == wake.post_fd) {
            CHECK_INT(nkt_poller_want_fd(poller, wake.wait_fd, NKT_READ | NKT_WRITE), NKT_OK);
            CHECK_INT(only_event(poller, 0, &wake), NKT_READ | NKT_WRITE);
        }
        p.core.wake_drain(&p.env, &wake);
        CHECK_INT(nkt_poller_want_fd(poller, wake.wait_fd, NKT_READ), NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        CHECK_INT(nkt_poller_remove_fd(poller, wake.wait_fd), NKT_OK);
        CHECK_INT(nkt_poller_want_fd(poller, wake.wait_fd, 0), NKT_ENOTFOUND);
        p.core.wake_close(&p.env, &wake);
        finish(&p, poller);
    }
    TEST(named("two hundred foreign descriptors, closed with the poller")) {
        enum { COUNT = 200 };
        static nkt_wake wakes[COUNT];
        probe p;
        nkt_event event;
        nkt_poller *poller = start(&p);
        for (int i = 0; i < COUNT; i++) {
            CHECK_INT(p.core.wake_open(&p.env, &wakes[i]), NKT_OK);
            CHECK_INT(nkt_poller_add_fd(poller, wakes[i].wait_fd, NKT_READ, &wakes[i]), NKT_OK);
            if (i % 2 == 0) p.core.wake_post(&p.env, &wakes[i]);
        }
        bool told[COUNT] = { false };
        int fresh = 0;
        // More are ready than the backend hands over at once.
        for (int turn = 0; turn < 20 && fresh < COUNT / 2; turn++) {
            CHECK(nkt_poller_wait(poller, 5000) > 0);
            while (nkt_poller_next(poller, &event) == NKT_OK) {
                nkt_wake *wake = (nkt_wake *)event.user;
                CHECK_INT(event.fd, wake->wait_fd);
                CHECK_INT((wake - wakes) % 2, 0);
                fresh += !told[wake - wakes];
                told[wake - wakes] = true;
            }
        }
        CHECK_INT(fresh, COUNT / 2);
        nkt_poller_close(poller);
        for (int i = 0; i < COUNT; i++) p.core.wake_close(&p.env, &wakes[i]);
        probe_close(&p);
    }
}

static void foreign_file(void) {
#ifndef _WIN32
    TEST(named("a regular file is always ready")) {
        probe p;
        FILE *file = tmpfile();
        nkt_poller *poller = start(&p);
        if (CHECK(file != NULL)) {
            int fd = fileno(file);
            CHECK_INT(nkt_poller_add_fd(poller, fd, NKT_READ, file), NKT_OK);
            for (int i = 0; i < 3; i++) CHECK_INT(only_event(poller, -1, file), NKT_READ);
            CHECK_INT(nkt_poller_want_fd(poller, fd, 0), NKT_OK);
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
            CHECK_INT(nkt_poller_want_fd(poller, fd, NKT_WRITE), NKT_OK);
            CHECK_INT(only_event(poller, -1, file), NKT_WRITE);
            CHECK_INT(nkt_poller_remove_fd(poller, fd), NKT_OK);
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
            fclose(file);
        }
        finish(&p, poller);
    }
#endif
}

static void inside_another_loop(void) {
    TEST(named("inside another loop")) {
        probe p;
        nkt_conn *peer = NULL, *conn = NULL;
        nkt_str line;
        nkt_watch outer;
        nkt_poller *poller = start(&p);
        outer.fd = nkt_poller_fd(poller);
        outer.events = NKT_READ;
        if (backend == nkt_sys_poll_portable()) {
            CHECK_INT(outer.fd, NKT_NO_FD);
        } else {
            probe_tcp(&p, false, true, &peer, &conn);
            CHECK_INT(nkt_poller_add_conn(poller, conn, conn), NKT_OK);
            CHECK_INT(nkt_poller_timeout_ms(poller), -1);
            CHECK_INT(probe_system()->wait(&p.env, &outer, 1, 0), 0);
            probe_say(peer, conn, "one\ntwo\n", &p.env);
            CHECK(probe_until(&p.env, outer.fd, NKT_READ));
            CHECK_INT(only_event(poller, 0, conn), NKT_READ);
            CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
            // The descriptor has no more to tell, but the other number has.
            CHECK_INT(probe_system()->wait(&p.env, &outer, 1, 0), 0);
            CHECK_INT(nkt_poller_timeout_ms(poller), 0);
            CHECK_INT(only_event(poller, 0, conn), NKT_READ);
            CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
            CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
            CHECK_INT(nkt_poller_timeout_ms(poller), -1);
            nkt_poller_wake(poller);
            CHECK(probe_until(&p.env, outer.fd, NKT_READ));
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
            CHECK_INT(probe_system()->wait(&p.env, &outer, 1, 0), 0);
            p.fake = true;
            nkt_task *task = timer(&p, 250, 0);
            CHECK_INT(nkt_poller_add_task(poller, task, task), NKT_OK);
            CHECK_INT(nkt_poller_timeout_ms(poller), 250);
            p.now += 249 * PROBE_MS + 1;
            CHECK_INT(nkt_poller_timeout_ms(poller), 1);
            p.now += PROBE_MS;
            CHECK_INT(nkt_poller_timeout_ms(poller), 0);
            CHECK_INT(only_event(poller, 0, task), NKT_DONE);
            nkt_task_close(task);
            nkt_conn_close(conn);
            nkt_conn_close(peer);
        }
        finish(&p, poller);
    }
}

static void failures(void) {
    TEST(named("no memory or no descriptors for a poller")) {
        probe p;
        nkt_poller_opts opts;
        nkt_poller *poller = NULL;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        p.base_poll = backend;
        opts.env = &p.env;
        probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_ENOMEM);
        probe_fail(&p, PROBE_WAKE_OPEN, NKT_EMFILE, 1);
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_EMFILE);
        probe_fail(&p, PROBE_POLL_SET, NKT_ENOMEM, 1);
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_ENOMEM);
        CHECK(poller == NULL);
        probe_close(&p);
    }
    TEST(named("no memory for a first time-out")) {
        probe p;
        object o;
        nkt_str line;
        nkt_poller *poller = start(&p);
        object_open(&p, &o, A_CONN);
        CHECK_INT(object_add(poller, &o), NKT_OK);
        probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        CHECK_INT(nkt_conn_set_option(o.conn, NKT_OPT_READ_TIMEOUT_MS, 20), NKT_ENOMEM);
        int64_t timeout_ms = -1;
        CHECK_INT(nkt_conn_get_option(o.conn, NKT_OPT_READ_TIMEOUT_MS, &timeout_ms), NKT_OK);
        CHECK_INT(timeout_ms, 0);
        CHECK_INT(nkt_conn_set_option(o.conn, NKT_OPT_READ_TIMEOUT_MS, 20), NKT_OK);
        CHECK_INT(nkt_conn_read_line(o.conn, &line), NKT_EAGAIN);
        CHECK_INT(only_event(poller, 5000, &o), NKT_READ);
        CHECK_INT(nkt_conn_read_line(o.conn, &line), NKT_ETIMEDOUT);
        object_close(&p, poller, &o);
        finish(&p, poller);
    }
    TEST(named("adding that fails leaves the handle as it was")) {
        for (int kind = 0; kind < KINDS; kind++) {
            probe p;
            object o;
            nkt_poller *poller = start(&p);
            object_open(&p, &o, kind);
            // One that can have no deadline needs no memory of the poller.
            if (kind == A_CONN) nkt_conn_set_option(o.conn, NKT_OPT_READ_TIMEOUT_MS, 60000);
            probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
            CHECK_INT(object_add(poller, &o), NKT_ENOMEM);
            if (kind != A_TASK && kind != A_PAIR) {
                probe_fail(&p, PROBE_POLL_SET, NKT_ENOMEM, 1);
                CHECK_INT(object_add(poller, &o), NKT_ENOMEM);
            }
            probe_fail(&p, PROBE_ALLOCATE, NKT_OK, 0);
            CHECK_INT(object_add(poller, &o), NKT_OK);
            object_rouse(&p, &o);
            CHECK(only_event(poller, 1000, &o) != 0);
            object_handle(&p, &o);
            object_close(&p, poller, &o);
            finish(&p, poller);
        }
    }
    TEST(named("a signal ends a wait with no event")) {
        probe p;
        nkt_poller *poller = start(&p);
        probe_fail(&p, PROBE_POLL_WAIT, NKT_EINTR, 1);
        CHECK_INT(nkt_poller_wait(poller, -1), 0);
        probe_fail(&p, PROBE_POLL_WAIT, NKT_EOS, 1);
        CHECK_INT(nkt_poller_wait(poller, -1), NKT_EOS);
        finish(&p, poller);
    }
}

static void run_all(const char *name, const nkt_sys_poll *poll) {
    backend_name = name;
    backend = poll;
    stale_events();
    fetched_events();
    posted();
    closed_from_within();
    reported_until_handled();
    adding();
    unread_lines();
    end_of_stream();
    fairness();
    pausing();
    writing();
    connecting();
#ifndef NETKIT_NO_THREADS
    waking_from_threads();
#endif
    waking();
    time_passes();
    timers_and_more();
    timers_alone();
    many_timers();
    costs();
    costs_of_memory();
    costs_of_blocking();
    costs_of_lines();
    foreign();
    foreign_file();
    inside_another_loop();
    failures();
}

int main(void) {
    run_all("default", nkt_sys_poll_default());
    run_all("portable", nkt_sys_poll_portable());
    TEST("opts.portable") {
        nkt_poller_opts opts;
        nkt_poller *poller = NULL;
        memset(&opts, 0, sizeof opts);
        opts.portable = true;
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_fd(poller), NKT_NO_FD);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        nkt_poller_close(poller);
    }
    return test_finish();
}
