#!/bin/sh
# make check-gpu: all tests of the CUDA backend on this machine's GPU, in one prove.
cd "$(dirname "$0")/../.." || exit 1
: "${HSSL_BIN:=$PWD/build}"
export HSSL_BIN
unset HSSL_TEST_DEVICE HSSL_BACKEND
without=$("$HSSL_BIN/gpu/kernels" | sed -n 's/^ok 1 # SKIP [^:]*: //p')
if [ -n "$without" ]; then
    echo "check-gpu: no GPU here, nothing was checked: $without" >&2
    exit 1
fi
exec prove --timer --exec '' tests/gpu/[0-9]*.sh
