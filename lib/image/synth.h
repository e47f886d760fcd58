/* A procedural image set with labels, drawn rather than downloaded.
 *
 * A class is a motif: one of 12 shapes in one of 4 fills, in one of three sizes, more often lighter or more
 * often darker than what lies under it. A picture repeats its motif on a turned, jittered lattice, so that nearly
 * every crop of it shows the class, and varies everything else: position, rotation, and colour (each copy its
 * own), a coloured cloud background, streaks and specks in front, a lighting gradient and noise. What varies also
 * varies from place to place within a picture: two crops of one picture have the motif in common and little
 * besides, so that self-supervised learning finds the class although pixels hardly tell it. (Were there a ground
 * colour for each picture, say, it would be that colour which is learnt.)
 *
 * Picture i is a pure function of (seed, part, i); parts never share a draw. */
#ifndef HSSL_SYNTH_H
#define HSSL_SYNTH_H

#include <stddef.h>
#include <stdint.h>

#define SYNTH_MAX_CLASSES 48
#define SYNTH_MIN_SIZE 8
#define SYNTH_MAX_SIZE 1024

typedef struct Synth Synth;

/* classes in [1, SYNTH_MAX_CLASSES], size (pixels, square) in [SYNTH_MIN_SIZE, SYNTH_MAX_SIZE].
 * NULL with ERR_USAGE or ERR_MEMORY. A Synth may be used by several threads at once. */
Synth *synth_new(uint64_t seed, int classes, int size);
void synth_free(Synth *s);

/* The label of picture i: every class comes equally often. */
int synth_label(const Synth *s, uint64_t i);
/* For example "star-striped". Returns buf. */
char *synth_class_name(int label, char *buf, size_t size);

/* Draw picture i of a part (0 train, 1 test, ...) to rgb: size * size * 3 bytes, rows first.
 * Returns 0, or -1 with ERR_MEMORY. */
int synth_draw(const Synth *s, uint32_t part, uint64_t i, uint8_t *rgb);

#endif
