// test_refusals.c - environments that cannot be used, and a system that balks
//
// Where an environment is none, everything that takes one says so, and touches
// nothing. Where the system is interrupted, full or lacks something, the call
// goes on, waits or tells.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "probe.h"

static void no_operation(void *arg) {
    (void)arg;
}

static int64_t no_time;

static ptrdiff_t nothing_recv(nkt_link *link, void *buf, size_t cap) {
    (void)link, (void)buf, (void)cap;
    return NKT_EOF;
}

static ptrdiff_t nothing_send(nkt_link *link, const nkt_str *pieces, size_t count) {
    (void)link, (void)pieces, (void)count;
    return NKT_EPIPE;
}

static void nothing_close(nkt_link *link, bool abort) {
    (void)link, (void)abort;
}

static const nkt_transport nothing = {
    sizeof(nkt_transport), "nothing", nothing_recv, nothing_send, NULL, NULL, nothing_close, NULL,
    NULL, NULL, NULL,
};

// With an environment that cannot be used.
static void refuse_all(nkt_env *env) {
    nkt_connect_opts connect_opts;
    nkt_listen_opts listen_opts;
    nkt_lookup_opts lookup_opts;
    nkt_timer_opts timer_opts;
    nkt_poller_opts poller_opts;
    nkt_conn_opts conn_opts;
    nkt_ip ip = nkt_ip_loopback(NKT_IPV4);
    nkt_addr addr = nkt_addr_make(&ip, 9);
    nkt_conn *conn = NULL, *other = NULL;
    nkt_listener *listener = NULL;
    nkt_poller *poller = NULL;
    nkt_task *task = NULL;
    char byte = 'x';
    memset(&connect_opts, 0, sizeof connect_opts);
    memset(&listen_opts, 0, sizeof listen_opts);
    memset(&lookup_opts, 0, sizeof lookup_opts);
    memset(&timer_opts, 0, sizeof timer_opts);
    memset(&poller_opts, 0, sizeof poller_opts);
    memset(&conn_opts, 0, sizeof conn_opts);
    connect_opts.env = listen_opts.env = lookup_opts.env = timer_opts.env = env;
    poller_opts.env = conn_opts.env = env;
    CHECK_INT(nkt_now_ns(env), no_time);
    CHECK_INT(nkt_random(env, &byte, 1), NKT_EOS);
    CHECK_INT(byte, 'x');
    CHECK_INT(nkt_thread_start(env, no_operation, NULL), NKT_EINVAL);
    CHECK_INT(nkt_connect("127.0.0.1:9", &connect_opts, &conn), NKT_EINVAL);
    CHECK_INT(nkt_connect_addr(&addr, &connect_opts, &conn), NKT_EINVAL);
    CHECK_INT(nkt_conn_adopt(0, &conn_opts, &conn), NKT_EINVAL);
    CHECK_INT(nkt_conn_open_custom(&nothing, NULL, &conn_opts, &conn), NKT_EINVAL);
    CHECK_INT(nkt_conn_pair(&conn_opts, &conn_opts, &conn, &other), NKT_EINVAL);
    CHECK_INT(nkt_listen("127.0.0.1:0", &listen_opts, &listener), NKT_EINVAL);
    CHECK_INT(nkt_listener_adopt(0, &listen_opts, &listener), NKT_EINVAL);
    CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_EINVAL);
    CHECK_INT(nkt_timer_start(&timer_opts, &task), NKT_EINVAL);
    CHECK_INT(nkt_lookup_start("127.0.0.1", &lookup_opts, &task), NKT_EINVAL);
    CHECK_INT(nkt_lookup("127.0.0.1", &lookup_opts, &ip, 1), NKT_EINVAL);
    CHECK_INT(nkt_ip_sort(env, &ip, 1), NKT_EINVAL);
    CHECK(conn == NULL && other == NULL && listener == NULL && poller == NULL && task == NULL);
}

static void environments(void) {
    TEST("an environment that was not initialised") {
        nkt_env env;
        memset(&env, 0, sizeof env);
        refuse_all(&env);
    }
    TEST("an environment of an older netkit") {
        nkt_env env;
        CHECK_INT(nkt_env_init(&env), NKT_OK);
        env.size = sizeof env - 1;
        refuse_all(&env);
        env.size = sizeof env;
        nkt_env_free(&env);
    }
    TEST("a table of an older netkit") {
        nkt_env env;
        nkt_sys_core core = *nkt_sys_core_default();
        CHECK_INT(nkt_env_init(&env), NKT_OK);
        core.size = sizeof core - 1;
        env.core = &core;
        refuse_all(&env);
        nkt_env_free(&env);
    }
    TEST("an environment without a table has the system's") {
        nkt_env env;
        CHECK_INT(nkt_env_init(&env), NKT_OK);
        env.core = NULL;
        CHECK(nkt_now_ns(&env) > 0);
        CHECK(env.core == nkt_sys_core_default());
        env.core = NULL;
        nkt_env_free(&env);
        CHECK(env.state == NULL);
    }
}

static void arguments(void) {
    static const int32_t ports[] = { -1, 65536, INT32_MAX, INT32_MIN };
    TEST("a default port that is none") {
        for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
            nkt_connect_opts opts;
            nkt_connect_report report;
            nkt_conn *conn = NULL;
            memset(&opts, 0, sizeof opts);
            opts.default_port = ports[i];
            opts.report = &report;
            CHECK_INT(nkt_connect("127.0.0.1:9", &opts, &conn), NKT_EPORT);
            CHECK_STR(report.problem.field, "default_port");
            CHECK(conn == NULL);
        }
    }
    TEST("a look-up without room for an answer") {
        nkt_ip ip;
        memset(&ip, 0xa5, sizeof ip);
        CHECK_INT(nkt_lookup("127.0.0.1", NULL, &ip, 0), NKT_EINVAL);
        CHECK_INT(nkt_lookup("127.0.0.1", NULL, NULL, 4), NKT_EINVAL);
        CHECK_INT(ip.family, 0xa5);
        CHECK_INT(nkt_lookup("127.0.0.1", NULL, &ip, 1), 1);
        CHECK_INT(ip.family, NKT_IPV4);
    }
}

static void refused_calls(void) {
    TEST("reading and writing what cannot be") {
        const int64_t too_late = (int64_t)INT32_MAX + 1;
        nkt_conn *near_end = NULL, *far_end = NULL;
        nkt_str view, pieces[2];
        char name[NKT_ADDR_TEXT_MAX] = "";
        if (!CHECK_INT(nkt_conn_pair(NULL, NULL, &near_end, &far_end), NKT_OK)) return;
        CHECK_INT(nkt_conn_write_str(far_end, "ab;c\n"), NKT_OK);
        CHECK_INT(nkt_conn_read_until(near_end, NULL, 1, &view), NKT_EINVAL);
        CHECK_INT(nkt_conn_read_until(near_end, ";", 0, &view), NKT_EINVAL);
        CHECK_INT(nkt_conn_read_until(near_end, name, NKT_UNTIL_MAX + 1, &view), NKT_EINVAL);
        CHECK_INT(nkt_conn_read_until(near_end, ";", 1, &view), NKT_OK);
        CHECK_VIEW(view, "ab;");
        CHECK_INT(nkt_conn_read_exact(near_end, NULL, 1), NKT_EINVAL);
        CHECK_INT(nkt_conn_read_exact(near_end, NULL, 0), NKT_OK);
        CHECK_INT(nkt_conn_unread(near_end, NULL, 1), NKT_EINVAL);
        CHECK_INT(nkt_conn_unread(near_end, "wxyz", 4), NKT_EINVAL);     // three were read
        CHECK_INT(nkt_conn_unread(near_end, NULL, 0), NKT_OK);
        pieces[0].ptr = pieces[1].ptr = name;
        pieces[0].len = 2;
        pieces[1].len = SIZE_MAX - 1;
        CHECK_INT(nkt_conn_writev(near_end, pieces, 2), NKT_ETOOLONG);
        CHECK_INT(nkt_conn_set_option(near_end, NKT_OPT_READ_TIMEOUT_MS, too_late), NKT_EINVAL);
        CHECK_INT(nkt_conn_set_option(near_end, NKT_OPT_WRITE_TIMEOUT_MS, too_late), NKT_EINVAL);
        CHECK_INT(nkt_conn_peer_name(near_end, name, 4), NKT_ENOSPACE);
        CHECK_INT(nkt_conn_peer_name(near_end, name, 5), 4);
        CHECK_STR(name, "pair");
        CHECK_INT(nkt_conn_read_line(near_end, &view), NKT_OK);
        CHECK_VIEW(view, "c");
        nkt_conn_close(near_end);
        CHECK_INT(nkt_conn_read_line(far_end, &view), NKT_EOF);         // nothing was written
        nkt_conn_close(far_end);
    }
}

static void refused_options(void) {
    TEST("numbers that no option of a socket has") {
        static const int64_t numbers[] = { -1, (int64_t)INT_MAX + 1, INT64_MIN, INT64_MAX };
        static const nkt_conn_option options[] = { NKT_OPT_KEEPALIVE_S, NKT_OPT_SEND_BUFFER,
                                                   NKT_OPT_DELAY_SMALL_WRITES };
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        int64_t before, after;
        probe_open(&p);
        if (!probe_tcp(&p, true, true, &near_end, &far_end)) return;
        for (int i = 0; i < 12; i++) {
            CHECK_INT(nkt_conn_get_option(near_end, options[i % 3], &before), NKT_OK);
            CHECK_INT(nkt_conn_set_option(near_end, options[i % 3], numbers[i / 3]), NKT_EINVAL);
            CHECK_INT(nkt_conn_get_option(near_end, options[i % 3], &after), NKT_OK);
            CHECK_INT(after, before);
        }
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
}

static void refused_to_begin(void) {
    TEST("what is refused for adopting stays the caller's") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL, *again = NULL;
        nkt_conn_opts opts;
        nkt_fd fd = NKT_NO_FD;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        if (!probe_tcp(&p, true, true, &near_end, &far_end)) return;
        CHECK_INT(nkt_conn_detach(near_end, &fd), NKT_OK);
        opts.stream.line_max = 0x7fff0001u;
        CHECK_INT(nkt_conn_adopt(fd, &opts, &again), NKT_EINVAL);
        opts.stream.line_max = 0;
        probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        CHECK_INT(nkt_conn_adopt(fd, &opts, &again), NKT_ENOMEM);
        CHECK(again == NULL);
        CHECK_INT(nkt_conn_adopt(fd, &opts, &again), NKT_OK);
        nkt_conn_close(again);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
    TEST("connecting without options, to nothing") {
        nkt_conn *conn = NULL;
        nkt_addr none;
        memset(&none, 0, sizeof none);
        CHECK_INT(nkt_connect(NULL, NULL, &conn), NKT_EINVAL);
        CHECK_INT(nkt_connect("a..b:80", NULL, &conn), NKT_ENAME);
        CHECK_INT(nkt_connect_start("a..b:80", NULL, &conn), NKT_ENAME);
        CHECK_INT(nkt_connect_addr(NULL, NULL, &conn), NKT_EADDR);
        CHECK_INT(nkt_connect_addr(&none, NULL, &conn), NKT_EADDR);
        nkt_connect_opts opts;
        nkt_ip loopback = nkt_ip_loopback(NKT_IPV4);
        nkt_addr addr = nkt_addr_make(&loopback, 9);
        memset(&opts, 0, sizeof opts);
        opts.default_port = 65536;      // of no use here, but no port either
        CHECK_INT(nkt_connect_addr(&addr, &opts, &conn), NKT_EPORT);
        CHECK(conn == NULL);
    }
    TEST("a target that is too long to be repeated is cut in the report") {
        char target[201], want[160];
        nkt_connect_opts opts;
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        memset(&opts, 0, sizeof opts);
        memset(target, 'a', sizeof target - 1);
        target[sizeof target - 1] = '\0';
        opts.report = &report;
        CHECK_INT(nkt_connect(target, &opts, &conn), NKT_ENAME);
        snprintf(want, sizeof want, "cannot connect to \"%.128s\": ", target);
        CHECK_INT(strncmp(report.text, want, strlen(want)), 0);
    }
}

// More interruptions in a row than are tried over count as nothing there.
static void interruptions(void) {
    TEST("interrupted again and again") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        char byte = 0;
        probe_open(&p);
        if (!probe_tcp(&p, true, true, &near_end, &far_end)) return;
        probe_say(near_end, far_end, "ab", &p.env);
        probe_fail(&p, PROBE_RECV, NKT_EINTR, 3);
        CHECK_INT(nkt_conn_read(far_end, &byte, 1), 1);
        CHECK_INT(byte, 'a');
        CHECK_INT(nkt_conn_read(far_end, &byte, 1), 1);
        probe_say(near_end, far_end, "c", &p.env);
        probe_fail(&p, PROBE_RECV, NKT_EINTR, 16);
        CHECK_INT(nkt_conn_read(far_end, &byte, 1), NKT_EAGAIN);
        CHECK_INT(nkt_conn_read(far_end, &byte, 1), 1);
        CHECK_INT(byte, 'c');
        probe_fail(&p, PROBE_SEND, NKT_EINTR, 16);
        CHECK_INT(nkt_conn_write(near_end, "d", 1), NKT_OK);
        CHECK_INT(nkt_conn_queued(near_end), 1);
        CHECK_INT(nkt_conn_flush(near_end), NKT_OK);
        CHECK_INT(nkt_conn_queued(near_end), 0);
        CHECK(probe_until(&p.env, nkt_conn_descriptor(far_end), NKT_READ));
        CHECK_INT(nkt_conn_read(far_end, &byte, 1), 1);
        CHECK_INT(byte, 'd');
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
}

static int cannot_block(nkt_env *env, nkt_fd fd, bool blocking) {
    (void)env;
    (void)fd;
    (void)blocking;
    return NKT_EACCES;
}

static int cannot_tell(nkt_env *env, nkt_fd fd, int option, int64_t *value) {
    if (option != NKT_SO_KEEPALIVE_S) return probe_system()->get_option(env, fd, option, value);
    return NKT_EUNSUPPORTED;
}

static void lacking(void) {
    TEST("a descriptor whose mode cannot be changed stays whose it was") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL, *again = NULL;
        nkt_conn_opts opts;
        nkt_fd fd = NKT_NO_FD;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        if (!probe_tcp(&p, true, true, &near_end, &far_end)) return;
        p.core.set_blocking = cannot_block;
        CHECK_INT(nkt_conn_detach(near_end, &fd), NKT_EACCES);
        CHECK_INT(fd, NKT_NO_FD);
        p.core.set_blocking = probe_system()->set_blocking;
        CHECK_INT(nkt_conn_detach(near_end, &fd), NKT_OK);
        p.core.set_blocking = cannot_block;
        CHECK_INT(nkt_conn_adopt(fd, &opts, &again), NKT_EACCES);
        CHECK(again == NULL);
        p.core.set_blocking = probe_system()->set_blocking;
        CHECK_INT(nkt_conn_adopt(fd, &opts, &again), NKT_OK);
        nkt_conn_close(again);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
    TEST("a system that does not tell its keep-alive is told what was set") {
        probe p;
        nkt_conn *near_end = NULL, *far_end = NULL;
        int64_t value = 0;
        probe_open(&p);
        if (!probe_tcp(&p, true, true, &near_end, &far_end)) return;
        p.core.get_option = cannot_tell;
        CHECK_INT(nkt_conn_get_option(near_end, NKT_OPT_KEEPALIVE_S, &value), NKT_OK);
        CHECK_INT(value, 0);
        CHECK_INT(nkt_conn_set_option(near_end, NKT_OPT_KEEPALIVE_S, 33), NKT_OK);
        CHECK_INT(nkt_conn_get_option(near_end, NKT_OPT_KEEPALIVE_S, &value), NKT_OK);
        CHECK_INT(value, 33);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
    TEST("a poller's memory gives out") {
        probe p;
        nkt_poller_opts opts;
        nkt_poller *poller = NULL;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        CHECK_INT(nkt_poller_open(&opts, &poller), NKT_ENOMEM);
        CHECK(poller == NULL);
        nkt_timer_opts timer_opts;
        nkt_task *task = NULL;
        memset(&timer_opts, 0, sizeof timer_opts);
        timer_opts.env = &p.env;
        probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        CHECK_INT(nkt_timer_start(&timer_opts, &task), NKT_ENOMEM);
        CHECK(task == NULL);
        probe_close(&p);
    }
}

// Waits inside waits, as many as there are connections: deterministic, where
// threads would have to be counted on to wait at the same time.
enum { NESTED = 70 };
static nkt_conn *nested[NESTED][2];
static int nested_at;

static int nesting_wait(nkt_env *env, nkt_watch *watches, size_t count, int64_t timeout_ns) {
    char byte;
    (void)env, (void)watches, (void)count, (void)timeout_ns;
    if (nested_at < NESTED) {
        int at = nested_at++;
        CHECK_INT(nkt_conn_read(nested[at][0], &byte, 1), NKT_EINTR);
    }
    return NKT_EINTR;
}

static void many_waits(void) {
    TEST("no more than 64 wake-ups are kept for later waits") {
        probe p;
        nkt_conn_opts opts;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        for (int i = 0; i < NESTED; i++) {
            CHECK_INT(nkt_conn_pair(&opts, &opts, &nested[i][0], &nested[i][1]), NKT_OK);
        }
        nested_at = 0;
        p.core.wait = nesting_wait;
        CHECK_INT(nesting_wait(&p.env, NULL, 0, 0), NKT_EINTR);
        CHECK_INT(probe_calls(&p, PROBE_WAKE_OPEN), NESTED);
        CHECK_INT(probe_calls(&p, PROBE_WAKE_CLOSE), NESTED - 64);
        // The next ones are served from what was kept.
        nested_at = NESTED - 64;
        CHECK_INT(nesting_wait(&p.env, NULL, 0, 0), NKT_EINTR);
        CHECK_INT(probe_calls(&p, PROBE_WAKE_OPEN), NESTED);
        p.core.wait = probe_core_wait;
        for (int i = 0; i < NESTED; i++) {
            nkt_conn_close(nested[i][0]);
            nkt_conn_close(nested[i][1]);
        }
        probe_close(&p);
    }
}

static nkt_listener *listen_here(probe *p, nkt_addr *addr) {
    nkt_listen_opts opts;
    nkt_listener *listener = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &p->env;
    CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_OK);
    CHECK_INT(nkt_listener_local(listener, addr), NKT_OK);
    return listener;
}

// A Unix-domain backlog that is full says so at once, and is tried again.
static void busy(void) {
    TEST("a backlog that is full is tried again") {
        probe p;
        nkt_addr addr;
        nkt_connect_opts opts;
        nkt_connect_report report;
        nkt_conn *conn = NULL;
        nkt_interest interest;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        opts.report = &report;
        nkt_listener *listener = listen_here(&p, &addr);
        probe_fail(&p, PROBE_CONNECT, NKT_EBUSY, 3);
        CHECK_INT(nkt_connect_addr(&addr, &opts, &conn), NKT_OK);
        CHECK_INT(probe_calls(&p, PROBE_CONNECT), 4);
        CHECK_INT(report.attempt_count, 1);
        CHECK_INT(report.attempts[0].err, NKT_OK);
        nkt_conn_close(conn);
        // Nonblocking: it is not connected, and says when it will try.
        opts.nonblocking = true;
        probe_fail(&p, PROBE_CONNECT, NKT_EBUSY, 1000);
        CHECK_INT(nkt_connect_addr(&addr, &opts, &conn), NKT_OK);
        int64_t now = nkt_now_ns(&p.env);
        CHECK_INT(nkt_conn_watch(conn, NKT_READ, &interest), NKT_OK);
        CHECK_INT(interest.count, 0);
        CHECK(interest.deadline_ns < now + 1000 * PROBE_MS);
        nkt_conn_close(conn);
        nkt_listener_close(listener);
        probe_close(&p);
    }
}

static int cannot_bind(nkt_env *env, nkt_fd fd, const char *name, int family) {
    (void)env, (void)fd, (void)name, (void)family;
    return NKT_EACCES;
}

static int names_any(nkt_env *env, const char *name, uint32_t *index) {
    (void)env, (void)name;
    *index = 1;
    return NKT_OK;
}

static void listeners(void) {
    TEST("a listener whose descriptor is not to be had") {
        probe p;
        nkt_addr addr;
        nkt_listen_opts opts;
        nkt_problem problem;
        nkt_listener *again = NULL;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        opts.problem = &problem;
        nkt_listener *listener = listen_here(&p, &addr);
        nkt_fd fd = nkt_listener_descriptor(listener);
        p.core.set_blocking = cannot_block;
        CHECK_INT(nkt_listener_adopt(fd, &opts, &again), NKT_EACCES);
        CHECK(again == NULL);
        CHECK_INT(problem.err, NKT_EACCES);
        p.core.set_blocking = probe_system()->set_blocking;
        probe_fail(&p, PROBE_ALLOCATE, NKT_ENOMEM, 1);
        CHECK_INT(nkt_listener_adopt(fd, &opts, &again), NKT_ENOMEM);
        opts.stream.recv_buffer = -1;
        CHECK_INT(nkt_listener_adopt(fd, &opts, &again), NKT_EINVAL);
        opts.stream.recv_buffer = 0;
        p.core.interface_index = names_any;
        p.core.bind_interface = cannot_bind;
        opts.interface_name = "any";
        // Windows cannot listen through one interface at all.
        CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &again),
                  NKTI_LISTEN_INTERFACE ? NKT_EACCES : NKT_EUNSUPPORTED);
        CHECK(again == NULL);
        nkt_listener_close(listener);
        probe_close(&p);
    }
    TEST("buffers of a stream are asked for") {
        probe p;
        nkt_conn_opts opts;
        nkt_conn *near_end = NULL, *far_end = NULL;
        int64_t value = 0;
        memset(&opts, 0, sizeof opts);
        probe_open(&p);
        opts.env = &p.env;
        opts.stream.recv_buffer = opts.stream.send_buffer = 100000;
        if (!probe_tcp_opts(&p, &opts, &opts, &near_end, &far_end)) return;
        CHECK_INT(nkt_conn_get_option(near_end, NKT_OPT_RECV_BUFFER, &value), NKT_OK);
        CHECK(value >= 100000);
        CHECK_INT(nkt_conn_get_option(far_end, NKT_OPT_SEND_BUFFER, &value), NKT_OK);
        CHECK(value >= 100000);
        nkt_conn_close(near_end);
        nkt_conn_close(far_end);
        probe_close(&p);
    }
}

int main(void) {
    environments();
    arguments();
    refused_calls();
    refused_options();
    refused_to_begin();
    interruptions();
    lacking();
    many_waits();
    busy();
    listeners();
    return test_finish();
}
