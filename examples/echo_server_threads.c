// echo_server_threads.c - a server with a thread for each client
//
// Shows the blocking face: accept, read and write wait, so the program reads
// from top to bottom. Right for up to a few hundred clients; chat_server.c
// shows how to serve thousands.
//
//     cc -I. examples/echo_server_threads.c -o echo_server_threads -pthread
//     ./echo_server_threads :7777
//     ./line_client localhost:7777 hi    (in another window)
//
// Says every line back, and prints:
//
//     listening on [::]:7777
//     127.0.0.1:50972 came
//     127.0.0.1:50972 left, lines: 1; end of stream: the peer has finished

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>

static void serve(void *arg) {
    nkt_conn *conn = (nkt_conn *)arg;
    char who[128];
    nkt_conn_peer_name(conn, who, sizeof who);
    printf("%s came\n", who);

    int err, count = 0;
    nkt_str line;
    while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK) {
        nkt_str reply[2] = {line, nkt_str_of("\n")};
        if ((err = nkt_conn_writev(conn, reply, 2)) < 0) break;
        count++;
    }
    printf("%s left, lines: %d; %s\n", who, count, nkt_strerror(err));
    nkt_conn_close(conn);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    nkt_problem problem;
    nkt_listen_opts opts = {0};
    opts.stream.read_timeout_ms = 600000;   // who is silent for ten minutes is sent home
    opts.stream.write_timeout_ms = 10000;   // and so is who does not read what it asked for
    opts.problem = &problem;
    nkt_listener *listener;
    if (nkt_listen(argc > 1 ? argv[1] : ":7777", &opts, &listener) < 0) {
        fprintf(stderr, "%s\n", problem.text);
        return 1;
    }
    char where[128];
    nkt_listener_name(listener, where, sizeof where);
    printf("listening on %s\n", where);

    for (;;) {
        nkt_conn *conn;
        int err = nkt_accept(listener, &conn);
        if (err == NKT_OK && (err = nkt_thread_start(NULL, serve, conn)) < 0) nkt_conn_close(conn);
        if (err < 0) fprintf(stderr, "%s\n", nkt_strerror(err));    // and on with the next one
    }
}
