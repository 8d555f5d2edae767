"""Settings of the launch: how many ranks, where, started by what."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from distrain.settings import Seconds, Settings


def _text_of_int(value: Any) -> Any:
    # OMP_NUM_THREADS: 4 and time: 30 are numbers in YAML, and text in an environment and for Slurm
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


EnvValue = Annotated[
    str, BeforeValidator(_text_of_int, json_schema_input_type=str | int), Field(pattern=r"^[^\x00]*$")
]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
OneLine = Annotated[EnvValue, Field(pattern=r"^[^\r\n]+$")]


# minutes, m:s, h:m:s, days-hours, days-hours:m, days-hours:m:s
_SLURM_TIME = r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|(?i:unlimited|infinite)"


class SlurmSettings(Settings):
    """What the sbatch script asks for."""

    nodes: int = Field(1, ge=1, description="nodes of the allocation")
    ranks_per_node: int = Field(1, ge=1, description="ranks on each node: one per GPU")
    cpus_per_rank: int | None = Field(
        None, ge=1, description="cores per rank; default: left to the partition's default"
    )
    gpus_per_node: int | None = Field(None, ge=0, description="GPUs per node (--gpus-per-node)")
    time: OneLine = Field("24:00:00", description="time limit as Slurm writes it")
    partition: OneLine | None = Field(None, description="partition; default: the cluster's default")
    account: OneLine | None = Field(None, description="account that is charged")
    qos: OneLine | None = Field(None, description="quality of service")
    constraint: OneLine | None = Field(None, description="features that the nodes must have")
    mail_user: OneLine | None = Field(None, description="address told of the job's end, failure and requeue")
    # Slurm takes whole seconds in 16 bits
    grace_seconds: Seconds = Field(
        120.0,
        ge=10,
        le=65535,
        description="warning before the time limit or a preemption, for a last checkpoint",
    )
    max_restarts: int = Field(20, ge=0, description="how often the job may put itself back into the queue")
    setup: tuple[str, ...] = Field((), description="shell lines before the launch, e.g. module load")
    starter: Literal["mpirun", "srun"] = Field(
        "mpirun", description="what starts the ranks inside the allocation"
    )
    srun_mpi: OneLine = Field("pmix", description="value of srun --mpi; pmi2 for MPICH and Intel MPI")
    extra: tuple[OneLine, ...] = Field((), description="further #SBATCH options, e.g. --exclusive")

    @field_validator("time")
    @classmethod
    def _is_a_time(cls, time: str) -> str:
        if not re.fullmatch(_SLURM_TIME, time):
            raise ValueError(
                f"{time!r} is not a time of Slurm; write minutes, hours:minutes:seconds or days-hours, "
                "e.g. 24:00:00"
            )
        return time


class LaunchSettings(Settings):
    """How a run is started."""

    target: Literal["local", "hosts", "slurm"] = Field(
        "local", description="this machine, a host file, or sbatch"
    )
    np: int | None = Field(
        None, ge=1, description="ranks in all; default: one per GPU or 1 (local), all slots (hosts)"
    )
    hosts: str | None = Field(None, description="host file: `name slots=N` or `name:N` a line")
    runs: str = Field("runs", min_length=1, description="folder that holds the run folders")
    mpi: Literal["auto", "openmpi5", "openmpi4", "mpich", "intelmpi"] = Field(
        "auto", description="mpirun dialect; auto: asked from mpirun itself"
    )
    bind: Literal["none", "core", "numa"] = Field(
        "none", description="binding of ranks; none, since each rank runs decoder and compute threads"
    )
    stop_seconds: Seconds = Field(
        120.0,
        gt=0,
        description="time for ranks that were asked to stop to finish their step, or their batch of an "
        "evaluation, and to write a checkpoint; then they are ended. In a Slurm job its limits count instead",
    )
    env: dict[EnvName, EnvValue] = Field({}, description="environment of every rank")
    mpirun_args: tuple[str, ...] = Field((), description="further mpirun arguments, as they are")
    slurm: SlurmSettings = SlurmSettings()
