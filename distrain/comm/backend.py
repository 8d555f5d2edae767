"""The name of the backend, and how torch learns it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

BACKEND = "distrain"


def register(create_group: Callable[..., Any], rendezvous: Callable[..., Any]) -> None:
    """Let `torch.distributed` know backend "distrain" and `init_method="distrain://"`; twice is once.

    Args:
        create_group: makes a process group of torch's options, and of options of the backend that are None.
        rendezvous: yields store, rank and size of a world for an address.
    """
    if BACKEND.upper() in dist.Backend._plugins:
        return
    dist.Backend.register_backend(BACKEND, create_group, extended_api=True, devices=["cpu", "cuda"])
    dist.register_rendezvous_handler(BACKEND, rendezvous)
