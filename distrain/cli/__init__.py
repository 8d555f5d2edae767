"""The ``distrain`` command: every sub-command lives in a file of its own in this folder.

stdout carries data, stderr carries logs. Exit codes: 0 done, 2 bad usage or configuration,
1 the run failed. Heavy imports (torch, mpi4py) happen inside the commands that need them, so
that ``distrain launch`` works on a login node and ``--help`` is quick.
"""

from __future__ import annotations

import sys

import typer

from distrain.cli import bench, data, doctor, launch, schedule, trace, train, tune
from distrain.errors import DistrainError

app = typer.Typer(
    name="distrain",
    help="Data-parallel training of image classifiers on MPI clusters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data.register(app)
launch.register(app)
train.register(app)
schedule.register(app)
bench.register(app)
tune.register(app)
trace.register(app)
doctor.register(app)


def main() -> None:
    """Run the command line; an error that distrain raises on purpose is one line, without traceback."""
    try:
        app()
    except DistrainError as error:
        print(f"distrain: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
