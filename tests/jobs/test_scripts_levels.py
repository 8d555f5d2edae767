"""Whole jobs on nodes of the test's making, two ranks each: a broken rank, calls that differ."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distrain.comm import native
from tests.jobs.scripts import mpirun

pytestmark = pytest.mark.skipif(
    not native.build_info()[0], reason=f"exchange in memory: {native.build_info()[1]}"
)
# Another guise of what a case beside it holds: `make test-variants`.
VARIANT = pytest.mark.variant
PREAMBLE = """
import torch, torch.distributed as dist
import distrain
from distrain.comm.process import mpi
from distrain.comm.supervision.faults import fault_point
from distrain.comm.settings import CommSettings
from distrain.world import World
mpi.discover_world = lambda comm: World.of(comm.rank, ["a", "b", "a", "b"])
world = distrain.init_process_group(
    CommSettings(stall_seconds=0.5, abort_seconds=2, algorithm="hierarchical")
)
"""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param("stop", r"missing: rank 3 on b: it does not answer: stopped", marks=VARIANT),
        ("kill", "(?i)signal:? 9"),
    ],
)
def test_a_broken_rank_is_named(tmp_path: Path, kind: str, said: str) -> None:
    before = set(Path("/dev/shm").iterdir())
    script = (
        PREAMBLE
        + """
for step in range(4):
    fault_point(world.rank, step)
    dist.all_reduce(torch.ones(10_000))
print("came through")
"""
    )
    job = mpirun(script, tmp_path, ranks=4, DISTRAIN_FAULT=f"rank=3,step=2,kind={kind}")
    assert job.returncode != 0 and "came through" not in job.stdout
    assert re.search(said, job.stdout + job.stderr), job.stderr
    assert not {path for path in Path("/dev/shm").iterdir() if path not in before and "distrain" in path.name}


@pytest.mark.parametrize(
    ("count", "check"),
    [pytest.param(10, True, marks=VARIANT), pytest.param(10_000, True, marks=VARIANT), (10_000, False)],
)
def test_calls_that_differ_are_named(tmp_path: Path, count: int, check: bool) -> None:
    """Rank 3 passes one element more; without notes its neighbour in memory, rank 1, finds it."""
    script = PREAMBLE.replace("stall_seconds", f"check={check}, stall_seconds").replace(
        "abort_seconds=2", "abort_seconds=20"
    )
    job = mpirun(script + f"dist.all_reduce(torch.ones({count} + world.rank // 3))", tmp_path, ranks=4)
    assert job.returncode == 1
    called = r"called (allreduce|reduce_scatter) \(sum\).*? of \d+ elements.* called .*? of \d+ elements"
    found = re.search(called, job.stderr)
    assert found, job.stderr
    assert f"{count} elements" in found[0] and f"{count + 1} elements" in found[0]


@pytest.mark.parametrize("between", ["hierarchical", pytest.param("halving_doubling", marks=VARIANT)])
def test_quick_calls_that_differ_are_named(tmp_path: Path, between: str) -> None:
    """Sizes and types agree, so that only the tags of the messages differ: a sum here, a maximum there."""
    script = (
        PREAMBLE.replace('algorithm="hierarchical"', f'algorithm="{between}"')
        + """
for number in range(3):
    for op in (dist.ReduceOp.SUM, dist.ReduceOp.MAX):
        dist.all_reduce(torch.ones(1000), op=op)
assert world.size == 4 and dist.group.WORLD._wire.quick.calls == 4
dist.all_reduce(torch.ones(1000), op=dist.ReduceOp.MAX if world.rank in (1, 3) else dist.ReduceOp.SUM)
print("went on", flush=True)
"""
    )
    job = mpirun(script, tmp_path, ranks=4)
    assert job.returncode == 1 and "went on" not in job.stdout
    assert re.search(r"called allreduce \(sum\) of 1000 elements of float32", job.stderr), job.stderr
    assert re.search(r"called allreduce \(max\) of 1000 elements of float32", job.stderr), job.stderr
