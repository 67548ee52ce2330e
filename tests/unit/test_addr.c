// Addresses as values: reading, writing, order, hash, and the border to the
// system's struct sockaddr. The rows are the examples of RFC 4291, 4007, 5952
// and 6943; everything else is compared with a slow reader written here.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#ifndef _WIN32
    #include <net/if.h>
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

// A heap block of exactly `len` bytes: a sanitizer sees a read behind it.
static char *exact(const void *text, size_t len) {
    char *copy = (char *)malloc(len > 0 ? len : 1);
    if (copy == NULL) abort();
    if (len > 0) memcpy(copy, text, len);
    return copy;
}

static uint32_t random_state = 1;
static uint32_t random_below(uint32_t limit) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % limit;
}

static int all_bytes_are(const void *data, size_t len, int value) {
    const unsigned char *bytes = (const unsigned char *)data;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != value) return 0;
    }
    return 1;
}

// Reads from an exact buffer, over two different poisons: a failure must leave
// the output alone and say why, a success must have written every byte of it.
static int parse_ip(const char *text, size_t len, nkt_ip *ip, nkt_problem *problem) {
    nkt_ip first, second;
    char *copy = exact(text, len);
    memset(&first, 0xAA, sizeof first);
    memset(&second, 0x55, sizeof second);
    memset(problem, 0xAA, sizeof *problem);
    int err = nkt_ip_parse_n(copy, len, &first, problem);
    CHECK_INT(nkt_ip_parse_n(copy, len, &second, NULL), err);
    if (err == NKT_OK) {
        CHECK(memcmp(&first, &second, sizeof first) == 0);
        CHECK(all_bytes_are(problem, sizeof *problem, 0xAA));
        *ip = first;
    } else {
        CHECK(all_bytes_are(&first, sizeof first, 0xAA));
        CHECK(all_bytes_are(&second, sizeof second, 0x55));
        CHECK_INT(problem->err, err);
        CHECK_INT(problem->os_error, 0);
        CHECK(problem->offset >= 0 && (size_t)problem->offset <= len);
        CHECK(memchr(problem->text, '\0', sizeof problem->text) != NULL);
        CHECK(strstr(problem->text, "expected") != NULL || strstr(problem->text, "::") != NULL);
    }
    free(copy);
    return err;
}

static int parse_addr(const char *text, size_t len, nkt_addr *addr, nkt_problem *problem) {
    nkt_addr first, second;
    char *copy = exact(text, len);
    memset(&first, 0xAA, sizeof first);
    memset(&second, 0x55, sizeof second);
    memset(problem, 0xAA, sizeof *problem);
    int err = nkt_addr_parse_n(copy, len, &first, problem);
    CHECK_INT(nkt_addr_parse_n(copy, len, &second, NULL), err);
    if (err == NKT_OK) {
        CHECK(memcmp(&first, &second, sizeof first) == 0);
        *addr = first;
    } else {
        CHECK(all_bytes_are(&first, sizeof first, 0xAA));
        CHECK(all_bytes_are(&second, sizeof second, 0x55));
        CHECK_INT(problem->err, err);
        CHECK(problem->offset >= 0 && (size_t)problem->offset <= len);
    }
    free(copy);
    return err;
}

static nkt_ip ip_of(const char *text) {
    nkt_ip ip = nkt_ip_any(0);
    CHECK_INT(nkt_ip_parse(text, &ip), NKT_OK);
    return ip;
}

// The first interface there is, for scopes by name.
static uint32_t some_interface(char *name) {
    for (uint32_t index = 1; index < 1000; index++) {
        if (if_indextoname(index, name) != NULL) return index;
    }
    return 0;
}

// --- Reading an address ------------------------------------------------------

typedef struct good_row {
    const char *name;
    const char *text;
    const char *canonical;      // what it is written as
    const char *hex;            // 4 or 16 bytes
    uint32_t scope;
} good_row;

static const good_row good_rows[] = {
    {"IPv4", "192.0.2.1", "192.0.2.1", "c0000201", 0},
    {"IPv4 lowest", "0.0.0.0", "0.0.0.0", "00000000", 0},
    {"IPv4 highest", "255.255.255.255", "255.255.255.255", "ffffffff", 0},
    {"IPv4 fields of 1, 2 and 3 digits", "1.20.100.9", "1.20.100.9", "01146409", 0},
    {"RFC 4291 2.2.1 all groups", "ABCD:EF01:2345:6789:ABCD:EF01:2345:6789",
     "abcd:ef01:2345:6789:abcd:ef01:2345:6789", "abcdef0123456789abcdef0123456789", 0},
    {"RFC 4291 2.2.1 short groups", "2001:DB8:0:0:8:800:200C:417A", "2001:db8::8:800:200c:417a",
     "20010db80000000000080800200c417a", 0},
    {"RFC 4291 2.2.2 unicast", "2001:DB8::8:800:200C:417A", "2001:db8::8:800:200c:417a",
     "20010db80000000000080800200c417a", 0},
    {"RFC 4291 2.2.2 multicast in full", "FF01:0:0:0:0:0:0:101", "ff01::101",
     "ff010000000000000000000000000101", 0},
    {"RFC 4291 2.2.2 multicast", "FF01::101", "ff01::101", "ff010000000000000000000000000101", 0},
    {"RFC 4291 2.2.2 loopback in full", "0:0:0:0:0:0:0:1", "::1",
     "00000000000000000000000000000001", 0},
    {"RFC 4291 2.2.2 loopback", "::1", "::1", "00000000000000000000000000000001", 0},
    {"RFC 4291 2.2.2 unspecified in full", "0:0:0:0:0:0:0:0", "::",
     "00000000000000000000000000000000", 0},
    {"RFC 4291 2.2.2 unspecified", "::", "::", "00000000000000000000000000000000", 0},
    {"RFC 4291 2.2.3 compatible in full", "0:0:0:0:0:0:13.1.68.3", "::d01:4403",
     "0000000000000000000000000d014403", 0},
    {"RFC 4291 2.2.3 mapped in full", "0:0:0:0:0:FFFF:129.144.52.38", "::ffff:129.144.52.38",
     "00000000000000000000ffff81903426", 0},
    {"RFC 4291 2.2.3 compatible", "::13.1.68.3", "::d01:4403",
     "0000000000000000000000000d014403", 0},
    {"RFC 4291 2.2.3 mapped", "::FFFF:129.144.52.38", "::ffff:129.144.52.38",
     "00000000000000000000ffff81903426", 0},
    {"RFC 5952 2.1 leading zeros", "2001:0db8:aaaa:bbbb:cccc:dddd:eeee:0001",
     "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1", "20010db8aaaabbbbccccddddeeee0001", 0},
    {"RFC 5952 2.1 fewer zeros", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:01",
     "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1", "20010db8aaaabbbbccccddddeeee0001", 0},
    {"RFC 5952 2.2 one zero group", "2001:db8:aaaa:bbbb:cccc:dddd::1",
     "2001:db8:aaaa:bbbb:cccc:dddd:0:1", "20010db8aaaabbbbccccdddd00000001", 0},
    {"RFC 5952 2.2 gap of four", "2001:db8::aaaa:0:0:1", "2001:db8::aaaa:0:0:1",
     "20010db800000000aaaa000000000001", 0},
    {"RFC 5952 2.2 gap of the other two", "2001:db8:0:0:aaaa::1", "2001:db8::aaaa:0:0:1",
     "20010db800000000aaaa000000000001", 0},
    {"RFC 5952 2.3 upper case", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:AAAA",
     "2001:db8:aaaa:bbbb:cccc:dddd:eeee:aaaa", "20010db8aaaabbbbccccddddeeeeaaaa", 0},
    {"RFC 5952 2.3 mixed case", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:AaAa",
     "2001:db8:aaaa:bbbb:cccc:dddd:eeee:aaaa", "20010db8aaaabbbbccccddddeeeeaaaa", 0},
    {"RFC 5952 4.1", "2001:0db8::0001", "2001:db8::1", "20010db8000000000000000000000001", 0},
    {"RFC 5952 4.1 a group of 0000", "2001:db8:1:0000:1:1:1:1", "2001:db8:1:0:1:1:1:1",
     "20010db8000100000001000100010001", 0},
    {"RFC 5952 4.2.1", "2001:db8:0:0:0:0:2:1", "2001:db8::2:1",
     "20010db8000000000000000000020001", 0},
    {"RFC 5952 4.2.1 a zero beside the gap", "2001:db8::0:1", "2001:db8::1",
     "20010db8000000000000000000000001", 0},
    {"RFC 5952 4.2.2", "2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1",
     "20010db8000000010001000100010001", 0},
    {"RFC 5952 4.2.2 shortened", "2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1",
     "20010db8000000010001000100010001", 0},
    {"RFC 5952 4.2.3 the longest run", "2001:0:0:1:0:0:0:1", "2001:0:0:1::1",
     "20010000000000010000000000000001", 0},
    {"RFC 5952 4.2.3 the first of equals", "2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1",
     "20010db8000000000001000000000001", 0},
    {"RFC 5952 4.3", "2001:DB8::ABCD:EF", "2001:db8::abcd:ef",
     "20010db80000000000000000abcd00ef", 0},
    {"RFC 5952 5", "::ffff:192.0.2.1", "::ffff:192.0.2.1",
     "00000000000000000000ffffc0000201", 0},
    {"RFC 5952 5 from hex", "0:0:0:0:0:ffff:c000:0201", "::ffff:192.0.2.1",
     "00000000000000000000ffffc0000201", 0},
    {"mapped zero", "::ffff:0:0", "::ffff:0.0.0.0", "00000000000000000000ffff00000000", 0},
    {"gap at the end", "1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0",
     "00010002000300040005000600070000", 0},
    {"gap at the start", "::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8",
     "00000002000300040005000600070008", 0},
    {"two zeros at the end", "1:2:3:4:5:6:0:0", "1:2:3:4:5:6::",
     "00010002000300040005000600000000", 0},
    {"IPv4 behind six groups", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304",
     "00010002000300040005000601020304", 0},
    {"IPv4 behind a gap of one", "1:2:3:4:5::1.2.3.4", "1:2:3:4:5:0:102:304",
     "00010002000300040005000001020304", 0},
    {"NAT64", "64:ff9b::192.0.2.33", "64:ff9b::c000:221", "0064ff9b0000000000000000c0000221", 0},
    {"RFC 4007 11.3 link-local", "fe80::1234%1", "fe80::1234%1",
     "fe800000000000000000000000001234", 1},
    {"RFC 4007 11.3 multicast", "ff02::5678%5", "ff02::5678%5",
     "ff020000000000000000000000005678", 5},
    {"RFC 4007 11.3 organization", "ff08::9abc%10", "ff08::9abc%10",
     "ff080000000000000000000000009abc", 10},
    {"scope behind an IPv4 tail", "fe80::1.2.3.4%7", "fe80::102:304%7",
     "fe800000000000000000000001020304", 7},
    {"scope behind a gap", "fe80::%3", "fe80::%3", "fe800000000000000000000000000000", 3},
    {"largest scope", "fe80::1%4294967295", "fe80::1%4294967295",
     "fe800000000000000000000000000001", 4294967295u},
    {"longest text", "1111:2222:3333:4444:5555:6666:255.255.255.255%4294967295",
     "1111:2222:3333:4444:5555:6666:ffff:ffff%4294967295",
     "111122223333444455556666ffffffff", 4294967295u},
};

static size_t bytes_of_hex(const char *hex, uint8_t *bytes) {
    size_t len = strlen(hex) / 2;
    for (size_t i = 0; i < len; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return len;
}

static void test_good_rows(void) {
    for (size_t i = 0; i < COUNT(good_rows); i++) {
        const good_row *row = &good_rows[i];
        TEST(row->name) {
            uint8_t bytes[16];
            size_t len = bytes_of_hex(row->hex, bytes);
            char text[NKT_IP_TEXT_MAX];
            nkt_problem problem;
            nkt_ip ip, again;
            if (!CHECK_INT(parse_ip(row->text, strlen(row->text), &ip, &problem), NKT_OK)) continue;
            CHECK_INT(ip.family, len == 4 ? NKT_IPV4 : NKT_IPV6);
            CHECK_MEM(ip.bytes, len, bytes, len);
            CHECK(all_bytes_are(ip.bytes + len, 16 - len, 0));
            CHECK_INT(ip.scope, row->scope);
            CHECK(all_bytes_are(ip.reserved, sizeof ip.reserved, 0));
            CHECK_INT(nkt_ip_format(&ip, text, sizeof text), strlen(row->canonical));
            CHECK_STR(text, row->canonical);
            CHECK_INT(nkt_ip_parse(row->text, &again), NKT_OK);
            CHECK(nkt_ip_equal(&ip, &again));
            CHECK_INT(nkt_ip_parse(text, &again), NKT_OK);
            CHECK(nkt_ip_equal(&ip, &again));
        }
    }
}

typedef struct bad_row {
    const char *name;
    const char *text;
    int err;
    const char *field;
    int offset;
} bad_row;

static const bad_row bad_rows[] = {
    {"empty", "", NKT_EADDR, "address", 0},
    {"a word", "localhost", NKT_EADDR, "address", 0},
    {"RFC 6943 3.1.1 one number", "3232235777", NKT_EADDR, "address", 0},
    {"RFC 6943 3.1.1 two fields", "127.1", NKT_EADDR, "address", 5},
    {"RFC 6943 3.1.1 three fields", "10.0.258", NKT_EADDR, "address", 5},
    {"RFC 6943 3.1.1 hex fields", "0x7f.0.0.1", NKT_EADDR, "address", 1},
    {"RFC 6943 3.1.1 octal fields", "012.0.0.1", NKT_EADDR, "address", 0},
    {"RFC 6943 3.1.1 one hex number", "0xc0a80101", NKT_EADDR, "address", 0},
    {"leading zero in the last field", "1.2.3.04", NKT_EADDR, "address", 6},
    {"two zeros", "1.2.00.4", NKT_EADDR, "address", 4},
    {"a field of 256", "1.2.256.4", NKT_EADDR, "address", 4},
    {"a field of four digits", "1.2.3.1000", NKT_EADDR, "address", 6},
    {"a field of twenty digits", "1.2.3.18446744073709551617", NKT_EADDR, "address", 6},
    {"five fields", "1.2.3.4.5", NKT_EADDR, "address", 7},
    {"dot at the end", "1.2.3.4.", NKT_EADDR, "address", 7},
    {"dot at the start", ".1.2.3.4", NKT_EADDR, "address", 0},
    {"empty field", "1..3.4", NKT_EADDR, "address", 2},
    {"blank in front", " 1.2.3.4", NKT_EADDR, "address", 0},
    {"blank behind", "1.2.3.4 ", NKT_EADDR, "address", 7},
    {"line end behind", "1.2.3.4\n", NKT_EADDR, "address", 7},
    {"sign", "+1.2.3.4", NKT_EADDR, "address", 0},
    {"negative field", "1.-2.3.4", NKT_EADDR, "address", 2},
    {"prefix length", "10.0.0.0/8", NKT_EADDR, "address", 8},
    {"IPv4 and port", "1.2.3.4:80", NKT_EADDR, "address", 7},
    {"brackets around IPv4", "[1.2.3.4]", NKT_EADDR, "address", 0},
    {"brackets around IPv6", "[::1]", NKT_EADDR, "address", 0},
    {"IPv6 prefix length", "2001:db8::/32", NKT_EADDR, "address", 10},
    {"one colon", ":", NKT_EADDR, "address", 0},
    {"three colons", ":::", NKT_EADDR, "address", 2},
    {"two gaps", "1::2::3", NKT_EADDR, "address", 4},
    {"two gaps that touch", "::::", NKT_EADDR, "address", 2},
    {"colon at the start", ":1:2:3:4:5:6:7:8", NKT_EADDR, "address", 0},
    {"colon at the end", "1:2:3:4:5:6:7:", NKT_EADDR, "address", 14},
    {"colon behind eight groups", "1:2:3:4:5:6:7:8:", NKT_EADDR, "address", 16},
    {"seven groups", "1:2:3:4:5:6:7", NKT_EADDR, "address", 13},
    {"nine groups", "1:2:3:4:5:6:7:8:9", NKT_EADDR, "address", 16},
    {"a gap beside eight groups", "1:2:3:4::5:6:7:8", NKT_EADDR, "address", 16},
    {"a gap behind eight groups", "1:2:3:4:5:6:7:8::", NKT_EADDR, "address", 17},
    {"five hex digits", "2001:db8::12345", NKT_EADDR, "address", 10},
    {"five digits first", "02001:db8::1", NKT_EADDR, "address", 0},
    {"not a hex digit", "2001:dbg::1", NKT_EADDR, "address", 7},
    {"IPv4 in the middle", "::1.2.3.4:5", NKT_EADDR, "address", 9},
    {"IPv4 too late", "1:2:3:4:5:6:7:1.2.3.4", NKT_EADDR, "address", 14},
    {"IPv4 too early", "1:2:3:4:5:1.2.3.4", NKT_EADDR, "address", 17},
    {"IPv4 in front", "1.2.3.4::", NKT_EADDR, "address", 7},
    {"IPv4 tail with a leading zero", "::ffff:1.2.3.04", NKT_EADDR, "address", 13},
    {"IPv4 tail with a hex digit", "::ffff:1.2.3.a", NKT_EADDR, "address", 13},
    {"IPv4 tail that is short", "::1.2.3", NKT_EADDR, "address", 7},
    {"scope missing", "fe80::1%", NKT_EADDR, "scope", 8},
    {"scope zero", "fe80::1%0", NKT_EADDR, "scope", 8},
    {"scope with a leading zero", "fe80::1%01", NKT_EADDR, "scope", 8},
    {"scope too large", "fe80::1%4294967296", NKT_EADDR, "scope", 8},
    {"scope far too large", "fe80::1%18446744073709551617", NKT_EADDR, "scope", 8},
    {"scope of no interface", "fe80::1%no/such", NKT_ENODEV, "scope", 8},
    {"scope in URL form", "fe80::1%25no/such", NKT_ENODEV, "scope", 8},
    {"scope and prefix length", "fe80::1%1/64", NKT_ENODEV, "scope", 8},
    {"scope of 64 bytes",
     "fe80::1%nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn", NKT_ENODEV,
     "scope", 8},
    {"scope on IPv4", "1.2.3.4%1", NKT_EADDR, "scope", 7},
    {"scope on IPv4-mapped", "::ffff:1.2.3.4%1", NKT_EADDR, "scope", 14},
    {"scope on IPv4-mapped in hex", "::ffff:102:304%1", NKT_EADDR, "scope", 14},
    {"scope alone", "%1", NKT_EADDR, "address", 0},
};

static void test_bad_rows(void) {
    for (size_t i = 0; i < COUNT(bad_rows); i++) {
        const bad_row *row = &bad_rows[i];
        TEST(row->name) {
            nkt_problem problem;
            nkt_ip ip;
            CHECK_INT(parse_ip(row->text, strlen(row->text), &ip, &problem), row->err);
            CHECK_STR(problem.field, row->field);
            CHECK_INT(problem.offset, row->offset);
        }
    }
}

// --- A slow reader to compare with -------------------------------------------

// Cuts text at a separator and returns the number of pieces, at most 16.
static int cut(const char *text, size_t len, char by, nkt_str *pieces) {
    int count = 0;
    size_t from = 0;
    for (size_t i = 0; i <= len; i++) {
        if (i < len && text[i] != by) continue;
        if (count == 16) return 99;
        pieces[count].ptr = text + from;
        pieces[count].len = i - from;
        count++;
        from = i + 1;
    }
    return count;
}

static int slow_ip4(const char *text, size_t len, uint8_t *bytes) {
    nkt_str pieces[16];
    if (cut(text, len, '.', pieces) != 4) return 0;
    for (int i = 0; i < 4; i++) {
        int match = 0;
        for (int value = 0; value < 256; value++) {
            char right[16];
            snprintf(right, sizeof right, "%d", value);
            if (strlen(right) != pieces[i].len) continue;
            if (memcmp(right, pieces[i].ptr, pieces[i].len) != 0) continue;
            bytes[i] = (uint8_t)value;
            match = 1;
        }
        if (!match) return 0;
    }
    return 1;
}

// Groups between colons, into bytes; -1 if one is bad. IPv4 may be the last.
static int slow_groups(const char *text, size_t len, int ip4_allowed, uint8_t *bytes) {
    static const char digits[] = "00112233445566778899aAbBcCdDeEfF";
    nkt_str pieces[16];
    if (len == 0) return 0;
    int count = cut(text, len, ':', pieces);
    if (count > 8) return -1;
    int at = 0;
    for (int i = 0; i < count; i++) {
        if (i == count - 1 && ip4_allowed && at <= 12 &&
            slow_ip4(pieces[i].ptr, pieces[i].len, bytes + at)) {
            return at + 4;
        }
        if (pieces[i].len < 1 || pieces[i].len > 4) return -1;
        int value = 0;
        for (size_t k = 0; k < pieces[i].len; k++) {
            char c = pieces[i].ptr[k];
            const char *where = c == '\0' ? NULL : strchr(digits, c);
            if (where == NULL) return -1;
            value = value * 16 + (int)(where - digits) / 2;
        }
        bytes[at] = (uint8_t)(value / 256);
        bytes[at + 1] = (uint8_t)(value % 256);
        at += 2;
    }
    return at;
}

static int slow_ip(const char *text, size_t len, nkt_ip *ip) {
    uint8_t left[32], right[32];
    memset(ip, 0, sizeof *ip);
    ip->family = NKT_IPV4;
    if (slow_ip4(text, len, ip->bytes)) return 1;
    memset(ip, 0, sizeof *ip);
    ip->family = NKT_IPV6;
    size_t gap = 0;
    while (gap + 1 < len && (text[gap] != ':' || text[gap + 1] != ':')) gap++;
    if (gap + 1 >= len) {
        int count = slow_groups(text, len, 1, left);
        memcpy(ip->bytes, left, 16);
        return count == 16;
    }
    int before = slow_groups(text, gap, 0, left);
    int behind = slow_groups(text + gap + 2, len - gap - 2, 1, right);
    if (before < 0 || behind < 0 || before + behind > 14) return 0;
    memcpy(ip->bytes, left, (size_t)before);
    memcpy(ip->bytes + 16 - behind, right, (size_t)behind);
    return 1;
}

static void compare_with_slow(const char *text, size_t len) {
    nkt_problem problem;
    nkt_ip ip, slow;
    int right = slow_ip(text, len, &slow);
    int err = parse_ip(text, len, &ip, &problem);
    int same = right ? err == NKT_OK && memcmp(&ip, &slow, sizeof ip) == 0 : err == NKT_EADDR;
    if (!CHECK(same)) CHECK_MEM(text, len, "", 0);      // prints it
}

static void test_mutations(void) {
    TEST("every prefix of a good text is read as the slow reader reads it") {
        for (size_t i = 0; i < COUNT(good_rows); i++) {
            size_t len = strcspn(good_rows[i].text, "%");
            for (size_t k = 0; k <= len; k++) compare_with_slow(good_rows[i].text, k);
        }
    }
    TEST("a NUL, blank or byte from 0x80 anywhere is refused") {
        static const char bytes[] = {'\0', ' ', '\t', '\n', '\r', (char)0x80, (char)0xb1,
                                     (char)0xff};
        for (size_t i = 0; i < COUNT(good_rows); i++) {
            char text[128];
            size_t len = strlen(good_rows[i].text);
            for (size_t at = 0; at <= len; at++) {
                for (size_t k = 0; k < sizeof bytes; k++) {
                    nkt_problem problem;
                    nkt_ip ip;
                    memcpy(text, good_rows[i].text, at);
                    text[at] = bytes[k];
                    memcpy(text + at + 1, good_rows[i].text + at, len - at);
                    CHECK(parse_ip(text, len + 1, &ip, &problem) < 0);      // put in
                    memcpy(text, good_rows[i].text, len);
                    if (at == len) continue;
                    text[at] = bytes[k];
                    CHECK(parse_ip(text, len, &ip, &problem) < 0);          // instead
                }
            }
        }
    }
    TEST("20,000 random changes are read as the slow reader reads them") {
        static const char alphabet[] = "0123456789abcdefABCDEF::::....gG x";
        random_state = 20240607;
        for (int round = 0; round < 20000; round++) {
            char text[96];
            const char *from = good_rows[random_below(COUNT(good_rows))].text;
            size_t len = strcspn(from, "%");
            memcpy(text, from, len);
            for (uint32_t change = random_below(3) + 1; change > 0; change--) {
                size_t at = random_below((uint32_t)len + 1);
                char c = alphabet[random_below(sizeof alphabet - 1)];
                uint32_t what = random_below(3);
                if (what == 0) {                            // put in
                    memmove(text + at + 1, text + at, len - at);
                    text[at] = c;
                    len++;
                } else if (at < len && what == 1) {         // take out
                    memmove(text + at, text + at + 1, len - at - 1);
                    len--;
                } else if (at < len) {
                    text[at] = c;
                }
            }
            compare_with_slow(text, len);
        }
    }
}

// --- Writing -----------------------------------------------------------------

static void check_every_capacity(const nkt_ip *ip, const char *want) {
    size_t len = strlen(want);
    for (size_t cap = 0; cap <= NKT_IP_TEXT_MAX + 1; cap++) {
        char *buf = exact("", 0);
        free(buf);
        buf = (char *)malloc(cap > 0 ? cap : 1);
        if (buf == NULL) abort();
        memset(buf, 0xAA, cap);
        if (cap <= len) {
            CHECK_INT(nkt_ip_format(ip, buf, cap), NKT_ENOSPACE);
            CHECK(all_bytes_are(buf, cap, 0xAA));
        } else {
            CHECK_INT(nkt_ip_format(ip, buf, cap), len);
            CHECK_STR(buf, want);
        }
        free(buf);
    }
}

static void test_writing(void) {
    TEST("no address is written as nothing") {
        nkt_ip none = nkt_ip_any(0);
        CHECK_INT(none.family, 0);
        check_every_capacity(&none, "");
    }
    TEST("a buffer that is too small is left alone") {
        for (size_t i = 0; i < COUNT(good_rows); i += 7) {
            nkt_ip ip = ip_of(good_rows[i].text);
            check_every_capacity(&ip, good_rows[i].canonical);
        }
    }
    TEST("20,000 random addresses come back from their text") {
        random_state = 7;
        for (int round = 0; round < 20000; round++) {
            uint8_t bytes[16];
            char text[NKT_IP_TEXT_MAX];
            nkt_problem problem;
            for (int i = 0; i < 16; i++) bytes[i] = (uint8_t)random_below(256);
            for (int i = 0; i < 8; i++) {
                uint32_t what = random_below(4);
                if (what < 2) bytes[2 * i] = 0;
                if (what < 1) bytes[2 * i + 1] = 0;
            }
            nkt_ip back, ip = nkt_ip_from_bytes(bytes, random_below(8) == 0 ? 4 : 16);
            if (ip.family == NKT_IPV6 && random_below(4) == 0) ip.scope = random_below(70000);
            int len = nkt_ip_format(&ip, text, sizeof text);
            CHECK_INT(len, strlen(text));
            if (!CHECK_INT(parse_ip(text, (size_t)len, &back, &problem), NKT_OK)) break;
            CHECK(memcmp(&ip, &back, sizeof ip) == 0);
        }
    }
    TEST("the longest text fits in NKT_IP_TEXT_MAX, also with a long name") {
        char text[NKT_IP_TEXT_MAX];
        nkt_ip ip = ip_of("1111:2222:3333:4444:5555:6666:7777:8888%4294967295");
        CHECK_INT(nkt_ip_format(&ip, text, sizeof text), 50);
        CHECK_INT(nkt_ip_format_named(&ip, text, sizeof text), 50);
        CHECK_STR(text, "1111:2222:3333:4444:5555:6666:7777:8888%4294967295");
    }
}

// --- Scopes by name ----------------------------------------------------------

static void test_scopes(void) {
    TEST("a scope can be the name of an interface") {
        char name[256], text[300], out[NKT_IP_TEXT_MAX];
        uint32_t index = some_interface(name);
        if (index == 0) {
            TEST_SKIP("no network interface here; run it where there is a loopback one");
            continue;
        }
        nkt_problem problem;
        nkt_ip ip, by_number = nkt_ip_loopback(NKT_IPV6);
        by_number.scope = index;
        snprintf(text, sizeof text, "::1%%%s", name);
        CHECK_INT(parse_ip(text, strlen(text), &ip, &problem), NKT_OK);
        CHECK(nkt_ip_equal(&ip, &by_number));
        CHECK_INT(nkt_ip_format_named(&ip, out, sizeof out), strlen(text));
        CHECK_STR(out, text);
        CHECK_INT(nkt_ip_format_named(&ip, out, strlen(text)), NKT_ENOSPACE);
        CHECK_INT(nkt_ip_format_named(&ip, out, strlen(text) + 1), strlen(text));
        snprintf(text, sizeof text, "::1%%%u", (unsigned)index);
        CHECK_INT(nkt_ip_format(&ip, out, sizeof out), strlen(text));
        CHECK_STR(out, text);
    }
    TEST("a name and more is no interface") {
        char name[256], text[300];
        if (some_interface(name) == 0) {
            TEST_SKIP("no network interface here; run it where there is a loopback one");
            continue;
        }
        nkt_problem problem;
        nkt_ip ip;
        int len = snprintf(text, sizeof text, "::1%%%s", name);
        CHECK_INT(parse_ip(text, (size_t)len + 1, &ip, &problem), NKT_EADDR);   // the NUL too
        snprintf(text, sizeof text, "::1%%%s ", name);
        CHECK_INT(parse_ip(text, strlen(text), &ip, &problem), NKT_ENODEV);
        snprintf(text, sizeof text, "::1%%25%s", name);
        CHECK_INT(parse_ip(text, strlen(text), &ip, &problem), NKT_ENODEV);
    }
    TEST("without a scope or with an unknown one the named text is the plain one") {
        char text[NKT_IP_TEXT_MAX];
        nkt_ip ip = ip_of("192.0.2.1");
        CHECK_INT(nkt_ip_format_named(&ip, text, sizeof text), 9);
        CHECK_STR(text, "192.0.2.1");
        ip = ip_of("fe80::1");
        CHECK_INT(nkt_ip_format_named(&ip, text, sizeof text), 7);
        CHECK_STR(text, "fe80::1");
        ip.scope = 4000000000u;
        CHECK_INT(nkt_ip_format_named(&ip, text, sizeof text), 18);
        CHECK_STR(text, "fe80::1%4000000000");
        ip = nkt_ip_any(0);
        CHECK_INT(nkt_ip_format_named(&ip, text, sizeof text), 0);
        CHECK_STR(text, "");
    }
}

// --- Order, equality, hash ---------------------------------------------------

static const char *const ascending[] = {
    "",          "0.0.0.0",   "0.0.0.1",   "10.0.0.1",        "127.0.0.1",  "127.0.0.2",
    "128.0.0.0", "::",        "::%1",      "::1",             "::1%1",      "::1%2",
    "::1%4294967295", "::ffff:127.0.0.1", "2001:db8::1", "fe80::1", "fe80::1%9", "fe80::2",
    "ff02::1",
};

static void test_order(void) {
    TEST("addresses are in a total order, and equality and hash agree with it") {
        nkt_ip ips[COUNT(ascending)];
        for (size_t i = 0; i < COUNT(ascending); i++) {
            ips[i] = ascending[i][0] == '\0' ? nkt_ip_any(0) : ip_of(ascending[i]);
        }
        for (size_t i = 0; i < COUNT(ascending); i++) {
            for (size_t k = 0; k < COUNT(ascending); k++) {
                nkt_ip copy = ips[k];
                CHECK_INT(nkt_ip_compare(&ips[i], &copy), i < k ? -1 : i > k);
                CHECK_INT(nkt_ip_equal(&ips[i], &copy), i == k);
                CHECK_INT(nkt_ip_hash(&ips[i]) == nkt_ip_hash(&copy), i == k);
            }
        }
    }
    TEST("addresses and ports are ordered by address, port, flow label") {
        nkt_addr addrs[5];
        nkt_ip low = ip_of("192.0.2.1"), high = ip_of("192.0.2.2");
        addrs[0] = nkt_addr_make(&low, 80);
        addrs[1] = nkt_addr_make(&low, 256);
        addrs[2] = nkt_addr_make(&low, 65535);
        addrs[3] = nkt_addr_make(&high, 0);
        addrs[4] = addrs[3];
        addrs[4].flow_label = 1;
        for (int i = 0; i < 5; i++) {
            for (int k = 0; k < 5; k++) {
                CHECK_INT(nkt_addr_compare(&addrs[i], &addrs[k]), i < k ? -1 : i > k);
                CHECK_INT(nkt_addr_equal(&addrs[i], &addrs[k]), i == k);
                CHECK_INT(nkt_addr_hash(&addrs[i]) == nkt_addr_hash(&addrs[k]), i == k);
            }
        }
    }
    TEST("hashes are the same on every machine") {
        nkt_ip four = ip_of("192.0.2.1"), six = ip_of("2001:db8::1%3");
        nkt_addr addr = nkt_addr_make(&six, 443);
        CHECK(nkt_ip_hash(&four) == UINT64_C(0xde8a5f4123c2187e));
        CHECK(nkt_ip_hash(&six) == UINT64_C(0x7f1f0b5955905712));
        CHECK(nkt_addr_hash(&addr) == UINT64_C(0x01cb759b0d26b86d));
    }
    TEST("hashes of neighbours spread over the lowest bits") {
        int used[1024] = {0}, buckets = 0;
        for (uint32_t i = 0; i < 1024; i++) {
            nkt_ip ip = nkt_ip_from_u32(0x0a000000u + i);
            used[nkt_ip_hash(&ip) % 1024] = 1;
        }
        for (int i = 0; i < 1024; i++) buckets += used[i];
        CHECK_RANGE(buckets, 590, 710);         // 1024 (1 - 1/e) = 647 for random ones
    }
}

// --- Making addresses --------------------------------------------------------

static void test_making(void) {
    TEST("IPv4 to and from an integer") {
        static const struct { const char *text; uint32_t value; } rows[] = {
            {"127.0.0.1", 0x7f000001u}, {"0.0.0.0", 0}, {"255.255.255.255", 0xffffffffu},
            {"1.2.3.4", 0x01020304u}, {"128.0.0.0", 0x80000000u},
        };
        for (size_t i = 0; i < COUNT(rows); i++) {
            nkt_ip ip = ip_of(rows[i].text), made = nkt_ip_from_u32(rows[i].value);
            uint32_t value = 42;
            CHECK(memcmp(&ip, &made, sizeof ip) == 0);
            CHECK_INT(nkt_ip_to_u32(&ip, &value), NKT_OK);
            CHECK_INT(value, rows[i].value);
        }
        uint32_t value = 42;
        nkt_ip six = ip_of("::ffff:1.2.3.4"), none = nkt_ip_any(0);
        CHECK_INT(nkt_ip_to_u32(&six, &value), NKT_EINVAL);
        CHECK_INT(nkt_ip_to_u32(&none, &value), NKT_EINVAL);
        CHECK_INT(value, 42);
    }
    TEST("only 4 and 16 bytes make an address") {
        char *bytes = exact("\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\xff", 17);
        for (size_t len = 0; len <= 17; len++) {
            nkt_ip ip = nkt_ip_from_bytes(bytes, len);
            CHECK_INT(ip.family, len == 4 ? NKT_IPV4 : len == 16 ? NKT_IPV6 : 0);
            if (len != 4 && len != 16) CHECK(all_bytes_are(&ip, sizeof ip, 0));
        }
        nkt_ip six = nkt_ip_from_bytes(bytes, 16), four = nkt_ip_from_bytes(bytes, 4);
        nkt_ip six_text = ip_of("2001:db8::1"), four_text = ip_of("32.1.13.184");
        CHECK(memcmp(&six, &six_text, sizeof six) == 0);
        CHECK(memcmp(&four, &four_text, sizeof four) == 0);
        free(bytes);
    }
    TEST("loopback and any, by family") {
        nkt_ip got = nkt_ip_loopback(NKT_IPV4), want = ip_of("127.0.0.1");
        CHECK(memcmp(&got, &want, sizeof got) == 0);
        got = nkt_ip_loopback(NKT_IPV6);
        want = ip_of("::1");
        CHECK(memcmp(&got, &want, sizeof got) == 0);
        got = nkt_ip_any(NKT_IPV4);
        want = ip_of("0.0.0.0");
        CHECK(memcmp(&got, &want, sizeof got) == 0);
        got = nkt_ip_any(NKT_IPV6);
        want = ip_of("::");
        CHECK(memcmp(&got, &want, sizeof got) == 0);
        CHECK_INT(nkt_ip_any(NKT_UNIX).family, 0);
        CHECK_INT(nkt_ip_loopback(7).family, 0);
        CHECK_INT(nkt_ip_loopback(0).bytes[15], 0);
    }
    TEST("no text at all is refused like empty text") {
        nkt_ip ip = nkt_ip_any(0);
        nkt_addr addr;
        CHECK_INT(nkt_ip_parse(NULL, &ip), NKT_EADDR);
        CHECK_INT(nkt_ip_parse_n(NULL, 0, &ip, NULL), NKT_EADDR);
        CHECK_INT(nkt_addr_parse(NULL, &addr), NKT_EADDR);
    }
}

static void test_mapping(void) {
    TEST("mapping and unmapping") {
        nkt_ip four = ip_of("192.0.2.1"), mapped = ip_of("::ffff:192.0.2.1");
        nkt_ip plain = ip_of("::fffe:192.0.2.1"), none = nkt_ip_any(0), got;
        got = nkt_ip_map(&four);
        CHECK(memcmp(&got, &mapped, sizeof got) == 0);
        got = nkt_ip_unmap(&mapped);
        CHECK(memcmp(&got, &four, sizeof got) == 0);
        got = nkt_ip_unmap(&plain);
        CHECK(nkt_ip_equal(&got, &plain));
        got = nkt_ip_map(&plain);
        CHECK(nkt_ip_equal(&got, &plain));
        got = nkt_ip_map(&none);
        CHECK(nkt_ip_equal(&got, &none));
        got = nkt_ip_unmap(&four);
        CHECK(nkt_ip_equal(&got, &four));
        CHECK(!nkt_ip_equal(&four, &mapped));
    }
}

// --- Address and port --------------------------------------------------------

static const struct { const char *name, *text, *canonical; int port; } good_addrs[] = {
    {"IPv4 and port", "192.0.2.1:80", "192.0.2.1:80", 80},
    {"port 0", "192.0.2.1:0", "192.0.2.1:0", 0},
    {"port 65535", "192.0.2.1:65535", "192.0.2.1:65535", 65535},
    {"RFC 3986 3.2.2 IPv6 and port", "[2001:DB8::7]:389", "[2001:db8::7]:389", 389},
    {"unspecified and port", "[::]:1", "[::]:1", 1},
    {"mapped and port", "[::ffff:192.0.2.1]:80", "[::ffff:192.0.2.1]:80", 80},
    {"scope and port", "[fe80::1%3]:8080", "[fe80::1%3]:8080", 8080},
    {"longest", "[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535",
     "[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535", 65535},
};

static const bad_row bad_addrs[] = {
    {"addr: empty", "", NKT_EADDR, "address", 0},
    {"addr: no port", "192.0.2.1", NKT_EPORT, "port", 9},
    {"addr: colon and no port", "192.0.2.1:", NKT_EPORT, "port", 10},
    {"addr: port alone", ":80", NKT_EADDR, "address", 0},
    {"addr: port 65536", "192.0.2.1:65536", NKT_EPORT, "port", 10},
    {"addr: port of 20 digits", "192.0.2.1:18446744073709551696", NKT_EPORT, "port", 10},
    {"addr: port with a leading zero", "192.0.2.1:080", NKT_EPORT, "port", 10},
    {"addr: port 00", "192.0.2.1:00", NKT_EPORT, "port", 10},
    {"addr: port with a sign", "192.0.2.1:+80", NKT_EPORT, "port", 10},
    {"addr: negative port", "192.0.2.1:-1", NKT_EPORT, "port", 10},
    {"addr: hex port", "192.0.2.1:0x50", NKT_EPORT, "port", 11},
    {"addr: blank in the port", "192.0.2.1: 80", NKT_EPORT, "port", 10},
    {"addr: text behind the port", "192.0.2.1:80/", NKT_EPORT, "port", 12},
    {"addr: two ports", "192.0.2.1:80:81", NKT_EPORT, "port", 12},
    {"addr: service name", "192.0.2.1:http", NKT_EPORT, "port", 10},
    {"addr: name", "localhost:80", NKT_EADDR, "address", 0},
    {"addr: bad IPv4", "192.0.2.256:80", NKT_EADDR, "address", 8},
    {"addr: IPv4 with a scope", "192.0.2.1%1:80", NKT_EADDR, "address", 9},
    {"addr: IPv4 in brackets", "[192.0.2.1]:80", NKT_EADDR, "address", 0},
    {"addr: name in brackets", "[localhost]:80", NKT_EADDR, "address", 1},
    {"addr: empty brackets", "[]:80", NKT_EADDR, "address", 1},
    {"addr: bracket not closed", "[::1:80", NKT_EADDR, "address", 7},
    {"addr: bracket alone", "[", NKT_EADDR, "address", 1},
    {"addr: bracket not opened", "::1]:80", NKT_EAMBIGUOUS, "address", 0},
    {"addr: brackets and no port", "[::1]", NKT_EPORT, "port", 5},
    {"addr: brackets and no colon", "[::1]80", NKT_EPORT, "port", 5},
    {"addr: brackets twice", "[[::1]]:80", NKT_EADDR, "address", 1},
    {"addr: bad address in brackets", "[::12345]:80", NKT_EADDR, "address", 3},
    {"addr: scope that is none", "[fe80::1%no/such]:80", NKT_ENODEV, "scope", 9},
    {"addr: IPv6 without brackets", "::1", NKT_EAMBIGUOUS, "address", 0},
    {"addr: IPv6 and port without brackets", "2001:db8::1:80", NKT_EAMBIGUOUS, "address", 0},
    {"addr: eight groups and a port", "1:2:3:4:5:6:7:8:80", NKT_EAMBIGUOUS, "address", 0},
    {"addr: groups, port too long for a group", "2001:db8::1:65535", NKT_EAMBIGUOUS, "address",
     0},
    {"addr: blank in front", " 192.0.2.1:80", NKT_EADDR, "address", 0},
};

static void test_addrs(void) {
    for (size_t i = 0; i < COUNT(good_addrs); i++) {
        TEST(good_addrs[i].name) {
            const char *text = good_addrs[i].text, *canonical = good_addrs[i].canonical;
            char out[NKT_ADDR_TEXT_MAX];
            nkt_problem problem;
            nkt_addr addr, again;
            CHECK_INT(parse_addr(text, strlen(text), &addr, &problem), NKT_OK);
            CHECK_INT(addr.port, good_addrs[i].port);
            CHECK_INT(addr.flow_label, 0);
            CHECK_INT(addr.reserved, 0);
            CHECK_INT(nkt_addr_format(&addr, out, sizeof out), strlen(canonical));
            CHECK_STR(out, canonical);
            CHECK_INT(nkt_addr_format(&addr, out, strlen(canonical)), NKT_ENOSPACE);
            CHECK_INT(nkt_addr_format(&addr, out, strlen(canonical) + 1), strlen(canonical));
            CHECK_INT(nkt_addr_parse(canonical, &again), NKT_OK);
            CHECK(nkt_addr_equal(&addr, &again));
            for (size_t len = 0; len + 1 < strlen(text); len++) {
                int err = parse_addr(text, len, &again, &problem);
                // A port may lose digits, nothing else may be missing.
                int short_port = len > 0 && strchr("0123456789", text[len - 1]) != NULL &&
                                 memchr(text, text[0] == '[' ? ']' : ':', len) != NULL;
                CHECK_INT(err == NKT_OK, short_port);
            }
        }
    }
    for (size_t i = 0; i < COUNT(bad_addrs); i++) {
        TEST(bad_addrs[i].name) {
            nkt_problem problem;
            nkt_addr addr;
            CHECK_INT(parse_addr(bad_addrs[i].text, strlen(bad_addrs[i].text), &addr, &problem),
                      bad_addrs[i].err);
            CHECK_STR(problem.field, bad_addrs[i].field);
            CHECK_INT(problem.offset, bad_addrs[i].offset);
        }
    }
    TEST("every port comes back from its text") {
        nkt_ip ip = ip_of("192.0.2.1");
        for (int port = 0; port <= 65535; port++) {
            char text[NKT_ADDR_TEXT_MAX], want[NKT_ADDR_TEXT_MAX];
            nkt_addr back, addr = nkt_addr_make(&ip, (uint16_t)port);
            nkt_addr_format(&addr, text, sizeof text);
            snprintf(want, sizeof want, "192.0.2.1:%d", port);
            if (!CHECK_STR(text, want)) break;
            CHECK_INT(nkt_addr_parse(text, &back), NKT_OK);
            CHECK_INT(back.port, port);
        }
    }
    TEST("no address is written as nothing, whatever the port") {
        nkt_ip none = nkt_ip_any(0);
        nkt_addr addr = nkt_addr_make(&none, 80);
        char text[4] = "abc";
        CHECK_INT(nkt_addr_format(&addr, text, 0), NKT_ENOSPACE);
        CHECK_STR(text, "abc");
        CHECK_INT(nkt_addr_format(&addr, text, 1), 0);
        CHECK_STR(text, "");
    }
}

// --- The system's structures -------------------------------------------------

static void test_sockaddr(void) {
    TEST("IPv4 to and from struct sockaddr_in") {
        struct sockaddr_in in4;
        char *place = exact("", 0);
        nkt_addr back, addr;
        free(place);
        CHECK_INT(nkt_addr_parse("192.0.2.1:4660", &addr), NKT_OK);
        for (size_t cap = 0; cap < sizeof in4; cap++) {
            CHECK_INT(nkt_addr_to_sockaddr(&addr, &in4, cap), NKT_ENOSPACE);
        }
        memset(&in4, 0xAA, sizeof in4);
        CHECK_INT(nkt_addr_to_sockaddr(&addr, &in4, sizeof in4), sizeof in4);
        CHECK_INT(in4.sin_family, AF_INET);
        CHECK_MEM(&in4.sin_port, 2, "\x12\x34", 2);
        CHECK_MEM(&in4.sin_addr, 4, "\xc0\x00\x02\x01", 4);
        CHECK(all_bytes_are(in4.sin_zero, sizeof in4.sin_zero, 0));
        memset(&back, 0xAA, sizeof back);
        CHECK_INT(nkt_addr_from_sockaddr(&in4, sizeof in4, &back), NKT_OK);
        CHECK(memcmp(&back, &addr, sizeof back) == 0);
    }
    TEST("IPv6 to and from struct sockaddr_in6") {
        struct sockaddr_in6 in6;
        nkt_addr back, addr;
        CHECK_INT(nkt_addr_parse("[fe80::1:2%3]:4660", &addr), NKT_OK);
        addr.flow_label = 0x12345;
        for (size_t cap = 0; cap < sizeof in6; cap++) {
            CHECK_INT(nkt_addr_to_sockaddr(&addr, &in6, cap), NKT_ENOSPACE);
        }
        memset(&in6, 0xAA, sizeof in6);
        CHECK_INT(nkt_addr_to_sockaddr(&addr, &in6, sizeof in6), sizeof in6);
        CHECK_INT(in6.sin6_family, AF_INET6);
        CHECK_MEM(&in6.sin6_port, 2, "\x12\x34", 2);
        CHECK_MEM(&in6.sin6_flowinfo, 4, "\x00\x01\x23\x45", 4);
        CHECK_MEM(&in6.sin6_addr, 16, addr.ip.bytes, 16);
        CHECK_INT(in6.sin6_scope_id, 3);
        memset(&back, 0xAA, sizeof back);
        CHECK_INT(nkt_addr_from_sockaddr(&in6, sizeof in6, &back), NKT_OK);
        CHECK(memcmp(&back, &addr, sizeof back) == 0);
        // A traffic class in front of the flow label is not part of it.
        memcpy(&in6.sin6_flowinfo, "\x0f\xf1\x23\x45", 4);
        CHECK_INT(nkt_addr_from_sockaddr(&in6, sizeof in6, &back), NKT_OK);
        CHECK_INT(back.flow_label, 0x12345);
    }
}

static void test_odd_sockaddr(void) {
    TEST("structures that are short, foreign or lie anywhere") {
        union { struct sockaddr_in in4; struct sockaddr_in6 in6; } any;
        nkt_ip ip = ip_of("2001:db8::1");
        nkt_addr addr = nkt_addr_make(&ip, 99), back;
        CHECK_INT(nkt_addr_to_sockaddr(&addr, &any, sizeof any), sizeof any.in6);
        for (size_t len = 0; len < sizeof any.in6; len++) {
            char *copy = exact(&any, len);
            memset(&back, 0xAA, sizeof back);
            CHECK_INT(nkt_addr_from_sockaddr(copy, len, &back), NKT_EADDR);
            CHECK(all_bytes_are(&back, sizeof back, 0xAA));
            free(copy);
        }
        for (size_t shift = 0; shift < 8; shift++) {
            char place[NKT_SOCKADDR_MAX + 8];
            memset(place, 0xAA, sizeof place);
            CHECK_INT(nkt_addr_to_sockaddr(&addr, place + shift, sizeof any.in6),
                      sizeof any.in6);
            CHECK(all_bytes_are(place, shift, 0xAA));
            CHECK(all_bytes_are(place + shift + sizeof any.in6, 8, 0xAA));
            CHECK_INT(nkt_addr_from_sockaddr(place + shift, sizeof any.in6, &back), NKT_OK);
            CHECK(nkt_addr_equal(&addr, &back));
        }
        any.in6.sin6_family = AF_UNIX;
        CHECK_INT(nkt_addr_from_sockaddr(&any, sizeof any, &back), NKT_EADDR);
        any.in6.sin6_family = AF_UNSPEC;
        CHECK_INT(nkt_addr_from_sockaddr(&any, sizeof any, &back), NKT_EADDR);
        addr.ip = nkt_ip_any(0);
        memset(&any, 0xAA, sizeof any);
        CHECK_INT(nkt_addr_to_sockaddr(&addr, &any, sizeof any), NKT_EINVAL);
        CHECK(all_bytes_are(&any, sizeof any, 0xAA));
        CHECK_RANGE(sizeof any, 16, NKT_SOCKADDR_MAX);
    }
    TEST("an IPv4-mapped structure stays IPv6, and its text can be read back") {
        struct sockaddr_in6 in6;
        char text[NKT_ADDR_TEXT_MAX];
        nkt_addr addr, back;
        CHECK_INT(nkt_addr_parse("[::ffff:192.0.2.1]:7", &addr), NKT_OK);
        CHECK_INT(nkt_addr_to_sockaddr(&addr, &in6, sizeof in6), sizeof in6);
        in6.sin6_scope_id = 5;
        CHECK_INT(nkt_addr_from_sockaddr(&in6, sizeof in6, &back), NKT_OK);
        CHECK_INT(back.ip.family, NKT_IPV6);
        nkt_addr_format(&back, text, sizeof text);
        CHECK_STR(text, "[::ffff:192.0.2.1]:7");
    }
}

// --- Bugs that others had ----------------------------------------------------

static void test_known_bugs(void) {
    TEST("known bug 1: octal IPv4 fields are refused") {
        static const char *const texts[] = {
            "010.8.8.8", "127.0.0.01", "0127.0.0.1", "00.0.0.0", "0000.0.0.0", "192.168.010.1",
            "1.2.3.08", "1.2.3.00", "::ffff:010.8.8.8", "::127.0.0.01",
        };
        for (size_t i = 0; i < COUNT(texts); i++) {
            nkt_problem problem;
            nkt_ip ip;
            CHECK_INT(parse_ip(texts[i], strlen(texts[i]), &ip, &problem), NKT_EADDR);
            CHECK(strstr(problem.text, "leading zeros") != NULL);
        }
    }
    TEST("known bug 3: a scope is part of equality, order and hash") {
        nkt_ip none = ip_of("fe80::1"), one = ip_of("fe80::1%1"), two = ip_of("fe80::1%2");
        CHECK(!nkt_ip_equal(&none, &one));
        CHECK(!nkt_ip_equal(&one, &two));
        CHECK(nkt_ip_hash(&none) != nkt_ip_hash(&one));
        CHECK(nkt_ip_hash(&one) != nkt_ip_hash(&two));
        CHECK_INT(nkt_ip_compare(&none, &one), -1);
        CHECK_INT(nkt_ip_compare(&two, &one), 1);
    }
    TEST("known bug 3: a scope is never a host name") {
        nkt_problem problem;
        nkt_addr addr;
        const char *text = "[::1%25.example.com]:80";
        CHECK_INT(parse_addr(text, strlen(text), &addr, &problem), NKT_ENODEV);
        CHECK_STR(problem.field, "scope");
    }
    TEST("known bug 4: a failure writes nothing, a success every byte") {
        // parse_ip and parse_addr look at this on every call above; these are
        // texts that go wrong late, when most of the bytes are known.
        static const char *const texts[] = {
            "1.2.3.", "1.2.3.4x", "1:2:3:4:5:6:7:8:", "1:2:3:4:5:6:1.2.3.", "::1.2.3.256",
            "1:2:3:4:5:6:7:8%0", "1:2:3:4:5:6:7:8%no/such",
        };
        for (size_t i = 0; i < COUNT(texts); i++) {
            nkt_problem problem;
            nkt_ip ip;
            CHECK(parse_ip(texts[i], strlen(texts[i]), &ip, &problem) < 0);
        }
    }
    TEST("known bug 43: bytes from 0x80 are not digits, whatever char is") {
        for (int byte = 0x80; byte < 0x100; byte++) {
            char text[] = "1.2.3.?", six[] = "::?", port[] = "1.2.3.4:?";
            nkt_problem problem;
            nkt_addr addr;
            nkt_ip ip;
            text[6] = six[2] = port[8] = (char)byte;
            CHECK_INT(parse_ip(text, 7, &ip, &problem), NKT_EADDR);
            CHECK_INT(parse_ip(six, 3, &ip, &problem), NKT_EADDR);
            CHECK_INT(parse_addr(port, 9, &addr, &problem), NKT_EPORT);
        }
    }
}

int main(void) {
    test_good_rows();
    test_bad_rows();
    test_mutations();
    test_writing();
    test_scopes();
    test_order();
    test_making();
    test_mapping();
    test_addrs();
    test_sockaddr();
    test_odd_sockaddr();
    test_known_bugs();
    return test_finish();
}
