"""Rings: which links they use, how they treat nodes, what they move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.errors import UsageError
from distrain.schedule.ir import Collective
from distrain.schedule.orders import Order, hamiltonian_cycles, ring_orders, zigzag
from distrain.schedule.registry import generate
from distrain.schedule.ring import multicolor_ring, ring
from distrain.schedule.text import to_text


def links(order: Order) -> set[tuple[int, int]]:
    return set(pairwise((*order, order[0])))


@pytest.mark.parametrize("size", range(3, 40))
def test_tours_visit_everyone_and_share_no_link(size: int) -> None:
    tours = hamiltonian_cycles(size)
    assert len(tours) == (size - 1) // 2
    assert tours[0] == tuple(range(size))
    assert all(sorted(tour) == list(range(size)) for tour in tours)
    used = [frozenset(link) for tour in tours for link in links(tour)]
    assert len(set(used)) == len(used) == size * len(tours)


@pytest.mark.parametrize("size", range(3, 20))
def test_rings_are_disjoint_and_use_both_directions_while_links_last(size: int) -> None:
    colors = 2 * ((size - 1) // 2)
    orders = ring_orders(size, colors)
    used = [link for order in orders for link in links(order)]
    assert len(set(used)) == len(used)
    for forward, backward in zip(orders[::2], orders[1::2], strict=True):
        assert {(b, a) for a, b in links(forward)} == links(backward)


def test_more_colors_than_disjoint_rings_load_the_links_evenly() -> None:
    loads = Counter(link for order in ring_orders(5, 11) for link in links(order))
    assert len(loads) == 20
    assert set(loads.values()) == {2, 3}


@pytest.mark.parametrize("size", range(2, 17, 2))
def test_rotated_zigzags_never_repeat_a_step(size: int) -> None:
    steps = [((a + i) % size, (b + i) % size) for i in range(size) for a, b in pairwise(zigzag(size))]
    assert len(set(steps)) == size * (size - 1)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[int], int]:
    """Nodes of equal size in any placement of the ranks, and how many ranks each has."""
    nodes, local = draw(st.integers(2, 6)), draw(st.integers(1, 5))
    return draw(st.permutations([node for node in range(nodes) for _ in range(local)])), local


@settings(max_examples=60, deadline=None)
@given(clusters())
def test_every_color_enters_and_leaves_a_node_at_another_rank(cluster: tuple[list[int], int]) -> None:
    nodes, local = cluster
    entries: Counter[int] = Counter()
    exits: Counter[int] = Counter()
    for order in ring_orders(len(nodes), local, nodes):
        assert sorted(order) == list(range(len(nodes)))
        crossings = [(a, b) for a, b in links(order) if nodes[a] != nodes[b]]
        assert len(crossings) == len(set(nodes))  # each node is entered once: its ranks are contiguous
        exits.update(a for a, _ in crossings)
        entries.update(b for _, b in crossings)
    assert entries == exits == Counter(range(len(nodes)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4))
def test_rings_stay_on_their_rail_between_even_nodes(half_nodes: int, half_local: int) -> None:
    node_count, local = 2 * half_nodes, 2 * half_local
    nodes = [rank // local for rank in range(node_count * local)]
    for order in ring_orders(len(nodes), local, nodes):
        for a, b in links(order):
            if nodes[a] != nodes[b]:
                assert a % local == b % local


def test_nodes_of_different_sizes() -> None:
    nodes = [0, 0, 0, 1, 2, 2]
    for order in ring_orders(6, 3, nodes):
        crossings = sum(nodes[a] != nodes[b] for a, b in links(order))
        assert sorted(order) == list(range(6)) and crossings == 3


@pytest.mark.parametrize("size", [2, 3, 8, 13])
def test_a_ring_moves_the_least_that_an_allreduce_can(size: int) -> None:
    schedule = multicolor_ring(size, 3)
    assert len(schedule.steps) == 2 * (size - 1)
    sent = Counter((t.src, t.color) for step in schedule.steps for t in step)
    assert set(sent.values()) == {2 * (size - 1)}


def test_ring_follows_the_order_of_the_ranks() -> None:
    schedule = ring(4)
    assert {(t.src, t.dst) for step in schedule.steps for t in step} == {(0, 1), (1, 2), (2, 3), (3, 0)}
    assert schedule.colors == generate("ring", 4, colors=3).colors == 1


def test_halves_of_a_ring_are_the_other_collectives() -> None:
    whole = multicolor_ring(6, 2)
    first = multicolor_ring(6, 2, Collective.REDUCE_SCATTER)
    second = multicolor_ring(6, 2, Collective.ALL_GATHER)
    assert first.steps + second.steps == whole.steps


def test_golden_rings(matches_golden: Callable[[str, str], None]) -> None:
    matches_golden("ring_4.txt", to_text(ring(4)))
    matches_golden("multicolor_ring_5x4.txt", to_text(multicolor_ring(5, 4)))
    nodes = [0, 0, 1, 1]
    matches_golden("multicolor_ring_4x2_2nodes.txt", to_text(multicolor_ring(4, 2, nodes=nodes)))
    scatter = multicolor_ring(3, 2, Collective.REDUCE_SCATTER)
    matches_golden("multicolor_ring_3x2_reduce_scatter.txt", to_text(scatter))


def test_wrong_number_of_nodes() -> None:
    with pytest.raises(UsageError, match="nodes has 3 entries for 4 ranks; give the node of each rank"):
        multicolor_ring(4, 2, nodes=[0, 0, 1])
