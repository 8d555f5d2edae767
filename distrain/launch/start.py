"""Carries a plan out: writes the run folder, then runs mpirun or submits to Slurm."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from distrain.config import dump
from distrain.launch.derive import table
from distrain.launch.local import run
from distrain.launch.plan import SCRIPT, Plan
from distrain.launch.run_folder import record
from distrain.launch.slurm import submit
from distrain.launch.verdict import judge
from distrain.units import format_bytes


def describe(plan: Plan) -> str:
    """Return every derived number, the files, and the exact command line, for ``--dry-run``."""
    rows = [
        ("run folder", f"{plan.folder.path}{' (resumes)' if plan.folder.resumes else ''}"),
        ("target", plan.config.launch.target),
        *table(plan.config, plan.derived),
        ("MPI", f"{plan.mpi.version} ({plan.mpi.path})" if plan.mpi else "srun"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    for name, text in plan.files.items():
        lines += ["", f"# {plan.folder.path / name}", text.rstrip()]
    if SCRIPT not in plan.files:
        lines += ["", "# command", plan.command.shell()]
    return "\n".join(lines)


def start(plan: Plan) -> int:
    """Write the run folder, start the run, and return the exit code for the shell.

    Raises:
        LaunchError: the run cannot be started or submitted.
    """
    folder = plan.folder.path
    for problem in plan.packs.problems:
        say(f"warning: {problem} (only this machine looked; the others may see it)")
    for name, text in plan.files.items():
        (folder / name).write_text(text)
    script = folder / SCRIPT
    shell = f"sbatch {shlex.quote(str(script))}" if SCRIPT in plan.files else plan.command.shell()
    mpi = {"mpi": plan.mpi.version, "mpirun": plan.mpi.path} if plan.mpi else {"mpi": "srun"}
    record(plan.folder, dump(plan.config), shell, {**mpi, "target": plan.config.launch.target})
    if SCRIPT in plan.files:
        return _submit(script)
    memory = (
        "" if plan.derived.node_bytes is None else f", {format_bytes(plan.derived.node_bytes)} of data a node"
    )
    say(f"{plan.derived.world}, global batch {plan.derived.global_batch}{memory}; run folder {folder}")
    verdict = judge(folder, run(plan.command))
    if verdict.message:
        print(verdict.message, file=sys.stderr, flush=True)
    return verdict.code


def _submit(script: Path) -> int:
    job = submit(script)
    if job is None:
        say(f"this machine has no sbatch; the script is {script}")
        say(f"submit it where Slurm is:  sbatch {shlex.quote(str(script))}")
        return 0
    print(job)
    say(f"submitted as job {job}; its log: {script.parent}/slurm-{job}.out; end it: scancel {job}")
    return 0


def say(text: str) -> None:
    """Print a line of the launcher to stderr; stdout belongs to the run."""
    print(f"distrain: {text}", file=sys.stderr, flush=True)
