/* PNG pictures, decoded as they are. */
#include "picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (!picture_is_small(bytes, n))
        return 0;
    picture_decode(bytes, n, 8);
    return 0;
}

#ifdef HSSL_FUZZ
/* Mutated chunks get their checksums back; else libpng would look at few of them. */
static uint32_t crc(const uint8_t *p, size_t n)
{
    uint32_t c = UINT32_MAX;
    for (; n; n--) {
        c ^= *p++;
        for (int i = 0; i < 8; i++)
            c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
    }
    return ~c;
}

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t n, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t n, size_t room, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t n, size_t room, unsigned seed)
{
    enum { SIGNATURE = 8, AROUND = 12 };
    n = LLVMFuzzerMutate(bytes, n, room);
    for (size_t at = SIGNATURE; seed % 16 && at + AROUND <= n;) {
        size_t length = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 | (size_t)bytes[at + 2] << 8 |
                        bytes[at + 3];
        if (length > n - at - AROUND)
            break;
        uint32_t sum = crc(bytes + at + 4, length + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + length + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += AROUND + length;
    }
    return n;
}
#endif
