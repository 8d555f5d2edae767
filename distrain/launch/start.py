"""Carries a plan out: writes the run folder, then runs mpirun or submits to Slurm."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from distrain.config import dump
from distrain.errors import LaunchError
from distrain.launch.derive import table, warnings
from distrain.launch.local import run
from distrain.launch.lock import LAUNCHER, check_free, hold
from distrain.launch.plan import SCRIPT, LaunchPlan
from distrain.launch.run_folder import Aside, changes, record
from distrain.launch.slurm import submit
from distrain.launch.verdict import judge
from distrain.units import format_bytes


def describe(plan: LaunchPlan) -> str:
    """Return every derived number, the files, and the exact command line, for ``--dry-run``."""
    rows = [
        ("run folder", f"{plan.folder.path}{' (resumes)' if plan.folder.resumes else ''}"),
        ("target", plan.config.launch.target),
        *table(plan.config, plan.derived),
        ("MPI", f"{plan.mpi.version} ({plan.mpi.path})" if plan.mpi else "srun"),
    ]
    rows += [("warning", warning) for warning in warnings(plan.derived)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    for name, text in plan.files.items():
        lines += ["", f"# {plan.folder.path / name}", text.rstrip()]
    if SCRIPT not in plan.files:
        lines += ["", "# command", plan.command.shell()]
    return "\n".join(lines)


def start(plan: LaunchPlan) -> int:
    """Write the run folder, start the run, and return the exit code for the shell.

    Where nothing could be started, a folder that was made for it is removed again.

    Raises:
        LaunchError: the run cannot be started or submitted, or another process writes into its folder.
    """
    folder = plan.folder.path
    for problem in plan.packs.problems:
        say(f"warning: {problem} (only this machine looked; the others may see it)")
    for warning in warnings(plan.derived):
        say(f"warning: {warning}")
    try:
        with hold(folder, LAUNCHER):
            check_free(folder)
            changed = changes(folder, dump(plan.config)) if plan.folder.resumes else []
            if changed:
                say(f"warning: the configuration has changed since the last start: {', '.join(changed)}")
            aside = _write(plan)
            if SCRIPT not in plan.files:
                return _run(plan, aside)
    except LaunchError:
        if not plan.folder.resumes:
            shutil.rmtree(folder, ignore_errors=True)  # the error that is raised matters more
        raise
    return _submit(folder / SCRIPT)


def _write(plan: LaunchPlan) -> Aside:
    script = shlex.quote(str(plan.folder.path / SCRIPT))
    shell = f"sbatch {script}" if SCRIPT in plan.files else plan.command.shell()
    mpi = {"mpi": plan.mpi.version, "mpirun": plan.mpi.path} if plan.mpi else {"mpi": "srun"}
    facts = {**mpi, "target": plan.config.launch.target}
    return record(plan.folder, dump(plan.config), shell, facts, plan.files)


def _run(plan: LaunchPlan, aside: Aside) -> int:
    folder = plan.folder.path
    memory = (
        "" if plan.derived.node_bytes is None else f", {format_bytes(plan.derived.node_bytes)} of data a node"
    )
    say(f"{plan.derived.world}, global batch {plan.derived.global_batch}{memory}; run folder {folder}")
    before = _trained(folder)
    try:
        stop_seconds = plan.config.launch.stop_seconds
        outcome = run(plan.command, stop_seconds=stop_seconds, limit_name="launch.stop_seconds")
        verdict = judge(folder, outcome)
    except LaunchError:
        aside.undo()
        raise
    if verdict.code != 0 and plan.folder.resumes and _trained(folder) == before:
        aside.undo()  # the ranks refused it: the run is still what it was
    if verdict.message:
        print(verdict.message, file=sys.stderr, flush=True)
    return verdict.code


def _trained(folder: Path) -> tuple[int, int] | None:
    """Return what changes as soon as training begins, in a run that is resumed too."""
    try:
        found = (folder / "metrics.jsonl").stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


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
