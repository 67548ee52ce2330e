// fault_table.h - the scenario table on a system where every call fails in turn
//
// What fault_posix.c and fault_impaired_posix.c, which have other faces, share.
// Include after netkit.h with its implementation. See fault.h.

#ifndef NKT_TEST_FAULT_TABLE_H
#define NKT_TEST_FAULT_TABLE_H

#define RAW_LIMIT_MS 15000
#define SCENE_LIMIT_MS 30000
#define SCENE_THRIFT 32
#define ROW_TIMEOUT_MS 12

#include "table.h"
#include "fault.h"

static scene *tested;           // of the run under way

//------------------------------------------------------------------------------
// Rows of its own

// The system's names of the loopback interface are not the same everywhere.
#ifdef __linux__
    #define LOOPBACK "lo"
#else
    #define LOOPBACK "lo0"
#endif

static void row_bound_to_interface(scene *s) {
    s->interface_name = LOOPBACK;
    if (!scene_open(s)) return;
    peer_say(&s->b, "hello\n");
    CHECK_LINE(s, "hello");
}

static void row_random(scene *s) {
    char bytes[32], zero[32];
    int err;
    memset(bytes, 0, sizeof bytes);
    memset(zero, 0, sizeof zero);
    do {
        err = nkt_random(&s->env.env, bytes, sizeof bytes);
    } while (scene_again(err));
    CHECK_INT(err, NKT_OK);
    CHECK(memcmp(bytes, zero, sizeof bytes) != 0);
}

static const row own_rows[] = {
    {"bound to an interface", row_bound_to_interface, 0},
    {"random bytes", row_random, 0},
};

#define OWN_COUNT (sizeof own_rows / sizeof own_rows[0])
typedef char own_rows_fit[OWN_COUNT <= OWN_MAX ? 1 : -1];

// The first face stands for all where no connection is opened.
static bool own_has(const row *r, const face *f) {
    if (r->run == row_random) return f == &scene_faces[0];
    return f->carrier == CARRIER_TCP && f->impaired == BARE;
}

//------------------------------------------------------------------------------
// Tasks

static bool task_calls(int entry) {
#ifdef SCENE_IMPAIRED
    static const int called[] = {       // memory makes no others
        F_allocate, F_wait, F_wake_open, F_random, F_poll_open, F_poll_set, F_poll_wait,
    };
    for (size_t i = 0; i < sizeof called / sizeof called[0]; i++) {
        if (called[i] == entry) return true;
    }
    return false;
#else
    return entry < F_udp_set;       // from there on it is datagrams and interfaces
#endif
}

static void env_made(scene_env *self) {
    const nkt_sys_poll *backend = tasks[fault.task].f->portable ? nkt_sys_poll_portable()
                                                                : nkt_sys_poll_default();
    if (self->env.poll == &fault.poll) backend = fault.poll_base;
    else if (self->env.poll != NULL) backend = self->env.poll;      // a clock that jumps
    fault_env(&self->env, backend);
}

static void task_run(int i) {
    scene s;
    face real = *tasks[i].f;
    real.portable = false;          // its backend stands behind our table
    tested = &s;
    if (!scene_init(&s, &real)) return;
    s.seed = (uint32_t)(tasks[i].r - rows) + 1;
    s.is_large = task_is_slow(i);
    fault.on = scene_tested = true;
    tasks[i].r->run(&s);
    scene_close_a(&s);
    peer_close(&s.b);
    nkt_poller_close(s.poller);
    s.poller = NULL;
    fault.on = scene_tested = false;
    scene_free(&s);
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
static void task_break(void) {
    scene *s = tested;
    scene_guard_watch(NULL);
    aftermath(s);
    s->limit_ns = 0;
    if (s->b.kind == &peer_raw) shutdown(s->b.fd, SHUT_RDWR);
    else if (s->b.kind == &peer_conn) nkt_conn_interrupt(s->b.conn);
}

//------------------------------------------------------------------------------
// What explains a check that fails, besides the failure's own code

// What failed behind the user's back is the next call's error.
static bool told_by_next_write(int kind, long long got) {
    (void)kind, (void)got;
    return tested->a != NULL && tested->face->nonblocking &&
           is_the_failure(nkt_conn_flush(tested->a));
}

// A peek at a stream that has failed gives what there is, as at its end; the
// failure comes behind that, and the bytes are not lost.
static bool told_by_next_read(int kind, long long got) {
    char buf[512];
    scene *s = tested;
    size_t have = 0;
    bool is_short = kind == TEST_NUMBER ? got == NKT_OK || got == true : kind == TEST_BEGINNING;
    if (!is_short || s->a == NULL || !s->short_view) return false;
    s->short_view = false;
    nkt_conn_set_option(s->a, NKT_OPT_READ_TIMEOUT_MS, 1);
    for (got = 1; got > 0 && have <= s->short_len;) {
        got = nkt_conn_read(s->a, buf, sizeof buf);
        if (got > 0) have += (size_t)got;
    }
    return have == s->short_len && is_the_failure(got);
}

static bool is_number_0(int kind, long long got) {
    return kind == TEST_NUMBER && got == 0;
}

static bool is_not_connected(int kind, long long got) {
    return kind == TEST_NUMBER && got == NKT_ENOTCONN;
}

static bool is_not_a_socket(int kind, long long got) {
    return kind == TEST_NUMBER && got == NKT_ENOTSOCK;
}

static bool is_text_for_no_peer(int kind, long long got) {
    return kind == TEST_NUMBER && got == (long long)strlen("not connected");
}

static bool is_unmeasured(int kind, long long got) {
    (void)got;
    return kind == TEST_OTHER && tasks[fault.task].r->run == row_byte_counts;
}

static bool is_end_for_reset(int kind, long long got) {
    return kind == TEST_NUMBER && got == NKT_EOF && tasks[fault.task].r->run == row_abort;
}

static bool is_no_signal_yet(int kind, long long got) {
    return kind == TEST_OTHER && got == 0 && tasks[fault.task].r->run == row_signal_writing;
}

static bool is_written_at_once(int kind, long long got) {
    return kind == TEST_NUMBER && got == NKT_OK && tested->small_buffers &&
           fault.option == NKT_SO_SEND_BUFFER;
}

// Without a thread what is late and on no poller moves in its calls only, and
// starting one is tried again in the next of them.
static bool needs_the_pump(int kind, long long got) {
    (void)kind, (void)got;
    return tested->face->impaired == LATE && !tested->face->polled;
}

static const excuse_row excuses[] = {
    {"the next write tells what failed behind the user's back", F_COUNT, 0, told_by_next_write},
    {"a shorter peek, and the next read tells why", F_recv, 0, told_by_next_read},
    {"a shorter peek, and the next read tells why (recv_wait)", F_recv_wait, 0,
     told_by_next_read},
    // Its contract: 0 is how a poller tells of a signal.
    {"a poller's wait that a signal ended has no event", F_poll_wait, NKT_EINTR, is_number_0},
    // Whatever the reason is, there is no name.
    {"no local address", F_local_name, 0, is_not_connected},
    // nkt_conn_adopt: not a socket that it knows.
    {"no type of socket", F_get_option, 0, is_not_a_socket},
    // A text for logs, which has a word for that.
    {"\"not connected\" for a peer's name", F_peer_name, 0, is_text_for_no_peer},
    // -1 is what nkt_conn_info has for what the system does not tell.
    {"no round-trip time", F_tcp_info, 0, is_unmeasured},
    // Its contract: the peer sees an end then. The handle is gone, nobody is
    // left to be told.
    {"an end in the place of a reset", F_set_option, 0, is_end_for_reset},
    // The write ends as the row wants, and the row's signal has not come yet.
    {"a write that no signal has ended", F_wait, NKT_EINTR, is_no_signal_yet},
    // A buffer's size is a wish, and its failure is not told: all fits into a
    // large one, where the row wants to be told of a full one.
    {"a write that did not wait", F_set_option, 0, is_written_at_once},
    // No thread of netkit's own was to be had.
    {"nobody moves what is late", F_wake_open, 0, needs_the_pump},
    {"nobody moves what is late (allocate)", F_allocate, 0, needs_the_pump},
};

#define EXCUSE_COUNT (sizeof excuses / sizeof excuses[0])

static int excuse(int kind, long long got) {
    return fault_excuse(excuses, EXCUSE_COUNT, kind, got);
}

//------------------------------------------------------------------------------
// Which rows and faces

static void plan_row(const row *r, const face *f, bool slow, int *count) {
    const char *why = NULL;
    if (f->impaired == LATE && (r->needs & SLOW) != 0) {
        why = "all that it moves fits in what is under way there";
    } else if (r->run == row_going_back_cr) {
        why = "what it goes back to is let go of by a receive of one byte";
    }
    if (why != NULL) {
        bool is_told = ((r->needs & SLOW) != 0) == slow;
        if (is_told) printf("no faults: %s / %s: %s\n", r->name, f->name, why);
        return;
    }
    static const char *const sample[] = {"a line", "write", "messages, empty and small"};
    tasks[*count].r = r;
    tasks[*count].f = f;
    if (((r->needs & SLOW) != 0) != slow) return;
    if (fault_is_wanted(*count, r->name, sample, sizeof sample / sizeof sample[0])) ++*count;
}

static int plan(void) {
    int count = 0;
    // The slow ones first, so that they end beside the others.
    for (int slow = 1; slow >= 0; slow--) {
        for (size_t i = 0; i < ROW_COUNT * FACE_COUNT; i++) {
            const row *r = &rows[i / FACE_COUNT];
            const face *f = &scene_faces[i % FACE_COUNT];
            if (why_not(r, f) == NULL) plan_row(r, f, slow != 0, &count);
        }
        for (size_t i = 0; i < OWN_COUNT * FACE_COUNT; i++) {
            const row *r = &own_rows[i / FACE_COUNT];
            const face *f = &scene_faces[i % FACE_COUNT];
            if (own_has(r, f)) plan_row(r, f, slow != 0, &count);
        }
    }
    return count;
}

// In each child, before its first run.
static void task_prepare(void) {
    static actor guard;
    scene_hooks.env = env_made;
    scene_hooks.again = fault_again;
    nkt_test.excuse = excuse;
    if (!actor_start(&guard, scene_guard_run)) exit(1);
}

#endif
