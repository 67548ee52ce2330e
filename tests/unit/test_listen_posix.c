// test_listen_posix.c - listening on paths, and on a host that has no IPv6
//
// A path is somebody's property: a live socket is not taken over, a dead one is
// replaced, and whatever is not a socket is never touched.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "probe.h"

#include <signal.h>
#include <sys/wait.h>
#ifdef __linux__
    #include <sched.h>
#endif

static char folder[] = "/tmp/nkt-listen-XXXXXX";

// "unix:" and a path in the test's own folder; the path itself is 5 bytes on.
static const char *place(const char *name) {
    static char target[160];
    snprintf(target, sizeof target, "unix:%s/%s", folder, name);
    return target;
}

static bool exists(const char *target) {
    struct stat status;
    return lstat(target + 5, &status) == 0;
}

static nkt_listen_opts listen_opts(probe *p) {
    nkt_listen_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    return opts;
}

static int connect_text(probe *p, const char *target, nkt_conn **conn) {
    nkt_connect_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    return nkt_connect(target, &opts, conn);
}

// A line each way between a target and the listener that should have it.
static void meet(probe *p, nkt_listener *listener, const char *target) {
    nkt_conn *near_end = NULL, *far_end = NULL;
    nkt_addr addr;
    nkt_str line;
    char name[40];
    if (!CHECK_INT(connect_text(p, target, &near_end), NKT_OK)) return;
    if (CHECK_INT(nkt_accept(listener, &far_end), NKT_OK)) {
        CHECK_INT(nkt_conn_write_str(near_end, "to and\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(far_end, &line), NKT_OK);
        CHECK_VIEW(line, "to and");
        CHECK_INT(nkt_conn_write_str(far_end, "fro\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_line(near_end, &line), NKT_OK);
        CHECK_VIEW(line, "fro");
        CHECK_INT(nkt_conn_peer(far_end, &addr), NKT_OK);
        CHECK_INT(addr.ip.family, 0);
        CHECK_INT(nkt_conn_peer_name(far_end, name, sizeof name), 4);
        CHECK_STR(name, "unix");
        nkt_conn_close(far_end);
    }
    nkt_conn_close(near_end);
}

// One that a service manager has opened, and named.
static void given_path(void) {
    TEST("a path that somebody else listens on for us") {
        probe p;
        nkt_listener *listener = NULL, *other = NULL;
        char name[160];
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        const char *target = place("given");
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
        int given = dup((int)nkt_listener_descriptor(listener));
        if (CHECK_INT(nkt_listener_adopt(given, &opts, &other), NKT_OK)) {
            CHECK_INT(nkt_listener_name(other, name, sizeof name), 5);
            CHECK_STR(name, "unix:");
            meet(&p, other, target);
            p.descriptors++;            // dup() was not counted
            nkt_listener_close(other);
            CHECK(exists(target));      // it is not ours to remove
        }
        nkt_listener_close(listener);
        CHECK(!exists(target));
        probe_close(&p);
    }
}

static void paths(void) {
    TEST("a path: listen, connect, close") {
        probe p;
        nkt_listener *listener = NULL;
        nkt_addr addr;
        nkt_conn *conn = NULL;
        char name[160];
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        const char *target = place("socket");
        CHECK_INT(connect_text(&p, target, &conn), NKT_ENOTFOUND);
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
        CHECK(exists(target));
        CHECK_INT(nkt_listener_local(listener, &addr), NKT_ENOTCONN);
        CHECK_INT(nkt_listener_name(listener, name, sizeof name), strlen(target));
        CHECK_STR(name, target);
        CHECK_INT(nkt_listener_name(listener, name, strlen(target)), NKT_ENOSPACE);
        meet(&p, listener, target);
        meet(&p, listener, target);
        nkt_listener_close(listener);
        CHECK(!exists(target));
        CHECK_INT(connect_text(&p, target, &conn), NKT_ENOTFOUND);
        probe_close(&p);
    }
    TEST("keep_path leaves it, connecting is refused, and listening replaces it") {
        probe p;
        nkt_listener *listener = NULL;
        nkt_conn *conn = NULL;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        opts.keep_path = true;
        const char *target = place("kept");
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
        nkt_listener_close(listener);
        CHECK(exists(target));
        CHECK_INT(connect_text(&p, target, &conn), NKT_EREFUSED);
        opts.keep_path = false;
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
        meet(&p, listener, target);
        nkt_listener_close(listener);
        CHECK(!exists(target));
        probe_close(&p);
    }
    TEST("a path that somebody listens on is not taken over") {
        probe p;
        nkt_listener *listener = NULL, *second = NULL;
        nkt_problem problem;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        opts.problem = &problem;
        const char *target = place("live");
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
        for (int i = 0; i < 3; i++) {
            CHECK_INT(nkt_listen(target, &opts, &second), NKT_EADDRINUSE);
            CHECK_INT(problem.err, NKT_EADDRINUSE);
            CHECK(exists(target));
        }
        // Asking whether it lives has left dead connections; they do no harm.
        nkt_conn *conn = NULL;
        for (int i = 0; i < 3; i++) {
            CHECK_INT(nkt_accept(listener, &conn), NKT_OK);
            nkt_conn_close(conn);
        }
        meet(&p, listener, target);
        nkt_listener_close(listener);
        probe_close(&p);
    }
}

static void not_sockets(void) {
    TEST("a file, a folder, a link: what is no socket is never removed") {
        probe p;
        nkt_listener *listener = NULL;
        char text[16] = { 0 };
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        const char *target = place("file");
        FILE *file = fopen(target + 5, "w");
        CHECK(file != NULL && fputs("precious", file) >= 0 && fclose(file) == 0);
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_EADDRINUSE);
        file = fopen(target + 5, "r");
        CHECK(file != NULL && fread(text, 1, sizeof text, file) == 8 && fclose(file) == 0);
        CHECK_STR(text, "precious");
        char file_path[160];
        snprintf(file_path, sizeof file_path, "%s", target + 5);
        target = place("link");
        CHECK_INT(symlink(file_path, target + 5), 0);
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_EADDRINUSE);
        CHECK(exists(target));
        CHECK_INT(unlink(target + 5), 0);
        CHECK_INT(unlink(file_path), 0);
        target = place("folder");
        CHECK_INT(mkdir(target + 5, 0700), 0);
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_EADDRINUSE);
        CHECK(exists(target));
        CHECK_INT(rmdir(target + 5), 0);
        CHECK_INT(p.descriptors, 0);
        CHECK(listener == NULL);
        probe_close(&p);
    }
    TEST("paths that cannot be") {
        probe p;
        nkt_listener *listener = NULL;
        char target[160];
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        CHECK_INT(nkt_listen(place("no/such/folder"), &opts, &listener), NKT_ENOTFOUND);
        memset(target, 'x', sizeof target);
        memcpy(target, place(""), strlen(place("")));
        target[5 + 107] = '\0';
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
        meet(&p, listener, target);
        nkt_listener_close(listener);
        target[5 + 107] = 'x';
        target[5 + 108] = '\0';
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_ETOOLONG);
        CHECK_INT(connect_text(&p, target, &(nkt_conn *){ NULL }), NKT_ETOOLONG);
        probe_close(&p);
    }
}

// There a connect has ended before anybody can wait for it.
static void nonblocking(void) {
    TEST("a nonblocking connect to a path is told, once, whenever it is added") {
        for (int found = 0; found < 2; found++) {
            probe p;
            nkt_listener *listener = NULL;
            nkt_conn *conn = NULL;
            nkt_poller *poller = NULL;
            nkt_poller_opts poller_opts;
            nkt_connect_opts connect_opts;
            nkt_event event;
            nkt_str line;
            memset(&poller_opts, 0, sizeof poller_opts);
            memset(&connect_opts, 0, sizeof connect_opts);
            probe_open(&p);
            nkt_listen_opts opts = listen_opts(&p);
            poller_opts.env = connect_opts.env = &p.env;
            connect_opts.nonblocking = true;
            CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
            const char *target = place("socket");
            if (found) CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
            CHECK_INT(nkt_connect(target, &connect_opts, &conn), NKT_OK);
            CHECK_INT(nkt_poller_add_conn(poller, conn, NULL), NKT_OK);
            CHECK_INT(nkt_poller_wait(poller, 5000), 1);
            CHECK_INT(nkt_poller_next(poller, &event), NKT_OK);
            CHECK(event.conn == conn);
            CHECK_INT(event.events, found ? NKT_CONNECTED : NKT_CONNECTED | NKT_READ);
            int want = found ? NKT_EAGAIN : NKT_ENOTFOUND;
            CHECK_INT(nkt_conn_read_line(conn, &line), want);
            CHECK_INT(nkt_connect_finish(conn), found ? NKT_OK : NKT_ENOTFOUND);
            CHECK_INT(nkt_poller_wait(poller, 0), 0);
            nkt_conn_close(conn);
            nkt_listener_close(listener);
            nkt_poller_close(poller);
            probe_close(&p);
        }
    }
}

static void abstract_names(void) {
#ifdef __linux__
    TEST("a name in Linux's abstract space") {
        probe p;
        nkt_listener *listener = NULL, *second = NULL;
        nkt_conn *conn = NULL;
        char target[60], name[60];
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        snprintf(target, sizeof target, "unix:@nkt-test-%d", (int)getpid());
        CHECK_INT(connect_text(&p, target, &conn), NKT_EREFUSED);
        CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK);
        CHECK_INT(nkt_listener_name(listener, name, sizeof name), strlen(target));
        CHECK_STR(name, target);
        CHECK(!exists(target));
        CHECK_INT(nkt_listen(target, &opts, &second), NKT_EADDRINUSE);
        CHECK_INT(nkt_accept(listener, &conn), NKT_OK);
        nkt_conn_close(conn);
        meet(&p, listener, target);
        // The length ends the name: what begins like it is another one.
        snprintf(target, sizeof target, "unix:@nkt-test-%d0", (int)getpid());
        CHECK_INT(connect_text(&p, target, &conn), NKT_EREFUSED);
        nkt_listener_close(listener);
        probe_close(&p);
    }
#endif
}

static void on_alarm(int number) {
    (void)number;
}

static void signals(void) {
    TEST("a signal ends a blocking accept, whatever its handler was set up with") {
        probe p;
        nkt_listener *listener = NULL;
        nkt_conn *conn = NULL;
        struct sigaction action, old;
        struct itimerval soon;
        probe_open(&p);
        nkt_listen_opts opts = listen_opts(&p);
        CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_OK);
        for (int restart = 0; restart < 2; restart++) {
            memset(&action, 0, sizeof action);
            action.sa_handler = on_alarm;
            action.sa_flags = restart ? SA_RESTART : 0;
            sigaction(SIGALRM, &action, &old);
            memset(&soon, 0, sizeof soon);
            soon.it_value.tv_usec = soon.it_interval.tv_usec = 20000;
            setitimer(ITIMER_REAL, &soon, NULL);
            CHECK_INT(nkt_accept(listener, &conn), NKT_EINTR);
            memset(&soon, 0, sizeof soon);
            setitimer(ITIMER_REAL, &soon, NULL);
            sigaction(SIGALRM, &old, NULL);
        }
        nkt_listener_close(listener);
        probe_close(&p);
    }
}

// In a network of its own, with IPv6 switched off as an administrator would.
#ifdef __linux__
static bool network_without_ipv6(void) {
    struct ifreq request;
    if (unshare(CLONE_NEWNET) != 0) return false;
    FILE *file = fopen("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w");
    if (file == NULL) return false;
    bool switched = fputs("1\n", file) >= 0;
    if (fclose(file) != 0 || !switched) return false;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    memset(&request, 0, sizeof request);
    memcpy(request.ifr_name, "lo", 3);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    bool up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    if (fd >= 0) close(fd);
    return up;
}

// How a listener for both families does there.
static void listen_without_ipv6(const char *target) {
    probe p;
    nkt_listener *listener = NULL;
    nkt_conn *near_end = NULL, *far_end = NULL;
    nkt_addr addr;
    char text[60];
    probe_open(&p);
    nkt_listen_opts opts = listen_opts(&p);
    if (CHECK_INT(nkt_listen(target, &opts, &listener), NKT_OK)) {
        CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
        snprintf(text, sizeof text, "localhost:%d", addr.port);
        CHECK_INT(connect_text(&p, text, &near_end), NKT_OK);
        CHECK_INT(nkt_accept(listener, &far_end), NKT_OK);
        CHECK_INT(nkt_conn_peer(near_end, &addr), NKT_OK);
        CHECK_INT(addr.ip.family, NKT_IPV4);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        nkt_listener_close(listener);
    }
    probe_close(&p);
}

enum { CHILD_SKIPS = 99 };

static void without_ipv6(void) {
    TEST("IPv6 switched off by the administrator") {
        fflush(stdout);
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            if (!network_without_ipv6()) _exit(CHILD_SKIPS);
            listen_without_ipv6(":0");
            listen_without_ipv6("localhost:0");
            fflush(stdout);
            _exit(nkt_test.failures > 0 ? 1 : 0);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
        if (WEXITSTATUS(status) == CHILD_SKIPS) {
            TEST_SKIP("it takes root to make a network namespace; run the test as root");
        } else {
            CHECK_INT(WEXITSTATUS(status), 0);
        }
    }
}
#endif

int main(void) {
    if (mkdtemp(folder) == NULL) return 1;
    paths();
    given_path();
    not_sockets();
    nonblocking();
    abstract_names();
    signals();
#ifdef __linux__
    without_ipv6();
#endif
    TEST("nothing is left in the folder") CHECK_INT(rmdir(folder), 0);
    return test_finish();
}
