// How long reading and writing addresses takes, next to inet_pton and
// inet_ntop. Build and run it with optimization:
//
//     cc -O2 -I. tests/bench/bench_addr.c -o build/bench_addr -pthread
//
// The rows are interleaved and each is the median of 7 runs. "again" is the
// system's own function a second time: its ratio tells how much of the others
// is chance. 1,024 random addresses are gone through, so that the processor
// cannot learn them by heart, which it does with a dozen.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#ifndef _WIN32
    #include <arpa/inet.h>
#endif
#include <stdio.h>

#define ADDRESSES 1024
#define ROUNDS 100
#define RUNS 7
#define ROWS 3

typedef struct sample {
    char text[NKT_IP_TEXT_MAX];
    nkt_ip ip;
} sample;

static sample samples[2][ADDRESSES];
static volatile uint32_t sink;      // so that nothing is optimized away

static void make_samples(void) {
    uint32_t state = 12345;
    for (int i = 0; i < ADDRESSES; i++) {
        uint8_t bytes[16];
        for (int k = 0; k < 16; k++) {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            bytes[k] = (uint8_t)(state >> 9);
        }
        samples[0][i].ip = nkt_ip_from_bytes(bytes, 4);
        // Half of them like the addresses of hosts, with zeros in the middle.
        bytes[0] = 0x20;
        bytes[1] = 0x01;
        if (i % 2 == 0) memset(bytes + 6, 0, 6);
        samples[1][i].ip = nkt_ip_from_bytes(bytes, 16);
        for (int k = 0; k < 2; k++) {
            nkt_ip_format(&samples[k][i].ip, samples[k][i].text, NKT_IP_TEXT_MAX);
        }
    }
}

static void system_parse(int six) {
    for (int i = 0; i < ADDRESSES; i++) {
        uint8_t bytes[16];
        if (inet_pton(six ? AF_INET6 : AF_INET, samples[six][i].text, bytes) != 1) abort();
        sink += bytes[3];
    }
}

static void our_parse(int six) {
    for (int i = 0; i < ADDRESSES; i++) {
        nkt_ip ip;
        if (nkt_ip_parse(samples[six][i].text, &ip) != NKT_OK) abort();
        sink += ip.bytes[3];
    }
}

static void system_format(int six) {
    for (int i = 0; i < ADDRESSES; i++) {
        char text[NKT_IP_TEXT_MAX];
        const void *bytes = samples[six][i].ip.bytes;
        if (inet_ntop(six ? AF_INET6 : AF_INET, bytes, text, sizeof text) == NULL) abort();
        sink += (uint8_t)text[3];
    }
}

static void our_format(int six) {
    for (int i = 0; i < ADDRESSES; i++) {
        char text[NKT_IP_TEXT_MAX];
        if (nkt_ip_format(&samples[six][i].ip, text, sizeof text) < 0) abort();
        sink += (uint8_t)text[3];
    }
}

static int compare_doubles(const void *a, const void *b) {
    double left, right;
    memcpy(&left, a, sizeof left);
    memcpy(&right, b, sizeof right);
    return left < right ? -1 : left > right;
}

// Times the three rows in turn; `families` is 1 for IPv4, 2 for IPv6, 3 both.
static void measure(const char *name, int families, void (*system)(int), void (*ours)(int)) {
    static const char *const rows[ROWS] = {"system", "again", "netkit"};
    double ns[ROWS][RUNS], base = 0;
    for (int run = -1; run < RUNS; run++) {         // the first one warms up
        for (int row = 0; row < ROWS; row++) {
            int64_t start = nkt_now_ns(NULL);
            for (int round = 0; round < ROUNDS; round++) {
                if (families & 1) (row < 2 ? system : ours)(0);
                if (families & 2) (row < 2 ? system : ours)(1);
            }
            int64_t took = nkt_now_ns(NULL) - start;
            int each = ROUNDS * ADDRESSES * (families == 3 ? 2 : 1);
            if (run >= 0) ns[row][run] = (double)took / each;
        }
    }
    for (int row = 0; row < ROWS; row++) {
        qsort(ns[row], RUNS, sizeof ns[row][0], compare_doubles);
        double median = ns[row][RUNS / 2];
        if (row == 0) base = median;
        printf("%-14s %-8s %8.1f ns %6.2f\n", name, rows[row], median, median / base);
    }
}

int main(void) {
    make_samples();
    measure("parse IPv4", 1, system_parse, our_parse);
    measure("parse IPv6", 2, system_parse, our_parse);
    measure("parse both", 3, system_parse, our_parse);
    measure("format IPv4", 1, system_format, our_format);
    measure("format IPv6", 2, system_format, our_format);
    measure("format both", 3, system_format, our_format);
    return 0;
}
