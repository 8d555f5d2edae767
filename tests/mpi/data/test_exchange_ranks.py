"""Images that travel between nodes: each rank here is a node, or two ranks share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

from distrain.comm.engine.engine import Engine
from distrain.comm.engine.guest import submit_bulk
from distrain.data import exchange as exchange_module
from distrain.data.assemble import Assembler
from distrain.data.decode.engine import DecodeError
from distrain.data.decode.engines import create
from distrain.data.decode.turbojpeg import TurboJpegEngine
from distrain.data.exchange import MpiCarrier
from distrain.data.format import read_manifest
from distrain.data.loader import EvalLoader, TrainLoader
from distrain.data.nodes.groups import Groups
from distrain.data.nodes.sharing import Sharing
from distrain.data.order import EpochOrder
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import DataError
from distrain.world import World

WORLD = MPI.COMM_WORLD
COUNT = 60


def write_pack(root: Path) -> None:
    from PIL import Image

    for number in range(COUNT):
        folder = root / "src" / f"class{number * 3 // COUNT}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (12 + number % 7, 16, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03d}.jpg", quality=95)
    pack(f"imagefolder:{root}/src", root / "pack")


@pytest.fixture(scope="module")
def root(shared_folder: Any) -> Iterator[Path]:
    """A folder with a pack of several shards, the same on all ranks."""
    patch = pytest.MonkeyPatch()
    patch.setattr("distrain.data.pack._SHARD_BYTES_LEAST", 1)
    patch.setattr("distrain.data.pack._SHARDS_WANTED", 7)
    with shared_folder(write_pack) as path:
        yield path
    patch.undo()


class Job:
    """One rank of a job on emulated nodes: store, engine, loader."""

    def __init__(self, root: Path, hosts: list[str], **options: object) -> None:
        self.settings = DataSettings(
            train="-",
            val="-",
            image_size=8,
            threads=2,
            eval_batch_per_rank=4,
            **{"batch_per_rank": 2, **options},
        )
        manifest = read_manifest(root / "pack")
        self.groups = Groups.of(World.of(WORLD.rank, hosts), self.settings.group_nodes)
        self.sharing = Sharing(self.settings, self.groups, manifest, manifest)
        self.node = WORLD.Split(self.groups.node_of[WORLD.rank], WORLD.rank)
        rank, size = WORLD.rank, WORLD.size
        path = root / "pack"
        self.store = Store.open(path, self.settings, self.node, self.sharing.train_part(rank))
        self.val_store = Store.open(path, self.settings, self.node, self.sharing.val_part(rank))
        self.carrier = MpiCarrier(
            WORLD, self.groups.group(rank), lambda operation: submit_bulk(self.engine, operation)
        )
        self.engine = Engine(lambda code: WORLD.Abort(code), 60, 600)
        reading = self.sharing.reading(self.store, seed=4)
        self.windows = None
        if self.settings.moving_fraction:
            self.windows = self.sharing.windows(self.store, reading, rank, self.carrier)
        decoder = create("turbojpeg")
        self.loader = TrainLoader(
            self.store, self.settings, decoder, rank, size, 4, reading=reading, windows=self.windows
        )
        self.eval_loader = EvalLoader(
            self.val_store, self.settings, decoder, self.sharing.eval_rank(rank), size
        )

    def epoch(self, epoch: int, start: int = 0) -> list[tuple[list[int], np.ndarray]]:
        """Indices and pixels of each step, of this rank."""
        return [(b.indices.tolist(), b.images.numpy().copy()) for b in self.loader.epoch(epoch, start)]

    def close(self) -> None:
        self.loader.close()
        self.eval_loader.close()
        self.engine.close()
        self.store.close()
        self.val_store.close()
        self.carrier.free()
        self.node.Free()


@pytest.fixture()
def start(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Job]]:
    """Start jobs; at the end they are closed. Messages are short, so that they come in many pieces."""
    monkeypatch.setattr(exchange_module, "MESSAGE_BYTES", 777)
    jobs: list[Job] = []

    def begin(hosts: list[str], **options: object) -> Job:
        jobs.append(Job(root, hosts, **options))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.close()


def apart() -> list[str]:
    return [f"n{rank}" for rank in range(WORLD.size)]


def all_steps(mine: list[tuple[list[int], np.ndarray]]) -> tuple[list[list[int]], dict[int, np.ndarray]]:
    """Global batches, and the pixels of each image, from what every rank saw."""
    ranks = WORLD.allgather(mine)
    batches = [[i for indices, _ in parts for i in indices] for parts in zip(*ranks, strict=True)]
    pixels = {
        i: p for steps in ranks for indices, images in steps for i, p in zip(indices, images, strict=True)
    }
    return batches, pixels


def alone(root: Path, epoch: int, batch: int) -> tuple[list[list[int]], dict[int, np.ndarray]]:
    """What one rank with all images and the whole batch sees."""
    settings = DataSettings(train="-", val="-", image_size=8, batch_per_rank=batch, threads=1)
    store = Store.open(root / "pack", settings)
    loader = TrainLoader(store, settings, create("turbojpeg"), 0, 1, 4)
    batches, pixels = [], {}
    for found in loader.epoch(epoch):
        batches.append(found.indices.tolist())
        pixels |= dict(zip(batches[-1], found.images.numpy().copy(), strict=True))
    loader.close()
    store.close()
    return batches, pixels


def layouts() -> list[tuple[list[str], int]]:
    """Hosts of the ranks and group sizes that this world allows."""
    size = WORLD.size
    found = [(apart(), group) for group in range(1, size + 1) if size % group == 0]
    if size >= 3:  # the first two ranks share a node
        found.append((["n0", "n0", *[f"n{r}" for r in range(2, size)]], size - 1))
    if size == 4:  # ranks dealt to the nodes in turn
        found.append((["n0", "n1", "n0", "n1"], 2))
    return found


def test_global_batches_and_pixels_are_those_of_one_node(root: Path, start: Callable[..., Job]) -> None:
    for hosts, group_nodes in layouts():
        job = start(hosts, group_nodes=group_nodes, exchange_window=0.01)
        held = WORLD.allgather((job.groups.node_of[WORLD.rank], len(job.store.part)))
        assert sum(dict(held).values()) == COUNT * len(set(hosts)) // group_nodes
        for epoch in (0, 1):
            batches, pixels = all_steps(job.epoch(epoch))
            expected, expected_pixels = alone(root, epoch, 2 * WORLD.size)
            assert batches == expected
            assert all(np.array_equal(pixels[i], expected_pixels[i]) for i in pixels)


def test_resume_jumps_and_early_ends(start: Callable[..., Job]) -> None:
    job = start(apart(), group_nodes=WORLD.size, last_batch="wrap")
    whole, _ = all_steps(job.epoch(2))
    steps = len(whole)
    for epoch, first in ((2, 3), (2, steps - 1), (2, steps), (2, 0)):
        rest, _ = all_steps(job.epoch(epoch, first))
        assert rest == whole[first:]
    for _, batch in zip(range(2), job.loader.epoch(5), strict=False):
        assert len(batch.indices) == 2
    again, _ = all_steps(job.epoch(2))
    assert again == whole


def test_nothing_travels_past_the_end_of_the_run(start: Callable[..., Job]) -> None:
    job = start(apart(), group_nodes=WORLD.size)
    total = job.loader.steps_per_epoch + 3
    seen = [len(list(job.loader.epoch(epoch, total=total))) for epoch in (0, 1)]
    assert seen == [total - 3, 3]
    if job.windows is not None:
        assert job.windows._asked_to == total


@pytest.mark.parametrize("mode", [{"reshuffle": "local"}, {"reshuffle": "partial", "partial": 0.5}])
def test_local_and_partial_modes_read_every_image_once(
    start: Callable[..., Job], mode: dict[str, object]
) -> None:
    for hosts, group_nodes in layouts():
        if group_nodes == 1:
            continue
        job = start(hosts, group_nodes=group_nodes, batch_per_rank=60 // (4 * WORLD.size), **mode)
        for epoch in (0, 1):
            mine = job.epoch(epoch)
            batches, _ = all_steps(mine)
            seen = [i for batch in batches for i in batch]
            assert (
                len(seen)
                == len(set(seen))
                == job.loader.steps_per_epoch * WORLD.size * job.settings.batch_per_rank
            )
            assert len(seen) > 0.7 * COUNT
            foreign = sum(WORLD.allgather(sum(i not in job.store.part for steps, _ in mine for i in steps)))
            assert foreign == 0 if mode["reshuffle"] == "local" else 0 < foreign < 0.7 * COUNT


def test_memory_of_arrivals_is_bounded(start: Callable[..., Job]) -> None:
    if WORLD.size == 1:
        pytest.skip("one node receives nothing")
    job = start(apart(), group_nodes=WORLD.size, exchange_window=0.01)
    assert job.windows is not None
    room, most = job.windows._room, 0
    for _ in job.loader.epoch(0):
        held = [window.bytes for window in tuple(job.windows._held)]
        most = max(most, sum(held))
        assert sum(held) <= room or len([b for b in held if b]) == 1
    assert most > 0


def test_evaluation_counts_each_image_once(start: Callable[..., Job]) -> None:
    for hosts, group_nodes in layouts():
        job = start(hosts, group_nodes=group_nodes)
        mine = [i for batch in job.eval_loader for i in batch.indices.tolist()]
        assert all(i in job.val_store.part for i in mine)
        assert sorted(i for part in WORLD.allgather(mine) for i in part) == list(range(COUNT))


def test_what_arrives_damaged_is_named_by_all_ranks_of_the_group(
    root: Path, start: Callable[..., Job]
) -> None:
    """The memory of the last node goes bad after it was loaded."""
    job = start(apart(), group_nodes=WORLD.size)
    if WORLD.size == 1:
        return
    last = WORLD.size - 1
    if WORLD.rank == last:
        for memory in job.store.padded(np.array(job.store.part)):
            memory[5] ^= 1
    WORLD.Barrier()
    sender = rf"rank {last} \(node {last}\)"
    with pytest.raises(DataError, match=rf"image \d+ of the shard .*received it from {sender}") as caught:
        job.epoch(0)
    assert len(set(WORLD.allgather(str(caught.value)))) == 1


def test_images_of_other_nodes_can_be_had_from_the_disk(root: Path, start: Callable[..., Job]) -> None:
    """A bad image is replaced by the next one of the pack, which another node may hold."""
    job = start(apart(), group_nodes=WORLD.size)
    expected = [path.read_bytes() for path in sorted((root / "src").glob("*/*"))]
    assert [bytes(blob) for blob in job.store.blobs(np.arange(COUNT))] == expected


@pytest.mark.ranks(at_least=2)
def test_a_replacement_whose_shard_has_gone_is_named(
    root: Path, start: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No decoder takes the last image of the part; the next one is on another node, and on no disk."""
    bad = (root / "src").glob("*/*")
    job = start(apart(), group_nodes=WORLD.size, on_bad_image="skip")
    last = job.store.part.stop - 1
    wanted = sorted(bad)[last].read_bytes()

    class Picky(TurboJpegEngine):
        def decode_batch(
            self, blobs: Sequence[memoryview], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
        ) -> None:
            if bytes(blobs[0]) == wanted:
                raise DecodeError(0, "not to its taste")
            super().decode_batch(blobs, crops, flips, out)

    replaced = Assembler(job.store, Picky(), "skip", replace=True)
    image, out = np.array([last]), np.zeros((1, 8, 8, 3), np.uint8)

    def crops(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(np.array([0, 0, 8, 8], np.int32), (len(indices), 1)), np.zeros(len(indices), bool)

    assert replaced.fill(image, crops(image), crops, out).tolist() == [(last + 1) % COUNT]
    monkeypatch.setattr(job.store, "path", root / "gone")
    text = r"gone/shard-\d+.bin: an image in it must replace one .*: No such file or directory; keep the pack"
    with pytest.raises(DataError, match=text):
        replaced.fill(image, crops(image), crops, out)


def test_a_bad_image_is_replaced_the_same_on_any_number_of_nodes(
    root: Path, start: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rank cannot decode images 7 and 8, wherever they are; image 9 takes their places."""
    bad = [path.read_bytes() for path in sorted((root / "src").glob("*/*"))[7:9]]

    class Picky(TurboJpegEngine):
        def decode_batch(
            self, blobs: Sequence[memoryview], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
        ) -> None:
            for position, blob in enumerate(blobs):
                if bytes(blob) in bad:
                    raise DecodeError(position, "not to its taste")
            super().decode_batch(blobs, crops, flips, out)

    monkeypatch.setattr(f"{__name__}.create", lambda name: Picky())
    job = start(apart(), group_nodes=WORLD.size, on_bad_image="skip")
    batches, _ = all_steps(job.epoch(0))
    count = len(batches) * 2 * WORLD.size
    wanted = EpochOrder(4, 0, COUNT).indices(np.arange(count)).tolist()
    assert [i for batch in batches for i in batch] == [{7: 9, 8: 9}.get(i, i) for i in wanted]
