#!/bin/sh
# No kernel may want more registers than there are.
. "$(dirname "$0")/../tap.sh"
cd "$(dirname "$0")/../.." || exit 1
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    ok 'kernels keep to their registers' '$limit sh tests/gpu/spills.sh'
else
    skip 'registers of the kernels' 'nvcc is not here'
fi
done_testing
