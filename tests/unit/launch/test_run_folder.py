"""Run folders: never overwritten, found again by a resume."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from distrain.errors import ConfigError, LaunchError
from distrain.launch import run_folder
from distrain.launch.run_folder import RunFolder


def checkpoint(run: Path, step: int, at: float) -> None:
    """A checkpoint, and the configuration of a run of the same name but for its number."""
    path = run / "checkpoints" / f"step-{step:09d}-0123456789abcdef.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    configure(run, run.name.removesuffix("-2"))
    os.utime(path, (at, at))


def configure(run: Path, name: str) -> None:
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(f"name: {name}\n")


def test_names_are_counted_up(tmp_path: Path) -> None:
    runs = tmp_path / "deep" / "runs"
    assert run_folder.planned(runs, "a") == runs / "a"
    made = [run_folder.create(runs, "a").path.name for _ in range(3)]
    assert made == ["a", "a-2", "a-3"]
    (runs / "b").write_text("a file is in the way")
    assert run_folder.create(runs, "b").path.name == "b-2"


def test_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        LaunchError, match=r"no run folder can be made: .*; set launch.runs to a folder that you may write to"
    ):
        run_folder.create(tmp_path / "file", "a")


def test_auto_takes_the_newest_checkpoint_of_this_name(tmp_path: Path) -> None:
    for name in ("a", "a-2", "a-3", "a-10", "ab", "a-x"):
        configure(tmp_path / name, "a" if name != "ab" else name)
    assert [p.name for p in run_folder.attempts(tmp_path, "a")] == ["a", "a-2", "a-3", "a-10"]
    assert run_folder.choose(tmp_path, "a", "auto") is None
    checkpoint(tmp_path / "a", 10, at=1000)
    checkpoint(tmp_path / "a-2", 5, at=2000)
    checkpoint(tmp_path / "ab", 5, at=9000)
    (tmp_path / "a-3" / "checkpoints").mkdir()
    (tmp_path / "a-3" / "checkpoints" / "step-000000009-00.pt.tmp").write_text("half")
    assert run_folder.choose(tmp_path, "a", "auto") == RunFolder(tmp_path / "a-2", resumes=True)


def test_auto_does_not_take_a_run_of_another_name(tmp_path: Path) -> None:
    """net-50 is the first run of a name of its own, not the fiftieth of net."""
    checkpoint(tmp_path / "net-50", 7, at=9000)
    assert run_folder.choose(tmp_path, "net", "auto") is None
    assert run_folder.choose(tmp_path, "net-50", "auto") == RunFolder(tmp_path / "net-50", resumes=True)
    checkpoint(tmp_path / "net", 3, at=1000)
    assert run_folder.choose(tmp_path, "net", "auto") == RunFolder(tmp_path / "net", resumes=True)
    (tmp_path / "net" / "config.yaml").write_text("[")  # not known whose: only by its name
    assert run_folder.choose(tmp_path, "net", "auto") is None
    assert run_folder.choose(tmp_path, "net", "net") == RunFolder(tmp_path / "net", resumes=True)


def test_resume_by_name_and_by_path(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a-2", 1, at=1)
    expected = RunFolder(tmp_path / "a-2", resumes=True)
    assert run_folder.choose(tmp_path, "other", "a-2") == expected
    assert run_folder.choose(tmp_path / "elsewhere", "a", str(tmp_path / "a-2")) == expected
    assert run_folder.choose(tmp_path, "a", None) is None


def test_resume_errors(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    with pytest.raises(ConfigError, match=r"there is no run 'digit' \(did you mean 'digits'\?\)"):
        run_folder.choose(tmp_path, "a", "digit")
    with pytest.raises(ConfigError, match="has no checkpoint"):
        run_folder.choose(tmp_path, "a", "digits")


def test_record_keeps_what_an_earlier_start_wrote(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    run_folder.record(folder, "seed: 1\n", "mpirun one", {"mpi": "X"})
    (tmp_path / "result.json").write_text('{"status": "stopped"}')
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "rank-0000.json").write_text("{}")
    assert run_folder.status(tmp_path) == "stopped"
    run_folder.record(folder, "seed: 2\n", "mpirun two", {"mpi": "Y"})
    run_folder.record(folder, "seed: 2\n", "mpirun three", {"mpi": "Z"})
    assert (tmp_path / "config.yaml").read_text() == "seed: 2\n"
    assert (tmp_path / "config-1.yaml").read_text() == "seed: 1\n"
    assert not (tmp_path / "config-2.yaml").exists()
    assert (tmp_path / "result-1.json").exists() and run_folder.status(tmp_path) is None
    assert (tmp_path / "failures-1" / "rank-0000.json").exists()
    commands = (tmp_path / "command.txt").read_text()
    assert [line for line in commands.splitlines() if line and line[0] != "#"] == [
        "mpirun one",
        "mpirun two",
        "mpirun three",
    ]
    facts = json.loads((tmp_path / "launcher.json").read_text())
    assert facts["mpi"] == "Z" and facts["distrain"] and facts["python"] and facts["host"]


def test_a_full_disk_leaves_a_run_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path, resumes=True)
    run_folder.record(folder, "seed: 1\n", "mpirun one", {})
    (tmp_path / "result.json").write_text('{"status": "stopped"}')
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LaunchError, match=r"cannot be written: No space left on device; free space"):
        run_folder.record(folder, "seed: 2\n", "mpirun two", {}, {"hosts.txt": "a\n"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}'])
def test_a_damaged_result_is_no_result(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    assert run_folder.status(tmp_path) is None
