"""What training says between ranks beside gradients: a few numbers, in CPU tensors.

Every function is a collective when a torch process group of more than one rank is up, and the
identity otherwise: code that calls them reads the same for one rank and for many.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distrain import errors
from distrain.errors import DistrainError

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
TOLD_SECONDS = 60.0
Result = TypeVar("Result")


def together() -> bool:
    """True if a process group of more than one rank is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This rank's number, 0 without a process group."""
    return dist.get_rank() if together() else 0


def barrier() -> None:
    """Return when every rank has come here."""
    if together():
        dist.barrier()


def sum_ints(values: Sequence[int]) -> list[int]:
    """Sum over ranks, element by element, exact (int64)."""
    return [int(value) for value in _all_reduce(torch.tensor(values, dtype=torch.int64)).tolist()]


def sum_floats(values: Sequence[float]) -> list[float]:
    """Sum over ranks, element by element (float64)."""
    return [float(value) for value in _all_reduce(torch.tensor(values, dtype=torch.float64)).tolist()]


def minimum(value: int) -> int:
    """The smallest value of all ranks (int64)."""
    return int(_all_reduce(torch.tensor([value], dtype=torch.int64), dist.ReduceOp.MIN).item())


def _all_reduce(tensor: Tensor, op: Any = dist.ReduceOp.SUM) -> Tensor:
    if together():
        dist.all_reduce(tensor, op=op)
    return tensor


def gather(value: Any) -> list[Any]:
    """One small picklable value of each rank, in the order of ranks, on every rank."""
    if not together():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_bytes(payload: bytes | None) -> bytes | None:
    """The payload of rank 0 (or None) on every rank; what the others pass is ignored."""
    if not together():
        return payload
    size = torch.tensor([-1 if payload is None else len(payload)], dtype=torch.int64)
    dist.broadcast(size, src=0)
    if size.item() < 0:
        return None
    if rank() == 0 and payload is not None:
        data = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
    else:
        data = torch.empty(int(size.item()), dtype=torch.uint8)
    dist.broadcast(data, src=0)
    return data.numpy().tobytes()


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors of all ranks with those of rank 0, one message for each dtype."""
    if not together():
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for group in by_dtype.values():
        flat = torch.cat([tensor.detach().reshape(-1).cpu() for tensor in group])
        dist.broadcast(flat, src=0)
        for tensor, values in zip(group, flat.split([t.numel() for t in group]), strict=True):
            tensor.data.copy_(values.view(tensor.shape))


class _Group:
    """The process group as a communicator, as far as `distrain.errors.agree` needs one."""

    def allgather(self, sendobj: Any) -> list[Any]:
        return gather(sendobj)


def agree(error: DistrainError | None) -> None:
    """Raise the error of the lowest rank that has one on every rank, so that none waits for another."""
    errors.agree(_Group(), error)


class _Task(threading.Thread, Generic[Result]):
    """Work in a thread of its own, which ends with the process at the latest."""

    def __init__(self, work: Callable[[], Result]) -> None:
        super().__init__(name="distrain-rank-0", daemon=True)
        self._work = work
        self.result: Result | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # whoever waits raises it
            self.error = error

    def runs_on(self) -> bool:
        """Return whether it still runs after a moment."""
        self.join(BEAT_SECONDS)
        return self.is_alive()


def by_first(me: int, work: Callable[[], Result], limit_seconds: float, late: DistrainError) -> Result | None:
    """Let rank 0 do something that may take long, and all raise its error; a collective.

    The others do not wait in one collective, which would count as hung after ``comm.abort_seconds`` however
    healthy rank 0 is, but in a row of short ones: a rank 0 that is gone is still noticed as everywhere else.

    Args:
        me: this rank's number, which counts without a process group too.
        work: done by rank 0 alone, in a thread of its own if there are others. No collectives in it.
        limit_seconds: how long it may take where others wait.
        late: raised by all if it takes longer; its place is named every minute meanwhile.

    Returns:
        What the work returned, on rank 0; None elsewhere.

    Raises:
        DistrainError: that of the work, on all ranks.
    """
    if not together():
        return work() if me == 0 else None
    if me != 0:
        while _first_is_busy(False):
            pass
        agree(None)
        return None
    task = _Task(work)
    task.start()
    began = told = time.monotonic()
    while _first_is_busy(task.runs_on() and time.monotonic() - began < limit_seconds):
        if time.monotonic() - told > TOLD_SECONDS:
            told = time.monotonic()
            log.warning("%s: rank 0 has been at it for %.0f s", late.where, told - began)
    error = late if task.is_alive() else task.error
    if error is not None and not isinstance(error, DistrainError):
        raise error  # the others cannot be told; it ends the job
    agree(error)
    return task.result


def _first_is_busy(busy: bool) -> bool:
    """Tell all what rank 0 says."""
    flag = torch.tensor([int(busy)], dtype=torch.int64)
    dist.broadcast(flag, src=0)
    return bool(flag.item())
