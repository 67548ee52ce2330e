// fuzz_sockaddr.c - any bytes as a struct sockaddr, and any nkt_addr as one
//
// The first byte chooses the family, so that not all are refused: the others
// are the structure as the system might hand it over, of any length.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "text.h"

static void check_back(const nkt_addr *addr) {
    union { struct sockaddr any; uint8_t room[NKT_SOCKADDR_MAX]; } name;
    nkt_addr again;
    int len = nkt_addr_to_sockaddr(addr, &name, sizeof name);
    int want = addr->ip.family == NKT_IPV4 ? (int)sizeof(struct sockaddr_in)
                                           : (int)sizeof(struct sockaddr_in6);
    if (!FUZZ(len == want)) return;
    FUZZ(nkt_addr_from_sockaddr(&name, (size_t)len, &again) == NKT_OK);
    FUZZ(nkt_addr_equal(addr, &again));
    for (int cap = 0; cap < len; cap++) {
        memset(&name, '#', sizeof name);
        FUZZ(nkt_addr_to_sockaddr(addr, &name, (size_t)cap) == NKT_ENOSPACE);
        FUZZ(name.room[cap] == '#');
        memset(&again, 0xa5, sizeof again);
    }
}

static void check_from(const uint8_t *data, size_t size) {
    nkt_addr addr;
    memset(&addr, 0xa5, sizeof addr);
    int err = nkt_addr_from_sockaddr(data, size, &addr);
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    sa_family_t family = 0;
    if (size >= offsetof(struct sockaddr, sa_family) + sizeof family) {
        memcpy(&family, data + offsetof(struct sockaddr, sa_family), sizeof family);
    }
    bool fits = (family == AF_INET && size >= sizeof in) ||
                (family == AF_INET6 && size >= sizeof in6);
    FUZZ(err == (fits ? (int)NKT_OK : (int)NKT_EADDR));
    if (err < 0) {
        FUZZ(text_is_untouched(&addr, sizeof addr));
        return;
    }
    if (family == AF_INET) {
        memcpy(&in, data, sizeof in);
        FUZZ(addr.port == ntohs(in.sin_port) && memcmp(addr.ip.bytes, &in.sin_addr, 4) == 0);
    } else {
        memcpy(&in6, data, sizeof in6);
        FUZZ(addr.port == ntohs(in6.sin6_port) && memcmp(addr.ip.bytes, &in6.sin6_addr, 16) == 0);
        // An IPv4-mapped address has no scope.
        nkt_ip inside = nkt_ip_unmap(&addr.ip);
        FUZZ(addr.ip.scope == (inside.family == NKT_IPV4 ? 0 : in6.sin6_scope_id));
    }
    check_back(&addr);
}

static void check_to(const uint8_t *data, size_t size) {
    char room[NKT_SOCKADDR_MAX];
    nkt_addr addr;
    memset(&addr, 0, sizeof addr);
    memcpy(&addr, data, size < sizeof addr ? size : sizeof addr);
    bool known = addr.ip.family == NKT_IPV4 || addr.ip.family == NKT_IPV6;
    int len = nkt_addr_to_sockaddr(&addr, room, sizeof room);
    FUZZ(known ? len > 0 : len == NKT_EINVAL);
}

static void fuzz_one(const uint8_t *data, size_t size) {
    check_to(data, size);
    if (size < 1) return;
    size_t len = size - 1;
    uint8_t *copy = (uint8_t *)malloc(len > 0 ? len : 1);
    memcpy(copy, data + 1, len);
    sa_family_t family = data[0] % 4 == 1 ? AF_INET : data[0] % 4 == 2 ? AF_INET6 : AF_UNIX;
    size_t at = offsetof(struct sockaddr, sa_family);
    if (data[0] % 4 != 0 && len >= at + sizeof family) memcpy(copy + at, &family, sizeof family);
    check_from(copy, len);
    free(copy);
}

static const char *const words[] = { "\x02", "\x0a", "\x7f", "\xff\xff\xff\xff", NULL };
FUZZ_TARGET("sockaddr", words, 6000)
