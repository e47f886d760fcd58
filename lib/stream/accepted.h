/* Who connected: addresses of accepted tcp connections. Private to lib/stream.
 *
 * ZeroMQ reports an accepted connection by its descriptor, from another thread and later: a peer that is
 * refused at once has its descriptor closed by then, or somebody else has it. So the call that accepts, which
 * stream/gate.h takes over, keeps the address here. Where a ZeroMQ gets around it, the descriptor is asked. */
#ifndef HSSL_ACCEPTED_H
#define HSSL_ACCEPTED_H

enum { ACCEPTED_ADDRESS = 64 };

/* This connection was accepted. */
void accepted_keep(int fd);

/* Write "192.0.2.7:4711" or "[2001:db8::7]:4711" of the connection that was accepted as fd, the oldest not
 * asked for, or "an unknown address". */
void accepted_address(int fd, char text[ACCEPTED_ADDRESS]);

#endif
