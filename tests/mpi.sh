# For tests that start ranks with mpirun, behind tap.sh: on whatever machine, as whatever user.
#
#   mpi_works           whether there is what it takes
#   rank_pid NUMBER     the process of this rank's trainer

OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none
ASAN_OPTIONS=${ASAN_OPTIONS:-}${ASAN_OPTIONS:+:}detect_leaks=0 # MPI's own
export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM OMPI_MCA_rmaps_base_oversubscribe \
    OMPI_MCA_hwloc_base_binding_policy OMPI_MCA_btl_vader_single_copy_mechanism ASAN_OPTIONS

mpi_works() {
    command -v mpirun >/dev/null && [ -e "$HSSL_BIN/hssl-mpi.so" ]
}

rank_pid() {
    for p in $(processes | sed -n 's/^\([0-9]*\) [^ ]*hssl-train.*/\1/p'); do
        tr '\0' '\n' 2>/dev/null </proc/"$p"/environ | grep -qx "OMPI_COMM_WORLD_RANK=$1" &&
            [ "$(readlink "/proc/$p/cwd")" = "$(pwd -P)" ] && echo "$p"
    done | head -1
}
