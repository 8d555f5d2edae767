"""From ``model.name`` to a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distrain.errors import ConfigError
from distrain.train.models.external import create_external
from distrain.train.models.resnet import ResNet, batch_norm, group_norm
from distrain.train.settings import ModelSettings

_IMAGENET: dict[str, Any] = {"width": 64, "small_images": False}
RESNETS: dict[str, dict[str, Any]] = {
    "resnet8": {"depths": (1, 1, 1), "width": 16, "bottleneck": False, "small_images": True},
    "resnet18": {"depths": (2, 2, 2, 2), "bottleneck": False, **_IMAGENET},
    "resnet34": {"depths": (3, 4, 6, 3), "bottleneck": False, **_IMAGENET},
    "resnet50": {"depths": (3, 4, 6, 3), "bottleneck": True, **_IMAGENET},
    "resnet101": {"depths": (3, 4, 23, 3), "bottleneck": True, **_IMAGENET},
    "resnet152": {"depths": (3, 8, 36, 3), "bottleneck": True, **_IMAGENET},
}


def create(settings: ModelSettings, num_classes: int, seed: int = 0) -> nn.Module:
    """Build the model on the CPU, in the memory format that the settings ask for.

    The weights depend on the settings, `num_classes` and `seed` only; torch's global random state
    is left as it was.

    Raises:
        ConfigError: its library is not installed or does not know the name, or a setting does not apply.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(settings, num_classes)
    # Inputs leave the loader as NHWC; with channels-last weights no layer has to transpose them.
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _build(settings: ModelSettings, num_classes: int) -> nn.Module:
    if settings.name in RESNETS:
        return ResNet(
            **RESNETS[settings.name],
            num_classes=num_classes,
            norm=batch_norm if settings.norm == "batch" else group_norm,
            zero_init_last_gamma=settings.zero_init_last_gamma,
        )
    source, _, name = settings.name.partition(":")
    if settings.norm != "batch":
        raise ConfigError(
            "model.norm", f"{settings.norm!r} does not apply to {settings.name}", "leave model.norm out"
        )
    return create_external(source, name, num_classes)
