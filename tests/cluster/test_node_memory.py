"""Two machines with two ranks each: memory inside the machines, messages between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from distrain.bench.machines import Machines


def test_sums_are_right_and_go_through_the_memory_of_the_machines(machines: Machines) -> None:
    """The benchmark checks every sum; on a link of 1 Gbit/s the formulas pick the hierarchical algorithms."""
    words = ["bench", "allreduce", "--ranks", "4", "--machines", "2", "--bytes", "4KiB,1MiB,8MiB"]
    environ = {n: v for n, v in os.environ.items() if not n.startswith(("OMPI_", "PMIX_", "PRTE_", "SLURM_"))}
    job = subprocess.run(
        [sys.executable, "-m", "distrain", *words, "--against", "mpi", "--iterations", "3", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert job.returncode == 0, job.stderr
    lines = [json.loads(text) for text in job.stdout.splitlines() if text.startswith("{")]
    ours = [line for line in lines if line["name"] == "distrain"]
    assert all(line["correct"] for line in lines) and len(ours) == 3
    for line in ours:
        assert line["algorithm"].startswith("memory of the nodes, "), line
