"""What all collectives of the torch backend share: identity, submission, coalescing, checks."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.constants import default_pg_timeout

from distrain.comm.backend import BACKEND
from distrain.comm.device.by_host import HostPayloads
from distrain.comm.device.by_pointers import Payloads, payloads_for
from distrain.comm.messages.plain import Message
from distrain.comm.operation import Operation
from distrain.comm.wire import Wire
from distrain.comm.work import DistrainWork
from distrain.errors import CallError

# See `GroupBase._keep`. Between the call and its use DDP makes a few collectives for buffers.
KEPT_ELEMENTS = 8
KEPT_WORKS = 64
# What hangs ends the job so long after the timeout of its group, if nobody waits for it.
SPARE_SECONDS = 60.0


class _Gone:
    """In the place of the wire of a group that has ended, or is another process's.

    Args:
        problem: why nothing can be called.
        do: what to do.
    """

    def __init__(self, problem: str, do: str) -> None:
        self._problem, self._do = problem, do

    def close(self) -> None:
        """Nothing: a second end changes nothing."""

    def abort(self) -> None:
        """Nothing, as `close`."""

    def __getattr__(self, name: str) -> Any:
        raise CallError("collective", self._problem, self._do)


_groups: weakref.WeakSet[GroupBase] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a process forked from a rank: the memory shared with other ranks is the parent's to write to."""
    for group in _groups:
        group.leave("its group is that of the rank from which this process was forked", "call it in the rank")


os.register_at_fork(after_in_child=_leave_to_parent)


class GroupBase(dist.ProcessGroup):
    """One group of ranks, without its collectives.

    Args:
        wire: the group's communicator.
        timeout: how long `wait` waits before it raises.
    """

    supports_splitting = False
    supports_coalescing = False
    supports_time_estimate = False

    def __init__(self, wire: Wire, timeout: timedelta) -> None:
        super().__init__(wire.rank, wire.size)  # type: ignore[call-arg]  # a form that the stub lacks
        self._wire: Any = wire
        self._quick = wire.quick
        self._free_quick = (lambda: False) if wire.direct is None else wire.direct.free
        self.set_timeout(timeout)
        self._coalescing: list[DistrainWork] | None = None
        self._kept: deque[dist.Work] = deque(maxlen=KEPT_WORKS)
        self._group_name = self._group_description = ""
        _groups.add(self)

    def getBackendName(self) -> str:
        """Name of the backend, as torch's C++ side asks for it."""
        return BACKEND

    def name(self) -> str:
        """Name of the backend."""
        return BACKEND

    # The base class keeps name and description in its C++ backends, of which this group has none.

    def getGroupName(self) -> str:
        """Name under which torch registers the group."""
        return self._group_name

    def setGroupName(self, name: str) -> None:
        """Take the name from torch."""
        self._group_name = name

    def getGroupDesc(self) -> str:
        """What the group is for, in torch's words."""
        return self._group_description

    def setGroupDesc(self, description: str) -> None:
        """Take the description from torch."""
        self._group_description = description

    def _get_sequence_number_for_group(self) -> int:
        """Return how many collectives this rank has called, point to point not counted."""
        return self._wire.calls

    @property
    def _device_types(self) -> list[torch.device]:
        kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        return [torch.device(kind) for kind in kinds]

    def _get_backend(self, device: torch.device) -> Any:
        return self

    def set_timeout(self, timeout: timedelta) -> None:
        """Set how long `wait` waits for the operations called from now on.

        The job is not ended before, unless it is torch's default, which nobody chose.
        """
        wire = self._wire
        self._timeout_seconds = wire.timeout_seconds = timeout.total_seconds()
        least = wire.settings.abort_seconds
        chosen = timeout != default_pg_timeout
        wire.patience_seconds = max(least, self._timeout_seconds + SPARE_SECONDS) if chosen else None

    def shutdown(self) -> None:
        """Free the group's communicator; all members call it."""
        self.leave("its group was destroyed", "call it before destroy_process_group()").close()

    def abort(self) -> None:
        """Refuse all further calls and drop those in flight, without the other members.

        The communicator is kept: a message for one that is gone would reach the one made next.
        """
        self.leave("its group was aborted", "make a new group").abort()

    def leave(self, problem: str, do: str) -> Any:
        """Refuse all further calls, with these words; return the wire."""
        wire: Any = self._wire
        self._wire, self._quick, self._free_quick = _Gone(problem, do), None, lambda: False
        return wire

    def _payloads(self, *tensors: torch.Tensor, combines: bool = False) -> Payloads:
        """Return where the tensors of a collective are while MPI works on them.

        Args:
            tensors: all of them.
            combines: they are summed, not only moved.
        """
        return payloads_for(tensors, combines) if self._wire.pointers else HostPayloads()

    def _submit(
        self,
        payloads: Payloads | None,
        operation: Operation,
        tensors: Sequence[torch.Tensor],
        before: Callable[[], Any] | None = None,
        after: Callable[[], Any] | None = None,
        awaited: bool = False,
        ready: Callable[[], bool] | None = None,
    ) -> DistrainWork:
        """Hand an operation to the engine.

        Args:
            payloads: where the bytes are; says when they are there, and takes the results back. None: they
                are where they belong, and nothing is done before or after.
            operation: what to do.
            tensors: the results.
            before: fills the operation's memory from the payloads, just before the start.
            after: the reverse, at the end.
            awaited: torch waits for it next.
            ready: says when it may start, in place of `payloads`.
        """
        if payloads is not None:
            payloads.attach(operation, before, after)
        if ready is not None:
            operation.is_ready = ready  # type: ignore[method-assign]
        engine = self._wire.engine
        work = DistrainWork(engine, [engine.submit(operation, awaited=awaited)], tensors)
        if self._coalescing is not None:
            self._coalescing.append(work)
        self._keep(work, tensors)
        return work

    def _keep(self, work: dist.Work, tensors: Sequence[torch.Tensor]) -> None:
        """Keep the handle of a few numbers alive for a while.

        DDP under Join hands one to C++, which holds no reference to its Python half; without that
        half its `wait` never returns.
        """
        if len(tensors) == 1 and tensors[0].numel() <= KEPT_ELEMENTS:
            self._kept.append(work)

    def _join(self, works: Sequence[DistrainWork]) -> DistrainWork:
        return works[0] if len(works) == 1 else DistrainWork.joined(self._wire.engine, works)

    def _start_coalescing(self, device: torch.device) -> None:
        self._coalescing = []

    def _end_coalescing(self, device: torch.device) -> DistrainWork:
        works, self._coalescing = self._coalescing or [], None
        return self._join(works)

    def _check_rank(self, kind: str, rank: int) -> None:
        if not 0 <= rank < self.size():
            raise CallError(
                kind,
                f"rank={rank} is not in 0 ... {self.size() - 1} of the group",
                "name a rank of the group",
            )

    def _check_alike(self, kind: str, one: torch.Tensor, other: torch.Tensor, sizes: bool = True) -> None:
        """What arrives as `other` was sent as something like `one`."""
        if one.dtype != other.dtype or (sizes and one.numel() != other.numel()):
            raise CallError(
                kind,
                f"{one.numel()} elements of {one.dtype} do not fit {other.numel()} elements of {other.dtype}",
                "use tensors of the same size and type for what is sent and what is received",
            )

    def _check_parts(self, kind: str, parts: Sequence[torch.Tensor]) -> None:
        if len(parts) != self.size():
            raise CallError(
                kind, f"{len(parts)} tensors for {self.size()} ranks", "pass one tensor for each rank"
            )

    def _check_multiple(self, kind: str, whole: torch.Tensor, part: torch.Tensor) -> None:
        if whole.numel() != part.numel() * self.size():
            raise CallError(
                kind,
                f"{whole.numel()} elements are not {self.size()} (ranks) times {part.numel()}",
                "make the larger tensor world_size times as large as the other",
            )
        if whole.dtype != part.dtype:
            raise CallError(kind, f"types {whole.dtype} and {part.dtype} differ", "use one type")

    def _messages(
        self,
        payloads: Payloads,
        kind: str,
        leaving: dict[int, torch.Tensor],
        arriving: dict[int, torch.Tensor],
        results: Sequence[torch.Tensor],
        count: int = -1,
        root: int = -1,
    ) -> DistrainWork:
        """Exchange tensors, one with each rank named; what stays here is copied.

        `count` and `root` are what all ranks must agree on; -1: nothing.
        """
        me = self.rank()
        sends = [Message(rank, payloads.bytes(t)) for rank, t in leaving.items() if rank != me]
        receives = [Message(rank, payloads.bytes(t)) for rank, t in arriving.items() if rank != me]
        operation = payloads.messages(kind, self._wire.comm, self._wire.take_tags(1), sends, receives)
        some = next(iter((*leaving.values(), *arriving.values())), None)
        self._wire.sign(
            operation, self._wire.number(kind, count, None if some is None else some.dtype, root=root)
        )

        def before() -> None:
            if me in arriving:
                arriving[me].copy_(leaving[me].view(arriving[me].shape))

        return self._submit(payloads, operation, results, before)
