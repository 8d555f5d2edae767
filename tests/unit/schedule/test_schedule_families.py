"""Trees, halving, doubling and hierarchy: the properties for which one would choose them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import ceil, floor, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.errors import UsageError
from distrain.schedule.doubling import recursive_doubling
from distrain.schedule.halving import halving_doubling
from distrain.schedule.hierarchical import hierarchical, hierarchical_doubling, hierarchical_tree
from distrain.schedule.ir import Collective, Op, Schedule
from distrain.schedule.registry import generate
from distrain.schedule.ring import ring
from distrain.schedule.text import to_text
from distrain.schedule.tree import multicolor_tree
from distrain.schedule.verify import verify


def interiors(schedule: Schedule) -> list[set[int]]:
    """For each color the ranks that add for others."""
    found: list[set[int]] = [set() for _ in range(schedule.colors)]
    for t in (t for step in schedule.steps for t in step):
        if t.op is Op.REDUCE:
            found[t.color].add(t.dst)
    return found


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 70), st.integers(1, 9))
def test_interiors_are_disjoint_exactly_where_that_is_possible(size: int, colors: int) -> None:
    found = interiors(multicolor_tree(size, colors))
    load = Counter(rank for ranks in found for rank in ranks)
    loads = [load[rank] for rank in range(size)]
    assert max(loads) - min(loads) <= 1
    if colors >= 2:
        assert (max(loads) <= 1) == (colors * ceil((size - 1) / colors) <= size)
        assert (max(loads) <= 1) == (size % colors in (0, 1)) or size == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 70), st.integers(1, 9))
def test_trees_are_as_low_as_their_arity_allows(size: int, colors: int) -> None:
    schedule, arity = multicolor_tree(size, colors), max(2, colors)
    depth, reach = 0, 1
    while reach < size:
        depth += 1
        reach += arity**depth
    assert len(schedule.steps) == 2 * depth
    for color in range(colors):
        edges = [t for step in schedule.steps for t in step if t.color == color]
        children = Counter(t.dst for t in edges if t.op is Op.REDUCE)
        assert sum(children.values()) == size - 1 and max(children.values()) <= arity


def test_arity_can_be_chosen_and_a_single_color_is_binary() -> None:
    assert len(multicolor_tree(16, 1).steps) == 2 * 4  # 1 + 2 + 4 + 8 + 1 ranks
    chosen = multicolor_tree(16, 2, arity=4)
    verify(chosen)
    assert len(chosen.steps) == 2 * 2  # 1 + 4 + 11 ranks


@pytest.mark.parametrize("size", range(1, 34))
def test_halving_takes_logarithmic_steps_and_ring_volume(size: int) -> None:
    schedule = halving_doubling(size)
    assert len(schedule.steps) == 2 * ceil(log2(size))
    sent = Counter(t.src for step in schedule.steps for t in step)
    assert set(sent.values()) <= {2 * (size - 1)}
    for step in schedule.steps:  # one partner to send to, one to receive from
        assert len({(t.src, t.dst) for t in step}) == size


def test_colors_of_halving_go_in_opposite_directions() -> None:
    first = halving_doubling(6, 2).steps[0]
    assert {(t.dst - t.src) % 6 for t in first if t.color == 0} == {3}
    last = halving_doubling(5, 2).steps[0]
    assert {(t.dst - t.src) % 5 for t in last if t.color == 0} == {3}
    assert {(t.src - t.dst) % 5 for t in last if t.color == 1} == {3}


@pytest.mark.parametrize("size", range(2, 34))
def test_doubling_takes_the_fewest_steps(size: int) -> None:
    schedule = recursive_doubling(size)
    exchanges = floor(log2(size))
    surplus = size - 2**exchanges
    assert len(schedule.steps) == exchanges + (2 if surplus else 0)
    assert len([t for step in schedule.steps for t in step]) == exchanges * 2**exchanges + 2 * surplus


def test_colors_of_doubling_begin_at_different_distances() -> None:
    first = recursive_doubling(8, 3).steps[0]
    for color in range(3):
        gaps = {(t.dst - t.src) % 8 for t in first if t.color == color}
        assert gaps == {2**color, 8 - 2**color}


@pytest.mark.parametrize("halving", [False, True])
@pytest.mark.parametrize(("nodes", "local"), [(2, 2), (3, 4), (4, 3), (8, 2)])
def test_hierarchy_sends_the_least_out_of_a_node_and_spreads_it(
    nodes: int, local: int, halving: bool
) -> None:
    size, colors = nodes * local, 2
    node = [rank // local for rank in range(size)]
    schedule = hierarchical(size, colors, nodes=node, halving=halving)
    crossings = [t for step in schedule.steps for t in step if node[t.src] != node[t.dst]]
    assert all(t.src % local == t.dst % local for t in crossings)  # each shard stays on its rail
    # 2 (M-1)/M of the payload leaves each node, the same share from each rank; a slot is 1/(M L colors).
    assert Counter(t.src for t in crossings) == Counter(dict.fromkeys(range(size), 2 * (nodes - 1) * colors))
    between = 2 * (ceil(log2(nodes)) if halving else nodes - 1)
    assert len(schedule.steps) == 2 * (local - 1) + between


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=24),
    st.sampled_from(list(Collective)),
    st.booleans(),
    st.integers(1, 4),
)
def test_hierarchy_works_for_nodes_of_any_sizes(
    nodes: list[int], collective: Collective, halving: bool, colors: int
) -> None:
    verify(hierarchical(len(nodes), colors, collective, nodes, halving))


def test_trees_between_nodes_keep_their_interiors_apart() -> None:
    nodes, local, colors = 8, 3, 4
    node = [rank // local for rank in range(nodes * local)]
    schedule = hierarchical_tree(nodes * local, colors, node)
    verify(schedule)
    assert (schedule.chunks, len(schedule.steps)) == (local, 2 * (local - 1) + 2 * 2)
    adders: list[set[int]] = [set() for _ in range(colors)]
    for t in (t for step in schedule.steps for t in step if node[t.src] != node[t.dst]):
        assert t.src % local == t.dst % local == t.chunk  # each shard stays on its rail
        if t.op is Op.REDUCE:
            adders[t.color].add(node[t.dst])
    assert sorted(n for nodes_of_color in adders for n in nodes_of_color) == list(range(nodes))


def test_between_nodes_of_one_rank_they_are_flat() -> None:
    assert hierarchical_tree(9, 3, range(9)).steps == multicolor_tree(9, 3).steps
    assert hierarchical_doubling(9, 1, range(9)).steps == recursive_doubling(9).steps


@pytest.mark.parametrize(("nodes", "local"), [(2, 2), (3, 4), (4, 3), (8, 2)])
def test_whole_shards_are_exchanged_between_nodes(nodes: int, local: int) -> None:
    node = [rank // local for rank in range(nodes * local)]
    schedule = hierarchical_doubling(nodes * local, 1, node)
    crossings = [t for step in schedule.steps for t in step if node[t.src] != node[t.dst]]
    assert all(t.src % local == t.dst % local == t.chunk for t in crossings)  # each shard stays on its rail
    assert len(schedule.steps) == 2 * (local - 1) + len(recursive_doubling(nodes).steps)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=24), st.integers(1, 4))
def test_allreduces_work_between_nodes_of_any_sizes(nodes: list[int], colors: int) -> None:
    verify(hierarchical_tree(len(nodes), colors, nodes))
    verify(hierarchical_doubling(len(nodes), colors, nodes))


def test_hierarchy_without_nodes_is_a_ring() -> None:
    assert hierarchical(5, 1).steps == ring(5).steps
    assert hierarchical(5, 1, nodes=range(5)).steps == ring(5).steps


def test_a_tree_cannot_scatter() -> None:
    with pytest.raises(UsageError) as caught:
        generate("multicolor_tree", 4, 2, Collective.REDUCE_SCATTER)
    assert "algorithm='multicolor_tree' has no reduce_scatter; choose one of ring, " in str(caught.value)


def test_golden_families(matches_golden: Callable[[str, str], None]) -> None:
    matches_golden("multicolor_tree_8x4.txt", to_text(multicolor_tree(8, 4)))
    matches_golden("multicolor_tree_6x4.txt", to_text(multicolor_tree(6, 4)))
    matches_golden("halving_doubling_6.txt", to_text(halving_doubling(6)))
    matches_golden("recursive_doubling_6x2.txt", to_text(recursive_doubling(6, 2)))
    nodes = [0, 0, 1, 1, 2, 2]
    matches_golden("hierarchical_6_3nodes.txt", to_text(hierarchical(6, 1, nodes=nodes)))
    uneven = hierarchical(5, 2, nodes=[0, 0, 0, 1, 1], halving=True)
    matches_golden("hierarchical_halving_5x2_2nodes.txt", to_text(uneven))
    whole = hierarchical_doubling(5, 1, nodes=[0, 0, 0, 1, 1])
    matches_golden("hierarchical_doubling_5_2nodes.txt", to_text(whole))
