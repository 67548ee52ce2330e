// udp_receiver.c - prints the datagrams that come to a port
//
// Shows receiving on IPv6 and IPv4 at once; see udp_sender.c.
//
//     cc -I. examples/udp_receiver.c -o udp_receiver -pthread
//     ./udp_receiver :5005
//
// Prints "on port 5005" and then each message and its sender.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>

int main(int argc, char **argv) {
    char buf[65536], text[NKT_ADDR_TEXT_MAX];
    nkt_udp *udp;
    nkt_addr addr;
    ptrdiff_t got = nkt_udp_open(argc > 1 ? argv[1] : ":5005", NULL, &udp);
    if (got >= 0 && (got = nkt_udp_local(udp, &addr)) >= 0) printf("on port %u\n", addr.port);
    while (got >= 0 && fflush(stdout) == 0) {
        if ((got = nkt_udp_recv(udp, buf, sizeof buf, &addr)) < 0) break;
        nkt_addr_format(&addr, text, sizeof text);
        printf("%.*s from %s\n", (int)got, buf, text);
    }
    fprintf(stderr, "%s\n", nkt_strerror((int)got));
    return 1;
}
