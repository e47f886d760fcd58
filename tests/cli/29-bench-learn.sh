#!/bin/sh
# Learning against the clock, on the processor and for a moment: lines that are JSON, and a figure for each way.
. "$(dirname "$0")/../tap.sh"
here=$(cd "$(dirname "$0")" && pwd)
cd "$T" || exit 1
BENCH_DEVICE=cpu BENCH_RESULTS=$T/lines LEARN_IMAGES=100 LEARN_MINUTES=0.005 LEARN_POINTS=2
LEARN_OPTIONS='--arch vit_nano --dim 16 --depth 1 --heads 1 --out-dim 64 --batch-size 16'
export BENCH_DEVICE BENCH_RESULTS LEARN_IMAGES LEARN_MINUTES LEARN_POINTS LEARN_OPTIONS
$limit sh "$here/../bench/learn.sh" >out 2>err
is 'it ends with 0' "$? $(cat err)" '0 '
ok 'every line is an object' '[ -s lines ] && ! grep -v "^{.*}$" lines'
points() { grep '"bench":"learn-knn","way":"'"$1"'"' lines | grep -c '"top1":[0-9]'; }
ok 'k-NN before, on the way and at the end, and of pixels' \
    '[ $(points pixels) = 1 ] && [ $(points none) -ge 3 ] && [ $(points convnext) -ge 3 ] && [ $(points vit) -ge 3 ]'
is 'each way has its line, with nothing missing' \
    "$(sed -n 's/.*"bench":"learn","way":"\([a-z]*\)".*"images_per_s":[0-9.]*,"planned_images_per_s":[0-9.]*,"first_step_s":[0-9.]*,"waited":[0-9.]*}.*/\1/p' lines | tr '\n' ' ')" \
    'none convnext vit '
ok 'D over the epochs, with a head' '! grep -q "learn-d.*none" lines && grep -q "learn-d.*convnext.*\"d\":[0-9]" lines'
ok 'and a table' 'grep -q "^vit  *k-NN top-1  *[0-9.]* .*D: peak [0-9.]*, end" out && grep -q "^none .*first step after [0-9.]* s" out'
BENCH_RESULTS=$T/none BENCH_DEVICE=cuda:99 $limit sh "$here/../bench/learn.sh" >out 2>err
ok 'a device that is not there is one line, and no results' \
    "[ $? = 1 ] && grep -q '^bench-learn: nothing to train on: .*cuda' err && [ \$(wc -l <err) = 1 ] && [ ! -e none ]"
done_testing
