/* ZMTP 3 by hand, for peers that do what no ZeroMQ would. */
#ifndef HSSL_ZMTP_H
#define HSSL_ZMTP_H

#include "stream/message.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

/* How a peer fared. BLOCKED: nothing more was taken of it for seconds. */
typedef enum { ZMTP_CUT = 10, ZMTP_BLOCKED, ZMTP_SPENT, ZMTP_NOT_IN } ZmtpFate;

typedef struct {
    int fd;
    uint64_t sent; /* bytes */
    ZmtpFate fate; /* ZMTP_SPENT until something happens */
} ZmtpPeer;

struct sockaddr_un zmtp_address(const char *endpoint);
/* A connection to an ipc endpoint, or -1. */
int zmtp_knock(const char *endpoint);
/* The same, and the handshake as a socket of this type ("DEALER"); false also where nobody opens for seconds. */
bool zmtp_enter(ZmtpPeer *p, const char *endpoint, const char *type);
bool zmtp_shake_hands(ZmtpPeer *p, const char *type);
/* Send: false when the peer was cut off, or blocked. */
bool zmtp_push(ZmtpPeer *p, const void *bytes, size_t n);
bool zmtp_push_frame(ZmtpPeer *p, bool more, const void *bytes, size_t n);
/* A message without tensors; it is empty afterwards. */
void zmtp_say(ZmtpPeer *p, Message *m);

#endif
