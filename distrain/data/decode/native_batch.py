"""The arguments of one batch in the form in which the C functions take them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distrain.data.blobs import Blobs, address_of
from distrain.data.decode.library import bytes_of
from distrain.errors import UsageError


class BatchArguments:
    """Checked arrays of a batch, and pointers to the bytes of its images, which it keeps alive.

    Args:
        blobs: the bytes of each image; `Blobs` are not looked at one by one.
        crops, flips, out: see `distrain.data.decode.engine.DecodeEngine`.

    Attributes:
        status: int32 [N], filled by the C function: 0 or why an image failed.

    Raises:
        UsageError: the arrays do not have the shapes or types that `DecodeEngine` says.
    """

    def __init__(
        self, blobs: Sequence[memoryview | bytes], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        count = len(blobs)
        _check(count, crops, flips, out)
        self.count, self.out, self._blobs = count, out, blobs
        self.crops = np.ascontiguousarray(crops, np.int32)
        self.flips = np.ascontiguousarray(flips, np.bool_)
        self.status = np.empty(count, np.int32)
        self._pointers, self._sizes = _places(blobs)

    @property
    def images(self) -> tuple[int, int, int]:
        """Number of images, addresses of their pointers and of their sizes."""
        return self.count, address_of(self._pointers), address_of(self._sizes)

    @property
    def rest(self) -> tuple[int, int, int, int, int, int]:
        """Crops, flips, output width and height, output, status."""
        height, width = self.out.shape[1:3]
        return (
            address_of(self.crops), address_of(self.flips), width, height,
            address_of(self.out), address_of(self.status),
        )  # fmt: skip


def _places(blobs: Sequence[memoryview | bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return addresses and sizes, as pointers and size_t of C."""
    if isinstance(blobs, Blobs):
        # Non-negative int64 are the same bits as the unsigned types of 64 bits.
        return np.ascontiguousarray(blobs.addresses), np.ascontiguousarray(blobs.sizes)
    views = [bytes_of(blob) for blob in blobs]
    addresses = np.array([address_of(view) for view in views], np.int64)
    return addresses, np.array([view.size for view in views], np.int64)


def _check(count: int, crops: np.ndarray, flips: np.ndarray, out: np.ndarray) -> None:
    if crops.shape != (count, 4) or flips.shape != (count,):
        raise UsageError(
            "native decoder", f"{count} images with crops {crops.shape} and flips {flips.shape}",
            "give crops [N, 4] and flips [N]",
        )  # fmt: skip
    if out.dtype != np.uint8 or out.ndim != 4 or out.shape[0] != count or out.shape[3] != 3:
        raise UsageError(
            "native decoder", f"out is {out.dtype} {out.shape}", f"give uint8 [{count}, height, width, 3]"
        )
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise UsageError(
            "native decoder", "out is not contiguous or read-only", "give a C-contiguous writable array"
        )
