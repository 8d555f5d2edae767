"""The laws of a Schedule, checked by running it with symbols in place of numbers.

What is checked, on the Programs that the executor will run:

1. every transfer is between two different ranks that exist, of a slot that exists;
2. within a step no rank copies into a slot that it also sends, and copies into a slot come alone (what is
   added waits until the step's messages are complete, so a slot may leave and be added to in one step);
3. sends and receives pair up, first in first out, for each (source, destination, color);
4. no rank waits for ever, even if no message is ever buffered (`replay`);
5. no rank sends or adds data that has not arrived yet;
6. at the end every contribution is counted exactly once wherever the collective promises a result;
7. a Schedule that promises the same bits everywhere adds in the same order everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from distrain.schedule.errors import ScheduleError, place
from distrain.schedule.ir import Collective, Instruction, Op, Program, Schedule
from distrain.schedule.replay import replay
from distrain.schedule.symbols import Sums

Slot = tuple[int, int, int]  # rank, color, chunk


def verify(schedule: Schedule, programs: Sequence[Program] | None = None) -> None:
    """Check all laws; return if they hold.

    Args:
        schedule: what is promised.
        programs: what the ranks do, one Program for each rank; by default the Schedule's own.

    Raises:
        ScheduleError: the first law that is broken, with rank, color, chunk and step.
    """
    try:
        _check_shape(schedule)
        programs = schedule.programs() if programs is None else programs
        _check_ranks(schedule, programs)
        for program in programs:
            _check_hazards(program)
        _check_pairing(programs)
        sums = Sums(schedule.world_size)
        state = _run(schedule, programs, sums)
        _check_result(schedule, state, sums)
    except ScheduleError as error:
        where = f"{schedule.name} on {schedule.world_size} ranks, {error.where}"
        raise ScheduleError(where, error.problem, error.do) from None


def _check_ranks(schedule: Schedule, programs: Sequence[Program]) -> None:
    if [p.rank for p in programs] != list(range(schedule.world_size)):
        raise ScheduleError(
            "programs",
            f"ranks {[p.rank for p in programs]} are not 0 to {schedule.world_size - 1}",
            "give one Program for each rank, in order",
        )


def _check_shape(schedule: Schedule) -> None:
    if schedule.collective is not Collective.ALLREDUCE and schedule.chunks != schedule.world_size:
        raise ScheduleError(
            "shape",
            f"chunks={schedule.chunks} is not the number of ranks, {schedule.world_size}",
            f"cut the payload of {schedule.collective.value} into one part for each rank",
        )
    for t in (t for step in schedule.steps for t in step):
        ends_exist = 0 <= t.src < schedule.world_size and 0 <= t.dst < schedule.world_size
        slot_exists = 0 <= t.color < schedule.colors and 0 <= t.chunk < schedule.chunks
        if not ends_exist or not slot_exists or t.src == t.dst:
            raise ScheduleError(
                "shape",
                f"{t} has no such rank or slot, or sends to itself",
                f"use ranks below {schedule.world_size}, colors below {schedule.colors}, "
                f"chunks below {schedule.chunks}",
            )


def _check_hazards(program: Program) -> None:
    for color, steps in enumerate(program.colors):
        for step in steps:
            sent = {i.chunk for i in step if i.op is None}
            written = [i.chunk for i in step if i.op is not None]
            copied = {i.chunk for i in step if i.op is Op.COPY}
            if sent.isdisjoint(copied) and (not copied or len(set(written)) == len(written)):
                continue
            where = place(program.rank, color, step[0].step)
            for chunk, writes in Counter(written).items():
                if chunk in sent and chunk in copied:
                    raise ScheduleError(
                        where, f"chunk {chunk} is sent and copied into at once", "use two steps"
                    )
                if chunk in copied and writes > 1:
                    raise ScheduleError(
                        where, f"chunk {chunk} is copied into and written again", "use two steps"
                    )


def _check_pairing(programs: Sequence[Program]) -> None:
    """Compare the chunks that leave and arrive on each channel, in order."""
    sent: dict[tuple[int, int, int], list[Instruction]] = {}
    received: dict[tuple[int, int, int], list[Instruction]] = {}
    for program in programs:
        for color, steps in enumerate(program.colors):
            for i in (i for step in steps for i in step):
                ends = (program.rank, i.peer) if i.is_send else (i.peer, program.rank)
                (sent if i.is_send else received).setdefault((*ends, color), []).append(i)
    for src, dst, color in sorted(sent.keys() | received.keys()):
        leaving, arriving = sent.get((src, dst, color), []), received.get((src, dst, color), [])
        for out, into in zip(leaving, arriving, strict=False):
            if out.chunk != into.chunk:
                raise ScheduleError(
                    place(dst, color, into.step),
                    f"expects chunk {into.chunk} from rank {src}, which sends chunk {out.chunk} first",
                    "list the transfers in the same order on both ends",
                )
        if len(leaving) != len(arriving):
            extra = (leaving if len(leaving) > len(arriving) else arriving)[min(len(leaving), len(arriving))]
            owner, other = (src, dst) if extra.is_send else (dst, src)
            verb, answer = ("send", "receive") if extra.is_send else ("receive", "send")
            raise ScheduleError(
                place(owner, color, extra.step),
                f"the {verb} of chunk {extra.chunk} has no {answer} on rank {other}",
                "give every transfer both its ends",
            )


def _run(schedule: Schedule, programs: Sequence[Program], sums: Sums) -> dict[Slot, int]:
    """Return the sum in every slot at the end; a slot that holds nothing is absent."""
    gathers = schedule.collective is Collective.ALL_GATHER
    state: dict[Slot, int] = {
        (rank, color, chunk): sums.own(rank)
        for rank in range(schedule.world_size)
        for color in range(schedule.colors)
        for chunk in ((rank,) if gathers else range(schedule.chunks))
    }

    def send(rank: int, color: int, i: Instruction) -> int:
        try:
            return state[rank, color, i.chunk]
        except KeyError:
            raise ScheduleError(
                place(rank, color, i.step),
                f"sends chunk {i.chunk} to rank {i.peer} before it has arrived",
                "send it in a later step",
            ) from None

    def receive(rank: int, color: int, i: Instruction, arrived: int) -> None:
        slot = (rank, color, i.chunk)
        if i.op is Op.COPY:
            state[slot] = arrived
        elif slot in state:
            state[slot] = sums.add(state[slot], arrived)
        else:
            raise ScheduleError(
                place(rank, color, i.step), f"adds to chunk {i.chunk}, which holds nothing", "copy it"
            )

    replay(programs, send, receive)
    return state


def _check_result(schedule: Schedule, state: dict[Slot, int], sums: Sums) -> None:
    for color in range(schedule.colors):
        for chunk in range(schedule.chunks):
            ranks = _result_ranks(schedule, chunk)
            for rank in ranks:
                _check_counts(schedule, (rank, color, chunk), state, sums)
            if schedule.bit_identical:
                first = state[ranks[0], color, chunk]
                for rank in ranks:
                    if state[rank, color, chunk] != first:
                        raise ScheduleError(
                            place(rank, color),
                            f"chunk {chunk} is added in another order than on rank {ranks[0]}",
                            "copy one result to all ranks, or declare bit_identical=False",
                        )


def _result_ranks(schedule: Schedule, chunk: int) -> Sequence[int]:
    if schedule.collective is Collective.REDUCE_SCATTER:
        return (chunk,)
    return range(schedule.world_size)


def _check_counts(schedule: Schedule, slot: Slot, state: dict[Slot, int], sums: Sums) -> None:
    rank, color, chunk = slot
    only_owner = schedule.collective is Collective.ALL_GATHER
    wanted = tuple(int(not only_owner or r == chunk) for r in range(schedule.world_size))
    found = sums.counts(state[slot]) if slot in state else (0,) * schedule.world_size
    if found == wanted:
        return
    wrong = [
        f"rank {r} is counted {have} times instead of {want}"
        for r, (have, want) in enumerate(zip(found, wanted, strict=True))
        if have != want
    ]
    raise ScheduleError(
        place(rank, color), f"chunk {chunk} ends wrong: {', '.join(wrong[:3])}", "mend the generator"
    )
