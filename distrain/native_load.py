"""Load the shared libraries that `native_build` makes."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from distrain.native_build import find_compiler

POINTER, SIZE, INT, LONG = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int64

Signatures = Mapping[str, tuple[Any, list[Any]]]


def load(
    path: Path,
    prefix: str,
    signatures: Signatures,
    abi: tuple[str, int],
    builder: str,
    keep_gil: Collection[str] = (),
) -> SimpleNamespace:
    """Return functions of a library as attributes, named without their prefix.

    Args:
        path: the shared library.
        prefix: of the names of these functions in it.
        signatures: by name what each returns, and what it takes.
        abi: name of the function that tells the version, and the version that is wanted.
        builder: the module that builds it when it is run.
        keep_gil: names of functions that keep the GIL; all others release it.

    Raises:
        RuntimeError: it is missing, cannot be loaded or is of another version.
    """
    rebuild = f"run `python -m {builder}`"
    if not path.exists():
        missing = rebuild if find_compiler() else "there is no C compiler (looked for $CC, cc, gcc, clang)"
        raise RuntimeError(f"it is not built; {missing}")
    try:
        releasing, keeping = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
        if getattr(releasing, abi[0])() != abi[1]:
            raise RuntimeError(f"{path} was built from another version; {rebuild}")
        found = {
            name: getattr(keeping if name in keep_gil else releasing, prefix + name) for name in signatures
        }
    except (OSError, AttributeError) as error:
        raise RuntimeError(f"{path} cannot be used ({error}); {rebuild}") from error
    for name, (result, arguments) in signatures.items():
        found[name].restype, found[name].argtypes = result, arguments
    return SimpleNamespace(**found)
