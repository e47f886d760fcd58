/* Tars, compressed or not. */
#include "take_all.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Intake *in = intake_open(fuzz_file("x.tar", bytes, n), false);
    if (in)
        take_all(in, 64);
    return 0;
}
