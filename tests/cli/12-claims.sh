#!/bin/sh
# Several processes at one data set or run, under all its names: whoever exits 0 has stored what it said, and what is there
# is sound.
. "$(dirname "$0")/../tap.sh"
data=$(cd "$(dirname "$0")/../data" && pwd)
cd "$T" || exit 1
rounds=$(siege 2)
tiny='--arch vit_nano --dim 16 --depth 1 --heads 2 --patch-size 4 --head-hidden 16 --head-bottleneck 8'
tiny="$tiny --out-dim 32 --batch-size 4 --threads 1 --teacher-in-process --epochs 1"

images() { hssl-info --verify --json "$1" 2>/dev/null | sed 's/.*"images":\([0-9]*\),"bytes".*/\1/'; }
digest() { hssl-info --json "$1" 2>/dev/null | grep -o '"digest":"[0-9a-f]*"'; }
files() { # N DIR: N pictures of a class
    mkdir -p "$2"
    perl -e 'for (1 .. $ARGV[1]) { link($ARGV[0], sprintf("%s/%05d.jpg", $ARGV[2], $_)) || die }' base.jpg "$1" "$2"
}
cp "$data/good.jpg" base.jpg
files 150 a/ca
files 150 b/cb
files 40 c/cc
hssl-import a a.db 2>/dev/null
hssl-import b b.db 2>/dev/null
hssl-import c c.db 2>/dev/null
hssl-synth -n 8 -s 24 views.db 2>/dev/null
views() { hssl-load views.db 2>/dev/null | hssl-multicrop --global-size 16 --local 0 2>/dev/null | hssl-augment -j1 2>/dev/null; }
clean() { rm -rf t.db* .t.db* al; mkdir al; }
# Whether process $1 has claimed t.db; asking claims nothing, for the file is there.
under_way() { hssl-synth -n 1 t.db 2>&1 | grep -q "process $1 "; }
# Two commands at once; $ra and $rb are their exit statuses.
both() {
    (eval "$1") 2>a.err &
    (eval "$2") 2>b.err
    rb=$?
    wait $!
    ra=$?
}
bad=
count=0
wrong() { # what
    bad="$bad $1:$ra/$rb:$(images t.db | head -c 40):$(tail -qn 1 a.err b.err | tr ' \n' '_,')"
}
verdict() { # name
    is "$1 ($count pairs)" "$bad" ""
    bad=
    count=0
}

# Importers. Each that exits 0 has all of its images in; who is refused says by whom, and can go on later.
for name in plain soft hard; do
    i=0
    while [ $i -lt $rounds ]; do
        i=$((i + 1))
        for first in yes no; do # whether the data set is there before
            clean
            other=t.db
            case $name$first in
            soft*) ln -s ../t.db al/t.db && other=al/t.db ;;
            hardno) continue ;;
            esac
            [ $first = no ] || hssl-import c t.db 2>/dev/null
            case $name$first in
            softno) rm al/t.db && ln -s .. al/up && other=al/up/t.db ;; # a link to the folder: the file isn't there
            hardyes) ln t.db al/t.db && other=al/t.db ;;
            esac
            both 'hssl-import a t.db' "hssl-import b $other"
            count=$((count + 1))
            want=0
            [ $first = no ] || want=40
            [ $ra != 0 ] || want=$((want + 150))
            [ $rb != 0 ] || want=$((want + 150))
            case $ra$rb in *[!01]*) wrong "$name-$first-exit" ;; esac
            [ $want = 0 ] || [ "$(images t.db)" = $want ] || wrong "$name-$first-$want"
            [ $name = hard ] || [ $ra$rb != 11 ] || wrong "$name-$first-neither"
            [ $ra = 0 ] || grep -q -e 'process [0-9]* ' -e '2 names' a.err || wrong "$name-$first-unnamed"
            [ $rb = 0 ] || grep -q -e 'process [0-9]* ' -e '2 names' b.err || wrong "$name-$first-unnamed"
            rm -f al/t.db
            hssl-import a t.db 2>/dev/null && hssl-import b t.db 2>/dev/null || wrong "$name-$first-later"
            want=300
            [ $first = no ] || want=340
            [ "$(images t.db)" = $want ] || wrong "$name-$first-later-$want"
        done
    done
    verdict "two importers, $name names"
done

# The same source twice at once gives what it gives alone.
i=0
while [ $i -lt $rounds ]; do
    i=$((i + 1))
    clean
    both 'hssl-import a t.db' 'hssl-import a t.db'
    count=$((count + 1))
    [ "$(digest t.db)" = "$(digest a.db)" ] && [ $ra$rb != 11 ] || wrong twice
done
verdict 'two imports of one source'

# Against an import that is under way: its list stays open.
mkfifo list
for name in plain soft; do
    i=0
    while [ $i -lt $rounds ]; do
        i=$((i + 1))
        clean
        hssl-import c t.db 2>/dev/null
        other=t.db
        [ $name = plain ] || { ln -s ../t.db al/t.db && other=al/t.db; }
        hssl-import - t.db <list >/dev/null 2>&1 &
        pid=$!
        exec 9>list
        find a -name '*.jpg' | sort >&9
        until under_way $pid; do kill -0 $pid || break; done
        both "hssl-import -f b $other" "hssl-synth -f -n 10 $other"
        count=$((count + 1))
        hssl-import b $other 2>c.err && wrong "$name-import"
        grep -q "process $pid " c.err || wrong "$name-import-unnamed"
        exec 9>&-
        wait $pid
        rc=$?
        [ $rc$ra$rb = 011 ] && [ "$(images t.db)" = 190 ] || wrong "$name-$rc"
        # One of the two may be refused for the other, which is about to find out.
        cat a.err b.err | grep -q "process $pid " && [ "$(cat a.err b.err | grep -c ': process [0-9]')" = 2 ] ||
            wrong "$name-unnamed"
    done
done
verdict 'another import, and -f, against an import'

i=0
while [ $i -lt $rounds ]; do
    i=$((i + 1))
    clean
    hssl-import a t.db 2>/dev/null
    both 'hssl-import -f b t.db' 'hssl-import -f c t.db'
    count=$((count + 1))
    case $ra$rb in
    00) case $(images t.db) in 150 | 40) ;; *) wrong both ;; esac ;;
    01) [ "$(digest t.db)" = "$(digest b.db)" ] || wrong first ;;
    10) [ "$(digest t.db)" = "$(digest c.db)" ] || wrong second ;;
    *) [ "$(digest t.db)" = "$(digest a.db)" ] || wrong neither ;;
    esac
done
verdict 'two -f at once'

# Trainers that make one run: one wins, with its own settings.
config() { hssl-info --json t.db 2>/dev/null | grep -o '"seed":[0-9]*' | head -n 1; }
for name in plain soft; do
    i=0
    while [ $i -lt $rounds ]; do
        i=$((i + 1))
        for how in '' -f; do
            clean
            other=t.db
            [ $name = plain ] || { ln -s .. al/up && other=al/up/t.db; }
            both "views | hssl-train $tiny --seed 11 $how -o t.db" "views | hssl-train $tiny --seed 22 $how -o $other"
            count=$((count + 1))
            hssl-info --verify t.db >info 2>&1 || wrong "$name$how-unsound"
            case $ra$rb$how in
            01*) [ "$(config)" = '"seed":11' ] || wrong "$name$how-settings" ;;
            10*) [ "$(config)" = '"seed":22' ] || wrong "$name$how-settings" ;;
            00-f) ;; # one after the other
            *) wrong "$name$how-exit" ;;
            esac
        done
    done
done
verdict 'two trainers make one run'

# Against a run in training, which is too long to end by itself.
i=0
while [ $i -lt $rounds ]; do
    i=$((i + 1))
    clean
    views | hssl-train $tiny --epochs 100000 -o t.db >/dev/null 2>t.err &
    until hssl-info t.db >/dev/null 2>&1 || ! kill -0 $!; do sleep 0.02; done
    pid=$(processes | grep 'hssl-train.*-o t.db' | while read -r p rest; do
        [ "$(readlink "/proc/$p/cwd")" = "$PWD" ] && echo "$p"; done)
    both "views | hssl-train $tiny -f -o t.db" "views | hssl-train --resume -o t.db"
    count=$((count + 1))
    [ $ra$rb = 11 ] && grep -q "process $pid " a.err && grep -q "process $pid " b.err || wrong refused
    hssl-synth -f -n 4 t.db 2>/dev/null && wrong synth
    kill -TERM $pid || wrong "ended-by-itself-$(tail -n 1 t.err | tr ' ' _)"
    wait
    hssl-info --verify t.db >info 2>&1 && grep -q ' [12] checkpoints' info || wrong checkpoint
done
verdict '-f and --resume against a run in training'

# Another user who may read a data set and not lock it.
chmod 755 "$T"
cp "$HSSL_BIN/hssl-info" info-bin
chmod 755 info-bin
stranger() { setpriv --reuid 65534 --regid 65534 --clear-groups "$T/info-bin" "$@"; }
if [ "$(id -u)" = 0 ] && stranger --version >/dev/null 2>&1; then
    i=0
    while [ $i -lt $rounds ]; do
        i=$((i + 1))
        clean
        hssl-import c t.db 2>/dev/null
        stranger --verify t.db >info 2>&1 && grep -q ' 40 images' info || wrong "still-$(tr ' ' _ <info)"
        hssl-import - t.db <list >/dev/null 2>&1 &
        pid=$!
        exec 9>list
        find a b -name '*.jpg' | sort >&9
        until under_way $pid; do kill -0 $pid || break; done
        stranger --verify t.db >info 2>&1 && wrong read
        grep -q "process $pid writes it" info || wrong "unnamed-$(tr ' ' _ <info)"
        chmod 666 t.db-lock
        stranger --verify t.db >info 2>&1 || wrong "with-lock-$(tr ' ' _ <info)"
        exec 9>&-
        wait $pid || wrong import
        count=$((count + 1))
        stranger --verify t.db >info 2>&1 && grep -q ' 340 images' info || wrong "after-$(tr ' ' _ <info)"
    done
    ra= rb=
    verdict 'a reader who may not lock'
else
    skip 'a reader who may not lock' 'only root can be another user, where setpriv is and others may come'
fi

# A header that does not fit its records, as programs before claims could leave it.
clean
"$HSSL_BIN/tests/store_claim" --broken t.db || exit 1
fails 1 'a header of wrong counts' 'hssl-info t.db' 'damaged: 9 images where 6 are announced: hssl-import --repair'
fails 1 'nothing is imported into that' 'hssl-import a t.db' 'damaged: 9 images where 6'
ok 'it is repaired, in one line' 'hssl-import --repair t.db 2>err; cat err; grep "t.db: repaired: 9 sound images" err && test $(wc -l <err) = 1'
ok 'all is there' 'hssl-info --verify t.db | grep "of 9 images"'
ok 'and it goes on' 'hssl-import a t.db && hssl-info --verify t.db | grep "of 159 images"'
clean
hssl-import a t.db 2>/dev/null
ok 'nothing is repaired where all is sound' 'hssl-import --repair t.db 2>&1 | grep "150 images are sound, and nothing"'
fails 2 '--repair wants a data set alone' 'hssl-import --repair a t.db' 'one OUT.db'
fails 1 '--repair of another file' 'echo text >text; hssl-import --repair text' 'not a dataset'
done_testing
