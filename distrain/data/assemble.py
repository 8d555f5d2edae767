"""From image indices to pixels in a piece of a batch, with a rule for images that do not decode."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np

from distrain.data.decode.engine import DecodeEngine, DecodeError
from distrain.data.store import Store
from distrain.errors import DataError

log = logging.getLogger("distrain.data")

Blobs = Callable[[np.ndarray], Sequence[memoryview]]
Drawn = tuple[np.ndarray, np.ndarray]
Crops = Callable[[np.ndarray], Drawn]


class Assembler:
    """Decodes pieces of batches; shared by the decoder threads of a loader.

    An image that does not decode ends the run (``fail``) or is counted and left out (``skip``). In
    training each one that is left out is replaced by the next image of the pack that decodes, so
    that batches keep their size on every rank and collectives still match; which image that is
    depends on the pack alone. In evaluation nothing replaces it: the batch is shorter.

    Args:
        store: where the bytes are.
        engine: what decodes them.
        on_bad_image: ``fail`` or ``skip``.
        replace: True in training, False in evaluation.

    Attributes:
        bad_images: why, for each image index that did not decode so far.
    """

    def __init__(self, store: Store, engine: DecodeEngine, on_bad_image: str, replace: bool) -> None:
        self.bad_images: dict[int, str] = {}
        self._store = store
        self._engine = engine
        self._skip = on_bad_image == "skip"
        self._replace = replace
        self._lock = threading.Lock()

    def fill(
        self, indices: np.ndarray, drawn: Drawn, crops: Crops, out: np.ndarray, blobs: Blobs | None = None
    ) -> np.ndarray:
        """Decode images into ``out`` and return the indices of those that are there now.

        Args:
            indices: int64 [N], wanted images.
            drawn: their crops int32 [N, 4] and flips bool [N].
            crops: gives the same for other images int64 [M], where some of the wanted ones are bad.
            out: uint8 [N, S, S, 3]; the first M <= N images are written, M = N in training.
            blobs: gives the bytes of int64 [M] indices; default: the store.

        Returns:
            int64 [M].

        Raises:
            DataError: an image does not decode, and that ends the run.
        """
        while True:
            used = self._without_bad(indices)
            if not len(used):
                return used
            try:
                found = (blobs or self._store.blobs)(used)
                rectangles, flips = drawn if used is indices else crops(used)
                self._engine.decode_batch(found, rectangles, flips, out[: len(used)])
                return used
            except DecodeError as error:
                # Rare, so the whole piece is decoded again without that image.
                self._register(int(used[error.position]), error.reason)

    def _without_bad(self, indices: np.ndarray) -> np.ndarray:
        if not self.bad_images:
            return indices
        bad = self.bad_images
        if not self._replace:
            return np.array([i for i in indices.tolist() if i not in bad], np.int64)
        if len(bad) == self._store.count:
            raise DataError(str(self._store.path), "none of its images decodes", "pack the data set again")
        used = indices.copy()
        for position, index in enumerate(indices.tolist()):
            while index in bad:
                index = (index + 1) % self._store.count
            used[position] = index
        return used

    def _register(self, index: int, reason: str) -> None:
        where = self._store.shard_of(index)
        if not self._skip:
            raise DataError(
                where, f"it cannot be decoded: {reason}", "pack again, or set data.on_bad_image=skip"
            ) from None
        with self._lock:
            known = index in self.bad_images
            self.bad_images = {**self.bad_images, index: reason}  # readers hold the old or the new dict
        if not known:
            log.warning("%s: left out, it cannot be decoded: %s", where, reason)
