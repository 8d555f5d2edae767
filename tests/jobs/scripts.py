"""Jobs of a script that a test writes: ranks under mpirun, without `distrain launch`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.ranks import command

TIMEOUT_SECONDS = 120  # a start is four seconds, on a machine that does much else a minute
FOREIGN = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "SLURM_")  # an outer job's variables mislead the inner one


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what an outer job says to its ranks."""
    return {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)} | more


def start(ranks: int, folder: Path, script: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start a script on some ranks; what the ranks of Open MPI leave behind lies in `folder`."""
    env = environment()
    # Open MPI leaves the mailboxes of killed ranks behind: here, where pytest clears them away.
    env |= {"OMPI_MCA_btl_sm_backing_directory": str(folder), "OMP_NUM_THREADS": "1", **more}
    path = folder / "script.py"
    path.write_text(script)
    built = command(ranks, (sys.executable, str(path), *arguments), env)
    return subprocess.Popen(
        built.argv, env=env | built.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def mpirun(script: str, folder: Path, ranks: int = 2, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a script on some ranks to its end."""
    job = start(ranks, folder, script, **more)
    try:
        out, err = job.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        job.kill()
    return subprocess.CompletedProcess(job.args, job.returncode, out, err)
