/* CIFAR's binaries, and the names of the classes beside them. Input: length of the names (1), names, the file; it is
 * stretched to whole records, since another size is refused at once. */
#include "take_all.h"

enum { RECORD = 3073 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    FuzzInput in = { bytes, bytes + size };
    size_t n, names_size;
    uint32_t head = fuzz_take(&in, 1);
    uint8_t *names = fuzz_block(&in, head & 127, &names_size), *file = fuzz_block(&in, 1 << 16, &n);
    size_t record = RECORD + (head >> 7), whole = (n / 16 + 1) * record;
    uint8_t *stretched = calloc(1, whole);
    if (!stretched)
        abort();
    /* Every 16 bytes are the beginning of a record. */
    for (size_t i = 0; i < n; i++)
        stretched[i / 16 * record + i % 16] = file[i];
    fuzz_file(head >> 7 ? "fine_label_names.txt" : "batches.meta.txt", names, names_size);
    Intake *intake = intake_open(fuzz_file("data_batch_1.bin", n % 5 ? stretched : file, n % 5 ? whole : n),
                                 &(IntakeHow){ .nul = false });
    if (intake)
        take_all(intake, 4096);
    free(names);
    free(file);
    free(stretched);
    return 0;
}
