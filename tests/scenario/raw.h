// raw.h - the system's own sockets, for the other end of a tested connection
//
// The peer of a test speaks to the system directly, because it has to do what
// netkit never would: send single bytes, reset in mid-line, stop reading.
// Include after netkit.h with NETKIT_IMPLEMENTATION, which sets the
// feature-test macros.

#ifndef NKT_TEST_RAW_H
#define NKT_TEST_RAW_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef _WIN32
    #include <winsock2.h>
    #include <ws2tcpip.h>
    #include <windows.h>
    #define RAW_NOSIGNAL 0
    #define RAW_SHUT_WRITE SD_SEND
    typedef int raw_len;
    typedef SOCKET raw_fd;
    #define RAW_NO_FD INVALID_SOCKET
#else
    #include <errno.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <signal.h>
    #include <sys/socket.h>
    #include <sys/time.h>
    #include <sys/un.h>
    #include <time.h>
    #include <unistd.h>
    #ifdef MSG_NOSIGNAL
        #define RAW_NOSIGNAL MSG_NOSIGNAL
    #else
        #define RAW_NOSIGNAL 0
    #endif
    #define RAW_SHUT_WRITE SHUT_WR
    typedef socklen_t raw_len;
    typedef int raw_fd;
    #define RAW_NO_FD (-1)
#endif

#ifndef RAW_LIMIT_MS
    #define RAW_LIMIT_MS 20000      // no raw call waits longer
#endif

static inline void sleep_ms(int32_t ms) {
#ifdef _WIN32
    Sleep((DWORD)ms);
#else
    struct timespec left;
    left.tv_sec = ms / 1000;
    left.tv_nsec = (long)(ms % 1000) * 1000000;
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
#endif
}

static inline void raw_close(raw_fd fd) {
#ifdef _WIN32
    closesocket(fd);
#else
    close(fd);
#endif
}

// The last failure as an NKT_ code; only what the tests tell apart.
static inline int raw_error(void) {
#ifdef _WIN32
    int code = WSAGetLastError();
    if (code == WSAECONNRESET || code == WSAECONNABORTED) return NKT_ERESET;
    if (code == WSAETIMEDOUT || code == WSAEWOULDBLOCK) return NKT_ETIMEDOUT;
#else
    if (errno == ECONNRESET || errno == EPIPE) return NKT_ERESET;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return NKT_ETIMEDOUT;
    if (errno == EINTR) return NKT_EINTR;
#endif
    return NKT_EOS;
}

static inline void raw_set(raw_fd fd, int level, int name, int value) {
    setsockopt(fd, level, name, (const char *)&value, (raw_len)sizeof value);
}

// No test may hang on its own peer.
static inline void raw_limit(raw_fd fd) {
#ifdef _WIN32
    raw_set(fd, SOL_SOCKET, SO_RCVTIMEO, RAW_LIMIT_MS);
    raw_set(fd, SOL_SOCKET, SO_SNDTIMEO, RAW_LIMIT_MS);
#else
    struct timeval limit;
    limit.tv_sec = RAW_LIMIT_MS / 1000;
    limit.tv_usec = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, (raw_len)sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, (raw_len)sizeof limit);
    #ifdef SO_NOSIGPIPE
    raw_set(fd, SOL_SOCKET, SO_NOSIGPIPE, 1);
    #endif
#endif
}

// A TCP listener on 127.0.0.1; `recv_buffer` is inherited by what it accepts.
static inline raw_fd raw_listen(int recv_buffer, nkt_addr *where) {
    struct sockaddr_in any;
    raw_len len = (raw_len)sizeof any;
    raw_fd fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd == RAW_NO_FD) return fd;
    memset(&any, 0, sizeof any);
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (recv_buffer > 0) raw_set(fd, SOL_SOCKET, SO_RCVBUF, recv_buffer);
    raw_limit(fd);
    if (bind(fd, (struct sockaddr *)&any, len) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)&any, &len) != 0 ||
        nkt_addr_from_sockaddr(&any, (size_t)len, where) != NKT_OK) {
        raw_close(fd);
        return RAW_NO_FD;
    }
    return fd;
}

static inline raw_fd raw_accept(raw_fd listener) {
    raw_fd fd = accept(listener, NULL, NULL);
    if (fd != RAW_NO_FD) raw_limit(fd);
    return fd;
}

static inline raw_fd raw_connect(int recv_buffer, const nkt_addr *where) {
    unsigned char to[NKT_SOCKADDR_MAX];
    int len = nkt_addr_to_sockaddr(where, to, sizeof to);
    if (len < 0) return RAW_NO_FD;
    raw_fd fd = socket(where->ip.family == NKT_IPV4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
    if (fd == RAW_NO_FD) return fd;
    if (recv_buffer > 0) raw_set(fd, SOL_SOCKET, SO_RCVBUF, recv_buffer);
    raw_limit(fd);
    if (connect(fd, (struct sockaddr *)(void *)to, (raw_len)len) != 0) {
        raw_close(fd);
        return RAW_NO_FD;
    }
    return fd;
}

#ifndef _WIN32
static inline raw_fd raw_unix(const char *path, bool listening) {
    struct sockaddr_un name;
    raw_fd fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd == RAW_NO_FD) return fd;
    memset(&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
    snprintf(name.sun_path, sizeof name.sun_path, "%s", path);
    raw_limit(fd);
    int bad = listening ? bind(fd, (struct sockaddr *)&name, (raw_len)sizeof name) != 0 ||
                              listen(fd, 16) != 0
                        : connect(fd, (struct sockaddr *)&name, (raw_len)sizeof name) != 0;
    if (bad) {
        raw_close(fd);
        return RAW_NO_FD;
    }
    return fd;
}
#endif

static inline ptrdiff_t raw_send(raw_fd fd, const void *data, size_t len) {
    ptrdiff_t sent;
    do {
#ifdef _WIN32
        sent = send(fd, (const char *)data, (int)len, RAW_NOSIGNAL);
#else
        sent = (ptrdiff_t)send(fd, data, len, RAW_NOSIGNAL);
#endif
    } while (sent < 0 && raw_error() == NKT_EINTR);
    return sent >= 0 ? sent : raw_error();
}

// Bytes, NKT_EOF, NKT_ERESET, or NKT_ETIMEDOUT after RAW_LIMIT_MS.
static inline ptrdiff_t raw_recv(raw_fd fd, void *buf, size_t cap) {
    ptrdiff_t got;
    do {
#ifdef _WIN32
        got = recv(fd, (char *)buf, (int)cap, 0);
#else
        got = (ptrdiff_t)recv(fd, buf, cap, 0);
#endif
    } while (got < 0 && raw_error() == NKT_EINTR);
    if (got == 0) return NKT_EOF;
    return got > 0 ? got : raw_error();
}

static inline void raw_reset(raw_fd fd) {
    struct linger now;
    now.l_onoff = 1;
    now.l_linger = 0;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, (const char *)&now, (raw_len)sizeof now);
    raw_close(fd);
}

#endif
