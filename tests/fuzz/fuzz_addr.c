// fuzz_addr.c - nkt_addr_parse_n against inet_pton, and back through text

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "text.h"

static int format(const void *addr, char *buf, size_t cap) {
    return nkt_addr_format((const nkt_addr *)addr, buf, cap);
}

// "1.2.3.4:80" or "[::1]:80".
static int other_opinion(const char *text, size_t size, uint8_t bytes[16], unsigned *port) {
    size_t colon = size;
    while (colon > 0 && text[colon - 1] != ':') colon--;
    if (colon == 0 || !text_is_number(text + colon, size - colon, 65535, port)) return 0;
    size_t len = colon - 1;
    if (text_is_ip(text, len, NKT_IPV4, bytes)) return NKT_IPV4;
    if (len < 2 || text[0] != '[' || text[len - 1] != ']') return 0;
    return text_is_ip(text + 1, len - 2, NKT_IPV6, bytes) ? NKT_IPV6 : 0;
}

static void check_value(const nkt_addr *addr) {
    char text[NKT_ADDR_TEXT_MAX];
    nkt_addr again;
    int len = format(addr, text, sizeof text);
    FUZZ(addr->reserved == 0 && addr->flow_label == 0);
    if (!FUZZ(len > 0 && (size_t)len < sizeof text)) return;
    FUZZ(nkt_addr_parse(text, &again) == NKT_OK && nkt_addr_equal(addr, &again));
    FUZZ(nkt_addr_compare(addr, &again) == 0 && nkt_addr_hash(addr) == nkt_addr_hash(&again));
    again = nkt_addr_make(&addr->ip, addr->port);
    FUZZ(nkt_addr_equal(addr, &again));
    text_check_room(format, addr, text, len);
}

static void fuzz_one(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    uint8_t bytes[16];
    unsigned port = 0;
    nkt_problem problem;
    nkt_addr addr;
    memset(&addr, 0xa5, sizeof addr);
    int err = nkt_addr_parse_n(text, size, &addr, &problem);
    FUZZ(err == NKT_OK || err == NKT_EADDR || err == NKT_EPORT || err == NKT_EAMBIGUOUS ||
         err == NKT_ENODEV);
    if (err < 0) {
        FUZZ(text_is_untouched(&addr, sizeof addr));
        text_check_failure(err, &problem, size);
    } else {
        FUZZ(!text_has_nul(data, size));
        check_value(&addr);
    }
    if (err == NKT_EAMBIGUOUS) FUZZ(size > 0 && data[0] != '[');
    if (size > 0 && memchr(data, '%', size) != NULL) return;
    int family = other_opinion(text, size, bytes, &port);
    FUZZ((err == NKT_OK) == (family != 0));
    if (err < 0) return;
    FUZZ(addr.ip.family == family && addr.port == port && memcmp(addr.ip.bytes, bytes, 16) == 0);
}

static const char *const words[] = { "::", "[", "]:", ":80", ":65535", ":65536", ":080",
                                          "1.2.3.4", "[::1]:80", "%lo", "%1", ":", NULL };
FUZZ_TARGET("addr", words, 6000)
