// fuzz_ip.c - nkt_ip_parse_n against inet_pton, and back through text

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "text.h"

static int format_plain(const void *ip, char *buf, size_t cap) {
    return nkt_ip_format((const nkt_ip *)ip, buf, cap);
}

static int format_named(const void *ip, char *buf, size_t cap) {
    return nkt_ip_format_named((const nkt_ip *)ip, buf, cap);
}

static void check_text(const nkt_ip *ip, text_format format) {
    char text[NKT_IP_TEXT_MAX];
    nkt_ip again;
    int len = format(ip, text, sizeof text);
    if (!FUZZ(len > 0 && (size_t)len < sizeof text)) return;
    FUZZ(nkt_ip_parse(text, &again) == NKT_OK && nkt_ip_equal(ip, &again));
    FUZZ(nkt_ip_compare(ip, &again) == 0 && nkt_ip_hash(ip) == nkt_ip_hash(&again));
    text_check_room(format, ip, text, len);
}

static void check_value(const nkt_ip *ip) {
    static const uint8_t zero[12] = { 0 };
    FUZZ(ip->family == NKT_IPV4 || ip->family == NKT_IPV6);
    FUZZ(memcmp(ip->reserved, zero, sizeof ip->reserved) == 0);
    nkt_ip unmapped = nkt_ip_unmap(ip), mapped = nkt_ip_map(&unmapped);
    FUZZ(nkt_ip_equal(&unmapped, ip) || nkt_ip_equal(&mapped, ip));
    if (ip->family == NKT_IPV4) {
        uint32_t number = 0;
        FUZZ(memcmp(ip->bytes + 4, zero, 12) == 0 && ip->scope == 0);
        FUZZ(nkt_ip_to_u32(ip, &number) == NKT_OK);
        nkt_ip back = nkt_ip_from_u32(number);
        FUZZ(nkt_ip_equal(&back, ip));
    }
    check_text(ip, format_plain);
    check_text(ip, format_named);
}

static void fuzz_one(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    uint8_t bytes[16];
    nkt_problem problem;
    nkt_ip ip;
    memset(&ip, 0xa5, sizeof ip);
    int err = nkt_ip_parse_n(text, size, &ip, &problem);
    FUZZ(err == NKT_OK || err == NKT_EADDR || err == NKT_ENODEV);
    if (err < 0) {
        FUZZ(text_is_untouched(&ip, sizeof ip));
        text_check_failure(err, &problem, size);
    } else {
        FUZZ(!text_has_nul(data, size));
        check_value(&ip);
    }
    if (size > 0 && memchr(data, '%', size) != NULL) return;
    int family = text_is_ip(text, size, NKT_IPV4, bytes) ? NKT_IPV4
                 : text_is_ip(text, size, NKT_IPV6, bytes) ? NKT_IPV6 : 0;
    FUZZ((err == NKT_OK) == (family != 0));
    if (err < 0) return;
    FUZZ(ip.family == family && memcmp(ip.bytes, bytes, 16) == 0);
}

static const char *const words[] = { "::", "255", "256", "00", ":0:", "ffff", "::ffff:",
                                          "%lo", "%1", "%4294967295", "1.2.3.4", NULL };
FUZZ_TARGET("ip", words, 6000)
