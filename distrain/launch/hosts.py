"""Host files: which machines, and how many ranks each takes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distrain.errors import ConfigError

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_LINE = re.compile(rf"(?P<name>{_NAME})(?:\s*:\s*(?P<colon>\d+)|\s+slots\s*=\s*(?P<slots>\d+))?")


@dataclass(frozen=True)
class Host:
    """One machine of a job.

    Attributes:
        name: its host name or IPv4 address.
        slots: the ranks that it takes.
    """

    name: str
    slots: int


def parse_hosts(text: str, where: str) -> tuple[Host, ...]:
    """Read a host file in either spelling: ``node1 slots=8`` (Open MPI) or ``node1:8`` (MPICH).

    A bare name takes one rank; ``#`` starts a comment.

    Args:
        text: the file.
        where: its path, for errors.

    Raises:
        ConfigError: a line that is neither, a machine given twice, no slots, or no machine at all.
    """
    hosts: dict[str, Host] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"{where}:{number}", f"{line!r} is not a host", "write `name slots=N` or `name:N`, one a line"
            )
        name, slots = match["name"], int(match["colon"] or match["slots"] or 1)
        if slots == 0:
            raise ConfigError(f"{where}:{number}", f"{name} has 0 slots", "give 1 or more, or leave it out")
        if name in hosts:
            raise ConfigError(
                f"{where}:{number}", f"{name} is listed twice", "list it once, with all its slots"
            )
        hosts[name] = Host(name, slots)
    if not hosts:
        raise ConfigError(where, "the host file names no host", "write `name slots=N`, one a line")
    return tuple(hosts.values())


def read_hosts(path: str | os.PathLike[str]) -> tuple[Host, ...]:
    """Read a host file (see `parse_hosts`).

    Raises:
        ConfigError: the file cannot be read or understood.
    """
    try:
        return parse_hosts(Path(path).read_text(), os.fspath(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            os.fspath(path), f"cannot be read: {error}", "give the path of a host file"
        ) from None


def place(hosts: Sequence[Host], np: int) -> tuple[Host, ...]:
    """Return the hosts that ``np`` ranks use, filled one after the other, with the ranks each gets.

    Raises:
        ConfigError: more ranks than slots.
    """
    placed, left = [], np
    for host in hosts:
        if left > 0:
            placed.append(Host(host.name, min(host.slots, left)))
        left -= host.slots
    if left > 0:
        slots = sum(host.slots for host in hosts)
        raise ConfigError(
            "launch.np", f"{np} ranks do not fit into {slots} slots", "raise the slots in the host file"
        )
    return tuple(placed)
