/* Errors: one mechanism for all of lib/.
 *
 * A function that fails records a code and one line of text for the calling thread and returns -1
 * (or NULL). It prints nothing and never exits; the tool decides: skip, count, retry, or die().
 * The text names the input, what is wrong and, where there is one, the remedy. */
#ifndef HSSL_ERR_H
#define HSSL_ERR_H

typedef enum {
    ERR_NONE,
    ERR_USAGE,  /* the caller's or the user's mistake */
    ERR_SYSTEM, /* a system call failed; the text holds strerror */
    ERR_MEMORY, /* could not get memory; the text holds the bytes wanted */
    ERR_DATA,   /* foreign input that is not what it should be */
    ERR_ABSENT, /* nothing under that name or key */
    ERR_EXISTS, /* something is there already */
    ERR_BUSY,   /* another process uses it in a way that excludes us */
    ERR_STORE,  /* LMDB's word */
    ERR_PEER,   /* the other end of a stream is gone or speaks otherwise */
    ERR_SHAPE,  /* tensors that do not fit each other */
    ERR_MATH,   /* NaN or Inf where a finite number is needed */
    ERR_STOP    /* a signal asked to stop */
} ErrCode;

enum { ERR_TEXT = 1024 }; /* bytes that a text takes at most, with its end */

/* Record an error for this thread. Returns -1, so that `return err_set(...)` reads well. */
int err_set(ErrCode code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same with ": " and strerror(errno) appended; the code is ERR_SYSTEM. */
int err_system(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Put text in front of the recorded error (keeping its code): `photos.db: <what was there>`. A text that
 * begins so already stays as it is. Returns -1. */
int err_prefix(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

ErrCode err_code(void);
/* The text of this thread's last error, never NULL; valid until the next err_* call of the thread. */
const char *err_text(void);
void err_clear(void);

#endif
