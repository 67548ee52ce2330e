// test_udp_links.c - datagram transports of a program's own, and pairs
//
// A device of the test's own that is told by hand what to receive, layers that
// ask the link below for everything, and what tables may and may not do.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "probe.h"

static probe p;
static char buf[300];

static nkt_udp_opts opts_of(bool nonblocking) {
    nkt_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.nonblocking = nonblocking;
    if (!nonblocking) opts.recv_timeout_ms = opts.send_timeout_ms = 5000;
    return opts;
}

//------------------------------------------------------------------------------
// A device

typedef struct device {
    const char *incoming;       // the next datagram, NULL = none
    int sent, closed, recv_result, send_result;
    bool too_long, writable;
} device;

static int device_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    device *self = (device *)link->self;
    (void)count;
    if (self->recv_result != 0) return self->recv_result;
    if (self->incoming == NULL) return NKT_EAGAIN;
    size_t len = strlen(self->incoming);
    list[0].truncated = len > list[0].cap;
    if (list[0].truncated) len = list[0].cap;
    memcpy(list[0].data, self->incoming, len);
    list[0].len = self->too_long ? list[0].cap + 1 : (uint32_t)len;
    self->incoming = NULL;
    return 1;
}

static int device_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    device *self = (device *)link->self;
    (void)list;
    if (self->send_result != 0) return self->send_result;
    self->sent += count;
    return count;
}

static void device_watch(nkt_udp_link *link, uint32_t want, nkt_interest *out) {
    device *self = (device *)link->self;
    if ((want & NKT_READ) && self->incoming != NULL) out->ready = true;
    if ((want & NKT_WRITE) && self->writable) out->ready = true;
}

static void device_close(nkt_udp_link *link) {
    ((device *)link->self)->closed++;
}

static const nkt_datagram_transport device_table = {
    sizeof(nkt_datagram_transport), "device", device_recv, device_send, device_watch,
    device_close, NULL, NULL, NULL,
};

static void test_device(void) {
    device self;
    nkt_udp *udp = NULL;
    nkt_udp_opts opts = opts_of(true);
    nkt_addr addr;
    nkt_datagram got;
    memset(&self, 0, sizeof self);
    CHECK_INT(nkt_udp_open_custom(&device_table, &self, &opts, &udp), NKT_OK);
    CHECK_INT(nkt_udp_recv(udp, buf, sizeof buf, NULL), NKT_EAGAIN);
    self.incoming = "hello";
    memset(&addr, 0x55, sizeof addr);
    CHECK_INT(nkt_udp_recv(udp, buf, sizeof buf, &addr), 5);
    CHECK_INT(addr.ip.family, 0);
    self.incoming = "hello";
    memset(&got, 0x55, sizeof got);
    got.data = buf;
    got.cap = 3;
    CHECK_INT(nkt_udp_recv_datagram(udp, &got), NKT_OK);
    CHECK_INT(got.truncated, true);
    // What it does not tell is unknown.
    CHECK_INT(got.hops, -1);
    CHECK_INT(got.traffic_class, -1);
    CHECK_INT(got.interface_index, 0);
    CHECK_INT(got.local.family, 0);
    CHECK_INT(nkt_udp_send_str(udp, "x", NULL), 1);
    CHECK_INT(self.sent, 1);
    CHECK_INT(nkt_udp_local(udp, &addr), NKT_ENOTCONN);
    CHECK_INT(nkt_udp_peer(udp, &addr), NKT_ENOTCONN);
    CHECK(nkt_udp_descriptor(udp) == NKT_NO_FD);
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), NKT_EUNSUPPORTED);
    CHECK_INT(nkt_udp_leave(udp, "239.1.1.1", NULL), NKT_EUNSUPPORTED);
    CHECK_INT(nkt_udp_broadcast(udp, "x", 1, 9), NKT_EUNSUPPORTED);
    addr = nkt_addr_make(&got.local, 9);
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &addr, NULL, 0), NKT_EUNSUPPORTED);
    addr.ip = nkt_ip_loopback(NKT_IPV4);
    CHECK_INT(nkt_udp_connect_addr(udp, &addr), NKT_EUNSUPPORTED);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_HOPS, 3), NKT_EUNSUPPORTED);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE, 1), NKT_EUNSUPPORTED);
    int64_t value;
    CHECK_INT(nkt_udp_get_option(udp, NKT_UDP_RECV_BUFFER, &value), NKT_EUNSUPPORTED);
    nkt_udp_close(udp);
    CHECK_INT(self.closed, 1);
}

// Bad behaviour of a table is told as that, and is not the end.
static void test_bad_device(void) {
    device self;
    nkt_udp *udp = NULL;
    nkt_udp_opts opts = opts_of(false);
    nkt_datagram_transport table = device_table;
    memset(&self, 0, sizeof self);
    table.recv = NULL;
    CHECK_INT(nkt_udp_open_custom(&table, &self, &opts, &udp), NKT_EINVAL);
    table = device_table;
    table.size = sizeof table.size;
    CHECK_INT(nkt_udp_open_custom(&table, &self, &opts, &udp), NKT_EINVAL);
    CHECK_INT(nkt_udp_open_custom(NULL, &self, &opts, &udp), NKT_EINVAL);
    CHECK_INT(self.closed, 0);
    CHECK_INT(nkt_udp_open_custom(&device_table, &self, &opts, &udp), NKT_OK);
    self.recv_result = 2;
    CHECK_INT(nkt_udp_recv(udp, buf, sizeof buf, NULL), NKT_EPROTO);
    self.recv_result = 0;
    self.too_long = true;
    self.incoming = "x";
    CHECK_INT(nkt_udp_recv(udp, buf, 10, NULL), NKT_EPROTO);
    self.too_long = false;
    self.send_result = 2;
    CHECK_INT(nkt_udp_send_str(udp, "x", NULL), NKT_EPROTO);
    self.send_result = NKT_EHOSTUNREACH;
    CHECK_INT(nkt_udp_send_str(udp, "x", NULL), NKT_EHOSTUNREACH);
    self.send_result = 0;
    CHECK_INT(nkt_udp_send_str(udp, "x", NULL), 1);
    self.incoming = "fine";
    CHECK_INT(nkt_udp_recv(udp, buf, sizeof buf, NULL), 4);
    nkt_udp_close(udp);
}

// A poller hears of a device by nkt_udp_notify.
static void test_notify(void) {
    device self;
    nkt_udp *udp = NULL;
    nkt_poller *poller = NULL;
    nkt_udp_opts opts = opts_of(true);
    nkt_poller_opts poller_opts;
    nkt_event event;
    memset(&self, 0, sizeof self);
    memset(&poller_opts, 0, sizeof poller_opts);
    poller_opts.env = &p.env;
    CHECK_INT(nkt_udp_open_custom(&device_table, &self, &opts, &udp), NKT_OK);
    CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
    CHECK_INT(nkt_poller_add_udp(poller, udp, NULL), NKT_OK);
    nkt_udp_notify(udp);
    CHECK_INT(nkt_poller_wait(poller, 0), 0);       // nothing there, so no news
    self.incoming = "x";
    nkt_udp_notify(udp);
    CHECK_INT(nkt_poller_wait(poller, 5000), 1);
    CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
    CHECK_INT(event.events, NKT_READ);
    CHECK_INT(nkt_udp_recv(udp, buf, sizeof buf, NULL), 1);
    CHECK_INT(nkt_udp_recv(udp, buf, sizeof buf, NULL), NKT_EAGAIN);
    self.send_result = NKT_EAGAIN;
    CHECK_INT(nkt_udp_send_str(udp, "x", NULL), NKT_EAGAIN);
    CHECK_INT(nkt_poller_wait(poller, 0), 0);
    self.writable = true;
    nkt_udp_notify(udp);
    CHECK_INT(nkt_poller_wait(poller, 5000), 1);
    CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
    CHECK_INT(event.events, NKT_WRITE);
    CHECK_INT(nkt_poller_wait(poller, 0), 0);       // told once
    nkt_udp_interrupt(udp);
    CHECK_INT(nkt_poller_wait(poller, 5000), 1);
    CHECK_INT(nkt_udp_recv(udp, buf, sizeof buf, NULL), NKT_ECANCELED);
    nkt_udp_close(udp);
    nkt_poller_close(poller);
}

//------------------------------------------------------------------------------
// Layers

static int layer_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    int got = nkt_udp_link_recv(link->below, list, count);
    for (int i = 0; i < got; i++) {
        // Were there several in one, a layer would have to know.
        CHECK_INT(list[i].segment, 0);
        for (uint32_t k = 0; k < list[i].len; k++) ((char *)list[i].data)[k] ^= 1;
    }
    return got;
}

static int layer_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    char turned[64];
    (void)count;
    nkt_datagram one = list[0];
    if (one.len > sizeof turned) return NKT_EMSGSIZE;
    for (uint32_t k = 0; k < one.len; k++) turned[k] = (char)(((const char *)one.data)[k] ^ 1);
    one.data = turned;
    return nkt_udp_link_send(link->below, &one, 1);
}

static void layer_watch(nkt_udp_link *link, uint32_t want, nkt_interest *out) {
    nkt_udp_link_watch(link->below, want, out);
}

static void layer_close(nkt_udp_link *link) {
    ++*(int *)link->self;
}

static const nkt_datagram_transport layer = {
    sizeof(nkt_datagram_transport), "layer", layer_recv, layer_send, layer_watch, layer_close,
    NULL, NULL, NULL,
};

static void test_layer(void) {
    nkt_udp *a = NULL, *b = NULL, *plain = NULL;
    nkt_udp_opts opts = opts_of(false);
    nkt_datagram list[8];
    nkt_addr to, addr;
    int closed = 0;
    CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &a), NKT_OK);
    CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &b), NKT_OK);
    CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &plain), NKT_OK);
    CHECK_INT(nkt_udp_push(a, &layer, &closed), NKT_OK);
    CHECK_INT(nkt_udp_push(b, &layer, &closed), NKT_OK);
    CHECK_INT(nkt_udp_push(b, NULL, &closed), NKT_EINVAL);
    CHECK_INT(nkt_udp_local(b, &to), NKT_OK);           // asked below
    CHECK(nkt_udp_descriptor(b) != NKT_NO_FD);
    memset(list, 0, sizeof list);
    for (int i = 0; i < 8; i++) {
        list[i].data = buf + i;
        list[i].len = 1;
        list[i].addr = to;
        buf[i] = (char)('a' + i);
    }
    // The layer takes one at a time; the list goes on.
    CHECK_INT(nkt_udp_send_many(a, list, 8), 8);
    for (int have = 0; have < 8;) {
        int got = nkt_udp_recv_many(b, list, 8);
        if (!CHECK(got > 0)) break;
        for (int i = 0; i < got; i++) CHECK_INT(*(char *)list[i].data, 'a' + have + i);
        have += got;
    }
    CHECK_INT(nkt_udp_push(b, &layer, &closed), NKT_EBUSY);
    CHECK_INT(nkt_udp_send(a, buf, 65, &to), NKT_EMSGSIZE);
    // On the wire it is turned.
    CHECK_INT(nkt_udp_local(plain, &addr), NKT_OK);
    CHECK_INT(nkt_udp_send(a, "abc", 3, &addr), 3);
    CHECK_INT(nkt_udp_recv(plain, buf, sizeof buf, NULL), 3);
    CHECK_MEM(buf, 3, "`cb", 3);
    nkt_udp_close(a);
    nkt_udp_close(b);
    CHECK_INT(closed, 2);
    nkt_udp_close(plain);
}

//------------------------------------------------------------------------------
// Pairs

static void test_pair(void) {
    nkt_udp_opts opts = opts_of(true);
    nkt_udp *a = NULL, *b = NULL;
    nkt_interest interest;
    nkt_env other;
    CHECK_INT(nkt_env_init(&other), NKT_OK);
    nkt_udp_opts strange = opts;
    strange.env = &other;
    CHECK_INT(nkt_udp_pair(&opts, &strange, 0, &a, &b), NKT_EINVAL);
    nkt_env_free(&other);
    CHECK_INT(nkt_udp_pair(&opts, &opts, 200, &a, &b), NKT_OK);
    CHECK_INT(nkt_udp_recv(b, buf, sizeof buf, NULL), NKT_EAGAIN);
    CHECK_INT(nkt_udp_send(a, buf, 201, NULL), NKT_EMSGSIZE);
    CHECK_INT(nkt_udp_send(a, buf, 200, NULL), 200);    // the longest that fits at all
    CHECK_INT(nkt_udp_send(a, "", 0, NULL), NKT_EAGAIN);
    CHECK_INT(nkt_udp_watch(a, NKT_WRITE, &interest), NKT_OK);
    CHECK_INT(interest.ready, false);
    CHECK_INT(nkt_udp_recv(b, buf, sizeof buf, NULL), 200);
    CHECK_INT(nkt_udp_watch(a, NKT_WRITE, &interest), NKT_OK);
    CHECK_INT(interest.ready, true);
    // Empty ones count too.
    int count = 0;
    while (count < 100 && nkt_udp_send(a, "", 0, NULL) == 0) count++;
    CHECK_INT(count, 6);
    while (nkt_udp_recv(b, buf, sizeof buf, NULL) == 0) count--;
    CHECK_INT(count, 0);
    // Whole, in order, and no more than fits.
    CHECK_INT(nkt_udp_send_str(a, "one", NULL), 3);
    CHECK_INT(nkt_udp_send_str(a, "second", NULL), 6);
    CHECK_INT(nkt_udp_recv(b, buf, 2, NULL), NKT_ETRUNCATED);
    CHECK_MEM(buf, 2, "on", 2);
    CHECK_INT(nkt_udp_recv(b, buf, 6, NULL), 6);
    CHECK_MEM(buf, 6, "second", 6);
    // The other end is gone: what it has sent is there still.
    CHECK_INT(nkt_udp_send_str(b, "last", NULL), 4);
    CHECK_INT(nkt_udp_send_str(a, "unread", NULL), 6);
    nkt_udp_close(b);
    CHECK_INT(nkt_udp_send_str(a, "x", NULL), NKT_EREFUSED);
    CHECK_INT(nkt_udp_recv(a, buf, sizeof buf, NULL), 4);
    CHECK_INT(nkt_udp_recv(a, buf, sizeof buf, NULL), NKT_EAGAIN);
    nkt_udp_close(a);
}

int main(void) {
    probe_open(&p);
    TEST("a device of one's own") { test_device(); }
    TEST("a device that behaves badly") { test_bad_device(); }
    TEST("a device that tells the poller") { test_notify(); }
    TEST("a layer that asks below by its own hand") { test_layer(); }
    TEST("a pair in memory, to the byte") { test_pair(); }
    TEST("nothing is left behind") { probe_close(&p); }
    return test_finish();
}
