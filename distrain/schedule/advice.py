"""Which algorithm for a payload, from formulas: what decides where nothing was measured.

The formulas are those of docs/algorithms.md, with corrections for messages that meet at a port. In a network
where every port is free, halving and doubling moves as many bytes as a ring in fewer steps and would win at
every size. Its partners change from step to step and send long messages, so links wait for each other's ends;
`SCATTER` says by how much its bytes, and those of recursive doubling, are slower than those of a ring, whose
pipeline never stops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log, log2

from distrain.schedule.ir import Collective
from distrain.schedule.orders import ring_orders
from distrain.schedule.registry import family

# Longest message below the size at which Open MPI over TCP asks the receiver first (64 KiB with its header).
EAGER_BYTES = 64_000
# Bytes to partners that change from step to step; see above.
SCATTER = 1.4
# A tree's bytes also go from one sender to several receivers, in segments that follow each other closely.
TREE_SCATTER = 1.2
# Of a step's time, what each further message in it adds: an interior rank of a tree has one a child.
MESSAGE_SHARE = 0.2
MOST_COLORS = 16
# What formulas choose from; of equals the first. The second row is for nodes with several ranks.
FLAT = ("multicolor_ring", "multicolor_tree", "halving_doubling", "recursive_doubling")
LAYERED = ("hierarchical", "hierarchical_halving", "hierarchical_doubling")
ADVISED = FLAT + LAYERED
# What is worth measuring beside rings: algorithms, and with how many colors.
FLAT_COLORS = {"multicolor_tree": (2, 4), "halving_doubling": (1, 2), "recursive_doubling": (1,)}
LAYERED_COLORS = {
    "hierarchical": (1, 2),
    "hierarchical_halving": (1,),
    "hierarchical_tree": (2,),
    "hierarchical_doubling": (1,),
}
ONE_COLOR = (
    "ring",
    "halving_doubling",
    "recursive_doubling",
    "hierarchical_halving",
    "hierarchical_doubling",
)
# Of a rate of Ethernet, what TCP leaves for the payload; measured on the emulated links (by headers alone
# it would be 1448 of 1514 bytes).
TCP_GOODPUT = 0.957


@dataclass(frozen=True)
class Choice:
    """What runs a collective.

    Attributes:
        algorithm: a name in the registry.
        colors: asked of its generator.
        segment_bytes: longest message.
    """

    algorithm: str
    colors: int
    segment_bytes: int = EAGER_BYTES

    @property
    def title(self) -> str:
        """For people: ``multicolor_ring/2 64 KB``: algorithm, colors, longest message (10**3 bytes)."""
        return f"{self.algorithm}/{self.colors} {self.segment_bytes / 1e3:.0f} KB"


@dataclass(frozen=True)
class Speeds:
    """What the formulas need to know about a machine.

    Attributes:
        step_seconds: of one step between nodes: latency, and the work of both ranks' communication threads.
        bytes_per_second: of one rail, each direction.
        local_step_seconds: of one step between ranks of a node.
        local_bytes_per_second: payload that the ranks of a node combine in its memory.
    """

    step_seconds: float = 50e-6
    bytes_per_second: float = 1.2e9
    local_step_seconds: float = 20e-6
    local_bytes_per_second: float = 6e9


def payload_rate(gbit: float) -> float:
    """Return the payload bytes a second of a link of so many Gbit/s."""
    return gbit * 1e9 / 8 * TCP_GOODPUT


def estimate(
    algorithm: str, nodes: Sequence[int], payload_bytes: int, rails: int = 1, speeds: Speeds | None = None
) -> float | None:
    """Return the seconds of an allreduce by the formula of the algorithm; None: it has no formula here.

    Args:
        algorithm: a name in the registry.
        nodes: ``nodes[r]`` is the node of rank r.
        payload_bytes: size of the whole payload.
        rails: network ports of each node.
        speeds: of the machine; None: of a common one.
    """
    s = speeds or Speeds()
    ranks, hosts = len(nodes), len(set(nodes))
    local = max(nodes.count(node) for node in set(nodes)) if nodes else 1
    if ranks < 2:
        return 0.0
    between = hosts > 1
    step = s.step_seconds if between else s.local_step_seconds
    byte = 1 / (rails * s.bytes_per_second) if between else 1 / s.local_bytes_per_second
    if algorithm in ("ring", "multicolor_ring"):
        return 2 * (ranks - 1) * step + _share(ranks) * byte * payload_bytes
    if algorithm == "multicolor_tree":
        colors = tree_colors(ranks)
        levels = ceil(log(ranks * (colors - 1) + 1, colors)) - 1
        crowding = local if between else 1
        per_step = step * (1 + (colors - 1) * MESSAGE_SHARE)
        return 2 * levels * per_step + 2 * byte * payload_bytes * TREE_SCATTER * crowding
    if algorithm == "halving_doubling":
        crowding = local if between else 1  # neighbours in rank are not partners: all ranks use the rails
        return 2 * ceil(log2(ranks)) * step + _share(ranks) * byte * payload_bytes * SCATTER * crowding
    if algorithm == "recursive_doubling":
        crowding = local if between else 1
        rounds, folds = doubling_steps(ranks)
        return (rounds + folds) * step + (rounds + folds) * byte * payload_bytes * SCATTER * crowding
    if algorithm in LAYERED and between and local > 1:
        inside = 2 * (local - 1) * s.local_step_seconds
        inside += _share(local) * payload_bytes / s.local_bytes_per_second
        if algorithm == "hierarchical_doubling":
            steps = sum(doubling_steps(hosts))
            return inside + steps * step + steps * byte * payload_bytes * SCATTER
        few = algorithm == "hierarchical_halving"
        steps = 2 * ceil(log2(hosts)) if few else 2 * (hosts - 1)
        return inside + steps * step + _share(hosts) * byte * payload_bytes * (SCATTER if few else 1.0)
    return None


def doubling_steps(count: int) -> tuple[int, int]:
    """Return the exchanges of recursive doubling, and what surplus ranks add: 0 or 2 steps."""
    exchanges = count.bit_length() - 1
    return exchanges, 0 if count == 1 << exchanges else 2


def tree_colors(ranks: int) -> int:
    """Return arity and colors of the trees: four, fewer between few ranks (more share a port for no gain)."""
    return min(4, max(2, ranks))


def _share(count: int) -> float:
    """Of the payload, what each of so many must send and receive."""
    return 2 * (count - 1) / count


def advise(
    nodes: Sequence[int],
    collective: Collective,
    payload_bytes: int,
    rails: int = 1,
    speeds: Speeds | None = None,
) -> Choice:
    """Return what the formulas say is the fastest; the same on every rank that asks alike.

    Reduce-scatter and all-gather are the halves of an allreduce: what is best for it is best for them.
    """
    times = [
        (seconds, place, name)
        for place, name in enumerate(ADVISED)
        if collective in family(name).collectives
        and (seconds := estimate(name, nodes, payload_bytes, rails, speeds)) is not None
    ]
    name = min(times)[2]
    return Choice(name, colors_for(name, nodes, rails))


def colors_for(algorithm: str, nodes: Sequence[int], rails: int) -> int:
    """Return how many colors suit an algorithm, whoever has chosen it.

    Each rail wants a ring. More share a port: their messages are shorter, and nothing is gained. Trees are
    between ranks, or between nodes.
    """
    if algorithm in ONE_COLOR:
        return 1
    if algorithm == "multicolor_tree":
        return tree_colors(len(nodes))
    if algorithm == "hierarchical_tree":
        return tree_colors(len(set(nodes)))
    return min(MOST_COLORS, rails)


def candidates(nodes: Sequence[int], collective: Collective, payload_bytes: int, rails: int) -> list[Choice]:
    """Return what is worth measuring for a payload, the advised one first.

    Segments longer than the longest slot are the same as none, and are left out.
    """
    found = [advise(nodes, collective, payload_bytes, rails)]
    for algorithm, colors in _variants(nodes, collective, rails):
        slot = payload_bytes / (len(nodes) * colors)
        for segment in (EAGER_BYTES, 256 << 10, 1 << 20):
            found.append(Choice(algorithm, colors, segment))
            if segment >= slot:
                break
    return list(dict.fromkeys(found))


def _variants(nodes: Sequence[int], collective: Collective, rails: int) -> Iterator[tuple[str, int]]:
    several = len(set(nodes)) > 1 and len(nodes) > len(set(nodes))
    is_one_ring = ring_orders(len(nodes), 1, nodes) == (tuple(range(len(nodes))),)  # by both names
    rings = {"multicolor_ring": (1, 2, 4)} if is_one_ring else {"ring": (1,), "multicolor_ring": (2, 4)}
    for algorithm, colors in {**rings, **FLAT_COLORS, **(LAYERED_COLORS if several else {})}.items():
        if collective in family(algorithm).collectives:
            for count in sorted({*colors, *((rails,) if rails > 2 and max(colors) > 1 else ())}):
                yield algorithm, count
