#include "dist/channel.h"

#include "util/err.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const char magic[4] = {'H', 'S', 'S', 'L'};

int channel_opening(Opening *mine)
{
    if (sodium_init() < 0)
        return err_set(ERR_SYSTEM, "libsodium: no random numbers");
    memcpy(mine->magic, magic, sizeof magic);
    mine->version = htole32(CHANNEL_VERSION);
    randombytes_buf(mine->nonce, sizeof mine->nonce);
    return 0;
}

bool channel_knows(const Opening *theirs)
{
    return !memcmp(theirs->magic, magic, sizeof magic) && le32toh(theirs->version) == CHANNEL_VERSION;
}

void channel_begin(Channel *c, int fd, const unsigned char *key, const Opening *mine, const Opening *theirs,
                   bool caller)
{
    unsigned char nonces[2][sizeof mine->nonce], keys[2][CHANNEL_KEY];
    memcpy(nonces[!caller], mine->nonce, sizeof mine->nonce);
    memcpy(nonces[caller], theirs->nonce, sizeof theirs->nonce);
    crypto_generichash(keys[0], sizeof keys, nonces[0], sizeof nonces, key, CHANNEL_KEY);
    *c = (Channel){.fd = fd};
    memcpy(c->seal, keys[!caller], CHANNEL_KEY);
    memcpy(c->open, keys[caller], CHANNEL_KEY);
    sodium_memzero(keys, sizeof keys);
}

void channel_close(Channel *c)
{
    if (c->fd >= 0)
        close(c->fd);
    sodium_memzero(c, sizeof *c);
    c->fd = -1;
}

void channel_patience(const Channel *c, int ms)
{
    struct timeval t = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    int on = 1;
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* refused where it isn't TCP */
}

/* ---------------------------------------------------------------- frames */

static void number(unsigned char *nonce, uint64_t n)
{
    memset(nonce, 0, crypto_aead_chacha20poly1305_ietf_NPUBBYTES);
    n = htole64(n);
    memcpy(nonce, &n, sizeof n);
}

static int all_out(int fd, const void *bytes, size_t n)
{
    for (const char *p = bytes; n;) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1; /* also after SO_SNDTIMEO */
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static int all_in(int fd, void *bytes, size_t n)
{
    for (char *p = bytes; n;) {
        ssize_t k = recv(fd, p, n, 0);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

int channel_put(Channel *c, uint32_t what, const void *bytes, size_t n)
{
    struct {
        FrameHead head;
        unsigned char bytes[CHANNEL_MOST + CHANNEL_TAG];
    } f;
    unsigned char nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
    if (n > CHANNEL_MOST)
        return -1;
    f.head = (FrameHead){htole32(what), htole32((uint32_t)n)};
    number(nonce, c->sealed++);
    crypto_aead_chacha20poly1305_ietf_encrypt(f.bytes, NULL, bytes, n, (unsigned char *)&f.head,
                                              sizeof f.head, NULL, nonce, c->seal);
    return all_out(c->fd, &f, sizeof f.head + n + CHANNEL_TAG);
}

int channel_head(Channel *c, uint32_t *what, size_t *n)
{
    if (all_in(c->fd, &c->head, sizeof c->head))
        return -1;
    *what = le32toh(c->head.what);
    *n = le32toh(c->head.bytes);
    return *n <= CHANNEL_MOST ? 0 : -1;
}

int channel_unseal(Channel *c, const FrameHead *head, void *bytes, const unsigned char *tag)
{
    unsigned char nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
    number(nonce, c->opened++);
    return crypto_aead_chacha20poly1305_ietf_decrypt_detached(bytes, NULL, bytes, le32toh(head->bytes), tag,
                                                              (const unsigned char *)head, sizeof *head,
                                                              nonce, c->open);
}

int channel_take(Channel *c, void *bytes, size_t n)
{
    unsigned char tag[CHANNEL_TAG];
    if (n != le32toh(c->head.bytes) || all_in(c->fd, bytes, n) || all_in(c->fd, tag, sizeof tag))
        return -1;
    return channel_unseal(c, &c->head, bytes, tag);
}

bool channel_holds(const Channel *c, uint32_t what)
{
    FrameHead f;
    ssize_t n = recv(c->fd, &f, sizeof f, MSG_PEEK | MSG_DONTWAIT);
    return n == sizeof f ? le32toh(f.what) == what : n > 0;
}
