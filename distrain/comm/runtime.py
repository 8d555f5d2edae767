"""What exists once per process: the world, the engine, the settings."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from distrain import timeline
from distrain.comm import native
from distrain.comm.choice import notice
from distrain.comm.choice.chooser import Chooser, make_chooser
from distrain.comm.engine.engine import Engine
from distrain.comm.engine.stall import inquire
from distrain.comm.process import gpu_aware, mpi, rest
from distrain.comm.process.clocks import align
from distrain.comm.process.event_sets import mpi_event_sets
from distrain.comm.settings import CommSettings
from distrain.comm.supervision import exits
from distrain.comm.supervision.inquiry import Inquiry
from distrain.comm.supervision.members import name as name_of
from distrain.errors import UsageError
from distrain.world import World, rank_name

if TYPE_CHECKING:
    from distrain.comm.process.mpi import MPI


@dataclass
class Runtime:
    """A started communication layer.

    Attributes:
        settings: how gradients travel.
        comm: COMM_WORLD; only the engine thread may use it.
        world: this rank among the others.
        engine: the thread that calls MPI.
        chooser: which algorithm runs.
        inquiry: answers other ranks that wait for this one; None in a world of one.
        pointers: MPI gets pointers of GPUs; the same on all ranks.
    """

    settings: CommSettings
    comm: MPI.Intracomm
    world: World
    engine: Engine
    chooser: Chooser
    inquiry: Inquiry | None
    pointers: bool = False

    def buckets(self, sizes: Sequence[int]) -> list[int]:
        """Return the bytes of each of DDP's buckets, the last one's again for what follows.

        Args:
            sizes: bytes of each gradient, in the order in which backward makes them.
        """
        chosen = self.settings.bucket_bytes
        return [chosen] if chosen else self.chooser.buckets(self._nodes, sizes)

    @property
    def _nodes(self) -> tuple[int, ...]:
        return tuple(self.world.node_names.index(host) for host in self.world.hosts)

    def describe_allreduce(self, payload_bytes: int, on_gpu: bool = False) -> str:
        """Say for people how an array of this size is summed over all ranks, and who decided that."""
        if on_gpu and self.pointers:
            return f"{self._describe_messages(payload_bytes)}, by pointers of the GPUs"
        if self.settings.node_memory and self.world.nodes == 1 and native.build_info()[0]:
            return "memory of the node"
        return self._describe_messages(payload_bytes)

    def _describe_messages(self, payload_bytes: int) -> str:
        return self.chooser.describe(self._nodes, payload_bytes)


_runtime: Runtime | None = None
_lock = threading.Lock()


def start(settings: CommSettings | None = None) -> Runtime:
    """Start MPI and the engine, or return what is already started.

    Raises:
        LaunchError: the world is not the one that was launched, or MPI lacks thread support.
        UsageError: it is already started with other settings, or in a process forked from a rank.
    """
    global _runtime
    with _lock:
        if exits.is_child():
            raise UsageError(
                "init_process_group",
                "this process was forked from a rank",
                "start it anew (spawn), under MPI",
            )
        if _runtime is None:
            comm = mpi.initialize()
            rest.watch(mpi_event_sets())
            chosen = settings or CommSettings()
            world = mpi.discover_world(comm)
            name = name_of(world, world.rank)
            exits.install(name)
            chooser = make_chooser(comm, chosen, mpi.library())
            inquiry = Inquiry(comm, world) if world.size > 1 else None
            pointers = gpu_aware.all_aware(comm, chosen.device_pointers)
            notice.warn(chosen, world, pointers)
            _start_timeline(comm, world, chosen)
            engine = Engine(
                exits.end_job,
                chosen.stall_seconds,
                chosen.abort_seconds,
                name,
                None if inquiry is None else partial(inquire, inquiry),
            )
            _runtime = Runtime(chosen, comm, world, engine, chooser, inquiry, pointers)
        elif settings is not None and settings != _runtime.settings:
            raise UsageError(
                "init_process_group",
                "comm settings differ from those with which communication was started",
                "call distrain.destroy_process_group() first",
            )
        return _runtime


def current() -> Runtime:
    """Return the started runtime.

    Raises:
        UsageError: nothing was started.
    """
    if _runtime is None:
        raise UsageError(
            "communication", "it is not started", "call distrain.init_process_group() before you use it"
        )
    return _runtime


def is_started() -> bool:
    """True between `start` and `stop`."""
    return _runtime is not None


def stop() -> None:
    """Finish what is queued and stop the engine; MPI itself ends with the process."""
    global _runtime
    with _lock:
        if _runtime is not None:
            runtime, _runtime = _runtime, None
            try:
                runtime.engine.close(runtime.settings.abort_seconds)
            finally:
                if runtime.inquiry is not None:
                    runtime.inquiry.close()
                timeline.stop()


def _leave_to_parent() -> None:
    """In a process forked from a rank: MPI, its threads and the end of the job are that rank's."""
    global _runtime, _lock
    _lock = threading.Lock()
    if _runtime is not None:
        _runtime.engine.disown()
        _runtime = None
    exits.become_child()


os.register_at_fork(after_in_child=_leave_to_parent)


def _start_timeline(comm: MPI.Intracomm, world: World, settings: CommSettings) -> None:
    """Open this rank's trace where the settings ask for one. Collective."""
    if settings.timeline:
        offset, error, zero = align(comm)
        folder = Path(os.environ.get("DISTRAIN_RUN_DIR", "."), "trace")
        path = folder / f"{rank_name(world.rank)}.json"
        steps, host = settings.timeline_steps, world.hosts[world.rank]
        timeline.start(timeline.Timeline(path, world.rank, host, offset, zero, error, steps))
