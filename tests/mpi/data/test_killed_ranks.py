"""A job that is killed while it holds a pack leaves nothing in the shared-memory file system."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mpi4py import MPI

from distrain.data.pack import pack

HOLD = """
import os, sys, time
from mpi4py import MPI
from distrain.data.settings import DataSettings
from distrain.data.store import Store
store = Store.open(sys.argv[1], DataSettings(train="-", val="-"), MPI.COMM_WORLD)
with open(f"{sys.argv[2]}/{MPI.COMM_WORLD.rank}.tmp", "w") as file:
    file.write(str(os.getpid()))
os.rename(file.name, file.name[:-4] + ".pid")
time.sleep(60)
"""
# What MPI keeps there for its own messages is its own to clear.
MPIS_OWN = ("sm_segment", "vader_segment", "ucx", "psm", "mpich", "osc_")


def leftovers() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if not name.startswith(MPIS_OWN)}


@pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts a job of its own, once")
def test_a_killed_job_leaves_nothing_behind(tmp_path: Path) -> None:
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpirun is None or not Path("/dev/shm").is_dir():
        pytest.skip("no mpirun or no /dev/shm here")
    (tmp_path / "src/ape").mkdir(parents=True)
    from PIL import Image

    for i in range(3):
        Image.new("RGB", (50, 40), (i * 50, 9, 9)).save(tmp_path / f"src/ape/{i}.jpg")
    pack(f"imagefolder:{tmp_path}/src", tmp_path / "pack")
    (tmp_path / "hold.py").write_text(HOLD)
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("OMPI_COMM", "PMIX_", "PRTE_", "PMI_", "OMPI_MCA_orte"))
    }
    before = leftovers()
    command = [
        mpirun,
        "-np",
        "2",
        sys.executable,
        str(tmp_path / "hold.py"),
        str(tmp_path / "pack"),
        str(tmp_path),
    ]
    job = subprocess.Popen(command, env=clean, stderr=subprocess.DEVNULL)
    while len(pids := sorted(tmp_path.glob("*.pid"))) < 2:
        assert job.poll() is None, "the job ended early"
    for path in pids:
        os.kill(int(path.read_text()), signal.SIGKILL)
    assert job.wait(timeout=60) != 0
    assert leftovers() <= before
