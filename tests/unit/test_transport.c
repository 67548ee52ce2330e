// test_transport.c - transports of one's own, layers, and the in-memory pair
//
// A transport that is a script says what each recv and send does; what the
// connection makes of it is checked in both faces. Then layers on top of
// others, wake-ups from other threads, and the pair that stands on the same
// table of functions.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "probe.h"

//------------------------------------------------------------------------------
// A transport that is a script
//------------------------------------------------------------------------------

#define STEPS_MAX 10
#define CLAIM_TOO_MANY 1000000      // as a recv or send result: more than there is

// One recv: a text, or a result where there is none.
typedef struct step {
    const char *text;
    ptrdiff_t result;
} step;

typedef struct mock {
    step recv[STEPS_MAX];           // ends with { NULL, 0 }: the end of the stream
    ptrdiff_t send[STEPS_MAX];      // takes so many bytes, or fails; 0 at the end: all
    bool sleeps;                    // watch says nothing: a notify has to come
    int64_t deadline;               // what watch says; 0 = none
    bool ready_at_deadline;
    nkt_env *env;                   // whose clock that is
    int recv_at, send_at, recv_calls, send_calls, watch_calls;
    int closes, aborts, shutdowns;
    char sent[400];
    size_t sent_len;
    char *order;                    // where each close writes its name
    char name;
} mock;

static mock *mock_of(nkt_link *link) {
    return (mock *)link->self;
}

static ptrdiff_t mock_recv(nkt_link *link, void *buf, size_t cap) {
    mock *m = mock_of(link);
    const step *now = &m->recv[m->recv_at];
    m->recv_calls++;
    if (now->text == NULL) {
        if (now->result != 0) m->recv_at++;
        return now->result == CLAIM_TOO_MANY ? (ptrdiff_t)cap + 1 : now->result;
    }
    size_t len = strlen(now->text);
    CHECK(len <= cap);
    memcpy(buf, now->text, len);
    m->recv_at++;
    return (ptrdiff_t)len;
}

static ptrdiff_t mock_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    mock *m = mock_of(link);
    ptrdiff_t room = m->send[m->send_at];
    size_t taken = 0;
    m->send_calls++;
    CHECK(count > 0);
    if (m->send_at < STEPS_MAX - 1 && room != 0) m->send_at++;
    if (room == 0) room = (ptrdiff_t)sizeof m->sent;
    if (room < 0) return room == -CLAIM_TOO_MANY ? 0 : room;
    if (room == CLAIM_TOO_MANY) return room;
    for (size_t i = 0; i < count; i++) {
        CHECK(pieces[i].len > 0);
        for (size_t k = 0; k < pieces[i].len && taken < (size_t)room; k++, taken++) {
            if (m->sent_len < sizeof m->sent) m->sent[m->sent_len++] = pieces[i].ptr[k];
        }
    }
    return (ptrdiff_t)taken;
}

static int mock_shutdown(nkt_link *link) {
    mock_of(link)->shutdowns++;
    return NKT_OK;
}

static void mock_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    mock *m = mock_of(link);
    CHECK(want != 0);
    m->watch_calls++;
    if (m->deadline != 0) {
        out->deadline_ns = m->deadline;
        out->ready = m->ready_at_deadline && nkt_now_ns(m->env) >= m->deadline;
        return;
    }
    if (!m->sleeps) out->ready = true;
}

static void mock_close(nkt_link *link, bool abort) {
    mock *m = mock_of(link);
    m->closes++;
    m->aborts += abort;
    if (m->order == NULL) return;
    size_t len = strlen(m->order);
    m->order[len] = m->name;
    m->order[len + 1] = '\0';
}

static const nkt_transport mock_transport = {
    sizeof(nkt_transport), "mock", mock_recv, mock_send, mock_shutdown, mock_watch, mock_close,
    NULL, NULL, NULL, NULL,
};

static nkt_conn_opts conn_opts(probe *p, bool nonblocking) {
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    opts.nonblocking = nonblocking;
    return opts;
}

static nkt_conn *open_mock(probe *p, mock *m, bool nonblocking) {
    nkt_conn *conn = NULL;
    nkt_conn_opts opts = conn_opts(p, nonblocking);
    CHECK_INT(nkt_conn_open_custom(&mock_transport, m, &opts, &conn), NKT_OK);
    return conn;
}

//------------------------------------------------------------------------------
// Receiving
//------------------------------------------------------------------------------

// What read_line says, one after the other; a text stands for a line.
typedef struct recv_row {
    const char *name;
    step recv[STEPS_MAX];
    step lines[STEPS_MAX];
    int recv_calls;         // in all: what is final is not asked again
} recv_row;

static const recv_row recv_rows[] = {
    { "whole lines", { { "one\ntwo\n", 0 } },
      { { "one", 0 }, { "two", 0 }, { NULL, NKT_EOF }, { NULL, NKT_EOF } }, 2 },
    { "in pieces", { { "he", 0 }, { "llo\nwor", 0 }, { "ld\n", 0 } },
      { { "hello", 0 }, { "world", 0 }, { NULL, NKT_EOF } }, 4 },
    { "nothing for now", { { NULL, NKT_EAGAIN }, { "he", 0 }, { NULL, NKT_EAGAIN },
                           { "llo\n", 0 }, { NULL, NKT_EAGAIN } },
      { { "hello", 0 }, { NULL, NKT_EOF } }, 6 },
    { "no bytes are the end", { { "last", 0 }, { NULL, 0 } },
      { { "last", 0 }, { NULL, NKT_EOF }, { NULL, NKT_EOF } }, 2 },
    { "NKT_EOF is the end", { { NULL, NKT_EOF }, { "never\n", 0 } },
      { { NULL, NKT_EOF }, { NULL, NKT_EOF } }, 1 },
    { "an error is final", { { "one\n", 0 }, { NULL, NKT_ERESET }, { "never\n", 0 } },
      { { "one", 0 }, { NULL, NKT_ERESET }, { NULL, NKT_ERESET } }, 2 },
    { "an error of its own is final", { { NULL, -77 }, { "never\n", 0 } },
      { { NULL, -77 }, { NULL, -77 } }, 1 },
    { "more bytes than there is room for",
      { { "one\n", 0 }, { NULL, CLAIM_TOO_MANY }, { "never\n", 0 } },
      { { "one", 0 }, { NULL, NKT_EPROTO }, { NULL, NKT_EPROTO } }, 2 },
    { "as many as a number can say", { { NULL, PTRDIFF_MAX } }, { { NULL, NKT_EPROTO } }, 1 },
};

static void check_lines(nkt_conn *conn, const step *lines) {
    nkt_str line;
    for (const step *want = lines; want->text != NULL || want->result != 0; want++) {
        int err = NKT_EAGAIN;
        for (int i = 0; i < 10 && err == NKT_EAGAIN; i++) err = nkt_conn_read_line(conn, &line);
        CHECK_INT(err, want->result);
        if (err == NKT_OK && want->text != NULL) CHECK_VIEW(line, want->text);
    }
}

static void receiving(void) {
    for (size_t i = 0; i < sizeof recv_rows / sizeof recv_rows[0]; i++) {
        for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
            char test_name[100];
            snprintf(test_name, sizeof test_name, "receiving, %s: %s",
                     nonblocking ? "nonblocking" : "blocking", recv_rows[i].name);
            TEST(test_name) {
                probe p;
                mock m;
                probe_open(&p);
                memset(&m, 0, sizeof m);
                memcpy(m.recv, recv_rows[i].recv, sizeof m.recv);
                nkt_conn *conn = open_mock(&p, &m, nonblocking == 1);
                check_lines(conn, recv_rows[i].lines);
                CHECK_INT(m.recv_calls, recv_rows[i].recv_calls);
                nkt_conn_close(conn);
                CHECK_INT(m.closes, 1);
                CHECK_INT(m.aborts, 0);
                probe_close(&p);
            }
        }
    }
    TEST("bytes that came before an error are delivered before it") {
        probe p;
        mock m;
        nkt_str line;
        char room[10];
        probe_open(&p);
        memset(&m, 0, sizeof m);
        m.recv[0].text = "abc";
        m.recv[1].result = NKT_ERESET;
        nkt_conn *conn = open_mock(&p, &m, false);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_ERESET);
        CHECK_INT(nkt_conn_read(conn, room, sizeof room), 3);
        CHECK_MEM(room, 3, "abc", 3);
        CHECK_INT(nkt_conn_read(conn, room, sizeof room), NKT_ERESET);
        CHECK_INT(nkt_conn_abort(conn), 0);
        CHECK_INT(m.aborts, 1);
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// Sending
//------------------------------------------------------------------------------

typedef struct send_row {
    const char *name;
    ptrdiff_t send[STEPS_MAX];
    int err;                // of the write, or of the flush behind it
    const char *sent;       // what the transport has got
} send_row;

static const send_row send_rows[] = {
    { "all at once", { 0 }, NKT_OK, "hello world" },
    { "a byte at a time", { 1, 1, 1, 1, 1, 1, 1, 1 }, NKT_OK, "hello world" },
    { "in parts, with pauses", { 3, NKT_EAGAIN, 4, NKT_EAGAIN, NKT_EAGAIN, 2 },
      NKT_OK, "hello world" },
    { "it fails at once", { NKT_EPIPE }, NKT_EPIPE, "" },
    { "it fails later", { 3, NKT_EAGAIN, 2, NKT_ERESET }, NKT_ERESET, "hello" },
    { "it takes nothing", { 5, -CLAIM_TOO_MANY }, NKT_EPROTO, "hello" },
    { "it takes more than there is", { CLAIM_TOO_MANY }, NKT_EPROTO, "" },
    { "it takes more of the rest than there is", { 5, NKT_EAGAIN, CLAIM_TOO_MANY },
      NKT_EPROTO, "hello" },
};

static void send_one(const send_row *row, bool nonblocking) {
    static const nkt_str pieces[] = { { "hel", 3 }, { "", 0 }, { "lo wor", 6 }, { "ld", 2 } };
    probe p;
    mock m;
    probe_open(&p);
    memset(&m, 0, sizeof m);
    memcpy(m.send, row->send, sizeof m.send);
    nkt_conn *conn = open_mock(&p, &m, nonblocking);
    int err = nkt_conn_writev(conn, pieces, 4);
    if (nonblocking && err == NKT_OK) {
        err = NKT_EAGAIN;
        for (int i = 0; i < 20 && err == NKT_EAGAIN; i++) err = nkt_conn_flush(conn);
    }
    CHECK_INT(err, row->err);
    CHECK_MEM(m.sent, m.sent_len, row->sent, strlen(row->sent));
    if (row->err < 0) {
        // Final: it is not asked again.
        int calls = m.send_calls;
        CHECK_INT(nkt_conn_write_str(conn, "x"), row->err);
        CHECK_INT(nkt_conn_flush(conn), row->err);
        CHECK_INT(m.send_calls, calls);
    } else {
        CHECK_INT(nkt_conn_written(conn), 11);
        CHECK_INT(nkt_conn_queued(conn), 0);
        CHECK_INT(nkt_conn_shutdown_write(conn), NKT_OK);
        CHECK_INT(m.shutdowns, 1);
        CHECK_INT(nkt_conn_shutdown_write(conn), NKT_OK);
        CHECK_INT(m.shutdowns, 1);
        CHECK_INT(nkt_conn_write_str(conn, "x"), NKT_EPIPE);
    }
    nkt_conn_close(conn);
    CHECK_INT(m.closes, 1);
    probe_close(&p);
}

static void sending(void) {
    for (size_t i = 0; i < sizeof send_rows / sizeof send_rows[0]; i++) {
        char test_name[100];
        snprintf(test_name, sizeof test_name, "sending, blocking: %s", send_rows[i].name);
        TEST(test_name) send_one(&send_rows[i], false);
        snprintf(test_name, sizeof test_name, "sending, nonblocking: %s", send_rows[i].name);
        TEST(test_name) send_one(&send_rows[i], true);
    }
    TEST("what could not be sent is counted at the close") {
        probe p;
        mock m;
        probe_open(&p);
        memset(&m, 0, sizeof m);
        m.send[0] = 4;
        m.send[1] = NKT_EAGAIN;
        m.sleeps = true;
        nkt_conn *conn = open_mock(&p, &m, true);
        CHECK_INT(nkt_conn_write_str(conn, "hello world"), NKT_OK);
        CHECK_INT(nkt_conn_queued(conn), 7);
        CHECK_INT(nkt_conn_close(conn), 7);
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// The table
//------------------------------------------------------------------------------

static void tables(void) {
    TEST("a table that is too short, or has holes, is refused") {
        probe p;
        mock m;
        nkt_conn *conn = NULL;
        nkt_transport table = mock_transport;
        probe_open(&p);
        memset(&m, 0, sizeof m);
        nkt_conn_opts opts = conn_opts(&p, false);
        CHECK_INT(nkt_conn_open_custom(NULL, &m, &opts, &conn), NKT_EINVAL);
        table.size = offsetof(nkt_transport, local) - 1;
        CHECK_INT(nkt_conn_open_custom(&table, &m, &opts, &conn), NKT_EINVAL);
        table = mock_transport;
        table.recv = NULL;
        CHECK_INT(nkt_conn_open_custom(&table, &m, &opts, &conn), NKT_EINVAL);
        table = mock_transport;
        table.send = NULL;
        CHECK_INT(nkt_conn_open_custom(&table, &m, &opts, &conn), NKT_EINVAL);
        table = mock_transport;
        table.close = NULL;
        CHECK_INT(nkt_conn_open_custom(&table, &m, &opts, &conn), NKT_EINVAL);
        opts.stream.line_max = 0xffffffffu;
        CHECK_INT(nkt_conn_open_custom(&mock_transport, &m, &opts, &conn), NKT_EINVAL);
        opts.stream.line_max = 0;
        probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        CHECK_INT(nkt_conn_open_custom(&mock_transport, &m, &opts, &conn), NKT_ENOMEM);
        CHECK(conn == NULL);
        CHECK_INT(m.closes, 0);
        probe_close(&p);
    }
    TEST("a table of an older, shorter kind: what it does not have is not called") {
        // What lies behind its size is not even looked at.
        union { nkt_transport table; unsigned char bytes[sizeof(nkt_transport)]; } older;
        probe p;
        mock m;
        nkt_conn *conn = NULL;
        nkt_addr addr;
        nkt_str line;
        memset(&older, 0xEE, sizeof older);
        memcpy(&older, &mock_transport, offsetof(nkt_transport, local));
        older.table.size = offsetof(nkt_transport, local);
        probe_open(&p);
        memset(&m, 0, sizeof m);
        m.recv[0].text = "line\n";
        nkt_conn_opts opts = conn_opts(&p, false);
        CHECK_INT(nkt_conn_open_custom(&older.table, &m, &opts, &conn), NKT_OK);
        CHECK_INT(nkt_conn_local(conn, &addr), NKT_OK);
        CHECK_INT(addr.ip.family, 0);
        CHECK_INT(nkt_conn_peer(conn, &addr), NKT_OK);
        CHECK_INT(addr.ip.family, 0);
        CHECK_INT(nkt_conn_descriptor(conn), NKT_NO_FD);
        CHECK_INT(nkt_conn_flush(conn), NKT_OK);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_VIEW(line, "line");
        nkt_conn_close(conn);
        probe_close(&p);
    }
    TEST("sixteen descriptors can be waited for, and one more cannot") {
        nkt_interest interest;
        memset(&interest, 0, sizeof interest);
        for (int i = 0; i < NKT_WATCH_MAX; i++) {
            CHECK_INT(nkt_interest_add(&interest, 100 + i, NKT_READ), NKT_OK);
        }
        CHECK_INT(nkt_interest_add(&interest, 100, NKT_WRITE), NKT_OK);
        CHECK_INT(interest.watches[0].events, NKT_READ | NKT_WRITE);
        CHECK_INT(nkt_interest_add(&interest, 99, NKT_READ), NKT_ENOSPACE);
        CHECK_INT(interest.count, NKT_WATCH_MAX);
    }
}

//------------------------------------------------------------------------------
// Layers
//------------------------------------------------------------------------------

// Letters come out in capitals and go down in capitals; its name is written at
// its closing.
static ptrdiff_t upper_recv(nkt_link *link, void *buf, size_t cap) {
    ptrdiff_t count = nkt_link_recv(link->below, buf, cap);
    char *text = (char *)buf;
    for (ptrdiff_t i = 0; i < count; i++) {
        if (text[i] >= 'a' && text[i] <= 'z') text[i] = (char)(text[i] - 32);
    }
    return count;
}

static ptrdiff_t upper_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    char some[64];
    size_t len = pieces[0].len < sizeof some ? pieces[0].len : sizeof some;
    nkt_str piece;
    (void)count;
    for (size_t i = 0; i < len; i++) {
        char c = pieces[0].ptr[i];
        some[i] = c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
    }
    piece.ptr = some;
    piece.len = len;
    return nkt_link_send(link->below, &piece, 1);
}

static int upper_peer(nkt_link *link, nkt_addr *addr) {
    (void)link;
    return nkt_addr_parse("192.0.2.9:99", addr);
}

static const nkt_transport upper = {
    sizeof(nkt_transport), "upper", upper_recv, upper_send, NULL, NULL, mock_close,
    NULL, upper_peer, NULL, NULL,
};

static void push_leftovers(bool nonblocking) {
    probe p;
    nkt_conn *near_end = NULL, *far_end = NULL;
    nkt_str line;
    mock m;
    memset(&m, 0, sizeof m);
    probe_open(&p);
    probe_tcp(&p, nonblocking, false, &near_end, &far_end);
    probe_say(far_end, near_end, "starttls\nleft over\nha", &p.env);
    CHECK_INT(nkt_conn_read_line(near_end, &line), NKT_OK);
    CHECK_VIEW(line, "starttls");
    CHECK_INT(nkt_conn_push(near_end, &upper, &m), NKT_OK);
    CHECK_INT(nkt_conn_read_line(near_end, &line), NKT_OK);
    CHECK_VIEW(line, "LEFT OVER");
    if (nonblocking) CHECK_INT(nkt_conn_read_line(near_end, &line), NKT_EAGAIN);
    probe_say(far_end, near_end, "lf\n", &p.env);
    CHECK_INT(nkt_conn_read_line(near_end, &line), NKT_OK);
    CHECK_VIEW(line, "HALF");
    CHECK_INT(nkt_conn_write_str(near_end, "down\n"), NKT_OK);
    CHECK_INT(nkt_conn_flush(near_end), NKT_OK);
    CHECK_INT(nkt_conn_read_line(far_end, &line), NKT_OK);
    CHECK_VIEW(line, "DOWN");
    // The shutdown goes through to the socket.
    CHECK_INT(nkt_conn_shutdown_write(near_end), NKT_OK);
    CHECK_INT(nkt_conn_read_line(far_end, &line), NKT_EOF);
    nkt_conn_close(near_end);
    CHECK_INT(m.closes, 1);
    nkt_conn_close(far_end);
    probe_close(&p);
}

static void layers(void) {
    TEST("pushed on a blocking connection: left-over input goes through") push_leftovers(false);
    TEST("pushed on a nonblocking connection: left-over input goes through") {
        push_leftovers(true);
    }
    TEST("pushed on a poller, with left-over input and nothing more to come") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        nkt_poller *poller = NULL;
        nkt_poller_opts opts;
        nkt_event event;
        nkt_str line;
        mock m;
        memset(&m, 0, sizeof m);
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
        probe_tcp(&p, true, false, &near_end, &far_end);
        CHECK_INT(nkt_poller_add_conn(poller, near_end, NULL), NKT_OK);
        probe_say(far_end, near_end, "starttls\nleft over\n", &p.env);
        CHECK_INT(nkt_poller_wait(poller, 5000), 1);
        CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
        CHECK_INT(nkt_conn_read_line(near_end, &line), NKT_OK);
        CHECK_INT(nkt_conn_push(near_end, &upper, &m), NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, 0), 1);
        CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
        CHECK_INT(nkt_conn_read_line(near_end, &line), NKT_OK);
        CHECK_VIEW(line, "LEFT OVER");
        CHECK_INT(nkt_conn_read_line(near_end, &line), NKT_EAGAIN);
        CHECK_INT(nkt_poller_wait(poller, 0), 0);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        nkt_poller_close(poller);
        probe_close(&p);
    }
    TEST("pushed while it connects") {
        probe p;
        nkt_conn *conn = NULL, *peer = NULL;
        nkt_connect_opts opts;
        nkt_listen_opts listen_opts;
        nkt_listener *listener = NULL;
        nkt_addr addr;
        nkt_str line;
        mock m;
        memset(&m, 0, sizeof m);
        memset(&opts, 0, sizeof opts);
        memset(&listen_opts, 0, sizeof listen_opts);
        probe_open(&p);
        opts.env = listen_opts.env = &p.env;
        opts.nonblocking = true;
        CHECK_INT(nkt_listen("127.0.0.1:0", &listen_opts, &listener), NKT_OK);
        CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
        CHECK_INT(nkt_connect_addr(&addr, &opts, &conn), NKT_OK);
        CHECK_INT(nkt_conn_push(conn, &upper, &m), NKT_OK);
        CHECK_INT(nkt_conn_write_str(conn, "shout\n"), NKT_OK);
        CHECK_INT(nkt_accept(listener, &peer), NKT_OK);
        int err = NKT_EAGAIN;
        for (int i = 0; i < 5000 && err == NKT_EAGAIN; i++) err = nkt_conn_flush(conn);
        CHECK_INT(err, NKT_OK);
        CHECK_INT(nkt_conn_read_line(peer, &line), NKT_OK);
        CHECK_VIEW(line, "SHOUT");
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        nkt_listener_close(listener);
        probe_close(&p);
    }
}

static int allocation_that_fails;

static void *allocate_but_one(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    if (new_size != 0 && allocation_that_fails-- == 0) return NULL;
    return probe_allocate(env, ptr, old_size, new_size);
}

static void pushing_refused(void) {
    TEST("pushing over queued output is refused until it is sent") {
        probe p;
        mock below, above;
        memset(&below, 0, sizeof below);
        memset(&above, 0, sizeof above);
        below.send[0] = 2;
        below.send[1] = below.send[2] = below.send[3] = NKT_EAGAIN;
        below.sleeps = true;
        probe_open(&p);
        nkt_conn *conn = open_mock(&p, &below, true);
        CHECK_INT(nkt_conn_write_str(conn, "plain"), NKT_OK);
        CHECK_INT(nkt_conn_push(conn, &upper, &above), NKT_EAGAIN);
        CHECK_INT(nkt_conn_push(conn, &upper, &above), NKT_EAGAIN);
        int err = NKT_EAGAIN;
        for (int i = 0; i < 5 && err == NKT_EAGAIN; i++) err = nkt_conn_flush(conn);
        CHECK_INT(err, NKT_OK);
        CHECK_INT(nkt_conn_push(conn, NULL, &above), NKT_EINVAL);
        CHECK_INT(nkt_conn_push(conn, &upper, &above), NKT_OK);
        CHECK_INT(nkt_conn_write_str(conn, "secret"), NKT_OK);
        CHECK_MEM(below.sent, below.sent_len, "plainSECRET", 11);
        nkt_conn_close(conn);
        probe_close(&p);
    }
    TEST("pushing without memory loses nothing") {
        probe p;
        mock below, above;
        nkt_str line;
        memset(&below, 0, sizeof below);
        memset(&above, 0, sizeof above);
        below.recv[0].text = "one\ntwo\n";
        probe_open(&p);
        nkt_conn *conn = open_mock(&p, &below, false);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        for (int i = 0; i < 2; i++) {
            // First there is none for the link, then none for the input.
            allocation_that_fails = i;
            p.env.allocate = allocate_but_one;
            CHECK_INT(nkt_conn_push(conn, &upper, &above), NKT_ENOMEM);
        }
        CHECK_INT(above.closes, 0);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
        CHECK_VIEW(line, "two");
        nkt_conn_close(conn);
        probe_close(&p);
    }
}

static void layered(void) {
    TEST("layers are closed from the top, and asked for addresses from the top") {
        probe p;
        mock bottom, middle, top;
        char order[8] = "";
        nkt_addr addr, wanted;
        nkt_fd fd = NKT_NO_FD;
        memset(&bottom, 0, sizeof bottom);
        bottom.order = order;
        middle = top = bottom;
        bottom.name = 'b';
        middle.name = 'm';
        top.name = 't';
        probe_open(&p);
        for (int abort = 0; abort < 2; abort++) {
            order[0] = '\0';
            nkt_conn *conn = open_mock(&p, &bottom, false);
            CHECK_INT(nkt_conn_push(conn, &upper, &middle), NKT_OK);
            CHECK_INT(nkt_conn_push(conn, &mock_transport, &top), NKT_OK);
            CHECK_INT(nkt_conn_peer(conn, &addr), NKT_OK);
            CHECK_INT(nkt_addr_parse("192.0.2.9:99", &wanted), NKT_OK);
            CHECK(nkt_addr_equal(&addr, &wanted));
            CHECK_INT(nkt_conn_detach(conn, &fd), NKT_EUNSUPPORTED);
            if (abort) nkt_conn_abort(conn);
            else nkt_conn_close(conn);
            CHECK_STR(order, "tmb");
            CHECK_INT(top.aborts, abort);
            CHECK_INT(bottom.aborts, abort);
        }
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// Waiting for a transport
//------------------------------------------------------------------------------

// A link's own deadline: its recv is called then, whether or not its watch says
// so once more.
static void deadline_one(bool nonblocking, bool ready_at_deadline) {
    probe p;
    mock m;
    nkt_str line;
    nkt_event event;
    nkt_poller *poller = NULL;
    nkt_poller_opts opts;
    memset(&m, 0, sizeof m);
    memset(&opts, 0, sizeof opts);
    probe_open(&p);
    p.fake = true;
    opts.env = &p.env;
    CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
    m.recv[0].result = NKT_EAGAIN;
    m.recv[1].text = "late\n";
    m.recv[2].result = NKT_EAGAIN;
    m.deadline = 300 * PROBE_MS;
    m.ready_at_deadline = ready_at_deadline;
    m.env = &p.env;
    nkt_conn *conn = open_mock(&p, &m, nonblocking);
    if (nonblocking) {
        CHECK_INT(nkt_poller_add_conn(poller, conn, NULL), NKT_OK);
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
        CHECK_INT(nkt_poller_wait(poller, 100), 0);
        CHECK_INT(p.now, 100 * PROBE_MS);
        CHECK_INT(nkt_poller_wait(poller, 10000), 1);
        CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
    }
    CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
    CHECK_INT(p.now, 300 * PROBE_MS);
    CHECK_VIEW(line, "late");
    if (nonblocking) {
        // It has a later one, then none.
        m.deadline = 500 * PROBE_MS;
        CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
        nkt_conn_notify(conn);
        CHECK_INT(nkt_poller_wait(poller, 150), 0);
        CHECK_INT(p.now, 450 * PROBE_MS);
        CHECK_INT(nkt_poller_wait(poller, 150), 1);
        CHECK_INT(p.now, 500 * PROBE_MS);
    }
    nkt_conn_close(conn);
    nkt_poller_close(poller);
    probe_close(&p);
}

static void deadlines(void) {
    TEST("a link's deadline, blocking") deadline_one(false, false);
    TEST("a link's deadline that its watch repeats, blocking") deadline_one(false, true);
    TEST("a link's deadline, on a poller") deadline_one(true, false);
    TEST("a link's deadline that its watch repeats, on a poller") deadline_one(true, true);
    TEST("a wait ends in time beside a link whose deadline is always over") {
        probe p;
        mock m;
        nkt_str line;
        nkt_event event;
        nkt_poller *poller = NULL;
        nkt_poller_opts opts;
        memset(&m, 0, sizeof m);
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
        for (int i = 0; i < STEPS_MAX - 1; i++) m.recv[i].result = NKT_EAGAIN;
        m.deadline = 1;
        nkt_conn *conn = open_mock(&p, &m, true);
        CHECK_INT(nkt_poller_add_conn(poller, conn, NULL), NKT_OK);
        for (int i = 0; i < 5; i++) {
            // Either it is reported, or the time is over; it never hangs.
            int count = nkt_poller_wait(poller, 10);
            CHECK(count == 0 || count == 1);
            if (nkt_poller_next(poller, &event) == NKT_OK) {
                CHECK_INT(nkt_conn_read_line(conn, &line), NKT_EAGAIN);
            }
        }
        nkt_conn_close(conn);
        nkt_poller_close(poller);
        probe_close(&p);
    }
}

// Over a real socket, from which it can read only once there is room to write,
// as TLS has it in the middle of a handshake.
static void eager_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    (void)want;
    nkt_interest_add(out, *(nkt_fd *)link->self, NKT_WRITE);
}

static ptrdiff_t eager_recv(nkt_link *link, void *buf, size_t cap) {
    return nkt_link_recv(link->below, buf, cap);
}

static ptrdiff_t eager_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    return nkt_link_send(link->below, pieces, count);
}

static void eager_close(nkt_link *link, bool abort) {
    (void)link, (void)abort;
}

static const nkt_transport eager_transport = {
    sizeof(nkt_transport), "eager", eager_recv, eager_send, NULL, eager_watch, eager_close, NULL,
    NULL, NULL, NULL,
};

static void reading_by_writing(void) {
    TEST("a link that needs room to write in order to read") {
        probe p;
        nkt_conn *conn = NULL, *peer = NULL;
        nkt_poller *poller = NULL;
        nkt_poller_opts opts;
        nkt_event event;
        nkt_str line;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        if (CHECK(probe_tcp(&p, true, false, &conn, &peer))) {
            nkt_fd fd = nkt_conn_descriptor(conn);
            CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
            CHECK_INT(nkt_conn_push(conn, &eager_transport, &fd), NKT_OK);
            probe_say(peer, conn, "here\n", &p.env);
            CHECK_INT(nkt_poller_add_conn(poller, conn, NULL), NKT_OK);
            CHECK_INT(nkt_poller_wait(poller, 2000), 1);
            if (CHECK_INT(nkt_poller_next(poller, &event), NKT_OK)) {
                CHECK_INT(event.events, NKT_READ);
            }
            CHECK_INT(nkt_conn_read_line(conn, &line), NKT_OK);
            CHECK_VIEW(line, "here");
        }
        nkt_conn_close(conn);
        nkt_conn_close(peer);
        nkt_poller_close(poller);
        probe_close(&p);
    }
}

//------------------------------------------------------------------------------
// What a read leaves behind
//------------------------------------------------------------------------------

static void between_reads(void) {
    TEST("read_exact keeps what it has when there is no memory for more") {
        probe p;
        mock m;
        char got[16] = "";
        memset(&m, 0, sizeof m);
        m.recv[0].text = "half";
        m.recv[1].result = NKT_EAGAIN;
        m.recv[2].text = "whole";
        probe_open(&p);
        nkt_conn *conn = open_mock(&p, &m, true);
        nkt_str view;
        // What waits in a small block goes into a large one that there is not.
        CHECK_INT(nkt_conn_peek(conn, 5, &view), NKT_EAGAIN);
        allocation_that_fails = 0;
        p.env.allocate = allocate_but_one;
        CHECK_INT(nkt_conn_read_exact(conn, got, 9), NKT_ENOMEM);
        CHECK_INT(nkt_conn_received(conn), 4);
        CHECK_INT(nkt_conn_read_exact(conn, got, 9), NKT_OK);
        CHECK_STR(got, "halfwhole");
        nkt_conn_close(conn);
        probe_close(&p);
    }
    TEST("a line ends the time-out that a peek has begun") {
        probe p;
        mock m;
        nkt_str view;
        nkt_conn *conn = NULL;
        memset(&m, 0, sizeof m);
        m.recv[0].text = "a line of forty bytes, and as many behind\n"
                         "a line of forty bytes, and as many behind\n";
        for (int i = 1; i < STEPS_MAX - 1; i++) m.recv[i].result = NKT_EAGAIN;
        probe_open(&p);
        p.fake = true;
        nkt_conn_opts opts = conn_opts(&p, true);
        opts.stream.read_timeout_ms = 1000;
        CHECK_INT(nkt_conn_open_custom(&mock_transport, &m, &opts, &conn), NKT_OK);
        CHECK_INT(nkt_conn_peek(conn, 100, &view), NKT_EAGAIN);
        p.now += 900 * PROBE_MS;
        CHECK_INT(nkt_conn_read_line(conn, &view), NKT_OK);
        CHECK_INT(nkt_conn_peek(conn, 100, &view), NKT_EAGAIN);
        p.now += 900 * PROBE_MS;
        CHECK_INT(nkt_conn_peek(conn, 100, &view), NKT_EAGAIN);
        p.now += 100 * PROBE_MS;
        CHECK_INT(nkt_conn_peek(conn, 100, &view), NKT_ETIMEDOUT);
        nkt_conn_close(conn);
        probe_close(&p);
    }
}

static void going_back(void) {
}

#ifndef NETKIT_NO_THREADS
// Something that a thread of its own brings, as a device or a library would.
typedef struct mailbox {
    nkt_conn *conn;
    char letter;            // 0 = empty; atomic
    uint32_t done;
} mailbox;

static ptrdiff_t mailbox_recv(nkt_link *link, void *buf, size_t cap) {
    mailbox *box = (mailbox *)link->self;
    char letter = __atomic_exchange_n(&box->letter, 0, __ATOMIC_SEQ_CST);
    if (letter == 0 || cap == 0) return NKT_EAGAIN;
    *(char *)buf = letter;
    return 1;
}

static ptrdiff_t mailbox_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    (void)link;
    (void)pieces;
    (void)count;
    return NKT_EAGAIN;
}

static void mailbox_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    mailbox *box = (mailbox *)link->self;
    if ((want & NKT_READ) && __atomic_load_n(&box->letter, __ATOMIC_SEQ_CST) != 0) {
        out->ready = true;
    }
}

static void mailbox_close(nkt_link *link, bool abort) {
    (void)link;
    (void)abort;
}

static const nkt_transport mailbox_transport = {
    sizeof(nkt_transport), "mailbox", mailbox_recv, mailbox_send, NULL, mailbox_watch,
    mailbox_close, NULL, NULL, NULL, NULL,
};

enum { LETTERS = 2000 };

// Puts letters in, each when the last one was taken.
static void postman(void *arg) {
    mailbox *box = (mailbox *)arg;
    for (int i = 0; i < LETTERS; i++) {
        while (__atomic_load_n(&box->letter, __ATOMIC_SEQ_CST) != 0) probe_yield();
        __atomic_store_n(&box->letter, (char)('a' + i % 26), __ATOMIC_SEQ_CST);
        nkt_conn_notify(box->conn);
    }
    __atomic_store_n(&box->done, 1, __ATOMIC_SEQ_CST);
}

static void notified(bool nonblocking) {
    probe p;
    mailbox box;
    nkt_event event;
    nkt_poller *poller = NULL;
    nkt_poller_opts opts;
    char letter;
    int received = 0;
    memset(&box, 0, sizeof box);
    memset(&opts, 0, sizeof opts);
    probe_open(&p);
    opts.env = &p.env;
    nkt_conn_opts conn = conn_opts(&p, nonblocking);
    CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
    CHECK_INT(nkt_conn_open_custom(&mailbox_transport, &box, &conn, &box.conn), NKT_OK);
    if (nonblocking) CHECK_INT(nkt_poller_add_conn(poller, box.conn, NULL), NKT_OK);
    CHECK_INT(nkt_thread_start(&p.env, postman, &box), NKT_OK);
    while (received < LETTERS) {
        if (nonblocking) {
            int count = nkt_poller_wait(poller, 20000);
            if (!CHECK_INT(count, 1)) break;
            CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
        }
        ptrdiff_t count = nkt_conn_read(box.conn, &letter, 1);
        if (nonblocking && count == NKT_EAGAIN) continue;
        if (!CHECK_INT(count, 1)) break;
        CHECK_INT(letter, 'a' + received % 26);
        received++;
    }
    while (__atomic_load_n(&box.done, __ATOMIC_SEQ_CST) == 0) probe_yield();
    nkt_conn_close(box.conn);
    nkt_poller_close(poller);
    probe_close(&p);
}

static void notifying(void) {
    TEST("a notify from another thread wakes a blocking read") notified(false);
    TEST("a notify from another thread wakes a poller") notified(true);
}
#endif

//------------------------------------------------------------------------------
// The in-memory pair
//------------------------------------------------------------------------------

static void pairs(void) {
    TEST("pair: no more than its capacity is under way") {
        static char block[NKT_PAIR_CAPACITY + 1000];
        probe p;
        nkt_conn *a = NULL, *b = NULL;
        probe_open(&p);
        nkt_conn_opts opts = conn_opts(&p, true);
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_write(a, block, sizeof block), NKT_OK);
        CHECK_INT(nkt_conn_queued(a), 1000);
        CHECK_INT(nkt_conn_flush(a), NKT_EAGAIN);
        CHECK_INT(nkt_conn_read(b, block, 500), 500);
        size_t left = sizeof block - 500;
        for (int i = 0; i < 1000 && left > 0; i++) {
            ptrdiff_t count = nkt_conn_read(b, block, sizeof block);
            if (count > 0) left -= (size_t)count;
            else CHECK_INT(nkt_conn_flush(a), NKT_OK);
        }
        CHECK_INT(left, 0);
        CHECK_INT(nkt_conn_queued(a), 0);
        nkt_conn_close(a);
        nkt_conn_close(b);
        probe_close(&p);
    }
    TEST("pair: closing in order is the end, closing over unread bytes a reset") {
        for (int reset = 0; reset < 2; reset++) {
            probe p;
            nkt_conn *a = NULL, *b = NULL;
            nkt_str line;
            probe_open(&p);
            nkt_conn_opts opts = conn_opts(&p, false);
            CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
            CHECK_INT(nkt_conn_write_str(a, "last\n"), NKT_OK);
            if (reset) CHECK_INT(nkt_conn_write_str(b, "unread\n"), NKT_OK);
            nkt_conn_close(a);
            CHECK_INT(nkt_conn_write_str(b, "x"), reset ? NKT_ERESET : NKT_EPIPE);
            CHECK_INT(nkt_conn_read_line(b, &line), NKT_OK);
            CHECK_VIEW(line, "last");
            CHECK_INT(nkt_conn_read_line(b, &line), reset ? NKT_ERESET : NKT_EOF);
            nkt_conn_close(b);
            probe_close(&p);
        }
    }
}

static void pairs_and_more(void) {
    TEST("pair: half-closed, the other direction goes on") {
        probe p;
        nkt_conn *a = NULL, *b = NULL;
        nkt_str line;
        char name[20];
        nkt_conn_info info;
        probe_open(&p);
        nkt_conn_opts opts = conn_opts(&p, false);
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_shutdown_write(a), NKT_OK);
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_EOF);
        CHECK_INT(nkt_conn_write_str(b, "still here\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_OK);
        CHECK_VIEW(line, "still here");
        CHECK_INT(nkt_conn_peer_name(a, name, sizeof name), 4);
        CHECK_STR(name, "pair");
        CHECK_INT(nkt_conn_descriptor(a), NKT_NO_FD);
        CHECK_INT(nkt_conn_get_info(b, &info), NKT_OK);
        CHECK_INT(info.sent, 11);
        CHECK_INT(info.tcp.rtt_us, -1);
        nkt_conn_abort(b);
        CHECK_INT(nkt_conn_read_line(a, &line), NKT_ERESET);
        nkt_conn_close(a);
        probe_close(&p);
    }
    TEST("pair: both ends are of one environment") {
        probe p;
        nkt_conn *a = NULL, *b = NULL;
        probe_open(&p);
        nkt_conn_opts opts = conn_opts(&p, false);
        CHECK_INT(nkt_conn_pair(&opts, NULL, &a, &b), NKT_EINVAL);
        CHECK_INT(nkt_conn_pair(NULL, &opts, &a, &b), NKT_EINVAL);
        opts.stream.queue_max = 0xffffffffu;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_EINVAL);
        opts.stream.queue_max = 0;
        for (int i = 1; i <= 3; i++) {
            nkt_conn_opts bad = opts;
            bad.stream.line_max = 0xffffffffu;
            CHECK_INT(nkt_conn_pair(&opts, &bad, &a, &b), NKT_EINVAL);
        }
        CHECK(a == NULL && b == NULL);
        CHECK_INT(nkt_conn_pair(NULL, NULL, &a, &b), NKT_OK);
        nkt_conn_close(a);
        nkt_conn_close(b);
        probe_close(&p);
    }
}

#ifndef NETKIT_NO_THREADS
#define STREAM_BYTES ((uint64_t)16 << 20)

// A byte stream that is never twice the same, made and checked in blocks.
typedef struct stream {
    nkt_conn *conn;
    uint64_t seed;
    uint64_t done;
    uint64_t wrong;
    int err;
    uint32_t over;          // atomic
} stream;

static void stream_fill(stream *s, unsigned char *buf, size_t len) {
    for (size_t i = 0; i < len; i++) {
        s->seed = s->seed * 6364136223846793005u + 1442695040888963407u;
        buf[i] = (unsigned char)(s->seed >> 56);
    }
}

static void stream_check(stream *s, const unsigned char *buf, size_t len) {
    for (size_t i = 0; i < len; i++) {
        s->seed = s->seed * 6364136223846793005u + 1442695040888963407u;
        s->wrong += buf[i] != (unsigned char)(s->seed >> 56);
    }
    s->done += len;
}

static void stream_writer(void *arg) {
    stream *s = (stream *)arg;
    unsigned char block[7919];
    while (s->done < STREAM_BYTES && s->err == NKT_OK) {
        size_t len = STREAM_BYTES - s->done < sizeof block ? (size_t)(STREAM_BYTES - s->done)
                                                           : sizeof block;
        stream_fill(s, block, len);
        s->err = nkt_conn_write(s->conn, block, len);
        s->done += len;
    }
    if (s->err == NKT_OK) s->err = nkt_conn_shutdown_write(s->conn);
    __atomic_store_n(&s->over, 1, __ATOMIC_SEQ_CST);
}

static void stream_reader(void *arg) {
    stream *s = (stream *)arg;
    unsigned char block[10007];
    ptrdiff_t count;
    while ((count = nkt_conn_read(s->conn, block, sizeof block)) > 0) {
        stream_check(s, block, (size_t)count);
    }
    s->err = (int)count;
    __atomic_store_n(&s->over, 1, __ATOMIC_SEQ_CST);
}

// The nonblocking end: sends one stream and takes the other, on a poller. The
// first event is for the bytes that the writer sends, whoever it is.
static void stream_both(nkt_poller *poller, nkt_conn *conn, stream *out, stream *in) {
    static unsigned char block[30011];
    nkt_event event;
    size_t held = 0;            // of the block, not written yet
    ptrdiff_t count = 0;
    while ((in->err == NKT_OK || !out->over) && out->err == NKT_OK) {
        // Whatever is to be done is done without looking who it is.
        if (!CHECK(nkt_poller_wait(poller, 20000) > 0)) break;
        while (nkt_poller_next(poller, &event) == NKT_OK) continue;
        int err = NKT_OK;
        while (out->done < STREAM_BYTES && err == NKT_OK) {
            size_t rest = (size_t)(STREAM_BYTES - out->done);
            if (held == 0) {
                held = rest < sizeof block ? rest : sizeof block;
                stream_fill(out, block, held);
            }
            err = nkt_conn_write(conn, block, held);
            if (err != NKT_OK) break;
            out->done += held;
            held = 0;
        }
        if (err != NKT_OK && err != NKT_EAGAIN) out->err = err;
        if (out->done == STREAM_BYTES && !out->over) {
            out->over = 1;
            out->err = nkt_conn_shutdown_write(conn);
        }
        unsigned char room[20011];
        while (in->err == NKT_OK && (count = nkt_conn_read(conn, room, sizeof room)) > 0) {
            stream_check(in, room, (size_t)count);
        }
        if (count != NKT_EAGAIN) in->err = (int)count;
    }
}

static void pair_across_threads(void) {
    TEST("pair: 16 MiB each way, a poller here, a reader and a writer there") {
        probe p;
        stream out, in, back, forth;
        nkt_conn *near_end = NULL, *far_end = NULL;
        nkt_poller *poller = NULL;
        nkt_poller_opts opts;
        memset(&opts, 0, sizeof opts);
        memset(&out, 0, sizeof out);
        in = back = forth = out;
        probe_open(&p);
        opts.env = &p.env;
        nkt_conn_opts here = conn_opts(&p, true), there = conn_opts(&p, false);
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
        CHECK_INT(nkt_conn_pair(&here, &there, &near_end, &far_end), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, near_end, NULL), NKT_OK);
        back.conn = forth.conn = far_end;
        out.seed = back.seed = 1;
        in.seed = forth.seed = 2;
        CHECK_INT(nkt_thread_start(&p.env, stream_reader, &back), NKT_OK);
        CHECK_INT(nkt_thread_start(&p.env, stream_writer, &forth), NKT_OK);
        stream_both(poller, near_end, &out, &in);
        int64_t patience = nkt_now_ns(NULL) + 20000 * PROBE_MS;
        while (__atomic_load_n(&back.over, __ATOMIC_SEQ_CST) == 0 ||
               __atomic_load_n(&forth.over, __ATOMIC_SEQ_CST) == 0) {
            // Without this the queue is pushed by nobody any more.
            nkt_poller_wait(poller, 10);
            if (!CHECK(nkt_now_ns(NULL) < patience)) break;
        }
        CHECK_INT(out.err, NKT_OK);
        CHECK_INT(forth.err, NKT_OK);
        CHECK_INT(in.err, NKT_EOF);
        CHECK_INT(back.err, NKT_EOF);
        CHECK_INT(in.done, STREAM_BYTES);
        CHECK_INT(back.done, STREAM_BYTES);
        CHECK_INT(in.wrong, 0);
        CHECK_INT(back.wrong, 0);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        nkt_poller_close(poller);
        probe_close(&p);
    }
}
#endif

int main(void) {
    receiving();
    sending();
    tables();
    layers();
    pushing_refused();
    layered();
    deadlines();
    reading_by_writing();
    between_reads();
    going_back();
#ifndef NETKIT_NO_THREADS
    notifying();
#endif
    pairs();
    pairs_and_more();
#ifndef NETKIT_NO_THREADS
    pair_across_threads();
#endif
    return test_finish();
}
