"""Writes the reference of all settings (docs/configuration.md) from the schema itself."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from enum import Enum
from typing import Any

from pydantic.fields import FieldInfo

from distrain.config import variables
from distrain.config.schema import RunConfig
from distrain.settings import Bytes, Seconds, Settings
from distrain.units import Duration, format_bytes

HEADER = """# Configuration

<!-- Written by `distrain config reference > docs/configuration.md`: edit a settings.py instead. -->

A run is one YAML file. Every setting is listed here; a key that is not listed is an error that names
the nearest one. Settings without a default must be given.

- **Overrides**: `distrain launch FILE train.duration=2ep data.augment.flip=0` sets dotted keys after
  the file is read. Values are YAML: `launch.env='{NAME: value}'`, `launch.mpirun_args='[--tag-output]'`.
- **Quantities** are numbers with a unit, in upper or lower case, with or without a space before it:
  - durations: `90ep`, `500st`; `ep` epochs (or a fraction of one), `st` steps; a bare number means epochs;
  - sizes: `25 MiB`; `KiB`, `MiB`, `GiB`, `TiB` and, the same, `k`, `m`, `g`, `t` are powers of 1024, `kB`,
    `MB`, `GB`, `TB` of 1000: `64k` is 65,536 bytes, `64kb` 64,000; `b` or a bare number means bytes;
  - times: `60s`, `5min`; `us`, `ms`, `s`, `m` or `min`, `h`; a bare number means seconds, `.inf` no limit.
- **Scalars** are those of YAML 1.2: `1e-4` is a number, `24:00:00` and `no` are text.
- **Paths** are relative to the folder in which the command is started.
- **Editors**: `distrain config schema > schema.json` and a first line
  `# yaml-language-server: $schema=schema.json` give completion and checks while typing.
- The resolved settings, defaults included, are kept in every run folder as `config.yaml`.
"""

_QUANTITIES = {"size": Bytes, "time": Seconds}
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Duration: "duration"}


def kind_of(path: Sequence[str]) -> str | None:
    """Return in words what a setting takes, for what is inside of it too; None: there is no such setting."""
    model: Any = RunConfig
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            return None
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Settings)):
            return _kind(_whole(field))
        model = field.annotation
    return "a group of settings"


def _kind(annotation: Any) -> str:
    """Return a type in words, e.g. ``text or null`` or ``list of duration``."""
    for name, quantity in _QUANTITIES.items():
        if annotation == quantity:
            return name
    if annotation in _WORDS:
        return _WORDS[annotation]
    if annotation is type(None):
        return "null"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(a) for a in arguments)
    if origin is dict:
        return f"names with {_kind(arguments[1])}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_kind(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_kind(a) for a in arguments)}]"
    return str(getattr(annotation, "__name__", annotation))


def _whole(field: FieldInfo) -> Any:
    """Return the type of a field with what stood beside it in `Annotated`, which pydantic keeps apart."""
    found = (q for q in _QUANTITIES.values() if set(typing.get_args(q)[1:]) <= set(field.metadata))
    return next(found, field.annotation)


def _row(name: str, field: FieldInfo, prefix: str) -> str:
    kind, default = _kind(_whole(field)), _plain(field.default)
    if kind.startswith("size") and field.default is not None:
        default = format_bytes(field.default)
    elif kind.startswith("time") and field.default is not None:
        default = f"{field.default:g}s"
    default = "**required**" if field.is_required() else f"`{default}`"
    text = (field.description or "").replace("|", "\\|")
    return f"| `{prefix}{name}` | {kind} | {default} | {text} |"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_plain(v) for v in value)}]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}" if value == float(f"{value:.4g}") else repr(value)
    return str(value.value if isinstance(value, Enum) else value)


def _section(model: type[Settings], prefix: str) -> list[str]:
    rows, inner = [], []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            inner += _section(field.annotation, f"{prefix}{name}.")
        else:
            rows.append(_row(name, field, prefix))
    title = f"`{prefix.rstrip('.')}`" if prefix else "The run"
    about = (model.__doc__ or "").split("\n\n")[0]
    table = ["", f"## {title}", "", about, "", "| setting | type | default | meaning |", "|---|---|---|---|"]
    return [*table, *rows, *inner]


def markdown() -> str:
    """Return docs/configuration.md: a table of settings for each room."""
    return HEADER + "\n".join(_section(RunConfig, "")) + "\n" + variables.markdown()
