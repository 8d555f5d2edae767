"""Start and end: what a user's script calls.

import distrain
distrain.init_process_group()      # under mpirun or srun, or alone
...
distrain.destroy_process_group()   # optional: also done when Python ends
"""

from __future__ import annotations

import atexit
import os
from datetime import timedelta

import torch.distributed as dist

from distrain.comm import exits, runtime
from distrain.comm.engine import Engine
from distrain.comm.plugin import BACKEND, register
from distrain.comm.rendezvous import make_store
from distrain.comm.settings import CommSettings
from distrain.errors import LaunchError, UsageError
from distrain.world import World

register()


def init_process_group(settings: CommSettings | None = None, timeout: timedelta | None = None) -> World:
    """Make this process a rank of torch.distributed; who and how many comes from MPI. Collective.

    Args:
        settings: how gradients travel; None for the defaults.
        timeout: torch's timeout of the group: how long point to point may wait; None for torch's default.

    Returns:
        Who this rank is, and on which node every rank runs.

    Raises:
        UsageError: torch.distributed is already initialised.
        LaunchError: the MPI world is not the one that was launched, or ranks cannot reach rank 0.
    """
    if dist.is_initialized():
        raise UsageError(
            "init_process_group",
            f"torch.distributed is already initialised (backend {dist.get_backend()!r})",
            "call it once, or call destroy_process_group() first",
        )
    store, world = meet(settings)
    dist.init_process_group(BACKEND, store=store, rank=world.rank, world_size=world.size, timeout=timeout)
    return world


def meet(settings: CommSettings | None = None) -> tuple[dist.Store, World]:
    """Start communication if need be, and return the store of all ranks, and who this one is. Collective.

    Raises:
        LaunchError: the MPI world is not the one that was launched, or ranks cannot reach rank 0.
        UsageError: communication is already started with other settings.
    """
    state = runtime.start(settings)
    world = state.world
    if dist.is_torchelastic_launched() and os.environ.get("WORLD_SIZE") != str(world.size):
        raise LaunchError(
            "init_process_group",
            f"torchrun started WORLD_SIZE={os.environ.get('WORLD_SIZE')} ranks, MPI sees {world.size}",
            "start with mpirun, srun or `distrain train`, not with torchrun",
        )
    return state.engine.call(lambda: make_store(state.comm, world)), world


def destroy_process_group() -> None:
    """Finish all communication, end torch.distributed and the engine. A second call changes nothing."""
    exits.forget_exit()
    if dist.is_initialized():
        dist.destroy_process_group()
    runtime.stop()


def engine() -> Engine:
    """Return the engine, for rooms that submit operations of their own.

    Raises:
        UsageError: communication was not started.
    """
    return runtime.current().engine


@atexit.register
def _at_exit() -> None:
    exits.at_exit()
    if runtime.is_started():
        destroy_process_group()
