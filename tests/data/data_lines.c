// data_lines.c - line reading against what CPython, Go and OpenJDK do
//
// Reads linereader/lines.tsv and behaviour_rules.json in $NKT_TEST_DATA. Each
// row has the bytes of a stream and the lines that seven kinds of reader make
// of them:
//
//     universal            read_line with cr_lines
//     lf_keep              read_until "\n"
//     lf_crlf              read_line
//     crlf_keep            read_until "\r\n"
//     cr_keep              read_until "\r"
//     universal_translate  computed: as universal, each line with "\n" where
//                          the stream had any end
//     go_scanlines         computed: as lf_crlf, but Go also takes a CR away
//                          from the end of a last line that has no LF. netkit
//                          keeps it: without an LF it is data, as anywhere else
//
// The bytes are fed by a transport of this file's own, whole, one at a time,
// and cut in two at every point, to a blocking handle and to a nonblocking one
// that says NKT_EAGAIN before each piece.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "nkt_kept.h"
#include "nkt_test.h"

//------------------------------------------------------------------------------
// A transport that hands out bytes in pieces.

typedef struct feed {
    const char *data;
    size_t len, at;
    size_t cut;             // a piece ends here; 0 = none
    bool by_byte;
    bool pausing;           // NKT_EAGAIN before each piece
    bool paused;
    bool empty_reads;       // after the data: 0 bytes, not NKT_EOF
    int ends;               // how often the end was asked for
} feed;

static ptrdiff_t feed_recv(nkt_link *link, void *buf, size_t cap) {
    feed *self = (feed *)link->self;
    size_t end = self->len;
    if (self->pausing && !self->paused) {
        self->paused = true;
        return NKT_EAGAIN;
    }
    self->paused = false;
    if (self->at == self->len) {
        self->ends++;
        return self->empty_reads ? 0 : NKT_EOF;
    }
    if (self->at < self->cut) end = self->cut;
    if (self->by_byte) end = self->at + 1;
    if (end - self->at > cap) end = self->at + cap;
    size_t len = end - self->at;
    memcpy(buf, self->data + self->at, len);
    self->at = end;
    return (ptrdiff_t)len;
}

static ptrdiff_t feed_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    (void)link;
    (void)pieces;
    (void)count;
    return NKT_EPIPE;
}

static int feed_shutdown_write(nkt_link *link) {
    (void)link;
    return NKT_OK;
}

static void feed_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    (void)link;
    (void)want;
    out->ready = true;
}

static void feed_close(nkt_link *link, bool abort) {
    (void)link;
    (void)abort;
}

static const nkt_transport feed_table = {
    sizeof(nkt_transport), "feed", feed_recv, feed_send, feed_shutdown_write,
    feed_watch, feed_close, NULL, NULL, NULL, NULL,
};

static nkt_conn *feed_open(feed *self, const nkt_stream_opts *stream) {
    nkt_conn *conn = NULL;
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &kept_env;
    opts.nonblocking = self->pausing;
    if (stream != NULL) opts.stream = *stream;
    CHECK_INT(nkt_conn_open_custom(&feed_table, self, &opts, &conn), NKT_OK);
    return conn;
}

// A call that says NKT_EAGAIN is made again, as often as there are pieces.
#define AGAIN(err, call, self)                                                           \
    do {                                                                                 \
        size_t turns = 0;                                                                \
        do (err) = (call);                                                               \
        while ((err) == NKT_EAGAIN && turns++ <= (self)->len + 2);                       \
    } while (0)

//------------------------------------------------------------------------------
// The rows.

#define LINES_MAX 1024
#define BYTES_MAX 4096

typedef struct lines {
    char bytes[BYTES_MAX];
    size_t used;
    size_t start[LINES_MAX + 1];
    size_t count;
} lines;

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Reads hex digits; where they end.
static const char *hex_bytes(const char *text, char *out, size_t *len) {
    *len = 0;
    while (hex_digit(text[0]) >= 0 && hex_digit(text[1]) >= 0 && *len < BYTES_MAX) {
        out[(*len)++] = (char)(unsigned char)(hex_digit(text[0]) * 16 + hex_digit(text[1]));
        text += 2;
    }
    return text;
}

// Reads ["6162", ""]; false if it is something else.
static bool lines_parse(const char *text, lines *out) {
    out->used = out->count = 0;
    out->start[0] = 0;
    if (*text++ != '[') return false;
    while (*text == '"' && out->count < LINES_MAX) {
        char one[BYTES_MAX];
        size_t len;
        text = hex_bytes(text + 1, one, &len);
        if (*text++ != '"' || out->used + len > BYTES_MAX) return false;
        memcpy(out->bytes + out->used, one, len);
        out->used += len;
        out->start[++out->count] = out->used;
        if (text[0] == ',' && text[1] == ' ') text += 2;
    }
    return text[0] == ']' && text[1] == 0;
}

static void lines_add(lines *to, const char *bytes, size_t len) {
    if (to->count == LINES_MAX || to->used + len > BYTES_MAX) {
        CHECK(to->count < LINES_MAX && to->used + len <= BYTES_MAX);
        return;
    }
    memcpy(to->bytes + to->used, bytes, len);
    to->used += len;
    to->start[++to->count] = to->used;
}

static const char *how;         // for the message of a failed row

static void lines_check(const lines *got, const lines *want, const char *column) {
    bool same = got->count == want->count;
    for (size_t i = 0; same && i < got->count; i++) same = got->start[i + 1] == want->start[i + 1];
    same = same && memcmp(got->bytes, want->bytes, got->used) == 0;
    if (!CHECK(same)) {
        printf("    column %s, fed %s: %u lines, not %u\n", column, how, (unsigned)got->count,
               (unsigned)want->count);
        for (size_t i = 0; i < got->count; i++) {
            printf("    got  ");
            test_print_bytes(got->bytes + got->start[i], got->start[i + 1] - got->start[i]);
            printf("\n");
        }
    }
}

typedef struct column {
    const char *name;
    const char *delimiter;      // NULL: read_line
    bool cr_lines;
} column;

static const column columns[5] = {
    {"universal", NULL, true},
    {"lf_keep", "\n", false},
    {"lf_crlf", NULL, false},
    {"crlf_keep", "\r\n", false},
    {"cr_keep", "\r", false},
};

// Reads the whole feed by one column's rule.
static void column_read(const column *by, feed *from, lines *got) {
    nkt_stream_opts stream;
    nkt_str view;
    int err;
    got->used = got->count = 0;
    got->start[0] = 0;
    memset(&stream, 0, sizeof stream);
    stream.cr_lines = by->cr_lines;
    from->at = 0;
    nkt_conn *conn = feed_open(from, &stream);
    if (conn == NULL) return;
    for (;;) {
        if (by->delimiter == NULL) {
            AGAIN(err, nkt_conn_read_line(conn, &view), from);
        } else {
            AGAIN(err, nkt_conn_read_until(conn, by->delimiter, strlen(by->delimiter), &view),
                  from);
        }
        if (err != NKT_OK || got->count == LINES_MAX) break;
        lines_add(got, view.ptr, view.len);
    }
    CHECK_INT(err, NKT_EOF);
    nkt_conn_close(conn);
}

// The two columns that follow from others.
static void computed_check(const char *data, size_t len, const lines *universal,
                           const lines *lf_crlf, const lines *translated, const lines *go) {
    static lines made;
    made.used = made.count = 0;
    for (size_t i = 0; i < universal->count; i++) {
        char one[BYTES_MAX];
        size_t at = universal->start[i], size = universal->start[i + 1] - at;
        bool open = i + 1 == universal->count && data[len - 1] != '\n' && data[len - 1] != '\r';
        memcpy(one, universal->bytes + at, size);
        if (!open && size < BYTES_MAX) one[size++] = '\n';
        lines_add(&made, one, size);
    }
    lines_check(&made, translated, "universal_translate");
    made = *lf_crlf;
    if (len > 0 && data[len - 1] == '\r') {
        made.used--;
        made.start[made.count]--;
    }
    lines_check(&made, go, "go_scanlines");
}

// Feeds one row in every way to every kind of reader.
static void row_check(const char *data, size_t len, const lines want[7]) {
    static lines got[5];
    for (int pausing = 0; pausing < 2; pausing++) {
        for (size_t way = 0; way <= len; way++) {       // 0: whole; len: one at a time
            char text[48];
            snprintf(text, sizeof text, "%s at %u, %s", way == 0 ? "whole" :
                     way == len ? "by byte" : "cut", (unsigned)way,
                     pausing != 0 ? "nonblocking" : "blocking");
            how = text;
            for (int i = 0; i < 5; i++) {
                feed from;
                memset(&from, 0, sizeof from);
                from.data = data;
                from.len = len;
                from.cut = way;
                from.by_byte = way == len;
                from.pausing = pausing != 0;
                column_read(&columns[i], &from, &got[i]);
                lines_check(&got[i], &want[i], columns[i].name);
            }
            computed_check(data, len, &got[0], &got[2], &want[5], &want[6]);
        }
    }
}

static void row_run(char *text, int number) {
    static lines want[7];
    char data[BYTES_MAX];
    size_t len;
    char *field[9];
    int count = 0;
    for (char *at = text; at != NULL && count < 9; count++) {
        field[count] = at;
        at = strchr(at, '\t');
        if (at != NULL) *at++ = 0;
    }
    if (!CHECK_INT(count, 9)) return;
    const char *rest = hex_bytes(field[0], data, &len);
    CHECK(*rest == 0 || strcmp(field[0], "-") == 0);
    for (int i = 0; i < 7; i++) {
        if (!CHECK(lines_parse(field[1 + i], &want[i]))) {
            printf("    line %d of the file\n", number);
            return;
        }
    }
    row_check(data, len, want);
}

static FILE *data_open(const char *name) {
    char path[1024];
    const char *folder = getenv("NKT_TEST_DATA");
    if (folder == NULL) return NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return fopen(path, "rb");
}

static void test_rows(void) {
    static char text[65536];
    char name[64];
    int number = 0, done = 0;
    FILE *file = data_open("linereader/lines.tsv");
    if (file == NULL) {
        TEST("lines.tsv") TEST_SKIP("no linereader/lines.tsv; set NKT_TEST_DATA");
        return;
    }
    while (fgets(text, sizeof text, file) != NULL) {
        text[strcspn(text, "\r\n")] = 0;
        number++;
        if (text[0] == '#' || text[0] == 0) continue;
        snprintf(name, sizeof name, "lines.tsv:%d", number);
        TEST(name) row_run(text, number);
        done++;
    }
    fclose(file);
    TEST("lines.tsv: all its rows") CHECK_INT(done, 1119);
}

//------------------------------------------------------------------------------
// behaviour_rules.json: seven rules in prose, each here as a test. The file is
// read to see that it has not grown an eighth.

static void test_rule_count(void) {
    TEST("behaviour_rules.json: its rules are those tested here") {
        static char text[65536];
        FILE *file = data_open("linereader/behaviour_rules.json");
        if (file == NULL) {
            TEST_SKIP("no linereader/behaviour_rules.json; set NKT_TEST_DATA");
        } else {
            int count = 0;
            text[fread(text, 1, sizeof text - 1, file)] = 0;
            fclose(file);
            for (char *at = text; (at = strstr(at, "\"rule\":")) != NULL; at++) count++;
            CHECK_INT(count, 7);
        }
    }
}

static void feed_init(feed *self, const char *data, size_t len, size_t cut) {
    memset(self, 0, sizeof *self);
    self->data = data;
    self->len = len;
    self->cut = cut;
}

#define CHECK_FED_LINE(conn, text)                                                       \
    do {                                                                                 \
        nkt_str fed_line;                                                                \
        if (CHECK_INT(nkt_conn_read_line(conn, &fed_line), NKT_OK)) {                    \
            CHECK_VIEW(fed_line, text);                                                  \
        }                                                                                \
    } while (0)

static void test_rules_of_cr(void) {
    nkt_stream_opts stream;
    char buf[64];
    feed from;
    memset(&stream, 0, sizeof stream);
    stream.cr_lines = true;
    TEST("rule: a lone CR ends the line without one more byte; LF is swallowed later") {
        feed_init(&from, "CR-Only\r\nnext\r", 14, 8);
        nkt_conn *conn = feed_open(&from, &stream);
        CHECK_FED_LINE(conn, "CR-Only");
        CHECK_INT(from.at, 8);          // no second receive was made
        CHECK_FED_LINE(conn, "next");
        nkt_conn_close(conn);
    }
    TEST("rule: a raw read after a CRLF line starts after the LF") {
        feed_init(&from, "CR/LF line\r\nMore data", 21, 0);
        nkt_conn *conn = feed_open(&from, &stream);
        CHECK_FED_LINE(conn, "CR/LF line");
        CHECK_INT(nkt_conn_read_exact(conn, buf, 9), NKT_OK);
        CHECK_MEM(buf, 9, "More data", 9);
        nkt_conn_close(conn);
    }
}

static void test_rules_of_limits(void) {
    static const char digits[] = "0123456789012345678901234567890123456789";
    static const char edge[] = "012345678901234\r\n012345678901234\r\n";
    nkt_stream_opts stream;
    char buf[64];
    nkt_str line;
    feed from;
    memset(&stream, 0, sizeof stream);
    TEST("rule: a line beyond the limit is said to be that, never split into lines") {
        stream.line_max = 16;
        feed_init(&from, digits, 40, 0);
        nkt_conn *conn = feed_open(&from, &stream);
        size_t have = 0;
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_ETOOLONG);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_ETOOLONG);
        while (have < 40) {
            ptrdiff_t got = nkt_conn_read(conn, buf + have, 40 - have);
            if (!CHECK(got > 0)) break;
            have += (size_t)got;
        }
        CHECK_MEM(buf, have, digits, 40);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EOF);
        nkt_conn_close(conn);
    }
    for (uint32_t max = 15; max <= 17; max++) {
        char name[96];
        snprintf(name, sizeof name, "rule: CR at the end of a full buffer is no data, limit %u",
                 (unsigned)max);
        TEST(name) {
            stream.line_max = max;
            for (size_t cut = 0; cut < sizeof edge - 1; cut++) {
                feed_init(&from, edge, sizeof edge - 1, cut);
                nkt_conn *conn = feed_open(&from, &stream);
                CHECK_FED_LINE(conn, "012345678901234");
                CHECK_FED_LINE(conn, "012345678901234");
                CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EOF);
                nkt_conn_close(conn);
            }
        }
    }
}

static void test_rules_of_the_rest(void) {
    char buf[64];
    nkt_str line;
    feed from;
    TEST("rule: a raw read after a line gives the buffered rest first") {
        feed_init(&from, "this is line1\nthis is line2\nthis is line 3\n", 43, 31);
        nkt_conn *conn = feed_open(&from, NULL);
        size_t have = 0;
        CHECK_FED_LINE(conn, "this is line1");
        for (;;) {
            ptrdiff_t got = nkt_conn_read(conn, buf + have, sizeof buf - have);
            if (got <= 0) {
                CHECK_INT(got, NKT_EOF);
                break;
            }
            have += (size_t)got;
        }
        CHECK_MEM(buf, have, "this is line2\nthis is line 3\n", 29);
        nkt_conn_close(conn);
    }
    // A transport that has nothing says NKT_EAGAIN; 0 is the end of its stream.
    TEST("rule: a source that gives 0 bytes is not asked for ever") {
        feed_init(&from, "last", 4, 0);
        from.empty_reads = true;
        nkt_conn *conn = feed_open(&from, NULL);
        CHECK_FED_LINE(conn, "last");
        for (int i = 0; i < 5; i++) CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EOF);
        CHECK_RANGE(from.ends, 1, 6);
        nkt_conn_close(conn);
    }
    TEST("rule: NUL bytes in a line are data") {
        feed_init(&from, "AAA\nBB\0B\n", 9, 0);
        nkt_conn *conn = feed_open(&from, NULL);
        CHECK_FED_LINE(conn, "AAA");
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_MEM(line.ptr, line.len, "BB\0B", 4);
        nkt_conn_close(conn);
    }
}

int main(void) {
    if (!kept_open()) return 1;
    test_rows();
    test_rule_count();
    test_rules_of_cr();
    test_rules_of_limits();
    test_rules_of_the_rest();
    kept_close();
    return test_finish();
}
