/* Writes the first inputs of every fuzz target to DIR/NAME/. They are made by the code that is attacked. */
#include "image/synth.h"
#include "ssl/config.h"
#include "store/safetensors.h"
#include "stream/message.h"
#include "stream/pack.h"
#include "stream/ticket.h"
#include "train/planning.h"
#include "util/err.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jpeglib.h>

static const char *dir;

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "seeds: %s: %s\n", what, err_code() ? err_text() : strerror(errno));
    exit(1);
}

static void seed(const char *target, const char *name, const void *bytes, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, target);
    if (mkdir(path, 0777) && errno != EEXIST)
        give_up(path);
    snprintf(path, sizeof path, "%s/%s/%s", dir, target, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f))
        give_up(path);
}

/* ---------------------------------------------------------------- messages */

static void put_message(const char *name, const Message *m)
{
    uint8_t buf[1 << 16];
    void *header;
    size_t n, at = 3;
    if (message_header(m, &header, &n))
        give_up(name);
    buf[0] = 0;
    buf[1] = (uint8_t)n;
    buf[2] = (uint8_t)(n >> 8);
    for (int i = 0; i < m->tensors; i++)
        if (m->tensor[i].medium == MSG_INLINE) {
            buf[0]++;
            buf[at++] = (uint8_t)m->tensor[i].bytes;
            buf[at++] = (uint8_t)(m->tensor[i].bytes >> 8);
        }
    memcpy(buf + at, header, n);
    at += n;
    for (int i = 0; i < m->tensors; i++)
        if (m->tensor[i].medium == MSG_INLINE) {
            memcpy(buf + at, m->tensor[i].data, m->tensor[i].bytes);
            at += m->tensor[i].bytes;
        }
    seed("message", name, buf, at);
    free(header);
}

static void record_of(Message *m, uint64_t seq)
{
    static const uint8_t px[24] = { 1, 2, 3 };
    message_init(m, MSG_DATA);
    m->seq = seq;
    m->epoch = 1;
    m->id = 7;
    m->label = 3;
    m->width = 60;
    m->height = 40;
    m->reading = 22;
    if (message_set_name(m, "a/b.jpg") || message_add_copy(m, "image", MSG_U8, 1, (int64_t[]){ 24 }, px) ||
        message_add_copy(m, "global", MSG_F32, 3, (int64_t[]){ 1, 2, 3 }, px))
        give_up("message");
}

static void messages(void)
{
    Message m;
    MsgBuffer pack = { 0 };
    static const MsgType simple[] = { MSG_HELLO, MSG_END, MSG_BYE, MSG_NOTE };
    for (int i = 0; i < 4; i++) {
        char name[16];
        message_init(&m, simple[i]);
        m.credit = 4;
        snprintf(name, sizeof name, "simple%d", i);
        put_message(name, &m);
        message_clear(&m);
    }
    record_of(&m, 5);
    put_message("record", &m);
    pack_append(&pack, &m);
    message_clear(&m);
    record_of(&m, 6);
    if (message_set_bad(&m, "truncated"))
        give_up("message");
    pack_append(&pack, &m);
    put_message("bad", &m);
    message_clear(&m);
    uint8_t *packed = malloc(pack.size + 1);
    if (!packed)
        give_up("pack");
    packed[0] = 255;
    memcpy(packed + 1, pack.data, pack.size);
    seed("message", "pack", packed, pack.size + 1);
    free(packed);
    free(pack.data);
    message_init(&m, MSG_WANT);
    m.limit = 100;
    if (message_set_acks(&m, 3, (uint64_t[]){ 1, 300, 70000 }))
        give_up("message");
    put_message("want", &m);
    message_clear(&m);
    message_init(&m, MSG_WELCOME);
    if (message_set_text(&m, "recipe", "dino") || message_set_int(&m, "images", -3) || message_set_real(&m, "x", 0.25))
        give_up("message");
    put_message("welcome", &m);
    message_clear(&m);
    message_init(&m, MSG_FAIL);
    if (message_set_reason(&m, "no more"))
        give_up("message");
    put_message("fail", &m);
    message_clear(&m);
}

static void wishes(void)
{
    static const char *const said[][2] = { { "whose", "vit_nano is made for" }, { "recipe", "mocov3" },
                                           { "view_seed", "7" },                { "global_size", "32" },
                                           { "global_scale", "0.4,1" },         { "locals", "2" },
                                           { "local_size", "16" },              { "local_scale", "0.15,0.4" },
                                           { "blur_scale", "0.5" },             { "fast", "true" } };
    enum { SAID = sizeof said / sizeof *said };
    for (int n = 1; n <= SAID; n += SAID - 1) {
        Message m;
        void *header;
        size_t size;
        message_init(&m, MSG_HELLO);
        for (int i = 0; i < n; i++) {
            char key[64];
            snprintf(key, sizeof key, WISH_PREFIX "%s", said[i][0]);
            if (message_set_text(&m, key, said[i][1]))
                give_up("wish");
        }
        if (message_header(&m, &header, &size))
            give_up("wish");
        seed("wish", n > 1 ? "all" : "none", header, size);
        put_message(n > 1 ? "wish" : "whose", &m);
        free(header);
        message_clear(&m);
    }
}

static void plans(void)
{
    static const char *const names[] = { "dino", "mocov3", "mae", "ibot" };
    for (int i = 0; i < 4; i++) {
        PlanningOptions o = PLANNING_DEFAULTS;
        Recipe r;
        ViewPlan views[PLAN_MAX_VIEWS];
        Message m;
        void *header;
        size_t n;
        o.recipe = names[i];
        o.locals = strcmp(names[i], "mae") ? 2 : 0;
        o.global_size = 24;
        o.local_size = 12;
        o.seed = 1;
        if (planning_recipe(&o, &r))
            give_up("plan");
        message_init(&m, MSG_DATA);
        m.width = 60;
        m.height = 40;
        plan_views(&r, 1, 2, 3, 60, 40, views);
        if (planning_attach(&m, views, r.globals + r.locals) ||
            planning_describe(&m, "hssl-multicrop", &o, &r) ||
            message_header(&m, &header, &n))
            give_up("plan");
        uint8_t *bytes = malloc(n + 5);
        if (!bytes)
            give_up("plan");
        memcpy(bytes, (uint8_t[]){ 59, 39, (uint8_t)((r.globals - 1) | r.locals << 4), 23, 11 }, 5);
        memcpy(bytes + 5, header, n);
        seed("plan", names[i], bytes, n + 5);
        free(bytes);
        free(header);
        message_clear(&m);
    }
}

/* ---------------------------------------------------------------- pictures */

/* EXIF data with one entry, an orientation; returns their size. */
static size_t exif_data(uint8_t *to, bool big, bool wide, uint8_t orientation)
{
    static const uint8_t data[2][26] = {
        { 'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0 },
        { 'M', 'M', 0, '*', 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1 },
    };
    memcpy(to, data[big], sizeof data[big]);
    if (wide)
        to[big ? 13 : 12] = 4;
    to[18 + (big ? (wide ? 3 : 1) : 0)] = orientation;
    return sizeof data[big];
}

/* A file with a piece put into it, behind some bytes that the target wants. */
static void put_in(const char *target, const void *before, size_t b, const uint8_t *file, size_t n, size_t at,
                   const uint8_t *piece, size_t size)
{
    uint8_t *all = malloc(b + n + size);
    if (!all)
        give_up(target);
    memcpy(all, before, b);
    memcpy(all + b, file, at);
    memcpy(all + b + at, piece, size);
    memcpy(all + b + at + size, file + at, n - at);
    seed(target, *file == 0xff ? "turned-jpeg" : "turned-png", all, b + n + size);
    free(all);
}

static void exifs(void)
{
    for (int i = 0; i < 4; i++) {
        uint8_t data[1 + 26] = { 0 };
        char name[16];
        snprintf(name, sizeof name, "data%d", i);
        seed("exif", name, data, 1 + exif_data(data + 1, i & 1, i & 2, (uint8_t)(2 * i + 2)));
    }
}

static const uint8_t tile_views[] = { 1, 0, 255, 0, 100, 23, 0, 40, 90, 10, 60, 11, 3 };

/* The same picture with a segment of XMP and one of EXIF data, or with a chunk of them. */
static void turn(const uint8_t *file, size_t n)
{
    uint8_t piece[64] = "\xff\xe1\0\x08http:/\xff\xe1\0\x22""Exif\0";
    bool png = *file != 0xff;
    size_t head = 20, at = png ? 33 : 2; /* behind the head chunk, or the first marker */
    if (png)
        memcpy(piece, "\0\0\0\x1a""eXIf", head = 8);
    size_t size = head + exif_data(piece + head, !png, false, 6);
    if (png) /* a checksum */
        size += 4;
    put_in("exif", png ? "\2" : "\1", 1, file, n, at, piece, size);
    put_in("probe", "", 0, file, n, at, piece, size);
    put_in(png ? "png" : "jpeg", "", 0, file, n, at, piece, size);
    put_in("tiles", tile_views, sizeof tile_views, file, n, at, piece, size);
}

typedef struct {
    const char *name;
    int components, space, h, v; /* sampling of the first component */
    bool progressive, arithmetic;
    int restart;
} JpegKind;

static void jpegs(const uint8_t *rgb, int size)
{
    static const JpegKind kinds[] = {
        { "plain", 3, JCS_RGB, 2, 2, false, false, 0 },      { "full", 3, JCS_RGB, 1, 1, false, false, 0 },
        { "half", 3, JCS_RGB, 2, 1, false, false, 2 },       { "tall", 3, JCS_RGB, 1, 2, false, false, 0 },
        { "gray", 1, JCS_GRAYSCALE, 1, 1, false, false, 0 }, { "inks", 4, JCS_CMYK, 1, 1, false, false, 0 },
        { "scans", 3, JCS_RGB, 2, 2, true, false, 0 },       { "gray-scans", 1, JCS_GRAYSCALE, 1, 1, true, false, 1 },
        { "arithmetic", 3, JCS_RGB, 2, 2, false, true, 0 },  { "arithmetic-scans", 3, JCS_RGB, 1, 1, true, true, 0 },
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const JpegKind *k = &kinds[i];
        struct jpeg_compress_struct c;
        struct jpeg_error_mgr e;
        unsigned char *out = NULL;
        unsigned long n = 0;
        c.err = jpeg_std_error(&e);
        jpeg_create_compress(&c);
        jpeg_mem_dest(&c, &out, &n);
        /* The same bytes as fewer or more components: a narrower or wider picture. */
        c.image_width = (JDIMENSION)(size * 3 / 4 / 4 * 4);
        c.image_height = (JDIMENSION)size / 2;
        c.input_components = k->components;
        c.in_color_space = (J_COLOR_SPACE)k->space;
        jpeg_set_defaults(&c);
        jpeg_set_quality(&c, 60, TRUE);
        c.comp_info[0].h_samp_factor = k->h;
        c.comp_info[0].v_samp_factor = k->v;
        c.restart_in_rows = k->restart;
        c.arith_code = k->arithmetic;
        if (k->progressive)
            jpeg_simple_progression(&c);
        jpeg_start_compress(&c, TRUE);
        while (c.next_scanline < c.image_height) {
            JSAMPROW row = (JSAMPROW)rgb + (size_t)c.next_scanline * (size_t)size * 3;
            jpeg_write_scanlines(&c, &row, 1);
        }
        jpeg_finish_compress(&c);
        jpeg_destroy_compress(&c);
        seed("jpeg", k->name, out, n);
        seed("probe", k->name, out, n < 700 ? n : 700);
        uint8_t *tiled = malloc(sizeof tile_views + n);
        if (!tiled)
            give_up("tiles");
        memcpy(tiled, tile_views, sizeof tile_views);
        memcpy(tiled + sizeof tile_views, out, n);
        seed("tiles", k->name, tiled, sizeof tile_views + n);
        free(tiled);
        if (i == 0)
            turn(out, n);
        free(out);
    }
}

typedef struct {
    uint8_t bytes[1 << 16];
    size_t n;
} Sink;

static void png_put(png_structp png, png_bytep from, size_t n)
{
    Sink *s = png_get_io_ptr(png);
    if (n > sizeof s->bytes - s->n)
        png_error(png, "too large");
    memcpy(s->bytes + s->n, from, n);
    s->n += n;
}

static void png_flushed(png_structp png)
{
    (void)png;
}

static void pngs(const uint8_t *rgb, int size)
{
    static const int types[] = { PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_PALETTE,
                                 PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB_ALPHA };
    static Sink s;
    for (int type = 0; type < 5; type++)
        for (int depth = 1; depth <= 16; depth *= 2)
            for (int adam7 = 0; adam7 < 2; adam7++) {
                bool palette = types[type] == PNG_COLOR_TYPE_PALETTE;
                if ((depth < 8 && type != 0 && !palette) || (depth == 16 && palette))
                    continue;
                char name[32];
                png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
                png_infop info = png_create_info_struct(png);
                png_color colours[16];
                s.n = 0;
                png_set_check_for_invalid_index(png, 0);
                png_set_write_fn(png, &s, png_put, png_flushed);
                png_set_IHDR(png, info, 11, 9, depth, types[type], adam7, 0, 0);
                for (int i = 0; i < 16; i++)
                    colours[i] = (png_color){ (png_byte)(i * 16), (png_byte)(255 - i), (png_byte)(i * i) };
                if (palette)
                    png_set_PLTE(png, info, colours, depth < 4 ? 1 << depth : 16);
                if (palette && adam7)
                    png_set_tRNS(png, info, (png_byte[]){ 0, 128 }, 2, NULL);
                if (depth == 8 && type < 2) {
                    png_set_tRNS(png, info, NULL, 0, &(png_color_16){ 0, 1, 2, 3, 4 });
                    png_set_gAMA(png, info, 0.45);
                    png_set_text(png, info, &(png_text){ .compression = PNG_TEXT_COMPRESSION_zTXt, .key = (char *)"Comment",
                                                         .text = (char *)"drawn, drawn, drawn", .text_length = 19 }, 1);
                }
                png_write_info(png, info);
                for (int pass = adam7 ? png_set_interlace_handling(png) : 1; pass; pass--)
                    for (int y = 0; y < 9; y++)
                        png_write_row(png, rgb + (size_t)y * (size_t)size * 3);
                png_write_end(png, NULL);
                png_destroy_write_struct(&png, &info);
                snprintf(name, sizeof name, "type%d-%d%s", types[type], depth, adam7 ? "-adam7" : "");
                seed("png", name, s.bytes, s.n);
                if (depth == 8)
                    seed("probe", name, s.bytes, s.n);
                if (depth == 8 && types[type] == PNG_COLOR_TYPE_RGB && adam7)
                    turn(s.bytes, s.n);
            }
}

/* ---------------------------------------------------------------- sources of images */

static void archives(const uint8_t *bytes, size_t n)
{
    static const struct {
        const char *name;
        int format, filter;
    } kinds[] = {
        { "ustar", ARCHIVE_FORMAT_TAR_USTAR, ARCHIVE_FILTER_NONE },
        { "pax", ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE, ARCHIVE_FILTER_NONE },
        { "gnu", ARCHIVE_FORMAT_TAR_GNUTAR, ARCHIVE_FILTER_NONE },
        { "gz", ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE, ARCHIVE_FILTER_GZIP },
        { "bz2", ARCHIVE_FORMAT_TAR_USTAR, ARCHIVE_FILTER_BZIP2 },
        { "xz", ARCHIVE_FORMAT_TAR_USTAR, ARCHIVE_FILTER_XZ },
        { "zst", ARCHIVE_FORMAT_TAR_USTAR, ARCHIVE_FILTER_ZSTD },
    };
    static const char *const names[] = { "a/one.jpg", "a/link.jpg", "./b/two.png", "b/.hidden", "b/three" };
    static uint8_t out[1 << 16];
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct archive *a = archive_write_new();
        size_t used = 0;
        archive_write_set_format(a, kinds[k].format);
        archive_write_add_filter(a, kinds[k].filter);
        archive_write_set_bytes_per_block(a, 0);
        if (archive_write_open_memory(a, out, sizeof out, &used))
            give_up(archive_error_string(a));
        for (int i = 0; i < 5; i++) {
            struct archive_entry *e = archive_entry_new();
            archive_entry_set_pathname(e, names[i]);
            archive_entry_set_filetype(e, i == 1 ? AE_IFLNK : AE_IFREG);
            archive_entry_set_perm(e, 0644);
            if (i == 1)
                archive_entry_set_symlink(e, "one.jpg");
            if (i == 4)
                archive_entry_sparse_add_entry(e, 100, 50);
            archive_entry_set_size(e, i == 1 ? 0 : (la_int64_t)n);
            if (archive_write_header(a, e) < ARCHIVE_WARN || (i != 1 && archive_write_data(a, bytes, n) < 0))
                give_up(archive_error_string(a));
            archive_entry_free(e);
        }
        archive_write_close(a);
        archive_write_free(a);
        seed("archive", kinds[k].name, out, used);
    }
}

static void sources(void)
{
    static uint8_t cifar[1 + 3073];
    seed("list", "lines", "\1a/b.jpg\nc.png\r\n\n", 17);
    seed("list", "zeros", "\1a/b.jpg\0c\nd.png\0", 17);
    seed("list", "absolute", "\0/x//y/../z\n", 12);
    seed("labels", "plain", "a.jpg,cat\nb.jpg,dog\n", 20);
    seed("labels", "header", "id;Label;file\r\n1;\"a\"\"b;\";x/1.png\r\n\r\n2; 7 ; y\r\n", 46);
    seed("labels", "numbers", "\xef\xbb\xbfimg\ty\na\t0\nb\t65535\nc\t-1\nd\t\na\t0\n", 33);
    seed("cifar", "ten", "\6ab\ncd\n\3pixels..........\11pixels", 31);
    seed("cifar", "hundred", "\206ab\ncd\n\3\77ixels", 14);
    seed("cifar", "whole", cifar, sizeof cifar);
}

/* ---------------------------------------------------------------- stored things */

static void tensors(void)
{
    static float x[64];
    char path[512], *bytes = malloc(8192);
    const StoredTensor t[] = { { "blocks.0.weight", STORED_F32, 2, { 4, 8 }, x, 128 },
                               { "n", STORED_I64, 0, { 0 }, x, 8 },
                               { "u", STORED_U8, 1, { 120 }, x, 120 } };
    const char *const meta[][2] = { { "format", "pt" }, { "arch", "vit" } };
    snprintf(path, sizeof path, "%s/x", dir);
    if (!bytes || safetensors_write(path, t, 3, meta, 2))
        give_up(path);
    FILE *f = fopen(path, "rb");
    bytes[0] = 0;
    size_t n = f ? fread(bytes + 1, 1, 8000, f) : 0;
    if (f)
        fclose(f);
    remove(path);
    seed("safetensors", "file", bytes, n + 1);
    size_t header = (unsigned char)bytes[1] | (size_t)(unsigned char)bytes[2] << 8;
    seed("safetensors", "header", bytes + 9, header);
    free(bytes);
    const char *empty = "{\"a\":{\"dtype\":\"F16\",\"shape\":[0,3],\"data_offsets\":[0,0]},"
                        "\"b\":{\"dtype\":\"BF16\",\"shape\":[128],\"data_offsets\":[0,256]}}   ";
    seed("safetensors", "empty", empty, strlen(empty));
}

static void stores(void)
{
    /* pages: nothing changed; one number; cut off; a meta page; to read and to write */
    seed("dataset", "sound", "\0", 1);
    seed("dataset", "written", "\2", 1);
    seed("dataset", "changed", "\0\3\12\0\2\1\0", 7);
    seed("dataset", "root", "\0\1\140\0\10\5\0\0\0\0\0\0\0\0", 14);
    seed("dataset", "cut", "\2\377\0\1\5", 5);
    seed("run", "sound", "\0", 1);
    seed("run", "written", "\2", 1);
    seed("run", "changed", "\0\3\12\0\2\1\0", 7);
    seed("run", "cut", "\2\377\0\1\5", 5);
    /* values: a record with name "a" and five bytes of image, its class */
    static const uint8_t record[] = { 3, 1, 0, 0, 39, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                      5, 0, 0, 0, 0, 0, 0, 0, 'a', 0, 1, 2, 3, 4, 5,
                                      2, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'c' };
    seed("dataset", "values", record, sizeof record);
    /* a log line, a checkpoint of set 0 with a tensor, that tensor */
    uint8_t run[512] = { 1, 1, 0, 0, 2, 0, '{', '}', 2, 1, 0, 26, 0 };
    size_t at = 13 + 24;
    run[13 + 8] = 1;
    run[13 + 16] = 8;
    memcpy(run + at, "{}", 2);
    at += 2;
    memcpy(run + at, "\33\0220000000000000000/t\170\0F32", 25);
    at += 22;
    run[at + 8] = 1;
    run[at + 16] = 2;
    run[at + 80] = 8;
    seed("run", "values", run, at + 120);
}

int main(int argc, char **argv)
{
    enum { SIZE = 48 };
    static uint8_t rgb[SIZE * SIZE * 3];
    if (argc != 2) {
        fprintf(stderr, "usage: seeds DIR\n");
        return 2;
    }
    dir = argv[1];
    if (mkdir(dir, 0777) && errno != EEXIST)
        give_up(dir);
    Synth *synth = synth_new(1, 4, SIZE);
    if (!synth || synth_draw(synth, 0, 1, rgb))
        give_up("synth");
    synth_free(synth);
    messages();
    wishes();
    plans();
    exifs();
    jpegs(rgb, SIZE);
    pngs(rgb, SIZE);
    archives(rgb, 700);
    sources();
    tensors();
    stores();
    static const char *const tickets[] = { "hssl/1 views ipc:///run/user/1000/hssl-1000-4711-x7Qk2m/views pid=4711 shm=1\n",
                                           "hssl/1 records tcp://127.0.0.1:5555 key=abc secret=def" };
    for (int i = 0; i < 2; i++)
        seed("ticket", i ? "tcp" : "ipc", tickets[i], strlen(tickets[i]));
    TrainConfig c;
    config_init(&c);
    char *json = config_to_json(&c);
    if (!json)
        give_up("config");
    seed("config", "defaults", json, strlen(json));
    free(json);
    seed("config", "few", "{\"arch\":\"vit_tiny\",\"lr\":1e-3,\"epochs\":5}", 41);
    return 0;
}
