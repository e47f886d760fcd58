#!/bin/sh
# hssl-knn on pixels: figures, bounds, what it refuses.
. "$(dirname "$0")/../tap.sh"

field() { # name: the first number of that name in the JSON on standard input
    sed "s/.*\"$1\":\([-0-9.e]*\).*/\1/"
}
headline() {
    sed 's/.*"headline":{[^}]*"top1":\([0-9]*\).*/\1/'
}

hssl-synth -n 1200 -s 32 "$T/train.db"
hssl-synth -n 300 -s 32 --part test "$T/test.db"
hssl-synth -n 40 -s 32 -c 4 "$T/four.db"

ok 'prints a table' \
    'hssl-knn --pixels --train $T/train.db --test $T/test.db >$T/table && grep -q "^ *200 " $T/table &&
     grep -q "^top-1 .* at k = 20; best" $T/table'
hssl-knn --pixels --train "$T/train.db" --test "$T/test.db" --json >"$T/json"
t=$(headline <"$T/json")
ok "pixels classify drawn images poorly, but not by pure chance ($t %)" "[ $t -ge 7 ] && [ $t -le 30 ]"
is 'counts the test images' "$(field test <"$T/json")" 300
is 'counts the train images' "$(field train <"$T/json")" 1200
is 'of 32 pixels by default' "$(field dim <"$T/json")" 3072

hssl-knn --pixels --train "$T/train.db" --test "$T/test.db" --json --memory 28M --batch-size 7 -j 1 >"$T/rounds" 2>"$T/said"
is 'in rounds, within less memory, the same' "$(cat "$T/rounds")" "$(cat "$T/json")"
ok 'and says so' 'grep -q "train images are read [2-9]" $T/said'
fails 1 'no room for a single one' 'hssl-knn --pixels --train $T/train.db --memory 1M' 'memory'

ok 'an image finds itself where it may' \
    '[ "$(hssl-knn --pixels --train $T/test.db --no-leave-out -k 1 --json | headline)" = 100 ]'
ok 'and not by default' '[ "$(hssl-knn --pixels --train $T/test.db -k 1 --json | headline)" -lt 50 ]'
ok 'also when the file is named twice' \
    '[ "$(hssl-knn --pixels --train $T/test.db --test $T/test.db -k 1 --json | headline)" -lt 50 ]'
hssl-knn --pixels --train "$T/four.db" -k 5000,20 >"$T/used"
ok 'k above the number of images is told as asked, and as used' \
    "grep -q '^  *20  *20 ' $T/used && grep -q '^  *5000  *39 ' $T/used && grep -q 'top-1 .* at k = 20;' $T/used"
is 'in JSON, too' "$(hssl-knn --pixels --train "$T/four.db" -k 5000 --no-leave-out --json | sed 's/.*"knn":\[{\([^}]*\),"top1".*/\1/')" \
    '"k":5000,"used":40'
hssl-synth -n 1 -s 32 "$T/one.db" 2>/dev/null
fails 1 'a single image has nobody to vote' "hssl-knn --pixels --train $T/one.db" 'nobody can vote'
is 'unless it may be its own neighbour' "$(hssl-knn --pixels --train "$T/one.db" --no-leave-out --json 2>"$T/said" | headline)" 100
ok 'a single class is warned of' "grep -q 'one.db: a single class, .*: every answer is right' $T/said"
is 'classes go by name: of ten, four are known' \
    "$(hssl-knn --pixels --train "$T/four.db" --test "$T/test.db" -k 40 --json 2>"$T/said" | field test)" 300
ok 'and that is said' 'grep -q "6 of 10 classes are not in" $T/said'
ok 'features can be kept' \
    'hssl-knn --pixels --train $T/four.db --dump $T/f.safetensors && hssl-info $T/f.safetensors | grep -q features'

fails 2 'no run is wrong usage' 'hssl-knn --train $T/train.db' 'run'
fails 2 'no training set is wrong usage' 'hssl-knn --pixels' 'train'
fails 2 'a list that is none' 'hssl-knn --pixels --train $T/train.db -k 10,x' '10,x'
fails 1 'a run that is not there' 'hssl-knn $T/none.db --train $T/train.db' 'none.db'
fails 1 'a dataset is no run' 'hssl-knn $T/test.db --train $T/train.db' 'test.db'
fails 1 'a dataset that is not there' 'hssl-knn --pixels --train $T/none.db' 'none.db'
fails 2 'export wants a file to write' 'hssl-export $T/none.db' 'file'
fails 1 'export: a run that is not there' 'hssl-export $T/none.db $T/x.safetensors' 'none.db'
fails 1 'export does not overwrite' 'hssl-export $T/none.db $T/f.safetensors' 'force'
done_testing
