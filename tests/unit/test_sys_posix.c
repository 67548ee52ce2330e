// test_sys_posix.c - the system's refusals, one by one, and what they become
//
// The system's functions are replaced by ones that fail when told to: a failure
// is the next call's, with an errno, and everything else is the system's own.
// What is tested is @sys alone: the tables of functions, called directly.

#ifndef _GNU_SOURCE
    #define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#ifdef __linux__
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/random.h>
#endif

#include "nkt_test.h"

enum { AT_BIND, AT_CONNECT, AT_FCNTL, AT_SETSOCKOPT, AT_GETSOCKOPT, AT_GETSOCKNAME, AT_IOCTL,
       AT_POLL, AT_EVENTFD, AT_GETRANDOM, AT_EPOLL, AT_EPOLL_CTL, AT_ACCEPT, AT_SOCKET, AT_ATFORK,
       AT_THREAD, AT_CALLOC, AT_COUNT };

static struct {
    int err;                // of the next call; 0 = none
    int after;              // calls before it
} failures[AT_COUNT];

static void fail(int at, int err, int after) {
    failures[at].err = err;
    failures[at].after = after;
}

static int fails(int at) {
    int err = failures[at].err;
    if (err == 0 || failures[at].after-- > 0) return 0;
    failures[at].err = 0;
    errno = err;
    return err;
}

static int sys_bind(int fd, const struct sockaddr *addr, socklen_t len) {
    return fails(AT_BIND) ? -1 : bind(fd, addr, len);
}

static int sys_connect(int fd, const struct sockaddr *addr, socklen_t len) {
    return fails(AT_CONNECT) ? -1 : connect(fd, addr, len);
}

static int sys_fcntl(int fd, int what, int value) {
    return fails(AT_FCNTL) ? -1 : fcntl(fd, what, value);
}

static int sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    return fails(AT_SETSOCKOPT) ? -1 : setsockopt(fd, level, name, value, len);
}

static int sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    return fails(AT_GETSOCKOPT) ? -1 : getsockopt(fd, level, name, value, len);
}

static int sys_getsockname(int fd, struct sockaddr *addr, socklen_t *len) {
    return fails(AT_GETSOCKNAME) ? -1 : getsockname(fd, addr, len);
}

// Asked for one thing alone, whose type differs between C libraries.
static int sys_ioctl(int fd, unsigned long what, int *value) {
    (void)what;
    return fails(AT_IOCTL) ? -1 : ioctl(fd, TIOCOUTQ, value);
}

static int sys_poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
    return fails(AT_POLL) ? -1 : poll(fds, count, timeout_ms);
}

static int sys_socket(int family, int type, int protocol) {
    return fails(AT_SOCKET) ? -1 : socket(family, type, protocol);
}

static int sys_pthread_atfork(void (*a)(void), void (*b)(void), void (*c)(void)) {
    return fails(AT_ATFORK) ? ENOMEM : pthread_atfork(a, b, c);
}

static int sys_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                              void *(*run)(void *), void *arg) {
    return fails(AT_THREAD) ? EAGAIN : pthread_create(thread, attr, run, arg);
}

static void *sys_calloc(size_t count, size_t size) {
    return fails(AT_CALLOC) ? NULL : calloc(count, size);
}

#ifdef __linux__
static int sys_eventfd(unsigned value, int flags) {
    return fails(AT_EVENTFD) ? -1 : eventfd(value, flags);
}

// At most three bytes at a time.
static ssize_t sys_getrandom(void *buf, size_t len, unsigned flags) {
    return fails(AT_GETRANDOM) ? -1 : getrandom(buf, len > 3 ? 3 : len, flags);
}

static int sys_epoll_create1(int flags) {
    return fails(AT_EPOLL) ? -1 : epoll_create1(flags);
}

static int sys_epoll_ctl(int fd, int how, int other, struct epoll_event *change) {
    return fails(AT_EPOLL_CTL) ? -1 : epoll_ctl(fd, how, other, change);
}

static int sys_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags) {
    return fails(AT_ACCEPT) ? -1 : accept4(fd, addr, len, flags);
}
#endif

// The resolver answers what it is told: a code, or these addresses.
static struct {
    int code;
    struct addrinfo rows[4];
    struct sockaddr_in addrs[4];
    int count, freed;
} answer;

static int sys_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                           struct addrinfo **list) {
    (void)host;
    (void)service;
    (void)hints;
    if (answer.code != 0) return answer.code;
    for (int i = 0; i < answer.count; i++) {
        answer.rows[i].ai_addr = (struct sockaddr *)(void *)&answer.addrs[i];
        answer.rows[i].ai_addrlen = sizeof answer.addrs[i];
        answer.rows[i].ai_next = i + 1 < answer.count ? &answer.rows[i + 1] : NULL;
    }
    *list = &answer.rows[0];
    return 0;
}

static void sys_freeaddrinfo(struct addrinfo *list) {
    answer.freed += list == &answer.rows[0];
}

#define bind sys_bind
#define connect sys_connect
#define fcntl sys_fcntl
#define setsockopt sys_setsockopt
#define getsockopt sys_getsockopt
#define getsockname sys_getsockname
#define ioctl sys_ioctl
#define poll sys_poll
#define socket sys_socket
#define pthread_atfork sys_pthread_atfork
#define pthread_create sys_pthread_create
#define calloc sys_calloc
#define getaddrinfo sys_getaddrinfo
#define freeaddrinfo sys_freeaddrinfo
#ifdef __linux__
    #define eventfd sys_eventfd
    #define getrandom sys_getrandom
    #define epoll_create1 sys_epoll_create1
    #define epoll_ctl sys_epoll_ctl
    #define accept4 sys_accept4
#endif

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

static const nkt_sys_core *core;
static nkt_env env;

static nkt_fd open_socket(int family, int type) {
    nkt_fd fd = NKT_NO_FD;
    CHECK_INT(core->open(&env, family, type, &fd), NKT_OK);
    return fd;
}

static struct sockaddr_in loopback(uint16_t port) {
    struct sockaddr_in name;
    memset(&name, 0, sizeof name);
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return name;
}

// First of all, because it happens once in a process.
static void starting(void) {
    nkt_env one;
#ifndef NETKIT_NO_THREADS
    TEST("no memory for the fork handler: refused, and asked for again") {
        fail(AT_ATFORK, ENOMEM, 0);
        CHECK_INT(nkt_env_init(&one), NKT_ENOMEM);
        fail(AT_ATFORK, ENOMEM, 0);
        CHECK_INT(nkt_env_init(&one), NKT_ENOMEM);
        CHECK_INT(failures[AT_ATFORK].err, 0);
    }
#endif
    TEST("no memory for an environment's state") {
        fail(AT_CALLOC, ENOMEM, 0);
        CHECK_INT(nkt_env_init(&one), NKT_ENOMEM);
        CHECK_INT(nkt_env_init(&one), NKT_OK);
        nkt_env_free(&one);
        CHECK(one.state == NULL);
        nkt_env_free(&one);
    }
    TEST("an environment of its own for the rest") {
        CHECK_INT(nkt_env_init(&env), NKT_OK);
        core = nkt_sys_core_default();
        CHECK(core != NULL);
    }
}

static void codes(void) {
    static const struct { int os, err; } rows[] = {
        { EAGAIN, NKT_EAGAIN }, { EINPROGRESS, NKT_EAGAIN }, { EALREADY, NKT_EAGAIN },
        { EINTR, NKT_EINTR }, { EINVAL, NKT_EINVAL }, { EACCES, NKT_EACCES },
        { EPERM, NKT_EACCES }, { EMFILE, NKT_EMFILE }, { ENFILE, NKT_EMFILE },
        { ENOMEM, NKT_ENOMEM }, { ENOBUFS, NKT_ENOMEM }, { EBADF, NKT_ENOTSOCK },
        { ENOTSOCK, NKT_ENOTSOCK }, { EMSGSIZE, NKT_EMSGSIZE },
        { EADDRINUSE, NKT_EADDRINUSE }, { EADDRNOTAVAIL, NKT_EADDRNOTAVAIL },
        { ENETDOWN, NKT_ENETDOWN }, { ENETUNREACH, NKT_ENETUNREACH },
        { EHOSTUNREACH, NKT_EHOSTUNREACH }, { EHOSTDOWN, NKT_EHOSTUNREACH },
        { ECONNABORTED, NKT_EABORTED }, { ECONNRESET, NKT_ERESET },
        { ENETRESET, NKT_ERESET }, { ECONNREFUSED, NKT_EREFUSED },
        { ETIMEDOUT, NKT_ETIMEDOUT }, { ENOTCONN, NKT_ENOTCONN }, { EPIPE, NKT_EPIPE },
        { ESHUTDOWN, NKT_EPIPE }, { EPROTOTYPE, NKT_EPIPE }, { EPROTO, NKT_EPROTO },
        { ENOENT, NKT_ENOTFOUND }, { ENOTDIR, NKT_ENOTFOUND }, { ENODEV, NKT_ENODEV },
        { ENXIO, NKT_ENODEV }, { EAFNOSUPPORT, NKT_EUNSUPPORTED },
        { EPROTONOSUPPORT, NKT_EUNSUPPORTED }, { ENOPROTOOPT, NKT_EUNSUPPORTED },
        { EOPNOTSUPP, NKT_EUNSUPPORTED }, { EPFNOSUPPORT, NKT_EUNSUPPORTED },
        { EXDEV, NKT_EOS },
    };
    struct sockaddr_in name = loopback(0);
    TEST("every errno has its code, and stays to be asked for") {
        nkt_fd fd = open_socket(NKT_IPV4, 1);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            fail(AT_BIND, rows[i].os, 0);
            CHECK_INT(core->bind(&env, fd, &name, sizeof name), rows[i].err);
            CHECK_INT(core->last_error(&env), rows[i].os);
        }
        CHECK_INT(core->bind(&env, fd, &name, sizeof name), NKT_OK);
        core->close(&env, fd);
    }
    TEST("a positive number is success, and none of ours has no name") {
        CHECK_STR(nkt_strerror(5), nkt_strerror(NKT_OK));
        CHECK_STR(nkt_errname(5), "NKT_OK");
        CHECK_STR(nkt_errname(NKT_ERROR_LAST - 1), "NKT_UNKNOWN");
    }
}

static void opening(void) {
    struct sockaddr_in name = loopback(9);
    struct sockaddr_un path;
    nkt_fd fd = NKT_NO_FD;
    memset(&path, 0, sizeof path);
    path.sun_family = AF_UNIX;
    TEST("no descriptor for a socket") {
        fail(AT_SOCKET, EMFILE, 0);
        CHECK_INT(core->open(&env, NKT_IPV4, 1, &fd), NKT_EMFILE);
        CHECK_INT(fd, NKT_NO_FD);
    }
    TEST("a connect that a signal met, or that has no room") {
        fd = open_socket(NKT_IPV4, 1);
        fail(AT_CONNECT, EINTR, 0);
        CHECK_INT(core->connect(&env, fd, &name, sizeof name), NKT_EAGAIN);
        fail(AT_CONNECT, EAGAIN, 0);
        CHECK_INT(core->connect(&env, fd, &name, sizeof name), NKT_EAGAIN);
        fail(AT_CONNECT, EAGAIN, 0);
        CHECK_INT(core->connect(&env, fd, &path, sizeof path), NKT_EBUSY);
        core->close(&env, fd);
    }
    TEST("the result of a connect") {
        fd = open_socket(NKT_IPV4, 1);
        fail(AT_POLL, EINTR, 0);
        CHECK_INT(core->connect_result(&env, fd), NKT_EAGAIN);
        fail(AT_POLL, ENOMEM, 0);
        CHECK_INT(core->connect_result(&env, fd), NKT_ENOMEM);
        // Never connected: ready with a hang-up, and no error pending.
        fail(AT_GETSOCKOPT, ENOBUFS, 0);
        CHECK_INT(core->connect_result(&env, fd), NKT_ENOMEM);
        core->close(&env, fd);
    }
    TEST("blocking mode of what is no descriptor, and what cannot be set") {
        CHECK_INT(core->set_blocking(&env, 987654, true), NKT_ENOTSOCK);
        fd = open_socket(NKT_IPV4, 1);
        fail(AT_FCNTL, EPERM, 1);
        CHECK_INT(core->set_blocking(&env, fd, true), NKT_EACCES);
        CHECK_INT(core->set_blocking(&env, fd, false), NKT_OK);
        core->close(&env, fd);
    }
}

#ifdef __linux__
static void accepting(void) {
    static const int pending[] = { ENETDOWN, EPROTO, EHOSTDOWN, EHOSTUNREACH, ENETUNREACH,
                                   EOPNOTSUPP, ENOPROTOOPT, ECONNRESET, ETIMEDOUT, EPERM,
                                   ECONNABORTED };
    struct sockaddr_in name = loopback(0);
    size_t len = sizeof name;
    nkt_fd opened = NKT_NO_FD;
    TEST("what was pending on a new connection concerns that one alone") {
        nkt_fd fd = open_socket(NKT_IPV4, 1);
        for (size_t i = 0; i < sizeof pending / sizeof pending[0]; i++) {
            fail(AT_ACCEPT, pending[i], 0);
            CHECK_INT(core->accept(&env, fd, &opened, NULL, NULL), NKT_EABORTED);
        }
        fail(AT_ACCEPT, EMFILE, 0);
        CHECK_INT(core->accept(&env, fd, &opened, NULL, NULL), NKT_EMFILE);
        core->close(&env, fd);
    }
    TEST("accepting with and without asking who it is") {
        nkt_fd fd = open_socket(NKT_IPV4, 1);
        CHECK_INT(core->bind(&env, fd, &name, sizeof name), NKT_OK);
        CHECK_INT(core->listen(&env, fd, 5), NKT_OK);
        CHECK_INT(core->local_name(&env, fd, &name, &len), NKT_OK);
        for (int i = 0; i < 2; i++) {
            struct sockaddr_in peer;
            size_t peer_len = sizeof peer;
            nkt_fd from = open_socket(NKT_IPV4, 1);
            nkt_watch watch = { fd, NKT_READ, 0 };
            int err = core->connect(&env, from, &name, sizeof name);
            CHECK(err == NKT_OK || err == NKT_EAGAIN);
            CHECK_INT(core->wait(&env, &watch, 1, 5000000000), 1);
            CHECK_INT(core->accept(&env, fd, &opened, i > 0 ? &peer : NULL,
                                   i > 0 ? &peer_len : NULL), NKT_OK);
            if (i > 0) CHECK_INT(peer_len, sizeof peer);
            core->close(&env, opened);
            core->close(&env, from);
        }
        core->close(&env, fd);
    }
}
#endif

static void options(void) {
    static const int refused[] = { 0, 99, NKT_SO_TYPE, NKT_SO_ERROR };
    int64_t value = 0;
    TEST("options that there are not") {
        nkt_fd fd = open_socket(NKT_IPV4, 1);
        for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
            CHECK_INT(core->set_option(&env, fd, refused[i], 1), NKT_EINVAL);
        }
        value = 4711;
        CHECK_INT(core->get_option(&env, fd, 99, &value), NKT_EINVAL);
        CHECK_INT(value, 4711);
        // What IPv6 alone has, of an IPv4 socket.
        CHECK_INT(core->get_option(&env, fd, NKT_SO_V6ONLY, &value), NKT_EUNSUPPORTED);
        CHECK_INT(value, 4711);
        core->close(&env, fd);
    }
    TEST("the family of each kind of socket, and of none") {
        nkt_fd ipv4 = open_socket(NKT_IPV4, 1), local = open_socket(NKT_UNIX, 1);
        CHECK_INT(core->get_option(&env, ipv4, NKT_SO_FAMILY, &value), NKT_OK);
        CHECK_INT(value, NKT_IPV4);
        CHECK_INT(core->get_option(&env, local, NKT_SO_FAMILY, &value), NKT_OK);
        CHECK_INT(value, NKT_UNIX);
        fail(AT_GETSOCKNAME, EBADF, 0);
        CHECK_INT(core->get_option(&env, ipv4, NKT_SO_FAMILY, &value), NKT_OK);
        CHECK_INT(value, 0);
        core->close(&env, ipv4);
        core->close(&env, local);
    }
    TEST("a huge number is the largest there is; a refusal leaves the value alone") {
        nkt_fd fd = open_socket(NKT_IPV4, 1);
        CHECK_INT(core->set_option(&env, fd, NKT_SO_NODELAY, INT64_MAX), NKT_OK);
        CHECK_INT(core->get_option(&env, fd, NKT_SO_NODELAY, &value), NKT_OK);
        CHECK_INT(value, 1);
        fail(AT_GETSOCKOPT, ENOPROTOOPT, 0);
        CHECK_INT(core->get_option(&env, fd, NKT_SO_NODELAY, &value), NKT_EUNSUPPORTED);
        CHECK_INT(value, 1);
        core->close(&env, fd);
    }
    TEST("keep-alive: refused, off, on") {
        nkt_fd fd = open_socket(NKT_IPV4, 1);
        fail(AT_SETSOCKOPT, ENOPROTOOPT, 0);
        CHECK_INT(core->set_option(&env, fd, NKT_SO_KEEPALIVE_S, 7), NKT_EUNSUPPORTED);
        CHECK_INT(core->get_option(&env, fd, NKT_SO_KEEPALIVE_S, &value), NKT_OK);
        CHECK_INT(value, 0);
        CHECK_INT(core->set_option(&env, fd, NKT_SO_KEEPALIVE_S, 7), NKT_OK);
        CHECK_INT(core->set_option(&env, fd, NKT_SO_KEEPALIVE_S, 0), NKT_OK);
        fail(AT_GETSOCKOPT, EBADF, 0);
        CHECK_INT(core->get_option(&env, fd, NKT_SO_KEEPALIVE_S, &value), NKT_ENOTSOCK);
        core->close(&env, fd);
    }
}

static void names(void) {
    TEST("a name that the system does not tell") {
        struct sockaddr_in name;
        size_t len = sizeof name;
        nkt_fd fd = open_socket(NKT_IPV4, 1);
        fail(AT_GETSOCKNAME, ENOBUFS, 0);
        CHECK_INT(core->local_name(&env, fd, &name, &len), NKT_ENOMEM);
        CHECK_INT(len, sizeof name);
        core->close(&env, fd);
    }
    TEST("interfaces: a small buffer, one that is not there") {
        char name[IF_NAMESIZE];
        struct if_nameindex *all = if_nameindex();
        if (CHECK(all != NULL && all[0].if_index != 0)) {
            nkt_fd fd = open_socket(NKT_IPV4, 1);
            int len = core->interface_name(&env, all[0].if_index, name, sizeof name);
            CHECK_INT(len, strlen(all[0].if_name));
            CHECK_INT(core->interface_name(&env, all[0].if_index, name, (size_t)len),
                      NKT_ENOSPACE);
            CHECK_INT(core->interface_name(&env, 987654321, name, sizeof name), NKT_ENODEV);
            CHECK_INT(core->bind_interface(&env, fd, "nosuchiface", NKT_IPV4), NKT_ENODEV);
            core->close(&env, fd);
        }
        if (all != NULL) if_freenameindex(all);
    }
}

static void moving(void) {
    TEST("more pieces than one send takes") {
        nkt_str pieces[NKTI_PIECES_MAX + 6];
        char room[100];
        int ends[2];
        for (size_t i = 0; i < NKTI_PIECES_MAX + 6; i++) pieces[i] = nkt_str_of("x");
        CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        CHECK_INT(core->send(&env, ends[0], pieces, NKTI_PIECES_MAX + 6), NKTI_PIECES_MAX);
        CHECK_INT(core->recv(&env, ends[1], room, sizeof room), NKTI_PIECES_MAX);
        CHECK_INT(core->shutdown(&env, ends[0], NKT_READ | NKT_WRITE), NKT_OK);
        CHECK_INT(core->recv(&env, ends[1], room, sizeof room), NKT_EOF);
        core->close(&env, ends[0]);
        core->close(&env, ends[1]);
    }
    TEST("more watches than a wait takes; a signal during one") {
        nkt_watch watches[NKT_WATCH_MAX + 2];
        memset(watches, 0, sizeof watches);
        CHECK_INT(core->wait(&env, watches, NKT_WATCH_MAX + 2, 0), NKT_EINVAL);
        fail(AT_POLL, EINTR, 0);
        CHECK_INT(core->wait(&env, watches, 0, 0), NKT_EINTR);
    }
    TEST("paths: nothing there, and a file of somebody's") {
        char path[] = "/tmp/nkt_sys_XXXXXX";
        int fd = mkstemp(path);
        CHECK(fd >= 0);
        CHECK_INT(core->unlink(&env, path), NKT_EADDRINUSE);
        CHECK_INT(access(path, F_OK), 0);
        close(fd);
        CHECK_INT(unlink(path), 0);
        CHECK_INT(core->unlink(&env, path), NKT_ENOTFOUND);
    }
}

#ifdef __linux__
static void linux_only(void) {
    TEST("no descriptor to be woken by") {
        nkt_wake wake = { NKT_NO_FD, NKT_NO_FD };
        fail(AT_EVENTFD, EMFILE, 0);
        CHECK_INT(core->wake_open(&env, &wake), NKT_EMFILE);
        CHECK_INT(wake.wait_fd, NKT_NO_FD);
    }
    TEST("randomness in pieces, over signals, and none") {
        uint8_t bytes[2][64];
        memset(bytes, 0, sizeof bytes);
        fail(AT_GETRANDOM, EINTR, 2);
        CHECK_INT(nkt_random(&env, bytes[0], sizeof bytes[0]), NKT_OK);
        CHECK_INT(failures[AT_GETRANDOM].err, 0);
        CHECK(memcmp(bytes[0], bytes[1], sizeof bytes[0]) != 0);
        fail(AT_GETRANDOM, ENOSYS, 1);
        CHECK_INT(nkt_random(&env, bytes[1], sizeof bytes[1]), NKT_EOS);
    }
    TEST("unsent bytes that the system does not tell") {
        struct sockaddr_in name = loopback(0);
        nkt_tcp_info info;
        nkt_fd fd = open_socket(NKT_IPV4, 1);
        CHECK_INT(core->bind(&env, fd, &name, sizeof name), NKT_OK);
        fail(AT_IOCTL, EINVAL, 0);
        CHECK_INT(core->tcp_info(&env, fd, &info), NKT_OK);
        CHECK_INT(info.unacked_bytes, -1);
        fail(AT_GETSOCKOPT, EOPNOTSUPP, 0);
        CHECK_INT(core->tcp_info(&env, fd, &info), NKT_EUNSUPPORTED);
        CHECK_INT(info.rtt_us, -1);
        core->close(&env, fd);
    }
    TEST("waiting inside recv: refused, and off again") {
        nkt_fd fd = open_socket(NKT_IPV4, 1);
        fail(AT_SETSOCKOPT, EPERM, 0);
        CHECK_INT(core->set_option(&env, fd, NKT_SO_RECV_WAIT, 1), NKT_EACCES);
        CHECK_INT(core->set_option(&env, fd, NKT_SO_RECV_WAIT, 1), NKT_OK);
        CHECK_INT(core->set_option(&env, fd, NKT_SO_RECV_WAIT, 0), NKT_OK);
        core->close(&env, fd);
    }
}
#endif

// --- Pollers -----------------------------------------------------------------

static int allowed;             // allocations before one fails

static void *scarce(nkt_env *from, void *ptr, size_t old_size, size_t new_size) {
    (void)from;
    (void)old_size;
    if (new_size == 0) {
        free(ptr);
        return NULL;
    }
    return allowed-- > 0 ? realloc(ptr, new_size) : NULL;
}

static void pollers(void) {
    const nkt_sys_poll *portable = nkt_sys_poll_portable();
    nkt_poller *poller = NULL;
    nkt_poller_opts opts;
    void *backend = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    TEST("a poller without a backend is none") {
#if NKTI_EPOLL
        fail(AT_EPOLL, EMFILE, 0);
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_EMFILE);
#endif
        CHECK(poller == NULL);
    }
    TEST("memory that gives out at each step of the portable backend") {
        nkt_poll_watch watch;
        memset(&watch, 0, sizeof watch);
        watch.fd = open_socket(NKT_IPV4, 1);
        env.allocate = scarce;
        for (int i = 0; i < 3; i++) {
            allowed = i;
            int err = portable->open(&env, &backend);
            CHECK_INT(err, i > 0 ? NKT_OK : NKT_ENOMEM);
            if (err < 0) continue;
            CHECK_INT(portable->set(&env, backend, &watch, NKT_READ), NKT_ENOMEM);
            CHECK_INT(watch.events, 0);
            CHECK_INT(portable->set(&env, backend, &watch, 0), NKT_OK);
            portable->close(&env, backend);
        }
        env.allocate = NULL;
        core->close(&env, watch.fd);
    }
    TEST("memory that gives out for the system's backend") {
        env.allocate = scarce;
        allowed = 0;
        CHECK_INT(nkt_sys_poll_default()->open(&env, &backend), NKT_ENOMEM);
        env.allocate = NULL;
    }
    TEST("a registration that is there already, and one that is refused") {
        const nkt_sys_poll *usual = nkt_sys_poll_default();
        nkt_poll_watch watch;
        memset(&watch, 0, sizeof watch);
        watch.fd = open_socket(NKT_IPV4, 1);
        CHECK_INT(usual->open(&env, &backend), NKT_OK);
#if NKTI_EPOLL
        fail(AT_EPOLL_CTL, ENOSPC, 0);
        CHECK_INT(usual->set(&env, backend, &watch, NKT_READ), NKT_EOS);
        CHECK_INT(watch.events, 0);
#endif
        CHECK_INT(usual->set(&env, backend, &watch, NKT_READ), NKT_OK);
        CHECK_INT(usual->set(&env, backend, &watch, NKT_READ), NKT_OK);
        CHECK_INT(watch.events, NKT_READ);
        usual->close_forked(&env, backend);
        core->close(&env, watch.fd);
    }
}

// --- Threads and the resolver ------------------------------------------------

#ifndef NETKIT_NO_THREADS
static void nothing(void *arg) {
    (void)arg;
}

static void threads(void) {
    TEST("a thread that cannot be had") {
        fail(AT_CALLOC, ENOMEM, 0);
        CHECK_INT(nkt_thread_start(&env, nothing, NULL), NKT_ENOMEM);
        fail(AT_THREAD, EAGAIN, 0);
        CHECK_INT(nkt_thread_start(&env, nothing, NULL), NKT_ENOMEM);
        CHECK_INT(nkt_thread_start(&env, NULL, NULL), NKT_EINVAL);
    }
}

static void resolving(void) {
    static const struct { int code, err; } rows[] = {
        { EAI_NONAME, NKT_ENOTFOUND }, { EAI_AGAIN, NKT_ELOOKUP }, { EAI_FAIL, NKT_ELOOKUP },
        { EAI_MEMORY, NKT_ENOMEM },
#ifdef EAI_NODATA
        { EAI_NODATA, NKT_ENOTFOUND },
#endif
#ifdef EAI_ADDRFAMILY
        { EAI_ADDRFAMILY, NKT_ENOTFOUND },
#endif
    };
    nkt_lookup_opts opts;
    nkt_ip ips[4];
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    opts.family = NKT_IPV4;
    opts.timeout_ms = 20000;
    TEST("what the resolver says") {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            answer.code = rows[i].code;
            CHECK_INT(nkt_lookup("example.org", &opts, ips, 4), rows[i].err);
        }
        answer.code = 0;
    }
    TEST("what it gives, and of another family") {
        answer.count = 3;
        answer.freed = 0;
        for (int i = 0; i < 3; i++) answer.addrs[i] = loopback(0);
        answer.addrs[1].sin_family = AF_UNIX;
        answer.addrs[2].sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
        CHECK_INT(nkt_lookup("example.org", &opts, ips, 4), 2);
        CHECK_INT(answer.freed, 1);
        CHECK(ips[0].bytes[0] == 127 && ips[1].bytes[0] == 127);
        CHECK_INT(ips[0].bytes[3] + ips[1].bytes[3], 3);
        answer.count = 2;
        answer.addrs[0].sin_family = AF_UNIX;
        CHECK_INT(nkt_lookup("example.org", &opts, ips, 4), NKT_ENOTFOUND);
        CHECK_INT(answer.freed, 2);
    }
}
#endif

static void services(void) {
    nkt_target target;
    TEST("a service that the system's list has") {
        answer.count = 1;
        answer.code = 0;
        answer.addrs[0] = loopback(4711);
        CHECK_INT(nkt_target_parse("example.org:x-nkt", -1, &target, NULL), NKT_OK);
        CHECK_INT(target.port, 4711);
        answer.code = EAI_SERVICE;
        CHECK_INT(nkt_target_parse("example.org:x-nkt", -1, &target, NULL), NKT_EPORT);
    }
}

int main(void) {
    starting();
    codes();
    opening();
    options();
    names();
    moving();
    pollers();
    services();
#ifdef __linux__
    accepting();
    linux_only();
#endif
#ifndef NETKIT_NO_THREADS
    threads();
    resolving();
#endif
    TEST("every failure was used") {
        for (int i = 0; i < AT_COUNT; i++) CHECK_INT(failures[i].err, 0);
    }
    nkt_env_free(&env);
    return test_finish();
}
