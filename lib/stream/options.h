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
    bool stay;          /* wait for another consumer when one has left */
    int64_t fan_out;    /* consumers that each get every record; 0: one. Only who can make records again has it */
    const char *medium; /* "auto", "shm", "inline"; NULL: auto */
    double idle;        /* seconds that a consumer may take nothing of what waits for it; 0: 60 */
    int64_t memory;     /* bytes of records that a stage holds or has asked for; 0: as many as its credit says */
} StreamOptions;

#define STREAM_OPTS(p) \
    OPT_STR("listen", 0, &(p)->listen, "[HOST:]PORT", \
            "serve over tcp, encrypted (0: any free port; no HOST: this machine only)"), \
    OPT_FLAG("stay", 0, &(p)->stay, "stay when the consumer leaves, for the next one")

#define STREAM_MEMORY ((int64_t)128 << 20)
/* Of stages in the middle, which hold records. */
#define STREAM_MEMORY_OPT(p) \
    OPT_SIZE("memory", 0, &(p)->memory, 1, (double)((int64_t)1 << 50), "BYTES", \
             "hold so many bytes of records at most (128M)")

#endif
