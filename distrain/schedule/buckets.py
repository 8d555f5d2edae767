"""How large DDP's buckets of gradients should be: few enough to be cheap, and a short one to end with.

A step cannot end before its last bucket has travelled, which nothing hides: that speaks for small buckets.
But each costs its latency and some work, and there are as many as fit into the gradients: that speaks for
large ones. With `o` seconds a bucket, `s` seconds a byte and `G` bytes of gradients, buckets of `B` bytes
cost ``o G / B`` along the way and ``s B`` at the end: least where ``B = sqrt(o G / s)``.
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
    fixed = BUCKET_SECONDS + _seconds(nodes, 1, rails, speeds)
    per_byte = _seconds(nodes, _LONG_BYTES, rails, speeds) / _LONG_BYTES
    if per_byte == 0:  # a rank alone
        return LARGEST_BYTES
    best = sqrt(fixed * gradient_bytes / per_byte)
    return min(LARGEST_BYTES, max(SMALLEST_BYTES, 1 << max(0, round(log2(max(best, 1))))))


def _seconds(nodes: Sequence[int], payload_bytes: int, rails: int, speeds: Speeds | None) -> float:
    choice = advise(nodes, Collective.ALLREDUCE, payload_bytes, rails, speeds)
    return estimate(choice.algorithm, nodes, payload_bytes, rails, speeds) or 0.0
