"""Who takes part in the allreduce benchmark: ours and the peers, behind one small interface.

Each contender sums a flat float32 CPU tensor over all ranks, in place. A peer that is not
installed raises `Unavailable` when it is made; the benchmark prints its line with the reason.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.distributed as dist
from mpi4py import MPI

import distrain
from distrain.bench import openmpi
from distrain.bench.errors import Unavailable
from distrain.comm.process.mpi import library
from distrain.comm.sync import horovod
from distrain.errors import ConfigError


class Contender(Protocol):
    """One way to sum an array over all ranks."""

    name: str
    algorithm: str

    def allreduce(self, payload: torch.Tensor) -> None:
        """Sum ``payload: float32 [count]`` over all ranks in place; return when it is complete."""

    def close(self) -> None:
        """Release what it holds. Called on all ranks."""


class Distrain:
    """The backend ``distrain`` as a user calls it, through torch.distributed.

    Its `algorithm` is what moved the bytes of the first call.
    """

    name = "distrain"

    def __init__(self) -> None:
        self.algorithm = ""

    def allreduce(self, payload: torch.Tensor) -> None:
        """Sum in place."""
        if self.algorithm:
            dist.all_reduce(payload)
        else:
            work: Any = dist.all_reduce(payload, async_op=True)
            work.wait()
            self.algorithm = work.algorithm

    def close(self) -> None:
        """Nothing: the default process group belongs to the benchmark."""


class DistrainArray:
    """`distrain.allreduce`, as a user of arrays calls it: what the lines of MPI compare with."""

    name = "distrain (array)"
    algorithm = "as distrain"

    def allreduce(self, payload: torch.Tensor) -> None:
        """Sum in place."""
        distrain.allreduce(payload.numpy())

    def close(self) -> None:
        """Nothing: the default process group belongs to the benchmark."""


class PlainMPI:
    """The allreduce of the MPI library itself, called with a numpy array."""

    name = "mpi"

    def __init__(self) -> None:
        self.algorithm = library()
        self._comm = MPI.COMM_WORLD.Dup()

    def allreduce(self, payload: torch.Tensor) -> None:
        """Sum in place."""
        self._comm.Allreduce(MPI.IN_PLACE, payload.numpy())

    def close(self) -> None:
        """Free the communicator."""
        self._comm.Free()


class MpiRing(PlainMPI):
    """Open MPI told to use its ring, which for long messages is the best that it has."""

    name = "mpi-ring"

    def __init__(self) -> None:
        self.algorithm = "coll_tuned_allreduce_algorithm 4"
        try:
            self._comm = openmpi.communicator_with(openmpi.RING)
        except RuntimeError as reason:
            raise Unavailable(f"no choice of algorithm here: {reason}") from None


class Gloo:
    """PyTorch's own backend for CPU tensors."""

    name = "gloo"
    algorithm = "default"

    def __init__(self) -> None:
        if not dist.is_gloo_available():
            raise Unavailable("this build of torch has no gloo")
        self._group: Any = dist.new_group(backend="gloo")

    def allreduce(self, payload: torch.Tensor) -> None:
        """Sum in place."""
        dist.all_reduce(payload, group=self._group)

    def close(self) -> None:
        """Destroy the group."""
        dist.destroy_process_group(self._group)


class Horovod:
    """Horovod over the same MPI. It brings a thread of its own that calls MPI every cycle."""

    name = "horovod"
    algorithm = "default"

    def __init__(self) -> None:
        try:
            self._hvd = horovod.start()
        except ConfigError as error:
            raise Unavailable(str(error)) from None

    def allreduce(self, payload: torch.Tensor) -> None:
        """Sum in place."""
        self._hvd.allreduce_(payload, op=self._hvd.Sum, name="bench")

    def close(self) -> None:
        """Stop its thread."""
        self._hvd.shutdown()


PEERS: dict[str, type[PlainMPI] | type[Gloo] | type[Horovod]] = {
    "mpi": PlainMPI,
    "mpi-ring": MpiRing,
    "gloo": Gloo,
    "horovod": Horovod,
}
