"""`data.index: load`: a pack of plain JPEG reads like one that was packed with an index."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_trees import jpeg, multi_shard, picture
from pydantic import ValidationError

from distrain.data.decode.engines import create, native_or_reason
from distrain.data.decode.indexed import index, is_indexed
from distrain.data.format import Manifest
from distrain.data.index_load import indexed_room
from distrain.data.ingest.convert import PackOptions
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import DataError

LOAD = DataSettings(train="-", val="-", index="load")
PLAIN = DataSettings(train="-", val="-")
needs_native = pytest.mark.skipif(isinstance(native_or_reason(), str), reason="no native decoder here")


@needs_native
def test_every_image_is_what_the_packer_would_have_stored(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multi_shard(monkeypatch)
    plain = pack(f"imagefolder:{tree}", tmp_path / "plain")
    pack(f"imagefolder:{tree}", tmp_path / "indexed", PackOptions(index=True))
    assert len(plain.shards) > 2
    loaded, packed = Store.open(tmp_path / "plain", LOAD), Store.open(tmp_path / "indexed", PLAIN)
    everything = np.arange(41)
    for got, want in zip(loaded.blobs(everything), packed.blobs(everything), strict=True):
        assert is_indexed(got) and got == want
    for name in ("length", "label", "width", "height", "crc32"):
        assert np.array_equal(loaded.records[name], packed.records[name])
    assert all(zlib.crc32(loaded.blob(i)) == loaded.records["crc32"][i] for i in range(41))
    for padded, length in zip(loaded.padded(everything), loaded.records["length"], strict=True):
        assert len(padded) % 64 == 0 and not padded[length:].any()
    loaded.close()
    packed.close()


@needs_native
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 17), (200, 90), (90, 200)])
def test_room_suffices(size: tuple[int, int], subsampling: int) -> None:
    data = jpeg(picture(3, *size), subsampling=subsampling)
    record = np.zeros(1, [("length", "<u4"), ("width", "<u4"), ("height", "<u4")])
    record["length"], record["width"], record["height"] = len(data), *size
    found = index(data)
    assert found is not None and len(found) <= indexed_room(record)[0] <= 1.3 * len(data) + 128


@needs_native
def test_what_has_no_index_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "one"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg(picture(1)))
    restarts = jpeg(picture(2), restart_marker_blocks=2)
    (folder / "b.jpg").write_bytes(restarts)
    pack(f"imagefolder:{folder.parent}", tmp_path / "pack")
    store = Store.open(tmp_path / "pack", LOAD)
    assert is_indexed(store.blob(0)) and store.blob(1) == restarts
    out = np.empty((2, 16, 16, 3), np.uint8)
    crops = np.array([[0, 0, 40, 30]] * 2, np.int32)
    create("native", store.encoding).decode_batch(store.blobs(np.arange(2)), crops, np.zeros(2, bool), out)
    assert abs(out[0].astype(int) - out[1]).mean() > 3  # each its own picture
    store.close()


@needs_native
@pytest.mark.parametrize("encoding", ["raw", "yuv420"])
def test_packs_of_pixels_have_none(tree: Path, tmp_path: Path, encoding: str) -> None:
    pack(f"imagefolder:{tree}", tmp_path / "pack", PackOptions(encoding=encoding))
    loaded, plain = Store.open(tmp_path / "pack", LOAD), Store.open(tmp_path / "pack", PLAIN)
    assert all(loaded.blob(i) == plain.blob(i) for i in range(41))
    loaded.close()
    plain.close()


@needs_native
def test_a_damaged_shard_is_an_error(packed: tuple[Path, Manifest]) -> None:
    shard = packed[0] / packed[1].shards[0].file
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=shard.name):
        Store.open(packed[0], LOAD)


@needs_native
def test_memory_is_counted_with_the_index_before_loading(
    packed: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, manifest = packed
    monkeypatch.setattr("distrain.data.memory.free_bytes", lambda: manifest.bytes_in_memory)
    asked: list[int] = []
    monkeypatch.setattr(
        "distrain.data.memory.check_room", lambda where, needed, free: asked.append(needed - free)
    )
    Store.open(path, PLAIN).close()
    store = Store.open(path, LOAD)
    used = int(store.records["offset"][-1] + store.records["length"][-1])
    store.close()
    payload = manifest.shards[0].payload_bytes
    assert asked[0] == 0 and asked[1] >= used  # the images with their index, and a shard that is read
    assert asked[1] <= payload + 0.3 * payload + 128 * manifest.count


def test_without_the_native_decoder_the_images_are_loaded_as_they_are(
    packed: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("distrain.data.index_load.native_or_reason", lambda: "no compiler was found")
    with caplog.at_level(logging.WARNING):
        store = Store.open(packed[0], LOAD)
    assert "data.index=load has no effect" in caplog.text and "no compiler" in caplog.text
    assert not is_indexed(store.blob(0))
    store.close()


@pytest.mark.parametrize("other", [{"memory": "disk"}, {"group_nodes": 2}])
def test_where_it_cannot_be_done_it_is_refused(other: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="pack with --index instead"):
        DataSettings(train="-", val="-", index="load", **other)
