"""Makes the helpers of this folder importable in every import mode of pytest; the groups under test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch.distributed as dist
from fake_side import FakeSide

from distrain.comm import runtime
from distrain.comm.device import side
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
def by_pointers(world: World) -> dist.ProcessGroup:
    """By messages, and as if MPI took pointers of GPUs: those of the fake device are of the host."""
    state = runtime.current()
    usual = state.settings, state.pointers
    state.settings, state.pointers = usual[0].model_copy(update={"node_memory": False}), True
    try:
        group: Any = dist.new_group()
    finally:
        state.settings, state.pointers = usual
    group._wire.routes = None  # by which its tensors, in truth the CPU's, would go past the fake device
    return group


@pytest.fixture(scope="session")
def fake_side() -> FakeSide:
    return FakeSide()


@pytest.fixture(params=["memory", "messages", "device", "pointers"])
def group(
    world: World,
    by_messages: dist.ProcessGroup,
    by_pointers: dist.ProcessGroup,
    fake_side: FakeSide,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> dist.ProcessGroup:
    """All ranks: in the memory of the node; by messages alone; and these with tensors as if on a GPU,
    copied to the host or given to MPI where they are."""
    if request.param == "memory":
        return dist.group.WORLD
    if request.param in ("device", "pointers"):
        monkeypatch.setattr(side, "side_of", lambda tensor: fake_side)
    return by_pointers if request.param == "pointers" else by_messages
