"""The C side of the executor (`csrc/messages.c`): loading, the functions of MPI, plans as tables.

It is part of the one shared library of the wire (`native.py`). MPI's functions are looked up in the
library that mpi4py has loaded, so nothing has to be compiled against an MPI.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np

from distrain.comm import native
from distrain.comm.messages.plan import Plan
from distrain.comm.process.mpi import MPI
from distrain.native_load import INT, LONG, POINTER
from distrain.schedule.ir import Op

IDLE, MOVED, COMPLETE, ERROR = 0, 1, 2, 1000  # what the C side returns; ERROR + an error code of MPI
_LINE = 64  # bytes; staging areas begin on lines of the cache
_WORD = ctypes.c_size_t
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "open": (POINTER, [POINTER, POINTER]),
    "close": (None, [POINTER]),
    "begin": (INT, [POINTER, POINTER, POINTER, LONG, _WORD, INT, LONG, LONG, INT, INT]),
    "advance": (INT, [POINTER, INT, LONG, INT, ctypes.POINTER(INT), LONG, LONG]),
    "open_steps": (INT, [POINTER, POINTER, INT]),
    "is_over": (INT, [POINTER]),
}


class _Mpi(ctypes.Structure):
    """`library` of the C side: functions of MPI, its handle for bytes, sizes of its objects."""

    _fields_ = (
        *((name, POINTER) for name in ("irecv", "send_init", "start", "testsome", "request_free")),
        ("set_yield", POINTER),
        ("byte", _WORD),
        *((name, LONG) for name in ("handle_size", "request_size", "status_size")),
    )


class _Plan(ctypes.Structure):
    """`plan` of the C side."""

    _fields_ = (
        *((name, POINTER) for name in ("messages", "steps", "colors")),
        *((name, LONG) for name in ("color_count", "segments", "window", "most_requests")),
    )


@functools.cache
def library() -> SimpleNamespace | None:
    """Return the C side, loaded once a process; None: not usable here, Python does the same.

    Its functions, and `mpi`: what they call.
    """
    try:
        found = native.functions("distrain_messages_", _SIGNATURES, keep_gil=("is_over",))  # for a glance
        found.mpi = _find_mpi()
    except (RuntimeError, OSError, AttributeError):
        return None
    return found


def _find_mpi() -> _Mpi:
    """Return the functions of MPI.

    Raises:
        OSError, AttributeError: they cannot be found.
    """
    mpi = ctypes.CDLL(MPI.__file__)  # finds what mpi4py's module is linked with
    functions = [
        ctypes.cast(getattr(mpi, f"MPI_{name}"), POINTER)
        for name in ("Irecv", "Send_init", "Start", "Testsome", "Request_free")
    ]
    # Of Open MPI alone; see `csrc/advance.c`.
    set_yield = getattr(mpi, "opal_progress_set_yield_when_idle", None)
    functions.append(POINTER() if set_yield is None else ctypes.cast(set_yield, POINTER))
    sizes = (MPI._sizeof(kind) for kind in (MPI.Comm, MPI.Request, MPI.Status))
    return _Mpi(*functions, MPI._handleof(MPI.BYTE), *sizes)


class PlanTables:
    """A Plan as the tables of the C side, and what operations that run it need.

    Args:
        plan: what this rank does.
        itemsize: bytes of an element.

    Attributes:
        room_bytes: of a half of a lane's staging area.
        staging_bytes: of all of them, for one operation.
    """

    def __init__(self, plan: Plan, itemsize: int) -> None:
        messages: list[tuple[int, int, int, int]] = []
        steps: list[tuple[int, int, int, int]] = []
        colors: list[tuple[int, int]] = []
        for planned in plan.colors:
            first = len(steps)
            for step in planned:
                begin = len(messages)
                messages += [(m.peer, m.op is Op.REDUCE, m.start, m.stop) for m in step.receives + step.sends]
                steps.append((begin, begin + len(step.receives), len(messages), step.early))
            colors.append((first, len(steps)))
        self._arrays = [np.array(table, np.int64).reshape(-1) for table in (messages, steps, colors)]
        self._plan = _Plan(
            *(table.ctypes.data for table in self._arrays),
            *(len(colors), plan.segments, plan.window, _most_requests(plan)),
        )
        self.room_bytes = _room_bytes(plan, itemsize)
        self.staging_bytes = 2 * plan.lanes * self.room_bytes
        self._idle: list[Run] = []

    def take(self) -> Run:
        """Return what runs one operation; give it back when that is complete."""
        return self._idle.pop() if self._idle else Run(self)

    def give(self, run: Run) -> None:
        """Take it back."""
        self._idle.append(run)


class Run:
    """State of one operation on the C side; used again and again.

    Attributes:
        handle: of the C side.
        alone: an array of this one, as the C side takes several.
        tables: what it runs; kept alive, since the C side reads them.
    """

    def __init__(self, tables: PlanTables) -> None:
        c = library()
        assert c is not None  # whoever makes a PlanTables has looked
        self.tables = tables
        self.handle = c.open(ctypes.byref(c.mpi), ctypes.byref(tables._plan))
        if not self.handle:
            raise MemoryError("no memory for the requests of a collective")
        self.alone = (POINTER * 1)(self.handle)
        weakref.finalize(self, c.close, self.handle)


def _most_requests(plan: Plan) -> int:
    """Requests that a lane may have open: the messages of a step, and early receives of the next."""
    most = 1
    for steps in plan.colors:
        for number, step in enumerate(steps):
            early = sum(len(after.receives) for after in steps[number + 1 : number + 2])
            most = max(most, len(step.receives) + len(step.sends) + early)
    return most


def _room_bytes(plan: Plan, itemsize: int) -> int:
    def room(length: int) -> int:
        longest = -(-length // plan.segments) * itemsize
        return -(-longest // _LINE) * _LINE

    steps = (step for steps in plan.colors for step in steps)
    return max(
        (sum(room(m.stop - m.start) for m in step.receives if m.op is Op.REDUCE) for step in steps), default=0
    )
