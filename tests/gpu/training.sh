# For tests that source it after tap.sh, in $T: runs of the programs on the GPU against the processor's, of models so small
# that an emulated GPU can do them.

hssl-synth -n 16 -s 24 s.db 2>/dev/null || exit 1
views='--global-size 16 --local 1 --local-size 8'
tiny="--arch vit_nano --dim 16 --depth 1 --heads 1 --patch-size 8 --head-hidden 16 --head-bottleneck 8 \
--out-dim 16 --aux convnext --aux-depth 1 --batch-size 4 --threads 2 --log-every 1"

train() { # RUN OPTION...
    run=$1
    shift
    rm -f "$run.jsonl"
    hssl-load s.db | hssl-multicrop $views | hssl-augment -j1 |
        $limit hssl-train "$@" --log "$run.jsonl" -o "$run" 2>"$run.err"
}
digest() { sed -n 's/.*"kind":"end".*"digest":"\([0-9a-f]*\)".*/\1/p' "$1.jsonl"; }
medium() { sed -n 's/.*"kind":"start".*"teacher":"\([a-z]*\)".*/\1/p' "$1.jsonl"; }
recordings() { grep -c 'step is recorded' "$1.err"; }
losses() { sed -n 's/.*"kind":"step".*"loss":\([0-9.e+-]*\),.*"d":\([0-9.e+-]*\),.*/\1 \2/p' "$1.jsonl"; }
close_to() { # FILE FILE: the same numbers within 1e-4; prints how many lines and how many that are not
    paste -d ' ' "$1" "$2" | awk '{ for (i = 1; i <= NF / 2; i++) { d = $i - $(i + NF / 2); if (d * d > 1e-8 * $i * $i) bad++ } }
        END { print NR " " bad + 0 }'
}
interrupt() { # RUN OPTION...: stops it after its first checkpoint
    train "$@" --save-every 4 &
    await "$1.jsonl" '"kind":"checkpoint"'
    for p in $(pgrep -f "hssl-train.*$1"); do
        [ "$(readlink "/proc/$p/cwd")" != "$PWD" ] || kill -TERM "$p"
    done
    wait
}
discrepancy() { hssl-discrepancy "$@" s.db | sed -n 's/.*"d":\([0-9.e+-]*\),"d_role":\([0-9.e+-]*\)}.*/\1 \2/p'; }
k_nn() { hssl-knn --no-progress "$@" --train s.db --features head --json 2>/dev/null; }

# Leaves cpu.db and gpu.db, the same training on both.
training() {
    train cpu.db $tiny --epochs 2
    losses cpu.db >cpu.losses
    HSSL_DEBUG=tensor train gpu.db $tiny --epochs 2 --device cuda --precision fp32
    losses gpu.db >gpu.losses
    is 'losses and D are those of the processor' "$(close_to cpu.losses gpu.losses)" '8 0'
    HSSL_DEBUG=tensor train plain.db $tiny --epochs 2 --device cuda --precision fp32 --no-graph
    # Twice each half of the student's step, for views in two places, and anew after the checkpoint of the first epoch;
    # the teacher's once for each place.
    is 'steps are recorded, unless that is not wanted' "$(recordings gpu.db) $(recordings plain.db)" '8 0'
    is 'and the bits are the same' "$(digest plain.db)" "$(digest gpu.db)"
    train shm.db $tiny --epochs 2 --device cuda --precision fp32 --teacher-medium shm
    train inline.db $tiny --epochs 2 --device cuda --precision fp32 --teacher-medium inline
    is 'weights and views go to the teacher as asked' "$(medium shm.db) $(medium inline.db)" 'shm inline'
    train inside.db $tiny --epochs 2 --device cuda --precision fp32 --teacher-in-process
    is 'the bits are the same, and in one process' "$(digest shm.db) $(digest inline.db) $(digest inside.db)" \
        "$(digest gpu.db) $(digest gpu.db) $(digest gpu.db)"
    interrupt half.db $tiny --epochs 2 --device cuda --precision fp32 --teacher-in-process
    train half.db --resume --device cuda --precision fp32 --threads 2 --log-every 1
    is 'an interrupted run ends with the same bits' "$(digest half.db)" "$(digest gpu.db)"

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
    discrepancy gpu.db >d.cpu
    discrepancy --device cuda gpu.db >d.gpu
    is 'D over a dataset' "$(close_to d.cpu d.gpu)" '1 0'
    is 'k-NN on both devices' "$(k_nn gpu.db --device cuda)" "$(k_nn gpu.db)"
}
