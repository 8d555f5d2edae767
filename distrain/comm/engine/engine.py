"""The one thread that calls MPI after start-up.

Every other thread submits Operations and waits for their Completions. The engine starts them
in order, moves all that are in flight, and sleeps when nothing moves, so that waiting does not
take the cores that compute needs. What goes wrong in it is raised where somebody waits, and
ends the job if nobody does. A caller that waits for the only operation there is takes the thread's
place meanwhile: one thread at a time calls MPI.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from distrain.comm import turns
from distrain.comm.engine.gate import Gate
from distrain.comm.engine.lineup import Lineup
from distrain.comm.engine.motion import Motion
from distrain.comm.engine.watch import Exposure, Watch
from distrain.comm.operation import Completion, FunctionCall, Operation, Priority, anywhere
from distrain.comm.process import kept
from distrain.comm.process.rest import Pace, ring
from distrain.errors import CommError, DistrainError

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# After the engine broke, how long the main thread may take to notice and to end the job.
GRACE_SECONDS = 10.0
# At the end, how long receives that nobody waits for may take.
LONELY_SECONDS = 5.0
# Who drops operations does not wait for longer for an engine that is stuck inside MPI.
STUCK_SECONDS = 5.0


class Engine:
    """Queue, order, progress and supervision of all communication of this process.

    Args:
        abort: ends the whole job with an exit code; does not return.
        stall_seconds: an operation in flight for longer is reported once.
        abort_seconds: an operation in flight for longer ends the job.
        name: who this is, for reports: ``"rank 3 on node7"``.
        inquire: asks the other ranks about a late operation; returns lines for the report.

    Attributes:
        exposed: counts the time in which compute waited for communication.
        gate: whether calls of C may call MPI.
    """

    def __init__(
        self,
        abort: Callable[[int], Any],
        stall_seconds: float,
        abort_seconds: float,
        name: str = "this rank",
        inquire: Callable[[Completion], str] | None = None,
    ) -> None:
        self._abort = abort
        self._name = name
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # taken by its lock where nobody waits: that is C
        self._lineup = Lineup()  # taken from and added to under the lock
        self._submitted = 0
        self._closing = False
        self._failure: BaseException | None = None
        self.gate = Gate()
        self._news = self.gate.news_cell  # something was submitted: ends a `progress` that waits
        self._motion = Motion(self._lineup, self._lock, self.gate)
        self._thread_works = False  # the engine's thread is at it
        self.exposed = Exposure()
        self._watch = Watch(
            name,
            stall_seconds,
            abort_seconds,
            lambda: [completion for _, completion in tuple(self._lineup.flight)],
            inquire,
            lambda: abort(1),
        )
        self._thread = threading.Thread(target=self._run, name="distrain-engine", daemon=True)
        self._thread.start()

    def submit(
        self, operation: Operation, priority: Priority = Priority.GRADIENT, awaited: bool = False
    ) -> Completion:
        """Queue an operation; return at once.

        Args:
            operation: what to do.
            priority: who goes first where several could move.
            awaited: the caller will call `wait` next, and may then do the work itself: the engine's thread
                is not woken before.

        Raises:
            CommError: the engine has failed or was closed.
        """
        with self._lock:
            self._submitted += 1
            completion = Completion(operation, self._submitted)
            if self._failure is not None:
                raise completion.lost(self._failure) from self._failure
            if self._closing:
                raise CommError(str(completion), "came after the engine was closed", "communicate earlier")
            self._lineup.add(priority, completion)
            self.gate.busy = self._news.value = 1
            if not awaited:
                self._changed.notify()
            moves = self._thread_works or self.gate.works
        if moves:
            ring()  # it may sleep until a message comes
        return completion

    def call(self, function: Callable[[], Result]) -> Result:
        """Run a function that calls MPI in the engine thread while nothing else is in flight; wait for it."""
        operation = FunctionCall(function)
        self.wait(self.submit(operation))
        result: Result = operation.result
        return result

    def wait(self, completion: Completion, timeout_seconds: float | None = None) -> bool:
        """Wait for a completion, and count the time blocked as exposed communication."""
        if completion.is_done:
            return completion.wait()
        begin = time.perf_counter()
        try:
            if not turns.has_it():  # it is no callback
                return self._wait(completion, timeout_seconds)
            with turns.given_up():
                return self._wait(completion, timeout_seconds)
        finally:
            self.exposed.blocked(time.perf_counter() - begin)

    def _wait(self, completion: Completion, timeout_seconds: float | None) -> bool:
        begin = time.perf_counter()
        if self._steps_in(completion):
            self._stand_in(completion, timeout_seconds)
            if timeout_seconds is not None:
                timeout_seconds = max(0.0, begin + timeout_seconds - time.perf_counter())
        else:
            self.wake()
        return completion.wait(timeout_seconds)

    def explain(self, completion: Completion) -> str:
        """Ask the other ranks about a late operation; return lines that say what they do, if they can."""
        return self._watch.ask(completion)

    def follow(self, completion: Completion) -> None:
        """Count this operation as exposed although nobody will call `wait` for it; see `Exposure`."""
        self.exposed.submitted()
        completion.call_when_done(lambda _: self.exposed.completed())
        self.wake()

    def wake(self) -> None:
        """See to what was submitted with `awaited`: nobody may wait for it."""
        with self._lock:
            self._changed.notify()

    def is_busy(self, queue: Hashable) -> bool:
        """Return whether an operation of this queue waits or is in flight."""
        with self._lock:
            return self._lineup.holds(queue)

    def take_exposed_seconds(self) -> float:
        """Return the time in which compute waited for communication since the last call."""
        return self.exposed.take()

    def disown(self) -> None:
        """This process was just forked from the one whose threads work here: refuse whatever is submitted."""
        self._lock = threading.RLock()  # the old one may be held by a thread that is not here
        self._changed = threading.Condition(self._lock)
        self._failure = CommError(self._name, "was forked from a rank", "communicate in the rank itself")

    @property
    def failure(self) -> BaseException | None:
        """What has ended all communication of this process; None: nothing has."""
        return self._failure

    def leave_behind(self, queues: Collection[Hashable], patience_seconds: float) -> bool:
        """Stop driving what was given up of some queues; return whether messages of it may still come.

        Then its communicator must be kept. Whoever still waits gets an error.

        Args:
            queues: those of a group.
            patience_seconds: others may only be late: so long it may still complete.
        """
        with self._lock:
            late = [c for c in self._lineup.of(queues) if c.is_given_up]
        return self._leave_behind(late, patience_seconds, "was given up after its timeout")

    def drop(self, queues: Collection[Hashable]) -> None:
        """Stop driving all that was submitted to some queues; whoever waits gets an error."""
        with self._lock:
            theirs = self._lineup.of(queues)
        self._leave_behind(theirs, 0.0, "was dropped: its group was aborted")

    def _leave_behind(self, unwanted: Sequence[Completion], patience_seconds: float, why: str) -> bool:
        end = time.perf_counter() + patience_seconds
        with suppress(Exception):  # what ends it otherwise is told to those who wait
            for completion in unwanted:
                completion.wait(max(0.0, end - time.perf_counter()))
        if not unwanted or self._failure is not None:
            return False

        def take() -> bool:
            found = [completion for completion in unwanted if not completion.is_done]
            with self._lock:
                self._lineup.take_out(found)
            for completion in found:
                kept.for_ever(completion)  # MPI may write to its memory
                completion.finish(CommError(str(completion), why, "look for a rank that did not call it"))
            return any(completion.started is not None for completion in found)

        taking = FunctionCall(take, blocks=False)
        return not self.wait(self.submit(taking), STUCK_SECONDS) or bool(taking.result)

    def close(self, timeout_seconds: float = 60.0) -> None:
        """Finish what is queued and stop the thread.

        What was given up, and receives for which nothing comes any more, are left behind.

        Raises:
            CommError: the queue did not drain in time.
        """
        with self._lock:
            everything = self._lineup.everything()
        lonely = [c for c in everything if not (c.is_given_up or c.operation.serves_others)]
        self._leave_behind([c for c in everything if c.is_given_up], 0.0, "was given up after its timeout")
        if self._leave_behind(lonely, LONELY_SECONDS, "got no message before its rank ended"):
            log.warning("%s: %d receives that nobody has sent to are left behind", self._name, len(lonely))
        with self._lock:
            self._closing = self.gate.busy = True
            self._changed.notify()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            raise CommError(
                self._name,
                f"communication is still in flight after {timeout_seconds:g} s: "
                + "; ".join(self._watch.describe(completion) for _, completion in self._lineup.flight),
                "make sure that all ranks take part in every collective before they end",
            )
        self._watch.stop()

    # A waiting caller stands in for the engine's thread: two changes of thread less.

    def _steps_in(self, completion: Completion) -> bool:
        """Take the engine thread's place if this operation is all there is, and none other moves it yet."""
        with self._lock:
            if self._thread_works or self.gate.works or self._failure is not None:
                return False
            if not self._lineup.is_only(completion):
                return False
            self.gate.works = completion.operation.waits and completion.operation.is_ready()
            return bool(self.gate.works)

    def _stand_in(self, completion: Completion, timeout_seconds: float | None) -> None:
        end = float("inf") if timeout_seconds is None else time.perf_counter() + timeout_seconds
        try:
            with anywhere():
                pace = Pace()
                while not completion.is_done and time.perf_counter() < end:
                    self._motion.round(pace)
        except Exception as error:
            self._give_out(self._explained(error))
        except BaseException as error:  # of a signal's handler, in whatever ran
            half = next((c for _, c in self._lineup.flight if not c.is_begun), None)
            if half is not None:
                self._give_out(half.lost(error))
            raise
        finally:
            self.leave()

    def leave(self) -> None:
        """Give the work back to the engine's thread: a caller that did it in its place has what it wanted."""
        with self._lock:
            self.gate.works = 0
            self._open_gate()
            if self.gate.busy:
                self._changed.notify()

    def adopt(self, operation: Operation) -> Completion:
        """Go on with what a call of C has begun and left."""
        with self._lock:
            self._submitted += 1
            completion = Completion(operation, self._submitted)
            self._lineup.start(Priority.GRADIENT, completion, self._news)
            completion.is_begun = True
            if operation.guard is not None:
                operation.guard.begin()
            self.gate.busy, self.gate.works = 1, 0
            self._changed.notify()
        return completion

    def _open_gate(self) -> None:
        self.gate.busy = not self._lineup.is_empty or self._closing or self._failure is not None

    # What follows runs in the engine thread, or in that of a caller who stands in for it.

    def _run(self) -> None:
        try:
            with anywhere():
                pace = Pace()
                while self._await_work():
                    self._motion.round(pace)
        except BaseException as error:
            self._give_out(self._explained(error))
        if self._failure is not None:
            self._await_reaction()

    def _await_work(self) -> bool:
        """Block, using no CPU, until there is something to do; return False when it is time to end."""
        with self._lock:
            self._thread_works = False
            while self._failure is None:
                idle = self._lineup.is_empty
                if not idle and not self.gate.works:
                    self._thread_works = True
                    return True
                if idle and self._closing:
                    return False
                self._open_gate()
                self._changed.wait()
        return False

    def _explained(self, error: BaseException) -> BaseException:
        """Return the disagreement of ranks that caused an error, or the error itself."""
        guard = None if self._motion.current is None else self._motion.current.operation.guard
        try:
            if guard is not None:
                guard.explain(error)
        except CommError as cause:
            cause.__cause__ = error
            return cause
        return error

    def _give_out(self, error: BaseException) -> None:
        """Hand the error to everyone who waits."""
        culprit = self._motion.current
        reason = error if isinstance(error, DistrainError) or culprit is None else culprit.lost(error)
        if reason is not error:
            reason.__cause__ = error
        with self._lock:
            self._failure = reason
            self.gate.busy = 1
            victims = [c for c in self._lineup.take_all() if c is not culprit]
        log.error("%s: communication has failed: %s", self._name, reason)
        if culprit is not None and not culprit.is_done:
            culprit.finish(reason)
        for completion in victims:
            completion.finish(completion.lost(reason))

    def _await_reaction(self) -> None:
        """End the job if nobody reacts to the error that was given out."""
        with self._lock:
            noticed = self._changed.wait_for(lambda: self._closing, GRACE_SECONDS)
        if not noticed:
            log.critical("%s: nobody reacted to the failed communication; ending the job", self._name)
            self._abort(1)
