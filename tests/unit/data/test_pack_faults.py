"""Packing and the disk: links, full disks, two runs at once, and trees that are whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distrain.data.ingest import pack_lock
from distrain.data.ingest.convert import PackOptions
from distrain.data.ingest.digits import write_digits
from distrain.data.ingest.synthesize import synthesize
from distrain.data.pack import pack
from distrain.errors import DataError, UsageError
from distrain.files import temporary_of


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, at: int = 0) -> None:
    """Let one call of a function say that the disk is full."""
    real, calls = getattr(owner, name), []

    def full(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == at + 1:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, full)


@pytest.mark.parametrize("at", [0, 1])  # of the plan: the file itself, then its folder
def test_a_disk_that_is_full_at_the_start(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patch:
        fail_once(patch, os, "fsync", at)
        with pytest.raises(DataError, match=r"plan.json: the disk is full; make room and run the same"):
            pack(f"imagefolder:{tree}", tmp_path / "out")
    assert not list((tmp_path / "out.partial").glob(".*"))
    temporary_of(tmp_path / "out.partial/plan.json").touch()  # as a kill leaves it
    assert pack(f"imagefolder:{tree}", tmp_path / "out").count == 41
    assert not list((tmp_path / "out").glob(".*")) and not (tmp_path / "out/owner").exists()


def test_a_disk_without_room_for_the_name_of_the_owner(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DataError, match=r"out.partial: the disk is full"):
        pack(f"imagefolder:{tree}", tmp_path / "out")
    assert not list((tmp_path / "out.partial").iterdir())


def test_a_pack_onto_a_link_is_made_where_it_leads(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for link, target in (("a", "empty"), ("b", "new")):
        (tmp_path / link).symlink_to(target)
        assert pack(f"imagefolder:{tree}", tmp_path / link).count == 41
        assert (tmp_path / link).is_symlink() and (tmp_path / target / "manifest.json").is_file()
    with pytest.raises(UsageError, match="a: it exists already"):
        pack(f"imagefolder:{tree}", tmp_path / "a")
    (tmp_path / "c").symlink_to("c")
    with pytest.raises(UsageError, match="c: it "):
        pack(f"imagefolder:{tree}", tmp_path / "c")


def test_folders_that_no_pack_can_have(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out, problem in ((".", "the folder you are in"), ("..", "exists already"), ("x" * 999, "too long")):
        with pytest.raises(UsageError, match=problem):
            pack(f"imagefolder:{tree}", out)
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "mounted")
    with pytest.raises(UsageError, match="mounted: a disk is mounted there"):
        pack(f"imagefolder:{tree}", tmp_path / "mounted")


HOLDER = """
import sys, time
from pathlib import Path
from distrain.data.ingest.pack_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_pack_says_who_works_there(tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out.partial")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(DataError, match=rf"another process is packing into it \(process {holder.pid} on "):
        pack(f"imagefolder:{tree}", tmp_path / "out")
    holder.communicate()
    assert pack(f"imagefolder:{tree}", tmp_path / "out").count == 41


@pytest.mark.parametrize("moment", ["open", "lock"])
def test_a_pack_that_another_run_finishes_meanwhile(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    partial = tmp_path / "out.partial"

    def finish(real: object) -> object:
        def call(*arguments: object) -> object:
            if partial.exists():
                partial.rename(tmp_path / "out")
            return real(*arguments)  # type: ignore[operator]

        return call

    target = (os, "open") if moment == "open" else (pack_lock.fcntl, "flock")
    monkeypatch.setattr(*target, finish(getattr(*target)))
    with pytest.raises(DataError, match=r"out.partial: another process has just finished or removed it"):
        pack(f"imagefolder:{tree}", tmp_path / "out")


def test_a_pack_made_while_the_source_was_listed(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distrain.data.ingest.sources import list_source

    def list_slowly(source: str) -> object:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/manifest.json").touch()
        return list_source(source)

    monkeypatch.setattr("distrain.data.pack.list_source", list_slowly)
    with pytest.raises(UsageError, match="out: it exists already"):
        pack(f"imagefolder:{tree}", tmp_path / "out")


@pytest.mark.parametrize("what", ["digits", "synthesize"])
def test_trees_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def write(out: Path) -> object:
        return write_digits(out) if what == "digits" else synthesize(out, 2, 4)

    with monkeypatch.context() as patch:
        fail_once(patch, Image.Image, "save", 2)
        with pytest.raises(DataError, match="tree: the disk is full; make room"):
            write(tmp_path / "tree")
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="it cannot be written"):
        write(Path("/proc/nothing/tree"))
    (tmp_path / "tree.partial").mkdir()
    with pytest.raises(DataError, match=r"tree.partial: another process fills it, or was killed"):
        write(tmp_path / "tree")
    (tmp_path / "tree.partial").rmdir()
    write(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_seed_below_zero(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--seed: -1 is negative"):
        synthesize(tmp_path / "x", 1, 1, seed=-1)


def gradient(kind: str) -> Image.Image:
    rows, columns = np.mgrid[:64, :64].astype(np.float32)
    grey = rows * 2 + columns
    return Image.fromarray(grey if kind == "float" else grey.astype(np.uint8))


def test_what_cannot_be_packed_replaces_nothing(tmp_path: Path) -> None:
    """Two float pictures and two of 8 bits, all alike: the first that can be packed is kept."""
    pytest.importorskip("imagehash", reason="the optional dependency 'dedup' is not installed")
    (folder := tmp_path / "src/a").mkdir(parents=True)
    for number, kind in enumerate(("float", "eight", "float", "eight")):
        gradient(kind).save(folder / f"{number}.{'tif' if kind == 'float' else 'png'}")
    manifest = pack(f"imagefolder:{tmp_path}/src", tmp_path / "out", PackOptions(dedup="phash:2"))
    assert manifest.count == 1
    assert [(d.source, d.keeper) for d in manifest.duplicates] == [("a/3.png", "a/1.png")]
    assert [skip.source for skip in manifest.skipped] == ["a/0.tif", "a/2.tif"]


def test_a_decoder_that_stumbles_ends_no_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import struct

    from distrain.data.ingest.dedup import hash_images
    from distrain.data.ingest.sources import list_source

    pytest.importorskip("imagehash", reason="the optional dependency 'dedup' is not installed")
    (folder := tmp_path / "src/a").mkdir(parents=True)
    for number in range(4):
        gradient("eight").save(folder / f"{number}.png")
    errors = iter((struct.error("short"), IndexError("range"), MemoryError("much"), None))
    real = Image.open

    def stumble(*arguments: object, **options: object) -> Image.Image:
        error = next(errors)
        if error is not None:
            raise error
        return real(*arguments, **options)  # type: ignore[arg-type]

    images = list_source(f"imagefolder:{tmp_path}/src").images
    monkeypatch.setattr("distrain.data.ingest.dedup.Image.open", stumble)
    hashes = hash_images(images, "phash", 1, lambda done, total: None)
    assert hashes[:3] == [None] * 3 and hashes[3] is not None


def test_a_page_that_cannot_be_written_is_said_before_the_work(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from distrain.cli import app

    pytest.importorskip("imagehash", reason="the optional dependency 'dedup' is not installed")

    def run(out: object) -> BaseException | None:
        words = ["pack", f"imagefolder:{tree}", str(out), "--dedup", "phash:2", "--dry-run", "--workers", "1"]
        return CliRunner().invoke(app, words).exception

    assert run(tmp_path / "new/folder/out") is None and (tmp_path / "new/folder/out.html").is_file()
    monkeypatch.setattr(
        "distrain.data.ingest.dedup.hash_images", lambda *a: pytest.fail("it compared before")
    )
    assert "cannot be written" in str(run("/proc/nothing/out"))
    assert "it has no name" in str(run("."))
    fail_once(monkeypatch, os, "fsync")
    assert "out.html: the disk is full" in str(run(tmp_path / "out"))
    assert not list(tmp_path.glob("*out*"))
