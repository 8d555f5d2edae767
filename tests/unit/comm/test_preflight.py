from __future__ import annotations

import pytest

from distrain.comm.process.preflight import check_world_size, host_labels, promised_size
from distrain.errors import LaunchError


@pytest.mark.parametrize(
    ("environment", "promise"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "8"}, None),  # an allocation, but this process is no task of a step
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}, ("SLURM_NTASKS", 8)),
        ({"OMPI_COMM_WORLD_SIZE": "4", "SLURM_NTASKS": "2"}, ("OMPI_COMM_WORLD_SIZE", 4)),
        ({"PMI_SIZE": "3"}, ("PMI_SIZE", 3)),
        ({"DISTRAIN_WORLD_SIZE": "6", "PMI_SIZE": "3"}, ("DISTRAIN_WORLD_SIZE", 6)),
        ({"PMI_SIZE": ""}, None),
    ],
)
def test_what_launchers_promise(environment: dict[str, str], promise: tuple[str, int] | None) -> None:
    assert promised_size(environment) == promise


def test_a_lonely_rank_is_refused() -> None:
    srun = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_STEP_ID": "0"}
    with pytest.raises(LaunchError, match=r"size=1 but SLURM_NTASKS=8: srun .*Some MPI 1.0.*--mpi=pmix"):
        check_world_size(1, srun, "Some MPI 1.0")
    check_world_size(8, srun, "Some MPI 1.0")
    check_world_size(1, {}, "Some MPI 1.0")


def test_hosts_of_one_name_are_told_apart() -> None:
    assert host_labels(["a", "a", "b", "b"], [0, 0, 2, 2]) == ["a", "a", "b", "b"]
    assert host_labels(["box"] * 4, [0, 1, 0, 1]) == ["box", "box#1", "box", "box#1"]
