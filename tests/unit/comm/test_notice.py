"""Who has named an algorithm is told, once, where it does not run or costs the memory of the nodes."""

from __future__ import annotations

import pytest

from distrain.comm import native
from distrain.comm.choice.notice import notice, warn
from distrain.comm.settings import CommSettings
from distrain.world import World

ONE_NODE = ["a", "a"]
TWO_NODES = ["a", "a", "b", "b"]


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "build_info", lambda: (True, "built"))


def said(hosts: list[str], pointers: bool = False, **settings: object) -> str | None:
    return notice(CommSettings.model_validate(settings), World.of(0, hosts), pointers)


def test_on_one_node_no_algorithm_is_used() -> None:
    for name in ("multicolor_ring", "hierarchical"):
        text = said(ONE_NODE, algorithm=name) or ""
        assert text.startswith(f"comm.algorithm={name} is not used") and "node_memory=false" in text


def test_an_algorithm_that_knows_no_nodes_costs_their_memory() -> None:
    text = said(TWO_NODES, algorithm="multicolor_tree") or ""
    assert text.startswith("comm.algorithm=multicolor_tree knows no nodes") and "hierarchical_tree" in text
    assert said(TWO_NODES, algorithm="hierarchical_halving") is None


@pytest.mark.parametrize("hosts", [ONE_NODE, TWO_NODES])
def test_nothing_is_said_where_gradients_go_by_messages_anyway(hosts: list[str]) -> None:
    assert said(hosts) is None
    assert said(hosts, algorithm="ring", node_memory=False) is None
    assert said(hosts, algorithm="ring", wire_dtype="bf16") is None
    assert said(hosts, pointers=True, algorithm="ring") is None


@pytest.mark.parametrize("hosts", [["a"], ["a", "b"], ["a", "a", "b"]])
def test_nothing_is_said_of_shapes_that_have_no_such_memory(hosts: list[str]) -> None:
    assert said(hosts, algorithm="ring") is None


def test_nothing_is_said_between_nodes_that_combine_by_nccl_inside() -> None:
    assert said(TWO_NODES, algorithm="ring", inside_node="nccl") is None


def test_rank_0_alone_says_it(caplog: pytest.LogCaptureFixture) -> None:
    for rank in range(4):
        warn(CommSettings(algorithm="ring"), World.of(rank, TWO_NODES), False)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
