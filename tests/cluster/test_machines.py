"""Emulated machines: what they leave behind, and an error that is not hidden by a second one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distrain.bench import machines
from distrain.bench.machines import Machines

OWNER = """
import sys, time
from distrain.bench.machines import Machines
with Machines(2, base="10.97") as made:
    print(made.agent.parent, *(made.processes("h0") or ["none"]), flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def able() -> None:
    reason = machines.why_not()
    if reason is not None:
        pytest.skip(reason)


def gone(path: Path) -> bool:
    until = time.monotonic() + 20
    while path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return not path.exists()


def test_nothing_stays_after_the_end() -> None:
    with Machines(2, base="10.97") as made:
        folder = made.agent.parent
        assert made.run("h1", ["hostname"], capture_output=True, text=True).stdout == "h1\n"
    assert gone(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_if_the_owner_is_killed(number: signal.Signals) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().split()[0])
    assert (folder / "agent").exists()
    holders = [int(path.read_text()) for path in folder.glob("*.pid")]
    owner.send_signal(number)
    owner.communicate(timeout=20)
    assert gone(folder)
    until = time.monotonic() + 20
    while any(map(is_alive, holders)) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(holders) == 3 and not any(map(is_alive, holders))


def is_alive(process: int) -> bool:
    try:
        return " (sleep) Z" not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def test_the_first_error_is_the_one_that_is_seen() -> None:
    """A machine that has died is no reason for another error while the rest is switched off."""
    with pytest.raises(ValueError, match="the first"), Machines(2, base="10.97") as made:
        folder = made.agent.parent
        os.kill(int((folder / "h1.pid").read_text()), signal.SIGKILL)
        while is_alive(int((folder / "h1.pid").read_text())):
            time.sleep(0.01)
        raise ValueError("the first")
    assert gone(folder)


def test_a_machine_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_SETUP", "exit 7")
    with pytest.raises(RuntimeError, match="machine h0 did not start"), Machines(1, base="10.97"):
        pass
