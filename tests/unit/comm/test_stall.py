"""The report about an operation that is no collective of a group: who does not answer, or where they are."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

pytest.importorskip("mpi4py.MPI")

from distrain.comm.guest import GuestOperation
from distrain.comm.operation import Completion
from distrain.comm.supervision.inquiry import Answer, Inquiry
from distrain.comm.supervision.stall import inquire
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


def test_nobody_to_ask() -> None:
    assert report([], {}) == ""
