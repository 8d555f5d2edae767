"""Allreduces that the calling thread carries out in one call of C: see `csrc/caller.c`.

The general way (checks, a Work, the engine) is Python and takes longer than the exchange of a few kilobytes.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from distrain.comm import native
from distrain.comm.buffers import Reduction
from distrain.comm.shared.channel import YIELDS, Channel
from distrain.comm.supervision.call import Call
from distrain.errors import CallError

# In the order of torch's ReduceOp, whose hash is its number.
REDUCTIONS = (
    Reduction.SUM, Reduction.AVG, Reduction.PROD, Reduction.MIN,
    Reduction.MAX, Reduction.BAND, Reduction.BOR, Reduction.BXOR,
)  # fmt: skip
_UNKNOWN = 255  # of csrc/caller.c
# A caller goes on by itself until nothing has moved for so long; the engine reports stalls and never gives up
# too early.
CALLER_PATIENCE_SECONDS = 2e-3
# Of longer payloads the way through the engine is no part worth speaking of.
LONGEST_BYTES = 128 << 20


class DoneWork(dist.Work):
    """Handle of an allreduce that was complete when the call returned (torch: ``asyncOp=False``)."""

    def wait(self, timeout: Any = None) -> bool:
        """Return at once."""
        return True

    def synchronize(self) -> None:
        """Nothing: the result is there."""

    def is_completed(self) -> bool:
        """True."""
        return True

    def is_success(self) -> bool:
        """True."""
        return True

    def exception(self) -> None:
        """Return None: nothing went wrong."""

    def result(self) -> list[torch.Tensor]:
        """Refuse: one handle serves all such calls and knows none of their tensors.

        Raises:
            CallError: always.
        """
        raise CallError("allreduce", "was called with asyncOp=False", "look at the tensor that was passed")

    def get_future(self) -> torch.futures.Future:
        """Refuse, as `result`.

        Raises:
            CallError: always.
        """
        raise CallError("allreduce", "was called with asyncOp=False", "ask for a future with async_op=True")


DONE = DoneWork()


@functools.cache
def rows() -> dict[Any, bytes]:
    """Return how the C side calls each type, of torch and of numpy; the layout is that of `csrc/caller.c`."""
    rows: dict[Any, bytes] = {}
    for dtype in native.TYPES:
        codes = [native.codes(dtype, reduction) for reduction in REDUCTIONS]
        known = next(code for code in codes if code is not None)
        ops = (_UNKNOWN if code is None else code[2] for code in codes)
        rows[dtype] = bytes((known[0], known[1], dtype is not torch.bool, *ops))
        if dtype is not torch.bfloat16:  # the one that numpy lacks
            rows[np.dtype(str(dtype).removeprefix("torch."))] = rows[dtype]
    return rows


def make_caller(channel: Channel) -> Any:
    """Return a `Caller` of `csrc/caller.c` for a channel; None: it was not compiled for this Python.

    Its methods ``tensors(list of one tensor, options)`` and ``array(array or tensor, name)`` return

    - `DONE`: the sum is in place;
    - a number, as `Channel.advance` does: it was begun and is not complete, and the channel is held;
    - None: nothing was begun, and the general way must be taken.

    ``claim()`` keeps calls off the channel, ``release()`` lets them in again.
    """
    if not native.has_caller():
        return None
    made = importlib.import_module("distrain.comm._wire")
    return made.Caller(
        handle=channel.address,
        ranks=channel.ranks,
        spins=channel.spins,
        yields=YIELDS,
        patience_seconds=CALLER_PATIENCE_SECONDS,
        limit=LONGEST_BYTES,
        kinds=(torch.Tensor, torch.nn.Parameter),
        rows=rows(),
        names={reduction.value: number for number, reduction in enumerate(REDUCTIONS)},
        done=DONE,
    )


def last_call(caller: Any, number: int) -> tuple[Call, float] | None:
    """Return the last call of a `Caller`, which is collective `number` of its group, and when it was made.

    None: there was none.
    """
    if caller.dtype is None:
        return None
    return _call(number, caller.dtype, caller.count, caller.reduction), caller.since


def call_before(caller: Any, number: int) -> Call | None:
    """Return the last call but one of a `Caller`, as collective `number`; None: there was none."""
    if caller.dtype_before is None:
        return None
    return _call(number, caller.dtype_before, caller.count_before, caller.reduction_before)


def _call(number: int, dtype: Any, count: int, reduction: int) -> Call:
    if isinstance(dtype, np.dtype):
        dtype = getattr(torch, dtype.name)
    return Call(number, "allreduce", count, dtype, REDUCTIONS[reduction])
