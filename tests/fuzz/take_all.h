/* For the targets of intake_*.c: take everything that a source has. Private to tests/fuzz. */
#ifndef HSSL_TAKE_ALL_H
#define HSSL_TAKE_ALL_H

#include "fuzz.h"

#include "store/intake.h"

#include <stdlib.h>
#include <string.h>

static inline void take_all(Intake *in, int most)
{
    IntakeItem item;
    IntakeImage image;
    size_t sum = 0;
    MUST(intake_total(in) >= 0 && intake_kind(in));
    for (int i = 0; i < most && intake_next(in, &item) > 0; i++) {
        sum += strlen(item.name) + (item.class_name ? strlen(item.class_name) : 0) +
               (item.mark ? strlen(item.mark) : 0);
        if (i % 4 == 3 || intake_load(in, &image))
            continue; /* loading an item is optional */
        for (size_t k = 0; k < image.size; k += 512)
            sum += ((const uint8_t *)image.bytes)[k];
        free(image.bytes);
    }
    fuzz_sink = (unsigned)sum;
    intake_close(in);
}

#endif
