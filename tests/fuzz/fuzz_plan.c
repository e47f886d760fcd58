/* Plans as hssl-augment takes them from a foreign message: read, checked, rendered. Input: width and height of the
 * picture (1 each), global and local views (1), side of either (1 each), header of the message. */
#include "fuzz.h"

#include "image/render.h"
#include "train/planning.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    FuzzInput in = { bytes, bytes + size };
    ViewPlan plans[PLAN_MAX_VIEWS];
    ViewCounts heard, counts;
    Message m;
    size_t n;
    Image im = { .w = (int)fuzz_take(&in, 1) + 1, .h = (int)fuzz_take(&in, 1) + 1 };
    uint32_t views = fuzz_take(&in, 1);
    counts = (ViewCounts){ (int)(views & 7) + 1, (int)(views >> 4), (int)(fuzz_take(&in, 1) & 63) + 1, 0 };
    counts.local_size = (int)(fuzz_take(&in, 1) & 63) + 1;
    uint8_t *header = fuzz_block(&in, 65536, &n);
    if (!message_parse(header, n, NULL, 0, &m)) {
        if (!planning_counts(&m, &heard))
            MUST(heard.globals + heard.locals <= PLAN_MAX_VIEWS);
        if (!planning_read(&m, &counts, plans)) {
            RenderScratch *scratch = render_scratch_new();
            size_t pixels = (size_t)im.w * (size_t)im.h * 3;
            im.rgb = malloc(pixels);
            if (!scratch || !im.rgb)
                abort();
            for (size_t i = 0; i < pixels; i++)
                im.rgb[i] = (uint8_t)(i * 37 + i / 256);
            for (int v = 0; v < counts.globals + counts.locals; v++) {
                uint8_t *out = malloc((size_t)plans[v].size * (size_t)plans[v].size * 3);
                if (!out)
                    abort();
                if (!render_view(&im, &plans[v], out, scratch))
                    fuzz_sink = out[0];
                free(out);
            }
            free(im.rgb);
            render_scratch_free(scratch);
        }
        message_clear(&m);
    }
    free(header);
    return 0;
}
