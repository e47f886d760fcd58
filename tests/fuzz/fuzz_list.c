/* Lists of files on standard input, of lines or ended by zero bytes. The names are not opened. Input: which of the two
 * (1), the list. */
#include "fuzz.h"

#include "store/intake.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    IntakeItem item;
    if (!n)
        return 0;
    int fd = open(fuzz_file("list", bytes + 1, n - 1), O_RDONLY | O_CLOEXEC);
    MUST(fd >= 0 && dup2(fd, STDIN_FILENO) == STDIN_FILENO);
    close(fd);
    Intake *in = intake_open("-", &(IntakeHow){ .nul = bytes[0] & 1 });
    /* A tar is fuzz_archive's affair. */
    while (in && !strcmp(intake_kind(in), "list of files") && intake_next(in, &item) > 0)
        MUST(strlen(item.name) > 0);
    intake_close(in);
    return 0;
}
