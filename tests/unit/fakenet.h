// fakenet.h - a network and a resolver that are a script, on a false clock
//
// Hosts are a table: what becomes of a connect to each, and when. The resolver
// is two answers, one a family, each given at an instant of the false clock.
// Descriptors are numbers of our own, so that no socket of the system's is
// opened and IPv6 need not be there. Time moves only when somebody waits, and
// then to the next thing that happens, so all instants are exact.
//
//     fakenet_open(start_ms);
//     fakenet_host("2001:db8::1", NKT_EREFUSED, 10);
//     fakenet_answer(NKT_IPV6, 40, "2001:db8::1");
//     ... opts.env = &fakenet.p.env ...
//     fakenet_close();            // checks that nothing is left behind
//
// A resolver's call stays in its worker thread until its instant. Include after
// netkit.h with NETKIT_IMPLEMENTATION.

#ifndef NKT_TEST_FAKENET_H
#define NKT_TEST_FAKENET_H

#include "inside.h"
#include "probe.h"

enum {
    FAKENET_AT_ONCE = -1,       // connect itself says so
    FAKENET_SILENT = NKT_EAGAIN,
    FAKENET_NEVER = -1,         // an answer that does not come
    FAKENET_HOSTS = 80, FAKENET_SOCKETS = 128, FAKENET_FIRST_FD = 100000
};

typedef struct fakenet_host_row {
    nkt_ip ip;
    nkt_ip source;              // no address: there is no route
    int result, after_ms;
} fakenet_host_row;

typedef struct fakenet_socket_row {
    bool open, connecting;
    int type, host;
    int64_t started;
    nkt_ip source;
    nkt_addr bound, peer;
} fakenet_socket_row;

typedef struct fakenet_answer_row {
    int at_ms, result;          // result: how many, or why none
    nkt_ip ips[NKT_LOOKUP_MAX];
    int open, calls;            // atomic
} fakenet_answer_row;

static struct fakenet {
    probe p;
    int64_t start;
    fakenet_host_row hosts[FAKENET_HOSTS];
    int host_count;
    bool no_route[2];           // IPv6, IPv4
    fakenet_socket_row sockets[FAKENET_SOCKETS];
    int tcp_open, tcp_peak, udp_open, bad, waits;
    uint32_t shut;              // directions that were shut down
    bool starved;               // a look-up may have to stand behind the other
    char starts[2048];          // "2001:db8::1@0 192.0.2.1@250"
    const char *name;           // what the resolver is to be asked for
    int family;                 // ... and for which; 0 = both
    fakenet_answer_row answers[2];
    int stop_after;             // waits; 0 = go on
    void (*at_stop)(void);
} fakenet;

static inline nkt_ip fakenet_ip(const char *text) {
    nkt_ip ip;
    memset(&ip, 0, sizeof ip);
    CHECK_INT(nkt_ip_parse(text, &ip), NKT_OK);
    return ip;
}

static inline int64_t fakenet_now(void) {
    return fakenet.p.now;
}

// The source address for one where the table does not say.
static inline nkt_ip fakenet_source(const nkt_ip *ip) {
    nkt_ip loopback = nkt_ip_loopback(ip->family);
    if (nkt_ip_equal(ip, &loopback)) return loopback;
    return fakenet_ip(ip->family == NKT_IPV4 ? "192.0.2.200" : "2001:db8::200");
}

static inline fakenet_host_row *fakenet_host(const char *text, int result, int after_ms) {
    fakenet_host_row *host = &fakenet.hosts[fakenet.host_count++];
    host->ip = fakenet_ip(text);
    host->source = fakenet_source(&host->ip);
    host->result = result;
    host->after_ms = after_ms;
    return host;
}

static inline int fakenet_find(const nkt_ip *ip) {
    for (int i = 0; i < fakenet.host_count; i++) {
        if (nkt_ip_equal(&fakenet.hosts[i].ip, ip)) return i;
    }
    return -1;
}

static inline fakenet_socket_row *fakenet_socket(nkt_fd fd) {
    fakenet_socket_row *row = NULL;
    if (fd >= FAKENET_FIRST_FD && fd < FAKENET_FIRST_FD + FAKENET_SOCKETS) {
        row = &fakenet.sockets[fd - FAKENET_FIRST_FD];
        if (!row->open) fakenet.bad++;
    }
    return row;
}

//------------------------------------------------------------------------------
// The resolver
//------------------------------------------------------------------------------

// An answer of one family: addresses with blanks between them, "" for none.
static inline void fakenet_answer(int family, int at_ms, const char *texts) {
    fakenet_answer_row *answer = &fakenet.answers[family == NKT_IPV4];
    char text[NKT_IP_TEXT_MAX];
    answer->at_ms = at_ms;
    answer->result = 0;
    while (*texts != '\0') {
        size_t len = strcspn(texts, " ");
        snprintf(text, sizeof text, "%.*s", (int)len, texts);
        answer->ips[answer->result++] = fakenet_ip(text);
        texts += len + strspn(texts + len, " ");
    }
    if (answer->result == 0) answer->result = NKT_ENOTFOUND;
}

static inline void fakenet_failure(int family, int at_ms, int err) {
    fakenet.answers[family == NKT_IPV4].at_ms = at_ms;
    fakenet.answers[family == NKT_IPV4].result = err;
}

static inline void fakenet_nap(void) {
    probe_system()->wait(NULL, NULL, 0, PROBE_MS / 5);
}

static inline int fakenet_resolve(nkt_env *env, const char *host, int family, nkt_ip *ips,
                                  int cap) {
    fakenet_answer_row *answer = &fakenet.answers[family == NKT_IPV4];
    (void)env;
    CHECK_STR(host, fakenet.name);
    CHECK_INT(cap, NKT_LOOKUP_MAX);
    __atomic_fetch_add(&answer->calls, 1, __ATOMIC_SEQ_CST);
#ifndef NETKIT_NO_THREADS
    while (__atomic_load_n(&answer->open, __ATOMIC_SEQ_CST) == 0) fakenet_nap();
#endif
    for (int i = 0; i < answer->result && i < cap; i++) ips[i] = answer->ips[i];
    return answer->result;
}

// How many worker threads there are.
static inline int fakenet_workers(void) {
    return inside_lookup_workers();
}

static inline int fakenet_patience(void) {
    return fakenet.starved ? 100 : 50000;
}

// Waits until a worker has taken each call: they take no time of this clock.
static inline void fakenet_settle(void) {
    bool queued = true;
    for (int i = 0; i < fakenet_patience() && queued; i++) {
        queued = inside_lookup_queued();
        if (queued) fakenet_nap();
    }
}

// Lets one answer go, and waits until its look-up has it.
static inline void fakenet_release(int index) {
    fakenet_answer_row *answer = &fakenet.answers[index];
    int before = fakenet_workers();
    if (__atomic_exchange_n(&answer->open, 1, __ATOMIC_SEQ_CST) != 0) return;
    for (int i = 0; i < fakenet_patience() && before > 0; i++) {
        if (fakenet_workers() < before) break;
        fakenet_nap();
    }
}

static inline int64_t fakenet_answer_due(int index) {
    const fakenet_answer_row *answer = &fakenet.answers[index];
    bool asked = fakenet.family != (index == 0 ? (int)NKT_IPV4 : (int)NKT_IPV6);
    if (answer->open != 0 || answer->at_ms < 0 || !asked) return NKT_NEVER;
    return fakenet.start + answer->at_ms * PROBE_MS;
}

//------------------------------------------------------------------------------
// The system
//------------------------------------------------------------------------------

static inline int fakenet_core_open(nkt_env *env, int family, int type, nkt_fd *fd) {
    int err = NKT_OK;
    (void)family;
    if (probe_enter(env, PROBE_OPEN, &err)) return err;
    for (int i = 0; i < FAKENET_SOCKETS; i++) {
        fakenet_socket_row *row = &fakenet.sockets[i];
        if (row->open) continue;
        memset(row, 0, sizeof *row);
        row->open = true;
        row->type = type;
        row->host = -1;
        if (type == 1) fakenet.tcp_open++;
        else fakenet.udp_open++;
        if (fakenet.tcp_open > fakenet.tcp_peak) fakenet.tcp_peak = fakenet.tcp_open;
        *fd = FAKENET_FIRST_FD + i;
        return NKT_OK;
    }
    return NKT_EMFILE;
}

static inline int fakenet_core_close(nkt_env *env, nkt_fd fd) {
    fakenet_socket_row *row = fakenet_socket(fd);
    if (row == NULL) return probe_core_close(env, fd);
    row->open = false;
    if (row->type == 1) fakenet.tcp_open--;
    else fakenet.udp_open--;
    return NKT_OK;
}

static inline int fakenet_core_bind(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    int err = NKT_OK;
    fakenet_socket_row *row = fakenet_socket(fd);
    if (probe_enter(env, PROBE_BIND, &err)) return err;
    return nkt_addr_from_sockaddr(addr, len, &row->bound);
}

static inline void fakenet_note_start(const nkt_addr *to) {
    char text[NKT_IP_TEXT_MAX];
    size_t used = strlen(fakenet.starts);
    nkt_ip_format(&to->ip, text, sizeof text);
    snprintf(fakenet.starts + used, sizeof fakenet.starts - used, "%s%s@%g",
             used > 0 ? " " : "", text, (double)(fakenet.p.now - fakenet.start) / 1e6);
}

static inline int fakenet_core_connect(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    int err = NKT_OK;
    fakenet_socket_row *row = fakenet_socket(fd);
    CHECK(nkt_addr_from_sockaddr(addr, len, &row->peer) >= 0);
    int index = row->peer.ip.family == NKT_IPV4;
    row->host = fakenet_find(&row->peer.ip);
    if (row->type == 2) {
        // Nobody lives there, but there may be a way.
        row->source = row->host >= 0 ? fakenet.hosts[row->host].source
                                     : fakenet_source(&row->peer.ip);
        return fakenet.no_route[index] || row->source.family == 0 ? NKT_ENETUNREACH : NKT_OK;
    }
    fakenet_note_start(&row->peer);
    if (probe_enter(env, PROBE_CONNECT, &err)) return err;
    if (!CHECK(row->host >= 0)) return NKT_EINVAL;
    row->started = fakenet.p.now;
    row->connecting = true;
    const fakenet_host_row *host = &fakenet.hosts[row->host];
    return host->after_ms == FAKENET_AT_ONCE ? host->result : NKT_EAGAIN;
}

static inline int64_t fakenet_due(const fakenet_socket_row *row) {
    const fakenet_host_row *host = &fakenet.hosts[row->host];
    return host->result == FAKENET_SILENT ? NKT_NEVER : row->started + host->after_ms * PROBE_MS;
}

static inline int fakenet_core_connect_result(nkt_env *env, nkt_fd fd) {
    fakenet_socket_row *row = fakenet_socket(fd);
    probe_enter(env, PROBE_CONNECT_RESULT, &(int){ 0 });
    return fakenet.p.now >= fakenet_due(row) ? fakenet.hosts[row->host].result : NKT_EAGAIN;
}

static inline int fakenet_name_of(const nkt_ip *ip, uint16_t port, void *name, size_t *len) {
    nkt_addr addr = nkt_addr_make(ip, port);
    int got = nkt_addr_to_sockaddr(&addr, name, *len);
    if (got < 0) return got;
    *len = (size_t)got;
    return NKT_OK;
}

static inline int fakenet_core_local_name(nkt_env *env, nkt_fd fd, void *name, size_t *len) {
    const fakenet_socket_row *row = fakenet_socket(fd);
    (void)env;
    return fakenet_name_of(&row->source, 4711, name, len);
}

static inline int fakenet_core_peer_name(nkt_env *env, nkt_fd fd, void *name, size_t *len) {
    const fakenet_socket_row *row = fakenet_socket(fd);
    (void)env;
    return fakenet_name_of(&row->peer.ip, row->peer.port, name, len);
}

static inline int fakenet_core_set_option(nkt_env *env, nkt_fd fd, int option, int64_t value) {
    (void)env;
    (void)option;
    (void)value;
    return fakenet_socket(fd) != NULL ? NKT_OK : NKT_ENOTSOCK;
}

static inline int fakenet_core_shutdown(nkt_env *env, nkt_fd fd, uint32_t directions) {
    (void)env;
    fakenet.shut |= directions;
    return fakenet_socket(fd) != NULL ? NKT_OK : NKT_ENOTSOCK;
}

static inline ptrdiff_t fakenet_core_recv(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    (void)env;
    (void)fd;
    (void)buf;
    (void)cap;
    return NKT_EAGAIN;
}

static inline ptrdiff_t fakenet_core_send(nkt_env *env, nkt_fd fd, const nkt_str *pieces,
                                          size_t count) {
    ptrdiff_t sent = 0;
    (void)env;
    (void)fd;
    for (size_t i = 0; i < count; i++) sent += (ptrdiff_t)pieces[i].len;
    return sent;
}

//------------------------------------------------------------------------------
// Time
//------------------------------------------------------------------------------

static inline int64_t fakenet_next(const nkt_watch *watches, size_t count, int64_t until) {
    for (size_t i = 0; i < count; i++) {
        const fakenet_socket_row *row = fakenet_socket(watches[i].fd);
        if (row == NULL) continue;
        CHECK_INT(watches[i].events, NKT_WRITE);
        if (row->connecting && fakenet_due(row) < until) until = fakenet_due(row);
    }
    for (int i = 0; i < 2; i++) {
        if (fakenet_answer_due(i) < until) until = fakenet_answer_due(i);
    }
    return until;
}

// What came by the system's own descriptors: the wake-up.
static inline bool fakenet_woken(nkt_env *env, nkt_watch *watch) {
    return probe_system()->wait(env, watch, 1, 0) > 0;
}

// Time moves to the next thing that happens, or to the end of the wait.
static inline int fakenet_core_wait(nkt_env *env, nkt_watch *watches, size_t count,
                                    int64_t timeout_ns) {
    probe *p = &fakenet.p;
    int err = NKT_OK, ready = 0, woken = 0, wakes = 0;
    bool answered = false;
    if (probe_enter(env, PROBE_WAIT, &err)) return err;
    fakenet_settle();
    fakenet.waits++;
    if (fakenet.stop_after != 0 && fakenet.waits == fakenet.stop_after) fakenet.at_stop();
    int64_t limit = timeout_ns < 0 ? NKT_NEVER : p->now + timeout_ns;
    int64_t until = fakenet_next(watches, count, limit);
    for (size_t i = 0; i < count; i++) {
        bool foreign = fakenet_socket(watches[i].fd) == NULL;
        if (foreign && fakenet_woken(env, &watches[i])) until = p->now;
    }
    if (!CHECK(until != NKT_NEVER)) until = p->now + 3600000 * PROBE_MS;
    // Whoever waits for no time again and again would never end.
    if (!CHECK(fakenet.waits < 1000)) until = p->now + 1000 * PROBE_MS;
    if (until > p->now) p->now = until;
    for (int i = 0; i < 2; i++) {
        if (fakenet_answer_due(i) > p->now) continue;
        fakenet_release(i);
        answered = true;
    }
    for (size_t i = 0; i < count; i++) {
        const fakenet_socket_row *row = fakenet_socket(watches[i].fd);
        bool happened = row != NULL && row->connecting && fakenet_due(row) <= p->now;
        watches[i].ready = happened ? watches[i].events : 0;
        wakes += row == NULL;
        if (row == NULL && fakenet_woken(env, &watches[i])) woken++;
        ready += watches[i].ready != 0;
    }
    // An answer ends a wait, it is not found by chance.
    if (answered && wakes > 0 && !fakenet.starved) CHECK_INT(woken, 1);
    return ready;
}

// Waits for what a nonblocking handle waits for, unless it is ready.
static inline void fakenet_wait_for(nkt_conn *conn) {
    nkt_interest interest;
    CHECK_INT(nkt_conn_watch(conn, NKT_READ, &interest), NKT_OK);
    if (interest.ready) return;
    int64_t now = fakenet_now();
    int64_t timeout = interest.deadline_ns == NKT_NEVER ? -1
                      : interest.deadline_ns > now ? interest.deadline_ns - now : 0;
    fakenet_core_wait(&fakenet.p.env, interest.watches, interest.count, timeout);
}

// Drives a nonblocking connect as somebody's own loop would.
static inline int fakenet_step(nkt_conn *conn) {
    int err = nkt_connect_finish(conn);
    if (err == NKT_EAGAIN) fakenet_wait_for(conn);
    return err;
}

static inline int fakenet_drive(nkt_conn *conn) {
    int err = NKT_EAGAIN;
    for (int i = 0; i < 5000 && err == NKT_EAGAIN; i++) err = fakenet_step(conn);
    return err;
}

//------------------------------------------------------------------------------
// From beginning to end
//------------------------------------------------------------------------------

static inline void fakenet_open(int64_t start_ms) {
    nkt_sys_core *core = &fakenet.p.core;
    memset(&fakenet, 0, sizeof fakenet);
    probe_open(&fakenet.p);
    core->open = fakenet_core_open;
    core->close = fakenet_core_close;
    core->bind = fakenet_core_bind;
    core->connect = fakenet_core_connect;
    core->connect_result = fakenet_core_connect_result;
    core->local_name = fakenet_core_local_name;
    core->peer_name = fakenet_core_peer_name;
    core->set_option = fakenet_core_set_option;
    core->shutdown = fakenet_core_shutdown;
    core->recv = fakenet_core_recv;
    core->recv_wait = NULL;
    core->send = fakenet_core_send;
    core->wait = fakenet_core_wait;
    fakenet.p.fake = true;
    fakenet.p.now = fakenet.start = start_ms * PROBE_MS;
    fakenet.p.env.resolve = fakenet_resolve;
    fakenet.name = "example.org";
    fakenet.answers[0].at_ms = fakenet.answers[1].at_ms = FAKENET_NEVER;
    fakenet.answers[0].result = fakenet.answers[1].result = NKT_ENOTFOUND;
#ifdef NETKIT_NO_THREADS
    // They come with the call, and not at an instant.
    fakenet.answers[0].open = fakenet.answers[1].open = 1;
#endif
}

static inline void fakenet_close(void) {
    for (int i = 0; i < 2; i++) __atomic_store_n(&fakenet.answers[i].open, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 50000 && fakenet_workers() > 0; i++) fakenet_nap();
    CHECK_INT(fakenet_workers(), 0);
    CHECK_INT(fakenet.tcp_open, 0);
    CHECK_INT(fakenet.udp_open, 0);
    CHECK_INT(fakenet.bad, 0);
    probe_close(&fakenet.p);
}

#endif
