"""Who decides which algorithm runs: the settings, else the table of `distrain tune`, else formulas."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distrain.comm.choice import tuning
from distrain.comm.process.network import count_rails, link_speed, named_interfaces
from distrain.comm.settings import CommSettings
from distrain.errors import ConfigError
from distrain.schedule.advice import Choice, Speeds, advise, colors_for, payload_rate
from distrain.schedule.buckets import advise_buckets
from distrain.schedule.ir import Collective
from distrain.schedule.registry import family

if TYPE_CHECKING:
    from distrain.comm.process.mpi import MPI

log = logging.getLogger(__name__)

AUTO = "auto"
# For the collectives that a chosen algorithm lacks (trees and recursive doubling have no halves).
RING = "multicolor_ring"


@dataclass
class Chooser:
    """Picks an algorithm by the size of a payload; the same on every rank.

    Attributes:
        settings: what the user has chosen stands above all.
        mpi: the MPI library, for the key of the table.
        rails: network ports of a node.
        speeds: for the formulas; None: of a common machine.
        tables: of this machine and others, as rank 0 has read them.
        forced: set by the tuner while it measures.
    """

    settings: CommSettings
    mpi: str = ""
    rails: int = 1
    speeds: Speeds | None = None
    tables: Sequence[tuning.Table] = ()
    forced: Choice | None = None

    def choose(self, nodes: Sequence[int], collective: Collective, payload_bytes: int) -> Choice:
        """Return what runs a collective of a group.

        Args:
            nodes: ``nodes[r]`` is the node of rank r of the group.
            collective: what is computed.
            payload_bytes: of the whole payload, equal on all ranks.
        """
        s = self.settings
        if self.forced is not None:
            return self.forced
        if s.algorithm != AUTO:
            name = s.algorithm if collective in family(s.algorithm).collectives else RING
            choice = Choice(name, colors_for(name, nodes, self.rails))
        else:
            choice = self._automatic(tuple(nodes), collective, payload_bytes)
        return replace(
            choice,
            colors=s.colors or choice.colors,
            segment_bytes=s.segment_bytes or choice.segment_bytes,
        )

    def _automatic(self, nodes: tuple[int, ...], collective: Collective, payload_bytes: int) -> Choice:
        table = self.table_for(nodes)
        for asked in (collective, Collective.ALLREDUCE):  # halves of an allreduce: what suits it suits them
            measured = None if table is None else table.choose(asked, payload_bytes)
            if measured is not None and collective in family(measured.algorithm).collectives:
                return measured
        speeds = self.speeds if table is None else table.speeds
        return advise(nodes, collective, payload_bytes, self.rails, speeds)

    def buckets(self, nodes: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """Return the bytes of DDP's buckets for gradients of these sizes; see `schedule/buckets.py`."""
        table = self.table_for(nodes)
        speeds = self.speeds if table is None else table.speeds
        return advise_buckets(sizes, nodes, self.rails, speeds)

    def table_for(self, nodes: Sequence[int]) -> tuning.Table | None:
        """Return the table measured on a machine of this shape; None: there is none."""
        key = tuning.key_of(self.mpi, tuple(nodes), self.rails)
        return next((table for table in self.tables if table.key == key), None)

    def describe(self, nodes: Sequence[int], payload_bytes: int) -> str:
        """Say for people what an allreduce of this size between nodes will run, and who decided."""
        s = self.settings
        table = self.table_for(nodes)
        why = "as set" if s.algorithm != AUTO else "by formula" if table is None else f"tuned {table.made}"
        return f"{self.choose(nodes, Collective.ALLREDUCE, payload_bytes).title} ({why})"


def make_chooser(comm: MPI.Intracomm, settings: CommSettings, mpi: str) -> Chooser:
    """Return the chooser that all ranks share. Collective; before the engine owns MPI."""
    interfaces = named_interfaces()
    rails = settings.rails or comm.allreduce(count_rails(interfaces), op=_minimum())
    tables: list[tuning.Table] = []
    if comm.Get_rank() == 0 and settings.algorithm == AUTO:
        path = Path(settings.tune_table) if settings.tune_table else tuning.default_path()
        try:
            tables = [table for table in tuning.load(path) if table.key.startswith(f"{mpi}; ")]
        except ConfigError as error:
            log.warning("%s; choosing by formula", error)
    told = None if settings.link_gbit is None else payload_rate(settings.link_gbit)
    slowest = comm.allreduce(told or link_speed(interfaces), op=_minimum())
    speeds = Speeds() if slowest == float("inf") else Speeds(bytes_per_second=slowest)
    return Chooser(settings, mpi, rails, speeds, comm.bcast(tables, root=0))


def _minimum() -> MPI.Op:
    from distrain.comm.process.mpi import MPI

    return MPI.MIN
