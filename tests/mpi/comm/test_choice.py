"""The algorithm is chosen by size, the same on every rank whatever each of them finds on its disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from wire_cases import decoding, everyone

from distrain.comm import runtime
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.choice import tuning
from distrain.comm.choice.chooser import Chooser, make_chooser
from distrain.comm.process import mpi
from distrain.comm.settings import CommSettings
from distrain.comm.wire import Wire
from distrain.schedule.advice import Choice
from distrain.schedule.ir import Collective
from distrain.world import World

ALLREDUCE = Collective.ALLREDUCE


def table_of(world: World, *found: tuple[int, Choice]) -> tuning.Table:
    picks = tuple(tuning.Pick(size, choice, 1.0) for size, choice in found)
    return tuning.Table(tuning.key_of(mpi.library(), (0,) * world.size, 1), "now", {ALLREDUCE: picks})


def test_the_table_of_rank_0_holds_for_all(world: World, tmp_path: Path) -> None:
    """Every rank has a table of its own, all different; the last rank's is damaged."""
    path = tmp_path / f"{world.rank}.json"
    tuning.save(path, table_of(world, (1024, Choice("ring", 1 + world.rank, 1000 + world.rank))))
    if world.rank == world.size - 1 and world.size > 1:
        path.write_text("{")
    state = runtime.current()
    settings = CommSettings(tune_table=str(path), rails=1)
    chooser = state.engine.call(lambda: make_chooser(state.comm, settings, mpi.library()))
    assert chooser.choose((0,) * world.size, ALLREDUCE, 1024) == Choice("ring", 1, 1000)


def test_a_damaged_table_is_told_of_and_passed_over(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tune.json").write_text("not json")
    state = runtime.current()
    settings = CommSettings(tune_table=str(tmp_path / "tune.json"))
    chooser = state.engine.call(lambda: make_chooser(state.comm, settings, mpi.library()))
    assert chooser.describe((0,) * world.size, 1024).endswith("(by formula)")
    assert ("is no table of distrain tune" in caplog.text) == (world.rank == 0)


@pytest.fixture
def wire(world: World) -> Iterator[Wire]:
    """A wire whose table changes the algorithm with every fourfold size."""
    state = runtime.current()
    steps = ("halving_doubling", "ring", "multicolor_tree", "multicolor_ring")
    found = [(64 * 4**i, Choice(name, 1 + i, 256)) for i, name in enumerate(steps)]
    settings = CommSettings()
    chooser = Chooser(settings, mpi.library(), 1, None, [table_of(world, *found)])
    comm = state.engine.call(state.comm.Dup)
    wire = Wire(comm, state.engine, settings, (0,) * world.size, chooser=chooser)
    yield wire
    wire.close()


def test_the_slowest_link_that_any_rank_knows_of_holds_for_all(world: World) -> None:
    settings = CommSettings(link_gbit=1.0 + world.rank)
    state = runtime.current()
    chooser = state.engine.call(lambda: make_chooser(state.comm, settings, mpi.library()))
    assert chooser.speeds is not None
    assert chooser.speeds.bytes_per_second == pytest.approx(0.957 * 1e9 / 8)


def test_sums_are_right_on_both_sides_of_every_border(wire: Wire) -> None:
    seen = set()
    for border in (128, 512, 2048, 8192):
        for count in (border // 8 - 1, border // 8, border // 8 + 1):
            for collective in Collective:
                payload = decoding(wire.rank, wire.size, count, torch.int64)
                operation = wire.reduction(FlatBuffer(payload), Reduction.SUM, collective)
                wire.engine.wait(wire.engine.submit(operation))
                seen.add(operation.algorithm.split("/")[0])
                if collective is ALLREDUCE:
                    assert payload.tolist() == [everyone(wire.size)] * count
    assert {"halving_doubling", "ring", "multicolor_tree", "multicolor_ring"} <= seen
