#include "import.h"

#include "util/log.h"
#include "util/rng.h"

#include <stdlib.h>

static struct {
    uint64_t *keys;
    int64_t *counts;
    size_t room, n;
} tally;

int64_t *tally_of(const char *class_name)
{
    if (2 * tally.n >= tally.room) {
        size_t room = tally.room ? 2 * tally.room : 1024, old = tally.room;
        uint64_t *keys = tally.keys;
        int64_t *counts = tally.counts;
        tally.keys = calloc(room, sizeof *keys);
        tally.counts = calloc(room, sizeof *counts);
        if (!tally.keys || !tally.counts)
            die_with("no memory to count %zu classes", room);
        tally.room = room;
        for (size_t i = 0; i < old; i++) {
            size_t k = keys[i] & (room - 1);
            while (keys[i] && tally.keys[k])
                k = (k + 1) & (room - 1);
            if (keys[i])
                tally.keys[k] = keys[i], tally.counts[k] = counts[i];
        }
        free(keys);
        free(counts);
    }
    uint64_t key = rng_hash(class_name ? class_name : "") | 1;
    size_t i = key & (tally.room - 1);
    while (tally.keys[i] && tally.keys[i] != key)
        i = (i + 1) & (tally.room - 1);
    tally.n += !tally.keys[i];
    tally.keys[i] = key;
    return &tally.counts[i];
}

void tally_free(void)
{
    free(tally.keys);
    free(tally.counts);
}
