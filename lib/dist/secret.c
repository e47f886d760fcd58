#include "dist/secret.h"

#include "util/err.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHORTEST = 32, LONGEST = 4096 };

static int check_file(int fd, const char *path)
{
    struct stat s;
    if (fstat(fd, &s))
        return err_system("HSSL_SECRET_FILE=%s", path);
    if (!S_ISREG(s.st_mode))
        return err_set(ERR_USAGE, "HSSL_SECRET_FILE=%s: not a plain file", path);
    if (s.st_uid != geteuid())
        return err_set(ERR_USAGE, "HSSL_SECRET_FILE=%s: belongs to user %u, not to %u who runs this", path,
                       (unsigned)s.st_uid, (unsigned)geteuid());
    if (s.st_mode & 077)
        return err_set(ERR_USAGE,
                       "HSSL_SECRET_FILE=%s: others may read or write it (mode %03o): chmod 600 it", path,
                       (unsigned)s.st_mode & 0777);
    return 0;
}

/* The file's bytes, at most size - 1, as text. */
static int read_file(const char *path, char *text, size_t size)
{
    /* a fifo in its place keeps nobody waiting */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;
    size_t n = 0;
    if (fd < 0)
        return err_system("HSSL_SECRET_FILE=%s", path);
    if (!(rc = check_file(fd, path))) {
        for (ssize_t k = 1; k > 0 && n<size - 1; n += k> 0 ? (size_t)k : 0)
            if ((k = read(fd, text + n, size - 1 - n)) < 0)
                rc = err_system("HSSL_SECRET_FILE=%s", path);
    }
    close(fd);
    text[n] = 0;
    return rc;
}

int secret_find(unsigned char key[CHANNEL_KEY], bool *found)
{
    const char *given = getenv("HSSL_SECRET"), *file = getenv("HSSL_SECRET_FILE");
    char text[LONGEST + 1] = "";
    if (sodium_init() < 0)
        return err_set(ERR_SYSTEM, "libsodium: no random numbers");
    *found = given || file;
    if (!given && file && read_file(file, text, sizeof text)) {
        sodium_memzero(text, sizeof text);
        return -1;
    }
    const char *secret = given ? given : text;
    size_t n = strlen(secret);
    while (n && strchr(" \t\r\n", secret[n - 1]))
        n--;
    bool fits = !*found || (n >= SHORTEST && n < LONGEST);
    crypto_generichash(key, CHANNEL_KEY, (const unsigned char *)secret, n, NULL, 0);
    sodium_memzero(text, sizeof text);
    return fits
               ? 0
               : err_set(ERR_USAGE, "%s%s: a secret has %d to %d characters: make one with '" SECRET_MAKE "'",
                         given ? "HSSL_SECRET" : "HSSL_SECRET_FILE=", given ? "" : file, SHORTEST,
                         LONGEST - 1);
}

int secret_make(unsigned char key[CHANNEL_KEY])
{
    if (sodium_init() < 0)
        return err_set(ERR_SYSTEM, "libsodium: no random numbers");
    randombytes_buf(key, CHANNEL_KEY);
    return 0;
}
