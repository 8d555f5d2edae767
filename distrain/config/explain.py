"""Turns what pydantic found wrong into errors that say what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from distrain.config.document import KeyPath
from distrain.config.reference import kind_of
from distrain.config.schema import RunConfig
from distrain.errors import ConfigError
from distrain.settings import Settings

# pydantic's error types -> (what is wrong, what to do); {limit} and {expected} come from the context
_WORDING = {
    "float_parsing": ("is not a number", "write a number, e.g. 0.1"),
    "finite_number": ("is not a finite number", "write a number, e.g. 0.1"),
    "float_type": ("is not a number", "write a number, e.g. 0.1"),
    "int_parsing": ("is not a whole number", "write a whole number, e.g. 8"),
    "int_type": ("is not a whole number", "write a whole number, e.g. 8"),
    "int_from_float": ("is not a whole number", "write a whole number, e.g. 8"),
    "bool_parsing": ("is neither true nor false", "write true or false"),
    "bool_type": ("is neither true nor false", "write true or false"),
    "string_type": ("is not text", "write it in quotes, as '\"{input}\"' on the command line"),
    "string_too_long": ("is longer than {max_length} characters", "shorten it"),
    "string_pattern_mismatch": ("holds characters that are not allowed here", "it must match {pattern}"),
    "literal_error": ("is not one of the choices", "choose {expected}"),
    "greater_than": ("is not greater than {gt}", "write a larger number"),
    "greater_than_equal": ("is less than {ge}", "write {ge} or more"),
    "less_than": ("is not less than {lt}", "write a smaller number"),
    "less_than_equal": ("is more than {le}", "write {le} or less"),
    "tuple_type": ("is not a list", "write it as [a, b]"),
    "dict_type": ("is not a mapping", "write `key: value` lines below it"),
    "model_type": ("is not a group of settings", "write its settings as `key: value` lines below it"),
    "too_long": ("has {actual_length} entries and may have {max_length}", "write [a, b]"),
    "too_short": ("has {actual_length} entries and needs {min_length}", "write [a, b]"),
}


def walk(model: type[Settings] = RunConfig, prefix: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the key path of every setting and group of settings, groups before their members."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from walk(field.annotation, (*prefix, name))


def _required(path: KeyPath) -> bool:
    model: Any = RunConfig
    for part in path[:-1]:
        model = model.model_fields[part].annotation
    return bool(model.model_fields[path[-1]].is_required())


def suggest(path: KeyPath) -> KeyPath | None:
    """Return the known key path that an unknown one most likely means.

    Same last word elsewhere first (``train.lr`` means ``train.optimizer.lr``), then a similar
    word in the same group, then a similar word anywhere.
    """
    known = list(walk())
    same_word = [key for key in known if key[-1] == path[-1]]
    if same_word:
        # the one that shares most of the path: comm.name is nearer to model.name than data.x.name
        return max(same_word, key=lambda key: len(set(key) & set(path)))
    group = {key[-1]: key for key in known if key[:-1] == path[:-1]}
    words = {key[-1]: key for key in reversed(known)}
    for options in (group, words):
        close = get_close_matches(path[-1], list(options), n=1, cutoff=0.6)
        if close:
            return options[close[0]]
    return None


def _known_part(loc: tuple[int | str, ...]) -> KeyPath:
    return tuple(str(part) for part in loc)


def _source(path: KeyPath, where: str, sources: Mapping[KeyPath, str]) -> str:
    """Return where the nearest enclosing key of ``path`` was written."""
    for length in range(len(path), 0, -1):
        if path[:length] in sources:
            return sources[path[:length]]
    return where


def _one(detail: ErrorDetails) -> tuple[str, str]:
    """Return (problem, what to do) for one finding of pydantic."""
    path = _known_part(detail["loc"])
    key, kind, context = ".".join(path), detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        meant = suggest(path)
        hint = f" (did you mean '{'.'.join(meant)}'?)" if meant else ""
        do = "correct the key" if meant else "`distrain config schema` lists all keys"
        return f"unknown setting '{key}'{hint}", do
    if kind == "missing":
        needed = [".".join(k) for k in walk() if k[:-1] == path and _required(k)] or [key]
        do = f"add {' and '.join(needed)} to the file, or give {needed[0]}=VALUE on the command line"
        return f"the setting '{key}' is missing and has no default", do
    if kind == "value_error":
        problem, _, do = str(context["error"]).partition("; ")
        # readers of units repeat the value in their text ('5parsecs' has the unknown unit ...)
        return f"{key}: {problem}", do or _allowed(path)
    context = {**context, "input": detail["input"]}
    problem, do = _WORDING.get(kind, (f"is not accepted: {detail['msg']}", _allowed(path)))
    return f"{key}={_short(detail['input'])} {problem.format(**context)}", do.format(**context)


def _allowed(path: KeyPath) -> str:
    kind = kind_of(path)
    if kind is None:
        return "see docs/configuration.md"
    return f"write {'one of ' if kind.startswith('`') else ''}{kind}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def explain(error: ValidationError, where: str, sources: Mapping[KeyPath, str]) -> ConfigError:
    """Return one ConfigError for everything that pydantic found.

    Args:
        error: what pydantic raised.
        where: path of the file.
        sources: for each key path that was written, ``file:line`` or ``command line``.
    """
    found = [(_source(_known_part(d["loc"]), where, sources), *_one(d)) for d in error.errors()]
    if len(found) == 1:
        return ConfigError(*found[0])
    listing = "".join(f"\n  {source}: {problem}; {do}" for source, problem, do in found)
    return ConfigError(where, f"{len(found)} settings are wrong{listing}\n", "mend them all")
