"""Algorithms by name."""

from __future__ import annotations

import pytest

from distrain.errors import UsageError
from distrain.schedule.registry import generate, names
from distrain.schedule.ring import ring


def test_the_same_arguments_give_the_same_object() -> None:
    assert generate("multicolor_ring", 4, 2, nodes=[0, 0, 1, 1]) is generate(
        "multicolor_ring", 4, 2, nodes=(0, 0, 1, 1)
    )


@pytest.mark.parametrize("name", names())
def test_a_schedule_bears_the_name_it_was_asked_by(name: str) -> None:
    schedule = generate(name, 6, 2)
    assert schedule.name == name and schedule.world_size == 6


def test_unknown_algorithm_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        generate("multicolour_ring", 4, 2)
    assert "'multicolour_ring' is unknown (did you mean 'multicolor_ring'?); choose one of ring" in str(
        caught.value
    )


@pytest.mark.parametrize(("size", "colors", "what"), [(0, 1, "world_size=0"), (3, 0, "colors=0")])
def test_counts_below_one(size: int, colors: int, what: str) -> None:
    with pytest.raises(UsageError, match=f"{what} is not at least 1"):
        generate("multicolor_ring", size, colors)


def test_equal_schedules_have_equal_hashes() -> None:
    assert ring(5) == ring(5) and hash(ring(5)) == hash(ring(5))
    assert ring(5) != ring(6)
