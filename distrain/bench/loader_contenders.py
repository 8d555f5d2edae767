"""Who takes part in the loader benchmark: our engines and the peers, on the same bytes and crops."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from distrain.bench.errors import Unavailable
from distrain.data.blobs import Blobs, address_of
from distrain.data.decode.engine import DecodeEngine
from distrain.data.raw_layout import RAW_ENCODINGS, rgb_pixels, yuv420_pixels, yuv420_planes

CHUNK = 32  # images that one thread decodes in one call


@dataclass(frozen=True)
class Workload:
    """What every contender does in one pass.

    Attributes:
        name: of the set: orig, short256, yuv420 or raw.
        blobs: JPEGs, or raw pictures (`distrain.data.raw_layout`).
        sizes: int32 [N, 2], width and height of each picture.
        crops: int32 [N, 4], (x, y, width, height).
        flips: bool [N].
        side: of the square outputs, pixels.
        threads: decoder threads (processes for those that use processes).
    """

    name: str
    blobs: list[bytes]
    sizes: np.ndarray
    crops: np.ndarray
    flips: np.ndarray
    side: int
    threads: int

    @property
    def is_raw(self) -> bool:
        """True if the blobs are pixels."""
        return self.name in RAW_ENCODINGS

    @property
    def chunks(self) -> list[slice]:
        """Parts of the set that are decoded by one call."""
        return [slice(i, min(i + CHUNK, len(self.blobs))) for i in range(0, len(self.blobs), CHUNK)]


class Contender(Protocol):
    """One way to turn the bytes of a workload into batches."""

    name: str
    exact: bool  # antialiased as Pillow does it; otherwise only near

    def batches(self) -> Iterator[np.ndarray]:
        """Yield uint8 [n, side, side, 3]; a batch may be overwritten later.

        In the order of the workload; a contender with an order of its own has an attribute ``order``,
        int64 [N], the picture of each image. One with more to say than its rate has ``facts``.
        """
        ...


class _InThreads:
    """Decodes chunks on a pool of threads, into a ring of preallocated batches that are never waited for."""

    def __init__(self, work: Workload, name: str, exact: bool, decode: Callable[[slice, np.ndarray], None]):
        self.name, self.exact = name, exact
        self._work, self._decode = work, decode
        self._ring = np.empty((2 * work.threads, CHUNK, work.side, work.side, 3), np.uint8)
        self._pool = ThreadPoolExecutor(work.threads)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield one batch a chunk, in order."""
        ahead: deque[tuple[Future[None], np.ndarray]] = deque()
        for number, part in enumerate(self._work.chunks):
            if len(ahead) == len(self._ring):
                yield _finished(*ahead.popleft())
            batch = self._ring[number % len(self._ring), : part.stop - part.start]
            ahead.append((self._pool.submit(self._decode, part, batch), batch))
        while ahead:
            yield _finished(*ahead.popleft())


def _finished(job: Future[None], batch: np.ndarray) -> np.ndarray:
    job.result()
    return batch


def _by_engine(engine: DecodeEngine, blobs: Sequence[bytes], work: Workload) -> Callable[..., None]:
    # Addresses and sizes are known, as they are of images in the store of a training run.
    arrays = [np.frombuffer(blob, np.uint8) for blob in blobs]
    addresses = np.array([address_of(array) for array in arrays], np.int64)
    sizes = np.array([array.size for array in arrays], np.int64)

    def decode(part: slice, out: np.ndarray) -> None:
        views = Blobs(addresses[part], sizes[part], lambda i: memoryview(blobs[part.start + i]))
        engine.decode_batch(views, work.crops[part], work.flips[part], out)

    return decode


def native(work: Workload) -> Contender:
    """Return our C decoder; JPEGs are indexed before, as a pack or the store does it."""
    from distrain.data.decode import indexed, native

    try:
        if work.is_raw:
            return _InThreads(work, "native", True, _by_engine(native.load_raw(work.name), work.blobs, work))
        blobs = [indexed.index(blob) or blob for blob in work.blobs]
        return _InThreads(work, "native", True, _by_engine(native.load(), blobs, work))
    except RuntimeError as error:
        raise Unavailable(str(error)) from None


def native_plain(work: Workload) -> Contender:
    """Return our C decoder on ordinary JPEG bytes, without an index."""
    from distrain.data.decode import native

    if work.is_raw:
        raise Unavailable("raw pictures have no index; see native")
    try:
        return _InThreads(work, "native-plain", True, _by_engine(native.load(), work.blobs, work))
    except RuntimeError as error:
        raise Unavailable(str(error)) from None


def fallback(work: Workload) -> Contender:
    """Return the engine that serves where the native one is not built: simplejpeg, Pillow's resize."""
    from distrain.data.decode.raw import RawEngine
    from distrain.data.decode.turbojpeg import TurboJpegEngine

    engine: DecodeEngine = RawEngine(work.name) if work.is_raw else TurboJpegEngine()
    return _InThreads(work, "fallback", True, _by_engine(engine, work.blobs, work))


def pixels_of(work: Workload, blob: bytes) -> np.ndarray:
    """Return uint8 [H, W, 3] of a picture of the workload: a JPEG by simplejpeg."""
    import simplejpeg

    if work.is_raw:
        return rgb_pixels(blob) if work.name == "raw" else yuv420_pixels(blob)
    return simplejpeg.decode_jpeg(blob, fastdct=False)


def turbojpeg(work: Workload) -> Contender:
    """Return simplejpeg + OpenCV's bilinear resize: the fastest usual way, without antialiasing.

    Of yuv420 it resizes the three planes and makes colours of the output's pixels only, as ours does.
    """
    import cv2

    cv2.setNumThreads(1)  # threads are the pool's
    side = (work.side, work.side)

    def resize(pixels: np.ndarray, crop: Sequence[int]) -> np.ndarray:
        x, y, width, height = crop
        return cv2.resize(pixels[y : y + height, x : x + width], side, interpolation=cv2.INTER_LINEAR)

    def resized_planes(blob: bytes, crop: Sequence[int]) -> np.ndarray:
        x, y, width, height = crop
        half = (x // 2, y // 2, (x + width + 1) // 2 - x // 2, (y + height + 1) // 2 - y // 2)
        luma, *chroma = yuv420_planes(blob)
        planes = [resize(luma, crop), *(resize(plane, half) for plane in reversed(chroma))]
        return cv2.cvtColor(cv2.merge(planes), cv2.COLOR_YCrCb2RGB)

    def decode(part: slice, out: np.ndarray) -> None:
        for blob, crop, flip, image in zip(
            work.blobs[part], work.crops[part].tolist(), work.flips[part], out, strict=True
        ):
            if work.name == "yuv420":
                resized = resized_planes(blob, crop)
            else:
                resized = resize(pixels_of(work, blob), crop)
            if flip:
                cv2.flip(resized, 1, dst=image)
            else:
                image[...] = resized

    return _InThreads(work, "turbojpeg", False, decode)


def pillow(blob: bytes, crop: Sequence[int], flip: bool, work: Workload) -> np.ndarray:
    """Return uint8 [S, S, 3] by Pillow alone, S the workload's side: the reference.

    It is also what torchvision does on the CPU.
    """
    whole = Image.fromarray(pixels_of(work, blob)) if work.is_raw else Image.open(io.BytesIO(blob))
    image, side = whole.convert("RGB"), work.side
    x, y, width, height = crop
    part = image.crop((x, y, x + width, y + height)).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else part)


class PillowDataset:
    """A map-style data set for torch's DataLoader: index to uint8 [side, side, 3].

    Args:
        work: the pictures.
    """

    def __init__(self, work: Workload) -> None:
        self._work = work

    def __len__(self) -> int:
        return len(self._work.blobs)

    def __getitem__(self, index: int) -> Any:
        import torch

        work = self._work
        pixels = pillow(work.blobs[index], work.crops[index].tolist(), work.flips[index], work)
        return torch.from_numpy(pixels.copy())
