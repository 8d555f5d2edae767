"""Ranks that die or stop on another host while images travel: said in words, the job ends, nothing stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distrain.bench.machines import Machines, why_not
from distrain.launch import mpi
from tests.cluster.support import assert_nothing_runs, begin, outcome

# 24 MB a host and epoch, at 20 MB/s: images are on their way all the time.
PROGRAM = """
from mpi4py import MPI
import distrain
from distrain.bench.reshuffle import Exchange
from distrain.comm.settings import CommSettings
from distrain.comm.supervision.faults import fault_point

world = distrain.init_process_group(CommSettings(stall_seconds=1.0, abort_seconds=5.0))
images = Exchange(24_000_000, world, MPI.COMM_WORLD.Dup())
for step in range(1_000_000):
    images.take(1)
    fault_point(world.rank, step)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Machines]:
    reason = why_not()
    if reason is None and mpi.locate() is None:
        reason = "no mpirun beside Python or in PATH"
    if reason is not None:
        pytest.skip(reason)
    with Machines(3, rate="160mbit", base="10.96") as made:
        yield made


def test_a_stopped_rank_is_named_and_ends_the_job(hosts: Machines, tmp_path: Path) -> None:
    text = outcome(begin(hosts, tmp_path, PROGRAM, fault="rank=2,step=70,kind=stop"))
    late = [line for line in text.splitlines() if "exchange of images" in line and "waiting for" in line]
    assert any("images from ranks [2]" in line or "images from ranks [1, 2]" in line for line in late), text
    assert "rank 2 on h2: it does not answer: stopped" in text, text
    assert "ending the job" in text, text
    assert_nothing_runs(hosts)


@pytest.mark.parametrize("kind", ["kill", "raise"])
def test_a_rank_that_dies_ends_the_job(hosts: Machines, tmp_path: Path, kind: str) -> None:
    text = outcome(begin(hosts, tmp_path, PROGRAM, fault=f"rank=2,step=70,kind={kind}"))
    if kind == "raise":
        assert "InjectedFault: rank 2, step 70" in text, text
    else:
        assert "h2" in text, text  # said by mpirun, or by a peer that was cut off
    assert_nothing_runs(hosts)
