/* Where ranks meet: HOST:PORT, or @NAME for processes of this host and user. Private to lib/dist. */
#ifndef HSSL_DIST_ADDRESS_H
#define HSSL_DIST_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

enum { ADDRESS_TEXT = 128 };

/* Rank 0: listen at that address alone; port 0: any free one. far: the others are on other hosts, so that an
 * address which only this host reaches will not do. actual: what the others call, in numbers. The descriptor,
 * which does not block, or -1 with an error. */
int address_listen(const char *address, bool far, char *actual, size_t size);
/* Whether HOST:PORT is an address of this host. 0, or -1 with an error. */
int address_is_here(const char *address, bool *here);

/* A connection; -1 where nobody answers within ms; -2 with an error where none can come of it: the address
 * makes no sense, or another user answers at @NAME. */
int address_call(const char *address, int ms);
/* Who is at the other end, for messages. -1 where that is another user of this host, at @NAME. */
int address_of_peer(int fd, char text[ADDRESS_TEXT]);

#endif
