"""torch.distributed's view of a submitted operation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from distrain.comm.callbacks import Cause
from distrain.comm.device.by_host import landing_of
from distrain.comm.engine.engine import Engine
from distrain.comm.future import CollectiveFuture
from distrain.comm.messages.plain import MessageOperation
from distrain.comm.operation import Completion, Operation, when_all_done
from distrain.errors import CommError


class DistrainWork(dist.Work):
    """Handle of one or more operations whose results are `tensors`.

    `wait` blocks the calling thread until the results are there (for GPU tensors: until the
    copies to the GPU are under way, and orders the caller's stream after them). The Future
    completes without anybody waiting, which is what lets DDP overlap.
    """

    def __init__(
        self, engine: Engine, completions: Sequence[Completion], tensors: Sequence[torch.Tensor]
    ) -> None:
        super().__init__()
        self._engine, self._completions, self._tensors = engine, list(completions), list(tensors)
        self._landing = landing_of(tensors)
        self._future: CollectiveFuture | None = None
        if self._landing.is_elsewhere:
            when_all_done(self._completions, lambda _: self._landing.record(), early=True)

    @classmethod
    def joined(
        cls, engine: Engine, works: Sequence[DistrainWork], results: Sequence[torch.Tensor] | None = None
    ) -> DistrainWork:
        """Return one handle for several; without `results` it has those of all."""
        completions = [completion for work in works for completion in work._completions]
        if results is None:
            results = [tensor for work in works for tensor in work._tensors]
        return cls(engine, completions, results)

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Block until all is done, or until the timeout; zero or None: that of the call, or of the group.

        Raises:
            CommError: not done within the timeout, or the communication failed.
        """
        asked = timeout.total_seconds() if timeout else 0.0
        for completion in self._completions:
            seconds = asked if asked > 0 else completion.operation.timeout_seconds
            if not self._engine.wait(completion, seconds):
                completion.is_given_up = True
                raise CommError(
                    str(completion),
                    f"is not complete and its timeout of {seconds:g} s has passed"
                    f"{self._engine.explain(completion)}",
                    "look for a rank that did not call it, or allow more time",
                )
        self._landing.order_current_stream()
        return True

    @property
    def operations(self) -> list[Operation]:
        """What it is made of."""
        return [completion.operation for completion in self._completions]

    @property
    def algorithm(self) -> str:
        """What moves the bytes, for people."""
        return self._completions[0].operation.algorithm if self._completions else "nothing"

    def synchronize(self) -> None:
        """Order the caller's stream after the results (GPU), or wait for them (CPU)."""
        self.wait()

    def is_completed(self) -> bool:
        """True if done or failed; does not block."""
        if all(completion.is_done for completion in self._completions):
            return True
        self._engine.wake()  # what was submitted to be waited for has not been begun
        return False

    def is_success(self) -> bool:
        """True if done without an error; does not block."""
        return self.is_completed() and self.exception() is None

    def exception(self) -> BaseException | None:
        """Return what ended it, None if nothing did (yet)."""
        return next((c.exception for c in self._completions if c.is_done and c.exception), None)

    def result(self) -> list[torch.Tensor]:
        """Return the result tensors."""
        return self._tensors

    def source_rank(self) -> int:
        """Return who sent, for a receive."""
        operation = self._completions[0].operation
        if not isinstance(operation, MessageOperation) or operation.source is None:
            raise CommError(operation.kind, "has no source rank (yet)", "ask a completed receive")
        return operation.source

    def _source_rank(self) -> int:
        return self.source_rank()

    def get_future(self) -> torch.futures.Future:
        """Return a Future of the list of result tensors."""
        if self._future is None:
            self._future = CollectiveFuture(self._landing.devices, self._cause())
            for completion in self._completions:
                self._engine.follow(completion)
            when_all_done(self._completions, self._resolve)
        return self._future

    def _cause(self) -> Cause | None:
        """Return what stands for this collective in what its callbacks call; None: nothing does."""
        first = self._completions[0].operation if self._completions else None
        return None if first is None or first.call is None else first.call.cause(first.members)

    def _resolve(self, failure: BaseException | None) -> None:
        future = self._future
        assert future is not None
        if failure is None:
            future.settle(lambda: self._landing.complete(future, self._tensors))
        else:
            future.settle(lambda: future.set_exception(failure))
