/* The reader of headers, held against msgpack-c's (tests/fuzz/second_reader.h): over the corpus of the fuzzer
 * and every beginning of it, over messages that msgpack-c's packer writes, and over what becomes of them by
 * damage. */
#include "../fuzz/fuzz.h"
#include "../fuzz/second_reader.h"
#include "../tap.h"

#include "util/err.h"
#include "util/rng.h"

#include <dirent.h>
#include <msgpack.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES = 4000, DAMAGED = 20, FRAMES = MSG_MAX_TENSORS + 1 };

static long seen[SECOND_VERDICTS], disagreements;

static SecondVerdict check(const SecondInput *in, const char *where)
{
    const char *what = "";
    /* In a block of its own, so that a sanitizer sees each byte too far. */
    uint8_t *own = malloc(in->n ? in->n : 1);
    SecondInput copy = *in;
    if (!own)
        return SECOND_BOMB;
    if (in->n)
        memcpy(own, in->header, in->n);
    copy.header = own;
    SecondVerdict v = second_check(&copy, &what);
    if (v >= 0) {
        seen[v]++;
    } else if (disagreements++ < 8) {
        diag("%s: %s (%s)", where, what, err_text());
        for (size_t i = 0; i < in->n && i < 256; i++)
            fprintf(stderr, "%s%02x", i % 32 ? "" : "\n# ", own[i]);
        fprintf(stderr, "\n");
    }
    free(own);
    return v;
}

/* ---------------------------------------------------------------- the corpus */

/* The header itself, and all that it begins with. */
static void check_beginnings(const SecondInput *in, const char *where)
{
    check(in, where);
    for (SecondInput part = *in; part.n;) {
        part.n--;
        check(&part, where);
    }
}

/* As tests/fuzz/fuzz_message.c reads its input. */
static void check_input(const uint8_t *bytes, size_t n, const char *where, bool beginnings)
{
    FuzzInput in = {bytes, bytes + n};
    MsgFrame frames[FRAMES];
    SecondInput s = {.frames = frames};
    uint32_t count = fuzz_take(&in, 1);
    if (count == 255) { /* a pack: headers and what belongs to them, behind 4 bytes */
        for (fuzz_take(&in, 4); in.at < in.end;) {
            size_t header = fuzz_take(&in, 4), data = fuzz_take(&in, 4), left = (size_t)(in.end - in.at);
            if (header > left || data > left - header)
                return;
            s.header = in.at;
            s.n = header;
            s.count = -1;
            frames[0] = (MsgFrame){(uint8_t *)(uintptr_t)in.at + header, data};
            in.at += header + data;
            beginnings ? check_beginnings(&s, where) : (void)check(&s, where);
        }
        return;
    }
    size_t header = fuzz_take(&in, 2), left;
    s.count = (int)(count % FRAMES);
    for (int i = 0; i < s.count; i++)
        frames[i].size = fuzz_take(&in, 2);
    left = (size_t)(in.end - in.at);
    s.header = in.at;
    s.n = header < left ? header : left;
    in.at += s.n;
    for (int i = 0; i < s.count; i++) {
        left = (size_t)(in.end - in.at);
        frames[i].data = (uint8_t *)(uintptr_t)in.at;
        frames[i].size = frames[i].size < left ? frames[i].size : left;
        in.at += frames[i].size;
    }
    beginnings ? check_beginnings(&s, where) : (void)check(&s, where);
}

static void test_corpus(void)
{
    static const char folder[] = "tests/fuzz/corpus/message";
    struct dirent **list;
    long files = 0;
    int n = scandir(folder, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        static uint8_t bytes[1 << 20];
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        FILE *f = list[i]->d_name[0] != '.' ? fopen(path, "rb") : NULL;
        size_t size = f ? fread(bytes, 1, sizeof bytes, f) : 0;
        if (f)
            fclose(f);
        if (size) {
            check_input(bytes, size, path, true);
            check_input(bytes, size - 1, path, false);
        }
        files += f != NULL;
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    ok(files >= 100, "%ld files of the corpus", files);
    is_int(disagreements, 0, "on none of them, nor on what they begin with, do both disagree");
    ok(seen[SECOND_SAME] > 20 && seen[SECOND_BROKEN] > 1000, "%ld are accepted by both, %ld by neither",
       seen[SECOND_SAME], seen[SECOND_BROKEN]);
}

/* ---------------------------------------------------------------- messages by msgpack-c's packer */

static void put_str(msgpack_packer *pk, const char *s)
{
    msgpack_pack_str(pk, strlen(s));
    msgpack_pack_str_body(pk, s, strlen(s));
}

/* x in some width that holds it. */
static void put_uint(msgpack_packer *pk, Rng *r, uint64_t x)
{
    uint32_t how = rng_below(r, 6);
    if (how == 0 && x <= UINT8_MAX)
        msgpack_pack_fix_uint8(pk, (uint8_t)x);
    else if (how == 1 && x <= UINT16_MAX)
        msgpack_pack_fix_uint16(pk, (uint16_t)x);
    else if (how == 2 && x <= UINT32_MAX)
        msgpack_pack_fix_uint32(pk, (uint32_t)x);
    else if (how == 3)
        msgpack_pack_fix_uint64(pk, x);
    else if (how == 4 && x <= INT64_MAX)
        msgpack_pack_fix_int64(pk, (int64_t)x);
    else
        msgpack_pack_uint64(pk, x);
}

/* At the bounds: what is as large as it may be, or larger by one. */
static bool at_bounds;

/* Of any size, small ones as often as large ones. */
static uint64_t any_uint(Rng *r, uint64_t most)
{
    if (at_bounds && rng_below(r, 2))
        return most + (most < UINT64_MAX && !rng_below(r, 4));
    uint64_t x = ((uint64_t)rng_u32(r) << 32 | rng_u32(r)) >> rng_below(r, 64);
    return most == UINT64_MAX ? x : x % (most + 1);
}

/* Entries, usually fewer than `usual`. */
static uint32_t any_count(Rng *r, uint32_t usual, uint32_t most)
{
    return at_bounds && !rng_below(r, 3) ? most + !rng_below(r, 3) : rng_below(r, usual);
}

static void put_long_text(msgpack_packer *pk, size_t n)
{
    char *text = malloc(n);
    memset(text, 'a', n);
    msgpack_pack_str(pk, n);
    msgpack_pack_str_body(pk, text, n);
    free(text);
}

static void put_text(msgpack_packer *pk, Rng *r, size_t most)
{
    char text[300];
    size_t n = rng_below(r, (uint32_t)(most < sizeof text ? most + 1 : sizeof text));
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(1 + rng_below(r, 255));
    msgpack_pack_str(pk, n);
    msgpack_pack_str_body(pk, text, n);
}

static void put_real(msgpack_packer *pk, Rng *r)
{
    if (rng_below(r, 2))
        msgpack_pack_float(pk, (float)(int32_t)rng_u32(r) / 1024);
    else
        msgpack_pack_double(pk, (double)(int32_t)rng_u32(r) / 3);
}

/* What a later version may add. */
static void put_anything(msgpack_packer *pk, Rng *r, int levels)
{
    uint32_t n = rng_below(r, 3);
    switch (rng_below(r, levels ? 9 : 7)) {
    case 0:
        msgpack_pack_nil(pk);
        return;
    case 1:
        rng_below(r, 2) ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
        return;
    case 2:
        put_uint(pk, r, any_uint(r, UINT64_MAX));
        return;
    case 3:
        msgpack_pack_int64(pk, (int64_t)(0 - any_uint(r, INT64_MAX)));
        return;
    case 4:
        put_real(pk, r);
        return;
    case 5:
        put_text(pk, r, 40);
        return;
    case 6:
        msgpack_pack_bin(pk, n);
        msgpack_pack_bin_body(pk, "\0\xc1", n);
        return;
    case 7:
        msgpack_pack_array(pk, n);
        for (uint32_t i = 0; i < n; i++)
            put_anything(pk, r, levels - 1);
        return;
    default:
        msgpack_pack_map(pk, n);
        for (uint32_t i = 0; i < 2 * n; i++)
            put_anything(pk, r, levels - 1);
    }
}

static void put_tensor(msgpack_packer *pk, Rng *r, SecondInput *in, MsgFrame *frames)
{
    static uint8_t data[4096];
    static const char *const dtypes[] = {"u8", "i32", "i64", "f32"};
    static const int sizes[] = {1, 4, 8, 4};
    uint32_t dtype = rng_below(r, 4), rank = any_count(r, 4, MSG_MAX_RANK), more = rng_below(r, 2);
    bool shared = rng_below(r, 4) == 0;
    size_t bytes = (size_t)sizes[dtype];
    msgpack_pack_map(pk, 4 + more + (shared ? 4 : 0));
    if (more) {
        put_str(pk, "later");
        put_anything(pk, r, 3);
    }
    put_str(pk, "shape");
    msgpack_pack_array(pk, rank);
    for (uint32_t d = 0; d < rank; d++) {
        uint32_t extent = rng_below(r, 8);
        put_uint(pk, r, extent);
        bytes *= extent;
    }
    put_str(pk, "name");
    put_str(pk, rng_below(r, 2) ? "global" : "x");
    put_str(pk, "medium");
    put_str(pk, shared ? "shared" : "inline");
    put_str(pk, "dtype");
    put_str(pk, dtypes[dtype]);
    if (!shared) {
        frames[in->count++] = (MsgFrame){data, bytes};
        return;
    }
    put_str(pk, "pid");
    put_uint(pk, r, any_uint(r, INT32_MAX));
    put_str(pk, "fd");
    put_uint(pk, r, any_uint(r, INT32_MAX));
    put_str(pk, "offset");
    put_uint(pk, r, 64 + (at_bounds && !rng_below(r, 4)));
    put_str(pk, "size");
    put_uint(pk, r, 64 + bytes + (at_bounds ? 0 : rng_below(r, 1 << 20)));
}

static void put_plan(msgpack_packer *pk, Rng *r)
{
    uint32_t views = any_count(r, 12, MSG_MAX_VIEWS - 1) + 1,
             numbers = any_count(r, 20, MSG_MAX_NUMBERS - 1) + 1;
    msgpack_pack_array(pk, views);
    for (uint32_t v = 0; v < views; v++) {
        msgpack_pack_array(pk, numbers);
        for (uint32_t i = 0; i < numbers; i++)
            if (rng_below(r, 2))
                put_real(pk, r);
            else if (rng_below(r, 2))
                put_uint(pk, r, any_uint(r, UINT64_MAX));
            else
                msgpack_pack_int64(pk, -(int64_t)rng_u32(r));
    }
}

static void put_fact(msgpack_packer *pk, Rng *r, uint32_t i)
{
    char key[16];
    snprintf(key, sizeof key, "fact%u", i);
    put_str(pk, key);
    switch (rng_below(r, 4)) {
    case 0:
        put_text(pk, r, 200);
        return;
    case 1:
        put_real(pk, r);
        return;
    case 2:
        put_uint(pk, r, any_uint(r, INT64_MAX));
        return;
    default:
        msgpack_pack_int64(pk, (int64_t)(0 - any_uint(r, INT64_MAX)));
    }
}

/* Fields in a random order; which & 1 << i: the i-th of these is there. */
static void put_field(msgpack_packer *pk, Rng *r, int field, SecondInput *in, MsgFrame *frames)
{
    static const char *const types[] = {"hello", "welcome", "data", "want", "end", "fail", "bye", "note"};
    static const char *const names[] = {"hssl",  "type", "seq",     "epoch", "id",   "label",
                                        "size",  "name", "bad",     "text",  "plan", "credit",
                                        "limit", "acks", "tensors", "facts", "later", "reading"};
    uint32_t n;
    put_str(pk, names[field]);
    switch (field) {
    case 0:
        put_uint(pk, r, 1 + rng_below(r, 2));
        return;
    case 1:
        put_str(pk, types[rng_below(r, 8)]);
        return;
    case 2:
    case 3:
    case 4:
        put_uint(pk, r, any_uint(r, INT64_MAX));
        return;
    case 5:
    case 11:
        put_uint(pk, r, any_uint(r, INT32_MAX));
        return;
    case 6:
        msgpack_pack_array(pk, 2);
        put_uint(pk, r, any_uint(r, UINT32_MAX));
        put_uint(pk, r, any_uint(r, UINT32_MAX));
        return;
    case 7:
    case 8:
    case 9:
        if (at_bounds && !rng_below(r, 4))
            put_long_text(pk, MSG_MAX_TEXT + rng_below(r, 2));
        else
            put_text(pk, r, 280);
        return;
    case 10:
        put_plan(pk, r);
        return;
    case 12:
        put_uint(pk, r, any_uint(r, UINT64_MAX));
        return;
    case 13:
        n = any_count(r, 40, MSG_MAX_ACKS);
        msgpack_pack_array(pk, n);
        for (uint32_t i = 0; i < n; i++)
            put_uint(pk, r, any_uint(r, UINT64_MAX));
        return;
    case 14:
        n = any_count(r, 5, MSG_MAX_TENSORS);
        msgpack_pack_array(pk, n);
        for (uint32_t i = 0; i < n; i++)
            put_tensor(pk, r, in, frames);
        return;
    case 15:
        n = any_count(r, 5, MSG_MAX_FACTS);
        msgpack_pack_map(pk, n);
        for (uint32_t i = 0; i < n; i++)
            put_fact(pk, r, i);
        return;
    case 17:
        put_uint(pk, r, any_uint(r, UINT16_MAX));
        return;
    default:
        put_anything(pk, r, 12);
    }
}

/* Unknown fields, as many as a map may have, or one more; or one whose name is that long. */
static void put_more(msgpack_packer *pk, Rng *r, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (count == 1)
            put_long_text(pk, 256 + rng_below(r, 2));
        else
            put_str(pk, "more");
        msgpack_pack_nil(pk);
    }
}

static void make_message(msgpack_packer *pk, Rng *r, SecondInput *in, MsgFrame *frames)
{
    int order[18];
    uint32_t n = 18, there = (rng_u32(r) & rng_u32(r)) | 7, count = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = rng_below(r, i + 1);
        order[i] = order[at];
        order[at] = (int)i;
        count += there >> i & 1;
    }
    in->count = 0;
    uint32_t more = !at_bounds || rng_below(r, 4) ? 0 : rng_below(r, 2) ? 1 : 256 + rng_below(r, 2) - count;
    msgpack_pack_map(pk, count + more);
    put_more(pk, r, more);
    for (uint32_t i = 0; i < n; i++)
        if (there >> order[i] & 1)
            put_field(pk, r, order[i], in, frames);
}

/* Whether both accept one message; and do they agree on what becomes of it? */
static bool check_message(uint64_t number, int damaged)
{
    Rng r = rng_make(7, RNG_TEST, number, at_bounds);
    MsgFrame frames[FRAMES];
    msgpack_sbuffer buf;
    msgpack_packer pk;
    msgpack_sbuffer_init(&buf);
    msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
    SecondInput in = {.frames = frames};
    make_message(&pk, &r, &in, frames);
    in.header = buf.data;
    in.n = buf.size;
    SecondVerdict v = check(&in, "a message");
    for (int k = 0; k < damaged; k++) {
        uint8_t *bytes = malloc(buf.size);
        memcpy(bytes, buf.data, buf.size);
        for (uint32_t c = 1 + rng_below(&r, 3); c; c--) {
            uint8_t *at = bytes + rng_below(&r, (uint32_t)buf.size);
            uint32_t how = rng_below(&r, 3); /* a bit, a byte, or the head of another kind of object */
            *at = (uint8_t)(how == 0   ? *at ^ 1u << rng_below(&r, 8)
                            : how == 1 ? rng_u32(&r)
                                       : 0xc0 + rng_below(&r, 32));
        }
        SecondInput changed = in;
        changed.header = bytes;
        check(&changed, "a damaged message");
        free(bytes);
    }
    msgpack_sbuffer_destroy(&buf);
    return v == SECOND_SAME;
}

static void test_packer(void)
{
    long refused = 0;
    disagreements = 0;
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < siege(MESSAGES); i++)
        refused += !check_message((uint64_t)i, DAMAGED);
    is_int(refused, 0, "what msgpack-c packs as a message is accepted by both");
    is_int(disagreements, 0, "and whatever becomes of it, they agree");
    ok(seen[SECOND_SAME] > MESSAGES && seen[SECOND_FIELD] > 100 && seen[SECOND_BROKEN] > 100,
       "%ld accepted, %ld broken, %ld with a wrong field", seen[SECOND_SAME], seen[SECOND_BROKEN],
       seen[SECOND_FIELD]);
    at_bounds = true;
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < siege(MESSAGES); i++)
        check_message((uint64_t)i, 0);
    is_int(disagreements, 0, "they agree at the bounds, too");
    ok(seen[SECOND_SAME] > 100 && seen[SECOND_FIELD] > 100 && seen[SECOND_MANY] > 100,
       "%ld within them, %ld with a number or text, %ld with a count beyond", seen[SECOND_SAME],
       seen[SECOND_FIELD], seen[SECOND_MANY]);
}

/* ---------------------------------------------------------------- the differences */

#define BYE                                                                                                  \
    "\xa4hssl\x01\xa4type\xa3"                                                                               \
    "bye"

/* One of each that msgpack-c accepts and ours does not. */
static void test_differences(void)
{
    static const struct {
        SecondVerdict want;
        const char *bytes;
        size_t n;
        const char *what;
    } each[] = {
#define CASE(want, bytes, what) {want, bytes, sizeof(bytes) - 1, what}
        CASE(SECOND_SAME, "\x82" BYE, "a bye"),
        CASE(SECOND_BEHIND, "\x82" BYE "\xc0", "and a nil"),
        CASE(SECOND_EXT, "\x83" BYE "\xa1z\xd4\x01x", "a type of an application's own"),
        CASE(SECOND_EXT, "\x83" BYE "\xa1z\x91\xc7\x01\x01x", "one in an array"),
        CASE(SECOND_SAME,
             "\x83" BYE "\xa1z\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0",
             "16 arrays"),
        CASE(SECOND_DEEP,
             "\x83" BYE "\xa1z\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0",
             "17 arrays"),
        CASE(SECOND_NO_MAP, "\x92\xc0\xc0", "an array"),
        CASE(SECOND_NO_MAP, "\x83" BYE "\x05\xc0", "a key that is a number"),
        CASE(SECOND_MANY,
             "\x83" BYE "\xa7tensors\xdc\0\x21"
             "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80"
             "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
             "33 tensors"),
        CASE(SECOND_TWICE, "\x83" BYE "\xa4hssl\x01", "a field twice"),
        CASE(SECOND_SAME, "\x84" BYE "\xa1z\x01\xa1z\x02", "an unknown one twice"),
        CASE(SECOND_VERSION,
             "\x82\xa4hssl\x03\xa4type\xa3"
             "bye",
             "another version"),
        CASE(SECOND_FIELD,
             "\x82\xa4hssl\x01\xa4type\xa3"
             "bie",
             "another type of message"),
        CASE(SECOND_FIELD, "\x83" BYE "\xa2id\xff", "a negative number"),
        CASE(SECOND_FIELD, "\x83" BYE "\xa2id\xcf\x80\0\0\0\0\0\0\0", "one of 64 bits"),
        CASE(SECOND_FIELD, "\x83" BYE "\xa4name\xa1\0", "a name with a zero byte"),
        CASE(SECOND_FIELD, "\x83" BYE "\xa4name\xc4\x01x", "a name in bytes"),
        CASE(SECOND_FIELD, "\x83" BYE "\xa4plan\x91\x91\xca\x7f\x80\0\0", "a plan with an infinite number"),
        CASE(SECOND_FIELD,
             "\x83" BYE "\xa5"
             "facts\x81\xa1x\xc3",
             "a fact that is true"),
        CASE(SECOND_LACKS,
             "\x82\xa4hssl\x01\xa4type\xa3"
             "end",
             "an end without a place"),
        CASE(SECOND_LACKS,
             "\x81\xa4type\xa3"
             "bye",
             "no version"),
        CASE(SECOND_LACKS, "\x83" BYE "\xa7tensors\x91\x81\xa4name\xa1x", "a tensor without a shape"),
        CASE(SECOND_FIELD,
             "\x83" BYE "\xa7tensors\x91\x86\xa4name\xa1x\xa5"
             "dtype\xa2u8\xa5shape\x90\xa6medium\xa6shared"
             "\xa4size\x09\xa5"
             "dtype\xa2u9",
             "a tensor of a known type and then of another"),
        CASE(SECOND_FRAMES,
             "\x83" BYE "\xa7tensors\x91\x84\xa4name\xa1x\xa5"
             "dtype\xa2u8\xa5shape\x90\xa6medium\xa6inline",
             "a tensor without a frame"),
        CASE(SECOND_BOMB, "\xdf\xff\xff\xff\xff", "a map of 2^32 entries"),
        CASE(SECOND_BROKEN,
             "\x82"
             "\xa4hssl\x01",
             "half a map"),
        CASE(SECOND_BROKEN, "\xc1", "a byte that nobody uses"),
        CASE(SECOND_BROKEN, "", "nothing"),
#undef CASE
    };
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        SecondInput in = {.header = each[i].bytes, .n = each[i].n};
        SecondVerdict v = check(&in, each[i].what);
        ok(v == each[i].want, "%s: %s", each[i].what, second_text(v));
    }
    static char text[MSG_MAX_HEADER + 32] = "\x83" BYE "\xa1z\xdb\0\x0f\xff\xe9"; /* 1 MiB in all */
    SecondInput in = {.header = text, .n = 23 + 0xfffe9};
    is_int((long long)check(&in, "long"), SECOND_SAME, "the longest header");
    text[22]++;
    in.n++;
    is_int((long long)in.n, MSG_MAX_HEADER + 1, "of so many bytes");
    is_int((long long)check(&in, "too long"), SECOND_LONG, "and one byte more");
}

int main(void)
{
    test_corpus();
    test_packer();
    test_differences();
    return tap_done();
}
