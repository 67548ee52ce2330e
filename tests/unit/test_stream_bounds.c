// test_stream_bounds.c - no peer can make one call cost without bound
//
// A hostile peer chooses how bytes come: one at a time, or without end. A call
// must stay linear in what it reads, keep to its time-out also while there is
// always more, hand a nonblocking program its turn back, and tell an event that
// nobody reacts to without spinning. The peers here are transports.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "nkt_kept.h"
#include "nkt_test.h"

// Gives `total` bytes of a kind, `step` at a time, NKT_EAGAIN before each step
// if `pausing`; sends nothing.
typedef struct source {
    uint64_t total, given;
    size_t step;
    char byte;
    bool pausing, paused;
} source;

static ptrdiff_t source_recv(nkt_link *link, void *buf, size_t cap) {
    source *self = (source *)link->self;
    if (self->pausing && !self->paused) {
        self->paused = true;
        return NKT_EAGAIN;
    }
    self->paused = false;
    uint64_t left = self->total - self->given;
    size_t len = self->step < cap ? self->step : cap;
    if (left < len) len = (size_t)left;
    if (len == 0) return NKT_EOF;
    memset(buf, self->byte, len);
    self->given += len;
    return (ptrdiff_t)len;
}

static ptrdiff_t source_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    (void)link;
    (void)pieces;
    (void)count;
    return NKT_EAGAIN;
}

static void source_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    (void)link;
    if ((want & NKT_READ) != 0) out->ready = true;
}

static void source_close(nkt_link *link, bool abort) {
    (void)link;
    (void)abort;
}

static const nkt_transport source_table = {
    sizeof(nkt_transport), "source", source_recv, source_send, NULL,
    source_watch, source_close, NULL, NULL, NULL, NULL,
};

static nkt_conn *source_open(source *self, nkt_conn_opts *opts) {
    nkt_conn *conn = NULL;
    opts->env = &kept_env;
    CHECK_INT(nkt_conn_open_custom(&source_table, self, opts, &conn), NKT_OK);
    return conn;
}

static double since_ms(int64_t start_ns) {
    return (double)(nkt_now_ns(NULL) - start_ns) / 1e6;
}

// What is quadratic takes 2e10 looks here; what is linear a blink.
#define LONG_ITEM 200000

static void test_byte_by_byte(void) {
    static const struct { const char *name; int kind; } ways[] = {
        {"read_line is linear when bytes come one at a time", 0},
        {"read_until is linear when bytes come one at a time", 1},
        {"read_until with many partial matches is linear too", 2},
        {"read_message is linear when bytes come one at a time", 3},
    };
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        TEST(ways[i].name) {
            nkt_conn_opts opts;
            source from;
            nkt_str view;
            int err;
            memset(&opts, 0, sizeof opts);
            memset(&from, 0, sizeof from);
            opts.nonblocking = true;
            opts.stream.line_max = opts.stream.message_max = LONG_ITEM;
            from.total = LONG_ITEM;
            from.step = 1;
            from.byte = ways[i].kind == 3 ? '\0' : 'a';
            from.pausing = true;
            nkt_conn *conn = source_open(&from, &opts);
            int64_t start = nkt_now_ns(NULL);
            do {
                if (ways[i].kind == 0) err = nkt_conn_read_line(conn, &view);
                else if (ways[i].kind == 1) err = nkt_conn_read_until(conn, "bc", 2, &view);
                else if (ways[i].kind == 2) err = nkt_conn_read_until(conn, "aaaaaaab", 8, &view);
                else err = nkt_conn_read_message(conn, &view);
            } while (err == NKT_EAGAIN && since_ms(start) < 5000);
            CHECK_INT(err, NKT_OK);
            CHECK_RANGE(since_ms(start), 0, 5000);
            if (ways[i].kind != 3) CHECK_INT(view.len, LONG_ITEM);
            nkt_conn_close(conn);
        }
    }
}

// A changed delimiter must not inherit what was learned for another.
static void test_changed_delimiter(void) {
    TEST("read_until with another delimiter after NKT_EAGAIN looks again") {
        nkt_conn *a, *b;
        nkt_conn_opts opts;
        nkt_str view;
        memset(&opts, 0, sizeof opts);
        opts.nonblocking = true;
        CHECK_INT(nkt_conn_pair(&opts, NULL, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_write_str(b, "one;two|three"), NKT_OK);
        CHECK_INT(nkt_conn_read_until(a, "#", 1, &view), NKT_EAGAIN);
        CHECK_INT(nkt_conn_read_until(a, ";", 1, &view), NKT_OK);
        CHECK_VIEW(view, "one;");
        CHECK_INT(nkt_conn_read_until(a, "##", 2, &view), NKT_EAGAIN);
        CHECK_INT(nkt_conn_read_until(a, "o|", 2, &view), NKT_OK);
        CHECK_VIEW(view, "two|");
        CHECK_INT(nkt_conn_read_until(a, "ab", 2, &view), NKT_EAGAIN);
        CHECK_INT(nkt_conn_skip(a, 4), NKT_OK);
        CHECK_INT(nkt_conn_write_str(b, "abc"), NKT_OK);
        CHECK_INT(nkt_conn_read_until(a, "ab", 2, &view), NKT_OK);
        CHECK_VIEW(view, "eab");
        nkt_conn_close(a);
        nkt_conn_close(b);
    }
}

enum { SKIP_LINE, SKIP, EXACT, FLOODED };

static const char *const flooded_names[FLOODED] = {"skip_line", "skip", "read_exact"};

static int flooded_call(int which, nkt_conn *conn, char *room, size_t len) {
    if (which == SKIP_LINE) return nkt_conn_skip_line(conn);
    if (which == SKIP) return nkt_conn_skip(conn, (uint64_t)1 << 60);
    return nkt_conn_read_exact(conn, room, len);
}

// The source never runs dry within the test, however fast the machine.
static void test_flood(void) {
    const size_t len = (size_t)256 << 20;
    char *room = (char *)malloc(len);
    for (int which = 0; which < FLOODED; which++) {
        char name[96];
        nkt_conn_opts opts;
        source from;
        memset(&opts, 0, sizeof opts);
        snprintf(name, sizeof name, "%s meets its time-out under a flood", flooded_names[which]);
        TEST(name) {
            memset(&from, 0, sizeof from);
            from.total = (uint64_t)20 << 30;
            from.step = which == EXACT ? 1000 : 16384;
            from.byte = 'f';
            opts.nonblocking = false;
            opts.stream.read_timeout_ms = 20;
            nkt_conn *conn = source_open(&from, &opts);
            int64_t start = nkt_now_ns(NULL);
            int err = flooded_call(which, conn, room, len);
            CHECK_INT(err, NKT_ETIMEDOUT);
            CHECK_RANGE(since_ms(start), 20, 5000);
            CHECK(from.given < from.total);
            nkt_conn_close(conn);
        }
        snprintf(name, sizeof name, "%s gives the turn back under a flood", flooded_names[which]);
        TEST(name) {
            memset(&from, 0, sizeof from);
            from.total = (uint64_t)4 << 30;
            from.step = 16384;
            from.byte = 'f';
            opts.nonblocking = true;
            opts.stream.read_timeout_ms = 0;
            nkt_conn *conn = source_open(&from, &opts);
            nkt_interest interest;
            CHECK_INT(flooded_call(which, conn, room, len), NKT_EAGAIN);
            CHECK_RANGE(from.given, 1, 64 << 20);
            CHECK_INT(nkt_conn_watch(conn, NKT_READ, &interest), NKT_OK);
            CHECK(interest.ready);          // it has more to do, and says so
            uint64_t before = from.given;
            CHECK_INT(flooded_call(which, conn, room, len), NKT_EAGAIN);
            CHECK(from.given > before);     // it went on
            nkt_conn_close(conn);
        }
    }
    free(room);
}

// One busy peer gets 16 receives, then the others have their turn.
static void test_turns(void) {
    TEST("a busy connection gives way after 16 receives, and is told again") {
        char block[100];
        nkt_conn_opts opts;
        nkt_poller_opts poller_opts;
        nkt_poller *poller;
        nkt_event event;
        source from;
        memset(&opts, 0, sizeof opts);
        memset(&poller_opts, 0, sizeof poller_opts);
        memset(&from, 0, sizeof from);
        opts.nonblocking = true;
        from.total = 1 << 20;
        from.step = sizeof block;
        from.byte = 't';
        nkt_conn *conn = source_open(&from, &opts);
        poller_opts.env = &kept_env;
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, conn, NULL), NKT_OK);
        for (int turn = 1; turn <= 3; turn++) {
            CHECK_INT(nkt_poller_wait(poller, 1000), 1);
            CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
            CHECK(event.conn == conn && (event.events & NKT_READ) != 0);
            while (nkt_conn_read(conn, block, sizeof block) > 0) {
            }
            CHECK_INT(from.given, turn * 16 * (int)sizeof block);
        }
        nkt_conn_close(conn);
        nkt_poller_close(poller);
    }
}

// Events of `ms` milliseconds; nobody reacts to them but by fetching them.
static int count_waits(nkt_poller *poller, int ms) {
    int64_t start = nkt_now_ns(NULL);
    nkt_event event;
    int count = 0;
    while (since_ms(start) < ms) {
        nkt_poller_wait(poller, 10);
        while (nkt_poller_next(poller, &event) == NKT_OK) count++;
    }
    return count;
}

static void test_ignored_timeouts(void) {
    nkt_poller *poller;
    nkt_conn *a, *b;
    nkt_conn_opts opts;
    nkt_interest interest;
    nkt_event event;
    char block[16384];
    int err;
    memset(&opts, 0, sizeof opts);
    memset(block, 'b', sizeof block);
    opts.nonblocking = true;
    opts.stream.write_timeout_ms = 30;
    TEST("a write time-out that nobody reacts to is told, without spinning") {
        CHECK_INT(nkt_poller_open(NULL, &poller), NKT_OK);
        CHECK_INT(nkt_conn_pair(&opts, NULL, &a, &b), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, a, NULL), NKT_OK);
        while ((err = nkt_conn_write(a, block, sizeof block)) == NKT_OK) {
        }
        CHECK_INT(err, NKT_EAGAIN);
        CHECK_INT(nkt_poller_wait(poller, 2000), 1);
        CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
        CHECK((event.events & NKT_WRITE) != 0);
        CHECK_RANGE(count_waits(poller, 150), 0, 3);
        CHECK_INT(nkt_conn_flush(a), NKT_ETIMEDOUT);
        nkt_conn_close(a);
        nkt_conn_close(b);
        nkt_poller_close(poller);
    }
    TEST("who waits to read is not woken by a write time-out") {
        CHECK_INT(nkt_conn_pair(&opts, NULL, &a, &b), NKT_OK);
        while ((err = nkt_conn_write(a, block, sizeof block)) == NKT_OK) {
        }
        CHECK_INT(err, NKT_EAGAIN);
        CHECK_INT(nkt_conn_watch(a, NKT_READ, &interest), NKT_OK);
        CHECK(interest.deadline_ns == NKT_NEVER);
        CHECK_INT(nkt_conn_watch(a, NKT_WRITE, &interest), NKT_OK);
        CHECK(interest.deadline_ns != NKT_NEVER);
        nkt_conn_close(a);
        nkt_conn_close(b);
    }
}

// The promised NUL needs room behind the last byte, also where that is the last
// of a buffer.
static void test_nul_behind(void) {
    static const uint32_t lengths[] = {1, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097, 8191, 8192,
                                       8193, 65534, 65535, 65536, 65537, 131071, 131072, 131073};
    static const size_t steps[] = {1, 64, 4096, (size_t)1 << 20};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "a NUL stands behind a last line of %u bytes",
                 (unsigned)lengths[i]);
        TEST(name) {
            for (size_t k = 0; k < 2 * sizeof steps / sizeof steps[0]; k++) {
                nkt_conn_opts opts;
                source from;
                nkt_str line;
                int err;
                memset(&opts, 0, sizeof opts);
                memset(&from, 0, sizeof from);
                opts.nonblocking = from.pausing = k % 2 == 1;
                opts.stream.line_max = lengths[i];
                from.total = lengths[i];
                from.step = steps[k / 2];
                from.byte = 'n';
                nkt_conn *conn = source_open(&from, &opts);
                do err = nkt_conn_read_line(conn, &line);
                while (err == NKT_EAGAIN);
                if (CHECK_INT(err, NKT_OK) && CHECK_INT(line.len, lengths[i])) {
                    CHECK_INT(line.ptr[0], 'n');
                    CHECK_INT(line.ptr[line.len - 1], 'n');
                    CHECK_INT(line.ptr[line.len], 0);
                }
                do err = nkt_conn_read_line(conn, &line);
                while (err == NKT_EAGAIN);
                CHECK_INT(err, NKT_EOF);
                nkt_conn_close(conn);
            }
        }
    }
}

// Lines of all lengths one after the other, so that each way of finding their
// ends follows each other one, in the middle of a buffer and across its end.
typedef struct text_source {
    const char *text;
    size_t len, at, step;
    bool pausing, paused;
} text_source;

static ptrdiff_t text_recv(nkt_link *link, void *buf, size_t cap) {
    text_source *self = (text_source *)link->self;
    if (self->pausing && !self->paused) {
        self->paused = true;
        return NKT_EAGAIN;
    }
    self->paused = false;
    size_t len = self->step < cap ? self->step : cap;
    if (len > self->len - self->at) len = self->len - self->at;
    if (len == 0) return NKT_EOF;
    memcpy(buf, self->text + self->at, len);
    self->at += len;
    return (ptrdiff_t)len;
}

static const nkt_transport text_table = {
    sizeof(nkt_transport), "text", text_recv, source_send, NULL,
    source_watch, source_close, NULL, NULL, NULL, NULL,
};

#define MIXED_LINES 800

// How long the next line is: mostly short for a while, mostly long for a while.
static size_t mixed_length(uint32_t *state, int line) {
    *state = *state * 1664525 + 1013904223;
    uint32_t random = *state >> 8;
    switch (line / 50 % 4) {
    case 0: return random % 10;
    case 1: return random % 140;
    case 2: return random % 1500;
    default: return random % 20 == 0 ? random % 30000 : random % 300;
    }
}

// A line is its number and then a letter, so that a wrong beginning or end is
// seen. Returns how long it is without its end.
static size_t mixed_line(char *to, uint32_t *state, int line) {
    char number[16];
    int digits = snprintf(number, sizeof number, "%d ", line);
    size_t len = mixed_length(state, line);
    memset(to, 'a' + line % 26, len);
    memcpy(to, number, len < (size_t)digits ? len : (size_t)digits);
    return len;
}

static void mixed_lines_in(const char *text, size_t len, size_t step, bool pausing) {
    static char want[30001];
    nkt_conn_opts opts;
    text_source from = {text, len, 0, step, pausing, false};
    nkt_conn *conn = NULL;
    nkt_str line;
    uint32_t state = 1;
    int wrong = 0, err;
    memset(&opts, 0, sizeof opts);
    opts.nonblocking = pausing;
    if (!CHECK_INT(nkt_conn_open_custom(&text_table, &from, &opts, &conn), NKT_OK)) return;
    for (int i = 0; i < MIXED_LINES && wrong == 0; i++) {
        size_t want_len = mixed_line(want, &state, i);
        do err = nkt_conn_read_line(conn, &line);
        while (err == NKT_EAGAIN);
        bool same = err == NKT_OK && line.len == want_len && line.ptr[want_len] == '\0' &&
                    memcmp(line.ptr, want, want_len) == 0;
        if (same) continue;
        wrong++;
        CHECK_INT(err, NKT_OK);
        if (err == NKT_OK) CHECK_MEM(line.ptr, line.len, want, want_len);
    }
    CHECK_INT(wrong, 0);
    do err = nkt_conn_read_line(conn, &line);
    while (err == NKT_EAGAIN);
    CHECK_INT(err, NKT_EOF);
    nkt_conn_close(conn);
}

static void test_mixed_lines(void) {
    static const size_t steps[] = {13, 63, 64, 65, 1000, 4097, 65536, (size_t)1 << 24};
    size_t cap = 0, len = 0;
    uint32_t state = 1;
    for (int i = 0; i < MIXED_LINES; i++) cap += mixed_length(&state, i) + 2;
    char *text = (char *)malloc(cap);
    if (text == NULL) abort();
    state = 1;
    for (int i = 0; i < MIXED_LINES; i++) {
        len += mixed_line(text + len, &state, i);
        if (i % 3 == 0) text[len++] = '\r';
        text[len++] = '\n';
    }
    for (size_t i = 0; i < 2 * sizeof steps / sizeof steps[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "lines of all lengths, %llu bytes at a time%s",
                 (unsigned long long)steps[i / 2], i % 2 == 1 ? ", nonblocking" : "");
        TEST(name) mixed_lines_in(text, len, steps[i / 2], i % 2 == 1);
    }
    free(text);
}

int main(void) {
    if (!kept_open()) return 1;
    test_nul_behind();
    test_mixed_lines();
    test_byte_by_byte();
    test_changed_delimiter();
    test_flood();
    test_turns();
    test_ignored_timeouts();
    kept_close();
    return test_finish();
}
