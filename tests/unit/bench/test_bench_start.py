"""How a benchmark's result comes back from rank 0, which may run on another machine; how failures do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from distrain.bench import results, start
from distrain.cli import tune as tune_command
from distrain.comm.choice import tuning
from distrain.errors import LaunchError
from distrain.launch.hosts import Host
from distrain.schedule.advice import Choice
from distrain.schedule.ir import Collective

HOSTS = (Host("first", 1), Host("second", 1))
# Stands in for mpirun on hosts of which the first does not see this machine's files.
MPIRUN = """#!{python}
import pathlib, subprocess, sys
if sys.argv[1:] == ["--version"]:
    print("mpirun (Open MPI) 5.0.11")
    sys.exit(0)
words = sys.argv[sys.argv.index("{python}"):]
if "--hostfile" in sys.argv:
    hostfile = pathlib.Path(sys.argv[sys.argv.index("--hostfile") + 1])
    hostfile.unlink()
    hostfile.parent.rmdir()
sys.exit(subprocess.run(words).returncode)
"""


@pytest.fixture
def rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a program the one of rank 0, started by the stand-in."""
    path = tmp_path / "mpirun"
    path.write_text(MPIRUN.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv("DISTRAIN_MPIRUN", str(path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(start.__file__).parents[2]}")

    def program(text: str) -> str:
        (tmp_path / "ranks_program.py").write_text(text)
        return "ranks_program"

    return program


WRITES = """
import sys
from distrain.bench import results
print("noise, not ended", end="")
print("more noise", file=sys.stderr)
results.write(sys.argv[sys.argv.index("--out") + 1], [{"n": n, "text": 300 * "\\u00e4\\n"} for n in range(3)])
print("the end")
"""


@pytest.mark.parametrize("hosts", [(), HOSTS])
def test_the_result_needs_no_shared_folder(
    rank: Any, hosts: tuple[Host, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    lines = start.run_ranks(rank(WRITES), [], 2, hosts=hosts)
    assert lines == [{"n": n, "text": 300 * "\u00e4\n"} for n in range(3)]
    shown = capfd.readouterr()
    assert shown.out == "" and "@" not in shown.err
    for text in ("noise, not ended", "more noise", "the end"):
        assert text in shown.err


def test_a_failure_quotes_what_the_ranks_said_last(rank: Any) -> None:
    text = "import sys\nprint('ValueError: the reason', file=sys.stderr)\nprint('a banner')\nsys.exit(3)\n"
    with pytest.raises(LaunchError, match="exit code 3: ValueError: the reason; mend what this says"):
        start.run_ranks(rank(text), [], 2)
    with pytest.raises(LaunchError, match="exit code 0 and without a result: they said nothing"):
        start.run_ranks(rank("pass"), [], 2, hosts=HOSTS)


def test_pieces_of_a_result_are_put_together_or_refused() -> None:
    outputs = results.Outputs()
    whole = json.dumps('{"a": 1}\n{"a": 2}\n')
    assert outputs.taken(f"x{results._MARK}{whole[:5]}\n") == "x\n"
    assert outputs.lines() is None
    assert outputs.taken(f"{results._MARK}{whole[5:]}\n") == ""
    assert outputs.lines() == [{"a": 1}, {"a": 2}] and list(outputs.said) == ["x"]


def test_the_table_of_tune_is_kept_where_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pick = tuning.Pick(1024, Choice("ring", 1, 1 << 20), 1e-3)
    table = tuning.Table("some MPI; 2 hosts x 1 ranks; 1 rails", "now", {Collective.ALLREDUCE: (pick,)})
    line = {
        "key": table.key,
        "bytes": 1024,
        "pick": "ring",
        "median_s": 1e-3,
        "next_best": None,
        "formula_s": None,
    }
    asked: list[Any] = []

    def run_ranks(module: str, arguments: list[str], *rest: Any) -> list[dict[str, Any]]:
        asked.extend(arguments)
        return [line, json.loads(json.dumps(tuning.to_json(table)))]

    monkeypatch.setattr(start, "run_ranks", run_ranks)
    path = tmp_path / "tune.json"
    tune_command.tune(
        ranks=2, seconds=1.0, table=path, rails=0, machines=0, rate="", hosts=None, as_json=True
    )
    assert tuning.load(path) == [table]
    assert "--return-table" in asked and str(path) not in asked
