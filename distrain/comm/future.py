"""The Future of a collective: its callbacks may communicate themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch


class CollectiveFuture(torch.futures.Future):
    """A Future that runs callbacks in a thread of their own where there are any.

    torch runs them in the thread that sets the result. That is the engine's: a callback that waits for
    another collective, as torch's PowerSGD hook does, would wait for itself for ever.

    Args:
        devices: GPUs of the results, as torch wants to know them.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        super().__init__(devices=[*devices])
        self._lock = threading.Lock()
        self._called_back = False

    def then(self, callback: Callable[..., Any]) -> torch.futures.Future:
        """Call back with this future when it is done; return a Future of what the callback returns."""
        with self._lock:
            self._called_back = True
        return super().then(callback)

    def add_done_callback(self, callback: Callable[..., Any]) -> None:
        """Call back with this future when it is done."""
        with self._lock:
            self._called_back = True
        super().add_done_callback(callback)

    def settle(self, set_it: Callable[[], Any]) -> None:
        """Run `set_it`, which sets result or exception: here if nobody is called back, else elsewhere."""
        # Tensors that callbacks make belong to the program; those of the engine thread do not.
        with self._lock, torch.inference_mode(False):
            if not self._called_back:
                set_it()
                return
        # A thread each: one callback may wait for what another one brings about.
        threading.Thread(target=set_it, name="distrain-callback", daemon=True).start()
