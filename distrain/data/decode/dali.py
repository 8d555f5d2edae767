"""JPEG by NVIDIA DALI: on the CPU, or decoded on a GPU where the rank has one.

DALI's loaders draw their own crops; here it gets ours, through `external_source`, and decodes, crops,
resizes and mirrors a batch. Every decoder thread has its own pipeline with one thread of DALI.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from distrain.data.decode.culprit import blame
from distrain.data.decode.indexed import plain_jpegs
from distrain.data.decode.library import bytes_of
from distrain.errors import ConfigError

_BATCH = 128  # images of one run of a pipeline


class DaliEngine:
    """A `DecodeEngine` that runs DALI pipelines.

    Args:
        device: number of the GPU that decodes (DALI's "mixed" decoder: nvJPEG), resizes and mirrors; the
            pixels come back to the batch on the host. None: the CPU.

    Raises:
        ConfigError: DALI is not installed.
    """

    name = "dali"

    def __init__(self, device: int | None = None) -> None:
        try:
            for module in ("nvidia.dali", "nvidia.dali.fn", "nvidia.dali.types"):
                importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                "data.engine",
                f"'dali' is not available: {error}",
                "pip install 'distrain[dali]', or set data.engine=auto",
            ) from None
        self._device = device
        self._local = threading.local()

    def decode_batch(
        self, blobs: Sequence[memoryview], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """See `DecodeEngine.decode_batch`. DALI sees damage in the part that it decodes, not beyond it."""
        jpegs = plain_jpegs(blobs)

        def decode(part: slice) -> None:
            self._run(jpegs[part], crops[part], flips[part], out[part])

        for start in range(0, len(jpegs), _BATCH):
            batch = slice(start, min(start + _BATCH, len(jpegs)))
            try:
                decode(batch)
            except RuntimeError as error:
                raise blame(self.name, batch, decode, error) from None

    def _run(
        self, jpegs: Sequence[memoryview | bytes], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        pipeline = getattr(self._local, "pipeline", None)
        if pipeline is None:
            pipeline = self._local.pipeline = build(self._device)
        # Nothing is copied: the arrays live until the run, which waits for its end, is over.
        pipeline.feed_input("jpeg", [bytes_of(jpeg) for jpeg in jpegs])
        pipeline.feed_input("anchor", np.ascontiguousarray(crops[:, :2], np.int32))
        pipeline.feed_input("shape", np.ascontiguousarray(crops[:, 2:], np.int32))
        pipeline.feed_input("size", np.full((len(jpegs), 2), out.shape[1], np.float32))
        pipeline.feed_input("flip", flips.astype(np.int32))
        try:
            (images,) = pipeline.run()
        except RuntimeError:
            self._local.pipeline = None  # after an error it is of no use any more
            raise
        out[...] = images.as_cpu().as_array()


def build(device: int | None) -> Any:
    """Return a pipeline for batches of any side and up to 128 images.

    Args:
        device: number of the GPU; None: the CPU.
    """
    dali, fn = importlib.import_module("nvidia.dali"), importlib.import_module("nvidia.dali.fn")
    types = importlib.import_module("nvidia.dali.types")

    @dali.pipeline_def(  # one batch at a time: the queue of batches is ours
        batch_size=_BATCH, num_threads=1, device_id=device,
        exec_pipelined=False, exec_async=False, prefetch_queue_depth=1,
    )  # fmt: skip
    def pipeline() -> Any:
        def source(name: str, dtype: Any, ndim: int) -> Any:
            return fn.external_source(name=name, dtype=dtype, ndim=ndim, no_copy=True)

        image = fn.decoders.image_slice(
            source("jpeg", types.UINT8, 1),
            source("anchor", types.INT32, 1),
            source("shape", types.INT32, 1),
            axes=[1, 0],  # anchors and shapes are (x, y) and (width, height)
            device="cpu" if device is None else "mixed",
            adjust_orientation=False,  # packing has turned the images
            jpeg_fancy_upsampling=True,  # as libjpeg does it
        )
        size = source("size", types.FLOAT, 1)
        image = fn.resize(image, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.flip(image, horizontal=source("flip", types.INT32, 0))

    built = pipeline()
    built.build()
    return built
