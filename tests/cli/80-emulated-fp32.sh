#!/bin/sh
# The CUDA backend, kernels and all, run on the processor over stand-ins for NVIDIA's libraries (tests/gpu/emulate), in the
# engine's tests: in F32 it must give the reference's numbers.
. "$(dirname "$0")/../tap.sh"
. "$(dirname "$0")/../gpu/engine.sh"
cd "$(dirname "$0")/../.." || exit 1
HSSL_BACKEND=$HSSL_BIN/tests/emulated-cuda.so HSSL_EMULATE_GUARD=1
export HSSL_BACKEND HSSL_EMULATE_GUARD

engine cuda
unset HSSL_EMULATE_GUARD # these look at tensors where they lie
on cuda 'each op against differences' "$HSSL_BIN/tests/ops"
on cuda 'the models' "$HSSL_BIN/tests/models"
on cuda 'optimiser and parameters' "$HSSL_BIN/tests/nn"
HSSL_BACKEND=/nowhere.so
ok 'without the backend there is a message' "HSSL_TEST_DEVICE=cuda $HSSL_BIN/tests/nn 2>&1 | grep -q '^not ok'"
done_testing
