"""A step of DDP beside its peers: one rank's program, started by `distrain bench ddp`.

What is wanted of a synchroniser is that a step costs no more than the longer of compute and
communication. So three things are timed for each: compute alone (under DDP, which copies gradients into
buckets, but they do not travel), communication alone (the same gradients, computed in no time), and the
step. All synchronisers take turns in one job.

Ranks that share the cores of one machine cannot show overlap with real compute: what one rank computes
another cannot. `sleep:SECONDS` stands for a GPU: a model of layers of equal size, whose backward takes
that long and leaves the cores free; `sleep:SECONDS:resnet50` has the layers of that model, and each takes
its part of the arithmetic.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

import distrain
from distrain.bench import results
from distrain.comm.settings import CommSettings
from distrain.comm.sync.synchroniser import Hook, Synchroniser, make_synchroniser
from distrain.errors import ConfigError
from distrain.train.models import create as create_model
from distrain.train.run import KEEP_BUFFERS
from distrain.train.settings import ModelSettings

Line = dict[str, Any]
LAYERS = 50


@functools.cache
def _gradient(shape: torch.Size, value: float) -> torch.Tensor:
    """Return what a GPU would have computed; made once, since that costs the host no time."""
    return torch.full(shape, value)


class _Busy(torch.autograd.Function):
    """The gradient of a layer takes its time; it is the layer's input, so that ranks differ."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, weight: torch.Tensor, seconds: float) -> torch.Tensor:
        ctx.shape, ctx.seconds, ctx.value = weight.shape, seconds, float(value)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        if ctx.seconds:
            time.sleep(ctx.seconds)
        return gradients[0], _gradient(ctx.shape, ctx.value), None


class Sleeper(nn.Module):
    """Parameters of given sizes whose backward takes a given time and no core.

    Args:
        sizes: elements of each parameter, in the order of forward.
        seconds: of the whole backward.
        work: how it is spread over the parameters; None: by their sizes.
    """

    def __init__(self, sizes: Sequence[int], seconds: float, work: Sequence[int] | None = None) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes)
        work = work or sizes
        self._seconds = [seconds * part / sum(work) for part in work]

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the input, float32 [], which the backward of every parameter remembers."""
        for weight, seconds in zip(self.weights, self._seconds, strict=True):
            value = _Busy.apply(value, weight, seconds)
        return value


@dataclass
class Workload:
    """A model with its input and loss.

    Attributes:
        model: the bare module.
        step: forward and backward of a module like it.
    """

    model: nn.Module
    step: Callable[[nn.Module], None]

    @property
    def sizes(self) -> list[int]:
        """Elements of each parameter, in the order of the module."""
        return [parameter.numel() for parameter in self.model.parameters()]


def sleeping(name: str, payload_bytes: int, seconds: float, rank: int) -> Workload:
    """Return a model that sleeps, with the layers of a real one or, without a name, `LAYERS` equal layers."""
    value = torch.tensor(float(rank + 1), requires_grad=True)
    sizes, work = [payload_bytes // 4 // LAYERS] * LAYERS, None
    if name:
        sizes, work = _layers(name)
    return Workload(Sleeper(sizes, seconds, work), lambda model: model(value).backward())


def _layers(name: str) -> tuple[list[int], list[int]]:
    """Return elements and arithmetic of each parameter of a real model, on images of 224 x 224.

    Of a layer's arithmetic its largest parameter has all: the weights of a convolution, not its bias.
    """
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter:
        model = _model(name, 1000)
        model(torch.empty(1, 3, 224, 224))
    counts = counter.get_flop_counts()
    sizes, work = [], []
    for path, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        sizes += [parameter.numel() for parameter in own]
        flops = sum(counts.get(f"{type(model).__name__}.{path}", {}).values()) if own else 0
        work += [flops if parameter is max(own, key=torch.Tensor.numel) else 0 for parameter in own]
    return sizes, work


def _model(name: str, classes: int) -> nn.Module:
    return create_model(ModelSettings(name=name), classes, 0)


def real(name: str, images: int, rank: int) -> Workload:
    """Return a real model on random images of 64 x 64, others on every rank."""
    made = torch.Generator().manual_seed(rank)
    pixels = torch.randn(images, 3, 64, 64, generator=made)
    labels = torch.randint(10, (images,), generator=made)
    model = _model(name, 10)

    def step(module: nn.Module) -> None:
        nn.functional.cross_entropy(module(pixels), labels).backward()

    return Workload(model, step)


class Runner:
    """One synchroniser with its own copies of the model.

    Args:
        name: of the synchroniser.
        work: what is trained.
        buckets: arguments of DDP that say how large its buckets are.
        comm: all ranks.
    """

    def __init__(self, name: str, work: Workload, buckets: Mapping[str, Any], comm: MPI.Intracomm) -> None:
        self.name, self._work, self._comm, self._buckets = name, work, comm, buckets
        self._sync: Synchroniser = make_synchroniser(CommSettings.model_validate({"sync": name}))
        self.bare = copy.deepcopy(work.model)
        self.wrapped = self._wrap(copy.deepcopy(work.model))
        value = torch.tensor(float(comm.rank + 1), requires_grad=True)
        self._value = value
        self.alone = self._wrap(copy.deepcopy(work.model), _travels_not)
        # The same gradients in the same buckets, computed in no time.
        self.idle = self._wrap(Sleeper(work.sizes, 0.0))
        for model in (self.wrapped, self.alone, self.idle):  # the first step is special
            self._run(model)
            self._run(model)

    def _wrap(self, module: nn.Module, hook: Hook | None = None) -> DistributedDataParallel:
        model = DistributedDataParallel(
            module,
            process_group=self._sync.group,
            **KEEP_BUFFERS,
            gradient_as_bucket_view=True,
            **self._buckets,
        )
        if hook is None:
            self._sync.attach(model)
        else:
            model.register_comm_hook(None, hook)
        return model

    def _run(self, model: nn.Module) -> None:
        model.zero_grad(set_to_none=True)
        if model is self.idle:
            self.idle(self._value).backward()
        else:
            self._work.step(model)

    def is_correct(self) -> bool:
        """Return whether the gradients are the mean of those of all ranks, on every rank."""
        self._run(self.bare)
        self._run(self.wrapped)
        right = True
        pairs = zip(self.bare.parameters(), self.wrapped.parameters(), strict=True)
        for mine, averaged in pairs:
            assert mine.grad is not None and averaged.grad is not None
            mean = mine.grad.flatten().numpy().copy()
            self._comm.Allreduce(MPI.IN_PLACE, mean)
            mean /= self._comm.size
            right &= np.allclose(averaged.grad.flatten().numpy(), mean, rtol=1e-3, atol=1e-5)
        return bool(self._comm.allreduce(right, op=MPI.LAND))

    def times(self) -> tuple[float, float, float]:
        """Return seconds of compute alone, communication alone and the step, of this rank."""
        return self._timed(self.alone), self._timed(self.idle), self._timed(self.wrapped)

    def _timed(self, model: nn.Module) -> float:
        self._comm.Barrier()
        begin = time.perf_counter()
        self._run(model)
        return time.perf_counter() - begin

    def close(self) -> None:
        """End the synchroniser. Called on all ranks."""
        self._sync.close()


# Without annotations: torch compares them with its own types, and these are text.
def _travels_not(state, bucket):  # type: ignore[no-untyped-def]
    """Hand a bucket back as it is: a hook of DDP."""
    future: torch.futures.Future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def measure(runners: Sequence[Runner], iterations: int, comm: MPI.Intracomm) -> list[list[float]]:
    """Return for each runner the medians of compute, communication and step, of the slowest rank."""
    times = np.zeros((len(runners), 3, iterations))
    for iteration in range(-1, iterations):
        for row, runner in enumerate(runners):
            found = runner.times()
            if iteration >= 0:
                times[row, :, iteration] = found
    comm.Allreduce(MPI.IN_PLACE, times, op=MPI.MAX)
    return [[statistics.median(kind) for kind in row] for row in times]


def run(work: Workload, names: Sequence[str], buckets: Mapping[str, Any], iterations: int) -> list[Line]:
    """Run the benchmark on this rank; rank 0's lines are the result (collective)."""
    comm = MPI.COMM_WORLD.Dup()
    lines: list[Line] = []
    # Horovod after the others: its thread, once started, calls MPI every cycle.
    for group in (
        [name for name in names if name != "horovod"],
        [name for name in names if name == "horovod"],
    ):
        runners: list[Runner] = []
        for name in group:
            head = {"bench": "ddp", "name": name, "ranks": comm.size, "bytes": 4 * sum(work.sizes)}
            try:
                runner = Runner(name, work, buckets, comm)
            except ConfigError as error:
                lines.append({**head, "error": str(error)})
                continue
            if runner.is_correct():
                runners.append(runner)
            else:
                lines.append({**head, "error": "wrong gradients", "correct": False})
        for runner, (compute, communication, step) in zip(
            runners, measure(runners, iterations, comm) if runners else [], strict=True
        ):
            lines.append(
                {
                    "bench": "ddp",
                    "name": runner.name,
                    "ranks": comm.size,
                    "bytes": 4 * sum(work.sizes),
                    "buckets": buckets,
                    "compute_s": compute,
                    "communication_s": communication,
                    "step_s": step,
                    "over_longer": step / max(compute, communication),
                    "correct": True,
                }
            )
        for runner in runners:
            runner.close()
    comm.Free()
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Parse what `distrain bench ddp` passes on, run, and let rank 0 write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--sleep", type=float, required=True, help="seconds; below 0: the real model")
    parser.add_argument("--model", required=True, help="empty: equal layers")
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--bucket", type=int, required=True, help="0: chosen")
    parser.add_argument("--names", required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--settings", required=True, help="CommSettings as JSON")
    parser.add_argument("--out", required=True, help="file that rank 0 writes, one JSON object a line")
    given = parser.parse_args(argv)
    world = distrain.init_process_group(CommSettings.model_validate_json(given.settings))
    if given.sleep < 0:
        work = real(given.model, given.images, world.rank)
    else:
        work = sleeping(given.model, given.bytes, given.sleep, world.rank)
    with contextlib.ExitStack() as end:
        end.callback(distrain.destroy_process_group)
        chosen = {"bucket_cap_mb": given.bucket / 2**20}
        buckets = chosen if given.bucket else distrain.ddp_buckets(work.model)
        lines = run(work, given.names.split(","), buckets, given.iterations)
    if world.rank == 0:
        results.write(given.out, lines)


if __name__ == "__main__":
    main()
