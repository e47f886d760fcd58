#!/bin/sh
# hssl-train --init-from: what others have trained, of another size, under other names, in another format.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1

hssl-synth -n 8 -s 24 s.db 2>/dev/null || exit 1
begin() { # SIZE OPTIONS...: train for an epoch
    size=$1
    shift
    hssl-load s.db 2>/dev/null | hssl-multicrop --global-size "$size" --local 0 2>/dev/null | hssl-augment -j1 2>/dev/null |
        hssl-train --arch vit_nano --dim 32 --depth 2 --heads 2 --patch-size 4 --head-hidden 32 --head-bottleneck 16 \
            --out-dim 32 --batch-size 4 --epochs 1 --threads 1 --keep 0 --force "$@"
}
contents() { # of an export, without what differs by name
    hssl-info "$1" | grep -E 'F32'
}

begin 16 -o a.db 2>err && hssl-export a.db a.safetensors
ok 'weights to begin with' '[ -s a.safetensors ]'

begin 16 --init-from a.safetensors -o b.db 2>b.err
is 'of the same size: taken as they are' "$?:$(grep -c resized b.err)" 0:0
ok 'it says how many' "grep -q 'base model from a.safetensors: 30 tensors\$' b.err"
hssl-export --step 0 b.db b.safetensors
size=$(wc -c <a.safetensors) data=$(hssl-info --json a.safetensors | sed 's/.*"bytes":\([0-9]*\).*/\1/')
ok 'there is data' "[ '$data' -gt 1000 ] && [ '$size' -gt '$data' ]"
is 'the first checkpoint has its very values' "$(tail -c "$data" b.safetensors | cksum)" "$(tail -c "$data" a.safetensors | cksum)"

begin 24 --init-from a.safetensors -o c.db 2>c.err
is 'of another size: begins' "$?" 0
ok 'it says what was resized' "grep -q 'position embedding resized from 4 x 4 to 6 x 6 patches (bicubic)' c.err"
hssl-export --step 0 c.db c.safetensors
is 'the position embedding has the new size' "$(contents c.safetensors | grep pos_embed | tr -d ' ')" 'pos_embedF32[1,37,32]'
is 'all else has the shape it had' "$(contents c.safetensors | grep -v pos_embed)" "$(contents a.safetensors | grep -v pos_embed)"

hssl-export --with-heads a.db heads.safetensors
begin 16 --init-from heads.safetensors -o d.db 2>d.err
is 'heads in the file: begins' "$?" 0
ok 'they are counted' "grep -q '30 tensors; [1-9][0-9]* others, such as projection\.' d.err"

# What does not fit is named once, with what is nearest or wanted.
fails 1 'a deeper model' 'begin 16 --depth 3 --init-from a.safetensors -o x.db' \
    ' --init-from: a.safetensors: no tensor blocks\.2\.[a-z0-9.]*, .*--depth has; the nearest of 30 is blocks\.[01]\.'
fails 1 'another patch' 'begin 16 --patch-size 8 --init-from a.safetensors -o x.db' \
    'patch_embed.proj.weight: is F32 \[32,3,4,4\] where F32 \[32,3,8,8\] is wanted \(see --arch, --dim and --patch-size\)'
fails 1 'a file that is not there' 'begin 16 --init-from none -o x.db' ' --init-from: none: no such file'

# Pickles as torch.save wrote them before and after 1.6, as far as they are looked at.
printf '\200\002\212\012\154\374\234\106\371\040\152\250\120\031.\200\002M\351\003.' >old.pth
printf 'PK\003\004\000\000\010\010\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\020\000\000\000archive/data.pkl' >"a model.pth"
fails 1 'an old pickle' 'begin 16 --init-from old.pth -o x.db' \
    "old.pth: a PyTorch pickle.*python3 -c 'import .*weights_only=True.*save_file.*' old.pth weights.safetensors\$"
fails 1 'a newer one, and its name for a shell' 'begin 16 --init-from "a model.pth" -o x.db' "' 'a model.pth' weights.safetensors\$"
fails 1 'hssl-info knows one, too' 'hssl-info old.pth' "a PyTorch pickle.*python3 -c '"
long=$(printf '%0120d' 0)
printf 'PK\003\004\000\000\010\010\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\201\000\000\000%s/data.pkl' "$long" >"$long.pth"
fails 1 'and one with a long name, which torch.save writes into it' 'hssl-info $long.pth' "a PyTorch pickle.*' $long.pth weights.safetensors\$"
mkdir -p "$long/$long" && cp old.pth "$long/$long/$long.pth"
fails 1 'a path with no room beside the command leaves that whole' 'hssl-info $long/$long/$long.pth' "a PyTorch pickle.*' FILE weights.safetensors\$"
ok 'a failed start leaves no run' '[ ! -e x.db ]'
done_testing
