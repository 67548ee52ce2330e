// fuzz_net.c - nkt_net_parse_n against inet_pton, and what a network must be

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "text.h"

static int format(const void *net, char *buf, size_t cap) {
    return nkt_net_format((const nkt_net *)net, buf, cap);
}

static int other_opinion(const char *text, size_t size, uint8_t bytes[16], unsigned *bits) {
    size_t slash = size;
    while (slash > 0 && text[slash - 1] != '/') slash--;
    if (slash == 0) return 0;
    int family = text_is_ip(text, slash - 1, NKT_IPV4, bytes) ? NKT_IPV4
                 : text_is_ip(text, slash - 1, NKT_IPV6, bytes) ? NKT_IPV6 : 0;
    unsigned most = family == NKT_IPV4 ? 32 : 128;
    return text_is_number(text + slash, size - slash, most, bits) ? family : 0;
}

static bool bit_of(const nkt_ip *ip, unsigned bit) {
    return (ip->bytes[bit / 8] >> (7 - bit % 8) & 1) != 0;
}

static void check_range(const nkt_net *net, unsigned most) {
    nkt_ip first = nkt_net_first(net), last = nkt_net_last(net);
    nkt_ip mask = nkt_net_mask(net->ip.family, net->bits);
    FUZZ(nkt_ip_equal(&first, &net->ip));
    FUZZ(nkt_net_contains(net, &first) && nkt_net_contains(net, &last));
    FUZZ(nkt_net_mask_bits(&mask) == net->bits);
    for (unsigned bit = 0; bit < most; bit++) {
        bool inside = bit < net->bits;
        FUZZ(bit_of(&mask, bit) == inside);
        FUZZ(bit_of(&last, bit) == (inside ? bit_of(&first, bit) : true));
        nkt_ip turned = first;
        turned.bytes[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
        FUZZ(nkt_net_contains(net, &turned) == !inside);
    }
}

static void check_value(const nkt_net *net) {
    static const uint8_t zero[7] = { 0 };
    char text[NKT_NET_TEXT_MAX];
    nkt_net again;
    int len = format(net, text, sizeof text);
    FUZZ(memcmp(net->reserved, zero, sizeof zero) == 0 && net->ip.scope == 0);
    if (!FUZZ(len > 0 && (size_t)len < sizeof text)) return;
    FUZZ(nkt_net_parse(text, &again) == NKT_OK && nkt_net_equal(net, &again));
    FUZZ(nkt_net_compare(net, &again) == 0 && nkt_net_hash(net) == nkt_net_hash(&again));
    FUZZ(nkt_net_overlaps(net, &again));
    FUZZ(nkt_net_make(&net->ip, net->bits, &again) == NKT_OK && nkt_net_equal(net, &again));
    FUZZ(nkt_ip_kind_name(nkt_ip_classify(&net->ip))[0] != '\0');
    text_check_room(format, net, text, len);
    check_range(net, net->ip.family == NKT_IPV4 ? 32 : 128);
}

static void fuzz_one(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    uint8_t bytes[16];
    unsigned bits = 0;
    nkt_problem problem;
    nkt_net net;
    memset(&net, 0xa5, sizeof net);
    int err = nkt_net_parse_n(text, size, &net, &problem);
    FUZZ(err == NKT_OK || err == NKT_EADDR);
    if (err < 0) {
        FUZZ(text_is_untouched(&net, sizeof net));
        text_check_failure(err, &problem, size);
    } else {
        check_value(&net);
    }
    int family = other_opinion(text, size, bytes, &bits);
    FUZZ((err == NKT_OK) == (family != 0));
    if (err < 0) return;
    nkt_ip host = nkt_ip_from_bytes(bytes, family == NKT_IPV4 ? 4 : 16);
    FUZZ(net.ip.family == family && net.bits == bits && nkt_net_contains(&net, &host));
}

static const char *const words[] = { "/", "/0", "/32", "/33", "/128", "/129", "/08", "::",
                                          "10.0.0.0", "ffff:", "255.", "%1", NULL };
FUZZ_TARGET("net", words, 6000)
