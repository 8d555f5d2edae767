"""Two functions of torch.distributed that ask for gloo or NCCL by name, opened for groups of this backend."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d


def open_doors(kind: type[dist.ProcessGroup]) -> None:
    """Let `monitored_barrier` and `_set_pg_timeout` reach groups of this kind; others go torch's way.

    A module that has imported one of these names from torch before distrain was imported keeps torch's.
    """
    plain_barrier: Callable[..., None] = c10d.monitored_barrier
    plain_timeout: Callable[..., None] = c10d._set_pg_timeout

    def ours(group: Any) -> Any:
        """Return the group if it is of this kind and this rank belongs to it."""
        found = c10d.GroupMember.WORLD if group is None else group
        return found if isinstance(found, kind) else None

    @functools.wraps(plain_barrier)
    def monitored_barrier(
        group: Any = None, timeout: timedelta | float | None = None, wait_all_ranks: bool = False
    ) -> None:
        found = ours(group)
        if found is None:
            plain_barrier(group, timeout, wait_all_ranks)
            return
        limit = timedelta(seconds=timeout) if isinstance(timeout, int | float) else timeout
        found.monitored_barrier(limit, wait_all_ranks)

    @functools.wraps(plain_timeout)
    def set_pg_timeout(timeout: timedelta, group: Any = None) -> None:
        found = ours(group)
        if found is None:
            plain_timeout(timeout, group)
        else:
            found.set_timeout(timeout)

    c10d.monitored_barrier = dist.monitored_barrier = monitored_barrier
    c10d._set_pg_timeout = set_pg_timeout
