"""Makes the helpers of this folder importable in every import mode of pytest; the groups under test."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch.distributed as dist
from fake_side import FakeSide

from distrain.comm import runtime, side
from distrain.world import World


@pytest.fixture(scope="session")
def by_messages(world: World) -> dist.ProcessGroup:
    state = runtime.current()
    usual = state.settings
    state.settings = usual.model_copy(update={"node_memory": False})
    try:
        return dist.new_group()
    finally:
        state.settings = usual


@pytest.fixture(scope="session")
def fake_side() -> FakeSide:
    return FakeSide()


@pytest.fixture(params=["memory", "messages", "device"])
def group(
    world: World,
    by_messages: dist.ProcessGroup,
    fake_side: FakeSide,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> dist.ProcessGroup:
    """All ranks: in the memory of the node; by messages alone; and these with tensors as if on a GPU."""
    if request.param == "memory":
        return dist.group.WORLD
    if request.param == "device":
        monkeypatch.setattr(side, "side_of", lambda tensor: fake_side)
    return by_messages
