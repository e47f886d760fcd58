#!/bin/sh
# The whole of HSSL on images drawn on the spot: a ViT learns from a ConvNeXt head, without labels and
# without a download, in a few minutes on two cores.
#
#   make demo                      or, with the tools in PATH:  sh pipelines/demo.sh
#   DEMO_EPOCHS=30 DEMO_IMAGES=4000 make demo
#
#   DEMO_DIR=demo       where everything is left; a run that is there is replaced
#   DEMO_IMAGES=2000    images to learn from
#   DEMO_EPOCHS=14      epochs
set -eu
help() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
case $#:${1-} in
0:) ;;
1:--help) help && exit ;;
*) help >&2 && exit 2 ;;
esac
dir=${DEMO_DIR:-demo}
images=${DEMO_IMAGES:-2000}
epochs=${DEMO_EPOCHS:-14}
crops="--global-size 32 --local 2 --local-size 16 --local-crops-scale 0.15,0.4 --blur-scale 0" # vit_nano's own
mkdir -p "$dir"
rm -f "$dir"/run.db "$dir"/run.db-lock

say() { printf '\n== %s\n' "$*"; }

say "draw $images labelled images to learn from, and 1000 to test on"
hssl-synth --force -n "$images" --part train "$dir/train.db"
hssl-synth --force -n 1000 --part test "$dir/test.db"

say "look at the views"
hssl-load "$dir/train.db" | hssl-multicrop $crops | hssl-augment |
    hssl-tap --count 8 --sheet "$dir/views.png" --exit >/dev/null
echo "contact sheet: $dir/views.png"

# The views of a drawn image agree in little but its class, so the teacher's targets must be sharper
# than DINO's default: with a temperature above what the views' agreement supports, training falls to
# uniform targets.
say "pre-train vit_nano with a ConvNeXt head; the teacher and the discrepancy are processes of their own"
hssl-discrepancy --follow "$dir/run.db" >"$dir/discrepancy.jsonl" &
watcher=$!
trap 'kill $watcher 2>/dev/null || true' EXIT
hssl-load "$dir/train.db" |
    hssl-augment -j 2 |
    hssl-train --arch vit_nano --patch-size 8 --aux convnext --epochs "$epochs" --batch-size 64 --lr 5e-3 --out-dim 512 \
        --teacher-temp 0.01 --warmup-teacher-temp 0.01 --center-momentum 0.3 -o "$dir/run.db"
wait $watcher
trap - EXIT

say "k-NN on the test images"
for source in --pixels --random-init ''; do
    hssl-knn "$dir/run.db" $source --train "$dir/train.db" --test "$dir/test.db" | tee "$dir/knn${source:---pre-trained}.txt"
done

say "discrepancy D between base and head"
hssl-discrepancy --curve "$dir/run.db"

hssl-export --force "$dir/run.db" "$dir/vit_nano.safetensors"
top1() { sed -n 's/^top-1 \([0-9.]*\) at.*/\1/p' "$dir/knn$1.txt"; }
say "what came of it"
echo "k-NN top-1, %: pixels $(top1 --pixels), random weights $(top1 --random-init), pre-trained $(top1 --pre-trained)"
echo "backbone with timm's names: $dir/vit_nano.safetensors"
echo "contact sheet of the views: $dir/views.png"
