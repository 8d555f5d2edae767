"""Settings of the model and of the training recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator
from typing_extensions import Self

from distrain.errors import nearest
from distrain.settings import Seconds, Settings, Steps
from distrain.units import Duration

RESNETS = ("resnet8", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
SOURCES = ("torchvision", "timm")
"""Libraries whose models can be named, as ``timm:NAME``; whether they have it only they can tell."""


class ModelSettings(Settings):
    """What is trained."""

    name: str = Field(
        "resnet50", description="resnet18 ... resnet152, resnet8 (small images), torchvision:NAME, timm:NAME"
    )
    num_classes: int | None = Field(
        None, ge=2, description="default: the number of classes of the training pack"
    )
    norm: Literal["batch", "group"] = Field(
        "batch", description="normalisation layers of the built-in ResNets"
    )
    zero_init_last_gamma: bool = Field(True, description="each residual block starts as the identity")
    channels_last: bool = Field(True, description="memory format of activations and weights")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        source, colon, inner = name.partition(":")
        if name not in RESNETS and not (colon and inner and source in SOURCES):
            known = [*RESNETS, *(f"{source}:" for source in SOURCES)]
            raise ValueError(
                f"{name!r} is not a model{nearest(name, known)}; "
                f"use one of {', '.join(RESNETS)}, torchvision:NAME or timm:NAME"
            )
        return name


class OptimizerSettings(Settings):
    """SGD with momentum; the learning rate follows the global batch (linear scaling, Goyal et al. 2017)."""

    lr: float = Field(
        0.1, gt=0, description="learning rate for `lr_batch` images; scaled linearly by the global batch"
    )
    lr_batch: int = Field(256, ge=1, description="the batch for which `lr` is meant")
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(1e-4, ge=0, description="not applied to normalisation layers and biases")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs momentum > 0; set momentum, e.g. 0.9")
        return self


class LearningRateSettings(Settings):
    """Learning rate over time: linear warm-up, then steps or a cosine."""

    warmup: Steps = Field(Duration(5, "ep"), description="linear rise from lr to the scaled lr")
    decay: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[Steps, ...] = Field(
        (Duration(30, "ep"), Duration(60, "ep"), Duration(80, "ep")),
        description="where `step` multiplies by gamma",
    )
    gamma: float = Field(0.1, gt=0, le=1)


class TrainSettings(Settings):
    """The recipe."""

    duration: Steps = Field(Duration(90, "ep"), description="length of training, e.g. 90ep or 5000st")
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: LearningRateSettings = LearningRateSettings()
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: autocast; weights and gradients stay fp32"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    accumulate: int = Field(
        1, ge=1, description="micro-batches of data.batch_per_rank images whose gradients make one step"
    )
    mean: tuple[float, float, float] = Field(
        (0.485, 0.456, 0.406), description="mean of the channels red, green, blue, in parts of 255"
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (0.229, 0.224, 0.225), description="standard deviation of the channels, in parts of 255"
    )
    log_every: Steps = Field(Duration(50, "st"), description="a line of metrics each; 0: one at the end")
    eval_every: Steps = Field(
        Duration(1, "ep"), description="evaluation on the held-out set; the end is always evaluated"
    )
    checkpoint_every: Steps = Field(
        Duration(1, "ep"), description="how much work a crash may cost; the end is always kept"
    )
    checkpoint_seconds: Seconds = Field(
        3600.0,
        gt=0,
        description="a checkpoint that takes longer to write or to read ends a run of several ranks. For the "
        "ranks that wait meanwhile `comm.abort_seconds` does not count",
    )
    keep_checkpoints: int = Field(3, ge=1, description="newest checkpoints that are kept")
    tensorboard: bool = True

    @field_validator("duration")
    @classmethod
    def _trains(cls, duration: Duration) -> Duration:
        if duration.count == 0:
            raise ValueError(f"{str(duration)!r} is no training at all; write e.g. '90ep' or '500st'")
        return duration
