/* Feeds a target with its corpus and mutations of it, without a fuzzer: files and directories given, or tests/fuzz/corpus/NAME where this
 * program is called fuzz_NAME. Speaks TAP. */
#include "../tap.h"
#include "fuzz.h"

#include "util/rng.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MUTATIONS = 2 };

static char now[4096];
static int inputs, mutated;

static void too_long(int number)
{
    (void)number;
    static const char text[] = "Bail out! no end in sight: ";
    if (write(1, text, sizeof text - 1) < 0 || write(1, now, strlen(now)) < 0 || write(1, "\n", 1) < 0)
        _exit(2);
    _exit(1);
}

/* Some bits and bytes of it changed, and its end cut off now and then. */
static size_t mutate(Rng *r, uint8_t *bytes, size_t n)
{
    for (uint32_t k = 1 + rng_below(r, 4); n && k; k--) {
        uint8_t *at = bytes + rng_below(r, (uint32_t)n);
        *at = rng_below(r, 2) ? *at ^ (uint8_t)(1 << rng_below(r, 8)) : (uint8_t)rng_u32(r);
    }
    return n && !rng_below(r, 8) ? rng_below(r, (uint32_t)n) : n;
}

static void take(const uint8_t *bytes, size_t n)
{
    alarm(TAP_PATIENCE_S);
    LLVMFuzzerTestOneInput(bytes, n);
    alarm(0);
}

/* The same, changed in other ways each: each in a block of its size again. */
static void feed_mutations(const uint8_t *bytes, size_t n)
{
    Rng r = rng_make(3, RNG_TEST, (uint64_t)inputs, 0);
    for (int k = siege(MUTATIONS); k; k--, mutated++) {
        uint8_t *changed = malloc(n ? n : 1), *exact;
        if (!changed)
            return;
        memcpy(changed, bytes, n);
        size_t left = mutate(&r, changed, n);
        if ((exact = realloc(changed, left ? left : 1)))
            take(exact, left);
        free(exact ? exact : changed);
    }
}

static bool feed(const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "rb");
    if (!f || fstat(fileno(f), &st)) {
        diag("%s: %s", path, strerror(errno));
        return false;
    }
    /* A block of exactly this size, so that the sanitizers see a byte too far. */
    size_t n = (size_t)st.st_size;
    uint8_t *bytes = malloc(n ? n : 1);
    bool fine = bytes && fread(bytes, 1, n, f) == n;
    fclose(f);
    if (fine) {
        /* Printed before, since the last line tells where a crash was. */
        snprintf(now, sizeof now, "%s", path);
        printf("%s\n", path);
        fflush(stdout);
        take(bytes, n);
        inputs++;
        feed_mutations(bytes, n);
    }
    free(bytes);
    return fine;
}

static bool walk(const char *path)
{
    struct dirent **list;
    struct stat st;
    bool fine = true;
    if (stat(path, &st)) {
        diag("%s: %s", path, strerror(errno));
        return false;
    }
    if (!S_ISDIR(st.st_mode))
        return feed(path);
    int n = scandir(path, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char below[4096];
        snprintf(below, sizeof below, "%s/%s", path, list[i]->d_name);
        if (list[i]->d_name[0] != '.')
            fine = walk(below) && fine;
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    return fine && n >= 0;
}

int main(int argc, char **argv)
{
    char corpus[512];
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    bool fine = true;
    signal(SIGALRM, too_long);
    snprintf(corpus, sizeof corpus, "tests/fuzz/corpus/%s", strncmp(name, "fuzz_", 5) ? name : name + 5);
    for (int i = 1; i < argc; i++)
        fine = walk(argv[i]) && fine;
    if (argc < 2)
        fine = walk(corpus);
    ok(fine && inputs, "%s: %d inputs, each without a crash", name, inputs);
    diag("%s: %d inputs, %d mutations", name, inputs, mutated);
    fuzz_files_end();
    return tap_done();
}
