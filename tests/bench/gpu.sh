#!/bin/sh
# What a GPU reaches: its ceilings, every op and kernel against them, whole steps, and the same steps in PyTorch, one after the
# other in one go. `make bench-gpu`. Prints tables, and writes JSON lines to tests/bench/results/.
#
#   PEER_PYTHON=PYTHON    one with torch; without it there are no peers and no ratios (python3)
#   PEER_STEP=FILE        the program that times a step in PyTorch (torch_step.py in shared/bench, here or one up)
#   PEAK_TFLOPS=N         what the GPU is sold for in bf16, dense: MFU is a share of it (by the GPU's name)
#   BENCH_STEPS=N         timed steps (20)
#   BENCH_SETTINGS=NAMES  some of "ops small small-crops base", where time on the GPU is short
#   BENCH_DEVICE=cpu      another device: to try this script
#   BENCH_QUICK=1         one small step, two ops: to try this script
#   BENCH_RESULTS=FILE    where the lines go
set -eu
: "${HSSL_BIN:=$PWD/build}" "${PEER_PYTHON:=python3}" "${BENCH_STEPS:=20}" "${BENCH_DEVICE:=cuda}" "${BENCH_QUICK:=}"
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
: "${BENCH_SETTINGS:=ops small small-crops base}"
wants() { case " $BENCH_SETTINGS " in *" $1 "*) ;; *) return 1 ;; esac; }
: "${BENCH_RESULTS:=$here/results/gpu-$(date +%Y-%m-%d).jsonl}"
work=$(mktemp -d "${TMPDIR:-/tmp}/hssl-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader -i 0 2>/dev/null || :)
case $gpu in
*H100* | *H200* | *GH200*) known=989 ;;
*A100* | *A800*) known=312 ;;
*L40S*) known=362 ;;
*B200*) known=2250 ;;
*) known=0 ;;
esac
: "${PEAK_TFLOPS:=$known}"
precision=bf16
[ "$BENCH_DEVICE" != cpu ] || precision=fp32

for f in "${PEER_STEP:-}" "$root/shared/bench/torch_step.py" "$root/../shared/bench/torch_step.py"; do
    [ ! -f "$f" ] || break
done
if ! "$PEER_PYTHON" -c 'import torch' 2>/dev/null; then
    peer="no peer: $PEER_PYTHON lacks torch (PEER_PYTHON=PYTHON names another)"
elif [ ! -f "$f" ]; then
    peer='no peer: PEER_STEP=FILE names the program that times a step in PyTorch'
else
    peer=
fi

"$HSSL_BIN/bench/ops" --device "$BENCH_DEVICE" --check 2>"$work/err" || {
    echo "bench-gpu: nothing to measure: $(tail -1 "$work/err")" >&2
    exit 1
}
mkdir -p "$(dirname "$BENCH_RESULTS")"
: >"$work/lines"
keep() { # NAME: adds the lines of standard input, each with the name of its setting
    sed "s/^{/{\"setting\":\"$1\",/" >>"$work/lines"
}
complain() { echo "$1" | tee -a "$work/failed" >&2; }

# ---- ceilings, ops, kernels

echo "== the machine and its kernels: ${gpu:-$BENCH_DEVICE}"
only='*'
[ -z "$BENCH_QUICK" ] || only='residual*'
small=$([ -z "$BENCH_QUICK" ] || echo --small)
ops() { # NAME PATTERN
    "$HSSL_BIN/bench/ops" --device "$BENCH_DEVICE" --precision $precision --only "$2" $small --json >"$work/ops" ||
        complain "bench/ops failed: $1"
    keep "$1" <"$work/ops"
    awk '
        function value(key) { return match($0, "\"" key "\":[^,}]*") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : "" }
        /"bench":"machine"/ { printf "%.1f TFLOP/s in products, %.0f GB/s from memory\n", value("peak_gflops") / 1e3, value("stream_gb_s"); next }
        { name = value("op"); gsub(/"/, "", name); pass = value("pass"); gsub(/"/, "", pass); unit = value("unit"); gsub(/"/, "", unit)
          printf "%-38s %-9s %9.3f ms %9.1f %-8s %4.0f %%\n", name, pass, value("ms"), value("rate"), unit, 100 * value("share") }
    ' "$work/ops"
}
if wants ops; then
    ops ops "$only"
    [ -n "$BENCH_QUICK" ] || only='attention*'
    for whose in cudnn own; do
        echo "-- attention by these kernels alone: $whose"
        (export HSSL_ATTENTION=$whose; ops ops-$whose "$only")
    done
    echo '-- products with gelu by cuDNN'
    (
        export HSSL_GELU=cudnn
        [ -n "$BENCH_QUICK" ] || { ops ops-gelu 'linear gelu*'; only='mlp branch*'; }
        ops ops-gelu "$only"
    )
fi

# ---- steps

way= # what is otherwise, for the name of the setting
ours() { # NAME ARCH IMAGE PATCH BATCH LOCALS K AUX [OPTION...]
    name=$1 arch=$2 image=$3 patch=$4 batch=$5 locals=$6 k=$7 aux=$8
    shift 8
    "$HSSL_BIN/bench/step" --device "$BENCH_DEVICE" --precision $precision --arch "$arch" --global-size "$image" \
        --patch-size "$patch" --batch-size "$batch" --local-crops "$locals" --out-dim "$k" --aux "$aux" --drop-path 0 \
        --steps "$BENCH_STEPS" --warmup 5 --peak "$PEAK_TFLOPS" "$@" >"$work/one" || {
        complain "$name: bench/step failed"
        return
    }
    keep "$name$way" <"$work/one"
}
variant() { # WAY NAME ...: as ours
    way=-$1
    shift
    ours "$@"
    way=
}
theirs() { # NAME ARCH IMAGE PATCH BATCH LOCALS K AUX_DEPTH [--compile]
    name=$1
    [ -z "$peer" ] || return 0
    dtype=$precision
    "$PEER_PYTHON" "$f" --arch "$2" --image "$3" --patch "$4" --batch "$5" --local "$6" --out-dim "$7" --aux-depth "$8" \
        --device "$BENCH_DEVICE" --dtype $dtype --steps "$BENCH_STEPS" --warmup 5 ${9:+"$9"} >"$work/one" 2>"$work/err" ||
        { complain "$name: $(tail -1 "$work/err")"; return; }
    keep "$name" <"$work/one"
}
setting() { # NAME ARCH IMAGE PATCH BATCH LOCALS K: with a ConvNeXt head of three layers, in every way
    wants "$1" || return 0
    echo "-- $*"
    ours "$@" convnext
    ours "$@" convnext --teacher-in-process
    variant plain "$@" convnext --teacher-in-process --no-graph
    (export HSSL_GELU=cudnn; variant gelu "$@" convnext --teacher-in-process)
    [ "$6" = 0 ] || variant apart "$@" convnext --teacher-in-process --no-pack
    variant parts "$@" convnext --teacher-in-process --split
    variant kernels "$@" convnext --profile
    ours "$@" none --teacher-in-process
    theirs "$@" 3
    theirs "$@" 3 --compile
    theirs "$@" 0 --compile
}

echo "== steps, $precision: student, teacher and ConvNeXt head of three layers"
if [ -n "$BENCH_QUICK" ]; then
    BENCH_SETTINGS=quick
    setting quick vit_tiny 32 16 2 1 64
else
    setting small vit_small 224 16 128 0 8192
    setting small-crops vit_small 224 16 64 10 8192
    setting base vit_base 224 16 64 0 8192
fi
echo "${peer:-peer: $f}"

# ---- the table

awk '
    function text(key) {
        if (!match($0, "\"" key "\": *[^,}]*"))
            return ""
        v = substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3)
        gsub(/[" ]/, "", v)
        return v
    }
    function number(key) { return text(key) + 0 }
    function title(key) { return match($0, "\"" key "\":\"[^\"]*") ? substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4) : "" }
    function ratio(x, y) { return x && y ? sprintf("%.2f", x / y) : "-" }
    function best_of(c) { return one[c] > two[c] ? one[c] : two[c] }
    function row(way, rate, mib, rest) { printf "%-12s %-28s %10.1f images/s %8.0f MiB%s\n", name, way, rate, mib, rest }
    { name = text("setting"); head = number("aux_depth") > 0 || text("aux") == "convnext" }
    /"bench":"step"/ && name ~ /-parts$/ {
        sub(/-parts$/, "", name)
        parts[name] = sprintf("\"teacher_ms\":%.2f,\"forward_ms\":%.2f,\"loss_backward_ms\":%.2f,\"update_ms\":%.2f",
            1e3 * number("ema_teacher"), 1e3 * number("forward"), 1e3 * number("loss_backward"), 1e3 * number("clip_adamw"))
        next
    }
    /"bench":"kernel"/ {
        sub(/-kernels$/, "", name)
        if (++kernels[name] <= 12)
            table[name] = table[name] sprintf("%-12s %-44s %5.1f %% of the kernels, %3.0f %% of the ceiling of %s\n", name,
                title("kernel"), 100 * number("of_kernels"), 100 * number("of_ceiling"), text("bound"))
        next
    }
    /"bench":"step"/ && name ~ /-kernels$/ { next }
    /"bench":"step"/ && match(name, /-(plain|gelu|apart)$/) {
        way = substr(name, RSTART + 1)
        name = substr(name, 1, RSTART - 1)
        other[way, name] = number("images_per_s")
        row("hssl, " (way == "plain" ? "no graph" : way == "gelu" ? "gelu by cuDNN" : "sizes apart"), other[way, name],
            number("counted_mib"), "")
        next
    }
    /"bench":"step"/ {
        inside = text("teacher") == "in-process"
        rate = number("images_per_s"); mib = number("counted_mib")
        row("hssl" (head ? "" : ", no head") (inside ? "" : ", two processes"), rate, mib,
            text("mfu") == "" ? "" : sprintf("  MFU %.1f %%", 100 * number("mfu")))
        if (!head) { plain[name] = rate; plain_mib[name] = mib }
        else if (inside) { one[name] = rate; one_mib[name] = mib; mfu[name] = number("mfu") }
        else two[name] = rate
        if (!(name in seen)) { seen[name]; names[++n] = name }
    }
    /"torch":/ {
        compiled = text("compile") == "true"
        rate = number("images_per_s"); mib = number("peak_bytes") / 1048576
        row("torch " (compiled ? "compiled" : "eager") (head ? "" : ", no head"), rate, mib, "")
        if (head && compiled) fast[name] = rate
        if (head && !compiled) { eager[name] = rate; eager_mib[name] = mib }
    }
    END {
        for (i = 1; i <= n; i++) {
            c = names[i]
            printf "{\"bench\":\"ratio\",\"setting\":\"%s\"", c
            best = best_of(c)
            if (eager[c]) printf ",\"times_eager\":%.2f,\"memory_of_eager\":%.2f", best / eager[c], one_mib[c] / eager_mib[c]
            if (fast[c]) printf ",\"times_compiled\":%.2f", best / fast[c]
            if (plain[c] && one[c]) printf ",\"head_time\":%.3f,\"head_memory\":%.3f", plain[c] / one[c], one_mib[c] / plain_mib[c]
            if (two[c] && one[c]) printf ",\"two_processes_time\":%.3f", one[c] / two[c]
            if (one[c] && other["plain", c]) printf ",\"times_no_graph\":%.3f", one[c] / other["plain", c]
            if (one[c] && other["apart", c]) printf ",\"times_apart\":%.3f", one[c] / other["apart", c]
            if (one[c] && other["gelu", c]) printf ",\"gelu_cudnn_times\":%.3f", other["gelu", c] / one[c]
            printf "%s}\n", parts[c] == "" ? "" : "," parts[c]
        }
        print "-- aims: 1.3 times compiled, MFU 40 % (base: 50 %), no more memory; the head: time 1.09, memory 1.12"
        for (i = 1; i <= n; i++) {
            c = names[i]
            printf "%-12s %s times compiled, MFU %.1f %%, %s of the memory; the head: time %s, memory %s\n", c,
                ratio(best_of(c), fast[c]), 100 * mfu[c], ratio(one_mib[c], eager_mib[c]), ratio(plain[c], one[c]),
                ratio(one_mib[c], plain_mib[c])
        }
        for (i = 1; i <= n; i++)
            printf "-- where the time of a step goes, each kernel by itself\n%s", table[names[i]]
    }
' "$work/lines" >"$work/table"
grep -v '^{' "$work/table" || :
grep '^{' "$work/table" | tee -a "$work/lines"
sed "s/^{/{\"date\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\",\"gpu\":\"${gpu:-none}\",\"peak_tflops\":$PEAK_TFLOPS,/" "$work/lines" >"$BENCH_RESULTS"
echo "lines: $BENCH_RESULTS"
[ ! -s "$work/failed" ]
