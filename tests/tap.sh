# Test Anything Protocol for the shell tests. Source it first: it makes a directory $T that goes away
# at the end, puts the built tools first in PATH, and numbers the tests.
#
#   ok 'name' 'shell condition'            passes when the condition is true
#   fails 1 'name' 'command' 'regex'       passes when command exits with 1 and its stderr matches
#   is 'name' "$got" "$want"               passes when the two texts are equal
#   becomes 'name' 'command' "$want"       the same of what command prints, in time
#   skip 'name' 'why'
#   processes                              lists the programs that run
#   note text...                           a line for who reads the log, with what was counted
#   done_testing
#
# A test that fails shows what it saw, on standard error, which prove passes on: the condition, what it printed, and what
# the programs have said into files below $T whose names have "err" or "log" in them.
#
# Nothing may depend on how busy the machine is. What must come is waited for, and what must end is given a limit; both are
# longer than any machine is busy, so that only what hangs gets there, and is a failed test.
#
#   await FILE [regex]                     until the file has a line like that; without one, until it isn't empty
#   until_true 'shell condition'
#   said FILE...                           what programs said there, but for what they say when a neighbour is slow
#   $limit command                         ends it after that time
#
# Tests of `make siege` do their rounds HSSL_SIEGE times as often:
#
#   siege 200                              200 by default, 2000 with HSSL_SIEGE=10

: "${HSSL_BIN:=$PWD/build}"
PATH=$HSSL_BIN:$PATH
export PATH LC_ALL=C OMP_WAIT_POLICY=passive
T=$(mktemp -d "${TMPDIR:-/tmp}/hssl-test.XXXXXX") || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM
tap_count=0
tap_failed=0
tap_patience=600
limit="timeout $tap_patience"
export limit

tap_report() { # pass(0/1) name
    tap_count=$((tap_count + 1))
    if [ "$1" = 0 ]; then
        echo "ok $tap_count - $2"
    else
        tap_failed=$((tap_failed + 1))
        echo "not ok $tap_count - $2"
    fi
}

# What a failed test saw; $1: what was tried.
tap_saw() {
    {
        printf '%s\n' "$0, not ok $tap_count: $1" | sed 's/^/# /'
        find "$T" -maxdepth 3 \( -name .out -o -name .err -o -name '*err*' -o -name '*log' \) -type f -size +0 \
            2>/dev/null | sort | head -12 | while read -r tap_file; do
            echo "# ${tap_file#"$T"/}:"
            tail -n 12 "$tap_file" | cut -c 1-400 | sed 's/^/#   /'
        done
    } >&2
}

ok() {
    (eval "$2") >"$T/.out" 2>&1
    tap_rc=$?
    tap_report $tap_rc "$1"
    [ $tap_rc = 0 ] || tap_saw "$2"
    rm -f "$T/.out"
}

fails() {
    (eval "$3") >"$T/.out" 2>"$T/.err" </dev/null
    tap_rc=$?
    if [ $tap_rc = "$1" ] && grep -Eq -- "${4:-.}" "$T/.err"; then
        tap_report 0 "$2"
    else
        tap_report 1 "$2"
        tap_saw "exit $tap_rc, want $1; stderr must match ${4:-.}: $3"
    fi
    rm -f "$T/.out" "$T/.err"
}

is() {
    if [ "$2" = "$3" ]; then
        tap_report 0 "$1"
    else
        tap_report 1 "$1"
        tap_saw "got: $2
want: $3"
    fi
}

until_true() {
    tap_end=$(($(date +%s) + tap_patience))
    until eval "$1"; do
        if [ "$(date +%s)" -ge $tap_end ]; then
            tap_report 1 "waited for $tap_patience s"
            tap_saw "$1"
            return 1
        fi
        sleep 0.05
    done
}

await() {
    tap_await=$1 tap_for=${2:-.}
    until_true 'grep -q -e "$tap_for" "$tap_await" 2>/dev/null' || { echo "# in $1: $tap_for" >&2; return 1; }
}

said() {
    cat "$@" | grep -v 'yet: waiting for '
}

becomes() {
    tap_command=$2 tap_want=$3
    until_true '[ "$(eval "$tap_command")" = "$tap_want" ]' && tap_report 0 "$1"
}

note() {
    echo "# $*"
}

siege() {
    echo $(($1 * ${HSSL_SIEGE:-1}))
}

skip() {
    tap_count=$((tap_count + 1))
    echo "ok $tap_count # SKIP $1: $2"
}

# "PID ARGUMENTS" of every process that has hssl- in its command line. Not ps: a small system has none.
processes() {
    grep -las hssl- /proc/[0-9]*/cmdline | while read -r tap_file; do
        tap_args=$(tr '\0' ' ' <"$tap_file") || continue
        tap_file=${tap_file%/cmdline}
        echo "${tap_file#/proc/} ${tap_args% }"
    done 2>/dev/null
}

done_testing() {
    echo "1..$tap_count"
    [ "$tap_failed" = 0 ] && [ "$tap_count" -gt 0 ]
    exit
}
