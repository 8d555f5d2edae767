"""The commands ``distrain schedule show|verify|draw``."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from distrain.cli.schedule import register
from distrain.errors import UsageError
from distrain.schedule.draw import draw
from distrain.schedule.registry import generate
from distrain.schedule.text import parse

app = typer.Typer()
register(app)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["schedule", *words], catch_exceptions=False)


def test_show_prints_the_text_form() -> None:
    result = run("show", "multicolor_ring", "--ranks", "6", "--colors", "3", "--nodes", "2")
    assert result.exit_code == 0
    assert parse(result.stdout) == generate("multicolor_ring", 6, 3, nodes=[0, 0, 0, 1, 1, 1])


def test_verify_says_what_was_checked() -> None:
    result = run("verify", "ring", "--ranks", "4", "--collective", "all_gather")
    assert result.exit_code == 0
    assert result.stdout == "ring all_gather ranks=4 colors=1 steps=3 transfers=12: all laws hold\n"


def test_draw_writes_a_file_and_nothing_to_stdout(tmp_path: Path) -> None:
    out = tmp_path / "a picture.svg"
    result = run("draw", "multicolor_ring", "--ranks", "4", "--out", str(out))
    assert result.exit_code == 0 and result.stdout == ""
    assert out.read_text() == draw(generate("multicolor_ring", 4, 2))


def test_draw_without_out_prints_the_picture() -> None:
    assert run("draw", "ring", "--ranks", "3").stdout == draw(generate("ring", 3))


def test_draw_into_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be written .*; name a file in a folder that exists"):
        run("draw", "ring", "--ranks", "3", "--out", str(tmp_path / "no" / "x.svg"))


def test_more_nodes_than_ranks() -> None:
    with pytest.raises(UsageError, match="--nodes=5 is more than --ranks=4; give every node a rank"):
        run("show", "ring", "--ranks", "4", "--nodes", "5")


def test_unknown_algorithm() -> None:
    with pytest.raises(UsageError, match=r"'rign' is unknown \(did you mean 'ring'\?\)"):
        run("show", "rign", "--ranks", "4")


@pytest.mark.parametrize("words", [("show", "ring"), ("show", "ring", "--ranks", "0"), ("show",)])
def test_bad_usage_exits_with_2(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2
