"""The Future of a collective: its callbacks may communicate themselves."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from distrain.comm import callbacks
from distrain.comm.callbacks import Cause
from distrain.errors import DistrainError


class CollectiveFuture(torch.futures.Future):
    """A Future that runs callbacks in a thread of their own where there are any.

    torch runs them in the thread that sets the result. That is the engine's: a callback that waits for
    another collective, as torch's PowerSGD hook does, would wait for itself for ever. And each runs as the
    callback that it is (see `callbacks.py`), whichever thread runs it: if the result is there already, it is
    the one that asks for it.

    Args:
        devices: GPUs of the results, as torch wants to know them.
        cause: what stands for the collective; None: nothing that ranks share.
    """

    def __init__(self, devices: Sequence[torch.device], cause: Cause | None = None) -> None:
        super().__init__(devices=[*devices])
        self.gpus = [*devices]
        self._lock = threading.Lock()
        self._called_back = 0
        self._cause = cause

    def then(self, callback: Callable[..., Any]) -> CollectiveFuture:
        """Call back with this future when it is done; return a Future of what the callback returns.

        Where the callback raises, so does whoever waits for the Future returned.
        """
        cause = self.next_cause()
        child = CollectiveFuture(self.gpus, cause)
        super().add_done_callback(callbacks.of(cause, lambda future: child.finish(lambda: callback(future))))
        return child

    def add_done_callback(self, callback: Callable[..., Any]) -> None:
        """Call back with this future when it is done."""
        super().add_done_callback(callbacks.of(self.next_cause(), callback))

    def finish(self, make: Callable[[], Any]) -> None:
        """Take what a function returns as the result, or what it raises, as a RuntimeError like torch's."""
        try:
            self.set_result(make())
        except DistrainError as error:
            self.set_exception(error)
        except BaseException as error:  # whoever waits must learn of it, whatever it is
            # Of a Future made in Python C++ knows results only. DDP takes the exception for the tensor that
            # it wants of a communication hook, and shows only its text: so that says where.
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno} in {place.name}"
            wrapped = RuntimeError(f"a callback raised {type(error).__name__}: {error}, at {where}")
            wrapped.__cause__ = error
            self.set_exception(wrapped)

    def next_cause(self) -> Cause | None:
        """Return what stands for one more callback, and take care that none runs in the engine's thread."""
        with self._lock:
            self._called_back += 1
            return None if self._cause is None else self._cause.part(self._called_back)

    def settle(self, set_it: Callable[[], Any]) -> None:
        """Run `set_it`, which sets result or exception: here if nobody is called back, else elsewhere."""
        # Tensors that callbacks make belong to the program; those of the engine thread do not.
        with self._lock, torch.inference_mode(False):
            if not self._called_back:
                set_it()
                return
        # A thread for each Future: a callback may wait for what that of another one brings about.
        threading.Thread(target=set_it, name="distrain-callback", daemon=True).start()
