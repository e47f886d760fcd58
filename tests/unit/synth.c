/* Drawn images: the same for the same key, different for any other. */
#include <stdlib.h>
#include <string.h>

#include "../tap.h"
#include "image/synth.h"
#include "util/err.h"

enum { SIZE = 32, BYTES = SIZE * SIZE * 3 };

/* Mean absolute difference of two images, in levels. */
static double difference(const uint8_t *a, const uint8_t *b)
{
    double sum = 0;

    for (int i = 0; i < BYTES; i++)
        sum += abs(a[i] - b[i]);
    return sum / BYTES;
}

int main(void)
{
    static uint8_t a[BYTES], b[BYTES];
    Synth *s = synth_new(7, 12, SIZE), *same = synth_new(7, 12, SIZE), *other = synth_new(8, 12, SIZE);

    if (!ok(s && same && other, "three sets"))
        return tap_done();
    ok(synth_draw(s, 0, 5, a) == 0 && synth_draw(same, 0, 5, b) == 0 && !memcmp(a, b, BYTES), "same seed, same image");
    ok(synth_draw(other, 0, 5, b) == 0 && difference(a, b) > 10, "another seed, another image");
    ok(synth_draw(s, 1, 5, b) == 0 && difference(a, b) > 10, "another part, another image");
    ok(synth_draw(s, 0, 17, b) == 0 && difference(a, b) > 10, "the next image of the class is another one");
    is_int(synth_label(s, 17), synth_label(s, 5), "which has the same label");
    ok(synth_label(s, 6) != synth_label(s, 5), "neighbours have different labels");

    char names[SYNTH_MAX_CLASSES][64];
    int distinct = 1;
    for (int c = 0; c < SYNTH_MAX_CLASSES; c++) {
        synth_class_name(c, names[c], sizeof names[c]);
        for (int d = 0; d < c; d++)
            distinct &= strcmp(names[c], names[d]) != 0;
    }
    ok(distinct, "%d classes have different names", SYNTH_MAX_CLASSES);

    /* Every size draws within its buffer (the sanitizers look on). */
    for (int size = SYNTH_MIN_SIZE; size <= 131; size += 41) {
        Synth *t = synth_new(1, SYNTH_MAX_CLASSES, size);
        uint8_t *rgb = malloc((size_t)size * (size_t)size * 3);
        int bad = !t || !rgb;
        for (uint64_t i = 0; i < SYNTH_MAX_CLASSES && !bad; i++)
            bad = synth_draw(t, 0, i, rgb) < 0;
        ok(!bad, "all classes at %d pixels", size);
        free(rgb);
        synth_free(t);
    }
    ok(!synth_new(0, 0, 32) && err_code() == ERR_USAGE, "no class is refused");
    ok(!synth_new(0, SYNTH_MAX_CLASSES + 1, 32), "too many classes are refused");
    ok(!synth_new(0, 10, SYNTH_MAX_SIZE + 1), "too large is refused");
    synth_free(s);
    synth_free(same);
    synth_free(other);
    return tap_done();
}
