#!/bin/sh
# An ipc socket is its user's: what another one left in the environment, or serves under an old name, is refused.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1
hssl-synth -n 8 --size 16 s.db 2>/dev/null || exit 1
unset XDG_RUNTIME_DIR
mkdir mine tmp
chmod 1777 tmp

# A ticket is one line of at most 2047 bytes.
{ printf 'hssl/1 records ipc:///tmp/x '; head -c 4000 /dev/zero | tr '\0' a; echo; } >long
fails 1 'a ticket that is too long' 'hssl-tap <long >/dev/null' 'more than 2047 bytes'
mkdir -m 755 old
fails 1 'a directory that others may read' 'echo "hssl/1 records ipc://$T/old/records-0" | hssl-tap >/dev/null' \
    'open to other users'

stranger='setpriv --reuid=65534 --regid=65534 --clear-groups'
if [ "$(id -u)" != 0 ] || ! why=$($stranger true 2>&1); then
    skip 'sockets of other users' "${why:-not root}"
    done_testing
fi
# What the other user runs must be his to read.
mkdir bin
cp "$HSSL_BIN/hssl-load" bin/
cp -r s.db* bin/
chmod -R a+rX "$T" && chmod -R a+w bin
mkdir his && chown 65534 his && chmod 755 his

XDG_RUNTIME_DIR=$T/his TMPDIR=$T/tmp hssl-load --epochs 1 s.db >ticket 2>load.err &
load=$!
await ticket
ok "another user's XDG_RUNTIME_DIR is passed over" "grep -q '^hssl/1 records ipc://$T/tmp/hssl-0-' ticket"
is 'with a word, once' "$(grep -c "XDG_RUNTIME_DIR=$T/his belongs to user 65534, not to you" load.err)" 1
is 'the stream is there all the same' "$(hssl-tap --json <ticket 2>&1 >/dev/null | grep -c '"type":"data"')" 8
wait $load

cp ticket old.ticket
old=$(sed 's/.*ipc:\/\/\([^ ]*\).*/\1/' old.ticket)
TMPDIR=$T/tmp $stranger bin/hssl-load --stay bin/s.db >his.ticket 2>his.err &
load=$!
await his.ticket
new=$(sed 's/.*ipc:\/\/\([^ ]*\).*/\1/' his.ticket)
mv "${new%/*}" "${old%/*}"
fails 1 'who takes over the place of an old ticket gets nothing' 'hssl-tap <old.ticket >/dev/null' \
    'belongs to user 65534, not to you'
kill $load
wait $load 2>/dev/null
rm -rf "${old%/*}"
done_testing
