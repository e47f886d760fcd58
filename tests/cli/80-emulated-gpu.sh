#!/bin/sh
# The CUDA backend's own kernels, run on the processor (tests/gpu/emulate), in the engine's tests: in F32 they must give the
# reference's numbers, in BF16 the same within its digits. What NVIDIA's libraries do on a GPU is the CPU backend's here.
. "$(dirname "$0")/../tap.sh"
cd "$(dirname "$0")/../.." || exit 1
HSSL_BACKEND=$HSSL_BIN/tests/emulated-cuda.so
export HSSL_BACKEND

on() { # DEVICE NAME COMMAND
    ok "$2 on $1" "HSSL_TEST_DEVICE=$1 timeout 300 $3 >$T/log 2>&1; rc=\$?; grep -B2 '^not ok' $T/log | head -20
        grep -c '^ok' $T/log | sed 's/^/tests passed: /'; [ \$rc = 0 ]"
}
on cuda 'the reference numbers' 'sh tests/golden/run.sh'
on cuda,bf16 'the reference numbers' 'sh tests/golden/run.sh'
on cuda 'each op against differences' "$HSSL_BIN/tests/ops"
on cuda 'the models' "$HSSL_BIN/tests/models"
on cuda 'optimiser and parameters' "$HSSL_BIN/tests/nn"
HSSL_BACKEND=/nowhere.so
ok 'without the backend there is a message' "HSSL_TEST_DEVICE=cuda $HSSL_BIN/tests/nn 2>&1 | grep -q '^not ok'"
done_testing
