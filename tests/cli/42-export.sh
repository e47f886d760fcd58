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
meta() { sed -n "s/^  $1 = //p" "$T/info"; }
is "timm's name" "$(meta architecture)" vit_tiny_patch16_224
is 'what the model has otherwise' "$(meta model_args)" \
    '{"img_size":16,"patch_size":4,"embed_dim":128,"depth":2,"num_heads":2,"num_classes":0,"class_token":true,"global_pool":"token"}'
is 'how its images are prepared' "$(meta pretrained_cfg)" \
    "$(printf %s '{"input_size":[3,16,16],"fixed_input_size":true,"interpolation":"bicubic","crop_pct":1,"crop_mode":"center",' \
        '"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225],"num_classes":0,"first_conv":"patch_embed.proj","classifier":"head"}')"
is 'resized to what hssl-knn resizes to' "$(meta resize)" 16
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

# A folder for timm.create_model('local-dir:DIR').
ok 'a folder for timm' 'hssl-export $T/run.db --timm $T/timm'
is 'of two files' "$(ls "$T/timm")" "config.json
model.safetensors"
ok 'the weights are the same' 'cmp $T/timm/model.safetensors $T/base.safetensors'
is 'and so is what is said of them' "$(tr -d ' \n' <"$T/timm/config.json")" \
    "{\"architecture\":\"vit_tiny_patch16_224\",\"num_classes\":0,\"num_features\":128,\"global_pool\":\"token\",\"model_args\":$(meta model_args),\"pretrained_cfg\":$(meta pretrained_cfg)}"
fails 1 'which does not replace one' 'hssl-export $T/run.db --timm $T/timm' 'model.safetensors: there already; --force'
rm "$T/timm/model.safetensors"
fails 1 'nor a part of one' 'hssl-export $T/run.db --timm $T/timm' 'config.json: there already'
is 'and then writes nothing' "$(ls "$T/timm")" config.json
ok 'unless told to' 'hssl-export -f $T/run.db --timm $T/timm && cmp $T/timm/model.safetensors $T/base.safetensors'
fails 1 'one that fails' 'hssl-export --step 3 $T/run.db --timm $T/failed' 'step 3'
ok 'leaves no folder' '[ ! -e $T/failed ]'
fails 1 'a folder within none' 'hssl-export $T/run.db --timm $T/none/timm' 'none/timm'
fails 2 'a folder and a file' 'hssl-export $T/run.db $T/x.safetensors --timm $T/timm2' 'no file'
fails 2 'heads, which timm would not take' 'hssl-export --with-heads $T/run.db --timm $T/timm2' 'base model alone'
fails 2 'neither' 'hssl-export $T/run.db' 'file to write'

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
