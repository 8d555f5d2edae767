"""The README holds what it promises: its script runs, its commands and links exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distrain import machine
from distrain.cli import app
from distrain.launch import mpi
from distrain.launch.job import Job
from tests.jobs.support import TIMEOUT_SECONDS, environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CHECK = """
import torch.distributed as dist
mine = model.module.weight.grad
theirs = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
dist.all_gather(theirs, mine)
assert dist.get_world_size() == 2 and all(torch.equal(mine, other) for other in theirs)
print(f"rank {dist.get_rank()} has everybody's gradients")
"""


def run_on_two_ranks(script: str, tmp_path: Path) -> list[str]:
    """Run a script beside a folder of that name, as in a checkout; return the lines that the ranks print."""
    (tmp_path / "my_script.py").write_text(script)
    (tmp_path / "distrain").mkdir()  # a checkout beside the script must not be taken for the package
    job = Job(
        command=(sys.executable, "my_script.py"),
        np=2,
        crowded=machine.cores() < 4,
        as_root=os.geteuid() == 0,
    )
    command = mpi.find().command(job)
    done = subprocess.run(
        command.argv,
        cwd=tmp_path,
        env=environment(**command.env, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split("\n")[:-1])


def test_the_five_lines_run_under_mpirun(tmp_path: Path) -> None:
    script = re.findall(r"```python\n(.*?)```", README, re.S)[0]
    said = run_on_two_ranks(script + CHECK, tmp_path)
    assert said == [f"rank {r} has everybody's gradients" for r in range(2)]


def test_the_lines_with_settings_run_under_mpirun(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "backend.md").read_text()
    (script,) = (found for found in re.findall(r"```python\n(.*?)```", page, re.S) if "CommSettings" in found)
    assert len([line for line in script.splitlines() if line]) == 6
    check = (
        "from distrain.comm import runtime\nprint(runtime.current().settings.colors, total.sum().item())\n"
    )
    assert run_on_two_ranks(script + check, tmp_path) == ["2 2000.0"] * 2


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_commands_of_the_readme_exist() -> None:
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S)) + "\n".join(
        re.findall(r"`(.*?)`", README)
    )
    words = {
        tuple(found.split())
        for found in re.findall(r"^\s*distrain ([a-z]+(?: [a-z]+\b(?![:./]))?)", shell, re.M)
    }
    assert {word[0] for word in words} >= {"pack", "synthesize", "launch", "doctor", "schedule"}
    for command in sorted({word[0] for word in words}):
        told = CliRunner().invoke(app, [command, "--help"])
        assert told.exit_code == 0, f"distrain {command}: {told.output}"
