#!/bin/sh
# hssl-train through the real pipeline: one result whatever the workers, the medium and the interruptions.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1

hssl-synth -n 44 -s 24 s.db 2>/dev/null || exit 1
tiny="--arch vit_nano --dim 32 --depth 2 --heads 2 --patch-size 4 --drop-path 0.1 --head-hidden 32 --head-bottleneck 16 \
--out-dim 64 --aux convnext --aux-depth 1 --batch-size 4 --epochs 3 --threads 2"
views() { hssl-load s.db | hssl-multicrop --global-size 16 --local 2 --local-size 8 | hssl-augment "$@"; }
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }
# Train in the background; its process is in FILE.pid.
start() { views -j1 | sh -c 'echo $$ >$0.pid; exec hssl-train "$@"' "$@" 2>"$1.err"; echo $? >"$1.rc"; }

views -j1 | hssl-train $tiny --log a.jsonl -o a.db 2>a.err
is 'a training ends with 0' "$?" 0
want=$(digest a.err)
ok 'it says the digest of its parameters' "[ -n '$want' ] && hssl-info a.db | grep -q '33'"
is 'an epoch has as many steps as whole batches' "$(grep -c '"kind":"epoch"' a.jsonl):$(sed -n 's/.*"kind":"end".*"step":\([0-9]*\).*/\1/p' a.jsonl)" 3:33
ok 'the settings and the learning rate are printed' "grep -q 'lr 0.000125 = 0.008 . 4 / 256' a.err"
ok 'the log has D' "grep '\"kind\":\"step\"' a.jsonl | grep -q '\"d\":.*\"d_role\":'"

views -j2 | hssl-train $tiny -o b.db 2>b.err
is 'two rendering threads: the same bits' "$(digest b.err)" "$want"
views -j2 | hssl-train $tiny --teacher-medium inline --force -o b.db 2>b.err
is 'a teacher that is sent everything: the same bits' "$(digest b.err)" "$want"
views -j1 | hssl-train $tiny --teacher-in-process --force --log inside.jsonl -o b.db 2>b.err
is 'a teacher inside the trainer: the same bits' "$(digest b.err)" "$want"
is 'the same D' "$(grep '"kind":"epoch"' inside.jsonl | sed 's/.*"d":/"d":/')" "$(grep '"kind":"epoch"' a.jsonl | sed 's/.*"d":/"d":/')"
ok 'the log says where it is' 'grep -q "\"teacher\":\"in-process\"" inside.jsonl'
fails 2 'inside, and where else?' "hssl-train $tiny --teacher-in-process --teacher-device cpu -o x.db </dev/null" 'exclude it'
views -j1 | hssl-train $tiny --overlap --force -o b.db 2>b.err
is 'teacher and student at once: the same bits' "$(digest b.err)" "$want"
views -j1 | hssl-train $tiny --recompute --force -o b.db 2>b.err
is 'the inside of layers computed twice: the same bits' "$(digest b.err)" "$want"
views -j1 | hssl-train $tiny --seed 1 --force -o b.db 2>b.err
ok 'another seed: others' "[ -n '$(digest b.err)' ] && [ '$(digest b.err)' != '$want' ]"

hssl-teach >ticket 2>teach.err &
teacher=$!
await ticket hssl/1
views -j1 | hssl-train $tiny --force --teacher "$(cat ticket)" -o b.db 2>b.err
is 'a teacher started by hand: the same bits' "$(digest b.err)" "$want"
wait $teacher
is 'and it ends with the trainer' "$?" 0

# What is to be caught in the middle takes long enough for that, beside other work too.
long="$tiny --epochs 20"
views -j1 | hssl-train $long -o l.db 2>l.err
want=$(digest l.err)
ok 'a longer training' "[ -n '$want' ]"

# Killed in the middle, ever later, and resumed.
kills=$(siege 1) i=0 alive=0 others=0
while [ $i -lt $kills ]; do
    rm -f c.jsonl
    start c.db $long --save-every 5 --log c.jsonl --log-every 1 --force -o c.db &
    await c.jsonl '"kind":"checkpoint"' && await c.jsonl "\"step\":$((5 + i * 17 % 100))," && kill -9 "$(cat c.db.pid)"
    wait
    [ "$(cat c.db.rc)" = 137 ] || alive=$((alive + 1))
    views -j2 | hssl-train --resume -o c.db 2>c.err
    [ "$(digest c.err)" = "$want" ] || [ "$(cat c.db.rc)" = 0 ] || others=$((others + 1))
    i=$((i + 1))
done
ok 'killed: no more is heard of it' "[ $alive -lt $kills ]"
is 'resumed: the same bits as without interruption' "$others" 0
note "$kills trainings, $((kills - alive)) kills"
hssl-train --resume -o c.db 2>c.err </dev/null
is 'a complete run is left alone' "$?:$(grep -c complete c.err)" 0:1

# Asked to leave, and resumed.
start d.db $long --log d.jsonl -o d.db &
await d.jsonl '"step":10,' && kill -TERM "$(cat d.db.pid)"
wait
is 'SIGTERM: 143' "$(cat d.db.rc)" 143
ok 'with a checkpoint' "grep -q 'holds a checkpoint of step' d.db.err"
views -j1 | hssl-train --resume -o d.db 2>d.err
is 'resumed: the same bits' "$(digest d.err)" "$want"

# To the whole pipeline, as batch systems do.
upstream() { # the programs before the trainer, of those that were started here
    processes | sed -n 's/^\([0-9]*\) hssl-\(load\|multicrop\|augment\) .*/\1/p' | while read -r p; do
        [ "$(readlink "/proc/$p/cwd")" = "$(pwd -P)" ] && echo "$p"
    done
}
start e.db $long --save-every 1000 --log e.jsonl -o e.db &
await e.jsonl '"step":0,' && kill -USR1 $(upstream) "$(cat e.db.pid)"
wait
is 'SIGUSR1: a checkpoint, and on it goes' "$(cat e.db.rc):$(grep -c '"kind":"checkpoint"' e.jsonl):$(digest e.db.err)" "0:2:$want"

# Begun with the weights of a file, and killed before the first checkpoint of its own.
hssl-export a.db a.safetensors
views -j1 | hssl-train $long --init-from a.safetensors -o f.db 2>f.err
from=$(digest f.err)
ok 'a file to begin with makes a difference' "[ -n '$from' ] && [ '$from' != '$want' ]"
start g.db $long --init-from a.safetensors --save-every 1000 --log g.jsonl -o g.db &
await g.jsonl '"step":10,' && kill -9 "$(cat g.db.pid)"
wait
views -j1 | hssl-train --resume -o g.db 2>g.err
is 'killed and resumed: the same bits' "$(digest g.err)" "$from"

is '--print-config says where a setting comes from' \
    "$(HSSL_SEED=7 hssl-train --print-config --arch vit_nano --lr 0.1 | grep -e '^lr ' -e '^seed ' -e '^out-dim ' -e '^beta1 ' | tr '\n' ';')" \
    'out-dim = 1024  # preset;lr = 0.1  # flag;beta1 = 0.9  # default;seed = 7  # env;'
is 'and what a resumed run keeps' "$(hssl-train --print-config --resume -o a.db | grep '^out-dim ')" 'out-dim = 64  # run'

# What cannot be.
fails 1 'a run that is there is not overwritten' 'views -j1 | hssl-train -o a.db' 'force.*resume'
fails 2 'a resumed run keeps its settings' 'views -j1 | hssl-train --resume --lr 0.01 -o d.db' 'keeps its settings'
fails 1 'nothing to resume, and no stream to begin with' "true | hssl-train --resume $tiny -o none.db" 'none.db is not there yet'
fails 2 'a long option with one dash' "hssl-train -arch vit_nano" '^hssl-train: -arch: no such option; did you mean --arch\?'
fails 2 'no run named' 'views -j1 | hssl-train' '-o RUN'
fails 2 'records where views belong' "hssl-load s.db | hssl-train $tiny -o x.db" 'hssl-augment'
fails 2 'text where views belong' "echo photos | hssl-train $tiny -o x.db" 'hssl-augment'
fails 1 'an empty pipe' "true | hssl-train $tiny -o x.db" 'hssl-augment'
fails 2 'views of another size than asked for' "views -j1 | hssl-train $tiny --global-size 32 -o x.db" 'the stream has 16'
fails 2 'a batch larger than an epoch' "views -j1 | hssl-train $tiny --batch-size 64 -o x.db" 'lower --batch-size'
fails 1 'a stream with fewer epochs: said, and saved' \
    "hssl-load -e 1 s.db | hssl-multicrop --global-size 16 --local 2 --local-size 8 | hssl-augment -j1 | hssl-train $tiny -o x.db" \
    'step 11 of 33'
ok 'a failed start leaves no run' '[ ! -e none.db ]'

# A loss that is no number.
views -j1 | hssl-train $tiny --lr 100 --weight-decay 100 --weight-decay-end 100 --warmup-epochs 0 --save-every 2 \
    -o n.db 2>n.err
is 'a loss that is not finite ends the training with 1' "$?" 1
ok 'where the same would come again, what helps is named' \
    "! grep -q 'holds a checkpoint' n.err || grep -q -- '--resume would end there again; --continue-from n.db with a lower --lr' n.err"
ok 'the first tensor that is not finite is named' "grep -Eq 'not finite' n.err && grep -Eq 'backbone|head|aux|last_layer' n.err"
ok 'the last good checkpoint stays' "grep -q 'holds a checkpoint' n.err"

for f in *.pid; do processes | grep -- "--child-of $(cat "$f")\$"; done >left
is 'no teacher stays behind' "$(cat left)" ""
done_testing
