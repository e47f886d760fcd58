/* Feeds a target with its corpus, without a fuzzer: files and directories given, or tests/fuzz/corpus/NAME where this
 * program is called fuzz_NAME. Speaks TAP. */
#include "../tap.h"
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char now[4096];
static int inputs;

static void too_long(int number)
{
    (void)number;
    static const char text[] = "Bail out! no end in sight: ";
    if (write(1, text, sizeof text - 1) < 0 || write(1, now, strlen(now)) < 0 || write(1, "\n", 1) < 0)
        _exit(2);
    _exit(1);
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
        diag("%s", path);
        fflush(stdout);
        alarm(TAP_PATIENCE_S);
        LLVMFuzzerTestOneInput(bytes, n);
        alarm(0);
        inputs++;
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
    fuzz_files_end();
    return tap_done();
}
