"""What a data set leaves on a disk: folders that appear whole or not at all, and a disk's errors in words."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distrain.errors import DataError, UsageError
from distrain.files import remove_quietly, sync_folder, temporary_of, to_disk, write_atomic

_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_error(
    path: Path, error: OSError, again: str = "make room and run the same command again"
) -> DataError:
    """Return what an error of the operating system means to somebody who writes ``path``.

    Args:
        path: what could not be written.
        error: why.
        again: what to do where the disk is full.
    """
    if error.errno in _FULL:
        return DataError(str(path), "the disk is full", again)
    problem = f"it cannot be written: {error.strerror or error}"
    return DataError(str(path), problem, "check the folder and its permissions")


def allow_open_files(more: int) -> None:
    """Raise this process's soft limit of open files by so many, as far as the hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
    with suppress(ValueError, OSError):  # the system may have yet another limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def write_file(path: Path, data: bytes) -> None:
    """Write a small file with `distrain.files.write_atomic`; what goes wrong is said in words.

    Raises:
        DataError: the disk is full, or the folder cannot be written; no part of the file stays.
    """
    try:
        write_atomic(path, data)
    except OSError as error:
        raise disk_error(path, error) from None


def check_writable(file: Path) -> None:
    """Find out before long work whether a file can be written; make its folder.

    Raises:
        DataError: the folder cannot be made or written, or the disk is full.
    """
    probe = temporary_of(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as handle:
            handle.write(bytes(1 << 16))  # an empty file can be made on a full disk
            to_disk(handle)
    except OSError as error:
        raise disk_error(file, error) from None
    finally:
        remove_quietly(probe)


def new_folder(out: str | Path) -> Path:
    """Return where a folder may be made that is to be called ``out``: itself, or what a link leads to.

    Raises:
        UsageError: it exists and is not empty, or nothing can get this name by a rename.
    """
    out = Path(out)
    try:
        real = Path(os.path.realpath(out)) if out.is_symlink() else out
        taken = real.exists() and (not real.is_dir() or any(real.iterdir()))
        here = real.exists() and real.samefile(Path.cwd())
        mounted, lost = real.is_mount(), real.is_symlink()
    except OSError as error:
        problem = f"it cannot be looked at: {error.strerror or error}"
        raise UsageError(str(out), problem, "give another folder") from None
    if taken:
        raise UsageError(str(out), "it exists already", "give another folder, or remove this one")
    for wrong, problem in (
        (lost, "it is a link that leads to itself"),
        (here or real.name in ("", ".."), "it is the folder you are in, or has no name"),
        (mounted, "a disk is mounted there, so no folder can get this name"),
    ):
        if wrong:
            raise UsageError(str(out), problem, "give the name of a new folder")
    return real


@contextmanager
def growing(out: Path) -> Iterator[Path]:
    """Give the folder ``OUT.partial`` to fill; call it ``out`` at the end, remove it after an error.

    Raises:
        DataError: the disk is full, the folder cannot be written, or ``OUT.partial`` exists.
    """
    partial = out.with_name(out.name + ".partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        exists = partial.exists()
        if not exists:
            partial.mkdir()
    except OSError as error:
        raise disk_error(partial, error) from None
    if exists:
        raise DataError(
            str(partial), "another process fills it, or was killed", "wait for it, or remove this folder"
        )
    try:
        yield partial
        partial.replace(out)
        sync_folder(out.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise disk_error(out, error) from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
