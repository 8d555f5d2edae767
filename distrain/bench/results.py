"""How the lines of a benchmark's rank 0 come back: in a file, or on standard output."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Line = dict[str, Any]
STDOUT = "-"
_MARK = "@distrain-bench@"
# mpirun passes output on in pieces of a few kB, between which lines of other ranks may come
_LONGEST = 500
LINGER_SECONDS = 5.0
"""What a job leaves running may keep its outputs open: nobody waits for it longer than this."""
_ERROR = re.compile(r"(?:^|[\s.])\w*(?:Error|Exception|Fault)\b.*: ")


def write(out: str, lines: Sequence[Line]) -> None:
    """Write the lines of a result, from rank 0.

    Args:
        out: a file; ``-``: standard output, marked, for `Outputs` of the process that started the ranks.
        lines: JSON objects.
    """
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if out != STDOUT:
        Path(out).write_text(text)
        return
    whole = json.dumps(text)
    for at in range(0, len(whole), _LONGEST):
        print(f"\n{_MARK}{whole[at : at + _LONGEST]}", flush=True)


class Outputs:
    """What a job writes to standard output and error: the result is taken out, the rest goes to stderr.

    Attributes:
        said: the last lines of the rest.
    """

    def __init__(self) -> None:
        self.said: deque[str] = deque(maxlen=200)
        self._pieces: list[str] = []

    def taken(self, line: str) -> str:
        """Take a line of the job; return what of it is for people."""
        before, mark, piece = line.rstrip("\n").partition(_MARK)
        if mark:
            self._pieces.append(piece)
            line = before + "\n" if before else ""
        if line.strip():
            self.said.append(line.strip())
        return "" if line == "\n" else line

    def lines(self) -> list[Line] | None:
        """Return the result; None: none has come, or not all of it."""
        try:
            return [json.loads(line) for line in json.loads("".join(self._pieces)).splitlines()]
        except ValueError:
            return None

    @property
    def failure(self) -> str:
        """The last error that was told, else the last line; empty: nothing was said."""
        errors = [line for line in self.said if _ERROR.search(line)]
        return (errors or list(self.said) or [""])[-1]


@contextmanager
def captured() -> Iterator[Outputs]:
    """Context in which standard output and error, of children too, go through the `Outputs` it gives."""
    outputs = Outputs()
    sys.stdout.flush()
    kept = os.dup(1), os.dup(2)
    screen = os.fdopen(os.dup(2), "w")
    readers = []
    try:
        for number in (1, 2):  # not the same pipe: a line of the one would come amid those of the other
            readable, writable = os.pipe()
            os.dup2(writable, number)
            os.close(writable)
            readers.append(threading.Thread(target=_read, args=(readable, outputs, screen), daemon=True))
            readers[-1].start()
        yield outputs
    finally:
        sys.stderr.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)
        for reader in readers:
            reader.join(LINGER_SECONDS)


def _read(readable: int, outputs: Outputs, screen: Any) -> None:
    with os.fdopen(readable, errors="replace") as stream:
        for line in stream:
            screen.write(outputs.taken(line))
            screen.flush()
