#!/bin/sh
# Training and evaluation on a device whose memory the host does not reach: the programs on the emulated GPU
# (tests/gpu/emulate), which kills whoever touches that memory from outside of the table.
. "$(dirname "$0")/../tap.sh"
here=$(cd "$(dirname "$0")" && pwd)
cd "$T" || exit 1
HSSL_BACKEND=$HSSL_BIN/tests/emulated-cuda.so HSSL_EMULATE_GUARD=1
export HSSL_BACKEND HSSL_EMULATE_GUARD
. "$here/../gpu/training.sh"
training
is 'the device lends its memory to the teacher' "$(medium gpu.db)" ipc
HSSL_EMULATE_NO_IPC=1 train refused.db $tiny --epochs 1 --device cuda --precision fp32
is 'where lending is refused, the next medium is taken' "$(medium refused.db)" shm
ok 'and the log says why' 'grep -q "by ipc (.*emulated: this container refuses" refused.db.err'

HSSL_EMULATE_MEMORY=500000
export HSSL_EMULATE_MEMORY
fails 1 'memory that does not suffice: how much was wanted, what for, and what helps' \
    "train x.db $tiny --device cuda --teacher-device cpu || { cat x.db.err >&2; false; }" \
    '[a-z]*: out of GPU memory: [0-9]* bytes wanted, [0-9]* of [0-9]* are free; a smaller --batch-size,.*--recompute'
unset HSSL_EMULATE_MEMORY
fails 1 'a precision that the processor has not' "train x.db $tiny --precision bf16 || { cat x.db.err >&2; false; }" 'computes in fp32'
fails 1 'a device that nobody has' "train x.db $tiny --device tpu || { cat x.db.err >&2; false; }" 'there are: cpu, cuda'
HSSL_BACKEND=/nowhere.so
fails 1 'no backend' "train x.db $tiny --device cuda || { cat x.db.err >&2; false; }" 'CUDA=1'
done_testing
