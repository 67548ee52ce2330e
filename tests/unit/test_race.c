// test_race.c - the race for a connection, by name (RFC 8305)
//
// Look-ups and attempts follow a script on a false clock, so that every instant
// is checked exactly. Each row is run in both faces.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "fakenet.h"

//------------------------------------------------------------------------------
// Rows
//------------------------------------------------------------------------------

typedef struct answer_row {
    int at_ms;
    const char *ips;            // "" for none
    int err;                    // 0 = NKT_ENOTFOUND where there is none
} answer_row;

typedef struct host_row {
    const char *ip;
    int result, after_ms;
} host_row;

typedef struct race_row {
    const char *name;
    answer_row ipv6, ipv4;
    host_row hosts[8];
    int32_t timeout_ms, attempt_delay_ms, resolution_delay_ms, family;
    int err;
    int32_t elapsed_ms;
    const char *tried;          // "address@start-end result, ..."
    const char *lookups;        // "AAAA result@ms, A result@ms"; - = not answered
    bool no_ipv6;               // there is no route
} race_row;

#define SIX "2001:db8::1"
#define FOUR "192.0.2.1"
#define NO_LIMITS 0, 0, 0, 0

static const race_row rows[] = {
    { "both answer at once, IPv6 is tried alone", { 0, SIX, 0 }, { 0, FOUR, 0 },
      { { SIX, NKT_OK, 100 }, { FOUR, NKT_OK, 1 } }, NO_LIMITS,
      NKT_OK, 100, SIX "@0-100 OK", "AAAA OK@0, A OK@0", false },
    { "AAAA first: it is tried at once", { 20, SIX, 0 }, { 500, FOUR, 0 },
      { { SIX, NKT_OK, 100 }, { FOUR, NKT_OK, 1 } }, NO_LIMITS,
      NKT_OK, 120, SIX "@20-120 OK", "AAAA OK@20, A EAGAIN@-", false },
    { "A first: it waits 50 ms for AAAA and no longer", { 2000, SIX, 0 }, { 10, FOUR, 0 },
      { { SIX, NKT_OK, 1 }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 65, FOUR "@60-65 OK", "AAAA EAGAIN@-, A OK@10", false },
    { "AAAA 40 ms after A: IPv6 wins", { 50, SIX, 0 }, { 10, FOUR, 0 },
      { { SIX, NKT_OK, 5 }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 55, SIX "@50-55 OK", "AAAA OK@50, A OK@10", false },
    { "AAAA 50 ms after A is in time", { 60, SIX, 0 }, { 10, FOUR, 0 },
      { { SIX, NKT_OK, 5 }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 65, SIX "@60-65 OK", "AAAA OK@60, A OK@10", false },
    { "no AAAA ends the wait at once", { 30, "", 0 }, { 10, FOUR, 0 },
      { { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 35, FOUR "@30-35 OK", "AAAA ENOTFOUND@30, A OK@10", false },
    { "a failing AAAA ends the wait at once", { 30, "", NKT_ELOOKUP }, { 10, FOUR, 0 },
      { { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 35, FOUR "@30-35 OK", "AAAA ELOOKUP@30, A OK@10", false },
    { "no A: AAAA is waited for as long as it takes", { 9000, SIX, 0 }, { 10, "", 0 },
      { { SIX, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 9005, SIX "@9000-9005 OK", "AAAA OK@9000, A ENOTFOUND@10", false },
    { "A never comes and IPv6 works", { 10, SIX, 0 }, { FAKENET_NEVER, "", 0 },
      { { SIX, NKT_OK, 300 } }, NO_LIMITS,
      NKT_OK, 310, SIX "@10-310 OK", "AAAA OK@10, A EAGAIN@-", false },
    { "A comes while IPv6 hangs: 250 ms after its start", { 0, SIX, 0 }, { 100, FOUR, 0 },
      { { SIX, FAKENET_SILENT, 0 }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 255, SIX "@0-255 ECANCELED, " FOUR "@250-255 OK", "AAAA OK@0, A OK@100", false },
    { "A comes after the 250 ms: at once", { 0, SIX, 0 }, { 400, FOUR, 0 },
      { { SIX, FAKENET_SILENT, 0 }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 405, SIX "@0-405 ECANCELED, " FOUR "@400-405 OK", "AAAA OK@0, A OK@400", false },
    { "A comes after IPv6 was refused: at once", { 0, SIX, 0 }, { 400, FOUR, 0 },
      { { SIX, NKT_EREFUSED, 7 }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 405, SIX "@0-7 EREFUSED, " FOUR "@400-405 OK", "AAAA OK@0, A OK@400", false },
    { "refused: the other family goes on at once", { 0, SIX, 0 }, { 0, FOUR, 0 },
      { { SIX, NKT_EREFUSED, 7 }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 12, SIX "@0-7 EREFUSED, " FOUR "@7-12 OK", "AAAA OK@0, A OK@0", false },
    { "late AAAA goes among the untried, families in turn", { 400, SIX " 2001:db8::2", 0 },
      { 0, "192.0.2.1 192.0.2.2 192.0.2.3", 0 },
      { { FOUR, FAKENET_SILENT, 0 }, { "192.0.2.2", FAKENET_SILENT, 0 },
        { SIX, FAKENET_SILENT, 0 }, { "192.0.2.3", FAKENET_SILENT, 0 },
        { "2001:db8::2", NKT_OK, 9 } }, NO_LIMITS,
      NKT_OK, 1059, FOUR "@50-1059 ECANCELED, 192.0.2.2@300-1059 ECANCELED, "
      SIX "@550-1059 ECANCELED, 192.0.2.3@800-1059 ECANCELED, 2001:db8::2@1050-1059 OK",
      "AAAA OK@400, A OK@0", false },
    { "families in turn, 250 ms apart or at once after a failure",
      { 0, SIX " 2001:db8::2 2001:db8::3", 0 }, { 0, FOUR, 0 },
      { { SIX, FAKENET_SILENT, 0 }, { FOUR, NKT_EREFUSED, 30 },
        { "2001:db8::2", NKT_ENETUNREACH, FAKENET_AT_ONCE }, { "2001:db8::3", NKT_OK, 1 } },
      NO_LIMITS, NKT_OK, 281, SIX "@0-281 ECANCELED, " FOUR "@250-280 EREFUSED, "
      "2001:db8::2@280-280 ENETUNREACH, 2001:db8::3@280-281 OK", "AAAA OK@0, A OK@0", false },
    { "what is twice in an answer is tried once", { 0, SIX " " SIX " " SIX, 0 },
      { 0, FOUR " " FOUR, 0 },
      { { SIX, NKT_EREFUSED, 10 }, { FOUR, NKT_EREFUSED, 10 } }, NO_LIMITS,
      NKT_EREFUSED, 20, SIX "@0-10 EREFUSED, " FOUR "@10-20 EREFUSED", "AAAA OK@0, A OK@0",
      false },
    { "bug 35: two winners at the same tick", { 0, SIX, 0 }, { 0, FOUR, 0 },
      { { SIX, NKT_OK, 300 }, { FOUR, NKT_OK, 50 } }, NO_LIMITS,
      NKT_OK, 300, SIX "@0-300 OK, " FOUR "@250-300 ECANCELED", "AAAA OK@0, A OK@0", false },
    { "bug 35: all fail in different ways", { 0, SIX " 2001:db8::2", 0 }, { 0, FOUR, 0 },
      { { SIX, NKT_ETIMEDOUT, 100 }, { FOUR, NKT_EREFUSED, 20 },
        { "2001:db8::2", NKT_ENETUNREACH, FAKENET_AT_ONCE } }, NO_LIMITS,
      NKT_EREFUSED, 120, SIX "@0-100 ETIMEDOUT, " FOUR "@100-120 EREFUSED, "
      "2001:db8::2@120-120 ENETUNREACH", "AAAA OK@0, A OK@0", false },
    { "all fail before the last answer: it is waited for", { 0, SIX, 0 }, { 3000, "", 0 },
      { { SIX, NKT_EHOSTUNREACH, 5 } }, NO_LIMITS,
      NKT_EHOSTUNREACH, 3000, SIX "@0-5 EHOSTUNREACH", "AAAA OK@0, A ENOTFOUND@3000", false },
    { "no such name", { 30, "", 0 }, { 20, "", 0 }, { { SIX, 0, 0 } }, NO_LIMITS,
      NKT_ENOTFOUND, 30, "", "AAAA ENOTFOUND@30, A ENOTFOUND@20", false },
    { "one family has none, the other cannot be asked", { 30, "", NKT_ELOOKUP }, { 20, "", 0 },
      { { SIX, 0, 0 } }, NO_LIMITS,
      NKT_ELOOKUP, 30, "", "AAAA ELOOKUP@30, A ENOTFOUND@20", false },
    { "the deadline, and the resolver has not answered", { FAKENET_NEVER, "", 0 },
      { FAKENET_NEVER, "", 0 }, { { SIX, 0, 0 } }, 700, 0, 0, 0,
      NKT_ETIMEDOUT, 700, "", "AAAA EAGAIN@-, A EAGAIN@-", false },
    { "thirty seconds for all of it", { FAKENET_NEVER, "", 0 }, { 29000, FOUR, 0 },
      { { FOUR, FAKENET_SILENT, 0 } }, NO_LIMITS,
      NKT_ETIMEDOUT, 30000, FOUR "@29050-30000 ETIMEDOUT", "AAAA EAGAIN@-, A OK@29000", false },
    { "the deadline within the 50 ms", { FAKENET_NEVER, "", 0 }, { 60, FOUR, 0 },
      { { FOUR, NKT_OK, 0 } }, 100, 0, 0, 0,
      NKT_ETIMEDOUT, 100, "", "AAAA EAGAIN@-, A OK@60", false },
    { "the delays are options", { FAKENET_NEVER, "", 0 }, { 10, FOUR " 192.0.2.2", 0 },
      { { FOUR, FAKENET_SILENT, 0 }, { "192.0.2.2", NKT_OK, 3 } }, 0, 100, 7, 0,
      NKT_OK, 120, FOUR "@17-120 ECANCELED, 192.0.2.2@117-120 OK", "AAAA EAGAIN@-, A OK@10",
      false },
    { "IPv4 alone: no AAAA is asked for or waited for", { 0, SIX, 0 }, { 10, FOUR, 0 },
      { { FOUR, NKT_OK, 3 } }, 0, 0, 0, NKT_IPV4,
      NKT_OK, 13, FOUR "@10-13 OK", "AAAA EOF@-, A OK@10", false },
    { "IPv6 alone", { 10, SIX, 0 }, { 0, FOUR, 0 }, { { SIX, NKT_EREFUSED, 3 } },
      0, 0, 0, NKT_IPV6,
      NKT_EREFUSED, 13, SIX "@10-13 EREFUSED", "AAAA OK@10, A EOF@-", false },
    { "no route for IPv6: no wait for AAAA", { 2000, SIX, 0 }, { 10, FOUR, 0 },
      { { SIX, NKT_ENETUNREACH, FAKENET_AT_ONCE }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 15, FOUR "@10-15 OK", "AAAA EAGAIN@-, A OK@10", true },
    { "no route for IPv6, A at once: no wait", { 2000, SIX, 0 }, { 0, FOUR, 0 },
      { { SIX, NKT_ENETUNREACH, FAKENET_AT_ONCE }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 5, FOUR "@0-5 OK", "AAAA EAGAIN@-, A OK@0", true },
    { "no route for IPv6: IPv4 goes first", { 0, SIX, 0 }, { 0, FOUR, 0 },
      { { SIX, NKT_ENETUNREACH, FAKENET_AT_ONCE }, { FOUR, NKT_OK, 5 } }, NO_LIMITS,
      NKT_OK, 5, FOUR "@0-5 OK", "AAAA OK@0, A OK@0", true },
};

//------------------------------------------------------------------------------
// Running them
//------------------------------------------------------------------------------

static void tell_answer(int family, const answer_row *what) {
    fakenet_answer(family, what->at_ms, what->ips);
    if (what->err != 0) fakenet_failure(family, what->at_ms, what->err);
}

static nkt_connect_opts begin(const race_row *row, int64_t start_ms) {
    nkt_connect_opts opts;
    fakenet_open(start_ms);
    tell_answer(NKT_IPV6, &row->ipv6);
    tell_answer(NKT_IPV4, &row->ipv4);
    for (int i = 0; i < 8 && row->hosts[i].ip != NULL; i++) {
        const host_row *one = &row->hosts[i];
        fakenet_host(one->ip, one->result, one->after_ms);
    }
    fakenet.no_route[0] = row->no_ipv6;
    fakenet.family = row->family;
    memset(&opts, 0, sizeof opts);
    opts.env = &fakenet.p.env;
    opts.timeout_ms = row->timeout_ms;
    opts.attempt_delay_ms = row->attempt_delay_ms;
    opts.resolution_delay_ms = row->resolution_delay_ms;
    opts.family = row->family;
    return opts;
}

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
    return test_finish();
}
