"""``distrain launch --hosts`` over two emulated machines: real mpirun, real training."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distrain.bench.machines import Machines
from tests.cluster.support import launch


def test_training_on_two_machines(machines: Machines, project: Path) -> None:
    (project / "my hosts.txt").write_text("h0 slots=1\nh1:3  # the other spelling\n")
    job = launch(machines, project, "launch.env.COLOR='light blue'")
    assert job.returncode == 0, job.stderr
    run = project / "runs" / "cluster"
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed" and result["world_size"] == 4
    assert result["eval_images"] == 355
    assert json.loads((run / "environment.json").read_text())["hosts"] == ["h0", "h1", "h1", "h1"]


def test_error_on_the_other_machine_ends_the_job(machines: Machines, project: Path) -> None:
    """The pack is gone for all ranks: the job ends by itself, non-zero, with the reason printed last."""
    (project / "my hosts.txt").write_text("h0\nh1\n")
    job = launch(machines, project, "data.val=nowhere")
    assert job.returncode == 1
    assert "warning: nowhere: there is no pack here" in job.stderr
    assert "nowhere: there is no pack here" in job.stderr.split("failed first ----")[1]


def test_a_lost_machine_is_not_success(project: Path, machines: Machines) -> None:
    """Open MPI returns 0 when it loses a whole host: only a result proves that a run completed."""
    (project / "my hosts.txt").write_text("h0\nh1\n")
    metrics = project / "runs" / "cluster" / "metrics.jsonl"
    with Machines(2, base="10.92") as doomed, ThreadPoolExecutor() as pool:
        job = pool.submit(launch, doomed, project, "train.duration=100000st")
        while not metrics.exists() and not job.done():
            time.sleep(0.1)
        doomed.kill("h1")
        ended = job.result(timeout=60)
    assert ended.returncode != 0, ended.stderr
    assert "distrain: " in ended.stderr.splitlines()[-1] or "failed first" in ended.stderr
