"""Reading packs: the right bytes, or the right sentence about what is damaged."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_trees import multi_shard, write_tree

from distrain.bench.packs import write_noise
from distrain.data import format as fmt
from distrain.data.blobs import Blobs
from distrain.data.format import HEADER, RECORD, Manifest, read_manifest
from distrain.data.ingest.convert import PackOptions
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import ConfigError, DataError

NODE = DataSettings(train="-", val="-")
DISK = DataSettings(train="-", val="-", memory="disk")
both = pytest.mark.parametrize("settings", [NODE, DISK], ids=["node", "disk"])


@both
def test_blobs_are_the_files_and_read_only(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: DataSettings
) -> None:
    multi_shard(monkeypatch)
    pack(f"imagefolder:{tree}", tmp_path / "out")
    store = Store.open(tmp_path / "out", settings)
    expected = [path.read_bytes() for path in sorted(tree.glob("*/*"))]
    assert store.count == 41 and store.classes == ("ape", "bee", "cat") and store.encoding == "jpeg"
    assert [bytes(store.blob(i)) for i in range(41)] == expected
    some = np.array([40, 0, 17, 17])
    blobs = store.blobs(some)
    assert isinstance(blobs, Blobs)
    assert [bytes(b) for b in blobs] == [bytes(b) for b in blobs[:]] == [expected[i] for i in some]
    places = zip(blobs.addresses.tolist(), blobs.sizes.tolist(), strict=True)
    assert [ctypes.string_at(*place) for place in places] == [expected[i] for i in some]
    assert store.blob(3).readonly and not store.records.flags.writeable
    shard = store.manifest.shards[-1]
    assert f"{shard.file}, image {shard.count - 1} of the shard (index 40)" in store.shard_of(40)
    store.close()


def test_manifest_counts_the_memory_that_the_store_takes(
    packed: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(
        "distrain.node_memory.private", lambda size: (taken.append(size), memoryview(bytearray(size)))[1]
    )
    Store.open(packed[0], NODE)
    assert len(taken) == 2 and sum(taken) == packed[1].bytes_in_memory  # records, images


def test_too_little_memory_is_said_before_loading(
    packed: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = packed[1].bytes_in_memory
    monkeypatch.setattr("distrain.data.memory.free_bytes", lambda: needed - 1)
    monkeypatch.setattr("distrain.data.store.load_pieces", lambda *a: pytest.fail("it loaded"))
    with pytest.raises(ConfigError, match=rf"needs {needed} bytes .* {needed - 1} .*set data.memory=disk"):
        Store.open(packed[0], NODE)


LIMITED = """
import resource, sys
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import DistrainError

pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + (16 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    Store.open(sys.argv[1], DataSettings(train="-", val="-"))
except DistrainError as error:
    sys.exit(f"exit code {error.exit_code}: {error}")
"""


def test_memory_that_the_system_does_not_give(tmp_path: Path) -> None:
    """The process may have 16 MiB more; the pack has 32."""
    write_noise(tmp_path / "pack", 8, 4 << 20, 2)
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "pack")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stderr.startswith("exit code 2: memory of the node: 33554432 bytes")
    assert "cannot be had: Cannot allocate memory; raise the limit of this process" in done.stderr


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def shard_of(out: Path) -> tuple[Path, np.ndarray, int]:
    path = out / "shard-00000.bin"
    raw = path.read_bytes()
    header = np.frombuffer(raw, HEADER, count=1)[0]
    records = np.frombuffer(raw, RECORD, count=int(header["count"]), offset=HEADER.itemsize)
    return path, records, int(header["payload_offset"])


def test_a_flipped_byte_names_shard_and_image(packed: tuple[Path, Manifest]) -> None:
    path, records, start = shard_of(packed[0])
    flip(path, start + int(records["offset"][17]) + 5)
    with pytest.raises(DataError, match=r"shard-00000.bin: checksum=.*1 damaged, the first at position 17;"):
        Store.open(packed[0], NODE)
    store = Store.open(packed[0], DISK)  # reads no pixels before they are needed
    store.blob(16)
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"shard-00000.bin, image 17 of the shard .*its checksum is wrong"
        ):
            store.blob(17)


@both
@pytest.mark.parametrize("at", [20, 40, HEADER.itemsize + 3, HEADER.itemsize + 40 * RECORD.itemsize])
def test_a_flipped_byte_in_the_tables_is_found(
    packed: tuple[Path, Manifest], settings: DataSettings, at: int
) -> None:
    flip(packed[0] / "shard-00000.bin", at)
    with pytest.raises(DataError, match=r"shard-00000.bin: "):
        Store.open(packed[0], settings)


@both
@pytest.mark.parametrize("keep", [0, 30, HEADER.itemsize + 50, -1, -3000])
def test_a_shard_cut_short(packed: tuple[Path, Manifest], settings: DataSettings, keep: int) -> None:
    path = packed[0] / "shard-00000.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"shard-00000.bin: bytes=\d+ .*cut short"):
        Store.open(packed[0], settings)


def test_more_shards_than_files_may_be_open(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapped shard keeps a descriptor; the soft limit is often 1024 and can be raised."""
    multi_shard(monkeypatch, 12)
    pack(f"imagefolder:{tree}", tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    while held[-1] < max(map(int, os.listdir("/proc/self/fd"))) - 1:  # gaps that other tests left
        held.append(os.open("/dev/null", os.O_RDONLY))
    few = (max(held) + 4, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, few)
    try:
        store = Store.open(tmp_path / "out", DISK)
        assert len(store.manifest.shards) > 4 and len(store.blob(40)) > 0
        store.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, few)
        with monkeypatch.context() as patch:
            patch.setattr(resource, "setrlimit", lambda *limit: None)  # as where the hard one is as low
            with pytest.raises(DataError, match=r"open files.*RLIMIT_NOFILE.*data\.memory=node"):
                Store.open(tmp_path / "out", DISK)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)


@both
def test_a_missing_shard(packed: tuple[Path, Manifest], settings: DataSettings) -> None:
    (packed[0] / "shard-00000.bin").unlink()
    with pytest.raises(DataError, match=r"shard-00000.bin: the shard cannot be read: No such file"):
        Store.open(packed[0], settings)


@both
def test_shards_of_two_sets_mixed_up(
    packed: tuple[Path, Manifest], tmp_path: Path, settings: DataSettings
) -> None:
    write_tree(tmp_path / "src", {"ape": 5})
    pack(f"imagefolder:{tmp_path}/src", tmp_path / "other")
    shutil.copy(tmp_path / "other/shard-00000.bin", packed[0])
    with pytest.raises(DataError, match="shards of two data sets are mixed up"):
        Store.open(packed[0], settings)


def test_shards_in_each_others_place(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multi_shard(monkeypatch)
    pack(f"imagefolder:{tree}", tmp_path / "out")
    shutil.copy(tmp_path / "out/shard-00002.bin", tmp_path / "out/shard-00001.bin")
    with pytest.raises(DataError, match="it is shard 2 of its pack, not 1"):
        Store.open(tmp_path / "out", NODE)


def rewrite(out: Path, change: Callable[[np.ndarray, np.ndarray], None]) -> None:
    """Change header or table of the first shard, with checksums that are right."""
    path, records, _ = shard_of(out)
    raw = bytearray(path.read_bytes())
    header, records = np.frombuffer(raw, HEADER, count=1).copy(), records.copy()
    change(header[0:1], records)
    header["head_crc32"] = 0
    header["head_crc32"] = crc = zlib.crc32(header.tobytes() + records.tobytes())
    raw[: HEADER.itemsize + records.nbytes] = header.tobytes() + records.tobytes()
    path.write_bytes(raw)
    text = json.loads((out / "manifest.json").read_text())
    text["shards"][0]["head_crc32"] = crc
    (out / "manifest.json").write_text(json.dumps(text))


@both
@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1])
def test_labels_outside_the_range(packed: tuple[Path, Manifest], settings: DataSettings, label: int) -> None:
    rewrite(packed[0], lambda header, records: records["label"].__setitem__(7, label))
    with pytest.raises(DataError, match=f"image 7 of the shard has label={label}, outside the 3 classes"):
        Store.open(packed[0], settings)


@both
@pytest.mark.parametrize("field", ["offset", "length"])
def test_records_that_point_outside(
    packed: tuple[Path, Manifest], settings: DataSettings, field: str
) -> None:
    most = np.iinfo(RECORD[field]).max
    rewrite(packed[0], lambda header, records: records[field].__setitem__(9, most))
    with pytest.raises(DataError, match="image 9 of the shard lies outside"):
        Store.open(packed[0], settings)


def test_another_format_version(packed: tuple[Path, Manifest]) -> None:
    rewrite(packed[0], lambda header, records: header["version"].__setitem__(0, 2))
    with pytest.raises(DataError, match="version=2 of the format is not 1"):
        Store.open(packed[0], NODE)
    manifest = packed[0] / "manifest.json"
    text = json.loads(manifest.read_text()) | {"version": 9, "colours": ["a key of the future"]}
    manifest.write_text(json.dumps(text))
    with pytest.raises(DataError, match=r"version=9 of the format is not 1.*pack the data set again"):
        read_manifest(packed[0])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Invalid JSON"),
        ("{", "Invalid JSON"),
        ("{}", "format: Field required"),
        ('{"format": "webdataset", "version": 1}', "format='webdataset' is no pack"),
        ('{"format": "distrain-pack", "version": 1}', "pack_id: Field required"),
    ],
)
def test_damaged_manifests(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=problem):
        read_manifest(tmp_path)


def test_totals_that_contradict_each_other(packed: tuple[Path, Manifest]) -> None:
    manifest = packed[0] / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"count": 40}))
    with pytest.raises(DataError, match="count=40, the sum of shards"):
        read_manifest(packed[0])


@both
def test_no_pack_there(tmp_path: Path, settings: DataSettings) -> None:
    with pytest.raises(DataError, match=r"no pack here .*`distrain pack SOURCE OUT`"):
        Store.open(tmp_path / "nowhere", settings)


def test_a_layout_of_bytes_that_never_changes() -> None:
    """The format is what these sizes say: another layout needs another version."""
    assert (fmt.VERSION, HEADER.itemsize, RECORD.itemsize, fmt.MAGIC) == (1, 64, 32, b"DISTRAIN")
    assert [HEADER.fields[n][1] for n in HEADER.names] == [0, 8, 12, 16, 32, 40, 48, 56, 60]  # type: ignore[index, union-attr]
    assert [RECORD.fields[n][1] for n in RECORD.names] == [0, 8, 12, 16, 20, 24, 28]  # type: ignore[index, union-attr]


def test_raw_packs(tree: Path, tmp_path: Path) -> None:
    manifest = pack(f"imagefolder:{tree}", tmp_path / "out", PackOptions(encoding="raw"))
    store = Store.open(tmp_path / "out", NODE)
    assert store.encoding == "raw" and manifest.converted == {"to raw": 41}
    assert [len(store.blob(i)) for i in range(3)] == [8 + 3 * (40 + i) * (30 + i) for i in range(3)]
