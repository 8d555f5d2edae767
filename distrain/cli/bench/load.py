"""`distrain bench load`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer


def load(
    ranks: Annotated[int, typer.Option(min=1, help="ranks of the node")] = 1,
    size: Annotated[
        str, typer.Option("--bytes", help="of the pack; three times as much memory must be free")
    ] = "1GB",
    rounds: Annotated[int, typer.Option(min=1, help="timed turns of each contender")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line on stdout")] = False,
) -> None:
    """Load of a pack from page cache into the memory of a node, beside a plain copy of as many bytes."""
    from distrain.bench.start import run_ranks
    from distrain.errors import UsageError
    from distrain.units import parse_bytes

    count = parse_bytes(size)
    if count < 1 << 23:
        raise UsageError("--bytes", f"{size!r} is less than 8 MiB", "give e.g. 1GB")
    lines = run_ranks("distrain.bench.load", ["--bytes", str(count), "--rounds", str(rounds)], ranks)
    if as_json:
        for line in lines:
            print(json.dumps(line), flush=True)
    else:
        _show(lines)
    if not all(line["correct"] for line in lines):
        sys.exit(1)


def _show(lines: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"load of {lines[0]['bytes'] / 1e9:.2f} GB from page cache")
    for heading in ("who", "ranks", "threads each", "seconds", "GB/s", "of memcpy"):
        table.add_column(heading, justify="right")
    for line in lines:
        numbers = f"{line['median_s']:.3f}", f"{line['gbytes_per_s']:.2f}", f"{line['of_memcpy']:.0%}"
        told = numbers if line["correct"] else ("wrong bytes", "", "")
        table.add_row(line["name"], str(line["ranks"]), str(line["threads"]), *told)
    Console().print(table)
