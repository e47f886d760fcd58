#!/bin/sh
# The golden checks can fail: damaged values, forgotten tensors, broken files; unknown cases are skipped by name.
. "$(dirname "$0")/../tap.sh"
data=$(dirname "$0")/../golden/data
golden=$HSSL_BIN/tests/golden

run() { "$golden" "$1" >"$T/log" 2>&1; rc=$?; cat "$T/log"; return $rc; }

cp "$data/layer_gelu.safetensors" "$T/good.safetensors"
ok 'a file as it should be passes' 'run "$T/good.safetensors" && grep -q "^ok 1 - layer_gelu: 2 compared" "$T/log"'

# Put a large number over the last value of the data.
cp "$T/good.safetensors" "$T/bad.safetensors"
size=$(wc -c <"$T/bad.safetensors")
printf '\000\000\310\102' | dd of="$T/bad.safetensors" bs=1 seek=$((size - 4)) conv=notrunc 2>"$T/dd"
ok 'a damaged value fails and is named' \
    '! run "$T/bad.safetensors" && grep -q "^not ok 1 - layer_gelu" "$T/log" && grep -Eq "error .* tolerance 1e-05" "$T/log"'

sed 's/"tolerance":"1e-05"/"tolerance":"1e-13"/; s/"tolerance": "1e-05"/"tolerance": "1e-13"/' \
    "$T/good.safetensors" >"$T/strict.safetensors"
ok 'the tolerance is the file'\''s' '! run "$T/strict.safetensors" && grep -q "tolerance 1e-13" "$T/log"'

sed 's/layer_gelu/layer_golu/' "$T/good.safetensors" >"$T/unknown.safetensors"
ok 'an unknown case is skipped by name' 'run "$T/unknown.safetensors" && grep -q "^ok 1 # SKIP layer_golu" "$T/log"'

sed 's/grad\.in\.x/grad.in.z/g' "$T/good.safetensors" >"$T/more.safetensors"
ok 'a result that nobody compares fails' '! run "$T/more.safetensors" && grep -q "grad.in.z was never compared" "$T/log"'

head -c $((size - 8)) "$T/good.safetensors" >"$T/short.safetensors"
ok 'a truncated file fails' '! run "$T/short.safetensors" && grep -q "^not ok 1" "$T/log"'
ok 'a directory that is not there fails' '! run "$T/none"'
mkdir "$T/dir"
cp "$T/good.safetensors" "$T/dir/a.safetensors"
cp "$T/unknown.safetensors" "$T/dir/b.safetensors"
echo text >"$T/dir/README"
ok 'any directory will do' 'run "$T/dir" && grep -q "^1..2$" "$T/log"'
done_testing
