"""Bad input: a clear error, the right exit code, no hang, nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.jobs.support import Launch, distrain


def test_unknown_key_names_the_nearest(launch: Launch) -> None:
    job = launch("--np", "2", "train.optimizer.momentun=0.8")
    assert job.code == 2
    assert "'train.optimizer.momentun' (did you mean 'train.optimizer.momentum'?)" in job.err
    assert "Traceback" not in job.err and not job.runs.exists()


def test_missing_data_set(launch: Launch) -> None:
    job = launch("--np", "2", "data.train=nowhere")
    assert job.code == 2
    assert "nowhere" in job.err and "distrain pack" in job.err
    assert "Traceback" not in job.err


@pytest.mark.parametrize("ranks", [pytest.param("1", marks=pytest.mark.variant), "2"])
def test_flipped_byte_names_shard_and_image(launch: Launch, packs: Path, tmp_path: Path, ranks: str) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(packs / "train", bad)
    shard = sorted(bad.glob("shard-*"))[-1]
    data = bytearray(shard.read_bytes())
    data[-5000] ^= 0x10
    shard.write_bytes(data)
    job = launch("--np", ranks, f"data.train={bad}")
    assert job.code == 1
    assert shard.name in job.err and "image" in job.err and "Traceback" not in job.err


def test_fewer_images_than_a_global_batch(launch: Launch) -> None:
    job = launch("--np", "2", "data.batch_per_rank=1000")
    assert job.code == 2
    assert "1442" in job.err and "2,000" in job.err.replace("2000", "2,000")
    assert "data.batch_per_rank" in job.err


def test_world_of_one_where_two_were_launched(recipe: Path) -> None:
    """What srun and an mpirun of another MPI do: each process is a world of its own."""
    job = distrain("train", recipe.name, cwd=recipe.parent, DISTRAIN_WORLD_SIZE="2")
    assert job.code == 1
    assert "size=1" in job.err and "DISTRAIN_WORLD_SIZE=2" in job.err and "mpirun" in job.err


def test_packs_of_other_classes(launch: Launch, packs: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in "01234567":
        shutil.copytree(packs / "images" / "val" / name, tree / name)
    assert distrain("pack", f"imagefolder:{tree}", "eight", "--short-side", "0", cwd=tmp_path).code == 0
    job = launch("--np", "2", f"data.val={tmp_path / 'eight'}")
    assert job.code == 2
    assert "8 classes" in job.err and "10" in job.err and "8, 9" in job.err


def test_run_without_enough_memory_says_so_before_loading(
    launch: Launch, packs: Path, tmp_path: Path
) -> None:
    """A manifest that promises a shard of 2**50 bytes; nothing of it is read."""
    huge = tmp_path / "huge"
    shutil.copytree(packs / "train", huge)
    manifest = json.loads((huge / "manifest.json").read_text())
    manifest["shards"][0]["payload_bytes"] = 2**50
    (huge / "manifest.json").write_text(json.dumps(manifest))
    job = launch("--np", "2", f"data.train={huge}")
    assert job.code == 2
    assert "bytes" in job.err and "are free" in job.err and "data.memory=disk" in job.err
    assert "step 1 " not in job.err
