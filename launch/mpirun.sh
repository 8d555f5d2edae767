#!/bin/bash
# Starts a training run with plain mpirun, for people who want no launcher. Copy it and edit the four lines.
#
#   launch/mpirun.sh configs/digits.yaml [key=value ...]
#
# Open MPI as it is; for MPICH and Intel MPI take the line below it.
set -eu

RANKS=2
PYTHON="${PYTHON:-$PWD/.venv/bin/python}"
MPIRUN="${MPIRUN:-$(dirname "$PYTHON")/mpirun}"
RUN_DIR="${RUN_DIR:-$PWD/runs/by-hand}"

[ $# -ge 1 ] || { echo "usage: $0 CONFIG [key=value ...]" >&2; exit 2; }
config=$(realpath "$1")
shift
mkdir -p "$RUN_DIR"

export DISTRAIN_WORLD_SIZE=$RANKS       # each rank compares it with the world that MPI gives it
export DISTRAIN_RUN_DIR=$RUN_DIR        # where checkpoints, metrics and logs go
export DISTRAIN_RESUME=${DISTRAIN_RESUME:-}   # set it to $RUN_DIR to go on from its newest checkpoint
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # cores of this machine / ranks
export OMPI_MCA_osc=^ucx                # quiet: Open MPI's ucx windows fail to start without a fast network

root=""
[ "$(id -u)" -ne 0 ] || root=--allow-run-as-root   # Open MPI asks root to say so; containers run as root

# One machine. On several add: --hostfile FILE (lines `name slots=N`) -x DISTRAIN_WORLD_SIZE -x DISTRAIN_RUN_DIR
# -x DISTRAIN_RESUME -x OMP_NUM_THREADS, since Open MPI passes no variable to other machines by itself.
exec "$MPIRUN" -np "$RANKS" --map-by slot:OVERSUBSCRIBE --bind-to none --mca mpi_yield_when_idle 1 $root \
  "$PYTHON" -m distrain train "$config" "$@"

# MPICH:     exec "$MPIRUN" -np "$RANKS" -bind-to none [-f FILE with lines `name:N`] "$PYTHON" -m distrain ...
# Intel MPI: the same with mpiexec.hydra (signals end its mpirun alone), without -bind-to, and export I_MPI_PIN=off
