// Addresses, networks and targets against what other implementations make of
// the same text: the files under $NKT_TEST_DATA, read in place.
//
// Each row gives what the third party says and what netkit says. Where they
// differ a rule must explain it, and the rules, with their reasons, stand in
// one table below. A difference without a rule fails, and so does a rule that
// explains nothing: it would hide the next difference.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#ifndef _WIN32
    #include <net/if.h>
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define COLUMNS_MAX 10
#define TEXT_MAX 8192

// --- Rules -------------------------------------------------------------------

typedef enum rule {
    AGREES = 0,
    SCOPE_IS_NUMBER,
    SCOPE_IS_NAME,
    SCOPE_IS_NO_INTERFACE,
    SCOPE_ON_MAPPED,
    GO_LONG_GROUPS,
    PORT_NO_NUMBER,
    PORT_NOT_CANONICAL,
    PORT_TOO_LARGE,
    HOST_IN_BRACKETS,
    HOST_NOT_A_NAME,
    HOST_NOT_ASCII,
    HOST_ENDS_IN_NUMBER,
    HOST_OF_DIGITS_AND_DOTS,
    KIND_DEPRECATED,
    KIND_BY_EMBEDDED,
    RULES
} rule;

static const char *const rule_reasons[RULES] = {
    "agrees",
    "a decimal scope is the number of an interface (RFC 4007 section 11.2)",
    "the scope is the name of an interface of this host",
    "a scope must be one of this host; Go keeps any text (known bug 3)",
    "an IPv4-mapped address is IPv4, which has no scopes",
    "Go 1.19 takes groups of more than four digits with leading zeros",
    "a port is a number, or the name of a service",
    "a port has no leading zeros, so that it has one text",
    "a port is at most 65535",
    "brackets are for IPv6 addresses only (RFC 3986 section 3.2.2)",
    "no such bytes, empty labels or outer hyphens in a name (RFC 1123 section 2.1)",
    "a name that is not ASCII is not passed on",
    "a name that ends in a number is a mistyped address (WHATWG URL)",
    "digits and dots are a mistyped address, also where they are no name",
    "IANA does not say whether it is reachable, for it is deprecated: it is not",
    "IANA says N/A: as the IPv4 address inside",
};

typedef struct tally {
    int rows;
    int by_rule[RULES];
    int unexplained;
} tally;

#define FILES 10
static int files_read;
static int rule_uses[RULES];        // in all files

static void count(tally *seen, const char *input, int same, rule why) {
    seen->rows++;
    if (same) {
        seen->by_rule[AGREES]++;
    } else if (why != AGREES) {
        seen->by_rule[why]++;
        rule_uses[why]++;
    } else {
        seen->unexplained++;
        if (seen->unexplained <= 20) printf("  differs, and no rule says why: %s\n", input);
    }
}

// Prints what was seen and checks that it was all of the file.
static void finish_tally(const tally *seen, const char *file, int rows_at_least) {
    printf("%s: %d rows, %d agree\n", file, seen->rows, seen->by_rule[AGREES]);
    for (int i = 1; i < RULES; i++) {
        if (seen->by_rule[i] > 0) printf("%7d: %s\n", seen->by_rule[i], rule_reasons[i]);
    }
    CHECK(seen->rows >= rows_at_least);
    CHECK_INT(seen->unexplained, 0);
    files_read++;
}

static void test_rules(void) {
    TEST("every rule explains a difference") {
        if (files_read < FILES) {
            TEST_SKIP("not every file under NKT_TEST_DATA was read");
            continue;
        }
        for (int i = 1; i < RULES; i++) {
            // Whether a name in the files is an interface depends on the host.
            if (i == SCOPE_IS_NAME) continue;
            if (!CHECK(rule_uses[i] > 0)) printf("  %s\n", rule_reasons[i]);
        }
    }
}

// --- Files -------------------------------------------------------------------

typedef struct table {
    char *data;
    char *next;
    char *column[COLUMNS_MAX];
    int columns;
} table;

static int table_open(table *file, const char *name) {
    const char *folder = getenv("NKT_TEST_DATA");
    char path[1024];
    memset(file, 0, sizeof *file);
    if (folder == NULL || folder[0] == '\0') {
        TEST_SKIP("set NKT_TEST_DATA to the folder of third-party vectors");
        return 0;
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *stream = fopen(path, "rb");
    if (stream == NULL) {
        printf("  %s:\n", path);
        TEST_SKIP("no such file in NKT_TEST_DATA");
        return 0;
    }
    size_t len = 0, cap = 1 << 20;
    file->data = (char *)malloc(cap);
    if (file->data == NULL) abort();
    for (size_t got; (got = fread(file->data + len, 1, cap - len - 1, stream)) > 0;) {
        len += got;
        if (len + 1 < cap) continue;
        cap *= 2;
        file->data = (char *)realloc(file->data, cap);
        if (file->data == NULL) abort();
    }
    fclose(stream);
    file->data[len] = '\0';
    file->next = file->data;
    return 1;
}

static int table_next(table *file) {
    while (*file->next != '\0') {
        char *line = file->next, *end = line + strcspn(line, "\n");
        file->next = *end == '\0' ? end : end + 1;
        *end = '\0';
        if (line[0] == '#' || line == end) continue;
        file->columns = 0;
        for (char *at = line; at != NULL && file->columns < COLUMNS_MAX;) {
            file->column[file->columns++] = at;
            at = strchr(at, '\t');
            if (at != NULL) *at++ = '\0';
        }
        return 1;
    }
    free(file->data);
    file->data = NULL;
    return 0;
}

static int hex_digit(char c) {
    const char *digits = "0123456789abcdef", *at = c == '\0' ? NULL : strchr(digits, c);
    return at == NULL ? 0 : (int)(at - digits);
}

static size_t from_hex(const char *hex, char *out) {
    size_t len = strlen(hex) / 2;
    for (size_t i = 0; i < len; i++) {
        out[i] = (char)(hex_digit(hex[2 * i]) * 16 + hex_digit(hex[2 * i + 1]));
    }
    return len;
}

static size_t put_utf8(char *out, uint32_t code) {
    size_t len = 0;
    if (code < 0x80) {
        out[len++] = (char)code;
        return len;
    }
    if (code < 0x800) {
        out[len++] = (char)(0xc0 | code >> 6);
    } else {
        if (code < 0x10000) {
            out[len++] = (char)(0xe0 | code >> 12);
        } else {
            out[len++] = (char)(0xf0 | code >> 18);
            out[len++] = (char)(0x80 | (code >> 12 & 63));
        }
        out[len++] = (char)(0x80 | (code >> 6 & 63));
    }
    out[len++] = (char)(0x80 | (code & 63));
    return len;
}

static uint32_t four_hex(const char *text) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) value = value * 16 + (uint32_t)hex_digit(text[i]);
    return value;
}

// Reads a JSON string; returns what stands behind it. Surrogates are paired.
static const char *from_json(const char *json, char *out, size_t *len) {
    *len = 0;
    const char *p = json + 1;
    while (*p != '"' && *p != '\0' && *len < TEXT_MAX - 8) {
        if (*p != '\\') {
            out[(*len)++] = *p++;
            continue;
        }
        static const char escapes[] = "n\nr\rt\tb\bf\f";
        char c = p[1];
        p += 2;
        if (c == 'u') {
            uint32_t code = four_hex(p);
            p += 4;
            if (code >= 0xd800 && code < 0xdc00 && p[0] == '\\' && p[1] == 'u') {
                code = 0x10000 + ((code - 0xd800) << 10) + (four_hex(p + 2) - 0xdc00);
                p += 6;
            }
            *len += put_utf8(out + *len, code);
            continue;
        }
        for (size_t i = 0; i + 1 < sizeof escapes; i += 2) {
            if (escapes[i] == c) {
                c = escapes[i + 1];
                break;
            }
        }
        out[(*len)++] = c;
    }
    out[*len] = '\0';
    return *p == '"' ? p + 1 : p;
}

// --- netkit's answers --------------------------------------------------------

// A heap block of exactly the text's size, so that a sanitizer sees a read
// behind it; and a problem that must make sense.
static char *exact(const char *text, size_t len) {
    char *copy = (char *)malloc(len > 0 ? len : 1);
    if (copy == NULL) abort();
    memcpy(copy, text, len);
    return copy;
}

static void check_problem(const nkt_problem *problem, int err, size_t len) {
    CHECK_INT(problem->err, err);
    CHECK(problem->field[0] != '\0');
    CHECK(problem->text[0] != '\0');
    CHECK(problem->offset >= 0 && (size_t)problem->offset <= len);
}

static int our_ip(const char *text, size_t len, nkt_ip *ip) {
    char *copy = exact(text, len);
    nkt_problem problem;
    int err = nkt_ip_parse_n(copy, len, ip, &problem);
    if (err < 0) check_problem(&problem, err, len);
    free(copy);
    return err;
}

static int our_addr(const char *text, size_t len, nkt_addr *addr) {
    char *copy = exact(text, len);
    nkt_problem problem;
    int err = nkt_addr_parse_n(copy, len, addr, &problem);
    if (err < 0) check_problem(&problem, err, len);
    free(copy);
    return err;
}

static int our_net(const char *text, size_t len, nkt_net *net) {
    char *copy = exact(text, len);
    nkt_problem problem;
    int err = nkt_net_parse_n(copy, len, net, &problem);
    if (err < 0) check_problem(&problem, err, len);
    free(copy);
    return err;
}

static int our_target(const char *text, size_t len, nkt_target *target) {
    char *copy = exact(text, len);
    nkt_problem problem;
    int err = nkt_target_parse_n(copy, len, -1, target, &problem);
    if (err < 0) check_problem(&problem, err, len);
    free(copy);
    return err;
}

// What the contract says of a scope, worked out from its text alone. No rule
// speaks for a bad number (0, a leading zero, too large): no row has one on an
// address that could have a scope.
static rule rule_of_scope(const char *scope, size_t len, uint32_t *index) {
    char name[64];
    size_t digits = 0;
    *index = 0;
    while (digits < len && scope[digits] >= '0' && scope[digits] <= '9') digits++;
    if (len > 0 && digits == len) {
        if (scope[0] == '0' || len > 10) return AGREES;
        double value = 0;
        for (size_t i = 0; i < len; i++) value = value * 10 + (scope[i] - '0');
        if (value > 4294967295.0) return AGREES;
        *index = (uint32_t)value;
        return SCOPE_IS_NUMBER;
    }
    if (len == 0 || len >= sizeof name || memchr(scope, '\0', len) != NULL) {
        return SCOPE_IS_NO_INTERFACE;
    }
    memcpy(name, scope, len);
    name[len] = '\0';
    *index = if_nametoindex(name);
    return *index != 0 ? SCOPE_IS_NAME : SCOPE_IS_NO_INTERFACE;
}

static int has_long_group(const char *text, const char *end) {
    size_t digits = 0;
    for (; text < end && *text != '.'; text++) {
        digits = *text == ':' ? 0 : digits + 1;
        if (digits > 4) return 1;
    }
    return 0;
}

// Why an address with a scope, which Go takes, is taken or refused here; the
// answer must be the right one for the reason.
static rule rule_of_scoped(const char *text, const char *percent, const char *end, int mapped,
                           int err) {
    uint32_t index;
    size_t len = (size_t)(end - percent) - 1;
    if (has_long_group(text, percent)) return err == NKT_EADDR ? GO_LONG_GROUPS : AGREES;
    if (mapped) return err == NKT_EADDR ? SCOPE_ON_MAPPED : AGREES;
    rule why = rule_of_scope(percent + 1, len, &index);
    int want = NKT_OK;
    if (why == SCOPE_IS_NO_INTERFACE) {
        want = len == 0 || memchr(percent, '\0', len + 1) != NULL ? NKT_EADDR : NKT_ENODEV;
    }
    return err == want ? why : AGREES;
}

// --- Literals ----------------------------------------------------------------

static void test_literals(void) {
    TEST("ip_literals.tsv: as all strict parsers read it") {
        table file;
        tally seen;
        char text[TEXT_MAX], want[16];
        size_t len;
        int four = 0, six = 0;
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "ip_literals/ip_literals.tsv")) continue;
        while (table_next(&file)) {
            char out[NKT_IP_TEXT_MAX] = "-";
            nkt_ip ip;
            from_json(file.column[0], text, &len);
            int is_four = file.column[1][0] != '-', is_six = file.column[2][0] != '-';
            int err = our_ip(text, len, &ip);
            int same = (err == NKT_OK) == (is_four || is_six);
            if (same && err == NKT_OK) {
                size_t want_len = from_hex(file.column[is_four ? 1 : 2], want);
                same = ip.family == (is_four ? NKT_IPV4 : NKT_IPV6) && ip.scope == 0 &&
                       memcmp(ip.bytes, want, want_len) == 0;
                nkt_ip_format(&ip, out, sizeof out);
                if (strcmp(out, file.column[3]) != 0) same = 0;
            }
            // The two columns are of parsers that know no scope.
            rule why = AGREES;
            char *percent = (char *)memchr(text, '%', len);
            uint32_t index;
            if (percent != NULL && err == NKT_OK) {
                why = rule_of_scope(percent + 1, (size_t)(text + len - percent) - 1, &index);
                if (index == 0 || index != ip.scope) why = AGREES;
            }
            four += is_four;
            six += is_six;
            count(&seen, file.column[0], same, why);
        }
        CHECK(four >= 409);
        CHECK(six >= 596);
        finish_tally(&seen, "ip_literals.tsv", 3689);
    }
    TEST("ip_bytes_nonutf8.tsv: nothing of it is an address, network or target") {
        table file;
        tally seen;
        char text[TEXT_MAX];
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "ip_literals/ip_bytes_nonutf8.tsv")) continue;
        while (table_next(&file)) {
            nkt_ip ip;
            nkt_addr addr;
            nkt_net net;
            nkt_target target;
            size_t len = from_hex(file.column[0], text);
            CHECK_STR(file.column[1], "-");
            CHECK_STR(file.column[2], "-");
            int same = our_ip(text, len, &ip) < 0 && our_addr(text, len, &addr) < 0 &&
                       our_net(text, len, &net) < 0 && our_target(text, len, &target) < 0;
            count(&seen, file.column[0], same, AGREES);
        }
        finish_tally(&seen, "ip_bytes_nonutf8.tsv", 172);
    }
}

static void test_writing(void) {
    TEST("rfc5952.tsv: 16 bytes have one text") {
        table file;
        tally seen;
        char bytes[16];
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "rfc5952/rfc5952.tsv")) continue;
        while (table_next(&file)) {
            char text[NKT_IP_TEXT_MAX];
            CHECK_INT(from_hex(file.column[0], bytes), 16);
            nkt_ip back, ip = nkt_ip_from_bytes(bytes, 16);
            int len = nkt_ip_format(&ip, text, sizeof text);
            int same = len == (int)strlen(text) && strcmp(text, file.column[1]) == 0 &&
                       our_ip(text, (size_t)len, &back) == NKT_OK && nkt_ip_equal(&ip, &back);
            count(&seen, file.column[0], same, AGREES);
        }
        finish_tally(&seen, "rfc5952.tsv", 997);
    }
}

// No two implementations agree on scopes, so every row that Go takes is counted
// under the rule that says what netkit makes of it.
static void test_zones(void) {
    TEST("ip_zone.tsv: the address as Go reads it, the scope by our contract") {
        table file;
        tally seen;
        char text[TEXT_MAX], go[TEXT_MAX], want[32];
        size_t len, go_len;
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "ip_literals/ip_zone.tsv")) continue;
        while (table_next(&file)) {
            nkt_ip ip;
            from_json(file.column[0], text, &len);
            int err = our_ip(text, len, &ip);
            if (file.column[1][0] == '-') {
                count(&seen, file.column[0], err == NKT_EADDR, AGREES);
                continue;
            }
            from_json(file.column[1], go, &go_len);     // 32 hex digits, %scope
            const char *percent = (const char *)memchr(text, '%', len);
            if (!CHECK(percent != NULL && go_len > 32)) break;
            CHECK_MEM(percent, (size_t)(text + len - percent), go + 32, go_len - 32);
            go[32] = '\0';
            from_hex(go, want);
            int mapped = memcmp(want, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0;
            rule why = rule_of_scoped(text, percent, text + len, mapped, err);
            uint32_t index = 0;
            rule_of_scope(percent + 1, (size_t)(text + len - percent) - 1, &index);
            if (err == NKT_OK && (memcmp(ip.bytes, want, 16) != 0 || ip.scope != index)) {
                why = AGREES;
            }
            count(&seen, file.column[0], 0, why);
        }
        CHECK(seen.by_rule[AGREES] >= 141);
        finish_tally(&seen, "ip_zone.tsv", 393);
    }
}

// --- Networks, addresses with ports, targets ---------------------------------

static void test_networks(void) {
    TEST("cidr.tsv: as the strict column reads it") {
        table file;
        tally seen;
        char text[TEXT_MAX];
        size_t len;
        int good = 0;
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "ip_cidr/cidr.tsv")) continue;
        while (table_next(&file)) {
            char out[NKT_NET_TEXT_MAX] = "-";
            nkt_net net;
            from_json(file.column[0], text, &len);
            int err = our_net(text, len, &net);
            if (err == NKT_OK) nkt_net_format(&net, out, sizeof out);
            good += file.column[1][0] != '-';
            count(&seen, file.column[0], strcmp(out, file.column[1]) == 0, AGREES);
        }
        CHECK(good >= 1042);
        finish_tally(&seen, "cidr.tsv", 1647);
    }
}

// What RFC 1123 says of a name, label by label; `err` is what netkit said.
static rule rule_of_name(const char *name, size_t len, int err) {
    size_t from = 0, last = 0, last_len = 0;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)name[i] < 0x80) continue;
        return err == NKT_EUNSUPPORTED || err == NKT_ENAME ? HOST_NOT_ASCII : AGREES;
    }
    if (len > 0 && name[len - 1] == '.') len--;
    int bad = len == 0 || len > 253;
    for (size_t i = 0; i <= len && !bad; i++) {
        if (i < len && name[i] != '.') {
            bad = name[i] == '\0' || strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789-_", name[i]) == NULL;
            continue;
        }
        bad = i == from || i - from > 63 || name[from] == '-' || name[i - 1] == '-';
        last = from;
        last_len = i - from;
        from = i + 1;
    }
    if (bad && err == NKT_EADDR && name[0] != '.') {
        for (size_t i = 0; i < len; i++) {
            if (name[i] != '.' && (name[i] < '0' || name[i] > '9')) return AGREES;
        }
        return HOST_OF_DIGITS_AND_DOTS;
    }
    if (bad) return err == NKT_ENAME ? HOST_NOT_A_NAME : AGREES;
    char label[64];
    memcpy(label, name + last, last_len);
    label[last_len] = '\0';
    int hex = label[0] == '0' && (label[1] | 0x20) == 'x';
    const char *digits = hex ? "0123456789abcdefABCDEF" : "0123456789";
    if (strspn(label + 2 * hex, digits) < last_len - 2 * (size_t)hex) return AGREES;
    return err == NKT_EADDR ? HOST_ENDS_IN_NUMBER : AGREES;
}

static rule rule_of_port(const char *port, size_t len, int err) {
    if (err != NKT_EPORT) return AGREES;
    if (len == 0 || memchr(port, '\0', len) != NULL || strspn(port, "0123456789") < len) {
        return PORT_NO_NUMBER;
    }
    if (len > 1 && port[0] == '0') return PORT_NOT_CANONICAL;
    return len > 5 || strtol(port, NULL, 10) > 65535 ? PORT_TOO_LARGE : AGREES;
}

// Go's SplitHostPort only splits: what it takes may still be no target.
static rule rule_of_target(const char *text, const char *host, size_t host_len,
                           const char *port, size_t port_len, int err) {
    nkt_ip ip;
    if (err == NKT_EPORT) return rule_of_port(port, port_len, err);
    if (text[0] != '[') return rule_of_name(host, host_len, err);
    int inner = our_ip(host, host_len, &ip);
    if (inner == NKT_OK && ip.family == NKT_IPV6) return AGREES;
    if (inner == NKT_ENODEV) return err == NKT_ENODEV ? SCOPE_IS_NO_INTERFACE : AGREES;
    return err == NKT_EADDR ? HOST_IN_BRACKETS : AGREES;
}

static void test_addrs(void) {
    TEST("sockaddr.tsv: address and port as Go's netip reads them") {
        table file;
        tally seen;
        char text[TEXT_MAX], go[TEXT_MAX];
        size_t len, go_len;
        int good = 0;
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "sockaddr/sockaddr.tsv")) continue;
        while (table_next(&file)) {
            char out[NKT_ADDR_TEXT_MAX] = "-";
            nkt_addr addr;
            rule why = AGREES;
            from_json(file.column[0], text, &len);
            memcpy(go, "-", 2);
            if (file.column[1][0] != '-') from_json(file.column[1], go, &go_len);
            int err = our_addr(text, len, &addr);
            if (err == NKT_OK) nkt_addr_format(&addr, out, sizeof out);
            int same = strcmp(out, go) == 0;
            const char *percent = (const char *)memchr(text, '%', len);
            const char *close = (const char *)memchr(text, ']', len);
            int mapped = strncmp(go, "[::ffff:", 8) == 0 && strchr(go, '.') != NULL;
            if (!same && go[0] == '[' && close != NULL) {
                if (percent != NULL && percent < close) {
                    why = rule_of_scoped(text + 1, percent, close, mapped, err);
                } else if (has_long_group(text + 1, close) && err == NKT_EADDR) {
                    why = GO_LONG_GROUPS;
                }
            }
            if (!same && go[0] != '-' && err == NKT_EPORT) {
                const char *port = strrchr(text, ':') + 1;
                why = rule_of_port(port, (size_t)(text + len - port), err);
            }
            // Without a scope Rust is as strict as we are, but for such ports.
            if (percent == NULL && why != PORT_NOT_CANONICAL) {
                CHECK_INT(err == NKT_OK, file.column[2][0] != '-');
            }
            good += same && err == NKT_OK;
            count(&seen, file.column[0], same, why);
        }
        CHECK(good >= 1030);
        finish_tally(&seen, "sockaddr.tsv", 4193);
    }
}

static void test_targets(void) {
    TEST("sockaddr.tsv: host and port as Go's SplitHostPort cuts them") {
        table file;
        tally seen;
        char text[TEXT_MAX], host[TEXT_MAX], port[TEXT_MAX];
        size_t len, host_len, port_len;
        int good = 0;
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "sockaddr/sockaddr.tsv")) continue;
        while (table_next(&file)) {
            nkt_target target;
            nkt_ip ip;
            from_json(file.column[0], text, &len);
            int err = our_target(text, len, &target);
            if (file.column[3][0] == '-') {
                count(&seen, file.column[0], err < 0, AGREES);
                continue;
            }
            const char *next = from_json(file.column[3] + 1, host, &host_len);
            from_json(next + 2, port, &port_len);       // ["host", "port"]
            if (err < 0) {
                rule why = rule_of_target(text, host, host_len, port, port_len, err);
                count(&seen, file.column[0], 0, why);
                continue;
            }
            // Go only splits; a name is known here, by its number.
            long want = strcmp(port, "http") == 0 ? 80 : strtol(port, NULL, 10);
            int same = target.port == want;
            if (target.kind == NKT_TARGET_ADDR) {
                same = same && our_ip(host, host_len, &ip) == NKT_OK &&
                       nkt_ip_equal(&ip, &target.ip);
            } else {
                same = same && host_len == target.host_len &&
                       memcmp(host, target.host, host_len) == 0 &&
                       (target.kind == NKT_TARGET_ANY) == (host_len == 0);
            }
            good += same;
            count(&seen, file.column[0], same, AGREES);
        }
        CHECK(good >= 1000);
        finish_tally(&seen, "sockaddr.tsv, split", 4193);
    }
}

// --- Kinds -------------------------------------------------------------------

// What each line of IANA's registries is called here.
static const struct { const char *prefix; nkt_ip_kind kind; } iana_kinds[] = {
    {"0.0.0.0/8", NKT_KIND_RESERVED}, {"0.0.0.0/32", NKT_KIND_UNSPECIFIED},
    {"10.0.0.0/8", NKT_KIND_PRIVATE}, {"100.64.0.0/10", NKT_KIND_SHARED},
    {"127.0.0.0/8", NKT_KIND_LOOPBACK}, {"169.254.0.0/16", NKT_KIND_LINK_LOCAL},
    {"172.16.0.0/12", NKT_KIND_PRIVATE}, {"192.0.0.0/24", NKT_KIND_RESERVED},
    {"192.0.0.0/29", NKT_KIND_RESERVED}, {"192.0.0.8/32", NKT_KIND_RESERVED},
    {"192.0.0.9/32", NKT_KIND_GLOBAL}, {"192.0.0.10/32", NKT_KIND_GLOBAL},
    {"192.0.0.170/32", NKT_KIND_RESERVED}, {"192.0.0.171/32", NKT_KIND_RESERVED},
    {"192.0.2.0/24", NKT_KIND_DOCUMENTATION}, {"192.31.196.0/24", NKT_KIND_GLOBAL},
    {"192.52.193.0/24", NKT_KIND_GLOBAL}, {"192.88.99.0/24", NKT_KIND_RESERVED},
    {"192.88.99.2/32", NKT_KIND_RESERVED}, {"192.168.0.0/16", NKT_KIND_PRIVATE},
    {"192.175.48.0/24", NKT_KIND_GLOBAL}, {"198.18.0.0/15", NKT_KIND_BENCHMARKING},
    {"198.51.100.0/24", NKT_KIND_DOCUMENTATION}, {"203.0.113.0/24", NKT_KIND_DOCUMENTATION},
    {"240.0.0.0/4", NKT_KIND_RESERVED}, {"255.255.255.255/32", NKT_KIND_BROADCAST},
    {"::1/128", NKT_KIND_LOOPBACK}, {"::/128", NKT_KIND_UNSPECIFIED},
    {"::ffff:0:0/96", NKT_KIND_V4_MAPPED}, {"64:ff9b::/96", NKT_KIND_NAT64},
    {"64:ff9b:1::/48", NKT_KIND_NAT64}, {"100::/64", NKT_KIND_DISCARD},
    {"100:0:0:1::/64", NKT_KIND_DISCARD}, {"2001::/23", NKT_KIND_RESERVED},
    {"2001::/32", NKT_KIND_TEREDO}, {"2001:1::1/128", NKT_KIND_GLOBAL},
    {"2001:1::2/128", NKT_KIND_GLOBAL}, {"2001:1::3/128", NKT_KIND_GLOBAL},
    {"2001:2::/48", NKT_KIND_BENCHMARKING}, {"2001:3::/32", NKT_KIND_GLOBAL},
    {"2001:4:112::/48", NKT_KIND_GLOBAL}, {"2001:10::/28", NKT_KIND_RESERVED},
    {"2001:20::/28", NKT_KIND_GLOBAL}, {"2001:30::/28", NKT_KIND_GLOBAL},
    {"2001:db8::/32", NKT_KIND_DOCUMENTATION}, {"2002::/16", NKT_KIND_6TO4},
    {"2620:4f:8000::/48", NKT_KIND_GLOBAL}, {"3fff::/20", NKT_KIND_DOCUMENTATION},
    {"5f00::/16", NKT_KIND_RESERVED}, {"fc00::/7", NKT_KIND_UNIQUE_LOCAL},
    {"fe80::/10", NKT_KIND_LINK_LOCAL},
};

static nkt_ip_kind kind_of_prefix(const char *prefix) {
    for (size_t i = 0; i < COUNT(iana_kinds); i++) {
        if (strcmp(iana_kinds[i].prefix, prefix) == 0) return iana_kinds[i].kind;
    }
    return NKT_KIND_NONE;
}

// Compares with a line of the registry; reachable is "True", "False", "N/A" or
// nothing.
static void count_kind(tally *seen, const char *input, const nkt_ip *ip, nkt_ip_kind kind,
                       const char *reachable) {
    int global = nkt_ip_is_global(ip);
    int same = kind != NKT_KIND_NONE && nkt_ip_classify(ip) == kind;
    rule why = AGREES;
    if (same && strcmp(reachable, "N/A") == 0) {
        nkt_ip inside = nkt_ip_embedded(ip);
        why = global == nkt_ip_is_global(&inside) ? KIND_BY_EMBEDDED : AGREES;
        same = 0;
    } else if (same && reachable[0] == '\0') {
        why = global ? AGREES : KIND_DEPRECATED;
        same = 0;
    } else if (same) {
        same = global == (strcmp(reachable, "True") == 0);
    }
    count(seen, input, same, why);
}

// What no line of the registries names, Python's flags tell: those of the
// multicast and site-local blocks, and what IANA has never given out.
static nkt_ip_kind kind_of_flags(const char *flags) {
    if (strstr(flags, "multicast") != NULL) return NKT_KIND_MULTICAST;
    if (strstr(flags, "site_local") != NULL) return NKT_KIND_SITE_LOCAL;
    if (strstr(flags, "reserved") != NULL) return NKT_KIND_RESERVED;
    return NKT_KIND_GLOBAL;
}

static void test_kinds(void) {
    TEST("iana_special.tsv: the first and last address of each block") {
        table file;
        tally seen;
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "ip_classify/iana_special.tsv")) continue;
        while (table_next(&file)) {
            nkt_net net;
            const char *prefix = file.column[0], *reachable = file.column[6];
            int err = our_net(prefix, strlen(prefix), &net);
            if (!CHECK_INT(err, NKT_OK)) continue;
            nkt_ip ends[2] = {nkt_net_first(&net), nkt_net_last(&net)};
            for (int i = 0; i < 2; i++) {
                // Three of the ends lie in smaller blocks with their own lines.
                const char *smallest = prefix, *is_reachable = reachable;
                if (strcmp(prefix, "0.0.0.0/8") == 0 && i == 0) smallest = "0.0.0.0/32";
                if (strcmp(prefix, "240.0.0.0/4") == 0 && i == 1) smallest = "255.255.255.255/32";
                if (strcmp(prefix, "2001::/23") == 0 && i == 0) {
                    smallest = "2001::/32";
                    is_reachable = "N/A";
                }
                count_kind(&seen, prefix, &ends[i], kind_of_prefix(smallest), is_reachable);
            }
        }
        finish_tally(&seen, "iana_special.tsv, both ends", 2 * 51);
    }
    TEST("ip_classify.tsv: the kind and whether it is global") {
        table file;
        tally seen;
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "ip_classify/ip_classify.tsv")) continue;
        while (table_next(&file)) {
            nkt_ip ip;
            int err = our_ip(file.column[0], strlen(file.column[0]), &ip);
            if (!CHECK_INT(err, NKT_OK)) continue;
            if (strcmp(file.column[1], "-") == 0) {
                nkt_ip_kind kind = kind_of_flags(file.column[3]);
                count_kind(&seen, file.column[0], &ip, kind,
                           kind == NKT_KIND_GLOBAL ? "True" : "False");
            } else {
                count_kind(&seen, file.column[0], &ip, kind_of_prefix(file.column[1]),
                           file.column[2]);
            }
        }
        finish_tally(&seen, "ip_classify.tsv", 1212);
    }
}

static void test_disguises(void) {
    TEST("ip_acl.tsv: every disguise of an IPv4 address is seen through") {
        static const struct { const char *name; nkt_ip_kind kind; } classes[] = {
            {"loopback", NKT_KIND_LOOPBACK}, {"private", NKT_KIND_PRIVATE},
            {"link_local", NKT_KIND_LINK_LOCAL}, {"multicast", NKT_KIND_MULTICAST},
            {"unspecified", NKT_KIND_UNSPECIFIED}, {"global", NKT_KIND_GLOBAL},
            {"shared", NKT_KIND_SHARED}, {"broadcast", NKT_KIND_BROADCAST},
            {"documentation", NKT_KIND_DOCUMENTATION}, {"ula", NKT_KIND_UNIQUE_LOCAL},
            {"site_local", NKT_KIND_SITE_LOCAL},
        };
        table file;
        tally seen;
        memset(&seen, 0, sizeof seen);
        if (!table_open(&file, "ip_acl/ip_acl.tsv")) continue;
        while (table_next(&file)) {
            char inside_text[NKT_IP_TEXT_MAX];
            nkt_ip ip;
            if (!CHECK_INT(our_ip(file.column[0], strlen(file.column[0]), &ip), NKT_OK)) continue;
            nkt_ip inside = nkt_ip_embedded(&ip);
            int disguised = strcmp(file.column[2], "native") != 0;
            nkt_ip_format(&inside, inside_text, sizeof inside_text);
            int same = strcmp(inside_text, disguised ? file.column[1] : "") == 0;
            nkt_ip_kind kind = nkt_ip_classify(disguised ? &inside : &ip);
            int known = strncmp(file.column[3], "not-mapped", 10) == 0;     // look-alikes
            for (size_t i = 0; i < COUNT(classes); i++) {
                if (strcmp(classes[i].name, file.column[3]) != 0) continue;
                known = 1;
                same = same && kind == classes[i].kind;
            }
            count(&seen, file.column[0], same && known, AGREES);
        }
        finish_tally(&seen, "ip_acl.tsv", 60);
    }
}

int main(void) {
    test_literals();
    test_writing();
    test_zones();
    test_networks();
    test_addrs();
    test_targets();
    test_kinds();
    test_disguises();
    test_rules();
    return test_finish();
}
