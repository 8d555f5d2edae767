"""What a benchmark reports: medians of the slowest rank, bus bandwidth, one JSON object a line."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from distrain.schedule.advice import TCP_GOODPUT


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the percentile by linear interpolation between the two nearest ranks."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def bus_bandwidth(payload_bytes: int, ranks: int, seconds: float) -> float:
    """Return the bus bandwidth of an allreduce in GB/s (10**9 bytes).

    The bytes that each rank must at least send, ``2 (n - 1) / n`` of the payload, over the time:
    comparable between any numbers of ranks and any algorithms. Definition: NVIDIA nccl-tests,
    doc/PERFORMANCE.md.
    """
    return payload_bytes * 2 * (ranks - 1) / ranks / seconds / 1e9


def wire_floor_seconds(payload_bytes: int, machines: int, rails: int, bytes_per_second: float) -> float:
    """Return the time below which no allreduce between machines can end, from bandwidth alone.

    ``2 (n - 1) / n * payload / (rails * rate) / 0.957`` for ``n`` machines: what each of them must send
    and receive (Patarasuk and Yuan 2009), over all its cards at once, each of this rate in each direction.
    """
    bytes_each = 2 * (machines - 1) / machines * payload_bytes
    return bytes_each / (rails * bytes_per_second) / TCP_GOODPUT


def leaving_seconds(leaving_bytes: int, rails: int, bytes_per_second: float) -> float:
    """Return the time below which bytes cannot leave a machine: ``bytes / (rails * rate) / 0.957``."""
    return leaving_bytes / (rails * bytes_per_second) / TCP_GOODPUT


def allreduce_line(
    name: str, algorithm: str, ranks: int, payload_bytes: int, seconds: Sequence[float]
) -> dict[str, object]:
    """Return the line of one contender whose answer was right.

    Args:
        name: the contender.
        algorithm: what it ran.
        ranks: world size.
        payload_bytes: size of the array on each rank.
        seconds: one time an iteration, of its slowest rank.
    """
    median = statistics.median(seconds)
    return {
        "bench": "allreduce",
        "name": name,
        "algorithm": algorithm,
        "ranks": ranks,
        "bytes": payload_bytes,
        "median_s": median,
        "p90_s": percentile(seconds, 90),
        "busbw_gbytes_per_s": bus_bandwidth(payload_bytes, ranks, median),
        "iterations": len(seconds),
        "correct": True,
    }


def error_line(
    name: str, algorithm: str, ranks: int, payload_bytes: int, error: str, correct: bool | None = None
) -> dict[str, object]:
    """Return the line of a contender that is not installed, failed, or gave a wrong answer."""
    line: dict[str, object] = {
        "bench": "allreduce",
        "name": name,
        "algorithm": algorithm,
        "ranks": ranks,
        "bytes": payload_bytes,
        "error": error,
    }
    if correct is not None:
        line["correct"] = correct
    return line
