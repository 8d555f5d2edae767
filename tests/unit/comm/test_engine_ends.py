"""How operations and the engine end: failures, stalls, what is given up, and the end of the process."""

from __future__ import annotations

import threading
import time

import pytest

from distrain.comm.engine import engine as engine_module
from distrain.comm.engine.engine import Engine
from distrain.comm.operation import Completion, FunctionCall
from distrain.errors import CommError
from tests.unit.comm.engine_cases import LONG, Gate


def test_an_error_reaches_every_waiter_with_its_cause(codes: list[int]) -> None:
    engine = Engine(codes.append, LONG, LONG, "rank 0")
    bad, other = Gate([], "bad", "one"), Gate([], "other", "two")
    waiting, failing = engine.submit(other), engine.submit(bad)
    bad.error = ZeroDivisionError("the cause")
    with pytest.raises(CommError, match=r"gate number 2 .*ZeroDivisionError: the cause") as caught:
        failing.wait(LONG)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(CommError, match="gate number 1"):
        waiting.wait(LONG)
    with pytest.raises(CommError, match="the cause"):
        engine.submit(Gate([], "too late"))
    engine.close()
    assert codes == [], "whoever closes the engine has noticed"


def test_nobody_reacting_to_an_error_ends_the_job(codes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distrain.comm.engine.engine.GRACE_SECONDS", 0.01)
    engine = Engine(codes.append, LONG, LONG, "rank 0")
    bad = Gate([], "bad")
    bad.error = ValueError("x")
    engine.submit(bad)
    deadline = time.monotonic() + LONG
    while not codes and time.monotonic() < deadline:
        time.sleep(0.01)
    assert codes == [1]


def test_stalls_are_reported_and_then_end_the_job(codes: list[int], caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate([], "slow")

    def abort(code: int) -> None:
        codes.append(code)
        gate.open.set()

    engine = Engine(abort, 0.02, 0.1, "rank 3 on node7")
    completion: Completion = engine.submit(gate)
    assert completion.wait(LONG)
    engine.close()
    assert codes[0] == 1
    reports = [record.getMessage() for record in caplog.records]
    assert reports[0].startswith("rank 3 on node7: gate number 1 of 0 bytes has been waiting for")
    assert "rank 7 to open slow" in reports[0]
    assert "ending the job" in reports[-1]


def test_what_cannot_say_whom_it_waits_for_ends_the_job_too(codes: list[int]) -> None:
    gate = Gate([], "silent")

    def waiting_for() -> str:
        raise IndexError("moved meanwhile")

    gate.waiting_for = waiting_for  # type: ignore[method-assign]

    def abort(code: int) -> None:
        codes.append(code)
        gate.open.set()

    engine = Engine(abort, 0.02, 0.1, "rank 3 on node7")
    assert engine.submit(gate).wait(LONG)
    engine.close()
    assert codes[0] == 1


def test_what_was_given_up_is_left_behind(engine: Engine) -> None:
    """In flight or behind it; what came in another queue, or was not given up, stays."""
    given_up = [engine.submit(Gate([], name)) for name in ("flies", "waits")]
    kept = [engine.submit(Gate([], "same")), engine.submit(Gate([], "other", "r"))]
    for completion in given_up:
        assert not engine.wait(completion, 0.05)
        completion.is_given_up = True
    assert engine.leave_behind({"q"}, 0.0)
    for completion in given_up:
        with pytest.raises(CommError, match="was given up after its timeout"):
            completion.wait()
    assert not any(completion.is_done for completion in kept)
    assert not engine.leave_behind({"q", "r"}, 0.0)
    engine.drop({"q"})
    with pytest.raises(CommError, match="its group was aborted"):
        kept[0].wait()
    kept[1].operation.open.set()
    assert kept[1].wait(LONG)


def test_closing_leaves_receives_behind_that_nobody_sends_to(
    codes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LONELY_SECONDS", 0.05)
    engine = Engine(codes.append, LONG, LONG, "rank 0")
    gate = Gate([], "receive")
    gate.serves_others = False
    completion = engine.submit(gate)
    engine.close()
    with pytest.raises(CommError, match="got no message"):
        completion.wait()


def test_closing_finishes_what_is_queued_and_refuses_more(codes: list[int]) -> None:
    engine = Engine(codes.append, LONG, LONG, "rank 0")
    gate = Gate([], "last")
    gate.open.set()
    completion = engine.submit(gate)
    engine.close()
    assert completion.is_done
    with pytest.raises(CommError, match="after the engine was closed"):
        engine.submit(Gate([], "more"))


def test_what_a_busy_engine_cannot_drop_now_it_drops_later(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile messages may come, so nothing is clean; who waits is told when the engine is free."""
    monkeypatch.setattr(engine_module, "STUCK_SECONDS", 0.05)
    dropped = engine.submit(Gate([], "dropped"))
    dropped.is_given_up = True
    busy, free = threading.Event(), threading.Event()

    def stuck() -> None:
        busy.set()
        free.wait(LONG)

    caller = threading.Thread(target=lambda: engine.wait(engine.submit(FunctionCall(stuck, blocks=False))))
    caller.start()
    assert busy.wait(LONG)
    assert engine.leave_behind({"q"}, 0.0)
    assert not dropped.is_done
    free.set()
    with pytest.raises(CommError, match="was given up"):
        dropped.wait(LONG)
    caller.join()
