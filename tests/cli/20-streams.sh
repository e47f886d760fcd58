#!/bin/sh
# Streams that go well, and pipes that are put together wrongly.
. "$(dirname "$0")/../tap.sh"
XDG_RUNTIME_DIR=$T/run
export XDG_RUNTIME_DIR
mkdir "$XDG_RUNTIME_DIR"
hssl-synth -n 60 --size 48 "$T/s.db" 2>/dev/null || exit 1
epoch="hssl-load --epochs 1 $T/s.db"

# The messages of a stream, one JSON object a line, records sorted by seq.
shown() { hssl-tap --json "$@" 2>&1 >/dev/null | sed -n 's/^{"type":"data","seq":\([0-9]*\),/\1 {/p' | sort -n; }

hssl-load --epochs 2 "$T/s.db" | shown >"$T/two"
is 'two epochs are twice the records' "$(grep -c . "$T/two")" 120
is 'sequence numbers run through' "$(cut -d' ' -f1 "$T/two" | tr '\n' ' ')" "$(seq 0 119 | tr '\n' ' ')"
ids() { sed 's/.*"id":\([0-9]*\),.*/\1/'; }
is 'each image once an epoch' "$(head -60 "$T/two" | ids | sort -n | tr '\n' ' ')" "$(seq 0 59 | tr '\n' ' ')"
ok 'the epochs differ in order' "[ \"$(head -60 "$T/two" | ids | cksum)\" != \"$(tail -60 "$T/two" | ids | cksum)\" ]"
is 'the same seed gives the same order' "$($epoch | shown | ids | cksum)" "$(head -60 "$T/two" | ids | cksum)"
ok 'another seed gives another' "[ \"\$($epoch --seed 1 | shown | ids | cksum)\" != \"$(head -60 "$T/two" | ids | cksum)\" ]"
is '--no-shuffle keeps the order' "$($epoch --no-shuffle | shown | ids | tr '\n' ' ')" "$(seq 0 59 | tr '\n' ' ')"
for r in 0 1 2; do $epoch --rank $r --world 3 | shown | ids; done >"$T/ranks"
is 'ranks share an epoch without overlap' "$(sort -n "$T/ranks" | tr '\n' ' ')" "$(seq 0 59 | tr '\n' ' ')"
fails 1 'ranks of which each gets no image' "hssl-load -r 0 -w 100 $T/s.db" '60 images are too few for 100 ranks'
is 'rank 1 of 3 has every third position' "$(sed -n 21p "$T/ranks")" "$(head -60 "$T/two" | ids | sed -n 2p)"

small='--global-size 32 --local-size 16 --local 3'
$epoch | hssl-augment $small | shown --sums >"$T/j1"
is 'augment renders every record' "$(grep -c '"shape":\[2,32,32,3\].*"shape":\[3,16,16,3\]' "$T/j1")" 60
is 'two and five threads give the same pixels' \
    "$($epoch | hssl-augment -j2 $small | shown --sums | cksum) $($epoch | hssl-augment -j5 $small | shown --sums | cksum)" \
    "$(cksum <"$T/j1") $(cksum <"$T/j1")"
unplanned() { sed 's/,"plan":\[\[.*\]\]//'; }
is 'views planned by hssl-multicrop are the same' \
    "$($epoch | hssl-multicrop $small | hssl-augment | shown --sums | unplanned | cksum)" "$(cksum <"$T/j1")"
ok 'another seed gives other pixels' \
    "[ \"\$($epoch | hssl-augment --seed 7 $small | shown --sums | cksum)\" != \"$(cksum <"$T/j1")\" ]"
is 'a tap in the middle changes nothing' "$($epoch | hssl-tap -q | hssl-augment $small | hssl-tap -q | shown --sums | cksum)" \
    "$(cksum <"$T/j1")"
is 'plans can be looked at' "$($epoch | hssl-multicrop | shown | grep -c '"plan":\[\[[0-9]')" 60
ok 'options that plans make void are warned about' \
    "$epoch | hssl-multicrop | hssl-augment --local 2 2>&1 >/dev/null </dev/null | true; \
     $epoch | hssl-multicrop $small | { hssl-augment --local 2 2>$T/w; } | hssl-tap -q >/dev/null; grep -q 'local has no effect' $T/w"

ok 'a contact sheet is a PNG' \
    "hssl-load $T/s.db | hssl-augment $small | hssl-tap --sheet $T/sheet.png --count 4 --exit >/dev/null && file_is_png() { \
     [ \"\$(head -c 8 \$1 | od -An -tx1 | tr -d ' \n')\" = 89504e470d0a1a0a ]; }; file_is_png $T/sheet.png"
ok 'a sheet of fewer images than asked for is written too' \
    "hssl-load --epochs 1 $T/s.db | hssl-augment $small | hssl-tap --sheet $T/all.png --count 100 >/dev/null && [ -s $T/all.png ]"

# A ticket copied elsewhere: no pipe between the two at all.
hssl-load --epochs 1 "$T/s.db" >"$T/ticket" &
load=$!
until [ -s "$T/ticket" ]; do :; done
is 'a ticket in a file serves as well' "$(shown <"$T/ticket" | grep -c .)" 60
wait $load
is 'and the producer ends with its consumer' $? 0

fails 2 'records into what takes views name the program between' "$epoch | hssl-train -o $T/r.db" 'hssl-augment'
fails 2 'views into augment' "$epoch | hssl-augment $small | hssl-augment" 'carries views .*hssl-load or hssl-multicrop'
fails 2 'text on standard input' 'echo some text | hssl-augment' 'is text .*"some text.*hssl-load or hssl-multicrop'
fails 2 'bytes on standard input' "cat $T/s.db | hssl-tap" 'not a stream'
fails 1 'an empty standard input' 'hssl-multicrop </dev/null' 'without a ticket.*hssl-load'
fails 1 'a dataset that is not there' "hssl-load $T/none.db | hssl-augment" 'none.db'
fails 1 'a ticket of another version' 'echo hssl/9 views ipc:///x | hssl-tap' 'hssl/9'
fails 2 'wrong usage' "hssl-load --rank 3 --world 2 $T/s.db" 'rank 3'
fails 2 'a scale that is none' "hssl-augment --global-crops-scale 0.9,0.2" 'scale'
if command -v script >/dev/null; then
    ok 'a terminal on standard input' \
        "script -qec 'hssl-augment; echo rc \$?' /dev/null </dev/null | tr -d '\r' | grep -c -e 'is a terminal: put hssl-load' -e 'rc 2' | grep -qx 2"
    script -qfec "echo \$\$ >$T/tty.pid; exec hssl-load $T/s.db" /dev/null </dev/null >"$T/tty.log" 2>&1 &
    await "$T/tty.log" 'give it to a consumer' && ok 'a ticket on a terminal comes with advice' true
    kill "$(cat "$T/tty.pid")"
    wait $!
else
    skip 'a terminal on standard input' 'script(1) is not installed'
    skip 'a ticket on a terminal comes with advice' 'script(1) is not installed'
fi
is 'nothing is left in the socket directory' "$(ls -A "$XDG_RUNTIME_DIR")" ""
done_testing
