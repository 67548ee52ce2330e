// game_server.c - moves 60 states a second to up to 64 players
//
// Shows a nonblocking datagram handle in a poller beside a clock of one's own,
// and sending to many in one call. Whoever sends "join" is a player until
// nothing came from there for five seconds; a "move" moves that player by one.
//
//     cc -I. examples/game_server.c -o game_server -pthread
//     ./game_server :7788 10                 (for 10 seconds; 0 is for ever)
//
// A state is the frame's number and each player's place, 32 bits each,
// big-endian. Prints "listening on [::]:7788", and each second:
//
//     60 frames, 64 players, 3840 states sent

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct player {
    nkt_addr addr;
    int64_t heard_ns;
    uint32_t place;
} player;

static player players[64];
static int player_count;

static void put(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void listen_to(const nkt_datagram *from, int64_t now) {
    int at = 0;
    while (at < player_count && !nkt_addr_equal(&players[at].addr, &from->addr)) at++;
    if (at == player_count) {
        if (at == 64 || from->len != 4 || memcmp(from->data, "join", 4) != 0) return;
        memset(&players[player_count++], 0, sizeof players[0]);
        players[at].addr = from->addr;
    }
    players[at].heard_ns = now;
    if (from->len == 4 && memcmp(from->data, "move", 4) == 0) players[at].place++;
}

static int send_frame(nkt_udp *udp, uint32_t frame, int64_t now) {
    static uint8_t state[4 + 4 * 64];
    static nkt_datagram list[64];
    for (int i = 0; i < player_count;) {
        if (now - players[i].heard_ns > (int64_t)5000000000) players[i] = players[--player_count];
        else i++;
    }
    put(state, frame);
    for (int i = 0; i < player_count; i++) {
        put(state + 4 + 4 * i, players[i].place);
        list[i].data = state;
        list[i].len = (uint32_t)(4 + 4 * player_count);
        list[i].addr = players[i].addr;
    }
    // A player who cannot be reached is passed over; a full buffer drops a
    // frame, as the network might.
    int sent = 0;
    for (int at = 0; at < player_count; at++) {
        int step = nkt_udp_send_many(udp, list + at, player_count - at);
        if (step == NKT_EAGAIN) break;
        if (step > 0) {
            sent += step;
            at += step - 1;
        }
    }
    return sent;
}

int main(int argc, char **argv) {
    nkt_udp_opts opts = {0};
    opts.nonblocking = true;
    nkt_udp *udp;
    nkt_poller *poller;
    nkt_addr addr;
    char text[NKT_ADDR_TEXT_MAX];
    int err = nkt_udp_open(argc > 1 ? argv[1] : ":7788", &opts, &udp);
    if (err >= 0) err = nkt_udp_local(udp, &addr);
    if (err >= 0) err = nkt_poller_open(NULL, &poller);
    if (err >= 0) err = nkt_poller_add_udp(poller, udp, NULL);
    if (err < 0) {
        fprintf(stderr, "%s\n", nkt_strerror(err));
        return 1;
    }
    nkt_addr_format(&addr, text, sizeof text);
    printf("listening on %s\n", text);
    fflush(stdout);
    long seconds = argc > 2 ? strtol(argv[2], NULL, 10) : 0, sent = 0;
    int64_t begin = nkt_now_ns(NULL);
    for (uint32_t frame = 1; seconds == 0 || frame <= 60 * seconds; frame++) {
        // Frames keep to a grid of sixtieths, however long the last one took.
        int64_t next = begin + (int64_t)frame * 1000000000 / 60, now;
        while ((now = nkt_now_ns(NULL)) < next) {
            nkt_event event;
            nkt_datagram list[64];
            nkt_poller_wait(poller, (int32_t)((next - now + 999999) / 1000000));
            while (nkt_poller_next(poller, &event) == NKT_OK) {
                int got = nkt_udp_recv_many(udp, list, 64);
                for (int i = 0; i < got; i++) listen_to(&list[i], nkt_now_ns(NULL));
            }
        }
        sent += send_frame(udp, frame, now);
        if (frame % 60 != 0) continue;
        printf("60 frames, %d players, %ld states sent\n", player_count, sent);
        fflush(stdout);
        sent = 0;
    }
    nkt_poller_close(poller);
    nkt_udp_close(udp);
    return 0;
}
