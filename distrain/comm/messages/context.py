"""What the messages of an operation share, whoever runs its plan."""

from __future__ import annotations

from dataclasses import dataclass

from distrain.comm.buffers import StagingPool
from distrain.comm.process.mpi import MPI


@dataclass(frozen=True, slots=True)
class MessageContext:
    """Where the messages of one operation travel: apart from those of all others, as in a context of MPI.

    Attributes:
        comm: communicator whose ranks the plan names.
        first_tag: tags ``[first_tag, first_tag + plan.lanes)`` belong to the operation.
        pool: staging areas of the engine thread.
        kind: what the operation is, for people.
    """

    comm: MPI.Intracomm
    first_tag: int
    pool: StagingPool
    kind: str = "allreduce"
