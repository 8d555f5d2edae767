"""Traces read back: merged into one file, and summed up by training step."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from distrain.errors import UsageError
from distrain.timeline import MAIN

PATTERN = "rank-*.json"
STEP, DATA, EXPOSED = "step", "data wait", "exposed communication"
COLLECTIVES = "collectives"


def traces_of(folder: Path) -> list[Path]:
    """Return the traces of a run folder, or of a folder of traces, by rank.

    Raises:
        UsageError: there are none.
    """
    found = sorted(folder.glob(f"trace/{PATTERN}")) or sorted(folder.glob(PATTERN))
    if not found:
        raise UsageError(str(folder), "holds no traces", "run the job with comm.timeline=true")
    return found


def read(path: Path) -> list[dict[str, Any]]:
    """Return the events of a trace; of one whose rank was killed, those that are whole."""
    events = []
    for line in path.read_text().splitlines():
        text = line.strip().rstrip(",")
        if text in ("[", "]", ""):
            continue
        try:
            events.append(json.loads(text))
        except ValueError:
            break  # the last line of a rank that was killed while it wrote
    return events


def merge(paths: Iterable[Path], out: Path) -> int:
    """Write the traces of all ranks into one file; return the number of events.

    Their clocks were aligned when they were written.

    Raises:
        UsageError: the file cannot be written.
    """
    count = 0
    try:
        with out.open("w") as file:
            file.write("[\n")
            for path in paths:
                for event in read(path):
                    file.write(("" if count == 0 else ",\n") + json.dumps(event, separators=(",", ":")))
                    count += 1
            file.write("\n]\n")
    except OSError as error:
        raise UsageError(str(out), f"cannot be written: {error.strerror}", "give another --out") from None
    return count


@dataclass(frozen=True)
class StepTimes:
    """Where the time of one step of one rank went, in milliseconds.

    Attributes:
        rank: the rank.
        step: number of the step.
        wall: from its begin to its end.
        data: waiting for images.
        communication: while at least one collective was in flight.
        exposed: of which compute waited for.
    """

    rank: int
    step: int
    wall: float
    data: float
    communication: float
    exposed: float

    @property
    def hidden(self) -> float:
        """Communication behind compute."""
        return max(0.0, self.communication - self.exposed)


def steps_of(events: Sequence[dict[str, Any]]) -> list[StepTimes]:
    """Return the steps of one rank's trace, in order; costs one sort of the events."""
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    spans = [e for e in events if e["ph"] == "X"]
    main = [e for e in spans if names.get(e["tid"]) == MAIN]
    kinds = (
        [e for e in main if e["name"] == DATA],
        [e for e in spans if names.get(e["tid"], "").startswith(COLLECTIVES)],
        [e for e in spans if e["name"] == EXPOSED],
    )
    unions = [_Union(kind) for kind in kinds]
    found = []
    for step in sorted((e for e in main if e["name"] == STEP), key=lambda e: e["ts"]):
        begin, end = step["ts"], step["ts"] + step["dur"]
        parts = [(union.before(end) - union.before(begin)) / 1e3 for union in unions]
        found.append(StepTimes(step["pid"], int(step["args"]["step"]), step["dur"] / 1e3, *parts))
    return found


class _Union:
    """The union of spans as intervals that do not touch, and how much of it lies before each."""

    def __init__(self, spans: Sequence[dict[str, Any]]) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        for span in sorted(spans, key=lambda e: e["ts"]):
            begin, end = span["ts"], span["ts"] + span["dur"]
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)
        lengths = (end - begin for begin, end in zip(self._begins, self._ends, strict=True))
        self._covered = [0.0, *accumulate(lengths)]

    def before(self, time: float) -> float:
        """Return how much of the union lies before a time."""
        number = bisect_right(self._begins, time)
        if number == 0:
            return 0.0
        return self._covered[number] - max(0.0, self._ends[number - 1] - time)
