"""The exchange of images between nodes over MPI, through the engine of the wire.

Who receives decides what travels. Every sender offers its next pieces to all its peers; they leave when the
receiver has posted a receive for them. A rank posts few at a time and as many for each peer: so all ports are
busy alike, none is flooded, and what is on its way when gradients begin is soon through.
While gradients are in flight it asks for a piece only now and then, and in the gaps between them for less
than else. A rank that waits for images has no gradients in flight, so it soon asks at full speed. Images are
gathered from the node's memory piece by piece and arrive in place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol, cast

import numpy as np
from mpi4py import MPI

from distrain.data.nodes.window import Incoming, Outgoing
from distrain.errors import CommError

MESSAGE_BYTES = 256 << 10  # of a piece: 2 ms of a link of 1 Gbit/s; far below the 2**31 of MPI's counts
EXPECTED = 24  # pieces that a rank asks for at the same time
EXPECTED_OF_PEER = 3  # of them of one peer, so that every peer has something to send at any time
_OFFERED = 8  # copies of pieces on their way out of one window, over all peers, but one each at least
# Of them to one peer. To accept a piece is a message that waits behind those on their way to its sender: of
# two ranks that send each other much at once one stands still while the other sends (8: 56 % of the link).
_OFFERED_TO_PEER = 2
# Between two pieces while gradients are in flight: 5 MB/s, so that nothing starves.
TRICKLE_SECONDS = 0.05
# After gradients more are likely to come, and wait for what is on its way; so for a while it is little.
GAP_SECONDS = 0.05
EXPECTED_IN_GAP = 1
# A call of MPI reports what the one before has found.
_CALLS = 2


class Completion(Protocol):
    """The submitter's end of an operation."""

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Block until it is done; raises what ended it."""


Submit = Callable[[Any], Completion]


class Allowance:
    """How many pieces a rank may ask for, over all windows: few, and hardly any behind gradients.

    Later windows must not keep the oldest from asking: their pieces may be of ranks that wait for it.
    """

    def __init__(self) -> None:
        self._windows: list[object] = []
        self._taken = 0
        self._of_peer: dict[int, int] = {}
        self._behind, self._now = False, 0.0
        self._taken_at = self._gradients_at = float("-inf")

    def look(self, behind: bool, now: float) -> None:
        """Say what holds until this is called again.

        Args:
            behind: gradients are in flight.
            now: seconds of a clock.
        """
        self._behind, self._now = behind, now
        if behind:
            self._gradients_at = now

    def enter(self, window: object) -> None:
        """Let a window ask from now on."""
        self._windows.append(window)

    def leave(self, window: object) -> None:
        """It needs no more."""
        self._windows.remove(window)

    def is_oldest(self, window: object) -> bool:
        """Return whether it is the oldest of those that ask."""
        return self._windows[0] is window

    def of(self, peer: int) -> int:
        """Return how many pieces of a peer have been asked for and have not come."""
        return self._of_peer.get(peer, 0)

    def take(self, peer: int, needed: bool = False) -> bool:
        """Return whether one more piece of a peer may be asked for, and count it.

        `needed`: it is for the oldest window, which has asked for none. It waits for nothing but gradients.
        """
        if self._behind:
            allowed = not self._taken and self._now - self._taken_at >= TRICKLE_SECONDS
        else:
            is_gap = self._now - self._gradients_at < GAP_SECONDS
            allowed = self._taken < (EXPECTED_IN_GAP if is_gap else EXPECTED)
        allowed = allowed and self.of(peer) < EXPECTED_OF_PEER
        if allowed or (needed and not self._behind):
            self._taken += 1
            self._of_peer[peer] = self.of(peer) + 1
            self._taken_at = self._now
            return True
        return False

    def give(self, peer: int) -> None:
        """Say that a piece has come."""
        self._taken -= 1
        self._of_peer[peer] -= 1


class SwapOperation:
    """Images to and from other ranks, piece by piece; an Operation of the engine.

    Args:
        comm: communicator of all ranks, for this purpose alone.
        tag: the same on all ranks for the same window.
        sends: rank, and memory uint8 [N] pieces of which follow each other on the wire.
        receives: rank, and memory uint8 [N] that is filled.
        allowance: of this rank, shared by all its windows.
        spare: memory for copies on their way out, uint8 [MESSAGE_BYTES] each, shared likewise.
    """

    kind = "exchange of images"
    algorithm = "direct messages"
    concurrency: int | None = None  # windows are few, and limited by those who submit them
    is_behind = False

    def __init__(
        self,
        comm: MPI.Intracomm,
        tag: int,
        sends: list[Outgoing],
        receives: list[Incoming],
        allowance: Allowance,
        spare: list[np.ndarray],
    ) -> None:
        self.queue: Hashable = ("images", comm.handle)
        self.moved = 0
        self.size_bytes = sum(memory.size for _, memory in receives)
        self._comm, self._tag, self._allowance = comm, tag, allowance
        self._spare = spare
        self._outgoing = {peer: _gathered(memory, spare) for peer, memory in sends}
        self._incoming = {peer: deque(_pieces(memory)) for peer, memory in receives if memory.size}
        self._expected = dict.fromkeys(self._incoming, 0)
        self._requests: list[MPI.Request] = []
        self._meant: list[tuple[int, bool, np.ndarray]] = []  # peer, whether it comes, memory in use

    def start(self) -> None:
        """Offer the first pieces, and ask for some."""
        self._allowance.enter(self)
        each = max(1, min(_OFFERED_TO_PEER, _OFFERED // max(1, len(self._outgoing))))
        for peer in tuple(self._outgoing):
            for _ in range(each):
                self._offer(peer)
        self._ask()

    def progress(self) -> bool:
        """Collect what is complete and post what follows."""
        done, statuses = self._test()
        ended = [(self._requests[index], *self._meant[index]) for index in done]
        for index in sorted(done, reverse=True):
            del self._requests[index], self._meant[index]
        for (request, peer, comes, memory), status in zip(ended, statuses, strict=False):
            if comes:
                self._take_in(peer, memory, status)
            else:
                request.Free()
                self._spare.append(cast("np.ndarray", memory.base))
                self._offer(peer)
        self._ask()
        self.moved += len(done)
        complete = not self._requests and not self._incoming
        if complete:
            self._allowance.leave(self)
        return complete

    def waiting_for(self) -> str:
        """Name the peers whose pieces are missing."""
        missing, takers = self._missing(), self._takers()
        return f"images from ranks {sorted(missing)}" + (
            f", and ranks {sorted(takers)} to take theirs" if takers else ""
        )

    def missing_ranks(self) -> list[int]:
        """Return the peers whose pieces are missing, and those who have not taken theirs."""
        return sorted(self._missing() | self._takers())

    def _missing(self) -> set[int]:
        return {peer for peer, count in self._expected.items() if count} | set(self._incoming)

    def _takers(self) -> set[int]:
        return {peer for peer, comes, _ in tuple(self._meant) if not comes} | set(self._outgoing)

    def _test(self) -> tuple[list[int], list[MPI.Status]]:
        statuses: list[MPI.Status] = []
        if self._requests:
            for _ in range(1 if self.is_behind else _CALLS):
                done = MPI.Request.Testsome(self._requests, statuses)
                if done:
                    return list(done), statuses
        return [], statuses

    def _offer(self, peer: int) -> None:
        """Begin to send the next piece to a peer; it leaves when the peer asks for it."""
        copy = next(self._outgoing[peer], None) if peer in self._outgoing else None
        if copy is None:
            self._outgoing.pop(peer, None)
            return
        # Persistent, not Isend: so the starts of messages use all network cards of Open MPI in turn.
        request = self._comm.Send_init([copy, MPI.BYTE], peer, self._tag)
        request.Start()
        self._requests.append(request)
        self._meant.append((peer, False, copy))

    def _ask(self) -> None:
        """Post receives, as many as may be: of the peers who were asked for least, then who owe most."""
        allowance = self._allowance
        allowance.look(self.is_behind, time.perf_counter())
        while self._incoming:
            peer = min(self._incoming, key=lambda peer: (allowance.of(peer), -len(self._incoming[peer])))
            needed = allowance.is_oldest(self) and not any(self._expected.values())
            if not allowance.take(peer, needed):
                return
            memory = self._incoming[peer].popleft()
            if not self._incoming[peer]:
                del self._incoming[peer]
            self._requests.append(self._comm.Irecv([memory, MPI.BYTE], peer, self._tag))
            self._meant.append((peer, True, memory))
            self._expected[peer] += 1

    def _take_in(self, sender: int, memory: np.ndarray, status: MPI.Status) -> None:
        self._expected[sender] -= 1
        self._allowance.give(sender)
        if status.Get_count(MPI.BYTE) != memory.size:
            raise CommError(
                self.kind,
                f"rank {sender} sent {status.Get_count(MPI.BYTE)} bytes where {memory.size} were expected",
                "give all ranks the same packs, configuration and version of distrain",
            )


class AgreeOperation:
    """The largest number that any rank brings; an Operation of the engine.

    Args:
        comm: communicator of these ranks.
        members: their ranks in the world.
        value: of this rank.
    """

    kind = "agreement on exchanged images"
    algorithm = "MPI's own"
    concurrency: int | None = 4
    size_bytes = 8
    moved = 0
    is_behind = False

    def __init__(self, comm: MPI.Intracomm, members: list[int], value: int) -> None:
        self.queue: Hashable = comm.handle
        self._members = members
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

    def missing_ranks(self) -> list[int]:
        """Return all others of the group."""
        return [rank for number, rank in enumerate(self._members) if number != self._comm.rank]


class MpiCarrier:
    """See `distrain.data.nodes.windows.Carrier`. Made by all ranks together, before the engine owns MPI.

    Args:
        comm: communicator of all ranks; a copy of it is used.
        group: number of the group of nodes to which this rank belongs.
        submit: hands an operation to the engine, behind the gradients.
    """

    def __init__(self, comm: MPI.Intracomm, group: int, submit: Submit) -> None:
        self._comm = comm.Dup()
        self._group = cast("MPI.Intracomm", comm.Split(group, comm.rank))
        self._members: list[int] = self._group.allgather(comm.rank)
        self._submit = submit
        self._swaps = 0
        self._allowance = Allowance()
        self._spare: list[np.ndarray] = []  # fresh memory costs a page fault every 4 KB

    def free(self) -> None:
        """Give the communicators back; collective, after the engine has ended."""
        self._comm.Free()
        self._group.Free()

    def swap(self, sends: list[Outgoing], receives: list[Incoming]) -> Callable[[], object]:
        """See `Carrier.swap`."""
        self._swaps += 1
        # 2**15 tags are promised by MPI; the few windows in flight need one each.
        tag = self._swaps % 1024
        return self._submit(
            SwapOperation(self._comm, tag, sends, receives, self._allowance, self._spare)
        ).wait

    def largest(self, value: int) -> Callable[[], int]:
        """See `Carrier.largest`."""
        operation = AgreeOperation(self._group, self._members, value)
        completion = self._submit(operation)

        def wait() -> int:
            completion.wait()
            return int(operation.result[0])

        return wait


def _pieces(memory: np.ndarray) -> Iterator[np.ndarray]:
    return (memory[at : at + MESSAGE_BYTES] for at in range(0, memory.size, MESSAGE_BYTES))


def _gathered(parts: list[np.ndarray], spare: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield copies of memory that follows each other, in pieces of `MESSAGE_BYTES`; spare memory first."""

    def copy() -> np.ndarray:
        whole = spare.pop() if spare else np.empty(MESSAGE_BYTES, np.uint8)
        return np.concatenate(waiting, out=whole[:size])

    waiting: list[np.ndarray] = []
    size = 0
    for part in parts:
        at = 0
        while at < part.size:
            taken = part[at : at + MESSAGE_BYTES - size]
            waiting.append(taken)
            size += taken.size
            at += taken.size
            if size == MESSAGE_BYTES:
                yield copy()
                waiting, size = [], 0
    if waiting:
        yield copy()
