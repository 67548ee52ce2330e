// game_loop.c - a game on the network that never stalls a frame
//
// Shows a nonblocking connection without a poller: it is asked once a frame,
// and looking the name up, connecting, sending and receiving go on behind that.
// A repeating timer makes the frames, and counts those that came too late.
//
//     cc -I. examples/game_loop.c -o game_loop -pthread
//     ./echo_server_threads :7777
//     ./game_loop play.example.org:7777  (in another window)
//
// Plays for two seconds and prints:
//
//     frame 3: player at 10
//     frame 11: player at 20
//     ...
//     125 frames, 0 late; the network took 0.011 ms of a frame, 0.214 at most

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <stdio.h>

int main(int argc, char **argv) {
    nkt_connect_report report;
    nkt_connect_opts opts = {0};
    opts.nonblocking = true;
    opts.default_port = 7777;
    opts.report = &report;
    nkt_conn *conn;
    if (nkt_connect(argc > 1 ? argv[1] : "localhost", &opts, &conn) < 0) {
        fprintf(stderr, "%s\n", report.text);       // bad text; the rest is told by later calls
        return 1;
    }
    nkt_timer_opts every_16_ms = {NULL, 16, 16};
    nkt_task *frames;
    if (nkt_timer_start(&every_16_ms, &frames) < 0) return 1;

    int frame, late = 0, x = 0, err = NKT_EAGAIN;
    double sum_ms = 0, most_ms = 0;
    for (frame = 0; frame < 125 && err == NKT_EAGAIN; frame++) {
        nkt_str line;
        int64_t begin = nkt_now_ns(NULL);
        while ((err = nkt_conn_read_line(conn, &line)) == NKT_OK)
            printf("frame %d: %s\n", frame, line.ptr);
        if (frame % 8 == 0) {
            char text[40];
            snprintf(text, sizeof text, "player at %d\n", x += 10);
            nkt_conn_write_str(conn, text);         // queued while it is not connected yet
        }
        double ms = (double)(nkt_now_ns(NULL) - begin) / 1e6;
        sum_ms += ms;
        if (ms > most_ms) most_ms = ms;
        // Here the game thinks and draws.
        while (nkt_task_wait(frames, -1) == NKT_EINTR) {}
        late += nkt_timer_finish(frames) - 1;
    }
    printf("%d frames, %d late; the network took %.3f ms of a frame, %.3f at most\n", frame,
           late, sum_ms / frame, most_ms);
    if (err != NKT_EAGAIN) {
        nkt_conn_report(conn, &report);
        fprintf(stderr, "%s\n", report.err < 0 ? report.text : nkt_strerror(err));
    }
    nkt_task_close(frames);
    nkt_conn_close(conn);
    return err != NKT_EAGAIN;
}
