"""The ground floor: quantities, arithmetic on ranks, wording of errors, files that are whole or absent."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distrain.errors import ConfigError, DataError, DistrainError, UsageError, agree, nearest
from distrain.files import atomic_file, temporary_of
from distrain.settings import Bytes, Settings
from distrain.units import Duration, format_bytes, parse_bytes, parse_seconds
from distrain.world import World, split


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64 MiB", 64 << 20),
        ("1M", 1 << 20),
        ("1 MB", 10**6),
        (123, 123),
        ("0.5KiB", 512),
        ("7", 7),
        ("2g", 2 << 30),
    ],
)
def test_bytes(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "12 parsecs", "-3 MiB", -1, "1 2"])
def test_bytes_that_are_none(text: str | int) -> None:
    with pytest.raises(UsageError, match="size"):
        parse_bytes(text)


def test_format_bytes() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 44_040_192, 3 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "42.0 MiB", "3.0 TiB",
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), [("50 ms", 0.05), (60, 60.0), ("5min", 300.0), ("2h", 7200.0)])
def test_seconds(text: str | int, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@given(st.one_of(st.integers(0, 10**12).map(float), st.floats(0, 1e12)))
def test_durations_are_written_without_loss(count: float) -> None:
    for unit in ("ep", "st") if count == int(count) else ("ep",):
        duration = Duration(count, unit)
        assert Duration.parse(str(duration)) == duration


def test_the_steps_of_a_long_duration() -> None:
    assert str(Duration.parse("1234567st")) == "1234567st"
    assert str(Duration.parse("0.25ep")) == "0.25ep"


@pytest.mark.parametrize("text", ["1e999ep", "1e999st", "1e13ep", 10**400])
def test_durations_that_are_too_long(text: str | int) -> None:
    with pytest.raises(UsageError, match=r"too large|more than"):
        Duration.parse(text)


@pytest.mark.parametrize("value", [float("nan"), -1.0, "1e999s"])
def test_seconds_that_are_no_time(value: float | str) -> None:
    with pytest.raises(UsageError):
        parse_seconds(value)


@pytest.mark.parametrize(
    ("text", "steps"), [("90ep", 900), ("0.25ep", 2), ("17st", 17), (3, 30), (Duration(1, "ep"), 10)]
)
def test_durations(text: str | int | Duration, steps: int) -> None:
    assert Duration.parse(text).steps(10) == steps


@pytest.mark.parametrize("text", ["ninety", "90 epochs", "1.5st", ""])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="duration"):
        Duration.parse(text)


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_split_covers_all_evenly(count: int, parts: int) -> None:
    ranges = split(count, parts)
    assert [i for r in ranges for i in r] == list(range(count))
    lengths = [len(r) for r in ranges]
    assert len(ranges) == parts and max(lengths) - min(lengths) <= 1


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=20))
def test_world_agrees_on_every_rank(hosts: list[str]) -> None:
    worlds = [World.of(rank, hosts) for rank in range(len(hosts))]
    assert sorted(r for n in range(worlds[0].nodes) for r in worlds[0].ranks_on(n)) == list(range(len(hosts)))
    for world in worlds:
        assert world.size == len(hosts) and world.nodes == len(set(hosts))
        assert world.local_ranks[world.local_rank] == world.rank
        assert world.rank in world.ranks_on(world.node) and len(world.local_ranks) == world.local_size
        assert world.node_names[world.node] == hosts[world.rank]


def test_world_rejects_a_rank_outside() -> None:
    with pytest.raises(ValueError, match="rank=2"):
        World.of(2, ["a", "b"])
    assert World.alone().size == 1


def test_errors_carry_place_problem_and_remedy() -> None:
    error = ConfigError("x.yaml", "lr=-1 must be positive", "give a positive number")
    assert str(error) == "x.yaml: lr=-1 must be positive; give a positive number"
    assert (error.exit_code, DataError("a", "b", "c").exit_code) == (2, 1)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, DistrainError) and str(again) == str(error)


class Numbers(Settings):
    count: int = 1
    size: Bytes = 1
    flag: bool = False


def test_a_truth_value_is_no_number() -> None:
    assert Numbers(flag=True).flag
    for name in ("count", "size"):
        with pytest.raises(ValidationError, match="truth value"):
            Numbers.model_validate({name: True})


def test_nearest() -> None:
    assert nearest("optimiser", ["optimizer", "schedule"]) == " (did you mean 'optimizer'?)"
    assert nearest("zzz", ["optimizer"]) == ""


def test_a_file_that_is_not_finished_leaves_the_old_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_file(path) as file:
        file.write(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"new")
        assert temporary_of(path).exists()
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_all_ranks_raise_the_error_of_the_lowest() -> None:
    third, second = (DataError(f"rank {rank}", "fails", "mend it") for rank in (2, 1))
    of_all: list[DistrainError | None] = [None, second, third]
    for error in of_all:
        with pytest.raises(DataError, match="rank 1"):
            agree(SimpleNamespace(allgather=lambda mine: of_all), error)
    agree(SimpleNamespace(allgather=lambda mine: [mine, None]), None)
    with pytest.raises(DataError, match="rank 2"):
        agree(None, third)
    agree(None, None)
