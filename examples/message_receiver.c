// message_receiver.c - takes messages of any bytes and answers each
//
// Shows messages: a length and that many bytes, so that neither side has to
// look for an end. What is longer than message_max is refused before any memory
// is taken for it.
//
//     cc -I. examples/message_receiver.c -o message_receiver -pthread
//     ./message_receiver :7778
//     ./message_sender localhost:7778 hi    (in another window)
//
// Prints:
//
//     listening on [::]:7778
//     2 bytes: hi
//     end of stream: the peer has finished sending

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    nkt_problem problem;
    nkt_listen_opts opts = {0};
    opts.stream.message_max = 65536;
    opts.stream.read_timeout_ms = 10000;
    opts.problem = &problem;
    nkt_listener *listener;
    if (nkt_listen(argc > 1 ? argv[1] : ":7778", &opts, &listener) < 0) {
        fprintf(stderr, "%s\n", problem.text);
        return 1;
    }
    char where[128];
    nkt_listener_name(listener, where, sizeof where);
    printf("listening on %s\n", where);

    nkt_conn *conn;
    while (nkt_accept(listener, &conn) == NKT_OK) {         // one sender after the other
        int err;
        nkt_str message;
        while ((err = nkt_conn_read_message(conn, &message)) == NKT_OK) {
            printf("%lu bytes: %.*s\n", (unsigned long)message.len, (int)message.len, message.ptr);
            if ((err = nkt_conn_write_message(conn, "thank you", 9)) < 0) break;
        }
        printf("%s\n", nkt_strerror(err));
        nkt_conn_close(conn);
    }
    nkt_listener_close(listener);
    return 1;
}
