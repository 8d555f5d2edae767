"""Checks of the machine: cores, memory, the file system of shared memory, GPUs, compiler."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

from distrain import machine
from distrain.launch.doctor.check import Check
from distrain.units import format_bytes

_LITTLE = 64 << 20  # so large is all of /dev/shm in a container of Docker, unless it is told otherwise


def cores() -> Check:
    """Look at the cores that this process may use."""
    usable, installed = machine.cores(), os.cpu_count() or 1
    found = f"{usable} usable of {installed}, {platform.machine()}, {platform.system()}"
    return Check("cores", "ok", found, facts={"usable": usable, "installed": installed})


def memory() -> Check:
    """Look at the memory of the node, where packed data lies: installed, limited by a container, free."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = machine.memory_limit()
    free = machine.free_bytes()
    facts = {"installed_bytes": installed, "limit_bytes": limit, "free_bytes": free}
    text = "no container limit" if limit is None else f"container limit {format_bytes(limit)}"
    return Check(
        "memory",
        "ok",
        f"{format_bytes(installed)}, {text}; {format_bytes(free)} free for packed data",
        facts=facts,
    )


def shared_memory() -> Check:
    """Look at the room in /dev/shm, where MPI keeps segments of its own.

    Packed data lies there only where ranks may not open each other's memory through ``/proc``.
    """
    room = machine.shared_memory()
    if room is None:
        do = "mount a tmpfs there: MPI may send through the network inside the node without it"
        return Check("shared memory", "slower", "there is no /dev/shm", do)
    size, free = room
    found = f"/dev/shm: {format_bytes(free)} free of {format_bytes(size)}"
    facts = {"size_bytes": size, "free_bytes": free}
    if free <= _LITTLE:
        do = "MPI keeps its segments there: docker run --shm-size=2g, or a larger tmpfs"
        return Check("shared memory", "slower", found, do, facts)
    return Check("shared memory", "ok", found, facts=facts)


def gpus(seen_by_torch: list[str] | None) -> Check:
    """Compare the GPUs that the driver shows with those that torch can use."""
    driver = machine.gpus()
    facts = {"driver": driver, "torch": seen_by_torch}
    if seen_by_torch:
        return Check("gpus", "ok", f"{len(seen_by_torch)} x {seen_by_torch[0]}", facts=facts)
    if driver and seen_by_torch is not None:
        do = "install a torch built for CUDA that fits the driver (nvidia-smi shows its version)"
        return Check("gpus", "broken", f"the driver shows {driver}, torch can use none", do, facts)
    return Check("gpus", "absent", "none: training runs on the CPU", facts=facts)


def compiler() -> Check:
    """Look for the C compiler that builds the core of the communication, the decoder and the checksums."""
    chosen = os.environ.get("CC", "").split()
    path = next((p for name in (chosen[:1] or ["cc", "gcc", "clang"]) if (p := shutil.which(name))), None)
    if path is None:
        do = "only needed to build the C libraries (communication, decoder, checksums) where they are missing"
        return Check("compiler", "absent", "no C compiler found", do)
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    version = next(iter(answer.stdout.splitlines()), "")
    return Check("compiler", "ok", f"{version} ({path})", facts={"path": path, "version": version})
