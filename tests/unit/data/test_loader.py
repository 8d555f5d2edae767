"""Batches: the order's images, the same for any ranks and threads; bad images; clean ends."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from data_trees import write_tree

from distrain.bench.packs import write_noise
from distrain.data.assemble import Assembler
from distrain.data.decode.engine import DecodeEngine
from distrain.data.decode.engines import create
from distrain.data.format import Manifest
from distrain.data.ingest.convert import Packed, convert
from distrain.data.loader import Batch, EvalLoader, TrainLoader
from distrain.data.order import EpochOrder
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import ConfigError, DataError

ENGINE = create("turbojpeg")


def settings(**options: object) -> DataSettings:
    chosen = {"batch_per_rank": 4, "eval_batch_per_rank": 4, "image_size": 16, "threads": 2} | options
    return DataSettings(train="-", val="-", **chosen)


@pytest.fixture()
def store(packed: tuple[Path, Manifest]) -> Store:
    return Store.open(packed[0], settings())


def copied(batches: object) -> list[tuple[np.ndarray, list[int], list[int]]]:
    return [(b.images.numpy().copy(), b.labels.tolist(), b.indices.tolist()) for b in batches]  # type: ignore[attr-defined]


def test_batches_are_those_of_the_order(store: Store) -> None:
    loader = TrainLoader(store, settings(), ENGINE, 0, 1, seed=5)
    assert loader.steps_per_epoch == 10
    order = EpochOrder(5, 2, 41).indices(np.arange(40))
    batches = list(loader.epoch(2))
    assert [i for b in batches for i in b.indices.tolist()] == order.tolist()
    for batch in batches:
        assert isinstance(batch, Batch)
        assert batch.images.shape == (4, 16, 16, 3) and batch.images.dtype == torch.uint8
        assert batch.labels.dtype == batch.indices.dtype == torch.int64
        assert batch.labels.tolist() == store.records["label"][batch.indices.numpy()].tolist()
    assert loader.wait_seconds > 0 and not loader.bad_images
    loader.close()


@pytest.mark.parametrize(("ranks", "threads"), [(1, 1), (2, 3), (4, 1)])
def test_the_same_pixels_for_any_ranks_and_threads(store: Store, ranks: int, threads: int) -> None:
    alone = TrainLoader(store, settings(batch_per_rank=8), ENGINE, 0, 1, seed=1)
    expected = copied(alone.epoch(0))
    loaders = [
        TrainLoader(store, settings(batch_per_rank=8 // ranks, threads=threads), ENGINE, r, ranks, seed=1)
        for r in range(ranks)
    ]
    for step, parts in enumerate(zip(*(loader.epoch(0) for loader in loaders), strict=True)):
        assert np.array_equal(np.concatenate([p.images.numpy() for p in parts]), expected[step][0])
        assert [i for p in parts for i in p.indices.tolist()] == expected[step][2]
    for loader in [alone, *loaders]:
        loader.close()


def test_resume_at_any_step_gives_the_rest_of_the_epoch(store: Store) -> None:
    loader = TrainLoader(store, settings(), ENGINE, 0, 1, seed=1)
    whole = copied(loader.epoch(3))
    for start in (0, 1, 7, 9, 10):
        other = TrainLoader(store, settings(), ENGINE, 0, 1, seed=1)
        rest = copied(other.epoch(3, start))
        other.close()
        assert len(rest) == 10 - start
        for (a, _, i), (b, _, j) in zip(rest, whole[start:], strict=True):
            assert i == j and np.array_equal(a, b)
    loader.close()


@pytest.mark.parametrize("start", [0, 1250, 2498])
def test_a_resume_works_out_no_more_than_a_block_or_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    """10,000 images: wherever an epoch is entered, at most two blocks of a fixed size are drawn."""
    write_noise(tmp_path / "pack", 10_000, 64, 10_000)
    big = Store.open(tmp_path / "pack", settings())
    asked: list[int] = []
    indices = EpochOrder.indices

    def noted(self: EpochOrder, positions: np.ndarray) -> np.ndarray:
        asked.append(len(positions))
        return indices(self, positions)

    class Blind:
        name = "blind"

        def decode_batch(self, *arguments: object) -> None:
            """Leave the pixels as they are."""

    monkeypatch.setattr(EpochOrder, "indices", noted)
    loader = TrainLoader(big, settings(queue_batches=3), Blind(), 0, 1, seed=1)
    batch = next(loader.epoch(7, start))
    loader.close()
    assert batch.indices.tolist() == indices(EpochOrder(1, 7, 10_000), 4 * start + np.arange(4)).tolist()
    assert 4 <= sum(asked) <= 2 * 1024


def test_epochs_follow_each_other_and_may_be_left_early(store: Store) -> None:
    loader = TrainLoader(store, settings(queue_batches=5), ENGINE, 0, 1, seed=1)
    first = copied(loader.epoch(0))
    for _, batch in zip(range(3), loader.epoch(1), strict=False):
        assert len(batch.indices) == 4
    again = copied(loader.epoch(0))
    follow = copied(loader.epoch(1))
    assert [i for _, _, i in first] == [i for _, _, i in again]
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert [i for _, _, i in follow] != [i for _, _, i in first]
    loader.close()


def test_nothing_is_decoded_past_the_end_of_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    fill = Assembler.fill

    def noted(self: Assembler, indices: np.ndarray, *arguments: object) -> np.ndarray:
        decoded.extend(indices.tolist())
        return fill(self, indices, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Assembler, "fill", noted)
    loader = TrainLoader(store, settings(queue_batches=3), ENGINE, 0, 1, seed=1)
    seen = [i for epoch in (0, 1) for b in loader.epoch(epoch, total=17) for i in b.indices.tolist()]
    loader.close()
    assert sorted(decoded) == sorted(seen) and len(seen) == 17 * 4


def test_wrap_fills_the_last_batch_from_the_start(store: Store) -> None:
    loader = TrainLoader(store, settings(last_batch="wrap"), ENGINE, 0, 1, seed=1)
    seen = [i for b in loader.epoch(0) for i in b.indices.tolist()]
    assert loader.steps_per_epoch == 11 and len(seen) == 44
    assert set(seen) == set(range(41)) and seen[41:] == seen[:3]
    loader.close()


def test_fewer_images_than_a_global_batch(store: Store) -> None:
    with pytest.raises(ConfigError, match="has 41 images, fewer than one global batch of 42"):
        TrainLoader(store, settings(batch_per_rank=21), ENGINE, 0, 2, seed=0)


@pytest.mark.parametrize("count", [1, 3])
def test_one_image_a_class_and_one_image_in_all(tmp_path: Path, count: int) -> None:
    write_tree(tmp_path / "src", {f"c{i}": 1 for i in range(count)})
    pack(f"imagefolder:{tmp_path}/src", tmp_path / "out")
    few = Store.open(tmp_path / "out", settings())
    loader = TrainLoader(few, settings(batch_per_rank=1), ENGINE, 0, 1, seed=3)
    held_out = EvalLoader(few, settings(), ENGINE, 0, 1)
    for epoch in range(3):
        seen = [(i, label) for b in loader.epoch(epoch) for i, label in zip(b.indices, b.labels, strict=True)]
        assert sorted((int(i), int(label)) for i, label in seen) == [(i, i) for i in range(count)]
    assert [i for b in held_out for i in b.indices.tolist()] == list(range(count))
    loader.close()
    held_out.close()


def test_a_batch_that_is_held_is_not_written_again(store: Store) -> None:
    """A view of the pixels is enough to keep their memory; memory that nobody holds is used again."""
    loader = TrainLoader(store, settings(), ENGINE, 0, 1, seed=1)
    held, expected = [], []
    for batch in loader.epoch(0):
        expected.append(batch.images.numpy().copy())
        held.append(batch.images.permute(0, 3, 1, 2)[:, 1])
        del batch
    for view, pixels in zip(held, expected, strict=True):
        assert np.array_equal(view.numpy(), pixels[..., 1])
    del held, view
    addresses = [batch.images.data_ptr() for epoch in range(5) for batch in loader.epoch(epoch)]
    assert len(addresses) == 50 and len(set(addresses)) <= 10 + 3 + 2
    loader.close()


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 50])
def test_evaluation_counts_each_image_once(store: Store, ranks: int) -> None:
    seen: list[int] = []
    pixels = {}
    for rank in range(ranks):
        loader = EvalLoader(store, settings(), ENGINE, rank, ranks)
        batches = copied(loader)
        assert len(batches) == len(loader) and sum(len(i) for _, _, i in batches) == loader.count
        assert [i for _, _, i in copied(loader)] == [i for _, _, i in batches]  # a second time
        seen += [i for _, _, indices in batches for i in indices]
        pixels |= {
            i: image for images, _, indices in batches for i, image in zip(indices, images, strict=True)
        }
        loader.close()
    assert seen == list(range(41))
    one = EvalLoader(store, settings(eval_batch_per_rank=41), ENGINE, 0, 1)
    (images, labels, _) = copied(one)[0]
    one.close()
    assert labels == store.records["label"].tolist()
    assert all(np.array_equal(pixels[i], images[i]) for i in range(41))


@pytest.fixture(params=["turbojpeg", "auto"])
def engine(request: pytest.FixtureRequest) -> DecodeEngine:
    """The fallback, and what is best here: the rules for bad images hold with both."""
    return create(request.param)


BAD = (3, 4, 40)  # neighbours, and the last of the pack


@pytest.fixture()
def spoilt(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A pack whose checksums are right and of which three images do not decode."""
    number = iter(range(41))

    def spoil(data: bytes, options: object) -> Packed:
        packed = convert(data, options)  # type: ignore[arg-type]
        cut = packed.data[:200] + b"\xff\xd9" if next(number) in BAD else packed.data
        return Packed(cut, packed.width, packed.height)

    monkeypatch.setattr("distrain.data.ingest.shard_writer.convert", spoil)
    pack(f"imagefolder:{tree}", tmp_path / "spoilt")
    return Store.open(tmp_path / "spoilt", settings())


def test_fail_names_image_and_shard(engine: DecodeEngine, spoilt: Store) -> None:
    loader = EvalLoader(spoilt, settings(), engine, 0, 1)
    where = r"spoilt/shard-00000.bin, image 3 of the shard \(index 3\): it cannot be decoded: "
    with pytest.raises(DataError, match=where + ".*data.on_bad_image=skip"):
        list(loader)
    loader.close()
    train = TrainLoader(spoilt, settings(), engine, 0, 1, seed=0)
    with pytest.raises(DataError, match=r"image (3|4|40) of the shard"):
        list(train.epoch(0))
    train.close()


@pytest.mark.parametrize("ranks", [1, 2])
def test_skip_in_training_keeps_the_batch_size(engine: DecodeEngine, spoilt: Store, ranks: int) -> None:
    options = settings(on_bad_image="skip", last_batch="wrap", batch_per_rank=4 // ranks)
    order = EpochOrder(0, 0, 41).indices(np.arange(44) % 41)
    expected = [{3: 5, 4: 5, 40: 0}.get(i, i) for i in order.tolist()]
    loaders = [TrainLoader(spoilt, options, engine, r, ranks, seed=0) for r in range(ranks)]
    got = []
    for parts in zip(*(loader.epoch(0) for loader in loaders), strict=True):
        assert all(part.images.shape == (4 // ranks, 16, 16, 3) for part in parts)
        got += [i for part in parts for i in part.indices.tolist()]
    assert got == expected
    assert set().union(*(loader.bad_images for loader in loaders)) == set(BAD)
    for loader in loaders:
        loader.close()


@pytest.mark.parametrize(("batch", "piece"), [(41, 32), (4, 32), (41, 2), (1, 32)])
def test_skip_in_evaluation_leaves_the_image_out(
    engine: DecodeEngine, spoilt: Store, monkeypatch: pytest.MonkeyPatch, batch: int, piece: int
) -> None:
    monkeypatch.setattr("distrain.data.pipeline._SMALLEST", 1)
    monkeypatch.setattr("distrain.data.pipeline._LARGEST", piece)
    good = [i for i in range(41) if i not in BAD]
    loader = EvalLoader(spoilt, settings(on_bad_image="skip", eval_batch_per_rank=batch), engine, 0, 1)
    reference = EvalLoader(spoilt, settings(on_bad_image="skip", eval_batch_per_rank=1), engine, 0, 1)
    found = copied(loader)
    assert [i for _, _, indices in found for i in indices] == good
    assert len(loader.bad_images) == 3
    images = np.concatenate([images for images, _, _ in found])
    assert np.array_equal(images, np.concatenate([images for images, _, _ in copied(reference)]))
    for one in (loader, reference):
        one.close()


def test_nothing_decodes(engine: DecodeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "src", {"ape": 3})
    monkeypatch.setattr(
        "distrain.data.ingest.shard_writer.convert", lambda data, options: Packed(b"junk", 9, 9)
    )
    pack(f"imagefolder:{root}", tmp_path / "out")
    store = Store.open(tmp_path / "out", settings())
    options = settings(on_bad_image="skip", batch_per_rank=2)
    train = TrainLoader(store, options, engine, 0, 1, seed=0)
    with pytest.raises(DataError, match="none of its images decodes"):
        next(train.epoch(0))
    held_out = EvalLoader(store, options, engine, 0, 1)
    assert list(held_out) == [] and len(held_out.bad_images) == 3
    train.close()
    held_out.close()


def test_no_thread_outlives_its_loader(store: Store) -> None:
    before = set(threading.enumerate())
    loader = TrainLoader(store, settings(threads=3), ENGINE, 0, 1, seed=1)
    next(loader.epoch(0))
    assert {t.name.rpartition("_")[0] for t in set(threading.enumerate()) - before} == {"distrain-decode"}
    loader.close()
    assert set(threading.enumerate()) == before
    store.close()


def test_raw_packs_load_like_jpeg_packs(tmp_path: Path, tree: Path, store: Store) -> None:
    from distrain.data.ingest.convert import PackOptions

    pack(f"imagefolder:{tree}", tmp_path / "raw", PackOptions(encoding="raw"))
    raw_store = Store.open(tmp_path / "raw", settings())
    jpegs = TrainLoader(store, settings(), ENGINE, 0, 1, seed=1)
    raws = TrainLoader(raw_store, settings(), create("auto", raw_store.encoding), 0, 1, seed=1)
    for a, b in zip(jpegs.epoch(0), raws.epoch(0), strict=True):
        assert a.indices.tolist() == b.indices.tolist()
        assert (a.images.int() - b.images.int()).abs().max() <= 2
    jpegs.close()
    raws.close()


@pytest.mark.parametrize("asked_for", [True, None], ids=["asked for", "by default with CUDA"])
def test_pinned_batches(store: Store, monkeypatch: pytest.MonkeyPatch, asked_for: bool | None) -> None:
    """Ordinary memory stands in for pinned: what is asked of torch, and that nothing held is written to."""
    plain = TrainLoader(store, settings(), ENGINE, 0, 1, seed=1, pinned=False)
    expected = copied(plain.epoch(0))
    plain.close()
    asked: list[tuple[tuple[int, ...], bool]] = []
    empty = torch.empty

    def stand_in(shape: tuple[int, ...], dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        asked.append((shape, pin_memory))
        return empty(shape, dtype=dtype)

    monkeypatch.setattr(torch, "empty", stand_in)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    loader = TrainLoader(store, settings(), ENGINE, 0, 1, seed=1, pinned=asked_for)
    held = list(loader.epoch(0))
    loader.close()
    assert asked == [((4, 16, 16, 3), True)] * (10 + settings().queue_batches)
    for batch, (images, labels, indices) in zip(held, expected, strict=True):
        assert np.array_equal(batch.images.numpy(), images)
        assert (batch.labels.tolist(), batch.indices.tolist()) == (labels, indices)
