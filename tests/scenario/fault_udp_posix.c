// fault_udp_posix.c - the datagram table on a system where every call fails in turn
//
// See fault.h for what is done and what must hold. A table of its own has rows
// for what no row of the datagram table calls.
//
//     fault_udp_posix                     a sample: some rows
//     fault_udp_posix with -DFAULT_ALL    every row

#define NETKIT_IMPLEMENTATION
#define SCENE_THRIFT 32
#define PROBE_FILL_MAX 4096
#include "netkit.h"

#include "udp_table.h"
#include "fault.h"

static scene tested;            // of the run under way

//------------------------------------------------------------------------------
// Rows of its own. Groups are joined on an interface that only we know of.

static int own_list(nkt_env *env, nkt_sys_iface *list, int cap) {
    (void)env;
    if (cap < 1) return 1;
    memset(&list[0], 0, sizeof list[0]);
    list[0].index = 1;
    list[0].ip = nkt_ip_loopback(NKT_IPV4);
    list[0].bits = 8;
    list[0].flags = NKT_IFACE_UP | NKT_IFACE_LOOPBACK | NKT_IFACE_MULTICAST;
    return 1;
}

static int own_member(nkt_env *env, nkt_fd fd, const nkt_ip *group, const nkt_ip *source,
                      uint32_t index, const nkt_ip *local, bool join) {
    (void)env, (void)fd, (void)group, (void)source, (void)local, (void)join;
    return index == 1 ? NKT_OK : NKT_ENODEV;
}

static nkt_sys_net own_net;

static void check_joined(scene *s, int want) {
    nkt_udp_info info;
    CHECK_INT(nkt_udp_get_info(s->a, &info), NKT_OK);
    CHECK_INT(info.joined, want);
}

// Twice, so that what failed once is made good.
static void row_group(scene *s) {
    for (int i = 0; i < 2; i++) {
        int joined;
        do {
            joined = nkt_udp_join(s->a, "239.255.77.77", NULL);
        } while (scene_again(s, joined));
        if (!CHECK_INT(joined, 1)) return;
    }
    check_joined(s, 1);
    CHECK_INT(nkt_udp_leave(s->a, "239.255.77.77", NULL), NKT_OK);
    check_joined(s, 0);
    row_one(s);
}

static void row_bound_to_interface(scene *s) {
    nkt_udp *bound = NULL;
    nkt_udp_opts opts;
    nkt_addr to;
    scene_opts(s, &opts, true);
#ifdef __linux__
    opts.interface_name = "lo";
#else
    opts.interface_name = "lo0";
#endif
    if (!CHECK_INT(nkt_udp_open("127.0.0.1:0", &opts, &bound), NKT_OK)) return;
    if (CHECK_INT(nkt_udp_local(bound, &to), NKT_OK)) {
        CHECK_INT(peer_send(s, "hello", 5, &to), 5);
    }
    nkt_udp_close(bound);
}

static void row_options(scene *s) {
    int64_t value = 0;
    int err = nkt_udp_get_option(s->a, NKT_UDP_PATH_MTU, &value);
    if (CHECK_INT(err, NKT_OK)) CHECK_RANGE(value, 1280, 65536);
    CHECK_INT(nkt_udp_set_option(s->a, NKT_UDP_RECV_BUFFER, 65536), NKT_OK);
    CHECK_INT(nkt_udp_get_option(s->a, NKT_UDP_RECV_BUFFER, &value), NKT_OK);
    CHECK_RANGE(value, 65536, 2 * 65536);
    row_one(s);
}

static const row own_rows[] = {
    {"a group", row_group, SYSTEM},
    {"bound to an interface", row_bound_to_interface, SYSTEM},
    {"options of the socket", row_options, SYSTEM | SOMEBODY},
};

#define OWN_COUNT (sizeof own_rows / sizeof own_rows[0])
typedef char own_rows_fit[OWN_COUNT <= OWN_MAX ? 1 : -1];

//------------------------------------------------------------------------------
// Tasks

static bool task_calls(int entry) {
    static const int never[] = {
        // Of streams.
        F_listen, F_accept, F_connect_result, F_recv, F_recv_wait, F_send, F_shutdown,
        F_tcp_info, F_set_blocking, F_unlink, F_random,
    };
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        if (never[i] == entry) return false;
    }
    return true;
}

static void env_made(scene *s) {
    own_net = *nkt_sys_net_default();
    own_net.list = own_list;
    s->p.env.net = &own_net;
    s->sys.member = own_member;
    fault_env(&s->p.env, tasks[fault.task].f->portable ? nkt_sys_poll_portable()
                                                       : nkt_sys_poll_default());
    fault_env_udp(&s->p.env);
}

static void task_run(int i) {
    static face real;
    real = *tasks[i].f;
    real.portable = false;          // its backend stands behind our table
    scene_init(&tested, &real);
    fault.on = scene_tested = true;
    if (scene_open(&tested)) tasks[i].r->run(&tested);
    scene_close(&tested);
    fault.on = scene_tested = false;
    probe_close(&tested.p);
}

// The handle takes other calls after a failure, and none of them waits long;
// everybody who waits for more is let go.
static void task_break(void) {
    scene *s = &tested;
    nkt_datagram one;
    char own[64];
    if (s->a != NULL) {
        nkt_udp_set_option(s->a, NKT_UDP_RECV_TIMEOUT_MS, 1);
        nkt_udp_set_option(s->a, NKT_UDP_SEND_TIMEOUT_MS, 1);
        nkt_udp_recv(s->a, own, sizeof own, NULL);
        nkt_udp_recv_many(s->a, &one, 1);
        nkt_udp_send(s->a, "x", 1, s->face->pair || s->face->connected ? NULL : &s->to_b);
        if (s->poller != NULL) nkt_poller_wait(s->poller, 0);
        nkt_udp_interrupt(s->a);
    }
    if (s->b != NULL && !s->peer_leaves) nkt_udp_interrupt(s->b);
}

//------------------------------------------------------------------------------
// What explains a check that fails, besides the failure's own code

static bool is_number_0(int kind, long long got) {
    return kind == TEST_NUMBER && got == 0;
}

static bool is_not_connected(int kind, long long got) {
    return kind == TEST_NUMBER && got == NKT_ENOTCONN;
}

static bool is_no_second_signal(int kind, long long got) {
    return kind == TEST_NUMBER && (got == NKT_ETIMEDOUT || got == NKT_EAGAIN) &&
           tasks[fault.task].r->run == row_signal;
}

static const excuse_row excuses[] = {
    // Its contract: 0 is how a poller tells of a signal.
    {"a poller's wait that a signal ended has no event", F_poll_wait, NKT_EINTR, is_number_0},
    // Whatever the reason is, there is no name: nkt_udp_local.
    {"no local address", F_local_name, 0, is_not_connected},
    // The handle has received again by itself; the row's signal is then taken
    // for the failure, and no other comes when the call is made again.
    {"one signal, taken for the failure", F_udp_recv, NKT_EINTR, is_no_second_signal},
};

#define EXCUSE_COUNT (sizeof excuses / sizeof excuses[0])

static int excuse(int kind, long long got) {
    return fault_excuse(excuses, EXCUSE_COUNT, kind, got);
}

static void task_prepare(void) {
    scene_hooks.env = env_made;
    scene_hooks.again = fault_again;
    nkt_test.excuse = excuse;
}

//------------------------------------------------------------------------------
// Which rows and faces

static int plan(void) {
    static const char *const sample[] = {"one there, one back", "a list partly taken"};
    int count = 0;
    nkt_udp *probe6 = NULL;
    has_ipv6 = nkt_udp_open("[::1]:0", NULL, &probe6) >= 0;
    nkt_udp_close(probe6);
    // The slow ones first, so that they end beside the others.
    for (int slow = 1; slow >= 0; slow--) {
        for (size_t i = 0; i < (ROW_COUNT + OWN_COUNT) * FACE_COUNT; i++) {
            size_t at = i / FACE_COUNT;
            const row *r = at < ROW_COUNT ? &rows[at] : &own_rows[at - ROW_COUNT];
            tasks[count].r = r;
            tasks[count].f = &faces[i % FACE_COUNT];
            if (((r->needs & SLOW) != 0) != (slow != 0)) continue;
            if (why_not(r, tasks[count].f) != NULL) continue;
            if (fault_is_wanted(count, r->name, sample, sizeof sample / sizeof sample[0])) count++;
        }
    }
    return count;
}

int main(void) {
    return fault_main(plan(), excuses, EXCUSE_COUNT);
}
