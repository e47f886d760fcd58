#!/bin/sh
# Who may include whom. A layer may include itself and what stands in its list, nothing else:
#   util < tensor < nn < models < ssl, eval;   tensor < dist < ssl;   util < image, store, stream;   train joins them for the tools.
. "$(dirname "$0")/../tap.sh"
cd "$(dirname "$0")/../.." || exit 1

allowed() {
    case $1 in
    util) echo util ;;
    tensor) echo util tensor ;;
    nn) echo util tensor nn ;;
    models) echo util tensor nn models ;;
    dist) echo util tensor dist ;;
    ssl) echo util tensor nn models dist ssl ;;
    eval) echo util tensor nn models eval ;;
    image | store | stream) echo util "$1" ;;
    train) echo util tensor nn models dist ssl image store stream train ;;
    *) echo ;;
    esac
}

includes() { # files... : the lib layers they include
    sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([a-z]*\)\/.*/\1/p' "$@" | sort -u
}

for dir in lib/*/; do
    layer=$(basename "$dir")
    list=$(allowed "$layer")
    ok "lib/$layer is a known layer" "[ -n '$list' ]"
    bad=
    for used in $(find "$dir" -name '*.[ch]' -exec cat {} + | includes); do
        case " $list " in *" $used "*) ;; *) bad="$bad $used" ;; esac
    done
    is "lib/$layer includes only what stands below it" "$bad" ""
done

is 'every test can be executed, as prove does' "$(find tests/cli -name '*.sh' ! -perm -u+x)" ""
is 'no tool includes another tool' "$(grep -ln '#include "hssl-' tools/*.c)" ""
is 'nothing below tools/ exits, but option parsing, die() and faults' \
    "$(grep -lE '(^|[^_a-z])_?exit\(' -r lib --include=*.c | grep -v -e '^lib/util/opt.c' -e '^lib/util/log.c' -e '^lib/util/fault.c')" ""
# A file in simd/ may bear the name of the one it serves.
is 'file names are unique' \
    "$(find lib tools -name '*.c' ! -path '*/simd/*' -exec basename {} \; | sort | uniq -d)" ""
is 'no file outgrows a head (700 lines)' \
    "$(find lib tools tests shell pipelines -name '*.[ch]' -exec awk 'END { if (NR > 700) print FILENAME }' {} \;)" ""
if git rev-parse --git-dir >"$T/git" 2>&1; then
    is 'top level holds nothing else' "$(git ls-files | sed 's|/.*||' | sort -u | grep -v '^\.' | tr '\n' ' ')" \
        "LICENSE Makefile README.md lib man pipelines shell tests tools "
else
    skip 'top level holds nothing else' 'not a git checkout'
fi

# Every header compiles alone.
for h in $(find lib -name '*.h' | sort); do
    echo "#include \"${h#lib/}\"" >"$T/alone.c"
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -DISA=base -DHSSL_VERSION='"0"' -Ilib -idirafter tests/gpu/emulate -fsyntax-only \
        "$T/alone.c" 2>>"$T/alone.err" ||
        echo "$h" >>"$T/alone.bad"
done
is 'every header compiles alone' "$(cat "$T/alone.bad" 2>/dev/null)" ""
done_testing
