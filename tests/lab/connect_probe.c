// connect_probe.c - connects once and prints as JSON how that went
//
//     connect_probe TARGET [timeout_ms=N] [family=4|6] [attempt_delay_ms=N]
//                   [resolution_delay_ms=N] [get=/path] [poller=1]
//
// With poller=1 it connects without blocking, on a poller.
// With get=, a request is sent over the connection and the last line of the
// reply is printed too. Exit status 0 whatever became of the connect.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_text(const char *name, const char *text, size_t len) {
    printf("\"%s\": \"", name);
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"' || text[i] == '\\') putchar('\\');
        if (text[i] >= ' ') putchar(text[i]);
    }
    putchar('"');
}

static void print_addr(const char *name, const nkt_addr *addr) {
    char text[NKT_ADDR_TEXT_MAX];
    nkt_addr_format(addr, text, sizeof text);
    print_text(name, text, strlen(text));
}

static void print_report(const nkt_connect_report *report) {
    printf("\"elapsed_ms\": %d, \"attempt_count\": %d,\n \"attempts\": [", (int)report->elapsed_ms,
           (int)report->attempt_count);
    for (int i = 0; i < report->attempt_count && i < NKT_ATTEMPTS_MAX; i++) {
        const nkt_attempt *attempt = &report->attempts[i];
        printf("%s{", i > 0 ? ",\n  " : "");
        print_addr("addr", &attempt->addr);
        printf(", \"start_ms\": %d, \"end_ms\": %d, \"err\": \"%s\"}", (int)attempt->start_ms,
               (int)attempt->end_ms, nkt_errname(attempt->err));
    }
    printf("],\n \"lookup_err\": [\"%s\", \"%s\"], \"lookup_ms\": [%d, %d],\n ",
           nkt_errname(report->lookup_err[0]), nkt_errname(report->lookup_err[1]),
           (int)report->lookup_ms[0], (int)report->lookup_ms[1]);
    print_text("text", report->text, strlen(report->text));
}

// Asks for a path and prints the last line that is answered.
static void print_get(nkt_conn *conn, const char *path) {
    nkt_str line;
    char last[256] = "";
    size_t len = 0;
    int err = nkt_conn_write_str(conn, "GET ");
    if (err >= 0) err = nkt_conn_write_str(conn, path);
    if (err >= 0) {
        err = nkt_conn_write_str(conn, " HTTP/1.1\r\nHost: lab.test\r\nConnection: close\r\n\r\n");
    }
    while (err >= 0 && (err = nkt_conn_read_line(conn, &line)) >= 0) {
        len = line.len < sizeof last ? line.len : sizeof last;
        memcpy(last, line.ptr, len);
    }
    printf(",\n \"get_err\": \"%s\", ", nkt_errname(err));
    print_text("reply", last, len);
}

// Connects behind a poller, and reports what nkt_connect would.
static int connect_on_poller(const char *target, nkt_connect_opts *opts, nkt_conn **conn) {
    nkt_poller *poller = NULL;
    nkt_conn *made = NULL;
    nkt_event event;
    bool over = false;
    opts->nonblocking = true;
    int err = nkt_poller_open(NULL, &poller);
    if (err >= 0) err = nkt_connect(target, opts, &made);
    if (err >= 0) err = nkt_poller_add_conn(poller, made, NULL);
    while (err >= 0 && !over) {
        err = nkt_poller_wait(poller, -1);
        while (err >= 0 && nkt_poller_next(poller, &event) == NKT_OK) {
            if (event.events & NKT_CONNECTED) over = true;
        }
    }
    if (err >= 0) err = nkt_connect_finish(made);
    if (made != NULL) {
        nkt_conn_report(made, opts->report);
        nkt_poller_remove_conn(poller, made);
    }
    nkt_poller_close(poller);
    if (err >= 0) *conn = made;
    else nkt_conn_close(made);
    return err;
}

// The value of an argument "name=...", or NULL if it is another one.
static const char *value_of(const char *arg, const char *name) {
    size_t len = strlen(name);
    return strncmp(arg, name, len) == 0 && arg[len] == '=' ? arg + len + 1 : NULL;
}

static int32_t number_of(const char *text) {
    return (int32_t)strtol(text, NULL, 10);
}

int main(int argc, char **argv) {
    nkt_connect_report report;
    nkt_connect_opts opts;
    const char *get = NULL;
    bool on_poller = false;
    memset(&report, 0, sizeof report);
    memset(&opts, 0, sizeof opts);
    opts.report = &report;
    opts.stream.read_timeout_ms = 5000;
    for (int i = 2; i < argc; i++) {
        const char *value;
        if ((value = value_of(argv[i], "timeout_ms"))) opts.timeout_ms = number_of(value);
        else if ((value = value_of(argv[i], "family"))) opts.family = number_of(value);
        else if ((value = value_of(argv[i], "attempt_delay_ms"))) {
            opts.attempt_delay_ms = number_of(value);
        } else if ((value = value_of(argv[i], "resolution_delay_ms"))) {
            opts.resolution_delay_ms = number_of(value);
        } else if ((value = value_of(argv[i], "get"))) get = value;
        else if ((value = value_of(argv[i], "poller"))) on_poller = number_of(value) != 0;
        else argc = 0;
    }
    if (argc < 2) {
        fprintf(stderr, "usage: connect_probe TARGET [name=value]...\n");
        return 2;
    }
    nkt_conn *conn = NULL;
    int64_t start = nkt_now_ns(NULL);
    int err = on_poller ? connect_on_poller(argv[1], &opts, &conn)
                        : nkt_connect(argv[1], &opts, &conn);
    double took_ms = (double)(nkt_now_ns(NULL) - start) / 1e6;
    printf("{\"err\": \"%s\", \"took_ms\": %.3f, ", nkt_errname(err), took_ms);
    print_report(&report);
    if (err >= 0) {
        nkt_addr peer;
        memset(&peer, 0, sizeof peer);
        nkt_conn_peer(conn, &peer);
        printf(",\n ");
        print_addr("winner", &peer);
        if (get != NULL) print_get(conn, get);
        nkt_conn_close(conn);
    }
    printf("}\n");
    return 0;
}
