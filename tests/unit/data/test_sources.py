"""WebDataset shards and parquet files give the same pack as the folders that they were made of."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from data_trees import jpeg, multi_shard, picture

from distrain.data.ingest.source_tar import expand
from distrain.data.ingest.sources import list_source
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import DataError, UsageError

IMAGES = [jpeg(picture(number, 40 + number % 5, 30)) for number in range(12)]
NAMES = ("ape", "bee", "cat")


def contents(out: Path) -> list[tuple[str, bytes]]:
    store = Store.open(out, DataSettings(train="-", val="-"))
    return [(store.classes[store.records["label"][i]], bytes(store.blob(i))) for i in range(store.count)]


def write_tar(path: Path, entries: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_webdataset(root: Path, kind: str) -> None:
    for shard in range(3):
        entries = []
        for number in range(shard * 4, shard * 4 + 4):
            label = number % 11
            text = str(label).encode() if kind == "cls" else json.dumps({"label": label, "width": 4}).encode()
            sample = [(f"a/{number:04d}.jpg", IMAGES[number]), (f"a/{number:04d}.{kind}", text)]
            entries += sample if number % 2 else sample[::-1]
            entries.append((f"a/{number:04d}.txt", b"a caption"))
        write_tar(root / f"train-{shard:03d}.tar", entries)


@pytest.mark.parametrize(
    ("kind", "pattern", "workers"),
    [("cls", "train-*.tar", 2), ("cls", "train-{000..002}.tar", 1), ("json", "train-*.tar", 1)],
)
def test_webdataset(
    tmp_path: Path, kind: str, pattern: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    multi_shard(monkeypatch)
    write_webdataset(tmp_path / "wds", kind)
    manifest = pack(f"webdataset:{tmp_path}/wds/{pattern}", tmp_path / "out", workers=workers)
    assert manifest.classes == tuple(map(str, range(11))) and manifest.class_counts == (2, *[1] * 10)
    assert contents(tmp_path / "out") == [(str(i % 11), IMAGES[i]) for i in range(12)]


def test_webdataset_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file has such a name"):
        list_source(f"webdataset:{tmp_path}/*.tar")
    write_tar(tmp_path / "a-0.tar", [("1.jpg", IMAGES[0])])
    with pytest.raises(DataError, match=r"a-0.tar: a-0.tar/1.jpg has no class beside it"):
        list_source(f"webdataset:{tmp_path}/a-0.tar")
    with pytest.raises(DataError, match=r"a-1.tar: this file does not exist"):
        list_source(f"webdataset:{tmp_path}/a-{{0..1}}.tar")
    write_tar(tmp_path / "b.tar", [("1.txt", b"text")])
    with pytest.raises(DataError, match="there is no image in these files"):
        list_source(f"webdataset:{tmp_path}/b.tar")
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataError, match="it is no plain tar file"):
        list_source(f"webdataset:{tmp_path}/c.tar.gz")
    write_tar(
        tmp_path / "d.tar", [("1.cls", b"0"), ("1.jpg", IMAGES[0]), ("2.cls", b"0"), ("2.jpg", IMAGES[1])]
    )
    listing = list_source(f"webdataset:{tmp_path}/d.tar")
    assert [image.label for image in listing.images] == [0, 0]


def test_a_tar_that_shrinks_and_one_that_vanishes_between_listing_and_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_webdataset(tmp_path, "cls")
    listing = list_source(f"webdataset:{tmp_path}/*.tar")
    monkeypatch.setattr("distrain.data.pack.list_source", lambda source: listing)
    first = listing.images[2]
    (tmp_path / "train-000.tar").write_bytes((tmp_path / "train-000.tar").read_bytes()[: first.place + 5])
    (tmp_path / "train-001.tar").unlink()
    manifest = pack("webdataset:x", tmp_path / "out")
    reasons = {skip.source: skip.reason for skip in manifest.skipped}
    assert reasons["train-000.tar/a/0002.jpg"] == "truncated: the tar file ends before it does"
    assert reasons["train-001.tar/a/0005.jpg"] == "the file has vanished"
    assert manifest.count == 6 and len(manifest.skipped) == 6


def test_patterns(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        (tmp_path / f"s-{number:02d}.tar").touch()
    assert [p.name for p in expand(f"{tmp_path}/s-{{08..10}}.tar")] == ["s-08.tar", "s-09.tar", "s-10.tar"]
    assert [p.name for p in expand(f"{tmp_path}/*")] == ["s-08.tar", "s-09.tar", "s-10.tar"]


def write_parquet(path: Path, first: int, count: int, named: bool, struct: bool = True) -> None:
    pa = pytest.importorskip("pyarrow", reason="the optional dependency 'parquet' is not installed")
    import pyarrow.parquet as pq

    numbers = range(first, first + count)
    values = [{"bytes": IMAGES[i], "path": f"{i}.jpg"} if struct else IMAGES[i] for i in numbers]
    table = pa.table({"image": values, "label": [i % 3 for i in numbers]})
    if named:
        features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)


@pytest.mark.parametrize(("named", "struct"), [(True, True), (False, True), (False, False)])
def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool, struct: bool) -> None:
    multi_shard(monkeypatch)
    write_parquet(tmp_path / "hf/train-0.parquet", 0, 7, named, struct)
    write_parquet(tmp_path / "hf/train-1.parquet", 7, 5, named, struct)
    manifest = pack(f"parquet:{tmp_path}/hf/*.parquet", tmp_path / "out")
    names = NAMES if named else ("0", "1", "2")
    assert manifest.classes == names and len(manifest.shards) > 2
    assert contents(tmp_path / "out") == [(names[i % 3], IMAGES[i]) for i in range(12)]


def test_parquet_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow", reason="the optional dependency 'parquet' is not installed")
    import pyarrow.parquet as pq

    (tmp_path / "a.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"a.parquet: it is no parquet file"):
        list_source(f"parquet:{tmp_path}/a.parquet")
    pq.write_table(pa.table({"picture": [b""], "label": [0]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"it has no column 'image', only picture, label"):
        list_source(f"parquet:{tmp_path}/b.parquet")
    pq.write_table(pa.table({"image": [IMAGES[0], None], "label": [0, None]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c.parquet, row 1: label=None is no class"):
        list_source(f"parquet:{tmp_path}/c.parquet")
    pq.write_table(pa.table({"image": [IMAGES[0], None], "label": [0, 1]}), tmp_path / "d.parquet")
    manifest = pack(f"parquet:{tmp_path}/d.parquet", tmp_path / "out")
    assert [(skip.source, skip.reason) for skip in manifest.skipped] == [
        ("d.parquet/1", "the row holds no bytes of an image")
    ]
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'distrain\[parquet\]'"):
        list_source(f"parquet:{tmp_path}/d.parquet")


def test_unknown_sources() -> None:
    with pytest.raises(UsageError, match="did you mean 'webdataset'"):
        list_source("webdatasets:x")
