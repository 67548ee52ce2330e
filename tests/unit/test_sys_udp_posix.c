// test_sys_udp_posix.c - datagrams at the border of the system, and interfaces
//
// The system's functions are replaced: what netkit hands them is written down,
// and they answer what the test says. So every control message, every refusal
// and every kind of interface is there, whatever the host has. Only @sys.udp
// and @sys.net are tested here, by their tables of functions.

#ifndef _GNU_SOURCE
    #define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#ifdef __linux__
    #include <sys/syscall.h>
#endif

#include "nkt_test.h"

#ifndef __linux__

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

int main(void) {
    TEST("datagrams at the border of the system") {
        TEST_SKIP("control messages are written down as Linux has them");
    }
    return test_finish();
}

#else

// What came with a setsockopt, and which calls fail: the bits of `refuse`, the
// first call's the lowest.
static struct {
    int calls, level[8], name[8], value[8], err;
    unsigned refuse;
    unsigned char bytes[8][512];
} options;

static int refused(void) {
    int call = options.calls++;
    if ((options.refuse >> call & 1) == 0) return 0;
    errno = options.err;
    return -1;
}

static int sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    int at = options.calls & 7;
    (void)fd;
    options.level[at] = level;
    options.name[at] = name;
    options.value[at] = -1;
    memset(options.bytes[at], 0, sizeof options.bytes[at]);
    memcpy(options.bytes[at], value, len < sizeof options.bytes[at] ? len : 0);
    if (len == sizeof(int)) memcpy(&options.value[at], value, sizeof(int));
    if (len == 1) options.value[at] = *(const unsigned char *)value;
    return refused();
}

static int sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    int at = options.calls & 7, number = 1400 + options.calls;
    (void)fd;
    (void)len;
    options.level[at] = level;
    options.name[at] = name;
    memcpy(value, &number, sizeof number);
    return refused();
}

// What was sent: one message, with its control messages.
static struct {
    int err, calls, has_name;
    size_t control_len;
    unsigned char control[256];
} outgoing;

static ssize_t sys_sendmsg(int fd, const struct msghdr *message, int flags) {
    (void)fd;
    (void)flags;
    outgoing.calls++;
    outgoing.has_name = message->msg_namelen > 0;
    outgoing.control_len = message->msg_controllen;
    if (message->msg_controllen > 0) {
        memcpy(outgoing.control, message->msg_control, message->msg_controllen);
    }
    if (outgoing.err != 0) {
        errno = outgoing.err;
        return -1;
    }
    return 1;
}

// What is received: these control messages.
static struct {
    int err;
    struct sockaddr_storage name;
    socklen_t name_len;
    size_t control_len;
    union { size_t align; unsigned char room[192]; } control;
} incoming;

static ssize_t sys_recvmsg(int fd, struct msghdr *message, int flags) {
    (void)fd;
    (void)flags;
    if (incoming.err != 0) {
        errno = incoming.err;
        return -1;
    }
    memcpy(message->msg_name, &incoming.name, incoming.name_len);
    message->msg_namelen = incoming.name_len;
    memcpy(message->msg_control, incoming.control.room, incoming.control_len);
    message->msg_controllen = incoming.control_len;
    message->msg_flags = 0;
    return 1;
}

// sendmmsg: answers from a list, and the shape of each call: "64*64 1" is a
// message of 64 segments and one of a single datagram.
static struct {
    int calls, answers[4];          // below zero: an errno
    int parts[4], messages[4], segmented[4];
} many;

typedef struct many_header {
    struct msghdr head;
    unsigned int len;
} many_header;

static long sys_syscall(long number, ...) {
    va_list args;
    va_start(args, number);
    (void)va_arg(args, int);
    many_header *list = va_arg(args, many_header *);
    unsigned count = va_arg(args, unsigned);
    va_end(args);
    int at = many.calls++ & 3;
    many.messages[at] = (int)count;
    many.parts[at] = many.segmented[at] = 0;
    for (unsigned i = 0; i < count; i++) {
        many.parts[at] += (int)list[i].head.msg_iovlen;
        many.segmented[at] += list[i].head.msg_controllen > 0;
    }
    if (many.answers[at] >= 0) return many.answers[at];
    errno = -many.answers[at];
    return -1;
}

static struct ifaddrs *interfaces;
static int interfaces_err, freed;

static int sys_getifaddrs(struct ifaddrs **list) {
    if (interfaces_err != 0) {
        errno = interfaces_err;
        return -1;
    }
    *list = interfaces;
    return 0;
}

static void sys_freeifaddrs(struct ifaddrs *list) {
    freed += list == interfaces;
}

static unsigned sys_if_nametoindex(const char *name) {
    return name[0] == 'c' ? (unsigned)(name[1] - '0') : 0;
}

static int socket_err, bind_err, tidings[8], tidings_at;

static int sys_socket(int family, int type, int protocol) {
    if (socket_err == 0) return socket(family, type, protocol);
    errno = socket_err;
    return -1;
}

static int sys_bind(int fd, const struct sockaddr *addr, socklen_t len) {
    if (bind_err == 0) return bind(fd, addr, len);
    errno = bind_err;
    return -1;
}

static ssize_t sys_recv(int fd, void *buf, size_t cap, int flags) {
    int answer = tidings[tidings_at++];
    (void)fd;
    (void)buf;
    (void)cap;
    (void)flags;
    if (answer >= 0) return answer;
    errno = -answer;
    return -1;
}

#define setsockopt sys_setsockopt
#define getsockopt sys_getsockopt
#define sendmsg sys_sendmsg
#define recvmsg sys_recvmsg
#define syscall sys_syscall
#define getifaddrs sys_getifaddrs
#define freeifaddrs sys_freeifaddrs
#define if_nametoindex sys_if_nametoindex
#define socket sys_socket
#define bind sys_bind
#define recv sys_recv

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

static const nkt_sys_udp *udp;
static const nkt_sys_net *net;
static nkt_env env;

enum { FD = 3, SEGMENT = 103, RECVERR4 = 11, RECVERR6 = 25 };

static nkt_ip ip_of(const char *text) {
    nkt_ip ip;
    memset(&ip, 0, sizeof ip);
    CHECK_INT(nkt_ip_parse(text, &ip), NKT_OK);
    return ip;
}

static void refuse(unsigned calls, int err) {
    options.calls = 0;
    options.refuse = calls;
    options.err = err;
}

static void test_options(void) {
    static const struct { int family; unsigned refuse; int want, calls; } rows[] = {
        { 0, 0, NKT_OK, 2 }, { NKT_IPV4, 0, NKT_OK, 1 }, { NKT_IPV6, 0, NKT_OK, 1 },
        { 0, 1, NKT_EACCES, 1 }, { 0, 2, NKT_EACCES, 2 }, { NKT_IPV4, 1, NKT_EACCES, 1 },
        { NKT_IPV6, 1, NKT_EACCES, 1 },
    };
    static const int names[] = { NKT_UDP_HOPS, NKT_UDP_MULTICAST_HOPS, NKT_UDP_TRAFFIC_CLASS,
                                 NKT_UDP_LOOPBACK, NKT_UDP_ICMP_ERRORS };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
            refuse(rows[i].refuse, EPERM);
            CHECK_INT(udp->set_option(&env, FD, rows[i].family, names[k], 1), rows[i].want);
            CHECK_INT(options.calls, rows[i].calls);
            CHECK_INT(options.level[0], rows[i].family == NKT_IPV4 ? IPPROTO_IP : IPPROTO_IPV6);
            CHECK_INT(options.value[options.calls - 1], 1);
        }
    }
    refuse(0, 0);
    CHECK_INT(udp->set_option(&env, FD, 0, 9999, 1), NKT_EUNSUPPORTED);
    CHECK_INT(udp->set_option(&env, FD, 0, NKT_UDP_ICMP_ERRORS, 2), NKT_OK);
    CHECK_INT(udp->set_option(&env, FD, 0, NKT_UDP_REUSE, 0), NKT_OK);
    CHECK_INT(options.calls, 0);
    // Facts that the system does not tell stay unknown.
    refuse(~0u, ENOPROTOOPT);
    CHECK_INT(udp->set_option(&env, FD, 0, NKT_UDP_FACTS, 1), NKT_OK);
}

static void test_path_mtu(void) {
    static const struct { int family; unsigned refuse; int want, value, calls; } rows[] = {
        { NKT_IPV4, 0, NKT_OK, 1400, 1 }, { NKT_IPV6, 0, NKT_OK, 1400, 1 },
        { 0, 0, NKT_OK, 1400, 1 }, { 0, 1, NKT_OK, 1401, 2 },
        { 0, 3, NKT_ENOTCONN, -1, 2 }, { NKT_IPV6, 1, NKT_ENOTCONN, -1, 1 },
        { NKT_IPV4, 1, NKT_ENOTCONN, -1, 1 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t value = -1;
        refuse(rows[i].refuse, ENOTCONN);
        CHECK_INT(udp->get_option(&env, FD, rows[i].family, NKT_UDP_PATH_MTU, &value),
                  rows[i].want);
        CHECK_INT(value, rows[i].value);
        CHECK_INT(options.calls, rows[i].calls);
        CHECK_INT(udp->get_option(&env, FD, rows[i].family, NKT_UDP_HOPS, &value),
                  NKT_EUNSUPPORTED);
        CHECK_INT(options.calls, rows[i].calls);
    }
}

// The control message of this level and type among what was sent, or NULL.
static const unsigned char *sent_control(int level, int type, size_t len) {
    struct cmsghdr head;
    for (size_t at = 0; at + sizeof head <= outgoing.control_len; at += CMSG_ALIGN(head.cmsg_len)) {
        memcpy(&head, outgoing.control + at, sizeof head);
        if (head.cmsg_level == level && head.cmsg_type == type) {
            CHECK_INT(head.cmsg_len, CMSG_LEN(len));
            return outgoing.control + at + CMSG_LEN(0);
        }
    }
    return NULL;
}

// What goes beside a datagram: by the address it goes to, or by the socket's
// family where it is connected, or by the address it is to come from.
static void test_control(void) {
    static const struct { int family; const char *to, *from; uint32_t index; int class_of;
                          bool info4, info6, class4, class6; } rows[] = {
        { 0, "2001:db8::1", "2001:db8::9", 7, 0, false, true, false, false },
        { 0, "2001:db8::1", NULL, 7, 0, false, true, false, false },
        { 0, "2001:db8::1", NULL, 0, 40, false, false, false, true },
        { 0, "192.0.2.1", "192.0.2.9", 7, 40, true, false, true, false },
        { NKT_IPV4, NULL, NULL, 7, 40, true, false, true, false },
        { NKT_IPV6, NULL, NULL, 7, 40, false, true, false, true },
        { NKT_IPV4, "192.0.2.1", NULL, 7, 0, true, false, false, false },
        { 0, NULL, "192.0.2.9", 0, 0, true, false, false, false },
        { 0, NULL, "2001:db8::9", 0, 40, false, true, false, true },
        { 0, NULL, NULL, 0, 40, false, false, true, true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nkt_datagram datagram;
        bool segments = false;
        struct in_pktinfo info4;
        struct { uint8_t addr[16]; uint32_t index; } info6;
        memset(&datagram, 0, sizeof datagram);
        memset(&outgoing, 0, sizeof outgoing);
        datagram.data = (void *)(uintptr_t)"x";
        datagram.len = 1;
        datagram.interface_index = rows[i].index;
        datagram.traffic_class = rows[i].class_of;
        if (rows[i].to != NULL) datagram.addr.ip = ip_of(rows[i].to);
        if (rows[i].from != NULL) datagram.local = ip_of(rows[i].from);
        CHECK_INT(udp->send(&env, FD, rows[i].family, &datagram, 1, &segments), 1);
        CHECK_INT(outgoing.calls, 1);
        CHECK_INT(outgoing.has_name, rows[i].to != NULL);
        const unsigned char *four = sent_control(IPPROTO_IP, IP_PKTINFO, sizeof info4);
        const unsigned char *six = sent_control(IPPROTO_IPV6, IPV6_PKTINFO, sizeof info6);
        const unsigned char *tos = sent_control(IPPROTO_IP, IP_TOS, sizeof(int));
        const unsigned char *tclass = sent_control(IPPROTO_IPV6, IPV6_TCLASS, sizeof(int));
        bool good = CHECK_INT(four != NULL, rows[i].info4) && CHECK_INT(six != NULL, rows[i].info6);
        good = CHECK_INT(tos != NULL, rows[i].class4) && good;
        if (!CHECK_INT(tclass != NULL, rows[i].class6) || !good) printf("  row %d\n", (int)i);
        if (four != NULL) {
            memcpy(&info4, four, sizeof info4);
            CHECK_INT(info4.ipi_ifindex, rows[i].index);
            CHECK_MEM(&info4.ipi_spec_dst, 4, datagram.local.bytes, 4);
        }
        if (six != NULL) {
            memcpy(&info6, six, sizeof info6);
            CHECK_INT(info6.index, rows[i].index);
            CHECK_MEM(info6.addr, 16, datagram.local.bytes, 16);
        }
        outgoing.err = ENETUNREACH;
        CHECK_INT(udp->send(&env, FD, rows[i].family, &datagram, 1, &segments), NKT_ENETUNREACH);
    }
}

static void came(int level, int type, const void *data, size_t len) {
    struct cmsghdr head;
    memset(&head, 0, sizeof head);
    head.cmsg_len = CMSG_LEN(len);
    head.cmsg_level = level;
    head.cmsg_type = type;
    memcpy(incoming.control.room + incoming.control_len, &head, sizeof head);
    memcpy(incoming.control.room + incoming.control_len + CMSG_LEN(0), data, len);
    incoming.control_len += CMSG_SPACE(len);
}

static void came_from(const char *text) {
    nkt_ip ip = ip_of(text);
    nkt_addr addr = nkt_addr_make(&ip, 4711);
    memset(&incoming, 0, sizeof incoming);
    incoming.name_len = (socklen_t)nkt_addr_to_sockaddr(&addr, &incoming.name,
                                                        sizeof incoming.name);
}

static nkt_datagram receive(void) {
    static char byte;
    nkt_datagram datagram;
    memset(&datagram, 0, sizeof datagram);
    datagram.data = &byte;
    datagram.cap = 1;
    datagram.hops = datagram.traffic_class = -1;
    CHECK_INT(udp->recv(&env, FD, 0, &datagram, 1, true), 1);
    return datagram;
}

static void test_facts(void) {
    struct in_pktinfo info4;
    struct { uint8_t addr[16]; uint32_t index; } info6;
    nkt_ip ip = ip_of("192.0.2.9");
    const unsigned char byte = 44;
    int number = 33;
    memset(&info4, 0, sizeof info4);
    info4.ipi_ifindex = 7;
    memcpy(&info4.ipi_addr, ip.bytes, 4);
    came_from("192.0.2.1");
    came(IPPROTO_IP, IP_PKTINFO, &info4, sizeof info4);
    came(IPPROTO_IP, IP_TTL, &number, sizeof number);
    came(IPPROTO_IP, IP_TOS, &byte, 1);         // Linux tells the class in one byte
    came(NKTI_SOL_UDP, NKTI_UDP_GRO, &number, sizeof number);
    nkt_datagram got = receive();
    CHECK(nkt_ip_equal(&got.local, &ip));
    CHECK_INT(got.addr.port, 4711);
    CHECK_INT(got.interface_index, 7);
    CHECK_INT(got.hops, 33);
    CHECK_INT(got.traffic_class, 44);
    CHECK_INT(got.segment, 33);
    // Too short, unknown, and of no length: overlooked.
    number = 0;
    came_from("2001:db8::1");
    came(IPPROTO_IP, IP_PKTINFO, &info4, sizeof info4 - 1);
    came(IPPROTO_IPV6, IPV6_PKTINFO, &info4, sizeof info4);
    came(NKTI_SOL_UDP, NKTI_UDP_GRO, &number, sizeof number);
    came(NKTI_SOL_UDP, 77, &byte, 1);
    came(IPPROTO_IPV6, IPV6_HOPLIMIT, &byte, 0);
    came(SOL_SOCKET, 78, &byte, 1);
    got = receive();
    CHECK_INT(got.local.family, 0);
    CHECK_INT(got.interface_index, 0);
    CHECK_INT(got.hops, 0);
    CHECK_INT(got.traffic_class, -1);
    CHECK_INT(got.segment, 0);
    // An address whose interface is not told.
    memset(&info6, 0, sizeof info6);
    ip = ip_of("2001:db8::9");
    memcpy(info6.addr, ip.bytes, 16);
    came_from("2001:db8::1");
    came(IPPROTO_IPV6, IPV6_PKTINFO, &info6, sizeof info6);
    got = receive();
    CHECK(nkt_ip_equal(&got.local, &ip));
    CHECK_INT(got.interface_index, 0);
    // A sender of a kind that is not known, and none.
    incoming.name.ss_family = AF_UNIX;
    got = receive();
    CHECK_INT(got.addr.ip.family, 0);
    CHECK_INT(got.addr.port, 0);
    incoming.name.ss_family = AF_INET;
    incoming.name_len = 3;
    got = receive();
    CHECK_INT(got.addr.ip.family, 0);
}

// ICMP errors of both families, among other messages.
static void test_errors(void) {
    struct { uint32_t os_error; uint8_t origin, type, code, pad; uint32_t info, data; } what;
    nkt_addr to;
    nkt_ip ip;
    memset(&what, 0, sizeof what);
    came_from("192.0.2.1");
    what.os_error = ECONNREFUSED;
    came(IPPROTO_IP, IP_TTL, "abcd", 4);
    came(IPPROTO_IP, RECVERR4, &what, sizeof what);
    came(SOL_SOCKET, RECVERR4, "abcd", 4);
    CHECK_INT(udp->next_error(&env, FD, &to), NKT_EREFUSED);
    ip = ip_of("192.0.2.1");
    CHECK(nkt_ip_equal(&to.ip, &ip));
    came_from("2001:db8::1");
    what.os_error = EHOSTUNREACH;
    came(IPPROTO_IPV6, IPV6_HOPLIMIT, "abcd", 4);
    came(IPPROTO_IPV6, RECVERR6, &what, sizeof what);
    CHECK_INT(udp->next_error(&env, FD, &to), NKT_EHOSTUNREACH);
    ip = ip_of("2001:db8::1");
    CHECK(nkt_ip_equal(&to.ip, &ip));
    incoming.err = EAGAIN;
    CHECK_INT(udp->next_error(&env, FD, &to), NKT_EAGAIN);
}

static nkt_datagram list[600];

static void fill(int count, uint32_t len, ptrdiff_t apart) {
    static char room[600 * 64];
    nkt_ip ip = ip_of("192.0.2.1");
    memset(list, 0, sizeof list);
    for (int i = 0; i < count; i++) {
        list[i].data = room + i * apart;
        list[i].len = len;
        list[i].addr = nkt_addr_make(&ip, 9);
    }
}

static int send_list(int count, bool *segments, int first, int second) {
    memset(&many, 0, sizeof many);
    many.answers[0] = first;
    many.answers[1] = second;
    return udp->send(&env, FD, NKT_IPV4, list, count, segments);
}

// A way out that cannot cut up segments is asked without, and remembered where
// it is sure.
static void test_refused_segments(void) {
    static const struct { int first, second, want, calls; bool left; } rows[] = {
        { -EIO, 3, 3, 2, false }, { -EINVAL, 3, 3, 2, true }, { -EMSGSIZE, 2, 2, 2, true },
        { -ENOPROTOOPT, 3, 3, 2, true }, { -ENETUNREACH, 3, NKT_ENETUNREACH, 1, true },
        { -EINVAL, -EINVAL, NKT_EINVAL, 2, true }, { -EAGAIN, 0, NKT_EAGAIN, 1, true },
        { 0, 0, NKT_EOS, 2, false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool segments = true;
        fill(3, 8, 64);
        if (!CHECK_INT(send_list(3, &segments, rows[i].first, rows[i].second), rows[i].want)) {
            printf("  row %d\n", (int)i);
        }
        CHECK_INT(many.calls, rows[i].calls);
        CHECK_INT(segments, rows[i].left);
        CHECK_INT(many.messages[0], 1);
        CHECK_INT(many.segmented[0], 1);
        if (rows[i].calls == 1) continue;
        CHECK_INT(many.messages[1], 3);
        CHECK_INT(many.segmented[1], 0);
    }
    // Nothing of it was a run, so nothing is gained by asking again.
    bool segments = true;
    fill(2, 0, 64);
    CHECK_INT(send_list(2, &segments, -EINVAL, 2), NKT_EINVAL);
    CHECK_INT(many.calls, 1);
}

// What leaves together, and what breaks a run.
static void test_runs(void) {
    bool segments = true;
    fill(600, 8, 64);
    CHECK_INT(send_list(600, &segments, 8, 0), 512);    // 64 parts in each of 8 messages
    CHECK_INT(many.messages[0], 8);
    CHECK_INT(many.parts[0], 512);
    fill(600, 8, 8);                                    // back to back: a part each
    CHECK_INT(send_list(600, &segments, 10, 0), 600);
    CHECK_INT(many.parts[0], 10);
    fill(60, 1452, 0);                                  // 44 of them are 63,888 bytes
    CHECK_INT(send_list(60, &segments, 1, 0), 44);
    CHECK_INT(many.messages[0], 2);
    static const struct { int kind, messages; } rows[] = {
        { 0, 1 }, { 1, 2 }, { 2, 2 }, { 3, 2 }, { 4, 2 }, { 5, 2 }, { 6, 2 }, { 7, 3 }, { 8, 4 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fill(4, 8, 64);
        switch (rows[i].kind) {
        case 1: list[3].addr.port = list[2].addr.port = 10; break;
        case 2: list[3].interface_index = list[2].interface_index = 7; break;
        case 3: list[3].traffic_class = list[2].traffic_class = 4; break;
        case 4: list[3].local = list[2].local = ip_of("192.0.2.9"); break;
        case 5: list[1].len = 4; break;                 // a shorter one is the last
        case 6: list[2].len = list[3].len = 16; break;  // a longer one is not of it
        case 7: list[2].len = 0; break;
        case 8: for (int k = 0; k < 4; k++) list[k].len = 1453; break;
        default: break;
        }
        CHECK_INT(send_list(4, &segments, 1, 0) > 0, 1);
        if (!CHECK_INT(many.messages[0], rows[i].messages)) printf("  row %d\n", (int)i);
    }
    // To the connected peer there is no name.
    fill(4, 8, 64);
    for (int i = 0; i < 4; i++) memset(&list[i].addr, 0, sizeof list[i].addr);
    CHECK_INT(send_list(4, &segments, 1, 0), 4);
    // The name of the peer before is used again, and another's is not.
    segments = false;
    fill(4, 8, 64);
    memset(&list[1].addr, 0, sizeof list[1].addr);
    list[3].addr.port = 10;
    CHECK_INT(send_list(4, &segments, 4, 0), 4);
    CHECK_INT(many.messages[0], 4);
    many.answers[1] = -ENOBUFS;
    nkt_datagram got[2];
    memset(got, 0, sizeof got);
    CHECK_INT(udp->recv(&env, FD, 0, got, 2, true), NKT_ENOMEM);
}

static void test_members(void) {
    static const struct { const char *group, *source; bool join; int level, name; } rows[] = {
        { "239.1.1.1", NULL, true, IPPROTO_IP, MCAST_JOIN_GROUP },
        { "239.1.1.1", NULL, false, IPPROTO_IP, MCAST_LEAVE_GROUP },
        { "ff15::1", NULL, true, IPPROTO_IPV6, MCAST_JOIN_GROUP },
        { "ff15::1", NULL, false, IPPROTO_IPV6, MCAST_LEAVE_GROUP },
        { "232.1.1.1", "192.0.2.1", true, IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP },
        { "232.1.1.1", "192.0.2.1", false, IPPROTO_IP, MCAST_LEAVE_SOURCE_GROUP },
        { "ff35::1", "2001:db8::1", true, IPPROTO_IPV6, MCAST_JOIN_SOURCE_GROUP },
        { "ff35::1", "2001:db8::1", false, IPPROTO_IPV6, MCAST_LEAVE_SOURCE_GROUP },
    };
    nkt_ip local;
    memset(&local, 0, sizeof local);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nkt_ip group = ip_of(rows[i].group), source;
        struct group_source_req request;
        nkt_addr addr;
        memset(&source, 0, sizeof source);
        if (rows[i].source != NULL) source = ip_of(rows[i].source);
        refuse(0, 0);
        CHECK_INT(udp->member(&env, FD, &group, &source, 7, &local, rows[i].join), NKT_OK);
        CHECK_INT(options.level[0], rows[i].level);
        CHECK_INT(options.name[0], rows[i].name);
        memcpy(&request, options.bytes[0], sizeof request);
        CHECK_INT(request.gsr_interface, 7);
        CHECK(nkt_addr_from_sockaddr(&request.gsr_group, sizeof request.gsr_group, &addr) >= 0);
        CHECK(nkt_ip_equal(&addr.ip, &group));
        if (rows[i].source != NULL) {
            CHECK(nkt_addr_from_sockaddr(&request.gsr_source, sizeof request.gsr_source,
                                         &addr) >= 0);
            CHECK(nkt_ip_equal(&addr.ip, &source));
        }
        refuse(1, ENOBUFS);
        CHECK_INT(udp->member(&env, FD, &group, &source, 7, &local, rows[i].join), NKT_ENOMEM);
    }
}

//------------------------------------------------------------------------------
// Interfaces

typedef struct address {
    struct sockaddr_storage own, mask, other;
} address;

static struct sockaddr *name_of(struct sockaddr_storage *to, const char *text) {
    nkt_ip ip = ip_of(text);
    nkt_addr addr = nkt_addr_make(&ip, 0);
    CHECK(nkt_addr_to_sockaddr(&addr, to, sizeof *to) > 0);
    return (struct sockaddr *)(void *)to;
}

static void test_interfaces(void) {
    enum { ON = IFF_UP | IFF_RUNNING, COUNT = 9 };
    static const struct { const char *name; unsigned flags; const char *own, *mask, *other;
                          uint32_t index, told, bits; bool peer; } rows[COUNT] = {
        { "c1", ON | IFF_LOOPBACK, "127.0.0.1", "255.0.0.0", NULL, 1,
          NKT_IFACE_UP | NKT_IFACE_LOOPBACK, 8, false },
        { "c1", ON | IFF_LOOPBACK, "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL, 1,
          NKT_IFACE_UP | NKT_IFACE_LOOPBACK, 128, false },
        { "c2", ON | IFF_MULTICAST | IFF_BROADCAST, "192.0.2.9", "255.255.255.128", "192.0.2.127",
          2, NKT_IFACE_UP | NKT_IFACE_MULTICAST | NKT_IFACE_BROADCAST, 25, false },
        { "c3", IFF_UP, "192.0.2.10", NULL, NULL, 3, 0, 0, false },         // no cable
        { "c4", IFF_RUNNING, NULL, NULL, NULL, 4, 0, 0, false },            // down
        { "c5", ON | IFF_POINTOPOINT, "10.0.0.1", "255.255.255.255", "10.0.0.2", 5,
          NKT_IFACE_UP | NKT_IFACE_POINT_TO_POINT, 32, true },
        { "c6", ON | IFF_POINTOPOINT, "10.0.0.3", "255.255.255.255", "10.0.0.3", 6,
          NKT_IFACE_UP | NKT_IFACE_POINT_TO_POINT, 32, false },             // WireGuard's way
        { "c7", ON | IFF_POINTOPOINT, "10.0.0.4", "255.255.255.255", NULL, 7,
          NKT_IFACE_UP | NKT_IFACE_POINT_TO_POINT, 32, false },
        { "gone", ON, "192.0.2.11", NULL, NULL, 0, 0, 0, false },
    };
    static address room[COUNT];
    static struct ifaddrs links[COUNT + 1];
    nkt_sys_iface got[COUNT + 1];
    memset(links, 0, sizeof links);
    for (int i = 0; i < COUNT; i++) {
        links[i].ifa_next = &links[i + 1];
        links[i].ifa_name = (char *)(uintptr_t)rows[i].name;
        links[i].ifa_flags = rows[i].flags;
        if (rows[i].own != NULL) links[i].ifa_addr = name_of(&room[i].own, rows[i].own);
        if (rows[i].mask != NULL) links[i].ifa_netmask = name_of(&room[i].mask, rows[i].mask);
        if (rows[i].other != NULL) links[i].ifa_dstaddr = name_of(&room[i].other, rows[i].other);
    }
    // A link-layer address, whose row says only that there is a card.
    struct sockaddr packet;
    memset(&packet, 0, sizeof packet);
    packet.sa_family = AF_PACKET;
    links[COUNT].ifa_name = (char *)(uintptr_t)"c8";
    links[COUNT].ifa_addr = &packet;
    interfaces = links;
    memset(got, 0xaa, sizeof got);
    CHECK_INT(net->list(&env, got, COUNT + 1), COUNT);
    for (int i = 0; i < COUNT - 1; i++) {
        nkt_ip own, peer;
        memset(&own, 0, sizeof own);
        memset(&peer, 0, sizeof peer);
        if (rows[i].own != NULL) own = ip_of(rows[i].own);
        if (rows[i].peer) peer = ip_of(rows[i].other);
        CHECK_INT(got[i].index, rows[i].index);
        CHECK_INT(got[i].flags, rows[i].told);
        CHECK_INT(got[i].bits, rows[i].bits);
        CHECK(nkt_ip_equal(&got[i].ip, &own));
        if (!CHECK(nkt_ip_equal(&got[i].peer, &peer))) printf("  row %d\n", i);
    }
    CHECK_INT(got[COUNT - 1].index, 8);
    CHECK_INT(got[COUNT - 1].ip.family, 0);
    // How many there are is told though they do not fit.
    memset(got, 0xaa, sizeof got);
    CHECK_INT(net->list(&env, got, 1), COUNT);
    CHECK_INT(got[0].index, 1);
    CHECK_INT(got[1].index, 0xaaaaaaaa);
    CHECK_INT(freed, 2);
    interfaces_err = ENOMEM;
    CHECK_INT(net->list(&env, got, 1), NKT_ENOMEM);
    CHECK_INT(freed, 2);
}

static void test_news(void) {
    static const struct { int answers[4]; bool told; int calls; } rows[] = {
        { { -EAGAIN }, false, 1 }, { { 0 }, false, 1 }, { { 20, -EAGAIN }, true, 2 },
        { { -ENOBUFS, -EAGAIN }, true, 2 }, { { -EINTR, 9, -EAGAIN }, true, 3 },
        { { -EBADF }, true, 1 },
    };
    nkt_fd fd = NKT_NO_FD;
    socket_err = EMFILE;
    CHECK_INT(net->watch_open(&env, &fd), NKT_EMFILE);
    socket_err = 0;
    bind_err = EPERM;
    CHECK_INT(net->watch_open(&env, &fd), NKT_EACCES);
    CHECK_INT(fd, NKT_NO_FD);
    bind_err = 0;
    CHECK_INT(net->watch_open(&env, &fd), NKT_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        memcpy(tidings, rows[i].answers, sizeof rows[i].answers);
        tidings_at = 0;
        CHECK_INT(net->watch_drain(&env, fd), rows[i].told);
        if (!CHECK_INT(tidings_at, rows[i].calls)) printf("  row %d\n", (int)i);
    }
    net->watch_close(&env, fd);
}

int main(void) {
    CHECK_INT(nkt_env_init(&env), NKT_OK);
    udp = nkt_sys_udp_default();
    net = nkt_sys_net_default();
    TEST("options under both families' names, and refused") { test_options(); }
    TEST("the MTU of the path, by either name") { test_path_mtu(); }
    TEST("what goes beside a datagram") { test_control(); }
    TEST("what comes beside one") { test_facts(); }
    TEST("ICMP errors of both families") { test_errors(); }
    TEST("segments that the way out does not cut up") { test_refused_segments(); }
    TEST("what leaves as one message") { test_runs(); }
    TEST("groups, with and without a source") { test_members(); }
    TEST("interfaces of every kind") { test_interfaces(); }
    TEST("news of interfaces") { test_news(); }
    nkt_env_free(&env);
    return test_finish();
}

#endif
