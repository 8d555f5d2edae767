"""Schedules as text, for people, golden files and diffs.

::

    multicolor_ring allreduce ranks=3 colors=2 chunks=3 bit_identical=yes
    step 0
      color 0: 0>1 +2, 1>2 +0, 2>0 +1
      color 1: 0>2 +1, 2>1 +0, 1>0 +2

``0>1 +2`` reads "rank 0 sends to rank 1, which adds to its chunk 2"; ``=2`` instead of ``+2`` means
that it copies, and ``0>1 +2 +4`` are two transfers between the same ranks. Transfers keep their order,
which is the order of the additions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from distrain.errors import UsageError
from distrain.schedule.ir import Collective, Op, Schedule, Step, Transfer

_SIGNS = {Op.REDUCE: "+", Op.COPY: "="}
_OPS = {sign: op for op, sign in _SIGNS.items()}
_HEADER = re.compile(r"(\w+) (\w+) ranks=(\d+) colors=(\d+) chunks=(\d+) bit_identical=(yes|no)")
_STEP = re.compile(r"step (\d+)")
_LINE = re.compile(r"  color (\d+): (.+)")
_MESSAGE = re.compile(r"(\d+)>(\d+)((?: [+=]\d+)+)")


def to_text(schedule: Schedule) -> str:
    """Return a Schedule as text; `parse` reads it back."""
    lines = [
        f"{schedule.name} {schedule.collective.value} ranks={schedule.world_size} colors={schedule.colors} "
        f"chunks={schedule.chunks} bit_identical={'yes' if schedule.bit_identical else 'no'}"
    ]
    for number, step in enumerate(schedule.steps):
        lines.append(f"step {number}")
        for color, transfers in groupby(step, key=lambda t: t.color):
            messages = groupby(transfers, key=lambda t: (t.src, t.dst))
            lines.append(f"  color {color}: " + ", ".join(_message(*ends, ts) for ends, ts in messages))
    return "\n".join(lines) + "\n"


def _message(src: int, dst: int, transfers: Iterable[Transfer]) -> str:
    return f"{src}>{dst} " + " ".join(f"{_SIGNS[t.op]}{t.chunk}" for t in transfers)


def parse(text: str) -> Schedule:
    """Return the Schedule that a text describes.

    Raises:
        UsageError: a line that is not of the form above; names its number.
    """
    lines = text.splitlines()
    header = _HEADER.fullmatch(lines[0]) if lines else None
    if header is None or header[2] not in {c.value for c in Collective}:
        raise _bad(1, lines[0] if lines else "", "ring allreduce ranks=4 colors=1 chunks=4 bit_identical=yes")
    steps: list[Step] = []
    for number, line in enumerate(lines[1:], start=2):
        if _STEP.fullmatch(line) and line == f"step {len(steps)}":
            steps.append(())
        elif (match := _LINE.fullmatch(line)) and steps:
            steps[-1] += _transfers(int(match[1]), match[2], number)
        else:
            raise _bad(number, line, f"step {len(steps)}")
    size, colors, chunks = (int(header[i]) for i in (3, 4, 5))
    return Schedule(header[1], Collective(header[2]), size, colors, chunks, tuple(steps), header[6] == "yes")


def _transfers(color: int, text: str, number: int) -> Step:
    transfers = []
    for part in text.split(", "):
        match = _MESSAGE.fullmatch(part)
        if match is None:
            raise _bad(number, part, "0>1 +2")
        src, dst = int(match[1]), int(match[2])
        transfers += [Transfer(color, int(slot[1:]), src, dst, _OPS[slot[0]]) for slot in match[3].split()]
    return tuple(transfers)


def _bad(number: int, found: str, example: str) -> UsageError:
    return UsageError(
        f"schedule text, line {number}", f"{found!r} is not understood", f"write it like {example!r}"
    )
