// test_udp_refusals_posix.c - datagram handles where something is refused
//
// Every allocation, every option and every family is refused in turn; then bad
// arguments, one by one, and what a device may answer.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "probe.h"

#include <net/if.h>
#include <sys/wait.h>
#include <unistd.h>

static probe p;
static nkt_sys_udp sys;
static char buf[300];

static nkt_udp_opts opts_of(bool nonblocking) {
    nkt_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.nonblocking = nonblocking;
    if (!nonblocking) opts.recv_timeout_ms = opts.send_timeout_ms = 5000;
    return opts;
}

static nkt_udp *open_on(const char *local, bool nonblocking) {
    nkt_udp_opts opts = opts_of(nonblocking);
    nkt_udp *udp = NULL;
    CHECK_INT(nkt_udp_open(local, &opts, &udp), NKT_OK);
    return udp;
}

static const char *loopback_name(void) {
    return if_nametoindex("lo") != 0 ? "lo" : "lo0";
}

//------------------------------------------------------------------------------
// Memory

static long allocations_left;

static void *scarce(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > old_size && allocations_left-- <= 0) return NULL;
    return probe_allocate(env, ptr, old_size, new_size);
}

static int layer_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    return nkt_udp_link_recv(link->below, list, count);
}

static int layer_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    return nkt_udp_link_send(link->below, list, count);
}

static void layer_close(nkt_udp_link *link) {
    (void)link;
}

// It says nothing of watching: the link below is asked.
static const nkt_datagram_transport layer = {
    sizeof(nkt_datagram_transport), "layer", layer_recv, layer_send, NULL, layer_close,
    NULL, NULL, NULL,
};

static int scene_pair(void) {
    nkt_udp_opts opts = opts_of(true);
    nkt_udp *a = NULL, *b = NULL;
    nkt_datagram got;
    int err = nkt_udp_pair(&opts, &opts, 0, &a, &b);
    if (err >= 0) err = (int)nkt_udp_send(a, "hello", 5, NULL);
    if (err >= 0) err = nkt_udp_push(b, &layer, NULL);
    if (err >= 0) err = nkt_udp_recv_many(b, &got, 1);
    if (err >= 0) {
        CHECK_INT(err, 1);
        CHECK_MEM(got.data, got.len, "hello", 5);
    }
    nkt_udp_close(a);
    nkt_udp_close(b);
    return err;
}

static int scene_groups(void) {
    nkt_udp_opts opts = opts_of(true);
    nkt_join_opts join_opts;
    nkt_udp *udp = NULL;
    char group[NKT_IP_TEXT_MAX];
    memset(&join_opts, 0, sizeof join_opts);
    join_opts.interface_name = loopback_name();
    int err = nkt_udp_open("127.0.0.1:0", &opts, &udp);
    for (int i = 1; err >= 0 && i <= 10; i++) {
        nkt_udp_info info;
        snprintf(group, sizeof group, "239.255.77.%d", i);
        err = nkt_udp_join(udp, group, &join_opts);
        CHECK_INT(nkt_udp_get_info(udp, &info), NKT_OK);
        CHECK_INT(info.joined, err >= 0 ? i : i - 1);
    }
    nkt_udp_close(udp);
    return err;
}

static void test_memory(int (*scene)(void), int least) {
    int refusals = 0, err = NKT_ENOMEM;
    p.env.allocate = scarce;
    for (; refusals < 100; refusals++) {
        long blocks = p.blocks, descriptors = p.descriptors;
        allocations_left = refusals;
        err = scene();
        CHECK_INT(p.blocks, blocks);
        CHECK_INT(p.descriptors, descriptors);
        if (err >= 0) break;
        if (!CHECK_INT(err, NKT_ENOMEM)) break;
    }
    CHECK(err >= 0);
    CHECK_RANGE(refusals, least, 99);
    p.env.allocate = probe_allocate;
}

//------------------------------------------------------------------------------
// Opening

static int options_left;

static int few_options(nkt_env *env, nkt_fd fd, int family, int option, int64_t value) {
    if (options_left-- <= 0) return NKT_EACCES;
    return nkt_sys_udp_default()->set_option(env, fd, family, option, value);
}

static int few_core_options(nkt_env *env, nkt_fd fd, int option, int64_t value) {
    return options_left-- <= 0 ? (int)NKT_EACCES : probe_core_set_option(env, fd, option, value);
}

static int bind_any(nkt_env *env, nkt_fd fd, const char *name, int family) {
    (void)env, (void)fd, (void)family;
    CHECK_STR(name, loopback_name());
    return options_left-- <= 0 ? NKT_EACCES : NKT_OK;
}

static void test_options_refused(void) {
    int tries = 0;
    sys = *nkt_sys_udp_default();
    sys.set_option = few_options;
    p.env.udp = &sys;
    p.core.set_option = few_core_options;
    p.core.bind_interface = bind_any;
    for (; tries < 100; tries++) {
        nkt_udp_opts opts = opts_of(true);
        nkt_problem problem;
        nkt_udp *udp = NULL;
        opts.problem = &problem;
        opts.interface_name = loopback_name();
        opts.hops = opts.multicast_hops = 7;
        opts.traffic_class = 40;
        opts.send_buffer = opts.recv_buffer = 65536;
        opts.reuse_port = opts.dont_fragment = opts.no_loopback = true;
        opts.icmp_errors = true;
        options_left = tries;
        int err = nkt_udp_open(":0", &opts, &udp);
        if (err >= 0) {
            nkt_udp_close(udp);
            break;
        }
        CHECK_INT(err, NKT_EACCES);
        CHECK_INT(problem.err, NKT_EACCES);
        CHECK(strstr(problem.text, nkt_strerror(NKT_EACCES)) != NULL);
        CHECK(udp == NULL);
    }
    // Each of: families, sharing, facts, errors, interface, and seven options.
    CHECK_INT(tries, 12);
    p.core.bind_interface = probe_system()->bind_interface;
    p.core.set_option = probe_core_set_option;
    p.env.udp = NULL;
}

static int no_ipv6, no_ipv4;

static int family_open(nkt_env *env, int family, int type, nkt_fd *fd) {
    int err = family == NKT_IPV6 ? no_ipv6 : no_ipv4;
    return err < 0 ? err : probe_core_open(env, family, type, fd);
}

static void test_families(void) {
    static const struct { const char *local; int no_ipv6, no_ipv4, family; bool two; int want,
                          shown; } rows[] = {
        { ":0", NKT_EUNSUPPORTED, 0, 0, false, NKT_OK, NKT_IPV4 },
        { ":0", NKT_EADDRNOTAVAIL, 0, 0, false, NKT_OK, NKT_IPV4 },
        { ":0", NKT_EMFILE, 0, 0, false, NKT_EMFILE, 0 },
        { ":0", NKT_EUNSUPPORTED, NKT_EUNSUPPORTED, 0, false, NKT_EUNSUPPORTED, 0 },
        { ":0", NKT_EUNSUPPORTED, 0, 0, true, NKT_OK, NKT_IPV4 },
        { ":0", NKT_EMFILE, 0, 0, true, NKT_EMFILE, 0 },
        { ":0", 0, NKT_EUNSUPPORTED, 0, true, NKT_OK, NKT_IPV6 },
        { ":0", 0, NKT_EADDRNOTAVAIL, 0, true, NKT_OK, NKT_IPV6 },
        { ":0", 0, NKT_EMFILE, 0, true, NKT_EMFILE, 0 },
        { ":0", NKT_EUNSUPPORTED, NKT_EUNSUPPORTED, 0, true, NKT_EUNSUPPORTED, 0 },
        { ":0", NKT_EMFILE, 0, NKT_IPV4, false, NKT_OK, NKT_IPV4 },
        { ":0", 0, NKT_EMFILE, NKT_IPV6, false, NKT_OK, NKT_IPV6 },
        { ":0", 0, NKT_EMFILE, NKT_IPV4, false, NKT_EMFILE, 0 },
        { "127.0.0.1:0", 0, NKT_EMFILE, 0, false, NKT_EMFILE, 0 },
        { "127.0.0.1:0", 0, 0, NKT_IPV4, false, NKT_OK, NKT_IPV4 },
    };
    p.core.open = family_open;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nkt_udp_opts opts = opts_of(true);
        nkt_udp *udp = NULL;
        nkt_addr addr;
        no_ipv6 = rows[i].no_ipv6;
        no_ipv4 = rows[i].no_ipv4;
        opts.family = rows[i].family;
        opts.two_sockets = rows[i].two;
        if (!CHECK_INT(nkt_udp_open(rows[i].local, &opts, &udp), rows[i].want)) {
            printf("  row %d\n", (int)i);
        }
        CHECK_INT(udp != NULL, rows[i].want == NKT_OK);
        if (udp == NULL) continue;
        CHECK_INT(nkt_udp_local(udp, &addr), NKT_OK);
        CHECK_INT(addr.ip.family, rows[i].shown);
        nkt_udp_close(udp);
    }
    p.core.open = probe_core_open;
}

// A fixed port is not tried again: the second socket's clash is the answer.
static void test_fixed_port(void) {
    nkt_udp *taken = open_on("127.0.0.1:0", true), *udp = NULL;
    nkt_udp_opts opts = opts_of(true);
    char text[NKT_ADDR_TEXT_MAX];
    nkt_addr addr;
    CHECK_INT(nkt_udp_local(taken, &addr), NKT_OK);
    snprintf(text, sizeof text, ":%u", (unsigned)addr.port);
    opts.two_sockets = true;
    CHECK_INT(nkt_udp_open(text, &opts, &udp), NKT_EADDRINUSE);
    CHECK(udp == NULL);
    nkt_udp_close(taken);
    CHECK_INT(nkt_udp_open(text, &opts, &udp), NKT_OK);
    nkt_udp_close(udp);
}

static void test_bad_options(void) {
    static const struct { int family, hops, multicast_hops, class_of, send_buffer, recv_buffer,
                          want; } rows[] = {
        { 5, 0, 0, 0, 0, 0, NKT_EINVAL }, { NKT_UNIX, 0, 0, 0, 0, 0, NKT_EINVAL },
        { 0, -1, 0, 0, 0, 0, NKT_EINVAL }, { 0, 256, 0, 0, 0, 0, NKT_EINVAL },
        { 0, 0, -1, 0, 0, 0, NKT_EINVAL }, { 0, 0, 256, 0, 0, 0, NKT_EINVAL },
        { 0, 0, 0, -1, 0, 0, NKT_EINVAL }, { 0, 0, 0, 256, 0, 0, NKT_EINVAL },
        { 0, 0, 0, 0, -1, 0, NKT_EINVAL }, { 0, 0, 0, 0, 0, -1, NKT_EINVAL },
        { NKT_IPV6, 0, 0, 0, 0, 0, NKT_EFAMILY }, { NKT_IPV4, 0, 0, 0, 0, 0, NKT_OK },
        { NKT_IPV4, 255, 255, 255, 65536, 65536, NKT_OK },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nkt_udp_opts opts = opts_of(true);
        nkt_udp *udp = NULL;
        opts.family = rows[i].family;
        opts.hops = rows[i].hops;
        opts.multicast_hops = rows[i].multicast_hops;
        opts.traffic_class = rows[i].class_of;
        opts.send_buffer = rows[i].send_buffer;
        opts.recv_buffer = rows[i].recv_buffer;
        if (!CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &udp), rows[i].want)) {
            printf("  row %d\n", (int)i);
        }
        nkt_udp_close(udp);
    }
}

//------------------------------------------------------------------------------
// Arguments and options of an open handle

static void test_arguments(void) {
    nkt_udp *udp = open_on("127.0.0.1:0", true);
    nkt_ip ip = nkt_ip_loopback(NKT_IPV4);
    nkt_addr to = nkt_addr_make(&ip, 9);
    nkt_datagram one;
    memset(&one, 0, sizeof one);
    CHECK_INT(nkt_udp_send(udp, NULL, 1, &to), NKT_EINVAL);
    CHECK_INT(nkt_udp_send_str(udp, NULL, NULL), NKT_EINVAL);
    CHECK_INT(nkt_udp_send_many(udp, NULL, 1), NKT_EINVAL);
    CHECK_INT(nkt_udp_send_many(udp, &one, -1), NKT_EINVAL);
    CHECK_INT(nkt_udp_send_many(udp, &one, 0), 0);
    CHECK_INT(nkt_udp_send_each(udp, NULL, 1, &to, NULL, 0), NKT_EINVAL);
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, NULL, NULL, 0), NKT_EINVAL);
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &to, NULL, -1), NKT_EINVAL);
    CHECK_INT(nkt_udp_send_each(udp, NULL, 0, &to, NULL, 0), NKT_EGROUP);
    CHECK_INT(nkt_udp_recv(udp, NULL, 1, NULL), NKT_EINVAL);
    CHECK_INT(nkt_udp_recv(udp, NULL, 0, NULL), NKT_EAGAIN);
    CHECK_INT(nkt_udp_recv_datagram(udp, NULL), NKT_EINVAL);
    one.cap = 1;
    CHECK_INT(nkt_udp_recv_datagram(udp, &one), NKT_EINVAL);
    one.cap = 0;
    CHECK_INT(nkt_udp_recv_datagram(udp, &one), NKT_EAGAIN);
    CHECK_INT(nkt_udp_connect(udp, NULL), NKT_EINVAL);
    CHECK_INT(nkt_udp_connect(udp, "127.0.0.1"), NKT_EPORT);
    CHECK_INT(nkt_udp_connect(udp, "unix:/tmp/x"), NKT_EADDR);
    CHECK_INT(nkt_udp_connect_addr(udp, NULL), NKT_EADDR);
    nkt_udp_interrupt(udp);
    to.ip = nkt_ip_from_u32(0xefff4d4d);
    CHECK_INT(nkt_udp_send(udp, "x", 1, &to), NKT_ECANCELED);
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &to, NULL, 0), NKT_ECANCELED);
    nkt_udp_close(udp);
}

static void test_options(void) {
    nkt_udp *udp = open_on("127.0.0.1:0", true);
    int64_t value = 77, index = if_nametoindex(loopback_name());
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_RECV_TIMEOUT_MS, (int64_t)INT32_MAX + 1), NKT_EINVAL);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_RECV_TIMEOUT_MS, 50), NKT_OK);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_SEND_TIMEOUT_MS, -1), NKT_OK);
    CHECK_INT(nkt_udp_get_option(udp, NKT_UDP_RECV_TIMEOUT_MS, &value), NKT_OK);
    CHECK_INT(value, 50);
    CHECK_INT(nkt_udp_get_option(udp, NKT_UDP_SEND_TIMEOUT_MS, &value), NKT_OK);
    CHECK_INT(value, 0);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE, -1), NKT_EINVAL);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE, (int64_t)UINT32_MAX + 1),
              NKT_EINVAL);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE, 4000000), NKT_ENODEV);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE, index), NKT_OK);
    CHECK_INT(nkt_udp_get_option(udp, NKT_UDP_MULTICAST_INTERFACE, &value), NKT_OK);
    CHECK_INT(value, index);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE, 0), NKT_OK);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_SEND_BUFFER, 0), NKT_EINVAL);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_SEND_BUFFER, 65536), NKT_OK);
    CHECK_INT(nkt_udp_get_option(udp, NKT_UDP_SEND_BUFFER, &value), NKT_OK);
    CHECK(value >= 65536);
    CHECK_INT(nkt_udp_get_option(udp, NKT_UDP_PATH_MTU, &value), NKT_EUNSUPPORTED);
    CHECK_INT(nkt_udp_set_option(udp, (nkt_udp_option)999, 1), NKT_EINVAL);
    CHECK_INT(nkt_udp_get_option(udp, (nkt_udp_option)999, &value), NKT_EINVAL);
    // A refused setting is not taken for set.
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_HOPS, 9), NKT_OK);
    sys = *nkt_sys_udp_default();
    sys.set_option = few_options;
    options_left = 0;
    p.env.udp = &sys;
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_HOPS, 10), NKT_EACCES);
    p.env.udp = NULL;
    CHECK_INT(nkt_udp_get_option(udp, NKT_UDP_HOPS, &value), NKT_OK);
    CHECK_INT(value, 9);
    nkt_udp_close(udp);
}

static int answers[4], answer_count;

static int resolve(nkt_env *env, const char *host, int family, nkt_ip *ips, int cap) {
    (void)env, (void)host, (void)cap;
    if (answer_count < 0) return answer_count;
    if (family != NKT_IPV4) return NKT_ENOTFOUND;
    for (int i = 0; i < answer_count; i++) ips[i] = nkt_ip_from_u32(0x7f000001u + (uint32_t)i);
    return answer_count;
}

static int connects;

static int refusing_connect(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    int err = answers[connects++];
    return err < 0 ? err : probe_core_connect(env, fd, addr, len);
}

// By name: the first address that there is a way to, else why not the first.
static void test_connect(void) {
    nkt_udp *udp = open_on("127.0.0.1:0", false);
    nkt_addr peer;
    p.env.resolve = resolve;
    answer_count = NKT_ENOTFOUND;
    CHECK_INT(nkt_udp_connect(udp, "example.org:9"), NKT_ENOTFOUND);
    p.core.connect = refusing_connect;
    answer_count = 3;
    answers[0] = NKT_ENETUNREACH;
    answers[1] = NKT_EHOSTUNREACH;
    answers[2] = NKT_EACCES;
    // Sorting, which is by connected sockets, is refused nothing.
    nkt_ip ip = nkt_ip_loopback(NKT_IPV4);
    peer = nkt_addr_make(&ip, 9);
    connects = 0;
    CHECK_INT(nkt_udp_connect_addr(udp, &peer), NKT_ENETUNREACH);
    CHECK_INT(nkt_udp_peer(udp, &peer), NKT_ENOTCONN);
    p.core.connect = probe_core_connect;
    CHECK_INT(nkt_udp_connect(udp, "example.org:9"), NKT_OK);
    CHECK_INT(nkt_udp_peer(udp, &peer), NKT_OK);
    CHECK_INT(peer.port, 9);
    nkt_udp_close(udp);
    // None of the answers is of the socket's family.
    nkt_udp_opts opts = opts_of(false);
    if (nkt_udp_open("[::1]:0", &opts, &udp) >= 0) {
        CHECK_INT(nkt_udp_connect(udp, "example.org:9"), NKT_EFAMILY);
        nkt_udp_close(udp);
    }
    p.env.resolve = NULL;
    udp = open_on("127.0.0.1:0", true);
    CHECK_INT(nkt_udp_connect(udp, "example.org:9"), NKT_EUNSUPPORTED);
    nkt_udp_close(udp);
}

// Connected, of two sockets one is left to wait for.
static void test_connected_one_of_two(void) {
    nkt_udp_opts opts = opts_of(true);
    nkt_udp *udp = NULL;
    nkt_interest interest;
    nkt_addr peer;
    int64_t mtu = 0;
    opts.two_sockets = true;
    CHECK_INT(nkt_udp_open(":0", &opts, &udp), NKT_OK);
    CHECK_INT(nkt_udp_watch(udp, NKT_READ, &interest), NKT_OK);
    uint32_t before = interest.count;
    nkt_ip ip = nkt_ip_loopback(NKT_IPV4);
    peer = nkt_addr_make(&ip, 9);
    CHECK_INT(nkt_udp_connect_addr(udp, &peer), NKT_OK);
    CHECK_INT(nkt_udp_watch(udp, NKT_READ, &interest), NKT_OK);
    CHECK_INT(interest.count, 1);
    CHECK_RANGE(before, 1, 2);
#ifdef __linux__
    CHECK_INT(nkt_udp_get_option(udp, NKT_UDP_PATH_MTU, &mtu), NKT_OK);
    CHECK(mtu >= 1280);
#endif
    CHECK_INT(nkt_udp_get_option(udp, NKT_UDP_RECV_BUFFER, &mtu), NKT_OK);
    nkt_udp_close(udp);
}

// Of several that came as one, the rest are there without asking the system.
static void test_pending(void) {
    nkt_udp *a = open_on("127.0.0.1:0", true), *b = open_on("127.0.0.1:0", true);
    nkt_poller *poller = NULL;
    nkt_poller_opts poller_opts;
    nkt_interest interest;
    nkt_datagram got, list[3];
    nkt_event event;
    nkt_addr to;
    memset(&poller_opts, 0, sizeof poller_opts);
    poller_opts.env = &p.env;
    CHECK_INT(nkt_udp_local(b, &to), NKT_OK);
    CHECK_INT(nkt_udp_recv_many(b, &got, 1), NKT_EAGAIN);
    memset(list, 0, sizeof list);
    for (int i = 0; i < 3; i++) {
        buf[i] = (char)('a' + i);
        list[i].data = buf + i;
        list[i].len = 1;
        list[i].addr = to;
    }
    CHECK_INT(nkt_udp_send_many(a, list, 3), 3);
    CHECK(probe_until(&p.env, nkt_udp_descriptor(b), NKT_READ));
    CHECK_INT(nkt_udp_recv_many(b, &got, 1), 1);
    CHECK_MEM(got.data, got.len, "a", 1);
    CHECK_INT(nkt_udp_watch(b, NKT_READ, &interest), NKT_OK);
#ifdef __linux__
    CHECK_INT(interest.ready, true);
#endif
    CHECK_INT(nkt_udp_watch(b, NKT_WRITE, &interest), NKT_OK);
    CHECK_INT(interest.ready, false);
    CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
    CHECK_INT(nkt_poller_add_udp(poller, b, NULL), NKT_OK);
    CHECK_INT(nkt_poller_wait(poller, 5000), 1);
    CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
    CHECK_INT(event.events, NKT_READ);
    CHECK_INT(nkt_udp_recv(b, buf, sizeof buf, NULL), 1);
    CHECK_INT(buf[0], 'b');
    CHECK_INT(nkt_udp_recv_many(b, &got, 1), 1);
    CHECK_MEM(got.data, got.len, "c", 1);
    CHECK_INT(nkt_udp_recv_many(b, &got, 1), NKT_EAGAIN);
    CHECK_INT(nkt_udp_watch(b, NKT_READ, &interest), NKT_OK);
    CHECK_INT(interest.ready, false);
    nkt_udp_close(a);
    nkt_udp_close(b);
    nkt_poller_close(poller);
}

//------------------------------------------------------------------------------
// Devices

static int says_recv, says_send;

static int device_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    (void)link, (void)count;
    list[0].len = 0;
    return says_recv;
}

static int device_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    (void)link, (void)list, (void)count;
    return says_send;
}

static const nkt_datagram_transport device = {
    sizeof(nkt_datagram_transport), "device", device_recv, device_send, NULL, layer_close,
    NULL, NULL, NULL,
};

static void test_devices(void) {
    static const int errors[] = { NKT_EREFUSED, NKT_EHOSTUNREACH, NKT_ENETUNREACH, NKT_EACCES,
                                  NKT_EPROTO, NKT_EUNSUPPORTED, NKT_EMSGSIZE, NKT_ERESET,
                                  NKT_ENOMEM };
    nkt_udp_opts opts = opts_of(true);
    nkt_datagram_transport table = device;
    nkt_interest interest;
    nkt_addr addr;
    nkt_udp *udp = NULL;
    table.send = NULL;
    CHECK_INT(nkt_udp_open_custom(&table, NULL, &opts, &udp), NKT_EINVAL);
    table = device;
    table.close = NULL;
    CHECK_INT(nkt_udp_open_custom(&table, NULL, &opts, &udp), NKT_EINVAL);
    // A table of before there was anything behind `close`.
    table = device;
    table.size = offsetof(nkt_datagram_transport, local);
    CHECK_INT(nkt_udp_open_custom(&table, NULL, &opts, &udp), NKT_OK);
    CHECK_INT(nkt_udp_local(udp, &addr), NKT_ENOTCONN);
    CHECK_INT(nkt_udp_peer(udp, &addr), NKT_ENOTCONN);
    CHECK(nkt_udp_descriptor(udp) == NKT_NO_FD);
    // Nobody is there to be asked what to wait for.
    CHECK_INT(nkt_udp_push(udp, &layer, NULL), NKT_OK);
    CHECK_INT(nkt_udp_watch(udp, NKT_READ | NKT_WRITE, &interest), NKT_OK);
    CHECK_INT(interest.count, 0);
    CHECK_INT(interest.ready, false);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        says_recv = says_send = errors[i];
        bool answer = errors[i] != NKT_ENOMEM;
        memset(&addr, 0x55, sizeof addr);
        CHECK_INT(nkt_udp_recv(udp, buf, sizeof buf, &addr), errors[i]);
        CHECK_INT(addr.port, answer ? 0 : 0x5555);
        CHECK_INT(nkt_udp_send_str(udp, "x", NULL), errors[i]);
    }
    says_recv = says_send = 0;
    CHECK_INT(nkt_udp_recv(udp, buf, sizeof buf, NULL), NKT_EPROTO);
    CHECK_INT(nkt_udp_send_str(udp, "x", NULL), NKT_EPROTO);
    nkt_udp_close(udp);
    // Without options it stands on the default environment.
    CHECK_INT(nkt_udp_open_custom(&device, NULL, NULL, &udp), NKT_OK);
    says_send = 1;
    CHECK_INT(nkt_udp_send_str(udp, "x", NULL), 1);
    nkt_udp_close(udp);
}

//------------------------------------------------------------------------------
// Pairs

static void test_pairs(void) {
    nkt_udp *a = NULL, *b = NULL;
    nkt_interest interest;
    nkt_env none;
    nkt_udp_opts opts = opts_of(true), bad = opts;
    memset(&none, 0, sizeof none);
    bad.env = &none;
    CHECK_INT(nkt_udp_pair(&bad, &opts, 0, &a, &b), NKT_EINVAL);
    CHECK_INT(nkt_udp_pair(&opts, NULL, 0, &a, &b), NKT_EINVAL);
    CHECK(a == NULL && b == NULL);
    // Blocking, on the default environment.
    CHECK_INT(nkt_udp_pair(NULL, NULL, 0, &a, &b), NKT_OK);
    CHECK_INT(nkt_udp_send_str(a, "hello", NULL), 5);
    CHECK_INT(nkt_udp_watch(b, NKT_READ | NKT_WRITE, &interest), NKT_OK);
    CHECK_INT(interest.ready, true);
    CHECK_INT(nkt_udp_recv(b, buf, sizeof buf, NULL), 5);
    CHECK_INT(nkt_udp_watch(b, NKT_READ, &interest), NKT_OK);
    CHECK_INT(interest.ready, false);
    // Unread ones go with whoever closes, first or last.
    CHECK_INT(nkt_udp_send_str(a, "one", NULL), 3);
    CHECK_INT(nkt_udp_send_str(b, "two", NULL), 3);
    nkt_udp_close(a);
    nkt_udp_close(b);
    // Full, and then alone: writable, for the answer is known.
    CHECK_INT(nkt_udp_pair(&opts, &opts, 100, &a, &b), NKT_OK);
    CHECK_INT(nkt_udp_send(a, buf, 100, NULL), 100);
    CHECK_INT(nkt_udp_send(a, buf, 100, NULL), NKT_EAGAIN);
    CHECK_INT(nkt_udp_watch(a, NKT_WRITE, &interest), NKT_OK);
    CHECK_INT(interest.ready, false);
    nkt_udp_close(b);
    CHECK_INT(nkt_udp_watch(a, NKT_WRITE, &interest), NKT_OK);
    CHECK_INT(interest.ready, true);
    nkt_udp_close(a);
}

// D14: a child only closes, and the parent's pair goes on.
static void test_pair_in_a_child(void) {
    nkt_udp_opts opts = opts_of(true);
    nkt_udp *a = NULL, *b = NULL;
    int status = -1;
    CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &a, &b), NKT_OK);
    CHECK_INT(nkt_udp_send_str(a, "hello", NULL), 5);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        long blocks = p.blocks;
        nkt_udp_close(a);
        nkt_udp_close(b);
        CHECK(p.blocks < blocks);
        fflush(stdout);
        _exit(nkt_test.failures > 0);
    }
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    CHECK_INT(nkt_udp_recv(b, buf, sizeof buf, NULL), 5);
    nkt_udp_close(a);
    nkt_udp_close(b);
}

int main(void) {
    probe_open(&p);
    TEST("a pair without memory") { test_memory(scene_pair, 5); }
    TEST("groups without memory") { test_memory(scene_groups, 3); }
    TEST("every option refused, one by one") { test_options_refused(); }
    TEST("families that a host has not") { test_families(); }
    TEST("a fixed port of which a half is taken") { test_fixed_port(); }
    TEST("options that are none") { test_bad_options(); }
    TEST("arguments that are none") { test_arguments(); }
    TEST("options of an open handle") { test_options(); }
    TEST("connecting, refused") { test_connect(); }
    TEST("connected by one of two sockets") { test_connected_one_of_two(); }
    TEST("what is received already") { test_pending(); }
    TEST("what a device may answer") { test_devices(); }
    TEST("pairs") { test_pairs(); }
    TEST("a pair in a child") { test_pair_in_a_child(); }
    TEST("nothing is left behind") { probe_close(&p); }
    return test_finish();
}
