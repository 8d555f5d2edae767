"""A run that was cut off and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from distrain.train import checkpoint
from tests.jobs.support import Launch, environment
from tests.jobs.trainings import COURSES, Trainings
from tests.ranks import killed_code

TIMEOUT_SECONDS = 180  # of a start, or an end, on a machine that does much else


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.newest_valid(folder / "checkpoints")
    assert found is not None
    state: dict[str, torch.Tensor] = checkpoint.unpack(found[1])["model"]
    return state


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_kill_and_resume_is_bit_identical(launch: Launch, trainings: Trainings) -> None:
    """48 steps are an epoch; the checkpoint is of step 50; rank 1 is killed after step 52; the resumed
    run repeats 51 and 52, in the middle of the second epoch, with the same images."""
    whole = trainings(2, "two epochs")
    options = COURSES[2]["two epochs"]
    cut = launch("--np", "2", *options, DISTRAIN_FAULT="rank=1,step=52,kind=kill")
    assert cut.code == killed_code(), cut.err
    assert not (cut.folder / "result.json").exists()
    resumed = launch("--np", "2", *options, "--resume", "auto")
    assert resumed.code == 0, resumed.err
    assert resumed.folder == cut.folder and resumed.result()["resumed_from"] == 50
    assert [r["loss"] for r in resumed.metrics("train") if r["step"] > 50][-4:] == whole.losses()[50:]
    assert same_bits(parameters(resumed.folder), parameters(whole.folder))


def test_another_seed_gives_other_bits(trainings: Trainings) -> None:
    one, other = (parameters(trainings(2, name).folder) for name in ("plain", "another seed"))
    assert not same_bits(one, other)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 85)])
def test_a_request_stops_with_a_checkpoint(recipe: Path, number: signal.Signals, code: int) -> None:
    command = [
        sys.executable,
        "-m",
        "distrain",
        "launch",
        recipe.name,
        "--np",
        "2",
        "train.duration=100000st",
    ]
    process = subprocess.Popen(
        command,
        cwd=recipe.parent,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    metrics = recipe.parent / "runs" / "job" / "metrics.jsonl"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        while not (metrics.exists() and '"step": 3' in metrics.read_text()):
            if process.poll() is not None:
                pytest.fail(process.communicate()[1])
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        process.kill()  # its ranks follow it
    assert process.returncode == code, err
    assert "stopping after this step or batch of an evaluation, with a checkpoint" in err
    step = checkpoint.listed(metrics.parent / "checkpoints")[0].name
    assert step.startswith("step-")
    assert not _alive(str(recipe.parent))


def _alive(marker: str) -> list[str]:
    """Command lines of processes that still belong to the job."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if marker in line and "pytest" not in line:
            found.append(line)
    return found
