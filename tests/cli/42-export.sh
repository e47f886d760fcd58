#!/bin/sh
# From a run to timm's names, and k-NN on a run's weights.
. "$(dirname "$0")/../tap.sh"

headline() {
    sed 's/.*"headline":{[^}]*"top1":\([0-9.]*\).*/\1/'
}

hssl-synth -n 64 -s 32 "$T/d.db"
ok 'a small run' \
    'hssl-load $T/d.db | hssl-multicrop --global-size 16 --local 1 --local-size 8 | hssl-augment -j 1 |
     hssl-train --arch vit_nano --depth 2 --patch-size 4 --global-size 16 --local-size 8 --local-crops 1 \
         --aux convnext --aux-depth 1 --out-dim 32 --head-hidden 32 --head-bottleneck 16 --batch-size 16 --epochs 1 \
         -o $T/run.db'

ok 'exports' 'hssl-export $T/run.db $T/base.safetensors && hssl-info $T/base.safetensors | grep -q "arch = vit_nano"'
hssl-info "$T/base.safetensors" >"$T/info"
for name in cls_token pos_embed patch_embed.proj.weight blocks.0.attn.qkv.weight blocks.1.mlp.fc2.bias norm.weight; do
    ok "has $name" "grep -q ' $name ' $T/info"
done
ok 'and nothing of the heads' '! grep F32 $T/info | grep -qE "aux|head|projection|backbone|teacher"'
ok 'the heads on demand' \
    'hssl-export --with-aux --with-heads $T/run.db $T/all.safetensors && hssl-info $T/all.safetensors >$T/all &&
     grep -q aux.layers.0.dwconv.weight $T/all && grep -q projection.last_layer $T/all'
ok 'the student as well, who differs' \
    'hssl-export --which student $T/run.db $T/s.safetensors && ! cmp -s $T/s.safetensors $T/base.safetensors'
fails 1 'a step without checkpoint' 'hssl-export --step 3 $T/run.db $T/x.safetensors' 'step 3'
ok 'which leaves nothing behind' '[ ! -e $T/x.safetensors ]'
fails 1 'does not overwrite' 'hssl-export $T/run.db $T/s.safetensors' 'force'
ok 'unless told to' 'hssl-export --force $T/run.db $T/s.safetensors && cmp $T/s.safetensors $T/base.safetensors'

ok 'a pipe and a device are written to' \
    'hssl-export $T/run.db /dev/stdout | cmp - $T/base.safetensors && hssl-export $T/run.db /dev/null && [ -c /dev/null ]'
ln -s run.db "$T/alias.db" && ln "$T/run.db" "$T/hard.db"
before=$(cksum <"$T/run.db")
for name in run.db alias.db hard.db run.db-lock; do
    fails 1 "the run itself is not replaced, as $name" "hssl-export -f $T/run.db $T/$name" "$name is the"
done
fails 1 'nor by --dump' 'hssl-knn $T/run.db --train $T/d.db -k 3 --dump $T/hard.db' 'hard.db is the same file'
fails 1 'nor the images' 'hssl-knn $T/run.db --train $T/d.db -k 3 --dump $T/d.db' 'd.db is the same file'
is 'it is as it was' "$(cksum <"$T/run.db")" "$before"
rm "$T/alias.db" "$T/hard.db"
mkdir "$T/links" && echo precious >"$T/victim" && ln -s ../victim "$T/links/x.safetensors"
for suffix in .part .tmp; do ln -s ../victim "$T/links/x.safetensors$suffix"; done
ok 'links in the way are not followed' 'hssl-export -f $T/run.db $T/links/x.safetensors && cmp $T/links/x.safetensors $T/base.safetensors'
is 'whatever their names' "$(cat "$T/victim")" precious

for how in '' '--which student' '--features head' '--random-init' '--step 4' '--image-size 32 --batch-size 5'; do
    ok "k-NN of the run ${how:-as it is}" "hssl-knn $T/run.db $how --train $T/d.db -k 3 --json >$T/j && [ -n \"\$(headline <$T/j)\" ]"
done
ok 'the features are those of the run' 'hssl-knn $T/run.db --train $T/d.db -k 3 | grep -q "teacher base of vit_nano at step 4: 128 values, 16 pixels"'
fails 1 'a size that the patches do not divide' 'hssl-knn $T/run.db --image-size 3 --train $T/d.db' '.'
done_testing
