/* Parts of HSSL that need libraries which not every machine has, and that are loaded when they are asked for: they lie
 * beside the programs where those were built, and in lib/hssl where they were installed. */
#ifndef HSSL_PLUGIN_UTIL_H
#define HSSL_PLUGIN_UTIL_H

#include <stdbool.h>

/* file: "hssl-cuda.so". variable: of the environment, names the file itself where it is set. global: its own libraries
 * look for its symbols. NULL with ERR_USAGE; made is how it is built ("make CUDA=1"). Loaded once, never unloaded. */
void *plugin_load(const char *file, const char *variable, bool global, const char *made);
/* NULL with ERR_USAGE. */
void *plugin_symbol(void *library, const char *name);

#endif
