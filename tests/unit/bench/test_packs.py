"""Packs of noise are packs: the store takes them with all its checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distrain.bench.packs import write_noise
from distrain.data.settings import DataSettings
from distrain.data.store import Store


@pytest.mark.parametrize(("count", "image_bytes", "per_shard"), [(7, 4096, 3), (9, 64, 9), (1, 8192, 5)])
def test_a_pack_of_noise_is_a_pack(tmp_path: Path, count: int, image_bytes: int, per_shard: int) -> None:
    manifest = write_noise(tmp_path / "pack", count, image_bytes, per_shard)
    assert len(manifest.shards) == -(-count // per_shard)
    store = Store.open(tmp_path / "pack", DataSettings(train="-", val="-"))
    blobs = [bytes(blob) for blob in store.blobs(np.arange(count))]
    assert [len(blob) for blob in blobs] == [image_bytes] * count
    assert len(set(blobs)) == (count if image_bytes >= 4096 else 1)
    store.close()
