"""Groups of nodes: who holds, serves and reads what, for any world."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.data.nodes.groups import Groups, bounds_of, cut_by_bytes, cut_by_readers, eval_range, eval_rank
from distrain.data.settings import DataSettings
from distrain.errors import ConfigError
from distrain.world import World, split


@st.composite
def worlds(draw: st.DrawFn) -> tuple[World, int]:
    """A world with uneven nodes in any mapping of ranks, and a group size that divides it."""
    group_nodes, group_count = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    nodes = group_nodes * group_count
    hosts = [f"n{node}" for node in range(nodes) for _ in range(draw(st.integers(1, 4)))]
    return World.of(0, draw(st.permutations(hosts))), group_nodes


@given(worlds())
def test_every_rank_has_a_server_for_every_other_part(case: tuple[World, int]) -> None:
    world, size = case
    groups = Groups.of(world, size)
    served = {rank: groups.served(rank) for rank in range(world.size)}
    for rank in range(world.size):
        assert groups.node_of[rank] == World(rank, world.hosts).node
        for member in range(size):
            server = groups.server(rank, member)
            assert groups.member(server) == member and groups.group(server) == groups.group(rank)
            assert (rank in served[server]) == (member != groups.member(rank))
    # Servers of a node share its clients evenly.
    for ranks in groups.ranks_on:
        loads = [len(served[rank]) for rank in ranks]
        assert max(loads) - min(loads) <= (size - 1) * -(-4 // len(ranks))


@given(worlds())
def test_readers_of_the_parts_are_all_ranks(case: tuple[World, int]) -> None:
    groups = Groups.of(*case)
    readers = [groups.readers(member) for member in range(groups.nodes_each)]
    assert sorted(rank for part in readers for rank in part) == list(range(len(groups.node_of)))
    bounds = cut_by_readers(1000, groups)
    assert bounds[0] == 0 and bounds[-1] == 1000
    for part, ranks in zip(np.diff(bounds), readers, strict=True):
        assert abs(part - 1000 * len(ranks) / len(groups.node_of)) < 1


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=300), st.integers(1, 12))
def test_parts_have_equal_bytes_to_an_image(lengths: list[int], parts: int) -> None:
    array = np.array(lengths, np.uint32)
    bounds = cut_by_bytes(array, parts)
    assert len(bounds) == parts + 1 and bounds[0] == 0 and bounds[-1] == len(lengths)
    assert (np.diff(bounds) >= 0).all()
    padded = [-(-length // 64) * 64 for length in lengths]
    ideal = sum(padded) / parts
    for first, end in itertools.pairwise(bounds):
        assert abs(sum(padded[first:end]) - ideal) <= max(padded)


@given(worlds(), st.integers(0, 60))
def test_a_node_evaluates_one_range_and_all_together_everything(case: tuple[World, int], count: int) -> None:
    groups = Groups.of(*case)
    ranks = range(len(groups.node_of))
    assert sorted(eval_rank(groups, rank) for rank in ranks) == list(ranks)
    parts = split(count, len(ranks))
    for rank in ranks:
        held = eval_range(groups, rank, count)
        assert set(parts[eval_rank(groups, rank)]) <= set(held)
    held_by_node = [eval_range(groups, on[0], count) for on in groups.ranks_on]
    assert [image for held in held_by_node for image in held] == list(range(count))


def test_a_group_size_that_does_not_divide_the_nodes() -> None:
    world = World.of(0, ["a", "a", "b", "c", "d", "e", "f"])
    with pytest.raises(ConfigError, match=r"data.group_nodes: 4 does not divide the 6 nodes.*1, 2, 3, 6"):
        Groups.of(world, 4)


def test_cuts_follow_the_mode() -> None:
    groups = Groups.of_slots([1, 3], 2)
    lengths = np.array([64, 64, 64, 640], np.uint32)
    base = DataSettings(train="-", val="-", group_nodes=2)
    assert bounds_of(lengths, groups, base).tolist() == [0, 3, 4]
    local = base.model_copy(update={"reshuffle": "local"})
    assert bounds_of(lengths, groups, local).tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"group_nodes": 2, "memory": "disk"}, "group_nodes=2 shares memory"),
        ({"reshuffle": "partial"}, "partial=None does not go with reshuffle=partial"),
        ({"partial": 0.1}, "partial=0.1 does not go with reshuffle=global"),
    ],
)
def test_settings_that_contradict_each_other(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DataSettings(train="-", val="-", **options)


def test_the_fraction_that_moves() -> None:
    def fraction(**options: object) -> float:
        return DataSettings(train="-", val="-", **options).moving_fraction

    assert fraction() == 0 and fraction(group_nodes=2) == 1
    assert fraction(group_nodes=2, reshuffle="local") == 0
    assert fraction(group_nodes=2, reshuffle="partial", partial=0.3) == 0.3
