"""The arguments of one batch in the form in which the C functions take them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from distrain.errors import UsageError


class BatchArguments:
    """Checked arrays of a batch, and pointers to the bytes of its images.

    Args:
        views: uint8 [size] for each image; kept alive by this object.
        crops, flips, out: see `distrain.data.decode.engine.DecodeEngine`.

    Attributes:
        status: int32 [N], filled by the C function: 0 or why an image failed.

    Raises:
        UsageError: the arrays do not have the shapes or types that `DecodeEngine` says.
    """

    def __init__(
        self, views: Sequence[np.ndarray], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        count = len(views)
        _check(count, crops, flips, out)
        self.count, self.out, self._views = count, out, views
        self.crops = np.ascontiguousarray(crops, np.int32)
        self.flips = np.ascontiguousarray(flips, np.bool_)
        self.status = np.empty(count, np.int32)
        # One numpy array of addresses: a ctypes array would convert them one by one.
        self._pointers = np.array([view.__array_interface__["data"][0] for view in views], np.uintp)
        self._sizes = np.array([view.size for view in views], ctypes.c_size_t)

    @property
    def images(self) -> tuple[int, int, int]:
        """Number of images, addresses of their pointers and of their sizes."""
        return self.count, self._pointers.ctypes.data, self._sizes.ctypes.data

    @property
    def rest(self) -> tuple[int, int, int, int, int, int]:
        """Crops, flips, output width and height, output, status."""
        height, width = self.out.shape[1:3]
        return (
            self.crops.ctypes.data, self.flips.ctypes.data, width, height,
            self.out.ctypes.data, self.status.ctypes.data,
        )  # fmt: skip


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
