/* Who connected: addresses of accepted tcp connections. Private to lib/stream.
 *
 * ZeroMQ reports an accepted connection by its descriptor, from another thread and later: a peer that is
 * refused at once has its descriptor closed by then, or somebody else has it. So accept4(), which ZeroMQ
 * calls, is taken over by a function that keeps what it returns. Where a ZeroMQ gets around it, the
 * descriptor is asked. */
#ifndef HSSL_ACCEPTED_H
#define HSSL_ACCEPTED_H

enum { ACCEPTED_ADDRESS = 64 };

/* Write "192.0.2.7:4711" or "[2001:db8::7]:4711" of the connection that was accepted as fd, the oldest not
 * asked for, or "an unknown address". */
void accepted_address(int fd, char text[ACCEPTED_ADDRESS]);

#endif
