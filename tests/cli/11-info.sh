#!/bin/sh
# hssl-info: each kind of file, as text and as JSON.
. "$(dirname "$0")/../tap.sh"
data=$(cd "$(dirname "$0")/../data" && pwd)
cd "$T" || exit 1

has() { # name file pattern...
    name=$1 file=$2
    shift 2
    for pattern; do
        grep -q -e "$pattern" "$file" || { tap_report 1 "$name"; echo "# no '$pattern' in:"; sed 's/^/# /' "$file"; return; }
    done
    tap_report 0 "$name"
}

mkdir -p f/cat && cp "$data/good.jpg" f/cat/ && cp "$data/good.jpg" "f/cat/bell$(printf '\033').jpg"
hssl-import f d.db 2>/dev/null
hssl-info d.db >out
has 'a dataset' out 'd.db: dataset of 2 images, 632 bytes, 1 classes' '0  cat  *2' 'digest: [0-9a-f]*$' '16 x 12'
hssl-info --json --verify d.db >out
has 'a dataset as JSON' out '^{"file":"d.db","kind":"dataset","images":2,"bytes":632,' '"digest":"[0-9a-f]*"' '"label":0,"name":"cat","images":2' '"verified":true'
hssl-info -l d.db >out
is 'control characters of names are not printed' "$(cut -f5 out | tr '\n' ' ')" "cat/bell?.jpg cat/good.jpg "
mkdir -p latin && cp "$data/good.jpg" "latin/caf$(printf '\351').jpg" && cp "$data/good.jpg" "latin/café.jpg"
hssl-import latin latin.db 2>/dev/null
is 'JSON is UTF-8, also where names are not' "$(hssl-info --list --json latin.db | sed 's/.*"name":"\([^"]*\)".*/\1/' | sort | tr '\n' ' ')" \
    "café.jpg caf$(printf '\357\277\275').jpg "
ok 'an image' "hssl-info --image 1 d.db | cmp - $data/good.jpg"
fails 1 'an image that is not there' 'hssl-info --image 2 d.db' 'd.db: no image 2: there are 2'
fails 1 '--log of a dataset' 'hssl-info --log d.db' 'not a run'

"$HSSL_BIN/tests/store_run" --make r.db || exit 1
hssl-info -n 2 r.db >out
has 'a run' out 'r.db: run, 2 checkpoints, 5 lines of log' 'arch  *"vit_nano"' \
    'checkpoint of step 40: 4 tensors, 4.2 MB' '{"step":50}'
is 'a teacher that a killed trainer left in it is not shown' "$(grep -c 'live teacher' out)" 0
is 'its last lines' "$(grep -c '{"step"' out)" 2
hssl-info --json r.db >out
has 'a run as JSON' out '"kind":"run","config":{"arch":"vit_nano"},"log_lines":5' \
    '"step":50,"tensors":4,"bytes":4194336,"meta":{"epoch":5}' '"log":\[{"step":10},'
is 'its log' "$(hssl-info --log r.db | tr '\n' ' ')" '{"step":10} {"step":20} {"step":30} {"step":40} {"step":50} '
is 'the end of its log' "$(hssl-info --log -n 1 r.db)" '{"step":50}'
hssl-info --list --step 40 r.db >out
has 'its tensors' out 'r.db: step 40' 'student.norm.weight  *F32  \[6\]' 'adamw.steps  *I64  \[\]' 'queue  *F32  \[0, 256\]'
ok 'its checksums' 'hssl-info --verify r.db'
fails 1 'a checkpoint that is not there' 'hssl-info --list --step 41 r.db' 'r.db: no checkpoint of step 41'
cp r.db changed.db
# In every place, since pages of a dropped checkpoint may hold the tensor, too.
for at in $(grep -abo 'student.norm.weight' changed.db | cut -d: -f1); do
    printf 'XX' | dd of=changed.db bs=1 seek=$((at + 19 + 112)) conv=notrunc 2>/dev/null
done
fails 1 'a changed weight is noticed' 'hssl-info --verify changed.db' 'damaged: step .*: tensor student.norm.weight'
head -c 100000 r.db >cut.db
fails 1 'a truncated run is refused' 'hssl-info cut.db' 'cut.db: damaged'

head='{"a.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"__metadata__":{"arch":"vit_nano"}}'
perl -e 'print pack("Q<", length $ARGV[0]), $ARGV[0], "12345678"' "$head" >x.safetensors
hssl-info x.safetensors >out
has 'a safetensors file' out 'x.safetensors: safetensors, 1 tensors, 8 bytes' 'arch = vit_nano' 'a.weight  *F32  \[1, 2\]'
hssl-info --json x.safetensors >out
has 'a safetensors file as JSON' out '"kind":"safetensors","bytes":8,"metadata":{"arch":"vit_nano"}' '"shape":\[1,2\],"bytes":8'

echo "hssl/1 views ipc://$T/nobody epoch=3" >ticket
hssl-info ticket >out
has 'a ticket' out 'stream of views (made by hssl-augment)' 'epoch = 3' 'nobody is there'
hssl-info --json - <ticket >out
has 'a ticket on standard input, as JSON' out '"kind":"ticket","stream":"views","endpoint":"ipc://'
fails 1 'nothing on standard input' 'hssl-info -' 'no ticket there'

fails 1 'a file that is not there' 'hssl-info nosuch' 'nosuch: no such file'
fails 1 'a file of another kind' 'hssl-info f/cat/good.jpg' 'neither a dataset'
fails 1 'a folder' 'hssl-info f' 'f: a directory'
: >empty
fails 1 'an empty file' 'hssl-info empty' 'neither a dataset'
ok 'one bad file does not hide the others' 'hssl-info nosuch d.db >out; test $? = 1 && grep -q "dataset of 2" out'
fails 2 'a file is wanted' 'hssl-info' 'a FILE is wanted'
ok 'a full disk is an error' '! hssl-info d.db >/dev/full'
done_testing
