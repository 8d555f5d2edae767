"""Who synchronises gradients: distrain, or a peer for comparison. All of them work through DDP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from distrain.comm import runtime
from distrain.comm.messages.narrow import WIRE_DTYPES
from distrain.comm.process_group import DistrainProcessGroup
from distrain.comm.settings import CommSettings
from distrain.comm.sync.node_first import NodeFirst
from distrain.errors import ConfigError

Hook = Callable[[Any, dist.GradBucket], torch.futures.Future]


@dataclass(frozen=True)
class Synchroniser:
    """How DDP's buckets are averaged.

    Attributes:
        group: for DDP's `process_group`; None for the default one.
        hook: DDP's communication hook; None for DDP's own allreduce.
        close: ends it; all ranks call it.
        is_timed: whether the time that compute waits for it is seen. NCCL's collectives are work for the
            GPU like the model's own, and end unseen by the CPU.
    """

    group: dist.ProcessGroup | None = None
    hook: Hook | None = None
    close: Callable[[], None] = lambda: None
    is_timed: bool = True

    def attach(self, model: DistributedDataParallel) -> None:
        """Let a model that was wrapped with `group` use the hook."""
        hook = self.hook
        if hook is not None:
            # torch inspects a hook's annotations and does not understand those that are text.
            model.register_comm_hook(None, lambda state, bucket: hook(state, bucket))


def make_synchroniser(settings: CommSettings) -> Synchroniser:
    """Return the one that `comm.sync` and `comm.wire_dtype` ask for. Collective.

    Raises:
        ConfigError: it is not installed, or cannot work here; on all ranks alike.
    """
    if settings.sync == "gloo":
        group = dist.new_group(backend="gloo")
        gloo = _averaging(lambda group, data: dist.all_reduce(data, group=group, async_op=True), group)
        return Synchroniser(group=group, hook=_timed(gloo))
    if settings.sync == "nccl":
        _require_nccl("comm.sync", "distrain")
        return Synchroniser(group=dist.new_group(backend="nccl"), is_timed=False)
    if settings.sync == "mpi":
        return Synchroniser(hook=_averaging(lambda group, data: group.mpi_allreduce(data)))
    if settings.sync == "horovod":
        from distrain.comm.sync.horovod import Horovod

        horovod = Horovod()
        return Synchroniser(hook=_timed(horovod.average), close=horovod.close)
    dtype = WIRE_DTYPES.get(settings.wire_dtype)
    if settings.inside_node == "nccl":
        _require_nccl("comm.inside_node", "memory")
        first = NodeFirst(runtime.current().world, "nccl", dtype)
        return Synchroniser(hook=_timed(first.average), close=first.close)
    if dtype is not None:
        return Synchroniser(hook=_averaging(lambda group, data: group.narrow_allreduce(data, dtype)))
    return Synchroniser()


def _require_nccl(setting: str, instead: str) -> None:
    if not (torch.cuda.is_available() and dist.is_nccl_available()):
        raise ConfigError(setting, "nccl needs GPUs, and torch sees none", f"use {setting}={instead}")


def _timed(hook: Hook) -> Hook:
    """Count what follows the last bucket of a step as exposed, as distrain's own collectives do."""

    def timed(state: Any, bucket: dist.GradBucket) -> torch.futures.Future:
        exposed = runtime.current().engine.exposed

        def done(future: torch.futures.Future) -> torch.Tensor:
            exposed.completed()
            return future.value()

        exposed.submitted()
        return hook(state, bucket).then(done)

    return timed


def _averaging(
    allreduce: Callable[[Any, torch.Tensor], dist.Work], group: dist.ProcessGroup | None = None
) -> Hook:
    """Return a hook that averages with a function that sums over a group; None: all ranks, by distrain."""

    def hook(state: Any, bucket: dist.GradBucket) -> torch.futures.Future:
        ranks = group
        if ranks is None:
            ranks = dist.group.WORLD
            assert isinstance(ranks, DistrainProcessGroup), "communication was not started"
        # Divided first, as DDP itself does: a sum of many gradients can exceed the range of fp16.
        data = bucket.buffer().div_(ranks.size())
        return allreduce(ranks, data).get_future().then(lambda future: future.value()[0])

    return hook
