// test_race.c - the race for a connection, by name (RFC 8305)
//
// Look-ups and attempts follow a script on a false clock, so that every instant
// is checked exactly. Each row is run in both faces.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "race_table.h"

//------------------------------------------------------------------------------
// Running them
//------------------------------------------------------------------------------

// What was tried, as text; `starts` as the network has seen it.
static void tell_tried(const nkt_connect_report *report, char *text, size_t cap, char *starts) {
    size_t used = 0, started = 0;
    text[0] = starts[0] = '\0';
    for (int i = 0; i < report->attempt_count && i < NKT_ATTEMPTS_MAX && used < cap; i++) {
        const nkt_attempt *one = &report->attempts[i];
        char ip[NKT_IP_TEXT_MAX];
        nkt_ip_format(&one->addr.ip, ip, sizeof ip);
        CHECK_INT(one->addr.port, 80);
        used += (size_t)snprintf(text + used, cap - used, "%s%s@%d-%d %s", i > 0 ? ", " : "", ip,
                                 one->start_ms, one->end_ms, nkt_errname(one->err) + 4);
        started += (size_t)snprintf(starts + started, cap - started, "%s%s@%d", i > 0 ? " " : "",
                                    ip, one->start_ms);
    }
}

static void tell_lookups(const nkt_connect_report *report, char *text, size_t cap) {
    char when[2][16];
    for (int i = 0; i < 2; i++) {
        snprintf(when[i], sizeof when[i], "%d", report->lookup_ms[i]);
        if (report->lookup_ms[i] == -1) snprintf(when[i], sizeof when[i], "-");
    }
    snprintf(text, cap, "AAAA %s@%s, A %s@%s", nkt_errname(report->lookup_err[0]) + 4, when[0],
             nkt_errname(report->lookup_err[1]) + 4, when[1]);
}

static void check_report(const nkt_connect_report *report, const race_row *row) {
    char tried[2048], starts[2048], lookups[128];
    tell_tried(report, tried, sizeof tried, starts);
    tell_lookups(report, lookups, sizeof lookups);
    CHECK_INT(report->err, row->err);
    CHECK_INT(report->elapsed_ms, row->elapsed_ms);
    CHECK_STR(tried, row->tried);
    CHECK_STR(fakenet.starts, starts);
    CHECK_STR(lookups, row->lookups);
    if (row->err == NKT_OK) return;
    CHECK(strstr(report->text, "example.org:80") != NULL);
    CHECK(strstr(report->text, nkt_strerror(row->err)) != NULL);
    bool pending = strstr(row->lookups, "EAGAIN") != NULL;
    CHECK((strstr(report->text, "the resolver has not answered") != NULL) == pending);
    for (int i = 0; i < report->attempt_count; i++) {
        char addr[NKT_ADDR_TEXT_MAX];
        nkt_addr_format(&report->attempts[i].addr, addr, sizeof addr);
        CHECK(strstr(report->text, addr) != NULL);
    }
}

// The name was asked for once in each family, and the winner is the one.
static void check_end(const race_row *row, nkt_conn *conn) {
    char peer[NKT_ADDR_TEXT_MAX];
    nkt_addr addr;
    CHECK_INT(fakenet.p.now, fakenet.start + row->elapsed_ms * PROBE_MS);
    CHECK_INT(fakenet.tcp_open, row->err == NKT_OK);
    if (row->err == NKT_OK && CHECK(conn != NULL)) {
        const char *won = strstr(row->tried, " OK");
        CHECK_INT(nkt_conn_peer(conn, &addr), NKT_OK);
        nkt_ip_format(&addr.ip, peer, sizeof peer);
        size_t len = strlen(peer);
        while (won > row->tried && *won != '@') won--;
        CHECK(won >= row->tried + len && memcmp(won - len, peer, len) == 0);
    }
}

static void run_blocking(const race_row *row, int64_t start_ms) {
    nkt_connect_opts opts = begin(row, start_ms);
    nkt_connect_report report;
    nkt_conn *conn = NULL;
    opts.report = &report;
    CHECK_INT(nkt_connect("example.org:80", &opts, &conn), row->err);
    check_report(&report, row);
    check_end(row, conn);
    nkt_conn_close(conn);
    fakenet_close();
    CHECK_INT(fakenet.answers[0].calls, row->family != NKT_IPV4);
    CHECK_INT(fakenet.answers[1].calls, row->family != NKT_IPV6);
}

static void run_nonblocking(const race_row *row, int64_t start_ms) {
    nkt_connect_opts opts = begin(row, start_ms);
    nkt_connect_report report;
    nkt_conn *conn = NULL;
    opts.nonblocking = true;
    if (!CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_OK)) return;
    CHECK_INT(fakenet.p.now, fakenet.start);
    CHECK_INT(fakenet_drive(conn), row->err);
    CHECK_INT(nkt_conn_report(conn, &report), NKT_OK);
    check_report(&report, row);
    check_end(row, row->err == NKT_OK ? conn : NULL);
    nkt_conn_close(conn);
    fakenet_close();
}

// Without threads the resolver answers on the spot, in whatever order.
static bool row_applies(const race_row *row) {
#ifdef NETKIT_NO_THREADS
    return row->ipv6.at_ms == 0 && row->ipv4.at_ms == 0 && row->err != NKT_ENOTFOUND;
#else
    return row != NULL;
#endif
}

static void races(void) {
    static const int64_t starts[] = { 0, 1, 2147483648LL - 100, 4294967296LL - 100 };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!row_applies(&rows[i])) continue;
        TEST(rows[i].name) {
            for (size_t k = 0; k < sizeof starts / sizeof starts[0]; k++) {
                run_blocking(&rows[i], starts[k]);
                run_nonblocking(&rows[i], starts[k]);
            }
        }
    }
}

#ifndef NETKIT_NO_THREADS
//------------------------------------------------------------------------------
// Given up at each step
//------------------------------------------------------------------------------

static nkt_conn *victim;

static void interrupt_victim(void) {
    nkt_conn_interrupt(victim);
}

// Closed after so many steps. True if it was over before.
static bool close_after(const race_row *row, int steps, bool abort) {
    nkt_connect_opts opts = begin(row, 0);
    nkt_conn *conn = NULL;
    int err = NKT_EAGAIN;
    opts.nonblocking = true;
    if (!CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_OK)) return true;
    CHECK_INT(nkt_conn_write_str(conn, "never sent"), NKT_OK);
    for (int i = 0; i < steps && err == NKT_EAGAIN; i++) err = fakenet_step(conn);
    if (err == NKT_EAGAIN) CHECK_INT(abort ? nkt_conn_abort(conn) : nkt_conn_close(conn), 10);
    else nkt_conn_close(conn);
    CHECK_INT(fakenet.tcp_open, 0);
    fakenet_close();
    return err != NKT_EAGAIN;
}

static bool interrupt_after(const race_row *row, int waits) {
    nkt_connect_opts opts = begin(row, 0);
    nkt_conn *conn = NULL;
    if (!CHECK_INT(nkt_connect_start("example.org:80", &opts, &conn), NKT_OK)) return true;
    victim = conn;
    fakenet.stop_after = waits;
    fakenet.at_stop = interrupt_victim;
    int err = nkt_connect_finish(conn);
    bool over = fakenet.waits < waits;
    CHECK_INT(err, over ? row->err : NKT_ECANCELED);
    nkt_conn_close(conn);
    CHECK_INT(fakenet.tcp_open, 0);
    fakenet_close();
    return over;
}

static void given_up(void) {
    char name[150];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(name, sizeof name, "bug 35: given up at each step: %s", rows[i].name);
        TEST(name) {
            int steps = 0;
            while (steps < 200 && !close_after(&rows[i], steps, steps % 2 == 1)) steps++;
            CHECK_RANGE(steps, 1, 199);
            for (steps = 1; steps < 200 && !interrupt_after(&rows[i], steps); steps++) continue;
            CHECK_RANGE(steps, 2, 199);
        }
    }
}
#endif

//------------------------------------------------------------------------------
// Many addresses
//------------------------------------------------------------------------------

// So many addresses in 192.0.2.0/24, of which only the last answers.
static void many_hosts(int count, int result, int after_ms) {
    char text[NKT_IP_TEXT_MAX];
    fakenet_answer_row *answer = &fakenet.answers[1];
    fakenet_failure(NKT_IPV6, 0, NKT_ENOTFOUND);
    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof text, "192.0.2.%d", i + 1);
        bool last = i == count - 1;
        answer->ips[i] = fakenet_host(text, last ? NKT_OK : result, last ? 0 : after_ms)->ip;
    }
    answer->at_ms = 0;
    answer->result = count;
}

static nkt_connect_opts many_opts(nkt_connect_report *report) {
    nkt_connect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &fakenet.p.env;
    opts.report = report;
    opts.timeout_ms = -1;
    return opts;
}

static void many(void) {
    TEST("six dead addresses, then a good one") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        fakenet_open(0);
        many_hosts(7, FAKENET_SILENT, 0);
        nkt_connect_opts opts = many_opts(&report);
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_OK);
        CHECK_INT(report.elapsed_ms, 1500);
        CHECK_STR(fakenet.starts, "192.0.2.1@0 192.0.2.2@250 192.0.2.3@500 192.0.2.4@750 "
                                  "192.0.2.5@1000 192.0.2.6@1250 192.0.2.7@1500");
        nkt_conn_close(conn);
        fakenet_close();
    }
    TEST("sixteen attempts at most are under way") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        fakenet_open(0);
        // Each ends after ten seconds; the 17th has to wait for the first.
        many_hosts(20, NKT_ETIMEDOUT, 10000);
        nkt_connect_opts opts = many_opts(&report);
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_OK);
        CHECK_INT(fakenet.tcp_peak, 16);
        CHECK_INT(report.attempt_count, 20);
        CHECK(strstr(fakenet.starts, "192.0.2.16@3750 192.0.2.17@10000 192.0.2.18@10250 "
                                     "192.0.2.19@10500 192.0.2.20@10750") != NULL);
        CHECK_INT(report.elapsed_ms, 10750);
        nkt_conn_close(conn);
        fakenet_close();
    }
    TEST("sixty-four addresses that all fail, and the report says how many") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        fakenet_open(0);
        many_hosts(64, NKT_EREFUSED, 1);
        fakenet.hosts[63].result = NKT_EHOSTUNREACH;
        nkt_connect_opts opts = many_opts(&report);
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_EREFUSED);
        CHECK(conn == NULL);
        CHECK_INT(report.attempt_count, 64);
        CHECK_INT(report.elapsed_ms, 63);
        fakenet_close();
    }
}

//------------------------------------------------------------------------------
// Options and odd answers
//------------------------------------------------------------------------------

static void local_address(void) {
    TEST("from a local address: bound to it, and its family alone is asked for") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        fakenet_open(0);
        fakenet_answer(NKT_IPV4, 0, FOUR);
        fakenet_answer(NKT_IPV6, 0, SIX);
        fakenet_host(FOUR, NKT_OK, 5);
        fakenet.family = NKT_IPV4;
        nkt_connect_opts opts = many_opts(&report);
        nkt_ip local = fakenet_ip("192.0.2.77");
        opts.local = nkt_addr_make(&local, 0);
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_OK);
        CHECK_INT(report.lookup_err[0], NKT_EOF);
        CHECK_INT(fakenet.answers[0].calls, 0);
        CHECK(nkt_ip_equal(&fakenet.sockets[0].bound.ip, &local));
        CHECK_INT(fakenet.sockets[0].bound.port, 0);
        nkt_conn_close(conn);
        fakenet_close();
    }
    TEST("a family and a local address of the other: refused") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        fakenet_open(0);
        nkt_connect_opts opts = many_opts(&report);
        nkt_ip local = fakenet_ip("192.0.2.77");
        opts.local = nkt_addr_make(&local, 0);
        opts.family = NKT_IPV6;
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_EINVAL);
        CHECK_STR(report.problem.field, "family");
        opts.family = 3;
        memset(&opts.local, 0, sizeof opts.local);
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_EINVAL);
        CHECK_INT(fakenet.answers[0].calls + fakenet.answers[1].calls, 0);
        fakenet_close();
    }
    TEST("a family and a local address of it") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        fakenet_open(0);
        fakenet_host(FOUR, NKT_OK, 5);
        nkt_connect_opts opts = many_opts(&report);
        nkt_ip local = fakenet_ip("192.0.2.77");
        opts.local = nkt_addr_make(&local, 4711);
        opts.family = NKT_IPV4;
        CHECK_INT(nkt_connect(FOUR ":80", &opts, &conn), NKT_OK);
        CHECK(nkt_addr_equal(&fakenet.sockets[0].bound, &opts.local));
        nkt_conn_close(conn);
        fakenet_close();
    }
}

// "localhost" and addresses are nobody's business but ours.
static void not_asked(void) {
    static const char *const targets[] = { "localhost:80", "www.localhost:80", "localhost.:80",
                                           "127.0.0.1:80", "[::1]:80" };
    TEST("numbers and localhost are never asked for") {
        for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
            nkt_connect_report report;
            nkt_conn *conn = NULL;
            fakenet_open(0);
            fakenet_host("127.0.0.1", NKT_OK, 1);
            fakenet_host("::1", NKT_OK, 1);
            nkt_connect_opts opts = many_opts(&report);
            CHECK_INT(nkt_connect(targets[i], &opts, &conn), NKT_OK);
            CHECK_INT(report.lookup_err[0], NKT_EOF);
            CHECK_INT(report.lookup_err[1], NKT_EOF);
            CHECK_INT(fakenet.answers[0].calls + fakenet.answers[1].calls, 0);
            nkt_conn_close(conn);
            fakenet_close();
        }
    }
}

// What a resolver may say that is no answer. A deadline is not reached.
static void nonsense(void) {
    static const int results[] = { 0, NKT_LOOKUP_MAX + 1, 1000000, NKT_EAGAIN, NKT_EOF, -11,
                                   -1000, INT_MIN };
    TEST("a resolver that talks nonsense") {
        for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
            nkt_connect_report report;
            nkt_conn *conn = NULL;
            fakenet_open(0);
            fakenet_failure(NKT_IPV6, 0, results[i]);
            fakenet_failure(NKT_IPV4, 0, results[i]);
            nkt_connect_opts opts = many_opts(&report);
            opts.timeout_ms = 30000;
            int err = nkt_connect("example.org:80", &opts, &conn);
            CHECK(err < 0 && err >= NKT_ERROR_LAST && err != NKT_ETIMEDOUT && err != NKT_EAGAIN);
            CHECK(report.lookup_err[0] < 0 && report.lookup_err[0] >= NKT_ERROR_LAST);
            CHECK(report.lookup_err[0] != NKT_EAGAIN && report.lookup_err[0] != NKT_EOF);
            CHECK_INT(report.elapsed_ms, 0);
            CHECK_INT(report.attempt_count, 0);
            fakenet_close();
        }
    }
    TEST("bug 39: what was answered is what is connected, and nothing else") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        fakenet_open(0);
        fakenet_answer(NKT_IPV6, 0, SIX);
        fakenet_answer(NKT_IPV4, 0, FOUR);
        fakenet_host(SIX, NKT_EREFUSED, 1);
        fakenet_host(FOUR, NKT_EREFUSED, 1);
        fakenet_host("127.0.0.1", NKT_OK, 1);
        nkt_connect_opts opts = many_opts(&report);
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_EREFUSED);
        // Asked once; a second answer, that of a rebinding name, has no chance.
        CHECK_INT(fakenet.answers[0].calls, 1);
        CHECK_INT(fakenet.answers[1].calls, 1);
        CHECK_STR(fakenet.starts, SIX "@0 " FOUR "@1");
        fakenet_close();
    }
}

static void too_little(void) {
    TEST("bug 35: each allocation fails, once and for good") {
        for (int n = 0; n < 40; n++) {
            for (int times = 1; times < 1000; times += 998) {
                nkt_connect_opts opts = begin(&rows[0], 0);
                nkt_conn *conn = NULL;
                nkt_connect_report report;
                opts.report = &report;
                opts.nonblocking = true;
                // The n-th call and those after it.
                if (n == 0) probe_fail(&fakenet.p, PROBE_ALLOCATE, NKT_ENOMEM, times);
                int err = nkt_connect("example.org:80", &opts, &conn);
                CHECK(err == NKT_OK || err == NKT_ENOMEM);
                for (int i = 1; err == NKT_OK && i < 40; i++) {
                    if (i == n) probe_fail(&fakenet.p, PROBE_ALLOCATE, NKT_ENOMEM, times);
                    int step = fakenet_step(conn);
                    if (step != NKT_EAGAIN) break;
                }
                nkt_conn_close(conn);
                CHECK_INT(fakenet.tcp_open, 0);
                fakenet_close();
            }
        }
    }
    TEST("no descriptor for an attempt: the next one") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        fakenet_open(0);
        fakenet_failure(NKT_IPV6, 0, NKT_ENOTFOUND);
        fakenet_answer(NKT_IPV4, 0, FOUR);
        fakenet_host(FOUR, NKT_OK, 1);
        nkt_connect_opts opts = many_opts(&report);
        // The first is for choosing the source address.
        probe_fail(&fakenet.p, PROBE_OPEN, NKT_EMFILE, 1000);
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_EMFILE);
        CHECK_INT(report.attempts[0].err, NKT_EMFILE);
        fakenet_close();
    }
}

static void no_more_memory(void) {
    probe_fail(&fakenet.p, PROBE_ALLOCATE, NKT_ENOMEM, 1000);
}

// The caller's report is filled however it ends; programs print its text.
static void report_filled(void) {
    TEST("the report of a connect that a signal ended says that") {
        nkt_connect_opts opts = begin(&rows[0], 0);
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        memset(&report, 0xaa, sizeof report);
        opts.report = &report;
        probe_fail(&fakenet.p, PROBE_WAIT, NKT_EINTR, 1);
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_EINTR);
        CHECK_INT(report.err, NKT_EINTR);
        CHECK(strstr(report.text, nkt_strerror(NKT_EINTR)) != NULL);
        fakenet_close();
    }
    TEST("no memory to keep what was tried: the report is filled all the same") {
        nkt_connect_opts opts = begin(&rows[0], 0);
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        memset(&report, 0xaa, sizeof report);
        opts.report = &report;
        fakenet.stop_after = 1;
        fakenet.at_stop = no_more_memory;
        CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_OK);
        CHECK_INT(report.err, NKT_OK);
        CHECK_STR(report.text, "connected");
        CHECK_INT(nkt_conn_report(conn, &report), NKT_ENOTFOUND);
        nkt_conn_close(conn);
        fakenet_close();
    }
    TEST("no memory to keep what was tried, and it fails: the report says why") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        fakenet_open(0);
        fakenet_host(FOUR, NKT_EREFUSED, 5);
        nkt_connect_opts opts = many_opts(&report);
        memset(&report, 0xaa, sizeof report);
        fakenet.stop_after = 1;
        fakenet.at_stop = no_more_memory;
        CHECK_INT(nkt_connect(FOUR ":80", &opts, &conn), NKT_EREFUSED);
        CHECK(conn == NULL);
        CHECK_INT(report.err, NKT_EREFUSED);
        CHECK_INT(report.attempt_count, 0);
        CHECK(strstr(report.text, nkt_strerror(NKT_EREFUSED)) != NULL);
        fakenet_close();
    }
}

//------------------------------------------------------------------------------
// A layer on a race
//------------------------------------------------------------------------------

// A listener: it tells the peer that nothing will be sent, then only reads. It
// keeps what became of that.
static ptrdiff_t mute_recv(nkt_link *link, void *buf, size_t cap) {
    int *told = (int *)link->self;
    if (*told != NKT_OK) *told = nkt_link_shutdown_write(link->below);
    return *told < 0 ? *told : nkt_link_recv(link->below, buf, cap);
}

static ptrdiff_t mute_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    (void)link;
    (void)pieces;
    (void)count;
    return NKT_EPIPE;
}

static void mute_close(nkt_link *link, bool abort) {
    (void)link;
    (void)abort;
}

static const nkt_transport mute = {
    sizeof(nkt_transport), "mute", mute_recv, mute_send, NULL, NULL, mute_close, NULL, NULL,
    NULL, NULL,
};

static void shut_down_early(int result) {
    nkt_conn *conn = NULL;
    nkt_connect_report report;
    char byte;
    int told = NKT_EAGAIN;
    fakenet_open(0);
    fakenet_host(FOUR, result, 5);
    nkt_connect_opts opts = many_opts(&report);
    opts.nonblocking = true;
    if (!CHECK_INT(nkt_connect(FOUR ":80", &opts, &conn), NKT_OK)) return;
    CHECK_INT(nkt_conn_push(conn, &mute, &told), NKT_OK);
    CHECK_INT(nkt_conn_read(conn, &byte, 1), NKT_EAGAIN);
    CHECK_INT(told, NKT_EAGAIN);
    CHECK_INT(fakenet.shut, 0);
    fakenet_wait_for(conn);
    CHECK_INT(fakenet.p.now, fakenet.start + 5 * PROBE_MS);
    CHECK_INT(nkt_conn_read(conn, &byte, 1), result == NKT_OK ? (int)NKT_EAGAIN : result);
    CHECK_INT(told, result);
    CHECK_INT(fakenet.shut, result == NKT_OK ? (int)NKT_WRITE : 0);
    CHECK_INT(nkt_connect_finish(conn), result);
    nkt_conn_close(conn);
    fakenet_close();
}

static void layers(void) {
    TEST("a layer shuts down while it connects: done once it has connected") {
        shut_down_early(NKT_OK);
    }
    TEST("a layer shuts down while it connects: told why it has not") {
        shut_down_early(NKT_EREFUSED);
    }
}

//------------------------------------------------------------------------------
// Asked too early, and of the other family
//------------------------------------------------------------------------------

static void early(void) {
    TEST("what a connection cannot say while it connects, and after it has failed") {
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        nkt_addr addr;
        nkt_fd fd = NKT_NO_FD;
        char name[NKT_ADDR_TEXT_MAX];
        int64_t value = 7;
        fakenet_open(0);
        fakenet_host(FOUR, NKT_EREFUSED, 5);
        nkt_connect_opts opts = many_opts(&report);
        opts.nonblocking = true;
        if (!CHECK_INT(nkt_connect_start(FOUR ":80", &opts, &conn), NKT_OK)) return;
        CHECK_INT(report.err, NKT_EAGAIN);
        CHECK_STR(report.text, "connecting to " FOUR ":80 for 0 ms; tried " FOUR
                               ":80 (under way, since 0 ms)");
        CHECK_INT(nkt_conn_local(conn, &addr), NKT_ENOTCONN);
        CHECK_INT(nkt_conn_peer(conn, &addr), NKT_ENOTCONN);
        CHECK_INT(nkt_conn_peer_name(conn, name, sizeof name), 13);
        CHECK_STR(name, "not connected");
        CHECK_INT(nkt_conn_set_option(conn, NKT_OPT_KEEPALIVE_S, 60), NKT_EAGAIN);
        CHECK_INT(nkt_conn_get_option(conn, NKT_OPT_KEEPALIVE_S, &value), NKT_EAGAIN);
        CHECK_INT(value, 7);
        CHECK_INT(nkt_conn_detach(conn, &fd), NKT_EBUSY);
        CHECK_INT(fakenet_drive(conn), NKT_EREFUSED);
        CHECK_INT(nkt_conn_detach(conn, &fd), NKT_ENOTCONN);
        CHECK_INT(fd, NKT_NO_FD);
        nkt_conn_close(conn);
        fakenet_close();
    }
}

static void one_family(void) {
    static const struct { const char *target; int family, err; const char *starts; } wishes[] = {
        { "localhost:80", NKT_IPV4, NKT_OK, "127.0.0.1@0" },
        { "localhost:80", NKT_IPV6, NKT_OK, "::1@0" },
        { "127.0.0.1:80", NKT_IPV4, NKT_OK, "127.0.0.1@0" },
        { "127.0.0.1:80", NKT_IPV6, NKT_EADDRNOTAVAIL, "" },
        { "[::1]:80", NKT_IPV4, NKT_EADDRNOTAVAIL, "" },
    };
    TEST("one family is wished: of localhost its address, of a number that or none") {
        for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
            nkt_connect_report report;
            nkt_conn *conn = NULL;
            fakenet_open(0);
            fakenet_host("127.0.0.1", NKT_OK, 1);
            fakenet_host("::1", NKT_OK, 1);
            nkt_connect_opts opts = many_opts(&report);
            opts.family = wishes[i].family;
            CHECK_INT(nkt_connect(wishes[i].target, &opts, &conn), wishes[i].err);
            CHECK_STR(fakenet.starts, wishes[i].starts);
            nkt_conn_close(conn);
            fakenet_close();
        }
    }
}

int main(void) {
    races();
#ifndef NETKIT_NO_THREADS
    given_up();
#endif
    many();
    local_address();
    not_asked();
    nonsense();
    too_little();
    report_filled();
    layers();
    early();
    one_family();
    return test_finish();
}
