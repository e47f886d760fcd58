#!/bin/sh
# How files become pixels: EXIF orientation and 16 bits by the rule of a data set, the same for whoever decodes.
. "$(dirname "$0")/../tap.sh"
data=$(cd "$(dirname "$0")/../data" && pwd)
cd "$T" || exit 1

digest() { hssl-info --json "$1" | grep -o '"digest":"[0-9a-f]*"'; }
sizes() { hssl-info --list "$1" | cut -f3 | tr '\n' ' '; }
rule() { hssl-info --json "$1" | grep -o '"turned":[a-z]*,"scaled":[a-z]*'; }
# Checksums of the pixels of all views, in the order of the images, whatever that of their arrival.
sums() { sed -n 's/^{"type":"data".*"id":\([0-9]*\),.*"xxh3":"\([0-9a-f]*\)".*"xxh3":"\([0-9a-f]*\)".*/id \1 xxh3 \2 \3/p' | sort; }
views() { # DATASET [OPTION]...
    db=$1
    shift
    hssl-load --no-shuffle -e1 "$db" | $limit hssl-augment --global-size 16 --local-size 8 "$@" |
        $limit hssl-tap --json --sums 2>&1 >/dev/null | sums
}

# The same pictures: as cameras and instruments store them, and as they are meant.
mkdir -p stored/a stored/b meant/a meant/b
cp "$data/turned.png" stored/a/1.png
cp "$data/deep.png" stored/b/2.png
cp "$data/upright.png" meant/a/1.png
cp "$data/scaled.png" meant/b/2.png
ok 'pictures that are to be turned and scaled go in' 'hssl-import --verify stored stored.db 2>stored.err'
ok 'and those that are as they are meant' 'hssl-import --verify meant meant.db 2>meant.err'
is 'what is done with them is said in one line' "$(sed -n 's/.*among those imported: //p' stored.err)" \
    "1 turned upright as their EXIF orientation says (--no-orientation keeps the file's); 1 of 16 bits, scaled to 8"
ok 'and only there' '! grep -q "among those imported" meant.err'
is 'sizes are those of the upright pictures' "$(sizes stored.db)" "$(sizes meant.db)"
is 'such as these' "$(sizes stored.db)" "9x13 13x9 "
is 'the rule is shown' "$(rule stored.db)" '"turned":true,"scaled":true'
ok 'in words, too' 'hssl-info stored.db | grep -q "pixels: EXIF orientation applied; 16 bits scaled to 8"'
ok 'the bytes are as they were' 'hssl-info --image 0 stored.db | cmp - stored/a/1.png'

views meant.db >want
ok 'there are views' "grep -q 'id 1 xxh3' want"
for how in '' '--fast' '-j2'; do
    is "their views are the same ${how:-in one worker}" "$(views stored.db $how)" "$(views meant.db $how)"
done
is 'also where they are planned before' \
    "$(hssl-load --no-shuffle -e1 stored.db | $limit hssl-multicrop --global-size 16 --local-size 8 | $limit hssl-augment |
        $limit hssl-tap --json --sums 2>&1 >/dev/null | sums)" "$(cat want)"
for set in stored meant; do
    ok "features of $set are made" "$limit hssl-knn --pixels -k 1 --train meant.db --test $set.db --dump $set.st"
done
values() { tail -c +$((9 + $(od -An -tu8 -N8 "$1"))) "$1"; } # of a safetensors file, without its head
ok 'and are the same' 'values stored.st >stored.values; test -s stored.values; values meant.st | cmp - stored.values'
mkdir turned && cp "$data/turned.png" "$data/rotated.jpg" turned
ok 'a forecast can render such' 'hssl-import turned turned.db &&
    $limit hssl-plan --arch vit_nano --seconds 0.5 --batch-size 2 --out-dim 64 --json turned.db | grep -q render'

# The file's own.
ok '--no-orientation' 'hssl-import --no-orientation stored kept.db 2>kept.err'
is 'keeps the file as it is stored' "$(sizes kept.db)" "13x9 13x9 "
is 'and that is said' "$(sed -n 's/.*among those imported: //p' kept.err)" \
    "1 whose EXIF orientation is not applied; 1 of 16 bits, scaled to 8"
is 'and shown' "$(rule kept.db)" '"turned":false,"scaled":true'
ok 'pixels that differ have another digest' 'test "$(digest kept.db)" != "$(digest stored.db)"'
ok 'and other views' 'test "$(views kept.db)" != "$(cat want)"'

# What is added to a data set follows its rule.
mkdir more && cp "$data/rotated.jpg" "$data/alpha.png" more
ok 'an import goes on by the rule that is there' 'hssl-import more kept.db 2>more.err'
is 'which stays' "$(rule kept.db) $(sizes kept.db)" '"turned":false,"scaled":true 13x9 13x9 13x9 16x12 '
is 'and is said' "$(sed -n 's/.*among those imported: //p' more.err)" \
    "1 whose EXIF orientation is not applied; 1 with an alpha channel, which is dropped (RGB as stored)"
fails 1 'an option that contradicts it is an error' 'hssl-import --orientation more kept.db' \
    'kept.db: EXIF orientations are not applied in it, which --orientation contradicts'
fails 1 'either way' 'hssl-import --no-orientation more stored.db' \
    'stored.db: EXIF orientations are applied in it, which --no-orientation contradicts'
ok 'one that agrees is not' 'hssl-import --no-orientation more kept.db'
ok '--force begins anew, with a rule of its own' 'hssl-import -f more kept.db && test "$(rule kept.db)" = "\"turned\":true,\"scaled\":true"'
is 'counts are in the JSON' "$(hssl-import -f --json more kept.db 2>json.err | grep -o '"turned.*"alpha":[0-9]*')" \
    '"turned":1,"scaled":0,"alpha":1'
ok 'a repair leaves the rule' 'hssl-import --repair kept.db && test "$(rule kept.db)" = "\"turned\":true,\"scaled\":true"'

# A digest made before there were rules.
mkdir -p plain/c && cp "$data/good.jpg" "$data/good.png" "$data/gray.jpg" "$data/palette.png" plain/c
hssl-import plain plain.db 2>plain.err
is 'where no pixel changes, neither does the digest' "$(digest plain.db)" '"digest":"c998e635fb06ae97"'
done_testing
