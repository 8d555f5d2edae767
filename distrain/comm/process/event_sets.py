"""The epoll sets of this process that MPI made: what an MPI over TCP sleeps on, if it sleeps.

To be imported before `mpi4py.MPI`, which starts MPI: what is there now is somebody else's.
"""

from __future__ import annotations

import os
import sys

_FILES = "/proc/self/fd"


def event_sets() -> frozenset[int]:
    """Return the open files that are epoll sets; none where the system does not tell."""
    try:
        names = os.listdir(_FILES)
    except OSError:
        return frozenset()
    return frozenset(int(name) for name in names if _target(name) == "anon_inode:[eventpoll]")


def _target(name: str) -> str:
    try:
        return os.readlink(os.path.join(_FILES, name))
    except OSError:  # closed meanwhile
        return ""


_OTHERS: frozenset[int] = frozenset() if "mpi4py.MPI" in sys.modules else event_sets()


def mpi_event_sets() -> frozenset[int]:
    """Return the epoll sets that came with the start of MPI: its own, if it has any, and perhaps others."""
    return event_sets() - _OTHERS
