"""Host files: both spellings, and the errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.errors import ConfigError
from distrain.launch.hosts import Host, parse_hosts, place, read_hosts


def test_both_spellings() -> None:
    text = "# nodes\nnode1 slots=8\n node-2.cluster:4  # half\n\n10.0.0.3\nn4 slots = 2\n"
    assert parse_hosts(text, "f") == (
        Host("node1", 8),
        Host("node-2.cluster", 4),
        Host("10.0.0.3", 1),
        Host("n4", 2),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\na:2\n", "f:2: a is listed twice; list it once, with all its slots"),
        ("a slots=0\n", "f:1: a has 0 slots; give 1 or more, or leave it out"),
        ("a slot=2\n", "f:1: 'a slot=2' is not a host; write `name slots=N` or `name:N`, one a line"),
        ("-oProxyCommand=x\n", "f:1: '-oProxyCommand=x' is not a host"),
        ("a:b\n", "f:1: 'a:b' is not a host"),
        ("# nothing\n\n", "f: the host file names no host; write `name slots=N`, one a line"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_hosts(text, "f")
    assert str(caught.value).startswith(message)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_hosts(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_hosts(tmp_path / "binary")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_placing_fills_hosts_in_order(slots: list[int], data: st.DataObject) -> None:
    hosts = tuple(Host(f"h{i}", n) for i, n in enumerate(slots))
    np = data.draw(st.integers(1, sum(slots)))
    placed = place(hosts, np)
    assert sum(h.slots for h in placed) == np
    assert [h.name for h in placed] == [h.name for h in hosts[: len(placed)]]
    assert all(p.slots == h.slots for p, h in zip(placed[:-1], hosts, strict=False))
    assert 1 <= placed[-1].slots <= hosts[len(placed) - 1].slots


def test_too_many_ranks() -> None:
    with pytest.raises(ConfigError, match="5 ranks do not fit into 4 slots"):
        place((Host("a", 4),), 5)
