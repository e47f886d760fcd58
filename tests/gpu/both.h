/* One call of a kernel on two devices: the processor in F32, and the device under test, on the same numbers.
 *
 *     input(0, DT_REAL, n);  output(1, DT_REAL, n, add);
 *     BOTH(gelu, PointArgs, .type = T(0), .n = n, .x = P(0), .out = P(1), .add = add);
 *     same(1, "gelu of %d", n);
 *
 * Outputs hold what is not a number before the call, or random numbers where the kernel adds to them. In BF16 the
 * processor gets the rounded inputs. */
#ifndef HSSL_TEST_BOTH_H
#define HSSL_TEST_BOTH_H

#include "../tap.h"

#include "tensor/backend.h"

enum { BUFFERS = 16, DT_REAL = 100 /* F32, or BF16 where the device computes in it */ };

extern Backend *side[2]; /* the processor; the device */

/* Opens both. Where there is no device: says so, and exits with 0, or with 1 where HSSL_TEST_DEVICE asks for one. */
void both_open(void);
bool both_slow(void); /* the device is emulated: take small shapes */

void input(int i, int type, int64_t n);                      /* random, about normal */
void input_scaled(int i, int type, int64_t n, float scale, float shift);
void input_bytes(int i, DType type, int64_t n, const void *contents); /* integers */
void output(int i, int type, int64_t n, bool add);
void *both_at(int s, int i);   /* memory of buffer i on side s; NULL where n is 0 */
void *both_from(int s, int i, int64_t first); /* from its element `first` on: not aligned */
DType both_type(int s, int i);
#define P(i) both_at(s, i)
#define FROM(i, first) both_from(s, i, first)
#define T(i) both_type(s, i)

/* Call on both sides; a call that fails is a failed test. */
#define BOTH(entry, Args, ...)                                                                \
    for (int s = 0; s < 2; s++)                                                               \
        both_called(s, #entry, side[s]->entry(side[s], &(Args){ __VA_ARGS__ }))
void both_called(int s, const char *entry, int rc);

/* The output is the same on both, within the digits of its type: error over the largest value of the processor's. */
bool same(int i, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same with a tolerance for F32, as backward passes have it. */
bool same_within(int i, double tolerance, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The first n of it. */
const float *both_floats(int s, int i);

void both_clear(void); /* frees all buffers */

#endif
