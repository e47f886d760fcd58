# For tests that source it after tap.sh: the engine's test programs on a device, each one test here.

on() { # DEVICE NAME COMMAND
    ok "$2 on $1" "HSSL_TEST_DEVICE=$1 $limit $3 >$T/log 2>&1; rc=\$?; grep -A4 '^not ok' $T/log | head -20
        grep -c '^ok' $T/log | sed 's/^/tests passed: /'; [ \$rc = 0 ]"
}

# What keeps to the table where it reaches for a device's memory, and so runs on any.
engine() { # DEVICE
    on "$1" 'each kernel against the processor' "$HSSL_BIN/gpu/kernels"
    on "$1" 'those by rows, of losses and of training' "$HSSL_BIN/gpu/kernels_rows"
    on "$1" 'the reference numbers' 'sh tests/golden/run.sh'
    on "$1" 'training against the processor' "$HSSL_BIN/gpu/step"
}

gelu_apart() { # HSSL_GELU: what fails, and the sides of results whose gelu was no part of the product though wished so
    HSSL_GELU=$1 HSSL_DEBUG=cuda HSSL_TEST_DEVICE=cuda,bf16 $limit "$HSSL_BIN/gpu/kernels" products 2>&1 |
        sed -n '/^not ok/p; s/.*gelu of \([0-9]* x [0-9]*\) by a kernel of its own.*/\1/p; $s/^1\.\.[1-9][0-9]*$/done/p' |
        sort -u | tr '\n' ';'
}
