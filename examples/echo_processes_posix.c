// echo_processes_posix.c - one port served by several processes
//
// Shows reuse_port: each process listens for itself and the system spreads the
// clients over them, which uses every core without a lock. All the forking is
// done before netkit is first used: handles do not survive it. A pipe in the
// poller tells the processes when the first one has ended.
//
//     cc -I. examples/echo_processes_posix.c -o echo_processes_posix
//     ./echo_processes_posix :7777 4
//     ./line_client localhost:7777 hi    (in another window)
//
// Prints the number of each process when it listens, and says every line back
// with the number of the one that serves it:
//
//     4711: hi

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int echo(nkt_conn *conn) {
    int err;
    nkt_str line;
    while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK) {
        char who[24];
        snprintf(who, sizeof who, "%ld: ", (long)getpid());
        nkt_str reply[3] = {nkt_str_of(who), line, nkt_str_of("\n")};
        if (nkt_conn_writev(conn, reply, 3) < 0) return NKT_EPIPE;  // does not read
    }
    return err;
}

static int serve(const char *target, int parent) {
    nkt_problem problem;
    nkt_listen_opts opts = {0};
    opts.nonblocking = opts.reuse_port = true;
    opts.problem = &problem;
    nkt_listener *listener;
    nkt_poller *poller;
    if (nkt_listen(target, &opts, &listener) < 0) {
        fprintf(stderr, "%s\n", problem.text);
        return 1;
    }
    if (nkt_poller_open(NULL, &poller) < 0) return 1;
    if (nkt_poller_add_listener(poller, listener, NULL) < 0) return 1;
    if (nkt_poller_add_fd(poller, parent, NKT_READ, NULL) < 0) return 1;
    printf("%ld listens\n", (long)getpid());
    while (nkt_poller_wait(poller, -1) >= 0) {
        nkt_event event;
        nkt_conn *conn;
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            if (event.fd != NKT_NO_FD) return 0;        // the parent is gone
            while (event.listener != NULL && nkt_accept(listener, &conn) == NKT_OK)
                if (nkt_poller_add_conn(poller, conn, NULL) < 0) nkt_conn_close(conn);
            if (event.conn != NULL && echo(event.conn) != NKT_EAGAIN) nkt_conn_close(event.conn);
        }
    }
    return 1;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 4;
    int ends[2];
    if (pipe(ends) < 0) return 1;
    for (long i = 0; i < count; i++) {
        if (fork() != 0) continue;
        close(ends[1]);         // only the parent has this end, and it closes with it
        return serve(argc > 1 ? argv[1] : ":7777", ends[0]);
    }
    while (wait(NULL) > 0) {}
    return 1;
}
