"""distrain: data-parallel training of image classifiers on MPI clusters.

    import distrain
    distrain.init_process_group()      # under mpirun or srun; the world comes from MPI
    model = torch.nn.parallel.DistributedDataParallel(model, **distrain.ddp_buckets(model))

Importing the package imports neither torch nor mpi4py; calling a function does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
_MODULES = {
    "CommSettings": "distrain.comm.settings",
    "allreduce": "distrain.comm.api",
    "ddp_buckets": "distrain.comm.api",
    "destroy_process_group": "distrain.comm.api",
    "init_process_group": "distrain.comm.api",
}
__all__ = [
    "CommSettings",
    "__version__",
    "allreduce",
    "ddp_buckets",
    "destroy_process_group",
    "init_process_group",
]

if TYPE_CHECKING:
    from distrain.comm.api import allreduce, ddp_buckets, destroy_process_group, init_process_group
    from distrain.comm.settings import CommSettings


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        found = globals()[name] = getattr(import_module(_MODULES[name]), name)  # a second look costs nothing
        return found
    raise AttributeError(f"module 'distrain' has no attribute {name!r}")
