"""One communicator's collectives on bytes and elements: what the torch backend is made of.

Nothing here knows groups of torch.distributed: whoever wants to reduce an array over MPI through the
engine uses a Wire.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from contextlib import suppress

import torch

from distrain.comm import callbacks, native
from distrain.comm.buffers import FlatBuffer, Reduction, StagingPool
from distrain.comm.callbacks import Callback, InnerQueue
from distrain.comm.choice.chooser import Chooser
from distrain.comm.device.pointers import SEGMENT_BYTES, DeviceBuffer, PointerOperation
from distrain.comm.engine.engine import Engine
from distrain.comm.levels import Levels, LevelsOperation, inside
from distrain.comm.messages.compiled import CompiledOperation
from distrain.comm.messages.context import MessageContext
from distrain.comm.messages.executor import ScheduleOperation
from distrain.comm.messages.farewell import FAREWELL_SECONDS, Farewell
from distrain.comm.messages.narrow import NarrowOperation
from distrain.comm.messages.plain import LONGEST_MESSAGE, unordered
from distrain.comm.messages.plan import Plan
from distrain.comm.messages.tables import library
from distrain.comm.messages.tags import Tags
from distrain.comm.operation import FunctionCall, Operation
from distrain.comm.plans import Plans
from distrain.comm.process import kept
from distrain.comm.process.mpi import MPI
from distrain.comm.routes import Route, make_routes
from distrain.comm.settings import CommSettings
from distrain.comm.shared.caller import call_before, last_call
from distrain.comm.shared.channel import Channel
from distrain.comm.shared.direct import Direct
from distrain.comm.shared.operation import SharedOperation
from distrain.comm.supervision.board import board
from distrain.comm.supervision.call import Call
from distrain.comm.supervision.members import Members
from distrain.comm.supervision.roll import Roll
from distrain.errors import CommError, LaunchError
from distrain.schedule.ir import Collective

# The MPI standard promises tags up to here; most libraries allow more.
SMALLEST_TAG_LIMIT = 32767


class Wire:
    """Collectives of one communicator.

    Args:
        comm: the group; freed by `close`. Its ranks are the group's ranks.
        engine: the thread that runs it.
        settings: algorithm, colors and segment size.
        nodes: `nodes[r]` is the number of the node on which rank r of the group runs.
        channel: exchange in memory, where all ranks of the group share a node that allows it.
        members: who they are; with it, ranks compare what they call (see `sign`).
        chooser: which algorithm runs; None: by the settings alone.
        levels: memory of the nodes, for a group of several that allow it; see `levels.py`.
    """

    def __init__(
        self,
        comm: MPI.Intracomm,
        engine: Engine,
        settings: CommSettings,
        nodes: tuple[int, ...],
        channel: Channel | None = None,
        members: Members | None = None,
        chooser: Chooser | None = None,
        levels: Levels | None = None,
    ) -> None:
        self.comm, self.engine, self.settings, self.nodes = comm, engine, settings, nodes
        self.channel, self.levels = channel, levels
        # A timeline shows each collective, which calls of C do not tell about.
        self.direct = None if channel is None else Direct(channel, engine, quick=not settings.timeline)
        if channel is not None and members is not None:
            channel.name = members.name
        if levels is not None and members is not None:
            here = [rank for rank, node in enumerate(nodes) if node == nodes[comm.Get_rank()]]
            for each in (levels.scatter, levels.gather):
                each.name = lambda local: members.name(here[local])
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        limit = comm.Get_attr(MPI.TAG_UB)
        if limit is None or limit < SMALLEST_TAG_LIMIT:
            raise LaunchError("MPI", f"largest tag={limit} is below the standard's 32767", "use another MPI")
        # The lower half belongs to collectives, the upper half to the user's send and recv.
        self.first_user_tag = min(int(limit) // 2, 1 << 30)
        self.tags = Tags(self.first_user_tag)
        self.members = members
        self.timeout_seconds: float | None = None  # of whoever waits for a collective
        self.patience_seconds: float | None = None  # after it the job ends; None: comm.abort_seconds
        self._calls = 0  # without those of `quick`, which counts its own
        self.is_clean = True  # False: messages may come that nobody will take
        self._roll: Roll | None = None
        if members is not None and settings.check and self.size > 1:
            self.first_user_tag += 1  # the tag between the halves is that of the notes
            self._roll = Roll(comm, self.first_user_tag - 1, members)
        self.user_tags = int(limit) - self.first_user_tag
        self.pool = StagingPool()
        self.pointers = False  # MPI gets pointers of GPUs; on all ranks or on none
        self.compiled = (
            library() is not None
            and not settings.timeline
            and (settings.segment_bytes or 0) <= LONGEST_MESSAGE
        )
        self.chooser = chooser or Chooser(settings)
        self.plans = Plans(self.rank, nodes, self.chooser, levels)
        self.routes = make_routes(self)
        ways = (self.direct, self.routes)
        # What carries out a call at once, if anything does.
        self.quick = next((way.caller for way in ways if way is not None), None)
        if self.quick is not None and members is not None:
            board.quick[members.key] = self._last_quick_call

    def reduction(
        self,
        buffer: FlatBuffer,
        reduction: Reduction,
        collective: Collective = Collective.ALLREDUCE,
        kind: str = "allreduce",
        wire_dtype: torch.dtype | None = None,
        call: Call | None = None,
    ) -> Operation:
        """Return the operation that combines a payload in place: in memory, or by a Schedule.

        To be called in the same order, with payloads of the same size, on all ranks of the group.
        With a `wire_dtype` float32 travels between ranks as that; see `messages/narrow.py`. With a `call` it
        is signed.
        """
        operation = self._reduction(buffer, reduction, collective, kind, wire_dtype, call)
        if call is not None:
            self.sign(operation, call)
        return operation

    def _reduction(
        self,
        buffer: FlatBuffer,
        reduction: Reduction,
        collective: Collective,
        kind: str,
        wire_dtype: torch.dtype | None,
        call: Call | None,
    ) -> Operation:
        buffer.check(reduction)
        if isinstance(buffer, DeviceBuffer):
            return self._on_device(buffer, reduction, collective, kind, call)
        if wire_dtype is not None:
            plan, tags, _ = self.plans.of(collective, buffer.count, buffer.itemsize, able=False)
            context = MessageContext(self.comm, self._first_tag(tags, call), self.pool, kind)
            return self._proving(NarrowOperation(wire_dtype, plan, buffer, reduction, context=context), call)
        # Memory of the node serves one collective after the other; those of callbacks have no such order.
        ordered = call is None or not call.within
        if ordered and self.channel is not None and self.channel.supports(buffer.dtype, reduction):
            if self.direct is not None:
                self.direct.flush()
            return SharedOperation(self.channel, buffer.tensor, reduction, collective, kind)
        levels, within = self.levels, inside(reduction)
        able = ordered and collective is Collective.ALLREDUCE and self._able(buffer, reduction)
        plan, tags, layered = self.plans.of(collective, buffer.count, buffer.itemsize, able)
        if levels is None or not layered:
            return self._messages(plan, tags, buffer, reduction, self.comm, kind, call)
        between = self._messages(plan, tags, levels.part_of(buffer), within, levels.across, kind, call)
        whole = LevelsOperation(levels, buffer, reduction, between, self.comm.handle, self.size, kind)
        return self._proving(whole, call)

    def _on_device(
        self,
        buffer: DeviceBuffer,
        reduction: Reduction,
        collective: Collective,
        kind: str,
        call: Call | None,
    ) -> Operation:
        """Return the operation that combines a payload in the memory of a GPU."""
        least = SEGMENT_BYTES if self.settings.segment_bytes is None else 0
        plan, tags, _ = self.plans.of(collective, buffer.count, buffer.itemsize, False, least)
        context = MessageContext(self.comm, self._first_tag(tags, call), buffer.side.pool, kind)
        return self._proving(PointerOperation(plan, buffer, reduction, context=context), call)

    def _messages(
        self,
        plan: Plan,
        tags: int,
        buffer: FlatBuffer,
        reduction: Reduction,
        comm: MPI.Intracomm,
        kind: str,
        call: Call | None,
    ) -> Operation:
        """Return the operation that runs a plan."""
        context = MessageContext(comm, self._first_tag(tags, call), self.pool, kind)
        codes = native.codes(buffer.dtype, reduction) if self.compiled else None
        if codes is None:
            return self._proving(ScheduleOperation(plan, buffer, reduction, context=context), call)
        tables = self.plans.tables(plan, buffer.itemsize)
        return self._proving(CompiledOperation(plan, tables, codes, buffer, reduction, context=context), call)

    def _first_tag(self, count: int, call: Call | None) -> int:
        """Return the first tag of a Schedule's messages; another where ranks call other things."""
        return self.take_tags(count, call is not None) + (0 if call is None else self.tags.mark(call))

    def take_tags(self, count: int, marked: bool = False) -> int:
        """Return the first of so many tags for the messages of a call. `marked`: a mark will be added."""
        callback = self.callback()
        return self.tags.take(count) if callback is None else self.tags.take_within(callback, count, marked)

    def callback(self) -> Callback | None:
        """Return the callback that runs in this thread, if all ranks of this group have it."""
        running = callbacks.current()
        if running is None or not self.tags.tell_calls_apart:
            return None
        mine, theirs = None if self.members is None else self.members.all, running.cause.ranks
        together = mine is theirs or (mine is not None and theirs is not None and mine <= theirs)
        return running if together else None

    def _proving(self, operation: Operation, call: Call | None) -> Operation:
        operation.proves_agreement = call is not None and self.tags.tell_calls_apart
        return operation

    def route(self, buffer: FlatBuffer, reduction: Reduction) -> Route | None:
        """Return how such an allreduce goes in one call of C; None: it does not."""
        if self.chooser.forced is not None or native.codes(buffer.dtype, reduction) is None:
            return None
        able = self._able(buffer, reduction)
        planned = self.plans.of(Collective.ALLREDUCE, buffer.count, buffer.itemsize, able)
        return Route(self, planned, self.plans.tables(planned.plan, buffer.itemsize), buffer, reduction)

    def _able(self, buffer: FlatBuffer, reduction: Reduction) -> bool:
        """Return whether the memory of nodes may serve an allreduce; see `levels.py`."""
        return self.levels is not None and self.levels.scatter.supports(buffer.dtype, inside(reduction))

    def number(
        self,
        kind: str,
        count: int = -1,
        dtype: torch.dtype | None = None,
        reduction: Reduction | None = None,
        root: int = -1,
    ) -> Call:
        """Note what the program calls, for comparison with other ranks and for reports; see `Call`.

        To be called once for each collective, in the same order on all ranks.
        """
        callback = self.callback()
        if callback is None:
            self._calls += 1
            return self.note(kind, count, dtype, reduction, root)
        callback.calls[self] += 1
        return Call(callback.calls[self], kind, count, dtype, reduction, root, callback.cause.code)

    def note(
        self,
        kind: str,
        count: int = -1,
        dtype: torch.dtype | None = None,
        reduction: Reduction | None = None,
        root: int = -1,
    ) -> Call:
        """Do the same for a collective that is counted already."""
        call = Call(self.calls, kind, count, dtype, reduction, root)
        if self.members is not None:
            board.calls[self.members.key] = (call, time.monotonic())
        return call

    @property
    def calls(self) -> int:
        """Collectives called so far."""
        return self._calls if self.quick is None else self._calls + int(self.quick.calls)

    def prove_before(self) -> None:
        """Note what came before the last call of `quick`: such a call begins when all others are complete."""
        if self.members is None:
            return
        last = board.calls.get(self.members.key)
        number = self.calls - 1
        before = last[0] if last and last[0].number == number else call_before(self.quick, number)
        if before is not None:
            board.proved[self.members.key] = (before, -1 if board.step is None else board.step)

    def _last_quick_call(self) -> tuple[Call, float] | None:
        return last_call(self.quick, self.calls)

    def sign(self, operation: Operation, call: Call) -> None:
        """Let an operation carry the name of the call, and have it compared."""
        operation.call, operation.members = call, self.members
        operation.timeout_seconds = self.timeout_seconds
        operation.patience_seconds = self.patience_seconds
        callback = self.callback() if call.within else None
        if callback is not None:
            operation.cause = callback.cause
            operation.queue = InnerQueue(operation.queue, call.within)  # no order, no notes of the group
        elif self._roll is not None:
            late = operation.proves_agreement or isinstance(operation, SharedOperation)
            operation.guard = self._roll.enter(call, late)

    def close(self) -> None:
        """Free the communicator. To be called by all ranks of the group, when all is complete.

        Where messages may still come it is kept: MPI would give them to a communicator made later.
        """
        if self.comm == MPI.COMM_NULL:
            return
        if self.engine.failure is not None:  # nobody can be told
            kept.for_ever(self)
        else:
            self._end()
        if self.members is not None:
            board.end(self.members.key)

    def _end(self) -> None:
        if self.direct is not None:
            self.direct.close()
        if self.routes is not None:
            self.routes.close()
        # What ranks wait for in vain, after its timeout, must not keep them from ending the group.
        if self.engine.leave_behind(self._queues, FAREWELL_SECONDS):
            self.is_clean = False
        if self._roll is not None:
            farewell = Farewell(self._roll, self.comm.handle)
            self.engine.wait(self.engine.submit(farewell))
            self.is_clean = self.is_clean and farewell.is_clean
        if self.channel is not None:
            closing = FunctionCall(self.channel.close, blocks=False, queue=self.channel)
            self.engine.wait(self.engine.submit(closing))
        if not self.is_clean:
            kept.for_ever((self.comm, self.levels))
            return
        if self.levels is not None:
            self.engine.call(self.levels.close)
        self.engine.call(self.comm.Free)

    def abort(self) -> None:
        """Drop all that is under way, without the other ranks; whoever waits gets an error."""
        if self.engine.failure is None:
            if self.direct is not None:
                with suppress(CommError):  # ranks differ: it is told to who waits
                    self.direct.flush()
            self.engine.drop(self._queues)
        if self.members is not None:
            board.end(self.members.key)
        kept.for_ever(self)

    @property
    def _queues(self) -> set[Hashable]:
        shared = set() if self.channel is None else {self.channel}
        return {self.comm.handle, unordered(self.comm), *shared}
