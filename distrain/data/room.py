"""Whether a pack fits into the memory of a node."""

from __future__ import annotations

from distrain import machine
from distrain.errors import ConfigError
from distrain.units import format_bytes


def shm_free_bytes(folder: str = "/dev/shm") -> int:
    """Return the bytes that the shared-memory file system still takes, 0 if there is none."""
    room = machine.shared_memory(folder)
    return 0 if room is None else room[1]


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
