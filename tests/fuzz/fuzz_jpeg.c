/* JPEG pictures, decoded as they are and shrunk. */
#include "picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (!picture_is_small(bytes, n))
        return 0;
    picture_decode(bytes, n, 8);
    picture_decode(bytes, n, 1 + (int)(n % 7));
    return 0;
}
