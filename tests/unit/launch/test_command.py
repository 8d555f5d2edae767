"""``distrain launch`` and ``distrain config`` as a shell sees them: output, files, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from distrain.cli import launch as launch_commands
from distrain.config import RunConfig, load
from distrain.errors import ConfigError, LaunchError
from distrain.launch import lock, start
from distrain.launch.job import Command
from distrain.launch.local import Outcome

Config = Callable[..., RunConfig]
Mpirun = Callable[[str], Path]
OPENMPI = "mpirun (Open MPI) 5.0.11"

app = typer.Typer()
launch_commands.register(app)


def distrain(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_dry_run_tells_all_and_writes_nothing(project: Path, fake_mpirun: Mpirun) -> None:
    mpirun = fake_mpirun(OPENMPI)
    before = sorted(project.rglob("*"))
    code, out = distrain("launch", "run.yaml", "train.duration=2ep", "--np", "2", "--dry-run")
    assert code == 0
    rows = dict(line.split("  ", 1) for line in out.split("# command")[0].strip().splitlines())
    values = {name: value.strip() for name, value in rows.items()}
    assert values["run folder"] == "runs/test"
    assert values["world size"] == "2 ranks on 1 node"
    assert values["global batch"] == "32 images"
    assert values["steps per epoch"] == "31"
    assert values["total steps"] == "62 (2ep)"
    assert values["learning rate after warm-up"] == "0.0125"
    assert values["bytes of data in memory per node"] == "103.1 KiB (105,600 bytes)"
    assert values["MPI"] == f"{OPENMPI} ({mpirun})"
    shown = out.split("# command\n")[1]
    words = subprocess.run(
        [
            "bash",
            "-c",
            f"{shown.replace('env ', 'printf ' + chr(39) + '%s' + chr(92) + 'n' + chr(39) + ' ', 1)}",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert f"DISTRAIN_RUN_DIR={project / 'runs' / 'test'}" in words
    assert str(mpirun) in words and words[words.index("-np") + 1] == "2"
    assert sorted(project.rglob("*")) == before


def test_dry_run_without_data_shows_the_command_and_fails(project: Path, fake_mpirun: Mpirun) -> None:
    fake_mpirun(OPENMPI)
    (project / "train" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="train: there is no pack here"):
        distrain("launch", "run.yaml", "--dry-run")
    with pytest.raises(ConfigError):
        distrain("launch", "run.yaml")
    assert not (project / "runs").exists()


def test_job_that_leaves_no_result_fails(
    project: Path, fake_mpirun: Mpirun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_mpirun(OPENMPI)
    code, _ = distrain("launch", "run.yaml", "--np", "3", "seed=7")
    assert code == 1
    run = project / "runs" / "test"
    assert load(run / "config.yaml") == load("run.yaml", ["launch.np=3", "seed=7"])
    assert "-np 3" in (run / "command.txt").read_text()
    assert json.loads((run / "launcher.json").read_text())["mpi"] == OPENMPI
    assert str(run / "config.yaml") in capfd.readouterr().out  # the stand-in prints its arguments
    monkeypatch.setenv("FAKE_CODE", "85")
    assert distrain("launch", "run.yaml")[0] == 85
    assert (project / "runs" / "test-2").is_dir()


def test_resume(project: Path, fake_mpirun: Mpirun, capfd: pytest.CaptureFixture[str]) -> None:
    fake_mpirun(OPENMPI)
    distrain("launch", "run.yaml", "--resume", "auto")
    assert not (project / "runs" / "test-2").exists()
    (project / "runs" / "test" / "checkpoints").mkdir()
    (project / "runs" / "test" / "checkpoints" / "step-000000001-0123456789abcdef.pt").touch()
    code, out = distrain("launch", "run.yaml", "--resume", "auto", "--dry-run")
    assert code == 0 and "runs/test (resumes)" in out
    assert f"DISTRAIN_RESUME={project / 'runs' / 'test'}" in out
    distrain("launch", "run.yaml", "--resume", "test")
    assert (project / "runs" / "test" / "command.txt").read_text().count("-m distrain train") == 2
    with pytest.raises(ConfigError, match="there is no run 'tset'"):
        distrain("launch", "run.yaml", "--resume", "tset")


def begun(project: Path) -> Path:
    """A run that was started once and has a checkpoint."""
    distrain("launch", "run.yaml")
    run = project / "runs" / "test"
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step-000000001-0123456789abcdef.pt").touch()
    return run


def test_a_run_that_is_complete_is_not_repeated(project: Path, fake_mpirun: Mpirun) -> None:
    fake_mpirun(OPENMPI)
    run = begun(project)
    (run / "result.json").write_text('{"status": "completed", "steps": 186}')  # 3 epochs of 62 steps
    before = sorted(run.rglob("*"))
    answer = CliRunner().invoke(app, ("launch", "run.yaml", "--resume", "auto"))
    assert answer.exit_code == 0
    assert "runs/test is complete (186 steps); raise train.duration" in answer.stderr
    assert sorted(run.rglob("*")) == before
    distrain("launch", "run.yaml", "--resume", "auto", "train.duration=4ep")
    assert (run / "command.txt").read_text().count("-m distrain train") == 2


def test_a_second_launch_into_a_run_is_refused(project: Path, fake_mpirun: Mpirun) -> None:
    fake_mpirun(OPENMPI)
    run = begun(project)
    before = {path: path.read_bytes() for path in run.glob("*.*") if path.is_file()}
    with lock.hold(run, lock.LAUNCHER):
        kept = (run / lock.LAUNCHER).read_bytes()
        with pytest.raises(LaunchError, match=r"runs/test: the run is being written by process \d+ on "):
            distrain("launch", "run.yaml", "--resume", "auto", "seed=9")
        assert {**before, run / lock.LAUNCHER: kept} == {
            path: path.read_bytes() for path in run.glob("*.*") if path.is_file()
        }
        distrain("launch", "run.yaml")  # a run of its own may go beside it
    assert (project / "runs" / "test-2").is_dir()


def test_a_resume_that_the_ranks_refuse_changes_nothing(
    project: Path, fake_mpirun: Mpirun, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_mpirun(OPENMPI)
    run = begun(project)
    (run / "result.json").write_text('{"status": "stopped"}')
    (run / "metrics.jsonl").write_text("")
    before = (run / "config.yaml").read_bytes()
    monkeypatch.setenv("FAKE_CODE", "1")
    words = ("launch", "run.yaml", "--resume", "auto", "seed=9", "train.duration=4ep", "--np", "2")
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 1
    assert "changed since the last start: seed: 0 -> 9, train.duration: 3ep -> 4ep\n" in answer.stderr
    assert (run / "config.yaml").read_bytes() == before
    assert (run / "result.json").exists() and not (run / "result-1.json").exists()


def test_nothing_is_left_of_a_run_that_could_not_start(project: Path, fake_mpirun: Mpirun) -> None:
    path = fake_mpirun(OPENMPI)
    path.write_text(path.read_text().replace("print(", f"os.unlink({str(path)!r}); print(", 1))
    with pytest.raises(LaunchError, match="cannot be started"):
        distrain("launch", "run.yaml")
    assert list((project / "runs").iterdir()) == []


def test_slurm_without_sbatch(
    project: Path, fake_mpirun: Mpirun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_mpirun(OPENMPI)
    monkeypatch.setenv("PATH", "/nowhere")
    code, _ = distrain("launch", "run.yaml", "launch.target=slurm", "launch.slurm.nodes=2", "name=a.b")
    assert code == 0
    written = (project / "runs" / "a.b" / "train.sbatch").read_text()
    assert "#SBATCH --nodes=2\n" in written and f"RUN_DIR={project}/runs/a.b\n" in written


def test_hosts_option(project: Path, fake_mpirun: Mpirun) -> None:
    fake_mpirun(OPENMPI)
    (project / "my hosts").write_text("a slots=2\nb:2\n")
    code, out = distrain("launch", "run.yaml", "--hosts", "my hosts", "--dry-run")
    assert code == 0 and "4 ranks on 2 nodes" in out and "# runs/test/hosts.txt\na slots=2\nb slots=2" in out


def test_usage_error_is_exit_code_2(project: Path) -> None:
    assert distrain("launch", "run.yaml", "--nq", "2")[0] == 2
    assert distrain("launch")[0] == 2
    with pytest.raises(ConfigError):
        distrain("launch", "run.yaml", "--np", "0", "--dry-run")


def test_config_commands(project: Path) -> None:
    code, out = distrain("config", "schema")
    assert code == 0 and json.loads(out)["properties"]["train"]
    code, out = distrain("config", "show", "run.yaml", "seed=3")
    assert code == 0 and "seed: 3\n" in out
    assert distrain("config", "reference")[1].startswith("# Configuration\n")


def test_failures_command(project: Path) -> None:
    assert distrain("failures", ".")[0] == 0
    (project / "failures").mkdir()
    record = {"rank": 1, "exit_code": 4, "traceback": "boom", "time": 1.0}
    (project / "failures" / "rank-0001.json").write_text(json.dumps(record))
    assert distrain("failures", ".")[0] == 4


def test_tune_without_its_host_file_is_one_line(project: Path) -> None:
    words = [sys.executable, "-m", "distrain", "tune", "--hosts", "nofile"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 2 and len(answer.stderr.splitlines()) == 1
    assert "nofile: cannot be read" in answer.stderr


def test_errors_are_one_line_and_exit_code_2(project: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "distrain", "launch", "run.yaml", "train.lr=1"], capture_output=True, text=True
    )
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr == (
        "distrain: command line: unknown setting 'train.lr' "
        "(did you mean 'train.optimizer.lr'?); correct the key\n"
    )


def test_the_limit_of_a_stop_is_a_setting(
    project: Path, fake_mpirun: Mpirun, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_mpirun(OPENMPI)
    limits: list[float] = []

    def run(command: Command, *, stop_seconds: float, limit_name: str) -> Outcome:
        limits.append(stop_seconds)
        return Outcome(1)

    monkeypatch.setattr(start, "run", run)
    distrain("launch", "run.yaml", "launch.stop_seconds=5min")
    distrain("launch", "run.yaml")
    assert limits == [300.0, 120.0]
