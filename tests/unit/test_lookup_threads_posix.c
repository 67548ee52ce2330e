// test_lookup_threads_posix.c - resolvers that hang, and everything that goes on
//
// Look-ups on real threads and in real time: a resolver that never answers must
// not hold anybody up, use more than eight threads, or touch what is gone. The
// system's resolver is replaced, too: its name is defined away below.

#define _GNU_SOURCE
#include <netdb.h>
#include <sys/socket.h>

static int false_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                             struct addrinfo **list);
static void false_freeaddrinfo(struct addrinfo *list);
#define getaddrinfo false_getaddrinfo
#define freeaddrinfo false_freeaddrinfo

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "inside.h"
#include "probe.h"

#include <dlfcn.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#if __has_feature(thread_sanitizer)
#define NO_FORK 1
#endif
#endif
#if !defined(SANITIZED) && (defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__))
#define SANITIZED 1
#endif
#if defined(__SANITIZE_THREAD__)
#define NO_FORK 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

//------------------------------------------------------------------------------
// Resolvers
//------------------------------------------------------------------------------

static int released;                // atomic: the dead resolver answers
static int entered, inside, most_inside, unblocked_signals;     // atomic

static void nap_ms(int ms) {
    struct timespec time = { ms / 1000, ms % 1000 * 1000000L };
    while (nanosleep(&time, &time) != 0) continue;
}

static int get(const int *value) {
    return __atomic_load_n(value, __ATOMIC_SEQ_CST);
}

static void enter(void) {
    sigset_t mask;
    __atomic_fetch_add(&entered, 1, __ATOMIC_SEQ_CST);
    int now = __atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
    int most = get(&most_inside);
    while (now > most && !__atomic_compare_exchange_n(&most_inside, &most, now, 0,
                                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) continue;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (!sigismember(&mask, SIGALRM) || !sigismember(&mask, SIGINT)) {
        __atomic_fetch_add(&unblocked_signals, 1, __ATOMIC_SEQ_CST);
    }
}

static void leave(void) {
    __atomic_fetch_sub(&inside, 1, __ATOMIC_SEQ_CST);
}

// Sleeps for a minute, unless it is released.
static int dead(nkt_env *env, const char *host, int family, nkt_ip *ips, int cap) {
    (void)env;
    (void)host;
    enter();
    for (int i = 0; i < 60000 && get(&released) == 0; i++) nap_ms(1);
    for (int i = 0; i < cap; i++) ips[i] = nkt_ip_loopback(family);
    leave();
    return cap;
}

// Answers after a time that depends on the name's first letter.
static int lively(nkt_env *env, const char *host, int family, nkt_ip *ips, int cap) {
    (void)env;
    enter();
    if (host[0] >= 'm') nap_ms(1);
    ips[0] = ips[cap - 1] = nkt_ip_loopback(family);
    leave();
    return family == NKT_IPV4 ? 1 : (int)NKT_ENOTFOUND;
}

// Ends, on the worker's thread, what the look-up is for.
static nkt_task *own_task;          // atomic
static nkt_conn *own_conn;          // atomic

static int traitor(nkt_env *env, const char *host, int family, nkt_ip *ips, int cap) {
    nkt_task *task = NULL;
    nkt_conn *conn = NULL;
    (void)env, (void)host, (void)cap;
    enter();
    for (int i = 0; i < 10000 && task == NULL && conn == NULL; i++) {
        nap_ms(1);
        task = __atomic_load_n(&own_task, __ATOMIC_SEQ_CST);
        conn = __atomic_load_n(&own_conn, __ATOMIC_SEQ_CST);
    }
    if (task != NULL) nkt_task_cancel(task);
    if (conn != NULL) nkt_conn_interrupt(conn);
    ips[0] = nkt_ip_loopback(family);
    leave();
    return 1;
}

static int system_code;             // atomic: what the system's resolver says

static int false_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                             struct addrinfo **list) {
    static struct sockaddr_in addr;
    static struct addrinfo one[2];
    (void)host;
    CHECK(service == NULL);
    CHECK_INT(hints->ai_socktype, SOCK_STREAM);
    if (hints->ai_family != AF_INET) return EAI_NONAME;
    if (get(&system_code) != 0) return get(&system_code);
    if (one[0].ai_addr == NULL) {
        addr.sin_family = AF_INET;
        addr.sin_addr.s_addr = htonl(0xc0000207);
        one[0].ai_addr = one[1].ai_addr = (struct sockaddr *)&addr;
        one[0].ai_addrlen = one[1].ai_addrlen = sizeof addr;
        one[0].ai_next = &one[1];
    }
    *list = one;
    return 0;
}

static void false_freeaddrinfo(struct addrinfo *list) {
    CHECK(list != NULL);
}

static void begin(probe *p, int (*resolve)(nkt_env *, const char *, int, nkt_ip *, int)) {
    probe_open(p);
    p->env.resolve = resolve;
    released = entered = inside = most_inside = unblocked_signals = 0;
}

// Nothing is left but memory that the workers free now.
static void end(probe *p) {
    __atomic_store_n(&released, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 10000 && inside_lookup_workers() > 0; i++) nap_ms(1);
    CHECK_INT(inside_lookup_workers(), 0);
    CHECK_INT(get(&inside), 0);
    probe_close(p);
}

static void wait_entered(int count) {
    for (int i = 0; i < 10000 && get(&entered) < count; i++) nap_ms(1);
    CHECK_INT(get(&entered), count);
}

// Until so many have been inside and nobody is.
static void wait_left(int count) {
    wait_entered(count);
    for (int i = 0; i < 10000 && get(&inside) > 0; i++) nap_ms(1);
    CHECK_INT(get(&inside), 0);
}

static nkt_connect_opts connect_opts(probe *p, int32_t timeout_ms) {
    nkt_connect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    opts.timeout_ms = timeout_ms;
    return opts;
}

static int compare_ints(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

static int median(int *values, size_t count) {
    qsort(values, count, sizeof values[0], compare_ints);
    return values[count / 2];
}

static int since_ms(int64_t start) {
    return (int)((nkt_now_ns(NULL) - start) / 1000000);
}

//------------------------------------------------------------------------------
// A dead resolver
//------------------------------------------------------------------------------

static void given_up_within(void) {
    TEST("bug 42: a look-up that its resolver cancels, a connect that it interrupts") {
        probe p;
        nkt_ip ip;
        nkt_task *task = NULL;
        nkt_conn *conn = NULL;
        begin(&p, traitor);
        nkt_lookup_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.env = &p.env;
        CHECK_INT(nkt_lookup_start("example.org", &opts, &task), NKT_OK);
        __atomic_store_n(&own_task, task, __ATOMIC_SEQ_CST);
        CHECK_INT(nkt_task_wait(task, -1), NKT_ECANCELED);
        CHECK_INT(nkt_lookup_finish(task, &ip, 1), NKT_ECANCELED);
        wait_left(2);
        __atomic_store_n(&own_task, NULL, __ATOMIC_SEQ_CST);
        nkt_task_close(task);
        nkt_connect_opts connecting = connect_opts(&p, -1);
        CHECK_INT(nkt_connect_start("example.org:80", &connecting, &conn), NKT_OK);
        __atomic_store_n(&own_conn, conn, __ATOMIC_SEQ_CST);
        CHECK_INT(nkt_connect_wait(conn, -1), NKT_ECANCELED);
        wait_left(4);
        __atomic_store_n(&own_conn, NULL, __ATOMIC_SEQ_CST);
        nkt_conn_close(conn);
        end(&p);
    }
}

static void in_time(void) {
    TEST("bug 34: a connect with 200 ms returns within 300 ms, whatever the resolver does") {
        probe p;
        int took[11];
        struct sigaction action;
        struct itimerval timer;
        begin(&p, dead);
        for (int i = 0; i < 11; i++) {
            nkt_connect_opts opts = connect_opts(&p, 200);
            nkt_connect_report report;
            nkt_conn *conn = NULL;
            opts.report = &report;
            int64_t start = nkt_now_ns(NULL);
            CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_ETIMEDOUT);
            took[i] = since_ms(start);
            CHECK(took[i] >= 200);
            // The first four keep all threads busy.
            CHECK_INT(report.lookup_err[0], i < 4 ? NKT_EAGAIN : NKT_EBUSY);
            CHECK(strstr(report.text, i < 4 ? "has not answered" : "was busy") != NULL);
        }
        CHECK_RANGE(median(took, 11), 200, 300);
        CHECK_INT(sigaction(SIGALRM, NULL, &action), 0);
        CHECK(action.sa_handler == SIG_DFL);
        CHECK_INT(getitimer(ITIMER_REAL, &timer), 0);
        CHECK_INT(timer.it_value.tv_sec + timer.it_value.tv_usec, 0);
        CHECK_INT(get(&inside), 8);
        CHECK_INT(p.blocks - p.calls[PROBE_WAKE_OPEN], 0);
        end(&p);
        CHECK_INT(get(&entered), 8);
    }
    TEST("bug 34: a look-up with 100 ms, and one that is cancelled") {
        probe p;
        nkt_ip ip;
        nkt_task *task = NULL;
        begin(&p, dead);
        nkt_lookup_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.env = &p.env;
        opts.timeout_ms = 100;
        int64_t start = nkt_now_ns(NULL);
        CHECK_INT(nkt_lookup("example.org", &opts, &ip, 1), NKT_ETIMEDOUT);
        CHECK_RANGE(since_ms(start), 100, 5000);
        CHECK_INT(nkt_lookup_start("example.org", &opts, &task), NKT_OK);
        nkt_task_cancel(task);
        CHECK_INT(nkt_task_wait(task, -1), NKT_ECANCELED);
        nkt_task_close(task);
        end(&p);
    }
    TEST("workers take no signals of the program's") {
        probe p;
        nkt_ip ip;
        begin(&p, lively);
        nkt_lookup_opts opts;
        memset(&opts, 0, sizeof opts);
        opts.env = &p.env;
        CHECK_INT(nkt_lookup("example.org", &opts, &ip, 1), 1);
        CHECK_INT(get(&unblocked_signals), 0);
        end(&p);
    }
}

//------------------------------------------------------------------------------
// A thousand at once
//------------------------------------------------------------------------------

enum { CROWD = 1000 };

static struct crowd {
    probe p;
    nkt_poller *poller;
    nkt_conn *conns[CROWD];
    int late[CROWD];
    int ended;
} crowd;

static int crowd_timeout(int i) {
    return 300 + i % 200;
}

static int count_tasks(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    int threads = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "Threads:", 8) == 0) threads = (int)strtol(line + 8, NULL, 10);
    }
    if (file != NULL) fclose(file);
    return threads;
}

static int tasks_at_start;          // 1, or more where an emulator has its own

// Eight workers and us; thread sanitizers have a thread of their own. Those of
// the test before may still be on their way out.
static void check_tasks(void) {
    int most = 8 + (SANITIZED ? 2 : tasks_at_start);
    for (int i = 0; i < 1000 && count_tasks() > most; i++) nap_ms(1);
    if (count_tasks() > 0) CHECK_RANGE(count_tasks(), 9, most);
}

static void crowd_start(void) {
    nkt_poller_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &crowd.p.env;
    CHECK_INT(nkt_poller_open(&opts, &crowd.poller), NKT_OK);
    for (int i = 0; i < CROWD; i++) {
        nkt_connect_opts connect = connect_opts(&crowd.p, crowd_timeout(i));
        connect.nonblocking = true;
        CHECK_INT(nkt_connect("example.org:80", &connect, &crowd.conns[i]), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(crowd.poller, crowd.conns[i], &crowd.conns[i]), NKT_OK);
        // The first four have begun, nobody else has.
        if (i == 3) wait_entered(8);
    }
}

// Every other one, in three ways.
static void crowd_cancel(void) {
    for (int i = 5; i < CROWD; i += 2) {
        if (i % 3 == 0) nkt_conn_interrupt(crowd.conns[i]);
        if (i % 3 == 1) nkt_conn_abort(crowd.conns[i]);
        else nkt_conn_close(crowd.conns[i]);
        crowd.conns[i] = NULL;
    }
}

static void crowd_end_one(int i) {
    nkt_connect_report report;
    nkt_conn *conn = crowd.conns[i];
    crowd.conns[i] = NULL;
    CHECK_INT(nkt_connect_finish(conn), NKT_ETIMEDOUT);
    CHECK_INT(nkt_conn_report(conn, &report), NKT_OK);
    CHECK_INT(report.lookup_err[0], i < 4 ? NKT_EAGAIN : NKT_EBUSY);
    CHECK_INT(report.lookup_err[1], i < 4 ? NKT_EAGAIN : NKT_EBUSY);
    CHECK(strstr(report.text, i < 4 ? "has not answered" : "was busy") != NULL);
    CHECK(report.elapsed_ms >= crowd_timeout(i));
    crowd.late[crowd.ended++] = report.elapsed_ms - crowd_timeout(i);
    nkt_conn_close(conn);
}

static void crowd_run(void) {
    nkt_event event;
    int64_t start = nkt_now_ns(NULL);
    while (crowd.ended < CROWD / 2 + 2 && since_ms(start) < 30000) {
        nkt_poller_wait(crowd.poller, 1000);
        while (nkt_poller_next(crowd.poller, &event) == NKT_OK) {
            if (event.events & NKT_CONNECTED) {
                crowd_end_one((int)((nkt_conn **)event.user - crowd.conns));
            }
        }
    }
    CHECK_INT(crowd.ended, CROWD / 2 + 2);
}

static long resident_kib(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    long size = 0, resident = 0;
    char line[128];
    if (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *rest = line;
        size = strtol(rest, &rest, 10);
        resident = strtol(rest, &rest, 10);
    }
    if (file != NULL) fclose(file);
    return size > 0 ? resident * (sysconf(_SC_PAGESIZE) / 1024) : 0;
}

static void thousand(void) {
    TEST("bug 34: a thousand look-ups at once, half cancelled, the resolver dead") {
        long before = 0;
        int rounds = SANITIZED ? 1 : 4;
        for (int round = 0; round < rounds; round++) {
            memset(&crowd, 0, sizeof crowd);
            begin(&crowd.p, dead);
            crowd_start();
            crowd_cancel();
            check_tasks();
            crowd_run();
            CHECK_RANGE(median(crowd.late, (size_t)crowd.ended), 0, 100);
            CHECK_INT(get(&most_inside), 8);
            CHECK(!inside_lookup_queued());
            nkt_poller_close(crowd.poller);
            CHECK_INT(crowd.p.descriptors, crowd.p.calls[PROBE_WAKE_OPEN] -
                                           crowd.p.calls[PROBE_WAKE_CLOSE]);
            end(&crowd.p);
            CHECK_INT(get(&entered), 8);
            if (round == 0) before = resident_kib();
        }
        if (!SANITIZED) CHECK_RANGE(resident_kib() - before, -1e9, 4096);
    }
}

//------------------------------------------------------------------------------
// By name, in a poller
//------------------------------------------------------------------------------

enum { PARTY = 100 };

static void party(bool portable) {
    probe p;
    nkt_listen_opts listen_opts;
    nkt_poller_opts poller_opts;
    nkt_listener *listener = NULL;
    nkt_poller *poller = NULL;
    nkt_conn *conns[PARTY];
    nkt_event event;
    nkt_addr addr;
    char target[64];
    int connected = 0;
    begin(&p, lively);
    memset(&listen_opts, 0, sizeof listen_opts);
    memset(&poller_opts, 0, sizeof poller_opts);
    listen_opts.env = poller_opts.env = &p.env;
    poller_opts.portable = portable;
    CHECK_INT(nkt_listen("127.0.0.1:0", &listen_opts, &listener), NKT_OK);
    CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
    CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
    for (int i = 0; i < PARTY; i++) {
        nkt_connect_opts opts = connect_opts(&p, -1);
        opts.nonblocking = true;
        snprintf(target, sizeof target, "%c.example:%d", 'a' + i % 26, addr.port);
        CHECK_INT(nkt_connect(target, &opts, &conns[i]), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, conns[i], conns[i]), NKT_OK);
    }
    for (int i = 0; i < 10000 && connected < PARTY && nkt_poller_wait(poller, 5000) > 0; i++) {
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            if ((event.events & NKT_CONNECTED) == 0) continue;
            CHECK_INT(nkt_connect_finish(event.conn), NKT_OK);
            CHECK_INT(nkt_poller_want(poller, event.conn, 0), NKT_OK);
            connected++;
        }
    }
    CHECK_INT(connected, PARTY);
    for (int i = 0; i < PARTY; i++) nkt_conn_abort(conns[i]);
    nkt_poller_close(poller);
    nkt_listener_close(listener);
    end(&p);
    CHECK_RANGE(get(&most_inside), 1, 8);
}

static void poller(void) {
    TEST("a hundred connects by name, in a poller") { party(false); }
    TEST("a hundred connects by name, in a portable poller") { party(true); }
}

//------------------------------------------------------------------------------
// In all directions at once
//------------------------------------------------------------------------------

static probe *shared;
static int running;                 // atomic

static void one_lookup(int i) {
    static const char *const names[] = { "alpha.example", "zulu.example" };
    nkt_lookup_opts opts;
    nkt_task *task = NULL;
    nkt_ip ips[2];
    memset(&opts, 0, sizeof opts);
    opts.env = &shared->env;
    CHECK_INT(nkt_lookup_start(names[i % 2], &opts, &task), NKT_OK);
    if (i % 5 == 1) CHECK(nkt_task_wait(task, 1) <= 0);
    if (i % 5 == 2) nkt_task_cancel(task);
    if (i % 5 == 3) nkt_lookup_finish(task, ips, 2);
    nkt_task_close(task);
    if (i % 5 == 4) CHECK_INT(nkt_lookup(names[i % 2], &opts, ips, 2), 1);
}

static void many_lookups(void *arg) {
    for (int i = 0; i < 300; i++) one_lookup(i + (int)(intptr_t)arg);
    __atomic_fetch_sub(&running, 1, __ATOMIC_SEQ_CST);
}

static void stress(void) {
    TEST("bug 34: look-ups of four threads, cancelled and closed at every moment") {
        probe p;
        begin(&p, lively);
        shared = &p;
        running = 4;
        for (int i = 0; i < 4; i++) {
            CHECK_INT(nkt_thread_start(&p.env, many_lookups, (void *)(intptr_t)i), NKT_OK);
        }
        for (int i = 0; i < 60000 && get(&running) > 0; i++) nap_ms(1);
        CHECK_INT(get(&running), 0);
        CHECK_RANGE(get(&most_inside), 1, 8);
        end(&p);
    }
    TEST("bug 34: an environment that goes at once, with the system's resolver") {
        for (int i = 0; i < 500; i++) {
            nkt_env *env = (nkt_env *)malloc(sizeof *env);
            nkt_lookup_opts opts;
            nkt_task *task = NULL;
            memset(&opts, 0, sizeof opts);
            opts.env = env;
            CHECK_INT(nkt_env_init(env), NKT_OK);
            CHECK_INT(nkt_lookup_start("example.org", &opts, &task), NKT_OK);
            if (i % 4 == 1) nkt_task_wait(task, 1);
            if (i % 4 > 1) sched_yield();
            nkt_task_close(task);
            nkt_env_free(env);
            free(env);
        }
        for (int i = 0; i < 10000 && inside_lookup_workers() > 0; i++) nap_ms(1);
        CHECK_INT(inside_lookup_workers(), 0);
    }
}

static void system_resolver(void) {
    TEST("the system's resolver: answers and codes") {
        static const int codes[][2] = {
            { 0, 1 }, { EAI_NONAME, NKT_ENOTFOUND }, { EAI_AGAIN, NKT_ELOOKUP },
            { EAI_FAIL, NKT_ELOOKUP }, { EAI_MEMORY, NKT_ENOMEM }, { EAI_SYSTEM, NKT_ELOOKUP },
        };
        for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
            nkt_ip ips[4], want;
            CHECK_INT(nkt_ip_parse("192.0.2.7", &want), NKT_OK);
            __atomic_store_n(&system_code, codes[i][0], __ATOMIC_SEQ_CST);
            int result = nkt_lookup("example.org", NULL, ips, 4);
            // The same address twice is for the race to sort out.
            CHECK_INT(result, codes[i][0] == 0 ? 2 : codes[i][1]);
            if (result > 0) CHECK(nkt_ip_equal(&ips[0], &want));
        }
        for (int i = 0; i < 10000 && inside_lookup_workers() > 0; i++) nap_ms(1);
    }
}

//------------------------------------------------------------------------------
// Signals
//------------------------------------------------------------------------------

static int alarms;

static void on_alarm(int number) {
    (void)number;
    __atomic_fetch_add(&alarms, 1, __ATOMIC_SEQ_CST);
}

static void every_us(long us) {
    struct itimerval timer = { { 0, us }, { 0, us } };
    setitimer(ITIMER_REAL, &timer, NULL);
}

static bool connect_once(nkt_listener *listener, const char *target, nkt_connect_opts *opts) {
    nkt_conn *conn = NULL, *peer = NULL;
    int err = nkt_connect_start(target, opts, &conn);
    if (!CHECK_INT(err, NKT_OK)) return false;
    do err = nkt_connect_finish(conn);
    while (err == NKT_EINTR);
    CHECK_INT(err, NKT_OK);
    int accepted;
    do accepted = nkt_accept(listener, &peer);
    while (accepted == NKT_EINTR);
    CHECK_INT(accepted, NKT_OK);
    nkt_conn_abort(conn);
    if (accepted >= 0) nkt_conn_close(peer);
    return err >= 0 && accepted >= 0;
}

static void connect_many(const char *host, int want, int limit_ms) {
    probe p;
    nkt_listen_opts opts;
    nkt_listener *listener = NULL;
    nkt_addr addr;
    char target[64];
    int count = 0;
    begin(&p, lively);
    memset(&opts, 0, sizeof opts);
    opts.env = &p.env;
    CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_OK);
    CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
    snprintf(target, sizeof target, "%s:%d", host, addr.port);
    nkt_connect_opts connect = connect_opts(&p, -1);
    alarms = 0;
    signal(SIGALRM, on_alarm);
    every_us(200);
    int64_t start = nkt_now_ns(NULL);
    while (count < want && since_ms(start) < limit_ms && connect_once(listener, target, &connect)) {
        count++;
    }
    every_us(0);
    signal(SIGALRM, SIG_DFL);
    CHECK_INT(count, want);
    CHECK_RANGE(get(&alarms), 1, 1e9);
    nkt_listener_close(listener);
    end(&p);
}

static void signals(void) {
    TEST("ten thousand connects with a signal every 200 us") {
        connect_many("127.0.0.1", 10000, 60000);
    }
    TEST("connects by name with a signal every 200 us") {
        connect_many("example.org", 1000, 30000);
    }
}

//------------------------------------------------------------------------------
// Processes that end and libraries that go
//------------------------------------------------------------------------------

// Runs it in a process of its own; it has to end well, and soon.
static void in_child(void (*run)(void)) {
    int status = -1;
    int64_t start = nkt_now_ns(NULL);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(30);
        nkt_test.failures = 0;
        run();
        exit(nkt_test.failures > 0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) printf("  killed by signal %d\n", WTERMSIG(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_RANGE(since_ms(start), 0, 10000);
}

static void exit_with_sleepers(void) {
    nkt_env *env = (nkt_env *)calloc(1, sizeof *env);
    nkt_connect_opts opts;
    nkt_conn *conn = NULL;
    CHECK_INT(nkt_env_init(env), NKT_OK);
    env->resolve = dead;
    released = entered = 0;
    memset(&opts, 0, sizeof opts);
    opts.env = env;
    opts.timeout_ms = 50;
    CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_ETIMEDOUT);
    opts.nonblocking = true;
    CHECK_INT(nkt_connect("example.org:80", &opts, &conn), NKT_OK);
    nkt_conn_close(conn);
}

static const char *library;         // a shared object with netkit in it

typedef struct library_calls {
    int (*env_init)(nkt_env *env);
    int (*lookup_start)(const char *host, const nkt_lookup_opts *opts, nkt_task **task);
    void (*task_close)(nkt_task *task);
    bool (*is_sound)(const char *name, size_t len);
} library_calls;

// Data and function pointers are of one size here, but not of one kind.
static void find(void *handle, const char *name, void *function) {
    void *address = dlsym(handle, name);
    CHECK(address != NULL);
    memcpy(function, &address, sizeof address);
}

static void close_library(void) {
    static nkt_env env;
    library_calls calls;
    nkt_lookup_opts opts;
    nkt_task *task = NULL;
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!CHECK(handle != NULL)) {
        printf("  %s\n", dlerror());
        return;
    }
    find(handle, "nkt_env_init", &calls.env_init);
    find(handle, "nkt_lookup_start", &calls.lookup_start);
    find(handle, "nkt_task_close", &calls.task_close);
    find(handle, "nkt_host_is_local", &calls.is_sound);
    released = entered = inside = 0;
    CHECK_INT(calls.env_init(&env), NKT_OK);
    env.resolve = dead;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    CHECK_INT(calls.lookup_start("example.org", &opts, &task), NKT_OK);
    wait_entered(2);
    calls.task_close(task);
    CHECK_INT(dlclose(handle), 0);
    // The workers return into the library's code and must find it.
    __atomic_store_n(&released, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 10000 && get(&inside) > 0; i++) nap_ms(1);
    CHECK_INT(get(&inside), 0);
    for (int i = 0; i < 100 && count_tasks() > tasks_at_start + SANITIZED; i++) nap_ms(10);
    CHECK(calls.is_sound("localhost", 9));
}

static const char *folder_of(const char *program) {
    static char folder[512];
    const char *slash = strrchr(program, '/');
    snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - program) : 1,
             slash != NULL ? program : ".");
    return folder;
}

static bool build_library(const char *program, const char *header) {
    static char path[600];
    char command[2000];
    const char *cc = getenv("NKT_TEST_CC");
    snprintf(path, sizeof path, "%s/lookup_%ld.so", folder_of(program), (long)getpid());
    library = path;
    snprintf(command, sizeof command,
             "printf '#define NETKIT_IMPLEMENTATION\\n#include \"netkit.h\"\\n' | "
             "%s -std=c99 -O1 -fPIC -fvisibility=hidden -DNETKIT_SHARED -I'%s' -x c - "
             "-shared -o '%s' -pthread",
             cc != NULL && cc[0] != '\0' ? cc : "cc", header, path);
    return system(command) == 0;
}

#ifndef NO_FORK                     // thread sanitizers bear no fork of several threads
static probe *parent;
static nkt_conn *inherited;

// The parent's workers are not here, nor is anybody who will answer its calls.
static void look_up_in_child(void) {
    nkt_ip ip;
    nkt_lookup_opts opts;
    CHECK_INT(nkt_conn_close(inherited), 0);
    parent->env.resolve = lively;
    memset(&opts, 0, sizeof opts);
    opts.env = &parent->env;
    opts.timeout_ms = 5000;
    for (int i = 0; i < 20; i++) CHECK_INT(nkt_lookup("example.org", &opts, &ip, 1), 1);
}

static void forked(void) {
    TEST("a forked child looks up while the parent's resolver hangs") {
        probe p;
        nkt_conn *conns[8];
        begin(&p, dead);
        parent = &p;
        nkt_connect_opts opts = connect_opts(&p, -1);
        opts.nonblocking = true;
        for (int i = 0; i < 8; i++) {
            CHECK_INT(nkt_connect("example.org:80", &opts, &conns[i]), NKT_OK);
        }
        wait_entered(8);
        inherited = conns[0];
        in_child(look_up_in_child);
        inherited = conns[7];           // its jobs wait in the queue
        in_child(look_up_in_child);
        for (int i = 0; i < 8; i++) nkt_conn_close(conns[i]);
        end(&p);
        CHECK_INT(get(&entered), 8);
    }
}
#endif

static void processes(const char *program) {
    TEST("bug 34: a process with sleepers ends at once") { in_child(exit_with_sleepers); }
    TEST("bug 34: the shared object is closed under a look-up") {
        char header[512];
        // Where this file's netkit.h is.
        snprintf(header, sizeof header, "%s/../..", folder_of(__FILE__));
        if (CHECK(build_library(program, header))) in_child(close_library);
        remove(library);
    }
}

int main(int argc, char **argv) {
    // Before there is any thread.
    tasks_at_start = count_tasks();
    processes(argc > 0 ? argv[0] : "./x");
    in_time();
    given_up_within();
    thousand();
    poller();
    stress();
    system_resolver();
    signals();
#ifndef NO_FORK
    forked();
#endif
    return test_finish();
}
