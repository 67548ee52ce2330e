// fuzz_read.c - every read function, over a transport that hands out chunks
//
// An input is settings, a script and the stream:
//
//     flags  limit  script length  script ...  stream ...
//
// The script says which function is called next and with what, and, read from
// its other end, how many bytes the transport gives at a time and when it says
// NKT_EAGAIN. What comes out is compared with a model that has all of the
// stream in one array and knows nothing of chunks, buffers or waiting. Calls
// that say NKT_EAGAIN are made again, or given up for another kind of read.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "fuzz.h"

enum { FLAG_BLOCKING = 1, FLAG_CR = 2, FLAG_RESET = 4, FLAG_ALPHABET = 8, FLAG_LONG = 16,
       STREAM_MAX = 150000, STEPS_MAX = 200, MESSAGE_MAX = 300 };

enum { OP_READ, OP_EXACT, OP_LINE, OP_LINES, OP_UNTIL, OP_PEEK, OP_SKIP, OP_SKIP_LINE, OP_MESSAGE,
       OP_SEEK, OP_UNREAD, OP_OPTION, OP_COUNT };

typedef struct reader {
    nkt_conn *conn;
    // The transport.
    uint8_t *stream;                // also the model's
    size_t size, given;
    const uint8_t *script;
    size_t script_len, op_at, chunk_at;
    bool said_again, long_chunks;
    int end_err;                    // NKT_EOF or NKT_ERESET
    // The model.
    size_t pos;
    bool skip_lf, cr_lines;
    size_t line_max;
    int last_op;                    // of an unfinished call, or -1
} reader;

static ptrdiff_t chunk_recv(nkt_link *link, void *buf, size_t cap) {
    reader *r = (reader *)link->self;
    unsigned how = r->script_len > 0
        ? r->script[r->script_len - 1 - r->chunk_at++ % r->script_len] : 7;
    // Never twice in a row, so that every script comes to an end.
    if (how % 4 == 0 && !r->said_again) {
        r->said_again = true;
        return NKT_EAGAIN;
    }
    r->said_again = false;
    size_t count = 1 + how / 4;
    if (r->long_chunks) count *= 1 + how * 37;
    if (count > cap) count = cap;
    if (count > r->size - r->given) count = r->size - r->given;
    if (count == 0) return r->end_err;
    memcpy(buf, r->stream + r->given, count);
    r->given += count;
    return (ptrdiff_t)count;
}

static ptrdiff_t chunk_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    (void)link;
    (void)pieces;
    (void)count;
    return NKT_EPIPE;
}

static void chunk_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    (void)link;
    (void)want;
    out->ready = true;
}

static void chunk_close(nkt_link *link, bool abort) {
    (void)link;
    (void)abort;
}

static const nkt_transport chunk_transport = {
    sizeof(nkt_transport), "chunks", chunk_recv, chunk_send, NULL, chunk_watch, chunk_close,
    NULL, NULL, NULL, NULL,
};

//------------------------------------------------------------------------------
// The model

static void settle(reader *r) {
    if (!r->skip_lf || r->pos == r->size) return;
    r->skip_lf = false;
    if (r->stream[r->pos] == '\n') r->pos++;
}

// Where the line at `from` ends, or the end of the stream.
static size_t line_end(const reader *r, size_t from) {
    while (from < r->size && r->stream[from] != '\n' &&
           !(r->cr_lines && r->stream[from] == '\r')) from++;
    return from;
}

static size_t line_len(const reader *r, size_t from, size_t end) {
    bool crlf = end < r->size && r->stream[end] == '\n' && end > from &&
                r->stream[end - 1] == '\r';
    return end - from - crlf;
}

// What the end of the stream means to a call that has `rest` bytes and needs
// more.
static int end_of(const reader *r, bool begun) {
    return begun && r->end_err == NKT_EOF ? (int)NKT_ETRUNCATED : r->end_err;
}

static void expect_view(const reader *r, nkt_str view, size_t len) {
    FUZZ(view.len == len && memcmp(view.ptr, r->stream + r->pos, len) == 0);
}

// The line, but NKT_ETOOLONG and ends.
static int expect_line(reader *r, size_t *len, size_t *next) {
    size_t rest = r->size - r->pos;
    size_t end = line_end(r, r->pos);
    *len = line_len(r, r->pos, end);
    *next = end + 1;
    // A CR at the very end may have been half of a line end.
    bool half = end == r->size && rest > 0 && r->stream[end - 1] == '\r' &&
                *len == r->line_max + 1 && r->end_err != NKT_EOF;
    if (*len > r->line_max && !half) return NKT_ETOOLONG;
    if (end < r->size) return NKT_OK;
    *next = r->size;
    return rest > 0 && r->end_err == NKT_EOF ? (int)NKT_OK : r->end_err;
}

static bool check_line(reader *r, int err, nkt_str line) {
    size_t len = 0, next = 0;
    settle(r);
    if (!FUZZ(err == expect_line(r, &len, &next)) || err < 0) return err == NKT_ETOOLONG;
    expect_view(r, line, len);
    FUZZ(line.ptr[line.len] == '\0');
    size_t end = line_end(r, r->pos);
    r->skip_lf = end < r->size && r->stream[end] == '\r';
    // Who goes back is given the NUL.
    if (end < r->size) r->stream[r->pos + len] = '\0';
    r->pos = next;
    return true;
}

// Whole lines, as many as there were; none of them too long.
static bool check_lines(reader *r, int err, nkt_str lines) {
    size_t len = 0, next = 0;
    settle(r);
    if (!FUZZ(err == expect_line(r, &len, &next)) || err < 0) return err == NKT_ETOOLONG;
    if (!FUZZ(lines.len > 0 && lines.len <= r->size - r->pos)) return false;
    expect_view(r, lines, lines.len);
    size_t stop = r->pos + lines.len;
    bool ended = false;
    while (r->pos < stop) {
        size_t end = line_end(r, r->pos);
        FUZZ(line_len(r, r->pos, end) <= r->line_max);
        ended = end < r->size;
        r->pos = ended ? end + 1 : end;
        r->skip_lf = ended && r->stream[end] == '\r';
        // The LF of a CRLF is given with its line, if it was there.
        if (r->pos < stop) settle(r);
    }
    FUZZ(r->pos == stop && (ended || stop == r->size));
    return true;
}

static size_t find(const reader *r, const uint8_t *pattern, size_t len) {
    for (size_t at = r->pos; at + len <= r->size; at++) {
        if (memcmp(r->stream + at, pattern, len) == 0) return at;
    }
    return SIZE_MAX;
}

static bool check_until(reader *r, int err, nkt_str view, const uint8_t *pattern, size_t len) {
    settle(r);
    size_t rest = r->size - r->pos, at = find(r, pattern, len);
    size_t take = rest;
    int want = rest > 0 && r->end_err == NKT_EOF ? (int)NKT_OK : r->end_err;
    if (at != SIZE_MAX) {
        take = at - r->pos + len;
        want = at - r->pos > r->line_max ? NKT_ETOOLONG : NKT_OK;
    } else if (rest >= r->line_max + len || (rest > r->line_max && r->end_err == NKT_EOF)) {
        want = NKT_ETOOLONG;
    }
    if (!FUZZ(err == want) || err < 0) return err == NKT_ETOOLONG;
    expect_view(r, view, take);
    r->pos += take;
    return true;
}

static bool check_peek(reader *r, int err, nkt_str view, size_t want) {
    if (want > r->line_max) return FUZZ(err == NKT_ETOOLONG);
    settle(r);
    size_t rest = r->size - r->pos;
    if (rest == 0) {
        FUZZ(err == r->end_err);
        return false;
    }
    if (!FUZZ(err == NKT_OK && view.len > 0 && view.len <= rest)) return false;
    FUZZ(view.len >= (want < rest ? want : rest));
    expect_view(r, view, view.len);
    return true;
}

// Of nkt_conn_skip and nkt_conn_read_exact.
static bool check_all(reader *r, int err, const uint8_t *got, size_t len) {
    settle(r);
    if (len == 0) return FUZZ(err == NKT_OK);
    size_t rest = r->size - r->pos, take = rest < len ? rest : len;
    if (got != NULL) FUZZ(memcmp(got, r->stream + r->pos, take) == 0);
    if (got != NULL && rest < len) FUZZ(nkt_conn_received(r->conn) == take);
    r->pos += take;
    FUZZ(err == (rest >= len ? (int)NKT_OK : end_of(r, rest > 0)));
    return err == NKT_OK;
}

static bool check_skip_line(reader *r, int err, size_t from) {
    size_t end = line_end(r, r->pos);
    bool begun = r->size > from;
    r->pos = end < r->size ? end + 1 : end;
    r->skip_lf = end < r->size && r->stream[end] == '\r';
    FUZZ(err == (end < r->size || (begun && r->end_err == NKT_EOF) ? (int)NKT_OK : r->end_err));
    return err == NKT_OK;
}

static bool check_message(reader *r, int err, nkt_str view) {
    settle(r);
    size_t rest = r->size - r->pos;
    const uint8_t *at = r->stream + r->pos;
    uint64_t len = rest < 4 ? 0 : (uint64_t)at[0] << 24 | (uint64_t)at[1] << 16 |
                                  (uint64_t)at[2] << 8 | at[3];
    int want = rest < 4 || rest - 4 < len ? end_of(r, rest > 0) : (int)NKT_OK;
    if (rest >= 4 && len > MESSAGE_MAX) want = NKT_ETOOLONG;
    if (!FUZZ(err == want) || err < 0) return err == NKT_ETOOLONG;
    r->pos += 4;
    expect_view(r, view, (size_t)len);
    r->pos += (size_t)len;
    return true;
}

//------------------------------------------------------------------------------
// The calls

static unsigned next_byte(reader *r) {
    return r->script_len > 0 ? r->script[r->op_at++ % r->script_len] : (unsigned)r->op_at++ & 255;
}

static bool is_given_up(reader *r) {
    return next_byte(r) % 8 == 0;
}

// After NKT_EAGAIN: only what the contract says was consumed.
static void check_again(reader *r, int op, size_t len) {
    uint64_t position = nkt_conn_position(r->conn);
    settle(r);
    // The line feed of a CRLF may not have come yet.
    if (position + 1 == r->pos) return;
    if (!FUZZ(position >= r->pos && position <= r->given)) return;
    if (op == OP_EXACT) FUZZ(position - r->pos == nkt_conn_received(r->conn));
    else if (op == OP_SKIP) FUZZ(position - r->pos <= len);
    else if (op == OP_SKIP_LINE) FUZZ(position <= line_end(r, r->pos));
    else FUZZ(position == r->pos);
    r->pos = (size_t)position;
}

static int call(reader *r, int op, uint8_t *buf, size_t len, const uint8_t *pattern,
                nkt_str *view) {
    switch (op) {
    case OP_READ: return (int)nkt_conn_read(r->conn, buf, len);
    case OP_EXACT: return nkt_conn_read_exact(r->conn, buf, len);
    case OP_LINE: return nkt_conn_read_line(r->conn, view);
    case OP_LINES: return nkt_conn_read_lines(r->conn, view);
    case OP_UNTIL: return nkt_conn_read_until(r->conn, pattern, 1 + len % 4, view);
    case OP_PEEK: return nkt_conn_peek(r->conn, len, view);
    case OP_SKIP: return nkt_conn_skip(r->conn, len);
    case OP_SKIP_LINE: return nkt_conn_skip_line(r->conn);
    default: return nkt_conn_read_message(r->conn, view);
    }
}

static bool check_read(reader *r, int count, const uint8_t *buf, size_t cap) {
    settle(r);
    size_t rest = r->size - r->pos;
    if (rest == 0) {
        FUZZ(count == r->end_err);
        return false;
    }
    if (!FUZZ(count > 0 && (size_t)count <= cap && (size_t)count <= rest)) return false;
    FUZZ(memcmp(buf, r->stream + r->pos, (size_t)count) == 0);
    r->pos += (size_t)count;
    return true;
}

// One read, called until it is done or given up. False when the stream is over.
static bool step_read(reader *r, int op, uint8_t *buf, bool nonblocking) {
    static const uint8_t patterns[] = "\n\naab\r\n\r\naba\n";
    size_t len = next_byte(r);
    const uint8_t *pattern = patterns + len % 9;
    nkt_str view = { NULL, 0 };
    if (r->long_chunks) len *= 200;
    // What is refused or has nothing to do is no read: the last one goes on.
    if (op == OP_READ && len == 0) return FUZZ(nkt_conn_read(r->conn, buf, 0) == 0);
    if (op != OP_PEEK || len <= r->line_max) r->last_op = -1;
    settle(r);
    size_t from = r->pos;
    int err = call(r, op, buf, len, pattern, &view);
    while (err == NKT_EAGAIN) {
        size_t before = r->pos;
        FUZZ(nonblocking);
        check_again(r, op, len);
        if (is_given_up(r)) {
            r->last_op = op;
            return true;
        }
        // A call that goes on is judged from where it began.
        if (op == OP_EXACT || op == OP_SKIP) r->pos = before;
        err = call(r, op, buf, len, pattern, &view);
    }
    switch (op) {
    case OP_READ: return check_read(r, err, buf, len);
    case OP_EXACT: return check_all(r, err, buf, len);
    case OP_LINE: return check_line(r, err, view);
    case OP_LINES: return check_lines(r, err, view);
    case OP_UNTIL: return check_until(r, err, view, pattern, 1 + len % 4);
    case OP_PEEK: return check_peek(r, err, view, len);
    case OP_SKIP: return check_all(r, err, NULL, len);
    case OP_SKIP_LINE: return check_skip_line(r, err, from);
    default: return check_message(r, err, view);
    }
}

static void step_seek(reader *r) {
    uint64_t position = nkt_conn_position(r->conn);
    unsigned how = next_byte(r);
    nkt_conn_info info;
    nkt_conn_get_info(r->conn, &info);
    FUZZ(info.received == r->given || info.received < r->given);
    FUZZ(nkt_conn_seek(r->conn, position + info.buffered + 1) == NKT_EINVAL);
    FUZZ(nkt_conn_seek(r->conn, position) == NKT_OK);
    uint64_t to = how % 2 != 0 ? position + how % (info.buffered + 1)
                               : position - how % (position + 1);
    // Between CR and LF it depends on what is still in the buffer.
    if (to > 0 && to < r->size && r->stream[to - 1] == '\r' && r->stream[to] == '\n') return;
    int err = nkt_conn_seek(r->conn, to);
    FUZZ(err == NKT_OK || (err == NKT_EINVAL && to < position));
    if (err < 0 || to == position) return;
    r->pos = (size_t)to;
    r->skip_lf = false;
    FUZZ(nkt_conn_position(r->conn) == to);
}

static void step_unread(reader *r) {
    uint8_t bytes[16];
    size_t len = next_byte(r) % sizeof bytes;
    uint64_t position = nkt_conn_position(r->conn);
    for (size_t i = 0; i < len; i++) bytes[i] = (uint8_t)next_byte(r);
    int err = nkt_conn_unread(r->conn, bytes, len);
    FUZZ(err == (len > position ? (int)NKT_EINVAL : (int)NKT_OK));
    if (err < 0 || len == 0) return;
    r->pos = (size_t)position - len;
    r->skip_lf = false;
    memcpy(r->stream + r->pos, bytes, len);
    FUZZ(nkt_conn_position(r->conn) == r->pos);
}

static void step_option(reader *r) {
    unsigned how = next_byte(r);
    if (how % 2 == 0) {
        r->cr_lines = how % 4 == 0;
        FUZZ(nkt_conn_set_option(r->conn, NKT_OPT_CR_LINES, r->cr_lines) == NKT_OK);
    } else {
        r->line_max = how;
        FUZZ(nkt_conn_set_option(r->conn, NKT_OPT_LINE_MAX, how) == NKT_OK);
    }
}

static void run(reader *r, bool nonblocking) {
    static uint8_t buf[256 * 200];
    bool goes_on = true;
    for (int i = 0; i < STEPS_MAX && goes_on; i++) {
        int op = (int)(next_byte(r) % OP_COUNT);
        // The same kind of read would go on with what was given up.
        if (op == r->last_op) op = op == OP_READ ? OP_PEEK : OP_READ;
        if (op == OP_SEEK) {
            step_seek(r);
        } else if (op == OP_UNREAD) {
            step_unread(r);
        } else if (op == OP_OPTION) {
            step_option(r);
        } else {
            goes_on = step_read(r, op, buf, nonblocking);
        }
    }
    if (goes_on) return;
    // The end stays the end.
    if (r->pos == r->size) {
        int err = NKT_EAGAIN;
        for (int i = 0; i < 3 && err == NKT_EAGAIN; i++) {
            err = (int)nkt_conn_read(r->conn, buf, sizeof buf);
        }
        FUZZ(err == r->end_err);
    }
}

static void make_stream(reader *r, fuzz_bytes in, unsigned flags) {
    static const uint8_t alphabet[8] = { '\n', '\r', 'a', 'b', 0, '\n', 'a', '\r' };
    size_t times = flags & FLAG_LONG ? 97 : 1;
    for (; in.at < in.end && r->size + times <= STREAM_MAX; in.at++) {
        uint8_t byte = flags & FLAG_ALPHABET ? alphabet[*in.at % 8] : *in.at;
        size_t count = byte == '\n' || byte == '\r' ? 1 : times;
        memset(r->stream + r->size, byte, count);
        r->size += count;
    }
}

static void fuzz_one(const uint8_t *data, size_t size) {
    fuzz_bytes in = { data, data + size };
    unsigned flags = fuzz_byte(&in);
    nkt_conn_opts opts;
    reader r;
    memset(&r, 0, sizeof r);
    memset(&opts, 0, sizeof opts);
    r.long_chunks = (flags & FLAG_LONG) != 0;
    r.line_max = 1 + fuzz_byte(&in) * (r.long_chunks ? 500 : 1);
    r.script_len = fuzz_byte(&in);
    if (r.script_len > (size_t)(in.end - in.at)) r.script_len = (size_t)(in.end - in.at);
    r.script = in.at;
    in.at += r.script_len;
    r.cr_lines = (flags & FLAG_CR) != 0;
    r.end_err = flags & FLAG_RESET ? NKT_ERESET : NKT_EOF;
    r.last_op = -1;
    r.stream = (uint8_t *)malloc(STREAM_MAX);
    make_stream(&r, in, flags);
    opts.nonblocking = (flags & FLAG_BLOCKING) == 0;
    opts.stream.cr_lines = r.cr_lines;
    opts.stream.line_max = (uint32_t)r.line_max;
    opts.stream.message_max = MESSAGE_MAX;
    if (FUZZ(nkt_conn_open_custom(&chunk_transport, &r, &opts, &r.conn) == NKT_OK)) {
        run(&r, opts.nonblocking);
        nkt_conn_close(r.conn);
    }
    free(r.stream);
}

static const char *const words[] = { "\r\n", "\n", "\r", "aab", "\r\n\r\n", "\x02", "\x07", NULL };
FUZZ_TARGET("read", words, 6000)
