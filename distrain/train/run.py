"""The state of a run: what a checkpoint keeps, and what a resume brings back."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distrain.errors import ConfigError
from distrain.train import checkpoint, ranks
from distrain.train.errors import GO_ON, CheckpointError, checkpoint_late
from distrain.train.evaluate import Evaluation
from distrain.train.metrics import told_evaluation
from distrain.train.parts import Parts
from distrain.train.recipe import LearningRate, make_optimizer
from distrain.units import Duration

log = logging.getLogger(__name__)

CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"
_FORMAT = 1
# The option has another name since torch 2.13.
_OPTIONS = inspect.signature(DistributedDataParallel).parameters
KEEP_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers": False
}


@dataclass
class Run:
    """What changes while training.

    Attributes:
        module: the model on the device, as it was given: this is evaluated and saved.
        model: the same, wrapped for gradient exchange where there is more than one rank.
        optimizer: over the parameters of `module`.
        learning_rate: of each step.
        steps_per_epoch: optimizer steps in an epoch.
        total: optimizer steps in all.
        step: optimizer steps done.
        image_size: side of the images of the last of them, pixels.
        resumed_from: `step` of the checkpoint that this run began with, or None.
        evaluation: the last one since this start, or None.
        evaluated_at: its step.
        checkpoint: the last one written or resumed, on rank 0.
    """

    module: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    steps_per_epoch: int
    total: int
    step: int = 0
    image_size: int = 0
    resumed_from: int | None = None
    evaluation: Evaluation | None = None
    evaluated_at: int | None = None
    checkpoint: Path | None = None

    def due(self, every: Duration) -> bool:
        """True after every so many steps, at least one unless it is 0 (never), and after the last."""
        steps = max(1, every.steps(self.steps_per_epoch)) if every.count > 0 else 0
        return self.step == self.total or (steps > 0 and self.step % steps == 0)


def prepare(parts: Parts) -> Run:
    """Put the model on the device, build the optimizer, take up the newest checkpoint if asked to.

    Raises:
        ConfigError: there is no full step in an epoch, or the folder holds another run's checkpoints.
        CheckpointError: every checkpoint is damaged, or the newest cannot be read or belongs to another
            global batch.
    """
    steps_per_epoch = parts.loader.steps_per_epoch
    if steps_per_epoch < 1:
        raise ConfigError(
            "data.batch_per_rank",
            f"the training set has fewer images than one global batch of {parts.global_batch}",
            "use a smaller data.batch_per_rank, fewer ranks, or data.last_batch=wrap",
        )
    torch.manual_seed(parts.seed + parts.world.rank)
    module = parts.model.to(parts.device)
    learning_rate = LearningRate(parts.settings, steps_per_epoch, parts.global_batch)
    optimizer = make_optimizer(module, parts.settings.optimizer, learning_rate(0))
    total = parts.settings.duration.steps(steps_per_epoch)
    if total < 1:
        raise ConfigError(
            "train.duration",
            f"{parts.settings.duration} of {steps_per_epoch} steps an epoch is less than half a step",
            "set train.duration to 1st (one step) or more",
        )
    run = Run(module, module, optimizer, learning_rate, steps_per_epoch, total)
    _resume(run, parts)
    run.model = _parallel(module, parts)
    return run


def _parallel(module: nn.Module, parts: Parts) -> nn.Module:
    if not ranks.together() or not any(p.requires_grad for p in module.parameters()):
        return module
    model = DistributedDataParallel(
        module,
        process_group=parts.synchroniser.group,
        device_ids=[parts.device.index] if parts.device.type == "cuda" else None,
        # Running statistics are broadcast before an evaluation instead of in every step.
        **KEEP_BUFFERS,
        gradient_as_bucket_view=True,
        **parts.buckets,
    )
    parts.synchroniser.attach(model)
    return model


def capture(run: Run, parts: Parts) -> dict[str, Any]:
    """Everything that a resume needs, on the CPU. A collective: it gathers the ranks' random states.

    Running statistics are those of rank 0.
    """
    return {
        "format": _FORMAT,
        "model": run.module.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "epoch": run.step // run.steps_per_epoch,
        "step_in_epoch": run.step % run.steps_per_epoch,
        "steps_per_epoch": run.steps_per_epoch,
        "global_batch": parts.global_batch,
        "world_size": parts.world.size,
        "seed": parts.seed,
        "config_digest": parts.config_digest,
        "random": ranks.gather(_random_state(parts.device)),
    }


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _resume(run: Run, parts: Parts) -> None:
    """Bring back the newest valid checkpoint: rank 0 reads it and sends its bytes to the others."""
    limit = parts.settings.checkpoint_seconds
    found = ranks.by_first(
        parts.world.rank,
        lambda: _newest(parts),
        limit,
        checkpoint_late(parts.folder / CHECKPOINTS, "read", limit),
    )
    payload = None
    if found is not None:
        run.checkpoint, payload = found
    payload = ranks.broadcast_bytes(payload)
    if payload is not None:
        state = checkpoint.unpack(payload)
        _restore(run, parts, state)
        told = None
        if parts.world.rank == 0 and state["config_digest"] == parts.config_digest:
            told = told_evaluation(parts.folder / METRICS, run.step)
        run.evaluation = ranks.gather(told)[0]
        run.evaluated_at = None if run.evaluation is None else run.step


def _newest(parts: Parts) -> tuple[Path, bytes] | None:
    folder = parts.folder / CHECKPOINTS
    names = checkpoint.listed(folder)
    if not parts.resume:
        if names:
            raise ConfigError(
                str(parts.folder),
                f"holds checkpoints of an earlier run ({names[0].name}), which this one would overwrite",
                f"{GO_ON}, or begin in another folder: another `name`, or another DISTRAIN_RUN_DIR where the "
                "ranks get one (RUN_DIR of launch/mpirun.sh)",
            )
        return None
    found = checkpoint.newest_valid(folder)
    if found is None and names:
        raise CheckpointError(
            str(folder),
            f"all {len(names)} checkpoints are damaged",
            "restore one from a backup, or delete the folder to start from the beginning",
        )
    if found is None:
        log.info("%s: no checkpoint yet, training starts from the beginning", folder)
        return None
    checkpoint.set_aside(folder, found[0])
    log.info("resuming from %s", found[0])
    return found


def _restore(run: Run, parts: Parts, state: dict[str, Any]) -> None:
    where = str(parts.folder / CHECKPOINTS)
    if state.get("format") != _FORMAT:
        raise CheckpointError(
            where,
            f"checkpoint format {state.get('format')} is not {_FORMAT}",
            "resume it with the version of distrain that wrote it",
        )
    _check_position(where, run, parts, state)
    if state["config_digest"] != parts.config_digest:
        log.warning(
            "the configuration has changed since the checkpoint was written (the launcher says in what)"
        )
    try:
        run.module.load_state_dict(state["model"])
        _load_optimizer(run.optimizer, state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            where,
            f"the checkpoint does not fit the model ({str(error).splitlines()[0]})",
            "resume with the model settings that it was written with",
        ) from error
    if state["world_size"] == parts.world.size:
        _set_random_state(state["random"][parts.world.rank], parts.device)
    else:
        # Random layers get fresh streams; the order of images does not depend on the ranks.
        log.warning("the checkpoint is of %d ranks, this run has %d", state["world_size"], parts.world.size)
    run.step = run.resumed_from = state["step"]


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the momentum, but keep the options as configured now, which ``load_state_dict`` replaces."""
    configured = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, options in zip(optimizer.param_groups, configured, strict=True):
        group.update(options)


def _check_position(where: str, run: Run, parts: Parts, state: dict[str, Any]) -> None:
    """Make sure that the checkpoint's step is the same place in the data as this run's."""
    if state["global_batch"] != parts.global_batch:
        raise CheckpointError(
            where,
            f"the checkpoint has global batch {state['global_batch']}, this run {parts.global_batch}, so its "
            "position in the data would be another",
            f"resume with {state['world_size']} ranks, or with the data.batch_per_rank or train.accumulate "
            f"that gives {state['global_batch']} images per step",
        )
    if state["steps_per_epoch"] != run.steps_per_epoch:
        raise CheckpointError(
            where,
            f"the checkpoint has {state['steps_per_epoch']} steps per epoch, this run {run.steps_per_epoch} "
            "with the same global batch: other data, or another cut of it",
            "resume with the pack that it was written with (data.train) and its data.last_batch, "
            "data.group_nodes and data.reshuffle, or begin a new run",
        )


def _set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
