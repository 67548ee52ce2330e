// rot13_chat.c - two people talk over a transport of our own
//
// Shows a connection with a transport of one's own on it: only the line that
// makes it differs. What is typed is sent by one thread and what arrives is
// printed by another.
//
//     cc -I. examples/rot13_chat.c examples/rot13.c -o rot13_chat -pthread
//     ./rot13_chat --listen :7779
//     ./rot13_chat localhost:7779    (in another window)
//
// Prints what the other one says; "hello" goes over the wire as "uryyb".

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "rot13.h"
#include <stdio.h>
#include <string.h>

// Two threads use it until the program ends, and so it is never closed.
static nkt_conn *conn;

static void send_stdin(void *arg) {
    (void)arg;
    char text[1000];
    while (fgets(text, sizeof text, stdin) != NULL)
        if (nkt_conn_write_str(conn, text) < 0) return;     // the reading thread hears why
    nkt_conn_shutdown_write(conn);
}

static int wait_for_caller(const char *target) {
    nkt_listener *listener;
    char where[128];
    int err = nkt_listen(target, NULL, &listener);
    if (err < 0) return err;
    nkt_listener_name(listener, where, sizeof where);
    printf("* listening on %s\n", where);
    err = nkt_accept(listener, &conn);
    nkt_listener_close(listener);
    return err < 0 ? err : rot13_push(conn);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    bool listens = argc == 3 && strcmp(argv[1], "--listen") == 0;
    if (argc != 2 && !listens) {
        fprintf(stderr, "usage: rot13_chat [--listen] host:port\n");
        return 2;
    }
    int err = listens ? wait_for_caller(argv[2]) : rot13_connect(argv[1], NULL, &conn);
    if (err == NKT_OK) err = nkt_thread_start(NULL, send_stdin, NULL);

    while (err == NKT_OK || err == NKT_EINTR) {     // NKT_EINTR: after Ctrl-Z and fg
        nkt_str line = {0};
        err = nkt_conn_read_line(conn, &line);
        if (err == NKT_OK) printf("%s\n", line.ptr);
    }
    fprintf(stderr, "%s\n", nkt_strerror(err));
    return err != NKT_EOF;
}
