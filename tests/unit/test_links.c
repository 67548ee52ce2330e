// test_links.c - a layer that asks the link below for everything by its own hand
//
// Most layers leave watch, flush and shutdown_write NULL and the library goes
// down the chain for them. One that has them calls nkt_link_watch,
// nkt_link_flush and nkt_link_shutdown_write itself; both must be the same.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

typedef struct calls {
    int watch, flush, shutdown, close;
    int held;                   // how often flush still says NKT_EAGAIN
} calls;

static ptrdiff_t layer_recv(nkt_link *link, void *buf, size_t cap) {
    return nkt_link_recv(link->below, buf, cap);
}

static ptrdiff_t layer_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    return nkt_link_send(link->below, pieces, count);
}

static int layer_shutdown(nkt_link *link) {
    ((calls *)link->self)->shutdown++;
    return nkt_link_shutdown_write(link->below);
}

static void layer_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    calls *count = (calls *)link->self;
    count->watch++;
    nkt_link_watch(link->below, want, out);
    if (count->held > 0) out->ready = true;
}

static int layer_flush(nkt_link *link) {
    calls *count = (calls *)link->self;
    count->flush++;
    if (count->held > 0) {
        count->held--;
        return NKT_EAGAIN;
    }
    return nkt_link_flush(link->below);
}

static void layer_close(nkt_link *link, bool abort) {
    (void)abort;
    ((calls *)link->self)->close++;
}

static const nkt_transport layer = {
    sizeof(nkt_transport), "by hand", layer_recv, layer_send, layer_shutdown, layer_watch,
    layer_close, NULL, NULL, NULL, layer_flush,
};

static void test_layer(void) {
    calls count = {0, 0, 0, 0, 0};
    nkt_conn *a = NULL, *b = NULL;
    nkt_str line;
    if (!CHECK_INT(nkt_conn_pair(NULL, NULL, &a, &b), NKT_OK)) return;
    CHECK_INT(nkt_conn_push(a, &layer, &count), NKT_OK);
    CHECK_INT(nkt_conn_write_str(b, "down\n"), NKT_OK);
    CHECK_INT(nkt_conn_read_line(a, &line), NKT_OK);
    CHECK_VIEW(line, "down");
    nkt_interest interest;
    CHECK_INT(nkt_conn_watch(a, NKT_READ, &interest), NKT_OK);
    CHECK_INT(interest.ready, false);           // nothing to read, and it was asked below
    CHECK_INT(nkt_conn_write_str(b, "more\n"), NKT_OK);
    CHECK_INT(nkt_conn_watch(a, NKT_READ, &interest), NKT_OK);
    CHECK_INT(interest.ready, true);
    CHECK_INT(count.watch, 2);
    count.held = 2;
    CHECK_INT(nkt_conn_flush(a), NKT_OK);       // it goes on until the layer has let go
    CHECK_INT(count.held, 0);
    CHECK_INT(count.flush, 3);
    CHECK_INT(nkt_conn_shutdown_write(a), NKT_OK);
    CHECK_INT(count.shutdown, 1);
    CHECK_INT(nkt_conn_read_line(b, &line), NKT_EOF);
    nkt_conn_close(a);
    CHECK_INT(count.close, 1);
    nkt_conn_close(b);
}

// Fails the next accept in a way that has a code of the system's own.
static int failing_accept(nkt_env *env, nkt_fd fd, nkt_fd *out, void *addr, size_t *len) {
    (void)env, (void)fd, (void)out, (void)addr, (void)len;
    return NKT_EMFILE;
}

static int32_t failing_code(nkt_env *env) {
    (void)env;
    return 24;
}

static void test_listener_code(void) {
    nkt_sys_core core = *nkt_sys_core_default();
    nkt_listen_opts opts;
    nkt_env env;
    nkt_listener *listener = NULL;
    nkt_conn *conn = NULL;
    memset(&opts, 0, sizeof opts);
    CHECK_INT(nkt_env_init(&env), NKT_OK);
    env.core = &core;
    opts.env = &env;
    opts.nonblocking = true;
    if (!CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_OK)) return;
    CHECK_INT(nkt_listener_os_error(listener), 0);
    core.accept = failing_accept;
    core.last_error = failing_code;
    CHECK_INT(nkt_accept(listener, &conn), NKT_EMFILE);
    CHECK_INT(nkt_listener_os_error(listener), 24);
    nkt_listener_close(listener);
    nkt_env_free(&env);
}

// What a lowest link need not have.
static ptrdiff_t dry_recv(nkt_link *link, void *buf, size_t cap) {
    (void)link, (void)buf, (void)cap;
    return NKT_EAGAIN;
}

static ptrdiff_t sink_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    (void)link;
    ptrdiff_t sent = 0;
    for (size_t i = 0; i < count; i++) sent += (ptrdiff_t)pieces[i].len;
    return sent;
}

static void sink_close(nkt_link *link, bool abort) {
    (void)link, (void)abort;
}

static const nkt_transport sink = {
    sizeof(nkt_transport), "sink", dry_recv, sink_send, NULL, NULL, sink_close, NULL, NULL, NULL,
    NULL,
};

static void test_least(void) {
    nkt_conn_opts opts;
    nkt_conn *conn = NULL;
    nkt_interest interest;
    memset(&opts, 0, sizeof opts);
    opts.nonblocking = true;
    if (!CHECK_INT(nkt_conn_open_custom(&sink, NULL, &opts, &conn), NKT_OK)) return;
    memset(&interest, 0xff, sizeof interest);
    CHECK_INT(nkt_conn_watch(conn, NKT_READ | NKT_WRITE, &interest), NKT_OK);
    CHECK_INT(interest.count, 0);
    CHECK_INT(interest.ready, false);
    CHECK(interest.deadline_ns == NKT_NEVER);
    CHECK_INT(nkt_conn_write_str(conn, "gone"), NKT_OK);
    CHECK_INT(nkt_conn_shutdown_write(conn), NKT_EUNSUPPORTED);
    nkt_conn_close(conn);
}

// Each direction is asked for by itself, and before it is over and after.
static void test_directions(void) {
    static char block[4096];
    static const uint32_t wants[] = { NKT_READ, NKT_WRITE };
    nkt_conn_opts opts;
    nkt_conn *a = NULL, *b = NULL;
    nkt_interest interest;
    memset(&opts, 0, sizeof opts);
    opts.nonblocking = true;
    opts.stream.queue_max = sizeof block;
    for (int side = 0; side < 2; side++) {
        if (!CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK)) return;
        CHECK_INT(nkt_conn_watch(a, wants[side], &interest), NKT_OK);
        CHECK_INT(interest.ready, wants[side] == NKT_WRITE);
        while (nkt_conn_write(a, block, sizeof block) == NKT_OK) continue;
        CHECK_INT(nkt_conn_watch(a, wants[side], &interest), NKT_OK);
        CHECK_INT(interest.ready, false);
        nkt_conn_close(b);
        CHECK_INT(nkt_conn_watch(a, wants[side], &interest), NKT_OK);
        CHECK_INT(interest.ready, true);
        nkt_conn_close(a);
    }
}

int main(void) {
    TEST("a layer that asks the link below by its own hand") { test_layer(); }
    TEST("a lowest link has no shutdown and waits for nothing") { test_least(); }
    TEST("a pair is watched one direction at a time") { test_directions(); }
    TEST("the system's code of a failed accept") { test_listener_code(); }
    return test_finish();
}
