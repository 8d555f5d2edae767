"""The plans of one communicator: made at the first call of a size, and kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from distrain.comm.choice.chooser import Chooser
from distrain.comm.levels import BETWEEN, Levels
from distrain.comm.messages.plan import Plan, make_plan
from distrain.comm.messages.tables import PlanTables
from distrain.schedule.advice import MOST_COLORS, Choice
from distrain.schedule.ir import Collective
from distrain.schedule.registry import generate

# Segments of one color in flight: half a megabyte keeps a link of a few Gbit/s busy while this rank sleeps
# and adds. Four were enough for the mean, eight also for the slowest of many ranks.
WINDOW = 8
# A model has as many as it has sizes of gradient buckets.
KEPT = 256


class Planned(NamedTuple):
    """How a collective goes by messages.

    Attributes:
        plan: what this rank does.
        tags: how many to take. The lanes of a plan depend on the payload, this must not: ranks that disagree
            about a size would from then on talk past each other without an error.
        layered: the plan is one between nodes, each of which combines in its memory; see `levels.py`.
    """

    plan: Plan
    tags: int
    layered: bool


class Plans:
    """Makes plans and keeps them. What was chosen stays: choosing costs as much as ten messages.

    Args:
        rank: of this process in the group.
        nodes: ``nodes[r]`` is the node of rank r of the group.
        chooser: which algorithm runs.
        levels: memory of the nodes; None: the group goes by messages alone.
    """

    def __init__(self, rank: int, nodes: Sequence[int], chooser: Chooser, levels: Levels | None) -> None:
        self._rank, self._nodes, self._chooser, self._levels = rank, tuple(nodes), chooser, levels
        self._kept: dict[tuple[Choice | None, Collective, int, int, bool, int], Planned] = {}
        self._tables: dict[int, PlanTables] = {}  # by id of the plan
        self._lock = threading.Lock()  # callbacks call from threads of their own

    def of(
        self, collective: Collective, count: int, itemsize: int, able: bool, least_segment: int = 0
    ) -> Planned:
        """Return this rank's plan.

        Args:
            collective: what is computed.
            count, itemsize: elements of the payload, and bytes of one.
            able: the memory of nodes may serve.
            least_segment: bytes; where the choice is of shorter messages, they are so long.
        """
        key = (self._chooser.forced, collective, count, itemsize, able, least_segment)
        with self._lock:
            if key not in self._kept:
                if len(self._kept) >= KEPT:
                    oldest = self._kept.pop(next(iter(self._kept)))
                    self._tables.pop(id(oldest.plan), None)
                self._kept[key] = self._make(collective, count, itemsize, able, least_segment)
            return self._kept[key]

    def _make(
        self, collective: Collective, count: int, itemsize: int, able: bool, least_segment: int
    ) -> Planned:
        choice = self._chooser.choose(self._nodes, collective, count * itemsize)
        layered = self._levels is not None and able and choice.algorithm in BETWEEN
        nodes, rank, algorithm = self._nodes, self._rank, choice.algorithm
        if self._levels is not None and layered:
            count, algorithm = len(self._levels.part(count, itemsize)), BETWEEN[choice.algorithm]
            nodes, rank = tuple(range(self._levels.nodes)), self._levels.node
        schedule = generate(algorithm, len(nodes), choice.colors, collective=collective, nodes=nodes)
        segment = max(choice.segment_bytes, least_segment)
        plan = make_plan(schedule, rank, count, itemsize, segment, WINDOW)
        return Planned(plan, max(schedule.colors, MOST_COLORS) * WINDOW, layered)

    def tables(self, plan: Plan, itemsize: int) -> PlanTables:
        """Return a plan of `of` as tables for C, made once."""
        with self._lock:
            if id(plan) not in self._tables:
                self._tables[id(plan)] = PlanTables(plan, itemsize)
            return self._tables[id(plan)]
