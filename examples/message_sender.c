// message_sender.c - sends its arguments as messages, each is answered
//
// Shows write_message and read_message. An answer is the only proof that the
// other side has read what was written: a write returns when the system has
// taken the bytes.
//
//     cc -I. examples/message_sender.c -o message_sender -pthread
//     ./message_sender localhost:7778 hi "two
//     lines"
//
// Prints the answers:
//
//     thank you
//     thank you

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: message_sender host:port message...\n");
        return 2;
    }
    nkt_connect_report report;
    nkt_connect_opts opts = {0};
    opts.timeout_ms = 5000;
    opts.stream.read_timeout_ms = 5000;
    opts.report = &report;
    nkt_conn *conn;
    if (nkt_connect(argv[1], &opts, &conn) < 0) {
        fprintf(stderr, "%s\n", report.text);
        return 1;
    }
    int err = NKT_OK;
    for (int i = 2; i < argc && err == NKT_OK; i++) {
        nkt_str answer;
        err = nkt_conn_write_message(conn, argv[i], strlen(argv[i]));
        if (err == NKT_OK) err = nkt_conn_read_message(conn, &answer);
        if (err == NKT_OK) printf("%.*s\n", (int)answer.len, answer.ptr);
    }
    if (err < 0) fprintf(stderr, "%s\n", nkt_strerror(err));
    nkt_conn_close(conn);
    return err < 0;
}
