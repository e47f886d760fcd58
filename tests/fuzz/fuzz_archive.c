/* Tars, compressed or not. The number of bytes says how they are read. */
#include "take_all.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Intake *in = intake_open(fuzz_file("x.tar", bytes, n),
                             &(IntakeHow){ .marks = n % 2, .level = (int)(n / 2 % 3) - 1 });
    if (in)
        take_all(in, 64);
    return 0;
}
