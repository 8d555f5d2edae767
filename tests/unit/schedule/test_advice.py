"""Which algorithm the formulas advise: a sensible one, the same for the same question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.schedule.advice import MOST_COLORS, Choice, Speeds, advise, candidates, estimate
from distrain.schedule.ir import Collective
from distrain.schedule.registry import family, generate

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=8).map(
    lambda counts: tuple(node for node, count in enumerate(counts) for _ in range(count))
)


@given(
    nodes=shapes,
    size=st.integers(0, 1 << 30),
    rails=st.integers(1, 8),
    collective=st.sampled_from(Collective),
)
def test_what_is_advised_can_be_generated(
    nodes: tuple[int, ...], size: int, rails: int, collective: Collective
) -> None:
    choice = advise(nodes, collective, size, rails)
    assert choice == advise(list(nodes), collective, size, rails)
    schedule = generate(choice.algorithm, len(nodes), choice.colors, collective, nodes)
    assert schedule.collective is collective and 1 <= choice.colors <= MOST_COLORS


@given(
    nodes=shapes,
    size=st.integers(4, 1 << 28),
    rails=st.integers(1, 4),
    collective=st.sampled_from(Collective),
)
def test_candidates_hold_the_advice_and_no_twins(
    nodes: tuple[int, ...], size: int, rails: int, collective: Collective
) -> None:
    found = candidates(nodes, collective, size, rails)
    assert found[0] == advise(nodes, collective, size, rails)
    assert len(set(found)) == len(found)
    assert all(collective in family(choice.algorithm).collectives for choice in found)
    # of two segment lengths that both exceed the longest slot only the shorter is there
    for choice in found:
        slot = size / (len(nodes) * choice.colors)
        longer = [c for c in found if (c.algorithm, c.colors) == (choice.algorithm, choice.colors)]
        assert sum(c.segment_bytes >= slot for c in longer) <= 1 or choice == found[0]


@pytest.mark.parametrize("nodes", [(0, 1, 2, 3), (0, 0, 0, 0), (0, 0, 1, 1), (0, 1, 0, 1)], ids=str)
def test_one_ring_is_measured_once_whatever_its_name(nodes: tuple[int, ...]) -> None:
    found = candidates(nodes, Collective.ALLREDUCE, 100 << 20, rails=1)
    rings = [choice for choice in found if choice.algorithm.endswith("ring")]
    runs = [(generate(c.algorithm, 4, c.colors, nodes=nodes).steps, c.segment_bytes) for c in rings]
    assert len(set(runs)) == len(runs)


def test_short_messages_take_few_steps_and_long_ones_a_ring() -> None:
    hosts = tuple(range(16))
    assert advise(hosts, Collective.ALLREDUCE, 1 << 10) == Choice("recursive_doubling", 1)
    assert advise(hosts, Collective.ALLREDUCE, 1 << 20) == Choice("multicolor_tree", 4)
    assert advise(hosts, Collective.ALL_GATHER, 1 << 10).algorithm == "halving_doubling"  # trees have none
    assert advise(hosts, Collective.ALLREDUCE, 100 << 20).algorithm == "multicolor_ring"
    crowded = tuple(rank // 8 for rank in range(64))
    assert advise(crowded, Collective.ALLREDUCE, 4 << 20).algorithm.startswith("hierarchical")


def test_every_rail_gets_a_color() -> None:
    assert advise(tuple(range(8)), Collective.ALLREDUCE, 100 << 20, rails=4).colors == 4


@given(st.integers(2, 64), st.integers(1, 1 << 28))
def test_formulas_grow_with_the_payload_and_shrink_with_speed(ranks: int, size: int) -> None:
    nodes = tuple(range(ranks))
    slow, fast = Speeds(), Speeds(step_seconds=25e-6, bytes_per_second=2.4e9)
    for name in ("ring", "multicolor_tree", "halving_doubling", "recursive_doubling"):
        now = estimate(name, nodes, size, 1, slow)
        more, quicker = estimate(name, nodes, 2 * size, 1, slow), estimate(name, nodes, size, 1, fast)
        assert now is not None and more is not None and quicker is not None
        assert more > now > quicker


def test_what_has_no_formula_says_so() -> None:
    assert estimate("hierarchical_tree", (0, 0, 1, 1), 1000) is None
    assert estimate("hierarchical", (0, 1, 2), 1000) is None  # one rank a node: there is no inside
