#!/bin/sh
# Tools, manual pages, --help and completions say the same.
. "$(dirname "$0")/../tap.sh"
cd "$(dirname "$0")/../.." || exit 1

for src in tools/hssl-*.c; do
    tool=$(basename "$src" .c)
    page=man/man1/$tool.1
    if [ ! -f "$page" ]; then
        ok "$tool has a manual page" false
        continue
    fi
    "$tool" --completions | cut -f1 | sort >"$T/options"
    # Options as the page's list items name them: .It Fl j , Fl Fl jobs Ar N
    sed -n '/^\.It .*Fl Fl /{s/^.*Fl Fl \([a-z0-9-]*\).*$/\1/p;}' "$page" | sort -u >"$T/documented"
    is "$tool: the page documents every option and no other" \
        "$(comm -3 "$T/options" "$T/documented" | tr -d '\t' | grep -vx -e help -e version)" ""
    is "$tool: --help mentions every option" \
        "$(while read -r o; do "$tool" --help | grep -q -e "--$o" || echo "$o"; done <"$T/options")" ""
    ok "$tool: --help goes to standard output with 0" "$tool --help >$T/h && [ -s $T/h ]"
    ok "$tool: --help fits 110 columns" "! $tool --help | grep '.\{111\}'"
    ok "$tool: --version names the tool" "$tool --version | grep -q '^$tool [0-9]'"
    fails 2 "$tool: an unknown option is wrong usage, with 2" "$tool --no-such-option" "^$tool: .*no such option"
    for section in NAME SYNOPSIS DESCRIPTION OPTIONS 'EXIT STATUS' EXAMPLES 'SEE ALSO'; do
        grep -Eq "^\.Sh \"?$section" "$page" || echo "$section"
    done >"$T/missing"
    is "$tool: the page has its sections" "$(cat "$T/missing")" ""
done

for page in man/man1/*.1; do
    [ -f "tools/$(basename "$page" .1).c" ] || echo "$page"
done >"$T/orphans"
is 'every page in section 1 has its tool' "$(cat "$T/orphans")" ""

if command -v mandoc >/dev/null; then
    mandoc -T lint -W warning man/man*/*.[157] >"$T/lint" 2>&1
    is 'mandoc finds nothing to warn about' "$(grep -v -e 'missing date' -e 'outdated mandoc.db' "$T/lint")" ""
else
    skip 'mandoc finds nothing to warn about' 'mandoc is not installed'
fi

# Cross references lead somewhere.
sed -n 's/^\.Xr \(hssl[a-z-]*\) \([157]\).*/\1.\2/p' man/man*/*.[157] | sort -u | while read -r ref; do
    [ -f "man/man${ref##*.}/$ref" ] || echo "$ref"
done >"$T/dangling"
is 'cross references lead to pages' "$(cat "$T/dangling")" ""

for sh in bash zsh fish; do
    ok "completions for $sh name the options of hssl-load" \
        "sh shell/completions.sh $sh hssl-load | grep -q epochs"
done
ok 'the bash completion is valid' "sh shell/completions.sh bash hssl-load | bash -n"
done_testing
