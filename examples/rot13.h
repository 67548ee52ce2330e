// rot13.h - a transport that turns letters by 13 on the way; see rot13.c
#ifndef ROT13_H
#define ROT13_H

#include "netkit.h"

#ifdef __cplusplus
extern "C" {
#endif

// Puts rot13 on a connection: it can be blocking or not, TCP, in memory or
// anything else. Never blocks. Returns as nkt_conn_push.
int rot13_push(nkt_conn *conn);

// Connects, and puts rot13 on it. Blocks, unless opts say otherwise; returns as
// nkt_connect.
int rot13_connect(const char *target, const nkt_connect_opts *opts, nkt_conn **conn);

#ifdef __cplusplus
}
#endif
#endif
