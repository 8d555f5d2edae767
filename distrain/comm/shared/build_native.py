"""Compile the exchange in memory (`csrc/`) into a shared library beside this file.

Runs at install (`setup.py`) and on demand (`python -m distrain.comm.shared.build_native`).
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from distrain import native_build
from distrain.native_build import BuildError, find_compiler

__all__ = ["LIBRARY", "BuildError", "build", "find_compiler", "main"]

LIBRARY = Path(__file__).with_name("_shared.so")
SOURCES = Path(__file__).with_name("csrc")
MESSAGES = Path(__file__).parents[1] / "csrc"  # the executor's loop; see comm/messages.py and comm/routes.py


def build(library: Path = LIBRARY) -> None:
    """Compile and link the library.

    Where Python's headers are, it is also an extension module (`csrc/caller.c`); without them calls of a
    few kilobytes take some microseconds longer.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    sources = [SOURCES / "channel.c", SOURCES / "reduce.c"]
    sources += [MESSAGES / name for name in ("messages.c", "advance.c", "rest.c")]
    flags = [*native_build.FLAGS, "-fwrapv"]
    headers, soabi = Path(sysconfig.get_path("include")), sysconfig.get_config_var("SOABI")
    if soabi and (headers / "Python.h").exists():
        sources += [SOURCES / "caller.c", MESSAGES / "route.c"]
        flags += [f"-I{headers}", f'-DSOABI="{soabi}"']
    native_build.build(library, lambda compiler, folder: [*flags, *sources])


def main() -> int:
    """Build in place and say how it went; the exit code is 1 if it failed."""
    try:
        build()
    except BuildError as error:
        print(f"exchange in memory: not built: {error}", file=sys.stderr)
        return 1
    print(f"exchange in memory: built {LIBRARY}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
