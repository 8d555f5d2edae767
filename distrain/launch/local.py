"""Runs a starter (mpirun) in the foreground, passes signals on, and returns its exit code."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from distrain.errors import LaunchError
from distrain.launch.job import Command
from distrain.launch.mpi import WAYS_OUT

# A polite stop must reach the ranks as SIGUSR1: Open MPI answers SIGINT and SIGTERM by killing all ranks
# within half a second, which leaves no time for a checkpoint; SIGUSR1 every mpirun passes on as it is.
_POLITE = signal.SIGUSR1
_PR_SET_PDEATHSIG = 1
_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# A caller that ignores these means it: a shell that starts a background job of a script, and nohup.
_LEFT_IGNORED = (signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        code: exit code of the starter, ``128 + n`` if signal n killed it.
        signal: the first of SIGINT, SIGTERM, SIGHUP and SIGUSR1 that asked the launcher to stop, or None.
    """

    code: int
    signal: signal.Signals | None = None


@dataclass
class _Foreground:
    """The running starter and the signals that it was sent.

    The first request to stop is passed on politely, the second ends the ranks, the third kills. The
    requests come from the user, or from the clock when a request has not been followed in time.
    """

    stop_seconds: float
    kill_seconds: float
    limit_name: str
    process: subprocess.Popen[bytes] | None = None
    asked: signal.Signals | None = None
    requests: int = 0
    next_at: float | None = None
    early: list[signal.Signals] = field(default_factory=list)

    def caught(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if self.process is None:
            self.early.append(received)
        elif received == signal.SIGUSR2:
            self.process.send_signal(received)
        else:
            self.stop(received)

    def stop(self, received: signal.Signals) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.asked = self.asked or received
        self.requests += 1
        now = time.monotonic()
        if self.requests == 1:
            _say(
                f"{received.name}: asking the job to stop with a checkpoint; once more ends it at once, "
                f"as do {self.stop_seconds:g} s{self.limit_name and f' ({self.limit_name})'} without an end"
            )
            self.process.send_signal(_POLITE)
            self.next_at = now + self.stop_seconds
        elif self.requests == 2:
            _say("ending the job; once more kills it")
            self.process.send_signal(signal.SIGTERM)
            self.next_at = now + self.kill_seconds
        else:
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self) -> int:
        assert self.process is not None
        while True:
            try:
                # a wait without a limit would go on after the signal that sets next_at
                return self.process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                if self.next_at is not None and self.asked and time.monotonic() > self.next_at:
                    self.stop(self.asked)


def _ends_with(launcher: int) -> Callable[[], None] | None:
    """Return what lets a starter end when its launcher is killed: nobody could stop its ranks any more.

    Linux only (``prctl(PR_SET_PDEATHSIG)``). It must not allocate or import: it runs after the fork.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl, number = ctypes.CDLL(None).prctl, int(signal.SIGTERM)

    def set_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != launcher:  # it was killed before the signal was set
            os._exit(1)

    return set_signal


def _say(text: str) -> None:
    print(f"distrain: {text}", file=sys.stderr, flush=True)


def run(
    command: Command, *, stop_seconds: float = 60.0, kill_seconds: float = 10.0, limit_name: str = ""
) -> Outcome:
    """Run a command in the foreground; its output goes where this process's output goes.

    SIGINT, SIGTERM, SIGHUP and SIGUSR1 ask the job to stop with a checkpoint (the ranks get SIGUSR1);
    a second one, or ``stop_seconds`` without an end, ends the ranks; a third, or ``kill_seconds`` more,
    kills them. SIGUSR2 is passed on. SIGINT and SIGHUP stay ignored where they were. If this process is
    killed, the starter gets SIGTERM (Linux). Must be called by the main thread, which owns the signals.

    Args:
        command: what to run.
        stop_seconds: from the first request to the second.
        kill_seconds: from the second to the third.
        limit_name: of the setting that `stop_seconds` comes from, for people.

    Raises:
        LaunchError: the starter cannot be run.
    """
    foreground = _Foreground(stop_seconds, kill_seconds, limit_name)
    caught = [n for n in _CAUGHT if n not in _LEFT_IGNORED or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, foreground.caught) for number in caught}
    try:
        # a session of its own: a terminal sends Ctrl-C to the whole foreground group, and the starter
        # would then get it twice, once without the politeness
        foreground.process = subprocess.Popen(
            command.argv,
            env={**os.environ, **command.env},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_ends_with(os.getpid()),
        )
        for received in foreground.early:
            foreground.caught(received, None)
        code = foreground.wait()
    except OSError as error:
        raise LaunchError(command.argv[0], f"cannot be started: {error.strerror}", WAYS_OUT) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return Outcome(code if code >= 0 else 128 - code, foreground.asked)
