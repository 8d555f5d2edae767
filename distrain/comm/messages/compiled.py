"""The executor in C: what `executor.py` does, without Python between two messages.

One call runs for as long as this operation is all that the engine has to do: messages are taken, added
and sent on without the GIL, which the main thread may hold for milliseconds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from distrain.comm import native
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.messages.context import MessageContext
from distrain.comm.messages.plan import Plan
from distrain.comm.messages.tables import COMPLETE, ERROR, MOVED, PlanTables, Run, library
from distrain.comm.operation import Operation
from distrain.comm.process.mpi import MPI
from distrain.comm.process.rest import LONGEST_SECONDS, SPIN_SECONDS

# After so long the engine looks around: at notes of other ranks, mostly. New work ends the call at once.
WORK_NANOSECONDS = 20_000_000
# The first calls are shorter: notes are compared while data is on its way, not when others wait for the core.
FIRST_NANOSECONDS = 2_000_000
SPIN, LONGEST = round(SPIN_SECONDS * 1e9), round(LONGEST_SECONDS * 1e9)
# Short payloads are a chain of short waits, and a sleeper gets its core back late where others want it:
# they poll for longer, giving the core away between polls. 16 hosts, 1 MB, beside busy threads: 31 ms -> 19.
# Only a caller that waits does so: beside a backward pass each poll delays its threads, on some rank a lot.
SHORT_BYTES = 4 << 20
SPIN_SHORT = 2_000_000


class CompiledOperation(Operation):
    """One collective, run by the C side.

    Args:
        plan: what this rank does, from `make_plan`.
        tables: the same for the C side.
        codes: type and reduction for the C side, from `native.codes`.
        buffer, reduction, context: see `executor.ScheduleOperation`.
        begun: its state and staging area, if a call of C has begun it and keeps them; it is not started then.

    Attributes:
        error_code: of the C side, if it has failed already.
    """

    waits = True
    error_code = 0

    def __init__(
        self,
        plan: Plan,
        tables: PlanTables,
        codes: tuple[int, int, int],
        buffer: FlatBuffer,
        reduction: Reduction,
        context: MessageContext,
        begun: tuple[Run, np.ndarray] | None = None,
    ) -> None:
        self.kind = context.kind
        self.size_bytes = buffer.count * buffer.itemsize
        self.algorithm = plan.title
        self.queue = context.comm.handle
        self._plan, self._tables, self._codes = plan, tables, codes
        self._buffer, self._comm, self._pool = buffer, context.comm, context.pool
        self._first_tag = context.first_tag
        self._divide = reduction is Reduction.AVG
        self._is_lent = begun is not None
        self._has_ended = False
        self._run: Run | None = None if begun is None else begun[0]
        self._staging: np.ndarray | None = None if begun is None else begun[1]
        self._work = FIRST_NANOSECONDS
        c = library()
        assert c is not None  # there is a PlanTables
        self._c = c

    @property
    def driver(self) -> int | None:  # type: ignore[override]
        """Its state on the C side, which moves several such operations in one call."""
        return None if self._run is None else self._run.handle

    def start(self) -> None:
        """Begin the first step of every lane."""
        if self._is_lent:
            return
        self._run = self._tables.take()
        self._staging = self._pool.take(self._tables.staging_bytes)
        type_code, numbers, op = self._codes
        self._check(
            self._c.begin(
                self._run.handle,
                self._buffer.address,
                self._staging.ctypes.data,
                self._tables.room_bytes,
                self._comm.handle,
                self._first_tag,
                self._buffer.itemsize,
                numbers,
                type_code,
                op,
            )
        )

    def progress(self) -> bool:
        """Go on as far as the others allow; wait for them where nothing else is to be done."""
        assert self._run is not None and self._staging is not None  # it was started
        self._check(self.error_code)
        if self._has_ended:  # its state may be another operation's
            return True
        code = self._c.advance(
            self._run.alone,
            1,
            self._work,
            self.is_alone,
            self.news,
            SPIN_SHORT if self.caller_waits and self.size_bytes <= SHORT_BYTES else SPIN,
            LONGEST,
        )
        self._check(code)
        self._work = min(2 * self._work, WORK_NANOSECONDS)
        self.moved += code == MOVED
        return code == COMPLETE and self._end()

    def _end(self) -> bool:
        """Do what follows the last step; once, though the error of a signal may have it asked for again."""
        self._has_ended = True
        if self._divide:
            native.divide(self._buffer, self._comm.Get_size())
        if not self._is_lent:
            assert self._run is not None
            self._pool.give(self._staging)
            self._tables.give(self._run)
        return True

    def _check(self, code: int) -> None:
        if code >= ERROR:
            raise MPI.Exception(code - ERROR)

    def waiting_for(self) -> str:
        """Name the steps that are not complete, and the peers they exchange messages with."""
        if self._run is None:
            return "its start"
        pairs = np.zeros((256, 2), np.int64)
        count = self._c.open_steps(self._run.handle, pairs.ctypes.data, len(pairs))
        lines: dict[str, set[int]] = {}
        for color, index in pairs[:count].tolist():
            before = sum(len(steps) for steps in self._plan.colors[:color])
            step = self._plan.colors[color][index - before]
            peers = {message.peer for message in step.receives + step.sends}
            lines.setdefault(f"color {color} step {step.number}", set()).update(peers)
        return "; ".join(f"{where}: ranks {sorted(peers)}" for where, peers in sorted(lines.items()))


def advance_all(drivers: Sequence[int], news: ctypes.c_int) -> list[bool]:
    """Move several operations, and wait for their messages, until one is complete or the engine is wanted.

    Return which are over; what came of them, an error too, is seen when they make `progress`.
    """
    c = library()
    assert c is not None  # which has made them
    handles = (ctypes.c_void_p * len(drivers))(*drivers)
    c.advance(handles, len(drivers), WORK_NANOSECONDS, 1, news, SPIN, LONGEST)
    return [bool(c.is_over(driver)) for driver in drivers]
