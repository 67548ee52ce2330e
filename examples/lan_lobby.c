// lan_lobby.c - finds the other players on the local networks
//
// Shows multicast on every interface, with broadcast beside it for networks
// that do not carry multicast, and several programs on one port. Each player
// says its name four times a second; who is heard is printed once.
//
//     cc -I. examples/lan_lobby.c -o lan_lobby -pthread
//     ./lan_lobby alice
//     ./lan_lobby bob 10             (elsewhere; for 10 seconds, 5 otherwise)
//
// Prints whom it finds, and how that one was heard first:
//
//     bob is at 192.0.2.7:5577, by 239.255.77.77

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char known[32][64];
static int known_count;

static void heard(const nkt_datagram *from, const char *me) {
    char name[64], where[NKT_ADDR_TEXT_MAX], how[NKT_IP_TEXT_MAX];
    if (from->len < 6 || memcmp(from->data, "lobby ", 6) != 0) return;
    snprintf(name, sizeof name, "%.*s", (int)from->len - 6, (const char *)from->data + 6);
    if (strcmp(name, me) == 0 || known_count == 32) return;
    for (int i = 0; i < known_count; i++)
        if (strcmp(known[i], name) == 0) return;
    memcpy(known[known_count++], name, sizeof name);
    nkt_addr_format(&from->addr, where, sizeof where);
    nkt_ip_format(&from->local, how, sizeof how);
    printf("%s is at %s, by %s\n", name, where, how);
    fflush(stdout);
}

int main(int argc, char **argv) {
    nkt_udp_opts opts = {0};
    opts.reuse_port = true;                         // several players on this host
    opts.recv_timeout_ms = 250;
    nkt_udp *udp;
    int err = nkt_udp_open(":5577", &opts, &udp);
    if (err >= 0) err = nkt_udp_join(udp, "239.255.77.77", NULL);
    if (err < 0) {
        fprintf(stderr, "%s\n", nkt_strerror(err));
        return 1;
    }
    char hello[80], bytes[1500];
    const char *me = argc > 1 ? argv[1] : "somebody";
    snprintf(hello, sizeof hello, "lobby %s", me);
    int64_t begin = nkt_now_ns(NULL), next = begin;
    int64_t end = begin + (argc > 2 ? strtol(argv[2], NULL, 10) : 5) * (int64_t)1000000000;
    while (nkt_now_ns(NULL) < end) {
        if (nkt_now_ns(NULL) >= next) {             // a network that is down is no matter
            nkt_udp_send_str(udp, hello, "239.255.77.77:5577");
            nkt_udp_broadcast(udp, hello, strlen(hello), 5577);
            next += 250000000;
        }
        nkt_datagram from = {0};
        from.data = bytes;
        from.cap = sizeof bytes;
        err = nkt_udp_recv_datagram(udp, &from);
        if (err == NKT_OK) heard(&from, me);
        else if (err != NKT_ETIMEDOUT) fprintf(stderr, "%s\n", nkt_strerror(err));
    }
    nkt_udp_close(udp);
    return 0;
}
