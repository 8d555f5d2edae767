"""Starting a job on emulated machines the way a user does, and looking at what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from distrain.bench.machines import Machines
from distrain.launch import mpi
from distrain.launch.dialects import hostfile_text
from distrain.launch.hosts import Host
from distrain.launch.job import Job

SECONDS = 90  # in which a job that breaks must have ended
HIDDEN = ("SLURM_", "OMPI_", "PMIX_", "PRTE_", "PMI_", "DISTRAIN_")


def launch(machines: Machines, project: Path, *words: str) -> subprocess.CompletedProcess[Any]:
    """Run the launcher on h0; what belongs to this network only goes through launch.mpirun_args."""
    path = mpi.locate()
    assert path is not None
    extra = machines.starter_args(mpi.find().name)
    environ = {n: v for n, v in os.environ.items() if n == "DISTRAIN_MPIRUN" or not n.startswith(HIDDEN)}
    command = [sys.executable, "-m", "distrain", "launch", "run.yaml", "--hosts", "my hosts.txt", *words]
    return machines.run(
        "h0",
        [*command, f"launch.mpirun_args={json.dumps(extra)}"],
        project,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )


def begin(
    machines: Machines, folder: Path, program: str, *words: str, fault: str = ""
) -> subprocess.Popen[str]:
    """Start a rank on each machine.

    Args:
        machines: where.
        folder: its path is the program's first argument.
        program: text in Python.
        words: further arguments.
        fault: DISTRAIN_FAULT, in the environment of mpirun alone.
    """
    (folder / "program.py").write_text(program)
    listed = tuple(Host(name, 1) for name in machines.names)
    (folder / "hosts").write_text(hostfile_text(mpi.find().dialect, listed))
    environ = {**os.environ, "DISTRAIN_FAULT": fault} if fault else dict(os.environ)
    command = mpi.find().command(
        Job(
            command=(sys.executable, str(folder / "program.py"), str(folder), *words),
            np=len(listed), crowded=True, as_root=True, place="hosts",
            hostfile=str(folder / "hosts"), extra=machines.starter_args(mpi.find().name),
            env={"DISTRAIN_WORLD_SIZE": str(len(listed)), "OMP_NUM_THREADS": "1"},
        ),
        environ,
    )  # fmt: skip
    return subprocess.Popen(
        machines.entering("h0", command.argv),
        env={**environ, **command.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(job: subprocess.Popen[str]) -> str:
    """Return what the job said; it must end by itself, and not with success."""
    try:
        text = job.communicate(timeout=SECONDS)[1]
    finally:
        job.kill()
    assert job.returncode != 0, text
    return text


def assert_nothing_runs(machines: Machines) -> None:
    """All processes of a job that has ended are gone soon."""
    until = time.monotonic() + 20
    while any(machines.processes(name) for name in machines.names) and time.monotonic() < until:
        time.sleep(0.1)
    assert {name: machines.processes(name) for name in machines.names} == {n: [] for n in machines.names}
