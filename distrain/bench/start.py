"""Starts a benchmark's rank program under the installed mpirun and brings its lines back."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from distrain.errors import LaunchError
from distrain.launch import local, machine, mpi
from distrain.launch.job import Job


def run_ranks(module: str, arguments: Sequence[str], ranks: int) -> list[dict[str, object]]:
    """Run ``python -m module arguments --out FILE`` on so many ranks of this machine.

    The ranks' output goes to stderr, since stdout is for the result alone.

    Returns:
        The JSON objects that rank 0 wrote, in order.

    Raises:
        LaunchError: no MPI, or the job failed.
    """
    found = mpi.find()
    with tempfile.TemporaryDirectory(prefix="distrain-bench-") as folder:
        out = Path(folder) / "lines.jsonl"
        job = Job(
            command=(sys.executable, "-m", module, *arguments, "--out", str(out)),
            np=ranks,
            crowded=2 * ranks > machine.cores(),  # a rank has two busy threads
            as_root=os.geteuid() == 0,
            env={"DISTRAIN_WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"},
        )
        outcome = _run_with_stdout_as_stderr(found.command(job))
        if outcome.code != 0 or not out.exists():
            raise LaunchError(
                "bench",
                f"the benchmark's ranks ended with exit code {outcome.code}",
                "read what they said above",
            )
        return [json.loads(line) for line in out.read_text().splitlines()]


def _run_with_stdout_as_stderr(command: local.Command) -> local.Outcome:
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        return local.run(command)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
