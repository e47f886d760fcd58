#!/bin/sh
# The CUDA backend, kernels and all, run on the processor over stand-ins for NVIDIA's libraries (tests/gpu/emulate), in the
# engine's tests: in F32 it must give the reference's numbers, in BF16 the same within its digits.
. "$(dirname "$0")/../tap.sh"
. "$(dirname "$0")/../gpu/engine.sh"
cd "$(dirname "$0")/../.." || exit 1
HSSL_BACKEND=$HSSL_BIN/tests/emulated-cuda.so HSSL_EMULATE_GUARD=1
export HSSL_BACKEND HSSL_EMULATE_GUARD

engine cuda
engine cuda,bf16
for lacks in SDPA EPILOGUE; do # libraries that cannot do what they are asked for first
    export HSSL_EMULATE_NO_$lacks=1
    on cuda,bf16 "without cuDNN's attention or cuBLASLt's epilogues (no $lacks): each kernel" "$HSSL_BIN/gpu/kernels"
    on cuda,bf16 "no $lacks: those by rows" "$HSSL_BIN/gpu/kernels_rows"
    unset HSSL_EMULATE_NO_$lacks
done
HSSL_EMULATE_NO_SDPA=1
export HSSL_EMULATE_NO_SDPA
ok 'attention by products is told' "HSSL_DEBUG=cuda HSSL_TEST_DEVICE=cuda,bf16 $HSSL_BIN/gpu/kernels 2>&1 | grep -q 'tokens, heads of .*by products'"
unset HSSL_EMULATE_NO_SDPA
HSSL_ATTENTION=own
export HSSL_ATTENTION
on cuda,bf16 'attention by own kernels: each kernel' "$HSSL_BIN/gpu/kernels"
on cuda,bf16 'attention by own kernels: training' "$HSSL_BIN/gpu/step"
unset HSSL_ATTENTION
is 'gelu in the product: each kernel, all that suit by cuDNN' "$(gelu_apart cudnn:0)" 'done;'
HSSL_EMULATE_NO_FUSION=1
export HSSL_EMULATE_NO_FUSION
is 'where cuDNN lacks one it is told, and done apart; for results of so many elements' "$(gelu_apart cudnn:24000)" \
    '128 x 256;600 x 40;done;'
is 'for large ones where nothing is said, and never unless wished' "$(gelu_apart cudnn)$(gelu_apart '')" 'done;done;'
unset HSSL_EMULATE_NO_FUSION
HSSL_GELU=cudnn:0
export HSSL_GELU
on cuda,bf16 'gelu in the product: training against the processor' "$HSSL_BIN/gpu/step"
unset HSSL_GELU
unset HSSL_EMULATE_GUARD # these look at tensors where they lie
on cuda 'each op against differences' "$HSSL_BIN/tests/ops"
on cuda 'the models' "$HSSL_BIN/tests/models"
on cuda 'optimiser and parameters' "$HSSL_BIN/tests/nn"
HSSL_BACKEND=/nowhere.so
ok 'without the backend there is a message' "HSSL_TEST_DEVICE=cuda $HSSL_BIN/tests/nn 2>&1 | grep -q '^not ok'"
done_testing
