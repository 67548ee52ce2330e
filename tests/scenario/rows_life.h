// rows_life.h - scenario rows about interrupting, signals and the handle itself

#ifndef NKT_TEST_ROWS_LIFE_H
#define NKT_TEST_ROWS_LIFE_H

#include "rows_read.h"
#include "rows_write.h"

//------------------------------------------------------------------------------
// Interrupting.

static void row_interrupt_reading(scene *s) {
    interrupter later = {0};
    char buf[8];
    nkt_str line;
    s->frame_ms = 20;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\nha");
    CHECK_LINE(s, "one");
    later.conn = s->a;
    later.before_ms = 20;
    if (!actor_start(&later.base, interrupter_run)) return;
    CHECK_INT(whole_line(s, &line), NKT_ECANCELED);
    actor_join(&later.base);
    CHECK_INT(whole_line(s, &line), NKT_ECANCELED);
    CHECK_INT(whole_read(s, buf, sizeof buf), 2);
    CHECK_MEM(buf, 2, "ha", 2);
    CHECK_END(s, NKT_ECANCELED);
}

// With a time-out the wait is another one.
static void row_interrupt_timed_read(scene *s) {
    interrupter later = {0};
    nkt_str line;
    s->frame_ms = 20;
    s->stream.read_timeout_ms = 5000;
    if (!scene_open(s)) return;
    later.conn = s->a;
    later.before_ms = 20;
    int64_t start = nkt_now_ns(scene_clock);
    if (!actor_start(&later.base, interrupter_run)) return;
    CHECK_INT(whole_line(s, &line), NKT_ECANCELED);
    CHECK_RANGE((nkt_now_ns(scene_clock) - start) / 1000000, 0, 4000);
    actor_join(&later.base);
}

static void row_interrupt_writing(scene *s) {
    interrupter later = {0};
    char *all = (char *)malloc(WRITE_ENOUGH);
    int err = NKT_OK;
    s->frame_ms = 20;
    s->small_buffers = true;
    if (scene_open(s) && CHECK(all != NULL)) {
        later.conn = s->a;
        later.before_ms = 20;
        memset(all, 'w', WRITE_ENOUGH);
        if (s->face->nonblocking) fill_queue(s, all, &err);
        if (actor_start(&later.base, interrupter_run)) {
            if (s->face->nonblocking) err = whole_flush(s);
            else err = nkt_conn_write(s->a, all, WRITE_ENOUGH);
            CHECK_INT(err, NKT_ECANCELED);
            actor_join(&later.base);
        }
        CHECK_INT(whole_flush(s), NKT_ECANCELED);
        CHECK_INT(whole_say(s, "x"), NKT_ECANCELED);
    }
    free(all);
}

static void row_interrupt_before(scene *s) {
    nkt_str view;
    char byte;
    if (!scene_open(s)) return;
    nkt_conn_interrupt(s->a);
    nkt_conn_interrupt(s->a);
    CHECK_END(s, NKT_ECANCELED);
    CHECK_INT(whole_exact(s, &byte, 1), NKT_ECANCELED);
    CHECK_INT(whole_peek(s, 1, &view), NKT_ECANCELED);
    CHECK_INT(whole_skip(s, 1), NKT_ECANCELED);
    CHECK_INT(whole_message(s, &view), NKT_ECANCELED);
}

static void row_interrupt_keeps_lines(scene *s) {
    nkt_str line;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\ntwo\nthree");
    CHECK_ARRIVED(s, 13);
    nkt_conn_interrupt(s->a);
    CHECK_LINE(s, "one");
    CHECK_LINE(s, "two");
    CHECK_INT(whole_line(s, &line), NKT_ECANCELED);
    CHECK_BYTES(s, "three");
    CHECK_END(s, NKT_ECANCELED);
}

//------------------------------------------------------------------------------
// Signals. The handler does nothing: that it ran is what must end the wait.

#ifndef _WIN32

static volatile sig_atomic_t signal_count;

static void signal_handler(int number) {
    (void)number;
    signal_count = signal_count + 1;
}

static void signals_start(int flags) {
    struct sigaction action;
    struct itimerval every;
    memset(&action, 0, sizeof action);
    action.sa_handler = signal_handler;
    action.sa_flags = flags;
    sigaction(SIGALRM, &action, NULL);
    memset(&every, 0, sizeof every);
    // Again and again, so that one which comes before the wait does no harm.
    every.it_value.tv_usec = every.it_interval.tv_usec = 10000;
    signal_count = 0;
    setitimer(ITIMER_REAL, &every, NULL);
}

static void signals_stop(void) {
    struct itimerval never;
    memset(&never, 0, sizeof never);
    setitimer(ITIMER_REAL, &never, NULL);
}

static void signal_while_reading(scene *s, int flags) {
    nkt_str line;
    s->signals = true;
    if (!scene_open(s)) return;
    peer_say(&s->b, "ab");
    CHECK_ARRIVED(s, 2);
    signals_start(flags);
    CHECK_INT(whole_line(s, &line), NKT_EINTR);
    CHECK(signal_count > 0);
    CHECK_INT(whole_line(s, &line), NKT_EINTR);
    signals_stop();
    peer_say(&s->b, "cd\nnext\n");
    CHECK_LINE(s, "abcd");
    CHECK_LINE(s, "next");
}

static void row_signal(scene *s) {
    signal_while_reading(s, 0);
}

static void row_signal_restart(scene *s) {
    signal_while_reading(s, SA_RESTART);
}

static void row_signal_timed(scene *s) {
    s->stream.read_timeout_ms = 10000;
    signal_while_reading(s, SA_RESTART);
}

static void row_signal_writing(scene *s) {
    char *all = (char *)malloc(WRITE_ENOUGH);
    receiver late = {0};
    size_t written = 0, total = WRITE_ENOUGH;
    int err = NKT_OK;
    s->signals = true;
    s->small_buffers = true;
    if (scene_open(s) && CHECK(all != NULL)) {
        if (s->face->nonblocking) total = fill_queue(s, all, &err);
        else pattern_fill(all, 0, total);
        signals_start(SA_RESTART);
        if (s->face->nonblocking) {
            CHECK_INT(whole_flush(s), NKT_EINTR);
        } else {
            CHECK_INT(nkt_conn_write(s->a, all, total), NKT_EINTR);
            written = nkt_conn_written(s->a);
            CHECK_RANGE(written, 1, total - 1);
        }
        signals_stop();
        CHECK(signal_count > 0);
        receiver_start(&late, &s->b);
        if (!s->face->nonblocking) {
            CHECK_INT(nkt_conn_write(s->a, all + written, total - written), NKT_OK);
        }
        CHECK_INT(whole_flush(s), NKT_OK);
        CHECK_INT(whole_shutdown_write(s), NKT_OK);
        actor_join(&late.base);
        CHECK_INT(late.received, total);
        CHECK(!late.wrong);
    }
    free(all);
}

#else

static void row_signal(scene *s) { (void)s; }
static void row_signal_restart(scene *s) { (void)s; }
static void row_signal_timed(scene *s) { (void)s; }
static void row_signal_writing(scene *s) { (void)s; }

#endif

//------------------------------------------------------------------------------
// Pausing.

static void row_pause(scene *s) {
    nkt_event event;
    nkt_str line;
    if (!scene_open(s)) return;
    CHECK_INT(nkt_conn_read_line(s->a, &line), NKT_EAGAIN);
    CHECK_INT(nkt_poller_want(s->poller, s->a, 0), NKT_OK);
    peer_say(&s->b, "one\ntwo\n");
    CHECK_INT(nkt_poller_wait(s->poller, 30), 0);
    CHECK_INT(nkt_poller_next(s->poller, &event), NKT_EAGAIN);
    CHECK_INT(nkt_poller_want(s->poller, s->a, NKT_READ | NKT_WRITE), NKT_OK);
    s->seen = 0;
    // A wait that a signal has ended has seen nothing.
    do {
        if (!CHECK_INT(scene_wait(s, NKT_READ), NKT_OK)) return;
    } while (s->seen == 0);
    CHECK((s->seen & NKT_READ) != 0);
    CHECK_LINE(s, "one");
    // Now a line is in the buffer, and nothing in the system.
    CHECK_INT(nkt_poller_want(s->poller, s->a, 0), NKT_OK);
    CHECK_INT(nkt_poller_wait(s->poller, 0), 0);
    CHECK_INT(nkt_poller_want(s->poller, s->a, NKT_READ), NKT_OK);
    CHECK_INT(nkt_poller_wait(s->poller, 1000), 1);
    CHECK_LINE(s, "two");
}

// A hang-up is no event while paused, nor is a time-out; both come after.
static void row_pause_at_end(scene *s) {
    nkt_str line;
    s->stream.read_timeout_ms = ROW_TIMEOUT_MS;
    if (!scene_open(s)) return;
    CHECK_INT(nkt_conn_read_line(s->a, &line), NKT_EAGAIN);
    CHECK_INT(nkt_poller_want(s->poller, s->a, 0), NKT_OK);
    CHECK_INT(nkt_poller_wait(s->poller, 2 * ROW_TIMEOUT_MS), 0);
    CHECK_INT(nkt_poller_want(s->poller, s->a, NKT_READ | NKT_WRITE), NKT_OK);
    CHECK_INT(nkt_poller_wait(s->poller, 1000), 1);
    CHECK_INT(nkt_conn_read_line(s->a, &line), NKT_ETIMEDOUT);
    CHECK_INT(nkt_conn_set_option(s->a, NKT_OPT_READ_TIMEOUT_MS, 0), NKT_OK);
    peer_say(&s->b, "one\nlast");
    peer_close(&s->b);
    CHECK_LINE(s, "one");
    CHECK_INT(nkt_poller_want(s->poller, s->a, 0), NKT_OK);
    CHECK_INT(nkt_poller_wait(s->poller, 30), 0);
    // Reading is allowed, only not reported; so it must not rely on a report.
    if (CHECK_INT(nkt_conn_read_line(s->a, &line), NKT_OK)) CHECK_VIEW(line, "last");
    CHECK_INT(nkt_poller_wait(s->poller, 0), 0);
    CHECK_INT(nkt_poller_want(s->poller, s->a, NKT_READ), NKT_OK);
    CHECK_INT(nkt_poller_wait(s->poller, 1000), 1);
    CHECK_END(s, NKT_EOF);
}

// Its queue is not sent while it is paused, and is afterwards.
static void row_pause_writing(scene *s) {
    char *piece = (char *)malloc(WRITE_PIECE);
    receiver late = {0};
    int err = NKT_OK;
    s->small_buffers = true;
    s->stream.queue_max = 65536;
    if (scene_open(s) && CHECK(piece != NULL)) {
        size_t at = fill_queue(s, piece, &err);
        CHECK_INT(err, NKT_EAGAIN);
        CHECK_INT(nkt_poller_want(s->poller, s->a, 0), NKT_OK);
        size_t queued = nkt_conn_queued(s->a);
        late.limit = at;
        receiver_start(&late, &s->b);
        CHECK_INT(nkt_poller_wait(s->poller, 30), 0);
        CHECK_INT(nkt_conn_queued(s->a), queued);
        CHECK_INT(nkt_poller_want(s->poller, s->a, NKT_WRITE), NKT_OK);
        // The poller alone drives it: no call is made on the connection. One
        // that has failed waits for nothing.
        nkt_event event;
        nkt_interest interest;
        memset(&interest, 0, sizeof interest);
        bool failed = false;
        while (nkt_conn_queued(s->a) > 0 && scene_left_ms(s) > 0 && !failed) {
            CHECK_INT(nkt_conn_watch(s->a, NKT_WRITE, &interest), NKT_OK);
            // A late network takes more at once: that is no news there.
            failed = interest.ready && s->face->carrier != CARRIER_PAIR &&
                     s->face->impaired != LATE;
            nkt_poller_wait(s->poller, 10);
            while (nkt_poller_next(s->poller, &event) == NKT_OK) {
            }
        }
        CHECK_INT(nkt_conn_queued(s->a), 0);
        scene_let_leave(s);
        actor_join(&late.base);
        CHECK_INT(late.received, at);
        CHECK(!late.wrong);
    }
    free(piece);
}

//------------------------------------------------------------------------------
// What the handle says of itself.

static void row_byte_counts(scene *s) {
    nkt_conn_info info;
    if (!scene_open(s)) return;
    memset(&info, 0xaa, sizeof info);
    CHECK_INT(nkt_conn_get_info(s->a, &info), NKT_OK);
    CHECK_INT(info.received, 0);
    CHECK_INT(info.sent, 0);
    CHECK_INT(info.buffered, 0);
    CHECK_INT(info.queued, 0);
    peer_say(&s->b, "one\ntwo\n");
    CHECK_ARRIVED(s, 8);
    CHECK_LINE(s, "one");
    CHECK_INT(whole_say(s, "12345"), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_INT(nkt_conn_get_info(s->a, &info), NKT_OK);
    CHECK_INT(info.received, 8);
    CHECK_INT(info.sent, 5);
    CHECK_INT(info.buffered, 4);
    CHECK_INT(info.queued, 0);
    CHECK_PEER(s, "12345");
    if (s->face->carrier != CARRIER_TCP) CHECK_INT(info.tcp.rtt_us, -1);
#ifdef __linux__
    else CHECK_RANGE(info.tcp.rtt_us, 0, 10e6);
#endif
}

static void row_addresses(scene *s) {
    char text[NKT_ADDR_TEXT_MAX], same[NKT_ADDR_TEXT_MAX];
    nkt_addr local, remote;
    unsigned char name[NKT_SOCKADDR_MAX];
    raw_len len = (raw_len)sizeof name;
    if (!scene_open(s)) return;
    if (s->face->carrier != CARRIER_TCP) {
        memset(&local, 0xaa, sizeof local);
        memset(&remote, 0xaa, sizeof remote);
        CHECK_INT(nkt_conn_local(s->a, &local), NKT_OK);
        CHECK_INT(nkt_conn_peer(s->a, &remote), NKT_OK);
        CHECK_INT(local.ip.family, 0);
        CHECK_INT(remote.ip.family, 0);
        CHECK_INT(nkt_conn_peer_name(s->a, text, sizeof text), 4);
        CHECK_STR(text, s->face->carrier == CARRIER_PAIR ? "pair" : "unix");
        return;
    }
    nkt_addr theirs;
    struct sockaddr *any = (struct sockaddr *)(void *)name;
    CHECK_INT(nkt_conn_local(s->a, &local), NKT_OK);
    CHECK_INT(nkt_conn_peer(s->a, &remote), NKT_OK);
    CHECK(nkt_ip_compare(&local.ip, &remote.ip) == 0);
    CHECK_INT(local.ip.family, NKT_IPV4);
    CHECK_INT(nkt_conn_peer_name(s->a, text, sizeof text),
              nkt_addr_format(&remote, same, sizeof same));
    CHECK_STR(text, same);
    CHECK_INT(nkt_conn_peer_name(s->a, text, 4), NKT_ENOSPACE);
    CHECK_INT(getsockname(s->b.fd, any, &len), 0);
    CHECK_INT(nkt_addr_from_sockaddr(name, (size_t)len, &theirs), NKT_OK);
    CHECK(nkt_addr_equal(&theirs, &remote));
    len = (raw_len)sizeof name;
    CHECK_INT(getpeername(s->b.fd, any, &len), 0);
    CHECK_INT(nkt_addr_from_sockaddr(name, (size_t)len, &theirs), NKT_OK);
    CHECK(nkt_addr_equal(&theirs, &local));
}

static void row_descriptor(scene *s) {
    if (!scene_open(s)) return;
    nkt_fd fd = nkt_conn_descriptor(s->a);
    if (s->face->carrier == CARRIER_PAIR) {
        CHECK_INT(fd, NKT_NO_FD);
        return;
    }
    unsigned char name[NKT_SOCKADDR_MAX];
    raw_len len = (raw_len)sizeof name;
    CHECK(fd != NKT_NO_FD);
    CHECK_INT(getsockname((raw_fd)fd, (struct sockaddr *)(void *)name, &len), 0);
    CHECK_INT(nkt_conn_os_error(s->a), 0);
}

static void row_os_error(scene *s) {
    nkt_str line;
    if (!scene_open(s)) return;
    CHECK_INT(nkt_conn_os_error(s->a), 0);
    scene_reset(s);
    CHECK_INT(whole_line(s, &line), NKT_ERESET);
#ifdef _WIN32
    CHECK_INT(nkt_conn_os_error(s->a), WSAECONNRESET);
#else
    CHECK_INT(nkt_conn_os_error(s->a), ECONNRESET);
#endif
}

static void row_options(scene *s) {
    static const struct { nkt_conn_option option; int64_t value; } settable[] = {
        {NKT_OPT_READ_TIMEOUT_MS, 1234}, {NKT_OPT_WRITE_TIMEOUT_MS, 4321},
        {NKT_OPT_LINE_MAX, 5}, {NKT_OPT_MESSAGE_MAX, 77}, {NKT_OPT_QUEUE_MAX, 100000},
        {NKT_OPT_CR_LINES, 1},
    };
    int64_t value;
    nkt_str line;
    if (!scene_open(s)) return;
    for (size_t i = 0; i < sizeof settable / sizeof settable[0]; i++) {
        value = -77;
        CHECK_INT(nkt_conn_set_option(s->a, settable[i].option, settable[i].value), NKT_OK);
        CHECK_INT(nkt_conn_get_option(s->a, settable[i].option, &value), NKT_OK);
        CHECK_INT(value, settable[i].value);
    }
    CHECK_INT(nkt_conn_get_option(s->a, NKT_OPT_NONBLOCKING, &value), NKT_OK);
    CHECK_INT(value, s->face->nonblocking);
    CHECK_INT(nkt_conn_set_option(s->a, NKT_OPT_NONBLOCKING, 1), NKT_EINVAL);
    CHECK_INT(nkt_conn_set_option(s->a, (nkt_conn_option)0, 1), NKT_EINVAL);
    CHECK_INT(nkt_conn_get_option(s->a, (nkt_conn_option)99, &value), NKT_EINVAL);
    CHECK_INT(nkt_conn_set_option(s->a, NKT_OPT_LINE_MAX, -1), NKT_EINVAL);
    CHECK_INT(nkt_conn_set_option(s->a, NKT_OPT_LINE_MAX, (int64_t)1 << 40), NKT_EINVAL);
    peer_say(&s->b, "a\rbcdefg\r");
    CHECK_LINE(s, "a");                                     // cr_lines holds from now on
    CHECK_INT(whole_line(s, &line), NKT_ETOOLONG);          // so does line_max
    CHECK_INT(nkt_conn_set_option(s->a, NKT_OPT_LINE_MAX, 6), NKT_OK);
    CHECK_LINE(s, "bcdefg");
}

// Linux doubles the size of a buffer.
static void socket_option(scene *s, nkt_conn_option option, int64_t want) {
    int64_t value = 0;
    CHECK_INT(nkt_conn_set_option(s->a, option, want), NKT_OK);
    CHECK_INT(nkt_conn_get_option(s->a, option, &value), NKT_OK);
    if (option == NKT_OPT_KEEPALIVE_S) CHECK_INT(value, want);
    else CHECK_RANGE(value, want, 2.0 * (double)want);
}

static void row_socket_options(scene *s) {
    static const nkt_conn_option options[] = {NKT_OPT_SEND_BUFFER, NKT_OPT_RECV_BUFFER,
                                              NKT_OPT_KEEPALIVE_S, NKT_OPT_DELAY_SMALL_WRITES};
    int64_t value = 0;
    if (!scene_open(s)) return;
    for (int i = 0; i < 4; i++) {
        if (s->face->carrier == CARRIER_PAIR) {
            CHECK_INT(nkt_conn_set_option(s->a, options[i], 1), NKT_EUNSUPPORTED);
            CHECK_INT(nkt_conn_get_option(s->a, options[i], &value), NKT_EUNSUPPORTED);
        } else if (i < 2) {
            socket_option(s, options[i], 32768);
        } else if (s->face->carrier == CARRIER_TCP) {
            socket_option(s, options[i], i == 2 ? 77 : 1);
        }
    }
    if (s->face->carrier == CARRIER_TCP) {
        CHECK_INT(nkt_conn_set_option(s->a, NKT_OPT_DELAY_SMALL_WRITES, 0), NKT_OK);
        CHECK_INT(nkt_conn_get_option(s->a, NKT_OPT_DELAY_SMALL_WRITES, &value), NKT_OK);
        CHECK_INT(value, 0);
    }
    CHECK_INT(whole_say(s, "x"), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_PEER(s, "x");
}

static void row_detach_and_adopt(scene *s) {
    nkt_fd fd = NKT_NO_FD;
    nkt_conn_opts opts;
    if (!scene_open(s)) return;
    peer_say(&s->b, "one\ntwo\n");
    CHECK_ARRIVED(s, 8);
    CHECK_LINE(s, "one");
    if (s->face->carrier == CARRIER_PAIR || s->face->rot13 || s->face->impaired != BARE) {
        CHECK_LINE(s, "two");
        CHECK_INT(nkt_conn_detach(s->a, &fd), NKT_EUNSUPPORTED);
        peer_say(&s->b, "still here\n");
        CHECK_LINE(s, "still here");
        return;
    }
    if (!CHECK_INT(nkt_conn_detach(s->a, &fd), NKT_EBUSY)) {    // a line is buffered
        if (fd == NKT_NO_FD) return;
        s->a = NULL;
        raw_close((raw_fd)fd);
        return;
    }
    CHECK_LINE(s, "two");
    scene_guard_watch(NULL);
    if (!CHECK_INT(nkt_conn_detach(s->a, &fd), NKT_OK)) return;
    s->a = NULL;
    CHECK_INT(raw_send((raw_fd)fd, "raw\n", 4), 4);
    CHECK_PEER(s, "raw\n");
    peer_say(&s->b, "answer\n");
    char got[8];
    CHECK_INT(raw_recv((raw_fd)fd, got, 7), 7);         // blocking again
    memset(&opts, 0, sizeof opts);
    opts.env = &s->env.env;
    opts.nonblocking = s->face->nonblocking;
    CHECK_INT(nkt_conn_adopt(NKT_NO_FD, &opts, &s->a), NKT_ENOTSOCK);
    if (!CHECK_INT(nkt_conn_adopt(fd, &opts, &s->a), NKT_OK)) {
        raw_close((raw_fd)fd);          // it is still ours
        return;
    }
    if (!scene_add(s)) return;
    scene_renew(s);
    scene_guard_watch(s);
    CHECK_INT(nkt_conn_descriptor(s->a), fd);
    peer_say(&s->b, "back\n");
    CHECK_LINE(s, "back");
    CHECK_INT(whole_say(s, "here"), NKT_OK);
    CHECK_INT(whole_flush(s), NKT_OK);
    CHECK_PEER(s, "here");
}

static int state_index(const scene *s, const char *state) {
    for (int i = 0; i < s->env.state_count; i++) {
        if (strcmp(s->env.states[i], state) == 0) return i;
    }
    return -1;
}

static void row_trace(scene *s) {
    const char *first = s->face->accepted ? "open" : "connected";
    bool alone = s->face->carrier != CARRIER_PAIR && !s->face->rot13;
    if (alone) s->env.env.trace = scene_trace;
    if (!scene_open(s)) return;
    if (!alone) {                       // the peer is of the same environment here
        s->env.traced = s->a;
        s->env.env.trace = scene_trace;
    }
    peer_say(&s->b, "one\n");
    peer_finish(&s->b);
    CHECK_LINE(s, "one");
    CHECK_END(s, NKT_EOF);
    CHECK_END(s, NKT_EOF);
    CHECK_INT(whole_shutdown_write(s), NKT_OK);
    scene_close_a(s);
    int eof = state_index(s, "eof"), shutdown_at = state_index(s, "shutdown");
    int closed = state_index(s, "closed");
    CHECK(eof >= 0 && shutdown_at > eof && closed > shutdown_at);
    CHECK_INT(closed, s->env.state_count - 1);
    if (alone) CHECK(state_index(s, first) >= 0 && state_index(s, first) < eof);
    int eofs = 0;
    for (int i = 0; i < s->env.state_count; i++) eofs += strcmp(s->env.states[i], "eof") == 0;
    CHECK_INT(eofs, 1);                 // a change of state, not a state
}

#endif
