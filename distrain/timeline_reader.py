"""Traces read back: merged into one file, and summed up by training step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    """
    count = 0
    with out.open("w") as file:
        file.write("[\n")
        for path in paths:
            for event in read(path):
                file.write(("" if count == 0 else ",\n") + json.dumps(event, separators=(",", ":")))
                count += 1
        file.write("\n]\n")
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
    """Return the steps of one rank's trace, in order."""
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    spans = [e for e in events if e["ph"] == "X"]
    main = [e for e in spans if names.get(e["tid"]) == MAIN]
    busy = [e for e in spans if names.get(e["tid"], "").startswith(COLLECTIVES)]
    exposed = [e for e in spans if e["name"] == EXPOSED]
    found = []
    for step in sorted((e for e in main if e["name"] == STEP), key=lambda e: e["ts"]):
        window = (step["ts"], step["ts"] + step["dur"])
        data = [e for e in main if e["name"] == DATA]
        parts = [_covered(kind, window) / 1e3 for kind in (data, busy, exposed)]
        found.append(StepTimes(step["pid"], int(step["args"]["step"]), step["dur"] / 1e3, *parts))
    return found


def _covered(spans: Sequence[dict[str, Any]], window: tuple[float, float]) -> float:
    """Return how much of a window the union of spans covers."""
    covered, reached = 0.0, window[0]
    for span in sorted(spans, key=lambda e: e["ts"]):
        begin, end = max(span["ts"], reached), min(span["ts"] + span["dur"], window[1])
        if end > begin:
            covered += end - begin
            reached = end
    return covered
