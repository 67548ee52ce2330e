// small_raw.c - the same by getaddrinfo, connect and fgets: no time-out, no race
//
//     make sizes

#define _GNU_SOURCE
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct addrinfo hints, *list, *one;
    char line[4096];
    int fd = -1;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    int err = getaddrinfo(argc > 1 ? argv[1] : "localhost", argc > 2 ? argv[2] : "7777", &hints,
                          &list);
    if (err != 0) {
        fprintf(stderr, "%s\n", gai_strerror(err));
        return 1;
    }
    for (one = list; one != NULL && fd < 0; one = one->ai_next) {
        fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (fd < 0 || connect(fd, one->ai_addr, one->ai_addrlen) == 0) continue;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    FILE *lines = fd < 0 ? NULL : fdopen(fd, "r");
    if (lines == NULL) {
        perror("connect");
        return 1;
    }
    while (fgets(line, sizeof line, lines) != NULL) fputs(line, stdout);
    fclose(lines);
    return 0;
}
