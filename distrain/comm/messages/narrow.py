"""Sixteen bits on the wire, thirty-two in the sums.

A float32 payload is rounded to fp16 or bf16 as it leaves and widened as it arrives; all additions
are float32. What a rank sends, it also keeps in its rounded form: so the rank that finishes a sum
and those to which it sends the sum hold the same bits, for every Schedule that promises this for
plain payloads. Each contribution is rounded once for every rank that hands the partial sum on:
P - 1 times around a ring, about log2(P) times in halving and doubling, and once more at the end. Where
partners exchange sums (recursive doubling), nobody sends the last one on; all round it alike.
"""

from __future__ import annotations

import numpy as np
import torch

from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.messages.context import MessageContext
from distrain.comm.messages.executor import Lane, ScheduleOperation
from distrain.comm.messages.plan import Plan
from distrain.errors import UsageError
from distrain.schedule.ir import Op

WIRE_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class NarrowOperation(ScheduleOperation):
    """A sum (or average) of float32 that travels in a 16-bit type.

    Args:
        wire_dtype: torch.float16 or torch.bfloat16.
        plan, buffer, reduction, context: see `ScheduleOperation`.

    Raises:
        UsageError: the payload is not float32, or the reduction is neither SUM nor AVG.
    """

    _stages_copies = True

    def __init__(
        self,
        wire_dtype: torch.dtype,
        plan: Plan,
        buffer: FlatBuffer,
        reduction: Reduction,
        context: MessageContext,
    ) -> None:
        if buffer.dtype is not torch.float32 or reduction not in (Reduction.SUM, Reduction.AVG):
            raise UsageError(
                "wire dtype",
                f"{reduction.value} of {buffer.dtype} cannot travel as {wire_dtype}",
                "use it for sums and averages of float32 only",
            )
        super().__init__(plan, buffer, reduction, context)
        self.algorithm = f"{plan.title} in {str(wire_dtype).removeprefix('torch.')}"
        self._wire_dtype = wire_dtype

    @property
    def _wire_itemsize(self) -> int:
        return 2

    def _narrow_view(self, area: np.ndarray, count: int) -> torch.Tensor:
        return torch.from_numpy(area[: 2 * count]).view(self._wire_dtype)

    def _outgoing(self, lane: Lane, start: int, stop: int) -> np.ndarray:
        """Round these elements, in place too, and return the rounded ones."""
        size_bytes = 2 * (stop - start)
        area = self._pool.take(size_bytes)
        lane.areas.append(area)
        mine, rounded = self._buffer.tensor[start:stop], self._narrow_view(area, stop - start)
        rounded.copy_(mine)
        mine.copy_(rounded)
        return area[:size_bytes]

    def _end(self) -> bool:
        """Round what the last step has added, which no rank sends on."""
        for steps in self._plan.colors:
            for message in steps[-1].receives if steps else ():
                if message.op is Op.REDUCE:
                    last = self._buffer.tensor[message.start : message.stop]
                    last.copy_(last.to(self._wire_dtype))
        return super()._end()

    def _take_in(self, op: Op, start: int, stop: int, area: np.ndarray) -> None:
        mine, arrived = self._buffer.tensor[start:stop], self._narrow_view(area, stop - start)
        if op is Op.REDUCE:
            mine.add_(arrived)
        else:
            mine.copy_(arrived)
