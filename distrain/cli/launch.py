"""``distrain launch``: from a YAML file to ranks that train; ``distrain failures``: what went wrong."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from distrain.cli import config as config_commands


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command("launch")(launch)
    app.command("failures")(failures)
    config_commands.register(app)


def launch(
    config: Annotated[Path, typer.Argument(help="YAML file of the run, e.g. configs/digits.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings, e.g. train.duration=2ep")
    ] = None,
    np: Annotated[int | None, typer.Option("--np", help="ranks in all")] = None,
    hosts: Annotated[Path | None, typer.Option("--hosts", help="host file: `name slots=N` a line")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the command line and every derived number, start nothing")
    ] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN|auto", help="go on from the newest checkpoint")
    ] = None,
) -> None:
    """Start a run: on this machine, on the machines of a host file, or as a Slurm job.

    The exit code is 0 if training completed (or Slurm has the job), 2 for bad usage or configuration, 85
    if it was stopped with a checkpoint, 128 + N if signal N from outside did that (Ctrl-C: 130), else that
    of the rank that failed first.
    """
    from distrain.config import load
    from distrain.launch import run_folder
    from distrain.launch.plan import make_plan
    from distrain.launch.start import describe, say, start

    given = list(overrides or [])
    if np is not None:
        given.append(f"launch.np={np}")
    if hosts is not None:
        given += ["launch.target=hosts", f"launch.hosts={json.dumps(os.fspath(hosts))}"]
    settings = load(config, given)
    runs = Path(settings.launch.runs)
    folder = run_folder.choose(runs, settings.name, resume)
    if folder is None:
        folder = run_folder.RunFolder(run_folder.planned(runs, settings.name))
    terminal = sys.stderr.isatty()
    plan = make_plan(settings, folder, terminal)
    if dry_run:
        print(describe(plan))
    plan.check()
    if dry_run:
        return
    done = run_folder.completed_steps(folder.path) if folder.resumes else None
    if done is not None and plan.derived.total_steps is not None and done >= plan.derived.total_steps:
        say(f"{folder.path} is complete ({done} steps); raise train.duration to go on with it")
        return
    if resume == "auto" and not folder.resumes:
        say(f"no run of {settings.name} has a checkpoint yet: starting from the beginning")
    if not folder.resumes:
        created = run_folder.create(runs, settings.name)
        if created != folder:  # another launch took the name since the plan was made
            plan = make_plan(settings, created, terminal)
    raise typer.Exit(start(plan))


def failures(run: Annotated[Path, typer.Argument(help="run folder")]) -> None:
    """Print the traceback of the rank that failed first, and exit with its code."""
    from distrain.errors import UsageError
    from distrain.launch.failures import describe, first_failure

    if not run.is_dir():
        raise UsageError(str(run), "there is no such folder", "give a run folder, e.g. runs/digits")
    failure = first_failure(run)
    if failure is None:
        print(f"distrain: {run}: no rank left a traceback", file=sys.stderr)
        return
    print(describe(failure), file=sys.stderr)
    raise typer.Exit(failure.exit_code)
