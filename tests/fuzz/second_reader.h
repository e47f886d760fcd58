/* A second reader of message headers, made of msgpack-c's unpacker and a check of what it gives: written
 * apart from lib/stream/message_parse.c, to be held against it.
 *
 * msgpack-c may accept what ours refuses, for the reasons listed here, and for no others. Ours never accepts
 * what msgpack-c refuses, and what both accept has the same values. */
#ifndef HSSL_SECOND_READER_H
#define HSSL_SECOND_READER_H

#include "stream/message.h"

typedef enum {
    SECOND_DISAGREES = -1,
    SECOND_SAME,   /* both accept it, with the same values */
    SECOND_BROKEN, /* both refuse it: it breaks off, has the byte that nobody uses, or nests beyond
                      msgpack-c's stack */
    SECOND_BOMB, /* msgpack-c isn't asked: it would set memory aside for more entries than there are bytes */
    /* msgpack-c accepts, and ours refuses, */
    SECOND_LONG,    /* for a header is at most MSG_MAX_HEADER long */
    SECOND_BEHIND,  /* for it is one object, and nothing stands behind that */
    SECOND_EXT,     /* for no field is of an application's own type, and nobody knows what it would mean */
    SECOND_DEEP,    /* for what it steps over nests at most 16 deep, since it calls itself */
    SECOND_NO_MAP,  /* for it is a map whose keys are strings of at most 256 bytes */
    SECOND_MANY,    /* for there are bounds for the entries of maps and arrays */
    SECOND_TWICE,   /* for a field comes once */
    SECOND_VERSION, /* for another version of the protocol may mean something else */
    SECOND_FIELD,   /* for a known field is of another type, or a number or a text out of its range */
    SECOND_LACKS,   /* for a field is missing that must be there */
    SECOND_FRAMES,  /* for tensors and frames do not fit each other */
    SECOND_VERDICTS
} SecondVerdict;

/* What a header came with: count frames; or, where that is -1, one block frames[0] that holds all of them. */
typedef struct {
    const void *header;
    size_t n;
    const MsgFrame *frames;
    int count;
} SecondInput;

/* ours: what message_parse (or message_parse_flat) has returned for it, with *m. *what: the disagreement. */
SecondVerdict second_reader(const SecondInput *in, int ours, const Message *m, const char **what);
const char *second_text(SecondVerdict v);

/* The whole of it: parse, compare, clear. */
SecondVerdict second_check(const SecondInput *in, const char **what);

#endif
