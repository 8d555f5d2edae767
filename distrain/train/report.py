"""The end of a run: `result.json` and a small table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console
from rich.table import Table

from distrain.files import write_atomic
from distrain.train.metrics import percent, to_json
from distrain.train.parts import Result


def write_result(result: Result, folder: Path) -> Path:
    """Write `result.json` into the run folder, atomically."""
    path = folder / "result.json"
    write_atomic(path, (to_json(dataclasses.asdict(result)) + "\n").encode())
    return path


def show_result(result: Result, folder: Path, console: Console | None = None) -> None:
    """Print the final table, on stdout if no console is given."""
    # Plain text of a fixed width: mpirun gives its ranks a terminal of no known width even when its own
    # output goes to a file, and a path must not wrap.
    console = console or Console(width=max(100, 20 + len(str(folder))), force_terminal=False)
    table = Table(show_header=False, title=f"Training {result.status}", title_justify="left")
    for name, value in _rows(result, folder):
        table.add_row(name, value)
    console.print(table, highlight=False)


def _rows(result: Result, folder: Path) -> list[tuple[str, str]]:
    rows = []
    if result.top1 is not None and result.top5 is not None:
        rows.append(("top-1", f"{result.top1:.2%} of {result.eval_images} held-out images"))
        rows.append(("top-5", f"{result.top5:.2%}"))
    minutes, seconds = divmod(round(result.wall_seconds), 60)
    done = f"{result.steps} steps ({round(result.epochs, 2):g} epochs), ranks: {result.world_size}"
    rows += [
        ("trained", f"{done}, global batch {result.global_batch}"),
        ("wall time", f"{minutes} min {seconds} s" if minutes else f"{result.wall_seconds:.1f} s"),
        ("speed", f"{result.images_per_second:.0f} images/s"),
        (
            "step time",
            f"data {result.data_share:.1%}, compute {result.compute_share:.1%}, "
            f"communication {percent(result.comm_share, 1)}",
        ),
    ]
    if result.skipped_images:
        rows.append(("skipped", f"{result.skipped_images} images that did not decode"))
    rows.append(("run folder", str(folder)))
    if result.status == "stopped":
        rows.append(("next", "go on with --resume auto: a checkpoint was written"))
    return rows
