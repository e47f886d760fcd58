/* Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011).
 *
 * A draw is a pure function of (seed, purpose, a, b, n): no state travels between processes, so the
 * same numbers come out in any worker, in any order. A purpose names what the number is for; two uses
 * with different purposes never share a draw. */
#ifndef HSSL_RNG_H
#define HSSL_RNG_H

#include <stdint.h>

typedef enum {
    RNG_SHUFFLE = 1, /* a: epoch */
    RNG_VIEW,        /* a: epoch, b: image and view */
    RNG_INIT,        /* a: hash of the parameter's name */
    RNG_DROP_PATH,   /* a: step, b: layer and branch */
    RNG_SYNTH,       /* a: image */
    RNG_TEST
} RngPurpose;

/* A sequence of draws under one key. Copy it to fork it; seek by setting n. */
typedef struct {
    uint64_t seed, a;
    uint32_t b, purpose;
    uint32_t n; /* draws made */
} Rng;

Rng rng_make(uint64_t seed, RngPurpose purpose, uint64_t a, uint32_t b);

uint32_t rng_u32(Rng *r);
/* Draws 4 i .. 4 i + 3 of the sequence at once, wherever r stands: four for the price of one. */
void rng_four(const Rng *r, uint32_t i, uint32_t out[4]);
/* Uniform in [0, 1), 24 bits, exact in float32. */
float rng_uniform(Rng *r);
/* Uniform in [0, 1), 53 bits (two draws). */
double rng_uniform53(Rng *r);
/* Uniform integer in [0, n), n > 0, without bias. */
uint32_t rng_below(Rng *r, uint32_t n);
/* Standard normal (Box-Muller, two draws a value). */
float rng_normal(Rng *r);
/* Normal with mean 0 and deviation std, redrawn until it lies in [lo, hi]. */
float rng_trunc_normal(Rng *r, float std, float lo, float hi);

/* 64-bit FNV-1a of a string: turns a name into a key. */
uint64_t rng_hash(const char *s);

/* One element of a seeded permutation of [0, n): a Feistel network with cycle walking, so position i of
 * an epoch's order is found without making the order. n in [1, 2^62]. A bijection for every key. */
uint64_t rng_permute(uint64_t seed, uint64_t epoch, uint64_t i, uint64_t n);

#endif
