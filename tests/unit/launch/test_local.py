"""The foreground runner: exit codes, signals, and the verdict over a job that ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from distrain.errors import LaunchError
from distrain.launch.failures import first_failure
from distrain.launch.job import Command
from distrain.launch.local import Outcome, run
from distrain.launch.verdict import Verdict, judge
from distrain.world import rank_name


def python(code: str, **env: str) -> Command:
    return Command((sys.executable, "-c", textwrap.dedent(code)), env)


def test_exit_code_environment_and_output(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run(python("import os, sys; print(os.environ['A']); sys.exit(85)", A="it's"))
    assert outcome == Outcome(85)
    assert capfd.readouterr().out == "it's\n"


def test_a_killed_starter() -> None:
    outcome = run(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert outcome == Outcome(137)


def test_stdin_is_empty() -> None:
    assert run(python("import sys; sys.exit(len(sys.stdin.read()))")) == Outcome(0)


def test_starter_that_cannot_be_run(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(LaunchError, match="cannot be started"):
        run(Command((str(tmp_path / "mpirun"),), {}))
    assert signal.getsignal(signal.SIGINT) is before


# A launcher process of its own, whose "mpirun" tells what it gets. It answers each line on stdin of the test.
LAUNCHER = """
import sys
from distrain.launch.job import Command
from distrain.launch.local import run
command = Command((sys.executable, "-c", sys.argv[1]), {})
outcome = run(command, stop_seconds=float(sys.argv[2]), kill_seconds=0.3)
print("outcome", outcome.code, outcome.signal.name if outcome.signal else None, flush=True)
"""
STARTER = """
import signal, sys, time
def caught(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    if signal.Signals(number).name == {leave_on!r}: sys.exit(7)
for name in ("SIGUSR1", "SIGUSR2", "SIGINT", "SIGTERM"): signal.signal(getattr(signal, name), caught)
print("ready", flush=True)
while True: time.sleep(0.05)
"""


def converse(
    leave_on: str,
    send: list[signal.Signals],
    stop_seconds: float = 60,
    unheard: tuple[signal.Signals, ...] = (),
) -> list[str]:
    """Send signals to a launcher, each after its starter has told of the one before, the unheard at first."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, STARTER.format(leave_on=leave_on), str(stop_seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().strip()]
    for number in unheard:
        os.kill(process.pid, number)
    for number in send:
        os.kill(process.pid, number)
        lines.append(process.stdout.readline().strip())
    lines += process.stdout.read().splitlines()
    assert process.wait(30) == 0
    return lines


def test_first_ctrl_c_is_polite() -> None:
    assert converse("SIGUSR1", [signal.SIGINT]) == ["ready", "got SIGUSR1", "outcome 7 SIGINT"]


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_what_its_caller_ignores_stays_ignored(ignored: signal.Signals) -> None:
    before = signal.signal(ignored, signal.SIG_IGN)  # which a child inherits, as of nohup
    try:
        told = converse("SIGUSR1", [signal.SIGUSR1], unheard=(ignored,))
    finally:
        signal.signal(ignored, before)
    assert told == ["ready", "got SIGUSR1", "outcome 7 SIGUSR1"]


def test_second_request_ends_third_kills() -> None:
    assert converse("SIGTERM", [signal.SIGTERM, signal.SIGTERM]) == [
        "ready",
        "got SIGUSR1",
        "got SIGTERM",
        "outcome 7 SIGTERM",
    ]
    assert converse("never", [signal.SIGINT, signal.SIGINT, signal.SIGINT]) == [
        "ready",
        "got SIGUSR1",
        "got SIGTERM",
        "outcome 137 SIGINT",
    ]


def test_a_job_that_does_not_follow_is_ended_by_the_clock() -> None:
    assert converse("never", [signal.SIGUSR1], stop_seconds=0.1) == [
        "ready",
        "got SIGUSR1",
        "got SIGTERM",
        "outcome 137 SIGUSR1",
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is of Linux")
def test_a_killed_launcher_takes_its_starter_along() -> None:
    words = [sys.executable, "-c", LAUNCHER, STARTER.format(leave_on="SIGTERM"), "60"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    assert process.stdout.read() == "got SIGTERM\n"  # and the pipe is closed: the starter has ended
    process.stdout.close()


def test_usr2_is_passed_on() -> None:
    assert converse("SIGUSR2", [signal.SIGUSR2]) == ["ready", "got SIGUSR2", "outcome 7 None"]


def leave(run: Path, rank: int, at: float, code: int = 1) -> None:
    (run / "failures").mkdir(exist_ok=True)
    record = {"rank": rank, "exit_code": code, "traceback": f"Traceback of {rank}\n", "time": at}
    (run / "failures" / f"{rank_name(rank)}.json").write_text(json.dumps(record))


def result(run: Path, status: str) -> None:
    (run / "result.json").write_text(json.dumps({"status": status}))


def test_the_first_failing_rank_speaks(tmp_path: Path) -> None:
    leave(tmp_path, 0, at=20.0, code=1)
    leave(tmp_path, 3, at=10.0, code=2)
    leave(tmp_path, 1, at=10.0, code=9)
    verdict = judge(tmp_path, Outcome(255))
    assert verdict.code == 9
    assert verdict.message == "---- rank 1 failed first ----\nTraceback of 1"


def test_a_half_written_failure_does_not_hide_the_others(tmp_path: Path) -> None:
    leave(tmp_path, 2, at=10.0, code=3)
    (tmp_path / "failures" / "rank-0001.json").write_text('{"rank": 1')
    failure = first_failure(tmp_path)
    assert failure is not None and failure.rank == 2
    (tmp_path / "failures" / "rank-0002.json").unlink()
    failure = first_failure(tmp_path)
    assert failure is not None and failure.rank == 1 and "is not whole" in failure.traceback


def test_completed(tmp_path: Path) -> None:
    result(tmp_path, "completed")
    assert judge(tmp_path, Outcome(0)).code == 0
    assert judge(tmp_path, Outcome(0, signal.SIGINT)).code == 0  # it came in the last step
    for code in (1, 143):  # it came while the ranks were leaving, and the starter ended them
        assert judge(tmp_path, Outcome(code, signal.SIGINT)) == Verdict(0, "")
    assert judge(tmp_path, Outcome(134)).code == 134  # a crash after the result is still a crash


@pytest.mark.parametrize(
    ("asked", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 85), (None, 85)]
)
def test_stopped_with_a_checkpoint(tmp_path: Path, asked: signal.Signals | None, code: int) -> None:
    result(tmp_path, "stopped")
    verdict = judge(tmp_path, Outcome(0, asked))
    assert verdict.code == code
    assert verdict.message.endswith("was stopped with a checkpoint; go on with --resume auto")


def test_asked_to_stop_and_failed(tmp_path: Path) -> None:
    assert judge(tmp_path, Outcome(1, signal.SIGUSR1)).code == 1
    leave(tmp_path, 3, at=10.0, code=2)
    assert judge(tmp_path, Outcome(255, signal.SIGUSR1)).code == 2


def test_interrupted_without_a_checkpoint(tmp_path: Path) -> None:
    verdict = judge(tmp_path, Outcome(1, signal.SIGINT))
    assert verdict.code == 130 and "without a checkpoint" in verdict.message


def test_a_failure_is_told_though_a_signal_came_too(tmp_path: Path) -> None:
    leave(tmp_path, 3, at=10.0)
    verdict = judge(tmp_path, Outcome(1, signal.SIGTERM))
    assert verdict.code == 143
    first, last = verdict.message.splitlines()[0], verdict.message.splitlines()[-1]
    assert first == "---- rank 3 failed first ----" and "Traceback of 3" in verdict.message
    assert last.endswith("was stopped without a checkpoint")


def test_code_zero_without_a_result_is_a_failure(tmp_path: Path) -> None:
    verdict = judge(tmp_path, Outcome(0))
    assert verdict.code == 1 and "probably a machine was lost" in verdict.message


def test_killed_rank_is_named(tmp_path: Path) -> None:
    verdict = judge(tmp_path, Outcome(137))
    assert verdict.code == 137
    assert "exit code 137 (a process was ended by SIGKILL, perhaps for lack of memory)" in verdict.message
    assert "exit code 3 and" in judge(tmp_path, Outcome(3)).message


def test_the_limit_of_a_polite_stop_is_told_with_its_name() -> None:
    code = LAUNCHER.replace("kill_seconds=0.3", "kill_seconds=0.3, limit_name='launch.stop_seconds'")
    process = subprocess.Popen(
        [sys.executable, "-c", code, STARTER.format(leave_on="SIGUSR1"), "45"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.terminate()
    told = process.communicate(timeout=30)[1]
    assert "once more ends it at once, as do 45 s (launch.stop_seconds) without an end" in told
