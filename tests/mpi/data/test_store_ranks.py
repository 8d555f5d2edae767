"""One copy of a pack for all ranks of a node: the same bytes everywhere, and all raise or none does."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from PIL import Image

from distrain import node_memory
from distrain.data import memory as memory_module
from distrain.data.decode import indexed
from distrain.data.decode.engines import create, native_or_reason
from distrain.data.loader import EvalLoader, TrainLoader
from distrain.data.order import EpochOrder
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import ConfigError, DataError, DistrainError

WORLD = MPI.COMM_WORLD
COUNT = 23


def settings(**options: object) -> DataSettings:
    return DataSettings(train="-", val="-", image_size=8, batch_per_rank=2, threads=1, **options)


def write_pack(root: Path) -> None:
    for number in range(COUNT):
        folder = root / "src" / f"class{number * 3 // COUNT}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20, 30, 3), number * 11, np.uint8)
        pixels[:, : number + 1, 1] = 255
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=95)
        (folder / f"{number:03d}.jpg").write_bytes(out.getvalue())
    pack(f"imagefolder:{root}/src", root / "pack")


@pytest.fixture()
def root(shared_folder: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a pack of several shards, the same on all ranks (they run on one node here)."""
    monkeypatch.setattr("distrain.data.pack._SHARD_BYTES_LEAST", 1)
    monkeypatch.setattr("distrain.data.pack._SHARDS_WANTED", 7)
    with shared_folder(write_pack) as path:
        yield path


def check_contents(store: Store, root: Path) -> None:
    expected = [path.read_bytes() for path in sorted((root / "src").glob("*/*"))]
    assert [bytes(store.blob(i)) for i in range(COUNT)] == expected
    assert store.records["label"].tolist() == [n * 3 // COUNT for n in range(COUNT)]
    assert store.blob(0).readonly and not store.records.flags.writeable


@pytest.mark.parametrize("memory", ["node", "disk"])
def test_every_rank_reads_every_image(root: Path, memory: str) -> None:
    store = Store.open(root / "pack", settings(memory=memory), WORLD)
    check_contents(store, root)
    store.close()


@pytest.mark.skipif(isinstance(native_or_reason(), str), reason="no native decoder here")
def test_the_ranks_make_an_index_together(root: Path) -> None:
    store = Store.open(root / "pack", settings(index="load"), WORLD)
    found = [bytes(store.blob(i)) for i in range(COUNT)]
    expected = [indexed.index(path.read_bytes()) for path in sorted((root / "src").glob("*/*"))]
    assert found == expected and None not in expected
    assert [zlib.crc32(blob) for blob in found] == store.records["crc32"].tolist()
    assert not store.records.flags.writeable
    store.close()


@pytest.mark.skipif(isinstance(native_or_reason(), str), reason="no native decoder here")
def test_damage_found_while_an_index_is_made_is_an_error_of_all_ranks(root: Path) -> None:
    if WORLD.rank == 0:
        shard = root / "pack" / "shard-00003.bin"
        data = bytearray(shard.read_bytes())
        data[-70] ^= 1
        shard.write_bytes(data)
    WORLD.Barrier()
    with pytest.raises(DistrainError, match="shard-00003"):
        Store.open(root / "pack", settings(index="load"), WORLD)


def maps() -> list[list[str]]:
    """The mappings of this process that are anonymous files in memory of distrain."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split() for line in lines if "/memfd:distrain" in line]


def test_there_is_one_copy_and_it_has_no_name(root: Path) -> None:
    """All ranks map the same files in memory; they are deleted from the start, so a kill leaves nothing."""
    before = {line[4] for line in maps()}  # of other tests: the collector may take theirs at any moment
    store = Store.open(root / "pack", settings(), WORLD)
    new = [line for line in maps() if line[4] not in before]
    inodes = WORLD.allgather([line[4] for line in new])
    if WORLD.size > 1:
        assert {tuple(i) for i in inodes} == {tuple(inodes[0])} and len(inodes[0]) == 2  # records, images
        assert all(line[6] == "(deleted)" for line in new)
    store.close()
    WORLD.Barrier()
    assert not {line[4] for line in new} & {line[4] for line in maps()}


def test_a_window_of_mpi_where_files_cannot_be_shared(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_memory, "share_file", lambda comm, size: None)
    store = Store.open(root / "pack", settings(), WORLD)
    check_contents(store, root)
    store.close()


def test_no_room_in_the_shared_memory_file_system(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_memory, "share_file", lambda comm, size: None)
    monkeypatch.setattr(memory_module, "shm_free_bytes", lambda: 100)
    if WORLD.size == 1:
        Store.open(root / "pack", settings(), WORLD).close()  # needs no shared memory
        return
    with pytest.raises(ConfigError, match="/dev/shm: free=100 bytes"):
        Store.open(root / "pack", settings(), WORLD)


def test_ranks_that_cannot_see_each_others_files_agree_on_the_window(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last rank fails to open the file of rank 0."""

    def closed(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    if WORLD.rank == WORLD.size - 1 and WORLD.rank > 0:
        monkeypatch.setattr("distrain.node_memory.os.open", closed)
    shared = node_memory.share(WORLD, 4096)
    monkeypatch.undo()
    assert (shared is None) == (WORLD.size > 1)


@pytest.mark.parametrize("memory", ["node", "disk"])
def test_damage_that_one_rank_meets_is_raised_by_all(root: Path, memory: str) -> None:
    """With node memory each shard is read by one rank only; all ranks name it, nobody hangs."""
    if WORLD.rank == 0:
        path = root / "pack" / "shard-00004.bin"
        data = bytearray(path.read_bytes())
        data[-80 if memory == "node" else 70] ^= 1
        path.write_bytes(data)
    WORLD.Barrier()
    with pytest.raises(DataError, match=r"shard-00004.bin: checksum=") as caught:
        Store.open(root / "pack", settings(memory=memory), WORLD)
    assert len(set(WORLD.allgather(str(caught.value)))) == 1


def test_a_pack_that_one_rank_does_not_see(root: Path) -> None:
    mine = root / ("pack" if WORLD.rank < WORLD.size - 1 else "nowhere")
    with pytest.raises(DataError, match="nowhere: there is no pack here"):
        Store.open(mine, settings(), WORLD)


def test_too_little_memory_on_one_rank(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if WORLD.rank == WORLD.size - 1:
        monkeypatch.setattr(memory_module, "free_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match=r"needs \d+ bytes .* where 1000 "):
        Store.open(root / "pack", settings(), WORLD)


def test_ranks_together_see_the_order_and_evaluate_each_image_once(root: Path) -> None:
    store = Store.open(root / "pack", settings(), WORLD)
    engine = create("turbojpeg")
    train = TrainLoader(store, settings(last_batch="wrap"), engine, WORLD.rank, WORLD.size, seed=9)
    held_out = EvalLoader(store, settings(eval_batch_per_rank=3), engine, WORLD.rank, WORLD.size)
    steps = [batch.indices.tolist() for batch in train.epoch(1)]
    parts = WORLD.allgather([batch.indices.tolist() for batch in held_out])
    everything = WORLD.allgather(steps)
    train.close()
    held_out.close()
    store.close()
    seen = [i for step in zip(*everything, strict=True) for part in step for i in part]
    assert seen == EpochOrder(9, 1, COUNT).indices(np.arange(len(seen)) % COUNT).tolist()
    assert [i for part in parts for batch in part for i in batch] == list(range(COUNT))
