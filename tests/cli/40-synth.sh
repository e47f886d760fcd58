#!/bin/sh
# hssl-synth: the same bytes for the same command.
. "$(dirname "$0")/../tap.sh"

ok 'draws a dataset' 'hssl-synth -n 300 -s 32 -c 12 $T/a.db && [ -s $T/a.db ]'
ok 'in one thread as well' 'hssl-synth -n 300 -s 32 -c 12 -j 1 $T/b.db'
ok 'the same file, byte for byte' 'cmp $T/a.db $T/b.db'
ok 'another seed' 'hssl-synth -n 300 -s 32 -c 12 --seed 1 $T/c.db && ! cmp -s $T/a.db $T/c.db'
ok 'another part' 'hssl-synth -n 300 -s 32 -c 12 --part test $T/d.db && ! cmp -s $T/a.db $T/d.db'
fails 1 'does not overwrite' 'hssl-synth -n 10 $T/a.db' 'a.db.*--force replaces it'
ok 'unless told to' 'hssl-synth -n 300 -s 32 -c 12 --force $T/c.db && cmp $T/a.db $T/c.db'
echo text >"$T/text"
fails 1 'but not a file that is no dataset' 'hssl-synth -n 10 --force $T/text' 'text: not a dataset.*not replaced'
hssl-synth -n 1000000 "$T/s.db" 2>"$T/err" &
until [ -s "$T/.s.db.hssl-new" ] || ! kill -0 $!; do sleep 0.02; done
kill -TERM $!
wait $!
is 'stopped by a signal: 143, and no part of a dataset' "$?$(ls -A "$T" | grep 's.db')" 143
hssl-synth -f -n 1000000 "$T/a.db" 2>"$T/err" &
until [ -s "$T/.a.db.hssl-new" ] || ! kill -0 $!; do sleep 0.02; done
ok 'until a new one is whole the old one is there' 'hssl-info --verify $T/a.db | grep "of 300 images"'
kill -KILL $!
wait $! 2>/dev/null
ok 'also if it never gets whole' 'hssl-info --verify $T/a.db | grep "of 300 images"'
ok 'and what was begun is cleared away by the next' \
    'hssl-synth -f -n 20 $T/a.db && hssl-info $T/a.db | grep "of 20 images" && ! ls -A $T | grep hssl-new'
fails 2 'no operand is wrong usage' 'hssl-synth -n 10' 'one dataset'
fails 2 'too many classes are wrong usage' 'hssl-synth -c 49 $T/x.db' 'classes'
fails 1 'a directory that is not there' 'hssl-synth -n 1 $T/none/x.db' 'none/x.db'
done_testing
