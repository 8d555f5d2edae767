"""Schedules and messages whose payload stays on a GPU: MPI gets its pointers, the GPU adds.

As in `messages/executor.py`, but a step's sums are work of the GPU, which runs them when it can. Until they
have run, the lane stands still: its next step would send what they make, receive where they read, or use
their staging areas again. Other lanes go on. Nobody blocks; the engine asks marks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from distrain import timeline
from distrain.comm.buffers import FlatBuffer, Reducer, Reduction
from distrain.comm.device.side import Mark, Side
from distrain.comm.messages.executor import Arrival, Lane, ScheduleOperation
from distrain.comm.messages.plain import MessageOperation
from distrain.comm.process.mpi import MPI

# A segment costs some 100 µs of Python and of starting a sum, whatever its length, and a link of 100 Gbit/s
# carries a megabyte meanwhile. Used where `comm.segment_bytes` is not set.
SEGMENT_BYTES = 1 << 20

_REDUCERS: dict[Reduction, Reducer] = {
    Reduction.SUM: torch.add,
    Reduction.AVG: torch.add,
    Reduction.PROD: torch.mul,
    Reduction.MIN: torch.minimum,
    Reduction.MAX: torch.maximum,
    Reduction.BAND: torch.bitwise_and,
    Reduction.BOR: torch.bitwise_or,
    Reduction.BXOR: torch.bitwise_xor,
}


def pointer(tensor: torch.Tensor) -> MPI.buffer:
    """Return the memory of a contiguous tensor as MPI takes it: address and bytes, whatever device it is of.

    mpi4py would also take the tensor, but DLPack, which it asks first, may wait for a stream.
    """
    return MPI.buffer.fromaddress(tensor.data_ptr(), tensor.nbytes)


class DeviceBuffer(FlatBuffer):
    """A contiguous tensor of a GPU as a run of elements, like a `FlatBuffer`.

    Attributes:
        side: of its device.
    """

    def __init__(self, tensor: torch.Tensor, side: Side) -> None:
        self.side = side
        self._given = tensor
        self.dtype, self.count, self.itemsize = tensor.dtype, tensor.numel(), tensor.element_size()
        self.address = tensor.data_ptr()

    def reducer(self, reduction: Reduction) -> Reducer:
        """See `FlatBuffer`."""
        self.check(reduction)
        return _REDUCERS[reduction]

    def elements(self, start: int, stop: int) -> torch.Tensor:
        """See `FlatBuffer`."""
        return self.tensor[start:stop]

    def typed(self, staging: Any, count: int) -> torch.Tensor:
        """See `FlatBuffer`; the staging area is a tensor of the device."""
        area: torch.Tensor = staging[: count * self.itemsize]
        return area.view(self.dtype)

    def window(self, start: int, stop: int) -> Any:
        """See `FlatBuffer`."""
        size_bytes = (stop - start) * self.itemsize
        return MPI.buffer.fromaddress(self.address + start * self.itemsize, size_bytes)

    def divide(self, divisor: Any) -> None:
        """See `FlatBuffer`."""
        # torch multiplies what lies on a GPU with the inverse of a number of the host, rounded otherwise.
        # Beyond 256 ranks bfloat16 has no such number of its own, and the last bit may differ from the CPU's.
        kind = self.dtype.to_real() if self.dtype.is_complex else self.dtype
        if kind.is_floating_point and torch.tensor(divisor, dtype=kind).item() == divisor:
            divisor = torch.full((), divisor, dtype=kind, device=self._given.device)
        super().divide(divisor)


class PointerOperation(ScheduleOperation):
    """A `ScheduleOperation` of a `DeviceBuffer`; the pool of its context must be that of its device."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        assert isinstance(self._buffer, DeviceBuffer)
        self._side = self._buffer.side
        self._summing: deque[tuple[Lane, Mark]] = deque()  # lanes that stand still, oldest first
        self._last: Mark | None = None
        self.algorithm = f"{self._plan.title} on the GPU"

    def start(self) -> None:
        """Begin the first step of every lane."""
        with self._side.pointing():
            super().start()

    def progress(self) -> bool:
        """Let lanes go on whose sums have run, collect what is complete."""
        with self._side.pointing():
            while self._summing and self._summing[0][1].is_reached():
                lane, _ = self._summing.popleft()
                self.moved += 1
                if self._next_step(lane):
                    self._advance(lane)
            return super().progress()

    def _advance(self, lane: Lane) -> None:
        while lane.open == 0:
            if timeline.current() is not None:
                self._record(lane)
            if lane.arrivals:
                self._summing.append((lane, self._side.combine(self._sums(lane.arrivals))))
                return
            if not self._next_step(lane):
                return

    def _sums(self, arrivals: list[Arrival]) -> Callable[[], None]:
        def run() -> None:
            for op, start, stop, area in arrivals:
                self._take_in(op, start, stop, area)

        return run

    def _end(self) -> bool:
        """Divide; return True when that has run too."""
        if self._divide and self._last is None:
            ranks = self._comm.Get_size()
            self._last = self._side.combine(lambda: self._buffer.divide(ranks))
        return self._last is None or self._last.is_reached()

    def _landing(self, area: Any, size_bytes: int) -> Any:
        return pointer(area[:size_bytes])


class PointerMessages(MessageOperation):
    """A `MessageOperation` of pointers of a GPU.

    Args:
        side: of the GPU.
        args, named: of a `MessageOperation`.
    """

    def __init__(self, side: Side, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._side = side

    def start(self) -> None:
        """Post all receives, then all sends."""
        with self._side.pointing():
            super().start()

    def progress(self) -> bool:
        """Collect what is complete."""
        with self._side.pointing():
            return super().progress()
