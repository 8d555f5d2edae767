"""The commands: what is on stdout, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distrain.cli import main
from distrain.data.format import read_manifest


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distrain", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_pack_and_info_print_one_json_object(tree: Path, tmp_path: Path) -> None:
    (bad := tmp_path / "src").mkdir()
    (bad / "ape").symlink_to(tree / "ape")
    (bad / "zoo").mkdir()
    (bad / "zoo/x.jpg").write_bytes(b"x")
    out = tmp_path / "out"
    made = run("pack", f"imagefolder:{bad}", out, "--workers", 1, "--quality", 80, "--json")
    assert made.returncode == 0 and made.stderr == ""
    told = json.loads(made.stdout)
    assert told["images"] == 13 and told["class_counts"] == {"ape": 13, "zoo": 0} and told["quality"] == 80
    assert told["skipped"] == [{"source": "zoo/x.jpg", "reason": "not an image that Pillow knows"}]
    assert told["bytes_in_memory"] == read_manifest(out).bytes_in_memory
    assert json.loads(run("pack", "info", out, "--json").stdout) == told
    table = run("pack", "info", out)
    assert table.returncode == 0 and "13 in 2 classes, 0 to 13 each" in table.stdout
    assert "warning: no image of class 'zoo' was usable" in table.stdout
    assert "skipped zoo/x.jpg: not an image that Pillow knows" in table.stdout


def test_errors_are_one_line_on_stderr(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, code, text in (
        (
            ("pack", "imagefolder:nowhere", tmp_path / "a"),
            1,
            "distrain: nowhere: this folder does not exist; ",
        ),
        (("pack", "folder:x", tmp_path / "a"), 2, "distrain: SOURCE: 'folder:x' is no source"),
        (("pack", f"imagefolder:{tree}", tmp_path / "a", "--quality", 0), 2, "distrain: --quality: 0 is not"),
        (("pack", "info", tmp_path / "a"), 1, "there is no pack here"),
        (("pack", "info", tmp_path / "a", "--workers", 2), 2, "no options but --json"),
        (
            ("synthesize", tmp_path / "a", "--classes", 9, "--images", 3),
            2,
            "distrain: --images: 3 is less than 9",
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["distrain", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            main()
        told = capsys.readouterr()
        assert (done.value.code, told.out) == (code, "") and text in told.err
        assert len(told.err.splitlines()) == 1


def test_synthesize_and_digits(tmp_path: Path) -> None:
    made = run("synthesize", tmp_path / "s", "--classes", 2, "--images", 3, "--workers", 1, "--json")
    assert json.loads(made.stdout) == {"tree": str(tmp_path / "s"), "classes": 2, "train": 3, "val": 2}
    assert len(list((tmp_path / "s").rglob("*.jpeg"))) == 5
    digits = run("digits", tmp_path / "d")
    assert digits.returncode == 0 and "train: 1442 images" in digits.stdout


def test_the_command_imports_neither_torch_nor_mpi(tree: Path, tmp_path: Path) -> None:
    """Packing and reading manifests work on login nodes."""
    script = (
        "import sys, distrain.data.format, distrain.data.pack, distrain.cli.data;"
        "print({'torch', 'mpi4py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()"
