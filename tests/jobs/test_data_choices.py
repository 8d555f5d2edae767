"""What `data.*` may choose, in whole jobs: engines, sizes that grow, images that do not decode."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.jobs.support import Launch
from tests.jobs.trainings import Trainings

HAS_DALI = bool(importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"))


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed (pip install 'distrain[dali]')")
def test_dali_trains_as_the_other_engines_do(launch: Launch) -> None:
    results = []
    for engine in ("turbojpeg", "dali"):
        job = launch("--np", "2", "train.duration=60st", "train.device=cpu", f"data.engine={engine}")
        assert job.code == 0, job.err
        results.append(job.result())
    assert results[0]["eval_images"] == results[1]["eval_images"] == 355
    assert abs(results[0]["top1"] - results[1]["top1"]) < 0.1 and results[1]["top1"] > 0.3
    assert abs(results[0]["eval_loss"] - results[1]["eval_loss"]) < 0.2


def test_sizes_that_grow_are_in_the_record(trainings: Trainings) -> None:
    """1,442 images in global batches of 360: 4 steps an epoch."""
    sizes = [record["image_size"] for record in trainings(2, "growing sizes").metrics("train")]
    assert sizes == [8] * 4 + [12] * 4 + [16] * 4


def test_images_that_do_not_decode_are_left_out_and_counted_once(trainings: Trainings) -> None:
    """Four epochs: in a later one another rank may meet an image that the first has left out."""
    training = trainings(2, "skipping")
    assert training.result()["skipped_images"] == 2
    logs = [path.read_text() for path in (training.folder / "logs").iterdir()]
    assert any("image 5 of the shard (index 5): left out" in log for log in logs)


def test_an_image_that_does_not_decode_ends_the_job(launch: Launch, packs: Path) -> None:
    run = ("--np", "2", f"data.train={packs / 'spoilt'}", "data.batch_per_rank=180", "data.last_batch=wrap")
    failed = launch(*run, "train.duration=1ep", "data.on_bad_image=fail")
    assert failed.code == 1
    assert "of the shard (index" in failed.err and "data.on_bad_image=skip" in failed.err
    assert "Traceback" not in failed.err


def test_an_engine_that_cannot_be_used_ends_the_job(launch: Launch) -> None:
    job = launch("--np", "1", "train.device=cpu", "data.engine=nvjpeg")
    assert job.code == 2
    assert "'nvjpeg' decodes on a GPU" in job.err and "data.engine=auto" in job.err
    assert "Traceback" not in job.err
