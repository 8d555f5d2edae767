"""Which allreduce wins where: borders that move as steps and bytes do."""

from __future__ import annotations

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from distrain.cli.schedule import register
from distrain.errors import UsageError
from distrain.schedule.advice import Speeds, estimate, payload_rate
from distrain.schedule.compare import SHOWN, winner


@given(st.integers(2, 256), st.integers(0, 30), st.sampled_from([1.0, 10.0, 100.0]))
def test_the_winner_is_the_fastest_and_its_lead_reaches_the_second(
    ranks: int, exponent: int, gbit: float
) -> None:
    speeds = Speeds(step_seconds=50e-6, bytes_per_second=payload_rate(gbit))
    found = {name: estimate(name, range(ranks), 1 << exponent, 1, speeds) for name in SHOWN}
    times = sorted(seconds for seconds in found.values() if seconds is not None)
    best = winner(ranks, 1 << exponent, gbit, 50e-6)
    assert best.seconds == times[0] == found[best.algorithm]
    assert best.seconds * best.lead == pytest.approx(times[1])


def test_more_ranks_and_faster_links_favour_the_tree() -> None:
    assert winner(16, 4 << 20, 1, 50e-6).algorithm == "multicolor_ring"
    assert winner(256, 4 << 20, 1, 50e-6).algorithm == "multicolor_tree"
    assert winner(16, 4 << 20, 100, 50e-6).algorithm == "multicolor_tree"
    assert winner(16, 4 << 20, 1, 1e-3).algorithm == "multicolor_tree"  # slow steps as well


@pytest.mark.parametrize("words", [["--ranks", "1"], ["--ranks", "a"], ["--gbit", "0"], ["--bytes", "much"]])
def test_bad_input_is_refused(words: list[str]) -> None:
    app = typer.Typer()
    register(app)
    with pytest.raises(UsageError):
        CliRunner().invoke(app, ["schedule", "compare", *words], catch_exceptions=False)
