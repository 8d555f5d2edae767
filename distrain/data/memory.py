"""Memory in which a store lies: of this process, of the node without a name, or an MPI window."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distrain import node_memory
from distrain.data.room import check_room, shm_free_bytes
from distrain.errors import CommError, ConfigError, DistrainError, agree
from distrain.machine import free_bytes
from distrain.units import format_bytes

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass
class Memory:
    """Memory of a node.

    Attributes:
        view: all of it, writable, zero at first.
        handle: file descriptor of it while it is filled; -1: it is no file.
    """

    view: memoryview
    handle: int = -1
    window: MPI.Win | None = None

    def filled(self) -> None:
        """Close the file: this rank writes no more through it."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def free(self) -> None:
        """Give a window back, collectively; other memory goes with its last view."""
        self.view = memoryview(b"")
        if self.window is not None:
            self.window.Free()
            self.window = None


def check_room_of_all(comm: MPI.Intracomm | None, path: Path, needed: int, extra: int) -> None:
    """Raise on all ranks if one of them finds too little memory. Collective.

    Raises:
        ConfigError: there is less than ``needed + extra`` bytes.
    """
    error: DistrainError | None = None
    try:
        check_room(str(path), needed + extra, free_bytes())
    except DistrainError as found:
        error = found
    agree(comm, error)


def allocate(comm: MPI.Intracomm | None, size: int) -> Memory:
    """Return memory for the node. Collective.

    Raises:
        ConfigError: the system does not give so much; on all ranks.
        CommError: MPI cannot make a window, where memory cannot be shared otherwise.
    """
    size = max(size, 1)  # a node may hold no image at all; nothing can be mapped of size 0
    if comm is None or comm.size == 1:
        try:
            return Memory(node_memory.private(size))
        except OSError as error:
            raise ConfigError(
                "memory of the node",
                f"{size} bytes ({format_bytes(size)}) cannot be had: {error.strerror}",
                "raise the limit of this process (ulimit -v), or set data.memory=disk",
            ) from None
    shared = node_memory.share_file(comm, size)
    return Memory(shared.view, shared.handle) if shared is not None else _window(comm, size)


def _window(comm: MPI.Intracomm, size: int) -> Memory:
    """Return ``size`` bytes in an MPI shared window: the way where files cannot be shared. Collective.

    Raises:
        ConfigError: the shared-memory file system has no room for it; on all ranks.
        CommError: MPI cannot make it.
    """
    from mpi4py import MPI

    free = comm.bcast(shm_free_bytes())
    if size > free:
        raise ConfigError(
            "/dev/shm",
            f"free={free} bytes ({format_bytes(free)}) is less than the {size} bytes "
            f"({format_bytes(size)}) of the data",
            "enlarge it (docker: --shm-size or --ipc=host), let ranks see each other's /proc, "
            "or set data.memory=disk",
        )
    try:
        window = MPI.Win.Allocate_shared(size if comm.rank == 0 else 0, 1, comm=comm)
    except MPI.Exception as error:
        raise CommError("MPI shared window", f"{size} bytes: {error}", "set data.memory=disk") from None
    buffer, _ = window.Shared_query(0)
    return Memory(np.asarray(buffer).view(np.uint8).data, window=window)
