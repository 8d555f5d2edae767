"""Laws of the order: a permutation, at any count, the same whatever the ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.data.order import EpochOrder, eval_part, rank_positions, steps_per_epoch
from distrain.errors import ConfigError

seeds = st.integers(-(2**63), 2**63)


@given(st.integers(1, 3000), seeds, st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_every_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    indices = EpochOrder(seed, epoch, count).indices(np.arange(count))
    assert indices.dtype == np.int64
    assert np.array_equal(np.sort(indices), np.arange(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 15, 16, 17, 99_991, 1 << 16, 1_281_167])
def test_permutation_at_edges_of_the_domain(count: int) -> None:
    indices = EpochOrder(7, 0, count).indices(np.arange(count))
    assert np.array_equal(np.bincount(indices, minlength=count), np.ones(count, int))


@given(st.integers(1, 10**12), seeds, st.data())
@settings(max_examples=100, deadline=None)
def test_any_position_alone_gives_what_the_whole_gives(count: int, seed: int, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)))
    order = EpochOrder(seed, 3, count)
    together = order.indices(positions)
    assert together.min() >= 0 and together.max() < count
    assert [int(order.indices(np.array([p]))[0]) for p in positions] == together.tolist()


def test_epochs_and_seeds_differ() -> None:
    base = EpochOrder(1, 0, 1000).indices(np.arange(1000))
    assert (EpochOrder(1, 1, 1000).indices(np.arange(1000)) != base).mean() > 0.98
    assert (EpochOrder(2, 0, 1000).indices(np.arange(1000)) != base).mean() > 0.98


def test_images_fall_evenly_on_positions() -> None:
    """Chi-squared over (image, position) cells of many epochs: 36 images, 4,000 epochs."""
    count, epochs = 36, 4000
    cells = np.zeros((count, count))
    for epoch in range(epochs):
        cells[np.arange(count), EpochOrder(5, epoch, count).indices(np.arange(count))] += 1
    expected = epochs / count
    chi2 = ((cells - expected) ** 2 / expected).sum()
    freedom = (count - 1) ** 2
    assert abs(chi2 - freedom) < 6 * np.sqrt(2 * freedom)


def test_neighbours_in_the_pack_are_not_neighbours_in_the_epoch() -> None:
    count = 10_000
    indices = EpochOrder(0, 0, count).indices(np.arange(count))
    assert abs(np.corrcoef(indices[:-1], indices[1:])[0, 1]) < 0.04
    assert (np.abs(np.diff(indices)) == 1).sum() < 12  # 2 are expected of a random permutation


@given(st.integers(1, 64), st.integers(1, 9), st.integers(0, 40), st.sampled_from(["drop", "wrap"]))
@settings(max_examples=100, deadline=None)
def test_global_batches_do_not_depend_on_the_ranks(ranks: int, per_rank: int, extra: int, rule: str) -> None:
    """P ranks with batch b see in each step what one rank with batch P * b sees, in the same order."""
    batch = ranks * per_rank
    count = batch + extra
    steps = steps_per_epoch(count, batch, rule)
    for step in range(steps):
        alone = rank_positions(step, 0, 1, batch, count)
        together = np.concatenate([rank_positions(step, r, ranks, per_rank, count) for r in range(ranks)])
        assert np.array_equal(alone, together)


@given(st.integers(1, 200), st.integers(1, 200))
def test_last_batch_rules(count: int, batch: int) -> None:
    if count < batch:
        for rule in ("drop", "wrap"):
            with pytest.raises(ConfigError, match=f"{count} images, fewer than one global batch of {batch}"):
                steps_per_epoch(count, batch, rule)
        return
    drop, wrap = steps_per_epoch(count, batch, "drop"), steps_per_epoch(count, batch, "wrap")
    seen = {
        rule: np.concatenate([rank_positions(s, 0, 1, batch, count) for s in range(steps)])
        for rule, steps in (("drop", drop), ("wrap", wrap))
    }
    assert len(set(seen["drop"])) == len(seen["drop"]) == drop * batch > count - batch
    assert set(seen["wrap"]) == set(range(count))
    assert np.bincount(seen["wrap"]).max() <= 2


@given(st.integers(0, 500), st.integers(1, 70))
def test_evaluation_covers_each_image_once(count: int, ranks: int) -> None:
    parts = [eval_part(count, rank, ranks) for rank in range(ranks)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_no_images_is_an_error() -> None:
    with pytest.raises(ConfigError, match="count=0"):
        EpochOrder(0, 0, 0)
