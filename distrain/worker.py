"""One rank's program: wires the rooms together and sees to it that no rank ends alone."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
from mpi4py import MPI

import distrain
from distrain.comm import exits, mpi, runtime
from distrain.comm.guest import Guest, submit_bulk
from distrain.comm.operation import Completion
from distrain.comm.sync import make_synchroniser
from distrain.config.load import dump
from distrain.config.schema import RunConfig
from distrain.data.decode.engine import create as create_decoder
from distrain.data.exchange import MpiWire
from distrain.data.format import read_manifest
from distrain.data.groups import Groups
from distrain.data.loader import EvalLoader, TrainLoader
from distrain.data.room import check_room, free_bytes
from distrain.data.sharing import Sharing
from distrain.data.store import Store
from distrain.errors import ConfigError, DistrainError
from distrain.launch import failures, machine, run_folder
from distrain.train.device import pick_device
from distrain.train.loop import train
from distrain.train.models import create as create_model
from distrain.train.parts import Parts
from distrain.world import World

log = logging.getLogger("distrain.worker")

_LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main(config: RunConfig) -> int:
    """Run this rank from start to end; returns its exit code.

    The launcher says in the environment what the configuration cannot: DISTRAIN_RUN_DIR (the run
    folder, made by the launcher) and DISTRAIN_RESUME (not empty: go on from its newest checkpoint).
    Without a launcher rank 0 makes the folder.

    An uncaught error is kept in ``failures/`` of the run folder and ends the job on all ranks.
    """
    comm = mpi.initialize()
    world = mpi.discover_world(comm)
    exits.install(f"rank {world.rank} on {world.hosts[world.rank]}")
    folder = _folder(config, comm)
    _start_logs(folder, world)
    if "OMP_NUM_THREADS" not in os.environ:  # torch would take all cores of the node for every rank
        torch.set_num_threads(max(1, machine.cores() // world.local_size))
    try:
        return _run(config, comm, world, folder)
    except BaseException as error:
        _end(error, folder, world)
        raise


def _run(config: RunConfig, comm: MPI.Intracomm, world: World, folder: Path) -> int:
    if world.rank == 0:
        _write_environment(folder, world)
    sharing = _sharing(config, world)
    if config.data.memory == "node":  # both packs together, before either is loaded
        check_room("data", sharing.bytes_per_node, free_bytes())
    node = mpi.node_comm(comm)
    # MPI belongs to the engine's thread once it runs: the stores are opened before and closed after.
    room = sharing.room_per_node
    train_store = Store.open(config.data.train, config.data, node, sharing.train_part(world.rank), room)
    val_store = Store.open(config.data.val, config.data, node, sharing.val_part(world.rank))
    wire = MpiWire(comm, sharing.groups.group(world.rank), _submit_bulk) if sharing.moves_images else None
    _check_classes(train_store, val_store, config)
    distrain.init_process_group(config.comm)
    if world.rank == 0:
        allreduce = runtime.current().describe_allreduce(config.comm.bucket_bytes)
        log.info("gradients travel by %s", allreduce)
        _write_environment(folder, world, allreduce)
    synchroniser = make_synchroniser(config.comm)
    loader, eval_loader = _loaders(config, world, sharing, train_store, val_store, wire)
    classes = config.model.num_classes or len(train_store.classes)
    result = train(
        Parts(
            settings=config.train,
            model=create_model(config.model, classes, config.seed),
            loader=loader,
            eval_loader=eval_loader,
            world=world,
            device=pick_device(config.train.device, world),
            folder=folder,
            global_batch=config.data.batch_per_rank * config.train.accumulate * world.size,
            seed=config.seed,
            config_digest=hashlib.sha256(dump(config).encode()).hexdigest(),
            channels_last=config.model.channels_last,
            bucket_bytes=config.comm.bucket_bytes,
            synchroniser=synchroniser,
            exposed_comm_seconds=_accumulated(runtime.current().engine.take_exposed_seconds),
            skipped_images=lambda: loader.skipped_images + eval_loader.skipped_images,
            resume=bool(os.environ.get("DISTRAIN_RESUME")),
        )
    )
    # Not in a `finally`: after an error these would wait for ranks that wait for this one. `main` ends
    # the job instead.
    loader.close()  # before the engine: images of other nodes may be on their way
    eval_loader.close()
    synchroniser.close()
    distrain.destroy_process_group()
    if wire is not None:
        wire.free()
    train_store.close()
    val_store.close()
    node.Free()
    exits.all_end_with(result.exit_code)  # the loop's ranks stop together
    return result.exit_code


def _sharing(config: RunConfig, world: World) -> Sharing:
    # A rank's batch is what it contributes to one step: all its micro-batches.
    batch = config.data.batch_per_rank * config.train.accumulate
    return Sharing(
        config.data.model_copy(update={"batch_per_rank": batch}),
        Groups.of(world, config.data.group_nodes),
        read_manifest(Path(config.data.train)),
        read_manifest(Path(config.data.val)),
    )


def _submit_bulk(operation: Guest) -> Completion:
    """Hand an operation of the data to the engine, behind the gradients."""
    return submit_bulk(runtime.current().engine, operation)


def _loaders(
    config: RunConfig,
    world: World,
    sharing: Sharing,
    train_store: Store,
    val_store: Store,
    wire: MpiWire | None,
) -> tuple[TrainLoader, EvalLoader]:
    data, rank = sharing.settings, world.rank
    train_engine = create_decoder(data.engine, train_store.encoding)
    val_engine = create_decoder(data.engine, val_store.encoding)
    reading = sharing.reading(train_store, config.seed)
    windows = None if wire is None else sharing.windows(train_store, reading, rank, wire)
    return (
        TrainLoader(
            train_store, data, train_engine, rank, world.size, config.seed, reading=reading, windows=windows
        ),
        EvalLoader(val_store, data, val_engine, sharing.eval_rank(rank), world.size),
    )


def _accumulated(take: Callable[[], float]) -> Callable[[], float]:
    """Turn "since the last call" into "so far"."""
    total = 0.0

    def so_far() -> float:
        nonlocal total
        total += take()
        return total

    return so_far


def _check_classes(train_store: Store, val_store: Store, config: RunConfig) -> None:
    """Make sure that a label means the same in both packs.

    Raises:
        ConfigError: the packs have different classes, or more than the model.
    """
    if train_store.classes != val_store.classes:
        only = sorted(set(train_store.classes) ^ set(val_store.classes))
        raise ConfigError(
            "data.val",
            f"{config.data.val} has {len(val_store.classes)} classes, {config.data.train} has "
            f"{len(train_store.classes)}; in one of them only: {', '.join(only[:5]) or 'none'}",
            "pack both parts from class folders with the same names",
        )
    wanted = config.model.num_classes
    if wanted is not None and wanted < len(train_store.classes):
        raise ConfigError(
            "model.num_classes",
            f"{wanted} is less than the {len(train_store.classes)} classes of {config.data.train}",
            "leave it out, or raise it",
        )


def _folder(config: RunConfig, comm: MPI.Intracomm) -> Path:
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
    path, error = comm.bcast((path, error), root=0)
    if path is None:
        assert error is not None
        raise error
    return path


def _start_logs(folder: Path, world: World) -> None:
    """One log file a rank; on stderr all of rank 0's lines and the others' warnings."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(logs / f"rank-{world.rank:04d}.log")
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


def _write_environment(folder: Path, world: World, allreduce: str | None = None) -> None:
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
    (folder / "environment.json").write_text(json.dumps(facts, indent=2) + "\n")


def _end(error: BaseException, folder: Path, world: World) -> None:
    """Keep the error where the launcher finds it, and end the whole job."""
    code = _exit_code(error)
    expected = isinstance(error, DistrainError)
    text = str(error) if expected else "".join(traceback.format_exception(error))
    # Under the launcher, which prints the first failure last, stderr needs no traceback of every rank.
    kept = {"file_only": "DISTRAIN_RUN_DIR" in os.environ}
    log.critical("ends the job with exit code %d: %s", code, text, extra=kept)
    log.critical("%s ends the job", type(error).__name__)
    record = {"rank": world.rank, "exit_code": code, "traceback": text, "time": time.time()}
    try:
        path = folder / failures.FOLDER / f"rank-{world.rank:04d}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record))
    except OSError as full:  # the disk may be what failed; stderr has the traceback
        log.error("the failure cannot be kept in %s: %s", folder, full)
    exits.end_job(code)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return exits.exit_code_of(error.code)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.exit_code if isinstance(error, DistrainError) else 1
