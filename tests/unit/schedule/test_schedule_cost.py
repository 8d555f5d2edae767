"""The cost model against formulas that can be derived on paper."""

from __future__ import annotations

from dataclasses import replace
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.errors import UsageError
from distrain.schedule.cost import Prediction, predict
from distrain.schedule.doubling import recursive_doubling
from distrain.schedule.halving import halving_doubling
from distrain.schedule.hierarchical import hierarchical
from distrain.schedule.ir import Collective, Schedule
from distrain.schedule.registry import generate, names
from distrain.schedule.ring import multicolor_ring, ring
from distrain.schedule.topology import Machine, floor_seconds
from distrain.schedule.tree import multicolor_tree

ALPHA, BETA, GAMMA = 50e-6, 1e-9, 0.25e-9  # seconds, seconds per byte, seconds per added byte
WHOLE = 1 << 40  # a segment that nothing exceeds


def machine(nodes: int, ranks_per_node: int = 1, **speeds: float) -> Machine:
    """Nodes whose inside costs nothing, so that the network alone is seen."""
    free = {"local_bytes_per_second": 1e18, "node_bytes_per_second": 1e18, "local_latency_seconds": 0.0}
    network = {
        "latency_seconds": ALPHA,
        "rail_bytes_per_second": 1 / BETA,
        "reduce_bytes_per_second": 1 / GAMMA,
    }
    return Machine.uniform(nodes, ranks_per_node, **{**free, **network, **speeds})


def seconds(schedule: Schedule, where: Machine, payload: int, segment: int = WHOLE) -> float:
    return predict(schedule, where, payload, segment).seconds


@pytest.mark.parametrize("size", [2, 3, 8, 13])
def test_ring_is_the_textbook_formula(size: int) -> None:
    payload = 1000 * size
    steps = 2 * (size - 1)
    expected = steps * ALPHA + steps / size * BETA * payload + (size - 1) / size * GAMMA * payload
    assert seconds(ring(size), machine(size), payload) == pytest.approx(expected)


@pytest.mark.parametrize("size", [2, 4, 16])
def test_halving_doubling_is_the_textbook_formula(size: int) -> None:
    payload = 1000 * size
    volume = (size - 1) / size * payload
    expected = 2 * log2(size) * ALPHA + 2 * volume * BETA + volume * GAMMA
    assert seconds(halving_doubling(size), machine(size), payload) == pytest.approx(expected)


@pytest.mark.parametrize("size", [2, 4, 16])
def test_recursive_doubling_is_the_textbook_formula(size: int) -> None:
    payload = 1000
    expected = log2(size) * (ALPHA + (BETA + GAMMA) * payload)
    assert seconds(recursive_doubling(size), machine(size), payload) == pytest.approx(expected)


def test_two_flat_trees_share_the_ports_of_their_roots() -> None:
    # 3 ranks, roots 0 and 1: each root takes in two halves of the payload, adds both, sends two halves.
    payload = 6000
    expected = 2 * (ALPHA + BETA * payload) + GAMMA * payload
    assert seconds(multicolor_tree(3, 2), machine(3), payload) == pytest.approx(expected)


def test_one_message_costs_alpha_plus_beta() -> None:
    exchange = ring(2, Collective.ALL_GATHER)
    result = predict(exchange, machine(2), 2000)
    assert result == Prediction(pytest.approx(ALPHA + 1000 * BETA), 2, 2000)
    # Rank 1 posts its receive first and its send second: 2 messages' work before the last one starts.
    busy = seconds(exchange, machine(2, message_seconds=1e-5), 2000)
    assert busy == pytest.approx(2e-5 + ALPHA + 1000 * BETA)


def test_hierarchy_pays_the_network_only_between_nodes() -> None:
    nodes, local, payload = 4, 2, 8000
    where = machine(nodes, local, rails=2, reduce_bytes_per_second=1e18)
    schedule = hierarchical(nodes * local, 1, nodes=where.nodes)
    steps = 2 * (nodes - 1)
    expected = steps * (ALPHA + payload / (nodes * local) * BETA)
    assert seconds(schedule, where, payload) == pytest.approx(expected)
    assert predict(schedule, where, payload).network_bytes == 2 * (nodes - 1) * payload


def test_colors_fill_the_rails_that_one_ring_leaves_idle() -> None:
    payload, ranks = 8_000_000, 2
    where = machine(4, ranks, rails=2, reduce_bytes_per_second=1e18, latency_seconds=0.0)
    floor = floor_seconds(where, payload)
    one = seconds(ring(8), where, payload)
    two = seconds(multicolor_ring(8, 2, nodes=where.nodes), where, payload)
    # A flat ring moves 2 (n-1)/n of the payload where nodes need only 2 (M-1)/M, hence 7/6.
    assert one == pytest.approx(2 * 7 / 6 * floor)
    assert two == pytest.approx(7 / 6 * floor)
    striped = replace(where, striped=True)
    assert seconds(ring(8), striped, payload) == pytest.approx(7 / 6 * floor)


def test_segments_pipeline_a_tree() -> None:
    schedule, where, payload = multicolor_tree(15, 2), machine(15, latency_seconds=1e-6), 1_000_000
    whole = seconds(schedule, where, payload)
    pipelined = predict(schedule, where, payload, payload // 64)
    assert pipelined.seconds < 0.6 * whole
    assert pipelined.network_bytes == predict(schedule, where, payload, WHOLE).network_bytes
    assert pipelined.messages == 32 * 2 * 2 * 14  # segments, colors, up and down, links


def test_trees_win_where_latency_rules_and_rings_where_bandwidth_does() -> None:
    where = machine(32)
    tree, rings = multicolor_tree(32, 4), multicolor_ring(32, 2)
    assert seconds(tree, where, 10_000, 10_000) < 0.3 * seconds(rings, where, 10_000, 10_000)
    large = 64_000_000
    assert seconds(rings, where, large, 1 << 18) < seconds(tree, where, large, 1 << 18)


def test_inside_a_node_copies_and_memory_bound_the_time() -> None:
    where = Machine.uniform(
        1, 4, local_latency_seconds=0.0, local_bytes_per_second=8e9, node_bytes_per_second=16e9,
        reduce_bytes_per_second=1e18,
    )  # fmt: skip
    payload = 16_000_000
    floor = floor_seconds(where, payload)
    assert floor == pytest.approx(2 * 3 / 4 * payload / 4e9)
    assert seconds(ring(4), where, payload, 1 << 16) == pytest.approx(floor, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(names()),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 3_000_000),
    st.integers(1, 4),
)
def test_nothing_is_faster_than_its_ports(
    name: str, nodes: int, local: int, colors: int, payload: int, window: int
) -> None:
    where = Machine.uniform(nodes, local, rails=2)
    schedule = generate(name, nodes * local, colors, nodes=where.nodes)
    result = predict(schedule, where, payload, 100_000, window)
    assert result.seconds >= 0.999 * floor_seconds(where, payload)
    assert (result.network_bytes == 0) == (nodes == 1 or payload == 0)


def test_local_ranks_choose_the_rail() -> None:
    where = replace(Machine.uniform(2, 4, rails=2), nodes=(0, 1, 0, 1, 0, 1, 0, 1))
    assert [where.local_rank(rank) for rank in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [where.ports(0, rank)[1].number for rank in (1, 3, 5, 7)] == [0, 1, 0, 1]
    assert where.ports(0, 2)[0].kind == "memory"


def test_bad_machines() -> None:
    with pytest.raises(UsageError, match="rail_bytes_per_second=0 is not positive; give a measured speed"):
        Machine.uniform(2, rail_bytes_per_second=0)
    with pytest.raises(UsageError, match="rails=0 is not at least 1"):
        Machine(nodes=(0, 1), rails=0)
    with pytest.raises(UsageError, match="the machine has 3 ranks, the schedule 2"):
        predict(ring(2), Machine.uniform(3), 100)
