"""One optimizer step on one rank."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distrain.errors import ConfigError
from distrain.timeline import span
from distrain.train.parts import Batch
from distrain.train.preprocess import Preprocess
from distrain.train.recipe import cross_entropy
from distrain.train.settings import TrainSettings


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """The arithmetic of forward: bf16 autocast, or plain fp32.

    bf16 has the exponent range of fp32, so gradients need no loss scaling.
    """
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def optimizer_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    preprocess: Preprocess,
    settings: TrainSettings,
) -> tuple[Tensor, Tensor]:
    """Forward, backward, exchange of gradients, update.

    The batch is cut into `settings.accumulate` micro-batches, whose gradients are added up, each
    weighted by its share of the images; only the last one's backward exchanges gradients. Each goes
    to the device when its turn has come. Nothing here waits for the device, except these copies.

    Returns:
        The mean loss over this rank's images and how many of them were classified rightly: float32
        and int64 scalars on the device.

    Raises:
        ConfigError: batch normalisation is left with one value a channel.
    """
    loss = torch.zeros((), device=preprocess.device)
    correct = torch.zeros((), dtype=torch.int64, device=preprocess.device)
    parts = (batch.images.chunk(settings.accumulate), batch.labels.chunk(settings.accumulate))
    micro_batches = list(zip(*parts, strict=True))
    optimizer.zero_grad(set_to_none=True)
    for number, micro_batch in enumerate(micro_batches, start=1):
        pixels, classes = preprocess.move(*micro_batch)
        with _exchange(model, last=number == len(micro_batches)):
            with span("forward"), autocast(preprocess.device, settings.precision):
                logits = _forward(model, preprocess.normalise(pixels))
            part = cross_entropy(logits, classes, settings.label_smoothing)
            part = part * (len(classes) / len(batch.labels))
            with span("backward"):
                part.backward()
        loss += part.detach()
        correct += (logits.detach().argmax(1) == classes).sum()
    with span("optimizer"):
        optimizer.step()
    return loss, correct


def _forward(model: nn.Module, images: Tensor) -> Tensor:
    try:
        logits: Tensor = model(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "data.batch_per_rank",
            f"batch normalisation cannot train on one value a channel, which is all that a batch of "
            f"{len(images)} x {images.shape[-2]} x {images.shape[-1]} pixels leaves in the last layers",
            "raise data.batch_per_rank or data.image_size, or set model.norm=group",
        ) from error
    return logits


def _exchange(model: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    if last or not isinstance(model, DistributedDataParallel):
        return contextlib.nullcontext()
    return model.no_sync()
