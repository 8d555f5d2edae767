"""Starting a job on emulated machines the way a user does, and looking at what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from distrain.bench.machines import Machines
from distrain.launch import mpi

HIDDEN = ("SLURM_", "OMPI_", "PMIX_", "PRTE_", "PMI_", "DISTRAIN_")


def launch(machines: Machines, project: Path, *words: str) -> subprocess.CompletedProcess[Any]:
    """Run the launcher on h0; what belongs to this network only goes through launch.mpirun_args."""
    path = mpi.locate()
    assert path is not None
    extra = machines.starter_args(mpi.find().name)
    environ = {n: v for n, v in os.environ.items() if n == "DISTRAIN_MPIRUN" or not n.startswith(HIDDEN)}
    command = [sys.executable, "-m", "distrain", "launch", "run.yaml", "--hosts", "my hosts.txt", *words]
    return machines.run(
        "h0",
        [*command, f"launch.mpirun_args={json.dumps(extra)}"],
        project,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
