/* Text on its way into files and onto terminals: foreign names, words for a shell, numbers, sizes. */
#ifndef HSSL_TEXT_H
#define HSSL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Bytes of the character at s, 0 at the end. *bad: it isn't proper UTF-8 (one byte then). *control: it commands a
 * terminal: U+0000 to U+001F, U+007F to U+009F, or a bare byte 0x80 to 0x9f, which some terminals obey, too. */
size_t text_character(const char *s, bool *bad, bool *control);

/* Foreign text for a terminal or a log: each control character becomes a question mark, all else stays. Cut at the end
 * of a character where it is too long for size, which holds a zero byte, too. Returns to, which may be s itself: the
 * text never grows. */
char *text_plain(const char *s, char *to, size_t size);

/* Foreign text as a JSON string, with its quotation marks: controls as \u00XX, what isn't UTF-8 as U+FFFD. */
void text_put_string(FILE *f, const char *s);
/* JSON text, as json-c or somebody else wrote it, with its control characters, which can stand in strings only, as
 * \u00XX, and U+FFFD for what isn't UTF-8. */
void text_put_json(FILE *f, const char *json);

/* s with every byte that isn't part of proper UTF-8 replaced by U+FFFD: names of files may hold any byte,
 * JSON may not. malloc'd, or NULL without memory. */
char *text_utf8(const char *s);

/* s as one word of a shell's command line (sh, bash, zsh, ksh), which gives back its very bytes; the word is
 * UTF-8 and commands no terminal, whatever s is. malloc'd, or NULL without memory. */
char *text_shell(const char *s);

/* A number as short as it can be without another one coming back from it. size: at least 32. Returns to. */
char *text_real(double x, char *to, size_t size);

/* A name for a file made of foreign text: letters, digits, dot, dash and underscore stay, runs of all else
 * become one underscore, and what would hide it or name a directory is changed. The end is kept where it is
 * too long for size, which holds a zero byte, too. Returns to; never empty where size > 1. */
char *text_file_name(const char *s, char *to, size_t size);

/* Bytes for a reader: "1.9 GB". Units are powers of 1000. Returns to. */
char *text_bytes(double n, char *to, size_t size);

#endif
