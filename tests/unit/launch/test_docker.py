"""The images install distrain the way that the Makefile does, from files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted(p for p in (ROOT / "docker").glob("Dockerfile.*") if p.suffix != ".dockerignore")


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return (instruction, arguments) with continued lines joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line.strip()]


def copied(path: Path) -> list[str]:
    return [name for kind, words in instructions(path) if kind == "COPY" for name in words.split()[:-1]]


def test_there_are_two_images() -> None:
    assert [path.name for path in FILES] == ["Dockerfile.cpu", "Dockerfile.gpu"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_install_is_make_install(path: Path) -> None:
    runs = [words for kind, words in instructions(path) if kind == "RUN"]
    installs = [words for words in runs if "pip" in words.lower()]
    assert len(installs) == 1 and installs[0].startswith("make install PIP_ARGS=")
    assert not any(re.search(r"\bpip3? install\b", words) for words in runs)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_everything_that_the_makefile_installs_from_is_copied(path: Path) -> None:
    rule = re.search(r"^\$\(INSTALLED\):(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule is not None
    needed = {word for word in rule[1].split() if "$" not in word}
    readme = re.search(r'^readme = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert readme is not None
    assert needed | {"Makefile", "distrain", "launch", "configs", readme[1]} <= set(copied(path))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_what_is_copied_exists_and_is_not_ignored(path: Path) -> None:
    ignore = (path.parent / f"{path.name}.dockerignore").read_text().splitlines()
    for name in copied(path):
        assert (ROOT / name).exists(), f"{path.name} copies {name}, which is not there"
        assert f"!{name}" in ignore
    assert "*" in ignore


def test_the_variables_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^PIP_ARGS \?=", makefile, re.MULTILINE) and "$(PIP_ARGS)" in makefile
    assert re.search(r"^VENV\s+\?= \.venv$", makefile, re.MULTILINE)  # PATH in the images
