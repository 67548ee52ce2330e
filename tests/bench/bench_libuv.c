// bench_libuv.c - libuv, as its guide writes such programs
//
//     cc -O2 tests/bench/bench_libuv.c -o build/bench_libuv -luv

#define _GNU_SOURCE
#include "bench.h"

#include <uv.h>

static char shared_buf[BLOCK] __attribute__((aligned(4096)));

static void ok(int err, const char *what) {
    if (err >= 0) return;
    printf("%s: %s\n", what, uv_strerror(err));
    exit(1);
}

// One buffer for all: what is read is used before the next read.
static void lend(uv_handle_t *handle, size_t size, uv_buf_t *buf) {
    (void)handle;
    (void)size;
    *buf = uv_buf_init(shared_buf, sizeof shared_buf);
}

static uv_tcp_t *adopt(int fd) {
    uv_tcp_t *tcp = (uv_tcp_t *)malloc(sizeof *tcp);
    bench_check(tcp != NULL, "malloc");
    ok(uv_tcp_init(uv_default_loop(), tcp), "uv_tcp_init");
    ok(uv_tcp_open(tcp, fd), "uv_tcp_open");
    return tcp;
}

// A write that tries first, and takes no memory if that did.
static void write_small(uv_stream_t *stream, const char *data, size_t len) {
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
    bench_check(uv_try_write(stream, &buf, 1) == (int)len, "uv_try_write");
}

// --- Lines: what is left of the last read is kept in front -------------------

static long lines_wanted;
static size_t lines_sum, lines_kept;
static char lines_buf[2 * BLOCK] __attribute__((aligned(4096)));

static void lines_lend(uv_handle_t *handle, size_t size, uv_buf_t *buf) {
    (void)handle;
    (void)size;
    *buf = uv_buf_init(lines_buf + lines_kept, BLOCK);
}

static void lines_got(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    (void)stream;
    (void)buf;
    if (got < 0) ok((int)got, "uv_read");
    char *at = lines_buf, *end = lines_buf + lines_kept + got, *found;
    while (at < end && (found = (char *)memchr(at, '\n', (size_t)(end - at))) != NULL) {
        lines_sum += (size_t)(found - at);
        at = found + 1;
        lines_wanted--;
    }
    lines_kept = (size_t)(end - at);
    memmove(lines_buf, at, lines_kept);
}

static void lines_open(int fd) {
    ok(uv_read_start((uv_stream_t *)adopt(fd), lines_lend, lines_got), "uv_read_start");
}

static size_t lines_read(long count) {
    lines_wanted = count;
    lines_sum = 0;
    while (lines_wanted > 0) uv_run(uv_default_loop(), UV_RUN_ONCE);
    return lines_sum;
}

// --- Round trips -------------------------------------------------------------

static size_t echo_size, echo_have;
static long echo_left;

static void echo_got(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    (void)buf;
    if (got < 0) {
        uv_close((uv_handle_t *)stream, NULL);
        return;
    }
    echo_have += (size_t)got;
    if (echo_have < echo_size) return;
    echo_have = 0;
    if (echo_left == 0 || --echo_left > 0) write_small(stream, shared_buf, echo_size);
    else uv_close((uv_handle_t *)stream, NULL);
}

static void echo_serve(int fd, size_t size, int mode) {
    if (mode != ECHO_POLL) exit(3);
    echo_size = size;
    ok(uv_read_start((uv_stream_t *)adopt(fd), lend, echo_got), "uv_read_start");
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

static void echo_call(int fd, size_t size, int mode, long count) {
    bench_has(mode == ECHO_POLL);
    uv_stream_t *stream = (uv_stream_t *)adopt(fd);
    echo_size = size;
    echo_left = count;
    ok(uv_read_start(stream, lend, echo_got), "uv_read_start");
    write_small(stream, shared_buf, size);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

// --- One way: eight writes under way at once ---------------------------------

static const char *oneway_block;
static long oneway_left;
static uint64_t oneway_sum;

static void oneway_sent(uv_write_t *request, int status) {
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)oneway_block, BLOCK);
    ok(status, "uv_write");
    if (oneway_left-- > 0) ok(uv_write(request, request->handle, &buf, 1, oneway_sent), "uv_write");
    else if (!uv_is_closing((uv_handle_t *)request->handle) &&
             uv_stream_get_write_queue_size(request->handle) == 0) {
        uv_close((uv_handle_t *)request->handle, NULL);
    }
}

static void oneway_send(int fd, const char *block, long count) {
    static uv_write_t requests[8];
    uv_stream_t *stream = (uv_stream_t *)adopt(fd);
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)block, BLOCK);
    oneway_block = block;
    oneway_left = count;
    for (int i = 0; i < 8 && oneway_left-- > 0; i++) {
        ok(uv_write(&requests[i], stream, &buf, 1, oneway_sent), "uv_write");
    }
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

static void oneway_got(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    (void)buf;
    if (got >= 0) oneway_sum += (uint64_t)got;
    else uv_close((uv_handle_t *)stream, NULL);
}

static uint64_t oneway_recv(int fd) {
    ok(uv_read_start((uv_stream_t *)adopt(fd), lend, oneway_got), "uv_read_start");
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    return oneway_sum;
}

// --- Connecting --------------------------------------------------------------

static int connect_pending;

static void connect_accept(uv_stream_t *server, int status) {
    uv_tcp_t *tcp = (uv_tcp_t *)malloc(sizeof *tcp);
    ok(status, "uv_listen");
    ok(uv_tcp_init(uv_default_loop(), tcp), "uv_tcp_init");
    ok(uv_accept(server, (uv_stream_t *)tcp), "uv_accept");
    uv_close((uv_handle_t *)tcp, (uv_close_cb)(void (*)(void))free);
    connect_pending--;
}

static void connect_done(uv_connect_t *request, int status) {
    ok(status, "uv_tcp_connect");
    uv_close((uv_handle_t *)request->handle, (uv_close_cb)(void (*)(void))free);
    connect_pending--;
}

static void connect_to(const struct sockaddr *addr) {
    static uv_connect_t request;
    uv_tcp_t *tcp = (uv_tcp_t *)malloc(sizeof *tcp);
    ok(uv_tcp_init(uv_default_loop(), tcp), "uv_tcp_init");
    ok(uv_tcp_nodelay(tcp, 1), "uv_tcp_nodelay");       // kept until there is a socket
    ok(uv_tcp_connect(&request, tcp, addr, connect_done), "uv_tcp_connect");
}

static uv_tcp_t *connect_listen(const struct sockaddr *any, int *port) {
    uv_tcp_t *server = (uv_tcp_t *)malloc(sizeof *server);
    struct sockaddr_storage addr;
    int len = sizeof addr;
    ok(uv_tcp_init(uv_default_loop(), server), "uv_tcp_init");
    ok(uv_tcp_bind(server, any, 0), "uv_tcp_bind");
    ok(uv_listen((uv_stream_t *)server, 511, connect_accept), "uv_listen");
    ok(uv_tcp_getsockname(server, (struct sockaddr *)&addr, &len), "uv_tcp_getsockname");
    *port = ntohs(((struct sockaddr_in *)&addr)->sin_port);     // the same place in both
    return server;
}

static void connect_numbers(long count) {
    struct sockaddr_in addr;
    int port;
    ok(uv_ip4_addr("127.0.0.1", 0, &addr), "uv_ip4_addr");
    uv_tcp_t *server = connect_listen((const struct sockaddr *)&addr, &port);
    addr.sin_port = htons((uint16_t)port);
    while (count-- > 0) {
        connect_pending = 2;
        connect_to((const struct sockaddr *)&addr);
        while (connect_pending > 0) uv_run(uv_default_loop(), UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)server, NULL);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

static void connect_found(uv_getaddrinfo_t *request, int status, struct addrinfo *list) {
    (void)request;
    ok(status, "uv_getaddrinfo");
    connect_to(list->ai_addr);
    uv_freeaddrinfo(list);
}

static void connect_names(long count) {
    struct sockaddr_in6 addr;
    struct addrinfo hints;
    uv_getaddrinfo_t request;
    char port_text[8];
    int port;
    ok(uv_ip6_addr("::", 0, &addr), "uv_ip6_addr");
    uv_tcp_t *server = connect_listen((const struct sockaddr *)&addr, &port);
    snprintf(port_text, sizeof port_text, "%d", port);
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    while (count-- > 0) {
        connect_pending = 2;
        ok(uv_getaddrinfo(uv_default_loop(), &request, connect_found, "localhost", port_text,
                          &hints), "uv_getaddrinfo");
        while (connect_pending > 0) uv_run(uv_default_loop(), UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)server, NULL);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

// --- Many --------------------------------------------------------------------

static int room_over;

static void room_got(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    if (got < 0) {
        uv_read_stop(stream);
        room_over = 1;
    } else if (got > 0) {
        write_small(stream, buf->base, (size_t)got);
    }
}

static void room_open(const int *fds, int count, int lines) {
    bench_has(!lines);          // it keeps nothing: its program would have to
    for (int i = 0; i < count; i++) {
        ok(uv_read_start((uv_stream_t *)adopt(fds[i]), lend, room_got), "uv_read_start");
    }
}

static void room_run(void) {
    while (!room_over) uv_run(uv_default_loop(), UV_RUN_ONCE);
}

// --- Addresses ---------------------------------------------------------------

static uint32_t parse(const bench_addr *addrs, int count) {
    uint32_t sum = 0;
    for (int i = 0; i < count; i++) {
        uint8_t bytes[16];
        if (uv_inet_pton(addrs[i].family, addrs[i].text, bytes) != 0) abort();
        sum += bytes[3];
    }
    return sum;
}

static uint32_t format(const bench_addr *addrs, int count) {
    uint32_t sum = 0;
    for (int i = 0; i < count; i++) {
        char text[INET6_ADDRSTRLEN];
        if (uv_inet_ntop(addrs[i].family, addrs[i].bytes, text, sizeof text) != 0) abort();
        sum += (uint8_t)text[3];
    }
    return sum;
}

// --- Datagrams ---------------------------------------------------------------

static uv_udp_t datagram_ends[2];
static struct sockaddr_in datagram_to;
static const struct sockaddr *datagram_peer;    // NULL: connected
static int datagrams_left;
static char datagram_buf[20 * 65536];           // as many as it asks for in one call

static void datagram_lend(uv_handle_t *handle, size_t size, uv_buf_t *buf) {
    *buf = uv_buf_init(datagram_buf, uv_udp_using_recvmmsg((uv_udp_t *)handle)
                       ? (unsigned)sizeof datagram_buf : (unsigned)size);
}

static void datagram_got(uv_udp_t *udp, ssize_t got, const uv_buf_t *buf,
                         const struct sockaddr *from, unsigned flags) {
    (void)udp;
    (void)buf;
    (void)flags;
    ok((int)got, "uv_udp_recv");
    if (from == NULL) return;                   // nothing more now, or the buffer given back
    if (got != 64) abort();
    datagrams_left--;
}

static void datagrams_open(const char *how) {
    bench_has(strcmp(how, "loop") != 0);        // there is one way
    unsigned flags = AF_INET | (strcmp(how, "many") == 0 ? UV_UDP_RECVMMSG : 0);
    int len = sizeof datagram_to;
    for (int i = 0; i < 2; i++) {
        ok(uv_ip4_addr("127.0.0.1", 0, &datagram_to), "uv_ip4_addr");
        ok(uv_udp_init_ex(uv_default_loop(), &datagram_ends[i], flags), "uv_udp_init_ex");
        ok(uv_udp_bind(&datagram_ends[i], (const struct sockaddr *)&datagram_to, 0),
           "uv_udp_bind");
        ok(uv_udp_getsockname(&datagram_ends[i], (struct sockaddr *)&datagram_to, &len),
           "uv_udp_getsockname");
    }
    datagram_peer = (const struct sockaddr *)&datagram_to;
    if (strcmp(how, "connected") == 0) {
        ok(uv_udp_connect(&datagram_ends[0], datagram_peer), "uv_udp_connect");
        datagram_peer = NULL;
    }
    ok(uv_udp_recv_start(&datagram_ends[1], datagram_lend, datagram_got), "uv_udp_recv_start");
}

static void datagrams_run(long rounds) {
    static char bytes[64];
    uv_buf_t buf = uv_buf_init(bytes, sizeof bytes);
    for (long i = 0; i < rounds; i++) {
        for (int k = 0; k < DATAGRAMS; k++) {
            ok(uv_udp_try_send(&datagram_ends[0], &buf, 1, datagram_peer), "uv_udp_try_send");
        }
        datagrams_left = DATAGRAMS;
        while (datagrams_left > 0) uv_run(uv_default_loop(), UV_RUN_ONCE);
    }
}

static const bench_ops ops = {
    lines_open, lines_read, echo_serve, echo_call, oneway_send, oneway_recv,
    connect_numbers, connect_names, room_open, room_run, parse, format,
    datagrams_open, datagrams_run,
};
