"""Payloads whose sums tell who was counted how often, and what simulation says about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from distrain.comm.buffers import Reduction, byte_view
from distrain.schedule.ir import Schedule
from distrain.schedule.simulate import simulate

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)
COUNTS = (0, 1, 3, 7, 97, 1009)


def decoding(rank: int, size: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Contribution ``(size + 1)**rank``, shifted by the position where the type can hold it.

    In base size+1 digit r of a sum tells how often rank r was counted.
    """
    values = torch.full((count,), (size + 1) ** rank, dtype=torch.float64)
    return values.to(dtype)


def everyone(size: int) -> int:
    """The sum in which each rank was counted exactly once."""
    return sum((size + 1) ** rank for rank in range(size))


def noise(rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers that round in every addition, different on each rank, known to all ranks."""
    generator = torch.Generator().manual_seed(1000 + rank)
    if not dtype.is_floating_point:
        return torch.randint(-1000, 1000, (count,), generator=generator).to(dtype)
    return torch.randn(count, generator=generator).to(dtype)


def _torch_reducer(dtype: torch.dtype, operation: Callable[..., Any]) -> Callable[..., Any]:
    """A reducer of numpy arrays that hold the bits of a half type."""

    def reduce(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        left, right = (torch.from_numpy(x.copy()).view(dtype) for x in (a, b))
        out[...] = operation(left, right).view(torch.int16).numpy()

    return reduce


def simulated(
    schedule: Schedule, rank: int, inputs: list[torch.Tensor], reduction: Reduction
) -> torch.Tensor:
    """What `rank` must hold at the end, bit for bit, without the division of AVG."""
    names = {Reduction.SUM: "add", Reduction.AVG: "add", Reduction.MAX: "maximum", Reduction.MIN: "minimum"}
    dtype = inputs[0].dtype
    if dtype in (torch.float16, torch.bfloat16):
        arrays = [x.view(torch.int16).numpy() for x in inputs]
        reduce: Any = _torch_reducer(dtype, getattr(torch, names[reduction]))
    else:
        arrays = [x.numpy() for x in inputs]
        reduce = getattr(np, names[reduction])
    result = torch.from_numpy(simulate(schedule, arrays, reduce=reduce)[rank])
    return result.view(dtype) if result.dtype != dtype else result


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and np.array_equal(byte_view(a), byte_view(b))
