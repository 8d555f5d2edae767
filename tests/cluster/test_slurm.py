"""``launch.target: slurm``, submitted to a real Slurm: two nodes, two ranks each."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.cluster.lab import PLUGIN, Lab

SHAPE = (
    "launch.target=slurm",
    "launch.slurm.nodes=2",
    "launch.slurm.ranks_per_node=2",
    "launch.slurm.time=10",
)


def launch(slurm: Lab, project: Path, *words: str) -> CompletedProcess[str]:
    return slurm.user([sys.executable, "-m", "distrain", "launch", "run.yaml", *SHAPE, *words], project)


def submit(slurm: Lab, project: Path, *words: str) -> str:
    submitted = launch(slurm, project, *words)
    assert submitted.returncode == 0, submitted.stderr
    return submitted.stdout.strip()


def log_of(run: Path, job: str) -> str:
    return (run / f"slurm-{job}.out").read_text()


def result_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text())
    return found


@pytest.mark.parametrize("starter", ["mpirun", "srun"])
def test_a_job_completes(slurm: Lab, project: Path, starter: str) -> None:
    if starter == "srun" and not PLUGIN.exists():
        pytest.skip(f"srun --mpi=pmix needs {PLUGIN} (package libpmix-dev)")
    job = submit(
        slurm, project, f"launch.slurm.starter={starter}", "launch.slurm.setup=['export COLOR=\"a b\"']"
    )
    state = slurm.wait(job)
    run = project / "runs" / "cluster"
    assert (state["JobState"], state["ExitCode"]) == ("COMPLETED", "0:0"), log_of(run, job)
    assert result_of(run)["world_size"] == 4 and result_of(run)["status"] == "completed"
    assert json.loads((run / "environment.json").read_text())["hosts"] == ["h0", "h0", "h1", "h1"]
    assert (run / "command.txt").read_text().splitlines()[1].startswith("sbatch ")


def test_a_stopped_job_goes_back_into_the_queue_and_on(slurm: Lab, project: Path) -> None:
    """SIGUSR1, as Slurm sends it before the time limit: checkpoint, requeue, resume, completed."""
    job = submit(
        slurm, project, "train.duration=80st", "train.eval_every=80st", "train.checkpoint_every=80st"
    )
    run = project / "runs" / "cluster"
    metrics = run / "metrics.jsonl"
    until = time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3):
        assert time.monotonic() < until and slurm.state(job)["JobState"] in (
            "PENDING",
            "RUNNING",
            "CONFIGURING",
        )
        time.sleep(0.1)
    assert slurm.user(["scancel", "--batch", "--signal=USR1", job]).returncode == 0
    state = slurm.wait(job)
    log = log_of(run, job)
    assert (state["JobState"], state["Restarts"]) == ("COMPLETED", "1"), log
    assert "stopped with a checkpoint; back into the queue" in log and "start 1" in log
    result = result_of(run)
    assert result["status"] == "completed" and result["steps"] == 80
    assert 3 <= result["resumed_from"] < 80


def test_a_failing_job_fails_and_says_why_last(slurm: Lab, project: Path) -> None:
    job = submit(slurm, project, "data.train=nowhere")
    state = slurm.wait(job)
    assert (state["JobState"], state["ExitCode"]) == ("FAILED", "1:0")
    last = log_of(project / "runs" / "cluster", job).split("failed first ----")[1]
    assert "nowhere: there is no pack here" in last


def test_ranks_that_do_not_find_each_other_are_an_error(slurm: Lab, project: Path) -> None:
    """srun without the right --mpi starts worlds of one rank; Slurm alone would call that completed."""
    job = submit(slurm, project, "launch.slurm.starter=srun", "launch.slurm.srun_mpi=none")
    state = slurm.wait(job)
    run = project / "runs" / "cluster"
    assert state["JobState"] == "FAILED", log_of(run, job)
    assert "DISTRAIN_WORLD_SIZE=4" in log_of(run, job) and not (run / "result.json").exists()


def test_what_slurm_refuses(slurm: Lab, project: Path) -> None:
    refused = launch(slurm, project, "launch.slurm.partition=moon")
    assert refused.returncode == 1
    assert "sbatch refuses it" in refused.stderr and "invalid partition" in refused.stderr
