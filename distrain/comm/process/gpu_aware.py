"""Does the MPI of this process take pointers of a GPU? It is asked, and its documented switch looked at.

Sources:
    Open MPI, MPIX_Query_cuda_support(3): 1 if the library was built with CUDA and the runtime supports its
        buffers; before 5.0 it told of the build only (open-mpi/ompi, pull request 7970). Of the transport it
        says nothing: "CUDA" in its documentation lists those that can (UCX with CUDA, smcuda, tcp, OFI).
    MPICH, MPIX_GPU_query_support(3), of 4.0 and later; its types are 0 (CUDA), 1 (Level Zero), 2 (HIP).
    HPE Cray MPI, intro_mpi(3): MPICH_GPU_SUPPORT_ENABLED=1; off unless set.
    Intel MPI Developer Reference, "GPU Support": I_MPI_OFFLOAD=1, off unless set; NVIDIA's GPUs are named
        from 2021.12 on; I_MPI_OFFLOAD_MODE chooses between CUDA and Level Zero.
    MVAPICH user guides: MV2_USE_CUDA=1, off unless set; later MVP_USE_CUDA, in MVAPICH-Plus MVP_ENABLE_GPU.
        Its MPIX_Query_cuda_support tells of the build only.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from distrain.comm.process.mpi import MPI

Kind = Literal["cuda", "rocm"]

# Functions without an argument that say yes or no, and the number of the GPU in MPICH's question.
_QUERIES: dict[Kind, tuple[str, ...]] = {
    "cuda": ("MPIX_Query_cuda_support",),
    "rocm": ("MPIX_Query_rocm_support", "MPIX_Query_hip_support"),
}
_MPICH_TYPES: dict[Kind, int] = {"cuda": 0, "rocm": 2}
# By a word of the library's version text: the variables of which one must be 1.
_SWITCHES: dict[str, dict[Kind, tuple[str, ...]]] = {
    "CRAY MPICH": {"cuda": ("MPICH_GPU_SUPPORT_ENABLED",), "rocm": ("MPICH_GPU_SUPPORT_ENABLED",)},
    "Intel(R) MPI": {"cuda": ("I_MPI_OFFLOAD",)},
    "MVAPICH": {
        "cuda": ("MV2_USE_CUDA", "MVP_USE_CUDA", "MVP_ENABLE_GPU"),
        "rocm": ("MV2_USE_ROCM", "MVP_ENABLE_GPU"),
    },
}
_INTEL_WITH_CUDA = (2021, 12)


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        takes: pointers of the GPU may be given to this MPI, as far as it says.
        why: in words.
    """

    takes: bool
    why: str


def ask() -> Answer:
    """Ask the MPI of this process about the GPUs of its torch. MPI is initialised."""
    kind: Kind = "rocm" if torch.version.hip else "cuda"
    return judge(kind, MPI.Get_library_version(), ctypes.CDLL(MPI.__file__), os.environ)


def judge(kind: Kind, version: str, library: Any, environment: Mapping[str, str]) -> Answer:
    """Return what a library says, or its switch.

    Args:
        kind: of the GPUs.
        version: the library's text about itself.
        library: its functions as attributes, as of `ctypes.CDLL`.
        environment: of this process.
    """
    said = _say(kind, library)
    if any(not yes for yes in said.values()):
        return Answer(False, f"{_first(said, False)} says no")
    family = next((name for name in _SWITCHES if name.lower() in version.lower()), None)
    if family is None:
        yes = bool(said)
        return Answer(yes, f"{_first(said, True)} says yes" if yes else "it has no function that tells")
    names = _SWITCHES[family].get(kind, ())
    if family == "Intel(R) MPI" and (problem := _of_intel(version, environment)):
        return Answer(False, problem)
    on = next((name for name in names if environment.get(name, "").strip() == "1"), None)
    if on is None:
        return Answer(False, f"{' or '.join(names)} is not 1" if names else f"it does not know {kind}")
    return Answer(True, f"{on}=1")


def _say(kind: Kind, library: Any) -> dict[str, bool]:
    """Return what each function that the library has answers."""
    said: dict[str, bool] = {}
    for name in _QUERIES[kind]:
        if (query := getattr(library, name, None)) is not None:
            said[name] = query() == 1
    if (query := getattr(library, "MPIX_GPU_query_support", None)) is not None:
        supported = ctypes.c_int(0)
        code = query(ctypes.c_int(_MPICH_TYPES[kind]), ctypes.byref(supported))
        said["MPIX_GPU_query_support"] = code == MPI.SUCCESS and bool(supported.value)
    return said


def _first(said: Mapping[str, bool], answer: bool) -> str:
    return next(name for name, yes in said.items() if yes is answer)


def _of_intel(version: str, environment: Mapping[str, str]) -> str:
    """Return why this Intel MPI does not know CUDA; empty if it may."""
    found = re.search(r"(\d{4})\.(\d+)", version)
    if found is None or tuple(map(int, found.groups())) < _INTEL_WITH_CUDA:
        return "Intel MPI knows CUDA from 2021.12 on"
    mode = environment.get("I_MPI_OFFLOAD_MODE", "auto").strip()
    return "" if mode in ("auto", "cuda") else f"I_MPI_OFFLOAD_MODE={mode} is not cuda"


def all_aware(comm: MPI.Intracomm, wanted: str) -> bool:
    """Return whether pointers of GPUs are given to MPI: on all ranks or on none. Collective.

    Args:
        comm: all ranks.
        wanted: `CommSettings.device_pointers`.
    """
    mine = wanted == "always" or (wanted == "auto" and ask().takes)
    return bool(comm.allreduce(mine, op=MPI.LAND))
