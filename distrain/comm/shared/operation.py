"""A collective through memory, as the engine drives it."""

from __future__ import annotations

import torch

from distrain.comm.buffers import Reduction
from distrain.comm.operation import Operation
from distrain.comm.shared.channel import COMPLETE, MOVED, YIELDS, Channel
from distrain.schedule.ir import Collective

# After so long the engine sees to other operations.
WORK_SECONDS = 2e-3
WAIT_SECONDS = 5e-4


class SharedOperation(Operation):
    """One collective of a channel.

    Args:
        channel: between the ranks of the group.
        payload: a contiguous CPU tensor; combined in place.
        reduction: how it is combined.
        collective: what is computed.
        kind: what it is, for people.
        begun: the channel runs it already.
    """

    algorithm = "memory of the node"
    concurrency = 1
    waits = True
    by_message = False

    def __init__(
        self,
        channel: Channel,
        payload: torch.Tensor,
        reduction: Reduction,
        collective: Collective = Collective.ALLREDUCE,
        kind: str = "allreduce",
        begun: bool = False,
    ) -> None:
        self.kind = kind
        self.size_bytes = payload.numel() * payload.element_size()
        self.queue = channel
        self._begun = begun
        self._channel, self._payload = channel, payload
        self._reduction, self._collective = reduction, collective

    def start(self) -> None:
        """Let the others see the first segments."""
        if not self._begun:
            self._channel.begin(self._payload, self._reduction, self._collective)

    def progress(self) -> bool:
        """Go on as far as the others allow."""
        wait = WAIT_SECONDS if self.is_alone else 0.0
        code = self._channel.advance(WORK_SECONDS, wait, self._channel.spins, YIELDS)
        self.moved += code == MOVED
        return code == COMPLETE

    def waiting_for(self) -> str:
        """Name the ranks that have come less far."""
        return self._channel.waiting_for()
