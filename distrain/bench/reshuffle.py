"""Who takes part in the benchmark of the exchange: the product's own, and all-to-all of the peers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from mpi4py import MPI

from distrain.bench import made_images
from distrain.bench.errors import Unavailable
from distrain.comm import api
from distrain.comm.engine.guest import submit_bulk
from distrain.data.exchange import MpiCarrier
from distrain.data.nodes.groups import Groups
from distrain.data.nodes.sharing import Sharing
from distrain.data.nodes.windows import WINDOWS_IN_ROOM
from distrain.data.settings import DataSettings
from distrain.world import World

STEPS = 60  # of an epoch
# Of a window. A large set has windows of hundreds of megabytes; by default those of a small one would be
# so short that the benchmark timed how evenly a few images spread over its ranks.
_WINDOW_STEPS = 10
_LONGEST_COUNT = (1 << 31) - 1  # counts and places of MPI_Alltoallv are C ints


class Contender(Protocol):
    """One way to move the bytes of all images of an epoch to the ranks that read them."""

    name: str
    algorithm: str

    def is_correct(self, traffic: np.ndarray) -> bool:
        """Move them once; return whether every byte that came to this rank is right."""

    def reshuffle(self, traffic: np.ndarray) -> None:
        """Move them; return when this rank has all of its own.

        Args:
            traffic: int64 [ranks, ranks], bytes from each rank to each.
        """

    def close(self) -> None:
        """Release what it holds. Called on all ranks."""


class Exchange:
    """The exchange of the data room as the loader uses it, behind the gradients in the same engine.

    A made set of images: each node holds a part, every rank reads its share of each global batch.

    Args:
        bytes_per_node: of the images that a node holds, about.
        world: ranks and nodes; all nodes are one group.
        comm: all ranks.

    Attributes:
        steps: of an epoch.
        bytes_per_node: of the images that a node holds, on average.
    """

    name = "distrain"
    algorithm = "windows of images"

    def __init__(self, bytes_per_node: int, world: World, comm: MPI.Intracomm) -> None:
        wanted = bytes_per_node * world.nodes / made_images.MEAN_BYTES
        batch = max(1, round(wanted / world.size / STEPS))
        count = batch * world.size * STEPS
        # of the part; 8 % above, so that windows of more than the mean have room
        room = 1.08 * WINDOWS_IN_ROOM * _WINDOW_STEPS / STEPS * (1 - 1 / world.nodes)
        settings = DataSettings(
            train="-", val="-", group_nodes=world.nodes, batch_per_rank=batch, exchange_window=min(1.0, room)
        )
        made = made_images.manifest(count)
        sharing = Sharing(settings, Groups.of(world, world.nodes), made, made)
        table = made_images.records(count, made_images.checksums(count, comm))
        part = sharing.train_part(world.rank)
        self._store = made_images.store(table, range(count) if part is None else part(table))
        self._reading = sharing.reading(self._store, seed=0)
        self._planner = sharing.planner(self._store, self._reading, world.rank)
        self._carrier = MpiCarrier(comm, 0, lambda operation: submit_bulk(api.engine(), operation))
        self._windows = sharing.windows(self._store, self._reading, world.rank, self._carrier)
        self._rank, self._ranks = world.rank, world.size
        self._next = 0  # step
        self.steps = self._reading.steps_per_epoch
        self.bytes_per_node = round(made.bytes_in_memory / world.nodes)
        self._windows.taking(0)
        self._windows.want(0)
        self._windows.settle()

    def sent(self) -> np.ndarray:
        """Return the bytes that this rank will send to each rank for the next epoch: int64 [ranks]."""
        found = np.zeros(self._ranks, np.int64)
        for shipment in self._planner.plan(range(self._next, self._next + self.steps)).sends:
            found[shipment.peer] = sum(piece.size for piece in self._store.padded(shipment.images))
        return found

    def take(self, steps: int) -> list[tuple[int, memoryview]]:
        """Go some steps on; return number and bytes of the images that this rank reads in them."""
        found: list[tuple[int, memoryview]] = []
        for step in range(self._next, self._next + steps):
            epoch, within = divmod(step, self.steps)
            images = self._reading.order(epoch).indices(self._reading.positions(within, self._rank))
            self._windows.taking(step)
            found += zip(images.tolist(), self._windows.want(step).blobs(images), strict=True)
            self._windows.done(step)
        self._next += steps
        return found

    def settle(self) -> None:
        """Return when nothing is on its way: the next windows have come, as many as there is room for."""
        self._windows.settle()

    def is_correct(self, traffic: np.ndarray) -> bool:
        """Compare every byte of an epoch with what its image must hold."""
        right = True
        for _ in range(self.steps):
            for image, blob in self.take(1):
                right &= np.array_equal(blob, made_images.content(image, len(blob)))
        self.settle()
        return right

    def reshuffle(self, traffic: np.ndarray) -> None:
        """Take the steps of an epoch as fast as they come.

        Before and after, the same number of windows is here ahead of time and nothing is on its way: so
        meanwhile the bytes of a whole epoch have travelled.
        """
        for _ in range(self.steps):
            self.take(1)
        self.settle()

    def close(self) -> None:
        """End the thread of the windows. The communicators end with the job."""
        self._windows.close()


class _AllToAll:
    """A collective that moves blocks of bytes between buffers without gaps.

    What is sent lies together before the time is taken, and nothing is checked as it arrives: for images
    both would come on top.

    Args:
        comm: all ranks.
        most_bytes: that this rank sends or receives.

    Raises:
        Unavailable: the bytes are more than it can count.
    """

    name, algorithm = "", "default"

    def __init__(self, comm: MPI.Intracomm, most_bytes: int) -> None:
        most = comm.allreduce(most_bytes, op=MPI.MAX)
        if most > _LONGEST_COUNT:
            raise Unavailable(f"{most} bytes of a rank: it counts in 32 bits")
        self._comm = comm
        self._out, self._in = (np.zeros(most, np.uint8) for _ in range(2))

    def is_correct(self, traffic: np.ndarray) -> bool:
        """Send each rank bytes that no other gets; compare all that comes."""
        me = self._comm.rank
        sent, received = traffic[me], traffic[:, me]
        self._out[: sent.sum()] = np.concatenate(
            [_block(me, peer, n) for peer, n in enumerate(sent.tolist())]
        )
        self._in[:] = 0
        self.reshuffle(traffic)
        expected = np.concatenate([_block(peer, me, n) for peer, n in enumerate(received.tolist())])
        return np.array_equal(self._in[: received.sum()], expected)

    def reshuffle(self, traffic: np.ndarray) -> None:
        """Run the collective."""
        sent, received = traffic[self._comm.rank].tolist(), traffic[:, self._comm.rank].tolist()
        self._run(sent, received)

    def _run(self, sent: list[int], received: list[int]) -> None:
        raise TypeError(f"{type(self).__name__} does not say how it runs")

    def close(self) -> None:
        """Nothing but memory."""


class MpiAllToAll(_AllToAll):
    """MPI_Alltoallv of the MPI library."""

    name = "mpi"

    def _run(self, sent: list[int], received: list[int]) -> None:
        self._comm.Alltoallv([self._out, sent, MPI.BYTE], [self._in, received, MPI.BYTE])


class GlooAllToAll(_AllToAll):
    """PyTorch's own backend for CPU tensors."""

    name = "gloo"

    def __init__(self, comm: MPI.Intracomm, most_bytes: int) -> None:
        super().__init__(comm, most_bytes)
        if not dist.is_gloo_available():
            raise Unavailable("this build of torch has no gloo")
        self._group: Any = dist.new_group(backend="gloo")

    def _run(self, sent: list[int], received: list[int]) -> None:
        source = torch.from_numpy(self._out[: sum(sent)])
        target = torch.from_numpy(self._in[: sum(received)])
        dist.all_to_all_single(target, source, received, sent, group=self._group)

    def close(self) -> None:
        """Destroy the group."""
        dist.destroy_process_group(self._group)


PEERS: dict[str, type[_AllToAll]] = {"mpi": MpiAllToAll, "gloo": GlooAllToAll}


def _block(sender: int, receiver: int, size: int) -> np.ndarray:
    longest = made_images.LONGEST
    first = (sender << 40) + (receiver << 20)
    parts = [
        made_images.content(first + number, min(longest, size - at))
        for number, at in enumerate(range(0, size, longest))
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)
