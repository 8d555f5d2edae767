"""Laws of reading and of shipments: what is read is there, sent once, and the order does not care."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.data.nodes.groups import Groups, cut_by_bytes, cut_by_readers
from distrain.data.nodes.shipments import Planner
from distrain.data.order import EpochOrder
from distrain.data.reading import GlobalReading, PartialOrder, PartialReading, Reading
from distrain.errors import ConfigError


@st.composite
def clusters(draw: st.DrawFn) -> Groups:
    size, count = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return Groups.of_slots([draw(st.integers(1, 3)) for _ in range(size * count)], size)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[Groups, np.ndarray, Reading]:
    """Groups, parts, and any mode of reading."""
    groups = draw(clusters())
    ranks, batch = len(groups.node_of), draw(st.integers(1, 3))
    count = draw(st.integers(4 * ranks * batch, 8 * ranks * batch + 7))
    rule = draw(st.sampled_from(["drop", "wrap"]))
    seed = draw(st.integers(0, 99))
    if draw(st.booleans()):
        lengths = np.random.default_rng(seed).integers(1, 500, count, np.uint32)
        bounds = cut_by_bytes(lengths, groups.nodes_each)
        return groups, bounds, GlobalReading(seed, count, ranks, batch, rule)
    bounds = cut_by_readers(count, groups)
    fraction = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return groups, bounds, PartialReading(seed, groups, bounds, fraction, batch, rule)


@given(jobs(), st.integers(0, 40), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_what_a_rank_reads_is_at_home_or_sent_to_it_once(
    job: tuple[Groups, np.ndarray, Reading], start: int, length: int
) -> None:
    groups, bounds, reading = job
    steps = range(start, start + length)
    ranks = range(len(groups.node_of))
    plans = {rank: Planner(reading, groups, bounds, rank).plan(steps) for rank in ranks}
    for rank in ranks:
        member = groups.member(rank)
        read = []
        for step in steps:
            epoch, within = divmod(step, reading.steps_per_epoch)
            read.append(reading.order(epoch).indices(reading.positions(within, rank)))
        needed = set(np.concatenate(read).tolist())
        came = [image for shipment in plans[rank].receives for image in shipment.images.tolist()]
        assert len(came) == len(set(came))  # nothing twice
        home = {image for image in needed if bounds[member] <= image < bounds[member + 1]}
        assert needed == home | set(came) and not home & set(came)
        for shipment in plans[rank].receives:
            held = range(*bounds[groups.member(shipment.peer) :][:2].tolist())
            assert groups.group(shipment.peer) == groups.group(rank)
            assert groups.node_of[shipment.peer] != groups.node_of[rank]
            assert all(image in held for image in shipment.images.tolist())
            sent = [r for r in plans[shipment.peer].sends if r.peer == rank]
            assert len(sent) == 1 and np.array_equal(sent[0].images, shipment.images)
    assert sum(len(plan.sends) for plan in plans.values()) == sum(len(p.receives) for p in plans.values())


@given(st.integers(1, 64), st.integers(1, 4), st.data())
@settings(max_examples=40, deadline=None)
def test_global_batches_are_the_same_for_any_ranks_and_groups(
    ranks: int, batch: int, data: st.DataObject
) -> None:
    """Whatever the cluster, a step reads what one rank with the whole batch would read, in that order."""
    count = 2 * ranks * batch + data.draw(st.integers(0, 30))
    reading = GlobalReading(3, count, ranks, batch, "wrap")
    for step in range(reading.steps_per_epoch):
        parts = [reading.order(5).indices(reading.positions(step, rank)) for rank in range(ranks)]
        alone = EpochOrder(3, 5, count).indices(
            np.arange(step * ranks * batch, (step + 1) * ranks * batch) % count
        )
        assert np.array_equal(np.concatenate(parts), alone)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5), st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_partial_orders_are_permutations_that_move_no_more_than_they_may(
    sizes: list[int], fraction: float, epoch: int
) -> None:
    bounds = tuple(np.concatenate([[0], np.cumsum(sizes)]).tolist())
    count = bounds[-1]
    if count == 0:
        return
    order = PartialOrder(1, epoch, bounds, fraction)
    images = order.indices(np.arange(count))
    assert np.array_equal(np.sort(images), np.arange(count))
    for first, end in itertools.pairwise(bounds):
        foreign = ((images[first:end] < first) | (images[first:end] >= end)).sum()
        assert foreign <= round((end - first) * fraction)


def test_partial_orders_move_about_what_is_asked_for() -> None:
    bounds = (0, 1000, 2000, 3000, 4000)
    foreign = {}
    for fraction in (0.0, 0.1, 0.5, 1.0):
        images = PartialOrder(1, 0, bounds, fraction).indices(np.arange(4000))
        foreign[fraction] = (images // 1000 != np.arange(4000) // 1000).mean()
    assert foreign[0.0] == 0
    for fraction in (0.1, 0.5, 1.0):
        assert abs(foreign[fraction] - fraction * 3 / 4) < 0.03


def test_partial_orders_differ_from_epoch_to_epoch_and_mix_the_visitors() -> None:
    bounds = (0, 500, 1000)
    first, second = (PartialOrder(1, epoch, bounds, 0.2).indices(np.arange(1000)) for epoch in (0, 1))
    assert (first != second).mean() > 0.98
    visitors = np.flatnonzero(first[:500] >= 500)
    assert 180 < visitors.mean() < 320  # all over the epoch, not at its start
    visited = [set(f[:500][f[:500] >= 500].tolist()) for f in (first, second)]
    assert len(visited[0] & visited[1]) < 35  # other images each time: about 50 * 50 / 500 by chance


@given(clusters(), st.integers(1, 3), st.sampled_from([0.0, 0.4]))
@settings(max_examples=40, deadline=None)
def test_partial_reading_reads_every_image_once(groups: Groups, batch: int, fraction: float) -> None:
    ranks = len(groups.node_of)
    count = 5 * ranks * batch  # so that every part is a whole number of steps
    bounds = cut_by_readers(count, groups)
    reading = PartialReading(7, groups, bounds, fraction, batch, "drop")
    assert reading.steps_per_epoch == 5
    images = [
        reading.order(2).indices(reading.positions(step, rank)) for step in range(5) for rank in range(ranks)
    ]
    assert np.array_equal(np.sort(np.concatenate(images)), np.arange(count))


def test_partial_reading_refuses_parts_smaller_than_a_step() -> None:
    groups = Groups.of_slots([2, 2], 2)
    with pytest.raises(ConfigError, match=r"part 0 .* has 9 images, fewer than the 10 that its ranks"):
        PartialReading(0, groups, np.array([0, 9, 18]), 0.1, 5, "drop")


def test_unequal_parts_end_together() -> None:
    groups = Groups.of_slots([1, 1], 2)
    bounds = np.array([0, 7, 17])
    assert PartialReading(0, groups, bounds, 0.0, 2, "drop").steps_per_epoch == 3
    wrap = PartialReading(0, groups, bounds, 0.0, 2, "wrap")
    assert wrap.steps_per_epoch == 5
    seen = np.concatenate([wrap.order(0).indices(wrap.positions(step, 0)) for step in range(5)])
    assert np.bincount(seen, minlength=7)[:7].min() == 1 and len(seen) == 10
