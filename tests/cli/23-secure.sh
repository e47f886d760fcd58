#!/bin/sh
# Streams over tcp: encrypted, for holders of the ticket only, and the same records as over ipc.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1
XDG_RUNTIME_DIR=$T/run
export XDG_RUNTIME_DIR
mkdir "$XDG_RUNTIME_DIR"
hssl-synth -n 40 --size 32 s.db 2>/dev/null || exit 1
small='--global-size 16 --local-size 8 --local 2'
shown() { hssl-tap --json --sums 2>&1 >/dev/null | sed -n 's/^{"type":"data","seq":\([0-9]*\),/\1 {/p' | sort -n | cksum; }

want=$(hssl-load --epochs 2 s.db | hssl-multicrop $small | hssl-augment | shown)
is 'over tcp every record comes as over ipc' \
    "$(hssl-load --epochs 2 --listen 0 s.db | hssl-multicrop $small --listen localhost:0 | hssl-augment | shown)" "$want"

HSSL_DEBUG=all hssl-load --epochs 1 --listen 0 s.db >ticket 2>load.err &
load=$!
await ticket
ok 'without a host it listens on this machine only' "grep -q '^hssl/1 records tcp://127\.0\.0\.1:[1-9]' ticket"
ok 'the ticket has keys' "grep -q ' key=.* secret=' ticket"
port=$(sed 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/' ticket)
hex=$(printf '%04X' "$port")
is 'the port is bound to loopback' "$(awk -v p=":$hex" '$4 == "0A" && index($2, p) { print $2 }' /proc/net/tcp)" "0100007F:$hex"
ok 'hssl-info tells all but the secret' "hssl-info ticket | grep -q 'tcp://127' && hssl-info ticket | grep -q 'secret = (not shown)'"
is 'no file stands for a tcp socket' "$(cd run; ls -d hssl-*/records* 2>/dev/null)" ''

# Strangers: no key, the key of another stream, text.
hssl-load --listen 0 s.db </dev/null >other &
other=$!
await other
sed 's/ key=.*//' ticket >keyless
fails 1 'a ticket without its keys is refused before anything is sent' 'hssl-tap <keyless >/dev/null' 'keys?='
secret=$(sed 's/.* secret=//' other)
awk -v s="$secret" '{ sub(/ secret=.*/, ""); print $0 " secret=" s }' ticket >forged
fails 1 "another stream's secret opens nothing" 'hssl-tap <forged >/dev/null' 'refuses this ticket'
awk -v p="$port" '{ sub(/127\.0\.0\.1:[0-9]+/, "127.0.0.1:" p); print }' other >stale
fails 1 'nor does a ticket of another run' 'hssl-tap <stale >/dev/null' 'refuses this ticket'
kill $other
is 'the right one still does' "$(hssl-tap --json <ticket 2>&1 >/dev/null | grep -c '"type":"data"')" 40
wait $load
is 'and the producer ends with its consumer' $? 0
is 'who was refused is named, once' "$(grep -c 'refused a connection from 127\.0\.0\.1:' load.err)" 1
ok 'no key is ever logged' "! grep -qF -e '$(sed 's/.* secret=//' ticket)' -e '$secret' load.err"

hssl-load s.db >local &
load=$!
await local
is 'an ipc socket lies in a directory of mode 0700' "$(stat -c %a "$(dirname "$(sed 's/.*ipc:\/\/\([^ ]*\).*/\1/' local)")")" 700
kill $load
wait 2>/dev/null
# Directories are named by people: blanks, quotes, other alphabets, old encodings, a percent sign.
for name in 'a blank' 'Jörg' "$(printf 'caf\351')" '50%25' "it's \"here\""; do
    mkdir "$T/$name"
    is "sockets in a directory called $(printf %s "$name" | tr -c '[:alnum:] %' '?')" \
        "$(unset XDG_RUNTIME_DIR; export TMPDIR="$T/$name"; hssl-load -e1 s.db | hssl-augment -j2 $small | hssl-tap -q --json 2>&1 >/dev/null |
            grep -c '"type":"data"'; ls -A "$T/$name")" 40
done
(unset XDG_RUNTIME_DIR; TMPDIR="$T/a blank" hssl-load s.db >blank 2>/dev/null) &
load=$!
await blank
is 'the ticket is one line of visible ASCII' "$(LC_ALL=C tr -d '\041-\176' <blank | tr ' ' '.' | od -An -tc | tr -d ' \n')" '..\n'
ok 'hssl-info shows the path as it is' "hssl-info blank | grep -q 'ipc://$T/a blank/'"
kill $load
wait 2>/dev/null
fails 1 'a tcp port that is taken' "hssl-load --listen 0 s.db >busy & await busy; \
    hssl-load --listen \$(sed 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/' busy) s.db; rc=\$?; kill \$!; exit \$rc" 'in use'
fails 2 'what is no port' 'hssl-load --listen 70000 s.db' 'port of 0 to 65535'
fails 2 'what is no host' 'hssl-load --listen 192.0.2.300:1 s.db' 'listen'
is 'nothing is left in the socket directory' "$(ls run)" ''
done_testing
