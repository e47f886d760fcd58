/* Tables of labels. */
#include "fuzz.h"

#include "store/dataset.h"
#include "store/labels.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const char *class, *first;
    Labels *l = labels_read(fuzz_file("labels.csv", bytes, n));
    if (!l)
        return 0;
    /* Each row is found by its own name, and then was asked for. */
    for (int64_t unused = labels_unused(l, &first); unused; unused = labels_unused(l, &first)) {
        MUST(first && labels_find(l, first, &class) == 1 && labels_unused(l, &first) == unused - 1);
        MUST(!class || !labels_numbered(l) || dataset_class_number(class) >= 0);
    }
    MUST(!first);
    fuzz_sink = (unsigned)labels_find(l, "a/b.c/d.e", &class);
    labels_free(l);
    return 0;
}
