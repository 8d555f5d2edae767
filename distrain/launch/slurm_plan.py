"""What starts the ranks inside a Slurm job: mpirun of the nodes' MPI, or srun."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from distrain.config.schema import RunConfig
from distrain.errors import LaunchError
from distrain.launch.dialects import DIALECTS, command
from distrain.launch.job import Command, Job
from distrain.launch.mpi import Mpi, find, locate
from distrain.launch.run_folder import RunFolder
from distrain.launch.slurm import Script

# The script sets their values; Open MPI must be told their names.
_OF_SCRIPT = ("DISTRAIN_RESUME", "DISTRAIN_RUN_DIR", "DISTRAIN_WORLD_SIZE", "OMP_NUM_THREADS")


def slurm_script(config: RunConfig, folder: RunFolder, job: Job) -> tuple[Script, Mpi | None, Command]:
    """Return what goes into the sbatch script, its MPI (None with srun), and its starter.

    Raises:
        LaunchError: the MPI is not named and none is installed here to ask.
    """
    slurm = config.launch.slurm
    # the cores of the nodes are not known here: whether they are crowded neither
    job = replace(job, command=(), crowded=False, env={**dict.fromkeys(_OF_SCRIPT, ""), **config.launch.env})
    mpi = None
    if slurm.starter == "srun":
        # srun does not inherit --cpus-per-task from sbatch
        cpus = () if slurm.cpus_per_rank is None else (f"--cpus-per-task={slurm.cpus_per_rank}",)
        job = replace(job, extra=(f"--mpi={slurm.srun_mpi}", *cpus, *job.extra))
        built = command(DIALECTS["srun"], "srun", "", job, {})
        built = Command(built.argv, {**built.env, **_wheel_prefix()})
    else:
        mpi = _mpi_of_nodes(config)
        built = command(mpi.dialect, mpi.starter, mpi.prefix, job, {})
    start = Command(built.argv, {name: value for name, value in built.env.items() if name not in job.env})
    script = Script(
        name=config.name,
        work_dir=os.getcwd(),
        run_dir=str(folder.path.absolute()),
        python=sys.executable,
        ranks=job.np,
        start=start,
        path=os.path.dirname(mpi.path) if mpi and mpi.dialect.needs_path else "",
        env=config.launch.env,
        settings=slurm,
    )
    return script, mpi, start


def _mpi_of_nodes(config: RunConfig) -> Mpi:
    """Return the MPI that the nodes will use, which a login node need not have."""
    try:
        return find(config.launch.mpi)
    except LaunchError:
        if config.launch.mpi == "auto":
            raise
        # named by the user, loaded by launch.slurm.setup on the nodes
        return Mpi("mpirun", config.launch.mpi, "as found on the nodes")


def _wheel_prefix() -> dict[str, str]:
    """Return where the embedded Open MPI lies: its mpirun would tell the ranks, under srun nobody does."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "mpirun")
    if locate() == beside and find().name == "openmpi5":
        return {"OPAL_PREFIX": sys.prefix}
    return {}
