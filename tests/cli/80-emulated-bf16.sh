#!/bin/sh
# As 80-emulated-fp32.sh in BF16: the same numbers within its digits, whatever the libraries can and cannot do.
. "$(dirname "$0")/../tap.sh"
. "$(dirname "$0")/../gpu/engine.sh"
cd "$(dirname "$0")/../.." || exit 1
HSSL_BACKEND=$HSSL_BIN/tests/emulated-cuda.so HSSL_EMULATE_GUARD=1
export HSSL_BACKEND HSSL_EMULATE_GUARD

engine cuda,bf16
# Libraries that cannot do what they are asked for first.
on cuda,bf16 "products without cuBLASLt's epilogues" "env HSSL_EMULATE_NO_EPILOGUE=1 $HSSL_BIN/gpu/kernels products"
on cuda,bf16 "attention without cuDNN's" "env HSSL_EMULATE_NO_SDPA=1 HSSL_DEBUG=cuda $HSSL_BIN/gpu/kernels attention"
ok 'attention by products is told' "grep -q 'tokens, heads of .*by products' $T/log"
for whose in own cudnn; do
    on cuda,bf16 "attention by $whose kernels alone" "env HSSL_ATTENTION=$whose $HSSL_BIN/gpu/kernels attention"
done
is 'gelu in the product: each kernel, all that suit by cuDNN' "$(gelu_apart cudnn:0)" 'done;'
HSSL_EMULATE_NO_FUSION=1
export HSSL_EMULATE_NO_FUSION
is 'where cuDNN lacks one it is told, and done apart; for results of so many elements' "$(gelu_apart cudnn:24000)" \
    '128 x 256;600 x 40;done;'
is 'for large ones where nothing is said, and never unless wished' "$(gelu_apart cudnn)$(gelu_apart '')" 'done;done;'
unset HSSL_EMULATE_NO_FUSION
HSSL_GELU=cudnn:0
export HSSL_GELU
on cuda,bf16 'gelu in the product: training against the processor' "$HSSL_BIN/gpu/step vit"
unset HSSL_GELU
done_testing
