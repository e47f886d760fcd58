#!/bin/sh
# Training and evaluation on a GPU: what 81-emulated-training.sh has, then a model of a real width.
. "$(dirname "$0")/../tap.sh"
here=$(cd "$(dirname "$0")" && pwd)
cd "$T" || exit 1
. "$here/training.sh"
training
ok 'the device lends its memory to the teacher, or the log says why not' \
    '[ "$(medium gpu.db)" = ipc ] || grep "cannot go to the teacher by ipc" gpu.db.err'

views='--global-size 64 --local 4 --local-size 32'
hssl-synth --force -n 256 -s 80 s.db 2>/dev/null || exit 1
tiny="--arch vit_tiny --patch-size 8 --out-dim 4096 --aux convnext --batch-size 32 --epochs 4 --log-every 1 --device cuda"
for precision in fp32 tf32 bf16; do
    train "$precision.1" $tiny --precision $precision
    train "$precision.2" $tiny --precision $precision
    is "vit_tiny in $precision: the same bits twice" "$(digest $precision.1)" "$(digest $precision.2)"
    losses $precision.1 >$precision.losses
    is 'all of its 32 steps are there' "$(wc -l <$precision.losses)" 32
done
interrupt part.db $tiny --precision bf16
train part.db --resume --device cuda --log-every 1
is 'interrupted in bf16: the same bits' "$(digest part.db)" "$(digest bf16.1)"
first() { awk 'NR == 1 { print $1 }' "$1.losses"; }
ok 'tf32 and bf16 begin where fp32 does' \
    'echo "$(first fp32) $(first tf32) $(first bf16)" | tee /dev/stderr |
        awk "{ exit !((\$1-\$2)^2 < 1e-4*\$1*\$1 && (\$1-\$3)^2 < 1e-3*\$1*\$1) }"'
train again.db $tiny --precision fp32 --recompute
losses again.db >again.losses
ok 'layers that are computed twice: the losses stay' 'paste -d " " fp32.losses again.losses |
    awk "{ d = \$1 - \$3; if (d * d > 1e-4 * \$1 * \$1) bad++ } END { print NR, bad + 0; exit !(NR == 32 && !bad) }"'
train any.db $tiny --no-deterministic
ok 'with --no-deterministic it trains' '[ -n "$(digest any.db)" ]'
fails 1 'a GPU that is not there' 'train no.db $tiny --device cuda:15 || { cat no.db.err >&2; false; }' 'cuda:15'
done_testing
