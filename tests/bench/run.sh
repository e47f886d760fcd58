#!/bin/sh
# All benchmarks, on drawn images: `make bench`. Each prints a table and JSON lines; nothing here is a test.
#
#   BENCH_IMAGES=DIR make bench        render the JPEGs below DIR instead
#
# For a peer's figures on the same machine, run a script of its own beside these in the same hour.
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

echo "== rendering, one core"
if [ -n "${BENCH_IMAGES:-}" ]; then
    "$HSSL_BIN/bench/augment" "$BENCH_IMAGES"
fi
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
