"""`distrain bench loader`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer


def loader(
    set_name: Annotated[str, typer.Option("--set", help="orig, short256, yuv420 or raw")] = "orig",
    threads: Annotated[int, typer.Option(min=1, help="decoder threads of each contender")] = 1,
    against: Annotated[
        str | None, typer.Option(help="peers, e.g. torch,turbojpeg,dali; empty: none; default: all")
    ] = None,
    images: Annotated[int, typer.Option(min=32, help="pictures, a multiple of 32")] = 512,
    passes: Annotated[int, typer.Option(min=1, help="timed passes over all pictures")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line on stdout")] = False,
) -> None:
    """Decode, crop and resize: images per CPU-second beside torch, OpenCV, DALI, FFCV, WebDataset."""
    from distrain.bench.loader import DEFAULT_AGAINST, run

    chosen = DEFAULT_AGAINST if against is None else against
    lines: list[dict[str, Any]] = []
    for line in run(set_name, threads, chosen, images, passes):
        lines.append(line)
        if as_json:
            print(json.dumps(line), flush=True)
    if not as_json:
        _show(lines)
    if not all(line.get("correct", True) for line in lines):
        sys.exit(1)


def _show(lines: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="loader: crop, resize and flip to 224 x 224")
    for heading in ("set", "threads", "who", "images / CPU-s", "images / s", "outside decoder"):
        table.add_column(heading, justify="right")
    for line in lines:
        head = (str(line["set"]), str(line["threads"]), str(line["name"]))
        if "error" in line:
            table.add_row(*head, str(line["error"]))
            continue
        share = f"{line['outside_kernel']:.1%}" if "outside_kernel" in line else ""
        table.add_row(*head, f"{line['images_per_cpu_s']:,.0f}", f"{line['images_per_s']:,.0f}", share)
    Console().print(table)
