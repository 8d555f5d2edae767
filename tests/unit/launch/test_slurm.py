"""The sbatch script: compared whole, checked by a shell, submitted to a stand-in for sbatch."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from distrain.errors import LaunchError
from distrain.launch import slurm
from distrain.launch.job import Command
from distrain.launch.settings import SlurmSettings

GOLDEN = Path(__file__).parent / "golden" / "train.sbatch"
START = Command(("/m pi/bin/mpirun", "-np", "8", "-x", "A"), {"OMPI_MCA_osc": "^ucx"})


def script(run_dir: str = '/data/it\'s a "run" 100%/x', **settings: object) -> str:
    return slurm.render(
        slurm.Script(
            name="digits",
            work_dir="/home/me/my project",
            run_dir=run_dir,
            python="/home/me/.venv/bin/python",
            ranks=8,
            start=START,
            path="/m pi/bin",
            env={"A": 'b "c" $d'},
            settings=SlurmSettings(nodes=2, ranks_per_node=4, **settings),
        )
    )


def test_the_whole_text() -> None:
    text = script(
        cpus_per_rank=8,
        gpus_per_node=4,
        time="12:00:00",
        partition="gpu",
        account="p 1",
        qos="normal",
        constraint="a100&ib",
        mail_user="me@example.org",
        setup=("module purge", "module load cuda openmpi"),
        extra=("--exclusive", "--reservation=x"),
    )
    assert text == GOLDEN.read_text()


@pytest.mark.parametrize(("written", "asked"), [("2min", 120), ("90.5s", 91), (60, 60)])
def test_the_warning_is_a_time_in_whole_seconds(written: str | int, asked: int) -> None:
    assert f"#SBATCH --signal=B:USR1@{asked}\n" in script(grace_seconds=written)


def test_only_the_marked_blocks_differ_from_the_template() -> None:
    def outside(text: str) -> list[str]:
        kept, inside = [], False
        for line in text.splitlines():
            inside = inside and not line.startswith("# <<<")
            if not inside:
                kept.append(line)
            inside = inside or line.startswith("# >>>")
        return kept

    assert outside(script()) == outside(slurm.template())


@pytest.mark.parametrize("text", [script(), slurm.template()], ids=["rendered", "template"])
def test_a_shell_reads_it(text: str) -> None:
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_values_survive_the_shell(tmp_path: Path) -> None:
    """Run the settings block alone: quotes, blanks and dollars arrive as they were."""
    text = script()
    block = text[text.index("# >>> settings") : text.index("# <<< settings")]
    show = 'setup\nprintf "%s\\n" "$RUN_DIR" "$WORK_DIR" "$A" "$PATH" "$OMPI_MCA_osc"\n'
    answer = subprocess.run(
        ["bash", "-c", block + show], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin"}
    )
    assert answer.stdout.splitlines() == [
        '/data/it\'s a "run" 100%/x',
        "/home/me/my project",
        'b "c" $d',
        "/m pi/bin:/usr/bin",
        "^ucx",
    ]
    assert f'  exec {shlex.join(START.argv)} "$@"\n' in block


def test_output_line_is_quoted_and_percent_signs_doubled() -> None:
    assert '#SBATCH --output="/data/it\'s a \\"run\\" 100%%/x/slurm-%j.out"\n' in script()
    assert "#SBATCH --output=/r/x/slurm-%j.out\n" in script(run_dir="/r/x")


def fake_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    path = tmp_path / "bin" / "sbatch"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")


def test_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_sbatch(tmp_path, monkeypatch, 'test "$1" = --parsable && echo "42;cluster: $2" | cut -d: -f1')
    assert slurm.submit(tmp_path / "a b.sbatch") == "42"


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_sbatch(tmp_path, monkeypatch, "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    with pytest.raises(LaunchError, match="sbatch refuses it: invalid partition specified: x"):
        slurm.submit(tmp_path / "x.sbatch")


def test_no_sbatch_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.submit(tmp_path / "x.sbatch") is None
