"""A pool of worker processes for ingest: one job after the other, errors end it at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from distrain.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")


def _begin_worker() -> None:
    # Ctrl-C reaches the whole process group: a worker ends silently, the parent tells the user.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A killed parent must not leave workers behind that go on writing.
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def run_jobs(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Yield the result of each job as it ends, in no particular order.

    Args:
        function: a function of a module, so that other processes can import it.
        jobs: their arguments, pickled to the workers.
        workers: number of processes; 1 works in this process.

    Raises:
        DataError: a worker process died (killed for memory, say).
        Exception: what the function raised first; jobs not begun are dropped.
    """
    if workers == 1 or len(jobs) <= 1:
        yield from map(function, jobs)
        return
    # spawn: a forked child would share locks and threads of libraries with its parent.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _begin_worker)
    try:
        for future in as_completed([pool.submit(function, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise DataError(
            "worker process",
            "it was killed or crashed, perhaps for want of memory",
            "run the same command again, if need be with fewer --workers",
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
