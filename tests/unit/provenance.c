/* What a run keeps of where it comes from. With arguments a tool for tests/cli: --forget RUN takes that out
 * of a run, --begin RUN NEW makes a run with the settings of another and nothing else. */
#include "../tap.h"

#include "store/run.h"
#include "train/provenance.h"
#include "util/err.h"
#include "util/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Message welcome(void)
{
    Message w;
    message_init(&w, MSG_WELCOME);
    if (message_set_text(&w, "dataset", "photos.db") || message_set_text(&w, "dataset_digest", "00ff") ||
        message_set_int(&w, "load_seed", 7) || message_set_int(&w, "shuffle", 1) ||
        message_set_real(&w, "blur_scale", 0.1) || message_set_text(&w, "global_scale", "0.4,1") ||
        message_set_int(&w, "threads", 9))
        exit(1);
    return w;
}

static void test_streams(void)
{
    Message w = welcome();
    Provenance a, b;
    char words[200];
    bool unchecked;
    ok(!provenance_from_stream(&a, &w), "a welcome");
    is_str(provenance_get(&a, "load_seed"), "7", "a number");
    is_str(provenance_get(&a, "shuffle"), "true", "a flag");
    is_str(provenance_get(&a, "blur_scale"), "0.1", "a real number");
    ok(!provenance_get(&a, "threads") && !provenance_get(&a, "recipe"),
       "the trainer's own are not the stream's to say");
    message_set_text(&w, "dataset", "elsewhere.db");
    message_set_int(&w, "jobs", 3);
    if (provenance_from_stream(&b, &w))
        exit(1);
    is_int(provenance_compare(&a, &b, words, sizeof words, &unchecked), 0, "the path makes no difference");
    ok(!unchecked, "nor leaves a doubt");
    provenance_free(&b);
    message_set_int(&w, "load_seed", 8);
    message_set_text(&w, "dataset_digest", "00fe");
    if (provenance_from_stream(&b, &w))
        exit(1);
    is_int(provenance_compare(&a, &b, words, sizeof words, &unchecked), 2, "two differences");
    is_str(words, "the data set's digest 00ff, here 00fe; --seed 7 of hssl-load, here 8", "are named");
    char small[20];
    is_int(provenance_compare(&a, &b, small, sizeof small, &unchecked), 2, "in as much room as there is");
    is_int((long long)strlen(small), 19, "which is used");
    provenance_set(&a, "shuffle", "false");
    provenance_set(&b, "shuffle", "false");
    is_int(provenance_compare(&a, &b, words, sizeof words, &unchecked), 1,
           "a seed without shuffling is none");
    provenance_set(&b, "shuffle", NULL);
    is_int(provenance_compare(&a, &b, words, sizeof words, &unchecked), 3,
           "a stream that stops telling is another");
    ok(strstr(words, "here not told") && !unchecked, "said so");
    is_int(provenance_compare(&b, &a, words, sizeof words, &unchecked), 2,
           "what was not known differs from nothing");
    ok(unchecked, "but leaves a doubt");
    ok(!provenance_follow(&a, 40, &b) && !provenance_compare(&a, &b, words, sizeof words, &unchecked),
       "a run follows");
    is_int((long long)json_object_array_length(a.changes), 3, "and knows what has changed");
    provenance_free(&a);
    provenance_free(&b);
    message_clear(&w);
}

static void test_foreign_stream(void)
{
    static const char *const bad[] = { "", "two words", "a\nb", "caf\xc3\xa9", "\x1b[1m" };
    Provenance p;
    int taken = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Message w = welcome();
        message_set_text(&w, "recipe", bad[i]);
        taken += !provenance_from_stream(&p, &w);
        provenance_free(&p);
        message_clear(&w);
    }
    is_int(taken, 0, "words that are none are refused");
    Message w = welcome();
    message_set_text(&w, "load_seed", "7; rm -rf /");
    ok(provenance_from_stream(&p, &w) && err_code() == ERR_DATA, "so are numbers: %s", err_text());
    provenance_free(&p);
    message_set_int(&w, "load_seed", -1);
    message_set_int(&w, "shuffle", 2);
    ok(provenance_from_stream(&p, &w), "and flags: %s", err_text());
    provenance_free(&p);
    message_set_int(&w, "shuffle", 0);
    char *many = malloc(5001);
    memset(many, 'x', 5000);
    many[5000] = 0;
    message_set_text(&w, "dataset", many);
    ok(provenance_from_stream(&p, &w), "and names without end: %s", err_text());
    provenance_free(&p);
    free(many);
    message_clear(&w);
}

static void round_trip(const char *name)
{
    Provenance a = { 0 }, b;
    provenance_set(&a, "dataset", name);
    provenance_set(&a, "blur_scale", "0.30000000000000004");
    provenance_change(&a, 12, "epochs", "3", "4");
    char *json = provenance_to_json(&a), *again = NULL;
    ok(json && !provenance_from_json(&b, json) && !strcmp(provenance_get(&b, "dataset"), name) &&
           !strcmp(provenance_get(&b, "blur_scale"), "0.30000000000000004") &&
           (again = provenance_to_json(&b)) && !strcmp(json, again),
       "into JSON and back: %s", json);
    free(json);
    free(again);
    provenance_free(&a);
    provenance_free(&b);
}

static void test_json(void)
{
    static const char *const bad[] = {"",
                                      "[]",
                                      "{\"load_seed\":7}",
                                      "{\"load_seed\":\"7a\"}",
                                      "{\"shuffle\":\"yes\"}",
                                      "{\"dataset\":{\"hex\":\"0\"}}",
                                      "{\"dataset\":{\"hex\":\"0041\"}}",
                                      "{\"dataset\":{\"hex\":\"xx\"}}",
                                      "{\"dataset\":\"a\\u0000b\"}",
                                      "{\"dataset\":{}}",
                                      "{\"changes\":7}",
                                      "{\"recipe\":\"a b\"}"};
    Provenance p;
    round_trip("photos.db");
    round_trip("a \"b\" 'c'\n\\d");
    round_trip("caf\xc3\xa9 caf\xe9 \xff");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ok(provenance_from_json(&p, bad[i]) && err_code() == ERR_DATA, "%s: %s", bad[i], err_text());
        provenance_free(&p);
    }
    ok(!provenance_from_json(&p, "{\"of_a_later_version\":[]}"), "what is not known is left alone");
    provenance_free(&p);
}

/* Whatever a damaged or hostile file says, it is read as what the table allows, or not at all. */
static void test_mutations(void)
{
    enum { TRIES = 20000 };
    static const char good[] =
        "{\"dataset\":{\"hex\":\"63e9\"},\"load_seed\":\"7\",\"shuffle\":\"true\",\"blur_scale\":"
        "\"0.5\",\"recipe\":\"dino\",\"changes\":[{\"step\":3,\"key\":\"fast\",\"was\":\"true\"}]}";
    Rng rng = rng_make(1, RNG_TEST, 0, 0);
    int read = 0, wrong = 0;
    for (int i = 0; i < TRIES; i++) {
        char text[sizeof good];
        Provenance p;
        memcpy(text, good, sizeof good);
        for (uint32_t n = 1 + rng_below(&rng, 3); n; n--)
            text[rng_below(&rng, sizeof good - 1)] = rng_below(&rng, 2)
                                                         ? good[rng_below(&rng, sizeof good - 1)]
                                                         : (char)(1 + rng_below(&rng, 255));
        if (!provenance_from_json(&p, text)) {
            char *again = provenance_to_json(&p);
            Provenance q;
            read++;
            wrong += !again || provenance_from_json(&q, again);
            for (int f = 0; again && f < PROVENANCE_FACTS; f++)
                wrong +=
                    (p.text[f] != NULL) != (q.text[f] != NULL) || (p.text[f] && strcmp(p.text[f], q.text[f]));
            if (again)
                provenance_free(&q);
            free(again);
        } else if (err_code() != ERR_DATA) {
            wrong++;
        }
        provenance_free(&p);
    }
    ok(!wrong && read > 0 && read < TRIES, "%d of %d damaged texts can be read, %d of them otherwise again",
       read, TRIES, wrong);
}

/* text NULL: it is forgotten. */
static int tell(const char *path, const char *text)
{
    Run *run = run_open(path, true);
    return !run || run_set(run, "provenance", text) || run_close(run);
}

static int begin(const char *like, const char *path)
{
    Run *run = run_open(like, false), *made = run ? run_create(path, run_config(run), false) : NULL;
    return !made || run_close(made) || run_close(run);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--forget"))
        return tell(argv[2], NULL);
    if (argc == 4 && !strcmp(argv[1], "--tell"))
        return tell(argv[2], argv[3]);
    if (argc == 4 && !strcmp(argv[1], "--begin"))
        return begin(argv[2], argv[3]);
    test_streams();
    test_foreign_stream();
    test_json();
    test_mutations();
    return tap_done();
}
