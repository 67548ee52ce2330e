// test_fork_posix.c - in a child process, closing disturbs nothing of the parent
//
// A fork doubles the descriptors, and what the kernel keeps for them is shared:
// a child that deregistered, shut down or unlinked would do it to its parent.
// So there only closing is allowed, and closing only closes.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "probe.h"

#include <signal.h>
#include <sys/wait.h>

// What both have: a poller with a bit of everything.
typedef struct family {
    probe p;
    nkt_poller *poller;
    nkt_listener *listener, *path_listener;
    nkt_conn *conn, *peer;          // nonblocking on the poller, blocking
    nkt_conn *pair_a, *pair_b;
    nkt_conn *connecting;
    nkt_task *task;
    char path[64];
    int extra[2];                   // a foreign descriptor
} family;

static void family_open(family *f, const nkt_sys_poll *backend) {
    nkt_poller_opts poller_opts;
    nkt_listen_opts listen_opts;
    nkt_timer_opts timer_opts;
    nkt_connect_opts connect_opts;
    nkt_conn_opts conn_opts;
    nkt_addr addr;
    char target[80];
    memset(f, 0, sizeof *f);
    memset(&poller_opts, 0, sizeof poller_opts);
    memset(&listen_opts, 0, sizeof listen_opts);
    memset(&timer_opts, 0, sizeof timer_opts);
    memset(&connect_opts, 0, sizeof connect_opts);
    memset(&conn_opts, 0, sizeof conn_opts);
    probe_open(&f->p);
    f->p.base_poll = backend;
    poller_opts.env = listen_opts.env = timer_opts.env = &f->p.env;
    connect_opts.env = conn_opts.env = &f->p.env;
    listen_opts.nonblocking = connect_opts.nonblocking = conn_opts.nonblocking = true;
    CHECK_INT(nkt_poller_open(&poller_opts, &f->poller), NKT_OK);
    CHECK_INT(nkt_listen("127.0.0.1:0", &listen_opts, &f->listener), NKT_OK);
    snprintf(f->path, sizeof f->path, "/tmp/nkt-fork-%d", (int)getpid());
    snprintf(target, sizeof target, "unix:%s", f->path);
    CHECK_INT(nkt_listen(target, &listen_opts, &f->path_listener), NKT_OK);
    timer_opts.delay_ms = 3600000;
    CHECK_INT(nkt_timer_start(&timer_opts, &f->task), NKT_OK);
    probe_tcp(&f->p, false, true, &f->peer, &f->conn);
    CHECK_INT(nkt_conn_pair(&conn_opts, &conn_opts, &f->pair_a, &f->pair_b), NKT_OK);
    CHECK_INT(nkt_listener_local(f->listener, &addr), NKT_OK);
    CHECK_INT(nkt_connect_addr(&addr, &connect_opts, &f->connecting), NKT_OK);
    CHECK_INT(pipe(f->extra), 0);
    CHECK_INT(nkt_poller_add_listener(f->poller, f->listener, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_listener(f->poller, f->path_listener, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_task(f->poller, f->task, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(f->poller, f->conn, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(f->poller, f->pair_a, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_conn(f->poller, f->connecting, NULL), NKT_OK);
    CHECK_INT(nkt_poller_add_fd(f->poller, f->extra[0], NKT_READ, NULL), NKT_OK);
}

// Closes everything, which in the parent gives everything back.
static void family_close(family *f, bool poller_first, bool abort) {
    if (poller_first) nkt_poller_close(f->poller);
    else nkt_poller_remove_fd(f->poller, f->extra[0]);
    if (abort) nkt_conn_abort(f->conn);
    else nkt_conn_close(f->conn);
    if (abort) nkt_conn_abort(f->connecting);
    else nkt_conn_close(f->connecting);
    nkt_conn_close(f->peer);
    nkt_conn_close(f->pair_a);
    nkt_conn_close(f->pair_b);
    nkt_task_close(f->task);
    nkt_listener_close(f->listener);
    nkt_listener_close(f->path_listener);
    if (!poller_first) nkt_poller_close(f->poller);
    close(f->extra[0]);
    close(f->extra[1]);
    probe_close(&f->p);
}

static int child_status(pid_t child) {
    int status = -1;
    if (!CHECK(child > 0 && waitpid(child, &status, 0) == child)) return -1;
    if (WIFSIGNALED(status)) printf("  the child was killed by signal %d\n", WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Fetches the one event that is wanted, past others that may be there.
static bool event_of(family *f, const nkt_conn *conn, const nkt_listener *listener, nkt_fd fd) {
    nkt_event event;
    for (int i = 0; i < 20; i++) {
        if (!CHECK(nkt_poller_wait(f->poller, 5000) > 0)) return false;
        while (nkt_poller_next(f->poller, &event) == NKT_OK) {
            if (conn != NULL && event.conn == conn) return true;
            if (listener != NULL && event.listener == listener) return true;
            if (fd >= 0 && event.fd == fd) return true;
        }
    }
    return false;
}

// Everything still works in the parent.
static void parent_goes_on(family *f) {
    nkt_str line;
    nkt_conn *conn = NULL, *peer = NULL;
    nkt_connect_opts opts;
    char target[80];
    memset(&opts, 0, sizeof opts);
    opts.env = &f->p.env;
    CHECK(access(f->path, F_OK) == 0);
    // The poller of the parent hears of its connection, which is whole.
    CHECK_INT(nkt_conn_read_line(f->conn, &line), NKT_EAGAIN);
    CHECK_INT(nkt_conn_write_str(f->peer, "still there\n"), NKT_OK);
    CHECK(event_of(f, f->conn, NULL, -1));
    CHECK_INT(nkt_conn_read_line(f->conn, &line), NKT_OK);
    CHECK_VIEW(line, "still there");
    CHECK_INT(nkt_conn_write_str(f->conn, "and back\n"), NKT_OK);
    CHECK_INT(nkt_conn_read_line(f->peer, &line), NKT_OK);
    CHECK_VIEW(line, "and back");
    CHECK_INT(nkt_conn_write_str(f->pair_b, "pair\n"), NKT_OK);
    CHECK(event_of(f, f->pair_a, NULL, -1));
    CHECK_INT(nkt_conn_read_line(f->pair_a, &line), NKT_OK);
    CHECK_INT(write(f->extra[1], "x", 1), 1);
    CHECK(event_of(f, NULL, NULL, f->extra[0]));
    CHECK_INT(read(f->extra[0], target, 1), 1);
    snprintf(target, sizeof target, "unix:%s", f->path);
    CHECK_INT(nkt_connect(target, &opts, &peer), NKT_OK);
    CHECK(event_of(f, NULL, f->path_listener, -1));
    CHECK_INT(nkt_accept(f->path_listener, &conn), NKT_OK);
    nkt_conn_close(conn);
    nkt_conn_close(peer);
    // The connect that was under way gets there.
    int err = NKT_EAGAIN;
    for (int i = 0; i < 5000 && err == NKT_EAGAIN; i++) err = nkt_connect_finish(f->connecting);
    CHECK_INT(err, NKT_OK);
    CHECK_INT(nkt_accept(f->listener, &conn), NKT_OK);
    CHECK_INT(nkt_conn_write_str(f->connecting, "made it\n"), NKT_OK);
    CHECK(probe_until(&f->p.env, nkt_conn_descriptor(conn), NKT_READ));
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
    CHECK_VIEW(line, "made it");
    nkt_conn_close(conn);
}

static void closing_in_a_child(const nkt_sys_poll *backend, bool poller_first, bool abort) {
    family f;
    family_open(&f, backend);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        // Checks that the memory and the descriptors are given back, too.
        family_close(&f, poller_first, abort);
        fflush(stdout);
        _exit(nkt_test.failures > 0);
    }
    CHECK_INT(child_status(child), 0);
    parent_goes_on(&f);
    family_close(&f, poller_first, abort);
    CHECK(access(f.path, F_OK) != 0);
}

static void closing(void) {
    static const char *const names[] = {
        "handles, then the poller", "the poller, then handles",
        "aborted handles, then the poller", "the poller, then aborted handles",
    };
    for (int i = 0; i < 4; i++) {
        char name[100];
        snprintf(name, sizeof name, "closed in a child: %s", names[i]);
        TEST(name) closing_in_a_child(nkt_sys_poll_default(), i % 2 == 1, i >= 2);
        snprintf(name, sizeof name, "closed in a child, portable: %s", names[i]);
        TEST(name) closing_in_a_child(nkt_sys_poll_portable(), i % 2 == 1, i >= 2);
    }
}

static void waiting(void) {
    TEST("a poller does not wait in a child") {
        family f;
        family_open(&f, nkt_sys_poll_default());
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            CHECK_INT(nkt_poller_wait(f.poller, -1), NKT_EFORKED);
            CHECK_INT(nkt_poller_wait(f.poller, 0), NKT_EFORKED);
            fflush(stdout);
            _exit(nkt_test.failures > 0);
        }
        CHECK_INT(child_status(child), 0);
        parent_goes_on(&f);
        family_close(&f, true, false);
    }
}

// A queue that is not sent yet is the parent's to send: a child that sent it,
// or said farewell, would make the peer read it twice or hear of an end.
static void queued(void) {
    TEST("what is queued is not sent by a child") {
        static char block[100000];
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        uint64_t written = 0, received = 0;
        probe_open(&p);
        probe_tcp(&p, true, true, &near_end, &far_end);
        while (nkt_conn_queued(near_end) == 0) {
            if (!CHECK_INT(nkt_conn_write(near_end, block, sizeof block), NKT_OK)) break;
            written += sizeof block;
        }
        CHECK_INT(nkt_conn_shutdown_write(near_end), NKT_OK);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            CHECK(nkt_conn_close(near_end) > 0);
            nkt_conn_close(far_end);
            probe_close(&p);
            fflush(stdout);
            _exit(nkt_test.failures > 0);
        }
        CHECK_INT(child_status(child), 0);
        ptrdiff_t count = 1;
        for (int i = 0; i < 100000 && count != NKT_EOF; i++) {
            count = nkt_conn_read(far_end, block, sizeof block);
            if (count > 0) received += (uint64_t)count;
            else if (count == NKT_EAGAIN) nkt_conn_flush(near_end);
            else break;
        }
        CHECK_INT(count, NKT_EOF);
        CHECK_INT(received, written);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
    TEST("a child may have netkit for itself") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        probe_open(&p);
        probe_tcp(&p, false, false, &near_end, &far_end);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            family f;
            alarm(20);
            nkt_conn_close(near_end);
            nkt_conn_close(far_end);
            family_open(&f, nkt_sys_poll_default());
            parent_goes_on(&f);
            family_close(&f, false, false);
            fflush(stdout);
            _exit(nkt_test.failures > 0);
        }
        CHECK_INT(child_status(child), 0);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
}

// Wake-ups are shared with the parent, who must not lose one.
static void wake_ups(void) {
    TEST("a child has no wake-ups of its parent's") {
        probe p;
        nkt_conn_opts opts;
        nkt_conn *near_end = NULL, *far_end = NULL, *own = NULL, *other = NULL;
        char byte;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        opts.stream.read_timeout_ms = 1;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &near_end, &far_end), NKT_OK);
        CHECK_INT(nkt_conn_read(near_end, &byte, 1), NKT_ETIMEDOUT);
        CHECK_INT(probe_calls(&p, PROBE_WAKE_OPEN), 1);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            CHECK_INT(nkt_conn_pair(&opts, &opts, &own, &other), NKT_OK);
            CHECK_INT(probe_calls(&p, PROBE_WAKE_CLOSE), 1);
            CHECK_INT(nkt_conn_read(own, &byte, 1), NKT_ETIMEDOUT);
            CHECK_INT(probe_calls(&p, PROBE_WAKE_OPEN), 2);
            fflush(stdout);
            _exit(nkt_test.failures > 0);
        }
        CHECK_INT(child_status(child), 0);
        CHECK_INT(nkt_conn_read(near_end, &byte, 1), NKT_ETIMEDOUT);
        CHECK_INT(probe_calls(&p, PROBE_WAKE_OPEN), 1);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
}

int main(void) {
    closing();
    wake_ups();
    waiting();
    queued();
    return test_finish();
}
