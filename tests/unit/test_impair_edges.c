// test_impair_edges.c - impaired handles when memory, threads or a link fail
//
// Each allocation of a call fails in turn: the call says NKT_ENOMEM, nothing is
// changed and nothing is left behind. Links that refuse are tables of functions
// here, so that they do so exactly when a test wants it.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#define MS INT64_C(1000000)

static nkt_env env;
static long blocks, left = -1;      // allocations that still succeed; -1 = all

static void *allocate(nkt_env *e, void *ptr, size_t old_size, size_t new_size) {
    (void)e, (void)old_size;
    if (new_size == 0) {
        blocks -= ptr != NULL;
        free(ptr);
        return NULL;
    }
    if (left == 0) return NULL;
    if (left > 0) left--;
    blocks += ptr == NULL;
    return realloc(ptr, new_size);
}

static void begin(bool is_virtual) {
    CHECK_INT(is_virtual ? nkt_env_init_virtual(&env, 3) : nkt_env_init(&env), NKT_OK);
    env.allocate = allocate;
    blocks = 0;
    left = -1;
}

static void end(void) {
    left = -1;
    nkt_env_free(&env);
    CHECK_INT(blocks, 0);
}

static nkt_impairment slow(void) {
    nkt_impairment bad;
    memset(&bad, 0, sizeof bad);
    bad.seed = 5;
    bad.latency_ms = 1;
    return bad;
}

static nkt_conn_opts conn_opts(void) {
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    opts.nonblocking = true;
    return opts;
}

static nkt_udp_opts udp_opts(void) {
    nkt_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    opts.nonblocking = true;
    return opts;
}

// Wine 8 ends a stream where Windows resets it.
static int after_reset(void) {
#ifdef _WIN32
    if (GetProcAddress(GetModuleHandleA("ntdll.dll"), "wine_get_version") != NULL) return NKT_EOF;
#endif
    return NKT_ERESET;
}

static nkt_impair_step steps[2];
static nkt_impairment step_to;

// With a schedule, so that there is all to be allocated that can be.
static nkt_impairment scheduled(void) {
    nkt_impairment bad = slow();
    step_to = slow();
    step_to.latency_ms = 2;
    steps[0].at_ms = 10;
    steps[0].for_ms = 5;
    steps[0].to = &step_to;
    steps[1].at_ms = 20;
    steps[1].for_ms = 5;
    steps[1].to = NULL;
    bad.steps = steps;
    bad.step_count = 2;
    return bad;
}

//------------------------------------------------------------------------------
// Memory
//------------------------------------------------------------------------------

static void without_memory(void) {
    TEST("each allocation of nkt_conn_impair fails") {
        nkt_impairment bad = scheduled();
        int failures = 0, err = NKT_ENOMEM;
        for (int n = 0; err == NKT_ENOMEM && n < 50; n++) {
            nkt_conn_opts opts;
            nkt_conn *a, *b;
            nkt_impair_stats stats;
            begin(true);
            opts = conn_opts();
            CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
            left = n;
            err = nkt_conn_impair(a, &bad);
            left = -1;
            CHECK_INT(nkt_conn_impair_stats(a, NKT_READ, &stats),
                      err < 0 ? NKT_ENOTFOUND : NKT_OK);
            failures += err < 0;
            nkt_conn_abort(a);
            nkt_conn_abort(b);
            end();
        }
        CHECK_INT(err, NKT_OK);
        CHECK_INT(failures, 4);
    }
    TEST("each allocation of nkt_udp_impair fails") {
        nkt_impairment bad = scheduled();
        int failures = 0, err = NKT_ENOMEM;
        for (int n = 0; err == NKT_ENOMEM && n < 50; n++) {
            nkt_udp_opts opts;
            nkt_udp *a, *b;
            nkt_impair_stats stats;
            begin(true);
            opts = udp_opts();
            CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &a, &b), NKT_OK);
            CHECK_INT(nkt_udp_impair_stats(a, 0, &stats), NKT_EINVAL);
            left = n;
            err = nkt_udp_impair(a, &bad);
            left = -1;
            CHECK_INT(nkt_udp_impair_stats(a, NKT_WRITE, &stats),
                      err < 0 ? NKT_ENOTFOUND : NKT_OK);
            failures += err < 0;
            nkt_udp_close(a);
            nkt_udp_close(b);
            end();
        }
        CHECK_INT(err, NKT_OK);
        CHECK_INT(failures, 4);
    }
}

static void items_without_memory(void) {
    TEST("datagrams for which there is no memory") {
        nkt_udp_opts opts;
        nkt_udp *a, *b;
        char in[8];
        nkt_impairment bad = slow();
        begin(true);
        opts = udp_opts();
        bad.duplicate = 1;
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &a, &b), NKT_OK);
        CHECK_INT(nkt_udp_impair_ways(b, NULL, &bad), NKT_OK);
        CHECK_INT(nkt_udp_send(a, "one", 3, NULL), 3);
        left = 0;
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), NKT_EAGAIN);     // no room to take it in
        left = -1;
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), NKT_EAGAIN);
        nkt_sleep(&env, 1);
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), 3);
        CHECK_INT(nkt_udp_impair_ways(b, &bad, NULL), NKT_OK);
        // For the heap, for the datagram, for its copy, which is as if lost.
        static const struct { int left, want; } rows[] = {
            { 0, NKT_ENOMEM }, { 1, NKT_ENOMEM }, { 1, 3 }, { 2, 3 },
        };
        for (int i = 0; i < 4; i++) {
            left = rows[i].left;
            int err = (int)nkt_udp_send(b, "two", 3, NULL);
            left = -1;
            CHECK_INT(err, rows[i].want);
        }
        nkt_impair_stats stats;
        CHECK_INT(nkt_udp_impair_stats(b, NKT_WRITE, &stats), NKT_OK);
        CHECK_INT(stats.duplicated, 1);
        nkt_udp_close(a);
        nkt_udp_close(b);
        end();
    }
}

static void bytes_without_memory(void) {
    TEST("a stream's bytes for which there is no memory") {
        nkt_conn_opts opts;
        nkt_conn *a, *b;
        char in[64];
        nkt_impairment bad = slow();
        begin(true);
        opts = conn_opts();
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        CHECK_INT(nkt_conn_impair_ways(b, NULL, &bad), NKT_OK);
        left = 0;
        CHECK_INT(nkt_conn_write(a, "abc", 3), NKT_ENOMEM);
        left = -1;
        CHECK_INT(nkt_conn_write(a, "abc", 3), NKT_OK);
        left = 0;
        CHECK_INT(nkt_conn_shutdown_write(a), NKT_OK);
        // Nor does the other end need any, which never sent anything.
        left = -1;
        CHECK_INT(nkt_conn_impair_ways(b, &bad, &bad), NKT_OK);
        left = 0;
        CHECK_INT(nkt_conn_shutdown_write(b), NKT_OK);
        left = -1;
        CHECK_INT(nkt_conn_read(a, in, sizeof in), NKT_EOF);
        CHECK_INT(nkt_conn_flush(a), NKT_OK);
        nkt_sleep(&env, 2);
        // Without threads it takes a call to have it leave.
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        left = 1;
        CHECK_INT(nkt_conn_read(b, in, sizeof in), NKT_ENOMEM);
        left = -1;
        CHECK_INT(nkt_conn_read(b, in, sizeof in), NKT_EAGAIN);
        nkt_sleep(&env, 1);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), 3);
        nkt_sleep(&env, 1);
        CHECK_INT(nkt_conn_read(b, in, sizeof in), NKT_EOF);
        nkt_conn_abort(a);
        nkt_conn_abort(b);
        end();
    }
}

//------------------------------------------------------------------------------
// Listeners
//------------------------------------------------------------------------------

static nkt_listener *listening(char *target, size_t size) {
    nkt_listen_opts opts;
    nkt_listener *listener = NULL;
    nkt_addr addr;
    memset(&opts, 0, sizeof opts);
    memset(&addr, 0, sizeof addr);
    opts.env = &env;
    opts.nonblocking = true;
    CHECK_INT(nkt_listen("127.0.0.1:0", &opts, &listener), NKT_OK);
    CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
    CHECK(nkt_addr_format(&addr, target, size) > 0);
    return listener;
}

static nkt_conn *connected(const char *target) {
    nkt_connect_opts opts;
    nkt_conn *conn = NULL;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    CHECK_INT(nkt_connect(target, &opts, &conn), NKT_OK);
    return conn;
}

static void listeners_without_memory(void) {
    TEST("each allocation of nkt_listener_impair fails") {
        char target[NKT_ADDR_TEXT_MAX];
        nkt_impairment bad = scheduled();
        int failures = 0, err = NKT_ENOMEM;
        for (int n = 0; err == NKT_ENOMEM && n < 50; n++) {
            begin(false);
            nkt_listener *listener = listening(target, sizeof target);
            left = n;
            err = nkt_listener_impair(listener, &bad);
            left = -1;
            failures += err < 0;
            nkt_listener_close(listener);
            end();
        }
        CHECK_INT(err, NKT_OK);
        CHECK_INT(failures, 7);
    }
    TEST("a connection that cannot be impaired is not accepted") {
        char target[NKT_ADDR_TEXT_MAX], in[4];
        nkt_impairment bad = slow();
        nkt_conn *server = NULL;
        int err = NKT_ENOMEM, failures = 0;
        begin(false);
        nkt_listener *listener = listening(target, sizeof target);
        CHECK_INT(nkt_listener_impair(listener, &bad), NKT_OK);
        for (int n = 1; err == NKT_ENOMEM && n < 10; n++) {
            nkt_conn *client = connected(target);
            do {
                left = n;
                err = nkt_accept(listener, &server);
                left = -1;
            } while (err == NKT_EAGAIN);
            if (err < 0) {
                failures++;
                CHECK_INT(nkt_conn_read(client, in, sizeof in), after_reset());
            }
            nkt_conn_close(client);
        }
        CHECK_INT(err, NKT_OK);
        CHECK(failures > 0);
        nkt_conn_close(server);
        nkt_listener_close(listener);
        end();
    }
}

static void slow_listeners(void) {
    TEST("twenty are at the door, and settings change meanwhile") {
        char target[NKT_ADDR_TEXT_MAX];
        enum { CLIENTS = 20 };
        nkt_conn *clients[CLIENTS], *server;
        nkt_poller_opts poller_opts;
        nkt_poller *poller;
        nkt_event event;
        nkt_impairment bad = scheduled();
        int accepted = 0;
        memset(&poller_opts, 0, sizeof poller_opts);
        begin(false);
        poller_opts.env = &env;
        nkt_listener *listener = listening(target, sizeof target);
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_add_listener(poller, listener, NULL), NKT_OK);
        bad.accept_ms = 30;
        CHECK_INT(nkt_listener_impair_ways(listener, &bad, NULL), NKT_OK);
        for (int i = 0; i < CLIENTS; i++) clients[i] = connected(target);
        CHECK_INT(nkt_accept(listener, &server), NKT_EAGAIN);
        // Those that it holds are kept.
        CHECK_INT(nkt_listener_impair(listener, &bad), NKT_OK);
        while (accepted < CLIENTS && nkt_poller_wait(poller, 10000) > 0) {
            while (nkt_poller_next(poller, &event) == NKT_OK) {
                while (nkt_accept(listener, &server) == NKT_OK) {
                    nkt_impair_stats stats;
                    CHECK_INT(nkt_conn_impair_stats(server, NKT_WRITE, &stats), NKT_OK);
                    nkt_conn_close(server);
                    accepted++;
                }
            }
        }
        CHECK_INT(accepted, CLIENTS);
        nkt_listener_interrupt(listener);
        CHECK_INT(nkt_accept(listener, &server), NKT_ECANCELED);
        for (int i = 0; i < CLIENTS; i++) nkt_conn_close(clients[i]);
        nkt_listener_close(listener);
        nkt_poller_close(poller);
        end();
    }
    TEST("what a listener refuses") {
        char target[NKT_ADDR_TEXT_MAX];
        nkt_impairment bad = slow(), good = scheduled();
        nkt_problem problem;
        begin(false);
        nkt_listener *listener = listening(target, sizeof target);
        bad.loss = 2;
        bad.problem = &problem;
        CHECK_INT(nkt_listener_impair(listener, &bad), NKT_EINVAL);
        CHECK_STR(problem.field, "loss");
        // What was made of the other direction is not left behind.
        CHECK_INT(nkt_listener_impair_ways(listener, &bad, &good), NKT_EINVAL);
        nkt_listener_close(listener);
        end();
    }
}

//------------------------------------------------------------------------------
// Links
//------------------------------------------------------------------------------

// A datagram link that says what it is told to.
static struct { int send_err, recv_err, sent; } fake;

static int fake_recv(nkt_udp_link *link, nkt_datagram *list, int count) {
    (void)link, (void)list, (void)count;
    int err = fake.recv_err;
    fake.recv_err = NKT_EAGAIN;
    return err;
}

static int fake_send(nkt_udp_link *link, const nkt_datagram *list, int count) {
    (void)link, (void)list;
    if (fake.send_err < 0) return fake.send_err;
    fake.sent += count;
    return count;
}

static void fake_close(nkt_udp_link *link) {
    (void)link;
}

static const nkt_datagram_transport fake_transport = {
    sizeof(nkt_datagram_transport), "fake", fake_recv, fake_send, NULL, fake_close, NULL, NULL,
    NULL,
};

static void links_that_fail(void) {
    TEST("a datagram that cannot leave is lost, and the next call is told") {
        nkt_udp_opts opts;
        nkt_udp *udp;
        char in[8];
        nkt_impair_stats stats;
        nkt_impairment bad = slow();
        memset(&fake, 0, sizeof fake);
        begin(true);
        opts = udp_opts();
        bad.latency_ms = 0;
        bad.corrupt = 1e-9;
        fake.send_err = NKT_ENETUNREACH;
        fake.recv_err = NKT_EAGAIN;
        CHECK_INT(nkt_udp_open_custom(&fake_transport, NULL, &opts, &udp), NKT_OK);
        CHECK_INT(nkt_udp_impair(udp, &bad), NKT_OK);
        CHECK_INT(nkt_udp_send(udp, "x", 1, NULL), 1);
        CHECK_INT(nkt_udp_send(udp, "x", 1, NULL), NKT_ENETUNREACH);
        fake.send_err = NKT_EAGAIN;
        // A full link: 256 KiB wait for it, and then the sender does.
        int taken = 0;
        static char block[60000];
        while (taken < 20 && nkt_udp_send(udp, block, sizeof block, NULL) > 0) taken++;
        CHECK_RANGE(taken, 4, 6);
        CHECK_INT(nkt_udp_send(udp, block, sizeof block, NULL), NKT_EAGAIN);
        fake.send_err = 0;
        CHECK_INT(nkt_udp_send(udp, "y", 1, NULL), 1);
        CHECK_INT(fake.sent, taken + 1);
        CHECK_INT(nkt_udp_impair_stats(udp, NKT_WRITE, &stats), NKT_OK);
        CHECK_INT(stats.lost, 1);
        CHECK_INT(stats.delivered, taken + 1);
        fake.recv_err = NKT_EREFUSED;
        CHECK_INT(nkt_udp_recv(udp, in, sizeof in, NULL), NKT_EREFUSED);
        CHECK_INT(nkt_udp_recv(udp, in, sizeof in, NULL), NKT_EAGAIN);
        nkt_udp_close(udp);
        end();
    }
    TEST("datagrams that were fetched and not read yet") {
        nkt_udp_opts opts;
        nkt_udp *a, *b;
        nkt_datagram list[1];
        nkt_impairment bad = slow();
        begin(true);
        opts = udp_opts();
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &a, &b), NKT_OK);
        for (int i = 0; i < 3; i++) CHECK_INT(nkt_udp_send(a, "abc", 3, NULL), 3);
        CHECK_INT(nkt_udp_recv_many(b, list, 1), 1);
        // One was asked for, and one was fetched: nothing is held.
        CHECK_INT(nkt_udp_impair_ways(b, NULL, &bad), NKT_OK);
        char in[2];
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), NKT_EAGAIN);
        nkt_sleep(&env, 1);
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), NKT_ETRUNCATED);
        nkt_udp_close(a);
        nkt_udp_close(b);
        end();
    }
}

static void resets(void) {
    TEST("a reset is seen by the peer, over TCP") {
        char target[NKT_ADDR_TEXT_MAX], in[8];
        nkt_conn *client, *server = NULL;
        nkt_interest interest;
        nkt_impairment bad = slow();
        begin(false);
        nkt_listener *listener = listening(target, sizeof target);
        client = connected(target);
        int err;
        do {
            err = nkt_accept(listener, &server);
        } while (err == NKT_EAGAIN);
        CHECK_INT(err, NKT_OK);
        bad.cut = NKT_CUT_RESET;
        bad.cut_bytes = 2;
        CHECK_INT(nkt_conn_impair_ways(server, &bad, NULL), NKT_OK);
        CHECK_INT(nkt_conn_write(server, "abc", 3), NKT_ERESET);
        CHECK_INT(nkt_conn_written(server), 2);
        CHECK_INT(nkt_conn_flush(server), NKT_ERESET);
        CHECK_INT(nkt_conn_read(server, in, sizeof in), NKT_ERESET);
        CHECK_INT(nkt_conn_watch(server, NKT_READ, &interest), NKT_OK);
        CHECK(interest.ready);
        CHECK_INT(nkt_conn_watch(server, NKT_WRITE, &interest), NKT_OK);
        CHECK(interest.ready);
        nkt_conn_close(server);
        ptrdiff_t got;
        do {
            got = nkt_conn_read(client, in, sizeof in);
        } while (got > 0);
        CHECK_INT(got, after_reset());
        nkt_conn_close(client);
        nkt_listener_close(listener);
        end();
    }
    TEST("who waits to write hears of a cut") {
        nkt_conn_opts opts;
        nkt_conn *a, *b;
        nkt_interest interest;
        nkt_impairment bad = slow();
        begin(true);
        opts = conn_opts();
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        bad.cut = NKT_CUT_END;
        bad.cut_ms = 5;
        CHECK_INT(nkt_conn_impair_ways(a, &bad, NULL), NKT_OK);
        CHECK_INT(nkt_conn_watch(a, NKT_WRITE, &interest), NKT_OK);
        nkt_sleep(&env, 5);
        CHECK_INT(nkt_conn_watch(a, NKT_WRITE, &interest), NKT_OK);
        CHECK(interest.ready);
        CHECK_INT(nkt_conn_write(a, "x", 1), NKT_EPIPE);
        nkt_conn_abort(a);
        nkt_conn_abort(b);
        end();
    }
}

static void early_ones(void) {
    TEST("impaired while it is still connecting") {
        char target[NKT_ADDR_TEXT_MAX], in[8];
        nkt_connect_opts opts;
        nkt_poller_opts poller_opts;
        nkt_poller *poller;
        nkt_event event;
        nkt_conn *client = NULL, *server = NULL;
        nkt_impairment bad = slow();
        memset(&opts, 0, sizeof opts);
        memset(&poller_opts, 0, sizeof poller_opts);
        begin(false);
        opts.env = poller_opts.env = &env;
        opts.nonblocking = true;
        nkt_listener *listener = listening(target, sizeof target);
        CHECK_INT(nkt_connect(target, &opts, &client), NKT_OK);
        CHECK_INT(nkt_conn_impair(client, &bad), NKT_OK);
        CHECK_INT(nkt_conn_write(client, "early", 5), NKT_OK);
        CHECK_INT(nkt_poller_open(&poller_opts, &poller), NKT_OK);
        CHECK_INT(nkt_poller_add_conn(poller, client, NULL), NKT_OK);
        ptrdiff_t got = NKT_EAGAIN;
        for (int i = 0; i < 1000 && got == NKT_EAGAIN; i++) {
            nkt_poller_wait(poller, 10);
            while (nkt_poller_next(poller, &event) == NKT_OK) continue;
            if (server == NULL) nkt_accept(listener, &server);
            if (server != NULL) got = nkt_conn_read(server, in, sizeof in);
        }
        CHECK_INT(got, 5);
        CHECK_MEM(in, 5, "early", 5);
        nkt_conn_close(client);
        nkt_conn_close(server);
        nkt_listener_close(listener);
        nkt_poller_close(poller);
        end();
    }
}

//------------------------------------------------------------------------------
// Threads
//------------------------------------------------------------------------------

static int no_thread(nkt_env *e, void (*run)(void *arg), void *arg) {
    (void)e, (void)run, (void)arg;
    return NKT_ENOMEM;
}

static void without_threads(void) {
    TEST("no thread can be had: calls move what is under way, and closing drops it") {
        static const nkt_sys_threads none = { sizeof(nkt_sys_threads), no_thread };
        nkt_udp_opts opts;
        nkt_udp *a, *b;
        char in[8];
        nkt_impairment bad = slow();
        begin(true);
        env.threads = &none;
        opts = udp_opts();
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &a, &b), NKT_OK);
        CHECK_INT(nkt_udp_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_udp_send(a, "one", 3, NULL), 3);
        nkt_sleep(&env, 1);
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), NKT_EAGAIN);
        CHECK_INT(nkt_udp_send(a, "two", 3, NULL), 3);
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), 3);
        CHECK_MEM(in, 3, "one", 3);
        nkt_udp_close(a);
        nkt_sleep(&env, 10);
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), NKT_EAGAIN);
        nkt_udp_close(b);
        end();
    }
    TEST("who is not under the clock cannot wait by it") {
        begin(true);
        CHECK_INT(nkt_virtual_leave(&env), NKT_OK);
        CHECK_INT(nkt_sleep(&env, 5), NKT_EINVAL);
        CHECK_INT(nkt_virtual_leave(&env), NKT_EINVAL);
        CHECK_INT(nkt_virtual_join(&env), NKT_OK);
        CHECK_INT(nkt_sleep(&env, 5), NKT_OK);
        CHECK_INT(nkt_now_ns(&env), 5 * MS);
        end();
    }
    TEST("a thousand pollers at most") {
        enum { MOST = 1024 };
        static nkt_poller *pollers[MOST + 1];
        nkt_poller_opts opts;
        int count = 0, err = NKT_OK;
        memset(&opts, 0, sizeof opts);
        begin(true);
        opts.env = &env;
        while (count <= MOST && (err = nkt_poller_open(&opts, &pollers[count])) >= 0) count++;
        CHECK_INT(err, NKT_EMFILE);
        CHECK_INT(count, MOST);
        while (count > 0) nkt_poller_close(pollers[--count]);
        end();
    }
}

int main(void) {
    without_memory();
    items_without_memory();
    bytes_without_memory();
    listeners_without_memory();
    slow_listeners();
    links_that_fail();
    resets();
    early_ones();
    without_threads();
    return test_finish();
}
