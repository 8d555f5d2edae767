"""Settings of the data: which packs, where they live in memory, how images become batches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distrain.settings import Settings


class JitterSettings(Settings):
    """Colour jitter of training images; 0 leaves a property alone."""

    brightness: float = Field(0.0, ge=0, lt=1, description="factor drawn from 1 - x to 1 + x")
    contrast: float = Field(0.0, ge=0, lt=1, description="factor drawn from 1 - x to 1 + x")
    saturation: float = Field(0.0, ge=0, lt=1, description="factor drawn from 1 - x to 1 + x")

    @property
    def is_on(self) -> bool:
        """True if any colour changes."""
        return max(self.brightness, self.contrast, self.saturation) > 0


class RandAugmentSettings(Settings):
    """RandAugment of training images (Cubuk et al. 2020); none if ops is 0."""

    ops: int = Field(0, ge=0, le=14, description="operations drawn for each image, e.g. 2")
    magnitude: float = Field(9.0, ge=0, le=30, description="strength of all operations; 30 is the strongest")


class AugmentSettings(Settings):
    """Training transform: what is cut out of an image, flip, colours, RandAugment."""

    crop: Literal["random", "center", "whole"] = Field(
        "random",
        description="random: random resized crop; center: largest central square; whole: all of it, resized",
    )
    scale: tuple[float, float] = Field((0.08, 1.0), description="area of the crop, as parts of the image")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="aspect ratio (width/height) of the crop")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    jitter: JitterSettings = JitterSettings()
    randaugment: RandAugmentSettings = RandAugmentSettings()

    @model_validator(mode="after")
    def _ranges(self) -> AugmentSettings:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale={list(self.scale)} is not 0 < low <= high <= 1; write e.g. [0.08, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio={list(self.ratio)} is not 0 < low <= high; write e.g. [0.75, 1.3333]")
        return self


class DataSettings(Settings):
    """The data of a run: two packs and the way from their bytes to batches."""

    train: str = Field(description="folder of the packed training set (written by `distrain pack`)")
    val: str = Field(description="folder of the packed held-out set")
    memory: Literal["node", "disk"] = Field(
        "node", description="node: one copy in the memory of each node, shared by its ranks; disk: memory map"
    )
    index: Literal["pack", "load"] = Field(
        "pack",
        description="of JPEGs, for the native decoder: pack: as `distrain pack --index` stored; load: images "
        "packed without one get it while they are loaded",
    )
    group_nodes: int = Field(
        1, ge=1, description="nodes that hold the training set together, each a part; groups replicate it"
    )
    reshuffle: Literal["global", "local", "partial"] = Field(
        "global",
        description="if group_nodes > 1: global: images travel, the same batches on any number of nodes; "
        "local: each node reads its own part; partial: a fraction of each part changes places",
    )
    partial: float | None = Field(
        None, gt=0, lt=1, description="reshuffle=partial: fraction of each part that changes places per epoch"
    )
    exchange_window: float = Field(
        0.125,
        gt=0,
        le=1,
        description="memory for images that arrive ahead of time, as a fraction of a node's part",
    )
    batch_per_rank: int = Field(
        256, ge=1, description="images per rank and micro-batch (a step has `train.accumulate` of them)"
    )
    eval_batch_per_rank: int = Field(256, ge=1, description="images per rank and evaluation step")
    image_size: int = Field(224, ge=8, description="side of the square training crop, pixels")
    eval_resize: int | None = Field(
        None,
        ge=8,
        description="short side before the evaluation crop, pixels; default: 8/7 of eval_image_size",
    )
    eval_image_size: int | None = Field(
        None, ge=8, description="side of the evaluation crop; default: image_size"
    )
    eval_crop: Literal["center", "whole"] = Field(
        "center",
        description="center: resize, then centre crop; whole: the whole image resized to eval_image_size",
    )
    image_size_from: dict[int, int] = Field(
        {},
        description="progressive resizing: training crop from an epoch on, e.g. {0: 128, 30: 160}; "
        "image_size is the largest, and holds where nothing is said",
    )
    augment: AugmentSettings = AugmentSettings()
    last_batch: Literal["drop", "wrap"] = Field(
        "drop",
        description="drop: the incomplete last global batch is left out; wrap: filled from the epoch's start",
    )
    engine: Literal["auto", "native", "turbojpeg", "dali", "nvjpeg"] = Field(
        "auto",
        description="image decoder; auto: native where it is built, else turbojpeg; dali, nvjpeg: on the "
        "rank's GPU if it has one (dali also without)",
    )
    threads: int = Field(4, ge=1, description="decoder threads per rank")
    queue_batches: int = Field(3, ge=1, description="batches decoded ahead per rank, each of a whole step")
    on_bad_image: Literal["fail", "skip"] = Field(
        "fail", description="an image that does not decode: end the run, or leave it out and count it"
    )

    @model_validator(mode="after")
    def _parts(self) -> DataSettings:
        if self.group_nodes > 1 and self.memory == "disk":
            raise ValueError(
                f"group_nodes={self.group_nodes} shares memory, and memory=disk uses none; "
                "set memory=node or group_nodes=1"
            )
        if self.index == "load" and (self.group_nodes > 1 or self.memory == "disk"):
            raise ValueError(
                f"index=load does not go with memory={self.memory} and group_nodes={self.group_nodes}: "
                "a node indexes all images, in memory; pack with --index instead"
            )
        if (self.partial is None) == (self.reshuffle == "partial"):
            raise ValueError(
                f"partial={self.partial} does not go with reshuffle={self.reshuffle}; "
                "set both, e.g. reshuffle=partial partial=0.1, or leave partial out"
            )
        return self

    @model_validator(mode="after")
    def _sizes(self) -> DataSettings:
        for epoch, size in self.image_size_from.items():
            if epoch < 0 or not 8 <= size <= self.image_size:
                raise ValueError(
                    f"image_size_from={{{epoch}: {size}}} is not an epoch from 0 on and a side of 8 to "
                    f"image_size={self.image_size} pixels; write e.g. {{0: 128, 30: 160}}"
                )
        return self

    def image_size_of(self, epoch: int) -> int:
        """Return the side of the training crop in an epoch, pixels."""
        begun = [first for first in self.image_size_from if first <= epoch]
        return self.image_size_from[max(begun)] if begun else self.image_size

    @property
    def moving_fraction(self) -> float:
        """Part of the images that a node reads in an epoch and that may lie on another one."""
        if self.group_nodes == 1 or self.reshuffle == "local":
            return 0.0
        return 1.0 if self.partial is None else self.partial

    @property
    def eval_sides(self) -> tuple[int, int]:
        """Short side after the resize and side of the centre crop in evaluation, pixels."""
        size = self.eval_image_size or self.image_size
        return self.eval_resize or round(size * 8 / 7), size
