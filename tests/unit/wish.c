/* What a trainer wishes of its views: as facts, and what a stage makes of them, also of those that a stranger
 * made up. */
#include "../tap.h"

#include "train/wish.h"
#include "util/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static PlanningOptions o;
static bool fast;
static int refused; /* wishes */
static const Opt opts[] = {PLANNING_OPTS(&o), OPT_FLAG("fast", 'f', &fast, "fast"), OPT_END};
static const WishRoles both = {.plans = true, .renders = true}, planner = {.plans = true},
                       renderer = {.renders = true};

static const char *const nano[][2] = {{"global_size", "32"},       {"locals", "2"},     {"local_size", "16"},
                                      {"local_scale", "0.15,0.4"}, {"blur_scale", "0"}, {NULL, NULL}};

static void hello_of(Message *m, const char *const facts[][2])
{
    Wish w = {.whose = "vit_nano is made for"};
    message_init(m, MSG_HELLO);
    for (int i = 0; facts[i][0]; i++)
        if (provenance_set(&w.views, facts[i][0], facts[i][1]))
            exit(1);
    if (wish_put(&w, m))
        exit(1);
    wish_free(&w);
}

/* What a stage plans where these options were given, each with its value. */
static Recipe made(const Message *hello, WishRoles as, const char *const given[][2])
{
    Recipe r;
    o = (PlanningOptions)PLANNING_DEFAULTS;
    fast = false;
    for (const Opt *p = opts; p->type; p++)
        opt_mark(opts, p->name, "default");
    for (int i = 0; given && given[i][0]; i++) {
        if (!strcmp(given[i][0], "recipe"))
            o.recipe = given[i][1]; /* opt_set() would keep a copy */
        else if (opt_set(opts, given[i][0], given[i][1]))
            exit(1);
        opt_mark(opts, given[i][0], "flag");
    }
    if (planning_recipe(&o, &r))
        exit(1);
    if (wish_take(hello, opts, as, &o, &r))
        refused++;
    return r;
}

static const char *views_of(const Recipe *r)
{
    static char text[128];
    snprintf(text, sizeof text, "%s %dx%d+%dx%d %g,%g %g,%g %g", r->name, r->globals, r->global_size,
             r->locals, r->local_size, r->global_scale[0], r->global_scale[1], r->local_scale[0],
             r->local_scale[1], r->blur[1]);
    return text;
}

#define GIVEN(...) ((const char *const[][2]){__VA_ARGS__, {NULL, NULL}})

static void taken(void)
{
    Message m;
    Recipe r;
    hello_of(&m, nano);
    r = made(&m, planner, NULL);
    is_str(views_of(&r), "dino 2x32+2x16 0.4,1 0.15,0.4 0", "a stage without options takes all of it");
    r = made(&m, planner, GIVEN({"local", "8"}));
    is_str(views_of(&r), "dino 2x32+8x16 0.4,1 0.15,0.4 0",
           "an option that was given stays, others are filled in");
    r = made(&m, planner, GIVEN({"local-crops-number", "7"}));
    is_str(views_of(&r), "dino 2x32+7x16 0.4,1 0.15,0.4 0", "by either name");
    r = made(&m, planner, GIVEN({"local", "-1"}, {"global-size", "0"}));
    is_str(views_of(&r), "dino 2x224+8x16 0.4,1 0.05,0.4 2", "also where it says: the recipe's");
    r = made(&m, planner, GIVEN({"global-size", "48"}, {"local", "2"}, {"local-size", "24"}));
    is_str(views_of(&r), "dino 2x48+2x24 0.4,1 0.05,0.4 2", "other sizes keep the recipe's shares and blur");
    r = made(&m, planner, GIVEN({"recipe", "ibot"}));
    is_str(views_of(&r), "ibot 2x32+0x16 0.14,1 0.05,0.25 2", "a recipe keeps its number, shares and blur");
    r = made(&m, planner, GIVEN({"blur-scale", "0.5"}));
    is_str(views_of(&r), "dino 2x32+2x16 0.4,1 0.15,0.4 1",
           "blur does not keep the rest from being filled in");
    r = made(&m, planner, GIVEN({"seed", "9"}));
    is_str(views_of(&r), "dino 2x32+2x16 0.4,1 0.15,0.4 0", "nor does a seed");
    r = made(&m, renderer, NULL);
    is_str(views_of(&r), "dino 2x224+8x96 0.4,1 0.05,0.4 2", "who only renders plans nothing");
    message_clear(&m);

    message_init(&m, MSG_HELLO);
    r = made(&m, both, NULL);
    is_str(views_of(&r), "dino 2x224+8x96 0.4,1 0.05,0.4 2", "nobody wishes: nothing changes");
    message_clear(&m);

    hello_of(&m, GIVEN({"recipe", "mocov3"}, {"view_seed", "77"}, {"locals", "0"},
                       {"global_scale", "0.2,0.9"}, {"fast", "true"}));
    r = made(&m, both, NULL);
    is_str(views_of(&r), "mocov3 2x224+0x96 0.2,0.9 0.05,0.25 2", "a recipe, and what else a run had");
    ok(o.seed == 77 && fast, "with its draws and its decoder");
    r = made(&m, planner, NULL);
    ok(o.seed == 77 && !fast, "each to its stage");
    made(&m, renderer, NULL);
    ok(o.seed == 0 && fast, "one by one");
    made(&m, both, GIVEN({"seed", "5"}, {"fast", "false"}));
    ok(o.seed == 5 && !fast, "unless they were given");
    message_clear(&m);
}

static void hostile(void)
{
    static const struct {
        const char *key, *text, *name;
    } bad[] = {
        {"global_size", "4097", "more than the option takes"},
        {"global_size", "-1", "less"},
        {"global_size", "99999999999999999999", "more than any number"},
        {"global_size", "3.5", "half a pixel"},
        {"global_size", "32 ", "a number and more"},
        {"global_size", "", "nothing"},
        {"global_size", "4096", "more pixels than memory is set aside for"},
        {"locals", "1000000", "a million views"},
        {"locals", "nan", "no number"},
        {"local_scale", "0.9,0.1", "shares the wrong way round"},
        {"local_scale", "0,5", "shares of more than all"},
        {"local_scale", "0.1", "half a pair"},
        {"global_scale", "\x1b[2J", "no ASCII"},
        {"blur_scale", "inf", "no end of blur"},
        {"blur_scale", "1e300", "that, as a number"},
        {"recipe", "../../etc/passwd", "a recipe that there is not"},
        {"recipe", "mocov3|mae", "two recipes"},
        {"view_seed", "9e99", "a seed beyond all"},
        {"fast", "maybe", "no flag"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char key[64];
        Message m;
        message_init(&m, MSG_HELLO);
        snprintf(key, sizeof key, WISH_PREFIX "%s", bad[i].key);
        message_set_text(&m, WISH_PREFIX "recipe", "ibot"); /* good, and not to stay alone */
        message_set_text(&m, WISH_PREFIX "locals", "2");
        message_set_text(&m, key, bad[i].text);
        int before = refused;
        Recipe r = made(&m, both, NULL);
        is_int(refused - before, 1, err_text());
        is_str(views_of(&r), "dino 2x224+8x96 0.4,1 0.05,0.4 2", bad[i].name);
        ok(o.seed == 0 && !fast && !strcmp(o.recipe, "dino"), "%s: all of it is left alone", bad[i].name);
        message_clear(&m);
    }
    Message m;
    Recipe r;
    message_init(&m, MSG_HELLO);
    message_set_int(&m, WISH_PREFIX "global_size", 32);
    message_set_real(&m, WISH_PREFIX "blur_scale", 0);
    message_set_text(&m, WISH_PREFIX "dataset", "mine.db");
    message_set_text(&m, WISH_PREFIX "world", "9");
    message_set_text(&m, WISH_PREFIX "future", "?");
    r = made(&m, both, NULL);
    is_str(views_of(&r), "dino 2x224+8x96 0.4,1 0.05,0.4 2",
           "facts of other types, stages and versions mean nothing");
    message_clear(&m);
    hello_of(&m, GIVEN({"locals", "62"}, {"local_size", "296"}));
    r = made(&m, planner, NULL);
    is_str(views_of(&r), "dino 2x224+62x296 0.4,1 0.05,0.4 2", "up to 16 MiB an image");
    message_set_text(&m, WISH_PREFIX "locals", "63");
    r = made(&m, planner, NULL);
    is_str(views_of(&r), "dino 2x224+8x96 0.4,1 0.05,0.4 2", "not more views than there can be");
    message_set_text(&m, WISH_PREFIX "locals", "62");
    message_set_text(&m, WISH_PREFIX "local_size", "310");
    r = made(&m, planner, NULL);
    is_str(views_of(&r), "dino 2x224+8x96 0.4,1 0.05,0.4 2", "not more bytes");
    r = made(&m, planner, GIVEN({"local-size", "4096"}, {"local", "40"}));
    is_str(views_of(&r), "dino 2x224+40x4096 0.4,1 0.05,0.4 2", "than the options ask for");
    message_clear(&m);
}

static void differences(void)
{
    Message hello, welcome;
    Recipe r;
    Wish w;
    char words[640], small[12];
    hello_of(&hello, nano);
    r = made(&hello, planner, NULL);
    message_init(&welcome, MSG_WELCOME);
    ok(!planning_describe(&welcome, "hssl-augment", &o, &r) && !wish_answer(&welcome, opts) &&
           !wish_read(&w, &hello) && !wish_differs(&w, &welcome, both, words, sizeof words),
       "a wish that was heard: nothing to say");
    message_clear(&welcome);
    r = made(&hello, planner, GIVEN({"local", "8"}));
    message_init(&welcome, MSG_WELCOME);
    ok(!planning_describe(&welcome, "hssl-augment", &o, &r) && !wish_answer(&welcome, opts) &&
           wish_differs(&w, &welcome, both, words, sizeof words),
       "another number");
    is_str(words, "makes 2 x 32 + 8 x 16 views, as its options say; vit_nano is made for 2 x 32 + 2 x 16",
           "is said");
    ok(wish_differs(&w, &welcome, both, small, sizeof small) && !strcmp(small, "makes 2 x 3"),
       "in what room there is");
    message_set_int(&welcome, "views_given", 0);
    message_set_real(&welcome, "blur_scale", 0.5);
    wish_differs(&w, &welcome, both, words, sizeof words);
    is_str(words,
           "makes 2 x 32 + 8 x 16 views with --blur-scale 0.5, as it has from the beginning; vit_nano is "
           "made for "
           "2 x 32 + 2 x 16 with --blur-scale 0",
           "and what else differs");
    message_clear(&welcome);
    wish_free(&w);
    message_init(&welcome, MSG_WELCOME);
    ok(!wish_read(&w, &hello) && !wish_differs(&w, &welcome, both, words, sizeof words),
       "a stream that says nothing of its views does not differ");
    wish_free(&w);
    message_set_int(&welcome, "locals", 0);
    message_set_int(&welcome, "local_size", 0);
    ok(!wish_read(&w, &hello) && wish_differs(&w, &welcome, both, words, sizeof words),
       "nor does half of one stumble");
    is_str(words, "makes ? x ? views; vit_nano is made for ? x 32 + 2 x 16", "over what is missing");
    wish_free(&w);
    message_set_text(&hello, WISH_PREFIX "whose", "\x1b[2J");
    ok(!wish_read(&w, &hello) && !strcmp(w.whose, "the consumer wants"),
       "whose it is, is not for a terminal to obey");
    wish_free(&w);
    message_clear(&welcome);
    message_clear(&hello);
}

int main(void)
{
    taken();
    is_int(refused, 0, "none of these is refused");
    hostile();
    differences();
    return tap_done();
}
