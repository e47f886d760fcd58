/* The part of NCCL that the backend uses (nccl.cc). Stands in for the library's header of this name. */
#ifndef EMULATE_NCCL_H
#define EMULATE_NCCL_H

#include "cuda_runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { ncclSuccess, ncclSystemError, ncclInvalidArgument } ncclResult_t;
typedef struct { char internal[128]; } ncclUniqueId;
typedef struct EmulatedComm *ncclComm_t;
typedef enum { ncclFloat = 7 } ncclDataType_t;
typedef enum { ncclSum } ncclRedOp_t;

const char *ncclGetErrorString(ncclResult_t r);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRank(ncclComm_t *comm, int world, ncclUniqueId id, int rank);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t type, ncclRedOp_t how, ncclComm_t comm,
                           cudaStream_t s);

#ifdef __cplusplus
}
#endif

#endif
