/* What the processes of one job know and nobody else does: HSSL_SECRET, or what stands in the file
 * HSSL_SECRET_FILE. */
#ifndef HSSL_DIST_SECRET_H
#define HSSL_DIST_SECRET_H

#include "dist/channel.h"

#include <stdbool.h>

/* The command that makes one, for messages. */
#define SECRET_MAKE "head -c 32 /dev/urandom | base64"

/* The key made of it; found is false, and the key that of no secret, where neither variable is set. 0, or -1
 * with ERR_USAGE or ERR_SYSTEM: a secret of less than 32 characters; a file that is not plain, not this
 * user's own, or open to others. */
int secret_find(unsigned char key[CHANNEL_KEY], bool *found);
/* A new one. 0, or -1. */
int secret_make(unsigned char key[CHANNEL_KEY]);

#endif
