/* Test Anything Protocol for the C tests. A test program calls ok() and friends, then returns tap_done(). */
#ifndef HSSL_TAP_H
#define HSSL_TAP_H

#include <stdbool.h>
#include <stddef.h>

/* One test. Returns condition. */
bool ok(bool condition, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void skip(const char *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool is_str(const char *got, const char *want, const char *name);
bool is_int(long long got, long long want, const char *name);
/* max |got - want| / max |want| <= tolerance, and every value finite; says the error on failure. */
bool is_close(const float *got, const float *want, size_t n, double tolerance, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* The device that tests of the engine run on: HSSL_TEST_DEVICE, or "cpu". */
const char *test_device(void);
/* Print the plan; 0 when all tests passed and there was at least one, else 1. */
int tap_done(void);

#endif
