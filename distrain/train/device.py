"""Which device a rank computes on."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from distrain.errors import ConfigError
from distrain.world import World

log = logging.getLogger(__name__)


def pick_device(wanted: Literal["auto", "cpu", "cuda"], world: World) -> torch.device:
    """Return the CPU, or the GPU whose number is the local rank.

    Raises:
        ConfigError: CUDA is asked for and torch sees no GPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and gpus == 0):
        return torch.device("cpu")
    if gpus == 0:
        raise ConfigError(
            "train.device",
            f"cuda, but torch {torch.__version__} sees no GPU",
            "use train.device=auto or cpu, or install a torch built for this machine's CUDA",
        )
    if world.local_size > gpus and world.local_rank == 0:
        log.warning("%d ranks share %d GPUs of this node", world.local_size, gpus)
    device = torch.device("cuda", world.local_rank % gpus)
    torch.cuda.set_device(device)
    # All batches have one shape, so trying the convolution algorithms once pays for the whole run.
    torch.backends.cudnn.benchmark = True
    return device
