#!/bin/sh
# Deaths on either side of the teacher's link, and those who watch it.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1

hssl-synth -n 40 -s 24 s.db 2>/dev/null || exit 1
tiny="--arch vit_nano --dim 32 --depth 2 --heads 2 --patch-size 4 --head-hidden 32 --head-bottleneck 16 \
--out-dim 64 --aux convnext --aux-depth 1 --batch-size 4 --threads 2"
views() {
    hssl-load s.db | hssl-multicrop --global-size 16 --local 0 | sh -c 'echo $$ >augment.pid; exec hssl-augment -j1'
}
start() { views | sh -c 'echo $$ >$0.pid; exec hssl-train "$@"' "$@" 2>"$1.err"; echo $? >"$1.rc"; }
child() { processes | sed -n "s/^\([0-9]*\) .*hssl-teach .*--child-of $1\$/\1/p"; }

start a.db $tiny --epochs 1000 --log a.jsonl -o a.db &
await a.jsonl '"kind":"checkpoint"'
trainer=$(cat a.db.pid)
ok 'hssl-info shows where the teacher is' "hssl-info a.db | grep -q 'live teacher: hssl/1 targets ipc:'"
fails 1 'a run in training is not resumed a second time' "views | hssl-train --resume -o a.db" "process $trainer trains it"
fails 1 'nor replaced' "views | hssl-train $tiny --force -o a.db" "process $trainer uses it"
kill -9 "$(child "$trainer")"
wait
is 'a killed teacher ends the trainer with 1' "$(cat a.db.rc)" 1
is 'nothing is left of the teacher in the run' "$(hssl-info a.db | grep -c 'live teacher')" 0
ok 'which says so and names the checkpoint' "grep -q 'teacher was killed by signal 9' a.db.err && grep -q 'holds a checkpoint' a.db.err"

kills=$(siege 1) i=0
while [ $i -lt $kills ]; do
    i=$((i + 1))
    rm -f b.jsonl
    start b.db $tiny --epochs 1000 --log b.jsonl --force -o b.db &
    await b.jsonl '"step":0,'
    trainer=$(cat b.db.pid)
    teacher=$(child "$trainer")
    kill -9 "$trainer"
    wait
    becomes 'a killed trainer takes its teacher along' '[ -n "$teacher" ] && kill -0 "$teacher" 2>/dev/null; echo $?' 1
done
note "$kills trainers killed"

start c.db $tiny --epochs 1000 --log c.jsonl -o c.db &
await c.jsonl '"step":10,'
trainer=$(cat c.db.pid)
kill -9 "$(cat augment.pid)"
wait
is 'a killed producer ends the trainer with 1' "$(cat c.db.rc)" 1
ok 'and what was learnt is saved' "grep -q 'holds a checkpoint of step' c.db.err"

start i.db $tiny --epochs 1000 --teacher-in-process --log i.jsonl -o i.db &
await i.jsonl '"step":10,'
fails 1 'nobody follows a teacher inside the trainer' 'hssl-discrepancy --follow i.db' 'teacher-in-process'
is 'hssl-info shows none' "$(hssl-info i.db | grep -c 'live teacher')" 0
kill -TERM "$(cat i.db.pid)"
wait
is 'a signal ends such a trainer like any' "$(cat i.db.rc)" 143

fails 2 'a ticket of another kind' "views | $limit hssl-train $tiny --teacher 'hssl/1 views ipc:///x' -o x.db" 'kind views'
fails 2 'text that is no ticket' "views | $limit hssl-train $tiny --teacher photos -o x.db" 'line that hssl-teach prints'
fails 1 'a ticket of a teacher that has gone' \
    "views | $limit hssl-train $tiny --teacher 'hssl/1 teacher ipc://$T/nobody' -o x.db" 'nobody is there any more'
ok 'which leaves no run' '[ ! -e x.db ]'
: >silent
ticket="hssl/1 teacher ipc://$T/silent"
start y.db $tiny --teacher "$ticket" -o y.db &
await y.db.err 'parameters'
sleep 0.3
kill -TERM "$(cat y.db.pid)"
wait
is 'a signal ends the wait for a teacher that does not answer' "$(cat y.db.rc)" 143
fails 2 'an operand' 'hssl-teach x' 'unexpected operand'

# Watching.
hssl-discrepancy --follow --check --every 1 d.db >d.out 2>d.follow.err &
watcher=$!
views | hssl-train $tiny --epochs 4 --log d.jsonl -o d.db 2>d.err
watched=$(sed -n 's/.*digest \([0-9a-f]*\);.*/\1/p' d.err)
wait $watcher
is 'who watches ends with the training' "$?" 0
views | hssl-train $tiny --epochs 4 -o e.db 2>e.err
is 'watching changes no bit' "$watched" "$(sed -n 's/.*digest \([0-9a-f]*\);.*/\1/p' e.err)"
# The same step's D from the teacher and from its published logits agree to single precision.
is 'D of the logits is the teacher'"'"'s D' \
    "$(sed -n 's/.*"d":\([0-9.e+-]*\),"d_role":\([0-9.e+-]*\),"d_check":\([0-9.e+-]*\),"d_role_check":\([0-9.e+-]*\)}/\1 \2 \3 \4/p' d.out |
        awk 'function far(a, b) { return (a - b) ^ 2 > (1e-3 * b) ^ 2 + 1e-12 } { n++; if (far($1, $3) || far($2, $4)) bad++ }
             END { print (n > 0) " " bad + 0 }')" "1 0"
ok 'the means of epochs are there' "grep -q discrepancy_epoch d.out"
last() { sed -n 's/.*"kind":"'"$1"'".*"epoch":3,.*"d":\([0-9.e+-]*\).*/\1/p' "$2" | cut -c1-7; }
is 'and agree with the trainer'"'"'s own' "$(last discrepancy_epoch d.out)" "$(last epoch d.jsonl)"
hssl-discrepancy --curve d.db >curve
is 'the curve has its epochs and its line' "$(grep -c '^  *[0-9]* *loss' curve):$(grep -c '^D: start .* peak .* end ' curve)" 4:1
is 'and as JSON' "$(hssl-discrepancy --curve --json d.db | wc -l | tr -d ' ')" 4

hssl-discrepancy d.db s.db >f.out
is 'over a dataset' "$?:$(sed -n 's/.*"images":\([0-9]*\),"bad":0,"d":[0-9.e+-]*,"d_role":[0-9.e+-]*}/\1/p' f.out)" 0:40
fails 1 'a run without checkpoint of that step' 'hssl-discrepancy --step 7 d.db s.db'
fails 1 'no training begins' 'hssl-discrepancy --follow --wait 1 none.db' 'no training has begun'
fails 2 'no mode' 'hssl-discrepancy d.db' 'DATASET'
views | hssl-train $tiny --aux none --epochs 1 -o p.db 2>/dev/null
fails 1 'no head, no discrepancy' 'hssl-discrepancy p.db s.db' 'without an auxiliary head'
done_testing
