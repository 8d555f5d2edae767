"""One rank's program: wires the rooms together and sees to it that no rank ends alone."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import distrain
from distrain import machine
from distrain.comm import runtime
from distrain.comm.engine.guest import Guest, submit_bulk
from distrain.comm.operation import Completion
from distrain.comm.process import mpi
from distrain.comm.supervision import exits
from distrain.comm.sync.buckets import largest_bytes
from distrain.comm.sync.synchroniser import make_synchroniser
from distrain.config.load import dump
from distrain.config.schema import RunConfig
from distrain.data.exchange import MpiCarrier
from distrain.data.room import check_room
from distrain.data.store import Store
from distrain.launch.derive import check_classes
from distrain.train.device import pick_device
from distrain.train.loop import train
from distrain.train.models import create as create_model
from distrain.train.parts import Parts
from distrain.units import format_bytes
from distrain.worker import records, wiring
from distrain.world import World

if TYPE_CHECKING:
    from mpi4py import MPI  # not here: its import starts MPI, and `process/mpi.py` says how

log = logging.getLogger("distrain.worker")

TRAVELS = "gradients travel in buckets of up to %s by %s"  # quoted in docs/tuning.md


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
    folder = records.open_folder(config, comm)
    held = records.hold_folder(folder, comm)
    records.start_logs(folder, world)
    if "OMP_NUM_THREADS" not in os.environ:  # torch would take all cores of the node for every rank
        torch.set_num_threads(max(1, machine.cores() // world.local_size))
    try:
        code = _run(config, comm, world, folder)
    except BaseException as error:
        exits.end_job(records.keep_failure(error, folder, world))
        raise
    if held is not None:
        held.release()
    return code


def _run(config: RunConfig, comm: MPI.Intracomm, world: World, folder: Path) -> int:
    if world.rank == 0:
        records.write_environment(folder, world)
    sharing = wiring.share(config, world)
    if config.data.memory == "node":  # both packs together, before either is loaded
        check_room("data", sharing.bytes_per_node, machine.free_bytes())
    node = mpi.node_comm(comm)
    # MPI belongs to the engine's thread once it runs: the stores are opened before and closed after.
    room = sharing.room_per_node
    train_store = Store.open(config.data.train, config.data, node, sharing.train_part(world.rank), room)
    val_store = Store.open(config.data.val, config.data, node, sharing.val_part(world.rank))
    group = sharing.groups.group(world.rank)
    carrier = MpiCarrier(comm, group, _submit_bulk) if sharing.moves_images else None
    check_classes(config, train_store.classes, val_store.classes)
    distrain.init_process_group(config.comm)
    classes = config.model.num_classes or len(train_store.classes)
    model = create_model(config.model, classes, config.seed)
    buckets = distrain.ddp_buckets(model)
    device = pick_device(config.train.device, world)
    if world.rank == 0:
        largest = largest_bytes(buckets)
        allreduce = runtime.current().describe_allreduce(largest, device.type == "cuda")
        log.info(TRAVELS, format_bytes(largest), allreduce)
        records.write_environment(folder, world, allreduce)
    synchroniser = make_synchroniser(config.comm)
    loader, eval_loader = wiring.make_loaders(config, world, sharing, train_store, val_store, carrier, device)
    result = train(
        Parts(
            settings=config.train,
            model=model,
            loader=loader,
            eval_loader=eval_loader,
            world=world,
            device=device,
            folder=folder,
            global_batch=config.data.batch_per_rank * config.train.accumulate * world.size,
            seed=config.seed,
            config_digest=hashlib.sha256(dump(config).encode()).hexdigest(),
            channels_last=config.model.channels_last,
            buckets=buckets,
            synchroniser=synchroniser,
            exposed_comm_seconds=(
                wiring.accumulated(runtime.current().engine.take_exposed_seconds)
                if synchroniser.is_timed
                else None
            ),
            skipped_images=lambda: (
                {("train", i) for i in loader.bad_images} | {("val", i) for i in eval_loader.bad_images}
            ),
            resume=bool(os.environ.get("DISTRAIN_RESUME")),
        )
    )
    # Not in a `finally`: after an error these would wait for ranks that wait for this one. `main` ends
    # the job instead.
    loader.close()  # before the engine: images of other nodes may be on their way
    eval_loader.close()
    synchroniser.close()
    distrain.destroy_process_group()
    if carrier is not None:
        carrier.free()
    train_store.close()
    val_store.close()
    node.Free()
    exits.all_end_with(result.exit_code)  # the loop's ranks stop together
    return result.exit_code


def _submit_bulk(operation: Guest) -> Completion:
    """Hand an operation of the data to the engine, behind the gradients."""
    return submit_bulk(runtime.current().engine, operation)
