"""Messages that need no algorithm: bytes from rank to rank, and MPI's own broadcast and barrier."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distrain.comm.operation import Operation
from distrain.comm.process.mpi import MPI
from distrain.errors import CommError

# Bytes. MPI counts are C ints in many libraries; what is longer goes in pieces of this size.
LONGEST_MESSAGE = 1 << 30


def unordered(comm: MPI.Intracomm) -> Hashable:
    """Return the queue of point to point between the ranks of a communicator."""
    return ("messages", comm.handle)


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes to or from a peer.

    Attributes:
        peer: rank in the communicator; MPI.ANY_SOURCE in a receive takes from whoever sends.
        data: uint8 [bytes], read or filled; or such a piece of the memory of a GPU.
    """

    peer: int
    data: np.ndarray | MPI.buffer


def pieces(data: np.ndarray | MPI.buffer) -> list[Any]:
    """Cut uint8 [bytes] into messages that MPI can count; nothing is still one empty message."""
    return [data[i : i + LONGEST_MESSAGE] for i in range(0, max(1, len(data)), LONGEST_MESSAGE)]


def _error_class(status: MPI.Status) -> int:
    code = status.Get_error()
    return MPI.Get_error_class(code) if code > 0 else MPI.SUCCESS


class MessageOperation(Operation):
    """Any number of sends and receives at once, all with one tag.

    Args:
        kind: what it is, for people.
        comm: communicator of the peers.
        tag: between two ranks, messages of equal tags keep their order.
        sends: what goes out.
        receives: what comes in; the sizes must be those that the peers send.
        ordered: True for collectives (started in order, few at a time); False for point to
            point, where an early receive must not hold up anything.
    """

    def __init__(
        self,
        kind: str,
        comm: MPI.Intracomm,
        tag: int,
        sends: Sequence[Message] = (),
        receives: Sequence[Message] = (),
        ordered: bool = True,
        patience_seconds: float | None = None,
    ) -> None:
        self.kind = kind
        self.algorithm = "direct messages"
        self.size_bytes = sum(len(m.data) for m in (*sends, *receives))
        self.queue = comm.handle if ordered else unordered(comm)
        self.concurrency = 4 if ordered else None
        self.serves_others = ordered or bool(sends)
        self.patience_seconds = patience_seconds
        self.source: int | None = None  # who sent, for a receive from any source
        self._comm, self._tag = comm, tag
        self._sends, self._receives = sends, receives
        self._requests: list[MPI.Request] = []
        self._expected: list[tuple[str, int, int]] = []  # direction, peer, bytes: one a request

    def start(self) -> None:
        """Post all receives, then all sends."""
        for message in self._receives:
            for piece in pieces(message.data):
                self._requests.append(self._comm.Irecv([piece, MPI.BYTE], message.peer, self._tag))
                self._expected.append(("from", message.peer, len(piece)))
        for message in self._sends:
            for piece in pieces(message.data):
                self._requests.append(self._comm.Isend([piece, MPI.BYTE], message.peer, self._tag))
                self._expected.append(("to", message.peer, len(piece)))

    def progress(self) -> bool:
        """Collect what is complete; check that each message had the expected length."""
        if self._requests:
            statuses: list[MPI.Status] = []
            try:
                done = MPI.Request.Testsome(self._requests, statuses) or []
            except MPI.Exception:
                self._explain(statuses)
                raise
            for index, status in zip(done, statuses, strict=False):
                self._check(self._expected[index], status)
            for index in sorted(done, reverse=True):
                self._requests.pop(index)
                self._expected.pop(index)
            self.moved += len(done)
        return not self._requests

    def _check(self, expected: tuple[str, int, int], status: MPI.Status) -> None:
        direction, _, size = expected
        if direction == "to":
            return
        self.source = status.Get_source()
        if status.Get_count(MPI.BYTE) != size:
            raise CommError(
                self.kind,
                f"rank {self.source} sent {status.Get_count(MPI.BYTE)} bytes where {size} were expected",
                "call it with tensors of the same shape and type on both sides",
            )

    def _explain(self, statuses: Sequence[MPI.Status]) -> None:
        """Raise what MPI only calls an error in a status, where a message was longer than its place."""
        cut = next((s for s in statuses if _error_class(s) == MPI.ERR_TRUNCATE), None)
        if cut is None:
            return
        sizes = " or ".join(str(size) for size in sorted({s for d, _, s in self._expected if d == "from"}))
        raise CommError(
            self.kind,
            f"rank {cut.Get_source()} sent more bytes than the {sizes} that were expected",
            "call it with tensors of the same shape and type on both sides",
        )

    def waiting_for(self) -> str:
        """Name the peers whose messages are missing."""
        arriving = sorted({p for d, p, _ in self._expected if d == "from"})
        leaving = sorted({p for d, p, _ in self._expected if d == "to"})
        return f"messages from ranks {arriving} and receivers {leaving}"


class MpiOperation(Operation):
    """One of MPI's own nonblocking collectives.

    Args:
        kind: what it is, for people.
        comm: communicator on which it runs.
        begin: starts it and returns the requests; runs in the engine thread.
        size_bytes: bytes of the payload.
    """

    algorithm = "MPI's own"

    def __init__(
        self,
        kind: str,
        comm: MPI.Intracomm,
        begin: Callable[[], list[MPI.Request]],
        size_bytes: int = 0,
    ) -> None:
        self.kind, self.size_bytes, self.queue = kind, size_bytes, comm.handle
        self._begin = begin
        self._comm, self._ranks = comm, 0
        self._requests: list[MPI.Request] = []

    def start(self) -> None:
        """Call the function that starts it."""
        self._ranks = self._comm.Get_size()
        self._requests = self._begin()

    def progress(self) -> bool:
        """Test it."""
        return bool(MPI.Request.Testall(self._requests))

    def waiting_for(self) -> str:
        """MPI does not tell who is missing."""
        return f"some of the {self._ranks} ranks of the group"


def broadcast_operation(comm: MPI.Intracomm, data: np.ndarray, root: int) -> MpiOperation:
    """Return an operation that copies uint8 [bytes] from `root` to all other ranks."""

    def begin() -> list[MPI.Request]:
        return [comm.Ibcast([piece, MPI.BYTE], root) for piece in pieces(data)]

    return MpiOperation("broadcast", comm, begin, data.size)


def barrier_operation(comm: MPI.Intracomm) -> MpiOperation:
    """Return an operation that is complete once every rank has started it."""
    return MpiOperation("barrier", comm, lambda: [comm.Ibarrier()])
