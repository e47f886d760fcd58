#!/bin/sh
# completions.sh bash|zsh|fish TOOL...   Print completions, made from the tools' own option tables
# (TOOL --completions: name, letter, argument, words, help; tab-separated).
set -eu
shell=$1
shift
tab=$(printf '\t')

for tool; do
    table=$("$tool" --completions)
    name=$(basename "$tool")
    function=_$(printf %s "$name" | tr - _)
    case $shell in
    bash)
        cat <<END
$function() {
    local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
    case \$prev in
END
        printf '%s\n' "$table" | while IFS=$tab read -r long letter arg words help; do
            [ "$words" = - ] || printf '    --%s) COMPREPLY=($(compgen -W "%s" -- "$cur")); return ;;\n' \
                "$long" "$(printf %s "$words" | tr '|' ' ')"
        done
        cat <<END
    esac
    if [[ \$cur == -* ]]; then
        COMPREPLY=(\$(compgen -W "$(printf '%s\n' "$table" | sed 's/^\([^	]*\).*/--\1/' | tr '\n' ' ')" -- "\$cur"))
    else
        COMPREPLY=(\$(compgen -f -- "\$cur"))
    fi
}
complete -o filenames -F $function $name
END
        ;;
    zsh)
        echo "#compdef $name"
        echo "_arguments -s \\"
        printf '%s\n' "$table" | while IFS=$tab read -r long letter arg words help; do
            help=$(printf %s "$help" | tr -d "[]'" | sed 's/:/\\:/g')
            case $arg/$words in
            -/-) value= ;;
            */-) value=":$arg:_files" ;;
            *) value=":$arg:($(printf %s "$words" | tr '|' ' '))" ;;
            esac
            printf "    '--%s[%s]%s' \\\\\n" "$long" "$help" "$value"
        done
        echo "    '*:file:_files'"
        ;;
    fish)
        printf '%s\n' "$table" | while IFS=$tab read -r long letter arg words help; do
            line="complete -c $name -l $long -d '$(printf %s "$help" | tr -d "'")'"
            [ "$letter" = - ] || line="$line -s $letter"
            [ "$arg" = - ] || line="$line -r"
            [ "$words" = - ] || line="$line -f -a '$(printf %s "$words" | tr '|' ' ')'"
            printf '%s\n' "$line"
        done
        ;;
    *)
        echo "completions.sh: $shell: not one of bash, zsh, fish" >&2
        exit 2
        ;;
    esac
done
