#!/bin/sh
# Looking on at a stage that runs: hssl-tap --attach sees what passes and changes nothing.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1
mkdir run && export TMPDIR="$T" XDG_RUNTIME_DIR="$T/run"

hssl-synth -n 40 -s 24 small.db 2>/dev/null || exit 1
views='--global-size 16 --local 2 --local-size 8'
tiny="--arch vit_nano --depth 1 --heads 2 --patch-size 4 --head-hidden 32 --head-bottleneck 16 --out-dim 64 \
--batch-size 4 --threads 1 --dim 32 --save-every 1000000"
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }
pid_of() { # NAME ARGUMENTS: of a program of this test
    for p in $(processes | sed -n "s/^\([0-9]*\) $1 .*/\1/p"); do
        grep -qzx "TMPDIR=$T" "/proc/$p/environ" 2>/dev/null && echo "$p" && return
    done
}

fails 1 'no such process' 'hssl-tap --attach 999999999' 'no such stage'
fails 2 'neither a number nor a ticket' 'hssl-tap --attach nothing.ticket' 'neither a process ID nor a ticket'
echo 'hssl/1 views ipc:///nowhere' >dead.ticket
fails 1 'the ticket of a stage that is gone' 'hssl-tap --attach dead.ticket' 'no such stage'

hssl-load small.db | hssl-augment $views -j2 | hssl-train $tiny --epochs 60 -o a.db 2>a.err
want=$(digest a.err)

# The same with people that look on at each stage, come and go, stop and get killed.
hssl-load small.db | tee load.ticket | hssl-augment $views -j2 --stay >views.ticket 2>aug.err &
await views.ticket
hssl-train $tiny --epochs 60 -o b.db <views.ticket 2>b.err &
train=$!
load=$(pid_of hssl-load) hub=$(pid_of hssl-augment)
hssl-tap --attach "$load" --json -n 20 >load.jsonl 2>load.err
is 'the loader, by its process' "$? $(grep -c '"type":"data"' load.jsonl)" '0 20'
ok 'first what the stream holds' "head -1 load.jsonl | grep -q '\"type\":\"welcome\"'"
hssl-tap --attach views.ticket --json --sums -n 20 >views.jsonl 2>views.err
is 'the hub, by its ticket' "$? $(grep -c '"xxh3"' views.jsonl)" '0 20'
ok 'tensors come with their bytes' "! grep '\"type\":\"data\"' views.jsonl | grep -qv '\"xxh3\"'"
hssl-tap --attach "$train" --sheet now.png -n 4
ok 'the trainer: what it reads, as a picture' "[ -s now.png ]"
hssl-tap --attach "$hub" --json >killed.jsonl & tap=$!
await killed.jsonl && kill -9 $tap
hssl-tap --attach "$hub" --json >stopped.jsonl 2>/dev/null & tap=$!
await stopped.jsonl && kill -STOP $tap
hssl-tap --attach "$hub" --json >interrupted.jsonl & other=$!
await interrupted.jsonl && kill -TERM $other
wait $other
is 'a signal ends it' "$?" 143
wait $train
is 'the trainer is done' "$?" 0
is 'the same bits' "$(digest b.err)" "$want"
kill -CONT $tap
kill "$hub" "$load" 2>/dev/null
wait 2>/dev/null

# The same records as the pipe itself shows.
hssl-load small.db --epochs 200 | hssl-augment $views | hssl-tap --json --sums 2>pipe.jsonl >/dev/null &
await pipe.jsonl
hssl-tap --attach "$(pid_of hssl-augment)" --json --sums >side.jsonl
is 'it ends with the stage' "$?" 0
wait
ok 'with its end' "tail -1 side.jsonl | grep -q '\"type\":\"end\"'"
sums() { sed -n 's/"medium":"[a-z]*"//g; s/"shared":{[^}]*}//g; /"type":"data"/p' "$1" | sort; }
sums side.jsonl >a
sums pipe.jsonl >b
ok 'all that it shows is what passed' "[ -s a ] && [ -z \"\$(comm -23 a b)\" ]"

is 'nothing is left in the socket directory' "$(ls run)" ''
done_testing
