"""Finding mpirun: the order of places, what it is, and the errors with the ways out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distrain.errors import ConfigError, LaunchError
from distrain.launch import mpi
from distrain.launch.job import Job


def executable(path: Path, text: str = "#!/bin/sh\nexit 0\n") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = executable(tmp_path / "chosen" / "mpirun")
    on_path = executable(tmp_path / "path" / "mpirun")
    environ = {"DISTRAIN_MPIRUN": chosen, "PATH": str(tmp_path / "path")}
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    assert mpi.locate(environ) == chosen
    del environ["DISTRAIN_MPIRUN"]
    assert mpi.locate(environ) == on_path
    beside = executable(tmp_path / "venv" / "mpirun")
    assert mpi.locate(environ) == beside


def test_nothing_found_names_three_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(LaunchError) as caught:
        mpi.find("auto", {"PATH": str(tmp_path)})
    assert "no MPI found" in str(caught.value)
    for way in ("pip install 'distrain[mpi]'", "module load", "DISTRAIN_MPIRUN"):
        assert way in caught.value.do


def test_wrong_choice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not an executable file; correct or unset it"):
        mpi.locate({"DISTRAIN_MPIRUN": str(tmp_path / "none"), "PATH": ""})


def test_find_asks_mpirun(fake_mpirun: Callable[[str], Path]) -> None:
    path = fake_mpirun("mpirun (Open MPI) 4.1.8")
    found = mpi.find()
    assert (found.path, found.name, found.version) == (str(path), "openmpi4", "mpirun (Open MPI) 4.1.8")
    assert found.prefix == str(path.parent.parent)
    assert mpi.find("mpich").name == "mpich"


def test_unknown_mpi(fake_mpirun: Callable[[str], Path]) -> None:
    fake_mpirun("Spectrum MPI 10")
    with pytest.raises(LaunchError, match=r"it says 'Spectrum MPI 10'; set launch.mpi to"):
        mpi.find()
    assert mpi.find("openmpi4").name == "openmpi4"


def test_mpirun_that_cannot_run(tmp_path: Path) -> None:
    broken = executable(tmp_path / "mpirun", "#!/no/such/interpreter\n")
    with pytest.raises(LaunchError, match="`mpirun --version` failed"):
        mpi.find("auto", {"DISTRAIN_MPIRUN": broken})


def test_intel_finds_its_parts_in_path() -> None:
    intel = mpi.Mpi("/opt/impi/bin/mpirun", "intelmpi", "x")
    assert (
        intel.command(Job(("p",), 1), {"PATH": "/usr/bin"}).env["PATH"]
        == f"/opt/impi/bin{os.pathsep}/usr/bin"
    )
    other = mpi.Mpi("/opt/mpich/bin/mpirun", "mpich", "x")
    assert "PATH" not in other.command(Job(("p",), 1), {"PATH": "/usr/bin"}).env


def test_intels_script_is_passed_by(tmp_path: Path) -> None:
    """A signal ends its mpirun alone, and the ranks go on unseen."""
    script = executable(tmp_path / "bin" / "mpirun")
    intel = mpi.Mpi(script, "intelmpi", "x")
    assert intel.command(Job(("p",), 1), {}).argv[0] == script  # a script of the site, somewhere else
    program = executable(tmp_path / "bin" / "mpiexec.hydra")
    assert intel.command(Job(("p",), 1), {}).argv[0] == program
    assert mpi.Mpi("mpirun", "intelmpi", "as found on the nodes").starter == "mpiexec.hydra"
    assert mpi.Mpi(script, "mpich", "x").starter == script
