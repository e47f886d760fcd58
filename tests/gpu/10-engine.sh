#!/bin/sh
# The engine on a GPU, in each precision: every kernel, the reference's numbers, training.
. "$(dirname "$0")/../tap.sh"
. "$(dirname "$0")/engine.sh"
cd "$(dirname "$0")/../.." || exit 1
for precision in fp32 tf32 bf16; do
    engine "cuda,$precision"
done
for whose in own cudnn; do
    on cuda,bf16 "attention by $whose kernels alone" "env HSSL_ATTENTION=$whose $HSSL_BIN/gpu/kernels attention"
done
is 'gelu in the product: each kernel, all that suit by cuDNN' "$(gelu_apart cudnn:0)" 'done;'
HSSL_GELU=cudnn:0
export HSSL_GELU
on cuda,bf16 'gelu in the product: training against the processor' "$HSSL_BIN/gpu/step vit"
done_testing
