"""The shared library of the exchange in memory: loading, signatures, codes of types and operations."""

from __future__ import annotations

import ctypes
import functools
import sysconfig
from pathlib import Path
from typing import Any

import torch

from distrain.comm.buffers import Reduction
from distrain.comm.shared import build_native

_ABI = 1  # of csrc/channel.c; a library of another version is not used
_POINTER, _SIZE, _INT, _LONG = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int64
_REBUILD = "run `python -m distrain.comm.shared.build_native`"
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "abi": (_INT, []),
    "bytes": (_SIZE, [_INT, _SIZE]),
    "supports": (_INT, [_INT, _INT]),
    "open": (_POINTER, [_POINTER, _INT, _INT, _SIZE]),
    "close": (None, [_POINTER]),
    "whole_bytes": (_SIZE, [_INT]),
    "begin": (_INT, [_POINTER, _POINTER, ctypes.c_uint64] + [_INT] * 5),
    "advance": (_INT, [_POINTER, _LONG, _LONG, _INT, _INT]),
    "progress": (None, [_POINTER, _POINTER]),
    "mismatch": (None, [_POINTER, _POINTER]),
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


class Library:
    """The functions of the shared library, without their prefix.

    Args:
        path: the shared library.

    Raises:
        RuntimeError: it is missing, cannot be loaded or is of another version.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            missing = "" if build_native.find_compiler() else ", and there is no C compiler"
            raise RuntimeError(f"it is not built{missing}; {_REBUILD}")
        try:
            library = ctypes.CDLL(str(path))  # calls through CDLL release the GIL
            functions = {name: getattr(library, f"distrain_shared_{name}") for name in _SIGNATURES}
        except (OSError, AttributeError) as error:
            raise RuntimeError(f"{path} cannot be used ({error}); {_REBUILD}") from error
        for name, (result, arguments) in _SIGNATURES.items():
            functions[name].restype, functions[name].argtypes = result, arguments
        if functions["abi"]() != _ABI:
            raise RuntimeError(f"{path} was built from another version; {_REBUILD}")
        self.bytes, self.open, self.close = functions["bytes"], functions["open"], functions["close"]
        self.begin, self.advance = functions["begin"], functions["advance"]
        self.progress, self.mismatch = functions["progress"], functions["mismatch"]
        self.supports, self.whole_bytes = functions["supports"], functions["whole_bytes"]
        self.soabi = _soabi(library)


def _soabi(library: ctypes.CDLL) -> str | None:
    """Return for which Python the module in the library was compiled; None: there is none in it."""
    try:
        function = library.distrain_shared_soabi
    except AttributeError:
        return None
    function.restype = ctypes.c_char_p
    text: bytes = function()
    return text.decode()


@functools.cache
def library() -> Library:
    """Return the shared library, loaded once a process.

    Raises:
        RuntimeError: it is not built or not usable; the text says why.
    """
    return Library(build_native.LIBRARY)


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


def has_caller() -> bool:
    """Return whether the library holds the module of `csrc/caller.c`, compiled for this Python."""
    return library().soabi == sysconfig.get_config_var("SOABI")


def build_info() -> tuple[bool, str]:
    """Return whether the exchange in memory works here, and in words why it does not."""
    try:
        library()
    except RuntimeError as error:
        return False, str(error)
    return True, "built"
