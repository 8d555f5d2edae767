"""`distrain bench page`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def page(
    out: Annotated[Path, typer.Option(help="file to write")] = Path("docs/benchmarks.md"),
    only: Annotated[
        str, typer.Option(help="suites, e.g. one_node,ddp; the others keep their tables; empty: all")
    ] = "",
) -> None:
    """Run all benchmarks and write their figures as a page."""
    from distrain.bench.page import SUITES
    from distrain.bench.page import page as make_page
    from distrain.errors import UsageError, nearest

    known = tuple(suite.name for suite in SUITES)
    names = [name for name in only.split(",") if name]
    for name in names:
        if name not in known:
            raise UsageError(
                "--only", f"{name!r} is no suite{nearest(name, known)}", f"use {','.join(known)}"
            )
    text = make_page(names, out.read_text() if out.exists() else "")
    out.write_text(text)
