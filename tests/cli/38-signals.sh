#!/bin/bash
# Signals while a training computes: none runs on a thread that computes, none changes a bit, and whoever is asked to
# stop leaves a run that goes on.
. "$(dirname "$0")/../tap.sh"
. "$(dirname "$0")/../mpi.sh"
cd "$T" || exit 1
ulimit -c 0
rounds=$(siege 2)
seed=${HSSL_TEST_SEED:-$(date +%N | sed 's/^0*//')}
RANDOM=$((seed % 32768))
note "HSSL_TEST_SEED=$seed"

# Products of over 128 terms take oneDNN's kernels that use the stack pointer as a general register.
hssl-synth -n 40 -c 4 -s 40 s.db 2>/dev/null || exit 1
tiny="--arch vit_nano --dim 32 --depth 2 --heads 2 --out-dim 64 --head-hidden 32 --head-bottleneck 16 --batch-size 8"
views() { hssl-load s.db 2>/dev/null | hssl-augment -j1 --global-size 32 --local-size 16 --local 1 2>/dev/null; }
digest() { sed -n 's/.*digest \([0-9a-f]\{16\}\).*/\1/p' "$1" | tail -n 1; }
seen() { # FILE REGEX OR-FILE: until the one has it, or the other is there
    in=$1 for=$2 or=$3
    until_true 'grep -q -e "$for" "$in" 2>/dev/null || [ -e "$or" ]'
}
# Train: its process is in r.pid, its status in r.rc once it has ended.
train() {
    views | sh -c 'echo $$ >r.pid.new; mv r.pid.new r.pid; exec hssl-train "$@" 2>r.err' sh $tiny "$@" -o r.db
    echo $? >r.rc.new
    mv r.rc.new r.rc
}
start() {
    rm -f r.pid r.rc r.err
    "$@" &
    seen r.pid . r.rc
    pid=$(cat r.pid)
}
# The same by two ranks. Each has a pipeline of its own.
mpi_train() {
    cat >rank.sh <<'END'
hssl-load s.db 2>/dev/null | hssl-augment -j1 --global-size 32 --local-size 16 --local 1 2>/dev/null |
    sh -c '[ $OMPI_COMM_WORLD_RANK = 1 ] && { echo $$ >r.pid.new; mv r.pid.new r.pid; }; exec hssl-train "$@"' sh "$@"
END
    mpirun -n 2 sh rank.sh $tiny "$@" -o r.db 2>r.err
    echo $? >r.rc.new
    mv r.rc.new r.rc
}

# What is blocked and what is caught, of every thread of every program of a pipeline.
mask() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }
asked=$((1 << 0 | 1 << 1 | 1 << 9 | 1 << 11 | 1 << 14)) # HUP INT USR1 USR2 TERM
look() { # PID: "handlers threads-that-let-them-through"
    caught=0 open=0
    for task in /proc/"$1"/task/*; do
        task=${task#/proc/}
        [ $((0x$(mask "$task" SigCgt) & asked)) = 0 ] || caught=$((caught + 1))
        kept=$((0x$(mask "$task" SigBlk) | 0x$(mask "$task" SigIgn))) # SIGINT is ignored in the background
        [ $((kept & asked)) = $asked ] || open=$((open + 1))
    done
    echo "$caught $open"
}
hssl-load s.db 2>/dev/null | hssl-multicrop --global-size 32 --local-size 16 --local 1 2>/dev/null | hssl-augment -j1 2>/dev/null |
    hssl-tap -q 2>/dev/null | hssl-train $tiny -t2 --epochs 100000 --log-every 1 --log l.jsonl -o l.db 2>l.err &
await l.jsonl '"step":3,'
here=$(pwd -P)
for p in load multicrop augment tap train teach; do
    pids=$(processes | sed -n "s/^\([0-9]*\) [^ ]*hssl-$p\( .*\)\{0,1\}\$/\1/p")
    seen=0
    for pid in $pids; do
        [ "$(readlink "/proc/$pid/cwd")" = "$here" ] || continue
        is "hssl-$p ($(ls "/proc/$pid/task" | wc -l) threads): no handler, and one thread that waits" "$(look "$pid")" '0 1'
        seen=$((seen + 1))
    done
    ok "hssl-$p runs" "[ $seen -gt 0 ]"
done
kill -TERM $(processes | sed -n 's/^\([0-9]*\) .*hssl-train.*l\.db.*/\1/p')
wait
ok 'what it does about a signal is said' "grep -q 'finishing the step, then a checkpoint' l.err"

train -t1 --teacher-in-process --epochs 60
want=$(digest r.err)
ok 'an undisturbed training' "[ -n '$want' ]"

# Signals all the time.
storm() { # NAME OPTION...
    name=$1 sent=0 bad=0
    shift
    for ((i = 0; i < rounds; i++)); do
        start train -t1 --epochs 60 -f "$@"
        seen r.err 'epoch 1/' r.rc
        while [ ! -e r.rc ] && kill -USR1 "$pid" 2>/dev/null; do sent=$((sent + 1)); sleep 0.004; done
        wait
        [ "$(cat r.rc) $(digest r.err)" = "0 $want" ] || { bad=$((bad + 1)); echo "# $name: exit $(cat r.rc), $(tail -n 1 r.err)"; }
    done
    note "$name: $rounds trainings, $sent signals"
    is "SIGUSR1 all the time, $name: the same bits" "$bad" 0
}
storm 'teacher inside' --teacher-in-process
storm 'teacher beside' --save-every 7

# One signal, at any moment: 143 and a run that goes on to the same bits, or it was over before.
once() { # NAME TRAIN "OPTION..." HOW
    name=$1 train=$2 options="-t1 --epochs 60 --save-every 3 $3" how=$4 bad=0 stopped=0
    began=$(date +%s%N)
    $train $options -f
    span=$((($(date +%s%N) - began) / 1000000))
    want=$(digest r.err)
    for ((i = 0; i < rounds; i++)); do
        rm -f r.db*
        start $train $options
        sleep "$(awk -v r=$RANDOM -v ms=$span 'BEGIN { print r / 32768 * ms / 1000 }')"
        [ -e r.rc ] || $how "$pid" 2>/dev/null # its number may be another process's once it has ended
        wait
        rc=$(cat r.rc)
        # Where one rank goes before all have met, mpirun may tell the status of another.
        if [ "$rc" = 143 ] || { [ "$train" = mpi_train ] && [ "$rc" != 0 ] && [ ! -e r.db ]; }; then
            stopped=$((stopped + 1))
            if grep -q 'finishing the step' r.err && ! grep -q 'holds a checkpoint' r.err; then
                bad=$((bad + 1))
                echo "# $name: stopped without a checkpoint: $(tail -n 1 r.err)"
            fi
            $train $options --resume
            rc=$(cat r.rc)
        fi
        [ "$rc $(digest r.err)" = "0 $want" ] || { bad=$((bad + 1)); echo "# $name: exit $rc, $(tail -n 1 r.err)"; }
    done
    note "$name: $rounds trainings, $stopped stopped"
    is "SIGTERM at any moment, $name: the same bits in the end" "$bad:${want:+trained}" 0:trained
}
term() { kill -TERM "$1"; }
twice() { kill -TERM "$1"; kill -TERM "$1"; kill -CONT "$1"; }
once 'teacher inside' train --teacher-in-process term
once 'teacher beside' train '' term
once 'two at once, as timeout(1) sends them' train '' twice
HSSL_ISA=avx2 ONEDNN_MAX_CPU_ISA=AVX2 once 'AVX2' train '' term
if mpi_works; then
    start mpi_train -t1 --epochs 100000 --log-every 1 --log m.jsonl -f
    await m.jsonl '"step":3,'
    is "a rank under mpirun ($(ls "/proc/$pid/task" | wc -l) threads): no handler, and one thread that waits" "$(look "$pid")" '0 1'
    kill -TERM "$pid"
    wait
    once 'two ranks' mpi_train '' term
else
    skip 'two ranks' 'mpirun or hssl-mpi.so is not there'
fi

processes | grep -- "--child-of $(cat r.pid)\$" >left
is 'no teacher stays behind' "$(cat left)" ""
done_testing
