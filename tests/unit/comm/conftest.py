"""Every test of this folder begins in a process that has called nothing yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distrain.comm.supervision.board import board


def wipe() -> None:
    board.step = None
    board.calls.clear()
    board.quick.clear()
    board.heard.clear()


@pytest.fixture(autouse=True)
def fresh_board() -> Iterator[None]:
    wipe()
    yield
    wipe()
