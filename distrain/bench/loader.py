"""The loader benchmark: images per CPU-second, ours beside the peers', pixels checked first.

All contenders get the same bytes, crops and flips in one run, and take turns pass by pass, so that a
noisy machine is noisy for everybody. CPU time is user and system time of this process and of the
worker processes that a contender started and ended within the pass.
"""

from __future__ import annotations

import io
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image

from distrain.bench import images
from distrain.bench.errors import Unavailable
from distrain.bench.loader_contenders import (
    Contender,
    Workload,
    fallback,
    native,
    native_plain,
    pillow,
    turbojpeg,
)
from distrain.bench.loader_own import Loader
from distrain.bench.loader_peers import PEERS
from distrain.data.augment import train_crops
from distrain.data.raw_layout import RAW_ENCODINGS, to_raw, to_yuv420
from distrain.data.settings import AugmentSettings
from distrain.errors import UsageError, nearest

SETS = ("orig", "short256", *RAW_ENCODINGS)
SEED = 1


def _whole_loader(work: Workload) -> Contender:
    return Loader(work, SEED)


_OURS: dict[str, Callable[[Workload], Contender]] = {
    "native": native,
    "native-plain": native_plain,
    "distrain": _whole_loader,
}
_OTHERS: dict[str, Callable[[Workload], Contender]] = {
    **PEERS,
    "turbojpeg": turbojpeg,
    "fallback": fallback,
}
DEFAULT_AGAINST = "torch,turbojpeg,fallback,dali,ffcv,webdataset"

Line = dict[str, object]


def _originals(seeds: Sequence[int]) -> list[bytes]:
    photos = images.photographs()
    return [images.original(seed, photos) for seed in seeds]


def make_workload(name: str, count: int, threads: int, side: int = 224, seed: int = SEED) -> Workload:
    """Generate the pictures of a set, and crops and flips as in training.

    Args:
        name: ``orig`` (JPEG, about 400 x 450, quality 95), ``short256`` (their short side at 256 pixels,
            quality 90), ``raw`` (the RGB pixels of short256) or ``yuv420`` (these as planes).
        count: pictures.
        threads: for the contenders.
        side: of the outputs, pixels.
        seed: of everything.

    Raises:
        UsageError: no such set.
    """
    if name not in SETS:
        raise UsageError("--set", f"{name!r} is no set{nearest(name, SETS)}", f"use {', '.join(SETS)}")
    seeds = range(seed * 100_000, seed * 100_000 + count)
    processes = min(os.cpu_count() or 1, 8)
    with ProcessPoolExecutor(processes) as pool:
        parts = pool.map(_originals, [seeds[i::processes] for i in range(processes)])
        blobs = [blob for part in parts for blob in part]
    if name != "orig":
        blobs = [images.short256(blob) for blob in blobs]
    sizes = np.array([images.size_of(blob) for blob in blobs], np.int32)
    if name in RAW_ENCODINGS:
        store = to_raw if name == "raw" else to_yuv420
        blobs = [store(Image.open(io.BytesIO(blob))) for blob in blobs]
    crops, flips = train_crops(AugmentSettings(), seed, 0, np.arange(count), sizes[:, 0], sizes[:, 1])
    return Workload(name, blobs, sizes, crops, flips, side, threads)


def _reference(work: Workload) -> np.ndarray:
    crops, flips = work.crops.tolist(), work.flips.tolist()
    return np.stack(
        [pillow(blob, crop, flip, work) for blob, crop, flip in zip(work.blobs, crops, flips, strict=True)]
    )


def check(contender: Contender, work: Workload, expected: np.ndarray) -> Line:
    """Compare a contender's pixels with Pillow's.

    An antialiased contender is right if the mean difference is at most 0.6 levels and 99.9 % of the
    values are within 8; one without antialiasing if the mean difference is at most 4.

    Returns:
        ``correct``, ``mean_difference`` and ``p999_difference``; nothing where pixels have no counterpart.
    """
    if contender.name == "ffcv":
        return {}
    got = np.concatenate([batch.copy() for batch in contender.batches()])
    expected = expected[getattr(contender, "order", slice(None))]
    if got.shape != expected.shape:
        return {"correct": False, "error": f"pixels {got.shape}, not {expected.shape}"}
    difference = np.abs(got.astype(np.int16) - expected)
    mean, p999 = float(difference.mean()), float(np.quantile(difference, 0.999))
    correct = mean <= 0.6 and p999 <= 8 if contender.exact else mean <= 4
    line: Line = {"correct": correct, "mean_difference": round(mean, 3), "p999_difference": p999}
    return line if correct else {**line, "error": "wrong pixels"}


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measure(
    contenders: Sequence[Contender], count: int, passes: int
) -> list[tuple[list[float], list[float]]]:
    """Return for each contender images per CPU-second and per second, one value a pass."""
    rates: list[tuple[list[float], list[float]]] = [([], []) for _ in contenders]
    for number in range(-1, passes):  # one pass of warm-up
        for contender, (per_cpu, per_wall) in zip(contenders, rates, strict=True):
            cpu, wall = _cpu_seconds(), time.perf_counter()
            for _ in contender.batches():
                pass
            cpu, wall = _cpu_seconds() - cpu, time.perf_counter() - wall
            if number >= 0:
                per_cpu.append(count / cpu)
                per_wall.append(count / wall)
    return rates


def _line(name: str, work: Workload) -> Line:
    return {"bench": "loader", "name": name, "set": work.name, "threads": work.threads}


def _prepare(name: str, work: Workload, expected: np.ndarray) -> tuple[Contender | None, Line]:
    """Return a contender whose pixels are right and the start of its line, or the line that says why not."""
    line = _line(name, work)
    try:
        contender = {**_OURS, **_OTHERS}[name](work)
        line |= check(contender, work, expected)
    except Unavailable as reason:
        return None, {**line, "error": str(reason)}
    except Exception as error:
        if name in _OURS:
            raise
        # A peer that breaks must not take the others' figures with it.
        return None, {**line, "error": f"{type(error).__name__}: {error}"}
    return (None if "error" in line else contender), line


def run(
    set_name: str = "orig",
    threads: int = 1,
    against: str = DEFAULT_AGAINST,
    count: int = 512,
    passes: int = 7,
) -> Iterator[Line]:
    """Run the benchmark and yield one line a contender, ready for JSON.

    Args:
        set_name: orig, short256, yuv420 or raw.
        threads: decoder threads of each contender.
        against: peers, comma-separated; empty: none.
        count: pictures; a multiple of 32.
        passes: timed passes over all pictures; medians are reported.

    Raises:
        UsageError: no such set or peer, or a count that is no multiple of 32.
    """
    peers = [name for name in against.split(",") if name]
    for name in peers:
        if name not in _OTHERS:
            known = ",".join(_OTHERS)
            raise UsageError("--against", f"{name!r} is no peer{nearest(name, _OTHERS)}", f"use {known}")
    if count < 32 or count % 32:
        raise UsageError("--images", f"{count} is no multiple of 32", "use e.g. 512")
    work = make_workload(set_name, count, threads)
    expected = _reference(work)
    ready: list[tuple[Contender, Line]] = []
    for name in [*_OURS, *peers]:
        contender, line = _prepare(name, work, expected)
        if contender is None:
            yield line
        else:
            ready.append((contender, line))
    rates = measure([contender for contender, _ in ready], count, passes)
    for (contender, line), (per_cpu, per_wall) in zip(ready, rates, strict=True):
        line |= getattr(contender, "facts", dict)()
        medians = [round(statistics.median(values), 1) for values in (per_cpu, per_wall)]
        yield {**line, "images_per_cpu_s": medians[0], "images_per_s": medians[1], "images": count,
               "passes": passes}  # fmt: skip
