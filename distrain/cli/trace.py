"""``distrain trace``: what a run with ``comm.timeline: true`` has recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

trace = typer.Typer(help="Timelines of a run: merge them, sum them up.", no_args_is_help=True)
Run = Annotated[Path, typer.Argument(help="run folder", metavar="RUN")]


def register(app: typer.Typer) -> None:
    """Add `trace` to the command line."""
    app.add_typer(trace, name="trace")


@trace.command()
def merge(run: Run, out: Annotated[Path | None, typer.Option(help="default: RUN/trace.json")] = None) -> None:
    """Put the traces of all ranks into one file, for ui.perfetto.dev."""
    from distrain.timeline_reader import merge as merge_traces
    from distrain.timeline_reader import traces_of

    path = out or run / "trace.json"
    paths = traces_of(run)
    count = merge_traces(paths, path)
    print(f"{path}: {count} events of {len(paths)} ranks; open it in ui.perfetto.dev", file=sys.stderr)


@trace.command()
def show(run: Run, last: Annotated[int, typer.Option(min=1, help="steps to show")] = 20) -> None:
    """Print where the time of each step went, data, hidden and exposed communication, and medians of all."""
    from statistics import median

    from rich.console import Console
    from rich.table import Table

    from distrain.timeline_reader import read, steps_of, traces_of

    table = Table(title=f"{run}: milliseconds of a step")
    headings = ("step", "rank", "wall", "data wait", "communication", "hidden", "exposed")
    for heading in headings:
        table.add_column(heading, justify="right")
    found = [step for path in traces_of(run) for step in steps_of(read(path))]
    shown = sorted({step.step for step in found})[-last:]
    fields = ("wall", "data", "communication", "hidden", "exposed")
    for times in sorted(found, key=lambda times: (times.step, times.rank)):
        if times.step in shown:
            numbers = (f"{getattr(times, field):.1f}" for field in fields)
            table.add_row(str(times.step), str(times.rank), *numbers)
    table.add_section()
    for rank in sorted({times.rank for times in found}):
        own = [times for times in found if times.rank == rank]
        numbers = (f"{median(getattr(times, field) for times in own):.1f}" for field in fields)
        table.add_row(f"median of {len(own)}", str(rank), *numbers)
    Console().print(table)
