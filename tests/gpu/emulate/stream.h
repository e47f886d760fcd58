/* Streams: what is issued to one is done before the call returns, except for what is given here. */
#ifndef EMULATE_STREAM_H
#define EMULATE_STREAM_H

#include "cuda_runtime.h"

#include <functional>

/* One after the other, in a thread of the stream's. */
void stream_do(cudaStream_t s, std::function<void()> work);

#endif
