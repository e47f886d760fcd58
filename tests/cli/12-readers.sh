#!/bin/sh
# Who reads a file while others write it: he keeps nobody from using its room again, and where it is overwritten in place
# he ends with a line that names it, in each program.
. "$(dirname "$0")/../tap.sh"
run=$HSSL_BIN/tests/store_run
cd "$T" || exit 1

# ---------------------------------------------------------------- room

"$run" --make r.db && "$run" --log r.db 4000 && "$run" --save r.db 3 || exit 1
mkfifo out
# Bytes that five checkpoints of 4 MB add to a run while nobody reads on what COMMAND writes of it; its first byte is
# waited for, and its last one is read.
growth() { # COMMAND
    cp r.db g.db && before=$(stat -c %s g.db)
    (eval "$1") >out 2>"$T/growth.err" &
    exec 3<out
    [ "$(head -c 1 <&3 | wc -c)" = 1 ] || echo "'$1' writes nothing: $(cat "$T/growth.err")"
    "$run" --save g.db 5 </dev/null || echo 'the run is not written'
    after=$(stat -c %s g.db)
    rm -f go
    cat <&3 >"$T/rest"
    exec 3<&-
    wait $!
    echo $((after - before))
}
: >go
held=$(growth "(while [ -e go ]; do sleep 0.1; done) | $run --hold g.db 0")
ok "a snapshot that is held makes a run grow, by $held bytes" "[ $held -gt 12000000 ]"
got=$(growth 'hssl-info --log g.db')
ok "hssl-info --log in a pager does not: $got bytes" "[ $got -lt 6000000 ]"
is 'and shows the log as it was' "$(wc -l <rest) $(tail -n 1 rest)" '4005 {"step":60,"what":"a line among many"}'
got=$(growth 'hssl-info --log --lines 3900 g.db')
ok "nor do its last lines: $got bytes" "[ $got -lt 6000000 ]"

# A checkpoint that is written to a pipe.
hssl-synth -n 16 -s 16 d.db
train='hssl-train --arch vit_nano --dim 64 --depth 2 --heads 2 --patch-size 4 --head-hidden 64 --head-bottleneck 16 --out-dim 256
    --aux none --batch-size 4 --threads 1'
views() { hssl-load "$@" 2>load.err | hssl-multicrop --global-size 16 --local 0 2>/dev/null | hssl-augment -j1 2>/dev/null; }
views d.db | $train --epochs 1 -o t.db 2>/dev/null
hssl-export t.db t.safetensors
ok 'an export to a pipe is what one to a file is' 'hssl-export t.db /dev/stdout | cmp - t.safetensors'
(hssl-export t.db /dev/stdout; echo $? >export.rc) >out &
exec 3<out
head -c 1 <&3 >/dev/null
# It waits for its reader now: nobody has the run open, nor its lock file.
is 'and has closed the run when it writes' "$(ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c "$T/t\.db")" 0
cat <&3 >/dev/null
exec 3<&-
wait
is 'while it was still writing' "$(cat export.rc):$([ "$(stat -c %s t.safetensors)" -gt 100000 ] && echo large)" 0:large

# ---------------------------------------------------------------- overwritten in place

hssl-synth -n 400 -s 32 big.db && hssl-synth -n 900 -s 32 --seed 5 bigger.db && hssl-synth -n 16 -s 16 small.db || exit 1
mkfifo ticket
# hssl-load waits for whoever asks for records; meanwhile COMMAND befalls its data set.
befalls() { # COMMAND
    rm -f v.db v.db-lock && cp big.db v.db
    (hssl-load v.db >ticket 2>err; echo $? >rc) &
    exec 3<ticket
    IFS= read -r line <&3
    eval "$1"
    echo "$line" | hssl-tap -q --count 800 --exit >/dev/null 2>&1
    exec 3<&-
    wait
    echo "$(cat rc) $(said err | grep -c .) $(said err | sed 's,^hssl-load: [^ ]*v.db: changed while it was read: .*,named,' | head -n 3)"
}
is 'hssl-load: a smaller one copied over its data set' "$(befalls 'cp small.db v.db')" '1 1 named'
is 'a larger one' "$(befalls 'cp bigger.db v.db')" '1 1 named'
is 'emptied' "$(befalls ': >v.db')" '1 1 named'
is 'cut' "$(befalls 'truncate -s 12288 v.db')" '1 1 named'
is 'renamed over: it goes on with what it has' "$(befalls 'cp bigger.db w.db && mv w.db v.db' | cut -c1)" 0

# A trainer's own run.
await() { i=0; until grep -q "$2" "$1" 2>/dev/null; do i=$((i + 1)); [ $i -lt 1200 ] || return 1; sleep 0.05; done; }
views d.db | sh -c 'echo $$ >train.pid; exec "$@"' x $train --epochs 100000 --log-every 1 --save-every 10 --log l.jsonl -o v.run 2>train.err &
await l.jsonl '"kind":"checkpoint"' || diag=$(cat train.err)
cp t.db v.run
wait $!
is 'hssl-train: another run copied over its own' "$? $(grep -c 'v.run: changed while it was read' train.err)" '1 1' ||
    sed 's/^/# /' train.err

# Those that read for a moment only are stopped at a call of theirs while they have the file open.
inject=$HSSL_BIN/fault/inject.so
if [ ! -e "$inject" ] || ! LD_PRELOAD=$inject hssl-info --version >/dev/null 2>&1; then
    skip 'programs that read for a moment only' 'these programs are sanitized, and that does not go with LD_PRELOAD'
    done_testing
fi
stopped() { # CALL:N FILE OTHER COMMAND...: the exit status, and whether the file was named
    call=$1 victim=$2 other=$3
    shift 3
    rm -f "$victim-lock" && cp "$victim.whole" "$victim"
    HSSL_FAULT=${call%:*}:STOP:${call#*:} HSSL_FAULT_PROGRAM=$1 LD_PRELOAD=$inject "$@" >reader.out 2>reader.err &
    reader=$!
    until state=$(sed 's/.*) //; s/ .*//' /proc/$reader/stat 2>/dev/null); [ "$state" = T ] || [ "$state" = Z ] || [ -z "$state" ]; do
        sleep 0.05
    done
    cp "$other" "$victim"
    kill -CONT $reader 2>/dev/null
    wait $reader
    echo "$state: $? $(grep -c "$1: [^ ]*$victim: " reader.err)"
}
cp bigger.db v.db.whole && cp t.db v.run.whole && cp t.safetensors v.safetensors.whole
for other in small.db bigger.db /dev/null; do
    [ $other = bigger.db ] && cp big.db v.db.whole
    is "hssl-knn: $other copied over its data set" \
        "$(stopped pread:300 v.db $other hssl-knn --pixels --no-progress --train v.db)" 'T: 1 1'
    is "hssl-info --verify: $other copied over the data set" "$(stopped pread:300 v.db $other hssl-info --verify v.db)" 'T: 1 1'
    is "hssl-info --list: $other copied over the data set" "$(stopped pread:300 v.db $other hssl-info --list v.db)" 'T: 1 1'
done
for at in 10 20 30; do
    is "hssl-info --verify of a run, at its read $at" "$(stopped pread:$at v.run /dev/null hssl-info --verify v.run)" 'T: 1 1'
    is "hssl-export, at its read $at" "$(stopped pread:$at v.run /dev/null hssl-export v.run x.safetensors)" 'T: 1 1'
done
is 'which leaves nothing behind' "$(find . -name '*x.safetensors*')" ''
is 'hssl-info of a safetensors file' "$(stopped mmap:1 v.safetensors /dev/null hssl-info v.safetensors)" 'T: 1 1'
done_testing
