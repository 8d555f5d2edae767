"""`distrain bench exchange`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from distrain.bench.start import Emulation


def exchange(
    ranks: Annotated[int, typer.Option(min=2, help="ranks in all")],
    machines: Annotated[
        int,
        typer.Option(min=2, help="emulated machines to spread the ranks over (needs root)"),
    ],
    rails: Annotated[int, typer.Option(min=1, help="network cards of an emulated machine")] = 1,
    rate: Annotated[str, typer.Option(help="rate of their links, as tc spells it")] = "1gbit",
    size: Annotated[str, typer.Option("--bytes", help="images that a node holds")] = "192MB",
    against: Annotated[str, typer.Option(help="peers, out of mpi,gloo; empty: none")] = "mpi,gloo",
    iterations: Annotated[int, typer.Option(min=3, help="reshuffles of each contender")] = 5,
    gradients: Annotated[
        str, typer.Option(help="gradients of a step, for the exchange behind training; 0: leave that out")
    ] = "25MB",
    bucket: Annotated[str, typer.Option(help="summed at a time")] = "1MB",
    compute: Annotated[
        float, typer.Option(min=0.0, help="compute of a step, as a multiple of what its gradients take alone")
    ] = 1.5,
    steps: Annotated[int, typer.Option(min=1, help="steps of an epoch of training")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="epochs with images, and as many without")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line on stdout")] = False,
) -> None:
    """Reshuffle images between nodes: alone, beside all-to-all of the peers, and behind training."""
    from distrain.bench.start import Emulation, run_ranks
    from distrain.comm.settings import CommSettings
    from distrain.errors import UsageError, nearest
    from distrain.units import parse_bytes

    known = ("mpi", "gloo")
    peers = [name for name in against.split(",") if name]
    for name in peers:
        if name not in known:
            raise UsageError(
                "--against", f"{name!r} is no peer{nearest(name, known)}", f"use {','.join(known)}"
            )
    arguments = ["--bytes", str(parse_bytes(size)), "--names", ",".join(peers)]
    arguments += ["--iterations", str(iterations), "--gradients", str(parse_bytes(gradients))]
    arguments += ["--bucket", str(parse_bytes(bucket)), "--compute", str(compute)]
    arguments += ["--steps", str(steps), "--rounds", str(rounds)]
    arguments += ["--settings", CommSettings().model_dump_json()]
    emulation = Emulation(machines, rails, rate)
    lines = run_ranks("distrain.bench.exchange", arguments, ranks, emulation)
    lines = [_with_limit(line, emulation) for line in lines]
    if as_json:
        for line in lines:
            print(json.dumps(line), flush=True)
    else:
        _show(lines)
    if not all(line.get("correct", True) for line in lines):
        sys.exit(1)


def _with_limit(line: dict[str, Any], emulation: Emulation) -> dict[str, Any]:
    """Add the time that the bytes of the busiest node take at the rate of its links, and the share of it."""
    from distrain.bench.machines import bytes_per_second
    from distrain.bench.stats import leaving_seconds

    if "leaving_bytes" not in line or not emulation.rate:
        return line
    limit = leaving_seconds(line["leaving_bytes"], emulation.rails, bytes_per_second(emulation.rate))
    return line | {"rails": emulation.rails, "limit_s": limit, "of_limit": limit / line["median_s"]}


def _show(lines: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from distrain.units import format_bytes

    formula = (
        "limit: bytes that leave the busiest node / (rails x rate x 0.957); 0.957 is TCP's share of a link"
    )
    table = Table(title="a reshuffle of all images between nodes, time of the slowest rank", caption=formula)
    for heading in ("who", "nodes", "bytes of a node", "leave it", "median", "p90", "share of the limit"):
        table.add_column(heading, justify="right")
    for line in lines:
        if "error" in line:
            table.add_row(line["name"], line["error"])
        elif "median_s" in line:
            sizes = (format_bytes(line["bytes_per_node"]), format_bytes(line["leaving_bytes"]))
            times = (f"{line['median_s']:.3f} s", f"{line['p90_s']:.3f} s")
            share = f"{line['of_limit']:.1%} of {line['limit_s']:.3f} s" if "of_limit" in line else ""
            table.add_row(line["name"], str(line["nodes"]), *sizes, *times, share)
    console = Console()
    wide = Console(width=None if console.is_terminal else 160)
    wide.print(table)
    for line in lines:
        if "hidden" in line:
            wide.print(_told(line), highlight=False)


def _told(line: dict[str, Any]) -> str:
    """Say the figures of the exchange behind training, and how they are meant."""
    from distrain.units import format_bytes

    return (
        f"behind training: {line['steps']} steps of {line['compute_s'] * 1e3:.0f} ms of compute, in which "
        f"{format_bytes(line['gradient_bytes'])} of gradients are summed ({line['gradients_s'] * 1e3:.0f} ms "
        f"alone)\n"
        f"a step: {line['step_s'] * 1e3:.1f} ms, {line['step_with_images_s'] * 1e3:.1f} ms with images: "
        f"{line['slowdown_median']:+.1%} (median), {line['slowdown_mean']:+.1%} (mean)\n"
        f"an epoch: {line['epoch_s']:.3f} s, {line['epoch_with_images_s']:.3f} s with images; the exchange "
        f"alone {line['exchange_alone_s']:.3f} s\n"
        f"hidden: {line['hidden']:.1%} = 1 - (what the epoch takes longer) / (the exchange alone)"
    )
