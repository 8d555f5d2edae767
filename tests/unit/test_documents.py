"""What the pages say is what the program does: options, lines of the log, names in the run folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from distrain.cli import app

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
COMMANDS = typer.main.get_command(app)


def commands(group: Any, name: str) -> Iterator[tuple[str, list[str]]]:
    """Return each command with its options."""
    for word, command in group.commands.items():
        if isinstance(command, typer.main.TyperGroup):
            yield from commands(command, f"{name} {word}")
        else:
            options = [max(p.opts, key=len) for p in command.params if p.param_type_name == "option"]
            yield f"{name} {word}", [option for option in options if option != "--help"]


@pytest.mark.parametrize(("command", "options"), list(commands(COMMANDS, "distrain")))
def test_every_command_is_on_the_page_with_all_its_options(command: str, options: list[str]) -> None:
    rows = [row for row in PAGES["commands.md"].splitlines() if re.match(rf"\| `{command}[ `]", row)]
    assert len(rows) == 1, f"docs/commands.md has {len(rows)} rows of {command}"
    written = re.findall(r"(?<![\w-])--[a-z-]+", rows[0])
    assert set(written) == set(options)


def shape(line: str) -> str:
    """Return a line with every number as #."""
    return re.sub(r"\d+([.:-]\d+)*", "#", line)


def test_the_lines_about_gradients_are_those_that_a_job_logs() -> None:
    pytest.importorskip("mpi4py.MPI")
    from distrain.comm.choice.chooser import Chooser
    from distrain.comm.choice.tuning import Pick, Table, key_of
    from distrain.comm.settings import CommSettings
    from distrain.schedule.advice import Choice
    from distrain.schedule.ir import Collective
    from distrain.units import format_bytes
    from distrain.worker.run import TRAVELS

    size, nodes, ring = 24_000_000, (0, 1, 2, 3), "multicolor_ring"
    made = "2026-03-01T10:00:00+00:00"
    table = Table(key_of("", nodes, 1), made, {Collective.ALLREDUCE: (Pick(size, Choice(ring, 1), 1.0),)})
    choosers = (
        Chooser(CommSettings()),
        Chooser(CommSettings(algorithm=ring)),
        Chooser(CommSettings(), tables=[table]),
    )
    said = [TRAVELS % (format_bytes(size), chooser.describe(nodes, size)) for chooser in choosers]
    quoted = {
        shape(line.strip()) for line in PAGES["tuning.md"].splitlines() if line.startswith("    gradients")
    }
    assert {shape(line) for line in said} <= quoted
    assert len(quoted) == len(said) + 1  # the memory of the node, which `Runtime.describe_allreduce` says


def test_the_tree_of_a_run_folder_has_all_names_of_the_code() -> None:
    from distrain.launch import failures, lock, plan, run_folder
    from distrain.world import rank_name

    page = PAGES["run_folder.md"]
    tree = page[page.index("```\nruns/NAME/") : page.index("```\n", page.index("```\nruns/NAME/") + 4)]
    names = [
        run_folder.CONFIG,
        run_folder.COMMAND,
        run_folder.LAUNCHER,
        run_folder.CHECKPOINTS,
        run_folder.RESULT,
    ]
    names += [plan.HOSTFILE, plan.SCRIPT, lock.LAUNCHER, lock.RANKS, f"{failures.FOLDER}/{rank_name(3)}.json"]
    names += [f"logs/{rank_name(0)}.log", f"trace/{rank_name(0)}.json", "environment.json", "metrics.jsonl"]
    assert [name for name in names if name not in tree] == []


def test_environment_variables_of_the_code_are_described() -> None:
    code = "".join(path.read_text() for path in (ROOT / "distrain").rglob("*.py"))
    named = set(re.findall(r"\"((?:DISTRAIN|XDG)_[A-Z_]+)\"", code))
    assert {"DISTRAIN_MPIRUN", "DISTRAIN_FAULT", "DISTRAIN_RESUME"} <= named
    assert [name for name in sorted(named) if f"`{name}`" not in PAGES["configuration.md"]] == []
