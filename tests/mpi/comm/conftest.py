"""Makes the helpers of this folder importable in every import mode of pytest."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch.distributed as dist

from distrain.comm import runtime
from distrain.world import World


@pytest.fixture(scope="session", params=["memory", "messages"])
def group(world: World, request: pytest.FixtureRequest) -> dist.ProcessGroup:
    """All ranks, exchanging in the memory of the node and, for a second pass, by messages alone."""
    if request.param == "memory":
        return dist.group.WORLD
    state = runtime.current()
    usual = state.settings
    state.settings = usual.model_copy(update={"node_memory": False})
    try:
        return dist.new_group()
    finally:
        state.settings = usual
