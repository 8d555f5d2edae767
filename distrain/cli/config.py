"""``distrain config``: the schema, the reference, and the resolved settings of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    group = typer.Typer(help="The settings of a run.", no_args_is_help=True)
    group.command("schema")(schema)
    group.command("reference")(reference)
    group.command("show")(show)
    app.add_typer(group, name="config")


def schema() -> None:
    """Print the JSON Schema of the YAML file, for editors."""
    from distrain.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def reference() -> None:
    """Print the reference of all settings as Markdown."""
    from distrain.config.reference import markdown

    print(markdown(), end="")


def show(
    config: Annotated[Path, typer.Argument(help="YAML file of the run")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Print the resolved settings of a run, defaults included."""
    from distrain.config import dump, load

    print(dump(load(config, overrides or [])), end="")
