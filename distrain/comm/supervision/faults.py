"""Faults on purpose, for tests: this rank breaks at that step.

    DISTRAIN_FAULT="rank=1,step=3,kind=raise"

Kinds: ``raise`` an exception; ``exit`` with code 3; ``kill`` the process (SIGKILL); ``stall`` the
calling thread for ever, asleep; ``loop`` for ever, busy; ``stop`` the whole process (SIGSTOP).
Several faults are separated by ``;``. Without the variable a fault point
costs nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from distrain.comm.supervision.board import board
from distrain.errors import UsageError, nearest

VARIABLE = "DISTRAIN_FAULT"
KINDS = ("raise", "exit", "kill", "stall", "loop", "stop")
EXIT_CODE = 3


class InjectedFault(RuntimeError):
    """The exception of ``kind=raise``: to distrain an error like any other of a user's program."""


@dataclass(frozen=True)
class Fault:
    """What breaks, where and when."""

    rank: int
    step: int
    kind: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> tuple[Fault, ...]:
        """Return the faults that the environment asks for.

        Raises:
            UsageError: the variable is not of the form above.
        """
        text = environment.get(VARIABLE, "")
        return tuple(cls._read(item) for item in text.split(";")) if text else ()

    @classmethod
    def _read(cls, text: str) -> Fault:
        fields = dict(item.partition("=")[::2] for item in text.replace(" ", "").split(","))
        number = {name: fields.get(name, "") for name in ("rank", "step")}
        kind = fields.get("kind", "")
        if kind not in KINDS or set(fields) != {"rank", "step", "kind"}:
            raise UsageError(
                VARIABLE,
                f"{text!r} is not understood{nearest(kind, KINDS)}",
                "write rank=1,step=3,kind=raise",
            )
        if not all(value.isdigit() for value in number.values()):
            raise UsageError(
                VARIABLE, f"{text!r} has no numbers for rank and step", "write rank=1,step=3,..."
            )
        return cls(int(number["rank"]), int(number["step"]), kind)

    def strike(self) -> None:
        """Break this process.

        Raises:
            InjectedFault: if the kind is ``raise``.
        """
        if self.kind == "raise":
            raise InjectedFault(f"rank {self.rank}, step {self.step}: asked for by {VARIABLE}")
        if self.kind == "exit":
            sys.exit(EXIT_CODE)
        if self.kind == "stall":
            while True:
                time.sleep(3600)
        while self.kind == "loop":
            pass
        os.kill(os.getpid(), signal.SIGKILL if self.kind == "kill" else signal.SIGSTOP)


_faults = Fault.from_environment(os.environ)


def fault_point(rank: int, step: int) -> None:
    """Note that this rank has come to this step, and break here if the environment asks for it."""
    board.step = step
    for fault in _faults:
        if (fault.rank, fault.step) == (rank, step):
            fault.strike()
