// xor.h - datagrams with every byte changed by a key; see xor.c

#ifndef XOR_H
#define XOR_H

#include "netkit.h"

// Puts the layer on top of a handle; the peer has to do the same.
// Returns NKT_OK, or why nkt_udp_push refused.
int xor_push(nkt_udp *udp, unsigned char key);

#endif
