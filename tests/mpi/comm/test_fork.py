"""Processes forked from a rank: they end by themselves, and the job goes on.

``r`` is the rank, ``P`` the number of ranks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from distrain.comm import api
from distrain.world import World

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # Python 3.12 warns of fork beside threads


def in_child(function: Callable[[], object]) -> tuple[str, int]:
    """Fork; return how a function ended there, in words, and the child's exit code."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, f"returned {function()}".encode())
        except SystemExit:
            os.write(writing, b"left")
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        api._at_exit()  # what Python calls at the end; it does not return
        os._exit(99)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read(), os.waitstatus_to_exitcode(status)


def all_are_well(world: World) -> None:
    """Rank r gives r+1, in memory and by the engine: P(P+1)/2."""
    for count in (3, 300_000):
        tensor = torch.full((count,), world.rank + 1.0)
        dist.all_reduce(tensor, async_op=True).wait()
        dist.all_reduce(tensor)
        assert tensor.unique().tolist() == [world.size**2 * (world.size + 1) / 2]


@pytest.mark.parametrize("code", [0, 3])
def test_a_child_ends_with_its_own_code(world: World, code: int) -> None:
    """On each rank its child; with a code other than 0 a rank would have ended the job."""
    assert in_child(lambda: sys.exit(code)) == ("left", code)
    all_are_well(world)


def test_an_uncaught_error_of_a_child_is_its_own(world: World) -> None:
    def fails() -> None:
        sys.excepthook(ValueError, ValueError("the child's"), None)

    assert in_child(fails) == ("returned None", 1)
    all_are_well(world)


@pytest.mark.parametrize("count", [3, 300_000])
def test_a_child_cannot_communicate(world: World, count: int) -> None:
    """Neither in the memory that it shares with the ranks nor by an engine that is not there."""
    tensor = torch.ones(count)
    said, code = in_child(lambda: dist.all_reduce(tensor))
    assert said.startswith("CallError: collective: its group is that of the rank") and code == 0
    all_are_well(world)


def test_a_child_cannot_start_communication(world: World) -> None:
    said, code = in_child(api.meet)
    assert said.startswith("UsageError: init_process_group: this process was forked from a rank")
    assert code == 0
    all_are_well(world)


class Numbers(Dataset):
    """Twelve numbers."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((1000,), float(index))


def test_forked_workers_of_a_data_loader_beside_collectives(world: World) -> None:
    """Each batch is summed over all ranks while the workers make the next ones."""
    loader = DataLoader(Numbers(), batch_size=4, num_workers=2, multiprocessing_context="fork")
    sums = []
    for batch in loader:
        dist.all_reduce(batch)
        sums.append(batch[:, 0].tolist())
    assert sums == [[world.size * float(i) for i in range(first, first + 4)] for first in (0, 4, 8)]
