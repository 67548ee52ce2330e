// test_virtual.c - hours of traffic in milliseconds
//
// Every instant here is exact: the clock moves only when everybody waits, and
// then to the first deadline.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#define MS INT64_C(1000000)
#define HOUR_MS 3600000

static nkt_env env;

static int64_t now_ms(void) {
    return nkt_now_ns(&env) / MS;
}

static void begin(void) {
    CHECK_INT(nkt_env_init_virtual(&env, 11), NKT_OK);
}

static nkt_udp_opts udp_opts(bool nonblocking) {
    nkt_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    opts.nonblocking = nonblocking;
    return opts;
}

static nkt_conn_opts conn_opts(bool nonblocking) {
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    opts.nonblocking = nonblocking;
    return opts;
}

//------------------------------------------------------------------------------
// The clock
//------------------------------------------------------------------------------

static void clocks(void) {
    TEST("it begins at 0 and moves with waits alone") {
        begin();
        CHECK_INT(nkt_now_ns(&env), 0);
        CHECK_INT(nkt_sleep(&env, 24 * HOUR_MS), NKT_OK);
        CHECK_INT(now_ms(), 24 * HOUR_MS);
        for (int i = 0; i < 1000; i++) CHECK_INT(now_ms(), 24 * HOUR_MS);
        CHECK_INT(nkt_sleep(&env, 0), NKT_OK);
        CHECK_INT(now_ms(), 24 * HOUR_MS);
        CHECK_INT(nkt_sleep(&env, -1), NKT_EINVAL);
        nkt_env_free(&env);
    }
    TEST("chance is that of the seed") {
        uint8_t first[37], second[37], other[37];
        for (int i = 0; i < 3; i++) {
            CHECK_INT(nkt_env_init_virtual(&env, i == 2 ? 12 : 11), NKT_OK);
            uint8_t *to = i == 0 ? first : i == 1 ? second : other;
            CHECK_INT(nkt_random(&env, to, sizeof first), NKT_OK);
            nkt_env_free(&env);
        }
        CHECK_MEM(first, sizeof first, second, sizeof second);
        CHECK(memcmp(first, other, sizeof first) != 0);
        CHECK_INT(first[0], 0x9d);      // the same in every byte order
    }
    TEST("timers keep to their grid for days") {
        nkt_timer_opts opts;
        nkt_task *timer;
        memset(&opts, 0, sizeof opts);
        begin();
        opts.env = &env;
        opts.delay_ms = opts.repeat_ms = HOUR_MS;
        CHECK_INT(nkt_timer_start(&opts, &timer), NKT_OK);
        for (int i = 1; i <= 72; i++) {
            CHECK_INT(nkt_task_wait(timer, -1), NKT_OK);
            CHECK_INT(now_ms(), (int64_t)i * HOUR_MS);
            CHECK_INT(nkt_timer_finish(timer), 1);
        }
        CHECK_INT(nkt_task_wait(timer, 1000), NKT_ETIMEDOUT);
        nkt_task_close(timer);
        nkt_env_free(&env);
    }
}

static void pollers(void) {
    TEST("a poller's wait, bare and with something to come") {
        nkt_poller_opts opts;
        nkt_poller *poller;
        nkt_udp_opts own;
        nkt_udp *a, *b;
        nkt_event event;
        memset(&opts, 0, sizeof opts);
        begin();
        opts.env = &env;
        own = udp_opts(true);
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, 12345), 0);
        CHECK_INT(now_ms(), 12345);
        own.recv_timeout_ms = 7;
        CHECK_INT(nkt_udp_pair(&own, &own, 0, &a, &b), NKT_OK);
        CHECK_INT(nkt_poller_add_udp(poller, b, NULL), NKT_OK);
        char in[4];
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), NKT_EAGAIN);
        CHECK_INT(nkt_poller_wait(poller, -1), 1);
        CHECK_INT(now_ms(), 12352);
        CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), NKT_ETIMEDOUT);
        CHECK_INT(nkt_udp_send(a, "x", 1, NULL), 1);
        CHECK_INT(nkt_poller_wait(poller, -1), 1);
        CHECK_INT(now_ms(), 12352);
        nkt_udp_close(a);
        nkt_udp_close(b);
        nkt_poller_close(poller);
        nkt_env_free(&env);
    }
    TEST("who waits for what cannot come is told") {
        nkt_udp_opts opts;
        nkt_poller_opts poller_opts;
        nkt_udp *a, *b;
        nkt_poller *poller;
        char in[4];
        memset(&poller_opts, 0, sizeof poller_opts);
        begin();
        opts = udp_opts(false);
        poller_opts.env = &env;
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &a, &b), NKT_OK);
        CHECK_INT(nkt_udp_recv(a, in, sizeof in, NULL), NKT_EDEADLK);
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_wait(poller, -1), NKT_EDEADLK);
        nkt_poller_wake(poller);
        CHECK_INT(nkt_poller_wait(poller, -1), 0);
        nkt_poller_close(poller);
        nkt_udp_close(a);
        nkt_udp_close(b);
        nkt_env_free(&env);
    }
}

static void refusals(void) {
    TEST("the system's sockets are refused") {
        nkt_udp_opts opts;
        nkt_listen_opts listen_opts;
        nkt_connect_opts connect_opts;
        nkt_connect_report report;
        nkt_conn_opts own;
        nkt_poller_opts poller_opts;
        nkt_problem problem;
        nkt_udp *udp = NULL, *real;
        nkt_listener *listener = NULL;
        nkt_conn *conn = NULL;
        nkt_poller *poller;
        memset(&listen_opts, 0, sizeof listen_opts);
        memset(&connect_opts, 0, sizeof connect_opts);
        memset(&poller_opts, 0, sizeof poller_opts);
        begin();
        opts = udp_opts(false);
        own = conn_opts(false);
        listen_opts.env = connect_opts.env = poller_opts.env = &env;
        opts.problem = &problem;
        connect_opts.report = &report;
        CHECK_INT(nkt_udp_open(":0", &opts, &udp), NKT_EVIRTUAL);
        CHECK_INT(problem.err, NKT_EVIRTUAL);
        CHECK_INT(nkt_listen("127.0.0.1:0", &listen_opts, &listener), NKT_EVIRTUAL);
        CHECK_INT(nkt_connect("127.0.0.1:9", &connect_opts, &conn), NKT_EVIRTUAL);
        CHECK_INT(nkt_connect("nobody.example:9", &connect_opts, &conn), NKT_ENOTFOUND);
        CHECK_INT(nkt_udp_open(":0", NULL, &real), NKT_OK);
        CHECK_INT(nkt_conn_adopt(nkt_udp_descriptor(real), &own, &conn), NKT_ENOTSOCK);
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_add_fd(poller, nkt_udp_descriptor(real), NKT_READ, NULL),
                  NKT_EVIRTUAL);
        CHECK_INT(nkt_poller_fd(poller), NKT_NO_FD);
        nkt_poller_close(poller);
        nkt_udp_close(real);
        nkt_env_free(&env);
    }
    TEST("joining a clock that is none") {
        CHECK_INT(nkt_env_init(&env), NKT_OK);
        CHECK_INT(nkt_virtual_join(&env), NKT_EINVAL);
        CHECK_INT(nkt_virtual_leave(&env), NKT_EINVAL);
        nkt_env_free(&env);
    }
}

//------------------------------------------------------------------------------
// The library's own time-outs
//------------------------------------------------------------------------------

static void schedules(void) {
    // RFC 8489, section 6.2.1: with an RTO of 500 ms requests are sent at 0,
    // 500, 1500, 3500, 7500, 15500 and 31500 ms, and it fails at 39500.
    TEST("a retransmission schedule, as STUN's") {
        nkt_udp_opts opts;
        nkt_udp *client, *server;
        nkt_impairment bad;
        int64_t times[8];
        int sent = 0, heard = 0;
        char in[8];
        memset(&bad, 0, sizeof bad);
        begin();
        opts = udp_opts(false);
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &client, &server), NKT_OK);
        bad.latency_ms = 40;
        bad.seed = 1;
        CHECK_INT(nkt_udp_impair_ways(server, NULL, &bad), NKT_OK);
        ptrdiff_t got = NKT_ETIMEDOUT;
        for (int wait = 500; sent < 7 && got == NKT_ETIMEDOUT; wait *= 2) {
            times[sent++] = now_ms();
            CHECK_INT(nkt_udp_send(client, "ask", 3, NULL), 3);
            CHECK_INT(nkt_udp_set_option(client, NKT_UDP_RECV_TIMEOUT_MS, sent < 7 ? wait : 8000),
                      NKT_OK);
            got = nkt_udp_recv(client, in, sizeof in, NULL);
        }
        CHECK_INT(got, NKT_ETIMEDOUT);
        static const int want[] = { 0, 500, 1500, 3500, 7500, 15500, 31500 };
        for (int i = 0; i < 7; i++) CHECK_INT(times[i], want[i]);
        CHECK_INT(now_ms(), 39500);
        CHECK_INT(nkt_udp_set_option(server, NKT_UDP_RECV_TIMEOUT_MS, 50), NKT_OK);
        while (nkt_udp_recv(server, in, sizeof in, NULL) == 3) heard++;
        CHECK_INT(heard, 7);
        nkt_udp_close(client);
        nkt_udp_close(server);
        nkt_env_free(&env);
    }
}

static void long_calls(void) {
    TEST("keep-alives through two days of a train's network") {
        nkt_udp_opts opts;
        nkt_udp *a, *b;
        nkt_impairment up, down;
        nkt_impair_stats stats;
        char in[8];
        int heard = 0, missed = 0;
        begin();
        opts = udp_opts(false);
        opts.recv_timeout_ms = 25000;
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &a, &b), NKT_OK);
        CHECK_INT(nkt_impair_profile("train", &up, &down, NULL), NKT_OK);
        up.seed = 4;
        CHECK_INT(nkt_udp_impair_ways(b, &down, &up), NKT_OK);
        for (int i = 0; i < 2 * 24 * 3600 / 20; i++) {
            CHECK_INT(nkt_udp_send(a, "alive", 5, NULL), 5);
            if (nkt_udp_recv(b, in, sizeof in, NULL) == 5) heard++;
            else missed++;
            int64_t next = (int64_t)(i + 1) * 20000;
            if (now_ms() < next) nkt_sleep(&env, (int32_t)(next - now_ms()));
        }
        CHECK_INT(nkt_udp_impair_stats(b, NKT_READ, &stats), NKT_OK);
        CHECK_INT(stats.sent, 8640);
        CHECK_INT(stats.delivered + stats.lost, 8640);
        CHECK_INT(heard, stats.delivered);
        // A third of them fall into an outage of 3 s every minute.
        CHECK_RANGE(stats.lost, 2700, 3200);
        CHECK_INT(missed, 8640 - heard);
        nkt_udp_close(a);
        nkt_udp_close(b);
        nkt_env_free(&env);
    }
    TEST("time-outs of a stream cover the whole call") {
        nkt_conn_opts opts;
        nkt_conn *a, *b;
        nkt_impairment bad;
        nkt_str line;
        memset(&bad, 0, sizeof bad);
        begin();
        opts = conn_opts(false);
        opts.stream.read_timeout_ms = 10000;
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        // A byte every second is progress, and does not put the time-out off.
        bad.seed = 2;
        bad.rate = 1;
        bad.queue_bytes = 1000;
        bad.mtu = 68;
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        for (int i = 0; i < 30; i++) CHECK_INT(nkt_conn_write(a, "x", 1), NKT_OK);
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_ETIMEDOUT);
        CHECK_INT(now_ms(), 10000);
        nkt_conn_abort(a);
        nkt_conn_abort(b);
        nkt_env_free(&env);
    }
}

//------------------------------------------------------------------------------
// A connection race: sockets that are numbers, on the virtual clock
//------------------------------------------------------------------------------

enum { RACE_FD = 1000, RACE_MAX = 32 };

static struct {
    const nkt_sys_core *base;
    nkt_sys_core core;
    int opened, closed;
    nkt_addr to[RACE_MAX];
    int64_t started[RACE_MAX];
} race;

static int race_open(nkt_env *e, int family, int type, nkt_fd *fd) {
    (void)e, (void)family, (void)type;
    *fd = RACE_FD + race.opened++;
    return NKT_OK;
}

static int race_close(nkt_env *e, nkt_fd fd) {
    (void)e, (void)fd;
    race.closed++;
    return NKT_OK;
}

static int race_fine(nkt_env *e, nkt_fd fd, int option, int64_t value) {
    (void)e, (void)fd, (void)option, (void)value;
    return NKT_OK;
}

static int race_connect(nkt_env *e, nkt_fd fd, const void *addr, size_t len) {
    nkt_addr_from_sockaddr(addr, len, &race.to[fd - RACE_FD]);
    race.started[fd - RACE_FD] = nkt_now_ns(e);
    return NKT_EAGAIN;
}

// 192.0.2.N answers after N * 100 ms; IPv6 never does.
static int64_t race_due(nkt_fd fd) {
    const nkt_addr *to = &race.to[fd - RACE_FD];
    return to->ip.family == NKT_IPV4 ? race.started[fd - RACE_FD] + to->ip.bytes[3] * 100 * MS
                                     : NKT_NEVER;
}

static int race_result(nkt_env *e, nkt_fd fd) {
    return nkt_now_ns(e) >= race_due(fd) ? NKT_OK : NKT_EAGAIN;
}

static int race_name(nkt_env *e, nkt_fd fd, void *addr, size_t *len) {
    (void)e, (void)fd, (void)addr, (void)len;
    return NKT_EOS;
}

static int race_wait(nkt_env *e, nkt_watch *watches, size_t count, int64_t timeout_ns) {
    int64_t now = nkt_now_ns(e), until = timeout_ns < 0 ? NKT_NEVER : now + timeout_ns;
    for (size_t i = 0; i < count; i++) {
        bool own = watches[i].fd >= RACE_FD && watches[i].fd < RACE_FD + RACE_MAX;
        if (own && race_due(watches[i].fd) < until) until = race_due(watches[i].fd);
    }
    int ready = race.base->wait(e, watches, count, until == NKT_NEVER ? -1 : until - now);
    for (size_t i = 0; i < count && ready >= 0; i++) {
        bool own = watches[i].fd >= RACE_FD && watches[i].fd < RACE_FD + RACE_MAX;
        if (!own || nkt_now_ns(e) < race_due(watches[i].fd)) continue;
        watches[i].ready = watches[i].events;
        ready++;
    }
    return ready;
}

static int race_resolve(nkt_env *e, const char *host, int family, nkt_ip *ips, int cap) {
    (void)e, (void)host, (void)cap;
    static const char *const ipv6[] = { "2001:db8::1", "2001:db8::2" };
    static const char *const ipv4[] = { "192.0.2.9", "192.0.2.200" };
    for (int i = 0; i < 2; i++) nkt_ip_parse(family == NKT_IPV6 ? ipv6[i] : ipv4[i], &ips[i]);
    return 2;
}

static void race_begin(void) {
    begin();
    memset(&race, 0, sizeof race);
    race.base = env.core;
    race.core = *env.core;
    race.core.open = race_open;
    race.core.close = race_close;
    race.core.set_option = race_fine;
    race.core.connect = race_connect;
    race.core.connect_result = race_result;
    race.core.local_name = race.core.peer_name = race_name;
    race.core.wait = race_wait;
    env.core = &race.core;
}

static void races(void) {
    TEST("a connection race") {
        nkt_connect_opts opts;
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        memset(&opts, 0, sizeof opts);
        race_begin();
        env.resolve = race_resolve;
        opts.env = &env;
        opts.report = &report;
        opts.timeout_ms = HOUR_MS;
        CHECK_INT(nkt_connect("example.net:80", &opts, &conn), NKT_OK);
        // RFC 8305: one family after the other, 250 ms apart.
        CHECK_INT(report.attempt_count, 4);
        for (int i = 0; i < 4; i++) CHECK_INT(report.attempts[i].start_ms, i * 250);
        int64_t answered = 0;
        for (int i = 0; i < 4; i++) {
            char text[NKT_ADDR_TEXT_MAX];
            nkt_addr_format(&report.attempts[i].addr, text, sizeof text);
            if (strcmp(text, "192.0.2.9:80") == 0) answered = report.attempts[i].start_ms + 900;
        }
        CHECK(answered > 0);
        CHECK_INT(report.elapsed_ms, answered);
        CHECK_INT(now_ms(), answered);
        nkt_conn_close(conn);
        CHECK_INT(race.opened, race.closed);
        nkt_env_free(&env);
    }
    TEST("a race that nobody wins ends at its time-out, an hour later") {
        nkt_connect_opts opts;
        nkt_conn *conn = NULL;
        memset(&opts, 0, sizeof opts);
        opts.env = &env;
        race_begin();
        opts.timeout_ms = HOUR_MS;
        CHECK_INT(nkt_connect("[2001:db8::7]:80", &opts, &conn), NKT_ETIMEDOUT);
        CHECK_INT(now_ms(), HOUR_MS);
        CHECK_INT(race.opened, race.closed);
        nkt_env_free(&env);
    }
}

int main(void) {
    clocks();
    pollers();
    refusals();
    schedules();
    long_calls();
    races();
    return test_finish();
}
