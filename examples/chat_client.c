// chat_client.c - talks in a chat_server room, or in a channel of an IRC server
//
// Shows a keyboard and a connection waited for together. fgets can only wait,
// so it has a thread of its own, which hands the lines over through an
// in-memory pair: one end blocks, the other is in the poller, like any
// connection. Until the channel is joined, the keyboard is paused.
//
//     cc -I. examples/chat_client.c -o chat_client -pthread
//     ./chat_client localhost:7777
//     ./chat_client localhost:6667 --irc ann '#netkit'
//
// Prints what the others say, and ends with the input or with the server:
//
//     * welcome, guest2; 2 here; /nick NAME
//     guest1: hello

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <string.h>

static nkt_conn *server, *keyboard;
static const char *nick, *channel;      // NULL where it is not IRC

static void read_keyboard(void *arg) {
    nkt_conn *out = (nkt_conn *)arg;
    char text[400];
    while (fgets(text, sizeof text, stdin) != NULL && nkt_conn_write_str(out, text) == NKT_OK) {}
    nkt_conn_close(out);                // the other end reads the end of the stream
}

// What came over the network may not steer the terminal.
static void print(const char *before, const char *text, const char *after) {
    printf("%s", before);
    for (; *text != '\0'; text++) putchar((unsigned char)*text < ' ' ? '?' : *text);
    printf("%s", after);
}

static void say(const char *a, const char *b, const char *c, const char *d) {
    nkt_str pieces[5] = {nkt_str_of(a), nkt_str_of(b), nkt_str_of(c), nkt_str_of(d),
                         nkt_str_of("\r\n")};
    if (nkt_conn_writev(server, pieces, 5) == NKT_EAGAIN) printf("* too fast, not sent\n");
}

// ":ann!user@host PRIVMSG #netkit :hello", RFC 1459 section 2.3.1
static void hear_irc(nkt_poller *poller, const char *line) {
    char copy[1100], *text = copy;
    snprintf(copy, sizeof copy, "%s", line);
    char *from = text, *command = text;
    if (text[0] == ':') {
        from = text + 1;
        command = from + strcspn(from, " ");
        if (*command != '\0') *command++ = '\0';
        from[strcspn(from, "!")] = '\0';
    }
    char *rest = command + strcspn(command, " ");
    if (*rest != '\0') *rest++ = '\0';
    char *said = strchr(rest, ':');
    said = said != NULL ? said + 1 : rest;

    if (strcmp(command, "PING") == 0) {
        say("PONG :", said, "", "");
    } else if (strcmp(command, "001") == 0) {           // welcome
        say("JOIN ", channel, "", "");
    } else if (strcmp(command, "366") == 0) {           // end of the list of names: we are in
        printf("* joined %s\n", channel);
        nkt_poller_want(poller, keyboard, NKT_READ);
    } else if (strcmp(command, "PRIVMSG") == 0) {
        print("", from, ": ");
        print("", said, "\n");
    } else {
        print("* ", rest, "\n");
    }
}

// Everything that is there now; NKT_EAGAIN, or how it ended.
static int attend(nkt_poller *poller, nkt_conn *conn) {
    int err;
    nkt_str line;
    while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK) {
        if (conn == keyboard && nick != NULL) say("PRIVMSG ", channel, " :", line.ptr);
        else if (conn == keyboard) say(line.ptr, "", "", "");
        else if (nick != NULL) hear_irc(poller, line.ptr);
        else print("", line.ptr, "\n");
    }
    return err;
}

static int open_all(const char *target, nkt_connect_report *report, nkt_poller **poller) {
    nkt_connect_opts opts = {0};
    nkt_conn_opts never_waits = {0};
    nkt_conn *typed;
    opts.nonblocking = never_waits.nonblocking = true;
    opts.report = report;
    int err = nkt_connect(target, &opts, &server);          // goes on behind the poller
    if (err >= 0) err = nkt_conn_pair(NULL, &never_waits, &typed, &keyboard);
    if (err >= 0) err = nkt_thread_start(NULL, read_keyboard, typed);
    if (err >= 0) err = nkt_poller_open(NULL, poller);
    if (err >= 0) err = nkt_poller_add_conn(*poller, server, NULL);
    if (err >= 0) err = nkt_poller_add_conn(*poller, keyboard, NULL);
    if (err >= 0 && nick != NULL) err = nkt_poller_want(*poller, keyboard, 0);
    if (err >= 0 && nick != NULL) {
        say("NICK ", nick, "", "");
        say("USER ", nick, " 0 * :", nick);
    }
    return err;
}

static int good_bye(int err) {
    nkt_connect_report report;
    bool connected = nkt_conn_report(server, &report) < 0 || report.err == NKT_OK;
    fprintf(stderr, "%s\n", connected ? nkt_strerror(err) : report.text);
    return err != NKT_EOF;
}

int main(int argc, char **argv) {
    if (argc != 2 && !(argc == 5 && strcmp(argv[2], "--irc") == 0)) {
        fprintf(stderr, "usage: chat_client host:port [--irc nick '#channel']\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc == 5) {
        nick = argv[3];
        channel = argv[4];
    }
    nkt_connect_report report = {0};
    nkt_poller *poller;
    int err = open_all(argv[1], &report, &poller);
    if (err < 0) {
        fprintf(stderr, "%s\n", report.err < 0 ? report.text : nkt_strerror(err));
        return 1;
    }
    while ((err = nkt_poller_wait(poller, -1)) >= 0) {
        nkt_event event;
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            err = attend(poller, event.conn);
            if (err == NKT_EAGAIN) continue;
            if (event.conn == server) return good_bye(err);
            nkt_conn_close(keyboard);           // nothing more to say; hear the others out
            if (nick != NULL) say("QUIT", "", "", "");
            else nkt_conn_shutdown_write(server);
        }
    }
    return good_bye(err);
}
