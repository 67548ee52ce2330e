// Networks, and what an address is for. The rows are those of RFC 4632, RFC
// 4291, RFC 5952 and of the RFCs behind IANA's special-purpose registries: for
// each block its first and last address and both neighbours.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int all_bytes_are(const void *data, size_t len, int value) {
    const unsigned char *bytes = (const unsigned char *)data;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != value) return 0;
    }
    return 1;
}

// Reads from a buffer of exactly the right size, over two poisons.
static int parse_net(const char *text, size_t len, nkt_net *net, nkt_problem *problem) {
    nkt_net first, second;
    char *copy = (char *)malloc(len > 0 ? len : 1);
    if (copy == NULL) abort();
    memcpy(copy, text, len);
    memset(&first, 0xAA, sizeof first);
    memset(&second, 0x55, sizeof second);
    memset(problem, 0xAA, sizeof *problem);
    int err = nkt_net_parse_n(copy, len, &first, problem);
    CHECK_INT(nkt_net_parse_n(copy, len, &second, NULL), err);
    if (err == NKT_OK) {
        CHECK(memcmp(&first, &second, sizeof first) == 0);
        CHECK(all_bytes_are(problem, sizeof *problem, 0xAA));
        *net = first;
    } else {
        CHECK(all_bytes_are(&first, sizeof first, 0xAA));
        CHECK(all_bytes_are(&second, sizeof second, 0x55));
        CHECK_INT(problem->err, err);
        CHECK(problem->offset >= 0 && (size_t)problem->offset <= len);
        CHECK(strstr(problem->text, "expected") != NULL);
    }
    free(copy);
    return err;
}

static nkt_ip ip_of(const char *text) {
    nkt_ip ip = nkt_ip_any(0);
    if (text[0] != '\0') CHECK_INT(nkt_ip_parse(text, &ip), NKT_OK);
    return ip;
}

static nkt_net net_of(const char *text) {
    nkt_net net;
    memset(&net, 0, sizeof net);
    CHECK_INT(nkt_net_parse(text, &net), NKT_OK);
    return net;
}

static const char *text_of(const nkt_ip *ip) {
    static char text[NKT_IP_TEXT_MAX];
    CHECK(nkt_ip_format(ip, text, sizeof text) >= 0);
    return text;
}

// --- Reading, writing, reaching ----------------------------------------------

static const struct net_row {
    const char *name, *text, *canonical, *last, *broadcast, *mask;
} good_rows[] = {
    {"RFC 4632 3.1 class A", "10.0.0.0/8", "10.0.0.0/8", "10.255.255.255", "10.255.255.255",
     "255.0.0.0"},
    {"RFC 4632 3.1 class B", "172.16.0.0/16", "172.16.0.0/16", "172.16.255.255",
     "172.16.255.255", "255.255.0.0"},
    {"RFC 4632 3.1 class C", "192.168.99.0/24", "192.168.99.0/24", "192.168.99.255",
     "192.168.99.255", "255.255.255.0"},
    {"RFC 4632 3.1 everything", "0.0.0.0/0", "0.0.0.0/0", "255.255.255.255", "255.255.255.255",
     "0.0.0.0"},
    {"RFC 4632 3.1 half of everything", "128.0.0.0/1", "128.0.0.0/1", "255.255.255.255",
     "255.255.255.255", "128.0.0.0"},
    {"RFC 4632 5.1 eight class C", "10.24.0.0/21", "10.24.0.0/21", "10.24.7.255", "10.24.7.255",
     "255.255.248.0"},
    {"RFC 4632 5.1 sixteen class C", "10.24.16.0/20", "10.24.16.0/20", "10.24.31.255",
     "10.24.31.255", "255.255.240.0"},
    {"RFC 4632 5.1 four class C", "10.24.8.0/22", "10.24.8.0/22", "10.24.11.255", "10.24.11.255",
     "255.255.252.0"},
    {"RFC 4632 5.1 the aggregate", "10.24.0.0/13", "10.24.0.0/13", "10.31.255.255",
     "10.31.255.255", "255.248.0.0"},
    {"RFC 3021 point to point", "192.0.2.2/31", "192.0.2.2/31", "192.0.2.3", "",
     "255.255.255.254"},
    {"one host", "192.0.2.1/32", "192.0.2.1/32", "192.0.2.1", "", "255.255.255.255"},
    {"the smallest with a broadcast address", "192.0.2.4/30", "192.0.2.4/30", "192.0.2.7",
     "192.0.2.7", "255.255.255.252"},
    {"host bits are cleared", "10.1.2.3/8", "10.0.0.0/8", "10.255.255.255", "10.255.255.255",
     "255.0.0.0"},
    {"host bits inside a byte", "192.0.2.255/29", "192.0.2.248/29", "192.0.2.255", "192.0.2.255",
     "255.255.255.248"},
    {"RFC 4291 2.3 in full", "2001:0DB8:0000:CD30:0000:0000:0000:0000/60",
     "2001:db8:0:cd30::/60", "2001:db8:0:cd3f:ffff:ffff:ffff:ffff", "",
     "ffff:ffff:ffff:fff0::"},
    {"RFC 4291 2.3 gap behind", "2001:0DB8::CD30:0:0:0:0/60", "2001:db8:0:cd30::/60",
     "2001:db8:0:cd3f:ffff:ffff:ffff:ffff", "", "ffff:ffff:ffff:fff0::"},
    {"RFC 4291 2.3 gap before", "2001:0DB8:0:CD30::/60", "2001:db8:0:cd30::/60",
     "2001:db8:0:cd3f:ffff:ffff:ffff:ffff", "", "ffff:ffff:ffff:fff0::"},
    {"RFC 4291 2.3 node and prefix", "2001:0DB8:0:CD30:123:4567:89AB:CDEF/60",
     "2001:db8:0:cd30::/60", "2001:db8:0:cd3f:ffff:ffff:ffff:ffff", "",
     "ffff:ffff:ffff:fff0::"},
    {"RFC 4291 2.3 another address altogether", "2001:0DB8::CD30/60", "2001:db8::/60",
     "2001:db8:0:f:ffff:ffff:ffff:ffff", "", "ffff:ffff:ffff:fff0::"},
    {"all of IPv6", "::/0", "::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "::"},
    {"one IPv6 host", "::1/128", "::1/128", "::1", "",
     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
    {"IPv4-mapped", "::ffff:192.0.2.1/120", "::ffff:192.0.2.0/120", "::ffff:192.0.2.255", "",
     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"},
    {"fe80::/10", "fe80::1/10", "fe80::/10", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "",
     "ffc0::"},
};

static const struct { const char *name, *text, *field; int offset; } bad_rows[] = {
    {"net: empty", "", "address", 0},
    {"net: no length", "10.0.0.0", "prefix length", 8},
    {"net: slash and no length", "10.0.0.0/", "prefix length", 9},
    {"net: no address", "/8", "address", 0},
    {"net: RFC 4291 2.3 zeros dropped behind", "2001:0DB8:0:CD3/60", "address", 15},
    {"net: short IPv4 form", "10/8", "address", 0},
    {"net: IPv4 too long", "10.0.0.0/33", "prefix length", 9},
    {"net: IPv6 too long", "2001:db8::/129", "prefix length", 11},
    {"net: length of 20 digits", "::/18446744073709551617", "prefix length", 3},
    {"net: leading zero", "10.0.0.0/08", "prefix length", 9},
    {"net: two zeros", "::/00", "prefix length", 3},
    {"net: sign", "10.0.0.0/+8", "prefix length", 9},
    {"net: negative", "10.0.0.0/-1", "prefix length", 9},
    {"net: blank behind the slash", "10.0.0.0/ 8", "prefix length", 9},
    {"net: blank in front of the slash", "10.0.0.0 /8", "prefix length", 8},
    {"net: text behind", "10.0.0.0/8x", "prefix length", 10},
    {"net: two lengths", "10.0.0.0/8/8", "prefix length", 10},
    {"net: netmask", "10.0.0.0/255.0.0.0", "prefix length", 9},
    {"net: netmask of few digits", "10.0.0.0/0.0.0.0", "prefix length", 10},
    {"net: scope", "fe80::1%1/64", "scope", 7},
    {"net: scope behind", "fe80::1/64%1", "prefix length", 10},
    {"net: scope on IPv4", "10.0.0.0%1/8", "scope", 8},
    {"net: leading zero in the address", "010.0.0.0/8", "address", 0},
    {"net: brackets", "[::]/0", "address", 0},
    {"net: a word", "default", "address", 0},
};

static void test_text(void) {
    for (size_t i = 0; i < COUNT(good_rows); i++) {
        const struct net_row *row = &good_rows[i];
        TEST(row->name) {
            char text[NKT_NET_TEXT_MAX];
            nkt_problem problem;
            nkt_net net, again;
            int err = parse_net(row->text, strlen(row->text), &net, &problem);
            if (!CHECK_INT(err, NKT_OK)) continue;
            size_t len = strlen(row->canonical);
            CHECK(all_bytes_are(net.reserved, sizeof net.reserved, 0));
            CHECK_INT(nkt_net_format(&net, text, sizeof text), len);
            CHECK_STR(text, row->canonical);
            memset(text, 0x55, sizeof text);
            CHECK_INT(nkt_net_format(&net, text, len), NKT_ENOSPACE);
            CHECK(all_bytes_are(text, sizeof text, 0x55));
            CHECK_INT(nkt_net_format(&net, text, len + 1), len);
            CHECK_STR(text, row->canonical);
            CHECK_INT(nkt_net_parse(text, &again), NKT_OK);
            CHECK(nkt_net_equal(&net, &again));
            nkt_ip ip = nkt_net_first(&net);
            CHECK_MEM(text_of(&ip), strlen(text_of(&ip)), row->canonical,
                      strcspn(row->canonical, "/"));
            ip = nkt_net_last(&net);
            CHECK_STR(text_of(&ip), row->last);
            ip = nkt_net_broadcast(&net);
            CHECK_STR(text_of(&ip), row->broadcast);
            ip = nkt_net_mask(net.ip.family, net.bits);
            CHECK_STR(text_of(&ip), row->mask);
            CHECK_INT(nkt_net_mask_bits(&ip), net.bits);
        }
    }
    for (size_t i = 0; i < COUNT(bad_rows); i++) {
        TEST(bad_rows[i].name) {
            nkt_problem problem;
            nkt_net net;
            CHECK_INT(parse_net(bad_rows[i].text, strlen(bad_rows[i].text), &net, &problem),
                      NKT_EADDR);
            CHECK_STR(problem.field, bad_rows[i].field);
            CHECK_INT(problem.offset, bad_rows[i].offset);
        }
    }
}

static void test_mutations(void) {
    TEST("every prefix of a good text is short of its length, or of digits of it") {
        for (size_t i = 0; i < COUNT(good_rows); i++) {
            const char *text = good_rows[i].text;
            size_t slash = strcspn(text, "/");
            for (size_t len = 0; len < strlen(text); len++) {
                nkt_problem problem;
                nkt_net net;
                CHECK_INT(parse_net(text, len, &net, &problem),
                          len > slash + 1 ? NKT_OK : NKT_EADDR);
            }
        }
    }
    TEST("a NUL or a byte from 0x80 anywhere is refused") {
        for (size_t i = 0; i < COUNT(good_rows); i++) {
            char text[64];
            size_t len = strlen(good_rows[i].text);
            for (size_t at = 0; at <= len; at++) {
                nkt_problem problem;
                nkt_net net;
                memcpy(text, good_rows[i].text, at);
                memcpy(text + at + 1, good_rows[i].text + at, len - at);
                text[at] = '\0';
                CHECK_INT(parse_net(text, len + 1, &net, &problem), NKT_EADDR);
                text[at] = (char)0xb2;
                CHECK_INT(parse_net(text, len + 1, &net, &problem), NKT_EADDR);
            }
        }
    }
    TEST("no network is written as nothing") {
        char text[8] = "x";
        nkt_net none;
        memset(&none, 0, sizeof none);
        CHECK_INT(nkt_net_format(&none, text, sizeof text), 0);
        CHECK_STR(text, "");
        CHECK_INT(nkt_net_parse(NULL, &none), NKT_EADDR);
    }
}

static void test_make(void) {
    TEST("a network of every length of both families") {
        static const struct { const char *text; int max; } rows[] = {
            {"255.255.255.255", 32}, {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%5", 128}};
        for (size_t i = 0; i < COUNT(rows); i++) {
            nkt_ip ones = ip_of(rows[i].text), zero = nkt_ip_any(ones.family);
            for (int bits = 0; bits <= rows[i].max; bits++) {
                nkt_net net, low;
                CHECK_INT(nkt_net_make(&ones, bits, &net), NKT_OK);
                CHECK_INT(net.bits, bits);
                CHECK_INT(net.ip.scope, 0);
                for (int bit = 0; bit < 128; bit++) {
                    int set = (net.ip.bytes[bit / 8] >> (7 - bit % 8)) & 1;
                    if (set != (bit < bits)) CHECK_INT(bit, -1);
                }
                nkt_ip mask = nkt_net_mask(ones.family, bits);
                CHECK(nkt_ip_equal(&mask, &net.ip));
                CHECK_INT(nkt_net_mask_bits(&mask), bits);
                CHECK_INT(nkt_net_make(&zero, bits, &low), NKT_OK);
                nkt_ip last = nkt_net_last(&low);
                for (int byte = 0; byte < rows[i].max / 8; byte++) {
                    CHECK_INT(last.bytes[byte], 255 - net.ip.bytes[byte]);
                }
                CHECK(nkt_net_contains(&low, &last));
                CHECK_INT(nkt_net_contains(&low, &ones), bits == 0);
            }
            nkt_net net;
            memset(&net, 0xAA, sizeof net);
            CHECK_INT(nkt_net_make(&ones, rows[i].max + 1, &net), NKT_EINVAL);
            CHECK_INT(nkt_net_make(&ones, -1, &net), NKT_EINVAL);
            CHECK(all_bytes_are(&net, sizeof net, 0xAA));
            CHECK_INT(nkt_net_mask(ones.family, rows[i].max + 1).family, 0);
            CHECK_INT(nkt_net_mask(ones.family, -1).family, 0);
        }
        nkt_ip none = nkt_ip_any(0);
        nkt_net net;
        CHECK_INT(nkt_net_make(&none, 0, &net), NKT_EINVAL);
        CHECK_INT(nkt_net_mask(0, 0).family, 0);
    }
    TEST("netmasks whose ones are not contiguous are refused") {
        static const char *const texts[] = {
            "255.0.255.0", "0.0.0.1", "255.255.255.253", "127.255.255.255", "0.255.255.255",
            "ffff::1", "7fff::", "ffff:0:ffff::", ""};
        for (size_t i = 0; i < COUNT(texts); i++) {
            nkt_ip mask = ip_of(texts[i]);
            CHECK_INT(nkt_net_mask_bits(&mask), NKT_EADDR);
        }
    }
}

static void test_contains(void) {
    static const struct { const char *net, *ip; int inside; } rows[] = {
        {"10.0.0.0/8", "10.0.0.0", 1}, {"10.0.0.0/8", "10.255.255.255", 1},
        {"10.0.0.0/8", "11.0.0.0", 0}, {"10.0.0.0/8", "9.255.255.255", 0},
        {"172.16.0.0/12", "172.31.255.255", 1}, {"172.16.0.0/12", "172.32.0.0", 0},
        {"0.0.0.0/0", "255.255.255.255", 1}, {"0.0.0.0/0", "::", 0}, {"::/0", "0.0.0.0", 0},
        {"192.0.2.1/32", "192.0.2.1", 1}, {"192.0.2.1/32", "192.0.2.0", 0},
        {"::ffff:0:0/96", "::ffff:10.0.0.1", 1}, {"10.0.0.0/8", "::ffff:10.0.0.1", 0},
        {"::/0", "::ffff:10.0.0.1", 1}, {"fe80::/10", "fe80::1%7", 1},
        {"fe80::/10", "fec0::1", 0}, {"2001:db8::/33", "2001:db8:7fff::", 1},
        {"2001:db8::/33", "2001:db8:8000::", 0}, {"::1/128", "::1", 1}, {"::1/128", "::", 0},
        {"0.0.0.0/0", "", 0}, {"::/0", "", 0},
    };
    TEST("whether an address lies in a network") {
        for (size_t i = 0; i < COUNT(rows); i++) {
            nkt_net net = net_of(rows[i].net);
            nkt_ip ip = ip_of(rows[i].ip);
            if (!CHECK_INT(nkt_net_contains(&net, &ip), rows[i].inside)) {
                printf("  %s in %s\n", rows[i].ip, rows[i].net);
            }
        }
    }
    TEST("a network that is none contains nothing, not even no address") {
        nkt_net none;
        memset(&none, 0, sizeof none);
        nkt_ip ip = ip_of("");
        CHECK(!nkt_net_contains(&none, &ip));
        CHECK(!nkt_net_overlaps(&none, &none));
        ip = ip_of("0.0.0.0");
        CHECK(!nkt_net_contains(&none, &ip));
        // More bits than the family has are taken as all of them.
        nkt_net odd = net_of("192.0.2.1/32");
        odd.bits = 200;
        ip = ip_of("192.0.2.1");
        CHECK(nkt_net_contains(&odd, &ip));
        ip = nkt_net_last(&odd);
        CHECK_STR(text_of(&ip), "192.0.2.1");
    }
    TEST("whether networks overlap, both ways round") {
        static const struct { const char *a, *b; int overlap; } pairs[] = {
            {"10.0.0.0/8", "10.1.0.0/16", 1}, {"10.0.0.0/8", "11.0.0.0/8", 0},
            {"10.0.0.0/8", "10.0.0.0/8", 1}, {"0.0.0.0/0", "192.0.2.1/32", 1},
            {"10.0.0.0/9", "10.128.0.0/9", 0}, {"::/0", "0.0.0.0/0", 0},
            {"2001:db8::/32", "2001:db8:ffff::/48", 1}, {"2001:db8::/32", "2001:db9::/32", 0},
        };
        for (size_t i = 0; i < COUNT(pairs); i++) {
            nkt_net a = net_of(pairs[i].a), b = net_of(pairs[i].b);
            CHECK_INT(nkt_net_overlaps(&a, &b), pairs[i].overlap);
            CHECK_INT(nkt_net_overlaps(&b, &a), pairs[i].overlap);
        }
    }
    TEST("networks are in a total order, and equality and hash agree with it") {
        static const char *const ascending[] = {
            "0.0.0.0/0", "0.0.0.0/32", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "::/0",
            "::/128", "2001:db8::/32", "2001:db8::/48", "fe80::/10"};
        for (size_t i = 0; i < COUNT(ascending); i++) {
            for (size_t k = 0; k < COUNT(ascending); k++) {
                nkt_net a = net_of(ascending[i]), b = net_of(ascending[k]);
                CHECK_INT(nkt_net_compare(&a, &b), i < k ? -1 : i > k);
                CHECK_INT(nkt_net_equal(&a, &b), i == k);
                CHECK_INT(nkt_net_hash(&a) == nkt_net_hash(&b), i == k);
            }
        }
    }
}

// --- Kinds -------------------------------------------------------------------

// A block, its kind, whether it is reachable from everywhere, and the kinds of
// the addresses in front of and behind it ("" where there is none).
static const struct kind_row {
    const char *net;
    nkt_ip_kind kind;
    int global;
    nkt_ip_kind before, behind;
} kind_rows[] = {
    {"0.0.0.0/32", NKT_KIND_UNSPECIFIED, 0, NKT_KIND_NONE, NKT_KIND_RESERVED},
    {"0.0.0.1/32", NKT_KIND_RESERVED, 0, NKT_KIND_UNSPECIFIED, NKT_KIND_RESERVED},
    {"0.128.0.0/9", NKT_KIND_RESERVED, 0, NKT_KIND_RESERVED, NKT_KIND_GLOBAL},
    {"10.0.0.0/8", NKT_KIND_PRIVATE, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"100.64.0.0/10", NKT_KIND_SHARED, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"127.0.0.0/8", NKT_KIND_LOOPBACK, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"169.254.0.0/16", NKT_KIND_LINK_LOCAL, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"172.16.0.0/12", NKT_KIND_PRIVATE, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"192.0.0.0/29", NKT_KIND_RESERVED, 0, NKT_KIND_GLOBAL, NKT_KIND_RESERVED},
    {"192.0.0.8/32", NKT_KIND_RESERVED, 0, NKT_KIND_RESERVED, NKT_KIND_GLOBAL},
    {"192.0.0.9/32", NKT_KIND_GLOBAL, 1, NKT_KIND_RESERVED, NKT_KIND_GLOBAL},
    {"192.0.0.10/32", NKT_KIND_GLOBAL, 1, NKT_KIND_GLOBAL, NKT_KIND_RESERVED},
    {"192.0.0.170/31", NKT_KIND_RESERVED, 0, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"192.0.0.128/25", NKT_KIND_RESERVED, 0, NKT_KIND_RESERVED, NKT_KIND_GLOBAL},
    {"192.0.2.0/24", NKT_KIND_DOCUMENTATION, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"192.31.196.0/24", NKT_KIND_GLOBAL, 1, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"192.52.193.0/24", NKT_KIND_GLOBAL, 1, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"192.88.99.0/24", NKT_KIND_RESERVED, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"192.168.0.0/16", NKT_KIND_PRIVATE, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"192.175.48.0/24", NKT_KIND_GLOBAL, 1, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"198.18.0.0/15", NKT_KIND_BENCHMARKING, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"198.51.100.0/24", NKT_KIND_DOCUMENTATION, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"203.0.113.0/24", NKT_KIND_DOCUMENTATION, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"224.0.0.0/4", NKT_KIND_MULTICAST, 0, NKT_KIND_GLOBAL, NKT_KIND_RESERVED},
    {"240.0.0.0/5", NKT_KIND_RESERVED, 0, NKT_KIND_MULTICAST, NKT_KIND_RESERVED},
    {"255.255.255.254/32", NKT_KIND_RESERVED, 0, NKT_KIND_RESERVED, NKT_KIND_BROADCAST},
    {"255.255.255.255/32", NKT_KIND_BROADCAST, 0, NKT_KIND_RESERVED, NKT_KIND_NONE},
    {"8.8.8.8/32", NKT_KIND_GLOBAL, 1, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"::/128", NKT_KIND_UNSPECIFIED, 0, NKT_KIND_NONE, NKT_KIND_LOOPBACK},
    {"::1/128", NKT_KIND_LOOPBACK, 0, NKT_KIND_UNSPECIFIED, NKT_KIND_RESERVED},
    {"::10.0.0.0/104", NKT_KIND_RESERVED, 0, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"::ffff:0:0/96", NKT_KIND_V4_MAPPED, 0, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"64:ff9b::/96", NKT_KIND_NAT64, 1, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"64:ff9b:1::/48", NKT_KIND_NAT64, 0, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"100::/64", NKT_KIND_DISCARD, 0, NKT_KIND_RESERVED, NKT_KIND_DISCARD},
    {"100:0:0:1::/64", NKT_KIND_DISCARD, 0, NKT_KIND_DISCARD, NKT_KIND_RESERVED},
    {"2000::/16", NKT_KIND_GLOBAL, 1, NKT_KIND_RESERVED, NKT_KIND_TEREDO},
    {"2001:1::/128", NKT_KIND_RESERVED, 0, NKT_KIND_TEREDO, NKT_KIND_GLOBAL},
    {"2001:1::1/128", NKT_KIND_GLOBAL, 1, NKT_KIND_RESERVED, NKT_KIND_GLOBAL},
    {"2001:1::2/127", NKT_KIND_GLOBAL, 1, NKT_KIND_GLOBAL, NKT_KIND_RESERVED},
    {"2001:1::4/126", NKT_KIND_RESERVED, 0, NKT_KIND_GLOBAL, NKT_KIND_RESERVED},
    {"2001:2::/48", NKT_KIND_BENCHMARKING, 0, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"2001:3::/32", NKT_KIND_GLOBAL, 1, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"2001:4:112::/48", NKT_KIND_GLOBAL, 1, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"2001:10::/28", NKT_KIND_RESERVED, 0, NKT_KIND_RESERVED, NKT_KIND_GLOBAL},
    {"2001:20::/28", NKT_KIND_GLOBAL, 1, NKT_KIND_RESERVED, NKT_KIND_GLOBAL},
    {"2001:30::/28", NKT_KIND_GLOBAL, 1, NKT_KIND_GLOBAL, NKT_KIND_RESERVED},
    {"2001:100::/24", NKT_KIND_RESERVED, 0, NKT_KIND_RESERVED, NKT_KIND_GLOBAL},
    {"2001:db8::/32", NKT_KIND_DOCUMENTATION, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"2620:4f:8000::/48", NKT_KIND_GLOBAL, 1, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"2003::/16", NKT_KIND_GLOBAL, 1, NKT_KIND_6TO4, NKT_KIND_GLOBAL},
    {"3ffe::/16", NKT_KIND_GLOBAL, 1, NKT_KIND_GLOBAL, NKT_KIND_DOCUMENTATION},
    {"3fff::/20", NKT_KIND_DOCUMENTATION, 0, NKT_KIND_GLOBAL, NKT_KIND_GLOBAL},
    {"4000::/3", NKT_KIND_RESERVED, 0, NKT_KIND_GLOBAL, NKT_KIND_RESERVED},
    {"5f00::/16", NKT_KIND_RESERVED, 0, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"fc00::/7", NKT_KIND_UNIQUE_LOCAL, 0, NKT_KIND_RESERVED, NKT_KIND_RESERVED},
    {"fe80::/10", NKT_KIND_LINK_LOCAL, 0, NKT_KIND_RESERVED, NKT_KIND_SITE_LOCAL},
    {"fec0::/10", NKT_KIND_SITE_LOCAL, 0, NKT_KIND_LINK_LOCAL, NKT_KIND_MULTICAST},
    {"ff00::/8", NKT_KIND_MULTICAST, 0, NKT_KIND_SITE_LOCAL, NKT_KIND_NONE},
};

// The address in front of or behind one; false at the end of the family.
static int step(nkt_ip *ip, int by) {
    for (int i = ip->family == NKT_IPV4 ? 3 : 15; i >= 0; i--) {
        uint8_t carry = by > 0 ? 255 : 0;
        int carries = ip->bytes[i] == carry;
        ip->bytes[i] = (uint8_t)(ip->bytes[i] + by);
        if (!carries) return 1;
    }
    return 0;
}

static void test_kinds(void) {
    for (size_t i = 0; i < COUNT(kind_rows); i++) {
        const struct kind_row *row = &kind_rows[i];
        char name[96];
        snprintf(name, sizeof name, "kind of %s", row->net);
        TEST(name) {
            nkt_net net = net_of(row->net);
            nkt_ip first = nkt_net_first(&net), last = nkt_net_last(&net);
            CHECK_INT(nkt_ip_classify(&first), row->kind);
            CHECK_INT(nkt_ip_classify(&last), row->kind);
            CHECK_INT(nkt_ip_is_global(&first), row->global);
            CHECK_INT(nkt_ip_is_global(&last), row->global);
            nkt_ip before = first, behind = last;
            CHECK_INT(step(&before, -1) ? nkt_ip_classify(&before) : NKT_KIND_NONE, row->before);
            CHECK_INT(step(&behind, 1) ? nkt_ip_classify(&behind) : NKT_KIND_NONE, row->behind);
        }
    }
    TEST("no address is of no kind") {
        nkt_ip none = nkt_ip_any(0);
        CHECK_INT(nkt_ip_classify(&none), NKT_KIND_NONE);
        CHECK(!nkt_ip_is_global(&none));
        CHECK_INT(nkt_ip_embedded(&none).family, 0);
        CHECK_INT(nkt_ip_multicast_scope(&none), 0);
    }
    TEST("a scope does not change the kind") {
        nkt_ip ip = ip_of("fe80::1%4");
        CHECK_INT(nkt_ip_classify(&ip), NKT_KIND_LINK_LOCAL);
    }
    TEST("6to4 and Teredo are as global as the IPv4 address inside") {
        static const struct { const char *text; nkt_ip_kind kind; int global; } rows[] = {
            {"2002:808:808::1", NKT_KIND_6TO4, 1}, {"2002:a00:1::1", NKT_KIND_6TO4, 0},
            {"2002:7f00:1::", NKT_KIND_6TO4, 0}, {"2002:c000:9::", NKT_KIND_6TO4, 1},
            {"2002:e000:1::", NKT_KIND_6TO4, 0},
            {"2001:0:4136:e378:8000:63bf:f7f7:f7f7", NKT_KIND_TEREDO, 1},
            {"2001:0:4136:e378:8000:63bf:3f57:fefe", NKT_KIND_TEREDO, 0},
        };
        for (size_t i = 0; i < COUNT(rows); i++) {
            nkt_ip ip = ip_of(rows[i].text);
            CHECK_INT(nkt_ip_classify(&ip), rows[i].kind);
            CHECK_INT(nkt_ip_is_global(&ip), rows[i].global);
        }
    }
    TEST("every kind has a name of its own") {
        CHECK_STR(nkt_ip_kind_name(NKT_KIND_NONE), "none");
        CHECK_STR(nkt_ip_kind_name(NKT_KIND_LOOPBACK), "loopback");
        CHECK_STR(nkt_ip_kind_name(NKT_KIND_V4_MAPPED), "IPv4-mapped");
        CHECK_STR(nkt_ip_kind_name(NKT_KIND_RESERVED), "reserved");
        CHECK_STR(nkt_ip_kind_name(NKT_KIND_GLOBAL), "global");
        for (int a = 0; a <= NKT_KIND_GLOBAL; a++) {
            for (int b = 0; b < a; b++) {
                CHECK(strcmp(nkt_ip_kind_name((nkt_ip_kind)a),
                             nkt_ip_kind_name((nkt_ip_kind)b)) != 0);
            }
        }
        CHECK_STR(nkt_ip_kind_name((nkt_ip_kind)(NKT_KIND_GLOBAL + 1)), "none");
        CHECK_STR(nkt_ip_kind_name((nkt_ip_kind)-1), "none");
    }
}

static void test_embedded(void) {
    static const struct { const char *text, *inside; } rows[] = {
        {"::ffff:127.0.0.1", "127.0.0.1"},          // RFC 4291 section 2.5.5.2
        {"::ffff:0:0", "0.0.0.0"},
        {"::127.0.0.1", "127.0.0.1"},               // RFC 4291 section 2.5.5.1
        {"::2", "0.0.0.2"}, {"::1:1", "0.1.0.1"}, {"::101", "0.0.1.1"},
        {"::255.255.255.255", "255.255.255.255"},
        {"::", ""}, {"::1", ""},                    // themselves, not 0.0.0.0 and 0.0.0.1
        {"2002:7f00:1::", "127.0.0.1"},             // RFC 3056 section 2
        {"2002:c000:204:1::5", "192.0.2.4"},
        {"2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.0.2.45"},     // RFC 4380 section 4
        {"64:ff9b::192.0.2.33", "192.0.2.33"},      // RFC 6052 section 2.4
        {"64:ff9b::", "0.0.0.0"},
        {"64:ff9b:1::192.0.2.33", ""},              // where it stands differs by network
        {"64:ff9b::1:0:0", ""}, {"64:ff9c::7f00:1", ""},
        {"::fffe:127.0.0.1", ""}, {"::1:127.0.0.1", ""}, {"::ffff:0:127.0.0.1", ""},
        {"1::ffff:127.0.0.1", ""}, {"2001:db8::ffff:7f00:1", ""}, {"2003:7f00:1::", ""},
        {"2001:1:4136:e378:8000:63bf:3fff:fdd2", ""}, {"fe80::7f00:1", ""}, {"127.0.0.1", ""},
    };
    TEST("known bug 2: an IPv4 address hidden in IPv6 is found, and only there") {
        for (size_t i = 0; i < COUNT(rows); i++) {
            nkt_ip ip = ip_of(rows[i].text), inside = nkt_ip_embedded(&ip);
            CHECK_STR(text_of(&inside), rows[i].inside);
        }
    }
    TEST("known bug 2: no disguise of a private address is called global") {
        static const char *const texts[] = {
            "::ffff:10.0.0.1", "::10.0.0.1", "2002:a00:1::", "::ffff:127.0.0.1", "::127.0.0.1",
            "2002:7f00:1::", "::ffff:169.254.169.254", "2002:a9fe:a9fe::", "::ffff:0.0.0.0",
            "2001:0:1:1:0:0:80ff:fffe",             // Teredo, 127.0.0.1
        };
        for (size_t i = 0; i < COUNT(texts); i++) {
            nkt_ip ip = ip_of(texts[i]);
            CHECK(!nkt_ip_is_global(&ip));
            CHECK(nkt_ip_classify(&ip) != NKT_KIND_GLOBAL);
        }
    }
}

static void test_multicast(void) {
    static const struct { const char *text; int scope; } rows[] = {
        {"ff01::1", 1}, {"ff02::1", 2}, {"ff03::1", 3}, {"ff04::1", 4}, {"ff05::2", 5},
        {"ff08::1", 8}, {"ff0e::101", 14}, {"ff32::8000:1", 2}, {"ff3e::1", 14}, {"ff00::", 0},
        {"ff0f::1", 15}, {"224.0.0.251", 2}, {"224.0.0.0", 2}, {"224.0.0.255", 2},
        {"224.0.1.0", 14}, {"224.1.0.0", 14}, {"232.1.2.3", 14}, {"239.191.255.255", 14},
        {"239.192.0.0", 8},
        {"239.195.255.255", 8}, {"239.196.0.0", 14}, {"239.254.255.255", 14},
        {"239.255.0.0", 4}, {"239.255.255.255", 4}, {"223.255.255.255", 0}, {"240.0.0.0", 0},
        {"fe80::1", 0}, {"::ffff:224.0.0.1", 0}, {"2002:e000:1::", 0},
    };
    TEST("multicast scopes of RFC 4291 section 2.7, RFC 7346 and RFC 2365") {
        for (size_t i = 0; i < COUNT(rows); i++) {
            nkt_ip ip = ip_of(rows[i].text);
            if (!CHECK_INT(nkt_ip_multicast_scope(&ip), rows[i].scope)) {
                printf("  of %s\n", rows[i].text);
            }
        }
    }
}

int main(void) {
    test_text();
    test_mutations();
    test_make();
    test_contains();
    test_kinds();
    test_embedded();
    test_multicast();
    return test_finish();
}
