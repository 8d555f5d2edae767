"""What the engine runs: an Operation, and the Completion that its submitter holds."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distrain import timeline
from distrain.errors import CommError

if TYPE_CHECKING:
    from distrain.comm.callbacks import Cause
    from distrain.comm.supervision.call import Call
    from distrain.comm.supervision.members import Members
    from distrain.comm.supervision.roll import Guard


class Priority(IntEnum):
    """Who goes first when several operations could move; lower is sooner."""

    GRADIENT = 0
    BULK = 1


class Operation:
    """A piece of communication that a thread drives by calling it again and again.

    Operations of one `queue` start in the order of submission, at most `concurrency` of them
    at a time; those of different queues are independent. Since every rank submits the
    collectives of one communicator in the same order, they also start in the same order.

    Attributes:
        kind: what it is, for people: ``"allreduce"``.
        size_bytes: bytes of this rank's payload.
        algorithm: name of the Schedule, or what else moves the bytes.
        queue: the ordering key, usually the communicator's handle.
        concurrency: how many of this queue may be in flight; None for no limit.
        moved: grows when something was achieved; the engine sleeps while nothing moves.
        patience_seconds: after so long the job is ended; None for the engine's own limit.
        timeout_seconds: who waits for it gets an error after so long; None: never.
        waits: its `progress` sleeps by itself, shortly, while nothing moves and it is alone.
        blocks: its `start` waits for other ranks, so nothing else but point to point may be in flight.
        news: becomes true when the engine is wanted elsewhere; a `progress` that waits must then return.
        by_message: what it waits for comes as a message, which may end a sleep; see `process/rest.py`.
        driver: what `messages/compiled.py` moves it by, together with others; None: only `progress` does.
        is_alone: nothing else is in flight, so `progress` may sleep; kept up to date by the engine.
        caller_waits: the thread that moves it is its caller, who has nothing else to do; kept likewise.
        is_behind: something more urgent is in flight, so leave the wire to it; kept up to date by the engine.
        moved_at: when something was last achieved, for what may rightly take long; 0: its age is what counts.
        is_ready: False while the payload is still being computed; those behind it wait too.
        before: called in the engine thread just before `start`, e.g. to fill a send buffer.
        after: called in the engine thread when complete, e.g. to copy a result out.
        call: what the program called, for a collective of a group.
        members: the ranks of that group.
        cause: of the callback that called it; None: none did.
        guard: compares the call with those of other ranks.
        serves_others: other ranks may wait for what this one does in it.
        proves_agreement: it completes only if all ranks have made the same call; see `messages/tags.py`.
    """

    kind = "operation"
    size_bytes = 0
    algorithm = ""
    queue: Hashable = None
    concurrency: int | None = 4
    moved = 0
    patience_seconds: float | None = None
    timeout_seconds: float | None = None
    waits = False
    blocks = False
    by_message = True
    driver: int | None = None
    is_alone = False
    caller_waits = False
    is_behind = False
    moved_at = 0.0
    news = ctypes.c_int(0)
    before: Callable[[], Any] | None = None
    after: Callable[[], Any] | None = None
    call: Call | None = None
    members: Members | None = None
    cause: Cause | None = None
    guard: Guard | None = None
    serves_others = True
    proves_agreement = False

    def is_ready(self) -> bool:
        """Return False while the payload is still being computed; later ones of its queue wait too."""
        return True

    def start(self) -> None:
        """Put the first messages on their way. Runs in the engine thread, once."""
        raise TypeError(f"{type(self).__name__} does not say how it starts")

    def progress(self) -> bool:
        """Move on without blocking others; return True once complete. Runs in the engine thread."""
        raise TypeError(f"{type(self).__name__} does not say how it progresses")

    def waiting_for(self) -> str:
        """Say in words which peers and steps are missing; used by the stall report."""
        return "nothing that it could name"

    def missing_ranks(self) -> Sequence[int]:
        """Return the ranks of the world that it may wait for, where it is no collective of a group."""
        return ()


class FunctionCall(Operation):
    """Runs a function in the engine thread.

    Args:
        function: what runs.
        blocks: see `Operation`; False if it calls no MPI.
        queue: None: one of all such calls. Else it runs when all before it in that queue is complete.
    """

    kind = "call"
    concurrency = 1

    def __init__(self, function: Callable[[], Any], blocks: bool = True, queue: Hashable = None) -> None:
        self.function, self.blocks = function, blocks
        # What does not block need not wait behind what does.
        self.queue = ("call", blocks) if queue is None else queue
        self.result: Any = None

    def start(self) -> None:
        """Call it."""
        self.result = self.function()

    def progress(self) -> bool:
        """Return True: there is nothing else to do."""
        return True

    def waiting_for(self) -> str:
        """Name all."""
        return "all ranks of a group to make it too"


class Fence(Operation):
    """Does nothing: it is complete when all that was submitted to its queue before it is.

    Args:
        queue: see `Operation`.
    """

    kind = "fence"
    concurrency = 1

    def __init__(self, queue: Hashable) -> None:
        self.queue = queue

    def start(self) -> None:
        """Nothing."""

    def progress(self) -> bool:
        """Return True."""
        return True


class Completion:
    """The submitter's end of an Operation: wait, look, or be called.

    Attributes:
        is_done: the operation is complete or has failed.
    """

    def __init__(self, operation: Operation, number: int) -> None:
        self.operation = operation
        self.number = number
        self.submitted = time.perf_counter()
        self.started: float | None = None
        self.reported = False
        self.is_begun = False  # its start is over
        self.carried_out = False  # nothing is left to do but to compare calls with other ranks
        self.is_given_up = False  # who waited for it has stopped, after its timeout
        self.exception: BaseException | None = None
        self.is_done = False  # complete, or failed
        self._ended = threading.Lock()  # held until then; an Event would be three objects of Python
        self._ended.acquire()
        self._early: list[Callable[[Completion], Any]] = []
        self._callbacks: list[Callable[[Completion], Any]] = []
        self._lock = threading.Lock()

    def __str__(self) -> str:
        op = self.operation
        via = f" by {op.algorithm}" if op.algorithm else ""
        number = self.number if op.call is None else op.call.number
        where = " in a callback" if op.call is not None and op.call.within else ""
        return f"{op.kind} number {number}{where} of {op.size_bytes} bytes{via}"

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Block until done. Return False if the timeout passed first.

        Raises:
            BaseException: what ended the operation, as it was raised in the engine thread.
        """
        if not self.is_done:
            timeout = -1 if timeout_seconds is None else max(0.0, min(timeout_seconds, threading.TIMEOUT_MAX))
            if self._ended.acquire(timeout=timeout):
                self._ended.release()  # for the next who waits
            elif not self.is_done:  # another one may just have had it
                return False
        if self.exception is not None:
            raise self.exception
        return True

    def call_when_done(self, function: Callable[[Completion], Any], early: bool = False) -> None:
        """Call ``function(self)`` in the engine thread on completion, or now if done already.

        `early`: before anybody who waits can see that it is done.
        """
        with self._lock:
            if not self.is_done:
                (self._early if early else self._callbacks).append(function)
                return
        function(self)

    def finish(self, exception: BaseException | None = None) -> None:
        """Mark as done, and call back. Engine only."""
        self.exception = exception
        self._record()
        while True:
            with self._lock:
                early, self._early = self._early, []
                if not early:
                    self.is_done = True
                    self._ended.release()
                    callbacks, self._callbacks = self._callbacks, []
                    break
            for function in early:
                function(self)
        for function in callbacks:
            function(self)

    def lost(self, cause: BaseException) -> CommError:
        """Return the error of whoever waits for it, once communication has failed."""
        return CommError(
            str(self),
            f"cannot complete: {type(cause).__name__}: {cause}",
            "look for the first error of any rank; the job must be started again",
        )

    def _record(self) -> None:
        trace, op = timeline.current(), self.operation
        if trace is None or self.started is None:
            return
        about = {"number": self.number if op.call is None else op.call.number, "bytes": op.size_bytes}
        queued = round((self.started - self.submitted) * 1e6, 1)
        name = f"{op.kind} by {op.algorithm}" if op.algorithm else op.kind
        now = time.perf_counter()
        trace.add_parallel(name, "collectives", self.started, now, **about, queued_us=queued)


def when_all_done(
    completions: Sequence[Completion], function: Callable[[BaseException | None], Any], early: bool = False
) -> None:
    """Call ``function(first exception or None)`` once, when the last of the operations is done.

    It runs in the engine thread, or in the caller's if all are done already. `early`: see `Completion`.
    """
    if len(completions) == 1:  # nearly always
        completions[0].call_when_done(lambda completion: function(completion.exception), early)
        return
    lock = threading.Lock()
    remaining = len(completions)
    failure: BaseException | None = None
    if not completions:
        function(None)

    def one_done(completion: Completion) -> None:
        nonlocal remaining, failure
        with lock:
            remaining -= 1
            failure = failure or completion.exception
            last = remaining == 0
        if last:
            function(failure)

    for completion in completions:
        completion.call_when_done(one_done, early)


@contextmanager
def anywhere() -> Iterator[None]:
    """How operations run, whichever thread they run in and wherever their tensors come from."""
    # Overflowing gradients are the business of the optimizer, not a warning of this thread. And tensors
    # made in inference mode, which torch notes for each thread, may be written in inference mode only.
    with np.errstate(all="ignore"), torch.inference_mode():
        yield
