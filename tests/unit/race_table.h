// race_table.h - races for a connection by name, as a table
//
// What the resolver and the hosts of each row do, and what must come of it; see
// fakenet.h. Include after netkit.h with NETKIT_IMPLEMENTATION.

#ifndef NKT_TEST_RACE_TABLE_H
#define NKT_TEST_RACE_TABLE_H

#include "fakenet.h"

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

static inline void tell_answer(int family, const answer_row *what) {
    fakenet_answer(family, what->at_ms, what->ips);
    if (what->err != 0) fakenet_failure(family, what->at_ms, what->err);
}

static inline nkt_connect_opts begin(const race_row *row, int64_t start_ms) {
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

#endif
