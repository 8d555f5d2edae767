"""Errors that tell the reader what to do next.

Every error of distrain reads ``where: what=value breaks rule; do this``. The class decides
the exit code of the command line: 2 for bad usage or configuration, 1 for a run that failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Protocol

EXIT_STOPPED = 85
"""Exit code of ranks and of the launcher where a run was asked to stop, wrote a checkpoint and can go on."""


class DistrainError(Exception):
    """Base of all errors that distrain raises on purpose.

    Args:
        where: the file, setting, shard or rank concerned, e.g. ``"configs/digits.yaml"``.
        problem: what was found and which rule it breaks, e.g.
            ``"train.optimizer.lr=-1 must be positive"``.
        do: what the user should do about it, in the imperative.
    """

    exit_code = 1

    def __init__(self, where: str, problem: str, do: str) -> None:
        super().__init__(f"{where}: {problem}; {do}")
        self.where = where
        self.problem = problem
        self.do = do

    def __reduce__(self) -> tuple[type[DistrainError], tuple[str, str, str]]:
        # Exceptions travel between processes (pickle) when ranks agree on an error.
        return type(self), (self.where, self.problem, self.do)


class UsageError(DistrainError):
    """The command line or a function was called with something it cannot take (exit code 2)."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting, or the combination of settings, data and machine, makes no sense (exit code 2)."""


class DataError(DistrainError):
    """A data set, shard or image is missing, damaged or of another format (exit code 1)."""


class CallError(UsageError, ValueError, RuntimeError):
    """A collective was called with tensors or ranks it cannot take (exit code 2).

    torch's own backends raise sometimes ValueError, sometimes RuntimeError; a program may catch either.
    """


class CommError(DistrainError, RuntimeError):
    """Ranks disagree, a peer is lost, or a collective did not complete (exit code 1)."""


class LaunchError(DistrainError):
    """The job could not be started, or the started world is not the one asked for (exit code 1)."""


class Gathering(Protocol):
    """What `agree` uses of an MPI communicator."""

    def allgather(self, sendobj: Any) -> list[Any]:
        """Give the objects of all ranks to all, in the order of ranks."""


def agree(ranks: Gathering | None, error: DistrainError | None) -> None:
    """Raise on all ranks if any rank brings an error: that of the lowest such rank. Collective.

    To be called before a collective that a failed rank would not reach.

    Args:
        ranks: who agrees; None: this process alone.
        error: of this rank.
    """
    for found in [error] if ranks is None else ranks.allgather(error):
        if found is not None:
            raise found


def nearest(name: str, options: Iterable[str]) -> str:
    """Return the phrase `` (did you mean 'x'?)`` for the closest option, or an empty string."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
