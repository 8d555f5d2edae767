"""Do all ranks call the same collective? Neighbours tell each other, while the data is on its way.

Each rank of a communicator sends a note of 40 bytes about its collectives to the next rank, in a
ring. If all neighbours agree, all ranks agree; where two differ both of them name the two calls at
once, long before a timeout. Collectives that complete only where all ranks have called the same
(in memory, or by a Schedule whose tags tell calls apart) send notes only when they are late. The
note travels beside the data, so it costs no latency, but some microseconds of the engine thread.
"""

from __future__ import annotations

import struct
import time

import numpy as np

from distrain.comm.process.mpi import MPI
from distrain.comm.supervision.board import board
from distrain.comm.supervision.call import CALL_BYTES, Call
from distrain.comm.supervision.members import Members
from distrain.errors import CommError

_STEP = struct.Struct("<i")  # behind the call: the training step, for stall reports; not compared
NOTE_BYTES = CALL_BYTES + _STEP.size
# Of collectives that find disagreement by themselves, a note is sent only when they take so long.
LATE_SECONDS = 0.25
# Where no note is awaited, so often it is looked for one.
LISTEN_SECONDS = 0.05
# A rank that sees damage, not its cause, leaves the last word to the ranks that know it for so long.
HEARING_SECONDS = 2.0
# A rank may be done with these before others have called them, so it does not wait for a note.
_ONE_WAY = ("broadcast", "gather", "scatter")
# The last note of a rank: it makes no more calls in this group. Calls are numbered from 1.
_FAREWELL = bytes(CALL_BYTES)


class Roll:
    """The notes of one communicator.

    Args:
        comm: the group.
        tag: belongs to the notes alone.
        members: who the ranks are.
    """

    def __init__(self, comm: MPI.Intracomm, tag: int, members: Members) -> None:
        self._comm, self._tag, self._members = comm, tag, members
        rank, size = comm.Get_rank(), comm.Get_size()
        self._rank, self._next, self._before = rank, (rank + 1) % size, (rank - 1) % size
        self._last = 0  # number of the newest call of this rank that is compared
        self._own: dict[int, Call] = {}  # calls of this rank that are not compared yet
        self._early: dict[int, bytes] = {}  # calls of the rank before that this one has not made yet
        self._note = np.zeros(NOTE_BYTES, np.uint8)
        self._receive: MPI.Prequest | None = None
        self._sending: list[tuple[MPI.Request, bytes]] = []
        self.is_over = False  # no more notes will come
        self._listened = 0.0

    def enter(self, call: Call, late: bool) -> Guard:
        """Note a call of this rank; runs in the thread that makes it."""
        # In this order: the engine thread may be comparing meanwhile.
        self._own[call.number] = call
        self._last = call.number
        return Guard(self, call, late)

    # What follows runs in the engine thread.

    def tell(self, packed: bytes) -> None:
        """Send a note to the next rank, and listen to the one before."""
        self._open()
        note = packed + _STEP.pack(-1 if board.step is None else board.step)
        self._sending = [entry for entry in self._sending if not entry[0].Test()]
        self._sending.append((self._comm.Isend([note, MPI.BYTE], self._next, self._tag), note))

    def _open(self) -> None:
        if self._receive is None and not self.is_over:
            self._receive = self._comm.Recv_init([self._note, MPI.BYTE], self._before, self._tag)
            self._receive.Start()

    def listen(self) -> None:
        """Compare what has arrived.

        Raises:
            CommError: another rank made another call.
        """
        self._open()
        self._listened = time.perf_counter()
        while self._receive is not None and self._receive.Test():
            note = self._note.tobytes()
            packed = note[:CALL_BYTES]
            if packed == _FAREWELL:
                self._receive.Free()
                self._receive, self.is_over = None, True
                break
            self._receive.Start()
            number = Call.number_of(packed)
            board.heard[self._members.key] = (self._before, packed, _STEP.unpack(note[CALL_BYTES:])[0])
            if number in self._own:
                self._compare(number, packed)
            elif number > self._last:
                self._early[number] = packed
                for passed in [n for n in self._early if n < self._last and n not in self._own]:
                    del self._early[passed]  # of a call that this rank did not need to compare
            # else: a late note about a call that is complete here

    def listen_now_and_then(self) -> None:
        """Compare what late ranks have told, so that it does not pile up: MPI looks at all its sockets."""
        if time.perf_counter() - self._listened > LISTEN_SECONDS:
            self.listen()

    def is_settled(self, number: int) -> bool:
        """Return True once the call of this number is known to agree."""
        if number in self._early:
            self._compare(number, self._early.pop(number))
        return number not in self._own

    def forget(self, number: int) -> None:
        """The call is complete and was compared by other means."""
        self._own.pop(number, None)
        self._early.pop(number, None)

    def prove(self, call: Call) -> None:
        """All ranks have made this call: it completed."""
        board.proved[self._members.key] = (call, -1 if board.step is None else board.step)

    def _compare(self, number: int, theirs: bytes) -> None:
        mine = self._own[number]
        if mine.pack() != theirs:
            me, other = self._members.name(self._rank), self._members.name(self._before)
            raise CommError(
                me,
                f"collective number {number} of {self._members.title}: {me} called {mine}, "
                f"{other} called {Call.unpack(theirs)}",
                "call the same collectives in the same order, with the same sizes, types and "
                "reductions, on all ranks",
            )
        del self._own[number]

    def take_leave(self) -> None:
        """Tell the next rank that this was the last note."""
        self.tell(_FAREWELL)

    def close(self) -> None:
        """Stop listening, although notes may still come."""
        if self._receive is not None:
            self._receive.Cancel()
            self._receive.Wait()
            self._receive.Free()
            self._receive = None


class Guard:
    """One call under comparison; the engine asks it about the call's operation.

    Args:
        roll: of the call's group.
        call: what this rank called.
        late: the operation compares by itself; notes are for the case that others called something else.
    """

    __slots__ = ("_call", "_late", "_roll", "_since", "_told", "_waits")

    def __init__(self, roll: Roll, call: Call, late: bool) -> None:
        self._roll, self._call, self._late = roll, call, late
        self._waits = not late and call.kind not in _ONE_WAY
        self._told = False
        self._since = 0.0

    def begin(self) -> None:
        """The operation starts."""
        self._since = time.perf_counter()
        if not self._late:
            self._tell()

    def _tell(self) -> None:
        self._told = True
        self._roll.tell(self._call.pack())

    def may_end(self, complete: bool) -> bool:
        """Look at the notes that have arrived; return True if the operation is `complete` and may end.

        Raises:
            CommError: another rank made another call.
        """
        if complete and self._late:
            self._roll.forget(self._call.number)
            self._roll.prove(self._call)
            self._roll.listen_now_and_then()
            return True
        if not self._told:
            if time.perf_counter() - self._since < LATE_SECONDS:
                return False
            self._tell()
        self._roll.listen()
        settled = self._roll.is_settled(self._call.number)
        return complete and (settled or not self._waits)

    def explain(self, error: BaseException) -> None:
        """The operation has failed: where MPI says so, look for ranks that disagree as the cause.

        Raises:
            CommError: another rank made another call.
        """
        if not isinstance(error, MPI.Exception):
            return
        if not self._told:
            self._tell()
        end = time.perf_counter() + HEARING_SECONDS
        while time.perf_counter() < end:
            self.may_end(False)
            time.sleep(0.001)
