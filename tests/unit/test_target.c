// "host:port" as people write it: every form that is read, every one that is
// refused and with which words, and host names by RFC 1123.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NO_DEFAULT (-1)

static int all_bytes_are(const void *data, size_t len, int value) {
    const unsigned char *bytes = (const unsigned char *)data;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != value) return 0;
    }
    return 1;
}

// Reads from a buffer of exactly the right size, over two poisons.
static int parse(const char *text, size_t len, int32_t default_port, nkt_target *target,
                 nkt_problem *problem) {
    nkt_target first, second;
    char *copy = (char *)malloc(len > 0 ? len : 1);
    if (copy == NULL) abort();
    memcpy(copy, text, len);
    memset(&first, 0xAA, sizeof first);
    memset(&second, 0x55, sizeof second);
    memset(problem, 0xAA, sizeof *problem);
    int err = nkt_target_parse_n(copy, len, default_port, &first, problem);
    CHECK_INT(nkt_target_parse_n(copy, len, default_port, &second, NULL), err);
    if (err == NKT_OK) {
        CHECK(memcmp(&first, &second, sizeof first) == 0);
        CHECK(all_bytes_are(problem, sizeof *problem, 0xAA));
        *target = first;
    } else {
        CHECK(all_bytes_are(&first, sizeof first, 0xAA));
        CHECK(all_bytes_are(&second, sizeof second, 0x55));
        CHECK_INT(problem->err, err);
        CHECK(problem->offset >= 0 && (size_t)problem->offset <= len);
        CHECK(memchr(problem->text, '\0', sizeof problem->text) != NULL);
        CHECK(strstr(problem->text, "expected") != NULL || strstr(problem->text, "::") != NULL);
    }
    free(copy);
    return err;
}

// --- What is read ------------------------------------------------------------

static const struct good_row {
    const char *name, *text;
    int32_t default_port;
    nkt_target_kind kind;
    const char *host;           // the address, name or path
    int port;
    const char *written;
} good_rows[] = {
    {"IPv4 and port", "192.0.2.1:80", 7, NKT_TARGET_ADDR, "192.0.2.1", 80, "192.0.2.1:80"},
    {"IPv4 alone", "192.0.2.1", 7, NKT_TARGET_ADDR, "192.0.2.1", 7, "192.0.2.1:7"},
    {"IPv6 and port", "[2001:db8::1]:80", NO_DEFAULT, NKT_TARGET_ADDR, "2001:db8::1", 80,
     "[2001:db8::1]:80"},
    {"IPv6 in brackets", "[2001:DB8::1]", 7, NKT_TARGET_ADDR, "2001:db8::1", 7,
     "[2001:db8::1]:7"},
    {"IPv6 alone", "2001:db8::1", 7, NKT_TARGET_ADDR, "2001:db8::1", 7, "[2001:db8::1]:7"},
    {"loopback alone", "::1", 0, NKT_TARGET_ADDR, "::1", 0, "[::1]:0"},
    {"unspecified alone", "::", 65535, NKT_TARGET_ADDR, "::", 65535, "[::]:65535"},
    {"eight groups, the last decimal", "1:2:3:4:5:6:7:8", 7, NKT_TARGET_ADDR, "1:2:3:4:5:6:7:8",
     7, "[1:2:3:4:5:6:7:8]:7"},
    {"hex behind the last colon", "2001:db8::1:a", 7, NKT_TARGET_ADDR, "2001:db8::1:a", 7,
     "[2001:db8::1:a]:7"},
    {"IPv4 behind the last colon", "::ffff:192.0.2.1", 7, NKT_TARGET_ADDR, "::ffff:192.0.2.1", 7,
     "[::ffff:192.0.2.1]:7"},
    {"scope in brackets", "[fe80::1%3]:80", 7, NKT_TARGET_ADDR, "fe80::1%3", 80,
     "[fe80::1%3]:80"},
    {"scope without brackets", "fe80::1%3", 7, NKT_TARGET_ADDR, "fe80::1%3", 7, "[fe80::1%3]:7"},
    {"name and port", "example.org:80", 7, NKT_TARGET_NAME, "example.org", 80, "example.org:80"},
    {"name: port by its service", "example.org:http", 7, NKT_TARGET_NAME,
     "example.org", 80, "example.org:80"},
    {"name alone", "example.org", 7, NKT_TARGET_NAME, "example.org", 7, "example.org:7"},
    {"name as written", "Example.ORG", 7, NKT_TARGET_NAME, "Example.ORG", 7, "Example.ORG:7"},
    {"one label", "localhost:6379", 7, NKT_TARGET_NAME, "localhost", 6379, "localhost:6379"},
    {"dot at the end", "example.org.:80", 7, NKT_TARGET_NAME, "example.org.", 80,
     "example.org.:80"},
    {"RFC 1123 2.1 a digit first", "3com.example:1", 7, NKT_TARGET_NAME, "3com.example", 1,
     "3com.example:1"},
    {"RFC 2181 11 underscores", "_sip._tcp.example", 7, NKT_TARGET_NAME, "_sip._tcp.example", 7,
     "_sip._tcp.example:7"},
    {"numbers before the last label", "1.2.3.example", 7, NKT_TARGET_NAME, "1.2.3.example", 7,
     "1.2.3.example:7"},
    {"a last label that only begins with 0x", "host.0xfg", 7, NKT_TARGET_NAME, "host.0xfg", 7,
     "host.0xfg:7"},
    {"a last label with a digit and a letter", "a.1b", 7, NKT_TARGET_NAME, "a.1b", 7, "a.1b:7"},
    {"xn-- names are names", "xn--mnchen-3ya.example", 7, NKT_TARGET_NAME,
     "xn--mnchen-3ya.example", 7, "xn--mnchen-3ya.example:7"},
    {"a name of hex letters", "face:80", 7, NKT_TARGET_NAME, "face", 80, "face:80"},
    {"port alone", ":80", 7, NKT_TARGET_ANY, "", 80, ":80"},
    {"port 0 alone", ":0", NO_DEFAULT, NKT_TARGET_ANY, "", 0, ":0"},
    {"path", "unix:/run/x.sock", NO_DEFAULT, NKT_TARGET_UNIX, "/run/x.sock", 0,
     "unix:/run/x.sock"},
    {"path with colons and brackets", "unix:/a:b[c]:80", 7, NKT_TARGET_UNIX, "/a:b[c]:80", 0,
     "unix:/a:b[c]:80"},
    {"path that is not ASCII", "unix:./\xc3\xbc.sock", 7, NKT_TARGET_UNIX, "./\xc3\xbc.sock", 0,
     "unix:./\xc3\xbc.sock"},
    {"abstract name", "unix:@name", 7, NKT_TARGET_UNIX, "@name", 0, "unix:@name"},
    {"a host that is called unix", "unix.:80", 7, NKT_TARGET_NAME, "unix.", 80, "unix.:80"},
    {"unix and more is a name", "unixa", 7, NKT_TARGET_NAME, "unixa", 7, "unixa:7"},
    {"Unix is not unix", "UNIX:80", 7, NKT_TARGET_NAME, "UNIX", 80, "UNIX:80"},
};

static void check_target(const nkt_target *target, const struct good_row *row) {
    char text[NKT_IP_TEXT_MAX];
    CHECK_INT(target->kind, row->kind);
    CHECK_INT(target->port, row->port);
    CHECK_INT(target->host_len, strlen(target->host));
    CHECK(all_bytes_are(target->host + target->host_len,
                        sizeof target->host - target->host_len, 0));
    if (row->kind == NKT_TARGET_ADDR) {
        CHECK_STR(target->host, "");
        CHECK(nkt_ip_format(&target->ip, text, sizeof text) > 0);
        CHECK_STR(text, row->host);
    } else {
        CHECK_STR(target->host, row->host);
        CHECK(all_bytes_are(&target->ip, sizeof target->ip, 0));
    }
}

static void test_good_rows(void) {
    for (size_t i = 0; i < COUNT(good_rows); i++) {
        const struct good_row *row = &good_rows[i];
        TEST(row->name) {
            char text[300];
            nkt_problem problem;
            nkt_target target, again;
            int err = parse(row->text, strlen(row->text), row->default_port, &target, &problem);
            if (!CHECK_INT(err, NKT_OK)) continue;
            check_target(&target, row);
            CHECK_INT(nkt_target_parse(row->text, row->default_port, &again, NULL), NKT_OK);
            CHECK(memcmp(&target, &again, sizeof target) == 0);
            size_t len = strlen(row->written);
            CHECK_INT(nkt_target_format(&target, text, sizeof text), len);
            CHECK_STR(text, row->written);
            CHECK_INT(nkt_target_parse(text, NO_DEFAULT, &again, NULL), NKT_OK);
            CHECK(memcmp(&target, &again, sizeof target) == 0);
            memset(text, 0x55, sizeof text);
            CHECK_INT(nkt_target_format(&target, text, len), NKT_ENOSPACE);
            CHECK(all_bytes_are(text, sizeof text, 0x55));
            CHECK_INT(nkt_target_format(&target, text, len + 1), len);
        }
    }
}

// --- What is refused ---------------------------------------------------------

static const struct bad_row {
    const char *name, *text;
    int err;
    const char *field;
    int offset;
} bad_rows[] = {        // all without a default port
    {"bad: empty", "", NKT_ENAME, "address", 0},
    {"bad: IPv4 without a port", "192.0.2.1", NKT_EPORT, "port", 9},
    {"bad: IPv6 without a port", "::1", NKT_EPORT, "port", 3},
    {"bad: brackets without a port", "[::1]", NKT_EPORT, "port", 5},
    {"bad: name without a port", "example.org", NKT_EPORT, "port", 11},
    {"bad: name and empty port", "example.org:", NKT_EPORT, "port", 12},
    {"bad: colon alone", ":", NKT_EPORT, "port", 1},
    {"bad: port 65536", "a:65536", NKT_EPORT, "port", 2},
    {"bad: port with a leading zero", "a:080", NKT_EPORT, "port", 2},
    {"bad: port that is no service", "a:no-such-service", NKT_EPORT, "port", 2},
    {"bad: service of 16 bytes", "a:abcdefghijklmnop", NKT_EPORT, "port", 17},
    {"bad: service with a blank", "a:http ", NKT_EPORT, "port", 6},
    {"bad: blank behind the port", "a:80 ", NKT_EPORT, "port", 4},
    {"bad: path behind the port", "a:80/x", NKT_EPORT, "port", 4},
    {"bad: text behind the bracket", "[::1]x", NKT_EPORT, "port", 5},
    {"bad: port without a colon", "[::1]80", NKT_EPORT, "port", 5},
    {"bad: bracket not closed", "[::1:80", NKT_EADDR, "address", 7},
    {"bad: IPv4 in brackets", "[192.0.2.1]:80", NKT_EADDR, "address", 0},
    {"bad: name in brackets", "[example.org]:80", NKT_EADDR, "address", 1},
    {"bad: bracket inside", "a[::1]:80", NKT_EADDR, "address", 1},
    {"bad: scope that is none", "[fe80::1%no/such]:80", NKT_ENODEV, "scope", 9},
    {"bad: scope zero", "[fe80::1%0]:80", NKT_EADDR, "scope", 9},
    {"bad: bare scope that is none", "fe80::1%no/such", NKT_ENODEV, "scope", 8},
    {"ambiguous: the classic", "2001:db8::1:80", NKT_EAMBIGUOUS, "address", 0},
    {"ambiguous: loopback and port", "::1:80", NKT_EAMBIGUOUS, "address", 0},
    {"ambiguous: unspecified and port", ":::80", NKT_EAMBIGUOUS, "address", 0},
    {"ambiguous: no group that long", "2001:db8::1:65535", NKT_EAMBIGUOUS, "address", 0},
    {"ambiguous: no port that high", "2001:db8::1:70000", NKT_EAMBIGUOUS, "address", 0},
    {"ambiguous: eight groups and port", "1:2:3:4:5:6:7:8:80", NKT_EAMBIGUOUS, "address", 0},
    {"ambiguous: seven groups and gap", "1:2:3:4:5:6:7::8", NKT_EADDR, "address", 16},
    {"ambiguous: mapped and port", "::ffff:192.0.2.1:80", NKT_EAMBIGUOUS, "address", 0},
    {"ambiguous: scope and port", "fe80::1%3:80", NKT_EAMBIGUOUS, "address", 0},
    {"ambiguous: scope that is none, and port", "fe80::1%no/such:80", NKT_EAMBIGUOUS, "address",
     0},
    {"bad: IPv6 and empty port", "2001:db8::1:", NKT_EADDR, "address", 12},
    {"bad: two ports", "example.org:80:80", NKT_EADDR, "address", 0},
    {"bad: IPv4 and two ports", "192.0.2.1:80:80", NKT_EADDR, "address", 9},
    {"bad: URL", "http://example.org", NKT_ENAME, "host", 4},
    {"bad: star", "*:80", NKT_ENAME, "host", 0},
    {"bad: star alone", "*", NKT_ENAME, "host", 0},
    {"bad: blank in front", " example.org:80", NKT_ENAME, "host", 0},
    {"bad: blank in a name", "exam ple.org:80", NKT_ENAME, "host", 4},
    {"bad: user name", "user@example.org:80", NKT_ENAME, "host", 4},
    {"bad: percent", "192.0.2.1%1:80", NKT_ENAME, "host", 9},
    {"bad: slash", "example.org/x:80", NKT_ENAME, "host", 11},
    {"bad: dot alone", ".:80", NKT_ENAME, "host", 0},
    {"bad: dot first", ".example.org:80", NKT_ENAME, "host", 0},
    {"bad: two dots", "example..org:80", NKT_ENAME, "host", 8},
    {"bad: two dots at the end", "example.org..:80", NKT_ENAME, "host", 12},
    {"bad: hyphen first", "-example.org:80", NKT_ENAME, "host", 0},
    {"bad: hyphen last", "example-.org:80", NKT_ENAME, "host", 7},
    {"bad: hyphen at the very end", "example.org-:80", NKT_ENAME, "host", 11},
    {"bad: not ASCII", "m\xc3\xbcnchen.example:80", NKT_EUNSUPPORTED, "host", 1},
    {"bad: not UTF-8", "caf\xe9:80", NKT_EUNSUPPORTED, "host", 3},
    {"bad: full-width dot", "a\xef\xbc\x8e" "b:80", NKT_EUNSUPPORTED, "host", 1},
    {"number: one", "1:80", NKT_EADDR, "address", 0},
    {"number: a port alone", "7777", NKT_EADDR, "address", 0},
    {"number: a long one", "3232235777:80", NKT_EADDR, "address", 0},
    {"number: hex", "0x7f000001:80", NKT_EADDR, "host", 0},
    {"number: short form", "127.1:80", NKT_EADDR, "address", 5},
    {"number: leading zero", "127.0.0.01:80", NKT_EADDR, "address", 8},
    {"number: field of 256", "192.0.2.256:80", NKT_EADDR, "address", 8},
    {"number: five fields", "1.2.3.4.5:80", NKT_EADDR, "address", 7},
    {"number: dot at the end", "192.0.2.1.:80", NKT_EADDR, "address", 9},
    {"number: hex field", "192.0.2.0x1:80", NKT_EADDR, "host", 8},
    {"number: hex field in capitals", "example.0XfF:80", NKT_EADDR, "host", 8},
    {"number: 0x and nothing", "example.0x:80", NKT_EADDR, "host", 8},
    {"number: behind a name", "example.12:80", NKT_EADDR, "host", 8},
    {"path: unix without a colon", "unix", NKT_ENAME, "host", 0},
    {"path: none", "unix:", NKT_ENAME, "path", 5},
    {"path: abstract and none", "unix:@", NKT_ENAME, "path", 6},
};

static void test_bad_rows(void) {
    for (size_t i = 0; i < COUNT(bad_rows); i++) {
        const struct bad_row *row = &bad_rows[i];
        TEST(row->name) {
            nkt_problem problem;
            nkt_target target;
            int err = parse(row->text, strlen(row->text), NO_DEFAULT, &target, &problem);
            CHECK_INT(err, row->err);
            CHECK_STR(problem.field, row->field);
            CHECK_INT(problem.offset, row->offset);
            if (row->err == NKT_EPORT) continue;
            // A default port does not make bad text good.
            CHECK_INT(parse(row->text, strlen(row->text), 7, &target, &problem), row->err);
            CHECK_INT(problem.offset, row->offset);
        }
    }
    TEST("a default port is from 0 to 65535") {
        nkt_problem problem;
        nkt_target target;
        memset(&target, 0xAA, sizeof target);
        CHECK_INT(nkt_target_parse("a:80", 65536, &target, &problem), NKT_EPORT);
        CHECK_STR(problem.field, "default_port");
        CHECK_INT(problem.offset, -1);
        CHECK_INT(nkt_target_parse("a:80", -2, &target, NULL), NKT_EPORT);
        CHECK_INT(nkt_target_parse(NULL, 80, &target, NULL), NKT_ENAME);
        CHECK(all_bytes_are(&target, sizeof target, 0xAA));
        CHECK_INT(nkt_target_parse("a", 0, &target, NULL), NKT_OK);
        CHECK_INT(target.port, 0);
        CHECK_INT(nkt_target_parse("a", 65535, &target, NULL), NKT_OK);
        CHECK_INT(target.port, 65535);
    }
    TEST("a target that is none is written as nothing") {
        char text[8] = "x";
        nkt_target none;
        memset(&none, 0, sizeof none);
        CHECK_INT(nkt_target_format(&none, text, sizeof text), 0);
        CHECK_STR(text, "");
    }
}

static void test_mutations(void) {
    TEST("a NUL anywhere is refused") {
        for (size_t i = 0; i < COUNT(good_rows); i++) {
            size_t len = strlen(good_rows[i].text);
            for (size_t at = 0; at <= len; at++) {
                char text[64];
                nkt_problem problem;
                nkt_target target;
                memcpy(text, good_rows[i].text, at);
                text[at] = '\0';
                memcpy(text + at + 1, good_rows[i].text + at, len - at);
                CHECK(parse(text, len + 1, 7, &target, &problem) < 0);
                memcpy(text, good_rows[i].text, len);
                text[at] = '\0';
                if (at < len) CHECK(parse(text, len, 7, &target, &problem) < 0);
            }
        }
    }
    TEST("every prefix is read or refused, and what is read comes back from its text") {
        for (size_t i = 0; i < COUNT(good_rows); i++) {
            for (size_t len = 0; len <= strlen(good_rows[i].text); len++) {
                char text[300];
                nkt_problem problem;
                nkt_target target, again;
                if (parse(good_rows[i].text, len, 7, &target, &problem) < 0) continue;
                int written = nkt_target_format(&target, text, sizeof text);
                if (!CHECK(written > 0)) continue;
                CHECK_INT(parse(text, (size_t)written, NO_DEFAULT, &again, &problem), NKT_OK);
                CHECK(memcmp(&target, &again, sizeof target) == 0);
            }
        }
    }
}

// --- Lengths -----------------------------------------------------------------

// A name of `len` bytes in labels of at most 63.
static void make_name(char *name, size_t len) {
    for (size_t i = 0; i < len; i++) name[i] = i % 64 == 63 ? '.' : 'a';
    if (len > 0 && name[len - 1] == '.') name[len - 1] = 'a';
    if (len > 0 && len % 64 == 0) name[len - 2] = '.';
    name[len] = '\0';
}

static void test_lengths(void) {
    TEST("a label has 1 to 63 bytes") {
        char text[80];
        nkt_problem problem;
        memset(text, 'a', sizeof text);
        CHECK_INT(nkt_host_check(text, 0, &problem), NKT_ENAME);
        CHECK_STR(problem.field, "host");
        CHECK_INT(nkt_host_check(text, 1, &problem), NKT_OK);
        CHECK_INT(nkt_host_check(text, 63, &problem), NKT_OK);
        CHECK_INT(nkt_host_check(text, 64, &problem), NKT_ENAME);
        CHECK(strstr(problem.text, "63") != NULL);
        memcpy(text + 63, ".a", 2);
        CHECK_INT(nkt_host_check(text, 65, &problem), NKT_OK);
        memcpy(text + 63, "a.", 2);
        CHECK_INT(nkt_host_check(text, 65, &problem), NKT_ENAME);
        memcpy(text, "b.aaaaaa", 8);
        CHECK_INT(nkt_host_check(text, 64, &problem), NKT_OK);      // 62 behind the dot
        CHECK_INT(nkt_host_check(NULL, 0, NULL), NKT_ENAME);
    }
    TEST("a path has at most 107 bytes") {
        char text[200];
        nkt_problem problem;
        nkt_target target;
        memset(text, 'p', sizeof text);
        memcpy(text, "unix:", 5);
        CHECK_INT(parse(text, 5 + 107, 7, &target, &problem), NKT_OK);
        CHECK_INT(target.host_len, NKT_UNIX_PATH_MAX);
        CHECK_INT(parse(text, 5 + 108, 7, &target, &problem), NKT_ETOOLONG);
        CHECK_STR(problem.field, "path");
        CHECK_INT(problem.offset, 5 + 107);
    }
}

static void test_name_lengths(void) {
    static const struct { size_t len; int dot, err; } rows[] = {
        {252, 0, NKT_OK}, {253, 0, NKT_OK}, {253, 1, NKT_OK}, {254, 0, NKT_ENAME},
        {254, 1, NKT_ENAME}, {255, 0, NKT_ENAME}, {256, 0, NKT_ENAME}, {300, 0, NKT_ENAME},
        {65536 + 10, 0, NKT_ENAME}, {65536 + 253, 1, NKT_ENAME},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char name[80];
        snprintf(name, sizeof name, "known bug 6: a name of %d bytes%s", (int)rows[i].len,
                 rows[i].dot ? " and a dot" : "");
        TEST(name) {
            char *text = (char *)malloc(rows[i].len + 8);
            if (text == NULL) abort();
            nkt_problem problem;
            nkt_target target;
            make_name(text, rows[i].len);
            if (rows[i].dot) memcpy(text + rows[i].len, ".", 2);
            size_t len = strlen(text);
            CHECK_INT(nkt_host_check(text, len, &problem), rows[i].err);
            CHECK_INT(parse(text, len, 80, &target, &problem), rows[i].err);
            if (rows[i].err == NKT_OK) CHECK_MEM(target.host, target.host_len, text, len);
            else CHECK_INT(problem.offset, NKT_HOST_MAX);
            memcpy(text + len, ":80", 4);
            CHECK_INT(parse(text, len + 3, NO_DEFAULT, &target, &problem), rows[i].err);
            if (rows[i].err == NKT_OK) {
                char back[300];
                CHECK_MEM(target.host, target.host_len, text, len);
                CHECK_INT(nkt_target_format(&target, back, sizeof back), len + 3);
                CHECK_STR(back, text);
            }
            free(text);
        }
    }
    TEST("known bug 6: a NUL inside a name is refused") {
        nkt_problem problem;
        CHECK_INT(nkt_host_check("good.example\0.evil", 18, &problem), NKT_ENAME);
        CHECK_INT(problem.offset, 12);
        CHECK_INT(nkt_host_check("\0", 1, &problem), NKT_ENAME);
        CHECK_INT(nkt_host_check("a\0", 2, &problem), NKT_ENAME);
    }
    TEST("known bug 3: a scope in URL form is not read as a host name") {
        nkt_problem problem;
        nkt_target target;
        const char *text = "[::1%25.example.com]:80";
        CHECK_INT(parse(text, strlen(text), 80, &target, &problem), NKT_ENODEV);
        CHECK_STR(problem.field, "scope");
    }
}

// --- Names -------------------------------------------------------------------

static void test_names(void) {
    TEST("each byte is allowed in a name or not") {
        static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                      "0123456789_";
        for (int byte = 0; byte < 256; byte++) {
            char name[4] = "a?b";
            nkt_problem problem;
            name[1] = (char)byte;
            int want = byte >= 0x80 ? NKT_EUNSUPPORTED : NKT_ENAME;
            if (byte != 0 && strchr(allowed, byte) != NULL) want = NKT_OK;
            if (byte == '.' || byte == '-') want = NKT_OK;
            if (!CHECK_INT(nkt_host_check(name, 3, &problem), want)) printf("  %d\n", byte);
            if (want < 0) CHECK_INT(problem.offset, 1);
        }
    }
    static const struct { const char *name; int local; } rows[] = {
        {"localhost", 1}, {"LOCALHOST", 1}, {"LocalHost.", 1}, {"a.localhost", 1},
        {"a.b.localhost.", 1}, {"localhost.example", 0}, {"notlocalhost", 0}, {"localhos", 0},
        {"ocalhost", 0}, {"localhost..", 0}, {"", 0}, {".", 0}, {"localhost.localdomain", 0},
        {"\x4c\x4f\x43\x41\x4c\x48\x4f\x53\x14", 0}, {"l\x4f" "calhost", 1},
    };
    TEST("RFC 6761 6.3: which names are local") {
        for (size_t i = 0; i < COUNT(rows); i++) {
            size_t len = strlen(rows[i].name);
            char *copy = (char *)malloc(len > 0 ? len : 1);
            if (copy == NULL) abort();
            memcpy(copy, rows[i].name, len);
            if (!CHECK_INT(nkt_host_is_local(copy, len), rows[i].local)) {
                printf("  of \"%s\"\n", rows[i].name);
            }
            free(copy);
        }
    }
}

int main(void) {
    test_good_rows();
    test_bad_rows();
    test_mutations();
    test_lengths();
    test_name_lengths();
    test_names();
    return test_finish();
}
