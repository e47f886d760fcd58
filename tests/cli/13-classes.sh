#!/bin/sh
# hssl-import: which class an image gets, from folders, from .cls files, from a table; what is said of it.
. "$(dirname "$0")/../tap.sh"
data=$(cd "$(dirname "$0")/../data" && pwd)
cd "$T" || exit 1

classes() { hssl-info --json "$1" | grep -o '"label":[0-9]*,"name":"[^"]*"' | sed 's/"label":\([0-9]*\),"name":"\(.*\)"/\1=\2/' | tr '\n' ' '; }
labels() { hssl-info --list "$1" | cut -f2,5 | sort -k2 | tr '\t\n' ' ,'; }
digest() { hssl-info --json "$1" | grep -o '"digest":"[0-9a-f]*"'; }
images() { hssl-info --json "$1" | sed 's/.*"images":\([0-9]*\),"bytes".*/\1/'; }
put() { # file...
    for file; do
        mkdir -p "$(dirname "$file")" && cp "$data/good.jpg" "$file" || exit 1
    done
}

# ---- folders

put tiny/n2/images/a.jpg tiny/n1/images/a.jpg tiny/n1/images/b.jpg tiny/n3/images/a.jpg
echo boxes >tiny/n1/n1_boxes.txt
ok 'CLASS/images/x.jpg' 'hssl-import tiny tiny.db 2>tiny.err'
is 'the class is the first folder' "$(labels tiny.db)" "0 n1/images/a.jpg,0 n1/images/b.jpg,1 n2/images/a.jpg,2 n3/images/a.jpg,"
ok 'no level is spoken of where all is well' '! grep level tiny.err'
hssl-import --class-level -1 tiny inner.db 2>inner.err
is '--class-level -1: the innermost' "$(classes inner.db)" "0=images "
is 'a single class is warned of, with the level' "$(grep -c 'only one class, "images", .* at level -1: -f with --class-level N' inner.err)" 1
hssl-import --class-level 1 tiny inner.db 2>again.err
is 'another level: images that are there keep their class, which is told' "$(classes inner.db)$(grep -c '4 images are there already with another class, .*-f .*first: n1/images/a.jpg' again.err)" "0=images 1"
hssl-import -f --class-level 1 tiny inner.db 2>again.err
is 'with -f they get it' "$(labels inner.db) $(grep -c class again.err)" "$(labels tiny.db) 1"
hssl-import tiny tiny.db 2>again.err
is 'the same again: nothing of this' "$(grep -c 'another class' again.err)" 0
hssl-import --class-level=2 tiny second.db 2>/dev/null
is '--class-level 2' "$(classes second.db)" "0=images "
hssl-import --class-level 3 tiny third.db 2>third.err
is '--class-level 3: there is none' "$(classes third.db)$(grep -c 'no classes, .* no folder at level 3' third.err)" 1
hssl-import --labels none tiny none.db 2>none.err
is '--labels none: nothing is warned of' "$(classes none.db)$(grep -c 'no classes' none.err)" 0
mkdir parent && cp -r tiny parent/train && echo x >parent/words.txt
hssl-import parent parent.db 2>parent.err
is 'a folder that holds all images is passed over' "$(classes parent.db)" "0=n1 1=n2 2=n3 "
cp -r tiny parent/val
hssl-import parent parts.db 2>parts.err
is 'parts of a data set become classes' "$(classes parts.db)" "0=train 1=val "
is 'which is warned of' "$(grep -c 'as "val", look like parts of a data set: .*-f --class-level 2' parts.err)" 1
hssl-import --class-level 2 parent parts2.db 2>parts2.err
is 'the level that the warning names' "$(classes parts2.db)$(grep -c level parts2.err)" "0=n1 1=n2 2=n3 0"

# ---- tars and lists
tar cf inside.tar -C tiny . && tar czf packed.tar.gz tiny
hssl-import inside.tar inside.db 2>/dev/null
is 'a tar has the classes of its folder' "$(labels inside.db)" "$(labels tiny.db)"
hssl-import packed.tar.gz packed.db 2>/dev/null
is 'one with the folder around it, too' "$(labels packed.db | sed 's|tiny/||g')" "$(labels tiny.db)"
hssl-import - packed2.db <packed.tar.gz 2>/dev/null
is 'a file on standard input as well' "$(labels packed2.db)" "$(labels packed.db)"
cat inside.tar | hssl-import - piped.db 2>piped.err
is 'what comes through a pipe has the innermost folder' "$(classes piped.db)$(grep -c 'one class, "images", .* level -1' piped.err)" "0=images 1"
cat inside.tar | hssl-import --class-level 1 - piped1.db 2>/dev/null
is 'or that of --class-level' "$(labels piped1.db)" "$(labels tiny.db)"
find tiny -name '*.jpg' | sort | hssl-import --class-level 2 - list.db 2>/dev/null
is 'a list, too' "$(classes list.db)" "0=n1 1=n2 2=n3 "

fails 2 '--class-level is for folders: not of a table' 'hssl-import --class-level 1 --labels x.csv tiny x.db' 'takes others'
fails 2 'nor of CIFAR' 'head -c 3073 /dev/zero >c.bin; hssl-import --class-level 1 c.bin x.db' 'bring their classes'
fails 2 '--labels cls is for tars and folders' 'echo a | hssl-import --labels cls - x.db' 'list of files'
ok 'none of these left a dataset' '[ ! -e x.db ]'

# ---- what is skipped

long=$(printf '%05000d' 0)
put long/a/1.jpg long/big.jpg long/b/big.jpg long/c/3.jpg
tar cf long.tar --format=pax -C long --transform "s,^big,$long/2," --transform "s,^b/big,b/$long," a big.jpg b c
ok 'a class name that is too long does not end the import' 'hssl-import --strict long.tar long.db 2>long.err; [ $? = 1 ]'
is 'the image is skipped, named and counted' "$(grep -c '00\.\.\.00.*/2.jpg: a name of 5006 bytes; .*skipped$' long.err) $(grep -c '2 imported, .* 2 skipped' long.err)" "1 1"
is 'its name is shortened' "$(awk 'length > 400' long.err)" ""
is 'a class without images takes no label' "$(classes long.db)" "0=a 1=c "
{ echo "1.jpg,a"; echo "3.jpg,b$long"; echo "big.jpg,"; } >long.csv
hssl-import --labels long.csv long longcsv.db 2>longcsv.err
is 'nor does one whose name is too long' "$(classes longcsv.db)$(grep -c '3.jpg: a class name of 5001 bytes' longcsv.err)" "0=a 1"

# The same after a kill. The pipe stays open, so the import can't be ready before.
mkdir -p many/y many/z
perl -e 'for (1000..5999) { my $c = $_ % 2 ? "y" : "z"; link("long/a/1.jpg", "many/$c/$_.jpg") || die }'
tar cf many.tar --format=pax --hard-dereference --sort=name --transform "s,^long/b/big,b/$long," long/b/big.jpg long/c many
cat many.tar | hssl-import - whole.db 2>/dev/null
mkfifo pipe
hssl-import - killed.db <pipe >/dev/null 2>&1 &
pid=$!
exec 9>pipe
head -c $(($(wc -c <many.tar) - 300000)) many.tar >&9
until_true 'n=$(images killed.db 2>/dev/null) && [ "${n:-0}" -ge 4000 ]'
kill -KILL $pid
wait $pid 2>/dev/null
exec 9>&-
cat many.tar | hssl-import --json - killed.db >killed.json 2>/dev/null
is 'killed and started again: it went on' "$(images killed.db) $(grep -c '"present":0' killed.json)" "5001 0"
is 'the classes are those of an import in one go' "$(classes killed.db)" "0=c 1=y 2=z "
is 'all of it is' "$(classes whole.db)$(digest killed.db)" "$(classes killed.db)$(digest whole.db)"

mkdir junk && put junk/good.jpg
for i in 1 2 3 4 5 6 7 8 9; do
    for k in 0 1 2 3 4 5 6 7 8 9; do echo text >junk/$i$k.txt; head -c $((180 + $i$k)) "$data/good.jpg" >junk/$i$k.jpg; done
done
hssl-import junk junk.db 2>junk.err
is 'of many skipped for one reason some are named' "$(grep -c 'txt: neither JPEG nor PNG; skipped' junk.err)" 5
is 'and the rest is counted' "$(grep -c '85 more were skipped: neither JPEG nor PNG' junk.err)" 1
ok 'reasons that differ in numbers are one' '[ $(wc -l <junk.err) -lt 30 ]'
is 'the total counts all' "$(grep -c '1 imported, 0 there already, 180 skipped' junk.err)" 1
is 'HSSL_DEBUG=import names all' "$(HSSL_DEBUG=import hssl-import -f junk junk.db 2>&1 | grep -c 'skipped$')" 181

# Eight folders with links to each other.
for i in 1 2 3 4 5 6 7 8; do
    put cross/d$i/$i.jpg
    for k in 1 2 3 4 5 6 7 8; do ln -s ../d$k cross/d$i/to$k; done
    ln -s ../d1/1.jpg cross/d$i/same.jpg
done
hssl-import cross cross.db 2>cross.err
is 'a folder is read once, a file under each of its names' "$(images cross.db) $(classes cross.db)" "16 0=d1 1=d2 2=d3 3=d4 4=d5 5=d6 6=d7 7=d8 "
is 'other ways to it are counted in one line' "$(grep -c '64 links to folders that are read on another way' cross.err) $(wc -l <cross.err)" "1 2"
put pool/x/1.jpg pool/y/2.jpg && ln -s ../y pool/x/toy && ln -s .. pool/y/up
mkdir farm && ln -s ../pool/x farm/a && ln -s ../pool/y farm/b && ln -s ../pool/x farm/c && ln -s ../../pool/y/2.jpg farm/3.jpg
hssl-import farm farm.db 2>farm.err
is 'links to folders elsewhere are followed, to each once, with the fewest links' "$(labels farm.db)" "0 a/1.jpg,1 b/2.jpg,"
is 'and all of it is told' "$(grep -c '3.jpg: No such file' farm.err) $(grep -c 'hssl-import: warning: 4 links to folders' farm.err)" "1 1"

# ---- .cls beside the images
put shard/0.jpg shard/1.jpg shard/2.jpg shard/3.left.jpg shard/3.right.jpg
echo 10 >shard/0.cls; printf 2 >shard/1.cls; echo -1 >shard/2.cls; echo 0 >shard/3.cls
tar cf shard.tar --sort=name -C shard . && ls shard | sort -r | tar cf turned.tar -C shard -T -
want="10 0.jpg,2 1.jpg,-1 2.jpg,0 3.left.jpg,0 3.right.jpg,"
for source in shard shard.tar turned.tar; do
    hssl-import --strict $source $source.db 2>$source.err || cat $source.err
    is "$source: labels are the numbers in .cls" "$(labels $source.db)" "$want"
done
cat shard.tar | hssl-import - pipe.db 2>/dev/null
is 'through a pipe as well' "$(labels pipe.db)" "$want"
hssl-info --json shard.db >shard.json
ok 'numbers without images are shown as such' 'grep -q "\"label\":9,\"name\":\"9\",\"images\":0" shard.json'
hssl-import shard.tar shard.db 2>twice.err
is 'all there already: --prefix is named' "$(grep -c '0 imported, 5 there already (other images of the same names want --prefix), 0 skipped' twice.err)" 1
hssl-import --prefix 1/ shard.tar shard.db 2>/dev/null
is '--prefix takes them in' "$(labels shard.db | sed 's/,/\n/g' | grep -c ' 1/')" 5
ok 'all of it is sound' 'hssl-info --verify shard.db'
mkdir shards
cp shard.tar shards/0.tar
fails 1 'a folder of tars says what they are' 'hssl-import shards s.db' '0.tar: a tar, to be imported by itself'
(mkdir again && cd again && tar xf ../shard.tar && find . -type f | while read -r f; do mv "$f" "$(dirname "$f")/z$(basename "$f")"; done &&
    tar cf ../again.tar .)
cat shard.tar again.tar >both.tar
hssl-import - both.db <both.tar 2>/dev/null
hssl-import both.tar both2.db 2>/dev/null
is 'tars behind one another, by a pipe and from a file' "$(images both.db) $(images both2.db)" '10 10'
is 'a picture as SOURCE' "$(hssl-import "$(find tiny -name '*.jpg' | head -n 1)" p.db 2>&1 | grep -c 'an image; a SOURCE is a folder, a tar or a list: printf')" 1
fails 2 'pictures as operands' 'hssl-import a.jpg b.jpg p.db' 'one SOURCE and an OUT.db are wanted; many files: printf'
hssl-import tiny shard.db 2>mixed.err
is 'named classes do not go among numbers' "$(images shard.db) $(grep -c 'its class is n[0-9], those of shard.db are numbers' mixed.err)" "10 4"
hssl-import shard.tar tiny.db 2>mixed.err
is 'nor numbers among names; without a class they do' "$(images tiny.db) $(grep -c 'its class is a number, those of tiny.db have names' mixed.err)" "5 4"
put named/k/a.jpg named/k/b.jpg named/k/c.jpg
echo cat >named/k/a.cls; printf 'a\nb' >named/k/b.cls
hssl-import named named.db 2>named.err
is 'a name in .cls is a class; without one it is the folder' "$(labels named.db)" "0 k/a.jpg,1 k/c.jpg,"
is 'which is told where others have one' "$(grep -c 'warning: 1 image without a .cls beside it, .* of its folder .*first: k/c.jpg' named.err)" 1
put dark/e.jpg dark/f.jpg && mkdir dark/f.cls && ln -s nowhere dark/e.cls && hssl-import dark dark.db 2>dark.err
is 'one that is not there is not overlooked' "$(images dark.db) $(grep -c 'e.jpg: its .cls can.t be read' dark.err)" "1 1"
is 'one that is neither is named' "$(grep -c 'k/b.jpg: its .cls .* holds neither' named.err)" 1
hssl-import --labels cls named cls.db 2>cls.err
is '--labels cls: no folders' "$(labels cls.db)$(grep -c '1 image without a .cls .*first: k/c.jpg' cls.err)" "0 k/a.jpg,-1 k/c.jpg,1"
hssl-import --labels folder shard folder.db 2>/dev/null
is '--labels folder: no .cls' "$(classes folder.db)$(images folder.db)" 5

# ---- a table
cat >t.csv <<'CSV'
id,split,label
"0.jpg",train,10
x/1,val,3
3.left,val,2
9.jpg,val,1
CSV
hssl-import --labels t.csv shard table.db 2>table.err
is 'labels are the numbers in the table' "$(labels table.db)" "10 0.jpg,-1 1.jpg,-1 2.jpg,2 3.left.jpg,-1 3.right.jpg,"
is 'images without a row: one line' "$(grep -c '3 images without a row in t.csv, and so without a class; the first: 1.jpg' table.err)" 1
is 'rows without an image: one line' "$(grep -c '2 rows of t.csv without an image in shard; the first: x/1' table.err)" 1
ok 'nothing else is said' '[ $(wc -l <table.err) = 3 ]'
hssl-import -n 1 --labels t.csv shard.tar few.db 2>few.err
is 'not of rows that --limit did not get to' "$(grep -c 'without an image' few.err)" 0
printf '0.jpg;dog\n1.jpg;cat\n2.jpg;\n' >names.csv
hssl-import --labels names.csv shard.tar names.db 2>/dev/null
is 'names in a table are ranked' "$(classes names.db)" "0=cat 1=dog "
fails 1 'a table that is not there' 'hssl-import --labels folders shard x.db' 'folders: No such file'
fails 1 'a table that is none' 'echo a >a.csv; hssl-import --labels a.csv shard x.db' 'a.csv: no CSV'
ok 'they left no dataset' '[ ! -e x.db ]'
done_testing
