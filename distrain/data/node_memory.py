"""Memory that all ranks of a node see, filled once.

It is an anonymous file in memory (``memfd_create``) that the node's first rank makes and the others
open through ``/proc``. It has no name anywhere, so the kernel frees it when the last rank ends, in
whatever way, and the size of ``/dev/shm`` (tiny in most containers) does not limit it. Where the
ranks cannot open each other's files (hidden ``/proc``, not Linux) it is an MPI shared window, which
does live in the shared-memory file system.
"""

from __future__ import annotations

import logging
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

from distrain.data.room import shm_free_bytes
from distrain.errors import CommError, ConfigError, DistrainError
from distrain.units import format_bytes

if TYPE_CHECKING:
    from mpi4py import MPI

log = logging.getLogger("distrain.data")


class NodeMemory:
    """Bytes that the ranks of one node share.

    Attributes:
        view: writable; all ranks see what any of them writes, ordered by a barrier.
    """

    def __init__(self, view: memoryview, window: MPI.Win | None = None) -> None:
        self.view = view
        self._window = window

    def close(self) -> None:
        """Let go of the memory; collective over the node.

        An anonymous file is unmapped when its last view dies. An MPI window is freed at once: views
        of it must not be used any more.
        """
        self.view = memoryview(b"")
        if self._window is not None:
            self._window.Free()
            self._window = None


def allocate(node_comm: MPI.Comm | None, size: int) -> NodeMemory:
    """Allocate ``size`` bytes (at least one), once for all ranks of ``node_comm``. Collective.

    Raises:
        ConfigError: neither way works; on all ranks or none.
    """
    size = max(size, 1)
    if node_comm is None or node_comm.size == 1:
        return NodeMemory(memoryview(mmap.mmap(-1, size)))
    shared = _memfd(node_comm, size)
    return shared if shared is not None else _window(node_comm, size)


def agree(comm: MPI.Comm | None, error: DistrainError | None) -> None:
    """Raise on all ranks of ``comm`` if any rank brings an error: that of the lowest such rank.

    To be called before a collective that a failed rank would not reach.
    """
    errors = [error] if comm is None else comm.allgather(error)
    for found in errors:
        if found is not None:
            raise found


def _memfd(comm: MPI.Comm, size: int) -> NodeMemory | None:
    """Share an anonymous file, or return None on all ranks if one of them cannot."""
    handle, address = -1, None
    if comm.rank == 0 and hasattr(os, "memfd_create"):
        try:
            handle = os.memfd_create("distrain-data")
            os.ftruncate(handle, size)
            address = f"/proc/{os.getpid()}/fd/{handle}"
        except OSError as error:
            log.info("no anonymous shared memory: %s", error.strerror)
    address = comm.bcast(address)
    region = None
    try:
        if address is not None and comm.rank != 0:
            handle = os.open(address, os.O_RDWR)
        if address is not None:
            region = mmap.mmap(handle, size)
    except OSError as error:
        log.info("%s cannot be shared: %s", address, error.strerror)
    ready = all(comm.allgather(region is not None))  # also: rank 0 keeps its handle until all have opened
    if handle >= 0:
        os.close(handle)
    if ready and region is not None:
        return NodeMemory(memoryview(region))
    return None


def _window(comm: MPI.Comm, size: int) -> NodeMemory:
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
        window = MPI.Win.Allocate_shared(size if comm.rank == 0 else 0, 1, comm=MPI.Intracomm(comm))
    except MPI.Exception as error:
        raise CommError("MPI shared window", f"{size} bytes: {error}", "set data.memory=disk") from None
    buffer, _ = window.Shared_query(0)
    return NodeMemory(np.asarray(buffer).view(np.uint8).data, window)
