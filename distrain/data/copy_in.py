"""A file's bytes into memory, checked piece by piece while they are still in the cache of the core."""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distrain.data.blobs import address_of
from distrain.data.checksum.native import KERNELS, NO_CHECKSUM, Library, Progress, library
from distrain.errors import DataError

_READ_BYTES = 4 << 20  # of one read where zlib checks: few calls of Python
# What csrc/calls.c returns.
_DONE, _ENDS_EARLY, _CANNOT_READ, _CANNOT_WRITE = range(4)


@dataclass(frozen=True)
class Target:
    """Memory to be filled.

    Memory that is a file is written as one: measured at 1.4 times the rate of touching fresh pages.

    Attributes:
        memory: contiguous.
        handle: file descriptor of it; -1: it is no file.
        at: where ``memory`` begins in that file.
    """

    memory: memoryview
    handle: int = -1
    at: int = 0


def copy_in(path: Path, offset: int, target: Target, check: bool = True) -> int:
    """Fill memory with what a file holds from ``offset`` on; return the CRC-32 of it.

    Args:
        path: of the file.
        offset: in it.
        target: where the bytes go.
        check: False: no checksum is computed, and 0 is returned.

    Raises:
        DataError: the file ends early or cannot be read, or the memory cannot be had.
    """
    native = library()
    try:
        with path.open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            if native is not None and len(target.memory):
                return _by_native(native, path, file.fileno(), offset, target, check)
            return _by_python(path, file.fileno(), offset, target, check)
    except OSError as error:
        raise DataError(str(path), f"it cannot be read: {error.strerror}", "copy it again") from None


def _by_native(native: Library, path: Path, source: int, offset: int, target: Target, check: bool) -> int:
    progress = Progress()
    address = address_of(np.frombuffer(target.memory, np.uint8))
    status = native.transfer(
        KERNELS["best"] if check else NO_CHECKSUM,
        *(source, offset, address, target.handle, target.at, len(target.memory), progress.address()),
    )
    left = len(target.memory) - progress.done
    if status == _ENDS_EARLY:
        raise _ends_early(path, left)
    if status == _CANNOT_READ:
        raise OSError(progress.error, os.strerror(progress.error))
    if status != _DONE:
        raise _no_memory(left, progress.error if status == _CANNOT_WRITE else errno.ENOMEM)
    return progress.crc


def _by_python(path: Path, source: int, offset: int, target: Target, check: bool) -> int:
    crc = done = 0
    memory = target.memory
    between = memoryview(bytearray(min(_READ_BYTES, len(memory)))) if target.handle >= 0 else None
    while done < len(memory):
        wanted = min(_READ_BYTES, len(memory) - done)
        part = memory[done : done + wanted] if between is None else between[:wanted]
        got = os.preadv(source, [part], offset + done)
        if not got:
            raise _ends_early(path, len(memory) - done)
        if check:
            crc = zlib.crc32(part[:got], crc)
        if between is not None:
            _write(target.handle, part[:got], target.at + done)
        done += got
    return crc


def _write(handle: int, data: memoryview, at: int) -> None:
    while data:
        try:
            written = os.pwrite(handle, data, at)
        except OSError as error:
            raise _no_memory(len(data), error.errno) from None
        data, at = data[written:], at + written


def _ends_early(path: Path, left: int) -> DataError:
    return DataError(str(path), f"it ends {left} bytes early", "copy it again")


def _no_memory(left: int, error: int | None) -> DataError:
    return DataError(
        "memory of the node",
        f"{left} bytes more cannot be had: {os.strerror(error or errno.ENOMEM)}",
        "set data.memory=disk, or use nodes with more memory",
    )
