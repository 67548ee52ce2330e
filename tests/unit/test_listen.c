// test_listen.c - listening and accepting
//
// Hosts differ: with and without IPv6, with and without sockets for both
// families, out of ports, out of descriptors. All of them are made here by
// replacing entries of the system's table.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "probe.h"

static nkt_listen_opts listen_opts(probe *p) {
    nkt_listen_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    return opts;
}

static nkt_listener *open_listener(const char *target, const nkt_listen_opts *opts) {
    nkt_listener *listener = NULL;
    CHECK_INT(nkt_listen(target, opts, &listener), NKT_OK);
    return listener;
}

static uint16_t port_of(nkt_listener *listener) {
    nkt_addr addr;
    memset(&addr, 0, sizeof addr);
    CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
    CHECK(addr.port != 0);
    return addr.port;
}

static int connect_loopback(probe *p, int family, uint16_t port, nkt_conn **conn) {
    nkt_connect_opts opts;
    nkt_ip ip = nkt_ip_loopback(family);
    nkt_addr addr = nkt_addr_make(&ip, port);
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    return nkt_connect_addr(&addr, &opts, conn);
}

// One connection by a family, with the ends' addresses as they should be.
static void meet(probe *p, nkt_listener *listener, int family) {
    nkt_conn *near_end = NULL, *far_end = NULL;
    nkt_addr near_local, far_peer, far_local;
    nkt_ip loopback = nkt_ip_loopback(family);
    uint16_t port = port_of(listener);
    if (!CHECK_INT(connect_loopback(p, family, port, &near_end), NKT_OK)) return;
    if (CHECK_INT(nkt_accept(listener, &far_end), NKT_OK)) {
        CHECK_INT(nkt_conn_local(near_end, &near_local), NKT_OK);
        CHECK_INT(nkt_conn_peer(far_end, &far_peer), NKT_OK);
        CHECK_INT(nkt_conn_local(far_end, &far_local), NKT_OK);
        // IPv4 is given as IPv4, whatever the socket makes of it.
        CHECK_INT(far_peer.ip.family, family);
        CHECK(nkt_addr_equal(&near_local, &far_peer));
        CHECK(nkt_ip_equal(&far_local.ip, &loopback));
        CHECK_INT(far_local.port, port);
        nkt_conn_close(far_end);
    }
    nkt_conn_close(near_end);
}

static void refused(probe *p, nkt_listener *listener, int family) {
    nkt_conn *conn = NULL;
    CHECK_INT(connect_loopback(p, family, port_of(listener), &conn), NKT_EREFUSED);
    CHECK(conn == NULL);
}

static bool has_ipv6(void) {
    nkt_listener *listener = NULL;
    bool has = nkt_listen("[::1]:0", NULL, &listener) == NKT_OK;
    nkt_listener_close(listener);
    return has;
}

// What a target listens on: IPv6, IPv4, and how it calls itself.
static const struct target_row {
    const char *target, *name;
    bool ipv6, ipv4;
    int descriptors;
} target_rows[] = {
    { ":0", "[::]", true, true, 1 },
    { "localhost:0", "[::1]", true, true, 2 },
    { "LOCALHOST:0", "[::1]", true, true, 2 },
    { "x.localhost:0", "[::1]", true, true, 2 },
    { "127.0.0.1:0", "127.0.0.1", false, true, 1 },
    { "0.0.0.0:0", "0.0.0.0", false, true, 1 },
    { "[::1]:0", "[::1]", true, false, 1 },
    { "[::]:0", "[::]", true, false, 1 },
};

static void targets(void) {
    for (size_t i = 0; i < sizeof target_rows / sizeof target_rows[0]; i++) {
        const struct target_row *row = &target_rows[i];
        char test_name[80];
        snprintf(test_name, sizeof test_name, "listening on %s", row->target);
        TEST(test_name) {
            probe p;
            char name[NKT_ADDR_TEXT_MAX], want[NKT_ADDR_TEXT_MAX];
            if (row->ipv6 && !has_ipv6()) {
                TEST_SKIP("this host has no IPv6; switch it on");
                continue;
            }
            probe_open(&p);
            nkt_listen_opts opts = listen_opts(&p);
            nkt_listener *listener = open_listener(row->target, &opts);
            CHECK_INT(p.descriptors, row->descriptors);
            snprintf(want, sizeof want, "%s:%d", row->name, port_of(listener));
            CHECK_INT(nkt_listener_name(listener, name, sizeof name), strlen(want));
            CHECK_STR(name, want);
            CHECK_INT(nkt_listener_name(listener, name, strlen(want)), NKT_ENOSPACE);
            for (int turn = 0; turn < 2; turn++) {
                if (row->ipv6) meet(&p, listener, NKT_IPV6);
                else refused(&p, listener, NKT_IPV6);
                if (row->ipv4) meet(&p, listener, NKT_IPV4);
                else refused(&p, listener, NKT_IPV4);
            }
            nkt_listener_close(listener);
            probe_close(&p);
        }
    }
}

//------------------------------------------------------------------------------
// Hosts that have less
//------------------------------------------------------------------------------

static int open_without_ipv6(nkt_env *env, int family, int type, nkt_fd *fd) {
    if (family == NKT_IPV6) return NKT_EUNSUPPORTED;
    return probe_core_open(env, family, type, fd);
}

// As Linux does with net.ipv6.conf.all.disable_ipv6: there is the socket, but
// no address to bind.
static int bind_without_ipv6(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    nkt_addr parsed;
    if (nkt_addr_from_sockaddr(addr, len, &parsed) >= 0 && parsed.ip.family == NKT_IPV6) {
        return NKT_EADDRNOTAVAIL;
    }
    return probe_core_bind(env, fd, addr, len);
}

static int no_dual_stack(nkt_env *env, nkt_fd fd, int option, int64_t value) {
    if (option == NKT_SO_V6ONLY && value == 0) return NKT_EUNSUPPORTED;
    return probe_core_set_option(env, fd, option, value);
}

// The port of somebody else, for as many binds of IPv4 as are wanted. Another
// program may really have it too; that does not count as a bind.
static int ipv4_binds_to_refuse;
static int ipv4_binds;

static int bind_taken(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    nkt_addr parsed;
    bool ipv4 = nkt_addr_from_sockaddr(addr, len, &parsed) >= 0 && parsed.ip.family == NKT_IPV4;
    if (ipv4 && ipv4_binds++ < ipv4_binds_to_refuse) return NKT_EADDRINUSE;
    int err = probe_core_bind(env, fd, addr, len);
    if (ipv4 && ipv4_binds_to_refuse > 0 && err == NKT_EADDRINUSE) ipv4_binds--;
    return err;
}

static void without_ipv6(void) {
    static const char *const names[] = { "no IPv6 sockets", "no IPv6 addresses" };
    static const char *const both[] = { ":0", "localhost:0" };
    static const char *const wants[] = { "0.0.0.0:", "127.0.0.1:" };
    char test_name[80];
    for (int how = 0; how < 2; how++) {
        for (int i = 0; i < 2; i++) {
            snprintf(test_name, sizeof test_name, "%s: %s", names[how], both[i]);
            TEST(test_name) {
                probe p;
                char name[NKT_ADDR_TEXT_MAX];
                probe_open(&p);
                if (how == 0) p.core.open = open_without_ipv6;
                else p.core.bind = bind_without_ipv6;
                nkt_listen_opts opts = listen_opts(&p);
                nkt_listener *listener = open_listener(both[i], &opts);
                CHECK_INT(p.descriptors, 1);
                CHECK(nkt_listener_name(listener, name, sizeof name) > 0);
                CHECK_MEM(name, strlen(wants[i]), wants[i], strlen(wants[i]));
                meet(&p, listener, NKT_IPV4);
                meet(&p, listener, NKT_IPV4);
                nkt_listener_close(listener);
                probe_close(&p);
            }
        }
        snprintf(test_name, sizeof test_name, "%s: an IPv6 address is refused", names[how]);
        TEST(test_name) {
            probe p;
            nkt_problem problem;
            nkt_listener *listener = NULL;
            probe_open(&p);
            if (how == 0) p.core.open = open_without_ipv6;
            else p.core.bind = bind_without_ipv6;
            nkt_listen_opts opts = listen_opts(&p);
            opts.problem = &problem;
            int want = how == 0 ? NKT_EUNSUPPORTED : NKT_EADDRNOTAVAIL;
            CHECK_INT(nkt_listen("[::1]:0", &opts, &listener), want);
            CHECK_INT(problem.err, want);
            CHECK(listener == NULL);
            probe_close(&p);
        }
    }
}

static int nameless(nkt_env *env, nkt_fd fd, void *addr, size_t *len) {
    (void)env, (void)fd, (void)addr, (void)len;
    return NKT_EOS;
}

static int listen_with_refusals(probe *p, const char *target, int refusals,
                                nkt_listener **listener) {
    nkt_listen_opts opts;
    probe_open(p);
    p->core.set_option = no_dual_stack;
    p->core.bind = bind_taken;
    opts = listen_opts(p);
    ipv4_binds = 0;
    ipv4_binds_to_refuse = refusals;
    *listener = NULL;
    return nkt_listen(target, &opts, listener);
}

static void without_a_name(void) {
    TEST("no dual-stack sockets: the chosen port cannot be known") {
        probe p;
        nkt_listener *listener = NULL;
        nkt_listen_opts opts;
        if (!has_ipv6()) {
            TEST_SKIP("this host has no IPv6; switch it on");
            continue;
        }
        probe_open(&p);
        p.core.local_name = nameless;
        memset(&opts, 0, sizeof opts);
        opts.env = &p.env;
        CHECK_INT(nkt_listen("localhost:0", &opts, &listener), NKT_EOS);
        CHECK(listener == NULL);
        probe_close(&p);
    }
}

static void without_dual_stack(void) {
    TEST("no dual-stack sockets: two descriptors share a port that was chosen") {
        probe p;
        nkt_listener *listener;
        if (!has_ipv6()) {
            TEST_SKIP("this host has no IPv6; switch it on");
            continue;
        }
        CHECK_INT(listen_with_refusals(&p, ":0", 0, &listener), NKT_OK);
        CHECK_INT(p.descriptors, 2);
        for (int i = 0; i < 3; i++) {
            meet(&p, listener, NKT_IPV4);
            meet(&p, listener, NKT_IPV6);
        }
        nkt_listener_close(listener);
        probe_close(&p);
    }
    TEST("no dual-stack sockets: the chosen port is another's three times") {
        probe p;
        nkt_listener *listener;
        if (!has_ipv6()) {
            TEST_SKIP("this host has no IPv6; switch it on");
            continue;
        }
        CHECK_INT(listen_with_refusals(&p, ":0", 3, &listener), NKT_OK);
        CHECK_INT(ipv4_binds, 4);
        CHECK_INT(p.descriptors, 2);
        meet(&p, listener, NKT_IPV6);
        meet(&p, listener, NKT_IPV4);
        nkt_listener_close(listener);
        probe_close(&p);
        CHECK_INT(listen_with_refusals(&p, "localhost:0", 3, &listener), NKT_OK);
        CHECK_INT(ipv4_binds, 4);
        nkt_listener_close(listener);
        probe_close(&p);
    }
    TEST("no dual-stack sockets: the tries are bounded") {
        probe p;
        nkt_listener *listener;
        if (!has_ipv6()) {
            TEST_SKIP("this host has no IPv6; switch it on");
            continue;
        }
        CHECK_INT(listen_with_refusals(&p, ":0", 1000, &listener), NKT_EADDRINUSE);
        CHECK_RANGE(ipv4_binds, 10, 50);
        CHECK_INT(p.descriptors, 0);
        probe_close(&p);
    }
    TEST("no dual-stack sockets: a port that was given is not searched for") {
        probe p, q;
        nkt_listener *listener, *other;
        char target[32];
        if (!has_ipv6()) {
            TEST_SKIP("this host has no IPv6; switch it on");
            continue;
        }
        probe_open(&q);
        nkt_listen_opts opts = listen_opts(&q);
        other = open_listener("127.0.0.1:0", &opts);
        snprintf(target, sizeof target, ":%d", port_of(other));
        CHECK_INT(listen_with_refusals(&p, target, 0, &listener), NKT_EADDRINUSE);
        CHECK_INT(ipv4_binds, 1);
        probe_close(&p);
        nkt_listener_close(other);
        probe_close(&q);
    }
}

//------------------------------------------------------------------------------
// Ports
//------------------------------------------------------------------------------

// Bug 32: a second bind of a living port fails, by whatever name.
static void ports(void) {
    static const char *const forms[] = { "127.0.0.1:%d", ":%d", "localhost:%d", "0.0.0.0:%d" };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        char test_name[80];
        snprintf(test_name, sizeof test_name, "bug 32: a living port is not stolen by %s",
                 forms[i]);
        TEST(test_name) {
            probe p;
            nkt_problem problem;
            nkt_listener *second = NULL;
            char target[32];
            probe_open(&p);
            nkt_listen_opts opts = listen_opts(&p);
            nkt_listener *first = open_listener(i == 1 ? ":0" : "127.0.0.1:0", &opts);
            snprintf(target, sizeof target, forms[i], port_of(first));
            opts.problem = &problem;
            CHECK_INT(nkt_listen(target, &opts, &second), NKT_EADDRINUSE);
            CHECK(second == NULL);
            CHECK_INT(problem.err, NKT_EADDRINUSE);
            CHECK(problem.os_error != 0);
            CHECK_INT(problem.offset, -1);
            char text[160];
            snprintf(text, sizeof text, "cannot listen on %s: %s", target,
                     nkt_strerror(NKT_EADDRINUSE));
            CHECK_STR(problem.text, text);
            meet(&p, first, NKT_IPV4);
            nkt_listener_close(first);
            probe_close(&p);
        }
    }
    TEST("a port is free again at once, with its old connections lingering") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        char target[32];
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
        uint16_t port = port_of(listener);
        CHECK_INT(connect_loopback(&p, NKT_IPV4, port, &near_end), NKT_OK);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
        // The listener's side closes first and so is the one that lingers.
        nkt_conn_close(far_end);
        char byte;
        CHECK_INT(nkt_conn_read(near_end, &byte, 1), NKT_EOF);
        nkt_conn_close(near_end);
        nkt_listener_close(listener);
        snprintf(target, sizeof target, "127.0.0.1:%d", port);
        listener = open_listener(target, &opts);
        CHECK_INT(port_of(listener), port);
        meet(&p, listener, NKT_IPV4);
        nkt_listener_close(listener);
        probe_close(&p);
    }
}

static void shared_ports(void) {
    TEST("reuse_port: two listeners on one port") {
        probe p;
        nkt_listener *second = NULL;
        char target[32];
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        opts.reuse_port = true;
        nkt_listener *first = NULL;
        int err = nkt_listen("127.0.0.1:0", &opts, &first);
#ifdef _WIN32
        CHECK_INT(err, NKT_EUNSUPPORTED);
        (void)target;
#else
        CHECK_INT(err, NKT_OK);
        snprintf(target, sizeof target, "127.0.0.1:%d", port_of(first));
        CHECK_INT(nkt_listen(target, &opts, &second), NKT_OK);
        opts.reuse_port = false;
        nkt_listener *third = NULL;
        CHECK_INT(nkt_listen(target, &opts, &third), NKT_EADDRINUSE);
        // With the first one gone, the second one gets everybody.
        nkt_listener_close(first);
        meet(&p, second, NKT_IPV4);
#endif
        nkt_listener_close(second);
        probe_close(&p);
    }
}

static int backlog_seen;

static int listen_noting(nkt_env *env, nkt_fd fd, int backlog) {
    backlog_seen = backlog;
    return probe_core_listen(env, fd, backlog);
}

static void options(void) {
    TEST("backlog") {
        probe p;
        nkt_listener *listener = NULL;
        probe_open(&p);
        p.core.listen = listen_noting;
        nkt_listen_opts opts = listen_opts(&p);
        nkt_listener_close(open_listener("127.0.0.1:0", &opts));
        CHECK_INT(backlog_seen, 511);
        opts.backlog = 7;
        nkt_listener_close(open_listener("127.0.0.1:0", &opts));
        CHECK_INT(backlog_seen, 7);
        opts.backlog = -1;
        CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_EINVAL);
        probe_close(&p);
    }
    TEST("what is accepted has the listener's stream options") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        int64_t value = -1;
        probe_open(&p);
        for (int delayed = 0; delayed < 2; delayed++) {
            nkt_listen_opts opts = listen_opts(&p);
            opts.stream.delay_small_writes = delayed == 1;
            opts.stream.keepalive_s = delayed == 1 ? 33 : 0;
            opts.stream.line_max = 77;
            opts.stream.read_timeout_ms = 1234;
            nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
            CHECK_INT(connect_loopback(&p, NKT_IPV4, port_of(listener), &near_end), NKT_OK);
            CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
            nkt_fd fd = nkt_conn_descriptor(far_end);
            CHECK_INT(p.core.get_option(&p.env, fd, NKT_SO_NODELAY, &value), NKT_OK);
            CHECK_INT(value != 0, delayed == 0);
            CHECK_INT(nkt_conn_get_option(far_end, NKT_OPT_DELAY_SMALL_WRITES, &value), NKT_OK);
            CHECK_INT(value, delayed);
            int err = nkt_conn_get_option(far_end, NKT_OPT_KEEPALIVE_S, &value);
#ifdef _WIN32
            // Wine 8 has the switch, but not the seconds.
            if (delayed == 1 && err == NKT_EUNSUPPORTED) err = NKT_OK, value = 33;
#endif
            CHECK_INT(err, NKT_OK);
            CHECK_INT(value, delayed == 1 ? 33 : 0);
            CHECK_INT(nkt_conn_get_option(far_end, NKT_OPT_LINE_MAX, &value), NKT_OK);
            CHECK_INT(value, 77);
            CHECK_INT(nkt_conn_get_option(far_end, NKT_OPT_READ_TIMEOUT_MS, &value), NKT_OK);
            CHECK_INT(value, 1234);
            CHECK_INT(nkt_conn_get_option(far_end, NKT_OPT_NONBLOCKING, &value), NKT_OK);
            CHECK_INT(value, 0);
            nkt_conn_close(far_end);
            nkt_conn_close(near_end);
            nkt_listener_close(listener);
        }
        probe_close(&p);
    }
}

// Bad arguments are refused with what and where, before any system call.
static const struct bad_row {
    const char *target;
    int err;
    const char *field;
} bad_rows[] = {
    { "127.0.0.1", NKT_EPORT, NULL },
    { "127.0.0.1:", NKT_EPORT, NULL },
    { "127.0.0.1:65536", NKT_EPORT, NULL },
    { "127.0.0.1:-1", NKT_EPORT, NULL },
    { "127.0.0.01:80", NKT_EADDR, NULL },
    { "::1:80", NKT_EAMBIGUOUS, NULL },
    { "[::1", NKT_EADDR, NULL },
    { "bad..name:80", NKT_ENAME, NULL },
    { "example.org:80", NKT_EADDRNOTAVAIL, "host" },
    { "", NKT_ENAME, NULL },
    { NULL, NKT_EINVAL, "target" },
};

static void bad_arguments(void) {
    for (size_t i = 0; i < sizeof bad_rows / sizeof bad_rows[0]; i++) {
        const struct bad_row *row = &bad_rows[i];
        char test_name[80];
        snprintf(test_name, sizeof test_name, "refused: \"%s\"",
                 row->target != NULL ? row->target : "NULL");
        TEST(test_name) {
            probe p;
            nkt_problem problem;
            nkt_listener *listener = NULL;
            probe_open(&p);
            nkt_listen_opts opts = listen_opts(&p);
            memset(&problem, 0xAA, sizeof problem);
            opts.problem = &problem;
            CHECK_INT(nkt_listen(row->target, &opts, &listener), row->err);
            CHECK_INT(problem.err, row->err);
            CHECK(problem.text[0] != '\0');
            if (row->field != NULL) CHECK_STR(problem.field, row->field);
            else CHECK(problem.field[0] != '\0');
            CHECK_INT(probe_calls(&p, PROBE_OPEN), 0);
            CHECK(listener == NULL);
            probe_close(&p);
        }
    }
    TEST("refused options") {
        probe p;
        nkt_problem problem;
        nkt_listener *listener = NULL;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        opts.problem = &problem;
        opts.interface_name = "nonexistent0";
        CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_ENODEV);
        CHECK_STR(problem.field, "interface_name");
        opts = listen_opts(&p);
        opts.problem = &problem;
        opts.stream.line_max = 0xffffffffu;
        CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_EINVAL);
        CHECK_STR(problem.field, "line_max");
        opts.stream.line_max = 0;
        opts.stream.send_buffer = -5;
        CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_EINVAL);
        CHECK_INT(probe_calls(&p, PROBE_OPEN), 0);
        probe_close(&p);
    }
    TEST("each system call of nkt_listen may fail, and nothing is left open") {
        static const int entries[] = { PROBE_ALLOCATE, PROBE_OPEN, PROBE_BIND, PROBE_LISTEN };
        probe p;
        nkt_problem problem;
        nkt_listener *listener = NULL;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        opts.problem = &problem;
        for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
            int err = entries[i] == PROBE_ALLOCATE ? NKT_ENOMEM : NKT_EACCES;
            probe_fail(&p, entries[i], err, 1);
            CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), err);
            CHECK_INT(problem.err, err);
            CHECK_INT(p.descriptors, 0);
            CHECK(listener == NULL);
        }
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// Accepting when things go wrong
//------------------------------------------------------------------------------

static void aborted(void) {
    TEST("connections that died in the queue are passed over") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
        CHECK_INT(connect_loopback(&p, NKT_IPV4, port_of(listener), &near_end), NKT_OK);
        probe_fail(&p, PROBE_ACCEPT, NKT_EABORTED, 5);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
        CHECK_INT(probe_calls(&p, PROBE_ACCEPT), 6);
        nkt_conn_close(far_end);
        nkt_conn_close(near_end);
        nkt_listener_close(listener);
        probe_close(&p);
    }
    TEST("a queue full of dead connections does not hold a poller up") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        nkt_poller *poller = NULL;
        nkt_poller_opts poller_opts;
        nkt_event event;
        memset(&poller_opts, 0, sizeof poller_opts);
        probe_open(&p);
        poller_opts.env = &p.env;
        nkt_listen_opts opts = listen_opts(&p);
        opts.nonblocking = true;
        nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_add_listener(poller, listener, NULL), NKT_OK);
        CHECK_INT(connect_loopback(&p, NKT_IPV4, port_of(listener), &near_end), NKT_OK);
        probe_fail(&p, PROBE_ACCEPT, NKT_EABORTED, 1000);
        int err = NKT_EAGAIN;
        for (int i = 0; i < 100 && err == NKT_EAGAIN; i++) {
            long before = probe_calls(&p, PROBE_ACCEPT);
            CHECK_INT(nkt_poller_wait(poller, 5000), 1);
            CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
            CHECK(event.listener == listener);
            err = nkt_accept(listener, &far_end);
            CHECK_RANGE(probe_calls(&p, PROBE_ACCEPT) - before, 1, 64);
        }
        CHECK_INT(err, NKT_OK);
        nkt_conn_close(far_end);
        nkt_conn_close(near_end);
        nkt_listener_close(listener);
        nkt_poller_close(poller);
        probe_close(&p);
    }
}

// Bug 30: ten seconds without descriptors, on the false clock.
static void no_descriptors(void) {
    TEST("bug 30: out of descriptors, a poller's listener rests and recovers") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        nkt_poller *poller = NULL;
        nkt_poller_opts poller_opts;
        nkt_event event;
        memset(&poller_opts, 0, sizeof poller_opts);
        probe_open(&p);
        poller_opts.env = &p.env;
        nkt_listen_opts opts = listen_opts(&p);
        opts.nonblocking = true;
        nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_add_listener(poller, listener, NULL), NKT_OK);
        CHECK_INT(connect_loopback(&p, NKT_IPV4, port_of(listener), &near_end), NKT_OK);
        CHECK(probe_until(&p.env, nkt_listener_descriptor(listener), NKT_READ));
        p.fake = true;
        probe_fail(&p, PROBE_ACCEPT, NKT_EMFILE, 1000000);
        probe_count_again(&p);
        int told = 0;
        while (p.now < 10000 * PROBE_MS && probe_calls(&p, PROBE_ACCEPT) < 1000) {
            if (nkt_poller_wait(poller, -1) != 1) break;
            while (nkt_poller_next(poller, &event) == NKT_OK) {
                CHECK_INT(nkt_accept(listener, &far_end), NKT_EMFILE);
                CHECK_INT(nkt_accept(listener, &far_end), NKT_EAGAIN);
                told++;
            }
        }
        CHECK_RANGE(told, 50, 200);
        CHECK_RANGE(probe_calls(&p, PROBE_ACCEPT), told, 200);
        CHECK_RANGE(probe_calls(&p, PROBE_POLL_WAIT), told, 3 * told);
        probe_fail(&p, PROBE_ACCEPT, NKT_OK, 0);
        CHECK_INT(nkt_poller_wait(poller, -1), 1);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
        CHECK_INT(nkt_accept(listener, &near_end), NKT_EAGAIN);
        CHECK_INT(nkt_poller_wait(poller, 100), 0);
        nkt_conn_close(far_end);
        // And it goes on as before.
        nkt_conn *another = NULL;
        CHECK_INT(connect_loopback(&p, NKT_IPV4, port_of(listener), &another), NKT_OK);
        CHECK(probe_until(&p.env, nkt_listener_descriptor(listener), NKT_READ));
        CHECK_INT(nkt_poller_wait(poller, 100), 1);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
        nkt_conn_close(far_end);
        nkt_conn_close(another);
        nkt_conn_close(near_end);
        nkt_listener_close(listener);
        nkt_poller_close(poller);
        probe_close(&p);
    }
}

static void no_descriptors_blocking(void) {
    TEST("bug 30: out of descriptors or memory, a blocking accept says so and rests") {
        static const int errors[] = { NKT_EMFILE, NKT_ENOMEM };
        for (int i = 0; i < 2; i++) {
            probe p;
            nkt_conn *near_end = NULL, *far_end = NULL;
            probe_open(&p);
            nkt_listen_opts opts = listen_opts(&p);
            nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
            CHECK_INT(connect_loopback(&p, NKT_IPV4, port_of(listener), &near_end), NKT_OK);
            p.fake = true;
            probe_fail(&p, PROBE_ACCEPT, errors[i], 1000000);
            while (p.now < 10000 * PROBE_MS && probe_calls(&p, PROBE_ACCEPT) < 1000) {
                CHECK_INT(nkt_accept(listener, &far_end), errors[i]);
            }
            CHECK_RANGE(probe_calls(&p, PROBE_ACCEPT), 50, 200);
            probe_fail(&p, PROBE_ACCEPT, NKT_OK, 0);
            CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
            nkt_conn_close(far_end);
            nkt_conn_close(near_end);
            nkt_listener_close(listener);
            probe_close(&p);
        }
    }
    TEST("no memory for the connection: it is closed, not leaked") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        char byte;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
        CHECK_INT(connect_loopback(&p, NKT_IPV4, port_of(listener), &near_end), NKT_OK);
        probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_ENOMEM);
        CHECK_INT(p.descriptors, 2);
        CHECK_INT(nkt_conn_read(near_end, &byte, 1), NKT_EOF);
        nkt_conn_close(near_end);
        nkt_listener_close(listener);
        probe_close(&p);
    }
}

static void time_outs(void) {
    TEST("a time-out of a blocking accept") {
        probe p;
        nkt_conn *conn = NULL;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        opts.accept_timeout_ms = 1500;
        nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
        p.fake = true;
        CHECK_INT(nkt_accept(listener, &conn), NKT_ETIMEDOUT);
        CHECK_INT(p.now, 1500 * PROBE_MS);
        CHECK_INT(nkt_accept(listener, &conn), NKT_ETIMEDOUT);
        CHECK_INT(p.now, 3000 * PROBE_MS);
        nkt_listener_set_timeout(listener, 20);
        CHECK_INT(nkt_accept(listener, &conn), NKT_ETIMEDOUT);
        CHECK_INT(p.now, 3020 * PROBE_MS);
        p.fake = false;
        meet(&p, listener, NKT_IPV4);
        nkt_listener_close(listener);
        probe_close(&p);
    }
    TEST("a time-out of a nonblocking accept, on a poller") {
        probe p;
        nkt_conn *conn = NULL;
        nkt_poller *poller = NULL;
        nkt_poller_opts poller_opts;
        nkt_event event;
        memset(&poller_opts, 0, sizeof poller_opts);
        probe_open(&p);
        poller_opts.env = &p.env;
        nkt_listen_opts opts = listen_opts(&p);
        opts.accept_timeout_ms = 1500;
        opts.nonblocking = true;
        nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_add_listener(poller, listener, NULL), NKT_OK);
        p.fake = true;
        for (int turn = 1; turn <= 2; turn++) {
            CHECK_INT(nkt_accept(listener, &conn), NKT_EAGAIN);
            CHECK_INT(nkt_poller_wait(poller, -1), 1);
            CHECK_INT(p.now, turn * 1500 * PROBE_MS);
            CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
            CHECK_INT(event.events, NKT_READ);
            CHECK_INT(nkt_accept(listener, &conn), NKT_ETIMEDOUT);
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
        }
        nkt_listener_close(listener);
        nkt_poller_close(poller);
        probe_close(&p);
    }
    TEST("a signal ends a blocking accept, which can be called again") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
        probe_fail(&p, PROBE_WAIT, NKT_EINTR, 1);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_EINTR);
        CHECK_INT(connect_loopback(&p, NKT_IPV4, port_of(listener), &near_end), NKT_OK);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
        nkt_conn_close(far_end);
        nkt_conn_close(near_end);
        nkt_listener_close(listener);
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// Interrupting
//------------------------------------------------------------------------------

#ifndef NETKIT_NO_THREADS
typedef struct interrupter {
    nkt_listener *listener;
    uint32_t done;
} interrupter;

static void interrupt(void *arg) {
    interrupter *i = (interrupter *)arg;
    nkt_listener_interrupt(i->listener);
    __atomic_store_n(&i->done, 1, __ATOMIC_SEQ_CST);
}

static void interrupts_from_threads(void) {
    for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
        TEST(nonblocking ? "interrupt of a listener on a poller"
                         : "interrupt of a blocking accept") {
            probe p;
            interrupter i;
            nkt_conn *conn = NULL;
            nkt_poller *poller = NULL;
            nkt_poller_opts poller_opts;
            memset(&poller_opts, 0, sizeof poller_opts);
            memset(&i, 0, sizeof i);
            probe_open(&p);
            poller_opts.env = &p.env;
            nkt_listen_opts opts = listen_opts(&p);
            opts.nonblocking = nonblocking == 1;
            i.listener = open_listener("127.0.0.1:0", &opts);
            CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
            if (nonblocking) {
                CHECK_INT(nkt_poller_add_listener(poller, i.listener, NULL), NKT_OK);
            }
            CHECK_INT(nkt_thread_start(&p.env, interrupt, &i), NKT_OK);
            if (nonblocking) CHECK_INT(nkt_poller_wait(poller, -1), 1);
            CHECK_INT(nkt_accept(i.listener, &conn), NKT_ECANCELED);
            CHECK_INT(nkt_accept(i.listener, &conn), NKT_ECANCELED);
            if (nonblocking) CHECK_INT(nkt_poller_wait(poller, 0), 0);
            while (__atomic_load_n(&i.done, __ATOMIC_SEQ_CST) == 0) probe_yield();
            nkt_listener_close(i.listener);
            nkt_poller_close(poller);
            probe_close(&p);
        }
    }
}
#endif

static void interrupts(void) {
    TEST("a listener that was interrupted before") {
        probe p;
        nkt_conn *conn = NULL;
        nkt_interest interest;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        nkt_listener *listener = open_listener("127.0.0.1:0", &opts);
        CHECK_INT(nkt_listener_watch(listener, &interest), NKT_OK);
        CHECK(!interest.ready);
        CHECK_INT(interest.count, 1);
        CHECK_INT(interest.watches[0].fd, nkt_listener_descriptor(listener));
        CHECK_INT(interest.watches[0].events, NKT_READ);
        CHECK_INT(interest.deadline_ns, NKT_NEVER);
        nkt_listener_interrupt(listener);
        CHECK_INT(nkt_listener_watch(listener, &interest), NKT_OK);
        CHECK(interest.ready);
        CHECK_INT(nkt_accept(listener, &conn), NKT_ECANCELED);
        nkt_listener_close(listener);
        nkt_listener_close(NULL);
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// Adopting
//------------------------------------------------------------------------------

static void adopting(void) {
    TEST("a listening socket is adopted, and nothing else is") {
        probe p;
        nkt_fd listening = NKT_NO_FD, idle = NKT_NO_FD, datagram = NKT_NO_FD;
        nkt_listener *listener = NULL;
        nkt_conn *near_end = NULL, *far_end = NULL;
        union { uint64_t align; char room[NKT_SOCKADDR_MAX]; } name;
        nkt_ip loopback = nkt_ip_loopback(NKT_IPV4);
        nkt_addr addr = nkt_addr_make(&loopback, 0);
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        const nkt_sys_core *core = &p.core;
        int len = nkt_addr_to_sockaddr(&addr, &name, sizeof name);
        CHECK_INT(core->open(&p.env, NKT_IPV4, 1, &listening), NKT_OK);
        CHECK_INT(core->bind(&p.env, listening, &name, (size_t)len), NKT_OK);
        CHECK_INT(core->listen(&p.env, listening, 5), NKT_OK);
        CHECK_INT(core->open(&p.env, NKT_IPV4, 1, &idle), NKT_OK);
        CHECK_INT(core->open(&p.env, NKT_IPV4, 2, &datagram), NKT_OK);
        CHECK_INT(nkt_listener_adopt(idle, &opts, &listener), NKT_ENOTSOCK);
        CHECK_INT(nkt_listener_adopt(datagram, &opts, &listener), NKT_ENOTSOCK);
        CHECK_INT(nkt_listener_adopt(NKT_NO_FD, &opts, &listener), NKT_ENOTSOCK);
        CHECK_INT(nkt_listener_adopt(idle, NULL, &listener), NKT_ENOTSOCK);
        CHECK(listener == NULL);
        probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        CHECK_INT(nkt_listener_adopt(listening, &opts, &listener), NKT_ENOMEM);
        CHECK_INT(p.descriptors, 3);
        // A service manager hands over a blocking one.
        CHECK_INT(core->set_blocking(&p.env, listening, true), NKT_OK);
        CHECK_INT(nkt_listener_adopt(listening, &opts, &listener), NKT_OK);
        CHECK_INT(nkt_listener_descriptor(listener), listening);
        CHECK_INT(connect_loopback(&p, NKT_IPV4, port_of(listener), &near_end), NKT_OK);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
        nkt_listener *other = NULL;
        CHECK_INT(nkt_listener_adopt(nkt_conn_descriptor(near_end), &opts, &other),
                  NKT_ENOTSOCK);
        nkt_conn *wrong = NULL;
        CHECK_INT(nkt_conn_adopt(listening, NULL, &wrong), NKT_ENOTSOCK);
        CHECK_INT(nkt_conn_adopt(datagram, NULL, &wrong), NKT_ENOTSOCK);
        CHECK_INT(nkt_conn_adopt(idle, NULL, &wrong), NKT_ENOTCONN);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        nkt_listener_close(listener);
        CHECK_INT(core->close(&p.env, idle), NKT_OK);
        CHECK_INT(core->close(&p.env, datagram), NKT_OK);
        probe_close(&p);
    }
    TEST("a nonblocking listener does not wait on an adopted blocking socket") {
        probe p;
        nkt_conn *conn = NULL;
        nkt_listener *listener = NULL;
        nkt_fd fd = NKT_NO_FD;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        opts.nonblocking = true;
        CHECK_INT(p.core.open(&p.env, NKT_IPV4, 1, &fd), NKT_OK);
        CHECK_INT(p.core.set_blocking(&p.env, fd, true), NKT_OK);
        union { uint64_t align; char room[NKT_SOCKADDR_MAX]; } name;
        nkt_ip loopback = nkt_ip_loopback(NKT_IPV4);
        nkt_addr addr = nkt_addr_make(&loopback, 0);
        int len = nkt_addr_to_sockaddr(&addr, &name, sizeof name);
        CHECK_INT(p.core.bind(&p.env, fd, &name, (size_t)len), NKT_OK);
        CHECK_INT(p.core.listen(&p.env, fd, 5), NKT_OK);
        CHECK_INT(nkt_listener_adopt(fd, &opts, &listener), NKT_OK);
        CHECK_INT(nkt_accept(listener, &conn), NKT_EAGAIN);
        nkt_listener_close(listener);
        probe_close(&p);
    }
}

int main(void) {
    targets();
    without_ipv6();
    without_dual_stack();
    without_a_name();
    ports();
    shared_ports();
    options();
    bad_arguments();
    aborted();
    no_descriptors();
    no_descriptors_blocking();
    time_outs();
#ifndef NETKIT_NO_THREADS
    interrupts_from_threads();
#endif
    interrupts();
    adopting();
    return test_finish();
}
