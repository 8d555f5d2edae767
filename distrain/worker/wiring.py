"""From the settings to what a run is made of: who holds what, and the loaders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from distrain.config.schema import RunConfig
from distrain.data.decode.engines import create as create_decoder
from distrain.data.exchange import MpiCarrier
from distrain.data.format import read_manifest
from distrain.data.loader import EvalLoader, TrainLoader
from distrain.data.nodes.groups import Groups
from distrain.data.nodes.sharing import Sharing
from distrain.data.store import Store
from distrain.world import World


def share(config: RunConfig, world: World) -> Sharing:
    """Work out which node holds which images."""
    # A rank's batch is what it contributes to one step: all its micro-batches.
    batch = config.data.batch_per_rank * config.train.accumulate
    return Sharing(
        config.data.model_copy(update={"batch_per_rank": batch}),
        Groups.of(world, config.data.group_nodes),
        read_manifest(Path(config.data.train)),
        read_manifest(Path(config.data.val)),
    )


def make_loaders(
    config: RunConfig,
    world: World,
    sharing: Sharing,
    train_store: Store,
    val_store: Store,
    carrier: MpiCarrier | None,
    device: torch.device,
) -> tuple[TrainLoader, EvalLoader]:
    """Open what iterates over this rank's batches; `carrier` brings images of other nodes, if they travel."""
    data, rank = sharing.settings, world.rank
    train_engine = create_decoder(data.engine, train_store.encoding, device.index)
    val_engine = create_decoder(data.engine, val_store.encoding, device.index)
    reading = sharing.reading(train_store, config.seed)
    windows = None if carrier is None else sharing.windows(train_store, reading, rank, carrier)
    return (
        TrainLoader(
            train_store, data, train_engine, rank, world.size, config.seed, reading=reading, windows=windows
        ),
        EvalLoader(val_store, data, val_engine, sharing.eval_rank(rank), world.size),
    )


def accumulated(take: Callable[[], float]) -> Callable[[], float]:
    """Turn "since the last call" into "so far"."""
    total = 0.0

    def so_far() -> float:
        nonlocal total
        total += take()
        return total

    return so_far
