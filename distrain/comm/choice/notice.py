"""What a user who has named an algorithm should know of the memory of nodes."""

from __future__ import annotations

import logging

from distrain.comm import native
from distrain.comm.choice.chooser import AUTO
from distrain.comm.levels import BETWEEN
from distrain.comm.settings import CommSettings
from distrain.world import World

log = logging.getLogger(__name__)


def warn(settings: CommSettings, world: World, pointers: bool) -> None:
    """Log once, on rank 0, if the named algorithm does not run, or runs in the place of something faster."""
    text = notice(settings, world, pointers)
    if text is not None and world.rank == 0:
        log.warning("%s", text)


def notice(settings: CommSettings, world: World, pointers: bool) -> str | None:
    """Return what is to be said of `comm.algorithm`; None: gradients travel as a reader of it expects.

    Args:
        settings: of the wire.
        world: where the ranks run.
        pointers: MPI gets pointers of GPUs: gradients there go by messages.
    """
    s = settings
    by_messages = not s.node_memory or pointers or s.wire_dtype != "as_is" or not native.build_info()[0]
    if s.algorithm == AUTO or by_messages or world.size == 1:
        return None
    if world.nodes == 1:
        return (
            f"comm.algorithm={s.algorithm} is not used: all ranks are on one node and combine in its memory; "
            "leave it out, or set comm.node_memory=false"
        )
    counts = {len(world.ranks_on(node)) for node in range(world.nodes)}
    if s.algorithm in BETWEEN or s.inside_node != "memory" or len(counts) > 1 or counts == {1}:
        return None
    return (
        f"comm.algorithm={s.algorithm} knows no nodes: their ranks combine by messages, not in their memory; "
        f"set auto or one of {', '.join(BETWEEN)}, or say comm.node_memory=false"
    )
