// bench.h - what the benchmark programs share: sockets, clocks, workloads
//
// Each program, one for each library, fills in a table of the same operations
// and includes this; `main` is here. It runs one workload and prints what one
// operation took, in nanoseconds of the wall and of the processor:
//
//     bench_raw lines 64 100      100 batches of lines of 64 bytes, received
//     bench_raw echo 1 2000 poll  2,000 exchanges of 1 byte: block, deadline,
//                                 poll
//     bench_raw oneway 1000       1,000 writes of 64 KiB to another process
//     bench_raw connect 500       connect, accept, close, by number
//     bench_raw connect-name 500  the same, by "localhost"
//     bench_raw room 8000 2000    2,000 exchanges beside 8,000 idle ones
//     bench_raw memory 1000       bytes for each idle connection
//     bench_raw pending 1000      and with one byte of a line pending
//     bench_raw parse 100         100 times 32,768 addresses; and format
//     bench_raw datagrams 100 many     100 times 128 datagrams of 64 bytes:
//                                 one, connected, many, loop (no offload)
//     bench_netkit exchange 100000 bare    datagrams and bytes there and back
//                                 between handles in memory; or wrapped, in an
//                                 impairment that does nothing
//     bench_netkit virtual 1000000    datagrams through a bad network in
//                                 virtual time
//
// Exit code 3 says that the library has no such thing, 4 that the system
// refuses something; the last line then says what. bench.py runs all of it,
// pinned to one core.

#ifndef NKT_BENCH_H
#define NKT_BENCH_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 65536
#define BATCH 131072            // bytes of lines that are sent before they are read
#define ADDRESSES 16384         // of each family: too many to be learnt by heart
#define DATAGRAMS 128           // fewer than a socket holds

enum { ECHO_BLOCK, ECHO_DEADLINE, ECHO_POLL };

typedef struct bench_addr {
    int family;
    uint8_t bytes[16];
    char text[INET6_ADDRSTRLEN];
} bench_addr;

// What a library does. Descriptors are connected and blocking, and its own from
// then on. What it cannot do is NULL.
typedef struct bench_ops {
    void (*lines_open)(int fd);
    size_t (*lines_read)(long count);   // waits for so many; bytes without line ends
    void (*echo_serve)(int fd, size_t size, int mode);              // until the end
    void (*echo_call)(int fd, size_t size, int mode, long count);
    void (*oneway_send)(int fd, const char *block, long count);     // and closes
    uint64_t (*oneway_recv)(int fd);    // until the end
    void (*connect)(long count);
    void (*connect_name)(long count);
    // Many connections on one loop; `lines` asks for lines, else bytes go back.
    void (*room_open)(const int *fds, int count, int lines);
    void (*room_run)(void);             // until one of them ends
    uint32_t (*parse)(const bench_addr *addrs, int count);
    uint32_t (*format)(const bench_addr *addrs, int count);
    // Datagrams of 64 bytes from one socket to another, DATAGRAMS at a time.
    void (*datagrams_open)(const char *how);
    void (*datagrams_run)(long rounds);
    void (*exchange)(long rounds, const char *how);
    void (*virtual_time)(long count);
} bench_ops;

static const bench_ops ops;

static void bench_die(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    exit(4);
}

static void bench_check(int ok, const char *what) {
    if (ok) return;
    printf("%s failed\n", what);
    exit(1);
}

static int64_t bench_wall_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t bench_cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void bench_result(int64_t wall_ns, int64_t cpu_ns, double count) {
    printf("%.3f %.3f\n", (double)wall_ns / count, (double)cpu_ns / count);
}

// --- Sockets -----------------------------------------------------------------

static void bench_set(int fd, int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof value);
}

// A listener on a free port: of 127.0.0.1, or with IPv6 of every address.
static int bench_listen(int family, struct sockaddr_storage *addr, socklen_t *len) {
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(addr, 0, sizeof *addr);
    if (family == AF_INET6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)addr;
        in6->sin6_family = AF_INET6;
        in6->sin6_addr = in6addr_any;
        *len = sizeof *in6;
        bench_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    } else {
        struct sockaddr_in *in = (struct sockaddr_in *)addr;
        in->sin_family = AF_INET;
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        *len = sizeof *in;
    }
    bench_set(fd, SOL_SOCKET, SO_RCVBUF, 4 * BATCH);
    if (fd < 0 || bind(fd, (struct sockaddr *)addr, *len) != 0 || listen(fd, 511) != 0 ||
        getsockname(fd, (struct sockaddr *)addr, len) != 0) bench_die("listen");
    return fd;
}

// Listens on every address, so that "localhost" is found whatever it means.
// Returns the descriptor; the port is for text.
static inline int bench_listen_any(int *port) {
    struct sockaddr_storage addr;
    socklen_t len;
    int fd = bench_listen(AF_INET6, &addr, &len);
    *port = ntohs(((struct sockaddr_in6 *)&addr)->sin6_port);
    return fd;
}

static int bench_connect(const struct sockaddr_storage *addr, socklen_t len) {
    int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bench_set(fd, SOL_SOCKET, SO_SNDBUF, 4 * BATCH);
    if (fd < 0 || connect(fd, (const struct sockaddr *)addr, len) != 0) bench_die("connect");
    bench_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return fd;
}

static int bench_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) bench_die("accept");
    bench_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return fd;
}

static void bench_pair(int ends[2]) {
    struct sockaddr_storage addr;
    socklen_t len;
    int listener = bench_listen(AF_INET, &addr, &len);
    ends[0] = bench_connect(&addr, len);
    ends[1] = bench_accept(listener);
    close(listener);
}

static void bench_raise_descriptors(int wanted) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= (rlim_t)wanted) return;
    limit.rlim_cur = (rlim_t)wanted;
    if (limit.rlim_max < (rlim_t)wanted) limit.rlim_max = (rlim_t)wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        printf("needs %d descriptors: raise the limit with ulimit -Hn\n", wanted);
        exit(4);
    }
}

static void bench_send_all(int fd, const char *data, size_t len) {
    while (len > 0) {
        ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
        if (sent <= 0) bench_die("send");
        data += sent;
        len -= (size_t)sent;
    }
}

static void bench_recv_all(int fd, char *data, size_t len) {
    while (len > 0) {
        ssize_t got = recv(fd, data, len, 0);
        if (got <= 0) bench_die("recv");
        data += got;
        len -= (size_t)got;
    }
}

// --- The other process -------------------------------------------------------

// A child tells its processor time when it ends.
static int bench_tells[2];
static int64_t bench_child_began;

static pid_t bench_fork(void) {
    if (pipe(bench_tells) != 0) bench_die("pipe");
    pid_t child = fork();
    if (child < 0) bench_die("fork");
    if (child == 0) bench_child_began = bench_cpu_ns();
    return child;
}

static void bench_child_ends(void) {
    int64_t cpu = bench_cpu_ns() - bench_child_began;
    ssize_t written = write(bench_tells[1], &cpu, sizeof cpu);
    _exit(written != (ssize_t)sizeof cpu);
}

static int64_t bench_child_cpu(pid_t child) {
    int64_t cpu = 0;
    int status = 0;
    bench_check(read(bench_tells[0], &cpu, sizeof cpu) == (ssize_t)sizeof cpu, "the child");
    waitpid(child, &status, 0);
    bench_check(status == 0, "the child");
    return cpu;
}

// --- The workloads -----------------------------------------------------------

// The receiving side alone: what is timed begins when all has arrived.
static void bench_lines(size_t size, long batches) {
    static char text[BATCH];
    int ends[2], arrived;
    long count = (long)(BATCH / size);
    size_t bytes = (size_t)count * size;
    int64_t wall = 0, cpu = 0;
    memset(text, 'x', sizeof text);
    for (size_t at = size - 1; at < bytes; at += size) text[at] = '\n';
    bench_pair(ends);
    ops.lines_open(ends[1]);
    for (long batch = -1; batch < batches; batch++) {       // the first one warms up
        bench_send_all(ends[0], text, bytes);
        do {
            arrived = 0;
            ioctl(ends[1], FIONREAD, &arrived);
        } while ((size_t)arrived < bytes);
        int64_t begin = bench_wall_ns(), cpu_begin = bench_cpu_ns();
        bench_check(ops.lines_read(count) == bytes - (size_t)count, "reading lines");
        int64_t cpu_end = bench_cpu_ns(), end = bench_wall_ns();
        if (batch < 0) continue;
        wall += end - begin;
        cpu += cpu_end - cpu_begin;
    }
    bench_result(wall, cpu, (double)count * (double)batches);
}

static void bench_echo(size_t size, long count, int mode) {
    int ends[2];
    bench_pair(ends);
    pid_t child = bench_fork();
    if (child == 0) {
        close(ends[0]);
        ops.echo_serve(ends[1], size, mode);
        bench_child_ends();
    }
    close(ends[1]);
    int64_t begin = bench_wall_ns(), cpu = bench_cpu_ns();
    ops.echo_call(ends[0], size, mode, count);
    cpu = bench_cpu_ns() - cpu;
    int64_t wall = bench_wall_ns() - begin;
    close(ends[0]);
    bench_result(wall, cpu + bench_child_cpu(child), (double)count);
}

static void bench_oneway(long count) {
    static char block[BLOCK];
    int ends[2];
    memset(block, 'x', sizeof block);
    bench_pair(ends);
    int64_t begin = bench_wall_ns(), cpu = bench_cpu_ns();
    pid_t child = bench_fork();
    if (child == 0) {
        close(ends[1]);
        ops.oneway_send(ends[0], block, count);
        bench_child_ends();
    }
    close(ends[0]);
    bench_check(ops.oneway_recv(ends[1]) == (uint64_t)count * BLOCK, "receiving all");
    cpu = bench_cpu_ns() - cpu;
    int64_t wall = bench_wall_ns() - begin;
    bench_result(wall, cpu + bench_child_cpu(child), (double)count);
}

static void bench_connects(void (*connect_them)(long), long count) {
    connect_them(count / 10 + 1);
    int64_t begin = bench_wall_ns(), cpu = bench_cpu_ns();
    connect_them(count);
    cpu = bench_cpu_ns() - cpu;
    bench_result(bench_wall_ns() - begin, cpu, (double)count);
}

// Connections whose other ends are a child's. The child is told through `go`
// when to begin.
static int *bench_crowd(int count, pid_t *child, int go[2]) {
    struct sockaddr_storage addr;
    socklen_t len;
    int listener = bench_listen(AF_INET, &addr, &len);
    int *fds = (int *)malloc((size_t)count * sizeof *fds);
    bench_check(fds != NULL, "malloc");
    bench_raise_descriptors(count + 50);
    if (pipe(go) != 0) bench_die("pipe");
    *child = bench_fork();
    for (int i = 0; i < count; i++) {
        fds[i] = *child == 0 ? bench_connect(&addr, len) : bench_accept(listener);
        // One after the other: a listener's queue is not endless.
        char one = 0;
        if (*child == 0) bench_recv_all(fds[i], &one, 1);
        else bench_send_all(fds[i], &one, 1);
    }
    close(listener);
    if (*child == 0) close(go[1]);
    return fds;
}

// In the child: waits for the parent's word, or its end.
static void bench_await(int go[2]) {
    char one;
    if (read(go[0], &one, 1) != 1) _exit(1);
}

static void bench_room(int idle, long count) {
    int go[2];
    pid_t child;
    char one = 0;
    int *fds = bench_crowd(idle + 1, &child, go);
    if (child == 0) {
        bench_await(go);
        bench_child_began = bench_cpu_ns();
        for (long i = 0; i < count; i++) {
            bench_send_all(fds[idle], &one, 1);
            bench_recv_all(fds[idle], &one, 1);
        }
        shutdown(fds[idle], SHUT_WR);
        bench_child_ends();
    }
    ops.room_open(fds, idle + 1, 0);
    int64_t begin = bench_wall_ns(), cpu = bench_cpu_ns();
    bench_check(write(go[1], &one, 1) == 1, "write");
    ops.room_run();
    cpu = bench_cpu_ns() - cpu;
    int64_t wall = bench_wall_ns() - begin;
    bench_result(wall, cpu + bench_child_cpu(child), (double)count);
}

static size_t bench_heap(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

// Bytes of user memory for so many connections. All of them get a byte, if
// `pending`, and a while later the first one its end.
static size_t bench_memory_of(int count, int pending) {
    int go[2];
    pid_t child;
    char one = 'x';
    int *fds = bench_crowd(count, &child, go);
    if (child == 0) {
        bench_await(go);
        for (int i = 1; pending && i < count; i++) bench_send_all(fds[i], &one, 1);
        poll(NULL, 0, 200);         // it is read before there is an end
        shutdown(fds[0], SHUT_WR);
        bench_await(go);
        bench_child_ends();
    }
    size_t before = bench_heap();
    ops.room_open(fds, count, pending);
    bench_check(write(go[1], &one, 1) == 1, "write");
    ops.room_run();
    size_t after = bench_heap();
    bench_check(write(go[1], &one, 1) == 1, "write");
    bench_child_cpu(child);
    return after - before;
}

// The same in a process of its own.
static size_t bench_memory_apart(int count, int pending) {
    int told[2];
    size_t bytes = 0;
    bench_check(pipe(told) == 0, "pipe");
    pid_t child = fork();
    bench_check(child >= 0, "fork");
    if (child == 0) {
        bytes = bench_memory_of(count, pending);
        bench_check(write(told[1], &bytes, sizeof bytes) == sizeof bytes, "write");
        _exit(0);
    }
    bench_check(read(told[0], &bytes, sizeof bytes) == sizeof bytes, "read");
    waitpid(child, NULL, 0);
    close(told[0]);
    close(told[1]);
    return bytes;
}

// What one connection more takes: what all have in common is left out.
static void bench_memory(int count, int pending) {
    int few = count / 8;
    size_t more = bench_memory_apart(count, pending) - bench_memory_apart(few, pending);
    printf("%.1f 0\n", (double)more / (count - few));
}

static void bench_make_addrs(bench_addr *addrs) {
    uint32_t state = 12345;
    for (int i = 0; i < 2 * ADDRESSES; i++) {
        bench_addr *one = &addrs[i];
        one->family = i % 2 == 0 ? AF_INET : AF_INET6;
        for (int k = 0; k < 16; k++) {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            one->bytes[k] = (uint8_t)(state >> 9);
        }
        if (one->family == AF_INET6) {
            // Half of them like hosts' addresses, with zeros in the middle.
            one->bytes[0] = 0x20;
            one->bytes[1] = 0x01;
            if (i % 4 == 1) memset(one->bytes + 6, 0, 6);
        }
        inet_ntop(one->family, one->bytes, one->text, sizeof one->text);
    }
}

static void bench_addresses(uint32_t (*run)(const bench_addr *, int), long rounds) {
    static bench_addr addrs[2 * ADDRESSES];
    volatile uint32_t sink = 0;
    bench_make_addrs(addrs);
    sink += run(addrs, 2 * ADDRESSES);
    int64_t begin = bench_wall_ns(), cpu = bench_cpu_ns();
    for (long i = 0; i < rounds; i++) sink += run(addrs, 2 * ADDRESSES);
    cpu = bench_cpu_ns() - cpu;
    bench_result(bench_wall_ns() - begin, cpu, (double)rounds * 2 * ADDRESSES);
}

static void bench_datagrams(const char *how, long rounds) {
    ops.datagrams_open(how);
    ops.datagrams_run(1);
    int64_t begin = bench_wall_ns(), cpu = bench_cpu_ns();
    ops.datagrams_run(rounds);
    cpu = bench_cpu_ns() - cpu;
    bench_result(bench_wall_ns() - begin, cpu, (double)rounds * DATAGRAMS);
}

// Runs it once to get warm, and once for the result.
static void bench_exchange(long rounds, const char *how) {
    ops.exchange(rounds / 10 + 1, how);
    int64_t begin = bench_wall_ns(), cpu = bench_cpu_ns();
    ops.exchange(rounds, how);
    cpu = bench_cpu_ns() - cpu;
    bench_result(bench_wall_ns() - begin, cpu, (double)rounds);
}

static void bench_virtual(long count) {
    int64_t begin = bench_wall_ns(), cpu = bench_cpu_ns();
    ops.virtual_time(count);
    cpu = bench_cpu_ns() - cpu;
    bench_result(bench_wall_ns() - begin, cpu, (double)count);
}

static void bench_has(int has) {
    if (has) return;
    printf("unsupported\n");
    exit(3);
}

static int bench_mode(const char *word) {
    return strcmp(word, "block") == 0 ? ECHO_BLOCK
           : strcmp(word, "deadline") == 0 ? ECHO_DEADLINE : ECHO_POLL;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    long first = argc > 2 ? atol(argv[2]) : 0, second = argc > 3 ? atol(argv[3]) : 0;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    if (strcmp(what, "lines") == 0) {
        bench_has(ops.lines_read != NULL);
        bench_lines((size_t)first, second);
    } else if (strcmp(what, "echo") == 0) {
        bench_has(ops.echo_call != NULL);
        bench_echo((size_t)first, second, bench_mode(argc > 4 ? argv[4] : ""));
    } else if (strcmp(what, "oneway") == 0) {
        bench_has(ops.oneway_send != NULL);
        bench_oneway(first);
    } else if (strcmp(what, "connect") == 0) {
        bench_has(ops.connect != NULL);
        bench_connects(ops.connect, first);
    } else if (strcmp(what, "connect-name") == 0) {
        bench_has(ops.connect_name != NULL);
        bench_connects(ops.connect_name, first);
    } else if (strcmp(what, "room") == 0) {
        bench_has(ops.room_open != NULL);
        bench_room((int)first, second);
    } else if (strcmp(what, "memory") == 0 || strcmp(what, "pending") == 0) {
        bench_has(ops.room_open != NULL);
        bench_memory((int)first, what[0] == 'p');
    } else if (strcmp(what, "parse") == 0) {
        bench_has(ops.parse != NULL);
        bench_addresses(ops.parse, first);
    } else if (strcmp(what, "format") == 0) {
        bench_has(ops.format != NULL);
        bench_addresses(ops.format, first);
    } else if (strcmp(what, "datagrams") == 0) {
        bench_has(ops.datagrams_open != NULL);
        bench_datagrams(argc > 3 ? argv[3] : "one", first);
    } else if (strcmp(what, "exchange") == 0) {
        bench_has(ops.exchange != NULL);
        bench_exchange(first, argc > 3 ? argv[3] : "bare");
    } else if (strcmp(what, "virtual") == 0) {
        bench_has(ops.virtual_time != NULL);
        bench_virtual(first);
    } else {
        printf("which workload? see bench.h\n");
        return 1;
    }
    return 0;
}

#endif
