"""This rank's end of an exchange in memory, and what ranks must agree on to open one."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable

import numpy as np
import torch

from distrain import node_memory
from distrain.comm import native
from distrain.comm.buffers import Reduction
from distrain.comm.process.mpi import MPI
from distrain.errors import CommError
from distrain.schedule.ir import Collective

log = logging.getLogger(__name__)

# What `advance` returns.
IDLE, MOVED, COMPLETE, MISMATCH = range(4)
# What the C side does in a collective.
_PHASES = {Collective.REDUCE_SCATTER: 1, Collective.ALL_GATHER: 2, Collective.ALLREDUCE: 3}
# A slice is what a rank moves at once: long enough to hide the hand-over, short enough that all slices
# on their way stay in the processor's cache.
LARGEST_SLICE_BYTES = 128 << 10
SMALLEST_SLICE_BYTES = 4 << 10
# Where every rank has a core, looking at memory is faster than any system call.
SPINS = 300
# Short waits are the rule while segments flow: give the core away a few times before sleeping.
YIELDS = 50
REGION_BYTES = 64 << 20
_SLOTS = 4  # of csrc/channel.c


def slice_bytes_for(ranks: int) -> int:
    """Return the length of slices, so that the memory stays below `REGION_BYTES` where it can."""
    fitting = REGION_BYTES // (ranks * ranks * _SLOTS) // 4096 * 4096
    return max(SMALLEST_SLICE_BYTES, min(LARGEST_SLICE_BYTES, fitting))


class Channel:
    """One rank's end. Ranks must begin the same collectives in the same order, one at a time.

    Args:
        region: zeroed memory that all ranks see, as long as `native` says for so many ranks.
        rank: this rank.
        ranks: how many share it.
        slice_bytes: the same on all ranks.

    Attributes:
        name: says who a rank is, in errors.
        spins: looks at memory before a wait gives the core away.
        address: of the C side's end.
        whole_bytes: for payloads up to here nobody waits for this rank once it has begun.
    """

    def __init__(self, region: memoryview, rank: int, ranks: int, slice_bytes: int) -> None:
        self._library = native.library()
        self._view = ctypes.c_char.from_buffer(region)  # keeps the memory mapped
        self.rank, self.ranks = rank, ranks
        self.spins = SPINS if ranks <= len(os.sched_getaffinity(0)) else 0
        self._handle = self._library.open(ctypes.addressof(self._view), rank, ranks, slice_bytes)
        if not self._handle:
            raise MemoryError("no memory for an exchange in memory")
        self.address: int = self._handle
        self.whole_bytes: int = self._library.whole_bytes(ranks)
        self._payload: torch.Tensor | None = None
        self._quarrel: CommError | None = None
        self.name: Callable[[int], str] = "rank {} of the group".format

    def supports(self, dtype: torch.dtype, reduction: Reduction) -> bool:
        """Return whether this type can be combined so; the same on all ranks."""
        return native.codes(dtype, reduction) is not None

    def begin(self, payload: torch.Tensor, reduction: Reduction, collective: Collective) -> int:
        """Start a collective on a contiguous CPU tensor, in place; return as `advance` does.

        The one before must be complete, and `supports` must have said yes.

        Raises:
            CommError: the ranks did not call the same collective, now or before.
        """
        codes = native.codes(payload.dtype, reduction)
        assert codes is not None, f"{payload.dtype} and {reduction} were not asked for"
        if self._quarrel is not None:  # half a collective lies there
            raise self._quarrel
        self._payload = payload  # its memory is in use until COMPLETE
        divides = reduction is Reduction.AVG and payload.dtype is not torch.bool
        return self.understand(
            self._library.begin(
                self._handle,
                payload.data_ptr(),
                payload.numel(),
                *codes,
                self.ranks if divides else 1,
                _PHASES[collective],
            )
        )

    def advance(self, work_seconds: float, wait_seconds: float, spins: int, yields: int) -> int:
        """Go on for about `work_seconds`, at most `wait_seconds` of them waiting for others.

        Returns:
            IDLE (others must move first), MOVED or COMPLETE.

        Raises:
            CommError: the ranks did not call the same collective.
        """
        wait = int(wait_seconds * 1e9)
        return self.understand(
            self._library.advance(self._handle, int(work_seconds * 1e9), wait, spins, yields)
        )

    def understand(self, code: int) -> int:
        """Return what the C side answered.

        Raises:
            CommError: it says that the ranks did not call the same collective.
        """
        if code == COMPLETE:
            self._payload = None
        elif code == MISMATCH:
            self._quarrel = self._mismatch()
            raise self._quarrel
        return code

    def _mismatch(self) -> CommError:
        found = np.zeros(13, np.int64)
        self._library.mismatch(self._handle, found.ctypes.data)
        other, theirs, ours = int(found[0]), _words(found[1:7]), _words(found[7:13])
        return CommError(
            self.name(self.rank),
            f"called {ours} where {self.name(other)} called {theirs}",
            "call the same collectives in the same order, with the same sizes and types, on all ranks",
        )

    def waiting_for(self) -> str:
        """Say which ranks have come less far than this one."""
        stages = np.zeros((self.ranks, 3), np.int64)
        self._library.progress(self._handle, stages.ctypes.data)
        mine = stages[self.rank]
        behind = [rank for rank in range(self.ranks) if (stages[rank] < np.maximum(mine, 1)).any()]
        missing = [rank for rank in behind if stages[rank, 0] < 1]
        if missing:
            return f"ranks {missing} of the group, which have not called it"
        return f"ranks {behind} of the group, which stopped in the middle of it"

    def close(self) -> None:
        """Release this end; the memory goes with the last one."""
        if self._handle:
            self._library.close(self._handle)
            self._handle = None
            del self._view


def _words(signature: np.ndarray) -> str:
    number, phases, kind, op, divisor, count = (int(value) for value in signature)
    collective = {1: "reduce_scatter", 2: "all_gather"}.get(phases & 3, "allreduce")
    types = {
        code * 2 + numbers - 1: str(t) for t, (code, numbers) in native.TYPES.items() if t is not torch.bool
    }
    ops = {code: reduction.value for reduction, code in native.OPS.items() if reduction is not Reduction.AVG}
    name = "avg" if divisor > 1 else ops[op]
    return f"{collective} ({name}) number {number} of {count} elements of {types[kind]}"


def open_channel(comm: MPI.Intracomm, same_node: bool) -> Channel | None:
    """Return this rank's end of an exchange between all ranks of `comm`; None on all if it cannot be.

    Collective; to be called where MPI may be called.

    Args:
        comm: the ranks.
        same_node: they all run on one node; the same on all of them.
    """
    ranks = comm.Get_size()
    if ranks < 2 or not same_node:
        return None
    able, reason = native.build_info()
    if not all(comm.allgather(able)):
        log.info("no exchange in memory: %s", reason if not able else "another rank cannot")
        return None
    slice_bytes = slice_bytes_for(ranks)
    region = node_memory.share(comm, native.library().bytes(ranks, slice_bytes))
    return None if region is None else Channel(region, comm.Get_rank(), ranks, slice_bytes)
