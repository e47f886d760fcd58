#!/bin/sh
# What a training says of itself: whether it learns, seen without labels, and what it will take.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1

hssl-synth -n 44 -s 24 s.db 2>/dev/null || exit 1
tiny="--arch vit_nano --dim 32 --depth 2 --heads 2 --patch-size 4 --drop-path 0 --head-hidden 32 --head-bottleneck 16 \
--out-dim 64 --batch-size 4 --epochs 20 --threads 2"
train() { hssl-load s.db | hssl-multicrop --global-size 16 --local 2 --local-size 8 | hssl-augment -j1 |
    hssl-train $tiny "$@"; }
# The number that a line of this kind has by this key, of all such lines.
figures() { sed -n 's/.*"kind":"'"$2"'".*"'"$3"'":\([-+.0-9e]*\)[,}].*/\1/p' "$1"; }
# But for a wait for views, which is no fault of a training on a busy machine.
warned() { grep -e warning: -e '"kind":"warning"' -e '; but' "$@" | grep -v -e starved -e 'waits for views'; }
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }

train --log good.jsonl -o good.db 2>good.err
is 'a training that learns' "$?" 0
ok 'warns of nothing' '! warned good.err good.jsonl'
is 'each epoch has the figures of its health, behind what was there before' \
    "$(grep -c '"bad":0,"ln_k":[0-9.]*,"entropy":[0-9.]*,"mean_entropy":[0-9.]*,"rank":[0-9.]*}' good.jsonl)" 20
is 'ln K is that' "$(figures good.jsonl epoch ln_k | cut -c 1-6 | sort -u)" 4.1588
ok 'entropies do not leave 0 to ln K, and targets are no more certain together than one by one' \
    'figures good.jsonl epoch entropy >e; figures good.jsonl epoch mean_entropy >m
    paste -d " " e m | awk "!(\$1 >= 0 && \$1 <= \$2 + 1e-6 && \$2 < 4.1589) { bad = 1 } END { exit bad || NR != 20 }"'
ok 'the rank is between 1 and the number of channels' \
    'figures good.jsonl epoch rank | awk "!(\$1 >= 1 && \$1 <= 32) { bad = 1 } END { exit bad || NR != 20 }"'
ok 'windows of steps have them, too' '[ "$(figures good.jsonl health steps | sort -un | tail -n 1)" -lt 40 ]'
ok 'they stand beside the loss on the terminal' \
    'grep -q "epoch 3/20: loss [0-9.]* (ln K 4.159), entropy [0-9.]* (of the mean [0-9.]*), rank [0-9.]* of 32, .*images/s" good.err'
is 'once, what it will take' \
    "$(grep -c 'about [0-9.]* [kMG]B, [0-9.]* m*s a step, .* for [0-9.]* epochs on 2 threads' good.err):$(grep -c '"kind":"outlook"' good.jsonl)" 1:1
ok 'in the log, too' '[ "$(figures good.jsonl outlook memory_bytes)" ] && [ "$(figures good.jsonl outlook step_s)" ] &&
    [ "$(figures good.jsonl outlook hours)" ]'
train --teacher-in-process --log inside.jsonl -o inside.db 2>inside.err
is 'a teacher inside the trainer: the same' "$(for k in entropy mean_entropy rank; do figures inside.jsonl epoch $k; done)" \
    "$(for k in entropy mean_entropy rank; do figures good.jsonl epoch $k; done)"
is 'and the same bits' "$(digest inside.err)" "$(digest good.err)"

# A collapse on one prototype: without centring, and a teacher that follows quickly.
train --center-momentum 1 --teacher-temp 0.02 --warmup-teacher-temp 0.02 --momentum-teacher 0.9 --lr 0.1 --warmup-epochs 1 \
    --log one.jsonl -o one.db 2>one.err
is 'a training whose targets collapse ends as it was asked to' "$?" 0
is 'and says once what is the matter, and what helps' \
    "$(grep -c 'warning: step [0-9]*, epoch [0-9]*: the targets have collapsed: all mass is on a few.*centring' one.err)" 1
is 'the log has it once' "$(grep -c '"kind":"warning".*"what":"one-sided","state":"begins"' one.jsonl)" 1
ok 'before the training is over' '[ "$(grep one-sided one.jsonl | figures /dev/stdin warning step)" -lt 200 ]'
ok 'the last word is of it' 'grep -q "done: .*; but the targets have collapsed: .*, since epoch [0-9]*: see hssl-info" one.err'
ok 'hssl-info says so' 'hssl-info one.db | grep -q "warning since step [0-9]*, epoch [0-9]*: the targets have collapsed.*centring"'
ok 'as JSON' 'hssl-info --json one.db | grep -q "\"warnings\":\[{\"step\":[0-9]*,\"epoch\":[0-9]*,\"what\":\"one-sided\","'
train --center-momentum 1 --teacher-temp 0.02 --warmup-teacher-temp 0.02 --momentum-teacher 0.9 --lr 0.1 --warmup-epochs 1 \
    --resume --epochs 21 --log more.jsonl -o one.db 2>more.err
is 'one that goes on has what was warned of, without a new warning' \
    "$(grep -c 'done: .*; but the targets have collapsed' more.err):$(grep -c 'warning: step' more.err)" 1:0
ok 'of a good one nothing' 'hssl-info --json good.db | grep -q "\"warnings\":\[" &&
    ! hssl-info --json good.db | grep -o "\"what\":\"[a-z-]*\"" | grep -v starved && ! hssl-info good.db | warned'

# While it runs, who looks sees it, too.
mkdir run && export TMPDIR="$T" XDG_RUNTIME_DIR="$T/run"
train --center-momentum 1 --teacher-temp 0.02 --warmup-teacher-temp 0.02 --momentum-teacher 0.9 --lr 0.1 --warmup-epochs 1 \
    --epochs 100000 --save-every 1000000 --log live.jsonl -o live.db 2>live.err &
await live.jsonl '"what":"one-sided","state":"begins"'
becomes 'hssl-top says so' \
    'hssl-top -d "$XDG_RUNTIME_DIR" --once --json --interval 0.1 | grep -c "\"warning\":\"since step [0-9]* the targets have collapsed"' 1
hssl-top -d "$XDG_RUNTIME_DIR" --once --interval 0.1 >top
ok 'below the trainer' 'grep -A 3 "hssl-train  " top | grep -q "^hssl-train: since step"'
kill $(processes | sed -n 's/^\([0-9]*\) hssl-train .* live.db.*/\1/p') 2>/dev/null
wait
ok 'one that is stopped says it last, too' 'grep -q "live.db holds a checkpoint.*; but the targets have collapsed" live.err'

# To uniform targets: a teacher that sharpens too little.
train --lr 1 --warmup-epochs 0 --teacher-temp 0.5 --warmup-teacher-temp 0.5 --log flat.jsonl -o flat.db 2>flat.err
is 'uniform targets: once' "$(grep -c 'warning: step .* they are uniform.*teacher-temp' flat.err)" 1
ok 'and at the end' 'grep -q "done: .*; but .*they are uniform" flat.err'

# Charts.
figure() { sed -n "/^$1/,/^[a-z]/p" curve | grep -c '|'; }
COLUMNS=60 LC_ALL=C hssl-info --curve one.db >curve
is 'a curve' "$?" 0
is 'of loss, entropies, rank and rate' "$(figure loss):$(figure 'entropy of the targets'):$(figure 'entropy of the mean'):$(figure rank):$(figure learning)" 10:6:6:6:6
ok 'as wide as asked for, in ASCII' '[ "$(grep "|" curve | wc -L)" -le 60 ] && ! grep -v "^[ -~]*$" curve'
ok 'with what was warned of' 'grep -q "warning since step" curve'
ok 'in braille where the locale has it' 'LC_ALL=C.UTF-8 hssl-info --curve one.db | grep -q "$(printf "\342\240\201")"'
fails 1 'a curve of what is no run' 'hssl-info --curve s.db' 'curve is for runs'
done_testing
