"""The choice among the decoders."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from distrain.data.decode.engine import DecodeEngine
from distrain.data.raw_layout import RAW_ENCODINGS
from distrain.errors import ConfigError, DataError, nearest

log = logging.getLogger("distrain.data")


def native_or_reason() -> DecodeEngine | str:
    """Return the compiled decoder, or in words why there is none."""
    from distrain.data.decode.native import load

    try:
        return load()
    except RuntimeError as error:
        return str(error)


def _turbojpeg(device: int | None) -> DecodeEngine:
    from distrain.data.decode.turbojpeg import TurboJpegEngine

    return TurboJpegEngine()


def _dali(device: int | None) -> DecodeEngine:
    from distrain.data.decode.dali import DaliEngine

    return DaliEngine(device)


def _nvjpeg(device: int | None) -> DecodeEngine:
    from distrain.data.decode.nvjpeg import load

    return load(device)


@functools.cache
def _warn_slower(reason: str) -> None:
    # Cached, so that a process says it once however many loaders it opens.
    log.warning("decoder: simplejpeg + Pillow (slower); the native decoder cannot be used: %s", reason)


def _auto(device: int | None) -> DecodeEngine:
    found = native_or_reason()
    if isinstance(found, str):
        _warn_slower(found)
        return _turbojpeg(device)
    return found


def _native(device: int | None) -> DecodeEngine:
    found = native_or_reason()
    if isinstance(found, str):
        raise ConfigError(
            "data.engine",
            f"'native' is not available: {found}",
            "install a C compiler and run `python -m distrain.data.decode.build_native`, "
            "or set data.engine=auto",
        )
    return found


_ENCODINGS = ("jpeg", "jpeg-indexed", *RAW_ENCODINGS)
_JPEG_ENGINES: dict[str, Callable[[int | None], DecodeEngine]] = {
    "auto": _auto,
    "native": _native,
    "turbojpeg": _turbojpeg,
    "dali": _dali,
    "nvjpeg": _nvjpeg,
}
_JPEG_ONLY = ("dali", "nvjpeg")


def create(name: str, encoding: str = "jpeg", device: int | None = None) -> DecodeEngine:
    """Return the engine ``name`` for packs of an encoding.

    Args:
        name: ``auto`` (native where it was built, else turbojpeg), ``native``, ``turbojpeg``, ``dali`` or
            ``nvjpeg``. For packs of pixels turbojpeg means Pillow.
        encoding: ``jpeg``, ``jpeg-indexed``, ``raw`` or ``yuv420``, as the manifest of the pack says.
        device: number of the GPU that this rank computes on; None: it computes on the CPU.

    Raises:
        ConfigError: no such engine, or one that is not there or does not read such packs.
        DataError: no engine of this version reads such an encoding.
    """
    if name not in _JPEG_ENGINES:
        raise ConfigError(
            "data.engine",
            f"{name!r} is no decoder{nearest(name, _JPEG_ENGINES)}",
            f"use one of {', '.join(_JPEG_ENGINES)}",
        )
    if encoding not in _ENCODINGS:
        known = ", ".join(_ENCODINGS)
        raise DataError(
            "manifest.json", f"encoding={encoding!r} is not one of {known}", "pack the data set again"
        )
    return _raw(name, encoding) if encoding in RAW_ENCODINGS else _JPEG_ENGINES[name](device)


def _raw(name: str, encoding: str) -> DecodeEngine:
    from distrain.data.decode.native import load_raw
    from distrain.data.decode.raw import RawEngine

    if name in _JPEG_ONLY:
        raise ConfigError(
            "data.engine", f"{name!r} decodes JPEGs, and the pack is {encoding}", "set data.engine=auto"
        )
    if name == "turbojpeg" or (name == "auto" and isinstance(native_or_reason(), str)):
        return RawEngine(encoding)
    _native(None)  # raises where it is not built
    return load_raw(encoding)
