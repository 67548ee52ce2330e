// udp_sender.c - sends one message a second to a host by name
//
// Shows a connected datagram handle: it has one peer, and hears when nobody
// listens there; see udp_receiver.c.
//
//     cc -I. examples/udp_sender.c -o udp_sender -pthread
//     ./udp_sender localhost:5005 3          (three times; for ever without)
//
// Prints "sent message 1" and so on, and "connection refused ..." where nobody
// listens.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    nkt_udp_opts opts = {.recv_timeout_ms = 1000};
    nkt_udp *udp;
    char text[64];
    ptrdiff_t err = nkt_udp_open(NULL, &opts, &udp);
    if (err >= 0) err = nkt_udp_connect(udp, argc > 1 ? argv[1] : "localhost:5005");
    for (int i = 1; err >= 0 && (argc < 3 || i <= strtol(argv[2], NULL, 10)); i++) {
        snprintf(text, sizeof text, "message %d", i);
        if ((err = nkt_udp_send_str(udp, text, NULL)) < 0) break;
        printf("sent %s\n", text);
        err = nkt_udp_recv(udp, text, sizeof text, NULL);      // an answer, or a second
        if (err == NKT_ETIMEDOUT) err = NKT_OK;
    }
    if (err < 0) fprintf(stderr, "%s\n", nkt_strerror((int)err));
    return err < 0;
}
