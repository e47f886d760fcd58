# Test Anything Protocol for the shell tests. Source it first: it makes a directory $T that goes away
# at the end, puts the built tools first in PATH, and numbers the tests.
#
#   ok 'name' 'shell condition'            passes when the condition is true
#   fails 1 'name' 'command' 'regex'       passes when command exits with 1 and its stderr matches
#   is 'name' "$got" "$want"               passes when the two texts are equal
#   skip 'name' 'why'
#   processes                              lists the programs that run
#   done_testing

: "${HSSL_BIN:=$PWD/build}"
PATH=$HSSL_BIN:$PATH
export PATH LC_ALL=C OMP_WAIT_POLICY=passive
T=$(mktemp -d "${TMPDIR:-/tmp}/hssl-test.XXXXXX") || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM
tap_count=0
tap_failed=0

tap_report() { # pass(0/1) name
    tap_count=$((tap_count + 1))
    if [ "$1" = 0 ]; then
        echo "ok $tap_count - $2"
    else
        tap_failed=$((tap_failed + 1))
        echo "not ok $tap_count - $2"
    fi
}

ok() {
    (eval "$2") >"$T/.out" 2>&1
    tap_rc=$?
    tap_report $tap_rc "$1"
    [ $tap_rc = 0 ] || sed 's/^/# /' "$T/.out" | head -20
}

fails() {
    (eval "$3") >"$T/.out" 2>"$T/.err" </dev/null
    tap_rc=$?
    if [ $tap_rc = "$1" ] && grep -Eq -- "${4:-.}" "$T/.err"; then
        tap_report 0 "$2"
    else
        tap_report 1 "$2"
        echo "# exit $tap_rc, want $1; stderr must match: ${4:-.}"
        sed 's/^/# /' "$T/.err" | head -20
    fi
}

is() {
    if [ "$2" = "$3" ]; then
        tap_report 0 "$1"
    else
        tap_report 1 "$1"
        printf '%s\n' "got: $2" "want: $3" | sed 's/^/# /'
    fi
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
