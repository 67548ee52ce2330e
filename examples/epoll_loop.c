// epoll_loop.c - netkit inside an epoll loop that a program has already (Linux)
//
// Shows nkt_poller_fd and nkt_poller_timeout_ms: one descriptor stands for all
// of netkit's handles, however many there are. The loop here has a timer of its
// own beside it.
//
//     cc -I. examples/epoll_loop.c -o epoll_loop -pthread
//     ./epoll_loop :7777
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
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

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

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    nkt_listen_opts opts = {0};
    opts.nonblocking = true;
    nkt_listener *listener;
    nkt_poller *poller;
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

    int loop = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct itimerspec every_second = {{1, 0}, {1, 0}};
    timerfd_settime(timer, 0, &every_second, NULL);
    struct epoll_event theirs = {.events = EPOLLIN, .data.fd = timer};
    struct epoll_event netkits = {.events = EPOLLIN, .data.fd = (int)nkt_poller_fd(poller)};
    epoll_ctl(loop, EPOLL_CTL_ADD, theirs.data.fd, &theirs);
    epoll_ctl(loop, EPOLL_CTL_ADD, netkits.data.fd, &netkits);

    for (;;) {
        struct epoll_event ready[8];
        int count = epoll_wait(loop, ready, 8, nkt_poller_timeout_ms(poller));
        for (int i = 0; i < count; i++) {
            uint64_t ticks;
            if (ready[i].data.fd != timer) continue;
            if (read(timer, &ticks, sizeof ticks) > 0) printf("tick: %u lines so far\n", lines);
        }
        serve(poller);              // also when only the time-out said so
    }
}
