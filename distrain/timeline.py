"""What happened when, on this rank: spans of time that any room adds, written while the program runs.

The file is a trace in Chrome's JSON array format (Google, "Trace Event Format"), one event a line, which
ui.perfetto.dev and chrome://tracing open. A thread appends what has come in every second, and the format
needs no closing bracket, so the trace of a rank that is killed is readable to its last second. Off by
default; then `span` and `add` cost a comparison.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# Of some 150 bytes each: a trace of a rank takes at most about 150 MB of disk.
MOST_EVENTS = 1_000_000
FLUSH_SECONDS = 1.0
MAIN = "main thread"

Event = tuple[str, str, float, float, dict[str, Any]]


class Timeline:
    """The open trace of one rank.

    Args:
        path: file to write; its folder is made.
        rank: number of this rank; the trace's process.
        host: where it runs.
        offset_seconds: what to add to this host's clock to get rank 0's.
        zero_seconds: the moment, on rank 0's clock, that the trace calls 0; the same on all ranks.
        error_seconds: how wrong the offset may be.
        steps: only training steps from the first to the second, both included; None: all.
    """

    def __init__(
        self,
        path: Path,
        rank: int,
        host: str,
        offset_seconds: float = 0.0,
        zero_seconds: float = 0.0,
        error_seconds: float = 0.0,
        steps: tuple[int, int] | None = None,
    ) -> None:
        self._rank, self._steps = rank, steps
        self._shift = offset_seconds - zero_seconds
        self._events: list[Event] = []
        self._tracks: dict[str, int] = {}
        self._slots: dict[str, list[float]] = {}  # ends of the last span of each parallel track
        self._lock = threading.Lock()
        self._written = 0
        self.left_out = 0
        self.is_recording = steps is None or steps[0] <= 1
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("w")
        self._file.write("[\n")
        about = {"name": f"rank {rank} on {host}", "clock_error_us": round(error_seconds * 1e6, 1)}
        self._write({"ph": "M", "name": "process_name", "pid": rank, "tid": 0, "args": about})
        self._write({"ph": "M", "name": "process_sort_index", "pid": rank, "args": {"sort_index": rank}})
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="distrain-timeline", daemon=True)
        self._thread.start()

    def add(self, name: str, track: str, begin: float, end: float, **about: Any) -> None:
        """Add a span; times are ``time.perf_counter()`` of this process. Any thread."""
        if not self.is_recording:
            return
        with self._lock:
            if self._written + len(self._events) >= MOST_EVENTS:
                self.left_out += 1
            else:
                self._events.append((name, track, begin, end, about))

    def add_parallel(self, name: str, track: str, begin: float, end: float, **about: Any) -> None:
        """Add a span that may overlap others of its kind: it goes to the first row that is free."""
        with self._lock:
            ends = self._slots.setdefault(track, [])
            row = next((row for row, last in enumerate(ends) if last <= begin), len(ends))
            ends[row : row + 1] = [end]
        self.add(name, f"{track} {row}", begin, end, **about)

    def at_step(self, step: int) -> None:
        """Say which training step begins: outside of the chosen ones nothing is recorded."""
        if self._steps is not None:
            self.is_recording = self._steps[0] <= step <= self._steps[1]

    def flush(self) -> None:
        """Write what has come in so far."""
        with self._lock:
            events, self._events = self._events, []
            for name, track, begin, end, about in events:
                self._write(self._span(name, track, begin, end, about))
            self._written += len(events)
            if not self._file.closed:
                self._file.flush()

    def close(self) -> None:
        """Write the rest and close the file. A second call changes nothing."""
        self._stopped.set()
        self.flush()
        with self._lock:
            if self._file.closed:
                return
            about = {"left_out": self.left_out}
            last = {"ph": "M", "name": "distrain_end", "pid": self._rank, "tid": 0, "args": about}
            self._file.write(json.dumps(last) + "\n]\n")
            self._file.close()

    def _span(self, name: str, track: str, begin: float, end: float, about: dict[str, Any]) -> dict[str, Any]:
        number = self._tracks.get(track)
        if number is None:
            number = self._tracks[track] = len(self._tracks)
            title = {
                "ph": "M",
                "name": "thread_name",
                "pid": self._rank,
                "tid": number,
                "args": {"name": track},
            }
            self._write(title)
        event: dict[str, Any] = {"ph": "X", "name": name, "pid": self._rank, "tid": number}
        event["ts"] = round((begin + self._shift) * 1e6, 3)
        event["dur"] = round(max(0.0, end - begin) * 1e6, 3)
        if about:
            event["args"] = about
        return event

    def _write(self, event: dict[str, Any]) -> None:
        if not self._file.closed:
            self._file.write(json.dumps(event, separators=(",", ":")) + ",\n")

    def _run(self) -> None:
        while not self._stopped.wait(FLUSH_SECONDS):
            self.flush()


_open: Timeline | None = None


def start(timeline: Timeline) -> None:
    """Record from now on."""
    global _open
    _open = timeline


def stop() -> None:
    """Stop recording and close the file."""
    global _open
    if _open is not None:
        timeline, _open = _open, None
        timeline.close()


def current() -> Timeline | None:
    """Return the open timeline; None: nothing is recorded."""
    return _open


@contextmanager
def span(name: str, track: str = MAIN, **about: Any) -> Iterator[None]:
    """Record what is inside as one span."""
    timeline = _open
    if timeline is None:
        yield
        return
    begin = time.perf_counter()
    try:
        yield
    finally:
        timeline.add(name, track, begin, time.perf_counter(), **about)
