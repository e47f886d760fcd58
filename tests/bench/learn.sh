#!/bin/sh
# Learning against the clock: `make bench-learn`. DINO, and DINO with each auxiliary head, as many epochs each as fit into
# so many minutes: k-NN over the epochs, the curve of D, how soon the first step is done, what the trainer waited for its
# input, and what hssl-plan had said. Prints a table and writes JSON lines; nothing here is a test.
#
#   LEARN_TRAIN=DIR LEARN_TEST=DIR make bench-learn    on images that lie in a folder a class, CIFAR-10's for example
#   LEARN_MINUTES=8       for each training
#   LEARN_POINTS=8        so many times in it k-NN is measured
#   LEARN_OPTIONS='--arch vit_tiny ...'   of hssl-train and hssl-plan, instead of those below
#   LEARN_KEEP=DIR        keep datasets and runs there (or go on with those)
#   BENCH_DEVICE=cuda     or cpu; BENCH_PRECISION=auto
#   BENCH_RESULTS=FILE    the lines (tests/bench/results/learn-DATE.jsonl)
# Without images it draws its own.
set -u
: "${HSSL_BIN:=$PWD/build}" "${BENCH_DEVICE:=cuda}" "${BENCH_PRECISION:=auto}" "${LEARN_MINUTES:=8}" "${LEARN_POINTS:=8}"
: "${LEARN_IMAGES:=10000}" "${BENCH_RESULTS:=${0%/*}/results/learn-$(date -u +%Y%m%dT%H%M%S).jsonl}"
# The settings of the vit_nano preset, which were tuned on such images, with a larger model and batch.
: "${LEARN_OPTIONS:=--arch vit_tiny --patch-size 4 --drop-path 0 --out-dim 4096 --head-hidden 1024 --head-bottleneck 128 \
--aux-depth 2 --batch-size 256 --lr 2e-3 --warmup-epochs 4 --teacher-temp 0.02 --warmup-teacher-temp 0.02 \
--center-momentum 0.3 --momentum-teacher 0.99}"
PATH=$HSSL_BIN:$PATH
views='--global-size 32 --local-size 16'
crops='--local 2 --local-crops-scale 0.15,0.4 --blur-scale 0'
device="--device $BENCH_DEVICE --precision $BENCH_PRECISION"
jobs=$(($(nproc) > 3 ? $(nproc) - 2 : 1))

work=$(mktemp -d "${TMPDIR:-/tmp}/hssl-learn.XXXXXX")
trap 'rm -rf "$work"' EXIT
runs=${LEARN_KEEP:-$work/runs}
: >"$work/lines"
complain() {
    echo "learn.sh: $*" >&2
    : >"$work/failed"
}
keep() { tee -a "$work/lines"; }
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" | tail -1; }
seconds() { date -u -d "$1" +%s.%3N; }
difference() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a - b }'; }

"$HSSL_BIN/bench/ops" --device "$BENCH_DEVICE" --check 2>"$work/err" || {
    echo "bench-learn: nothing to train on: $(tail -1 "$work/err")" >&2
    exit 1
}

mkdir -p "$runs" "${BENCH_RESULTS%/*}" || exit 1

# ---- images

dataset() { # train|test [DIR]
    if [ -e "$runs/$1.db" ]; then
        return
    elif [ -n "$2" ]; then
        hssl-import "$2" "$runs/$1.db"
    elif [ "$1" = train ]; then
        hssl-synth --size 32 -n "$LEARN_IMAGES" "$runs/$1.db"
    else
        hssl-synth --size 32 -n "$((LEARN_IMAGES / 5 + 10))" --part test "$runs/$1.db"
    fi
}
dataset train "${LEARN_TRAIN:-}" && dataset test "${LEARN_TEST:-}" || {
    complain 'no images'
    exit 1
}
images=$(hssl-info --json "$runs/train.db" | sed 's/"classes".*//' | field images)

# ---- training

train() { # NAME AUX EPOCHS OPTION...
    run=$1 head=$2 length=$3
    shift 3
    rm -f "$work/$run.jsonl"
    date -u +%s.%3N >"$work/$run.began"
    hssl-load "$runs/train.db" | hssl-multicrop $views $crops | hssl-augment -j "$jobs" |
        hssl-train --force $device $LEARN_OPTIONS --aux "$head" --epochs "$length" --log "$work/$run.jsonl" -o "$runs/$run.db" "$@" \
            2>"$work/$run.err" || {
        complain "$run: $(tail -1 "$work/$run.err")"
        return 1
    }
}
# How many images a second it took, after the first step.
rate() { # NAME
    awk 'function text(key) { return match($0, "\"" key "\":\"?[^,\"}]*") ? substr($0, RSTART, RLENGTH) : "" }
        /"kind":"step"/ { r = text("images_per_s"); sub(/.*:/, "", r); if (++n > 1) { sum += r; count++ } }
        END { printf "%.1f", count ? sum / count : r }' "$work/$1.jsonl"
}
waited() { # NAME: the share of its time that the trainer waited for views
    awk 'function number(key) { return match($0, "\"" key "\":[^,}]*") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0 : 0 }
        /"kind":"step"/ {
            if (++n > 1) {
                waited += number("waited_s")
                time += (number("images") - images) / number("images_per_s")
            }
            images = number("images")
        }
        END { printf "%.4f", (time > 0 ? waited / time : 0) }' "$work/$1.jsonl"
}
first_step() { # NAME: seconds from the command to the end of the first step
    difference "$(seconds "$(grep -m1 '"kind":"step"' "$work/$1.jsonl" | field time)")" "$(cat "$work/$1.began")"
}
top1() { field headline.*\"top1; }
measure() { # WAY STEP EPOCH OPTION...: a line of k-NN
    way=$1 at=$2 epoch=$3
    shift 3
    hssl-knn "$@" --train "$runs/train.db" --test "$runs/test.db" --json $device --no-progress 2>"$work/err" >"$work/knn" ||
        { complain "k-NN: $(tail -1 "$work/err")"; return; }
    printf '{"bench":"learn-knn","way":"%s","step":%s,"epoch":%s,"top1":%s}\n' "$way" "$at" "$epoch" "$(top1 <"$work/knn")" | keep
}

batch=$(set -- $LEARN_OPTIONS; while [ $# -gt 1 ]; do [ "$1" = --batch-size ] && echo "$2"; shift; done)
steps=$((images / ${batch:-64}))
echo "== $images images, ${LEARN_MINUTES} minutes each on $BENCH_DEVICE: $LEARN_OPTIONS"
measure pixels 0 0 --pixels
for aux in none convnext vit; do
    echo "-- $([ $aux = none ] && echo DINO || echo "DINO+HSSL($aux)")"
    # A short training first: what it reaches says how many epochs fit.
    train "$aux-trial" $aux 2 --save-every 0 --log-every 5 || continue
    reached=$(rate "$aux-trial")
    epochs=$(awk -v r="$reached" -v m="$LEARN_MINUTES" -v n="$images" 'BEGIN { e = int(m * 60 * r / n); print e < 2 ? 2 : e }')
    every=$((steps * epochs / LEARN_POINTS))
    [ "$every" -gt 0 ] || every=1
    planned=$(hssl-plan --json $device $LEARN_OPTIONS $views --local-crops 2 --aux $aux -j "$jobs" "$runs/train.db" 2>/dev/null | field images_per_s)
    train "$aux" $aux "$epochs" --save-every "$every" --keep 0 --log-every 20 || continue
    reached=$(rate "$aux")
    printf '{"bench":"learn","way":"%s","device":"%s","epochs":%s,"steps":%s,"images_per_s":%s,"planned_images_per_s":%s,"first_step_s":%s,"waited":%s}\n' \
        "$aux" "$BENCH_DEVICE" "$epochs" "$((steps * epochs))" "$reached" "${planned:-0}" "$(first_step "$aux")" "$(waited "$aux")" | keep
    measure "$aux" 0 0 "$runs/$aux.db" --random-init
    step=$every
    while [ "$step" -le $((steps * epochs)) ]; do
        measure "$aux" "$step" "$(awk -v s="$step" -v n="$steps" 'BEGIN { printf "%.2f", s / n }')" "$runs/$aux.db" --step "$step"
        step=$((step + every))
    done
    [ $aux = none ] || hssl-discrepancy --curve --json "$runs/$aux.db" |
        sed "s/^{/{\"bench\":\"learn-d\",\"way\":\"$aux\",/" | keep >/dev/null
done

# ---- the table

awk '
    function text(key) {
        if (!match($0, "\"" key "\":\"?[^,\"}]*"))
            return ""
        v = substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3)
        sub(/^"/, "", v)
        return v
    }
    { way = text("way") }
    /"bench":"learn"/ {
        printf "%-9s %5d epochs, %9.1f images/s (hssl-plan: %.1f), first step after %.2f s, %.1f %% waited for views\n",
            way, text("epochs"), text("images_per_s"), text("planned_images_per_s"), text("first_step_s"), 100 * text("waited")
    }
    /"bench":"learn-knn"/ { knn[way] = knn[way] sprintf(" %5.1f", text("top1")); if (!(way in seen)) { seen[way]; order[++n] = way } }
    /"bench":"learn-d"/ { d = text("d") + 0; if (!(way in peak) || d > peak[way]) peak[way] = d; last[way] = d }
    END {
        for (i = 1; i <= n; i++)
            printf "%-9s k-NN top-1 %s%s\n", order[i], knn[order[i]], order[i] in peak ? sprintf("   D: peak %.2f, end %.2f", peak[order[i]], last[order[i]]) : ""
    }
' "$work/lines"
sed "s/^{/{\"date\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\",/" "$work/lines" >"$BENCH_RESULTS"
echo "lines: $BENCH_RESULTS"
[ ! -e "$work/failed" ]
