"""The allreduce benchmark's arithmetic: rates, the floor of the links, medians."""

from __future__ import annotations

import pytest

from distrain.bench.machines import bytes_per_second
from distrain.bench.stats import allreduce_line, wire_floor_seconds
from distrain.errors import UsageError
from distrain.schedule.advice import TCP_GOODPUT


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("1gbit", 125e6),
        ("100mbit", 12.5e6),
        ("2.5Gbit", 312.5e6),
        ("8000", 1000),
        ("10mbps", 10e6),
        ("1kibit", 128),
    ],
)
def test_rates_are_read_as_tc_spells_them(rate: str, expected: float) -> None:
    assert bytes_per_second(rate) == pytest.approx(expected)


@pytest.mark.parametrize("rate", ["", "fast", "1 gigabit", "gbit"])
def test_a_rate_that_tc_would_not_take_is_refused(rate: str) -> None:
    with pytest.raises(UsageError, match="--rate"):
        bytes_per_second(rate)


def test_floor_is_what_each_machine_must_send_over_its_cards() -> None:
    # 4 machines: each sends 150 MB of a payload of 100 MB; TCP leaves 0.957 of 125 MB/s a card
    one = wire_floor_seconds(100_000_000, 4, 1, 125e6)
    assert one == pytest.approx(150e6 / (125e6 * TCP_GOODPUT))
    assert one == pytest.approx(1.254, abs=0.001)
    assert wire_floor_seconds(100_000_000, 4, 2, 125e6) == pytest.approx(one / 2)
    assert wire_floor_seconds(100_000_000, 1, 1, 125e6) == 0


def test_line_holds_the_median_and_the_bus_bandwidth() -> None:
    line = allreduce_line("ours", "ring", 4, 1_000_000, [0.3, 0.1, 0.2])
    assert line["median_s"] == 0.2
    assert line["busbw_gbytes_per_s"] == pytest.approx(1e6 * 1.5 / 0.2 / 1e9)
