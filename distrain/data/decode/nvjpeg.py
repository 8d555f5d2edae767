"""JPEG by nvJPEG through torchvision, then crop, antialiased resize and mirror on the same GPU."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from distrain.data.decode.culprit import blame
from distrain.data.decode.engine import DecodeError
from distrain.data.decode.indexed import plain_jpegs
from distrain.data.decode.library import bytes_of
from distrain.data.decode.resample import check_inside
from distrain.errors import ConfigError

Decode = Callable[[list[torch.Tensor]], list[torch.Tensor]]


class NvjpegEngine:
    """A `DecodeEngine` on a torch device.

    The resize is torch's antialiased bilinear one in float32, rounded: within one level of Pillow's for the
    same decoded pixels.

    Args:
        decode: turns JPEGs, uint8 [size] on the host, into uint8 [3, H, W] on the device; fails as a whole
            with RuntimeError.
        device: where that happens. The pixels come back to the batch on the host.
    """

    name = "nvjpeg"

    def __init__(self, decode: Decode, device: torch.device) -> None:
        self._decode, self._device = decode, device
        self._local = threading.local()

    def decode_batch(
        self, blobs: Sequence[memoryview], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """See `DecodeEngine.decode_batch`. nvJPEG may decode a damaged image without complaint."""
        if not blobs:
            return
        jpegs = [torch.from_numpy(bytes_of(jpeg).copy()) for jpeg in plain_jpegs(blobs)]
        with self._own_stream():
            images = self._decoded(jpegs)
            batch = self._resized(images, crops, out.shape[1])
            mirrored = torch.from_numpy(flips.astype(np.bool_)).to(self._device)
            batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            torch.from_numpy(out).copy_(batch.permute(0, 2, 3, 1))  # waits for the device

    def _own_stream(self) -> AbstractContextManager[object]:
        """Let this thread's work run beside the training step, not behind it."""
        if self._device.type != "cuda":
            return nullcontext()
        stream = getattr(self._local, "stream", None)
        if stream is None:
            stream = self._local.stream = torch.cuda.Stream(self._device)
        return torch.cuda.stream(stream)

    def _decoded(self, jpegs: list[torch.Tensor]) -> list[torch.Tensor]:
        try:
            return self._decode(jpegs)
        except torch.OutOfMemoryError:
            raise  # of the device, not of an image
        except RuntimeError as error:
            raise blame(self.name, slice(0, len(jpegs)), lambda part: self._try(jpegs[part]), error) from None

    def _resized(self, images: list[torch.Tensor], crops: np.ndarray, side: int) -> torch.Tensor:
        batch = torch.empty((len(images), 3, side, side), dtype=torch.uint8, device=self._device)
        for position, (image, crop) in enumerate(zip(images, crops.tolist(), strict=True)):
            try:
                check_inside(crop, image.shape[2], image.shape[1])
            except ValueError as error:
                raise DecodeError(position, str(error)) from None
            batch[position] = _resized(image, crop, side)
        return batch

    def _try(self, jpegs: list[torch.Tensor]) -> None:
        self._decode(jpegs)


def _resized(image: torch.Tensor, crop: Sequence[int], side: int) -> torch.Tensor:
    """Return uint8 [3, side, side] of a crop of uint8 [3, H, W]."""
    x, y, width, height = crop
    part = image[None, :, y : y + height, x : x + width].float()
    resized = torch.nn.functional.interpolate(
        part, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].round_().clamp_(0, 255).to(torch.uint8)


def load(device: int | None) -> NvjpegEngine:
    """Return the engine on a GPU.

    Args:
        device: its number; None: the rank computes on the CPU.

    Raises:
        ConfigError: there is no GPU for this rank, or torchvision cannot decode on it.
    """
    advice = "set data.engine=auto"
    if device is None or not torch.cuda.is_available():
        why = "this rank computes on the CPU" if torch.cuda.is_available() else "torch sees no GPU"
        raise ConfigError("data.engine", f"'nvjpeg' decodes on a GPU, and {why}", advice)
    try:
        io: Any = importlib.import_module("torchvision.io")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision for another torch
        raise ConfigError(
            "data.engine",
            f"'nvjpeg' needs torchvision, which cannot be imported: {error}",
            f"pip install the torchvision that belongs to torch {torch.__version__}, or {advice}",
        ) from None
    target = torch.device("cuda", device)

    def decode(jpegs: list[torch.Tensor]) -> list[torch.Tensor]:
        found: list[torch.Tensor] = io.decode_jpeg(jpegs, mode=io.ImageReadMode.RGB, device=target)
        return found

    return NvjpegEngine(decode, target)
