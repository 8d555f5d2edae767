"""Start of MPI, and what it says about this process: its rank, its host, its neighbours.

The import of `mpi4py.MPI` initialises MPI, so this module decides with which thread level.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import cast

import mpi4py

from distrain.errors import LaunchError
from distrain.world import World

if "mpi4py.MPI" not in sys.modules:
    # One thread at a time calls MPI, though not always the same one: "serialized" is enough,
    # and some libraries take slower locks for "multiple".
    mpi4py.rc.thread_level = "serialized"

from mpi4py import MPI

# Variables in which launchers write how many ranks they started; srun's is one only when
# this process is a task of a step (SLURM_PROCID), not the batch script itself.
_PROMISES = ("DISTRAIN_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_LEVELS = {
    MPI.THREAD_SINGLE: "single",
    MPI.THREAD_FUNNELED: "funneled",
    MPI.THREAD_SERIALIZED: "serialized",
    MPI.THREAD_MULTIPLE: "multiple",
}


def library() -> str:
    """Return name and version of the MPI library in use, e.g. ``"Open MPI v5.0.11"``."""
    return MPI.Get_library_version().split("\n")[0].split(",")[0].strip("\0 ")


def promised_size(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the variable in which the launcher promised a world size, and that size, if any did."""
    names = list(_PROMISES)
    if "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        names += ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]
    for name in names:
        if environment.get(name, "").isdigit():
            return name, int(environment[name])
    return None


def check_world_size(size: int, environment: Mapping[str, str]) -> None:
    """Compare the world with the launcher's promise.

    A launcher and an MPI library that do not know each other start N worlds of one rank, with
    no error and exit code 0; each would train alone.

    Raises:
        LaunchError: the world has another size than the launcher promised.
    """
    promise = promised_size(environment)
    if promise is None or promise[1] == size:
        return
    name, wanted = promise
    raise LaunchError(
        "MPI world",
        f"size={size} but {name}={wanted}: {_launcher(environment)} started {wanted} "
        f"processes and the MPI library of mpi4py ({library()}) knows nothing of them",
        "start the job with the mpirun of that library (`distrain doctor` shows which one mpi4py loads), "
        "or under srun choose a matching --mpi, e.g. --mpi=pmix for Open MPI, --mpi=pmi2 for MPICH",
    )


def _launcher(environment: Mapping[str, str]) -> str:
    if "SLURM_PROCID" in environment and "OMPI_COMM_WORLD_SIZE" not in environment:
        return "srun"
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return "an Open MPI mpirun"
    return "an mpirun of the MPICH family" if "PMI_SIZE" in environment else "the launcher"


def check_thread_level(provided: int) -> None:
    """Make sure that a thread other than the main one may call MPI.

    Raises:
        LaunchError: the level is below MPI_THREAD_SERIALIZED.
    """
    if provided < MPI.THREAD_SERIALIZED:
        raise LaunchError(
            "MPI start-up",
            f"thread level={_LEVELS.get(provided, provided)} is below 'serialized' ({library()})",
            "import distrain before mpi4py.MPI, or set MPI4PY_RC_THREAD_LEVEL=serialized; "
            "if that does not help, the MPI library was built without thread support",
        )


def initialize() -> MPI.Intracomm:
    """Return COMM_WORLD of a started MPI whose world and thread level are what distrain needs.

    Raises:
        LaunchError: the thread level is too low, or the world is not the one that was launched.
    """
    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_SERIALIZED)
    check_thread_level(MPI.Query_thread())
    check_world_size(MPI.COMM_WORLD.Get_size(), os.environ)
    return MPI.COMM_WORLD


def node_comm(comm: MPI.Intracomm) -> MPI.Intracomm:
    """Return a new communicator of the ranks that share memory with this one. Collective."""
    return cast("MPI.Intracomm", comm.Split_type(MPI.COMM_TYPE_SHARED, comm.Get_rank(), MPI.INFO_NULL))


def host_labels(names: Sequence[str], leaders: Sequence[int]) -> list[str]:
    """Give every rank the name of its node.

    Args:
        names: the host name that each rank reports.
        leaders: the lowest rank among those that share memory with each rank.

    Two nodes may report one name (containers, emulated hosts): they are told apart by their
    leaders, and get ``name``, ``name#1``, ``name#2`` in the order of those.
    """
    labels: dict[int, str] = {}
    seen: dict[str, int] = {}
    for leader in sorted(set(leaders)):
        name = names[leader]
        copies = seen.get(name, 0)
        labels[leader] = name if copies == 0 else f"{name}#{copies}"
        seen[name] = copies + 1
    return [labels[leader] for leader in leaders]


def discover_world(comm: MPI.Intracomm) -> World:
    """Return who this rank is and on which node every rank runs. Collective."""
    node = node_comm(comm)
    leader = node.bcast(comm.Get_rank(), root=0)
    node.Free()
    reports = comm.allgather((MPI.Get_processor_name(), leader))
    hosts = host_labels([name for name, _ in reports], [leader for _, leader in reports])
    return World.of(comm.Get_rank(), hosts)
