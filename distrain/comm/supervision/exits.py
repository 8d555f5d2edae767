"""How a rank ends: an uncaught error on one rank ends the whole job, at once and non-zero.

Without this the others would wait for the dead rank in their next collective, for ever.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn

from distrain import timeline
from distrain.comm.supervision.board import board

log = logging.getLogger(__name__)

# MPI_Abort asks the launcher to kill the job; if it does not within so long, this process ends itself.
LAST_RESORT_SECONDS = 5.0
_STDERR_FD = 2


class _State:
    name = ""
    installed = False
    exit_code = 0  # of a sys.exit() that may be on its way; see `_exit`
    exit_called = 0.0  # when (time.monotonic)
    is_child = False  # forked from a rank: MPI, the job and its end are the parent's
    agreed_code = 0  # with which all ranks end together; see `all_end_with`
    hook = sys.excepthook
    exit = sys.exit


def install(name: str) -> None:
    """Make uncaught exceptions, Ctrl-C and ``sys.exit(n)`` of this process end the whole job.

    Args:
        name: who this is, printed before the traceback: ``"rank 3 on node7"``.
    """
    _State.name = name
    if not _State.installed:
        _State.installed = True
        _State.hook, _State.exit = sys.excepthook, sys.exit
        sys.excepthook = _on_exception
        sys.exit = _exit


def all_end_with(code: int) -> None:
    """Let ``sys.exit(code)`` be a clean end: every rank is about to end so, nobody needs to be stopped.

    Only for ranks that have agreed on it and have nothing left to communicate.
    """
    _State.agreed_code = code


def end_job(code: int) -> NoReturn:
    """End all ranks of the job with this exit code. Any thread may call it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none at all: nothing to save
            stream.flush()
    with suppress(OSError, ValueError):
        timeline.stop()
    # This watchdog is a plain C thread: it fires even if MPI_Abort hangs with the GIL held.
    faulthandler.dump_traceback_later(LAST_RESORT_SECONDS, exit=True, file=_STDERR_FD)
    from distrain.comm.process.mpi import MPI

    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.COMM_WORLD.Abort(code)
    os._exit(code)


def become_child() -> None:
    """This process was just forked from a rank: from now on its end is its own, not the job's."""
    if _State.installed:
        _State.is_child, _State.exit_code = True, 0


def is_child() -> bool:
    """True in a process that was forked from a rank."""
    return _State.is_child


def forget_exit() -> None:
    """The program goes on after a ``sys.exit()`` that somebody caught."""
    _State.exit_code = 0


def at_exit() -> None:
    """Called when Python ends: a rank that ends with ``sys.exit(n)`` takes the job with it, its child not."""
    if _State.is_child:
        # What Python would still do is to end MPI, which the child of a rank cannot: it hangs.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        logging.shutdown()
        os._exit(_State.exit_code)
    caught = board.last_call() > _State.exit_called
    if _State.installed and not caught and _State.exit_code not in (0, _State.agreed_code):
        log.error("%s: ended with exit code %d; ending the job", _State.name, _State.exit_code)
        end_job(_State.exit_code)


def exit_code_of(value: Any) -> int:
    """Return the exit code that Python gives ``SystemExit(value)``."""
    if value is None:
        return 0
    return value & 0xFF if isinstance(value, int) else 1


def _exit(value: Any = None) -> NoReturn:
    # Python does not tell its atexit handlers the exit code, so it is noted here. It does not count if the
    # SystemExit is caught and the program communicates again, or if it ends another thread only.
    if threading.current_thread() is threading.main_thread():
        _State.exit_code, _State.exit_called = exit_code_of(value), time.monotonic()
    raise SystemExit(value)


def _on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    code = 130 if issubclass(kind, KeyboardInterrupt) else int(getattr(error, "exit_code", 1))
    if _State.is_child:
        _State.exit_code = code
        _State.hook(kind, error, trace)
        return
    lines = traceback.format_exception(kind, error, trace)
    # Straight to the descriptor: torch calls this hook with sys.stderr replaced by a buffer,
    # which it would print afterwards, and there is no afterwards.
    text = f"\n{_State.name} ends the job:\n" + "".join(lines)
    with suppress(OSError):
        os.write(_STDERR_FD, text.encode(errors="backslashreplace"))
    end_job(code)
