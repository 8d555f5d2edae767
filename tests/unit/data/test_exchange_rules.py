"""What a rank may ask for at a time, and places of images beyond 2**31 and 2**32 bytes."""

from __future__ import annotations

import mmap
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("mpi4py.MPI")

from distrain.data.exchange import (
    EXPECTED,
    EXPECTED_IN_GAP,
    EXPECTED_OF_PEER,
    GAP_SECONDS,
    MESSAGE_BYTES,
    TRICKLE_SECONDS,
    Allowance,
    _gathered,
    _pieces,
)
from distrain.data.format import RECORD, Manifest, ShardEntry
from distrain.data.load import Piece
from distrain.data.nodes.shipments import Shipment, Shipments
from distrain.data.nodes.window import Window
from distrain.data.store import Store

PEERS = 12
EVENTS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, PEERS - 1), st.floats(0, 2 * TRICKLE_SECONDS)),
    min_size=1,
    max_size=80,
)


@given(EVENTS)
def test_pieces_asked_for_are_few_and_hardly_any_behind_gradients(
    events: list[tuple[bool, bool, int, float]],
) -> None:
    """Each event: whether a piece comes first, whether gradients are in flight, a peer, seconds that pass."""
    allowance, taken, last, gradients, now = Allowance(), [0] * PEERS, -1.0, -1.0, 0.0
    for comes, behind, peer, passed in events:
        now += passed
        gradients = now if behind else gradients
        if comes and taken[peer]:
            allowance.give(peer)
            taken[peer] -= 1
        allowance.look(behind, now)
        is_gap = gradients >= 0 and now - gradients < GAP_SECONDS
        if behind:
            expected = sum(taken) == 0 and (last < 0 or now - last >= TRICKLE_SECONDS)
        else:
            expected = sum(taken) < (EXPECTED_IN_GAP if is_gap else EXPECTED)
        expected = expected and taken[peer] < EXPECTED_OF_PEER
        assert allowance.take(peer) == expected
        if expected:
            taken[peer], last = taken[peer] + 1, now
        assert allowance.of(peer) == taken[peer] <= EXPECTED_OF_PEER and sum(taken) <= EXPECTED


def test_nothing_starves_behind_gradients_that_never_end() -> None:
    allowance = Allowance()
    came = 0
    for tick in range(1000):
        allowance.look(behind=True, now=tick * TRICKLE_SECONDS / 4)
        if allowance.take(0):
            allowance.give(0)
            came += 1
    assert 190 <= came <= 250  # one in four ticks, or in five where fractions of a second round down


def test_the_oldest_window_is_not_kept_from_asking_by_later_ones() -> None:
    allowance = Allowance()
    older, later = object(), object()
    for window in (older, later):
        allowance.enter(window)
    assert allowance.is_oldest(older) and not allowance.is_oldest(later)
    allowance.look(behind=False, now=10.0)
    taken = sum(allowance.take(peer) for peer in range(PEERS) for _ in range(EXPECTED_OF_PEER))
    assert taken == EXPECTED and not allowance.take(0)
    assert allowance.take(0, needed=True)
    allowance.look(behind=True, now=10.0)
    assert not allowance.take(1, needed=True)
    allowance.leave(older)
    assert allowance.is_oldest(later)


@given(st.lists(st.integers(0, 700), max_size=8), st.integers(1, 300), st.integers(0, 9))
def test_gathered_pieces_are_the_parts_in_their_order(sizes: list[int], piece: int, spare: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distrain.data.exchange.MESSAGE_BYTES", piece)
        rng = np.random.default_rng(0)
        parts = [rng.integers(0, 256, size, np.uint8) for size in sizes]
        whole = np.concatenate([*parts, np.empty(0, np.uint8)])
        used = [np.full(piece, 7, np.uint8) for _ in range(spare)]
        found = list(_gathered(parts, used))
        assert len(used) == max(0, spare - len(found)) and all(f.base is not None for f in found)
        assert [len(f) for f in found] == [len(p) for p in _pieces(whole)]
        assert np.array_equal(np.concatenate([*found, np.empty(0, np.uint8)]), whole)


NORESERVE = 0x4000  # of Linux: the memory is not counted before it is written; a name from Python 3.13 on
LENGTH = (1 << 31) + 64  # of each of three images: the second lies across 2**32


def three_large_images() -> np.ndarray:
    table = np.zeros(3, RECORD)
    table["length"] = LENGTH
    table["offset"] = np.arange(3) * LENGTH
    return table


def store_of(table: np.ndarray, part: range) -> tuple[Store, mmap.mmap]:
    """A store whose memory takes no room where nothing is written."""
    size = len(table) * LENGTH
    shard = ShardEntry(file="-", count=3, bytes=size, payload_bytes=size, head_crc32=0, payload_crc32=0)
    manifest = Manifest(
        pack_id="00" * 16, name="-", source="-", encoding="jpeg", options={}, classes=("one",),
        class_counts=(3,), count=3, mean_width=1, mean_height=1, shards=(shard,),
    )  # fmt: skip
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    piece = Piece(0, range(3), 0, 0, size)
    return Store(Path("-"), manifest, table, [(piece, memoryview(memory))], part), memory


def test_sent_images_beyond_32_bits_are_those_that_were_meant() -> None:
    store, memory = store_of(three_large_images(), range(3))
    marks = {image: bytes([image + 1]) * 8 for image in range(3)}
    for image, mark in marks.items():
        memory[image * LENGTH : image * LENGTH + 8] = mark
    for image in (1, 2):
        assert bytes(store.blob(image)[:8]) == marks[image] and len(store.blob(image)) == LENGTH
        (first,) = islice(_gathered(store.padded(np.array([image])), []), 1)
        assert first[:8].tobytes() == marks[image] and first.size == MESSAGE_BYTES


def test_arriving_images_beyond_32_bits_have_places_of_their_own() -> None:
    store, _ = store_of(three_large_images(), range(0))
    window = Window(store, range(1))
    window.lay_out(Shipments((), (Shipment(1, np.array([0, 1])), Shipment(2, np.array([2])))))
    assert window.bytes == 3 * LENGTH > 1 << 32
    _, incoming = window.messages()
    assert [(peer, memory.size) for peer, memory in incoming] == [(1, 2 * LENGTH), (2, LENGTH)]
    pieces = list(_pieces(incoming[0][1]))
    assert sum(piece.size for piece in pieces) == 2 * LENGTH
    beyond = (1 << 32) // MESSAGE_BYTES  # of the second image
    pieces[beyond][:4] = 7
    incoming[1][1][:4] = 9
    window.end()
    _, second, third = window.blobs(np.arange(3))
    assert bytes(second[(1 << 32) - LENGTH :][:4]) == b"\7\7\7\7" and bytes(third[:4]) == b"\t\t\t\t"
    assert len(second) == len(third) == LENGTH
