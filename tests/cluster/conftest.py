"""Emulated machines, a real Slurm over them, and a small recipe on packed digits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distrain.bench import machines as emulated
from distrain.launch import mpi
from tests.cluster import lab

RECIPE = """
name: cluster
seed: 5
model: {{name: resnet8}}
data:
  train: {data}/train
  val: {data}/val
  batch_per_rank: 16
  eval_batch_per_rank: 32
  image_size: 16
  eval_resize: 16
  augment: {{scale: [0.7, 1.0], flip: 0.0}}
  threads: 1
train:
  duration: 6st
  optimizer: {{lr: 0.05, lr_batch: 64}}
  schedule: {{warmup: 0ep, decay: constant}}
  log_every: 1st
  eval_every: 6st
  checkpoint_every: 3st
  tensorboard: false
launch:
  env: {{OMP_NUM_THREADS: 1}}
"""


@pytest.fixture(scope="session")
def machines() -> Iterator[emulated.Machines]:
    """Two machines on one network."""
    reason = emulated.why_not()
    if reason is None and mpi.locate() is None:
        reason = "no mpirun beside Python or in PATH"
    if reason is not None:
        pytest.skip(reason)
    with emulated.Machines(2) as made:
        yield made


@pytest.fixture(scope="session")
def slurm(machines: emulated.Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """Slurm on both machines."""
    reason = lab.why_not()
    if reason is not None:
        pytest.skip(reason)
    with lab.Lab(machines, tmp_path_factory.mktemp("slurm")) as made:
        yield made


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs ``train`` and ``val`` of the handwritten digits."""
    folder = tmp_path_factory.mktemp("packs")
    for words in (
        ("digits", "images"),
        ("pack", "imagefolder:images/train", "train", "--short-side", "0", "--json"),
        ("pack", "imagefolder:images/val", "val", "--short-side", "0", "--json"),
    ):
        subprocess.run(
            [sys.executable, "-m", "distrain", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
    return folder


@pytest.fixture
def project(packs: Path, tmp_path: Path) -> Path:
    """A folder whose name has a blank and a quote, with run.yaml."""
    folder = tmp_path / "it's a project"
    folder.mkdir()
    (folder / "run.yaml").write_text(RECIPE.format(data=packs))
    return folder
