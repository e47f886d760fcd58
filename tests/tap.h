/* Test Anything Protocol for the C tests. A test program calls ok() and friends, then returns tap_done().
 *
 * A test that fails shows what it saw, on standard error, which prove passes on: where it stands, the condition, and the
 * last error of the library. What diag() says after it goes there too. */
#ifndef HSSL_TAP_H
#define HSSL_TAP_H

#include <stdbool.h>
#include <stddef.h>

/* One test: ok(condition, "name %d", ...). Returns condition. */
#define ok(condition, ...) tap_ok(condition, #condition, __FILE__, __LINE__, __VA_ARGS__)
bool tap_ok(bool condition, const char *text, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void skip(const char *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool is_str(const char *got, const char *want, const char *name);
bool is_int(long long got, long long want, const char *name);
/* max |got - want| / max |want| <= tolerance, and every value finite; says the error on failure. */
bool is_close(const float *got, const float *want, size_t n, double tolerance, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Longer than any machine is busy: a bound for what must come, which only that reaches which hangs. */
enum { TAP_PATIENCE_S = 600 };
/* Rounds of a test that `make siege` does HSSL_SIEGE times as often. */
int siege(int rounds);

/* The device that tests of the engine run on: HSSL_TEST_DEVICE, or "cpu". */
const char *test_device(void);
/* Print the plan; 0 when all tests passed and there was at least one, else 1. */
int tap_done(void);

#endif
