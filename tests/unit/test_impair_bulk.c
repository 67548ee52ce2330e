// test_impair_bulk.c - every byte arrives in order, whatever the network does
//
// Much is moved from one end of a pair to the other, with partial reads and
// writes and a stall before every tenth of them, and both sides are hashed. In
// virtual time, so that only the bytes cost. With NKT_TEST_ALL=1 it is 1 GiB.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include "nkt_test.h"

// A hash of 2 GiB takes a minute where the compiler is told nothing.
#if defined(__GNUC__) && !defined(__clang__)
    #pragma GCC optimize("O2")
#endif

//------------------------------------------------------------------------------
// SHA-256, FIPS 180-4
//------------------------------------------------------------------------------

typedef struct sha {
    uint32_t state[8];
    uint8_t block[64];
    uint64_t len;
} sha;

static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
    0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
    0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
    0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
    0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
    0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
    0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2,
};

static inline uint32_t turn(uint32_t x, int by) {
    return x >> by | x << (32 - by);
}

// One round; whose turn it is goes around instead of the eight values.
#define SHA_ROUND(a, b, c, d, e, f, g, h, i)                                             \
    do {                                                                                 \
        uint32_t one = (h) + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) +                  \
                       (((e) & (f)) ^ (~(e) & (g))) + sha_k[i] + w[i];                   \
        (d) += one;                                                                      \
        (h) = one + (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) +                           \
              (((a) & (b)) ^ ((a) & (c)) ^ ((b) & (c)));                                 \
    } while (0)

static void sha_block(sha *to, const uint8_t *bytes) {
    uint32_t w[64];
    uint32_t a = to->state[0], b = to->state[1], c = to->state[2], d = to->state[3];
    uint32_t e = to->state[4], f = to->state[5], g = to->state[6], h = to->state[7];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)bytes[i * 4] << 24 | (uint32_t)bytes[i * 4 + 1] << 16 |
               (uint32_t)bytes[i * 4 + 2] << 8 | bytes[i * 4 + 3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ x >> 3) + w[i - 7] +
               (turn(y, 17) ^ turn(y, 19) ^ y >> 10);
    }
    for (int i = 0; i < 64; i += 8) {
        SHA_ROUND(a, b, c, d, e, f, g, h, i);
        SHA_ROUND(h, a, b, c, d, e, f, g, i + 1);
        SHA_ROUND(g, h, a, b, c, d, e, f, i + 2);
        SHA_ROUND(f, g, h, a, b, c, d, e, i + 3);
        SHA_ROUND(e, f, g, h, a, b, c, d, i + 4);
        SHA_ROUND(d, e, f, g, h, a, b, c, i + 5);
        SHA_ROUND(c, d, e, f, g, h, a, b, i + 6);
        SHA_ROUND(b, c, d, e, f, g, h, a, i + 7);
    }
    to->state[0] += a;
    to->state[1] += b;
    to->state[2] += c;
    to->state[3] += d;
    to->state[4] += e;
    to->state[5] += f;
    to->state[6] += g;
    to->state[7] += h;
}

static void sha_begin(sha *h) {
    static const uint32_t first[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    memcpy(h->state, first, sizeof first);
    h->len = 0;
}

static void sha_add(sha *h, const uint8_t *bytes, size_t len) {
    size_t have = (size_t)(h->len % 64);
    h->len += len;
    while (len > 0) {
        if (have == 0 && len >= 64) {
            sha_block(h, bytes);
            bytes += 64;
            len -= 64;
            continue;
        }
        size_t some = len < 64 - have ? len : 64 - have;
        memcpy(h->block + have, bytes, some);
        have += some;
        bytes += some;
        len -= some;
        if (have == 64) {
            sha_block(h, h->block);
            have = 0;
        }
    }
}

static void sha_end(sha *h, char text[65]) {
    uint64_t bits = h->len * 8;
    uint8_t tail[72] = { 0x80 };
    size_t pad = 1 + (size_t)((119 - h->len % 64) % 64);
    for (int i = 0; i < 8; i++) tail[pad + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    sha_add(h, tail, pad + 8);
    for (int i = 0; i < 8; i++) snprintf(text + i * 8, 9, "%08x", (unsigned)h->state[i]);
}

// NIST's examples for FIPS 180-4, "SHA256.pdf", and its empty message.
static void check_sha(void) {
    static const struct { const char *message, *digest; } vectors[] = {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
    };
    TEST("the hash, by its standard's examples") {
        for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
            sha h;
            char text[65];
            sha_begin(&h);
            sha_add(&h, (const uint8_t *)vectors[i].message, strlen(vectors[i].message));
            sha_end(&h, text);
            CHECK_STR(text, vectors[i].digest);
        }
    }
}

//------------------------------------------------------------------------------
// Moving
//------------------------------------------------------------------------------

enum { CHUNK = 65536, MIB = 1 << 20 };

typedef struct bulk {
    nkt_env env;
    nkt_conn *a, *b;
    nkt_poller *poller;
    uint64_t total, sent, got, random;
    uint8_t out[CHUNK], in[CHUNK];
    size_t out_len;
    sha hash_out, hash_in;
    int end;                        // what reading ended with
} bulk;

static void bulk_fill(bulk *m) {
    m->out_len = m->total - m->sent < CHUNK ? (size_t)(m->total - m->sent) : CHUNK;
    for (size_t i = 0; i < sizeof m->out; i += 8) {
        m->random ^= m->random << 13;
        m->random ^= m->random >> 7;
        m->random ^= m->random << 17;
        memcpy(m->out + i, &m->random, 8);
    }
    sha_add(&m->hash_out, m->out, m->out_len);
}

static void bulk_write(bulk *m) {
    while (m->sent < m->total) {
        if (m->out_len == 0) bulk_fill(m);
        int err = nkt_conn_write(m->a, m->out, m->out_len);
        if (err == NKT_EAGAIN) return;
        if (!CHECK_INT(err, NKT_OK)) {
            m->end = err;
            return;
        }
        m->sent += m->out_len;
        m->out_len = 0;
        if (m->sent == m->total) CHECK_INT(nkt_conn_shutdown_write(m->a), NKT_OK);
    }
}

static void bulk_read(bulk *m) {
    ptrdiff_t got;
    while ((got = nkt_conn_read(m->b, m->in, sizeof m->in)) > 0) {
        sha_add(&m->hash_in, m->in, (size_t)got);
        m->got += (uint64_t)got;
    }
    if (got != NKT_EAGAIN) m->end = (int)got;
}

static bool bulk_open(bulk *m, const nkt_impairment *sending, const nkt_impairment *receiving) {
    nkt_conn_opts opts;
    nkt_poller_opts poller_opts;
    memset(&opts, 0, sizeof opts);
    memset(&poller_opts, 0, sizeof poller_opts);
    opts.env = poller_opts.env = &m->env;
    opts.nonblocking = true;
    return CHECK_INT(nkt_env_init_virtual(&m->env, 1), NKT_OK) &&
           CHECK_INT(nkt_conn_pair(&opts, &opts, &m->a, &m->b), NKT_OK) &&
           CHECK_INT(nkt_conn_impair_ways(m->a, sending, NULL), NKT_OK) &&
           CHECK_INT(nkt_conn_impair_ways(m->b, NULL, receiving), NKT_OK) &&
           CHECK_INT(nkt_poller_open(&poller_opts, &m->poller), NKT_OK) &&
           CHECK_INT(nkt_poller_add_conn(m->poller, m->a, NULL), NKT_OK) &&
           CHECK_INT(nkt_poller_add_conn(m->poller, m->b, NULL), NKT_OK);
}

static void bulk_move(bulk *m, uint64_t total, const nkt_impairment *sending,
                      const nkt_impairment *receiving) {
    char text_out[65], text_in[65];
    nkt_event event;
    memset(m, 0, sizeof *m);
    m->total = total;
    m->random = 0x9e3779b97f4a7c15u;
    sha_begin(&m->hash_out);
    sha_begin(&m->hash_in);
    if (!bulk_open(m, sending, receiving)) return;
    bulk_write(m);
    while (m->end == 0) {
        // Nothing that these networks do takes an hour.
        if (!CHECK(nkt_poller_wait(m->poller, 3600000) > 0)) break;
        while (nkt_poller_next(m->poller, &event) == NKT_OK) {
            if (event.conn == m->a) bulk_write(m);
            else bulk_read(m);
        }
    }
    CHECK_INT(m->end, NKT_EOF);
    CHECK_INT(m->got, total);
    sha_end(&m->hash_out, text_out);
    sha_end(&m->hash_in, text_in);
    CHECK_STR(text_in, text_out);
}

static void bulk_close(bulk *m) {
    nkt_conn_close(m->a);
    nkt_conn_close(m->b);
    nkt_poller_close(m->poller);
    nkt_env_free(&m->env);
}

static nkt_impairment pieces(uint64_t seed, uint32_t piece_max) {
    nkt_impairment bad;
    memset(&bad, 0, sizeof bad);
    bad.seed = seed;
    bad.stall = 0.1;
    bad.stall_ms = 1;
    bad.piece_max = piece_max;
    return bad;
}

int main(void) {
    static bulk m;
    nkt_impair_stats stats;
    bool all = getenv("NKT_TEST_ALL") != NULL;
    check_sha();
    TEST("1 to 3 bytes at a time") {
        nkt_impairment sending = pieces(1, 3), receiving = pieces(2, 2);
        bulk_move(&m, MIB / 8, &sending, &receiving);
        bulk_close(&m);
    }
    TEST("10 % stalls and partial I/O") {
        nkt_impairment sending = pieces(3, 20000), receiving = pieces(4, 30000);
        bulk_move(&m, all ? (uint64_t)1024 * MIB : (uint64_t)8 * MIB + 1, &sending, &receiving);
        CHECK_INT(nkt_conn_impair_stats(m.a, NKT_WRITE, &stats), NKT_OK);
        CHECK_INT(stats.sent_bytes, m.total);
        CHECK_INT(stats.delivered_bytes, m.total);
        double calls = (double)stats.sent;
        CHECK_RANGE(calls, (double)m.total / 20000, (double)m.total / 5000);
        // Binomial, five deviations.
        double off = (double)stats.stalls - calls * 0.1;
        CHECK_RANGE(off * off, 0, 25 * 0.09 * calls);
        bulk_close(&m);
    }
    TEST("the same, late, with losses and a rate") {
        nkt_impairment sending = pieces(5, 20000), receiving = pieces(6, 3000);
        sending.latency_ms = 20;
        sending.jitter_ms = 10;
        sending.loss = 0.01;
        sending.loss_burst = 3;
        receiving.rate = 10000000;
        receiving.corrupt = 0.01;
        bulk_move(&m, (uint64_t)(all ? 64 : 4) * MIB, &sending, &receiving);
        bulk_close(&m);
    }
    return test_finish();
}
