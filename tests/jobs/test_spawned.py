"""Processes that a rank starts anew, and which call distrain themselves: they are no ranks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.jobs.scripts import mpirun

HEAD = """
import multiprocessing, torch, torch.distributed as dist
import distrain

def child():
    import distrain.comm.wire  # may be imported
    print("imported", flush=True)
    distrain.init_process_group()
"""
COURSE = """
process = multiprocessing.get_context("spawn").Process(target=child)
process.start()
process.join()
ones = torch.ones(3)
dist.all_reduce(ones)
print("rank", world.rank, "child", process.exitcode, "sum", ones.tolist(), flush=True)
"""
GUARDED = (
    HEAD
    + "if __name__ == '__main__':\n    world = distrain.init_process_group()"
    + COURSE.replace("\n", "\n    ")
)
UNGUARDED = HEAD + "world = distrain.init_process_group()" + COURSE


# Without the variables of its job a process is a world of its own.
BARE = """
    import os, subprocess, sys
    words = ("OMPI_", "PMIX_", "PRTE_", "PMI_")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(words)}
    alone = "import distrain; print('alone', distrain.init_process_group().size, flush=True)"
    if world.rank == 0:
        assert subprocess.run([sys.executable, "-c", alone], env=bare).returncode == 0
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (GUARDED + BARE, ["alone 1"] + ["imported"] * 2),
        pytest.param(UNGUARDED, [], marks=pytest.mark.variant),
    ],
    ids=["guarded", "unguarded"],
)
def test_a_spawned_process_is_told_that_it_is_no_rank(tmp_path: Path, script: str, said: list[str]) -> None:
    """On both ranks the child ends with code 1 and says why; the job goes on: 1 + 1 = 2."""
    job = mpirun(script, tmp_path)
    assert job.returncode == 0, job.stderr
    assert sorted(job.stdout.splitlines()) == said + [
        f"rank {r} child 1 sum [2.0, 2.0, 2.0]" for r in range(2)
    ]
    refused = r"LaunchError: MPI start-up: process \d+ was started by a rank \(process \d+\) and is none"
    assert len(re.findall(refused, job.stderr)) == 2, job.stderr
