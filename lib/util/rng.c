#include "util/rng.h"

#include <math.h>

/* Philox4x32-10; constants from Salmon et al., "Parallel random numbers: as easy as 1, 2, 3". */
static void philox(uint32_t ctr[4], uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * ctr[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * ctr[2];
        uint32_t c1 = ctr[1], c3 = ctr[3];
        ctr[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        ctr[1] = (uint32_t)p1;
        ctr[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        ctr[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

Rng rng_make(uint64_t seed, RngPurpose purpose, uint64_t a, uint32_t b)
{
    return (Rng){ .seed = seed, .a = a, .b = b, .purpose = (uint32_t)purpose };
}

void rng_four(const Rng *r, uint32_t i, uint32_t out[4])
{
    /* 128 bits of counter: a (64), b (32), purpose (6) with the draw's block (26). */
    out[0] = (uint32_t)r->a;
    out[1] = (uint32_t)(r->a >> 32);
    out[2] = r->b;
    out[3] = r->purpose << 26 | (i & 0x3FFFFFF);
    philox(out, (uint32_t)r->seed, (uint32_t)(r->seed >> 32));
}

uint32_t rng_u32(Rng *r)
{
    uint32_t words[4];
    rng_four(r, r->n >> 2, words);
    return words[r->n++ & 3];
}

float rng_uniform(Rng *r)
{
    return (float)(rng_u32(r) >> 8) * 0x1p-24f;
}

double rng_uniform53(Rng *r)
{
    uint64_t hi = rng_u32(r) >> 5, lo = rng_u32(r) >> 6;
    return (double)(hi << 26 | lo) * 0x1p-53;
}

uint32_t rng_below(Rng *r, uint32_t n)
{
    /* Lemire's method: reject the few low products that would favour small results. */
    uint64_t m = (uint64_t)rng_u32(r) * n;
    if ((uint32_t)m < n) {
        uint32_t threshold = -n % n;
        while ((uint32_t)m < threshold)
            m = (uint64_t)rng_u32(r) * n;
    }
    return (uint32_t)(m >> 32);
}

float rng_normal(Rng *r)
{
    double u = 1.0 - rng_uniform(r), v = rng_uniform(r); /* u in (0, 1] */
    return (float)(sqrt(-2 * log(u)) * cos(2 * M_PI * v));
}

float rng_trunc_normal(Rng *r, float std, float lo, float hi)
{
    float x;
    do
        x = std * rng_normal(r);
    while (x < lo || x > hi);
    return x;
}

uint64_t rng_hash(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h;
}

uint64_t rng_permute(uint64_t seed, uint64_t epoch, uint64_t i, uint64_t n)
{
    int half = 1; /* bits of each half; 4^half >= n */
    while (half < 31 && (uint64_t)1 << (2 * half) < n)
        half++;
    uint32_t mask = ((uint32_t)1 << half) - 1;
    do { /* walk the cycle until the value falls below n: fewer than 4 steps on average */
        uint32_t left = (uint32_t)(i >> half), right = (uint32_t)i & mask;
        for (uint32_t round = 0; round < 6; round++) {
            Rng r = rng_make(seed, RNG_SHUFFLE, epoch, right);
            r.n = round * 4;
            uint32_t next = left ^ (rng_u32(&r) & mask);
            left = right;
            right = next;
        }
        i = (uint64_t)left << half | right;
    } while (i >= n);
    return i;
}
