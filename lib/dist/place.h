/* Which of how many processes of one training this is, as whoever started them put it into the environment. */
#ifndef HSSL_DIST_PLACE_H
#define HSSL_DIST_PLACE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    int rank, world; /* world 1: alone */
    int local;       /* rank among those on this host */
    int local_world; /* how many those are, as far as known, else world */
    bool spread;     /* known to be on more hosts than this one */
    const char *by;  /* "mpirun", "torchrun", "slurm", or "" */
} Place;

/* Open MPI's OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE; MPICH's and Intel's PMI_RANK, PMI_SIZE,
 * MPI_LOCALRANKID, MPI_LOCALNRANKS; torchrun's RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE; Slurm's SLURM_PROCID,
 * SLURM_NTASKS, SLURM_LOCALID of a job step. The first of them that is there counts. 0, or -1 with ERR_USAGE that names
 * the variable which makes no sense. */
int place_find(Place *p);

/* Where ranks that no mpirun started meet: HOST:PORT, and a word that is the job's alone, though no secret. Of
 * HSSL_MUSTER, of torchrun's MASTER_ADDR and the port above MASTER_PORT, or of Slurm's first host and a port made
 * of the job's number. 0, or -1. */
int place_meeting(const Place *p, char *address, size_t size, char *job, size_t job_size);
/* HSSL_MUSTER, or NULL where it is not there. 0, or -1 where it is not HOST:PORT. */
int place_given(const char **address);

#endif
