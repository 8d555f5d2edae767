"""Small allreduces in the memory of a node, without a change of threads.

An allreduce that torch waits for is one call of C (`caller.py`). Of the others, the thread that calls
allreduce shows its payload to the other ranks and looks whether theirs are there. If
they are not, `wait` looks again and sleeps a little. Nobody waits for a rank that has shown its payload,
so an unfinished one may lie there until somebody wants its result. What takes longer, must call back, or
is followed by another collective goes to the engine, which knows how to wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from distrain.comm.buffers import Reduction
from distrain.comm.callbacks import Cause
from distrain.comm.engine.engine import Engine
from distrain.comm.future import CollectiveFuture
from distrain.comm.operation import Operation
from distrain.comm.shared.caller import CALLER_PATIENCE_SECONDS, make_caller
from distrain.comm.shared.channel import COMPLETE, YIELDS, Channel
from distrain.comm.shared.operation import SharedOperation
from distrain.comm.work import DistrainWork
from distrain.errors import CommError
from distrain.schedule.ir import Collective


class Direct:
    """The small allreduces of one channel that may not have gone to the engine.

    Args:
        channel: between the ranks of the group.
        engine: takes what must not be waited for here.
        quick: carry out what can be in one call of C.

    Attributes:
        caller: does that, None if nothing does. Whoever else uses the channel claims it first.
    """

    def __init__(self, channel: Channel, engine: Engine, quick: bool = True) -> None:
        self.channel, self.engine = channel, engine
        self.lock = threading.RLock()
        self.pending: DirectWork | None = None
        self.caller = make_caller(channel) if quick else None
        if self.caller is not None:
            engine.exposed.ask(self.caller.take_waited)

    def takes(self, tensor: torch.Tensor, reduction: Reduction) -> bool:
        """Return whether an allreduce may begin in the calling thread."""
        if not tensor.is_cpu or not tensor.is_contiguous() or tensor.is_neg() or tensor.is_conj():
            return False
        return tensor.nbytes <= self.channel.whole_bytes and self.channel.supports(tensor.dtype, reduction)

    def allreduce(
        self,
        tensor: torch.Tensor,
        reduction: Reduction,
        sign: Callable[[Operation], None],
        cause: Callable[[], Cause],
    ) -> DirectWork | None:
        """Begin an allreduce that `takes` has said yes to; None: it must take the way through the engine.

        For `sign` and `cause` see `DirectWork`.
        """
        with self.lock:
            self.flush()
            if self.engine.is_busy(self.channel):
                return None
            work = self.pending = DirectWork(self, tensor, reduction, sign, cause)
            work.begin()
            return work

    def free(self) -> bool:
        """Let C calls in again if nothing is left of what came another way; return whether that helped."""
        if self.caller is None or self.caller.state == 0 or self.caller.left >= 0:
            return False
        with self.lock:
            if self.engine.is_busy(self.channel) or (self.pending is not None and not self.pending.look()):
                return False
            self.caller.release()
            return True

    def has_rest(self) -> bool:
        """Return whether a C call has begun something that nobody goes on with yet."""
        return self.caller is not None and self.caller.left >= 0 and not self.engine.is_busy(self.channel)

    def rest(self, tensor: torch.Tensor, reduction: Reduction) -> SharedOperation:
        """Return the operation that completes what a C call has begun."""
        return SharedOperation(self.channel, tensor, reduction, begun=True)

    def close(self) -> None:
        """Let nobody in any more."""
        self.flush()
        if self.caller is not None:
            self.engine.exposed.forget(self.caller.take_waited)

    def flush(self) -> None:
        """Complete what is pending, or give it to the engine, so that another collective may follow."""
        with self.lock:
            if self.caller is not None:
                self.caller.claim()
            if self.pending is not None and not self.pending.look():
                self.pending.hand_over()


class DirectWork(dist.Work):
    """Handle of one small allreduce; see `DistrainWork`.

    Args:
        owner: of its channel.
        tensor: contiguous, on the CPU; combined in place.
        reduction: how.
        sign: names the operation that the engine gets if it must finish the work.
        cause: returns what stands for the call in its callbacks.
    """

    algorithm = SharedOperation.algorithm

    def __init__(
        self,
        owner: Direct,
        tensor: torch.Tensor,
        reduction: Reduction,
        sign: Callable[[Operation], None],
        cause: Callable[[], Cause],
    ) -> None:
        super().__init__()
        self._sign, self._cause = sign, cause
        self._owner, self._tensor, self._reduction = owner, tensor, reduction
        self._handed: DistrainWork | None = None
        self._done = False
        self._error: CommError | None = None

    def begin(self) -> None:
        """Show the payload to the others. The owner's lock is held here and in what follows."""
        channel = self._owner.channel
        self._note(channel.begin(self._tensor.detach(), self._reduction, Collective.ALLREDUCE) == COMPLETE)

    def look(self, seconds: float = 0.0) -> bool:
        """Return whether it is complete or somebody else's business; wait for so long.

        Raises:
            CommError: the ranks did not call the same collective.
        """
        if not self._done and self._handed is None:
            try:
                code = self._owner.channel.advance(seconds, seconds, self._owner.channel.spins, YIELDS)
            except CommError as error:
                self._error = error
                raise
            self._note(code == COMPLETE)
        return self._done or self._handed is not None

    def _note(self, complete: bool) -> None:
        if complete:
            self._done, self._owner.pending = True, None

    def hand_over(self) -> DistrainWork:
        """Let the engine finish it."""
        operation = SharedOperation(self._owner.channel, self._tensor, self._reduction, begun=True)
        self._sign(operation)
        engine = self._owner.engine
        self._handed = DistrainWork(engine, [engine.submit(operation)], [self._tensor])
        self._owner.pending = None
        return self._handed

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Block until the result is there; zero or None waits for ever.

        Raises:
            CommError: not done within the timeout, or the communication failed.
        """
        if self._done:
            return True
        begin = time.perf_counter()
        with self._owner.lock:
            complete = self.look(CALLER_PATIENCE_SECONDS)
            handed = self._handed if complete else self.hand_over()
        self._owner.engine.exposed.blocked(time.perf_counter() - begin)
        return True if handed is None else handed.wait(timeout)

    def synchronize(self) -> None:
        """Wait."""
        self.wait()

    def is_completed(self) -> bool:
        """True if done or failed; does not block."""
        if self._done or self._error is not None:
            return True
        with self._owner.lock:
            self.look()
        return self._done if self._handed is None else self._handed.is_completed()

    def is_success(self) -> bool:
        """True if done without an error; does not block."""
        return self.is_completed() and self.exception() is None

    def exception(self) -> BaseException | None:
        """Return what ended it, None if nothing did (yet)."""
        return self._error if self._handed is None else self._handed.exception()

    def result(self) -> list[torch.Tensor]:
        """Return the result tensor in a list."""
        return [self._tensor]

    def source_rank(self) -> int:
        """Refuse: only receives have a source.

        Raises:
            CommError: always.
        """
        raise CommError("allreduce", "has no source rank", "ask a completed receive")

    def get_future(self) -> torch.futures.Future:
        """Return a Future of the list of the result tensor."""
        with self._owner.lock:
            if not self.look():
                self.hand_over()
        if self._handed is not None:
            return self._handed.get_future()
        future = CollectiveFuture([], self._cause())
        future.set_result([self._tensor])
        return future
