"""Starting a job of its own from a test that is run by one rank."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INHERITED = ("OMPI_COMM", "PMIX_", "PRTE_", "PMI_")


def start(ranks: int, folder: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a script on some ranks; what the ranks of Open MPI leave behind lies in `folder`."""
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpirun is None:
        pytest.skip("no mpirun here")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(INHERITED)}
    # Open MPI leaves the mailboxes of killed ranks behind: here, where pytest clears them away.
    clean["OMPI_MCA_btl_sm_backing_directory"] = str(folder)
    clean |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # in containers
    path = folder / "job.py"
    path.write_text(script)
    command = [mpirun, "--oversubscribe", "--bind-to", "none", "-np", str(ranks), sys.executable, str(path)]
    return subprocess.Popen(
        [*command, *arguments], env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
