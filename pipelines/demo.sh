#!/bin/sh
# The whole of HSSL on images drawn on the spot: a ViT learns from a ConvNeXt head, without labels and
# without a download, in a few minutes on two cores. Leaves everything in demo/ (or DEMO_DIR).
#
#   make demo                      or, with the tools in PATH:  sh pipelines/demo.sh
#   DEMO_EPOCHS=20 DEMO_IMAGES=8000 make demo
set -eu
dir=${DEMO_DIR:-demo}
images=${DEMO_IMAGES:-4000}
epochs=${DEMO_EPOCHS:-12}
mkdir -p "$dir"
rm -f "$dir"/run.db "$dir"/run.db-lock

say() { printf '\n== %s\n' "$*"; }

say "draw $images labelled images to learn from, and 1000 to test on"
hssl-synth --force -n "$images" --part train "$dir/train.db"
hssl-synth --force -n 1000 --part test "$dir/test.db"

say "look at the views"
hssl-load "$dir/train.db" | hssl-multicrop --global-size 32 --local 2 --local-size 16 |
    hssl-augment | hssl-tap --count 8 --sheet "$dir/views.png" --exit >/dev/null
echo "contact sheet: $dir/views.png"

say "pre-train vit_nano with a ConvNeXt head; the teacher and the discrepancy are processes of their own"
hssl-discrepancy --follow "$dir/run.db" >"$dir/discrepancy.jsonl" &
watcher=$!
trap 'kill $watcher 2>/dev/null || true' EXIT
hssl-load "$dir/train.db" |
    hssl-multicrop --global-size 32 --local 2 --local-size 16 |
    hssl-augment -j 2 |
    hssl-train --arch vit_nano --patch-size 4 --aux convnext --epochs "$epochs" -o "$dir/run.db"
wait $watcher
trap - EXIT

say "k-NN top-1 on the test images"
for source in --pixels --random-init ''; do
    hssl-knn "$dir/run.db" $source --train "$dir/train.db" --test "$dir/test.db"
done

say "discrepancy D between base and head"
hssl-discrepancy --curve "$dir/run.db"

say "the backbone, with timm's names"
hssl-export --force "$dir/run.db" "$dir/vit_nano.safetensors"
echo "contact sheet of the views: $dir/views.png"
