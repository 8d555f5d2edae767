"""The end of a group: each rank takes what the rank before it has still sent.

A late note that nobody takes would become a message of another group: MPI gives the communicator's number
to a new one, and Open MPI the message too. (Seen: a rank accused of a call of the group before, and a group
whose first message never came.)
"""

from __future__ import annotations

import time
from collections.abc import Hashable

from distrain.comm.operation import Operation
from distrain.comm.supervision.roll import Roll

# How long a rank that ends a group waits for the rank before it to do so too.
FAREWELL_SECONDS = 2.0


class Farewell(Operation):
    """Takes the notes that the rank before still sends, until the last one.

    Args:
        roll: of the group.
        queue: its collectives'; this comes after them.
    """

    kind = "end of a group"

    def __init__(self, roll: Roll, queue: Hashable) -> None:
        self.queue = queue
        self._roll = roll
        self._end = 0.0

    @property
    def is_clean(self) -> bool:
        """True if no message of the group can still be on its way to this rank."""
        return self._roll.is_over

    def start(self) -> None:
        """Send the last note."""
        self._end = time.monotonic() + FAREWELL_SECONDS
        self._roll.take_leave()

    def progress(self) -> bool:
        """Take notes until the last one; a rank that does not end its group is not waited for long."""
        self._roll.listen()
        if not self.is_clean and time.monotonic() < self._end:
            return False
        self._roll.close()
        return True

    def waiting_for(self) -> str:
        """Say who has not ended the group."""
        return "the rank before this one to end the group too"
