#include "store/pickle.h"

#include "util/err.h"
#include "util/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A zip archive whose first member is NAME/data.pkl: since PyTorch 1.6. */
static bool is_zip(const unsigned char *b, size_t n)
{
    static const char member[] = "data.pkl";
    size_t length = sizeof member - 1, at = 30; /* of the member's name */
    if (n < at || memcmp(b, "PK\3\4", 4))
        return false;
    size_t end = at + b[26] + 256u * b[27];
    return end <= n && end - at >= length && !memcmp(b + end - length, member, length);
}

/* The magic number 0x1950a86a20f9469cfc6c as a pickle of protocol 2. */
static bool is_old(const unsigned char *b, size_t n)
{
    static const char magic[] = "\x80\2\x8a\12\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    return n >= sizeof magic - 1 && !memcmp(b, magic, sizeof magic - 1);
}

/* Loads tensors and the few plain types beside them that DINO's full checkpoints hold, and runs nothing else.
 */
static const char convert[] =
    "import sys, argparse, numpy, torch, safetensors.torch as s; z = numpy.float64(0); r = "
    "z.__reduce__()[0]; "
    "torch.serialization.add_safe_globals([argparse.Namespace, numpy.dtype, type(z.dtype), r, "
    "(r, \"numpy.core.multiarray.scalar\")]); d = torch.load(sys.argv[1], \"cpu\", weights_only=True); "
    "[d := d[k] for k in (\"teacher\", \"state_dict\", \"model\") if k in d]; "
    "s.save_file({k: v.clone().contiguous() for k, v in d.items() if torch.is_tensor(v)}, sys.argv[2])";

int pickle_refuse(const char *path, const void *head, size_t n)
{
    if (!is_zip(head, n) && !is_old(head, n))
        return 0;
    char *name = text_shell(path);
    enum { ROOM = ERR_TEXT - sizeof convert - 128 };
    bool fits = name && strlen(path) + strlen(name) < ROOM; /* else the command's end is cut off */
    err_set(ERR_DATA,
            "%.*s: a PyTorch pickle; make it a safetensors file: python3 -c '%s' %s weights.safetensors",
            (int)ROOM, path, convert, fits ? name : "FILE");
    free(name);
    return -1;
}
