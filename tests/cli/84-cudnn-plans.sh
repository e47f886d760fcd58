#!/bin/sh
# Each kind of graph that the backend asks cuDNN for, put to the library that is installed, for GPUs that need not be here.
. "$(dirname "$0")/../tap.sh"
if [ ! -x "$HSSL_BIN/tests/cudnn-plans" ]; then
    skip 'built without CUDA' "cuDNN's plans"
    done_testing
    exit
fi
# The library looks for a driver, and is content with the toolkit's stand-in.
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
home=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
/sbin/ldconfig -p | grep -q 'libcuda\.so\.1' || ln -s "$home/lib64/stubs/libcuda.so" "$T/libcuda.so.1"
LD_LIBRARY_PATH="$T:$home/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" $limit "$HSSL_BIN/tests/cudnn-plans" >"$T/plans" 2>"$T/err"
is 'it ends with 0' "$?" 0
sed 's/^/# /' "$T/err" | tail -5
ok 'every graph is planned' "! grep '^not ok' $T/plans && grep -q '^ok' $T/plans"
done_testing
