"""The scripts that people copy do what the launcher does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from distrain.launch import slurm
from distrain.launch.dialects import DIALECTS, command
from distrain.launch.job import Job

ROOT = Path(__file__).parents[3]


def test_mpirun_script_starts_what_the_launcher_starts(tmp_path: Path) -> None:
    mpirun = tmp_path / "mpirun"
    mpirun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nenv | grep -E "^(DISTRAIN|OMPI)_" | sort\n')
    mpirun.chmod(0o755)
    (tmp_path / "my run.yaml").write_text("name: x\n")
    answer = subprocess.run(
        [ROOT / "launch" / "mpirun.sh", "my run.yaml", "seed=1"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "MPIRUN": str(mpirun), "PYTHON": "/p/python"},
        capture_output=True,
        text=True,
        check=True,
    )
    program = ("/p/python", "-m", "distrain", "train", str(tmp_path / "my run.yaml"), "seed=1")
    job = Job(program, np=2, crowded=True, as_root=os.geteuid() == 0)
    expected = command(DIALECTS["openmpi5"], str(mpirun), "", job, {})
    run = tmp_path / "runs" / "by-hand"
    assert answer.stdout.splitlines() == [
        *expected.argv[1:],
        "DISTRAIN_RESUME=",
        f"DISTRAIN_RUN_DIR={run}",
        "DISTRAIN_WORLD_SIZE=2",
        *(f"{name}={value}" for name, value in expected.env.items()),
    ]
    assert run.is_dir()


def test_mpirun_script_says_how_it_is_used() -> None:
    answer = subprocess.run([ROOT / "launch" / "mpirun.sh"], capture_output=True, text=True)
    assert answer.returncode == 2 and answer.stderr.startswith("usage: ")


def test_the_package_and_the_folder_are_one() -> None:
    assert slurm.template() == (ROOT / "launch" / "slurm" / "train.sbatch").read_text()


def test_the_template_starts_what_the_launcher_starts() -> None:
    """The example in the settings block is the line of the table for Open MPI 5."""
    names = ("DISTRAIN_RESUME", "DISTRAIN_RUN_DIR", "DISTRAIN_WORLD_SIZE", "OMP_NUM_THREADS")
    job = Job((), np=16, place="slurm", ranks_per_node=8, env=dict.fromkeys(names, ""))
    line = " ".join(command(DIALECTS["openmpi5"], "mpirun", "", job, {}).argv)
    joined = slurm.template().replace("\\\n    ", "")
    assert f'  exec {line} "$@"\n'.replace("-np 16", '-np "$RANKS"') in joined
