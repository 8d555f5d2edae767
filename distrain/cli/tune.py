"""``distrain tune``: measure which algorithm is the fastest here, and keep it for every job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add `tune` to the command line."""
    app.command()(tune)


def tune(
    ranks: Annotated[int, typer.Option(min=0, help="ranks on this machine; 0: those of --hosts")] = 0,
    hosts: Annotated[Path | None, typer.Option(help="host file, as for `distrain launch`")] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="about how long it may take")] = 45.0,
    table: Annotated[
        Path | None, typer.Option(help="file to keep the result in; default: where jobs look for it")
    ] = None,
    machines: Annotated[
        int, typer.Option(min=0, help="try it on so many emulated machines instead (needs root)")
    ] = 0,
    rails: Annotated[int, typer.Option(min=0, help="network ports of a node; 0: counted")] = 0,
    rate: Annotated[str, typer.Option(help="rate of the links of emulated machines")] = "1gbit",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line on stdout")] = False,
) -> None:
    """Measure which allreduce is the fastest for each size, and keep it for jobs of this shape.

    The table is kept on this machine. Rank 0 of a job reads it on its own: where the two share no home
    folder, copy the file there. Inside an allocation of Slurm run the ranks' program itself, which keeps the
    table where rank 0 is: srun python -m distrain.bench.tune
    """
    from distrain.bench.start import Emulation, run_ranks
    from distrain.comm.choice import tuning
    from distrain.errors import UsageError
    from distrain.launch.hosts import read_hosts

    found = read_hosts(hosts) if hosts else ()
    count = ranks or sum(host.slots for host in found)
    if count < 2:
        raise UsageError(
            "tune", f"ranks={count} have nothing to send", "give --ranks 2 or more, or --hosts FILE"
        )
    if found and count != sum(host.slots for host in found):
        raise UsageError("tune", f"--ranks {ranks} is not what --hosts holds", "leave out --ranks")
    path = table or tuning.default_path()
    tuning.load(path)  # one that is damaged is told of before the measurement
    arguments = ["--seconds", str(seconds), "--rails", str(rails), "--return-table"]
    emulation = Emulation(machines, max(1, rails), rate) if machines else None
    *lines, measured = run_ranks("distrain.bench.tune", arguments, count, emulation, found)
    tuning.save(path, tuning.from_json(measured))
    if as_json:
        for line in lines:
            print(json.dumps(line))
    else:
        _show(lines, path)


def _show(lines: list[dict[str, Any]], path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from distrain.units import format_bytes

    shown = Table(title=f"allreduce by messages: {lines[0]['key']}", caption=f"kept in {path}")
    for heading in ("bytes", "fastest", "median", "next best", "its median", "formula"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        second = ("", "") if line["next_best"] is None else (line["next_best"], _milli(line["next_best_s"]))
        formula = "" if line["formula_s"] is None else f"{line['formula_s'] / line['median_s']:.2f} x"
        shown.add_row(format_bytes(line["bytes"]), line["pick"], _milli(line["median_s"]), *second, formula)
    Console(width=None if sys.stdout.isatty() else 110).print(shown)


def _milli(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"
