"""`distrain train`: one rank's program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `train` to the command line."""
    app.command("train")(train)


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the run", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="settings to change: train.duration=2ep ...", show_default=False),
    ] = None,
) -> None:
    """Run one rank. Alone it is a run on one rank; `distrain launch` starts many."""
    from distrain.config.load import load

    run = load(config, overrides or ())
    if run.comm.sync == "horovod":  # its thread calls MPI beside ours; MPI starts when worker is imported
        os.environ.setdefault("MPI4PY_RC_THREAD_LEVEL", "multiple")
    from distrain.worker.run import main

    raise typer.Exit(main(run))
