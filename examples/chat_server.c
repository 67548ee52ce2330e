// chat_server.c - chat rooms for thousands, in one thread, no callbacks
//
// Shows the poller: one loop waits for everybody at once. What a turn of the
// loop has for somebody is written at its end in one piece, so that a busy room
// costs a call of the system per guest and turn, not per line. Who does not
// read cannot hold up the room: once 64 KiB wait for him, lines are left out
// for him, and when he reads again he is told how many he missed. Somebody who
// is gone without a word (no power, no network) is found out by keep-alive.
//
//     cc -O2 -I. examples/chat_server.c -o chat_server -pthread
//     ./chat_server :7777 [SECONDS]   (idle before a probe; 60)
//     ./chat_client localhost:7777    (in another window)
//
// What somebody types goes to all others in the room; "/nick NAME" changes a
// name, "/join ROOM" goes to another room. Prints:
//
//     listening on [::]:7777
//     guest1 came from [::1]:40112, 1 here
//     guest1 is now ann
//     ann left (end of stream: the peer has finished sending), 0 here

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct guest {
    nkt_conn *conn;
    struct room *in;
    struct guest *prev, *next;  // in the same room
    unsigned missed;            // lines left out since the queue was full
    char *out;                  // what this turn has for him; NULL if nothing
    size_t out_len;
    unsigned out_lines;
    struct guest *due_prev, *due_next;      // of those with something in `out`
    char name[24];
} guest;

// A room is there as long as somebody is in it; the first one always.
typedef struct room {
    struct room *next;
    guest *guests;
    char name[24];
} room;

static room hall;
static unsigned here, came;
static guest *due;

enum { OUT_MAX = 16384 };

// Writes what there is for him. Other failures than a full queue come back from
// read_line, where the guest is sent home.
static void deliver(guest *to) {
    if (to->out == NULL) return;
    if (nkt_conn_write(to->conn, to->out, to->out_len) == NKT_EAGAIN) to->missed += to->out_lines;
    free(to->out);
    to->out = NULL;
    if (to->due_prev != NULL) to->due_prev->due_next = to->due_next;
    else due = to->due_next;
    if (to->due_next != NULL) to->due_next->due_prev = to->due_prev;
}

static int is_due(guest *who) {
    who->out = (char *)malloc(OUT_MAX);
    if (who->out == NULL) return 0;
    who->out_len = who->out_lines = 0;
    who->due_prev = NULL;
    who->due_next = due;
    if (due != NULL) due->due_prev = who;
    due = who;
    return 1;
}

// A line is shorter than OUT_MAX: line_max is 1,000.
static void tell(guest *to, const nkt_str *pieces, size_t count) {
    size_t len = 0;
    for (size_t i = 0; i < count; i++) len += pieces[i].len;
    if (to->out != NULL && to->out_len + len > OUT_MAX) deliver(to);
    if (to->missed > 0 || (to->out == NULL && !is_due(to))) {
        to->missed++;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(to->out + to->out_len, pieces[i].ptr, pieces[i].len);
        to->out_len += pieces[i].len;
    }
    to->out_lines++;
}

static void tell_him(guest *to, const char *text) {
    nkt_str piece = nkt_str_of(text);
    tell(to, &piece, 1);
}

static void tell_others(const guest *from, const char *text, nkt_str line) {
    nkt_str pieces[4] = {nkt_str_of(from->name), nkt_str_of(text), line, nkt_str_of("\n")};
    for (guest *to = from->in->guests; to != NULL; to = to->next)
        if (to != from) tell(to, pieces, 4);
}

// The queue has room again.
static void catch_up(guest *to) {
    char text[64];
    snprintf(text, sizeof text, "* you missed %u lines\n", to->missed);
    if (nkt_conn_write_str(to->conn, text) == NKT_OK) to->missed = 0;
}

static void enter(guest *who, room *into) {
    who->in = into;
    who->prev = NULL;
    who->next = into->guests;
    if (who->next != NULL) who->next->prev = who;
    into->guests = who;
}

static void leave_room(guest *who) {
    room *from = who->in;
    if (who->prev != NULL) who->prev->next = who->next;
    else from->guests = who->next;
    if (who->next != NULL) who->next->prev = who->prev;
    if (from->guests != NULL || from == &hall) return;
    room **place = &hall.next;
    while (*place != from) place = &(*place)->next;
    *place = from->next;
    free(from);
}

static void come_in(nkt_poller *poller, nkt_conn *conn) {
    guest *who = (guest *)calloc(1, sizeof *who);
    if (who == NULL || nkt_poller_add_conn(poller, conn, who) < 0) {
        free(who);
        nkt_conn_close(conn);
        return;
    }
    who->conn = conn;
    enter(who, &hall);
    here++;
    snprintf(who->name, sizeof who->name, "guest%u", ++came);
    char where[128], text[100];
    nkt_conn_peer_name(conn, where, sizeof where);
    printf("%s came from %s, %u here\n", who->name, where, here);
    snprintf(text, sizeof text, "* welcome, %s; %u here; /nick NAME\n", who->name, here);
    tell_him(who, text);
}

static void go_home(guest *who, int err) {
    deliver(who);
    leave_room(who);
    here--;
    printf("%s left (%s), %u here\n", who->name, nkt_strerror(err), here);
    nkt_conn_close(who->conn);
    free(who);
}

// The name that was asked for, if it is one.
static int is_name(guest *who, const char *wish, char *name, size_t cap) {
    snprintf(name, cap, "%s", wish);
    for (const char *c = name; *c != '\0'; c++) {
        if (isalnum((unsigned char)*c)) continue;
        tell_him(who, "* a name is letters and digits\n");
        return 0;
    }
    return 1;
}

static void join(guest *who, const char *wish) {
    char name[sizeof hall.name], text[64];
    if (!is_name(who, wish, name, sizeof name)) return;
    room *into = &hall;
    while (into != NULL && strcmp(into->name, name) != 0) into = into->next;
    if (into == NULL) {
        into = (room *)calloc(1, sizeof *into);
        if (into == NULL) return;
        memcpy(into->name, name, sizeof name);
        into->next = hall.next;
        hall.next = into;
    }
    if (into != who->in) {
        leave_room(who);
        enter(who, into);
    }
    snprintf(text, sizeof text, "* you are in %s\n", name);
    tell_him(who, text);
}

static void rename_guest(guest *who, const char *wish) {
    char name[sizeof who->name];
    if (!is_name(who, wish, name, sizeof name)) return;
    tell_others(who, " is now ", nkt_str_of(name));
    printf("%s is now %s\n", who->name, name);
    memcpy(who->name, name, sizeof name);
}

static void hear(guest *from, nkt_str line) {
    if (nkt_str_begins(line, "/nick ")) rename_guest(from, line.ptr + 6);
    else if (nkt_str_begins(line, "/join ")) join(from, line.ptr + 6);
    else tell_others(from, ": ", line);
}

static void attend(guest *who, uint32_t events) {
    int err;
    nkt_str line;
    if ((events & NKT_WRITE) != 0 && who->missed > 0) catch_up(who);
    while ((err = nkt_conn_read_line(who->conn, &line)) == NKT_OK) hear(who, line);
    if (err != NKT_EAGAIN) go_home(who, err);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    nkt_problem problem;
    nkt_listen_opts opts = {0};
    opts.nonblocking = true;                // and so is what it accepts
    opts.stream.line_max = 1000;
    opts.stream.queue_max = 65536;
    opts.stream.keepalive_s = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 60;
    opts.problem = &problem;
    nkt_listener *listener;
    if (nkt_listen(argc > 1 ? argv[1] : ":7777", &opts, &listener) < 0) {
        fprintf(stderr, "%s\n", problem.text);
        return 1;
    }
    char where[128];
    nkt_listener_name(listener, where, sizeof where);
    printf("listening on %s\n", where);

    nkt_poller *poller;
    int err = nkt_poller_open(NULL, &poller);
    if (err == NKT_OK) err = nkt_poller_add_listener(poller, listener, NULL);
    while (err >= 0 && (err = nkt_poller_wait(poller, -1)) >= 0) {
        nkt_event event;
        while (nkt_poller_next(poller, &event) == NKT_OK) {
            nkt_conn *conn;
            if (event.conn != NULL) attend((guest *)event.user, event.events);
            else while (nkt_accept(listener, &conn) == NKT_OK) come_in(poller, conn);
        }
        while (due != NULL) deliver(due);
    }
    fprintf(stderr, "%s\n", nkt_strerror(err));
    return 1;
}
