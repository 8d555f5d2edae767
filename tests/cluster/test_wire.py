"""Collectives by messages between emulated hosts: a cable pulled, a rank stopped, ranks that disagree."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distrain.bench.machines import Machines, why_not
from distrain.launch import mpi
from tests.cluster.support import SECONDS, begin, outcome

HOSTS = 3
PROGRAM = """
import os, pathlib, sys
import torch, torch.distributed as dist
import distrain
from distrain.comm.settings import CommSettings

folder, different = pathlib.Path(sys.argv[1]), sys.argv[2]
world = distrain.init_process_group(CommSettings(stall_seconds=1.0, abort_seconds=6.0))
(folder / f"pid{world.rank}").write_text(str(os.getpid()))
for number in range(1_000_000):
    values = torch.full((50_000,), float(world.rank + number))
    if number == 20 and world.rank == 2 and different:
        if different == "kind":
            dist.broadcast(values, 0)
        elif different == "dtype":
            dist.all_reduce(values.to(torch.int32))
        elif different == "reduction":
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        elif different == "loop":
            while True:
                pass
    if different == "root" and number == 20:
        dist.reduce(values, 1 if world.rank == 2 else 0)
    dist.all_reduce(values)
    assert values[0] == 3 * number + 3 and values[-1] == values[0], values
    if number == 20 and world.rank == 0:
        (folder / "going").touch()
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Machines]:
    """Three machines with two cards each: the second can be lost and the first still carries questions."""
    reason = why_not()
    if reason is None and (mpi.locate() is None or mpi.find().name != "openmpi5"):
        reason = "needs Open MPI 5: others do not spread messages over both cards"
    if reason is not None:
        pytest.skip(reason)
    with Machines(HOSTS, rails=2, base="10.95") as made:
        yield made


def start(hosts: Machines, folder: Path, different: str = "") -> subprocess.Popen[str]:
    """Start a rank on each host; they sum until something breaks."""
    return begin(hosts, folder, PROGRAM, different)


def wait_for(path: Path, job: subprocess.Popen[str]) -> None:
    """Wait until a rank has made a file."""
    end = time.monotonic() + SECONDS
    while not path.exists():
        assert job.poll() is None and time.monotonic() < end, job.communicate(timeout=10)
        time.sleep(0.05)


def test_a_cut_cable_is_reported_and_ends_the_job(hosts: Machines, tmp_path: Path) -> None:
    job = start(hosts, tmp_path)
    wait_for(tmp_path / "going", job)
    hosts.plug("h2", rail=1, up=False)
    try:
        text = outcome(job)
    finally:
        hosts.plug("h2", rail=1)
    assert "has been waiting for" in text and "allreduce number" in text, text
    assert "ending the job" in text, text
    assert "rank 2" in text or "ranks [2]" in text, text


def test_a_stopped_rank_is_named_and_ends_the_job(hosts: Machines, tmp_path: Path) -> None:
    job = start(hosts, tmp_path)
    wait_for(tmp_path / "going", job)
    pid = int((tmp_path / "pid2").read_text())
    os.kill(pid, signal.SIGSTOP)
    text = outcome(job)
    assert "rank 2 on h2: it does not answer: stopped" in text, text
    assert "ending the job" in text, text


def test_a_rank_in_an_endless_loop_is_named_with_its_line(hosts: Machines, tmp_path: Path) -> None:
    text = outcome(start(hosts, tmp_path, "loop"))
    assert "rank 2 on h2" in text and "while True:" in text, text
    assert "ending the job" in text, text


@pytest.mark.parametrize(
    ("different", "ours", "theirs"),
    [
        ("kind", "allreduce", "broadcast"),
        ("dtype", "float32", "int32"),
        ("reduction", "(sum)", "(max)"),
        ("root", "root 0", "root 1"),
    ],
)
def test_ranks_that_disagree_are_named_at_once(
    hosts: Machines, tmp_path: Path, different: str, ours: str, theirs: str
) -> None:
    text = outcome(start(hosts, tmp_path, different))
    lines = [line for line in text.splitlines() if "collective number" in line and "called" in line]
    assert lines, text
    assert "rank 2 on h2" in lines[0] and ours in lines[0] and theirs in lines[0], text
    assert "ending the job" not in text, text  # long before anybody's patience ends
