"""Settings of the launch: how many ranks, where, started by what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distrain.settings import Settings


class SlurmSettings(Settings):
    """What the sbatch script asks for."""

    nodes: int = Field(1, ge=1)
    ranks_per_node: int = Field(1, ge=1)
    cpus_per_rank: int | None = Field(None, ge=1)
    gpus_per_node: int | None = Field(None, ge=0)
    time: str = Field("24:00:00", description="time limit as Slurm writes it")
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    mail_user: str | None = None
    setup: tuple[str, ...] = Field((), description="shell lines before the launch, e.g. module load")
    starter: Literal["mpirun", "srun"] = Field(
        "mpirun", description="what starts the ranks inside the allocation"
    )
    srun_mpi: str = Field("pmix", description="value of srun --mpi")
    extra: tuple[str, ...] = Field((), description="further #SBATCH options, e.g. --exclusive")


class LaunchSettings(Settings):
    """How a run is started."""

    target: Literal["local", "hosts", "slurm"] = Field(
        "local", description="this machine, a host file, or sbatch"
    )
    np: int | None = Field(None, ge=1, description="ranks in all; default: one per GPU, or 1")
    hosts: str | None = Field(None, description="host file: `name slots=N` or `name:N` a line")
    mpi: Literal["auto", "openmpi5", "openmpi4", "mpich", "intelmpi"] = Field(
        "auto", description="mpirun dialect"
    )
    env: dict[str, str] = Field({}, description="environment of every rank")
    mpirun_args: tuple[str, ...] = Field((), description="further mpirun arguments, as they are")
    slurm: SlurmSettings = SlurmSettings()
