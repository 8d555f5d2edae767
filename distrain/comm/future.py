"""The Future of a collective: its callbacks may communicate themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from distrain.comm import callbacks


class CollectiveFuture(torch.futures.Future):
    """A Future that runs callbacks in a thread of their own where there are any.

    torch runs them in the thread that sets the result. That is the engine's: a callback that waits for
    another collective, as torch's PowerSGD hook does, would wait for itself for ever. And each runs as the
    callback that it is (see `callbacks.py`), whichever thread runs it: if the result is there already, it is
    the one that asks for it.

    Args:
        devices: GPUs of the results, as torch wants to know them.
        cause: what stands for the collective, the same on all ranks; 0: nothing does.
    """

    def __init__(self, devices: Sequence[torch.device], cause: int = 0) -> None:
        super().__init__(devices=[*devices])
        self._devices = [*devices]
        self._lock = threading.Lock()
        self._called_back = 0
        self.cause = cause

    def then(self, callback: Callable[..., Any]) -> CollectiveFuture:
        """Call back with this future when it is done; return a Future of what the callback returns.

        Where the callback raises, so does whoever waits for the Future returned.
        """
        cause = self._next_cause()
        child = CollectiveFuture(self._devices, cause)

        def back(future: torch.futures.Future) -> None:
            child.copy(lambda: callback(future))

        super().add_done_callback(callbacks.of(cause, back))
        return child

    def add_done_callback(self, callback: Callable[..., Any]) -> None:
        """Call back with this future when it is done."""
        super().add_done_callback(callbacks.of(self._next_cause(), callback))

    def copy(self, make: Callable[[], Any]) -> None:
        """Take what a function returns as the result, or what it raises, as a RuntimeError like torch's."""
        try:
            value = make()
        except RuntimeError as error:
            self.set_exception(error)
        except Exception as error:
            wrapped = RuntimeError(f"a callback raised {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            self.set_exception(wrapped)
        else:
            self.set_result(value)

    def _next_cause(self) -> int:
        with self._lock:
            self._called_back += 1
            return callbacks.cause_of("", self._called_back, self.cause) if self.cause else 0

    def settle(self, set_it: Callable[[], Any]) -> None:
        """Run `set_it`, which sets result or exception: here if nobody is called back, else elsewhere."""
        # Tensors that callbacks make belong to the program; those of the engine thread do not.
        with self._lock, torch.inference_mode(False):
            if not self._called_back:
                set_it()
                return
        # A thread each: one callback may wait for what another one brings about.
        threading.Thread(target=set_it, name="distrain-callback", daemon=True).start()
