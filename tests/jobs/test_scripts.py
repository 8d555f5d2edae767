"""Whole jobs under mpirun: how they start, and how they end when one rank goes wrong."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.scripts import environment, mpirun

# Another guise of what a case beside it holds: `make test-variants`.
VARIANT = pytest.mark.variant
PREAMBLE = """
import sys, torch, torch.distributed as dist
import distrain
from distrain.comm.settings import CommSettings
from distrain.comm.supervision.faults import fault_point
"""
FAKE_DEVICE = Path(__file__).parents[1] / "mpi" / "comm"
# Reduces until a rank breaks at the step that DISTRAIN_FAULT names.
LOOP = (
    PREAMBLE
    + """
settings = CommSettings(stall_seconds=0.5, abort_seconds=SECONDS, node_memory=False)
world = distrain.init_process_group(settings)
for step in range(6):
    fault_point(world.rank, step)
    dist.all_reduce(torch.ones(1000))
print("rank", world.rank, "came through")
"""
)


def test_a_users_script(tmp_path: Path) -> None:
    """Starts twice, catches an exit, and ends on all ranks with a code that they agreed on."""
    script = (
        PREAMBLE
        + """
from distrain.comm.supervision import exits
from distrain.errors import UsageError
for round in range(2):
    world = distrain.init_process_group()
    try:
        distrain.init_process_group()
    except UsageError as error:
        assert "already initialised" in str(error)
    else:
        raise AssertionError("no error")
    try:
        sys.exit(4)
    except SystemExit:
        pass
    values = torch.arange(5.0) * (world.rank + 1)
    dist.all_reduce(values)
    assert torch.equal(values, torch.arange(5.0) * 3)
    distrain.destroy_process_group()
    distrain.destroy_process_group()
print("rank", world.rank, "of", world.size, "on", world.nodes, "node")
exits.all_end_with(85)
sys.exit(85)
"""
    )
    job = mpirun(script, tmp_path)
    assert job.returncode == 85, job.stderr
    assert "MPI_ABORT" not in job.stderr and "ending the job" not in job.stderr, job.stderr
    assert sorted(job.stdout.splitlines()) == ["rank 0 of 2 on 1 node", "rank 1 of 2 on 1 node"]


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("raise", 1, r"rank 1 on \S+ ends the job:\nTraceback[^~]*InjectedFault: rank 1, step 3"),
        pytest.param("exit", 3, "ended with exit code 3", marks=VARIANT),
        pytest.param("kill", None, "(?i)signal:? 9", marks=VARIANT),
    ],
)
def test_one_broken_rank_ends_the_job(tmp_path: Path, kind: str, code: int | None, said: str) -> None:
    job = mpirun(LOOP.replace("SECONDS", "90"), tmp_path, DISTRAIN_FAULT=f"rank=1,step=3,kind={kind}")
    assert job.returncode == code if code is not None else job.returncode != 0, job.stderr
    assert re.search(said, job.stdout + job.stderr), job.stderr
    assert "came through" not in job.stdout


def test_a_stall_is_explained_and_then_ends_the_job(tmp_path: Path) -> None:
    """Rank 1 is stopped, rank 2 runs in a circle, rank 3 sleeps; rank 0 waits and tells of all three."""
    faults = ";".join(f"rank={r},step=3,kind={kind}" for r, kind in ((1, "stop"), (2, "loop"), (3, "stall")))
    job = mpirun(LOOP.replace("SECONDS", "6"), tmp_path, ranks=4, DISTRAIN_FAULT=faults)
    assert job.returncode == 1
    report = job.stderr
    assert re.search(r"rank 0 on \S+: allreduce number 4 of 4000 bytes by \S+ has been waiting", report)
    assert "collective number 4 of all ranks, allreduce (sum) of 1000 elements of float32" in report, report
    assert "in training step 3 here" in report
    assert re.search(r"missing: rank 1 on \S+: it does not answer: stopped", report), report
    assert "last heard of calling number 3, allreduce (sum) of 1000 elements of float32" in report, report
    for rank, line in ((2, "while self.kind"), (3, "time.sleep(3600)")):
        found = re.search(rf"missing: rank {rank} on \S+: (.*\n)((?:      .*\n)*)", report)
        assert found, report
        assert "called number 3," in found[1] and "training step 3" in found[1]
        assert line in found[2] or "pass" in found[2], report
    assert "ending the job" in report


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        pytest.param(
            "dist.all_reduce(torch.ones(1000))",
            "dist.all_reduce(torch.ones(2000))",
            ["allreduce (sum) of 1000 elements of float32", "allreduce (sum) of 2000 elements of float32"],
            marks=VARIANT,
        ),
        (
            "dist.all_reduce(torch.ones(1000), op=dist.ReduceOp.MAX)",
            "dist.all_reduce(torch.ones(1000))",
            ["allreduce (max) of 1000", "allreduce (sum) of 1000"],
        ),
        pytest.param(
            "dist.broadcast(torch.ones(1000), 0)",
            "dist.barrier()",
            ["broadcast of 1000 elements of float32 with root 0", "called barrier"],
            marks=VARIANT,
        ),
    ],
    ids=["size", "reduction", "kind"],
)
def test_ranks_that_disagree_are_named_at_once(tmp_path: Path, one: str, other: str, said: list[str]) -> None:
    script = (
        PREAMBLE
        + f"""
world = distrain.init_process_group(CommSettings(node_memory=False))
dist.barrier()
if world.rank == 1:
    {one}
else:
    {other}
dist.barrier()
"""
    )
    job = mpirun(script, tmp_path)  # with stall_seconds of a minute, and mpirun a limit below it
    assert job.returncode == 1
    assert "collective number 2 of all ranks" in job.stderr, job.stderr
    assert all(text in job.stderr for text in said), job.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="no Horovod; `make horovod` builds it"
)
def test_horovod_averages_gradients(tmp_path: Path) -> None:
    """Rank r's gradient is r + 1: both ranks see 1.5, while distrain carries everything else."""
    script = (
        PREAMBLE
        + """
from distrain.comm.sync.synchroniser import make_synchroniser
settings = CommSettings(sync="horovod")
world = distrain.init_process_group(settings)
synchroniser = make_synchroniser(settings)
net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1, bias=False))
synchroniser.attach(net)
for step in range(3):
    net.zero_grad()
    net(torch.full((1, 3), world.rank + 1.0)).sum().backward()
    assert net.module.weight.grad.tolist() == [[1.5] * 3], net.module.weight.grad
    counted = torch.ones(1)
    dist.all_reduce(counted)
    assert counted.item() == 2
synchroniser.close()
distrain.destroy_process_group()
"""
    )
    job = mpirun(script, tmp_path, MPI4PY_RC_THREAD_LEVEL="multiple")
    assert job.returncode == 0, job.stderr


def test_a_world_smaller_than_launched_is_refused(tmp_path: Path) -> None:
    job = mpirun(
        "from distrain.comm.process import mpi; mpi.initialize()", tmp_path, ranks=1, DISTRAIN_WORLD_SIZE="4"
    )
    assert job.returncode == 1
    assert "size=1 but DISTRAIN_WORLD_SIZE=4" in job.stderr


def test_without_a_launcher_it_is_a_world_of_one(tmp_path: Path) -> None:
    path = tmp_path / "alone.py"
    path.write_text(
        PREAMBLE + "assert distrain.init_process_group().size == 1; dist.all_reduce(torch.ones(1))"
    )
    env = environment()
    done = subprocess.run([sys.executable, str(path)], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "node_memory", [True, pytest.param(False, marks=VARIANT)], ids=["memory", "messages"]
)
def test_a_difference_in_a_subgroup_is_named(tmp_path: Path, node_memory: bool) -> None:
    """Of four ranks 1 and 3 form a group; 3 calls another size there, and both are named by world rank."""
    script = (
        PREAMBLE
        + f"""
world = distrain.init_process_group(CommSettings(node_memory={node_memory}))
group = dist.new_group([1, 3])
dist.barrier()
if world.rank in (1, 3):
    dist.all_reduce(torch.ones(1000 * world.rank), group=group)
dist.barrier()
"""
    )
    job = mpirun(script, tmp_path, ranks=4)
    assert job.returncode == 1
    assert re.search(r"rank [13] on \S+ called allreduce|rank [13] on \S+: called allreduce", job.stderr), (
        job.stderr
    )
    assert "of 1000 elements" in job.stderr and "of 3000 elements" in job.stderr, job.stderr


@pytest.mark.parametrize(
    ("kind", "call", "said"),
    [
        ("stop", "dist.all_reduce(torch.ones(1000))", "it does not answer: stopped"),
        pytest.param(
            "loop",
            "distrain.allreduce(np.ones(1000))",
            "called number 3, allreduce .sum. of 1000 elements",
            marks=VARIANT,
        ),
        pytest.param(
            "loop",
            "dist.all_reduce(torch.ones(3_000_000))",
            "called number 3, allreduce .sum. of 3000000",
            marks=VARIANT,
        ),
        pytest.param("kill", "distrain.allreduce(np.ones(1000))", "", marks=VARIANT),
        ("kill", "dist.all_reduce(torch.ones(3_000_000))", ""),
    ],
)
def test_a_broken_rank_is_named_in_the_memory_of_a_node(
    tmp_path: Path, kind: str, call: str, said: str
) -> None:
    """Ranks 0 and 2 wait in node memory for rank 1; the job ends, says why, and leaves no memory."""
    before = set(Path("/dev/shm").iterdir())
    script = LOOP.replace("SECONDS", "2").replace("node_memory=False", "node_memory=True")
    script = "import numpy as np\n" + script.replace("dist.all_reduce(torch.ones(1000))", call)
    job = mpirun(script, tmp_path, ranks=3, DISTRAIN_FAULT=f"rank=1,step=3,kind={kind}")
    assert job.returncode != 0 and "came through" not in job.stdout
    if kind == "kill":
        assert re.search("(?i)signal:? 9", job.stdout + job.stderr), job.stderr
    else:
        assert re.search(rf"missing: rank 1 on \S+: {said}", job.stderr), job.stderr
        assert "ending the job" in job.stderr
    assert not {path for path in Path("/dev/shm").iterdir() if path not in before and "distrain" in path.name}


def test_torch_itself_finds_the_backend(tmp_path: Path) -> None:
    """No import of distrain; importing torch does not bring MPI into a program that does not want it.

    A ``sys.exit`` that somebody caught (argparse, click), or that ended a thread, ends no job.
    """
    job = mpirun(
        "import sys, threading, torch, torch.distributed as dist\n"
        "assert 'mpi4py' not in sys.modules\n"
        "dist.init_process_group('distrain', init_method='distrain://')\n"
        "tensor = torch.full((3,), dist.get_rank() + 1.0)\n"
        "try:\n    sys.exit(3)\nexcept SystemExit:\n    pass\n"
        "dist.all_reduce(tensor)\n"
        "dist.new_group([1])\n"
        "thread = threading.Thread(target=lambda: sys.exit(4))\n"
        "thread.start()\nthread.join()\n"
        "dist.destroy_process_group()\n"
        "assert tensor.tolist() == [3.0] * 3\n",
        tmp_path,
    )
    assert job.returncode == 0, job.stderr


def test_arrays_that_differ_are_named(tmp_path: Path) -> None:
    """Rank 1 passes another length, once in a call of C that waits and once in one that comes late."""
    script = (
        PREAMBLE
        + """
import numpy as np, time
world = distrain.init_process_group()
time.sleep(world.rank * 0.05)
distrain.allreduce(np.ones(1000 + world.rank))
"""
    )
    job = mpirun(script, tmp_path)
    assert job.returncode == 1
    said = r"called allreduce \(sum\) number \d+ of 100[01] elements of torch.float64 where rank [01] on"
    assert re.search(said, job.stderr), job.stderr


def test_tensors_of_different_devices_are_named(tmp_path: Path) -> None:
    """Rank 0 passes a tensor of the CPU, rank 1 one of a GPU whose pointers MPI takes: they never meet."""
    script = (
        PREAMBLE
        + f"""
sys.path.insert(0, {str(FAKE_DEVICE)!r})
from fake_side import FakeSide
from distrain.comm.device import side
world = distrain.init_process_group(CommSettings(device_pointers="always", node_memory=False))
if world.rank == 1:
    fake = FakeSide()
    side.side_of = lambda tensor: fake
dist.all_reduce(torch.ones(1000))
print("went on", flush=True)
"""
    )
    job = mpirun(script, tmp_path)
    assert job.returncode == 1 and "went on" not in job.stdout
    assert re.search(r"called allreduce \(sum\) of 1000 elements", job.stderr), job.stderr
    assert re.search(r"called allreduce on a GPU \(sum\) of 1000 elements", job.stderr), job.stderr


TORCHRUN = """
import os, pathlib, time
import distrain, torch.distributed as dist
starts = {
    "distrain.init_process_group()": "torchrun started WORLD_SIZE=2 ranks, MPI sees 1",
    "dist.init_process_group('distrain', init_method='distrain://')": "torchrun started WORLD_SIZE=2 ranks",
    "dist.init_process_group('distrain')": "of 2 of torch is rank 0 of 1 of MPI",
}
for start, said in starts.items():
    try:
        exec(start)
    except Exception as error:
        assert said in str(error) and "not with torchrun" in str(error), (start, error)
    else:
        raise AssertionError(f"{start} started")
print("three were refused", flush=True)
here = pathlib.Path(__file__).parent
(here / f"refused-{os.environ['RANK']}").touch()
while len(list(here.glob("refused-*"))) < 2:  # torchrun kills the other one when the first ends
    time.sleep(0.05)
distrain.init_process_group()
"""


def test_a_world_that_torch_counts_differently_is_refused(tmp_path: Path) -> None:
    """Two processes of torchrun are two MPI worlds of one, however they start; the last error ends them."""
    path = tmp_path / "elastic.py"
    path.write_text(TORCHRUN)
    module = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    job = subprocess.run(
        [sys.executable, "-m", *module, str(path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert job.returncode != 0
    assert job.stdout.splitlines() == ["three were refused"] * 2, job.stdout + job.stderr
    assert "LaunchError" in job.stderr and "not with torchrun" in job.stderr


def test_a_rank_that_catches_a_failure_and_ends_takes_the_job_with_it(tmp_path: Path) -> None:
    """The others would wait for it in their next collective, and MPI for them."""
    script = (
        PREAMBLE
        + """
world = distrain.init_process_group()
if world.rank == 0:
    try:
        dist.recv(torch.zeros(2), src=1)
    except RuntimeError as error:
        print("caught", "sent more bytes" in str(error))
else:
    dist.send(torch.zeros(3), dst=0)
    dist.barrier()
"""
    )
    job = mpirun(script, tmp_path)
    assert job.returncode not in (0, None) and "caught True" in job.stdout, job.stderr
    assert "ended although communication had failed; ending the job" in job.stderr, job.stderr


def test_a_receive_for_which_nothing_comes_does_not_keep_a_job(tmp_path: Path) -> None:
    """One is given up after its timeout, one never waited for."""
    script = (
        PREAMBLE
        + """
from datetime import timedelta
world = distrain.init_process_group()
if world.rank == 0:
    work = dist.irecv(torch.zeros(2), src=1)
    forgotten = dist.irecv(torch.zeros(2), src=1, tag=5)
    try:
        work.wait(timedelta(seconds=0.3))
    except RuntimeError as error:
        print("caught", "timeout" in str(error))
dist.barrier()
distrain.destroy_process_group()
"""
    )
    job = mpirun(script, tmp_path)
    assert job.returncode == 0 and "caught True" in job.stdout, job.stderr
    assert "1 receives that nobody has sent to are left behind" in job.stderr, job.stderr
