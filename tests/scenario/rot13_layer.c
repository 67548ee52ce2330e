// rot13_layer.c - see rot13_layer.h; built against the declarations only

#include "rot13_layer.h"

#include <stdlib.h>

#define ROT13_CHUNK 16384

// What goes out is turned in here: the caller's bytes are not ours to change.
typedef struct rot13 {
    char out[ROT13_CHUNK];
} rot13;

static char rot13_turn(char c) {
    if (c >= 'a' && c <= 'z') return (char)('a' + (c - 'a' + 13) % 26);
    if (c >= 'A' && c <= 'Z') return (char)('A' + (c - 'A' + 13) % 26);
    return c;
}

static ptrdiff_t rot13_recv(nkt_link *link, void *buf, size_t cap) {
    char *bytes = (char *)buf;
    ptrdiff_t got = nkt_link_recv(link->below, buf, cap);
    for (ptrdiff_t i = 0; i < got; i++) bytes[i] = rot13_turn(bytes[i]);
    return got;
}

// Nothing is held back: what the link below did not take is reported as not
// taken, and comes again.
static ptrdiff_t rot13_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    rot13 *self = (rot13 *)link->self;
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < pieces[i].len && len < ROT13_CHUNK; k++) {
            self->out[len++] = rot13_turn(pieces[i].ptr[k]);
        }
    }
    nkt_str turned;
    turned.ptr = self->out;
    turned.len = len;
    return nkt_link_send(link->below, &turned, 1);
}

static int rot13_shutdown_write(nkt_link *link) {
    return nkt_link_shutdown_write(link->below);
}

static void rot13_close(nkt_link *link, bool abort) {
    (void)abort;
    free(link->self);
}

int rot13_push(nkt_conn *conn) {
    static const nkt_transport table = {
        sizeof(nkt_transport), "rot13", rot13_recv, rot13_send, rot13_shutdown_write,
        NULL, rot13_close, NULL, NULL, NULL, NULL,
    };
    rot13 *self = (rot13 *)malloc(sizeof *self);
    if (self == NULL) return NKT_ENOMEM;
    int err = nkt_conn_push(conn, &table, self);
    if (err < 0) free(self);
    return err;
}
