"""The host side of a collective: where its bytes are while MPI, without pointers of a GPU, works on them.

Contiguous CPU tensors are used as they are. Others are copied to contiguous host memory first
and back at the end; tensors on a GPU through pinned memory on streams of their own (`side.py`), so that
the caller's stream only waits where it uses the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.distributed._functional_collectives import AsyncCollectiveTensor

from distrain.comm.buffers import FlatBuffer, byte_view
from distrain.comm.device import side
from distrain.comm.device.side import Mark
from distrain.comm.messages.plain import MessageOperation
from distrain.errors import CallError
from distrain.world import split

if TYPE_CHECKING:
    from distrain.comm.operation import Operation

_ORDINARY = torch.Tensor.__torch_dispatch__  # of all types that leave operations to torch
# A longer payload of a GPU travels in pieces of up to so many bytes: while one is on the wire, the next comes
# from the GPU and the one before goes back. Copying this much takes a PCIe 4 link a third of a millisecond.
STAGED_PIECE_BYTES = 8 << 20


class TensorTypeError(CallError):
    """What stands at the address of a tensor are not its elements."""


def held(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor that holds the elements: the given one, or an awaited functional result.

    Raises:
        TensorTypeError: a type that handles operations itself, such as DTensor or FakeTensor: what stands at
            its address are not its elements, if anything stands there.
    """
    if type(tensor).__torch_dispatch__ is _ORDINARY:
        return tensor
    if isinstance(tensor, AsyncCollectiveTensor):
        return held(tensor.wait())
    raise TensorTypeError(
        "collective",
        f"a {type(tensor).__name__} has no memory of its own that could travel",
        "pass the tensor in it; of a DTensor that is to_local()",
    )


class HostPayloads:
    """Host copies of the tensors of one collective.

    Use from the submitting thread: `read`, `write`, `update`, and at last `attach`. From the engine thread:
    `is_ready` before the operation starts, `finish` when it is done.
    """

    def __init__(self) -> None:
        self._coming: list[Mark] = []
        # (tensor, its host copy, when the tensor may be written; None: at once)
        self._back: list[tuple[torch.Tensor, torch.Tensor, Mark | None]] = []

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous CPU tensor with the contents; after `is_ready` for one on a GPU.

        Raises:
            CallError: the tensor is sparse, has no memory, or is on a device that is neither CPU nor GPU.
        """
        tensor = held(tensor)
        check_dense(tensor)
        copies = side.side_of(tensor)
        if copies is None:
            # Views that conjugate or negate do so when they are read, which bytes are not.
            return tensor.detach().resolve_conj().resolve_neg().contiguous()
        host, there = copies.fetch(tensor)
        self._coming.append(there)
        return host

    def write(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous CPU tensor whose contents `finish` moves into `tensor`.

        Raises:
            CallError: as for `read`.
        """
        tensor = held(tensor)
        check_dense(tensor)
        if is_plain(tensor):
            return tensor.detach()
        check_places(tensor)
        copies = side.side_of(tensor)
        if copies is None:
            host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            self._back.append((tensor.detach(), host, None))
        else:
            host = copies.host_like(tensor)
            self._back.append((tensor.detach(), host, copies.computed()))
        return host

    def update(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous CPU tensor with the contents, which `finish` moves back."""
        tensor = held(tensor)
        if is_plain(tensor):
            return tensor.detach()
        host = self.read(tensor)
        if side.side_of(tensor) is not None or host.data_ptr() != tensor.data_ptr():
            check_places(tensor)
            self._back.append((tensor.detach(), host, None))  # it was read after all that was computed
        return host

    def kind(self, name: str) -> str:
        """Return what ranks compare of a collective of this name."""
        return name

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of what `read` returned for a tensor of the CPU."""
        return tensor.clone()

    def empty(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Return memory for so many elements."""
        return torch.empty(count, dtype=dtype, device="cpu")

    def buffer(self, tensor: torch.Tensor) -> FlatBuffer:
        """Return a contiguous tensor as a payload."""
        return FlatBuffer(tensor)

    def bytes(self, tensor: torch.Tensor) -> np.ndarray:
        """Return the memory of a contiguous tensor as MPI takes it."""
        return byte_view(tensor)

    def messages(self, *args: Any, **named: Any) -> MessageOperation:
        """Return a `MessageOperation` of such memory."""
        return MessageOperation(*args, **named)

    def attach(
        self,
        operation: Operation,
        before: Callable[[], Any] | None = None,
        after: Callable[[], Any] | None = None,
    ) -> None:
        """Let an operation begin when the contents are there, and take results back when it is complete.

        Args:
            operation: works on what was read and written.
            before: fills its memory, just before the start.
            after: the reverse, at the end.
        """

        def complete() -> None:
            if after is not None:
                after()
            self.finish()

        operation.is_ready = self.is_ready  # type: ignore[method-assign]
        operation.before, operation.after = before, complete

    def is_ready(self) -> bool:
        """True once all contents have arrived on the host."""
        return all(mark.is_reached() for mark in self._coming)

    def finish(self) -> None:
        """Move results back; those for a GPU are on their way when this returns."""
        for tensor, host, after in self._back:
            copies = side.side_of(tensor)
            if copies is None:
                tensor.copy_(host)
            else:
                copies.put(tensor, host, after)


def pieces(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Cut a tensor of a GPU into views that travel one after the other; others are one piece."""
    size = tensor.numel() * tensor.element_size()
    if size < 2 * STAGED_PIECE_BYTES or side.side_of(tensor) is None or not tensor.is_contiguous():
        return [tensor]
    flat = tensor.detach().view(-1)
    return [flat[part.start : part.stop] for part in split(flat.numel(), -(-size // STAGED_PIECE_BYTES))]


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether the bytes of a tensor can be used as they lie."""
    return (
        tensor.is_cpu
        and side.side_of(tensor) is None
        and tensor.layout is torch.strided
        and is_contiguous(tensor)
    )


def is_contiguous(tensor: torch.Tensor) -> bool:
    """Return whether the bytes of a dense tensor, read as they lie, are its elements."""
    return tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg())


def check_dense(tensor: torch.Tensor) -> None:
    """Refuse what has no memory of elements that a collective could use."""
    if tensor.layout is not torch.strided or tensor.device.type not in ("cpu", "cuda"):
        raise CallError(
            "collective",
            f"a tensor of layout={tensor.layout} on {tensor.device} cannot travel",
            "pass a dense tensor in the memory of the CPU or a CUDA GPU",
        )


def check_places(tensor: torch.Tensor) -> None:
    """Refuse a result in which several elements lie in one place, as after `expand`."""
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        raise CallError(
            "collective",
            f"a result of strides={tensor.stride()} has several elements in one place",
            "pass tensor.clone()",
        )


def landing_of(tensors: Sequence[torch.Tensor]) -> Landing:
    """Return that of these results; those of the CPU share one."""
    if all(side.side_of(tensor) is None for tensor in tensors):
        return _NO_LANDING
    return Landing(tensors)


class Landing:
    """The moment when results are usable on a GPU: a mark of every device concerned."""

    def __init__(self, tensors: Sequence[torch.Tensor] = ()) -> None:
        found = {copies.device: copies for t in tensors if (copies := side.side_of(t)) is not None}
        self._sides = [found[device] for device in sorted(found, key=str)]
        self.devices: list[torch.device] = [d for d in sorted(found, key=str) if d.type != "cpu"]
        self._marks: list[Mark] = []

    @property
    def is_elsewhere(self) -> bool:
        """Whether any result is not in the memory of the CPU."""
        return bool(self._sides)

    def record(self) -> None:
        """Note the end of the copies issued so far. Runs in the engine thread."""
        self._marks += [copies.arrived() for copies in self._sides]

    def order_current_stream(self) -> None:
        """Let the caller's stream wait for the copies; the caller itself does not."""
        for mark in self._marks:
            mark.order_caller()

    def complete(self, future: torch.futures.Future, value: Sequence[torch.Tensor]) -> None:
        """Set a future's result so that whoever waits for it is ordered after the copies."""
        if not self._sides:
            future.set_result(value)
            return
        with contextlib.ExitStack() as stack:
            for copies in self._sides:  # a Future records events on the current streams of its devices
                stack.enter_context(copies.arriving())
            future.set_result(value)


_NO_LANDING = Landing()
