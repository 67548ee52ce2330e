// bench_raw.c - plain system calls, as one would write them: the measure
//
//     cc -O2 tests/bench/bench_raw.c -o build/bench_raw

#define _GNU_SOURCE
#include "bench.h"

#include <sys/epoll.h>

// --- Lines: recv of 64 KiB, and memchr ---------------------------------------

static int lines_fd;
static char lines_buf[BLOCK] __attribute__((aligned(4096)));
static size_t lines_head, lines_tail;

static void lines_open(int fd) {
    lines_fd = fd;
}

static size_t lines_read(long count) {
    size_t sum = 0;
    for (;;) {
        char *at = lines_buf + lines_head, *end = lines_buf + lines_tail, *found;
        while (at < end && (found = (char *)memchr(at, '\n', (size_t)(end - at))) != NULL) {
            sum += (size_t)(found - at);
            at = found + 1;
            if (--count == 0) break;
        }
        lines_head = (size_t)(at - lines_buf);
        if (count == 0) return sum;
        memmove(lines_buf, at, (size_t)(end - at));
        lines_tail -= lines_head;
        lines_head = 0;
        ssize_t got = recv(lines_fd, lines_buf + lines_tail, BLOCK - lines_tail, 0);
        if (got <= 0) bench_die("recv");
        lines_tail += (size_t)got;
    }
}

// --- Round trips: recv that blocks -------------------------------------------

static void echo_serve(int fd, size_t size, int mode) {
    static char buf[BLOCK];
    size_t have = 0;
    (void)mode;
    for (;;) {
        ssize_t got = recv(fd, buf + have, size - have, 0);
        if (got <= 0) return;
        have += (size_t)got;
        if (have < size) continue;
        bench_send_all(fd, buf, size);
        have = 0;
    }
}

static void echo_call(int fd, size_t size, int mode, long count) {
    static char buf[BLOCK];
    (void)mode;
    while (count-- > 0) {
        bench_send_all(fd, buf, size);
        bench_recv_all(fd, buf, size);
    }
    shutdown(fd, SHUT_RDWR);
}

static void oneway_send(int fd, const char *block, long count) {
    while (count-- > 0) bench_send_all(fd, block, BLOCK);
    close(fd);
}

static uint64_t oneway_recv(int fd) {
    static char buf[BLOCK] __attribute__((aligned(4096)));
    uint64_t sum = 0;
    ssize_t got;
    while ((got = recv(fd, buf, sizeof buf, 0)) > 0) sum += (uint64_t)got;
    return sum;
}

// --- Connecting: nonblocking, and with the options that netkit sets ----------

// Waits for a connect under way. 0 or the error.
static int connect_result(int fd) {
    struct pollfd one = { fd, POLLOUT, 0 };
    int err = 0;
    socklen_t len = sizeof err;
    poll(&one, 1, -1);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
    return err;
}

static int connect_one(const struct sockaddr *addr, socklen_t len) {
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) bench_die("socket");
    bench_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    int err = connect(fd, addr, len) == 0 ? 0 : errno;
    if (err == EINPROGRESS) err = connect_result(fd);
    if (err == 0) return fd;
    close(fd);
    return -1;
}

static void accept_and_close(int listener, int fd) {
    int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 || accepted < 0) bench_die("connect or accept");
    close(fd);
    close(accepted);
}

static void connect_numbers(long count) {
    struct sockaddr_storage addr;
    socklen_t len;
    int listener = bench_listen(AF_INET, &addr, &len);
    bench_set(listener, IPPROTO_TCP, TCP_NODELAY, 1);
    while (count-- > 0) accept_and_close(listener, connect_one((struct sockaddr *)&addr, len));
    close(listener);
}

static void connect_names(long count) {
    char port_text[8];
    int port, listener = bench_listen_any(&port);
    bench_set(listener, IPPROTO_TCP, TCP_NODELAY, 1);
    snprintf(port_text, sizeof port_text, "%d", port);
    while (count-- > 0) {
        struct addrinfo hints, *list = NULL;
        int fd = -1;
        memset(&hints, 0, sizeof hints);
        hints.ai_socktype = SOCK_STREAM;
        bench_check(getaddrinfo("localhost", port_text, &hints, &list) == 0, "getaddrinfo");
        for (struct addrinfo *one = list; one != NULL && fd < 0; one = one->ai_next) {
            fd = connect_one(one->ai_addr, one->ai_addrlen);
        }
        freeaddrinfo(list);
        accept_and_close(listener, fd);
    }
    close(listener);
}

// --- Many: epoll -------------------------------------------------------------

static int room_epoll;

static void room_open(const int *fds, int count, int lines) {
    (void)lines;
    room_epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = { EPOLLIN, { .fd = fds[i] } };
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
        if (epoll_ctl(room_epoll, EPOLL_CTL_ADD, fds[i], &event) != 0) bench_die("epoll_ctl");
    }
}

static void room_run(void) {
    struct epoll_event events[64];
    static char buf[BLOCK];
    for (;;) {
        int count = epoll_wait(room_epoll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            ssize_t got = recv(events[i].data.fd, buf, sizeof buf, 0);
            if (got == 0) return;
            if (got < 0) bench_die("recv");
            bench_send_all(events[i].data.fd, buf, (size_t)got);
        }
    }
}

// --- Addresses ---------------------------------------------------------------

static uint32_t parse(const bench_addr *addrs, int count) {
    uint32_t sum = 0;
    for (int i = 0; i < count; i++) {
        uint8_t bytes[16];
        if (inet_pton(addrs[i].family, addrs[i].text, bytes) != 1) abort();
        sum += bytes[3];
    }
    return sum;
}

static uint32_t format(const bench_addr *addrs, int count) {
    uint32_t sum = 0;
    for (int i = 0; i < count; i++) {
        char text[INET6_ADDRSTRLEN];
        if (inet_ntop(addrs[i].family, addrs[i].bytes, text, sizeof text) == NULL) abort();
        sum += (uint8_t)text[3];
    }
    return sum;
}

// --- Datagrams ---------------------------------------------------------------

static int datagram_ends[2];
static struct sockaddr_in datagram_to;

// However netkit does it, this is what it is measured against.
static void datagrams_open(const char *how) {
    (void)how;
    for (int i = 0; i < 2; i++) {
        socklen_t len = sizeof datagram_to;
        memset(&datagram_to, 0, sizeof datagram_to);
        datagram_to.sin_family = AF_INET;
        datagram_to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        datagram_ends[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (bind(datagram_ends[i], (struct sockaddr *)&datagram_to, len) != 0 ||
            getsockname(datagram_ends[i], (struct sockaddr *)&datagram_to, &len) != 0) {
            bench_die("bind");
        }
    }
}

static void datagrams_run(long rounds) {
    static char bytes[64], buf[2048];
    for (long i = 0; i < rounds; i++) {
        for (int k = 0; k < DATAGRAMS; k++) {
            if (sendto(datagram_ends[0], bytes, sizeof bytes, 0, (struct sockaddr *)&datagram_to,
                       sizeof datagram_to) != sizeof bytes) bench_die("sendto");
        }
        for (int k = 0; k < DATAGRAMS; k++) {
            struct sockaddr_in from;
            socklen_t len = sizeof from;
            if (recvfrom(datagram_ends[1], buf, sizeof buf, 0, (struct sockaddr *)&from,
                         &len) != sizeof bytes) bench_die("recvfrom");
        }
    }
}

static const bench_ops ops = {
    lines_open, lines_read, echo_serve, echo_call, oneway_send, oneway_recv,
    connect_numbers, connect_names, room_open, room_run, parse, format,
    datagrams_open, datagrams_run,
};
