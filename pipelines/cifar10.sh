#!/bin/sh
# DINO against DINO with a ConvNeXt head on CIFAR-10, the same number of steps, on a CPU.
#
#   sh pipelines/cifar10.sh DIR [OUT]     DIR holds train/CLASS/*.jpg and test/CLASS/*.jpg
#
# It imports them, trains a vit_nano with patches of 8 pixels twice, and compares by k-NN: pixels, random weights, and what
# was learnt. Everything is left in OUT (cifar10). Data sets that are there already are used again.
# Views of 32 pixels are not blurred: radii made for 224 pixels would leave nothing of them.
#
#   PER_CLASS=1000    images of a class to train on
#   EPOCHS=64         epochs of each training; 36 take some 15 minutes on two cores
#   THREADS=0         threads of the trainer; 0: one a core
set -eu
help() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
case $#:${1-} in
1:--help) help && exit ;;
[12]:[!-]*) ;;
*) help >&2 && exit 2 ;;
esac
out=${2:-cifar10}
mkdir -p "$out"
[ -e "$out/train.db" ] || hssl-import --per-class "${PER_CLASS:-1000}" "$1/train" "$out/train.db"
[ -e "$out/test.db" ] || hssl-import "$1/test" "$out/test.db"

hssl-knn --pixels --train "$out/train.db" --test "$out/test.db"
for aux in none convnext; do
    hssl-load "$out/train.db" |
        hssl-augment -j 2 |
        hssl-train --force --arch vit_nano --aux "$aux" --epochs "${EPOCHS:-64}" --threads "${THREADS:-0}" \
            -o "$out/$aux.db"
    hssl-knn "$out/$aux.db" --random-init --train "$out/train.db" --test "$out/test.db"
    hssl-knn "$out/$aux.db" --train "$out/train.db" --test "$out/test.db"
done
hssl-discrepancy --curve "$out/convnext.db"
