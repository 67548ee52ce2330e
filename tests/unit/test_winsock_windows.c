// test_winsock_windows.c - the calls of Windows that Wine does not have
//
// What @sys asks of Winsock beyond the usual, call by call, and the error that
// each gives: none on Windows, and on Wine 8 that of the table, which README
// repeats. So it is known of which of them the other tests, run by Wine, can
// say nothing.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

enum { UDP4, UDP6, TCP4 };

enum {      // not in every SDK
    KEEPIDLE = 3, RECV_TTL = 21, UNICAST_IF = 31, RECV_TOS = 40
};
static const DWORD udp_connreset = 0x9800000c, udp_netreset = 0x9800000f;
static const DWORD keepalive_vals = 0x98000004, tcp_info = 0xd8000027;

static SOCKET socks[3];

// What goes into the calls. The loopback interface has the index 1.
static const int one = 1, hops = 0x2a;
static const unsigned char one_in_network_order[4] = { 0, 0, 0, 1 };
static const unsigned char loopback[4] = { 127, 0, 0, 1 };
static const unsigned char member4[8] = { 239, 1, 2, 3, 127, 0, 0, 1 };
static const unsigned char source4[12] = { 232, 1, 2, 3, 127, 0, 0, 1, 127, 0, 0, 1 };
static struct ipv6_mreq member6;

static const struct {
    const char *name;
    int sock, level, option;
    const void *data;
    int size;
    int wine8;                  // its error there
} options[] = {
    { "TCP_KEEPIDLE", TCP4, IPPROTO_TCP, KEEPIDLE, &hops, 4, WSAENOPROTOOPT },
    { "SO_EXCLUSIVEADDRUSE", UDP4, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, &one, 4, 0 },
    { "IP_TOS", UDP4, IPPROTO_IP, IP_TOS, &hops, 4, 0 },
    { "IPV6_TCLASS", UDP6, IPPROTO_IPV6, IPV6_TCLASS, &hops, 4, WSAENOPROTOOPT },
    { "IP_RECVTTL", UDP4, IPPROTO_IP, RECV_TTL, &one, 4, 0 },
    { "IPV6_HOPLIMIT", UDP6, IPPROTO_IPV6, RECV_TTL, &one, 4, 0 },
    { "IP_RECVTOS", UDP4, IPPROTO_IP, RECV_TOS, &one, 4, 0 },
    { "IPV6_RECVTCLASS", UDP6, IPPROTO_IPV6, RECV_TOS, &one, 4, 0 },
    { "IP_PKTINFO", UDP4, IPPROTO_IP, IP_PKTINFO, &one, 4, 0 },
    { "IPV6_PKTINFO", UDP6, IPPROTO_IPV6, IPV6_PKTINFO, &one, 4, 0 },
    { "IP_DONTFRAGMENT", UDP4, IPPROTO_IP, IP_DONTFRAGMENT, &one, 4, 0 },
    { "IPV6_DONTFRAG", UDP6, IPPROTO_IPV6, IPV6_DONTFRAG, &one, 4, 0 },
    { "IP_UNICAST_IF", UDP4, IPPROTO_IP, UNICAST_IF, one_in_network_order, 4, 0 },
    { "IPV6_UNICAST_IF", UDP6, IPPROTO_IPV6, UNICAST_IF, &one, 4, WSAEINVAL },
    { "IP_MULTICAST_IF", UDP4, IPPROTO_IP, IP_MULTICAST_IF, loopback, 4, 0 },
    { "IPV6_MULTICAST_IF", UDP6, IPPROTO_IPV6, IPV6_MULTICAST_IF, &one, 4, 0 },
    { "IP_MULTICAST_LOOP", UDP4, IPPROTO_IP, IP_MULTICAST_LOOP, &one, 4, 0 },
    { "IPV6_MULTICAST_LOOP", UDP6, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &one, 4, 0 },
    { "IP_ADD_MEMBERSHIP", UDP4, IPPROTO_IP, IP_ADD_MEMBERSHIP, member4, 8, 0 },
    { "IP_DROP_MEMBERSHIP", UDP4, IPPROTO_IP, IP_DROP_MEMBERSHIP, member4, 8, 0 },
    { "IP_ADD_SOURCE_MEMBERSHIP", UDP4, IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, source4, 12, 0 },
    { "IP_DROP_SOURCE_MEMBERSHIP", UDP4, IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, source4, 12, 0 },
    { "IPV6_JOIN_GROUP", UDP6, IPPROTO_IPV6, IPV6_JOIN_GROUP, &member6, sizeof member6, 0 },
    { "IPV6_LEAVE_GROUP", UDP6, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &member6, sizeof member6, 0 },
};

// "8.0" and so on; NULL on Windows.
static const char *wine_version(void) {
    const char *(*get)(void);
    FARPROC found = GetProcAddress(GetModuleHandleA("ntdll.dll"), "wine_get_version");
    if (found == NULL) return NULL;
    memcpy(&get, &found, sizeof get);
    return get();
}

static void check_error(const char *name, bool failed, int wine8) {
    const char *version = wine_version();
    int err = failed ? WSAGetLastError() : 0;
    // Another Wine has learned it, or has not.
    bool is_8 = version != NULL && strncmp(version, "8.", 2) == 0;
    bool is_well = err == (is_8 ? wine8 : 0) || (version != NULL && !is_8 && err == wine8);
    if (!CHECK(is_well)) printf("    %s gives %d\n", name, err);
}

static void check_control(const char *name, int sock, DWORD code, const void *in, size_t size,
                          int wine8) {
    char out[256];
    DWORD got = 0;
    int result = WSAIoctl(socks[sock], code, (void *)(uintptr_t)in, (DWORD)size, out, sizeof out,
                          &got, NULL, NULL);
    check_error(name, result != 0, wine8);
}

static void test_controls(void) {
    const ULONG settings[3] = { 1, 10000, 1000 };
    const BOOL off = FALSE;
    const DWORD version = 0;
    const GUID id = WSAID_WSARECVMSG;
    // Wine takes the first and does nothing (test_udp.c).
    check_control("SIO_UDP_CONNRESET", UDP4, udp_connreset, &off, sizeof off, 0);
    check_control("SIO_UDP_NETRESET", UDP4, udp_netreset, &off, sizeof off, WSAEOPNOTSUPP);
    check_control("SIO_TCP_INFO", TCP4, tcp_info, &version, sizeof version, WSAEOPNOTSUPP);
    check_control("SIO_KEEPALIVE_VALS", TCP4, keepalive_vals, settings, sizeof settings, 0);
    check_control("WSARecvMsg", UDP4, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof id, 0);
}

static void test_options(void) {
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        int result = setsockopt(socks[options[i].sock], options[i].level, options[i].option,
                                (const char *)options[i].data, options[i].size);
        check_error(options[i].name, result != 0, options[i].wine8);
    }
}

static void test_opening(void) {
    const DWORD no_inherit = 0x80;      // WSA_FLAG_NO_HANDLE_INHERIT
    SOCKET made = socket(1, SOCK_STREAM, 0);
    check_error("AF_UNIX", made == INVALID_SOCKET, WSAEAFNOSUPPORT);
    if (made != INVALID_SOCKET) closesocket(made);
    made = WSASocketW(AF_INET, SOCK_STREAM, 0, NULL, 0, WSA_FLAG_OVERLAPPED | no_inherit);
    check_error("WSA_FLAG_NO_HANDLE_INHERIT", made == INVALID_SOCKET, 0);
    if (made != INVALID_SOCKET) closesocket(made);
}

int main(void) {
    nkt_listener *listener = NULL;
    nkt_conn *near_end = NULL, *far_end = NULL;
    nkt_addr where;
    nkt_ip group;
    TEST("sockets to ask") {
        // This also starts Winsock.
        CHECK_INT(nkt_listen("127.0.0.1:0", NULL, &listener), NKT_OK);
        CHECK_INT(nkt_listener_local(listener, &where), NKT_OK);
        CHECK_INT(nkt_connect_addr(&where, NULL, &near_end), NKT_OK);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
        socks[TCP4] = (SOCKET)nkt_conn_descriptor(near_end);
        socks[UDP4] = socket(AF_INET, SOCK_DGRAM, 0);
        socks[UDP6] = socket(AF_INET6, SOCK_DGRAM, 0);
        CHECK(socks[UDP4] != INVALID_SOCKET && socks[UDP6] != INVALID_SOCKET);
        CHECK_INT(nkt_ip_parse("ff15::77", &group), NKT_OK);
        memcpy(&member6.ipv6mr_multiaddr, group.bytes, 16);
        member6.ipv6mr_interface = 1;
    }
    TEST("controls") { test_controls(); }
    TEST("options") { test_options(); }
    TEST("kinds of socket") { test_opening(); }
    closesocket(socks[UDP4]);
    closesocket(socks[UDP6]);
    nkt_conn_close(near_end);
    nkt_conn_close(far_end);
    nkt_listener_close(listener);
    return test_finish();
}
