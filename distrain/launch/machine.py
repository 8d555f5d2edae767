"""What this machine offers: cores, GPUs, memory. Asked of the system alone, without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def _number(path: Path) -> int | None:
    """Return the first word of a kernel file as a number; None for "max", -1 or no such file."""
    try:
        words = path.read_text().split()
        value = int(words[0]) if words else -1
    except (OSError, ValueError):
        return None
    return value if value >= 0 else None


def _quota(cgroup: Path) -> float | None:
    """Return how many cores the container may use at a time, if limited (cgroup v2, then v1)."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        used, per = _number(cgroup / "cpu/cpu.cfs_quota_us"), _number(cgroup / "cpu/cpu.cfs_period_us")
        return used / per if used and per else None


def cores(cgroup: Path = CGROUP) -> int:
    """Return the number of cores that this process may use: affinity mask and container quota."""
    # macOS has no affinity masks
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, min(allowed, round(quota))) if quota else allowed


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Return the container's memory limit in bytes, or None without one (cgroup v2, then v1)."""
    limit = _number(cgroup / "memory.max")
    if limit is None:
        limit = _number(cgroup / "memory/memory.limit_in_bytes")
    # version 1 writes "no limit" as the largest multiple of a page that fits
    return limit if limit is not None and limit < 1 << 60 else None


def shared_memory(path: str = "/dev/shm") -> tuple[int, int] | None:
    """Return (size, free) in bytes of the file system of shared memory; None where there is none."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return usage.total, usage.free


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
