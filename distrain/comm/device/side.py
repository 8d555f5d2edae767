"""What a GPU does for collectives, beside what it computes.

Three streams a device. What leaves for the host waits for what the caller has computed so far, and what
arrives must not wait behind that. Where MPI gets pointers, sums have a stream of their own, which waits for
nothing. The engine's thread asks marks whether a copy or a sum has run; it never waits for the GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from distrain.comm.buffers import StagingPool


class Mark(Protocol):
    """A place in the order of things that a device does."""

    def is_reached(self) -> bool:
        """Whether all before it is done; does not block."""
        ...

    def order_caller(self) -> None:
        """Let what the caller computes from now on wait for it; the calling thread does not."""
        ...


class Side(Protocol):
    """Copies and sums of one device.

    Attributes:
        device: which.
        pool: staging areas in its memory, for the engine's thread; MPI may write to them when they are taken.
    """

    device: torch.device
    pool: StagingPool

    def fetch(self, tensor: torch.Tensor) -> tuple[torch.Tensor, Mark]:
        """Start a copy to the host, after what the caller has computed so far.

        Returns:
            A contiguous CPU tensor, and when its contents are there.
        """
        ...

    def host_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return contiguous host memory for such a tensor, from which a copy may start at once."""
        ...

    def computed(self) -> Mark:
        """Return a mark after what the caller has computed so far."""
        ...

    def put(self, tensor: torch.Tensor, host: torch.Tensor, after: Mark | None) -> None:
        """Start a copy from `host_like` or `fetch` memory to the device, after a mark of it."""
        ...

    def arrived(self) -> Mark:
        """Return a mark after all `put` so far."""
        ...

    def arriving(self) -> AbstractContextManager[None]:
        """Make the stream of what arrives the current one."""
        ...

    # Where MPI gets pointers of the device.

    def compute(self, work: Callable[[], Any]) -> None:
        """Let the device do it in the order of what the caller computes. In the caller's thread."""
        ...

    def combine(self, work: Callable[[], Any]) -> Mark:
        """Let the device do it at once, after what it was given here before; return when it is done."""
        ...

    def land(self, work: Callable[[], Any], tensors: Iterable[torch.Tensor]) -> None:
        """Let the device do it among what arrives; it reads and writes these tensors."""
        ...

    def pointing(self) -> AbstractContextManager[None]:
        """Make the device the one in whose memory MPI looks when this thread gives it pointers."""
        ...


class _CudaMark:
    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._device = stream.device
        self.event = torch.cuda.Event()
        self.event.record(stream)

    def is_reached(self) -> bool:
        return self.event.query()

    def order_caller(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self.event)


class CudaSide:
    """A `Side` on three CUDA streams; host memory is pinned, from torch's cache of it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._leaving = torch.cuda.Stream(device)
        self._arriving = torch.cuda.Stream(device)
        # A sum that stands in line behind the kernels of a backward pass keeps a link idle.
        self._combining = torch.cuda.Stream(device, priority=-1)
        self.pool = StagingPool(self._area)

    def fetch(self, tensor: torch.Tensor) -> tuple[torch.Tensor, Mark]:
        """See `Side`."""
        self._leaving.wait_stream(torch.cuda.current_stream(self.device))
        host = self.host_like(tensor)
        with torch.cuda.stream(self._leaving):
            host.copy_(tensor.detach(), non_blocking=True)
        tensor.record_stream(self._leaving)  # its memory must not be reused before the copy has run
        return host, _CudaMark(self._leaving)

    def host_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Side`."""
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)

    def computed(self) -> Mark:
        """See `Side`."""
        return _CudaMark(torch.cuda.current_stream(self.device))

    def put(self, tensor: torch.Tensor, host: torch.Tensor, after: Mark | None) -> None:
        """See `Side`."""
        with torch.cuda.stream(self._arriving):
            if after is not None:
                after.order_caller()  # the current stream is the one that copies
            tensor.copy_(host, non_blocking=True)
        tensor.record_stream(self._arriving)

    def arrived(self) -> Mark:
        """See `Side`."""
        return _CudaMark(self._arriving)

    def arriving(self) -> AbstractContextManager[None]:
        """See `Side`."""
        return torch.cuda.stream(self._arriving)

    def compute(self, work: Callable[[], Any]) -> None:
        """See `Side`."""
        work()  # torch gives it to the caller's current stream

    def combine(self, work: Callable[[], Any]) -> Mark:
        """See `Side`."""
        with torch.cuda.stream(self._combining):
            work()
        return _CudaMark(self._combining)

    def land(self, work: Callable[[], Any], tensors: Iterable[torch.Tensor]) -> None:
        """See `Side`."""
        with torch.cuda.stream(self._arriving):
            work()
        for tensor in tensors:
            tensor.record_stream(self._arriving)

    @contextlib.contextmanager
    def pointing(self) -> Iterator[None]:
        """See `Side`."""
        with torch.cuda.device(self.device):
            # MPI looks for the context of the thread; in a new thread there is none before a call of CUDA.
            self._combining.query()
            yield

    def _area(self, size_bytes: int) -> torch.Tensor:
        # From this stream's part of torch's cache. MPI orders nothing by streams: what the memory was used
        # for before must be over. This waits for the GPU, but only for sums, and only until enough is kept.
        with torch.cuda.stream(self._combining), torch.inference_mode(False):
            area = torch.empty(size_bytes, dtype=torch.uint8, device=self.device)
        self._combining.synchronize()
        return area


_sides: dict[torch.device, CudaSide] = {}


def side_of(tensor: torch.Tensor) -> Side | None:
    """Return the copies of a tensor's device; None for a tensor of the CPU, whose memory is used as it is."""
    if not tensor.is_cuda:
        return None
    if tensor.device not in _sides:
        _sides[tensor.device] = CudaSide(tensor.device)
    return _sides[tensor.device]
