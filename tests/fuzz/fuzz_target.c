// fuzz_target.c - nkt_target_parse_n and back through text
//
// Two bytes choose the default port, the rest is the text.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "text.h"

static int format(const void *target, char *buf, size_t cap) {
    return nkt_target_format((const nkt_target *)target, buf, cap);
}

static bool is_named(int err) {
    return err == NKT_OK || err == NKT_EADDR || err == NKT_EPORT || err == NKT_ENAME ||
           err == NKT_EAMBIGUOUS || err == NKT_EUNSUPPORTED || err == NKT_ETOOLONG ||
           err == NKT_ENODEV;
}

static void check_kind(const nkt_target *target) {
    FUZZ(target->host_len < sizeof target->host);
    FUZZ(target->host[target->host_len] == '\0' && strlen(target->host) == target->host_len);
    switch (target->kind) {
    case NKT_TARGET_ANY: FUZZ(target->host_len == 0); break;
    case NKT_TARGET_ADDR:
        FUZZ(target->ip.family == NKT_IPV4 || target->ip.family == NKT_IPV6);
        break;
    case NKT_TARGET_NAME:
        FUZZ(nkt_host_check(target->host, target->host_len, NULL) == NKT_OK);
        break;
    case NKT_TARGET_UNIX:
        FUZZ(target->host_len > 0 && target->host_len <= NKT_UNIX_PATH_MAX);
        break;
    default: FUZZ(false);
    }
}

static void check_value(const nkt_target *target) {
    char text[TEXT_MAX];
    nkt_target again;
    check_kind(target);
    int len = format(target, text, sizeof text);
    if (!FUZZ(len > 0 && (size_t)len < sizeof text)) return;
    if (!FUZZ(nkt_target_parse(text, -1, &again, NULL) == NKT_OK)) return;
    FUZZ(again.kind == target->kind && again.port == target->port);
    FUZZ(nkt_ip_equal(&again.ip, &target->ip) && strcmp(again.host, target->host) == 0);
    text_check_room(format, target, text, len);
}

static void fuzz_one(const uint8_t *data, size_t size) {
    static const int32_t ports[] = { -1, 0, 80, 65535, 65536, -2, INT32_MAX, INT32_MIN };
    nkt_problem problem;
    nkt_target target;
    if (size < 1) return;
    int32_t port = ports[data[0] % 8];
    const char *text = (const char *)data + 1;
    size--;
    memset(&target, 0xa5, sizeof target);
    int err = nkt_target_parse_n(text, size, port, &target, &problem);
    FUZZ(is_named(err));
    if (err < 0) {
        FUZZ(text_is_untouched(&target, sizeof target));
        text_check_failure(err, &problem, size);
    } else {
        FUZZ(!text_has_nul(data + 1, size));
        check_value(&target);
    }
    if (port < -1 || port > 65535) FUZZ(err == NKT_EPORT);
    if (port < 0 || port > 65535) return;
    // What an address with a port is, is not told by the default one.
    nkt_addr addr;
    if (nkt_addr_parse_n(text, size, &addr, NULL) != NKT_OK) return;
    FUZZ(err == NKT_OK && target.kind == NKT_TARGET_ADDR && target.port == addr.port &&
         nkt_ip_equal(&target.ip, &addr.ip));
}

static const char *const words[] = {
    "unix:", "unix:@", "[::1]", ":http", ":80", "::", "example.org", "localhost", ":", "https",
    "1.2.3.4", "%1", "://", "0x7f.1", "2001:db8::1:80", NULL };
FUZZ_TARGET("target", words, 6000)
