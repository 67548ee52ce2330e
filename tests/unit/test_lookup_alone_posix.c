// test_lookup_alone_posix.c - names without threads
//
// A blocking call asks the system's resolver on its own thread; whatever must
// not wait is refused before the resolver hears of it. The system's resolver is
// replaced by one that answers from a table.

#ifndef NETKIT_NO_THREADS
#define NETKIT_NO_THREADS
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef _DARWIN_C_SOURCE
#define _DARWIN_C_SOURCE
#endif

#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct {
    int calls;
    int families[8];                // asked for, in order
    int delay_ms;                   // of each answer
} resolver;

static struct addrinfo *answer(int family) {
    struct addrinfo *info = (struct addrinfo *)calloc(1, sizeof *info);
    if (info == NULL) return NULL;
    info->ai_family = family;
    if (family == AF_INET6) {
        struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)calloc(1, sizeof *sin6);
        if (sin6 != NULL) {
            sin6->sin6_family = AF_INET6;
            sin6->sin6_addr = in6addr_loopback;
        }
        info->ai_addr = (struct sockaddr *)(void *)sin6;
        info->ai_addrlen = sizeof *sin6;
    } else {
        struct sockaddr_in *sin = (struct sockaddr_in *)calloc(1, sizeof *sin);
        if (sin != NULL) {
            sin->sin_family = AF_INET;
            sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        }
        info->ai_addr = (struct sockaddr *)(void *)sin;
        info->ai_addrlen = sizeof *sin;
    }
    return info;
}

static int table_getaddrinfo(const char *host, const char *service,
                             const struct addrinfo *hints, struct addrinfo **list) {
    (void)service;
    struct timespec delay = { 0, resolver.delay_ms * 1000000L };
    if (resolver.calls < 8) resolver.families[resolver.calls] = hints->ai_family;
    resolver.calls++;
    nanosleep(&delay, NULL);
    if (strcmp(host, "later.test") == 0) return EAI_AGAIN;
    if (strcmp(host, "four.test") == 0 && hints->ai_family == AF_INET6) return EAI_NONAME;
    if (strcmp(host, "both.test") != 0 && strcmp(host, "four.test") != 0) return EAI_NONAME;
    *list = answer(hints->ai_family);
    return *list != NULL ? 0 : EAI_MEMORY;
}

static void table_freeaddrinfo(struct addrinfo *list) {
    free(list->ai_addr);
    free(list);
}

#define getaddrinfo table_getaddrinfo
#define freeaddrinfo table_freeaddrinfo
#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "nkt_test.h"

static void begin(int delay_ms) {
    memset(&resolver, 0, sizeof resolver);
    resolver.delay_ms = delay_ms;
}

static void lookups(void) {
    nkt_ip ips[4];
    char text[NKT_IP_TEXT_MAX];
    nkt_lookup_opts opts;
    memset(&opts, 0, sizeof opts);
    TEST("a look-up that may wait asks for IPv6, then for IPv4") {
        begin(0);
        CHECK_INT(nkt_lookup("both.test", NULL, ips, 4), 2);
        CHECK_INT(resolver.calls, 2);
        CHECK_INT(resolver.families[0], AF_INET6);
        CHECK_INT(resolver.families[1], AF_INET);
        CHECK_INT(ips[0].family + ips[1].family, NKT_IPV4 + NKT_IPV6);
    }
    TEST("of one family alone") {
        begin(0);
        opts.family = NKT_IPV4;
        CHECK_INT(nkt_lookup("both.test", &opts, ips, 4), 1);
        CHECK(nkt_ip_format(&ips[0], text, sizeof text) > 0);
        CHECK_STR(text, "127.0.0.1");
        CHECK_INT(resolver.calls, 1);
        CHECK_INT(resolver.families[0], AF_INET);
    }
    TEST("no such host, and a resolver that cannot tell") {
        begin(0);
        CHECK_INT(nkt_lookup("nobody.test", NULL, ips, 4), NKT_ENOTFOUND);
        CHECK_INT(nkt_lookup("later.test", NULL, ips, 4), NKT_ELOOKUP);
        CHECK_INT(resolver.calls, 4);
    }
    TEST("an answer that comes after the deadline is given all the same") {
        begin(30);
        opts.family = 0;
        opts.timeout_ms = 10;
        int64_t start = nkt_now_ns(NULL);
        CHECK_INT(nkt_lookup("both.test", &opts, ips, 4), 2);
        CHECK(nkt_now_ns(NULL) - start >= 60 * (int64_t)1000000);
    }
    TEST("a look-up that must not wait is refused, and nobody is asked") {
        nkt_task *task = NULL;
        begin(0);
        CHECK_INT(nkt_lookup_start("both.test", NULL, &task), NKT_EUNSUPPORTED);
        CHECK(task == NULL);
        CHECK_INT(resolver.calls, 0);
        // What needs no resolver is not.
        CHECK_INT(nkt_lookup_start("localhost", NULL, &task), NKT_OK);
        nkt_task_close(task);
    }
}

static nkt_listener *listener;
static char target[64];

static const char *target_of(const char *host) {
    nkt_addr where;
    memset(&where, 0, sizeof where);
    CHECK_INT(nkt_listener_local(listener, &where), NKT_OK);
    snprintf(target, sizeof target, "%s:%d", host, where.port);
    return target;
}

static void connects(void) {
    nkt_connect_report report;
    nkt_connect_opts opts;
    nkt_conn *conn = NULL, *server = NULL;
    memset(&opts, 0, sizeof opts);
    opts.report = &report;
    TEST("a blocking connect by name") {
        begin(0);
        CHECK_INT(nkt_listen("127.0.0.1:0", NULL, &listener), NKT_OK);
        if (CHECK_INT(nkt_connect(target_of("four.test"), &opts, &conn), NKT_OK)) {
            CHECK_INT(nkt_accept(listener, &server), NKT_OK);
            nkt_conn_close(server);
            nkt_conn_close(conn);
        }
        CHECK_INT(resolver.calls, 2);
        CHECK_INT(report.lookup_err[0], NKT_ENOTFOUND);
        CHECK_INT(report.lookup_err[1], NKT_OK);
        CHECK_INT(report.attempt_count, 1);
    }
    TEST("a name that is not there, and one that cannot be told") {
        begin(0);
        CHECK_INT(nkt_connect("nobody.test:80", &opts, &conn), NKT_ENOTFOUND);
        CHECK_INT(report.err, NKT_ENOTFOUND);
        CHECK_INT(nkt_connect("later.test:80", &opts, &conn), NKT_ELOOKUP);
        CHECK_INT(report.lookup_err[0], NKT_ELOOKUP);
        CHECK_INT(report.lookup_err[1], NKT_ELOOKUP);
    }
    TEST("the resolver may overrun the connect's deadline, which then has passed") {
        begin(30);
        opts.timeout_ms = 10;
        CHECK_INT(nkt_connect(target_of("four.test"), &opts, &conn), NKT_ETIMEDOUT);
        CHECK_INT(report.err, NKT_ETIMEDOUT);
        CHECK(report.elapsed_ms >= 60);
        opts.timeout_ms = 0;
    }
    TEST("a connect that must not wait is refused, and nobody is asked") {
        begin(0);
        conn = NULL;
        CHECK_INT(nkt_connect_start(target_of("four.test"), &opts, &conn), NKT_EUNSUPPORTED);
        opts.nonblocking = true;
        CHECK_INT(nkt_connect(target_of("four.test"), &opts, &conn), NKT_EUNSUPPORTED);
        CHECK_INT(nkt_connect_start(target_of("four.test"), &opts, &conn), NKT_EUNSUPPORTED);
        CHECK(conn == NULL);
        CHECK_INT(resolver.calls, 0);
        CHECK_INT(report.err, NKT_EUNSUPPORTED);
        // An address needs no resolver.
        CHECK_INT(nkt_connect(target_of("127.0.0.1"), &opts, &conn), NKT_OK);
        nkt_conn_close(conn);
        nkt_listener_close(listener);
    }
}

int main(void) {
    lookups();
    connects();
    return test_finish();
}
