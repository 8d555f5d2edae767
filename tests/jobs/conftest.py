"""Fixtures of the job tests: packed digits, a small recipe, a launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrain.launch import mpi
from tests.jobs.support import RECIPE, Job, Launch, distrain


@pytest.fixture(scope="session", autouse=True)
def _mpi_is_there() -> None:
    if mpi.locate() is None:
        pytest.skip("no mpirun beside Python or in PATH")


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packs `train` and `val` of the handwritten digits."""
    folder = tmp_path_factory.mktemp("packs")
    for arguments in (
        ("digits", "images"),
        ("pack", "imagefolder:images/train", "train", "--short-side", "0", "--json"),
        ("pack", "imagefolder:images/val", "val", "--short-side", "0", "--json"),
    ):
        job = distrain(*arguments, cwd=folder)
        assert job.code == 0, job.err
    return folder


@pytest.fixture
def recipe(packs: Path, tmp_path: Path) -> Path:
    """A small recipe in a folder of its own."""
    path = tmp_path / "job.yaml"
    path.write_text(RECIPE.replace("TRAIN", str(packs / "train")).replace("VAL", str(packs / "val")))
    return path


@pytest.fixture
def launch(recipe: Path) -> Launch:
    """`launch("--np", "2", "train.duration=4st", SOME_VARIABLE="x")` runs the small recipe."""

    def run(*arguments: str, **more: str) -> Job:
        return distrain("launch", recipe.name, *arguments, cwd=recipe.parent, **more)

    return run
