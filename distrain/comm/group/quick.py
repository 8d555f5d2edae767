"""Allreduces in one call of C; what it has begun and left, the engine completes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist

from distrain.comm.device.by_host import HostPayloads
from distrain.comm.group.base import GroupBase
from distrain.comm.shared.caller import DONE, REDUCTIONS
from distrain.comm.shared.channel import COMPLETE, MISMATCH
from distrain.comm.work import DistrainWork
from distrain.errors import CommError


class QuickCalls(GroupBase):
    """Calls the caller of a group, and takes over from it; see `shared/caller.py` and `routes.py`.

    Another thread may abort the group while a call is in C: so the wire is the one that makes the call.
    """

    def _by_c(self, wire: Any, call: Callable[[Any, Any], Any], payload: Any, how: Any) -> dist.Work | None:
        """Carry out an allreduce by a method of the wire's caller; None: nothing was begun."""
        try:
            answer = call(payload, how)
            if answer is None and self._free_quick():
                answer = call(payload, how)
            return answer if answer is None or answer is DONE else self._take_over(wire)
        except BaseException:
            self._rescue(wire)
            raise

    def _take_over(self, wire: Any) -> dist.Work:
        """Let the engine complete what a call of C has begun.

        Raises:
            CommError: the ranks did not call the same collective.
            CallError: the group has ended meanwhile.
        """
        code, array = wire.quick.left, wire.quick.payload
        tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
        reduction = REDUCTIONS[wire.quick.reduction]
        engine = self._wire.engine
        if wire.routes is None:
            wire.direct.channel.understand(code)
            operation = wire.direct.rest(tensor, reduction)
            wire.sign(operation, wire.note("allreduce", tensor.numel(), tensor.dtype, reduction))
            work: dist.Work = self._submit(HostPayloads(), operation, [tensor], awaited=True)
        elif code == COMPLETE:
            engine.leave()
            work = DONE
        else:
            wire.prove_before()
            operation = wire.routes.take_over(code, tensor, reduction)
            operation.proves_agreement = True
            wire.sign(operation, wire.note("allreduce", tensor.numel(), tensor.dtype, reduction))
            work = DistrainWork(engine, [engine.adopt(operation)], [tensor])
        wire.quick.claimed()
        return work

    def _rescue(self, wire: Any) -> None:
        """Do so where an error of a signal's handler, or the end of the group, came in between."""
        quick, way = wire.quick, wire.routes or wire.direct
        if quick.left < 0 or wire.engine.failure is not None:
            return
        if not way.has_rest():  # the engine has it already
            quick.claimed()
        elif self._wire is not wire:  # nobody goes on with it, and its memory is kept
            if wire.routes is not None:
                wire.engine.leave()
        elif wire.routes is None and quick.left == MISMATCH:
            with suppress(CommError):
                wire.direct.channel.understand(MISMATCH)  # and is of no use any more
        else:
            self._take_over(wire)
            wire.engine.wake()
