/* Files that are mapped into memory and change below their reader.
 *
 * Who shortens a mapped file, or copies another over it, makes its reader's next access a SIGBUS; LMDB, led by
 * page numbers that are no longer its own, may run into a SIGSEGV, too. Such a fault ends the program with exit
 * status 1 and one line that names the file. Any other fault does what it did before.
 *
 * The handler runs on a stack of its own: a thread's own one can't be trusted while it computes (oneDNN uses the stack
 * pointer as one more register). It returns to nobody, so nothing it interrupts has to be whole. */
#ifndef HSSL_FAULT_H
#define HSSL_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Before a file is mapped: from now on this process ends as above. Includes fault_thread(). */
void fault_guard(void);
/* For every other thread that reads mapped files: the stack, and neither signal blocked. */
void fault_thread(void);

/* Bytes of an open file that nobody changes as long as all is well: where they differ after a fault that lies in no
 * mapped file, that file is to blame. */
enum { FAULT_PAGES = 8 };
typedef struct {
    const char *path;
    int fd;
    int n; /* pages watched */
    size_t page; /* their size */
    off_t at[FAULT_PAGES];
    unsigned char *bytes; /* FAULT_PAGES pages, as they were */
    atomic_bool active; /* false while the other fields change */
} FaultWatch;

/* The watch is borrowed until fault_unwatch(). At most 64 at a time: further ones are not looked at. */
void fault_watch(FaultWatch *w);
void fault_unwatch(FaultWatch *w);
/* Whether the first n of them are still as they were. */
bool fault_same(const FaultWatch *w, int n);

/* Say the same of the file `path`, and end. For LMDB's assertions. */
_Noreturn void fault_end(const char *path);
/* What is said behind the file's name: for those who notice in another way. */
extern const char fault_text[];

#endif
