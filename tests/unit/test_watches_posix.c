// test_watches_posix.c - links that wait for several descriptors, on a poller
//
// The transport here stands on up to 16 pipes and has no bytes of its own: a
// byte in a pipe that it waits for must wake the connection, one in another
// pipe must not. How many it waits for changes while it is in the poller.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "probe.h"

enum { PIPES = NKT_WATCH_MAX + 1 };

typedef struct many {
    probe p;
    nkt_poller *poller;
    nkt_conn *conn;
    int pipes[PIPES][2];
    int first, count;           // the pipes that are waited for
    bool refused_more;          // the 17th descriptor
} many;

static ptrdiff_t many_recv(nkt_link *link, void *buf, size_t cap) {
    (void)link;
    (void)buf;
    (void)cap;
    return NKT_EAGAIN;
}

static ptrdiff_t many_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    (void)link;
    (void)pieces;
    (void)count;
    return NKT_EAGAIN;
}

static void many_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    many *m = (many *)link->self;
    m->refused_more = false;
    for (int i = m->first; i < m->first + m->count; i++) {
        int err = nkt_interest_add(out, m->pipes[i][0], want & NKT_READ);
        // Twice is once.
        if (err == NKT_OK) CHECK_INT(nkt_interest_add(out, m->pipes[i][0], NKT_READ), NKT_OK);
        m->refused_more = err == NKT_ENOSPACE;
    }
}

static void many_close(nkt_link *link, bool abort) {
    (void)link;
    (void)abort;
}

static const nkt_transport many_transport = {
    sizeof(nkt_transport), "many", many_recv, many_send, NULL, many_watch, many_close,
    NULL, NULL, NULL, NULL,
};

static bool begin(many *m, bool portable, int count) {
    nkt_conn_opts opts;
    nkt_poller_opts poller;
    memset(m, 0, sizeof *m);
    memset(&opts, 0, sizeof opts);
    memset(&poller, 0, sizeof poller);
    probe_open(&m->p);
    if (portable) m->p.base_poll = nkt_sys_poll_portable();
    for (int i = 0; i < PIPES; i++) CHECK_INT(pipe(m->pipes[i]), 0);
    m->count = count;
    opts.env = poller.env = &m->p.env;
    opts.nonblocking = true;
    return CHECK_INT(nkt_poller_open(&poller, &m->poller), NKT_OK) &&
           CHECK_INT(nkt_conn_open_custom(&many_transport, m, &opts, &m->conn), NKT_OK);
}

static void end(many *m) {
    nkt_conn_close(m->conn);
    nkt_poller_close(m->poller);
    for (int i = 0; i < PIPES; i++) {
        close(m->pipes[i][0]);
        close(m->pipes[i][1]);
    }
    probe_close(&m->p);
}

// Another set of descriptors, told as a transport tells it.
static void change(many *m, int first, int count) {
    nkt_event event;
    m->first = first;
    m->count = count;
    nkt_conn_notify(m->conn);
    nkt_poller_wait(m->poller, 0);
    while (nkt_poller_next(m->poller, &event) == NKT_OK) continue;
    char byte;
    CHECK_INT(nkt_conn_read(m->conn, &byte, 1), NKT_EAGAIN);
}

// The pipes that wake the connection are those, and no others.
static void check_waking(many *m) {
    for (int i = 0; i < PIPES; i++) {
        char byte = 'x';
        nkt_event event;
        bool watched = i >= m->first && i < m->first + m->count && i - m->first < NKT_WATCH_MAX;
        CHECK_INT(write(m->pipes[i][1], &byte, 1), 1);
        CHECK_INT(nkt_poller_wait(m->poller, 0), watched);
        if (watched && CHECK_INT(nkt_poller_next(m->poller, &event), NKT_OK)) {
            CHECK(event.conn == m->conn);
            CHECK_INT(event.events, NKT_READ);
        }
        CHECK_INT(read(m->pipes[i][0], &byte, 1), 1);
        CHECK_INT(nkt_conn_read(m->conn, &byte, 1), NKT_EAGAIN);
    }
}

static void changing(void) {
    static const struct { int first, count; } steps[] = {
        { 0, 2 }, { 0, 3 }, { 1, 3 }, { 5, 4 }, { 0, 16 }, { 1, 16 }, { 3, 1 }, { 0, 0 }, { 7, 2 },
        { 8, 1 }, { 2, 15 }, { 0, 17 }, { 4, 0 }, { 4, 5 },
    };
    for (int portable = 0; portable < 2; portable++) {
        TEST(portable ? "several descriptors, poll()" : "several descriptors") {
            many m;
            if (!begin(&m, portable != 0, 1)) return;
            CHECK_INT(nkt_poller_add_conn(m.poller, m.conn, NULL), NKT_OK);
            check_waking(&m);
            for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
                change(&m, steps[i].first, steps[i].count);
                CHECK_INT(m.refused_more, steps[i].count > NKT_WATCH_MAX);
                check_waking(&m);
            }
            // Out and in again, and paused.
            CHECK_INT(nkt_poller_remove_conn(m.poller, m.conn), NKT_OK);
            CHECK_INT(nkt_poller_add_conn(m.poller, m.conn, NULL), NKT_OK);
            check_waking(&m);
            CHECK_INT(nkt_poller_want(m.poller, m.conn, 0), NKT_OK);
            CHECK_INT(write(m.pipes[4][1], "x", 1), 1);
            CHECK_INT(nkt_poller_wait(m.poller, 0), 0);
            CHECK_INT(nkt_poller_want(m.poller, m.conn, NKT_READ), NKT_OK);
            CHECK_INT(nkt_poller_wait(m.poller, 0), 1);
            end(&m);
        }
    }
}

static void failing(void) {
    TEST("a registration that is refused is the end of the connection") {
        many m;
        nkt_event event;
        char byte;
        if (!begin(&m, false, 1)) return;
        CHECK_INT(nkt_poller_add_conn(m.poller, m.conn, NULL), NKT_OK);
        m.count = 4;
        probe_fail(&m.p, PROBE_POLL_SET, NKT_ENOMEM, 1);
        nkt_conn_notify(m.conn);
        CHECK_INT(nkt_poller_wait(m.poller, 0), 1);
        CHECK_INT(nkt_poller_next(m.poller, &event), NKT_OK);
        CHECK(event.conn == m.conn);
        CHECK_INT(nkt_conn_read(m.conn, &byte, 1), NKT_ENOMEM);
        CHECK_INT(nkt_conn_write(m.conn, "x", 1), NKT_ENOMEM);
        end(&m);
    }
    TEST("no memory for more registrations") {
        many m;
        char byte;
        if (!begin(&m, false, 1)) return;
        CHECK_INT(nkt_poller_add_conn(m.poller, m.conn, NULL), NKT_OK);
        long before = probe_calls(&m.p, PROBE_ALLOCATE);
        change(&m, 0, 3);
        CHECK(probe_calls(&m.p, PROBE_ALLOCATE) > before);
        change(&m, 0, 1);
        probe_fail(&m.p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        m.count = 3;
        nkt_conn_notify(m.conn);
        CHECK_INT(nkt_poller_wait(m.poller, 0), 1);
        CHECK_INT(nkt_conn_read(m.conn, &byte, 1), NKT_ENOMEM);
        end(&m);
    }
}

// Nothing else waits on them: adding fails as a whole.
static void refused_at_once(void) {
    TEST("a connection whose descriptors are refused is not added") {
        many m;
        if (!begin(&m, false, 3)) return;
        probe_fail(&m.p, PROBE_POLL_SET, NKT_EMFILE, 1);
        CHECK_INT(nkt_poller_add_conn(m.poller, m.conn, NULL), NKT_EMFILE);
        CHECK_INT(nkt_poller_remove_conn(m.poller, m.conn), NKT_ENOTFOUND);
        CHECK_INT(nkt_poller_add_conn(m.poller, m.conn, NULL), NKT_OK);
        check_waking(&m);
        end(&m);
    }
}

int main(void) {
    changing();
    failing();
    refused_at_once();
    return test_finish();
}
