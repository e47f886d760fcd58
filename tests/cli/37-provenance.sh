#!/bin/sh
# A run knows where it comes from: it goes on with the same stream only, and tells the commands that made it.
. "$(dirname "$0")/../tap.sh"
. "$(dirname "$0")/../mpi.sh"
cd "$T" || exit 1

hssl-synth -n 24 -s 24 s.db 2>/dev/null && hssl-synth -n 24 -s 24 --seed 9 other.db 2>/dev/null || exit 1
tiny="--arch vit_nano --dim 16 --depth 1 --heads 2 --patch-size 4 --head-hidden 16 --head-bottleneck 8 --out-dim 32 \
--batch-size 4 --threads 1 --epochs 4"
crops="--global-size 16 --local 2 --local-size 8"
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }
stored() { hssl-info --json -n 0 "$1" | sed 's/.*"digest":"\([0-9a-f]*\)".*/\1/'; }
# Load and plan with other options than usual; what follows renders and trains.
stream() { hssl-load $1 s.db | hssl-multicrop $crops $2 | hssl-augment -j1 $3; }
half() { stream '--epochs 2' "$2" "$3" | hssl-train $tiny -o "$1" 2>"$1.err"; } # ends early: a checkpoint of step 12

stream | hssl-train $tiny --log whole.jsonl -o whole.db 2>whole.err
want=$(digest whole.err)
half half.db
is 'a run that broke off in the middle' "$(grep -c 'checkpoint of step 12' half.db.err):${#want}" 1:16

# What is another stream, and what isn't.
refused() { # name, the words that must come, command
    cp half.db r.db
    fails 2 "$1 is refused, both values named" "$3" "r.db was trained on another stream: .*$2.*hssl-info --command r.db.*--resume-anyway"
    is "$1: the run stays as it was" "$(stored r.db)" "$(stored half.db)"
}
resume='hssl-train --resume -o r.db'
refused 'another data set of the same size' "digest [0-9a-f]{16}, here [0-9a-f]{16}" \
    "hssl-load other.db | hssl-multicrop $crops | hssl-augment | $resume"
cp half.db r.db
hssl-synth -n 30 -s 24 less.db 2>/dev/null
fails 2 'a smaller data set is refused, both values named' \
    "hssl-load less.db | hssl-multicrop $crops | hssl-augment | $resume" 'the stream has 30 images an epoch, [0-9]* are wanted: another dataset'
refused 'another order' '--seed 0 of hssl-load, here 7' "stream '--seed 7' | $resume"
refused 'no order' '--shuffle true of hssl-load, here false' "stream --no-shuffle | $resume"
refused 'another part' '--rank 0 of hssl-load, here 1; --world 1 of hssl-load, here 2' \
    "hssl-synth -n 48 -s 24 big.db 2>/dev/null; hssl-load --rank 1 --world 2 big.db | hssl-multicrop $crops | hssl-augment | $resume"
refused 'another recipe' '--recipe dino of the planning stage, here mocov3' "stream '' '--recipe mocov3' | $resume"
refused 'other draws' '--seed 0 of the planning stage, here 7' "stream '' '--seed 7' | $resume"
refused 'less blur' '--blur-scale 1 of the planning stage, here 0.3' "stream '' '--blur-scale 0.3' | $resume"
refused 'other crops' '--global-crops-scale 0.4,1 of the planning stage, here 0.3,1' "stream '' '--global-crops-scale 0.3,1' | $resume"
refused 'other local crops' '--local-crops-scale 0.05,0.4 .*, here 0.05,0.3' "stream '' '--local-crops-scale 0.05,0.3' | $resume"
refused 'another decoder' '--fast false of hssl-augment, here true' "stream '' '' --fast | $resume"
refused 'two at once' '--seed 0 of hssl-load, here 7; --fast' "stream '--seed 7' '' --fast | $resume"

mkdir there && cp s.db there/copy.db && cp half.db r.db
hssl-load --epochs 9 there/copy.db | hssl-augment -j2 --memory 64M --medium inline $crops | hssl-train --resume --threads 1 -o r.db 2>err
is 'another path, number of epochs, planner, worker, medium: the same bits' "$(digest err)" "$want"

cp half.db r.db
stream '--seed 7' | hssl-train --resume-anyway --epochs 3 --log r.jsonl -o r.db 2>err
is '--resume-anyway goes on' "$?:$(grep -c 'done: 18 steps' err)" 0:1
ok 'and says so' "grep -q 'goes on with another stream from step 12 on.*--seed 0 of hssl-load, here 7' err"
ok 'in the log as well' "grep -q '\"kind\":\"change\".*\"step\":12,\"what\":\"load_seed\",\"was\":\"0\",\"now\":\"7\"' r.jsonl"
fails 2 'after that the other stream is its own' "stream | hssl-train --resume --epochs 4 -o r.db" '--seed 7 of hssl-load, here 0'
stream '--seed 7' | hssl-train --resume --epochs 4 -o r.db 2>err
is 'and is not asked about again' "$?:$(grep -v -e 'epoch' -e 'lr ' -e 'done: 24' -e 'hssl-train: dino' -e 'yet: waiting for ' err)" 0:
hssl-info --command r.db >out 2>err
ok 'no one command has made it' "[ -s out ] && grep -q 'not made by one command.*load_seed' err && grep -q 'not made by one command.*epochs' err"

cp half.db r.db
"$HSSL_BIN/tests/provenance" --forget r.db
stream '--seed 7' | hssl-train --resume -o r.db 2>err
is 'a run of an older version goes on, with a word' "$?:$(grep -c 'could not be checked' err)" 0:1
fails 1 'and has no command' 'hssl-info --command r.db' 'r.db: begun by an older version'
"$HSSL_BIN/tests/provenance" --tell r.db '{"dataset":"s.db","planner":"hssl-augment","continued_digest":"0"}'
hssl-info --command r.db >out 2>err
is 'a run that tells half of what it began with has one' "$?:$(head -n 1 out)$(cat err)" '0:hssl-load s.db |'

# The commands that made a run.
again() { # RUN: run its command in a place of its own; the digest that comes out
    rm -rf again && mkdir again && cp ./*.db ./*.safetensors again 2>/dev/null
    (cd again && rm -f "$1" && hssl-info --command "../$1" >command 2>command.err && sh ./command >out 2>err)
    digest again/err
}
is 'its command makes the same bits' "$(again whole.db)" "$want"
cp half.db r.db
stream '' | hssl-train --resume -o r.db 2>/dev/null
is 'that of a run that was interrupted, too' "$(again half.db)" "$want"

odd=$(printf "it's a \"new\nline\" \$HOME \\\\n \351\303\251\033[1m.db")
cp s.db "./$odd" && cp s.db ./-dash.db
hssl-load --seed 5 --no-shuffle "$odd" | hssl-augment -j2 --fast $crops --recipe mocov3 --seed 3 --blur-scale 0.1 \
    --global-crops-scale 0.3,0.30000000000000004 --local-crops-scale 0.1,0.3 | HSSL_LR=0.0020000000000000005 HSSL_ISA=avx2 \
    hssl-train $tiny --aux convnext --aux-depth 1 --no-discrepancy --hssl-weight 0.3 --max-bad 1% -o "r $odd" 2>odd.err
other=$(digest odd.err)
is 'with odd names and all kinds of options as well' "$(again "r $odd")" "${other:-none}"
ok 'which are the same to the last digit' "grep -q '0.3,0.30000000000000004' again/command && grep -q -e '--lr 0.0020000000000000005' again/command"
is 'no byte of it commands a terminal' "$(tr -d '\n' <again/command | LC_ALL=C tr -d ' -~\303\251' | od -An -c)" ""
ok 'with the variables that choose kernels' "grep -q 'HSSL_ISA=avx2 hssl-train' again/command"
hssl-load -- -dash.db | hssl-multicrop $crops | hssl-augment | hssl-train $tiny -o dash.db 2>/dev/null
is 'with a name that begins with a dash' "$(again dash.db)" "$want"
ok 'as JSON' "hssl-info --json --command r\ it*.db | grep -q '^{\"file\":.*\"command\":\"hssl-load '"
ok 'hssl-info shows what is known' "hssl-info whole.db | grep -q 'dataset_digest  *[0-9a-f]' && hssl-info --json whole.db | grep -q '\"provenance\":{\"dataset\":\"s.db\"'"
fails 1 'a data set has no command' 'hssl-info --command s.db' 'not a run'

# Longer, or shorter.
cp whole.db longer.db
stream | hssl-train --resume --epochs 6 --log longer.jsonl -o longer.db 2>err
is 'a complete run is trained longer' "$?:$(grep -c 'done: 36 steps' err)" 0:1
ok 'with the change of schedule said' "grep -q 'longer.db: 6 epochs instead of 4: from step 24 on .*learning rate .* would have been' err"
ok 'and logged' "grep -q '\"kind\":\"change\".*\"step\":24,\"what\":\"epochs\",\"was\":\"4\",\"now\":\"6\"' longer.jsonl"
is 'and kept' "$(hssl-info longer.db | sed -n 's/^ *epochs *//p')" 6
ok 'the schedule is that of 6 epochs' "hssl-info --log longer.db | grep '\"step\":30,' | grep -q '\"lr\":.*' && \
    ! grep -q 'another stream' err"
fails 2 'fewer than are done' 'stream | hssl-train --resume --epochs 1 -o half.db' '--epochs 1: half.db has done 12 steps, 6 an epoch: at least 2'
fails 2 'other settings stay' 'stream | hssl-train --resume --epochs 6 --lr 0.1 -o half.db' 'keeps its settings; --continue-from'

# One command to begin and to go on.
once() { stream "$1" | hssl-train --resume $tiny -o once.db 2>err; }
once '--epochs 2'
ok 'a run that is not there begins' "grep -q 'once.db is not there yet: it begins' err && grep -q 'checkpoint of step 12' err"
once
is 'and goes on by the same command' "$(digest err)" "$want"
once
is 'and is complete' "$?:$(grep -c 'once.db is complete' err)" 0:1
"$HSSL_BIN/tests/provenance" --begin whole.db empty.db
stream | hssl-train --resume $tiny -o empty.db 2>err
is 'a run without a checkpoint begins as well' "$(digest err)" "$want"
is 'and knows where it comes from' "$(again empty.db)" "$want"
fails 2 '--resume with --force' "hssl-train --resume --force -o once.db </dev/null" 'exclude each other'
is '--print-config of a run that is not there' "$(hssl-train --print-config --resume -o none.db | grep '^epochs ')" 'epochs = 100  # default'

# Another run's weights.
stream | hssl-train --continue-from whole.db --lr 0.001 --epochs 2 --keep 0 --log next.jsonl -o next.db 2>err
next=$(digest err)
ok 'a new run begins with the weights of another' "[ -n '$next' ] && grep -q 'of whole.db, step 24, digest $want' err"
is 'with its settings, but for those that are given' "$(hssl-info next.db | grep -E '^  (out-dim|lr|epochs) ' | tr -s ' ' | tr '\n' ';')" \
    ' out-dim 32; epochs 2; lr 0.001;'
ok 'and tells which' "hssl-info next.db | grep -q 'continue_from *whole.db' && hssl-info next.db | grep -q 'continued_step *24' && \
    hssl-info next.db | grep -q 'continued_digest *$want' && grep -q '\"continue_from\":\"whole.db\"' next.jsonl"
is 'its command makes it again' "$(again next.db)" "$next"
stream '--epochs 1' | hssl-train --resume --continue-from whole.db --lr 0.001 --epochs 2 -o next2.db 2>/dev/null
mv whole.db away.db
stream | hssl-train --resume --continue-from whole.db --lr 0.001 --epochs 2 -o next2.db 2>err
is 'one command to begin and to go on, also without the other run' "$(digest err)" "$next"
mv away.db whole.db
hssl-info --list --step 0 next.db >step0
hssl-info --list --step 24 whole.db >step24
is 'it has all that the other had' "$(sed 1d step0)" "$(sed 1d step24)"
continue_with() { stream '' "$1" | hssl-train --continue-from whole.db $2 -o x.db; }
fails 2 'another width' "continue_with '' '--dim 32'" 'width 32.*whole.db has one of 16'
fails 2 'other heads' "continue_with '' '--heads 4'" '4 heads'
fails 2 'other prototypes' "continue_with '' '--out-dim 64'" '--out-dim 64: the weights of whole.db are for 32'
fails 2 'an auxiliary head that it lacks' "continue_with '' '--aux convnext'" '--aux convnext: the weights of whole.db are for none'
fails 1 'views of another size' "continue_with '--global-size 24'" 'does not fit: .*whole.db: .*pos_embed.*where'
fails 2 'itself' 'ln -s whole.db link.db; stream | hssl-train --continue-from whole.db --force -o link.db' 'the run to be written'
fails 1 'a run that is not there' 'stream | hssl-train --continue-from none.db -o y.db' 'continue-from: none.db'
"$HSSL_BIN/tests/provenance" --begin whole.db bare.db
fails 1 'a run without a checkpoint' 'stream | hssl-train --continue-from bare.db -o y.db' 'bare.db: it has no checkpoint yet'
fails 2 'a file, too' 'stream | hssl-train --continue-from whole.db --init-from f -o y.db' 'exclude each other'
fails 2 'another than it was begun with' 'stream | hssl-train --resume --continue-from half.db -o next.db' 'begun with whole.db'
cp whole.db kept.db
fails 2 'a log in the other run' 'stream | hssl-train --continue-from kept.db --log kept.db -o y.db' 'log: kept.db is the same file as kept.db'
fails 2 'a log in the run that is not there yet' "stream | hssl-train $tiny --log y.db -o y.db" 'log: y.db is the same file as y.db'
fails 1 'a log that cannot be written' "stream | hssl-train $tiny --log none/l -o y.db" 'log: none/l: No such file'
ok 'what fails leaves no run' '[ ! -e y.db ]'
fails 1 'nor does it replace one' "stream | hssl-train $tiny --force --log none/l -o kept.db" 'log: none/l: No such file'
ok 'all others stay as they were' 'cmp whole.db kept.db'
hssl-export whole.db w.safetensors 2>/dev/null
stream '--epochs 2' | hssl-train --resume $tiny --init-from w.safetensors -o init.db 2>/dev/null
stream | hssl-train --resume $tiny --init-from w.safetensors -o init.db 2>err
init=$(digest err)
is '--init-from begins and goes on by one command, too' "$(again init.db)" "${init:-none}"

# Several ranks.
if mpi_works; then
    cat >rank.sh <<'RANK'
[ "$OMPI_COMM_WORLD_RANK" = 0 ] && seed=0 || seed=$SEED
hssl-load $LOAD --seed $seed s.db | hssl-multicrop --global-size 16 --local 2 --local-size 8 | hssl-augment | hssl-train "$@"
RANK
    ranks() { timeout 120 mpirun -n 2 sh rank.sh "$@"; }
    SEED=0 LOAD= && export SEED LOAD
    ranks $tiny -o two.db 2>err
    two=$(digest err)
    is 'the command of two ranks makes the same bits' "$(again two.db)" "${two:-none}"
    ok 'with mpirun' "grep -q '^mpirun -n 2 sh -c ' again/command"
    SEED=5 fails 2 'a rank with another pipeline' "ranks $tiny -o x2.db || exit 2" 'stream of rank 1 is not that of rank 0: --seed 0 of hssl-load, here 5'
    ok 'leaves no run' '[ ! -e x2.db ]'
    LOAD='--epochs 2' ranks --resume $tiny -o once2.db 2>err
    ok 'two ranks begin a run that is not there' "grep -q 'checkpoint of step 12' err"
    ranks --resume $tiny -o once2.db 2>err
    is 'and go on by the same command' "$(digest err)" "$two"
    cp half.db r.db
    ranks --resume --threads 1 -o r.db 2>err
    ok 'two go on with the run of one: all parts together are its stream' "grep -q 'done: 24 steps' err"
    ranks --continue-from whole.db --epochs 1 --threads 1 -o next3.db 2>err
    ok 'two begin with the weights of another run' "grep -q 'of whole.db, step 24' err && grep -q 'done: 6 steps' err"
else
    skip 'several ranks' 'mpirun or hssl-mpi.so is not there'
fi
done_testing
