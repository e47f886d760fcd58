#!/bin/sh
# A folder as people have them: what can't be used is named once, and training goes through with the rest.
. "$(dirname "$0")/../tap.sh"
data=$(cd "$(dirname "$0")/../data" && pwd)
cd "$T" || exit 1

mkdir -p h/cat h/dog h/a.jpg
cp "$data/good.jpg" h/cat/1.jpg
cp "$data/good.png" h/cat/png-inside.jpg
cp "$data/good.jpg" h/a.jpg/below.jpg
for i in cmyk gray progressive rotated pixel gif; do cp "$data/$i.jpg" h/dog/; done
head -c 250 "$data/good.jpg" >h/dog/truncated.jpg
# damaged where an import that decodes nothing does not look
cp "$data/good.png" h/dog/damaged.png
printf '\125' | dd of=h/dog/damaged.png bs=1 seek=$(($(wc -c <"$data/good.png") - 20)) conv=notrunc 2>/dev/null
: >h/dog/empty.jpg
echo 'no picture' >h/cat/text.jpg

hssl-import h h.db 2>import.err
is 'the folder is imported' "$?" 0
for i in empty.jpg text.jpg gif.jpg truncated.jpg; do
    is "$i is named once, with a reason" "$(grep -c "$i: ." import.err)" 1
done

hssl-load h.db | hssl-multicrop --global-size 16 --local 1 --local-size 8 | hssl-augment -j2 2>augment.err |
    hssl-train --arch vit_nano --dim 32 --depth 2 --heads 2 --patch-size 4 --head-hidden 32 --head-bottleneck 16 \
        --out-dim 64 --aux convnext --aux-depth 1 --batch-size 4 --epochs 4 --threads 2 -o h.run 2>train.err
is 'training goes through' "$?" 0
ok 'to its end' "grep -q 'done: ' train.err"
is 'the damaged image is named once over all epochs' "$(grep -c 'damaged.png' augment.err)" 1
ok 'the run evaluates' "hssl-knn h.run -k 3 --train h.db 2>&1 | grep -q 'top-1'"
ok 'nothing crashed' "! grep -Eq 'Sanitizer|runtime error|Segmentation' *.err"
done_testing
