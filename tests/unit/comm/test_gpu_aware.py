"""Which MPI takes pointers of a GPU, asked of made-up libraries."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from distrain.comm.process import gpu_aware
from distrain.comm.process.gpu_aware import Answer, all_aware, judge
from distrain.comm.settings import CommSettings

OPEN_MPI = "Open MPI v5.0.11, package: Open MPI root@host Distribution"
MPICH = "MPICH Version:      4.2.0\nMPICH Release date: Fri Feb  9 2024"
CRAY = "MPI VERSION    : CRAY MPICH version 8.1.29.4 (ANL base 3.4a2)"
INTEL = "Intel(R) MPI Library 2021.18 for Linux* OS"
MVAPICH = "MVAPICH2 Version      :\t2.3.7"


def library(cuda: int | None = None, rocm: int | None = None, mpich: int | None = None) -> Any:
    """Functions of an MPI: what they answer; `mpich` is the type of GPU that it knows."""
    functions: dict[str, Any] = {}
    if cuda is not None:
        functions["MPIX_Query_cuda_support"] = lambda: cuda
    if rocm is not None:
        functions["MPIX_Query_rocm_support"] = lambda: rocm
    if mpich is not None:

        def query(kind: ctypes.c_int, supported: Any) -> int:
            supported._obj.value = kind.value == mpich
            return 0

        functions["MPIX_GPU_query_support"] = query
    return SimpleNamespace(**functions)


@pytest.mark.parametrize(
    ("version", "functions", "environment", "expected"),
    [
        (OPEN_MPI, library(cuda=1), {}, Answer(True, "MPIX_Query_cuda_support says yes")),
        (OPEN_MPI, library(cuda=0), {}, Answer(False, "MPIX_Query_cuda_support says no")),
        (OPEN_MPI, library(), {}, Answer(False, "it has no function that tells")),
        (MPICH, library(mpich=0), {}, Answer(True, "MPIX_GPU_query_support says yes")),
        (MPICH, library(mpich=1), {}, Answer(False, "MPIX_GPU_query_support says no")),
        (MPICH, library(cuda=1, mpich=1), {}, Answer(False, "MPIX_GPU_query_support says no")),
        # A switch of another library, or one that is off, is none.
        (
            OPEN_MPI,
            library(),
            {"MPICH_GPU_SUPPORT_ENABLED": "1"},
            Answer(False, "it has no function that tells"),
        ),
        (CRAY, library(), {}, Answer(False, "MPICH_GPU_SUPPORT_ENABLED is not 1")),
        (
            CRAY,
            library(),
            {"MPICH_GPU_SUPPORT_ENABLED": "0"},
            Answer(False, "MPICH_GPU_SUPPORT_ENABLED is not 1"),
        ),
        (CRAY, library(), {"MPICH_GPU_SUPPORT_ENABLED": "1"}, Answer(True, "MPICH_GPU_SUPPORT_ENABLED=1")),
        (INTEL, library(), {}, Answer(False, "I_MPI_OFFLOAD is not 1")),
        (INTEL, library(), {"I_MPI_OFFLOAD": "1"}, Answer(True, "I_MPI_OFFLOAD=1")),
        (
            INTEL,
            library(),
            {"I_MPI_OFFLOAD": "1", "I_MPI_OFFLOAD_MODE": "level_zero"},
            Answer(False, "I_MPI_OFFLOAD_MODE=level_zero is not cuda"),
        ),
        (
            INTEL.replace("2021.18", "2021.9"),
            library(),
            {"I_MPI_OFFLOAD": "1"},
            Answer(False, "Intel MPI knows CUDA from 2021.12 on"),
        ),
        # MVAPICH answers for its build, so its switch decides.
        (
            MVAPICH,
            library(cuda=1),
            {},
            Answer(False, "MV2_USE_CUDA or MVP_USE_CUDA or MVP_ENABLE_GPU is not 1"),
        ),
        (MVAPICH, library(cuda=1), {"MV2_USE_CUDA": "1"}, Answer(True, "MV2_USE_CUDA=1")),
        (MVAPICH, library(cuda=0), {"MV2_USE_CUDA": "1"}, Answer(False, "MPIX_Query_cuda_support says no")),
    ],
)
def test_what_a_library_says_of_cuda(
    version: str, functions: Any, environment: dict[str, str], expected: Answer
) -> None:
    assert judge("cuda", version, functions, environment) == expected


@pytest.mark.parametrize(
    ("version", "functions", "environment", "takes"),
    [
        (OPEN_MPI, library(cuda=1, rocm=0), {}, False),
        (OPEN_MPI, library(cuda=0, rocm=1), {}, True),
        (MPICH, library(mpich=2), {}, True),
        (MPICH, library(mpich=0), {}, False),
        (CRAY, library(), {"MPICH_GPU_SUPPORT_ENABLED": "1"}, True),
        (INTEL, library(), {"I_MPI_OFFLOAD": "1"}, False),
        (MVAPICH, library(), {"MV2_USE_ROCM": "1"}, True),
    ],
)
def test_what_a_library_says_of_rocm(
    version: str, functions: Any, environment: dict[str, str], takes: bool
) -> None:
    assert judge("rocm", version, functions, environment).takes is takes


def test_the_library_of_this_process_answers() -> None:
    """Whatever it says; a function of the wrong form would crash."""
    assert gpu_aware.ask().why


@pytest.mark.parametrize(("wanted", "says", "others", "expected"), [
    ("auto", True, True, True),
    ("auto", True, False, False),
    ("auto", False, True, False),
    ("never", True, True, False),
    ("always", False, True, True),
])  # fmt: skip
def test_all_ranks_or_none(
    monkeypatch: pytest.MonkeyPatch, wanted: str, says: bool, others: bool, expected: bool
) -> None:
    monkeypatch.setattr(gpu_aware, "ask", lambda: Answer(says, ""))
    comm: Any = SimpleNamespace(allreduce=lambda mine, op: mine and others)
    assert all_aware(comm, wanted) is expected


def test_the_setting() -> None:
    assert CommSettings().device_pointers == "auto"
    with pytest.raises(ValueError, match="device_pointers"):
        CommSettings(device_pointers="yes")
