"""The exchange of images between nodes over MPI, through the engine of the wire.

Messages are cut into pieces of `PIECE_BYTES`: a count never comes near the 2**31 of MPI, the copy
into a piece keeps the engine from gradients for a fraction of a millisecond, and few pieces at a time
are on the wire, so that gradients find it free. Images are gathered from the node's memory piece by
piece and arrive in place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol, cast

import numpy as np
from mpi4py import MPI

from distrain.data.window import Incoming, Outgoing
from distrain.errors import CommError

PIECE_BYTES = 1 << 20
_SENDS = 4  # pieces on their way out, over all peers
_RECEIVES = 2  # pieces expected of each peer; later ones wait at the sender


class Completion(Protocol):
    """The submitter's end of an operation."""

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Block until it is done; raises what ended it."""


Submit = Callable[[Any], Completion]


class SwapOperation:
    """Images to and from other ranks, piece by piece; an Operation of the engine.

    Args:
        comm: communicator of all ranks, for this purpose alone.
        tag: the same on all ranks for the same window.
        sends: rank, and memory uint8 [N] pieces of which follow each other on the wire.
        receives: rank, and memory uint8 [N] that is filled.
    """

    kind = "exchange of images"
    algorithm = "direct messages"
    concurrency: int | None = None  # windows are few, and limited by those who submit them

    def __init__(
        self, comm: MPI.Intracomm, tag: int, sends: list[Outgoing], receives: list[Incoming]
    ) -> None:
        self.queue: Hashable = ("images", comm.handle)
        self.moved = 0
        self.size_bytes = sum(memory.size for _, memory in receives)
        self._comm, self._tag = comm, tag
        # Each rank begins with the peer that follows it: not all of them with rank 0.
        rank, size = comm.rank, comm.size
        self._outgoing = deque((peer, _gathered(m)) for peer, m in sorted(sends, key=_turn(rank, size)))
        self._incoming = {peer: deque(_pieces(memory)) for peer, memory in receives}
        self._expected = dict.fromkeys(self._incoming, 0)
        self._requests: list[MPI.Request] = []
        self._meant: list[tuple[int | None, np.ndarray]] = []  # sender (None: a send), memory in use
        self._sending = 0

    def start(self) -> None:
        """Post the first pieces."""
        self._post()

    def progress(self) -> bool:
        """Collect what is complete and post what follows."""
        if self._requests:
            statuses: list[MPI.Status] = []
            done = MPI.Request.Testsome(self._requests, statuses) or []
            for index, status in zip(done, statuses, strict=False):
                self._retire(*self._meant[index], status)
            for index in sorted(done, reverse=True):
                del self._requests[index], self._meant[index]
            self.moved += len(done)
            if done:
                self._post()
        return not self._requests

    def waiting_for(self) -> str:
        """Name the peers whose pieces are missing."""
        return f"images from ranks {sorted(p for p, n in self._expected.items() if n)}" + (
            f", and ranks {sorted({p for p, _ in self._outgoing})} to take theirs" if self._outgoing else ""
        )

    def _post(self) -> None:
        for peer, pieces in self._incoming.items():
            while pieces and self._expected[peer] < _RECEIVES:
                memory = pieces.popleft()
                self._requests.append(self._comm.Irecv([memory, MPI.BYTE], peer, self._tag))
                self._meant.append((peer, memory))
                self._expected[peer] += 1
        while self._outgoing and self._sending < _SENDS:
            peer, copies = self._outgoing.popleft()
            copy = next(copies, None)
            if copy is None:
                continue
            self._requests.append(self._comm.Isend([copy, MPI.BYTE], peer, self._tag))
            self._meant.append((None, copy))
            self._sending += 1
            self._outgoing.append((peer, copies))  # the next piece goes to the next peer

    def _retire(self, sender: int | None, memory: np.ndarray, status: MPI.Status) -> None:
        if sender is None:
            self._sending -= 1
            return
        self._expected[sender] -= 1
        if status.Get_count(MPI.BYTE) != memory.size:
            raise CommError(
                self.kind,
                f"rank {sender} sent {status.Get_count(MPI.BYTE)} bytes where {memory.size} were expected",
                "give all ranks the same packs, configuration and version of distrain",
            )


class AgreeOperation:
    """The largest number that any rank brings; an Operation of the engine."""

    kind = "agreement on exchanged images"
    algorithm = "MPI's own"
    concurrency: int | None = 4
    size_bytes = 8
    moved = 0

    def __init__(self, comm: MPI.Intracomm, value: int) -> None:
        self.queue: Hashable = comm.handle
        self.result = np.empty(1, np.int64)
        self._comm = comm
        self._value = np.array([value], np.int64)
        self._request = MPI.REQUEST_NULL

    def start(self) -> None:
        """Begin the reduction."""
        self._request = self._comm.Iallreduce(self._value, self.result, MPI.MAX)

    def progress(self) -> bool:
        """Test it."""
        return bool(self._request.Test())

    def waiting_for(self) -> str:
        """MPI does not tell who is missing."""
        return f"some of the {self._comm.size} ranks of the group of nodes"


class MpiWire:
    """See `distrain.data.windows.Wire`. Made by all ranks together, before the engine owns MPI.

    Args:
        comm: communicator of all ranks; a copy of it is used.
        group: number of the group of nodes to which this rank belongs.
        submit: hands an operation to the engine, behind the gradients.
    """

    def __init__(self, comm: MPI.Intracomm, group: int, submit: Submit) -> None:
        self._comm = comm.Dup()
        self._group = cast("MPI.Intracomm", comm.Split(group, comm.rank))
        self._submit = submit
        self._swaps = 0

    def free(self) -> None:
        """Give the communicators back; collective, after the engine has ended."""
        self._comm.Free()
        self._group.Free()

    def swap(self, sends: list[Outgoing], receives: list[Incoming]) -> Callable[[], object]:
        """See `Wire.swap`."""
        self._swaps += 1
        # 2**15 tags are promised by MPI; two windows in flight need two.
        return self._submit(SwapOperation(self._comm, self._swaps % 1024, sends, receives)).wait

    def largest(self, value: int) -> Callable[[], int]:
        """See `Wire.largest`."""
        operation = AgreeOperation(self._group, value)
        completion = self._submit(operation)

        def wait() -> int:
            completion.wait()
            return int(operation.result[0])

        return wait


def _turn(rank: int, size: int) -> Callable[[Outgoing], int]:
    return lambda outgoing: (outgoing[0] - rank) % size


def _pieces(memory: np.ndarray) -> Iterator[np.ndarray]:
    return (memory[at : at + PIECE_BYTES] for at in range(0, memory.size, PIECE_BYTES))


def _gathered(parts: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield copies of memory that follows each other, in pieces of `PIECE_BYTES`."""
    waiting: list[np.ndarray] = []
    size = 0
    for part in parts:
        at = 0
        while at < part.size:
            taken = part[at : at + PIECE_BYTES - size]
            waiting.append(taken)
            size += taken.size
            at += taken.size
            if size == PIECE_BYTES:
                yield np.concatenate(waiting)
                waiting, size = [], 0
    if waiting:
        yield np.concatenate(waiting)
