#!/bin/sh
# The benchmark of GPUs, on the processor and at its smallest: every line it writes is JSON, every table has its rows.
. "$(dirname "$0")/../tap.sh"
here=$(cd "$(dirname "$0")" && pwd)
cd "$T" || exit 1
BENCH_DEVICE=cpu BENCH_QUICK=1 BENCH_STEPS=2 BENCH_RESULTS=$T/lines PEER_PYTHON=/nowhere
export BENCH_DEVICE BENCH_QUICK BENCH_STEPS BENCH_RESULTS PEER_PYTHON
$limit sh "$here/../bench/gpu.sh" >out 2>err
is 'it ends with 0' "$?" 0
ok 'every line is an object' '[ -s lines ] && ! grep -v "^{.*}$" lines'
is 'steps in two processes, in one, not recorded, with gelu by cuDNN, one size at a time, by parts, by kernels, without the head' \
    "$(sed -n 's/.*"setting":"\([a-z-]*\)".*"bench":"step".*"teacher":"\([a-z-]*\)".*"aux":"\([a-z]*\)".*/\1 \2 \3/p' lines | tr '\n' ';')" \
    'quick shm convnext;quick in-process convnext;quick-plain in-process convnext;quick-gelu in-process convnext;quick-apart in-process convnext;quick-parts in-process convnext;quick-kernels in-process convnext;quick in-process none;'
ok 'a row for each, and what the head costs' '[ $(grep -c "^quick  *hssl.* images/s .* MiB" out) = 6 ] && grep -q "\"head_time\":[1-9].*\"times_no_graph\":[0-9].*\"times_apart\":[0-9].*\"gelu_cudnn_times\":[0-9]" out'
ok 'the kernels that hold the time, the largest first' '[ $(grep -c "^quick .* of the kernels, .* of the ceiling of [fb]" out) = 12 ] &&
    grep "of the kernels" out | sed "s/.* \([0-9.]*\) % of the kernels.*/\1/" | sort -rnC'

ok 'ceilings come first, then kernels' 'sed -n 2p out | grep -q "TFLOP/s in products" && grep -q "residual .* forward .* %" out'
ok 'without a peer it says what is missing' 'grep -q "no peer: /nowhere lacks torch" out'
BENCH_RESULTS=$T/none BENCH_DEVICE=cuda:99 $limit sh "$here/../bench/gpu.sh" >out 2>err
ok 'a device that is not there is one line, and no results' \
    "[ $? = 1 ] && grep -q '^bench-gpu: nothing to measure: ' err && [ \$(wc -l <err) = 1 ] && [ ! -s out ] && [ ! -e none ]"
done_testing
