"""From a configuration to what will be started: the job, its command line, and its numbers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from distrain import machine
from distrain.config.schema import RunConfig
from distrain.errors import ConfigError
from distrain.launch.derive import Derived, Packs, derive, read_packs
from distrain.launch.dialects import hostfile_text
from distrain.launch.hosts import Host, place, read_hosts
from distrain.launch.job import Command, Job
from distrain.launch.mpi import Mpi, find
from distrain.launch.run_folder import CONFIG, RunFolder
from distrain.launch.slurm import render
from distrain.launch.slurm_plan import slurm_script

HOSTFILE = "hosts.txt"
SCRIPT = "train.sbatch"


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that is decided before anything is written or started.

    Attributes:
        config: the resolved configuration.
        folder: the run folder, which may not exist yet.
        hosts: the machines and the ranks that each runs.
        packs: what is known of the data.
        derived: the numbers of the run.
        mpi: the MPI that starts it; None for Slurm's srun.
        command: the command line (for Slurm: of the starter inside the job).
        files: further files of the run folder, by name.
    """

    config: RunConfig
    folder: RunFolder
    hosts: tuple[Host, ...]
    packs: Packs
    derived: Derived
    mpi: Mpi | None
    command: Command
    files: Mapping[str, str]

    def check(self) -> None:
        """Raise what would keep the run from starting.

        Raises:
            ConfigError: a local run whose data is not there; other machines may see what this one does not.
        """
        if self.packs.problems and self.config.launch.target == "local":
            problem = self.packs.problems[0]
            raise ConfigError(problem.where, problem.problem, problem.do)


def nodes_of(config: RunConfig) -> tuple[Host, ...]:
    """Return the machines that a run uses and the ranks of each.

    Raises:
        ConfigError: no host file, too few slots, or two numbers of ranks that contradict each other.
    """
    launch = config.launch
    if launch.target == "local":
        return (Host("localhost", launch.np or max(1, machine.gpus())),)
    if launch.target == "hosts":
        if launch.hosts is None:
            raise ConfigError("launch.hosts", "target 'hosts' needs a host file", "give --hosts FILE")
        hosts = read_hosts(launch.hosts)
        return place(hosts, launch.np or sum(host.slots for host in hosts))
    slurm = launch.slurm
    ranks = slurm.nodes * slurm.ranks_per_node
    if launch.np not in (None, ranks):
        raise ConfigError(
            "launch.np",
            f"{launch.np} ranks are not launch.slurm.nodes={slurm.nodes} x "
            f"launch.slurm.ranks_per_node={slurm.ranks_per_node} = {ranks}",
            "leave --np out, or correct the two",
        )
    return tuple(Host(f"node{n}", slurm.ranks_per_node) for n in range(slurm.nodes))


def rank_env(config: RunConfig, folder: RunFolder, ranks: int, terminal: bool) -> dict[str, str]:
    """Return what the launcher tells every rank."""
    env = {
        "DISTRAIN_WORLD_SIZE": str(ranks),
        "DISTRAIN_RUN_DIR": str(folder.path.absolute()),
        "DISTRAIN_RESUME": str(folder.path.absolute()) if folder.resumes else "",
        "DISTRAIN_TERMINAL": str(int(terminal)),
    }
    if terminal:
        # ranks write into a pipe and cannot ask how wide the terminal behind it is
        env["COLUMNS"] = str(shutil.get_terminal_size().columns)
    if config.launch.target == "local" and "OMP_NUM_THREADS" not in os.environ:
        # torch would start one thread a core in every rank
        env["OMP_NUM_THREADS"] = str(max(1, machine.cores() // ranks))
    return {**env, **config.launch.env}


def make_plan(config: RunConfig, folder: RunFolder, terminal: bool) -> LaunchPlan:
    """Decide everything about a launch; writes and starts nothing.

    Args:
        config: the resolved configuration.
        folder: where the run will live.
        terminal: someone watches on a terminal.

    Raises:
        ConfigError: settings that contradict each other, the data or the machine.
        DataError: a pack is damaged.
        LaunchError: no usable MPI.
    """
    launch = config.launch
    hosts = nodes_of(config)
    packs = read_packs(config)
    derived = derive(config, hosts, packs)
    program = (sys.executable, "-m", "distrain", "train", str((folder.path / CONFIG).absolute()))
    job = Job(
        command=program,
        np=derived.world_size,
        place=launch.target,
        hostfile=str((folder.path / HOSTFILE).absolute()),
        ranks_per_node=derived.ranks_per_node,
        bind=launch.bind,
        # a rank has two busy threads: one computes, one drives MPI
        crowded=2 * derived.ranks_per_node > machine.cores(),
        as_root=os.geteuid() == 0,
        env=rank_env(config, folder, derived.world_size, terminal),
        extra=launch.mpirun_args,
    )
    if launch.target == "slurm":
        script, mpi, start = slurm_script(config, folder, job)
        return LaunchPlan(config, folder, hosts, packs, derived, mpi, start, {SCRIPT: render(script)})
    mpi = find(launch.mpi)
    files = {HOSTFILE: hostfile_text(mpi.dialect, hosts)} if launch.target == "hosts" else {}
    return LaunchPlan(config, folder, hosts, packs, derived, mpi, mpi.command(job), files)
