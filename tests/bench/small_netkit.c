// small_netkit.c - connects by name and prints lines: how big is such a program?
//
//     make sizes

#define NETKIT_IMPLEMENTATION
#define NETKIT_STATIC
#include "netkit.h"
#include <stdio.h>

int main(int argc, char **argv) {
    nkt_connect_report report;
    nkt_connect_opts opts = {0};
    nkt_conn *conn;
    nkt_str line;
    int err;
    opts.report = &report;
    if (nkt_connect(argc > 1 ? argv[1] : "localhost:7777", &opts, &conn) < 0) {
        fprintf(stderr, "%s\n", report.text);
        return 1;
    }
    while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK) printf("%s\n", line.ptr);
    if (err != NKT_EOF) fprintf(stderr, "%s\n", nkt_strerror(err));
    nkt_conn_close(conn);
    return err != NKT_EOF;
}
