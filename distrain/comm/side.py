"""Copies between a GPU and the host, beside what the GPU computes.

Two streams a device: what leaves waits for what the caller has computed so far, and what arrives must not
wait behind that. The engine's thread asks marks whether a copy has run; it never waits for the GPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch


class Mark(Protocol):
    """A place in the order of things that a device does."""

    def is_reached(self) -> bool:
        """Whether all before it is done; does not block."""
        ...

    def order_caller(self) -> None:
        """Let what the caller computes from now on wait for it; the calling thread does not."""
        ...


class Side(Protocol):
    """Copies of one device."""

    device: torch.device

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
    """A `Side` on two CUDA streams; host memory is pinned, from torch's cache of it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._leaving = torch.cuda.Stream(device)
        self._arriving = torch.cuda.Stream(device)

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


_sides: dict[torch.device, CudaSide] = {}


def side_of(tensor: torch.Tensor) -> Side | None:
    """Return the copies of a tensor's device; None for a tensor of the CPU, whose memory is used as it is."""
    if tensor.device.type != "cuda":
        return None
    if tensor.device not in _sides:
        _sides[tensor.device] = CudaSide(tensor.device)
    return _sides[tensor.device]
