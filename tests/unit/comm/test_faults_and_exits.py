from __future__ import annotations

import pytest

from distrain.comm.supervision import faults
from distrain.comm.supervision.exits import exit_code_of
from distrain.comm.supervision.faults import Fault, fault_point
from distrain.errors import UsageError


def test_a_fault_is_read_from_the_environment() -> None:
    assert Fault.from_environment({}) == ()
    found = Fault.from_environment({"DISTRAIN_FAULT": "rank=1, step=3, kind=raise; rank=2,step=3,kind=stop"})
    assert found == (Fault(1, 3, "raise"), Fault(2, 3, "stop"))


@pytest.mark.parametrize(
    "text", ["rank=1", "rank=1,step=x,kind=raise", "rank=1,step=2,kind=rise", "nonsense"]
)
def test_a_fault_that_is_not_understood(text: str) -> None:
    with pytest.raises(UsageError, match="DISTRAIN_FAULT"):
        Fault.from_environment({"DISTRAIN_FAULT": text})


def test_it_strikes_at_its_rank_and_step_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fault_point(1, 3)
    monkeypatch.setattr(faults, "_faults", (Fault(1, 3, "raise"),))
    fault_point(0, 3)
    fault_point(1, 2)
    with pytest.raises(faults.InjectedFault, match="step 3"):
        fault_point(1, 3)
    monkeypatch.setattr(faults, "_faults", (Fault(0, 0, "exit"),))
    with pytest.raises(SystemExit) as caught:
        fault_point(0, 0)
    assert caught.value.code == 3


@pytest.mark.parametrize(("value", "code"), [(None, 0), (0, 0), (3, 3), (True, 1), ("message", 1), (258, 2)])
def test_exit_codes_are_those_of_python(value: object, code: int) -> None:
    assert exit_code_of(value) == code
