// test_udp_groups.c - groups and broadcasts over interfaces that are a table
//
// The list of interfaces is the test's own, and what is joined, left and sent
// is written down instead of done, so that any host can be described: cards
// that come and go, tunnels, networks of two. The last tests are on the real
// loopback interface.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "probe.h"

static probe p;
static nkt_sys_udp sys;
static nkt_sys_net net;
static nkt_sys_iface ifaces[200];
static int iface_count;
static bool news, has_news;         // news: something changed; has_news: it is told
static char noted[1024];            // "+1 239.1.1.1" joined, "-1 239.1.1.1" left
static char sent[1024];             // "239.1.1.1@1"
static char sent_from[1024];        // the IPv4 addresses that these were from
static int refuse_index, refuse_err;
static int list_err;                // what asking for the interfaces says
static int copies_sent;

static void note(char *to, size_t cap, const char *text) {
    size_t len = strlen(to);
    snprintf(to + len, cap - len, "%s%s", len > 0 ? " " : "", text);
}

static int fake_list(nkt_env *env, nkt_sys_iface *rows, int cap) {
    (void)env;
    if (list_err < 0) return list_err;
    for (int i = 0; i < iface_count && i < cap; i++) rows[i] = ifaces[i];
    return iface_count;
}

static int fake_name(nkt_env *env, uint32_t index, char *buf, size_t cap) {
    (void)env;
    for (int i = 0; i < iface_count; i++) {
        if (ifaces[i].index == index) return snprintf(buf, cap, "card%u", (unsigned)index);
    }
    return NKT_ENODEV;
}

static int fake_watch_open(nkt_env *env, nkt_fd *fd) {
    nkt_wake wake;
    if (!has_news) return NKT_EUNSUPPORTED;
    int err = probe_core_wake_open(env, &wake);
    *fd = wake.wait_fd;
    return err;
}

static void fake_watch_close(nkt_env *env, nkt_fd fd) {
    probe_core_close(env, fd);
}

static bool fake_watch_drain(nkt_env *env, nkt_fd fd) {
    (void)env, (void)fd;
    bool was = news;
    news = false;
    return was;
}

static int fake_member(nkt_env *env, nkt_fd fd, const nkt_ip *group, const nkt_ip *source,
                       uint32_t index, const nkt_ip *local, bool join) {
    char text[NKT_IP_TEXT_MAX], from[NKT_IP_TEXT_MAX], line[2 * NKT_IP_TEXT_MAX + 16];
    (void)env, (void)fd, (void)local;
    if (join && (int)index == refuse_index) return refuse_err;
    nkt_ip_format(group, text, sizeof text);
    nkt_ip_format(source, from, sizeof from);
    snprintf(line, sizeof line, "%c%u %s%s%s", join ? '+' : '-', (unsigned)index, text,
             source->family != 0 ? "<" : "", from);
    note(noted, sizeof noted, line);
    return NKT_OK;
}

static int fake_send(nkt_env *env, nkt_fd fd, int family, const nkt_datagram *list, int count,
                     bool *segments) {
    char text[NKT_IP_TEXT_MAX], line[NKT_IP_TEXT_MAX + 16];
    (void)env, (void)fd, (void)family, (void)segments, (void)count;
    copies_sent++;
    if ((int)list[0].interface_index == refuse_index) return refuse_err;
    nkt_ip to = list[0].addr.ip;
    if (to.family == NKT_IPV6) CHECK_INT(to.scope, list[0].interface_index);
    to.scope = 0;
    nkt_ip_format(&to, text, sizeof text);
    snprintf(line, sizeof line, "%s@%u", text, (unsigned)list[0].interface_index);
    note(sent, sizeof sent, line);
    nkt_ip_format(&list[0].local, text, sizeof text);
    if (list[0].local.family != 0) note(sent_from, sizeof sent_from, text);
    return 1;
}

// Wine's sockets are Linux's, which hear what any socket of the host has
// joined; IP_MULTICAST_ALL, which ends that, is not to be had there.
static bool on_wine(void) {
#ifdef _WIN32
    return GetProcAddress(GetModuleHandleA("ntdll.dll"), "wine_get_version") != NULL;
#else
    return false;
#endif
}

static void add(uint32_t index, const char *ip, uint32_t bits, uint32_t flags, const char *peer) {
    nkt_sys_iface *row = &ifaces[iface_count++];
    memset(row, 0, sizeof *row);
    row->index = index;
    row->bits = bits;
    row->flags = flags;
    if (ip != NULL) CHECK_INT(nkt_ip_parse(ip, &row->ip), NKT_OK);
    if (peer != NULL) CHECK_INT(nkt_ip_parse(peer, &row->peer), NKT_OK);
}

enum {
    UP = NKT_IFACE_UP, CARD = NKT_IFACE_UP | NKT_IFACE_MULTICAST | NKT_IFACE_BROADCAST,
    LOOP = NKT_IFACE_UP | NKT_IFACE_LOOPBACK | NKT_IFACE_MULTICAST,
    TUNNEL = NKT_IFACE_UP | NKT_IFACE_MULTICAST | NKT_IFACE_POINT_TO_POINT
};

// A host with two cards, loopback, and things that do not count.
static void host(void) {
    iface_count = 0;
    add(1, "127.0.0.1", 8, LOOP, NULL);
    add(1, "::1", 128, LOOP, NULL);
    add(2, NULL, 0, CARD, NULL);
    add(2, "192.0.2.9", 24, CARD, NULL);
    add(2, "198.51.100.9", 25, CARD, NULL);             // two networks on one card
    add(2, "fe80::9%2", 64, CARD, NULL);
    add(3, "203.0.113.130", 28, CARD, NULL);
    add(4, "10.1.1.1", 24, CARD & ~UP, NULL);           // down
    add(5, "10.2.2.2", 24, UP | NKT_IFACE_BROADCAST, NULL);     // no multicast
    add(6, NULL, 0, CARD, NULL);                        // no address
}

static nkt_udp *open_udp(const char *local) {
    nkt_udp_opts opts;
    nkt_udp *udp = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.nonblocking = true;
    CHECK_INT(nkt_udp_open(local, &opts, &udp), NKT_OK);
    return udp;
}

static nkt_udp *begin(const char *local) {
    host();
    noted[0] = sent[0] = '\0';
    news = false;
    refuse_index = -1;
    sys = *nkt_sys_udp_default();
    sys.member = fake_member;
    sys.send = fake_send;
    net = *nkt_sys_net_default();
    net.list = fake_list;
    net.watch_open = fake_watch_open;
    net.watch_close = fake_watch_close;
    net.watch_drain = fake_watch_drain;
    p.env.udp = &sys;
    p.env.net = &net;
    p.core.interface_name = fake_name;
    return open_udp(local);
}

static void end(nkt_udp *udp) {
    nkt_udp_close(udp);
    p.env.udp = NULL;
    p.env.net = NULL;
    p.core.interface_name = probe_system()->interface_name;
}

static void expect(char *text, const char *want) {
    CHECK_STR(text, want);
    text[0] = '\0';
}

//------------------------------------------------------------------------------
// Joining

static void test_join(void) {
    nkt_udp *udp = begin("0.0.0.0:0");
    nkt_udp_info info;
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 2);
    expect(noted, "+2 239.1.1.1 +3 239.1.1.1");
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 2);
    expect(noted, "");
    CHECK_INT(nkt_udp_get_info(udp, &info), NKT_OK);
    CHECK_INT(info.joined, 2);
    CHECK_INT(nkt_udp_leave(udp, "239.1.1.2", NULL), NKT_ENOTFOUND);
    CHECK_INT(nkt_udp_leave(udp, "239.1.1.1", NULL), NKT_OK);
    expect(noted, "-3 239.1.1.1 -2 239.1.1.1");
    CHECK_INT(nkt_udp_leave(udp, "239.1.1.1", NULL), NKT_ENOTFOUND);
    end(udp);
}

static void test_named(void) {
    static const struct { const char *name; uint32_t index; int want; const char *told; } rows[] = {
        { "203.0.113.130", 0, 1, "+3 239.1.1.1" }, { "198.51.100.9", 0, 1, "+2 239.1.1.1" },
        { "fe80::9", 0, 1, "+2 239.1.1.1" }, { "203.0.113.131", 0, NKT_ENODEV, "" },
        { "no such card", 0, NKT_ENODEV, "" }, { "", 0, NKT_ENODEV, "" },
        { "4294967297", 0, NKT_ENODEV, "" }, { "1x", 0, NKT_ENODEV, "" },
        { "3", 0, 1, "+3 239.1.1.1" }, { "4000000", 0, NKT_ENODEV, "" },
        { NULL, 4000000, NKT_ENODEV, "" },
    };
    nkt_join_opts opts;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nkt_udp *udp = begin("0.0.0.0:0");
        memset(&opts, 0, sizeof opts);
        opts.interface_name = rows[i].name;
        opts.interface_index = rows[i].index;
        if (!CHECK_INT(nkt_udp_join(udp, "239.1.1.1", &opts), rows[i].want)) {
            printf("  row %d\n", (int)i);
        }
        expect(noted, rows[i].told);
        if (rows[i].want == 1) CHECK_INT(nkt_udp_leave(udp, "239.1.1.1", NULL), NKT_ENOTFOUND);
        if (rows[i].want == 1) CHECK_INT(nkt_udp_leave(udp, "239.1.1.1", &opts), NKT_OK);
        end(udp);
    }
}

static void test_bad_groups(void) {
    static const struct { const char *group, *source; int err; } rows[] = {
        { NULL, NULL, NKT_EADDR }, { "", NULL, NKT_EADDR }, { "239.1.1", NULL, NKT_EADDR },
        { "239.1.1.1:5555", NULL, NKT_EADDR }, { "192.0.2.1", NULL, NKT_EGROUP },
        { "255.255.255.255", NULL, NKT_EGROUP }, { "0.0.0.0", NULL, NKT_EGROUP },
        { "2001:db8::1", NULL, NKT_EGROUP }, { "ff02::1", NULL, NKT_EFAMILY },
        { "232.1.1.1", "2001:db8::1", NKT_EFAMILY }, { "232.1.1.1", "x", NKT_EADDR },
    };
    nkt_udp *udp = begin("0.0.0.0:0");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nkt_join_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.source = rows[i].source;
        if (!CHECK_INT(nkt_udp_join(udp, rows[i].group, &opts), rows[i].err)) {
            printf("  row %d\n", (int)i);
        }
        CHECK_INT(nkt_udp_leave(udp, rows[i].group, &opts), rows[i].err);
    }
    expect(noted, "");
    end(udp);
}

static void test_sources(void) {
    nkt_udp *udp = begin("0.0.0.0:0");
    nkt_join_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.source = "192.0.2.1";
    CHECK_INT(nkt_udp_join(udp, "232.1.1.1", &opts), 2);
    expect(noted, "+2 232.1.1.1<192.0.2.1 +3 232.1.1.1<192.0.2.1");
    opts.source = "192.0.2.2";
    CHECK_INT(nkt_udp_leave(udp, "232.1.1.1", &opts), NKT_ENOTFOUND);
    CHECK_INT(nkt_udp_join(udp, "232.1.1.1", &opts), 2);
    opts.source = "192.0.2.1";
    noted[0] = '\0';
    CHECK_INT(nkt_udp_leave(udp, "232.1.1.1", &opts), NKT_OK);
    expect(noted, "-3 232.1.1.1<192.0.2.1 -2 232.1.1.1<192.0.2.1");
    end(udp);
}

// A group joined on all and on one by name is left when nobody wants it.
static void test_twofold(void) {
    nkt_udp *udp = begin("0.0.0.0:0");
    nkt_join_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.interface_name = "203.0.113.130";
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", &opts), 1);
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 2);
    noted[0] = '\0';
    CHECK_INT(nkt_udp_leave(udp, "239.1.1.1", NULL), NKT_OK);
    expect(noted, "-2 239.1.1.1");
    CHECK_INT(nkt_udp_leave(udp, "239.1.1.1", &opts), NKT_OK);
    expect(noted, "-3 239.1.1.1");
    end(udp);
}

static void test_refused(void) {
    has_news = true;
    nkt_udp *udp = begin("0.0.0.0:0");
    refuse_index = 2;
    refuse_err = NKT_ENOMEM;
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 1);
    expect(noted, "+3 239.1.1.1");
    // Joined already by the system's account is joined.
    refuse_err = NKT_EADDRINUSE;
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 2);
    iface_count = 5;            // only card 2 is left
    news = true;
    refuse_err = NKT_ENOMEM;
    CHECK_INT(nkt_udp_join(udp, "239.2.2.2", NULL), NKT_ENOMEM);
    CHECK_INT(nkt_udp_leave(udp, "239.2.2.2", NULL), NKT_ENOTFOUND);
    end(udp);
    has_news = false;
}

//------------------------------------------------------------------------------
// Interfaces that come and go

static void look(nkt_udp *udp) {
    char byte;
    CHECK_INT(nkt_udp_recv(udp, &byte, 1, NULL), NKT_EAGAIN);
}

static void test_coming_and_going(bool told) {
    has_news = told;
    p.fake = true;
    p.now = 5000 * PROBE_MS;
    nkt_udp *udp = begin("0.0.0.0:0");
    nkt_interest interest;
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 2);
    noted[0] = '\0';
    add(6, "10.6.6.6", 24, CARD, NULL);         // got an address
    add(7, "10.7.7.7", 24, CARD, NULL);         // appeared
    look(udp);
    expect(noted, "");                          // no news, not time yet
    CHECK_INT(nkt_udp_watch(udp, NKT_READ, &interest), NKT_OK);
    CHECK_INT(interest.count, told ? 2 : 1);
    if (!told) CHECK_INT(interest.deadline_ns, 7000 * PROBE_MS);
    news = true;
    p.now += 2000 * PROBE_MS;
    look(udp);
    expect(noted, "+6 239.1.1.1 +7 239.1.1.1");
    CHECK_INT(nkt_udp_join(udp, "239.9.9.9", NULL), 4);
    noted[0] = '\0';
    for (int i = 0; i < iface_count; i++) {     // card 3 is pulled out
        if (ifaces[i].index == 3) ifaces[i] = ifaces[--iface_count];
    }
    news = true;
    p.now += 2000 * PROBE_MS;
    look(udp);
    CHECK(strstr(noted, "-3 239.1.1.1") != NULL && strstr(noted, "-3 239.9.9.9") != NULL);
    noted[0] = '\0';
    add(3, "203.0.113.130", 28, CARD, NULL);    // and back
    news = true;
    p.now += 2000 * PROBE_MS;
    look(udp);
    CHECK(strstr(noted, "+3 239.1.1.1") != NULL && strstr(noted, "+3 239.9.9.9") != NULL);
    end(udp);
    has_news = false;
    p.fake = false;
}

// A list that cannot be had, at first or after news, is asked for again.
static void test_list_fails(void) {
    has_news = true;
    p.fake = true;
    p.now = 5000 * PROBE_MS;
    nkt_udp *udp = begin("0.0.0.0:0");
    nkt_interest interest;
    list_err = NKT_ENOMEM;
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), NKT_ENOMEM);
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), NKT_ENOMEM);
    list_err = NKT_OK;
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 2);
    noted[0] = '\0';
    add(7, "10.7.7.7", 24, CARD, NULL);
    news = true;
    list_err = NKT_ENOMEM;
    p.now += 500 * PROBE_MS;
    look(udp);
    expect(noted, "");
    CHECK_INT(nkt_udp_watch(udp, NKT_READ, &interest), NKT_OK);
    CHECK_INT(interest.deadline_ns, 7500 * PROBE_MS);
    list_err = NKT_OK;
    look(udp);
    expect(noted, "+7 239.1.1.1");
    CHECK_INT(nkt_udp_watch(udp, NKT_READ, &interest), NKT_OK);
    CHECK(interest.deadline_ns == NKT_NEVER);
    end(udp);
    p.fake = false;
    has_news = false;
    CHECK_INT(p.descriptors, 0);
}

// Nothing but loopback, then a card; and nothing at all.
static void test_alone(void) {
    has_news = true;
    nkt_udp *udp = begin("0.0.0.0:0");
    iface_count = 0;
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 0);
    CHECK_INT(nkt_udp_send_str(udp, "x", "239.1.1.1:5"), NKT_ENETUNREACH);
    CHECK_INT(nkt_udp_broadcast(udp, "x", 1, 5), NKT_ENETUNREACH);
    expect(noted, "");
    add(1, "127.0.0.1", 8, LOOP, NULL);
    news = true;
    look(udp);
    expect(noted, "+1 239.1.1.1");
    CHECK_INT(nkt_udp_send_str(udp, "x", "239.1.1.1:5"), 1);
    expect(sent, "239.1.1.1@1");
    CHECK_INT(nkt_udp_broadcast(udp, "x", 1, 5), 1);
    expect(sent, "127.255.255.255@1");
    add(2, "192.0.2.9", 24, CARD, NULL);
    news = true;
    look(udp);
    expect(noted, "+2 239.1.1.1");
    CHECK_INT(nkt_udp_send_str(udp, "x", "239.1.1.1:5"), 1);
    expect(sent, "239.1.1.1@2");
    end(udp);
    has_news = false;
}

static void test_news_in_poller(void) {
    nkt_poller_opts opts;
    nkt_poller *poller = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    p.fake = true;
    p.now = 5000 * PROBE_MS;
    nkt_udp *udp = begin("0.0.0.0:0");
    CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
    CHECK_INT(nkt_poller_add_udp(poller, udp, NULL), NKT_OK);
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 2);
    noted[0] = '\0';
    add(7, "10.7.7.7", 24, CARD, NULL);
    // Nothing is to be read, and yet it is joined, before the wait is over.
    CHECK_INT(nkt_poller_wait(poller, 1999), 0);
    expect(noted, "");
    CHECK_INT(nkt_poller_wait(poller, 2), 0);
    expect(noted, "+7 239.1.1.1");
    end(udp);
    nkt_poller_close(poller);
    p.fake = false;
}

// A watch that the poller refuses. The news can be done without: interfaces are
// then looked at from time to time. Without the sockets nothing is heard: told.
static void test_watch_refused(void) {
    nkt_poller_opts opts;
    nkt_poller *poller = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    p.fake = has_news = true;
    p.now = 5000 * PROBE_MS;
    nkt_udp *udp = begin("0.0.0.0:0");
    CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
    CHECK_INT(nkt_poller_add_udp(poller, udp, NULL), NKT_OK);
    probe_fail(&p, PROBE_POLL_SET, NKT_ENOMEM, 1);
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 2);
    CHECK_INT(p.fail_count[PROBE_POLL_SET], 0);
    noted[0] = '\0';
    add(7, "10.7.7.7", 24, CARD, NULL);
    CHECK_INT(nkt_poller_wait(poller, 1999), 0);
    expect(noted, "");
    CHECK_INT(nkt_poller_wait(poller, 2), 0);
    expect(noted, "+7 239.1.1.1");
    end(udp);
    udp = begin("0.0.0.0:0");
    CHECK_INT(nkt_poller_add_udp(poller, udp, NULL), NKT_OK);
    probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1000);
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), NKT_ENOMEM);
    probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 0);
    CHECK_INT(nkt_udp_join(udp, "239.1.1.1", NULL), 2);
    end(udp);
    nkt_poller_close(poller);
    p.fake = has_news = false;
}

//------------------------------------------------------------------------------
// Sending

static void test_send_group(void) {
    nkt_udp *udp = begin(":0");
    CHECK_INT(nkt_udp_send_str(udp, "hello", "239.1.1.1:5"), 5);
    expect(sent, "239.1.1.1@2 239.1.1.1@3");
    CHECK_INT(nkt_udp_send_str(udp, "hello", "[ff15::1]:5"), 5);
    expect(sent, "ff15::1@2");
    CHECK_INT(nkt_udp_send_str(udp, "hello", "192.0.2.1:5"), 5);
    expect(sent, "192.0.2.1@0");
    // Through one only: by option, or by the address's scope.
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE, 1), NKT_OK);
    CHECK_INT(nkt_udp_send_str(udp, "hello", "239.1.1.1:5"), 5);
    expect(sent, "239.1.1.1@1");
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE, 0), NKT_OK);
    // One of two is enough.
    refuse_index = 2;
    refuse_err = NKT_ENETUNREACH;
    CHECK_INT(nkt_udp_send_str(udp, "hello", "239.1.1.1:5"), 5);
    expect(sent, "239.1.1.1@3");
    CHECK_INT(nkt_udp_send_str(udp, "hello", "[ff15::1]:5"), NKT_ENETUNREACH);
    refuse_err = NKT_EAGAIN;
    CHECK_INT(nkt_udp_send_str(udp, "hello", "[ff15::1]:5"), NKT_EAGAIN);
    end(udp);
}

// What is bound to one address sends from it, also where that is not the
// interface's first, and through no interface that does not have it.
static void test_send_bound(void) {
    nkt_udp *udp = begin("127.0.0.1:0");
    add(2, "127.0.0.1", 24, CARD, NULL);
    sent_from[0] = '\0';
    CHECK_INT(nkt_udp_send_str(udp, "hello", "239.1.1.1:5"), 5);
    expect(sent_from, "127.0.0.1");
    expect(sent, "239.1.1.1@2");
    CHECK_INT(nkt_udp_broadcast(udp, "hello", 5, 5), 5);
    expect(sent_from, "127.0.0.1 127.0.0.1 127.0.0.1");
    expect(sent, "192.0.2.255@2 198.51.100.127@2 127.0.0.255@2");
    // The one that is named is taken, by the address that it has.
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE, 3), NKT_OK);
    CHECK_INT(nkt_udp_send_str(udp, "hello", "239.1.1.1:5"), 5);
    expect(sent_from, "203.0.113.130");
    expect(sent, "239.1.1.1@3");
    end(udp);
    // Loopback's own leaves by loopback, although there are cards.
    udp = begin("127.0.0.1:0");
    CHECK_INT(nkt_udp_send_str(udp, "hello", "239.1.1.1:5"), 5);
    expect(sent, "239.1.1.1@1");
    CHECK_INT(nkt_udp_broadcast(udp, "hello", 5, 5), 5);
    expect(sent, "127.255.255.255@1");
    end(udp);
    udp = begin("[::1]:0");
    add(3, "fe80::130%3", 64, CARD, NULL);
    CHECK_INT(nkt_udp_send_str(udp, "hello", "[ff15::1]:5"), 5);
    expect(sent, "ff15::1@1");
    end(udp);
    // And nowhere once no interface has it.
    udp = begin("127.0.0.1:0");
    ifaces[0].index = 0, ifaces[0].flags = 0;
    memset(&ifaces[0].ip, 0, sizeof ifaces[0].ip);
    CHECK_INT(nkt_udp_send_str(udp, "hello", "239.1.1.1:5"), NKT_ENETUNREACH);
    CHECK_INT(nkt_udp_broadcast(udp, "hello", 5, 5), NKT_ENETUNREACH);
    expect(sent, "");
    end(udp);
    udp = begin("0.0.0.0:0");
    sent_from[0] = '\0';
    CHECK_INT(nkt_udp_send_str(udp, "hello", "239.1.1.1:5"), 5);
    expect(sent_from, "192.0.2.9 203.0.113.130");
    CHECK_INT(nkt_udp_broadcast(udp, "hello", 5, 5), 5);
    expect(sent_from, "192.0.2.9 198.51.100.9 203.0.113.130 10.2.2.2");
    end(udp);
}

static void test_each(void) {
    nkt_udp_result results[4];
    nkt_addr to;
    nkt_udp *udp = begin("0.0.0.0:0");
    nkt_addr_parse("239.1.1.1:5", &to);
    memset(results, 0xaa, sizeof results);
    refuse_index = 2;
    refuse_err = NKT_EACCES;
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &to, results, 4), 2);
    CHECK_INT(results[0].interface_index, 2);
    CHECK_INT(results[0].err, NKT_EACCES);
    CHECK_INT(results[1].interface_index, 3);
    CHECK_INT(results[1].err, NKT_OK);
    CHECK_INT(results[1].os_error, 0);
    CHECK(nkt_addr_equal(&results[1].to, &to));
    CHECK_INT(results[2].err, (int32_t)0xaaaaaaaa);
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &to, NULL, 0), 2);
    nkt_addr_parse("255.255.255.255:5", &to);
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &to, results, 4), 4);
    CHECK_INT(results[2].interface_index, 3);
    CHECK_INT(results[2].to.ip.bytes[3], 143);
    to.port = 0;
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &to, results, 4), NKT_EPORT);
    to.port = 5;
    CHECK_INT(nkt_udp_send_each(udp, "x", 70000, &to, results, 4), NKT_ETOOLONG);
    CHECK_INT(nkt_udp_send_each(udp, NULL, 1, &to, results, 4), NKT_EINVAL);
    nkt_addr_parse("192.0.2.1:5", &to);
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &to, results, 4), NKT_EGROUP);
    nkt_addr_parse("[ff15::1]:5", &to);
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &to, results, 4), NKT_EFAMILY);
    end(udp);
}

// A host of containers: there are more interfaces than a function has room for.
static void test_very_many(void) {
    enum { MANY = 150 };
    nkt_udp_result results[MANY];
    nkt_addr to;
    char text[32];
    nkt_udp *udp = begin("0.0.0.0:0");
    iface_count = 0;
    for (int i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "10.0.%d.1", i);
        add((uint32_t)i + 1, text, 24, CARD, NULL);
    }
    CHECK_INT(nkt_addr_parse("239.1.1.1:5", &to), NKT_OK);
    memset(results, 0xaa, sizeof results);
    copies_sent = 0;
    CHECK_INT(nkt_udp_send_each(udp, "x", 1, &to, results, MANY), MANY);
    CHECK_INT(copies_sent, MANY);
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(results[i].interface_index, i + 1);
        CHECK_INT(results[i].err, NKT_OK);
    }
    CHECK_INT(nkt_udp_broadcast(udp, "x", 1, 5), 1);
    CHECK_INT(copies_sent, 2 * MANY);
    end(udp);
}

static void test_broadcast(void) {
    nkt_udp *udp = begin("0.0.0.0:0");
    CHECK_INT(nkt_udp_broadcast(udp, "hello", 5, 5), 5);
    expect(sent, "192.0.2.255@2 198.51.100.127@2 203.0.113.143@3 10.2.2.255@5");
    // By its name, 255.255.255.255 is the same.
    CHECK_INT(nkt_udp_send_str(udp, "hello", "255.255.255.255:5"), 5);
    expect(sent, "192.0.2.255@2 198.51.100.127@2 203.0.113.143@3 10.2.2.255@5");
    CHECK_INT(nkt_udp_broadcast(udp, "hello", 5, 0), NKT_EPORT);
    iface_count = 0;
    add(2, "192.0.2.8", 31, CARD, NULL);                // a network of two: the other one
    add(3, "192.0.2.13", 30, CARD, NULL);
    add(4, "192.0.2.20", 32, CARD, NULL);               // nobody else there
    add(5, "10.0.0.1", 32, TUNNEL, "10.0.0.2");         // the other end
    add(6, "10.0.1.1", 24, TUNNEL, NULL);               // one that is not told
    add(7, "10.0.2.1", 0, CARD, NULL);                  // no prefix length: never everybody
    add(8, "0.0.0.0", 8, CARD & ~UP, NULL);
    end(udp);
    int count = iface_count;
    nkt_sys_iface kept[16];
    memcpy(kept, ifaces, sizeof kept);
    udp = begin("0.0.0.0:0");
    memcpy(ifaces, kept, sizeof kept);
    iface_count = count;
    CHECK_INT(nkt_udp_broadcast(udp, "hello", 5, 5), 5);
    expect(sent, "192.0.2.9@2 192.0.2.15@3 10.0.0.2@5");
    end(udp);
    udp = begin("[::]:0");
    CHECK_INT(nkt_udp_broadcast(udp, "hello", 5, 5), NKT_EFAMILY);
    end(udp);
}

//------------------------------------------------------------------------------
// For real, on loopback

static uint32_t loopback_index(void) {
    nkt_sys_iface rows[64];
    int count = nkt_sys_net_default()->list(&p.env, rows, 64);
    nkt_ip lo = nkt_ip_loopback(NKT_IPV4);
    for (int i = 0; i < count && i < 64; i++) {
        if (!nkt_ip_equal(&rows[i].ip, &lo)) continue;
        CHECK((rows[i].flags & NKT_IFACE_LOOPBACK) != 0);
        CHECK((rows[i].flags & NKT_IFACE_UP) != 0);
        CHECK_INT(rows[i].bits, 8);
        return rows[i].index;
    }
    CHECK(false);
    return 0;
}

static nkt_udp *open_real(const char *local) {
    nkt_udp_opts opts;
    nkt_udp *udp = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.reuse_port = true;
    opts.recv_timeout_ms = 5000;
    CHECK_INT(nkt_udp_open(local, &opts, &udp), NKT_OK);
    return udp;
}

static int hear(nkt_udp *udp, nkt_datagram *got) {
    static char buf[64];
    memset(got, 0, sizeof *got);
    got->data = buf;
    got->cap = sizeof buf;
    return nkt_udp_recv_datagram(udp, got);
}

// Two on one port that have joined, and one that has not.
static void test_real_group(void) {
    nkt_udp *a = open_real("0.0.0.0:0"), *from = open_real("0.0.0.0:0");
    nkt_join_opts opts;
    nkt_datagram got;
    nkt_addr addr, to;
    char text[32];
    uint32_t lo = loopback_index();
    CHECK_INT(nkt_udp_local(a, &addr), NKT_OK);
    snprintf(text, sizeof text, "0.0.0.0:%d", addr.port);
    nkt_udp *b = open_real(text), *deaf = open_real(text);
    memset(&opts, 0, sizeof opts);
    opts.interface_name = "127.0.0.1";
    CHECK_INT(nkt_udp_join(a, "239.255.77.77", &opts), 1);
    opts.interface_name = NULL;
    opts.interface_index = lo;
    CHECK_INT(nkt_udp_join(b, "239.255.77.77", &opts), 1);
    CHECK_INT(nkt_udp_set_option(from, NKT_UDP_MULTICAST_INTERFACE, lo), NKT_OK);
    snprintf(text, sizeof text, "239.255.77.77:%d", addr.port);
    CHECK_INT(nkt_addr_parse(text, &to), NKT_OK);
    CHECK_INT(nkt_udp_send(from, "hello", 5, &to), 5);
    CHECK_INT(hear(a, &got), NKT_OK);
    CHECK_MEM(got.data, got.len, "hello", 5);
    CHECK(nkt_ip_equal(&got.local, &to.ip));
    CHECK_INT(got.interface_index, lo);
    CHECK_INT(got.hops, 1);
    CHECK_INT(hear(b, &got), NKT_OK);
    // What has not joined does not hear it, though others of this port have.
    CHECK_INT(nkt_udp_set_option(deaf, NKT_UDP_RECV_TIMEOUT_MS, 30), NKT_OK);
    CHECK_INT(hear(deaf, &got), on_wine() ? (int)NKT_OK : (int)NKT_ETIMEDOUT);
    CHECK_INT(nkt_udp_leave(b, "239.255.77.77", &opts), NKT_OK);
    CHECK_INT(nkt_udp_send(from, "again", 5, &to), 5);
    CHECK_INT(hear(a, &got), NKT_OK);
    CHECK_INT(nkt_udp_set_option(b, NKT_UDP_RECV_TIMEOUT_MS, 30), NKT_OK);
    CHECK_INT(hear(b, &got), on_wine() ? (int)NKT_OK : (int)NKT_ETIMEDOUT);
    nkt_udp_close(a);
    nkt_udp_close(b);
    nkt_udp_close(deaf);
    nkt_udp_close(from);
}

// A socket of the loopback interface alone.
static nkt_udp *open_on_loopback(const char *local) {
    nkt_udp_opts opts;
    nkt_udp *udp = NULL;
    char name[256];
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    opts.recv_timeout_ms = 5000;
    CHECK_RANGE(nkt_sys_core_default()->interface_name(&p.env, loopback_index(), name,
                                                       sizeof name), 1, 255);
    opts.interface_name = name;
    CHECK_INT(nkt_udp_open(local, &opts, &udp), NKT_OK);
    return udp;
}

// To everybody on the network of the one interface that the sender has.
static void test_real_broadcast(void) {
    nkt_udp *a = open_real("0.0.0.0:0"), *from = open_on_loopback("0.0.0.0:0");
    nkt_datagram got;
    nkt_udp_result results[4];
    nkt_addr addr, to;
    uint32_t lo = loopback_index();
    CHECK_INT(nkt_udp_local(a, &addr), NKT_OK);
    nkt_ip ip = nkt_ip_from_u32(0x7fffffff), everybody = nkt_ip_from_u32(0xffffffff);
    CHECK_INT(nkt_udp_broadcast(from, "all", 3, addr.port), 3);
    CHECK_INT(hear(a, &got), NKT_OK);
    CHECK_MEM(got.data, got.len, "all", 3);
    CHECK(nkt_ip_equal(&got.local, &ip));
    CHECK_INT(got.interface_index, lo);
    to = nkt_addr_make(&everybody, addr.port);
    CHECK_INT(nkt_udp_send_each(from, "each", 4, &to, results, 4), 1);
    CHECK_INT(results[0].interface_index, lo);
    CHECK_INT(results[0].err, NKT_OK);
    CHECK(nkt_ip_equal(&results[0].to.ip, &ip));
    CHECK_INT(hear(a, &got), NKT_OK);
    CHECK_MEM(got.data, got.len, "each", 4);
    CHECK_INT(nkt_udp_set_option(a, NKT_UDP_RECV_TIMEOUT_MS, 30), NKT_OK);
    CHECK_INT(hear(a, &got), NKT_ETIMEDOUT);            // neither came twice
    nkt_udp_close(a);
    nkt_udp_close(from);
}

// A group of this socket's alone, though other programs run these tests, too:
// its port is in it.
static nkt_addr own_group(nkt_udp *udp, const char *format, char *text, size_t cap) {
    nkt_addr addr;
    nkt_ip group;
    CHECK_INT(nkt_udp_local(udp, &addr), NKT_OK);
    bool is_ipv6 = strchr(format, ':') != NULL;
    snprintf(text, cap, format, is_ipv6 ? addr.port : addr.port >> 8, addr.port & 255);
    CHECK_INT(nkt_ip_parse(text, &group), NKT_OK);
    return nkt_addr_make(&group, addr.port);
}

// What is sent to a group before and after it is left: the first is heard.
static void check_leaving(nkt_udp *udp, nkt_udp *from, const nkt_addr *to, const char *group,
                          const nkt_join_opts *opts) {
    nkt_datagram got;
    CHECK_INT(nkt_udp_set_option(from, NKT_UDP_MULTICAST_INTERFACE, opts->interface_index),
              NKT_OK);
    CHECK_INT(nkt_udp_join(udp, group, opts), 1);
    CHECK_INT(nkt_udp_send(from, "in", 2, to), 2);
    if (CHECK_INT(hear(udp, &got), NKT_OK)) {
        CHECK_MEM(got.data, got.len, "in", 2);
        CHECK(nkt_ip_equal(&got.local, &to->ip));
        CHECK_INT(got.interface_index, opts->interface_index);
    }
    CHECK_INT(nkt_udp_leave(udp, group, opts), NKT_OK);
    CHECK_INT(nkt_udp_leave(udp, group, opts), NKT_ENOTFOUND);
    CHECK_INT(nkt_udp_send(from, "out", 3, to), 3);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_RECV_TIMEOUT_MS, 30), NKT_OK);
    CHECK_INT(hear(udp, &got), NKT_ETIMEDOUT);
    CHECK_INT(nkt_udp_set_option(udp, NKT_UDP_RECV_TIMEOUT_MS, 5000), NKT_OK);
}

// Nobody else of the host has joined: Wine does not hear it either then.
static void test_real_leave(void) {
    nkt_udp *udp = open_real("0.0.0.0:0"), *from = open_real("0.0.0.0:0");
    nkt_join_opts opts;
    char group[NKT_IP_TEXT_MAX];
    nkt_addr to = own_group(udp, "239.255.%d.%d", group, sizeof group);
    memset(&opts, 0, sizeof opts);
    opts.interface_index = loopback_index();
    check_leaving(udp, from, &to, group, &opts);
    check_leaving(udp, from, &to, group, &opts);        // joined again
    nkt_udp_close(udp);
    nkt_udp_close(from);
}

// How many sockets of the host have joined on an interface, by Linux's list;
// -1 where there is none. Under Wine it is there, too.
static int members6(uint32_t index, const nkt_ip *group) {
    char line[256], want[33];
    int found = 0;
    FILE *file = fopen("/proc/net/igmp6", "r");
    if (file == NULL) return -1;
    for (int i = 0; i < 16; i++) snprintf(want + 2 * i, 3, "%02x", group->bytes[i]);
    while (fgets(line, sizeof line, file) != NULL) {
        // The interface's index and name, the group, how many.
        const char *at = strstr(line, want);
        if (at != NULL && strtoul(line, NULL, 10) == index) {
            found = (int)strtol(at + 32, NULL, 10);
        }
    }
    fclose(file);
    return found;
}

// Linux routes no IPv6 group through its loopback interface: there its own list
// says who has joined.
static void test_real_group6(void) {
    nkt_udp_opts udp_opts;
    nkt_join_opts opts;
    char group[NKT_IP_TEXT_MAX];
    nkt_udp *udp = NULL;
    memset(&udp_opts, 0, sizeof udp_opts);
    memset(&opts, 0, sizeof opts);
    udp_opts.env = &p.env;
    if (nkt_udp_open("[::1]:0", &udp_opts, &udp) < 0) {
        TEST_SKIP("no IPv6 here");
        return;
    }
    nkt_udp_close(udp);
    udp = open_real("[::]:0");
    nkt_udp *from = open_real("[::]:0");
    nkt_addr to = own_group(udp, "ff15::77:%x", group, sizeof group);
    uint32_t lo = opts.interface_index = loopback_index();
    if (members6(lo, &to.ip) < 0) {
        check_leaving(udp, from, &to, group, &opts);
    } else {
        CHECK_INT(members6(lo, &to.ip), 0);
        CHECK_INT(nkt_udp_join(udp, group, &opts), 1);
        CHECK_INT(nkt_udp_join(udp, group, &opts), 1);          // it has already
        CHECK_INT(members6(lo, &to.ip), 1);
        CHECK_INT(nkt_udp_join(from, group, &opts), 1);
        CHECK_INT(members6(lo, &to.ip), 2);
        CHECK_INT(nkt_udp_set_option(from, NKT_UDP_MULTICAST_INTERFACE, lo), NKT_OK);
        CHECK_INT(nkt_udp_send(from, "in", 2, &to), NKT_ENETUNREACH);
        CHECK_INT(nkt_udp_leave(udp, group, &opts), NKT_OK);
        CHECK_INT(nkt_udp_leave(udp, group, &opts), NKT_ENOTFOUND);
        CHECK_INT(members6(lo, &to.ip), 1);
    }
    nkt_udp_close(udp);
    nkt_udp_close(from);
    CHECK_RANGE(members6(lo, &to.ip), -1, 0);
}

// Joined for one source, others are not heard. Wine 8 takes the fields of
// ip_mreq_source in Linux's order, the interface for the source: here the
// interface, 127.0.0.1, is heard, and 127.0.0.77 is an address of it, too.
static void test_real_source(void) {
    nkt_udp *udp = open_real("0.0.0.0:0"), *from = open_real("127.0.0.1:0");
    nkt_join_opts opts;
    nkt_datagram got;
    char group[NKT_IP_TEXT_MAX];
    nkt_addr to = own_group(udp, "232.1.%d.%d", group, sizeof group);
    memset(&opts, 0, sizeof opts);
    opts.interface_index = loopback_index();
    opts.source = "127.0.0.1";
    check_leaving(udp, from, &to, group, &opts);
    opts.source = "127.0.0.77";
    CHECK_INT(nkt_udp_join(udp, group, &opts), 1);
    CHECK_INT(nkt_udp_send(from, "not", 3, &to), 3);
    if (!on_wine()) {
        opts.source = "127.0.0.1";
        CHECK_INT(nkt_udp_join(udp, group, &opts), 1);
    }
    CHECK_INT(nkt_udp_send(from, "this", 4, &to), 4);
    CHECK_INT(hear(udp, &got), NKT_OK);
    if (on_wine()) CHECK_MEM(got.data, got.len, "not", 3);
    else CHECK_MEM(got.data, got.len, "this", 4);
    opts.source = "::1";
    CHECK_INT(nkt_udp_join(udp, group, &opts), NKT_EFAMILY);
    nkt_udp_close(udp);
    nkt_udp_close(from);
}

static void test_real_watch(void) {
    nkt_fd fd = NKT_NO_FD;
    const nkt_sys_net *real = nkt_sys_net_default();
    int err = real->watch_open(&p.env, &fd);
#ifdef _WIN32
    CHECK_INT(err, NKT_EUNSUPPORTED);
#else
    CHECK_INT(err, NKT_OK);
    CHECK_INT(real->watch_drain(&p.env, fd), false);
    real->watch_close(&p.env, fd);
#endif
}

int main(void) {
    probe_open(&p);
    TEST("join on every suitable interface, and leave") { test_join(); }
    TEST("join on one, by name and address") { test_named(); }
    TEST("bad groups and sources, told apart") { test_bad_groups(); }
    TEST("source-specific groups") { test_sources(); }
    TEST("joined on all and on one") { test_twofold(); }
    TEST("joins that the system refuses") { test_refused(); }
    TEST("interfaces come and go, with news") { test_coming_and_going(true); }
    TEST("interfaces come and go, without") { test_coming_and_going(false); }
    TEST("a list of interfaces that cannot be had") { test_list_fails(); }
    TEST("nothing but loopback, and nothing at all") { test_alone(); }
    TEST("interfaces come while a poller waits") { test_news_in_poller(); }
    TEST("a poller that refuses to watch for news") { test_watch_refused(); }
    TEST("send to a group, out of every interface") { test_send_group(); }
    TEST("sent from the address that is bound") { test_send_bound(); }
    TEST("what became of each interface") { test_each(); }
    TEST("more interfaces than fit in one go") { test_very_many(); }
    TEST("broadcast to each network") { test_broadcast(); }
    TEST("a group on loopback, three on a port") { test_real_group(); }
    TEST("a group on loopback, left") { test_real_leave(); }
    TEST("an IPv6 group on loopback") { test_real_group6(); }
    TEST("one source of a group on loopback") { test_real_source(); }
    TEST("broadcast on loopback") { test_real_broadcast(); }
    TEST("news of the real interfaces") { test_real_watch(); }
    TEST("nothing is left behind") { probe_close(&p); }
    return test_finish();
}
