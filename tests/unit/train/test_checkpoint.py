from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distrain.files import write_atomic
from distrain.train.checkpoint import listed, newest_valid, save, set_aside, unpack
from distrain.train.errors import CheckpointError


def state(value: float) -> dict[str, object]:
    return {"model": {"w": torch.full((1000,), value)}, "step": int(value)}


def steps(folder: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in listed(folder)]


def test_saves_and_brings_back_the_newest(tmp_path: Path) -> None:
    for step in (5, 10):
        path = save(tmp_path / "new" / "folder", step, state(step), keep=3)
    found = newest_valid(tmp_path / "new" / "folder")
    assert found is not None and found[0] == path
    assert torch.equal(unpack(found[1])["model"]["w"], torch.full((1000,), 10.0))
    assert torch.load(path, weights_only=True)["step"] == 10  # a plain torch file


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 999_999_998, 1_000_000_001):  # the last has one digit more
        save(tmp_path, step, state(step), keep=2)
    assert steps(tmp_path) == [1_000_000_001, 999_999_998]


def test_a_damaged_later_one_does_not_push_out_the_good_ones(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        damaged = save(tmp_path, step, state(step), keep=3)
    damaged.write_bytes(b"cut")
    save(tmp_path, 9, state(9), keep=1)  # not set aside: it stays, and counts for nothing
    assert steps(tmp_path) == [12, 9]
    found = newest_valid(tmp_path)
    assert found is not None and unpack(found[1])["step"] == 9
    set_aside(tmp_path, found[0])
    assert steps(tmp_path) == [9]
    assert (tmp_path / f"{damaged.name}.damaged").read_bytes() == b"cut"
    for step in (10, 11):
        save(tmp_path, step, state(step), keep=2)
    assert steps(tmp_path) == [11, 10]


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "absent") is None
    (tmp_path / "notes.pt").write_text("not a checkpoint")
    assert newest_valid(tmp_path) is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_newest_falls_back_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (5, 10):
        path = save(tmp_path, step, state(step), keep=3)
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes({"cut": payload[:-7], "flip": payload, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        found = newest_valid(tmp_path)
    assert found is not None and unpack(found[1])["step"] == 5
    assert path.name in caplog.text and "checksum is wrong" in caplog.text
    assert path.exists()


def test_one_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (5, 10):
        newest = save(tmp_path, step, state(step), keep=3)
    read_bytes = Path.read_bytes

    def fails(number: int) -> None:
        def read(path: Path) -> bytes:
            if path == newest:
                raise OSError(number, os.strerror(number))
            return read_bytes(path)

        monkeypatch.setattr(Path, "read_bytes", read)

    fails(errno.EIO)
    with pytest.raises(CheckpointError, match=rf"{newest.name}: cannot be read .*Input/output error"):
        newest_valid(tmp_path)
    fails(errno.ENOENT)  # removed since it was listed
    found = newest_valid(tmp_path)
    assert found is not None and unpack(found[1])["step"] == 5


def test_a_write_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    earlier = save(tmp_path, 5, state(5), keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # the file system refuses in mid-write
    try:
        with pytest.raises(
            CheckpointError, match=rf"cannot be written .*{earlier.name}, is whole; free space"
        ):
            save(tmp_path, 10, state(10), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == [earlier.name]


def test_full_disk_at_the_flush_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*there is none before it"):
        save(tmp_path, 10, state(10), keep=1)
    assert os.listdir(tmp_path) == []


def test_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    script = (
        "import os, signal, sys; from pathlib import Path; from distrain.files import write_atomic\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(Path(sys.argv[1]), b'new' * 100000)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2  # what was half written has another name ...
    save(tmp_path, 1, state(1), keep=1)
    assert len(os.listdir(tmp_path)) == 2 and path.exists()  # ... and goes with the next checkpoint


def test_only_data_is_unpickled(tmp_path: Path) -> None:
    class Surprise:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("echo surprise",)

    path = save(tmp_path, 1, {"model": Surprise()}, keep=1)
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        unpack(path.read_bytes())
