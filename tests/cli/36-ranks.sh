#!/bin/sh
# Several ranks train one model: under mpirun on processors, each with a pipeline of its own.
. "$(dirname "$0")/../tap.sh"
. "$(dirname "$0")/../mpi.sh"
cd "$T" || exit 1

if ! mpi_works; then
    skip 'several ranks' 'mpirun or hssl-mpi.so is not there'
    done_testing
    exit
fi

hssl-synth -n 81 -s 24 s.db 2>/dev/null || exit 1
cat >pipeline.sh <<'EOF'
hssl-load s.db | hssl-multicrop --global-size 16 --local 1 --local-size 8 | hssl-augment -j1 | hssl-train --threads 1 "$@"
EOF
tiny="--arch vit_nano --dim 32 --depth 2 --heads 2 --patch-size 4 --head-hidden 32 --head-bottleneck 16 \
--out-dim 64 --aux convnext --aux-depth 1 --batch-size 8 --drop-path 0.2 --log-every 1"
alone() { $limit sh pipeline.sh "$@"; }
ranks() { n=$1; shift; $limit mpirun -n "$n" sh pipeline.sh "$@"; }
losses() { sed -n 's/.*"kind":"step".*"loss":\([0-9.e+-]*\),.*"d":\([0-9.e+-]*\),.*/\1 \2/p' "$1"; }
close_to() { # FILE FILE: as many steps, losses and D the same within 1e-4
    losses "$1" >one
    losses "$2" >two
    paste -d ' ' one two | awk '{ n++; for (i = 1; i <= 2; i++) { d = $i - $(i + 2); if (!(d * d <= 1e-8 * $i * $i)) bad++ } }
        END { print n + 0 " " bad + 0 }'
}

alone $tiny --epochs 2 --log a.jsonl -o a.db 2>a.err
ranks 2 $tiny --epochs 2 --log b.jsonl -o b.db 2>b.err
is 'two ranks of half the batch learn what one learns of all, over 20 steps' "$(close_to a.jsonl b.jsonl)" '20 0'
ok 'one rank speaks' "[ \$(grep -c 'done: 20 steps, 160 images' b.err) = 1 ] && [ \$(grep -c 'epoch 2/2' b.err) = 1 ]"
ranks 4 $tiny --epochs 2 --log c.jsonl -o c.db 2>c.err
is 'so do four' "$(close_to a.jsonl c.jsonl)" '20 0'
ranks 2 $tiny --epochs 2 --teacher-medium inline --recompute --log d.jsonl -o d.db 2>d.err
is 'and two with their teachers by messages' "$(close_to b.jsonl d.jsonl)" '20 0'
ranks 2 $tiny --epochs 2 --teacher-in-process --log in.jsonl -o in.db 2>in.err
is 'and two with their teachers inside' "$(close_to b.jsonl in.jsonl)" '20 0'
hssl-export b.db b.safetensors 2>/dev/null
hssl-export a.db a.safetensors 2>/dev/null
alone $tiny --epochs 2 --init-from b.safetensors --log e.jsonl -o e.db 2>/dev/null
ranks 2 $tiny --epochs 2 --init-from b.safetensors --log f.jsonl -o f.db 2>/dev/null
is 'weights from a file reach every rank' "$(close_to e.jsonl f.jsonl)" '20 0'

# One run, whatever the number.
alone $tiny --epochs 8 --log long.jsonl -o long.db 2>/dev/null
ranks 2 $tiny --epochs 8 --save-every 5 --log g.jsonl -o g.db 2>g.err &
await g.jsonl '"kind":"checkpoint"'
kill -TERM "$(rank_pid 1)" 2>/dev/null
wait
ok 'asked to stop, all stop, and what was learnt is saved' "grep -q 'holds a checkpoint of step' g.err"
alone --resume --log g.jsonl --log-every 1 -o g.db 2>h.err
is 'one goes on with the run of two' "$(close_to long.jsonl g.jsonl)" '80 0'
alone $tiny --epochs 8 --save-every 5 --log i.jsonl -o i.db 2>i.err &
await i.jsonl '"kind":"checkpoint"'
kill -TERM "$(processes | sed -n 's/^\([0-9]*\) .*hssl-train.*i\.db.*/\1/p' | head -1)"
wait
ranks 2 --resume --teacher-in-process --log i.jsonl --log-every 1 -o i.db 2>j.err
is 'two go on with the run of one' "$(close_to long.jsonl i.jsonl)" '80 0'

# Deaths.
ranks 2 $tiny --epochs 4000 --log k.jsonl -o k.db 2>k.err &
await k.jsonl '"step":10,'
dead=$(rank_pid 1)
began=$(date +%s)
kill -9 "$dead"
wait
ok 'a rank that is killed ends the other' "[ $(($(date +%s) - began)) -lt $((tap_patience / 2)) ]"
ok 'which names it' "grep -q 'rank 1 (host .*, process $dead) has gone' k.err"
ok 'and saves what was learnt' "grep -q 'holds a checkpoint of step' k.err"
ranks 2 $tiny --epochs 4000 --log l.jsonl -o l.db 2>l.err &
await l.jsonl '"step":10,'
began=$(date +%s)
kill -9 "$(rank_pid 0)"
wait
ok 'so does the first' "[ $(($(date +%s) - began)) -lt $((tap_patience / 2)) ] && grep -q 'rank 0 has gone' l.err"

# mpirun tells the status of whichever rank ended first.
fails 1 'a batch that the ranks cannot share' "ranks 2 $tiny --batch-size 9 -o x.db || exit 1" 'batch-size 9.*2 ranks'
fails 1 'a run that is there' "ranks 2 $tiny -o a.db || exit 1" 'is there already'
sed -i 's/hssl-load /hssl-load --rank 0 --world 1 /' pipeline.sh
fails 1 'a stream that is not divided' "ranks 2 $tiny -o x.db || exit 1" 'the stream is part 0 of 1'
fails 1 'ranks on processors without mpirun' \
    "RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=1 $limit hssl-train $tiny -o x.db </dev/null" 'start them with mpirun'
fails 1 'an environment without sense' "RANK=7 WORLD_SIZE=2 $limit hssl-train $tiny -o x.db </dev/null" 'RANK=7'
ok 'nothing is left of those' '[ ! -e x.db ]'
done_testing
