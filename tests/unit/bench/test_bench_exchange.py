"""The benchmark of the exchange: what made images hold, who sends how much, what training pays."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.bench import made_images
from distrain.bench.exchange import hidden_line, leaving
from distrain.bench.stats import leaving_seconds
from distrain.schedule.advice import TCP_GOODPUT
from distrain.world import World


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(1, made_images.LONGEST))
def test_images_differ_in_every_word_and_from_themselves_moved(one: int, other: int, length: int) -> None:
    content = made_images.content(one, length)
    assert content.dtype == np.uint8 and len(content) == length
    assert np.array_equal(content, made_images.content(one, length))
    if one != other and length >= 8:
        words = length // 8 * 8
        pair = (made_images.content(image, words).view(np.uint64) for image in (one, other))
        assert not (np.equal(*pair)).any()
    if length > 64:
        assert not np.array_equal(content[8:], content[:-8])


def test_a_store_of_made_images_holds_what_its_records_say() -> None:
    count = 12
    lengths = made_images.lengths(count)
    assert len(set(lengths.tolist())) == count
    assert all(made_images.SHORTEST <= n < made_images.LONGEST for n in lengths.tolist())
    crcs = np.array([zlib.crc32(made_images.content(i, n).data) for i, n in enumerate(lengths.tolist())])
    table = made_images.records(count, crcs.astype(np.uint32))
    store = made_images.store(table, range(5, 9))
    for image, blob in zip(range(5, 9), store.blobs(np.arange(5, 9)), strict=True):
        assert zlib.crc32(blob) == store.records["crc32"][image]
        assert np.array_equal(blob, made_images.content(image, int(lengths[image])))
    assert [piece.size % 64 for piece in store.padded(np.arange(5, 9))] == [0] * 4


def test_bytes_leave_a_node_only_for_another_one() -> None:
    world = World.of(0, ["a", "b", "a"])
    traffic = np.array([[0, 5, 100], [7, 0, 9], [200, 30, 0]])
    assert leaving(traffic, world).tolist() == [35, 16]


def test_limit_is_the_rate_of_all_cards_at_the_share_of_tcp() -> None:
    assert leaving_seconds(125_000_000, 1, 125e6) == pytest.approx(1 / TCP_GOODPUT)
    assert leaving_seconds(125_000_000, 2, 125e6) == pytest.approx(0.5 / TCP_GOODPUT)


def test_what_training_pays_is_the_longer_epoch_over_the_exchange_alone() -> None:
    line = hidden_line([[1.0, 1.0], [1.0, 1.0], [9.0, 9.0]], [[1.0, 1.1], [1.05, 1.05], [5.0, 5.0]], 0.4)
    assert line["epoch_s"] == 2.0 and line["epoch_with_images_s"] == pytest.approx(2.1)
    assert line["hidden"] == pytest.approx(1 - 0.1 / 0.4)
    assert line["step_s"] == 1.0 and line["slowdown_median"] == pytest.approx(0.075)
    assert line["slowdown_mean"] == pytest.approx(14.2 / 22 - 1)
