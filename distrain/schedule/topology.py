"""A machine described in a few numbers: nodes, rails, and how fast bytes and sums go.

The numbers are what one would measure: ping-pong latency, the bandwidth of one network port, the
speed of a memory copy and of an addition. Nothing here is specific to a network or an MPI.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from distrain.errors import UsageError


@dataclass(frozen=True)
class Port:
    """Something that carries one byte after the other, e.g. one direction of a rail."""

    kind: str
    node: int
    number: int
    bytes_per_second: float = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the ranks run and what lies between them.

    Attributes:
        nodes: ``nodes[r]`` is the node of rank ``r``.
        latency_seconds: from a send to the first byte on another node.
        rail_bytes_per_second: one network port, each direction for itself (full duplex).
        rails: network ports of each node. A rank uses port ``local rank % rails``.
        striped: the MPI spreads every message over all rails of the node instead.
        local_latency_seconds: from a send to the first byte on another rank of the node.
        local_bytes_per_second: copy between two ranks of a node.
        node_bytes_per_second: all copies inside a node together (its memory).
        reduce_bytes_per_second: bytes a rank adds up, counted once (not per operand).
        message_seconds: work of a rank's communication thread to post and complete one message.
    """

    nodes: tuple[int, ...]
    latency_seconds: float = 20e-6
    rail_bytes_per_second: float = 1.2e9
    rails: int = 1
    striped: bool = False
    local_latency_seconds: float = 2e-6
    local_bytes_per_second: float = 8e9
    node_bytes_per_second: float = 40e9
    reduce_bytes_per_second: float = 5e9
    message_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rail", "local", "node", "reduce"):
            value = getattr(self, f"{name}_bytes_per_second")
            if value <= 0:
                raise UsageError(
                    "machine", f"{name}_bytes_per_second={value} is not positive", "give a measured speed"
                )
        if self.rails < 1:
            raise UsageError("machine", f"rails={self.rails} is not at least 1", "count the network ports")

    @classmethod
    def uniform(cls, nodes: int, ranks_per_node: int = 1, **speeds: Any) -> Machine:
        """Return a machine of equal nodes, neighbouring ranks together; `speeds` are further attributes."""
        placement = tuple(rank // ranks_per_node for rank in range(nodes * ranks_per_node))
        return cls(nodes=placement, **speeds)

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return len(self.nodes)

    def local_rank(self, rank: int) -> int:
        """Number of a rank among those of its node."""
        return self.nodes[:rank].count(self.nodes[rank])

    def latency(self, src: int, dst: int) -> float:
        """Seconds from a send to the arrival of its first byte."""
        return self.local_latency_seconds if self.nodes[src] == self.nodes[dst] else self.latency_seconds

    def ports(self, src: int, dst: int) -> tuple[Port, Port]:
        """Return the ports that a message leaves and enters, in this order."""
        if self.nodes[src] == self.nodes[dst]:
            node = self.nodes[src]
            return (
                Port("memory", node, 0, self.node_bytes_per_second),
                Port("copy", node, dst, self.local_bytes_per_second),
            )
        return self._rail("out", src), self._rail("in", dst)

    def _rail(self, kind: str, rank: int) -> Port:
        if self.striped:
            return Port(kind, self.nodes[rank], 0, self.rails * self.rail_bytes_per_second)
        rail = self.local_rank(rank) % self.rails
        return Port(kind, self.nodes[rank], rail, self.rail_bytes_per_second)


def floor_seconds(machine: Machine, payload_bytes: int) -> float:
    """Return the time below which no allreduce of a payload can end, from bandwidth alone.

    Every node must send and receive ``2 (M-1)/M`` of the payload over all its rails (Patarasuk and Yuan
    2009, with nodes for ranks); on one node every rank must receive as much by copies.
    """
    count = len(set(machine.nodes))
    if count > 1:
        speed = machine.rails * machine.rail_bytes_per_second
    else:
        count = machine.world_size
        speed = min(machine.local_bytes_per_second, machine.node_bytes_per_second / count)
    return 2 * (count - 1) / count * payload_bytes / speed
