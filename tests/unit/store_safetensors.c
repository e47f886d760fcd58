/* lib/store: safetensors files, sound and unsound. */
#include "../tap.h"

#include "store/kind.h"
#include "store/safetensors.h"
#include "util/err.h"
#include "util/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/hssl-safe.XXXXXX";
static char path[64];

static void write_file(const void *bytes, size_t n)
{
    unlink(path); /* a truncated file that is written anew is flushed to the disk by some file systems */
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f))
        exit(1);
}

static size_t read_file(unsigned char *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, room, f) : 0;
    if (f)
        fclose(f);
    return n;
}

static void test_round_trip(void)
{
    float w[6] = { 1, 2, 3, 4, 5, 6 };
    int64_t steps = 77;
    unsigned char bytes[3] = { 7, 8, 9 };
    const StoredTensor in[] = {
        { "mask", STORED_U8, 1, { 3 }, bytes, 3 },
        { "blocks.0.attn.qkv.weight", STORED_F32, 2, { 2, 3 }, w, 24 },
        { "steps", STORED_I64, 0, { 0 }, &steps, 8 },
        { "empty \"quoted\"/\xc3\xa4", STORED_F32, 3, { 4, 0, 2 }, NULL, 0 },
    };
    const char *const meta[][2] = { { "arch", "vit_nano" }, { "note", "a \"b\"\n" } };
    ok(!safetensors_write(path, in, 4, meta, 2), "write") || (diag("%s", err_text()), 0);
    SafeTensors *st = safetensors_open(path);
    ok(st && safetensors_count(st) == 4, "open") || (diag("%s", err_text()), 0);
    if (!st)
        return;
    const StoredTensor *t = safetensors_get(st, "blocks.0.attn.qkv.weight");
    ok(t && t->ndim == 2 && t->shape[1] == 3 && !memcmp(t->data, w, 24), "a matrix comes back");
    t = safetensors_get(st, "steps");
    ok(t && t->ndim == 0 && *(const int64_t *)t->data == 77, "a scalar comes back, aligned");
    t = safetensors_get(st, in[3].name);
    ok(t && t->bytes == 0 && t->ndim == 3 && t->shape[0] == 4, "an empty tensor comes back");
    t = safetensors_get(st, "mask");
    ok(t && !memcmp(t->data, bytes, 3), "bytes come back");
    ok(!safetensors_get(st, "blocks") && err_code() == ERR_ABSENT, "another name is absent");
    ok(!strcmp(safetensors_meta(st, "note"), "a \"b\"\n") && !safetensors_meta(st, "none") &&
           safetensors_meta_count(st) == 2, "metadata comes back");
    ok(!strcmp(safetensors_at(st, 0)->name, "blocks.0.attn.qkv.weight") && !safetensors_at(st, 4), "in order of names");
    safetensors_close(st);

    const StoredTensor twice[] = { in[0], in[0] };
    ok(safetensors_write(path, twice, 2, NULL, 0) < 0, "a name twice is refused");
    st = safetensors_open(path);
    ok(st && safetensors_count(st) == 4, "and leaves the file that was there");
    safetensors_close(st);
    ok(safetensors_write("/nonexistent/x", in, 1, NULL, 0) < 0 && err_code() == ERR_SYSTEM, "a missing directory");
}

static void refused(const char *header, size_t data, const char *why)
{
    unsigned char bytes[2048] = { 0 };
    uint64_t n = strlen(header);
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    write_file(bytes, 8 + n + data);
    SafeTensors *st = safetensors_open(path);
    ok(!st && err_code() == ERR_DATA, "%s", why);
    if (!st)
        diag("%s", err_text());
    safetensors_close(st);
}

static void test_unsound(void)
{
    unsigned char bytes[64] = { 0 };
    refused("{}", 4, "data behind the last tensor");
    refused("[]", 0, "no object");
    refused("{\"a\":", 0, "half an object");
    refused("{} x", 0, "something behind the object");
    refused("{\"a\":3}", 0, "a tensor that is no object");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "no offsets");
    refused("{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "an unknown type");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "a negative extent");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "an extent with a fraction");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "shape and offsets disagree");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "a truncated file");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "offsets the wrong way round");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0, "a product that overflows");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999999],\"data_offsets\":[0,4]}}", 4, "a number that overflows");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "too many dimensions");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "tensors that overlap");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}", 3, "a hole between tensors");
    refused("{\"__metadata__\":{\"a\":1}}", 0, "metadata that is no string");
    refused("{\"__metadata__\":[]}", 0, "metadata that is no object");
    refused("{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", 0, "nested too deeply");
    memset(bytes, 0xff, 8);
    write_file(bytes, 64);
    ok(!safetensors_open(path) && err_code() == ERR_DATA, "a header longer than the file");
    write_file(bytes, 5);
    ok(!safetensors_open(path) && err_code() == ERR_DATA, "a file too short for a header");
    write_file(bytes, 0);
    ok(!safetensors_open(path) && err_code() == ERR_DATA, "an empty file");
    ok(!safetensors_open(dir) && err_code() == ERR_DATA, "a directory");
    ok(!safetensors_open("/nonexistent/x") && err_code() == ERR_ABSENT, "no file");
}

/* What torch.save writes says how it is converted, to whoever opens it. */
static void test_pickles(void)
{
    static const unsigned char old[] = "\x80\2\x8a\12\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\2M\xe9\3.";
    static const unsigned char zip[] = "PK\3\4\0\0\10\10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\20\0\0\0"
                                      "archive/data.pkl..";
    unsigned char other[sizeof zip];
    memcpy(other, zip, sizeof zip);
    other[30] = other[45] = 'x';
    const struct {
        const void *bytes;
        size_t n;
        bool pickle;
        const char *what;
    } files[] = {
        { old, sizeof old - 1, true, "a pickle of before PyTorch 1.6" },
        { zip, sizeof zip - 1, true, "one in a zip" },
        { zip, 44, false, "half a zip" },
        { other, sizeof other - 1, false, "a zip of something else" },
        { old, 12, false, "half a pickle" },
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        write_file(files[i].bytes, files[i].n);
        SafeTensors *st = safetensors_open(path);
        bool said = strstr(err_text(), "python3 -c 'import");
        ok(!st && err_code() == ERR_DATA && files[i].pickle == said, "%s: %.80s", files[i].what, err_text());
        FileKind kind = kind_of_file(path);
        said = strstr(err_text(), "weights.safetensors");
        ok(kind == KIND_UNKNOWN && files[i].pickle == said, "and whoever asks what it is hears the same");
    }
}

/* Every half, against its meaning in whole powers of two; and the upper halves of floats. */
static void test_types(void)
{
    static uint16_t half[65536];
    static float got[65536];
    long wrong = 0, wrong_bf16 = 0;
    for (int i = 0; i < 65536; i++)
        half[i] = (uint16_t)i;
    StoredTensor t = { .name = "h", .dtype = STORED_F16, .ndim = 1, .shape = { 65536 } };
    t.data = half;
    t.bytes = sizeof half;
    ok(!stored_to_f32(&t, got), "fp16");
    for (int i = 0; i < 65536; i++) {
        int exponent = i >> 10 & 31, fraction = i & 1023;
        double x = exponent == 31 ? fraction ? NAN : INFINITY
                   : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                  : ldexp(fraction, -24);
        wrong += isnan(x) ? !isnan(got[i])
                          : (double)got[i] != (i >> 15 ? -x : x) || !signbit(got[i]) != !(i >> 15);
    }
    is_int(wrong, 0, "every one of them is what it means");
    t.dtype = STORED_BF16;
    ok(!stored_to_f32(&t, got), "bf16");
    for (int i = 0; i < 65536; i++) {
        uint32_t bits;
        memcpy(&bits, &got[i], 4);
        wrong_bf16 += bits != (uint32_t)i << 16;
    }
    is_int(wrong_bf16, 0, "is the upper half of a float");
    const double wide[] = { 0.1, -1e300 };
    t = (StoredTensor){ .name = "d", .dtype = STORED_F64, .ndim = 1, .shape = { 2 } };
    t.data = wide;
    t.bytes = sizeof wide;
    ok(!stored_to_f32(&t, got) && got[0] == 0.1f && got[1] == -INFINITY, "fp64 is rounded");
    t.dtype = STORED_I64;
    ok(stored_to_f32(&t, got) < 0 && err_code() == ERR_DATA, "whole numbers are not real ones");
}

/* Reads what it was given: the sanitizers see a wrong pointer. */
static int touch(const StoredTensor *t, void *arg)
{
    const unsigned char *p = t->data;
    for (size_t i = 0; i < t->bytes; i++)
        *(unsigned *)arg += p[i];
    *(unsigned *)arg += (unsigned)strlen(t->name);
    return 0;
}

static void test_damage(void)
{
    static unsigned char good[4096], bad[4096];
    float x[100] = { 0 };
    unsigned sum = 0, opened = 0;
    Rng r = rng_make(1, RNG_TEST, 0, 0);
    const StoredTensor in[] = { { "a", STORED_F32, 2, { 10, 10 }, x, 400 }, { "b.c", STORED_U8, 1, { 7 }, x, 7 },
                                { "d", STORED_I64, 0, { 0 }, x, 8 } };
    const char *const meta[][2] = { { "k", "v" } };
    ok(!safetensors_write(path, in, 3, meta, 1), "a file to damage");
    size_t n = read_file(good, sizeof good);
    for (int i = 0; i < 4000; i++) {
        size_t length = rng_below(&r, 4) ? n : rng_below(&r, (uint32_t)n + 1);
        memcpy(bad, good, n);
        for (uint32_t k = rng_below(&r, 6); k; k--) {
            /* Mostly digits and brackets, in the header: they change the meaning and not only the syntax. */
            uint32_t at = rng_below(&r, rng_below(&r, 8) ? 260 : (uint32_t)n);
            bad[at] = rng_below(&r, 3) ? (unsigned char)"0123456789[]{},:\"-"[rng_below(&r, 18)]
                                       : (unsigned char)rng_u32(&r);
        }
        write_file(bad, length);
        SafeTensors *st = safetensors_open(path);
        opened += !!st;
        if (st)
            safetensors_each(st, touch, &sum);
        safetensors_close(st);
    }
    ok(opened > 0 && opened < 4000, "four thousand damaged files: %u still make sense", opened);
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/x.safetensors", dir);
    test_round_trip();
    test_unsound();
    test_pickles();
    test_types();
    test_damage();
    unlink(path);
    ok(!mkfifo(path, 0600) && !safetensors_open(path) && err_code() == ERR_DATA, "a pipe that nobody writes to");
    unlink(path);
    rmdir(dir);
    return tap_done();
}
