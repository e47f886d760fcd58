#!/bin/sh
# Images that cannot be decoded pass through the pipeline as bad ones, named once; odd ones are rendered.
. "$(dirname "$0")/../tap.sh"
data=$(dirname "$0")/../data
XDG_RUNTIME_DIR=$T/run
export XDG_RUNTIME_DIR
mkdir "$XDG_RUNTIME_DIR" "$T/in"
for f in good.jpg cmyk.jpg gray.jpg progressive.jpg rotated.jpg pixel.jpg palette.png good.png; do
    cp "$data/$f" "$T/in/" || exit 1
done
# Damaged where an import that decodes nothing does not look.
cp "$data/good.png" "$T/in/damaged.png"
printf '\125' | dd of="$T/in/damaged.png" bs=1 seek=$(($(wc -c <"$data/good.png") - 20)) conv=notrunc 2>/dev/null
hssl-import "$T/in" "$T/d.db" >/dev/null 2>&1 || exit 1

hssl-load --epochs 3 "$T/d.db" | hssl-augment -j2 --global-size 32 --local-size 16 2>"$T/err" |
    hssl-tap --json 2>&1 >/dev/null | grep '"type":"data"' >"$T/out"
is 'every record comes through' "$(grep -c . "$T/out")" 27
is 'the damaged one is bad in every epoch' "$(grep -c '"name":"damaged.png","bad":' "$T/out")" 3
size=$(wc -c <"$T/in/damaged.png" | tr -d ' ')
is 'with the bytes it has' "$(grep '"bad"' "$T/out" | grep -c '"name":"image".*"shape":\['"$size"'\]')" 3
is 'no other is' "$(grep -c '"bad"' "$T/out")" 3
is 'it is named once, with the reason' "$(grep -c 'hssl-augment: warning: img [0-9]* (damaged.png): PNG: .*' "$T/err")" 1
ok 'and counted' "grep -q '1 bad image\$' $T/err"
is 'the odd ones have their views' "$(grep -v '"bad"' "$T/out" | grep -c '"shape":\[2,32,32,3\]')" 24
done_testing
