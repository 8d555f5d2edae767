"""``python -m tests.ranks N COMMAND...`` starts a command on N ranks, as the launcher does."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping

from distrain.launch import mpi
from distrain.launch.job import Command, Job

_find = functools.cache(mpi.find)


def command(ranks: int, words: tuple[str, ...], environ: Mapping[str, str]) -> Command:
    """The command line for ranks that share few cores, and what it adds to `environ`."""
    job = Job(command=words, np=ranks, crowded=True, as_root=os.geteuid() == 0)
    return _find().command(job, environ)


def killed_code() -> int:
    """What mpirun returns when a rank was killed by SIGKILL."""
    return {"mpich": 9, "intelmpi": 255}.get(_find().name, 137)


if __name__ == "__main__":
    built = command(int(sys.argv[1]), tuple(sys.argv[2:]), os.environ)
    os.execvpe(built.argv[0], built.argv, {**os.environ, **built.env})
