// xor_talk.c - datagrams through a module of our own
//
// Shows a datagram handle with a transport of one's own on it: only the line
// that pushes it differs.
//
//     cc -I. examples/xor_talk.c examples/xor.c -o xor_talk -pthread
//     ./xor_talk --listen :7790
//     ./xor_talk localhost:7790 hello        (in another window)
//
// Prints what arrives; "hello" goes over the wire as "2?665".

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "xor.h"
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    bool listens = argc > 2 && strcmp(argv[1], "--listen") == 0;
    nkt_udp *udp;
    nkt_addr addr;
    ptrdiff_t got = argc < 3 ? (int)NKT_EINVAL : nkt_udp_open(listens ? argv[2] : NULL, NULL, &udp);
    if (got >= 0) got = xor_push(udp, 0x5a);
    if (got >= 0 && !listens) got = nkt_udp_connect(udp, argv[1]);
    if (got >= 0 && !listens) got = nkt_udp_send_str(udp, argv[2], NULL);
    if (got >= 0 && listens && (got = nkt_udp_local(udp, &addr)) >= 0) {
        char buf[1500], text[NKT_ADDR_TEXT_MAX];
        nkt_addr_format(&addr, text, sizeof text);
        printf("listening on %s\n", text);
        fflush(stdout);
        while ((got = nkt_udp_recv(udp, buf, sizeof buf, &addr)) >= 0) {
            printf("%.*s\n", (int)got, buf);
            fflush(stdout);
        }
    }
    if (got < 0) fprintf(stderr, "%s\n", nkt_strerror((int)got));
    return got < 0;
}
