/* Other processes' blocks of memory, mapped once and found again. Private to lib/stream. */
#ifndef HSSL_MAPPED_H
#define HSSL_MAPPED_H

#include "stream/message.h"

typedef struct Mapped Mapped;

enum { MAPPED_MOST = 1024 };

/* Fill in the data of m's shared tensors. *maps is made when it is needed. -1 with ERR_PEER, ERR_SYSTEM when a block
 * cannot be mapped. The data is valid until mapped_free(). */
int mapped_resolve(Mapped **maps, Message *m);
void mapped_free(Mapped **maps);

#endif
