#!/bin/sh
# Runs the fuzz targets: run.sh SECONDS [TARGET...]. FUZZ_BIN: where they are. New inputs go to build/fuzz-corpus/NAME,
# what crashed, hung or grew too large to build/fuzz-findings/NAME-*. Exit 1: something was found.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${FUZZ_BIN:=build/clang-fuzz/fuzz}"
seconds=${1:-60}
[ $# -gt 0 ] && shift
[ $# = 0 ] && set -- $(ls "$FUZZ_BIN" | sed -n 's/^fuzz_//p')

# The targets write small files all the time: to memory, where there is a directory for it.
tmp=$(TMPDIR=$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}") mktemp -d -t hssl-fuzz.XXXXXX) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
findings=build/fuzz-findings
mkdir -p "$findings"
"$FUZZ_BIN/seeds" "$tmp/seeds" || exit 1

found=0
for name; do
    corpus=build/fuzz-corpus/$name kept=tests/fuzz/corpus/$name
    mkdir -p "$corpus" "$tmp/$name"
    [ -d "$kept" ] || kept=
    dict=
    [ -f "tests/fuzz/$name.dict" ] && dict=-dict=tests/fuzz/$name.dict
    before=$(ls "$findings")
    # -timeout: for one input; -rss_limit_mb, -malloc_limit_mb: bombs are findings, too.
    TMPDIR=$tmp/$name ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
        "$FUZZ_BIN/fuzz_$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=1024 \
        -max_len=16384 -keep_seed=1 -print_final_stats=1 -artifact_prefix="$findings/$name-" $dict \
        "$corpus" $kept "$tmp/seeds/$name" >"build/fuzz-$name.log" 2>&1
    rc=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz-$name.log")
    [ "$rc" = 0 ] && [ "$before" = "$(ls "$findings")" ] || found=1
    echo "$name: $seconds s, ${runs:-?} inputs, exit $rc$([ "$rc" = 0 ] || echo ": see build/fuzz-$name.log and $findings/")"
done
[ "$found" = 0 ]
