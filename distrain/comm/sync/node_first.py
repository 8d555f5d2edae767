"""Gradients of nodes with several GPUs: NCCL inside the node, distrain between the nodes.

Three stages, as in `schedule/hierarchical.py`. The ranks of a node reduce-scatter a bucket among their GPUs.
Ranks with the same local number allreduce their part between the nodes. The node all-gathers. With M ranks a
node, one M-th of the bucket crosses PCIe in each rank, where without this all of it does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist

from distrain.comm.process_group import DistrainProcessGroup
from distrain.errors import ConfigError
from distrain.world import World


class NodeFirst:
    """Averages DDP's buckets in three stages, several buckets in flight. Collective.

    NCCL wants the collectives of a communicator in one order on all ranks, and a bucket is gathered whenever
    the nodes are done with it. So each stage has a communicator and a thread of its own, which takes buckets
    in DDP's order.

    Args:
        world: who runs where.
        backend: torch's name of what carries inside the node.
        wire_dtype: 16-bit type for float32 between the nodes; None: as it is.

    Raises:
        ConfigError: nodes have different numbers of ranks, or only one each.
    """

    def __init__(self, world: World, backend: str, wire_dtype: torch.dtype | None = None) -> None:
        nodes = [world.ranks_on(node) for node in range(world.nodes)]
        counts = [len(ranks) for ranks in nodes]
        if len(set(counts)) > 1 or counts[0] == 1:
            raise ConfigError(
                "comm.inside_node",
                f"nodes have {', '.join(map(str, counts))} ranks; more than one and equally many are needed",
                "start as many ranks on every node, or use comm.inside_node=memory",
            )
        self._world, self._wire_dtype = world, wire_dtype
        self._scatter = _mine(nodes, world.rank, backend)
        self._gather = _mine(nodes, world.rank, backend)
        self._across = _mine(zip(*nodes, strict=True), world.rank, "distrain")
        self._between = _Stage("distrain-between")
        self._last = _Stage("distrain-gather")
        self._memory: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def average(self, state: Any, bucket: dist.GradBucket) -> torch.futures.Future:
        """DDP's communication hook."""
        data = bucket.buffer().div_(self._world.size)
        whole, part = self._memory_of(bucket.index(), data)
        if whole is not data:
            whole[: data.numel()].copy_(data)
        devices: list[Any] = [data.device] if data.is_cuda else []
        future: torch.futures.Future = torch.futures.Future(devices=devices)
        scattered = dist.reduce_scatter_tensor(part, whole, group=self._scatter, async_op=True)

        def cross() -> None:
            scattered.wait()
            crossed = self._allreduce(part)
            self._last.do(lambda: gather(crossed), data.device, future)

        def gather(crossed: dist.Work) -> None:
            crossed.wait()
            dist.all_gather_into_tensor(whole, part, group=self._gather)
            if whole is not data:
                data.copy_(whole[: data.numel()])
            future.set_result(data)

        self._between.do(cross, data.device, future)
        return future

    def _allreduce(self, part: torch.Tensor) -> dist.Work:
        if self._wire_dtype is None or part.dtype != torch.float32:
            return dist.all_reduce(part, group=self._across, async_op=True)
        assert isinstance(self._across, DistrainProcessGroup)
        return self._across.narrow_allreduce(part, self._wire_dtype)

    def _memory_of(self, bucket: int, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the bucket in as many equal parts as the node has ranks, and memory for this rank's."""
        local = self._world.local_size
        length = -(-data.numel() // local)
        whole, part = self._memory.get(bucket, (data, data))
        if part.numel() != length or part.dtype != data.dtype or part.device != data.device:
            padded = data.numel() != length * local
            # Zeros behind the gradients stay zeros.
            whole = data.new_zeros(length * local if padded else 0)
            part = data.new_empty(length)
            self._memory[bucket] = whole, part
        return (whole if whole.numel() else data), part

    def close(self) -> None:
        """End the threads; the groups end with all others."""
        self._between.close()
        self._last.close()


class _Stage:
    """A thread that does one thing after the other, on a GPU stream of its own."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def do(self, what: Callable[[], None], device: torch.device, future: torch.futures.Future) -> None:
        """Do it in its turn; an error goes to whoever waits for the future."""

        def safely() -> None:
            try:
                with self._stream_of(device):
                    what()
            except Exception as error:
                future.set_exception(error)

        self._thread.submit(safely)

    def _stream_of(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        if device.type != "cuda":
            return contextlib.nullcontext()
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return torch.cuda.stream(self._streams[device])

    def close(self) -> None:
        self._thread.shutdown()


def _mine(groups: Iterable[Sequence[int]], rank: int, backend: str) -> dist.ProcessGroup:
    """Make all groups, as torch wants of all ranks, and return this rank's."""
    made = [(ranks, dist.new_group(list(ranks), backend=backend)) for ranks in groups]
    return next(group for ranks, group in made if rank in ranks)
