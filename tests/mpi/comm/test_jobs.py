"""Whole jobs under mpirun: how they start, and how they end when one rank goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ranks(1), pytest.mark.seconds(120)]

PREAMBLE = """
import sys, torch, torch.distributed as dist
import distrain
from distrain.comm.settings import CommSettings
from distrain.comm.faults import fault_point
"""
# Reduces until a rank breaks at the step that DISTRAIN_FAULT names.
LOOP = (
    PREAMBLE
    + """
world = distrain.init_process_group(CommSettings(stall_seconds=0.5, abort_seconds=SECONDS))
for step in range(6):
    fault_point(world.rank, step)
    dist.all_reduce(torch.ones(1000))
print("rank", world.rank, "came through")
"""
)


def mpirun(script: str, tmp_path: Path, ranks: int = 2, **more: str) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).parent / "mpirun"
    launcher = str(beside) if beside.exists() else shutil.which("mpirun")
    if launcher is None:
        pytest.skip("no mpirun on the path or beside this Python")
    path = tmp_path / "script.py"
    path.write_text(script)
    foreign = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "SLURM_")  # an outer job's variables mislead the inner one
    env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_osc": "^ucx"}
    env |= {"OMPI_MCA_mpi_yield_when_idle": "1", "OMP_NUM_THREADS": "1", **more}
    env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    command = [launcher, "-np", str(ranks), "--oversubscribe", "--bind-to", "none", sys.executable, str(path)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_a_users_script(tmp_path: Path) -> None:
    script = (
        PREAMBLE
        + """
world = distrain.init_process_group()
net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 2))
net(torch.randn(3, 4)).sum().backward()
grads = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
other = grads.clone()
dist.broadcast(other, 0)
assert torch.equal(grads, other)
print("rank", world.rank, "of", world.size, "on", world.nodes, "node")
"""
    )
    job = mpirun(script, tmp_path)
    assert job.returncode == 0, job.stderr
    assert sorted(job.stdout.splitlines()) == ["rank 0 of 2 on 1 node", "rank 1 of 2 on 1 node"]


def test_init_twice_is_an_error_and_again_after_destroy_is_not(tmp_path: Path) -> None:
    script = (
        PREAMBLE
        + """
from distrain.errors import UsageError
for round in range(2):
    world = distrain.init_process_group()
    try:
        distrain.init_process_group()
    except UsageError as error:
        assert "already initialised" in str(error)
    else:
        raise AssertionError("no error")
    t = torch.ones(3)
    dist.all_reduce(t)
    assert t.tolist() == [2.0] * 3
    distrain.destroy_process_group()
    distrain.destroy_process_group()
"""
    )
    job = mpirun(script, tmp_path)
    assert job.returncode == 0, job.stderr


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("raise", 1, "InjectedFault: rank 1, step 3"),
        ("exit", 3, "ended with exit code 3"),
        ("kill", None, "signal 9"),
        ("stall", 1, "rank 0 on"),
        ("stop", 1, "rank 0 on"),
    ],
)
def test_one_broken_rank_ends_the_job(tmp_path: Path, kind: str, code: int | None, said: str) -> None:
    seconds = "3" if kind in ("stall", "stop") else "90"
    job = mpirun(LOOP.replace("SECONDS", seconds), tmp_path, DISTRAIN_FAULT=f"rank=1,step=3,kind={kind}")
    assert job.returncode == code if code is not None else job.returncode != 0, job.stderr
    assert said in job.stderr, job.stderr
    assert "came through" not in job.stdout


def test_stall_report_names_operation_and_peer(tmp_path: Path) -> None:
    job = mpirun(LOOP.replace("SECONDS", "2"), tmp_path, DISTRAIN_FAULT="rank=1,step=3,kind=stall")
    assert "allreduce number 6 of 4000 bytes by multicolor_ring has been waiting" in job.stderr
    assert "ranks [1]" in job.stderr and "ending the job" in job.stderr


def test_uncaught_error_prints_its_traceback(tmp_path: Path) -> None:
    script = (
        PREAMBLE
        + """
world = distrain.init_process_group()
if world.rank == 1:
    raise ValueError("the cause")
dist.barrier()
"""
    )
    job = mpirun(script, tmp_path)
    assert job.returncode == 1
    assert "rank 1 on" in job.stderr and "ValueError: the cause" in job.stderr


def test_a_caught_exit_is_forgotten(tmp_path: Path) -> None:
    script = (
        PREAMBLE
        + """
distrain.init_process_group()
try:
    sys.exit(4)
except SystemExit:
    pass
dist.barrier()
distrain.destroy_process_group()
"""
    )
    job = mpirun(script, tmp_path)
    assert job.returncode == 0, job.stderr


def test_disagreement_about_sizes_ends_the_job(tmp_path: Path) -> None:
    script = (
        PREAMBLE
        + """
world = distrain.init_process_group(CommSettings(stall_seconds=1, abort_seconds=5))
dist.all_reduce(torch.ones(1000 if world.rank else 2000))
"""
    )
    assert mpirun(script, tmp_path).returncode == 1


def test_a_world_smaller_than_launched_is_refused(tmp_path: Path) -> None:
    job = mpirun(PREAMBLE + "distrain.init_process_group()", tmp_path, ranks=1, DISTRAIN_WORLD_SIZE="4")
    assert job.returncode == 1
    assert "size=1 but DISTRAIN_WORLD_SIZE=4" in job.stderr


def test_without_a_launcher_it_is_a_world_of_one(tmp_path: Path) -> None:
    path = tmp_path / "alone.py"
    path.write_text(
        PREAMBLE + "assert distrain.init_process_group().size == 1; dist.all_reduce(torch.ones(1))"
    )
    foreign = ("OMPI_", "PMIX_", "PRTE_", "PMI_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run([sys.executable, str(path)], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
