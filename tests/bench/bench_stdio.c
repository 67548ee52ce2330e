// bench_stdio.c - lines by the C library: fdopen and getline
//
//     cc -O2 tests/bench/bench_stdio.c -o build/bench_stdio

#define _GNU_SOURCE
#include "bench.h"

static FILE *lines;
static char *lines_text;
static size_t lines_cap;

static void lines_open(int fd) {
    lines = fdopen(fd, "r");
    bench_check(lines != NULL, "fdopen");
}

static size_t lines_read(long count) {
    size_t sum = 0;
    while (count-- > 0) {
        ssize_t len = getline(&lines_text, &lines_cap, lines);
        if (len <= 0) bench_die("getline");
        sum += (size_t)len - 1;
    }
    return sum;
}

static const bench_ops ops = {
    lines_open, lines_read, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
};
