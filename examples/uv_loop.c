// uv_loop.c - netkit inside libuv's loop
//
// Shows nkt_poller_fd and nkt_poller_timeout_ms with a uv_poll_t and a
// uv_timer_t: they stand for all of netkit's handles, however many there are.
// The loop here has a timer of its own beside them.
//
//     flags=$(pkg-config --cflags --libs libuv)
//     cc -I. examples/uv_loop.c -o uv_loop -pthread $flags
//     ./uv_loop :7777
//     ./line_client localhost:7777 hi    (in another window)
//
// Says every line back, and prints:
//
//     listening on [::]:7777
//     tick: 0 lines so far
//     tick: 1 lines so far

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <uv.h>

static unsigned lines;

// Says lines back until there are no more; NKT_EAGAIN, or how it ended.
static int echo(nkt_conn *conn) {
    int err;
    nkt_str line;
    while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK) {
        nkt_str reply[2] = {line, nkt_str_of("\n")};
        if (nkt_conn_writev(conn, reply, 2) < 0) return NKT_EPIPE;  // sends, but does not read
        lines++;
    }
    return err;
}

// Everything that netkit has to do now. Does not wait.
static void serve(nkt_poller *poller) {
    nkt_event event;
    nkt_conn *conn;
    nkt_poller_wait(poller, 0);
    while (nkt_poller_next(poller, &event) == NKT_OK) {
        if (event.listener != NULL) {
            while (nkt_accept(event.listener, &conn) == NKT_OK)
                if (nkt_poller_add_conn(poller, conn, NULL) < 0) nkt_conn_close(conn);
            continue;
        }
        int err = echo(event.conn);
        if (err == NKT_EAGAIN) continue;
        if (err == NKT_EOF && nkt_conn_flush(event.conn) == NKT_EAGAIN)
            nkt_poller_want(poller, event.conn, NKT_WRITE);     // back here once that has gone
        else nkt_conn_close(event.conn);
    }
}

static nkt_poller *poller;
static uv_timer_t deadline;

static void on_deadline(uv_timer_t *timer) {
    (void)timer;
    serve(poller);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
    (void)poll;
    (void)status;
    (void)events;
    serve(poller);
}

// Just before the loop sleeps: for how long at most?
static void on_prepare(uv_prepare_t *prepare) {
    (void)prepare;
    int32_t timeout_ms = nkt_poller_timeout_ms(poller);
    if (timeout_ms < 0) uv_timer_stop(&deadline);
    else uv_timer_start(&deadline, on_deadline, (uint64_t)timeout_ms, 0);
}

static void on_tick(uv_timer_t *timer) {
    (void)timer;
    printf("tick: %u lines so far\n", lines);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    nkt_listen_opts opts = {0};
    opts.nonblocking = true;
    nkt_listener *listener;
    int err = nkt_listen(argc > 1 ? argv[1] : ":7777", &opts, &listener);
    if (err >= 0) err = nkt_poller_open(NULL, &poller);
    if (err >= 0) err = nkt_poller_add_listener(poller, listener, NULL);
    if (err < 0) {
        fprintf(stderr, "%s\n", nkt_strerror(err));
        return 1;
    }
    char where[128];
    nkt_listener_name(listener, where, sizeof where);
    printf("listening on %s\n", where);

    uv_loop_t *loop = uv_default_loop();
    uv_poll_t ready;
    uv_prepare_t prepare;
    uv_timer_t ticks;
    uv_timer_init(loop, &deadline);
    uv_poll_init(loop, &ready, (int)nkt_poller_fd(poller));
    uv_poll_start(&ready, UV_READABLE, on_ready);
    uv_prepare_init(loop, &prepare);
    uv_prepare_start(&prepare, on_prepare);
    uv_timer_init(loop, &ticks);
    uv_timer_start(&ticks, on_tick, 1000, 1000);
    return uv_run(loop, UV_RUN_DEFAULT);
}
