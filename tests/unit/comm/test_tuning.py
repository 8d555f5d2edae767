"""The table of the tuner: what it holds comes back, what is damaged is refused, settings stand above it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.comm.choice import tuning
from distrain.comm.choice.chooser import Chooser
from distrain.comm.process.network import count_rails, link_speed
from distrain.comm.settings import CommSettings
from distrain.errors import ConfigError
from distrain.schedule.advice import Choice, Speeds, advise
from distrain.schedule.ir import Collective
from distrain.schedule.registry import names

ALLREDUCE = Collective.ALLREDUCE
choices = st.builds(Choice, st.sampled_from(names()), st.integers(1, 16), st.integers(1, 1 << 24))
picks = st.builds(
    tuning.Pick,
    st.integers(1, 1 << 40),
    choices,
    st.floats(0, 100),
    st.none() | st.tuples(choices, st.floats(0, 100)),
)


def table(key: str, *found: tuning.Pick) -> tuning.Table:
    return tuning.Table(key, "2026-01-01T00:00:00+00:00", {ALLREDUCE: found})


@given(st.lists(picks, max_size=5, unique_by=lambda pick: pick.payload_bytes))
def test_a_table_comes_back_as_it_was(found: list[tuning.Pick]) -> None:
    made = table("x", *sorted(found, key=lambda pick: pick.payload_bytes))
    assert tuning.from_json(json.loads(json.dumps(tuning.to_json(made)))) == made


def test_a_file_holds_the_tables_of_several_machines(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tune.json"
    ring, tree = Choice("ring", 1), Choice("multicolor_tree", 4)
    tuning.save(path, table("a", tuning.Pick(8, ring, 1.0)))
    tuning.save(path, table("b", tuning.Pick(8, ring, 1.0)))
    tuning.save(path, table("a", tuning.Pick(8, tree, 0.5)))
    assert {t.key: t.choose(ALLREDUCE, 8) for t in tuning.load(path)} == {"b": ring, "a": tree}
    assert [p.name for p in path.parent.iterdir()] == ["tune.json"]
    assert tuning.load(tmp_path / "absent.json") == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"version": 99, "tables": []}', '{"version": 1}', '{"version": 1, "tables": [{}]}'],
)
def test_a_damaged_file_is_named_and_never_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tune.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"tune\.json: is no table of distrain tune: .*delete it"):
        tuning.save(path, table("a"))
    assert path.read_text() == text


def test_an_algorithm_that_is_gone_makes_a_table_void(tmp_path: Path) -> None:
    path = tmp_path / "tune.json"
    tuning.save(path, table("a", tuning.Pick(8, Choice("ring", 1), 1.0)))
    path.write_text(path.read_text().replace('"ring"', '"rung"'))
    with pytest.raises(ConfigError, match="no such algorithm"):
        tuning.load(path)


def test_the_nearest_size_decides() -> None:
    few, ring = Choice("halving_doubling", 1), Choice("ring", 1)
    made = table("a", tuning.Pick(1024, few, 1.0), tuning.Pick(16384, ring, 1.0))
    assert [made.choose(ALLREDUCE, size) for size in (0, 1, 1024, 4000)] == [few] * 4
    assert [made.choose(ALLREDUCE, size) for size in (4200, 16384, 1 << 40)] == [ring] * 3
    assert made.choose(Collective.ALL_GATHER, 8) is None


def test_keys_tell_machines_apart() -> None:
    shapes = [(0, 1), (0, 0), (0, 0, 1), (0, 1, 1), (0, 0, 1, 1)]
    keys = {tuning.key_of(mpi, nodes, rails) for mpi in "ab" for nodes in shapes for rails in (1, 2)}
    assert len(keys) == 20
    # which number a node has says nothing about the machine
    assert tuning.key_of("a", (5, 5, 2), 1) == tuning.key_of("a", (0, 0, 1), 1)


def test_settings_stand_above_the_table_and_the_table_above_formulas() -> None:
    nodes, size = (0, 1, 2), 1 << 20
    tree = Choice("multicolor_tree", 3, 1000)
    tables = [table(tuning.key_of("m", nodes, 1), tuning.Pick(size, tree, 1.0))]

    def chosen(collective: Collective = ALLREDUCE, **settings: object) -> Choice:
        return Chooser(CommSettings.model_validate(settings), "m", 1, None, tables).choose(
            nodes, collective, size
        )

    assert chosen() == tree
    assert chosen(segment_bytes=77) == Choice("multicolor_tree", 3, 77)
    assert chosen(algorithm="ring", colors=5) == Choice("ring", 5)
    assert Chooser(CommSettings(), "other", 1, None, tables).choose(nodes, ALLREDUCE, size) == advise(
        nodes, ALLREDUCE, size
    )
    # a tree has no halves: neither as measured nor as set
    assert chosen(Collective.ALL_GATHER).algorithm == advise(nodes, Collective.ALL_GATHER, size).algorithm
    assert chosen(Collective.REDUCE_SCATTER, algorithm="multicolor_tree").algorithm == "multicolor_ring"


@pytest.mark.parametrize("rails", [1, 2, 3])
@pytest.mark.parametrize("size", [8, 1 << 16, 1 << 22, 1 << 28])
@pytest.mark.parametrize("nodes", [(0, 1), tuple(range(8)), (0, 0, 1, 1), (0, 0, 1, 1, 2, 2)])
def test_a_named_algorithm_has_the_colors_that_auto_would_give_it(
    nodes: tuple[int, ...], size: int, rails: int
) -> None:
    auto = Chooser(CommSettings(), rails=rails).choose(nodes, ALLREDUCE, size)
    named = Chooser(CommSettings(algorithm=auto.algorithm), rails=rails).choose(nodes, ALLREDUCE, size)
    assert named == auto


def test_colors_of_named_algorithms() -> None:
    """8 ranks on 3 hosts with 2 rails each: a ring for each rail, four trees of ranks, three of hosts."""
    nodes = (0, 0, 0, 1, 1, 1, 2, 2)

    def colors(name: str, collective: Collective = ALLREDUCE) -> int:
        return Chooser(CommSettings(algorithm=name), rails=2).choose(nodes, collective, 1 << 20).colors

    assert {name: colors(name) for name in names()} == {
        "ring": 1,
        "multicolor_ring": 2,
        "multicolor_tree": 4,
        "halving_doubling": 1,
        "recursive_doubling": 1,
        "hierarchical": 2,
        "hierarchical_halving": 1,
        "hierarchical_tree": 3,
        "hierarchical_doubling": 1,
    }
    assert colors("recursive_doubling", Collective.REDUCE_SCATTER) == 2  # by rings


def test_who_decided_is_told() -> None:
    nodes = (0, 1, 2)
    tables = [table(tuning.key_of("m", nodes, 1), tuning.Pick(8, Choice("ring", 1), 1.0))]
    assert (
        Chooser(CommSettings(), "m", 1, None, tables)
        .describe(nodes, 8)
        .endswith("(tuned 2026-01-01T00:00:00+00:00)")
    )
    assert Chooser(CommSettings(), "m", 2, None, tables).describe(nodes, 8).endswith("(by formula)")
    assert Chooser(CommSettings(algorithm="ring")).describe(nodes, 8) == "ring/1 64 KB (as set)"


def test_only_interfaces_that_lead_out_are_rails() -> None:
    assert count_rails(["lo", "eth0", "eth1", "docker0", "br-12ab", "veth9"]) == 2
    assert count_rails(["lo"]) == 1


def test_speeds_are_fitted_to_what_was_measured() -> None:
    """4 hosts, 2 steps of 100 us each way, then 100 MB over a link of 1 Gbit/s."""
    short = tuning.Pick(1024, Choice("halving_doubling", 1), 4 * 100e-6)
    long = tuning.Pick(100_000_000, Choice("multicolor_ring", 2), 6 * 100e-6 + 1.5 * 0.8)
    fitted = tuning.fit((0, 1, 2, 3), 1, [short, long])
    assert fitted.step_seconds == pytest.approx(100e-6)
    assert fitted.bytes_per_second == pytest.approx(125e6, rel=0.01)
    assert tuning.fit((0,), 1, []) == Speeds()


def test_the_slowest_link_that_leads_out_counts(tmp_path: Path) -> None:
    for name, speed in (("lo", "1"), ("eth0", "25000"), ("eth1", "1000\n"), ("ib0", "-1"), ("wlan0", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "speed").write_text(speed)
    found = link_speed(["lo", "eth0", "eth1", "ib0", "wlan0", "absent"], tmp_path)
    assert found == pytest.approx(125e6 * 0.957)
    assert link_speed(["lo", "ib0"], tmp_path) == float("inf")
    slow, fast = Chooser(CommSettings(), speeds=Speeds(bytes_per_second=found)), Chooser(CommSettings())
    hosts = tuple(range(16))
    assert slow.choose(hosts, ALLREDUCE, 1 << 20).algorithm == "multicolor_ring"
    assert fast.choose(hosts, ALLREDUCE, 1 << 20).algorithm == "multicolor_tree"
