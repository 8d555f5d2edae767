"""What training says between ranks beside gradients: a few numbers, in CPU tensors.

Every function is a collective when a torch process group of more than one rank is up, and the
identity otherwise: code that calls them reads the same for one rank and for many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from distrain import errors
from distrain.errors import DistrainError


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
