"""What torch passes to a collective: its options, tensors bare or in lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from distrain.comm.backend import BACKEND
from distrain.comm.buffers import Reduction
from distrain.comm.operation import Operation
from distrain.comm.work import DistrainWork
from distrain.errors import CallError

_REDUCTIONS = {
    "SUM": Reduction.SUM,
    "AVG": Reduction.AVG,
    "PRODUCT": Reduction.PROD,
    "MIN": Reduction.MIN,
    "MAX": Reduction.MAX,
    "BAND": Reduction.BAND,
    "BOR": Reduction.BOR,
    "BXOR": Reduction.BXOR,
}
_PREMUL_SUM = dist.ReduceOp.PREMUL_SUM


def factor_of(options: Any, dtype: torch.dtype) -> Any:
    """Return the number by which PREMUL_SUM multiplies what this rank gives; None: of all other operations.

    Raises:
        CallError: the type is not of floating-point or complex numbers.
    """
    op = getattr(options, "reduceOp", options)
    if options is None or op != _PREMUL_SUM:
        return None
    if not (dtype.is_floating_point or dtype.is_complex):
        raise CallError("reduce", f"op=PREMUL_SUM of {dtype}", "use SUM and scale the tensor")
    factor = op.__getstate__()[1]
    return factor.item() if isinstance(factor, torch.Tensor) else factor


def scaled(tensor: torch.Tensor, factor: Any) -> torch.Tensor:
    """Multiply a tensor that is about to be summed by such a factor, in place; return it."""
    if factor is None:
        return tensor
    with torch.inference_mode():  # as the engine writes: a tensor made in inference mode may come
        return tensor.mul_(factor)


def reduction_of(options: Any) -> Reduction:
    """Return the Reduction that torch's options name; a sum if there are none. See also `factor_of`.

    Raises:
        CallError: the op is unknown.
    """
    op = dist.ReduceOp.SUM if options is None else getattr(options, "reduceOp", options)
    if op == _PREMUL_SUM:
        return Reduction.SUM
    for name, reduction in _REDUCTIONS.items():
        if op == getattr(dist.ReduceOp, name):
            return reduction
    raise CallError("reduce", f"op={op} is unknown to backend {BACKEND!r}", "use SUM and scale the tensor")


def limit(operations: Sequence[Operation], options: Any) -> None:
    """Have whoever waits for operations get an error after the timeout of the call, if it has one."""
    seconds = options.timeout.total_seconds()
    if seconds > 0:
        for operation in operations:
            operation.timeout_seconds = seconds


def limited(work: Any, options: Any) -> Any:
    """Do that for those of a Work; return it."""
    if isinstance(work, DistrainWork):
        limit(work.operations, options)
    return work


def as_list(tensors: Any) -> list[torch.Tensor]:
    """Return a list of tensors from one tensor or several (torch has both forms of most calls)."""
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)


def only(tensors: Any) -> torch.Tensor:
    """Return the single tensor of a call; the lists of several are a relic of one process, many GPUs.

    Raises:
        CallError: there is not exactly one.
    """
    found = as_list(tensors)
    if len(found) != 1:
        raise CallError("collective", f"{len(found)} tensors were given", "pass one tensor per rank")
    return found[0]


def only_list(lists: Any) -> list[torch.Tensor]:
    """Return the single list of tensors, given bare or wrapped in a list."""
    found = list(lists)
    if len(found) == 1 and not isinstance(found[0], torch.Tensor):
        return list(found[0])
    return found


def pack(sources: Sequence[torch.Tensor], flat: torch.Tensor) -> None:
    """Copy tensors one after the other into ``flat: [sum of their elements]``."""
    begin = 0
    for source in sources:
        flat[begin : begin + source.numel()].copy_(source.reshape(-1))
        begin += source.numel()


def unpack(flat: torch.Tensor, targets: Sequence[torch.Tensor]) -> None:
    """Copy ``flat: [sum of their elements]`` into contiguous tensors, one after the other."""
    begin = 0
    for target in targets:
        target.view(-1).copy_(flat[begin : begin + target.numel()])
        begin += target.numel()
