#include "ssl/method.h"

#include "util/err.h"

#include <string.h>

static const Method *const methods[] = { &method_dino };

const Method *method_find(const char *name)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (!strcmp(methods[i]->name, name))
            return methods[i];
    err_set(ERR_ABSENT, "%.60s: no such method (there are %s)", name, method_words());
    return NULL;
}

const char *method_words(void)
{
    return "dino";
}
