"""A rank that fails ends the whole job: soon, with its traceback last, and not with success."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from distrain.timeline_reader import read, steps_of
from distrain.world import rank_name
from tests.jobs.scripts import mpirun
from tests.jobs.support import Launch
from tests.ranks import killed_code


def test_exception_on_one_rank(launch: Launch) -> None:
    """The traceback is the last that is said, and the traces of all ranks are there."""
    job = launch("--np", "2", "comm.timeline=true", DISTRAIN_FAULT="rank=1,step=4,kind=raise")
    assert job.code == 1
    lines = job.err.rstrip().splitlines()
    assert "rank 1 failed first" in job.err and job.err.count("Traceback") == 1
    assert "step 4" in lines[-1] and "InjectedFault" in lines[-1], job.err
    assert not (job.folder / "result.json").exists()
    traces = [read(job.folder / "trace" / f"{rank_name(rank)}.json") for rank in range(2)]
    assert all(traces) and [times.step for times in steps_of(traces[1])][:2] == [1, 2]


@pytest.mark.variant  # of the killed rank below
def test_rank_that_vanishes(launch: Launch) -> None:
    job = launch("--np", "2", DISTRAIN_FAULT="rank=1,step=2,kind=exit")
    assert job.code == 3, job.err


def test_stalled_rank_is_named_and_the_job_ends(launch: Launch) -> None:
    job = launch(
        "--np", "2", "comm.stall_seconds=1s", "comm.abort_seconds=4s",
        DISTRAIN_FAULT="rank=1,step=2,kind=stall",
    )  # fmt: skip
    assert job.code != 0
    assert "rank" in job.err and "1" in job.err and "allreduce" in job.err


SLOW_WRITE = """
import os, sys, time
from distrain.config.load import load
from distrain.train import checkpoint
from distrain.worker.run import main

save = checkpoint.save
def slowly(*words):
    time.sleep(4)
    return save(*words)
checkpoint.save = slowly
limits = ["comm.stall_seconds=1s", "comm.abort_seconds=2s"]
sys.exit(main(load(os.environ["RECIPE"], ["train.duration=1st", *limits])))
"""


def test_a_slow_write_of_a_checkpoint_is_not_taken_for_a_hang(recipe: Path, tmp_path: Path) -> None:
    job = mpirun(SLOW_WRITE, tmp_path, RECIPE=str(recipe), DISTRAIN_RUN_DIR=str(tmp_path))
    assert job.returncode == 0, job.stderr
    assert "has been waiting" not in job.stderr and list((tmp_path / "checkpoints").glob("*.pt"))


def test_a_killed_rank_leaves_nothing_in_shared_memory(launch: Launch) -> None:
    before = set(Path("/dev/shm").iterdir())
    job = launch("--np", "2", DISTRAIN_FAULT="rank=0,step=2,kind=kill")
    assert job.code == killed_code()

    def left() -> set[Path]:
        return {p for p in Path("/dev/shm").iterdir() if p not in before and "distrain" in p.name}

    until = time.monotonic() + 30
    while left() and time.monotonic() < until:  # jobs of tests beside this one come and go
        time.sleep(0.1)
    assert not left()
