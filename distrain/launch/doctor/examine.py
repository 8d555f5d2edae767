"""All checks, in the order in which a person reads them."""

from __future__ import annotations

from collections.abc import Iterator

from distrain.launch.doctor import hardware, mpi, python
from distrain.launch.doctor.check import Check


def examine() -> Iterator[Check]:
    """Yield every check as soon as it is done; takes some seconds, most of them to load libraries."""
    yield python.python()
    torch = python.torch()
    yield torch
    yield mpi.library()
    starter, found = mpi.starter()
    yield starter
    if found is not None:
        yield mpi.world(found)
    yield hardware.gpus(torch.facts.get("gpus"))
    yield mpi.pointers(torch.facts.get("gpus"))
    yield from python.decoders()
    yield python.exchange()
    yield python.checksums()
    yield hardware.compiler()
    yield hardware.cores()
    yield hardware.memory()
    yield hardware.shared_memory()
    yield from python.peers()
    yield mpi.slurm()
