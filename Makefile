# HSSL: heterogeneous self-supervised learning as small programs.
#
# One flat Makefile. Every lib/*/ and every tools/hssl-*.c is found by name, and so
# is what a tool keeps in a directory of its own: tools/info/ belongs to hssl-info.
# Adding a file needs no line here. Knobs, given on the command line:
#
#   CC=clang      another compiler           DEBUG=1   -O1 with symbols
#   SAN=1         address and undefined-behaviour sanitizers
#   FUZZ=1        the same with clang's coverage for `make fuzz`, which sets it
#   WERROR=1      warnings are errors        PREFIX= DESTDIR=   for (un)install
#   CUDA=0        leave the CUDA backend out, though the toolkit is there
#   CUDA_ARCHS="80 90"   GPUs to compile for; PTX of the last one is added
#   MPI=0         leave the sums over ranks by MPI out, though mpicc is there

VERSION := 0.1.0
SAN     ?= 0
FUZZ    ?= 0
DEBUG   ?= 0
WERROR  ?= 0
PREFIX  ?= /usr/local
DESTDIR ?=
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
CXX     := $(if $(findstring clang,$(CC)),clang++,g++)
NVCC    := $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA    ?= $(if $(NVCC),1,0)
CUDA_ARCHS ?= 80 90
MPICC   := $(shell command -v mpicc)
MPI     ?= $(if $(MPICC),1,0)
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)

# Objects of different compilers or flags never mix: build, build/san, build/clang, build/clang-san ...
VARIANT := $(patsubst gcc%,,$(notdir $(firstword $(CC)))) $(if $(filter 1,$(SAN)),san) $(if $(filter 1,$(FUZZ)),fuzz) \
           $(if $(filter 1,$(DEBUG)),debug)
EMPTY   :=
B       := build$(addprefix /,$(subst $(EMPTY) ,-,$(strip $(VARIANT))))

# ---------------------------------------------------------------- flags

WARN     := -Wall -Wextra -Wmissing-prototypes -Wvla -Wwrite-strings -Wshadow -Wpointer-arith \
            $(if $(findstring clang,$(CC)),-Wno-pass-failed) $(if $(filter 1,$(WERROR)),-Werror)
OPT      := $(if $(filter 1,$(DEBUG) $(SAN) $(FUZZ)),-O1,-O3) -g
ifeq ($(SAN),1)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
endif
ifeq ($(FUZZ),1)
SANFLAGS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CPPFLAGS += -DHSSL_FUZZ
endif
# What the parsers read is foreign: stacks are guarded, the C library checks the sizes it sees, tables of addresses are
# read-only once a program runs. That it lies anywhere is the compilers' default. Read back by tests/cli/03-installed.sh.
HARDEN   := -fstack-protector-strong $(if $(filter 1,$(SAN) $(FUZZ)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
SEALED   := -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack
# Contracting a*b+c changes bits: allowed in the tensor kernels only (below).
CFLAGS   += -std=c11 $(OPT) $(WARN) $(HARDEN) -ffp-contract=off -fopenmp -fno-math-errno $(SANFLAGS)
CPPFLAGS += -D_GNU_SOURCE -Ilib -DHSSL_VERSION='"$(VERSION)"'
LDFLAGS  += -fopenmp -rdynamic -Wl,--as-needed $(SEALED) $(SANFLAGS)
LDLIBS   += -lzmq -lmsgpackc -llmdb -ljpeg -lpng16 -ldnnl -ljson-c -lxxhash -larchive -lsodium \
            -lm -lpthread -ldl

# Files in a directory called simd/ are compiled once for each instruction set
# and chosen at run time (lib/util/isa.h).
ARCH := $(shell uname -m)
ISAS := base $(if $(filter x86_64,$(ARCH)),avx2 avx512)
ISA_base   :=
ISA_avx2   := -march=x86-64-v3
ISA_avx512 := -march=x86-64-v4 -mprefer-vector-width=512

# ---------------------------------------------------------------- files

SIMDSRC  := $(wildcard lib/*/simd/*.c lib/*/*/simd/*.c)
CUDASRC  := $(wildcard lib/tensor/cuda/*.c lib/tensor/cuda/*.cu)
MPISRC   := $(wildcard lib/dist/mpi/*.c)
LIBSRC   := $(filter-out $(SIMDSRC) $(CUDASRC) $(MPISRC),$(wildcard lib/*/*.c lib/*/*/*.c))
TOOLSRC  := $(wildcard tools/hssl-*.c)
TOOLS    := $(TOOLSRC:tools/%.c=$B/%)
UNITSRC  := $(wildcard tests/unit/*.c)
UNITS    := $(UNITSRC:tests/unit/%.c=$B/tests/%)
GPUTESTS := $(patsubst tests/gpu/%.c,$B/gpu/%,$(filter-out tests/gpu/both.c,$(wildcard tests/gpu/*.c)))
GOLDSRC  := $(wildcard tests/golden/*.c)
BENCHSRC := $(wildcard tests/bench/*.c)
BENCHES  := $(BENCHSRC:tests/bench/%.c=$B/bench/%)
FUZZSRC  := $(wildcard tests/fuzz/fuzz_*.c)
FUZZERS  := $(FUZZSRC:tests/fuzz/%.c=$B/fuzz/%)
FUZZOBJ  := $(addprefix $B/obj/tests/fuzz/,input.o damage.o second_reader.o)
MPI_SO   := $(if $(filter 1,$(MPI)),$B/hssl-mpi.so)
CUDA_SO  := $(if $(filter 1,$(SAN) $(FUZZ)),,$(if $(filter 1,$(CUDA)),$B/hssl-cuda.so))
MANUALS  := $(wildcard man/man*/*.[157])

LIBOBJ   := $(LIBSRC:%.c=$B/obj/%.o) \
            $(foreach i,$(ISAS),$(SIMDSRC:%.c=$B/obj/%.$i.o))
GOLDOBJ  := $(GOLDSRC:%.c=$B/obj/%.o)
LIBHSSL  := $B/libhssl.a
TAP      := $B/obj/tests/tap.o $B/obj/tests/device.o

.PHONY: all deps check check-run siege check-gpu show-gpu demo bench bench-gpu bench-learn install uninstall clean help completions
.DELETE_ON_ERROR:
.SECONDARY:

all: $(TOOLS) $(CUDA_SO) $(MPI_SO)  ## build the tools into build/

help:  ## show the targets
	@echo 'make [TARGET] [CC=clang] [SAN=1] [DEBUG=1] [WERROR=1]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

# ---------------------------------------------------------------- rules

$B/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(KERNEL_FLAGS) -MMD -MP -c -o $@ $<

# The tensor kernels may fuse multiply-adds and ignore traps: no result of
# theirs is compared bit by bit with another program's.
$B/obj/lib/tensor/%.o: KERNEL_FLAGS := -ffp-contract=fast -fno-trapping-math
# The pixel loops keep every rounding; they only may compute both sides of a choice.
$B/obj/lib/image/simd/%.o: KERNEL_FLAGS := -fno-trapping-math

define isa_rule
$B/obj/%.$1.o: %.c Makefile
	@mkdir -p $$(@D)
	$$(CC) $$(CPPFLAGS) $$(CFLAGS) $$(KERNEL_FLAGS) $$(ISA_$1) -DISA=$1 -MMD -MP -c -o $$@ $$<
endef
$(foreach i,$(ISAS),$(eval $(call isa_rule,$i)))

$(LIBHSSL): $(LIBOBJ)
	@rm -f $@
	ar rcs $@ $^

# (No patsubst here: make would put the stem for its per cent signs.)
.SECONDEXPANSION:
$B/hssl-%: $B/obj/tools/hssl-%.o $$(addprefix $B/obj/,$$(addsuffix .o,$$(basename $$(wildcard tools/$$*/*.c)))) \
           $(LIBHSSL)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/tests/golden: $(GOLDOBJ) $(TAP) $(LIBHSSL)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# What a unit test has beside its own file.
WITH_stream_exhaust := zmtp.o
WITH_stream_hostile := zmtp.o
WITH_stream_second  := fuzz/second_reader.o fuzz/input.o

$B/tests/%: $B/obj/tests/unit/%.o $$(addprefix $B/obj/tests/,$$(WITH_$$*)) $(TAP) $(LIBHSSL)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/gpu/%: $B/obj/tests/gpu/%.o $B/obj/tests/gpu/both.o $(TAP) $(LIBHSSL)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/bench/%: $B/obj/tests/bench/%.o \
           $$(addprefix $B/obj/,$$(addsuffix .o,$$(basename $$(wildcard tests/bench/$$*/*.c tests/bench/common/*.c)))) $(LIBHSSL)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# With FUZZ=1 libFuzzer brings main(); else the corpus is replayed.
$B/fuzz/%: $B/obj/tests/fuzz/%.o $(FUZZOBJ) $(if $(filter 1,$(FUZZ)),,$B/obj/tests/fuzz/replay.o $(TAP)) $(LIBHSSL)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $(if $(filter 1,$(FUZZ)),-fsanitize=fuzzer) -o $@ $^ $(LDLIBS)

$B/fuzz/seeds: $B/obj/tests/fuzz/seeds.o $(LIBHSSL)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The CUDA backend is loaded by the programs when a GPU is asked for (lib/tensor/backend.c).
CUDA_HOME  := $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
NVCCFLAGS  := -std=c++17 -O3 -g -Ilib -ccbin $(CXX) -Xcompiler -fPIC,-fvisibility=hidden,-fstack-protector-strong \
              $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$a,code=sm_$a) \
              -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS)) \
              $(if $(filter 1,$(WERROR)),-Werror all-warnings)

$B/obj/%.o: %.cu Makefile
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) -MMD -MP -c -o $@ $<

$B/obj/lib/tensor/cuda/%.o: CFLAGS += -fPIC -fvisibility=hidden -isystem $(CUDA_HOME)/include

$B/hssl-cuda.so: $(patsubst %.c,$B/obj/%.o,$(CUDASRC:%.cu=%.c))
	$(CXX) -shared $(LDFLAGS) -o $@ $^ -L$(CUDA_HOME)/lib64 -lcudart -lcublasLt -lcudnn -lnccl

# So are sums over ranks, where mpirun started them (lib/dist/group.c).
$B/obj/lib/dist/mpi/%.o: CFLAGS += -fPIC -fvisibility=hidden \
    $(patsubst -I%,-isystem %,$(if $(filter 1,$(MPI)),$(shell mpicc --showme:compile 2>/dev/null || mpicc -compile_info)))

$B/hssl-mpi.so: $(MPISRC:%.c=$B/obj/%.o)
	OMPI_CC="$(CC)" MPICH_CC="$(CC)" $(MPICC) -shared $(SEALED) $(SANFLAGS) -o $@ $^

# All of it once more for the processor, over stand-ins for NVIDIA's libraries: tests run it where there is no GPU.
EMULATED := $(patsubst lib/%.cu,$B/obj/emulated/%.o,$(filter %.cu,$(CUDASRC))) \
            $(patsubst lib/%.c,$B/obj/emulated/%.o,$(filter %.c,$(CUDASRC))) \
            $(patsubst %.cc,$B/obj/%.o,$(wildcard tests/gpu/emulate/*.cc))
CXXFLAGS := -std=c++17 -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra $(if $(filter 1,$(WERROR)),-Werror) \
            -Itests/gpu/emulate -Ilib

$B/obj/emulated/%.o: lib/%.cu Makefile
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -x c++ -include cuda_runtime.h -MMD -MP -c -o $@ $<

$B/obj/emulated/%.o: lib/%.c Makefile
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE -std=c11 $(OPT) $(WARN) -fPIC -fvisibility=hidden -Dhssl_backend=real_backend \
	    $(SANFLAGS) -Itests/gpu/emulate -Ilib -MMD -MP -c -o $@ $<

$B/obj/tests/gpu/emulate/%.o: tests/gpu/emulate/%.cc Makefile
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

$B/tests/emulated-cuda.so: $(EMULATED)
	@mkdir -p $(@D)
	$(CXX) -shared -o $@ $^

# The real cuDNN, asked for plans without a GPU (tests/gpu/library/plans.c).
PLANS   := $(if $(CUDA_SO),$B/tests/cudnn-plans)
WRAPPED := cudnnCreate cudnnDestroy cudnnSetStream cudnnBackendCreateDescriptor cudnnBackendSetAttribute cudnnBackendFinalize \
           cudnnBackendGetAttribute graph_run cuda_scratch cuda_bias_gelu
$B/obj/tests/gpu/library/%.o: CFLAGS += -isystem $(CUDA_HOME)/include

$B/tests/cudnn-plans: $B/obj/tests/gpu/library/plans.o $(TAP) $(patsubst %.c,$B/obj/%.o,$(CUDASRC:%.cu=%.c)) $(LIBHSSL)
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) $(WRAPPED:%=-Wl,--wrap=%) -o $@ $^ -L$(CUDA_HOME)/lib64 -lcudart -lcublasLt -lcudnn -lnccl $(LDLIBS)

# For tests/cli/70-faults.sh. The library goes into programs that are not sanitized only.
FAULTS := $B/fault/inject.so $B/fault/store

$B/fault/inject.so: tests/fault/inject.c Makefile
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -O1 -g $(WARN) -fPIC -fvisibility=hidden -shared -o $@ $< -ldl

$B/fault/store: $B/obj/tests/fault/store.o $(LIBHSSL)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# ---------------------------------------------------------------- work

deps:  ## install the Debian packages that are missing
	@.ci/deps

check: deps  ## build everything and run all tests
	@$(MAKE) --no-print-directory -j$(JOBS) check-build
	@$(MAKE) --no-print-directory check-run

EMULATE := $(wildcard tests/cli/8*.sh)
.PHONY: check-build
check-build: $(TOOLS) $(CUDA_SO) $(MPI_SO) $B/tests/emulated-cuda.so $(PLANS) $(UNITS) $(GPUTESTS) $(FUZZERS) $(FAULTS) $(BENCHES) \
             $(if $(GOLDSRC),$B/tests/golden)

# Those that emulate a GPU compute for minutes and wait for nobody: two at once.
check-run:
	@failed=; export HSSL_BIN=$(CURDIR)/$B; \
	prove --timer --exec '' $(UNITS) $(GPUTESTS) $(FUZZERS) $(if $(GOLDSRC),tests/golden/run.sh) \
	    $(sort $(filter-out $(EMULATE),$(wildcard tests/cli/*.sh))) || failed=1; \
	prove -j$(JOBS) --timer --exec '' $(sort $(EMULATE)) || failed=1; [ -z "$$failed" ]

# Tests of robustness, which do HSSL_SIEGE times their rounds (siege in tests/tap.sh and tests/tap.h) and say how many.
SIEGE := $(addprefix $B/tests/, \
             rendezvous \
             store_damage \
             store_dataset \
             store_quarantine \
             store_run \
             stream_exhaust \
             stream_siege) \
         $(FUZZERS) \
         $(addprefix tests/cli/, \
             12-claims.sh \
             24-elastic.sh \
             30-train.sh \
             31-teacher.sh \
             38-signals.sh \
             70-faults.sh \
             72-stream-calls.sh)

siege: deps  ## kills, damage, faults and strangers, ten times as many as make check affords [HSSL_SIEGE=10]
	@$(MAKE) --no-print-directory -j$(JOBS) check-build
	@HSSL_BIN=$(CURDIR)/$B HSSL_SIEGE=$${HSSL_SIEGE:-10} prove --timer --comments --exec '' $(SIEGE)

check-gpu: deps  ## test the CUDA backend on this machine's GPU (tests/gpu/README)
	@[ "$(CUDA)" = 1 ] || { echo 'make check-gpu: nvcc is not here: install the CUDA Toolkit with cuDNN and NCCL' >&2; exit 1; }
	@$(MAKE) --no-print-directory -j$(JOBS) check-build
	@HSSL_BIN=$(CURDIR)/$B sh tests/gpu/run.sh

demo: deps  ## draw images, pre-train on them, evaluate, show the result
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@PATH="$(CURDIR)/$B:$$PATH" sh pipelines/demo.sh

bench: deps  ## build and run the benchmarks
	@$(MAKE) --no-print-directory -j$(JOBS) $(TOOLS) $(BENCHES)
	@HSSL_BIN=$(CURDIR)/$B sh tests/bench/run.sh

bench-gpu: deps  ## measure what this machine's GPU reaches, and PyTorch on it
	@$(MAKE) --no-print-directory -j$(JOBS) $(TOOLS) $(CUDA_SO) $(BENCHES)
	@HSSL_BIN=$(CURDIR)/$B sh tests/bench/gpu.sh

show-gpu:  ## all that a GPU has to confirm and to show: check-gpu, bench-gpu and bench-learn, one after the other
	@failed=; for t in check-gpu bench-gpu bench-learn; do $(MAKE) --no-print-directory $$t || failed="$$failed $$t"; done; \
	    [ -z "$$failed" ] || { echo "make show-gpu: failed:$$failed" >&2; exit 1; }

bench-learn: deps  ## train against the clock: k-NN and D over the epochs, with and without heads
	@$(MAKE) --no-print-directory -j$(JOBS) $(TOOLS) $(CUDA_SO) $B/bench/ops
	@HSSL_BIN=$(CURDIR)/$B sh tests/bench/learn.sh

SECONDS ?= 60

fuzz:  ## attack the parsers with clang's libFuzzer, each for SECONDS=60 [TARGETS="png jpeg"]
	@CC=clang .ci/deps
	@echo 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n); int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return !p && n; }' | \
	    clang -x c -fsanitize=fuzzer,address,undefined -o /dev/null - 2>/dev/null || { \
	    echo 'make fuzz: this clang has no libFuzzer (Debian: libclang-rt-VERSION-dev)' >&2; exit 1; }
	@$(MAKE) --no-print-directory -j$(JOBS) CC=clang FUZZ=1 fuzz-build
	@FUZZ_BIN=build/clang-fuzz/fuzz sh tests/fuzz/run.sh $(SECONDS) $(TARGETS)

.PHONY: fuzz fuzz-build
fuzz-build: $(FUZZERS) $B/fuzz/seeds

install: all  ## install tools, manual pages and completions below PREFIX
	umask 022 && $(MAKE) --no-print-directory install-files

.PHONY: install-files
install-files:
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(TOOLS) $(DESTDIR)$(PREFIX)/bin
	install -d $(DESTDIR)$(PREFIX)/lib/hssl
	for f in $(CUDA_SO) $(MPI_SO); do install -m 755 $$f $(DESTDIR)$(PREFIX)/lib/hssl || exit 1; done
	for s in 1 5 7; do \
	    install -d $(DESTDIR)$(PREFIX)/share/man/man$$s; \
	    install -m 644 man/man$$s/*.$$s $(DESTDIR)$(PREFIX)/share/man/man$$s || exit 1; \
	done
	sh shell/install.sh $(DESTDIR)$(PREFIX)

# Its files by their names; the directories are the system's, but for one.
uninstall:  ## remove what make install wrote below PREFIX
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/, \
	    $(foreach t,$(notdir $(TOOLS)),bin/$t share/bash-completion/completions/$t share/zsh/site-functions/_$t \
	        share/fish/vendor_completions.d/$t.fish) \
	    $(MANUALS:man/%=share/man/%) lib/hssl/hssl-cuda.so lib/hssl/hssl-mpi.so)
	[ ! -d $(DESTDIR)$(PREFIX)/lib/hssl ] || rmdir --ignore-fail-on-non-empty $(DESTDIR)$(PREFIX)/lib/hssl

clean:  ## remove build/
	rm -rf build

-include $(shell find $B/obj -name '*.d' 2>/dev/null)
