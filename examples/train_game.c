// train_game.c - your game on a train: an hour of play in a few milliseconds
//
//     cc -I. examples/train_game.c -o train_game -pthread
//     ./train_game                 on a train
//     ./train_game wifi-busy 42    on another network, with another seed
//
// Shows an impaired datagram handle in virtual time. A server sends its state
// 30 times a second to a player who shows the newest one. Both are in this
// program, on handles in memory and a clock that jumps; the game's own code
// would be the same on UDP sockets. The same seed gives the same journey.
// Prints what the player would have seen:
//
//     train, seed 7: 109091 states sent in an hour, 5.9 % lost, 0 came too late
//     the picture froze 69 times for over half a second, at worst for 3.2 s

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MS 33
#define HOUR_MS 3600000

typedef struct player {
    long newest;                // number of the state that is shown
    int64_t shown_ns;           // since when
    int64_t longest_ns;         // the longest that one picture stood still
    long states, outdated, freezes;
} player;

static void player_hears(player *self, nkt_udp *udp, int64_t now) {
    char text[64];
    while (nkt_udp_recv(udp, text, sizeof text, NULL) > 0) {
        long number = strtol(text, NULL, 10);
        self->states++;
        if (number <= self->newest) {
            self->outdated++;   // it came after a newer one: not shown
            continue;
        }
        int64_t still = now - self->shown_ns;
        if (self->newest > 0 && still > self->longest_ns) self->longest_ns = still;
        if (self->newest > 0 && still > 500 * INT64_C(1000000)) self->freezes++;
        self->newest = number;
        self->shown_ns = now;
    }
}

static int fail(const char *what, int err) {
    fprintf(stderr, "%s: %s\n", what, nkt_strerror(err));
    return 1;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "train";
    nkt_env env;
    nkt_problem problem;
    nkt_impairment up, down;
    nkt_udp_opts opts;
    nkt_udp *server, *client;
    int err = nkt_impair_profile(name, &up, &down, &problem);
    if (err < 0) {
        fprintf(stderr, "%s: %s\n", name, problem.text);
        return 1;
    }
    up.seed = down.seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 7;
    if ((err = nkt_env_init_virtual(&env, up.seed)) < 0) return fail("clock", err);
    memset(&opts, 0, sizeof opts);
    opts.env = &env;
    opts.nonblocking = true;
    if ((err = nkt_udp_pair(&opts, &opts, 0, &server, &client)) < 0) return fail("pair", err);
    // The player is the one on the train.
    if ((err = nkt_udp_impair_ways(client, &up, &down)) < 0) return fail("impair", err);

    player who = { 0, 0, 0, 0, 0, 0 };
    long sent = 0;
    while (nkt_now_ns(&env) < HOUR_MS * INT64_C(1000000)) {
        char state[64];
        sent++;
        snprintf(state, sizeof state, "%ld x=%ld y=%ld", sent, sent * 3, sent * 2);
        if ((err = (int)nkt_udp_send_str(server, state, NULL)) < 0) return fail("send", err);
        player_hears(&who, client, nkt_now_ns(&env));
        nkt_sleep(&env, FRAME_MS);
    }
    nkt_impair_stats stats;
    nkt_udp_impair_stats(client, NKT_READ, &stats);
    printf("%s, seed %llu: %ld states sent in an hour, %.1f %% lost, %ld came too late\n", name,
           (unsigned long long)stats.seed, sent, 100.0 * (double)stats.lost / (double)sent,
           who.outdated);
    printf("the picture froze %ld times for over half a second, at worst for %.1f s\n",
           who.freezes, (double)who.longest_ns / 1e9);
    nkt_udp_close(server);
    nkt_udp_close(client);
    nkt_env_free(&env);
    return 0;
}
