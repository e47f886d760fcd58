#!/bin/sh
# install.sh PREFIX   Write the completions of the tools in PREFIX/bin where each shell looks for them.
set -eu
umask 022 # for everybody, whoever installs
prefix=$1
here=$(dirname "$0")
bash=$prefix/share/bash-completion/completions
zsh=$prefix/share/zsh/site-functions
fish=$prefix/share/fish/vendor_completions.d
mkdir -p "$bash" "$zsh" "$fish"
for tool in "$prefix"/bin/hssl-*; do
    name=$(basename "$tool")
    sh "$here/completions.sh" bash "$tool" >"$bash/$name"
    sh "$here/completions.sh" zsh "$tool" >"$zsh/_$name"
    sh "$here/completions.sh" fish "$tool" >"$fish/$name.fish"
done
