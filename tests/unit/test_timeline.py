"""Timelines: what is written can be read, also when the writer was killed; clocks; sums by step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from distrain import cli, timeline
from distrain.comm.process.clocks import offset_of
from distrain.errors import UsageError
from distrain.timeline import MAIN, Timeline
from distrain.timeline_reader import merge, read, steps_of, traces_of


def spans(path: Path) -> list[dict[str, object]]:
    return [event for event in read(path) if event["ph"] == "X"]


def test_a_merged_trace_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere/x\.json: cannot be written: No such file"):
        merge([], tmp_path / "nowhere" / "x.json")


def test_sums_by_step_are_those_of_a_plain_sum() -> None:
    """Spans that overlap, touch, contain each other and cross the borders of steps."""
    threads = {1: MAIN, 2: "collectives 0", 3: "collectives 1"}
    events: list[dict[str, object]] = [
        {"name": "thread_name", "ph": "M", "tid": tid, "args": {"name": name}}
        for tid, name in threads.items()
    ]

    def add(tid: int, name: str, begin: int, end: int, **args: int) -> None:
        span = {"name": name, "ph": "X", "tid": tid, "pid": 4, "ts": begin * 1e3, "dur": (end - begin) * 1e3}
        events.append({**span, "args": args})

    for number in range(3):
        add(1, "step", 10 * number, 10 * number + 9, step=number)
    add(1, "data wait", 0, 2)
    add(1, "data wait", 18, 21)  # in two steps, and in the gap between them
    add(2, "allreduce", 3, 5)
    add(3, "allreduce", 4, 12)
    add(2, "allreduce", 5, 6)
    add(2, "allreduce", 12, 13)
    add(1, "exposed communication", 11, 13)
    found = [(s.step, s.rank, s.wall, s.data, s.communication, s.exposed) for s in steps_of(events)]
    assert found == [(0, 4, 9, 2, 6, 0), (1, 4, 9, 1, 3, 2), (2, 4, 9, 1, 0, 0)]
    assert steps_of([e for e in events if e["tid"] != 2])[0].communication == 5


def test_show_prints_the_last_steps_and_medians_of_all(tmp_path: Path) -> None:
    """Steps of 10, 20 and 60 ms: the last is shown, the median is of the three."""
    (tmp_path / "trace").mkdir()
    events: list[dict[str, object]] = [
        {"name": "thread_name", "ph": "M", "tid": 1, "pid": 0, "args": {"name": MAIN}}
    ]
    for number, milliseconds in enumerate((10, 20, 60)):
        span = {"name": "step", "ph": "X", "tid": 1, "pid": 0, "ts": number * 1e6, "dur": milliseconds * 1e3}
        events.append({**span, "args": {"step": number}})
    (tmp_path / "trace" / "rank-0000.json").write_text("\n".join(map(json.dumps, events)))
    shown = CliRunner().invoke(cli.app, ["trace", "show", str(tmp_path), "--last", "1"])
    assert shown.exit_code == 0, shown.output
    rows = [line.split() for line in shown.output.replace("│", "").splitlines()]
    assert ["2", "0", "60.0", "0.0", "0.0", "0.0", "0.0"] in rows
    assert ["median", "of", "3", "0", "20.0", "0.0", "0.0", "0.0", "0.0"] in rows
    assert not any(row[:2] == ["1", "0"] for row in rows)


def test_off_means_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert timeline.current() is None
    with timeline.span("forward"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_closed_trace_is_json_with_all_spans_of_all_threads(tmp_path: Path) -> None:
    path = tmp_path / "trace" / "rank-0003.json"
    trace = Timeline(path, 3, "node7", offset_seconds=2.0, zero_seconds=1.0, error_seconds=5e-6)
    timeline.start(trace)

    def work(number: int) -> None:
        for _ in range(100):
            with timeline.span("decode", f"decoder {number}", images=number):
                pass

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    trace.add("first", MAIN, 10.0, 10.5)
    for thread in threads:
        thread.join()
    timeline.stop()
    events = json.loads(path.read_text())  # whole and valid
    assert len(spans(path)) == 401
    assert all(event["pid"] == 3 for event in events)
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert sorted(names.values()) == ["decoder 0", "decoder 1", "decoder 2", "decoder 3", MAIN]
    first = next(event for event in events if event["name"] == "first")
    assert (first["ts"], first["dur"]) == (11e6, 0.5e6)
    assert events[0]["args"] == {"name": "rank 3 on node7", "clock_error_us": 5.0}
    assert timeline.current() is None


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), max_size=30))
def test_parallel_spans_never_overlap_in_a_row(tmp_path_factory: pytest.TempPathFactory, found: list) -> None:
    path = tmp_path_factory.mktemp("trace") / "rank-0000.json"
    trace = Timeline(path, 0, "h")
    for begin, length in sorted(found, key=lambda one: one[0] + one[1]):  # in the order of their ends
        trace.add_parallel("x", "collectives", begin, begin + length)
    trace.close()
    rows: dict[object, float] = {}
    for span in sorted(spans(path), key=lambda e: e["ts"]):  # type: ignore[arg-type, return-value]
        begin, length = float(str(span["ts"])), float(str(span["dur"]))
        assert begin >= rows.get(span["tid"], 0.0) - 0.01
        rows[span["tid"]] = begin + length
    assert len(spans(path)) == len(found)


def test_only_the_chosen_steps_are_recorded(tmp_path: Path) -> None:
    trace = Timeline(tmp_path / "rank-0000.json", 0, "h", steps=(2, 3))
    for step in range(1, 6):
        trace.at_step(step)
        trace.add("step", MAIN, step, step + 1, step=step)
    trace.close()
    assert [span["args"] for span in spans(tmp_path / "rank-0000.json")] == [{"step": 2}, {"step": 3}]


def test_a_full_trace_says_what_it_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_EVENTS", 10)
    trace = Timeline(tmp_path / "rank-0000.json", 0, "h")
    for number in range(25):
        trace.add("x", MAIN, number, number + 1)
        if number == 7:
            trace.flush()
    trace.close()
    events = json.loads((tmp_path / "rank-0000.json").read_text())
    assert len(spans(tmp_path / "rank-0000.json")) == 10
    assert events[-1]["args"] == {"left_out": 15}


def test_the_trace_of_a_killed_process_is_readable(tmp_path: Path) -> None:
    program = (
        "import time, pathlib; from distrain.timeline import Timeline, MAIN\n"
        "trace = Timeline(pathlib.Path('rank-0000.json'), 0, 'h')\n"
        "for n in range(1000): trace.add('x', MAIN, n, n + 1)\n"
        "trace.flush(); print('ready', flush=True); time.sleep(60)\n"
    )
    job = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE)
    assert job.stdout is not None and job.stdout.readline() == b"ready\n"
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    job.stdout.close()
    path = tmp_path / "rank-0000.json"
    assert len(spans(path)) == 1000
    with path.open("r+b") as file:  # and killed in the middle of a line
        file.truncate(path.stat().st_size - 40)
    assert len(spans(path)) == 999
    assert merge(traces_of(tmp_path), tmp_path / "all.json") == len(
        json.loads((tmp_path / "all.json").read_text())
    )


def test_a_folder_without_traces_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no traces; run the job with comm\.timeline=true"):
        traces_of(tmp_path)


def test_steps_are_summed_up(tmp_path: Path) -> None:
    """A step of 100 ms: 10 of waiting, collectives from 40 to 90 twice at once, 15 of it exposed."""
    trace = Timeline(tmp_path / "rank-0001.json", 1, "h")
    trace.add("data wait", MAIN, 0.0, 0.010)
    trace.add_parallel("allreduce", "collectives", 0.040, 0.070)
    trace.add_parallel("allreduce", "collectives", 0.050, 0.090)
    trace.add_parallel("exposed communication", "waiting for communication", 0.075, 0.090)
    trace.add("step", MAIN, 0.0, 0.100, step=5)
    trace.add_parallel("allreduce", "collectives", 0.110, 0.120)  # of the step after
    trace.close()
    (times,) = steps_of(read(tmp_path / "rank-0001.json"))
    assert (times.rank, times.step) == (1, 5)
    assert [times.wall, times.data, times.communication, times.exposed, times.hidden] == pytest.approx(
        [100, 10, 50, 15, 35]
    )


@given(
    offset=st.floats(-1e3, 1e3),
    ways=st.lists(st.tuples(st.floats(1e-6, 1e-2), st.floats(1e-6, 1e-2)), min_size=1, max_size=16),
)
def test_the_offset_of_a_clock_is_within_its_error(offset: float, ways: list[tuple[float, float]]) -> None:
    rounds, now = [], time.perf_counter()
    for there, back in ways:
        rounds.append((now, now + there + back, now + there + offset))
        now += there + back
    found, error = offset_of(rounds)
    assert abs(found - offset) <= error + 1e-9
