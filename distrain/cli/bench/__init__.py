"""`distrain bench ...`: our own figures beside the peers', in one run; one file a benchmark."""

from __future__ import annotations

import typer

from distrain.cli.bench.allreduce import allreduce
from distrain.cli.bench.ddp import ddp
from distrain.cli.bench.exchange import exchange
from distrain.cli.bench.load import load
from distrain.cli.bench.loader import loader
from distrain.cli.bench.page import page

bench = typer.Typer(help="Benchmarks; each checks its answer first.", no_args_is_help=True)
for command in (allreduce, ddp, exchange, load, loader, page):
    bench.command(command.__name__)(command)


def register(app: typer.Typer) -> None:
    """Add `bench` to the command line."""
    app.add_typer(bench, name="bench")
