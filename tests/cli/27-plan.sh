#!/bin/sh
# hssl-plan: forecasts by hand-computed numbers, and of this machine.
. "$(dirname "$0")/../tap.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$T" || exit 1

value() { # FILE KEY: the first number or word of this key
    grep -o "\"$2\":\"*[^\",}]*" "$1" | head -1 | sed 's/.*:"*//'
}
stage() { # FILE STAGE KEY
    sed "s/.*\"stage\":\"$2\"//; s/}.*//; s/.*\"$3\":\([^,]*\).*/\1/" "$1"
}

# Round numbers. vit_nano of width 64 and depth 1, patches of 8: views 2 x 16, 4 patches and a token each.
cat >m.json <<'EOF'
{ "name": "by hand", "cores": 4, "memory": 8e9, "decode": 1e8, "render": 1e6, "copy": 1e9, "message": 1e-5,
  "student": 1e9, "teacher": 1e9, "update": 1e9, "busy": 1 }
EOF
model="--arch vit_nano --dim 64 --depth 1 --heads 2 --patch-size 8 --global-size 16 --local 0 --out-dim 100 \
--head-hidden 50 --head-bottleneck 20 --batch-size 10 --epochs 3"
ok 'a forecast from a file' "hssl-plan -m m.json --image-bytes 100000 --image-pixels 500000 -n 105 $model --json >a.json"
is 'of no measurement' "$(value a.json measured)" false
# An image: 2 views of (4 patches x 192 x 64 x 2 + 2 x 5 x 12 x 64^2 + 4 x 5^2 x 64) and 2 rows of
# 2 (64 x 50 + 50 x 50 + 50 x 20 + 20 x 100).
is 'flops of the forward pass' "$(value a.json forward)" 1227248
is 'the teacher has as many' "$(sed 's/.*"flops":{//; s/}.*//; s/.*"teacher":\([^,]*\).*/\1/' a.json)" 1227248
is 'twice as many back, less those of the pixels' "$(value a.json backward)" 2257888
# 30 epochs-steps: 3 epochs of 10 steps of 10 of 105 images.
is 'whole batches' "$(value a.json steps)" 30
# Rendering: 1e-5 + 500000 / 1e8 + 512 / 1e6.
is 'seconds of a worker' "$(stage a.json workers seconds)" 0.005522
is 'images of a worker' "$(stage a.json workers images_per_s)" 181.093807
is 'hssl-load: 1e-5 + 2.5 x 1e5 / 1e9' "$(stage a.json hssl-load seconds)" 0.00026
is 'hssl-augment: 2e-5 + 6.5 x 1e5 / 1e9' "$(stage a.json hssl-augment seconds)" 0.00067
is 'views: 3 bytes a pixel' "$(value a.json views)" 1536
is 'it is the worker that bounds' "$(value a.json bound)" workers
hssl-plan -m m.json --image-bytes 100000 --image-pixels 500000 -n 105 $model -j2 --json >b.json
is 'two workers do not help where hssl-train does less' "$(value b.json bound)" hssl-train
weights=$(value b.json weights)
is 'the step: flops, and 12 passes over the weights' "$(value b.json step_s)" \
    "$(awk "BEGIN { printf \"%.9g\", (10 * (2 * 1227248 + 2257888) + 12 * $weights) / 1e9 }")"
is 'hours' "$(value b.json hours)" "$(awk "BEGIN { printf \"%.9g\", 30 * $(value b.json step_s) / 3600 }")"
hssl-plan -m m.json -n 105 $model --ranks 5 --per-host 5 --json >c.json
is 'five ranks on a host: 2 x 4 / 5 of the weights through a link' "$(value c.json allreduce_s)" \
    "$(awk "BEGIN { printf \"%.9g\", 1.6 * $weights / 2e8 }")"
is 'of two images each' "$(value c.json rank_batch)" 2
ok 'the table says the same' "hssl-plan -m m.json --image-bytes 100000 --image-pixels 500000 -n 105 $model >t &&
    grep -q '1 worker  *181.1 .*bounds it' t && grep -q -e '-j[0-9]* would keep the rest busy' t"
ok 'what does not fit is said' "hssl-plan -m m.json -n 100000 --batch-size 1024 >t && grep -q 'DOES NOT FIT' t"

# The manual's table, with the machine that it is of.
machine=$root/pipelines/machines/gpu8.json
sed -n '/^RANKS/,/^\.Ed/{/^[0-9]/p;}' "$root/man/man7/hssl-scale.7" >table
while read -r ranks batch rest; do
    hssl-plan -m "$machine" --aux convnext --out-dim 8192 --local 10 -j0 --epochs 100 -n 1281167 --ranks "$ranks" \
        --batch-size "$batch" --json >s.json
    got=$(awk -v step="$(value s.json step_s)" -v all="$(value s.json allreduce_s)" -v hid="$(value s.json hidden_s)" \
        -v rate="$(value s.json images_per_s)" -v hours="$(value s.json hours)" -v n="$ranks" \
        -v used="$(stage s.json processors seconds)" 'BEGIN {
        printf "%.1f %.1f %.1f %.0f %.1f %.3g", 1e3 * step, 1e3 * all, 1e3 * hid, rate, used * rate / n, hours }')
    is "hssl-scale(7): $ranks ranks, batch $batch" "$(echo $rest)" "$got"
done <table
ok 'the table was there' '[ -s table ]'

# This machine.
hssl-synth -n 60 -s 48 s.db 2>/dev/null || exit 1
measured="--seconds 1 --arch vit_nano --dim 32 --depth 2 --heads 2 --out-dim 64 --head-hidden 32 --batch-size 8"
ok 'a dataset is rendered, and steps are taken' "$limit hssl-plan $measured --aux convnext -w w.json s.db >t 2>/dev/null"
ok 'all stages are there' 'for s in hssl-load hssl-multicrop hssl-augment worker hssl-train; do grep -q "$s  *[0-9]" t || exit 1; done'
ok 'what was measured makes the same forecast' "hssl-plan $measured --aux convnext -m w.json --json s.db >d.json &&
    [ \$(value d.json images) = 60 ] && [ \$(value d.json measured) = false ]"
ok 'pictures are drawn where there are none' \
    "$limit hssl-plan $measured --images 100 --image-pixels 2000 --recompute --json >e.json && [ \$(value e.json measured) = true ]"
for key in images_per_s hours bound advice workers_wanted fits training stages step flops bytes memory machine; do
    grep -q "\"$key\":" e.json || echo $key
done >missing
is 'JSON has every key' "$(cat missing)" ''

fails 2 'nothing to plan' 'hssl-plan' 'DATASET or --images'
fails 2 'two datasets' 'hssl-plan a.db b.db' 'one DATASET'
fails 2 'a batch that ranks cannot share' 'hssl-plan -m m.json -n 100 --ranks 3' 'not a multiple of --ranks 3'
fails 2 'patches that do not fit' 'hssl-plan -m m.json -n 100 --global-size 30' 'not a multiple of --patch-size'
fails 2 'a recipe that the method does not take' 'hssl-plan -m m.json -n 100 -r mae' '2 global views'
fails 2 'a device that the file is not of' 'hssl-plan -m m.json -n 100 --device cuda' 'processors'
fails 2 'writing what is read' 'hssl-plan -m m.json -w x.json -n 100' 'exclude'
fails 1 'a device that only counts is not for users' 'hssl-plan --device dry,fp32 -n 100' "no device 'dry,fp32'"
fails 1 'no such dataset' 'hssl-plan none.db' 'none.db'
fails 1 'no such machine' 'hssl-plan -m none.json -n 100' 'none.json: No such file'
echo '{"cores": 2}' >bad.json
fails 1 'half a machine' 'hssl-plan -m bad.json -n 100' 'bad.json: memory is missing'
fails 1 'too few images' 'hssl-plan -m m.json -n 10' 'do not make a batch'
fails 1 'nowhere to write' "$limit hssl-plan $measured -w none/x.json s.db" 'none/x.json'
done_testing
