"""Counter-based randomness: a number is a hash of what it is for, not of what was drawn before.

The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom
Number Generators", OOPSLA 2014, section 3), vectorised over numpy arrays. With it order and
augmentation are pure functions of (seed, epoch, image): the same for any number of ranks and threads.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd: steps visit all 2**64 states
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def mix(words: np.ndarray) -> np.ndarray:
    """Return a bijective scrambling of 64-bit words: uint64 in, uint64 of the same shape out."""
    z = words ^ (words >> np.uint64(30))
    z *= _MULTIPLY_1
    z ^= z >> np.uint64(27)
    z *= _MULTIPLY_2
    z ^= z >> np.uint64(31)
    return z


@lru_cache(maxsize=256)  # the same few for every batch of an epoch
def key(*parts: int) -> np.ndarray:
    """Return one 64-bit key, uint64 [1], read-only, made of some whole numbers, e.g. a seed and an epoch.

    The order of the parts matters: ``key(1, 2)`` and ``key(2, 1)`` are unrelated.
    """
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = mix((state + _GOLDEN) ^ np.uint64(part & _MASK))
    state.setflags(write=False)
    return state


def streams(root: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return one key for each name (say, image index) under a root key: uint64 of the shape of names."""
    return mix(root + (names.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def uniforms(keys: np.ndarray, count: int, first: int = 0) -> np.ndarray:
    """Return numbers ``first`` to ``first + count - 1`` of each key.

    float64 [len(keys), count] in [0, 1), 53 random bits each.
    """
    steps = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * _GOLDEN
    words = mix(keys[:, None] + steps[None, :])
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
