"""What a rank leaves in the run folder: its log, the environment, and why it failed."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import time
import traceback
from pathlib import Path

import numpy
import torch
from mpi4py import MPI

import distrain
from distrain.comm.process import mpi
from distrain.comm.supervision import exits
from distrain.config.load import dump
from distrain.config.schema import RunConfig
from distrain.errors import DistrainError, LaunchError, agree
from distrain.files import write_atomic
from distrain.launch import failures, run_folder
from distrain.launch.lock import RANKS, WAIT_SECONDS, Lock, hold
from distrain.world import World, rank_name

log = logging.getLogger("distrain.worker")

_ROOM = "free space, or set launch.runs to a folder on another disk"
_LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def open_folder(config: RunConfig, comm: MPI.Intracomm) -> Path:
    """Return the run folder: the launcher's, or a new one that rank 0 makes (collective)."""
    given = os.environ.get("DISTRAIN_RUN_DIR")
    if given:
        return Path(given)
    path: Path | None = None
    error: DistrainError | None = None
    if comm.rank == 0:
        try:
            folder = run_folder.create(Path(config.launch.runs), config.name)
            run_folder.record(folder, dump(config), " ".join(sys.argv), {})
            path = folder.path
        except DistrainError as found:
            error = found
    agree(comm, error)
    made: Path = comm.bcast(path)
    return made


def hold_folder(folder: Path, comm: MPI.Intracomm) -> Lock | None:
    """Let rank 0 lock the run folder until its process ends (collective).

    Raises:
        LaunchError: the ranks of another start write into it; on all ranks.
    """
    held: Lock | None = None
    error: DistrainError | None = None
    if comm.rank == 0:
        try:
            held = hold(folder, RANKS, WAIT_SECONDS)
        except DistrainError as found:
            error = found
    agree(comm, error)
    return held


def start_logs(folder: Path, world: World) -> None:
    """One log file a rank; on stderr all of rank 0's lines and the others' warnings."""
    logs = folder / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(logs / f"{rank_name(world.rank)}.log")
    except OSError as error:
        raise LaunchError(str(logs), f"cannot be written ({error})", _ROOM) from None
    to_stderr = logging.StreamHandler()
    to_stderr.setLevel(logging.INFO if world.rank == 0 else logging.WARNING)
    to_stderr.addFilter(lambda record: not getattr(record, "file_only", False))
    prefix = "" if world.rank == 0 else f"rank {world.rank}: "
    to_file.setFormatter(logging.Formatter(_LOG_LINE))
    to_stderr.setFormatter(logging.Formatter(prefix + "%(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.handlers[:] = [to_file, to_stderr]
    logging.captureWarnings(True)
    log.info("rank %d of %d on %s, process %d", world.rank, world.size, world.hosts[world.rank], os.getpid())


def write_environment(folder: Path, world: World, allreduce: str | None = None) -> None:
    """Write ``environment.json``: versions, which rank runs on which host, and how gradients travel."""
    facts = {
        "distrain": distrain.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": numpy.__version__,
        "mpi": mpi.library(),
        "system": platform.platform(),
        "torch_threads": torch.get_num_threads(),
        "hosts": list(world.hosts),
        "allreduce": allreduce,
    }
    path = folder / "environment.json"
    try:
        write_atomic(path, (json.dumps(facts, indent=2) + "\n").encode())
    except OSError as error:
        raise LaunchError(str(path), f"cannot be written ({error})", _ROOM) from None


def keep_failure(error: BaseException, folder: Path, world: World) -> int:
    """Keep the error where the launcher finds it; return the exit code that the job shall end with."""
    code = _exit_code(error)
    expected = isinstance(error, DistrainError)
    text = str(error) if expected else "".join(traceback.format_exception(error))
    # Under the launcher, which prints the first failure last, stderr needs no traceback of every rank.
    kept = {"file_only": "DISTRAIN_RUN_DIR" in os.environ}
    log.critical("ends the job with exit code %d: %s", code, text, extra=kept)
    log.critical("%s ends the job", type(error).__name__)
    record = {"rank": world.rank, "exit_code": code, "traceback": text, "time": time.time()}
    try:
        path = folder / failures.FOLDER / f"{rank_name(world.rank)}.json"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, json.dumps(record).encode())
    except OSError as full:  # the disk may be what failed; stderr has the traceback
        log.error("the failure cannot be kept in %s: %s", folder, full)
    return code


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return exits.exit_code_of(error.code)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.exit_code if isinstance(error, DistrainError) else 1
