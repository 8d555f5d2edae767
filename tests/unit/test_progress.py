"""How far a command is: in lines for logs, as a bar on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from distrain.cli.progress import ProgressLines


def test_a_line_every_half_minute_with_the_time_left() -> None:
    now, lines = [100.0], list[str]()
    progress = ProgressLines("packing", lines.append, lambda: now[0])
    for after, done in ((0, 40), (10, 60), (20, 80), (29.9, 90), (40, 120), (50, 140), (75, 190)):
        now[0] = 100.0 + after
        progress(done, 1000)
    assert lines == [
        "packing: 120 of 1000, 7 min 20 s left\n",  # 80 in 40 s; 40 were there already
        "packing: 190 of 1000, 6 min 45 s left\n",
    ]


def test_the_time_left_is_that_of_what_is_done_now() -> None:
    """1,000 are compared in 100 s, then packed: 100 in 50 s leave 450 s."""
    now, lines = [0.0], list[str]()
    progress = ProgressLines("packing", lines.append, lambda: now[0])
    for at, done in ((0, 0), (20, 200), (100, 1000), (100, 0), (150, 100)):
        now[0] = float(at)
        progress(done, 1000)
    assert lines[-1] == "packing: 100 of 1000, 7 min 30 s left\n"


def test_nothing_is_said_of_short_commands() -> None:
    lines: list[str] = []
    progress = ProgressLines("packing", lines.append, lambda: 0.0)
    for done in range(5):
        progress(done, 4)
    assert lines == []


BAR = """
from distrain.cli.progress import show_progress
with show_progress("packing") as progress:
    progress(3, 12)
    progress(12, 12)
"""


def test_a_terminal_shows_a_bar() -> None:
    outer, inner = pty.openpty()
    subprocess.run([sys.executable, "-c", BAR], stderr=inner, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(inner)
    shown = os.read(outer, 65536).decode()
    os.close(outer)
    assert "packing" in shown and "12/12" in shown and "0:00:00" in shown
