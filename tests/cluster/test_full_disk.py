"""A disk that is full while a pack is written: said in words, and the next try goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distrain.bench import machines as emulated

# In a mount namespace of its own: a file system of 3 MiB, which is given more room after the first try.
SCRIPT = """
mount -t tmpfs -o size=3m tmpfs disk
"$1" -m distrain pack imagefolder:src/train disk/pack --json 2> full && exit 9
ls disk/pack 2> /dev/null && exit 8
ls disk/pack.partial > kept
mount -o remount,size=64m disk
"$1" -m distrain pack imagefolder:src/train disk/pack --json > packed
ls disk > left
"""


def test_pack_on_a_full_disk(tmp_path: Path) -> None:
    reason = emulated.why_not()
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "disk").mkdir()
    words = ["synthesize", "src", "--classes", "2", "--images", "80", "--workers", "1"]
    subprocess.run([sys.executable, "-m", "distrain", *words], cwd=tmp_path, check=True, capture_output=True)
    space = ["unshare", "--mount", "--propagation", "private"]
    done = subprocess.run(
        [*space, "sh", "-ec", SCRIPT, "sh", sys.executable],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "full").read_text()
    assert len(said.splitlines()) == 1 and "the disk is full; " in said and "finished shards are kept" in said
    kept = (tmp_path / "kept").read_text().split()
    assert "shard-00000.bin" in kept and not [name for name in kept if name.endswith(".tmp")]
    packed = json.loads((tmp_path / "packed").read_text())
    assert packed["images"] == 80 and packed["shards"] > len([n for n in kept if n.endswith(".bin")])
    assert (tmp_path / "left").read_text().split() == ["pack"]
