// rot13_layer.h - a stream that turns letters by 13 places, as a layer
//
// The module a user might write: it is compiled apart, sees nothing of netkit
// but the declarations, and passes every row of the scenario table.

#ifndef ROT13_LAYER_H
#define ROT13_LAYER_H

#include "netkit.h"

// Puts the layer on top of a connection; the peer has to do the same.
// Returns NKT_OK, or why nkt_conn_push refused.
int rot13_push(nkt_conn *conn);

#endif
