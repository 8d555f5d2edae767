"""Every test of this folder begins in a process that has called nothing yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distrain.comm.engine.engine import Engine
from distrain.comm.supervision.board import board
from tests.unit.comm.engine_cases import LONG


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


@pytest.fixture
def codes() -> list[int]:
    return []


@pytest.fixture
def engine(codes: list[int]) -> Iterator[Engine]:
    engine = Engine(codes.append, LONG, LONG, "rank 0")
    yield engine
    engine.close()
