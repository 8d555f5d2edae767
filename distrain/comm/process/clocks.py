"""One clock for all ranks: how far this host's is from rank 0's, by messages to and fro.

Of several round trips the shortest tells most: the answer was read somewhere between question and
arrival, so the middle is wrong by at most half of it (Cristian 1989, "Probabilistic clock
synchronization").
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distrain.comm.process.mpi import MPI

ROUNDS = 16


def offset_of(rounds: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Return what to add to this clock to get the other, and how wrong that may be, in seconds.

    Args:
        rounds: for each round trip: when it was asked and answered here, and what the other clock said.
    """
    asked, answered, other = min(rounds, key=lambda r: r[1] - r[0])
    return other - (asked + answered) / 2, (answered - asked) / 2


def align(comm: MPI.Intracomm) -> tuple[float, float, float]:
    """Return offset and error to rank 0's clock, and rank 0's time now, the same on all ranks.

    Collective; before the engine owns MPI. Costs 16 round trips a rank.
    """
    rank, offset, error = comm.Get_rank(), 0.0, 0.0
    for other in range(1, comm.Get_size()):
        if rank == 0:
            for _ in range(ROUNDS):
                comm.recv(source=other)
                comm.send(time.perf_counter(), dest=other)
        elif rank == other:
            rounds = []
            for _ in range(ROUNDS):
                asked = time.perf_counter()
                comm.send(None, dest=0)
                said = comm.recv(source=0)
                rounds.append((asked, time.perf_counter(), said))
            offset, error = offset_of(rounds)
    return offset, error, comm.bcast(time.perf_counter(), root=0)
