// connect_report.c - what a connect tries, and how it ends
//
// Shows the report that nkt_connect fills: the look-ups of both families, every
// address that was tried with its error and time, and all of it in a sentence.
//
//     cc -I. examples/connect_report.c -o connect_report -pthread
//     ./connect_report localhost:80 example.org:http
//
// Prints for each target something like
//
//     example.org:http
//       IPv6 addresses: found after 12 ms
//       IPv4 addresses: found after 9 ms
//       [2001:db8::7]:80       12 to 262 ms  given up: another one was faster
//       192.0.2.7:80          262 to 270 ms  success
//       connected to 192.0.2.7:80

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>

static void print_lookup(const char *family, int err, int ms) {
    if (err == NKT_EOF) return;                         // there was nothing to look up
    if (err == NKT_OK) printf("  %s addresses: found after %d ms\n", family, ms);
    else if (err == NKT_EAGAIN) printf("  %s addresses: no answer\n", family);
    else printf("  %s addresses: %s (%d ms)\n", family, nkt_strerror(err), ms);
}

static int try_target(const char *target) {
    nkt_connect_report report;
    nkt_connect_opts opts = {0};
    opts.timeout_ms = 5000;                             // looking up and trying, together
    opts.report = &report;
    nkt_conn *conn;
    int err = nkt_connect(target, &opts, &conn);
    printf("%s\n", target);
    print_lookup("IPv6", report.lookup_err[0], report.lookup_ms[0]);
    print_lookup("IPv4", report.lookup_err[1], report.lookup_ms[1]);
    for (int i = 0; i < report.attempt_count && i < NKT_ATTEMPTS_MAX; i++) {
        const nkt_attempt *one = &report.attempts[i];
        char addr[NKT_ADDR_TEXT_MAX];
        nkt_addr_format(&one->addr, addr, sizeof addr);
        printf("  %-28s %5d to %d ms  %s\n", addr, one->start_ms, one->end_ms,
               one->err == NKT_ECANCELED ? "given up: another one was faster"
                                         : nkt_strerror(one->err));
    }
    if (err < 0) {
        printf("  %s\n", report.text);
        return 1;
    }
    char peer[NKT_ADDR_TEXT_MAX];
    nkt_conn_peer_name(conn, peer, sizeof peer);
    printf("  connected to %s\n", peer);
    nkt_conn_close(conn);
    return 0;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) failed += try_target(argv[i]);
    return failed > 0;
}
