"""From a YAML file and ``key=value`` overrides to a checked `RunConfig`, and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distrain.config import document
from distrain.config.explain import explain
from distrain.config.schema import RunConfig
from distrain.errors import ConfigError

OVERRIDE = "command line"


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration: the file first, then the overrides, then the checks.

    Args:
        path: the YAML file.
        overrides: ``train.duration=2ep``; the value is read as YAML, keys are dotted paths.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown (the nearest is named),
            a value is of the wrong type or out of range. All wrong settings are listed at once.
    """
    where = os.fspath(path)
    values, lines = document.parse(_read(Path(path)), where)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(where, "the file is not a mapping of settings", "write lines like `name: first`")
    sources = {key: f"{where}:{line}" for key, line in lines.items()}
    for override in overrides:
        _apply(values, sources, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise explain(error, where, sources) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        do = "give the path of a YAML file, for example one of configs/"
        raise ConfigError(str(path), "there is no such file", do) from None
    except IsADirectoryError:
        raise ConfigError(str(path), "this is a folder", "give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), "the file is not UTF-8 text", "give the path of a YAML file") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", "check the path") from None


def _apply(values: dict[str, Any], sources: dict[document.KeyPath, str], override: str) -> None:
    """Set one ``a.b.c=value`` in the nested mapping and note where the value came from."""
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(
            OVERRIDE, f"{override!r} is not of the form key=value", "write e.g. train.duration=2ep"
        )
    value, _ = document.parse(text, f"{OVERRIDE}, {override}")
    inner = values
    for number, part in enumerate(path[:-1], 1):
        if inner.get(part) is None:
            inner[part] = {}
        sources[path[:number]] = OVERRIDE
        inner = inner[part]
        if not isinstance(inner, dict):
            raise ConfigError(
                OVERRIDE,
                f"{key} cannot be set, since {'.'.join(path[:number])}={inner!r} is a single value",
                "check the spelling of the key",
            )
    inner[path[-1]] = value
    sources[path] = OVERRIDE


def dump(config: RunConfig) -> str:
    """Return the resolved configuration, defaults included, as YAML that loads back to an equal one."""
    return document.render(config.model_dump(mode="json"))
