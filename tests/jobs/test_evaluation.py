"""Every held-out image is counted once, on any number of ranks."""

from __future__ import annotations

import shutil

from tests.jobs.support import Launch


def test_evaluation_does_not_depend_on_the_ranks(launch: Launch) -> None:
    """One training, evaluated by 1, 2, 3 and 5 ranks: the same images, the same top-1 and top-5.

    The run is at its last step and has lost its result, so a resume only evaluates; the global batch
    stays 30.
    """
    steps = ("train.duration=40st", "train.checkpoint_every=40st")
    trained = launch("--np", "1", "data.batch_per_rank=30", *steps)
    assert trained.code == 0, trained.err
    expected = trained.result()
    assert expected["eval_images"] == 355 and 0.2 < expected["top1"] < 1
    origin = trained.folder
    for ranks, batch in ((2, 15), (3, 10), (5, 6)):
        copy = origin.with_name(f"on-{ranks}")
        shutil.copytree(origin, copy, ignore=shutil.ignore_patterns("result.json"))
        job = launch("--np", str(ranks), f"data.batch_per_rank={batch}", *steps, "--resume", copy.name)
        assert job.code == 0, job.err
        result = job.result()
        assert job.folder == copy and result["resumed_from"] == 40 and result["world_size"] == ranks
        assert result["eval_images"] == 355
        assert (result["top1"], result["top5"]) == (expected["top1"], expected["top5"])
