"""Packs of indexed JPEG: the same pixels from every engine as without the index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distrain.data.decode.engines import create, native_or_reason
from distrain.data.decode.indexed import is_indexed, to_jpeg
from distrain.data.ingest.convert import PackOptions
from distrain.data.loader import TrainLoader
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import DataError, UsageError

SETTINGS = DataSettings(train="-", val="-", image_size=16, batch_per_rank=8, threads=1)
needs_native = pytest.mark.skipif(isinstance(native_or_reason(), str), reason="no native decoder here")


def pixels(path: Path, engine: str) -> list[np.ndarray]:
    store = Store.open(path, SETTINGS)
    loader = TrainLoader(store, SETTINGS, create(engine, store.encoding), 0, 1, seed=3)
    found = [batch.images.numpy().copy() for batch in loader.epoch(0)]
    loader.close()
    store.close()
    return found


@needs_native
def test_an_index_changes_no_pixel(tree: Path, tmp_path: Path) -> None:
    plain = pack(f"imagefolder:{tree}", tmp_path / "plain")
    indexed = pack(f"imagefolder:{tree}", tmp_path / "indexed", PackOptions(index=True))
    assert (plain.encoding, indexed.encoding) == ("jpeg", "jpeg-indexed")
    assert indexed.count == plain.count == 41 and not indexed.skipped
    store = Store.open(tmp_path / "indexed", SETTINGS)
    assert all(is_indexed(store.blob(i)) for i in range(41))
    first = to_jpeg(store.blob(0))
    assert first[:2] == b"\xff\xd8" and first[-2:] == b"\xff\xd9"
    store.close()
    for engine in ("native", "turbojpeg"):
        for one, other in zip(
            pixels(tmp_path / "plain", engine), pixels(tmp_path / "indexed", engine), strict=True
        ):
            assert np.array_equal(one, other)


@needs_native
def test_only_jpeg_can_be_indexed(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--index: images of encoding raw have none"):
        pack(f"imagefolder:{tree}", tmp_path / "out", PackOptions(index=True, encoding="raw"))


def test_an_index_needs_the_native_decoder(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distrain.data.pack.native_or_reason", lambda: "no compiler was found")
    with pytest.raises(UsageError, match="made by the native decoder: no compiler was found"):
        pack(f"imagefolder:{tree}", tmp_path / "out", PackOptions(index=True))


def test_an_encoding_of_the_future() -> None:
    with pytest.raises(DataError, match="encoding='jpeg-xl' is not one of jpeg, jpeg-indexed, raw"):
        create("auto", "jpeg-xl")
