// fuzz_write.c - every write function, over a transport that takes little
//
// An input is settings and a script: what is called next and with how much,
// and, read from its other end, how many bytes the transport takes at a time,
// when it says NKT_EAGAIN and when it fails. All that was taken must have come
// out or be queued, in order, and the results are those of a model that knows
// two numbers: bytes accepted, bytes that came out.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "fuzz.h"

enum { FLAG_BLOCKING = 1, FLAG_FAILS = 2, FLAG_BIG = 4, FLAG_NO_SHUTDOWN = 8,
       OUT_MAX = 1 << 20, PIECES_MAX = 80, MESSAGE_MAX = 200 };

enum { OP_WRITE, OP_WRITE_STR, OP_WRITEV, OP_MESSAGE, OP_FLUSH, OP_READ, OP_SHUTDOWN, OP_COUNT };

typedef struct writer {
    nkt_conn *conn;
    const uint8_t *script;
    size_t script_len, op_at, take_at;
    bool blocking, said_again;
    size_t fail_after;              // bytes; SIZE_MAX = never
    uint8_t *out;                   // what came out
    size_t out_len;
    int shutdowns;
    size_t shutdown_at;             // out_len then
    bool shutdown_again;            // the first shutdown says NKT_EAGAIN
    // The model.
    uint8_t *accepted;
    size_t accepted_len, compared, queue_max;
    uint32_t next;                  // of the bytes that are written
    bool shut;
    int failed;
} writer;

static ptrdiff_t little_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    writer *w = (writer *)link->self;
    unsigned how = w->script_len > 0
        ? w->script[w->script_len - 1 - w->take_at++ % w->script_len] : 255;
    FUZZ(count > 0 && w->shutdowns == 0);
    if (w->out_len >= w->fail_after) return NKT_ERESET;
    if (how % 3 == 0 && !w->said_again) {
        w->said_again = true;
        return NKT_EAGAIN;
    }
    w->said_again = false;
    size_t room = 1 + how / 3 * (how % 3), taken = 0;
    if (room > w->fail_after - w->out_len) room = w->fail_after - w->out_len;
    for (size_t i = 0; i < count && taken < room; i++) {
        size_t len = pieces[i].len < room - taken ? pieces[i].len : room - taken;
        FUZZ(pieces[i].len > 0);
        if (!FUZZ(w->out_len + len <= OUT_MAX)) return NKT_ERESET;
        memcpy(w->out + w->out_len, pieces[i].ptr, len);
        w->out_len += len;
        taken += len;
    }
    return (ptrdiff_t)taken;
}

static ptrdiff_t little_recv(nkt_link *link, void *buf, size_t cap) {
    (void)link;
    (void)buf;
    (void)cap;
    return NKT_EAGAIN;
}

static int little_shutdown(nkt_link *link) {
    writer *w = (writer *)link->self;
    if (w->shutdown_again) {
        w->shutdown_again = false;
        return NKT_EAGAIN;
    }
    w->shutdowns++;
    w->shutdown_at = w->out_len;
    return NKT_OK;
}

static void little_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    (void)link;
    (void)want;
    out->ready = true;
}

static void little_close(nkt_link *link, bool abort) {
    (void)link;
    (void)abort;
}

static const nkt_transport little_transport = {
    sizeof(nkt_transport), "little", little_recv, little_send, little_shutdown, little_watch,
    little_close, NULL, NULL, NULL, NULL,
};

//------------------------------------------------------------------------------
// What must always hold

static void check_books(writer *w) {
    size_t queued = nkt_conn_queued(w->conn);
    nkt_conn_info info;
    nkt_conn_get_info(w->conn, &info);
    FUZZ(info.sent == w->out_len && info.queued == queued);
    FUZZ(w->out_len + queued == w->accepted_len);
    FUZZ(queued <= w->queue_max);
    if (w->blocking) FUZZ(queued == 0);
    size_t from = w->compared;
    w->compared = w->out_len;
    FUZZ(memcmp(w->out + from, w->accepted + from, w->out_len - from) == 0);
    if (w->shutdowns > 0) FUZZ(w->shutdowns == 1 && w->shut && w->shutdown_at == w->accepted_len);
}

static unsigned next_byte(writer *w) {
    return w->script_len > 0 ? w->script[w->op_at++ % w->script_len] : (unsigned)w->op_at++ & 255;
}

// A write of these bytes ended so.
static void check_write(writer *w, int err, const uint8_t *data, size_t len, size_t queued) {
    size_t written = nkt_conn_written(w->conn);
    bool fails = w->out_len >= w->fail_after;
    if (!FUZZ(w->accepted_len + written <= OUT_MAX && written <= len)) return;
    memcpy(w->accepted + w->accepted_len, data, written);
    w->accepted_len += written;
    if (w->failed != 0) {
        FUZZ(err == w->failed && written == 0);
    } else if (err == NKT_OK) {
        FUZZ(written == len && !(w->shut && len > 0));
    } else if (err == NKT_EAGAIN) {
        FUZZ(!w->blocking && written == 0 && len <= w->queue_max && queued + len > w->queue_max);
    } else if (err == NKT_ETOOLONG) {
        FUZZ(!w->blocking && written == 0 && len > w->queue_max);
    } else if (err == NKT_EPIPE) {
        FUZZ(w->shut && written == 0);
    } else if (FUZZ(err == NKT_ERESET && fails)) {
        w->failed = err;
    }
    // What failed behind a call that could take its bytes is told by the next.
    if (fails && w->failed == 0 && !w->blocking) return;
    if (len > w->queue_max && !w->blocking && w->failed == 0 && !w->shut) FUZZ(err == NKT_ETOOLONG);
    if (w->shut && w->failed == 0) FUZZ(err == NKT_EPIPE);
}

static size_t make_data(writer *w, uint8_t *data, size_t len) {
    for (size_t i = 0; i < len; i++) data[i] = (uint8_t)(1 + w->next++ % 251);
    return len;
}

//------------------------------------------------------------------------------
// The calls

static void step_writev(writer *w, uint8_t *data, size_t len) {
    nkt_str pieces[PIECES_MAX];
    size_t count = 1 + next_byte(w) % PIECES_MAX, at = 0, queued = nkt_conn_queued(w->conn);
    for (size_t i = 0; i < count; i++) {
        size_t part = i + 1 == count ? len - at : next_byte(w) % 7;
        if (part > len - at) part = len - at;
        pieces[i].ptr = (const char *)data + at;
        pieces[i].len = part;
        at += part;
    }
    check_write(w, nkt_conn_writev(w->conn, pieces, count), data, len, queued);
}

static void step_message(writer *w, uint8_t *data, size_t len) {
    uint8_t framed[MESSAGE_MAX + 4];
    size_t queued = nkt_conn_queued(w->conn);
    int err = nkt_conn_write_message(w->conn, data, len);
    if (len > MESSAGE_MAX) {
        FUZZ(err == NKT_ETOOLONG && nkt_conn_written(w->conn) == 0);
        return;
    }
    framed[0] = framed[1] = 0;
    framed[2] = (uint8_t)(len >> 8);
    framed[3] = (uint8_t)len;
    memcpy(framed + 4, data, len);
    check_write(w, err, framed, len + 4, queued);
}

static void step_flush(writer *w) {
    int err = nkt_conn_flush(w->conn);
    if (err == NKT_OK) FUZZ(w->out_len == w->accepted_len);
    else if (err == NKT_EAGAIN) FUZZ(!w->blocking && (nkt_conn_queued(w->conn) > 0 || w->shut));
    else if (FUZZ(err == NKT_ERESET && w->out_len >= w->fail_after)) w->failed = err;
    if (w->failed != 0) FUZZ(err == w->failed);
}

static void step_shutdown(writer *w) {
    bool before = w->shut;
    int err = nkt_conn_shutdown_write(w->conn);
    w->shut = before || err == NKT_OK || w->failed == 0;
    if (w->shutdowns > 0) FUZZ(err == NKT_OK);
    else if (err == NKT_OK) FUZZ(!w->blocking);
    else if (FUZZ(err == NKT_ERESET && w->out_len >= w->fail_after)) w->failed = err;
}

static void step(writer *w, uint8_t *data) {
    char text[256];
    uint8_t byte;
    unsigned op = next_byte(w) % OP_COUNT;
    size_t queued = nkt_conn_queued(w->conn), len = next_byte(w);
    if (len > 200) len = (len - 200) * 12;
    switch (op) {
    case OP_WRITE:
        make_data(w, data, len);
        check_write(w, nkt_conn_write(w->conn, data, len), data, len, queued);
        break;
    case OP_WRITE_STR:
        make_data(w, (uint8_t *)text, len %= sizeof text);
        text[len] = '\0';
        check_write(w, nkt_conn_write_str(w->conn, text), (uint8_t *)text, len, queued);
        break;
    case OP_WRITEV: step_writev(w, data, make_data(w, data, len)); break;
    case OP_MESSAGE: step_message(w, data, make_data(w, data, len)); break;
    case OP_READ:
        // A blocking one would wait for ever.
        if (!w->blocking) FUZZ(nkt_conn_read(w->conn, &byte, 1) == NKT_EAGAIN);
        break;
    case OP_SHUTDOWN:
        if (len % 4 == 0) step_shutdown(w);
        break;
    default: step_flush(w); break;
    }
    check_books(w);
}

// What was accepted comes out in the end.
static void finish(writer *w) {
    int err = NKT_EAGAIN;
    for (size_t i = 0; i < 2 * OUT_MAX && err == NKT_EAGAIN; i++) err = nkt_conn_flush(w->conn);
    if (err == NKT_OK) {
        FUZZ(w->out_len == w->accepted_len && w->shutdowns == (w->shut ? 1 : 0));
    } else {
        FUZZ(err == NKT_ERESET && w->out_len >= w->fail_after);
    }
    check_books(w);
}

static void fuzz_one(const uint8_t *data, size_t size) {
    static uint8_t out[OUT_MAX], accepted[OUT_MAX], room[8192];
    fuzz_bytes in = { data, data + size };
    unsigned flags = fuzz_byte(&in), limit = fuzz_byte(&in), fail = fuzz_byte(&in);
    nkt_conn_opts opts;
    writer w;
    memset(&w, 0, sizeof w);
    memset(&opts, 0, sizeof opts);
    w.out = out;
    w.accepted = accepted;
    w.script = in.at;
    w.script_len = (size_t)(in.end - in.at);
    w.blocking = (flags & FLAG_BLOCKING) != 0;
    w.fail_after = flags & FLAG_FAILS ? fail * (flags & FLAG_BIG ? 40 : 1) : SIZE_MAX;
    w.shutdown_again = (flags & FLAG_NO_SHUTDOWN) != 0;
    w.queue_max = 1 + limit * (flags & FLAG_BIG ? 40 : 1);
    opts.nonblocking = !w.blocking;
    opts.stream.queue_max = (uint32_t)w.queue_max;
    opts.stream.message_max = MESSAGE_MAX;
    if (!FUZZ(nkt_conn_open_custom(&little_transport, &w, &opts, &w.conn) == NKT_OK)) return;
    for (int i = 0; i < 60; i++) step(&w, room);
    finish(&w);
    size_t queued = nkt_conn_queued(w.conn);
    FUZZ(nkt_conn_close(w.conn) == queued);
}

static const char *const words[] = { "\x01\x02\x01\x02", "\x03", "\x05", "\xc8", "\xff", NULL };
FUZZ_TARGET("write", words, 6000)
