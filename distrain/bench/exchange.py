"""Images between nodes: one rank's program, started by `distrain bench exchange`.

First the exchange alone: a whole reshuffle, every image to the rank that reads it in the next epoch, beside
all-to-all of the peers with the same bytes. Then the exchange behind training: steps that sum gradients over
all ranks while a GPU would compute (a sleep stands for it), with and without images that travel meanwhile.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mpi4py import MPI

import distrain
from distrain.bench import results
from distrain.bench.errors import Unavailable
from distrain.bench.reshuffle import PEERS, Contender, Exchange
from distrain.bench.stats import percentile
from distrain.comm.settings import CommSettings
from distrain.world import World

Line = dict[str, Any]
MAKE_ROOM = 1.2  # buffers of the peers against the bytes of one epoch; epochs differ by some percent


@dataclass(frozen=True)
class Training:
    """What stands for training.

    Attributes:
        gradient_bytes: summed over all ranks in each step.
        bucket_bytes: summed at a time.
        compute: seconds of a step's compute, as a multiple of the time that its gradients take alone.
        steps: of an epoch.
        rounds: epochs with images, and as many without, in turns.
    """

    gradient_bytes: int
    bucket_bytes: int
    compute: float
    steps: int
    rounds: int


class Steps:
    """Steps of training: buckets of gradients become ready while compute goes on.

    Args:
        training: sizes.
        seconds: of compute in a step.
        rank: this rank; gradients of ranks differ.
    """

    def __init__(self, training: Training, seconds: float, rank: int) -> None:
        sizes = range(0, training.gradient_bytes, training.bucket_bytes)
        self._buckets = [torch.zeros(training.bucket_bytes // 4) for _ in sizes]
        self._seconds, self._rank = seconds, rank

    def run(self) -> None:
        """Compute, sum a bucket as soon as it is ready, wait for all.

        Raises:
            ValueError: a sum is wrong.
        """
        works = []
        begin = time.perf_counter()
        for number, bucket in enumerate(self._buckets):
            ready = begin + self._seconds * (number + 1) / len(self._buckets)
            time.sleep(max(0.0, ready - time.perf_counter()))
            bucket.fill_(self._rank + 1.0)
            works.append(dist.all_reduce(bucket, async_op=True))
        for work in works:
            work.wait()
        ranks = dist.get_world_size()
        expected = ranks * (ranks + 1) / 2
        if any(bucket[0] != expected or bucket[-1] != expected for bucket in self._buckets):
            raise ValueError(f"a sum of gradients is not {expected}")


def alone(
    ours: Exchange, contenders: Sequence[Contender], iterations: int, world: World, comm: MPI.Intracomm
) -> list[Line]:
    """Check all contenders, time those that are right, return their lines (collective)."""
    right = []
    lines: list[Line] = []
    for contender in contenders:
        if comm.allreduce(contender.is_correct(_traffic(ours, comm)), op=MPI.LAND):
            right.append(contender)
        else:
            lines.append(error_line(contender.name, comm.size, "wrong bytes", False))
    seconds = np.zeros((len(right), iterations))
    left = np.zeros(iterations)
    for iteration in range(iterations):
        traffic = _traffic(ours, comm)
        left[iteration] = leaving(traffic, world).max()
        for place in range(len(right)):
            row = (place + iteration) % len(right)
            comm.Barrier()
            begin = time.perf_counter()
            right[row].reshuffle(traffic)
            seconds[row, iteration] = time.perf_counter() - begin
    comm.Allreduce(MPI.IN_PLACE, seconds, op=MPI.MAX)
    for contender, times in zip(right, seconds.tolist(), strict=True):
        lines.append(
            {
                "bench": "exchange",
                "name": contender.name,
                "algorithm": contender.algorithm,
                "ranks": comm.size,
                "nodes": world.nodes,
                "bytes_per_node": ours.bytes_per_node,
                "leaving_bytes": round(statistics.median(left)),
                "median_s": statistics.median(times),
                "p90_s": percentile(times, 90),
                "iterations": iterations,
                "correct": True,
            }
        )
    return lines


def hidden(
    ours: Exchange, training: Training, alone_seconds: float, world: World, comm: MPI.Intracomm
) -> Line:
    """Return the line about the exchange behind training (collective).

    Args:
        ours: the exchange.
        training: sizes.
        alone_seconds: that a reshuffle takes without training.
        world: ranks and nodes.
        comm: all ranks.
    """
    gradients = _slowest(comm, Steps(training, 0.0, world.rank).run, 5)
    compute = training.compute * statistics.median(gradients)
    steps = Steps(training, compute, world.rank)
    data_steps = math.ceil(ours.steps / training.steps)
    times: dict[bool, list[list[float]]] = {False: [], True: []}

    reader = ThreadPoolExecutor(1)  # the decoder threads of the loader also read while a step computes

    def step_with_images() -> None:
        images = reader.submit(ours.take, data_steps)
        steps.run()
        images.result()

    for number in range(2 * training.rounds):
        with_images = number % 4 in (1, 2)  # without, with, with, without, ...
        step = step_with_images if with_images else steps.run
        times[with_images].append(_slowest(comm, step, training.steps))
        ours.settle()
    reader.shutdown()
    images = training.steps * data_steps / ours.steps  # epochs of images that have travelled
    return hidden_line(times[False], times[True], alone_seconds * images) | {
        "ranks": comm.size,
        "nodes": world.nodes,
        "gradient_bytes": training.gradient_bytes,
        "bucket_bytes": training.bucket_bytes,
        "gradients_s": statistics.median(gradients),
        "compute_s": compute,
    }


def hidden_line(without: list[list[float]], meanwhile: list[list[float]], alone_seconds: float) -> Line:
    """Return what the exchange costs training.

    Args:
        without: seconds of each step of some epochs.
        meanwhile: the same while images travel.
        alone_seconds: what the exchange of such an epoch takes without training.
    """
    epoch, epoch_with = (statistics.median(map(sum, epochs)) for epochs in (without, meanwhile))
    step, step_with = ([s for steps in epochs for s in steps] for epochs in (without, meanwhile))
    return {
        "bench": "exchange",
        "name": "distrain behind training",
        "steps": len(without[0]),
        "exchange_alone_s": alone_seconds,
        "step_s": statistics.median(step),
        "step_with_images_s": statistics.median(step_with),
        "slowdown_median": statistics.median(step_with) / statistics.median(step) - 1,
        "slowdown_mean": statistics.mean(step_with) / statistics.mean(step) - 1,
        "epoch_s": epoch,
        "epoch_with_images_s": epoch_with,
        "hidden": 1 - (epoch_with - epoch) / alone_seconds,
        "correct": True,
    }


def leaving(traffic: np.ndarray, world: World) -> np.ndarray:
    """Return the bytes that leave each node: int64 [nodes].

    Args:
        traffic: int64 [ranks, ranks], bytes from each rank to each.
        world: where ranks are.
    """
    names = world.node_names
    found = np.zeros(len(names), np.int64)
    for sender, row in enumerate(traffic):
        for receiver, size in enumerate(row.tolist()):
            if world.hosts[sender] != world.hosts[receiver]:
                found[names.index(world.hosts[sender])] += size
    return found


def error_line(name: str, ranks: int, error: str, correct: bool | None = None) -> Line:
    """Return the line of a contender that is not here, or was wrong."""
    line: Line = {"bench": "exchange", "name": name, "ranks": ranks, "error": error}
    return line if correct is None else line | {"correct": correct}


def _traffic(ours: Exchange, comm: MPI.Intracomm) -> np.ndarray:
    """Return the bytes from each rank to each for the next epoch (collective)."""
    found = np.zeros((comm.size, comm.size), np.int64)
    comm.Allgather(ours.sent(), found)
    return found


def _slowest(comm: MPI.Intracomm, step: Callable[[], None], count: int) -> list[float]:
    """Return the seconds of each step on its slowest rank (collective). Steps follow each other."""
    seconds = np.zeros(count)
    comm.Barrier()
    for number in range(count):
        begin = time.perf_counter()
        step()
        seconds[number] = time.perf_counter() - begin
    comm.Allreduce(MPI.IN_PLACE, seconds, op=MPI.MAX)
    return [float(s) for s in seconds]


def run(
    world: World, bytes_per_node: int, names: Sequence[str], iterations: int, training: Training | None
) -> list[Line]:
    """Run the benchmark on this rank; rank 0's lines are the result (collective)."""
    comm = MPI.COMM_WORLD.Dup()
    ours = Exchange(bytes_per_node, world, comm)
    traffic = _traffic(ours, comm)
    most = int(MAKE_ROOM * max(traffic.sum(axis=0).max(), traffic.sum(axis=1).max()))
    contenders: list[Contender] = [ours]
    absent: list[Line] = []
    for name in names:
        try:
            contenders.append(PEERS[name](comm, most))
        except Unavailable as reason:
            absent.append(error_line(name, comm.size, str(reason)))
    lines = alone(ours, contenders, iterations, world, comm) + absent
    for peer in contenders[1:]:
        peer.close()
    if training is not None and lines[0].get("correct"):
        lines.append(hidden(ours, training, lines[0]["median_s"], world, comm))
    ours.close()
    comm.Free()
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Parse what `distrain bench exchange` passes on, run, and let rank 0 write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--names", required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--gradients", type=int, required=True, help="bytes; 0: no training")
    parser.add_argument("--bucket", type=int, required=True)
    parser.add_argument("--compute", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--settings", required=True, help="CommSettings as JSON")
    parser.add_argument("--out", required=True, help="file that rank 0 writes, one JSON object a line")
    given = parser.parse_args(argv)
    world = distrain.init_process_group(CommSettings.model_validate_json(given.settings))
    training = Training(given.gradients, given.bucket, given.compute, given.steps, given.rounds)
    names = [name for name in given.names.split(",") if name]
    lines = run(world, given.bytes, names, given.iterations, training if training.gradient_bytes else None)
    distrain.destroy_process_group()
    if world.rank == 0:
        results.write(given.out, lines)


if __name__ == "__main__":
    main()
