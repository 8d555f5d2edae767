"""The numbers that follow from a configuration and its data: what a run will really do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distrain.config.schema import RunConfig
from distrain.data.format import MANIFEST, Manifest, read_manifest
from distrain.data.nodes.groups import Groups, check_group_nodes
from distrain.data.nodes.sharing import Sharing
from distrain.errors import ConfigError, DataError, nearest
from distrain.launch.hosts import Host
from distrain.schedule.registry import names
from distrain.units import format_bytes

AUTO = "auto"


@dataclass(frozen=True)
class Packs:
    """What is known of the two packs; None where a pack cannot be read from this machine.

    Attributes:
        train: manifest of the training pack.
        val: manifest of the held-out pack.
        problems: why one is missing.
    """

    train: Manifest | None
    val: Manifest | None
    problems: tuple[DataError, ...] = ()


@dataclass(frozen=True)
class Derived:
    """Numbers that nobody writes into a configuration; None where the packs are not at hand.

    Attributes:
        world_size: ranks in all.
        nodes: machines.
        ranks_per_node: the most ranks that a machine has.
        global_batch: images in one optimizer step, over all ranks.
        train_images: images of the training pack.
        val_images: images of the held-out pack.
        classes: classes of the training pack.
        steps_per_epoch: optimizer steps in one epoch.
        total_steps: optimizer steps in all.
        lr: the learning rate after warm-up (linear scaling).
        pack_bytes: bytes of both packs, as they would lie in memory.
        node_bytes: bytes of packed data in the memory of each node, with what arrives from others.
        queue_bytes: bytes of the batches that the ranks of a node decode ahead.
    """

    world_size: int
    nodes: int
    ranks_per_node: int
    global_batch: int
    train_images: int | None
    val_images: int | None
    classes: int | None
    steps_per_epoch: int | None
    total_steps: int | None
    lr: float
    pack_bytes: int | None
    node_bytes: int | None
    queue_bytes: int

    @property
    def world(self) -> str:
        """Ranks and nodes in words: ``2 ranks on 1 node``."""
        ranks = f"{self.world_size} rank{'s' * (self.world_size > 1)}"
        return f"{ranks} on {self.nodes} node{'s' * (self.nodes > 1)}"


def read_packs(config: RunConfig) -> Packs:
    """Read both manifests; a pack that is not here is told in ``problems``, not raised.

    On a login node the data may lie where only the compute nodes see it.

    Raises:
        DataError: a pack is here and damaged or of another format version.
    """
    found: list[Manifest | None] = []
    problems = []
    for folder in (config.data.train, config.data.val):
        try:
            found.append(read_manifest(Path(folder)))
        except DataError as error:
            if os.path.exists(Path(folder) / MANIFEST):  # no error where a folder may not be searched
                raise
            found.append(None)
            problems.append(error)
    return Packs(found[0], found[1], tuple(problems))


def derive(config: RunConfig, hosts: Sequence[Host], packs: Packs) -> Derived:
    """Work out the numbers of a run.

    Args:
        config: the configuration.
        hosts: the machines, with the ranks that each runs (not its slots).
        packs: the data.

    Raises:
        ConfigError: the training pack holds fewer images than one global batch, the nodes cannot be
            cut into groups of ``data.group_nodes``, the algorithm is unknown, the packs do not fit each
            other or the model, or the duration is less than a step.
    """
    data, optimizer = config.data, config.train.optimizer
    world_size = sum(host.slots for host in hosts)
    most = max(host.slots for host in hosts)
    global_batch = world_size * data.batch_per_rank * config.train.accumulate
    if config.comm.algorithm != AUTO and config.comm.algorithm not in names():
        raise ConfigError(
            "comm.algorithm",
            f"{config.comm.algorithm!r} is unknown{nearest(config.comm.algorithm, [AUTO, *names()])}",
            f"choose auto, {', '.join(names())}",
        )
    if packs.train and packs.val:
        check_classes(config, packs.train.classes, packs.val.classes)
    check_group_nodes(data.group_nodes, len(hosts))
    sharing = _sharing(config, hosts, packs)
    step_batch = data.batch_per_rank * config.train.accumulate  # which the loader hands over at once
    steps = sharing.steps_per_epoch if sharing else None
    total = None if steps is None else config.train.duration.steps(steps)
    if total == 0:
        raise ConfigError(
            "train.duration",
            f"{config.train.duration} of {steps} steps an epoch is less than half a step",
            "set train.duration to 1st (one step) or more",
        )
    return Derived(
        world_size=world_size,
        nodes=len(hosts),
        ranks_per_node=most,
        global_batch=global_batch,
        train_images=packs.train.count if packs.train else None,
        val_images=packs.val.count if packs.val else None,
        classes=len(packs.train.classes) if packs.train else None,
        steps_per_epoch=steps,
        total_steps=total,
        lr=optimizer.lr * global_batch / optimizer.lr_batch,
        pack_bytes=sharing.train.bytes_in_memory + sharing.val.bytes_in_memory if sharing else None,
        node_bytes=0 if data.memory == "disk" else sharing.bytes_per_node if sharing else None,
        queue_bytes=most * data.queue_batches * step_batch * data.image_size**2 * 3,
    )


def check_classes(config: RunConfig, train: Sequence[str], val: Sequence[str]) -> None:
    """Make sure that a label means the same in both packs, and that the model has it.

    Raises:
        ConfigError: the packs have different classes, or more than the model.
    """
    if train != val:
        only = sorted(set(train) ^ set(val))
        raise ConfigError(
            "data.val",
            f"{config.data.val} has {len(val)} classes, {config.data.train} has {len(train)}; "
            f"in one of them only: {', '.join(only[:5]) or 'none'}",
            "pack both parts from class folders with the same names",
        )
    wanted = config.model.num_classes
    if wanted is not None and wanted < len(train):
        raise ConfigError(
            "model.num_classes",
            f"{wanted} is less than the {len(train)} classes of {config.data.train}",
            "leave it out, or raise it",
        )


def warnings(derived: Derived) -> list[str]:
    """Return what is allowed and yet hardly meant."""
    if derived.classes == 1:
        return ["the training pack has one class only: there is nothing to learn from it"]
    return []


def _sharing(config: RunConfig, hosts: Sequence[Host], packs: Packs) -> Sharing | None:
    if packs.train is None or packs.val is None:
        return None
    groups = Groups.of_slots([host.slots for host in hosts], config.data.group_nodes)
    step_batch = config.data.batch_per_rank * config.train.accumulate
    settings = config.data.model_copy(update={"batch_per_rank": step_batch})
    return Sharing(settings, groups, packs.train, packs.val)


def table(config: RunConfig, derived: Derived) -> list[tuple[str, str]]:
    """Return the numbers as (name, text) rows for people."""

    def text(value: int | None) -> str:
        return "unknown (pack not found)" if value is None else f"{value:,}"

    def size(value: int | None) -> str:
        return text(value) if value is None else f"{format_bytes(value)} ({value:,} bytes)"

    return [
        ("world size", derived.world),
        ("ranks per node", text(derived.ranks_per_node)),
        ("global batch", f"{derived.global_batch:,} images"),
        ("training images", text(derived.train_images)),
        ("held-out images", text(derived.val_images)),
        ("classes", text(derived.classes)),
        ("steps per epoch", text(derived.steps_per_epoch)),
        ("total steps", f"{text(derived.total_steps)} ({config.train.duration})"),
        ("learning rate after warm-up", f"{derived.lr:g}"),
        ("bytes of both packs", size(derived.pack_bytes)),
        ("bytes of data in memory per node", size(derived.node_bytes)),
        ("bytes of decoded batches per node", size(derived.queue_bytes)),
    ]
