"""``distrain doctor``: what works here, what does not, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distrain.launch.doctor.check import Check

_COLORS = {"ok": "green", "absent": "dim", "slower": "yellow", "broken": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command("doctor")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False) -> None:
    """Check this installation and machine; exit code 1 if something that runs need is broken."""
    from distrain.launch.doctor.examine import examine

    checks: list[Check] = []
    for check in examine():
        checks.append(check)
        if as_json:
            print(
                json.dumps({"check": check.name, **{k: v for k, v in asdict(check).items() if k != "name"}})
            )
    if not as_json:
        _show(checks)
    raise typer.Exit(int(any(check.verdict == "broken" for check in checks)))


def _show(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="distrain doctor", show_lines=False)
    for column in ("check", "verdict", "found"):
        table.add_column(column, overflow="fold")
    for check in checks:
        color = _COLORS[check.verdict]
        text = check.found if not check.do else f"{check.found}\n-> {check.do}"
        table.add_row(check.name, f"[{color}]{check.verdict}[/]", escape(text))
    console = Console()
    console.print(table)
    broken = [check.name for check in checks if check.verdict == "broken"]
    if broken:
        console.print(f"[bold red]not usable yet[/]: {', '.join(broken)}")
    else:
        console.print("[green]usable[/]: distrain can train here")
