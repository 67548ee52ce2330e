// glib_loop.c - netkit inside GLib's main loop, which GTK programs have
//
// Shows nkt_poller_fd and nkt_poller_timeout_ms as a GSource: it stands for all
// of netkit's handles, however many there are. The loop here has a time-out of
// GLib's beside it.
//
//     flags=$(pkg-config --cflags --libs glib-2.0)
//     cc -I. examples/glib_loop.c -o glib_loop -pthread $flags
//     ./glib_loop :7777
//     ./line_client localhost:7777 hi    (in another window)
//
// Says every line back, and prints:
//
//     listening on [::]:7777
//     tick: 0 lines so far
//     tick: 1 lines so far

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <glib.h>
#include <stdio.h>

static unsigned lines;

// Says lines back until there are no more; NKT_EAGAIN, or how it ended.
static int echo(nkt_conn *conn) {
    int err;
    nkt_str line;
    while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK) {
        nkt_str reply[2] = {line, nkt_str_of("\n")};
        if (nkt_conn_writev(conn, reply, 2) < 0) return NKT_EPIPE;  // sends, but does not read
        lines++;
    }
    return err;
}

// Everything that netkit has to do now. Does not wait.
static void serve(nkt_poller *poller) {
    nkt_event event;
    nkt_conn *conn;
    nkt_poller_wait(poller, 0);
    while (nkt_poller_next(poller, &event) == NKT_OK) {
        if (event.listener != NULL) {
            while (nkt_accept(event.listener, &conn) == NKT_OK)
                if (nkt_poller_add_conn(poller, conn, NULL) < 0) nkt_conn_close(conn);
            continue;
        }
        int err = echo(event.conn);
        if (err == NKT_EAGAIN) continue;
        if (err == NKT_EOF && nkt_conn_flush(event.conn) == NKT_EAGAIN)
            nkt_poller_want(poller, event.conn, NKT_WRITE);     // back here once that has gone
        else nkt_conn_close(event.conn);
    }
}

typedef struct netkit_source {
    GSource base;
    nkt_poller *poller;
    gpointer fd;
} netkit_source;

static gboolean before_sleep(GSource *source, gint *timeout_ms) {
    *timeout_ms = nkt_poller_timeout_ms(((netkit_source *)source)->poller);
    return *timeout_ms == 0;
}

static gboolean after_sleep(GSource *source) {
    netkit_source *ours = (netkit_source *)source;
    return g_source_query_unix_fd(source, ours->fd) != 0 ||
           nkt_poller_timeout_ms(ours->poller) == 0;
}

static gboolean run(GSource *source, GSourceFunc callback, gpointer data) {
    (void)callback;
    (void)data;
    serve(((netkit_source *)source)->poller);
    return G_SOURCE_CONTINUE;
}

static gboolean tick(gpointer data) {
    (void)data;
    printf("tick: %u lines so far\n", lines);
    return G_SOURCE_CONTINUE;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    nkt_listen_opts opts = {0};
    opts.nonblocking = true;
    nkt_listener *listener;
    nkt_poller *poller;
    int err = nkt_listen(argc > 1 ? argv[1] : ":7777", &opts, &listener);
    if (err >= 0) err = nkt_poller_open(NULL, &poller);
    if (err >= 0) err = nkt_poller_add_listener(poller, listener, NULL);
    if (err < 0) {
        fprintf(stderr, "%s\n", nkt_strerror(err));
        return 1;
    }
    char where[128];
    nkt_listener_name(listener, where, sizeof where);
    printf("listening on %s\n", where);

    GSourceFuncs functions = {.prepare = before_sleep, .check = after_sleep, .dispatch = run};
    GSource *source = g_source_new(&functions, sizeof(netkit_source));
    netkit_source *ours = (netkit_source *)source;
    ours->poller = poller;
    ours->fd = g_source_add_unix_fd(source, (gint)nkt_poller_fd(poller), G_IO_IN);
    g_source_attach(source, NULL);
    g_timeout_add(1000, tick, NULL);
    g_main_loop_run(g_main_loop_new(NULL, FALSE));
    return 0;
}
