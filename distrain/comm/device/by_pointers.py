"""The payload of a collective in the memory of a GPU, where MPI takes its pointers: nothing goes to the host.

`DevicePayloads` has the methods of `by_host.HostPayloads`. MPI knows no streams: it gets a pointer when the
GPU has done what the caller gave it before the call (a mark tells), and the operation is complete when its
sums are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from distrain.comm.buffers import FlatBuffer
from distrain.comm.device import side
from distrain.comm.device.by_host import HostPayloads, check_dense, check_places, held, is_contiguous
from distrain.comm.device.pointers import DeviceBuffer, PointerMessages, pointer
from distrain.comm.device.side import Side
from distrain.comm.messages.plain import MessageOperation

if TYPE_CHECKING:
    from distrain.comm.operation import Operation

# torch has hardly any arithmetic of these; they are summed in the memory of the host.
NOT_COMBINED = frozenset({torch.uint16, torch.uint32, torch.uint64})


class DevicePayloads:
    """Where the tensors of one collective are when MPI gets their pointers.

    Use from the submitting thread, as `by_host.HostPayloads`.
    """

    def __init__(self, own: Side) -> None:
        self._side = own
        self._used: list[torch.Tensor] = []  # kept until MPI is done with them
        self._back: list[tuple[torch.Tensor, torch.Tensor]] = []  # results, and where they arrive

    def kind(self, name: str) -> str:
        """Return what ranks compare: one with a tensor of the CPU would go another way, and never meet."""
        return f"{name} on a GPU"

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous tensor with the contents: the given one, if it is.

        Raises:
            CallError: the tensor is sparse, or has no memory.
        """
        tensor = held(tensor)
        check_dense(tensor)
        return self._kept(tensor.detach()) if is_contiguous(tensor) else self.copy(tensor)

    def write(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous tensor whose contents reach `tensor` at the end.

        Raises:
            CallError: as for `read`, or several elements have one place.
        """
        tensor = held(tensor)
        check_dense(tensor)
        if is_contiguous(tensor):
            return self._kept(tensor.detach())
        check_places(tensor)
        arriving = self.empty(tensor.numel(), tensor.dtype).view(tensor.shape)
        self._back.append((self._kept(tensor.detach()), arriving))
        return arriving

    def update(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous tensor with the contents, which reach `tensor` again at the end."""
        contents = self.read(tensor)
        if not is_contiguous(held(tensor)):
            check_places(tensor)
            self._back.append((self._kept(held(tensor).detach()), contents))
        return contents

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous copy."""
        source = tensor.detach()
        copied = self.empty(source.numel(), source.dtype).view(source.shape)
        self._side.compute(lambda: copied.copy_(source))
        return copied

    def empty(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Return memory for so many elements."""
        return self._kept(torch.empty(count, dtype=dtype, device=self._side.device))

    def buffer(self, tensor: torch.Tensor) -> FlatBuffer:
        """Return a contiguous tensor as a payload."""
        return DeviceBuffer(tensor, self._side)

    def bytes(self, tensor: torch.Tensor) -> Any:
        """Return the memory of a contiguous tensor as MPI takes it."""
        return pointer(tensor)

    def messages(self, *args: Any, **named: Any) -> MessageOperation:
        """Return a `MessageOperation` of such memory."""
        return PointerMessages(self._side, *args, **named)

    def attach(
        self,
        operation: Operation,
        before: Callable[[], Any] | None = None,
        after: Callable[[], Any] | None = None,
    ) -> None:
        """Let an operation begin when the contents are there; see `HostPayloads.attach`."""
        if before is not None:
            self._side.compute(before)
        ready, back = self._side.computed(), self._back

        def take_back() -> None:
            if after is not None:
                after()
            for tensor, arrived in back:
                tensor.copy_(arrived)

        def complete() -> None:
            if after is not None or back:
                self._side.land(take_back, self._used)
            self._used, self._back = [], []

        operation.is_ready = ready.is_reached  # type: ignore[method-assign]
        operation.before, operation.after = None, complete

    def _kept(self, tensor: torch.Tensor) -> torch.Tensor:
        self._used.append(tensor)
        return tensor


Payloads = HostPayloads | DevicePayloads


def payloads_for(tensors: Sequence[torch.Tensor], combines: bool) -> Payloads:
    """Return how the tensors of a call go where MPI gets pointers of GPUs; the same on ranks that call alike.

    Args:
        tensors: all of them; only if all lie on one GPU MPI gets their pointers.
        combines: they are summed, which torch does not do to some types.
    """
    found = [side.side_of(tensor) for tensor in tensors]
    first = found[0] if found else None
    if first is None or any(each is not first for each in found):
        return HostPayloads()
    if combines and tensors[0].dtype in NOT_COMBINED:
        return HostPayloads()
    return DevicePayloads(first)
