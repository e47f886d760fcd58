/* Messages: a msgpack header and one frame a tensor; see hssl-stream(7) for every field on the wire.
 *
 * A message is foreign input. message_parse() is the only reader: it checks types, lengths, counts, dtypes,
 * ranks and the product of every shape against its frame before anything is handed out. Limits are below.
 *
 * Building:   message_init(&m, MSG_DATA); m.seq = ...; message_set_text(&m, "recipe", "dino");
 *             uint8_t *px = message_add(&m, "global", MSG_U8, 4, shape);  ... fill px ...
 *             link_send(l, &m)  (takes the contents; m is empty afterwards)
 * Reading:    link_recv(l, &m, 1000); t = message_tensor(&m, "global"); ... message_clear(&m);
 * message_clear() on an empty ({0}) or cleared message is harmless. Strings and tensor data belong to the
 * message and live until it is cleared or sent. */
#ifndef HSSL_MESSAGE_H
#define HSSL_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MSG_MAX_TENSORS = 32,
    MSG_MAX_RANK = 6,
    MSG_MAX_FACTS = 64,
    MSG_MAX_VIEWS = 256,      /* views of one plan */
    MSG_MAX_NUMBERS = 32,     /* numbers of one view's plan */
    MSG_MAX_ACKS = 4096,
    MSG_MAX_HEADER = 1 << 20, /* bytes */
    MSG_MAX_TEXT = 1 << 16    /* bytes of one string */
};

typedef enum {
    MSG_NONE,
    MSG_HELLO,   /* consumer: who I am, kinds I take, where to start, my credit */
    MSG_WELCOME, /* producer: what the stream holds (facts) */
    MSG_DATA,    /* producer: one record */
    MSG_WANT,    /* consumer: more credit, a new limit, acknowledgements */
    MSG_END,     /* producer: complete, seq is one past the last record */
    MSG_FAIL,    /* either: I give up, text says why */
    MSG_BYE,     /* consumer: I leave in order */
    MSG_NOTE,    /* either, on a link: facts and tensors, `op` says what */
    MSG_TYPES
} MsgType;

typedef enum { MSG_U8, MSG_I32, MSG_I64, MSG_F32, MSG_DTYPES } MsgDtype;
size_t msg_dtype_size(MsgDtype d);
const char *msg_dtype_name(MsgDtype d); /* "u8" "i32" "i64" "f32" */

typedef enum {
    MSG_INLINE, /* the bytes are a frame of this message */
    MSG_SHARED  /* the bytes lie in a block of memory that the sender shares: map it with shm_attach() */
} MsgMedium;

typedef struct {
    const char *name;
    MsgDtype dtype;
    int ndim;
    int64_t shape[MSG_MAX_RANK];
    MsgMedium medium;
    size_t bytes;       /* product of shape times the dtype's size */
    void *data;         /* the bytes, any alignment; NULL where shared and not mapped */
    struct {
        int64_t pid, fd; /* /proc/PID/fd/FD */
        uint64_t size;   /* of the whole block */
        uint64_t offset; /* of this tensor in it; offset + bytes <= size is checked */
    } shared;
} MsgTensor;

typedef enum { FACT_INT, FACT_REAL, FACT_TEXT } FactType;
typedef struct {
    const char *key;
    FactType type;
    int64_t integer;
    double real;
    const char *text;
} MsgFact;

typedef struct Message {
    MsgType type;
    /* A record's fields, MSG_DATA. seq also in MSG_HELLO (start) and MSG_END. */
    uint64_t seq;    /* epoch * records_per_epoch + position */
    uint64_t epoch;
    uint64_t id;     /* the image's number in the dataset */
    int32_t label;   /* -1: none */
    uint32_t width, height; /* of the picture in the encoded image; 0 where unknown */
    uint16_t reading; /* how it is read from there, the affair of image/image.h; 0: as it is stored */
    const char *name; /* or NULL */
    const char *bad;  /* why there are no tensors, or NULL */
    const char *text; /* MSG_FAIL: the reason */
    /* The plan: views rows of numbers, row v at plan[v * numbers]; NULL where unplanned. What the numbers
     * mean is the affair of image/plan.h; integers and float32 values pass exactly. */
    int views, numbers;
    double *plan;
    /* Flow, MSG_HELLO and MSG_WANT. */
    uint64_t credit; /* records more that I take */
    uint64_t limit;  /* I take records with seq < limit only; UINT64_MAX: any */
    int acks;
    uint64_t *ack;   /* sequence numbers that I have taken over */
    /* Tensors and facts. */
    int tensors;
    MsgTensor *tensor;
    int facts;
    MsgFact *fact;
    struct MessageParts *parts; /* what holds the above */
} Message;

void message_init(Message *m, MsgType type);
void message_clear(Message *m);

/* Fields whose memory the message must hold: these copy. 0, or -1 with ERR_MEMORY or ERR_DATA (limits). */
int message_set_name(Message *m, const char *name);
int message_set_bad(Message *m, const char *reason);
int message_set_reason(Message *m, const char *text);
int message_set_plan(Message *m, int views, int numbers, const double *plan);
int message_set_acks(Message *m, int n, const uint64_t *seqs);

/* Facts: small named values. A second set of the same key replaces the first. Those of a hello that begin so
 * are what a consumer wishes, and travel from stage to stage upstream. */
#define WISH_PREFIX "wish_"
int message_set_int(Message *m, const char *key, int64_t value);
int message_set_real(Message *m, const char *key, double value);
int message_set_text(Message *m, const char *key, const char *value);
const MsgFact *message_fact(const Message *m, const char *key);
int64_t message_int(const Message *m, const char *key, int64_t otherwise);
double message_real(const Message *m, const char *key, double otherwise); /* integers count too */
const char *message_text(const Message *m, const char *key, const char *otherwise);
/* Set it in another message. */
int message_copy_fact(Message *to, const MsgFact *f);
/* Copy every fact of from that to does not have. */
int message_copy_facts(Message *to, const Message *from);

/* Add a tensor with a frame of its own and return its uninitialised bytes (64-byte aligned where it is
 * large), or NULL. */
void *message_add(Message *m, const char *name, MsgDtype dtype, int ndim, const int64_t *shape);
/* The same, copying data in. */
int message_add_copy(Message *m, const char *name, MsgDtype dtype, int ndim, const int64_t *shape, const void *data);
/* Add a tensor that lies offset bytes into a shared block; nothing is copied. The receiver must be told by
 * other means (a reply) when the bytes may change again. */
struct ShmBlock;
int message_add_shared(Message *m, const char *name, MsgDtype dtype, int ndim, const int64_t *shape,
                       const struct ShmBlock *block, size_t offset);
/* Copy the bytes of shared tensors into the message; their data must be known (a sink maps them). */
int message_make_inline(Message *m);
const MsgTensor *message_tensor(const Message *m, const char *name);
/* A second message with the same contents; the bytes of inline tensors are shared, not copied, so neither may write
 * to them. On failure (-1, ERR_MEMORY) to is empty. */
int message_copy(Message *to, const Message *from);
/* Bytes of its tensors, wherever they lie. */
size_t message_bytes(const Message *m);
/* Drop all tensors and their frames (a stage that replaces them). */
void message_drop_tensors(Message *m);

/* The header as bytes (malloc'd; caller frees). The frames are m->tensor[i].data of the inline tensors. */
int message_header(const Message *m, void **bytes, size_t *n);

typedef struct {
    void *data;
    size_t size;
} MsgFrame;

/* Parse a header and the frames that came with it. The strings are copied; tensor data points into the
 * frames, which the caller keeps alive as long as the message. -1 with ERR_DATA names the field; *out is
 * then empty. */
int message_parse(const void *header, size_t n, const MsgFrame *frames, int nframes, Message *out);

/* One line about the message without newline: for people, or JSON. sums: with the XXH3-64 of each tensor's bytes.
 * Returns malloc'd text or NULL. */
char *message_describe(const Message *m);
char *message_json(const Message *m, bool sums);

#endif
