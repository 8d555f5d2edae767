"""Keeps two starts of a run out of each other's way: one launcher and one rank 0 in a folder at a time.

The lock is the kernel's (``flock``), so it ends with its process, however that ends. The file's
content only tells who holds it. On NFS the server keeps the lock, for all machines alike; a file
system without locks is told of in a warning and not guarded.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO

from distrain.errors import LaunchError

LAUNCHER, RANKS = ".launcher.lock", ".rank-0.lock"
WAIT_SECONDS = 5.0
"""How long the ranks of a start that was killed a moment ago are given to end."""

_ROOM = "free space or make the folder writable for you, then start again"

log = logging.getLogger(__name__)


class Lock:
    """A lock that is held until `release`, the end of the context, or the end of the process."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file  # not inherited by children: a starter must not keep its launcher's lock

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others have it; the file stays, for without it two could hold two files of one name."""
        self._file.close()


def hold(run: Path, name: str, wait_seconds: float = 0.0) -> Lock:
    """Lock a run folder against another process of the same kind.

    Args:
        run: the run folder.
        name: `LAUNCHER` or `RANKS`.
        wait_seconds: how long to wait for a holder to end.

    Raises:
        LaunchError: another process holds it, or the file cannot be written.
    """
    path = run / name
    try:
        file = open(path, "a+")  # noqa: SIM115 (kept open: closing it unlocks)
    except OSError as error:
        raise LaunchError(str(path), f"cannot be written ({error})", _ROOM) from None
    deadline = time.monotonic() + wait_seconds
    while not _taken(file, path):
        if time.monotonic() >= deadline:
            file.seek(0)
            holder = _read(file.read())
            if _earlier_start_of_this_job(holder):
                # Its node is lost, and the server of the file system has not noticed yet.
                log.warning("%s: held by an earlier start of this Slurm job, which is over", path)
                break
            file.close()
            raise LaunchError(
                str(run),
                f"the run is being written by process {holder.get('pid', 'unknown')} "
                f"on {holder.get('host', 'an unknown host')}",
                "wait for its end or end it, then start again; a new run beside it: distrain launch without "
                "--resume, or another DISTRAIN_RUN_DIR",
            )
        time.sleep(0.1)
    try:
        file.seek(0)
        file.truncate()
        file.write(json.dumps(_myself()) + "\n")
        file.flush()
    except OSError as error:
        raise LaunchError(str(path), f"cannot be written ({error})", _ROOM) from None
    return Lock(file)


def check_free(run: Path, wait_seconds: float = WAIT_SECONDS) -> None:
    """Make sure that no rank 0 writes into the folder.

    Raises:
        LaunchError: one does.
    """
    if (run / RANKS).exists():
        hold(run, RANKS, wait_seconds).release()


def _taken(file: IO[str], path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        log.warning("%s: this file system has no locks (%s): start a run once at a time", path, error)
    return True


def _myself() -> dict[str, str | int | None]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "start": os.environ.get("SLURM_RESTART_COUNT", "0"),
    }


def _read(text: str) -> dict[str, str | int | None]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _earlier_start_of_this_job(holder: dict[str, str | int | None]) -> bool:
    me = _myself()
    return me["job"] is not None and holder.get("job") == me["job"] and holder.get("start") != me["start"]
