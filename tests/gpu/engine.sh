# For tests that source it after tap.sh: the engine's test programs on a device, each one test here.

on() { # DEVICE NAME COMMAND
    ok "$2 on $1" "HSSL_TEST_DEVICE=$1 timeout 300 $3 >$T/log 2>&1; rc=\$?; grep -A4 '^not ok' $T/log | head -20
        grep -c '^ok' $T/log | sed 's/^/tests passed: /'; [ \$rc = 0 ]"
}

# What keeps to the table where it reaches for a device's memory, and so runs on any.
engine() { # DEVICE
    on "$1" 'each kernel against the processor' "$HSSL_BIN/gpu/kernels"
    on "$1" 'those by rows, of losses and of training' "$HSSL_BIN/gpu/kernels_rows"
    on "$1" 'the reference numbers' 'sh tests/golden/run.sh'
    on "$1" 'training against the processor' "$HSSL_BIN/gpu/step"
}
