"""Makes the backend known to torch by name. `import torch` runs this: entry point `torch.backends`.

Every Python program of the environment that imports torch pays for what is imported here, so the rest of
the room, and MPI, come when the first group is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch.distributed as dist

BACKEND = "distrain"


def register() -> None:
    """Let `torch.distributed` know backend "distrain" and `init_method="distrain://"`; twice is once."""
    if BACKEND.upper() in dist.Backend._plugins:
        return
    dist.Backend.register_backend(BACKEND, _create_group, extended_api=True, devices=["cpu", "cuda"])
    dist.register_rendezvous_handler(BACKEND, _rendezvous)


def _create_group(options: Any, backend_options: Any = None) -> Any:
    import distrain.comm.api  # noqa: F401 (ends communication when Python ends)
    from distrain.comm import process_group

    return process_group.create_group(options)


def _rendezvous(url: str, timeout: timedelta, **kwargs: Any) -> Iterator[tuple[dist.Store, int, int]]:
    """Yield the store, rank and size of MPI's world; nothing of the address after `distrain://` is read."""
    from distrain.comm import api

    store, world = api.meet()
    yield store, world.rank, world.size
