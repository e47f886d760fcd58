#!/bin/sh
# hssl-import: what goes in, what is skipped, and how it goes on after an interruption.
. "$(dirname "$0")/../tap.sh"
data=$(cd "$(dirname "$0")/../data" && pwd)
cd "$T" || exit 1

names() { hssl-info --list "$1" | cut -f5 | sort; }
labels() { hssl-info --list "$1" | cut -f2,5 | sort -k2; }
digest() { hssl-info --json "$1" | grep -o '"digest":"[0-9a-f]*"'; }
images() { hssl-info --json "$1" | sed 's/.*"images":\([0-9]*\),"bytes".*/\1/'; }

# A folder as people have them.
mkdir -p h/cat h/dog h/a.jpg h/.hidden
cp "$data/good.jpg" h/cat/1.jpg
cp "$data/good.jpg" h/flat.jpg
cp "$data/good.png" h/cat/png-inside.jpg
cp "$data/good.jpg" h/cat/jpeg-inside.png
cp "$data/good.jpg" h/cat/none
cp "$data/good.jpg" "h/cat/with space and ünïcode.jpg"
cp "$data/good.jpg" h/a.jpg/below.jpg
cp "$data/good.jpg" h/.hidden/x.jpg
cp "$data/good.jpg" h/cat/.hidden.jpg
for i in cmyk gray progressive rotated pixel; do cp "$data/$i.jpg" h/dog/; done
cp "$data/palette.png" h/dog/
head -c 250 "$data/good.jpg" >h/dog/truncated.jpg
head -c 60 "$data/good.png" >h/dog/truncated.png
head -c 30 "$data/good.jpg" >h/dog/head.jpg
: >h/dog/empty.jpg
echo 'no image at all' >h/dog/text.jpg
cp "$data/gif.jpg" h/dog/
ln -s nowhere h/dog/dangling.jpg
ln -s .. h/dog/up
mkfifo h/dog/pipe.jpg

ok 'a folder with bad images goes through' 'hssl-import h h.db 2>h.err'
is 'the good ones are in' "$(names h.db | tr '\n' ' ')" \
    "a.jpg/below.jpg cat/1.jpg cat/jpeg-inside.png cat/none cat/png-inside.jpg cat/with space and ünïcode.jpg \
dog/cmyk.jpg dog/gray.jpg dog/palette.png dog/pixel.jpg dog/progressive.jpg dog/rotated.jpg flat.jpg "
for bad in dangling.jpg empty.jpg gif.jpg head.jpg pipe.jpg text.jpg truncated.jpg truncated.png; do
    is "dog/$bad is named once, with a reason" "$(grep -c "dog/$bad: ..*; skipped" h.err)" 1
done
is 'and counted' "$(grep -c '13 imported, 0 there already, 8 skipped' h.err)" 1
is 'a class is the folder of an image' "$(labels h.db | sed -n '1p;2p;7p;$p' | tr '\t\n' ' ,')" \
    "0 a.jpg/below.jpg,1 cat/1.jpg,2 dog/cmyk.jpg,-1 flat.jpg,"
is 'width and height are those of the upright picture' \
    "$(hssl-info --list h.db | grep -e rotated -e pixel | cut -f3 | tr '\n' ' ')" "1x1 12x16 "
id=$(hssl-info --list h.db | grep rotated | cut -f1)
ok 'the bytes are as they were' "hssl-info --image $id h.db | cmp - $data/rotated.jpg"
ok 'all checksums are right' 'hssl-info --verify h.db'
fails 1 '--strict: exit 1 if anything was skipped' 'hssl-import --strict h strict.db' '8 skipped'
ok '--strict: exit 0 if nothing was' 'hssl-import --strict h/a.jpg strict0.db'
ok '--verify decodes everything' 'hssl-import --verify -j 2 h verify.db'
is '--verify: the same are good' "$(names verify.db)" "$(names h.db)"
# An image is whole if all its pixels are there.
mkdir whole short
for i in good.jpg progressive.jpg; do
    size=$(stat -c %s "$data/$i")
    head -c $((size - 2)) "$data/$i" >"whole/noend-$i" # without the end marker
    head -c $((size - 3)) "$data/$i" >"short/$i"
    { cat "$data/$i"; echo 'other bytes'; } >"whole/more-$i"
done
size=$(stat -c %s "$data/good.png")
head -c $((size - 12)) "$data/good.png" >whole/noend.png       # without the end chunk
head -c $((size - 12 - 8)) "$data/good.png" >whole/nosum.png   # without checksums of chunk and data
head -c $((size - 12 - 12)) "$data/good.png" >short/good.png
{ cat "$data/good.png"; echo 'other bytes'; } >whole/more.png
for how in '' --verify; do
    ok "images without their ends, or more behind them, are good ${how:-without --verify}" \
        "hssl-import -f --strict $how whole ends.db && test \$(names ends.db | wc -l) = 7"
    ok "those that lack pixels are not ${how:-without --verify}" \
        "! hssl-import -f $how short short.db 2>short.err && test \$(grep -c truncated short.err) = 3"
done
fails 1 'nothing to import is a failure' 'mkdir none; echo x >none/x.jpg; hssl-import none none.db' 'no image to import'
ok 'and leaves no dataset' 'test ! -e none.db'
ok 'the digest is that of what is in it' \
    'hssl-import h again.db; test -n "$(digest h.db)" && test "$(digest again.db)" = "$(digest h.db)" && test "$(digest verify.db)" = "$(digest h.db)"'
ok 'so other labels have another' 'hssl-import --labels none h bare.db; test "$(digest bare.db)" != "$(digest h.db)"'
ok '--labels none' 'hssl-import --labels none h nolabels.db && test "$(hssl-info --list nolabels.db | cut -f2 | sort -u)" = -1'

# The other sources give the same.
mkdir -p p && cp -r h/cat h/a.jpg h/dog p/ && rm -f p/dog/pipe.jpg p/dog/dangling.jpg p/dog/up
hssl-import p p.db 2>p.err
tar c -C p . | hssl-import - tar.db 2>tar.err
is 'tar on standard input' "$(labels tar.db)" "$(labels p.db)"
is 'tar: the same are skipped' "$(grep -o 'dog.*skipped' tar.err | sort)" "$(grep -o 'dog.*skipped' p.err | sort)"
tar czf p.tar.gz p && hssl-import p.tar.gz targz.db 2>/dev/null
is 'compressed tar as a file' "$(names targz.db | sed 's|^p/||')" "$(names p.db)"
(cd p && find cat dog a.jpg -type f ! -name '.*' | hssl-import - ../list.db 2>/dev/null)
is 'list of files' "$(labels list.db)" "$(labels p.db)"
(cd p && find cat dog a.jpg -type f ! -name '.*' -print0 | hssl-import -0 - ../list0.db 2>/dev/null)
is 'list of files with zero bytes' "$(labels list0.db)" "$(labels p.db)"
fails 1 'zero bytes without -0' 'find p/cat -type f -print0 | hssl-import - x.db' 'give -0'
fails 1 'lines with -0' 'printf "a\nb\n" | hssl-import -0 - x.db' 'leave out -0'
fails 1 'nothing on standard input' 'hssl-import - x.db </dev/null' 'nothing there'
tar cf p.tar p && head -c 3000 p.tar >cut.tar
fails 1 'a truncated tar is an error, what was read stays' 'hssl-import cut.tar cut.db' 'cut.tar: .*is stored'
ok 'a hostile tar ends in an error' 'perl -e "print \"x/\" . \"A\" x 255, \"ustar\\0\", \"\\377\" x 4000" >bad.tar; ! hssl-import bad.tar x.db'

ok 'links of a tar are named' 'tar c h/dog/up h/dog/dangling.jpg h/cat | hssl-import - links.db 2>&1 | grep -c "a link" | grep -qx 2'

# CIFAR: two records of each kind.
mkdir c10 c100
perl -e 'for $i (1..2) { print pack("C", $i - 1), pack("C*", map { ($_ * 7 + $i) % 256 } 0..3071) }' >c10/data_batch_1.bin
perl -e 'print pack("C", 9), "\0" x 3072' >c10/data_batch_2.bin
cp c10/data_batch_2.bin c10/test_batch.bin
printf 'airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n' >c10/batches.meta.txt
perl -e 'print pack("CC", 3, 77), "\1" x 3072, pack("CC", 3, 200), "\1" x 3072' >c100/train.bin
ok 'CIFAR-10, training images of a folder' 'hssl-import c10 c10.db'
is 'CIFAR-10: names and classes' "$(hssl-info --list c10.db | cut -f2,3,5 | tr '\t\n' ' ,')" \
    "0 32x32 data_batch_1/00000.png,1 32x32 data_batch_1/00001.png,2 32x32 data_batch_2/00000.png,"
ok 'CIFAR-10, the test file' 'hssl-import c10/test_batch.bin c10t.db && hssl-info c10t.db | grep -q "0  truck"'
ok 'CIFAR-100, and a label out of range' 'hssl-import c100 c100.db 2>&1 | grep "label is 200" && hssl-info c100.db | grep -q "0  77"'

# Some of many.
mkdir -p m/a m/b
perl -e 'for $c ("a", "b") { link($ARGV[0], "m/$c/$_.jpg") || die for 1000..($c eq "a" ? 6999 : 3999) }' h/flat.jpg
hssl-import -n 90 m lim.db 2>/dev/null
is '--limit spreads over the classes' "$(hssl-info lim.db | grep '^  .[^a-z]*[ab] ' | awk '{print $3}' | tr '\n' ' ')" "60 30 "
hssl-import -n 90 m lim.db 2>/dev/null
is '--limit: the same ones again' "$(images lim.db)" 90
hssl-import --per-class 7 m per.db 2>/dev/null
is '--per-class' "$(names per.db | wc -l)$(names per.db | tail -n 1)" "14b/1006.jpg"
tar c --hard-dereference m/a | hssl-import -n 300 - limtar.db 2>/dev/null
is '--limit of a stream: the first ones' "$(images limtar.db)" 300

# Interrupted, and started again. The list stays open, so the import can't be ready before it is stopped.
find m -name '*.jpg' | sort | hssl-import - whole.db 2>/dev/null
mkfifo list
for signal in KILL TERM HUP; do
    rm -f int.db int.db-lock
    # A signal that is ignored from the start stays ignored, as SIGHUP is under nohup.
    env --default-signal=HUP hssl-import - int.db <list >/dev/null 2>&1 &
    pid=$!
    exec 9>list
    find m -name '*.jpg' | sort >&9
    until_true 'n=$(images int.db 2>/dev/null) && [ "${n:-0}" -ge 4000 ]'
    kill -$signal $pid
    wait $pid 2>/dev/null
    status=$?
    exec 9>&-
    case $signal in KILL) want=137 ;; TERM) want=143 ;; HUP) want=129 ;; esac
    is "$signal: exit status" $status $want
    ok "$signal: what is stored is sound" 'hssl-info --verify int.db'
    find m -name '*.jpg' | sort | hssl-import --json - int.db >int.json 2>/dev/null
    is "$signal: started again, it continues" "$(images int.db) $(grep -c '"present":0' int.json)" "9000 0"
    ok "$signal: and all is sound" 'hssl-info --verify int.db'
    is "$signal: its digest is that of an import in one go" "$(digest int.db)" "$(digest whole.db)"
done

# A new data set takes an old one's place when it is whole.
hssl-import h old.db 2>/dev/null
old=$(hssl-info --json old.db)
for signal in KILL TERM; do
    hssl-import -f - old.db <list >/dev/null 2>force.err &
    pid=$!
    exec 9>list
    find m -name '*.jpg' | sort >&9
    until_true '[ "$(stat -c %s .old.db.hssl-new 2>/dev/null || echo 0)" -gt 1000000 ]'
    kill -$signal $pid
    wait $pid 2>/dev/null
    exec 9>&-
    is "--force, $signal in the middle: the old data set is as it was" "$(hssl-info --json old.db)" "$old"
done
ok 'and that is said' "grep -q 'old.db is as it was' force.err"
ok 'nothing stays beside it' '[ ! -e .old.db.hssl-new ]'
{ find m -name '*.jpg' | sort | head -500; printf 'a\0b\n'; } >broken
fails 1 '--force of a source that breaks off' 'hssl-import -f - old.db <broken' 'zero byte'
is 'leaves it as well' "$(hssl-info --json old.db)" "$old"

fails 2 'operands are wanted' 'hssl-import h' 'SOURCE and an OUT.db'
fails 1 'a source that is not there' 'hssl-import nosuch x.db' 'nosuch: no such file'
fails 1 'another file is not overwritten' 'echo text >text; hssl-import h/cat text' 'text: not a dataset'
fails 1 'not even with --force' 'hssl-import --force h/cat text' 'text: not a dataset.*not replaced'
is 'it is as it was' "$(cat text)" text
fails 1 'a folder that is not there' 'hssl-import h/cat nosuch/x.db' 'nosuch/x.db: No such file or directory'
ok '--force starts anew' 'hssl-import --force h/cat h.db && test "$(images h.db)" = 5'
ok 'no temporary or dataset is left by failures' 'test ! -e x.db'
fails 1 'a full disk is an error' 'ulimit -f 200; trap "" XFSZ; hssl-import m full.db' 'full.db: '
done_testing
