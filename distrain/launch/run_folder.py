"""The folder of a run: made once, never overwritten, continued by a resume."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import distrain
from distrain.config import document
from distrain.errors import ConfigError, LaunchError, nearest
from distrain.files import write_atomic
from distrain.launch.failures import FOLDER as FAILURES

CONFIG = "config.yaml"
COMMAND = "command.txt"
LAUNCHER = "launcher.json"
CHECKPOINTS = "checkpoints"
RESULT = "result.json"
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps everything.

    Attributes:
        path: the folder.
        resumes: True if an earlier start of this run left checkpoints to go on from.
    """

    path: Path
    resumes: bool = False


def has_checkpoint(run: Path) -> bool:
    """Return True if the run holds a finished checkpoint (it may still prove damaged)."""
    return any((run / CHECKPOINTS).glob("step-*.pt"))


def _made(run: Path) -> float:
    return max(p.stat().st_mtime for p in (run / CHECKPOINTS).glob("step-*.pt"))


def name_of(run: Path) -> str | None:
    """Return the name that a run has in its ``config.yaml``; None if that does not say."""
    try:
        values, _ = document.parse((run / CONFIG).read_text(encoding="utf-8"), str(run / CONFIG))
    except (OSError, UnicodeDecodeError, ConfigError):
        return None
    return str(values["name"]) if isinstance(values, dict) and "name" in values else None


def attempts(runs: Path, name: str) -> list[Path]:
    """Return the folders NAME, NAME-2, NAME-3, ... of the runs of this name, in this order.

    The configuration decides whose a folder is: ``net-50`` may be the fiftieth of ``net`` or the first
    of ``net-50``.
    """
    pattern = re.compile(rf"{re.escape(name)}(?:-(\d+))?")
    found = []
    for path in runs.iterdir() if runs.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match and name_of(path) == name:
            found.append((int(match[1] or 1), path))
    return [path for _, path in sorted(found)]


def planned(runs: Path, name: str) -> Path:
    """Return the folder that `create` would make now."""
    taken = {path.name for path in runs.iterdir()} if runs.is_dir() else set()
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return runs / candidate


def create(runs: Path, name: str) -> RunFolder:
    """Make the folder of a new run: NAME, or NAME-2, NAME-3, ... if that is taken.

    Raises:
        LaunchError: it cannot be made (rights, full disk).
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            path = planned(runs, name)
            try:
                path.mkdir()  # fails if another launch took the name a moment ago
                return RunFolder(path)
            except FileExistsError:
                continue
    except OSError as error:
        raise LaunchError(
            str(runs),
            f"no run folder can be made: {error.strerror}",
            "set launch.runs to a folder that you may write to, on a disk with room",
        ) from None


def choose(runs: Path, name: str, resume: str | None) -> RunFolder | None:
    """Return the folder that a resume continues, or None to begin a new one.

    Args:
        runs: folder of all runs.
        name: name of the run in the configuration.
        resume: None; ``auto``: of NAME, NAME-2, ... the one with the newest checkpoint, or a new run if
            none has one; else the name or path of a run.

    Raises:
        ConfigError: the run named does not exist or has no checkpoint.
    """
    if resume is None:
        return None
    if resume == "auto":
        found = [run for run in attempts(runs, name) if has_checkpoint(run)]
        return RunFolder(max(found, key=_made), resumes=True) if found else None
    path = next((p for p in (runs / resume, Path(resume)) if p.is_dir()), None)
    if path is None:
        names = [p.name for p in runs.iterdir() if p.is_dir()] if runs.is_dir() else []
        raise ConfigError(
            "--resume",
            f"there is no run {resume!r}{nearest(resume, names)}",
            f"give a folder of {runs}/ or a path",
        )
    if not has_checkpoint(path):
        raise ConfigError(
            "--resume", f"{path} has no checkpoint", "start it anew without --resume, or resume another run"
        )
    return RunFolder(path, resumes=True)


def changes(run: Path, config: str) -> list[str]:
    """Return the settings that differ from those of the earlier start, as ``seed: 3 -> 4``.

    How a run is started (``launch``) does not change what it computes and is left out.
    """
    try:
        before, _ = document.parse((run / CONFIG).read_text(encoding="utf-8"), str(run / CONFIG))
    except (OSError, UnicodeDecodeError, ConfigError):
        return []  # of a start that got no further, or damaged: there is nothing to compare with
    old, new = (dict(_flat(values, "")) for values in (before, document.parse(config, CONFIG)[0]))
    keys = [key for key in {**old, **new} if not key.startswith("launch.") and old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys]


def _flat(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, values


@dataclass
class Aside:
    """Files of an earlier start that were renamed, so that a start which comes to nothing can undo it.

    Attributes:
        moved: (name now, name before) of each.
    """

    moved: list[tuple[Path, Path]] = field(default_factory=list)

    def put(self, path: Path) -> None:
        """Rename a file or folder if it exists."""
        kept = put_aside(path)
        if kept is not None:
            self.moved.append((kept, path))

    def undo(self) -> None:
        """Give the files their names back; the failures of the later start stay where they are."""
        for kept, path in reversed(self.moved):
            if kept.is_file() or not path.exists():
                kept.replace(path)
        self.moved.clear()


def put_aside(path: Path) -> Path | None:
    """Rename ``result.json`` to ``result-1.json`` (or -2, ...) so that a resume does not overwrite it.

    Returns:
        The new name, or None if there is no such file.
    """
    if not path.exists():
        return None
    number = 1
    while (kept := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    path.rename(kept)
    return kept


def record(
    folder: RunFolder, config: str, command: str, versions: dict[str, Any], files: Mapping[str, str] = _NONE
) -> Aside:
    """Write what starts the run: ``config.yaml``, ``command.txt``, ``launcher.json``, and further `files`.

    A resume appends its command and puts aside what would be mistaken for its own: the result and the
    failures of the earlier start, and its configuration if it differs.

    Returns:
        What was put aside.

    Raises:
        LaunchError: a file cannot be written (full disk, rights); what was put aside is back.
    """
    aside, config_path = Aside(), folder.path / CONFIG
    try:
        if config_path.exists() and config_path.read_text() != config:
            aside.put(config_path)
        aside.put(folder.path / RESULT)
        aside.put(folder.path / FAILURES)
        for name, text in {**files, CONFIG: config}.items():
            write_atomic(folder.path / name, text.encode())
        _tell(folder.path, command, versions)
    except OSError as error:
        aside.undo()
        raise LaunchError(
            str(error.filename or folder.path),
            f"cannot be written: {error.strerror}",
            "free space, or set launch.runs to a folder on another disk",
        ) from None
    return aside


def _tell(folder: Path, command: str, versions: dict[str, Any]) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    with open(folder / COMMAND, "a") as file:
        file.write(f"# {now} on {socket.gethostname()}, in {os.getcwd()}\n{command}\n\n")
    facts = {
        "distrain": distrain.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "host": socket.gethostname(),
        "started": now,
        **versions,
    }
    write_atomic(folder / LAUNCHER, (json.dumps(facts, indent=2) + "\n").encode())


def completed_steps(run: Path) -> int | None:
    """Return the steps of a run that is complete, by its result; None if it is not."""
    if status(run) != "completed":
        return None
    steps = json.loads((run / RESULT).read_text()).get("steps")
    return steps if isinstance(steps, int) else None


def status(run: Path) -> str | None:
    """Return the status in ``result.json`` (``completed`` or ``stopped``), or None without a result.

    Only a result proves success: Open MPI returns 0 when it loses a host.
    """
    try:
        return str(json.loads((run / RESULT).read_text())["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
