"""The verifier, shown schedules that are wrong: it must name what is wrong and where."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distrain.schedule.errors import ScheduleError
from distrain.schedule.ir import Collective, Instruction, Op, Program, Schedule, Step, Transfer
from distrain.schedule.ring import ring
from distrain.schedule.text import parse
from distrain.schedule.verify import verify


def allreduce(size: int, lines: str, colors: int = 1, chunks: int = 1, identical: str = "yes") -> Schedule:
    """A hand-written allreduce: one step a line, all of color 0."""
    header = f"hand allreduce ranks={size} colors={colors} chunks={chunks} bit_identical={identical}\n"
    steps = [f"step {i}\n  color 0: {line}\n" for i, line in enumerate(lines.strip().splitlines())]
    return parse(header + "".join(steps))


def broken(schedule: Schedule, *programs: Program) -> str:
    with pytest.raises(ScheduleError) as caught:
        verify(schedule, programs or None)
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_reduce_and_broadcast_through_rank_0_is_right() -> None:
    verify(allreduce(3, "1>0 +0, 2>0 +0\n0>1 =0, 0>2 =0"))


def test_double_add() -> None:
    message = broken(allreduce(2, "1>0 +0\n1>0 +0\n0>1 =0"))
    assert message == (
        "hand on 2 ranks, rank 0 color 0: chunk 0 ends wrong: "
        "rank 1 is counted 2 times instead of 1; mend the generator"
    )


def test_double_add_that_a_later_copy_replaces_is_no_error() -> None:
    verify(allreduce(3, "1>0 +0, 2>0 +0\n1>2 +0\n1>2 +0\n0>1 =0, 0>2 =0"))


def test_lost_contribution() -> None:
    message = broken(allreduce(3, "1>0 +0\n0>1 =0, 0>2 =0"))
    assert "rank 0 color 0: chunk 0 ends wrong: rank 2 is counted 0 times instead of 1" in message


def test_result_that_does_not_reach_every_rank() -> None:
    message = broken(allreduce(3, "1>0 +0, 2>0 +0\n0>1 =0"))
    assert "rank 2 color 0: chunk 0 ends wrong: rank 0 is counted 0 times" in message


def test_copy_where_an_addition_belongs() -> None:
    message = broken(allreduce(2, "1>0 =0\n0>1 =0"))
    assert "rank 0 is counted 0 times instead of 1" in message


def test_slot_sent_and_copied_into_in_one_step() -> None:
    message = broken(allreduce(2, "0>1 =0, 1>0 =0"))
    assert "rank 0 color 0 step 0: chunk 0 is sent and copied into at once; use two steps" in message


def test_slot_may_be_sent_and_added_to_in_one_step() -> None:
    """Both send what they had before the step: 0 has 0 + 1, and 1 has 1 + 0."""
    verify(allreduce(2, "0>1 +0, 1>0 +0"))


@pytest.mark.parametrize("step", ["1>0 =0, 2>0 =0", "1>0 =0, 2>0 +0"])
def test_slot_copied_into_and_written_again(step: str) -> None:
    assert "rank 0 color 0 step 0: chunk 0 is copied into and written again" in broken(allreduce(3, step))


# Rank 0 ends with ((0+1)+2)+3, rank 2 with (2+3)+(0+1): everyone once, but other bits in floating point.
TWO_ORDERS = "1>0 +0\n0>1 =0\n2>0 +0\n3>0 +0, 3>2 +0\n1>2 +0\n0>1 =0, 2>3 =0"


def test_additions_in_another_order_must_be_declared() -> None:
    message = broken(allreduce(4, TWO_ORDERS))
    assert "rank 2 color 0: chunk 0 is added in another order than on rank 0" in message
    verify(allreduce(4, TWO_ORDERS, identical="no"))


def test_all_gather_sends_before_the_data_arrives() -> None:
    text = "hand all_gather ranks=3 colors=1 chunks=3 bit_identical=yes\nstep 0\n  color 0: 0>1 =2\n"
    assert "rank 0 color 0 step 0: sends chunk 2 to rank 1 before it has arrived" in broken(parse(text))


def test_all_gather_adds_to_nothing() -> None:
    text = "hand all_gather ranks=2 colors=1 chunks=2 bit_identical=yes\nstep 0\n  color 0: 0>1 +0\n"
    assert "rank 1 color 0 step 0: adds to chunk 0, which holds nothing; copy it" in broken(parse(text))


def test_all_gather_of_foreign_data() -> None:
    good = ring(2, Collective.ALL_GATHER)
    extra: Step = (Transfer(0, 0, 0, 1, Op.REDUCE),)
    assert "rank 0 is counted 2 times" in broken(replace(good, steps=(*good.steps, extra)))


def test_reduce_scatter_needs_one_part_for_each_rank() -> None:
    text = "hand reduce_scatter ranks=3 colors=1 chunks=1 bit_identical=yes\n"
    assert "chunks=1 is not the number of ranks, 3" in broken(parse(text))


@pytest.mark.parametrize(
    "transfer",
    [
        Transfer(0, 0, 0, 2, Op.COPY),
        Transfer(0, 0, -1, 0, Op.COPY),
        Transfer(1, 0, 0, 1, Op.COPY),
        Transfer(0, 2, 0, 1, Op.COPY),
        Transfer(0, 0, 1, 1, Op.COPY),
    ],
)
def test_transfer_that_cannot_exist(transfer: Transfer) -> None:
    schedule = ring(2)
    assert "has no such rank or slot, or sends to itself" in broken(
        replace(schedule, steps=(*schedule.steps, (transfer,)))
    )


def test_missing_program() -> None:
    schedule = ring(2)
    assert "ranks [0] are not 0 to 1" in broken(schedule, schedule.program(0))


def program(rank: int, *steps: tuple[Instruction, ...]) -> Program:
    return Program(rank, (steps,))


def test_send_without_receive() -> None:
    send = Instruction(0, 0, 1, None)
    message = broken(allreduce(2, "0>1 +0"), program(0, (send,)), program(1))
    assert "rank 0 color 0 step 0: the send of chunk 0 has no receive on rank 1" in message


def test_receive_without_send() -> None:
    receive = Instruction(3, 0, 1, Op.COPY)
    message = broken(allreduce(2, "0>1 +0"), program(0, (receive,)), program(1))
    assert "rank 0 color 0 step 3: the receive of chunk 0 has no send on rank 1" in message


def test_messages_that_overtake_each_other() -> None:
    sends = (Instruction(0, 0, 1, None), Instruction(0, 1, 1, None))
    receives = (Instruction(0, 1, 0, Op.COPY), Instruction(0, 0, 0, Op.COPY))
    message = broken(allreduce(2, "0>1 =0", chunks=2), program(0, sends), program(1, receives))
    assert "rank 1 color 0 step 0: expects chunk 1 from rank 0, which sends chunk 0 first" in message


def test_ranks_that_wait_in_a_circle() -> None:
    # Everyone sends to the right first and receives afterwards: ends only where sends are buffered.
    size = 3
    programs = [
        program(
            rank,
            (Instruction(0, rank, (rank + 1) % size, None),),
            (Instruction(1, (rank - 1) % size, (rank - 1) % size, Op.REDUCE),),
        )
        for rank in range(size)
    ]
    message = broken(allreduce(size, "0>1 +0", chunks=size), *programs)
    assert "deadlock: rank 0 color 0 step 0 waits for ranks [1]" in message
    assert "rank 2 color 0 step 0 waits for ranks [0]" in message


def test_one_transfer_less_is_always_noticed() -> None:
    schedule = ring(5)
    for number, step in enumerate(schedule.steps):
        for lost in range(len(step)):
            shorter = (*step[:lost], *step[lost + 1 :])
            steps = (*schedule.steps[:number], shorter, *schedule.steps[number + 1 :])
            assert "ends wrong" in broken(replace(schedule, steps=steps))


def test_one_transfer_twice_is_always_noticed() -> None:
    schedule = ring(4)
    for number, step in enumerate(schedule.steps[:3]):  # the reducing half
        for transfer in step:
            steps = (*schedule.steps[: number + 1], (transfer,), *schedule.steps[number + 1 :])
            assert "is counted 2 times" in broken(replace(schedule, steps=steps))
