"""A file's bytes into memory: all of them, their checksum, and how it fails, in C and in Python."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distrain.data import copy_in as module
from distrain.data.checksum import native
from distrain.data.copy_in import Target, copy_in
from distrain.errors import DataError

BYTES = 1_500_001  # several pieces of C, and one byte


@pytest.fixture(params=["C", "Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Python":
        monkeypatch.setattr(module, "library", lambda: None)
    elif not native.build_info()[0]:
        pytest.skip(f"checksums: {native.build_info()[1]}")
    return str(request.param)


@pytest.fixture
def data() -> bytes:
    return np.random.default_rng(1).integers(0, 256, BYTES, np.uint8).tobytes()


@pytest.fixture
def file(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "file").write_bytes(b"head" + data)
    return tmp_path / "file"


@pytest.fixture
def shared() -> Iterator[int]:
    handle = os.memfd_create("test")
    yield handle
    os.close(handle)


def test_into_memory(way: str, file: Path, data: bytes) -> None:
    room = bytearray(BYTES + 2)
    assert copy_in(file, 4, Target(memoryview(room)[1:-1])) == zlib.crc32(data)
    assert room == b"\0" + data + b"\0"


def test_into_a_file(way: str, file: Path, data: bytes, shared: int) -> None:
    unused = memoryview(bytearray(BYTES))
    assert copy_in(file, 4, Target(unused, shared, 100)) == zlib.crc32(data)
    assert os.pread(shared, BYTES + 200, 0) == bytes(100) + data


def test_without_a_checksum(way: str, file: Path, data: bytes) -> None:
    room = bytearray(BYTES)
    assert copy_in(file, 4, Target(memoryview(room)), check=False) == 0 and room == data


def test_nothing(way: str, file: Path) -> None:
    assert copy_in(file, 4, Target(memoryview(bytearray()))) == 0


def test_a_file_that_ends_early(way: str, file: Path) -> None:
    with pytest.raises(DataError, match=f"{file}: it ends 3 bytes early"):
        copy_in(file, 7, Target(memoryview(bytearray(BYTES))))


def test_a_file_that_is_not_there(way: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it cannot be read: No such file"):
        copy_in(tmp_path / "nothing", 0, Target(memoryview(bytearray(1))))


def test_a_file_that_cannot_be_read(way: str) -> None:
    with pytest.raises(DataError, match=r"it cannot be read: Input/output error"):
        copy_in(Path("/proc/self/mem"), 0, Target(memoryview(bytearray(1))))  # nothing lies at address 0


def test_memory_that_the_system_does_not_give(way: str, file: Path) -> None:
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(DataError, match=r"memory of the node: \d+ bytes more cannot be had: No space left"),
    ):
        copy_in(file, 4, Target(memoryview(bytearray(BYTES)), full.fileno()))
