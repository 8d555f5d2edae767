"""The same arithmetic on any number of ranks."""

from __future__ import annotations

import pytest

from tests.jobs.support import Launch

GROUP = ("model.norm=group", "train.optimizer.lr=0.01")


def losses(launch: Launch, *arguments: str) -> list[float]:
    job = launch(*arguments)
    assert job.code == 0, job.err
    return [record["loss"] for record in job.metrics("train")]


def test_two_ranks_with_b_equal_one_rank_with_2b(launch: Launch) -> None:
    """Group normalisation: no image sees another, so only the order of sums differs."""
    two = losses(launch, "--np", "2", "data.batch_per_rank=15", *GROUP)
    one = losses(launch, "--np", "1", "data.batch_per_rank=30", *GROUP)
    assert two == pytest.approx(one, rel=1e-4)
    assert two[0] != two[-1]


def test_batch_norm_over_ranks_is_batch_norm_over_micro_batches(launch: Launch) -> None:
    """Batch normalisation sees one rank's images: 2 ranks with b are 1 rank with 2 micro-batches of b,
    and are not 1 rank with one batch of 2b."""
    ranks = losses(launch, "--np", "2", "data.batch_per_rank=15")
    micro = losses(launch, "--np", "1", "data.batch_per_rank=15", "train.accumulate=2")
    whole = losses(launch, "--np", "1", "data.batch_per_rank=30")
    assert ranks == pytest.approx(micro, rel=1e-5)
    assert gap(ranks, whole) > 20 * gap(ranks, micro)


def gap(a: list[float], b: list[float]) -> float:
    """The largest difference between two courses of the loss."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("algorithm", ["ring", "multicolor_ring"])
def test_algorithms_give_the_same_training(launch: Launch, algorithm: str) -> None:
    three = losses(
        launch,
        "--np",
        "3",
        "data.batch_per_rank=10",
        f"comm.algorithm={algorithm}",
        "comm.node_memory=false",
        *GROUP,
    )
    one = losses(launch, "--np", "1", "data.batch_per_rank=30", *GROUP)
    assert three == pytest.approx(one, rel=1e-4)
