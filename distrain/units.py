"""Quantities that people write in YAML: ``64 MiB``, ``90ep``, ``500st``, ``60s``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from distrain.errors import UsageError

_BYTES = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
LONGEST = 1e12
"""Epochs or steps of the longest duration; every number of steps up to here is a float without loss."""
_SECONDS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*")


def _quantity(text: str, what: str, example: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UsageError(what, f"{text!r} is not a number with a unit", f"write it like {example!r}")
    number = float(match[1])
    if math.isinf(number):
        raise UsageError(what, f"{text!r} is too large for a number", f"write it like {example!r}")
    return number, match[2].lower()


def parse_bytes(value: int | str) -> int:
    """Return a number of bytes from ``1048576``, ``"1 MiB"``, ``"1M"`` or ``"1 MB"`` (10**6).

    Raises:
        UsageError: the text is not a number with a unit of bytes, or is negative.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise UsageError("size", f"{value} is negative", "give 0 or more bytes")
        return value
    number, unit = _quantity(str(value), "size", "64 MiB")
    if unit not in _BYTES:
        raise UsageError("size", f"{value!r} has the unknown unit {unit!r}", "use B, KiB, MiB, GiB or TiB")
    return round(number * _BYTES[unit])


def format_bytes(count: int | float) -> str:
    """Return bytes for people: ``format_bytes(44_040_192) == "42.0 MiB"``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def parse_seconds(value: int | float | str) -> float:
    """Return seconds from ``60``, ``"60s"``, ``"5min"``, ``"50 ms"`` or ``"2h"``.

    Raises:
        UsageError: the text is not a number with a unit of time, or is negative.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not value >= 0:  # as nan is not
            raise UsageError("time", f"{value} is not 0 or more", "give 0 or more seconds")
        return float(value)
    number, unit = _quantity(str(value), "time", "60s")
    if unit not in _SECONDS:
        raise UsageError("time", f"{value!r} has the unknown unit {unit!r}", "use us, ms, s, min or h")
    return number * _SECONDS[unit]


@dataclass(frozen=True)
class Duration:
    """A stretch of training in epochs or steps, e.g. ``Duration(90, "ep")``.

    Attributes:
        count: how many; epochs may be fractional.
        unit: ``"ep"`` (epochs) or ``"st"`` (optimizer steps).
    """

    count: float
    unit: str

    @classmethod
    def parse(cls, value: Duration | int | float | str) -> Duration:
        """Read ``"90ep"``, ``"5000st"`` or a bare number of epochs.

        Raises:
            UsageError: not a non-negative number with the unit ``ep`` or ``st``.
        """
        if isinstance(value, Duration):
            return value
        number, unit = _quantity(str(value), "duration", "90ep")
        unit = unit or "ep"
        if unit not in ("ep", "st"):
            raise UsageError(
                "duration", f"{value!r} has the unknown unit {unit!r}", "use 'ep' (epochs) or 'st' (steps)"
            )
        if number > LONGEST:
            raise UsageError("duration", f"{value!r} is more than 10**12", "write a shorter one")
        if unit == "st" and number != int(number):
            raise UsageError("duration", f"{value!r} is not a whole number of steps", "write e.g. '500st'")
        return cls(number, unit)

    def steps(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps, rounded to the nearest whole step."""
        return round(self.count * steps_per_epoch) if self.unit == "ep" else int(self.count)

    def __str__(self) -> str:
        # repr of a float reads back as the same float, which :g does not
        return f"{int(self.count) if self.count == int(self.count) else repr(self.count)}{self.unit}"
