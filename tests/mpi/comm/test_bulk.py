"""Bulk traffic yields: gradients that are called while it is in flight start at once and end before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mpi4py import MPI

from distrain.comm import api
from distrain.comm.messages.plain import Message, MessageOperation
from distrain.comm.operation import Priority
from distrain.world import World

PIECES, PIECE_BYTES = 200, 256 << 10


class Stream(MessageOperation):
    """Sends and receives many pieces around a ring, the next one when the one before has come."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        rank, size = comm.Get_rank(), comm.Get_size()
        self.source_data, self.target = (np.full(PIECE_BYTES, rank, np.uint8) for _ in range(2))
        sends = [Message((rank + 1) % size, self.source_data)]
        receives = [Message((rank - 1) % size, self.target)]
        super().__init__("stream", comm, 77, sends, receives)
        self.left = PIECES
        self.held = True  # before its last piece

    def progress(self) -> bool:
        if not super().progress() or (self.left == 1 and self.held):
            return False
        self.left -= 1
        if self.left:
            self.start()
        return not self.left


@pytest.mark.ranks(at_least=2)
def test_gradients_pass_bulk_traffic(world: World, group: dist.ProcessGroup) -> None:
    """Rank r gives r+1 to each of 20 sums. The stream ends only after them: waiting for it would hang."""
    engine = api.engine()
    comm = engine.call(MPI.COMM_WORLD.Dup)
    dist.barrier(group=group)
    stream = Stream(comm)
    bulk = engine.submit(stream, Priority.BULK)
    for _ in range(20):
        t = torch.full((1000,), world.rank + 1.0)
        dist.all_reduce(t, group=group)
        assert t.unique().tolist() == [world.size * (world.size + 1) / 2]
    assert not bulk.is_done
    stream.held = False
    assert bulk.wait(30)
    assert stream.left == 0
    assert np.unique(stream.target).tolist() == [(world.rank - 1) % world.size]
    engine.call(comm.Free)
