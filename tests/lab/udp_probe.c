// udp_probe.c - a datagram handle that does as it is told, for test_udp.py
//
//     udp_probe LOCAL [reuse] [two] [df] [card=NAME] [blocking=GROUP]
//
// Opens LOCAL and prints "open PORT SOCKETS" or the error's name. Then it takes
// commands, a line each, and prints what came of it, a line each:
//
//     join GROUP INTERFACE SOURCE     "-" is none
//     leave GROUP INTERFACE SOURCE
//     send TEXT ADDRESS
//     long BYTES ADDRESS
//     each TEXT ADDRESS               and a line for each interface
//     broadcast TEXT PORT
//     through INDEX                   groups go through this one only
//     joined                          on how many
//
// Each datagram is printed as "got TEXT from ADDRESS to IP on NAME". With
// blocking=GROUP it joins, waits in receiving calls and takes no commands.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static nkt_udp *udp;

static void told(const nkt_datagram *got) {
    char from[NKT_ADDR_TEXT_MAX], to[NKT_IP_TEXT_MAX], name[64] = "?";
    nkt_addr addr = got->addr;
    nkt_addr_format(&addr, from, sizeof from);
    nkt_ip_format(&got->local, to, sizeof to);
    nkt_sys_core_default()->interface_name(NULL, got->interface_index, name, sizeof name);
    printf("got %.*s from %s to %s on %s\n", (int)got->len, (const char *)got->data, from, to,
           name);
}

static void answer(const char *what, ptrdiff_t result) {
    if (result < 0) printf("%s %s\n", what, nkt_errname((int)result));
    else printf("%s %d\n", what, (int)result);
}

static void each(const char *text, const nkt_addr *to) {
    nkt_udp_result results[16];
    int count = nkt_udp_send_each(udp, text, strlen(text), to, results, 16);
    answer("each", count);
    for (int i = 0; i < count; i++) {
        char where[NKT_ADDR_TEXT_MAX];
        nkt_addr_format(&results[i].to, where, sizeof where);
        printf("to %s %s\n", where, nkt_errname(results[i].err));
    }
}

static void obey(char *line) {
    static char bytes[65536];
    char words[4][128] = {"", "", "", ""};
    nkt_join_opts opts;
    nkt_addr addr;
    nkt_udp_info info;
    int count = 0;
    memset(&opts, 0, sizeof opts);
    memset(&addr, 0, sizeof addr);
    for (char *at = line; *at != '\0' && count < 4; count++) {
        size_t len = strcspn(at, " \n");
        snprintf(words[count], sizeof words[count], "%.*s", (int)len, at);
        at += len;
        at += strspn(at, " \n");
    }
    if (strcmp(words[2], "-") != 0 && words[2][0] != '\0') opts.interface_name = words[2];
    if (strcmp(words[3], "-") != 0 && words[3][0] != '\0') opts.source = words[3];
    nkt_addr_parse(words[2], &addr);
    if (strcmp(words[0], "join") == 0) answer("join", nkt_udp_join(udp, words[1], &opts));
    else if (strcmp(words[0], "leave") == 0) answer("leave", nkt_udp_leave(udp, words[1], &opts));
    else if (strcmp(words[0], "send") == 0) {
        answer("send", nkt_udp_send_str(udp, words[1], words[2]));
    } else if (strcmp(words[0], "long") == 0) {
        answer("long", nkt_udp_send(udp, bytes, (size_t)strtol(words[1], NULL, 10), &addr));
    } else if (strcmp(words[0], "each") == 0) {
        each(words[1], &addr);
    } else if (strcmp(words[0], "broadcast") == 0) {
        answer("broadcast", nkt_udp_broadcast(udp, words[1], strlen(words[1]),
                                              (uint16_t)strtol(words[2], NULL, 10)));
    } else if (strcmp(words[0], "through") == 0) {
        answer("through", nkt_udp_set_option(udp, NKT_UDP_MULTICAST_INTERFACE,
                                             strtol(words[1], NULL, 10)));
    } else if (strcmp(words[0], "joined") == 0) {
        nkt_udp_get_info(udp, &info);
        answer("joined", (ptrdiff_t)info.joined);
    } else {
        printf("what is %s?\n", words[0]);
    }
}

static void run_blocking(const char *group) {
    static char bytes[65536];
    answer("join", nkt_udp_join(udp, group, NULL));
    for (;;) {
        nkt_datagram got;
        memset(&got, 0, sizeof got);
        got.data = bytes;
        got.cap = sizeof bytes - 1;
        int err = nkt_udp_recv_datagram(udp, &got);
        if (err < 0) answer("recv", err);
        else told(&got);
    }
}

static int run(void) {
    nkt_poller *poller;
    nkt_event event;
    nkt_datagram list[16];
    char line[512];
    if (nkt_poller_open(NULL, &poller) < 0 || nkt_poller_add_udp(poller, udp, NULL) < 0 ||
        nkt_poller_add_fd(poller, 0, NKT_READ, NULL) < 0) return 1;
    while (nkt_poller_wait(poller, -1) >= 0) {
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            if (event.udp == NULL) {
                if (fgets(line, sizeof line, stdin) == NULL) return 0;
                obey(line);
                continue;
            }
            int got;
            while ((got = nkt_udp_recv_many(udp, list, 16)) > 0) {
                for (int i = 0; i < got; i++) told(&list[i]);
            }
            if (got != NKT_EAGAIN) answer("recv", got);
        }
    }
    return 1;
}

int main(int argc, char **argv) {
    nkt_udp_opts opts;
    nkt_udp_info info;
    nkt_addr local;
    const char *group = NULL;
    memset(&opts, 0, sizeof opts);
    opts.nonblocking = true;
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);        // the poller must know of every line
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "reuse") == 0) opts.reuse_port = true;
        if (strcmp(argv[i], "two") == 0) opts.two_sockets = true;
        if (strcmp(argv[i], "df") == 0) opts.dont_fragment = true;
        if (strncmp(argv[i], "card=", 5) == 0) opts.interface_name = argv[i] + 5;
        if (strncmp(argv[i], "blocking=", 9) == 0) group = argv[i] + 9;
    }
    if (group != NULL) opts.nonblocking = false;
    int err = nkt_udp_open(argc > 1 ? argv[1] : NULL, &opts, &udp);
    if (err < 0) {
        printf("open %s\n", nkt_errname(err));
        return 1;
    }
    nkt_udp_local(udp, &local);
    nkt_udp_get_info(udp, &info);
    printf("open %d %d\n", local.port, (int)info.sockets);
    if (group != NULL) run_blocking(group);
    return run();
}
