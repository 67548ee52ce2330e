// text.h - what every parser of text must keep, and a second opinion
//
// The second opinion is the C library's inet_pton and a dozen lines of plain C
// for what stands around an address. Scopes are left out of it: it has none.

#ifndef NKT_TEST_FUZZ_TEXT_H
#define NKT_TEST_FUZZ_TEXT_H

#include "fuzz.h"

#include <arpa/inet.h>

enum { TEXT_MAX = 300 };

// A failure tells what and where, and leaves the output alone.
static inline void text_check_failure(int err, const nkt_problem *problem, size_t size) {
    FUZZ(problem->err == err);
    FUZZ(problem->offset >= -1 && problem->offset <= (int64_t)size);
    FUZZ(memchr(problem->field, '\0', sizeof problem->field) != NULL);
    FUZZ(memchr(problem->text, '\0', sizeof problem->text) != NULL);
    FUZZ(problem->field[0] != '\0' && problem->text[0] != '\0');
}

static inline bool text_is_untouched(const void *output, size_t len) {
    const uint8_t *bytes = (const uint8_t *)output;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != 0xa5) return false;
    }
    return true;
}

// What does not fit is refused at every capacity, and what does is the same.
typedef int (*text_format)(const void *value, char *buf, size_t cap);

static inline void text_check_room(text_format format, const void *value, const char *text,
                                   int len) {
    char room[TEXT_MAX + 80];
    FUZZ((size_t)len == strlen(text));
    for (int cap = 0; cap <= len + 1; cap++) {
        memset(room, '#', sizeof room);
        FUZZ(format(value, room, (size_t)cap) == (cap <= len ? (int)NKT_ENOSPACE : len));
        FUZZ(room[cap] == '#');
    }
    FUZZ(strcmp(room, text) == 0);
}

static inline bool text_has_nul(const uint8_t *data, size_t size) {
    return size > 0 && memchr(data, '\0', size) != NULL;
}

// Whether the C library takes it for an address of the family.
static inline bool text_is_ip(const char *text, size_t len, int family, uint8_t bytes[16]) {
    char copy[TEXT_MAX];
    memset(bytes, 0, 16);
    if (len >= sizeof copy || memchr(text, '\0', len) != NULL) return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return inet_pton(family == NKT_IPV4 ? AF_INET : AF_INET6, copy, bytes) == 1;
}

// A decimal number without leading zeros, up to `max`.
static inline bool text_is_number(const char *text, size_t len, unsigned max, unsigned *number) {
    *number = 0;
    if (len == 0 || len > 6 || (len > 1 && text[0] == '0')) return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        *number = *number * 10 + (unsigned)(text[i] - '0');
    }
    return *number <= max;
}

#endif
