/* Gauges: what this process does, in a page of counters that others may read; see hssl-stream(7) for its layout.
 * Nothing is sent, so who looks disturbs nobody.
 *
 *     gauges_open("hssl-load");                 file `gauges` in the socket directory
 *     gauge_add(GAUGE_RECORDS_OUT, 1);
 *     gauge_state(GAUGE_WAITS_IN); <poll>; gauge_state(GAUGE_BUSY);
 *     gauges_close();
 *
 * A process has one page however often it is opened, and none where it cannot be made: then all this does nothing.
 * Counters may be changed by any thread. States count for the thread that opened the page first; what others say of
 * theirs is ignored. */
#ifndef HSSL_GAUGES_H
#define HSSL_GAUGES_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { GAUGES_BYTES = 4096, GAUGES_VERSION = 1, GAUGES_VALUES = 64 };
#define GAUGES_MAGIC "hsslgaug"

typedef enum { GAUGE_BUSY, GAUGE_WAITS_IN, GAUGE_WAITS_OUT, GAUGE_STATES } GaugeState;

/* The numbers are part of the layout. */
typedef enum {
    GAUGE_TIME = 0, /* three: nanoseconds in each state, but for the present one */
    GAUGE_RECORDS_IN = 3,
    GAUGE_RECORDS_OUT = 4,
    GAUGE_BYTES_IN = 5,
    GAUGE_BYTES_OUT = 6,
    GAUGE_HELD = 7,        /* records in custody now; of a trainer: that wait to be learned from */
    GAUGE_HELD_BYTES = 8,  /* of a hub */
    GAUGE_WORKERS = 9,     /* of a hub: at work now */
    GAUGE_LOST = 10,       /* workers that died or fell silent */
    GAUGE_RESTARTS = 11,   /* workers started in place of others */
    GAUGE_AGAIN = 12,      /* records handed out once more */
    GAUGE_DUPLICATES = 13, /* answers that came second */
    GAUGE_BAD = 14,        /* bad records passed on; of a trainer: bad images */
    GAUGE_STEP = 15,
    GAUGE_STEPS = 16,  /* that there are to be */
    GAUGE_IMAGES = 17, /* learned from, since this process began */
    GAUGE_LOSS = 18,   /* the bits of a double */
    GAUGE_COUNT
} Gauge;

typedef enum {
    GAUGE_KIND,
    GAUGE_SERVES,
    GAUGE_WORK,
    GAUGE_READS,
    GAUGE_TAP,
    GAUGE_WARNING,
    GAUGE_NAMES
} GaugeName;

/* The file, in the byte order of the machine. */
typedef struct {
    char magic[8];                         /* written last */
    uint32_t version, bytes;
    _Atomic uint64_t serial;               /* odd while names or states change */
    int64_t pid, started;                  /* started: ns since 1970 */
    _Atomic uint64_t since;                /* CLOCK_MONOTONIC, ns: when the present state began */
    _Atomic uint64_t state;
    char program[32];
    char name[GAUGE_NAMES][256];           /* GaugeName */
    char unused[2048 - 1624];
    _Atomic uint64_t value[GAUGES_VALUES]; /* Gauge */
    char more[GAUGES_BYTES - 2048 - 8 * GAUGES_VALUES];
} GaugePage;

/* Make the page, or take one more part in it. Each open wants one close; the last one removes the page. */
void gauges_open(const char *program);
void gauges_close(void);

void gauges_name(GaugeName which, const char *text);
void gauge_add(Gauge g, int64_t n);
void gauge_set(Gauge g, uint64_t value);
void gauge_set_real(Gauge g, double value);
void gauge_state(GaugeState s);

/* A page of another process: foreign input. Reads the file `gauges` in directory dir. Returns 0, or -1 with ERR_DATA
 * or ERR_SYSTEM. The texts end with a 0; the state's time up to now has been added to it. */
int gauges_read(const char *dir, GaugePage *out);

/* Nanoseconds on CLOCK_MONOTONIC. */
uint64_t gauges_now(void);

#endif
