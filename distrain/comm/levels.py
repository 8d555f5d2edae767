"""Allreduce of several nodes with several ranks each: the node's memory inside, messages between nodes.

Three stages. In memory the ranks of a node reduce-scatter the payload, so that each carries the node's sum of
its own part. Ranks with the same local number allreduce that part between the nodes, all local numbers at
once, by a Schedule of their own. In memory the node gathers the parts. The same as `schedule/hierarchical.py`
does by messages alone; of the payload only ``2 (M-1)/M`` leaves a node of ``M``.

Of a short payload every rank gets the node's whole sum in the first stage and carries all of it between the
nodes: more bytes, but one hand-over less.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import cast

from distrain.comm import native
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.operation import Operation
from distrain.comm.process.mpi import MPI
from distrain.comm.shared.channel import COMPLETE, MOVED, YIELDS, Channel, open_channel
from distrain.comm.shared.operation import WAIT_SECONDS, WORK_SECONDS
from distrain.comm.supervision.roll import HEARING_SECONDS
from distrain.errors import CommError
from distrain.schedule.ir import Collective
from distrain.world import split

# Which Schedule runs between the nodes, by the hierarchical one that stands for it.
BETWEEN = {
    "hierarchical": "multicolor_ring",
    "hierarchical_halving": "halving_doubling",
    "hierarchical_tree": "multicolor_tree",
    "hierarchical_doubling": "recursive_doubling",
}
# The longest payload that all ranks of a node carry whole, all together.
WHOLE_BYTES = 32 << 10


class Levels:
    """What a group of several nodes with equally many ranks each needs for it.

    Collectives of a node overlap: one scatters while another's messages travel. Each stage has a channel of
    its own, where operations take turns in the order of their start, which is the same on all ranks.

    Args:
        scatter, gather: channels between the ranks of this node.
        across: the ranks of all nodes that have this rank's local number, in the order of the nodes.
    """

    def __init__(self, scatter: Channel, gather: Channel, across: MPI.Intracomm) -> None:
        self.scatter, self.gather, self.across = scatter, gather, across
        self.queues: dict[Channel, deque[LevelsOperation]] = {scatter: deque(), gather: deque()}
        self.node, self.nodes = across.Get_rank(), across.Get_size()
        self.local_rank, self.local_size = scatter.rank, scatter.ranks

    def part(self, count: int, itemsize: int) -> range:
        """Return which elements of a payload this rank carries between the nodes; of a short one all."""
        if self.is_short(count * itemsize):
            return range(count)
        return split(count, self.local_size)[self.local_rank]

    def part_of(self, buffer: FlatBuffer) -> FlatBuffer:
        """Return the payload's part that this rank carries."""
        part = self.part(buffer.count, buffer.itemsize)
        return FlatBuffer(buffer.tensor[part.start : part.stop])

    def is_short(self, size_bytes: int) -> bool:
        """Return whether every rank carries all of such a payload."""
        return size_bytes * self.local_size <= WHOLE_BYTES and size_bytes <= self.scatter.whole_bytes

    def close(self) -> None:
        """Free communicator and channels. To be called where MPI may be called, by all ranks."""
        self.across.Free()
        self.scatter.close()
        self.gather.close()


def open_levels(comm: MPI.Intracomm, nodes: Sequence[int]) -> Levels | None:
    """Return this rank's end; None on all ranks if the group has another shape, or no memory can be shared.

    Collective; to be called where MPI may be called.

    Args:
        comm: the group.
        nodes: ``nodes[r]`` is the node of rank r.
    """
    order = list(dict.fromkeys(nodes))
    counts = {nodes.count(node) for node in order}
    if len(order) < 2 or len(counts) > 1 or counts == {1}:
        return None
    rank = comm.Get_rank()
    local = cast(MPI.Intracomm, comm.Split(nodes[rank], rank))
    scatter, gather = open_channel(local, True), open_channel(local, True)
    local_rank = local.Get_rank()
    local.Free()
    if not comm.allreduce(scatter is not None and gather is not None, op=MPI.LAND):
        for channel in (scatter, gather):
            if channel is not None:
                channel.close()
        return None
    assert scatter is not None and gather is not None
    across = cast(MPI.Intracomm, comm.Split(local_rank, order.index(nodes[rank])))
    return Levels(scatter, gather, across)


class LevelsOperation(Operation):
    """One allreduce in three stages.

    Args:
        levels: of the group.
        buffer: the payload; combined in place.
        reduction: how.
        between: sums `levels.part_of(buffer)` between the nodes.
        queue: the ordering key of the group.
        ranks: of the whole group: what an average divides by.
        kind: what it is, for people.
    """

    waits = True

    def __init__(
        self,
        levels: Levels,
        buffer: FlatBuffer,
        reduction: Reduction,
        between: Operation,
        queue: int,
        ranks: int,
        kind: str = "allreduce",
    ) -> None:
        self.kind = kind
        self.size_bytes = buffer.count * buffer.itemsize
        self.algorithm = f"memory of the nodes, {between.algorithm} between them"
        self.queue = queue
        self._levels, self._buffer, self._between = levels, buffer, between
        self._divisor = ranks if reduction is Reduction.AVG else 1
        self._reduction = inside(reduction)
        self._short = levels.is_short(self.size_bytes)
        self._stage = 0
        self._begun = False  # the running stage
        self._quarrel: tuple[CommError, float] | None = None  # and until when others may explain it

    @property
    def by_message(self) -> bool:  # type: ignore[override]
        """Whether it waits for other nodes."""
        return self._stage == 1

    @property
    def driver(self) -> int | None:  # type: ignore[override]
        """That of the messages between nodes, while they are what it waits for."""
        return self._between.driver if self._stage == 1 and self._begun else None

    def start(self) -> None:
        """Queue up for both channels."""
        self._levels.queues[self._levels.scatter].append(self)
        if not self._short:
            self._levels.queues[self._levels.gather].append(self)

    def go_on(self, stage: int) -> None:
        """Be in this stage, which a call of C has begun; in place of `start`."""
        self._stage, self._begun = stage, True
        if stage == 0:
            self._levels.queues[self._levels.scatter].append(self)
        if not self._short:
            self._levels.queues[self._levels.gather].append(self)

    def progress(self) -> bool:
        """Go on as far as the others allow."""
        if self._quarrel is not None:
            error, until = self._quarrel
            if time.monotonic() > until:
                raise error
            return False
        stages = (self._scatter, self._exchange, self._gather)
        while stages[self._stage]():
            self._stage += 1
            self._begun = False
            self.moved += 1
            if self._stage == (2 if self._short else 3):
                return True
        return False

    def _scatter(self) -> bool:
        function = Collective.ALLREDUCE if self._short else Collective.REDUCE_SCATTER
        return self._in_memory(self._levels.scatter, function)

    def _gather(self) -> bool:
        return self._in_memory(self._levels.gather, Collective.ALL_GATHER)

    def _in_memory(self, channel: Channel, collective: Collective) -> bool:
        queue = self._levels.queues[channel]
        if queue[0] is not self:
            return False
        try:
            if not self._begun:
                self._begun = True
                code = channel.begin(self._buffer.tensor, self._reduction, collective)
            else:
                wait = WAIT_SECONDS if self.is_alone else 0.0
                code = channel.advance(WORK_SECONDS, wait, channel.spins, YIELDS)
        except CommError as error:
            if self.guard is None:
                raise
            # It names a stage. Notes of other ranks name the calls: leave them the word, if they come.
            self._quarrel = (error, time.monotonic() + HEARING_SECONDS)
            return False
        self.moved += code == MOVED
        if code == COMPLETE:
            queue.popleft()
        return code == COMPLETE

    def _exchange(self) -> bool:
        between = self._between
        if not self._begun:
            self._begun = True
            between.start()
        between.is_alone, between.news = self.is_alone, self.news
        before = between.moved
        complete = between.progress()
        self.moved += between.moved - before
        if complete and self._divisor > 1:
            divisor, self._divisor = self._divisor, 1  # once: the error of a signal may come after it
            native.divide(self._levels.part_of(self._buffer), divisor)
        return complete

    def waiting_for(self) -> str:
        """Name the stage, and whom it waits for."""
        if self._stage == 1:
            return f"other nodes (ranks are numbered by node): {self._between.waiting_for()}"
        channel = self._levels.gather if self._stage else self._levels.scatter
        if not self._begun:
            return "its turn in the memory of the node"
        return f"ranks of this node: {channel.waiting_for()}"


def inside(reduction: Reduction) -> Reduction:
    """Return what the stages compute: an average is divided once, between the last two of them."""
    return Reduction.SUM if reduction is Reduction.AVG else reduction
