"""What ranks tell each other about their calls: packed, in words, and compared."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpi4py import MPI

from distrain.comm.buffers import Reduction
from distrain.comm.messages import farewell
from distrain.comm.messages.farewell import Farewell
from distrain.comm.supervision.call import CALL_BYTES, KINDS, Call
from distrain.comm.supervision.members import Members
from distrain.comm.supervision.roll import Roll
from distrain.errors import CommError
from distrain.world import World

calls = st.builds(
    Call,
    number=st.integers(1, 2**62),
    kind=st.sampled_from(KINDS),
    count=st.integers(-1, 2**62),
    dtype=st.sampled_from([None, torch.float32, torch.bfloat16, torch.int64, torch.float8_e4m3fn]),
    reduction=st.sampled_from([None, *Reduction]),
    root=st.integers(-1, 2**30),
    within=st.integers(0, 2**32 - 1),
)


@given(calls)
def test_a_packed_call_is_read_as_it_was(call: Call) -> None:
    packed = call.pack()
    assert len(packed) == CALL_BYTES
    assert Call.unpack(packed) == call
    assert Call.number_of(packed) == call.number


@given(calls, calls)
def test_calls_have_equal_bytes_only_if_they_are_equal(one: Call, other: Call) -> None:
    assert (one.pack() == other.pack()) is (one == other)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (Call(4, "allreduce", 10, torch.float32, Reduction.AVG), "allreduce (avg) of 10 elements of float32"),
        (Call(1, "broadcast", 3, torch.bool, root=2), "broadcast of 3 elements of bool with root 2"),
        (Call(9, "barrier"), "barrier"),
        (Call(2, "all_to_all", dtype=torch.int8), "all_to_all of int8"),
    ],
)
def test_calls_in_words(call: Call, words: str) -> None:
    assert str(call) == words


class Post:
    """The communicator of rank 1 of 2; `arrive` plays the other rank."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.queue: list[bytes] = []
        self.cancelled = self.freed = 0

    def Get_rank(self) -> int:
        return 1

    def Get_size(self) -> int:
        return 2

    def Recv_init(self, buffer: list, source: int, tag: int) -> Post:
        assert (source, tag) == (0, 5)
        self.note = buffer[0]
        return self

    def Start(self) -> None:
        pass

    def Test(self) -> bool:
        if not self.queue:
            return False
        self.note[:] = memoryview(self.queue.pop(0))
        return True

    def Isend(self, buffer: list, dest: int, tag: int) -> Sent:
        assert (dest, tag) == (0, 5)
        self.sent.append(bytes(buffer[0]))
        return Sent()

    def Cancel(self) -> None:
        self.cancelled += 1

    def Wait(self) -> None:
        pass

    def Free(self) -> None:
        self.freed += 1

    def arrive(self, call: Call, step: int = -1) -> None:
        self.queue.append(call.pack() + step.to_bytes(4, "little", signed=True))


class Sent:
    def Test(self) -> bool:
        return True


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def roll(post: Post) -> Roll:
    world = World(rank=7, hosts=("a",) * 4 + ("b",) * 4)
    comm: MPI.Intracomm = post  # type: ignore[assignment]
    return Roll(comm, 5, Members("g", (3, 7), world))


SUM = Call(1, "allreduce", 10, torch.float32, Reduction.SUM)


def test_a_call_is_settled_once_the_same_note_has_come(roll: Roll, post: Post) -> None:
    guard = roll.enter(SUM, late=False)
    guard.begin()
    assert post.sent == [SUM.pack() + b"\xff\xff\xff\xff"]
    assert not guard.may_end(True), "the other rank has said nothing yet"
    post.arrive(SUM)
    assert not guard.may_end(False), "agreed, but the data is still on its way"
    assert guard.may_end(True)


def test_a_note_may_come_before_the_call(roll: Roll, post: Post) -> None:
    first = roll.enter(SUM, late=False)
    first.begin()
    post.arrive(SUM)
    post.arrive(SUM._replace(number=2))
    assert first.may_end(True)
    second = roll.enter(SUM._replace(number=2), late=False)
    second.begin()
    assert second.may_end(True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 11}, "allreduce (sum) of 11 elements of float32"),
        ({"dtype": torch.int32}, "allreduce (sum) of 10 elements of int32"),
        ({"reduction": Reduction.MAX}, "allreduce (max) of 10 elements of float32"),
        ({"kind": "barrier", "count": -1, "dtype": None, "reduction": None}, "barrier"),
        ({"kind": "reduce", "root": 1}, "reduce (sum) of 10 elements of float32 with root 1"),
    ],
    ids=["size", "type", "reduction", "kind", "root"],
)
def test_a_difference_names_both_ranks_hosts_and_calls(
    roll: Roll, post: Post, change: dict, words: str
) -> None:
    guard = roll.enter(SUM, late=False)
    guard.begin()
    post.arrive(SUM._replace(**change))
    with pytest.raises(CommError) as caught:
        guard.may_end(True)
    said = str(caught.value)
    assert said.startswith("rank 7 on b: collective number 1 of the group of ranks 3, 7: rank 7 on b called ")
    assert "called allreduce (sum) of 10 elements of float32, rank 3 on a called " + words + ";" in said


def test_what_may_end_early_does_not_wait_for_a_note_but_is_compared(roll: Roll, post: Post) -> None:
    mine = Call(1, "broadcast", 4, torch.float32, root=0)
    guard = roll.enter(mine, late=False)
    guard.begin()
    assert guard.may_end(True)
    later = roll.enter(Call(2, "barrier"), late=False)
    later.begin()
    post.arrive(mine._replace(root=1))
    with pytest.raises(CommError, match="collective number 1 "):
        later.may_end(False)


def test_what_compares_by_itself_sends_no_note_in_time(roll: Roll, post: Post) -> None:
    guard = roll.enter(SUM, late=True)
    guard.begin()
    assert not guard.may_end(False)
    assert guard.may_end(True)
    assert post.sent == []


LAST_NOTE = bytes(CALL_BYTES) + b"\xff\xff\xff\xff"


def test_a_group_ends_when_the_last_note_has_come(roll: Roll, post: Post) -> None:
    mine = Call(1, "scatter", 4, torch.float32, root=0)
    guard = roll.enter(mine, late=False)
    guard.begin()
    assert guard.may_end(True), "left early"
    end = Farewell(roll, "g")
    end.start()
    assert post.sent == [mine.pack() + b"\xff\xff\xff\xff", LAST_NOTE]
    assert not end.progress() and not end.is_clean
    post.arrive(mine)
    assert not end.progress() and not end.is_clean, "what was late has come, and more may"
    post.queue.append(LAST_NOTE)
    assert end.progress() and end.is_clean
    assert (post.freed, post.cancelled) == (1, 0)


def test_a_late_note_is_compared_at_the_end(roll: Roll, post: Post) -> None:
    mine = Call(1, "scatter", 4, torch.float32, root=0)
    roll.enter(mine, late=False).begin()
    end = Farewell(roll, "g")
    end.start()
    post.arrive(mine._replace(count=5))
    with pytest.raises(CommError, match="scatter of 5 elements"):
        end.progress()


def test_a_rank_that_does_not_end_its_group_is_not_waited_for(
    roll: Roll, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its notes may still come, so this is no clean end."""
    monkeypatch.setattr(farewell, "FAREWELL_SECONDS", 0.0)
    end = Farewell(roll, "g")
    end.start()
    assert end.progress() and not end.is_clean
    assert (post.freed, post.cancelled) == (1, 1)


def test_calls_after_the_last_note_of_the_other_rank_are_told_still(roll: Roll, post: Post) -> None:
    """Of those that need not wait for it."""
    roll.enter(SUM, late=False).begin()
    post.arrive(SUM)
    post.queue.append(LAST_NOTE)
    roll.listen()
    guard = roll.enter(Call(2, "broadcast", 3, torch.float32, root=1), late=False)
    guard.begin()
    assert guard.may_end(True) and len(post.sent) == 2
