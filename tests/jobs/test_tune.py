"""`distrain tune` measures, keeps a table, and the next job runs what the table says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from distrain.launch import mpi
from distrain.launch.job import Job

LOOP = """
import distrain, torch
import torch.distributed as dist
from distrain.comm.settings import CommSettings
world = distrain.init_process_group(CommSettings(node_memory=False, tune_table="tune.json"))
payload = torch.ones(64)
work = dist.all_reduce(payload, async_op=True)
work.wait()
assert payload.tolist() == [2.0] * 64
if world.rank == 0:
    print("ran", work.algorithm)
"""


def test_a_tuned_job_runs_the_pick(tmp_path: Path) -> None:
    words = ["tune", "--ranks", "2", "--seconds", "1.5", "--table", "tune.json", "--json"]
    tuned = subprocess.run(
        [sys.executable, "-m", "distrain", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert tuned.returncode == 0, tuned.stderr
    lines = [json.loads(line) for line in tuned.stdout.splitlines()]
    assert lines[0]["bytes"] == 1024 and all(line["median_s"] > 0 for line in lines)

    # a pick that formulas would never make, so that it can only come from the table
    raw = json.loads((tmp_path / "tune.json").read_text())
    for pick in raw["tables"][0]["picks"]["allreduce"]:
        pick["choice"] = {"algorithm": "multicolor_tree", "colors": 3, "segment_bytes": 1000}
    (tmp_path / "tune.json").write_text(json.dumps(raw))
    (tmp_path / "loop.py").write_text(LOOP)
    job = Job((sys.executable, "loop.py"), 2, crowded=True, as_root=os.geteuid() == 0)
    command = mpi.find().command(job)
    ran = subprocess.run(
        command.argv,
        env={**os.environ, **command.env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "ran multicolor_tree/3"


def test_nothing_to_tune_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distrain", "tune", "--ranks", "1"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "ranks=1 have nothing to send; give --ranks 2" in done.stderr
