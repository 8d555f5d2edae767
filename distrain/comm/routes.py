"""Allreduces between nodes as one call of C, from torch's call to the sum: see `csrc/route.c`.

The general way is Python: a plan looked up, an operation, its completion, a Work, the engine. That took
half a millisecond of CPU where many ranks share a core, as long as a short message travels. What was called
once, and waited for, is kept as a `Route`; the next call of the same size, type and reduction is carried out
by the caller. When nothing has come for a while, or the engine is wanted, the engine does the rest.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
import torch

from distrain.comm import native
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.levels import LevelsOperation
from distrain.comm.messages.compiled import (
    LONGEST,
    SHORT_BYTES,
    SPIN,
    SPIN_SHORT,
    CompiledOperation,
)
from distrain.comm.messages.context import MessageContext
from distrain.comm.messages.tables import ERROR, PlanTables
from distrain.comm.operation import Operation
from distrain.comm.plans import Planned
from distrain.comm.shared.caller import DONE, LONGEST_BYTES, REDUCTIONS, rows
from distrain.comm.supervision.call import Call

# After so long without a message a caller leaves the rest to the engine, which reports stalls.
ROUTE_PATIENCE_SECONDS = 20e-3
# Kept for each group; each has a staging area of up to some megabytes.
MOST_ROUTES = 32


class _Table(ctypes.Structure):
    """`route` of the C side."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("scatter", "gather", "between", "staging")),
        ("room", ctypes.c_int64),
        ("comm", ctypes.c_size_t),
        *((name, ctypes.c_uint64) for name in ("count", "first", "length")),
        *((name, ctypes.c_int64) for name in ("itemsize", "numbers", "lanes", "mark", "spin", "longest")),
        *((name, ctypes.c_int) for name in ("type", "op", "divisor", "whole", "spins", "stage")),
    )

    stage: int


class Route:
    """How payloads of one size, type and reduction go.

    Args:
        wire: a `Wire`, of the group.
        planned: what this rank does, between the nodes or alone.
        tables: the plan for the C side.
        buffer: such a payload.
        reduction: how it is combined.
    """

    def __init__(
        self,
        wire: Any,
        planned: Planned,
        tables: PlanTables,
        buffer: FlatBuffer,
        reduction: Reduction,
    ) -> None:
        codes = native.codes(buffer.dtype, reduction)
        assert codes is not None  # a CompiledOperation has run it
        type_code, numbers, op = codes
        self.plan, self.tables, self.codes = planned.plan, tables, codes
        self.levels = wire.levels if planned.layered else None
        self.run = tables.take()
        self.staging: np.ndarray = np.empty(tables.staging_bytes, np.uint8)
        call = Call(0, "allreduce", buffer.count, buffer.dtype, reduction)
        part, comm, whole = range(buffer.count), wire.comm, False
        if self.levels is not None:
            part, comm = self.levels.part(buffer.count, buffer.itemsize), self.levels.across
            whole = self.levels.is_short(buffer.count * buffer.itemsize)
        short = buffer.count * buffer.itemsize <= SHORT_BYTES
        divides = reduction is Reduction.AVG and buffer.dtype is not torch.bool
        self.table = _Table(
            scatter=None if self.levels is None else self.levels.scatter.address,
            gather=None if self.levels is None else self.levels.gather.address,
            between=self.run.handle,
            staging=self.staging.ctypes.data,
            room=tables.room_bytes,
            comm=comm.handle,
            count=buffer.count,
            first=part.start,
            length=len(part),
            itemsize=buffer.itemsize,
            numbers=numbers,
            lanes=planned.tags,
            mark=wire.tags.mark(call),
            spin=SPIN_SHORT if short else SPIN,
            longest=LONGEST,
            type=type_code,
            op=op,
            divisor=wire.size if divides else 1,
            whole=whole,
            spins=0 if self.levels is None else self.levels.scatter.spins,
        )
        self.address = ctypes.addressof(self.table)


class Routes:
    """Those of one group.

    Args:
        wire: of the group; its collectives run on the C side.

    Attributes:
        caller: calls them; as `shared.caller.make_caller` describes, but that COMPLETE in place of `DONE`
            tells that the engine has work.
    """

    def __init__(self, wire: Any) -> None:
        self._wire = wire
        self._routes: dict[int, Route] = {}  # by address
        self._addresses: dict[tuple[Any, int, int], int] = {}  # as calls name them
        made = importlib.import_module("distrain.comm._wire")
        self.caller = made.Caller(
            handle=0,
            ranks=wire.size,
            spins=0,
            yields=0,
            patience_seconds=ROUTE_PATIENCE_SECONDS,
            limit=LONGEST_BYTES,
            kinds=(torch.Tensor, torch.nn.Parameter),
            rows=rows(),
            names={reduction.value: number for number, reduction in enumerate(REDUCTIONS)},
            done=DONE,
            gate=ctypes.addressof(wire.engine.gate),
            tags=ctypes.addressof(wire.tags.state),
            routes=self._addresses,
        )
        wire.engine.exposed.ask(self.caller.take_waited)

    def learn(self, tensor: torch.Tensor, reduction: Reduction) -> None:
        """Make such calls quick from now on, if C can carry them out; other ranks need not do the same."""
        number = REDUCTIONS.index(reduction)
        key = (tensor.dtype, tensor.nbytes, number)
        if key in self._addresses or not tensor.is_cpu or not tensor.is_contiguous() or not tensor.numel():
            return
        if tensor.nbytes > LONGEST_BYTES or self._wire.engine.gate.works:  # a call may be using the oldest
            return
        found = self._wire.route(FlatBuffer(tensor), reduction)
        if found is None:
            return
        if len(self._routes) >= MOST_ROUTES:
            self._forget(next(iter(self._routes)))
        self._routes[found.address] = found
        self._addresses[key] = found.address
        if tensor.dtype is not torch.bfloat16:  # the one that numpy lacks
            name = np.dtype(str(tensor.dtype).removeprefix("torch."))
            self._addresses[(name, tensor.nbytes, number)] = found.address

    def _forget(self, address: int) -> None:
        del self._routes[address]
        for key in [key for key, found in self._addresses.items() if found == address]:
            del self._addresses[key]

    def take_over(self, code: int, tensor: torch.Tensor, reduction: Reduction) -> Operation:
        """Return the operation that goes on with what the last call has begun and left with this code."""
        wire, caller = self._wire, self.caller
        route = self._routes[caller.route]
        levels, stage, buffer = route.levels, route.table.stage, FlatBuffer(tensor.detach())
        inner = Reduction.SUM if levels is not None and reduction is Reduction.AVG else reduction
        between = CompiledOperation(
            plan=route.plan,
            tables=route.tables,
            codes=route.codes,
            buffer=buffer if levels is None else levels.part_of(buffer),
            reduction=inner,
            context=MessageContext(wire.comm if levels is None else levels.across, caller.tag, wire.pool),
            begun=(route.run, route.staging) if stage == 1 else None,
        )
        between.error_code = code if code >= ERROR else 0
        if levels is None:
            return between
        operation = LevelsOperation(levels, buffer, reduction, between, wire.comm.handle, wire.size)
        operation.go_on(stage)
        return operation

    def has_rest(self) -> bool:
        """Return whether a C call has begun something that nobody goes on with yet."""
        return bool(self.caller.left >= 0 and self._wire.engine.gate.works)

    def close(self) -> None:
        """Let no call in any more."""
        self._addresses.clear()
        self._wire.engine.exposed.forget(self.caller.take_waited)


def make_routes(wire: Any) -> Routes | None:
    """Return the routes of a group; None: its calls go the general way."""
    able = wire.compiled and wire.channel is None and wire.size > 1 and wire.tags.tell_calls_apart
    return Routes(wire) if able and native.has_caller() else None
