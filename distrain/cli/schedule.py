"""``distrain schedule show|verify|draw``: look at the collective algorithms, as text or picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distrain.errors import UsageError
from distrain.schedule.draw import draw as draw_svg
from distrain.schedule.ir import Collective, Schedule
from distrain.schedule.registry import generate, names
from distrain.schedule.text import to_text
from distrain.schedule.verify import verify as verify_laws
from distrain.world import split

app = typer.Typer(help="Collective algorithms as data: show, verify and draw them.", no_args_is_help=True)

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
