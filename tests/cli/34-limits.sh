#!/bin/sh
# Full disks, limits on files and on descriptors: a message each, exit 1, nothing half-written; and what messages look like.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1
hssl-synth -n 64 -s 24 s.db 2>/dev/null || exit 1
tiny='--arch vit_nano --dim 64 --depth 2 --heads 2 --patch-size 4 --head-hidden 16 --head-bottleneck 8 --out-dim 32 --batch-size 4'
tiny="$tiny --threads 1 --epochs 1"
views() { hssl-load s.db 2>/dev/null | hssl-multicrop --global-size 16 --local 0 2>/dev/null | hssl-augment -j1 2>/dev/null; }
# shellcheck disable=SC2086
views | hssl-train $tiny -o r.db 2>/dev/null || exit 1

for tool in "$HSSL_BIN"/hssl-*; do
    [ "${tool%.so}" = "$tool" ] || continue
    name=${tool##*/}
    fails 1 "$name --help to a full disk" "$name --help >/dev/full" "$name: standard output: No space left on device"
done
fails 1 '--version, too' 'hssl-load --version >/dev/full' 'standard output: No space left'
fails 1 'and a table' 'hssl-info r.db >/dev/full' 'standard output: No space left'
is 'a reader that has seen enough is no reason for a message' "$(hssl-discrepancy --help 2>&1 | head -n 1 | wc -l)" 1

# The limit on a file's size is in blocks of 512 or of 1024 bytes, as the shell has it: both are too little.
fails 1 'a data set over the limit of a file' 'ulimit -f 200; hssl-synth -n 800 -s 64 y.db' '^hssl-synth: y.db: File too large'
fails 1 'a run over it' "views | (ulimit -f 200; hssl-train $tiny -o y.run)" '^hssl-train: y.run: File too large'
fails 1 'an export over it' '(ulimit -f 20; hssl-export r.db y.safetensors)' 'hssl-export: y.safetensors: File too large'
ok 'no data set and no export is left of that' '[ ! -e y.db ] && [ ! -e y.safetensors ]'

within() { if [ "$(id -u)" = 0 ]; then unshare -m "$@"; else unshare -rm "$@"; fi; }
mkdir full
if within mount -t tmpfs -o size=300k tmpfs full 2>/dev/null; then
    small() { within sh -c "mount -t tmpfs -o size=600k tmpfs full && { $1; }; rc=\$?; ls -A full >left; exit \$rc"; }
    fails 1 'a data set on a full disk' 'small "hssl-synth -n 2000 -s 64 full/y.db"' '^hssl-synth: full/y.db: No space left on device'
    is 'leaves nothing' "$(cat left)" ''
    fails 1 'a run on a full disk' "views | small 'hssl-train $tiny -o full/y.run'" '^hssl-train: full/y.run: No space left on device'
    fails 1 'an export to a full disk' 'small "hssl-export r.db full/a.safetensors && hssl-export r.db full/b.safetensors"' \
        '^hssl-export: full/b.safetensors: No space left on device'
    is 'leaves what was whole' "$(cat left)" a.safetensors
else
    skip 'a full disk' 'no file system can be mounted here'
fi

# Few descriptors: ZeroMQ would end a process that lacks one.
bad='' whole=0 refused=0
for n in 16 18 20 22 24 26 28 30 31 32 33 34 36 38 40 44 48 52 56 60 64; do
    {
        (ulimit -n $n; hssl-load -e1 s.db 2>load.err; echo $? >load.rc) |
            (ulimit -n $n; hssl-multicrop --global-size 16 --local 0 2>multicrop.err; echo $? >multicrop.rc) |
            (ulimit -n $n; hssl-tap -q 2>tap.err >/dev/null; echo $? >tap.rc)
    } 2>shell.err
    for name in load multicrop tap; do
        case $(cat $name.rc):$(grep -c . <$name.err) in
        0:0 | 1:1) ;;
        *) bad="$bad $n:$name:$(cat $name.rc):$(head -n 1 $name.err | tr ' ' _)" ;;
        esac
    done
    [ "$(cat tap.rc)" = 0 ] && whole=$((whole + 1))
    grep -q 'only [0-9]* are left: raise ulimit -n' load.err && refused=$((refused + 1))
done
is 'too few descriptors are one message' "$bad" ''
ok "some were too few ($refused), some enough ($whole)" "[ $whole -gt 0 ] && [ $refused -gt 0 ]"

# One form for all lines of standard error.
export HSSL_MESSAGES=json
hssl-info nosuch.db 2>said
hssl-load --nosuch 2>>said
# shellcheck disable=SC2086
views 2>>said | hssl-train $tiny -o j.db 2>>said
is 'with HSSL_MESSAGES=json all is JSON' "$(grep -cv '^{"time":"[-0-9T:.]*Z","program":"hssl-[a-z]*","level":"[a-z]*","message":".*"}$' said)" 0
ok 'errors, usage and words' "grep -q '\"error\",\"message\":\"nosuch.db: ' said && grep -q 'no such option' said && grep -q '\"info\".*done: ' said"
unset HSSL_MESSAGES
fails 2 'another form is none' 'HSSL_MESSAGES=jsn hssl-info r.db' 'HSSL_MESSAGES: jsn: text or json'
# shellcheck disable=SC2086
views | hssl-train $tiny --log - -o l.db 2>said
is 'with --log - too, for the log is there' "$(grep -cv '^{".*}$' said)" 0
ok 'both are' "grep -q '\"kind\":\"epoch\"' said && grep -q '\"level\":\"info\",\"message\":\"done' said"
done_testing
