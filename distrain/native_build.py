"""Compile C into shared libraries, at install and on demand.

Standard library only, and no import of distrain: at install nothing else is there yet. A missing
compiler must only ever mean slower, so whoever calls this catches `BuildError`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

# Fused multiply-add would make float results depend on the processor: kernels and ranks give the same bits.
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-Wall", "-Wextra", "-ffp-contract=off", "-fvisibility=hidden")


class BuildError(Exception):
    """The library could not be built; the text says why."""


def find_compiler() -> list[str] | None:
    """Return the C compiler as an argument list: ``$CC``, else cc, gcc or clang; None: there is none."""
    chosen = shlex.split(os.environ.get("CC", ""))
    candidates = [chosen] if chosen else [["cc"], ["gcc"], ["clang"]]
    return next((command for command in candidates if shutil.which(command[0])), None)


def run(command: Sequence[str]) -> str:
    """Run a compiler and return what it printed.

    Raises:
        BuildError: it is missing or fails; the text is its own.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{shlex.join(command)}: {error}") from error
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout


def build(
    library: Path,
    make: Callable[[list[str], Path], Sequence[str | Path]],
    compiler: Sequence[str] | None = None,
) -> None:
    """Compile and link a library, and put it in its place in one step.

    A running process may have the old library mapped: it is replaced, never overwritten.

    Args:
        library: the file to make.
        make: given the compiler and a folder for what lies between, returns what is linked: objects
            that it has compiled there, or flags and C files.
        compiler: e.g. ``["gcc"]``; None: the one that is found.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    command = list(compiler or find_compiler() or [])
    if not command:
        raise BuildError("no C compiler found (looked for $CC, cc, gcc, clang)")
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=library.parent) as name:
            folder = Path(name)
            linked = folder / library.name
            run([*command, "-shared", *map(str, make(command, folder)), "-o", str(linked)])
            os.replace(linked, library)
    except OSError as error:
        raise BuildError(str(error)) from error


def report(what: str, build_it: Callable[[], None], library: Path) -> int:
    """Build and say on stderr how it went; return the exit code, 1 if it failed."""
    try:
        build_it()
    except BuildError as error:
        print(f"{what}: not built: {error}", file=sys.stderr)
        return 1
    print(f"{what}: built {library}", file=sys.stderr)
    return 0
