"""One finding, and the way to ask a Python of its own, so that a library that crashes is a finding too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "absent", "slower", "broken"]


@dataclass(frozen=True)
class Check:
    """What was found about one thing.

    Attributes:
        name: what was looked at.
        verdict: ``ok``; ``absent``: optional and not there; ``slower``: works, less well than it could;
            ``broken``: runs will fail.
        found: in words.
        do: what to do about it, empty if nothing.
        facts: the same for programs.
    """

    name: str
    verdict: Verdict
    found: str
    do: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def ask_python(code: str, timeout: float = 120.0) -> tuple[dict[str, Any] | None, str]:
    """Run code that prints one JSON object in a fresh Python.

    Returns:
        The object and an empty text, or None and why there is none, in one line.
    """
    # a library found in the current folder would say nothing about the installed one
    env = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {timeout:g} s"
    except OSError as error:
        return None, f"Python cannot be started: {error}"
    for line in reversed(answer.stdout.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found, ""
    return None, last_line(answer.stderr) or f"exit code {answer.returncode}"


def last_line(text: str) -> str:
    """Return the last line that says something, as Python's tracebacks end with it."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    return lines[-1][:300] if lines else ""
