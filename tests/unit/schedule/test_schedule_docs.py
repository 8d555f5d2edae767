"""The page on algorithms: its pictures, commands and figures are those that the code makes."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from distrain.cli.schedule import register
from distrain.schedule.registry import names

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
DRAWN = re.findall(r"^distrain (schedule draw .+) --out (docs/pictures/\S+)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("command", "picture"), DRAWN)
def test_pictures_are_what_their_command_draws(command: str, picture: str) -> None:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == 0
    assert (ROOT / picture).read_text(encoding="utf-8") == result.stdout


def test_every_picture_of_the_page_exists_and_has_its_command() -> None:
    shown = {f"docs/{link}" for link in re.findall(r"\]\((pictures/\S+)\)", PAGE)}
    on_disk = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/pictures").glob("schedule_*.svg")}
    assert shown == {picture for _, picture in DRAWN} == on_disk


def test_every_algorithm_is_on_the_page() -> None:
    for name in names():
        assert f"## {name}\n" in PAGE or f"`{name}`" in PAGE


def test_the_table_is_what_its_program_prints() -> None:
    program, table = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", PAGE, re.DOTALL)[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    assert printed.getvalue() == table


def test_the_comparison_is_what_its_command_prints() -> None:
    command, table = re.findall(r"```\ndistrain (schedule compare.*)\n```\n\n```\n(.*?)```", PAGE, re.DOTALL)[
        0
    ]
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == 0 and result.stdout == table
