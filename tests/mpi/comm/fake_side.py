"""A device in words of threads: tensors of the CPU are handled as if they lay on a GPU.

Four streams, each a thread that does what it is given in its order, slowly: what is computed, what leaves,
what arrives, what is summed where MPI gets pointers. A copy or a sum that starts too early, or is used too
early, gives wrong numbers.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import torch

from distrain.comm.buffers import StagingPool

SECONDS = 2e-4  # of each thing that a stream does


class FakeMark:
    def __init__(self) -> None:
        self.event = threading.Event()

    def is_reached(self) -> bool:
        return self.event.is_set()

    def order_caller(self) -> None:
        assert self.event.wait(20)  # the caller of the tests is the host itself


class Stream:
    def __init__(self, name: str) -> None:
        self._todo: queue.Queue[Callable[[], None]] = queue.Queue()
        threading.Thread(target=self._run, name=f"fake-{name}", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._todo.get()()

    def do(self, what: Callable[[], object]) -> None:
        def slowly() -> None:
            time.sleep(SECONDS)
            with torch.no_grad():
                what()

        self._todo.put(slowly)

    def mark(self) -> FakeMark:
        mark = FakeMark()
        self._todo.put(mark.event.set)
        return mark


class FakeSide:
    """A `distrain.comm.device.side.Side` for tensors of the CPU."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.computing, self._leaving, self._arriving, self._combining = map(
            Stream, ("computing", "leaving", "arriving", "combining")
        )
        self.pool = StagingPool(lambda size_bytes: torch.full((size_bytes,), 77, dtype=torch.uint8))
        self.fetched = 0
        self.pointed = 0

    def fetch(self, tensor: torch.Tensor) -> tuple[torch.Tensor, FakeMark]:
        self.fetched += 1
        host = self.host_like(tensor)
        self._leaving.do(self.computed().order_caller)
        self._leaving.do(lambda: host.copy_(tensor.detach()))
        return host, self._leaving.mark()

    def host_like(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.full(tensor.shape, 77, dtype=torch.float32).to(
            tensor.dtype
        )  # not what anybody waits for

    def computed(self) -> FakeMark:
        return self.computing.mark()

    def put(self, tensor: torch.Tensor, host: torch.Tensor, after: FakeMark | None) -> None:
        if after is not None:
            self._arriving.do(after.order_caller)
        self._arriving.do(lambda: tensor.copy_(host))

    def arrived(self) -> FakeMark:
        return self._arriving.mark()

    @contextlib.contextmanager
    def arriving(self) -> Iterator[None]:
        self.arrived().order_caller()  # a Future of CPU tensors has no events that could order anything
        yield

    def compute(self, work: Callable[[], object]) -> None:
        self.computing.do(work)

    def combine(self, work: Callable[[], object]) -> FakeMark:
        self._combining.do(work)
        return self._combining.mark()

    def land(self, work: Callable[[], object], tensors: Iterable[torch.Tensor]) -> None:
        self._arriving.do(work)

    @contextlib.contextmanager
    def pointing(self) -> Iterator[None]:
        self.pointed += 1
        yield
