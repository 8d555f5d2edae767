"""Plans: the derived numbers and what is decided before anything starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distrain import machine
from distrain.config import RunConfig
from distrain.data.format import MANIFEST, aligned
from distrain.errors import ConfigError, DataError, LaunchError
from distrain.launch.plan import LaunchPlan, make_plan, nodes_of
from distrain.launch.run_folder import RunFolder
from distrain.launch.start import describe

Config = Callable[..., RunConfig]
Mpirun = Callable[[str], Path]
OPENMPI = "mpirun (Open MPI) 5.0.11"


def plan(config: RunConfig, resumes: bool = False) -> LaunchPlan:
    return make_plan(config, RunFolder(Path("runs/test"), resumes), terminal=True)


def test_derived_numbers(config: Config, fake_mpirun: Mpirun) -> None:
    fake_mpirun(OPENMPI)
    derived = plan(config("launch.np=4", "train.accumulate=2")).derived
    assert derived.world_size == 4 and derived.nodes == 1 and derived.ranks_per_node == 4
    assert derived.global_batch == 4 * 16 * 2 == 128
    assert derived.steps_per_epoch == 1000 // 128 == 7
    assert derived.total_steps == 21
    assert derived.lr == pytest.approx(0.1 * 128 / 256)
    records_and_payload = (1000 + 100) * 32 + (1000 + 100) * 64
    assert derived.pack_bytes == derived.node_bytes == records_and_payload
    assert derived.queue_bytes == 4 * 3 * (16 * 2) * 224 * 224 * 3
    assert (derived.train_images, derived.val_images, derived.classes) == (1000, 100, 2)


def test_wrap_counts_the_short_batch_and_disk_takes_no_memory(config: Config, fake_mpirun: Mpirun) -> None:
    fake_mpirun(OPENMPI)
    derived = plan(config("launch.np=4", "data.last_batch=wrap", "data.memory=disk")).derived
    assert derived.steps_per_epoch == 16 and derived.node_bytes == 0 and derived.pack_bytes


def test_fewer_images_than_a_global_batch(config: Config, fake_mpirun: Mpirun) -> None:
    fake_mpirun(OPENMPI)
    with pytest.raises(ConfigError, match="1000 images, fewer than one global batch of 1024"):
        plan(config("launch.np=64"))


def test_local_command(config: Config, fake_mpirun: Mpirun, monkeypatch: pytest.MonkeyPatch) -> None:
    mpirun = fake_mpirun(OPENMPI)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setenv("COLUMNS", "123")
    made = plan(config("launch.np=4", "launch.env.NCCL_DEBUG=INFO"))
    run = str(Path("runs/test").absolute())
    assert made.command.argv[0] == str(mpirun)
    assert made.command.argv[-5:] == (sys.executable, "-m", "distrain", "train", f"{run}/config.yaml")
    assert "mpi_yield_when_idle" not in made.command.argv  # 4 ranks x 2 threads on 8 cores
    assert made.command.env == {
        "DISTRAIN_WORLD_SIZE": "4",
        "DISTRAIN_RUN_DIR": run,
        "DISTRAIN_RESUME": "",
        "DISTRAIN_TERMINAL": "1",
        "COLUMNS": "123",
        "OMP_NUM_THREADS": "2",
        "NCCL_DEBUG": "INFO",
        "OMPI_MCA_osc": "^ucx",
    }
    assert made.files == {}
    assert plan(config(), resumes=True).command.env["DISTRAIN_RESUME"] == run
    assert "mpi_yield_when_idle" in plan(config("launch.np=5")).command.argv


def test_threads_that_the_user_chose(
    config: Config, fake_mpirun: Mpirun, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_mpirun(OPENMPI)
    assert plan(config("launch.env.OMP_NUM_THREADS=3")).command.env["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in plan(config()).command.env


def test_hosts(config: Config, fake_mpirun: Mpirun, project: Path) -> None:
    fake_mpirun("HYDRA build details:\n Version: 5.0.2\n")
    (project / "hosts").write_text("a slots=2\nb:3\nc:4\n")
    made = plan(config("launch.target=hosts", "launch.hosts=hosts", "launch.np=4"))
    assert made.files == {"hosts.txt": "a:2\nb:2\n"}
    assert made.derived.world_size == 4 and made.derived.nodes == 2 and made.derived.ranks_per_node == 2
    assert str(Path("runs/test/hosts.txt").absolute()) in made.command.argv
    assert "OMP_NUM_THREADS" not in made.command.env  # their cores are not known here
    assert plan(config("launch.target=hosts", "launch.hosts=hosts")).derived.world_size == 9


def test_groups_of_nodes_share_the_data(config: Config, fake_mpirun: Mpirun) -> None:
    fake_mpirun(OPENMPI)
    slurm = ("launch.target=slurm", "launch.slurm.nodes=4", "launch.slurm.ranks_per_node=2")
    whole, shared = plan(config(*slurm)).derived, plan(config(*slurm, "data.group_nodes=4")).derived
    assert whole.node_bytes == whole.pack_bytes == shared.pack_bytes
    assert shared.node_bytes is not None and whole.node_bytes is not None
    assert shared.steps_per_epoch == whole.steps_per_epoch == 1000 // 128
    local = plan(config(*slurm, "data.group_nodes=4", "data.reshuffle=local")).derived
    assert local.node_bytes == aligned(1000 * 32) + 64000 // 4 + aligned(100 * 32) + 6400 // 4
    with pytest.raises(ConfigError, match="3 does not divide the 4 nodes"):
        plan(config(*slurm, "data.group_nodes=3"))


def test_numbers_of_ranks(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [h.slots for h in nodes_of(config())] == [1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,5")
    assert [h.slots for h in nodes_of(config())] == [3]
    slurm = ("launch.target=slurm", "launch.slurm.nodes=2", "launch.slurm.ranks_per_node=4")
    assert [h.slots for h in nodes_of(config(*slurm))] == [4, 4]
    assert len(nodes_of(config(*slurm, "launch.np=8"))) == 2
    with pytest.raises(ConfigError, match="6 ranks are not"):
        nodes_of(config(*slurm, "launch.np=6"))
    with pytest.raises(ConfigError, match="needs a host file"):
        nodes_of(config("launch.target=hosts"))


def test_missing_and_damaged_packs(config: Config, fake_mpirun: Mpirun, project: Path) -> None:
    fake_mpirun(OPENMPI)
    (project / "val" / MANIFEST).unlink()
    made = plan(config())
    assert made.derived.node_bytes is None and made.derived.train_images == 1000
    assert "unknown (pack not found)" in describe(made)
    with pytest.raises(ConfigError, match="val: there is no pack here"):
        made.check()
    (project / "hosts").write_text("a\n")
    plan(config("launch.target=hosts", "launch.hosts=hosts")).check()  # the nodes may see it
    (project / "val" / MANIFEST).write_text("{")
    with pytest.raises(DataError):
        plan(config())


def set_classes(pack: Path, classes: int) -> None:
    changed = json.loads((pack / MANIFEST).read_text())
    changed["classes"] = [f"c{number}" for number in range(classes)]
    changed["class_counts"] = [changed["count"], *[0] * (classes - 1)]
    (pack / MANIFEST).write_text(json.dumps(changed))


def test_what_the_ranks_would_refuse_is_refused_here(
    config: Config, fake_mpirun: Mpirun, project: Path
) -> None:
    fake_mpirun(OPENMPI)
    with pytest.raises(ConfigError, match=r"comm.algorithm: 'rnig' is unknown \(did you mean 'ring'\?\)"):
        plan(config("comm.algorithm=rnig"))
    assert plan(config("comm.algorithm=multicolor_tree")).derived.total_steps == 186
    with pytest.raises(ConfigError, match=r"train.duration: 0.001ep of 62 steps an epoch is less than half"):
        plan(config("train.duration=0.001ep"))
    with pytest.raises(ConfigError, match=r"model\.num_classes"):
        plan(config("model.num_classes=1"))
    set_classes(project / "val", 3)
    with pytest.raises(ConfigError, match=r"data.val: val has 3 classes, train has 2; in one .* only: c2;"):
        plan(config())


def test_one_class_is_a_warning(config: Config, fake_mpirun: Mpirun, project: Path) -> None:
    fake_mpirun(OPENMPI)
    assert "one class only" not in describe(plan(config()))
    for name in ("train", "val"):
        set_classes(project / name, 1)
    assert "the training pack has one class only" in describe(plan(config()))


def test_a_manifest_that_cannot_be_read(config: Config, fake_mpirun: Mpirun, project: Path) -> None:
    """Nor be asked for: a name that is too long stands for a folder that may not be searched."""
    fake_mpirun(OPENMPI)
    with pytest.raises(ConfigError, match=r"it cannot be read: .*File name too long"):
        plan(config(f"data.train={'x' * 300}")).check()


def test_slurm_needs_to_know_the_mpi(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DISTRAIN_MPIRUN", raising=False)
    with pytest.raises(LaunchError, match="no MPI found"):
        plan(config("launch.target=slurm"))
    made = plan(config("launch.target=slurm", "launch.mpi=openmpi4", "launch.slurm.nodes=2"))
    assert made.command.argv[:3] == ("mpirun", "-np", "2") and "--prefix" not in made.command.argv
    made = plan(config("launch.target=slurm", "launch.slurm.starter=srun", "launch.slurm.cpus_per_rank=4"))
    assert made.mpi is None
    assert made.command.argv == (
        *("srun", "--ntasks", "1", "--ntasks-per-node", "1", "--kill-on-bad-exit=1", "--export=ALL"),
        *("--cpu-bind=none", "--mpi=pmix", "--cpus-per-task=4"),
    )
