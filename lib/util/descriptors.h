/* The descriptors 0, 1 and 2. */
#ifndef HSSL_DESCRIPTORS_H
#define HSSL_DESCRIPTORS_H

/* Make sure that standard input, output and error are open, before anything else is opened: the first file that a
 * program opens would take the place of one that was closed, and a message would be written into a data set. What is
 * closed becomes /dev/null: input is at its end, messages go nowhere, and output, where somebody would miss it, can't
 * be written (EBADF). opt_parse() does it. 0, or -1 with ERR_SYSTEM. */
int standard_descriptors(void);

#endif
