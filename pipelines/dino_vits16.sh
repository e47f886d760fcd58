#!/bin/sh
# DINO on ViT-S/16, 2 x 224 + 8 x 96, 100 epochs: the settings of Caron et al. 2021, which are the defaults.
# Begins RUN.db, or goes on with it.
#
#   sh pipelines/dino_vits16.sh PHOTOS.db RUN.db
#   AUX=convnext sh pipelines/dino_vits16.sh PHOTOS.db RUN.db
#
#   AUX=none     auxiliary head; convnext makes it HSSL: the ConvNeXt head of depth 3 that the method prefers on a ViT
#   BATCH=64     images a step
#   JOBS=0       threads that render views; 0: one a core
set -eu
help() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
case $#:${1-} in
1:--help) help && exit ;;
2:[!-]*) ;;
*) help >&2 && exit 2 ;;
esac
hssl-load "$1" | hssl-multicrop --local 8 | hssl-augment -j "${JOBS:-0}" |
    hssl-train --arch vit_small --aux "${AUX:-none}" --batch-size "${BATCH:-64}" --epochs 100 --resume -o "$2"
