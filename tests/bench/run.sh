#!/bin/sh
# All benchmarks, on drawn images: `make bench`. Each prints a table and JSON lines; nothing here is a test.
#
#   BENCH_IMAGES=DIR BENCH_TINY=DIR make bench     render the JPEGs below these instead, tiny ones as 2 x 32
#   PEER_PYTHON=PYTHON make bench     a Python with torchvision and Pillow renders the same for comparison (python3)
set -eu
: "${HSSL_BIN:=$PWD/build}"
PATH=$HSSL_BIN:$PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/hssl-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "== operations"
"$HSSL_BIN/bench/ops"

echo "== from process to process, two cores"
"$HSSL_BIN/bench/hops"

echo "== training step, pixels resident, student and teacher as two processes"
"$HSSL_BIN/bench/step" --arch vit_tiny --patch-size 4 --global-size 32 --local-crops 0 --batch-size 64 \
    --aux convnext --out-dim 8192 --drop-path 0
"$HSSL_BIN/bench/step" --arch vit_small --batch-size 8 --local-crops 2 --aux convnext --out-dim 8192 --drop-path 0

# render DIR GLOBAL_SIZE LOCALS LOCAL_SIZE: ours, the peer at once after it, and the quotient
render() {
    "$HSSL_BIN/bench/augment" "$@" | tee "$work/ours"
    if ! "$peer" -c 'import torchvision, PIL' 2>/dev/null; then
        echo "no peer: $peer lacks torchvision and Pillow"
        return
    fi
    "$peer" "${0%/*}/augment_peer.py" "$@" | tee "$work/peer"
    cat "$work/peer" "$work/ours" | sed -n 's/^{.*"views": *"\([^"]*\)".*"images_per_s": *\([0-9.]*\).*/\1 \2/p' |
        awk 'NR == 1 { peer = $2 } NR == 2 {
            printf "{\"bench\":\"augment-ratio\",\"views\":\"%s\",\"times_the_peer\":%.1f}\n", $1, $2 / peer }'
}

echo "== rendering, one core"
: "${PEER_PYTHON:=python3}"
peer=$PEER_PYTHON
mkdir "$work/large" "$work/small"
if [ -z "${BENCH_IMAGES:-}" ]; then
    "$HSSL_BIN/bench/augment" --draw "$work/large" 200 448
fi
if [ -z "${BENCH_TINY:-}" ]; then
    "$HSSL_BIN/bench/augment" --draw "$work/small" 1000 32
fi
render "${BENCH_IMAGES:-$work/large}" 224 10 96
render "${BENCH_TINY:-$work/small}" 32 0 32

echo "== rendering in a pipeline"
hssl-synth -n 300 --size 400 "$work/large.db"
hssl-synth -n 4000 --size 32 "$work/small.db"
for run in "large 224 8 96" "small 32 0 32"; do
    set -- $run
    start=$(date +%s%N)
    n=$(hssl-load --epochs 1 "$work/$1.db" |
        hssl-multicrop --global-size "$2" --local "$3" --local-size "$4" |
        hssl-augment -j1 | hssl-tap --json 2>&1 >/dev/null | grep -c '"seq"')
    echo "$n $start $(date +%s%N) $run" |
        awk '{ printf "{\"bench\":\"pipeline\",\"views\":\"2x%s+%sx%s\",\"images_per_s\":%.1f}\n", $5, $6, $7, $1 / ($3 - $2) * 1e9 }'
done
