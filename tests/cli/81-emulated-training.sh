#!/bin/sh
# Training and evaluation on a device whose memory the host does not reach: the programs on the emulated GPU
# (tests/gpu/emulate), which kills whoever touches that memory from outside of the table.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1
HSSL_BACKEND=$HSSL_BIN/tests/emulated-cuda.so HSSL_EMULATE_GUARD=1
export HSSL_BACKEND HSSL_EMULATE_GUARD

hssl-synth -n 16 -s 24 s.db 2>/dev/null || exit 1
tiny="--arch vit_nano --dim 16 --depth 1 --heads 1 --patch-size 8 --head-hidden 16 --head-bottleneck 8 \
--out-dim 16 --aux convnext --aux-depth 1 --batch-size 4 --threads 2 --log-every 1"
train() { # RUN OPTION...
    run=$1
    shift
    rm -f "$run.jsonl"
    hssl-load s.db | hssl-multicrop --global-size 16 --local 1 --local-size 8 | hssl-augment -j1 |
        timeout 120 hssl-train "$@" --log "$run.jsonl" -o "$run" 2>"$run.err"
}
digest() { sed -n 's/.*"kind":"end".*"digest":"\([0-9a-f]*\)".*/\1/p' "$1.jsonl"; }
medium() { sed -n 's/.*"kind":"start".*"teacher":"\([a-z]*\)".*/\1/p' "$1.jsonl"; }
losses() { sed -n 's/.*"kind":"step".*"loss":\([0-9.e+-]*\),.*"d":\([0-9.e+-]*\),.*/\1 \2/p' "$1.jsonl"; }
close_to() { # FILE FILE: the same numbers within 1e-4
    paste -d ' ' "$1" "$2" | awk '{ for (i = 1; i <= NF / 2; i++) { d = $i - $(i + NF / 2); if (d * d > 1e-8 * $i * $i) bad++ } }
        END { print NR " " bad + 0 }'
}

train cpu.db $tiny --epochs 2
losses cpu.db >cpu.losses
train ipc.db $tiny --epochs 2 --device cuda --precision fp32
losses ipc.db >ipc.losses
is 'losses and D are those of the processor' "$(close_to cpu.losses ipc.losses)" '8 0'
is 'the device lends its memory to the teacher' "$(medium ipc.db)" ipc
train shm.db $tiny --epochs 2 --device cuda --precision fp32 --teacher-medium shm
train inline.db $tiny --epochs 2 --device cuda --precision fp32 --teacher-medium inline
is 'so do the host'"'"'s memory and messages, where asked for' "$(medium shm.db) $(medium inline.db)" 'shm inline'
is 'the bits are the same' "$(digest shm.db) $(digest inline.db)" "$(digest ipc.db) $(digest ipc.db)"
HSSL_EMULATE_NO_IPC=1 train refused.db $tiny --epochs 1 --device cuda --precision fp32
is 'where lending is refused, the next medium is taken' "$(medium refused.db)" shm
ok 'and the log says why' 'grep -q "by ipc (emulated: this container refuses" refused.db.err'

train half.db $tiny --epochs 2 --device cuda --precision fp32 --save-every 4 &
i=0
until grep -q '"kind":"checkpoint"' half.db.jsonl 2>/dev/null; do i=$((i + 1)); [ $i -lt 400 ] || break; sleep 0.05; done
pkill -TERM -f 'hssl-train.*half.db' || :
wait
train half.db --resume --device cuda --precision fp32 --threads 2 --log-every 1
is 'an interrupted run ends with the same bits' "$(digest half.db)" "$(digest ipc.db)"

train split.db $tiny --epochs 1 --device cuda --precision fp32 --teacher-device cpu
is 'student and teacher on two kinds of device' "$(medium split.db)" shm
train other.db $tiny --epochs 1 --device cpu --teacher-device cuda
is 'the other way round' "$(medium other.db)" shm
train one.db $tiny --epochs 1
losses split.db >split.losses
losses one.db >one.losses
is 'the same losses' "$(close_to one.losses split.losses)" '4 0'

train bf16.db $tiny --epochs 1 --device cuda
ok 'bf16 is what a GPU computes in' 'grep -q "\"device\":\"cuda,bf16\"" bf16.db.jsonl'
train bf16.db --resume --threads 2 --log-every 1
ok 'its run is complete on the processor too' 'grep -q "is complete" bf16.db.err'
d() { hssl-discrepancy "$@" s.db | sed -n 's/.*"d":\([0-9.e+-]*\),"d_role":\([0-9.e+-]*\)}.*/\1 \2/p'; }
d ipc.db >d.cpu
d --device cuda ipc.db >d.cuda
is 'D over a dataset' "$(close_to d.cpu d.cuda)" '1 0'
is 'k-NN on both devices' "$(hssl-knn --no-progress ipc.db --train s.db --features head --device cuda --json 2>/dev/null)" \
    "$(hssl-knn --no-progress ipc.db --train s.db --features head --json 2>/dev/null)"

HSSL_EMULATE_MEMORY=500000
export HSSL_EMULATE_MEMORY
fails 1 'memory that does not suffice: how much was wanted, what for, and what helps' \
    "train x.db $tiny --device cuda --teacher-device cpu || { cat x.db.err >&2; false; }" \
    '[a-z]*: out of GPU memory: [0-9]* bytes wanted; a smaller --batch-size,.*--recompute'
unset HSSL_EMULATE_MEMORY
fails 1 'a precision that the processor has not' "train x.db $tiny --precision bf16 || { cat x.db.err >&2; false; }" 'computes in fp32'
fails 1 'a device that nobody has' "train x.db $tiny --device tpu || { cat x.db.err >&2; false; }" 'there are: cpu, cuda'
HSSL_BACKEND=/nowhere.so
fails 1 'no backend' "train x.db $tiny --device cuda || { cat x.db.err >&2; false; }" 'CUDA=1'
rm -f x.db.err x.db.jsonl
done_testing
