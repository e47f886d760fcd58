#!/bin/sh
# The recipes say what they do, what they take and by which variables, and refuse what they do not know.
. "$(dirname "$0")/../tap.sh"
recipes=$(cd "$(dirname "$0")/../../pipelines" && pwd)
mkdir "$T/bin" "$T/work" && cd "$T/work" || exit 1

# Whatever a recipe would start: it must not come to that.
for tool in "$HSSL_BIN"/hssl-*; do
    printf '#!/bin/sh\necho "$0 $*" >>"%s"\nexit 3\n' "$T/started" >"$T/bin/$(basename "$tool")"
done
chmod +x "$T"/bin/*
PATH=$T/bin:$PATH

for recipe in "$recipes"/*.sh; do
    name=$(basename "$recipe")
    sh "$recipe" --help >"$T/help" 2>"$T/err"
    is "$name: --help ends with 0 and says nothing else" "$? $(cat "$T/err")" '0 '
    ok "$name: it says how it is called" "grep -q '^  sh pipelines/$name\|:  sh pipelines/$name' '$T/help'"
    ok "$name: every line of it fits 125 columns" "! grep -n '.\{126\}' '$T/help'"
    ok "$name: nothing of the program is in it" "! grep -q -e 'set -eu' -e '^#' '$T/help'"
    grep -o '\${[A-Z_]*:-[^}]*}' "$recipe" | sed 's/..\(.*\):-\(.*\)}/\1=\2/' | sort -u >"$T/variables"
    is "$name: every variable, with its default" \
        "$(while read -r v; do grep -q "^  $v  " "$T/help" || echo "$v"; done <"$T/variables")" ''
    ok "$name: there are some" "[ -s '$T/variables' ]"
    for args in --no-such-option 'a b c' '-x a' '--help a'; do
        sh "$recipe" $args >"$T/out" 2>"$T/err"
        is "$name $args: wrong usage" "$? $(cat "$T/out")" '2 '
        ok "$name $args: the same is said" "cmp '$T/err' '$T/help'"
    done
done
ok 'cifar10.sh without a folder: wrong usage' "sh '$recipes/cifar10.sh' 2>'$T/err'; [ \$? = 2 ]"
ok 'dino_vits16.sh without a run: wrong usage' "sh '$recipes/dino_vits16.sh' photos.db 2>'$T/err'; [ \$? = 2 ]"
is 'and nothing was started or made' "$(cat "$T/started" 2>&- ; ls)" ''
done_testing
