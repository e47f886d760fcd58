#!/bin/sh
# Ranks whose devices add up by themselves: emulated GPUs (tests/gpu/emulate), one for each, and torchrun's variables. A sum
# waits for ever for a rank that has gone, as NCCL's do.
. "$(dirname "$0")/../tap.sh"
here=$(cd "$(dirname "$0")" && pwd)
cd "$T" || exit 1
. "$here/../gpu/training.sh"
HSSL_BACKEND=$HSSL_BIN/tests/emulated-cuda.so HSSL_EMULATE_GPUS=2 HSSL_DEVICE=cuda HSSL_PRECISION=fp32
export HSSL_BACKEND HSSL_EMULATE_GPUS HSSL_DEVICE HSSL_PRECISION

port=$((20000 + $$ % 20000))
ranks() { # RUN OPTION...: two of them; the second writes to RUN.1.err
    port=$((port + 2))
    for i in 0 1; do
        (
            [ $i = 0 ] || run_err=.1
            export RANK=$i WORLD_SIZE=2 LOCAL_RANK=$i MASTER_ADDR=127.0.0.1 MASTER_PORT=$port
            run=$1
            shift
            hssl-load s.db | hssl-multicrop $views | hssl-augment -j1 |
                $limit hssl-train "$@" --log "$run.jsonl" -o "$run" 2>"$run${run_err:-}.err"
        ) &
    done
}
rank() { # NUMBER: the trainer's process
    for p in $(pgrep -x hssl-train); do
        [ "$(readlink "/proc/$p/cwd")" = "$PWD" ] && tr '\0' '\n' 2>/dev/null <"/proc/$p/environ" | grep -qx "RANK=$1" && echo "$p"
    done | head -1
}
same() { # RUN RUN
    losses "$1" >one
    losses "$2" >two
    close_to one two
}

train a.db $tiny --epochs 5
ranks b.db $tiny --epochs 5
wait
is 'two ranks of half the batch learn what one learns of all, over 20 steps' "$(same a.db b.db)" '20 0'
is 'the teacher computes where its rank does' "$(medium b.db)" ipc
export HSSL_SECRET_FILE="$T/secret" LOCAL_WORLD_SIZE=2
(umask 077; head -c 32 /dev/urandom | base64 >secret)
ranks t.db $tiny --epochs 5
wait
is 'two with a secret do, over TCP' "$(same a.db t.db)" '20 0'
# All of them end by themselves: nobody waits for somebody who will not come.
chmod 640 secret
ranks w.db $tiny
wait
is 'a secret that others may read is refused' "$(cat w.db.err w.db.1.err | grep -c 'mode 640.*chmod 600')" 2
unset HSSL_SECRET_FILE
export LOCAL_WORLD_SIZE=1
ranks w.db $tiny
wait
is 'without one ranks of several hosts do not meet, and say what to do' \
    "$(cat w.db.err w.db.1.err | grep -c 'HSSL_SECRET.*urandom')" 2
unset LOCAL_WORLD_SIZE
ok 'one rank speaks' '[ $(grep -c "done: 20 steps" b.db.err) = 1 ] && ! grep -q done b.db.1.err'

# Ends before their time.
ended() { # NAME RUN SIGNAL RANK EPOCHS
    ranks "$2" $tiny --epochs "$5" --save-every 5
    await "$2.jsonl" '"step":10,'
    victim=$(rank "$4")
    began=$(date +%s)
    kill -"$3" "$victim"
    wait
    ok "$1: the other ends" "[ $(($(date +%s) - began)) -lt $((tap_patience / 2)) ]"
}
ended 'the second killed' c.db KILL 1 4000
ok 'it is named' "grep -q 'rank 1 (host .*, process $victim) has gone' c.db.err"
ok 'what was learnt is saved' "grep -q 'holds a checkpoint of step' c.db.err"
ended 'the first killed' d.db KILL 0 4000
ok 'it is named, too' "grep -q 'rank 0 has gone' d.db.1.err"
ended 'the second asked to stop' e.db TERM 1 7
ok 'no error is told, and all is saved' "! grep -q error e.db.err && grep -q 'holds a checkpoint of step' e.db.err"
ranks e.db --resume
ranks f.db $tiny --epochs 7
wait
ok 'two go on with the run of two, to the same bits' "[ -n '$(digest f.db)' ] && [ '$(digest e.db | tail -1)' = '$(digest f.db)' ]"
is 'no memory is left under a name' "$(ls /dev/shm | grep -e emulated -e hssl | grep -v '^hssl-fuzz\.')" ''
ok 'nobody is left' '[ -z "$(rank 0)$(rank 1)" ]'
done_testing
