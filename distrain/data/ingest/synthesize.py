"""`distrain synthesize`: a small ImageNet-shaped tree of real JPEG files, for trials without ImageNet.

Pictures are collages with the statistics of photographs: occluding regions with sharp borders
(the "dead leaves" view of natural images) filled with 1/f noise, plus fine grain. A class is a hue
and the direction and pitch of faint stripes, so that a network has something to learn.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from distrain.data.disk import growing, new_folder
from distrain.data.ingest.pool import run_jobs
from distrain.errors import UsageError

_FIELD = 1024  # side of the noise fields that pictures are cut from, pixels
_FIELDS = 4
# Width, height and share; ImageNet: median about 500 x 375, a quarter upright, the rest any size.
_SIZES = ((500, 375, 0.5), (500, 333, 0.1), (375, 500, 0.16), (333, 500, 0.04))
_IMAGES_PER_JOB = 64
_TEXTURE, _SHAPES = 1.2, 2.0  # slopes of noise: photographs have about 1; 2 has smooth level lines


@dataclass(frozen=True)
class _Job:
    folder: str  # of the part: OUT/train or OUT/val
    classes: int
    seed: int
    numbers: range  # of the images within all parts; the class of image i is i % classes


def synthesize(
    out: str | Path, classes: int, images: int, val_images: int | None = None, seed: int = 0, workers: int = 1
) -> dict[str, int]:
    """Write ``out/train/CLASS/*.jpeg`` and ``out/val/CLASS/*.jpeg``; return the images of each part.

    Args:
        out: a folder that does not exist yet.
        classes: number of classes, named ``class0000`` on.
        images: training images in all, at least one a class; classes get equal parts.
        val_images: held-out images in all; default: a tenth of ``images``, at least one a class.
        seed: another seed, other pictures; the same files for any number of workers.
        workers: number of processes.

    Raises:
        UsageError: ``out`` exists, or the numbers make no sense.
        DataError: the disk is full or cannot be written.
    """
    out = new_folder(out)
    held_out = max(classes, images // 10) if val_images is None else val_images
    for name, value, least in (
        ("--classes", classes, 1),
        ("--images", images, classes),
        ("val", held_out, classes),
    ):
        if value < least:
            raise UsageError(name, f"{value} is less than {least}", "give at least one image of each class")
    if seed < 0:
        raise UsageError("--seed", f"{seed} is negative", "give 0 or more")
    with growing(out) as partial:  # half of a tree would look like a whole one
        for _ in run_jobs(_write, _jobs(partial, classes, images, held_out, seed), workers):
            pass
    return {"train": images, "val": held_out}


def _jobs(out: Path, classes: int, images: int, held_out: int, seed: int) -> list[_Job]:
    """Make the folders and cut the work."""
    jobs: list[_Job] = []
    for part, first, count in (("train", 0, images), ("val", images, held_out)):
        for label in range(classes):
            (out / part / class_name(label)).mkdir(parents=True)
        for start in range(first, first + count, _IMAGES_PER_JOB):
            stop = min(start + _IMAGES_PER_JOB, first + count)
            # Labels follow the number within the part, so both parts hold every class.
            jobs.append(_Job(str(out / part), classes, seed, range(start - first, stop - first)))
    return jobs


def class_name(label: int) -> str:
    """Return the folder name of a class."""
    return f"class{label:04d}"


def _write(job: _Job) -> int:
    part = 0 if Path(job.folder).name == "train" else 1
    for number in job.numbers:
        rng = np.random.default_rng((job.seed, part, number))
        label = number % job.classes
        picture = draw(rng, label, job.classes)
        quality = int(np.clip(rng.normal(95, 1.5), 90, 98))
        file = Path(job.folder, class_name(label), f"{number:07d}.jpeg")
        Image.fromarray(picture).save(file, quality=quality, subsampling="4:2:0")
    return len(job.numbers)


@functools.cache
def _fields(slope: float) -> np.ndarray:
    """Return noise whose amplitude falls as 1/frequency**slope: float32 [_FIELDS, F, F], deviation 1."""
    rng = np.random.default_rng(int(slope * 100))
    spectrum = np.fft.rfft2(rng.standard_normal((_FIELDS, _FIELD, _FIELD), dtype=np.float32))
    frequency = np.hypot(np.fft.fftfreq(_FIELD)[:, None], np.fft.rfftfreq(_FIELD)[None, :]) * _FIELD
    frequency[0, 0] = np.inf
    fields = np.fft.irfft2(spectrum / frequency**slope, (_FIELD, _FIELD))
    return (fields / fields.std(axis=(1, 2), keepdims=True)).astype(np.float32)


def _cut(rng: np.random.Generator, slope: float, width: int, height: int) -> np.ndarray:
    """Return a random part of a random field: float32 [height, width]."""
    x, y = rng.integers(0, _FIELD - width + 1), rng.integers(0, _FIELD - height + 1)
    return _fields(slope)[rng.integers(_FIELDS), y : y + height, x : x + width]


def _size(rng: np.random.Generator) -> tuple[int, int]:
    share = rng.random()
    for width, height, part in _SIZES:
        if share < part:
            return width, height
        share -= part
    width = int(rng.integers(180, 641))
    return width, int(np.clip(width * rng.uniform(0.65, 1.4), 150, 640))


def draw(rng: np.random.Generator, label: int, classes: int) -> np.ndarray:
    """Return one picture of a class: uint8 [height, width, 3]."""
    width, height = _size(rng)
    luma = np.full((height, width), 128.0, np.float32)
    for _ in range(3):  # regions, each bounded by a level line of smooth noise, lie over each other
        region = _cut(rng, _SHAPES, width, height) > rng.uniform(-0.8, 0.8)
        luma[region] = (rng.uniform(60, 196) + rng.uniform(8, 40) * _cut(rng, _TEXTURE, width, height))[
            region
        ]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle, pitch = np.pi * label / classes, 12 + 8 * (label % 3)
    along = rows * np.float32(np.cos(angle)) + columns * np.float32(np.sin(angle))
    luma += 22 * np.sin(along * np.float32(2 * np.pi / pitch) + np.float32(rng.uniform(0, 6.28)))
    luma += rng.uniform(3, 10) * rng.standard_normal((height, width), dtype=np.float32)
    hue = 2 * np.pi * (label / classes + rng.normal(0, 0.02))
    tint = 28 * np.cos(hue - np.array([0, 2, 4], np.float32) * np.pi / 3)
    colour = (
        luma[:, :, None]
        + tint.astype(np.float32)
        + 14 * _cut(rng, _TEXTURE, width, height)[:, :, None] * tint / 28
    )
    return np.clip(colour, 0, 255).astype(np.uint8)
