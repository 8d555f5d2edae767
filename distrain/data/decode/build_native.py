"""Compile the native JPEG decoder (`csrc/`) into a shared library beside this file.

Runs at install (`setup.py`) and on demand (`python -m distrain.data.decode.build_native`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from distrain import native_build
from distrain.native_build import BuildError, find_compiler, run

__all__ = ["LIBRARY", "BuildError", "build", "compile_objects", "find_compiler", "main"]

SOURCES = Path(__file__).with_name("csrc")
LIBRARY = Path(__file__).with_name("_native.so")

PLAIN_FILES = ("header", "huffman", "blob", "raw", "decoder")
FLAGS = (*native_build.FLAGS, "-Wno-psabi")
AVX2_FLAGS = ("-mavx2", "-mbmi", "-mbmi2", "-mlzcnt")
KERNELS = {"portable": (), "avx2": AVX2_FLAGS, "avx512": (*AVX2_FLAGS, "-mavx512f", "-mavx512bw")}


def compile_objects(compiler: Sequence[str], folder: Path, extra_flags: Sequence[str] = ()) -> list[Path]:
    """Compile all sources into object files in a folder and return them.

    Args:
        compiler: e.g. ``["gcc"]``.
        folder: where the objects go.
        extra_flags: e.g. sanitizers.

    Raises:
        BuildError: the compiler is missing or fails.
    """
    machine = run([*compiler, "-dumpmachine"])
    has_avx2 = machine.startswith(("x86_64", "amd64"))
    kernels = KERNELS if has_avx2 else {"portable": ()}
    shared = [*compiler, *FLAGS, *extra_flags, *(["-DDISTRAIN_HAVE_AVX2"] if has_avx2 else [])]
    jobs: list[tuple[str, str, tuple[str, ...]]] = [(name, name, ()) for name in PLAIN_FILES]
    for kernel, flags in kernels.items():
        names = (f"-DKERNEL_VARIABLE=kernel_{kernel}", f'-DKERNEL_NAME="{kernel}"')
        jobs.append(("kernel", f"kernel_{kernel}", (*flags, *names)))
    objects = []
    for source, name, flags in jobs:
        target = folder / f"{name}.o"
        run([*shared, *flags, "-c", str(SOURCES / f"{source}.c"), "-o", str(target)])
        objects.append(target)
    return objects


def build(library: Path = LIBRARY, compiler: Sequence[str] | None = None) -> None:
    """Compile and link the library, and put it in its place in one step.

    A running process may have the old library mapped: it is replaced, never overwritten.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    native_build.build(library, compile_objects, compiler)


def main() -> int:
    """Build in place and say how it went; the exit code is 1 if it failed."""
    return native_build.report("native decoder", build, LIBRARY)


if __name__ == "__main__":
    sys.exit(main())
