/* JSON objects of which every member matters. json-c takes a missing value for null, and says nothing where
 * memory lacks. */
#ifndef HSSL_JSON_H
#define HSSL_JSON_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

/* Takes value over, also where it fails: there was no value (NULL), or no memory. */
bool json_add(json_object *o, const char *key, json_object *value);
bool json_add_whole(json_object *o, const char *key, int64_t x);

#endif
