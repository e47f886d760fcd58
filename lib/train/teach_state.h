/* The teacher's own state as one array of the host. Private to lib/train. */
#ifndef HSSL_TEACH_STATE_H
#define HSSL_TEACH_STATE_H

#include "ssl/teacher.h"

/* The centres [K] in the teacher's memory; base NULL where none is kept. 0, or -1. */
int teach_centers(Teacher *t, float **head, float **base);

/* Copy parameters, centre and, where there is one, base centre from the teacher to state, one behind the other, or with load
 * the other way. Waits for the device. 0, or -1. */
int teach_move_state(Teacher *t, int64_t k, float *state, bool load);

#endif
