"""Which image of a batch fails, for libraries that fail a batch as a whole."""

from __future__ import annotations

from collections.abc import Callable

from distrain.data.decode.engine import DecodeError
from distrain.errors import DataError


def blame(engine: str, batch: slice, decode: Callable[[slice], None], error: RuntimeError) -> Exception:
    """Return the error to raise for a batch of which something failed.

    The batch is halved until the first image that fails is left: for 128 images eight calls.

    Args:
        engine: its name, for messages.
        batch: positions of the images that were decoded together, at least one.
        decode: decodes the images at some positions; raises RuntimeError if that fails.
        error: of the whole batch.

    Returns:
        A `DecodeError` with the position and the reason of an image that fails alone. If none does (the
        device has no memory left, say), a `DataError`, so that no image is left out for it.
    """
    low, high = batch.start, batch.stop
    while high - low > 1:
        middle = (low + high) // 2
        try:
            decode(slice(low, middle))
            low = middle
        except RuntimeError:
            high = middle
    try:
        decode(slice(low, high))
    except RuntimeError as alone:
        return DecodeError(low, reason_of(alone))
    count = batch.stop - batch.start
    return DataError(
        f"data.engine={engine}",
        f"a batch of {count} images failed, and none of them fails alone: {reason_of(error)}",
        "use data.engine=native, or look at the memory of the device",
    )


def reason_of(error: RuntimeError) -> str:
    """Return the line of a library's error that says what is wrong: DALI's come with tracebacks around it."""
    _, _, after = str(error).partition("encountered:")
    lines = [line.strip() for line in (after or str(error)).splitlines() if line.strip()]
    return lines[0].rstrip(" :") if lines else type(error).__name__
