#!/bin/sh
# Looking inside a pipeline that runs: what limits it, without a bit of it changed.
. "$(dirname "$0")/../tap.sh"
cd "$T" || exit 1
mkdir run && export TMPDIR="$T" XDG_RUNTIME_DIR="$T/run"

hssl-synth -n 60 -s 24 small.db 2>/dev/null && hssl-synth -n 12 -s 1024 large.db 2>/dev/null || exit 1
views='--global-size 16 --local 2 --local-size 8'
tiny="--arch vit_nano --depth 1 --heads 2 --patch-size 4 --head-hidden 32 --head-bottleneck 16 --out-dim 64 \
--batch-size 4 --threads 1 --save-every 1000000"
digest() { sed -n 's/.*done: .*digest \([0-9a-f]*\).*/\1/p' "$1"; }
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
# -d: others of this user may have pipelines of their own.
await_steps() { # until a trainer learns
    until_true 'hssl-top -d "$XDG_RUNTIME_DIR" --once --json --interval 0.1 2>/dev/null | grep -q "\"steps\":[1-9]"'
}

fails 1 'nothing runs' 'hssl-top -d "$XDG_RUNTIME_DIR" --once' 'no pipeline of yours is running'
fails 2 'operands' 'hssl-top x' 'no operands'

hssl-load small.db | hssl-augment $views -j2 | hssl-train $tiny --dim 32 --epochs 100 -o a.db 2>a.err
want=$(digest a.err)

hssl-load small.db >lone.ticket 2>lone.err &
await lone.ticket
becomes 'a loader that nobody reads waits, and is no limit' \
    'hssl-top -d "$XDG_RUNTIME_DIR" --once --interval 0.5 | tr -s "\n " "  " | grep -o "hssl-load waits [0-9]* % for whoever takes its records: nobody has connected" | sed "s/[0-9]* %//"' \
    'hssl-load waits  for whoever takes its records: nobody has connected'
kill $!
wait $! 2>/dev/null

# Slow trainer.
hssl-load small.db | hssl-augment $views -j2 | hssl-train $tiny --dim 256 --epochs 100000 -o b.db 2>b.err &
await_steps
# On a busy machine a second may show something else.
becomes 'a slow trainer is named' 'hssl-top -d "$XDG_RUNTIME_DIR" --once --json --interval 1 | tee slow.json | field help' trainer
hssl-top -d "$XDG_RUNTIME_DIR" --once --interval 0.2 >slow.txt
is 'each program has its line' "$(sed -n 's/^ *[0-9][0-9]*  *\([a-z-]*\) .*/\1/p' slow.txt | tr '\n' ' ')" \
    'hssl-load hssl-augment worker worker hssl-train '
ok 'it fits 80 columns' "! grep '.\{81\}' slow.txt"
ok 'and names the limit' "grep -q 'hssl-train is the limit' slow.txt"
kill $(field pid <slow.json) 2>/dev/null
wait

# Slow augment.
hssl-load large.db | hssl-augment $views -j1 | hssl-train $tiny --dim 16 --epochs 100000 -o c.db 2>c.err &
await_steps
becomes 'a slow augment is named' \
    'hssl-top -d "$XDG_RUNTIME_DIR" --once --json --interval 1 | tee slow.json | grep -Ec "\"help\":\"(worker|host)\""' 1
ok 'in words' "grep -Eq 'hssl-train waits [0-9]+ % for views: add (a worker|workers of other hosts) to hssl-augment' slow.json"
kill $(processes | sed -n 's/^\([0-9]*\) hssl-train .* c.db.*/\1/p') 2>/dev/null
wait

# Who looks changes nothing.
hssl-load small.db | hssl-augment $views -j2 | hssl-train $tiny --dim 32 --epochs 100 -o d.db 2>d.err &
hssl-top -d "$XDG_RUNTIME_DIR" --json --interval 0.05 >look.jsonl &
top=$!
hssl-top -d "$XDG_RUNTIME_DIR" --interval 0.05 >look.txt &
top="$top $!"
await d.err done:
kill $top
wait
is 'the same bits while others look' "$(digest d.err)" "$want"
ok 'every line is JSON' '[ -s look.jsonl ] && ! grep -v "^{.*}$" look.jsonl'

# On a terminal: its own screen, left as it was.
if command -v script >/dev/null; then
    hssl-load small.db | hssl-augment $views | hssl-train $tiny --dim 32 --epochs 100000 -o e.db 2>e.err &
    await_steps
    { await screen.txt hssl-train; printf q; } | TERM=xterm $limit script -qfec 'hssl-top -d "$XDG_RUNTIME_DIR" -i 0.1' screen.txt >/dev/null 2>&1
    is 'q ends it' "$?" 0
    ok 'it leaves the screen as it was' "tail -c 200 screen.txt | grep -q '1049l'"
    TERM=xterm $limit script -qfec \
        'sh -c "hssl-top -d \$XDG_RUNTIME_DIR -i 0.1 & until grep -q hssl-train killed.txt; do sleep 0.05; done; kill \$!; wait \$!"' \
        killed.txt >/dev/null 2>&1
    is 'so does a signal' "$? $(grep -c '1049l' killed.txt)" '143 1'
    { await plain.txt hssl-train; printf q; } | NO_COLOR=1 TERM=xterm $limit script -qfec 'hssl-top -d "$XDG_RUNTIME_DIR" -i 0.1' plain.txt \
        >/dev/null 2>&1
    ok 'NO_COLOR' "! grep -q '\[7m' plain.txt && grep -q '\[7m' screen.txt"
    kill $(processes | sed -n 's/^\([0-9]*\) hssl-train .* e.db.*/\1/p') 2>/dev/null
    wait
else
    skip 'the terminal' 'no script(1)'
fi

# A killed program leaves a directory, and that is not taken for a running one.
hssl-load small.db </dev/null 2>/dev/null | sleep 1000 &
until_true '[ -n "$(ls run)" ]'
for p in $(processes | sed -n 's/^\([0-9]*\) hssl-load small.db.*/\1/p'); do
    grep -qzx "TMPDIR=$T" "/proc/$p/environ" && kill -9 "$p"
done
kill $! 2>/dev/null
wait
fails 1 'what a killed program left is not shown' 'hssl-top -d "$XDG_RUNTIME_DIR" --once --interval 0.1' 'no pipeline'
hssl-load small.db --epochs 1 2>/dev/null | hssl-tap -q >/dev/null
is 'nothing is left in the socket directory' "$(ls run)" ''
done_testing
