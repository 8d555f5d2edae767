"""Barriers."""

# torch declares several overloads of each method; it calls those taken here.
# mypy: disable-error-code="override, assignment"

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch

from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.device.by_host import HostPayloads
from distrain.comm.group import forms
from distrain.comm.group.arguments import limited
from distrain.comm.group.base import GroupBase
from distrain.comm.group.monitored import MonitoredBarrier
from distrain.comm.messages.plain import barrier_operation
from distrain.comm.operation import Fence
from distrain.comm.work import DistrainWork


class Barriers(GroupBase):
    """barrier, monitored_barrier."""

    @forms.takes(forms.BARRIER)
    def barrier(self, opts: Any) -> DistrainWork:
        """Complete once every rank has called it, and what this one called before it is complete."""
        wire = self._wire
        if wire.callback() is not None:
            return limited(self._summed_barrier(), opts)
        operation, before = barrier_operation(wire.comm), None
        operation.concurrency = 1  # it starts when the collectives by messages before it are complete
        if wire.direct is not None:
            if wire.direct.pending is not None:
                wire.direct.flush()
            if wire.engine.is_busy(wire.channel):
                before = wire.engine.submit(Fence(wire.channel))
        wire.sign(operation, wire.number("barrier"))
        ready = None if before is None else lambda: before.is_done
        return limited(self._submit(HostPayloads(), operation, [], ready=ready), opts)

    def _summed_barrier(self) -> DistrainWork:
        """Do the same by a sum that nobody reads; see `Copies._sent_broadcast`."""
        buffer = FlatBuffer(torch.zeros(1, device="cpu"))
        call = self._wire.number("barrier")
        operation = self._wire.reduction(buffer, Reduction.SUM, kind="barrier", call=call)
        operation.concurrency = 1  # as above
        return self._submit(None, operation, [])

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """Block until every rank has called it; name the ranks that do not come in time.

        Raises:
            CommError: a rank is missing.
        """
        seconds = -1.0 if timeout is None else timeout.total_seconds()
        if seconds < 0:
            seconds = self._timeout_seconds
        operation = MonitoredBarrier(self._wire.comm, self._wire.tags.take(1), seconds, wait_all_ranks)
        self._submit(HostPayloads(), operation, []).wait()
        self._wire.is_clean = self._wire.is_clean and not operation.has_failed
        operation.raise_if_missing(self._wire.members)
