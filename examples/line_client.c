// line_client.c - talks to any server that speaks in lines
//
// Shows a blocking connection used by two threads at once, one writing and one
// reading, so that a hundred thousand questions can be on their way before the
// first answer is read.
//
//     cc -I. examples/line_client.c -o line_client -pthread
//     ./line_client localhost:6379 PING "ECHO hi"
//     ./line_client localhost:6379 < commands.txt
//
// Lines given as arguments get one reply line each; stdin is sent while replies
// are printed, until the server hangs up. The server can be redis, SMTP or
// one of the servers here.
//
// Prints the lines that come back:
//
//     +PONG
//     $2

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <string.h>

// Two threads use it until the program ends, and so it is never closed.
static nkt_conn *conn;

static int say(const char *text, size_t len) {
    nkt_str pieces[2] = {{text, len}, nkt_str_of("\r\n")};
    return nkt_conn_writev(conn, pieces, 2);
}

static void send_stdin(void *arg) {
    static char text[60000];
    (void)arg;
    bool goodbye = false;
    while (fgets(text, sizeof text, stdin) != NULL) {
        size_t len = strcspn(text, "\r\n");
        if (say(text, len) < 0) return;           // the reading thread hears why
        goodbye = strncmp(text, "QUIT", 4) == 0;
    }
    // After QUIT it is the server's turn to hang up; redis throws away replies
    // if we do it first.
    if (!goodbye) nkt_conn_shutdown_write(conn);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: line_client host:port [line...]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IONBF, 0);       // seen as it comes, also through a pipe
    nkt_connect_report report;
    nkt_connect_opts opts = {0};
    opts.report = &report;
    if (nkt_connect(argv[1], &opts, &conn) < 0) {
        fprintf(stderr, "%s\n", report.text);
        return 1;
    }
    int err = NKT_OK;
    if (argc == 2) err = nkt_thread_start(NULL, send_stdin, NULL);
    for (int i = 2; i < argc && err == NKT_OK; i++) err = say(argv[i], strlen(argv[i]));

    int left = argc - 2;
    while ((err == NKT_OK || err == NKT_EINTR) && (argc == 2 || left > 0)) {
        nkt_str line;
        err = nkt_conn_read_line(conn, &line);      // NKT_EINTR: after Ctrl-Z and fg
        if (err != NKT_OK) continue;
        printf("%s\n", line.ptr);
        left--;
    }
    if (err < 0 && err != NKT_EOF) fprintf(stderr, "%s\n", nkt_strerror(err));
    return err < 0 && err != NKT_EOF;
}
