"""What a rank called, in words and as the bytes that ranks compare."""

from __future__ import annotations

import struct
from typing import NamedTuple

import torch

from distrain.comm.buffers import Reduction
from distrain.comm.callbacks import Cause
from distrain.comm.supervision.members import Members

KINDS = (
    "allreduce", "reduce", "reduce_scatter", "all_gather", "broadcast",
    "gather", "scatter", "all_to_all", "barrier",
    "allreduce on a GPU", "reduce on a GPU", "reduce_scatter on a GPU", "all_gather on a GPU",
)  # fmt: skip
_DTYPES = tuple(sorted({v for v in vars(torch).values() if isinstance(v, torch.dtype)}, key=str))
_REDUCTIONS = tuple(Reduction)
_KIND_CODES, _DTYPE_CODES, _REDUCTION_CODES = (
    {value: code for code, value in enumerate(values)} for values in (KINDS, _DTYPES, _REDUCTIONS)
)
_LAYOUT = struct.Struct("<qqiiiiI")
CALL_BYTES = _LAYOUT.size


class Call(NamedTuple):
    """What a rank called.

    Attributes:
        number: the how-manieth collective of this group, or of a callback in this group, from 1.
        kind: one of `KINDS`.
        count: elements; -1 where ranks may differ.
        dtype: of the elements; None where there are none.
        reduction: how they are combined, if they are.
        root: rank in the group; -1 without one.
        within: code of the callback that called it; 0: none. Such calls are not compared by notes. See
            `callbacks.py`.
    """

    number: int
    kind: str
    count: int = -1  # type: ignore[assignment]  # hides a method of tuple that nobody calls
    dtype: torch.dtype | None = None
    reduction: Reduction | None = None
    root: int = -1
    within: int = 0

    def pack(self) -> bytes:
        """Return `CALL_BYTES` bytes."""
        dtype = -1 if self.dtype is None else _DTYPE_CODES[self.dtype]
        reduction = -1 if self.reduction is None else _REDUCTION_CODES[self.reduction]
        kind = _KIND_CODES[self.kind]
        return _LAYOUT.pack(self.number, self.count, kind, dtype, reduction, self.root, self.within)

    def cause(self, members: Members | None) -> Cause:
        """Return what stands for this call of a group in what its callbacks call."""
        key, ranks = ("", None) if members is None else (members.key, members.all)
        return Cause.of_call(self, key, ranks)

    @staticmethod
    def number_of(packed: bytes) -> int:
        """Return only the number of what `pack` wrote."""
        number: int = _LAYOUT.unpack_from(packed)[0]
        return number

    @classmethod
    def unpack(cls, packed: bytes) -> Call:
        """Read what `pack` wrote."""
        number, count, kind, dtype, reduction, root, within = _LAYOUT.unpack_from(packed)
        return cls(
            number,
            KINDS[kind],
            count,
            None if dtype < 0 else _DTYPES[dtype],
            None if reduction < 0 else _REDUCTIONS[reduction],
            root,
            within,
        )

    def __str__(self) -> str:
        how = "" if self.reduction is None else f" ({self.reduction.value})"
        size = "" if self.count < 0 else f" of {self.count} elements"
        kind = "" if self.dtype is None else f" of {str(self.dtype).removeprefix('torch.')}"
        whence = "" if self.root < 0 else f" with root {self.root}"
        inner = ", in a callback" if self.within else ""
        return f"{self.kind}{how}{size}{kind}{whence}{inner}"
