"""YAML in and out: plain values plus the line on which each key stands.

Scalars are read as YAML 1.2 reads them, which is what people mean in a recipe: ``1e-4`` is a
number and ``24:00:00`` is text (YAML 1.1, PyYAML's default, says text and 86400), and ``no`` is text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from distrain.errors import ConfigError

KeyPath = tuple[str, ...]

_WRITE = "write it as `key: value`, with what is opened closed and quotes around text of special characters"

_RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0x[0-9a-fA-F]+|0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
        r"|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("merge", r"<<", "<"),
)


def _install_resolvers(kind: Any) -> None:
    kind.yaml_implicit_resolvers = {}  # else the additions below would also change PyYAML's own classes
    for tag, pattern, first in _RESOLVERS:
        letters: list[str] = [*first, ""] if tag == "null" else list(first)
        kind.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), letters)


class _Loader(yaml.SafeLoader):
    """A safe loader with YAML 1.2 scalars, that remembers lines and refuses duplicate keys."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self.where = where

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise ConfigError(
                    f"{self.where}:{line}", f"the key {key!r} is not a word", "write `key: value`"
                )
            if key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise ConfigError(
                    f"{self.where}:{line}",
                    f"key '{key}' is already set on line {seen[key]} and may be given only once",
                    "remove one of the two",
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader above would otherwise misread, and what other readers of YAML would."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        elsewhere = yaml.resolver.Resolver().resolve(yaml.ScalarNode, value, (True, False))
        style = None if elsewhere == "tag:yaml.org,2002:str" else "'"
        if not value.isprintable():  # control characters survive only as escapes
            style = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _Dumper.text)
_install_resolvers(_Loader)
_install_resolvers(_Dumper)


def _lines(node: yaml.Node | None, path: KeyPath, found: dict[KeyPath, int], seen: set[int]) -> None:
    if id(node) in seen:  # an alias: its lines are those of its anchor, and it may contain itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            found[here] = key.start_mark.line + 1
            _lines(value, here, found, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            here = (*path, str(number))
            found[here] = value.start_mark.line + 1
            _lines(value, here, found, seen)


def parse(text: str, where: str) -> tuple[Any, dict[KeyPath, int]]:
    """Read one YAML document.

    Args:
        text: the document.
        where: its name in errors, e.g. the path of the file.

    Returns:
        The value, and for each key path (``("train", "duration")``) the line on which it stands.

    Raises:
        ConfigError: not YAML, a tag that would build an object, or a key given twice.
    """
    try:
        loader = _Loader(text, where)
    except yaml.YAMLError as error:
        raise ConfigError(where, f"not valid YAML: {error}", "remove that character") from None
    try:
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        _lines(node, (), lines, set())
        return (None if node is None else loader.construct_document(node)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(at, f"not valid YAML: {error.problem or error.context}", _WRITE) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(where, f"not valid YAML: {error}", "write that value in quotes") from None
    except RecursionError:
        raise ConfigError(
            where, "its brackets are nested too deeply", "close them; settings are at most 4 deep"
        ) from None
    finally:
        loader.dispose()


def render(value: Any) -> str:
    """Return ``value`` (dicts, lists, scalars) as YAML that `parse` reads back as an equal value."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
