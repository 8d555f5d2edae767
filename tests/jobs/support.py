"""Whole jobs as a user starts them: `distrain launch`, mpirun, ranks, run folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 120
RECIPE = """
name: job
seed: 3
model: {name: resnet8, zero_init_last_gamma: false}
data:
  train: TRAIN
  val: VAL
  batch_per_rank: 15
  eval_batch_per_rank: 16
  image_size: 16
  eval_resize: 16
  augment: {scale: [0.7, 1.0], flip: 0.0}
  threads: 1
train:
  duration: 8st
  optimizer: {lr: 0.05, lr_batch: 30}
  schedule: {warmup: 0ep, decay: constant}
  log_every: 1st
  eval_every: 8st
  checkpoint_every: 4st
  tensorboard: false
"""


def metrics(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind in metrics.jsonl of a run folder."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def result(folder: Path) -> dict[str, Any]:
    """result.json of a run folder."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@dataclass
class Job:
    """A finished `distrain` command and the run folder that it was given."""

    code: int
    out: str
    err: str
    runs: Path

    @property
    def folder(self) -> Path:
        """The newest run folder."""
        return max((p for p in self.runs.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind in metrics.jsonl."""
        return metrics(self.folder, kind)

    def result(self) -> dict[str, Any]:
        """result.json."""
        return result(self.folder)


def environment(**more: str) -> dict[str, str]:
    """The environment of a user who knows nothing of us: no variables of an outer job."""
    hidden = ("DISTRAIN_", "OMPI_", "PMIX_", "PRTE_", "PMI_", "SLURM_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def distrain(*arguments: str, cwd: Path, **more: str) -> Job:
    """Run the `distrain` command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "distrain", *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return Job(done.returncode, done.stdout, done.stderr, cwd / "runs")


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, filled by the first of the processes of the tests that want it; the others wait."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.with_suffix(".done")
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


Launch = Callable[..., Job]
