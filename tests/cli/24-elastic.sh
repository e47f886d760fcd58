#!/bin/sh
# Workers that are killed, stopped, added and taken away; trainers that die and go on; several consumers.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1
FAULTS=${FAULTS:-$(siege 200)} SEED=${SEED:-$$}

hssl-synth -n 60 -s 24 s.db 2>/dev/null || exit 1
small='--global-size 16 --local 2 --local-size 8'
tiny="--arch vit_nano --dim 32 --depth 2 --heads 2 --patch-size 4 --head-hidden 32 --head-bottleneck 16 --out-dim 64 \
--batch-size 4 --threads 1 --save-every 1000000"
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }
# Processes of this test: their sockets lie below $T.
export TMPDIR="$T" XDG_RUNTIME_DIR="$T"
ours() { # [word in the command line]
    for p in $(grep -las -e "${1:-hssl-}" /proc/[0-9]*/cmdline); do
        p=${p%/cmdline}
        grep -qzsx "TMPDIR=$T" "$p/environ" && grep -qas '^hssl-' "$p/cmdline" && echo "${p#/proc/}"
    done
}

# One result whatever the number of workers, the medium, and where they come from.
hssl-load s.db | hssl-augment $small | hssl-train $tiny --epochs 2 -o a.db 2>a.err
want=$(digest a.err)
for how in '-j2' '-j7' '-j2 --medium inline' '-j2 --medium shm' '-j2 --listen 127.0.0.1:0'; do
    hssl-load s.db | hssl-augment $small $how | hssl-train $tiny --epochs 2 -f -o b.db 2>b.err
    is "hssl-augment $how: the same bits" "$(digest b.err)" "$want"
done
for listen in '' '--listen 127.0.0.1:0'; do
    hssl-load s.db | HSSL_DEBUG=stream hssl-augment $small $listen --ticket work.ticket 2>h.err |
        hssl-train $tiny --epochs 20 --log c.jsonl -f -o c.db 2>c.err &
    await work.ticket hssl/1
    is "the ticket opens the door to its owner only $listen" "$(stat -c %a work.ticket)" 600
    sed 's/ local=[^ ]*//' work.ticket >far.ticket # as on a host that has no such socket
    hssl-augment --join - <far.ticket 2>j.err &
    joiner=$!
    await h.err 'worker 2: '
    is "one that joins by a copy of it gets pixels as it can $listen" \
        "$(sed -n 's/.*worker 2: //p' h.err)" "$([ -n "$listen" ] && echo inline || echo shm)"
    wait $joiner
    is 'it ends with the stream' $? 0
    wait
    rm -f c.jsonl
    ok 'the ticket is taken away at the end' '[ ! -e work.ticket ]'
    [ -n "$listen" ] && is 'with it: the same bits as without' "$(digest c.err)" "$long"
    long=$(digest c.err)
done
fails 1 'a ticket of a run that has ended' 'hssl-augment --patience 1 --join far.ticket' 'does not answer|refuses'
fails 2 'a ticket of another kind' 'echo "hssl/1 views ipc:///x" | hssl-augment --join -' 'views'
fails 1 'no such file' 'hssl-augment --join none.ticket' 'none.ticket'

# Every image exactly once an epoch, and the same weights, under a storm of faults.
epochs=${EPOCHS:-$(siege 400)}
hssl-load s.db | hssl-augment $small | hssl-train $tiny --epochs $epochs -o d.db 2>d.err
want=$(digest d.err)
hssl-load s.db 2>/dev/null |
    hssl-augment $small -j3 --ticket storm.ticket 2>storm.err |
    hssl-tap --json 2>seen.jsonl |
    sh -c 'echo $$ >e.pid; exec hssl-train "$@"' train $tiny --epochs $epochs -f -o e.db 2>e.err &
await storm.ticket hssl/1
await e.pid
cp storm.ticket join.ticket
note "SEED=$SEED FAULTS=$FAULTS"
awk -v seed="$SEED" -v n="$FAULTS" 'BEGIN { srand(seed); for (i = 0; i < n; i++) print int(rand() * 5), rand() }' >faults
done_faults=0
# The trainer waits where it is further than the storm: it must not be ready before.
pace() {
    seq=$(tail -c 4000 seen.jsonl | grep -o '"seq":[0-9]*' | tail -n 1)
    if [ "${seq#*:}" -gt $((60 * epochs * (done_faults + 1) / (FAULTS + 1))) ]; then
        kill -STOP "$(cat e.pid)"
    else
        kill -CONT "$(cat e.pid)"
    fi 2>/dev/null
}
while read -r kind where; do
    [ -e storm.ticket ] || break
    victim=$(ours --join | awk -v r="$where" '{ a[NR] = $1 } END { if (NR) print a[1 + int(r * NR)] }')
    case $kind in
    0 | 1) [ -n "$victim" ] && kill -9 "$victim" 2>/dev/null ;;
    2) [ -n "$victim" ] && kill -STOP "$victim" 2>/dev/null && (sleep 0.2; kill -CONT "$victim") 2>/dev/null & ;;
    3) hssl-augment --patience 1 --join join.ticket 2>/dev/null & ;;
    4) [ -n "$victim" ] && kill -TERM "$victim" 2>/dev/null ;;
    esac
    done_faults=$((done_faults + 1))
    pace
done <faults
kill -CONT "$(cat e.pid)" 2>/dev/null
wait
is 'the storm was over before the stream was' "$done_faults" "$FAULTS"
is 'the same weights' "$(digest e.err)" "$want"
is 'every image exactly once an epoch' \
    "$(sed -n 's/.*"seq":\([0-9]*\).*"id":\([0-9]*\).*/\1 \2/p' seen.jsonl |
        awk -v n=60 -v e=$epochs '$1 < n * e { if (seen[$1]++) twice++; if (of[int($1 / n) " " $2]++) again++; all++ }
             END { print all, twice + 0, again + 0 }')" "$((60 * epochs)) 0 0"
ok 'workers were lost and replaced' "grep -q 'started anew' storm.err"
note "$done_faults faults over $((60 * epochs)) records: $(sed -n 's/.*: \(.*workers* lost.*\)/\1/p' storm.err)"

# Trainers come and go; what is upstream stays.
epochs=40
hssl-load s.db | hssl-augment $small | hssl-train $tiny --epochs $epochs -f -o d.db 2>d.err
want=$(digest d.err)
hssl-load s.db 2>/dev/null | hssl-multicrop $small 2>/dev/null | hssl-augment -j2 --stay >views.ticket 2>stay.err &
await views.ticket hssl/1
sh -c 'echo $$ >pid; exec hssl-train "$@"' train $tiny --epochs $epochs --save-every 5 --log f.jsonl -o f.db <views.ticket 2>f.err &
first=$!
await f.jsonl '"step":40,'
fails 1 'a second consumer while the first lives' "hssl-tap <views.ticket >/dev/null" 'has a consumer already'
kill -9 "$(cat pid)"
wait $first
hssl-train --resume --threads 1 -o f.db <views.ticket 2>f.err
is 'killed and resumed on the same ticket: the same bits' "$(digest f.err)" "$want"
hssl-train $tiny --epochs 2 -f -o g.db <views.ticket 2>g.err
is 'and the next trainer gets the stream from its beginning' "$(digest g.err)" "$(digest a.err)"
for p in $(ours); do kill -TERM "$p"; done 2>/dev/null
wait

# Several consumers of one loader.
hssl-load --fan-out 2 s.db >records.ticket 2>/dev/null &
loader=$!
await records.ticket hssl/1
hssl-augment $small <records.ticket 2>/dev/null | hssl-train $tiny --epochs 2 -o h.db 2>h.err &
hssl-augment $small <records.ticket 2>/dev/null | hssl-train $tiny --epochs $epochs -o i.db 2>i.err
is 'one of two consumers gets everything' "$(digest i.err)" "$want"
wait $loader
is 'the loader ends with the last' $? 0
wait
is 'and so did the other' "$(digest h.err)" "$(digest a.err)"

# Large images, a trainer that is stopped: a stage holds as much as it may, and the results are the same.
hssl-synth -n 24 -s 800 -q 98 big.db 2>/dev/null
hub_peak() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(cat hub.pid)/status"; }
for memory in 1M 100M; do
    hssl-load big.db 2>/dev/null |
        sh -c 'echo $$ >hub.pid; exec hssl-augment "$@"' augment $small -j2 --memory $memory 2>/dev/null |
        sh -c 'echo $$ >pid; exec hssl-train "$@"' train $tiny --batch-size 24 --epochs 16 --log k.jsonl -f -o k.db 2>k.err &
    await k.jsonl '"step":1,'
    kill -STOP "$(cat pid)"
    if [ $memory = 1M ]; then
        sleep 2 # there is nothing to wait for: it should not grow
    else
        until_true '[ "$(hub_peak)" -gt $((peak_1M + 20000)) ]'
    fi
    peak=$(hub_peak)
    kill -CONT "$(cat pid)"
    wait
    note "--memory $memory: $peak KiB at most"
    eval "peak_$memory=$peak digest_$memory=\$(digest k.err)"
    rm -f k.jsonl
done
ok '--memory bounds what the hub holds' "[ $((peak_1M + 20000)) -lt $peak_100M ]"
is 'and changes no result' "$digest_1M" "$digest_100M"

becomes 'no process stays behind' ours ''
is 'no socket stays behind' "$(ls -d hssl-[0-9]* 2>/dev/null)" ''
done_testing
