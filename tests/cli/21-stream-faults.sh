#!/bin/sh
# Somebody dies, is stopped, or leaves: everybody ends, says why, and leaves nothing behind.
. "$(dirname "$0")/../tap.sh"
XDG_RUNTIME_DIR=$T/run
export XDG_RUNTIME_DIR
mkdir "$XDG_RUNTIME_DIR"
hssl-synth -n 64 --size 32 "$T/s.db" 2>/dev/null || exit 1
small='--global-size 32 --local 0'
mkfifo "$T/p" "$T/q"

# load | augment | tap by way of fifos, so that each can be told apart; returns once records arrive at the end.
start() {
    rm -f "$T"/*.err
    hssl-load "$T/s.db" >"$T/p" 2>"$T/load.err" &
    load=$!
    hssl-augment $small <"$T/p" >"$T/q" 2>"$T/augment.err" &
    augment=$!
    hssl-tap --count 20 <"$T/q" >/dev/null 2>"$T/tap.err" &
    tap=$!
    await "$T/tap.err" '^data seq'
}
ended() { # name pid want
    wait "$2" 2>/dev/null
    is "$1" $? "$3"
}

start
kill -9 $load
ended 'loader killed -9: augment fails' $augment 1
ended 'and so does what comes after it' $tap 1
ok 'augment says who died' "grep -q 'hssl-augment: hssl-load died' $T/augment.err"
ok 'the end of the pipeline says so too' "grep -q 'hssl-tap: hssl-augment gave up: hssl-load died' $T/tap.err"
wait $load 2>/dev/null

start
kill -9 $augment
ended 'augment killed -9: the consumer fails' $tap 1
ended 'and the loader ends quietly' $load 0
ok 'the consumer says who died' "grep -q 'hssl-tap: hssl-augment died' $T/tap.err"
is 'the loader says nothing' "$(said "$T/load.err")" ""
wait $augment 2>/dev/null

start
kill -9 $tap
ended 'consumer killed -9: augment ends quietly' $augment 0
ended 'and the loader as well' $load 0
is 'neither says anything' "$(said "$T/augment.err" "$T/load.err")" ""
wait $tap 2>/dev/null

start
kill -TERM $load
ended 'SIGTERM: the loader exits with 143' $load 143
ended 'its consumer fails' $augment 1
ok 'and says why' "grep -q 'hssl-load was stopped by a signal' $T/augment.err"
wait $tap

start
kill -TERM $augment
ended 'SIGTERM: augment exits with 143' $augment 143
ended 'the loader ends quietly' $load 0
ended 'the consumer fails' $tap 1

start
kill -TERM $tap
ended 'SIGTERM: the consumer exits with 143' $tap 143
ended 'augment ends quietly' $augment 0
ended 'and the loader' $load 0

# Ctrl-C reaches the whole process group at once. (trap: the subshells live to tell the status.)
# timeout passes a signal on to its group, and is no job in the background, where sh would have it ignored.
(await "$T/seen.png" && sleep 1 && kill -INT "$(cat "$T/group")") &
sh -c 'echo $$ >$0; exec "$@"' "$T/group" $limit sh -c "trap : INT
    { hssl-load $T/s.db; echo load \$? >>$T/rc; } 2>>$T/int.err |
    { trap : INT; hssl-augment $small; echo augment \$? >>$T/rc; } 2>>$T/int.err |
    { trap : INT; hssl-tap -q --sheet $T/seen.png --count 2 >/dev/null; echo tap \$? >>$T/rc; } 2>>$T/int.err" >/dev/null 2>&1
wait $!
await "$T/rc" '^augment' && await "$T/rc" '^tap'
ok 'Ctrl-C: programs exit with 130' "grep -qx 'augment 130' $T/rc && grep -qx 'tap 130' $T/rc"
is 'without a word' "$(said "$T/int.err")" ""

hssl-load "$T/s.db" 2>/dev/null >"$T/old.ticket" &
pid=$!
await "$T/old.ticket"
kill -9 $pid
wait $pid 2>/dev/null
fails 1 'the ticket of one that was killed, from a file' "$limit hssl-tap <$T/old.ticket >/dev/null" 'stream is over'

ok 'head -1 ends a pipeline' "hssl-load $T/s.db | hssl-augment $small | head -1 | grep -q '^hssl/1 views ipc://'"
ok 'a sheet that is full ends a pipeline' \
    "hssl-load $T/s.db | hssl-augment $small | hssl-tap --sheet $T/a.png --count 2 --exit >/dev/null"
fails 1 'a full disk is an error' \
    "hssl-load $T/s.db | hssl-augment $small | hssl-tap --sheet /dev/full/x.png --count 2 --exit >/dev/null" 'x.png'

# What the killed ones left is swept by whoever starts next.
hssl-load --epochs 1 "$T/s.db" | hssl-tap -q >/dev/null
is 'nothing is left in the socket directory' "$(ls -A "$XDG_RUNTIME_DIR")" ""
becomes 'no process is left' 'processes | grep "hssl-[a-z]* .*$T/"' ""
is 'nothing is left in /dev/shm' "$(ls /dev/shm 2>/dev/null | grep -i hssl | grep -v '^hssl-fuzz\.')" ""
done_testing
