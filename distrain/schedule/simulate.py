"""Run a Schedule on the arrays of all ranks in one process, bit for bit as the executor does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distrain.schedule.ir import Instruction, Op, Program, Schedule
from distrain.schedule.replay import replay
from distrain.world import split

Array = np.ndarray[Any, np.dtype[Any]]


def simulate(
    schedule: Schedule,
    arrays: Sequence[Array],
    segments: int = 1,
    reduce: np.ufunc = np.add,
    programs: Sequence[Program] | None = None,
) -> list[Array]:
    """Return what each rank holds at the end; the inputs are left as they are.

    A segment is cut from every slot alike (`world.split`) and goes through the whole Schedule on its
    own. The receiver computes ``reduce(own, arrived)``, in the order in which a step lists its receives.

    Args:
        schedule: what to run.
        arrays: ``arrays[r]`` is the payload of rank ``r``, 1-D, of one length and dtype. For an
            all-gather only part ``r`` of it matters; of a reduce-scatter's result only part ``r`` does.
        segments: into how many segments each slot is cut, at least 1.
        reduce: the binary operation of the reduction.
        programs: what the ranks do; by default the Schedule's own Programs.

    Raises:
        ScheduleError: the ranks wait for each other for ever.
    """
    results = [array.copy() for array in arrays]
    count = len(results[0])
    spans = {
        (color, chunk): split_span(schedule.span(color, chunk, count), segments)
        for color in range(schedule.colors)
        for chunk in range(schedule.chunks)
    }
    for segment in range(segments):
        _run_segment(schedule.programs() if programs is None else programs, results, spans, segment, reduce)
    return results


def split_span(span: range, segments: int) -> list[slice]:
    """Cut a slot's elements into segments whose lengths differ by at most one."""
    return [slice(span.start + part.start, span.start + part.stop) for part in split(len(span), segments)]


def _run_segment(
    programs: Sequence[Program],
    results: Sequence[Array],
    spans: dict[tuple[int, int], list[slice]],
    segment: int,
    reduce: np.ufunc,
) -> None:
    def send(rank: int, color: int, i: Instruction) -> Array:
        return results[rank][spans[color, i.chunk][segment]].copy()

    def receive(rank: int, color: int, i: Instruction, arrived: Array) -> None:
        own = results[rank][spans[color, i.chunk][segment]]
        if i.op is Op.COPY:
            own[...] = arrived
        else:
            reduce(own, arrived, out=own)

    replay(programs, send, receive)
