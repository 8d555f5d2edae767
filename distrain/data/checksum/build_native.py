"""Compile the checksums (`csrc/`) into a shared library beside this file.

Runs at install (`setup.py`) and on demand (`python -m distrain.data.checksum.build_native`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from distrain import native_build
from distrain.native_build import BuildError, find_compiler

__all__ = ["LIBRARY", "BuildError", "build", "find_compiler", "main"]

LIBRARY = Path(__file__).with_name("_checksum.so")
SOURCES = Path(__file__).with_name("csrc")


def build(library: Path = LIBRARY) -> None:
    """Compile and link the library, and put it in its place in one step.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    sources = [SOURCES / "crc32.c", SOURCES / "calls.c"]
    native_build.build(library, lambda compiler, folder: [*native_build.FLAGS, *sources])


def main() -> int:
    """Build in place and say how it went; the exit code is 1 if it failed."""
    return native_build.report("checksums", build, LIBRARY)


if __name__ == "__main__":
    sys.exit(main())
