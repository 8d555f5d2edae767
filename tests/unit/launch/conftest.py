"""A small data set's manifests, a configuration that points at them, and stand-ins for mpirun and sbatch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distrain.config import RunConfig, load
from distrain.data.format import MANIFEST, VERSION, Manifest, ShardEntry


def manifest(count: int, classes: int = 2) -> Manifest:
    counts = tuple(count // classes + (c < count % classes) for c in range(classes))
    shard = ShardEntry(
        file="shard-00000.bin",
        count=count,
        bytes=count * 100 + 4096,
        payload_bytes=count * 64,
        head_crc32=0,
        payload_crc32=0,
    )
    return Manifest(
        version=VERSION,
        pack_id="00" * 16,
        name="x",
        source="imagefolder:x",
        encoding="jpeg",
        options={},
        classes=tuple(f"c{c}" for c in range(classes)),
        class_counts=counts,
        count=count,
        mean_width=10.0,
        mean_height=10.0,
        shards=(shard,),
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with run.yaml, packs of 1000 and 100 images, no Slurm, no GPU; the current directory."""
    for name, count in (("train", 1000), ("val", 100)):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text(manifest(count).model_dump_json())
    (tmp_path / "run.yaml").write_text(
        "name: test\ndata: {train: train, val: val, batch_per_rank: 16}\ntrain: {duration: 3ep}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("OMP_NUM_THREADS", "OMPI_MCA_osc", "LD_LIBRARY_PATH", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def config(project: Path) -> Callable[..., RunConfig]:
    return lambda *overrides: load(project / "run.yaml", overrides)


@pytest.fixture
def fake_mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Install an mpirun that prints a banner for --version and otherwise runs its last three words."""

    def install(banner: str) -> Path:
        path = tmp_path / "my mpi" / "bin" / "mpirun"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            f"if sys.argv[1:] == ['--version']:\n    print({banner!r})\n    sys.exit(0)\n"
            "print(sys.argv)\nsys.exit(int(os.environ.get('FAKE_CODE', '0')))\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("DISTRAIN_MPIRUN", str(path))
        return path

    return install
