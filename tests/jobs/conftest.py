"""Fixtures of the job tests: packed digits, a small recipe, a launcher."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distrain.data.ingest import shard_writer
from distrain.data.ingest.convert import Packed, PackOptions, convert
from distrain.data.pack import pack
from distrain.launch import mpi
from tests.jobs import trainings as trainings_of
from tests.jobs.support import RECIPE, Job, Launch, distrain, once
from tests.jobs.trainings import Training, Trainings

SPOILT = (5, 100)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "variant: another guise of what a test of `make test-jobs` holds")


@pytest.fixture(scope="session", autouse=True)
def _mpi_is_there() -> None:
    if mpi.locate() is None:
        pytest.skip("no mpirun beside Python or in PATH")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what tests that run beside each other make once."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def packs(shared: Path) -> Path:
    """A folder with packs `train`, `val` and `spoilt` of the handwritten digits."""

    def make(folder: Path) -> None:
        for arguments in (
            ("digits", "images"),
            ("pack", "imagefolder:images/train", "train", "--short-side", "0", "--json"),
            ("pack", "imagefolder:images/val", "val", "--short-side", "0", "--json"),
        ):
            job = distrain(*arguments, cwd=folder)
            assert job.code == 0, job.err
        spoil(folder / "images" / "train", folder / "spoilt")

    return once(shared / "packs", make)


def spoil(images: Path, out: Path) -> None:
    """Pack images with right checksums, of which those of SPOILT do not decode."""
    number = iter(range(1442))

    def convert_some(data: bytes, options: PackOptions) -> Packed:
        packed = convert(data, options)
        return (
            packed if next(number) not in SPOILT else Packed(packed.data[:200], packed.width, packed.height)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writer, "convert", convert_some)
        pack(f"imagefolder:{images}", out)


@pytest.fixture(scope="session")
def trainings(shared: Path, packs: Path) -> Trainings:
    """``trainings(2, "disk")`` is a finished training of trainings.py, on two ranks."""

    def course(ranks: int, name: str) -> Training:
        long = course(1, "long").folder if ranks > 1 else None
        folder = once(shared / f"on-{ranks}", lambda folder: trainings_of.run(ranks, folder, packs, long))
        return Training(folder / name)

    return course


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
