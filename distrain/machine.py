"""What this machine offers: cores, memory, GPUs. Asked of the system alone, without torch.

Limits of containers and of batch systems are those of control groups: of the process's own and of all above
it the tightest counts. Without control groups or ``/proc``, as elsewhere than on Linux, there are no limits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number close to 2**63


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folders of this process's control groups with a controller, and the version of each."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, version = root / "sys/fs/cgroup", 2
        elif controller in controllers.split(","):
            base, version = root / "sys/fs/cgroup" / controller, 1
        else:
            continue
        # Inside a container the path is often that of the host: then only the mount's own root is there.
        group = base / path.strip("/")
        above = [parent for parent in group.parents if base in parent.parents]
        for folder in [base] if group == base else [base, group, *above]:
            yield folder, version


def _number(path: Path) -> int | None:
    """Return the first word of a kernel file as a number; None for "max", -1 or no such file."""
    try:
        words = path.read_text().split()
        value = int(words[0]) if words else -1
    except (OSError, ValueError):
        return None
    return value if value >= 0 else None


def _quota(folder: Path, version: int) -> float | None:
    """Return how many cores a control group may use at a time, if limited."""
    if version == 1:
        used, per = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        return used / per if used and per else None
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def cores(root: Path = ROOT) -> int:
    """Return the number of cores that this process may use: affinity mask and quotas of control groups.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    # macOS has no affinity masks
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder, version in _groups(root, "cpu") if (quota := _quota(folder, version))]
    return max(1, min([allowed, *map(round, quotas)]))


_MEMORY = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def _limit(folder: Path, version: int) -> int | None:
    limit = _number(folder / _MEMORY[version][0])
    return limit if limit is not None and limit < _UNLIMITED else None


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the bytes of memory that this process and its neighbours may use, or None without a limit."""
    limits = [limit for group in _groups(root, "memory") if (limit := _limit(*group)) is not None]
    return min(limits, default=None)


def free_bytes(root: Path = ROOT) -> int:
    """Return the bytes of memory that processes here can still allocate.

    The smaller of the kernel's MemAvailable and what the control groups of this process leave; page cache
    counts as free in both.
    """
    rooms = [room for group in _groups(root, "memory") if (room := _room(*group)) is not None]
    return min([_available(root), *rooms])


def _available(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return _UNLIMITED
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), _UNLIMITED
    )


def _room(folder: Path, version: int) -> int | None:
    """Return the free bytes of one control group, None if it is not there or has no limit."""
    _, usage_name, cache_name = _MEMORY[version]
    limit = _limit(folder, version)
    try:
        usage = int((folder / usage_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit is None else max(0, limit - usage + int(stat.get(cache_name, 0)))


def shared_memory(path: str = "/dev/shm") -> tuple[int, int] | None:
    """Return (size, free) in bytes of the file system of shared memory; None where there is none."""
    try:
        stats = os.statvfs(path)
    except OSError:
        return None
    return stats.f_blocks * stats.f_frsize, stats.f_bavail * stats.f_frsize


def gpus() -> int:
    """Return the number of NVIDIA GPUs that a process may use, without loading CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([entry for entry in visible.split(",") if entry.strip() not in ("", "-1", "NoDevFiles")])
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return 0
    try:
        listing = subprocess.run([smi, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0  # a wedged driver must not keep a CPU run from starting; doctor shows it
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
