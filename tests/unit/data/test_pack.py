"""Packing: what is in the pack is what was in the source; kills, full disks and odd sources."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_trees import jpeg, multi_shard, picture, write_tree
from PIL import Image

from distrain.data.format import Manifest, read_manifest
from distrain.data.ingest import shard_writer
from distrain.data.ingest.convert import PackOptions
from distrain.data.ingest.sources import list_source
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import DataError, UsageError

SETTINGS = DataSettings(train="-", val="-")


def contents(out: Path) -> list[tuple[str, bytes]]:
    store = Store.open(out, SETTINGS)
    return [(store.classes[store.records["label"][i]], bytes(store.blob(i))) for i in range(store.count)]


def files(tree: Path) -> list[tuple[str, bytes]]:
    return [(path.parent.name, path.read_bytes()) for path in sorted(tree.glob("*/*"))]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_pack_holds_every_file_in_order(
    tree: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    multi_shard(monkeypatch)
    seen: list[tuple[int, int]] = []
    manifest = pack(
        f"imagefolder:{tree}", tmp_path / "out", workers=workers, progress=lambda *a: seen.append(a)
    )
    assert manifest == read_manifest(tmp_path / "out")
    assert manifest.classes == ("ape", "bee", "cat") and manifest.class_counts == (13, 17, 11)
    assert manifest.count == 41 and len(manifest.shards) > 3 and not manifest.skipped
    assert contents(tmp_path / "out") == files(tree)
    assert seen[0] == (0, 41) and seen[-1] == (41, 41) and len(seen) == len(manifest.shards) + 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        *(shard.file for shard in manifest.shards),
    ]
    assert not (tmp_path / "out.partial").exists()


def test_records_describe_the_images(packed: tuple[Path, Manifest]) -> None:
    store = Store.open(packed[0], SETTINGS)
    sizes = [(40 + i % 5, 30 + i % 3) for i in range(41)]
    assert list(zip(store.records["width"], store.records["height"], strict=True)) == sizes
    assert store.records["label"].tolist() == [0] * 13 + [1] * 17 + [2] * 11
    assert (store.records["offset"] % 64 == 0).all()


def test_bad_files_are_skipped_with_reasons_and_odd_ones_converted(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "src", {"ape": 2, "bee": 2})
    whole = jpeg(picture(9, 100, 100))
    (root / "ape/a-empty.jpg").write_bytes(b"")
    (root / "ape/b-text.jpg").write_text("no image")
    (root / "bee/c-cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "bee/d-gone.jpg").symlink_to(tmp_path / "nowhere")
    (root / "bee/.hidden").write_text("not looked at")
    Image.new("CMYK", (20, 20)).save(root / "bee/e.jpg")
    (root / "only-bad").mkdir()
    (root / "only-bad/x.jpg").write_bytes(b"x")
    manifest = pack(f"imagefolder:{root}", tmp_path / "out")
    told = {skip.source: skip.reason for skip in manifest.skipped}
    assert set(told) == {
        "ape/a-empty.jpg",
        "ape/b-text.jpg",
        "bee/c-cut.jpg",
        "bee/d-gone.jpg",
        "only-bad/x.jpg",
    }
    assert told["ape/a-empty.jpg"] == "zero bytes" and "not an image" in told["ape/b-text.jpg"]
    assert told["bee/c-cut.jpg"].startswith("truncated") and "vanished" in told["bee/d-gone.jpg"]
    assert manifest.converted == {"JPEG CMYK": 1}
    assert manifest.class_counts == (2, 3, 0) and manifest.count == 5
    assert len(contents(tmp_path / "out")) == 5


def test_a_source_file_that_vanishes_after_the_listing_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "src", {"ape": 3})

    def list_and_lose(source: str) -> object:
        listing = list_source(source)
        (root / "ape/001.jpg").unlink()
        return listing

    monkeypatch.setattr("distrain.data.pack.list_source", list_and_lose)
    manifest = pack(f"imagefolder:{root}", tmp_path / "out")
    assert manifest.count == 2
    assert [(s.source, s.reason) for s in manifest.skipped] == [("ape/001.jpg", "the file has vanished")]


def test_a_shard_whose_images_are_all_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multi_shard(monkeypatch, shards=1000)
    root = write_tree(tmp_path / "src", {"ape": 2, "cat": 2})
    (root / "bad").mkdir()
    (root / "bad/x.jpg").write_bytes(b"x" * 5000)
    manifest = pack(f"imagefolder:{root}", tmp_path / "out")
    assert 0 in [shard.count for shard in manifest.shards]
    for memory in ("node", "disk"):
        store = Store.open(tmp_path / "out", DataSettings(train="-", val="-", memory=memory))
        assert [bytes(store.blob(i)) for i in range(4)] == [
            data for name, data in files(root) if name != "bad"
        ]


@pytest.mark.parametrize("count", [1, 3])
def test_one_image_a_class_and_one_image_in_all(tmp_path: Path, count: int) -> None:
    root = write_tree(tmp_path / "src", {f"c{i}": 1 for i in range(count)})
    assert pack(f"imagefolder:{root}", tmp_path / "out").class_counts == (1,) * count
    assert contents(tmp_path / "out") == files(root)


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ("nowhere", UsageError, "is no source"),
        ("imagefoldr:x", UsageError, "did you mean 'imagefolder'"),
        ("imagefolder:nowhere", DataError, "does not exist"),
        ("imagefolder:empty", DataError, "no class folders"),
        ("imagefolder:hollow", DataError, "hollow/bee: this class is empty"),
        ("imagefolder:useless", DataError, "none of its 1 files is a usable image"),
        ("list:nowhere", DataError, "cannot be read"),
        ("list:blank", DataError, "the list is empty"),
        ("list:broken", DataError, "broken:1: 'only-a-path' has no class"),
    ],
)
def test_sources_that_cannot_be_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: type[Exception], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write_tree(Path("hollow"), {"ape": 1, "bee": 0})
    Path("useless/ape").mkdir(parents=True)
    Path("useless/ape/x").write_bytes(b"x")
    Path("blank").write_text("\n")
    Path("broken").write_text("only-a-path\n")
    with pytest.raises(error, match=text):
        pack(source, "out")
    assert not Path("out").exists() and not Path("out.partial").exists()


@pytest.mark.parametrize("parts", [("train", "val"), ("Train", "test"), ("training", "validation", "test")])
def test_parts_of_a_set_are_not_classes(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        write_tree(tmp_path / "set" / part, {"ape": 1, "bee": 2})
    source = f"imagefolder:{tmp_path}/set"
    first = sorted(parts)[0]
    with pytest.raises(UsageError, match=rf"look like parts of a .* from {source}/{first} and .*--force-cla"):
        pack(source, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()
    assert pack(source, tmp_path / "out", force_classes=True).classes == tuple(sorted(parts))


@pytest.mark.parametrize("names", [("train", "bus"), ("test",)])
def test_a_class_may_be_called_train(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_tree(tmp_path / "set" / name, {"below": 1})
    assert pack(f"imagefolder:{tmp_path}/set", tmp_path / "out").classes == tuple(sorted(names))


def test_flat_folders_named_train_and_test_are_classes(tmp_path: Path) -> None:
    write_tree(tmp_path / "set", {"train": 1, "test": 1})
    assert pack(f"imagefolder:{tmp_path}/set", tmp_path / "out").classes == ("test", "train")


def test_list_files(tree: Path, tmp_path: Path) -> None:
    lines = ["# a comment", f"{tree}/ape/000.jpg\t10", f"{tree}/bee/000.jpg 9", "local one.jpg\t10"]
    (tmp_path / "list").write_text("\n".join(lines))
    shutil.copy(tree / "cat/000.jpg", tmp_path / "local one.jpg")
    manifest = pack(f"list:{tmp_path}/list", tmp_path / "out")
    assert manifest.classes == ("9", "10")  # numbers in the order of numbers
    expected = [("10", "ape/000.jpg"), ("9", "bee/000.jpg"), ("10", "cat/000.jpg")]
    assert contents(tmp_path / "out") == [(name, (tree / file).read_bytes()) for name, file in expected]


def test_an_existing_folder_is_not_touched(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("x")
    with pytest.raises(UsageError, match="exists already"):
        pack(f"imagefolder:{tree}", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["precious"]


@pytest.mark.parametrize(
    "options",
    [
        PackOptions(quality=0),
        PackOptions(quality=101),
        PackOptions(short_side=-1),
        PackOptions(encoding="png"),
    ],
)
def test_options_that_make_no_sense(tree: Path, tmp_path: Path, options: PackOptions) -> None:
    with pytest.raises(UsageError):
        pack(f"imagefolder:{tree}", tmp_path / "out", options)


def test_a_full_disk_is_said_and_the_next_try_resumes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multi_shard(monkeypatch)
    write, calls = shard_writer._fill, []

    def fill(file: object, job: shard_writer.ShardJob) -> shard_writer.ShardNote:
        calls.append(job.number)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return write(file, job)  # type: ignore[arg-type]

    monkeypatch.setattr("distrain.data.ingest.shard_writer._fill", fill)
    with pytest.raises(DataError, match=r"shard-00002.bin: the disk is full; .*finished shards are kept"):
        pack(f"imagefolder:{tree}", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "out.partial").glob(".*"))
    with pytest.raises(DataError, match=r"out: there is no pack here"):
        read_manifest(tmp_path / "out")
    calls.clear()
    monkeypatch.setattr(
        "distrain.data.ingest.shard_writer._fill", lambda f, j: (calls.append(j.number), write(f, j))[1]
    )
    manifest = pack(f"imagefolder:{tree}", tmp_path / "out")
    assert calls == list(range(2, len(manifest.shards)))  # the first two were not done again
    assert contents(tmp_path / "out") == files(tree)


def test_a_really_full_disk(tree: Path, tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    images = list_source(f"imagefolder:{tree}").images
    (tmp_path / ".shard-00000.bin.tmp").symlink_to("/dev/full")
    with pytest.raises(DataError, match="the disk is full"):
        shard_writer.write_shard(shard_writer.ShardJob(str(tmp_path), 0, "00" * 16, images, PackOptions()))


def test_resume_refuses_another_source_or_options(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/plan.json").write_text(json.dumps({"pack_id": "00" * 16}))
    with pytest.raises(DataError, match="unfinished pack of another source"):
        pack(f"imagefolder:{tree}", tmp_path / "out")
    (tmp_path / "out.partial/plan.json").rename(tmp_path / "out.partial/thesis.doc")
    with pytest.raises(DataError, match="files that are no unfinished pack"):
        pack(f"imagefolder:{tree}", tmp_path / "out")


KILLED = """
import sys, time
from distrain.data import pack
from distrain.data.ingest import shard_writer
def tell(done, total):
    print(done, flush=True)
    time.sleep(0.1)
if __name__ == "__main__":
    pack._SHARD_BYTES_LEAST, pack._SHARDS_WANTED = 1, 8
    pack.pack(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), progress=tell)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_pack_leaves_no_pack_and_resumes(tree: Path, tmp_path: Path, workers: int) -> None:
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), f"imagefolder:{tree}", str(tmp_path / "out"), str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while int(process.stdout.readline()) == 0:  # until a shard is there
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    deadline = time.monotonic() + 20  # workers of a killed parent end by themselves, then the lock is free
    while True:
        try:
            subprocess.run(command, check=True, capture_output=True)
            break
        except subprocess.CalledProcessError as error:
            assert b"another process is packing" in error.stderr and time.monotonic() < deadline
    assert contents(tmp_path / "out") == files(tree)


def test_two_packs_at_once_are_refused(tree: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out.partial").mkdir()
    handle = os.open(tmp_path / "out.partial", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(DataError, match="another process is packing"):
        pack(f"imagefolder:{tree}", tmp_path / "out")
    os.close(handle)


def test_the_same_source_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    manifests = [pack(f"imagefolder:{tree}", tmp_path / name) for name in ("one", "two")]
    assert manifests[0].pack_id == manifests[1].pack_id
    for shard in manifests[0].shards:
        assert (tmp_path / "one" / shard.file).read_bytes() == (tmp_path / "two" / shard.file).read_bytes()
    other = pack(f"imagefolder:{tree}", tmp_path / "three", PackOptions(short_side=20))
    assert other.pack_id != manifests[0].pack_id
