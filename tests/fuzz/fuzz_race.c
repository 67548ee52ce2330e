// fuzz_race.c - the race for a connection, on a network made of the input
//
// An input is options, two answers of the resolver and what becomes of a
// connect to each of sixteen hosts; see tests/unit/fakenet.h. Whatever they
// are, there is one winner or none, everything else is closed, the deadline is
// kept to the millisecond, nothing that works is left untried, and the report
// is what the script says.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "fuzz.h"
#include "../unit/fakenet.h"

enum { HOSTS = 8,               // of each family
       ADDRESSES = 10,          // in an answer, some of them twice
       FLAG_NONBLOCKING = 1, FLAG_IPV6_ALONE = 2, FLAG_IPV4_ALONE = 4, FLAG_NO_IPV6 = 8,
       FLAG_NO_IPV4 = 16, FLAG_NO_DESCRIPTORS = 32, FLAG_GIVE_UP = 64 };

typedef struct race_input {
    unsigned flags, give_up;
    nkt_connect_opts opts;
    int32_t attempt_delay_ms;
} race_input;

static const int results[] = {
    NKT_OK, FAKENET_SILENT, NKT_EREFUSED, NKT_EHOSTUNREACH, NKT_ENETUNREACH, NKT_EACCES, NKT_OK,
    FAKENET_SILENT,
};

static void make_answer(fuzz_bytes *in, int family) {
    char texts[ADDRESSES * 16] = "";
    unsigned how = fuzz_byte(in);
    int at_ms = (int)fuzz_byte(in) * 4;
    size_t used = 0;
    for (unsigned i = 0; i < how % (ADDRESSES + 1); i++) {
        used += (size_t)snprintf(texts + used, sizeof texts - used, "%s%s%u", used > 0 ? " " : "",
                                 family == NKT_IPV4 ? "192.0.2." : "2001:db8::",
                                 1 + fuzz_byte(in) % HOSTS);
    }
    fakenet_answer(family, how >= 240 ? FAKENET_NEVER : at_ms, texts);
    if (how >= 220 && how < 240) fakenet_failure(family, at_ms, NKT_ELOOKUP);
}

static void make_hosts(fuzz_bytes *in, const char *prefix) {
    char text[NKT_IP_TEXT_MAX];
    for (int i = 0; i < HOSTS; i++) {
        unsigned how = fuzz_byte(in), when = fuzz_byte(in);
        snprintf(text, sizeof text, "%s%d", prefix, i + 1);
        fakenet_host(text, results[how % 8], when == 255 ? FAKENET_AT_ONCE : (int)when * 3);
    }
}

static void make_input(fuzz_bytes *in, race_input *out) {
    memset(out, 0, sizeof *out);
    out->flags = fuzz_byte(in);
    out->give_up = fuzz_byte(in) % 32;
    fakenet_open((int64_t)fuzz_byte(in) * 16843009);
    out->opts.env = &fakenet.p.env;
    out->opts.timeout_ms = 1 + (int32_t)fuzz_byte(in) * 8;
    out->opts.attempt_delay_ms = (int32_t)fuzz_byte(in) * 2;
    out->opts.resolution_delay_ms = (int32_t)fuzz_byte(in);
    out->opts.nonblocking = (out->flags & FLAG_NONBLOCKING) != 0;
    if (out->flags & FLAG_IPV6_ALONE) out->opts.family = NKT_IPV6;
    else if (out->flags & FLAG_IPV4_ALONE) out->opts.family = NKT_IPV4;
    out->attempt_delay_ms = out->opts.attempt_delay_ms > 0 ? out->opts.attempt_delay_ms : 250;
    fakenet.family = out->opts.family;
    fakenet.no_route[0] = (out->flags & FLAG_NO_IPV6) != 0;
    fakenet.no_route[1] = (out->flags & FLAG_NO_IPV4) != 0;
    make_answer(in, NKT_IPV6);
    make_answer(in, NKT_IPV4);
    make_hosts(in, "2001:db8::");
    make_hosts(in, "192.0.2.");
    if (out->flags & FLAG_NO_DESCRIPTORS) {
        probe_fail(&fakenet.p, PROBE_OPEN, NKT_EMFILE, (long)(1 + fuzz_byte(in) % 8));
    }
}

//------------------------------------------------------------------------------
// What must hold
//------------------------------------------------------------------------------

static bool was_asked(const race_input *input, int index) {
    return input->opts.family != (index == 0 ? (int)NKT_IPV4 : (int)NKT_IPV6);
}

static bool was_answered(const race_input *input, const nkt_ip *ip, int64_t by_ms) {
    const fakenet_answer_row *answer = &fakenet.answers[ip->family == NKT_IPV4];
    if (!was_asked(input, ip->family == NKT_IPV4)) return false;
    if (answer->at_ms < 0 || answer->at_ms > by_ms) return false;
    for (int i = 0; i < answer->result; i++) {
        if (nkt_ip_equal(&answer->ips[i], ip)) return true;
    }
    return false;
}

static void check_lookups(const race_input *input, const nkt_connect_report *report) {
    for (int i = 0; i < 2; i++) {
        const fakenet_answer_row *answer = &fakenet.answers[i];
        if (!was_asked(input, i)) {
            FUZZ(report->lookup_err[i] == NKT_EOF && report->lookup_ms[i] == -1);
        } else if (report->lookup_ms[i] >= 0) {
            FUZZ(report->lookup_ms[i] == answer->at_ms);
            FUZZ(report->lookup_err[i] == (answer->result > 0 ? NKT_OK : answer->result));
        } else {
            FUZZ(report->lookup_err[i] == NKT_EAGAIN);
            FUZZ(answer->at_ms < 0 || answer->at_ms >= report->elapsed_ms);
        }
    }
}

// An attempt before its time needs one that has failed since the last began.
static void check_pace(const race_input *input, const nkt_connect_report *report, int index) {
    const nkt_attempt *list = report->attempts;
    FUZZ(list[index].start_ms >= list[index - 1].start_ms);
    if (list[index].start_ms >= list[index - 1].start_ms + input->attempt_delay_ms) return;
    bool failed = false;
    for (int i = 0; i < index; i++) {
        bool is_failure = list[i].err != NKT_OK && list[i].err != NKT_ECANCELED;
        if (is_failure && list[i].end_ms >= list[index - 1].start_ms &&
            list[i].end_ms <= list[index].start_ms) failed = true;
    }
    FUZZ(failed);
}

static void check_attempt(const race_input *input, const nkt_connect_report *report, int index) {
    const nkt_attempt *one = &report->attempts[index];
    int found = fakenet_find(&one->addr.ip);
    if (!FUZZ(found >= 0)) return;
    const fakenet_host_row *host = &fakenet.hosts[found];
    int after_ms = host->after_ms == FAKENET_AT_ONCE ? 0 : host->after_ms;
    FUZZ(one->addr.port == 80 && was_answered(input, &one->addr.ip, one->start_ms));
    FUZZ(one->start_ms >= 0 && one->start_ms <= one->end_ms &&
         one->end_ms <= report->elapsed_ms);
    for (int i = 0; i < index; i++) {
        FUZZ(!nkt_ip_equal(&report->attempts[i].addr.ip, &one->addr.ip));
    }
    if (index > 0) check_pace(input, report, index);
    if (one->err == NKT_ECANCELED || one->err == NKT_ETIMEDOUT) {
        FUZZ(one->end_ms == report->elapsed_ms);
        FUZZ((one->err == NKT_ECANCELED) == (report->err == NKT_OK));
        FUZZ(host->result == FAKENET_SILENT || one->start_ms + after_ms >= one->end_ms);
    } else if (one->err == NKT_EMFILE) {
        FUZZ((input->flags & FLAG_NO_DESCRIPTORS) != 0 && one->start_ms == one->end_ms);
    } else {
        FUZZ(one->err == host->result && one->end_ms == one->start_ms + after_ms);
        if (one->err == NKT_OK) FUZZ(one->end_ms == report->elapsed_ms);
    }
}

// How many addresses there are to try, each once.
static int count_addresses(const race_input *input) {
    int count = 0;
    for (int i = 0; i < fakenet.host_count; i++) {
        count += was_answered(input, &fakenet.hosts[i].ip, INT32_MAX);
    }
    return count;
}

static void check_end(const race_input *input, const nkt_connect_report *report, nkt_conn *conn,
                      int err) {
    int won = 0;
    nkt_addr peer;
    int64_t elapsed_ms = (fakenet.p.now - fakenet.start) / PROBE_MS;
    FUZZ(report->err == err && report->elapsed_ms == elapsed_ms);
    FUZZ(elapsed_ms <= input->opts.timeout_ms);
    if (err == NKT_ETIMEDOUT) FUZZ(elapsed_ms == input->opts.timeout_ms);
    FUZZ(fakenet.tcp_open == (err == NKT_OK) && fakenet.udp_open == 0);
    FUZZ(fakenet.tcp_peak <= NKT_ATTEMPTS_MAX);
    check_lookups(input, report);
    FUZZ(report->attempt_count >= 0 && report->attempt_count <= count_addresses(input));
    for (int i = 0; i < report->attempt_count && i < NKT_ATTEMPTS_MAX; i++) {
        check_attempt(input, report, i);
        if (report->attempts[i].err != NKT_OK) continue;
        won++;
        FUZZ(err == NKT_OK && nkt_conn_peer(conn, &peer) == NKT_OK);
        FUZZ(nkt_addr_equal(&peer, &report->attempts[i].addr));
    }
    FUZZ(won == (err == NKT_OK));
    if (err != NKT_OK && err != NKT_ETIMEDOUT) {
        FUZZ(report->attempt_count == count_addresses(input));
    }
}

static void run_blocking(race_input *input) {
    nkt_connect_report report;
    nkt_conn *conn = NULL;
    input->opts.report = &report;
    int err = nkt_connect("example.org:80", &input->opts, &conn);
    FUZZ((conn != NULL) == (err == NKT_OK));
    check_end(input, &report, conn, err);
    nkt_conn_close(conn);
}

static void run_nonblocking(race_input *input) {
    nkt_connect_report report;
    nkt_conn *conn = NULL;
    if (!FUZZ(nkt_connect("example.org:80", &input->opts, &conn) == NKT_OK)) return;
    FUZZ(fakenet.p.now == fakenet.start);
    int err = NKT_EAGAIN;
    unsigned steps = input->flags & FLAG_GIVE_UP ? input->give_up : 5000;
    for (unsigned i = 0; i < steps && err == NKT_EAGAIN; i++) err = fakenet_step(conn);
    FUZZ(err != NKT_EAGAIN || (input->flags & FLAG_GIVE_UP) != 0);
    FUZZ(nkt_conn_report(conn, &report) == NKT_OK);
    if (err != NKT_EAGAIN) check_end(input, &report, conn, err);
    nkt_conn_close(conn);
    FUZZ(fakenet.tcp_open == 0 && fakenet.udp_open == 0);
}

static void fuzz_one(const uint8_t *data, size_t size) {
    fuzz_bytes in = { data, data + size };
    race_input input;
    int failures = (int)nkt_test.failures;
    make_input(&in, &input);
    if (input.opts.nonblocking) run_nonblocking(&input);
    else run_blocking(&input);
    fakenet_close();
    FUZZ((int)nkt_test.failures == failures);       // what fakenet.h checks itself
}

static const char *const words[] = { "\x01\x01\x10\x80", "\xff", "\x02\x08", "\x06\xff", NULL };
FUZZ_TARGET("race", words, 400)
