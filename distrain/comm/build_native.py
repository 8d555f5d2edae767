"""Compile the C of the wire (`csrc/`) into a shared library beside this file.

Runs at install (`setup.py`) and on demand (`python -m distrain.comm.build_native`).
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from distrain import native_build
from distrain.native_build import BuildError, find_compiler

__all__ = ["LIBRARY", "BuildError", "build", "find_compiler", "main"]

LIBRARY = Path(__file__).with_name("_wire.so")
SOURCES = Path(__file__).with_name("csrc")


def build(library: Path = LIBRARY) -> None:
    """Compile and link the library.

    Where Python's headers are, it is also an extension module (`csrc/caller.c`); without them calls of a
    few kilobytes take some microseconds longer.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    names = ["channel.c", "reduce.c", "messages.c", "advance.c", "rest.c"]
    flags = [*native_build.FLAGS, "-fwrapv"]
    headers, soabi = Path(sysconfig.get_path("include")), sysconfig.get_config_var("SOABI")
    if soabi and (headers / "Python.h").exists():
        names += ["caller.c", "route.c"]
        flags += [f"-I{headers}", f'-DSOABI="{soabi}"']
    sources = [SOURCES / name for name in names]
    native_build.build(library, lambda compiler, folder: [*flags, *sources])


def main() -> int:
    """Build in place and say how it went; the exit code is 1 if it failed."""
    return native_build.report("the wire in C", build, LIBRARY)


if __name__ == "__main__":
    sys.exit(main())
