"""Near-duplicates: images of a class that look alike, found by perceptual hashes and left out of a pack.

The idea is that of CE-Dedup (Li, Chang and Liu, "CE-Dedup: Cost-Effective Convolutional Neural Nets
Training based on Image Deduplication", ISPA 2021): a hash of 64 bits an image; two images are duplicates
if their hashes differ in at most so many bits; of duplicates the first is kept. Only images of one class
are compared: alike pictures under two labels are a question for the user, not one of size.
"""

from __future__ import annotations

import importlib
import io
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel

from distrain.data.disk import write_file
from distrain.data.ingest.convert import PackOptions, Unusable, convert
from distrain.data.ingest.listing import Listing, SourceImage
from distrain.data.ingest.pool import run_jobs
from distrain.data.ingest.readers import Readers
from distrain.data.ingest.upright import upright
from distrain.errors import UsageError, nearest

METHODS = {"phash": "phash", "dhash": "dhash", "ahash": "average_hash"}  # ours: that of imagehash
_BITS = 64
_CURVE_LEAST = 16  # bits up to which the curve is told at least
_CHUNK = 256  # images that a worker hashes at once
_DRAFT_SIDE = 128  # JPEG is decoded at a reduced size not below this; hashes look at 32 pixels

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rule:
    """When two images are duplicates: ``phash:4`` is at most 4 of 64 bits of a phash differ."""

    method: str
    distance: int

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``METHOD:DISTANCE``.

        Raises:
            UsageError: there is no such method, the distance is no number of bits, or imagehash is missing.
        """
        method, _, number = text.partition(":")
        if method not in METHODS:
            raise UsageError(
                "--dedup", f"{text!r} names no hash{nearest(method, METHODS)}", "write e.g. phash:4"
            )
        if not number.isdecimal() or int(number) > _BITS // 2:
            raise UsageError(
                "--dedup", f"{text!r} has no distance of 0 to {_BITS // 2} bits", "write phash:4"
            )
        _imagehash()
        return cls(method, int(number))


class Found(BaseModel):
    """What a comparison of all images found.

    Attributes:
        duplicates: images to leave out, and their keepers, as positions in the listing, with distances.
        curve: ``curve[t]``: how many images a distance of ``t`` bits would leave out.
        compared: images that have a hash.
    """

    duplicates: tuple[tuple[int, int, int], ...]
    curve: tuple[int, ...]
    compared: int


def _imagehash() -> Any:
    try:
        return importlib.import_module("imagehash")
    except ImportError:
        raise UsageError(
            "--dedup", "it needs imagehash, which is not installed", "pip install 'distrain[dedup]'"
        ) from None


@dataclass(frozen=True)
class _HashJob:
    first: int
    images: tuple[SourceImage, ...]
    method: str


def _hash_chunk(job: _HashJob) -> tuple[int, list[int | None]]:
    """Return the hashes of some images; None for those that are no images (the pack says why)."""
    hash_of = getattr(_imagehash(), METHODS[job.method])
    hashes: list[int | None] = []
    with Readers() as readers, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd EXIF data and of very large images
        for source in job.images:
            try:
                picture = Image.open(io.BytesIO(readers.read(source)))
                picture.draft("RGB", (_DRAFT_SIDE, _DRAFT_SIDE))
                bits = hash_of(upright(picture).convert("RGB")).hash
                hashes.append(int.from_bytes(np.packbits(bits).tobytes(), "big"))
            except Exception:  # see `convert`: what Pillow raises on damaged files has no end
                hashes.append(None)
    return job.first, hashes


def hash_images(
    images: Sequence[SourceImage], method: str, workers: int, progress: Progress
) -> list[int | None]:
    """Return the hash of each image, 64 bits; None where there is no picture."""
    jobs = [
        _HashJob(first, tuple(images[first : first + _CHUNK]), method)
        for first in range(0, len(images), _CHUNK)
    ]
    hashes: list[int | None] = [None] * len(images)
    done = 0
    for first, found in run_jobs(_hash_chunk, jobs, workers):
        hashes[first : first + len(found)] = found
        done += len(found)
        progress(done, len(images))
    return hashes


def find_once(
    path: Path, listing: Listing, rule: Rule, options: PackOptions, workers: int, progress: Progress
) -> Found:
    """Find duplicates, or read what an earlier run for the same pack found and kept in ``path``."""
    if path.exists():
        return Found.model_validate_json(path.read_bytes())
    found = find_duplicates(listing, rule, options, workers, progress)
    write_file(path, found.model_dump_json().encode())
    return found


def without(listing: Listing, found: Found) -> Listing:
    """Return the listing without the duplicates; all classes stay."""
    left_out = {image for image, _, _ in found.duplicates}
    images = tuple(image for number, image in enumerate(listing.images) if number not in left_out)
    return Listing(listing.classes, images, listing.left_out)


@dataclass(frozen=True)
class _CheckJob:
    numbers: tuple[int, ...]
    images: tuple[SourceImage, ...]
    options: PackOptions


def _unusable(job: _CheckJob) -> tuple[int, ...]:
    """Return the numbers of the images that cannot be packed."""
    found: list[int] = []
    with Readers() as readers:
        for number, image in zip(job.numbers, job.images, strict=True):
            try:
                convert(readers.read(image), job.options)
            except Unusable:
                found.append(number)
    return tuple(found)


def _find_unusable(
    images: Sequence[SourceImage], numbers: Iterable[int], options: PackOptions, workers: int
) -> set[int]:
    wanted = sorted(numbers)
    cuts = [tuple(wanted[first : first + _CHUNK]) for first in range(0, len(wanted), _CHUNK)]
    jobs = [_CheckJob(cut, tuple(images[number] for number in cut), options) for cut in cuts]
    return {number for found in run_jobs(_unusable, jobs, workers) for number in found}


def find_duplicates(
    listing: Listing,
    rule: Rule,
    options: PackOptions | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> Found:
    """Hash all images of a source and find those that look like an earlier one of their class.

    What has a hash may still be of no use to a pack with these options (pixels without a defined range,
    say). It must not be kept in the place of another. So the images that are kept instead of others are
    converted on trial, which costs as much as to pack them, and where one fails, all that look like it.
    """
    hashes = hash_images(listing.images, rule.method, workers, progress)
    checked: set[int] = set()
    again: set[int] = set()
    while True:
        found = _compare_classes(listing, hashes, rule)
        keepers = {keeper for _, keeper, _ in found.duplicates}
        wanted = (keepers | again) - checked
        if not wanted:
            return found
        unusable = _find_unusable(listing.images, wanted, options or PackOptions(), workers)
        checked |= wanted
        again = {image for image, keeper, _ in found.duplicates if keeper in unusable}
        for number in unusable:
            hashes[number] = None


def _compare_classes(listing: Listing, hashes: Sequence[int | None], rule: Rule) -> Found:
    """Compare the images of each class that have a hash."""
    members: dict[int, list[int]] = defaultdict(list)
    for number, image in enumerate(listing.images):
        if hashes[number] is not None:
            members[image.label].append(number)
    most = min(max(rule.distance, _CURVE_LEAST), _BITS // 2)
    curve = np.zeros(most + 1, np.int64)
    duplicates: list[tuple[int, int, int]] = []
    for numbers in members.values():
        values = np.array([hashes[number] for number in numbers], np.uint64)
        dropped, pairs = compare(values, rule.distance, most)
        curve += dropped
        duplicates += [(numbers[image], numbers[keeper], bits) for image, keeper, bits in pairs]
    return Found(
        duplicates=tuple(sorted(duplicates)),
        curve=tuple(curve.tolist()),
        compared=sum(map(len, members.values())),
    )


def compare(hashes: np.ndarray, distance: int, most: int) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Compare each image with the earlier ones that are kept.

    Args:
        hashes: uint64 [N], in the order of preference.
        distance: bits in which duplicates may differ.
        most: largest distance of the curve.

    Returns:
        For each distance of 0 to ``most`` bits how many would be left out, int64 [most + 1]; and for
        ``distance`` the images left out, their nearest keepers, the bits between them.
    """
    limits = np.arange(most + 1)[:, None]
    kept = np.ones((most + 1, len(hashes)), bool)
    pairs: list[tuple[int, int, int]] = []
    for image in range(1, len(hashes)):
        apart = differing_bits(hashes[:image], hashes[image])
        alike = kept[:, :image] & (apart <= limits)
        kept[:, image] = ~alike.any(axis=1)
        if not kept[distance, image]:
            keeper = int(np.where(alike[distance], apart, _BITS + 1).argmin())
            pairs.append((image, keeper, int(apart[keeper])))
    return (~kept).sum(axis=1), pairs


_POPCOUNT = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def differing_bits(hashes: np.ndarray, other: np.uint64) -> np.ndarray:
    """Return in how many bits each hash, uint64 [N], differs from another: uint8 [N]."""
    words = hashes ^ other
    counts: np.ndarray = _POPCOUNT[words.view(np.uint8).reshape(-1, 8)].sum(axis=1, dtype=np.uint8)
    return counts
