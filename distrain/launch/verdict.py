"""Did the run succeed? Decided by what its ranks left in the run folder, then by exit codes."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from distrain.errors import EXIT_STOPPED
from distrain.launch.failures import describe, first_failure
from distrain.launch.local import Outcome
from distrain.launch.run_folder import status


@dataclass(frozen=True)
class Verdict:
    """What the launcher exits with and says last.

    Attributes:
        code: exit code; 0 only if the run wrote the result of a completed training.
        message: text for stderr, empty if there is nothing to add.
    """

    code: int
    message: str


def judge(run: Path, outcome: Outcome) -> Verdict:
    """Judge a job that has ended.

    A rank's own failure file counts most: exit codes of mpirun differ from MPI to MPI, and Open MPI
    returns 0 when it loses a whole host.
    """
    state, failure = status(run), first_failure(run)
    asked_late = state == "completed" and outcome.signal is not None and failure is None
    if asked_late or (state == "completed" and outcome.code == 0):
        return Verdict(0, "")
    if state == "stopped" or (outcome.signal is not None and state != "completed"):
        asked = outcome.signal
        if asked not in (None, signal.SIGUSR1):
            code = 128 + asked  # as a shell expects of a command that was interrupted
        else:
            code = failure.exit_code if failure else EXIT_STOPPED if state == "stopped" else 1
        kept = "with a checkpoint; go on with --resume auto" if state == "stopped" else "without a checkpoint"
        stopped = f"distrain: {run} was stopped {kept}"
        return Verdict(code, f"{describe(failure)}\n{stopped}" if failure else stopped)
    if failure is not None:
        return Verdict(failure.exit_code, describe(failure))
    if outcome.code != 0:
        what = f"exit code {outcome.code}{_signal_of(outcome.code)}"
        return Verdict(
            outcome.code,
            f"distrain: {run}: the job ended with {what} and no rank left a traceback; see the output above "
            "and the logs of the ranks in the run folder",
        )
    return Verdict(
        1,
        f"distrain: {run}: the job ended without a result though no rank reported an error; "
        "probably a machine was lost: check them, then go on with --resume auto",
    )


def _signal_of(code: int) -> str:
    if not 128 < code < 128 + signal.NSIG:
        return ""
    try:
        name = signal.Signals(code - 128).name
    except ValueError:
        return ""
    hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
    return f" (a process was ended by {name}{hint})"
