#include "train/rendering.h"

#include "image/render.h"
#include "util/err.h"

#include <stdlib.h>

struct Rendering {
    ViewCounts counts;
    bool fast;
    RenderScratch *scratch;
};

Rendering *rendering_new(const Message *facts)
{
    Rendering *r = calloc(1, sizeof *r);
    if (!r || !(r->scratch = render_scratch_new())) {
        err_set(ERR_MEMORY, "no memory to render in");
        rendering_free(&r);
        return NULL;
    }
    r->fast = message_int(facts, "fast", 0);
    if (planning_counts(facts, &r->counts))
        rendering_free(&r);
    return r;
}

void rendering_free(Rendering **r)
{
    if (!*r)
        return;
    render_scratch_free((*r)->scratch);
    free(*r);
    *r = NULL;
}

const ViewCounts *rendering_counts(const Rendering *r)
{
    return &r->counts;
}

int rendering_results(const ViewCounts *c, HubResult out[HUB_MAX_RESULTS])
{
    out[0] = (HubResult){ "global", 4, { c->globals, c->global_size, c->global_size, 3 } };
    out[1] = (HubResult){ "local", 4, { c->locals, c->local_size, c->local_size, 3 } };
    return c->locals ? 2 : 1;
}

static void addresses(uint8_t *base, int views, int side, uint8_t **outs)
{
    for (int v = 0; v < views; v++)
        outs[v] = base + (size_t)v * (size_t)side * (size_t)side * 3;
}

int rendering_do(Rendering *r, const Message *record, uint8_t *const out[])
{
    const ViewCounts *c = &r->counts;
    const MsgTensor *image = message_tensor(record, "image");
    ViewPlan plans[PLAN_MAX_VIEWS];
    uint8_t *outs[PLAN_MAX_VIEWS];

    if (!image || !image->data || image->dtype != MSG_U8 || image->ndim != 1)
        return err_set(ERR_DATA, "the record brings no image");
    if (planning_read(record, c, plans))
        return -1;
    addresses(out[0], c->globals, c->global_size, outs);
    if (c->locals)
        addresses(out[1], c->locals, c->local_size, outs + c->globals);
    return render_views(image->data, image->bytes, record->reading, plans, c->globals + c->locals, r->fast,
                        outs, r->scratch);
}
