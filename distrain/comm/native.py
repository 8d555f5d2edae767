"""The C of all rooms, one shared library: loading, codes of types and operations, the exchange in memory."""

from __future__ import annotations

import ctypes
import functools
import sysconfig
from types import SimpleNamespace
from typing import Any

import torch

from distrain.comm import build_native
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.native_load import INT, LONG, POINTER, SIZE, Signatures, load

_ABI = ("distrain_shared_abi", 3)  # of all that is in the library; see csrc/channel.c
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "soabi": (ctypes.c_char_p, []),
    "bytes": (SIZE, [INT, SIZE]),
    "supports": (INT, [INT, INT]),
    "open": (POINTER, [POINTER, INT, INT, SIZE]),
    "close": (None, [POINTER]),
    "whole_bytes": (SIZE, [INT]),
    "begin": (INT, [POINTER, POINTER, ctypes.c_uint64] + [INT] * 5),
    "advance": (INT, [POINTER, LONG, LONG, INT, INT]),
    "progress": (None, [POINTER, POINTER]),
    "mismatch": (None, [POINTER, POINTER]),
    "divide": (None, [INT, POINTER, ctypes.c_uint64, INT]),
}

# The numbers are those of csrc/reduce.h; the second is how many numbers an element has.
TYPES: dict[torch.dtype, tuple[int, int]] = {
    torch.float32: (0, 1),
    torch.float64: (1, 1),
    torch.float16: (2, 1),
    torch.bfloat16: (3, 1),
    torch.int8: (4, 1),
    torch.uint8: (5, 1),
    torch.bool: (5, 1),
    torch.int16: (6, 1),
    torch.uint16: (7, 1),
    torch.int32: (8, 1),
    torch.uint32: (9, 1),
    torch.int64: (10, 1),
    torch.uint64: (11, 1),
    torch.complex64: (0, 2),
    torch.complex128: (1, 2),
}
OPS = {
    Reduction.SUM: 0,
    Reduction.AVG: 0,
    Reduction.PROD: 1,
    Reduction.MIN: 2,
    Reduction.MAX: 3,
    Reduction.BAND: 4,
    Reduction.BOR: 5,
    Reduction.BXOR: 6,
}
# Sums and products of truth values are "any" and "all".
BOOL_OPS = OPS | {
    Reduction.SUM: 5,
    Reduction.AVG: 5,
    Reduction.MAX: 5,
    Reduction.PROD: 4,
    Reduction.MIN: 4,
}


def functions(prefix: str, signatures: Signatures, keep_gil: tuple[str, ...] = ()) -> SimpleNamespace:
    """Return functions of the shared library whose names begin so; see `native_load.load`.

    Raises:
        RuntimeError: it is not built or not usable; the text says why.
    """
    return load(build_native.LIBRARY, prefix, signatures, _ABI, build_native.__name__, keep_gil)


@functools.cache
def library() -> SimpleNamespace:
    """Return the functions of the exchange in memory, loaded once a process.

    Raises:
        RuntimeError: it is not built or not usable; the text says why.
    """
    return functions("distrain_shared_", _SIGNATURES)


@functools.cache  # asked for every collective
def codes(dtype: torch.dtype, reduction: Reduction) -> tuple[int, int, int] | None:
    """Return how the C side calls a type and an operation: (type, numbers an element, operation).

    None: it cannot combine this type so.
    """
    if dtype not in TYPES:
        return None
    code, numbers = TYPES[dtype]
    op = (BOOL_OPS if dtype is torch.bool else OPS)[reduction]
    simple = numbers == 1 or reduction in (Reduction.SUM, Reduction.AVG)  # of complex numbers
    return (code, numbers, op) if simple and library().supports(code, op) else None


def divide(buffer: FlatBuffer, divisor: int) -> None:
    """Divide all elements in place, as C does at the end of an average; of a type that `codes` knows.

    Whichever thread does it: `FlatBuffer.divide` takes denormals as torch does in the thread that calls it.
    """
    if buffer.dtype is not torch.bool:
        code, numbers = TYPES[buffer.dtype]
        library().divide(code, buffer.address, buffer.count * numbers, divisor)


def has_caller() -> bool:
    """Return whether the library holds the module of `csrc/caller.c`, compiled for this Python."""
    compiled_for: bytes = library().soabi()
    return compiled_for.decode() == sysconfig.get_config_var("SOABI")


def build_info() -> tuple[bool, str]:
    """Return whether the exchange in memory works here, and in words why it does not."""
    try:
        library()
    except RuntimeError as error:
        return False, str(error)
    return True, "built"
