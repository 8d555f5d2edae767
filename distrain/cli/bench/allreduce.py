"""`distrain bench allreduce`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from distrain.bench.start import Emulation


def allreduce(
    ranks: Annotated[int, typer.Option(min=1, help="ranks in all")],
    size: Annotated[
        str, typer.Option("--bytes", help="payload of each rank, e.g. 25MiB; several: 4KiB,1MiB")
    ],
    algorithm: Annotated[
        str | None,
        typer.Option(help="Schedule of distrain's wire, also inside a node; default: as in training"),
    ] = None,
    colors: Annotated[int | None, typer.Option(min=1, max=16, help="default: as in training")] = None,
    segment: Annotated[
        str | None, typer.Option(help="longest message on the wire; default: that of training")
    ] = None,
    against: Annotated[
        str, typer.Option(help="peers, out of mpi,mpi-ring,gloo,horovod; empty: none")
    ] = "mpi,mpi-ring,gloo,horovod",
    iterations: Annotated[int, typer.Option(min=3)] = 21,
    machines: Annotated[
        int,
        typer.Option(min=0, help="emulated machines to spread the ranks over (needs root); 0: this one"),
    ] = 0,
    rails: Annotated[int, typer.Option(min=1, help="network cards of an emulated machine")] = 1,
    rate: Annotated[str, typer.Option(help="rate of their links, as tc spells it; empty: none")] = "1gbit",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line on stdout")] = False,
) -> None:
    """Sum an array over ranks: distrain beside MPI's own allreduce, gloo and Horovod."""
    from distrain.bench.start import Emulation, run_ranks
    from distrain.comm.settings import CommSettings
    from distrain.errors import UsageError, nearest
    from distrain.schedule import registry
    from distrain.units import parse_bytes

    peers = [name for name in against.split(",") if name]
    known = ("mpi", "mpi-ring", "gloo", "horovod")
    for name in peers:
        if name not in known:
            raise UsageError(
                "--against", f"{name!r} is no peer{nearest(name, known)}", f"use {','.join(known)}"
            )
    if algorithm is not None:
        registry.family(algorithm)  # an unknown algorithm is refused here, by name
    settings = CommSettings(algorithm=algorithm or "auto", colors=colors, node_memory=algorithm is None)
    if segment is not None:
        settings = settings.model_copy(update={"segment_bytes": parse_bytes(segment)})
    emulation = Emulation(machines, rails, rate) if machines else None
    if emulation is not None:
        settings = settings.model_copy(update={"link_gbit": emulation.link_gbit})
    lines: list[dict[str, Any]] = []
    for text in size.split(","):
        arguments = ["--bytes", str(parse_bytes(text)), "--settings", settings.model_dump_json()]
        arguments += ["--against", ",".join(peers), "--iterations", str(iterations)]
        found = run_ranks("distrain.bench.allreduce", arguments, ranks, emulation)
        if emulation is not None:
            found = [{**line, "machines": emulation.count} for line in found]
        if emulation is not None and rate:
            found = [_with_floor(line, emulation) for line in found]
        lines += found
        if as_json:
            for line in found:
                print(json.dumps(line), flush=True)
    if not as_json:
        _show(lines)
    if not all(line.get("correct", True) for line in lines):
        sys.exit(1)


def _with_floor(line: dict[str, Any], emulation: Emulation) -> dict[str, Any]:
    """Add the time that bandwidth alone takes, and how far above it a contender is."""
    from distrain.bench.machines import bytes_per_second
    from distrain.bench.stats import wire_floor_seconds

    speed = bytes_per_second(emulation.rate)
    floor = wire_floor_seconds(line["bytes"], emulation.count, emulation.rails, speed)
    return line | ({"floor_s": floor, "of_floor": line["median_s"] / floor} if "median_s" in line else {})


def _show(lines: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from distrain.units import format_bytes

    floor = any("floor_s" in line for line in lines)
    formula = "floor: 2 (n-1)/n bytes / (rails x rate) / 0.957 for n machines; 0.957 is TCP's share of a link"
    table = Table(title="allreduce, float32, time of the slowest rank", caption=formula if floor else None)
    headings = ["bytes", "ranks", "who", "algorithm", "median", "p90", "bus GB/s", "against ours"]
    for heading in headings + ["of the floor"] * floor:
        table.add_column(heading, justify="right")
    ours = {
        line["bytes"]: line["median_s"] for line in lines if line["name"] == "distrain" and "median_s" in line
    }
    for line in lines:
        head = (format_bytes(line["bytes"]), str(line["ranks"]), line["name"], line["algorithm"])
        if "error" in line:
            table.add_row(*head, line["error"])
            continue
        ratio = f"{line['median_s'] / ours[line['bytes']]:.2f} x" if line["bytes"] in ours else ""
        times = (f"{line['median_s'] * 1e3:.3f} ms", f"{line['p90_s'] * 1e3:.3f} ms")
        above = (f"{line['of_floor']:.3f} x {line['floor_s'] * 1e3:.2f} ms",) if "floor_s" in line else ()
        table.add_row(*head, *times, f"{line['busbw_gbytes_per_s']:.2f}", ratio, *above)
    console = Console()
    Console(width=None if console.is_terminal else 160).print(table)
