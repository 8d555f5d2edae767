"""Checks of MPI: the library that mpi4py loads, the mpirun that starts jobs, and whether they fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from distrain.errors import DistrainError
from distrain.launch.doctor.check import Check, ask_python, last_line
from distrain.launch.job import Job
from distrain.launch.mpi import WAYS_OUT, Mpi, find

_LIBRARY = """
import json, mpi4py
mpi4py.rc.thread_level = "serialized"
from mpi4py import MPI
names = {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled",
         MPI.THREAD_SERIALIZED: "serialized", MPI.THREAD_MULTIPLE: "multiple"}
version = MPI.Get_library_version().split("\\n")[0].strip("\\0 ")
try:
    path = next(line.split()[-1] for line in open("/proc/self/maps") if "/libmpi" in line)
except (OSError, StopIteration):
    path = None
print(json.dumps({"mpi4py": mpi4py.__version__, "library": version, "path": path,
                  "thread_level": names[MPI.Query_thread()]}))
"""
# Prints one line from rank 0: how large the world is, how many share its node, and a sum over all ranks.
_WORLD = """
from mpi4py import MPI
world = MPI.COMM_WORLD
node = world.Split_type(MPI.COMM_TYPE_SHARED)
total = world.allreduce(world.rank + 1)
if world.rank == 0:
    print("WORLD", world.size, node.size, total, flush=True)
"""
# Asked of a process on its own: a switch that only jobs get is not seen.
_POINTERS = """
import json
from distrain.comm.process.gpu_aware import ask
answer = ask()
print(json.dumps({"takes": answer.takes, "why": answer.why}))
"""
WORLD_SECONDS = 90.0


def library() -> Check:
    """Look at mpi4py: which libmpi it loads, and which thread level that gives."""
    facts, reason = ask_python(_LIBRARY)
    if facts is None:
        return Check("mpi library", "broken", reason, WAYS_OUT)
    short = facts["library"].split(",")[0]
    found = f"{short} by mpi4py {facts['mpi4py']}, threads: {facts['thread_level']} ({facts['path']})"
    if facts["thread_level"] not in ("serialized", "multiple"):
        do = "use an MPI built with thread support: one thread beside the main one drives MPI"
        return Check("mpi library", "broken", found, do, facts)
    return Check("mpi library", "ok", found, facts=facts)


def starter() -> tuple[Check, Mpi | None]:
    """Look for mpirun and its dialect."""
    try:
        mpi = find()
    except DistrainError as error:
        return Check("mpirun", "broken", error.problem, error.do), None
    facts = {"path": mpi.path, "dialect": mpi.name, "version": mpi.version}
    return Check("mpirun", "ok", f"{mpi.version} ({mpi.path})", facts=facts), mpi


def world(mpi: Mpi, timeout: float = WORLD_SECONDS) -> Check:
    """Start two ranks: do they see each other, and do they share memory."""
    job = Job(
        (sys.executable, "-c", _WORLD), np=2, bind="none", crowded=True, as_root=os.geteuid() == 0, env={}
    )
    command = mpi.command(job)
    try:
        answer = subprocess.run(
            command.argv,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **command.env},
            check=False,
        )
    except subprocess.TimeoutExpired:
        do = "check host name and loopback, firewalls, and the space in /tmp and /dev/shm"
        return Check("world of 2 ranks", "broken", f"not up within {timeout:g} s", do)
    except OSError as error:
        return Check("world of 2 ranks", "broken", str(error), WAYS_OUT)
    worlds = [line.split()[1:] for line in answer.stdout.splitlines() if line.startswith("WORLD ")]
    if answer.returncode != 0 or not worlds:
        reason = f"exit code {answer.returncode}: {last_line(answer.stderr)}"
        return Check("world of 2 ranks", "broken", reason, f"try it by hand: {command.shell()}")
    facts = {"sizes": [int(w[0]) for w in worlds], "shares_memory": worlds[0][1] == "2"}
    if worlds != [["2", "2", "3"]]:
        if worlds[0][0] == "2":
            found = f"2 ranks, but {worlds[0][1]} on a node and a sum of {worlds[0][2]} instead of 3"
            return Check("world of 2 ranks", "broken", found, "check the MPI installation", facts)
        found = f"{len(worlds)} worlds of {worlds[0][0]}: mpirun and the library of mpi4py do not fit"
        do = "use mpirun and libmpi of the same MPI: set DISTRAIN_MPIRUN, or reinstall mpi4py for this MPI"
        return Check("world of 2 ranks", "broken", found, do, facts)
    return Check("world of 2 ranks", "ok", "2 ranks see each other and share memory", facts=facts)


def pointers(gpus: list[str] | None) -> Check:
    """Look whether MPI takes pointers of GPUs, as far as it says; it matters only where there are some."""
    facts, reason = ask_python(_POINTERS)
    if facts is None:
        return Check("gpu pointers", "absent", reason)
    found = f"{'taken' if facts['takes'] else 'not taken'} by this MPI: {facts['why']}"
    if facts["takes"] or not gpus:
        return Check("gpu pointers", "ok" if facts["takes"] else "absent", found, facts=facts)
    do = "tensors of GPUs go through the memory of the host; an MPI built and switched on for them saves that"
    return Check("gpu pointers", "slower", found, do, facts)


def slurm() -> Check:
    """Look for Slurm's sbatch."""
    path = shutil.which("sbatch")
    if path is None:
        return Check("slurm", "absent", "no sbatch here", "scripts are written, submit them where Slurm is")
    return Check("slurm", "ok", path, facts={"sbatch": path})
