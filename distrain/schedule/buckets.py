"""How large DDP's buckets of gradients should be: few enough to be cheap, and short ones to end with.

A step cannot end before its last bucket has travelled, which nothing hides: that speaks for small buckets.
But each costs its latency and some work, and there are as many as fit into the gradients: that speaks for
large ones. With `o` seconds a bucket, `s` seconds a byte and `G` bytes of gradients, buckets of one size `B`
cost ``o G / B`` along the way and ``s B`` at the end: least where ``B = sqrt(o G / s)``.

Sizes that shrink towards the end of the step cost less. A bucket of `B` bytes that `R` more follow is there
in time if its way, ``s B``, is not longer than what backward takes for the rest beyond the way of the rest:
``B <= b + f R``, where ``b = o / s`` is what travels as long as it costs otherwise, and `f` says by which
part the backward pass of the last layers takes longer than the way of their gradients. In convolutional
networks those have little to send and much to compute. So buckets are of size `B` as long as they may be, and
then each is a constant factor shorter than the one before. (Buckets that follow from the times of layers:
Shi et al. 2019, MG-WFBP, arXiv 1811.11141; here no times are known.)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2, sqrt

from distrain.schedule.advice import Speeds, advise, estimate
from distrain.schedule.ir import Collective

# Work of the processor on each bucket: hook, queue, threads. Most of it is hidden behind backward.
BUCKET_SECONDS = 100e-6
SMALLEST_BYTES = 1 << 20
LARGEST_BYTES = 32 << 20
# The last buckets: shorter ones are not worth their work. And what is assumed of `f`.
SHORTEST_BYTES = 128 << 10
SLACK = 0.25
# Long enough that all of its time is bandwidth.
_LONG_BYTES = 1 << 30


def advise_bucket_bytes(
    nodes: Sequence[int], gradient_bytes: int, rails: int = 1, speeds: Speeds | None = None
) -> int:
    """Return the size of buckets, a power of two of bytes.

    Args:
        nodes: ``nodes[r]`` is the node of rank r.
        gradient_bytes: of the whole model.
        rails: network ports of each node.
        speeds: of the machine; None: of a common one.
    """
    fixed, per_byte = _costs(nodes, rails, speeds)
    if per_byte == 0:  # a rank alone
        return LARGEST_BYTES
    best = sqrt(fixed * gradient_bytes / per_byte)
    return min(LARGEST_BYTES, max(SMALLEST_BYTES, 1 << max(0, round(log2(max(best, 1))))))


def advise_buckets(
    sizes: Sequence[int], nodes: Sequence[int], rails: int = 1, speeds: Speeds | None = None
) -> list[int]:
    """Return the bytes of each bucket, in the order in which they travel; together they hold all gradients.

    Args:
        sizes: bytes of each gradient, in the order in which backward makes them.
        nodes, rails, speeds: as for `advise_bucket_bytes`.
    """
    rest = sum(sizes)
    largest = advise_bucket_bytes(nodes, rest, rails, speeds)
    fixed, per_byte = _costs(nodes, rails, speeds)
    shortest = min(largest, max(SHORTEST_BYTES, fixed / per_byte if per_byte else 0))
    buckets: list[int] = []
    held, limit = 0, 0.0
    for size in sizes:
        if held and held + size > limit and 2 * held >= limit:  # nearer to the limit without this one
            buckets.append(held)
            held = 0
        if not held:
            limit = min(largest, (shortest + SLACK * rest) / (1 + SLACK))
        held += size
        rest -= size
        if held >= limit:
            buckets.append(held)
            held = 0
    return [*buckets, held] if held else buckets


def _costs(nodes: Sequence[int], rails: int, speeds: Speeds | None) -> tuple[float, float]:
    """Return the seconds of a bucket, and those of each of its bytes."""
    fixed = BUCKET_SECONDS + _seconds(nodes, 1, rails, speeds)
    return fixed, _seconds(nodes, _LONG_BYTES, rails, speeds) / _LONG_BYTES


def _seconds(nodes: Sequence[int], payload_bytes: int, rails: int, speeds: Speeds | None) -> float:
    choice = advise(nodes, Collective.ALLREDUCE, payload_bytes, rails, speeds)
    return estimate(choice.algorithm, nodes, payload_bytes, rails, speeds) or 0.0
