/* What a worker of hssl-augment does to a record: reads its plan, decodes the image, renders the views. Which
 * process does it, and when, does not show in the pixels. */
#ifndef HSSL_RENDERING_H
#define HSSL_RENDERING_H

#include "stream/hub.h"
#include "train/planning.h"

typedef struct Rendering Rendering;

/* facts: the stream's description, with what planning_counts() needs, and `fast`. NULL with ERR_DATA, ERR_MEMORY. */
Rendering *rendering_new(const Message *facts);
void rendering_free(Rendering **r);

/* The tensors of a result: global u8[globals, side, side, 3] and, where there are any, local. Returns how many. */
int rendering_results(const ViewCounts *c, HubResult out[HUB_MAX_RESULTS]);

/* Render a planned record into out, one address a tensor. 0, -1: ERR_DATA the image or its plan is bad, ERR_MEMORY. */
int rendering_do(Rendering *r, const Message *record, uint8_t *const out[]);
const ViewCounts *rendering_counts(const Rendering *r);

#endif
