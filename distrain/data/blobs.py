"""The bytes of some images where they lie: a view of each when it is asked for, all addresses at once.

Making a view costs a microsecond an image under the GIL, as much as a tenth of a fast decoder's time; a
decoder in C needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np


class Blobs(Sequence[memoryview]):
    """A sequence of read-only views that also knows their addresses.

    Args:
        addresses: int64 [N], of the first byte of each image.
        sizes: int64 [N], bytes.
        view: gives the view of the image at a position; it keeps the memory alive.
    """

    def __init__(self, addresses: np.ndarray, sizes: np.ndarray, view: Callable[[int], memoryview]) -> None:
        self.addresses, self.sizes, self.view = addresses, sizes, view

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, key: int) -> memoryview: ...

    @overload
    def __getitem__(self, key: slice) -> list[memoryview]: ...

    def __getitem__(self, key: int | slice) -> memoryview | list[memoryview]:
        positions = range(len(self))[key]
        return [self.view(i) for i in positions] if isinstance(positions, range) else self.view(positions)

    def __iter__(self) -> Iterator[memoryview]:
        return map(self.view, range(len(self)))


def address_of(memory: np.ndarray) -> int:
    """Return where an array's memory begins."""
    address: int = memory.__array_interface__["data"][0]
    return address
