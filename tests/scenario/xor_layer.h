// xor_layer.h - datagrams with every byte changed by a key, as a layer
//
// The module a user might write: it is compiled apart, sees nothing of netkit
// but the declarations, and passes every row of the datagram table.

#ifndef XOR_LAYER_H
#define XOR_LAYER_H

#include "netkit.h"

// Puts the layer on top of a handle; the peer has to do the same.
// Returns NKT_OK, or why nkt_udp_push refused.
int xor_push(nkt_udp *udp, unsigned char key);

#endif
