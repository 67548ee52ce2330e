// test_udp_faults.c - every call of the system and every allocation fails once
//
// A script uses datagrams in every way there is. It is run again and again, and
// each time the next call fails, once or from then on, until no call is left.
// Whatever fails is told or made good; nothing is left behind, and a handle on
// which something failed once does its work afterwards.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "probe.h"

static probe p;
static nkt_sys_udp sys;
static nkt_sys_net net;
static long calls, fault_at;
static bool for_good, struck;
static int told;                    // errors that the script saw

static bool fault(void) {
    calls++;
    if (calls != fault_at && !(for_good && calls > fault_at)) return false;
    struck = true;
    return true;
}

static void *faulty_allocate(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && fault()) return NULL;
    return probe_allocate(env, ptr, old_size, new_size);
}

static int faulty_open(nkt_env *env, int family, int type, nkt_fd *fd) {
    return fault() ? NKT_EMFILE : probe_core_open(env, family, type, fd);
}

static int faulty_bind(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    return fault() ? NKT_EACCES : probe_core_bind(env, fd, addr, len);
}

static int faulty_connect(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    return fault() ? NKT_ENETUNREACH : probe_core_connect(env, fd, addr, len);
}

static int faulty_set_option(nkt_env *env, nkt_fd fd, int option, int64_t value) {
    return fault() ? NKT_EUNSUPPORTED : probe_core_set_option(env, fd, option, value);
}

static int faulty_wake_open(nkt_env *env, nkt_wake *wake) {
    return fault() ? NKT_EMFILE : probe_core_wake_open(env, wake);
}

static int faulty_poll_set(nkt_env *env, void *backend, nkt_poll_watch *watch, uint32_t events) {
    // Taking away is not refused.
    return events != 0 && fault() ? NKT_ENOMEM : probe_poll_set(env, backend, watch, events);
}

static int faulty_udp_set(nkt_env *env, nkt_fd fd, int family, int option, int64_t value) {
    if (fault()) return NKT_EUNSUPPORTED;
    return nkt_sys_udp_default()->set_option(env, fd, family, option, value);
}

static int faulty_recv(nkt_env *env, nkt_fd fd, int family, nkt_datagram *list, int count,
                       bool facts) {
    if (fault()) return NKT_ENOMEM;
    return nkt_sys_udp_default()->recv(env, fd, family, list, count, facts);
}

static int faulty_send(nkt_env *env, nkt_fd fd, int family, const nkt_datagram *list, int count,
                       bool *segments) {
    if (fault()) return NKT_ENOMEM;
    return nkt_sys_udp_default()->send(env, fd, family, list, count, segments);
}

static int faulty_member(nkt_env *env, nkt_fd fd, const nkt_ip *group, const nkt_ip *source,
                         uint32_t index, const nkt_ip *local, bool join) {
    (void)env, (void)fd, (void)group, (void)source, (void)index, (void)local, (void)join;
    return fault() ? (int)NKT_ENOMEM : (int)NKT_OK;
}

static int faulty_list(nkt_env *env, nkt_sys_iface *rows, int cap) {
    nkt_sys_iface row;
    (void)env;
    if (fault()) return NKT_ENOMEM;
    memset(&row, 0, sizeof row);
    row.index = 1;
    row.ip = nkt_ip_loopback(NKT_IPV4);
    row.bits = 8;
    row.flags = NKT_IFACE_UP | NKT_IFACE_LOOPBACK | NKT_IFACE_MULTICAST;
    if (cap > 0) rows[0] = row;
    return 1;
}

static int faulty_watch_open(nkt_env *env, nkt_fd *fd) {
    nkt_wake wake;
    if (fault()) return NKT_EMFILE;
    int err = probe_core_wake_open(env, &wake);
    *fd = wake.wait_fd;
    return err;
}

static void faulty_watch_close(nkt_env *env, nkt_fd fd) {
    probe_core_close(env, fd);
}

static bool faulty_watch_drain(nkt_env *env, nkt_fd fd) {
    (void)env, (void)fd;
    return true;                    // news at every look
}

static bool good(ptrdiff_t result) {
    if (result >= 0) return true;
    told++;
    return false;
}

// Sends and receives until it has worked: a fault that is over is forgotten.
static void exchange(nkt_udp *a, nkt_udp *b, const nkt_addr *to) {
    char buf[16];
    nkt_addr from;
    bool done = false;
    for (int tries = 0; tries < 4 && !done; tries++) {
        if (!good(nkt_udp_send(a, "hello", 5, to))) continue;
        ptrdiff_t got = nkt_udp_recv(b, buf, sizeof buf, &from);
        if (!good(got)) got = nkt_udp_recv(b, buf, sizeof buf, &from);
        if (!good(got)) continue;
        CHECK_INT(got, 5);
        CHECK_MEM(buf, 5, "hello", 5);
        done = true;
    }
    if (!for_good) CHECK(done);
}

static void use(nkt_udp *a, nkt_udp *b, nkt_poller *poller) {
    nkt_datagram list[3];
    nkt_addr to;
    nkt_udp_result results[2];
    memset(list, 0, sizeof list);
    if (!good(nkt_udp_local(b, &to))) return;
    to.ip = nkt_ip_loopback(NKT_IPV4);
    exchange(a, b, &to);
    good(nkt_udp_join(a, "239.1.1.1", NULL));
    good(nkt_udp_join(a, "239.1.1.1", NULL));
    nkt_ip group = nkt_ip_from_u32(0xef010101);
    nkt_addr all = nkt_addr_make(&group, to.port);
    good(nkt_udp_send_each(a, "x", 1, &all, results, 2));
    good(nkt_udp_leave(a, "239.1.1.1", NULL));
    for (int i = 0; i < 3; i++) {
        list[i].data = (void *)(uintptr_t)"list";
        list[i].len = 4;
        list[i].addr = to;
    }
    good(nkt_udp_send_many(a, list, 3));
    good(nkt_udp_recv_many(b, list, 3));
    while (nkt_udp_set_option(b, NKT_UDP_RECV_TIMEOUT_MS, 1) >= 0 &&
           nkt_udp_recv(b, &group, sizeof group, NULL) >= 0) continue;
    nkt_udp_set_option(b, NKT_UDP_RECV_TIMEOUT_MS, 200);
    exchange(a, b, &to);
    if (poller != NULL) good(nkt_poller_add_udp(poller, a, NULL));
    good(nkt_udp_connect_addr(a, &to));
}

static void script(void) {
    nkt_udp_opts opts;
    nkt_poller_opts poller_opts;
    nkt_poller *poller = NULL;
    nkt_udp *a = NULL, *b = NULL;
    memset(&opts, 0, sizeof opts);
    memset(&poller_opts, 0, sizeof poller_opts);
    opts.env = poller_opts.env = &p.env;
    opts.recv_timeout_ms = 200;
    good(nkt_poller_open(&poller_opts, &poller));
    if (good(nkt_udp_open("127.0.0.1:0", &opts, &b))) {
        opts.nonblocking = true;
        opts.two_sockets = true;
        if (good(nkt_udp_open(":0", &opts, &a))) use(a, b, poller);
        nkt_udp_close(a);
        nkt_udp_close(b);
    }
    a = b = NULL;
    if (good(nkt_udp_pair(NULL, NULL, 0, &a, &b))) {
        nkt_udp_close(a);
        nkt_udp_close(b);
    }
    opts.nonblocking = false;
    if (good(nkt_udp_pair(&opts, &opts, 0, &a, &b))) {
        exchange(a, b, NULL);
        nkt_udp_close(a);
        nkt_udp_close(b);
    }
    nkt_poller_close(poller);
}

static void run(void) {
    int silent = 0;
    for (fault_at = 1;; fault_at++) {
        probe_open(&p);
        p.core.open = faulty_open;
        p.core.bind = faulty_bind;
        p.core.connect = faulty_connect;
        p.core.set_option = faulty_set_option;
        p.core.wake_open = faulty_wake_open;
        p.poll.set = faulty_poll_set;
        p.env.allocate = faulty_allocate;
        sys = *nkt_sys_udp_default();
        sys.set_option = faulty_udp_set;
        sys.recv = faulty_recv;
        sys.send = faulty_send;
        sys.member = faulty_member;
        net.size = sizeof net;
        net.list = faulty_list;
        net.watch_open = faulty_watch_open;
        net.watch_close = faulty_watch_close;
        net.watch_drain = faulty_watch_drain;
        p.env.udp = &sys;
        p.env.net = &net;
        calls = told = 0;
        struck = false;
        script();
        probe_close(&p);
        if (!struck) break;
        silent += told == 0;
    }
    CHECK_RANGE(fault_at, 40, 400);
    // What is made good without a word: a wake-up, news, offload, IPv6.
    CHECK_RANGE(silent, 0, fault_at / 3);
}

int main(void) {
    TEST("each call fails once") {
        for_good = false;
        run();
    }
    TEST("from each call on all fail") {
        for_good = true;
        run();
    }
    return test_finish();
}
