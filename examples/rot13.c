// rot13.c - a transport module, compiled apart from netkit and from the program
//
// Shows how to change what goes over a connection: TLS, compression and logging
// are made in the same way. The functions never wait: they call the link below,
// and hand on what it says.
//
//     cc -I. -c examples/rot13.c
//
// It only needs the declarations of netkit.h. rot13_chat.c is a program that
// uses it.

#include "rot13.h"

static char turned(char c) {
    if (c >= 'a' && c <= 'z') return (char)('a' + (c - 'a' + 13) % 26);
    if (c >= 'A' && c <= 'Z') return (char)('A' + (c - 'A' + 13) % 26);
    return c;
}

static ptrdiff_t rot13_recv(nkt_link *link, void *buf, size_t cap) {
    char *bytes = (char *)buf;
    ptrdiff_t got = nkt_link_recv(link->below, buf, cap);
    for (ptrdiff_t i = 0; i < got; i++) bytes[i] = turned(bytes[i]);
    return got;                             // or NKT_EAGAIN, NKT_EOF, an error
}

// Takes as much as fits into a block on the stack. What the link below does not
// take now comes here again. A transport that cannot do the same bytes twice
// (TLS) keeps its output in `link->self`, and has a `flush` that gets rid of
// it.
static ptrdiff_t rot13_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    char block[4096];
    nkt_str out = {block, 0};
    for (size_t p = 0; p < count; p++)
        for (size_t i = 0; i < pieces[p].len && out.len < sizeof block; i++)
            block[out.len++] = turned(pieces[p].ptr[i]);
    return nkt_link_send(link->below, &out, 1);
}

static int rot13_shutdown_write(nkt_link *link) {
    return nkt_link_shutdown_write(link->below);
}

static void rot13_close(nkt_link *link, bool abort) {
    (void)link;                             // would free link->self; there is none
    (void)abort;
}

static const nkt_transport rot13_transport = {
    .size = sizeof(nkt_transport),
    .name = "rot13",
    .recv = rot13_recv,
    .send = rot13_send,
    .shutdown_write = rot13_shutdown_write,
    .close = rot13_close,                   // the rest is NULL: asks the link below
};

int rot13_push(nkt_conn *conn) {
    return nkt_conn_push(conn, &rot13_transport, NULL);
}

int rot13_connect(const char *target, const nkt_connect_opts *opts, nkt_conn **conn) {
    nkt_conn *made;
    int err = nkt_connect(target, opts, &made);
    if (err < 0) return err;
    err = rot13_push(made);
    if (err < 0) nkt_conn_close(made);
    else *conn = made;
    return err;
}
