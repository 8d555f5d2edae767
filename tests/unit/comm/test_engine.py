"""Order, priority and limits of the engine, and who does its work, with operations that need no MPI."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from distrain.comm.engine.engine import Engine
from distrain.comm.operation import Completion, Fence, Priority, when_all_done
from distrain.errors import CommError
from tests.unit.comm.engine_cases import LONG, Gate


class Ticker(Gate):
    """Complete after some looks; notes which thread looks. Says that it waits by itself."""

    waits = True

    def __init__(self, log: list[str], name: str, looks: int, on_look: Callable[[], object]) -> None:
        super().__init__(log, name, queue=name)
        self.looks, self.on_look = looks, on_look
        self.threads: set[str] = set()

    def progress(self) -> bool:
        if self.error is not None:
            raise self.error
        self.threads.add(threading.current_thread().name)
        self.on_look()
        self.looks -= 1
        return self.looks <= 0


def nothing() -> None:
    """Do nothing."""


def test_a_caller_that_waits_for_all_there_is_does_the_work(engine: Engine) -> None:
    ticker = Ticker([], "a", 5, nothing)
    assert engine.wait(engine.submit(ticker, awaited=True))
    assert ticker.threads == {threading.current_thread().name}
    assert not engine.is_busy(ticker.queue)


def test_what_others_submit_meanwhile_goes_on_and_outlives_the_guest(engine: Engine) -> None:
    other = Gate([], "other", queue="elsewhere")
    submitted: list[Completion] = []
    ticker = Ticker([], "a", 50, lambda: submitted or submitted.append(engine.submit(other)))
    assert engine.wait(engine.submit(ticker, awaited=True))
    assert ticker.threads == {threading.current_thread().name}
    assert other.started.wait(LONG) and not submitted[0].is_done
    other.open.set()  # now the engine's own thread has it
    assert submitted[0].wait(LONG)


def test_an_awaited_operation_that_cannot_wait_itself_runs_in_the_engine_thread(engine: Engine) -> None:
    gate = Gate([], "a")
    gate.open.set()
    assert engine.wait(engine.submit(gate, awaited=True))


def test_a_caller_who_stands_in_leaves_at_its_timeout_and_the_engine_goes_on(engine: Engine) -> None:
    gate = Ticker([], "a", 10**9, lambda: time.sleep(0.001))
    completion = engine.submit(gate, awaited=True)
    assert not engine.wait(completion, timeout_seconds=0.02)
    assert threading.current_thread().name in gate.threads
    gate.looks = 3
    assert completion.wait(LONG)  # nobody stands in: only the engine's own thread is left to look
    assert "distrain-engine" in gate.threads
    soon = Ticker([], "b", 3, nothing)
    assert engine.wait(engine.submit(soon, awaited=True), timeout_seconds=LONG)
    assert soon.threads == {threading.current_thread().name}


def test_an_error_in_a_caller_who_stands_in_reaches_everyone_who_waits(codes: list[int]) -> None:
    engine = Engine(codes.append, LONG, LONG, "rank 0")
    other = Gate([], "other", queue="elsewhere")
    submitted: list[Completion] = []

    def look() -> None:
        if submitted:
            raise ValueError("broken")
        submitted.append(engine.submit(other))

    with pytest.raises(CommError, match="broken"):
        engine.wait(engine.submit(Ticker([], "a", 50, look), awaited=True))
    with pytest.raises(CommError, match="broken"):
        submitted[0].wait(LONG)
    with pytest.raises(CommError, match="broken"):
        engine.submit(Gate([], "late"))
    engine.close()
    assert codes == []  # closing is a reaction


def test_one_queue_starts_in_the_order_of_submission(engine: Engine) -> None:
    log: list[str] = []
    gates = [Gate(log, name) for name in "abcde"]
    completions = [engine.submit(gate) for gate in gates]
    for gate in reversed(gates):
        gate.open.set()
    for completion in completions:
        assert completion.wait(LONG)
    assert log == list("abcde")


def test_at_most_the_limit_is_in_flight(engine: Engine) -> None:
    log: list[str] = []
    gates = [Gate(log, name, limit=2) for name in "abc"]
    completions = [engine.submit(gate) for gate in gates]
    gates[1].started.wait(LONG)
    assert log == ["a", "b"] and not gates[2].started.is_set()
    gates[1].open.set()  # any free place will do: b may end before a
    assert gates[2].started.wait(LONG)
    gates[0].open.set()
    gates[2].open.set()
    assert all(completion.wait(LONG) for completion in completions)


def test_queues_do_not_hold_each_other_up(engine: Engine) -> None:
    log: list[str] = []
    stuck, free = Gate(log, "stuck", "one"), Gate(log, "free", "two")
    first = engine.submit(stuck)
    free.open.set()
    assert engine.submit(free).wait(LONG)
    stuck.open.set()
    assert first.wait(LONG)


def test_gradients_start_before_bulk(engine: Engine) -> None:
    log: list[str] = []
    held = Gate(log, "held")
    engine.submit(held)
    held.started.wait(LONG)
    bulk, gradient = Gate(log, "bulk"), Gate(log, "gradient")
    later = [engine.submit(bulk, Priority.BULK), engine.submit(gradient, Priority.GRADIENT)]
    for gate in (held, bulk, gradient):
        gate.open.set()
    assert all(completion.wait(LONG) for completion in later)
    assert log == ["held", "gradient", "bulk"]


def test_what_is_not_ready_holds_those_behind_it(engine: Engine) -> None:
    log: list[str] = []
    first, second = Gate(log, "first", limit=None), Gate(log, "second", limit=None)
    first.ready = False
    completions = [engine.submit(first), engine.submit(second)]
    assert not second.started.wait(0.05)
    first.ready = True
    first.open.set()
    second.open.set()
    assert all(completion.wait(LONG) for completion in completions)
    assert log == ["first", "second"]


def test_hooks_run_around_the_operation_in_the_engine_thread(engine: Engine) -> None:
    log: list[str] = []
    gate = Gate(log, "start")
    gate.before = lambda: log.append(threading.current_thread().name)
    gate.after = lambda: log.append("after")
    gate.open.set()
    completion = engine.submit(gate)
    completion.wait(LONG)
    assert log == ["distrain-engine", "start", "after"]


def test_call_returns_what_the_function_returns(engine: Engine) -> None:
    assert engine.call(lambda: threading.current_thread().name) == "distrain-engine"


def test_wait_times_out_without_harm(engine: Engine) -> None:
    gate = Gate([], "late")
    completion = engine.submit(gate)
    assert not engine.wait(completion, 0.01)
    gate.open.set()
    assert engine.wait(completion, LONG)
    assert engine.take_exposed_seconds() >= 0.01


def test_callbacks_run_once_and_also_when_late(engine: Engine) -> None:
    gates = [Gate([], name) for name in "ab"]
    completions = [engine.submit(gate) for gate in gates]
    seen: list[BaseException | None] = []
    when_all_done(completions, seen.append)
    for gate in gates:
        gate.open.set()
    for completion in completions:
        completion.wait(LONG)
    when_all_done(completions, seen.append)
    when_all_done([], seen.append)
    assert seen == [None, None, None]


def test_idle_engine_uses_no_cpu(engine: Engine) -> None:
    engine.call(lambda: None)
    before = engine.call(time.thread_time)
    time.sleep(0.3)
    assert engine.call(time.thread_time) - before < 0.01  # CPU time, not wall time: noise does not count


def test_a_mark_is_reached_after_what_came_before_in_its_queue(engine: Engine) -> None:
    before, after = Gate([], "before", limit=2), Gate([], "after", limit=2)
    completions = [engine.submit(before), engine.submit(Fence("q")), engine.submit(after)]
    assert engine.wait(engine.submit(Fence("elsewhere")))
    assert not completions[1].wait(0.05)
    before.open.set()
    assert completions[1].wait(LONG) and not completions[2].is_done
    after.open.set()
    assert completions[2].wait(LONG)


class Driven(Gate):
    """Like `Gate`, and C could move it."""

    def __init__(self, driver: int | None) -> None:
        super().__init__([], "driven", limit=None)
        self.driver = driver


@pytest.mark.parametrize(
    ("drivers", "expected"),
    [((1, 2, 3), {(1, 2), (1, 2, 3)}), ((1,), set()), ((1, None), set())],
    ids=["several", "one", "of different kinds"],
)
def test_several_that_c_can_move_wait_in_one_call(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    drivers: tuple[int | None, ...],
    expected: set[tuple[int, ...]],
) -> None:
    seen: set[tuple[int, ...]] = set()

    def advance_all(found: list[int], news: object) -> list[bool]:
        seen.add(tuple(found))
        time.sleep(0.001)
        return [gates[driver - 1].open.is_set() for driver in found]

    monkeypatch.setattr("distrain.comm.engine.motion.advance_all", advance_all)
    gates = [Driven(driver) for driver in drivers]
    completions: list[Completion] = []
    for gate in gates:
        completions.append(engine.submit(gate))
        assert gate.started.wait(LONG)
        time.sleep(0.05)  # some rounds
    for gate in gates:
        gate.open.set()
    assert all(completion.wait(LONG) for completion in completions)
    assert seen - {(2, 3), (1, 3)} == expected  # they may end in any order


def test_what_may_become_ready_is_looked_after(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    late = Driven(3)
    late.ready, late.queue = False, "another"
    calls: list[bool] = []

    def advance_all(found: list[int], news: object) -> list[bool]:
        calls.append(late.ready)
        return [True for _ in found]

    monkeypatch.setattr("distrain.comm.engine.motion.advance_all", advance_all)
    gates = [late, Driven(1), Driven(2)]
    completions = [engine.submit(gate) for gate in gates]
    assert gates[2].started.wait(LONG)
    time.sleep(0.05)
    late.ready = True  # nothing tells the engine
    assert late.started.wait(LONG)
    for gate in gates:
        gate.open.set()
    assert all(completion.wait(LONG) for completion in completions)
    assert False not in calls
