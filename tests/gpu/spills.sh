#!/bin/sh
# What the compiler gives each kernel: registers, shared memory, spills. Fails where one spills. Needs nvcc, no GPU.
cd "$(dirname "$0")/../.." || exit 1
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || { echo "spills.sh: nvcc is not here" >&2; exit 1; }
for arch in ${CUDA_ARCHS:-80 90}; do
    for f in lib/tensor/cuda/*.cu; do
        "$nvcc" -std=c++17 -O3 -Ilib -arch "sm_$arch" -Xptxas -v -cubin -o /dev/null "$f" 2>&1 || echo "it does not compile: $f"
    done
done | c++filt | awk '
    /Compiling entry function/ { sub(/.*function ./, ""); sub(/. for .*/, ""); name = $0 }
    /spill stores/ { kernels++; if ($5 + $9) { spilled++; print name ": " $0 } }
    /does not compile/ { print; spilled++ }
    /Used/ { if ($5 > most) { most = $5; widest = name } }
    END { print kernels + 0 " kernels, " spilled + 0 " spill; most registers: " most " (" widest ")"; exit spilled > 0 || !kernels }'
