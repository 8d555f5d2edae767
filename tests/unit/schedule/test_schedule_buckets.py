"""The size of DDP's buckets follows from gradients, hosts and links."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.schedule.advice import Speeds, payload_rate
from distrain.schedule.buckets import (
    LARGEST_BYTES,
    SHORTEST_BYTES,
    SMALLEST_BYTES,
    advise_bucket_bytes,
    advise_buckets,
)

MIB = 1 << 20
RESNET50 = 102_228_128


def advised(nodes: list[int], gradient_bytes: int = RESNET50, gbit: float = 10, rails: int = 1) -> int:
    return advise_bucket_bytes(nodes, gradient_bytes, rails, Speeds(bytes_per_second=payload_rate(gbit)))


@pytest.mark.parametrize(("gbit", "expected"), [(1, 1), (10, 4), (100, 16), (400, 32)])
def test_resnet50_on_four_hosts(gbit: float, expected: int) -> None:
    assert advised([0, 1, 2, 3], gbit=gbit) == expected * MIB


def test_inside_a_node_the_links_do_not_matter() -> None:
    assert advised([0, 0], gbit=1) == advised([0, 0], gbit=100) == 8 * MIB


def test_a_rank_alone_has_nothing_to_wait_for() -> None:
    assert advised([0]) == LARGEST_BYTES


machines = st.builds(
    lambda hosts, local: [host for host in range(hosts) for _ in range(local)],
    st.integers(1, 64),
    st.integers(1, 8),
)


@given(machines, st.integers(0, 1 << 34), st.floats(0.01, 800), st.integers(1, 8))
def test_it_is_a_power_of_two_within_bounds(nodes: list[int], count: int, gbit: float, rails: int) -> None:
    found = advised(nodes, count, gbit, rails)
    assert SMALLEST_BYTES <= found <= LARGEST_BYTES
    assert found & (found - 1) == 0


@given(machines, st.integers(1, 1 << 32), st.floats(0.01, 400), st.floats(1, 100))
def test_more_gradients_never_want_smaller_buckets(
    nodes: list[int], count: int, gbit: float, factor: float
) -> None:
    assert advised(nodes, round(count * factor), gbit) >= advised(nodes, count, gbit)


def cut(sizes: list[int], nodes: list[int] | None = None, gbit: float = 10) -> list[int]:
    return advise_buckets(sizes, nodes or [0, 1, 2, 3], 1, Speeds(bytes_per_second=payload_rate(gbit)))


gradients = st.lists(st.integers(1, 20 << 20), min_size=1, max_size=200)


@given(gradients, machines, st.floats(0.01, 400))
def test_buckets_end_between_gradients_and_hold_all(sizes: list[int], nodes: list[int], gbit: float) -> None:
    ends, total = set(), 0
    for size in sizes:
        total += size
        ends.add(total)
    reached = 0
    for bucket in cut(sizes, nodes, gbit):
        reached += bucket
        assert reached in ends
    assert reached == total


@given(gradients, machines, st.floats(0.01, 400))
def test_only_one_gradient_makes_a_bucket_larger_than_it_may_be(
    sizes: list[int], nodes: list[int], gbit: float
) -> None:
    largest = advise_bucket_bytes(nodes, sum(sizes), 1, Speeds(bytes_per_second=payload_rate(gbit)))
    assert max(cut(sizes, nodes, gbit)) <= 1.5 * largest + max(sizes)


def test_small_gradients_make_buckets_that_shrink() -> None:
    buckets = cut([4096] * 25_000, gbit=1)
    assert buckets[:10] == [MIB] * 10
    assert buckets[10:] == sorted(buckets[10:], reverse=True)
    assert buckets[-1] <= SHORTEST_BYTES
    # Each is there in time if backward takes a quarter longer for what follows than that travels.
    for place, bucket in enumerate(buckets[:-1]):
        assert bucket <= SHORTEST_BYTES + 0.25 * sum(buckets[place + 1 :]) + 2 * 4096


def test_no_gradients_no_buckets() -> None:
    assert cut([]) == []
