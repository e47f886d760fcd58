#!/bin/sh
# The programs as they are built and installed: what guards them, and who may read and run what.
. "$(dirname "$0")/../tap.sh"
cd "$(dirname "$0")/../.." || exit 1

programs=$(for src in tools/hssl-*.c; do echo "$HSSL_BIN/$(basename "$src" .c)"; done)
libraries=$(find "$HSSL_BIN" -maxdepth 1 -name 'hssl-*.so')
if command -v readelf >/dev/null; then
    for f in $programs $libraries; do
        name=$(basename "$f")
        readelf -hdlW "$f" >"$T/elf" 2>&1
        readelf -W --dyn-syms "$f" >"$T/symbols" 2>&1
        is "$name: may lie at any address" "$(sed -n 's/^ *Type: *\([A-Z]*\).*/\1/p' "$T/elf")" DYN
        is "$name: its table of addresses is read-only, and full when it starts" \
            "$(grep -c -e GNU_RELRO -e '(FLAGS_1).* NOW' "$T/elf")" 2
        is "$name: its stack can't be executed" "$(grep -c 'GNU_STACK .* RW ' "$T/elf")" 1
        is "$name: its stack is guarded" "$(grep -q -e __stack_chk_fail "$T/symbols" && echo yes)" yes
    done
    if readelf -W --dyn-syms "$HSSL_BIN/hssl-info" | grep -q __asan_init; then
        skip 'the C library checks sizes' 'the sanitizers do'
    else
        for f in $programs; do
            is "$(basename "$f"): the C library checks sizes" \
                "$(readelf -W --dyn-syms "$f" | grep -q -e '__[a-z]*printf_chk' && echo yes)" yes
        done
    fi
else
    skip 'what guards the programs' 'readelf is not installed'
fi

# Whoever installs them, with whatever umask: everybody may use them, and nobody but the owner changes them.
if make -q all >"$T/make" 2>&1; then
    (umask 077 && make install DESTDIR="$T/root" PREFIX=/usr) >"$T/make" 2>&1
    is 'make install' "$? $(find "$T/root" -path "*/bin/hssl-info")" "0 $T/root/usr/bin/hssl-info"
    find "$T/root/usr" -type f -printf '%m %P\n' >"$T/files"
    is 'programs and libraries are 755' "$(grep -e ' bin/' -e '\.so$' "$T/files" | grep -v '^755 ')" ""
    is 'all else is 644' "$(grep -v -e ' bin/' -e '\.so$' "$T/files" | grep -v '^644 ')" ""
    is 'folders are 755' "$(find "$T/root/usr" -type d ! -perm 755)" ""
    is 'there are programs, pages and completions' \
        "$(for d in bin/ share/man/man1/ share/bash-completion/ share/zsh/ share/fish/; do grep -q " $d" "$T/files" && printf '%s ' "$d"; done)" \
        'bin/ share/man/man1/ share/bash-completion/ share/zsh/ share/fish/ '

    # Exactly that goes away again.
    for f in bin/hssl-other bin/other share/man/man1/other.1 lib/hssl/other.so; do
        echo "not ours" >"$T/root/usr/$f"
        echo "$f"
    done | sort >"$T/others"
    make uninstall DESTDIR="$T/root" PREFIX=/usr >"$T/make" 2>&1
    is 'make uninstall leaves what it did not install' "$? $(find "$T/root" ! -type d -printf '%P\n' | sed 's|^usr/||' | sort)" \
        "0 $(cat "$T/others")"
    rm "$T/root/usr/lib/hssl/other.so"
    make uninstall DESTDIR="$T/root" PREFIX=/usr >"$T/make" 2>&1
    is 'where nothing is installed it is content' "$? $([ -e "$T/root/usr/lib/hssl" ] && echo there)" '0 '
else
    skip 'modes of what is installed' 'not all is built'
fi
ok 'make help names it' 'make help | grep -q "^  uninstall  *remove"'
done_testing
