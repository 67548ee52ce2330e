// rows_read.h - scenario rows about reading; see scene.h

#ifndef NKT_TEST_ROWS_READ_H
#define NKT_TEST_ROWS_READ_H

#include "scene.h"

#ifndef ROW_TIMEOUT_MS
    #define ROW_TIMEOUT_MS 30       // of rows that want one to pass
#endif

//------------------------------------------------------------------------------
// Lines.

static void row_line(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "hello\n");
    CHECK_LINE(s, "hello");
}

static void row_lines_in_one_segment(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\ntwo\nthree\n");
    CHECK_LINE(s, "one");
    CHECK_LINE(s, "two");
    CHECK_LINE(s, "three");
}

static void row_line_ends(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "crlf\r\nlf\nmixed\r\nends\n\r\n\nlast\r\n");
    CHECK_LINE(s, "crlf");
    CHECK_LINE(s, "lf");
    CHECK_LINE(s, "mixed");
    CHECK_LINE(s, "ends");
    CHECK_LINE(s, "");
    CHECK_LINE(s, "");
    CHECK_LINE(s, "last");
}

static void row_cr_is_data(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "a\rb\r\r\nc\r\r\r\n\r\n");
    CHECK_LINE(s, "a\rb\r");
    CHECK_LINE(s, "c\r\r");
    CHECK_LINE(s, "");
}

static void row_cr_ends_lines(scene *s) {
    s->stream.cr_lines = true;
    if (!scene_open(s)) return;
    peer_say(&s->b, "a\rb\r\rc\r\n\rd\n\n\r\ne\r");
    CHECK_LINE(s, "a");
    CHECK_LINE(s, "b");
    CHECK_LINE(s, "");
    CHECK_LINE(s, "c");
    CHECK_LINE(s, "");
    CHECK_LINE(s, "d");
    CHECK_LINE(s, "");
    CHECK_LINE(s, "");
    CHECK_LINE(s, "e");
}

static void row_crlf_split(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "ab\r");
    CHECK_ARRIVED(s, 3);
    peer_say(&s->b, "\ncd\r");
    CHECK_LINE(s, "ab");
    CHECK_ARRIVED(s, 3);
    peer_say(&s->b, "ef\r\n");
    CHECK_LINE(s, "cd\ref");
}

// A reader that waited for the byte after a CR would hang on every program
// that ends its lines so and then waits for an answer.
static void row_cr_at_once(scene *s) {
    s->stream.cr_lines = true;
    if (!scene_open(s)) return;
    peer_say(&s->b, "ab\r");
    CHECK_LINE(s, "ab");
    peer_say(&s->b, "\ncd\r");
    CHECK_LINE(s, "cd");
    peer_say(&s->b, "\n\nef\r\n");
    CHECK_LINE(s, "");
    CHECK_LINE(s, "ef");
}

static void row_cr_then_bytes(scene *s) {
    char buf[8];
    nkt_str view;
    s->stream.cr_lines = true;
    if (!scene_open(s)) return;
    peer_say(&s->b, "ab\r");
    CHECK_LINE(s, "ab");
    peer_say(&s->b, "\nXY");
    CHECK_BYTES(s, "XY");
    peer_say(&s->b, "cd\r");
    CHECK_LINE(s, "cd");
    peer_say(&s->b, "\nZ");
    CHECK_INT(whole_peek(s, 1, &view), NKT_OK);
    CHECK_MEM(view.ptr, view.len > 1 ? 1 : view.len, "Z", 1);
    CHECK_INT(whole_read(s, buf, sizeof buf), 1);
    peer_say(&s->b, "ef\r");
    CHECK_LINE(s, "ef");
    peer_say(&s->b, "\n");
    peer_finish(&s->b);
    CHECK_END(s, NKT_EOF);
}

static void row_nul_bytes(scene *s) {
    static const char sent[] = "a\0b\n\0\n\0\0\r\nend\n";
    if (!scene_open(s)) return;
    peer_send(&s->b, sent, sizeof sent - 1);
    CHECK_LINE_N(s, "a\0b", 3);
    CHECK_LINE_N(s, "\0", 1);
    CHECK_LINE_N(s, "\0\0", 2);
    CHECK_LINE(s, "end");
}

static void row_empty_lines(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "\n\r\n\n\r\n");
    peer_finish(&s->b);
    for (int i = 0; i < 4; i++) CHECK_LINE(s, "");
    CHECK_END(s, NKT_EOF);
}

static void row_last_line_unterminated(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\nlast");
    peer_finish(&s->b);
    CHECK_LINE(s, "one");
    CHECK_LINE(s, "last");
    CHECK_END(s, NKT_EOF);
}

static void row_last_line_ends_in_cr(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "last\r");
    peer_finish(&s->b);
    CHECK_LINE(s, "last\r");
    CHECK_END(s, NKT_EOF);
}

static void row_eof_at_once(scene *s) {
    nkt_str view;
    char byte;
    if (!scene_open(s)) return;
    peer_finish(&s->b);
    CHECK_END(s, NKT_EOF);
    CHECK_INT(whole_until(s, "x", 1, &view), NKT_EOF);
    CHECK_INT(whole_exact(s, &byte, 1), NKT_EOF);
    CHECK_INT(whole_peek(s, 1, &view), NKT_EOF);
    CHECK_INT(whole_skip(s, 1), NKT_EOF);
    CHECK_INT(whole_skip_line(s), NKT_EOF);
    CHECK_INT(whole_message(s, &view), NKT_EOF);
}

static void row_eof_twice(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "x\n");
    peer_close(&s->b);
    CHECK_LINE(s, "x");
    CHECK_END(s, NKT_EOF);
    CHECK_END(s, NKT_EOF);
}

static void row_high_bytes(scene *s) {
    char all[256], got[256];
    nkt_str view;
    if (!scene_open(s)) return;
    for (int i = 0; i < 256; i++) all[i] = (char)(unsigned char)i;
    peer_send(&s->b, all + 128, 128);       // 0x80 to 0xff and a line end
    peer_send(&s->b, "\n", 1);
    CHECK_LINE_N(s, all + 128, 128);
    peer_send(&s->b, all + 128, 128);
    if (CHECK_INT(whole_until(s, "\xfe\xff", 2, &view), NKT_OK)) {
        CHECK_MEM(view.ptr, view.len, all + 128, 128);
    }
    peer_send(&s->b, all, 256);
    CHECK_INT(whole_exact(s, got, 256), NKT_OK);
    CHECK_MEM(got, sizeof got, all, sizeof all);
    peer_send(&s->b, "\0\0\0\x80", 4);      // a length of 128, not of -128
    peer_send(&s->b, all + 128, 128);
    if (CHECK_INT(whole_message(s, &view), NKT_OK)) {
        CHECK_MEM(view.ptr, view.len, all + 128, 128);
    }
    CHECK_INT(whole_write(s, all, 256), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(peer_recv_all(&s->b, got, 256), 256);
    CHECK_MEM(got, sizeof got, all, sizeof all);
}

static void row_byte_by_byte(scene *s) {
    static const char text[] = "one\r\ntwo\n\nfour\r\n";
    sender by_byte = {0};
    if (!scene_open(s)) return;
    by_byte.chunk = 1;
    by_byte.pause_ms = 1;
    if (!sender_start(&by_byte, &s->b, text, sizeof text - 1)) return;
    CHECK_LINE(s, "one");
    CHECK_LINE(s, "two");
    CHECK_LINE(s, "");
    CHECK_LINE(s, "four");
    actor_join(&by_byte.base);
}

static void row_every_split(scene *s) {
    static const char text[] = "ab\r\ncd\n";
    const size_t len = sizeof text - 1;
    if (!scene_open(s)) return;
    for (size_t cut = 1; cut < len; cut++) {
        peer_send(&s->b, text, cut);
        CHECK_ARRIVED(s, cut);
        if (cut >= 4) CHECK_LINE(s, "ab");
        peer_send(&s->b, text + cut, len - cut);
        if (cut < 4) CHECK_LINE(s, "ab");
        CHECK_LINE(s, "cd");
    }
}

static void row_one_byte_calls(scene *s) {
    char sent[SCENE_THRIFT > 1 ? 50 : 200];
    nkt_str view;
    collector all = {0};
    scene_env_one_byte(&s->env);
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\r\ntwo\nabcab$exactly");
    peer_send(&s->b, "\0\0\0\3xyz", 7);
    CHECK_LINE(s, "one");
    CHECK_LINE(s, "two");
    CHECK_UNTIL(s, "ab$", "abcab$");
    CHECK_BYTES(s, "exactly");
    if (CHECK_INT(whole_message(s, &view), NKT_OK)) CHECK_VIEW(view, "xyz");
    pattern_fill(sent, 0, sizeof sent);
    // Meanwhile: so many single bytes fill a Unix-domain socket.
    if (!collector_start(&all, &s->b, sizeof sent)) return;
    CHECK_INT(whole_write(s, sent, sizeof sent), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    actor_join(&all.base);
    CHECK_MEM(all.buf, all.have, sent, sizeof sent);
    free(all.buf);
    CHECK_INT(whole_shutdown_write(s), NKT_OK);
    peer_say(&s->b, "end");
    peer_finish(&s->b);
    CHECK_LINE(s, "end");
    CHECK_END(s, NKT_EOF);
}

static void row_many_lines(scene *s) {
    enum { COUNT = 10000 / SCENE_THRIFT };
    char *text = (char *)malloc(COUNT * 8);
    char want[16];
    sender pipeline = {0};
    if (!scene_open(s) || !CHECK(text != NULL)) {
        free(text);
        return;
    }
    for (int i = 0; i < COUNT; i++) snprintf(text + i * 7, 8, "%05d\r\n", i);
    sender_start(&pipeline, &s->b, text, COUNT * 7);
    for (int i = 0; i < COUNT; i++) {
        snprintf(want, sizeof want, "%05d", i);
        if (!CHECK_LINE(s, want)) break;
    }
    actor_join(&pipeline.base);
    free(text);
}

// The view must hold while the connection is written to.
static void row_view_lives(scene *s) {
    nkt_str line;
    char answer[8];
    if (!scene_open(s)) return;
    peer_say(&s->b, "ask\nnext\n");
    if (!CHECK_INT(whole_line(s, &line), NKT_OK)) return;
    CHECK_INT(whole_say(s, "answer\n"), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(peer_recv_all(&s->b, answer, 7), 7);
    CHECK_VIEW(line, "ask");
    CHECK_LINE(s, "next");
}

//------------------------------------------------------------------------------
// Lines and their limit.

static void say_long(scene *s, size_t len, const char *end) {
    char buf[512];
    memset(buf, 'x', sizeof buf);
    peer_send(&s->b, buf, len);
    peer_say(&s->b, end);
}

static void row_line_max(scene *s) {
    char want[100];
    memset(want, 'x', sizeof want);
    s->stream.line_max = 100;
    if (!scene_open(s)) return;
    say_long(s, 100, "\n");
    CHECK_LINE_N(s, want, 100);
    say_long(s, 100, "\r\n");
    CHECK_LINE_N(s, want, 100);
    say_long(s, 100, "\r");         // the CR is no more than the half of an end
    CHECK_ARRIVED(s, 100);
    peer_say(&s->b, "\n");
    CHECK_LINE_N(s, want, 100);
    say_long(s, 100, "");
    peer_finish(&s->b);
    CHECK_LINE_N(s, want, 100);
    CHECK_END(s, NKT_EOF);
}

static void row_line_too_long(scene *s) {
    nkt_str line;
    s->stream.line_max = 100;
    if (!scene_open(s)) return;
    say_long(s, 101, "\nnext\n");
    memset(&line, 0xaa, sizeof line);
    nkt_str before = line;
    CHECK_INT(whole_line(s, &line), NKT_ETOOLONG);
    CHECK_INT(whole_line(s, &line), NKT_ETOOLONG);
    CHECK(line.ptr == before.ptr && line.len == before.len);
    CHECK_INT(whole_skip_line(s), NKT_OK);
    CHECK_LINE(s, "next");
    say_long(s, 101, "\r\n");
    CHECK_INT(whole_line(s, &line), NKT_ETOOLONG);
    CHECK_INT(whole_skip_line(s), NKT_OK);
    say_long(s, 100, "\rx\nlast\r\n");
    CHECK_INT(whole_line(s, &line), NKT_ETOOLONG);
    CHECK_INT(whole_skip_line(s), NKT_OK);
    CHECK_LINE(s, "last");
}

// Not a byte more than the limit may be waited for before the verdict.
static void row_line_too_long_at_once(scene *s) {
    nkt_str line;
    s->stream.line_max = 100;
    if (!scene_open(s)) return;
    say_long(s, 101, "");
    CHECK_INT(whole_line(s, &line), NKT_ETOOLONG);
    peer_say(&s->b, "tail\nnext\n");
    CHECK_INT(whole_skip_line(s), NKT_OK);
    CHECK_LINE(s, "next");
}

static void row_line_in_pieces(scene *s) {
    char buf[512];
    nkt_str line;
    size_t have = 0;
    s->stream.line_max = 100;
    if (!scene_open(s)) return;
    say_long(s, 400, "\nnext\n");
    CHECK_INT(whole_line(s, &line), NKT_ETOOLONG);
    while (have < 400) {
        ptrdiff_t got = whole_read(s, buf + have, 400 - have);
        if (!CHECK(got > 0)) return;
        have += (size_t)got;
    }
    for (size_t i = 0; i < have; i++) {
        if (buf[i] != 'x') CHECK_INT(buf[i], 'x');
    }
    CHECK_LINE(s, "");              // what is left of the long line
    CHECK_LINE(s, "next");
}

static void row_line_max_cr(scene *s) {
    char want[100];
    nkt_str line;
    memset(want, 'x', sizeof want);
    s->stream.line_max = 100;
    s->stream.cr_lines = true;
    if (!scene_open(s)) return;
    say_long(s, 100, "\r");
    CHECK_LINE_N(s, want, 100);
    peer_say(&s->b, "\n");
    say_long(s, 101, "\rnext\r");
    CHECK_INT(whole_line(s, &line), NKT_ETOOLONG);
    CHECK_INT(whole_skip_line(s), NKT_OK);
    CHECK_LINE(s, "next");
}

// A skipped line may end in CR and, in another segment, LF.
static void row_lines_at_once(scene *s) {
    nkt_str lines;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\r\ntwo\n\nthr");
    CHECK_ARRIVED(s, 13);
    CHECK_LINES(s, "one\r\ntwo\n\n");
    peer_say(&s->b, "ee\nfour\nfive");
    CHECK_ARRIVED(s, 15);
    CHECK_LINE(s, "three");
    CHECK_LINES(s, "four\n");
    peer_say(&s->b, "!");
    peer_finish(&s->b);
    CHECK_LINES(s, "five!");
    CHECK_INT(whole_lines(s, &lines), NKT_EOF);
}

// A block of lines ends where one begins that is too long, and that is told.
static void row_lines_too_long(scene *s) {
    nkt_str lines;
    s->stream.line_max = 100;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\ntwo\n");
    say_long(s, 101, "\nnext\n");
    CHECK_ARRIVED(s, 100);
    CHECK_LINES(s, "one\ntwo\n");
    CHECK_INT(whole_lines(s, &lines), NKT_ETOOLONG);
    CHECK_INT(whole_lines(s, &lines), NKT_ETOOLONG);
    CHECK_INT(whole_skip_line(s), NKT_OK);
    CHECK_LINES(s, "next\n");
    say_long(s, 100, "\r\n");
    CHECK_INT(whole_lines(s, &lines), NKT_OK);
    CHECK_INT(lines.len, 102);
    say_long(s, 101, "");
    peer_finish(&s->b);
    CHECK_INT(whole_lines(s, &lines), NKT_ETOOLONG);
    CHECK_ARRIVED(s, 100);
}

static void row_lines_cr(scene *s) {
    s->stream.cr_lines = true;
    if (!scene_open(s)) return;
    peer_say(&s->b, "a\rb\r\nc\n\rd\r");
    CHECK_ARRIVED(s, 10);
    CHECK_LINES(s, "a\rb\r\nc\n\rd\r");
    peer_say(&s->b, "\ne\r");
    CHECK_LINE(s, "e");
    peer_say(&s->b, "\n\nf\r");
    CHECK_ARRIVED(s, 3);
    CHECK_LINES(s, "\nf\r");
}

// A caller that lost what a read gave goes back for it.
static void row_going_back(scene *s) {
    nkt_str view;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\ntwo\nabc$rest");
    CHECK_ARRIVED(s, 16);
    uint64_t start = nkt_conn_position(s->a);
    CHECK_LINES(s, "one\ntwo\n");
    CHECK_INT(nkt_conn_position(s->a), start + 8);
    CHECK_INT(nkt_conn_seek(s->a, start + 4), NKT_OK);
    CHECK_LINES(s, "two\n");
    CHECK_UNTIL(s, "$", "abc$");
    CHECK_INT(nkt_conn_peek_at(s->a, start + 4, 3, &view), NKT_OK);
    CHECK_MEM(view.ptr, 3, "two", 3);
    CHECK_INT(nkt_conn_position(s->a), start + 4);
    CHECK_INT(nkt_conn_buffered(s->a), view.len);
    CHECK_INT(nkt_conn_peek_at(s->a, start + 17, 1, &view), NKT_EINVAL);
    CHECK_INT(nkt_conn_position(s->a), start + 4);
    CHECK_INT(nkt_conn_seek(s->a, start), NKT_OK);
    CHECK_INT(nkt_conn_seek(s->a, start + 17), NKT_EINVAL);
    CHECK_INT(nkt_conn_position(s->a), start);
    CHECK_LINE(s, "one");
    CHECK_INT(nkt_conn_seek(s->a, start + 12), NKT_OK);
    CHECK_BYTES(s, "rest");
    CHECK_INT(nkt_conn_unread(s->a, "again\nre", 8), NKT_OK);
    CHECK_INT(nkt_conn_position(s->a), start + 8);
    peer_say(&s->b, "st\n");
    CHECK_LINE(s, "again");
    CHECK_LINES(s, "rest\n");
    peer_finish(&s->b);
    CHECK_END(s, NKT_EOF);
    CHECK_INT(nkt_conn_unread(s->a, "more", 4), NKT_OK);
    if (CHECK_INT(whole_peek(s, 4, &view), NKT_OK)) CHECK_VIEW(view, "more");
    CHECK_LINE(s, "more");
    CHECK_END(s, NKT_EOF);
    CHECK_INT(nkt_conn_unread(s->a, "x", (size_t)nkt_conn_position(s->a) + 1), NKT_EINVAL);
}

// A position behind a CR that ended a line: an LF that comes later is of it,
// also for who goes back to there, or on to there.
static void row_going_back_cr(scene *s) {
    s->stream.cr_lines = true;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\r");
    CHECK_LINE(s, "one");
    uint64_t behind = nkt_conn_position(s->a);
    peer_say(&s->b, "\ntwo\n");
    CHECK_ARRIVED(s, 4);
    CHECK_LINES(s, "two\n");
    CHECK_INT(nkt_conn_position(s->a), behind + 5);
    CHECK_INT(nkt_conn_seek(s->a, behind), NKT_OK);
    CHECK_LINES(s, "two\n");
    CHECK_INT(nkt_conn_seek(s->a, behind), NKT_OK);
    CHECK_BYTES(s, "two\n");
    peer_say(&s->b, "three\r");
    CHECK_ARRIVED(s, 6);
    uint64_t before = nkt_conn_position(s->a);
    CHECK_LINES(s, "three\r");
    CHECK_INT(nkt_conn_seek(s->a, before), NKT_OK);
    CHECK_INT(nkt_conn_seek(s->a, before + 6), NKT_OK);
    peer_say(&s->b, "\n\nfour\n");
    CHECK_LINE(s, "");
    CHECK_LINE(s, "four");
}

// More is put back than the buffer has room for.
static void row_unread_large(scene *s) {
    enum { LEN = 200000 };
    char *sent = (char *)malloc(LEN), *got = (char *)malloc(LEN);
    sender all = {0};
    if (!scene_open(s) || !CHECK(sent != NULL && got != NULL)) {
        free(sent);
        free(got);
        return;
    }
    pattern_fill(sent, 0, LEN);
    sender_start(&all, &s->b, sent, LEN);
    CHECK_INT(whole_exact(s, got, LEN - 10), NKT_OK);
    CHECK_INT(nkt_conn_unread(s->a, got, LEN - 10), NKT_OK);
    CHECK_INT(nkt_conn_position(s->a), 0);
    memset(got, 0, LEN);
    CHECK_INT(whole_exact(s, got, LEN), NKT_OK);
    CHECK_MEM(got, LEN, sent, LEN);
    actor_join(&all.base);
    free(sent);
    free(got);
}

static void row_skip_line(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "away\r");
    CHECK_ARRIVED(s, 5);
    peer_say(&s->b, "\nkept\nalso away");
    CHECK_INT(whole_skip_line(s), NKT_OK);
    CHECK_LINE(s, "kept");
    CHECK_ARRIVED(s, 9);
    peer_say(&s->b, " and this\r\nkept too\r\naway");
    CHECK_INT(whole_skip_line(s), NKT_OK);
    CHECK_LINE(s, "kept too");
    peer_finish(&s->b);
    CHECK_INT(whole_skip_line(s), NKT_OK);      // the last line has no end
    CHECK_INT(whole_skip_line(s), NKT_EOF);
}

static void row_long_line_allowed(scene *s) {
    enum { LEN = 1000000 / SCENE_THRIFT };
    sender big = {0};
    nkt_str line;
    char *text = (char *)malloc(LEN + 2);
    s->stream.line_max = LEN;
    if (scene_open(s) && CHECK(text != NULL)) {
        for (int i = 0; i < LEN; i++) text[i] = (char)('a' + i % 26);
        memcpy(text + LEN, "\r\n", 2);
        sender_start(&big, &s->b, text, LEN + 2);
        if (CHECK_INT(whole_line(s, &line), NKT_OK)) CHECK_MEM(line.ptr, line.len, text, LEN);
        actor_join(&big.base);
    }
    free(text);
}

typedef struct flood {
    actor base;
    peer *to;
    uint64_t len;
    bool ok;
} flood;

static void flood_run(actor *base) {
    static char zeros[65536];
    flood *self = (flood *)(void *)base;
    uint64_t sent = 0;
    while (sent < self->len && peer_send(self->to, zeros, sizeof zeros)) sent += sizeof zeros;
    self->ok = sent == self->len && peer_say(self->to, "\nnext\n");
}

static void row_endless_line(scene *s) {
    // netkit's buffers at both ends, memory's, and what may be under way.
    const int64_t bound = s->face->impaired == LATE ? 18 << 20 : 1 << 20;
    flood zeros = {0};
    nkt_str line;
    if (!scene_open(s)) return;
    zeros.to = &s->b;
    zeros.len = ((uint64_t)64 << 20) / SCENE_THRIFT;
    if (!actor_start(&zeros.base, flood_run)) return;
    CHECK_INT(whole_line(s, &line), NKT_ETOOLONG);
    CHECK_RANGE(s->env.peak, 0, bound);
    CHECK_INT(whole_skip_line(s), NKT_OK);
    CHECK_LINE(s, "next");
    CHECK_RANGE(s->env.peak, 0, bound);
    actor_join(&zeros.base);
    CHECK(zeros.ok);
}

//------------------------------------------------------------------------------
// Other ways to read.

static void row_read(scene *s) {
    char buf[64];
    if (!scene_open(s)) return;
    peer_say(&s->b, "hello");
    size_t have = 0;
    while (have < 5) {
        ptrdiff_t got = whole_read(s, buf + have, sizeof buf - have);
        if (!CHECK(got > 0)) return;
        have += (size_t)got;
    }
    CHECK_MEM(buf, have, "hello", 5);
    peer_say(&s->b, "abcdef");
    CHECK_ARRIVED(s, 6);
    CHECK_INT(whole_read(s, buf, 4), 4);
    CHECK_MEM(buf, 4, "abcd", 4);
    CHECK_INT(whole_read(s, buf, sizeof buf), 2);
    CHECK_MEM(buf, 2, "ef", 2);
}

static void row_cap_zero(scene *s) {
    char byte = 'k';
    if (!scene_open(s)) return;
    CHECK_INT(nkt_conn_read(s->a, &byte, 0), 0);
    CHECK_INT(nkt_conn_read_exact(s->a, &byte, 0), NKT_OK);
    CHECK_INT(nkt_conn_skip(s->a, 0), NKT_OK);
    peer_say(&s->b, "x\n");
    CHECK_ARRIVED(s, 2);
    CHECK_INT(nkt_conn_read(s->a, &byte, 0), 0);
    CHECK_INT(byte, 'k');
    CHECK_LINE(s, "x");
}

static void row_read_large(scene *s) {
    enum { LEN = 3000000 / SCENE_THRIFT };
    sender big = {0};
    char *buf = (char *)malloc(LEN);
    uint64_t have = 0;
    if (scene_open(s) && CHECK(buf != NULL) && sender_start(&big, &s->b, NULL, LEN)) {
        while (have < LEN) {
            ptrdiff_t got = whole_read(s, buf + have, LEN - (size_t)have);
            if (!CHECK(got > 0)) break;
            have += (uint64_t)got;
        }
        CHECK_INT(have, LEN);
        CHECK(pattern_is(buf, 0, LEN));
        actor_join(&big.base);
    }
    free(buf);
}

static void row_exact(scene *s) {
    enum { LEN = 3000000 / SCENE_THRIFT };
    sender big = {0};
    char *buf = (char *)malloc(LEN);
    if (scene_open(s) && CHECK(buf != NULL)) {
        peer_say(&s->b, "abcdefgh");
        CHECK_BYTES(s, "abc");
        CHECK_BYTES(s, "d");
        CHECK_ARRIVED(s, 4);
        peer_say(&s->b, "ij");
        CHECK_BYTES(s, "efghij");
        if (sender_start(&big, &s->b, NULL, LEN)) {
            CHECK_INT(whole_exact(s, buf, LEN), NKT_OK);
            CHECK(pattern_is(buf, 0, LEN));
            CHECK_INT(nkt_conn_received(s->a), 0);
            actor_join(&big.base);
        }
    }
    free(buf);
}

static void row_exact_resumed(scene *s) {
    char buf[8];
    memset(buf, '.', sizeof buf);
    s->stream.read_timeout_ms = ROW_TIMEOUT_MS;
    if (!scene_open(s)) return;
    peer_say(&s->b, "abc");
    CHECK_INT(whole_exact(s, buf, 6), NKT_ETIMEDOUT);
    CHECK_INT(nkt_conn_received(s->a), 3);
    CHECK_MEM(buf, 6, "abc...", 6);
    peer_say(&s->b, "defgh");
    CHECK_INT(whole_exact(s, buf, 6), NKT_OK);
    CHECK_MEM(buf, 8, "abcdef..", 8);
    CHECK_INT(nkt_conn_received(s->a), 0);
    CHECK_BYTES(s, "gh");
}

// Giving up on the exact bytes does not give them twice.
static void row_exact_given_up(scene *s) {
    char buf[8];
    s->stream.read_timeout_ms = ROW_TIMEOUT_MS;
    if (!scene_open(s)) return;
    peer_say(&s->b, "abc");
    CHECK_INT(whole_exact(s, buf, 6), NKT_ETIMEDOUT);
    peer_say(&s->b, "de\nfghijk");
    CHECK_LINE(s, "de");
    CHECK_INT(nkt_conn_received(s->a), 0);
    CHECK_INT(whole_exact(s, buf, 6), NKT_OK);
    CHECK_MEM(buf, 6, "fghijk", 6);
}

static void row_exact_truncated(scene *s) {
    char buf[8];
    memset(buf, '.', sizeof buf);
    if (!scene_open(s)) return;
    peer_say(&s->b, "abcd");
    peer_finish(&s->b);
    CHECK_INT(whole_exact(s, buf, 8), NKT_ETRUNCATED);
    CHECK_INT(nkt_conn_received(s->a), 4);
    CHECK_MEM(buf, 4, "abcd", 4);
    CHECK_END(s, NKT_EOF);
}

static void row_until(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "a;b;;ccEOM--EOM");
    CHECK_UNTIL(s, ";", "a;");
    CHECK_UNTIL(s, ";", "b;");
    CHECK_UNTIL(s, ";", ";");
    CHECK_UNTIL(s, "EOM", "ccEOM");
    CHECK_UNTIL(s, "EOM", "--EOM");
}

// A search that forgets a partial match misses these.
static void row_until_overlapping(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "aaab|ababac|\r\r\n|xxxxy");
    CHECK_UNTIL(s, "aab", "aaab");
    CHECK_UNTIL(s, "|", "|");
    CHECK_UNTIL(s, "abac", "ababac");
    CHECK_UNTIL(s, "|", "|");
    CHECK_UNTIL(s, "\r\n", "\r\r\n");
    CHECK_UNTIL(s, "|", "|");
    CHECK_UNTIL(s, "xxy", "xxxxy");
}

static void row_until_split(scene *s) {
    static const char text[] = "aaaabx\r\n\r\n";
    const size_t len = sizeof text - 1;
    if (!scene_open(s)) return;
    for (size_t cut = 1; cut < len; cut++) {
        peer_send(&s->b, text, cut);
        CHECK_ARRIVED(s, cut);
        if (cut >= 5) CHECK_UNTIL(s, "aab", "aaaab");
        peer_send(&s->b, text + cut, len - cut);
        if (cut < 5) CHECK_UNTIL(s, "aab", "aaaab");
        CHECK_UNTIL(s, "\r\n\r\n", "x\r\n\r\n");
    }
}

static void row_until_byte_by_byte(scene *s) {
    static const char text[] = "ab--a--b--ab--!";
    sender by_byte = {0};
    if (!scene_open(s)) return;
    by_byte.chunk = 1;
    by_byte.pause_ms = 1;
    if (!sender_start(&by_byte, &s->b, text, sizeof text - 1)) return;
    CHECK_UNTIL(s, "--!", "ab--a--b--ab--!");
    actor_join(&by_byte.base);
}

static void row_until_at_end(scene *s) {
    nkt_str view;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one--two-");
    peer_finish(&s->b);
    CHECK_UNTIL(s, "--", "one--");
    CHECK_UNTIL(s, "--", "two-");
    CHECK_INT(whole_until(s, "--", 2, &view), NKT_EOF);
}

static void row_until_too_long(scene *s) {
    char want[103];
    nkt_str view;
    s->stream.line_max = 100;
    if (!scene_open(s)) return;
    memset(want, 'x', 100);
    memcpy(want + 100, "EOM", 3);
    say_long(s, 100, "EOM");
    if (CHECK_INT(whole_until(s, "EOM", 3, &view), NKT_OK)) {
        CHECK_MEM(view.ptr, view.len, want, 103);
    }
    say_long(s, 101, "EOMnext;");
    CHECK_INT(whole_until(s, "EOM", 3, &view), NKT_ETOOLONG);
    CHECK_INT(whole_until(s, "EOM", 3, &view), NKT_ETOOLONG);
    CHECK_INT(whole_skip(s, 104), NKT_OK);
    CHECK_UNTIL(s, ";", "next;");
}

static void row_until_bad(scene *s) {
    char delimiter[256];
    nkt_str view;
    if (!scene_open(s)) return;
    memset(delimiter, 'd', sizeof delimiter);
    CHECK_INT(nkt_conn_read_until(s->a, delimiter, 0, &view), NKT_EINVAL);
    CHECK_INT(nkt_conn_read_until(s->a, delimiter, 256, &view), NKT_EINVAL);
    peer_send(&s->b, "cd", 2);
    peer_send(&s->b, delimiter, 254);
    if (CHECK_INT(whole_until(s, delimiter, 255, &view), NKT_OK)) CHECK_INT(view.len, 256);
}

static void row_peek(scene *s) {
    nkt_str view;
    s->stream.line_max = 100;
    if (!scene_open(s)) return;
    peer_say(&s->b, "abc");
    for (int i = 0; i < 2; i++) {
        if (CHECK_INT(whole_peek(s, 3, &view), NKT_OK)) CHECK_VIEW(view, "abc");
    }
    peer_say(&s->b, "def\n");
    if (CHECK_INT(whole_peek(s, 7, &view), NKT_OK)) CHECK_VIEW(view, "abcdef\n");
    CHECK_INT(whole_peek(s, 101, &view), NKT_ETOOLONG);
    CHECK_LINE(s, "abcdef");
}

static void row_peek_at_end(scene *s) {
    nkt_str view;
    if (!scene_open(s)) return;
    peer_say(&s->b, "abc");
    peer_finish(&s->b);
    if (CHECK_INT(whole_peek(s, 10, &view), NKT_OK)) CHECK_VIEW(view, "abc");
    // No call has said NKT_EAGAIN since: the poller still knows of the rest.
    if (s->face->polled) CHECK_INT(nkt_poller_wait(s->poller, 1000), 1);
    CHECK_BYTES(s, "abc");
    CHECK_INT(whole_peek(s, 1, &view), NKT_EOF);
}

static void row_skip(scene *s) {
    enum { LEN = 1000000 / SCENE_THRIFT };
    sender big = {0};
    if (!scene_open(s)) return;
    peer_say(&s->b, "abcdefgh");
    CHECK_INT(whole_skip(s, 3), NKT_OK);
    CHECK_BYTES(s, "de");
    CHECK_INT(whole_skip(s, 3), NKT_OK);
    if (!sender_start(&big, &s->b, NULL, LEN)) return;
    CHECK_INT(whole_skip(s, LEN - 5), NKT_OK);
    actor_join(&big.base);
    char tail[5];
    CHECK_INT(whole_exact(s, tail, 5), NKT_OK);
    CHECK(pattern_is(tail, LEN - 5, 5));
}

static void row_skip_beyond_end(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "abc");
    peer_finish(&s->b);
    CHECK_INT(whole_skip(s, 4), NKT_ETRUNCATED);
    CHECK_INT(whole_skip(s, 1), NKT_EOF);
}

static void row_skip_resumed(scene *s) {
    s->stream.read_timeout_ms = ROW_TIMEOUT_MS;
    if (!scene_open(s)) return;
    peer_say(&s->b, "abc");
    CHECK_INT(whole_skip(s, 5), NKT_ETIMEDOUT);
    peer_say(&s->b, "defg\n");
    CHECK_INT(whole_skip(s, 5), NKT_OK);
    CHECK_LINE(s, "fg");
}

static void row_mixed_reads(scene *s) {
    static const char text[] = "GET / HTTP/1.0\r\nlength: 5\r\n\r\nhello\0\0\0\3xyz"
                               "skipped;line\nrest";
    nkt_str view;
    char buf[8];
    if (!scene_open(s)) return;
    peer_send(&s->b, text, sizeof text - 1);
    peer_finish(&s->b);
    CHECK_LINE(s, "GET / HTTP/1.0");
    CHECK_UNTIL(s, "\r\n\r\n", "length: 5\r\n\r\n");
    if (CHECK_INT(whole_peek(s, 5, &view), NKT_OK)) {
        CHECK_MEM(view.ptr, view.len < 5 ? view.len : 5, "hello", 5);
    }
    CHECK_BYTES(s, "hello");
    if (CHECK_INT(whole_message(s, &view), NKT_OK)) CHECK_VIEW(view, "xyz");
    CHECK_INT(whole_skip(s, 7), NKT_OK);
    CHECK_INT(whole_read(s, buf, 1), 1);
    CHECK_INT(buf[0], ';');
    CHECK_LINE(s, "line");
    CHECK_LINE(s, "rest");
    CHECK_END(s, NKT_EOF);
}

//------------------------------------------------------------------------------
// Messages.

static void row_message(scene *s) {
    static const char text[] = "\0\0\0\0\0\0\0\5hello\0\0\0\1!";
    nkt_str message;
    char got[16];
    if (!scene_open(s)) return;
    peer_send(&s->b, text, sizeof text - 1);
    if (CHECK_INT(whole_message(s, &message), NKT_OK)) CHECK_INT(message.len, 0);
    if (CHECK_INT(whole_message(s, &message), NKT_OK)) CHECK_VIEW(message, "hello");
    if (CHECK_INT(whole_message(s, &message), NKT_OK)) CHECK_VIEW(message, "!");
    peer_finish(&s->b);
    CHECK_INT(whole_message(s, &message), NKT_EOF);
    CHECK_INT(whole_write_message(s, "", 0), NKT_OK);
    CHECK_INT(whole_write_message(s, "abc", 3), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(peer_recv_all(&s->b, got, 11), 11);
    CHECK_MEM(got, 11, "\0\0\0\0\0\0\0\3abc", 11);
}

static void row_message_large(scene *s) {
    enum { LEN = 1048576 / SCENE_THRIFT };
    const char head[4] = {0, (char)(LEN >> 16), (char)(LEN >> 8 & 255), 0};
    char *wire = (char *)malloc(LEN + 4);
    sender forth = {0};
    collector back = {0};
    nkt_str message;
    s->stream.queue_max = 2 * LEN;
    if (scene_open(s) && CHECK(wire != NULL)) {
        memcpy(wire, head, 4);
        pattern_fill(wire + 4, 0, LEN);
        sender_start(&forth, &s->b, wire, LEN + 4);
        if (CHECK_INT(whole_message(s, &message), NKT_OK)) {
            CHECK_MEM(message.ptr, message.len, wire + 4, LEN);
        }
        actor_join(&forth.base);
        if (collector_start(&back, &s->b, LEN + 4)) {
            CHECK_INT(whole_write_message(s, wire + 4, LEN), NKT_OK);
            CHECK_INT(whole_flush(s), NKT_OK);
            actor_join(&back.base);
            CHECK_MEM(back.buf, back.have, wire, LEN + 4);
        }
        free(back.buf);
    }
    free(wire);
}

static void row_message_too_long(scene *s) {
    static const char text[] = "\0\0\0\x65";        // 101
    nkt_str message;
    char got[4];
    s->stream.message_max = 100;
    if (!scene_open(s)) return;
    peer_send(&s->b, "\0\0\0\x64", 4);
    say_long(s, 100, "");
    if (CHECK_INT(whole_message(s, &message), NKT_OK)) CHECK_INT(message.len, 100);
    peer_send(&s->b, text, 4);
    CHECK_INT(whole_message(s, &message), NKT_ETOOLONG);
    CHECK_INT(whole_message(s, &message), NKT_ETOOLONG);
    CHECK_INT(whole_exact(s, got, 4), NKT_OK);
    CHECK_MEM(got, 4, text, 4);
    char big[101];
    memset(big, 'b', sizeof big);
    CHECK_INT(whole_write_message(s, big, 101), NKT_ETOOLONG);
    CHECK_INT(whole_write_message(s, big, 1), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(peer_recv_all(&s->b, big, 5), 5);
    CHECK_MEM(big, 5, "\0\0\0\1b", 5);
}

static void row_message_cut_header(scene *s) {
    nkt_str message;
    if (!scene_open(s)) return;
    peer_send(&s->b, "\0\0\0\1x\0\0", 7);
    peer_finish(&s->b);
    CHECK_INT(whole_message(s, &message), NKT_OK);
    CHECK_INT(whole_message(s, &message), NKT_ETRUNCATED);
    CHECK_INT(whole_message(s, &message), NKT_ETRUNCATED);
}

static void row_message_cut_body(scene *s) {
    nkt_str message;
    if (!scene_open(s)) return;
    peer_send(&s->b, "\0\0\0\5hell", 8);
    peer_finish(&s->b);
    CHECK_INT(whole_message(s, &message), NKT_ETRUNCATED);
}

static void row_message_announced_huge(scene *s) {
    nkt_str message;
    s->stream.message_max = 0x7f000000;
    if (!scene_open(s)) return;
    peer_send(&s->b, "\x7e\0\0\0ten bytes.", 14);
    peer_finish(&s->b);
    CHECK_INT(whole_message(s, &message), NKT_ETRUNCATED);
    CHECK_RANGE(s->env.peak, 0, 1 << 20);
}

static void row_message_length_beyond_any(scene *s) {
    nkt_str message;
    if (!scene_open(s)) return;
    peer_send(&s->b, "\xff\xff\xff\xff", 4);
    CHECK_INT(whole_message(s, &message), NKT_ETOOLONG);
    CHECK_RANGE(s->env.peak, 0, 1 << 20);
}

static void row_message_resumed(scene *s) {
    nkt_str message;
    s->stream.read_timeout_ms = ROW_TIMEOUT_MS;
    if (!scene_open(s)) return;
    peer_send(&s->b, "\0\0", 2);
    CHECK_INT(whole_message(s, &message), NKT_ETIMEDOUT);
    peer_send(&s->b, "\0\5he", 4);
    CHECK_INT(whole_message(s, &message), NKT_ETIMEDOUT);
    peer_say(&s->b, "llo");
    if (CHECK_INT(whole_message(s, &message), NKT_OK)) CHECK_VIEW(message, "hello");
}

//------------------------------------------------------------------------------
// Time-outs.

static void row_timeout(scene *s) {
    nkt_str line;
    s->stream.read_timeout_ms = ROW_TIMEOUT_MS;
    if (!scene_open(s)) return;
    int64_t start = nkt_now_ns(scene_clock);
    CHECK_INT(whole_line(s, &line), NKT_ETIMEDOUT);
    CHECK_RANGE((nkt_now_ns(scene_clock) - start) / 1000, ROW_TIMEOUT_MS * 1000, 5e6);
    peer_say(&s->b, "late\n");
    CHECK_LINE(s, "late");
}

static void row_timeout_in_line(scene *s) {
    nkt_str line;
    s->stream.read_timeout_ms = ROW_TIMEOUT_MS;
    if (!scene_open(s)) return;
    peer_say(&s->b, "ab");
    CHECK_INT(whole_line(s, &line), NKT_ETIMEDOUT);
    peer_say(&s->b, "cd");
    CHECK_INT(whole_line(s, &line), NKT_ETIMEDOUT);
    peer_say(&s->b, "ef\nnext\n");
    CHECK_LINE(s, "abcdef");
    CHECK_LINE(s, "next");
}

static void row_timeout_in_until(scene *s) {
    nkt_str view;
    s->stream.read_timeout_ms = ROW_TIMEOUT_MS;
    if (!scene_open(s)) return;
    peer_say(&s->b, "ab-");
    CHECK_INT(whole_until(s, "--", 2, &view), NKT_ETIMEDOUT);
    CHECK_INT(whole_peek(s, 4, &view), NKT_ETIMEDOUT);
    peer_say(&s->b, "-cd");
    CHECK_UNTIL(s, "--", "ab--");
    CHECK_BYTES(s, "cd");
}

// Line ends that were found before a longer look stay found after it.
static void row_timeout_in_peek(scene *s) {
    nkt_str view;
    s->stream.read_timeout_ms = ROW_TIMEOUT_MS;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\ntwo\r\nthree\nfou");
    CHECK_LINE(s, "one");
    CHECK_INT(whole_peek(s, 50, &view), NKT_ETIMEDOUT);
    peer_say(&s->b, "r\nfive\n");
    CHECK_LINE(s, "two");
    CHECK_LINE(s, "three");
    CHECK_LINE(s, "four");
    CHECK_INT(whole_peek(s, 50, &view), NKT_ETIMEDOUT);
    CHECK_LINE(s, "five");
}

// A peer that trickles must not stretch the time of a call: the limit is for
// the call, not for each receive inside it.
static void row_timeout_trickle(scene *s) {
    sender trickle = {0};
    nkt_str line;
    s->stream.read_timeout_ms = 100;
    if (!scene_open(s)) return;
    trickle.chunk = 1;
    trickle.pause_ms = 20;
    char text[400];
    memset(text, 't', sizeof text);
    if (!sender_start(&trickle, &s->b, text, sizeof text)) return;
    int64_t start = nkt_now_ns(scene_clock);
    CHECK_INT(whole_line(s, &line), NKT_ETIMEDOUT);
    CHECK_RANGE((nkt_now_ns(scene_clock) - start) / 1000, 100000, 5e6);
    CHECK(__atomic_load_n(&trickle.base.done, __ATOMIC_SEQ_CST) == 0);
    sender_stop(&trickle);
    peer_say(&s->b, "\n");
    if (CHECK_INT(whole_line(s, &line), NKT_OK)) CHECK_INT(line.len, trickle.sent);
}

//------------------------------------------------------------------------------
// Resets.

static void row_reset_in_line(scene *s) {
    char buf[32];
    nkt_str line;
    if (!scene_open(s)) return;
    peer_say(&s->b, "half a li");
    CHECK_ARRIVED(s, 9);
    scene_reset(s);
    CHECK_INT(whole_line(s, &line), NKT_ERESET);
    CHECK_INT(whole_line(s, &line), NKT_ERESET);
    CHECK_INT(whole_read(s, buf, sizeof buf), 9);
    CHECK_MEM(buf, 9, "half a li", 9);
    CHECK_END(s, NKT_ERESET);
}

static void row_reset_after_lines(scene *s) {
    nkt_str line;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\r\ntwo\nthr");
    CHECK_ARRIVED(s, 12);
    scene_reset(s);
    CHECK_LINE(s, "one");
    CHECK_LINE(s, "two");
    CHECK_INT(whole_line(s, &line), NKT_ERESET);
    CHECK_BYTES(s, "thr");
    CHECK_END(s, NKT_ERESET);
}

static void row_reset_in_message(scene *s) {
    nkt_str message;
    char buf[8];
    if (!scene_open(s)) return;
    peer_send(&s->b, "\0\0\0\5he", 6);
    CHECK_ARRIVED(s, 6);
    scene_reset(s);
    CHECK_INT(whole_message(s, &message), NKT_ERESET);
    CHECK_INT(whole_exact(s, buf, 8), NKT_ERESET);
    CHECK_INT(nkt_conn_received(s->a), 6);
    CHECK_MEM(buf, 6, "\0\0\0\5he", 6);
}

#endif
