"""Start and end: what a user's script calls.

import distrain
distrain.init_process_group()      # under mpirun or srun, or alone
...
distrain.destroy_process_group()   # optional: also done when Python ends
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from distrain.comm import runtime
from distrain.comm.backend import BACKEND, register
from distrain.comm.engine.engine import Engine
from distrain.comm.group.untraced import untraced
from distrain.comm.process.rendezvous import make_store
from distrain.comm.process_group import DistrainProcessGroup, create_group
from distrain.comm.settings import CommSettings
from distrain.comm.shared.caller import REDUCTIONS
from distrain.comm.supervision import exits
from distrain.comm.sync import buckets
from distrain.errors import CallError, LaunchError, UsageError
from distrain.world import World

log = logging.getLogger(__name__)


def init_process_group(settings: CommSettings | None = None, timeout: timedelta | None = None) -> World:
    """Make this process a rank of torch.distributed; who and how many comes from MPI. Collective.

    Args:
        settings: how gradients travel; None for the defaults.
        timeout: torch's timeout of the group: how long each wait, for a collective or point to point, may
            last before it raises; None for torch's default of 30 minutes. A value that is longer than
            ``comm.abort_seconds`` also takes its place.

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


def rendezvous(url: str, timeout: timedelta, **kwargs: Any) -> Iterator[tuple[dist.Store, int, int]]:
    """Yield the store, rank and size of MPI's world; nothing of the address after `distrain://` is read."""
    store, world = meet()
    yield store, world.rank, world.size


register(create_group, rendezvous)  # where `import torch` did not, because distrain is not installed


@untraced
def allreduce(
    array: np.ndarray | torch.Tensor, op: str = "sum", group: dist.ProcessGroup | None = None
) -> None:
    """Combine an array over all ranks, in place; return when the result is there. Collective.

    The shortest way: of a contiguous array of up to 128 MiB one call of C, between nodes from the second call
    of a size on. All ranks pass the same number of elements, the same type and the same operation.

    Args:
        array: numpy array or tensor of any shape and strides: float16, float32, float64, complex64,
            complex128, integers of 8 to 64 bits, bool; a tensor also bfloat16, or on a GPU.
        op: ``sum``, ``avg``, ``prod``, ``min``, ``max``; of integers and bool also ``band``, ``bor`` and
            ``bxor``.
        group: whose ranks; None: all.

    Raises:
        CallError: not such an array, or an operation that its type does not have.
        CommError: the ranks did not call the same, or the communication failed.
        UsageError: communication was not started.
    """
    chosen: Any = dist.distributed_c10d.GroupMember.WORLD if group is None else group
    if chosen is None:
        raise UsageError(
            "allreduce", "there is no group of ranks", "call distrain.init_process_group() first"
        )
    if isinstance(chosen, DistrainProcessGroup) and chosen.allreduce_array(array, op):
        return
    dist.all_reduce(_tensor_of(array), _operation_of(op), group=group)


def ddp_buckets(module: torch.nn.Module, find_unused_parameters: bool = False) -> dict[str, Any]:
    """Return the arguments that let ``DistributedDataParallel`` cut the gradients into the right buckets.

    Each bucket costs some time, and the last ones of a step are hidden by nothing: so they are large at first
    and shrink towards the end. How large, follows from the sizes of the gradients, the hosts and the speed of
    their links::

        model = DistributedDataParallel(module, **distrain.ddp_buckets(module))

    Args:
        module: what is trained.
        find_unused_parameters: what DDP is told too: then it keeps the order of the module's parameters.

    Raises:
        UsageError: communication was not started.
    """
    return buckets.ddp_arguments(module, runtime.current().buckets, find_unused_parameters)


def _tensor_of(array: Any) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    if not isinstance(array, np.ndarray):
        raise CallError("allreduce", f"{type(array).__name__} is no array", "pass a numpy array or a tensor")
    if not array.flags.writeable:
        raise CallError("allreduce", "the array is read-only and is combined in place", "pass a copy")
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:  # a type that torch lacks, or negative strides
        raise CallError("allreduce", f"array of {array.dtype}: {error}", "pass a contiguous copy") from error


def _operation_of(name: str) -> Any:
    number = next((i for i, reduction in enumerate(REDUCTIONS) if reduction.value == name), None)
    if number is None:
        known = ", ".join(reduction.value for reduction in REDUCTIONS)
        raise CallError("allreduce", f"op={name!r} is unknown", f"name one of {known}")
    return dist.ReduceOp.RedOpType(number)


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
        try:
            failure = runtime.current().engine.failure
            destroy_process_group()
        except Exception as error:
            log.exception("communication cannot be ended")
            failure = error
        if failure is not None:  # others may wait for this rank, and MPI waits for them
            log.error("ended although communication had failed; ending the job")
            exits.end_job(1)
