"""``distrain schedule show|verify|draw|compare``: look at the collective algorithms, as text or picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distrain.errors import UsageError
from distrain.schedule.compare import table
from distrain.schedule.draw import draw as draw_svg
from distrain.schedule.ir import Collective, Schedule
from distrain.schedule.registry import generate, names
from distrain.schedule.text import to_text
from distrain.schedule.verify import verify as verify_laws
from distrain.units import parse_bytes, parse_seconds
from distrain.world import split

app = typer.Typer(
    help="Collective algorithms as data: show, verify, draw and compare them.", no_args_is_help=True
)

_ALGORITHMS = "One of: " + ", ".join(names()) + "."
Algorithm = Annotated[str, typer.Argument(help=_ALGORITHMS, metavar="ALGORITHM", show_default=False)]
Ranks = Annotated[int, typer.Option(min=1, help="Number of ranks.", show_default=False)]
Colors = Annotated[int, typer.Option(min=1, help="Independent rings or trees.")]
Nodes = Annotated[
    int | None, typer.Option(min=1, help="Spread the ranks over so many nodes, neighbours together.")
]
Which = Annotated[Collective, typer.Option("--collective", help="What is computed.")]
Out = Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")]


def register(parent: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    parent.add_typer(app, name="schedule")


@app.command()
def show(
    algorithm: Algorithm,
    ranks: Ranks,
    colors: Colors = 2,
    nodes: Nodes = None,
    collective: Which = Collective.ALLREDUCE,
) -> None:
    """Print every transfer of a schedule, step by step."""
    typer.echo(to_text(_schedule(algorithm, ranks, colors, nodes, collective)), nl=False)


@app.command()
def verify(
    algorithm: Algorithm,
    ranks: Ranks,
    colors: Colors = 2,
    nodes: Nodes = None,
    collective: Which = Collective.ALLREDUCE,
) -> None:
    """Check the laws: everyone counted exactly once, no hazard, no deadlock, the same bits everywhere."""
    schedule = _schedule(algorithm, ranks, colors, nodes, collective)
    verify_laws(schedule)
    transfers = sum(len(step) for step in schedule.steps)
    typer.echo(
        f"{schedule.name} {schedule.collective.value} ranks={schedule.world_size} "
        f"colors={schedule.colors} steps={len(schedule.steps)} transfers={transfers}: all laws hold"
    )


@app.command()
def draw(
    algorithm: Algorithm,
    ranks: Ranks,
    colors: Colors = 2,
    nodes: Nodes = None,
    collective: Which = Collective.ALLREDUCE,
    out: Out = None,
) -> None:
    """Draw a schedule as SVG: for each color who talks to whom, and when."""
    schedule = _schedule(algorithm, ranks, colors, nodes, collective)
    picture = draw_svg(schedule, _placement(ranks, nodes))
    if out is None:
        typer.echo(picture, nl=False)
        return
    try:
        out.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            "distrain schedule draw",
            f"--out={str(out)!r} cannot be written ({error.strerror})",
            "name a file in a folder that exists",
        ) from None
    typer.echo(f"wrote {out}", err=True)


@app.command()
def compare(
    ranks: Annotated[str, typer.Option(help="Numbers of nodes, one rank each.")] = "16,64,256",
    gbit: Annotated[str, typer.Option(help="Gbit/s of a node's link.")] = "1,10,100",
    sizes: Annotated[str, typer.Option("--bytes", help="Payloads.")] = (
        "1KiB,16KiB,64KiB,256KiB,1MiB,4MiB,16MiB,64MiB,256MiB"
    ),
    step: Annotated[str, typer.Option(help="Time of one step: latency and the work at both ends.")] = "50us",
) -> None:
    """Print which allreduce wins where, and its lead over the second, by the formulas that a job uses."""
    rows = [(size, parse_bytes(size)) for size in sizes.split(",")]
    counts = [int(_positive("--ranks", count)) for count in ranks.split(",")]
    if min(counts) < 2:
        raise UsageError("--ranks", f"{min(counts)} has nothing to send", "name 2 nodes or more")
    rates = [_positive("--gbit", rate) for rate in gbit.split(",")]
    typer.echo(table(counts, rates, rows, parse_seconds(step)), nl=False)


def _positive(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise UsageError(option, f"{text!r} is not a number above 0", "separate numbers with commas")
    return value


def _schedule(algorithm: str, ranks: int, colors: int, nodes: int | None, collective: Collective) -> Schedule:
    return generate(algorithm, ranks, colors, collective, _placement(ranks, nodes))


def _placement(ranks: int, nodes: int | None) -> list[int] | None:
    """Return the node of each rank: equal nodes, neighbours together."""
    if nodes is None:
        return None
    if nodes > ranks:
        raise UsageError(
            "distrain schedule",
            f"--nodes={nodes} is more than --ranks={ranks}",
            "give every node a rank",
        )
    return [node for node, part in enumerate(split(ranks, nodes)) for _ in part]
