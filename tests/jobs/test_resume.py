"""A run that was cut off and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from distrain.train import checkpoint
from tests.jobs.support import Launch, environment
from tests.ranks import killed_code


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.newest_valid(folder / "checkpoints")
    assert found is not None
    state: dict[str, torch.Tensor] = checkpoint.unpack(found[1])["model"]
    return state


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_kill_and_resume_is_bit_identical(launch: Launch) -> None:
    """Rank 1 is killed after step 6; the checkpoint is of step 4; the resumed run repeats 5 and 6."""
    whole = launch("--np", "2", "name=whole")
    assert whole.code == 0, whole.err
    cut = launch("--np", "2", DISTRAIN_FAULT="rank=1,step=6,kind=kill")
    assert cut.code == killed_code(), cut.err
    assert not (cut.folder / "result.json").exists()
    resumed = launch("--np", "2", "--resume", "auto")
    assert resumed.code == 0, resumed.err
    assert resumed.folder == cut.folder and resumed.result()["resumed_from"] == 4
    expected = parameters(whole.runs / "whole")
    assert same_bits(parameters(resumed.folder), expected)
    other = launch("--np", "2", "name=other", "seed=4")
    assert not same_bits(parameters(other.folder), expected)


def test_resume_in_the_middle_of_an_epoch_sees_the_same_images(launch: Launch) -> None:
    """48 steps are an epoch: step 50 is in the second one."""
    options = ("train.duration=52st", "train.checkpoint_every=25st", "train.eval_every=52st")
    whole = launch("--np", "2", "name=whole", *options)
    cut = launch("--np", "2", *options, DISTRAIN_FAULT="rank=0,step=51,kind=raise")
    assert (whole.code, cut.code) == (0, 1), cut.err
    resumed = launch("--np", "2", *options, "--resume", "auto")
    assert resumed.code == 0 and resumed.result()["resumed_from"] == 50
    losses = [r["loss"] for r in whole.metrics("train") if r["step"] > 50]
    assert [r["loss"] for r in resumed.metrics("train") if r["step"] > 50][-2:] == losses


def test_ctrl_c_stops_with_a_checkpoint_and_can_be_resumed(recipe: Path) -> None:
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
    deadline = time.monotonic() + 60
    while not (metrics.exists() and '"step": 3' in metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (85, 130), err
    assert "stopping after this step, with a checkpoint" in err
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
