#!/bin/sh
# Bad images are kept in the run: named, bounded, once; and the bits are the same however often it is interrupted.
. "$(dirname "$0")/../tap.sh"
data=$(cd "$(dirname "$0")/../data" && pwd)
cd "$T" || exit 1

# Sixteen images, five of them damaged where an import that decodes nothing does not look, under names that a shell, a
# terminal or a path would take amiss.
mkdir -p h/cat h/dog planted
for i in 1 2 3 4 5; do cp "$data/good.jpg" h/cat/$i.jpg; done
for i in cmyk gray progressive rotated pixel; do cp "$data/$i.jpg" h/dog/; done
cp "$data/good.png" h/dog/good.png
size=$(wc -c <"$data/good.png" | tr -d ' ')
plant() { # name, byte
    cp "$data/good.png" "$1" && printf '\125' | dd of="$1" bs=1 seek=$2 conv=notrunc 2>/dev/null
}
plant "h/cat/a b.png" $((size - 20))
plant "h/cat/\$(touch x);'.png" $((size - 21))
plant "h/dog/$(printf 'esc\033[2J\377').png" $((size - 22))
plant "h/dog/-rf.png" $((size - 23))
plant "h/dog/x..png" $((size - 24))
hssl-import h h.db >/dev/null 2>import.err
is 'the folder is imported whole' "$(hssl-info --json h.db | sed 's/.*"images":\([0-9]*\),.*/\1/;q')" 16

tiny="--arch vit_nano --dim 32 --depth 2 --heads 2 --patch-size 4 --head-hidden 32 --head-bottleneck 16 --out-dim 64 \
--aux none --batch-size 4 --epochs 6 --threads 2"
views() { hssl-load ${EPOCHS:+-e $EPOCHS} "${DB:-h.db}" 2>load.err | hssl-multicrop --global-size 16 --local 1 --local-size 8 |
    hssl-augment "$@" 2>augment.err; }
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }

views -j2 | hssl-train $tiny --log a.jsonl -o a.run 2>a.err
is 'training goes through' "$?" 0
want=$(digest a.err)
ok 'it says where to look' "grep -q '5 bad images were replaced: hssl-info --bad a.run' a.err"
hssl-info --bad a.run >list
is 'five are listed' "$(grep -c . list)" 5
hssl-info -l h.db | sed -n 's/^\([0-9]*\)	.*	\(.*\.png\)$/\1	\2/p' | grep -v good.png >planted.list
is 'those that were planted' "$(cut -f1,7 list)" "$(cat planted.list)"
ok 'control characters are not printed' "! grep -q \"$(printf '\033')\" list augment.err"
is 'their bytes and reasons are' "$(cut -f5,6 list | sort -u):$(cut -f8 list | grep -c 'PNG: .')" "$size	$size:5"
is 'JSON is proper' "$(hssl-info --bad --json a.run | perl -MJSON::PP -ne 'decode_json($_)->{why} =~ /PNG/ and $n++; END { print $n }' 2>&1)" 5
ok 'the run as a whole mentions them' "hssl-info a.run | grep -q '5 bad images' && hssl-info --json a.run | grep -q '\"bad\":5'"
is 'the log has each once' "$(grep -c '"kind":"bad"' a.jsonl)" 5
ok 'their checksums are verified' 'hssl-info --verify --bad a.run && hssl-info --verify a.run'

hssl-info --bad --extract out a.run >extracted
is 'extracted' "$(ls out | grep -c .):$(cut -f9 extracted | while read -r f; do [ -f "out/$f" ] && echo y; done | grep -c y)" 5:5
is 'under harmless names' "$(ls out | grep -c '^[0-9]*-[A-Za-z0-9._-]*\.png$')" 5
cut -f1 list | while read -r id; do
    hssl-info --image "$id" h.db | cmp - out/$id-* && for f in h/*/*.png; do cmp -s "$f" out/$id-* && echo same && break; done
done >same
is 'byte by byte what was planted' "$(grep -c same same)" 5
ok 'again, over what is there' 'hssl-info --bad --extract out a.run && [ $(ls -A out | grep -c .) = 5 ]'
before=$(cksum <h.db)
for f in out/*; do ln -sf "$T/h.db" "$f"; done
hssl-info --bad --extract out a.run >/dev/null
is 'a link in the place of a file is replaced, not followed' "$(cksum <h.db):$(find out -type f | grep -c .)" "$before:5"
fails 1 'into what is no directory' 'hssl-info --bad --extract h.db a.run' 'h.db'
fails 2 '--extract alone' 'hssl-info --extract out a.run' 'for --bad'
fails 1 '--bad of a dataset' 'hssl-info --bad h.db' 'not a run'

views -j1 | hssl-train $tiny -o b.run 2>b.err
is 'one worker: the same bits' "$(digest b.err)" "$want"
is 'and the same list' "$(hssl-info --bad b.run)" "$(cat list)"

# Killed in the middle of an epoch, resumed. The stream is too short to let it come to its end before.
EPOCHS=3 views -j1 | sh -c 'echo $$ >c.pid; exec hssl-train "$@"' x $tiny --save-every 3 --log c.jsonl -o c.run 2>c.err &
await c.jsonl '"kind":"checkpoint"' && kill -9 "$(cat c.pid)"
wait
views -j2 | hssl-train --resume --log c2.jsonl -o c.run 2>c.err
is 'killed and resumed: the same bits' "$(digest c.err)" "$want"
is 'and the same list' "$(hssl-info --bad c.run)" "$(cat list)"
ok 'the count goes on' "grep -q '5 bad images were replaced' c.err && grep -q '\"kind\":\"end\".*\"bad\":5' c2.jsonl"

# A bound: reached at the same step, whatever the workers; what was learnt is saved.
views -j2 | hssl-train $tiny --max-bad 20% -o d.run 2>d.err
is 'more than 20 % of 16 images: 1' "$?" 1
ok 'count, limit and remedy are said' \
    "grep -q '4 bad images, and --max-bad allows 20% of 16 = 3: hssl-info --bad d.run lists them; .*raise --max-bad' d.err"
step=$(sed -n 's/.*holds a checkpoint of step \([0-9]*\) of.*/\1/p' d.err)
ok 'with a checkpoint' "[ -n '$step' ]"
views -j1 | hssl-train $tiny --max-bad 3 -o e.run 2>e.err
is 'as a number, with another worker: at the same step' \
    "$(sed -n 's/.*holds a checkpoint of step \([0-9]*\) of.*/\1/p' e.err)" "$step"
is 'four are kept' "$(hssl-info --bad d.run | grep -c .):$(hssl-info --bad e.run | grep -c .)" 4:4
fails 1 'resumed with the same bound: no step is done' 'views -j1 | hssl-train --resume --max-bad 3 -o e.run' '4 bad images'
views -j1 | hssl-train --resume --max-bad 32% -o d.run 2>d.err
is 'resumed with a higher one: the same bits' "$(digest d.err)" "$want"
is 'and the same list' "$(hssl-info --bad d.run)" "$(cat list)"
fails 2 'a bound that is none' "hssl-train --max-bad 1.5 -o x.run" 'percentage'
mkdir bad && cp h/*/*.png bad/ && rm bad/good.png && hssl-import bad bad.db >/dev/null 2>&1
fails 1 'nothing but bad images' "DB=bad.db views -j1 | hssl-train $tiny -o f.run" 'batch 0: all 4 images of it are bad'
is 'are kept, too' "$(hssl-info --bad f.run | grep -c .)" 4
fails 1 'evaluation has the same bound' 'hssl-knn a.run -k 1 --train h.db --max-bad 30%' '5 bad images, and --max-bad allows 30% of 16 = 4'
ok 'in percent or not' 'hssl-knn a.run -k 1 --train h.db --max-bad 5 && hssl-knn a.run -k 1 --train h.db --max-bad 100%'

# Records damaged within the dataset: one whose image no longer has its checksum, one whose head is wrong.
cp h.db damaged.db
hit() { # name, offset from it
    at=$(grep -abo "$1" damaged.db | tail -n 1 | cut -d: -f1)
    printf '\377' | dd of=damaged.db bs=1 seek=$((at + $2)) conv=notrunc 2>/dev/null
}
hit cat/3.jpg $((9 + 1 + 250))
hit dog/gray.jpg -27
DB=damaged.db views -j2 | hssl-train $tiny --batch-size 8 -o g.run 2>g.err
is 'records damaged in the dataset are replaced, too' "$?" 0
is 'each named once' "$(grep -c 'hssl-load: warning: img [0-9]*.*checksum' load.err):$(grep -c 'hssl-load: warning: img [0-9]*.*damaged.*head' load.err)" 1:1
hssl-info --bad --extract g g.run >g.list
is 'and kept' "$(grep -c . g.list):$(cut -f7 g.list | grep -c -e 'cat/3.jpg' -e dog/gray.jpg)" 7:2
is 'with the bytes that can be read' "$(cmp g/*cat_3.jpg h/cat/3.jpg 2>&1 | grep -c differ):$(cmp g/*gray.jpg h/dog/gray.jpg 2>&1)" 1:

# Who evaluates goes on without the same images, within the same bound.
bad() { sed -n 's/.*"bad":\([0-9]*\)[,}].*/\1/p' "$1"; }
names() { grep -c 'warning: image [0-9]*.*: ' "$1"; }
hssl-knn a.run -k 1 --train damaged.db --json >k.json 2>k.err
is 'neighbours: damaged records are left out like other bad images' "$?:$(bad k.json):$(names k.err)" 0:7:7
is 'each is named with its reason' \
    "$(grep -c 'cat/3.jpg.*checksum' k.err):$(grep -c '(dog/gray.jpg).*damaged: the head' k.err)" 1:1
hssl-knn a.run -k 1 --train h.db --test damaged.db --json >k.json 2>k.err
is 'also among the test images of another file' "$?:$(bad k.json):$(names k.err)" 0:12:12
fails 1 'their bound' 'hssl-knn a.run -k 1 --train damaged.db --max-bad 6' '7 bad images, and --max-bad allows 6: .*named above'
views | hssl-train $tiny --aux convnext --aux-depth 1 --epochs 1 -o i.run 2>i.err
hssl-discrepancy i.run h.db >d.json 2>d.err
is 'discrepancy: images that cannot be decoded are left out' "$?:$(bad d.json):$(names d.err)" 0:5:5
hssl-discrepancy --batch-size 3 i.run damaged.db >d.json 2>d.err
is 'and damaged records' "$?:$(bad d.json):$(names d.err):$(sed -n 's/.*"images":\([0-9]*\),.*/\1/p' d.json)" 0:7:7:9
fails 1 'their bound' 'hssl-discrepancy --max-bad 6 i.run damaged.db' '7 bad images, and --max-bad allows 6: .*named above'
fails 1 'in percent' 'hssl-discrepancy --max-bad 40% i.run damaged.db' '7 bad images, and --max-bad allows 40% of 16 = 6'
ok 'reached, or none' 'hssl-discrepancy --max-bad 7 i.run damaged.db && hssl-discrepancy --max-bad -1 i.run damaged.db'
fails 1 'nothing but bad images' 'hssl-discrepancy i.run bad.db' 'no image of it can be used'
ok 'nothing crashed' "! grep -Eq 'Sanitizer|runtime error|Segmentation' *.err"
done_testing
