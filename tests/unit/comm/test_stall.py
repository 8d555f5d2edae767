"""The report about an operation that is no collective of a group: who does not answer, or where they are."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
import torch

pytest.importorskip("mpi4py.MPI")

from distrain.comm.buffers import Reduction
from distrain.comm.engine.guest import GuestOperation
from distrain.comm.engine.stall import inquire
from distrain.comm.operation import Completion, Operation
from distrain.comm.supervision.call import Call
from distrain.comm.supervision.inquiry import Answer, Inquiry
from distrain.comm.supervision.members import Members
from distrain.world import World

FACTS = {"step": 7, "calls": {}, "heard": {}, "stack": ["loop.py:3 in run: wait()"]}


class Waiting:
    """A guest that waits for some ranks."""

    kind, algorithm, size_bytes, queue, concurrency, moved, is_behind = "images", "", 5, "q", None, 0, False

    def __init__(self, ranks: list[int]) -> None:
        self.ranks = ranks

    def start(self) -> None: ...

    def progress(self) -> bool:
        return False

    def waiting_for(self) -> str:
        return "images"

    def missing_ranks(self) -> Sequence[int]:
        return self.ranks


def report(ranks: list[int], silent: dict[int, str]) -> str:
    world = World(0, ("a", "a", "b", "b", "c", "c"))
    answers = {rank: Answer(None, silent[rank]) if rank in silent else Answer(FACTS) for rank in range(6)}
    inquiry = SimpleNamespace(world=world, ask=lambda asked: {rank: answers[rank] for rank in asked})
    return inquire(cast(Inquiry, inquiry), Completion(GuestOperation(Waiting(ranks)), 1))


def test_who_does_not_answer_is_named() -> None:
    assert report([2, 3], {3: "stopped"}) == "\n  rank 3 on b: stopped\n  answering: ranks 2"
    assert report([2, 3], {3: "stopped", 2: "gone"}) == "\n  rank 2 on b: gone\n  rank 3 on b: stopped"


def test_if_all_answer_it_says_where_they_are() -> None:
    line = "on {}: answers; is in training step 7; its main thread:\n      loop.py:3 in run: wait()"
    assert report([1, 4], {}) == f"\n  rank 1 {line.format('a')}\n  rank 4 {line.format('c')}"
    assert report([1, 2, 3, 4, 5], {}).count("answers") == 4


def test_what_a_callback_has_called_is_known_by_its_cause() -> None:
    outer = Call(7, "allreduce", 5, torch.float32, Reduction.SUM)
    members = Members("all", (0, 1), World(0, ("a", "b")))
    cause = outer.cause(members).part(1)
    inner = Operation()
    inner.members, inner.cause, inner.call = members, cause, Call(2, "barrier", within=cause.code)
    assert inquire(cast(Inquiry, None), Completion(inner, 1)) == (
        "\n  barrier, in a callback, is number 2 of a callback behind collective number 7, "
        "allreduce (sum) of 5 elements of float32: which ranks have called it is not known"
    )


def test_nobody_to_ask() -> None:
    assert report([], {}) == ""
