"""Measures what is the fastest on this machine: one rank's program, started by `distrain tune`.

For each size all candidates sum an array once, checked; then the slower half is dropped, the others run
again, and so on until one is left (successive halving: Jamieson and Talwalkar 2016). All ranks see the
same times, those of the slowest rank, so they drop the same candidates without asking each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch
import torch.distributed as dist

import distrain
from distrain.bench import results
from distrain.bench.allreduce import contribution, expected
from distrain.comm import runtime
from distrain.comm.choice import tuning
from distrain.comm.process import mpi
from distrain.comm.settings import CommSettings
from distrain.errors import CommError
from distrain.schedule.advice import Choice, candidates, estimate
from distrain.schedule.ir import Collective

SIZES = tuple(4**power << 10 for power in range(9))  # 1 KiB ... 64 MiB
# One measurement of a short payload is a row of calls: how ranks leave a barrier is not what is timed.
ROW_SECONDS, LONGEST_ROW = 2e-3, 20


class Stopwatch:
    """Times one candidate after the other on a payload of one size.

    Args:
        count: float32 elements of the payload.
    """

    def __init__(self, count: int) -> None:
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        self._source = contribution(self._rank, count)
        self._payload = torch.empty_like(self._source)
        self._expected = expected(self._ranks, count)
        self._calls = 1

    def check(self, choice: Choice) -> float:
        """Sum once with a candidate, and return the seconds of the slowest rank (collective).

        Raises:
            CommError: on all ranks, if the sum is wrong on any.
        """
        seconds = self._run(choice, 1)
        right = torch.tensor([int(torch.equal(self._payload, self._expected))])
        dist.all_reduce(right, dist.ReduceOp.MIN)
        if not int(right):
            raise CommError("tune", f"{choice.title} gives wrong sums", "report it, with the version of MPI")
        self._calls = max(1, min(LONGEST_ROW, int(ROW_SECONDS / max(seconds, 1e-9))))
        return seconds

    def time(self, choice: Choice) -> float:
        """Return the seconds of one call, of the slowest rank (collective)."""
        return self._run(choice, self._calls)

    def _run(self, choice: Choice, calls: int) -> float:
        chooser = runtime.current().chooser
        self._payload.copy_(self._source)
        chooser.forced = choice
        dist.barrier()
        begin = time.perf_counter()
        for _ in range(calls):
            dist.all_reduce(self._payload)
        elapsed = torch.tensor([(time.perf_counter() - begin) / calls], dtype=torch.float64)
        chooser.forced = None
        dist.all_reduce(elapsed, dist.ReduceOp.MAX)
        return float(elapsed)


def fastest(choices: Sequence[Choice], payload_bytes: int, budget_seconds: float) -> tuning.Pick:
    """Return the fastest of some candidates for one size (collective).

    Args:
        choices: the candidates, the one that is likely the best first.
        payload_bytes: size of the float32 array.
        budget_seconds: after which the candidates that are left are compared by what was measured so far.
    """
    watch = Stopwatch(payload_bytes // 4)
    begin = time.perf_counter()
    times: dict[Choice, list[float]] = {}
    left = list(choices)
    for choice in choices:
        if times and _spent(begin) > budget_seconds / 2:
            break  # too slow a machine for all: the rest is not what the formulas expect to win
        watch.check(choice)  # also warms up: plans, connections
        times[choice] = [watch.time(choice)]
    left = [choice for choice in left if choice in times]
    while len(left) > 1 and _spent(begin) < budget_seconds:
        left.sort(key=lambda choice: statistics.median(times[choice]))
        left = left[: max(2, (len(left) + 1) // 2)]
        for _ in range(3):
            for choice in left:  # taking turns: a noisy moment is noisy for all
                times[choice].append(watch.time(choice))
        if len(left) == 2 and len(times[left[0]]) >= 12:
            break
    order = sorted(left, key=lambda choice: statistics.median(times[choice]))
    second = (order[1], statistics.median(times[order[1]])) if len(order) > 1 else None
    return tuning.Pick(payload_bytes, order[0], statistics.median(times[order[0]]), second)


def _spent(begin: float) -> float:
    """Return the seconds since then, the same on all ranks (collective)."""
    spent = torch.tensor([time.perf_counter() - begin], dtype=torch.float64)
    dist.all_reduce(spent, dist.ReduceOp.MAX)
    return float(spent)


def tune(seconds: float, settings: CommSettings) -> tuning.Table:
    """Measure all sizes within about so many seconds; return the table (collective)."""
    world = distrain.init_process_group(settings)
    chooser = runtime.current().chooser
    nodes = tuple(world.node_names.index(host) for host in world.hosts)
    end = time.perf_counter() + seconds
    picks: list[tuning.Pick] = []
    for number, size in enumerate(SIZES):
        left = -_spent(end)  # the least that any rank has left
        if picks and left < 2 * picks[-1].seconds * (size / picks[-1].payload_bytes):
            break  # not one call of the next size fits
        budget = left / (len(SIZES) - number)
        picks.append(fastest(candidates(nodes, Collective.ALLREDUCE, size, chooser.rails), size, budget))
    key = tuning.key_of(chooser.mpi, nodes, chooser.rails)
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    speeds = tuning.fit(nodes, chooser.rails, picks)
    return tuning.Table(key, made, {Collective.ALLREDUCE: tuple(picks)}, speeds)


def lines_of(table: tuning.Table, nodes: Sequence[int], rails: int) -> list[dict[str, object]]:
    """Return one line a size: the pick, its time, the next best, and what the fitted formula says."""
    lines: list[dict[str, object]] = []
    for pick in table.picks[Collective.ALLREDUCE]:
        by_formula = estimate(pick.choice.algorithm, nodes, pick.payload_bytes, rails, table.speeds)
        lines.append(
            {
                "tune": "allreduce",
                "bytes": pick.payload_bytes,
                "pick": pick.choice.title,
                "median_s": pick.seconds,
                "next_best": pick.next_best[0].title if pick.next_best else None,
                "next_best_s": pick.next_best[1] if pick.next_best else None,
                "formula_s": by_formula,
                "key": table.key,
            }
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and let rank 0 write the table and the lines. Runs under any mpirun or srun."""
    parser = argparse.ArgumentParser(description="Measure which algorithm is the fastest, and keep it.")
    parser.add_argument("--seconds", type=float, default=45.0, help="about how long")
    parser.add_argument("--table", help="file; default: where a job looks for it")
    parser.add_argument("--rails", type=int, default=0, help="network ports of a node; 0: counted")
    parser.add_argument("--out", help="file for one JSON object a size; -: standard output")
    parser.add_argument(
        "--return-table", action="store_true", help="do not keep the table: it is the last object of --out"
    )
    given = parser.parse_args(argv)
    # Inside one node gradients travel in its memory, and what is measured are messages. Of several nodes
    # the hierarchical algorithms use memory too, and are measured so.
    several = mpi.discover_world(mpi.initialize()).nodes > 1
    settings = CommSettings(algorithm="auto", node_memory=several, rails=given.rails or None)
    table = tune(given.seconds, settings)
    world = runtime.current().world
    if world.rank == 0:
        if not given.return_table:
            tuning.save(Path(given.table) if given.table else tuning.default_path(), table)
        nodes = tuple(world.node_names.index(host) for host in world.hosts)
        if given.out:
            lines = lines_of(table, nodes, runtime.current().chooser.rails)
            results.write(given.out, [*lines, tuning.to_json(table)] if given.return_table else lines)
    distrain.destroy_process_group()


if __name__ == "__main__":
    main()
