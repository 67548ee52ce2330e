// xor.c - a datagram module, compiled apart from netkit and from the program
//
// Shows how to change datagrams on their way: a relay, encryption or a bad
// network are made in the same way. The functions never wait: they call the
// link below, and hand on what it says. (XOR hides nothing from anybody.)
//
//     cc -I. -c examples/xor.c
//
// It only needs the declarations of netkit.h. xor_talk.c is a program that uses
// it.

#include "xor.h"

#include <stdlib.h>

typedef struct xor_state {
    unsigned char key;
    unsigned char out[NKT_DATAGRAM_MAX];
} xor_state;

static int xor_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    const xor_state *self = (const xor_state *)link->self;
    int got = nkt_udp_link_recv(link->below, list, count);
    for (int i = 0; i < got; i++) {
        unsigned char *bytes = (unsigned char *)list[i].data;
        for (uint32_t k = 0; k < list[i].len; k++) bytes[k] ^= self->key;
    }
    return got;
}

// One at a time: the caller's bytes are not ours to change, and there is one
// buffer. What is not taken now comes again.
static int xor_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    xor_state *self = (xor_state *)link->self;
    nkt_datagram changed = list[0];
    const unsigned char *bytes = (const unsigned char *)list[0].data;
    (void)count;
    for (uint32_t k = 0; k < changed.len; k++) self->out[k] = bytes[k] ^ self->key;
    changed.data = self->out;
    return nkt_udp_link_send(link->below, &changed, 1);
}

static void xor_close(nkt_udp_link *link) {
    free(link->self);
}

int xor_push(nkt_udp *udp, unsigned char key) {
    static const nkt_datagram_transport table = {
        sizeof(nkt_datagram_transport), "xor", xor_recv, xor_send, NULL, xor_close,
        NULL, NULL, NULL,
    };
    xor_state *self = (xor_state *)malloc(sizeof *self);
    if (self == NULL) return NKT_ENOMEM;
    self->key = key;
    int err = nkt_udp_push(udp, &table, self);
    if (err < 0) free(self);
    return err;
}
