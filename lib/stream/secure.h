/* CURVE on tcp: who may connect to a stream, and who was turned away. Private to lib/stream; wire_bind() and
 * wire_connect() are the callers.
 *
 * A server socket gets a key pair of its own, and so does its ticket: `key` is the server's public key,
 * `secret` the secret key of the one client that the server admits. Both are new in each run and kept in
 * memory only, so an old ticket opens nothing. Whoever else connects is dropped before a byte of his reaches
 * the socket's owner, and is named in the log, once an address. */
#ifndef HSSL_SECURE_H
#define HSSL_SECURE_H

#include "stream/ticket.h"

enum { SECURE_HANDSHAKE_MS = 5000 }; /* who has not said who he is by then is dropped */

/* Make keys, set them on the socket and put key= and secret= into t. Call before zmq_bind(): endpoints that
 * were bound before stay as they are. At most one call a socket. */
int secure_serve(void *context, void *socket, Ticket *t);
/* Give a connecting socket the keys in t. ERR_DATA: the ticket has none, or spoilt ones. */
int secure_client(void *socket, const Ticket *t);

/* End the thread that checks keys. Call before zmq_ctx_term(), when no socket is left. */
void secure_stop(void);

#endif
