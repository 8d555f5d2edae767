"""A job that is killed while it holds a pack leaves nothing in the shared-memory file system."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mpi4py import MPI
from PIL import Image

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


def holders(content: bytes) -> list[str]:
    """Files of the shared-memory file system that hold these bytes."""
    found = []
    for path in Path("/dev/shm").iterdir():
        try:
            if path.is_file() and content in path.read_bytes():
                found.append(path.name)
        except FileNotFoundError:  # of another job that ends just now
            continue
    return found


@pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts a job of its own, once")
def test_a_killed_job_leaves_nothing_behind(tmp_path: Path) -> None:
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpirun is None or not Path("/dev/shm").is_dir():
        pytest.skip("no mpirun or no /dev/shm here")
    folder = tmp_path / "src/ape"
    folder.mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (50, 40), (i * 50, 9, 9)).save(folder / f"{i}.jpg", comment=os.urandom(16))
    pack(f"imagefolder:{tmp_path}/src", tmp_path / "pack")
    (tmp_path / "hold.py").write_text(HOLD)
    inherited = ("OMPI_COMM", "PMIX_", "PRTE_", "PMI_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(inherited)}
    # Open MPI leaves the mailboxes of killed ranks behind: here, where pytest clears them away.
    clean["OMPI_MCA_btl_sm_backing_directory"] = str(tmp_path)
    clean |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # in containers
    program = [sys.executable, str(tmp_path / "hold.py"), str(tmp_path / "pack"), str(tmp_path)]
    job = subprocess.Popen([mpirun, "-np", "2", *program], env=clean, stderr=subprocess.DEVNULL)
    while len(pids := sorted(tmp_path.glob("*.pid"))) < 2:
        assert job.poll() is None, "the job ended early"
        time.sleep(0.05)
    for path in pids:
        os.kill(int(path.read_text()), signal.SIGKILL)
    assert job.wait(timeout=60) != 0
    assert holders((folder / "1.jpg").read_bytes()) == []
