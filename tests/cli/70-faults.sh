#!/bin/sh
# Calls that fail, one after the other: a full disk, a broken one, no memory. Whatever fails, there is one message and
# exit 1, or the work is done all the same; and what is stored opens again and can be gone on with.
. "$(dirname "$0")/../tap.sh"
data=$(cd "$(dirname "$0")/../data" && pwd)
inject=$HSSL_BIN/fault/inject.so
cd "$T" || exit 1
if ! LD_PRELOAD=$inject hssl-info --version >/dev/null 2>&1; then
    skip 'failing calls' 'these programs are sanitized, and that does not go with LD_PRELOAD'
    done_testing
fi

# walk NAME 'CALL:HOW ...': run the function `attempt` with each call failing at its 1st, 2nd, ... time, later ones
# sparsely, until it is not called that often; `recover` looks at what is left. $rc and the file err tell how it ended.
walk() {
    runs=0 bad=
    for fault in $2; do
        n=1
        while [ $n -lt 20000 ]; do
            reset
            rm -f hit
            HSSL_FAULT=$fault:$n HSSL_FAULT_HIT=$T/hit LD_PRELOAD=$inject attempt >out 2>err </dev/null
            rc=$?
            [ -e hit ] || break
            runs=$((runs + 1))
            lines=$(grep -cv -e ': warning: ' -e ': progress what=' err)
            [ $lines -le $most ] && lines=1
            case $rc in
            0) ;;
            1) [ "$lines" = 1 ] || bad="$bad $fault:$n:$lines-lines" ;;
            *) bad="$bad $fault:$n:exit-$rc" ;;
            esac
            recover 2>after || bad="$bad $fault:$n:$(head -1 after | tr ' ' '_')"
            n=$((n < 6 * dense ? n + step : n + n / (3 * dense) * step))
        done
    done
    is "$1: $runs failing calls" "$bad" ""
    note "$1: $runs failing calls"
    ok "$1: there were some" "[ $runs -gt 0 ]"
}
dense=$(siege 1) step=1 most=1 # at first every call; lines on standard error
files='open:EMFILE pread:EIO pread:short pwrite:ENOSPC pwrite:EIO pwrite:short fsync:EIO ftruncate:ENOSPC'
memory='mmap:ENOMEM malloc:ENOMEM'
store=$HSSL_BIN/fault/store

# The store itself, driven by a small program. What was said to be stored is there, and the next call completes it.
reset() { rm -f x.db x.db-lock; }
attempt() { $limit "$store" $kind x.db write; }
recover() {
    [ ! -e .x.db.hssl-new ] || return 1
    [ $rc = 1 ] || "$store" $kind x.db read $all || return 1
    "$store" $kind x.db read 0 && "$store" $kind x.db write && "$store" $kind x.db read $all
}
kind=dataset all=40
walk 'writing a dataset' "$files $memory"
kind=run all=3
walk 'writing a run' "$files $memory"

# Import.
mkdir -p in/a in/b
cp "$data/good.jpg" "$data/progressive.jpg" "$data/good.png" in/a
cp "$data/gray.jpg" "$data/rotated.jpg" in/b
attempt() { $limit hssl-import $how -j1 in x.db; }
recover() {
    [ ! -e x.db ] || [ $rc != 0 ] || hssl-info x.db >/dev/null || return 1
    [ ! -e .x.db.hssl-new ] || grep -q memory err || return 1
    hssl-import in x.db && hssl-info --json x.db | grep -q '"images":5'
}
how=
walk 'hssl-import' "$files $memory read:EIO read:short"
how=--verify
walk 'hssl-import --verify' 'malloc:ENOMEM read:EIO'
tar cf in.tar in
attempt() { $limit hssl-import in.tar x.db; }
recover() { hssl-import in.tar x.db && hssl-info --json x.db | grep -q '"images":5'; }
walk 'hssl-import of a tar' 'malloc:ENOMEM read:EIO read:short'
for i in a/good a/progressive b/gray b/rotated; do echo $((${#i} % 5)) >in/$i.cls; done
printf 'good,7\nprogressive,1\ngray,1\nrotated,3\n' >in.csv
ln -s ../b in/a/link
mkdir in/b/more && ln -s ../../a in/b/more/link
attempt() { $limit hssl-import $how in x.db; }
recover() {
    # A failure that is not told leaves no other labels.
    [ $rc != 0 ] || ! grep -q ' 0 skipped' err || hssl-info --list x.db | cut -f2,5 | sort -k2 | cmp - labels || return 1
    hssl-import $how in x.db && hssl-info --list x.db | cut -f2,5 | sort -k2 | cmp - labels
}
for how in --labels=auto --labels=in.csv; do
    hssl-import -f $how in whole.db 2>/dev/null && hssl-info --list whole.db | cut -f2,5 | sort -k2 >labels
    walk "hssl-import $how" 'malloc:ENOMEM open:EMFILE'
done

# Reading what is stored.
reset() { :; }
recover() { :; }
attempt() { $limit hssl-info x.db; }
walk 'hssl-info of a dataset' 'open:EMFILE pread:EIO pread:short mmap:ENOMEM malloc:ENOMEM'

# Training. A fault costs a training, so there are few of them: while the run is made, in the first checkpoint, later.
# The stages before the trainer are disturbed by its end only, and say so themselves.
hssl-synth -n 12 -s 16 s.db 2>/dev/null
tiny='--arch vit_nano --dim 16 --depth 1 --heads 2 --patch-size 4 --head-hidden 16 --head-bottleneck 8 --out-dim 32
    --batch-size 4 --epochs 2 --threads 1 --save-every 2'
views() { hssl-load s.db | hssl-multicrop --global-size 16 --local 0 | hssl-augment -j1; }
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }
views 2>/dev/null | hssl-train $tiny -o want.db 2>want.err
want=$(digest want.err)
ok 'a training to compare with' "[ -n '$want' ]"
reset() { rm -f r.db*; }
attempt() {
    views 2>/dev/null | HSSL_FAULT_PROGRAM=hssl-train $limit hssl-train $tiny -o r.db
}
recover() {
    [ $rc = 0 ] || [ "$(grep -c 'warning: ' err)" = 0 ] || { echo "$(wc -l <err) lines" >&2; return 1; }
    if [ $rc != 0 ]; then
        resume=$([ -e r.db ] && echo --resume)
        views 2>/dev/null | hssl-train ${resume:-$tiny} --threads 1 -o r.db 2>err || { tail -1 err >&2; return 1; }
    fi
    [ "$(digest err)" = "$want" ] || grep -q complete err || { tail -1 err >&2; return 1; }
    hssl-info r.db >/dev/null
}
step=3 most=9
walk 'hssl-train' 'pwrite:ENOSPC pwrite:short fsync:EIO ftruncate:ENOSPC mmap:ENOMEM malloc:ENOMEM'
done_testing
