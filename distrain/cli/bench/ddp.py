"""`distrain bench ddp`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer


def ddp(
    ranks: Annotated[int, typer.Option(min=1, help="ranks in all")],
    compute: Annotated[
        str,
        typer.Option(
            help="resnet18, ... for real compute; sleep:200ms for a model that leaves the cores free, "
            "of equal layers or sleep:200ms:resnet50 of those of a model"
        ),
    ] = "resnet18",
    size: Annotated[str, typer.Option("--bytes", help="gradients of a model of equal layers")] = "25MB",
    images: Annotated[int, typer.Option(min=1, help="images of 64 x 64 of each rank, for a real model")] = 16,
    bucket: Annotated[str | None, typer.Option(help="DDP's buckets; default: chosen as in training")] = None,
    against: Annotated[str, typer.Option(help="peers, out of gloo,mpi,horovod")] = "gloo,horovod",
    iterations: Annotated[int, typer.Option(min=3)] = 11,
    machines: Annotated[
        int,
        typer.Option(min=0, help="emulated machines to spread the ranks over (needs root); 0: this one"),
    ] = 0,
    rails: Annotated[int, typer.Option(min=1, help="network cards of an emulated machine")] = 1,
    rate: Annotated[str, typer.Option(help="rate of their links, as tc spells it; empty: none")] = "1gbit",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line on stdout")] = False,
) -> None:
    """Steps of DDP: is a step as long as the longer of compute and communication?"""
    from distrain.bench.start import Emulation, run_ranks
    from distrain.comm.settings import CommSettings
    from distrain.errors import UsageError, nearest
    from distrain.units import parse_bytes, parse_seconds

    known = ("gloo", "mpi", "horovod")
    peers = [name for name in against.split(",") if name]
    for name in peers:
        if name not in known:
            raise UsageError(
                "--against", f"{name!r} is no peer{nearest(name, known)}", f"use {','.join(known)}"
            )
    kind, *rest = compute.split(":")
    seconds = parse_seconds(rest[0] if rest else "") if kind == "sleep" else -1.0
    model = "".join(rest[1:2]) if kind == "sleep" else kind
    emulation = Emulation(machines, rails, rate) if machines else None
    settings = CommSettings(link_gbit=None if emulation is None else emulation.link_gbit)
    arguments = ["--bytes", str(parse_bytes(size)), "--sleep", str(seconds), "--model", model]
    arguments += ["--images", str(images), "--names", ",".join(["distrain", *peers])]
    arguments += ["--bucket", str(parse_bytes(bucket) if bucket else 0)]
    arguments += ["--iterations", str(iterations), "--settings", settings.model_dump_json()]
    lines = run_ranks("distrain.bench.ddp", arguments, ranks, emulation)
    if as_json:
        for line in lines:
            print(json.dumps(line), flush=True)
    else:
        _show(lines)
    if not all(line.get("correct", True) for line in lines):
        sys.exit(1)


def _show(lines: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="a step of DDP, milliseconds, medians of the slowest rank")
    for heading in ("who", "ranks", "compute", "communication", "step", "step / longer"):
        table.add_column(heading, justify="right")
    for line in lines:
        head = (line["name"], str(line["ranks"]))
        if "error" in line:
            table.add_row(*head, line["error"], "", "", "")
            continue
        times = [f"{line[key] * 1e3:.1f}" for key in ("compute_s", "communication_s", "step_s")]
        table.add_row(*head, *times, f"{line['over_longer']:.3f}")
    Console().print(table)
