#!/bin/sh
# What a trainer wishes of its views reaches the stages that make them; and who waits in vain says so.
. "$(dirname "$0")/../tap.sh"
. "$(dirname "$0")/../mpi.sh"
cd "$T" || exit 1

# Waits first, for they take their ten seconds: four stages one behind the other, and one without a ticket.
hssl-synth -n 24 -s 48 s.db 2>/dev/null || exit 1
mkfifo silent && exec 9<>silent
hssl-tap -q <silent >/dev/null 2>ticketless.err &
ticketless=$!
hssl-load s.db >load.ticket 2>load.err &
await load.ticket
hssl-multicrop <load.ticket >multicrop.ticket 2>multicrop.err &
await multicrop.ticket
hssl-augment <multicrop.ticket >augment.ticket 2>augment.err &
await augment.ticket
HSSL_MESSAGES=json hssl-tap -q <augment.ticket >tap.ticket 2>tap.err &
await tap.ticket

tiny="--dim 16 --depth 1 --heads 2 --head-hidden 16 --head-bottleneck 8 --out-dim 32 --batch-size 8 --threads 1 --epochs 2"
nano="--arch vit_nano $tiny"
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }
views() { sed -n 's/.*images, views \(.*\);.*/\1/p' "$1"; }
fact() { hssl-info "$1" | sed -n "s/^  from: $2  *//p"; }
own='2 x 32 + 2 x 16'

# Nothing given.
hssl-load s.db | hssl-augment 2>a.err | hssl-train $nano -o a.db 2>t.err
want=$(digest t.err)
is 'a bare pipeline gives vit_nano its own views' "${#want} $(views t.err)" "16 $own"
is 'with the shares and the blur that go with them' "$(fact a.db local_scale) $(fact a.db blur_scale)" '0.15,0.4 0'
is 'and there is nothing to say' "$(said a.err)$(grep -c makes t.err)" 0
explicit='--recipe dino --global-size 32 --local 2 --local-size 16 --local-crops-scale 0.15,0.4 --blur-scale 0'
hssl-load s.db | hssl-augment $explicit 2>a.err | hssl-train $nano -f -o b.db 2>t.err
is 'the same as when all of it is given' "$(digest t.err) $(said a.err)$(grep -c makes t.err)" "$want 0"
hssl-load s.db | hssl-multicrop 2>a.err | hssl-tap -q | hssl-augment -j2 2>>a.err | hssl-train $nano -f -o b.db 2>t.err
is 'through hssl-augment, a tap and hssl-multicrop, too' "$(digest t.err) $(fact b.db planner) $(said a.err)" "$want hssl-multicrop "
hssl-load s.db | hssl-tap -q | hssl-augment -j0 --ticket work.ticket 2>a.err | hssl-tap -q | hssl-train $nano -f -o b.db 2>t.err &
trainer=$!
await work.ticket && hssl-augment --join work.ticket 2>/dev/null
wait $trainer
is 'and with a worker that joined' "$(digest t.err)" "$want"
hssl-info --command a.db >command
mv a.db first.db && cp first.db a2.db && sh ./command 2>t.err
is 'the command of the bare pipeline says all of it' "$(digest t.err) $(grep -c -e '--local-crops-scale 0.15,0.4 --blur-scale 0' command)" "$want 1"

# Other options.
differs="makes 2 x 32 + 8 x 16 views, as its options say; vit_nano is made for $own"
hssl-load s.db | hssl-augment --local 8 2>a.err | hssl-train $nano -f -o b.db 2>t.err
is 'an option that was given stays' "$(views t.err)" '2 x 32 + 8 x 16'
is 'which the stage says' "$(said a.err)" "hssl-augment: $differs"
is 'and the trainer' "$(grep makes t.err)" "hssl-train: hssl-augment $differs"
hssl-load s.db | hssl-multicrop --local 8 2>a.err | hssl-augment 2>b.err | hssl-train $nano -f -o b.db 2>t.err
is 'the same of hssl-multicrop' "$(said a.err b.err; grep makes t.err)" "hssl-multicrop: $differs
hssl-train: hssl-multicrop $differs"
hssl-load s.db | HSSL_LOCAL=8 hssl-augment 2>a.err | hssl-train $nano -f -o b.db 2>/dev/null
is 'a variable of the environment is an option as well' "$(said a.err)" "hssl-augment: $differs"
hssl-load s.db | hssl-augment --global-size 40 2>a.err | hssl-train $nano -f -o b.db 2>t.err
is 'other sizes have the blur of the recipe' "$(views t.err) $(fact b.db blur_scale) $(said a.err)" \
    "2 x 40 + 2 x 16 1 hssl-augment: makes 2 x 40 + 2 x 16 views with --local-crops-scale 0.05,0.4 --blur-scale 1, as its \
options say; vit_nano is made for $own with --local-crops-scale 0.15,0.4 --blur-scale 0"
hssl-load s.db | hssl-augment 2>a.err | hssl-train $nano --global-size 24 --local-crops 0 -f -o b.db 2>t.err
is 'what hssl-train is given is wished, too' "$(views t.err) $(said a.err)" '2 x 24 '
fails 2 'and must come' "hssl-load s.db | hssl-augment --global-size 16 | hssl-train $nano --global-size 24 -f -o b.db" \
    'global-size 24: the stream has 16, and hssl-augment decides it: give that no option about views, or the same'
fails 2 'more than may be wished is for options' "hssl-load s.db | hssl-augment | hssl-train $nano --global-size 2048 -f -o b.db" \
    'global-size 2048: the stream has 224, .*start it anew, with it'
hssl-load s.db | hssl-augment 2>a.err | hssl-train --arch vit_tiny $tiny -f -o c.db 2>t.err
is 'an architecture without views of its own gets the recipe as it is' \
    "$(views t.err) $(fact c.db local_scale) $(fact c.db blur_scale) $(said a.err)" '2 x 224 + 8 x 96 0.05,0.4 1 '

# Several consumers.
hssl-load --fan-out 2 s.db >two.ticket 2>/dev/null &
await two.ticket
hssl-augment <two.ticket 2>/dev/null | hssl-train $nano --local-crops 0 -f -o c.db 2>u.err &
other=$!
hssl-augment <two.ticket 2>/dev/null | hssl-train $nano -f -o b.db 2>t.err
wait $other
is 'two trainers each have their own' "$(views u.err), $(digest t.err)" "2 x 32, $want"
hssl-load s.db 2>/dev/null | hssl-augment --stay >stay.ticket 2>a.err &
await stay.ticket
hssl-tap -q --count 1 --exit <stay.ticket >/dev/null 2>/dev/null
hssl-train $nano -f -o b.db <stay.ticket 2>t.err
is 'a stream that runs stays as it is' "$(views t.err)" '2 x 224 + 8 x 96'
ok 'which the trainer is told' "grep -q 'hssl-augment makes 2 x 224 + 8 x 96 views with .*, as it has from the beginning; vit_nano is made for $own' t.err"
ok 'and the stage says' "grep -q 'hssl-augment: makes 2 x 224 + 8 x 96 views with .*, as it has from the beginning; vit_nano' a.err"
fails 2 'one that insists is told what to do' "hssl-train $nano --local-crops 0 -f -o b.db <stay.ticket" \
    'local-crops 0: the stream has 8, and hssl-augment decides it: that runs without such an option: start it anew, with it'
kill $!
wait $! 2>/dev/null

# A run goes on.
given='--local 3 --blur-scale 0.1 --seed 5 --fast --recipe dino'
hssl-load s.db | hssl-augment $given 2>/dev/null | hssl-train $nano -o whole.db 2>t.err
want=$(digest t.err)
hssl-load --epochs 1 s.db | hssl-augment $given 2>/dev/null | hssl-train $nano -o half.db 2>t.err
is 'a run that broke off' "${#want} $(grep -c 'checkpoint of step 3' t.err)" '16 1'
cp half.db r.db
hssl-load s.db | hssl-augment 2>a.err | hssl-train --resume --threads 1 -o r.db 2>t.err
is 'goes on in a bare pipeline as it began' "$(digest t.err) $(said a.err)" "$want "
cp half.db r.db
hssl-load s.db | hssl-multicrop 2>a.err | hssl-tap -q | hssl-augment -j2 2>>a.err | hssl-train --resume --threads 1 -o r.db 2>t.err
is 'with either planner' "$(digest t.err) $(said a.err)" "$want "
cp half.db r.db
hssl-load s.db | hssl-augment --blur-scale 0.3 2>a.err | hssl-train --resume --threads 1 -o r.db 2>t.err
is 'in another, which was asked for, it does not' "$?:$(grep -c 'trained on another stream: --blur-scale 0.1 of .*, here 0.3' t.err)" 2:1
is 'and the stage says why' "$(said a.err)" "hssl-augment: makes 2 x 32 + 3 x 16 views with --blur-scale 0.3, as its options say; \
r.db was begun with 2 x 32 + 3 x 16 with --blur-scale 0.1"
cp half.db old.db
"$HSSL_BIN/tests/provenance" --forget old.db
hssl-load s.db | hssl-augment --blur-scale 0.1 --seed 5 --fast 2>a.err | hssl-train --resume --threads 1 -o old.db 2>t.err
is 'one of an older version wishes what it knows' "$(views t.err)" '2 x 32 + 3 x 16'
hssl-load s.db | hssl-augment 2>a.err | hssl-train --continue-from whole.db --epochs 1 -o next.db 2>t.err
is 'a run that another one begins with has its views, drawn anew' \
    "$(views t.err) $(fact next.db blur_scale) $(fact next.db view_seed) $(said a.err)" '2 x 32 + 3 x 16 0.1 0 '

# The forecast is of the same views.
cat >m.json <<'EOF2'
{ "name": "by hand", "cores": 4, "memory": 8e9, "decode": 1e8, "render": 1e6, "copy": 1e9, "message": 1e-5,
  "student": 1e9, "teacher": 1e9, "update": 1e9, "busy": 1 }
EOF2
is 'hssl-plan reckons with them' "$(hssl-plan -m m.json -n 100 $nano --json | grep -o '"views":[0-9]*' | head -n 1)" '"views":7680'

# Several ranks.
if mpi_works; then
    ranks() { # STAGE's OPTIONS, then those of hssl-train
        stage=$1
        shift
        $limit mpirun -n 2 sh -c "hssl-load $load s.db | hssl-augment $stage | hssl-train $*"
    }
    load= && ranks '' $nano -o two.db 2>t.err
    is 'all ranks wish the same' "$(views t.err)" "$own"
    ranks "$given" $nano -o whole2.db 2>t.err
    want=$(digest t.err)
    load='--epochs 1' && ranks "$given" $nano -o half2.db 2>t.err
    load= && ranks '' --resume --threads 1 -o half2.db 2>t.err
    is 'also that a run goes on as it began' "$(digest t.err)" "${want:-none}"
else
    skip 'several ranks' 'mpirun or hssl-mpi.so is not there'
fi

# Those that wait have waited by now.
for stage in load:records multicrop:plans augment:views; do
    await "${stage%:*}.err" || continue
    is "hssl-${stage%:*} says that nobody has connected" "$(cat "${stage%:*}.err")" \
        "hssl-${stage%:*}: nobody has connected yet: waiting for whoever is to take these ${stage#*:}"
done
await tap.err
ok 'hssl-tap, too, as an object where messages are' "grep -q '^{.*\"program\":\"hssl-tap\".*\"message\":\"nobody has connected yet: \
waiting for whoever is to take these views\"' tap.err"
await ticketless.err
is 'hssl-tap that it has no ticket' "$(cat ticketless.err)" \
    'hssl-tap: no ticket has come on standard input yet: waiting for hssl-load or hssl-multicrop or hssl-augment'
kill $ticketless
$limit hssl-tap --json --count 2 --exit <tap.ticket >/dev/null 2>late.json
is 'and whoever comes late is served' "$(grep -c '"type":"data"' late.json)" 2
done_testing
