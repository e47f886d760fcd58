#!/bin/sh
# A pipeline across two hosts, here two network namespaces joined by a cable that is pulled for some seconds.
#
# Needs root, or user namespaces, and iproute2; is skipped where namespaces cannot be made.
if [ "$(id -u)" != 0 ] && [ -z "${HSSL_TEST_INSIDE:-}" ] && unshare -rn true 2>/dev/null; then
    HSSL_TEST_INSIDE=1 exec unshare -rn sh "$0"
fi
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1

why=
for need in ip unshare nsenter; do
    command -v $need >/dev/null || why="no $need"
done
[ -n "$why" ] || why=$(unshare -n true 2>&1)
if [ -n "$why" ]; then
    skip 'a pipeline across two network namespaces' "$why"
    done_testing
fi

# A namespace lives as long as a process is in it.
holders=
trap 'kill $holders 2>/dev/null; wait 2>/dev/null; rm -rf "$T"' EXIT
host() { # file for the process id
    unshare -n sh -c 'echo $$ >"$0.new" && mv "$0.new" "$0" && exec sleep 100000' "$1" &
    holders="$holders $!"
    await "$1" || exit 1
}
host left
host right
l="nsenter -n -t $(cat left)"
r="nsenter -n -t $(cat right)"
if ! why=$($l ip link add cable type veth peer name cable netns "$(cat right)" 2>&1); then
    skip 'a pipeline across two network namespaces' "no virtual cable: $why"
    done_testing
fi
$l ip addr add 10.77.0.1/24 dev cable
$r ip addr add 10.77.0.2/24 dev cable
for side in "$l" "$r"; do
    $side ip link set lo up
    $side ip link set cable up
done

hssl-synth -n 44 -s 24 s.db 2>/dev/null || exit 1
tiny="--arch vit_nano --dim 32 --depth 2 --heads 2 --patch-size 4 --drop-path 0.1 --head-hidden 32 --head-bottleneck 16 \
--out-dim 64 --aux convnext --aux-depth 1 --batch-size 4 --epochs 60 --threads 1"
small='--global-size 16 --local 2 --local-size 8'
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }
steps() { grep -c '"kind":"step"' "$1"; }

hssl-load s.db | hssl-augment $small | hssl-train $tiny -o a.db 2>a.err
want=$(digest a.err)
ok 'the undisturbed run on one host' "[ -n '$want' ]"

# The images on one host, rendering and training on the other.
$l hssl-load --listen 10.77.0.1:0 s.db >load.ticket 2>load.err &
load=$!
await load.ticket hssl/1
ok 'the ticket names the address that was asked for' "grep -q 'tcp://10.77.0.1:[1-9]' load.ticket"
$r sh -c "hssl-augment $small <load.ticket | hssl-train $tiny --log b.jsonl -o b.db" 2>b.err &
train=$!
await b.jsonl '"step":20,'
$l ip link set cable down
before=$(steps b.jsonl)
sleep 3
during=$(steps b.jsonl)
$l ip link set cable up
wait $train
ok 'the link was cut in the middle of the training' "[ $before -lt 600 ] && [ $during -lt 660 ]"
is 'restored, it goes on and gives the same weights' "$(digest b.err)" "$want"
wait $load
is 'the loader ends with its consumer' $? 0

# The pipeline on one host, a worker from the other, which shares no process numbers with it and so no memory.
$l sh -c "hssl-load s.db | HSSL_DEBUG=stream hssl-augment $small --listen 10.77.0.1:0 --ticket work.ticket 2>c.aug |
    hssl-train $tiny --log c.jsonl -o c.db" 2>c.err &
train=$!
await work.ticket hssl/1
# As ssh would: the ticket on standard input.
$r unshare -p -f --kill-child --mount-proc hssl-augment --join - <work.ticket 2>c.worker &
worker=$!
await c.aug 'worker 2: inline'
ok 'a worker joins from the other host' '[ -s c.jsonl ] && [ $(steps c.jsonl) -lt 300 ]'
await c.jsonl '"step":100,'
$l ip link set cable down
sleep 3
$l ip link set cable up
wait $train
is 'its link is cut while it holds records: the same weights' "$(digest c.err)" "$want"
wait $worker
is 'the worker ends with the pipeline' $? 0
ok 'the ticket of the work goes with the pipeline' '[ ! -e work.ticket ]'

# Ranks on both: emulated GPUs, whose sums do not go over the cable.
export RANK WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=10.77.0.1 MASTER_PORT=29500
export HSSL_BACKEND="$HSSL_BIN/tests/emulated-cuda.so" HSSL_DEVICE=cuda HSSL_PRECISION=fp32
rank() { # NUMBER HOST
    RANK=$1 $2 sh -c "hssl-load s.db | hssl-augment --global-size 16 --local 0 -j1 | hssl-train --arch vit_nano --dim 16 \
        --depth 1 --heads 1 --patch-size 8 --head-hidden 16 --head-bottleneck 8 --out-dim 16 --batch-size 4 --threads 1 \
        --epochs 1 -o ranks.db" 2>"rank$1.err"
}
rank 1 "$r"
ok 'ranks of two hosts do not meet without a secret' "grep -q 'HSSL_SECRET.*urandom' rank1.err"
HSSL_SECRET=$(head -c 32 /dev/urandom | base64)
export HSSL_SECRET
listening() { $l sh -c "awk '\$4 == \"0A\" && \$2 ~ /:733D\$/ { print \$2 }' /proc/self/net/tcp*"; }
rank 0 "$l" &
becomes 'rank 0 listens at the address that was named, and there alone' listening 01004D0A:733D
rank 1 "$r"
is 'with one they do' "$?" 0
wait $!
ok 'and train' "grep -q 'done: 11 steps' rank0.err"
done_testing
