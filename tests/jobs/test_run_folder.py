"""What a run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distrain.config.load import load
from tests.jobs.support import Launch, distrain


def test_a_run_on_two_ranks_keeps_everything(launch: Launch, recipe: Path) -> None:
    job = launch("--np", "2", "train.tensorboard=true")
    assert job.code == 0, job.err
    folder = job.folder
    assert load(folder / "config.yaml").train == load(recipe, ["train.tensorboard=true"]).train
    assert "mpirun" in (folder / "command.txt").read_text()
    environment = json.loads((folder / "environment.json").read_text())
    assert len(environment["hosts"]) == 2 and environment["torch"] and environment["mpi"]
    logs = [(folder / "logs" / f"rank-000{rank}.log").read_text() for rank in (0, 1)]
    assert "rank 0 of 2" in logs[0] and "rank 1 of 2" in logs[1]
    assert [r["step"] for r in job.metrics("train")] == list(range(1, 9))
    assert [r["step"] for r in job.metrics("eval")] == [8]
    assert list(folder.rglob("events.out.tfevents.*"))
    assert len(list((folder / "checkpoints").glob("step-*.pt"))) == 2
    result = job.result()
    assert result["status"] == "completed" and result["world_size"] == 2 and result["eval_images"] == 355
    assert result["data_share"] + result["compute_share"] + result["comm_share"] == pytest.approx(1)
    # the last lines say what was reached, where, and how the step time split
    for word in ("top-1", "355 held-out images", "data", "compute", "communication", str(folder)):
        assert word in job.out, job.out


def test_a_second_run_never_overwrites_the_first(launch: Launch, recipe: Path) -> None:
    """The first is `distrain train` alone: a run on one rank."""
    first = distrain("train", recipe.name, "train.duration=1st", cwd=recipe.parent)
    assert first.code == 0 and first.folder.name == "job", first.err
    assert first.result()["world_size"] == 1
    kept = (first.folder / "metrics.jsonl").read_bytes()
    second = launch("--np", "1", "train.duration=1st")
    assert second.code == 0 and second.folder.name == "job-2"
    assert (first.runs / "job" / "metrics.jsonl").read_bytes() == kept


def test_dry_run_says_every_number_and_writes_nothing(launch: Launch, recipe: Path) -> None:
    job = launch("--np", "3", "--dry-run")
    assert job.code == 0, job.err
    for text in ("3 ranks", "45 images", "steps per epoch", "memory per node", "mpirun", "-np 3"):
        assert text in job.out, job.out
    assert not job.runs.exists()
