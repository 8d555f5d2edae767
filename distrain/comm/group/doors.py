"""Functions of torch that know its own backends only, opened for groups of this one.

`monitored_barrier` and `_set_pg_timeout` ask for gloo or NCCL by name. `collect_all` goes past the Python
half of a Future, which has to know that somebody is called back (see `future.py`). Who waits for a Future in
a callback lets others run meanwhile (`turns.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from distrain.comm import callbacks, turns
from distrain.comm.callbacks import Cause
from distrain.comm.future import CollectiveFuture


def open_doors(kind: type[dist.ProcessGroup]) -> None:
    """Let `monitored_barrier`, `_set_pg_timeout` and what collects Futures or waits for them know this kind.

    Others go torch's way. A module that has imported one of these names from torch before distrain was
    imported keeps torch's.
    """
    plain_barrier: Callable[..., None] = c10d.monitored_barrier
    plain_timeout: Callable[..., None] = c10d._set_pg_timeout
    plain_collect: Callable[..., Any] = torch.futures.collect_all
    plain_wait: Callable[..., Any] = torch.futures.Future.wait
    plain_wait_all: Callable[..., Any] = torch.futures.wait_all

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

    @functools.wraps(plain_collect)
    def collect_all(futures: list[Any]) -> Any:
        ours = [future for future in futures if isinstance(future, CollectiveFuture)]
        if not ours:
            return plain_collect(futures)
        # What is chained behind the collected Future may communicate: not in the engine's thread.
        causes = [future.next_cause() for future in ours]
        known = [cause for cause in causes if cause is not None]
        gpus = dict.fromkeys(gpu for future in ours for gpu in future.gpus)
        chained = CollectiveFuture([*gpus], Cause.of_all(known) if len(known) == len(futures) else None)
        plain_collect(futures).add_done_callback(callbacks.of(None, lambda done: chained.finish(done.value)))
        return chained

    @functools.wraps(plain_wait)
    def wait(future: Any) -> Any:
        with turns.given_up():
            return plain_wait(future)

    @functools.wraps(plain_wait_all)
    def wait_all(futures: list[Any]) -> Any:
        with turns.given_up():
            return plain_wait_all(futures)

    futures: Any = torch.futures
    futures.collect_all, futures.wait_all, futures.Future.wait = collect_all, wait_all, wait
    c10d.monitored_barrier = dist.monitored_barrier = monitored_barrier
    c10d._set_pg_timeout = set_pg_timeout
