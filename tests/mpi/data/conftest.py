"""What the tests of this folder share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from mpi4py import MPI


@pytest.fixture(scope="session")
def shared_folder() -> Callable[[Callable[[Path], None]], AbstractContextManager[Path]]:
    """``with shared_folder(fill) as path``: a folder for all ranks, which rank 0 makes, fills and removes."""
    comm = MPI.COMM_WORLD

    @contextmanager
    def made(fill: Callable[[Path], None]) -> Iterator[Path]:
        path = Path(comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else ""))
        if comm.rank == 0:
            fill(path)
        comm.Barrier()
        yield path
        comm.Barrier()  # the others have read what they wanted
        if comm.rank == 0:
            shutil.rmtree(path)

    return made
