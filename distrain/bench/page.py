"""docs/benchmarks.md: runs the benchmarks as a user would, and writes what they say.

Each suite is commands whose JSON lines become one table. A suite that fails leaves its last words in the
page. One that is not asked for keeps what the page had of it, and where that was measured.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrain.units import format_bytes

Line = dict[str, Any]
OURS = {"distrain", "native"}
TEMPLATE = Path(__file__).with_name("page.md")
_END = "<!-- end -->"  # of a suite's part of the page, which `_begin` opens


@dataclass(frozen=True)
class Suite:
    """One table of the page.

    Attributes:
        name: where it goes in the template: ``{name}``.
        commands: arguments of `distrain bench`, without ``--json``.
        table: makes Markdown of the lines of all commands.
    """

    name: str
    commands: tuple[str, ...]
    table: Callable[[Sequence[Line]], str]

    def run(self) -> str:
        """Return the commands and the table, or what went wrong."""
        lines: list[Line] = []
        problems: list[str] = []
        for command in self.commands:
            print(f"distrain bench {command}", file=sys.stderr, flush=True)
            words = [sys.executable, "-m", "distrain", "bench", *shlex.split(command), "--json"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            lines += [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
            if done.returncode != 0:
                said = done.stderr.strip().splitlines() or ["nothing"]
                problems.append(f"`distrain bench {command}` ended with code {done.returncode}: {said[-1]}")
        shown = "\n".join(f"distrain bench {command}" for command in self.commands)
        text = f"```sh\n{shown}\n```\n\n{self.table(lines) if lines else ''}"
        return "\n\n".join([text.rstrip(), *problems])


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    table = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def pivot(
    lines: Sequence[Line],
    head: Callable[[Line], tuple[str, ...]],
    heads: Sequence[str],
    value: str,
    scale: float,
    lower_is_better: bool,
) -> str:
    """Return a table with a row for each `head`, a column a contender, and ours over the best peer.

    Args:
        lines: of the benchmark.
        head: the first cells of a line's row.
        heads: titles of these cells.
        value: the key that is shown.
        scale: what it is multiplied with.
        lower_is_better: of times; a ratio below 1 is ahead then, above 1 otherwise.
    """
    names = list(dict.fromkeys(line["name"] for line in lines if value in line))
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for line in lines:
        if value in line:
            rows.setdefault(head(line), {})[line["name"]] = line[value] * scale
    table = []
    for cells, row in rows.items():
        ours = [seen for name, seen in row.items() if name in OURS]
        peers = [seen for name, seen in row.items() if not name.startswith(tuple(OURS))]
        best = (min(peers) if lower_is_better else max(peers)) if peers else None
        ratio = f"{ours[0] / best:.2f}" if ours and best else ""
        table.append([*cells, *(f"{row[name]:,.4g}" if name in row else "-" for name in names), ratio])
    return markdown([*heads, *names, "ours / best peer"], table)


def allreduce_table(lines: Sequence[Line]) -> str:
    """Milliseconds by ranks and size."""
    return pivot(
        lines,
        lambda n: (str(n["ranks"]), format_bytes(n["bytes"])),
        ("ranks", "bytes"),
        "median_s",
        1e3,
        True,
    )


def machines_table(lines: Sequence[Line]) -> str:
    """Milliseconds by machines, rails and size, with the floor of the links."""

    def head(line: Line) -> tuple[str, ...]:
        floor = line.get("floor_s")
        bare = f"{floor * 1e3:,.4g}" if floor else ""
        return str(line["ranks"]), format_bytes(line["bytes"]), bare

    return pivot(lines, head, ("hosts", "bytes", "floor"), "median_s", 1e3, True)


def short_table(lines: Sequence[Line]) -> str:
    """Milliseconds by machines, ranks and size."""
    return pivot(
        lines,
        lambda n: (str(n.get("machines", 1)), str(n["ranks"]), format_bytes(n["bytes"])),
        ("hosts", "ranks", "bytes"),
        "median_s",
        1e3,
        True,
    )


def ddp_table(lines: Sequence[Line]) -> str:
    """Compute, communication and step of each synchroniser."""
    rows = []
    for line in lines:
        if "step_s" in line:
            times = [f"{line[key] * 1e3:,.1f}" for key in ("compute_s", "communication_s", "step_s")]
            cells = [str(line["ranks"]), format_bytes(line["bytes"]), line["name"]]
            rows.append([*cells, *times, f"{line['over_longer']:.3f}"])
    return markdown(["ranks", "gradients", "who", "compute", "communication", "step", "step / longer"], rows)


def loader_table(lines: Sequence[Line]) -> str:
    """Images per CPU-second by set and threads."""
    return pivot(
        lines,
        lambda line: (str(line["set"]), str(line["threads"])),
        ("set", "threads"),
        "images_per_cpu_s",
        1,
        False,
    )


def load_table(lines: Sequence[Line]) -> str:
    """GB/s by ranks; with and without checksums over a plain copy into new memory."""
    names = list(dict.fromkeys(line["name"] for line in lines))
    rows: dict[tuple[str, str], dict[str, Line]] = {}
    for line in lines:
        rows.setdefault((str(line["ranks"]), str(line["threads"])), {})[line["name"]] = line
    table = [
        [*head, *(f"{row[name]['gbytes_per_s']:.2f}" for name in names),
         *(f"{row[name]['of_memcpy']:.2f}" for name in names[:2])]
        for head, row in rows.items()
    ]  # fmt: skip
    return markdown(["ranks", "threads each", *names, *(f"{name} / memcpy" for name in names[:2])], table)


def exchange_table(lines: Sequence[Line]) -> str:
    """Seconds of a reshuffle and its share of the links; then what it costs training meanwhile."""
    alone = [
        [
            str(line["nodes"]),
            str(line["rails"]),
            line["name"],
            f"{line['median_s']:.3f}",
            f"{line['limit_s']:.3f}",
            f"{line['of_limit']:.2f}",
        ]
        for line in lines
        if "of_limit" in line
    ]
    behind = [
        [
            str(line["nodes"]),
            f"{line['compute_s'] * 1e3:.0f} + {line['gradients_s'] * 1e3:.0f}",
            f"{line['slowdown_median']:+.1%}",
            f"{line['slowdown_mean']:+.1%}",
            f"{line['hidden']:.1%}",
        ]
        for line in lines
        if "hidden" in line
    ]
    first = markdown(["hosts", "rails", "who", "seconds", "limit", "of the limit"], alone)
    heads = ["hosts", "compute + gradients of a step, ms", "step, median", "step, mean", "hidden"]
    return first + ("\n\n" + markdown(heads, behind) if behind else "")


SUITES = (
    Suite(
        "one_node",
        (
            "allreduce --ranks 2 --bytes 4KiB,32KiB,1MiB,25MiB,102MB",
            "allreduce --ranks 4 --bytes 4KiB,32KiB,1MiB,25MiB,102MB",
        ),
        allreduce_table,
    ),
    Suite(
        "one_rail",
        (
            "allreduce --ranks 4 --machines 4 --bytes 100MB --iterations 5",
            "allreduce --ranks 8 --machines 8 --bytes 100MB --iterations 3",
            "allreduce --ranks 16 --machines 16 --bytes 1MB,4MB --iterations 21 --against mpi,mpi-ring",
        ),
        machines_table,
    ),
    Suite(
        "short",
        tuple(
            f"allreduce {shape} --bytes 8,1KiB,16KiB --iterations 41 --against mpi,mpi-ring"
            for shape in ("--ranks 4 --machines 4", "--ranks 8 --machines 4", "--ranks 16 --machines 16")
        ),
        short_table,
    ),
    Suite(
        "two_rails",
        ("allreduce --ranks 4 --machines 4 --rails 2 --bytes 100MB --iterations 5",),
        machines_table,
    ),
    Suite(
        "ddp",
        (
            "ddp --ranks 2",
            "ddp --ranks 2 --machines 2 --compute sleep:836ms:resnet50 --iterations 9 --against gloo",
            "ddp --ranks 4 --machines 4 --compute sleep:1280ms:resnet50 --iterations 9 --against gloo",
        ),
        ddp_table,
    ),
    Suite(
        "loader",
        (
            "loader --set orig",
            "loader --set orig --threads 2",
            "loader --set short256",
            "loader --set yuv420",
            "loader --set raw",
        ),
        loader_table,
    ),
    Suite(
        "exchange",
        (
            "exchange --ranks 4 --machines 4",
            "exchange --ranks 8 --machines 8 --bytes 96MB --gradients 0",
            "exchange --ranks 4 --machines 4 --rails 2 --gradients 0",
        ),
        exchange_table,
    ),
    Suite(
        "load",
        tuple(f"load --ranks {ranks} --bytes 512MB" for ranks in (1, 2, 4)),
        load_table,
    ),
)


def processor() -> str:
    """Return the name of the processor, as Linux knows it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def page(names: Sequence[str], before: str = "") -> str:
    """Run suites and return the page; the others keep what they had.

    Args:
        names: of the suites; empty: all.
        before: the page as it was.
    """
    import torch

    from distrain.launch import mpi

    system = f"{platform.system()} {platform.release().split('-')[0]}"
    machine = f"{len(os.sched_getaffinity(0))} cores of {processor()}, {system}, {mpi.find().version}"
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    tables = {
        suite.name: suite.run() if not names or suite.name in names else kept(suite.name, before)
        for suite in SUITES
    }
    text = TEMPLATE.read_text().replace("{machine}", f"{machine}, {versions}")
    for name, table in tables.items():
        text = text.replace("{" + name + "}", f"{_begin(name)}\n{table}\n{_END}")
    return text


def _begin(name: str) -> str:
    return f"<!-- {name} -->"


def kept(name: str, page: str) -> str:
    """Return what a page has of a suite, under a line that says that it is older than the page."""
    _, found, rest = page.partition(_begin(name) + "\n")
    if not found:
        return "Not run yet."
    table = rest.partition("\n" + _END)[0]
    if table.startswith("Of an earlier run"):
        return table
    machine = next((line for line in page.splitlines() if line.startswith("Machine: ")), "Machine: unknown.")
    return f"Of an earlier run. {machine}\n\n{table}"
