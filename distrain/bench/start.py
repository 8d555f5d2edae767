"""Starts a benchmark's rank program under the installed mpirun and brings its lines back."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distrain import machine
from distrain.bench import results
from distrain.bench.machines import Machines, bytes_per_second, why_not
from distrain.errors import LaunchError, UsageError
from distrain.launch import local, mpi
from distrain.launch.dialects import hostfile_text
from distrain.launch.hosts import Host
from distrain.launch.job import Command, Job


@dataclass(frozen=True)
class Emulation:
    """Emulated machines to run on; see `machines.Machines`.

    Attributes:
        count: how many; ranks are spread over them in blocks.
        rails: network cards of each.
        rate: of each link, as tc spells it (``1gbit``); empty: unlimited.
    """

    count: int
    rails: int = 1
    rate: str = ""

    @property
    def link_gbit(self) -> float | None:
        """Gbit/s of a link, which the kernel does not tell of these; None: unlimited."""
        return bytes_per_second(self.rate) * 8 / 1e9 if self.rate else None


def run_ranks(
    module: str,
    arguments: Sequence[str],
    ranks: int,
    emulation: Emulation | None = None,
    hosts: Sequence[Host] = (),
) -> list[dict[str, object]]:
    """Run ``python -m module arguments --out FILE`` on so many ranks, here, on hosts or on emulated machines.

    The ranks' output goes to stderr, since stdout is for the result alone. On hosts FILE is ``-``: rank 0 may
    not see the files of this machine (see `results.write`).

    Returns:
        The JSON objects that rank 0 wrote, in order.

    Raises:
        UsageError: the ranks do not spread evenly over the emulated machines.
        LaunchError: no MPI, machines cannot be emulated here, or the job failed.
    """
    with tempfile.TemporaryDirectory(prefix="distrain-bench-") as folder:
        out = Path(folder) / "lines.jsonl"
        job = Job(
            command=(
                sys.executable,
                "-m",
                module,
                *arguments,
                "--out",
                results.STDOUT if hosts else str(out),
            ),
            np=ranks,
            crowded=2 * ranks > machine.cores(),  # a rank has two busy threads
            as_root=os.geteuid() == 0,
            env={"DISTRAIN_WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"},
        )
        with results.captured() as outputs:
            if emulation is not None:
                outcome = _run_emulated(job, emulation, Path(folder))
            elif hosts:
                outcome = local.run(mpi.find().command(_placed(job, hosts, Path(folder))))
            else:
                outcome = local.run(mpi.find().command(job))
        lines = outputs.lines()
        if out.exists():
            lines = [json.loads(line) for line in out.read_text().splitlines()]
        if outcome.code != 0 or lines is None:
            raise LaunchError(
                "bench",
                f"the benchmark's ranks ended with exit code {outcome.code}"
                f"{' and without a result' * (outcome.code == 0)}: {outputs.failure or 'they said nothing'}",
                "mend what this says (more of it stands above), then run it again",
            )
        return lines


def _placed(job: Job, hosts: Sequence[Host], folder: Path) -> Job:
    hostfile = folder / "hosts"
    hostfile.write_text(hostfile_text(mpi.find().dialect, tuple(hosts)))
    return replace(job, place="hosts", hostfile=str(hostfile))


def _run_emulated(job: Job, emulation: Emulation, folder: Path) -> local.Outcome:
    """Start a job from the first machine, in the environment that a login there would give."""
    if job.np % emulation.count:
        raise UsageError(
            "bench", f"{job.np} ranks do not spread over {emulation.count} machines", "use a multiple"
        )
    reason = why_not()
    if reason is not None:
        raise LaunchError("bench", reason, "run as root where that is allowed, or leave out --machines")
    found = mpi.find()
    with Machines(emulation.count, emulation.rails, emulation.rate) as machines:
        hosts = tuple(Host(name, job.np // emulation.count) for name in machines.names)
        placed = replace(_placed(job, hosts, folder), extra=machines.starter_args(found.name))
        built = found.command(placed)
        return local.run(Command(tuple(machines.entering(machines.names[0], built.argv)), built.env))
