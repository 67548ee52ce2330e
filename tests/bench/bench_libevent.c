// bench_libevent.c - libevent with bufferevents, as its book writes such programs
//
//     cc -O2 tests/bench/bench_libevent.c -o build/bench_libevent -levent

#define _GNU_SOURCE
#include "bench.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/util.h>

static struct event_base *base;

static void ended(struct bufferevent *bev, short what, void *arg) {
    (void)bev;
    (void)what;
    (void)arg;
    event_base_loopbreak(base);
}

static struct bufferevent *adopt(int fd, bufferevent_data_cb read_cb) {
    if (base == NULL) base = event_base_new();
    if (fd >= 0) evutil_make_socket_nonblocking(fd);
    struct bufferevent *bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    bench_check(bev != NULL, "bufferevent_socket_new");
    bufferevent_setcb(bev, read_cb, NULL, ended, NULL);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
    return bev;
}

// --- Lines -------------------------------------------------------------------

static long lines_wanted;
static size_t lines_sum;

static void lines_got(struct bufferevent *bev, void *arg) {
    struct evbuffer *input = bufferevent_get_input(bev);
    size_t len;
    char *line;
    (void)arg;
    while (lines_wanted > 0 &&
           (line = evbuffer_readln(input, &len, EVBUFFER_EOL_LF)) != NULL) {
        lines_sum += len;
        free(line);
        lines_wanted--;
    }
    if (lines_wanted == 0) event_base_loopbreak(base);
}

static void lines_open(int fd) {
    adopt(fd, lines_got);
}

static size_t lines_read(long count) {
    lines_wanted = count;
    lines_sum = 0;
    event_base_dispatch(base);
    return lines_sum;
}

// --- Round trips -------------------------------------------------------------

static size_t echo_size;
static long echo_left;
static char echo_buf[BLOCK];

static void echo_got(struct bufferevent *bev, void *arg) {
    struct evbuffer *input = bufferevent_get_input(bev);
    (void)arg;
    if (evbuffer_get_length(input) < echo_size) return;
    evbuffer_remove(input, echo_buf, echo_size);
    if (echo_left == 0 || --echo_left > 0) bufferevent_write(bev, echo_buf, echo_size);
    else event_base_loopbreak(base);
}

static void echo_serve(int fd, size_t size, int mode) {
    if (mode != ECHO_POLL) exit(3);
    echo_size = size;
    adopt(fd, echo_got);
    event_base_dispatch(base);
}

static void echo_call(int fd, size_t size, int mode, long count) {
    bench_has(mode == ECHO_POLL);
    echo_size = size;
    echo_left = count;
    bufferevent_write(adopt(fd, echo_got), echo_buf, size);
    event_base_dispatch(base);
    shutdown(fd, SHUT_RDWR);
}

// --- One way -----------------------------------------------------------------

static const char *oneway_block;
static long oneway_left;
static uint64_t oneway_sum;

static void oneway_sent(struct bufferevent *bev, void *arg) {
    (void)arg;
    if (oneway_left-- > 0) bufferevent_write(bev, oneway_block, BLOCK);
    else if (evbuffer_get_length(bufferevent_get_output(bev)) == 0) event_base_loopbreak(base);
}

static void oneway_send(int fd, const char *block, long count) {
    struct bufferevent *bev = adopt(fd, NULL);
    oneway_block = block;
    oneway_left = count;
    bufferevent_setcb(bev, NULL, oneway_sent, ended, NULL);
    bufferevent_setwatermark(bev, EV_WRITE, BLOCK, 0);
    oneway_sent(bev, NULL);
    event_base_dispatch(base);
    bufferevent_free(bev);
}

static void oneway_got(struct bufferevent *bev, void *arg) {
    struct evbuffer *input = bufferevent_get_input(bev);
    size_t len = evbuffer_get_length(input);
    (void)arg;
    oneway_sum += len;
    evbuffer_drain(input, len);
}

static uint64_t oneway_recv(int fd) {
    struct bufferevent *bev = adopt(fd, oneway_got);
    bufferevent_set_max_single_read(bev, BLOCK);
    event_base_dispatch(base);
    return oneway_sum;
}

// --- Connecting --------------------------------------------------------------

static int connect_pending;

static void connect_step(void) {
    if (--connect_pending == 0) event_base_loopbreak(base);
}

static void connect_accepted(struct evconnlistener *listener, evutil_socket_t fd,
                             struct sockaddr *addr, int len, void *arg) {
    (void)listener;
    (void)addr;
    (void)len;
    (void)arg;
    bufferevent_free(bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE));
    connect_step();
}

static void connect_done(struct bufferevent *bev, short what, void *arg) {
    (void)arg;
    bench_check((what & BEV_EVENT_CONNECTED) != 0, "connecting");
    bufferevent_free(bev);
    connect_step();
}

static struct evconnlistener *connect_listen(int family, struct sockaddr_storage *addr,
                                             socklen_t *len) {
    if (base == NULL) base = event_base_new();
    int fd = bench_listen(family, addr, len);
    evutil_make_socket_nonblocking(fd);
    return evconnlistener_new(base, connect_accepted, NULL,
                              LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
}

static struct bufferevent *connect_new(void) {
    struct bufferevent *bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(bev, NULL, NULL, connect_done, NULL);
    connect_pending = 2;
    return bev;
}

static void connect_numbers(long count) {
    struct sockaddr_storage addr;
    socklen_t len;
    struct evconnlistener *listener = connect_listen(AF_INET, &addr, &len);
    while (count-- > 0) {
        struct bufferevent *bev = connect_new();
        bufferevent_socket_connect(bev, (struct sockaddr *)&addr, (int)len);
        event_base_dispatch(base);
    }
    evconnlistener_free(listener);
}

static void connect_names(long count) {
    struct sockaddr_storage addr;
    socklen_t len;
    struct evconnlistener *listener = connect_listen(AF_INET6, &addr, &len);
    int port = ntohs(((struct sockaddr_in6 *)&addr)->sin6_port);
    struct evdns_base *dns = evdns_base_new(base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    evdns_base_load_hosts(dns, "/etc/hosts");
    while (count-- > 0) {
        struct bufferevent *bev = connect_new();
        bufferevent_socket_connect_hostname(bev, dns, AF_UNSPEC, "localhost", port);
        event_base_dispatch(base);
    }
    evdns_base_free(dns, 0);
    evconnlistener_free(listener);
}

// --- Many --------------------------------------------------------------------

static int room_lines;

static void room_got(struct bufferevent *bev, void *arg) {
    struct evbuffer *input = bufferevent_get_input(bev);
    size_t len;
    char *line;
    (void)arg;
    if (!room_lines) {
        bufferevent_write_buffer(bev, input);
        return;
    }
    while ((line = evbuffer_readln(input, &len, EVBUFFER_EOL_LF)) != NULL) free(line);
}

static void room_open(const int *fds, int count, int lines) {
    room_lines = lines;
    for (int i = 0; i < count; i++) adopt(fds[i], room_got);
}

static void room_run(void) {
    event_base_dispatch(base);
}

// --- Addresses ---------------------------------------------------------------

static uint32_t parse(const bench_addr *addrs, int count) {
    uint32_t sum = 0;
    for (int i = 0; i < count; i++) {
        uint8_t bytes[16];
        if (evutil_inet_pton(addrs[i].family, addrs[i].text, bytes) != 1) abort();
        sum += bytes[3];
    }
    return sum;
}

static uint32_t format(const bench_addr *addrs, int count) {
    uint32_t sum = 0;
    for (int i = 0; i < count; i++) {
        char text[INET6_ADDRSTRLEN];
        if (evutil_inet_ntop(addrs[i].family, addrs[i].bytes, text, sizeof text) == NULL) abort();
        sum += (uint8_t)text[3];
    }
    return sum;
}

static const bench_ops ops = {
    lines_open, lines_read, echo_serve, echo_call, oneway_send, oneway_recv,
    connect_numbers, connect_names, room_open, room_run, parse, format,
};
