"""Which rank failed first, and with what.

A rank that ends with an uncaught error leaves ``failures/rank-0003.json`` in the run folder:
``{"rank": 3, "exit_code": 1, "traceback": "...", "time": 1700000000.0}``. Exit codes of mpirun cannot
be relied on (Intel MPI gives 255 for every failure, Open MPI 0 for a lost host), these files can.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = "failures"


@dataclass(frozen=True)
class Failure:
    """The end of one rank.

    Attributes:
        rank: which one.
        exit_code: the code with which it ended, 1 to 255.
        traceback: text, as Python prints it.
        time: seconds since 1970 by the clock of its host.
    """

    rank: int
    exit_code: int
    traceback: str
    time: float


def first_failure(run: Path) -> Failure | None:
    """Return the failure with the earliest time (then the lowest rank), or None if no rank left one."""
    found = [_read(path) for path in sorted((run / FOLDER).glob("rank-*.json"))]
    return min(found, key=lambda f: (f.time, f.rank), default=None)


def _read(path: Path) -> Failure:
    try:
        text = path.read_text(errors="replace")
        fields = json.loads(text)
        code = int(fields["exit_code"])
        return Failure(
            int(fields["rank"]),
            code if 0 < code < 256 else 1,
            str(fields["traceback"]),
            float(fields["time"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        # half written, by a rank that was killed meanwhile: what there is of it is still worth showing
        digits = "".join(filter(str.isdigit, path.stem))
        return Failure(int(digits or -1), 1, f"({path} is not whole: {error})", float("inf"))


def describe(failure: Failure) -> str:
    """Return the traceback under a line that names the rank."""
    return f"---- rank {failure.rank} failed first ----\n{failure.traceback.rstrip()}"
