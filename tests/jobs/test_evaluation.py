"""Every held-out image is counted once, on any number of ranks."""

from __future__ import annotations

import pytest

from tests.jobs.trainings import Trainings


@pytest.mark.parametrize("ranks", [2, 3])
def test_evaluation_does_not_depend_on_the_ranks(trainings: Trainings, ranks: int) -> None:
    """One training, evaluated by 1, 2 and 3 ranks: the same images, the same top-1 and top-5.

    The run is at its last step and has lost its result, so a resume only evaluates; the global batch
    stays 30. More ranks: tests/mpi/data/test_evaluation.py.
    """
    expected = trainings(1, "long").result()
    assert expected["eval_images"] == 355 and 0.2 < expected["top1"] < 1
    result = trainings(ranks, "evaluated").result()
    assert result["resumed_from"] == 40 and result["world_size"] == ranks
    assert result["eval_images"] == 355
    assert (result["top1"], result["top5"]) == (expected["top1"], expected["top5"])
