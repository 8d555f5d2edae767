"""One payload, two views: elements to reduce, bytes to put on the wire.

MPI gets every type as bytes; arithmetic is done here, so types that MPI does not know
(bfloat16, float16) reduce like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from distrain.errors import CallError


class Reduction(str, Enum):
    """How contributions are combined. AVG is a sum that is divided once, after the last addition."""

    SUM = "sum"
    AVG = "avg"
    PROD = "prod"
    MIN = "min"
    MAX = "max"
    BAND = "band"
    BOR = "bor"
    BXOR = "bxor"


# Every reducer is called as reducer(a, b, out=a). numpy runs on the calling thread alone and
# its dispatch is cheap; torch does the half types, which numpy lacks (bfloat16) or has only in
# a slow scalar form (float16).
Reducer = Callable[..., Any]
_NUMPY: dict[Reduction, Reducer] = {
    Reduction.SUM: np.add,
    Reduction.AVG: np.add,
    Reduction.PROD: np.multiply,
    Reduction.MIN: np.minimum,
    Reduction.MAX: np.maximum,
    Reduction.BAND: np.bitwise_and,
    Reduction.BOR: np.bitwise_or,
    Reduction.BXOR: np.bitwise_xor,
}
_TORCH: dict[Reduction, Reducer] = {
    Reduction.SUM: torch.add,
    Reduction.AVG: torch.add,
    Reduction.PROD: torch.mul,
    Reduction.MIN: torch.minimum,
    Reduction.MAX: torch.maximum,
}
_REDUCED_BY_TORCH = (torch.float16, torch.bfloat16)
_WITHOUT_ORDER = (torch.complex64, torch.complex128)
_BITWISE = (Reduction.BAND, Reduction.BOR, Reduction.BXOR)
# All other types (8-bit floats, complex halves, quantised) travel, but have no arithmetic here.
_WITH_ARITHMETIC = frozenset(
    {
        *_REDUCED_BY_TORCH, *_WITHOUT_ORDER, torch.float32, torch.float64, torch.bool,
        torch.int8, torch.int16, torch.int32, torch.int64,
        torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    }
)  # fmt: skip


def byte_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the memory of a contiguous tensor of any type and device as uint8 [bytes], shared."""
    flat = tensor.detach().reshape(-1)
    if flat.numel() == 0:
        return torch.empty(0, dtype=torch.uint8, device=tensor.device)
    if flat.numel() == 1:
        flat = flat.as_strided((1,), (1,))  # one element is contiguous whatever its stride says
    return flat.view(torch.uint8)


def byte_view(tensor: torch.Tensor) -> np.ndarray:
    """Return the memory of a contiguous CPU tensor of any type as uint8 [bytes], shared."""
    return byte_tensor(tensor).numpy()


class FlatBuffer:
    """A contiguous CPU tensor as a run of elements.

    Attributes:
        count: number of elements.
        itemsize: bytes of one element.
        address: of the first byte.

    Raises:
        CallError: the tensor is not on the CPU, or not contiguous.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        if not tensor.is_cpu or not tensor.is_contiguous():
            raise CallError(
                "buffer",
                f"tensor on {tensor.device}, contiguous={tensor.is_contiguous()} cannot go on the wire",
                "pass a contiguous CPU tensor",
            )
        self._given = tensor
        self.dtype = tensor.dtype
        self.count = tensor.numel()
        self.itemsize = tensor.element_size()
        self.address = tensor.data_ptr()
        self._by_torch = tensor.dtype in _REDUCED_BY_TORCH

    # Views are made where they are used: C needs none, and each costs as much as a short message.

    @cached_property
    def tensor(self) -> torch.Tensor:
        """The elements, ``[count]``, shared."""
        return self._given.detach().reshape(-1)

    @cached_property
    def bytes(self) -> np.ndarray:
        """The same memory, ``uint8 [count * itemsize]``."""
        return byte_view(self._given)

    @cached_property
    def _elements(self) -> Any:
        return self.tensor if self._by_torch else self.tensor.numpy()

    def check(self, reduction: Reduction) -> None:
        """Make sure that a reduction has a meaning for this type.

        Raises:
            CallError: it has none.
        """
        wrong_bits = reduction in _BITWISE and (self.dtype.is_floating_point or self.dtype.is_complex)
        wrong_order = reduction in (Reduction.MIN, Reduction.MAX) and self.dtype in _WITHOUT_ORDER
        if wrong_bits or wrong_order or self.dtype not in _WITH_ARITHMETIC:
            raise CallError(
                "reduce", f"op={reduction.value} is not defined for {self.dtype}", "choose another op or type"
            )

    def reducer(self, reduction: Reduction) -> Reducer:
        """Return the function ``f(a, b, out=a)`` that combines two runs of this buffer's type.

        Raises:
            CallError: this reduction has no meaning for this type.
        """
        self.check(reduction)
        return (_TORCH if self._by_torch else _NUMPY)[reduction]

    def elements(self, start: int, stop: int) -> Any:
        """Return elements ``[start, stop)``, shared, in the form that `reducer` takes."""
        return self._elements[start:stop]

    def typed(self, staging: np.ndarray, count: int) -> Any:
        """Return the first ``count`` elements of a uint8 staging area in the form that `reducer` takes."""
        area = staging[: count * self.itemsize]
        if self._by_torch:
            return torch.from_numpy(area).view(self.dtype)
        return area.view(self._elements.dtype)

    def window(self, start: int, stop: int) -> np.ndarray:
        """Return the bytes of elements ``[start, stop)``, shared."""
        return self.bytes[start * self.itemsize : stop * self.itemsize]

    def divide(self, divisor: int | torch.Tensor) -> None:
        """Divide all elements in place; integers round towards zero."""
        if self.dtype.is_complex:  # both halves by themselves: rounded once, as in C
            torch.view_as_real(self.tensor).div_(divisor)
        elif self.dtype.is_floating_point:
            self.tensor.div_(divisor)
        elif self.dtype is torch.uint64:  # torch cannot divide it
            self._elements //= np.uint64(divisor)
        elif self.dtype is not torch.bool:  # the average of truth values is "any": the sum says it
            # In a type that holds the divisor: torch makes it one of the tensor's, and 200 an int8 of -56.
            self.tensor.copy_(self.tensor.long().div_(divisor, rounding_mode="trunc"))


def overlap(tensors: Sequence[torch.Tensor]) -> bool:
    """Return whether some dense tensors of a list lie in the same memory, if only in part."""
    places = sorted(_place(tensor) for tensor in tensors if tensor.layout is torch.strided and tensor.numel())
    return any(begin < end for (_, end), (begin, _) in pairwise(places))


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the addresses of its first byte and behind its last one; strides of torch are not negative."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.data_ptr()
    return begin, begin + (last + 1) * tensor.element_size()


class StagingPool:
    """Receive areas that are used again and again, so that the steady state allocates nothing.

    Sizes are rounded up to powers of two. Not thread-safe: it belongs to the engine thread.

    Args:
        allocate: makes an area of so many bytes; None: in the memory of the host.
    """

    def __init__(self, allocate: Callable[[int], Any] | None = None) -> None:
        self._allocate = allocate or (lambda size_bytes: np.empty(size_bytes, np.uint8))
        self._free: dict[int, list[Any]] = {}
        self.allocated_bytes = 0

    def take(self, size_bytes: int) -> Any:
        """Return an area uint8 [at least size_bytes]; give it back when done."""
        size = 1 << max(6, (size_bytes - 1).bit_length())
        free = self._free.setdefault(size, [])
        if free:
            return free.pop()
        self.allocated_bytes += size
        return self._allocate(size)

    def give(self, area: Any) -> None:
        """Take an area back."""
        self._free[area.nbytes].append(area)
