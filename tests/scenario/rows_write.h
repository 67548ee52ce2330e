// rows_write.h - scenario rows about writing; see scene.h

#ifndef NKT_TEST_ROWS_WRITE_H
#define NKT_TEST_ROWS_WRITE_H

#include "scene.h"

#define WRITE_PIECE 16000
// More than all buffers on the way hold.
#define WRITE_ENOUGH ((size_t)(SCENE_THRIFT > 1 ? 1 : 8) << 20)

static void row_write(scene *s) {
    if (!scene_open(s)) return;
    CHECK_INT(whole_say(s, "hello "), NKT_OK);
    CHECK_INT(nkt_conn_written(s->a), 6);
    CHECK_INT(whole_write(s, "\0\xff", 2), NKT_OK);
    CHECK_INT(nkt_conn_write_str(s->a, "there\n"), NKT_OK);
    CHECK_INT(nkt_conn_written(s->a), 6);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(nkt_conn_queued(s->a), 0);
    CHECK_PEER(s, "hello ");
    char two[2];
    CHECK_INT(peer_recv_all(&s->b, two, 2), 2);
    CHECK_MEM(two, 2, "\0\xff", 2);
    CHECK_PEER(s, "there\n");
}

static void row_write_nothing(scene *s) {
    if (!scene_open(s)) return;
    CHECK_INT(whole_write(s, "", 0), NKT_OK);
    CHECK_INT(whole_write(s, NULL, 0), NKT_OK);
    CHECK_INT(whole_say(s, ""), NKT_OK);
    CHECK_INT(whole_writev(s, NULL, 0), NKT_OK);
    CHECK_INT(nkt_conn_written(s->a), 0);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(whole_say(s, "x"), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_PEER(s, "x");
}

static void row_writev(scene *s) {
    // Beyond every system's limit of one call, or at least beyond netkit's.
    enum { COUNT = SCENE_THRIFT > 1 ? 300 : 3000 };
    static nkt_str pieces[COUNT];
    static char bytes[COUNT * 7];
    size_t len = 0;
    collector all = {0};
    if (!scene_open(s)) return;
    pattern_fill(bytes, 0, sizeof bytes);
    for (size_t i = 0; i < COUNT; i++) {
        pieces[i].len = i % 7;      // each seventh is empty
        pieces[i].ptr = i % 7 == 0 ? NULL : bytes + len;
        len += pieces[i].len;
    }
    if (!collector_start(&all, &s->b, len)) return;
    CHECK_INT(whole_writev(s, pieces, COUNT), NKT_OK);
    CHECK_INT(s->earlier + nkt_conn_written(s->a), len);
    CHECK_INT(whole_flush(s), NKT_OK);
    actor_join(&all.base);
    CHECK_MEM(all.buf, all.have, bytes, len);
    free(all.buf);
}

static void row_writev_empty(scene *s) {
    nkt_str pieces[4];
    if (!scene_open(s)) return;
    memset(pieces, 0, sizeof pieces);
    CHECK_INT(whole_writev(s, pieces, 4), NKT_OK);
    pieces[1].ptr = "ab";
    pieces[1].len = 2;
    pieces[3].ptr = "cd";
    pieces[3].len = 2;
    CHECK_INT(whole_writev(s, pieces, 4), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_PEER(s, "abcd");
}

static void row_slow_reader(scene *s) {
    const uint64_t total = ((uint64_t)4 << 20) / SCENE_THRIFT;
    char *piece = (char *)malloc(WRITE_PIECE);
    receiver slow = {0};
    s->small_buffers = true;
    if (scene_open(s) && CHECK(piece != NULL)) {
        slow.pause_ms = 1;
        receiver_start(&slow, &s->b);
        for (uint64_t at = 0; at < total;) {
            size_t len = total - at < WRITE_PIECE ? (size_t)(total - at) : WRITE_PIECE;
            pattern_fill(piece, at, len);
            if (!CHECK_INT(whole_write(s, piece, len), NKT_OK)) break;
            at += len;
        }
        CHECK_INT(whole_flush(s), NKT_OK);
        CHECK_INT(nkt_conn_queued(s->a), 0);
        CHECK_INT(whole_shutdown_write(s), NKT_OK);
        actor_join(&slow.base);
        CHECK_INT(slow.received, total);
        CHECK(!slow.wrong);
        CHECK_INT(slow.end, NKT_EOF);
    }
    free(piece);
}

// Writes pieces of the pattern until they are refused; how many bytes were
// taken. The system may still make room after the first refusal.
static size_t fill_queue(scene *s, char *piece, int *err) {
    size_t at = 0;
    int refused = 0;
    while (at < 4 * WRITE_ENOUGH && refused < 3) {
        if (refused > 0) scene_sleep(1);
        pattern_fill(piece, at, WRITE_PIECE);
        *err = nkt_conn_write(s->a, piece, WRITE_PIECE);
        at += nkt_conn_written(s->a);
        if (*err == NKT_OK || scene_again(*err)) refused = 0;
        else if (*err == NKT_EAGAIN) refused++;
        else break;
    }
    return at;
}

static void queue_limit_nonblocking(scene *s, char *piece) {
    receiver late = {0};
    int err = NKT_OK;
    size_t at = fill_queue(s, piece, &err);
    CHECK_INT(err, NKT_EAGAIN);
    CHECK_INT(nkt_conn_written(s->a), 0);
    size_t queued = nkt_conn_queued(s->a);
    CHECK_RANGE(queued, 65536 - WRITE_PIECE + 1, 65536);
    CHECK_INT(nkt_conn_write(s->a, piece, WRITE_PIECE), NKT_EAGAIN);
    CHECK_INT(nkt_conn_queued(s->a), queued);
    if (!receiver_start(&late, &s->b)) return;
    for (int i = 0; i < 20; i++) {
        pattern_fill(piece, at, WRITE_PIECE);
        if (!CHECK_INT(whole_write(s, piece, WRITE_PIECE), NKT_OK)) break;
        CHECK_INT(s->earlier + nkt_conn_written(s->a), WRITE_PIECE);
        at += WRITE_PIECE;
    }
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(whole_shutdown_write(s), NKT_OK);
    actor_join(&late.base);
    CHECK_INT(late.received, at);
    CHECK(!late.wrong);
}

// The same from a blocking writer, who waits.
static void queue_limit_blocking(scene *s, char *piece) {
    receiver late = {0};
    size_t at = 0;
    late.before_ms = 30;
    if (!receiver_start(&late, &s->b)) return;
    for (int i = 0; i < 200; i++) {
        pattern_fill(piece, at, WRITE_PIECE);
        if (!CHECK_INT(nkt_conn_write(s->a, piece, WRITE_PIECE), NKT_OK)) break;
        CHECK_INT(nkt_conn_queued(s->a), 0);
        at += WRITE_PIECE;
    }
    CHECK_INT(nkt_conn_shutdown_write(s->a), NKT_OK);
    actor_join(&late.base);
    CHECK_INT(late.received, at);
    CHECK(!late.wrong);
}

static void row_queue_limit(scene *s) {
    char *piece = (char *)malloc(WRITE_PIECE);
    s->stream.queue_max = 65536;
    s->small_buffers = true;
    if (scene_open(s) && CHECK(piece != NULL)) {
        if (s->face->nonblocking) queue_limit_nonblocking(s, piece);
        else queue_limit_blocking(s, piece);
    }
    free(piece);
}

static void row_longer_than_queue(scene *s) {
    char big[10000];
    collector all = {0};
    s->stream.queue_max = 4096;
    if (!scene_open(s)) return;
    pattern_fill(big, 0, sizeof big);
    size_t len = s->face->nonblocking ? 4096 : sizeof big;
    if (s->face->nonblocking) {
        CHECK_INT(whole_write(s, big, sizeof big), NKT_ETOOLONG);
        CHECK_INT(nkt_conn_written(s->a), 0);
    }
    if (!collector_start(&all, &s->b, len)) return;
    CHECK_INT(whole_write(s, big, len), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    actor_join(&all.base);
    CHECK_MEM(all.buf, all.have, big, len);
    free(all.buf);
    CHECK_INT(whole_say(s, "next"), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_PEER(s, "next");
}

// Writes all of the pattern and is cut short on the way; then the rest.
static void write_timeout_blocking(scene *s, char *all) {
    receiver late = {0};
    int64_t start = nkt_now_ns(scene_clock);
    CHECK_INT(nkt_conn_write(s->a, all, WRITE_ENOUGH), NKT_ETIMEDOUT);
    CHECK_RANGE((nkt_now_ns(scene_clock) - start) / 1000, ROW_TIMEOUT_MS * 1000, 5e6);
    size_t written = nkt_conn_written(s->a);
    CHECK_RANGE(written, 1, WRITE_ENOUGH - 1);
    CHECK_INT(nkt_conn_set_option(s->a, NKT_OPT_WRITE_TIMEOUT_MS, 0), NKT_OK);
    if (!receiver_start(&late, &s->b)) return;
    CHECK_INT(nkt_conn_write(s->a, all + written, WRITE_ENOUGH - written), NKT_OK);
    CHECK_INT(nkt_conn_written(s->a), WRITE_ENOUGH - written);
    CHECK_INT(nkt_conn_shutdown_write(s->a), NKT_OK);
    actor_join(&late.base);
    CHECK_INT(late.received, WRITE_ENOUGH);
    CHECK(!late.wrong);
}

static void write_timeout_nonblocking(scene *s, char *piece) {
    receiver late = {0};
    int err = NKT_OK;
    size_t at = fill_queue(s, piece, &err);
    CHECK_INT(err, NKT_EAGAIN);
    CHECK_INT(nkt_conn_set_option(s->a, NKT_OPT_WRITE_TIMEOUT_MS, ROW_TIMEOUT_MS), NKT_OK);
    int64_t start = nkt_now_ns(scene_clock);
    CHECK_INT(whole_flush(s), NKT_ETIMEDOUT);
    CHECK_RANGE((nkt_now_ns(scene_clock) - start) / 1000, ROW_TIMEOUT_MS * 1000, 5e6);
    CHECK_INT(nkt_conn_set_option(s->a, NKT_OPT_WRITE_TIMEOUT_MS, 0), NKT_OK);
    if (!receiver_start(&late, &s->b)) return;
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(whole_shutdown_write(s), NKT_OK);
    actor_join(&late.base);
    CHECK_INT(late.received, at);
    CHECK(!late.wrong);
}

static void row_write_timeout(scene *s) {
    char *all = (char *)malloc(WRITE_ENOUGH);
    // Filling a queue may take longer.
    s->stream.write_timeout_ms = s->face->nonblocking ? 0 : ROW_TIMEOUT_MS;
    s->stream.queue_max = 65536;
    s->small_buffers = true;
    if (scene_open(s) && CHECK(all != NULL)) {
        if (s->face->nonblocking) {
            write_timeout_nonblocking(s, all);
        } else {
            pattern_fill(all, 0, WRITE_ENOUGH);
            write_timeout_blocking(s, all);
        }
    }
    free(all);
}

static void row_flush(scene *s) {
    char *piece = (char *)malloc(WRITE_PIECE);
    receiver late = {0};
    int err = NKT_OK;
    size_t at = 0;
    s->small_buffers = true;
    if (scene_open(s) && CHECK(piece != NULL)) {
        CHECK_INT(nkt_conn_flush(s->a), NKT_OK);        // nothing is queued
        if (s->face->nonblocking) {
            at = fill_queue(s, piece, &err);
            CHECK_INT(nkt_conn_flush(s->a), NKT_EAGAIN);
            CHECK(nkt_conn_queued(s->a) > 0);
        } else {
            pattern_fill(piece, 0, 1000);
            CHECK_INT(whole_write(s, piece, 1000), NKT_OK);
            at = 1000;
        }
        late.limit = at;
        receiver_start(&late, &s->b);
        CHECK_INT(whole_flush(s), NKT_OK);
        CHECK_INT(nkt_conn_queued(s->a), 0);
        actor_join(&late.base);
        CHECK_INT(late.received, at);
        CHECK(!late.wrong);
    }
    free(piece);
}

//------------------------------------------------------------------------------
// Ends.

static void row_half_close_by_peer(scene *s) {
    if (!scene_open(s)) return;
    peer_say(&s->b, "question\n");
    peer_finish(&s->b);
    CHECK_LINE(s, "question");
    CHECK_END(s, NKT_EOF);
    CHECK_INT(whole_say(s, "answer\n"), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_PEER(s, "answer\n");
    CHECK_INT(whole_say(s, "and more\n"), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_PEER(s, "and more\n");
    CHECK_END(s, NKT_EOF);
}

static void row_shutdown_write(scene *s) {
    char byte;
    if (!scene_open(s)) return;
    CHECK_INT(whole_say(s, "question\n"), NKT_OK);
    CHECK_INT(whole_shutdown_write(s), NKT_OK);
    CHECK_PEER(s, "question\n");
    CHECK_INT(peer_recv(&s->b, &byte, 1), NKT_EOF);
    peer_say(&s->b, "answer\n");
    CHECK_LINE(s, "answer");
    peer_close(&s->b);
    CHECK_END(s, NKT_EOF);
}

static void row_write_after_shutdown(scene *s) {
    nkt_str piece;
    char byte;
    piece.ptr = "x";
    piece.len = 1;
    if (!scene_open(s)) return;
    CHECK_INT(whole_shutdown_write(s), NKT_OK);
    CHECK_INT(whole_say(s, "x"), NKT_EPIPE);
    CHECK_INT(nkt_conn_written(s->a), 0);
    CHECK_INT(whole_writev(s, &piece, 1), NKT_EPIPE);
    CHECK_INT(whole_write_message(s, "x", 1), NKT_EPIPE);
    CHECK_INT(peer_recv(&s->b, &byte, 1), NKT_EOF);
    peer_say(&s->b, "still heard\n");
    CHECK_LINE(s, "still heard");
}

// Half-closing comes after what is queued, not in its place.
static void row_shutdown_after_queue(scene *s) {
    char *piece = (char *)malloc(WRITE_PIECE);
    receiver late = {0};
    int err = NKT_OK;
    s->small_buffers = true;
    s->stream.queue_max = 65536;
    if (scene_open(s) && CHECK(piece != NULL)) {
        size_t at = 0;
        if (s->face->nonblocking) at = fill_queue(s, piece, &err);
        CHECK_INT(nkt_conn_queued(s->a) > 0, s->face->nonblocking);
        int first = nkt_conn_shutdown_write(s->a);
        if (!s->face->nonblocking || first != NKT_EAGAIN) CHECK_INT(first, NKT_OK);
        CHECK_INT(nkt_conn_write(s->a, "x", 1), NKT_EPIPE);
        receiver_start(&late, &s->b);
        CHECK_INT(whole_flush(s), NKT_OK);
        actor_join(&late.base);
        CHECK_INT(late.received, at);
        CHECK(!late.wrong);
        CHECK_INT(late.end, NKT_EOF);
    }
    free(piece);
}

static void row_peer_gone(scene *s) {
    char piece[4096];
    int err = NKT_OK;
    if (!scene_open(s)) return;
    peer_close(&s->b);
    memset(piece, 'p', sizeof piece);
    for (int i = 0; i < 2000 && err == NKT_OK; i++) {
        err = whole_write(s, piece, sizeof piece);
        if (err == NKT_OK) err = whole_flush(s);
        if (err == NKT_OK) scene_sleep(1);
    }
    CHECK(err == NKT_ERESET || err == NKT_EPIPE || err == NKT_EABORTED);
    CHECK_INT(whole_write(s, piece, 1), err);       // failed is failed
    CHECK_INT(whole_flush(s), err);
}

static void row_close_with_queue(scene *s) {
    char *piece = (char *)malloc(WRITE_PIECE);
    int err = NKT_OK;
    s->small_buffers = true;
    if (scene_open(s) && CHECK(piece != NULL)) {
        if (s->face->nonblocking) {
            fill_queue(s, piece, &err);
            size_t queued = nkt_conn_queued(s->a);
            CHECK(queued > 0);
            CHECK_INT(scene_close_a(s), queued);
        } else {
            CHECK_INT(whole_say(s, "x"), NKT_OK);
            CHECK_INT(scene_close_a(s), 0);
            CHECK_PEER(s, "x");
        }
    }
    free(piece);
}

// The recipe of the manual: flush, shutdown_write, read to the end, close.
static void row_orderly_end(scene *s) {
    char piece[WRITE_PIECE];
    receiver all = {0};
    char byte;
    if (!scene_open(s)) return;
    receiver_start(&all, &s->b);
    pattern_fill(piece, 0, sizeof piece);
    CHECK_INT(whole_write(s, piece, sizeof piece), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(whole_shutdown_write(s), NKT_OK);
    actor_join(&all.base);
    peer_close(&s->b);
    CHECK_INT(whole_read(s, &byte, 1), NKT_EOF);
    CHECK_INT(scene_close_a(s), 0);
    CHECK_INT(all.received, sizeof piece);
    CHECK(!all.wrong);
    CHECK_INT(all.end, NKT_EOF);
}

static void row_abort(scene *s) {
    char byte;
    if (!scene_open(s)) return;
    nkt_conn *a = s->a;
    CHECK_INT(whole_say(s, "x"), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_PEER(s, "x");
    scene_guard_watch(NULL);
    s->a = NULL;
    CHECK_INT(nkt_conn_abort(a), 0);
    CHECK_INT(peer_recv(&s->b, &byte, 1), NKT_ERESET);
}

// The same words in both directions at once: the peer gives back what it gets,
// and nobody waits for the other to finish.
typedef struct echo {
    actor base;
    peer *with;
    uint64_t moved;
} echo;

static void echo_run(actor *base) {
    echo *self = (echo *)(void *)base;
    char *buf = (char *)malloc(65536);
    ptrdiff_t got = 0;
    while (buf != NULL && (got = peer_recv(self->with, buf, 65536)) > 0) {
        if (!peer_send(self->with, buf, (size_t)got)) break;
        self->moved += (uint64_t)got;
    }
    peer_finish(self->with);
    free(buf);
}

typedef struct writer {
    actor base;
    scene *s;
    uint64_t total;
    int err;
} writer;

static void writer_run(actor *base) {
    writer *self = (writer *)(void *)base;
    char *piece = (char *)malloc(65536);
    self->err = piece == NULL ? NKT_ENOMEM : NKT_OK;
    for (uint64_t at = 0; at < self->total && self->err == NKT_OK; at += 65536) {
        pattern_fill(piece, at, 65536);
        self->err = nkt_conn_write(self->s->a, piece, 65536);
    }
    if (self->err == NKT_OK) self->err = nkt_conn_shutdown_write(self->s->a);
    free(piece);
}

static void both_ways_blocking(scene *s, uint64_t total, char *buf) {
    writer out = {0};
    uint64_t have = 0;
    ptrdiff_t got = 0;
    bool wrong = false;
    out.s = s;
    out.total = total;
    if (!actor_start(&out.base, writer_run)) return;
    while ((got = nkt_conn_read(s->a, buf, 65536)) > 0) {
        if (!pattern_is(buf, have, (size_t)got)) wrong = true;
        have += (uint64_t)got;
    }
    if (got != NKT_EOF) nkt_conn_interrupt(s->a);       // who writes would wait for ever
    actor_join(&out.base);
    CHECK_INT(got, NKT_EOF);
    CHECK_INT(out.err, NKT_OK);
    CHECK_INT(have, total);
    CHECK(!wrong);
}

// One thread, both directions, whichever gets on.
static void both_ways_nonblocking(scene *s, uint64_t total, char *buf) {
    uint64_t at = 0, have = 0;
    bool wrong = false, ended = false, finished = false;
    int err = NKT_OK;
    while (err == NKT_OK && !ended) {
        int moved = 0;
        while (at < total) {
            pattern_fill(buf, at, 65536);
            err = nkt_conn_write(s->a, buf, 65536);
            if (err != NKT_OK) break;
            at += 65536;
            moved = 1;
        }
        if (err == NKT_EAGAIN) err = NKT_OK;
        if (err == NKT_OK && at == total && !finished) {
            err = nkt_conn_shutdown_write(s->a);
            finished = true;
            if (err == NKT_EAGAIN) err = NKT_OK;
        }
        ptrdiff_t got = 0;
        while (err == NKT_OK && (got = nkt_conn_read(s->a, buf, 65536)) > 0) {
            if (!pattern_is(buf, have, (size_t)got)) wrong = true;
            have += (uint64_t)got;
            moved = 1;
        }
        ended = got == NKT_EOF;
        if (got < 0 && got != NKT_EAGAIN && got != NKT_EOF) err = (int)got;
        if (err == NKT_OK && !ended && moved == 0) err = scene_wait(s, NKT_READ | NKT_WRITE);
    }
    CHECK_INT(err, NKT_OK);
    CHECK_INT(have, total);
    CHECK(!wrong);
}

static void row_both_ways(scene *s) {
    const uint64_t total = ((uint64_t)8 << 20) / SCENE_THRIFT;
    char *buf = (char *)malloc(65536);
    echo mirror = {0};
    if (scene_open(s) && CHECK(buf != NULL)) {
        mirror.with = &s->b;
        if (actor_start(&mirror.base, echo_run)) {
            if (s->face->nonblocking) both_ways_nonblocking(s, total, buf);
            else both_ways_blocking(s, total, buf);
            actor_join(&mirror.base);
            CHECK_INT(mirror.moved, total);
        }
    }
    free(buf);
}

#endif
