"""A job with a timeline leaves a trace of every rank; of one that fails: test_faults.py."""

from __future__ import annotations

from typing import Any

from distrain.timeline_reader import read, steps_of
from distrain.world import rank_name
from tests.jobs.trainings import Trainings


def tracks(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "X":
            found.setdefault(names[event["tid"]].rstrip("0123456789").strip(), []).append(event)
    return found


def test_every_rank_leaves_its_trace(trainings: Trainings) -> None:
    folder = trainings(2, "timeline").folder
    starts = []
    for rank in range(2):
        events = read(folder / "trace" / f"{rank_name(rank)}.json")
        found = tracks(events)
        names = {event["name"] for event in found["main thread"]}
        assert {"step", "data wait", "forward", "backward", "optimizer"} <= names
        assert any(e["name"].startswith("allreduce by ") for e in found["collectives"])
        assert any(name.startswith("color 0 lane") for name in found)
        assert any(name.startswith("distrain-decode") for name in found)
        steps = steps_of(events)
        assert [times.step for times in steps] == list(range(1, 9))
        for times in steps:
            assert times.communication > 0 and times.exposed <= times.wall
        # inside a step: forward before backward before optimizer
        first = {e["name"]: e["ts"] for e in reversed(found["main thread"])}
        assert first["forward"] < first["backward"] < first["optimizer"]
        starts.append(next(e["ts"] for e in events if e["name"] == "step"))
    assert abs(starts[0] - starts[1]) < 5e6  # one clock: steps of the ranks begin together, within seconds
