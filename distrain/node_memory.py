"""Memory that all ranks of a node see: an anonymous file in memory, one for all of them.

The node's first rank makes it (``memfd_create``) and the others open it through ``/proc``. It has no
name anywhere, so the kernel frees it when the last rank ends, in whatever way, and the size of
``/dev/shm`` (tiny in most containers) does not limit it. It needs Linux and ranks that may see each
other in ``/proc``.
"""

from __future__ import annotations

import logging
import mmap
import os
from dataclasses import dataclass
from typing import Any, Protocol

log = logging.getLogger("distrain.memory")


class Ranks(Protocol):
    """What is used here of an MPI communicator."""

    @property
    def rank(self) -> int:
        """Number of this rank."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Give the object of the root to all."""

    def allgather(self, sendobj: Any) -> list[Any]:
        """Give the objects of all to all."""


def private(size: int) -> memoryview:
    """Return ``size`` bytes of this process alone, writable, zero; in huge pages where the kernel has them.

    Raises:
        OSError: the kernel refuses to give so much.
    """
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:  # one fault for 2 MiB in place of 512: filling it is three times as fast
            region.madvise(mmap.MADV_HUGEPAGE)
        except OSError as error:
            log.debug("no huge pages: %s", error.strerror)
    return memoryview(region)


@dataclass(frozen=True)
class Shared:
    """Memory of a node, and the file that it is.

    Attributes:
        view: the memory, writable, zero.
        handle: file descriptor of it. To write a file costs no page fault and clears no page first, so
            whoever fills much memory is faster with it; the caller closes it.
    """

    view: memoryview
    handle: int


def share(comm: Ranks, size: int) -> memoryview | None:
    """Return ``size`` bytes that all ranks of ``comm`` see, writable; collective.

    The memory is freed when the last view of it in the last process has gone.

    Returns:
        None on all ranks if one of them cannot take part.
    """
    shared = share_file(comm, size)
    if shared is None:
        return None
    os.close(shared.handle)
    return shared.view


def share_file(comm: Ranks, size: int) -> Shared | None:
    """Return the same as `share` with the file behind it, as a descriptor of this process; collective.

    Returns:
        None on all ranks if one of them cannot take part.
    """
    handle, address = -1, None
    if comm.rank == 0 and hasattr(os, "memfd_create"):
        try:
            handle = os.memfd_create("distrain")
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
    if ready and region is not None:
        return Shared(memoryview(region), handle)
    if handle >= 0:
        os.close(handle)
    return None
