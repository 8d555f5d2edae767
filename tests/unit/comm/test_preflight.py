from __future__ import annotations

import pytest

from distrain.comm.process.preflight import (
    check_is_rank,
    check_world_size,
    host_labels,
    note_rank,
    parent_rank,
    promised_size,
)
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


MPIRUN = {"PMIX_NAMESPACE": "job-1", "PMIX_RANK": "1", "OMPI_COMM_WORLD_RANK": "1"}


@pytest.mark.parametrize(
    ("environment", "parent"),
    [
        (MPIRUN, 100),  # a process that the rank has started
        ({**MPIRUN, "LANG": "C"}, 100),
        ({**MPIRUN, "PMIX_NAMESPACE": "job-2"}, None),  # a rank of an mpirun that a rank has started
        ({"SLURM_PROCID": "1", "SLURM_STEP_ID": "4"}, None),
        ({}, None),  # a process that was given no word of a launcher
    ],
)
def test_children_of_ranks(environment: dict[str, str], parent: int | None) -> None:
    rank = dict(MPIRUN)
    note_rank(rank, 100)
    assert parent_rank(rank, 100) is None
    note = {name: value for name, value in rank.items() if name.startswith("DISTRAIN_")}
    child = {**environment, **note}
    assert parent_rank(child, 101) == parent
    if parent is None:
        check_is_rank(child, 101)
    else:
        with pytest.raises(LaunchError, match=r"process 101 was started by a rank \(process 100\).*__main__"):
            check_is_rank(child, 101)


def test_children_of_what_no_launcher_started() -> None:
    """A batch script of Slurm is no task of a step."""
    alone = {"SLURM_JOB_ID": "7"}
    note_rank(alone, 100)
    assert parent_rank(alone, 101) is None
