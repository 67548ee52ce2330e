// nkt_test.h - the checks that every C test program uses
//
//     int main(void) {
//         TEST("an IPv4 address") {
//             CHECK_INT(nkt_ip_parse("1.2.3.4", &ip), NKT_OK);
//         }
//         return test_finish();
//     }
//
// A test has a name and at least one check: one that ran no check fails. A
// failing check prints both values and the test goes on. TEST_SKIP names what
// is missing and what to install; with NKT_TEST_NO_SKIP=1 in the environment
// a skip is a failure. The last line is "N passed, N failed[, N skipped]".
// NKT_TEST_ONLY=text runs only the tests whose name contains the text.
// Checks may be made from several threads.

#ifndef NKT_TEST_H
#define NKT_TEST_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// 1 where a sanitizer makes everything many times slower, for tests that can do
// with fewer rounds.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    #define TEST_IS_SLOW 1
#elif defined(__has_feature)
    #if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
        #define TEST_IS_SLOW 1
    #endif
#endif
#ifndef TEST_IS_SLOW
    #define TEST_IS_SLOW 0
#endif

static struct {
    char name[160];
    int checks, failures;           // of the running test
    int passed, failed, skipped;    // tests
    int skip;
    // Sees a check that does not hold before it is counted; true excuses it.
    // `got` is what a CHECK_INT has got, or how many bytes a CHECK_MEM has.
    int (*excuse)(int kind, long long got);
    int over;                       // set by an excuse: what CHECK_MEM is given may be gone
} nkt_test;

// What an excuse is told of a check: its result is a number; it is bytes, and
// these are the beginning of what was wanted; anything else.
enum { TEST_NUMBER, TEST_BEGINNING, TEST_OTHER };

static inline int test_begin(const char *name) {
    const char *only = getenv("NKT_TEST_ONLY");
    if (only != NULL && strstr(name, only) == NULL) return 0;
    snprintf(nkt_test.name, sizeof nkt_test.name, "%s", name);
    nkt_test.checks = nkt_test.failures = nkt_test.skip = 0;
    return 1;
}

static inline int test_end(void) {
    if (nkt_test.skip != 0) {
        nkt_test.skipped++;
        return 0;
    }
    if (__atomic_load_n(&nkt_test.checks, __ATOMIC_SEQ_CST) == 0) {
        printf("FAILED %s: it ran no check\n", nkt_test.name);
        nkt_test.failures++;
    }
    if (__atomic_load_n(&nkt_test.failures, __ATOMIC_SEQ_CST) == 0) {
        nkt_test.passed++;
        if (getenv("NKT_TEST_VERBOSE") != NULL) printf("ok %s\n", nkt_test.name);
    } else {
        nkt_test.failed++;
        printf("FAILED %s\n", nkt_test.name);
    }
    fflush(stdout);
    return 0;
}

// Runs the block that follows as a test.
#define TEST(name)                                                                       \
    for (int test_on = test_begin(name); test_on != 0; test_on = test_end())

static inline void test_skip(const char *why) {
    const char *strict = getenv("NKT_TEST_NO_SKIP");
    if (strict != NULL && strcmp(strict, "1") == 0) {
        printf("  %s: a skip is a failure here: %s\n", nkt_test.name, why);
        nkt_test.checks++;
        nkt_test.failures++;
        return;
    }
    printf("skipped %s: %s\n", nkt_test.name, why);
    nkt_test.skip = 1;
}
#define TEST_SKIP(why) test_skip(why)

enum { TEST_WRONG, TEST_RIGHT, TEST_EXCUSED };

static inline int test_verdict_of(int ok, const char *file, int line, int kind, long long got) {
    __atomic_fetch_add(&nkt_test.checks, 1, __ATOMIC_SEQ_CST);
    if (ok) return TEST_RIGHT;
    if (nkt_test.excuse != NULL && nkt_test.excuse(kind, got)) return TEST_EXCUSED;
    __atomic_fetch_add(&nkt_test.failures, 1, __ATOMIC_SEQ_CST);
    printf("  %s:%d: in \"%s\": ", file, line, nkt_test.name);
    return TEST_WRONG;
}

static inline int test_verdict(int ok, const char *file, int line) {
    return test_verdict_of(ok, file, line, TEST_OTHER, 0);
}

static inline int test_check_int(long long got, long long want, const char *text, const char *file,
                          int line) {
    int verdict = test_verdict_of(got == want, file, line, TEST_NUMBER, got);
    if (verdict != TEST_WRONG) return verdict == TEST_RIGHT;
    printf("%s is %lld, not %lld\n", text, got, want);
    return 0;
}

static inline int test_check_range(double got, double low, double high, const char *text,
                            const char *file, int line) {
    int verdict = test_verdict(got >= low && got <= high, file, line);
    if (verdict != TEST_WRONG) return verdict == TEST_RIGHT;
    printf("%s is %g, not in %g to %g\n", text, got, low, high);
    return 0;
}

static inline void test_print_bytes(const void *data, size_t len) {
    const unsigned char *bytes = (const unsigned char *)data;
    printf("%llu bytes \"", (unsigned long long)len);
    for (size_t i = 0; i < len && i < 80; i++) {
        if (bytes[i] >= 32 && bytes[i] < 127) putchar(bytes[i]);
        else printf("\\x%02x", bytes[i]);
    }
    printf(len > 80 ? "...\"" : "\"");
}

static inline int test_check_mem(const void *got, size_t got_len, const void *want, size_t want_len,
                          const char *text, const char *file, int line) {
    if (nkt_test.over) return 0;
    int begins = got_len <= want_len && (got_len == 0 || memcmp(got, want, got_len) == 0);
    int verdict = test_verdict_of(begins && got_len == want_len, file, line,
                                  begins ? TEST_BEGINNING : TEST_OTHER, (long long)got_len);
    if (verdict != TEST_WRONG) return verdict == TEST_RIGHT;
    printf("%s is ", text);
    test_print_bytes(got, got_len);
    printf(", not ");
    test_print_bytes(want, want_len);
    printf("\n");
    return 0;
}

static inline int test_check(int ok, const char *text, const char *file, int line) {
    int verdict = test_verdict(ok, file, line);
    if (verdict != TEST_WRONG) return verdict == TEST_RIGHT;
    printf("not true: %s\n", text);
    return 0;
}

// Each gives 1 if it holds, so that a test can stop where going on makes no
// sense.
#define CHECK(condition) test_check((condition) != 0, #condition, __FILE__, __LINE__)
#define CHECK_INT(got, want)                                                             \
    test_check_int((long long)(got), (long long)(want), #got, __FILE__, __LINE__)
#define CHECK_RANGE(got, low, high)                                                      \
    test_check_range((double)(got), (double)(low), (double)(high), #got, __FILE__, __LINE__)
#define CHECK_MEM(got, got_len, want, want_len)                                          \
    test_check_mem(got, got_len, want, want_len, #got, __FILE__, __LINE__)
#define CHECK_STR(got, want)                                                             \
    test_check_mem(got, strlen(got), want, strlen(want), #got, __FILE__, __LINE__)
// An nkt_str against a text.
#define CHECK_VIEW(view, want)                                                           \
    test_check_mem((view).ptr, (view).len, want, strlen(want), #view, __FILE__, __LINE__)

static inline int test_finish(void) {
    if (nkt_test.passed + nkt_test.failed + nkt_test.skipped == 0) {
        printf("no test was run\n");
        return 1;
    }
    printf("%d passed, %d failed", nkt_test.passed, nkt_test.failed);
    if (nkt_test.skipped > 0) printf(", %d skipped", nkt_test.skipped);
    printf("\n");
    return nkt_test.failed > 0;
}

#endif
