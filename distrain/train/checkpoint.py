"""Checkpoints on disk: written atomically, checked when read, the newest few kept.

A checkpoint is one file that ``torch.load`` reads. Its name carries the step and the first 16
digits of the SHA-256 of its bytes, so the checksum can never be separated from the file and no
second file has to be kept in step with it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import torch

from distrain.files import TEMPORARY, write_atomic
from distrain.train.errors import GO_ON, CheckpointError
from distrain.units import format_bytes

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{9,})-([0-9a-f]{16})\.pt")
_ASIDE = ".damaged"


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint and remove all but the newest `keep`, of which this one always is the first.

    A file of a later step is neither removed nor counted: it is of no use to the run that is here now.
    Costs the size of the state twice in host memory, for as long as the write takes.

    Raises:
        CheckpointError: it could not be written (full disk, ...); earlier checkpoints are untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    path = folder / f"step-{step:09d}-{_digest(payload)}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(f"*{TEMPORARY}"):  # of a run that was killed while writing
            left_over.unlink()
        write_atomic(path, payload)
        earlier = [old for old in listed(folder) if old != path and _step(old) <= step]
        for old in earlier[keep - 1 :]:
            old.unlink()
    except OSError as error:
        earlier = listed(folder)
        kept = (
            f"the checkpoint before it, {earlier[0].name}, is whole" if earlier else "there is none before it"
        )
        raise CheckpointError(
            str(path),
            f"a checkpoint of {format_bytes(len(payload))} cannot be written ({error}); {kept}",
            f"free space, or move the run folder to another disk; then {GO_ON}",
        ) from error
    return path


def listed(folder: Path) -> list[Path]:
    """Checkpoints in the folder by their names, newest first; they may be damaged."""
    found = [path for path in folder.glob("*.pt") if _NAME.fullmatch(path.name)]
    # Of two files for one step the one written last counts.
    return sorted(found, key=lambda path: (_step(path), path.stat().st_mtime_ns), reverse=True)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def newest_valid(folder: Path) -> tuple[Path, bytes] | None:
    """The newest checkpoint whose checksum is right, and its bytes; None where there is none.

    Each damaged one is named in a warning and left on disk.

    Raises:
        CheckpointError: one that may be good cannot be read; an earlier one would lose the work since then.
    """
    for path in listed(folder):
        try:
            payload = path.read_bytes()
        except FileNotFoundError:  # removed since it was listed
            continue
        except OSError as error:
            raise CheckpointError(
                str(path),
                f"cannot be read ({error.strerror}), which does not say that it is damaged",
                "see to the file system and its permissions and resume again, or rename the file to go on "
                "from the one before it",
            ) from error
        match = _NAME.fullmatch(path.name)
        if match and match[2] == _digest(payload):
            return path, payload
        log.warning(
            "%s: the checksum is wrong (cut short or changed, %d bytes); the checkpoint before it is used",
            path, len(payload),
        )  # fmt: skip
    return None


def set_aside(folder: Path, resumed: Path) -> None:
    """Rename the files that are listed before the one that was resumed, so that none counts any more.

    All of them are damaged: `newest_valid` passes over nothing else that is there. They keep their bytes
    under the name ``step-...pt.damaged``.

    Raises:
        CheckpointError: one cannot be renamed.
    """
    for path in listed(folder):
        if path == resumed:
            return
        try:
            path.rename(path.with_name(path.name + _ASIDE))
        except OSError as error:
            raise CheckpointError(
                str(path), f"is damaged and cannot be set aside ({error})", "remove or rename it by hand"
            ) from error


def unpack(payload: bytes) -> dict[str, Any]:
    """The state in the bytes of a checkpoint, tensors on the CPU; nothing but data is unpickled."""
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state


def _digest(payload: bytes | memoryview) -> str:
    return hashlib.sha256(payload).hexdigest()[:16]
