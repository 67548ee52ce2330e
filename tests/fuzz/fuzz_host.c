// fuzz_host.c - nkt_host_check against the grammar in @target, written anew

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "text.h"

static bool is_letter_or_digit(uint8_t byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9');
}

static bool is_label(const uint8_t *label, size_t len) {
    if (len < 1 || len > 63 || label[0] == '-' || label[len - 1] == '-') return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_letter_or_digit(label[i]) && label[i] != '-' && label[i] != '_') return false;
    }
    return true;
}

static bool is_host(const uint8_t *name, size_t size) {
    size_t begin = 0;
    if (size > 1 && name[size - 1] == '.') size--;
    if (size == 0 || size > NKT_HOST_MAX) return false;
    for (size_t i = 0; i <= size; i++) {
        if (i < size && name[i] != '.') continue;
        if (!is_label(name + begin, i - begin)) return false;
        begin = i + 1;
    }
    return true;
}

static bool is_ascii(const uint8_t *name, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (name[i] > 127) return false;
    }
    return true;
}

// The last label has digits alone, or is "0x" and hex digits.
static bool ends_in_number(const uint8_t *name, size_t size) {
    if (size > 1 && name[size - 1] == '.') size--;
    size_t begin = size;
    while (begin > 0 && name[begin - 1] != '.') begin--;
    bool digits = begin < size;
    for (size_t i = begin; i < size; i++) digits = digits && name[i] >= '0' && name[i] <= '9';
    if (digits || size - begin < 2 || name[begin] != '0') return digits;
    if (name[begin + 1] != 'x' && name[begin + 1] != 'X') return false;
    for (size_t i = begin + 2; i < size; i++) {
        uint8_t low = name[i] | 0x20;
        if (!((name[i] >= '0' && name[i] <= '9') || (low >= 'a' && low <= 'f'))) return false;
    }
    return true;
}

static bool is_local(const uint8_t *name, size_t size) {
    const char *word = "localhost";
    if (size > 0 && name[size - 1] == '.') size--;
    if (size < 9) return false;
    for (size_t i = 0; i < 9; i++) {
        uint8_t byte = name[size - 9 + i];
        if (byte >= 'A' && byte <= 'Z') byte = (uint8_t)(byte + 32);
        if (byte != (uint8_t)word[i]) return false;
    }
    return size == 9 || name[size - 10] == '.';
}

static void fuzz_one(const uint8_t *data, size_t size) {
    const char *name = (const char *)data;
    nkt_problem problem;
    int err = nkt_host_check(name, size, &problem);
    FUZZ(err == NKT_OK || err == NKT_ENAME || err == NKT_EUNSUPPORTED || err == NKT_EADDR);
    if (err < 0) text_check_failure(err, &problem, size);
    FUZZ((err == NKT_OK) == (is_host(data, size) && !ends_in_number(data, size)));
    if (err == NKT_EUNSUPPORTED) FUZZ(!is_ascii(data, size));
    if (err == NKT_EADDR) FUZZ(ends_in_number(data, size));
    FUZZ(nkt_host_check(name, size, NULL) == err);
    if (err == NKT_OK) FUZZ(nkt_host_is_local(name, size) == is_local(data, size));
    else (void)nkt_host_is_local(name, size);
}

static const char *const words[] = {
    "localhost", ".localhost", ".", "xn--", "-", "_", "0x", "123", ".example.org", "\xc3\xa9",
    "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0", NULL };
FUZZ_TARGET("host", words, 8000)
