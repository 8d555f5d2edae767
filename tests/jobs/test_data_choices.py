"""What `data.*` may choose, in whole jobs: engines, sizes that grow, images that do not decode."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from distrain.data.ingest import shard_writer
from distrain.data.ingest.convert import Options, Packed, convert
from distrain.data.pack import pack
from tests.jobs.support import Launch

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


def test_sizes_that_grow_are_in_the_record(launch: Launch) -> None:
    """1,442 images in global batches of 360: 4 steps an epoch."""
    job = launch(
        "--np", "2", "data.batch_per_rank=180", "train.duration=3ep",
        "data.image_size_from={0: 8, 1: 12, 2: 16}",
    )  # fmt: skip
    assert job.code == 0, job.err
    sizes = [record["image_size"] for record in job.metrics("train")]
    assert sizes == [8] * 4 + [12] * 4 + [16] * 4


BAD = (5, 100)


@pytest.fixture
def spoilt(packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training pack with right checksums, of which two images do not decode."""
    number = iter(range(1442))

    def spoil(data: bytes, options: Options) -> Packed:
        packed = convert(data, options)
        return packed if next(number) not in BAD else Packed(packed.data[:200], packed.width, packed.height)

    monkeypatch.setattr(shard_writer, "convert", spoil)
    pack(f"imagefolder:{packs / 'images' / 'train'}", tmp_path / "spoilt")
    return tmp_path / "spoilt"


def test_images_that_do_not_decode_are_left_out_and_counted_once(launch: Launch, spoilt: Path) -> None:
    """Two epochs: in the second another rank may meet an image that the first has left out."""
    run = ("--np", "2", f"data.train={spoilt}", "data.batch_per_rank=180", "train.duration=4ep")
    job = launch(*run, "data.on_bad_image=skip", "data.last_batch=wrap")
    assert job.code == 0, job.err
    assert job.result()["skipped_images"] == 2
    assert "image 5 of the shard (index 5): left out" in job.err + job.out
    failed = launch(*run, "data.on_bad_image=fail", "data.last_batch=wrap")
    assert failed.code == 1
    assert "of the shard (index" in failed.err and "data.on_bad_image=skip" in failed.err
    assert "Traceback" not in failed.err


def test_an_engine_that_cannot_be_used_ends_the_job(launch: Launch) -> None:
    job = launch("--np", "2", "train.device=cpu", "data.engine=nvjpeg")
    assert job.code == 2
    assert "'nvjpeg' decodes on a GPU" in job.err and "data.engine=auto" in job.err
    assert "Traceback" not in job.err
