// netkit.h - v0.1.0 - networking for people who just want to talk - SPDX-License-Identifier: MIT-0 OR Unlicense
/*
netkit is networking in one file. It connects, listens, reads lines, frames
messages, sends datagrams, joins groups and serves thousands of clients, on IPv6
and IPv4, blocking or never blocking, with time-outs that cover a whole call and
errors that say what happened.

1. DO THIS

   Put netkit.h into your project. In exactly one C or C++ file write, before
   any other #include,

       #define NETKIT_IMPLEMENTATION
       #include "netkit.h"

   and include it plainly everywhere else. Build with

       cc main.c -pthread                              Linux, macOS, the BSDs
       gcc main.c -lws2_32 -liphlpapi                  Windows, mingw
       cl main.c ws2_32.lib iphlpapi.lib               Windows, MSVC

2. EXAMPLE

       #define NETKIT_IMPLEMENTATION
       #include "netkit.h"
       #include <stdio.h>

       int main(void) {
           nkt_connect_report report;
           nkt_connect_opts opts = {0};
           opts.timeout_ms = 5000;
           opts.report = &report;
           nkt_conn *conn;
           if (nkt_connect("localhost:6379", &opts, &conn) < 0) {
               fprintf(stderr, "%s\n", report.text);
               return 1;
           }
           nkt_str line;
           int err = nkt_conn_write_str(conn, "PING\r\n");
           if (err >= 0) err = nkt_conn_read_line(conn, &line);
           if (err < 0) fprintf(stderr, "%s\n", nkt_strerror(err));
           else printf("%.*s\n", (int)line.len, line.ptr);
           nkt_conn_close(conn);
           return err < 0;
       }

3. CONTENTS

   Search for the mark; each is in the declarations and, in the same order,
   in the implementation.

   @config        what the compiler and the build say
   @types         the words every section uses
   @errors        one list of what can go wrong
   @env           the system underneath, and how to replace it
   @ip            IP addresses as values
   @addr          an IP address and a port
   @net           networks, and what an address is for
   @target        "host:port" as people write it
   @poller        waiting for many things at once, without callbacks
   @task          something under way that ends with a result
   @lookup        from a host name to addresses
   @transport     what a connection stands on, open to your own
   @conn          a connected byte stream
   @read          bytes, lines and whatever else comes in
   @write         everything or nothing
   @connect       from "host:port" to a connection
   @message       a length and that many bytes
   @pair          two ends of a connection in memory
   @listen        accepting connections
   @datagram      one datagram, and what a handle of them stands on
   @multicast     groups, on every interface
   @udp           datagrams: unicast, multicast and broadcast
   @packets       two datagram handles in memory
   @impair        a bad network on demand
   @virtual       a clock that jumps
   @layout        sizes and offsets, for bindings

   In the implementation only:

   @sys.config    headers, and what each system has
   @util          memory, text and time, used by everything above
   @sys.core      opening sockets and setting them up, on each system
   @sys.io        moving bytes, waiting, time and randomness
   @sys.poll      many descriptors at once: epoll, kqueue, poll
   @sys.threads   locks, atomics, threads
   @sys.udp       datagrams in and out, on each system
   @sys.net       interfaces, their addresses, and news of them
   @select        which address first

4. CONVENTIONS

   Errors     Functions return zero or more on success and a negative NKT_E...
              code on failure, with the same numbers on every system.
              nkt_strerror() gives the sentence. There is no global error
              state; the system's own code can be read off the handle. Outputs
              are left alone on failure unless the function says otherwise.
   Strings    Inputs are NUL-terminated UTF-8 (`const char *`) or a pointer
              and a length. Outputs are nkt_str: pointer and length, because
              data from the network may contain NUL. Lines, and they alone,
              have a NUL behind them.
   Ownership  open/start/connect/listen/accept give you a handle, close takes
              it back. A view (nkt_str from a read) points into the handle's
              buffer and lives until the next read on that handle. Options
              are copied; what they point to (env, report) must outlive the
              handle where the field says so.
   Blocking   Every declaration says one of:
                "Never blocks."
                "Waits on a blocking handle."  On a nonblocking one the same
                     call returns NKT_EAGAIN instead and loses nothing.
                "May block; twin: X."  X does the same without blocking.
              A handle is blocking or nonblocking for life.
   Threads    A blocking handle may have one reading and one writing thread at
              once. A nonblocking handle belongs to the thread of its poller.
              nkt_conn_interrupt, nkt_listener_interrupt, nkt_udp_interrupt,
              nkt_conn_notify, nkt_udp_notify, nkt_task_cancel and
              nkt_poller_wake may be called from any thread.
   Time       Options are in milliseconds (`_ms`) or seconds (`_s`); instants
              are nanoseconds of a monotonic clock (`_ns`). A time-out covers
              the whole call, not each system call inside it. Waits are rounded
              up, never down.
   Signals    A signal handler that runs during a blocking wait ends it with
              NKT_EINTR; call again to go on, nothing is lost. Stopping and
              continuing the process (Ctrl-Z, fg) can do the same. A poller's
              wait returns 0 then. No SIGPIPE, ever.
   Fork       In a child process only close the parent's handles; that frees
              memory and descriptors and says nothing to the peer. The child
              may open its own.
   Byte order Ports and IPv4 integers are in host order; address bytes are in
              network order, as written. Message lengths are big-endian.

5. COMPILE-TIME OPTIONS

   NETKIT_IMPLEMENTATION  emit the code; define it in exactly one file
   NETKIT_STATIC          make every function static, for one-file programs
   NETKIT_SHARED          export from, or import into, a shared library
   NETKIT_ASSERT(x)       programmer errors; default assert(x)
   NETKIT_NO_THREADS      no locks and no threads: one thread uses the library;
                          names are looked up by blocking calls alone, unless
                          an nkt_env has a resolver of its own
   NETKIT_USE_POLL        poll() behind nkt_poller, not epoll or kqueue
   NETKIT_NO_SIMD         plain C line scanner
   NETKIT_NO_NET          leave out @net: networks and classification
   NETKIT_NO_MESSAGE      leave out @message: length-prefixed messages
   NETKIT_NO_PAIR         leave out @pair: in-memory connections
   NETKIT_NO_UDP          leave out @datagram, @multicast, @udp, @packets
   NETKIT_NO_SIM          leave out @impair, @virtual
   NETKIT_NO_LAYOUT       leave out @layout: struct tables for bindings

6. LIMITS AND NON-GOALS

   At most 16 connection attempts under way in one connect. Lines up to
   65,536 bytes, messages up to 1 MiB and 2 MiB of queued output unless the
   options say otherwise. Host names are ASCII, and 64 addresses of each family
   are kept. Datagrams up to 65,507 bytes (IPv4) and 65,527 (IPv6); a group on
   as many interfaces as the system allows (Linux: 20 pairs of group and
   interface for each handle, net.ipv4.igmp_max_memberships). No HTTP, no TLS,
   no event callbacks: those are built on top, as transports (@transport) and
   loops.

7. PLATFORM TIERS

   1  built and tested: Linux (x86-64, x86, s390x; glibc and static musl),
      Windows (mingw, under Wine)
   2  built, not run here: macOS, FreeBSD, NetBSD, OpenBSD; of their code kqueue
      is tested, on Linux
   3  written, not built here: MSVC
*/

#if defined(NETKIT_IMPLEMENTATION) && !defined(_WIN32)
    #if defined(__linux__) && !defined(_GNU_SOURCE)
        #define _GNU_SOURCE         // accept4, dladdr, struct tcp_info
    #elif defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
        #define _DARWIN_C_SOURCE    // IP_BOUND_IF, TCP_CONNECTION_INFO
    #endif
    #if defined(__APPLE__) && !defined(__APPLE_USE_RFC_3542)
        #define __APPLE_USE_RFC_3542    // IPV6_DONTFRAG, IPV6_RECVPKTINFO
    #endif
#endif

#ifndef NETKIT_H
#define NETKIT_H

//==============================================================================
// MARK: @config - what the compiler and the build say
//
// NKT_API marks every public function. The declarations need three standard
// headers and nothing of the system's, so that netkit.h can stand beside
// windows.h, a game library or anything else.
//==============================================================================

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NKT_VERSION "0.1.0"
#define NKT_VERSION_MAJOR 0
#define NKT_VERSION_MINOR 1
#define NKT_VERSION_PATCH 0

#if defined(NETKIT_STATIC)
    #if defined(__GNUC__)
        #define NKT_API static __attribute__((unused))
    #else
        #define NKT_API static
    #endif
#elif defined(NETKIT_SHARED) && defined(_WIN32)
    #if defined(NETKIT_IMPLEMENTATION)
        #define NKT_API __declspec(dllexport)
    #else
        #define NKT_API __declspec(dllimport)
    #endif
#elif defined(NETKIT_SHARED) && defined(__GNUC__)
    #define NKT_API __attribute__((visibility("default")))
#else
    #define NKT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

//==============================================================================
// MARK: @types - the words every section uses
//
// A descriptor is an intptr_t on every system, so that the declarations, and
// bindings, are the same everywhere: an int on POSIX, a SOCKET on Windows.
// Handles are pointers to structures the library keeps to itself.
//==============================================================================

// A run of bytes that belongs to somebody else. Not NUL-terminated.
typedef struct nkt_str {
    const char *ptr;
    size_t len;
} nkt_str;

typedef intptr_t nkt_fd;
#define NKT_NO_FD ((nkt_fd)-1)

#define NKT_NEVER INT64_MAX         // an instant that does not come

struct nkt_ip;                      // of @ip
typedef struct nkt_env nkt_env;
typedef struct nkt_conn nkt_conn;           // a connected byte stream
typedef struct nkt_listener nkt_listener;   // accepts connections
typedef struct nkt_poller nkt_poller;       // waits for many handles at once
typedef struct nkt_task nkt_task;           // something under way: a timer
typedef struct nkt_udp nkt_udp;             // sends and receives datagrams

// What is waited for, and what happened.
enum {
    NKT_READ = 1,           // reading, accepting or finishing will not wait
    NKT_WRITE = 2,          // a write or flush that said NKT_EAGAIN can go on
    NKT_CONNECTED = 4,      // the connecting has ended, well or badly
    NKT_DONE = 8            // the task has a result
};

// Says what was wrong with an argument or option, and where. Filled only on
// failure, and only where a function takes one; NULL is always allowed.
typedef struct nkt_problem {
    int32_t err;            // the NKT_E... code that was returned
    int32_t os_error;       // errno or WSAGetLastError(); 0 if none
    int32_t offset;         // byte offset in the text that was given; -1 if none
    char field[28];         // "address", "port", "line_max", ...
    char text[216];         // one sentence, NUL-terminated
} nkt_problem;

// A NUL-terminated text as nkt_str; whether two are the same bytes; whether one
// begins with the other. Never blocks.
NKT_API nkt_str nkt_str_of(const char *text);
NKT_API bool nkt_str_equal(nkt_str str, const char *text);
NKT_API bool nkt_str_begins(nkt_str str, const char *text);

// The version of the code, "0.1.0"; NKT_VERSION is that of the declarations.
// Never blocks.
NKT_API const char *nkt_version(void);

//==============================================================================
// MARK: @errors - one list of what can go wrong
//
// Fixed numbers on every system; new ones are appended. Success is zero or
// more. Names follow errno where errno has the idea.
//==============================================================================

#define NKT_ERRORS(X)                                                                    \
    X(OK, 0, "success")                                                                  \
    X(EAGAIN, -1, "it would have to wait; try again when it is ready")                   \
    X(EOF, -2, "end of stream: the peer has finished sending")                           \
    X(EINVAL, -3, "bad argument or option")                                              \
    X(EADDR, -4, "not a valid IP address")                                               \
    X(EPORT, -5, "not a valid port: 0 to 65535")                                         \
    X(ENAME, -6, "not a valid host name")                                                \
    X(EAMBIGUOUS, -7, "an IPv6 address with a port is written [address]:port")           \
    X(ENOMEM, -8, "out of memory")                                                       \
    X(ENOSPACE, -9, "the buffer is too small")                                           \
    X(ETIMEDOUT, -10, "timed out")                                                       \
    X(ECANCELED, -11, "interrupted or canceled, for good")                               \
    X(EINTR, -12, "a signal came; call again to go on")                                  \
    X(ETOOLONG, -13, "longer than the limit allows")                                     \
    X(ETRUNCATED, -14, "cut off: it ended in the middle, or did not fit")                \
    X(EPROTO, -15, "bad data or behaviour from the peer")                                \
    X(EREFUSED, -16, "connection refused: nothing listens there")                        \
    X(ERESET, -17, "connection reset by the peer")                                       \
    X(EPIPE, -18, "closed for writing")                                                  \
    X(EABORTED, -19, "connection aborted")                                               \
    X(ENETUNREACH, -20, "network unreachable: no route")                                 \
    X(EHOSTUNREACH, -21, "host unreachable")                                             \
    X(EADDRINUSE, -22, "address already in use")                                         \
    X(EADDRNOTAVAIL, -23, "not an address of this host")                                 \
    X(ENOTCONN, -24, "not connected")                                                    \
    X(EMFILE, -25, "no more descriptors; see ulimit -n")                                 \
    X(EACCES, -26, "permission denied")                                                  \
    X(EUNSUPPORTED, -27, "not supported here")                                           \
    X(EBUSY, -28, "in use, or still under way")                                          \
    X(ENOTFOUND, -29, "no such host name, path or entry")                                \
    X(ELOOKUP, -30, "the look-up failed for now")                                        \
    X(ENODEV, -31, "no such network interface")                                          \
    X(EMSGSIZE, -32, "larger than the network takes")                                    \
    X(ENOTSOCK, -33, "not a socket of that kind")                                        \
    X(EFORKED, -34, "it belongs to the parent process")                                  \
    X(ENETDOWN, -35, "the network is down")                                              \
    X(EOS, -36, "a system error; see its own code")                                      \
    X(EGROUP, -37, "not a multicast group")                                              \
    X(EFAMILY, -38, "an address of the wrong family")                                    \
    X(EVIRTUAL, -39, "no sockets in virtual time")                                       \
    X(EDEADLK, -40, "all wait for ever")

enum {
#define NKT_X(name, number, text) NKT_##name = number,
    NKT_ERRORS(NKT_X)
#undef NKT_X
    NKT_ERROR_LAST = -40
};

// The sentence for an error, such as "connection refused: nothing listens
// there"; for numbers that are none, "unknown error". Static.
// Never blocks.
NKT_API const char *nkt_strerror(int err);

// The name of an error, such as "NKT_EREFUSED"; "NKT_UNKNOWN" for others.
// Static. Never blocks.
NKT_API const char *nkt_errname(int err);

//==============================================================================
// MARK: @env - the system underneath, and how to replace it
//
// Every handle stands on an nkt_env: tables of functions for the system, the
// allocator and a trace hook. NULL in options means the default one. A table
// or one entry of it can be replaced, which is how tests inject failures and
// how a simulated network is put under unchanged programs:
//
//     nkt_sys_core core = *nkt_sys_core_default();
//     core.recv = my_recv;                     // one entry
//     nkt_env env;
//     nkt_env_init(&env);
//     env.core = &core;                        // a whole table
//     opts.env = &env;
//
// Entries return NKT_ codes, never errno; the system's own code of a failure
// is asked for with last_error, on the same thread, before anything else.
// None of them waits, but `wait` and `recv_wait`, and poll.wait.
//==============================================================================

#define NKT_NO_TIMEOUT ((int64_t)-1)

// A descriptor and what is waited for on it; `ready` is filled by wait.
typedef struct nkt_watch {
    nkt_fd fd;
    uint32_t events;        // NKT_READ, NKT_WRITE
    uint32_t ready;
} nkt_watch;

// A descriptor (two where one will not do) that ends a wait from elsewhere.
typedef struct nkt_wake {
    nkt_fd wait_fd;
    nkt_fd post_fd;
} nkt_wake;

// Socket options by meaning, for set_option and get_option.
enum {
    NKT_SO_REUSE_ADDRESS = 1,   // rebind after a restart; each system's safe way
    NKT_SO_REUSE_PORT,          // several processes on one port
    NKT_SO_V6ONLY,
    NKT_SO_NODELAY,
    NKT_SO_KEEPALIVE_S,         // 0 = off
    NKT_SO_SEND_BUFFER,
    NKT_SO_RECV_BUFFER,
    NKT_SO_ABORT_ON_CLOSE,      // close sends a reset
    NKT_SO_RECV_WAIT,           // make recv_wait usable: a blocking descriptor
    NKT_SO_PREPARE,             // set only: close-on-exec, no SIGPIPE
    NKT_SO_TYPE,                // get only: 1 stream, 2 datagram
    NKT_SO_ERROR,               // get only: the pending error, an NKT_ code
    NKT_SO_LISTENING,           // get only
    NKT_SO_FAMILY               // get only: NKT_IPV4, NKT_IPV6, NKT_UNIX or 0
};

// What the system knows of a TCP connection; -1 where it does not say.
typedef struct nkt_tcp_info {
    int64_t rtt_us;             // smoothed round-trip time
    int64_t rtt_var_us;
    int64_t retransmits;        // segments sent again, in all
    int64_t unacked_bytes;      // sent and not acknowledged
    int64_t path_mtu;
} nkt_tcp_info;

typedef struct nkt_sys_core {
    size_t size;                                    // sizeof(nkt_sys_core)
    int32_t (*last_error)(nkt_env *env);
    // Opens a nonblocking, close-on-exec socket that raises no SIGPIPE.
    int (*open)(nkt_env *env, int family, int type, nkt_fd *fd);
    int (*close)(nkt_env *env, nkt_fd fd);
    int (*bind)(nkt_env *env, nkt_fd fd, const void *addr, size_t len);
    int (*listen)(nkt_env *env, nkt_fd fd, int backlog);
    int (*accept)(nkt_env *env, nkt_fd fd, nkt_fd *out, void *addr, size_t *len);
    int (*connect)(nkt_env *env, nkt_fd fd, const void *addr, size_t len);
    // NKT_OK once connected, NKT_EAGAIN while under way, else why it failed.
    int (*connect_result)(nkt_env *env, nkt_fd fd);
    // Bytes, NKT_EOF, NKT_EAGAIN or an error. Never waits.
    ptrdiff_t (*recv)(nkt_env *env, nkt_fd fd, void *buf, size_t cap);
    // As recv, but waits for the first byte, until another thread's shutdown of
    // NKT_READ. NULL where there is no such thing.
    ptrdiff_t (*recv_wait)(nkt_env *env, nkt_fd fd, void *buf, size_t cap);
    ptrdiff_t (*send)(nkt_env *env, nkt_fd fd, const nkt_str *pieces, size_t count);
    int (*shutdown)(nkt_env *env, nkt_fd fd, uint32_t directions);  // NKT_READ | NKT_WRITE
    int (*set_option)(nkt_env *env, nkt_fd fd, int option, int64_t value);
    int (*get_option)(nkt_env *env, nkt_fd fd, int option, int64_t *value);
    int (*bind_interface)(nkt_env *env, nkt_fd fd, const char *name, int family);
    int (*local_name)(nkt_env *env, nkt_fd fd, void *addr, size_t *len);
    int (*peer_name)(nkt_env *env, nkt_fd fd, void *addr, size_t *len);
    int (*tcp_info)(nkt_env *env, nkt_fd fd, nkt_tcp_info *info);
    int (*set_blocking)(nkt_env *env, nkt_fd fd, bool blocking);
    int (*unlink)(nkt_env *env, const char *path);
    int (*interface_index)(nkt_env *env, const char *name, uint32_t *index);
    int (*interface_name)(nkt_env *env, uint32_t index, char *buf, size_t cap);
    // The one place that waits: until a watch is ready (returns how many, and
    // fills `ready`), the time is over (0), or NKT_EINTR. -1 = no time-out.
    int (*wait)(nkt_env *env, nkt_watch *watches, size_t count, int64_t timeout_ns);
    int (*wake_open)(nkt_env *env, nkt_wake *wake);
    void (*wake_close)(nkt_env *env, nkt_wake *wake);
    void (*wake_post)(nkt_env *env, const nkt_wake *wake);
    void (*wake_drain)(nkt_env *env, const nkt_wake *wake);
    int64_t (*now_ns)(nkt_env *env);
    int (*random)(nkt_env *env, void *buf, size_t len);
    int64_t (*process_id)(nkt_env *env);
    // The TCP port of a service's name, from the system's list.
    int (*service_port)(nkt_env *env, const char *name, uint16_t *port);
} nkt_sys_core;

// What became ready in a backend: the cookie it was set with.
typedef struct nkt_poll_event {
    void *cookie;
    uint32_t events;
} nkt_poll_event;

// A registration: owned by the caller, address stable while it is set.
typedef struct nkt_poll_watch {
    nkt_fd fd;
    void *cookie;
    uint32_t events;        // what the backend has; 0 = not registered
    uint32_t slot;          // the backend's own
} nkt_poll_watch;

typedef struct nkt_sys_poll {
    size_t size;                                    // sizeof(nkt_sys_poll)
    int (*open)(nkt_env *env, void **backend);
    void (*close)(nkt_env *env, void *backend);
    // Makes the registration be `events`; 0 takes it away.
    int (*set)(nkt_env *env, void *backend, nkt_poll_watch *watch, uint32_t events);
    // Waits; how many events were put into `out`, or NKT_EINTR and others.
    int (*wait)(nkt_env *env, void *backend, nkt_poll_event *out, int cap, int64_t timeout_ns);
    // One descriptor that is readable while anything is ready, or NKT_NO_FD.
    nkt_fd (*fd)(nkt_env *env, void *backend);
    // Closes the descriptors and frees the memory in a forked child.
    void (*close_forked)(nkt_env *env, void *backend);
} nkt_sys_poll;

struct nkt_addr;                    // of @addr
struct nkt_datagram;                // of @udp
struct nkt_sys_iface;               // of @udp

// What @udp asks of datagram sockets. `family` is that of the socket, 0 for an
// IPv6 one that takes IPv4 too; options are of nkt_udp_option.
typedef struct nkt_sys_udp {
    size_t size;                                    // sizeof(nkt_sys_udp)
    int (*set_option)(nkt_env *env, nkt_fd fd, int family, int option, int64_t value);
    int (*get_option)(nkt_env *env, nkt_fd fd, int family, int option, int64_t *value);
    // Up to `count` datagrams into the list's buffers: how many, NKT_EAGAIN or
    // an error. With `facts`, where, how and through what each came too. What
    // comes in after a connect is from the peer alone.
    int (*recv)(nkt_env *env, nkt_fd fd, int family, struct nkt_datagram *list, int count,
                bool facts);
    // How many were taken, NKT_EAGAIN, or why not the first. `*segments` allows
    // segmentation offload, and becomes false where the system refuses it.
    int (*send)(nkt_env *env, nkt_fd fd, int family, const struct nkt_datagram *list, int count,
                bool *segments);
    // The next ICMP error of an unconnected socket and whom the datagram was
    // for, or NKT_EAGAIN.
    int (*next_error)(nkt_env *env, nkt_fd fd, struct nkt_addr *to);
    // Joins or leaves a group, on the interface with this index; `local` is an
    // IPv4 address of it; no `source` is any.
    int (*member)(nkt_env *env, nkt_fd fd, const struct nkt_ip *group,
                  const struct nkt_ip *source, uint32_t index, const struct nkt_ip *local,
                  bool join);
} nkt_sys_udp;

// What multicast and broadcast must know of the interfaces.
typedef struct nkt_sys_net {
    size_t size;                                    // sizeof(nkt_sys_net)
    // Fills up to `cap` rows; returns how many there are.
    int (*list)(nkt_env *env, struct nkt_sys_iface *rows, int cap);
    // A descriptor that is readable when something has changed, or
    // NKT_EUNSUPPORTED.
    int (*watch_open)(nkt_env *env, nkt_fd *fd);
    void (*watch_close)(nkt_env *env, nkt_fd fd);
    // Whether something has changed since the last call.
    bool (*watch_drain)(nkt_env *env, nkt_fd fd);
} nkt_sys_net;

typedef struct nkt_sys_threads {
    size_t size;                                    // sizeof(nkt_sys_threads)
    // Starts a detached thread.
    int (*start)(nkt_env *env, void (*run)(void *arg), void *arg);
} nkt_sys_threads;

// What the trace hook is told. Texts are static.
typedef struct nkt_trace {
    int64_t now_ns;
    const void *handle;         // nkt_conn, nkt_listener, nkt_udp, nkt_task, nkt_poller
    const char *kind;           // "conn", "listener", "udp", "task", "poller"
    const char *state;          // "attempt", "connected", "eof", "closed", ...
    int32_t err;                // NKT_OK or why
    int32_t os_error;
    int64_t detail;             // bytes, a descriptor or a number; see the state
} nkt_trace;

struct nkt_env {
    size_t size;                                    // set by nkt_env_init
    const nkt_sys_core *core;                       // NULL = the system's
    const nkt_sys_poll *poll;
    const nkt_sys_threads *threads;
    const nkt_sys_udp *udp;
    const nkt_sys_net *net;
    // Memory: as realloc; size 0 frees and returns NULL. NULL = the C
    // library's. Where handles are impaired, netkit's own thread calls it too.
    void *(*allocate)(nkt_env *env, void *ptr, size_t old_size, size_t new_size);
    // Looks a host name up, for one family: how many addresses, NKT_ENOTFOUND
    // or NKT_ELOOKUP. May block: it runs on a worker thread, several at once,
    // and may still run when the look-up has been given up, so the env must
    // outlive it. (With NETKIT_NO_THREADS it runs on the calling thread and
    // must not block.) NULL = the system's resolver.
    int (*resolve)(nkt_env *env, const char *host, int family, struct nkt_ip *ips, int cap);
    // Sees every change of state; called on the thread that causes it, and must
    // not call back into the handle. NULL = off, which costs one comparison.
    void (*trace)(nkt_env *env, const nkt_trace *what);
    void *user;                                     // yours
    void *state;                                    // netkit's own
};

// The system's own tables, to copy and change. Static. Never blocks.
NKT_API const nkt_sys_core *nkt_sys_core_default(void);
NKT_API const nkt_sys_poll *nkt_sys_poll_default(void);
// The poll() backend (WSAPoll on Windows), present on every system.
// Never blocks.
NKT_API const nkt_sys_poll *nkt_sys_poll_portable(void);
NKT_API const nkt_sys_threads *nkt_sys_threads_default(void);

// Makes `env` an environment of its own with the system's tables. It must
// outlive every handle opened with it. Never blocks.
// Returns NKT_OK, or NKT_EOS where the system's networking cannot be started.
NKT_API int nkt_env_init(nkt_env *env);

// Gives back what netkit keeps for `env`. Close its handles first. What
// impaired ones have still under way is dropped, and netkit's own thread for
// that gets the moment it needs to end. Never blocks but for that.
NKT_API void nkt_env_free(nkt_env *env);

// Replaces the environment that NULL stands for, by a copy of `env`. Once,
// before the first handle is opened: after that the default is frozen.
// Never blocks. Returns NKT_OK or NKT_EBUSY.
NKT_API int nkt_env_set_default(const nkt_env *env);

// The instant, in nanoseconds of a clock that only goes forward.
// Any thread. Never blocks.
NKT_API int64_t nkt_now_ns(nkt_env *env);

// Fills `buf` with `len` bytes of the system's cryptographic randomness.
// Any thread. Never blocks. Returns NKT_OK or NKT_EOS.
NKT_API int nkt_random(nkt_env *env, void *buf, size_t len);

// Starts a detached thread that calls run(arg).
// Any thread. Never blocks. Returns NKT_OK, NKT_ENOMEM, or NKT_EUNSUPPORTED
// with NETKIT_NO_THREADS.
NKT_API int nkt_thread_start(nkt_env *env, void (*run)(void *arg), void *arg);

//==============================================================================
// MARK: @ip - IP addresses as values
//
// An nkt_ip is compared, copied and hashed like a number. All zero is "no
// address", which is neither 0.0.0.0 nor ::. IPv4 uses the first four bytes.
// Parsing is strict (RFC 4291 section 2.2, RFC 6943 section 3.1.1): four
// decimal fields without leading zeros, or up to eight groups of one to four
// hex digits with at most one "::". What other parsers take beyond that
// ("127.1", "0x7f.1", "010.0.0.1") is refused, because they do not agree on
// what it means. Text goes out as RFC 5952 says.
//
// An IPv6 address may carry a scope (zone), RFC 4007: "fe80::1%eth0" or
// "fe80::1%2". It is part of equality, order and hash. IPv4-mapped addresses
// (::ffff:a.b.c.d) stay IPv6 until nkt_ip_unmap is asked.
//==============================================================================

enum { NKT_IPV4 = 4, NKT_IPV6 = 6, NKT_UNIX = 1 };

typedef struct nkt_ip {
    uint8_t bytes[16];      // as on the wire; IPv4 in the first four, the rest 0
    uint32_t scope;         // IPv6 zone index, 0 = none
    uint8_t family;         // 0 = no address, NKT_IPV4, NKT_IPV6
    uint8_t reserved[3];    // 0
} nkt_ip;

#define NKT_IP_TEXT_MAX 80  // enough for any formatted nkt_ip, NUL included

// Reads an address: "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "fe80::1%2".
//
// Refuses leading zeros, missing or extra fields, blanks, brackets, a prefix
// length, and any text before or after. A scope is a decimal number from 1 to
// 4294967295 without leading zeros, or the name of an interface of this host;
// it stands on IPv6 addresses that are not IPv4-mapped.
//
// Never blocks (an interface name is looked up in the kernel). Any thread.
// Returns NKT_OK, NKT_EADDR for bad text, NKT_ENODEV for an unknown interface.
NKT_API int nkt_ip_parse(const char *text, nkt_ip *ip);

// As nkt_ip_parse, for `len` bytes (NUL among them is refused), and says what
// is wrong where. Never blocks.
NKT_API int nkt_ip_parse_n(const char *text, size_t len, nkt_ip *ip, nkt_problem *problem);

// Writes the address as RFC 5952 text with a numeric scope: "fe80::1%2", and
// IPv4-mapped addresses as "::ffff:192.0.2.1" (section 5); "" for no address.
//
// Never blocks. Returns the length without NUL, or NKT_ENOSPACE; a capacity
// of NKT_IP_TEXT_MAX always suffices.
NKT_API int nkt_ip_format(const nkt_ip *ip, char *buf, size_t cap);

// As nkt_ip_format, with the interface's name as scope where it has one.
// Never blocks. Returns as nkt_ip_format.
NKT_API int nkt_ip_format_named(const nkt_ip *ip, char *buf, size_t cap);

// -1, 0 or 1: no address, then IPv4, then IPv6, each by bytes, then by scope.
// Never blocks.
NKT_API int nkt_ip_compare(const nkt_ip *a, const nkt_ip *b);
// Never blocks.
NKT_API bool nkt_ip_equal(const nkt_ip *a, const nkt_ip *b);
// Equal addresses have equal hashes, the same on every machine. Not for keys
// that an attacker chooses. Never blocks.
NKT_API uint64_t nkt_ip_hash(const nkt_ip *ip);

// IPv4 to and from an integer in host order: 127.0.0.1 is 0x7f000001.
// nkt_ip_to_u32 returns NKT_EINVAL for what is not IPv4. Never blocks.
NKT_API nkt_ip nkt_ip_from_u32(uint32_t value);
NKT_API int nkt_ip_to_u32(const nkt_ip *ip, uint32_t *value);

// From 4 or 16 bytes in network order; other lengths give no address.
// Never blocks.
NKT_API nkt_ip nkt_ip_from_bytes(const void *bytes, size_t len);

// ::ffff:a.b.c.d becomes a.b.c.d, anything else is returned as it is; and
// the other way round. Never blocks.
NKT_API nkt_ip nkt_ip_unmap(const nkt_ip *ip);
NKT_API nkt_ip nkt_ip_map(const nkt_ip *ip);

// 127.0.0.1, ::1, 0.0.0.0 and ::, by family. Never blocks.
NKT_API nkt_ip nkt_ip_loopback(int family);
NKT_API nkt_ip nkt_ip_any(int family);

//==============================================================================
// MARK: @addr - an IP address and a port
//
// What a socket is bound or connected to. Also the border to the system's
// struct sockaddr, passed as pointer and length so that no system header is
// needed here.
//==============================================================================

typedef struct nkt_addr {
    nkt_ip ip;
    uint16_t port;          // host order
    uint16_t reserved;      // 0
    uint32_t flow_label;    // IPv6, 20 bits, host order; RFC 6437
} nkt_addr;

#define NKT_ADDR_TEXT_MAX 96        // any formatted nkt_addr, NUL included
#define NKT_SOCKADDR_MAX 128        // any struct sockaddr netkit makes

// Reads "192.0.2.1:80" or "[2001:db8::1%eth0]:80": a numeric address and a
// port, nothing else. An IPv6 address needs brackets, an IPv4 address has none.
// The port is 0 to 65535, decimal, without leading zeros.
//
// Never blocks. Returns NKT_OK, NKT_EADDR, NKT_EPORT, NKT_EAMBIGUOUS (IPv6
// without brackets) or NKT_ENODEV.
NKT_API int nkt_addr_parse(const char *text, nkt_addr *addr);
// As nkt_addr_parse, for `len` bytes, and says what is wrong where.
// Never blocks.
NKT_API int nkt_addr_parse_n(const char *text, size_t len, nkt_addr *addr, nkt_problem *problem);

// Writes "192.0.2.1:80" or "[2001:db8::1]:80"; "" for no address.
// Never blocks. Returns the length without NUL, or NKT_ENOSPACE.
NKT_API int nkt_addr_format(const nkt_addr *addr, char *buf, size_t cap);

// By address, then port, then flow label. Never blocks.
NKT_API int nkt_addr_compare(const nkt_addr *a, const nkt_addr *b);
// Never blocks.
NKT_API bool nkt_addr_equal(const nkt_addr *a, const nkt_addr *b);
// Never blocks.
NKT_API uint64_t nkt_addr_hash(const nkt_addr *addr);
// Never blocks.
NKT_API nkt_addr nkt_addr_make(const nkt_ip *ip, uint16_t port);

// Fills a struct sockaddr_in or sockaddr_in6 of this system.
// Never blocks. Returns its size, NKT_ENOSPACE, or NKT_EINVAL for no address.
NKT_API int nkt_addr_to_sockaddr(const nkt_addr *addr, void *sockaddr, size_t cap);

// Reads one. IPv4-mapped addresses stay as they are; see nkt_ip_unmap.
// Never blocks. Returns NKT_OK, or NKT_EADDR for other families and short ones.
NKT_API int nkt_addr_from_sockaddr(const void *sockaddr, size_t len, nkt_addr *addr);

#ifndef NETKIT_NO_NET
//==============================================================================
// MARK: @net - networks, and what an address is for
//
// A network is an address and a prefix length, RFC 4632 and RFC 4291 section
// 2.3, always kept with its host bits zero. The kinds come from IANA's
// registries of special-purpose addresses (RFC 6890, RFC 8190).
//==============================================================================

typedef struct nkt_net {
    nkt_ip ip;              // host bits are 0
    uint8_t bits;           // prefix length
    uint8_t reserved[7];    // 0
} nkt_net;

#define NKT_NET_TEXT_MAX 84

typedef enum nkt_ip_kind {
    NKT_KIND_NONE = 0,              // no address
    NKT_KIND_UNSPECIFIED,           // 0.0.0.0, ::
    NKT_KIND_LOOPBACK,              // 127.0.0.0/8, ::1
    NKT_KIND_PRIVATE,               // RFC 1918
    NKT_KIND_SHARED,                // 100.64.0.0/10, RFC 6598 (carrier NAT)
    NKT_KIND_LINK_LOCAL,            // 169.254.0.0/16, fe80::/10
    NKT_KIND_UNIQUE_LOCAL,          // fc00::/7, RFC 4193
    NKT_KIND_SITE_LOCAL,            // fec0::/10, deprecated by RFC 3879
    NKT_KIND_DOCUMENTATION,         // RFC 5737, RFC 3849, RFC 9637
    NKT_KIND_BENCHMARKING,          // 198.18.0.0/15, 2001:2::/48
    NKT_KIND_MULTICAST,             // 224.0.0.0/4, ff00::/8
    NKT_KIND_BROADCAST,             // 255.255.255.255
    NKT_KIND_V4_MAPPED,             // ::ffff:0:0/96
    NKT_KIND_NAT64,                 // 64:ff9b::/96, 64:ff9b:1::/48
    NKT_KIND_6TO4,                  // 2002::/16, RFC 3056
    NKT_KIND_TEREDO,                // 2001::/32, RFC 4380
    NKT_KIND_DISCARD,               // 100::/64, 100:0:0:1::/64
    NKT_KIND_RESERVED,              // other special-purpose space, not for general use
    NKT_KIND_GLOBAL
} nkt_ip_kind;

// Reads "10.0.0.0/8" or "2001:db8::/32". Host bits are cleared:
// "10.1.2.3/8" is 10.0.0.0/8. The length is decimal without leading zeros; a
// scope, a netmask instead of a length, and a missing length are refused.
// Never blocks. Returns NKT_OK or NKT_EADDR.
NKT_API int nkt_net_parse(const char *text, nkt_net *net);
// As nkt_net_parse, for `len` bytes, and says what is wrong where.
// Never blocks.
NKT_API int nkt_net_parse_n(const char *text, size_t len, nkt_net *net, nkt_problem *problem);
// Never blocks. Returns the length without NUL, or NKT_ENOSPACE.
NKT_API int nkt_net_format(const nkt_net *net, char *buf, size_t cap);
// A scope is dropped. Never blocks.
// Returns NKT_OK, or NKT_EINVAL for too many bits or no address.
NKT_API int nkt_net_make(const nkt_ip *ip, int bits, nkt_net *net);
// Whether an address lies in a network. Families never mix; an IPv4-mapped
// address lies in IPv6 networks only. A scope is not looked at. Never blocks.
NKT_API bool nkt_net_contains(const nkt_net *net, const nkt_ip *ip);
// Never blocks.
NKT_API bool nkt_net_overlaps(const nkt_net *a, const nkt_net *b);
// By address, then prefix length, shorter first. Never blocks.
NKT_API int nkt_net_compare(const nkt_net *a, const nkt_net *b);
// Never blocks.
NKT_API bool nkt_net_equal(const nkt_net *a, const nkt_net *b);
// Never blocks.
NKT_API uint64_t nkt_net_hash(const nkt_net *net);
// The lowest and highest address of the network. Never blocks.
NKT_API nkt_ip nkt_net_first(const nkt_net *net);
NKT_API nkt_ip nkt_net_last(const nkt_net *net);
// The directed broadcast address of an IPv4 network of up to 30 bits; no
// address for /31, /32 (RFC 3021) and IPv6. Never blocks.
NKT_API nkt_ip nkt_net_broadcast(const nkt_net *net);
// The netmask of a prefix length, 255.255.255.0 for 24, as an address; and
// the prefix length of a netmask, NKT_EADDR where its ones are not contiguous.
// Never blocks.
NKT_API nkt_ip nkt_net_mask(int family, int bits);
NKT_API int nkt_net_mask_bits(const nkt_ip *mask);

// What the address is for. IPv4-mapped, NAT64, 6to4 and Teredo addresses are
// called that, whatever they carry; see nkt_ip_embedded. Never blocks.
NKT_API nkt_ip_kind nkt_ip_classify(const nkt_ip *ip);
// "loopback", "private", ... Static. Never blocks.
NKT_API const char *nkt_ip_kind_name(nkt_ip_kind kind);
// Whether IANA's registries say the address is reachable from anywhere. An
// IPv4-mapped address is not; 6to4 and Teredo are as the IPv4 address inside.
// Multicast is not, nor what no registry has given out (IPv6 outside 2000::/3).
// Never blocks.
NKT_API bool nkt_ip_is_global(const nkt_ip *ip);
// The IPv4 address inside an IPv4-mapped, IPv4-compatible (::a.b.c.d, RFC 4291
// 2.5.5.1), 6to4, Teredo (the client's) or NAT64 (64:ff9b::/96) address; else
// no address. Filters look at both. Never blocks.
NKT_API nkt_ip nkt_ip_embedded(const nkt_ip *ip);
// The scope of an IPv6 multicast address, RFC 4291 section 2.7 and RFC 7346:
// 1 interface-local, 2 link-local, 3 realm-local, 4 admin-local, 5 site-local,
// 8 organization-local, 14 global. IPv4: 2 for 224.0.0.0/24, 4 for
// 239.255.0.0/16, 8 for 239.192.0.0/14 (RFC 2365), 14 otherwise. 0 if not
// multicast. Never blocks.
NKT_API int nkt_ip_multicast_scope(const nkt_ip *ip);
#endif

//==============================================================================
// MARK: @target - "host:port" as people write it
//
// A target is where to connect or listen: a numeric address, a host name, or
// the path of a Unix-domain socket, with a port.
//
//     text                     host        port     is
//     "192.0.2.1:80"           192.0.2.1   80       an address
//     "[2001:db8::1]:80"       2001:db8::1 80       an address
//     "[2001:db8::1]"          2001:db8::1 default  an address
//     "2001:db8::1"            2001:db8::1 default  an address
//     "2001:db8::1:80"         NKT_EAMBIGUOUS: port 80, or a longer address?
//     "example.org:80"         example.org 80       a name
//     "example.org:http"       example.org 80       a name
//     "example.org"            example.org default  a name
//     ":80"                    (none)      80       every address of this host
//     "unix:/run/x.sock"       /run/x.sock          a path
//     "unix:@name"             a name in Linux's abstract space
//
// Host names: letters, digits, hyphens and underscores in labels of 1 to 63
// bytes that neither begin nor end with a hyphen, 253 bytes in all, one dot
// allowed at the end (RFC 1123 section 2.1; underscores as RFC 2181 section
// 11 allows and people use). A name whose last label is a number is refused:
// it is a mistyped address. Other than ASCII is NKT_EUNSUPPORTED.
//==============================================================================

#define NKT_HOST_MAX 253
#define NKT_UNIX_PATH_MAX 107

typedef enum nkt_target_kind {
    NKT_TARGET_ANY = 1,     // ":80"
    NKT_TARGET_ADDR,        // ip is set
    NKT_TARGET_NAME,        // host is set
    NKT_TARGET_UNIX         // host is the path; "@name" is abstract
} nkt_target_kind;

typedef struct nkt_target {
    nkt_target_kind kind;
    uint16_t port;
    uint16_t host_len;
    nkt_ip ip;
    char host[256];         // NUL-terminated; as written, for names and paths
} nkt_target;

// Reads a target. A service's name that is not among the common ones is looked
// for in the system's list of services. `default_port` is taken where the text
// has none; -1 means that a port must be given, and outside of -1 to 65535 it
// is NKT_EPORT.
//
// Never blocks. Returns NKT_OK, NKT_EADDR, NKT_EPORT (also a missing one),
// NKT_ENAME, NKT_EAMBIGUOUS, NKT_EUNSUPPORTED (not ASCII), NKT_ETOOLONG (a
// path), NKT_ENODEV (a scope).
NKT_API int nkt_target_parse(const char *text, int32_t default_port, nkt_target *target,
                             nkt_problem *problem);
// As nkt_target_parse, for `len` bytes. Never blocks.
NKT_API int nkt_target_parse_n(const char *text, size_t len, int32_t default_port,
                               nkt_target *target, nkt_problem *problem);
// Writes the target so that it can be read again. Never blocks.
// Returns the length without NUL, or NKT_ENOSPACE.
NKT_API int nkt_target_format(const nkt_target *target, char *buf, size_t cap);

// Checks a host name's syntax and lengths. Never blocks.
// Returns NKT_OK, NKT_ENAME, NKT_EUNSUPPORTED where it is not ASCII, or
// NKT_EADDR where its last label is a number: a mistyped address.
NKT_API int nkt_host_check(const char *name, size_t len, nkt_problem *problem);
// Whether a name is "localhost" or ends in ".localhost", RFC 6761 section 6.3.
// Never blocks.
NKT_API bool nkt_host_is_local(const char *name, size_t len);

//==============================================================================
// MARK: @poller - waiting for many things at once, without callbacks
//
//     while (nkt_poller_wait(poller, -1) >= 0) {
//         nkt_event event;
//         while (nkt_poller_next(poller, &event) == NKT_OK) ...
//     }
//
// A handle that has NKT_READ keeps it until one of its calls has returned
// NKT_EAGAIN: leave bytes unread, and the next wait reports it again at once.
// So read until NKT_EAGAIN, or take one line a turn; both are right. NKT_WRITE,
// NKT_CONNECTED and NKT_DONE are news and told once. Each
// connection gets at most 16 receives between two waits, so that one busy peer
// cannot starve the rest; after that its reads say NKT_EAGAIN, and the next
// wait reports it again without waiting.
//
//             add                   event fetched          call says NKT_EAGAIN
//     (user) -----> asleep --ready--> on the list ---------> asleep
//                     ^                   |  not yet EAGAIN at the next wait
//                     |                   +---------------> on the list again
//
// The cost of a wait does not depend on how many handles are asleep, where the
// system has epoll or kqueue. Adding, changing, removing and closing is allowed
// at any time, also for a handle whose event is pending: the event is gone with
// it. Only nonblocking handles are added, each to one poller, of the same env.
//==============================================================================

typedef struct nkt_event {
    uint32_t events;            // NKT_READ, NKT_WRITE, NKT_CONNECTED, NKT_DONE
    uint32_t reserved;
    nkt_conn *conn;             // exactly one of these five is set, or fd
    nkt_listener *listener;
    nkt_task *task;
    nkt_udp *udp;
    nkt_fd fd;                  // a foreign descriptor, else NKT_NO_FD
    void *user;                 // what it was added with
} nkt_event;

typedef struct nkt_poller_opts {
    nkt_env *env;               // NULL = the default
    bool portable;              // use poll(), not epoll or kqueue
} nkt_poller_opts;

// Never blocks. Returns NKT_OK, NKT_ENOMEM or NKT_EMFILE.
NKT_API int nkt_poller_open(const nkt_poller_opts *opts, nkt_poller **poller);
// Removes what is in it and frees it; the handles stay open. NULL is allowed.
// Never blocks.
NKT_API void nkt_poller_close(nkt_poller *poller);

// Adds a handle; `user` comes back with its events. A handle is removed by
// closing it, by nkt_poller_remove_... or by closing the poller.
// Never blocks.
// Returns NKT_OK, or
//   NKT_EINVAL  it is a blocking handle, or of another env
//   NKT_EBUSY   it is in a poller already
//   NKT_ENOMEM, NKT_EMFILE and the system's refusals
NKT_API int nkt_poller_add_conn(nkt_poller *poller, nkt_conn *conn, void *user);
NKT_API int nkt_poller_add_listener(nkt_poller *poller, nkt_listener *listener, void *user);
NKT_API int nkt_poller_add_task(nkt_poller *poller, nkt_task *task, void *user);
// A descriptor of somebody else's: reported while it is ready for `events`,
// until it is changed or removed. A regular file is always ready. Remove it
// before it is closed. Never blocks.
NKT_API int nkt_poller_add_fd(nkt_poller *poller, nkt_fd fd, uint32_t events, void *user);

// Pauses (0) or resumes reporting of a connection: NKT_READ, NKT_WRITE or both,
// which is how it begins. A paused connection stays open and its queue is not
// sent. Never blocks. Returns NKT_OK, or NKT_ENOTFOUND if it is not in here.
NKT_API int nkt_poller_want(nkt_poller *poller, nkt_conn *conn, uint32_t events);
// Stops (0) or goes on (NKT_READ) accepting. Never blocks.
NKT_API int nkt_poller_want_listener(nkt_poller *poller, nkt_listener *listener, uint32_t events);
// Never blocks. Returns NKT_OK or NKT_ENOTFOUND.
NKT_API int nkt_poller_want_fd(nkt_poller *poller, nkt_fd fd, uint32_t events);

// Takes a handle out, with whatever was pending. Never blocks.
// Returns NKT_OK or NKT_ENOTFOUND.
NKT_API int nkt_poller_remove_conn(nkt_poller *poller, nkt_conn *conn);
NKT_API int nkt_poller_remove_listener(nkt_poller *poller, nkt_listener *listener);
NKT_API int nkt_poller_remove_task(nkt_poller *poller, nkt_task *task);
NKT_API int nkt_poller_remove_fd(nkt_poller *poller, nkt_fd fd);

// Waits until something is ready, `timeout_ms` have passed (-1 = for ever, 0 =
// just look), or nkt_poller_wake was called.
//
// May block; twin: itself with a time-out of 0, and nkt_poller_fd.
//
// Returns how many events there are to fetch; 0 when the time is over, after
// nkt_poller_wake and after a signal, so that a loop goes on by itself; or
// NKT_EFORKED, if the poller belongs to the parent process, and the system's
// refusals.
NKT_API int nkt_poller_wait(nkt_poller *poller, int32_t timeout_ms);

// Fetches the next event of this wait. Never blocks.
// Returns NKT_OK, or NKT_EAGAIN when there is none left: wait again.
NKT_API int nkt_poller_next(nkt_poller *poller, nkt_event *event);
// Fetches up to `cap` events at once. Never blocks. Returns how many.
NKT_API int nkt_poller_next_many(nkt_poller *poller, nkt_event *events, int cap);

// Ends the current or next wait. Any thread. Never blocks.
NKT_API void nkt_poller_wake(nkt_poller *poller);

// For use inside another event loop: a descriptor that is readable while there
// is something to do (NKT_NO_FD where the system has none: use the handles' own
// nkt_conn_watch), and how long that loop may sleep at most: 0 while anything
// is ready, -1 for ever. When either says so, call nkt_poller_wait(poller, 0).
// Never blocks.
NKT_API nkt_fd nkt_poller_fd(nkt_poller *poller);
NKT_API int32_t nkt_poller_timeout_ms(nkt_poller *poller);

//==============================================================================
// MARK: @task - something under way that ends with a result
//
// A task is started, can be added to a poller or waited for, and has a result
// once: nkt_x_start, nkt_x_finish. Here: timers.
//==============================================================================

// Waits for a task to have a result; it stays for its finish function to fetch.
// May block; twin: nkt_poller_add_task.
// Returns NKT_OK, NKT_ETIMEDOUT after `timeout_ms` (-1 = never), NKT_EINTR,
// NKT_ECANCELED after nkt_task_cancel.
NKT_API int nkt_task_wait(nkt_task *task, int32_t timeout_ms);
// Ends the task: its finish function says NKT_ECANCELED. Any thread.
// Never blocks.
NKT_API void nkt_task_cancel(nkt_task *task);
// Ends and frees it. NULL is allowed. Never blocks.
NKT_API void nkt_task_close(nkt_task *task);

// Lets time pass. May block; twin: nkt_timer_start.
// Returns NKT_OK, NKT_EINTR after a signal, or NKT_EINVAL for less than 0.
NKT_API int nkt_sleep(nkt_env *env, int32_t ms);

typedef struct nkt_timer_opts {
    nkt_env *env;           // NULL = the default
    int32_t delay_ms;       // to the first expiry; negative is NKT_EINVAL
    int32_t repeat_ms;      // from expiry to expiry; 0 = once
} nkt_timer_opts;

// Starts a timer. Its expiries keep to the first one's grid; late ones are
// counted, not repeated. Never blocks. Returns NKT_OK, NKT_EINVAL, NKT_ENOMEM.
NKT_API int nkt_timer_start(const nkt_timer_opts *opts, nkt_task **task);
// Never blocks. Returns how often it expired since the last call (1 or more),
// NKT_EAGAIN if not at all, NKT_EOF once a timer without repeat has been
// fetched, NKT_ECANCELED after nkt_task_cancel.
NKT_API int nkt_timer_finish(nkt_task *task);

//==============================================================================
// MARK: @lookup - from a host name to addresses
//
// The system's resolver blocks for as long as it likes and cannot be stopped.
// So it runs on worker threads, at most 8 in a process, IPv6 (AAAA) and IPv4
// (A) as two calls: a slow answer of one family never holds up the other. A
// look-up that is given up is abandoned, not waited for. Hosts files, VPNs and
// multicast DNS work as the system has them set up. Addresses, "localhost" and
// what ends in ".localhost" (RFC 6761 section 6.3) never leave the process.
//
// nkt_connect looks names up by itself. With NETKIT_NO_THREADS and no
// env->resolve, nkt_lookup and a blocking nkt_connect call the system's
// resolver on their own thread, IPv6 first, and may overrun their deadline as
// long as it takes; what must not wait is refused with NKT_EUNSUPPORTED.
//==============================================================================

#define NKT_LOOKUP_MAX 64           // addresses kept of one answer

typedef struct nkt_lookup_opts {
    nkt_env *env;                   // NULL = the default
    int32_t timeout_ms;             // all of it; 0 = 30,000, negative = none
    int32_t family;                 // NKT_IPV6, NKT_IPV4; 0 = both
} nkt_lookup_opts;

// Looks a host name or address up, and gives the addresses in the order in
// which they should be tried (RFC 6724).
//
// May block; twin: nkt_lookup_start.
//
// Returns how many were put into `ips`, 1 or more, or
//   NKT_ENAME, NKT_EADDR, NKT_EUNSUPPORTED    bad text, before anything else
//   NKT_ENOTFOUND  there is no such host, or none with such an address
//   NKT_ELOOKUP    the resolver could not tell now
//   NKT_ETIMEDOUT  no answer came; if one family's did, that is given. May be
//                  later than asked for with NETKIT_NO_THREADS; see above
//   NKT_EINTR      a signal came; the look-up is given up
//   NKT_ENOMEM, NKT_EINVAL
NKT_API int nkt_lookup(const char *host, const nkt_lookup_opts *opts, nkt_ip *ips, int cap);

// Starts a look-up. Never blocks.
// Returns NKT_OK, NKT_ENOMEM, NKT_EINVAL, as nkt_lookup for bad text, or
// NKT_EUNSUPPORTED for a name with NETKIT_NO_THREADS and no env->resolve.
NKT_API int nkt_lookup_start(const char *host, const nkt_lookup_opts *opts, nkt_task **task);

// Fetches the answers that have come since the last call, each family's as it
// arrives, in the resolver's order. Never blocks.
// Returns how many were put into `ips`; NKT_EAGAIN while none is there and some
// may come; NKT_EOF when all have been fetched; if there were none at all, why,
// as nkt_lookup; NKT_ECANCELED after nkt_task_cancel.
NKT_API int nkt_lookup_finish(nkt_task *task, nkt_ip *ips, int cap);

// Sorts addresses, 128 at most, into the order in which they should be tried
// from here: RFC 6724 section 6 with its default policy table. The source
// address of each is the system's choice, asked of a connected datagram socket;
// nothing is sent. Never blocks.
// Returns how many of them there is a route to, or NKT_EINVAL.
NKT_API int nkt_ip_sort(nkt_env *env, nkt_ip *ips, int count);

//==============================================================================
// MARK: @transport - what a connection stands on, open to your own
//
// A connection is a line buffer and a queue on top of a chain of links. The
// lowest link moves bytes somewhere: a TCP socket, an in-memory pair, your own
// device. Links above it change them on the way: TLS, a proxy's handshake, an
// impaired network, rot13.
//
//     nkt_conn   buffer, lines, messages, queue, deadlines
//        |
//     link       your transport: recv() calls nkt_link_recv(link->below, ...)
//        |
//     link       TCP
//
// A transport is a table of functions that never wait. nkt_conn_push puts one
// on top of a living connection; nkt_conn_open_custom makes a connection from
// one alone. Who holds the connection cannot tell. New functions are only ever
// appended to the table, and its size says which ones it has.
//==============================================================================

typedef struct nkt_link nkt_link;

#define NKT_WATCH_MAX 16

// What a link waits for: any of these descriptors, or the deadline; or nothing,
// because it is ready now. One that is woken from elsewhere (a queue, another
// thread) leaves them empty and calls nkt_conn_notify when things change.
typedef struct nkt_interest {
    int64_t deadline_ns;        // NKT_NEVER if none
    uint32_t count;
    bool ready;
    nkt_watch watches[NKT_WATCH_MAX];
} nkt_interest;

typedef struct nkt_transport {
    size_t size;                // sizeof(nkt_transport)
    const char *name;           // "tcp", "rot13"
    // Up to `cap` bytes: how many (0 is taken as the end), NKT_EOF, NKT_EAGAIN
    // or an error, which is final.
    ptrdiff_t (*recv)(nkt_link *link, void *buf, size_t cap);
    // Takes some of the pieces' bytes: how many (at least 1), NKT_EAGAIN or an
    // error, which is final.
    ptrdiff_t (*send)(nkt_link *link, const nkt_str *pieces, size_t count);
    // Tells the peer that no more will be sent. NKT_OK, NKT_EAGAIN, an error.
    int (*shutdown_write)(nkt_link *link);
    // Adds what must happen before recv (NKT_READ) or send (NKT_WRITE) can go
    // on, or sets `ready` where nothing must: what is ready and does not say so
    // is not looked at. NULL on a link above others: asks the link below.
    void (*watch)(nkt_link *link, uint32_t want, nkt_interest *out);
    // Frees `self`. With `abort`, the peer is told rudely. Never sends what is
    // unsent. A link above others does not close the one below.
    void (*close)(nkt_link *link, bool abort);
    // Optional, NULL allowed: addresses, and a descriptor for those who must.
    int (*local)(nkt_link *link, nkt_addr *addr);
    int (*peer)(nkt_link *link, nkt_addr *addr);
    nkt_fd (*descriptor)(nkt_link *link);
    // Optional: gets on with what the link itself has under way, a handshake or
    // bytes it held back. NKT_OK when there is nothing left, NKT_EAGAIN, error.
    int (*flush)(nkt_link *link);
} nkt_transport;

struct nkt_link {
    const nkt_transport *transport;
    void *self;                 // yours
    nkt_link *below;            // NULL for the lowest
    nkt_conn *conn;             // for nkt_conn_notify
};

// The link below, or any link: for use inside a transport's functions.
// Never blocks.
NKT_API ptrdiff_t nkt_link_recv(nkt_link *link, void *buf, size_t cap);
NKT_API ptrdiff_t nkt_link_send(nkt_link *link, const nkt_str *pieces, size_t count);
NKT_API int nkt_link_shutdown_write(nkt_link *link);
NKT_API int nkt_link_flush(nkt_link *link);
NKT_API void nkt_link_watch(nkt_link *link, uint32_t want, nkt_interest *out);
// Adds a descriptor to an interest. Never blocks. Returns NKT_OK, or
// NKT_ENOSPACE past NKT_WATCH_MAX.
NKT_API int nkt_interest_add(nkt_interest *interest, nkt_fd fd, uint32_t events);

//==============================================================================
// MARK: @conn - a connected byte stream
//
// A connection has a read side (@read) and a write side (@write) with a life of
// their own:
//
//     read side   open --peer finished--> eof      buffered data first
//                      --reset-----------> failed
//                      --interrupt-------> canceled
//     write side  open --shutdown_write--> finished (after the queue)
//                      --peer gone-------> failed
//
// Without pending data a connection on a poller holds no buffer: it borrows one
// of 128 KiB from the poller while it reads and gives it back at NKT_EAGAIN.
//==============================================================================

#define NKT_LINE_MAX_DEFAULT 65536
#define NKT_MESSAGE_MAX_DEFAULT 1048576
#define NKT_QUEUE_MAX_DEFAULT 2097152
#define NKT_UNTIL_MAX 255           // longest delimiter of nkt_conn_read_until
#define NKT_SIZE_LIMIT 0x7fff0000   // no buffer, line or queue may be longer

// What every connection has, however it came about.
typedef struct nkt_stream_opts {
    int32_t read_timeout_ms;    // each read call; 0 and negative = none
    int32_t write_timeout_ms;   // each write or flush call; 0 and negative = none
    uint32_t line_max;          // longest line, its end not counted; 0 = 65,536
    uint32_t message_max;       // longest message; 0 = 1 MiB
    uint32_t queue_max;         // unsent bytes, nonblocking only; 0 = 2 MiB
    int32_t keepalive_s;        // idle seconds before a probe, and a quarter (1 to 75)
                                // between four; 0 and negative = off
    int32_t send_buffer;        // the system's, bytes; 0 = its choice
    int32_t recv_buffer;
    bool cr_lines;              // a bare CR ends a line too
    bool delay_small_writes;    // Nagle's algorithm, off unless asked for
} nkt_stream_opts;

typedef struct nkt_conn_opts {
    nkt_env *env;               // NULL = the default
    bool nonblocking;
    nkt_stream_opts stream;
} nkt_conn_opts;

// Makes a connection of a connected stream socket: from socketpair, from a
// service manager, from another library. On success netkit owns the descriptor
// and sets it as it needs it; on failure it is still yours.
// Never blocks. Returns NKT_OK, NKT_EINVAL for options that cannot be,
// NKT_ENOTSOCK, NKT_ENOTCONN, NKT_ENOMEM, NKT_EOS or what the system says if it
// does not make it nonblocking.
NKT_API int nkt_conn_adopt(nkt_fd fd, const nkt_conn_opts *opts, nkt_conn **conn);
// Gives the descriptor back, in blocking mode, and frees the handle.
// Never blocks. Returns NKT_OK, NKT_EBUSY while there is anything buffered,
// queued or connecting, NKT_ENOTCONN after a connect that failed,
// NKT_EUNSUPPORTED without a descriptor or under a layer, NKT_EOS if the system
// does not make it blocking: then the handle is as it was. One that was
// interrupted may be shut for reading; see nkt_conn_interrupt.
NKT_API int nkt_conn_detach(nkt_conn *conn, nkt_fd *fd);

// Makes a connection of your own transport. `self` is freed by its close
// function; on failure it is still yours. Never blocks. Returns NKT_OK,
// NKT_EINVAL for a table without recv, send or close, NKT_ENOMEM.
NKT_API int nkt_conn_open_custom(const nkt_transport *transport, void *self,
                                 const nkt_conn_opts *opts, nkt_conn **conn);
// Puts a transport on top of a connection, or of one that still connects. Input
// that is buffered goes through it; queued output must be flushed first. On
// failure `self` is still yours. Never blocks. Returns NKT_OK, NKT_EAGAIN while
// output is queued, NKT_EINVAL, NKT_ENOMEM.
NKT_API int nkt_conn_push(nkt_conn *conn, const nkt_transport *transport, void *self);
// Says that a transport's recv or send may succeed now. Any thread, from within
// the transport or outside, until the transport was closed. Never blocks.
NKT_API void nkt_conn_notify(nkt_conn *conn);

// Ends every wait on the handle with NKT_ECANCELED, now and for good. Bytes
// that are buffered stay readable. Where a blocking handle waits for its socket
// alone, the socket is shut for reading, for all who share it. Any thread,
// until it is closed. Never blocks.
NKT_API void nkt_conn_interrupt(nkt_conn *conn);

// Closes and frees it; takes it out of its poller. Queued output is discarded:
// to be sure of delivery flush, shutdown_write, read to the end, then close.
// With unread input the system resets the peer. No other thread may be in a
// call of the handle, or make one later: interrupt it and hear from it first.
// NULL is allowed. Never blocks. Returns how many queued bytes were discarded.
NKT_API size_t nkt_conn_close(nkt_conn *conn);
// As nkt_conn_close, but the peer gets a reset; where the system refuses that,
// and on a Unix-domain socket, it gets what a close gives it. Never blocks.
NKT_API size_t nkt_conn_abort(nkt_conn *conn);

// The two ends. No address for a Unix-domain socket or in-memory pair. IPv4
// peers of a dual-stack listener are given as IPv4. Never blocks.
// Returns NKT_OK or NKT_ENOTCONN.
NKT_API int nkt_conn_local(nkt_conn *conn, nkt_addr *addr);
NKT_API int nkt_conn_peer(nkt_conn *conn, nkt_addr *addr);
// The peer as text for people: "192.0.2.1:80", or what it is talked to through,
// "unix" or "pair". Never blocks. Returns the length without NUL, NKT_ENOSPACE.
NKT_API int nkt_conn_peer_name(nkt_conn *conn, char *buf, size_t cap);
// The descriptor, still netkit's, or NKT_NO_FD. Never blocks.
NKT_API nkt_fd nkt_conn_descriptor(nkt_conn *conn);
// The system's code behind the last failed call, 0 if none. Never blocks.
NKT_API int32_t nkt_conn_os_error(const nkt_conn *conn);
// What must be waited for, outside a poller: descriptors, a deadline, or
// nothing because it is ready. `want` is NKT_READ, NKT_WRITE or both.
// Never blocks. Returns NKT_OK.
NKT_API int nkt_conn_watch(nkt_conn *conn, uint32_t want, nkt_interest *interest);

typedef struct nkt_conn_info {
    uint64_t received;          // bytes from the transport
    uint64_t sent;              // bytes taken by it
    uint64_t buffered;          // received and not read
    uint64_t queued;            // written and not sent
    nkt_tcp_info tcp;           // -1 each where there is none
} nkt_conn_info;

// Never blocks. Returns NKT_OK.
NKT_API int nkt_conn_get_info(nkt_conn *conn, nkt_conn_info *info);

// Settings that can change during life.
typedef enum nkt_conn_option {
    NKT_OPT_READ_TIMEOUT_MS = 1,    // as in nkt_stream_opts, each
    NKT_OPT_WRITE_TIMEOUT_MS,
    NKT_OPT_LINE_MAX,
    NKT_OPT_MESSAGE_MAX,
    NKT_OPT_QUEUE_MAX,
    NKT_OPT_KEEPALIVE_S,
    NKT_OPT_SEND_BUFFER,
    NKT_OPT_RECV_BUFFER,
    NKT_OPT_CR_LINES,
    NKT_OPT_DELAY_SMALL_WRITES,
    NKT_OPT_NONBLOCKING             // get only
} nkt_conn_option;

// Never blocks. Returns NKT_OK, NKT_EINVAL for an option or value that is none,
// NKT_EUNSUPPORTED where the transport has no such thing, NKT_EAGAIN for an
// option of the socket while it is still connecting, NKT_ENOMEM.
NKT_API int nkt_conn_set_option(nkt_conn *conn, nkt_conn_option option, int64_t value);
NKT_API int nkt_conn_get_option(nkt_conn *conn, nkt_conn_option option, int64_t *value);

//==============================================================================
// MARK: @read - bytes, lines and whatever else comes in
//
// Reads go through a buffer. A line or other view points into it and lives
// until the next read; nothing is copied. What has arrived is never lost: after
// NKT_EAGAIN, NKT_ETIMEDOUT or NKT_EINTR the same call goes on where it was,
// and bytes that came before an error are delivered before the error is.
//==============================================================================

// Reads up to `cap` bytes, as many as there are. Waits on a blocking handle.
// Returns how many (1 or more; 0 only for a capacity of 0), or
//   NKT_EAGAIN     nothing there now
//   NKT_EOF        the peer has finished, and everything was read
//   NKT_ETIMEDOUT  read_timeout_ms passed; call again to go on
//   NKT_EINTR      a signal came; call again to go on
//   NKT_ECANCELED  after nkt_conn_interrupt, once the buffer is empty
//   NKT_ERESET and others: the connection has failed
// These hold for every function that reads.
NKT_API ptrdiff_t nkt_conn_read(nkt_conn *conn, void *buf, size_t cap);

// Reads exactly `len` bytes. After NKT_EAGAIN, NKT_ETIMEDOUT or NKT_EINTR call
// again with the same buffer and length: it goes on where it was. The bytes so
// far are in `buf`, nkt_conn_received says how many; another kind of read
// starts after them. Waits on a blocking handle.
// Returns NKT_OK, NKT_EOF if the stream ended before the first byte,
// NKT_ETRUNCATED if later, or as nkt_conn_read.
NKT_API int nkt_conn_read_exact(nkt_conn *conn, void *buf, size_t len);
// How many bytes of an unfinished nkt_conn_read_exact are there. Never blocks.
NKT_API size_t nkt_conn_received(const nkt_conn *conn);

// Reads a line, without its end: LF or CRLF, with opts.cr_lines also CR. The
// last line need not have an end. The view lives until the next read. A NUL
// stands behind it, line.ptr[line.len], so that it can be used as a C string;
// a line that contains NUL seems shorter that way.
// Waits on a blocking handle.
// Returns NKT_OK, or
//   NKT_ETOOLONG  longer than line_max. Nothing is consumed: read it in pieces
//                 with nkt_conn_read, or nkt_conn_skip_line and go on
//   or as nkt_conn_read; a line cut off by an error stays readable as bytes.
NKT_API int nkt_conn_read_line(nkt_conn *conn, nkt_str *line);
// Discards up to and including the next line end, however long the line is.
// Waits on a blocking handle. Returns as nkt_conn_read_line.
NKT_API int nkt_conn_skip_line(nkt_conn *conn);

// Reads all complete lines that are there, at least one, with their ends: one
// call for many lines, for bindings and for who passes them on. At the end of
// the stream what is left is given without an end. A line longer than line_max
// stops it: the lines before are given, then NKT_ETOOLONG, with nothing
// consumed. The view lives until the next read. Waits on a blocking handle.
// Returns NKT_OK, NKT_ETOOLONG, or as nkt_conn_read.
NKT_API int nkt_conn_read_lines(nkt_conn *conn, nkt_str *lines);

// Reads up to and including a delimiter of 1 to NKT_UNTIL_MAX bytes. At the end
// of the stream the rest is given without one. The view lives until the next
// read. Waits on a blocking handle.
// Returns NKT_OK, NKT_EINVAL, NKT_ETOOLONG past line_max (delimiter not
// counted; nothing is consumed), or as nkt_conn_read.
NKT_API int nkt_conn_read_until(nkt_conn *conn, const void *delimiter, size_t len, nkt_str *view);

// Looks at the next bytes without consuming them: at least `want`, fewer only
// before the end of the stream or an error; all that is buffered is shown.
// Waits on a blocking handle.
// Returns NKT_OK, NKT_ETOOLONG if `want` is above line_max, or as nkt_conn_read
// when there is nothing at all.
NKT_API int nkt_conn_peek(nkt_conn *conn, size_t want, nkt_str *view);
// Discards `len` bytes. After NKT_EAGAIN, NKT_ETIMEDOUT or NKT_EINTR call again
// with the same length. Waits on a blocking handle.
// Returns NKT_OK, NKT_EOF, NKT_ETRUNCATED, or as nkt_conn_read.
NKT_API int nkt_conn_skip(nkt_conn *conn, uint64_t len);

// How far the stream has been read: the bytes consumed since it began.
// Never blocks.
NKT_API uint64_t nkt_conn_position(const nkt_conn *conn);
// Goes to another position in the buffer. Forward consumes what has arrived.
// Back gives again what was consumed since bytes were last received, for a
// caller that was stopped between a read and the use of its result; the line
// ends that nkt_conn_read_line took have become NUL. Never blocks. Returns
// NKT_OK, or NKT_EINVAL for a position that is not in the buffer.
NKT_API int nkt_conn_seek(nkt_conn *conn, uint64_t position);
// nkt_conn_seek, then nkt_conn_peek: for bindings, where a call costs as much
// as its work. Waits on a blocking handle. Returns as both.
NKT_API int nkt_conn_peek_at(nkt_conn *conn, uint64_t position, size_t want, nkt_str *view);
// Bytes that were received and are not consumed. Never blocks.
NKT_API size_t nkt_conn_buffered(const nkt_conn *conn);
// Puts bytes back, in front of what is unread: the next read gives them again.
// At most as many as have been consumed; not a view. Never blocks.
// Returns NKT_OK, NKT_EINVAL, NKT_ETOOLONG past NKT_SIZE_LIMIT, NKT_ENOMEM.
NKT_API int nkt_conn_unread(nkt_conn *conn, const void *data, size_t len);

//==============================================================================
// MARK: @write - everything or nothing
//
// Writes on a blocking handle return when the system has taken every byte. On a
// nonblocking one all or nothing is taken, sent or queued; the queue is sent by
// the poller, by nkt_conn_flush and by every later call on the handle.
//==============================================================================

// Writes every byte, or none. Waits on a blocking handle.
// Returns NKT_OK, or
//   NKT_EAGAIN     nonblocking: no room in the queue now; nothing was taken
//   NKT_ETOOLONG   nonblocking: more than queue_max; nothing was taken
//   NKT_ETIMEDOUT, NKT_EINTR, NKT_ECANCELED
//                  blocking: nkt_conn_written says how many bytes went out;
//                  call again with the rest
//   NKT_ENOMEM     as above, nonblocking too: call again with the rest
//   NKT_EPIPE      after nkt_conn_shutdown_write
//   NKT_ERESET and others: the connection has failed
// These hold for every function that writes.
NKT_API int nkt_conn_write(nkt_conn *conn, const void *data, size_t len);
// A NUL-terminated text, without the NUL. Waits on a blocking handle.
NKT_API int nkt_conn_write_str(nkt_conn *conn, const char *text);
// Several pieces in order, as one write. Waits on a blocking handle.
NKT_API int nkt_conn_writev(nkt_conn *conn, const nkt_str *pieces, size_t count);
// How many bytes of the last write call were taken. Never blocks.
NKT_API size_t nkt_conn_written(const nkt_conn *conn);
// Unsent bytes in the queue. Never blocks.
NKT_API size_t nkt_conn_queued(const nkt_conn *conn);
// Waits until the system has taken the queue. Waits on a blocking handle.
// Returns NKT_OK, or as nkt_conn_write.
NKT_API int nkt_conn_flush(nkt_conn *conn);
// Tells the peer that nothing more will come, after the queue. Reading goes on.
// Waits on a blocking handle; on a nonblocking one it happens behind later
// calls. Returns NKT_OK, or as nkt_conn_write.
NKT_API int nkt_conn_shutdown_write(nkt_conn *conn);

//==============================================================================
// MARK: @connect - from "host:port" to a connection
//
// A connect is a race: the addresses of the target are tried one after another,
// the next one 250 ms after the last or as soon as one failed, several under
// way at once, and the first that answers wins (RFC 8305 section 5). One
// deadline covers all of it. Whoever loses is closed; the report tells of each.
//==============================================================================

#define NKT_ATTEMPTS_MAX 16

// One address that was tried.
typedef struct nkt_attempt {
    nkt_addr addr;
    int32_t err;                // NKT_OK for the winner, NKT_EAGAIN while under way,
                                // NKT_ECANCELED if another one won
    int32_t os_error;
    int32_t start_ms;           // since the call
    int32_t end_ms;             // -1 while under way
} nkt_attempt;

typedef struct nkt_connect_report {
    int32_t err;                // how the whole ended
    int32_t os_error;
    int32_t elapsed_ms;
    int32_t attempt_count;      // how many addresses were tried
    int32_t lookup_err[2];      // IPv6, IPv4: NKT_OK, NKT_ENOTFOUND, ..., NKT_EAGAIN
                                // if no answer came, NKT_EBUSY if none was even
                                // asked for, the resolver having too much to
                                // do; NKT_EOF where there was nothing to look
                                // up
    int32_t lookup_ms[2];       // when the answer came; -1 = not
    nkt_attempt attempts[NKT_ATTEMPTS_MAX];     // the first of them
    nkt_problem problem;        // what was wrong with an argument, err 0 if nothing
    char text[512];             // all of it in a sentence, NUL-terminated
} nkt_connect_report;

typedef struct nkt_connect_opts {
    nkt_env *env;               // NULL = the default
    bool nonblocking;           // connect behind later calls; see nkt_connect
    int32_t timeout_ms;         // all of it; 0 = 30,000, negative = none
    int32_t default_port;       // where the text has none; 0 = must be given
    int32_t attempt_delay_ms;   // before the next address is tried too; 0 = 250
    int32_t resolution_delay_ms; // for IPv6 answers once IPv4's are there; 0 = 50
    int32_t family;             // NKT_IPV6 or NKT_IPV4 alone; 0 = both
    nkt_addr local;             // connect from here; no address = the system's choice
    const char *interface_name; // only through this one; NULL = as routed
    nkt_connect_report *report; // filled before nkt_connect returns; NULL = none
    nkt_stream_opts stream;
} nkt_connect_opts;

// Connects to "host:port", "[v6]:port" or "unix:/path"; see @target. A host
// name is looked up in both families at once, and its addresses are tried in
// turn, each 250 ms after the one before or as soon as that one failed; the
// first that answers wins (RFC 8305). Looking up and trying share one deadline.
//
// A nonblocking handle is there at once and connects behind its next calls and
// its poller; writes are queued meanwhile, reads say NKT_EAGAIN, and a failure
// is the result of the next call. Bad arguments are refused at once in both.
//
// May block; twin: itself with opts.nonblocking.
//
// Returns NKT_OK, or
//   NKT_EADDR, NKT_EPORT, NKT_ENAME, NKT_EAMBIGUOUS, NKT_EINVAL, NKT_ENODEV
//                  bad text or option; report->problem says what and where
//   NKT_ENOTFOUND  there is no such host, or no such path
//   NKT_ELOOKUP    the resolver could not tell now
//   NKT_EREFUSED, NKT_EHOSTUNREACH, NKT_ENETUNREACH, NKT_EACCES
//                  what went wrong with the address that got furthest
//   NKT_EADDRNOTAVAIL  an address of another family than opts.family
//   NKT_EUNSUPPORTED   a name, with NETKIT_NO_THREADS and no env->resolve, on a
//                  nonblocking handle or by nkt_connect_start. (A blocking
//                  nkt_connect looks it up on its own thread, however long
//                  that takes: it may overrun timeout_ms.)
//   NKT_ENOMEM, NKT_EMFILE
//   NKT_ETIMEDOUT  opts.timeout_ms passed
//   NKT_EINTR      a signal came; the attempt is given up. To go on over
//                  signals use nkt_connect_start and nkt_connect_finish
NKT_API int nkt_connect(const char *target, const nkt_connect_opts *opts, nkt_conn **conn);
// As nkt_connect, to one address. May block; twin: itself with
// opts.nonblocking.
NKT_API int nkt_connect_addr(const nkt_addr *addr, const nkt_connect_opts *opts, nkt_conn **conn);
// As nkt_connect, but returns at once on a blocking handle too: the first call
// that needs the connection waits for it, within opts.timeout_ms from now.
// Until then a blocking handle, too, may be used by one thread only. Never
// blocks. Returns as nkt_connect for bad arguments and lack of memory.
NKT_API int nkt_connect_start(const char *target, const nkt_connect_opts *opts, nkt_conn **conn);
// Whether it is connected. Waits on a blocking handle.
// Returns NKT_OK, NKT_EAGAIN, NKT_EINTR (call again to go on), or why it
// failed.
NKT_API int nkt_connect_finish(nkt_conn *conn);
// As nkt_connect_finish, but for `timeout_ms` at most (-1 = as long as it
// takes), for who has something to look at meanwhile.
// May block; twin: nkt_connect_finish with opts.nonblocking.
// Returns as nkt_connect_finish; NKT_EAGAIN when the time is over.
NKT_API int nkt_connect_wait(nkt_conn *conn, int32_t timeout_ms);
// What was tried, so far or in all. Never blocks. Returns NKT_OK, or
// NKT_ENOTFOUND on a connection that nkt_connect did not make, or where there
// was no memory to keep it.
NKT_API int nkt_conn_report(nkt_conn *conn, nkt_connect_report *report);

#ifndef NETKIT_NO_MESSAGE
//==============================================================================
// MARK: @message - a length and that many bytes
//
//     0               4
//     +---------------+----------------------+
//     | length, u32   | that many bytes      |      big-endian
//     +---------------+----------------------+
//
// Streams have no borders of their own; this puts them in. Both sides bound the
// length by message_max, before any memory is taken for it, and memory grows
// with what has arrived, not with what was announced.
//==============================================================================

// Reads one message; the view lives until the next read. May be empty.
// Waits on a blocking handle.
// Returns NKT_OK, NKT_EOF between messages, NKT_ETRUNCATED inside one,
// NKT_ETOOLONG above message_max (nothing is consumed), or as nkt_conn_read.
NKT_API int nkt_conn_read_message(nkt_conn *conn, nkt_str *message);
// Writes one message. Waits on a blocking handle. Returns as nkt_conn_write;
// NKT_ETOOLONG above message_max. After NKT_ETIMEDOUT or NKT_EINTR the rest,
// by nkt_conn_written with 4 bytes of length first, is written by
// nkt_conn_write.
NKT_API int nkt_conn_write_message(nkt_conn *conn, const void *data, size_t len);
#endif

#ifndef NETKIT_NO_PAIR
//==============================================================================
// MARK: @pair - two ends of a connection in memory
//
// What is written to one end is read from the other, across threads if need be.
// There is no socket; everything else, time-outs, pollers, half-close, limits,
// is as on TCP. For tests, and for talking to one's own threads.
//==============================================================================

#define NKT_PAIR_CAPACITY 65536     // bytes under way in each direction

// Each end has options of its own, so that one can block in a thread while the
// other is in a poller; NULL is the default. Both are of one env.
// Never blocks. Returns NKT_OK, NKT_ENOMEM, or NKT_EINVAL for bad options.
NKT_API int nkt_conn_pair(const nkt_conn_opts *a_opts, const nkt_conn_opts *b_opts,
                          nkt_conn **a, nkt_conn **b);
#endif

//==============================================================================
// MARK: @listen - accepting connections
//
// One listener takes IPv6 and IPv4, through one dual-stack socket where the
// system has that and through two where it has not, or through IPv4 alone where
// IPv6 is switched off. Out of descriptors, accept says NKT_EMFILE once and
// then rests for 100 ms: no spinning, and the waiting peers stay in the queue.
//==============================================================================

typedef struct nkt_listen_opts {
    nkt_env *env;               // NULL = the default; connections inherit it
    bool nonblocking;           // the listener and what it accepts
    bool reuse_port;            // several processes on one port, where there is that
    bool keep_path;             // do not remove a Unix-domain path on close
    int32_t backlog;            // 0 = 511, or the system's limit
    int32_t accept_timeout_ms;  // each accept; 0 and negative = none
    const char *interface_name; // only through this one; NULL = all
    nkt_problem *problem;       // filled when nkt_listen fails; NULL = none
    nkt_stream_opts stream;     // of what it accepts
} nkt_listen_opts;

// Listens on ":port" (every address, both families), "address:port",
// "localhost:port" (both loopback addresses, whichever there are) or
// "unix:/path". Port 0 takes a free one; nkt_listener_local tells which. A
// stale Unix-domain path nobody listens on is replaced.
//
// Never blocks.
// Returns NKT_OK, or
//   NKT_EADDR, NKT_EPORT, NKT_ENAME, NKT_EAMBIGUOUS, NKT_EINVAL   bad text
//   NKT_EADDRINUSE, NKT_EADDRNOTAVAIL, NKT_EACCES, NKT_EMFILE
//   NKT_EUNSUPPORTED  reuse_port or interface_name on a system without
NKT_API int nkt_listen(const char *target, const nkt_listen_opts *opts, nkt_listener **listener);
// Makes a listener of a listening socket (a service manager's). On success
// netkit owns it. Never blocks. Returns NKT_OK, NKT_ENOTSOCK, NKT_ENOMEM.
NKT_API int nkt_listener_adopt(nkt_fd fd, const nkt_listen_opts *opts, nkt_listener **listener);

// Takes the next connection. Connections that died in the queue are passed
// over. One thread at a time: to accept in several, open several listeners with
// opts.reuse_port, or hand connections on. Waits on a blocking handle.
// Returns NKT_OK, or
//   NKT_EAGAIN     nobody there now
//   NKT_EMFILE     no descriptors; see above, and call again
//   NKT_ETIMEDOUT, NKT_EINTR, NKT_ECANCELED
//   NKT_ENOMEM     no memory for the connection: it has been closed
NKT_API int nkt_accept(nkt_listener *listener, nkt_conn **conn);

// Changes accept_timeout_ms for the accepts that begin after it: 0 and negative
// = none. On the accepting thread. Never blocks.
NKT_API void nkt_listener_set_timeout(nkt_listener *listener, int32_t timeout_ms);

// Ends every accept with NKT_ECANCELED, for good. Any thread. Never blocks.
NKT_API void nkt_listener_interrupt(nkt_listener *listener);
// Stops listening and frees it; its connections live on. NULL is allowed.
// Never blocks.
NKT_API void nkt_listener_close(nkt_listener *listener);
// Where it listens: with both families, [::] and the port. Never blocks.
// Returns NKT_OK, or NKT_ENOTCONN for a Unix-domain one.
NKT_API int nkt_listener_local(nkt_listener *listener, nkt_addr *addr);
// The same as text for people: "[::]:7777", "unix:/run/x.sock". Never blocks.
// Returns the length without NUL, or NKT_ENOSPACE.
NKT_API int nkt_listener_name(nkt_listener *listener, char *buf, size_t cap);
// The first descriptor, still netkit's. Never blocks.
NKT_API nkt_fd nkt_listener_descriptor(nkt_listener *listener);
// The system's code behind the last failed call. Never blocks.
NKT_API int32_t nkt_listener_os_error(const nkt_listener *listener);
// What must be waited for, outside a poller. Never blocks. Returns NKT_OK.
NKT_API int nkt_listener_watch(nkt_listener *listener, nkt_interest *interest);

#ifndef NETKIT_NO_UDP
//==============================================================================
// MARK: @datagram - one datagram, and what a handle of them stands on
//
// A datagram handle is a chain of links, as a connection is: the lowest link
// moves datagrams, a UDP socket's, an in-memory pair's or your own device's;
// links above change them on the way.
//
//     nkt_udp
//        |
//     link       your transport: recv() calls nkt_udp_link_recv for below
//        |
//     link       UDP
//
// A transport is a table of functions that never wait and move up to `count`
// datagrams in one call. An error concerns one call, and nothing is final.
//==============================================================================

#define NKT_DATAGRAM_MAX 65535      // a buffer of this takes any

// One datagram and what there is to know of it. Zero where nothing is said.
typedef struct nkt_datagram {
    void *data;                 // sending: only read
    uint32_t len;               // bytes
    uint32_t cap;               // receiving into a buffer of yours: its room
    nkt_addr addr;              // from whom; sending: to whom, none = the connected peer
    nkt_ip local;               // which of our addresses, or group, it came to;
                                // sending: from which, none = any (so Windows)
    uint32_t interface_index;   // through which it came, 0 = unknown; sending:
                                // through which, 0 = as routed
    int32_t hops;               // hop limit or TTL it came with, -1 = unknown; not for sending
    int32_t traffic_class;      // DSCP and ECN, -1 = unknown; sending: 0 or -1 = as
                                // the option says
    uint32_t segment;           // in tables of functions: several datagrams of this
                                // length, then the rest, back to back; 0 = one
    bool truncated;             // it was longer than cap, and the rest is lost
    uint8_t reserved[7];        // netkit's own
} nkt_datagram;

typedef struct nkt_udp_link nkt_udp_link;

// What a datagram endpoint stands on: as nkt_transport, but by datagrams.
typedef struct nkt_datagram_transport {
    size_t size;                // sizeof(nkt_datagram_transport)
    const char *name;           // "udp", "xor"
    // Up to `count` datagrams, each into its data of cap bytes; sets len and
    // what else it knows, the rest is set to unknown. How many, NKT_EAGAIN, or
    // an error, which concerns this call alone.
    int (*recv)(nkt_udp_link *link, nkt_datagram *list, int count);
    // Takes datagrams from the front: how many, NKT_EAGAIN, or why not the
    // first.
    int (*send)(nkt_udp_link *link, const nkt_datagram *list, int count);
    // As nkt_transport's. NULL on a link above others: asks the link below.
    void (*watch)(nkt_udp_link *link, uint32_t want, nkt_interest *out);
    // Frees `self`. A link above others does not close the one below.
    void (*close)(nkt_udp_link *link);
    // Optional, NULL allowed.
    int (*local)(nkt_udp_link *link, nkt_addr *addr);
    int (*peer)(nkt_udp_link *link, nkt_addr *addr);
    nkt_fd (*descriptor)(nkt_udp_link *link);
} nkt_datagram_transport;

struct nkt_udp_link {
    const nkt_datagram_transport *transport;
    void *self;                 // yours
    nkt_udp_link *below;        // NULL for the lowest
    nkt_udp *udp;               // for nkt_udp_notify
};

// The link below, or any link: for use inside a transport's functions.
// Never blocks.
NKT_API int nkt_udp_link_recv(nkt_udp_link *link, nkt_datagram *list, int count);
NKT_API int nkt_udp_link_send(nkt_udp_link *link, const nkt_datagram *list, int count);
NKT_API void nkt_udp_link_watch(nkt_udp_link *link, uint32_t want, nkt_interest *out);
// Says that a transport's recv or send may succeed now. Any thread, until the
// transport was closed. Never blocks.
NKT_API void nkt_udp_notify(nkt_udp *udp);

//==============================================================================
// MARK: @multicast - groups, on every interface
//
// Joining a group without naming an interface joins it on every suitable one:
// one that is up, can do multicast and has an address of the group's family;
// loopback only where there is no other. Interfaces that appear or get an
// address later are joined while the handle is waited on, in a poller, or asked
// in vain (NKT_EAGAIN). Only groups that the handle has joined are heard, and
// only through the interfaces where it has. RFC 1112, RFC 3493, RFC 3678.
//==============================================================================

typedef struct nkt_join_opts {
    const char *interface_name; // its name, index or an address of it; NULL = every one
    uint32_t interface_index;   // or this; 0 = as interface_name
    uint32_t reserved;
    const char *source;         // hear this address only (RFC 4607); NULL = all
} nkt_join_opts;

// Joins a group, "239.255.77.77" or "ff15::77", on every suitable interface,
// also later ones, or on one. NULL is the default. With opts.interface_name of
// nkt_udp_open it is that one. Joining twice is joining once.
// Never blocks.
// Returns on how many interfaces it is joined now (0: none is suitable yet), or
//   NKT_EADDR     bad text;  NKT_EGROUP  not a multicast address
//   NKT_ENODEV    no such interface, or the IPv6 scope names another
//   NKT_EFAMILY   the handle or the source is of the other family
//   NKT_EUNSUPPORTED  sources on OpenBSD and NetBSD; custom transports
//   NKT_ENOMEM    also the system's limit of groups; other refusals
NKT_API int nkt_udp_join(nkt_udp *udp, const char *group, const nkt_join_opts *opts);
// Takes back a join with the same arguments. Never blocks.
// Returns NKT_OK, NKT_ENOTFOUND, or as nkt_udp_join.
NKT_API int nkt_udp_leave(nkt_udp *udp, const char *group, const nkt_join_opts *opts);

enum {
    NKT_IFACE_UP = 1,           // and running
    NKT_IFACE_LOOPBACK = 2,
    NKT_IFACE_MULTICAST = 4,
    NKT_IFACE_BROADCAST = 8,
    NKT_IFACE_POINT_TO_POINT = 16
};

// An interface and one of its addresses; one without has a row with none.
typedef struct nkt_sys_iface {
    nkt_ip ip;
    nkt_ip peer;                // the other end of a point-to-point link, if known
    uint32_t index;
    uint32_t flags;             // NKT_IFACE_...
    uint32_t bits;              // prefix length
    uint32_t reserved;
} nkt_sys_iface;

// The system's own table, to copy and change. Static. Never blocks.
NKT_API const nkt_sys_net *nkt_sys_net_default(void);

//==============================================================================
// MARK: @udp - datagrams: unicast, multicast and broadcast
//
// A datagram arrives whole or not at all, perhaps twice, perhaps out of order.
// A handle takes IPv6 and IPv4, through one socket or two, and shows IPv4
// addresses as IPv4. An error of one datagram is told and the handle lives on:
// after anything but NKT_ECANCELED the next call may succeed.
//
//     nkt_udp_open(":5555", NULL, &udp);
//     nkt_udp_join(udp, "239.255.77.77", NULL);             every interface
//     nkt_udp_send_str(udp, "hello", "239.255.77.77:5555"); out of every one
//     nkt_udp_broadcast(udp, "hello", 5, 5555);             each IPv4 network
//     got = nkt_udp_recv(udp, buf, sizeof buf, &from);
//
// A group or broadcast address stands for every suitable interface: one that is
// up, can do multicast (broadcast) and has an address of the family; loopback
// only where there is no other. On a point-to-point link a broadcast goes to
// the other end. A handle that is bound to one address sends through the
// interface that has it alone. Interfaces that appear or get an address later
// are joined while the handle is waited on, in a poller, or asked in vain
// (NKT_EAGAIN).
// A host on two of our networks is heard twice, by nkt_datagram's
// interface_index. RFC 768, RFC 8085, RFC 1112, RFC 3493, RFC 3678.
//
// A datagram of up to 1,200 bytes passes on nearly every path (RFC 8085 section
// 3.2); up to 65,507 (IPv4) and 65,527 (IPv6) can be tried.
//==============================================================================

typedef enum nkt_udp_option {
    NKT_UDP_HOPS = 1,           // as in nkt_udp_opts, each
    NKT_UDP_MULTICAST_HOPS,
    NKT_UDP_TRAFFIC_CLASS,
    NKT_UDP_DONT_FRAGMENT,
    NKT_UDP_LOOPBACK,           // 1 = this host hears its own multicast, where it has joined
    NKT_UDP_SEND_BUFFER,
    NKT_UDP_RECV_BUFFER,
    NKT_UDP_RECV_TIMEOUT_MS,
    NKT_UDP_SEND_TIMEOUT_MS,
    NKT_UDP_MULTICAST_INTERFACE, // index of the only one that groups are sent through; 0 = all
    NKT_UDP_NONBLOCKING,        // get only
    NKT_UDP_PATH_MTU,           // get only, connected, Linux: bytes, IP header included
    // For the system's table alone:
    NKT_UDP_FACTS = 32,         // tell of each datagram how it came; only joined groups
    NKT_UDP_REUSE,              // 1 = share the port; 0 = nobody may
    NKT_UDP_ICMP_ERRORS,        // 1 = tell those of an unconnected socket
    NKT_UDP_COALESCE            // receive offload
} nkt_udp_option;

typedef struct nkt_udp_opts {
    nkt_env *env;               // NULL = the default
    bool nonblocking;
    bool reuse_port;            // share the port with others that ask for it too: each
                                // hears groups and broadcasts, one each unicast
    bool icmp_errors;           // unconnected: receiving tells ICMP errors and about whom
    bool dont_fragment;         // larger than the path takes is NKT_EMSGSIZE
    bool no_loopback;           // our multicast is not heard on this host (Windows: we
                                // do not hear this host's)
    bool no_offload;            // no segmentation or receive offload: for comparing
    bool two_sockets;           // one for each family even where one would do
    int32_t family;             // NKT_IPV6 or NKT_IPV4 alone; 0 = both
    int32_t hops;               // unicast hop limit (TTL), 1 to 255; 0 = the system's
    int32_t multicast_hops;     // the same for groups; 0 = 1: this network only
    int32_t traffic_class;      // DSCP and ECN of what is sent, 0 to 255 (RFC 2474, RFC 3168)
    int32_t send_buffer;        // the system's, bytes; 0 = its choice
    int32_t recv_buffer;
    int32_t recv_timeout_ms;    // each receiving call; 0 and negative = none
    int32_t send_timeout_ms;    // each sending call; 0 and negative = none
    const char *interface_name; // only through this one (Windows: sending); NULL = all
    nkt_problem *problem;       // filled when nkt_udp_open fails; NULL = none
} nkt_udp_opts;

// Opens on ":port" (every address, both families), "address:port",
// "localhost:port" (both loopback addresses) or, NULL, on a free port. Port 0
// takes a free one, the same in both families; nkt_udp_local tells which. A
// port in use is never taken from who has it.
//
// Never blocks.
// Returns NKT_OK, or
//   NKT_EADDR, NKT_EPORT, NKT_ENAME, NKT_EAMBIGUOUS, NKT_EINVAL   bad argument
//   NKT_ENODEV      no such interface
//   NKT_EFAMILY     an address of another family than opts.family
//   NKT_EADDRINUSE, NKT_EADDRNOTAVAIL, NKT_EACCES, NKT_EMFILE, NKT_ENOMEM
//   NKT_EUNSUPPORTED  icmp_errors or interface_name on a system without
NKT_API int nkt_udp_open(const char *local, const nkt_udp_opts *opts, nkt_udp **udp);
// Sends and receives only to and from one peer from now on; ICMP errors are
// told then. Again for another peer. Never blocks.
// Returns NKT_OK, NKT_EADDR (no address), NKT_EPORT (0), NKT_EFAMILY,
// NKT_EUNSUPPORTED (custom transports), NKT_ENETUNREACH and other refusals.
NKT_API int nkt_udp_connect_addr(nkt_udp *udp, const nkt_addr *peer);
// As nkt_udp_connect_addr, for "host:port"; a name is looked up for at most 30
// s, on a blocking handle only: elsewhere it is NKT_EUNSUPPORTED.
// May block; twin: nkt_lookup_start.
// Returns as nkt_udp_connect_addr or nkt_lookup.
NKT_API int nkt_udp_connect(nkt_udp *udp, const char *peer);

// Sends one datagram to `to`, or to the connected peer if that is NULL. `len`
// may be 0. A group without a scope, or 255.255.255.255, goes out of every
// suitable interface, one copy each, and succeeds if one took it.
// Waits on a blocking handle.
// Returns the bytes sent (always `len`), or
//   NKT_EAGAIN    the system's buffer is full; wait for NKT_WRITE
//   NKT_ETOOLONG  longer than any datagram may be
//   NKT_EMSGSIZE  larger than the path takes, with dont_fragment
//   NKT_EFAMILY   an address of the other family than the handle's
//   NKT_EPORT     port 0;  NKT_ENOTCONN  no `to`, and not connected
//   NKT_EREFUSED, NKT_EHOSTUNREACH   connected: the answer to an earlier
//                 datagram; this one was not sent, call again
//   NKT_ETIMEDOUT, NKT_EINTR, NKT_ECANCELED, NKT_ENETUNREACH, NKT_EACCES
// These hold for every function that sends.
NKT_API ptrdiff_t nkt_udp_send(nkt_udp *udp, const void *data, size_t len, const nkt_addr *to);
// A NUL-terminated text, to "address:port" or, NULL, the connected peer. Names
// are NKT_EADDR: look them up before. Waits on a blocking handle.
NKT_API ptrdiff_t nkt_udp_send_str(nkt_udp *udp, const char *text, const char *to);
// Sends a list in order. Runs of equal length to one peer cost a fraction of
// single calls where the system can segment (Linux), most if they lie back to
// back in memory. Groups go through the interface that the datagram names, or
// the system's choice. Waits on a blocking handle.
// Returns how many were taken, 1 or more, in order: call again with the rest,
// which tells why they stopped; or why the first was not.
NKT_API int nkt_udp_send_many(nkt_udp *udp, const nkt_datagram *list, int count);

// What became of a datagram on one interface.
typedef struct nkt_udp_result {
    nkt_addr to;                // group, or the network's broadcast address
    uint32_t interface_index;
    int32_t err;                // NKT_OK or why not
    int32_t os_error;
    int32_t reserved;
} nkt_udp_result;

// Sends to a group or to 255.255.255.255, as nkt_udp_send, and tells of each
// interface. Other addresses are NKT_EGROUP. Never waits for room: that is the
// interface's NKT_EAGAIN. Never blocks.
// Returns how many interfaces there were, of which `cap` are told, or
// NKT_ENETUNREACH (none), NKT_EPORT, NKT_ETOOLONG, NKT_EFAMILY, NKT_ECANCELED.
NKT_API int nkt_udp_send_each(nkt_udp *udp, const void *data, size_t len, const nkt_addr *to,
                              nkt_udp_result *results, int cap);
// Sends to every IPv4 network at hand by its own broadcast address, from the
// prefix length, and to the other end of point-to-point links; to
// 127.255.255.255 if there is neither. Waits on a blocking handle.
// Returns as nkt_udp_send: the bytes sent if one network took it.
NKT_API ptrdiff_t nkt_udp_broadcast(nkt_udp *udp, const void *data, size_t len, uint16_t port);

// Receives one datagram, which may be empty (0), and tells from whom; `from`
// may be NULL. Waits on a blocking handle.
// Returns its bytes, or
//   NKT_EAGAIN      nothing there now
//   NKT_ETRUNCATED  longer than `cap`: its first `cap` bytes are in `buf`, the
//                   rest is lost; `from` is filled
//   NKT_EREFUSED, NKT_EHOSTUNREACH, NKT_ENETUNREACH, NKT_EACCES, NKT_EMSGSIZE
//                   an ICMP error answered a datagram of ours, on a connected
//                   handle or with opts.icmp_errors; `from` is whom it was for
//   NKT_ETIMEDOUT   recv_timeout_ms passed
//   NKT_EINTR       a signal came; call again
//   NKT_ECANCELED   after nkt_udp_interrupt
// These hold for every function that receives.
NKT_API ptrdiff_t nkt_udp_recv(nkt_udp *udp, void *buf, size_t cap, nkt_addr *from);
// Receives one datagram into datagram->data, of datagram->cap bytes, and tells
// all there is to know of it. One that did not fit is NKT_OK here, with
// `truncated`. Waits on a blocking handle. Returns NKT_OK or as nkt_udp_recv.
NKT_API int nkt_udp_recv_datagram(nkt_udp *udp, nkt_datagram *datagram);
// Receives what is there, at least one, at most `cap`, in few system calls. The
// list's data are views into the handle's buffer (1 MiB from the first call on,
// on Linux 4 MiB, of which no more is touched than is needed), and they live
// until the next receiving call; none is truncated.
// Waits on a blocking handle. Returns how many or as nkt_udp_recv, with
// list[0].addr for ICMP errors.
NKT_API int nkt_udp_recv_many(nkt_udp *udp, nkt_datagram *list, int cap);

// Ends every wait on the handle with NKT_ECANCELED, now and for good. Any
// thread, until it is closed. Never blocks.
NKT_API void nkt_udp_interrupt(nkt_udp *udp);
// Closes and frees it; takes it out of its poller and its groups. No other
// thread may be in a call of it. NULL is allowed. Never blocks.
NKT_API void nkt_udp_close(nkt_udp *udp);
// Where it is bound: with both families [::] and the port. Never blocks.
// Returns NKT_OK, or NKT_ENOTCONN where the transport has no address.
NKT_API int nkt_udp_local(nkt_udp *udp, nkt_addr *addr);
// Never blocks. Returns NKT_OK or NKT_ENOTCONN.
NKT_API int nkt_udp_peer(nkt_udp *udp, nkt_addr *addr);
// The first descriptor, still netkit's, or NKT_NO_FD. Never blocks.
NKT_API nkt_fd nkt_udp_descriptor(nkt_udp *udp);
// The system's code behind the last failed call, 0 if none. Never blocks.
NKT_API int32_t nkt_udp_os_error(const nkt_udp *udp);
// What must be waited for, outside a poller; as nkt_conn_watch. Never blocks.
// Returns NKT_OK.
NKT_API int nkt_udp_watch(nkt_udp *udp, uint32_t want, nkt_interest *interest);

typedef struct nkt_udp_info {
    uint64_t received;          // datagrams
    uint64_t received_bytes;
    uint64_t sent;
    uint64_t sent_bytes;
    uint64_t truncated;         // of those received
    uint32_t joined;            // pairs of group and interface
    uint32_t sockets;           // 0, 1 or 2
} nkt_udp_info;

// Never blocks. Returns NKT_OK.
NKT_API int nkt_udp_get_info(nkt_udp *udp, nkt_udp_info *info);
// Never blocks. Returns NKT_OK, NKT_EINVAL for an option or value that is none,
// NKT_ENODEV for an interface, NKT_EUNSUPPORTED where there is no such thing.
NKT_API int nkt_udp_set_option(nkt_udp *udp, nkt_udp_option option, int64_t value);
NKT_API int nkt_udp_get_option(nkt_udp *udp, nkt_udp_option option, int64_t *value);

// As nkt_poller_add_conn, nkt_poller_want and nkt_poller_remove_conn; at most
// 16 receiving calls succeed between two waits. Never blocks.
NKT_API int nkt_poller_add_udp(nkt_poller *poller, nkt_udp *udp, void *user);
NKT_API int nkt_poller_want_udp(nkt_poller *poller, nkt_udp *udp, uint32_t events);
NKT_API int nkt_poller_remove_udp(nkt_poller *poller, nkt_udp *udp);

// Makes a handle of your own transport. Of opts, env, nonblocking and the
// time-outs count. On failure `self` is still yours. Never blocks.
// Returns NKT_OK, NKT_EINVAL for a table without recv, send or close,
// NKT_ENOMEM.
NKT_API int nkt_udp_open_custom(const nkt_datagram_transport *transport, void *self,
                                const nkt_udp_opts *opts, nkt_udp **udp);
// Puts a transport on top of a handle. On failure `self` is still yours. Never
// blocks. Returns NKT_OK, NKT_EINVAL, NKT_ENOMEM, or NKT_EBUSY after
// nkt_udp_recv_many: push before.
NKT_API int nkt_udp_push(nkt_udp *udp, const nkt_datagram_transport *transport, void *self);

// The system's own table, to copy and change. Static. Never blocks.
NKT_API const nkt_sys_udp *nkt_sys_udp_default(void);

//==============================================================================
// MARK: @packets - two datagram handles in memory
//
// What is sent by one is received by the other, across threads if need be.
// There is no socket; time-outs, pollers and limits are as on UDP.
//==============================================================================

// Two handles in memory: what one sends the other receives. `capacity` is how
// many bytes may be under way in each direction, 0 = 262,144, each datagram
// counting 32 more: a longer one is NKT_EMSGSIZE, one that does not fit now
// NKT_EAGAIN, so that none is lost. With the other end closed sending is
// NKT_EREFUSED. Addresses are not looked at. Never blocks.
// Returns NKT_OK, NKT_ENOMEM or NKT_EINVAL.
NKT_API int nkt_udp_pair(const nkt_udp_opts *a_opts, const nkt_udp_opts *b_opts,
                         uint32_t capacity, nkt_udp **a, nkt_udp **b);
#endif

#ifndef NETKIT_NO_SIM
//==============================================================================
// MARK: @impair - a bad network on demand
//
//     nkt_impairment bad = {0};
//     bad.latency_ms = 80; bad.jitter_ms = 20; bad.loss = 0.02; bad.seed = 7;
//     nkt_udp_impair(udp, &bad);
//
// The handle stays what it was, and so does the program: only what it sends
// comes late, twice, broken or not at all, and what it is sent too. Each
// direction is a path of its own:
//
//     MTU -> loss -> queue -> rate -> stalls -> latency, jitter -> the peer
//
// Chance is drawn from the seed and the number of the datagram alone: the same
// seed and the same datagrams give the same fates, on every system, and turning
// one knob does not change what another one does.
//
// A stream loses nothing: a segment (1,460 bytes, or `mtu` less 40) that is
// lost or broken comes a round trip later and holds up what is behind it, as
// TCP does it; `duplicate` and `reorder` are invisible there.
//
// What is under way when its sender is closed still arrives, for at most 60 s
// and while the environment and the process last, by a thread of netkit's own
// that also moves what no poller moves. (With NETKIT_NO_THREADS nothing moves
// but in calls that send or wait and on pollers, and closing discards it.)
//==============================================================================

enum { NKT_JITTER_UNIFORM, NKT_JITTER_NORMAL };

// How a direction ends before its time.
enum {
    NKT_CUT_NONE,
    NKT_CUT_SILENT,             // nothing arrives any more, and nobody is told
    NKT_CUT_RESET,              // streams: NKT_ERESET here, and for the peer at the close
    NKT_CUT_END                 // streams: the end of the stream, one direction
};

struct nkt_impair_step;

// All of it zero is a perfect network. Fractions are 0 to 1; times are in
// milliseconds, up to an hour, and may be parts of one.
typedef struct nkt_impairment {
    uint64_t seed;              // 0 = by chance; nkt_impair_stats tells which. The
                                // numbers go on when a handle is impaired again
    double latency_ms;          // one way; what comes in, from when it is taken in
    double jitter_ms;           // uniform: at most so much more or less; normal:
                                // standard deviation, never below 0 in all
    int32_t jitter;             // NKT_JITTER_UNIFORM or NKT_JITTER_NORMAL
    bool overtake;              // jitter may change the order; else a datagram waits
                                // for those before it
    int64_t rate;               // bytes/s, with 28 (IPv6: 48) of headers for each
                                // datagram; 0 = no limit
    uint32_t queue_bytes;       // that wait for the rate; 0 = 131,072. More are lost;
                                // a stream's sender waits
    uint32_t mtu;               // longer packets, with headers, are lost; 0 = none
    double loss;                // fraction of datagrams
    double loss_burst;          // Gilbert-Elliott: datagrams that the bad state lasts
                                // on average; 0 and 1 = each is lost by itself
    double burst_loss;          // and the fraction lost in that state; 0 = all
    double duplicate;           // come twice
    double reorder;             // come `reorder_ms` later than their turn
    double reorder_ms;          // 0 = 20
    double corrupt;             // have one bit flipped
    double stall;               // fraction of datagrams, or of a stream's reads
                                // and writes, before which nothing moves for
    double stall_ms;            // so long; 0 = 100
    uint32_t piece_max;         // streams: a read or write moves 1 to this many bytes,
                                // by chance; 0 = all it can
    int32_t cut;                // NKT_CUT_...
    int64_t cut_bytes;          // after so many ...
    double cut_ms;              // ... or so long; both 0 = at once
    double accept_ms;           // listeners: so much later is each accepted; that of
                                // `receiving` counts, if there is one
    const struct nkt_impair_step *steps;    // a schedule; copied
    uint32_t step_count;        // up to 256
    double repeat_ms;           // it begins anew each so often; 0 = once
    nkt_problem *problem;       // filled when it is refused; NULL = none
} nkt_impairment;

// What holds instead for a while, counted from the call that began it.
typedef struct nkt_impair_step {
    double at_ms;
    double for_ms;
    const nkt_impairment *to;   // without steps of its own; NULL = all is lost
} nkt_impair_step;

// What one direction has done. Datagrams, or segments of a stream. What goes
// straight through, with nothing to impair it, is not counted.
typedef struct nkt_impair_stats {
    uint64_t seed;              // that repeats it
    uint64_t sent, sent_bytes;  // that came in at the path's beginning
    uint64_t delivered, delivered_bytes;
    uint64_t lost;              // by chance, by a step, by a cut
    uint64_t overflowed;        // lost because the queue was full
    uint64_t oversized;         // lost because of the MTU
    uint64_t duplicated;
    uint64_t reordered;         // delivered after one that was sent later (RFC 4737)
    uint64_t corrupted;
    uint64_t stalls;
    uint64_t under_way;         // now
    uint64_t queue_high;        // the most bytes that waited for the rate
} nkt_impair_stats;

// Puts the network of that name, as seen by its user, into two impairments:
// what the user sends and what he receives. They can be changed before they are
// used. `problem` may be NULL. Never blocks.
// Returns NKT_OK, or NKT_ENOTFOUND for a name that is none; see below.
NKT_API int nkt_impair_profile(const char *name, nkt_impairment *sending,
                               nkt_impairment *receiving, nkt_problem *problem);
// The names, from index 0, and where each one's figures are from; NULL past the
// last. Static. Never blocks.
NKT_API const char *nkt_impair_profile_name(int index);
NKT_API const char *nkt_impair_profile_source(int index);

// Impairs a handle, or changes how it is impaired; NULL ends it, and what is
// under way arrives in its time. The first form is for both directions alike,
// the second for each its own. The handle's own thread, or one of the two of a
// blocking one: if the other waits, it goes by the new settings at once, but
// the first time only from its next call on. Never blocks.
// Returns NKT_OK, or
//   NKT_EINVAL  out of range, or two fields contradict each other: `problem`
//               names the field and the range
//   NKT_EBUSY   a datagram handle that holds datagrams of nkt_udp_recv_many
//   NKT_ENOMEM, NKT_EOS (no seed to be had)
NKT_API int nkt_conn_impair(nkt_conn *conn, const nkt_impairment *both);
NKT_API int nkt_conn_impair_ways(nkt_conn *conn, const nkt_impairment *sending,
                                 const nkt_impairment *receiving);
// What one direction, NKT_WRITE or NKT_READ, has done. Never blocks.
// Returns NKT_OK, NKT_EINVAL, or NKT_ENOTFOUND if it was never impaired.
NKT_API int nkt_conn_impair_stats(nkt_conn *conn, uint32_t direction, nkt_impair_stats *stats);
// Impairs what the listener accepts from now on, each with a seed of its own
// that follows from this one, and delays accepting; NULL ends it. Both pointers
// are from the side of the listener. Never blocks. Returns as nkt_conn_impair.
NKT_API int nkt_listener_impair(nkt_listener *listener, const nkt_impairment *both);
NKT_API int nkt_listener_impair_ways(nkt_listener *listener, const nkt_impairment *sending,
                                     const nkt_impairment *receiving);
#ifndef NETKIT_NO_UDP
// The same of datagrams. Never blocks. Return as those of connections.
NKT_API int nkt_udp_impair(nkt_udp *udp, const nkt_impairment *both);
NKT_API int nkt_udp_impair_ways(nkt_udp *udp, const nkt_impairment *sending,
                                const nkt_impairment *receiving);
NKT_API int nkt_udp_impair_stats(nkt_udp *udp, uint32_t direction, nkt_impair_stats *stats);
#endif

//==============================================================================
// MARK: @virtual - a clock that jumps
//
//     nkt_env env;
//     nkt_env_init_virtual(&env, 7);           // seed
//     opts.env = &env;                         // pairs, pollers, tasks
//
// An environment in which waiting takes no time: when everybody waits, the
// clock jumps to the first deadline, and hours pass in milliseconds. Time-outs,
// pollers, timers and blocking calls follow it; between two jumps time stands
// still. A call that waits without a deadline while nobody is left who could
// end it returns NKT_EDEADLK. There are no sockets of the system: opening or
// adding one is NKT_EVIRTUAL, adopting one NKT_ENOTSOCK. In-memory pairs, bare
// and impaired, are what it runs.
//
// Who finds something to do in each wait, as a poller with unread input does,
// lets no time pass.
//
// Blocking calls need threads, and the clock must know them: the one that made
// the environment, those of nkt_thread_start, and those that join. They run one
// at a time, in a fixed order, so that a run can be repeated exactly. A thread
// that is about to wait for something else than netkit leaves first.
//==============================================================================

// As nkt_env_init, at instant 0, with nkt_random from the seed. The calling
// thread is in. Host names are not found, unless env->resolve is set: it is
// called on the spot. Never blocks.
// Returns NKT_OK, NKT_ENOMEM, NKT_EMFILE or NKT_EOS.
NKT_API int nkt_env_init_virtual(nkt_env *env, uint64_t seed);
// The calling thread comes under the virtual clock, and leaves it.
// May block; twin: nkt_thread_start. Returns NKT_OK, NKT_ENOMEM, NKT_EMFILE, or
// NKT_EINVAL if the environment's clock is not virtual.
NKT_API int nkt_virtual_join(nkt_env *env);
// Never blocks. Returns NKT_OK, or NKT_EINVAL.
NKT_API int nkt_virtual_leave(nkt_env *env);
#endif

#ifndef NETKIT_NO_LAYOUT
//==============================================================================
// MARK: @layout - sizes and offsets, for bindings
//
// A binding in another language writes down the structures once more. This
// lists the compiled truth, so that it can compare before the first call.
//==============================================================================

// Every public structure and field, in the order of declaration: `names` is
// "nkt_addr", ".ip", ".port", ... each ended by NUL, the last by two. `numbers`
// has two for each name, offset and size; the offset of a structure itself is
// 0. Static. Never blocks. Returns how many names there are.
NKT_API size_t nkt_layout(const char **names, const uint16_t **numbers);
#endif

#ifdef __cplusplus
}
#endif

#endif // NETKIT_H

//#### IMPLEMENTATION ####
#if defined(NETKIT_IMPLEMENTATION) || defined(__INTELLISENSE__) || defined(__CLANGD__)
#ifndef NETKIT_IMPLEMENTED
#define NETKIT_IMPLEMENTED

//==============================================================================
// MARK: @sys.config - headers, and what each system has
//
// Everything that differs between systems stands in the @sys sections, behind
// tables of functions; the rest of the file has no #ifdef of a system. Here are
// the headers, and a constant for each difference that matters further up.
//==============================================================================

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef NETKIT_ASSERT
    #include <assert.h>
    #define NETKIT_ASSERT(condition) assert(condition)
#endif

#if defined(_WIN32)
    #ifndef WIN32_LEAN_AND_MEAN
        #define WIN32_LEAN_AND_MEAN
    #endif
    #ifndef NOMINMAX
        #define NOMINMAX
    #endif
    #include <winsock2.h>
    #include <ws2tcpip.h>
    #include <windows.h>
    #include <mswsock.h>
    #include <iphlpapi.h>
    #include <netioapi.h>
    #include <process.h>
    #ifdef _MSC_VER
        #include <intrin.h>
        #pragma comment(lib, "ws2_32.lib")
        #pragma comment(lib, "iphlpapi.lib")
    #endif
    #define NKTI_WINDOWS 1
    typedef WSAPOLLFD nkti_pollfd;
#else
    #include <errno.h>
    #include <dlfcn.h>
    #include <fcntl.h>
    #include <ifaddrs.h>
    #include <net/if.h>
    #include <netdb.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <poll.h>
    #include <pthread.h>
    #include <signal.h>
    #include <sys/ioctl.h>
    #include <sys/socket.h>
    #include <sys/stat.h>
    #include <sys/time.h>
    #include <sys/types.h>
    #include <sys/uio.h>
    #include <sys/un.h>
    #include <time.h>
    #include <unistd.h>
    #define NKTI_WINDOWS 0
    typedef struct pollfd nkti_pollfd;
    #if !defined(CLOCK_MONOTONIC) || !defined(S_ISSOCK)
        #error "netkit: where NETKIT_IMPLEMENTATION is defined, include netkit.h before \
system headers, or compile with -D_GNU_SOURCE or -std=gnu99"
    #endif
#endif

#if defined(__linux__)
    #include <sys/eventfd.h>
    #include <sys/random.h>
    #include <sys/syscall.h>
    #define NKTI_LINUX 1
    #if !defined(__cplusplus) && !defined(__USE_GNU)
        // Hidden from those who included a system header before netkit.h.
        extern int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
    #endif
#else
    #define NKTI_LINUX 0
    #if !NKTI_WINDOWS
        #include <net/if_dl.h>
    #endif
#endif

#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) ||                \
    defined(__OpenBSD__) || defined(__DragonFly__)
    #define NKTI_BSD 1
#else
    #define NKTI_BSD 0
#endif

// NKTI_KQUEUE_SHIM is for the tests: the kqueue code on Linux, over a
// <sys/event.h> of theirs.
#if !defined(NETKIT_USE_POLL) && NKTI_LINUX && !defined(NKTI_KQUEUE_SHIM)
    #define NKTI_EPOLL 1
    #include <sys/epoll.h>
#else
    #define NKTI_EPOLL 0
#endif

#if !defined(NETKIT_USE_POLL) && (NKTI_BSD || defined(NKTI_KQUEUE_SHIM))
    #define NKTI_KQUEUE 1
    #include <sys/event.h>
    #include <sys/param.h>
    #if defined(__NetBSD__) && __NetBSD_Version__ < 1000000000
        #define NKTI_UDATA (intptr_t)       // an integer before NetBSD 10
    #else
        #define NKTI_UDATA (void *)
    #endif
#else
    #define NKTI_KQUEUE 0
#endif

#if !defined(NETKIT_NO_SIMD) && (defined(__SSE2__) || defined(_M_X64))
    #define NKTI_SSE2 1
    #include <emmintrin.h>
#else
    #define NKTI_SSE2 0
#endif

#if !defined(NETKIT_NO_SIMD) && defined(__aarch64__) && defined(__ARM_NEON)
    #define NKTI_NEON 1
    #include <arm_neon.h>
#else
    #define NKTI_NEON 0
#endif

// The OpenBSD kernel has no socket that takes both families.
#if defined(__OpenBSD__)
    #define NKTI_DUAL_STACK 0
#else
    #define NKTI_DUAL_STACK 1
#endif

// Whether a descriptor can be opened nonblocking and close-on-exec in one step:
// not on macOS.
#if defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC)
    #define NKTI_OPEN_FLAGS 1
#else
    #define NKTI_OPEN_FLAGS 0
#endif

// Whether code can keep itself from being unloaded.
#define NKTI_CAN_PIN 0
#if !NKTI_WINDOWS
    #if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
        #if __GLIBC_PREREQ(2, 34) || defined(NETKIT_SHARED)
            #undef NKTI_CAN_PIN
            #define NKTI_CAN_PIN 1
        #endif
    #else
        #undef NKTI_CAN_PIN
        #define NKTI_CAN_PIN 1
    #endif
#endif
#if NKTI_CAN_PIN && defined(__GLIBC__) && !defined(__USE_GNU)
    // Hidden from those who included a system header before netkit.h.
    typedef struct nkti_dl_info {
        const char *dli_fname;
        void *dli_fbase;
        const char *dli_sname;
        void *dli_saddr;
    } nkti_dl_info;
    extern int dladdr(const void *address, nkti_dl_info *info);
#elif NKTI_CAN_PIN
    typedef Dl_info nkti_dl_info;
#endif

// Whether accepted sockets have the options of the listening one.
#if NKTI_WINDOWS
    #define NKTI_ACCEPT_INHERITS 0
#else
    #define NKTI_ACCEPT_INHERITS 1
#endif

#define NKTI_PIECES_MAX 64          // pieces handed to the system in one send
// Bytes in one send. Windows takes a nonblocking send whole into memory that
// cannot be paged, or fails; elsewhere it is below every system's limit.
#if NKTI_WINDOWS
    #define NKTI_SEND_MAX 0x100000
#else
    #define NKTI_SEND_MAX 0x40000000
#endif

// Whether an interface given for listening keeps the others out. Windows only
// lets it say where to send.
#define NKTI_LISTEN_INTERFACE (!NKTI_WINDOWS)

#define NKTI_MS ((int64_t)1000000)

// APART is for what needs so much stack that its callers must not pay for it.
// INLINE is for the way to a system call that is made millions of times: behind
// one each return is mispredicted where the kernel clears what predicts them,
// and costs some 10 ns. DIRECT is whether the system's own functions are called
// there without the pointer of a table. Who builds for size does without both,
// and who does not optimise at all has nothing inline.
#if defined(_MSC_VER)
    #define NKTI_APART static __declspec(noinline)
    #define NKTI_INLINE static __forceinline
#elif defined(__GNUC__) && (defined(__OPTIMIZE_SIZE__) || !defined(__OPTIMIZE__))
    #define NKTI_APART static __attribute__((noinline))
    #define NKTI_INLINE static
#elif defined(__GNUC__)
    #define NKTI_APART static __attribute__((noinline))
    #define NKTI_INLINE static inline __attribute__((always_inline))
#else
    #define NKTI_APART static
    #define NKTI_INLINE static
#endif
#if defined(__OPTIMIZE_SIZE__)
    #define NKTI_DIRECT 0
#else
    #define NKTI_DIRECT 1
#endif

// Whether a connect under way must be looked at now and then; see
// nkti_os_connect_result.
#define NKTI_CONNECT_RECHECK NKTI_WINDOWS

static unsigned nkti_lowest_bit(uint64_t mask) {
#if defined(__GNUC__)
    return (unsigned)__builtin_ctzll(mask);
#elif defined(_MSC_VER) && defined(_WIN64)
    unsigned long index;
    _BitScanForward64(&index, mask);
    return (unsigned)index;
#else
    unsigned count = 0;
    while ((mask & 1) == 0) {
        mask >>= 1;
        count++;
    }
    return count;
#endif
}

// Rounded up, so that a wait never ends before its time.
static int nkti_ns_to_ms(int64_t timeout_ns) {
    if (timeout_ns < 0) return -1;
    int64_t ms = timeout_ns / NKTI_MS + (timeout_ns % NKTI_MS != 0);
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

//==============================================================================
// MARK: @util - memory, text and time, used by everything above
//
// Memory goes through the environment's allocator with its size on both ways,
// so that an arena can stand underneath. Text for people is put together by a
// small writer that cannot overrun and remembers whether it was cut.
//==============================================================================

static void *nkti_resize(nkt_env *env, void *ptr, size_t old_size, size_t new_size) {
    if (env->allocate != NULL) return env->allocate(env, ptr, old_size, new_size);
    if (new_size == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, new_size);
}

static void *nkti_alloc(nkt_env *env, size_t size) {
    void *ptr = nkti_resize(env, NULL, 0, size);
    if (ptr != NULL) memset(ptr, 0, size);
    return ptr;
}

static void nkti_free(nkt_env *env, void *ptr, size_t size) {
    if (ptr != NULL) (void)nkti_resize(env, ptr, size, 0);
}

// An instant `delay_ns` from `now`, or never.
static int64_t nkti_after(int64_t now, int64_t delay_ns) {
    return delay_ns > NKT_NEVER - now ? NKT_NEVER : now + delay_ns;
}

// The same in milliseconds; fewer than none are no time-out.
static int64_t nkti_deadline(int64_t now, int64_t timeout_ms) {
    return timeout_ms < 0 ? NKT_NEVER : nkti_after(now, timeout_ms * NKTI_MS);
}

static int64_t nkti_min_time(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// How long until an instant, for a wait: -1 for never.
static int64_t nkti_until(int64_t now, int64_t deadline) {
    if (deadline == NKT_NEVER) return NKT_NO_TIMEOUT;
    return deadline > now ? deadline - now : 0;
}

typedef struct nkti_text {
    char *buf;
    size_t cap;
    size_t len;             // without NUL; never reaches cap
    bool cut;
} nkti_text;

static nkti_text nkti_text_begin(char *buf, size_t cap) {
    nkti_text text;
    text.buf = buf;
    text.cap = cap;
    text.len = 0;
    text.cut = cap == 0;
    if (cap > 0) buf[0] = '\0';
    return text;
}

static void nkti_text_bytes(nkti_text *text, const char *ptr, size_t len) {
    if (text->cap == 0) return;
    size_t room = text->cap - 1 - text->len;
    if (len > room) {
        len = room;
        text->cut = true;
    }
    memcpy(text->buf + text->len, ptr, len);
    text->len += len;
    text->buf[text->len] = '\0';
}

static void nkti_text_str(nkti_text *text, const char *str) {
    nkti_text_bytes(text, str, strlen(str));
}

// One of many texts that stand one behind the other, each with its NUL. A table
// of pointers would be larger, and have to be relocated in a shared library.
static const char *nkti_packed(const char *texts, int index) {
    while (index-- > 0) texts += strlen(texts) + 1;
    return texts;
}

static void nkti_text_number(nkti_text *text, int64_t number) {
    char digits[24];
    size_t at = sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (number < 0) digits[--at] = '-';
    nkti_text_bytes(text, digits + at, sizeof digits - at);
}

//==============================================================================
// MARK: @sys.core - opening sockets and setting them up, on each system
//
// A function here does one system call or little more, and turns the system's
// error into one of ours:
//
//     system call --> errno / WSAGetLastError --> nkti_os_result --> NKT_E...
//
// Waiting happens in nkti_os_wait, nkti_os_recv_wait and the wait functions of
// @sys.poll, and nowhere else.
//
// Descriptors are nonblocking and close-on-exec.
//==============================================================================

// --- Errors ------------------------------------------------------------------

#if NKTI_WINDOWS
    typedef int16_t nkti_os_code;
#else
    typedef uint8_t nkti_os_code;
#endif

typedef struct nkti_error_row {
    nkti_os_code os;
    int8_t err;
} nkti_error_row;

#if NKTI_WINDOWS
static int nkti_os_error(void) {
    return WSAGetLastError();
}

static void nkti_os_set_error(int os_error) {
    WSASetLastError(os_error);
}

static const nkti_error_row nkti_error_rows[] = {
    { WSAEWOULDBLOCK, NKT_EAGAIN },     { WSAEINPROGRESS, NKT_EAGAIN },
    { WSAEINTR, NKT_EINTR },            { WSAEACCES, NKT_EACCES },
    { WSAEINVAL, NKT_EINVAL },          { WSAEMFILE, NKT_EMFILE },
    { WSAENOTSOCK, NKT_ENOTSOCK },      { WSAEMSGSIZE, NKT_EMSGSIZE },
    { WSAEADDRINUSE, NKT_EADDRINUSE },  { WSAEADDRNOTAVAIL, NKT_EADDRNOTAVAIL },
    { WSAENETDOWN, NKT_ENETDOWN },      { WSAENETUNREACH, NKT_ENETUNREACH },
    { WSAENETRESET, NKT_ERESET },       { WSAECONNABORTED, NKT_EABORTED },
    { WSAECONNRESET, NKT_ERESET },      { WSAENOBUFS, NKT_ENOMEM },
    { WSA_NOT_ENOUGH_MEMORY, NKT_ENOMEM }, { WSAENOTCONN, NKT_ENOTCONN },
    { WSAESHUTDOWN, NKT_EPIPE },        { WSAETIMEDOUT, NKT_ETIMEDOUT },
    { WSAECONNREFUSED, NKT_EREFUSED },  { WSAEHOSTUNREACH, NKT_EHOSTUNREACH },
    { WSAEAFNOSUPPORT, NKT_EUNSUPPORTED }, { WSAEPROTONOSUPPORT, NKT_EUNSUPPORTED },
    { WSAENOPROTOOPT, NKT_EUNSUPPORTED },  { WSAEOPNOTSUPP, NKT_EUNSUPPORTED },
    { WSAESOCKTNOSUPPORT, NKT_EUNSUPPORTED }, { WSAEBADF, NKT_ENOTSOCK },
    { WSAEHOSTDOWN, NKT_EHOSTUNREACH }, { WSAEALREADY, NKT_EAGAIN },
    { WSAEDISCON, NKT_EOF },
    { ERROR_FILE_NOT_FOUND, NKT_ENOTFOUND }, { ERROR_PATH_NOT_FOUND, NKT_ENOTFOUND },
};
#else
static int nkti_os_error(void) {
    return errno;
}

static void nkti_os_set_error(int os_error) {
    errno = os_error;
}

// What comes often stands first.
static const nkti_error_row nkti_error_rows[] = {
    { EAGAIN, NKT_EAGAIN }, { EWOULDBLOCK, NKT_EAGAIN }, { EINPROGRESS, NKT_EAGAIN },
    { EALREADY, NKT_EAGAIN }, { EINTR, NKT_EINTR }, { EINVAL, NKT_EINVAL },
    { EACCES, NKT_EACCES }, { EPERM, NKT_EACCES }, { EMFILE, NKT_EMFILE },
    { ENFILE, NKT_EMFILE }, { ENOMEM, NKT_ENOMEM }, { ENOBUFS, NKT_ENOMEM },
    { EBADF, NKT_ENOTSOCK }, { ENOTSOCK, NKT_ENOTSOCK }, { EMSGSIZE, NKT_EMSGSIZE },
    { EADDRINUSE, NKT_EADDRINUSE }, { EADDRNOTAVAIL, NKT_EADDRNOTAVAIL },
    { ENETDOWN, NKT_ENETDOWN }, { ENETUNREACH, NKT_ENETUNREACH },
    { EHOSTUNREACH, NKT_EHOSTUNREACH }, { EHOSTDOWN, NKT_EHOSTUNREACH },
    { ECONNABORTED, NKT_EABORTED }, { ECONNRESET, NKT_ERESET }, { ENETRESET, NKT_ERESET },
    { ECONNREFUSED, NKT_EREFUSED }, { ETIMEDOUT, NKT_ETIMEDOUT }, { ENOTCONN, NKT_ENOTCONN },
    { EPIPE, NKT_EPIPE }, { ESHUTDOWN, NKT_EPIPE }, { EPROTO, NKT_EPROTO },
    { ENOENT, NKT_ENOTFOUND }, { ENOTDIR, NKT_ENOTFOUND }, { ENODEV, NKT_ENODEV },
    { ENXIO, NKT_ENODEV }, { EAFNOSUPPORT, NKT_EUNSUPPORTED },
    { EPROTONOSUPPORT, NKT_EUNSUPPORTED }, { ENOPROTOOPT, NKT_EUNSUPPORTED },
    { EOPNOTSUPP, NKT_EUNSUPPORTED }, { EPFNOSUPPORT, NKT_EUNSUPPORTED },
    { EPROTOTYPE, NKT_EPIPE },      // macOS, of a socket that is being closed
};
#endif

static int nkti_error_from_os(int os_error) {
    for (size_t i = 0; i < sizeof nkti_error_rows / sizeof nkti_error_rows[0]; i++) {
        if (nkti_error_rows[i].os == os_error) return nkti_error_rows[i].err;
    }
    return NKT_EOS;
}

// What a system call's result means: below zero, its error.
static int nkti_os_result(int result) {
    return result >= 0 ? NKT_OK : nkti_error_from_os(nkti_os_error());
}

static int32_t nkti_os_last_error(nkt_env *env) {
    (void)env;
    return (int32_t)nkti_os_error();
}

// --- Opening and closing -----------------------------------------------------

#if NKTI_WINDOWS
    typedef SOCKET nkti_socket;
    typedef int nkti_socklen;
    #define NKTI_AF_UNIX 1
#else
    typedef int nkti_socket;
    typedef socklen_t nkti_socklen;
    #define NKTI_AF_UNIX AF_UNIX
#endif

static int nkti_family_to_os(int family) {
    return family == NKT_IPV4 ? AF_INET : family == NKT_IPV6 ? AF_INET6 : NKTI_AF_UNIX;
}

static int nkti_os_set_blocking(nkt_env *env, nkt_fd fd, bool blocking) {
    (void)env;
#if NKTI_WINDOWS
    u_long nonblocking = blocking ? 0 : 1;
    return nkti_os_result(ioctlsocket((SOCKET)fd, (long)FIONBIO, &nonblocking));
#else
    int flags = fcntl((int)fd, F_GETFL, 0);
    if (flags < 0) return nkti_os_result(flags);
    int wanted = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
    return flags == wanted ? NKT_OK : nkti_os_result(fcntl((int)fd, F_SETFL, wanted));
#endif
}

// What a new descriptor needs where the system cannot say it while opening.
static int nkti_os_prepare(nkt_fd fd) {
    int err = NKT_OK;
#if NKTI_WINDOWS
    SetHandleInformation((HANDLE)fd, HANDLE_FLAG_INHERIT, 0);
    err = nkti_os_set_blocking(NULL, fd, false);
#else
    if (!NKTI_OPEN_FLAGS) {
        err = nkti_os_result(fcntl((int)fd, F_SETFD, FD_CLOEXEC));
        if (err >= 0) err = nkti_os_set_blocking(NULL, fd, false);
    }
    #if defined(SO_NOSIGPIPE) && !defined(MSG_NOSIGNAL)
    int on = 1;
    if (err >= 0) setsockopt((int)fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
    #endif
#endif
    return err;
}

static int nkti_os_close(nkt_env *env, nkt_fd fd) {
    (void)env;
#if NKTI_WINDOWS
    return nkti_os_result(closesocket((SOCKET)fd));
#else
    // Never retried: after EINTR the descriptor is gone, and its number may be
    // another thread's by now.
    return nkti_os_result(close((int)fd));
#endif
}

static int nkti_os_open(nkt_env *env, int family, int type, nkt_fd *fd) {
    int os_type = type == 2 ? SOCK_DGRAM : SOCK_STREAM;
#if NKTI_WINDOWS
    const DWORD no_inherit = 0x80;  // WSA_FLAG_NO_HANDLE_INHERIT
    nkti_socket opened = WSASocketW(nkti_family_to_os(family), os_type, 0, NULL, 0,
                                    WSA_FLAG_OVERLAPPED | no_inherit);
#elif NKTI_OPEN_FLAGS
    nkti_socket opened = socket(nkti_family_to_os(family),
                                os_type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
    nkti_socket opened = socket(nkti_family_to_os(family), os_type, 0);
#endif
    if ((intptr_t)opened == -1) return nkti_error_from_os(nkti_os_error());
    int err = nkti_os_prepare((nkt_fd)opened);
    if (err < 0) {
        nkti_os_close(env, (nkt_fd)opened);
        return err;
    }
    *fd = (nkt_fd)opened;
    return NKT_OK;
}

static int nkti_os_bind(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    (void)env;
    int err = nkti_os_result(bind((nkti_socket)fd, (const struct sockaddr *)addr,
                                  (nkti_socklen)len));
    // Windows has no privileged ports: it says so of a port that is another
    // program's for itself alone.
    return NKTI_WINDOWS && err == NKT_EACCES ? (int)NKT_EADDRINUSE : err;
}

static int nkti_os_listen(nkt_env *env, nkt_fd fd, int backlog) {
    (void)env;
    return nkti_os_result(listen((nkti_socket)fd, backlog));
}

// Linux hands errors that were pending on the new connection to accept; like
// an aborted one they concern that connection alone (accept(2)).
static int nkti_accept_error(int os_error) {
    int err = nkti_error_from_os(os_error);
    if (err == NKT_ENETDOWN || err == NKT_EPROTO || err == NKT_EHOSTUNREACH ||
        err == NKT_ENETUNREACH || err == NKT_EUNSUPPORTED || err == NKT_ERESET ||
        err == NKT_ETIMEDOUT || err == NKT_EACCES) return NKT_EABORTED;
    return err;
}

static int nkti_os_accept(nkt_env *env, nkt_fd fd, nkt_fd *out, void *addr, size_t *len) {
    nkti_socklen size = len != NULL ? (nkti_socklen)*len : 0;
    nkti_socklen *size_ptr = len != NULL ? &size : NULL;
#if NKTI_OPEN_FLAGS
    nkti_socket opened = accept4((int)fd, (struct sockaddr *)addr, size_ptr,
                                 SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    nkti_socket opened = accept((nkti_socket)fd, (struct sockaddr *)addr, size_ptr);
#endif
    if ((intptr_t)opened == -1) return nkti_accept_error(nkti_os_error());
    int err = nkti_os_prepare((nkt_fd)opened);
    if (err < 0) {
        nkti_os_close(env, (nkt_fd)opened);
        return NKT_EABORTED;
    }
    if (len != NULL) *len = (size_t)size;
    *out = (nkt_fd)opened;
    return NKT_OK;
}

static int nkti_os_connect(nkt_env *env, nkt_fd fd, const void *addr, size_t len) {
    (void)env;
    if (connect((nkti_socket)fd, (const struct sockaddr *)addr, (nkti_socklen)len) == 0) {
        return NKT_OK;
    }
    int os_error = nkti_os_error();
#if !NKTI_WINDOWS
    // A Unix-domain connect has no "under way": EAGAIN says the backlog is
    // full.
    if (os_error == EAGAIN && ((const struct sockaddr *)addr)->sa_family == AF_UNIX) {
        return NKT_EBUSY;
    }
#endif
    int err = nkti_error_from_os(os_error);
    // A signal does not stop what has begun.
    return err == NKT_EINTR ? NKT_EAGAIN : err;
}

// --- Options -----------------------------------------------------------------

static int nkti_os_setsockopt(nkt_fd fd, int level, int name, int value) {
    return nkti_os_result(setsockopt((nkti_socket)fd, level, name, (const char *)&value,
                                     (nkti_socklen)sizeof value));
}

static int nkti_os_getsockopt(nkt_fd fd, int level, int name, int *value) {
    nkti_socklen len = (nkti_socklen)sizeof *value;
    *value = 0;
    return nkti_os_result(getsockopt((nkti_socket)fd, level, name, (char *)value, &len));
}

// Idle seconds before the first probe.
#if defined(TCP_KEEPIDLE)
    #define NKTI_KEEPIDLE TCP_KEEPIDLE
#elif defined(TCP_KEEPALIVE)
    #define NKTI_KEEPIDLE TCP_KEEPALIVE
#elif NKTI_WINDOWS
    #define NKTI_KEEPIDLE 3         // Windows 10 1709; not in every SDK
#else
    #define NKTI_KEEPIDLE (-1)      // OpenBSD: one figure for the whole system
#endif

static int nkti_os_set_keepalive(nkt_fd fd, int seconds) {
    int err = nkti_os_setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, seconds > 0);
    if (err < 0 || seconds <= 0) return err;
    if (NKTI_KEEPIDLE < 0) return err;
    err = nkti_os_setsockopt(fd, IPPROTO_TCP, NKTI_KEEPIDLE, seconds);
#if defined(TCP_KEEPINTVL) && defined(TCP_KEEPCNT)
    // Left alone, these find a dead peer eleven minutes after the first probe.
    // Where they are not to be had, so it is.
    int between = seconds / 4 > 0 ? seconds / 4 : 1;
    nkti_os_setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, between < 75 ? between : 75);
    nkti_os_setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
#endif
#if NKTI_WINDOWS
    if (err == NKT_EUNSUPPORTED) {
        // Older ones: on, milliseconds before the first probe, between probes.
        ULONG settings[3] = { 1, seconds > 2000000 ? 2000000000u : (ULONG)seconds * 1000u, 1000 };
        const DWORD sio_keepalive_vals = 0x98000004;
        DWORD got = 0;
        err = nkti_os_result(WSAIoctl((SOCKET)fd, sio_keepalive_vals, settings, sizeof settings,
                                      NULL, 0, &got, NULL, NULL));
    }
#endif
    return err;
}

// Rebinding a port whose old connections linger is wanted; taking a port from a
// living program is not. SO_REUSEADDR means the first on POSIX and the second
// on Windows, where SO_EXCLUSIVEADDRUSE says what is meant.
static int nkti_os_reuse_address(nkt_fd fd) {
#if NKTI_WINDOWS
    return nkti_os_setsockopt(fd, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1);
#else
    return nkti_os_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
#endif
}

static int nkti_os_reuse_port(nkt_fd fd) {
#if defined(SO_REUSEPORT_LB)
    return nkti_os_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT_LB, 1);
#elif defined(SO_REUSEPORT)
    return nkti_os_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, 1);
#else
    (void)fd;
    return NKT_EUNSUPPORTED;
#endif
}

// Makes recv really wait. With a receive time-out of its own, however long, the
// system call ends with EINTR at a signal even where the handler asked for
// restarting; without one it would be deaf to Ctrl-C.
static int nkti_os_set_recv_wait(nkt_fd fd, bool on) {
#if NKTI_LINUX
    struct timeval hour;
    hour.tv_sec = on ? 3600 : 0;
    hour.tv_usec = 0;
    int err = nkti_os_result(setsockopt((int)fd, SOL_SOCKET, SO_RCVTIMEO, &hour, sizeof hour));
    return err < 0 || !on ? err : nkti_os_set_blocking(NULL, fd, true);
#else
    (void)fd;
    (void)on;
    return NKT_EUNSUPPORTED;
#endif
}

// What a descriptor from elsewhere lacks.
static int nkti_os_prepare_adopted(nkt_fd fd) {
#if NKTI_WINDOWS
    return SetHandleInformation((HANDLE)fd, HANDLE_FLAG_INHERIT, 0) ? NKT_OK : NKT_EOS;
#else
    #ifdef SO_NOSIGPIPE
    int on = 1;
    setsockopt((int)fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
    #endif
    return nkti_os_result(fcntl((int)fd, F_SETFD, FD_CLOEXEC));
#endif
}

// The options that are one number of the system's; the first ones can be set.
typedef struct nkti_os_number { uint16_t option, level, name; } nkti_os_number;

#define NKTI_OS_SETTABLE 4

static const nkti_os_number nkti_os_numbers[] = {
    { NKT_SO_V6ONLY, IPPROTO_IPV6, IPV6_V6ONLY },
    { NKT_SO_NODELAY, IPPROTO_TCP, TCP_NODELAY },
    { NKT_SO_SEND_BUFFER, SOL_SOCKET, SO_SNDBUF },
    { NKT_SO_RECV_BUFFER, SOL_SOCKET, SO_RCVBUF },
    { NKT_SO_LISTENING, SOL_SOCKET, SO_ACCEPTCONN },
    { NKT_SO_TYPE, SOL_SOCKET, SO_TYPE },
    { NKT_SO_ERROR, SOL_SOCKET, SO_ERROR },
    { NKT_SO_KEEPALIVE_S, SOL_SOCKET, SO_KEEPALIVE },
};

static const nkti_os_number *nkti_os_number_of(int option, int count) {
    for (int i = 0; i < count; i++) {
        if (nkti_os_numbers[i].option == option) return &nkti_os_numbers[i];
    }
    return NULL;
}

static int nkti_os_set_option(nkt_env *env, nkt_fd fd, int option, int64_t value) {
    (void)env;
    int number = value > INT_MAX ? INT_MAX : (int)value;
    struct linger reset;
    switch ((int)option) {
    case NKT_SO_REUSE_ADDRESS: return nkti_os_reuse_address(fd);
    case NKT_SO_REUSE_PORT: return nkti_os_reuse_port(fd);
    case NKT_SO_KEEPALIVE_S: return nkti_os_set_keepalive(fd, number);
    case NKT_SO_PREPARE: return nkti_os_prepare_adopted(fd);
    case NKT_SO_RECV_WAIT: return nkti_os_set_recv_wait(fd, number != 0);
    case NKT_SO_ABORT_ON_CLOSE:
        reset.l_onoff = 1;
        reset.l_linger = 0;
        return nkti_os_result(setsockopt((nkti_socket)fd, SOL_SOCKET, SO_LINGER,
                                         (const char *)&reset, (nkti_socklen)sizeof reset));
    default: break;
    }
    if (!NKTI_DUAL_STACK && option == NKT_SO_V6ONLY && number == 0) return NKT_EUNSUPPORTED;
    const nkti_os_number *row = nkti_os_number_of(option, NKTI_OS_SETTABLE);
    return row == NULL ? NKT_EINVAL : nkti_os_setsockopt(fd, row->level, row->name, number);
}

static int nkti_os_family(nkt_fd fd) {
    union { struct sockaddr any; char room[NKT_SOCKADDR_MAX]; } name;
    nkti_socklen len = (nkti_socklen)sizeof name;
    memset(&name, 0, sizeof name);
    if (getsockname((nkti_socket)fd, &name.any, &len) != 0) return 0;
    int family = name.any.sa_family;
    if (family == AF_INET) return NKT_IPV4;
    return family == AF_INET6 ? NKT_IPV6 : family == NKTI_AF_UNIX ? NKT_UNIX : 0;
}

static int nkti_os_get_option(nkt_env *env, nkt_fd fd, int option, int64_t *value) {
    (void)env;
    int number = 0;
    if (option == NKT_SO_FAMILY) {
        *value = nkti_os_family(fd);
        return NKT_OK;
    }
    int count = (int)(sizeof nkti_os_numbers / sizeof nkti_os_numbers[0]);
    const nkti_os_number *row = nkti_os_number_of(option, count);
    if (row == NULL) return NKT_EINVAL;
    int err = nkti_os_getsockopt(fd, row->level, row->name, &number);
    if (option == NKT_SO_TYPE) {
        number = number == SOCK_STREAM ? 1 : number == SOCK_DGRAM ? 2 : 0;
    } else if (option == NKT_SO_ERROR) {
        // Its own code is then what last_error tells.
        if (number != 0) nkti_os_set_error(number);
        number = number == 0 ? NKT_OK : nkti_error_from_os(number);
    } else if (option == NKT_SO_KEEPALIVE_S && number != 0 && NKTI_KEEPIDLE >= 0) {
        err = nkti_os_getsockopt(fd, IPPROTO_TCP, NKTI_KEEPIDLE, &number);
    }
    if (err >= 0) *value = number;
    return err;
}

static int nkti_os_interface_index(nkt_env *env, const char *name, uint32_t *index) {
    (void)env;
    unsigned found = if_nametoindex(name);
    if (found == 0) return NKT_ENODEV;
#if NKTI_WINDOWS
    // It overlooks what follows the number: "ethernet_1x".
    char back[256];
    if (if_indextoname(found, back) == NULL || strcmp(back, name) != 0) return NKT_ENODEV;
#endif
    *index = found;
    return NKT_OK;
}

static int nkti_os_interface_name(nkt_env *env, uint32_t index, char *buf, size_t cap) {
    (void)env;
    char name[256];             // IF_NAMESIZE is 16 on POSIX, 256 on Windows
    if (if_indextoname(index, name) == NULL) return NKT_ENODEV;
    size_t len = strlen(name);
    if (len >= cap) return NKT_ENOSPACE;
    memcpy(buf, name, len + 1);
    return (int)len;
}

static int nkti_os_bind_interface(nkt_env *env, nkt_fd fd, const char *name, int family) {
    uint32_t index = 0;
    int err = nkti_os_interface_index(env, name, &index);
    if (err < 0) return err;
#if defined(SO_BINDTODEVICE)
    (void)family;
    return nkti_os_result(setsockopt((int)fd, SOL_SOCKET, SO_BINDTODEVICE, name,
                                     (socklen_t)strlen(name)));
#elif defined(IP_BOUND_IF)
    if (family == NKT_IPV4) return nkti_os_setsockopt(fd, IPPROTO_IP, IP_BOUND_IF, (int)index);
    return nkti_os_setsockopt(fd, IPPROTO_IPV6, IPV6_BOUND_IF, (int)index);
#elif NKTI_WINDOWS
    const int unicast_if = 31;  // IP_UNICAST_IF; IPv4 wants network order
    if (family == NKT_IPV4) {
        return nkti_os_setsockopt(fd, IPPROTO_IP, unicast_if, (int)htonl(index));
    }
    return nkti_os_setsockopt(fd, IPPROTO_IPV6, unicast_if, (int)index);
#else
    // FreeBSD, NetBSD and OpenBSD route by address alone.
    (void)fd;
    (void)family;
    return NKT_EUNSUPPORTED;
#endif
}

//==============================================================================
// MARK: @sys.io - moving bytes, waiting, time and randomness
//
// Sends never raise SIGPIPE: MSG_NOSIGNAL where there is one, SO_NOSIGPIPE on
// macOS. On Linux recv and send ask with MSG_DONTWAIT, so that they do not wait
// either on a descriptor that NKT_SO_RECV_WAIT has made a blocking one.
//==============================================================================

#ifdef MSG_NOSIGNAL
    #define NKTI_NOSIGNAL MSG_NOSIGNAL
#else
    #define NKTI_NOSIGNAL 0
#endif
#if NKTI_LINUX
    #define NKTI_DONTWAIT MSG_DONTWAIT
#else
    #define NKTI_DONTWAIT 0
#endif

NKTI_INLINE ptrdiff_t nkti_os_recv_flags(nkt_fd fd, void *buf, size_t cap, int flags) {
    if (cap > NKTI_SEND_MAX) cap = NKTI_SEND_MAX;
#if NKTI_WINDOWS
    ptrdiff_t count = recv((SOCKET)fd, (char *)buf, (int)cap, flags);
#else
    ptrdiff_t count = recv((int)fd, buf, cap, flags);
#endif
    if (count > 0) return count;
    return count == 0 ? NKT_EOF : nkti_error_from_os(nkti_os_error());
}

NKTI_INLINE ptrdiff_t nkti_os_recv(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    (void)env;
    return nkti_os_recv_flags(fd, buf, cap, NKTI_DONTWAIT);
}

#if NKTI_LINUX
NKTI_INLINE ptrdiff_t nkti_os_recv_wait(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    (void)env;
    return nkti_os_recv_flags(fd, buf, cap, 0);
}
#endif

NKTI_INLINE ptrdiff_t nkti_os_send(nkt_env *env, nkt_fd fd, const nkt_str *pieces, size_t count) {
    (void)env;
    if (count > NKTI_PIECES_MAX) count = NKTI_PIECES_MAX;
    size_t room = NKTI_SEND_MAX;
#if NKTI_WINDOWS
    WSABUF buffers[NKTI_PIECES_MAX];
    DWORD sent = 0;
    for (size_t i = 0; i < count; i++) {
        size_t len = pieces[i].len < room ? pieces[i].len : room;
        buffers[i].buf = (char *)(uintptr_t)pieces[i].ptr;
        buffers[i].len = (ULONG)len;
        room -= len;
    }
    int result = WSASend((SOCKET)fd, buffers, (DWORD)count, &sent, 0, NULL, NULL);
    return result == 0 ? (ptrdiff_t)sent : nkti_error_from_os(nkti_os_error());
#else
    ssize_t sent;
    if (count == 1) {
        size_t len = pieces[0].len < room ? pieces[0].len : room;
        sent = send((int)fd, pieces[0].ptr, len, NKTI_NOSIGNAL | NKTI_DONTWAIT);
    } else {
        struct iovec parts[NKTI_PIECES_MAX];
        struct msghdr message;
        memset(&message, 0, sizeof message);
        for (size_t i = 0; i < count; i++, message.msg_iovlen++) {
            size_t len = pieces[i].len < room ? pieces[i].len : room;
            parts[i].iov_base = (void *)(uintptr_t)pieces[i].ptr;
            parts[i].iov_len = len;
            room -= len;
        }
        message.msg_iov = parts;
        sent = sendmsg((int)fd, &message, NKTI_NOSIGNAL | NKTI_DONTWAIT);
    }
    return sent >= 0 ? sent : nkti_error_from_os(nkti_os_error());
#endif
}

static int nkti_os_shutdown(nkt_env *env, nkt_fd fd, uint32_t directions) {
    (void)env;
    // SHUT_RD, SHUT_WR, SHUT_RDWR and SD_... are 0, 1 and 2 everywhere.
    int how = directions == NKT_READ ? 0 : directions == NKT_WRITE ? 1 : 2;
    return nkti_os_result(shutdown((nkti_socket)fd, how));
}

static int nkti_os_local_name(nkt_env *env, nkt_fd fd, void *addr, size_t *len) {
    (void)env;
    nkti_socklen size = (nkti_socklen)*len;
    int err = nkti_os_result(getsockname((nkti_socket)fd, (struct sockaddr *)addr, &size));
    if (err >= 0) *len = (size_t)size;
    return err;
}

static int nkti_os_peer_name(nkt_env *env, nkt_fd fd, void *addr, size_t *len) {
    (void)env;
    nkti_socklen size = (nkti_socklen)*len;
    int err = nkti_os_result(getpeername((nkti_socket)fd, (struct sockaddr *)addr, &size));
    if (err >= 0) *len = (size_t)size;
    return err;
}

#if NKTI_WINDOWS
// TCP_INFO_v0 of mstcpip.h (Windows 10 1703), which not every SDK has.
typedef struct nkti_win_tcp_info {
    int32_t state;
    uint32_t mss;
    uint64_t connection_ms;
    uint8_t timestamps;
    uint32_t rtt_us, min_rtt_us, bytes_in_flight, cwnd, send_window, recv_window, recv_buffer;
    uint64_t bytes_out, bytes_in;
    uint32_t bytes_reordered, bytes_retransmitted, fast_retransmits, dup_acks, time_outs;
    uint8_t syn_retransmits;
} nkti_win_tcp_info;
#endif

static int nkti_os_tcp_info(nkt_env *env, nkt_fd fd, nkt_tcp_info *info) {
    (void)env;
    info->rtt_us = info->rtt_var_us = info->retransmits = -1;
    info->unacked_bytes = info->path_mtu = -1;
#if NKTI_WINDOWS
    nkti_win_tcp_info raw;
    DWORD version = 0, got = 0;
    const DWORD sio_tcp_info = (DWORD)(IOC_INOUT | IOC_VENDOR | 39);
    memset(&raw, 0, sizeof raw);
    if (WSAIoctl((SOCKET)fd, sio_tcp_info, &version, sizeof version, &raw, sizeof raw, &got,
                 NULL, NULL) != 0) return NKT_EUNSUPPORTED;
    info->rtt_us = raw.rtt_us;
    info->retransmits = (int64_t)raw.fast_retransmits + raw.time_outs;
    info->unacked_bytes = raw.bytes_in_flight;
#elif defined(TCP_CONNECTION_INFO)
    struct tcp_connection_info raw;
    socklen_t len = sizeof raw;
    memset(&raw, 0, sizeof raw);
    if (getsockopt((int)fd, IPPROTO_TCP, TCP_CONNECTION_INFO, &raw, &len) != 0) {
        return NKT_EUNSUPPORTED;
    }
    info->rtt_us = (int64_t)raw.tcpi_srtt * 1000;
    info->rtt_var_us = (int64_t)raw.tcpi_rttvar * 1000;
    info->retransmits = (int64_t)raw.tcpi_txretransmitpackets;
#elif defined(TCP_INFO)
    struct tcp_info raw;
    socklen_t len = sizeof raw;
    memset(&raw, 0, sizeof raw);
    if (getsockopt((int)fd, IPPROTO_TCP, TCP_INFO, &raw, &len) != 0) return NKT_EUNSUPPORTED;
    info->rtt_us = raw.tcpi_rtt;
    info->rtt_var_us = raw.tcpi_rttvar;
    #if NKTI_LINUX
    int unacked = 0;
    info->retransmits = raw.tcpi_total_retrans;
    info->path_mtu = raw.tcpi_pmtu;
    if (ioctl((int)fd, TIOCOUTQ, &unacked) == 0) info->unacked_bytes = unacked;
    #endif
#else
    (void)fd;
    return NKT_EUNSUPPORTED;
#endif
    return NKT_OK;
}

// --- Unix-domain paths -------------------------------------------------------

typedef struct nkti_unix_addr {
#if NKTI_WINDOWS
    struct { unsigned short sun_family; char sun_path[108]; } un;
#else
    struct sockaddr_un un;
#endif
} nkti_unix_addr;

// Returns the length to hand to bind or connect. "@name" is Linux's abstract
// space: a zero byte in front, and the length is what ends the name.
static int nkti_unix_to_sockaddr(const char *path, nkti_unix_addr *addr) {
    size_t len = strlen(path);
    memset(addr, 0, sizeof *addr);
    addr->un.sun_family = NKTI_AF_UNIX;
    if (len == 0 || len >= sizeof addr->un.sun_path) return NKT_ETOOLONG;
    memcpy(addr->un.sun_path, path, len);
    size_t base = (size_t)((char *)addr->un.sun_path - (char *)addr);
#if NKTI_LINUX
    if (path[0] == '@') {
        addr->un.sun_path[0] = '\0';
        return (int)(base + len);
    }
#else
    if (path[0] == '@') return NKT_EUNSUPPORTED;
#endif
    return (int)(base + len + 1);
}

static int nkti_os_unlink(nkt_env *env, const char *path) {
    (void)env;
    // Only a socket is ever removed: a mistyped path must not cost a file.
#if NKTI_WINDOWS
    WCHAR wide[NKT_UNIX_PATH_MAX + 1];
    if (MultiByteToWideChar(CP_UTF8, 0, path, -1, wide, NKT_UNIX_PATH_MAX + 1) == 0) {
        return NKT_ENOTFOUND;
    }
    DWORD attributes = GetFileAttributesW(wide);
    if (attributes == INVALID_FILE_ATTRIBUTES) return NKT_ENOTFOUND;
    if ((attributes & FILE_ATTRIBUTE_REPARSE_POINT) == 0) return NKT_EADDRINUSE;
    return DeleteFileW(wide) ? NKT_OK : NKT_EACCES;
#else
    struct stat status;
    if (lstat(path, &status) != 0) return nkti_os_result(-1);
    if (!S_ISSOCK(status.st_mode)) return NKT_EADDRINUSE;
    return nkti_os_result(unlink(path));
#endif
}

// The BSDs keep a structure's length in front of its family.
static void nkti_sockaddr_set_len(void *sockaddr, size_t len) {
#if NKTI_BSD
    ((struct sockaddr *)sockaddr)->sa_len = (uint8_t)len;
#else
    (void)sockaddr;
    (void)len;
#endif
}

// --- Waiting -----------------------------------------------------------------

#if NKTI_WINDOWS
    #define NKTI_POLLIN POLLRDNORM
    #define NKTI_POLLOUT POLLWRNORM
#else
    #define NKTI_POLLIN POLLIN
    #define NKTI_POLLOUT POLLOUT
#endif

static short nkti_to_poll_events(uint32_t events) {
    int bits = 0;
    if (events & NKT_READ) bits |= NKTI_POLLIN;
    if (events & NKT_WRITE) bits |= NKTI_POLLOUT;
    return (short)bits;
}

// Errors and hang-ups make both directions ready: the call will tell.
static uint32_t nkti_from_poll_events(short bits, uint32_t wanted) {
    uint32_t events = 0;
    if (bits & (NKTI_POLLIN | POLLHUP | POLLERR | POLLNVAL)) events |= NKT_READ;
    if (bits & (NKTI_POLLOUT | POLLHUP | POLLERR | POLLNVAL)) events |= NKT_WRITE;
    return (events & wanted) != 0 || events == 0 ? events & wanted : wanted;
}

static int nkti_os_poll(nkti_pollfd *fds, size_t count, int64_t timeout_ns) {
#if NKTI_WINDOWS
    if (count == 0) {
        Sleep(timeout_ns < 0 ? INFINITE : (DWORD)nkti_ns_to_ms(timeout_ns));
        return 0;
    }
    if (count == 0) {
        // WSAPoll wants something to wait for.
        Sleep(timeout_ns < 0 ? INFINITE : (DWORD)nkti_ns_to_ms(timeout_ns));
        return 0;
    }
    int ready = WSAPoll(fds, (ULONG)count, nkti_ns_to_ms(timeout_ns));
#else
    int ready = poll(fds, (nfds_t)count, nkti_ns_to_ms(timeout_ns));
#endif
    return ready >= 0 ? ready : nkti_error_from_os(nkti_os_error());
}

static int nkti_os_wait(nkt_env *env, nkt_watch *watches, size_t count, int64_t timeout_ns) {
    (void)env;
    nkti_pollfd fds[NKT_WATCH_MAX + 1];
    if (count > NKT_WATCH_MAX + 1) return NKT_EINVAL;
    for (size_t i = 0; i < count; i++) {
        fds[i].fd = (nkti_socket)watches[i].fd;
        fds[i].events = nkti_to_poll_events(watches[i].events);
        fds[i].revents = 0;
    }
    int ready = nkti_os_poll(fds, count, timeout_ns);
    for (size_t i = 0; i < count; i++) {
        watches[i].ready = ready > 0 ? nkti_from_poll_events(fds[i].revents, watches[i].events)
                                     : 0;
    }
    return ready;
}

// WSAPoll before Windows 10 2004 never reports a connect that failed; select
// tells it as an exception. Here neither waits.
static int nkti_os_connect_result(nkt_env *env, nkt_fd fd) {
    int64_t pending = 0;
#if NKTI_WINDOWS
    fd_set writable, failed;
    struct timeval now = { 0, 0 };
    FD_ZERO(&writable);
    FD_ZERO(&failed);
    FD_SET((SOCKET)fd, &writable);
    FD_SET((SOCKET)fd, &failed);
    int ready = select(0, NULL, &writable, &failed, &now);
#else
    nkti_pollfd one;
    one.fd = (int)fd;
    one.events = POLLOUT;
    one.revents = 0;
    int ready = poll(&one, 1, 0);
    if (ready < 0 && errno == EINTR) return NKT_EAGAIN;
#endif
    if (ready < 0) return nkti_os_result(-1);
    if (ready == 0) return NKT_EAGAIN;
    int err = nkti_os_get_option(env, fd, NKT_SO_ERROR, &pending);
    return err < 0 ? err : (int)pending;
}

// --- Waking a wait, time, randomness -----------------------------------------

#if NKTI_WINDOWS
// A datagram socket connected to itself: WSAPoll takes nothing but sockets.
static int nkti_os_wake_open(nkt_env *env, nkt_wake *wake) {
    struct sockaddr_in self;
    size_t len = sizeof self;
    nkt_fd fd = NKT_NO_FD;
    int err = nkti_os_open(env, NKT_IPV4, 2, &fd);
    if (err < 0) return err;
    memset(&self, 0, sizeof self);
    self.sin_family = AF_INET;
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    err = nkti_os_bind(env, fd, &self, sizeof self);
    if (err >= 0) err = nkti_os_local_name(env, fd, &self, &len);
    if (err >= 0) err = nkti_os_connect(env, fd, &self, sizeof self);
    if (err < 0) {
        nkti_os_close(env, fd);
        return err;
    }
    wake->wait_fd = wake->post_fd = fd;
    return NKT_OK;
}

static void nkti_os_wake_post(nkt_env *env, const nkt_wake *wake) {
    (void)env;
    send((SOCKET)wake->post_fd, "", 1, 0);
}

static void nkti_os_wake_drain(nkt_env *env, const nkt_wake *wake) {
    char room[16];
    while (nkti_os_recv(env, wake->wait_fd, room, sizeof room) > 0) continue;
}
#else
static int nkti_os_wake_open(nkt_env *env, nkt_wake *wake) {
    (void)env;
#if NKTI_LINUX
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) return nkti_os_result(fd);
    wake->wait_fd = wake->post_fd = fd;
#else
    int ends[2];
    if (pipe(ends) != 0) return nkti_os_result(-1);
    for (int i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        nkti_os_set_blocking(env, ends[i], false);
    }
    wake->wait_fd = ends[0];
    wake->post_fd = ends[1];
#endif
    return NKT_OK;
}

static void nkti_os_wake_post(nkt_env *env, const nkt_wake *wake) {
    (void)env;
    // Eight bytes because an eventfd takes no fewer. A full pipe is awake
    // already.
    uint64_t one = 1;
    ssize_t written = write((int)wake->post_fd, &one, sizeof one);
    (void)written;
}

static void nkti_os_wake_drain(nkt_env *env, const nkt_wake *wake) {
    (void)env;
    uint64_t room[8];
    while (read((int)wake->wait_fd, room, sizeof room) == (ssize_t)sizeof room) continue;
}
#endif

static void nkti_os_wake_close(nkt_env *env, nkt_wake *wake) {
    nkti_os_close(env, wake->wait_fd);
    if (wake->post_fd != wake->wait_fd) nkti_os_close(env, wake->post_fd);
    wake->wait_fd = wake->post_fd = NKT_NO_FD;
}

static int64_t nkti_os_now_ns(nkt_env *env) {
    (void)env;
#if NKTI_WINDOWS
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    // In two steps, because ticks * 1e9 overflows within days.
    int64_t seconds = ticks.QuadPart / per_second.QuadPart;
    int64_t rest = ticks.QuadPart % per_second.QuadPart;
    return seconds * 1000000000 + rest * 1000000000 / per_second.QuadPart;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#endif
}

#if NKTI_WINDOWS
// SystemFunction036 is RtlGenRandom; found by name, to need no import library.
typedef BOOLEAN(WINAPI *nkti_gen_random)(PVOID buf, ULONG len);

static int nkti_os_random(nkt_env *env, void *buf, size_t len) {
    (void)env;
    HMODULE library = LoadLibraryA("advapi32.dll");
    if (library == NULL) return NKT_EOS;
    nkti_gen_random generate;
    FARPROC found = GetProcAddress(library, "SystemFunction036");
    memcpy(&generate, &found, sizeof generate);
    bool filled = found != NULL && len <= ULONG_MAX && generate(buf, (ULONG)len);
    FreeLibrary(library);
    return filled ? NKT_OK : NKT_EOS;
}
#elif NKTI_LINUX
static int nkti_os_random(nkt_env *env, void *buf, size_t len) {
    (void)env;
    uint8_t *out = (uint8_t *)buf;
    while (len > 0) {
        ssize_t got = getrandom(out, len, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return NKT_EOS;
        out += got;
        len -= (size_t)got;
    }
    return NKT_OK;
}
#else
static int nkti_os_random(nkt_env *env, void *buf, size_t len) {
    (void)env;
    arc4random_buf(buf, len);
    return NKT_OK;
}
#endif

// Asked at every wait and every close, so not of the kernel each time: a fork
// makes the child forget it.
#if NKTI_WINDOWS
static int64_t nkti_os_process_id(nkt_env *env) {
    (void)env;
    return (int64_t)GetCurrentProcessId();
}

static int nkti_os_start(void) {
    WSADATA data;
    return WSAStartup(MAKEWORD(2, 2), &data) == 0 ? NKT_OK : NKT_EOS;
}
#elif defined(NETKIT_NO_THREADS)
static int64_t nkti_os_process_id(nkt_env *env) {
    (void)env;
    return (int64_t)getpid();
}

static int nkti_os_start(void) {
    return NKT_OK;
}
#else
static int nkti_known_process_id;       // atomic; 0 = not known

static void nkti_os_forked(void) {
    __atomic_store_n(&nkti_known_process_id, 0, __ATOMIC_RELAXED);
}

static int64_t nkti_os_process_id(nkt_env *env) {
    (void)env;
    int known = __atomic_load_n(&nkti_known_process_id, __ATOMIC_RELAXED);
    if (known != 0) return known;
    known = (int)getpid();
    __atomic_store_n(&nkti_known_process_id, known, __ATOMIC_RELAXED);
    return known;
}

static int nkti_os_start(void) {
    static int started;
    if (__atomic_exchange_n(&started, 1, __ATOMIC_SEQ_CST) != 0) return NKT_OK;
    if (pthread_atfork(NULL, NULL, nkti_os_forked) == 0) return NKT_OK;
    __atomic_store_n(&started, 0, __ATOMIC_SEQ_CST);
    return NKT_ENOMEM;
}
#endif

static int nkti_os_service_port(nkt_env *env, const char *name, uint16_t *port) {
    (void)env;
    struct addrinfo hints, *list = NULL;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(NULL, name, &hints, &list) != 0) return NKT_ENOTFOUND;
    struct sockaddr_in found;
    memcpy(&found, list->ai_addr, sizeof found);
    *port = ntohs(found.sin_port);
    freeaddrinfo(list);
    return NKT_OK;
}

static const nkt_sys_core nkti_os_core = {
    sizeof(nkt_sys_core),
    nkti_os_last_error,
    nkti_os_open,
    nkti_os_close,
    nkti_os_bind,
    nkti_os_listen,
    nkti_os_accept,
    nkti_os_connect,
    nkti_os_connect_result,
    nkti_os_recv,
#if NKTI_LINUX
    nkti_os_recv_wait,
#else
    NULL,
#endif
    nkti_os_send,
    nkti_os_shutdown,
    nkti_os_set_option,
    nkti_os_get_option,
    nkti_os_bind_interface,
    nkti_os_local_name,
    nkti_os_peer_name,
    nkti_os_tcp_info,
    nkti_os_set_blocking,
    nkti_os_unlink,
    nkti_os_interface_index,
    nkti_os_interface_name,
    nkti_os_wait,
    nkti_os_wake_open,
    nkti_os_wake_close,
    nkti_os_wake_post,
    nkti_os_wake_drain,
    nkti_os_now_ns,
    nkti_os_random,
    nkti_os_process_id,
    nkti_os_service_port,
};

// The three that a program calls all the time, without a pointer in between
// where they are the system's.
NKTI_INLINE ptrdiff_t nkti_core_recv(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
    if (NKTI_DIRECT && env->core == &nkti_os_core) return nkti_os_recv(env, fd, buf, cap);
    return env->core->recv(env, fd, buf, cap);
}

NKTI_INLINE ptrdiff_t nkti_core_recv_wait(nkt_env *env, nkt_fd fd, void *buf, size_t cap) {
#if NKTI_LINUX
    if (NKTI_DIRECT && env->core == &nkti_os_core) return nkti_os_recv_wait(env, fd, buf, cap);
#endif
    return env->core->recv_wait(env, fd, buf, cap);
}

NKTI_INLINE ptrdiff_t nkti_core_send(nkt_env *env, nkt_fd fd, const nkt_str *pieces,
                                     size_t count) {
    if (NKTI_DIRECT && env->core == &nkti_os_core) return nkti_os_send(env, fd, pieces, count);
    return env->core->send(env, fd, pieces, count);
}

//==============================================================================
// MARK: @sys.poll - many descriptors at once: epoll, kqueue, poll
//
// A backend keeps registrations: a descriptor, the events wanted and a cookie
// that comes back when one of them is ready. All are level-triggered, so that
// nothing is lost when an event is not acted upon. epoll and kqueue wait in
// time that does not depend on how many registrations are idle; the portable
// one, poll() and WSAPoll, is linear in them and is there on every system:
//
//     system                        backend     one descriptor for other loops
//     Linux                         epoll       yes
//     macOS, FreeBSD, Net-, OpenBSD kqueue      yes
//     Windows, NETKIT_USE_POLL      poll        no
//==============================================================================

typedef struct nkti_poll_set {
    nkti_pollfd *fds;
    nkt_poll_watch **watches;   // beside each descriptor, its registration
    size_t count;
    size_t capacity, watch_capacity;
    size_t next;                // where the next report begins, so that all get a turn
} nkti_poll_set;

static int nkti_poll_open(nkt_env *env, void **backend) {
    nkti_poll_set *set = (nkti_poll_set *)nkti_alloc(env, sizeof *set);
    if (set == NULL) return NKT_ENOMEM;
    *backend = set;
    return NKT_OK;
}

static void nkti_poll_close(nkt_env *env, void *backend) {
    nkti_poll_set *set = (nkti_poll_set *)backend;
    nkti_free(env, set->fds, set->capacity * sizeof set->fds[0]);
    nkti_free(env, set->watches, set->watch_capacity * sizeof set->watches[0]);
    nkti_free(env, set, sizeof *set);
}

static int nkti_poll_grow(nkt_env *env, nkti_poll_set *set) {
    size_t capacity = set->count == 0 ? 16 : set->count * 2;
    if (set->capacity == set->count) {
        void *fds = nkti_resize(env, set->fds, set->capacity * sizeof set->fds[0],
                                capacity * sizeof set->fds[0]);
        if (fds == NULL) return NKT_ENOMEM;
        set->fds = (nkti_pollfd *)fds;
        set->capacity = capacity;
    }
    if (set->watch_capacity == set->count) {
        void *watches = nkti_resize(env, set->watches,
                                    set->watch_capacity * sizeof set->watches[0],
                                    capacity * sizeof set->watches[0]);
        if (watches == NULL) return NKT_ENOMEM;
        set->watches = (nkt_poll_watch **)watches;
        set->watch_capacity = capacity;
    }
    return NKT_OK;
}

static int nkti_poll_set_watch(nkt_env *env, void *backend, nkt_poll_watch *watch,
                               uint32_t events) {
    nkti_poll_set *set = (nkti_poll_set *)backend;
    if (events == 0) {
        if (watch->events == 0) return NKT_OK;
        size_t last = --set->count;
        set->fds[watch->slot] = set->fds[last];
        set->watches[watch->slot] = set->watches[last];
        set->watches[watch->slot]->slot = watch->slot;
        watch->events = 0;
        return NKT_OK;
    }
    if (watch->events == 0) {
        if (nkti_poll_grow(env, set) < 0) return NKT_ENOMEM;
        watch->slot = (uint32_t)set->count++;
        set->watches[watch->slot] = watch;
        set->fds[watch->slot].fd = (nkti_socket)watch->fd;
        set->fds[watch->slot].revents = 0;
    }
    set->fds[watch->slot].events = nkti_to_poll_events(events);
    watch->events = events;
    return NKT_OK;
}

static int nkti_poll_wait(nkt_env *env, void *backend, nkt_poll_event *out, int cap,
                          int64_t timeout_ns) {
    (void)env;
    nkti_poll_set *set = (nkti_poll_set *)backend;
    int ready = nkti_os_poll(set->fds, set->count, timeout_ns);
    if (ready <= 0) return ready;
    int found = 0;
    size_t at = set->next;
    for (size_t i = 0; i < set->count && found < cap; i++, at++) {
        if (at >= set->count) at = 0;
        if (set->fds[at].revents == 0) continue;
        out[found].cookie = set->watches[at]->cookie;
        out[found++].events = nkti_from_poll_events(set->fds[at].revents,
                                                    set->watches[at]->events);
    }
    set->next = at;
    return found;
}

static nkt_fd nkti_poll_fd(nkt_env *env, void *backend) {
    (void)env;
    (void)backend;
    return NKT_NO_FD;
}

static const nkt_sys_poll nkti_poll_portable = {
    sizeof(nkt_sys_poll), nkti_poll_open, nkti_poll_close, nkti_poll_set_watch,
    nkti_poll_wait, nkti_poll_fd, nkti_poll_close,
};

#if NKTI_EPOLL || NKTI_KQUEUE
#define NKTI_KERNEL_BATCH 64

typedef struct nkti_kernel_poll {
    int fd;
} nkti_kernel_poll;

static int nkti_kernel_open(nkt_env *env, void **backend) {
    nkti_kernel_poll *poller = (nkti_kernel_poll *)nkti_alloc(env, sizeof *poller);
    if (poller == NULL) return NKT_ENOMEM;
#if NKTI_EPOLL
    poller->fd = epoll_create1(EPOLL_CLOEXEC);
#else
    poller->fd = kqueue();
    if (poller->fd >= 0) fcntl(poller->fd, F_SETFD, FD_CLOEXEC);
#endif
    if (poller->fd < 0) {
        int err = nkti_os_result(-1);
        nkti_free(env, poller, sizeof *poller);
        return err;
    }
    *backend = poller;
    return NKT_OK;
}

static void nkti_kernel_close(nkt_env *env, void *backend) {
    nkti_os_close(env, ((nkti_kernel_poll *)backend)->fd);
    nkti_free(env, backend, sizeof(nkti_kernel_poll));
}

static nkt_fd nkti_kernel_fd(nkt_env *env, void *backend) {
    (void)env;
    return ((nkti_kernel_poll *)backend)->fd;
}

// A kqueue is not inherited by a child: its number may be another file's there.
static void nkti_kernel_close_forked(nkt_env *env, void *backend) {
#if NKTI_EPOLL
    nkti_kernel_close(env, backend);
#else
    nkti_free(env, backend, sizeof(nkti_kernel_poll));
#endif
}

#if NKTI_EPOLL
static int nkti_kernel_set(nkt_env *env, void *backend, nkt_poll_watch *watch,
                           uint32_t events) {
    (void)env;
    struct epoll_event change;
    int how = watch->events == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    if (watch->events == events) return NKT_OK;
    memset(&change, 0, sizeof change);
    change.events = ((events & NKT_READ) ? (uint32_t)EPOLLIN : 0u) |
                    ((events & NKT_WRITE) ? (uint32_t)EPOLLOUT : 0u);
    change.data.ptr = watch;
    int result = epoll_ctl(((nkti_kernel_poll *)backend)->fd, how, (int)watch->fd, &change);
    if (result < 0 && events != 0) return nkti_os_result(result);
    watch->events = events;
    return NKT_OK;
}

static int nkti_kernel_wait(nkt_env *env, void *backend, nkt_poll_event *out, int cap,
                            int64_t timeout_ns) {
    (void)env;
    struct epoll_event ready[NKTI_KERNEL_BATCH];
    int room = cap < NKTI_KERNEL_BATCH ? cap : NKTI_KERNEL_BATCH;
    int count = epoll_wait(((nkti_kernel_poll *)backend)->fd, ready, room,
                           nkti_ns_to_ms(timeout_ns));
    if (count < 0) return nkti_os_result(count);
    for (int i = 0; i < count; i++) {
        const nkt_poll_watch *watch = (const nkt_poll_watch *)ready[i].data.ptr;
        uint32_t bits = ready[i].events, events = 0;
        if (bits & (EPOLLIN | EPOLLHUP | EPOLLERR)) events |= NKT_READ;
        if (bits & (EPOLLOUT | EPOLLHUP | EPOLLERR)) events |= NKT_WRITE;
        out[i].cookie = watch->cookie;
        out[i].events = events & watch->events;
    }
    return count;
}

#else

static int nkti_kqueue_filter(int kq, nkt_poll_watch *watch, uint32_t events, uint32_t bit,
                              int16_t filter) {
    if ((watch->events & bit) == (events & bit)) return NKT_OK;
    struct kevent change;
    uint16_t how = (events & bit) ? EV_ADD : EV_DELETE;
    EV_SET(&change, (uintptr_t)watch->fd, filter, how, 0, 0, NKTI_UDATA watch);
    int result = kevent(kq, &change, 1, NULL, 0, NULL);
    if (result < 0 && (events & bit)) return nkti_os_result(result);
    watch->events = (watch->events & ~bit) | (events & bit);
    return NKT_OK;
}

static int nkti_kernel_set(nkt_env *env, void *backend, nkt_poll_watch *watch,
                           uint32_t events) {
    (void)env;
    int kq = ((nkti_kernel_poll *)backend)->fd;
    struct stat status;
    // The filter of a regular file is silent at its end; refused, as epoll
    // does, it is taken for always ready.
    if (watch->events == 0 && events != 0 && fstat((int)watch->fd, &status) == 0 &&
        S_ISREG(status.st_mode)) return NKT_EACCES;
    uint32_t before = watch->events;
    int err = nkti_kqueue_filter(kq, watch, events, NKT_READ, EVFILT_READ);
    if (err < 0) return err;
    err = nkti_kqueue_filter(kq, watch, events, NKT_WRITE, EVFILT_WRITE);
    // Nothing is left behind of a change that failed half-way.
    if (err < 0) (void)nkti_kqueue_filter(kq, watch, before, NKT_READ, EVFILT_READ);
    return err;
}

static int nkti_kernel_wait(nkt_env *env, void *backend, nkt_poll_event *out, int cap,
                            int64_t timeout_ns) {
    (void)env;
    struct kevent ready[NKTI_KERNEL_BATCH];
    struct timespec timeout, *until = NULL;
    // What kevent counts in is an int, but a size_t on NetBSD: this fits both.
    uint16_t room = (uint16_t)(cap < NKTI_KERNEL_BATCH ? cap : NKTI_KERNEL_BATCH);
    if (timeout_ns >= 0) {
        timeout.tv_sec = (time_t)(timeout_ns / 1000000000);
        timeout.tv_nsec = (long)(timeout_ns % 1000000000);
        until = &timeout;
    }
    int count = kevent(((nkti_kernel_poll *)backend)->fd, NULL, 0, ready, room, until);
    if (count < 0) return nkti_os_result(count);
    for (int i = 0; i < count; i++) {
        const nkt_poll_watch *watch = (const nkt_poll_watch *)ready[i].udata;
        out[i].cookie = watch->cookie;
        out[i].events = ready[i].filter == EVFILT_WRITE ? NKT_WRITE : NKT_READ;
    }
    return count;
}
#endif

static const nkt_sys_poll nkti_poll_kernel = {
    sizeof(nkt_sys_poll), nkti_kernel_open, nkti_kernel_close, nkti_kernel_set,
    nkti_kernel_wait, nkti_kernel_fd, nkti_kernel_close_forked,
};
#define NKTI_POLL_DEFAULT nkti_poll_kernel
#else
#define NKTI_POLL_DEFAULT nkti_poll_portable
#endif

//==============================================================================
// MARK: @sys.threads - locks, atomics, threads
//
// One lock per environment guards what other threads may touch: who waits on
// which wake-up descriptor, and each poller's list of posted handles. It is
// held for a few instructions and never during a system call that waits.
// Flags that one thread sets and another reads are atomic.
//==============================================================================

#if defined(_MSC_VER)
static uint32_t nkti_atomic_load(const uint32_t *value) {
    return (uint32_t)_InterlockedOr((volatile long *)(uintptr_t)value, 0);
}

static void nkti_atomic_store(uint32_t *value, uint32_t to) {
    _InterlockedExchange((volatile long *)value, (long)to);
}

static uint32_t nkti_atomic_exchange(uint32_t *value, uint32_t to) {
    return (uint32_t)_InterlockedExchange((volatile long *)value, (long)to);
}
#else
static uint32_t nkti_atomic_load(const uint32_t *value) {
    return __atomic_load_n(value, __ATOMIC_SEQ_CST);
}

static void nkti_atomic_store(uint32_t *value, uint32_t to) {
    __atomic_store_n(value, to, __ATOMIC_SEQ_CST);
}

static uint32_t nkti_atomic_exchange(uint32_t *value, uint32_t to) {
    return __atomic_exchange_n(value, to, __ATOMIC_SEQ_CST);
}
#endif

#if defined(NETKIT_NO_THREADS)

typedef struct nkti_mutex {
    char unused;
} nkti_mutex;

#define NKTI_MUTEX_INIT { 0 }

static void nkti_mutex_init(nkti_mutex *mutex) { mutex->unused = 0; }
static void nkti_mutex_free(nkti_mutex *mutex) { (void)mutex; }
static void nkti_mutex_lock(nkti_mutex *mutex) { (void)mutex; }
static void nkti_mutex_unlock(nkti_mutex *mutex) { (void)mutex; }

static int nkti_os_thread_start(nkt_env *env, void (*run)(void *arg), void *arg) {
    (void)env;
    (void)run;
    (void)arg;
    return NKT_EUNSUPPORTED;
}

#elif NKTI_WINDOWS

typedef SRWLOCK nkti_mutex;
#define NKTI_MUTEX_INIT SRWLOCK_INIT

static void nkti_mutex_init(nkti_mutex *mutex) { InitializeSRWLock(mutex); }
static void nkti_mutex_free(nkti_mutex *mutex) { (void)mutex; }
static void nkti_mutex_lock(nkti_mutex *mutex) { AcquireSRWLockExclusive(mutex); }
static void nkti_mutex_unlock(nkti_mutex *mutex) { ReleaseSRWLockExclusive(mutex); }

#else

typedef pthread_mutex_t nkti_mutex;
#define NKTI_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER

static void nkti_mutex_init(nkti_mutex *mutex) { pthread_mutex_init(mutex, NULL); }
static void nkti_mutex_free(nkti_mutex *mutex) { pthread_mutex_destroy(mutex); }
static void nkti_mutex_lock(nkti_mutex *mutex) { pthread_mutex_lock(mutex); }
static void nkti_mutex_unlock(nkti_mutex *mutex) { pthread_mutex_unlock(mutex); }

#endif

#if !defined(NETKIT_NO_THREADS)
// In the C library's memory: it is freed on another thread, where the
// environment's allocator may not be called.
typedef struct nkti_thread_call {
    void (*run)(void *arg);
    void *arg;
} nkti_thread_call;

static void nkti_thread_run(void *packed) {
    nkti_thread_call call = *(nkti_thread_call *)packed;
    free(packed);
    call.run(call.arg);
}

#if NKTI_WINDOWS
static unsigned __stdcall nkti_thread_main(void *packed) {
    nkti_thread_run(packed);
    return 0;
}
#else
static void *nkti_thread_main(void *packed) {
    nkti_thread_run(packed);
    return NULL;
}
#endif

static int nkti_os_thread_start(nkt_env *env, void (*run)(void *arg), void *arg) {
    (void)env;
    nkti_thread_call *call = (nkti_thread_call *)calloc(1, sizeof *call);
    if (call == NULL) return NKT_ENOMEM;
    call->run = run;
    call->arg = arg;
#if NKTI_WINDOWS
    uintptr_t thread = _beginthreadex(NULL, 0, nkti_thread_main, call, 0, NULL);
    bool started = thread != 0;
    if (started) CloseHandle((HANDLE)thread);
#else
    pthread_t thread;
    bool started = pthread_create(&thread, NULL, nkti_thread_main, call) == 0;
    if (started) pthread_detach(thread);
#endif
    if (started) return NKT_OK;
    free(call);
    return NKT_ENOMEM;
}
#endif

// --- The resolver
// ---------------------------------------------------------------

static int nkti_resolver_error(int code) {
    if (code == EAI_MEMORY) return NKT_ENOMEM;
    if (code == EAI_NONAME) return NKT_ENOTFOUND;
#if NKTI_WINDOWS
    if (code == WSANO_DATA) return NKT_ENOTFOUND;
#elif defined(EAI_NODATA) && EAI_NODATA != EAI_NONAME
    if (code == EAI_NODATA) return NKT_ENOTFOUND;
#endif
#if defined(EAI_ADDRFAMILY)
    if (code == EAI_ADDRFAMILY) return NKT_ENOTFOUND;
#endif
    return NKT_ELOOKUP;
}

// Waits as long as the resolver does; called on a worker thread.
static int nkti_os_resolve(const char *host, int family, nkt_ip *ips, int cap) {
    struct addrinfo hints, *list = NULL;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = nkti_family_to_os(family);
    hints.ai_socktype = SOCK_STREAM;
    int code = getaddrinfo(host, NULL, &hints, &list);
    if (code != 0) return nkti_resolver_error(code);
    int count = 0;
    for (struct addrinfo *at = list; at != NULL && count < cap; at = at->ai_next) {
        nkt_addr addr;
        if (nkt_addr_from_sockaddr(at->ai_addr, (size_t)at->ai_addrlen, &addr) < 0) continue;
        ips[count++] = addr.ip;
    }
    freeaddrinfo(list);
    return count > 0 ? count : (int)NKT_ENOTFOUND;
}

#if !defined(NETKIT_NO_THREADS)
// Threads of netkit's own take no signals: those are for the program's threads,
// whose waits they end. Faults stay where they happen.
#if NKTI_WINDOWS
typedef int nkti_signals;

static void nkti_signals_block(nkti_signals *before) { *before = 0; }
static void nkti_signals_restore(const nkti_signals *before) { (void)before; }
#else
typedef sigset_t nkti_signals;

static void nkti_signals_block(nkti_signals *before) {
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

static void nkti_signals_restore(const nkti_signals *before) {
    pthread_sigmask(SIG_SETMASK, before, NULL);
}
#endif

// Code that is unloaded must not take its threads' along: the first look-up
// pins the library or plug-in that it is in. Elsewhere, as in old C libraries
// that have dlopen in a library of its own, that needs NETKIT_SHARED and -ldl.
static void nkti_os_pin(void) {
    static uint32_t pinned;
    if (nkti_atomic_exchange(&pinned, 1) != 0) return;
#if NKTI_WINDOWS
    HMODULE module;
    GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                       (LPCSTR)(uintptr_t)&nkti_os_pin, &module);
#elif NKTI_CAN_PIN
    nkti_dl_info info;
    union { void (*function)(void); void *address; } here;
    memset(&info, 0, sizeof info);
    here.function = nkti_os_pin;
    // Never closed: that is the point.
    if (dladdr(here.address, &info) != 0) dlopen(info.dli_fname, RTLD_NOW | RTLD_NODELETE);
#endif
}
#endif

static const nkt_sys_threads nkti_os_threads = {
    sizeof(nkt_sys_threads), nkti_os_thread_start,
};

#ifndef NETKIT_NO_UDP
//==============================================================================
// MARK: @sys.udp - datagrams in and out, on each system
//
// How a datagram came, and through what it is to leave, stands in control
// messages beside it (RFC 3542). They differ most of all:
//
//               one socket for both   arrival told by   leaves through
//     Linux     yes, IPv4 mapped      PKTINFO           PKTINFO
//     Windows   no: two               PKTINFO           MULTICAST_IF, before it
//     macOS     no: two               PKTINFO           MULTICAST_IF
//     BSDs      no: two               RECVDSTADDR, IF   MULTICAST_IF
//
// Linux moves many datagrams in one call, and many of one length as one that is
// cut up at the very end (UDP_SEGMENT) or was put together on the way
// (UDP_GRO); elsewhere there is a loop.
//==============================================================================

// Whether an IPv6 socket can do all that is asked of one for IPv4.
#define NKTI_UDP_DUAL NKTI_LINUX
#define NKTI_UDP_MESSAGES 64            // in one call of the system
#define NKTI_UDP_PARTS 512
// Slots for what is received at once; 64 bytes more than a datagram, so that
// they do not share cache lines' sets. Before them lies a small one for each.
#define NKTI_UDP_SLOTS (NKTI_LINUX ? 64 : 16)
#define NKTI_UDP_SLOT (65536 + 64)
#define NKTI_UDP_SMALL 256
#define NKTI_UDP_ROOM ((size_t)NKTI_UDP_SLOTS * (NKTI_UDP_SLOT + NKTI_UDP_SMALL))
#define NKTI_SEGMENTS_MAX 64            // the kernel's limit of one message
#define NKTI_SEGMENT_BYTES 65000        // below any datagram's
#define NKTI_SEGMENT_LEN 1452           // longer ones gain nothing and may not pass

// What a datagram's `reserved` bytes tell.
enum {
    NKTI_ALL_FACTS = 0,         // its receiver has room for them
    NKTI_IN_SLOT = 1,           // its data are a slot: which one, from 1 on
    NKTI_IS_SMALL = 2           // it is in the small slot
};

// The small slot that belongs to the slot of a datagram.
static uint8_t *nkti_udp_small(const nkt_datagram *datagram) {
    size_t at = datagram->reserved[NKTI_IN_SLOT] - (size_t)1;
    uint8_t *first = (uint8_t *)datagram->data - at * NKTI_UDP_SLOT;
    return first - (NKTI_UDP_SLOTS - at) * NKTI_UDP_SMALL;
}

typedef union nkti_sockname {
    struct sockaddr any;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
} nkti_sockname;

// Under both names on a socket for both families; a negative one is none.
static int nkti_udp_set(nkt_fd fd, int family, int name4, int name6, int value) {
    if (family != NKT_IPV4) {
        if (name6 < 0) return NKT_EUNSUPPORTED;
        int err = nkti_os_setsockopt(fd, IPPROTO_IPV6, name6, value);
        if (err < 0) return err;
    }
    if (family == NKT_IPV6) return NKT_OK;
    if (name4 < 0) return NKT_EUNSUPPORTED;
#if !NKTI_WINDOWS
    if (name4 == IP_MULTICAST_TTL || name4 == IP_MULTICAST_LOOP) {
        unsigned char byte = (unsigned char)value;      // the BSDs take nothing else
        return nkti_os_result(setsockopt((int)fd, IPPROTO_IP, name4, &byte, sizeof byte));
    }
#endif
    return nkti_os_setsockopt(fd, IPPROTO_IP, name4, value);
}

#if NKTI_LINUX
enum {      // not in every C library's headers
    NKTI_IP_RECVERR = 11, NKTI_IPV6_RECVERR = 25, NKTI_IP_MULTICAST_ALL = 49,
    NKTI_IPV6_MULTICAST_ALL = 29, NKTI_SOL_UDP = 17, NKTI_UDP_SEGMENT = 103, NKTI_UDP_GRO = 104,
    NKTI_IP_MTU = 14, NKTI_IPV6_MTU = 24
};
#endif

static int nkti_udp_dont_fragment(nkt_fd fd, int family, bool on) {
#if NKTI_LINUX
    // IP_PMTUDISC_DO, and IP_PMTUDISC_WANT, which Linux begins with.
    return nkti_udp_set(fd, family, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, on ? 2 : 1);
#elif NKTI_WINDOWS
    return nkti_udp_set(fd, family, IP_DONTFRAGMENT, IPV6_DONTFRAG, on);
#elif defined(IP_DONTFRAG)
    return nkti_udp_set(fd, family, IP_DONTFRAG, IPV6_DONTFRAG, on);
#else
    return nkti_udp_set(fd, family, -1, IPV6_DONTFRAG, on);
#endif
}

// What every datagram socket needs. Facts that a system does not tell stay
// unknown.
static int nkti_udp_prepare(nkt_fd fd, int family) {
    if (family != NKT_IPV6) nkti_os_setsockopt(fd, SOL_SOCKET, SO_BROADCAST, 1);
#if NKTI_WINDOWS
    // Else an ICMP error for one peer would fail the next receive from another.
    BOOL off = FALSE;
    DWORD got = 0;
    const DWORD sio_udp_connreset = 0x9800000c, sio_udp_netreset = 0x9800000f;
    WSAIoctl((SOCKET)fd, sio_udp_connreset, &off, sizeof off, NULL, 0, &got, NULL, NULL);
    WSAIoctl((SOCKET)fd, sio_udp_netreset, &off, sizeof off, NULL, 0, &got, NULL, NULL);
    const int recv_ttl = 21, recv_tos = 40;     // IP_RECVTTL, IP_RECVTOS and IPv6's
    nkti_udp_set(fd, family, recv_ttl, recv_ttl, 1);
    nkti_udp_set(fd, family, recv_tos, recv_tos, 1);
    return nkti_udp_set(fd, family, IP_PKTINFO, IPV6_PKTINFO, 1);
#else
    #if NKTI_LINUX
    // Linux gives every socket what any socket of the host has joined.
    nkti_udp_set(fd, family, NKTI_IP_MULTICAST_ALL, NKTI_IPV6_MULTICAST_ALL, 0);
    #endif
    if (family != NKT_IPV6) {
        nkti_os_setsockopt(fd, IPPROTO_IP, IP_RECVTTL, 1);
    #ifdef IP_RECVTOS
        nkti_os_setsockopt(fd, IPPROTO_IP, IP_RECVTOS, 1);
    #endif
    #if defined(IP_RECVDSTADDR) && defined(IP_RECVIF)
        nkti_os_setsockopt(fd, IPPROTO_IP, IP_RECVDSTADDR, 1);
        nkti_os_setsockopt(fd, IPPROTO_IP, IP_RECVIF, 1);
    #else
        // The IPv6 one tells IPv4's too.
        if (family == NKT_IPV4) nkti_os_setsockopt(fd, IPPROTO_IP, IP_PKTINFO, 1);
    #endif
    }
    #ifdef IPV6_RECVPKTINFO
    if (family != NKT_IPV4) {
        nkti_os_setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
        nkti_os_setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
        nkti_os_setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    }
    #endif
    return NKT_OK;
#endif
}

// Sharing is for who asks. Windows would let others take a port that nobody
// shares.
static int nkti_udp_reuse(nkt_fd fd, bool on) {
#if NKTI_WINDOWS
    return nkti_os_setsockopt(fd, SOL_SOCKET, on ? SO_REUSEADDR : SO_EXCLUSIVEADDRUSE, 1);
#else
    if (!on) return NKT_OK;
    #if defined(SO_REUSEPORT) && !NKTI_LINUX
    int err = nkti_os_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (err < 0) return err;
    #endif
    return nkti_os_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
#endif
}

// 1: of an unconnected socket; 2: it is connected now.
static int nkti_udp_icmp_errors(nkt_fd fd, int family, int value) {
#if NKTI_LINUX
    if (value != 1) return NKT_OK;
    return nkti_udp_set(fd, family, NKTI_IP_RECVERR, NKTI_IPV6_RECVERR, 1);
#else
    (void)family;
    if (value == 1) return NKT_EUNSUPPORTED;
    #if NKTI_WINDOWS
    BOOL on = TRUE;
    DWORD got = 0;
    const DWORD sio_udp_connreset = 0x9800000c;
    WSAIoctl((SOCKET)fd, sio_udp_connreset, &on, sizeof on, NULL, 0, &got, NULL, NULL);
    #else
    (void)fd;
    #endif
    return NKT_OK;
#endif
}

static int nkti_os_udp_set_option(nkt_env *env, nkt_fd fd, int family, int option,
                                  int64_t value) {
    (void)env;
    int number = (int)value;
    switch (option) {
    case NKT_UDP_HOPS: return nkti_udp_set(fd, family, IP_TTL, IPV6_UNICAST_HOPS, number);
    case NKT_UDP_MULTICAST_HOPS:
        return nkti_udp_set(fd, family, IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS, number);
    case NKT_UDP_TRAFFIC_CLASS: return nkti_udp_set(fd, family, IP_TOS, IPV6_TCLASS, number);
    case NKT_UDP_DONT_FRAGMENT: return nkti_udp_dont_fragment(fd, family, number != 0);
    case NKT_UDP_LOOPBACK:
        return nkti_udp_set(fd, family, IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP, number != 0);
    case NKT_UDP_FACTS: return nkti_udp_prepare(fd, family);
    case NKT_UDP_REUSE: return nkti_udp_reuse(fd, number != 0);
    case NKT_UDP_ICMP_ERRORS: return nkti_udp_icmp_errors(fd, family, number);
#if NKTI_LINUX
    case NKT_UDP_COALESCE: return nkti_os_setsockopt(fd, NKTI_SOL_UDP, NKTI_UDP_GRO, number);
#endif
    default: return NKT_EUNSUPPORTED;
    }
}

static int nkti_os_udp_get_option(nkt_env *env, nkt_fd fd, int family, int option,
                                  int64_t *value) {
    int number = 0, err = NKT_EUNSUPPORTED;
    (void)env;
#if NKTI_LINUX
    if (option == NKT_UDP_PATH_MTU) {
        if (family != NKT_IPV4) {
            err = nkti_os_getsockopt(fd, IPPROTO_IPV6, NKTI_IPV6_MTU, &number);
        }
        if (err < 0 && family != NKT_IPV6) {
            err = nkti_os_getsockopt(fd, IPPROTO_IP, NKTI_IP_MTU, &number);
        }
    }
#else
    (void)fd;
    (void)family;
    (void)option;
#endif
    if (err >= 0) *value = number;
    return err;
}

// --- Names and control messages ----------------------------------------------

NKTI_INLINE nkti_socklen nkti_udp_to_name(const nkt_addr *addr, int family, nkti_sockname *name) {
    nkt_addr mapped;
    if (family == 0 && addr->ip.family == NKT_IPV4) {
        mapped = *addr;
        mapped.ip = nkt_ip_map(&addr->ip);
        addr = &mapped;
    }
    int len = nkt_addr_to_sockaddr(addr, name, sizeof *name);
    return len < 0 ? 0 : (nkti_socklen)len;
}

NKTI_INLINE void nkti_udp_from_name(const nkti_sockname *name, size_t len, nkt_addr *addr) {
    if (len == sizeof name->in4 && name->in4.sin_family == AF_INET) {
        memset(addr, 0, sizeof *addr);
        memcpy(addr->ip.bytes, &name->in4.sin_addr, 4);
        addr->ip.family = NKT_IPV4;
        addr->port = ntohs(name->in4.sin_port);
        return;
    }
    if (nkt_addr_from_sockaddr(name, len, addr) < 0) memset(addr, 0, sizeof *addr);
    addr->ip = nkt_ip_unmap(&addr->ip);
}

static void nkti_udp_came_to(nkt_datagram *datagram, const void *bytes, size_t len,
                             uint32_t index) {
    nkt_ip ip = nkt_ip_from_bytes(bytes, len);
    datagram->local = nkt_ip_unmap(&ip);
    if (index != 0) datagram->interface_index = index;
}

static void nkti_udp_fact4(nkt_datagram *datagram, int type, const void *data, size_t len,
                           int number) {
#ifdef IP_PKTINFO
    struct in_pktinfo info;
    if (type == IP_PKTINFO && len >= sizeof info) {
        memcpy(&info, data, sizeof info);
        nkti_udp_came_to(datagram, &info.ipi_addr, 4, (uint32_t)info.ipi_ifindex);
    }
#endif
#if !NKTI_WINDOWS && defined(IP_RECVDSTADDR) && defined(IP_RECVIF)
    struct sockaddr_dl link;
    if (type == IP_RECVDSTADDR && len >= 4) nkti_udp_came_to(datagram, data, 4, 0);
    if (type == IP_RECVIF && len >= offsetof(struct sockaddr_dl, sdl_data)) {
        memcpy(&link, data, offsetof(struct sockaddr_dl, sdl_data));
        datagram->interface_index = link.sdl_index;
    }
#endif
#if NKTI_WINDOWS
    const int recv_ttl = 21, recv_tos = 40;
    if (type == recv_ttl || type == IP_TTL) datagram->hops = number;
    if (type == recv_tos || type == IP_TOS) datagram->traffic_class = number;
#elif NKTI_LINUX
    if (type == IP_TTL) datagram->hops = number;
    if (type == IP_TOS) datagram->traffic_class = number;
#else
    if (type == IP_RECVTTL) datagram->hops = number;
    #ifdef IP_RECVTOS
    if (type == IP_RECVTOS) datagram->traffic_class = number;
    #endif
#endif
}

// One control message of a datagram that came in.
static void nkti_udp_fact(nkt_datagram *datagram, int level, int type, const void *data,
                          size_t len) {
    int number = 0;
    if (len >= sizeof number) memcpy(&number, data, sizeof number);
    else if (len > 0) number = *(const uint8_t *)data;
    if (level == IPPROTO_IP) nkti_udp_fact4(datagram, type, data, len, number);
#ifdef IPV6_PKTINFO
    if (level == IPPROTO_IPV6) {
        struct { uint8_t addr[16]; uint32_t index; } info;      // in6_pktinfo
        if (type == IPV6_PKTINFO && len >= sizeof info) {
            memcpy(&info, data, sizeof info);
            nkti_udp_came_to(datagram, info.addr, 16, info.index);
        }
    #if NKTI_WINDOWS
        const int recv_tclass = 40;
        if (type == recv_tclass) datagram->traffic_class = number;
    #endif
        if (type == IPV6_HOPLIMIT) datagram->hops = number;
        if (type == IPV6_TCLASS) datagram->traffic_class = number;
    }
#endif
#if NKTI_LINUX
    if (level == NKTI_SOL_UDP && type == NKTI_UDP_GRO && number > 0) {
        datagram->segment = (uint32_t)number;
    }
#endif
}

// --- One datagram ------------------------------------------------------------

// A group leaves by an interface that the socket was told of before.
NKTI_INLINE int nkti_udp_leave_by(nkt_fd fd, const nkt_datagram *datagram) {
    bool is_group = datagram->addr.ip.family == NKT_IPV4
        ? (datagram->addr.ip.bytes[0] & 0xf0) == 0xe0 : datagram->addr.ip.bytes[0] == 0xff;
    if (NKTI_LINUX || datagram->interface_index == 0 || !is_group) return NKT_OK;
    if (datagram->addr.ip.family == NKT_IPV6) {
        return nkti_os_setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF,
                                  (int)datagram->interface_index);
    }
    return nkti_os_result(setsockopt((nkti_socket)fd, IPPROTO_IP, IP_MULTICAST_IF,
                                     (const char *)datagram->local.bytes, 4));
}

#if NKTI_WINDOWS
// What Windows calls an ICMP error of a datagram.
static int nkti_udp_error(void) {
    int os_error = WSAGetLastError();
    if (os_error == WSAECONNRESET) return NKT_EREFUSED;
    return os_error == WSAENETRESET ? (int)NKT_EHOSTUNREACH : nkti_error_from_os(os_error);
}

static LPFN_WSARECVMSG nkti_udp_recvmsg(nkt_fd fd) {
    GUID id = WSAID_WSARECVMSG;
    LPFN_WSARECVMSG found = NULL;
    DWORD got = 0;
    WSAIoctl((SOCKET)fd, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof id, &found,
             sizeof found, &got, NULL, NULL);
    return found;
}

NKTI_INLINE int nkti_udp_recv_one(nkt_fd fd, nkt_datagram *datagram, bool facts) {
    nkti_sockname name;
    union { size_t align; char room[256]; } control;
    WSACMSGHDR head;
    const size_t head_size = (sizeof head + 7) & ~(size_t)7;
    WSABUF part;
    WSAMSG message;
    DWORD got = 0, flags = 0;
    int result, name_len = sizeof name;
    part.buf = (char *)datagram->data;
    part.len = datagram->cap;
    memset(&message, 0, sizeof message);
    LPFN_WSARECVMSG recvmsg = facts ? nkti_udp_recvmsg(fd) : NULL;
    if (recvmsg != NULL) {
        message.name = &name.any;
        message.namelen = name_len;
        message.lpBuffers = &part;
        message.dwBufferCount = 1;
        message.Control.buf = control.room;
        message.Control.len = sizeof control;
        result = recvmsg((SOCKET)fd, &message, &got, NULL, NULL);
        name_len = message.namelen;
        flags = message.dwFlags;
    } else {
        result = WSARecvFrom((SOCKET)fd, &part, 1, &got, &flags, &name.any, &name_len, NULL,
                             NULL);
    }
    // The beginning of a longer one is there nonetheless.
    bool cut = result != 0 && WSAGetLastError() == WSAEMSGSIZE;
    if (result != 0 && !cut) return nkti_udp_error();
    datagram->truncated = cut || (flags & MSG_TRUNC) != 0;
    datagram->len = datagram->truncated ? datagram->cap : (uint32_t)got;
    nkti_udp_from_name(&name, (size_t)name_len, &datagram->addr);
    if (recvmsg == NULL || cut) return 1;
    for (size_t at = 0; at + head_size <= message.Control.len;
         at += (head.cmsg_len + 7) & ~(size_t)7) {
        memcpy(&head, control.room + at, sizeof head);
        if (head.cmsg_len < head_size || head.cmsg_len > message.Control.len - at) break;
        nkti_udp_fact(datagram, head.cmsg_level, head.cmsg_type, control.room + at + head_size,
                      head.cmsg_len - head_size);
    }
    return 1;
}

NKTI_INLINE int nkti_udp_send_one(nkt_fd fd, int family, const nkt_datagram *datagram) {
    nkti_sockname name;
    WSABUF part;
    DWORD sent = 0;
    nkti_socklen len = 0;
    int err = nkti_udp_leave_by(fd, datagram);
    if (err < 0) return err;
    if (datagram->addr.ip.family != 0) len = nkti_udp_to_name(&datagram->addr, family, &name);
    part.buf = (char *)datagram->data;
    part.len = datagram->len;
    int result = WSASendTo((SOCKET)fd, &part, 1, &sent, 0, len > 0 ? &name.any : NULL, len,
                           NULL, NULL);
    return result == 0 ? 1 : nkti_udp_error();
}

#else

typedef union nkti_control {
    size_t align;
    char room[192];
} nkti_control;

static void nkti_udp_message(struct msghdr *message, struct iovec *part, nkti_sockname *name,
                             nkti_control *control, const nkt_datagram *datagram) {
    memset(message, 0, sizeof *message);
    part->iov_base = datagram->data;
    part->iov_len = datagram->cap;
    message->msg_name = name;
    message->msg_namelen = sizeof *name;
    message->msg_iov = part;
    message->msg_iovlen = 1;
    message->msg_control = control->room;
    message->msg_controllen = sizeof *control;
}

static void nkti_udp_received(nkt_datagram *datagram, struct msghdr *message, size_t got) {
    datagram->len = (uint32_t)got;
    datagram->truncated = (message->msg_flags & MSG_TRUNC) != 0;
    nkti_udp_from_name((const nkti_sockname *)message->msg_name, message->msg_namelen,
                       &datagram->addr);
    for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at != NULL; at = CMSG_NXTHDR(message, at)) {
        nkti_udp_fact(datagram, at->cmsg_level, at->cmsg_type, CMSG_DATA(at),
                      at->cmsg_len - (size_t)((char *)CMSG_DATA(at) - (char *)at));
    }
}

static size_t nkti_control_put(nkti_control *control, size_t at, int level, int type,
                               const void *data, size_t len) {
    struct cmsghdr head;
    memset(&head, 0, sizeof head);
    head.cmsg_len = (socklen_t)CMSG_LEN(len);       // a size_t on Linux alone
    head.cmsg_level = level;
    head.cmsg_type = type;
    memcpy(control->room + at, &head, sizeof head);
    memcpy(control->room + at + (CMSG_LEN(len) - len), data, len);
    return at + CMSG_SPACE(len);
}

// From which address and through which interface a datagram is to leave, and of
// what class it is. Returns the bytes of control messages.
static size_t nkti_udp_control(const nkt_datagram *datagram, int family, nkti_control *control) {
    size_t at = 0;
    int family_is = datagram->addr.ip.family != 0 ? datagram->addr.ip.family
                  : family != 0 ? family : datagram->local.family;
    memset(control, 0, sizeof *control);
    if (datagram->interface_index != 0 || datagram->local.family != 0) {
        if (family_is != NKT_IPV4) {
    #ifdef IPV6_PKTINFO
            struct { uint8_t addr[16]; uint32_t index; } info;
            memcpy(info.addr, datagram->local.bytes, 16);
            info.index = datagram->interface_index;
            at = nkti_control_put(control, at, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    #endif
        } else {
    #if NKTI_LINUX || defined(__APPLE__)
            struct in_pktinfo info;
            memset(&info, 0, sizeof info);
            memcpy(&info.ipi_ifindex, &datagram->interface_index, sizeof info.ipi_ifindex);
            memcpy(&info.ipi_spec_dst, datagram->local.bytes, 4);
            at = nkti_control_put(control, at, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    #elif defined(IP_SENDSRCADDR)
            if (datagram->local.family != 0) {
                at = nkti_control_put(control, at, IPPROTO_IP, IP_SENDSRCADDR,
                                      datagram->local.bytes, 4);
            }
    #endif
        }
    }
    if (datagram->traffic_class > 0) {
        int value = datagram->traffic_class;
        // Each family overlooks the other's.
        if (family_is != NKT_IPV4 && family != NKT_IPV4) {
            at = nkti_control_put(control, at, IPPROTO_IPV6, IPV6_TCLASS, &value, sizeof value);
        }
        if (family_is != NKT_IPV6 && family != NKT_IPV6) {
            at = nkti_control_put(control, at, IPPROTO_IP, IP_TOS, &value, sizeof value);
        }
    }
    return at;
}

NKTI_INLINE bool nkti_udp_is_plain(const nkt_datagram *datagram) {
    return datagram->interface_index == 0 && datagram->local.family == 0 &&
           datagram->traffic_class <= 0;
}

NKTI_APART int nkti_udp_send_message(nkt_fd fd, int family, const nkt_datagram *datagram,
                                     nkti_sockname *name, nkti_socklen len) {
    nkti_control control;
    struct msghdr message;
    struct iovec part;
    nkti_udp_message(&message, &part, name, &control, datagram);
    part.iov_len = datagram->len;
    message.msg_name = len > 0 ? name : NULL;
    message.msg_namelen = len;
    message.msg_controllen = (socklen_t)nkti_udp_control(datagram, family, &control);
    if (message.msg_controllen == 0) message.msg_control = NULL;
    ssize_t sent = sendmsg((int)fd, &message, NKTI_NOSIGNAL | NKTI_DONTWAIT);
    return sent >= 0 ? 1 : nkti_error_from_os(errno);
}

NKTI_INLINE int nkti_udp_send_one(nkt_fd fd, int family, const nkt_datagram *datagram) {
    nkti_sockname name;
    nkti_socklen len = 0;
    int err = nkti_udp_leave_by(fd, datagram);
    if (err < 0) return err;
    if (datagram->addr.ip.family != 0) len = nkti_udp_to_name(&datagram->addr, family, &name);
    if (nkti_udp_is_plain(datagram)) {
        ssize_t sent = sendto((int)fd, datagram->data, datagram->len,
                              NKTI_NOSIGNAL | NKTI_DONTWAIT, len > 0 ? &name.any : NULL, len);
        return sent >= 0 ? 1 : nkti_error_from_os(errno);
    }
    return nkti_udp_send_message(fd, family, datagram, &name, len);
}

NKTI_APART int nkti_udp_recv_message(nkt_fd fd, nkt_datagram *datagram, bool facts) {
    nkti_sockname name;
    nkti_control control;
    struct msghdr message;
    struct iovec part;
    nkti_udp_message(&message, &part, &name, &control, datagram);
    if (!facts) message.msg_controllen = 0;
    ssize_t got = recvmsg((int)fd, &message, NKTI_DONTWAIT);
    if (got < 0) return nkti_error_from_os(errno);
    nkti_udp_received(datagram, &message, (size_t)got);
    return 1;
}

NKTI_INLINE int nkti_udp_recv_one(nkt_fd fd, nkt_datagram *datagram, bool facts) {
    #if NKTI_LINUX
    if (!facts) {
        // Linux tells the whole length, so a cut needs no message header.
        nkti_sockname name;
        socklen_t len = sizeof name;
        ssize_t whole = recvfrom((int)fd, datagram->data, datagram->cap,
                                 NKTI_DONTWAIT | MSG_TRUNC, &name.any, &len);
        if (whole < 0) return nkti_error_from_os(errno);
        datagram->truncated = (size_t)whole > datagram->cap;
        datagram->len = datagram->truncated ? datagram->cap : (uint32_t)whole;
        nkti_udp_from_name(&name, len, &datagram->addr);
        return 1;
    }
    #endif
    return nkti_udp_recv_message(fd, datagram, facts);
}
#endif

// --- Many --------------------------------------------------------------------

#if NKTI_LINUX

// As struct mmsghdr and its calls, which are hidden from those who included a
// system header before netkit.h.
typedef struct nkti_mmsghdr {
    struct msghdr head;
    unsigned int len;
} nkti_mmsghdr;

// The first bytes go to the small slot, the rest behind the same number of the
// large one: each page that is touched costs a third of a small datagram.
static void nkti_udp_use_small(const nkt_datagram *datagram, struct iovec *parts) {
    parts[1].iov_base = (uint8_t *)datagram->data + NKTI_UDP_SMALL;
    parts[1].iov_len = datagram->cap - NKTI_UDP_SMALL;
    parts[0].iov_base = nkti_udp_small(datagram);
    parts[0].iov_len = NKTI_UDP_SMALL;
}

NKTI_APART int nkti_udp_recv_batch(nkt_fd fd, nkt_datagram *list, int count) {
    nkti_mmsghdr messages[NKTI_UDP_SLOTS];
    struct iovec parts[2 * NKTI_UDP_SLOTS];
    nkti_sockname names[NKTI_UDP_SLOTS];
    nkti_control controls[NKTI_UDP_SLOTS];
    if (count > NKTI_UDP_SLOTS) count = NKTI_UDP_SLOTS;
    for (int i = 0; i < count; i++) {
        nkti_udp_message(&messages[i].head, &parts[2 * i], &names[i], &controls[i], &list[i]);
        if (list[i].reserved[NKTI_IN_SLOT] == 0) continue;
        nkti_udp_use_small(&list[i], &parts[2 * i]);
        messages[i].head.msg_iovlen = 2;
    }
    int got = (int)syscall(SYS_recvmmsg, (int)fd, messages, (unsigned)count, NKTI_DONTWAIT, NULL);
    if (got < 0) return nkti_error_from_os(errno);
    for (int i = 0; i < got; i++) {
        nkti_udp_received(&list[i], &messages[i].head, messages[i].len);
        if (list[i].reserved[NKTI_IN_SLOT] == 0) continue;
        list[i].reserved[NKTI_IS_SMALL] = list[i].len <= NKTI_UDP_SMALL;
        if (list[i].len > NKTI_UDP_SMALL) {
            memcpy(list[i].data, nkti_udp_small(&list[i]), NKTI_UDP_SMALL);
        }
    }
    return got;
}

NKTI_INLINE int nkti_os_udp_recv(nkt_env *env, nkt_fd fd, int family, nkt_datagram *list, int count,
                            bool facts) {
    (void)env;
    (void)family;
    return count == 1 ? nkti_udp_recv_one(fd, list, facts)
                      : nkti_udp_recv_batch(fd, list, count);
}

// Whether two datagrams leave in the same way to the same place.
static bool nkti_udp_is_alike(const nkt_datagram *a, const nkt_datagram *b) {
    return memcmp(&a->addr, &b->addr, sizeof a->addr) == 0 &&
           a->interface_index == b->interface_index && a->traffic_class == b->traffic_class &&
           memcmp(&a->local, &b->local, sizeof a->local) == 0;
}

// How many datagrams of the list can go as one message.
static int nkti_udp_run(const nkt_datagram *list, int count, bool segments) {
    uint32_t len = list[0].len, total = len;
    int run = 1;
    if (!segments || len == 0 || len > NKTI_SEGMENT_LEN) return 1;
    while (run < count && run < NKTI_SEGMENTS_MAX && list[run].len <= len &&
           list[run].len > 0 && total + len <= NKTI_SEGMENT_BYTES &&
           nkti_udp_is_alike(&list[0], &list[run])) {
        total += list[run].len;
        // A shorter one can only be the last.
        if (list[run++].len < len) break;
    }
    return run;
}

typedef struct nkti_udp_sending {
    nkti_mmsghdr messages[NKTI_UDP_MESSAGES];
    nkti_sockname names[NKTI_UDP_MESSAGES];
    nkti_control controls[NKTI_UDP_MESSAGES];
    struct iovec parts[NKTI_UDP_PARTS];
    int ends[NKTI_UDP_MESSAGES];        // how many datagrams each message and those before are
    int count, part_count;
} nkti_udp_sending;

// Adds a run as one message. What lies back to back is one part.
static void nkti_udp_add_run(nkti_udp_sending *out, const nkt_datagram *list, int run,
                             int family) {
    int at = out->count;
    struct msghdr *head = &out->messages[at].head;
    struct iovec *parts = &out->parts[out->part_count];
    size_t part_count = 0;
    memset(head, 0, sizeof *head);
    for (int i = 0; i < run; i++) {
        if (part_count > 0 && (char *)parts[part_count - 1].iov_base +
                              parts[part_count - 1].iov_len == (char *)list[i].data) {
            parts[part_count - 1].iov_len += list[i].len;
            continue;
        }
        parts[part_count].iov_base = list[i].data;
        parts[part_count++].iov_len = list[i].len;
    }
    head->msg_iov = parts;
    head->msg_iovlen = part_count;
    if (list[0].addr.ip.family != 0) {
        // The same peer as before has the same name.
        bool again = at > 0 && out->messages[at - 1].head.msg_name != NULL &&
                     memcmp(&list[0].addr, &list[-1].addr, sizeof list[0].addr) == 0;
        head->msg_name = again ? out->messages[at - 1].head.msg_name : &out->names[at];
        head->msg_namelen = again ? out->messages[at - 1].head.msg_namelen
                                  : nkti_udp_to_name(&list[0].addr, family, &out->names[at]);
    }
    size_t control = nkti_udp_is_plain(&list[0]) ? 0
                   : nkti_udp_control(&list[0], family, &out->controls[at]);
    if (run > 1) {
        uint16_t segment = (uint16_t)list[0].len;
        control = nkti_control_put(&out->controls[at], control, NKTI_SOL_UDP, NKTI_UDP_SEGMENT,
                                   &segment, sizeof segment);
    }
    if (control > 0) head->msg_control = out->controls[at].room;
    head->msg_controllen = control;
    out->ends[at] = (at > 0 ? out->ends[at - 1] : 0) + run;
    out->part_count += (int)part_count;
    out->count++;
}

NKTI_APART int nkti_udp_send_batch(nkt_fd fd, int family, const nkt_datagram *list, int count,
                                   bool *segments) {
    nkti_udp_sending out;
    for (bool segmenting = *segments;; segmenting = false) {
        out.count = out.part_count = 0;
        bool first_is_run = false;
        for (int i = 0; i < count && out.count < NKTI_UDP_MESSAGES;) {
            int run = nkti_udp_run(list + i, count - i, segmenting);
            if (out.part_count + run > NKTI_UDP_PARTS) break;
            if (i == 0) first_is_run = run > 1;
            nkti_udp_add_run(&out, list + i, run, family);
            i += run;
        }
        int sent = (int)syscall(SYS_sendmmsg, (int)fd, out.messages, (unsigned)out.count,
                                NKTI_NOSIGNAL | NKTI_DONTWAIT);
        if (sent > 0) return out.ends[sent - 1];
        int os_error = sent < 0 ? errno : EIO;
        // A way out that cannot sum up segments says EIO, an old kernel or a
        // path that they do not fit through something else.
        if (os_error == EIO) *segments = false;
        if (!first_is_run || (os_error != EIO && os_error != EINVAL && os_error != EMSGSIZE &&
                              os_error != ENOPROTOOPT)) return nkti_error_from_os(os_error);
    }
}

NKTI_INLINE int nkti_os_udp_send(nkt_env *env, nkt_fd fd, int family, const nkt_datagram *list,
                            int count, bool *segments) {
    (void)env;
    return count == 1 ? nkti_udp_send_one(fd, family, list)
                      : nkti_udp_send_batch(fd, family, list, count, segments);
}

#else

NKTI_INLINE int nkti_os_udp_recv(nkt_env *env, nkt_fd fd, int family, nkt_datagram *list, int count,
                            bool facts) {
    (void)env;
    (void)family;
    for (int i = 0; i < count; i++) {
        int got = nkti_udp_recv_one(fd, &list[i], facts);
        if (got < 0) return i > 0 ? i : got;
    }
    return count;
}

NKTI_INLINE int nkti_os_udp_send(nkt_env *env, nkt_fd fd, int family, const nkt_datagram *list,
                            int count, bool *segments) {
    (void)env;
    *segments = false;
    for (int i = 0; i < count; i++) {
        int sent = nkti_udp_send_one(fd, family, &list[i]);
        if (sent < 0) return i > 0 ? i : sent;
    }
    return count;
}
#endif

static int nkti_os_udp_next_error(nkt_env *env, nkt_fd fd, nkt_addr *to) {
    (void)env;
#if NKTI_LINUX
    struct { uint32_t os_error; uint8_t origin, type, code, pad; uint32_t info, data; } what;
    const int errqueue = 0x2000, ip_recverr = NKTI_IP_RECVERR, ipv6_recverr = NKTI_IPV6_RECVERR;
    nkti_sockname name;
    nkti_control control;
    struct msghdr message;
    struct iovec part;
    nkt_datagram none;
    char byte;
    memset(&none, 0, sizeof none);
    memset(&what, 0, sizeof what);
    none.data = &byte;
    nkti_udp_message(&message, &part, &name, &control, &none);
    if (recvmsg((int)fd, &message, errqueue | MSG_DONTWAIT) < 0) return nkti_error_from_os(errno);
    for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at != NULL;
         at = CMSG_NXTHDR(&message, at)) {
        bool is_error = (at->cmsg_level == IPPROTO_IP && at->cmsg_type == ip_recverr) ||
                        (at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == ipv6_recverr);
        if (is_error) memcpy(&what, CMSG_DATA(at), sizeof what);
    }
    nkti_udp_from_name(&name, message.msg_namelen, to);
    errno = (int)what.os_error;
    return nkti_error_from_os(errno);
#else
    (void)fd;
    (void)to;
    return NKT_EAGAIN;
#endif
}

// --- Groups ------------------------------------------------------------------

#if !NKTI_WINDOWS && defined(MCAST_JOIN_GROUP)
static int nkti_os_udp_member(nkt_env *env, nkt_fd fd, const nkt_ip *group, const nkt_ip *source,
                              uint32_t index, const nkt_ip *local, bool join) {
    struct group_source_req request;
    struct group_req any;
    nkt_addr addr = nkt_addr_make(group, 0);
    int level = group->family == NKT_IPV4 ? IPPROTO_IP : IPPROTO_IPV6;
    (void)env;
    (void)local;
    memset(&request, 0, sizeof request);
    memset(&any, 0, sizeof any);
    if (source->family == 0) {
        any.gr_interface = index;
        nkt_addr_to_sockaddr(&addr, &any.gr_group, sizeof any.gr_group);
        return nkti_os_result(setsockopt((int)fd, level,
                                         join ? MCAST_JOIN_GROUP : MCAST_LEAVE_GROUP, &any,
                                         sizeof any));
    }
    request.gsr_interface = index;
    nkt_addr_to_sockaddr(&addr, &request.gsr_group, sizeof request.gsr_group);
    addr.ip = *source;
    nkt_addr_to_sockaddr(&addr, &request.gsr_source, sizeof request.gsr_source);
    return nkti_os_result(setsockopt((int)fd, level, join ? MCAST_JOIN_SOURCE_GROUP
                                                          : MCAST_LEAVE_SOURCE_GROUP,
                                     &request, sizeof request));
}
#else
static int nkti_os_udp_member(nkt_env *env, nkt_fd fd, const nkt_ip *group, const nkt_ip *source,
                              uint32_t index, const nkt_ip *local, bool join) {
    struct ip_mreq in4;
    struct ipv6_mreq in6;
    (void)env;
    if (source->family != 0) {
#if NKTI_WINDOWS
        struct ip_mreq_source from;
        if (group->family == NKT_IPV6) return NKT_EUNSUPPORTED;
        memset(&from, 0, sizeof from);
        memcpy(&from.imr_multiaddr, group->bytes, 4);
        memcpy(&from.imr_sourceaddr, source->bytes, 4);
        memcpy(&from.imr_interface, local->bytes, 4);
        return nkti_os_result(setsockopt((SOCKET)fd, IPPROTO_IP, join ? IP_ADD_SOURCE_MEMBERSHIP
                                                                      : IP_DROP_SOURCE_MEMBERSHIP,
                                         (const char *)&from, sizeof from));
#else
        return NKT_EUNSUPPORTED;
#endif
    }
    if (group->family == NKT_IPV6) {
        memset(&in6, 0, sizeof in6);
        memcpy(&in6.ipv6mr_multiaddr, group->bytes, 16);
        in6.ipv6mr_interface = index;
        return nkti_os_result(setsockopt((nkti_socket)fd, IPPROTO_IPV6,
                                         join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP,
                                         (const char *)&in6, sizeof in6));
    }
    if (local->family != NKT_IPV4) return NKT_EADDRNOTAVAIL;
    memset(&in4, 0, sizeof in4);
    memcpy(&in4.imr_multiaddr, group->bytes, 4);
    memcpy(&in4.imr_interface, local->bytes, 4);
    return nkti_os_result(setsockopt((nkti_socket)fd, IPPROTO_IP,
                                     join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP,
                                     (const char *)&in4, sizeof in4));
}
#endif

static const nkt_sys_udp nkti_os_udp = {
    sizeof(nkt_sys_udp), nkti_os_udp_set_option, nkti_os_udp_get_option, nkti_os_udp_recv,
    nkti_os_udp_send, nkti_os_udp_next_error, nkti_os_udp_member,
};

//==============================================================================
// MARK: @sys.net - interfaces, their addresses, and news of them
//
// News is a descriptor that becomes readable: rtnetlink on Linux, a routing
// socket on macOS and the BSDs. What it says is not read: whoever hears of news
// looks at the list again. Windows has none here, and is asked now and then.
//==============================================================================

static void nkti_iface_put(nkt_sys_iface *rows, int cap, int at, const nkt_sys_iface *row) {
    if (at < cap) rows[at] = *row;
}

#if NKTI_WINDOWS
static uint32_t nkti_adapter_flags(const IP_ADAPTER_ADDRESSES *adapter) {
    uint32_t flags = adapter->OperStatus == IfOperStatusUp ? NKT_IFACE_UP : 0;
    const DWORD no_multicast = 0x10, ppp = 23, loopback = 24, tunnel = 131;
    if ((adapter->Flags & no_multicast) == 0) flags |= NKT_IFACE_MULTICAST;
    if (adapter->IfType == loopback) return flags | NKT_IFACE_LOOPBACK;
    if (adapter->IfType == ppp || adapter->IfType == tunnel) {
        return flags | NKT_IFACE_POINT_TO_POINT;
    }
    return flags | NKT_IFACE_BROADCAST;
}

static int nkti_os_net_list(nkt_env *env, nkt_sys_iface *rows, int cap) {
    ULONG size = 16384, code = ERROR_BUFFER_OVERFLOW;
    void *block = NULL;
    int count = 0;
    for (int i = 0; i < 4 && code == ERROR_BUFFER_OVERFLOW; i++) {
        ULONG old_size = size;
        block = nkti_resize(env, NULL, 0, size);
        if (block == NULL) return NKT_ENOMEM;
        code = GetAdaptersAddresses(AF_UNSPEC, GAA_FLAG_SKIP_ANYCAST | GAA_FLAG_SKIP_MULTICAST |
                                    GAA_FLAG_SKIP_DNS_SERVER, NULL,
                                    (IP_ADAPTER_ADDRESSES *)block, &size);
        if (code == 0) size = old_size;
        else nkti_free(env, block, old_size);
    }
    if (code != 0) return code == ERROR_NO_DATA ? 0 : (int)NKT_EOS;
    for (IP_ADAPTER_ADDRESSES *at = (IP_ADAPTER_ADDRESSES *)block; at != NULL; at = at->Next) {
        nkt_sys_iface row;
        memset(&row, 0, sizeof row);
        row.flags = nkti_adapter_flags(at);
        row.index = at->IfIndex != 0 ? at->IfIndex : at->Ipv6IfIndex;
        nkti_iface_put(rows, cap, count++, &row);
        for (IP_ADAPTER_UNICAST_ADDRESS *has = at->FirstUnicastAddress; has != NULL;
             has = has->Next) {
            nkt_addr addr;
            if (nkt_addr_from_sockaddr(has->Address.lpSockaddr,
                                       (size_t)has->Address.iSockaddrLength, &addr) < 0) continue;
            row.ip = addr.ip;
            row.index = addr.ip.family == NKT_IPV6 ? at->Ipv6IfIndex : at->IfIndex;
            row.bits = has->OnLinkPrefixLength;
            nkti_iface_put(rows, cap, count++, &row);
        }
    }
    nkti_free(env, block, size);
    return count;
}

static int nkti_os_net_watch_open(nkt_env *env, nkt_fd *fd) {
    (void)env;
    (void)fd;
    return NKT_EUNSUPPORTED;
}

#else

static uint32_t nkti_mask_bits(const uint8_t *bytes, size_t len) {
    uint32_t bits = 0;
    for (size_t i = 0; i < len * 8 && (bytes[i / 8] & (0x80 >> i % 8)) != 0; i++) bits++;
    return bits;
}

static void nkti_iface_read(const struct ifaddrs *at, nkt_sys_iface *row) {
    nkt_addr addr;
    unsigned flags = at->ifa_flags;
    if ((flags & IFF_UP) && (flags & IFF_RUNNING)) row->flags |= NKT_IFACE_UP;
    if (flags & IFF_LOOPBACK) row->flags |= NKT_IFACE_LOOPBACK;
    if (flags & IFF_MULTICAST) row->flags |= NKT_IFACE_MULTICAST;
    if (flags & IFF_BROADCAST) row->flags |= NKT_IFACE_BROADCAST;
    if (flags & IFF_POINTOPOINT) row->flags |= NKT_IFACE_POINT_TO_POINT;
    if (at->ifa_addr == NULL || (at->ifa_addr->sa_family != AF_INET &&
                                 at->ifa_addr->sa_family != AF_INET6)) return;
    bool is_ipv4 = at->ifa_addr->sa_family == AF_INET;
    size_t size = is_ipv4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (nkt_addr_from_sockaddr(at->ifa_addr, size, &addr) >= 0) row->ip = addr.ip;
    if (at->ifa_netmask != NULL) {
        const char *mask = (const char *)at->ifa_netmask;
        size_t begin = is_ipv4 ? offsetof(struct sockaddr_in, sin_addr)
                               : offsetof(struct sockaddr_in6, sin6_addr);
        size_t len = is_ipv4 ? 4 : 16;
#if NKTI_BSD
        // Zero bytes at its end may be left out.
        size_t given = at->ifa_netmask->sa_len > begin ? at->ifa_netmask->sa_len - begin : 0;
        if (len > given) len = given;
#endif
        row->bits = nkti_mask_bits((const uint8_t *)mask + begin, len);
    }
    if ((flags & IFF_POINTOPOINT) && at->ifa_dstaddr != NULL &&
        nkt_addr_from_sockaddr(at->ifa_dstaddr, size, &addr) >= 0 &&
        !nkt_ip_equal(&addr.ip, &row->ip)) row->peer = addr.ip;
}

static int nkti_os_net_list(nkt_env *env, nkt_sys_iface *rows, int cap) {
    struct ifaddrs *list = NULL;
    const char *last = NULL;
    uint32_t index = 0;
    int count = 0;
    (void)env;
    if (getifaddrs(&list) != 0) return nkti_error_from_os(errno);
    for (struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
        nkt_sys_iface row;
        memset(&row, 0, sizeof row);
        if (last == NULL || strcmp(last, at->ifa_name) != 0) index = if_nametoindex(at->ifa_name);
        last = at->ifa_name;
        row.index = index;
        nkti_iface_read(at, &row);
        if (index != 0) nkti_iface_put(rows, cap, count++, &row);
    }
    freeifaddrs(list);
    return count;
}

static int nkti_os_net_watch_open(nkt_env *env, nkt_fd *fd) {
    (void)env;
#if NKTI_LINUX
    struct { uint16_t family, pad; uint32_t pid, groups; } name;    // sockaddr_nl
    const int af_netlink = 16, route = 0;
    const uint32_t link_groups = 0x1, address_groups = 0x10 | 0x100;
    int opened = socket(af_netlink, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, route);
    if (opened < 0) return nkti_error_from_os(errno);
    memset(&name, 0, sizeof name);
    name.family = (uint16_t)af_netlink;
    name.groups = link_groups | address_groups;
    if (bind(opened, (const struct sockaddr *)(const void *)&name, sizeof name) != 0) {
        int err = nkti_error_from_os(errno);
        close(opened);
        return err;
    }
#else
    int opened = socket(PF_ROUTE, SOCK_RAW, 0);
    if (opened < 0) return nkti_error_from_os(errno);
    int err = nkti_os_result(fcntl(opened, F_SETFD, FD_CLOEXEC));
    if (err >= 0) err = nkti_os_set_blocking(env, opened, false);
    if (err < 0) {
        close(opened);
        return err;
    }
#endif
    *fd = opened;
    return NKT_OK;
}
#endif

static void nkti_os_net_watch_close(nkt_env *env, nkt_fd fd) {
    nkti_os_close(env, fd);
}

// Too much news for the socket's buffer is news as well.
static bool nkti_os_net_watch_drain(nkt_env *env, nkt_fd fd) {
    char room[4096];
    bool news = false;
    for (;;) {
        ptrdiff_t got = nkti_os_recv(env, fd, room, sizeof room);
        if (got == NKT_EAGAIN || got == NKT_EOF) return news;
        news = true;
        if (got < 0 && got != NKT_ENOMEM && got != NKT_EINTR) return news;
    }
}

static const nkt_sys_net nkti_os_net = {
    sizeof(nkt_sys_net), nkti_os_net_list, nkti_os_net_watch_open, nkti_os_net_watch_close,
    nkti_os_net_watch_drain,
};
#endif

//==============================================================================
// MARK: @types - the words every section uses
//
// The few functions on nkt_str, and the version of this implementation.
//==============================================================================

NKT_API nkt_str nkt_str_of(const char *text) {
    nkt_str str;
    str.ptr = text;
    str.len = strlen(text);
    return str;
}

NKT_API bool nkt_str_begins(nkt_str str, const char *text) {
    size_t len = strlen(text);
    return str.len >= len && memcmp(str.ptr, text, len) == 0;
}

NKT_API bool nkt_str_equal(nkt_str str, const char *text) {
    return strlen(text) == str.len && nkt_str_begins(str, text);
}

NKT_API const char *nkt_version(void) {
    return NKT_VERSION;
}

//==============================================================================
// MARK: @errors - one list of what can go wrong
//
// Both rows of texts are made of the one list in the declarations; the negated
// number counts them.
//==============================================================================

NKT_API const char *nkt_strerror(int err) {
#define NKT_X(name, number, text) text "\0"
    static const char texts[] = NKT_ERRORS(NKT_X);
#undef NKT_X
    return err < NKT_ERROR_LAST ? "unknown error" : nkti_packed(texts, -err);
}

NKT_API const char *nkt_errname(int err) {
#define NKT_X(name, number, text) "NKT_" #name "\0"
    static const char names[] = NKT_ERRORS(NKT_X);
#undef NKT_X
    return err < NKT_ERROR_LAST ? "NKT_UNKNOWN" : nkti_packed(names, -err);
}

// Fills in what was wrong, if anybody wants to know. Returns `err`.
static int nkti_problem_set(nkt_problem *problem, int err, const char *field, int32_t offset,
                            const char *text) {
    if (problem == NULL) return err;
    memset(problem, 0, sizeof *problem);
    problem->err = err;
    problem->offset = offset;
    nkti_text name = nkti_text_begin(problem->field, sizeof problem->field);
    nkti_text_str(&name, field);
    nkti_text sentence = nkti_text_begin(problem->text, sizeof problem->text);
    nkti_text_str(&sentence, text);
    return err;
}

//==============================================================================
// MARK: @env - the system underneath, and how to replace it
//
// An environment keeps a lock, the process it began in, and a pool of wake-up
// descriptors. A thread that waits on a blocking handle takes one for the time
// of the wait and leaves it with the handle; whoever wants to end the wait
// posts it there, under the lock:
//
//     waiting thread                       interrupt, cancel, notify
//     lock: canceled? leave a wake-up      lock: set the flag
//     wait(descriptors + wake-up)  <------ post the wake-up, if one was left
//     lock: take the wake-up back          unlock
//
// So there is one descriptor for each thread that waits, none for handles. If
// none can be had, the wait goes on in slices of 50 ms and looks at the flag.
//==============================================================================

#define NKTI_WAITERS_KEPT 64                // idle wake-ups kept for the next wait
#define NKTI_WAIT_SLICE (50 * NKTI_MS)

typedef struct nkti_waiter {
    struct nkti_waiter *next;
    nkt_wake wake;
    bool posted;
} nkti_waiter;

struct nkti_handle;

typedef struct nkti_env_state {
    nkti_mutex lock;
    nkti_waiter *idle;
    int idle_count;
    uint32_t process_id;
    // Of @impair and @virtual, and reached through here, so that a program that
    // uses neither does not have the code.
    struct nkti_pump *pump;
    bool (*linger)(struct nkti_handle *handle);
    void (*unpolled)(struct nkti_handle *handle);
    void (*end_pump)(nkt_env *env);
    struct nkti_virtual *clock;
    void (*end_clock)(nkt_env *env);
} nkti_env_state;

static nkti_env_state nkti_default_state = {
    NKTI_MUTEX_INIT, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL,
};
static nkt_env nkti_default_env = {
    sizeof(nkt_env), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, &nkti_default_state,
};
static uint32_t nkti_default_frozen;

NKT_API const nkt_sys_core *nkt_sys_core_default(void) {
    return &nkti_os_core;
}

NKT_API const nkt_sys_poll *nkt_sys_poll_default(void) {
    return &NKTI_POLL_DEFAULT;
}

NKT_API const nkt_sys_poll *nkt_sys_poll_portable(void) {
    return &nkti_poll_portable;
}

NKT_API const nkt_sys_threads *nkt_sys_threads_default(void) {
    return &nkti_os_threads;
}

static nkti_env_state *nkti_state(nkt_env *env) {
    return (nkti_env_state *)env->state;
}

NKT_API int nkt_env_init(nkt_env *env) {
    memset(env, 0, sizeof *env);
    env->size = sizeof *env;
    int err = nkti_os_start();
    if (err < 0) return err;
    nkti_env_state *state = (nkti_env_state *)calloc(1, sizeof *state);
    if (state == NULL) return NKT_ENOMEM;
    nkti_mutex_init(&state->lock);
    state->process_id = (uint32_t)nkti_os_process_id(env);
    env->core = &nkti_os_core;
    env->state = state;
    return NKT_OK;
}

static void nkti_waiter_free(nkt_env *env, nkti_waiter *waiter) {
    env->core->wake_close(env, &waiter->wake);
    nkti_free(env, waiter, sizeof *waiter);
}

NKT_API void nkt_env_free(nkt_env *env) {
    nkti_env_state *state = nkti_state(env);
    if (state == NULL || state == &nkti_default_state) return;
    if (env->core == NULL) env->core = &nkti_os_core;
    if (state->end_pump != NULL) state->end_pump(env);
    while (state->idle != NULL) {
        nkti_waiter *waiter = state->idle;
        state->idle = waiter->next;
        nkti_waiter_free(env, waiter);
    }
    if (state->end_clock != NULL) state->end_clock(env);
    nkti_mutex_free(&state->lock);
    free(state);
    env->core = &nkti_os_core;
    env->state = NULL;
}

NKT_API int nkt_env_set_default(const nkt_env *env) {
    if (nkti_atomic_load(&nkti_default_frozen) != 0) return NKT_EBUSY;
    void *state = nkti_default_env.state;
    nkti_default_env = *env;
    nkti_default_env.state = state;
    return NKT_OK;
}

// In a forked child the environment begins anew for the child's own handles:
// the lock may have been held at the fork, and wake-ups are shared with the
// parent, who must not lose one.
static nkt_env *nkti_env_after_fork(nkt_env *env) {
    nkti_env_state *state = nkti_state(env);
    uint32_t process_id = (uint32_t)env->core->process_id(env);
    if (state->process_id == process_id) return env;
    nkti_mutex_init(&state->lock);
    while (state->idle != NULL) {
        nkti_waiter *waiter = state->idle;
        state->idle = waiter->next;
        nkti_waiter_free(env, waiter);
    }
    state->idle_count = 0;
    state->process_id = process_id;
    return env;
}

// The environment of a handle that is being opened. NULL if it cannot be used.
static nkt_env *nkti_env_use(nkt_env *env) {
    if (env != NULL) {
        if (env->state == NULL || env->size < sizeof *env) return NULL;
        if (env->core == NULL) env->core = &nkti_os_core;
        return env->core->size < sizeof(nkt_sys_core) ? NULL : nkti_env_after_fork(env);
    }
    env = &nkti_default_env;
    if (nkti_atomic_load(&nkti_default_frozen) != 2) {
        nkti_mutex_lock(&nkti_default_state.lock);
        if (nkti_default_frozen != 2 && nkti_os_start() >= 0) {
            if (env->core == NULL) env->core = &nkti_os_core;
            nkti_default_state.process_id = (uint32_t)nkti_os_process_id(env);
            nkti_atomic_store(&nkti_default_frozen, 2);
        }
        nkti_mutex_unlock(&nkti_default_state.lock);
    }
    if (env->core == NULL || env->core->size < sizeof(nkt_sys_core)) return NULL;
    return nkti_env_after_fork(env);
}

static int64_t nkti_now(nkt_env *env) {
    return env->core->now_ns(env);
}

static void nkti_lock(nkt_env *env) {
    nkti_mutex_lock(&nkti_state(env)->lock);
}

static void nkti_unlock(nkt_env *env) {
    nkti_mutex_unlock(&nkti_state(env)->lock);
}

static void nkti_trace_os(nkt_env *env, const void *handle, const char *kind,
                          const char *state, int err, int32_t os_error, int64_t detail) {
    if (env->trace == NULL) return;
    nkt_trace what;
    what.os_error = os_error;
    what.now_ns = nkti_now(env);
    what.handle = handle;
    what.kind = kind;
    what.state = state;
    what.err = err;
    what.detail = detail;
    env->trace(env, &what);
}

static void nkti_trace(nkt_env *env, const void *handle, const char *kind, const char *state,
                       int err, int64_t detail) {
    nkti_trace_os(env, handle, kind, state, err, 0, detail);
}

// The core of an environment that is only asked something: that is no use of
// the default one, which may still be replaced.
static const nkt_sys_core *nkti_core_to_ask(nkt_env **env) {
    if (*env == NULL) *env = &nkti_default_env;
    if ((*env)->core != NULL) return (*env)->core;
    return nkti_os_start() >= 0 ? &nkti_os_core : NULL;
}

static int nkti_interface_index(nkt_env *env, const char *name, uint32_t *index) {
    const nkt_sys_core *core = nkti_core_to_ask(&env);
    return core == NULL ? (int)NKT_ENODEV : core->interface_index(env, name, index);
}

static int nkti_service_port(nkt_env *env, const char *name, uint16_t *port) {
    const nkt_sys_core *core = nkti_core_to_ask(&env);
    return core == NULL ? (int)NKT_ENOTFOUND : core->service_port(env, name, port);
}

static int nkti_interface_name(nkt_env *env, uint32_t index, char *buf, size_t cap) {
    const nkt_sys_core *core = nkti_core_to_ask(&env);
    return core == NULL ? (int)NKT_ENODEV : core->interface_name(env, index, buf, cap);
}

NKT_API int64_t nkt_now_ns(nkt_env *env) {
    env = nkti_env_use(env);
    return env == NULL ? 0 : nkti_now(env);
}

NKT_API int nkt_random(nkt_env *env, void *buf, size_t len) {
    env = nkti_env_use(env);
    return env == NULL ? NKT_EOS : env->core->random(env, buf, len);
}

NKT_API int nkt_thread_start(nkt_env *env, void (*run)(void *arg), void *arg) {
    env = nkti_env_use(env);
    if (env == NULL || run == NULL) return NKT_EINVAL;
    const nkt_sys_threads *threads = env->threads != NULL ? env->threads : &nkti_os_threads;
    return threads->start(env, run, arg);
}

// --- Waiting on one blocking handle ------------------------------------------

// Under the lock. NULL where no descriptor can be had: the wait is sliced then.
static nkti_waiter *nkti_waiter_take(nkt_env *env) {
    nkti_env_state *state = nkti_state(env);
    nkti_waiter *waiter = state->idle;
    if (waiter != NULL) {
        state->idle = waiter->next;
        state->idle_count--;
    } else {
        waiter = (nkti_waiter *)nkti_alloc(env, sizeof *waiter);
        if (waiter == NULL) return NULL;
        if (env->core->wake_open(env, &waiter->wake) < 0) {
            nkti_free(env, waiter, sizeof *waiter);
            return NULL;
        }
    }
    waiter->next = NULL;
    waiter->posted = false;
    return waiter;
}

// Under the lock.
static void nkti_waiter_give(nkt_env *env, nkti_waiter *waiter) {
    nkti_env_state *state = nkti_state(env);
    if (waiter->posted) env->core->wake_drain(env, &waiter->wake);
    if (state->idle_count >= NKTI_WAITERS_KEPT) {
        nkti_waiter_free(env, waiter);
        return;
    }
    waiter->next = state->idle;
    state->idle = waiter;
    state->idle_count++;
}

// Under the lock: ends a wait, if there is one.
static void nkti_waiter_post(nkt_env *env, nkti_waiter *waiter) {
    if (waiter == NULL || waiter->posted) return;
    waiter->posted = true;
    env->core->wake_post(env, &waiter->wake);
}

// One wait of a blocking handle, in three steps: begin leaves a wake-up at
// `place`; then the caller asks what to wait for, because only now can no
// change slip by; end waits for it and takes the wake-up back.
static int nkti_wait_begin(nkt_env *env, nkti_waiter **place, const uint32_t *canceled) {
    int err = NKT_OK;
    nkti_lock(env);
    NETKIT_ASSERT(*place == NULL && "two threads wait on one handle in the same direction");
    if (nkti_atomic_load(canceled) != 0) err = NKT_ECANCELED;
    else *place = nkti_waiter_take(env);
    nkti_unlock(env);
    return err;
}

static int nkti_wait_end(nkt_env *env, nkti_waiter **place, nkt_interest *interest,
                         int64_t deadline) {
    int result = NKT_OK;
    nkti_waiter *waiter = *place;
    if (!interest->ready) {
        nkt_watch watches[NKT_WATCH_MAX + 1];
        size_t count = interest->count;
        int64_t timeout = nkti_until(nkti_now(env),
                                     nkti_min_time(deadline, interest->deadline_ns));
        memcpy(watches, interest->watches, count * sizeof watches[0]);
        if (waiter != NULL) {
            watches[count].fd = waiter->wake.wait_fd;
            watches[count].events = NKT_READ;
            watches[count++].ready = 0;
        } else if (timeout < 0 || timeout > NKTI_WAIT_SLICE) {
            timeout = NKTI_WAIT_SLICE;
        }
        result = env->core->wait(env, watches, count, timeout);
    }
    nkti_lock(env);
    *place = NULL;
    if (waiter != NULL) nkti_waiter_give(env, waiter);
    nkti_unlock(env);
    return result < 0 ? result : NKT_OK;
}

//==============================================================================
// MARK: @ip - IP addresses as values
//
// Text is read with a cursor: a position, an end, and after a failure the place
// and a fixed sentence, which is turned into an nkt_problem only for callers
// who passed one. A reader stops at the first byte that cannot belong to what
// it reads; whoever called it decides whether something may follow. So one
// reader serves "::1", "[::1]:80" and "::/0":
//
//     fe80::1%eth0
//     |------|         nkti_ip_read_bare: IPv4, and if it is none, IPv6
//             |---|    nkti_scope_read: to the end of the literal
//
// IPv6 groups are read into a plain row, remembering where "::" stood; the
// part behind it is then moved to the end. The shortest text is written by the
// same idea backwards: find the longest run of at least two zero groups, the
// first of equals, and leave it out (RFC 5952 section 4.2).
//==============================================================================

typedef struct nkti_cursor {
    const char *start;      // offsets count from here
    const char *at;
    const char *end;
    nkt_env *env;           // whom to ask for interfaces and services; NULL = default
    const char *field;      // after a failure: what was being read,
    const char *why;        // and what is wrong at `at`
} nkti_cursor;

static nkti_cursor nkti_cursor_begin(const char *text, size_t len) {
    nkti_cursor in;
    in.start = in.at = in.end = text;
    in.env = NULL;
    if (text != NULL) in.end += len;
    in.field = in.why = "";
    return in;
}

static int nkti_cursor_fail(nkti_cursor *in, const char *at, int err, const char *field,
                            const char *why) {
    in->at = at;
    in->field = field;
    in->why = why;
    return err;
}

static int nkti_address_fail(nkti_cursor *in, const char *at, const char *why) {
    return nkti_cursor_fail(in, at, NKT_EADDR, "address", why);
}

// Hands out a result; a failure is described to whoever asked for it.
static int nkti_cursor_result(const nkti_cursor *in, int err, nkt_problem *problem) {
    if (err >= 0 || problem == NULL) return err;
    return nkti_problem_set(problem, err, in->field, (int32_t)(in->at - in->start), in->why);
}

static uint32_t nkti_digit_value(char c) {
    return (uint32_t)(uint8_t)c - (uint32_t)'0';        // more than 9: not a digit
}

// 0 to 15, or 16 for what is no hex digit. Without a branch, for which of the
// kinds comes cannot be guessed.
static uint32_t nkti_hex_value(char c) {
    uint32_t digit = nkti_digit_value(c);
    uint32_t letter = ((uint32_t)(uint8_t)c | 0x20u) - (uint32_t)'a';
    uint32_t if_digit = 0u - (uint32_t)(digit <= 9);        // all ones if it is so
    uint32_t if_letter = 0u - (uint32_t)(letter <= 5);
    return ((digit - 16) & if_digit) + ((letter - 6) & if_letter) + 16;
}

// Four bytes, the first one lowest.
static uint32_t nkti_load4(const char *four) {
    const uint8_t *c = (const uint8_t *)four;
    return c[0] | (uint32_t)c[1] << 8 | (uint32_t)c[2] << 16 | (uint32_t)c[3] << 24;
}

// The value of four hex digits, all at once; more than 0xffff if they are not
// that. Every byte of `all` is looked at by itself: with the top bit set none
// borrows from its neighbour, and keeps the bit if it is as large as what is
// taken off.
static uint32_t nkti_hex4_value(const char *four) {
    const uint32_t ones = 0x01010101, tops = 0x80808080;
    uint32_t all = nkti_load4(four);
    uint32_t lower = all | ones * 0x20;
    uint32_t digit = ((all | tops) - ones * '0') & ~((all | tops) - ones * ('9' + 1));
    uint32_t letter = ((lower | tops) - ones * 'a') & ~((lower | tops) - ones * ('f' + 1));
    if (((digit | letter) & ~all & tops) != tops) return UINT32_MAX;
    uint32_t values = (lower & ones * 15) + (lower >> 6 & ones) * 9;
    return (values << 12 & 0xf000) | (values & 0x0f00) | (values >> 12 & 0x00f0) | values >> 24;
}

// Reads what is right without a branch on how long each number is, which cannot
// be guessed. False for anything else, which is nkti_ip4_read's to explain.
static bool nkti_ip4_read_right(nkti_cursor *in, uint8_t *bytes) {
    const char *p = in->at;
    const char *end = in->end;
    if (end - p < 7) return false;              // "0.0.0.0"
    for (int i = 0; i < 4; i++) {
        uint32_t left = end - p < 4 ? (uint32_t)(end - p) : 4;
        if (left == 0) return false;
        // What would be past the end is zero; nothing there is read.
        uint32_t text = nkti_load4(p + left - 4) >> (32 - 8 * left);
        uint32_t digits = text ^ 0x30303030;    // 0 to 9, or more
        uint32_t others = ((digits & 0x7f7f7f7f) + 0x76767676) | digits;
        uint32_t count = nkti_lowest_bit((others & 0x00808080) | 0x80000000) / 8;
        digits <<= 8 * (3 - count);
        uint32_t value = (digits & 0xff) * 100 + (digits >> 8 & 0xff) * 10 + (digits >> 16 & 0xff);
        uint32_t next = text >> 8 * count & 0xff;
        bool is_end = i == 3 ? (next ^ 0x30) > 9 : next == '.';
        bool leads = (count > 1) & ((text & 0xff) == '0');
        if ((count == 0) | (value > 255) | leads | !is_end) return false;
        bytes[i] = (uint8_t)value;
        p += count + (i < 3);
    }
    in->at = p;
    return true;
}

static const char nkti_ip4_form[] = "expected four decimal numbers with dots between";

static int nkti_ip4_read(nkti_cursor *in, uint8_t *bytes) {
    if (nkti_ip4_read_right(in, bytes)) return NKT_OK;
    const char *p = in->at;
    const char *end = in->end;
    for (int i = 0; i < 4; i++) {
        if (i > 0) {
            if (p == end || *p != '.') {
                return nkti_address_fail(in, p, nkti_ip4_form);
            }
            p++;
        }
        const char *first = p;
        uint32_t value, digit;
        if (p == end || (value = nkti_digit_value(*p)) > 9) {
            return nkti_address_fail(in, p, nkti_ip4_form);
        }
        while (++p < end && p - first < 3 && (digit = nkti_digit_value(*p)) <= 9) {
            value = value * 10 + digit;
        }
        // "010" is 8 to some parsers and 10 to others.
        if (*first == '0' && p - first > 1) {
            return nkti_address_fail(in, first, "expected a number without leading zeros");
        }
        if (value > 255 || (p < end && nkti_digit_value(*p) <= 9)) {
            return nkti_address_fail(in, first, "expected a number from 0 to 255");
        }
        bytes[i] = (uint8_t)value;
    }
    in->at = p;
    return NKT_OK;
}

// Reads groups into `row` and returns how many bytes they are; `gap` becomes
// the number of bytes in front of "::", -1 without one.
static int nkti_ip6_read_groups(nkti_cursor *in, uint8_t *row, int *gap) {
    const char *p = in->at;
    const char *end = in->end;
    int count = 0;
    *gap = -1;
    if (end - p >= 2 && p[0] == ':' && p[1] == ':') {
        *gap = 0;
        p += 2;
    }
    for (;;) {
        const char *group = p;
        uint32_t value = 0;
        // Most have four digits, and one branch for all is guessed better.
        if (end - p >= 4 && (value = nkti_hex4_value(p)) <= 0xffff) p += 4;
        else value = 0;
        for (uint32_t digit; p < end && (digit = nkti_hex_value(*p)) <= 15; p++) {
            value = value << 4 | digit;
        }
        if (p == group) {
            if (count == *gap) break;               // nothing need follow "::"
            return nkti_address_fail(in, p, "expected a group of one to four hex digits");
        }
        bool tail = p < end && *p == '.';           // the last four bytes as IPv4
        if (count > (tail ? 12 : 14)) {
            return nkti_address_fail(in, group,
                                     "an IPv6 address has eight groups; expected its end");
        }
        if (tail) {
            in->at = group;
            int err = nkti_ip4_read(in, row + count);
            return err < 0 ? err : count + 4;
        }
        if (p - group > 4) {
            return nkti_address_fail(in, group, "expected a group of at most four hex digits");
        }
        row[count] = (uint8_t)(value >> 8);
        row[count + 1] = (uint8_t)value;
        count += 2;
        if (p == end || *p != ':') break;
        p++;
        if (p < end && *p == ':') {
            if (*gap >= 0) {
                return nkti_address_fail(in, p - 1,
                                         "\"::\" may stand only once in an address");
            }
            *gap = count;
            p++;
        }
    }
    in->at = p;
    return count;
}

static int nkti_ip6_read(nkti_cursor *in, uint8_t *bytes) {
    int gap;
    int count = nkti_ip6_read_groups(in, bytes, &gap);
    if (count < 0) return count;
    if (gap < 0 && count == 16) return NKT_OK;
    if (gap < 0) {
        return nkti_address_fail(in, in->at,
                                 "expected eight groups, or \"::\" in place of the zero ones");
    }
    if (count == 16) {
        return nkti_address_fail(in, in->at,
                                 "eight groups leave nothing for \"::\" to stand for");
    }
    // What follows "::" goes to the end. From behind, for the places overlap.
    int to = 15;
    for (int from = count - 1; from >= gap; from--) bytes[to--] = bytes[from];
    while (to >= gap) bytes[to--] = 0;
    return NKT_OK;
}

static bool nkti_ip_is_mapped(const nkt_ip *ip) {
    static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return ip->family == NKT_IPV6 && memcmp(ip->bytes, prefix, sizeof prefix) == 0;
}

// What is wrong is told for the family that the first dot or colon speaks for.
static int nkti_ip_refuse(nkti_cursor *in, const char *text, nkt_ip *ip) {
    const char *p = text;
    while (p < in->end && *p != '.' && *p != ':') p++;
    in->at = text;
    if (p == in->end) {
        return nkti_address_fail(in, text,
                                 "expected an IP address such as 192.0.2.1 or 2001:db8::1");
    }
    return *p == '.' ? nkti_ip4_read(in, ip->bytes) : nkti_ip6_read(in, ip->bytes);
}

// Reads an address without a scope and stops behind it. An IPv4 address has a
// dot behind one to three digits, where IPv6 has none unless it begins with
// "::".
static int nkti_ip_read_bare(nkti_cursor *in, nkt_ip *ip) {
    const char *text = in->at;
    bool dot = in->end - text >= 4 && text[0] != ':' &&
               ((text[1] == '.') | (text[2] == '.') | (text[3] == '.')) != 0;
    memset(ip, 0, sizeof *ip);
    ip->family = dot ? NKT_IPV4 : NKT_IPV6;
    int err = dot ? nkti_ip4_read(in, ip->bytes) : nkti_ip6_read(in, ip->bytes);
    return err == NKT_OK ? NKT_OK : nkti_ip_refuse(in, text, ip);
}

#define NKTI_SCOPE_MAX 63       // bytes in an interface's name

// Reads what follows '%' to the end of the input.
static int nkti_scope_read(nkti_cursor *in, uint32_t *scope) {
    const char *name = in->at + 1;
    size_t len = (size_t)(in->end - name);
    if (len == 0 || memchr(name, '\0', len) != NULL) {
        return nkti_cursor_fail(in, name, NKT_EADDR, "scope",
                                "expected the number or name of an interface behind '%'");
    }
    uint64_t number = 0;
    size_t digits = 0;
    while (digits < len && nkti_digit_value(name[digits]) <= 9) {
        if (number <= UINT32_MAX) number = number * 10 + nkti_digit_value(name[digits]);
        digits++;
    }
    if (digits == len) {
        if (name[0] == '0' || number > UINT32_MAX) {
            return nkti_cursor_fail(in, name, NKT_EADDR, "scope",
                                    "expected the number of an interface, without leading zeros, "
                                    "or its name");
        }
        *scope = (uint32_t)number;
        return NKT_OK;
    }
    if (len <= NKTI_SCOPE_MAX) {
        char text[NKTI_SCOPE_MAX + 1];
        memcpy(text, name, len);
        text[len] = '\0';
        if (nkti_interface_index(in->env, text, scope) >= 0) return NKT_OK;
    }
    return nkti_cursor_fail(in, name, NKT_ENODEV, "scope",
                            "expected the number or name of an interface of this host");
}

// Reads an address, and its scope if it has one, to the end of the input.
static int nkti_ip_read(nkti_cursor *in, nkt_ip *ip) {
    int err = nkti_ip_read_bare(in, ip);
    if (err < 0 || in->at == in->end) return err;
    if (*in->at != '%') {
        return nkti_address_fail(in, in->at, "expected the end of the address");
    }
    if (ip->family == NKT_IPV4 || nkti_ip_is_mapped(ip)) {
        return nkti_cursor_fail(in, in->at, NKT_EADDR, "scope",
                                "an IPv4 address has no scope; expected its end");
    }
    return nkti_scope_read(in, &ip->scope);
}

// Writes a number in decimal and returns the place behind it.
static char *nkti_write_decimal(char *out, uint32_t value) {
    char digits[10];
    int count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (count > 0) *out++ = digits[--count];
    return out;
}

static char *nkti_ip4_write(char *out, const uint8_t *bytes) {
    for (int i = 0; i < 4; i++) {
        uint32_t value = bytes[i];
        if (i > 0) *out++ = '.';
        if (value >= 100) *out++ = (char)('0' + value / 100);
        if (value >= 10) *out++ = (char)('0' + value / 10 % 10);
        *out++ = (char)('0' + value % 10);
    }
    return out;
}

static char *nkti_ip6_write(char *out, const uint8_t *bytes) {
    int gap = 8, gap_len = 1;       // one zero group alone is written as it is
    for (int i = 0, run = 0; i < 8; i++) {
        run = (bytes[2 * i] | bytes[2 * i + 1]) == 0 ? run + 1 : 0;
        if (run > gap_len) {
            gap_len = run;
            gap = i + 1 - run;
        }
    }
    for (int i = 0; i < 8; i++) {
        if (i == gap) {
            *out++ = ':';
            *out++ = ':';
            i += gap_len - 1;
            continue;
        }
        if (i > 0 && i != gap + gap_len) *out++ = ':';
        uint32_t value = (uint32_t)bytes[2 * i] << 8 | bytes[2 * i + 1];
        int shift = value > 0xfff ? 12 : value > 0xff ? 8 : value > 0xf ? 4 : 0;
        for (; shift >= 0; shift -= 4) *out++ = "0123456789abcdef"[value >> shift & 15];
    }
    return out;
}

// Writes at most NKT_IP_TEXT_MAX - 1 bytes and returns the place behind them.
static char *nkti_ip_write(char *out, const nkt_ip *ip) {
    if (ip->family == NKT_IPV4) return nkti_ip4_write(out, ip->bytes);
    if (ip->family != NKT_IPV6) return out;
    if (nkti_ip_is_mapped(ip)) {
        memcpy(out, "::ffff:", 7);
        out = nkti_ip4_write(out + 7, ip->bytes + 12);
    } else {
        out = nkti_ip6_write(out, ip->bytes);
    }
    if (ip->scope == 0) return out;
    *out++ = '%';
    return nkti_write_decimal(out, ip->scope);
}

// Hands out text that stands in `text`, which may be `buf` itself.
static int nkti_text_give(char *text, const char *end, char *buf, size_t cap) {
    size_t len = (size_t)(end - text);
    if (len >= cap) return NKT_ENOSPACE;
    if (text != buf) memcpy(buf, text, len);
    buf[len] = '\0';
    return (int)len;
}

// The finisher of MurmurHash3: every bit of the input moves half of the output.
static uint64_t nkti_hash_mix(uint64_t hash, uint64_t value) {
    hash ^= value;
    hash ^= hash >> 33;
    hash *= UINT64_C(0xff51afd7ed558ccd);
    hash ^= hash >> 33;
    hash *= UINT64_C(0xc4ceb9fe1a85ec53);
    return hash ^ hash >> 33;
}

NKT_API int nkt_ip_parse_n(const char *text, size_t len, nkt_ip *ip, nkt_problem *problem) {
    nkti_cursor in = nkti_cursor_begin(text, len);
    nkt_ip found;
    int err = nkti_ip_read(&in, &found);
    if (err < 0) return nkti_cursor_result(&in, err, problem);
    *ip = found;
    return NKT_OK;
}

NKT_API int nkt_ip_parse(const char *text, nkt_ip *ip) {
    return nkt_ip_parse_n(text, text == NULL ? 0 : strlen(text), ip, NULL);
}

NKT_API int nkt_ip_format(const nkt_ip *ip, char *buf, size_t cap) {
    char text[NKT_IP_TEXT_MAX];
    char *start = cap >= sizeof text ? buf : text;
    return nkti_text_give(start, nkti_ip_write(start, ip), buf, cap);
}

NKT_API int nkt_ip_format_named(const nkt_ip *ip, char *buf, size_t cap) {
    char name[NKTI_SCOPE_MAX + 1];
    char text[NKT_IP_TEXT_MAX];
    nkt_ip bare = *ip;
    bare.scope = 0;
    char *end = nkti_ip_write(text, &bare);
    if (ip->family != NKT_IPV6 || ip->scope == 0 ||
        nkti_interface_name(NULL, ip->scope, name, sizeof name) < 0) {
        return nkt_ip_format(ip, buf, cap);
    }
    size_t len = strlen(name);
    if (len + 2 > sizeof text - (size_t)(end - text)) return nkt_ip_format(ip, buf, cap);
    *end++ = '%';
    memcpy(end, name, len);
    return nkti_text_give(text, end + len, buf, cap);
}

NKT_API int nkt_ip_compare(const nkt_ip *a, const nkt_ip *b) {
    if (a->family != b->family) return a->family < b->family ? -1 : 1;
    int order = memcmp(a->bytes, b->bytes, sizeof a->bytes);
    if (order != 0) return order < 0 ? -1 : 1;
    return a->scope == b->scope ? 0 : a->scope < b->scope ? -1 : 1;
}

NKT_API bool nkt_ip_equal(const nkt_ip *a, const nkt_ip *b) {
    return a->family == b->family && a->scope == b->scope &&
           memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

NKT_API uint64_t nkt_ip_hash(const nkt_ip *ip) {
    uint64_t hash = nkti_hash_mix(ip->family, ip->scope);
    for (size_t i = 0; i < sizeof ip->bytes; i += 8) {
        uint64_t value = 0;
        for (size_t k = 0; k < 8; k++) value = value << 8 | ip->bytes[i + k];
        hash = nkti_hash_mix(hash, value);
    }
    return hash;
}

NKT_API nkt_ip nkt_ip_from_bytes(const void *bytes, size_t len) {
    nkt_ip ip;
    memset(&ip, 0, sizeof ip);
    if (len != 4 && len != 16) return ip;
    ip.family = len == 4 ? NKT_IPV4 : NKT_IPV6;
    memcpy(ip.bytes, bytes, len);
    return ip;
}

NKT_API nkt_ip nkt_ip_from_u32(uint32_t value) {
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(value >> (24 - 8 * i));
    return nkt_ip_from_bytes(bytes, sizeof bytes);
}

NKT_API int nkt_ip_to_u32(const nkt_ip *ip, uint32_t *value) {
    if (ip->family != NKT_IPV4) return NKT_EINVAL;
    *value = (uint32_t)ip->bytes[0] << 24 | (uint32_t)ip->bytes[1] << 16 |
             (uint32_t)ip->bytes[2] << 8 | ip->bytes[3];
    return NKT_OK;
}

NKT_API nkt_ip nkt_ip_unmap(const nkt_ip *ip) {
    return nkti_ip_is_mapped(ip) ? nkt_ip_from_bytes(ip->bytes + 12, 4) : *ip;
}

NKT_API nkt_ip nkt_ip_map(const nkt_ip *ip) {
    if (ip->family != NKT_IPV4) return *ip;
    uint8_t bytes[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0};
    memcpy(bytes + 12, ip->bytes, 4);
    return nkt_ip_from_bytes(bytes, sizeof bytes);
}

NKT_API nkt_ip nkt_ip_any(int family) {
    static const uint8_t zero[16] = {0};
    return nkt_ip_from_bytes(zero, family == NKT_IPV4 ? 4 : family == NKT_IPV6 ? 16 : 0);
}

NKT_API nkt_ip nkt_ip_loopback(int family) {
    static const uint8_t ipv4[4] = {127, 0, 0, 1};
    static const uint8_t ipv6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    if (family == NKT_IPV4) return nkt_ip_from_bytes(ipv4, sizeof ipv4);
    return nkt_ip_from_bytes(ipv6, family == NKT_IPV6 ? sizeof ipv6 : 0);
}

//==============================================================================
// MARK: @addr - an IP address and a port
//
// Brackets are what tells the colons of an IPv6 address from the one in front
// of the port (RFC 3986 section 3.2.2), so without them such text is refused,
// even where only one reading would make sense.
//
// The system's structures are copied to and from aligned locals, never pointed
// into: a caller's buffer may lie anywhere.
//==============================================================================

// Reads ":port" to the end of the input.
static int nkti_port_read(nkti_cursor *in, uint16_t *port) {
    const char *p = in->at;
    if (p == in->end || *p != ':') {
        return nkti_cursor_fail(in, p, NKT_EPORT, "port",
                                "expected a colon and a port from 0 to 65535");
    }
    const char *first = ++p;
    uint32_t value = 0;
    for (uint32_t digit; p < in->end && (digit = nkti_digit_value(*p)) <= 9; p++) {
        value = value * 10 + digit;
        if (value > 65535) {
            return nkti_cursor_fail(in, first, NKT_EPORT, "port",
                                    "expected a port from 0 to 65535");
        }
    }
    if (p == first || p < in->end) {
        return nkti_cursor_fail(in, p, NKT_EPORT, "port",
                                "expected a port, a decimal number from 0 to 65535");
    }
    if (*first == '0' && p - first > 1) {
        return nkti_cursor_fail(in, first, NKT_EPORT, "port",
                                "expected a port without leading zeros");
    }
    *port = (uint16_t)value;
    return NKT_OK;
}

// Reads "[address]" and stops behind it.
static int nkti_bracket_read(nkti_cursor *in, nkt_ip *ip) {
    const char *end = in->end;
    const char *close = (const char *)memchr(in->at, ']', (size_t)(end - in->at));
    if (close == NULL) {
        return nkti_address_fail(in, end, "expected ']' behind the IPv6 address");
    }
    const char *open = in->at++;
    in->end = close;
    int err = nkti_ip_read(in, ip);
    in->end = end;
    if (err < 0) return err;
    if (ip->family != NKT_IPV6) {
        return nkti_address_fail(in, open, "expected an IPv4 address without brackets");
    }
    in->at = close + 1;
    return NKT_OK;
}

// Whether text is an IPv6 address, a colon and decimal digits. A scope counts
// as one whether or not there is such an interface.
static bool nkti_ip6_has_port(const char *text, size_t len) {
    size_t colon = len;
    while (colon > 0 && nkti_digit_value(text[colon - 1]) <= 9) colon--;
    if (colon == 0 || colon == len || text[colon - 1] != ':') return false;
    nkti_cursor in = nkti_cursor_begin(text, colon - 1);
    nkt_ip ip;
    int err = nkti_ip_read(&in, &ip);
    return (err == NKT_OK || err == NKT_ENODEV) && ip.family == NKT_IPV6;
}

static int nkti_ambiguous(nkti_cursor *in) {
    return nkti_cursor_fail(in, in->start, NKT_EAMBIGUOUS, "address",
                            "expected [address]:port, with the brackets");
}

static int nkti_addr_read(nkti_cursor *in, nkt_addr *addr) {
    memset(addr, 0, sizeof *addr);
    const char *text = in->at;
    int err;
    if (text < in->end && *text == '[') {
        err = nkti_bracket_read(in, &addr->ip);
        return err < 0 ? err : nkti_port_read(in, &addr->port);
    }
    err = nkti_ip_read_bare(in, &addr->ip);
    if (err < 0) {
        bool six = nkti_ip6_has_port(text, (size_t)(in->end - text));
        return six ? nkti_ambiguous(in) : err;
    }
    if (addr->ip.family == NKT_IPV6) return nkti_ambiguous(in);
    if (in->at < in->end && *in->at != ':') {
        return nkti_address_fail(in, in->at, "expected a colon and a port behind the address");
    }
    return nkti_port_read(in, &addr->port);
}

// Writes at most NKT_ADDR_TEXT_MAX - 1 bytes.
static char *nkti_addr_write(char *out, const nkt_ip *ip, uint16_t port) {
    if (ip->family == NKT_IPV6) *out++ = '[';
    out = nkti_ip_write(out, ip);
    if (ip->family == NKT_IPV6) *out++ = ']';
    *out++ = ':';
    return nkti_write_decimal(out, port);
}

NKT_API int nkt_addr_parse_n(const char *text, size_t len, nkt_addr *addr, nkt_problem *problem) {
    nkti_cursor in = nkti_cursor_begin(text, len);
    nkt_addr found;
    int err = nkti_addr_read(&in, &found);
    if (err < 0) return nkti_cursor_result(&in, err, problem);
    *addr = found;
    return NKT_OK;
}

NKT_API int nkt_addr_parse(const char *text, nkt_addr *addr) {
    return nkt_addr_parse_n(text, text == NULL ? 0 : strlen(text), addr, NULL);
}

NKT_API int nkt_addr_format(const nkt_addr *addr, char *buf, size_t cap) {
    char text[NKT_ADDR_TEXT_MAX];
    char *start = cap >= sizeof text ? buf : text;
    char *end = start;
    if (addr->ip.family != 0) end = nkti_addr_write(start, &addr->ip, addr->port);
    return nkti_text_give(start, end, buf, cap);
}

NKT_API int nkt_addr_compare(const nkt_addr *a, const nkt_addr *b) {
    int order = nkt_ip_compare(&a->ip, &b->ip);
    if (order != 0) return order;
    if (a->port != b->port) return a->port < b->port ? -1 : 1;
    if (a->flow_label == b->flow_label) return 0;
    return a->flow_label < b->flow_label ? -1 : 1;
}

NKT_API bool nkt_addr_equal(const nkt_addr *a, const nkt_addr *b) {
    return nkt_ip_equal(&a->ip, &b->ip) && a->port == b->port && a->flow_label == b->flow_label;
}

NKT_API uint64_t nkt_addr_hash(const nkt_addr *addr) {
    return nkti_hash_mix(nkt_ip_hash(&addr->ip), (uint64_t)addr->flow_label << 16 | addr->port);
}

NKT_API nkt_addr nkt_addr_make(const nkt_ip *ip, uint16_t port) {
    nkt_addr addr;
    memset(&addr, 0, sizeof addr);
    addr.ip = *ip;
    addr.port = port;
    return addr;
}

NKT_API int nkt_addr_to_sockaddr(const nkt_addr *addr, void *sockaddr, size_t cap) {
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
    if (addr->ip.family == NKT_IPV4) {
        if (cap < sizeof in4) return NKT_ENOSPACE;
        memset(&in4, 0, sizeof in4);
        in4.sin_family = AF_INET;
        in4.sin_port = htons(addr->port);
        memcpy(&in4.sin_addr, addr->ip.bytes, 4);
        nkti_sockaddr_set_len(&in4, sizeof in4);
        memcpy(sockaddr, &in4, sizeof in4);
        return (int)sizeof in4;
    }
    if (addr->ip.family != NKT_IPV6) return NKT_EINVAL;
    if (cap < sizeof in6) return NKT_ENOSPACE;
    memset(&in6, 0, sizeof in6);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(addr->port);
    in6.sin6_flowinfo = htonl(addr->flow_label & 0xfffff);
    in6.sin6_scope_id = addr->ip.scope;
    memcpy(&in6.sin6_addr, addr->ip.bytes, 16);
    nkti_sockaddr_set_len(&in6, sizeof in6);
    memcpy(sockaddr, &in6, sizeof in6);
    return (int)sizeof in6;
}

NKT_API int nkt_addr_from_sockaddr(const void *sockaddr, size_t len, nkt_addr *addr) {
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
    nkt_ip ip;
    if (len < sizeof in4) return NKT_EADDR;
    memcpy(&in4, sockaddr, sizeof in4);         // the family is in the same place in all
    if (in4.sin_family == AF_INET) {
        ip = nkt_ip_from_bytes(&in4.sin_addr, 4);
        *addr = nkt_addr_make(&ip, ntohs(in4.sin_port));
        return NKT_OK;
    }
    if (in4.sin_family != AF_INET6 || len < sizeof in6) return NKT_EADDR;
    memcpy(&in6, sockaddr, sizeof in6);
    ip = nkt_ip_from_bytes(&in6.sin6_addr, 16);
    // Its text could not be read back with one.
    if (!nkti_ip_is_mapped(&ip)) ip.scope = (uint32_t)in6.sin6_scope_id;
    *addr = nkt_addr_make(&ip, ntohs(in6.sin6_port));
    addr->flow_label = ntohl(in6.sin6_flowinfo) & 0xfffff;
    return NKT_OK;
}

#ifndef NETKIT_NO_NET
//==============================================================================
// MARK: @net - networks, and what an address is for
//
// A network compares its first `bits` bits, whole bytes and then the rest of
// one under a mask.
//
// The kinds are looked up in one table per family, where the longest prefix
// that fits wins, so that the order of lines does not matter and an exception
// is one more line. The lines are those of IANA's IPv4 and IPv6
// Special-Purpose Address Registries, the multicast blocks, and 2000::/3, the
// only part of IPv6 that IANA has given out as global unicast. Special blocks
// that the registries call globally reachable are NKT_KIND_GLOBAL and have a
// line only where they lie inside one that is not.
//==============================================================================

static int nkti_ip_max_bits(const nkt_ip *ip) {
    return ip->family == NKT_IPV4 ? 32 : ip->family == NKT_IPV6 ? 128 : 0;
}

// No more than the family has, whatever a caller wrote into the structure.
static int nkti_net_bits(const nkt_net *net) {
    int max = nkti_ip_max_bits(&net->ip);
    return net->bits < max ? net->bits : max;
}

static bool nkti_bits_equal(const uint8_t *a, const uint8_t *b, int bits) {
    size_t whole = (size_t)bits / 8;
    int rest = bits % 8;
    if (memcmp(a, b, whole) != 0) return false;
    return rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0;
}

// Makes the bits behind the first `bits` all zeros or all ones.
static void nkti_ip_fill(nkt_ip *ip, int bits, bool ones) {
    int max = nkti_ip_max_bits(ip);
    for (int i = bits / 8; i < max / 8; i++) {
        uint8_t mask = (uint8_t)(i == bits / 8 ? 0xff >> bits % 8 : 0xff);
        ip->bytes[i] = (uint8_t)(ones ? ip->bytes[i] | mask : ip->bytes[i] & ~mask);
    }
}

static int nkti_net_read(nkti_cursor *in, nkt_net *net) {
    nkt_ip ip;
    int err = nkti_ip_read_bare(in, &ip);
    if (err < 0) return err;
    const char *p = in->at;
    if (p < in->end && *p == '%') {
        return nkti_cursor_fail(in, p, NKT_EADDR, "scope",
                                "a network has no scope; expected '/' and a prefix length");
    }
    if (p == in->end || *p != '/') {
        return nkti_cursor_fail(in, p, NKT_EADDR, "prefix length",
                                "expected '/' and a prefix length behind the address");
    }
    const char *first = ++p;
    int bits = 0;
    while (p < in->end && nkti_digit_value(*p) <= 9 && bits <= 128) {
        bits = bits * 10 + (int)nkti_digit_value(*p++);
    }
    if (p == first || (*first == '0' && p - first > 1) || bits > nkti_ip_max_bits(&ip)) {
        return nkti_cursor_fail(in, first, NKT_EADDR, "prefix length",
                                ip.family == NKT_IPV4
                                ? "expected a number from 0 to 32 without leading zeros"
                                : "expected a number from 0 to 128 without leading zeros");
    }
    if (p < in->end) {
        return nkti_cursor_fail(in, p, NKT_EADDR, "prefix length",
                                "expected the end of the prefix length");
    }
    return nkt_net_make(&ip, bits, net);
}

typedef struct nkti_kind4 {
    uint32_t prefix;
    uint8_t bits;
    uint8_t kind;
} nkti_kind4;

static const nkti_kind4 nkti_kinds4[] = {
    {0x00000000, 0, NKT_KIND_GLOBAL},
    {0x00000000, 8, NKT_KIND_RESERVED},         // this network, RFC 791
    {0x00000000, 32, NKT_KIND_UNSPECIFIED},     // RFC 1122 section 3.2.1.3
    {0x0a000000, 8, NKT_KIND_PRIVATE},          // RFC 1918
    {0x64400000, 10, NKT_KIND_SHARED},          // RFC 6598
    {0x7f000000, 8, NKT_KIND_LOOPBACK},         // RFC 1122 section 3.2.1.3
    {0xa9fe0000, 16, NKT_KIND_LINK_LOCAL},      // RFC 3927
    {0xac100000, 12, NKT_KIND_PRIVATE},         // RFC 1918
    {0xc0000000, 24, NKT_KIND_RESERVED},        // protocol assignments, RFC 6890
    {0xc0000009, 32, NKT_KIND_GLOBAL},          // port control anycast, RFC 7723
    {0xc000000a, 32, NKT_KIND_GLOBAL},          // TURN anycast, RFC 8155
    {0xc0000200, 24, NKT_KIND_DOCUMENTATION},   // RFC 5737
    {0xc0586300, 24, NKT_KIND_RESERVED},        // once 6to4 relays, RFC 7526
    {0xc0a80000, 16, NKT_KIND_PRIVATE},         // RFC 1918
    {0xc6120000, 15, NKT_KIND_BENCHMARKING},    // RFC 2544
    {0xc6336400, 24, NKT_KIND_DOCUMENTATION},   // RFC 5737
    {0xcb007100, 24, NKT_KIND_DOCUMENTATION},   // RFC 5737
    {0xe0000000, 4, NKT_KIND_MULTICAST},        // RFC 5771
    {0xf0000000, 4, NKT_KIND_RESERVED},         // RFC 1112 section 4
    {0xffffffff, 32, NKT_KIND_BROADCAST}        // RFC 919 section 7
};

typedef struct nkti_kind6 {
    uint8_t prefix[16];
    uint8_t bits;
    uint8_t kind;
} nkti_kind6;

static const nkti_kind6 nkti_kinds6[] = {
    {{0}, 0, NKT_KIND_RESERVED},                                    // not given out
    {{0x20}, 3, NKT_KIND_GLOBAL},                                   // RFC 4291 section 2.4
    {{0}, 128, NKT_KIND_UNSPECIFIED},
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128, NKT_KIND_LOOPBACK},
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96, NKT_KIND_V4_MAPPED},
    {{0, 0x64, 0xff, 0x9b}, 96, NKT_KIND_NAT64},                    // RFC 6052
    {{0, 0x64, 0xff, 0x9b, 0, 1}, 48, NKT_KIND_NAT64},              // RFC 8215
    {{1}, 64, NKT_KIND_DISCARD},                                    // RFC 6666
    {{1, 0, 0, 0, 0, 0, 0, 1}, 64, NKT_KIND_DISCARD},               // RFC 9780
    {{0x20, 1}, 23, NKT_KIND_RESERVED},                             // RFC 2928
    {{0x20, 1}, 32, NKT_KIND_TEREDO},                               // RFC 4380
    {{0x20, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128, NKT_KIND_GLOBAL},  // RFC 7723
    {{0x20, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}, 127, NKT_KIND_GLOBAL},  // 8155, 9665
    {{0x20, 1, 0, 2}, 48, NKT_KIND_BENCHMARKING},                   // RFC 5180
    {{0x20, 1, 0, 3}, 32, NKT_KIND_GLOBAL},                         // RFC 7450
    {{0x20, 1, 0, 4, 1, 0x12}, 48, NKT_KIND_GLOBAL},                // RFC 7535
    {{0x20, 1, 0, 0x20}, 27, NKT_KIND_GLOBAL},                      // RFC 7343, RFC 9374
    {{0x20, 1, 0x0d, 0xb8}, 32, NKT_KIND_DOCUMENTATION},            // RFC 3849
    {{0x20, 2}, 16, NKT_KIND_6TO4},                                 // RFC 3056
    {{0x3f, 0xff}, 20, NKT_KIND_DOCUMENTATION},                     // RFC 9637
    {{0xfc}, 7, NKT_KIND_UNIQUE_LOCAL},                             // RFC 4193
    {{0xfe, 0x80}, 10, NKT_KIND_LINK_LOCAL},
    {{0xfe, 0xc0}, 10, NKT_KIND_SITE_LOCAL},                        // RFC 3879
    {{0xff}, 8, NKT_KIND_MULTICAST}
};

static bool nkti_ip_has_prefix(const nkt_ip *ip, const uint8_t *prefix, int bits) {
    return ip->family == NKT_IPV6 && nkti_bits_equal(ip->bytes, prefix, bits);
}

NKT_API int nkt_net_make(const nkt_ip *ip, int bits, nkt_net *net) {
    int max = nkti_ip_max_bits(ip);
    if (max == 0 || bits < 0 || bits > max) return NKT_EINVAL;
    nkt_ip first = *ip;
    first.scope = 0;
    nkti_ip_fill(&first, bits, false);
    memset(net, 0, sizeof *net);
    net->ip = first;
    net->bits = (uint8_t)bits;
    return NKT_OK;
}

NKT_API int nkt_net_parse_n(const char *text, size_t len, nkt_net *net, nkt_problem *problem) {
    nkti_cursor in = nkti_cursor_begin(text, len);
    int err = nkti_net_read(&in, net);
    return nkti_cursor_result(&in, err, problem);
}

NKT_API int nkt_net_parse(const char *text, nkt_net *net) {
    return nkt_net_parse_n(text, text == NULL ? 0 : strlen(text), net, NULL);
}

NKT_API int nkt_net_format(const nkt_net *net, char *buf, size_t cap) {
    char text[NKT_NET_TEXT_MAX];
    char *end = text;
    if (nkti_ip_max_bits(&net->ip) != 0) {
        end = nkti_ip_write(end, &net->ip);
        *end++ = '/';
        end = nkti_write_decimal(end, (uint32_t)nkti_net_bits(net));
    }
    return nkti_text_give(text, end, buf, cap);
}

NKT_API bool nkt_net_contains(const nkt_net *net, const nkt_ip *ip) {
    return net->ip.family == ip->family && nkti_ip_max_bits(ip) != 0 &&
           nkti_bits_equal(net->ip.bytes, ip->bytes, nkti_net_bits(net));
}

NKT_API bool nkt_net_overlaps(const nkt_net *a, const nkt_net *b) {
    return nkt_net_contains(a, &b->ip) || nkt_net_contains(b, &a->ip);
}

NKT_API int nkt_net_compare(const nkt_net *a, const nkt_net *b) {
    int order = nkt_ip_compare(&a->ip, &b->ip);
    if (order != 0) return order;
    return a->bits == b->bits ? 0 : a->bits < b->bits ? -1 : 1;
}

NKT_API bool nkt_net_equal(const nkt_net *a, const nkt_net *b) {
    return a->bits == b->bits && nkt_ip_equal(&a->ip, &b->ip);
}

NKT_API uint64_t nkt_net_hash(const nkt_net *net) {
    return nkti_hash_mix(nkt_ip_hash(&net->ip), net->bits);
}

NKT_API nkt_ip nkt_net_first(const nkt_net *net) {
    return net->ip;
}

NKT_API nkt_ip nkt_net_last(const nkt_net *net) {
    nkt_ip ip = net->ip;
    nkti_ip_fill(&ip, nkti_net_bits(net), true);
    return ip;
}

NKT_API nkt_ip nkt_net_broadcast(const nkt_net *net) {
    if (net->ip.family != NKT_IPV4 || net->bits > 30) return nkt_ip_any(0);
    return nkt_net_last(net);
}

NKT_API nkt_ip nkt_net_mask(int family, int bits) {
    nkt_ip ip = nkt_ip_any(family);
    if (bits < 0 || bits > nkti_ip_max_bits(&ip)) return nkt_ip_any(0);
    nkti_ip_fill(&ip, 0, true);
    nkti_ip_fill(&ip, bits, false);
    return ip;
}

NKT_API int nkt_net_mask_bits(const nkt_ip *mask) {
    int bits = 0, max = nkti_ip_max_bits(mask);
    if (max == 0) return NKT_EADDR;
    while (bits < max && (mask->bytes[bits / 8] & 0x80 >> bits % 8) != 0) bits++;
    nkt_ip right = nkt_net_mask(mask->family, bits);
    return memcmp(right.bytes, mask->bytes, sizeof right.bytes) == 0 ? bits : NKT_EADDR;
}

NKT_API nkt_ip_kind nkt_ip_classify(const nkt_ip *ip) {
    int kind = NKT_KIND_NONE, longest = -1;
    if (ip->family == NKT_IPV4) {
        for (size_t i = 0; i < sizeof nkti_kinds4 / sizeof nkti_kinds4[0]; i++) {
            const nkti_kind4 *line = &nkti_kinds4[i];
            nkt_ip prefix = nkt_ip_from_u32(line->prefix);
            if (line->bits <= longest) continue;
            if (!nkti_bits_equal(prefix.bytes, ip->bytes, line->bits)) continue;
            longest = line->bits;
            kind = line->kind;
        }
    } else if (ip->family == NKT_IPV6) {
        for (size_t i = 0; i < sizeof nkti_kinds6 / sizeof nkti_kinds6[0]; i++) {
            const nkti_kind6 *line = &nkti_kinds6[i];
            if (line->bits <= longest) continue;
            if (!nkti_bits_equal(line->prefix, ip->bytes, line->bits)) continue;
            longest = line->bits;
            kind = line->kind;
        }
    }
    return (nkt_ip_kind)kind;
}

NKT_API const char *nkt_ip_kind_name(nkt_ip_kind kind) {
    static const char names[] =
        "none\0" "unspecified\0" "loopback\0" "private\0" "shared\0" "link-local\0"
        "unique-local\0" "site-local\0" "documentation\0" "benchmarking\0" "multicast\0"
        "broadcast\0" "IPv4-mapped\0" "NAT64\0" "6to4\0" "Teredo\0" "discard\0"
        "reserved\0" "global";
    bool is_kind = (int)kind >= 0 && (int)kind <= NKT_KIND_GLOBAL;
    return nkti_packed(names, is_kind ? (int)kind : 0);
}

NKT_API bool nkt_ip_is_global(const nkt_ip *ip) {
    nkt_ip_kind kind = nkt_ip_classify(ip);
    if (kind == NKT_KIND_GLOBAL) return true;
    nkt_ip inside = nkt_ip_embedded(ip);
    // Of the two blocks of NAT64 the one with a known place for the IPv4
    // address is the one for the whole Internet.
    if (kind == NKT_KIND_NAT64) return inside.family != 0;
    if (kind != NKT_KIND_6TO4 && kind != NKT_KIND_TEREDO) return false;
    return nkt_ip_classify(&inside) == NKT_KIND_GLOBAL;
}

NKT_API nkt_ip nkt_ip_embedded(const nkt_ip *ip) {
    static const uint8_t compatible[12] = {0};
    static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
    static const uint8_t teredo[4] = {0x20, 1};
    static const uint8_t sixtofour[2] = {0x20, 2};
    if (nkti_ip_is_mapped(ip) || nkti_ip_has_prefix(ip, nat64, 96)) {
        return nkt_ip_from_bytes(ip->bytes + 12, 4);
    }
    if (nkti_ip_has_prefix(ip, sixtofour, 16)) return nkt_ip_from_bytes(ip->bytes + 2, 4);
    if (nkti_ip_has_prefix(ip, teredo, 32)) {
        nkt_ip client = nkt_ip_from_bytes(ip->bytes + 12, 4);
        for (int i = 0; i < 4; i++) client.bytes[i] ^= 0xff;        // RFC 4380 section 4
        return client;
    }
    // :: and ::1 are no IPv4-compatible addresses but themselves.
    nkt_ip low = nkt_ip_from_bytes(ip->bytes + 12, 4);
    bool own = low.bytes[0] == 0 && low.bytes[1] == 0 && low.bytes[2] == 0 && low.bytes[3] <= 1;
    if (!own && nkti_ip_has_prefix(ip, compatible, 96)) return low;
    return nkt_ip_any(0);
}

NKT_API int nkt_ip_multicast_scope(const nkt_ip *ip) {
    const uint8_t *bytes = ip->bytes;
    if (nkt_ip_classify(ip) != NKT_KIND_MULTICAST) return 0;
    if (ip->family == NKT_IPV6) return bytes[1] & 15;
    if (bytes[0] == 224 && bytes[1] == 0 && bytes[2] == 0) return 2;
    if (bytes[0] == 239 && bytes[1] == 255) return 4;
    if (bytes[0] == 239 && bytes[1] >= 192 && bytes[1] <= 195) return 8;
    return 14;
}
#endif

//==============================================================================
// MARK: @target - "host:port" as people write it
//
// What the text is shows in its first bytes and its colons:
//
//     unix:...            the path of a Unix-domain socket
//     [                   an IPv6 address, then perhaps a port
//     no or one colon     an IPv4 address or a name, then perhaps a port
//     more colons         an IPv6 address without a port
//
// The last needs care. "2001:db8::1:80" is a whole address, and an address and
// a port just as well; whoever wrote it meant one of them, and we do not know
// which. It is refused whenever what stands before the last colon is an address
// too and what follows is decimal.
//
// A name is checked before anybody looks it up. Resolvers hand a name like
// "1.2.3" or "0x7f.1" to parsers that take it for an address, so that what a
// filter saw as a name would connect to 127.0.0.1; hence a last label that is
// a number is refused, as URL parsers do (WHATWG URL, "ends in a number").
//==============================================================================

static bool nkti_is_letter(char c) {
    uint8_t lower = (uint8_t)((uint8_t)c | 0x20u);
    return lower >= 'a' && lower <= 'z';
}

// Whether a label is decimal digits, or "0x" and hex digits.
static bool nkti_label_is_number(const char *label, const char *end) {
    const char *p = label;
    while (p < end && nkti_digit_value(*p) <= 9) p++;
    if (p == end) return true;
    if (p - label != 1 || label[0] != '0' || (*p != 'x' && *p != 'X')) return false;
    p++;
    while (p < end && nkti_hex_value(*p) <= 15) p++;
    return p == end;
}

// Reads a host name that is the rest of the input.
static int nkti_host_read(nkti_cursor *in) {
    const char *label = in->at;
    const char *end = in->end;
    if (label == end) {
        return nkti_cursor_fail(in, label, NKT_ENAME, "host", "expected a host name");
    }
    if (end[-1] == '.') end--;
    if (end - label > NKT_HOST_MAX) {
        return nkti_cursor_fail(in, label + NKT_HOST_MAX, NKT_ENAME, "host",
                                "expected a host name of at most 253 bytes");
    }
    for (const char *p = label;; p++) {
        if (p == end || *p == '.') {
            if (p == label || p - label > 63) {
                return nkti_cursor_fail(in, label, NKT_ENAME, "host",
                                        "expected a label of 1 to 63 bytes between the dots");
            }
            if (*label == '-' || p[-1] == '-') {
                return nkti_cursor_fail(in, *label == '-' ? label : p - 1, NKT_ENAME, "host",
                                        "expected a label without a hyphen at either end");
            }
            if (p == end) break;
            label = p + 1;
        } else if ((uint8_t)*p >= 0x80) {
            return nkti_cursor_fail(in, p, NKT_EUNSUPPORTED, "host",
                                    "expected ASCII; write such a name in its xn-- form");
        } else if (!nkti_is_letter(*p) && nkti_digit_value(*p) > 9 && *p != '-' && *p != '_') {
            return nkti_cursor_fail(in, p, NKT_ENAME, "host",
                                    "expected letters, digits, hyphens, underscores and dots");
        }
    }
    if (nkti_label_is_number(label, end)) {
        return nkti_cursor_fail(in, label, NKT_EADDR, "host",
                                "expected four numbers, or a name that does not end in one");
    }
    return NKT_OK;
}

// Text with two colons or more: an address, unless that can be read two ways.
static int nkti_target_read_colons(nkti_cursor *in, nkt_target *target) {
    if (nkti_ip6_has_port(in->at, (size_t)(in->end - in->at))) return nkti_ambiguous(in);
    target->kind = NKT_TARGET_ADDR;
    return nkti_ip_read(in, &target->ip);
}

static void nkti_target_set_host(nkt_target *target, nkt_target_kind kind, const char *host,
                                 size_t len) {
    target->kind = kind;
    target->host_len = (uint16_t)len;
    memcpy(target->host, host, len);
}

static int nkti_target_read_path(nkti_cursor *in, nkt_target *target) {
    const char *path = in->at;
    size_t len = (size_t)(in->end - path);
    if (len == 0 || (len == 1 && path[0] == '@')) {
        return nkti_cursor_fail(in, in->end, NKT_ENAME, "path",
                                "expected a path behind \"unix:\", or '@' and a name");
    }
    if (len > NKT_UNIX_PATH_MAX) {
        return nkti_cursor_fail(in, path + NKT_UNIX_PATH_MAX, NKT_ETOOLONG, "path",
                                "expected a path of at most 107 bytes");
    }
    const char *nul = (const char *)memchr(path, '\0', len);
    if (nul != NULL) {
        return nkti_cursor_fail(in, nul, NKT_ENAME, "path", "expected a path without NUL bytes");
    }
    nkti_target_set_host(target, NKT_TARGET_UNIX, path, len);
    return NKT_OK;
}

// Names that need no list of the system's, which is not there on every device.
// IANA's service names and the ports that go with them.
#define NKTI_SERVICES(X)                                                                  \
    X("ftp", 21) X("ssh", 22) X("telnet", 23) X("smtp", 25) X("domain", 53)               \
    X("gopher", 70) X("finger", 79) X("http", 80) X("pop3", 110) X("nntp", 119)           \
    X("imap", 143) X("https", 443) X("submission", 587) X("imaps", 993) X("pop3s", 995)   \
    X("mqtt", 1883) X("stun", 3478) X("postgresql", 5432) X("redis", 6379)                \
    X("ircd", 6667) X("ircs-u", 6697)

// The port of a service; 0 if it is none of those.
static uint16_t nkti_service_known(const char *service) {
#define NKT_X(name, port) name "\0"
    static const char names[] = NKTI_SERVICES(NKT_X);
#undef NKT_X
#define NKT_X(name, port) port,
    static const uint16_t ports[] = { NKTI_SERVICES(NKT_X) };
#undef NKT_X
    const uint16_t *port = ports;
    for (const char *name = names; *name != '\0'; name += strlen(name) + 1, port++) {
        if (strcmp(name, service) == 0) return *port;
    }
    return 0;
}

// RFC 6335 section 5.1: 1 to 15 letters, digits and hyphens.
#define NKTI_SERVICE_MAX 15

static int nkti_service_read(nkti_cursor *in, uint16_t *port) {
    const char *first = in->at + 1;             // behind the colon
    size_t len = (size_t)(in->end - first);
    char name[NKTI_SERVICE_MAX + 1];
    for (size_t i = 0; i < len; i++) {
        bool is_fine = nkti_is_letter(first[i]) || nkti_digit_value(first[i]) <= 9 ||
                       first[i] == '-';
        if (is_fine && i < NKTI_SERVICE_MAX) continue;
        return nkti_cursor_fail(in, first + i, NKT_EPORT, "port",
                                "expected a port from 0 to 65535, or the name of a service");
    }
    // Case does not matter (RFC 6335 section 5.1).
    for (size_t i = 0; i < len; i++) {
        name[i] = first[i] >= 'A' && first[i] <= 'Z' ? (char)(first[i] + 32) : first[i];
    }
    name[len] = '\0';
    *port = nkti_service_known(name);
    if (*port != 0) return NKT_OK;
    if (nkti_service_port(in->env, name, port) == NKT_OK) return NKT_OK;
    return nkti_cursor_fail(in, first, NKT_EPORT, "port",
                            "expected the name of a service that the system knows");
}

static bool nkti_is_number(const char *text, const char *end) {
    while (text < end && nkti_digit_value(*text) <= 9) text++;
    return text == end;
}

// Whether it is more likely a bad IPv4 address than a bad name.
static bool nkti_is_number_and_dots(const char *text, const char *end) {
    if (text == end || *text == '.') return false;
    while (text < end && (nkti_digit_value(*text) <= 9 || *text == '.')) text++;
    return text == end;
}

// Reads "name", "192.0.2.1" or nothing: what stands in front of the one colon.
static int nkti_target_read_host(nkti_cursor *in, nkt_target *target) {
    size_t len = (size_t)(in->end - in->at);
    nkti_cursor number = *in;
    target->kind = NKT_TARGET_ADDR;
    if (nkti_ip_read(&number, &target->ip) == NKT_OK) return NKT_OK;
    memset(&target->ip, 0, sizeof target->ip);
    if (nkti_is_number_and_dots(in->at, in->end)) {
        *in = number;               // what is wrong with the address says more
        return NKT_EADDR;
    }
    int err = nkti_host_read(in);
    if (err == NKT_OK) nkti_target_set_host(target, NKT_TARGET_NAME, in->at, len);
    return err;
}

static int nkti_target_read(nkti_cursor *in, int32_t default_port, nkt_target *target) {
    const char *text = in->at;
    const char *end = in->end;
    size_t len = (size_t)(end - text);
    int err = NKT_OK;
    memset(target, 0, sizeof *target);
    if (len == 0) {
        return nkti_cursor_fail(in, text, NKT_ENAME, "address",
                                "expected an address, a host name, or a colon and a port");
    }
    bool is_unix = len >= 4 && memcmp(text, "unix", 4) == 0;
    if (is_unix && len == 4) {      // with a port behind it, it would be a path
        return nkti_cursor_fail(in, text, NKT_ENAME, "host",
                                "expected \"unix:\" and a path, or \"unix.\" for a host");
    }
    if (is_unix && text[4] == ':') {
        in->at += 5;
        return nkti_target_read_path(in, target);
    }
    const char *colon = (const char *)memchr(text, ':', len);
    const char *host_end = colon == NULL ? end : colon;
    if (colon != NULL && end - colon > 2 && colon[1] == '/' && colon[2] == '/') {
        return nkti_cursor_fail(in, colon, NKT_ENAME, "host",
                                "expected host:port, not a URL");
    }
    if (colon == NULL && nkti_is_number(text, end)) {
        return nkti_address_fail(in, text,
                                 "expected a host; a port alone has a colon before it, as in "
                                 ":7777");
    }
    if (text[0] == '[') {
        target->kind = NKT_TARGET_ADDR;
        err = nkti_bracket_read(in, &target->ip);
        host_end = in->at;
    } else if (colon != NULL && memchr(colon + 1, ':', (size_t)(end - colon - 1)) != NULL) {
        err = nkti_target_read_colons(in, target);
        host_end = end;
    } else if (colon == text) {
        target->kind = NKT_TARGET_ANY;
    } else {
        in->end = host_end;
        err = nkti_target_read_host(in, target);
        in->end = end;
    }
    if (err < 0) return err;
    in->at = host_end;
    if (host_end == end && default_port >= 0) {
        target->port = (uint16_t)default_port;
        return NKT_OK;
    }
    if (in->end - in->at > 1 && nkti_is_letter(in->at[1])) {
        return nkti_service_read(in, &target->port);
    }
    return nkti_port_read(in, &target->port);
}

static int nkti_target_parse_in(nkt_env *env, const char *text, size_t len,
                                int32_t default_port, nkt_target *target,
                                nkt_problem *problem) {
    if (default_port < -1 || default_port > 65535) {
        return nkti_problem_set(problem, NKT_EPORT, "default_port", -1,
                                "expected a default port from 0 to 65535, or -1 for none");
    }
    nkti_cursor in = nkti_cursor_begin(text, len);
    in.env = env;
    nkt_target found;
    int err = nkti_target_read(&in, default_port, &found);
    if (err < 0) return nkti_cursor_result(&in, err, problem);
    *target = found;
    return NKT_OK;
}

NKT_API int nkt_target_parse_n(const char *text, size_t len, int32_t default_port,
                               nkt_target *target, nkt_problem *problem) {
    return nkti_target_parse_in(NULL, text, len, default_port, target, problem);
}

NKT_API int nkt_target_parse(const char *text, int32_t default_port, nkt_target *target,
                             nkt_problem *problem) {
    return nkt_target_parse_n(text, text == NULL ? 0 : strlen(text), default_port, target,
                              problem);
}

NKT_API int nkt_target_format(const nkt_target *target, char *buf, size_t cap) {
    char text[sizeof target->host + 16];
    char *end = text;
    size_t len = target->host_len < sizeof target->host ? target->host_len : 0;
    if (target->kind == NKT_TARGET_UNIX) {
        memcpy(end, "unix:", 5);
        end += 5;
    }
    if (target->kind == NKT_TARGET_UNIX || target->kind == NKT_TARGET_NAME) {
        memcpy(end, target->host, len);
        end += len;
    }
    if (target->kind == NKT_TARGET_ADDR) {
        end = nkti_addr_write(end, &target->ip, target->port);
    } else if (target->kind == NKT_TARGET_ANY || target->kind == NKT_TARGET_NAME) {
        *end++ = ':';
        end = nkti_write_decimal(end, target->port);
    }
    return nkti_text_give(text, end, buf, cap);
}

NKT_API int nkt_host_check(const char *name, size_t len, nkt_problem *problem) {
    nkti_cursor in = nkti_cursor_begin(name, len);
    return nkti_cursor_result(&in, nkti_host_read(&in), problem);
}

NKT_API bool nkt_host_is_local(const char *name, size_t len) {
    static const char local[] = "localhost";
    size_t want = sizeof local - 1;
    if (len > 0 && name[len - 1] == '.') len--;
    if (len < want || (len > want && name[len - want - 1] != '.')) return false;
    for (size_t i = 0; i < want; i++) {
        char c = name[len - want + i];
        if (!nkti_is_letter(c) || (c | 0x20) != local[i]) return false;
    }
    return true;
}
//==============================================================================
// MARK: @poller - waiting for many things at once, without callbacks
//
// Every pollable handle begins with an nkti_handle. While it is in a poller it
// is on exactly one of three lists:
//
//     asleep   nothing known; the backend, the deadline heap or a post wakes it
//     ready    has an event that was not fetched yet
//     given    its event was fetched, and no call has said NKT_EAGAIN since:
//              the next wait puts it back on `ready`
//
// `pending` says which events. Registrations are the handle's own watch and,
// for handles that wait on several descriptors (a connection race), a borrowed
// array of more. They are brought up to date at once whenever what the handle
// waits for changes, and always before a descriptor is closed.
//
// Deadlines are in a binary heap. An entry may be earlier than the handle's
// true deadline, never later: completing an operation leaves it alone, and when
// it comes up the handle says when it really wants to be called. So a time-out
// that does not happen costs no heap operation.
//
// Other threads reach a poller by its posted list and its one wake-up
// descriptor only, under the environment's lock.
//==============================================================================

#define NKTI_BATCH 64                   // events taken from the backend at once
#define NKTI_LENT_SIZE 131072           // the buffer a reading connection borrows
#define NKTI_LENT_KEPT 2                // idle ones a poller keeps
#define NKTI_PAGE 4096
#define NKTI_RECEIVES_PER_TURN 16
#define NKTI_FOREIGN_BUCKETS 64

typedef struct nkti_handle nkti_handle;

typedef struct nkti_handle_ops {
    const char *kind;
    // A descriptor is ready, the deadline has come or somebody has posted.
    void (*drive)(nkti_handle *handle, uint32_t ready, int64_t now);
    // What it waits for.
    void (*interest)(nkti_handle *handle, nkt_interest *out);
} nkti_handle_ops;

// What few handles need, for as long as they do.
typedef struct nkti_extra {
    nkt_poll_watch *more;               // NKT_WATCH_MAX more registrations, or NULL
    void *log;                          // of a connect; see nkt_conn_report
} nkti_extra;

// Thousands of these are idle at once: each byte counts.
struct nkti_handle {
    nkt_env *env;
    const nkti_handle_ops *ops;
    nkt_poller *poller;                 // changed under the lock
    void *user;
    union {
        struct { nkti_handle *prev, *next; } ring;  // nonblocking: the list it is on
        nkti_waiter *waiters[2];        // blocking, under the lock: who reads, who writes
    } at;
    nkti_handle *post_next;             // under the lock
    nkti_extra *extra;                  // or NULL
    nkt_poll_watch watch;
    uint32_t process_id;                // whose it is; see nkti_forked
    uint32_t heap_index;                // from 1; 0 = not in the heap
    uint8_t list;
    uint8_t pending;                    // NKT_READ, ...
    uint8_t want;                       // what the user wants to hear of
    bool posted;                        // under the lock
    bool nonblocking;
    bool untimed;                       // it has no deadlines, so ...
    bool has_heap_room;                 // ... this is false on a poller
};

typedef struct nkti_heap_entry {
    int64_t deadline;
    nkti_handle *handle;
} nkti_heap_entry;

enum { NKTI_ASLEEP, NKTI_READY, NKTI_GIVEN, NKTI_LISTS };

typedef struct nkti_foreign {
    nkti_handle handle;
    struct nkti_foreign *next_in_bucket;
    nkt_fd fd;
    bool always;                        // a regular file, which epoll does not take
} nkti_foreign;

// What a handle asks of the poller that it is on. Reached through the poller,
// so that a program that opens none does not have the code.
typedef struct nkti_poller_ops {
    int (*update)(nkti_handle *handle);
    void (*schedule)(nkti_handle *handle, int64_t deadline);
    void (*unwatch)(nkti_handle *handle, nkt_fd fd);
    void (*leave)(nkti_handle *handle);
} nkti_poller_ops;

struct nkt_poller {
    nkt_env *env;
    const nkti_poller_ops *ops;
    const nkt_sys_poll *sys;
    void *backend;
    int64_t process_id;
    nkt_wake wake;
    nkt_poll_watch wake_watch;
    nkti_handle lists[NKTI_LISTS];      // heads of rings; only at.ring is used
    int ready_count;
    nkti_handle *posted;                // under the lock
    bool woken;                         // under the lock: the wake-up is posted
    bool wake_asked;                    // under the lock: by nkt_poller_wake
    uint32_t turn;                      // counts waits
    nkti_heap_entry *heap;              // from index 1
    size_t heap_count, heap_capacity;
    size_t heap_promised;               // handles that have room in it
    struct nkti_input *lent_idle[NKTI_LENT_KEPT];
    int lent_idle_count;
    nkti_foreign *foreign[NKTI_FOREIGN_BUCKETS];
    nkt_poll_event batch[NKTI_BATCH];   // of the look under way; NULL cookies have left
    int batch_count;
};

// --- Lists -------------------------------------------------------------------

static void nkti_handle_init(nkti_handle *handle, nkt_env *env, const nkti_handle_ops *ops,
                             bool nonblocking) {
    memset(handle, 0, sizeof *handle);
    handle->env = env;
    handle->ops = ops;
    handle->watch.fd = NKT_NO_FD;
    handle->nonblocking = nonblocking;
    handle->process_id = nkti_state(env)->process_id;
}

// Whether this is a child process that has the handle from its parent. There
// the kernel's side of it belongs to both, and a lock may be held by a thread
// that the child does not have.
static bool nkti_forked(const nkti_handle *handle) {
    return handle->process_id != (uint32_t)handle->env->core->process_id(handle->env);
}

static void nkti_handle_unlink(nkti_handle *handle) {
    handle->at.ring.prev->at.ring.next = handle->at.ring.next;
    handle->at.ring.next->at.ring.prev = handle->at.ring.prev;
    if (handle->list == NKTI_READY) handle->poller->ready_count--;
}

static void nkti_handle_link(nkti_handle *handle, int list) {
    nkti_handle *head = &handle->poller->lists[list];
    handle->at.ring.prev = head->at.ring.prev;
    handle->at.ring.next = head;
    head->at.ring.prev->at.ring.next = handle;
    head->at.ring.prev = handle;
    handle->list = (uint8_t)list;
    if (list == NKTI_READY) handle->poller->ready_count++;
}

static void nkti_handle_move(nkti_handle *handle, int list) {
    if (handle->list == list) return;
    nkti_handle_unlink(handle);
    nkti_handle_link(handle, list);
}

// Something can be done with the handle.
static void nkti_handle_ready(nkti_handle *handle, uint32_t events) {
    events &= handle->want | (uint32_t)(NKT_CONNECTED | NKT_DONE);
    if (handle->poller == NULL || (handle->pending & events) == events) return;
    handle->pending = (uint8_t)(handle->pending | events);
    nkti_handle_move(handle, NKTI_READY);
}

// A call said NKT_EAGAIN, or the end of the matter.
static void nkti_handle_spent(nkti_handle *handle, uint32_t events) {
    if (handle->poller == NULL) return;
    handle->pending = (uint8_t)(handle->pending & ~events);
    if (handle->pending == 0) nkti_handle_move(handle, NKTI_ASLEEP);
}

// --- The deadline heap -------------------------------------------------------

static void nkti_heap_put(nkt_poller *poller, size_t index, nkti_heap_entry entry) {
    poller->heap[index] = entry;
    entry.handle->heap_index = (uint32_t)index;
}

static void nkti_heap_up(nkt_poller *poller, size_t index, nkti_heap_entry entry) {
    while (index > 1 && poller->heap[index / 2].deadline > entry.deadline) {
        nkti_heap_put(poller, index, poller->heap[index / 2]);
        index /= 2;
    }
    nkti_heap_put(poller, index, entry);
}

static void nkti_heap_down(nkt_poller *poller, size_t index, nkti_heap_entry entry) {
    for (;;) {
        size_t child = index * 2;
        if (child > poller->heap_count) break;
        if (child < poller->heap_count &&
            poller->heap[child + 1].deadline < poller->heap[child].deadline) child++;
        if (poller->heap[child].deadline >= entry.deadline) break;
        nkti_heap_put(poller, index, poller->heap[child]);
        index = child;
    }
    nkti_heap_put(poller, index, entry);
}

static void nkti_heap_remove(nkti_handle *handle) {
    nkt_poller *poller = handle->poller;
    size_t index = handle->heap_index;
    if (index == 0) return;
    nkti_heap_entry last = poller->heap[poller->heap_count--];
    handle->heap_index = 0;
    if (last.handle == handle) return;
    if (index > 1 && poller->heap[index / 2].deadline > last.deadline) {
        nkti_heap_up(poller, index, last);
    } else {
        nkti_heap_down(poller, index, last);
    }
}

// Room for a handle is made while that may fail, so that scheduling cannot.
static int nkti_heap_reserve(nkti_handle *handle) {
    nkt_poller *poller = handle->poller;
    if (poller == NULL || handle->has_heap_room) return NKT_OK;
    if (poller->heap_promised + 1 >= poller->heap_capacity) {
        size_t capacity = poller->heap_capacity == 0 ? 16 : poller->heap_capacity * 2;
        void *grown = nkti_resize(poller->env, poller->heap,
                                  poller->heap_capacity * sizeof poller->heap[0],
                                  capacity * sizeof poller->heap[0]);
        if (grown == NULL) return NKT_ENOMEM;
        poller->heap = (nkti_heap_entry *)grown;
        poller->heap_capacity = capacity;
    }
    poller->heap_promised++;
    handle->has_heap_room = true;
    return NKT_OK;
}

// From now on it may have deadlines.
static int nkti_handle_set_timed(nkti_handle *handle) {
    int err = nkti_heap_reserve(handle);
    if (err >= 0) handle->untimed = false;
    return err;
}

// Has the handle driven at `deadline`, or earlier if that is what is planned.
static void nkti_handle_schedule(nkti_handle *handle, int64_t deadline) {
    if (handle->poller != NULL) handle->poller->ops->schedule(handle, deadline);
}

static void nkti_poller_schedule(nkti_handle *handle, int64_t deadline) {
    nkt_poller *poller = handle->poller;
    if (deadline == NKT_NEVER) return;
    NETKIT_ASSERT(handle->has_heap_room);
    nkti_heap_entry entry;
    entry.deadline = deadline;
    entry.handle = handle;
    if (handle->heap_index == 0) {
        nkti_heap_up(poller, ++poller->heap_count, entry);
    } else if (deadline < poller->heap[handle->heap_index].deadline) {
        nkti_heap_up(poller, handle->heap_index, entry);
    }
}

// --- Registrations -----------------------------------------------------------

static int nkti_watch_set(nkti_handle *handle, nkt_poll_watch *watch, uint32_t events) {
    if (watch->events == events) return NKT_OK;
    nkt_poller *poller = handle->poller;
    return poller->sys->set(poller->env, poller->backend, watch, events);
}

// The one registration of a handle that has a single descriptor.
static int nkti_handle_watch_one(nkti_handle *handle, nkt_fd fd, uint32_t events) {
    if (handle->poller == NULL) return NKT_OK;
    if (handle->watch.fd != fd) {
        nkti_watch_set(handle, &handle->watch, 0);
        handle->watch.fd = fd;
        handle->watch.cookie = handle;
    }
    return nkti_watch_set(handle, &handle->watch, events);
}

static nkti_extra *nkti_handle_extra(nkti_handle *handle) {
    if (handle->extra == NULL) {
        handle->extra = (nkti_extra *)nkti_alloc(handle->env, sizeof *handle->extra);
    }
    return handle->extra;
}

static bool nkti_handle_has_more(const nkti_handle *handle) {
    return handle->extra != NULL && handle->extra->more != NULL;
}

static void nkti_handle_free_more(nkti_handle *handle) {
    nkti_extra *extra = handle->extra;
    if (extra == NULL) return;
    nkti_free(handle->env, extra->more, NKT_WATCH_MAX * sizeof extra->more[0]);
    extra->more = NULL;
    if (extra->log != NULL) return;
    nkti_free(handle->env, extra, sizeof *extra);
    handle->extra = NULL;
}

static nkt_poll_watch *nkti_handle_watch_at(nkti_handle *handle, size_t index) {
    return index == 0 ? &handle->watch : &handle->extra->more[index - 1];
}

static size_t nkti_handle_watch_count(const nkti_handle *handle) {
    return nkti_handle_has_more(handle) ? 1 + NKT_WATCH_MAX : 1;
}

// Takes a descriptor's registration away; to be called before it is closed.
static void nkti_handle_unwatch(nkti_handle *handle, nkt_fd fd) {
    if (handle->poller != NULL) handle->poller->ops->unwatch(handle, fd);
}

static void nkti_poller_unwatch(nkti_handle *handle, nkt_fd fd) {
    for (size_t i = 0; i < nkti_handle_watch_count(handle); i++) {
        nkt_poll_watch *watch = nkti_handle_watch_at(handle, i);
        if (watch->fd != fd) continue;
        nkti_watch_set(handle, watch, 0);
        watch->fd = NKT_NO_FD;
    }
}

static void nkti_handle_unwatch_all(nkti_handle *handle) {
    for (size_t i = 0; i < nkti_handle_watch_count(handle); i++) {
        nkt_poll_watch *watch = nkti_handle_watch_at(handle, i);
        nkti_watch_set(handle, watch, 0);
        watch->fd = NKT_NO_FD;
    }
    nkti_handle_free_more(handle);
}

// The slot that has the descriptor, else a free one; there are enough.
static nkt_poll_watch *nkti_handle_watch_for(nkti_handle *handle, nkt_fd fd) {
    nkt_poll_watch *unused = NULL;
    for (size_t i = 0; i < nkti_handle_watch_count(handle); i++) {
        nkt_poll_watch *watch = nkti_handle_watch_at(handle, i);
        if (watch->fd == fd) return watch;
        if (watch->fd == NKT_NO_FD && unused == NULL) unused = watch;
    }
    return unused;
}

static bool nkti_interest_has(const nkt_interest *interest, nkt_fd fd) {
    for (uint32_t i = 0; i < interest->count; i++) {
        if (interest->watches[i].fd == fd) return true;
    }
    return false;
}

static int nkti_handle_watch_many(nkti_handle *handle, const nkt_interest *interest) {
    nkti_extra *extra = nkti_handle_extra(handle);
    if (extra == NULL) return NKT_ENOMEM;
    if (extra->more == NULL) {
        extra->more = (nkt_poll_watch *)nkti_alloc(handle->env, NKT_WATCH_MAX *
                                                                sizeof extra->more[0]);
        if (extra->more == NULL) return NKT_ENOMEM;
        for (int i = 0; i < NKT_WATCH_MAX; i++) extra->more[i].fd = NKT_NO_FD;
    }
    for (size_t i = 0; i < nkti_handle_watch_count(handle); i++) {
        nkt_poll_watch *watch = nkti_handle_watch_at(handle, i);
        if (watch->fd == NKT_NO_FD || nkti_interest_has(interest, watch->fd)) continue;
        nkti_watch_set(handle, watch, 0);
        watch->fd = NKT_NO_FD;
    }
    for (uint32_t i = 0; i < interest->count; i++) {
        nkt_poll_watch *watch = nkti_handle_watch_for(handle, interest->watches[i].fd);
        NETKIT_ASSERT(watch != NULL);
        watch->fd = interest->watches[i].fd;
        watch->cookie = handle;
        int err = nkti_watch_set(handle, watch, interest->watches[i].events);
        if (err < 0) return err;
    }
    return NKT_OK;
}

static void nkti_interest_clear(nkt_interest *interest) {
    interest->deadline_ns = NKT_NEVER;
    interest->count = 0;
    interest->ready = false;
}

// Makes the registrations and the deadline be what the handle waits for.
static int nkti_handle_update(nkti_handle *handle) {
    return handle->poller == NULL ? NKT_OK : handle->poller->ops->update(handle);
}

static int nkti_poller_apply(nkti_handle *handle, const nkt_interest *interest) {
    const nkt_watch *first = &interest->watches[0];
    int err;
    if (interest->count <= 1 && !nkti_handle_has_more(handle)) {
        nkt_fd fd = interest->count == 1 ? first->fd : handle->watch.fd;
        err = nkti_handle_watch_one(handle, fd, interest->count == 1 ? first->events : 0);
    } else if (interest->count <= 1) {
        nkti_handle_unwatch_all(handle);
        err = interest->count == 0 ? NKT_OK
                                   : nkti_handle_watch_one(handle, first->fd, first->events);
    } else {
        err = nkti_handle_watch_many(handle, interest);
    }
    if (err < 0) return err;
    if (interest->ready && (handle->want & NKT_READ)) nkti_handle_ready(handle, NKT_READ);
    nkti_handle_schedule(handle, interest->deadline_ns);
    return NKT_OK;
}

static int nkti_poller_update(nkti_handle *handle) {
    nkt_interest interest;
    nkti_interest_clear(&interest);
    handle->ops->interest(handle, &interest);
    return nkti_poller_apply(handle, &interest);
}

// --- Posts from other threads ------------------------------------------------

// Under the lock: has the poller drive the handle.
static void nkti_handle_post(nkti_handle *handle) {
    nkt_poller *poller = handle->poller;
    if (poller == NULL || handle->posted) return;
    handle->posted = true;
    handle->post_next = poller->posted;
    poller->posted = handle;
    if (poller->woken) return;
    poller->woken = true;
    poller->env->core->wake_post(poller->env, &poller->wake);
}

// Under the lock: wakes the poller of a connection or datagram handle, or
// whoever waits in its calls.
static void nkti_handle_rouse(nkti_handle *handle) {
    if (handle->nonblocking) {
        nkti_handle_post(handle);
        return;
    }
    nkti_waiter_post(handle->env, handle->at.waiters[0]);
    nkti_waiter_post(handle->env, handle->at.waiters[1]);
}

// Takes a handle out of everything its poller knows.
static void nkti_handle_leave(nkti_handle *handle) {
    if (handle->poller != NULL) handle->poller->ops->leave(handle);
}

static void nkti_poller_leave(nkti_handle *handle) {
    nkt_poller *poller = handle->poller;
    bool forked = nkti_forked(handle);
    if (!forked) {
        nkti_handle_unwatch_all(handle);
    } else {
        // In a forked child the kernel's registrations are the parent's too.
        nkti_handle_free_more(handle);
    }
    nkti_heap_remove(handle);
    nkti_handle_unlink(handle);
    if (handle->has_heap_room) poller->heap_promised--;
    handle->has_heap_room = false;
    for (int i = 0; i < poller->batch_count; i++) {
        if (poller->batch[i].cookie == handle) poller->batch[i].cookie = NULL;
    }
    if (!forked) nkti_lock(handle->env);
    nkti_handle **link = &poller->posted;
    while (handle->posted && *link != handle) link = &(*link)->post_next;
    if (handle->posted) *link = handle->post_next;
    handle->posted = false;
    handle->poller = NULL;
    if (!forked) nkti_unlock(handle->env);
    handle->watch.events = 0;
    handle->watch.fd = NKT_NO_FD;
    handle->pending = 0;
}

// The same of one that stays open: what is under way in it must leave all the
// same.
static void nkti_handle_take_out(nkti_handle *handle) {
    void (*unpolled)(nkti_handle *handle) = nkti_state(handle->env)->unpolled;
    nkti_handle_leave(handle);
    if (unpolled != NULL) unpolled(handle);
}

// Before a handle is freed: whoever cancels it may still be under the lock with
// it, having woken us already.
static void nkti_settle(nkti_handle *handle, const uint32_t *canceled) {
    if (nkti_atomic_load(canceled) == 0 || nkti_forked(handle)) return;
    nkti_lock(handle->env);
    nkti_unlock(handle->env);
}

static int nkti_handle_join(nkt_poller *poller, nkti_handle *handle, uint32_t want,
                            void *user) {
    if (!handle->nonblocking || handle->env != poller->env) return NKT_EINVAL;
    if (handle->poller != NULL) return NKT_EBUSY;
    nkti_lock(handle->env);
    handle->poller = poller;
    nkti_unlock(handle->env);
    handle->user = user;
    handle->pending = 0;
    handle->want = (uint8_t)want;
    nkti_handle_link(handle, NKTI_ASLEEP);
    int err = handle->untimed ? NKT_OK : nkti_heap_reserve(handle);
    if (err >= 0) err = nkti_handle_update(handle);
    if (err < 0) nkti_handle_leave(handle);
    return err;
}

// --- What calls of any handle have in common ---------------------------------

// Begins a blocking call's time-out, where `deadline` is still 0, or says that
// it is over. Calls that need not wait never come here, nor ask for the time.
static int nkti_handle_deadline(nkti_handle *handle, int32_t timeout_ms, int64_t *deadline) {
    nkt_env *env = handle->env;
    if (*deadline == 0) {
        *deadline = timeout_ms <= 0 ? NKT_NEVER
                                    : nkti_after(nkti_now(env), timeout_ms * NKTI_MS);
    } else if (*deadline != NKT_NEVER && nkti_now(env) >= *deadline) {
        nkti_trace(env, handle, handle->ops->kind, "timed out", NKT_ETIMEDOUT, timeout_ms);
        return NKT_ETIMEDOUT;
    }
    return NKT_OK;
}

// NKT_EAGAIN on a nonblocking handle: begins the direction's time-out, or ends
// it.
static int nkti_handle_again(nkti_handle *handle, int32_t timeout_ms, int64_t *deadline) {
    if (timeout_ms <= 0) return NKT_EAGAIN;
    int64_t now = nkti_now(handle->env);
    if (*deadline == NKT_NEVER) {
        *deadline = nkti_after(now, timeout_ms * NKTI_MS);
        nkti_handle_schedule(handle, *deadline);
        return NKT_EAGAIN;
    }
    if (now < *deadline) {
        nkti_handle_schedule(handle, *deadline);
        return NKT_EAGAIN;
    }
    *deadline = NKT_NEVER;
    nkti_trace(handle->env, handle, handle->ops->kind, "timed out", NKT_ETIMEDOUT, timeout_ms);
    return NKT_ETIMEDOUT;
}

typedef struct nkti_turn {
    uint16_t number;            // of the poller's turn ...
    uint8_t receives;           // ... and how often it has received in that
} nkti_turn;

// Whether a handle may receive again before its poller's next wait.
static bool nkti_handle_has_turn(nkti_handle *handle, nkti_turn *turn) {
    nkt_poller *poller = handle->poller;
    if (poller == NULL) return true;
    if (turn->number != (uint16_t)poller->turn) {
        turn->number = (uint16_t)poller->turn;
        turn->receives = 0;
    }
    if (turn->receives < NKTI_RECEIVES_PER_TURN) {
        turn->receives++;
        return true;
    }
    // Not asleep: the next wait reports it again without waiting.
    if (handle->want & NKT_READ) {
        handle->pending |= NKT_READ;
        nkti_handle_move(handle, NKTI_GIVEN);
    }
    return false;
}

// --- Buffers lent to connections that read -----------------------------------

// What has come in and was not read yet, and what is known of it. A connection
// has one while it reads and while it holds something.
//
//     bytes                                                    cap
//      |    read    |   unread, no line end up to   |  unread   |  free   |
//      0           head                            scan        tail
typedef struct nkti_input {
    uint8_t *bytes;
    uint64_t mask;          // line ends among the 64 bytes before `scan`, unread
    uint64_t progress;      // of an unfinished read_exact, skip or read_until
    uint32_t cap, head, tail;
    uint32_t scan;          // up to here every line end is known, by the mask
    uint32_t lf_first;      // 1: the first byte is an LF, of a CR that came before
    uint32_t until_hash;    // of the delimiter that was last searched for
    uint32_t shift;         // where in the allocated block this stands
    uint8_t kind;
    uint8_t progress_of;    // which function `progress` belongs to
    bool long_lines;        // memchr has found the last line's end
} nkti_input;

enum {
    NKTI_INPUT_NONE,        // nkti_no_input
    NKTI_INPUT_SMALL,       // the beginning of something, kept while asleep
    NKTI_INPUT_LENT,        // 128 KiB of the poller's, or like those
    NKTI_INPUT_OWN          // grown for something long
};

// A block with a page at whose beginning it receives: kernels copy several
// times slower to a few bytes past one, where malloc would put it. What is left
// over from the time before goes in front of it, into a page for that, so that
// there is room for all of NKTI_LENT_SIZE each time, and one byte.
#define NKTI_LENT_CAP (NKTI_LENT_SIZE + 1)
#define NKTI_LENT_BLOCK (sizeof(nkti_input) + 2 * NKTI_PAGE + NKTI_LENT_CAP)

static nkti_input *nkti_lent_open(nkt_env *env) {
    uint8_t *block = (uint8_t *)nkti_resize(env, NULL, 0, NKTI_LENT_BLOCK);
    if (block == NULL) return NULL;
    size_t past = (uintptr_t)(block + sizeof(nkti_input)) & (NKTI_PAGE - 1);
    size_t shift = (NKTI_PAGE - past) & (NKTI_PAGE - 1);
    nkti_input *input = (nkti_input *)(void *)(block + shift);
    memset(input, 0, sizeof *input);
    input->shift = (uint32_t)shift;
    input->kind = NKTI_INPUT_LENT;
    return input;
}

// Where the bytes begin if `unread` of them are to be in front of the page.
static void nkti_lent_begin(nkti_input *input, size_t unread) {
    size_t front = unread < NKTI_PAGE ? unread : 0;
    input->bytes = (uint8_t *)(input + 1) + NKTI_PAGE - front;
    input->cap = (uint32_t)(front + NKTI_LENT_CAP);
}

static void nkti_lent_close(nkt_env *env, nkti_input *input) {
    nkti_free(env, (uint8_t *)input - input->shift, NKTI_LENT_BLOCK);
}

static nkti_input *nkti_lent_take(nkt_env *env, nkt_poller *poller) {
    if (poller == NULL || poller->lent_idle_count == 0) return nkti_lent_open(env);
    return poller->lent_idle[--poller->lent_idle_count];
}

static void nkti_lent_give(nkt_env *env, nkt_poller *poller, nkti_input *input) {
    if (poller == NULL || poller->lent_idle_count == NKTI_LENT_KEPT) {
        nkti_lent_close(env, input);
        return;
    }
    poller->lent_idle[poller->lent_idle_count++] = input;
}

// --- Opening, closing --------------------------------------------------------

static const nkti_poller_ops nkti_poller_own_ops = {
    nkti_poller_update, nkti_poller_schedule, nkti_poller_unwatch, nkti_poller_leave,
};

NKT_API int nkt_poller_open(const nkt_poller_opts *opts, nkt_poller **out) {
    nkt_env *env = nkti_env_use(opts != NULL ? opts->env : NULL);
    if (env == NULL) return NKT_EINVAL;
    nkt_poller *poller = (nkt_poller *)nkti_alloc(env, sizeof *poller);
    if (poller == NULL) return NKT_ENOMEM;
    poller->env = env;
    poller->ops = &nkti_poller_own_ops;
    poller->sys = env->poll != NULL ? env->poll : &NKTI_POLL_DEFAULT;
    if (opts != NULL && opts->portable) poller->sys = &nkti_poll_portable;
    poller->process_id = env->core->process_id(env);
    for (int i = 0; i < NKTI_LISTS; i++) {
        poller->lists[i].at.ring.prev = poller->lists[i].at.ring.next = &poller->lists[i];
    }
    int err = poller->sys->open(env, &poller->backend);
    if (err < 0) {
        nkti_free(env, poller, sizeof *poller);
        return err;
    }
    err = env->core->wake_open(env, &poller->wake);
    if (err >= 0) {
        poller->wake_watch.fd = poller->wake.wait_fd;
        poller->wake_watch.cookie = poller;
        err = poller->sys->set(env, poller->backend, &poller->wake_watch, NKT_READ);
        if (err < 0) env->core->wake_close(env, &poller->wake);
    }
    if (err < 0) {
        poller->sys->close(env, poller->backend);
        nkti_free(env, poller, sizeof *poller);
        return err;
    }
    nkti_trace(env, poller, "poller", "open", NKT_OK, 0);
    *out = poller;
    return NKT_OK;
}

static void nkti_foreign_remove(nkt_poller *poller, nkti_foreign *foreign) {
    nkti_foreign **link = &poller->foreign[(size_t)foreign->fd % NKTI_FOREIGN_BUCKETS];
    while (*link != foreign) link = &(*link)->next_in_bucket;
    *link = foreign->next_in_bucket;
    nkti_handle_leave(&foreign->handle);
    nkti_free(poller->env, foreign, sizeof *foreign);
}

NKT_API void nkt_poller_close(nkt_poller *poller) {
    if (poller == NULL) return;
    nkt_env *env = poller->env;
    bool forked = poller->process_id != env->core->process_id(env);
    for (int i = 0; i < NKTI_FOREIGN_BUCKETS; i++) {
        while (poller->foreign[i] != NULL) nkti_foreign_remove(poller, poller->foreign[i]);
    }
    for (int i = 0; i < NKTI_LISTS; i++) {
        while (poller->lists[i].at.ring.next != &poller->lists[i]) {
            nkti_handle_take_out(poller->lists[i].at.ring.next);
        }
    }
    nkti_trace(env, poller, "poller", "closed", NKT_OK, 0);
    while (poller->lent_idle_count > 0) {
        nkti_lent_close(env, poller->lent_idle[--poller->lent_idle_count]);
    }
    if (forked) {
        poller->sys->close_forked(env, poller->backend);
    } else {
        poller->sys->set(env, poller->backend, &poller->wake_watch, 0);
        poller->sys->close(env, poller->backend);
    }
    env->core->wake_close(env, &poller->wake);
    nkti_free(env, poller->heap, poller->heap_capacity * sizeof poller->heap[0]);
    nkti_free(env, poller, sizeof *poller);
}

// --- Other people's descriptors ----------------------------------------------

static void nkti_foreign_drive(nkti_handle *handle, uint32_t ready, int64_t now) {
    (void)now;
    nkti_handle_ready(handle, ready & handle->want);
}

static void nkti_foreign_interest(nkti_handle *handle, nkt_interest *out) {
    if (handle->want == 0 || ((nkti_foreign *)handle)->always) return;
    out->count = 1;
    out->watches[0].fd = ((nkti_foreign *)handle)->fd;
    out->watches[0].events = handle->want;
}

static const nkti_handle_ops nkti_foreign_ops = {
    "fd", nkti_foreign_drive, nkti_foreign_interest,
};

static nkti_foreign *nkti_foreign_find(nkt_poller *poller, nkt_fd fd) {
    nkti_foreign *foreign = poller->foreign[(size_t)fd % NKTI_FOREIGN_BUCKETS];
    while (foreign != NULL && foreign->fd != fd) foreign = foreign->next_in_bucket;
    return foreign;
}

NKT_API int nkt_poller_add_fd(nkt_poller *poller, nkt_fd fd, uint32_t events, void *user) {
    if (fd == NKT_NO_FD || (events & ~(uint32_t)(NKT_READ | NKT_WRITE)) != 0) return NKT_EINVAL;
    if (nkti_foreign_find(poller, fd) != NULL) return NKT_EBUSY;
    nkti_foreign *foreign = (nkti_foreign *)nkti_alloc(poller->env, sizeof *foreign);
    if (foreign == NULL) return NKT_ENOMEM;
    nkti_handle_init(&foreign->handle, poller->env, &nkti_foreign_ops, true);
    foreign->fd = fd;
    int err = nkti_handle_join(poller, &foreign->handle, events, user);
    if (err == NKT_EACCES) {
        foreign->always = true;
        err = nkti_handle_join(poller, &foreign->handle, events, user);
        if (err >= 0) nkti_handle_ready(&foreign->handle, events);
    }
    if (err < 0) {
        nkti_free(poller->env, foreign, sizeof *foreign);
        return err;
    }
    nkti_foreign **bucket = &poller->foreign[(size_t)fd % NKTI_FOREIGN_BUCKETS];
    foreign->next_in_bucket = *bucket;
    *bucket = foreign;
    return NKT_OK;
}

static int nkti_handle_want(const nkt_poller *poller, nkti_handle *handle, uint32_t events) {
    if (handle == NULL || handle->poller != poller) return NKT_ENOTFOUND;
    if ((events & ~(uint32_t)(NKT_READ | NKT_WRITE)) != 0) return NKT_EINVAL;
    if (handle->want == events) return NKT_OK;
    handle->want = (uint8_t)events;
    nkti_handle_spent(handle, ~(events | NKT_CONNECTED | NKT_DONE));
    return nkti_handle_update(handle);
}

NKT_API int nkt_poller_want_fd(nkt_poller *poller, nkt_fd fd, uint32_t events) {
    nkti_foreign *foreign = nkti_foreign_find(poller, fd);
    int err = nkti_handle_want(poller, foreign != NULL ? &foreign->handle : NULL, events);
    if (err >= 0 && foreign->always) nkti_handle_ready(&foreign->handle, events);
    return err;
}

NKT_API int nkt_poller_remove_fd(nkt_poller *poller, nkt_fd fd) {
    nkti_foreign *foreign = nkti_foreign_find(poller, fd);
    if (foreign == NULL) return NKT_ENOTFOUND;
    nkti_foreign_remove(poller, foreign);
    return NKT_OK;
}

// Conns, listeners and tasks all begin with their nkti_handle.
static nkti_handle *nkti_handle_of(void *object) {
    return (nkti_handle *)object;
}

static int nkti_handle_remove(const nkt_poller *poller, nkti_handle *handle) {
    if (handle->poller != poller) return NKT_ENOTFOUND;
    nkti_handle_take_out(handle);
    return NKT_OK;
}

NKT_API int nkt_poller_want_listener(nkt_poller *poller, nkt_listener *listener,
                                     uint32_t events) {
    return nkti_handle_want(poller, nkti_handle_of(listener), events);
}

NKT_API int nkt_poller_remove_conn(nkt_poller *poller, nkt_conn *conn) {
    return nkti_handle_remove(poller, nkti_handle_of(conn));
}

NKT_API int nkt_poller_remove_listener(nkt_poller *poller, nkt_listener *listener) {
    return nkti_handle_remove(poller, nkti_handle_of(listener));
}

NKT_API int nkt_poller_remove_task(nkt_poller *poller, nkt_task *task) {
    return nkti_handle_remove(poller, nkti_handle_of(task));
}

// --- Waiting -----------------------------------------------------------------

static void nkti_poller_requeue_given(nkt_poller *poller) {
    nkti_handle *head = &poller->lists[NKTI_GIVEN];
    while (head->at.ring.next != head) nkti_handle_move(head->at.ring.next, NKTI_READY);
}

static void nkti_poller_run_deadlines(nkt_poller *poller, int64_t now) {
    // Driving may schedule anew, even for now: each entry gets one turn.
    for (size_t turns = poller->heap_count; turns > 0 && poller->heap_count > 0; turns--) {
        nkti_handle *first = poller->heap[1].handle;
        if (poller->heap[1].deadline > now) break;
        nkti_heap_remove(first);
        first->ops->drive(first, 0, now);
    }
}

// Returns whether nkt_poller_wake was called.
static bool nkti_poller_run_posts(nkt_poller *poller, int64_t now) {
    nkti_lock(poller->env);
    bool asked = poller->wake_asked;
    if (poller->woken) poller->env->core->wake_drain(poller->env, &poller->wake);
    poller->woken = poller->wake_asked = false;
    // One at a time, because driving one may close another.
    size_t bound = 0;
    for (nkti_handle *handle = poller->posted; handle != NULL; handle = handle->post_next) bound++;
    while (poller->posted != NULL && bound-- > 0) {
        nkti_handle *handle = poller->posted;
        poller->posted = handle->post_next;
        handle->posted = false;
        nkti_unlock(poller->env);
        handle->ops->drive(handle, 0, now);
        nkti_lock(poller->env);
    }
    nkti_unlock(poller->env);
    return asked;
}

// One look at the backend. Returns 1 if nkt_poller_wake ended it, or an error.
static int nkti_poller_turn(nkt_poller *poller, int64_t deadline, int64_t *now) {
    int64_t until = deadline;
    if (poller->heap_count > 0) until = nkti_min_time(until, poller->heap[1].deadline);
    int64_t timeout = poller->ready_count > 0 ? 0 : nkti_until(*now, until);
    int count = poller->sys->wait(poller->env, poller->backend, poller->batch, NKTI_BATCH, timeout);
    if (count < 0) return count;
    if (timeout != 0) *now = nkti_now(poller->env);
    bool posts = false;
    poller->batch_count = count;
    for (int i = 0; i < count; i++) {
        nkti_handle *handle = (nkti_handle *)poller->batch[i].cookie;
        if ((void *)handle == poller) posts = true;
        else if (handle != NULL) handle->ops->drive(handle, poller->batch[i].events, *now);
    }
    poller->batch_count = 0;
    bool woken = posts && nkti_poller_run_posts(poller, *now);
    nkti_poller_run_deadlines(poller, *now);
    return woken;
}

NKT_API int nkt_poller_wait(nkt_poller *poller, int32_t timeout_ms) {
    nkt_env *env = poller->env;
    if (poller->process_id != env->core->process_id(env)) return NKT_EFORKED;
    poller->turn++;
    nkti_poller_requeue_given(poller);
    int64_t now = nkti_now(env);
    int64_t deadline = timeout_ms < 0 ? NKT_NEVER : nkti_after(now, timeout_ms * NKTI_MS);
    for (;;) {
        int result = nkti_poller_turn(poller, deadline, &now);
        if (result == NKT_EINTR) return poller->ready_count;
        if (result < 0) return result;
        // Work behind the scenes alone does not end the wait.
        if (result > 0 || poller->ready_count > 0 || now >= deadline) return poller->ready_count;
        now = nkti_now(env);
    }
}

static void nkti_event_fill(nkti_handle *handle, nkt_event *event) {
    memset(event, 0, sizeof *event);
    event->events = handle->pending;
    event->fd = NKT_NO_FD;
    event->user = handle->user;
    switch (handle->ops->kind[0]) {
    case 'c': event->conn = (nkt_conn *)(void *)handle; break;
    case 'l': event->listener = (nkt_listener *)(void *)handle; break;
    case 'u': event->udp = (nkt_udp *)(void *)handle; break;
    case 't': event->task = (nkt_task *)(void *)handle; break;
    default: event->fd = ((nkti_foreign *)handle)->fd; break;
    }
}

NKT_API int nkt_poller_next(nkt_poller *poller, nkt_event *event) {
    nkti_handle *head = &poller->lists[NKTI_READY];
    nkti_handle *handle = head->at.ring.next;
    if (handle == head) return NKT_EAGAIN;
    nkti_event_fill(handle, event);
    // Only "there is input" lasts until a call has said NKT_EAGAIN; the rest is
    // news, told once. A foreign descriptor is asked about at the next wait.
    bool is_foreign = handle->ops == &nkti_foreign_ops;
    if (!is_foreign) handle->pending &= NKT_READ;
    else if (!((nkti_foreign *)handle)->always) handle->pending = 0;
    nkti_handle_move(handle, handle->pending != 0 ? NKTI_GIVEN : NKTI_ASLEEP);
    return NKT_OK;
}

NKT_API int nkt_poller_next_many(nkt_poller *poller, nkt_event *events, int cap) {
    int count = 0;
    while (count < cap && nkt_poller_next(poller, &events[count]) == NKT_OK) count++;
    return count;
}

NKT_API void nkt_poller_wake(nkt_poller *poller) {
    nkti_lock(poller->env);
    poller->wake_asked = true;
    if (!poller->woken) {
        poller->woken = true;
        poller->env->core->wake_post(poller->env, &poller->wake);
    }
    nkti_unlock(poller->env);
}

NKT_API nkt_fd nkt_poller_fd(nkt_poller *poller) {
    return poller->sys->fd(poller->env, poller->backend);
}

NKT_API int32_t nkt_poller_timeout_ms(nkt_poller *poller) {
    nkti_handle *given = &poller->lists[NKTI_GIVEN];
    if (poller->ready_count > 0 || given->at.ring.next != given) return 0;
    if (poller->heap_count == 0) return -1;
    return nkti_ns_to_ms(nkti_until(nkti_now(poller->env), poller->heap[1].deadline));
}

//==============================================================================
// MARK: @task - something under way that ends with a result
//
// A task is a handle and three questions: has it a result by now, when must it
// be looked at, and what did the poller tell already. Who brings a result from
// another thread calls nkti_task_notify.
//
// A timer counts the expiries that lie behind it; nothing runs between calls:
//
//     first       +repeat     +repeat     +repeat
//       |-----------|-----------|-----------|----->
//                         ^ finish: 2 expiries, next is the third
//==============================================================================

typedef struct nkti_task_ops {
    bool (*has_result)(nkt_task *task, int64_t now);
    int64_t (*deadline)(nkt_task *task);                // when it will have one
    void (*told)(nkt_task *task, int64_t now);          // optional: the poller has told
    void (*joined)(nkt_task *task);                     // optional: another poller asks
    void (*close)(nkt_task *task);
} nkti_task_ops;

struct nkt_task {
    nkti_handle handle;
    const nkti_task_ops *ops;
    nkti_waiter *waiter;        // under the lock
    uint32_t canceled;          // atomic
    bool cancel_told;
};

// The poller tells each result once, whether or not it is fetched.
static void nkti_task_drive(nkti_handle *handle, uint32_t ready, int64_t now) {
    nkt_task *task = (nkt_task *)(void *)handle;
    (void)ready;
    if (nkti_atomic_load(&task->canceled) != 0) {
        if (!task->cancel_told) nkti_handle_ready(handle, NKT_DONE);
        task->cancel_told = true;
        return;
    }
    if (task->ops->has_result(task, now)) {
        nkti_handle_ready(handle, NKT_DONE);
        if (task->ops->told == NULL) return;
        task->ops->told(task, now);
    }
    nkti_handle_schedule(handle, task->ops->deadline(task));
}

static void nkti_task_interest(nkti_handle *handle, nkt_interest *out) {
    nkt_task *task = (nkt_task *)(void *)handle;
    out->deadline_ns = task->ops->deadline(task);
}

static const nkti_handle_ops nkti_task_handle_ops = {
    "task", nkti_task_drive, nkti_task_interest,
};

static void nkti_task_init(nkt_task *task, nkt_env *env, const nkti_task_ops *ops) {
    nkti_handle_init(&task->handle, env, &nkti_task_handle_ops, true);
    task->ops = ops;
}

static void nkti_task_wake(nkt_task *task, bool cancel) {
    nkt_env *env = task->handle.env;
    nkti_lock(env);
    if (cancel) nkti_atomic_store(&task->canceled, 1);
    nkti_waiter_post(env, task->waiter);
    nkti_handle_post(&task->handle);
    nkti_unlock(env);
}

// Its result may be there. Any thread.
static void nkti_task_notify(void *task) {
    nkti_task_wake((nkt_task *)task, false);
}

NKT_API int nkt_task_wait(nkt_task *task, int32_t timeout_ms) {
    nkt_env *env = task->handle.env;
    int64_t now = nkti_now(env);
    int64_t deadline = nkti_deadline(now, timeout_ms);
    while (!task->ops->has_result(task, now)) {
        nkt_interest interest;
        if (now >= deadline) return NKT_ETIMEDOUT;
        int err = nkti_wait_begin(env, &task->waiter, &task->canceled);
        if (err < 0) return err;
        nkti_interest_clear(&interest);
        interest.deadline_ns = task->ops->deadline(task);
        interest.ready = task->ops->has_result(task, now);
        err = nkti_wait_end(env, &task->waiter, &interest, deadline);
        if (err < 0) return err;
        now = nkti_now(env);
    }
    return nkti_atomic_load(&task->canceled) != 0 ? NKT_ECANCELED : NKT_OK;
}

NKT_API void nkt_task_cancel(nkt_task *task) {
    nkti_task_wake(task, true);
}

NKT_API void nkt_task_close(nkt_task *task) {
    if (task == NULL) return;
    nkti_settle(&task->handle, &task->canceled);
    nkti_handle_leave(&task->handle);
    nkti_trace(task->handle.env, task, "task", "closed", NKT_OK, 0);
    task->ops->close(task);
}

NKT_API int nkt_poller_add_task(nkt_poller *poller, nkt_task *task, void *user) {
    int err = nkti_handle_join(poller, &task->handle, NKT_READ | NKT_WRITE, user);
    if (err < 0) return err;
    if (task->ops->joined != NULL) task->ops->joined(task);
    // What came while it was in no poller is told now.
    nkti_task_drive(&task->handle, 0, nkti_now(task->handle.env));
    return NKT_OK;
}

NKT_API int nkt_sleep(nkt_env *env, int32_t ms) {
    env = nkti_env_use(env);
    if (env == NULL || ms < 0) return NKT_EINVAL;
    int64_t now = nkti_now(env), until = nkti_deadline(now, ms);
    do {
        int err = env->core->wait(env, NULL, 0, nkti_until(now, until));
        if (err < 0) return err;
        now = nkti_now(env);
    } while (now < until);
    return NKT_OK;
}

// --- Timers
// ---------------------------------------------------------------------

typedef struct nkti_timer {
    nkt_task task;
    bool over;                  // one without repeat was fetched
    int64_t next_ns;            // the first expiry that was not fetched
    int64_t tell_ns;            // the first one that the poller has not told
    int64_t repeat_ns;
} nkti_timer;

static nkti_timer *nkti_timer_of(nkt_task *task) {
    return (nkti_timer *)(void *)task;
}

static bool nkti_timer_has_result(nkt_task *task, int64_t now) {
    const nkti_timer *timer = nkti_timer_of(task);
    // In a poller what was told already is no news.
    int64_t due = task->handle.poller != NULL ? timer->tell_ns : timer->next_ns;
    return now >= due || (timer->over && task->handle.poller == NULL);
}

static int64_t nkti_timer_deadline(nkt_task *task) {
    const nkti_timer *timer = nkti_timer_of(task);
    return task->handle.poller != NULL ? timer->tell_ns : timer->next_ns;
}

static void nkti_timer_told(nkt_task *task, int64_t now) {
    nkti_timer *timer = nkti_timer_of(task);
    int64_t late = now - timer->tell_ns;
    timer->tell_ns = timer->repeat_ns == 0 ? NKT_NEVER
        : nkti_after(timer->tell_ns, (late / timer->repeat_ns + 1) * timer->repeat_ns);
}

static void nkti_timer_joined(nkt_task *task) {
    nkti_timer *timer = nkti_timer_of(task);
    timer->tell_ns = timer->next_ns;
}

static void nkti_timer_close(nkt_task *task) {
    nkti_free(task->handle.env, task, sizeof(nkti_timer));
}

static const nkti_task_ops nkti_timer_ops = {
    nkti_timer_has_result, nkti_timer_deadline, nkti_timer_told, nkti_timer_joined,
    nkti_timer_close,
};

NKT_API int nkt_timer_start(const nkt_timer_opts *opts, nkt_task **out) {
    if (opts == NULL || opts->delay_ms < 0 || opts->repeat_ms < 0) return NKT_EINVAL;
    nkt_env *env = nkti_env_use(opts->env);
    if (env == NULL) return NKT_EINVAL;
    nkti_timer *timer = (nkti_timer *)nkti_alloc(env, sizeof *timer);
    if (timer == NULL) return NKT_ENOMEM;
    nkti_task_init(&timer->task, env, &nkti_timer_ops);
    timer->next_ns = nkti_deadline(nkti_now(env), opts->delay_ms);
    timer->tell_ns = timer->next_ns;
    timer->repeat_ns = opts->repeat_ms * NKTI_MS;
    nkti_trace(env, timer, "task", "started", NKT_OK, opts->delay_ms);
    *out = &timer->task;
    return NKT_OK;
}

NKT_API int nkt_timer_finish(nkt_task *task) {
    nkti_timer *timer = nkti_timer_of(task);
    nkti_handle_spent(&task->handle, NKT_DONE);
    if (nkti_atomic_load(&task->canceled) != 0) return NKT_ECANCELED;
    if (timer->over) return NKT_EOF;
    int64_t now = nkti_now(task->handle.env);
    if (now < timer->next_ns) return NKT_EAGAIN;
    if (timer->repeat_ns == 0) {
        timer->over = true;
        timer->next_ns = timer->tell_ns = NKT_NEVER;
        return 1;
    }
    int64_t expired = (now - timer->next_ns) / timer->repeat_ns + 1;
    timer->next_ns += expired * timer->repeat_ns;
    // What was fetched needs not be told any more.
    if (timer->tell_ns < timer->next_ns) timer->tell_ns = timer->next_ns;
    nkti_handle_schedule(&task->handle, timer->tell_ns);
    return expired > INT_MAX ? INT_MAX : (int)expired;
}

//==============================================================================
// MARK: @select - which address first
//
// RFC 6724 section 6: destination addresses are compared pairwise, each with
// the source address the system would use for it:
//
//     rule 1   one without a route goes last
//          2   source and destination of the same scope
//          5   source and destination of the same label
//          6   higher precedence of the destination
//          8   smaller scope of the destination
//          9   longer common prefix of source and destination, IPv6 only
//         10   else as the resolver had them
//
// Rules 3, 4 and 7 (deprecated, home and tunnelled addresses) look at flags of
// the source that a socket does not tell; the kernel avoids such sources where
// it has others. Rule 9 is not applied to IPv4, where it would undo the
// balancing of servers by rotating answers.
//
// No rule needs both addresses at once, so each gets a rank, in which the rules
// stand from the highest bits down, and the smaller rank goes first:
//
//      20        19       18       12..17      8..11        0..6
//     no route  scope    label    precedence  scope of     bits that are
//               differs  differs  left of 63  destination  not in common
//==============================================================================

// What the system says of one end. A dual-stack socket's IPv4 peers come as
// IPv4-mapped addresses; here they are the IPv4 addresses they are.
static int nkti_fd_name(nkt_env *env, nkt_fd fd, bool peer, nkt_addr *addr) {
    union { uint64_t align; char room[NKT_SOCKADDR_MAX]; } name;
    size_t len = sizeof name;
    nkt_addr found;
    memset(&name, 0, sizeof name);
    int err = peer ? env->core->peer_name(env, fd, &name, &len)
                   : env->core->local_name(env, fd, &name, &len);
    if (err < 0) return NKT_ENOTCONN;
    memset(&found, 0, sizeof found);
    if (nkt_addr_from_sockaddr(&name, len, &found) >= 0) found.ip = nkt_ip_unmap(&found.ip);
    *addr = found;
    return NKT_OK;
}

typedef struct nkti_candidate {
    nkt_addr addr;
    uint32_t rank;
} nkti_candidate;

typedef struct nkti_policy {
    uint8_t prefix[16];
    uint8_t bits;
    uint8_t precedence;
    uint8_t label;
} nkti_policy;

// RFC 6724 section 2.1, longest prefixes first.
static const nkti_policy nkti_policies[] = {
    { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 }, 128, 50, 0 },
    { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0 }, 96, 35, 4 },
    { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 96, 1, 3 },
    { { 0x20, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 32, 5, 5 },
    { { 0x20, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 16, 30, 2 },
    { { 0x3f, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 16, 1, 12 },
    { { 0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 10, 1, 11 },
    { { 0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 7, 3, 13 },
    { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 0, 40, 1 },
};

#define NKTI_PREFIX_BITS 64         // of a unicast address, RFC 4291 section 2.5.1

static int nkti_common_bits(const uint8_t *a, const uint8_t *b, int most) {
    for (int i = 0; i < most; i++) {
        if (((a[i / 8] ^ b[i / 8]) & (0x80 >> i % 8)) != 0) return i;
    }
    return most;
}

static const nkti_policy *nkti_policy_of(const nkt_ip *ip) {
    nkt_ip mapped = nkt_ip_map(ip);
    const nkti_policy *policy = nkti_policies;
    while (nkti_common_bits(mapped.bytes, policy->prefix, policy->bits) < policy->bits) policy++;
    return policy;
}

// RFC 6724 section 3: IPv4's autoconfigured and loopback addresses are of link
// scope, all others global; multicast has its own.
static int nkti_unicast_scope(const nkt_ip *ip) {
    nkt_ip plain = nkt_ip_unmap(ip);
    const uint8_t *b = plain.bytes;
    if (plain.family == NKT_IPV4) {
        return b[0] == 127 || (b[0] == 169 && b[1] == 254) ? 2 : 14;
    }
    nkt_ip loopback = nkt_ip_loopback(NKT_IPV6);
    if (b[0] == 0xff) return b[1] & 15;
    if (memcmp(b, loopback.bytes, 16) == 0) return 2;
    if (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) return 2;
    return b[0] == 0xfe && (b[1] & 0xc0) == 0xc0 ? 5 : 14;
}

#define NKTI_RANK_NO_ROUTE (UINT32_C(1) << 20)

// `source` is no address if there is no route.
static uint32_t nkti_rank(const nkt_ip *ip, const nkt_ip *source) {
    const nkti_policy *policy = nkti_policy_of(ip);
    int scope = nkti_unicast_scope(ip);
    uint32_t rank = (uint32_t)(63 - policy->precedence) << 12 | (uint32_t)scope << 8;
    if (source->family == 0) return rank | NKTI_RANK_NO_ROUTE;
    if (nkti_unicast_scope(source) != scope) rank |= UINT32_C(1) << 19;
    if (nkti_policy_of(source)->label != policy->label) rank |= UINT32_C(1) << 18;
    if (ip->family != NKT_IPV6 || source->family != NKT_IPV6) return rank;
    // Interface identifiers do not count (section 2.2).
    int common = nkti_common_bits(ip->bytes, source->bytes, NKTI_PREFIX_BITS);
    return rank | (uint32_t)(NKTI_PREFIX_BITS - common);
}

// Puts one behind all that go before it; what is equal stays in order.
static void nkti_candidate_insert(nkti_candidate *sorted, uint32_t count,
                                  const nkti_candidate *one) {
    uint32_t at = count;
    while (at > 0 && one->rank < sorted[at - 1].rank) {
        sorted[at] = sorted[at - 1];
        at--;
    }
    sorted[at] = *one;
}

// The source address the system would use; no address if there is no route.
// Nothing is sent.
static nkt_ip nkti_source_of(nkt_env *env, const nkt_ip *ip, uint16_t port) {
    union { uint64_t align; char room[NKT_SOCKADDR_MAX]; } name;
    nkt_addr probe = nkt_addr_make(ip, port != 0 ? port : 9);   // some systems refuse port 0
    nkt_addr local;
    nkt_fd fd = NKT_NO_FD;
    int len = nkt_addr_to_sockaddr(&probe, &name, sizeof name);
    if (len < 0 || env->core->open(env, ip->family, 2, &fd) < 0) return nkt_ip_any(0);
    int err = env->core->connect(env, fd, &name, (size_t)len);
    if (err >= 0) err = nkti_fd_name(env, fd, false, &local);
    env->core->close(env, fd);
    return err < 0 ? nkt_ip_any(0) : local.ip;
}

// As nkt_ip_sort, for what both families' answers are together.
static int nkti_ip_sort(nkt_env *env, nkt_ip *ips, int count) {
    nkti_candidate sorted[2 * NKT_LOOKUP_MAX];
    int usable = 0;
    for (int i = 0; i < count; i++) {
        nkti_candidate one;
        nkt_ip source = nkti_source_of(env, &ips[i], 0);
        one.addr = nkt_addr_make(&ips[i], 0);
        one.rank = nkti_rank(&ips[i], &source);
        nkti_candidate_insert(sorted, (uint32_t)i, &one);
        if (one.rank < NKTI_RANK_NO_ROUTE) usable++;
    }
    for (int i = 0; i < count; i++) ips[i] = sorted[i].addr.ip;
    return usable;
}

NKT_API int nkt_ip_sort(nkt_env *env, nkt_ip *ips, int count) {
    env = nkti_env_use(env);
    if (env == NULL || count < 0 || count > 2 * NKT_LOOKUP_MAX) return NKT_EINVAL;
    return nkti_ip_sort(env, ips, count);
}

//==============================================================================
// MARK: @lookup - from a host name to addresses
//
// A job is one call of the resolver: a host and a family. It belongs to the
// worker until it is done and to its look-up afterwards; a look-up that is
// cancelled before lets go of it, and the worker frees it then. A job that no
// worker has begun is taken back out of the queue.
//
//     look-up  --two jobs-->  queue  -->  worker: resolve()  --done-->  notify
//        |                                   |
//        +--cancel: owner = NULL ------------+--> freed by the worker
//
// Workers end when the queue is empty, so there is nothing to stop at exit.
// Jobs live in the C library's memory, because the environment and its
// allocator may be gone when a resolver returns after a minute.
//
// Order of locks: the pool's, then the environment's.
//==============================================================================

#define NKTI_LOOKUP_THREADS 8
#define NKTI_LOOKUP_TIMEOUT_MS 30000

typedef struct nkti_lookup nkti_lookup;

typedef struct nkti_job {
    struct nkti_job *next;          // in the queue
    nkti_lookup *owner;             // NULL once abandoned
    nkt_env *env;                   // may be gone, unless it has a resolver of its own,
    int (*resolve)(nkt_env *env, const char *host, int family, nkt_ip *ips, int cap);
    int family;
    int result;                     // how many, or why none
    bool begun, done;
    char host[256];
    nkt_ip ips[NKT_LOOKUP_MAX];
} nkti_job;

// Two jobs and whom to tell; part of a race or a task. The pool's lock guards
// the jobs; the pointers to them are the handle's own, so that one without jobs
// needs no lock.
struct nkti_lookup {
    nkti_job *jobs[2];              // IPv6, IPv4; NULL when fetched or not asked
    bool may_wait;                  // without threads: for the system's resolver
    void (*notify)(void *owner);    // under the pool's lock
    void *owner;
};

typedef struct nkti_pool {
    nkti_mutex lock;
    nkti_job *first, *last;         // the queue
    int threads;
    uint32_t process_id;            // atomic: whose workers they are; 0 = nobody's
} nkti_pool;

static nkti_pool nkti_lookup_pool = { NKTI_MUTEX_INIT, NULL, NULL, 0, 0 };

// A resolver of the user's may hand on codes that mean something else here.
static int nkti_job_resolve(nkti_job *job) {
    if (job->resolve == NULL) {
        return nkti_os_resolve(job->host, job->family, job->ips, NKT_LOOKUP_MAX);
    }
    int count = job->resolve(job->env, job->host, job->family, job->ips, NKT_LOOKUP_MAX);
    if (count > 0 && count <= NKT_LOOKUP_MAX) return count;
    if (count == 0 || count == NKT_ENOTFOUND) return NKT_ENOTFOUND;
    return count == NKT_ENOMEM ? NKT_ENOMEM : NKT_ELOOKUP;
}

// Under the pool's lock.
static void nkti_job_dequeue(nkti_pool *pool, nkti_job *job) {
    nkti_job *before = NULL;
    for (nkti_job *at = pool->first; at != job; at = at->next) before = at;
    if (before == NULL) pool->first = job->next;
    else before->next = job->next;
    if (pool->last == job) pool->last = before;
}

#if defined(NETKIT_NO_THREADS)
// Without threads a resolver of the environment's answers on the spot, and the
// system's does so for whoever may wait.
static int nkti_job_start(nkti_job *job) {
    if (job->resolve == NULL && !job->owner->may_wait) return NKT_EUNSUPPORTED;
    job->begun = true;
    job->result = nkti_job_resolve(job);
    job->done = true;
    return NKT_OK;
}
#else
// Under the pool's lock.
static void nkti_job_finished(nkti_job *job) {
    job->done = true;
    if (job->owner == NULL) free(job);
    else job->owner->notify(job->owner->owner);
}

static void nkti_lookup_worker(void *arg) {
    nkti_pool *pool = (nkti_pool *)arg;
    nkti_mutex_lock(&pool->lock);
    while (pool->first != NULL) {
        nkti_job *job = pool->first;
        pool->first = job->next;
        job->begun = true;
        nkti_mutex_unlock(&pool->lock);
        job->result = nkti_job_resolve(job);
        nkti_mutex_lock(&pool->lock);
        nkti_job_finished(job);
    }
    pool->threads--;
    nkti_mutex_unlock(&pool->lock);
}

// Under the pool's lock, which it lets go while a thread is started: that may
// run the work before it returns. A job that nobody can run is not left behind.
static int nkti_job_enqueue(nkti_pool *pool, nkti_job *job) {
    nkti_signals before_start;
    if (pool->first == NULL) pool->first = job;
    else pool->last->next = job;
    pool->last = job;
    if (pool->threads >= NKTI_LOOKUP_THREADS) return NKT_OK;
    pool->threads++;
    nkti_mutex_unlock(&pool->lock);
    nkti_signals_block(&before_start);
    int err = nkt_thread_start(job->env, nkti_lookup_worker, pool);
    nkti_signals_restore(&before_start);
    nkti_mutex_lock(&pool->lock);
    if (err >= 0) return NKT_OK;
    pool->threads--;
    if (pool->threads > 0 || job->begun) return NKT_OK;
    nkti_job_dequeue(pool, job);
    return err;
}

// In a forked child no worker is left; what was queued belongs to handles of
// the parent's, which free it when they are closed.
static void nkti_pool_after_fork(nkti_pool *pool, uint32_t process_id) {
    uint32_t before = nkti_atomic_exchange(&pool->process_id, process_id);
    if (before != 0 && before != process_id) {
        nkti_mutex_init(&pool->lock);
        pool->first = pool->last = NULL;
        pool->threads = 0;
    }
}

static int nkti_job_start(nkti_job *job) {
    nkti_pool *pool = &nkti_lookup_pool;
    nkti_os_pin();
    // Threads are the process's, whatever an environment calls it.
    nkti_pool_after_fork(pool, (uint32_t)nkti_os_process_id(NULL));
    nkti_mutex_lock(&pool->lock);
    int err = nkti_job_enqueue(pool, job);
    nkti_mutex_unlock(&pool->lock);
    return err;
}
#endif

// Under the pool's lock.
static void nkti_job_cancel(nkti_job *job) {
    nkti_pool *pool = &nkti_lookup_pool;
    job->owner = NULL;
    if (job->begun && !job->done) return;       // the worker frees it
    if (!job->begun) nkti_job_dequeue(pool, job);
    free(job);
}

static void nkti_lookup_cancel(nkti_lookup *lookup, const nkti_handle *handle) {
    if (lookup->jobs[0] == NULL && lookup->jobs[1] == NULL) return;
    // In a forked child a worker may have held the lock, but none is there, and
    // the jobs are nobody else's.
    bool forked = nkti_forked(handle);
    if (!forked) nkti_mutex_lock(&nkti_lookup_pool.lock);
    for (int i = 0; i < 2; i++) {
        nkti_job *job = lookup->jobs[i];
        lookup->jobs[i] = NULL;
        if (job != NULL && forked) free(job);
        else if (job != NULL) nkti_job_cancel(job);
    }
    if (!forked) nkti_mutex_unlock(&nkti_lookup_pool.lock);
}

static int nkti_lookup_ask(nkti_lookup *lookup, nkt_env *env, const char *host, int index) {
    nkti_job *job = (nkti_job *)calloc(1, sizeof *job);
    if (job == NULL) return NKT_ENOMEM;
    job->owner = lookup;
    job->env = env;
    job->resolve = env->resolve;
    job->family = index == 0 ? NKT_IPV6 : NKT_IPV4;
    memcpy(job->host, host, strlen(host) + 1);
    lookup->jobs[index] = job;
    int err = nkti_job_start(job);
    if (err >= 0) return NKT_OK;
    lookup->jobs[index] = NULL;
    free(job);
    return err;
}

// Asks for one family or both.
static int nkti_lookup_begin(nkti_lookup *lookup, const nkti_handle *handle, const char *host,
                             int family,
                             void (*notify)(void *owner), void *owner) {
    lookup->notify = notify;
    lookup->owner = owner;
    int err = NKT_OK;
    if (family != NKT_IPV4) err = nkti_lookup_ask(lookup, handle->env, host, 0);
    if (err >= 0 && family != NKT_IPV6) err = nkti_lookup_ask(lookup, handle->env, host, 1);
    if (err < 0) nkti_lookup_cancel(lookup, handle);
    return err;
}

// Takes one family's answer: how many addresses, why there are none, or
// NKT_EAGAIN while it is to come. NKT_EOF if it was taken or never asked for.
static int nkti_lookup_take(nkti_lookup *lookup, int index, nkt_ip *ips) {
    nkti_job *job = lookup->jobs[index];
    if (job == NULL) return NKT_EOF;
    nkti_mutex_lock(&nkti_lookup_pool.lock);
    int result = job->done ? job->result : (int)NKT_EAGAIN;
    if (job->done) {
        if (result > 0) memcpy(ips, job->ips, (size_t)result * sizeof ips[0]);
        lookup->jobs[index] = NULL;
        free(job);
    }
    nkti_mutex_unlock(&nkti_lookup_pool.lock);
    return result;
}

enum { NKTI_LOOKUP_OVER, NKTI_LOOKUP_QUEUED, NKTI_LOOKUP_UNDER_WAY, NKTI_LOOKUP_ANSWERED };

// What there is of one family's job.
static int nkti_lookup_state(nkti_lookup *lookup, int index) {
    const nkti_job *job = lookup->jobs[index];
    if (job == NULL) return NKTI_LOOKUP_OVER;
    nkti_mutex_lock(&nkti_lookup_pool.lock);
    int state = job->done ? NKTI_LOOKUP_ANSWERED
              : job->begun ? NKTI_LOOKUP_UNDER_WAY : NKTI_LOOKUP_QUEUED;
    nkti_mutex_unlock(&nkti_lookup_pool.lock);
    return state;
}

// --- The task
// -------------------------------------------------------------------

typedef struct nkti_lookup_task {
    nkt_task task;
    nkti_lookup lookup;
    int64_t deadline;
    nkt_ip own;                 // of a host that needs no resolver, IPv4 for localhost
    int own_count;              // answers of that kind that were not fetched
    int fetched;                // addresses, in all
    int failure;                // why a family had none
    bool over;                  // all has been fetched
    int rest_count;             // of an answer that was larger than the room for it
    nkt_ip rest[NKT_LOOKUP_MAX];
} nkti_lookup_task;

static nkti_lookup_task *nkti_lookup_task_of(nkt_task *task) {
    return (nkti_lookup_task *)(void *)task;
}

static bool nkti_lookup_task_has_result(nkt_task *task, int64_t now) {
    nkti_lookup_task *self = nkti_lookup_task_of(task);
    if (self->over) return task->handle.poller == NULL;     // no news
    int ipv6 = nkti_lookup_state(&self->lookup, 0), ipv4 = nkti_lookup_state(&self->lookup, 1);
    return self->own_count > 0 || self->rest_count > 0 || ipv6 == NKTI_LOOKUP_ANSWERED ||
           ipv4 == NKTI_LOOKUP_ANSWERED || now >= self->deadline ||
           (ipv6 == NKTI_LOOKUP_OVER && ipv4 == NKTI_LOOKUP_OVER);
}

static int64_t nkti_lookup_task_deadline(nkt_task *task) {
    const nkti_lookup_task *self = nkti_lookup_task_of(task);
    return self->over ? NKT_NEVER : self->deadline;
}

static void nkti_lookup_task_close(nkt_task *task) {
    nkti_lookup_cancel(&nkti_lookup_task_of(task)->lookup, &task->handle);
    nkti_free(task->handle.env, task, sizeof(nkti_lookup_task));
}

static const nkti_task_ops nkti_lookup_task_ops = {
    nkti_lookup_task_has_result, nkti_lookup_task_deadline, NULL, NULL, nkti_lookup_task_close,
};

// What a host is that is not for the resolver: localhost or an address. Returns
// how many answers it has, 0 if it is a name, or why it is neither.
static int nkti_host_own(const char *host, int family, nkt_ip *ip) {
    size_t len = strlen(host);
    if (nkt_ip_parse(host, ip) == NKT_OK) {
        return family == 0 || family == ip->family ? 1 : (int)NKT_ENOTFOUND;
    }
    int err = nkt_host_check(host, len, NULL);
    if (err < 0) return err;
    if (!nkt_host_is_local(host, len)) return 0;
    *ip = nkt_ip_loopback(family != 0 ? family : NKT_IPV6);
    return family != 0 ? 1 : 2;
}

static int nkti_lookup_new(const char *host, const nkt_lookup_opts *opts, bool may_wait,
                           nkt_task **out) {
    nkt_env *env = nkti_env_use(opts != NULL ? opts->env : NULL);
    int family = opts != NULL ? opts->family : 0;
    if (env == NULL || host == NULL || (family != 0 && family != NKT_IPV4 && family != NKT_IPV6)) {
        return NKT_EINVAL;
    }
    nkt_ip own;
    memset(&own, 0, sizeof own);
    int own_count = nkti_host_own(host, family, &own);
    if (own_count < 0) return own_count;
    nkti_lookup_task *self = (nkti_lookup_task *)nkti_alloc(env, sizeof *self);
    if (self == NULL) return NKT_ENOMEM;
    nkti_task_init(&self->task, env, &nkti_lookup_task_ops);
    int32_t timeout_ms = opts != NULL && opts->timeout_ms != 0 ? opts->timeout_ms
                                                               : NKTI_LOOKUP_TIMEOUT_MS;
    self->deadline = nkti_deadline(nkti_now(env), timeout_ms);
    self->failure = NKT_ENOTFOUND;
    self->own = own;
    self->own_count = own_count;
    self->lookup.may_wait = may_wait;
    int err = NKT_OK;
    if (own_count == 0) {
        err = nkti_lookup_begin(&self->lookup, &self->task.handle, host, family,
                                nkti_task_notify, &self->task);
    }
    if (err < 0) {
        nkti_free(env, self, sizeof *self);
        return err;
    }
    nkti_trace(env, self, "task", "started", NKT_OK, 0);
    *out = &self->task;
    return NKT_OK;
}

NKT_API int nkt_lookup_start(const char *host, const nkt_lookup_opts *opts, nkt_task **task) {
    return nkti_lookup_new(host, opts, false, task);
}

// The next family's answer, as nkti_lookup_take; NKT_EOF when there is none
// left.
static int nkti_lookup_task_next(nkti_lookup_task *self, nkt_ip *ips) {
    if (self->own_count > 0) {
        ips[0] = self->own;
        if (--self->own_count > 0) self->own = nkt_ip_loopback(NKT_IPV4);
        return 1;
    }
    int result = nkti_lookup_take(&self->lookup, 0, ips);
    if (result > 0) return result;
    int other = nkti_lookup_take(&self->lookup, 1, ips);
    const int errs[2] = { result, other };
    for (int i = 0; i < 2; i++) {
        bool is_failure = errs[i] != NKT_EAGAIN && errs[i] != NKT_EOF && errs[i] < 0;
        if (is_failure && errs[i] != NKT_ENOTFOUND) self->failure = errs[i];
    }
    if (other > 0) return other;
    return result == NKT_EAGAIN || other == NKT_EAGAIN ? NKT_EAGAIN : NKT_EOF;
}

NKT_API int nkt_lookup_finish(nkt_task *task, nkt_ip *ips, int cap) {
    nkti_lookup_task *self = nkti_lookup_task_of(task);
    nkti_handle_spent(&task->handle, NKT_DONE);
    if (ips == NULL || cap < 1) return NKT_EINVAL;
    if (nkti_atomic_load(&task->canceled) != 0) return NKT_ECANCELED;
    int result = self->rest_count;
    if (result == 0) result = nkti_lookup_task_next(self, self->rest);
    if (result > 0) {
        int count = result < cap ? result : cap;
        memcpy(ips, self->rest, (size_t)count * sizeof ips[0]);
        memmove(self->rest, self->rest + count, (size_t)(result - count) * sizeof ips[0]);
        self->rest_count = result - count;
        self->fetched += count;
        // There may be more already: the rest, or the other family's answer.
        nkti_task_drive(&task->handle, 0, nkti_now(task->handle.env));
        return count;
    }
    if (result == NKT_EAGAIN && nkti_now(task->handle.env) < self->deadline) return result;
    if (result == NKT_EAGAIN) self->failure = NKT_ETIMEDOUT;
    nkti_lookup_cancel(&self->lookup, &task->handle);
    self->over = true;
    return self->fetched > 0 ? (int)NKT_EOF : self->failure;
}

NKT_API int nkt_lookup(const char *host, const nkt_lookup_opts *opts, nkt_ip *ips, int cap) {
    nkt_ip all[2 * NKT_LOOKUP_MAX];
    int count = 0;
    nkt_task *task = NULL;
    if (ips == NULL || cap < 1) return NKT_EINVAL;
    int err = nkti_lookup_new(host, opts, true, &task);
    if (err < 0) return err;
    const int room = 2 * NKT_LOOKUP_MAX;        // both families' answers, however large
    while ((err >= 0 || err == NKT_EAGAIN) && count < room) {
        if (err == NKT_EAGAIN) err = nkt_task_wait(task, -1);
        if (err >= 0) err = nkt_lookup_finish(task, all + count, room - count);
        if (err > 0) count += err;
    }
    nkt_env *env = task->handle.env;
    nkt_task_close(task);
    if (err == NKT_EINTR || err == NKT_ECANCELED || count == 0) return err;
    nkti_ip_sort(env, all, count);
    if (count > cap) count = cap;
    memcpy(ips, all, (size_t)count * sizeof ips[0]);
    return count;
}

//==============================================================================
// MARK: @transport - what a connection stands on, open to your own
//
// Calls down the chain of links, with the rules that every link relies on: no
// bytes is the end of the stream, a send of nothing is an error, what a table
// is too short to have is absent. Input that was read before a link was pushed
// is handed up first, by a link that is put between.
//
// Below stands the socket transport: the descriptor itself is `self`. After a
// receive that did not fill the buffer, the kernel's queue was empty a moment
// ago; on a poller or a blocking handle the next receive says NKT_EAGAIN
// without asking, because the level-triggered wait will report what comes. That
// saves every exchange a system call.
//
// The connection itself is described here, because links point to it.
//==============================================================================

// What a connect has tried, kept for nkt_conn_report.
typedef struct nkti_connect_log {
    // As the report begins, up to its attempts.
    int32_t err, os_error, elapsed_ms;
    int32_t attempt_count;          // addresses in all
    int32_t lookup_err[2], lookup_ms[2];
    uint32_t kept;                  // how many of them are told below
    uint32_t target_size;           // of the target's text behind them; 0 = none
    // Behind it stand the attempts, then the text.
} nkti_connect_log;

static size_t nkti_connect_log_size(size_t kept, size_t target_size) {
    return sizeof(nkti_connect_log) + kept * sizeof(nkt_attempt) + target_size;
}

static nkt_attempt *nkti_connect_log_attempts(nkti_connect_log *log) {
    return (nkt_attempt *)(void *)(log + 1);
}

static char *nkti_connect_log_target(nkti_connect_log *log) {
    return (char *)(nkti_connect_log_attempts(log) + log->kept);
}

typedef struct nkti_queue {
    uint32_t head, tail, cap;
    // Behind it stand the bytes.
} nkti_queue;

// Of one idle connection in ten thousand this is all there is. Flags that one
// thread may write while another reads its own do not share a byte.
struct nkt_conn {
    nkti_handle handle;
    // What nearly every call looks at: near the front, the code is shorter.
    nkti_input *in;             // never NULL: nkti_no_input while there is none
    nkt_link *top;
    int16_t read_err, write_err;    // final: NKT_EOF, NKT_ERESET, ...
    bool connecting : 1;
    bool connect_news : 1;      // the race is over, and no poller has told
    bool : 0;
    bool cr_lines : 1;
    bool skip_lf : 1;           // a line ended with CR: an LF after it is part of that
    bool short_read : 1;        // the kernel had no more
    bool read_told : 1;         // the poller has told of the time-out
    bool recv_wait_tried : 1, recv_wait_works : 1;
    bool : 0;
    bool busy : 1;              // queue, flush or shutdown under way
    bool shut_asked : 1, shut_done : 1;
    bool write_told : 1;
    uint32_t canceled;          // atomic
    union {
        uint32_t in_recv;       // blocking, atomic: a thread waits for the socket alone
        nkti_turn turn;         // nonblocking
    } now;
    // Reading.
    uint64_t received;
    int64_t read_deadline;      // nonblocking only
    // Writing.
    nkti_queue *queue;          // nonblocking only
    size_t written;             // by the last call
    uint64_t sent;
    int64_t write_deadline;
    uint32_t write_need;        // room in the queue that somebody waits for
    // Settings.
    uint32_t line_max, message_max, queue_max;
    int32_t read_timeout_ms, write_timeout_ms;
    uint16_t keepalive_s;       // for systems that do not tell; up to 18 hours
    // State.
    int16_t connect_err;        // how the race ended
    int16_t os_error[2];        // reading, writing: no system's codes are longer
    nkt_link bottom;
};

static size_t nkti_unread(const nkt_conn *conn) {
    return conn->in->tail - conn->in->head;
}

static bool nkti_transport_is_valid(const nkt_transport *transport) {
    return transport != NULL && transport->size >= offsetof(nkt_transport, local) &&
           transport->recv != NULL && transport->send != NULL && transport->close != NULL;
}

#define NKTI_TRANSPORT_HAS(transport, field)                                              \
    ((transport)->size >= offsetof(nkt_transport, field) + sizeof((transport)->field) &&  \
     (transport)->field != NULL)

NKT_API ptrdiff_t nkt_link_recv(nkt_link *link, void *buf, size_t cap) {
    ptrdiff_t count = link->transport->recv(link, buf, cap);
    if (count > 0 && (size_t)count > cap) return NKT_EPROTO;
    return count != 0 ? count : (ptrdiff_t)NKT_EOF;
}

NKT_API ptrdiff_t nkt_link_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += pieces[i].len;
    ptrdiff_t sent = link->transport->send(link, pieces, count);
    if (sent == 0 || (sent > 0 && (size_t)sent > total)) return NKT_EPROTO;
    return sent;
}

NKT_API int nkt_link_shutdown_write(nkt_link *link) {
    if (link->transport->shutdown_write != NULL) return link->transport->shutdown_write(link);
    return link->below != NULL ? nkt_link_shutdown_write(link->below) : NKT_EUNSUPPORTED;
}

NKT_API int nkt_link_flush(nkt_link *link) {
    if (NKTI_TRANSPORT_HAS(link->transport, flush)) {
        int err = link->transport->flush(link);
        if (err < 0) return err;
    }
    return link->below != NULL ? nkt_link_flush(link->below) : NKT_OK;
}

NKT_API void nkt_link_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    if (link->transport->watch != NULL) link->transport->watch(link, want, out);
    else if (link->below != NULL) nkt_link_watch(link->below, want, out);
}

NKT_API int nkt_interest_add(nkt_interest *interest, nkt_fd fd, uint32_t events) {
    for (uint32_t i = 0; i < interest->count; i++) {
        if (interest->watches[i].fd != fd) continue;
        interest->watches[i].events |= events;
        return NKT_OK;
    }
    if (interest->count == NKT_WATCH_MAX) return NKT_ENOSPACE;
    nkt_watch *watch = &interest->watches[interest->count++];
    watch->fd = fd;
    watch->events = events;
    watch->ready = 0;
    return NKT_OK;
}

// --- Input that was read before a link was pushed ----------------------------

typedef struct nkti_held {
    size_t at, len;
    // Behind it stand the bytes.
} nkti_held;

static size_t nkti_held_size(size_t len) {
    return sizeof(nkti_held) + len;
}

static uint8_t *nkti_held_bytes(nkti_held *held) {
    return (uint8_t *)(held + 1);
}

static void nkti_held_close(nkt_link *link, bool abort) {
    nkti_held *held = (nkti_held *)link->self;
    (void)abort;
    if (held != NULL) nkti_free(link->conn->handle.env, held, nkti_held_size(held->len));
    link->self = NULL;
}

static ptrdiff_t nkti_held_recv(nkt_link *link, void *buf, size_t cap) {
    nkti_held *held = (nkti_held *)link->self;
    if (held == NULL) return nkt_link_recv(link->below, buf, cap);
    size_t count = held->len - held->at < cap ? held->len - held->at : cap;
    memcpy(buf, nkti_held_bytes(held) + held->at, count);
    held->at += count;
    if (held->at == held->len) nkti_held_close(link, false);
    return (ptrdiff_t)count;
}

static ptrdiff_t nkti_held_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    return nkt_link_send(link->below, pieces, count);
}

static void nkti_held_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    if ((want & NKT_READ) && link->self != NULL) out->ready = true;
    nkt_link_watch(link->below, want, out);
}

static const nkt_transport nkti_held_transport = {
    sizeof(nkt_transport), "held", nkti_held_recv, nkti_held_send, NULL, nkti_held_watch,
    nkti_held_close, NULL, NULL, NULL, NULL,
};

// --- The socket transport ----------------------------------------------------

#define NKTI_EINTR_MAX 16       // tries of a call that cannot wait and says EINTR

static nkt_fd nkti_socket_fd(nkt_link *link) {
    return (nkt_fd)(intptr_t)link->self;
}

// Whether NKT_EAGAIN leads to a wait for input: the poller's, or at once that
// of a blocking handle.
static bool nkti_socket_is_told(const nkt_conn *conn) {
    return !conn->handle.nonblocking || (conn->handle.watch.events & NKT_READ) != 0;
}

NKTI_INLINE ptrdiff_t nkti_socket_recv(nkt_link *link, void *buf, size_t cap) {
    nkt_conn *conn = link->conn;
    nkt_env *env = conn->handle.env;
    if (conn->short_read) {
        conn->short_read = false;
        if (nkti_socket_is_told(conn)) return NKT_EAGAIN;
    }
    ptrdiff_t count = NKT_EINTR;
    for (int i = 0; i < NKTI_EINTR_MAX && count == NKT_EINTR; i++) {
        count = nkti_core_recv(env, nkti_socket_fd(link), buf, cap);
    }
    if (count > 0) {
        conn->short_read = (size_t)count < cap && nkti_socket_is_told(conn);
    } else if (count == NKT_EINTR) {
        count = NKT_EAGAIN;
    } else if (count != NKT_EAGAIN && count != NKT_EOF) {
        conn->os_error[0] = (int16_t)env->core->last_error(env);
    }
    return count;
}

NKTI_INLINE ptrdiff_t nkti_socket_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    nkt_conn *conn = link->conn;
    nkt_env *env = conn->handle.env;
    ptrdiff_t sent = NKT_EINTR;
    for (int i = 0; i < NKTI_EINTR_MAX && sent == NKT_EINTR; i++) {
        sent = nkti_core_send(env, nkti_socket_fd(link), pieces, count);
    }
    if (sent == NKT_EINTR) return NKT_EAGAIN;
    if (sent < 0 && sent != NKT_EAGAIN) conn->os_error[1] = (int16_t)env->core->last_error(env);
    return sent;
}

static int nkti_socket_shutdown_write(nkt_link *link) {
    nkt_env *env = link->conn->handle.env;
    int err = env->core->shutdown(env, nkti_socket_fd(link), NKT_WRITE);
    if (err < 0) link->conn->os_error[1] = (int16_t)env->core->last_error(env);
    return err;
}

static void nkti_socket_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    nkt_interest_add(out, nkti_socket_fd(link), want);
}

static void nkti_socket_close(nkt_link *link, bool abort) {
    nkt_env *env = link->conn->handle.env;
    if (nkti_socket_fd(link) == NKT_NO_FD) return;      // its connect has failed
    // A forked child must not reset its parent's connection.
    if (abort && !nkti_forked(&link->conn->handle)) {
        env->core->set_option(env, nkti_socket_fd(link), NKT_SO_ABORT_ON_CLOSE, 1);
    }
    env->core->close(env, nkti_socket_fd(link));
}

static int nkti_socket_local(nkt_link *link, nkt_addr *addr) {
    return nkti_fd_name(link->conn->handle.env, nkti_socket_fd(link), false, addr);
}

static int nkti_socket_peer(nkt_link *link, nkt_addr *addr) {
    return nkti_fd_name(link->conn->handle.env, nkti_socket_fd(link), true, addr);
}

static const nkt_transport nkti_socket_transport = {
    sizeof(nkt_transport), "socket", nkti_socket_recv, nkti_socket_send,
    nkti_socket_shutdown_write, nkti_socket_watch, nkti_socket_close, nkti_socket_local,
    nkti_socket_peer, nkti_socket_fd, NULL,
};

// Whether a link's functions may be called without its table.
NKTI_INLINE bool nkti_is_direct(const nkt_link *link) {
    return NKTI_DIRECT && link->transport == &nkti_socket_transport;
}

//==============================================================================
// MARK: @conn - a connected byte stream
//
// Every function is one loop: try; on NKT_EAGAIN wait if the handle is a
// blocking one, else leave; try again.
//
//     blocking      try -> EAGAIN -> nkti_conn_wait -> try ...
//     nonblocking   try -> EAGAIN -> nkti_read_again: buffer given back,
//                                    time-out begun, asleep on the poller
//
// Here stands what both directions need: the queue and who pushes it, one wait,
// the read buffer, opening and closing. See nkti_conn_room for how room is made
// in the buffer and nkti_conn_park for what becomes of it while the connection
// sleeps.
//==============================================================================

#define NKTI_SMALL_MAX 8192         // longer beginnings keep a buffer of their own
#define NKTI_DIRECT_MIN 16384       // reads of this much bypass the buffer
#define NKTI_OUT_OF_TURN (-1000)    // enough received until the poller's next wait

enum { NKTI_PROGRESS_NONE, NKTI_PROGRESS_EXACT, NKTI_PROGRESS_SKIP,
       NKTI_PROGRESS_SKIP_LINE, NKTI_PROGRESS_UNTIL };

// --- What the poller asks ----------------------------------------------------

static void nkti_conn_want(nkt_conn *conn, uint32_t want, nkt_interest *out) {
    if (nkti_atomic_load(&conn->canceled) != 0) {
        out->ready = true;
        return;
    }
    if (conn->connecting) {
        nkt_link_watch(conn->top, NKT_READ | NKT_WRITE, out);
        return;
    }
    uint32_t events = 0;
    if ((want & NKT_READ) && conn->read_err == 0) events |= NKT_READ;
    if ((want & NKT_WRITE) && conn->write_err == 0) events |= NKT_WRITE;
    // A link may have something to do that nobody waits for.
    if (events != 0 || conn->top != &conn->bottom) nkt_link_watch(conn->top, events, out);
}

static void nkti_conn_want_deadlines(nkt_conn *conn, uint32_t want, nkt_interest *out) {
    if (want & NKT_READ) out->deadline_ns = nkti_min_time(out->deadline_ns, conn->read_deadline);
    if (want & NKT_WRITE) out->deadline_ns = nkti_min_time(out->deadline_ns, conn->write_deadline);
}

static void nkti_conn_interest(nkti_handle *handle, nkt_interest *out) {
    nkt_conn *conn = (nkt_conn *)(void *)handle;
    uint32_t want = handle->want;
    nkti_conn_want_deadlines(conn, want & ~(uint32_t)((conn->read_told ? NKT_READ : 0) |
                                                      (conn->write_told ? NKT_WRITE : 0)), out);
    if (!conn->busy) want &= ~(uint32_t)NKT_WRITE;
    nkti_conn_want(conn, want, out);
    // What is ready for a connect is no news for the reader: the poller is
    // posted, and drives it.
    if (conn->connecting && nkti_atomic_load(&conn->canceled) == 0) out->ready = false;
}

static void nkti_conn_trace(nkt_conn *conn, const char *state, int err, int64_t detail) {
    nkti_trace(conn->handle.env, conn, "conn", state, err, detail);
}

// A failure of one direction, 0 reading or 1 writing, with the system's code.
static void nkti_conn_trace_failure(nkt_conn *conn, const char *state, int err, int direction,
                                    int64_t detail) {
    nkti_trace_os(conn->handle.env, conn, "conn", state, err, conn->os_error[direction], detail);
}

// A registration that the system refuses cannot be waited for any more.
static void nkti_conn_update(nkt_conn *conn) {
    int err = nkti_handle_update(&conn->handle);
    if (err >= 0 || conn->read_err != 0) return;
    conn->read_err = conn->write_err = (int16_t)err;
    nkti_handle_ready(&conn->handle, NKT_READ);
}

// --- The queue ---------------------------------------------------------------

static size_t nkti_queue_size(size_t cap) {
    return sizeof(nkti_queue) + cap;
}

static uint8_t *nkti_queue_bytes(nkti_queue *queue) {
    return (uint8_t *)(queue + 1);
}

static size_t nkti_queue_len(const nkti_queue *queue) {
    return queue == NULL ? 0 : queue->tail - queue->head;
}

static void nkti_queue_free(nkt_conn *conn) {
    nkti_queue *queue = conn->queue;
    if (queue == NULL) return;
    nkti_free(conn->handle.env, queue, nkti_queue_size(queue->cap));
    conn->queue = NULL;
}

// Makes room for `len` more bytes, which the caller has checked against
// queue_max.
static int nkti_queue_reserve(nkt_conn *conn, size_t len) {
    nkti_queue *queue = conn->queue;
    size_t used = nkti_queue_len(queue);
    if (queue != NULL && queue->cap - queue->tail >= len) return NKT_OK;
    if (queue != NULL && queue->cap - used >= len &&
        (queue->head >= used || queue->cap > NKT_SIZE_LIMIT)) {
        memmove(nkti_queue_bytes(queue), nkti_queue_bytes(queue) + queue->head, used);
        queue->head = 0;
        queue->tail = (uint32_t)used;
        return NKT_OK;
    }
    size_t cap = queue == NULL ? 1024 : (size_t)queue->cap * 2;
    while (cap < used + len) cap *= 2;
    nkti_queue *grown = (nkti_queue *)nkti_resize(conn->handle.env, NULL, 0,
                                                  nkti_queue_size(cap));
    if (grown == NULL) return NKT_ENOMEM;
    if (used > 0) memcpy(nkti_queue_bytes(grown), nkti_queue_bytes(queue) + queue->head, used);
    grown->head = 0;
    grown->tail = (uint32_t)used;
    grown->cap = (uint32_t)cap;
    nkti_queue_free(conn);
    conn->queue = grown;
    return NKT_OK;
}

static void nkti_write_failed(nkt_conn *conn, int err) {
    if (conn->write_err != 0 || err == NKT_ENOMEM) return;     // memory may come back
    conn->write_err = (int16_t)err;
    conn->write_deadline = NKT_NEVER;
    nkti_conn_trace_failure(conn, "write failed", err, 1,
                            (int64_t)nkti_queue_len(conn->queue));
}

// What is under way behind the user's back, as far as it goes now: the queue,
// what links hold back, the shutdown that was asked for.
static void nkti_push(nkt_conn *conn) {
    int err = conn->write_err;
    while (err == 0 && nkti_queue_len(conn->queue) > 0) {
        nkti_queue *queue = conn->queue;
        nkt_str rest;
        rest.ptr = (const char *)nkti_queue_bytes(queue) + queue->head;
        rest.len = queue->tail - queue->head;
        ptrdiff_t sent = nkt_link_send(conn->top, &rest, 1);
        if (sent < 0) err = (int)sent;
        else {
            queue->head += (uint32_t)sent;
            conn->sent += (uint64_t)sent;
        }
    }
    if (err == 0) {
        nkti_queue_free(conn);
        err = nkt_link_flush(conn->top);
    }
    if (err == 0 && conn->shut_asked && !conn->shut_done) {
        err = nkt_link_shutdown_write(conn->top);
        conn->shut_done = err >= 0;
        if (err >= 0) nkti_conn_trace(conn, "shutdown", NKT_OK, 0);
    }
    if (err < 0 && err != NKT_EAGAIN) nkti_write_failed(conn, err);
    conn->busy = err == NKT_EAGAIN || err == NKT_ENOMEM;
}

// After a push: tells who waits for room, and what the poller waits for now.
static void nkti_pushed(nkt_conn *conn, bool was_busy) {
    size_t queued = nkti_queue_len(conn->queue);
    size_t room = queued < conn->queue_max ? conn->queue_max - queued : 0;
    bool whole = conn->write_need >= conn->queue_max;   // a flush: all of it must be gone
    bool enough = conn->write_err != 0 || (whole ? !conn->busy : room >= conn->write_need);
    if (conn->write_need > 0 && enough) {
        conn->write_need = 0;
        conn->write_deadline = NKT_NEVER;
        nkti_handle_ready(&conn->handle, NKT_WRITE);
    }
    if (was_busy != conn->busy) nkti_conn_update(conn);
}

// Calls on a nonblocking handle get on with what is under way, unless the
// poller will be told when it can go on.
static void nkti_conn_step(nkt_conn *conn) {
    if (!conn->handle.nonblocking || !conn->busy) return;
    if ((conn->handle.watch.events & NKT_WRITE) && !conn->connecting) return;
    nkti_push(conn);
    nkti_pushed(conn, true);
}

// A link's own deadline, when it has come, is news for the reader; so is room
// to write, where the link needs that in order to read.
static void nkti_conn_tell_link(nkt_conn *conn, uint32_t ready, int64_t now) {
    nkt_interest interest;
    nkti_interest_clear(&interest);
    nkti_conn_want(conn, conn->handle.want & NKT_READ, &interest);
    bool news = now >= interest.deadline_ns;
    for (uint32_t i = 0; i < interest.count && !conn->connecting; i++) {
        news = news || (interest.watches[i].events & ready) != 0;
    }
    if (news) nkti_handle_ready(&conn->handle, NKT_READ);
}

static void nkti_conn_drive(nkti_handle *handle, uint32_t ready, int64_t now) {
    nkt_conn *conn = (nkt_conn *)(void *)handle;
    if (ready == NKT_READ && !conn->busy && !conn->connecting) {
        conn->short_read = false;
        nkti_handle_ready(handle, NKT_READ);
        return;
    }
    bool was_connecting = conn->connecting;
    if ((conn->busy && (handle->want & NKT_WRITE)) || was_connecting) nkti_push(conn);
    if (!was_connecting && (ready & NKT_READ)) {
        conn->short_read = false;
        nkti_handle_ready(handle, NKT_READ);
    }
    if (nkti_atomic_load(&conn->canceled) != 0) nkti_handle_ready(handle, NKT_READ | NKT_WRITE);
    // A time-out is told once; the call that it is for may be long in coming.
    if (now >= conn->read_deadline && !conn->read_told && (handle->want & NKT_READ)) {
        conn->read_told = true;
        nkti_handle_ready(handle, NKT_READ);
    }
    if (now >= conn->write_deadline && !conn->write_told && (handle->want & NKT_WRITE)) {
        conn->write_told = true;
        nkti_handle_ready(handle, NKT_WRITE);
    }
    nkti_pushed(conn, conn->busy);
    if ((ready & NKT_READ) == 0) nkti_conn_tell_link(conn, ready, now);
    nkti_conn_update(conn);
}

static const nkti_handle_ops nkti_conn_ops = { "conn", nkti_conn_drive, nkti_conn_interest };

// While it is on no poller nobody drives it, and a program without one need not
// have the code.
static const nkti_handle_ops nkti_conn_alone = { "conn", NULL, NULL };

// The race is over, well or badly.
static void nkti_conn_tell_connected(nkt_conn *conn) {
    if (!conn->connect_news || conn->handle.poller == NULL) return;
    conn->connect_news = false;
    nkti_handle_ready(&conn->handle, NKT_CONNECTED |
                                     (uint32_t)(conn->read_err != 0 ? NKT_READ : 0));
}

// No descriptor tells of what is in the buffer already, or of an end that was
// seen while something was.
static void nkti_conn_tell_buffered(nkt_conn *conn) {
    if (nkti_unread(conn) > 0 || conn->read_err != 0) {
        nkti_handle_ready(&conn->handle, NKT_READ);
    }
}

NKT_API int nkt_poller_add_conn(nkt_poller *poller, nkt_conn *conn, void *user) {
    conn->handle.ops = &nkti_conn_ops;
    bool bare = conn->top == &conn->bottom && conn->bottom.transport == &nkti_socket_transport;
    if (conn->handle.poller == NULL) {
        conn->handle.untimed = bare && conn->read_timeout_ms <= 0 && conn->write_timeout_ms <= 0;
    }
    int err = nkti_handle_join(poller, &conn->handle, NKT_READ | NKT_WRITE, user);
    if (err < 0) return err;
    // What came before there was a poller to post it to is told now.
    if (conn->connecting) nkti_conn_drive(&conn->handle, 0, nkti_now(poller->env));
    nkti_conn_tell_connected(conn);
    nkti_conn_tell_buffered(conn);
    return NKT_OK;
}

NKT_API int nkt_poller_want(nkt_poller *poller, nkt_conn *conn, uint32_t events) {
    uint32_t before = conn->handle.want;
    int err = nkti_handle_want(poller, &conn->handle, events);
    if (err < 0) return err;
    if (events & ~before & NKT_WRITE) nkti_conn_step(conn);
    if (events & ~before & NKT_READ) nkti_conn_tell_buffered(conn);
    return NKT_OK;
}

// --- Waiting -----------------------------------------------------------------

static int nkti_conn_deadline(nkt_conn *conn, uint32_t direction, int64_t *deadline) {
    return nkti_handle_deadline(&conn->handle, direction == NKT_READ ? conn->read_timeout_ms
                                : conn->write_timeout_ms, deadline);
}

// Waits for input without a waiter, which would be a lock and one more
// descriptor to poll: interrupting shuts the socket down, as it does where a
// thread is inside recv_wait.
static int nkti_wait_bare(nkt_conn *conn, int64_t deadline) {
    nkt_env *env = conn->handle.env;
    nkt_watch watch;
    int result = NKT_ECANCELED;
    watch.fd = nkti_socket_fd(&conn->bottom);
    watch.events = NKT_READ;
    watch.ready = 0;
    nkti_atomic_store(&conn->now.in_recv, 1);
    if (nkti_atomic_load(&conn->canceled) == 0) {
        result = nkti_os_wait(env, &watch, 1, nkti_until(nkti_now(env), deadline));
    }
    nkti_atomic_store(&conn->now.in_recv, 0);
    return result < 0 ? result : NKT_OK;
}

// One wait of a blocking handle. `deadline` belongs to the caller's whole call.
static int nkti_conn_wait(nkt_conn *conn, uint32_t direction, int64_t *deadline) {
    nkt_env *env = conn->handle.env;
    nkti_waiter **place = &conn->handle.at.waiters[direction == NKT_WRITE];
    nkt_interest interest;
    int err = nkti_conn_deadline(conn, direction, deadline);
    if (err < 0) return err;
    // What another environment's shutdown does to its wait is not known.
    if (direction == NKT_READ && nkti_is_direct(conn->top) && env->core == &nkti_os_core &&
        env->core->recv_wait != NULL && (conn->recv_wait_works || !conn->recv_wait_tried)) {
        return nkti_wait_bare(conn, *deadline);
    }
    nkti_interest_clear(&interest);
    err = nkti_wait_begin(env, place, &conn->canceled);
    if (err < 0) return err;
    nkt_link_watch(conn->top, conn->connecting ? NKT_READ | NKT_WRITE : direction, &interest);
    return nkti_wait_end(env, place, &interest, *deadline);
}

// --- The read buffer ---------------------------------------------------------

// What a connection has that has nothing: read, but never written to.
static const nkti_input nkti_no_input = { NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 };

static nkti_input *nkti_input_none(void) {
    return (nkti_input *)(uintptr_t)&nkti_no_input;
}

static nkti_input *nkti_input_own(nkt_env *env, size_t cap, int kind) {
    nkti_input *in = (nkti_input *)nkti_resize(env, NULL, 0, sizeof *in + cap);
    if (in == NULL) return NULL;
    memset(in, 0, sizeof *in);
    in->bytes = (uint8_t *)(in + 1);
    in->cap = (uint32_t)cap;
    in->kind = (uint8_t)kind;
    return in;
}

static void nkti_input_free(nkt_conn *conn) {
    nkti_input *in = conn->in;
    nkti_handle *handle = &conn->handle;
    if (in->kind == NKTI_INPUT_LENT) nkti_lent_give(handle->env, handle->poller, in);
    else if (in->kind != NKTI_INPUT_NONE) nkti_free(handle->env, in, sizeof *in + in->cap);
    conn->in = nkti_input_none();
}

// Of one without anything unread: what was consumed is not what stands before
// the next byte of the stream any more.
static void nkti_input_forget(nkti_input *in) {
    if (in->kind == NKTI_INPUT_NONE) return;
    in->head = in->tail = in->scan = in->lf_first = 0;
    in->mask = 0;
}

// Moves what is unread to the front of `to`, which may be the same one.
static void nkti_input_move(nkt_conn *conn, nkti_input *to) {
    nkti_input *from = conn->in;
    uint32_t shift = from->head;
    uint32_t unread = from->tail - shift;
    const uint8_t *bytes = unread > 0 ? from->bytes + shift : NULL;
    if (to->kind == NKTI_INPUT_LENT) nkti_lent_begin(to, unread);
    if (unread > 0) memmove(to->bytes, bytes, unread);
    to->mask = from->mask;
    to->scan = from->scan - shift;
    to->long_lines = from->long_lines;
    to->head = 0;
    to->lf_first = 0;
    to->tail = unread;
    to->progress = from->progress;
    to->progress_of = from->progress_of;
    to->until_hash = from->until_hash;
    if (to == from) return;
    nkti_input_free(conn);
    conn->in = to;
}

// Makes room behind `tail`. What is small goes into a lent block; what fills
// that grows by doubling, so that each byte is moved a bounded number of times
// however slowly it comes. Callers bound what they wait for.
static int nkti_conn_room(nkt_conn *conn) {
    nkt_env *env = conn->handle.env;
    nkti_input *in = conn->in, *to = in;
    size_t unread = nkti_unread(conn);
    bool is_lent = in->kind == NKTI_INPUT_LENT;
    if (unread == 0) nkti_input_forget(in);
    if (unread == 0 && is_lent) {
        nkti_lent_begin(in, 0);
        return NKT_OK;
    }
    bool gains = unread < NKTI_PAGE && in->cap - in->tail < NKTI_LENT_SIZE / 2;
    if (in->kind <= NKTI_INPUT_SMALL || unread == 0) {
        to = nkti_lent_take(env, conn->handle.poller);
    } else if (is_lent && gains) {
        to = in;
    } else if (in->cap - in->tail > 1) {
        return NKT_OK;
    } else if (unread > in->cap / 2 && in->cap <= NKT_SIZE_LIMIT) {
        to = nkti_input_own(env, (size_t)in->cap * 2, NKTI_INPUT_OWN);
    }
    if (to == NULL) return NKT_ENOMEM;
    nkti_input_move(conn, to);
    return NKT_OK;
}

// A sleeping connection on a poller keeps no more than it must.
static void nkti_conn_park(nkt_conn *conn) {
    nkti_input *in = conn->in;
    size_t unread = nkti_unread(conn);
    if (in->kind <= NKTI_INPUT_SMALL) return;
    if (unread == 0 && in->progress == 0) {
        nkti_input_free(conn);
    } else if (unread <= NKTI_SMALL_MAX) {
        size_t cap = (unread + 64) & ~(size_t)63;
        nkti_input *fitting = nkti_input_own(conn->handle.env, cap, NKTI_INPUT_SMALL);
        if (fitting != NULL) nkti_input_move(conn, fitting);
    }
}

static void nkti_consume(nkti_input *in, size_t count) {
    in->head += (uint32_t)count;
    if (in->scan < in->head) {
        in->scan = in->head;
        in->mask = 0;
    } else if (in->scan - in->head < 64) {
        // `head` has moved inside the block that the mask describes.
        uint32_t left = in->scan - in->head;
        in->mask = left > 0 ? in->mask >> (64 - left) << (64 - left) : 0;
    }
}

// The LF of a CRLF whose CR has ended a line already.
static void nkti_skip_lf(nkt_conn *conn) {
    nkti_input *in = conn->in;
    if (!conn->skip_lf || in->head == in->tail) return;
    conn->skip_lf = false;
    if (in->bytes[in->head] != '\n') return;
    in->lf_first |= in->head == 0;
    nkti_consume(in, 1);
}

static size_t nkti_take(nkti_input *in, void *buf, size_t cap) {
    size_t count = in->tail - in->head;
    if (count > cap) count = cap;
    if (count == 0) return 0;
    if (buf != NULL) memcpy(buf, in->bytes + in->head, count);
    nkti_consume(in, count);
    return count;
}

// --- Opening and closing -----------------------------------------------------

// What an option of a stream must be, and its default.
static int nkti_limit(uint32_t *value, uint32_t standard, const char *field,
                      nkt_problem *problem) {
    if (*value == 0) *value = standard;
    if (*value <= NKT_SIZE_LIMIT) return NKT_OK;
    return nkti_problem_set(problem, NKT_EINVAL, field, -1, "the limit is above NKT_SIZE_LIMIT");
}

static int nkti_stream_check(const nkt_stream_opts *given, nkt_stream_opts *stream,
                             nkt_problem *problem) {
    memset(stream, 0, sizeof *stream);
    if (given != NULL) *stream = *given;
    int err = nkti_limit(&stream->line_max, NKT_LINE_MAX_DEFAULT, "line_max", problem);
    if (err < 0) return err;
    err = nkti_limit(&stream->message_max, NKT_MESSAGE_MAX_DEFAULT, "message_max", problem);
    if (err < 0) return err;
    err = nkti_limit(&stream->queue_max, NKT_QUEUE_MAX_DEFAULT, "queue_max", problem);
    if (err < 0) return err;
    if (stream->send_buffer < 0 || stream->recv_buffer < 0) {
        return nkti_problem_set(problem, NKT_EINVAL, "send_buffer, recv_buffer", -1,
                                "a buffer size is negative");
    }
    return NKT_OK;
}

// Sets a socket as the options say. What a kind of socket does not have (a
// Unix-domain one has no Nagle to switch off) is not missed.
static void nkti_stream_apply(nkt_env *env, nkt_fd fd, const nkt_stream_opts *stream) {
    const nkt_sys_core *core = env->core;
    if (!stream->delay_small_writes) core->set_option(env, fd, NKT_SO_NODELAY, 1);
    if (stream->keepalive_s > 0) {
        core->set_option(env, fd, NKT_SO_KEEPALIVE_S, stream->keepalive_s);
    }
    if (stream->send_buffer > 0) {
        core->set_option(env, fd, NKT_SO_SEND_BUFFER, stream->send_buffer);
    }
    if (stream->recv_buffer > 0) {
        core->set_option(env, fd, NKT_SO_RECV_BUFFER, stream->recv_buffer);
    }
}

static void nkti_keep_keepalive(nkt_conn *conn, int32_t seconds) {
    conn->keepalive_s = (uint16_t)(seconds <= 0 ? 0 : seconds > UINT16_MAX ? UINT16_MAX : seconds);
}

static nkt_conn *nkti_conn_new(nkt_env *env, bool nonblocking, const nkt_stream_opts *stream,
                               const nkt_transport *transport, void *self) {
    nkt_conn *conn = (nkt_conn *)nkti_alloc(env, sizeof *conn);
    if (conn == NULL) return NULL;
    nkti_handle_init(&conn->handle, env, &nkti_conn_alone, nonblocking);
    conn->in = nkti_input_none();
    conn->top = &conn->bottom;
    conn->bottom.transport = transport;
    conn->bottom.self = self;
    conn->bottom.conn = conn;
    conn->read_deadline = conn->write_deadline = NKT_NEVER;
    conn->line_max = stream->line_max;
    conn->message_max = stream->message_max;
    conn->queue_max = stream->queue_max;
    conn->read_timeout_ms = stream->read_timeout_ms;
    conn->write_timeout_ms = stream->write_timeout_ms;
    nkti_keep_keepalive(conn, stream->keepalive_s);
    conn->cr_lines = stream->cr_lines;
    return conn;
}

// A connection on a descriptor that netkit has opened itself.
static nkt_conn *nkti_conn_new_socket(nkt_env *env, bool nonblocking,
                                      const nkt_stream_opts *stream, nkt_fd fd) {
    nkt_conn *conn = nkti_conn_new(env, nonblocking, stream, &nkti_socket_transport,
                                   (void *)(intptr_t)fd);
    if (conn != NULL) nkti_conn_trace(conn, "open", NKT_OK, fd);
    return conn;
}

static nkti_connect_log *nkti_conn_log(const nkt_conn *conn) {
    return conn->handle.extra == NULL ? NULL : (nkti_connect_log *)conn->handle.extra->log;
}

static void nkti_connect_log_free(nkt_conn *conn) {
    nkti_connect_log *log = nkti_conn_log(conn);
    if (log == NULL) return;
    nkti_free(conn->handle.env, log, nkti_connect_log_size(log->kept, log->target_size));
    conn->handle.extra->log = NULL;
    nkti_handle_free_more(&conn->handle);
}

// Frees everything but what the links stand on.
static void nkti_conn_free(nkt_conn *conn) {
    nkt_env *env = conn->handle.env;
    nkti_connect_log_free(conn);
    nkti_input_free(conn);
    nkti_queue_free(conn);
    nkti_free(env, conn, sizeof *conn);
}

// Shutting a socket for reading wakes who waits for it in the families that are
// known here, and TIPC, for one, refuses that: nobody waits there without a
// wake-up beside.
static bool nkti_is_odd(nkt_env *env, nkt_fd fd) {
    int64_t family = 0;
    return env->core->get_option(env, fd, NKT_SO_FAMILY, &family) < 0 || family == 0;
}

NKT_API int nkt_conn_adopt(nkt_fd fd, const nkt_conn_opts *opts, nkt_conn **out) {
    nkt_stream_opts stream;
    nkt_env *env = nkti_env_use(opts != NULL ? opts->env : NULL);
    int64_t type = 0, listening = 0;
    if (env == NULL) return NKT_EINVAL;
    int err = nkti_stream_check(opts != NULL ? &opts->stream : NULL, &stream, NULL);
    if (err < 0) return err;
    if (env->core->get_option(env, fd, NKT_SO_TYPE, &type) < 0 || type != 1) return NKT_ENOTSOCK;
    if (env->core->get_option(env, fd, NKT_SO_LISTENING, &listening) >= 0 && listening != 0) {
        return NKT_ENOTSOCK;
    }
    union { uint64_t align; char room[NKT_SOCKADDR_MAX]; } name;
    size_t len = sizeof name;
    if (env->core->peer_name(env, fd, &name, &len) < 0) return NKT_ENOTCONN;
    nkt_conn *conn = nkti_conn_new_socket(env, opts != NULL && opts->nonblocking, &stream, fd);
    if (conn == NULL) return NKT_ENOMEM;
    conn->recv_wait_tried = nkti_is_odd(env, fd);
    err = env->core->set_blocking(env, fd, false);
    if (err < 0) {
        nkti_conn_free(conn);
        return err;
    }
    env->core->set_option(env, fd, NKT_SO_PREPARE, 1);
    nkti_stream_apply(env, fd, &stream);
    *out = conn;
    return NKT_OK;
}

NKT_API int nkt_conn_open_custom(const nkt_transport *transport, void *self,
                                 const nkt_conn_opts *opts, nkt_conn **out) {
    nkt_stream_opts stream;
    nkt_env *env = nkti_env_use(opts != NULL ? opts->env : NULL);
    if (env == NULL || !nkti_transport_is_valid(transport)) return NKT_EINVAL;
    int err = nkti_stream_check(opts != NULL ? &opts->stream : NULL, &stream, NULL);
    if (err < 0) return err;
    nkt_conn *conn = nkti_conn_new(env, opts != NULL && opts->nonblocking, &stream, transport,
                                   self);
    if (conn == NULL) return NKT_ENOMEM;
    nkti_conn_trace(conn, "open", NKT_OK, 0);
    *out = conn;
    return NKT_OK;
}

static nkt_link *nkti_link_new(nkt_conn *conn, const nkt_transport *transport, void *self) {
    nkt_link *link = (nkt_link *)nkti_alloc(conn->handle.env, sizeof *link);
    if (link == NULL) return NULL;
    link->transport = transport;
    link->self = self;
    link->below = conn->top;
    link->conn = conn;
    return link;
}

// Hands what is unread to a link of its own, under the one to be pushed.
static int nkti_conn_hold(nkt_conn *conn) {
    nkt_env *env = conn->handle.env;
    size_t unread = nkti_unread(conn);
    if (unread == 0) return NKT_OK;
    nkti_held *held = (nkti_held *)nkti_resize(env, NULL, 0, nkti_held_size(unread));
    nkt_link *link = held == NULL ? NULL : nkti_link_new(conn, &nkti_held_transport, held);
    if (link == NULL) {
        nkti_free(env, held, nkti_held_size(unread));
        return NKT_ENOMEM;
    }
    held->at = 0;
    held->len = unread;
    nkti_take(conn->in, nkti_held_bytes(held), unread);
    conn->top = link;
    return NKT_OK;
}

NKT_API int nkt_conn_push(nkt_conn *conn, const nkt_transport *transport, void *self) {
    size_t unread = nkti_unread(conn);
    if (!nkti_transport_is_valid(transport)) return NKT_EINVAL;
    if (conn->read_err != 0 && conn->read_err != NKT_EOF) return conn->read_err;
    nkti_conn_step(conn);
    if (conn->queue != NULL || (conn->busy && !conn->connecting)) return NKT_EAGAIN;
    if (nkti_handle_set_timed(&conn->handle) < 0) return NKT_ENOMEM;
    nkt_link *link = nkti_link_new(conn, transport, self);
    if (link == NULL) return NKT_ENOMEM;
    if (nkti_conn_hold(conn) < 0) {
        nkti_free(conn->handle.env, link, sizeof *link);
        return NKT_ENOMEM;
    }
    nkti_input_forget(conn->in);
    link->below = conn->top;
    conn->top = link;
    conn->skip_lf = false;
    conn->read_err = 0;             // the link below says again that it has ended
    nkti_conn_trace(conn, "pushed", NKT_OK, (int64_t)unread);
    nkti_conn_update(conn);
    return NKT_OK;
}

NKT_API void nkt_conn_notify(nkt_conn *conn) {
    nkt_env *env = conn->handle.env;
    nkti_lock(env);
    nkti_handle_rouse(&conn->handle);
    nkti_unlock(env);
}

NKT_API void nkt_conn_interrupt(nkt_conn *conn) {
    nkt_env *env = conn->handle.env;
    nkti_lock(env);
    uint32_t before = nkti_atomic_exchange(&conn->canceled, 1);
    if (before == 0 && !conn->handle.nonblocking && nkti_atomic_load(&conn->now.in_recv) != 0) {
        env->core->shutdown(env, nkti_socket_fd(&conn->bottom), NKT_READ);
    }
    nkti_handle_rouse(&conn->handle);
    nkti_unlock(env);
    // By now its owner may have closed it: only the pointer is told.
    if (before == 0) nkti_trace(env, conn, "conn", "interrupted", NKT_ECANCELED, 0);
}

// Ends the links and frees everything.
static void nkti_conn_unlink(nkt_conn *conn, bool abort) {
    nkt_env *env = conn->handle.env;
    while (conn->top != &conn->bottom) {
        nkt_link *link = conn->top;
        conn->top = link->below;
        link->transport->close(link, abort);
        nkti_free(env, link, sizeof *link);
    }
    conn->bottom.transport->close(&conn->bottom, abort);
    nkti_conn_free(conn);
}

static size_t nkti_conn_end(nkt_conn *conn, bool abort) {
    if (conn == NULL) return 0;
    nkt_env *env = conn->handle.env;
    size_t discarded = nkti_queue_len(conn->queue);
    nkti_settle(&conn->handle, &conn->canceled);
    nkti_input_free(conn);
    nkti_handle_leave(&conn->handle);
    nkti_conn_trace(conn, abort ? "aborted" : "closed", NKT_OK, (int64_t)discarded);
    bool (*linger)(nkti_handle *handle) = nkti_state(env)->linger;
    if (abort || linger == NULL || !linger(&conn->handle)) nkti_conn_unlink(conn, abort);
    return discarded;
}

NKT_API size_t nkt_conn_close(nkt_conn *conn) {
    return nkti_conn_end(conn, false);
}

NKT_API size_t nkt_conn_abort(nkt_conn *conn) {
    return nkti_conn_end(conn, true);
}

NKT_API int nkt_conn_detach(nkt_conn *conn, nkt_fd *fd) {
    nkt_env *env = conn->handle.env;
    nkti_conn_step(conn);
    if (conn->connecting || conn->busy || nkti_unread(conn) > 0) return NKT_EBUSY;
    if (conn->bottom.transport != &nkti_socket_transport || conn->top != &conn->bottom) {
        return NKT_EUNSUPPORTED;
    }
    nkt_fd detached = nkti_socket_fd(&conn->bottom);
    if (detached == NKT_NO_FD) return NKT_ENOTCONN;
    nkti_settle(&conn->handle, &conn->canceled);
    int err = env->core->set_blocking(env, detached, true);
    if (err < 0) return err;
    if (conn->recv_wait_works) env->core->set_option(env, detached, NKT_SO_RECV_WAIT, 0);
    nkti_handle_leave(&conn->handle);
    nkti_conn_trace(conn, "detached", NKT_OK, detached);
    nkti_conn_free(conn);
    *fd = detached;
    return NKT_OK;
}

// --- Asking and setting ------------------------------------------------------

NKT_API int nkt_conn_local(nkt_conn *conn, nkt_addr *addr) {
    if (conn->connecting) return NKT_ENOTCONN;
    for (nkt_link *link = conn->top; link != NULL; link = link->below) {
        if (NKTI_TRANSPORT_HAS(link->transport, local)) return link->transport->local(link, addr);
    }
    memset(addr, 0, sizeof *addr);
    return NKT_OK;
}

NKT_API int nkt_conn_peer(nkt_conn *conn, nkt_addr *addr) {
    if (conn->connecting) return NKT_ENOTCONN;
    for (nkt_link *link = conn->top; link != NULL; link = link->below) {
        if (NKTI_TRANSPORT_HAS(link->transport, peer)) return link->transport->peer(link, addr);
    }
    memset(addr, 0, sizeof *addr);
    return NKT_OK;
}

NKT_API int nkt_conn_peer_name(nkt_conn *conn, char *buf, size_t cap) {
    nkt_addr addr;
    memset(&addr, 0, sizeof addr);
    int err = nkt_conn_peer(conn, &addr);
    if (err >= 0 && addr.ip.family != 0) return nkt_addr_format(&addr, buf, cap);
    const nkt_transport *transport = conn->bottom.transport;
    nkti_text text = nkti_text_begin(buf, cap);
    nkti_text_str(&text, err < 0 ? "not connected"
                         : transport == &nkti_socket_transport ? "unix" : transport->name);
    return text.cut ? NKT_ENOSPACE : (int)text.len;
}

NKT_API nkt_fd nkt_conn_descriptor(nkt_conn *conn) {
    for (nkt_link *link = conn->top; link != NULL; link = link->below) {
        if (NKTI_TRANSPORT_HAS(link->transport, descriptor)) {
            return link->transport->descriptor(link);
        }
    }
    return NKT_NO_FD;
}

NKT_API int32_t nkt_conn_os_error(const nkt_conn *conn) {
    return conn->os_error[0] != 0 ? conn->os_error[0] : conn->os_error[1];
}

NKT_API int nkt_conn_watch(nkt_conn *conn, uint32_t want, nkt_interest *interest) {
    nkti_interest_clear(interest);
    nkti_conn_want_deadlines(conn, want, interest);
    // The queue wants to be sent whatever the user waits for.
    nkti_conn_want(conn, want | (uint32_t)(conn->busy ? NKT_WRITE : 0), interest);
    // Nothing more comes from below after an end, and a call tells it at once.
    if ((want & NKT_READ) && conn->read_err != 0) interest->ready = true;
    if ((want & NKT_WRITE) && conn->write_err != 0) interest->ready = true;
    return NKT_OK;
}

NKT_API int nkt_conn_get_info(nkt_conn *conn, nkt_conn_info *info) {
    nkt_env *env = conn->handle.env;
    memset(info, 0, sizeof *info);
    info->received = conn->received;
    info->sent = conn->sent;
    info->buffered = nkti_unread(conn);
    info->queued = nkti_queue_len(conn->queue);
    info->tcp.rtt_us = info->tcp.rtt_var_us = info->tcp.retransmits = -1;
    info->tcp.unacked_bytes = info->tcp.path_mtu = -1;
    if (conn->bottom.transport == &nkti_socket_transport) {
        env->core->tcp_info(env, nkti_socket_fd(&conn->bottom), &info->tcp);
    }
    return NKT_OK;
}

static void nkti_input_rescan(nkti_input *in) {
    if (in->kind == NKTI_INPUT_NONE) return;
    in->scan = in->head;
    in->mask = 0;
}

static int nkti_conn_set_limit(uint32_t *limit, int64_t value) {
    if (value < 1 || value > NKT_SIZE_LIMIT) return NKT_EINVAL;
    *limit = (uint32_t)value;
    return NKT_OK;
}

static int nkti_conn_set_timeout(nkt_conn *conn, int32_t *timeout_ms, int64_t *deadline,
                                 int64_t value) {
    if (value > INT32_MAX) return NKT_EINVAL;
    if (value > 0 && nkti_handle_set_timed(&conn->handle) < 0) return NKT_ENOMEM;
    *timeout_ms = value > 0 ? (int32_t)value : 0;
    *deadline = NKT_NEVER;
    return NKT_OK;
}

static int nkti_conn_sockopt(nkt_conn *conn, nkt_conn_option option) {
    int sockopt = NKT_EINVAL;
    switch ((int)option) {
    case NKT_OPT_KEEPALIVE_S: sockopt = NKT_SO_KEEPALIVE_S; break;
    case NKT_OPT_SEND_BUFFER: sockopt = NKT_SO_SEND_BUFFER; break;
    case NKT_OPT_RECV_BUFFER: sockopt = NKT_SO_RECV_BUFFER; break;
    case NKT_OPT_DELAY_SMALL_WRITES: sockopt = NKT_SO_NODELAY; break;
    default: return NKT_EINVAL;
    }
    if (conn->connecting) return NKT_EAGAIN;
    return conn->bottom.transport == &nkti_socket_transport ? sockopt : (int)NKT_EUNSUPPORTED;
}

NKT_API int nkt_conn_set_option(nkt_conn *conn, nkt_conn_option option, int64_t value) {
    nkt_env *env = conn->handle.env;
    switch ((int)option) {
    case NKT_OPT_READ_TIMEOUT_MS:
        return nkti_conn_set_timeout(conn, &conn->read_timeout_ms, &conn->read_deadline, value);
    case NKT_OPT_WRITE_TIMEOUT_MS:
        return nkti_conn_set_timeout(conn, &conn->write_timeout_ms, &conn->write_deadline, value);
    case NKT_OPT_LINE_MAX: return nkti_conn_set_limit(&conn->line_max, value);
    case NKT_OPT_MESSAGE_MAX: return nkti_conn_set_limit(&conn->message_max, value);
    case NKT_OPT_QUEUE_MAX: return nkti_conn_set_limit(&conn->queue_max, value);
    case NKT_OPT_CR_LINES:
        // What was scanned was scanned for the other rule.
        conn->cr_lines = value != 0;
        nkti_input_rescan(conn->in);
        return NKT_OK;
    case NKT_OPT_NONBLOCKING: return NKT_EINVAL;
    default: break;
    }
    int sockopt = nkti_conn_sockopt(conn, option);
    if (sockopt < 0) return sockopt;
    if (value < 0 || value > INT_MAX) return NKT_EINVAL;
    if (option == NKT_OPT_DELAY_SMALL_WRITES) value = value == 0;
    if (option == NKT_OPT_KEEPALIVE_S) nkti_keep_keepalive(conn, (int32_t)value);
    return env->core->set_option(env, nkti_socket_fd(&conn->bottom), sockopt, value);
}

NKT_API int nkt_conn_get_option(nkt_conn *conn, nkt_conn_option option, int64_t *value) {
    nkt_env *env = conn->handle.env;
    switch ((int)option) {
    case NKT_OPT_READ_TIMEOUT_MS: *value = conn->read_timeout_ms; return NKT_OK;
    case NKT_OPT_WRITE_TIMEOUT_MS: *value = conn->write_timeout_ms; return NKT_OK;
    case NKT_OPT_LINE_MAX: *value = conn->line_max; return NKT_OK;
    case NKT_OPT_MESSAGE_MAX: *value = conn->message_max; return NKT_OK;
    case NKT_OPT_QUEUE_MAX: *value = conn->queue_max; return NKT_OK;
    case NKT_OPT_CR_LINES: *value = conn->cr_lines; return NKT_OK;
    case NKT_OPT_NONBLOCKING: *value = conn->handle.nonblocking; return NKT_OK;
    default: break;
    }
    int sockopt = nkti_conn_sockopt(conn, option);
    if (sockopt < 0) return sockopt;
    int err = env->core->get_option(env, nkti_socket_fd(&conn->bottom), sockopt, value);
    if (err >= 0 && option == NKT_OPT_DELAY_SMALL_WRITES) *value = *value == 0;
    if (err == NKT_EUNSUPPORTED && option == NKT_OPT_KEEPALIVE_S) {
        *value = conn->keepalive_s;
        err = NKT_OK;
    }
    return err;
}

//==============================================================================
// MARK: @read - bytes, lines and whatever else comes in
//
// A blocking read without a time-out on a bare socket does not try first: it
// waits inside recv_wait, which costs one system call instead of two.
//
// Lines. The buffer is looked at in blocks of 64 bytes; one step finds all line
// ends of a block as bits of a mask, and lines are handed out from the mask.
// Where some blocks in a row have none, lines are long and memchr is faster.
// Each byte is looked at once, however it arrives. A line end bit below `head`
// does not exist: consuming clears it.
//==============================================================================

// --- Receiving ---------------------------------------------------------------

static bool nkti_can_recv_wait(nkt_conn *conn) {
    nkt_env *env = conn->handle.env;
    if (conn->handle.nonblocking || conn->read_timeout_ms > 0 ||
        conn->bottom.transport != &nkti_socket_transport || conn->top != &conn->bottom ||
        env->core->recv_wait == NULL) return false;
    if (!conn->recv_wait_tried) {
        int err = env->core->set_option(env, nkti_socket_fd(&conn->bottom), NKT_SO_RECV_WAIT, 1);
        conn->recv_wait_tried = true;
        conn->recv_wait_works = err >= 0;
    }
    return conn->recv_wait_works;
}

// Interrupting sets `canceled` and looks at `in_recv`; this does the opposite,
// so that one of the two always sees the other.
NKTI_INLINE ptrdiff_t nkti_recv_waiting(nkt_conn *conn, void *buf, size_t cap) {
    nkt_env *env = conn->handle.env;
    ptrdiff_t count = NKT_ECANCELED;
    nkti_atomic_store(&conn->now.in_recv, 1);
    if (nkti_atomic_load(&conn->canceled) == 0) {
        count = nkti_core_recv_wait(env, nkti_socket_fd(&conn->bottom), buf, cap);
        if (count < 0 && count != NKT_EOF) {
            conn->os_error[0] = (int16_t)env->core->last_error(env);
        }
    }
    nkti_atomic_store(&conn->now.in_recv, 0);
    return count;
}

static void nkti_read_failed(nkt_conn *conn, int err) {
    conn->read_err = (int16_t)err;
    conn->read_deadline = NKT_NEVER;
    nkti_conn_trace_failure(conn, err == NKT_EOF ? "eof" : "read failed", err, 0,
                            (int64_t)conn->received);
    nkti_conn_update(conn);
    nkti_handle_ready(&conn->handle, NKT_READ);
}

// Receives once. Sets `waited` if that was inside recv_wait: NKT_EAGAIN says
// there to try again.
NKTI_INLINE ptrdiff_t nkti_conn_recv(nkt_conn *conn, void *buf, size_t cap, bool *waited) {
    if (nkti_atomic_load(&conn->canceled) != 0) return NKT_ECANCELED;
    if (conn->read_err != 0) return conn->read_err;
    if (!nkti_handle_has_turn(&conn->handle, &conn->now.turn)) return NKTI_OUT_OF_TURN;
    *waited = nkti_can_recv_wait(conn);
    ptrdiff_t count;
    if (*waited) count = nkti_recv_waiting(conn, buf, cap);
    else if (nkti_is_direct(conn->top)) count = nkti_socket_recv(conn->top, buf, cap);
    else count = nkt_link_recv(conn->top, buf, cap);
    if (count > 0) {
        conn->received += (uint64_t)count;
        return count;
    }
    if (nkti_atomic_load(&conn->canceled) != 0) return NKT_ECANCELED;
    if (count == NKT_EAGAIN || count == NKT_EINTR || count == NKT_ECANCELED) return count;
    if (conn->read_err == 0 && count != NKT_ENOMEM) nkti_read_failed(conn, (int)count);
    return count;
}

// What a call returns that could not go on: on a nonblocking handle the reader
// goes to sleep.
static int nkti_read_again(nkt_conn *conn, bool out_of_turn) {
    if (!out_of_turn) nkti_handle_spent(&conn->handle, NKT_READ);
    nkti_conn_park(conn);
    if (conn->read_deadline == NKT_NEVER) conn->read_told = false;
    return nkti_handle_again(&conn->handle, conn->read_timeout_ms, &conn->read_deadline);
}

// What one read call has behind it.
typedef struct nkti_call {
    int64_t deadline;           // 0 = not begun; see nkti_conn_wait
    uint32_t receives;
} nkti_call;

static nkti_call nkti_call_begin(void) {
    nkti_call call;
    call.deadline = 0;
    call.receives = 0;
    return call;
}

// Input that never runs dry must not hold a call beyond its time-out, nor one
// that may not wait at all. Looked at every so many receives; the first one
// does not count, because few calls need a second.
static int nkti_call_is_over(nkt_conn *conn, nkti_call *call) {
    uint32_t receives = call->receives++;
    if (receives == 0 || receives % NKTI_RECEIVES_PER_TURN != 1) return NKT_OK;
    if (conn->handle.nonblocking && receives == 1) return NKT_OK;
    if (conn->handle.nonblocking) return conn->handle.poller == NULL ? NKT_EAGAIN : NKT_OK;
    return nkti_conn_deadline(conn, NKT_READ, &call->deadline);
}

// Receives into `buf`, or the read buffer if that is NULL, at least one byte,
// waiting on a blocking handle. Returns how many, or why not.
static ptrdiff_t nkti_conn_more(nkt_conn *conn, void *buf, size_t cap, nkti_call *call) {
    int over = nkti_call_is_over(conn, call);
    nkti_conn_step(conn);
    if (over < 0) return over == NKT_EAGAIN ? nkti_read_again(conn, true) : over;
    for (;;) {
        uint8_t *into = (uint8_t *)buf;
        if (buf == NULL) {
            int err = nkti_conn_room(conn);
            if (err < 0) return err;
            // One byte stays free, for the NUL behind an unterminated last
            // line.
            into = conn->in->bytes + conn->in->tail;
            cap = conn->in->cap - conn->in->tail - 1;
        }
        bool waited = false;
        ptrdiff_t count = nkti_conn_recv(conn, into, cap, &waited);
        if (count > 0) {
            if (buf == NULL) conn->in->tail += (uint32_t)count;
            else nkti_input_forget(conn->in);
            return count;
        }
        if (count != NKT_EAGAIN && count != NKTI_OUT_OF_TURN) {
            return count;
        }
        if (conn->handle.nonblocking) return nkti_read_again(conn, count == NKTI_OUT_OF_TURN);
        if (waited) continue;
        int err = nkti_conn_wait(conn, NKT_READ, &call->deadline);
        if (err < 0) return err;
    }
}

// More input for a view, after what is unread, which is kept.
static int nkti_fill(nkt_conn *conn, nkti_call *call) {
    ptrdiff_t count = nkti_conn_more(conn, NULL, 0, call);
    if (count < 0) return (int)count;
    nkti_skip_lf(conn);
    return NKT_OK;
}

// Every read begins with this, and ends well with nkti_read_done.
static void nkti_read_begin(nkt_conn *conn, int progress_of) {
    nkti_input *in = conn->in;
    nkti_skip_lf(conn);
    if (in->progress != 0 && in->progress_of != progress_of) in->progress = 0;
}

// How far a read has come that may have to be called again. There are bytes, or
// room for them.
static void nkti_read_progress(nkti_input *in, int progress_of, uint64_t progress) {
    in->progress_of = (uint8_t)progress_of;
    in->progress = progress;
}

// What a read returns that has failed: an end is told by that, and nothing
// keeps the handle ready. Ends that were seen while something was left, which
// is returned instead, keep it ready.
static ptrdiff_t nkti_read_end(nkt_conn *conn, ptrdiff_t err) {
    bool goes_on = err == NKT_EAGAIN || err == NKT_ETIMEDOUT || err == NKT_EINTR ||
                   err == NKT_ENOMEM;
    if (!goes_on) nkti_handle_spent(&conn->handle, NKT_READ | NKT_CONNECTED);
    return err;
}

static int nkti_read_done(nkt_conn *conn) {
    conn->read_deadline = NKT_NEVER;
    if (conn->in->progress != 0) conn->in->progress = 0;
    return NKT_OK;
}

// A complete result too, as far as the time-out goes.
static int nkti_read_too_long(nkt_conn *conn) {
    nkti_read_done(conn);
    return NKT_ETOOLONG;
}

static nkt_str nkti_view(nkt_conn *conn, size_t len) {
    nkt_str view;
    view.ptr = len > 0 ? (const char *)conn->in->bytes + conn->in->head : "";
    view.len = len;
    return view;
}

// --- Reading bytes -----------------------------------------------------------

NKT_API ptrdiff_t nkt_conn_read(nkt_conn *conn, void *buf, size_t cap) {
    nkti_call call = nkti_call_begin();
    if (cap == 0) return 0;
    if (cap > NKT_SIZE_LIMIT) cap = NKT_SIZE_LIMIT;
    nkti_read_begin(conn, NKTI_PROGRESS_NONE);
    while (nkti_unread(conn) == 0) {
        if (cap >= NKTI_DIRECT_MIN && !conn->skip_lf) {
            ptrdiff_t count = nkti_conn_more(conn, buf, cap, &call);
            if (count < 0) return nkti_read_end(conn, count);
            nkti_read_done(conn);
            return count;
        }
        int err = nkti_fill(conn, &call);
        if (err < 0) return nkti_read_end(conn, err);
    }
    nkti_read_done(conn);
    return (ptrdiff_t)nkti_take(conn->in, buf, cap);
}

// Exact reads and skips: their progress survives NKT_EAGAIN and the like.
static int nkti_read_all(nkt_conn *conn, uint8_t *buf, uint64_t len, int progress_of) {
    nkti_call call = nkti_call_begin();
    nkti_read_begin(conn, progress_of);
    uint64_t done = conn->in->progress <= len ? conn->in->progress : 0;
    for (;;) {
        uint64_t rest = len - done;
        size_t step = rest > NKT_SIZE_LIMIT ? NKT_SIZE_LIMIT : (size_t)rest;
        size_t taken = nkti_take(conn->in, buf != NULL ? buf + done : NULL, step);
        done += taken;
        if (done == len) return nkti_read_done(conn);
        if (taken > 0) continue;
        bool direct = buf != NULL && step >= NKTI_DIRECT_MIN && !conn->skip_lf;
        ptrdiff_t count = NKT_OK;
        if (direct || done > 0 || conn->in->progress > 0) {
            // A buffer is also the place for the progress.
            if (done > 0) nkti_read_progress(conn->in, progress_of, done);
            count = nkti_conn_room(conn);
            if (count >= 0) nkti_read_progress(conn->in, progress_of, done);
        }
        if (count >= 0) {
            count = direct ? nkti_conn_more(conn, buf + done, step, &call)
                           : nkti_fill(conn, &call);
        }
        if (direct && count > 0) done += (uint64_t)count;
        if (count == NKT_EOF && done > 0) count = NKT_ETRUNCATED;
        if (count < 0) return (int)nkti_read_end(conn, count);
    }
}

NKT_API int nkt_conn_read_exact(nkt_conn *conn, void *buf, size_t len) {
    if (buf == NULL && len > 0) return NKT_EINVAL;
    return nkti_read_all(conn, (uint8_t *)buf, len, NKTI_PROGRESS_EXACT);
}

NKT_API size_t nkt_conn_received(const nkt_conn *conn) {
    const nkti_input *in = conn->in;
    return in->progress_of == NKTI_PROGRESS_EXACT ? (size_t)in->progress : 0;
}

NKT_API int nkt_conn_skip(nkt_conn *conn, uint64_t len) {
    return nkti_read_all(conn, NULL, len, NKTI_PROGRESS_SKIP);
}

NKT_API int nkt_conn_peek(nkt_conn *conn, size_t want, nkt_str *view) {
    nkti_call call = nkti_call_begin();
    if (want > conn->line_max) return NKT_ETOOLONG;
    if (want == 0) want = 1;
    nkti_read_begin(conn, NKTI_PROGRESS_NONE);
    while (nkti_unread(conn) < want) {
        int err = nkti_fill(conn, &call);
        if (err >= 0) continue;
        if (conn->read_err == 0 || nkti_unread(conn) == 0) {
            return (int)nkti_read_end(conn, err);
        }
        break;
    }
    *view = nkti_view(conn, nkti_unread(conn));
    return nkti_read_done(conn);
}

// --- Reading lines -----------------------------------------------------------

#if NKTI_SSE2
static inline uint64_t nkti_match16(const uint8_t *bytes, __m128i pattern) {
    __m128i block = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block, pattern));
}
#endif

// A bit for each of 64 bytes that equals `wanted`.
static inline uint64_t nkti_match64(const uint8_t *bytes, uint8_t wanted) {
    uint64_t mask = 0;
#if NKTI_SSE2
    __m128i pattern = _mm_set1_epi8((char)wanted);
    mask = nkti_match16(bytes, pattern) | nkti_match16(bytes + 16, pattern) << 16 |
           nkti_match16(bytes + 32, pattern) << 32 | nkti_match16(bytes + 48, pattern) << 48;
#elif NKTI_NEON
    // Each byte of a comparison keeps the one bit of its place; adding pairs
    // three times gathers eight places into a byte.
    const uint8x16_t places = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    uint8x16_t pattern = vdupq_n_u8(wanted);
    uint8x16_t part[4];
    for (int i = 0; i < 4; i++) {
        part[i] = vandq_u8(vceqq_u8(vld1q_u8(bytes + 16 * i), pattern), places);
    }
    uint8x16_t sum = vpaddq_u8(vpaddq_u8(part[0], part[1]), vpaddq_u8(part[2], part[3]));
    mask = vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sum, sum)), 0);
#else
    // Eight at a time: a byte of `same` is zero where it matches. The two low
    // halves are added separately, so that no carry crosses into a neighbour.
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7fu;
    for (int i = 0; i < 8; i++) {
        uint64_t same = 0;
        for (int k = 0; k < 8; k++) same |= (uint64_t)(bytes[8 * i + k] ^ wanted) << (8 * k);
        uint64_t zero = ~(((same & low7) + low7) | same | low7) >> 7;
        mask |= (zero * 0x0102040810204080u >> 56) << (8 * i);
    }
#endif
    return mask;
}

static uint64_t nkti_match_some(const uint8_t *bytes, size_t len, uint8_t wanted) {
    uint64_t mask = 0;
    const uint8_t *at = bytes, *end = bytes + len;
    while (at < end && (at = (const uint8_t *)memchr(at, wanted, (size_t)(end - at))) != NULL) {
        mask |= (uint64_t)1 << (at - bytes);
        at++;
    }
    return mask;
}

#define NKTI_LONG_BLOCKS 4              // without a line end: time for memchr

// Extends what is known of line ends up to the next one, or to the tail.
static void nkti_scan(nkti_input *in, bool cr_lines) {
    for (int blocks = 0; in->mask == 0 && in->scan < in->tail; blocks++) {
        const uint8_t *from = in->bytes + in->scan;
        size_t len = in->tail - in->scan;
        if ((in->long_lines || blocks == NKTI_LONG_BLOCKS) && !cr_lines) {
            const uint8_t *found = (const uint8_t *)memchr(from, '\n', len);
            size_t passed = found == NULL ? len : (size_t)(found - from) + 1;
            in->long_lines = found == NULL || passed > NKTI_LONG_BLOCKS * 64;
            in->scan += (uint32_t)passed;
            in->mask = (uint64_t)(found != NULL) << 63;
        } else if (len >= 64) {
            in->scan += 64;
            in->mask = nkti_match64(from, '\n');
            if (cr_lines) in->mask |= nkti_match64(from, '\r');
        } else {
            in->scan = in->tail;
            in->mask = nkti_match_some(from, len, '\n');
            if (cr_lines) in->mask |= nkti_match_some(from, len, '\r');
            in->mask <<= 64 - len;
        }
    }
}

// Where the first line end of the mask is.
static uint32_t nkti_line_end(const nkti_input *in) {
    return in->scan + nkti_lowest_bit(in->mask) - 64;
}

// Whether what is unread and has no line end is too long to become a line: a CR
// at its end may yet be half of one.
static bool nkti_line_is_over(const nkt_conn *conn) {
    size_t unread = nkti_unread(conn);
    if (unread <= conn->line_max) return false;
    return unread > (size_t)conn->line_max + 1 || conn->in->bytes[conn->in->tail - 1] != '\r' ||
           conn->cr_lines;
}

// Takes the line that ends at the first bit of the mask. Returns NKT_OK, or
// NKT_ETOOLONG, which takes nothing.
static int nkti_line_take(nkt_conn *conn, nkt_str *line, size_t line_max) {
    nkti_input *in = conn->in;
    uint32_t end = nkti_line_end(in);
    uint32_t len = end - in->head;
    uint8_t ender = in->bytes[end];
    if (ender == '\n' && len > 0 && in->bytes[end - 1] == '\r') len--;
    if (len > line_max) return NKT_ETOOLONG;
    line->ptr = (const char *)in->bytes + in->head;
    line->len = len;
    in->mask &= in->mask - 1;
    in->head = end + 1;
    if (ender == '\r') {
        conn->skip_lf = true;
        nkti_skip_lf(conn);
    }
    return NKT_OK;
}

// The next line, wherever it is.
static int nkti_line_find(nkt_conn *conn, nkt_str *line) {
    nkti_call call = nkti_call_begin();
    nkti_read_begin(conn, NKTI_PROGRESS_NONE);
    for (;;) {
        if (conn->in->mask == 0) nkti_scan(conn->in, conn->cr_lines);
        if (conn->in->mask != 0) {
            conn->read_deadline = NKT_NEVER;
            int err = nkti_line_take(conn, line, conn->line_max);
            if (err >= 0) ((char *)(uintptr_t)line->ptr)[line->len] = '\0';
            return err;
        }
        if (nkti_line_is_over(conn)) return nkti_read_too_long(conn);
        int err = nkti_fill(conn, &call);
        if (err == NKT_EOF && nkti_unread(conn) > 0) {
            size_t len = nkti_unread(conn);
            if (len > conn->line_max) return nkti_read_too_long(conn);
            conn->in->bytes[conn->in->tail] = '\0';
            *line = nkti_view(conn, len);
            nkti_consume(conn->in, len);
            return nkti_read_done(conn);
        }
        if (err < 0) return (int)nkti_read_end(conn, err);
    }
}

// For short lines this is as short as can be: the next end is in the mask or in
// the next blocks, and nothing is out of the ordinary. All else is
// nkti_line_find's.
NKT_API int nkt_conn_read_line(nkt_conn *conn, nkt_str *line) {
    nkti_input *in = conn->in;
    uint64_t mask = in->mask;
    while (mask == 0) {
        if (in->tail - in->scan < 64 || in->scan - in->head >= NKTI_LONG_BLOCKS * 64 ||
            in->long_lines || conn->skip_lf || conn->cr_lines) return nkti_line_find(conn, line);
        mask = nkti_match64(in->bytes + in->scan, '\n');
        in->scan += 64;
        in->mask = mask;
    }
    uint32_t end = nkti_line_end(in);
    uint32_t len = end - in->head;
    if (len > conn->line_max || conn->cr_lines || in->progress != 0) {
        return nkti_line_find(conn, line);
    }
    char *text = (char *)in->bytes + in->head;
    in->mask = mask & (mask - 1);
    in->head = end + 1;
    conn->read_deadline = NKT_NEVER;
    if (len > 0 && text[len - 1] == '\r') len--;
    line->ptr = text;
    line->len = len;
    text[len] = '\0';
    return NKT_OK;
}

NKT_API int nkt_conn_skip_line(nkt_conn *conn) {
    nkti_call call = nkti_call_begin();
    nkti_read_begin(conn, NKTI_PROGRESS_SKIP_LINE);
    for (;;) {
        nkt_str line;
        if (conn->in->mask == 0) nkti_scan(conn->in, conn->cr_lines);
        if (conn->in->mask != 0) {
            nkti_line_take(conn, &line, SIZE_MAX);
            return nkti_read_done(conn);
        }
        // What has no line end goes at once, so that no length of line costs
        // memory.
        size_t unread = nkti_unread(conn);
        if (unread > 0) {
            nkti_read_progress(conn->in, NKTI_PROGRESS_SKIP_LINE, conn->in->progress + unread);
            nkti_consume(conn->in, unread);
        }
        int err = nkti_fill(conn, &call);
        if (err == NKT_EOF && conn->in->progress > 0) return nkti_read_done(conn);
        if (err < 0) return (int)nkti_read_end(conn, err);
    }
}

// Where the last of the complete lines ends that are there; `head` if there is
// none. Stops before one that is too long, whose end stays in the mask.
static uint32_t nkti_lines_end(nkt_conn *conn) {
    nkti_input *in = conn->in;
    uint32_t at = in->head;
    for (;;) {
        if (in->mask == 0) nkti_scan(in, conn->cr_lines);
        if (in->mask == 0) return at;
        uint32_t end = nkti_line_end(in);
        uint32_t len = end - at;
        if (len > conn->line_max) {
            bool crlf = in->bytes[end] == '\n' && in->bytes[end - 1] == '\r';
            if (len - crlf > conn->line_max) return at;
        }
        in->mask &= in->mask - 1;
        at = end + 1;
        if (in->bytes[end] == '\n') continue;
        if (at == in->tail) {
            conn->skip_lf = true;
        } else if (in->bytes[at] == '\n') {
            // It is the next end that is known, or the next byte to be looked
            // at.
            if (at < in->scan) in->mask &= in->mask - 1;
            else in->scan++;
            at++;
        }
    }
}

NKT_API int nkt_conn_read_lines(nkt_conn *conn, nkt_str *lines) {
    nkti_call call = nkti_call_begin();
    nkti_read_begin(conn, NKTI_PROGRESS_NONE);
    for (;;) {
        uint32_t len = nkti_lines_end(conn) - conn->in->head;
        int err = NKT_OK;
        if (len == 0) {
            if (conn->in->mask != 0 || nkti_line_is_over(conn)) return nkti_read_too_long(conn);
            err = nkti_fill(conn, &call);
            if (err == NKT_EOF) len = (uint32_t)nkti_unread(conn);
            if (err == NKT_EOF && len > conn->line_max) return nkti_read_too_long(conn);
        }
        if (len > 0) {
            *lines = nkti_view(conn, len);
            nkti_consume(conn->in, len);
            return nkti_read_done(conn);
        }
        if (err < 0) return (int)nkti_read_end(conn, err);
    }
}

// --- Reading up to a delimiter -----------------------------------------------

// FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/
static uint32_t nkti_hash32(const uint8_t *bytes, size_t len) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++) hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

// Finds `pattern` in `bytes` by Knuth, Morris and Pratt's method, so that no
// input takes more than one look at each byte. Returns the offset, or -1.
static ptrdiff_t nkti_find(const uint8_t *bytes, size_t len, const uint8_t *pattern,
                           size_t pattern_len) {
    uint8_t border[NKT_UNTIL_MAX + 1];
    size_t matched = 0;
    if (pattern_len == 1) {
        const void *found = len > 0 ? memchr(bytes, pattern[0], len) : NULL;
        return found == NULL ? -1 : (const uint8_t *)found - bytes;
    }
    border[0] = 0;
    for (size_t i = 1; i < pattern_len; i++) {
        while (matched > 0 && pattern[matched] != pattern[i]) matched = border[matched - 1];
        if (pattern[matched] == pattern[i]) matched++;
        border[i] = (uint8_t)matched;
    }
    matched = 0;
    for (size_t i = 0; i < len; i++) {
        while (matched > 0 && pattern[matched] != bytes[i]) matched = border[matched - 1];
        if (pattern[matched] == bytes[i]) matched++;
        if (matched == pattern_len) return (ptrdiff_t)(i + 1 - pattern_len);
    }
    return -1;
}

NKT_API int nkt_conn_read_until(nkt_conn *conn, const void *delimiter, size_t len,
                                nkt_str *view) {
    const uint8_t *pattern = (const uint8_t *)delimiter;
    nkti_call call = nkti_call_begin();
    if (pattern == NULL || len == 0 || len > NKT_UNTIL_MAX) return NKT_EINVAL;
    nkti_read_begin(conn, NKTI_PROGRESS_UNTIL);
    // How far an earlier call has searched counts for the same delimiter only.
    uint32_t hash = nkti_hash32(pattern, len);
    if (conn->in->until_hash != hash && conn->in->progress != 0) conn->in->progress = 0;
    for (;;) {
        size_t unread = nkti_unread(conn);
        size_t searched = (size_t)conn->in->progress;
        ptrdiff_t found = -1;
        if (unread >= len) {
            found = nkti_find(conn->in->bytes + conn->in->head + searched, unread - searched,
                              pattern, len);
        }
        if (found >= 0) {
            size_t end = searched + (size_t)found;
            if (end > conn->line_max) return nkti_read_too_long(conn);
            *view = nkti_view(conn, end + len);
            nkti_consume(conn->in, end + len);
            return nkti_read_done(conn);
        }
        // The delimiter can begin at line_max at the latest.
        if (unread >= conn->line_max + len) return nkti_read_too_long(conn);
        if (unread >= len) {
            nkti_read_progress(conn->in, NKTI_PROGRESS_UNTIL, unread - len + 1);
            conn->in->until_hash = hash;
        }
        int err = nkti_fill(conn, &call);
        if (err == NKT_EOF && unread > 0) {
            if (unread > conn->line_max) return nkti_read_too_long(conn);
            *view = nkti_view(conn, unread);
            nkti_consume(conn->in, unread);
            return nkti_read_done(conn);
        }
        if (err < 0) return (int)nkti_read_end(conn, err);
    }
}

// --- Going back --------------------------------------------------------------

NKT_API uint64_t nkt_conn_position(const nkt_conn *conn) {
    return conn->received - nkti_unread(conn);
}

// Begins anew what is known of line ends, from a `head` that was moved.
static void nkti_read_moved(nkt_conn *conn) {
    nkti_input_rescan(conn->in);
    conn->in->progress = 0;
    conn->read_deadline = NKT_NEVER;
    nkti_handle_ready(&conn->handle, NKT_READ);
}

// A CR before `head` ends a line, and an LF behind it does not end another.
static bool nkti_is_behind_cr(const nkt_conn *conn) {
    const nkti_input *in = conn->in;
    if (!conn->cr_lines) return false;
    return in->head > 0 ? in->bytes[in->head - 1] == '\r' : in->lf_first != 0;
}

NKT_API int nkt_conn_seek(nkt_conn *conn, uint64_t position) {
    nkti_input *in = conn->in;
    uint64_t now = nkt_conn_position(conn);
    if (position >= now) {
        if (position - now > nkti_unread(conn)) return NKT_EINVAL;
        if (position == now) return NKT_OK;
        in->progress = 0;
        nkti_consume(in, (size_t)(position - now));
        conn->skip_lf = nkti_is_behind_cr(conn);
        return NKT_OK;
    }
    if (now - position > in->head) return NKT_EINVAL;
    in->head -= (uint32_t)(now - position);
    conn->skip_lf = nkti_is_behind_cr(conn);
    nkti_read_moved(conn);
    return NKT_OK;
}

NKT_API int nkt_conn_peek_at(nkt_conn *conn, uint64_t position, size_t want, nkt_str *view) {
    int err = nkt_conn_seek(conn, position);
    return err < 0 ? err : nkt_conn_peek(conn, want, view);
}

NKT_API size_t nkt_conn_buffered(const nkt_conn *conn) {
    return nkti_unread(conn);
}

NKT_API int nkt_conn_unread(nkt_conn *conn, const void *data, size_t len) {
    size_t unread = nkti_unread(conn);
    if (len > nkt_conn_position(conn) || (data == NULL && len > 0)) return NKT_EINVAL;
    if (len == 0) return NKT_OK;
    if (unread > NKT_SIZE_LIMIT || len > NKT_SIZE_LIMIT - unread) return NKT_ETOOLONG;
    if (len > conn->in->head) {
        size_t cap = len + unread < NKTI_LENT_SIZE / 2 ? NKTI_LENT_SIZE : (len + unread) * 2;
        if (cap > NKT_SIZE_LIMIT) cap = (size_t)NKT_SIZE_LIMIT + 1;
        nkti_input *own = nkti_input_own(conn->handle.env, cap, NKTI_INPUT_OWN);
        if (own == NULL) return NKT_ENOMEM;
        own->head = (uint32_t)len;
        own->tail = (uint32_t)(len + unread);
        nkti_take(conn->in, own->bytes + len, unread);
        nkti_input_free(conn);
        conn->in = own;
    }
    conn->in->head -= (uint32_t)len;
    if (conn->in->head == 0) conn->in->lf_first = 0;
    memcpy(conn->in->bytes + conn->in->head, data, len);
    conn->skip_lf = false;
    nkti_read_moved(conn);
    return NKT_OK;
}

//==============================================================================
// MARK: @write - everything or nothing
//
// A walk over the pieces is sent as far as it goes. What is left waits for the
// descriptor on a blocking handle, and goes to the queue on a nonblocking one.
//==============================================================================

// A walk over the pieces of a write.
typedef struct nkti_pieces {
    const nkt_str *pieces;
    size_t count;
    size_t at;              // the piece that is next
    size_t offset;          // and how much of it is done
} nkti_pieces;

static void nkti_pieces_advance(nkti_pieces *walk, size_t len) {
    while (walk->at < walk->count && len >= walk->pieces[walk->at].len - walk->offset) {
        len -= walk->pieces[walk->at].len - walk->offset;
        walk->at++;
        walk->offset = 0;
    }
    walk->offset += len;
}

// Sends what one call takes. Bytes, or why not.
NKTI_INLINE ptrdiff_t nkti_pieces_send(nkt_conn *conn, nkti_pieces *walk) {
    nkt_str some[NKTI_PIECES_MAX];
    size_t count = 0;
    size_t offset = walk->offset;
    for (size_t i = walk->at; i < walk->count && count < NKTI_PIECES_MAX; i++, offset = 0) {
        if (walk->pieces[i].len == offset) continue;
        some[count].ptr = walk->pieces[i].ptr + offset;
        some[count++].len = walk->pieces[i].len - offset;
    }
    ptrdiff_t sent = nkti_is_direct(conn->top) ? nkti_socket_send(conn->top, some, count)
                                               : nkt_link_send(conn->top, some, count);
    if (sent > 0) {
        nkti_pieces_advance(walk, (size_t)sent);
        conn->sent += (uint64_t)sent;
        conn->written += (size_t)sent;
    }
    return sent;
}

// Puts the rest into the queue, where there is room. What was sent of it before
// counts as written, so that a lack of memory can be told without loss.
static int nkti_pieces_queue(nkt_conn *conn, nkti_pieces *walk, size_t rest) {
    bool was_busy = conn->busy;
    int err = nkti_queue_reserve(conn, rest);
    if (err < 0) return err;
    nkti_queue *queue = conn->queue;
    for (size_t i = walk->at, offset = walk->offset; i < walk->count; i++, offset = 0) {
        size_t len = walk->pieces[i].len - offset;
        uint8_t *to = nkti_queue_bytes(queue) + queue->tail;
        if (len > 0) memcpy(to, walk->pieces[i].ptr + offset, len);
        queue->tail += (uint32_t)len;
    }
    conn->written += rest;
    conn->busy = true;
    if (!was_busy) nkti_conn_update(conn);
    return NKT_OK;
}

static int nkti_write_again(nkt_conn *conn, size_t need) {
    conn->write_need = (uint32_t)need;
    if (conn->write_deadline == NKT_NEVER) conn->write_told = false;
    return nkti_handle_again(&conn->handle, conn->write_timeout_ms, &conn->write_deadline);
}

NKTI_INLINE int nkti_write_nonblocking(nkt_conn *conn, nkti_pieces *walk, size_t total) {
    if (total > conn->queue_max) return NKT_ETOOLONG;
    if (nkti_queue_len(conn->queue) + total > conn->queue_max) {
        nkti_push(conn);
        nkti_pushed(conn, true);
        if (conn->write_err != 0) return conn->write_err;
        if (nkti_queue_len(conn->queue) + total > conn->queue_max) {
            return nkti_write_again(conn, total);
        }
    }
    conn->write_deadline = NKT_NEVER;
    while (!conn->busy && !conn->connecting && conn->written < total) {
        ptrdiff_t sent = nkti_pieces_send(conn, walk);
        if (sent == NKT_EAGAIN) break;
        if (sent < 0) {
            nkti_write_failed(conn, (int)sent);
            return (int)sent;
        }
    }
    return conn->written == total ? NKT_OK
                                  : nkti_pieces_queue(conn, walk, total - conn->written);
}

NKTI_INLINE int nkti_write_blocking(nkt_conn *conn, nkti_pieces *walk, size_t total) {
    int64_t deadline = 0;
    while (conn->written < total) {
        ptrdiff_t sent = nkti_pieces_send(conn, walk);
        if (sent > 0) continue;
        int err = (int)sent;
        if (err == NKT_EAGAIN) err = nkti_conn_wait(conn, NKT_WRITE, &deadline);
        else nkti_write_failed(conn, err);
        if (err < 0) return err;
        if (nkti_atomic_load(&conn->canceled) != 0) return NKT_ECANCELED;
    }
    return NKT_OK;
}

static int nkti_write_check(nkt_conn *conn) {
    if (nkti_atomic_load(&conn->canceled) != 0) return NKT_ECANCELED;
    if (conn->write_err != 0) return conn->write_err;
    return conn->shut_asked ? NKT_EPIPE : NKT_OK;
}

NKTI_INLINE int nkti_conn_writev(nkt_conn *conn, const nkt_str *pieces, size_t count) {
    nkti_pieces walk;
    size_t total = 0;
    conn->written = 0;
    nkti_conn_step(conn);
    int err = nkti_write_check(conn);
    if (err < 0) return err;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].len > SIZE_MAX - total) return NKT_ETOOLONG;
        total += pieces[i].len;
    }
    if (total == 0) return NKT_OK;
    walk.pieces = pieces;
    walk.count = count;
    walk.at = walk.offset = 0;
    return conn->handle.nonblocking ? nkti_write_nonblocking(conn, &walk, total)
                                    : nkti_write_blocking(conn, &walk, total);
}

NKT_API int nkt_conn_writev(nkt_conn *conn, const nkt_str *pieces, size_t count) {
    return nkti_conn_writev(conn, pieces, count);
}

NKT_API int nkt_conn_write(nkt_conn *conn, const void *data, size_t len) {
    nkt_str piece;
    piece.ptr = (const char *)data;
    piece.len = len;
    return nkti_conn_writev(conn, &piece, 1);
}

NKT_API int nkt_conn_write_str(nkt_conn *conn, const char *text) {
    return nkt_conn_write(conn, text, strlen(text));
}

NKT_API size_t nkt_conn_written(const nkt_conn *conn) {
    return conn->written;
}

NKT_API size_t nkt_conn_queued(const nkt_conn *conn) {
    return nkti_queue_len(conn->queue);
}

NKT_API int nkt_conn_flush(nkt_conn *conn) {
    int64_t deadline = 0;
    bool was_busy = conn->busy;
    for (;;) {
        if (nkti_atomic_load(&conn->canceled) != 0) return NKT_ECANCELED;
        nkti_push(conn);
        if (conn->handle.nonblocking) nkti_pushed(conn, was_busy);
        if (conn->write_err != 0) return conn->write_err;
        if (!conn->busy) {
            conn->write_deadline = NKT_NEVER;
            return NKT_OK;
        }
        if (conn->handle.nonblocking) return nkti_write_again(conn, conn->queue_max);
        int err = nkti_conn_wait(conn, NKT_WRITE, &deadline);
        if (err < 0) return err;
    }
}

NKT_API int nkt_conn_shutdown_write(nkt_conn *conn) {
    if (conn->shut_done) return NKT_OK;
    int err = conn->shut_asked ? NKT_OK : nkti_write_check(conn);
    if (err < 0) return err;
    conn->shut_asked = true;
    err = nkt_conn_flush(conn);
    return err == NKT_EAGAIN ? NKT_OK : err;
}

//==============================================================================
// MARK: @connect - from "host:port" to a connection
//
// While it connects, a connection stands on a transport of its own, the race:
// candidates, attempts under way, two instants. Whatever the user calls, and
// the poller, steps it:
//
//     for each attempt:   connected -> it wins: its descriptor becomes the
//                                      connection's, the others are closed
//                         failed    -> noted; the next candidate may start now
//     all of it timed out           -> NKT_ETIMEDOUT
//     candidates left, and none under way, one just failed or 250 ms have
//     passed since the last start   -> start the next
//     none left, none under way     -> the error that says most
//
// When the race is over it is freed; a short log of what was tried stays.
//==============================================================================

#define NKTI_CONNECT_TIMEOUT_MS 30000
#define NKTI_ATTEMPT_DELAY_MS 250
#define NKTI_RECHECK_NS (50 * NKTI_MS)      // for systems that hide failed connects
#define NKTI_UNIX_RETRY (20 * NKTI_MS)      // while a Unix-domain backlog is full
#define NKTI_RESOLUTION_DELAY_MS 50         // RFC 8305 section 3
#define NKTI_TARGET_TEXT_MAX 280            // a host name, brackets and a port

typedef struct nkti_attempt {
    nkt_fd fd;
    uint32_t log_index;
} nkti_attempt;

// One family's addresses, those from `next` on in the order of RFC 6724.
typedef struct nkti_candidates {
    uint32_t next, count;
    nkti_candidate list[NKT_LOOKUP_MAX];
} nkti_candidates;

typedef struct nkti_race {
    int64_t start, deadline, next_start;
    int64_t retry_at;               // a Unix-domain listener was busy; 0 = none was
    int64_t ipv6_until;             // how long IPv4 waits for IPv6's answer
    int32_t err, os_error;          // of the attempt that says most
    int32_t lookup_err[2];          // as in the report
    int32_t lookup_ms[2];
    int last_family;                // an index of `families`; -1 = nothing was tried
    uint32_t under_way;
    uint32_t attempt_count;         // that were ever started
    uint16_t port;
    nkti_lookup lookup;
    nkti_attempt attempts[NKT_ATTEMPTS_MAX];    // under way, in the order of starting
    nkt_connect_opts opts;          // report and interface_name are not used from here
    char interface_name[64];        // "" = none
    char path[NKT_UNIX_PATH_MAX + 1];       // "" = candidates are addresses
    char target[NKTI_TARGET_TEXT_MAX];      // for people
    nkt_attempt log[NKT_ATTEMPTS_MAX];
    nkti_candidates families[2];    // IPv6, IPv4
} nkti_race;

static int32_t nkti_race_ms(const nkti_race *race, int64_t now) {
    int64_t ms = (now - race->start) / NKTI_MS;
    return ms > INT32_MAX ? INT32_MAX : (int32_t)ms;
}

// How much an error says about the target: refused is an answer of the host
// itself, unreachable one of the network, the rest is about us.
static int nkti_connect_rank(int err) {
    switch (err) {
    case NKT_OK: return 0;
    case NKT_EREFUSED: case NKT_ERESET: return 5;
    case NKT_EACCES: return 4;
    case NKT_EHOSTUNREACH: case NKT_ENETUNREACH: return 3;
    case NKT_ETIMEDOUT: return 2;
    default: return 1;
    }
}

static void nkti_race_note(nkt_conn *conn, nkti_race *race, uint32_t log_index, int err,
                           int64_t now) {
    int32_t os_error = err < 0 && err != NKT_EAGAIN ? conn->os_error[0] : 0;
    if (log_index < NKT_ATTEMPTS_MAX) {
        race->log[log_index].err = err;
        race->log[log_index].os_error = os_error;
        race->log[log_index].end_ms = nkti_race_ms(race, now);
    }
    if (err < 0 && nkti_connect_rank(err) > nkti_connect_rank(race->err)) {
        race->err = err;
        race->os_error = os_error;
    }
}

// Opens and sets up one attempt's socket and begins to connect it. NKT_OK if it
// has connected at once, NKT_EAGAIN if it is under way; else it is closed.
static int nkti_attempt_start(nkt_conn *conn, const nkti_race *race, const nkt_addr *addr,
                              nkt_fd *fd) {
    nkt_env *env = conn->handle.env;
    union { uint64_t align; nkti_unix_addr path; char room[NKT_SOCKADDR_MAX]; } name, local;
    int family = race->path[0] != '\0' ? (int)NKT_UNIX : addr->ip.family;
    int len = family == NKT_UNIX ? nkti_unix_to_sockaddr(race->path, &name.path)
                                 : nkt_addr_to_sockaddr(addr, &name, sizeof name);
    if (len < 0) return len;
    int err = env->core->open(env, family, 1, fd);
    if (err >= 0 && family != NKT_UNIX) nkti_stream_apply(env, *fd, &race->opts.stream);
    if (err >= 0 && race->interface_name[0] != '\0') {
        err = env->core->bind_interface(env, *fd, race->interface_name, family);
    }
    if (err >= 0 && race->opts.local.ip.family != 0) {
        err = nkt_addr_to_sockaddr(&race->opts.local, &local, sizeof local);
        if (err >= 0) err = env->core->bind(env, *fd, &local, (size_t)err);
    }
    if (err >= 0) err = env->core->connect(env, *fd, &name, (size_t)len);
    if (err >= 0 || err == NKT_EAGAIN) return err;
    conn->os_error[0] = (int16_t)env->core->last_error(env);
    if (*fd != NKT_NO_FD) env->core->close(env, *fd);
    return err;
}

static bool nkti_race_has_untried(const nkti_race *race) {
    return race->families[0].next < race->families[0].count ||
           race->families[1].next < race->families[1].count;
}

// The family of the next attempt: the families take turns (RFC 8305 section 4),
// and the first turn is that of the better address. There is one untried.
static int nkti_race_pick(const nkti_race *race) {
    const nkti_candidates *ipv6 = &race->families[0], *ipv4 = &race->families[1];
    if (ipv6->next == ipv6->count) return 1;
    if (ipv4->next == ipv4->count) return 0;
    if (race->last_family >= 0) return !race->last_family;
    return ipv6->list[ipv6->next].rank > ipv4->list[ipv4->next].rank;
}

// Starts the next candidate. NKT_OK if it has connected at once, NKT_EAGAIN if
// it is under way, or why it failed, which is noted.
static int nkti_race_start_next(nkt_conn *conn, nkti_race *race, int64_t now, nkt_fd *winner) {
    int family = nkti_race_pick(race);
    nkti_candidates *from = &race->families[family];
    const nkt_addr *addr = &from->list[from->next++].addr;
    uint32_t log_index = race->attempt_count++;
    nkt_fd fd = NKT_NO_FD;
    if (log_index < NKT_ATTEMPTS_MAX) {
        nkt_attempt *log = &race->log[log_index];
        memset(log, 0, sizeof *log);
        log->addr = *addr;
        log->err = NKT_EAGAIN;
        log->start_ms = nkti_race_ms(race, now);
        log->end_ms = -1;
    }
    nkti_conn_trace(conn, "attempt", NKT_OK, log_index);
    conn->os_error[0] = 0;
    int err = nkti_attempt_start(conn, race, addr, &fd);
    if (err == NKT_EBUSY) {
        // There is no waiting for a place in its queue: ask again.
        from->next--;
        race->attempt_count--;
        race->retry_at = nkti_after(now, NKTI_UNIX_RETRY);
        return err;
    }
    race->last_family = family;
    if (err == NKT_EAGAIN) {
        nkti_attempt *attempt = &race->attempts[race->under_way++];
        attempt->fd = fd;
        attempt->log_index = log_index;
        race->next_start = nkti_deadline(now, race->opts.attempt_delay_ms);
        return err;
    }
    nkti_race_note(conn, race, log_index, err, now);
    if (err == NKT_OK) *winner = fd;
    else nkti_conn_trace_failure(conn, "attempt failed", err, 0, log_index);
    return err;
}

// Takes one out of those under way; the others stay in order.
static nkt_fd nkti_attempt_remove(nkti_race *race, uint32_t index) {
    nkti_attempt *attempt = &race->attempts[index];
    nkt_fd fd = attempt->fd;
    race->under_way--;
    memmove(attempt, attempt + 1, (race->under_way - index) * sizeof *attempt);
    return fd;
}

static void nkti_attempt_close(nkt_conn *conn, nkti_race *race, uint32_t index) {
    nkt_fd fd = nkti_attempt_remove(race, index);
    nkti_handle_unwatch(&conn->handle, fd);
    conn->handle.env->core->close(conn->handle.env, fd);
}

// Keeps what was tried, as far as there is memory for it.
static void nkti_race_keep_log(nkt_conn *conn, const nkti_race *race, int err, int64_t now) {
    uint32_t kept = race->attempt_count < NKT_ATTEMPTS_MAX ? race->attempt_count
                                                           : NKT_ATTEMPTS_MAX;
    // A connection that lives can be asked for its peer.
    size_t target_size = err < 0 ? strlen(race->target) + 1 : 0;
    nkti_connect_log *log = nkti_handle_extra(&conn->handle) == NULL ? NULL
        : (nkti_connect_log *)nkti_alloc(conn->handle.env,
                                         nkti_connect_log_size(kept, target_size));
    if (log == NULL) {
        // Registrations that are left keep it, and free it when they go.
        nkti_extra *extra = conn->handle.extra;
        if (extra != NULL && extra->more == NULL) nkti_handle_free_more(&conn->handle);
        return;
    }
    log->target_size = (uint32_t)target_size;
    log->err = err;
    log->os_error = err < 0 ? race->os_error : 0;
    log->elapsed_ms = nkti_race_ms(race, now);
    log->attempt_count = (int32_t)race->attempt_count;
    memcpy(log->lookup_err, race->lookup_err, sizeof log->lookup_err);
    memcpy(log->lookup_ms, race->lookup_ms, sizeof log->lookup_ms);
    log->kept = kept;
    memcpy(nkti_connect_log_attempts(log), race->log, kept * sizeof race->log[0]);
    memcpy(nkti_connect_log_target(log), race->target, target_size);
    conn->handle.extra->log = log;
}

// The race is over: `fd` has won, or nobody with `err`.
static int nkti_race_end(nkt_conn *conn, nkti_race *race, nkt_fd fd, int err, int64_t now) {
    while (race->under_way > 0) {
        conn->os_error[0] = 0;
        nkti_race_note(conn, race, race->attempts[0].log_index,
                       err < 0 ? NKT_ETIMEDOUT : NKT_ECANCELED, now);
        nkti_attempt_close(conn, race, 0);
    }
    nkti_lookup_cancel(&race->lookup, &conn->handle);
    nkti_race_keep_log(conn, race, err, now);
    conn->connecting = false;
    conn->bottom.transport = &nkti_socket_transport;
    conn->bottom.self = (void *)(intptr_t)fd;
    conn->os_error[0] = (int16_t)(err < 0 ? race->os_error : 0);
    nkti_free(conn->handle.env, race, sizeof *race);
    conn->connect_err = (int16_t)err;
    if (err < 0) {
        conn->read_err = conn->write_err = (int16_t)err;
        conn->read_deadline = conn->write_deadline = NKT_NEVER;
    }
    nkti_conn_trace_failure(conn, err < 0 ? "connect failed" : "connected", err, 0, fd);
    conn->connect_news = true;
    nkti_conn_tell_connected(conn);
    nkti_conn_update(conn);
    return err;
}

// Looks after the attempts under way. NKT_OK with the winner, NKT_EAGAIN; sets
// `failed` if one has failed.
static int nkti_race_check(nkt_conn *conn, nkti_race *race, int64_t now, nkt_fd *winner,
                           bool *failed) {
    nkt_env *env = conn->handle.env;
    for (uint32_t i = 0; i < race->under_way;) {
        nkti_attempt attempt = race->attempts[i];
        int err = env->core->connect_result(env, attempt.fd);
        if (err == NKT_EAGAIN) {
            i++;
            continue;
        }
        conn->os_error[0] = (int16_t)(err < 0 ? env->core->last_error(env) : 0);
        nkti_race_note(conn, race, attempt.log_index, err, now);
        if (err == NKT_OK) {
            *winner = nkti_attempt_remove(race, i);
            return NKT_OK;
        }
        nkti_conn_trace_failure(conn, "attempt failed", err, 0, attempt.log_index);
        nkti_attempt_close(conn, race, i);
        *failed = true;
    }
    return NKT_EAGAIN;
}

// Adds a family's addresses to those that are untried. Twice the same is once.
// What did not come from a look-up needs no order, and no system calls for one.
static void nkti_race_add(nkt_conn *conn, nkti_race *race, int family, const nkt_ip *ips,
                          int count) {
    nkti_candidates *to = &race->families[family];
    for (int i = 0; i < count && to->count < NKT_LOOKUP_MAX; i++) {
        nkti_candidate one;
        uint32_t k = 0;
        while (k < to->count && !nkt_ip_equal(&to->list[k].addr.ip, &ips[i])) k++;
        if (k < to->count) continue;
        one.addr = nkt_addr_make(&ips[i], race->port);
        one.rank = 0;
        if (race->lookup_err[family] != NKT_EOF) {      // from a look-up
            nkt_ip source = nkti_source_of(conn->handle.env, &ips[i], race->port);
            one.rank = nkti_rank(&ips[i], &source);
        }
        nkti_candidate_insert(to->list + to->next, to->count - to->next, &one);
        to->count++;
    }
}

// Whether there is a way out by IPv6. Nothing is sent to this address, which is
// for documentation.
static bool nkti_has_ipv6_route(nkt_env *env) {
    static const uint8_t documentation[16] = { 0x20, 0x01, 0x0d, 0xb8 };
    nkt_ip ip = nkt_ip_from_bytes(documentation, sizeof documentation);
    return nkti_source_of(env, &ip, 0).family != 0;
}

// Takes the answers that have come. IPv4's, if they are first, wait a moment
// for IPv6's (RFC 8305 section 3), unless there is no IPv6 here anyway.
static void nkti_race_answers(nkt_conn *conn, nkti_race *race, int64_t now) {
    nkt_ip ips[NKT_LOOKUP_MAX];
    for (int i = 0; i < 2; i++) {
        if (race->lookup_err[i] != NKT_EAGAIN) continue;
        int result = nkti_lookup_take(&race->lookup, i, ips);
        if (result == NKT_EAGAIN) continue;
        race->lookup_err[i] = result < 0 ? result : (int)NKT_OK;
        race->lookup_ms[i] = nkti_race_ms(race, now);
        if (result > 0) nkti_race_add(conn, race, i, ips, result);
    }
    if (race->ipv6_until != NKT_NEVER || race->families[1].count == 0) return;
    race->ipv6_until = now;
    if (race->lookup_err[0] == NKT_EAGAIN && nkti_has_ipv6_route(conn->handle.env)) {
        race->ipv6_until = nkti_deadline(now, race->opts.resolution_delay_ms);
    }
}

// Whether all the answers that count for the first attempt are there.
static bool nkti_race_may_begin(const nkti_race *race, int64_t now) {
    return race->lookup_err[0] != NKT_EAGAIN || now >= race->ipv6_until;
}

static bool nkti_race_is_looking_up(const nkti_race *race) {
    return race->lookup_err[0] == NKT_EAGAIN || race->lookup_err[1] == NKT_EAGAIN;
}

// Why there was no address to try at all: that a family has none says less than
// that it could not be asked.
static int nkti_race_lookup_error(const nkti_race *race) {
    int err = NKT_ENOTFOUND;
    for (int i = 0; i < 2; i++) {
        int one = race->lookup_err[i];
        if (one < 0 && one != NKT_EOF && one != NKT_ENOTFOUND) err = one;
    }
    return err;
}

// The time is over. What the look-ups were about then is for the report.
static int nkti_race_timed_out(nkt_conn *conn, nkti_race *race, int64_t now) {
    for (int i = 0; i < 2; i++) {
        if (nkti_lookup_state(&race->lookup, i) == NKTI_LOOKUP_QUEUED) {
            race->lookup_err[i] = NKT_EBUSY;
        }
    }
    race->os_error = 0;
    return nkti_race_end(conn, race, NKT_NO_FD, NKT_ETIMEDOUT, now);
}

// One step of the race. NKT_OK: connected, and the race is gone; NKT_EAGAIN: go
// on waiting; else it has failed, and is gone too.
static int nkti_race_step(nkt_conn *conn) {
    nkti_race *race = (nkti_race *)conn->bottom.self;
    int64_t now = nkti_now(conn->handle.env);
    nkt_fd winner = NKT_NO_FD;
    bool failed = false, changed = false;
    if (nkti_race_check(conn, race, now, &winner, &failed) == NKT_OK) {
        return nkti_race_end(conn, race, winner, NKT_OK, now);
    }
    if (now >= race->deadline) return nkti_race_timed_out(conn, race, now);
    nkti_race_answers(conn, race, now);
    if (now >= race->retry_at) race->retry_at = 0;
    while (nkti_race_has_untried(race) && nkti_race_may_begin(race, now) &&
           race->under_way < NKT_ATTEMPTS_MAX && race->retry_at == 0 &&
           (race->under_way == 0 || failed || now >= race->next_start)) {
        int err = nkti_race_start_next(conn, race, now, &winner);
        if (err == NKT_OK) return nkti_race_end(conn, race, winner, NKT_OK, now);
        if (err == NKT_EBUSY) break;
        failed = err != NKT_EAGAIN;
        changed = true;
    }
    if (changed && race->under_way > 0) nkti_conn_update(conn);
    if (race->under_way > 0 || nkti_race_has_untried(race) || nkti_race_is_looking_up(race)) {
        return NKT_EAGAIN;
    }
    int err = race->attempt_count > 0 ? race->err : nkti_race_lookup_error(race);
    return nkti_race_end(conn, race, NKT_NO_FD, err, now);
}

static ptrdiff_t nkti_race_recv(nkt_link *link, void *buf, size_t cap) {
    int err = nkti_race_step(link->conn);
    return err < 0 ? err : nkt_link_recv(link, buf, cap);
}

static ptrdiff_t nkti_race_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    int err = nkti_race_step(link->conn);
    return err < 0 ? err : nkt_link_send(link, pieces, count);
}

static int nkti_race_shutdown_write(nkt_link *link) {
    int err = nkti_race_step(link->conn);
    return err < 0 ? err : nkt_link_shutdown_write(link);
}

static int nkti_race_flush(nkt_link *link) {
    return nkti_race_step(link->conn);
}

static void nkti_race_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    nkti_race *race = (nkti_race *)link->self;
    nkti_lookup *lookup = &race->lookup;
    (void)want;
    out->deadline_ns = nkti_min_time(out->deadline_ns, race->deadline);
    bool answered = nkti_lookup_state(lookup, 0) == NKTI_LOOKUP_ANSWERED ||
                    nkti_lookup_state(lookup, 1) == NKTI_LOOKUP_ANSWERED;
    bool untried = nkti_race_has_untried(race);
    if (answered) out->ready = true;
    if (race->retry_at != 0) out->deadline_ns = nkti_min_time(out->deadline_ns, race->retry_at);
    else if (untried && race->under_way < NKT_ATTEMPTS_MAX) {
        int64_t start = race->attempt_count > 0 ? race->next_start : race->ipv6_until;
        out->deadline_ns = nkti_min_time(out->deadline_ns, start);
    }
    for (uint32_t i = 0; i < race->under_way; i++) {
        nkt_interest_add(out, race->attempts[i].fd, NKT_WRITE);
    }
    if (NKTI_CONNECT_RECHECK && race->under_way > 0) {
        int64_t soon = nkti_after(nkti_now(link->conn->handle.env), NKTI_RECHECK_NS);
        out->deadline_ns = nkti_min_time(out->deadline_ns, soon);
    }
}

static void nkti_race_close(nkt_link *link, bool abort) {
    nkt_conn *conn = link->conn;
    nkti_race *race = (nkti_race *)link->self;
    (void)abort;
    nkti_lookup_cancel(&race->lookup, &conn->handle);
    while (race->under_way > 0) nkti_attempt_close(conn, race, 0);
    nkti_free(conn->handle.env, race, sizeof *race);
}

static const nkt_transport nkti_race_transport = {
    sizeof(nkt_transport), "connecting", nkti_race_recv, nkti_race_send,
    nkti_race_shutdown_write, nkti_race_watch, nkti_race_close, NULL, NULL, NULL,
    nkti_race_flush,
};

// --- The report --------------------------------------------------------------

// An attempt's error without what explains it: the whole says that once.
static void nkti_report_attempt(nkti_text *text, const nkt_attempt *attempt) {
    char addr[NKT_ADDR_TEXT_MAX];
    const char *what = attempt->err == NKT_EAGAIN ? "under way"
                       : attempt->err == NKT_ECANCELED ? "given up" : nkt_strerror(attempt->err);
    if (attempt->err == NKT_OK) what = "connected";
    nkt_addr_format(&attempt->addr, addr, sizeof addr);
    nkti_text_str(text, addr);
    nkti_text_str(text, " (");
    size_t len = 0;
    while (what[len] != '\0' && what[len] != ':') len++;
    nkti_text_bytes(text, what, len);
    nkti_text_str(text, attempt->end_ms >= 0 ? ", " : ", since ");
    nkti_text_number(text, attempt->end_ms >= 0 ? attempt->end_ms : attempt->start_ms);
    nkti_text_str(text, " ms)");
}

// What there is to say of look-ups: that they did not end.
static void nkti_report_lookups(nkti_text *text, const nkt_connect_report *report) {
    bool none[2], busy = false;
    for (int i = 0; i < 2; i++) {
        none[i] = report->lookup_err[i] == NKT_EAGAIN || report->lookup_err[i] == NKT_EBUSY;
        if (report->lookup_err[i] == NKT_EBUSY) busy = true;
    }
    if (!none[0] && !none[1]) return;
    nkti_text_str(text, busy ? "; the resolver was busy and not asked for "
                             : "; the resolver has not answered for ");
    nkti_text_str(text, none[0] && none[1] ? "IPv6 and IPv4" : none[0] ? "IPv6" : "IPv4");
}

static void nkti_report_begin(nkti_text *text, const char *target, int err) {
    nkti_text_str(text, err == NKT_OK ? "connected" : err == NKT_EAGAIN ? "connecting"
                                                                        : "cannot connect");
    if (target == NULL) return;
    nkti_text_str(text, " to ");
    nkti_text_str(text, target);
}

static void nkti_report_text(nkt_connect_report *report, const char *target) {
    nkti_text text = nkti_text_begin(report->text, sizeof report->text);
    nkti_report_begin(&text, target, report->err);
    nkti_text_str(&text, report->err == NKT_EAGAIN ? " for " : " in ");
    nkti_text_number(&text, report->elapsed_ms);
    nkti_text_str(&text, " ms");
    if (report->err < 0 && report->err != NKT_EAGAIN) {
        nkti_text_str(&text, ": ");
        nkti_text_str(&text, nkt_strerror(report->err));
    }
    nkti_report_lookups(&text, report);
    // A path is its own and only attempt.
    bool has_addrs = report->attempts[0].addr.ip.family != 0;
    for (int i = 0; has_addrs && i < report->attempt_count && i < NKT_ATTEMPTS_MAX; i++) {
        nkti_text_str(&text, i == 0 ? "; tried " : ", ");
        nkti_report_attempt(&text, &report->attempts[i]);
    }
    if (report->attempt_count > NKT_ATTEMPTS_MAX) {
        nkti_text_str(&text, " and ");
        nkti_text_number(&text, report->attempt_count - NKT_ATTEMPTS_MAX);
        nkti_text_str(&text, " more");
    }
}

// `given_up` is why a connect that is under way will not go on; NKT_EAGAIN: it
// will.
static int nkti_report(nkt_conn *conn, int given_up, nkt_connect_report *report) {
    nkti_connect_log *log = nkti_conn_log(conn);
    if (log == NULL && !conn->connecting) return NKT_ENOTFOUND;
    const char *target = NULL;
    memset(report, 0, sizeof *report);
    if (conn->connecting) {
        const nkti_race *race = (const nkti_race *)conn->bottom.self;
        target = race->target;
        report->err = given_up;
        report->elapsed_ms = nkti_race_ms(race, nkti_now(conn->handle.env));
        report->attempt_count = (int32_t)race->attempt_count;
        memcpy(report->lookup_err, race->lookup_err, sizeof report->lookup_err);
        memcpy(report->lookup_ms, race->lookup_ms, sizeof report->lookup_ms);
        memcpy(report->attempts, race->log, sizeof report->attempts);
    } else {
        if (log->target_size > 0) target = nkti_connect_log_target(log);
        memcpy(report, log, offsetof(nkt_connect_report, attempts));
        memcpy(report->attempts, nkti_connect_log_attempts(log),
               log->kept * sizeof report->attempts[0]);
    }
    nkti_report_text(report, target);
    return NKT_OK;
}

NKT_API int nkt_conn_report(nkt_conn *conn, nkt_connect_report *report) {
    return nkti_report(conn, NKT_EAGAIN, report);
}

// --- Starting ----------------------------------------------------------------

static void nkti_race_notify(void *conn) {
    nkt_conn_notify((nkt_conn *)conn);
}

static nkti_race *nkti_race_new(nkt_env *env, const nkt_connect_opts *opts,
                                const nkt_stream_opts *stream) {
    nkti_race *race = (nkti_race *)nkti_resize(env, NULL, 0, sizeof *race);
    if (race == NULL) return NULL;
    memset(race, 0, offsetof(nkti_race, families));     // which have counts
    race->families[0].next = race->families[0].count = 0;
    race->families[1].next = race->families[1].count = 0;
    if (opts != NULL) race->opts = *opts;
    race->opts.stream = *stream;
    race->opts.report = NULL;
    race->start = race->next_start = nkti_now(env);
    int32_t timeout_ms = race->opts.timeout_ms;
    if (timeout_ms == 0) timeout_ms = NKTI_CONNECT_TIMEOUT_MS;
    race->deadline = nkti_deadline(race->start, timeout_ms);
    if (race->opts.attempt_delay_ms <= 0) race->opts.attempt_delay_ms = NKTI_ATTEMPT_DELAY_MS;
    if (race->opts.resolution_delay_ms <= 0) {
        race->opts.resolution_delay_ms = NKTI_RESOLUTION_DELAY_MS;
    }
    // From an address of one family only that family can be reached.
    if (race->opts.local.ip.family != 0) race->opts.family = race->opts.local.ip.family;
    race->ipv6_until = NKT_NEVER;
    race->last_family = -1;
    for (int i = 0; i < 2; i++) {
        race->lookup_err[i] = NKT_EOF;
        race->lookup_ms[i] = -1;
    }
    if (opts != NULL && opts->interface_name != NULL) {
        memcpy(race->interface_name, opts->interface_name, strlen(opts->interface_name) + 1);
    }
    return race;
}

// The addresses that a target has by itself; a name has none until they come.
static int nkti_race_candidates(nkt_conn *conn, nkti_race *race, const nkt_target *target,
                                uint32_t flow_label) {
    int wanted = race->opts.family;
    nkt_ip ip = target->ip;
    race->port = target->port;
    if (target->kind == NKT_TARGET_UNIX) {
        memcpy(race->path, target->host, (size_t)target->host_len + 1);
        nkti_race_add(conn, race, 1, &ip, 1);
        return NKT_OK;
    }
    if (target->kind == NKT_TARGET_ADDR) {
        nkti_race_add(conn, race, ip.family == NKT_IPV4, &ip, 1);
        race->families[0].list[0].addr.flow_label = flow_label;
        return wanted == 0 || wanted == ip.family ? NKT_OK : NKT_EADDRNOTAVAIL;
    }
    if (nkt_host_is_local(target->host, target->host_len)) {
        nkt_ip ipv6 = nkt_ip_loopback(NKT_IPV6), ipv4 = nkt_ip_loopback(NKT_IPV4);
        if (wanted != NKT_IPV4) nkti_race_add(conn, race, 0, &ipv6, 1);
        if (wanted != NKT_IPV6) nkti_race_add(conn, race, 1, &ipv4, 1);
        return NKT_OK;
    }
    if (wanted != NKT_IPV4) race->lookup_err[0] = NKT_EAGAIN;
    if (wanted != NKT_IPV6) race->lookup_err[1] = NKT_EAGAIN;
    return nkti_lookup_begin(&race->lookup, &conn->handle, target->host, wanted,
                             nkti_race_notify, conn);
}

static int nkti_connect_check(nkt_env *env, const nkt_connect_opts *opts,
                              nkt_stream_opts *stream, nkt_problem *problem) {
    int err = nkti_stream_check(opts != NULL ? &opts->stream : NULL, stream, problem);
    if (err < 0 || opts == NULL) return err;
    if (opts->default_port < 0 || opts->default_port > 65535) {
        return nkti_problem_set(problem, NKT_EPORT, "default_port", -1,
                                "the default port is not a number from 0 to 65535");
    }
    int family = opts->family, local = opts->local.ip.family;
    if ((family != 0 && family != NKT_IPV4 && family != NKT_IPV6) ||
        (family != 0 && local != 0 && local != family)) {
        return nkti_problem_set(problem, NKT_EINVAL, "family", -1,
                                "the family is NKT_IPV4, NKT_IPV6 or 0, and that of the local "
                                "address if there is one");
    }
    uint32_t index;
    const char *name = opts->interface_name;
    if (name != NULL && (strlen(name) >= sizeof((nkti_race *)0)->interface_name ||
                         env->core->interface_index(env, name, &index) < 0)) {
        return nkti_problem_set(problem, NKT_ENODEV, "interface_name", -1,
                                "there is no network interface of that name");
    }
    return NKT_OK;
}

// Begins a connect to a target that has been read. `may_wait` as in
// nkti_lookup.
static int nkti_connect_begin(nkt_env *env, const nkt_target *target,
                              uint32_t flow_label, const nkt_connect_opts *opts, bool may_wait,
                              nkt_problem *problem, nkt_conn **out) {
    nkt_stream_opts stream;
    int err = nkti_connect_check(env, opts, &stream, problem);
    if (err < 0) return err;
    if (target->kind == NKT_TARGET_ANY) {
        return nkti_problem_set(problem, NKT_EADDR, "address", 0,
                                "expected a host in front of the port");
    }
    if (target->kind != NKT_TARGET_UNIX && target->port == 0) {
        return nkti_problem_set(problem, NKT_EPORT, "port", -1, "nobody listens on port 0");
    }
    nkti_race *race = nkti_race_new(env, opts, &stream);
    if (race == NULL) return NKT_ENOMEM;
    race->lookup.may_wait = may_wait;
    nkt_conn *conn = nkti_conn_new(env, opts != NULL && opts->nonblocking, &stream,
                                   &nkti_race_transport, race);
    err = conn == NULL ? (int)NKT_ENOMEM
                       : nkti_race_candidates(conn, race, target, flow_label);
    if (err < 0) {
        if (conn != NULL) nkti_conn_free(conn);
        nkti_free(env, race, sizeof *race);
        return err;
    }
    conn->connecting = true;
    nkt_target_format(target, race->target, sizeof race->target);
    nkti_conn_trace(conn, "connecting", NKT_OK, target->port);
    // The first attempt starts now; what becomes of it is for later calls.
    nkti_race_step(conn);
    *out = conn;
    return NKT_OK;
}

// A report of arguments that were refused. `target` is quoted, being what the
// user wrote.
static void nkti_report_problem(nkt_connect_report *report, int err, const char *target,
                                const nkt_problem *problem) {
    if (report == NULL) return;
    memset(report, 0, sizeof *report);
    report->err = err;
    report->problem = *problem;
    for (int i = 0; i < 2; i++) {
        report->lookup_err[i] = NKT_EOF;
        report->lookup_ms[i] = -1;
    }
    nkti_text text = nkti_text_begin(report->text, sizeof report->text);
    nkti_text_str(&text, "cannot connect");
    if (target != NULL) {
        nkti_text_str(&text, " to \"");
        nkti_text_bytes(&text, target, strlen(target) > 128 ? 128 : strlen(target));
        nkti_text_str(&text, "\"");
    }
    nkti_text_str(&text, ": ");
    nkti_text_str(&text, problem->err != 0 ? problem->text : nkt_strerror(err));
}

static int nkti_connect_text(const char *text, const nkt_connect_opts *opts, bool may_wait,
                             nkt_conn **out) {
    nkt_env *env = nkti_env_use(opts != NULL ? opts->env : NULL);
    int32_t default_port = opts != NULL && opts->default_port > 0 ? opts->default_port : -1;
    nkt_target target;
    nkt_problem problem;
    memset(&problem, 0, sizeof problem);
    if (env == NULL || text == NULL) {
        nkti_problem_set(&problem, NKT_EINVAL, env == NULL ? "env" : "target", -1,
                         env == NULL ? "the environment cannot be used; see nkt_env_init"
                                     : "no target was given");
        nkti_report_problem(opts != NULL ? opts->report : NULL, NKT_EINVAL, text, &problem);
        return NKT_EINVAL;
    }
    int err = nkti_target_parse_in(env, text, strlen(text), default_port, &target, &problem);
    if (err >= 0) err = nkti_connect_begin(env, &target, 0, opts, may_wait, &problem, out);
    if (err < 0 && opts != NULL) nkti_report_problem(opts->report, err, text, &problem);
    return err;
}

NKT_API int nkt_connect_start(const char *target, const nkt_connect_opts *opts,
                              nkt_conn **conn) {
    int err = nkti_connect_text(target, opts, false, conn);
    if (err >= 0 && opts != NULL && opts->report != NULL) nkt_conn_report(*conn, opts->report);
    return err;
}

static int nkti_connect_await(nkt_conn *conn, int64_t deadline) {
    while (conn->connecting) {
        if (nkti_atomic_load(&conn->canceled) != 0) return NKT_ECANCELED;
        nkti_push(conn);
        if (!conn->connecting) break;
        if (conn->handle.nonblocking) {
            nkti_conn_update(conn);
            return NKT_EAGAIN;
        }
        // The race has a deadline of its own, which ends it.
        if (deadline != NKT_NEVER && nkti_now(conn->handle.env) >= deadline) return NKT_EAGAIN;
        int err = nkti_conn_wait(conn, NKT_WRITE, &deadline);
        if (err < 0) return err == NKT_ETIMEDOUT ? (int)NKT_EAGAIN : err;
    }
    conn->connect_news = false;
    nkti_handle_spent(&conn->handle, NKT_CONNECTED);
    return conn->connect_err;
}

NKT_API int nkt_connect_finish(nkt_conn *conn) {
    return nkti_connect_await(conn, NKT_NEVER);
}

NKT_API int nkt_connect_wait(nkt_conn *conn, int32_t timeout_ms) {
    return nkti_connect_await(conn, nkti_deadline(nkti_now(conn->handle.env), timeout_ms));
}

// The caller's report is filled whatever happens, also where there was no
// memory to keep what was tried.
static void nkti_connect_tell(nkt_conn *conn, int err, nkt_connect_report *report) {
    nkt_problem none;
    if (nkti_report(conn, err < 0 ? err : (int)NKT_EAGAIN, report) == NKT_OK) return;
    memset(&none, 0, sizeof none);
    nkti_report_problem(report, err, NULL, &none);
    if (err < 0) return;
    nkti_text text = nkti_text_begin(report->text, sizeof report->text);
    nkti_text_str(&text, "connected");
}

// What nkt_connect and nkt_connect_addr do after the beginning.
static int nkti_connect_complete(const nkt_connect_opts *opts, nkt_conn *conn, nkt_conn **out) {
    int err = conn->handle.nonblocking ? NKT_OK : nkt_connect_finish(conn);
    if (opts != NULL && opts->report != NULL) nkti_connect_tell(conn, err, opts->report);
    if (err < 0) {
        nkt_conn_close(conn);
        return err;
    }
    *out = conn;
    return NKT_OK;
}

NKT_API int nkt_connect(const char *target, const nkt_connect_opts *opts, nkt_conn **out) {
    nkt_conn *conn = NULL;
    bool may_wait = opts == NULL || !opts->nonblocking;
    int err = nkti_connect_text(target, opts, may_wait, &conn);
    return err < 0 ? err : nkti_connect_complete(opts, conn, out);
}

NKT_API int nkt_connect_addr(const nkt_addr *addr, const nkt_connect_opts *opts,
                             nkt_conn **out) {
    nkt_env *env = nkti_env_use(opts != NULL ? opts->env : NULL);
    nkt_target target;
    nkt_problem problem;
    nkt_conn *conn = NULL;
    memset(&problem, 0, sizeof problem);
    memset(&target, 0, sizeof target);
    int err = env == NULL ? NKT_EINVAL : NKT_OK;
    if (err >= 0 && (addr == NULL || addr->ip.family == 0)) {
        err = nkti_problem_set(&problem, NKT_EADDR, "addr", -1, "no address was given");
    }
    if (err >= 0) {
        target.kind = NKT_TARGET_ADDR;
        target.ip = addr->ip;
        target.port = addr->port;
        err = nkti_connect_begin(env, &target, addr->flow_label, opts, false, &problem, &conn);
    }
    if (err < 0) {
        if (opts != NULL) nkti_report_problem(opts->report, err, NULL, &problem);
        return err;
    }
    return nkti_connect_complete(opts, conn, out);
}

#ifndef NETKIT_NO_MESSAGE
//==============================================================================
// MARK: @message - a length and that many bytes
//
// A message is read like a line: it is taken from the buffer once all of it is
// there, and nothing is consumed before.
//==============================================================================

#define NKTI_MESSAGE_HEADER 4

NKT_API int nkt_conn_read_message(nkt_conn *conn, nkt_str *message) {
    nkti_call call = nkti_call_begin();
    nkti_read_begin(conn, NKTI_PROGRESS_NONE);
    for (;;) {
        size_t unread = nkti_unread(conn);
        if (unread >= NKTI_MESSAGE_HEADER) {
            const uint8_t *bytes = conn->in->bytes + conn->in->head;
            uint32_t len = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 |
                           (uint32_t)bytes[2] << 8 | bytes[3];
            if (len > conn->message_max) return nkti_read_too_long(conn);
            if (unread - NKTI_MESSAGE_HEADER >= len) {
                nkti_consume(conn->in, NKTI_MESSAGE_HEADER);
                *message = nkti_view(conn, len);
                nkti_consume(conn->in, len);
                return nkti_read_done(conn);
            }
        }
        int err = nkti_fill(conn, &call);
        if (err == NKT_EOF && nkti_unread(conn) > 0) err = NKT_ETRUNCATED;
        if (err < 0) return (int)nkti_read_end(conn, err);
    }
}

NKT_API int nkt_conn_write_message(nkt_conn *conn, const void *data, size_t len) {
    uint8_t header[NKTI_MESSAGE_HEADER];
    nkt_str pieces[2];
    conn->written = 0;
    if (len > conn->message_max) return NKT_ETOOLONG;
    header[0] = (uint8_t)(len >> 24);
    header[1] = (uint8_t)(len >> 16);
    header[2] = (uint8_t)(len >> 8);
    header[3] = (uint8_t)len;
    pieces[0].ptr = (const char *)header;
    pieces[0].len = sizeof header;
    pieces[1].ptr = (const char *)data;
    pieces[1].len = len;
    return nkt_conn_writev(conn, pieces, 2);
}
#endif

#ifndef NETKIT_NO_PAIR
//==============================================================================
// MARK: @pair - two ends of a connection in memory
//
// A ring of bytes in each direction, a lock, and two ends that a transport is
// put on. It uses nothing that a program's own module could not use, and so
// shows that the table of functions is enough:
//
//     a.send --> [ ring 0 ] --> b.recv          notify b when bytes came
//     a.recv <-- [ ring 1 ] <-- b.send          notify a when room came
//
// An end that closes with unread bytes is a reset for the other, as with TCP.
//==============================================================================

typedef struct nkti_ring {
    size_t at, len;
    bool finished;              // the writing end has said it was all
    uint8_t bytes[NKT_PAIR_CAPACITY];
} nkti_ring;

typedef struct nkti_pair {
    nkti_mutex lock;
    nkt_env *env;
    nkt_conn *ends[2];          // NULL once closed
    bool reset;                 // one end closed rudely
    nkti_ring rings[2];         // written by end 0, by end 1
} nkti_pair;

static nkti_pair *nkti_pair_of(nkt_link *link) {
    return (nkti_pair *)link->self;
}

static int nkti_pair_side(nkt_link *link) {
    return nkti_pair_of(link)->ends[1] == link->conn;
}

static void nkti_pair_notify(nkti_pair *pair, int side) {
    if (pair->ends[side] != NULL) nkt_conn_notify(pair->ends[side]);
}

static ptrdiff_t nkti_pair_recv(nkt_link *link, void *buf, size_t cap) {
    nkti_pair *pair = nkti_pair_of(link);
    nkti_mutex_lock(&pair->lock);
    int side = nkti_pair_side(link);
    nkti_ring *ring = &pair->rings[!side];
    size_t count = ring->len < cap ? ring->len : cap;
    bool was_full = ring->len == sizeof ring->bytes;
    if (count > sizeof ring->bytes - ring->at) count = sizeof ring->bytes - ring->at;
    memcpy(buf, ring->bytes + ring->at, count);
    ring->at = (ring->at + count) % sizeof ring->bytes;
    ring->len -= count;
    ptrdiff_t result = (ptrdiff_t)count;
    if (count == 0) result = pair->reset ? NKT_ERESET : ring->finished ? NKT_EOF : NKT_EAGAIN;
    if (was_full && count > 0) nkti_pair_notify(pair, !side);
    nkti_mutex_unlock(&pair->lock);
    return result;
}

static size_t nkti_ring_put(nkti_ring *ring, const char *ptr, size_t len) {
    size_t done = 0;
    while (done < len && ring->len < sizeof ring->bytes) {
        size_t end = (ring->at + ring->len) % sizeof ring->bytes;
        size_t room = sizeof ring->bytes - ring->len;
        if (room > sizeof ring->bytes - end) room = sizeof ring->bytes - end;
        if (room > len - done) room = len - done;
        memcpy(ring->bytes + end, ptr + done, room);
        ring->len += room;
        done += room;
    }
    return done;
}

static ptrdiff_t nkti_pair_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    nkti_pair *pair = nkti_pair_of(link);
    ptrdiff_t sent = 0;
    nkti_mutex_lock(&pair->lock);
    int side = nkti_pair_side(link);
    nkti_ring *ring = &pair->rings[side];
    if (pair->ends[!side] == NULL || pair->reset) {
        sent = pair->reset ? NKT_ERESET : NKT_EPIPE;
    } else {
        bool was_empty = ring->len == 0;
        for (size_t i = 0; i < count; i++) {
            sent += (ptrdiff_t)nkti_ring_put(ring, pieces[i].ptr, pieces[i].len);
        }
        if (sent == 0) sent = NKT_EAGAIN;
        else if (was_empty) nkti_pair_notify(pair, !side);
    }
    nkti_mutex_unlock(&pair->lock);
    return sent;
}

static int nkti_pair_shutdown_write(nkt_link *link) {
    nkti_pair *pair = nkti_pair_of(link);
    nkti_mutex_lock(&pair->lock);
    int side = nkti_pair_side(link);
    pair->rings[side].finished = true;
    nkti_pair_notify(pair, !side);
    nkti_mutex_unlock(&pair->lock);
    return NKT_OK;
}

static void nkti_pair_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    nkti_pair *pair = nkti_pair_of(link);
    nkti_mutex_lock(&pair->lock);
    int side = nkti_pair_side(link);
    const nkti_ring *in = &pair->rings[!side];
    bool over = pair->reset || pair->ends[!side] == NULL;
    if ((want & NKT_READ) && (in->len > 0 || in->finished || over)) out->ready = true;
    if ((want & NKT_WRITE) && (pair->rings[side].len < NKT_PAIR_CAPACITY || over)) {
        out->ready = true;
    }
    nkti_mutex_unlock(&pair->lock);
}

static void nkti_pair_close(nkt_link *link, bool abort) {
    nkti_pair *pair = nkti_pair_of(link);
    nkt_env *env = pair->env;
    bool forked = nkti_forked(&link->conn->handle);
    if (!forked) nkti_mutex_lock(&pair->lock);
    int side = nkti_pair_side(link);
    if (abort || pair->rings[!side].len > 0) pair->reset = true;
    pair->rings[side].finished = true;
    pair->ends[side] = NULL;
    bool last = pair->ends[!side] == NULL;
    if (!forked) {
        nkti_pair_notify(pair, !side);
        nkti_mutex_unlock(&pair->lock);
    }
    if (!last) return;
    if (!forked) nkti_mutex_free(&pair->lock);
    nkti_free(env, pair, sizeof *pair);
}

static const nkt_transport nkti_pair_transport = {
    sizeof(nkt_transport), "pair", nkti_pair_recv, nkti_pair_send, nkti_pair_shutdown_write,
    nkti_pair_watch, nkti_pair_close, NULL, NULL, NULL, NULL,
};

NKT_API int nkt_conn_pair(const nkt_conn_opts *a_opts, const nkt_conn_opts *b_opts,
                          nkt_conn **a, nkt_conn **b) {
    nkt_env *env = nkti_env_use(a_opts != NULL ? a_opts->env : NULL);
    if (env == NULL || nkti_env_use(b_opts != NULL ? b_opts->env : NULL) != env) {
        return NKT_EINVAL;
    }
    nkti_pair *pair = (nkti_pair *)nkti_resize(env, NULL, 0, sizeof *pair);
    if (pair == NULL) return NKT_ENOMEM;
    for (int i = 0; i < 2; i++) {
        pair->rings[i].at = pair->rings[i].len = 0;
        pair->rings[i].finished = false;
    }
    pair->env = env;
    pair->reset = false;
    pair->ends[0] = pair->ends[1] = NULL;
    nkti_mutex_init(&pair->lock);
    int err = nkt_conn_open_custom(&nkti_pair_transport, pair, a_opts, &pair->ends[0]);
    if (err >= 0) {
        err = nkt_conn_open_custom(&nkti_pair_transport, pair, b_opts, &pair->ends[1]);
        if (err < 0) {
            // Closing the one end that is there frees the pair.
            nkt_conn_close(pair->ends[0]);
            return err;
        }
        *a = pair->ends[0];
        *b = pair->ends[1];
        return NKT_OK;
    }
    nkti_mutex_free(&pair->lock);
    nkti_free(env, pair, sizeof *pair);
    return err;
}
#endif

//==============================================================================
// MARK: @listen - accepting connections
//
// A listener has one descriptor or two:
//
//     ":port"            one [::] that takes IPv4 too; without dual-stack
//                        sockets [::] and 0.0.0.0; without IPv6 0.0.0.0
//     "localhost:port"   [::1] and 127.0.0.1, or whichever there is
//     "address:port"     that one; [::] is IPv6 alone then
//     "unix:/path"       that one
//
// Where two descriptors share a port the system was asked to choose, the first
// one's choice may be taken for the second: then both are opened anew.
//
// Out of descriptors, the listener rests: it is deregistered until
// `rest_until`, so that neither the poller nor a caller's loop spins, and the
// peers wait in the kernel's queue.
//==============================================================================

#define NKTI_LISTEN_FDS 2
#define NKTI_BACKLOG 511
#define NKTI_PORT_TRIES 16              // for two descriptors to agree on a free port
#define NKTI_ACCEPT_TRIES 32            // dead connections passed over in one call
#define NKTI_ACCEPT_REST (100 * NKTI_MS)

struct nkt_listener {
    nkti_handle handle;
    nkti_waiter *waiter;                // under the lock
    uint32_t canceled;                  // atomic
    int32_t os_error;
    nkt_fd fds[NKTI_LISTEN_FDS];
    int fd_count;
    int next_fd;                        // whose turn it is
    int64_t rest_until;                 // 0 = not resting
    int64_t accept_deadline;            // nonblocking only
    int32_t accept_timeout_ms;
    bool unlink_path;
    bool odd;                           // what it accepts is, see nkti_is_odd
    bool slow_full;                     // it holds as many as it can
    char *path;                         // of a Unix-domain listener
    nkt_stream_opts stream;
    // Of @impair: what delays accepting.
    struct nkti_slow_accept *slow;
    int (*slow_accept)(nkt_listener *listener, nkt_conn **out);
    void (*slow_free)(nkt_listener *listener, struct nkti_slow_accept *heir);
    int64_t slow_due;                   // when the first one that it holds is
};

static void nkti_listener_interest(nkti_handle *handle, nkt_interest *out) {
    nkt_listener *listener = (nkt_listener *)(void *)handle;
    if (nkti_atomic_load(&listener->canceled) != 0) out->ready = true;
    out->deadline_ns = nkti_min_time(listener->accept_deadline, listener->slow_due);
    if (listener->rest_until != 0) {
        out->deadline_ns = nkti_min_time(out->deadline_ns, listener->rest_until);
        return;
    }
    for (int i = 0; i < listener->fd_count && !listener->slow_full; i++) {
        nkt_interest_add(out, listener->fds[i], NKT_READ);
    }
}

static void nkti_listener_poll_interest(nkti_handle *handle, nkt_interest *out) {
    if (handle->want & NKT_READ) nkti_listener_interest(handle, out);
}

static void nkti_listener_drive(nkti_handle *handle, uint32_t ready, int64_t now) {
    nkt_listener *listener = (nkt_listener *)(void *)handle;
    if (nkti_atomic_load(&listener->canceled) != 0 || now >= listener->accept_deadline ||
        now >= listener->slow_due) {
        ready |= NKT_READ;
    }
    if (listener->rest_until != 0 && now >= listener->rest_until) {
        listener->rest_until = 0;
        ready |= NKT_READ;
    }
    nkti_handle_ready(handle, ready & handle->want & NKT_READ);
    nkti_handle_update(handle);
}

static const nkti_handle_ops nkti_listener_ops = {
    "listener", nkti_listener_drive, nkti_listener_poll_interest,
};

NKT_API int nkt_poller_add_listener(nkt_poller *poller, nkt_listener *listener, void *user) {
    return nkti_handle_join(poller, &listener->handle, NKT_READ, user);
}

// --- Opening -----------------------------------------------------------------

// Opens, binds and listens on one address. `dual` takes IPv4 too.
static int nkti_listen_one(nkt_listener *listener, const nkt_listen_opts *opts, int family,
                           const void *name, size_t len, bool dual, nkt_fd *out) {
    nkt_env *env = listener->handle.env;
    const nkt_sys_core *core = env->core;
    nkt_fd fd = NKT_NO_FD;
    int backlog = opts->backlog > 0 ? opts->backlog : NKTI_BACKLOG;
    int err = core->open(env, family, 1, &fd);
    if (err < 0) {
        listener->os_error = core->last_error(env);
        return err;
    }
    if (family == NKT_IPV6) err = core->set_option(env, fd, NKT_SO_V6ONLY, !dual);
    if (err >= 0 && family != NKT_UNIX) {
        err = core->set_option(env, fd, NKT_SO_REUSE_ADDRESS, 1);
        // Linux and the BSDs hand these on to what is accepted, and buffer
        // sizes must be known before the first segment anyway.
        nkti_stream_apply(env, fd, &listener->stream);
    }
    if (err >= 0 && opts->reuse_port) err = core->set_option(env, fd, NKT_SO_REUSE_PORT, 1);
    if (err >= 0 && opts->interface_name != NULL) {
        err = !NKTI_LISTEN_INTERFACE ? (int)NKT_EUNSUPPORTED
            : core->bind_interface(env, fd, opts->interface_name, family);
    }
    if (err >= 0) err = core->bind(env, fd, name, len);
    if (err >= 0) err = core->listen(env, fd, backlog);
    if (err < 0) {
        listener->os_error = core->last_error(env);
        core->close(env, fd);
        return err;
    }
    *out = fd;
    return NKT_OK;
}

static int nkti_listen_addr(nkt_listener *listener, const nkt_listen_opts *opts,
                            const nkt_ip *ip, uint16_t port, bool dual) {
    union { uint64_t align; char room[NKT_SOCKADDR_MAX]; } name;
    nkt_addr addr = nkt_addr_make(ip, port);
    int len = nkt_addr_to_sockaddr(&addr, &name, sizeof name);
    if (len < 0) return len;
    int err = nkti_listen_one(listener, opts, ip->family, &name, (size_t)len, dual,
                              &listener->fds[listener->fd_count]);
    if (err >= 0) listener->fd_count++;
    return err;
}

static void nkti_listener_close_fds(nkt_listener *listener) {
    nkt_env *env = listener->handle.env;
    while (listener->fd_count > 0) env->core->close(env, listener->fds[--listener->fd_count]);
}

// Whether an error says that the host does not have the family at all.
static bool nkti_is_no_family(int err) {
    return err == NKT_EUNSUPPORTED || err == NKT_EADDRNOTAVAIL;
}

// IPv6 and IPv4 on two descriptors, or on one if the host has only one family.
static int nkti_listen_two(nkt_listener *listener, const nkt_listen_opts *opts,
                           const nkt_ip *ipv6, const nkt_ip *ipv4, uint16_t port) {
    int err = NKT_EADDRINUSE;
    for (int i = 0; i < NKTI_PORT_TRIES && err == NKT_EADDRINUSE; i++) {
        uint16_t chosen = port;
        nkt_addr local;
        err = nkti_listen_addr(listener, opts, ipv6, port, false);
        if (err < 0 && !nkti_is_no_family(err)) return err;
        bool has_ipv6 = err >= 0;
        if (has_ipv6 && port == 0) {
            err = nkti_fd_name(listener->handle.env, listener->fds[0], false, &local);
            chosen = err >= 0 ? local.port : 0;
            if (chosen == 0) err = NKT_EOS;     // IPv4 would get a port of its own
        }
        if (err >= 0 || !has_ipv6) err = nkti_listen_addr(listener, opts, ipv4, chosen, false);
        if (err < 0 && has_ipv6 && nkti_is_no_family(err)) return NKT_OK;
        if (err < 0) nkti_listener_close_fds(listener);
        if (err == NKT_EADDRINUSE && port != 0) return err;
    }
    return err;
}

static int nkti_listen_any(nkt_listener *listener, const nkt_listen_opts *opts, uint16_t port) {
    nkt_ip ipv6 = nkt_ip_any(NKT_IPV6), ipv4 = nkt_ip_any(NKT_IPV4);
    int err = nkti_listen_addr(listener, opts, &ipv6, port, true);
    if (err == NKT_EADDRINUSE || err == NKT_EACCES || err == NKT_EMFILE || err >= 0) return err;
    return nkti_listen_two(listener, opts, &ipv6, &ipv4, port);
}

// A path that nobody listens on any more is removed; one that is alive is not.
static bool nkti_unix_is_stale(nkt_listener *listener, const nkti_unix_addr *name, size_t len) {
    nkt_env *env = listener->handle.env;
    nkt_fd fd = NKT_NO_FD;
    if (env->core->open(env, NKT_UNIX, 1, &fd) < 0) return false;
    int err = env->core->connect(env, fd, name, len);
    env->core->close(env, fd);
    return err == NKT_EREFUSED;
}

static int nkti_listen_unix(nkt_listener *listener, const nkt_listen_opts *opts,
                            const nkt_target *target) {
    nkt_env *env = listener->handle.env;
    nkti_unix_addr name;
    int len = nkti_unix_to_sockaddr(target->host, &name);
    if (len < 0) return len;
    size_t path_size = (size_t)target->host_len + 1;
    listener->path = (char *)nkti_alloc(env, path_size);
    if (listener->path == NULL) return NKT_ENOMEM;
    memcpy(listener->path, target->host, path_size);
    int err = nkti_listen_one(listener, opts, NKT_UNIX, &name, (size_t)len, false,
                              &listener->fds[0]);
    if (err == NKT_EADDRINUSE && nkti_unix_is_stale(listener, &name, (size_t)len)) {
        err = env->core->unlink(env, target->host);
        if (err >= 0) {
            err = nkti_listen_one(listener, opts, NKT_UNIX, &name, (size_t)len, false,
                                  &listener->fds[0]);
        }
    }
    if (err < 0) return err;
    listener->fd_count = 1;
    listener->unlink_path = !opts->keep_path && target->host[0] != '@';
    return NKT_OK;
}

static int nkti_listen_target(nkt_listener *listener, const nkt_listen_opts *opts,
                              const nkt_target *target, nkt_problem *problem) {
    switch ((int)target->kind) {
    case NKT_TARGET_UNIX: return nkti_listen_unix(listener, opts, target);
    case NKT_TARGET_ANY: return nkti_listen_any(listener, opts, target->port);
    case NKT_TARGET_ADDR:
        return nkti_listen_addr(listener, opts, &target->ip, target->port, false);
    default: break;
    }
    if (!nkt_host_is_local(target->host, target->host_len)) {
        return nkti_problem_set(problem, NKT_EADDRNOTAVAIL, "host", 0,
                                "to listen give an address of this host, localhost, or "
                                "a port alone for all of them");
    }
    nkt_ip ipv6 = nkt_ip_loopback(NKT_IPV6), ipv4 = nkt_ip_loopback(NKT_IPV4);
    return nkti_listen_two(listener, opts, &ipv6, &ipv4, target->port);
}

static nkt_listener *nkti_listener_new(nkt_env *env, const nkt_listen_opts *opts,
                                       const nkt_stream_opts *stream) {
    nkt_listener *listener = (nkt_listener *)nkti_alloc(env, sizeof *listener);
    if (listener == NULL) return NULL;
    nkti_handle_init(&listener->handle, env, &nkti_listener_ops, opts->nonblocking);
    listener->slow_due = NKT_NEVER;
    listener->accept_deadline = NKT_NEVER;
    listener->accept_timeout_ms = opts->accept_timeout_ms;
    listener->stream = *stream;
    return listener;
}

static void nkti_listener_free(nkt_listener *listener) {
    nkt_env *env = listener->handle.env;
    if (listener->path != NULL) nkti_free(env, listener->path, strlen(listener->path) + 1);
    nkti_free(env, listener, sizeof *listener);
}

// Everything about the arguments, before the first system call.
static int nkti_listen_check(nkt_env *env, const char *text, const nkt_listen_opts *opts,
                             nkt_stream_opts *stream, nkt_target *target,
                             nkt_problem *problem) {
    if (env == NULL || text == NULL) {
        return nkti_problem_set(problem, NKT_EINVAL, env == NULL ? "env" : "target", -1,
                                env == NULL ? "the environment cannot be used; see "
                                              "nkt_env_init" : "no target was given");
    }
    int err = nkti_stream_check(&opts->stream, stream, problem);
    if (err < 0) return err;
    if (opts->backlog < 0) {
        return nkti_problem_set(problem, NKT_EINVAL, "backlog", -1, "the backlog is negative");
    }
    err = nkti_target_parse_in(env, text, strlen(text), -1, target, problem);
    uint32_t index;
    if (err >= 0 && opts->interface_name != NULL &&
        env->core->interface_index(env, opts->interface_name, &index) < 0) {
        return nkti_problem_set(problem, NKT_ENODEV, "interface_name", -1,
                                "there is no network interface of that name");
    }
    return err;
}

// What the system refused, in a sentence. `what` is the target, or NULL.
static int nkti_listen_problem(nkt_problem *problem, int err, int32_t os_error,
                               const char *what) {
    if (problem == NULL || problem->err != 0) return err;
    nkti_problem_set(problem, err, "listen", -1, "cannot listen");
    problem->os_error = os_error;
    nkti_text text = nkti_text_begin(problem->text, sizeof problem->text);
    nkti_text_str(&text, "cannot listen on ");
    nkti_text_str(&text, what != NULL ? what : "the descriptor");
    nkti_text_str(&text, ": ");
    nkti_text_str(&text, nkt_strerror(err));
    return err;
}

NKT_API int nkt_listen(const char *text, const nkt_listen_opts *given, nkt_listener **out) {
    nkt_listen_opts opts;
    nkt_stream_opts stream;
    nkt_target target;
    memset(&opts, 0, sizeof opts);
    if (given != NULL) opts = *given;
    if (opts.problem != NULL) memset(opts.problem, 0, sizeof *opts.problem);
    nkt_env *env = nkti_env_use(opts.env);
    int err = nkti_listen_check(env, text, &opts, &stream, &target, opts.problem);
    if (err < 0) return err;
    nkt_listener *listener = nkti_listener_new(env, &opts, &stream);
    if (listener == NULL) return nkti_listen_problem(opts.problem, NKT_ENOMEM, 0, text);
    err = nkti_listen_target(listener, &opts, &target, opts.problem);
    if (err < 0) {
        int32_t os_error = listener->os_error;
        nkti_listener_close_fds(listener);
        nkti_listener_free(listener);
        return nkti_listen_problem(opts.problem, err, os_error, text);
    }
    nkti_trace(env, listener, "listener", "listening", NKT_OK, listener->fds[0]);
    *out = listener;
    return NKT_OK;
}

NKT_API int nkt_listener_adopt(nkt_fd fd, const nkt_listen_opts *given, nkt_listener **out) {
    nkt_listen_opts opts;
    nkt_stream_opts stream;
    int64_t type = 0, listening = 0;
    memset(&opts, 0, sizeof opts);
    if (given != NULL) opts = *given;
    if (opts.problem != NULL) memset(opts.problem, 0, sizeof *opts.problem);
    nkt_env *env = nkti_env_use(opts.env);
    if (env == NULL) return NKT_EINVAL;
    int err = nkti_stream_check(&opts.stream, &stream, opts.problem);
    if (err < 0) return err;
    bool is_stream = env->core->get_option(env, fd, NKT_SO_TYPE, &type) >= 0 && type == 1;
    // macOS does not tell whether a socket listens; one with a peer does not.
    if (env->core->get_option(env, fd, NKT_SO_LISTENING, &listening) < 0) {
        nkt_addr peer;
        listening = nkti_fd_name(env, fd, true, &peer) < 0;
    }
    if (!is_stream || listening == 0) {
        return nkti_listen_problem(opts.problem, NKT_ENOTSOCK, 0, NULL);
    }
    nkt_listener *listener = nkti_listener_new(env, &opts, &stream);
    if (listener == NULL) return nkti_listen_problem(opts.problem, NKT_ENOMEM, 0, NULL);
    err = env->core->set_blocking(env, fd, false);
    if (err < 0) {
        nkti_listener_free(listener);
        return nkti_listen_problem(opts.problem, err, env->core->last_error(env), NULL);
    }
    env->core->set_option(env, fd, NKT_SO_PREPARE, 1);
    nkti_stream_apply(env, fd, &stream);
    listener->fds[0] = fd;
    listener->fd_count = 1;
    listener->odd = nkti_is_odd(env, fd);
    nkti_trace(env, listener, "listener", "adopted", NKT_OK, fd);
    *out = listener;
    return NKT_OK;
}

// --- Accepting ---------------------------------------------------------------

// One descriptor's next connection, passing over those that are dead.
static int nkti_accept_fd(nkt_listener *listener, nkt_fd fd, nkt_conn **out) {
    nkt_env *env = listener->handle.env;
    nkt_fd accepted = NKT_NO_FD;
    int err = NKT_EABORTED;
    for (int i = 0; i < NKTI_ACCEPT_TRIES && (err == NKT_EABORTED || err == NKT_EINTR); i++) {
        err = env->core->accept(env, fd, &accepted, NULL, NULL);
    }
    if (err == NKT_EABORTED || err == NKT_EINTR) return NKT_EAGAIN;
    if (err < 0) {
        if (err != NKT_EAGAIN) listener->os_error = env->core->last_error(env);
        return err;
    }
    nkt_conn *conn = nkti_conn_new_socket(env, listener->handle.nonblocking, &listener->stream,
                                          accepted);
    if (conn == NULL) {
        env->core->close(env, accepted);
        return NKT_ENOMEM;
    }
    conn->recv_wait_tried = listener->odd;
    if (!NKTI_ACCEPT_INHERITS) nkti_stream_apply(env, accepted, &listener->stream);
    *out = conn;
    return NKT_OK;
}

static int nkti_accept_try(nkt_listener *listener, nkt_conn **out) {
    nkt_env *env = listener->handle.env;
    if (nkti_atomic_load(&listener->canceled) != 0) return NKT_ECANCELED;
    if (listener->rest_until != 0) {
        if (nkti_now(env) < listener->rest_until) return NKT_EAGAIN;
        listener->rest_until = 0;
    }
    int err = NKT_EAGAIN;
    for (int i = 0; i < listener->fd_count && err == NKT_EAGAIN; i++) {
        nkt_fd fd = listener->fds[listener->next_fd];
        listener->next_fd = (listener->next_fd + 1) % listener->fd_count;
        err = nkti_accept_fd(listener, fd, out);
    }
    if (err != NKT_EMFILE && err != NKT_ENOMEM) return err;
    listener->rest_until = nkti_after(nkti_now(env), NKTI_ACCEPT_REST);
    nkti_trace_os(env, listener, "listener", "resting", err, listener->os_error, 0);
    return err;
}

// Nobody there: what a nonblocking listener returns.
static int nkti_accept_again(nkt_listener *listener, int err) {
    nkti_handle *handle = &listener->handle;
    nkti_handle_spent(handle, NKT_READ);
    if (listener->rest_until != 0) nkti_handle_update(handle);
    if (err != NKT_EAGAIN || listener->accept_timeout_ms <= 0) return err;
    int64_t now = nkti_now(handle->env);
    if (listener->accept_deadline == NKT_NEVER) {
        listener->accept_deadline = nkti_deadline(now, listener->accept_timeout_ms);
    }
    if (now >= listener->accept_deadline) {
        listener->accept_deadline = NKT_NEVER;
        return NKT_ETIMEDOUT;
    }
    nkti_handle_schedule(handle, listener->accept_deadline);
    return NKT_EAGAIN;
}

NKT_API int nkt_accept(nkt_listener *listener, nkt_conn **out) {
    nkt_env *env = listener->handle.env;
    int64_t deadline = 0;
    for (;;) {
        int err = listener->slow_accept != NULL ? listener->slow_accept(listener, out)
                                                : nkti_accept_try(listener, out);
        if (err >= 0) {
            listener->accept_deadline = NKT_NEVER;
            nkti_trace(env, listener, "listener", "accepted", NKT_OK, 0);
            return err;
        }
        if (listener->handle.nonblocking) return nkti_accept_again(listener, err);
        if (err != NKT_EAGAIN) return err;
        int64_t now = nkti_now(env);
        if (deadline == 0) {
            int32_t timeout_ms = listener->accept_timeout_ms;
            deadline = nkti_deadline(now, timeout_ms > 0 ? timeout_ms : -1);
        }
        if (now >= deadline) return NKT_ETIMEDOUT;
        nkt_interest interest;
        nkti_interest_clear(&interest);
        err = nkti_wait_begin(env, &listener->waiter, &listener->canceled);
        if (err < 0) return err;
        nkti_listener_interest(&listener->handle, &interest);
        err = nkti_wait_end(env, &listener->waiter, &interest, deadline);
        if (err < 0) return err;
    }
}

NKT_API void nkt_listener_set_timeout(nkt_listener *listener, int32_t timeout_ms) {
    listener->accept_timeout_ms = timeout_ms;
    listener->accept_deadline = NKT_NEVER;
}

NKT_API void nkt_listener_interrupt(nkt_listener *listener) {
    nkt_env *env = listener->handle.env;
    nkti_lock(env);
    nkti_atomic_store(&listener->canceled, 1);
    nkti_waiter_post(env, listener->waiter);
    nkti_handle_post(&listener->handle);
    nkti_unlock(env);
}

NKT_API void nkt_listener_close(nkt_listener *listener) {
    if (listener == NULL) return;
    nkt_env *env = listener->handle.env;
    nkti_settle(&listener->handle, &listener->canceled);
    nkti_handle_leave(&listener->handle);
    nkti_trace(env, listener, "listener", "closed", NKT_OK, 0);
    if (listener->slow_free != NULL) listener->slow_free(listener, NULL);
    // The path goes first, so that nobody finds it and is refused.
    if (listener->unlink_path && !nkti_forked(&listener->handle)) {
        env->core->unlink(env, listener->path);
    }
    nkti_listener_close_fds(listener);
    nkti_listener_free(listener);
}

NKT_API int nkt_listener_local(nkt_listener *listener, nkt_addr *addr) {
    nkt_addr found;
    int err = nkti_fd_name(listener->handle.env, listener->fds[0], false, &found);
    if (err < 0 || found.ip.family == 0) return NKT_ENOTCONN;
    *addr = found;
    return NKT_OK;
}

NKT_API int nkt_listener_name(nkt_listener *listener, char *buf, size_t cap) {
    nkt_addr addr;
    if (nkt_listener_local(listener, &addr) >= 0) return nkt_addr_format(&addr, buf, cap);
    nkti_text text = nkti_text_begin(buf, cap);
    nkti_text_str(&text, "unix:");
    if (listener->path != NULL) nkti_text_str(&text, listener->path);
    return text.cut ? NKT_ENOSPACE : (int)text.len;
}

NKT_API nkt_fd nkt_listener_descriptor(nkt_listener *listener) {
    return listener->fds[0];
}

NKT_API int32_t nkt_listener_os_error(const nkt_listener *listener) {
    return listener->os_error;
}

NKT_API int nkt_listener_watch(nkt_listener *listener, nkt_interest *interest) {
    nkti_interest_clear(interest);
    nkti_listener_interest(&listener->handle, interest);
    return NKT_OK;
}

#ifndef NETKIT_NO_UDP
//==============================================================================
// MARK: @datagram - one datagram, and what a handle of them stands on
//
// Calls down the chain of links, and the lowest link that is one or two
// sockets. The handle itself is described here, because links point to it:
//
//     nkt_udp  ->  links above  ->  the socket link: one or two descriptors
//        |
//        +- batch    slots of 64 KiB that nkt_udp_recv_many fills; a slot
//        |           may hold many datagrams, handed out as views
//        +- members  wishes (index 0: every interface) and what came of them,
//        |           one row for each interface that is joined
//        +- ifaces   the interfaces at the last look, until there is news
//==============================================================================

#define NKTI_UDP_MAX4 65507
#define NKTI_UDP_MAX6 65527
#define NKTI_NET_RECHECK (2000 * NKTI_MS)   // where the system tells no news
#define NKTI_UDP_SWALLOWED 16               // errors for others passed over in one call

typedef struct nkti_udp_batch {
    uint8_t *slots;
    int count, next;            // messages in `list`, and the one to be handed out
    uint32_t at;                // how far that one is
    nkt_datagram list[NKTI_UDP_SLOTS];
} nkti_udp_batch;

typedef struct nkti_member {
    nkt_ip group, source;       // no source = any
    uint32_t asked;             // the interface that was named, 0 = every one
    uint32_t index;             // where it is joined; 0 = the wish itself
} nkti_member;

struct nkt_udp {
    nkti_handle handle;
    nkt_udp_link *top;
    nkt_udp_link bottom;
    nkti_udp_batch *batch;
    int64_t deadlines[2];       // nonblocking only; receiving, sending
    int32_t timeouts_ms[2];
    uint32_t canceled;          // atomic
    nkti_turn turn;
    int32_t os_error[2];
    nkt_udp_info info;
    bool told[2];               // the poller has told of the direction's time-out
    bool send_blocked;          // a send said NKT_EAGAIN, and NKT_WRITE is awaited
    // The socket link.
    nkt_fd fds[2];
    uint8_t families[2];        // of each: NKT_IPV6, NKT_IPV4, 0 = both
    int fd_count, next_fd;
    int connected;              // which descriptor is, -1 = none
    bool is_socket, icmp_errors, offload, segments, coalesce;
    bool refused;               // opening failed at an option: no lack of a family
    bool strangers;             // what came before it was connected may be queued
    nkt_addr peer;              // whom it is connected to
    int32_t dont_fragment, loopback, hops, multicast_hops, traffic_class;
    // Interfaces, under net_lock.
    nkti_mutex net_lock;
    nkti_member *members;
    size_t member_count, member_capacity;
    nkt_sys_iface *ifaces;
    int iface_count, iface_capacity;
    nkt_fd news;
    int64_t looked;             // when; 0 = never
    bool missed;                // that look failed
    uint32_t only_index;        // bound to this one
    nkt_ip bound[2];            // the IPv4 and IPv6 address it is bound to; family 0 = any
    uint32_t send_index;        // groups are sent through this one; 0 = all
    uint32_t wishes;            // atomic: rows with index 0
};

NKTI_INLINE const nkt_sys_udp *nkti_udp_sys(const nkt_env *env) {
    return env->udp != NULL ? env->udp : &nkti_os_udp;
}

static const nkt_sys_net *nkti_net_sys(const nkt_env *env) {
    return env->net != NULL ? env->net : &nkti_os_net;
}

static void nkti_udp_trace(nkt_udp *udp, const char *state, int err, int64_t detail) {
    nkti_trace(udp->handle.env, udp, "udp", state, err, detail);
}

static bool nkti_ip_is_group(const nkt_ip *ip) {
    if (ip->family == NKT_IPV4) return (ip->bytes[0] & 0xf0) == 0xe0;
    return ip->family == NKT_IPV6 && ip->bytes[0] == 0xff;
}

#define NKTI_DATAGRAM_HAS(transport, field)                                               \
    ((transport)->size >= offsetof(nkt_datagram_transport, field) +                       \
     sizeof((transport)->field) && (transport)->field != NULL)

static bool nkti_datagram_transport_is_valid(const nkt_datagram_transport *transport) {
    return transport != NULL && transport->size >= offsetof(nkt_datagram_transport, local) &&
           transport->recv != NULL && transport->send != NULL && transport->close != NULL;
}

static void nkti_udp_wake(nkt_udp *udp, bool cancel) {
    nkt_env *env = udp->handle.env;
    nkti_lock(env);
    if (cancel) nkti_atomic_store(&udp->canceled, 1);
    nkti_handle_rouse(&udp->handle);
    nkti_unlock(env);
}

NKT_API void nkt_udp_notify(nkt_udp *udp) {
    nkti_udp_wake(udp, false);
}

// --- Links -------------------------------------------------------------------

NKTI_INLINE void nkti_udp_know_nothing(nkt_datagram *list, int count) {
    for (int i = 0; i < count; i++) {
        memset(&list[i].addr, 0, offsetof(nkt_datagram, reserved) - offsetof(nkt_datagram, addr));
        list[i].hops = list[i].traffic_class = -1;
    }
}

NKT_API int nkt_udp_link_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    nkti_udp_know_nothing(list, count);
    int got = link->transport->recv(link, list, count);
    if (got == 0 || got > count) return NKT_EPROTO;
    for (int i = 0; i < got; i++) {
        if (list[i].len > list[i].cap) return NKT_EPROTO;
    }
    return got;
}

NKT_API int nkt_udp_link_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    int sent = link->transport->send(link, list, count);
    return sent == 0 || sent > count ? (int)NKT_EPROTO : sent;
}

NKT_API void nkt_udp_link_watch(nkt_udp_link *link, uint32_t want, nkt_interest *out) {
    if (link->transport->watch != NULL) link->transport->watch(link, want, out);
    else if (link->below != NULL) nkt_udp_link_watch(link->below, want, out);
}

// --- The socket link ---------------------------------------------------------

// Whether an error may be the answer to a datagram that was sent before.
static bool nkti_udp_is_answer(int err) {
    return err == NKT_EREFUSED || err == NKT_EHOSTUNREACH || err == NKT_ENETUNREACH ||
           err == NKT_EACCES || err == NKT_EPROTO || err == NKT_EUNSUPPORTED ||
           err == NKT_EMSGSIZE || err == NKT_ERESET;
}

// Leaves out what others have sent before the handle was connected. Returns how
// many are left.
static int nkti_udp_only_peer(const nkt_udp *udp, nkt_datagram *list, int count) {
    int kept = 0;
    for (int i = 0; i < count; i++) {
        nkt_datagram one = list[i];
        if (one.addr.port != udp->peer.port ||
            memcmp(one.addr.ip.bytes, udp->peer.ip.bytes, sizeof one.addr.ip.bytes) != 0) continue;
        // The buffers change places too.
        list[i] = list[kept];
        list[kept++] = one;
    }
    return kept;
}

NKTI_INLINE int nkti_udp_recv_fd(nkt_udp *udp, int at, nkt_datagram *list, int count, bool facts) {
    nkt_env *env = udp->handle.env;
    const nkt_sys_udp *sys = nkti_udp_sys(env);
    for (int left = NKTI_UDP_SWALLOWED; left > 0; left--) {
        int got = NKTI_DIRECT && sys == &nkti_os_udp
            ? nkti_os_udp_recv(env, udp->fds[at], udp->families[at], list, count, facts)
            : sys->recv(env, udp->fds[at], udp->families[at], list, count, facts);
        if (got > 0 && udp->strangers) {
            got = nkti_udp_only_peer(udp, list, got);
            if (got == 0) {
                // What was known of them is not true of the next ones. They
                // end: more of them do not come in.
                nkti_udp_know_nothing(list, count);
                left = NKTI_UDP_SWALLOWED + 1;
                continue;
            }
        }
        if (got > 0) return got;
        if (got == NKT_EAGAIN) udp->strangers = false;
        else udp->os_error[0] = env->core->last_error(env);
        if (udp->icmp_errors) {
            int told = sys->next_error(env, udp->fds[at], &list[0].addr);
            if (told != NKT_EAGAIN) {
                udp->os_error[0] = env->core->last_error(env);
                return told;
            }
        }
        // What others did not get is not told; what cannot be a signal's work,
        // as nothing waits, is tried again.
        bool again = got == NKT_EINTR || (udp->connected < 0 && nkti_udp_is_answer(got));
        if (again) continue;
        if (nkti_udp_is_answer(got)) list[0].addr = udp->peer;      // and nobody else's
        return got;
    }
    return NKT_EAGAIN;
}

NKTI_INLINE int nkti_udp_recv_fds(nkt_udp_link *link, nkt_datagram *list, int count) {
    nkt_udp *udp = link->udp;
    // A single plain datagram has no room where facts would be wanted.
    bool facts = count > 1 || udp->coalesce || list[0].reserved[NKTI_ALL_FACTS] != 0;
    if (udp->connected >= 0) return nkti_udp_recv_fd(udp, udp->connected, list, count, facts);
    int got = NKT_EAGAIN;
    for (int i = 0; i < udp->fd_count && got == NKT_EAGAIN; i++) {
        int at = udp->next_fd;
        udp->next_fd = (at + 1) % udp->fd_count;
        got = nkti_udp_recv_fd(udp, at, list, count, facts);
    }
    return got;
}

// Which descriptor sends to an address, or why none does.
NKTI_INLINE int nkti_udp_fd_for(const nkt_udp *udp, const nkt_addr *to) {
    if (to->ip.family == 0) return udp->connected >= 0 ? udp->connected : (int)NKT_ENOTCONN;
    if (to->port == 0) return NKT_EPORT;
    for (int i = 0; i < udp->fd_count; i++) {
        if (udp->families[i] == 0 || udp->families[i] == to->ip.family) return i;
    }
    return NKT_EFAMILY;
}

NKTI_INLINE int nkti_udp_check_len(const nkt_udp *udp, const nkt_datagram *datagram) {
    uint32_t max = NKTI_UDP_MAX6;
    if (!udp->is_socket) max = NKT_DATAGRAM_MAX;
    else if (datagram->addr.ip.family == NKT_IPV4) max = NKTI_UDP_MAX4;
    return datagram->len > max ? NKT_ETOOLONG : NKT_OK;
}

NKTI_INLINE int nkti_udp_send_fds(nkt_udp_link *link, const nkt_datagram *list, int count) {
    nkt_udp *udp = link->udp;
    nkt_env *env = udp->handle.env;
    const nkt_sys_udp *sys = nkti_udp_sys(env);
    int at = nkti_udp_fd_for(udp, &list[0].addr), sent = NKT_EINTR, run = 1;
    if (at < 0) return at;
    while (run < count && nkti_udp_fd_for(udp, &list[run].addr) == at) run++;
    // An answer to somebody else's datagram is for the receiver to hear of.
    for (int i = 0; i < NKTI_UDP_SWALLOWED; i++) {
        sent = NKTI_DIRECT && sys == &nkti_os_udp
            ? nkti_os_udp_send(env, udp->fds[at], udp->families[at], list, run, &udp->segments)
            : sys->send(env, udp->fds[at], udp->families[at], list, run, &udp->segments);
        if (sent >= 0 || sent == NKT_EAGAIN) return sent;
        udp->os_error[1] = env->core->last_error(env);
        bool again = udp->icmp_errors && udp->connected < 0 && i == 0 && nkti_udp_is_answer(sent);
        if (sent != NKT_EINTR && !again) return sent;
    }
    return sent == NKT_EINTR ? (int)NKT_EAGAIN : sent;
}

static int nkti_udp_socket_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    return nkti_udp_recv_fds(link, list, count);
}

static int nkti_udp_socket_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    return nkti_udp_send_fds(link, list, count);
}

static void nkti_udp_socket_watch(nkt_udp_link *link, uint32_t want, nkt_interest *out) {
    const nkt_udp *udp = link->udp;
    for (int i = 0; i < udp->fd_count; i++) {
        if (udp->connected < 0 || i == udp->connected) nkt_interest_add(out, udp->fds[i], want);
    }
}

static void nkti_udp_socket_close(nkt_udp_link *link) {
    nkt_udp *udp = link->udp;
    nkt_env *env = udp->handle.env;
    while (udp->fd_count > 0) env->core->close(env, udp->fds[--udp->fd_count]);
}

static int nkti_udp_socket_name(nkt_udp_link *link, bool peer, nkt_addr *addr) {
    nkt_udp *udp = link->udp;
    int err = nkti_fd_name(udp->handle.env, udp->fds[udp->connected > 0], peer, addr);
    if (err >= 0) addr->ip = nkt_ip_unmap(&addr->ip);
    return err;
}

static int nkti_udp_socket_local(nkt_udp_link *link, nkt_addr *addr) {
    return nkti_udp_socket_name(link, false, addr);
}

static int nkti_udp_socket_peer(nkt_udp_link *link, nkt_addr *addr) {
    if (link->udp->connected < 0) return NKT_ENOTCONN;
    return nkti_udp_socket_name(link, true, addr);
}

static nkt_fd nkti_udp_socket_fd(nkt_udp_link *link) {
    return link->udp->fds[0];
}

static const nkt_datagram_transport nkti_udp_transport = {
    sizeof(nkt_datagram_transport), "udp", nkti_udp_socket_recv, nkti_udp_socket_send,
    nkti_udp_socket_watch, nkti_udp_socket_close, nkti_udp_socket_local, nkti_udp_socket_peer,
    nkti_udp_socket_fd,
};

//==============================================================================
// MARK: @multicast - groups, on every interface
//
// A wish is a row of its own, and after each news of the interfaces it is
// fulfilled again; joining what is joined does nothing. All of it is under a
// lock of the handle's own, because a thread that sends and one that waits both
// need the interfaces.
//==============================================================================

NKT_API const nkt_sys_net *nkt_sys_net_default(void) {
    return &nkti_os_net;
}

// Looks at the interfaces, if there may be news. Returns whether it did, or an
// error.
static int nkti_net_look(nkt_udp *udp) {
    nkt_env *env = udp->handle.env;
    const nkt_sys_net *sys = nkti_net_sys(env);
    bool news = udp->looked == 0 || udp->missed;
    if (udp->looked == 0) {
        if (sys->watch_open(env, &udp->news) < 0) udp->news = NKT_NO_FD;
    } else if (udp->news != NKT_NO_FD) {
        news = sys->watch_drain(env, udp->news) || news;
    } else if (!news) {
        news = nkti_now(env) - udp->looked >= NKTI_NET_RECHECK;
    }
    if (!news) return false;
    // 0 is "never", and a false clock may stand there.
    int64_t now = nkti_now(env);
    udp->looked = now != 0 ? now : 1;
    // The news is told once: a look that fails has to be made again.
    udp->missed = true;
    for (;;) {
        int count = sys->list(env, udp->ifaces, udp->iface_capacity);
        if (count < 0) return count;
        if (count <= udp->iface_capacity) {
            udp->iface_count = count;
            break;
        }
        size_t was = (size_t)udp->iface_capacity * sizeof udp->ifaces[0];
        void *grown = nkti_resize(env, udp->ifaces, was,
                                  ((size_t)count + 8) * sizeof udp->ifaces[0]);
        if (grown == NULL) return NKT_ENOMEM;
        udp->ifaces = (nkt_sys_iface *)grown;
        udp->iface_capacity = count + 8;
    }
    udp->missed = false;
    return true;
}

// Whether a row of the list is one of those that a group or broadcast means;
// with `only`, those of that interface alone.
static bool nkti_iface_is_suitable(const nkt_sys_iface *row, int family, uint32_t flag,
                                   bool loopback, uint32_t only) {
    if (only != 0) return row->index == only && row->ip.family == family;
    bool can = (row->flags & NKT_IFACE_UP) && row->ip.family == family;
    if (row->flags & NKT_IFACE_LOOPBACK) return can && loopback;
    return can && !loopback && (row->flags & flag);
}

// The next suitable row from `at` on, one for each interface; NULL at the end.
static const nkt_sys_iface *nkti_iface_next(const nkt_udp *udp, int *at, int family,
                                            bool loopback, uint32_t only) {
    for (; *at < udp->iface_count; (*at)++) {
        const nkt_sys_iface *row = &udp->ifaces[*at];
        bool first = nkti_iface_is_suitable(row, family, NKT_IFACE_MULTICAST, loopback, only);
        for (int i = 0; first && i < *at; i++) {
            first = udp->ifaces[i].index != row->index || udp->ifaces[i].ip.family != family;
        }
        if (!first) continue;
        (*at)++;
        return row;
    }
    return NULL;
}

// Loopback counts where there is nothing else.
static bool nkti_net_is_alone(const nkt_udp *udp, int family) {
    int at = 0;
    return nkti_iface_next(udp, &at, family, false, udp->only_index) == NULL;
}

static bool nkti_member_is(const nkti_member *row, const nkt_ip *group, const nkt_ip *source) {
    return nkt_ip_equal(&row->group, group) && nkt_ip_equal(&row->source, source);
}

static int nkti_member_add(nkt_udp *udp, const nkti_member *row) {
    if (udp->member_count == udp->member_capacity) {
        size_t capacity = udp->member_capacity == 0 ? 8 : udp->member_capacity * 2;
        void *grown = nkti_resize(udp->handle.env, udp->members,
                                  udp->member_capacity * sizeof *row, capacity * sizeof *row);
        if (grown == NULL) return NKT_ENOMEM;
        udp->members = (nkti_member *)grown;
        udp->member_capacity = capacity;
    }
    udp->members[udp->member_count++] = *row;
    return NKT_OK;
}

static int nkti_member_call(nkt_udp *udp, const nkti_member *row, bool join) {
    nkt_env *env = udp->handle.env;
    nkt_ip local;
    memset(&local, 0, sizeof local);
    for (int i = udp->iface_count - 1; i >= 0; i--) {
        const nkt_sys_iface *iface = &udp->ifaces[i];
        if (iface->index == row->index && iface->ip.family == NKT_IPV4) local = iface->ip;
    }
    int err = NKT_EFAMILY;
    for (int i = 0; i < udp->fd_count && err == NKT_EFAMILY; i++) {
        if (udp->families[i] != 0 && udp->families[i] != row->group.family) continue;
        err = nkti_udp_sys(env)->member(env, udp->fds[i], &row->group, &row->source, row->index,
                                        &local, join);
        // Joined already: by another of our rows.
        if (join && err == NKT_EADDRINUSE) err = NKT_OK;
        if (err < 0) udp->os_error[0] = env->core->last_error(env);
    }
    nkti_udp_trace(udp, join ? "joined" : "left", err, row->index);
    return err;
}

// Joins on one interface, unless that is done.
static int nkti_member_join(nkt_udp *udp, const nkti_member *row) {
    for (size_t i = 0; i < udp->member_count; i++) {
        const nkti_member *has = &udp->members[i];
        if (nkti_member_is(has, &row->group, &row->source) && has->index == row->index &&
            has->asked == row->asked) return NKT_OK;
    }
    int err = nkti_member_add(udp, row);
    if (err < 0) return err;
    err = nkti_member_call(udp, row, true);
    if (err < 0) udp->member_count--;
    return err;
}

// Takes a row away, and leaves the group where no other row wants it.
static void nkti_member_drop(nkt_udp *udp, size_t at) {
    nkti_member row = udp->members[at];
    udp->members[at] = udp->members[--udp->member_count];
    if (row.index == 0) {
        nkti_atomic_store(&udp->wishes, udp->wishes - 1);
        return;
    }
    for (size_t i = 0; i < udp->member_count; i++) {
        if (nkti_member_is(&udp->members[i], &row.group, &row.source) &&
            udp->members[i].index == row.index) return;
    }
    nkti_member_call(udp, &row, false);
}

// Fulfils a wish on every interface that is suitable now. Returns how many are
// joined, or why none could be.
static int nkti_member_fulfil(nkt_udp *udp, nkti_member wish) {
    const nkt_sys_iface *row;
    int at = 0, joined = 0, refused = NKT_OK;
    bool alone = nkti_net_is_alone(udp, wish.group.family);
    while ((row = nkti_iface_next(udp, &at, wish.group.family, alone, udp->only_index)) != NULL) {
        wish.index = row->index;
        int err = nkti_member_join(udp, &wish);
        if (err >= 0) joined++;
        else refused = err;
    }
    return joined > 0 ? joined : refused;
}

// After news: forgets interfaces that are gone and joins on those that came.
static void nkti_net_tend(nkt_udp *udp) {
    if (nkti_atomic_load(&udp->wishes) == 0) return;
    nkti_mutex_lock(&udp->net_lock);
    if (nkti_net_look(udp) > 0) {
        for (size_t i = udp->member_count; i-- > 0;) {
            const nkti_member *row = &udp->members[i];
            bool there = row->index == 0 || row->asked != 0;
            for (int k = 0; k < udp->iface_count && !there; k++) {
                there = udp->ifaces[k].index == row->index;
            }
            if (!there) nkti_member_drop(udp, i);
        }
        // Rows that are added on the way are no wishes.
        for (size_t i = 0, count = udp->member_count; i < count; i++) {
            if (udp->members[i].index == 0) nkti_member_fulfil(udp, udp->members[i]);
        }
    }
    nkti_mutex_unlock(&udp->net_lock);
}

// What else must be watched so that interfaces are joined as they come.
static void nkti_net_interest(nkt_udp *udp, nkt_interest *out) {
    if (nkti_atomic_load(&udp->wishes) == 0) return;
    nkti_mutex_lock(&udp->net_lock);
    if (udp->news != NKT_NO_FD) nkt_interest_add(out, udp->news, NKT_READ);
    if (udp->news == NKT_NO_FD || udp->missed) {
        out->deadline_ns = nkti_min_time(out->deadline_ns, udp->looked + NKTI_NET_RECHECK);
    }
    nkti_mutex_unlock(&udp->net_lock);
}

// --- Joining and leaving -----------------------------------------------------

// The interface that is named by its name, index or an address of it.
static int nkti_udp_iface_find(nkt_udp *udp, const char *text, uint32_t *index) {
    nkt_env *env = udp->handle.env;
    nkt_ip ip;
    uint32_t value = 0;
    if (env->core->interface_index(env, text, index) >= 0) return NKT_OK;
    const char *p = text;
    while (nkti_digit_value(*p) <= 9 && value < 100000000) {
        value = value * 10 + nkti_digit_value(*p++);
    }
    if (p > text && *p == '\0') {
        char name[256];
        *index = value;
        return env->core->interface_name(env, value, name, sizeof name) < 0 ? NKT_ENODEV : NKT_OK;
    }
    if (nkt_ip_parse(text, &ip) < 0) return NKT_ENODEV;
    for (int i = 0; i < udp->iface_count; i++) {
        nkt_ip has = udp->ifaces[i].ip;
        if (ip.scope == 0) has.scope = 0;
        if (!nkt_ip_equal(&has, &ip)) continue;
        *index = udp->ifaces[i].index;
        return NKT_OK;
    }
    return NKT_ENODEV;
}

// Reads what join and leave are given into a row.
static int nkti_member_read(nkt_udp *udp, const char *group, const nkt_join_opts *opts,
                            nkti_member *row) {
    memset(row, 0, sizeof *row);
    if (!udp->is_socket) return NKT_EUNSUPPORTED;
    if (group == NULL) return NKT_EADDR;
    int err = nkt_ip_parse(group, &row->group);
    if (err < 0) return err;
    if (!nkti_ip_is_group(&row->group)) return NKT_EGROUP;
    row->asked = row->group.scope != 0 ? row->group.scope : udp->only_index;
    row->group.scope = 0;
    nkt_addr addr = nkt_addr_make(&row->group, 1);
    if (nkti_udp_fd_for(udp, &addr) < 0) return NKT_EFAMILY;
    if (opts == NULL) return NKT_OK;
    uint32_t named = opts->interface_index;
    if (opts->interface_name != NULL) {
        err = nkti_udp_iface_find(udp, opts->interface_name, &named);
        if (err < 0) return err;
    }
    if (named != 0) {
        char name[256];
        if (nkti_interface_name(udp->handle.env, named, name, sizeof name) < 0 ||
            (row->asked != 0 && row->asked != named)) return NKT_ENODEV;
        row->asked = named;
    }
    if (opts->source == NULL) return NKT_OK;
    err = nkt_ip_parse(opts->source, &row->source);
    if (err < 0) return err;
    row->source.scope = 0;
    return row->source.family == row->group.family ? NKT_OK : NKT_EFAMILY;
}

static int nkti_udp_join(nkt_udp *udp, const char *group, const nkt_join_opts *opts) {
    nkti_member row;
    int err = nkti_net_look(udp);
    if (err >= 0) err = nkti_member_read(udp, group, opts, &row);
    if (err < 0) return err;
    row.index = row.asked;
    if (row.asked != 0) {
        err = nkti_member_join(udp, &row);
        return err < 0 ? err : 1;
    }
    bool wished = false;
    for (size_t i = 0; i < udp->member_count; i++) {
        const nkti_member *has = &udp->members[i];
        wished = wished || (has->index == 0 && nkti_member_is(has, &row.group, &row.source));
    }
    if (!wished) {
        err = nkti_member_add(udp, &row);
        if (err < 0) return err;
        nkti_atomic_store(&udp->wishes, udp->wishes + 1);
    }
    int joined = nkti_member_fulfil(udp, row);
    // Refused by every interface: not even wished for.
    for (size_t i = udp->member_count; joined < 0 && !wished && i-- > 0;) {
        if (udp->members[i].index == 0 &&
            nkti_member_is(&udp->members[i], &row.group, &row.source)) nkti_member_drop(udp, i);
    }
    return joined;
}

// Where the poller has no room for the news of interfaces, these are looked at
// from time to time instead. An error is that of the sockets' own watches.
static int nkti_net_update(nkt_udp *udp) {
    int err = nkti_handle_update(&udp->handle);
    if (err >= 0 || udp->news == NKT_NO_FD) return err;
    nkti_mutex_lock(&udp->net_lock);
    nkt_fd news = udp->news;
    udp->news = NKT_NO_FD;
    nkti_mutex_unlock(&udp->net_lock);
    err = nkti_handle_update(&udp->handle);
    nkti_net_sys(udp->handle.env)->watch_close(udp->handle.env, news);
    return err;
}

NKT_API int nkt_udp_join(nkt_udp *udp, const char *group, const nkt_join_opts *opts) {
    nkti_mutex_lock(&udp->net_lock);
    int joined = nkti_udp_join(udp, group, opts);
    nkti_mutex_unlock(&udp->net_lock);
    int err = joined < 0 ? joined : nkti_net_update(udp);
    return err < 0 ? err : joined;
}

NKT_API int nkt_udp_leave(nkt_udp *udp, const char *group, const nkt_join_opts *opts) {
    nkti_member row;
    nkti_mutex_lock(&udp->net_lock);
    int err = nkti_net_look(udp);
    if (err >= 0) err = nkti_member_read(udp, group, opts, &row);
    bool found = false;
    for (size_t i = udp->member_count; err >= 0 && i-- > 0;) {
        if (!nkti_member_is(&udp->members[i], &row.group, &row.source) ||
            udp->members[i].asked != row.asked) continue;
        nkti_member_drop(udp, i);
        found = true;
    }
    nkti_mutex_unlock(&udp->net_lock);
    if (err >= 0) err = nkti_net_update(udp);
    if (err < 0) return err;
    return found ? NKT_OK : NKT_ENOTFOUND;
}

//==============================================================================
// MARK: @udp - datagrams: unicast, multicast and broadcast
//
// The same loop as @conn's: try; on NKT_EAGAIN wait if the handle is a blocking
// one, else leave; try again. Errors are told once and change nothing. What is
// for a group or for everybody is sent as one datagram for each interface.
//==============================================================================

NKT_API const nkt_sys_udp *nkt_sys_udp_default(void) {
    return &nkti_os_udp;
}

// --- What the poller asks ----------------------------------------------------

static void nkti_udp_want(nkt_udp *udp, uint32_t want, nkt_interest *out) {
    if (nkti_atomic_load(&udp->canceled) != 0) {
        out->ready = true;
        return;
    }
    if (want != 0) nkt_udp_link_watch(udp->top, want, out);
    if (want & NKT_READ) nkti_net_interest(udp, out);
}

static void nkti_udp_want_deadlines(nkt_udp *udp, uint32_t want, bool untold, nkt_interest *out) {
    for (int i = 0; i < 2; i++) {
        if ((want & (i == 0 ? NKT_READ : NKT_WRITE)) == 0 || (untold && udp->told[i])) continue;
        out->deadline_ns = nkti_min_time(out->deadline_ns, udp->deadlines[i]);
    }
}

static void nkti_udp_interest(nkti_handle *handle, nkt_interest *out) {
    nkt_udp *udp = (nkt_udp *)(void *)handle;
    uint32_t want = handle->want;
    nkti_udp_want_deadlines(udp, want, true, out);
    if (!udp->send_blocked) want &= ~(uint32_t)NKT_WRITE;
    nkti_udp_want(udp, want, out);
    if (udp->batch != NULL && udp->batch->next < udp->batch->count) out->ready = true;
}

static void nkti_udp_drive(nkti_handle *handle, uint32_t ready, int64_t now) {
    nkt_udp *udp = (nkt_udp *)(void *)handle;
    nkt_interest link;
    if (nkti_atomic_load(&udp->canceled) != 0) ready |= NKT_READ | NKT_WRITE;
    for (int i = 0; i < 2; i++) {
        uint32_t bit = i == 0 ? NKT_READ : NKT_WRITE;
        if (now < udp->deadlines[i] || udp->told[i] || (handle->want & bit) == 0) continue;
        udp->told[i] = true;
        ready |= bit;
    }
    nkti_net_tend(udp);
    nkti_interest_clear(&link);
    if (udp->send_blocked && (ready & NKT_WRITE) == 0) {
        nkt_udp_link_watch(udp->top, NKT_WRITE, &link);
        if (link.ready) ready |= NKT_WRITE;
    }
    if (!udp->send_blocked) ready &= ~(uint32_t)NKT_WRITE;
    if (ready & NKT_WRITE) udp->send_blocked = false;
    // A link that was notified tells by its interest.
    nkti_interest_clear(&link);
    nkti_udp_interest(handle, &link);
    if (link.ready || now >= link.deadline_ns) ready |= NKT_READ;
    nkti_handle_ready(handle, ready & handle->want);
    if (handle->poller != NULL) nkti_poller_apply(handle, &link);
}

static const nkti_handle_ops nkti_udp_ops = { "udp", nkti_udp_drive, nkti_udp_interest };

NKT_API int nkt_poller_add_udp(nkt_poller *poller, nkt_udp *udp, void *user) {
    return nkti_handle_join(poller, &udp->handle, NKT_READ | NKT_WRITE, user);
}

NKT_API int nkt_poller_want_udp(nkt_poller *poller, nkt_udp *udp, uint32_t events) {
    return nkti_handle_want(poller, &udp->handle, events);
}

NKT_API int nkt_poller_remove_udp(nkt_poller *poller, nkt_udp *udp) {
    return nkti_handle_remove(poller, &udp->handle);
}

// --- Opening -----------------------------------------------------------------

static nkt_udp *nkti_udp_new(nkt_env *env, const nkt_udp_opts *opts,
                             const nkt_datagram_transport *transport, void *self) {
    nkt_udp *udp = (nkt_udp *)nkti_alloc(env, sizeof *udp);
    if (udp == NULL) return NULL;
    nkti_handle_init(&udp->handle, env, &nkti_udp_ops, opts->nonblocking);
    nkti_mutex_init(&udp->net_lock);
    udp->top = &udp->bottom;
    udp->bottom.transport = transport;
    udp->bottom.self = self;
    udp->bottom.udp = udp;
    udp->deadlines[0] = udp->deadlines[1] = NKT_NEVER;
    udp->timeouts_ms[0] = opts->recv_timeout_ms;
    udp->timeouts_ms[1] = opts->send_timeout_ms;
    udp->connected = -1;
    udp->news = NKT_NO_FD;
    return udp;
}

// Frees everything but what the links stand on.
static void nkti_udp_free(nkt_udp *udp) {
    nkt_env *env = udp->handle.env;
    if (udp->batch != NULL) {
        nkti_free(env, udp->batch->slots, NKTI_UDP_ROOM);
        nkti_free(env, udp->batch, sizeof *udp->batch);
    }
    if (udp->news != NKT_NO_FD) nkti_net_sys(env)->watch_close(env, udp->news);
    nkti_free(env, udp->members, udp->member_capacity * sizeof udp->members[0]);
    nkti_free(env, udp->ifaces, (size_t)udp->iface_capacity * sizeof udp->ifaces[0]);
    if (!nkti_forked(&udp->handle)) nkti_mutex_free(&udp->net_lock);
    nkti_free(env, udp, sizeof *udp);
}

// Sets one option on every socket.
static int nkti_udp_set_all(nkt_udp *udp, int option, int64_t value) {
    nkt_env *env = udp->handle.env;
    int err = NKT_OK;
    for (int i = 0; i < udp->fd_count && err >= 0; i++) {
        err = option == NKT_UDP_SEND_BUFFER || option == NKT_UDP_RECV_BUFFER
            ? env->core->set_option(env, udp->fds[i], option == NKT_UDP_SEND_BUFFER
                                    ? NKT_SO_SEND_BUFFER : NKT_SO_RECV_BUFFER, value)
            : nkti_udp_sys(env)->set_option(env, udp->fds[i], udp->families[i], option, value);
    }
    return err;
}

// Opens and binds one socket. `dual` takes both families.
static int nkti_udp_open_one(nkt_udp *udp, const nkt_udp_opts *opts, const nkt_ip *ip,
                             uint16_t port, bool dual) {
    nkt_env *env = udp->handle.env;
    const nkt_sys_core *core = env->core;
    const nkt_sys_udp *sys = nkti_udp_sys(env);
    union { uint64_t align; char room[NKT_SOCKADDR_MAX]; } name;
    nkt_addr addr = nkt_addr_make(ip, port);
    int family = dual ? 0 : ip->family;
    int len = nkt_addr_to_sockaddr(&addr, &name, sizeof name);
    nkt_fd fd = NKT_NO_FD;
    udp->refused = false;
    int err = core->open(env, ip->family, 2, &fd);
    if (err < 0) {
        udp->os_error[0] = core->last_error(env);
        return err;
    }
    if (ip->family == NKT_IPV6) err = core->set_option(env, fd, NKT_SO_V6ONLY, !dual);
    if (err >= 0) err = sys->set_option(env, fd, family, NKT_UDP_REUSE, opts->reuse_port);
    if (err >= 0) err = sys->set_option(env, fd, family, NKT_UDP_FACTS, 1);
    if (err >= 0 && opts->icmp_errors) {
        err = sys->set_option(env, fd, family, NKT_UDP_ICMP_ERRORS, 1);
    }
    if (err >= 0 && opts->interface_name != NULL) {
        err = core->bind_interface(env, fd, opts->interface_name, ip->family);
    }
    udp->refused = err < 0;
    if (err >= 0) err = core->bind(env, fd, &name, (size_t)len);
    if (err < 0) {
        udp->os_error[0] = core->last_error(env);
        core->close(env, fd);
        return err;
    }
    nkt_ip any = nkt_ip_any(ip->family);
    bool is_one = !nkt_ip_equal(ip, &any) && !nkti_ip_is_group(ip);
    if (is_one) udp->bound[ip->family == NKT_IPV6] = *ip;
    udp->fds[udp->fd_count] = fd;
    udp->families[udp->fd_count++] = (uint8_t)family;
    return NKT_OK;
}

// Whether opening has failed for another reason than a missing family.
static bool nkti_udp_is_final(const nkt_udp *udp, int err) {
    return udp->refused || !nkti_is_no_family(err);
}

// IPv6 and IPv4 on two sockets, or on one if the host has only one family.
static int nkti_udp_open_two(nkt_udp *udp, const nkt_udp_opts *opts, const nkt_ip *ipv6,
                             const nkt_ip *ipv4, uint16_t port) {
    int err = NKT_EADDRINUSE;
    for (int i = 0; i < NKTI_PORT_TRIES && err == NKT_EADDRINUSE; i++) {
        uint16_t chosen = port;
        nkt_addr local;
        err = nkti_udp_open_one(udp, opts, ipv6, port, false);
        if (err < 0 && nkti_udp_is_final(udp, err)) return err;
        bool has_ipv6 = err >= 0;
        if (has_ipv6 && port == 0) {
            err = nkti_udp_socket_local(&udp->bottom, &local);
            chosen = err >= 0 ? local.port : 0;
            if (chosen == 0) err = NKT_EOS;     // IPv4 would get a port of its own
        }
        if (err >= 0 || !has_ipv6) err = nkti_udp_open_one(udp, opts, ipv4, chosen, false);
        if (err < 0 && has_ipv6 && !nkti_udp_is_final(udp, err)) return NKT_OK;
        if (err < 0) nkti_udp_socket_close(&udp->bottom);
        if (err == NKT_EADDRINUSE && port != 0) return err;
    }
    return err;
}

static int nkti_udp_open_target(nkt_udp *udp, const nkt_udp_opts *opts,
                                const nkt_target *target) {
    bool is_any = target->kind == NKT_TARGET_ANY;
    nkt_ip ipv6 = is_any ? nkt_ip_any(NKT_IPV6) : nkt_ip_loopback(NKT_IPV6);
    nkt_ip ipv4 = is_any ? nkt_ip_any(NKT_IPV4) : nkt_ip_loopback(NKT_IPV4);
    if (target->kind == NKT_TARGET_ADDR) {
        return nkti_udp_open_one(udp, opts, &target->ip, target->port, false);
    }
    if (opts->family != 0) {
        return nkti_udp_open_one(udp, opts, opts->family == NKT_IPV6 ? &ipv6 : &ipv4,
                                 target->port, false);
    }
    if (is_any && NKTI_UDP_DUAL && !opts->two_sockets) {
        int err = nkti_udp_open_one(udp, opts, &ipv6, target->port, true);
        if (err >= 0 || nkti_udp_is_final(udp, err)) return err;
        return nkti_udp_open_one(udp, opts, &ipv4, target->port, false);
    }
    return nkti_udp_open_two(udp, opts, &ipv6, &ipv4, target->port);
}

static int nkti_udp_apply(nkt_udp *udp, const nkt_udp_opts *opts) {
    const struct { int option; int32_t value; } rows[] = {
        { NKT_UDP_HOPS, opts->hops }, { NKT_UDP_MULTICAST_HOPS, opts->multicast_hops },
        { NKT_UDP_TRAFFIC_CLASS, opts->traffic_class },
        { NKT_UDP_SEND_BUFFER, opts->send_buffer }, { NKT_UDP_RECV_BUFFER, opts->recv_buffer },
        { NKT_UDP_DONT_FRAGMENT, opts->dont_fragment },
    };
    int err = NKT_OK;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && err >= 0; i++) {
        if (rows[i].value != 0) {
            err = nkt_udp_set_option(udp, (nkt_udp_option)rows[i].option, rows[i].value);
        }
    }
    if (err >= 0 && opts->no_loopback) err = nkt_udp_set_option(udp, NKT_UDP_LOOPBACK, 0);
    return err;
}

static int nkti_udp_bad_option(nkt_problem *problem, const char *field, const char *why) {
    return nkti_problem_set(problem, NKT_EINVAL, field, -1, why);
}

// Everything about the arguments, before the first system call.
static int nkti_udp_check(nkt_env *env, const char *text, const nkt_udp_opts *opts,
                          nkt_target *target, uint32_t *index) {
    nkt_problem *problem = opts->problem;
    if (env == NULL) {
        return nkti_udp_bad_option(problem, "env", "the environment cannot be used; see "
                                                   "nkt_env_init");
    }
    if (opts->family != 0 && opts->family != NKT_IPV4 && opts->family != NKT_IPV6) {
        return nkti_udp_bad_option(problem, "family", "it is none of 0, NKT_IPV4 and NKT_IPV6");
    }
    if (opts->hops < 0 || opts->hops > 255 || opts->multicast_hops < 0 ||
        opts->multicast_hops > 255) {
        return nkti_udp_bad_option(problem, "hops, multicast_hops", "expected 0 to 255");
    }
    if (opts->traffic_class < 0 || opts->traffic_class > 255) {
        return nkti_udp_bad_option(problem, "traffic_class", "expected 0 to 255");
    }
    if (opts->send_buffer < 0 || opts->recv_buffer < 0) {
        return nkti_udp_bad_option(problem, "send_buffer, recv_buffer",
                                   "a buffer size is negative");
    }
    if (text == NULL) text = ":0";
    int err = nkti_target_parse_in(env, text, strlen(text), -1, target, problem);
    if (err < 0) return err;
    bool is_local = target->kind == NKT_TARGET_NAME &&
                    nkt_host_is_local(target->host, target->host_len);
    if (target->kind == NKT_TARGET_UNIX || (target->kind == NKT_TARGET_NAME && !is_local)) {
        return nkti_problem_set(problem, NKT_ENAME, "local", 0,
                                "expected :port, address:port or localhost:port");
    }
    if (target->kind == NKT_TARGET_ADDR && opts->family != 0 &&
        opts->family != target->ip.family) {
        return nkti_problem_set(problem, NKT_EFAMILY, "family", -1,
                                "the address is of another family than the option");
    }
    if (opts->interface_name != NULL &&
        env->core->interface_index(env, opts->interface_name, index) < 0) {
        return nkti_problem_set(problem, NKT_ENODEV, "interface_name", -1,
                                "there is no network interface of that name");
    }
    return NKT_OK;
}

NKT_API int nkt_udp_open(const char *text, const nkt_udp_opts *given, nkt_udp **out) {
    nkt_udp_opts opts;
    nkt_target target;
    uint32_t index = 0;
    memset(&opts, 0, sizeof opts);
    if (given != NULL) opts = *given;
    if (opts.problem != NULL) memset(opts.problem, 0, sizeof *opts.problem);
    nkt_env *env = nkti_env_use(opts.env);
    int err = nkti_udp_check(env, text, &opts, &target, &index);
    if (err < 0) return err;
    nkt_udp *udp = nkti_udp_new(env, &opts, &nkti_udp_transport, NULL);
    if (udp == NULL) return nkti_problem_set(opts.problem, NKT_ENOMEM, "", -1, "out of memory");
    udp->is_socket = true;
    udp->icmp_errors = opts.icmp_errors;
    udp->offload = udp->segments = !opts.no_offload;
    udp->only_index = index;
    udp->loopback = 1;
    udp->multicast_hops = 1;
    err = nkti_udp_open_target(udp, &opts, &target);
    if (err >= 0) err = nkti_udp_apply(udp, &opts);
    if (err < 0) {
        nkti_problem_set(opts.problem, err, "local", -1, "cannot open: ");
        if (opts.problem != NULL) {
            opts.problem->os_error = udp->os_error[0];
            nkti_text why = nkti_text_begin(opts.problem->text + 13,
                                            sizeof opts.problem->text - 13);
            nkti_text_str(&why, nkt_strerror(err));
        }
        nkti_udp_socket_close(&udp->bottom);
        nkti_udp_free(udp);
        return err;
    }
    nkti_udp_trace(udp, "open", NKT_OK, udp->fds[0]);
    *out = udp;
    return NKT_OK;
}

NKT_API int nkt_udp_open_custom(const nkt_datagram_transport *transport, void *self,
                                const nkt_udp_opts *given, nkt_udp **out) {
    nkt_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    if (given != NULL) opts = *given;
    nkt_env *env = nkti_env_use(opts.env);
    if (env == NULL || !nkti_datagram_transport_is_valid(transport)) return NKT_EINVAL;
    nkt_udp *udp = nkti_udp_new(env, &opts, transport, self);
    if (udp == NULL) return NKT_ENOMEM;
    nkti_udp_trace(udp, "open", NKT_OK, 0);
    *out = udp;
    return NKT_OK;
}

NKT_API int nkt_udp_push(nkt_udp *udp, const nkt_datagram_transport *transport, void *self) {
    if (!nkti_datagram_transport_is_valid(transport)) return NKT_EINVAL;
    if (udp->batch != NULL) return NKT_EBUSY;
    nkt_udp_link *link = (nkt_udp_link *)nkti_alloc(udp->handle.env, sizeof *link);
    if (link == NULL) return NKT_ENOMEM;
    link->transport = transport;
    link->self = self;
    link->below = udp->top;
    link->udp = udp;
    udp->top = link;
    nkti_udp_trace(udp, "pushed", NKT_OK, 0);
    nkti_handle_update(&udp->handle);
    return NKT_OK;
}

// Others' datagrams that have been fetched and were not handed out.
static void nkti_udp_batch_only_peer(nkt_udp *udp) {
    nkti_udp_batch *batch = udp->batch;
    if (batch == NULL || batch->next == batch->count) return;
    nkt_datagram *rest = batch->list + batch->next;
    const void *begun = rest->data;
    int kept = nkti_udp_only_peer(udp, rest, batch->count - batch->next);
    if (kept == 0 || rest->data != begun) batch->at = 0;
    batch->count = batch->next + kept;
}

NKT_API int nkt_udp_connect_addr(nkt_udp *udp, const nkt_addr *peer) {
    nkt_env *env = udp->handle.env;
    union { uint64_t align; char room[NKT_SOCKADDR_MAX]; } name;
    nkt_addr mapped;
    if (!udp->is_socket) return NKT_EUNSUPPORTED;
    if (peer == NULL || peer->ip.family == 0) return NKT_EADDR;
    int at = nkti_udp_fd_for(udp, peer);
    if (at < 0) return at;
    mapped = *peer;
    if (udp->families[at] == 0 && peer->ip.family == NKT_IPV4) mapped.ip = nkt_ip_map(&peer->ip);
    int len = nkt_addr_to_sockaddr(&mapped, &name, sizeof name);
    nkti_udp_sys(env)->set_option(env, udp->fds[at], udp->families[at], NKT_UDP_ICMP_ERRORS, 2);
    int err = env->core->connect(env, udp->fds[at], &name, (size_t)len);
    if (err < 0) {
        udp->os_error[1] = env->core->last_error(env);
        return err;
    }
    udp->connected = at;
    udp->strangers = true;
    // As datagrams will name it: 0.0.0.0 has become this host.
    if (nkti_udp_socket_peer(&udp->bottom, &udp->peer) < 0) udp->peer = *peer;
    nkti_udp_batch_only_peer(udp);
    nkti_udp_trace(udp, "connected", NKT_OK, 0);
    return nkti_handle_update(&udp->handle);
}

NKT_API int nkt_udp_connect(nkt_udp *udp, const char *text) {
    nkt_env *env = udp->handle.env;
    nkt_target target;
    nkt_lookup_opts opts;
    nkt_ip ips[NKT_LOOKUP_MAX];
    if (text == NULL) return NKT_EINVAL;
    int err = nkti_target_parse_in(env, text, strlen(text), -1, &target, NULL);
    if (err < 0) return err;
    nkt_addr addr = nkt_addr_make(&target.ip, target.port);
    if (target.kind == NKT_TARGET_ADDR) return nkt_udp_connect_addr(udp, &addr);
    if (target.kind != NKT_TARGET_NAME) return NKT_EADDR;
    bool is_local = nkt_host_is_local(target.host, target.host_len);
    if (udp->handle.nonblocking && !is_local) return NKT_EUNSUPPORTED;
    memset(&opts, 0, sizeof opts);
    opts.env = env;
    int count = nkt_lookup(target.host, &opts, ips, NKT_LOOKUP_MAX);
    if (count < 0) return count;
    // Nobody answers a datagram socket's connect: the first that there is a
    // route to is taken.
    err = NKT_EFAMILY;
    for (int i = 0; i < count; i++) {
        addr.ip = ips[i];
        int result = nkt_udp_connect_addr(udp, &addr);
        if (result >= 0) return result;
        if (err == NKT_EFAMILY) err = result;
    }
    return err;
}

// --- Waiting -----------------------------------------------------------------

// What a call does that was told NKT_EAGAIN: NKT_OK to try again, else what to
// return.
static int nkti_udp_again(nkt_udp *udp, int direction, int64_t *deadline, bool out_of_turn) {
    nkt_env *env = udp->handle.env;
    int32_t timeout_ms = udp->timeouts_ms[direction];
    nkt_interest interest;
    if (direction == 0) nkti_net_tend(udp);
    if (udp->handle.nonblocking) {
        if (direction == 1) {
            udp->send_blocked = true;
            int err = nkti_handle_update(&udp->handle);
            if (err < 0) return err;    // or nobody would hear of room
        } else if (!out_of_turn) {
            nkti_handle_spent(&udp->handle, NKT_READ);
        }
        if (udp->deadlines[direction] == NKT_NEVER) udp->told[direction] = false;
        return nkti_handle_again(&udp->handle, timeout_ms, &udp->deadlines[direction]);
    }
    int err = nkti_handle_deadline(&udp->handle, timeout_ms, deadline);
    if (err < 0) return err;
    nkti_interest_clear(&interest);
    err = nkti_wait_begin(env, &udp->handle.at.waiters[direction], &udp->canceled);
    if (err < 0) return err;
    nkti_udp_want(udp, direction == 0 ? NKT_READ : NKT_WRITE, &interest);
    return nkti_wait_end(env, &udp->handle.at.waiters[direction], &interest, *deadline);
}

// --- Sending -----------------------------------------------------------------

// Counts what was taken, and ends the direction's time-out.
NKTI_INLINE int nkti_udp_sent(nkt_udp *udp, const nkt_datagram *list, int sent) {
    udp->info.sent += (uint64_t)sent;
    for (int i = 0; i < sent; i++) udp->info.sent_bytes += list[i].len;
    udp->deadlines[1] = NKT_NEVER;
    return sent;
}

NKTI_INLINE int nkti_udp_send_list(nkt_udp *udp, const nkt_datagram *list, int count) {
    int64_t deadline = 0;
    for (;;) {
        if (nkti_atomic_load(&udp->canceled) != 0) return NKT_ECANCELED;
        int sent = udp->top->transport == &nkti_udp_transport
            ? nkti_udp_send_fds(udp->top, list, count) : nkt_udp_link_send(udp->top, list, count);
        if (sent > 0) return nkti_udp_sent(udp, list, sent);
        if (sent != NKT_EAGAIN) return sent;
        sent = nkti_udp_again(udp, 1, &deadline, false);
        if (sent < 0) return sent;
    }
}

// The bound address, if an interface has it; all of 127.0.0.0/8 is loopback's.
static const nkt_ip *nkti_net_bound(const nkt_udp *udp, const nkt_sys_iface *row) {
    const nkt_ip *bound = &udp->bound[row->ip.family == NKT_IPV6];
    if (bound->family == 0) return NULL;
    for (int i = 0; i < udp->iface_count; i++) {
        const nkt_sys_iface *has = &udp->ifaces[i];
        if (has->index == row->index && nkt_ip_equal(&has->ip, bound)) return bound;
    }
    bool is_loopback = bound->family == NKT_IPV4 && bound->bytes[0] == 127;
    return is_loopback && (row->flags & NKT_IFACE_LOOPBACK) ? bound : NULL;
}

// Whom a copy that leaves by an interface is from: where answers are awaited.
// NULL if it must not leave there, having another address.
static const nkt_ip *nkti_net_source(const nkt_udp *udp, const nkt_sys_iface *row,
                                     uint32_t only) {
    const nkt_ip *bound = nkti_net_bound(udp, row);
    if (bound != NULL) return bound;
    bool is_free = udp->bound[row->ip.family == NKT_IPV6].family == 0;
    return is_free || only != 0 ? &row->ip : NULL;
}

// Where one copy of what goes to a group or a broadcast goes.
static bool nkti_net_copy(const nkt_udp *udp, const nkt_sys_iface *row, const nkt_addr *to,
                          bool loopback, uint32_t only, nkt_datagram *copy) {
    const nkt_ip *source = nkti_net_source(udp, row, only);
    if (source == NULL) return false;
    memset(copy, 0, sizeof *copy);
    copy->addr = *to;
    copy->interface_index = row->index;
    if (nkti_ip_is_group(&to->ip)) {
        if (to->ip.family == NKT_IPV6) copy->addr.ip.scope = row->index;
        else copy->local = *source;
        return true;
    }
    uint32_t flags = NKT_IFACE_BROADCAST | NKT_IFACE_POINT_TO_POINT;
    if (!nkti_iface_is_suitable(row, NKT_IPV4, flags, loopback, udp->only_index)) return false;
    copy->local = *source;
    if (row->peer.family == NKT_IPV4) {
        copy->addr.ip = row->peer;
        return true;
    }
    if ((row->flags & (NKT_IFACE_BROADCAST | NKT_IFACE_LOOPBACK)) == 0) return false;
    // A network of two has no broadcast address (RFC 3021): to the other one.
    if (row->bits < 1 || row->bits > 31) return false;
    uint32_t host = 0xffffffffu >> row->bits, ip = 0;
    nkt_ip_to_u32(&row->ip, &ip);
    copy->addr.ip = nkt_ip_from_u32(row->bits == 31 ? ip ^ 1 : ip | host);
    return true;
}

// The copies that are to be sent. Returns how many there are; in `copies` are
// `cap` of them, from number `skip` on.
static int nkti_net_copies(nkt_udp *udp, const nkt_addr *to, nkt_datagram *copies, int cap,
                           int skip) {
    bool is_group = nkti_ip_is_group(&to->ip);
    uint32_t only = is_group && udp->send_index != 0 ? udp->send_index : udp->only_index;
    int count = 0;
    nkti_mutex_lock(&udp->net_lock);
    int err = nkti_net_look(udp);
    for (int pass = 0; pass < 2 && count == 0 && err >= 0; pass++) {
        for (int at = 0; at < udp->iface_count;) {
            nkt_datagram copy;
            const nkt_sys_iface *row =
                is_group ? nkti_iface_next(udp, &at, to->ip.family, pass == 1, only)
                         : &udp->ifaces[at++];
            if (row == NULL || !nkti_net_copy(udp, row, to, pass == 1, only, &copy)) continue;
            if (count >= skip && count - skip < cap) copies[count - skip] = copy;
            count++;
        }
    }
    nkti_mutex_unlock(&udp->net_lock);
    return err < 0 ? err : count;
}

// Sends one copy to each. NKT_OK if one was taken, else why not, the last.
static int nkti_udp_send_copies(nkt_udp *udp, const void *data, size_t len, const nkt_addr *to,
                                nkt_udp_result *results, int cap, int *count) {
    enum { ROOM = 64 };
    nkt_datagram copies[ROOM];
    int result = NKT_ENETUNREACH;
    bool taken = false, full = false;
    int fd = udp->is_socket ? nkti_udp_fd_for(udp, to) : (int)NKT_EUNSUPPORTED;
    if (fd < 0) return fd;
    *count = 1;
    for (int i = 0; i < *count; i++) {
        nkt_datagram *copy = &copies[i % ROOM];
        if (i % ROOM == 0) {
            int all = nkti_net_copies(udp, to, copies, ROOM, i);
            *count = all < 0 && i > 0 ? i : all;
            if (i >= *count) break;
        }
        copy->data = (void *)(uintptr_t)data;
        copy->len = (uint32_t)len;
        int err = nkt_udp_link_send(udp->top, copy, 1);
        if (err > 0) {
            nkti_udp_sent(udp, copy, 1);
            taken = true;
        } else {
            result = err;
            full = full || err == NKT_EAGAIN;
        }
        if (i >= cap) continue;
        memset(&results[i], 0, sizeof results[i]);
        results[i].to = copy->addr;
        results[i].interface_index = copy->interface_index;
        results[i].err = err > 0 ? (int)NKT_OK : err;
        results[i].os_error = err > 0 || err == NKT_EAGAIN ? 0 : udp->os_error[1];
    }
    if (*count < 0) return *count;
    return taken ? (int)NKT_OK : full ? (int)NKT_EAGAIN : result;
}

NKTI_INLINE bool nkti_udp_is_for_all(const nkt_udp *udp, const nkt_addr *to) {
    static const nkt_ip broadcast = { { 255, 255, 255, 255 }, 0, NKT_IPV4, { 0, 0, 0 } };
    if (!udp->is_socket) return false;
    if (nkt_ip_equal(&to->ip, &broadcast)) return true;
    return nkti_ip_is_group(&to->ip) && to->ip.scope == 0;
}

NKT_API ptrdiff_t nkt_udp_send(nkt_udp *udp, const void *data, size_t len, const nkt_addr *to) {
    nkt_datagram one;
    int64_t deadline = 0;
    int count;
    if (data == NULL && len > 0) return NKT_EINVAL;
    memset(&one, 0, sizeof one);
    if (to != NULL) one.addr = *to;
    one.data = (void *)(uintptr_t)data;
    one.len = len > NKT_DATAGRAM_MAX ? NKT_DATAGRAM_MAX + 1 : (uint32_t)len;
    int err = nkti_udp_check_len(udp, &one);
    if (err < 0) return err;
    if (!nkti_udp_is_for_all(udp, &one.addr)) {
        err = nkti_udp_send_list(udp, &one, 1);
        return err < 0 ? err : (ptrdiff_t)len;
    }
    for (;;) {
        if (nkti_atomic_load(&udp->canceled) != 0) return NKT_ECANCELED;
        err = nkti_udp_send_copies(udp, data, len, &one.addr, NULL, 0, &count);
        if (err == NKT_EAGAIN) err = nkti_udp_again(udp, 1, &deadline, false);
        else if (err >= 0) return (ptrdiff_t)len;
        if (err < 0) return err;
    }
}

NKT_API ptrdiff_t nkt_udp_send_str(nkt_udp *udp, const char *text, const char *to) {
    nkt_addr addr;
    if (text == NULL) return NKT_EINVAL;
    if (to == NULL) return nkt_udp_send(udp, text, strlen(text), NULL);
    int err = nkt_addr_parse(to, &addr);
    return err < 0 ? err : nkt_udp_send(udp, text, strlen(text), &addr);
}

NKT_API int nkt_udp_send_many(nkt_udp *udp, const nkt_datagram *list, int count) {
    int good = 0, err = NKT_OK, sent = 0;
    if (list == NULL || count < 0) return NKT_EINVAL;
    // Those before a bad one are sent.
    while (good < count && (err = nkti_udp_check_len(udp, &list[good])) >= 0) good++;
    while (sent < good) {
        int step = nkti_udp_send_list(udp, list + sent, good - sent);
        if (step < 0) return sent > 0 ? sent : step;
        sent += step;
    }
    return sent > 0 || count == 0 ? sent : err;
}

NKT_API int nkt_udp_send_each(nkt_udp *udp, const void *data, size_t len, const nkt_addr *to,
                              nkt_udp_result *results, int cap) {
    int count = 0;
    if ((data == NULL && len > 0) || to == NULL || cap < 0) return NKT_EINVAL;
    if (nkti_atomic_load(&udp->canceled) != 0) return NKT_ECANCELED;
    if (!nkti_udp_is_for_all(udp, to)) return udp->is_socket ? NKT_EGROUP : NKT_EUNSUPPORTED;
    if (len > (to->ip.family == NKT_IPV4 ? NKTI_UDP_MAX4 : NKTI_UDP_MAX6)) return NKT_ETOOLONG;
    int err = nkti_udp_send_copies(udp, data, len, to, results, cap, &count);
    return count > 0 ? count : err;
}

NKT_API ptrdiff_t nkt_udp_broadcast(nkt_udp *udp, const void *data, size_t len, uint16_t port) {
    nkt_ip all = nkt_ip_from_u32(0xffffffffu);
    nkt_addr to = nkt_addr_make(&all, port);
    if (!udp->is_socket) return NKT_EUNSUPPORTED;
    return nkt_udp_send(udp, data, len, &to);
}

// --- Receiving ---------------------------------------------------------------

// One try: datagrams from the top link into the list's buffers.
NKTI_INLINE int nkti_udp_try(nkt_udp *udp, nkt_datagram *list, int count) {
    if (nkti_atomic_load(&udp->canceled) != 0) return NKT_ECANCELED;
    if (!nkti_handle_has_turn(&udp->handle, &udp->turn)) return NKTI_OUT_OF_TURN;
    if (udp->top->transport != &nkti_udp_transport) {
        return nkt_udp_link_recv(udp->top, list, count);
    }
    nkti_udp_know_nothing(list, count);
    return nkti_udp_recv_fds(udp->top, list, count);
}

NKTI_INLINE int nkti_udp_recv_list(nkt_udp *udp, nkt_datagram *list, int count) {
    int64_t deadline = 0;
    for (;;) {
        int got = nkti_udp_try(udp, list, count);
        if (got > 0) {
            udp->deadlines[0] = NKT_NEVER;
            return got;
        }
        if (got != NKT_EAGAIN && got != NKTI_OUT_OF_TURN) return got;
        got = nkti_udp_again(udp, 0, &deadline, got == NKTI_OUT_OF_TURN);
        if (got < 0) return got;
    }
}

static int nkti_udp_batch_open(nkt_udp *udp) {
    nkt_env *env = udp->handle.env;
    if (udp->batch != NULL) return NKT_OK;
    nkti_udp_batch *batch = (nkti_udp_batch *)nkti_alloc(env, sizeof *batch);
    if (batch == NULL) return NKT_ENOMEM;
    batch->slots = (uint8_t *)nkti_resize(env, NULL, 0, NKTI_UDP_ROOM);
    if (batch->slots == NULL) {
        nkti_free(env, batch, sizeof *batch);
        return NKT_ENOMEM;
    }
    udp->batch = batch;
    // A link above would have to know of segments.
    udp->coalesce = udp->offload && udp->top == &udp->bottom &&
                    nkti_udp_set_all(udp, NKT_UDP_COALESCE, 1) >= 0;
    // One socket of two may have it: then nobody would cut up what it gives.
    if (udp->fd_count > 1 && !udp->coalesce) nkti_udp_set_all(udp, NKT_UDP_COALESCE, 0);
    return NKT_OK;
}

// Makes sure that something is in the batch.
static int nkti_udp_batch_fill(nkt_udp *udp, int slots) {
    nkti_udp_batch *batch = udp->batch;
    if (batch->next < batch->count) return NKT_OK;
    batch->next = batch->count = 0;
    batch->at = 0;
    for (int i = 0; i < slots; i++) {
        batch->list[i].data = batch->slots + (size_t)NKTI_UDP_SLOTS * NKTI_UDP_SMALL +
                              (size_t)i * NKTI_UDP_SLOT;
        batch->list[i].cap = NKT_DATAGRAM_MAX;
        // A link above would look where the slot is.
        batch->list[i].reserved[NKTI_IN_SLOT] = udp->top == &udp->bottom ? (uint8_t)(i + 1) : 0;
        batch->list[i].reserved[NKTI_IS_SMALL] = 0;
    }
    int got = nkti_udp_recv_list(udp, batch->list, slots);
    if (got > 0) batch->count = got;
    return got;
}

// Hands out the next datagram of the batch, as a view.
static void nkti_udp_batch_take(nkti_udp_batch *batch, nkt_datagram *out) {
    const nkt_datagram *from = &batch->list[batch->next];
    uint32_t left = from->len - batch->at;
    *out = *from;
    out->data = batch->at + (from->reserved[NKTI_IS_SMALL] ? nkti_udp_small(from)
                                                           : (uint8_t *)from->data);
    out->reserved[NKTI_IN_SLOT] = out->reserved[NKTI_IS_SMALL] = 0;
    if (from->segment != 0 && left > from->segment) {
        out->len = from->segment;
        batch->at += from->segment;
    } else {
        out->len = left;
        batch->at = 0;
        batch->next++;
    }
    out->cap = out->len;
    out->segment = 0;
}

NKT_API int nkt_udp_recv_many(nkt_udp *udp, nkt_datagram *list, int cap) {
    int count = 0;
    uint64_t bytes = 0;
    if (list == NULL || cap < 1) return NKT_EINVAL;
    int err = nkti_udp_batch_open(udp);
    if (err < 0) return err;
    nkti_udp_batch *batch = udp->batch;
    err = nkti_udp_batch_fill(udp, cap < NKTI_UDP_SLOTS ? cap : NKTI_UDP_SLOTS);
    if (err < 0) {
        list[0].addr = batch->list[0].addr;     // whom an ICMP error is about
        return err;
    }
    while (count < cap && batch->next < batch->count) {
        nkti_udp_batch_take(batch, &list[count]);
        bytes += list[count++].len;
    }
    udp->info.received += (uint64_t)count;
    udp->info.received_bytes += bytes;
    return count;
}

// One datagram into the caller's buffer.
NKTI_INLINE int nkti_udp_recv_into(nkt_udp *udp, nkt_datagram *datagram) {
    nkti_udp_batch *batch = udp->batch;
    if (batch != NULL && (udp->coalesce || batch->next < batch->count)) {
        int err = nkti_udp_batch_fill(udp, 1);
        if (err < 0) {
            datagram->addr = batch->list[0].addr;
            return err;
        }
        nkt_datagram view;
        nkti_udp_batch_take(batch, &view);
        size_t len = view.len < datagram->cap ? view.len : datagram->cap;
        if (len > 0) memcpy(datagram->data, view.data, len);
        view.truncated = view.truncated || view.len > len;
        view.data = datagram->data;
        view.cap = datagram->cap;
        view.len = (uint32_t)len;
        *datagram = view;
    } else {
        int err = nkti_udp_recv_list(udp, datagram, 1);
        if (err < 0) return err;
    }
    udp->info.received++;
    udp->info.received_bytes += datagram->len;
    if (datagram->truncated) udp->info.truncated++;
    return NKT_OK;
}

NKT_API int nkt_udp_recv_datagram(nkt_udp *udp, nkt_datagram *datagram) {
    if (datagram == NULL || (datagram->data == NULL && datagram->cap > 0)) return NKT_EINVAL;
    datagram->reserved[NKTI_ALL_FACTS] = 1;
    int err = nkti_udp_recv_into(udp, datagram);
    datagram->reserved[NKTI_ALL_FACTS] = 0;
    return err;
}

NKT_API ptrdiff_t nkt_udp_recv(nkt_udp *udp, void *buf, size_t cap, nkt_addr *from) {
    nkt_datagram one;
    if (buf == NULL && cap > 0) return NKT_EINVAL;
    one.data = buf;
    one.cap = cap > NKT_DATAGRAM_MAX ? NKT_DATAGRAM_MAX : (uint32_t)cap;
    one.reserved[NKTI_ALL_FACTS] = 0;
    int err = nkti_udp_recv_into(udp, &one);
    if (from != NULL && (err >= 0 || nkti_udp_is_answer(err))) *from = one.addr;
    if (err < 0) return err;
    return one.truncated ? (ptrdiff_t)NKT_ETRUNCATED : (ptrdiff_t)one.len;
}

// --- Ending, asking and setting ----------------------------------------------

NKT_API void nkt_udp_interrupt(nkt_udp *udp) {
    nkti_udp_wake(udp, true);
}

// Ends the links and frees everything.
static void nkti_udp_unlink(nkt_udp *udp) {
    while (udp->top != &udp->bottom) {
        nkt_udp_link *link = udp->top;
        udp->top = link->below;
        link->transport->close(link);
        nkti_free(udp->handle.env, link, sizeof *link);
    }
    udp->bottom.transport->close(&udp->bottom);
    nkti_udp_free(udp);
}

NKT_API void nkt_udp_close(nkt_udp *udp) {
    if (udp == NULL) return;
    nkti_settle(&udp->handle, &udp->canceled);
    nkti_handle_leave(&udp->handle);
    nkti_udp_trace(udp, "closed", NKT_OK, 0);
    bool (*linger)(nkti_handle *handle) = nkti_state(udp->handle.env)->linger;
    if (linger == NULL || !linger(&udp->handle)) nkti_udp_unlink(udp);
}

NKT_API int nkt_udp_local(nkt_udp *udp, nkt_addr *addr) {
    for (nkt_udp_link *link = udp->top; link != NULL; link = link->below) {
        if (NKTI_DATAGRAM_HAS(link->transport, local)) return link->transport->local(link, addr);
    }
    return NKT_ENOTCONN;
}

NKT_API int nkt_udp_peer(nkt_udp *udp, nkt_addr *addr) {
    for (nkt_udp_link *link = udp->top; link != NULL; link = link->below) {
        if (NKTI_DATAGRAM_HAS(link->transport, peer)) return link->transport->peer(link, addr);
    }
    return NKT_ENOTCONN;
}

NKT_API nkt_fd nkt_udp_descriptor(nkt_udp *udp) {
    for (nkt_udp_link *link = udp->top; link != NULL; link = link->below) {
        if (NKTI_DATAGRAM_HAS(link->transport, descriptor)) {
            return link->transport->descriptor(link);
        }
    }
    return NKT_NO_FD;
}

NKT_API int32_t nkt_udp_os_error(const nkt_udp *udp) {
    return udp->os_error[0] != 0 ? udp->os_error[0] : udp->os_error[1];
}

NKT_API int nkt_udp_watch(nkt_udp *udp, uint32_t want, nkt_interest *interest) {
    nkti_interest_clear(interest);
    nkti_udp_want_deadlines(udp, want, false, interest);
    nkti_udp_want(udp, want, interest);
    bool pending = udp->batch != NULL && udp->batch->next < udp->batch->count;
    if ((want & NKT_READ) && pending) interest->ready = true;
    return NKT_OK;
}

NKT_API int nkt_udp_get_info(nkt_udp *udp, nkt_udp_info *info) {
    *info = udp->info;
    info->sockets = (uint32_t)udp->fd_count;
    nkti_mutex_lock(&udp->net_lock);
    for (size_t i = 0; i < udp->member_count; i++) info->joined += udp->members[i].index != 0;
    nkti_mutex_unlock(&udp->net_lock);
    return NKT_OK;
}

// Where a setting is kept that is one of the socket's too, and its bounds.
static int32_t *nkti_udp_setting(nkt_udp *udp, nkt_udp_option option, int32_t *low,
                                 int32_t *high) {
    *low = 0;
    *high = 255;
    switch ((int)option) {
    case NKT_UDP_HOPS: *low = 1; return &udp->hops;
    case NKT_UDP_MULTICAST_HOPS: return &udp->multicast_hops;
    case NKT_UDP_TRAFFIC_CLASS: return &udp->traffic_class;
    case NKT_UDP_DONT_FRAGMENT: *high = 1; return &udp->dont_fragment;
    case NKT_UDP_LOOPBACK: *high = 1; return &udp->loopback;
    default: return NULL;
    }
}

NKT_API int nkt_udp_set_option(nkt_udp *udp, nkt_udp_option option, int64_t value) {
    int32_t low, high, *setting = nkti_udp_setting(udp, option, &low, &high);
    char name[256];
    int direction = option == NKT_UDP_SEND_TIMEOUT_MS;
    switch ((int)option) {
    case NKT_UDP_RECV_TIMEOUT_MS: case NKT_UDP_SEND_TIMEOUT_MS:
        if (value > INT32_MAX) return NKT_EINVAL;
        udp->timeouts_ms[direction] = value > 0 ? (int32_t)value : 0;
        udp->deadlines[direction] = NKT_NEVER;
        return NKT_OK;
    case NKT_UDP_MULTICAST_INTERFACE:
        if (!udp->is_socket) return NKT_EUNSUPPORTED;
        if (value < 0 || value > UINT32_MAX) return NKT_EINVAL;
        if (value != 0 && nkti_interface_name(udp->handle.env, (uint32_t)value, name,
                                              sizeof name) < 0) return NKT_ENODEV;
        udp->send_index = (uint32_t)value;
        return NKT_OK;
    case NKT_UDP_SEND_BUFFER: case NKT_UDP_RECV_BUFFER:
        low = 1;
        high = INT32_MAX;
        break;
    default:
        if (setting == NULL) return NKT_EINVAL;
    }
    if (value < low || value > high) return NKT_EINVAL;
    if (!udp->is_socket) return NKT_EUNSUPPORTED;
    int err = nkti_udp_set_all(udp, (int)option, value);
    if (err >= 0 && setting != NULL) *setting = (int32_t)value;
    return err;
}

NKT_API int nkt_udp_get_option(nkt_udp *udp, nkt_udp_option option, int64_t *value) {
    nkt_env *env = udp->handle.env;
    int32_t low, high, *setting = nkti_udp_setting(udp, option, &low, &high);
    int at = udp->connected > 0;
    switch ((int)option) {
    case NKT_UDP_RECV_TIMEOUT_MS: *value = udp->timeouts_ms[0]; return NKT_OK;
    case NKT_UDP_SEND_TIMEOUT_MS: *value = udp->timeouts_ms[1]; return NKT_OK;
    case NKT_UDP_NONBLOCKING: *value = udp->handle.nonblocking; return NKT_OK;
    case NKT_UDP_MULTICAST_INTERFACE: *value = udp->send_index; return NKT_OK;
    case NKT_UDP_SEND_BUFFER: case NKT_UDP_RECV_BUFFER: case NKT_UDP_PATH_MTU: break;
    default:
        if (setting == NULL) return NKT_EINVAL;
        *value = *setting;
        return NKT_OK;
    }
    if (!udp->is_socket) return NKT_EUNSUPPORTED;
    if (option == NKT_UDP_PATH_MTU) {
        if (udp->connected < 0) return NKT_EUNSUPPORTED;
        return nkti_udp_sys(env)->get_option(env, udp->fds[at], udp->families[at], (int)option,
                                             value);
    }
    return env->core->get_option(env, udp->fds[at], option == NKT_UDP_SEND_BUFFER
                                 ? NKT_SO_SEND_BUFFER : NKT_SO_RECV_BUFFER, value);
}

//==============================================================================
// MARK: @packets - two datagram handles in memory
//
// Two queues of blocks and a lock. It uses nothing that a program's own module
// could not use, and so shows that the table of functions is enough.
//==============================================================================

#define NKTI_PACKET_COST 32     // so that empty ones are not without end either

typedef struct nkti_packet {
    struct nkti_packet *next;
    size_t len;
    // Behind it stand the bytes.
} nkti_packet;

typedef struct nkti_packets {
    nkti_packet *first, **last;
    size_t bytes;               // each packet's with NKTI_PACKET_COST
    size_t need;                // that a sender waits for
    bool awaited;               // one does
} nkti_packets;

typedef struct nkti_udp_pair {
    nkti_mutex lock;
    nkt_env *env;
    size_t capacity;
    nkt_udp *ends[2];           // NULL once closed
    nkti_packets queues[2];     // sent by end 0, by end 1
} nkti_udp_pair;

static int nkti_udp_pair_side(nkt_udp_link *link) {
    return ((nkti_udp_pair *)link->self)->ends[1] == link->udp;
}

static void nkti_packet_drop(nkti_udp_pair *pair, nkti_packets *queue) {
    nkti_packet *packet = queue->first;
    queue->first = packet->next;
    if (queue->first == NULL) queue->last = &queue->first;
    queue->bytes -= packet->len + NKTI_PACKET_COST;
    nkti_free(pair->env, packet, sizeof *packet + packet->len);
}

static int nkti_udp_pair_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    nkti_udp_pair *pair = (nkti_udp_pair *)link->self;
    int got = 0;
    nkti_mutex_lock(&pair->lock);
    int side = nkti_udp_pair_side(link);
    nkti_packets *queue = &pair->queues[!side];
    for (; got < count && queue->first != NULL; got++) {
        const nkti_packet *packet = queue->first;
        nkt_datagram *out = &list[got];
        out->truncated = packet->len > out->cap;
        out->len = out->truncated ? out->cap : (uint32_t)packet->len;
        if (out->len > 0) memcpy(out->data, packet + 1, out->len);
        nkti_packet_drop(pair, queue);
    }
    if (got > 0 && queue->awaited && pair->ends[!side] != NULL) {
        queue->awaited = false;
        nkt_udp_notify(pair->ends[!side]);
    }
    nkti_mutex_unlock(&pair->lock);
    return got > 0 ? got : (int)NKT_EAGAIN;
}

// Under the pair's lock.
static int nkti_udp_pair_put(nkti_udp_pair *pair, int side, const nkt_datagram *datagram) {
    nkti_packets *queue = &pair->queues[side];
    if (pair->ends[!side] == NULL) return NKT_EREFUSED;
    if (datagram->len > pair->capacity) return NKT_EMSGSIZE;
    size_t cost = datagram->len + NKTI_PACKET_COST;
    queue->need = cost;
    queue->awaited = queue->first != NULL && queue->bytes + cost > pair->capacity;
    if (queue->awaited) return NKT_EAGAIN;
    nkti_packet *packet = (nkti_packet *)nkti_resize(pair->env, NULL, 0,
                                                     sizeof *packet + datagram->len);
    if (packet == NULL) return NKT_ENOMEM;
    packet->next = NULL;
    packet->len = datagram->len;
    if (packet->len > 0) memcpy(packet + 1, datagram->data, packet->len);
    *queue->last = packet;
    queue->last = &packet->next;
    queue->bytes += cost;
    return NKT_OK;
}

static int nkti_udp_pair_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    nkti_udp_pair *pair = (nkti_udp_pair *)link->self;
    int sent = 0, err = NKT_OK;
    nkti_mutex_lock(&pair->lock);
    int side = nkti_udp_pair_side(link);
    while (sent < count && (err = nkti_udp_pair_put(pair, side, &list[sent])) >= 0) sent++;
    if (sent > 0) nkt_udp_notify(pair->ends[!side]);
    nkti_mutex_unlock(&pair->lock);
    return sent > 0 ? sent : err;
}

static void nkti_udp_pair_watch(nkt_udp_link *link, uint32_t want, nkt_interest *out) {
    nkti_udp_pair *pair = (nkti_udp_pair *)link->self;
    nkti_mutex_lock(&pair->lock);
    int side = nkti_udp_pair_side(link);
    nkti_packets *queue = &pair->queues[side];
    if ((want & NKT_READ) && pair->queues[!side].first != NULL) out->ready = true;
    bool room = queue->first == NULL || queue->bytes + queue->need <= pair->capacity;
    if (want & NKT_WRITE) {
        if (room || pair->ends[!side] == NULL) out->ready = true;
        else queue->awaited = true;
    }
    nkti_mutex_unlock(&pair->lock);
}

static void nkti_udp_pair_close(nkt_udp_link *link) {
    nkti_udp_pair *pair = (nkti_udp_pair *)link->self;
    bool forked = nkti_forked(&link->udp->handle);
    if (!forked) nkti_mutex_lock(&pair->lock);
    int side = nkti_udp_pair_side(link);
    while (pair->queues[!side].first != NULL) nkti_packet_drop(pair, &pair->queues[!side]);
    pair->ends[side] = NULL;
    bool last = pair->ends[!side] == NULL;
    if (!forked && !last) nkt_udp_notify(pair->ends[!side]);
    if (!forked) nkti_mutex_unlock(&pair->lock);
    if (!last) return;
    // What it has sent went with the other end.
    if (!forked) nkti_mutex_free(&pair->lock);
    nkti_free(pair->env, pair, sizeof *pair);
}

static const nkt_datagram_transport nkti_udp_pair_transport = {
    sizeof(nkt_datagram_transport), "pair", nkti_udp_pair_recv, nkti_udp_pair_send,
    nkti_udp_pair_watch, nkti_udp_pair_close, NULL, NULL, NULL,
};

NKT_API int nkt_udp_pair(const nkt_udp_opts *a_opts, const nkt_udp_opts *b_opts,
                         uint32_t capacity, nkt_udp **a, nkt_udp **b) {
    nkt_env *env = nkti_env_use(a_opts != NULL ? a_opts->env : NULL);
    if (env == NULL || nkti_env_use(b_opts != NULL ? b_opts->env : NULL) != env) {
        return NKT_EINVAL;
    }
    nkti_udp_pair *pair = (nkti_udp_pair *)nkti_alloc(env, sizeof *pair);
    if (pair == NULL) return NKT_ENOMEM;
    pair->env = env;
    pair->capacity = capacity != 0 ? capacity : 262144;
    pair->queues[0].last = &pair->queues[0].first;
    pair->queues[1].last = &pair->queues[1].first;
    nkti_mutex_init(&pair->lock);
    int err = nkt_udp_open_custom(&nkti_udp_pair_transport, pair, a_opts, &pair->ends[0]);
    if (err < 0) {
        nkti_mutex_free(&pair->lock);
        nkti_free(env, pair, sizeof *pair);
        return err;
    }
    err = nkt_udp_open_custom(&nkti_udp_pair_transport, pair, b_opts, &pair->ends[1]);
    if (err < 0) {
        // Closing the one end that is there frees the pair.
        nkt_udp_close(pair->ends[0]);
        return err;
    }
    *a = pair->ends[0];
    *b = pair->ends[1];
    return NKT_OK;
}
#endif

#ifndef NETKIT_NO_SIM
//==============================================================================
// MARK: @impair - a bad network on demand
//
// A link that holds back what passes through it. Each direction is a path: a
// heap of items in the order in which they are due, and the settings that tell
// when that is.
//
//     user --send--> [ path 1 ] --due--> link below --> network
//     user <--due--- [ path 0 ] <--pull-- link below <-- network
//
// The reader pulls. What is to be sent must leave by itself: on a poller the
// handle's deadline sees to it; else the pump does, a thread for each
// environment that ends when nothing is under way. Handles that are closed with
// something under way are left to it.
//
// All chance is nkti_path_draw: a hash of the seed, the item's number and what
// is drawn. Probabilities are of 2^32 and times are integers, so that every
// system gets the same.
//
// Order of locks: the pump's, a path's, what the link below has.
//==============================================================================

#define NKTI_IMPAIR_HOUR 3600000.0
#define NKTI_IMPAIR_QUEUE 131072
#define NKTI_IMPAIR_HELD_MAX (16u << 20)    // bytes under way in one direction
#define NKTI_IMPAIR_FULL (256u << 10)       // of them while the link below is full
#define NKTI_IMPAIR_STEPS 256
#define NKTI_IMPAIR_SEGMENT 1460            // a stream's, without an MTU
#define NKTI_IMPAIR_BATCH 16                // datagrams handed down at once
#define NKTI_IMPAIR_PULLS 64                // in one call
#define NKTI_IMPAIR_SCRATCH 65535           // a datagram of any length
#define NKTI_IMPAIR_ACCEPTS 16              // connections whose accepting is delayed
#define NKTI_IMPAIR_LINGER (60000 * NKTI_MS)
#define NKTI_CERTAIN ((uint64_t)1 << 32)    // a probability of 1
#define NKTI_SEED_OF_SENDING 0xd1b54a32d192ed03u

// One impairment in integers.
typedef struct nkti_settings {
    int64_t latency, jitter, late, stall_for;
    int64_t rate, queue_ns;             // queue_ns: how long the queue takes at the rate
    uint64_t duplicate, reorder, corrupt, stall;
    uint64_t loss;                      // in the bad state; without bursts that is always
    uint64_t enter_bad, leave_bad;
    uint32_t mtu, piece_max;
    bool normal, overtake, bursts;
} nkti_settings;

typedef struct nkti_step {
    int64_t at, until;
    nkti_settings to;
} nkti_step;

// A datagram, or some of a stream. Behind it stand, of a datagram, an
// nkti_about, then the bytes.
typedef struct nkti_item {
    uint64_t number;                    // in the order of sending
    uint32_t size, len, at;             // allocated, filled and consumed bytes
    int32_t end;                        // a stream: what comes instead of bytes, or 0
    bool is_datagram, is_copy;
} nkti_item;

typedef struct nkti_about {
    nkt_addr addr;
    nkt_ip local;
    uint32_t interface_index;
    int32_t hops, traffic_class;
    bool truncated;
} nkti_about;

typedef struct nkti_due {
    int64_t due;
    uint64_t order;                     // of those that are due at once
    nkti_item *item;
} nkti_due;

typedef struct nkti_path {
    nkti_mutex lock;
    uint32_t active;                    // atomic; 0 = everything goes straight through
    nkt_env *env;
    nkti_settings base;
    nkti_step *steps;
    uint32_t step_count;
    int64_t begun, repeat;              // when the schedule did, and its period or 0
    int64_t cut_at;                     // instant, NKT_NEVER if none
    int64_t cut_bytes;                  // or -1
    int32_t cut;
    bool has_cut;
    bool bad;                           // the Gilbert-Elliott state
    bool rested;                        // the stall that was drawn is over
    bool full;                          // the link below said NKT_EAGAIN
    bool ended;                         // a stream's end is held
    uint8_t family;                     // of datagrams to the peer that is connected
    int16_t late_err;                   // to be told by the next call
    uint64_t calls;                     // of a stream
    int64_t wire_free;                  // when the last byte has left, at ...
    int64_t wire_rate;                  // ... this rate, or 0
    uint64_t wire_rest;                 // a fraction of a nanosecond more, of the rate
    int64_t gate;                       // nothing moves before
    int64_t last_due;
    nkti_due *heap;                     // from index 1
    size_t count, capacity;
    nkti_item end;                      // of the stream that is sent: it needs no memory
    uint64_t order, held, next_number, highest;
    nkt_impair_stats stats;
} nkti_path;

typedef struct nkti_impaired {
    nkt_env *env;
    nkti_handle *handle;
    nkt_link *link;                     // one of these
    struct nkt_udp_link *udp_link;
    nkti_path ways[2];                  // receiving, sending
    uint8_t *scratch;                   // a datagram that is being pulled
    nkt_addr late_addr;                 // whom the error is about that path 0 keeps
    uint32_t reset;                     // atomic: a stream was cut rudely
    uint32_t alone;                     // atomic: neither poller nor pump sees to it
    // Under the pump's lock.
    struct nkti_impaired *next;
    bool served, lingers;
    int64_t linger_until;
} nkti_impaired;

// --- Chance ------------------------------------------------------------------

enum {
    NKTI_DRAW_STATE, NKTI_DRAW_LOSS, NKTI_DRAW_DUPLICATE, NKTI_DRAW_REORDER,
    NKTI_DRAW_CORRUPT, NKTI_DRAW_WHERE, NKTI_DRAW_STALL, NKTI_DRAW_PIECE,
    NKTI_DRAW_JITTER, NKTI_DRAW_COPY_JITTER = NKTI_DRAW_JITTER + 3, NKTI_DRAW_KINDS = 16
};

// The output function of SplitMix64 (Steele, Lea and Flood, "Fast splittable
// pseudorandom number generators", 2014).
static uint64_t nkti_mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t nkti_draw(uint64_t seed, uint64_t number) {
    return nkti_mix(seed + (number + 1) * 0x9e3779b97f4a7c15u);
}

static uint64_t nkti_path_draw(const nkti_path *path, uint64_t number, int what) {
    return nkti_draw(path->stats.seed, number * NKTI_DRAW_KINDS + (uint64_t)what);
}

static bool nkti_path_chance(const nkti_path *path, uint64_t number, int what,
                             uint64_t probability) {
    return probability > 0 && nkti_path_draw(path, number, what) >> 32 < probability;
}

// How much later or earlier than the latency. The normal distribution is a sum
// of twelve even ones, of which the deviation is exactly 2^16 in units of their
// steps, and which ends at six deviations.
static int64_t nkti_path_jitter(const nkti_path *path, const nkti_settings *settings,
                                uint64_t number, int what) {
    if (settings->jitter == 0) return 0;
    uint64_t draw = nkti_path_draw(path, number, what);
    if (!settings->normal) {
        uint64_t width = (uint64_t)settings->jitter * 2 + 1;
        return (int64_t)((draw >> 44) * width >> 20) - settings->jitter;
    }
    int64_t sum = -(12 * 65535 / 2);
    for (int i = 1;; i++) {
        for (int shift = 0; shift < 64; shift += 16) sum += (int64_t)(draw >> shift & 0xffff);
        if (i == 3) return sum * settings->jitter / 65536;
        draw = nkti_path_draw(path, number, what + i);
    }
}

// --- Settings ----------------------------------------------------------------

typedef struct nkti_check {
    nkt_problem *problem;
    int err;
} nkti_check;

static void nkti_check_fail(nkti_check *check, const char *field, const char *why) {
    if (check->err < 0) return;
    check->err = nkti_problem_set(check->problem, NKT_EINVAL, field, -1, why);
}

static uint64_t nkti_check_fraction(nkti_check *check, const char *field, double value) {
    if (value >= 0 && value <= 1) return (uint64_t)(value * 4294967296.0);
    nkti_check_fail(check, field, "expected a fraction, 0 to 1");
    return 0;
}

// Milliseconds as nanoseconds, exactly the same whatever the compiler does with
// doubles: every step but the last shift is exact.
static int64_t nkti_check_ms(nkti_check *check, const char *field, double ms) {
    if (!(ms >= 0 && ms <= NKTI_IMPAIR_HOUR)) {
        nkti_check_fail(check, field, "expected 0 to 3600000 ms");
        return 0;
    }
    int64_t whole = (int64_t)ms;
    int64_t part = (int64_t)((ms - (double)whole) * 1073741824.0);
    return whole * NKTI_MS + (part * NKTI_MS >> 30);
}

// The chance to get into the bad state that makes the mean loss what was asked
// for: of the time, loss / burst_loss is spent there.
static void nkti_check_loss(nkti_check *check, const nkt_impairment *from, nkti_settings *to) {
    uint64_t loss = nkti_check_fraction(check, "loss", from->loss);
    uint64_t in_burst = nkti_check_fraction(check, "burst_loss", from->burst_loss);
    to->loss = loss;
    to->bursts = from->loss_burst > 1 && loss > 0 && loss < NKTI_CERTAIN;
    if (!(from->loss_burst >= 0 && from->loss_burst <= 1e6) ||
        (from->loss_burst > 0 && from->loss_burst < 1)) {
        nkti_check_fail(check, "loss_burst", "expected 0, or 1 to 1000000 datagrams");
    }
    if (in_burst == 0) in_burst = NKTI_CERTAIN;
    if (from->burst_loss > 0 && loss >= in_burst && from->loss < 1) {
        nkti_check_fail(check, "burst_loss", "expected more than loss, which is the mean");
    }
    if (!to->bursts || check->err < 0) return;
    uint64_t burst = (uint64_t)(from->loss_burst * 65536.0);
    uint64_t share = loss * NKTI_CERTAIN / in_burst;        // below NKTI_CERTAIN
    to->loss = in_burst;
    to->leave_bad = ((uint64_t)1 << 48) / burst;
    to->enter_bad = to->leave_bad * share / (NKTI_CERTAIN - share);
    if (to->enter_bad > NKTI_CERTAIN) {
        nkti_check_fail(check, "loss_burst", "too short for so much loss: the good state between "
                                             "two bursts would be less than one datagram");
    }
}

static void nkti_check_rate(nkti_check *check, const nkt_impairment *from, nkti_settings *to) {
    if (from->rate < 0 || from->rate > INT64_C(10000000000)) {
        nkti_check_fail(check, "rate", "expected 0 to 10000000000 bytes/s");
    } else if (from->rate > 0) {
        uint64_t queue = from->queue_bytes != 0 ? from->queue_bytes : NKTI_IMPAIR_QUEUE;
        to->rate = from->rate;
        to->queue_ns = (int64_t)(queue * 1000000000u / (uint64_t)from->rate);
    } else if (from->queue_bytes != 0) {
        nkti_check_fail(check, "queue_bytes", "nothing queues without a rate");
    }
}

// One impairment without its steps. NKT_OK or NKT_EINVAL.
static int nkti_settings_make(const nkt_impairment *from, bool is_stream, nkt_problem *problem,
                              nkti_settings *to) {
    nkti_check check = { NULL, NKT_OK };
    check.problem = problem;
    memset(to, 0, sizeof *to);
    to->latency = nkti_check_ms(&check, "latency_ms", from->latency_ms);
    to->jitter = nkti_check_ms(&check, "jitter_ms", from->jitter_ms);
    to->late = nkti_check_ms(&check, "reorder_ms", from->reorder_ms);
    to->stall_for = nkti_check_ms(&check, "stall_ms", from->stall_ms);
    nkti_check_ms(&check, "cut_ms", from->cut_ms);
    nkti_check_ms(&check, "accept_ms", from->accept_ms);
    nkti_check_ms(&check, "repeat_ms", from->repeat_ms);
    to->duplicate = nkti_check_fraction(&check, "duplicate", from->duplicate);
    to->reorder = nkti_check_fraction(&check, "reorder", from->reorder);
    to->corrupt = nkti_check_fraction(&check, "corrupt", from->corrupt);
    to->stall = nkti_check_fraction(&check, "stall", from->stall);
    nkti_check_loss(&check, from, to);
    nkti_check_rate(&check, from, to);
    if (from->jitter != NKT_JITTER_UNIFORM && from->jitter != NKT_JITTER_NORMAL) {
        nkti_check_fail(&check, "jitter", "expected NKT_JITTER_UNIFORM or NKT_JITTER_NORMAL");
    }
    to->normal = from->jitter == NKT_JITTER_NORMAL;
    to->overtake = from->overtake;
    if (!to->normal && to->jitter > to->latency) {
        nkti_check_fail(&check, "jitter_ms", "expected at most latency_ms: nothing arrives before "
                                             "it was sent");
    }
    if (from->mtu != 0 && (from->mtu < 68 || from->mtu > 65535)) {
        nkti_check_fail(&check, "mtu", "expected 0, or 68 to 65535 bytes");
    }
    if (from->cut < NKT_CUT_NONE || from->cut > NKT_CUT_END) {
        nkti_check_fail(&check, "cut", "expected one of NKT_CUT_...");
    } else if (from->cut > NKT_CUT_SILENT && !is_stream) {
        nkti_check_fail(&check, "cut", "only streams are reset or end; expected NKT_CUT_NONE or "
                                       "NKT_CUT_SILENT");
    }
    if (from->cut_bytes < 0) {
        nkti_check_fail(&check, "cut_bytes", "expected 0 or more bytes");
    } else if (from->cut == NKT_CUT_NONE && (from->cut_bytes > 0 || from->cut_ms > 0)) {
        nkti_check_fail(&check, "cut", "cut_bytes and cut_ms need to know how");
    }
    to->mtu = from->mtu;
    to->piece_max = from->piece_max;
    if (from->reorder_ms <= 0) to->late = 20 * NKTI_MS;
    if (from->stall_ms <= 0) to->stall_for = 100 * NKTI_MS;
    return check.err;
}

static int nkti_step_make(const nkt_impairment *from, uint32_t index, bool is_stream,
                          int64_t after, nkti_step *to) {
    nkt_impairment outage;
    memset(&outage, 0, sizeof outage);
    outage.loss = 1;
    const nkt_impair_step *step = &from->steps[index];
    const nkt_impairment *what = step->to != NULL ? step->to : &outage;
    nkti_check check = { NULL, NKT_OK };
    check.problem = from->problem;
    to->at = nkti_check_ms(&check, "steps.at_ms", step->at_ms);
    to->until = to->at + nkti_check_ms(&check, "steps.for_ms", step->for_ms);
    if (to->until == to->at) nkti_check_fail(&check, "steps.for_ms", "expected more than 0 ms");
    if (to->at < after) nkti_check_fail(&check, "steps.at_ms", "a step begins before the one in "
                                                               "front of it has ended");
    if (from->repeat_ms > 0 && to->until > nkti_check_ms(&check, "repeat_ms", from->repeat_ms)) {
        nkti_check_fail(&check, "repeat_ms", "the schedule is longer");
    }
    if (what->steps != NULL || what->cut != NKT_CUT_NONE || what->accept_ms > 0) {
        nkti_check_fail(&check, "steps.to", "a step has no steps, cut or accept_ms of its own");
    }
    return check.err < 0 ? check.err
                         : nkti_settings_make(what, is_stream, from->problem, &to->to);
}

// Everything about one impairment, before anything is changed. `*steps` is
// allocated, or NULL.
static int nkti_impair_check(nkt_env *env, const nkt_impairment *from, bool is_stream,
                             nkti_settings *base, nkti_step **steps) {
    nkt_impairment none;
    memset(&none, 0, sizeof none);
    *steps = NULL;
    if (from == NULL) from = &none;
    if (from->problem != NULL) memset(from->problem, 0, sizeof *from->problem);
    int err = nkti_settings_make(from, is_stream, from->problem, base);
    if (err < 0) return err;
    nkti_check check = { NULL, NKT_OK };
    check.problem = from->problem;
    if (from->step_count > NKTI_IMPAIR_STEPS || (from->steps == NULL) != (from->step_count == 0)) {
        nkti_check_fail(&check, "step_count", "expected 0 without steps, else 1 to 256");
    } else if (from->step_count == 0 && from->repeat_ms > 0) {
        nkti_check_fail(&check, "repeat_ms", "there are no steps to repeat");
    }
    if (check.err < 0 || from->step_count == 0) return check.err;
    *steps = (nkti_step *)nkti_alloc(env, from->step_count * sizeof **steps);
    if (*steps == NULL) return NKT_ENOMEM;
    for (uint32_t i = 0; i < from->step_count && err >= 0; i++) {
        err = nkti_step_make(from, i, is_stream, i == 0 ? 0 : (*steps)[i - 1].until,
                             &(*steps)[i]);
    }
    if (err >= 0) return NKT_OK;
    nkti_free(env, *steps, from->step_count * sizeof **steps);
    *steps = NULL;
    return err;
}

static bool nkti_settings_delay(const nkti_settings *settings) {
    return (settings->latency | settings->jitter | settings->rate) != 0 || settings->loss != 0 ||
           settings->corrupt != 0;
}

static bool nkti_settings_are_idle(const nkti_settings *settings) {
    return !nkti_settings_delay(settings) && settings->mtu == 0 && settings->piece_max == 0 &&
           (settings->duplicate | settings->reorder | settings->stall) == 0;
}

// What holds now, and until when.
static const nkti_settings *nkti_path_settings(const nkti_path *path, int64_t now,
                                               int64_t *until) {
    *until = NKT_NEVER;
    if (path->step_count == 0) return &path->base;
    int64_t base = path->begun, since = now - path->begun;
    if (path->repeat > 0) {
        base += since / path->repeat * path->repeat;
        since %= path->repeat;
    }
    for (uint32_t i = 0; i < path->step_count; i++) {
        const nkti_step *step = &path->steps[i];
        if (since >= step->until) continue;
        *until = base + (since < step->at ? step->at : step->until);
        return since < step->at ? &path->base : &step->to;
    }
    if (path->repeat > 0) *until = base + path->repeat;
    return &path->base;
}

// The same, and what waits for another rate waits for this one.
static const nkti_settings *nkti_path_now(nkti_path *path, int64_t now, int64_t *until) {
    const nkti_settings *settings = nkti_path_settings(path, now, until);
    if (settings->rate == path->wire_rate) return settings;
    uint64_t wait = path->wire_free > now ? (uint64_t)(path->wire_free - now) : 0;
    uint64_t queued = wait * (uint64_t)path->wire_rate / 1000000000u;
    path->wire_rate = settings->rate;
    path->wire_rest = 0;
    path->wire_free = now;
    if (settings->rate != 0) {
        path->wire_free += (int64_t)(queued * 1000000000u / (uint64_t)settings->rate);
    }
    return settings;
}

static bool nkti_path_is_cut(const nkti_path *path, int64_t now) {
    if (!path->has_cut) return false;
    return now >= path->cut_at || (path->cut_bytes >= 0 &&
                                   path->stats.sent_bytes >= (uint64_t)path->cut_bytes);
}

// --- What is under way -------------------------------------------------------

static nkti_item *nkti_item_new(nkt_env *env, bool is_datagram, size_t len) {
    size_t size = sizeof(nkti_item) + (is_datagram ? sizeof(nkti_about) : 0) + len;
    nkti_item *item = (nkti_item *)nkti_resize(env, NULL, 0, size);
    if (item == NULL) return NULL;
    memset(item, 0, sizeof *item);
    item->size = (uint32_t)size;
    item->len = (uint32_t)len;
    item->is_datagram = is_datagram;
    return item;
}

static uint8_t *nkti_item_bytes(nkti_item *item) {
    return (uint8_t *)item + item->size - item->len;
}

static void nkti_item_free(nkt_env *env, nkti_item *item) {
    if (item != NULL && item->size > 0) nkti_free(env, item, item->size);
}

static bool nkti_due_before(const nkti_due *a, const nkti_due *b) {
    return a->due < b->due || (a->due == b->due && a->order < b->order);
}

static void nkti_path_sift(nkti_path *path, size_t index, nkti_due entry) {
    for (;;) {
        size_t child = index * 2;
        if (child > path->count) break;
        if (child < path->count && nkti_due_before(&path->heap[child + 1], &path->heap[child])) {
            child++;
        }
        if (!nkti_due_before(&path->heap[child], &entry)) break;
        path->heap[index] = path->heap[child];
        index = child;
    }
    path->heap[index] = entry;
}

// One place more is kept for a stream's end.
static int nkti_path_reserve(nkti_path *path, size_t more) {
    if (path->count + more + 1 < path->capacity) return NKT_OK;
    size_t capacity = path->capacity == 0 ? 16 : path->capacity * 2;
    nkti_due *grown = (nkti_due *)nkti_resize(path->env, path->heap,
                                              path->capacity * sizeof path->heap[0],
                                              capacity * sizeof path->heap[0]);
    if (grown == NULL) return NKT_ENOMEM;
    path->heap = grown;
    path->capacity = capacity;
    return NKT_OK;
}

// Into room that was reserved.
static void nkti_path_put(nkti_path *path, nkti_due entry) {
    const nkti_item *item = entry.item;
    size_t index = ++path->count;
    while (index > 1 && nkti_due_before(&entry, &path->heap[index / 2])) {
        path->heap[index] = path->heap[index / 2];
        index /= 2;
    }
    path->heap[index] = entry;
    path->held += item->size;
    path->stats.under_way += item->end == 0;
}

static void nkti_path_hold(nkti_path *path, nkti_item *item, int64_t due) {
    nkti_due entry;
    entry.due = due;
    entry.order = path->order++;
    entry.item = item;
    nkti_path_put(path, entry);
}

static int64_t nkti_path_next(const nkti_path *path) {
    return path->count > 0 ? path->heap[1].due : NKT_NEVER;
}

// Takes the first item out, as one that has arrived.
static nkti_item *nkti_path_take(nkti_path *path) {
    nkti_item *item = path->heap[1].item;
    nkti_due last = path->heap[path->count--];
    if (path->count > 0) nkti_path_sift(path, 1, last);
    path->held -= item->size;
    path->stats.under_way -= item->end == 0;
    return item;
}

static void nkti_path_arrived(nkti_path *path, const nkti_item *item) {
    path->stats.delivered += item->end == 0;
    path->stats.delivered_bytes += item->len;
    if (item->is_copy) return;
    if (item->number < path->highest) path->stats.reordered++;
    else path->highest = item->number;
}

// What went straight through, if it did.
static void nkti_path_passed(nkti_path *path, ptrdiff_t bytes) {
    if (bytes <= 0) return;
    path->stats.sent++;
    path->stats.delivered++;
    path->stats.sent_bytes += (uint64_t)bytes;
    path->stats.delivered_bytes += (uint64_t)bytes;
}

static void nkti_path_clear(nkti_path *path) {
    while (path->count > 0) nkti_item_free(path->env, nkti_path_take(path));
    nkti_free(path->env, path->heap, path->capacity * sizeof path->heap[0]);
    nkti_free(path->env, path->steps, path->step_count * sizeof path->steps[0]);
}

// How many bytes wait for the rate.
static uint64_t nkti_path_queued(const nkti_path *path, const nkti_settings *settings,
                                 int64_t now) {
    if (settings->rate == 0 || path->wire_free <= now) return 0;
    int64_t wait = path->wire_free - now;
    return (uint64_t)(wait * settings->rate) / 1000000000u;
}

// Puts `len` bytes on the wire: when the last of them has left.
static int64_t nkti_path_depart(nkti_path *path, const nkti_settings *settings, int64_t now,
                                uint64_t len) {
    if (settings->rate == 0) return now;
    if (path->wire_free < now) {
        path->wire_free = now;
        path->wire_rest = 0;
    }
    uint64_t work = len * 1000000000u + path->wire_rest;
    path->wire_free += (int64_t)(work / (uint64_t)settings->rate);
    path->wire_rest = work % (uint64_t)settings->rate;
    uint64_t queued = nkti_path_queued(path, settings, now);
    if (queued > path->stats.queue_high) path->stats.queue_high = queued;
    return path->wire_free;
}

// Whether one more is lost by chance.
static bool nkti_path_loses(nkti_path *path, const nkti_settings *settings, uint64_t number) {
    if (settings->bursts) {
        uint64_t change = path->bad ? settings->leave_bad : settings->enter_bad;
        if (nkti_path_chance(path, number, NKTI_DRAW_STATE, change)) path->bad = !path->bad;
        if (!path->bad) return false;
    }
    return nkti_path_chance(path, number, NKTI_DRAW_LOSS, settings->loss);
}

// When what leaves at `departure` arrives.
static int64_t nkti_path_arrive(const nkti_path *path, const nkti_settings *settings,
                                int64_t departure, uint64_t number, int what) {
    int64_t delay = settings->latency + nkti_path_jitter(path, settings, number, what);
    return nkti_after(departure, delay > 0 ? delay : 0);
}

// --- Datagrams ---------------------------------------------------------------

#ifndef NETKIT_NO_UDP
typedef struct nkti_fate {
    int copies;
    int64_t due[2];
    bool corrupt;
    uint64_t bit;
} nkti_fate;

// What becomes of one that comes in now.
static void nkti_path_decide(nkti_path *path, int64_t now, const nkt_datagram *datagram,
                             nkti_fate *fate) {
    int64_t until;
    const nkti_settings *settings = nkti_path_now(path, now, &until);
    uint64_t number = path->next_number++;
    int family = datagram->addr.ip.family != 0 ? datagram->addr.ip.family : path->family;
    uint64_t packet = datagram->len + (family == NKT_IPV6 ? 48u : 28u);
    bool cut = nkti_path_is_cut(path, now);
    memset(fate, 0, sizeof *fate);
    path->stats.sent++;
    path->stats.sent_bytes += datagram->len;
    if (settings->mtu != 0 && packet > settings->mtu) {
        path->stats.oversized++;
        return;
    }
    if (nkti_path_loses(path, settings, number) || cut) {
        path->stats.lost++;
        return;
    }
    if (settings->rate != 0 && path->wire_free > now &&
        path->wire_free - now + (int64_t)(packet * 1000000000u / (uint64_t)settings->rate) >
        settings->queue_ns) {
        path->stats.overflowed++;
        return;
    }
    int64_t departure = nkti_path_depart(path, settings, now, packet);
    if (nkti_path_chance(path, number, NKTI_DRAW_STALL, settings->stall)) {
        path->gate = nkti_after(departure > path->gate ? departure : path->gate,
                                settings->stall_for);
        path->stats.stalls++;
    }
    if (departure < path->gate) departure = path->gate;
    fate->copies = 1;
    int64_t earliest = settings->overtake ? 0 : path->last_due;
    fate->due[0] = nkti_path_arrive(path, settings, departure, number, NKTI_DRAW_JITTER);
    if (fate->due[0] < earliest) fate->due[0] = earliest;
    if (nkti_path_chance(path, number, NKTI_DRAW_REORDER, settings->reorder)) {
        // Those behind it need not wait for it.
        fate->due[0] = nkti_after(fate->due[0], settings->late);
    } else if (path->last_due < fate->due[0]) {
        path->last_due = fate->due[0];
    }
    if (nkti_path_chance(path, number, NKTI_DRAW_DUPLICATE, settings->duplicate)) {
        fate->copies = 2;
        fate->due[1] = nkti_path_arrive(path, settings, departure, number,
                                        NKTI_DRAW_COPY_JITTER);
        if (fate->due[1] < earliest) fate->due[1] = earliest;
    }
    fate->corrupt = datagram->len > 0 &&
                    nkti_path_chance(path, number, NKTI_DRAW_CORRUPT, settings->corrupt);
    if (fate->corrupt) {
        fate->bit = nkti_path_draw(path, number, NKTI_DRAW_WHERE) % (datagram->len * 8u);
    }
}

static nkti_about *nkti_item_about(nkti_item *item) {
    return (nkti_about *)(void *)(item + 1);
}

static nkti_item *nkti_item_of(nkt_env *env, const nkt_datagram *datagram) {
    nkti_item *item = nkti_item_new(env, true, datagram->len);
    if (item == NULL) return NULL;
    nkti_about *about = nkti_item_about(item);
    about->addr = datagram->addr;
    about->local = datagram->local;
    about->interface_index = datagram->interface_index;
    about->hops = datagram->hops;
    about->traffic_class = datagram->traffic_class;
    about->truncated = datagram->truncated;
    if (datagram->len > 0) memcpy(nkti_item_bytes(item), datagram->data, datagram->len);
    return item;
}

static void nkti_item_tell(const nkti_item *item, nkt_datagram *out) {
    const nkti_about *about = (const nkti_about *)(const void *)(item + 1);
    out->addr = about->addr;
    out->local = about->local;
    out->interface_index = about->interface_index;
    out->hops = about->hops;
    out->traffic_class = about->traffic_class;
    out->truncated = about->truncated;
    out->segment = 0;
}

// Decides and holds. NKT_OK also if it is lost; NKT_ENOMEM before anything.
static int nkti_path_enter(nkti_path *path, int64_t now, const nkt_datagram *datagram) {
    nkti_fate fate;
    nkti_item *items[2] = { NULL, NULL };
    // Memory first, so that a lack of it changes no fate.
    int err = nkti_path_reserve(path, 2);
    if (err >= 0 && path->held < NKTI_IMPAIR_HELD_MAX) {
        items[0] = nkti_item_of(path->env, datagram);
        err = items[0] == NULL ? (int)NKT_ENOMEM : NKT_OK;
    }
    if (err < 0) return err;
    uint64_t number = path->next_number;
    nkti_path_decide(path, now, datagram, &fate);
    if (fate.copies == 2 && items[0] != NULL) {
        items[1] = nkti_item_of(path->env, datagram);
        if (items[1] == NULL) fate.copies = 1;      // as if that one were lost
    }
    if (fate.copies == 0 || items[0] == NULL) {
        if (fate.copies > 0) path->stats.overflowed++;
        nkti_item_free(path->env, items[0]);
        return NKT_OK;
    }
    for (int i = 0; i < fate.copies; i++) {
        items[i]->number = number;
        items[i]->is_copy = i > 0;
        if (fate.corrupt) {
            nkti_item_bytes(items[i])[fate.bit / 8] ^= (uint8_t)(1u << (fate.bit % 8));
        }
        nkti_path_hold(path, items[i], fate.due[i]);
    }
    path->stats.corrupted += fate.corrupt;
    path->stats.duplicated += fate.copies == 2;
    return NKT_OK;
}

// Hands down what is due, under the path's lock.
static void nkti_path_push_datagrams(nkti_path *path, nkt_udp_link *below, int64_t now) {
    nkt_datagram list[NKTI_IMPAIR_BATCH];
    nkti_due entries[NKTI_IMPAIR_BATCH];
    path->full = false;
    while (!path->full && nkti_path_next(path) <= now) {
        int count = 0, sent = 0;
        while (count < NKTI_IMPAIR_BATCH && nkti_path_next(path) <= now) {
            entries[count] = path->heap[1];
            nkti_item *item = nkti_path_take(path);
            memset(&list[count], 0, sizeof list[count]);
            nkti_item_tell(item, &list[count]);
            list[count].data = nkti_item_bytes(item);
            list[count++].len = item->len;
        }
        while (sent < count) {
            int taken = nkt_udp_link_send(below, list + sent, count - sent);
            if (taken == NKT_EAGAIN) break;
            if (taken < 0) {
                // The next call is told; the datagram is lost.
                path->late_err = (int16_t)taken;
                path->stats.lost++;
                nkti_item_free(path->env, entries[sent++].item);
                continue;
            }
            for (; taken > 0; taken--) {
                nkti_path_arrived(path, entries[sent].item);
                nkti_item_free(path->env, entries[sent++].item);
            }
        }
        path->full = sent < count;
        // Room is there: they have just been taken out.
        for (; sent < count; sent++) nkti_path_put(path, entries[sent]);
    }
}
#endif

// --- Streams -----------------------------------------------------------------

// Whether this read or write finds everything at rest: NKT_EAGAIN, or how many
// bytes it may move.
static ptrdiff_t nkti_path_allow(nkti_path *path, const nkti_settings *settings, int64_t now,
                                 size_t wanted) {
    if (now < path->gate) return NKT_EAGAIN;
    uint64_t call = path->calls;
    if (!path->rested && nkti_path_chance(path, call, NKTI_DRAW_STALL, settings->stall)) {
        path->gate = nkti_after(now, settings->stall_for);
        path->stats.stalls++;
        path->rested = true;
        return NKT_EAGAIN;
    }
    if (settings->piece_max != 0) {
        uint64_t most = 1 + nkti_path_draw(path, call, NKTI_DRAW_PIECE) % settings->piece_max;
        if (wanted > most) wanted = (size_t)most;
    }
    if (path->cut_bytes >= 0 && path->has_cut) {
        uint64_t left = (uint64_t)path->cut_bytes - path->stats.sent_bytes;
        if (wanted > left) wanted = (size_t)left;
    }
    return (ptrdiff_t)wanted;
}

// A call has moved something: the next one draws anew.
static void nkti_path_moved(nkti_path *path) {
    path->calls++;
    path->rested = false;
}

static bool nkti_settings_outage(const nkti_settings *settings) {
    return settings->loss >= NKTI_CERTAIN && !settings->bursts;
}

// When a stream's next `len` bytes arrive.
static int64_t nkti_path_stream_due(nkti_path *path, int64_t now, uint64_t number, size_t len) {
    int64_t until;
    const nkti_settings *settings = nkti_path_now(path, now, &until);
    if (nkti_settings_outage(settings)) {
        // Nothing gets through before the schedule or the user changes that.
        path->stats.lost++;
        int64_t due = NKT_NEVER;
        for (uint32_t i = 0; until != NKT_NEVER && i < 2 * path->step_count + 2; i++) {
            int64_t from = until;
            settings = nkti_path_settings(path, from, &until);
            if (nkti_settings_outage(settings)) continue;
            due = nkti_after(from, settings->latency);
            break;
        }
        if (due > path->last_due) path->last_due = due;
        return path->last_due;
    }
    int64_t departure = nkti_path_depart(path, settings, now, len);
    int64_t due = nkti_path_arrive(path, settings, departure, number, NKTI_DRAW_JITTER);
    bool broken = nkti_path_chance(path, number, NKTI_DRAW_CORRUPT, settings->corrupt);
    path->stats.corrupted += broken;
    if (nkti_path_loses(path, settings, number) || broken) {
        path->stats.lost++;
        due = nkti_after(due, settings->latency * 2 + NKTI_MS);
    }
    if (due < path->last_due) due = path->last_due;
    path->last_due = due;
    return due;
}

static size_t nkti_path_segment(const nkti_path *path) {
    return path->base.mtu > 40 ? path->base.mtu - 40 : NKTI_IMPAIR_SEGMENT;
}

// Whether a stream's sender must wait: for the rate's queue, or for what is
// under way.
static bool nkti_path_is_full(const nkti_path *path, const nkti_settings *settings,
                              int64_t now) {
    if (path->held >= (path->full ? NKTI_IMPAIR_FULL : NKTI_IMPAIR_HELD_MAX)) return true;
    return settings->rate != 0 && path->wire_free - now > settings->queue_ns;
}

// Puts an item of a stream, filled, under way.
static void nkti_path_stream_hold(nkti_path *path, nkti_item *item, int64_t now) {
    item->number = path->next_number++;
    if (item->end == 0) {
        path->stats.sent++;
        path->stats.sent_bytes += item->len;
    }
    nkti_path_hold(path, item, nkti_path_stream_due(path, now, item->number, item->len));
}

// Puts the end of a stream under way, once. NKT_OK or NKT_ENOMEM.
static int nkti_path_end(nkti_path *path, int64_t now) {
    if (path->ended) return NKT_OK;
    if (path->capacity == 0 && nkti_path_reserve(path, 1) < 0) return NKT_ENOMEM;
    path->end.end = NKT_EOF;
    path->ended = true;
    nkti_path_stream_hold(path, &path->end, now);
    return NKT_OK;
}

// When a stream that is sent ends by the clock, whether anybody writes or not.
static int64_t nkti_path_end_at(const nkti_path *path) {
    return path->cut == NKT_CUT_END && !path->ended ? path->cut_at : NKT_NEVER;
}

// Hands down what is due, under the path's lock.
static void nkti_path_push_bytes(nkti_path *path, nkt_link *below, int64_t now) {
    path->full = false;
    if (now >= nkti_path_end_at(path)) nkti_path_end(path, now);
    while (nkti_path_next(path) <= now && path->late_err == 0) {
        nkti_item *item = path->heap[1].item;
        ptrdiff_t sent = NKT_OK;
        if (item->end != 0) {
            sent = nkt_link_shutdown_write(below);
        } else {
            nkt_str rest;
            rest.ptr = (const char *)nkti_item_bytes(item) + item->at;
            rest.len = item->len - item->at;
            sent = nkt_link_send(below, &rest, 1);
        }
        if (sent == NKT_EAGAIN || sent == NKT_ENOMEM) {
            path->full = true;              // memory may come back
            return;
        }
        if (sent < 0) {
            path->late_err = (int16_t)sent;
            break;
        }
        item->at += (uint32_t)sent;
        if (item->at < item->len) continue;
        nkti_path_arrived(path, item);
        nkti_item_free(path->env, nkti_path_take(path));
    }
    // After a failure nothing more arrives.
    while (path->late_err != 0 && path->count > 0) {
        nkti_item *item = nkti_path_take(path);
        path->stats.lost += item->end == 0;
        nkti_item_free(path->env, item);
    }
}

// --- The pump ----------------------------------------------------------------

typedef struct nkti_pump {
    nkti_mutex lock;
    nkt_env *env;
    nkti_impaired *first;
    nkt_wake wake;
    int64_t until;              // its wait ends then by itself
    bool running, stop;
    uint32_t process_id;
} nkti_pump;

static void nkti_impaired_push(nkti_impaired *impaired, int64_t now) {
    nkti_path *path = &impaired->ways[1];
    if (impaired->link != NULL) nkti_path_push_bytes(path, impaired->link->below, now);
#ifndef NETKIT_NO_UDP
    else nkti_path_push_datagrams(path, impaired->udp_link->below, now);
#endif
}

// When the path of what is sent must be looked at, under its lock.
static int64_t nkti_impaired_next(const nkti_impaired *impaired, int64_t now) {
    const nkti_path *path = &impaired->ways[1];
    int64_t soon = nkti_after(now, NKTI_MS), end = nkti_path_end_at(path);
    // The link below may have room any time, and tells nobody here.
    if (path->full) return soon;
    return nkti_min_time(nkti_path_next(path), end > now ? end : soon);
}

#if !defined(NETKIT_NO_THREADS)
// Under the lock: serves everybody. Returns those that were closed and are done
// with, taken out of the list.
static nkti_impaired *nkti_pump_serve(nkti_pump *pump, int64_t now) {
    nkti_impaired *done = NULL, **place = &pump->first;
    pump->until = NKT_NEVER;
    while (*place != NULL) {
        nkti_impaired *one = *place;
        nkti_path *path = &one->ways[1];
        nkti_mutex_lock(&path->lock);
        nkti_impaired_push(one, now);
        int64_t next = nkti_impaired_next(one, now);
        nkti_mutex_unlock(&path->lock);
        bool over = one->lingers && (pump->stop || now >= one->linger_until);
        if (next != NKT_NEVER && !over) {
            if (one->lingers) next = nkti_min_time(next, one->linger_until);
            pump->until = nkti_min_time(pump->until, next);
            place = &one->next;
            continue;
        }
        *place = one->next;
        one->served = false;
        if (!one->lingers) continue;
        one->next = done;
        done = one;
    }
    return done;
}

static void nkti_impaired_end(nkti_impaired *impaired) {
    if (impaired->link != NULL) nkti_conn_unlink(impaired->link->conn, false);
#ifndef NETKIT_NO_UDP
    else nkti_udp_unlink(impaired->udp_link->udp);
#endif
}

static void nkti_pump_run(void *arg) {
    nkti_pump *pump = (nkti_pump *)arg;
    nkt_env *env = pump->env;
    nkti_mutex_lock(&pump->lock);
    for (;;) {
        int64_t now = nkti_now(env);
        nkti_impaired *done = nkti_pump_serve(pump, now);
        if (done == NULL && (pump->stop || pump->first == NULL)) break;
        nkt_watch watch;
        watch.fd = pump->wake.wait_fd;
        watch.events = NKT_READ;
        watch.ready = 0;
        int64_t timeout = done != NULL ? 0 : nkti_until(now, pump->until);
        nkti_mutex_unlock(&pump->lock);
        while (done != NULL) {
            nkti_impaired *one = done;
            done = one->next;
            nkti_impaired_end(one);
        }
        env->core->wait(env, &watch, 1, timeout);
        nkti_mutex_lock(&pump->lock);
        if (watch.ready != 0) env->core->wake_drain(env, &pump->wake);
    }
    env->core->wake_close(env, &pump->wake);
    pump->running = false;
    nkti_mutex_unlock(&pump->lock);
}
#endif

// Before the environment is given back: what still lingers is dropped.
static void nkti_pump_end(nkt_env *env) {
    nkti_pump *pump = nkti_state(env)->pump;
    if (pump == NULL) return;
    bool running = pump->process_id == (uint32_t)env->core->process_id(env);
    // Its thread looks there, too; a forked child has no other, and no lock.
    if (running) nkti_lock(env);
    nkti_state(env)->pump = NULL;
    if (running) nkti_unlock(env);
    while (running) {
        nkti_mutex_lock(&pump->lock);
        running = pump->running;
        pump->stop = true;
        if (running) env->core->wake_post(env, &pump->wake);
        nkti_mutex_unlock(&pump->lock);
        if (running) env->core->wait(env, NULL, 0, NKTI_MS / 10);
    }
    if (pump->process_id == (uint32_t)env->core->process_id(env)) nkti_mutex_free(&pump->lock);
    nkti_free(env, pump, sizeof *pump);
}

#if defined(NETKIT_NO_THREADS)
static bool nkti_pump_take(nkti_impaired *impaired, bool lingers, int64_t next) {
    (void)impaired, (void)lingers, (void)next;
    return false;
}
#else
static nkti_pump *nkti_pump_of(nkt_env *env) {
    nkti_env_state *state = nkti_state(env);
    nkti_lock(env);
    nkti_pump *pump = state->pump;
    if (pump == NULL) {
        pump = (nkti_pump *)nkti_alloc(env, sizeof *pump);
        if (pump != NULL) pump->env = env;
    }
    if (pump != NULL && pump->process_id != state->process_id) {
        // A new one, or a forked child's, whose thread stayed with the parent.
        nkti_mutex_init(&pump->lock);
        pump->first = NULL;
        pump->running = false;
        pump->process_id = state->process_id;
    }
    state->pump = pump;
    nkti_unlock(env);
    return pump;
}

// Has the pump see to a handle that no poller drives. Returns whether it does.
static bool nkti_pump_take(nkti_impaired *impaired, bool lingers, int64_t next) {
    nkt_env *env = impaired->env;
    nkti_pump *pump = nkti_pump_of(env);
    nkti_signals before_start;
    if (pump == NULL) return false;
    nkti_mutex_lock(&pump->lock);
    if (!pump->running) {
        nkti_os_pin();
        if (env->core->wake_open(env, &pump->wake) >= 0) {
            // It begins by taking the lock.
            pump->running = true;
            pump->stop = false;
            nkti_signals_block(&before_start);
            int err = nkt_thread_start(env, nkti_pump_run, pump);
            nkti_signals_restore(&before_start);
            if (err < 0) {
                pump->running = false;
                env->core->wake_close(env, &pump->wake);
            }
        }
    }
    if (pump->running) {
        bool planned = impaired->served && !lingers && next >= pump->until;
        if (!impaired->served) {
            impaired->next = pump->first;
            pump->first = impaired;
        }
        impaired->served = true;
        impaired->lingers = lingers;
        pump->until = nkti_min_time(pump->until, next);
        if (!planned) env->core->wake_post(env, &pump->wake);
    }
    bool taken = pump->running;
    nkti_mutex_unlock(&pump->lock);
    return taken;
}
#endif

static void nkti_pump_forget(nkti_impaired *impaired) {
    nkti_env_state *state = nkti_state(impaired->env);
    nkti_lock(impaired->env);
    nkti_pump *pump = state->pump;
    // In a forked child it is the parent's, and may be locked for ever.
    if (pump != NULL && pump->process_id != state->process_id) pump = NULL;
    nkti_unlock(impaired->env);
    if (pump == NULL) return;
    nkti_mutex_lock(&pump->lock);
    nkti_impaired **place = &pump->first;
    while (*place != NULL && *place != impaired) place = &(*place)->next;
    if (*place != NULL) *place = impaired->next;
    nkti_mutex_unlock(&pump->lock);
}

// Sees to it that what was put under way leaves in time.
static void nkti_impaired_plan(nkti_impaired *impaired, int64_t next) {
    if (next == NKT_NEVER) return;
    if (impaired->handle->poller != NULL) nkti_handle_schedule(impaired->handle, next);
    else nkti_atomic_store(&impaired->alone, !nkti_pump_take(impaired, false, next));
}

// Whether what is to be sent leaves by what the handle waits for.
static bool nkti_impaired_is_driven(nkti_impaired *impaired) {
    return impaired->handle->poller != NULL || nkti_atomic_load(&impaired->alone) != 0;
}

// New settings may have made something due.
static void nkti_impaired_replan(nkti_impaired *impaired) {
    nkti_path *path = &impaired->ways[1];
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env);
    nkti_impaired_push(impaired, now);
    int64_t next = nkti_impaired_next(impaired, now);
    nkti_mutex_unlock(&path->lock);
    nkti_impaired_plan(impaired, next);
}

// A handle is closed: whether its end is left to the pump.
static bool nkti_impaired_linger(nkti_impaired *impaired) {
    nkti_path *path = &impaired->ways[1];
    int64_t now = nkti_now(impaired->env);
    nkti_mutex_lock(&path->lock);
    nkti_impaired_push(impaired, now);
    bool left = nkti_path_next(path) != NKT_NEVER && path->late_err == 0;
    path->cut_at = NKT_NEVER;
    nkti_mutex_unlock(&path->lock);
    impaired->linger_until = nkti_after(now, NKTI_IMPAIR_LINGER);
    return left && nkti_pump_take(impaired, true, now);
}

// --- Links -------------------------------------------------------------------

static void nkti_impaired_free(nkti_impaired *impaired) {
    nkt_env *env = impaired->env;
    bool forked = nkti_forked(impaired->handle);
    if (!forked) nkti_pump_forget(impaired);
    for (int i = 0; i < 2; i++) {
        nkti_path_clear(&impaired->ways[i]);
        if (!forked) nkti_mutex_free(&impaired->ways[i].lock);
    }
    if (impaired->scratch != NULL) nkti_free(env, impaired->scratch, NKTI_IMPAIR_SCRATCH);
    nkti_free(env, impaired, sizeof *impaired);
}

static nkti_impaired *nkti_impaired_new(nkti_handle *handle) {
    nkt_env *env = handle->env;
    nkti_impaired *impaired = (nkti_impaired *)nkti_alloc(env, sizeof *impaired);
    if (impaired == NULL) return NULL;
    impaired->env = env;
    impaired->handle = handle;
    for (int i = 0; i < 2; i++) {
        nkti_mutex_init(&impaired->ways[i].lock);
        impaired->ways[i].env = env;
        impaired->ways[i].cut_bytes = -1;
    }
    return impaired;
}

// What was never due is now, behind everything else.
static void nkti_path_revive(nkti_path *path, int64_t due) {
    for (size_t i = 1; i <= path->count; i++) {
        int64_t other = path->heap[i].due;
        if (other != NKT_NEVER && other > due) due = other;
    }
    for (size_t i = 1; i <= path->count; i++) {
        if (path->heap[i].due == NKT_NEVER) path->heap[i].due = due;
    }
    if (path->last_due == NKT_NEVER) path->last_due = due;
}

// Gives one direction its settings; what is under way keeps its time, unless
// that was never.
static void nkti_path_set(nkti_path *path, const nkt_impairment *from,
                          const nkti_settings *base, nkti_step *steps, uint64_t seed) {
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(path->env);
    nkti_free(path->env, path->steps, path->step_count * sizeof path->steps[0]);
    path->base = *base;
    path->steps = steps;
    path->step_count = from->step_count;
    path->begun = now;
    path->has_cut = from->cut != NKT_CUT_NONE;
    path->cut = from->cut;
    path->cut_at = NKT_NEVER;
    path->cut_bytes = -1;
    path->gate = 0;
    path->rested = false;
    nkti_check check = { NULL, NKT_OK };
    path->repeat = nkti_check_ms(&check, "", from->repeat_ms);
    path->stats.seed = seed;
    if (path->has_cut && from->cut_bytes > 0) {
        path->cut_bytes = (int64_t)(path->stats.sent_bytes + (uint64_t)from->cut_bytes);
    }
    if (path->has_cut && (from->cut_ms > 0 || from->cut_bytes == 0)) {
        path->cut_at = now + nkti_check_ms(&check, "", from->cut_ms);
    }
    nkti_path_revive(path, nkti_after(now, base->latency));
    bool idle = nkti_settings_are_idle(base) && steps == NULL && !path->has_cut;
    nkti_atomic_store(&path->active, !idle || path->count > 0 || path->ended);
    nkti_mutex_unlock(&path->lock);
}

// A check of both directions, the settings that came of it, and a seed.
typedef struct nkti_wish {
    const nkt_impairment *from[2];      // receiving, sending
    nkti_settings base[2];
    nkti_step *steps[2];
    uint64_t seed[2];
} nkti_wish;

static void nkti_wish_free(nkt_env *env, nkti_wish *wish) {
    for (int i = 0; i < 2; i++) {
        if (wish->steps[i] == NULL) continue;
        nkti_free(env, wish->steps[i], wish->from[i]->step_count * sizeof *wish->steps[i]);
    }
}

static int nkti_wish_make(nkt_env *env, const nkt_impairment *sending,
                          const nkt_impairment *receiving, bool is_stream, nkti_wish *wish) {
    int err = NKT_OK;
    memset(wish, 0, sizeof *wish);
    wish->from[0] = receiving;
    wish->from[1] = sending;
    for (int i = 0; i < 2 && err >= 0; i++) {
        err = nkti_impair_check(env, wish->from[i], is_stream, &wish->base[i], &wish->steps[i]);
        if (err < 0 || wish->from[i] == NULL) continue;
        uint64_t seed = wish->from[i]->seed;
        if (seed == 0) err = env->core->random(env, &seed, sizeof seed);
        // The two directions of one seed have nothing to do with each other.
        wish->seed[i] = seed + (uint64_t)i * NKTI_SEED_OF_SENDING;
    }
    if (err < 0) nkti_wish_free(env, wish);
    return err;
}

// Both directions say so from now on.
static void nkti_impair_reset(nkti_impaired *impaired) {
    nkti_atomic_store(&impaired->reset, 1);
    for (int i = 0; i < 2; i++) nkti_atomic_store(&impaired->ways[i].active, 1);
    nkt_conn_notify(impaired->link->conn);      // the other direction may be waiting
}

static void nkti_impaired_set(nkti_impaired *impaired, const nkti_wish *wish) {
    nkt_impairment none;
    memset(&none, 0, sizeof none);
    for (int i = 0; i < 2; i++) {
        bool ends = wish->from[i] == NULL;
        nkti_path_set(&impaired->ways[i], ends ? &none : wish->from[i], &wish->base[i],
                      wish->steps[i], ends ? impaired->ways[i].stats.seed : wish->seed[i]);
    }
    if (nkti_atomic_load(&impaired->reset) != 0) nkti_impair_reset(impaired);
}

static void nkti_impaired_stats(nkti_impaired *impaired, int way, nkt_impair_stats *stats) {
    nkti_path *path = &impaired->ways[way];
    nkti_mutex_lock(&path->lock);
    *stats = path->stats;
    stats->seed -= (uint64_t)way * NKTI_SEED_OF_SENDING;
    nkti_mutex_unlock(&path->lock);
}

// --- The link of a stream ----------------------------------------------------

static nkti_impaired *nkti_impaired_of(nkt_link *link) {
    return (nkti_impaired *)link->self;
}

static bool nkti_path_is_active(nkti_path *path) {
    return nkti_atomic_load(&path->active) != 0;
}

// Puts some of the pieces' bytes under way. How many.
static ptrdiff_t nkti_impair_take(nkti_path *path, const nkti_settings *settings, int64_t now,
                                  const nkt_str *pieces, size_t count, size_t allowed) {
    size_t taken = 0, offset = 0;
    for (size_t i = 0; i < count && taken < allowed;) {
        size_t len = pieces[i].len - offset, segment = nkti_path_segment(path);
        if (len > segment) len = segment;
        if (len > allowed - taken) len = allowed - taken;
        if (len > 0) {
            if (nkti_path_is_full(path, settings, now)) break;
            nkti_item *item = nkti_path_reserve(path, 1) < 0 ? NULL
                            : nkti_item_new(path->env, false, len);
            if (item == NULL) return taken > 0 ? (ptrdiff_t)taken : (ptrdiff_t)NKT_ENOMEM;
            memcpy(nkti_item_bytes(item), pieces[i].ptr + offset, len);
            nkti_path_stream_hold(path, item, now);
            taken += len;
            offset += len;
        }
        if (offset == pieces[i].len) {
            i++;
            offset = 0;
        }
    }
    return taken > 0 ? (ptrdiff_t)taken : (ptrdiff_t)NKT_EAGAIN;
}

// Straight down, but no more than is allowed.
static ptrdiff_t nkti_impair_pass(nkt_link *below, const nkt_str *pieces, size_t count,
                                  size_t allowed) {
    nkt_str some[NKTI_PIECES_MAX];
    size_t used = 0;
    for (; used < count && used < NKTI_PIECES_MAX && allowed > 0; used++) {
        some[used] = pieces[used];
        if (some[used].len > allowed) some[used].len = allowed;
        allowed -= some[used].len;
    }
    return nkt_link_send(below, some, used);
}

// What a send of a direction that was cut comes to.
static ptrdiff_t nkti_impair_cut_send(nkti_impaired *impaired, int64_t now) {
    nkti_path *path = &impaired->ways[1];
    if (path->cut == NKT_CUT_SILENT) return NKT_EAGAIN;
    if (path->cut == NKT_CUT_RESET) {
        nkti_impair_reset(impaired);
        return NKT_ERESET;
    }
    if (nkti_path_end(path, now) < 0) return NKT_ENOMEM;
    nkti_impaired_push(impaired, now);
    return NKT_EPIPE;
}

// When a sender that was told to wait may go on, if the link below has room.
static int64_t nkti_impair_room_at(const nkti_path *path, const nkti_settings *settings,
                                   int64_t now, int64_t until) {
    int64_t room = path->full || path->held < NKTI_IMPAIR_HELD_MAX ? NKT_NEVER
                                                                   : nkti_path_next(path);
    if (now < path->gate) return nkti_min_time(path->gate, path->cut_at);
    if (settings->rate != 0 && path->wire_free - now > settings->queue_ns) {
        room = path->wire_free - settings->queue_ns;
    }
    return nkti_min_time(nkti_min_time(room, until), path->cut_at);
}

static ptrdiff_t nkti_impair_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    nkti_impaired *impaired = nkti_impaired_of(link);
    nkti_path *path = &impaired->ways[1];
    // Whoever called has seen to the rules; a jump is all that this costs.
    if (!nkti_path_is_active(path)) {
        return link->below->transport->send(link->below, pieces, count);
    }
    if (nkti_atomic_load(&impaired->reset) != 0) return NKT_ERESET;
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env), until;
    const nkti_settings *settings = nkti_path_now(path, now, &until);
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += pieces[i].len;
    nkti_path_push_bytes(path, link->below, now);
    ptrdiff_t sent = path->late_err;
    if (sent == 0 && nkti_path_is_cut(path, now)) sent = nkti_impair_cut_send(impaired, now);
    if (sent == 0) sent = nkti_path_allow(path, settings, now, total);
    if (sent > 0) {
        size_t allowed = (size_t)sent;
        bool delays = nkti_settings_delay(settings) || path->step_count > 0 || path->count > 0;
        if (delays) {
            sent = nkti_impair_take(path, settings, now, pieces, count, allowed);
            nkti_path_push_bytes(path, link->below, now);
        } else {
            sent = nkti_impair_pass(link->below, pieces, count, allowed);
            nkti_path_passed(path, sent);
        }
        if (sent > 0) nkti_path_moved(path);
    }
    if (nkti_path_is_cut(path, now) && path->cut == NKT_CUT_END) {
        nkti_impair_cut_send(impaired, now);
    }
    int64_t next = nkti_impaired_next(impaired, now);
    int64_t room = nkti_impair_room_at(path, settings, now, until);
    nkti_mutex_unlock(&path->lock);
    nkti_impaired_plan(impaired, next);
    // The poller does not ask again after every call.
    if (sent == NKT_EAGAIN && room > now) nkti_handle_schedule(impaired->handle, room);
    return sent;
}

// Takes in what there is below, as far as there is room. NKT_OK, or what has
// passed when it is tried again.
static int nkti_impair_pull(nkt_link *link, const nkti_settings *settings, int64_t now) {
    nkti_path *path = &nkti_impaired_of(link)->ways[0];
    for (int i = 0; i < NKTI_IMPAIR_PULLS && !path->ended; i++) {
        if (nkti_path_is_full(path, settings, now) || nkti_path_is_cut(path, now)) break;
        size_t len = nkti_path_segment(path);
        if (path->cut_bytes >= 0) {
            uint64_t left = (uint64_t)path->cut_bytes - path->stats.sent_bytes;
            if (len > left) len = (size_t)left;
        }
        nkti_item *item = nkti_path_reserve(path, 1) < 0 ? NULL
                        : nkti_item_new(path->env, false, len);
        if (item == NULL) return NKT_ENOMEM;
        ptrdiff_t got = nkt_link_recv(link->below, nkti_item_bytes(item), len);
        if (got == NKT_EAGAIN || got == NKT_EINTR || got == NKT_ENOMEM) {
            nkti_item_free(path->env, item);
            return got == NKT_EAGAIN ? (int)NKT_OK : (int)got;
        }
        // The bytes stand at the end of an item, which is as long as it was.
        if (got > 0 && (size_t)got < len) {
            memmove(nkti_item_bytes(item) + (len - (size_t)got), nkti_item_bytes(item),
                    (size_t)got);
        }
        item->len = got > 0 ? (uint32_t)got : 0;
        item->end = got > 0 ? 0 : (int32_t)got;
        path->ended = got < 0;
        nkti_path_stream_hold(path, item, now);
    }
    return NKT_OK;
}

// Bytes that are due, or why there are none.
static ptrdiff_t nkti_impair_give(nkti_path *path, int64_t now, uint8_t *buf, size_t cap) {
    size_t given = 0;
    while (given < cap && nkti_path_next(path) <= now) {
        nkti_item *item = path->heap[1].item;
        if (item->end != 0) return given > 0 ? (ptrdiff_t)given : (ptrdiff_t)item->end;
        size_t len = item->len - item->at;
        if (len > cap - given) len = cap - given;
        memcpy(buf + given, nkti_item_bytes(item) + item->at, len);
        given += len;
        item->at += (uint32_t)len;
        if (item->at < item->len) break;
        nkti_path_arrived(path, item);
        nkti_item_free(path->env, nkti_path_take(path));
    }
    return given > 0 ? (ptrdiff_t)given : (ptrdiff_t)NKT_EAGAIN;
}

static ptrdiff_t nkti_impair_cut_recv(nkti_impaired *impaired) {
    const nkti_path *path = &impaired->ways[0];
    if (path->cut == NKT_CUT_SILENT) return NKT_EAGAIN;
    if (path->cut == NKT_CUT_END) return NKT_EOF;
    nkti_impair_reset(impaired);
    return NKT_ERESET;
}

static ptrdiff_t nkti_impair_recv(nkt_link *link, void *buf, size_t cap) {
    nkti_impaired *impaired = nkti_impaired_of(link);
    nkti_path *path = &impaired->ways[0];
    if (!nkti_path_is_active(path)) return link->below->transport->recv(link->below, buf, cap);
    if (nkti_atomic_load(&impaired->reset) != 0) return NKT_ERESET;
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env), until;
    const nkti_settings *settings = nkti_path_now(path, now, &until);
    bool delays = nkti_settings_delay(settings) || path->step_count > 0 || path->count > 0;
    int err = delays ? nkti_impair_pull(link, settings, now) : (int)NKT_OK;
    // What was taken in before the cut still comes.
    bool cut = nkti_path_is_cut(path, now) && path->count == 0;
    ptrdiff_t got = cut ? nkti_impair_cut_recv(impaired)
                        : nkti_path_allow(path, settings, now, cap);
    if (!cut && got == 0) got = (ptrdiff_t)cap;     // the last bytes before a cut are held
    if (!cut && got > 0 && delays) {
        got = nkti_impair_give(path, now, (uint8_t *)buf, (size_t)got);
    } else if (!cut && got > 0) {
        got = nkt_link_recv(link->below, buf, (size_t)got);
        nkti_path_passed(path, got);
    }
    if (got > 0) nkti_path_moved(path);
    if (got == NKT_EAGAIN && err < 0) got = err;
    int64_t next = nkti_min_time(nkti_path_next(path), path->cut_at);
    if (now < path->gate) next = path->gate;
    // What is not taken in from below must not be told of again and again.
    bool deaf = got == NKT_EAGAIN && (path->ended || now < path->gate ||
                                      nkti_path_is_cut(path, now) ||
                                      (delays && nkti_path_is_full(path, settings, now)));
    nkti_mutex_unlock(&path->lock);
    if (deaf) nkti_conn_update(link->conn);
    if (got == NKT_EAGAIN && next > now) nkti_handle_schedule(impaired->handle, next);
    return got;
}

static void nkti_impair_watch_read(nkt_link *link, nkt_interest *out) {
    nkti_impaired *impaired = nkti_impaired_of(link);
    nkti_path *path = &impaired->ways[0];
    if (!nkti_path_is_active(path)) {
        nkt_link_watch(link->below, NKT_READ, out);
        return;
    }
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env), until;
    const nkti_settings *settings = nkti_path_now(path, now, &until);
    bool delays = nkti_settings_delay(settings) || path->step_count > 0 || path->count > 0;
    bool cut = nkti_path_is_cut(path, now), stalled = now < path->gate, ready = out->ready;
    bool full = delays && nkti_path_is_full(path, settings, now);
    out->ready = false;
    if (!path->ended && !cut && !full && (delays || !stalled)) {
        nkt_link_watch(link->below, NKT_READ, out);
        if (delays) out->deadline_ns = nkti_min_time(out->deadline_ns, until);
    }
    // As with datagrams: what is ready below is taken in and may not be due.
    if (delays && out->ready) {
        // The next read tells of a failure.
        ready = nkti_impair_pull(link, settings, now) < 0 || ready;
        out->ready = false;
    }
    int64_t next = nkti_path_next(path);
    if (stalled) next = path->gate;
    else if (next <= now || (cut && path->count == 0 && path->cut != NKT_CUT_SILENT)) ready = true;
    out->deadline_ns = nkti_min_time(out->deadline_ns, next);
    if (!cut) out->deadline_ns = nkti_min_time(out->deadline_ns, path->cut_at);
    out->ready = out->ready || ready;
    nkti_mutex_unlock(&path->lock);
}

// When a sender that was told to wait may go on.
static void nkti_impair_watch_write(nkt_link *link, nkt_interest *out) {
    nkti_impaired *impaired = nkti_impaired_of(link);
    nkti_path *path = &impaired->ways[1];
    if (!nkti_path_is_active(path)) {
        nkt_link_watch(link->below, NKT_WRITE, out);
        return;
    }
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env), until;
    const nkti_settings *settings = nkti_path_now(path, now, &until);
    bool delays = nkti_settings_delay(settings) || path->step_count > 0 || path->count > 0;
    bool cut = nkti_path_is_cut(path, now), below = false;
    if (cut && path->cut == NKT_CUT_SILENT && path->late_err == 0) {
        // For ever.
    } else if (cut || path->late_err != 0) {
        out->ready = true;
    } else if (now < path->gate || (delays && nkti_path_is_full(path, settings, now))) {
        int64_t room = nkti_impair_room_at(path, settings, now, until);
        out->deadline_ns = nkti_min_time(out->deadline_ns, room);
        below = now >= path->gate && path->full;
    } else if (delays) {
        out->ready = true;
    } else {
        below = true;
    }
    if (!cut) out->deadline_ns = nkti_min_time(out->deadline_ns, path->cut_at);
    nkti_mutex_unlock(&path->lock);
    if (below) nkt_link_watch(link->below, NKT_WRITE, out);
}

// What is to be sent leaves whatever the user waits for.
static void nkti_impair_watch_due(nkt_link *link, nkt_interest *out) {
    nkti_impaired *impaired = nkti_impaired_of(link);
    nkti_path *path = &impaired->ways[1];
    if (!nkti_impaired_is_driven(impaired) || !nkti_path_is_active(path)) return;
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env);
    nkti_path_push_bytes(path, link->below, now);
    // One that is paused has no registration, and looks now and then.
    bool watched = path->full && impaired->handle->want != 0;
    if (!watched) {
        out->deadline_ns = nkti_min_time(out->deadline_ns, nkti_impaired_next(impaired, now));
    }
    nkti_mutex_unlock(&path->lock);
    if (watched) nkt_link_watch(link->below, NKT_WRITE, out);
}

static void nkti_impair_watch(nkt_link *link, uint32_t want, nkt_interest *out) {
    nkti_impaired *impaired = nkti_impaired_of(link);
    if (link->conn->connecting) {
        nkt_link_watch(link->below, want, out);
        return;
    }
    if (nkti_atomic_load(&impaired->reset) != 0) out->ready = true;
    nkti_impair_watch_due(link, out);
    if (want & NKT_READ) nkti_impair_watch_read(link, out);
    if (want & NKT_WRITE) nkti_impair_watch_write(link, out);
}

// Behind what is under way.
static int nkti_impair_shutdown_write(nkt_link *link) {
    nkti_impaired *impaired = nkti_impaired_of(link);
    nkti_path *path = &impaired->ways[1];
    if (!nkti_path_is_active(path)) return nkt_link_shutdown_write(link->below);
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env);
    // Nobody is told of a silent cut, by its end neither.
    bool silent = path->cut == NKT_CUT_SILENT && nkti_path_is_cut(path, now);
    int64_t until;
    bool direct = !silent && !path->ended && path->count == 0 && path->step_count == 0 &&
                  !nkti_settings_delay(nkti_path_settings(path, now, &until));
    int err = silent ? (int)NKT_OK : direct ? nkt_link_shutdown_write(link->below)
                                            : nkti_path_end(path, now);
    if (err == NKT_ENOMEM) {
        // Nothing was ever under way, or there would be a place for the end.
        direct = true;
        err = nkt_link_shutdown_write(link->below);
    }
    if (direct && err >= 0) path->ended = true;
    nkti_path_push_bytes(path, link->below, now);
    int64_t next = nkti_impaired_next(impaired, now);
    nkti_mutex_unlock(&path->lock);
    nkti_impaired_plan(impaired, next);
    return err;
}

// So that the peer sees a reset, too, when the links below are closed.
static void nkti_impair_close(nkt_link *link, bool abort) {
    nkti_impaired *impaired = nkti_impaired_of(link);
    nkt_conn *conn = link->conn;
    bool rude = nkti_atomic_load(&impaired->reset) != 0 && !abort && !nkti_forked(&conn->handle);
    nkt_env *env = conn->handle.env;
    if (rude && conn->bottom.transport == &nkti_socket_transport) {
        env->core->set_option(env, nkti_socket_fd(&conn->bottom), NKT_SO_ABORT_ON_CLOSE, 1);
    }
#ifndef NETKIT_NO_PAIR
    if (rude && conn->bottom.transport == &nkti_pair_transport) {
        nkti_pair *pair = nkti_pair_of(&conn->bottom);
        nkti_mutex_lock(&pair->lock);
        pair->reset = true;
        nkti_mutex_unlock(&pair->lock);
    }
#endif
    nkti_impaired_free(impaired);
}

static const nkt_transport nkti_impair_transport = {
    sizeof(nkt_transport), "impaired", nkti_impair_recv, nkti_impair_send,
    nkti_impair_shutdown_write, nkti_impair_watch, nkti_impair_close, NULL, NULL, NULL, NULL,
};

static nkti_impaired *nkti_conn_impaired(nkt_conn *conn) {
    for (nkt_link *link = conn->top; link != NULL; link = link->below) {
        if (link->transport == &nkti_impair_transport) return nkti_impaired_of(link);
    }
    return NULL;
}

// On top of what there is: what has been read is the user's already.
static nkti_impaired *nkti_conn_impair_push(nkt_conn *conn) {
    nkti_impaired *impaired = nkti_impaired_new(&conn->handle);
    if (impaired == NULL) return NULL;
    nkt_link *link = nkti_handle_set_timed(&conn->handle) < 0 ? NULL
                   : nkti_link_new(conn, &nkti_impair_transport, impaired);
    if (link == NULL) {
        nkti_impaired_free(impaired);
        return NULL;
    }
    impaired->link = link;
    conn->top = link;
    conn->short_read = false;
    return impaired;
}

static void nkti_impair_hook(nkt_env *env);

NKT_API int nkt_conn_impair_ways(nkt_conn *conn, const nkt_impairment *sending,
                                 const nkt_impairment *receiving) {
    nkt_env *env = conn->handle.env;
    nkti_wish wish;
    int err = nkti_wish_make(env, sending, receiving, true, &wish);
    if (err < 0) return err;
    nkti_impaired *impaired = nkti_conn_impaired(conn);
    if (impaired == NULL) impaired = nkti_conn_impair_push(conn);
    if (impaired == NULL) {
        nkti_wish_free(env, &wish);
        return NKT_ENOMEM;
    }
    nkti_impair_hook(env);
    nkti_impaired_set(impaired, &wish);
    nkti_impaired_replan(impaired);
    nkti_conn_trace(conn, "impaired", NKT_OK, (int64_t)impaired->ways[1].stats.seed);
    nkti_conn_update(conn);
    nkt_conn_notify(conn);          // for who waits by the settings before
    return NKT_OK;
}

NKT_API int nkt_conn_impair(nkt_conn *conn, const nkt_impairment *both) {
    return nkt_conn_impair_ways(conn, both, both);
}

NKT_API int nkt_conn_impair_stats(nkt_conn *conn, uint32_t direction, nkt_impair_stats *stats) {
    if (direction != NKT_READ && direction != NKT_WRITE) return NKT_EINVAL;
    nkti_impaired *impaired = nkti_conn_impaired(conn);
    if (impaired == NULL) return NKT_ENOTFOUND;
    nkti_impaired_stats(impaired, direction == NKT_WRITE, stats);
    return NKT_OK;
}

// --- The link of datagrams ---------------------------------------------------

#ifndef NETKIT_NO_UDP
static nkti_impaired *nkti_udp_impaired_of(nkt_udp_link *link) {
    return (nkti_impaired *)link->self;
}

// What a socket would refuse at once is not put under way.
static int nkti_udp_impair_refuses(const nkt_udp *udp, const nkt_datagram *datagram) {
    if (!udp->is_socket) return NKT_OK;
    int fd = nkti_udp_fd_for(udp, &datagram->addr);
    return fd < 0 ? fd : NKT_OK;
}

static int nkti_udp_impair_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    nkti_impaired *impaired = nkti_udp_impaired_of(link);
    nkti_path *path = &impaired->ways[1];
    if (!nkti_path_is_active(path)) return link->below->transport->send(link->below, list, count);
    int taken = 0, err = NKT_OK;
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env);
    const nkt_udp *udp = link->udp;
    if (udp->connected >= 0) path->family = (uint8_t)udp->families[udp->connected];
    if (path->full) nkti_path_push_datagrams(path, link->below, now);
    err = path->late_err;
    path->late_err = 0;
    while (taken < count && err >= 0) {
        err = nkti_udp_impair_refuses(udp, &list[taken]);
        if (err >= 0 && path->full && path->held >= NKTI_IMPAIR_FULL) err = NKT_EAGAIN;
        if (err >= 0) err = nkti_path_enter(path, now, &list[taken]);
        if (err >= 0) taken++;
    }
    nkti_path_push_datagrams(path, link->below, now);
    int64_t next = nkti_impaired_next(impaired, now);
    nkti_mutex_unlock(&path->lock);
    nkti_impaired_plan(impaired, next);
    return taken > 0 ? taken : err;
}

// Takes in what there is below. What was cut up by the network's card comes in
// one piece, and is cut up here.
static void nkti_udp_impair_pull(nkti_impaired *impaired, nkt_udp_link *below, int64_t now) {
    nkti_path *path = &impaired->ways[0];
    nkt_env *env = impaired->env;
    if (impaired->scratch == NULL) {
        impaired->scratch = (uint8_t *)nkti_resize(env, NULL, 0, NKTI_IMPAIR_SCRATCH);
    }
    if (impaired->scratch == NULL) return;      // memory may come back
    for (int i = 0; i < NKTI_IMPAIR_PULLS && path->late_err == 0; i++) {
        nkt_datagram whole;
        if (path->held >= NKTI_IMPAIR_HELD_MAX) return;
        memset(&whole, 0, sizeof whole);
        whole.data = impaired->scratch;
        whole.cap = NKT_DATAGRAM_MAX;
        whole.reserved[0] = 1;
        int got = nkt_udp_link_recv(below, &whole, 1);
        if (got == NKT_EAGAIN) return;
        if (got < 0) {
            path->late_err = (int16_t)got;
            impaired->late_addr = whole.addr;
            return;
        }
        uint32_t len = whole.len, step = whole.segment != 0 ? whole.segment : whole.len;
        uint32_t at = 0;
        do {
            nkt_datagram one = whole;
            one.data = impaired->scratch + at;
            one.len = len - at < step ? len - at : step;
            // Without memory it is lost, as without room in a socket's buffer.
            if (nkti_path_enter(path, now, &one) < 0) path->stats.overflowed++;
            at += one.len;
        } while (at < len);
    }
}

static int nkti_udp_impair_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    nkti_impaired *impaired = nkti_udp_impaired_of(link);
    nkti_path *path = &impaired->ways[0];
    if (!nkti_path_is_active(path)) return link->below->transport->recv(link->below, list, count);
    int got = 0;
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env);
    nkti_udp_impair_pull(impaired, link->below, now);
    for (; got < count && nkti_path_next(path) <= now; got++) {
        nkti_item *item = nkti_path_take(path);
        nkt_datagram *out = &list[got];
        nkti_item_tell(item, out);
        out->len = item->len < out->cap ? item->len : out->cap;
        out->truncated = out->truncated || item->len > out->cap;
        if (out->len > 0) memcpy(out->data, nkti_item_bytes(item), out->len);
        nkti_path_arrived(path, item);
        nkti_item_free(path->env, item);
    }
    if (got == 0 && path->late_err != 0) {
        got = path->late_err;
        list[0].addr = impaired->late_addr;
        path->late_err = 0;
    } else if (got == 0) {
        got = NKT_EAGAIN;
    }
    int64_t next = nkti_path_next(path);
    bool deaf = got == NKT_EAGAIN && path->held >= NKTI_IMPAIR_HELD_MAX;
    nkti_mutex_unlock(&path->lock);
    if (deaf) nkti_handle_update(impaired->handle);
    if (got == NKT_EAGAIN) nkti_handle_schedule(impaired->handle, next);
    return got;
}

static void nkti_udp_impair_watch_read(nkt_udp_link *link, nkt_interest *out) {
    nkti_impaired *impaired = nkti_udp_impaired_of(link);
    nkti_path *path = &impaired->ways[0];
    if (!nkti_path_is_active(path)) {
        nkt_udp_link_watch(link->below, NKT_READ, out);
        return;
    }
    nkti_mutex_lock(&path->lock);
    int64_t now = nkti_now(impaired->env);
    bool ready = out->ready, more = path->held < NKTI_IMPAIR_HELD_MAX && path->late_err == 0;
    out->ready = false;
    if (more) nkt_udp_link_watch(link->below, NKT_READ, out);
    // What is ready below is taken in and may not be due. A descriptor tells
    // only later, and the receive that follows takes in what is there.
    if (out->ready) nkti_udp_impair_pull(impaired, link->below, now);
    bool lacks_memory = out->ready && impaired->scratch == NULL;
    if (lacks_memory) out->deadline_ns = nkti_min_time(out->deadline_ns, nkti_after(now, NKTI_MS));
    out->ready = ready || nkti_path_next(path) <= now || path->late_err != 0;
    out->deadline_ns = nkti_min_time(out->deadline_ns, nkti_path_next(path));
    nkti_mutex_unlock(&path->lock);
}

static void nkti_udp_impair_watch(nkt_udp_link *link, uint32_t want, nkt_interest *out) {
    nkti_impaired *impaired = nkti_udp_impaired_of(link);
    nkti_path *path = &impaired->ways[1];
    bool active = nkti_path_is_active(path), full = false;
    bool driven = nkti_impaired_is_driven(impaired);
    if (active && (driven || (want & NKT_WRITE))) {
        nkti_mutex_lock(&path->lock);
        nkti_path_push_datagrams(path, link->below, nkti_now(impaired->env));
        full = path->full;
        if (!full && driven) {
            out->deadline_ns = nkti_min_time(out->deadline_ns, nkti_path_next(path));
        }
        if ((want & NKT_WRITE) && path->held < NKTI_IMPAIR_FULL) out->ready = true;
        nkti_mutex_unlock(&path->lock);
    }
    if (full || (!active && (want & NKT_WRITE))) nkt_udp_link_watch(link->below, NKT_WRITE, out);
    if (want & NKT_READ) nkti_udp_impair_watch_read(link, out);
}

static void nkti_udp_impair_close(nkt_udp_link *link) {
    nkti_impaired_free(nkti_udp_impaired_of(link));
}

static const nkt_datagram_transport nkti_udp_impair_transport = {
    sizeof(nkt_datagram_transport), "impaired", nkti_udp_impair_recv, nkti_udp_impair_send,
    nkti_udp_impair_watch, nkti_udp_impair_close, NULL, NULL, NULL,
};

static nkti_impaired *nkti_udp_impaired(nkt_udp *udp) {
    for (nkt_udp_link *link = udp->top; link != NULL; link = link->below) {
        if (link->transport == &nkti_udp_impair_transport) return nkti_udp_impaired_of(link);
    }
    return NULL;
}

static int nkti_udp_impair_push(nkt_udp *udp, nkti_impaired **out) {
    nkti_udp_batch *batch = udp->batch;
    if (batch != NULL && batch->next < batch->count) return NKT_EBUSY;
    nkti_impaired *impaired = nkti_impaired_new(&udp->handle);
    if (impaired == NULL) return NKT_ENOMEM;
    // What the system puts together is taken apart in the pull.
    udp->batch = NULL;
    int err = nkt_udp_push(udp, &nkti_udp_impair_transport, impaired);
    udp->batch = batch;
    if (err < 0) {
        nkti_impaired_free(impaired);
        return err;
    }
    impaired->udp_link = udp->top;
    *out = impaired;
    return NKT_OK;
}

NKT_API int nkt_udp_impair_ways(nkt_udp *udp, const nkt_impairment *sending,
                                const nkt_impairment *receiving) {
    nkt_env *env = udp->handle.env;
    nkti_wish wish;
    int err = nkti_wish_make(env, sending, receiving, false, &wish);
    if (err < 0) return err;
    nkti_impaired *impaired = nkti_udp_impaired(udp);
    if (impaired == NULL) err = nkti_udp_impair_push(udp, &impaired);
    if (err < 0) {
        nkti_wish_free(env, &wish);
        return err;
    }
    nkti_impair_hook(env);
    nkti_impaired_set(impaired, &wish);
    nkti_impaired_replan(impaired);
    nkti_udp_trace(udp, "impaired", NKT_OK, (int64_t)impaired->ways[1].stats.seed);
    nkt_udp_notify(udp);            // for who waits by the settings before
    return nkti_handle_update(&udp->handle);
}

NKT_API int nkt_udp_impair(nkt_udp *udp, const nkt_impairment *both) {
    return nkt_udp_impair_ways(udp, both, both);
}

NKT_API int nkt_udp_impair_stats(nkt_udp *udp, uint32_t direction, nkt_impair_stats *stats) {
    if (direction != NKT_READ && direction != NKT_WRITE) return NKT_EINVAL;
    nkti_impaired *impaired = nkti_udp_impaired(udp);
    if (impaired == NULL) return NKT_ENOTFOUND;
    nkti_impaired_stats(impaired, direction == NKT_WRITE, stats);
    return NKT_OK;
}
#endif

static nkti_impaired *nkti_handle_impaired(nkti_handle *handle) {
    if (nkti_forked(handle)) return NULL;
    if (handle->ops->kind[0] == 'c') return nkti_conn_impaired((nkt_conn *)(void *)handle);
#ifndef NETKIT_NO_UDP
    if (handle->ops->kind[0] == 'u') return nkti_udp_impaired((nkt_udp *)(void *)handle);
#endif
    return NULL;
}

// Hook of nkt_conn_close and nkt_udp_close.
static bool nkti_handle_linger(nkti_handle *handle) {
    nkti_impaired *impaired = nkti_handle_impaired(handle);
    return impaired != NULL && nkti_impaired_linger(impaired);
}

// Hook of taking a handle out of a poller.
static void nkti_handle_unpolled(nkti_handle *handle) {
    nkti_impaired *impaired = nkti_handle_impaired(handle);
    if (impaired != NULL) nkti_impaired_replan(impaired);
}

static void nkti_impair_hook(nkt_env *env) {
    nkti_env_state *state = nkti_state(env);
    nkti_lock(env);
    if (state->linger == NULL) {
        state->linger = nkti_handle_linger;
        state->unpolled = nkti_handle_unpolled;
        state->end_pump = nkti_pump_end;
    }
    nkti_unlock(env);
}

// --- Listeners ---------------------------------------------------------------

// What is accepted already and not told yet, in order.
struct nkti_slow_accept {
    int64_t delay;
    nkt_impairment ways[2];             // receiving, sending; copies
    nkt_impair_step *steps[2];
    nkt_impairment *step_to[2];
    bool given[2];
    uint64_t seed, accepted;
    int count;
    nkt_conn *conns[NKTI_IMPAIR_ACCEPTS];
    int64_t dues[NKTI_IMPAIR_ACCEPTS];
};

static int nkti_slow_accept_impair(struct nkti_slow_accept *slow, nkt_conn *conn) {
    uint64_t number = slow->accepted++;
    if (!slow->given[0] && !slow->given[1]) return NKT_OK;
    for (int i = 0; i < 2; i++) {
        slow->ways[i].seed = nkti_draw(slow->seed, number) | 1;
    }
    return nkt_conn_impair_ways(conn, slow->given[1] ? &slow->ways[1] : NULL,
                                slow->given[0] ? &slow->ways[0] : NULL);
}

static int nkti_slow_accept_try(nkt_listener *listener, nkt_conn **out) {
    struct nkti_slow_accept *slow = listener->slow;
    int64_t now = nkti_now(listener->handle.env);
    int err = NKT_EAGAIN;
    if (nkti_atomic_load(&listener->canceled) != 0) return NKT_ECANCELED;
    while (slow->count < NKTI_IMPAIR_ACCEPTS) {
        nkt_conn *conn;
        err = nkti_accept_try(listener, &conn);
        if (err < 0) break;
        err = nkti_slow_accept_impair(slow, conn);
        if (err < 0) {
            nkt_conn_abort(conn);
            break;
        }
        slow->conns[slow->count] = conn;
        slow->dues[slow->count++] = nkti_after(now, slow->delay);
        if (slow->delay == 0) break;
    }
    bool due = slow->count > 0 && slow->dues[0] <= now;
    if (due) {
        *out = slow->conns[0];
        slow->count--;
        memmove(slow->conns, slow->conns + 1, (size_t)slow->count * sizeof slow->conns[0]);
        memmove(slow->dues, slow->dues + 1, (size_t)slow->count * sizeof slow->dues[0]);
        err = NKT_OK;
    } else if (err >= 0) {
        err = NKT_EAGAIN;
    }
    listener->slow_due = slow->count > 0 ? slow->dues[0] : NKT_NEVER;
    bool was_full = listener->slow_full;
    listener->slow_full = slow->count == NKTI_IMPAIR_ACCEPTS;
    if (was_full != listener->slow_full) nkti_handle_update(&listener->handle);
    else nkti_handle_schedule(&listener->handle, listener->slow_due);
    return err;
}

// A copy that needs nothing of the caller's any more.
static int nkti_slow_accept_copy(nkt_env *env, struct nkti_slow_accept *slow, int way,
                                 const nkt_impairment *from) {
    slow->given[way] = from != NULL;
    if (from == NULL) return NKT_OK;
    nkt_impairment *to = &slow->ways[way];
    *to = *from;
    to->problem = NULL;
    if (from->step_count == 0) return NKT_OK;
    size_t count = from->step_count;
    slow->steps[way] = (nkt_impair_step *)nkti_alloc(env, count * sizeof(nkt_impair_step));
    slow->step_to[way] = (nkt_impairment *)nkti_alloc(env, count * sizeof(nkt_impairment));
    if (slow->steps[way] == NULL || slow->step_to[way] == NULL) return NKT_ENOMEM;
    for (size_t i = 0; i < count; i++) {
        slow->steps[way][i] = from->steps[i];
        if (from->steps[i].to == NULL) continue;
        slow->step_to[way][i] = *from->steps[i].to;
        slow->step_to[way][i].problem = NULL;
        slow->steps[way][i].to = &slow->step_to[way][i];
    }
    to->steps = slow->steps[way];
    return NKT_OK;
}

// Frees it; what waits in it is the new one's, or is closed.
static void nkti_slow_accept_free(nkt_listener *listener, struct nkti_slow_accept *heir) {
    struct nkti_slow_accept *slow = listener->slow;
    nkt_env *env = listener->handle.env;
    if (slow == NULL) return;
    for (int i = 0; i < slow->count; i++) {
        if (heir == NULL) {
            nkt_conn_abort(slow->conns[i]);
            continue;
        }
        heir->conns[i] = slow->conns[i];
        heir->dues[i] = slow->dues[i];
    }
    if (heir != NULL) {
        heir->count = slow->count;
    }
    for (int way = 0; way < 2; way++) {
        size_t count = slow->ways[way].step_count;
        nkti_free(env, slow->steps[way], count * sizeof(nkt_impair_step));
        nkti_free(env, slow->step_to[way], count * sizeof(nkt_impairment));
    }
    nkti_free(env, slow, sizeof *slow);
    listener->slow = NULL;
}

NKT_API int nkt_listener_impair_ways(nkt_listener *listener, const nkt_impairment *sending,
                                     const nkt_impairment *receiving) {
    nkt_env *env = listener->handle.env;
    nkti_wish wish;
    nkti_check check = { NULL, NKT_OK };
    int err = nkti_wish_make(env, sending, receiving, true, &wish);
    if (err < 0) return err;
    struct nkti_slow_accept *slow = (struct nkti_slow_accept *)nkti_alloc(env, sizeof *slow);
    uint64_t seed = sending != NULL ? wish.seed[1] - NKTI_SEED_OF_SENDING : wish.seed[0];
    nkti_wish_free(env, &wish);
    if (slow == NULL) return NKT_ENOMEM;
    slow->seed = seed;
    slow->delay = nkti_check_ms(&check, "", receiving != NULL ? receiving->accept_ms
                                            : sending != NULL ? sending->accept_ms : 0);
    err = nkti_slow_accept_copy(env, slow, 0, receiving);
    if (err >= 0) err = nkti_slow_accept_copy(env, slow, 1, sending);
    struct nkti_slow_accept *before = listener->slow;
    if (err < 0) {
        listener->slow = slow;
        nkti_slow_accept_free(listener, NULL);
        listener->slow = before;
        return err;
    }
    nkti_slow_accept_free(listener, slow);
    listener->slow = slow;
    listener->slow_accept = nkti_slow_accept_try;
    listener->slow_free = nkti_slow_accept_free;
    return nkti_handle_update(&listener->handle);
}

NKT_API int nkt_listener_impair(nkt_listener *listener, const nkt_impairment *both) {
    return nkt_listener_impair_ways(listener, both, both);
}

// --- Profiles ----------------------------------------------------------------

// Rates in kbit/s, times in 1/10 ms, loss in 1/10,000, for one direction.
typedef struct nkti_profile_way {
    uint32_t rate, queue_ms;
    uint16_t latency, jitter, loss, burst;
} nkti_profile_way;

typedef struct nkti_profile {
    const char *name, *source;
    nkti_profile_way up, down;
    uint16_t stall, stall_ms;           // stall in 1/100,000 of datagrams
    uint32_t outage_ms, outage_every_ms;
} nkti_profile;

// Where a source gives a round trip, each way has half of it. Rates and delays
// are the sources'; jitter, bursts and queues are typical values chosen here,
// for no source has them by direction.
static const nkti_profile nkti_profiles[] = {
    { "dsl", "WebPageTest's connectivity profile DSL: 1500/384 kbit/s, 50 ms round trip",
      { 384, 300, 250, 40, 10, 1 }, { 1500, 300, 250, 30, 10, 1 }, 0, 0, 0, 0 },
    { "cable", "WebPageTest's connectivity profile Cable: 5000/1000 kbit/s, 28 ms round trip",
      { 1000, 200, 140, 50, 10, 1 }, { 5000, 200, 140, 20, 10, 1 }, 0, 0, 0, 0 },
    { "lte", "WebPageTest's connectivity profile LTE: 12000/12000 kbit/s, 70 ms round trip",
      { 12000, 200, 350, 100, 10, 2 }, { 12000, 200, 350, 80, 10, 2 }, 0, 0, 0, 0 },
    { "3g", "WebPageTest's connectivity profile 3G: 1600/768 kbit/s, 300 ms round trip",
      { 768, 500, 1500, 300, 50, 3 }, { 1600, 500, 1500, 200, 50, 3 }, 0, 0, 0, 0 },
    { "edge", "WebPageTest's connectivity profile Edge: 240/200 kbit/s, 840 ms round trip; "
              "1 % loss as in BrowserStack's edge-lossy",
      { 200, 1000, 4200, 800, 100, 3 }, { 240, 1000, 4200, 600, 100, 3 }, 0, 0, 0, 0 },
    { "wifi-busy", "Pei et al., INFOCOM 2016: half of the packets take over 20 ms on the wireless "
                   "hop, a tenth over 100 ms; stalls of 250 ms after C. Huitema, 2023",
      { 15000, 200, 100, 200, 100, 3 }, { 30000, 200, 100, 200, 100, 3 }, 100, 250, 0, 0 },
    { "satellite-geo", "RFC 2488, section 2: 240 to 279 ms one way for the hop alone; Ookla, 2021: "
                       "19/3 Mbit/s, and 600 to 680 ms round trip",
      { 3000, 600, 3000, 250, 50, 3 }, { 19000, 600, 3000, 150, 50, 3 }, 0, 0, 0, 0 },
    { "satellite-leo", "Michel et al., IMC 2022 (Starlink): 50 ms round trip; G. Huston, APNIC "
                       "2024: 6.7 ms jitter, 1 % loss; Ookla, 2021: 87/13.5 Mbit/s",
      { 13500, 200, 250, 67, 100, 3 }, { 87000, 200, 250, 67, 100, 3 }, 0, 0, 0, 0 },
    { "transatlantic", "WonderProxy, 2011: New York to Paris 78 ms round trip",
      { 100000, 100, 390, 10, 5, 1 }, { 100000, 100, 390, 10, 5, 1 }, 0, 0, 0, 0 },
    { "train", "after Li et al., SIGCOMM 2020, from high-speed rail: a failed handover every few "
               "minutes, seconds without service; the figures are chosen here",
      { 2000, 500, 600, 400, 100, 5 }, { 6000, 500, 600, 400, 100, 5 }, 0, 0, 3000, 60000 },
};

static const nkt_impair_step *nkti_profile_step(void) {
    static const nkt_impair_step outage = { 20000, 3000, NULL };
    return &outage;
}

static void nkti_profile_fill(const nkti_profile *profile, const nkti_profile_way *way,
                              nkt_impairment *out) {
    memset(out, 0, sizeof *out);
    out->latency_ms = way->latency / 10.0;
    out->jitter_ms = way->jitter / 10.0;
    out->jitter = NKT_JITTER_NORMAL;
    out->rate = (int64_t)way->rate * 125;
    out->queue_bytes = (uint32_t)((uint64_t)way->rate * way->queue_ms / 8);
    out->loss = way->loss / 10000.0;
    out->loss_burst = way->burst;
    out->stall = profile->stall / 100000.0;
    out->stall_ms = profile->stall_ms;
    if (profile->outage_ms == 0) return;
    out->steps = nkti_profile_step();
    out->step_count = 1;
    out->repeat_ms = profile->outage_every_ms;
}

#define NKTI_PROFILE_COUNT ((int)(sizeof nkti_profiles / sizeof nkti_profiles[0]))

NKT_API const char *nkt_impair_profile_name(int index) {
    return index < 0 || index >= NKTI_PROFILE_COUNT ? NULL : nkti_profiles[index].name;
}

NKT_API const char *nkt_impair_profile_source(int index) {
    return index < 0 || index >= NKTI_PROFILE_COUNT ? NULL : nkti_profiles[index].source;
}

NKT_API int nkt_impair_profile(const char *name, nkt_impairment *sending,
                               nkt_impairment *receiving, nkt_problem *problem) {
    for (int i = 0; name != NULL && i < NKTI_PROFILE_COUNT; i++) {
        const nkti_profile *profile = &nkti_profiles[i];
        if (strcmp(profile->name, name) != 0) continue;
        if (sending != NULL) nkti_profile_fill(profile, &profile->up, sending);
        if (receiving != NULL) nkti_profile_fill(profile, &profile->down, receiving);
        return NKT_OK;
    }
    char why[sizeof problem->text];
    nkti_text text = nkti_text_begin(why, sizeof why);
    nkti_text_str(&text, "expected one of");
    for (int i = 0; i < NKTI_PROFILE_COUNT; i++) {
        nkti_text_str(&text, i == 0 ? " " : ", ");
        nkti_text_str(&text, nkti_profiles[i].name);
    }
    return nkti_problem_set(problem, NKT_ENOTFOUND, "profile", -1, why);
}

//==============================================================================
// MARK: @virtual - a clock that jumps
//
// Tables of functions in which a wait gives the turn to another thread, or,
// when every thread waits, moves the clock. Wake-ups are flags with numbers
// that no descriptor of the system has. One thread runs at a time, the one that
// `current` points to. The others are parked, each on a wake-up of the
// system's.
//
//     running --wait--> is another's wake-up posted, or is it new? its turn
//                       else the clock goes to the first deadline: its turn
//                       no deadline at all: NKT_EDEADLK for who came last
//==============================================================================

#define NKTI_VIRTUAL_FD ((nkt_fd)0x40000000)
#define NKTI_VIRTUAL_WAKES 1024

typedef struct nkti_vthread {
    struct nkti_vthread *next;          // in the order of coming
    nkt_wake parked;
    nkt_watch *watches;
    size_t count;
    int64_t deadline;                   // NKTI_VIRTUAL_NEW: it has not run yet
    bool has_turn;
} nkti_vthread;

#define NKTI_VIRTUAL_NEW ((int64_t)-1)

struct nkti_virtual {
    nkti_mutex lock;
    int64_t now;
    uint64_t seed, drawn;
    nkti_vthread *threads, *current;
    bool over;                          // the environment is being given back
    uint32_t wakes[NKTI_VIRTUAL_WAKES]; // atomic; 0 = unused, 1 = open, 2 = posted
};

static struct nkti_virtual *nkti_virtual_of(nkt_env *env) {
    return nkti_state(env)->clock;
}

static int nkti_virtual_slot(nkt_fd fd) {
    nkt_fd slot = fd - NKTI_VIRTUAL_FD;
    return slot >= 0 && slot < NKTI_VIRTUAL_WAKES ? (int)slot : -1;
}

// Fills `ready`. How many are; under the lock.
static int nkti_virtual_look(struct nkti_virtual *clock, nkt_watch *watches, size_t count) {
    int ready = 0;
    for (size_t i = 0; i < count; i++) {
        int slot = nkti_virtual_slot(watches[i].fd);
        bool posted = slot >= 0 && nkti_atomic_load(&clock->wakes[slot]) == 2;
        watches[i].ready = posted ? NKT_READ & watches[i].events : 0;
        ready += watches[i].ready != 0;
    }
    return ready;
}

static bool nkti_virtual_can_run(struct nkti_virtual *clock, nkti_vthread *thread) {
    return thread->deadline <= clock->now ||
           nkti_virtual_look(clock, thread->watches, thread->count) > 0;
}

// Whose turn it is now, the clock moved if need be; NULL if nobody's ever.
static nkti_vthread *nkti_virtual_pick(struct nkti_virtual *clock, nkti_vthread *after) {
    nkti_vthread *thread = after;
    nkti_vthread *first = NULL;
    do {
        thread = thread != NULL && thread->next != NULL ? thread->next : clock->threads;
        if (nkti_virtual_can_run(clock, thread)) return thread;
        if (first == NULL || thread->deadline < first->deadline) first = thread;
    } while (thread != after && (after != NULL || thread->next != NULL));
    if (first->deadline == NKT_NEVER) return NULL;
    clock->now = first->deadline;
    return first;
}

static void nkti_virtual_give(nkt_env *env, struct nkti_virtual *clock, nkti_vthread *to) {
    clock->current = to;
    if (to == NULL) return;
    to->has_turn = true;
    nkti_os_wake_post(env, &to->parked);
}

// Until it has its turn. Takes and leaves the lock locked.
static void nkti_virtual_park(nkt_env *env, struct nkti_virtual *clock, nkti_vthread *thread) {
    while (!thread->has_turn) {
        nkt_watch watch;
        watch.fd = thread->parked.wait_fd;
        watch.events = NKT_READ;
        watch.ready = 0;
        nkti_mutex_unlock(&clock->lock);
        nkti_os_core.wait(env, &watch, 1, NKT_NO_TIMEOUT);
        nkti_mutex_lock(&clock->lock);
    }
    nkti_os_wake_drain(env, &thread->parked);
    thread->has_turn = false;
}

static int nkti_virtual_wait(nkt_env *env, nkt_watch *watches, size_t count,
                             int64_t timeout_ns) {
    struct nkti_virtual *clock = nkti_virtual_of(env);
    nkti_mutex_lock(&clock->lock);
    nkti_vthread *me = clock->current;
    int ready = nkti_virtual_look(clock, watches, count);
    // Who does not want to wait lets the others have their turn all the same.
    if (me == NULL || (ready > 0 && me->next == NULL && clock->threads == me)) {
        nkti_mutex_unlock(&clock->lock);
        return me == NULL ? (int)NKT_EINVAL : ready;
    }
    me->watches = watches;
    me->count = count;
    me->deadline = timeout_ns < 0 ? NKT_NEVER : nkti_after(clock->now, timeout_ns);
    nkti_vthread *next = nkti_virtual_pick(clock, me);
    int result = next == NULL ? (int)NKT_EDEADLK : NKT_OK;
    if (next != NULL && next != me) {
        nkti_virtual_give(env, clock, next);
        nkti_virtual_park(env, clock, me);
    }
    me->deadline = NKT_NEVER;
    if (result >= 0) result = nkti_virtual_look(clock, watches, count);
    me->count = 0;
    nkti_mutex_unlock(&clock->lock);
    return result;
}

static int nkti_virtual_wake_open(nkt_env *env, nkt_wake *wake) {
    struct nkti_virtual *clock = nkti_virtual_of(env);
    int slot = 0;
    nkti_mutex_lock(&clock->lock);
    while (slot < NKTI_VIRTUAL_WAKES && nkti_atomic_load(&clock->wakes[slot]) != 0) slot++;
    if (slot < NKTI_VIRTUAL_WAKES) nkti_atomic_store(&clock->wakes[slot], 1);
    nkti_mutex_unlock(&clock->lock);
    if (slot == NKTI_VIRTUAL_WAKES) return NKT_EMFILE;
    wake->wait_fd = wake->post_fd = NKTI_VIRTUAL_FD + slot;
    return NKT_OK;
}

static void nkti_virtual_wake_set(nkt_env *env, const nkt_wake *wake, uint32_t to) {
    int slot = nkti_virtual_slot(wake->wait_fd);
    if (slot >= 0) nkti_atomic_store(&nkti_virtual_of(env)->wakes[slot], to);
}

static void nkti_virtual_wake_close(nkt_env *env, nkt_wake *wake) {
    nkti_virtual_wake_set(env, wake, 0);
    wake->wait_fd = wake->post_fd = NKT_NO_FD;
}

static void nkti_virtual_wake_post(nkt_env *env, const nkt_wake *wake) {
    nkti_virtual_wake_set(env, wake, 2);
}

static void nkti_virtual_wake_drain(nkt_env *env, const nkt_wake *wake) {
    nkti_virtual_wake_set(env, wake, 1);
}

static int64_t nkti_virtual_now(nkt_env *env) {
    return nkti_virtual_of(env)->now;
}

static int nkti_virtual_random(nkt_env *env, void *buf, size_t len) {
    struct nkti_virtual *clock = nkti_virtual_of(env);
    uint8_t *out = (uint8_t *)buf;
    for (size_t i = 0; i < len; i += 8) {
        uint64_t draw = nkti_draw(clock->seed, clock->drawn++);
        // By hand, so that both byte orders give the same.
        for (size_t j = i; j < len && j < i + 8; j++, draw >>= 8) out[j] = (uint8_t)draw;
    }
    return NKT_OK;
}

// --- No sockets --------------------------------------------------------------

static int nkti_virtual_no_socket(nkt_env *env, int family, int type, nkt_fd *fd) {
    (void)env, (void)family, (void)type, (void)fd;
    return NKT_EVIRTUAL;
}

static int nkti_virtual_no_option(nkt_env *env, nkt_fd fd, int option, int64_t *value) {
    (void)env, (void)fd, (void)option, (void)value;
    return NKT_EVIRTUAL;
}

static int32_t nkti_virtual_no_error(nkt_env *env) {
    (void)env;
    return 0;
}

static int nkti_virtual_resolve(nkt_env *env, const char *host, int family, nkt_ip *ips,
                                int cap) {
    (void)env, (void)host, (void)family, (void)ips, (void)cap;
    return NKT_ENOTFOUND;
}

// --- Pollers -----------------------------------------------------------------

// A poller has one registration here, its own wake-up.
static int nkti_virtual_poll_open(nkt_env *env, void **backend) {
    *backend = nkti_alloc(env, sizeof(nkt_poll_watch *));
    return *backend != NULL ? NKT_OK : NKT_ENOMEM;
}

static void nkti_virtual_poll_close(nkt_env *env, void *backend) {
    nkti_free(env, backend, sizeof(nkt_poll_watch *));
}

static int nkti_virtual_poll_set(nkt_env *env, void *backend, nkt_poll_watch *watch,
                                 uint32_t events) {
    (void)env;
    if (nkti_virtual_slot(watch->fd) < 0) return NKT_EVIRTUAL;
    *(nkt_poll_watch **)backend = events != 0 ? watch : NULL;
    watch->events = events;
    return NKT_OK;
}

static int nkti_virtual_poll_wait(nkt_env *env, void *backend, nkt_poll_event *out, int cap,
                                  int64_t timeout_ns) {
    nkt_poll_watch *watch = *(nkt_poll_watch **)backend;
    nkt_watch one;
    one.fd = watch != NULL ? watch->fd : NKT_NO_FD;
    one.events = NKT_READ;
    one.ready = 0;
    int ready = nkti_virtual_wait(env, &one, 1, timeout_ns);
    if (ready <= 0 || cap < 1 || watch == NULL) return ready;
    out->cookie = watch->cookie;
    out->events = NKT_READ;
    return 1;
}

static nkt_fd nkti_virtual_poll_fd(nkt_env *env, void *backend) {
    (void)env, (void)backend;
    return NKT_NO_FD;
}

static const nkt_sys_poll nkti_virtual_poll = {
    sizeof(nkt_sys_poll), nkti_virtual_poll_open, nkti_virtual_poll_close,
    nkti_virtual_poll_set, nkti_virtual_poll_wait, nkti_virtual_poll_fd,
    nkti_virtual_poll_close,
};

// --- Threads -----------------------------------------------------------------

// Comes last in the order. NKT_OK, NKT_ENOMEM or NKT_EMFILE.
static int nkti_virtual_enter(nkt_env *env, struct nkti_virtual *clock, bool runs,
                              nkti_vthread **out) {
    nkti_vthread *thread = (nkti_vthread *)calloc(1, sizeof *thread);
    if (thread == NULL) return NKT_ENOMEM;
    int err = nkti_os_wake_open(env, &thread->parked);
    if (err < 0) {
        free(thread);
        return err;
    }
    thread->deadline = runs ? NKT_NEVER : NKTI_VIRTUAL_NEW;
    nkti_mutex_lock(&clock->lock);
    nkti_vthread **place = &clock->threads;
    while (*place != NULL) place = &(*place)->next;
    *place = thread;
    if (runs) clock->current = thread;
    else if (clock->current == NULL) nkti_virtual_give(env, clock, thread);
    nkti_mutex_unlock(&clock->lock);
    *out = thread;
    return NKT_OK;
}

static void nkti_virtual_remove(nkt_env *env, struct nkti_virtual *clock,
                                nkti_vthread *thread) {
    nkti_vthread **place = &clock->threads;
    while (*place != thread) place = &(*place)->next;
    *place = thread->next;
    nkti_os_wake_close(env, &thread->parked);
    free(thread);
}

NKT_API int nkt_virtual_join(nkt_env *env) {
    struct nkti_virtual *clock = env->state != NULL ? nkti_virtual_of(env) : NULL;
    nkti_vthread *me;
    if (clock == NULL) return NKT_EINVAL;
    int err = nkti_virtual_enter(env, clock, false, &me);
    if (err < 0) return err;
    nkti_mutex_lock(&clock->lock);
    nkti_virtual_park(env, clock, me);
    me->deadline = NKT_NEVER;
    nkti_mutex_unlock(&clock->lock);
    return NKT_OK;
}

NKT_API int nkt_virtual_leave(nkt_env *env) {
    struct nkti_virtual *clock = env->state != NULL ? nkti_virtual_of(env) : NULL;
    if (clock == NULL) return NKT_EINVAL;
    nkti_mutex_lock(&clock->lock);
    nkti_vthread *me = clock->current, *next = NULL;
    if (me != NULL) {
        me->count = 0;
        me->deadline = NKT_NEVER;
        nkti_virtual_remove(env, clock, me);
        if (clock->threads != NULL) next = nkti_virtual_pick(clock, NULL);
        // Where all wait for ever, the first is told so by its own wait.
        if (next == NULL) next = clock->threads;
        nkti_virtual_give(env, clock, next);
    }
    nkti_mutex_unlock(&clock->lock);
    return me != NULL ? NKT_OK : NKT_EINVAL;
}

typedef struct nkti_virtual_call {
    nkt_env *env;
    nkti_vthread *thread;
    void (*run)(void *arg);
    void *arg;
} nkti_virtual_call;

static void nkti_virtual_run(void *packed) {
    nkti_virtual_call call = *(nkti_virtual_call *)packed;
    struct nkti_virtual *clock = nkti_virtual_of(call.env);
    free(packed);
    nkti_mutex_lock(&clock->lock);
    nkti_virtual_park(call.env, clock, call.thread);
    call.thread->deadline = NKT_NEVER;
    nkti_mutex_unlock(&clock->lock);
    call.run(call.arg);
    nkt_virtual_leave(call.env);
}

static int nkti_virtual_thread_start(nkt_env *env, void (*run)(void *arg), void *arg) {
#if !defined(NETKIT_NO_THREADS)
    // Resolvers answer on the spot: a look-up's worker waits for nothing here.
    if (run == nkti_lookup_worker) {
        run(arg);
        return NKT_OK;
    }
#endif
    nkti_virtual_call *call = (nkti_virtual_call *)calloc(1, sizeof *call);
    if (call == NULL) return NKT_ENOMEM;
    struct nkti_virtual *clock = nkti_virtual_of(env);
    call->env = env;
    call->run = run;
    call->arg = arg;
    int err = nkti_virtual_enter(env, clock, false, &call->thread);
    if (err >= 0) {
        err = nkti_os_thread_start(env, nkti_virtual_run, call);
        if (err >= 0) return err;
        nkti_mutex_lock(&clock->lock);
        nkti_virtual_remove(env, clock, call->thread);
        nkti_mutex_unlock(&clock->lock);
    }
    free(call);
    return err;
}

static const nkt_sys_threads nkti_virtual_threads = {
    sizeof(nkt_sys_threads), nkti_virtual_thread_start,
};

static void nkti_virtual_end(nkt_env *env) {
    struct nkti_virtual *clock = nkti_virtual_of(env);
    while (clock->threads != NULL) nkti_virtual_remove(env, clock, clock->threads);
    nkti_mutex_free(&clock->lock);
    free(clock);
    nkti_state(env)->clock = NULL;
}

// The clock comes first: freeing it frees the table.
typedef struct nkti_virtual_all {
    struct nkti_virtual clock;
    nkt_sys_core core;
} nkti_virtual_all;

NKT_API int nkt_env_init_virtual(nkt_env *env, uint64_t seed) {
    nkti_vthread *me;
    int err = nkt_env_init(env);
    if (err < 0) return err;
    nkti_virtual_all *all = (nkti_virtual_all *)calloc(1, sizeof *all);
    if (all == NULL) {
        nkt_env_free(env);
        return NKT_ENOMEM;
    }
    nkt_sys_core *core = &all->core;
    *core = nkti_os_core;
    core->last_error = nkti_virtual_no_error;
    core->open = nkti_virtual_no_socket;
    core->get_option = nkti_virtual_no_option;
    core->recv_wait = NULL;
    core->wait = nkti_virtual_wait;
    core->wake_open = nkti_virtual_wake_open;
    core->wake_close = nkti_virtual_wake_close;
    core->wake_post = nkti_virtual_wake_post;
    core->wake_drain = nkti_virtual_wake_drain;
    core->now_ns = nkti_virtual_now;
    core->random = nkti_virtual_random;
    env->core = core;
    env->poll = &nkti_virtual_poll;
    env->threads = &nkti_virtual_threads;
    env->resolve = nkti_virtual_resolve;
    nkti_mutex_init(&all->clock.lock);
    all->clock.seed = seed;
    nkti_state(env)->clock = &all->clock;
    nkti_state(env)->end_clock = nkti_virtual_end;
    err = nkti_virtual_enter(env, &all->clock, true, &me);
    if (err < 0) nkt_env_free(env);
    return err;
}
#endif

#ifndef NETKIT_NO_LAYOUT
//==============================================================================
// MARK: @layout - sizes and offsets, for bindings
//
// One list of structures and fields makes the names and the numbers. Texts and
// small numbers, because a table of pointers would cost four times as much.
//==============================================================================

#ifdef NETKIT_NO_NET
    #define NKTI_LAYOUT_NET(T, F)
#else
    #define NKTI_LAYOUT_NET(T, F)                                                            \
        T(nkt_net) F(nkt_net, ip) F(nkt_net, bits) F(nkt_net, reserved)
#endif

#ifdef NETKIT_NO_UDP
    #define NKTI_LAYOUT_UDP(T, F)
#else
    #define NKTI_LAYOUT_UDP(T, F)                                                         \
        T(nkt_datagram) F(nkt_datagram, data) F(nkt_datagram, len) F(nkt_datagram, cap)   \
            F(nkt_datagram, addr) F(nkt_datagram, local) F(nkt_datagram, interface_index) \
            F(nkt_datagram, hops) F(nkt_datagram, traffic_class) F(nkt_datagram, segment) \
            F(nkt_datagram, truncated) F(nkt_datagram, reserved)                          \
        T(nkt_datagram_transport) F(nkt_datagram_transport, size)                         \
            F(nkt_datagram_transport, name) F(nkt_datagram_transport, recv)               \
            F(nkt_datagram_transport, send) F(nkt_datagram_transport, watch)              \
            F(nkt_datagram_transport, close) F(nkt_datagram_transport, local)             \
            F(nkt_datagram_transport, peer) F(nkt_datagram_transport, descriptor)         \
        T(nkt_udp_link) F(nkt_udp_link, transport) F(nkt_udp_link, self)                  \
            F(nkt_udp_link, below) F(nkt_udp_link, udp)                                   \
        T(nkt_join_opts) F(nkt_join_opts, interface_name) F(nkt_join_opts, interface_index)\
            F(nkt_join_opts, reserved) F(nkt_join_opts, source)                           \
        T(nkt_sys_iface) F(nkt_sys_iface, ip) F(nkt_sys_iface, peer) F(nkt_sys_iface, index)\
            F(nkt_sys_iface, flags) F(nkt_sys_iface, bits) F(nkt_sys_iface, reserved)     \
        T(nkt_udp_opts) F(nkt_udp_opts, env) F(nkt_udp_opts, nonblocking)                 \
            F(nkt_udp_opts, reuse_port) F(nkt_udp_opts, icmp_errors)                      \
            F(nkt_udp_opts, dont_fragment) F(nkt_udp_opts, no_loopback)                   \
            F(nkt_udp_opts, no_offload) F(nkt_udp_opts, two_sockets) F(nkt_udp_opts, family)\
            F(nkt_udp_opts, hops) F(nkt_udp_opts, multicast_hops)                         \
            F(nkt_udp_opts, traffic_class) F(nkt_udp_opts, send_buffer)                   \
            F(nkt_udp_opts, recv_buffer) F(nkt_udp_opts, recv_timeout_ms)                 \
            F(nkt_udp_opts, send_timeout_ms) F(nkt_udp_opts, interface_name)              \
            F(nkt_udp_opts, problem)                                                      \
        T(nkt_udp_result) F(nkt_udp_result, to) F(nkt_udp_result, interface_index)        \
            F(nkt_udp_result, err) F(nkt_udp_result, os_error) F(nkt_udp_result, reserved)\
        T(nkt_udp_info) F(nkt_udp_info, received) F(nkt_udp_info, received_bytes)         \
            F(nkt_udp_info, sent) F(nkt_udp_info, sent_bytes) F(nkt_udp_info, truncated)  \
            F(nkt_udp_info, joined) F(nkt_udp_info, sockets)
#endif

#ifdef NETKIT_NO_SIM
    #define NKTI_LAYOUT_SIM(T, F)
#else
    #define NKTI_LAYOUT_SIM(T, F)                                                         \
        T(nkt_impairment) F(nkt_impairment, seed) F(nkt_impairment, latency_ms)           \
            F(nkt_impairment, jitter_ms) F(nkt_impairment, jitter)                        \
            F(nkt_impairment, overtake) F(nkt_impairment, rate)                           \
            F(nkt_impairment, queue_bytes) F(nkt_impairment, mtu) F(nkt_impairment, loss) \
            F(nkt_impairment, loss_burst) F(nkt_impairment, burst_loss)                   \
            F(nkt_impairment, duplicate) F(nkt_impairment, reorder)                       \
            F(nkt_impairment, reorder_ms) F(nkt_impairment, corrupt)                      \
            F(nkt_impairment, stall) F(nkt_impairment, stall_ms)                          \
            F(nkt_impairment, piece_max) F(nkt_impairment, cut)                           \
            F(nkt_impairment, cut_bytes) F(nkt_impairment, cut_ms)                        \
            F(nkt_impairment, accept_ms) F(nkt_impairment, steps)                         \
            F(nkt_impairment, step_count) F(nkt_impairment, repeat_ms)                    \
            F(nkt_impairment, problem)                                                    \
        T(nkt_impair_step) F(nkt_impair_step, at_ms) F(nkt_impair_step, for_ms)           \
            F(nkt_impair_step, to)                                                        \
        T(nkt_impair_stats) F(nkt_impair_stats, seed) F(nkt_impair_stats, sent)           \
            F(nkt_impair_stats, sent_bytes) F(nkt_impair_stats, delivered)                \
            F(nkt_impair_stats, delivered_bytes) F(nkt_impair_stats, lost)                \
            F(nkt_impair_stats, overflowed) F(nkt_impair_stats, oversized)                \
            F(nkt_impair_stats, duplicated) F(nkt_impair_stats, reordered)                \
            F(nkt_impair_stats, corrupted) F(nkt_impair_stats, stalls)                    \
            F(nkt_impair_stats, under_way) F(nkt_impair_stats, queue_high)
#endif

#define NKTI_LAYOUT(T, F)                                                                     \
    T(nkt_str) F(nkt_str, ptr) F(nkt_str, len)                                                \
    T(nkt_problem) F(nkt_problem, err) F(nkt_problem, os_error) F(nkt_problem, offset)        \
        F(nkt_problem, field) F(nkt_problem, text)                                            \
    T(nkt_watch) F(nkt_watch, fd) F(nkt_watch, events) F(nkt_watch, ready)                    \
    T(nkt_wake) F(nkt_wake, wait_fd) F(nkt_wake, post_fd)                                     \
    T(nkt_tcp_info) F(nkt_tcp_info, rtt_us) F(nkt_tcp_info, rtt_var_us)                       \
        F(nkt_tcp_info, retransmits) F(nkt_tcp_info, unacked_bytes)                           \
        F(nkt_tcp_info, path_mtu)                                                             \
    T(nkt_sys_core) F(nkt_sys_core, size) F(nkt_sys_core, last_error) F(nkt_sys_core, open)   \
        F(nkt_sys_core, close) F(nkt_sys_core, bind) F(nkt_sys_core, listen)                  \
        F(nkt_sys_core, accept) F(nkt_sys_core, connect) F(nkt_sys_core, connect_result)      \
        F(nkt_sys_core, recv) F(nkt_sys_core, recv_wait) F(nkt_sys_core, send)                \
        F(nkt_sys_core, shutdown) F(nkt_sys_core, set_option) F(nkt_sys_core, get_option)     \
        F(nkt_sys_core, bind_interface) F(nkt_sys_core, local_name)                           \
        F(nkt_sys_core, peer_name) F(nkt_sys_core, tcp_info) F(nkt_sys_core, set_blocking)    \
        F(nkt_sys_core, unlink) F(nkt_sys_core, interface_index)                              \
        F(nkt_sys_core, interface_name) F(nkt_sys_core, wait) F(nkt_sys_core, wake_open)      \
        F(nkt_sys_core, wake_close) F(nkt_sys_core, wake_post) F(nkt_sys_core, wake_drain)    \
        F(nkt_sys_core, now_ns) F(nkt_sys_core, random) F(nkt_sys_core, process_id)           \
        F(nkt_sys_core, service_port)                                                         \
    T(nkt_poll_event) F(nkt_poll_event, cookie) F(nkt_poll_event, events)                     \
    T(nkt_poll_watch) F(nkt_poll_watch, fd) F(nkt_poll_watch, cookie)                         \
        F(nkt_poll_watch, events) F(nkt_poll_watch, slot)                                     \
    T(nkt_sys_poll) F(nkt_sys_poll, size) F(nkt_sys_poll, open) F(nkt_sys_poll, close)        \
        F(nkt_sys_poll, set) F(nkt_sys_poll, wait) F(nkt_sys_poll, fd)                        \
        F(nkt_sys_poll, close_forked)                                                         \
    T(nkt_sys_udp) F(nkt_sys_udp, size) F(nkt_sys_udp, set_option)                            \
        F(nkt_sys_udp, get_option) F(nkt_sys_udp, recv) F(nkt_sys_udp, send)                  \
        F(nkt_sys_udp, next_error) F(nkt_sys_udp, member)                                     \
    T(nkt_sys_net) F(nkt_sys_net, size) F(nkt_sys_net, list) F(nkt_sys_net, watch_open)       \
        F(nkt_sys_net, watch_close) F(nkt_sys_net, watch_drain)                               \
    T(nkt_sys_threads) F(nkt_sys_threads, size) F(nkt_sys_threads, start)                     \
    T(nkt_trace) F(nkt_trace, now_ns) F(nkt_trace, handle) F(nkt_trace, kind)                 \
        F(nkt_trace, state) F(nkt_trace, err) F(nkt_trace, os_error) F(nkt_trace, detail)     \
    T(nkt_env) F(nkt_env, size) F(nkt_env, core) F(nkt_env, poll) F(nkt_env, threads)         \
        F(nkt_env, udp) F(nkt_env, net) F(nkt_env, allocate) F(nkt_env, resolve)              \
        F(nkt_env, trace) F(nkt_env, user) F(nkt_env, state)                                  \
    T(nkt_ip) F(nkt_ip, bytes) F(nkt_ip, scope) F(nkt_ip, family) F(nkt_ip, reserved)         \
    T(nkt_addr) F(nkt_addr, ip) F(nkt_addr, port) F(nkt_addr, reserved)                       \
        F(nkt_addr, flow_label)                                                               \
    NKTI_LAYOUT_NET(T, F)                                                                     \
    T(nkt_target) F(nkt_target, kind) F(nkt_target, port) F(nkt_target, host_len)             \
        F(nkt_target, ip) F(nkt_target, host)                                                 \
    T(nkt_event) F(nkt_event, events) F(nkt_event, reserved) F(nkt_event, conn)               \
        F(nkt_event, listener) F(nkt_event, task) F(nkt_event, udp) F(nkt_event, fd)          \
        F(nkt_event, user)                                                                    \
    T(nkt_poller_opts) F(nkt_poller_opts, env) F(nkt_poller_opts, portable)                   \
    T(nkt_timer_opts) F(nkt_timer_opts, env) F(nkt_timer_opts, delay_ms)                      \
        F(nkt_timer_opts, repeat_ms)                                                          \
    T(nkt_lookup_opts) F(nkt_lookup_opts, env) F(nkt_lookup_opts, timeout_ms)                 \
        F(nkt_lookup_opts, family)                                                            \
    T(nkt_interest) F(nkt_interest, deadline_ns) F(nkt_interest, count)                       \
        F(nkt_interest, ready) F(nkt_interest, watches)                                       \
    T(nkt_transport) F(nkt_transport, size) F(nkt_transport, name) F(nkt_transport, recv)     \
        F(nkt_transport, send) F(nkt_transport, shutdown_write) F(nkt_transport, watch)       \
        F(nkt_transport, close) F(nkt_transport, local) F(nkt_transport, peer)                \
        F(nkt_transport, descriptor) F(nkt_transport, flush)                                  \
    T(nkt_link) F(nkt_link, transport) F(nkt_link, self) F(nkt_link, below)                   \
        F(nkt_link, conn)                                                   \
    T(nkt_stream_opts) F(nkt_stream_opts, read_timeout_ms)                                    \
        F(nkt_stream_opts, write_timeout_ms) F(nkt_stream_opts, line_max)                     \
        F(nkt_stream_opts, message_max) F(nkt_stream_opts, queue_max)                         \
        F(nkt_stream_opts, keepalive_s) F(nkt_stream_opts, send_buffer)                       \
        F(nkt_stream_opts, recv_buffer) F(nkt_stream_opts, cr_lines)                          \
        F(nkt_stream_opts, delay_small_writes)                                                \
    T(nkt_conn_opts) F(nkt_conn_opts, env) F(nkt_conn_opts, nonblocking)                      \
        F(nkt_conn_opts, stream)                                                              \
    T(nkt_conn_info) F(nkt_conn_info, received) F(nkt_conn_info, sent)                        \
        F(nkt_conn_info, buffered) F(nkt_conn_info, queued) F(nkt_conn_info, tcp)             \
    T(nkt_attempt) F(nkt_attempt, addr) F(nkt_attempt, err) F(nkt_attempt, os_error)          \
        F(nkt_attempt, start_ms) F(nkt_attempt, end_ms)                                       \
    T(nkt_connect_report) F(nkt_connect_report, err) F(nkt_connect_report, os_error)          \
        F(nkt_connect_report, elapsed_ms) F(nkt_connect_report, attempt_count)                \
        F(nkt_connect_report, lookup_err) F(nkt_connect_report, lookup_ms)                    \
        F(nkt_connect_report, attempts) F(nkt_connect_report, problem)                        \
        F(nkt_connect_report, text)                                                           \
    T(nkt_connect_opts) F(nkt_connect_opts, env) F(nkt_connect_opts, nonblocking)             \
        F(nkt_connect_opts, timeout_ms) F(nkt_connect_opts, default_port)                     \
        F(nkt_connect_opts, attempt_delay_ms) F(nkt_connect_opts, resolution_delay_ms)        \
        F(nkt_connect_opts, family) F(nkt_connect_opts, local)                                \
        F(nkt_connect_opts, interface_name) F(nkt_connect_opts, report)                       \
        F(nkt_connect_opts, stream)                                                           \
    T(nkt_listen_opts) F(nkt_listen_opts, env) F(nkt_listen_opts, nonblocking)                \
        F(nkt_listen_opts, reuse_port) F(nkt_listen_opts, keep_path)                          \
        F(nkt_listen_opts, backlog) F(nkt_listen_opts, accept_timeout_ms)                     \
        F(nkt_listen_opts, interface_name) F(nkt_listen_opts, problem)                        \
        F(nkt_listen_opts, stream)                                                            \
    NKTI_LAYOUT_UDP(T, F)                                                                     \
    NKTI_LAYOUT_SIM(T, F)

#define NKTI_TYPE_NAME(type) #type "\0"
#define NKTI_FIELD_NAME(type, field) "." #field "\0"
#define NKTI_TYPE_NUMBERS(type) 0, (uint16_t)sizeof(type),
#define NKTI_FIELD_NUMBERS(type, field)                                                   \
    (uint16_t)offsetof(type, field), (uint16_t)sizeof(((type *)0)->field),

NKT_API size_t nkt_layout(const char **names, const uint16_t **numbers) {
    static const char all_names[] = NKTI_LAYOUT(NKTI_TYPE_NAME, NKTI_FIELD_NAME);
    static const uint16_t all_numbers[] = {
        NKTI_LAYOUT(NKTI_TYPE_NUMBERS, NKTI_FIELD_NUMBERS)
    };
    *names = all_names;
    *numbers = all_numbers;
    return sizeof all_numbers / sizeof all_numbers[0] / 2;
}
#endif

#endif // NETKIT_IMPLEMENTED
#endif // NETKIT_IMPLEMENTATION

/*
Licence: MIT-0 (MIT No Attribution) or the Unlicense, at your choice.
The full texts are in the file LICENSE beside this one.
SPDX-License-Identifier: MIT-0 OR Unlicense

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
*/
