"""A barrier that can say who did not come."""

from __future__ import annotations

import time

import numpy as np

from distrain.comm.operation import Operation
from distrain.comm.process.mpi import MPI
from distrain.comm.supervision.members import Members
from distrain.errors import CommError


class MonitoredBarrier(Operation):
    """Everybody reports to rank 0, which answers when all have come; ends in time if some do not.

    It never fails inside the engine, so that the caller can react: see `raise_if_missing`.

    Args:
        comm: the group.
        tag: belongs to this barrier alone; late messages of an ended one find no other.
        timeout_seconds: how long to wait.
        wait_all_ranks: name all missing ranks, not only the first.
    """

    kind = "monitored_barrier"
    algorithm = "reports to rank 0"

    def __init__(self, comm: MPI.Intracomm, tag: int, timeout_seconds: float, wait_all_ranks: bool) -> None:
        self.queue = comm.handle
        self.patience_seconds = timeout_seconds + 60  # it ends by itself before that
        self._comm, self._tag, self._timeout, self._all = comm, tag, timeout_seconds, wait_all_ranks
        self._rank = self._size = 0
        self._missing: list[int] = []
        self._waiting: dict[int, MPI.Request] = {}
        self._sending: list[MPI.Request] = []
        self._answering = False
        self._deadline = 0.0

    def start(self) -> None:
        """Report to rank 0, or listen for the reports."""
        self._rank, self._size = self._comm.Get_rank(), self._comm.Get_size()
        self._deadline = time.monotonic() + self._timeout
        if self._rank == 0:
            self._waiting = {rank: self._receive(rank) for rank in range(1, self._size)}
        else:
            self._sending = [self._send(0)]
            # Rank 0 answers at its own deadline at the latest, which may lie after ours.
            self._waiting = {0: self._receive(0)}

    def _send(self, rank: int) -> MPI.Request:
        return self._comm.Isend([np.zeros(0, np.uint8), MPI.BYTE], rank, self._tag)

    def _receive(self, rank: int) -> MPI.Request:
        return self._comm.Irecv([np.empty(0, np.uint8), MPI.BYTE], rank, self._tag)

    def progress(self) -> bool:
        """Collect reports; answer when all are there or the time is over."""
        arrived = [rank for rank, request in self._waiting.items() if request.Test()]
        for rank in arrived:
            del self._waiting[rank]
        self.moved += len(arrived)
        if self._waiting and time.monotonic() > self._deadline:
            self._missing = sorted(self._waiting)
            for request in self._waiting.values():
                request.Cancel()
                request.Wait()
            self._waiting = {}
        if self._waiting:
            return False
        if self._rank == 0 and not self._answering and not self._missing:
            self._answering = True
            self._sending = [self._send(rank) for rank in range(1, self._size)]
        return bool(self._missing) or bool(MPI.Request.Testall(self._sending))

    @property
    def has_failed(self) -> bool:
        """True if somebody did not come in time; messages of those may still come."""
        return bool(self._missing)

    def raise_if_missing(self, members: Members | None = None) -> None:
        """Raise if somebody did not come. The phrases are those by which programs know gloo's errors.

        Args:
            members: who the ranks are.

        Raises:
            CommError: names the missing ranks (on rank 0), or rank 0's silence (elsewhere).
        """
        if not self._missing:
            return
        within = f"failed to pass monitoredBarrier in {self._timeout * 1000:g} ms"
        if self._rank:
            problem = (
                f"Rank {self._rank} successfully reached monitoredBarrier, but received errors while "
                f"waiting for send/recv from rank 0: it did not answer in {self._timeout * 1000:g} ms"
            )
        elif self._timeout <= 0:
            problem = f"Rank 0 timed out in monitoredBarrier after {self._timeout * 1000:g} ms"
        elif self._all:
            problem = f"Ranks {', '.join(map(str, self._missing))} {within}"
        else:
            problem = f"Rank {self._missing[0]} {within}"
        named = self._missing if self._all else self._missing[:1]
        who = "" if members is None else ", ".join(members.name(rank) for rank in named)
        raise CommError("monitored_barrier", problem, f"look at what these ranks do: {who or named}")

    def waiting_for(self) -> str:
        """Name the ranks that have not come."""
        return f"ranks {sorted(self._waiting)}"
