/* What hssl-import looks at: the head of any picture. */
#include "fuzz.h"

#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    ImageInfo info = { 0 };
    if (!image_probe(bytes, n, &info))
        MUST(info.w > 0 && info.h > 0 && (int64_t)info.w * info.h <= IMAGE_MAX_PIXELS &&
             info.orientation >= 1 && info.orientation <= 8);
    return 0;
}
