"""CRC-32 in C: the values of zlib for every length and alignment, by every kernel that runs here."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.data.checksum import build_native, crc, native
from distrain.data.checksum.native import KERNELS, Library

POLYNOMIAL = 0x104C11DB7
NOISE = np.random.default_rng(7).integers(0, 256, 3 << 20, np.uint8)


@pytest.fixture(scope="module")
def library() -> Library:
    built, text = native.build_info()
    if not built:
        pytest.skip(f"checksums: {text}")
    return Library(build_native.LIBRARY)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_length(library: Library, kernel: str) -> None:
    """What a processor lacks is replaced by what it has, so every name works everywhere."""
    for size in range(4097):
        data = NOISE[size % 67 :][:size]  # at every alignment to a cache line
        before = size * 2_654_435_761 & 0xFFFFFFFF
        assert library.crc32(data, before, kernel) == zlib.crc32(data, before), size


@pytest.mark.parametrize("kernel", KERNELS)
def test_long(library: Library, kernel: str) -> None:
    for size in (65_536, 1_000_003, len(NOISE)):
        assert library.crc32(NOISE[:size], 0, kernel) == zlib.crc32(NOISE[:size])


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 63), st.sampled_from(sorted(KERNELS)))
def test_two_parts_are_the_whole(library: Library, first: int, second: int, skip: int, kernel: str) -> None:
    data = NOISE[skip : skip + first + second]
    part = library.crc32(data[:first], 0, kernel)
    assert library.crc32(data[first:], part, kernel) == zlib.crc32(data)


@given(st.integers(1, 20_000), st.data(), st.sampled_from(sorted(KERNELS)))
def test_one_wrong_bit_is_found(library: Library, size: int, data: st.DataObject, kernel: str) -> None:
    right = NOISE[:size]
    wrong = right.copy()
    wrong[data.draw(st.integers(0, size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert library.crc32(wrong, 0, kernel) != library.crc32(right, 0, kernel)


@pytest.mark.parametrize("exponent", [0, 1, 31, 32, 96, 160, 480, 544, 2016, 2080])
def test_constants(library: Library, exponent: int) -> None:
    """The powers of x by which blocks are carried on, by long division."""
    rest = 1 << exponent
    while rest.bit_length() > 32:
        rest ^= POLYNOMIAL << rest.bit_length() - 33
    assert library.power(exponent) == int(f"{rest:032b}"[::-1], 2)


@pytest.mark.parametrize("is_built", [True, False])
def test_what_the_room_calls(monkeypatch: pytest.MonkeyPatch, is_built: bool) -> None:
    if not is_built:
        monkeypatch.setattr(crc, "library", lambda: None)
    memory = memoryview(NOISE)
    for size in (0, 5, 20_000, 1 << 20):
        assert crc.crc32(memory[:size], 9) == zlib.crc32(memory[:size], 9)
    sizes = np.array([0, 1, 63, 64, 255, 256, 110_000, 17])
    starts = np.array([0, 5, 6, 1000, 2000, 1, 200_000, len(NOISE) - 17])
    expected = [
        zlib.crc32(memory[at : at + n]) for at, n in zip(starts.tolist(), sizes.tolist(), strict=True)
    ]
    assert crc.crc32_each(memory, starts, sizes).tolist() == expected
    assert crc.crc32_each(memoryview(b""), starts[:0], sizes[:0]).tolist() == []


@pytest.mark.parametrize(("start", "size"), [(-1, 4), (7, 4), (0, 11), (3, -1)])
def test_stretches_outside_are_refused(start: int, size: int) -> None:
    with pytest.raises(ValueError, match="they leave its 10 bytes"):
        crc.crc32_each(memoryview(bytes(10)), np.array([0, start]), np.array([1, size]))


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_ABI", ("distrain_checksum_abi", -1))
    built, text = native.build_info()
    assert not built and ("another version" in text or "not built" in text)
