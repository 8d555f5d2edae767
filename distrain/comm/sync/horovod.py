"""Horovod as the synchroniser of DDP's buckets, for comparison."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist

from distrain.comm.process.mpi import MPI, library
from distrain.errors import ConfigError

POLL_SECONDS = 2e-4


def start() -> Any:
    """Return `horovod.torch`, initialised on the ranks of this job. Collective.

    Horovod has a thread of its own that calls MPI while distrain's engine does the same, so MPI
    must allow several threads at once.

    Raises:
        ConfigError: Horovod is not installed, was built for another MPI than the one at hand, or MPI was
            started for one thread at a time.
    """
    try:
        import horovod.torch as horovod
    except ImportError as error:
        raise ConfigError(
            "comm.sync",
            f"horovod cannot be imported ({error})",
            "run `make horovod`, or use another sync",
        ) from error
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise ConfigError(
            "comm.sync",
            "horovod needs MPI_THREAD_MULTIPLE",
            "set MPI4PY_RC_THREAD_LEVEL=multiple before Python starts, or use an MPI that has it",
        )
    horovod.init()
    # Over another MPI, which knows nothing of this job, each rank is alone and averages with nobody.
    size, ranks = horovod.size(), MPI.COMM_WORLD.Get_size()
    if size != ranks:
        raise ConfigError(
            "comm.sync",
            f"horovod's world of {size} is not this job's of {ranks}: it was built for another MPI than "
            + library(),
            "build it anew with this MPI's mpicxx (`make horovod`), or use another sync",
        )
    return horovod


class Horovod:
    """A started Horovod. Collective; raises what `start` does."""

    def __init__(self) -> None:
        self._horovod = start()
        self._waiter = ThreadPoolExecutor(1, "distrain-horovod")

    def average(self, state: Any, bucket: dist.GradBucket) -> torch.futures.Future:
        """DDP's communication hook."""
        data = bucket.buffer()
        future: torch.futures.Future = torch.futures.Future(devices=[data.device] if data.is_cuda else [])
        handle = self._horovod.allreduce_async_(
            data, op=self._horovod.Average, name=f"bucket {bucket.index()} of {data.numel()}"
        )
        self._waiter.submit(self._finish, handle, future)
        return future

    def _finish(self, handle: int, future: torch.futures.Future) -> None:
        try:
            while not self._horovod.poll(handle):
                time.sleep(POLL_SECONDS)  # Horovod's own wait may keep the GIL
            future.set_result(self._horovod.synchronize(handle))
        except Exception as error:  # it belongs to whoever waits for the gradients
            future.set_exception(error)

    def close(self) -> None:
        """End Horovod, before MPI ends."""
        self._waiter.shutdown()
        self._horovod.shutdown()
