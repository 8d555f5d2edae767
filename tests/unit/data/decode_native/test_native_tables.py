"""Coefficients of all sizes under Huffman codes of all lengths, beside libjpeg: the decoder's look-ups take
whole symbols, two at once, or a part of a value, depending on how long the codes are."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from jpeg_pictures import decode
from PIL import Image

from distrain.data.decode import indexed

BLOCKS, STEPS = 40, 64
ZERO_RUN, END = 0xF0, 0x00
VALUES = [run << 4 | size for size in (8, *range(1, 8), 9, 10) for run in range(3)]
SYMBOLS = [ZERO_RUN, *VALUES, END]
# Lengths of the codes of the symbols, shortest first; the code of ones alone must stay free.
LENGTHS = {
    "one_bit_first": [*range(1, 12), *[16] * 21],
    "all_of_6_bits": [6] * 32,
    "around_the_look_up": [2, 3, 4, *[10] * 8, *[11] * 10, *[12] * 11],
    "all_of_16_bits": [16] * 32,
}


def _codes(symbols: list[int], lengths: list[int]) -> dict[int, str]:
    """Return the canonical code of each symbol (T.81 annex C)."""
    codes, code, before = {}, 0, lengths[0]
    for symbol, length in zip(symbols, lengths, strict=True):
        code <<= length - before
        codes[symbol] = f"{code:0{length}b}"
        code, before = code + 1, length
    return codes


def _table(number: int, symbols: list[int], lengths: list[int]) -> bytes:
    body = bytes([number, *(lengths.count(length) for length in range(1, 17)), *symbols])
    return b"\xff\xc4" + (2 + len(body)).to_bytes(2, "big") + body


def _extra(value: int, size: int) -> str:
    return f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def _block(rng: random.Random, codes: dict[int, str]) -> str:
    """Return the bits of the AC coefficients of a block: one or two of any size, then small ones."""
    bits, index = "", 1
    for number in range(rng.choice([0, 1, 2, 5, 20, 63])):
        if rng.random() < 0.2 and index + 17 <= 63:
            bits, index = bits + codes[ZERO_RUN], index + 16
        run, size = rng.randrange(3), rng.randint(1, 10 if number < 2 else 3)
        if index + run > 63:
            break
        value = rng.choice([-1, 1]) * rng.randint(1 << (size - 1), (1 << size) - 1)
        bits, index = bits + codes[run << 4 | size] + _extra(value, size), index + run + 1
    return bits + codes[END] if index < 64 else bits


def _jpeg(seed: int, lengths: list[int]) -> bytes:
    """Return a grey JPEG of 8 x 8 * BLOCKS pixels, all quantisation steps 1."""
    rng = random.Random(seed)
    symbols = SYMBOLS.copy()
    if seed % 4:  # else a run of zeros in one bit, then a value of eight bits after a code of two
        rng.shuffle(symbols)
    codes, dc = _codes(symbols, lengths), _codes([0, 3], [1, 2])
    bits = ""
    for _ in range(BLOCKS):
        value = rng.choice([0, -7, 5, 4])
        bits += dc[3 if value else 0] + _extra(value, 3 if value else 0) + _block(rng, codes)
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return b"".join([
        b"\xff\xd8\xff\xdb\x00\x43\x00", bytes([1] * STEPS),
        b"\xff\xc0\x00\x0b\x08\x00\x08", (8 * BLOCKS).to_bytes(2, "big"), b"\x01\x01\x11\x00",
        _table(0x00, [0, 3], [1, 2]), _table(0x10, symbols, lengths),
        b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00", scan, b"\xff\xd9",
    ])  # fmt: skip


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_codes_of_all_lengths(engine, portable_engine, lengths):
    for seed in range(20):
        jpeg = _jpeg(seed, lengths)
        width = 8 * BLOCKS
        want = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
        blob = indexed.index(jpeg)
        assert blob is not None
        for decoder in (engine, portable_engine):
            for form in (jpeg, blob):
                got = decode(decoder, [form], [(0, 0, width, 8)], [False], width, 8)[0]
                assert np.abs(got - want).max() <= 1
