/* Streams: what is issued to one is done before the call returns, except for what is given here. */
#ifndef EMULATE_STREAM_H
#define EMULATE_STREAM_H

#include "cuda_runtime.h"

#include <functional>

/* Now, or, where the stream records, each time that the recording is launched. */
void stream_issue(cudaStream_t s, std::function<void()> work);
/* What a call that cannot be recorded answers where some stream records: not cudaSuccess. */
bool stream_records(cudaStream_t s);
bool streams_record();

/* One after the other, in a thread of the stream's. */
void stream_do(cudaStream_t s, std::function<void()> work);

#endif
