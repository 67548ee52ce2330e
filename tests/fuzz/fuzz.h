// fuzz.h - one body for libFuzzer and for a plain main
//
// A target is a function that takes any bytes and checks what must hold for
// all of them. With FUZZ_LIBFUZZER clang's fuzzer calls it (`make fuzz`), and a
// failing check ends the program. Without, main replays the corpus of the
// target, tests/fuzz/corpus/NAME, and then as many mutations of it as it is
// told, always the same ones, as tests like any others:
//
//     static void fuzz_one(const uint8_t *data, size_t size) {
//         FUZZ(parse(data, size) <= 0);
//     }
//     static const char *const words[] = { "::", "255", NULL };
//     FUZZ_TARGET("ip", words, 4000)
//
// The words are what a mutation may put in, and often what makes a
// difference. FUZZ_CORPUS names another folder of inputs to replay.

#ifndef NKT_TEST_FUZZ_H
#define NKT_TEST_FUZZ_H

#include "nkt_test.h"

#include <dirent.h>

enum { FUZZ_SIZE_MAX = 4096, FUZZ_SEEDS_MAX = 4096 };

static const uint8_t *fuzz_data;    // of the running case, for a failing check
static size_t fuzz_size;
static long fuzz_cases;

// Prints the input as the bytes of a file, for printf(1).
static inline void fuzz_failed(const char *text, const char *file, int line) {
    printf("  %s:%d: not true: %s, of printf '", file, line, text);
    for (size_t i = 0; i < fuzz_size; i++) printf("\\%03o", fuzz_data[i]);
    printf("'\n");
    fflush(stdout);
#ifdef FUZZ_LIBFUZZER
    abort();
#endif
}

static inline int fuzz_check(int ok, const char *text, const char *file, int line) {
    if (!ok) fuzz_failed(text, file, line);
#ifndef FUZZ_LIBFUZZER
    __atomic_fetch_add(&nkt_test.checks, 1, __ATOMIC_SEQ_CST);
    if (!ok) __atomic_fetch_add(&nkt_test.failures, 1, __ATOMIC_SEQ_CST);
#endif
    return ok;
}

#define FUZZ(condition) fuzz_check((condition) != 0, #condition, __FILE__, __LINE__)

static void fuzz_one(const uint8_t *data, size_t size);

static inline void fuzz_run(const uint8_t *data, size_t size) {
    fuzz_data = data;
    fuzz_size = size;
    fuzz_cases++;
    // On the heap and no byte longer, so that a sanitizer sees the end.
    uint8_t *copy = (uint8_t *)malloc(size > 0 ? size : 1);
    if (size > 0) memcpy(copy, data, size);
    fuzz_one(copy, size);
    free(copy);
}

//------------------------------------------------------------------------------
// Cutting an input into numbers: what is missing is 0.

typedef struct fuzz_bytes {
    const uint8_t *at, *end;
} fuzz_bytes;

static inline unsigned fuzz_byte(fuzz_bytes *in) {
    return in->at < in->end ? *in->at++ : 0;
}

//------------------------------------------------------------------------------
// Replaying

typedef struct fuzz_seed {
    uint8_t *data;
    size_t size;
} fuzz_seed;

static fuzz_seed fuzz_seeds[FUZZ_SEEDS_MAX];
static size_t fuzz_seed_count;
static const char *const *fuzz_words;
static uint32_t fuzz_state = 2463534242u;

// Marsaglia's xorshift.
static inline uint32_t fuzz_random(uint32_t below) {
    fuzz_state ^= fuzz_state << 13;
    fuzz_state ^= fuzz_state >> 17;
    fuzz_state ^= fuzz_state << 5;
    return below > 0 ? fuzz_state % below : 0;
}

static inline void fuzz_load_file(const char *folder, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || fuzz_seed_count == FUZZ_SEEDS_MAX) return;
    fuzz_seed *seed = &fuzz_seeds[fuzz_seed_count++];
    seed->data = (uint8_t *)malloc(FUZZ_SIZE_MAX);
    seed->size = fread(seed->data, 1, FUZZ_SIZE_MAX, file);
    fclose(file);
}

static inline int fuzz_name_order(const void *a, const void *b) {
    return strcmp((const char *)a, (const char *)b);
}

// In the order of the names, so that every run is the same.
static inline size_t fuzz_load(const char *folder) {
    static char names[FUZZ_SEEDS_MAX][64];
    size_t count = 0;
    DIR *dir = opendir(folder);
    if (dir == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL && count < FUZZ_SEEDS_MAX;) {
        if (entry->d_name[0] == '.') continue;
        snprintf(names[count++], sizeof names[0], "%.63s", entry->d_name);
    }
    closedir(dir);
    qsort(names, count, sizeof names[0], fuzz_name_order);
    for (size_t i = 0; i < count; i++) fuzz_load_file(folder, names[i]);
    return count;
}

static inline size_t fuzz_insert(uint8_t *data, size_t size, size_t at, const void *what,
                                 size_t len) {
    if (size + len > FUZZ_SIZE_MAX) return size;
    memmove(data + at + len, data + at, size - at);
    memcpy(data + at, what, len);
    return size + len;
}

static inline size_t fuzz_mutate_once(uint8_t *data, size_t size) {
    static const char likely[] = "\0\1\x7f\x80\xff\r\n.:%/[]@-_019afxg ";
    size_t at = fuzz_random((uint32_t)size + 1), words = 0;
    uint8_t byte = (uint8_t)likely[fuzz_random(sizeof likely - 1)];
    size_t len = 1 + fuzz_random(8);
    if (len > size - at) len = size - at;
    while (fuzz_words[words] != NULL) words++;
    switch (fuzz_random(8)) {
    case 0:
        if (at < size) data[at] ^= (uint8_t)(1u << fuzz_random(8));
        return size;
    case 1:
        if (at < size) data[at] = byte;
        return size;
    case 2:
        if (at < size) data[at] = (uint8_t)fuzz_random(256);
        return size;
    case 3: return fuzz_insert(data, size, at, &byte, 1);
    case 4:
        memmove(data + at, data + at + len, size - at - len);
        return size - len;
    case 5: {
        uint8_t again[8];
        memcpy(again, data + at, len);
        return fuzz_insert(data, size, fuzz_random((uint32_t)size + 1), again, len);
    }
    case 6: {
        const fuzz_seed *other = &fuzz_seeds[fuzz_random((uint32_t)fuzz_seed_count)];
        size_t from = fuzz_random((uint32_t)other->size + 1);
        return fuzz_insert(data, size, at, other->data + from, (other->size - from) % 64);
    }
    default:
        if (words == 0) return size;
        const char *word = fuzz_words[fuzz_random((uint32_t)words)];
        return fuzz_insert(data, size, at, word, strlen(word));
    }
}

static inline void fuzz_mutations(long count) {
    static uint8_t data[FUZZ_SIZE_MAX];
    for (long i = 0; i < count; i++) {
        const fuzz_seed *seed = &fuzz_seeds[fuzz_random((uint32_t)fuzz_seed_count)];
        size_t size = seed->size;
        memcpy(data, seed->data, size);
        for (uint32_t k = 1 + fuzz_random(6); k > 0; k--) size = fuzz_mutate_once(data, size);
        fuzz_run(data, size);
    }
}

static inline int fuzz_main(const char *name, const char *const *words, long mutations) {
    char folder[256];
    const char *more = getenv("FUZZ_CORPUS");
    fuzz_words = words;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", name);
    TEST("the corpus") {
        CHECK(fuzz_load(folder) > 0);
        if (more != NULL) CHECK(fuzz_load(more) > 0);
        for (size_t i = 0; i < fuzz_seed_count; i++) {
            fuzz_run(fuzz_seeds[i].data, fuzz_seeds[i].size);
        }
    }
    TEST("mutations of it") {
        fuzz_mutations(fuzz_seed_count > 0 ? mutations : 0);
    }
    TEST("no input at all, and every single byte") {
        fuzz_run((const uint8_t *)"", 0);
        for (int i = 0; i < 256; i++) {
            uint8_t byte = (uint8_t)i;
            fuzz_run(&byte, 1);
        }
    }
    for (size_t i = 0; i < fuzz_seed_count; i++) free(fuzz_seeds[i].data);
    return test_finish();
}

#ifdef FUZZ_LIBFUZZER
    #define FUZZ_TARGET(name, words, mutations)                                              \
        int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);                        \
        int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {                       \
            (void)words;                                                                     \
            fuzz_run(data, size);                                                            \
            return 0;                                                                        \
        }
#else
    #define FUZZ_TARGET(name, words, mutations)                                              \
        int main(void) {                                                                     \
            return fuzz_main(name, words, mutations);                                        \
        }
#endif

#endif
