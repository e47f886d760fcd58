/* What a consumer wishes of the views: the header of its hello. What was understood must be understood again,
 * and what a stage plans then must be possible, and bounded. */
#include "fuzz.h"

#include "train/wish.h"

#include <stdlib.h>
#include <string.h>

static PlanningOptions o;
static bool fast;
static const Opt opts[] = {PLANNING_OPTS(&o), OPT_FLAG("fast", 0, &fast, ""), OPT_END};

static void take(const Message *m)
{
    Recipe r;
    o = (PlanningOptions)PLANNING_DEFAULTS;
    const char *recipe = o.recipe;
    MUST(!planning_recipe(&o, &r));
    int rc = wish_take(m, opts, (WishRoles){.plans = true, .renders = true}, &o, &r);
    MUST(!recipe_check(&r));
    MUST(3 * ((long)r.globals * r.global_size * r.global_size +
              (long)r.locals * r.local_size * r.local_size) <=
         16 << 20);
    MUST(!rc || (o.recipe == recipe && o.seed == 0 && r.global_size == 224));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Message m, again;
    Wish w, second;
    char words[640], more[640];
    static const WishRoles both = {.plans = true, .renders = true};
    if (message_parse(bytes, n, NULL, 0, &m))
        return 0;
    if (!wish_read(&w, &m)) {
        message_init(&again, MSG_HELLO);
        MUST(!wish_put(&w, &again) && !wish_read(&second, &again));
        bool differs = wish_differs(&w, &m, both, words, sizeof words);
        fuzz_sink = (unsigned)strlen(words);
        MUST(differs == wish_differs(&second, &m, both, more, sizeof more));
        wish_free(&second);
        message_clear(&again);
    }
    wish_free(&w);
    take(&m);
    message_clear(&m);
    return 0;
}
