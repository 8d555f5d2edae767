"""The same arithmetic on any number of ranks."""

from __future__ import annotations

import pytest

from tests.jobs.trainings import Trainings


def test_two_ranks_with_b_equal_one_rank_with_2b(trainings: Trainings) -> None:
    """Group normalisation: no image sees another, so only the order of sums differs."""
    two = trainings(2, "group").losses()
    assert two == pytest.approx(trainings(1, "group").losses(), rel=1e-4)
    assert len(two) == 8 and two[0] != two[-1]


def test_batch_norm_over_ranks_is_batch_norm_over_micro_batches(trainings: Trainings) -> None:
    """Batch normalisation sees one rank's images: 2 ranks with b are 1 rank with 2 micro-batches of b,
    and are not 1 rank with one batch of 2b."""
    ranks = trainings(2, "plain").losses()
    micro = trainings(1, "micro-batches").losses()
    whole = trainings(1, "whole batch").losses()
    assert ranks == pytest.approx(micro, rel=1e-5)
    assert gap(ranks, whole) > 20 * gap(ranks, micro)


def gap(a: list[float], b: list[float]) -> float:
    """The largest difference between two courses of the loss."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("algorithm", ["ring", "multicolor_ring"])
def test_algorithms_give_the_same_training(trainings: Trainings, algorithm: str) -> None:
    three = trainings(3, algorithm)
    assert f" by {algorithm}" in three.log()
    assert three.losses() == pytest.approx(trainings(1, "group").losses(), rel=1e-4)
