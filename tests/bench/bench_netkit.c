// bench_netkit.c - netkit, as a program would use it
//
//     cc -O2 -I. tests/bench/bench_netkit.c -o build/bench_netkit -pthread

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "bench.h"

static void ok(int err, const char *what) {
    if (err >= 0) return;
    printf("%s: %s\n", what, nkt_strerror(err));
    exit(1);
}

static nkt_conn *adopt(int fd, int mode) {
    nkt_conn_opts opts = {0};
    nkt_conn *conn;
    opts.nonblocking = mode == ECHO_POLL;
    if (mode == ECHO_DEADLINE) opts.stream.read_timeout_ms = opts.stream.write_timeout_ms = 10000;
    ok(nkt_conn_adopt(fd, &opts, &conn), "nkt_conn_adopt");
    return conn;
}

// --- Lines -------------------------------------------------------------------

static nkt_conn *lines;

static void lines_open(int fd) {
    lines = adopt(fd, ECHO_BLOCK);
}

static size_t lines_read(long count) {
    size_t sum = 0;
    while (count-- > 0) {
        nkt_str line;
        int err = nkt_conn_read_line(lines, &line);
        if (err < 0) ok(err, "nkt_conn_read_line");
        sum += line.len;
    }
    return sum;
}

// --- Round trips -------------------------------------------------------------

// Waits for one event of the only connection; then reads `size` bytes, all of
// which the peer sends at once. False at the end.
static bool poll_exact(nkt_poller *poller, nkt_conn *conn, char *buf, size_t size) {
    nkt_event event;
    for (;;) {
        int err = nkt_conn_read_exact(conn, buf, size);
        if (err == NKT_OK) return true;
        if (err == NKT_EOF) return false;
        if (err != NKT_EAGAIN) ok(err, "nkt_conn_read_exact");
        ok(nkt_poller_wait(poller, -1), "nkt_poller_wait");
        while (nkt_poller_next(poller, &event) == NKT_OK) continue;
    }
}

static nkt_poller *poller_for(nkt_conn *conn) {
    nkt_poller *poller;
    ok(nkt_poller_open(NULL, &poller), "nkt_poller_open");
    ok(nkt_poller_add_conn(poller, conn, NULL), "nkt_poller_add_conn");
    return poller;
}

static void echo_serve(int fd, size_t size, int mode) {
    static char buf[BLOCK];
    nkt_conn *conn = adopt(fd, mode);
    if (mode == ECHO_POLL) {
        nkt_poller *poller = poller_for(conn);
        while (poll_exact(poller, conn, buf, size)) ok(nkt_conn_write(conn, buf, size), "write");
    } else {
        while (nkt_conn_read_exact(conn, buf, size) == NKT_OK) {
            ok(nkt_conn_write(conn, buf, size), "nkt_conn_write");
        }
    }
}

static void echo_call(int fd, size_t size, int mode, long count) {
    static char buf[BLOCK];
    nkt_conn *conn = adopt(fd, mode);
    nkt_poller *poller = mode == ECHO_POLL ? poller_for(conn) : NULL;
    while (count-- > 0) {
        ok(nkt_conn_write(conn, buf, size), "nkt_conn_write");
        if (mode == ECHO_POLL) bench_check(poll_exact(poller, conn, buf, size), "the echo");
        else ok(nkt_conn_read_exact(conn, buf, size), "nkt_conn_read_exact");
    }
    nkt_conn_shutdown_write(conn);
}

// --- One way -----------------------------------------------------------------

static void oneway_send(int fd, const char *block, long count) {
    nkt_conn *conn = adopt(fd, ECHO_BLOCK);
    while (count-- > 0) ok(nkt_conn_write(conn, block, BLOCK), "nkt_conn_write");
    nkt_conn_close(conn);
}

static uint64_t oneway_recv(int fd) {
    static char buf[BLOCK] __attribute__((aligned(4096)));
    nkt_conn *conn = adopt(fd, ECHO_BLOCK);
    uint64_t sum = 0;
    ptrdiff_t got;
    while ((got = nkt_conn_read(conn, buf, sizeof buf)) > 0) sum += (uint64_t)got;
    return sum;
}

// --- Connecting --------------------------------------------------------------

static void connect_to(const char *where, const char *host, long count) {
    nkt_listener *listener;
    nkt_addr addr;
    char target[64];
    ok(nkt_listen(where, NULL, &listener), "nkt_listen");
    ok(nkt_listener_local(listener, &addr), "nkt_listener_local");
    snprintf(target, sizeof target, "%s:%d", host, addr.port);
    while (count-- > 0) {
        nkt_conn *conn, *accepted;
        ok(nkt_connect(target, NULL, &conn), "nkt_connect");
        ok(nkt_accept(listener, &accepted), "nkt_accept");
        nkt_conn_close(conn);
        nkt_conn_close(accepted);
    }
    nkt_listener_close(listener);
}

static void connect_numbers(long count) {
    connect_to("127.0.0.1:0", "127.0.0.1", count);
}

static void connect_names(long count) {
    connect_to(":0", "localhost", count);
}

// --- Many --------------------------------------------------------------------

static nkt_poller *room;
static int room_lines;

static void room_open(const int *fds, int count, int want_lines) {
    room_lines = want_lines;
    ok(nkt_poller_open(NULL, &room), "nkt_poller_open");
    for (int i = 0; i < count; i++) {
        ok(nkt_poller_add_conn(room, adopt(fds[i], ECHO_POLL), NULL), "nkt_poller_add_conn");
    }
}

static int room_attend(nkt_conn *conn) {
    char buf[64];
    nkt_str line;
    ptrdiff_t got;
    if (room_lines) return nkt_conn_read_line(conn, &line);
    while ((got = nkt_conn_read(conn, buf, sizeof buf)) > 0) {
        ok(nkt_conn_write(conn, buf, (size_t)got), "nkt_conn_write");
    }
    return (int)got;
}

static void room_run(void) {
    bool over = false;
    while (!over) {
        nkt_event event;
        ok(nkt_poller_wait(room, -1), "nkt_poller_wait");
        while (nkt_poller_next(room, &event) == NKT_OK) {
            if (room_attend(event.conn) == NKT_EOF) over = true;
        }
    }
}

// --- Addresses ---------------------------------------------------------------

static uint32_t parse(const bench_addr *addrs, int count) {
    uint32_t sum = 0;
    for (int i = 0; i < count; i++) {
        nkt_ip ip;
        if (nkt_ip_parse(addrs[i].text, &ip) != NKT_OK) abort();
        sum += ip.bytes[3];
    }
    return sum;
}

static uint32_t format(const bench_addr *addrs, int count) {
    static nkt_ip ips[2 * ADDRESSES];
    uint32_t sum = 0;
    for (int i = 0; i < count && ips[i].family == 0; i++) {
        ips[i] = nkt_ip_from_bytes(addrs[i].bytes, addrs[i].family == AF_INET ? 4 : 16);
    }
    for (int i = 0; i < count; i++) {
        char text[NKT_IP_TEXT_MAX];
        if (nkt_ip_format(&ips[i], text, sizeof text) < 0) abort();
        sum += (uint8_t)text[3];
    }
    return sum;
}

// --- Datagrams ---------------------------------------------------------------

static nkt_udp *datagram_ends[2];
static nkt_addr datagram_to;
static bool datagram_connected, datagram_many;

static void datagrams_open(const char *how) {
    nkt_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.nonblocking = true;
    opts.no_offload = strcmp(how, "loop") == 0;
    datagram_connected = strcmp(how, "connected") == 0;
    datagram_many = strcmp(how, "many") == 0 || opts.no_offload;
    for (int i = 0; i < 2; i++) {
        ok(nkt_udp_open("127.0.0.1:0", &opts, &datagram_ends[i]), "nkt_udp_open");
        ok(nkt_udp_local(datagram_ends[i], &datagram_to), "nkt_udp_local");
    }
    if (datagram_connected) ok(nkt_udp_connect_addr(datagram_ends[0], &datagram_to), "connect");
    if (datagram_many) {
        nkt_datagram none;
        nkt_udp_recv_many(datagram_ends[1], &none, 1);
    }
}

static void datagrams_run_many(long rounds) {
    static char bytes[DATAGRAMS * 64];
    static nkt_datagram list[DATAGRAMS], got[DATAGRAMS];
    for (int k = 0; k < DATAGRAMS; k++) {
        list[k].data = bytes + 64 * k;
        list[k].len = 64;
        list[k].addr = datagram_to;
    }
    for (long i = 0; i < rounds; i++) {
        for (int sent = 0; sent < DATAGRAMS;) {
            int step = nkt_udp_send_many(datagram_ends[0], list + sent, DATAGRAMS - sent);
            ok(step, "nkt_udp_send_many");
            sent += step;
        }
        for (int have = 0; have < DATAGRAMS;) {
            int step = nkt_udp_recv_many(datagram_ends[1], got, DATAGRAMS);
            ok(step, "nkt_udp_recv_many");
            have += step;
        }
    }
}

static void datagrams_run(long rounds) {
    static char bytes[64], buf[2048];
    const nkt_addr *to = datagram_connected ? NULL : &datagram_to;
    if (datagram_many) {
        datagrams_run_many(rounds);
        return;
    }
    for (long i = 0; i < rounds; i++) {
        for (int k = 0; k < DATAGRAMS; k++) {
            if (nkt_udp_send(datagram_ends[0], bytes, sizeof bytes, to) != sizeof bytes) abort();
        }
        for (int k = 0; k < DATAGRAMS; k++) {
            nkt_addr from;
            if (nkt_udp_recv(datagram_ends[1], buf, sizeof buf, &from) != sizeof bytes) abort();
        }
    }
}

// --- In memory ---------------------------------------------------------------

static void exchange(long rounds, const char *how) {
    static nkt_udp *a, *b;
    static nkt_conn *c, *d;
    char buf[64] = "";
    if (a == NULL) {
        nkt_udp_opts udp_opts;
        nkt_conn_opts conn_opts;
        nkt_impairment none;
        memset(&udp_opts, 0, sizeof udp_opts);
        memset(&conn_opts, 0, sizeof conn_opts);
        memset(&none, 0, sizeof none);
        udp_opts.nonblocking = conn_opts.nonblocking = true;
        ok(nkt_udp_pair(&udp_opts, &udp_opts, 0, &a, &b), "nkt_udp_pair");
        ok(nkt_conn_pair(&conn_opts, &conn_opts, &c, &d), "nkt_conn_pair");
        if (strcmp(how, "wrapped") == 0) {
            ok(nkt_udp_impair(a, &none), "nkt_udp_impair");
            ok(nkt_conn_impair(c, &none), "nkt_conn_impair");
        }
    }
    for (long i = 0; i < rounds; i++) {
        if (nkt_udp_send(a, buf, sizeof buf, NULL) < 0) abort();
        if (nkt_udp_recv(b, buf, sizeof buf, NULL) < 0) abort();
        if (nkt_udp_send(b, buf, sizeof buf, NULL) < 0) abort();
        if (nkt_udp_recv(a, buf, sizeof buf, NULL) < 0) abort();
        if (nkt_conn_write(c, buf, sizeof buf) < 0) abort();
        if (nkt_conn_read(d, buf, sizeof buf) < 0) abort();
        if (nkt_conn_write(d, buf, sizeof buf) < 0) abort();
        if (nkt_conn_read(c, buf, sizeof buf) < 0) abort();
    }
}

typedef struct simulated {
    nkt_env env;
    nkt_udp *from, *to;
    nkt_poller *poller;
    nkt_task *timer;
} simulated;

static void simulated_open(simulated *world) {
    nkt_udp_opts opts;
    nkt_poller_opts poller_opts;
    nkt_timer_opts timer_opts;
    nkt_impairment bad;
    memset(&opts, 0, sizeof opts);
    memset(&poller_opts, 0, sizeof poller_opts);
    memset(&timer_opts, 0, sizeof timer_opts);
    memset(&bad, 0, sizeof bad);
    ok(nkt_env_init_virtual(&world->env, 7), "nkt_env_init_virtual");
    opts.env = poller_opts.env = timer_opts.env = &world->env;
    opts.nonblocking = true;
    timer_opts.delay_ms = timer_opts.repeat_ms = 1;
    bad.seed = 7;
    bad.latency_ms = 80;
    bad.jitter_ms = 20;
    bad.overtake = true;
    bad.loss = 0.02;
    ok(nkt_udp_pair(&opts, &opts, 0, &world->from, &world->to), "nkt_udp_pair");
    ok(nkt_udp_impair(world->from, &bad), "nkt_udp_impair");
    ok(nkt_poller_open(&poller_opts, &world->poller), "nkt_poller_open");
    ok(nkt_timer_start(&timer_opts, &world->timer), "nkt_timer_start");
    ok(nkt_poller_add_udp(world->poller, world->from, NULL), "nkt_poller_add_udp");
    ok(nkt_poller_add_udp(world->poller, world->to, NULL), "nkt_poller_add_udp");
    ok(nkt_poller_add_task(world->poller, world->timer, NULL), "nkt_poller_add_task");
}

// Ten datagrams a millisecond; each arrives at an instant of its own, so that
// each one is a wait and a jump of the clock.
static void virtual_time(long count) {
    static simulated world;
    long sent = 0, got = 0;
    char bytes[64] = "";
    nkt_event event;
    nkt_datagram list[16];
    simulated_open(&world);
    while (nkt_poller_wait(world.poller, 1000) > 0) {
        while (nkt_poller_next(world.poller, &event) == NKT_OK) {
            int some = 0;
            if (event.task != NULL && nkt_timer_finish(world.timer) > 0) {
                for (int i = 0; i < 10 && sent < count; i++, sent++) {
                    if (nkt_udp_send(world.from, bytes, sizeof bytes, NULL) < 0) abort();
                }
                if (sent == count) nkt_poller_remove_task(world.poller, world.timer);
            }
            if (event.udp != world.to) continue;
            while ((some = nkt_udp_recv_many(world.to, list, 16)) > 0) got += some;
        }
    }
    if (got < count / 2) abort();
}

static const bench_ops ops = {
    lines_open, lines_read, echo_serve, echo_call, oneway_send, oneway_recv,
    connect_numbers, connect_names, room_open, room_run, parse, format,
    datagrams_open, datagrams_run, exchange, virtual_time,
};
