/* A connection between two ranks of one job: frames that nobody without the job's key can read, change or
 * make up.
 *
 * On the wire, numbers little-endian:
 * 1. Each side sends an Opening, the caller first: "HSSL", the version of all this, a nonce of 32 random
 * bytes.
 * 2. Both hash the two nonces, the caller's first, with the job's key (keyed BLAKE2b, 64 bytes): the first
 * half becomes the key of what the caller sends, the second that of what it hears.
 * 3. Frames follow: what (32 bits), n (32 bits), n bytes, a tag of 16. ChaCha20-Poly1305 as in RFC 8439
 * encrypts the bytes and vouches for the head too; its nonce is the frame's number. So the first frame of a
 * side shows that it has the key, and that what it says is of now and in order. */
#ifndef HSSL_DIST_CHANNEL_H
#define HSSL_DIST_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CHANNEL_KEY = 32,
    CHANNEL_TAG = 16,
    CHANNEL_MOST = 1 << 16,
    CHANNEL_VERSION = 2
}; /* MOST: bytes of a frame */

typedef struct {
    char magic[4];
    uint32_t version;
    unsigned char nonce[32];
} Opening;

typedef struct {
    uint32_t what, bytes;
} FrameHead;

typedef struct {
    int fd; /* -1: none */
    unsigned char seal[CHANNEL_KEY], open[CHANNEL_KEY];
    uint64_t sealed, opened;
    FrameHead head; /* of the frame whose bytes come next */
} Channel;

/* A fresh one. 0, or -1 with ERR_SYSTEM. */
int channel_opening(Opening *mine);
/* Whether that is one of this version. */
bool channel_knows(const Opening *theirs);
/* Takes fd over. */
void channel_begin(Channel *c, int fd, const unsigned char *key, const Opening *mine, const Opening *theirs,
                   bool caller);
void channel_close(Channel *c);
/* How long reads and writes wait. */
void channel_patience(const Channel *c, int ms);

/* These give 0, or -1 without an error: the connection is of no more use. They wait as long as the socket's
 * timeouts say. */
int channel_put(Channel *c, uint32_t what, const void *bytes, size_t n); /* n <= CHANNEL_MOST */
int channel_head(Channel *c, uint32_t *what, size_t *n);
/* The bytes of the frame whose head came last, n as it says. */
int channel_take(Channel *c, void *bytes, size_t n); /* bytes: never NULL */
/* The same where somebody else has read them: bytes become what they were. */
int channel_unseal(Channel *c, const FrameHead *head, void *bytes, const unsigned char *tag);
/* Whether the next frame is one of that kind, or has come in part only. */
bool channel_holds(const Channel *c, uint32_t what);

#endif
