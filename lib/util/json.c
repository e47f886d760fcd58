#include "util/json.h"

bool json_add(json_object *o, const char *key, json_object *value)
{
    bool fine = value && !json_object_object_add(o, key, value);
    if (!fine)
        json_object_put(value);
    return fine;
}

bool json_add_whole(json_object *o, const char *key, int64_t x)
{
    return json_add(o, key, json_object_new_int64(x));
}
