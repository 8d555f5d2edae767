"""The torch.distributed backend "distrain".

torch calls a Python ProcessGroup by the method names of its base classes here, some of which
have an older and a newer form; from C++ (DDP, functional collectives) it reaches those that
torch's trampoline knows. Each method turns tensors into bytes, builds an Operation and hands
it to the engine.
"""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from distrain.comm import runtime
from distrain.comm.group import doors, operators, untraced
from distrain.comm.group.barriers import Barriers
from distrain.comm.group.copies import Copies
from distrain.comm.group.point_to_point import PointToPoint
from distrain.comm.group.reductions import Reductions
from distrain.comm.levels import open_levels
from distrain.comm.shared.channel import open_channel
from distrain.comm.supervision.members import Members
from distrain.comm.wire import Wire
from distrain.comm.work import DistrainWork
from distrain.errors import LaunchError


class DistrainProcessGroup(Reductions, Copies, PointToPoint, Barriers):
    """A group of ranks with all collectives of torch.distributed.

    Args:
        wire: the group's communicator.
        timeout: how long `wait` waits before it raises.
        store: torch's store of the group.
    """

    def __init__(self, wire: Wire, timeout: timedelta, store: dist.Store) -> None:
        super().__init__(wire, timeout)
        self._store = store

    def get_group_store(self) -> dist.Store:
        """Return the part of torch's store that is the group's own."""
        return self._store  # the base class keeps it in C++, where it cannot be set from here


def create_group(options: Any, backend_options: Any = None) -> DistrainProcessGroup:
    """Make the group that torch asks for; called on its members only.

    Args:
        options: torch's `_DistributedBackendOptions`.
        backend_options: of this backend, which has none.

    Raises:
        LaunchError: torch and MPI count ranks differently, as under a launcher that starts no MPI world.
    """
    state = runtime.start()
    world = state.world
    members = list(options.global_ranks_in_group) or list(range(world.size))
    if options.group_size != len(members) or members[options.group_rank] != world.rank:
        raise LaunchError(
            "init_process_group",
            f"rank={options.group_rank} of {options.group_size} of torch is rank {world.rank} of "
            f"{world.size} of MPI",
            "start with mpirun, srun or `distrain train`, not with torchrun, and call "
            "distrain.init_process_group(), which takes both from MPI",
        )
    # A tag of its own lets a rank take part in the creation of several groups at once. It comes from the
    # members, not from torch's name of the group: in the name of one that only its members call (with
    # use_local_synchronization) a rank counts the groups that it belongs to, and others count others.
    tag = zlib.crc32(repr(members).encode()) & 0x7FFF
    comm = state.comm

    def communicator() -> Any:
        if members == list(range(comm.Get_size())):
            return comm.Dup()
        group = comm.Get_group()
        chosen = group.Incl(members)
        try:
            return comm.Create_group(chosen, tag)
        finally:
            chosen.Free()
            group.Free()

    group_comm = state.engine.call(communicator)
    name = state.engine.call(lambda: group_comm.bcast(str(options.group_id)))
    found = Members(name, tuple(members), state.world)
    shares = state.settings.node_memory
    one_node = shares and len(set(found.nodes)) == 1
    channel = state.engine.call(lambda: open_channel(group_comm, one_node))
    levels = state.engine.call(lambda: open_levels(group_comm, found.nodes)) if shares else None
    engine, settings, chooser = state.engine, state.settings, state.chooser
    # It asks MPI about the group, which no thread may do beside the engine's.
    wire = engine.call(
        lambda: Wire(group_comm, engine, settings, found.nodes, channel, found, chooser, levels)
    )
    wire.pointers = state.pointers
    return DistrainProcessGroup(wire, options.timeout, options.store)


doors.open_doors(DistrainProcessGroup)
operators.open_operators(DistrainProcessGroup)
untraced.leave_untraced(DistrainProcessGroup)
untraced.leave_untraced(DistrainWork)
untraced.open_to_compiler(DistrainProcessGroup)
