/* Options of every program that produces a stream, so that they read alike everywhere:
 *
 *     static StreamOptions stream;
 *     static const Opt opts[] = { ..., STREAM_OPTS(&stream), OPT_END };
 */
#ifndef HSSL_STREAM_OPTIONS_H
#define HSSL_STREAM_OPTIONS_H

#include "util/opt.h"

typedef struct {
    const char *listen; /* [HOST:]PORT, or NULL: an ipc socket */
} StreamOptions;

#define STREAM_OPTS(p) \
    OPT_STR("listen", 0, &(p)->listen, "[HOST:]PORT", \
            "serve over tcp, encrypted (0: any free port; no HOST: this machine only)")

#endif
