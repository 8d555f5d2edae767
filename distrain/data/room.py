"""How much memory a node has to give, as the kernel and the container see it. Linux; pure reading."""

from __future__ import annotations

import os
from pathlib import Path

from distrain.errors import ConfigError
from distrain.units import format_bytes

_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number close to 2**63


def free_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that processes here can still allocate.

    The smaller of the kernel's MemAvailable and what the control groups (v2 and v1) of this process
    leave; page cache counts as free in both.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    return min([_available(root), *_cgroup_rooms(root)])


def shm_free_bytes(folder: str = "/dev/shm") -> int:
    """Return the bytes that the shared-memory file system still takes, 0 if there is none."""
    try:
        stats = os.statvfs(folder)
    except OSError:
        return 0
    return stats.f_bavail * stats.f_frsize


def check_room(where: str, needed: int, free: int) -> None:
    """Check, before anything is loaded, that a pack fits.

    Raises:
        ConfigError: it does not.
    """
    if needed > free:
        raise ConfigError(
            where,
            f"it needs {needed} bytes ({format_bytes(needed)}) of memory on this node, "
            f"where {free} ({format_bytes(free)}) are free",
            "set data.memory=disk, pack smaller images (--short-side 256), or use nodes with more memory",
        )


def _available(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return _UNLIMITED
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _UNLIMITED


def _cgroup_rooms(root: Path) -> list[int]:
    """Return what each control group above this process leaves, those without a limit left out."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    rooms: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path is often that of the host: then only the mount's own root is there.
        group = base / path.strip("/")
        for folder in [base, *_below(base, group)]:
            room = _room_of(folder, *names)
            if room is not None:
                rooms.append(room)
    return rooms


def _below(base: Path, group: Path) -> list[Path]:
    return [group, *(parent for parent in group.parents if base in parent.parents)] if group != base else []


def _room_of(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    """Return the free bytes of one control group, None if it is not there or has no limit."""
    try:
        limit = (folder / limit_name).read_text().strip()
        usage = int((folder / usage_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max" or int(limit) >= _UNLIMITED:
        return None
    return max(0, int(limit) - usage + int(stat.get(cache_name, 0)))
