"""The unfinished pack has one owner at a time: two runs that write to it at once would destroy it."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distrain.data.disk import disk_error
from distrain.errors import DataError

log = logging.getLogger("distrain.data")

OWNER = "owner"  # a small text in the folder: who packs into it


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder of the unfinished pack and hold it; its lock goes along when it is renamed.

    Raises:
        DataError: another process holds it (says which), has just finished it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            str(folder), f"it cannot be made: {error.strerror}", "choose another folder"
        ) from None
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        raise _gone(folder) from None
    try:
        _lock(folder, handle)
        _check_same(folder, handle)
        try:
            _sign(folder)
            yield
        finally:
            with suppress(FileNotFoundError):  # the folder was of no use and is removed
                os.unlink(OWNER, dir_fd=handle)
    finally:
        os.close(handle)


def _sign(folder: Path) -> None:
    try:
        (folder / OWNER).write_text(f"process {os.getpid()} on {socket.gethostname()}")
    except OSError as error:
        raise disk_error(folder, error) from None


def _lock(folder: Path, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            who = f" ({(folder / OWNER).read_text()})"
        except (OSError, UnicodeDecodeError):
            who = ""
        problem = f"another process is packing into it{who}"
        raise DataError(str(folder), problem, "wait for it, or end it") from None
    except OSError as error:  # some network file systems have no locks
        log.warning("%s: no lock (%s); do not pack into it twice at once", folder, error.strerror)


def _check_same(folder: Path, handle: int) -> None:
    """Refuse a folder that its owner renamed or removed between opening and locking."""
    try:
        same = os.path.samestat(folder.stat(), os.fstat(handle))
    except OSError:
        same = False
    if not same:
        raise _gone(folder)


def _gone(folder: Path) -> DataError:
    problem = "another process has just finished or removed it"
    return DataError(str(folder), problem, "look at its pack, or run again")
