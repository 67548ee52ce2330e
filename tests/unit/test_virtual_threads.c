// test_virtual_threads.c - blocking calls on a clock that jumps
//
// The threads run one at a time, in the order in which they came, so that even
// what they write to the same log is always the same.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

#define MS INT64_C(1000000)

static nkt_env env;

static int64_t now_ms(void) {
    return nkt_now_ns(&env) / MS;
}

static void begin(void) {
    CHECK_INT(nkt_env_init_virtual(&env, 11), NKT_OK);
}

static nkt_udp_opts udp_opts(void) {
    nkt_udp_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    return opts;
}

static nkt_conn_opts conn_opts(void) {
    nkt_conn_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    return opts;
}

static struct {
    nkt_conn *conn;
    nkt_udp *udp;
    char log[400];
    int number;
    bool over;
} shared;

static void note(const char *who) {
    size_t len = strlen(shared.log);
    snprintf(shared.log + len, sizeof shared.log - len, "%s@%d ", who, (int)now_ms());
}

static void echo_lines(void *arg) {
    nkt_str line;
    (void)arg;
    while (nkt_conn_read_line(shared.conn, &line) == NKT_OK) {
        char text[40];
        note("server");
        nkt_sleep(&env, 30);
        snprintf(text, sizeof text, "%.*s!\n", (int)line.len, line.ptr);
        nkt_conn_write_str(shared.conn, text);
    }
    nkt_conn_close(shared.conn);
}

static void sleeper(void *arg) {
    const char *who = (const char *)arg;
    for (int i = 0; i < 3; i++) {
        note(who);
        nkt_sleep(&env, who[0] == 'a' ? 20 : 30);
    }
}

static void waits_for_ever(void *arg) {
    char in[4];
    (void)arg;
    shared.number = (int)nkt_udp_recv(shared.udp, in, sizeof in, NULL);
    shared.over = true;
}

static void threads(void) {
    TEST("a blocking server in a thread, at 100 ms") {
        nkt_conn_opts opts;
        nkt_conn *client;
        nkt_impairment bad;
        nkt_str line;
        memset(&bad, 0, sizeof bad);
        memset(&shared, 0, sizeof shared);
        begin();
        opts = conn_opts();
        CHECK_INT(nkt_conn_pair(&opts, &opts, &client, &shared.conn), NKT_OK);
        bad.latency_ms = 100;
        bad.seed = 1;
        CHECK_INT(nkt_conn_impair(client, &bad), NKT_OK);
        CHECK_INT(nkt_thread_start(&env, echo_lines, NULL), NKT_OK);
        for (int i = 1; i <= 3; i++) {
            CHECK_INT(nkt_conn_write_str(client, "hi\n"), NKT_OK);
            CHECK_INT(nkt_conn_read_line(client, &line), NKT_OK);
            CHECK_VIEW(line, "hi!");
            CHECK_INT(now_ms(), i * 230);
        }
        nkt_conn_close(client);
        CHECK_STR(shared.log, "server@100 server@330 server@560 ");
        nkt_sleep(&env, 200);
        nkt_env_free(&env);
    }
    TEST("one at a time, in the order of coming") {
        memset(&shared, 0, sizeof shared);
        begin();
        CHECK_INT(nkt_thread_start(&env, sleeper, (void *)(uintptr_t)"a"), NKT_OK);
        CHECK_INT(nkt_thread_start(&env, sleeper, (void *)(uintptr_t)"b"), NKT_OK);
        CHECK_STR(shared.log, "");      // they have not had a turn
        nkt_sleep(&env, 1000);
        CHECK_STR(shared.log, "a@0 b@0 a@20 b@30 a@40 b@60 ");
        nkt_env_free(&env);
    }
    TEST("a deadlock is told to one, and the others go on") {
        nkt_udp_opts opts;
        nkt_udp *mine;
        char in[4];
        memset(&shared, 0, sizeof shared);
        begin();
        opts = udp_opts();
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &mine, &shared.udp), NKT_OK);
        CHECK_INT(nkt_thread_start(&env, waits_for_ever, NULL), NKT_OK);
        CHECK_INT(nkt_udp_recv(mine, in, sizeof in, NULL), NKT_EDEADLK);
        CHECK(!shared.over || shared.number == NKT_EDEADLK);
        CHECK_INT(nkt_udp_send(mine, "x", 1, NULL), 1);
        nkt_sleep(&env, 1);
        CHECK(shared.over);
        nkt_udp_close(mine);
        nkt_udp_close(shared.udp);
        nkt_env_free(&env);
    }
    TEST("a thread that leaves does not hold time up") {
        memset(&shared, 0, sizeof shared);
        begin();
        CHECK_INT(nkt_thread_start(&env, sleeper, (void *)(uintptr_t)"a"), NKT_OK);
        CHECK_INT(nkt_virtual_leave(&env), NKT_OK);
        // Here something else than netkit is waited for.
        CHECK_INT(nkt_virtual_join(&env), NKT_OK);
        nkt_sleep(&env, 1000);
        CHECK(now_ms() >= 1000 && now_ms() <= 1060);
        CHECK(strstr(shared.log, "a@40") != NULL);
        nkt_env_free(&env);
    }
}

static nkt_impairment slow(void) {
    nkt_impairment bad;
    memset(&bad, 0, sizeof bad);
    bad.seed = 5;
    return bad;
}

static uint8_t scratch[4096];

static void lingering(void) {
    TEST("what is under way arrives after the close, in virtual time") {
        nkt_conn_opts opts = conn_opts();
        nkt_conn *a, *b;
        nkt_str line;
        nkt_impairment bad = slow();
        bad.latency_ms = 5000;
        begin();
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_conn_write_str(a, "good-bye\n"), NKT_OK);
        nkt_conn_close(a);
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_OK);
        CHECK_VIEW(line, "good-bye");
        CHECK_INT(now_ms(), 5000);
        CHECK_INT(nkt_conn_read_line(b, &line), NKT_EOF);
        nkt_conn_close(b);
        nkt_env_free(&env);
    }
    TEST("datagrams, too, and a blocking sender need not call again") {
        nkt_udp_opts opts = udp_opts();
        nkt_udp *a, *b;
        char in[8];
        nkt_impairment bad = slow();
        begin();
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &a, &b), NKT_OK);
        bad.latency_ms = 1234;
        CHECK_INT(nkt_udp_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_udp_send_str(a, "one", NULL), 3);
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), 3);
        CHECK_INT(now_ms(), 1234);
        CHECK_INT(nkt_udp_send_str(a, "two", NULL), 3);
        nkt_udp_close(a);
        CHECK_INT(nkt_udp_recv(b, in, sizeof in, NULL), 3);
        CHECK_MEM(in, 3, "two", 3);
        CHECK_INT(now_ms(), 2468);
        nkt_udp_close(b);
        nkt_env_free(&env);
    }
    TEST("at most 60 s") {
        nkt_conn_opts opts = conn_opts();
        nkt_conn *a, *b;
        nkt_impairment bad = slow();
        bad.latency_ms = 100000;
        begin();
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_conn_write_str(a, "too late\n"), NKT_OK);
        nkt_conn_close(a);
        CHECK_INT(nkt_conn_read(b, scratch, 10), NKT_EOF);
        CHECK_INT(now_ms(), 60000);
        nkt_conn_close(b);
        nkt_env_free(&env);
    }
}

static void given_up(void) {
    TEST("the environment is given back before") {
        nkt_udp_opts opts = udp_opts();
        nkt_udp *a, *b;
        nkt_impairment bad = slow();
        CHECK_INT(nkt_env_init(&env), NKT_OK);
        CHECK_INT(nkt_udp_pair(&opts, &opts, 0, &a, &b), NKT_OK);
        bad.latency_ms = 3000000;
        CHECK_INT(nkt_udp_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_udp_send_str(a, "never", NULL), 5);
        nkt_udp_close(b);
        nkt_udp_close(a);
        nkt_env_free(&env);
    }
    TEST("an abort drops it") {
        nkt_conn_opts opts = conn_opts();
        nkt_conn *a, *b;
        nkt_impairment bad = slow();
        bad.latency_ms = 50;
        begin();
        CHECK_INT(nkt_conn_pair(&opts, &opts, &a, &b), NKT_OK);
        CHECK_INT(nkt_conn_impair(a, &bad), NKT_OK);
        CHECK_INT(nkt_conn_write_str(a, "gone\n"), NKT_OK);
        nkt_conn_abort(a);
        CHECK_INT(nkt_conn_read(b, scratch, 10), NKT_ERESET);
        CHECK_INT(now_ms(), 0);
        nkt_conn_close(b);
        nkt_env_free(&env);
    }
}

static void over_tcp(void) {
    TEST("what is under way arrives after the close, over TCP") {
        nkt_listener *listener;
        nkt_conn *client, *server;
        nkt_addr addr;
        nkt_str line;
        char target[NKT_ADDR_TEXT_MAX];
        nkt_impairment bad = slow();
        bad.latency_ms = 20;
        CHECK_INT(nkt_listen("127.0.0.1:0", NULL, &listener), NKT_OK);
        CHECK_INT(nkt_listener_local(listener, &addr), NKT_OK);
        CHECK(nkt_addr_format(&addr, target, sizeof target) > 0);
        CHECK_INT(nkt_connect(target, NULL, &client), NKT_OK);
        CHECK_INT(nkt_accept(listener, &server), NKT_OK);
        CHECK_INT(nkt_conn_impair(client, &bad), NKT_OK);
        CHECK_INT(nkt_conn_write_str(client, "last\n"), NKT_OK);
        nkt_conn_close(client);
        CHECK_INT(nkt_conn_read_line(server, &line), NKT_OK);
        CHECK_VIEW(line, "last");
        CHECK_INT(nkt_conn_read_line(server, &line), NKT_EOF);
        nkt_conn_close(server);
        nkt_listener_close(listener);
    }
}

int main(void) {
    threads();
    lingering();
    given_up();
    over_tcp();
    return test_finish();
}
