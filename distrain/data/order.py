"""Which image is where in an epoch: pure functions of (seed, epoch, position).

The order of an epoch is a keyed permutation that is computed, not stored: any position costs the
same small time, so resuming in the middle of an epoch of a billion images is immediate, and ranks
need no messages to agree.
"""

from __future__ import annotations

import math

import numpy as np

from distrain.data.hashing import key, mix
from distrain.errors import ConfigError
from distrain.world import split

_ROUNDS = 8


class EpochOrder:
    """A permutation of ``range(count)`` for one epoch.

    The position is written as ``left * width + right``; rounds add to each half, in turn, a keyed
    hash of the other half. That is an alternating Feistel network over a domain which need not be
    a power of two; the few results in ``[count, height * width)`` are walked on along their cycle
    until they fall below ``count`` (Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
    CT-RSA 2002, sections 4 and 5).

    Args:
        seed: of the run.
        epoch: number of the epoch; every epoch has its own permutation.
        count: number of images, at least 1.
    """

    def __init__(self, seed: int, epoch: int, count: int) -> None:
        if count < 1:
            raise ConfigError(
                "order", f"count={count} images cannot be ordered", "give a data set with images"
            )
        self.count = count
        self._height = math.isqrt(count - 1) + 1
        self._width = -(-count // self._height)
        self._keys = [key(seed, epoch, number) for number in range(_ROUNDS)]

    def _permute(self, positions: np.ndarray) -> np.ndarray:
        height, width = np.uint64(self._height), np.uint64(self._width)
        left, right = positions // width, positions % width
        for number, round_key in enumerate(self._keys):
            if number % 2 == 0:
                left = (left + mix(right + round_key) % height) % height
            else:
                right = (right + mix(left + round_key) % width) % width
        return left * width + right

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """Return the image index at each position.

        Args:
            positions: whole numbers [N], each in ``[0, count)``.

        Returns:
            int64 [N], each in ``[0, count)``.
        """
        walked = self._permute(positions.astype(np.uint64))
        outside = np.flatnonzero(walked >= self.count)
        while outside.size:  # height * width < count + 2 * sqrt(count), so few walk and seldom twice
            walked[outside] = self._permute(walked[outside])
            outside = outside[walked[outside] >= self.count]
        return walked.astype(np.int64)


def steps_per_epoch(count: int, global_batch: int, last_batch: str) -> int:
    """Return the number of global batches in an epoch.

    Args:
        count: number of images.
        global_batch: images per step over all ranks.
        last_batch: ``drop`` leaves the incomplete last global batch out, ``wrap`` fills it from the
            start of the same epoch. Either way all batches are full, on every rank.

    Raises:
        ConfigError: there are fewer images than one global batch.
    """
    if count < global_batch:
        raise ConfigError(
            "data.batch_per_rank",
            f"the training set has {count} images, fewer than one global batch of {global_batch}",
            "lower data.batch_per_rank or the number of ranks",
        )
    return count // global_batch if last_batch == "drop" else -(-count // global_batch)


def rank_positions(
    step: int | np.ndarray, rank: int, ranks: int, batch_per_rank: int, count: int
) -> np.ndarray:
    """Return the positions that a rank takes at a step: int64 [batch_per_rank]; of steps [S]: [S, batch].

    Global batch ``s`` is positions ``[s*G, (s+1)*G)`` with ``G = ranks * batch_per_rank``; the rank
    takes the r-th contiguous part. Positions past the end wrap to the start of the epoch.
    """
    start = (np.asarray(step, np.int64) * ranks + rank) * batch_per_rank
    return (start[..., None] + np.arange(batch_per_rank)) % count


def eval_part(count: int, rank: int, ranks: int) -> range:
    """Return the images that a rank evaluates: each image in exactly one part, parts may be empty."""
    return split(count, ranks)[rank]
