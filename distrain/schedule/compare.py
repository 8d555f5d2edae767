"""Which allreduce wins where: payloads down, machines across, by the formulas that choose in a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distrain.schedule.advice import Speeds, estimate, payload_rate

# What is compared, and what the table calls it. One rank a node, so nothing is hierarchical.
SHOWN = {
    "multicolor_ring": "ring",
    "multicolor_tree": "tree",
    "halving_doubling": "halving",
    "recursive_doubling": "doubling",
}


@dataclass(frozen=True)
class Winner:
    """The fastest algorithm for one payload on one machine.

    Attributes:
        algorithm: a name in the registry.
        seconds: its time by the formula.
        lead: how many times as long the second takes.
    """

    algorithm: str
    seconds: float
    lead: float


def winner(ranks: int, payload_bytes: int, gbit: float, step_seconds: float) -> Winner:
    """Return the fastest for a payload between nodes of one rank and one link each.

    Args:
        ranks: at least 2.
        payload_bytes: of the whole payload.
        gbit: Gbit/s of a link.
        step_seconds: of one step: latency, and the work of both communication threads.
    """
    speeds = Speeds(step_seconds=step_seconds, bytes_per_second=payload_rate(gbit))
    times = []
    for name in SHOWN:
        seconds = estimate(name, range(ranks), payload_bytes, 1, speeds)
        assert seconds is not None  # all of `SHOWN` have a formula between nodes
        times.append((seconds, name))
    (first, name), (second, _) = sorted(times)[:2]
    return Winner(name, first, second / first)


def table(
    ranks: Sequence[int], gbits: Sequence[float], sizes: Sequence[tuple[str, int]], step_seconds: float
) -> str:
    """Return a table for people: who wins, and its lead over the second.

    Args:
        ranks: one column for each, in every group.
        gbits: one group of columns for each.
        sizes: rows, as they are called and in bytes.
        step_seconds: see `winner`.
    """
    heads = [f"n={count}" for _ in gbits for count in ranks]
    groups = [f"{gbit:g} Gbit/s" for gbit in gbits]
    width = 15
    lines = [" " * 10 + "".join(group.rjust(width * len(ranks)) for group in groups)]
    lines.append("bytes".rjust(10) + "".join(head.rjust(width) for head in heads))
    for title, size in sizes:
        cells = [winner(count, size, gbit, step_seconds) for gbit in gbits for count in ranks]
        shown = [f"{SHOWN[cell.algorithm]} {cell.lead:.2f}x".rjust(width) for cell in cells]
        lines.append(title.rjust(10) + "".join(shown))
    return "\n".join(lines) + "\n"
