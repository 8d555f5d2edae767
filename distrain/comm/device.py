"""The host side of a collective: where its bytes are while MPI works on them.

Contiguous CPU tensors are used as they are. Others are copied to contiguous host memory first
and back at the end; tensors on a GPU through pinned memory on a stream of their own, so that
the caller's stream only waits where it uses the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributed._functional_collectives import AsyncCollectiveTensor

from distrain.errors import CallError

_ORDINARY = torch.Tensor.__torch_dispatch__  # of all types that leave operations to torch
_streams: dict[torch.device, torch.cuda.Stream] = {}


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    return _streams[device]


def held(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor that holds the elements: the given one, or an awaited functional result.

    Raises:
        CallError: a type that handles operations itself, such as DTensor or FakeTensor: what stands at its
            address are not its elements, if anything stands there.
    """
    if type(tensor).__torch_dispatch__ is _ORDINARY:
        return tensor
    if isinstance(tensor, AsyncCollectiveTensor):
        return held(tensor.wait())
    raise CallError(
        "collective",
        f"a {type(tensor).__name__} has no memory of its own that could travel",
        "pass the tensor in it; of a DTensor that is to_local()",
    )


class HostSide:
    """Host copies of the tensors of one collective.

    Use from the submitting thread: `read`, `write`, `update`. From the engine thread:
    `is_ready` before the operation starts, `finish` when it is done.
    """

    def __init__(self) -> None:
        self._arriving: list[torch.cuda.Event] = []
        self._back: list[tuple[torch.Tensor, torch.Tensor]] = []  # (tensor, its host copy)

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous CPU tensor with the contents; after `is_ready` for one on a GPU.

        Raises:
            CallError: the tensor is sparse, has no memory, or is on a device that is neither CPU nor GPU.
        """
        tensor = held(tensor)
        _check(tensor)
        if tensor.device.type != "cuda":
            # Views that conjugate or negate do so when they are read, which bytes are not.
            return tensor.detach().resolve_conj().resolve_neg().contiguous()
        stream = _side_stream(tensor.device)
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        host = _pinned_like(tensor)
        with torch.cuda.stream(stream):
            host.copy_(tensor.detach(), non_blocking=True)
            event = torch.cuda.Event()
            event.record(stream)
        tensor.record_stream(stream)  # its memory must not be reused before the copy has run
        self._arriving.append(event)
        return host

    def write(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous CPU tensor whose contents `finish` moves into `tensor`.

        Raises:
            CallError: as for `read`.
        """
        tensor = held(tensor)
        _check(tensor)
        if tensor.device.type == "cuda":
            stream = _side_stream(tensor.device)
            stream.wait_stream(torch.cuda.current_stream(tensor.device))
            tensor.record_stream(stream)
            host = _pinned_like(tensor)
        elif _is_plain(tensor):
            return tensor.detach()
        else:
            _check_places(tensor)
            host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        self._back.append((tensor.detach(), host))
        return host

    def update(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous CPU tensor with the contents, which `finish` moves back."""
        tensor = held(tensor)
        if _is_plain(tensor):
            return tensor.detach()
        host = self.read(tensor)
        if host.data_ptr() != tensor.data_ptr() or tensor.device.type == "cuda":
            _check_places(tensor)
            self._back.append((tensor.detach(), host))
        return host

    def is_ready(self) -> bool:
        """True once all contents have arrived on the host."""
        return all(event.query() for event in self._arriving)

    def finish(self) -> None:
        """Move results back; those for a GPU are on their way on the side stream when this returns."""
        for tensor, host in self._back:
            if tensor.device.type == "cuda":
                with torch.cuda.stream(_side_stream(tensor.device)):
                    tensor.copy_(host, non_blocking=True)
            else:
                tensor.copy_(host)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether the bytes of a tensor can be used as they lie."""
    return (
        tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not (tensor.is_conj() or tensor.is_neg())
    )


def _check(tensor: torch.Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.device.type not in ("cpu", "cuda"):
        raise CallError(
            "collective",
            f"a tensor of layout={tensor.layout} on {tensor.device} cannot travel",
            "pass a dense tensor in the memory of the CPU or a CUDA GPU",
        )


def _check_places(tensor: torch.Tensor) -> None:
    """Refuse a result in which several elements lie in one place, as after `expand`."""
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        raise CallError(
            "collective",
            f"a result of strides={tensor.stride()} has several elements in one place",
            "pass tensor.clone()",
        )


def _pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)


class Landing:
    """The moment when results are usable on a GPU: an event on every side stream concerned."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        found = {tensor.device for tensor in tensors if tensor.is_cuda}
        self.devices: list[torch.device] = sorted(found, key=str)
        self._events: list[tuple[torch.device, torch.cuda.Event]] = []

    def record(self) -> None:
        """Note the end of the copies issued so far. Runs in the engine thread."""
        for device in self.devices:
            event = torch.cuda.Event()
            event.record(_side_stream(device))
            self._events.append((device, event))

    def order_current_stream(self) -> None:
        """Let the caller's stream wait for the copies; the caller itself does not."""
        for device, event in self._events:
            torch.cuda.current_stream(device).wait_event(event)

    def complete(self, future: torch.futures.Future, value: Sequence[torch.Tensor]) -> None:
        """Set a future's result so that whoever waits for it is ordered after the copies."""
        if not self.devices:
            future.set_result(value)
            return
        with _on_side_streams(self.devices):
            future.set_result(value)


class _on_side_streams:
    """All devices' side streams as current streams; a Future records its events there."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._contexts = [torch.cuda.stream(_side_stream(device)) for device in devices]

    def __enter__(self) -> None:
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *details: object) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*details)
