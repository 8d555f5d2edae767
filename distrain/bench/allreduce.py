"""Allreduce beside its peers: one rank's program, started by `distrain bench allreduce`.

All contenders run in the same job on the same data. Each first sums arrays whose answer is
known on every rank; a wrong answer is reported and not timed. Then iterations of all contenders
take turns, so that a noisy machine is noisy for everybody; a time is that of the slowest rank.
Horovod comes after the others: its background thread, once started, calls MPI every cycle.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from mpi4py import MPI

import distrain
from distrain.bench import results
from distrain.bench.contenders import PEERS, Contender, Distrain, DistrainArray
from distrain.bench.errors import Unavailable
from distrain.bench.stats import allreduce_line, error_line
from distrain.comm.settings import CommSettings

Line = dict[str, object]

SMALL_BYTES = 128 << 10
CALLS_OF_SMALL = 20


def contribution(rank: int, count: int) -> torch.Tensor:
    """Return what a rank puts in: ``float32 [count]``, whole numbers that no two ranks share."""
    pattern = torch.arange(count, dtype=torch.int64) % 7 + 1
    return (pattern * (rank + 1) ** 2).to(torch.float32)


def expected(ranks: int, count: int) -> torch.Tensor:
    """Return the sum of all contributions, ``float32 [count]``, exact below 2**24."""
    total = sum((rank + 1) ** 2 for rank in range(ranks))
    pattern = torch.arange(count, dtype=torch.int64) % 7 + 1
    return (pattern * total).to(torch.float32)


def is_correct(contender: Contender, count: int, comm: MPI.Intracomm) -> bool:
    """Return whether the contender sums right on every rank (collective)."""
    payload = contribution(comm.rank, count)
    contender.allreduce(payload)
    right = torch.equal(payload, expected(comm.size, count))
    return bool(comm.allreduce(right, op=MPI.LAND))


def measure(
    contenders: Sequence[Contender], count: int, iterations: int, comm: MPI.Intracomm
) -> list[list[float]]:
    """Return, for each contender, the seconds of the slowest rank in each iteration (collective).

    Of small payloads an iteration is a row of calls, and its time that of one: a single one would
    mostly time how ranks leave the barrier before it.
    """
    calls = CALLS_OF_SMALL if 4 * count <= SMALL_BYTES else 1
    source = contribution(comm.rank, count)
    payload = torch.empty_like(source)
    times = np.zeros((len(contenders), iterations))
    for iteration in range(-2, iterations):  # two rounds of warm-up
        for place in range(len(contenders)):
            row = (place + iteration) % len(contenders)  # nobody always comes after the same one
            contender = contenders[row]
            payload.copy_(source)
            comm.Barrier()
            start = time.perf_counter()
            for _ in range(calls):
                contender.allreduce(payload)
            elapsed = (time.perf_counter() - start) / calls
            comm.Barrier()  # what comes next would take the core from ranks that are still inside
            if iteration >= 0:
                times[row, iteration] = elapsed
    comm.Allreduce(MPI.IN_PLACE, times, op=MPI.MAX)
    return [list(row) for row in times]


def make_peer(name: str, ranks: int, payload_bytes: int) -> tuple[Contender | None, Line | None]:
    """Return the peer, or the line that says why it is not here."""
    try:
        return PEERS[name](), None
    except Unavailable as reason:
        return None, error_line(name, "default", ranks, payload_bytes, str(reason))


def round_of(contenders: Sequence[Contender], count: int, iterations: int, comm: MPI.Intracomm) -> list[Line]:
    """Check all contenders, time those whose answer is right, return their lines."""
    lines: list[Line] = []
    right: list[Contender] = []
    for contender in contenders:
        if is_correct(contender, count, comm):
            right.append(contender)
        else:
            lines.append(
                error_line(contender.name, contender.algorithm, comm.size, 4 * count, "wrong sum", False)
            )
    for contender, seconds in zip(right, measure(right, count, iterations, comm), strict=True):
        lines.append(allreduce_line(contender.name, contender.algorithm, comm.size, 4 * count, seconds))
    return lines


def run(settings: CommSettings, peers: Sequence[str], payload_bytes: int, iterations: int) -> list[Line]:
    """Run the benchmark on this rank; rank 0's lines are the result.

    Args:
        settings: the wire under test.
        peers: names out of `contenders.PEERS`.
        payload_bytes: size of the float32 array; rounded down to whole elements.
        iterations: timed iterations of each contender.
    """
    distrain.init_process_group(settings)
    comm = MPI.COMM_WORLD.Dup()
    count = payload_bytes // 4
    ours = Distrain()
    lines: list[Line] = []
    for names in ([p for p in peers if p != "horovod"], [p for p in peers if p == "horovod"]):
        contenders: list[Contender] = [] if lines else [ours, DistrainArray()]
        absent: list[Line] = []
        for name in names:
            peer, line = make_peer(name, comm.size, 4 * count)
            contenders += [peer] if peer else []
            absent += [line] if line else []
        lines += round_of(contenders, count, iterations, comm) + absent
        for contender in contenders:
            contender.close()
    comm.Free()
    distrain.destroy_process_group()
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Parse what `distrain bench allreduce` passes on, run, and let rank 0 write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--settings", required=True, help="CommSettings as JSON")
    parser.add_argument("--against", default="")
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--out", required=True, help="file that rank 0 writes, one JSON object a line")
    given = parser.parse_args(argv)
    settings = CommSettings.model_validate_json(given.settings)
    peers = [name for name in given.against.split(",") if name]
    lines = run(settings, peers, given.bytes, given.iterations)
    if MPI.COMM_WORLD.rank == 0:
        results.write(given.out, lines)


if __name__ == "__main__":
    main()
