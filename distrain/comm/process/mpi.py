"""Start of MPI, and what it says about this process: its rank, its host, its neighbours.

The import of `mpi4py.MPI` initialises MPI, so this module decides with which thread level. The others of
`comm` take `MPI` from here, so that whichever of them is imported first starts it in the same way.
"""

from __future__ import annotations

import os
import sys
from typing import cast

import mpi4py

import distrain.comm.process.event_sets  # noqa: F401  (it looks at what is open before MPI starts)
from distrain.comm.process.preflight import (
    check_is_rank,
    check_world_size,
    host_labels,
    note_rank,
    parent_rank,
)
from distrain.errors import LaunchError
from distrain.world import World

if "mpi4py.MPI" not in sys.modules and "MPI4PY_RC_THREAD_LEVEL" not in os.environ:
    # One thread at a time calls MPI, though not always the same one: "serialized" is enough,
    # and some libraries take slower locks for "multiple". Horovod needs that.
    mpi4py.rc.thread_level = "serialized"

if parent_rank(os.environ, os.getpid()) is not None:
    mpi4py.rc.initialize = False  # a child of a rank may import what it likes; see `initialize`

from mpi4py import MPI as MPI  # for the others

_LEVELS = {
    MPI.THREAD_SINGLE: "single",
    MPI.THREAD_FUNNELED: "funneled",
    MPI.THREAD_SERIALIZED: "serialized",
    MPI.THREAD_MULTIPLE: "multiple",
}


def library() -> str:
    """Return name and version of the MPI library in use, e.g. ``"Open MPI 5.0.11"``."""
    name, version = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, version))}"


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
        LaunchError: the thread level is too low, the world is not the one that was launched, or this
            process is the child of a rank.
    """
    check_is_rank(os.environ, os.getpid())
    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_SERIALIZED)
    check_thread_level(MPI.Query_thread())
    check_world_size(MPI.COMM_WORLD.Get_size(), os.environ, library())
    note_rank(os.environ, os.getpid())
    return MPI.COMM_WORLD


def node_comm(comm: MPI.Intracomm) -> MPI.Intracomm:
    """Return a new communicator of the ranks that share memory with this one. Collective."""
    return cast("MPI.Intracomm", comm.Split_type(MPI.COMM_TYPE_SHARED, comm.Get_rank(), MPI.INFO_NULL))


def discover_world(comm: MPI.Intracomm) -> World:
    """Return who this rank is and on which node every rank runs. Collective."""
    node = node_comm(comm)
    leader = node.bcast(comm.Get_rank(), root=0)
    node.Free()
    reports = comm.allgather((MPI.Get_processor_name(), leader))
    hosts = host_labels([name for name, _ in reports], [leader for _, leader in reports])
    return World.of(comm.Get_rank(), hosts)
