/* Rendering views: plans to pixels, byte for byte as Pillow and torchvision do it. */
#ifndef HSSL_RENDER_H
#define HSSL_RENDER_H

#include <stdbool.h>

#include "image/plan.h"

/* Memory kept from view to view; one a thread. */
typedef struct RenderScratch RenderScratch;
RenderScratch *render_scratch_new(void);
void render_scratch_free(RenderScratch *s);

/* Render one view to out: size * size * 3 bytes. 0, or -1 with ERR_DATA (the plan does not fit) or ERR_MEMORY. */
int render_view(const Image *im, const ViewPlan *plan, uint8_t *out, RenderScratch *s);

/* Decode once, as `reading` says (image.h), and render all. fast: let the JPEG decoder scale down where every
 * view shrinks the image: cheaper, and no longer the bytes of a full decode. */
int render_views(const void *bytes, size_t n, unsigned reading, const ViewPlan *plans, int count, bool fast,
                 uint8_t *const outs[], RenderScratch *s);

#endif
