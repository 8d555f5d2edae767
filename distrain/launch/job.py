"""What is to be started, and the command line that starts it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Place = Literal["local", "hosts", "slurm"]


@dataclass(frozen=True)
class Job:
    """A parallel program, in no dialect yet.

    Attributes:
        command: the program of one rank and its arguments.
        np: ranks in all.
        place: this machine, machines reached by ssh, or inside a Slurm allocation.
        hostfile: path at which the list of hosts lies, in the dialect's spelling.
        ranks_per_node: for place ``slurm``.
        bind: binding of ranks to cores.
        crowded: a node has more busy threads than cores, so waiting must yield its core.
        as_root: the job is started by root (containers).
        env: environment of every rank.
        extra: further arguments of the starter, as they are.
    """

    command: tuple[str, ...]
    np: int
    place: Place = "local"
    hostfile: str = ""
    ranks_per_node: int = 1
    bind: Literal["none", "core", "numa"] = "none"
    crowded: bool = False
    as_root: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """A command line with the environment variables that it needs beside the present ones."""

    argv: tuple[str, ...]
    env: Mapping[str, str]

    def shell(self) -> str:
        """Return the command for a POSIX shell, one variable or option group a line."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        lines = ["env", *words] if words else []
        line: list[str] = []
        for word in self.argv:
            if word.startswith("-") and line and sum(map(len, line)) > 80:
                lines.append(" ".join(line))
                line = []
            line.append(shlex.quote(word))
        return " \\\n  ".join([*lines, " ".join(line)])
