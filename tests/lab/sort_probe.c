// sort_probe.c - the order of addresses, by netkit and by the system's resolver
//
//     sort_probe NAME ADDRESS...
//
// Prints two lines: the addresses as nkt_ip_sort orders them, and those of the
// name as getaddrinfo does, without AI_ADDRCONFIG. They are to be the same
// ones, the arguments in the resolver's order.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

static void print_ips(const char *title, const nkt_ip *ips, int count) {
    printf("%s", title);
    for (int i = 0; i < count; i++) {
        char text[NKT_IP_TEXT_MAX];
        nkt_ip_format(&ips[i], text, sizeof text);
        printf(" %s", text);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    nkt_ip ips[NKT_LOOKUP_MAX];
    int count = argc - 2;
    if (count < 1 || count > NKT_LOOKUP_MAX) {
        fprintf(stderr, "usage: sort_probe NAME ADDRESS...\n");
        return 2;
    }
    for (int i = 0; i < count; i++) {
        if (nkt_ip_parse(argv[i + 2], &ips[i]) < 0) {
            fprintf(stderr, "not an address: %s\n", argv[i + 2]);
            return 2;
        }
    }
    if (nkt_ip_sort(NULL, ips, count) < 0) return 1;
    print_ips("netkit", ips, count);

    struct addrinfo hints, *list = NULL;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    int code = getaddrinfo(argv[1], NULL, &hints, &list);
    if (code != 0) {
        fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(code));
        return 1;
    }
    count = 0;
    for (struct addrinfo *at = list; at != NULL && count < NKT_LOOKUP_MAX; at = at->ai_next) {
        nkt_addr addr;
        if (nkt_addr_from_sockaddr(at->ai_addr, (size_t)at->ai_addrlen, &addr) < 0) continue;
        ips[count++] = addr.ip;
    }
    freeaddrinfo(list);
    print_ips("system", ips, count);
    return 0;
}
