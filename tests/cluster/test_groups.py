"""Nodes that hold a pack together: what every rank reads, resume on fewer machines, a death while loading."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distrain.bench import machines as emulated
from distrain.bench.machines import Machines
from distrain.data.order import EpochOrder
from distrain.launch import mpi
from tests.cluster.support import assert_nothing_runs, launch

COUNT, GLOBAL_BATCH, STEPS = 128, 16, 8  # images, images of a step, steps of an epoch
RECIPE = """
name: {name}
seed: 5
model: {{name: resnet8}}
data:
  train: {data}/pack
  val: {data}/pack
  batch_per_rank: {batch}
  group_nodes: {group_nodes}
  exchange_window: 0.05
  image_size: 16
  eval_resize: 16
  threads: 1
train:
  duration: 2ep
  log_every: 1st
  eval_every: 2ep
  checkpoint_every: 5st
  tensorboard: false
launch:
  env: {{OMP_NUM_THREADS: 1, PYTHONPATH: "{watch}"}}
"""
# Runs in every rank before the program: each batch of the loader is noted, a rank may die while it loads.
WATCH = """
import json, os, signal, sys
if "distrain" in sys.orig_argv and "-m" in sys.orig_argv:
    from distrain.data import loader, store

    here, epoch, load = os.path.dirname(__file__), loader.TrainLoader.epoch, store.load_pieces

    def noted(self, number, start=0, total=None):
        with open(f"{here}/rank-{os.environ['OMPI_COMM_WORLD_RANK']}.jsonl", "a") as notes:
            for step, batch in enumerate(epoch(self, number, start, total), start):
                notes.write(json.dumps([number, step, batch.indices.tolist()]) + "\\n")
                notes.flush()
                yield batch

    def load_and_die(path, manifest, placed, *rest):
        if os.path.exists(f"{here}/die") and os.uname().nodename == "h2":
            load(path, manifest, placed[: len(placed) // 2], *rest)
            os.kill(os.getpid(), signal.SIGKILL)
        load(path, manifest, placed, *rest)

    loader.TrainLoader.epoch, store.load_pieces = noted, load_and_die
"""


@pytest.fixture(scope="module")
def four() -> Iterator[Machines]:
    """Four machines on one network."""
    reason = emulated.why_not()
    if reason is None and mpi.locate() is None:
        reason = "no mpirun beside Python or in PATH"
    if reason is not None:
        pytest.skip(reason)
    with Machines(4, base="10.94") as made:
        yield made


@pytest.fixture(scope="module")
def pack(packs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack of 128 handwritten digits, as many of each as there are."""
    folder = tmp_path_factory.mktemp("groups")
    files = sorted((packs / "images/train").glob("*/*"), key=lambda path: (path.name, path.parent.name))
    for path in files[:COUNT]:
        (folder / "images" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "images" / path.parent.name)
    words = ["pack", "imagefolder:images", "pack", "--json"]
    subprocess.run([sys.executable, "-m", "distrain", *words], cwd=folder, check=True, capture_output=True)
    return folder


class Project:
    """A folder with a recipe whose runs note what their ranks read.

    Attributes:
        folder: where the launcher is called.
        watch: what the ranks note.
    """

    def __init__(self, folder: Path, pack: Path, name: str, hosts: int, **options: int) -> None:
        self.folder, self.watch, self.run = folder, folder / "watch", folder / "runs" / name
        self.watch.mkdir(parents=True, exist_ok=True)
        (self.watch / "sitecustomize.py").write_text(WATCH)
        (folder / "my hosts.txt").write_text("".join(f"h{host}\n" for host in range(hosts)))
        text = RECIPE.format(name=name, data=pack, watch=self.watch, **options)
        (folder / "run.yaml").write_text(text)

    def read(self) -> dict[tuple[int, int], list[int]]:
        """The global batch of each epoch and step that all ranks read, in the order of the ranks."""
        ranks = [
            {(epoch, step): images for epoch, step, images in map(json.loads, path.read_text().splitlines())}
            for path in sorted(self.watch.glob("rank-*.jsonl"))
        ]
        common = set.intersection(*map(set, ranks))
        return {place: [i for rank in ranks for i in rank[place]] for place in sorted(common)}

    def losses(self) -> dict[int, float]:
        """The loss of each step."""
        records = map(json.loads, (self.run / "metrics.jsonl").read_text().splitlines())
        return {record["step"]: record["loss"] for record in records if record["kind"] == "train"}


def expected() -> dict[tuple[int, int], list[int]]:
    """The global batches of two epochs as the order says, whatever the machines."""
    found = {}
    for epoch in (0, 1):
        order = EpochOrder(5, epoch, COUNT).indices(np.arange(COUNT)).tolist()
        for step in range(STEPS):
            found[epoch, step] = order[step * GLOBAL_BATCH : (step + 1) * GLOBAL_BATCH]
    return found


def test_groups_of_two_read_what_whole_nodes_read_and_resume_on_two_machines(
    four: Machines, pack: Path, tmp_path: Path
) -> None:
    whole = Project(tmp_path / "whole", pack, "whole", hosts=4, batch=4, group_nodes=1)
    job = launch(four, whole.folder)
    assert job.returncode == 0, job.stderr
    assert whole.read() == expected()

    parts = Project(tmp_path / "parts", pack, "parts", hosts=4, batch=4, group_nodes=2)
    cut = launch(four, parts.folder, "launch.env.DISTRAIN_FAULT='rank=1,step=12,kind=kill'")
    assert cut.returncode != 0 and not (parts.run / "result.json").exists(), cut.stderr
    log = "".join(path.read_text() for path in (parts.run / "logs").glob("rank-*.log"))
    assert log.count("64 of 128 images") == 4 and log.count("pack: ") == 8  # training and held-out set
    seen = parts.read()
    assert len(seen) >= 11 and seen == {place: expected()[place] for place in seen}
    for epoch in (0, 1):
        images = [i for place, batch in seen.items() if place[0] == epoch for i in batch]
        assert len(images) == len(set(images)) and (epoch == 1 or sorted(images) == list(range(COUNT)))
    same = {step: loss for step, loss in whole.losses().items() if step <= 10}
    assert {step: loss for step, loss in parts.losses().items() if step <= 10} == same

    for path in parts.watch.glob("rank-*.jsonl"):
        path.unlink()
    fewer = Project(tmp_path / "parts", pack, "parts", hosts=2, batch=8, group_nodes=2)
    resumed = launch(four, fewer.folder, "--resume", "auto")
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads((fewer.run / "result.json").read_text())
    assert (result["resumed_from"], result["world_size"], result["steps"]) == (10, 2, 16)
    assert fewer.read() == {place: batch for place, batch in expected().items() if place >= (1, 2)}


def test_a_rank_that_dies_while_loading_ends_the_job_and_leaves_nothing(
    four: Machines, pack: Path, tmp_path: Path
) -> None:
    project = Project(tmp_path, pack, "dies", hosts=4, batch=4, group_nodes=2)
    (project.watch / "die").touch()
    before = {name: set(files(four, name)) for name in four.names}
    job = launch(four, tmp_path)
    # 137 if mpirun sees the death first; if a peer does, MPI's own code and words.
    assert job.returncode != 0, job.stderr
    assert "the job ended with exit code" in job.stderr.rstrip().splitlines()[-1]
    assert not (project.run / "result.json").exists()
    assert_nothing_runs(four)  # memory without a name ends with the processes that have it
    left = {name: set(files(four, name)) - before[name] for name in four.names}
    assert not any(left.values()), left
    assert not [line for line in job.stderr.splitlines() if "Traceback" in line]


def files(machines: Machines, name: str) -> list[str]:
    """What lies in the shared-memory file system of a machine."""
    listed = machines.run(name, ["ls", "/dev/shm"], capture_output=True, text=True, check=True)
    found: list[str] = listed.stdout.split()
    return found
