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
large=${BENCH_IMAGES:-$work/large} small=${BENCH_TINY:-$work/small}

# floor: what the renderer alone did, images a second
floor() {
    sed -n 's/^{"bench":"augment".*"images_per_s":\([0-9.]*\).*/\1/p' "$work/ours"
}

render "$large" 224 10 96
large_floor=$(floor)
render "$small" 32 0 32
small_floor=$(floor)

echo "== from a dataset to batches: hssl-load | hssl-augment -jN | consumer"
hssl-import -f "$large" "$work/large.db" >/dev/null 2>"$work/import" || { cat "$work/import" >&2; exit 1; }
hssl-import -f "$small" "$work/small.db" >/dev/null 2>"$work/import" || { cat "$work/import" >&2; exit 1; }
"$HSSL_BIN/bench/pipeline" "$work/large.db" 224 10 96 2 "$large_floor"
"$HSSL_BIN/bench/pipeline" "$work/small.db" 32 0 32 2 "$small_floor"
