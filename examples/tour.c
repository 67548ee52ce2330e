// tour.c - the library at work, all on this machine, in a second or two
//
// Shows a server, clients of both faces, timers, messages, threads, time-outs
// and failures. Each stop is one function; read the one you need.
//
//     cc -I. examples/tour.c -o tour -pthread && ./tour
//
// Prints what it does as it happens, and at the end "everything was as it
// should be". If something was not, it says so with "!!" and the exit code is
// 1.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int surprises;

static bool expect(bool ok, const char *what) {
    if (ok) return true;
    printf("   !! expected: %s\n", what);
    surprises++;
    return false;
}

static bool fine(int err, const char *what) {
    if (err >= 0) return true;
    printf("   !! %s: %s\n", what, nkt_strerror(err));
    surprises++;
    return false;
}

// -- The server: one thread, one poller, any number of clients

typedef struct server {
    nkt_listener *listener;
    nkt_conn *control;          // one end of a pair; the tour closes the other to stop the server
    unsigned short port;
} server;

static void answer(nkt_conn *conn, nkt_str line) {
    char peer[128];
    nkt_conn_peer_name(conn, peer, sizeof peer);
    nkt_str reply[4] = {line, nkt_str_of(" to "), nkt_str_of(peer), nkt_str_of(" too\n")};
    nkt_conn_writev(conn, reply, 4);
}

static void run_server(void *arg) {
    server *self = (server *)arg;
    nkt_poller *poller;
    int err = nkt_poller_open(NULL, &poller);
    if (err == NKT_OK) err = nkt_poller_add_listener(poller, self->listener, NULL);
    if (err == NKT_OK) err = nkt_poller_add_conn(poller, self->control, NULL);
    bool running = fine(err, "starting the server");
    while (running && nkt_poller_wait(poller, -1) >= 0) {
        nkt_event event;
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            nkt_conn *conn = event.conn;
            nkt_str line;
            while (event.listener != NULL && nkt_accept(event.listener, &conn) == NKT_OK)
                if (!fine(nkt_poller_add_conn(poller, conn, NULL), "adding a client"))
                    nkt_conn_close(conn);
            if (event.conn == NULL) continue;
            while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK) answer(conn, line);
            if (err == NKT_EAGAIN) continue;
            if (conn == self->control) running = false;
            else nkt_conn_close(conn);
        }
    }
    nkt_poller_close(poller);
    nkt_listener_close(self->listener);
    nkt_conn_close(self->control);          // tells the tour that the thread is done
}

static bool start_server(server *self, nkt_conn **stop) {
    printf("1. A server on IPv6 and IPv4, in a thread of its own\n");
    nkt_problem problem;
    nkt_listen_opts opts = {0};
    opts.nonblocking = true;
    opts.problem = &problem;
    if (nkt_listen(":0", &opts, &self->listener) < 0) {
        printf("   !! %s\n", problem.text);
        return false;
    }
    nkt_addr addr = {0};
    char text[128];
    nkt_listener_local(self->listener, &addr);
    nkt_listener_name(self->listener, text, sizeof text);
    self->port = addr.port;
    printf("   port 0 took a free one: listening on %s\n", text);
    nkt_conn_opts never_waits = {0};        // our end waits, the server's does not
    never_waits.nonblocking = true;
    return fine(nkt_conn_pair(NULL, &never_waits, stop, &self->control), "making a pair") &&
           fine(nkt_thread_start(NULL, run_server, self), "starting a thread");
}

// -- The stops

static void ask(const char *host, unsigned short port) {
    char target[64];
    nkt_connect_report report;
    nkt_connect_opts opts = {0};
    opts.timeout_ms = 5000;
    opts.report = &report;
    opts.stream.read_timeout_ms = 5000;
    snprintf(target, sizeof target, "%s:%u", host, port);
    nkt_conn *conn;
    if (nkt_connect(target, &opts, &conn) < 0) {
        printf("   !! %s\n", report.text);
        surprises++;
        return;
    }
    nkt_str line;
    fine(nkt_conn_write_str(conn, "hello\n"), "writing");
    if (fine(nkt_conn_read_line(conn, &line), "reading")) {
        printf("   %-16s -> %s\n", target, line.ptr);
        expect(nkt_str_begins(line, "hello to "), "hello to ... too");
    }
    nkt_conn_close(conn);
}

static void ask_three_ways(unsigned short port) {
    printf("2. Blocking clients: by address and by name\n");
    ask("127.0.0.1", port);
    nkt_listener *listener;
    if (nkt_listen("[::1]:0", NULL, &listener) == NKT_OK) {
        nkt_listener_close(listener);
        ask("[::1]", port);
    } else {
        printf("   IPv6 is switched off on this machine; all goes on without it\n");
    }
    ask("localhost", port);
}

static void ask_without_waiting(unsigned short port) {
    printf("3. A nonblocking client: nothing here ever waits but the poller\n");
    char target[64];
    nkt_connect_opts opts = {0};
    opts.nonblocking = true;
    opts.stream.read_timeout_ms = 5000;
    snprintf(target, sizeof target, "localhost:%u", port);
    nkt_poller *poller;
    nkt_conn *conn;
    if (!fine(nkt_poller_open(NULL, &poller), "opening a poller")) return;
    if (!fine(nkt_connect(target, &opts, &conn), "starting to connect")) return;
    fine(nkt_poller_add_conn(poller, conn, NULL), "adding it");
    fine(nkt_conn_write_str(conn, "one\ntwo\nthree\n"), "writing");
    printf("   3 lines are written already, whether it is connected yet or not\n");
    nkt_str line = {0};
    int lines = 0, err = NKT_EAGAIN;
    while (lines < 3 && err == NKT_EAGAIN && nkt_poller_wait(poller, 5000) > 0) {
        nkt_event event;
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            if ((event.events & NKT_CONNECTED) != 0) printf("   event: connected\n");
            while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK) {
                printf("   line %d: %s\n", ++lines, line.ptr);
            }
        }
    }
    expect(lines == 3, "3 lines");
    nkt_conn_close(conn);
    nkt_poller_close(poller);
}

static void tick(void) {
    printf("4. A timer in a poller\n");
    nkt_timer_opts opts = {0};
    opts.delay_ms = opts.repeat_ms = 50;
    nkt_task *timer;
    nkt_poller *poller;
    if (!fine(nkt_poller_open(NULL, &poller), "opening a poller")) return;
    if (!fine(nkt_timer_start(&opts, &timer), "starting a timer")) return;
    fine(nkt_poller_add_task(poller, timer, NULL), "adding it");
    int ticks = 0;
    int64_t start_ns = nkt_now_ns(NULL);
    while (ticks < 3 && nkt_poller_wait(poller, 5000) > 0) {
        nkt_event event;
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            int count = nkt_timer_finish(event.task);
            if (count > 0) ticks += count;
        }
        printf("   tick after %d ms\n", (int)((nkt_now_ns(NULL) - start_ns) / 1000000));
    }
    expect(ticks >= 3 && nkt_now_ns(NULL) - start_ns >= 150000000, "3 ticks in 150 ms or more");
    nkt_task_close(timer);
    nkt_poller_close(poller);
}

static void count_bytes(void *arg) {
    nkt_conn *conn = (nkt_conn *)arg;
    nkt_str message;
    while (nkt_conn_read_message(conn, &message) == NKT_OK) {
        char text[32];
        int len = snprintf(text, sizeof text, "%lu bytes", (unsigned long)message.len);
        nkt_conn_write_message(conn, text, (size_t)len);
    }
    nkt_conn_close(conn);
}

static void talk_to_a_thread(void) {
    printf("5. Messages of any bytes, over a pair in memory, to a thread\n");
    nkt_conn_opts opts = {0};
    opts.stream.read_timeout_ms = 5000;
    nkt_conn *ours, *theirs;
    if (!fine(nkt_conn_pair(&opts, NULL, &ours, &theirs), "making a pair")) return;
    if (!fine(nkt_thread_start(NULL, count_bytes, theirs), "starting a thread")) return;
    const char *texts[3] = {"hello", "two\nlines\n", ""};
    const char *answers[3] = {"5 bytes", "10 bytes", "0 bytes"};
    for (int i = 0; i < 3; i++) {
        nkt_str message;
        fine(nkt_conn_write_message(ours, texts[i], strlen(texts[i])), "writing a message");
        if (!fine(nkt_conn_read_message(ours, &message), "reading a message")) break;
        printf("   the thread says: %.*s\n", (int)message.len, message.ptr);
        expect(nkt_str_equal(message, answers[i]), answers[i]);
    }
    nkt_conn_close(ours);
}

static void unix_socket(void) {
    printf("6. A Unix-domain socket: a path instead of a port\n");
    char target[100];
    const char *folder = getenv("TEMP");
    uint32_t number = 0;
    nkt_random(NULL, &number, sizeof number);
    snprintf(target, sizeof target, "unix:%s/netkit-%08x.sock", folder ? folder : "/tmp", number);
    nkt_listener *listener;
    nkt_conn *client, *served;
    nkt_str line;
    int err = nkt_listen(target, NULL, &listener);
    if (err == NKT_EUNSUPPORTED) {
        printf("   this system has none\n");
        return;
    }
    if (!fine(err, "listening") || !fine(nkt_connect(target, NULL, &client), "connecting")) return;
    fine(nkt_conn_write_str(client, "no network at all\n"), "writing");
    if (!fine(nkt_accept(listener, &served), "accepting")) return;
    if (fine(nkt_conn_read_line(served, &line), "reading"))
        printf("   over %s: %s\n", target, line.ptr);
    nkt_conn_close(client);
    expect(nkt_conn_read_line(served, &line) == NKT_EOF, "the end of the stream");
    nkt_conn_close(served);
    nkt_listener_close(listener);
}

static void talk_slowly(void *arg) {
    nkt_conn *conn = (nkt_conn *)arg;
    nkt_str line;
    fine(nkt_conn_write_str(conn, "half a line"), "writing");
    fine(nkt_conn_read_line(conn, &line), "waiting to be asked for more");
    fine(nkt_conn_write_str(conn, ", and the other half\n"), "writing");
    nkt_conn_close(conn);
}

static void be_patient(void) {
    printf("7. A time-out in the middle of a line loses nothing\n");
    nkt_listener *listener;
    nkt_conn *slow, *conn;
    nkt_addr addr;
    nkt_connect_opts opts = {0};
    opts.stream.read_timeout_ms = 100;
    if (!fine(nkt_listen("127.0.0.1:0", NULL, &listener), "listening")) return;
    fine(nkt_listener_local(listener, &addr), "asking for the port");
    if (!fine(nkt_connect_addr(&addr, &opts, &conn), "connecting")) return;
    if (!fine(nkt_accept(listener, &slow), "accepting")) return;
    nkt_listener_close(listener);
    if (!fine(nkt_thread_start(NULL, talk_slowly, slow), "starting a thread")) return;
    nkt_str line;
    int err, timeouts = 0;
    while ((err = nkt_conn_read_line(conn, &line)) == NKT_ETIMEDOUT) {
        printf("   100 ms: %s\n", nkt_strerror(err));
        if (++timeouts == 3) fine(nkt_conn_write_str(conn, "and then?\n"), "asking");
    }
    if (fine(err, "reading")) printf("   line: %s\n", line.ptr);
    expect(err == NKT_OK && nkt_str_equal(line, "half a line, and the other half"),
           "the whole line");
    expect(timeouts >= 3, "time-outs before it");
    nkt_conn_close(conn);
}

static void mistype(void) {
    printf("8. What people mistype is refused before anything is sent, and says where\n");
    static const struct { const char *text; int err; } cases[] = {
        {"10.0.0.300:80", NKT_EADDR},  {"::1:80", NKT_EAMBIGUOUS}, {"localhost:65536", NKT_EPORT},
        {"localhost", NKT_EPORT}, {"my server:80", NKT_ENAME}, {"010.0.0.1:80", NKT_EADDR},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nkt_connect_report report;
        nkt_connect_opts opts = {0};
        opts.report = &report;
        nkt_conn *conn;
        int err = nkt_connect(cases[i].text, &opts, &conn);
        printf("   \"%s\": %s\n", cases[i].text, report.problem.text);
        if (err == NKT_OK) nkt_conn_close(conn);
        expect(err == cases[i].err, nkt_errname(cases[i].err));
    }
}

static void be_refused(void) {
    printf("9. A server that is not there\n");
    nkt_connect_report report;
    nkt_connect_opts opts = {0};
    opts.report = &report;
    nkt_conn *conn;
    int err = nkt_connect("localhost:1", &opts, &conn);
    printf("   %s\n", report.text);
    if (err == NKT_OK) nkt_conn_close(conn);
    expect(err == NKT_EREFUSED, "connection refused");
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("netkit %s\n\n", nkt_version());
    server self;
    nkt_conn *stop;
    if (!start_server(&self, &stop)) return 1;
    ask_three_ways(self.port);
    ask_without_waiting(self.port);
    tick();
    talk_to_a_thread();
    unix_socket();
    be_patient();
    mistype();
    be_refused();

    char byte;
    nkt_conn_shutdown_write(stop);          // the server reads the end of the stream, and stops
    expect(nkt_conn_read(stop, &byte, 1) == NKT_EOF, "the server to stop");
    nkt_conn_close(stop);
    if (surprises == 0) printf("\neverything was as it should be\n");
    else printf("\n!! %d things were not as they should be\n", surprises);
    return surprises > 0;
}
