"""How a thread waits for messages. Each test has the C side to itself: its state is one a process."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distrain.comm import build_native
from distrain.comm.process.event_sets import event_sets

MILLISECOND = 1_000_000
NEVER = 60_000 * MILLISECOND  # a test that sleeps so long has failed
TRUST = 16  # announced movements after which a set is trusted
TOO_MANY = 201  # times ready for nothing, after which it is dropped


class Source:
    """What an MPI has: an epoll set with a file in it that others write to."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.set = select.epoll()
        self.set.register(self._read, select.EPOLLIN)

    def send(self) -> None:
        os.write(self._write, b"x")

    def take(self) -> None:
        os.read(self._read, 1)

    def close(self) -> None:
        self.set.close()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.close()


@pytest.fixture
def rest(tmp_path: Path) -> Any:
    """Functions of a library of its own."""
    if not build_native.LIBRARY.exists():
        pytest.skip("the C side is not compiled here")
    library = ctypes.CDLL(shutil.copy(build_native.LIBRARY, tmp_path / "own.so"))
    library.distrain_rest.argtypes = [ctypes.c_int64] * 3 + [ctypes.c_int]
    return library


def watch(rest: Any, *sources: Source) -> None:
    sets = (ctypes.c_int * len(sources))(*(source.set.fileno() for source in sources))
    assert rest.distrain_rest_watch(sets, len(sources)) >= 0


def sleep(rest: Any, longest: int, waited: int = 10 * MILLISECOND) -> int:
    """Sleep as who has waited so long already, with nothing else to do; return nanoseconds."""
    begin = time.perf_counter_ns()
    rest.distrain_rest(waited, 0, longest, 1)
    return time.perf_counter_ns() - begin


def earn_trust(rest: Any, source: Source) -> None:
    for _ in range(TRUST):
        source.send()
        sleep(rest, NEVER)
        source.take()
        rest.distrain_rest_told(1)


def test_the_sets_of_this_process_are_found() -> None:
    before = event_sets()
    with select.epoll() as made:
        assert event_sets() - before == {made.fileno()}
    assert event_sets() == before


def test_before_it_is_trusted_a_sleep_is_a_nap(rest: Any, source: Source) -> None:
    """Nothing comes: a tenth of what was waited passes, not `longest`."""
    watch(rest, source)
    assert sleep(rest, NEVER, 100 * MILLISECOND) >= 10 * MILLISECOND


def test_a_trusted_set_ends_a_long_sleep(rest: Any, source: Source) -> None:
    watch(rest, source)
    earn_trust(rest, source)
    threading.Timer(0.05, source.send).start()
    assert 20 * MILLISECOND < sleep(rest, NEVER) < NEVER


def test_what_comes_unannounced_costs_trust(rest: Any, source: Source) -> None:
    """As messages in the memory of the node do: from then on sleeps are naps again."""
    watch(rest, source)
    earn_trust(rest, source)
    sleep(rest, MILLISECOND)
    rest.distrain_rest_told(1)
    assert sleep(rest, NEVER, 100 * MILLISECOND) < NEVER


def test_who_waits_for_other_things_too_only_naps(rest: Any, source: Source) -> None:
    watch(rest, source)
    earn_trust(rest, source)
    rest.distrain_rest(100 * MILLISECOND, 0, NEVER, 0)
    rest.distrain_rest_told(1)  # and it is no fault of the set
    threading.Timer(0.05, source.send).start()
    assert sleep(rest, NEVER, 10 * NEVER) < NEVER


def test_a_set_that_is_ready_for_nothing_is_dropped(rest: Any, source: Source) -> None:
    """From then on it ends no sleep; the other one still does."""
    other = Source()
    watch(rest, source, other)
    source.send()
    for _ in range(3 * TOO_MANY):  # those that a busy machine makes longer do not count
        sleep(rest, NEVER)
        rest.distrain_rest_told(0)
    assert sleep(rest, NEVER, 500 * MILLISECOND) >= 50 * MILLISECOND
    other.send()
    assert sleep(rest, NEVER, 10 * NEVER) < NEVER
    other.close()


def test_a_ring_ends_a_sleep(rest: Any, source: Source) -> None:
    """And is used up by it: the next sleep is not disturbed."""
    watch(rest, source)
    earn_trust(rest, source)
    threading.Timer(0.05, rest.distrain_rest_ring).start()
    assert sleep(rest, NEVER) < NEVER
    assert sleep(rest, 50 * MILLISECOND) >= 50 * MILLISECOND


def test_a_ring_while_nobody_sleeps_is_forgotten(rest: Any, source: Source) -> None:
    watch(rest, source)
    earn_trust(rest, source)
    rest.distrain_rest_ring()
    assert sleep(rest, 50 * MILLISECOND) >= 50 * MILLISECOND


def test_without_sets_sleeps_go_by_the_clock(rest: Any) -> None:
    assert rest.distrain_rest_watch((ctypes.c_int * 1)(), 0) == -1
    rest.distrain_rest_ring()
    assert sleep(rest, NEVER, 100 * MILLISECOND) >= 10 * MILLISECOND
