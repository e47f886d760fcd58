/* What a trainer wishes of its views. It travels upstream with hello, from stage to stage (hssl-stream(7)),
 * and fills in those options of the planning stage and of hssl-augment that were not given. A wish changes
 * nothing of a stream that runs already, and none makes a stage do what its options could not.
 *
 * It is said as provenance is: each fact as the text that its option takes. To a stage it is foreign input.
 */
#ifndef HSSL_WISH_H
#define HSSL_WISH_H

#include "train/planning.h"
#include "train/provenance.h"
#include "util/opt.h"

#include <stdbool.h>

enum { WISH_WHOSE = 96 };

typedef struct {
    char whose[WISH_WHOSE]; /* begins what is said of it: "vit_nano is made for"; printable ASCII */
    Provenance views;       /* facts of the stages that plan and render; others are not looked at */
} Wish;

/* Whether a fact can be wished: it decides what the views are, and is an option of the stage that plans them
 * or of the one that renders them. */
bool wish_can_be(const ProvenanceFact *f);
void wish_free(Wish *w);
/* As facts of a hello, and back. -1: ERR_MEMORY, or, of a foreign one, ERR_DATA; *w is to be freed in either
 * case. */
int wish_put(const Wish *w, Message *hello);
int wish_read(Wish *w, const Message *hello);

/* The stages that a program is. */
typedef struct {
    bool plans, renders;
} WishRoles;

/* Set those of a stage's options that were not given. opts: the program's table, which points into *p.
 * Recipe, shares of the area and blur are left alone where a recipe was given, or sizes, which they suit; a
 * recipe that was given also brings its own number of local views. *r becomes the recipe of all. 0; or -1,
 * and all is as before: ERR_DATA or ERR_USAGE for a wish that makes no sense, or wants more than 16 MiB of
 * pixels an image, which is no reason to end. */
int wish_take(const Message *hello, const Opt *opts, WishRoles as, PlanningOptions *p, Recipe *r);
/* For the welcome of who plans: whether that is as its options say. */
int wish_answer(Message *welcome, const Opt *opts);

/* Whether the stream that is described so differs from what was wished, and if so how, to stand behind a
 * program's name: "makes 2 x 224 + 8 x 96 views, as its options say; vit_nano is made for 2 x 32 + 2 x 16".
 * What the stream does not tell does not differ. */
bool wish_differs(const Wish *w, const Message *welcome, WishRoles in, char *words, size_t size);
/* A stage says so in its log. */
void wish_compare(const Message *hello, const Message *welcome, WishRoles as);

#endif
